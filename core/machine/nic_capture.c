// SPDX-License-Identifier: GPL-2.0-or-later
// Packet capture in the pcapng format (IETF draft-ietf-opsawg-pcapng): one section, one Ethernet interface.
#include "core/machine/nic.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK_SECTION = 0x0a0d0d0a, BLOCK_INTERFACE = 1, BLOCK_PACKET = 6 };
enum { OPTION_END = 0, OPTION_NAME = 2, OPTION_RESOLUTION = 9, OPTION_FLAGS = 2 };
#define LINK_ETHERNET 1

struct nic_capture {
    FILE *file;
};

static void put(GByteArray *block, uint64_t value, unsigned size)
{
    uint8_t bytes[8];
    store_le(bytes, size, value);
    g_byte_array_append(block, bytes, size);
}

static void put_padded(GByteArray *block, const void *data, size_t length)
{
    static const uint8_t zero[4];
    g_byte_array_append(block, data, length);
    g_byte_array_append(block, zero, -length & 3);
}

static void put_option(GByteArray *block, uint16_t code, const void *data, uint16_t length)
{
    put(block, code, 2);
    put(block, length, 2);
    put_padded(block, data, length);
}

static void write_block(struct nic_capture *capture, uint32_t type, GByteArray *body)
{
    uint8_t head[8], tail[4];
    uint32_t length = body->len + 12;
    store_le(head, 4, type);
    store_le(head + 4, 4, length);
    store_le(tail, 4, length);
    fwrite(head, sizeof head, 1, capture->file);
    fwrite(body->data, body->len, 1, capture->file);
    fwrite(tail, sizeof tail, 1, capture->file);
    g_byte_array_unref(body);
}

struct nic_capture *capture_open(const char *path, const char *name, GError **error)
{
    FILE *file = fopen(path, "wbe");
    if (!file) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "The capture file \"%s\" cannot be written: %s.", path,
                    g_strerror(errno));
        return NULL;
    }
    struct nic_capture *capture = g_new0(struct nic_capture, 1);
    capture->file = file;
    GByteArray *section = g_byte_array_new();
    put(section, 0x1a2b3c4d, 4);
    put(section, 1, 4); // version 1.0
    put(section, UINT64_MAX, 8);
    write_block(capture, BLOCK_SECTION, section);
    GByteArray *interface = g_byte_array_new();
    put(interface, LINK_ETHERNET, 4);
    put(interface, 0, 4); // no limit of length
    put_option(interface, OPTION_NAME, name, strlen(name));
    put_option(interface, OPTION_RESOLUTION, "\x09", 1); // nanoseconds
    put(interface, OPTION_END, 4);
    write_block(capture, BLOCK_INTERFACE, interface);
    fflush(file);
    return capture;
}

void capture_frame(struct nic_capture *capture, int64_t wall, bool from_guest, const uint8_t *data, size_t length)
{
    GByteArray *packet = g_byte_array_sized_new(length + 64);
    uint8_t flags[4];
    put(packet, 0, 4);
    put(packet, (uint64_t)wall >> 32, 4);
    put(packet, (uint32_t)wall, 4);
    put(packet, length, 4);
    put(packet, length, 4);
    put_padded(packet, data, length);
    store_le(flags, 4, from_guest ? 2 : 1);
    put_option(packet, OPTION_FLAGS, flags, 4);
    put(packet, OPTION_END, 4);
    write_block(capture, BLOCK_PACKET, packet);
    fflush(capture->file);
}

void capture_close(struct nic_capture *capture)
{
    if (!capture)
        return;
    fclose(capture->file);
    g_free(capture);
}
