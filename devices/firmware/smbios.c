// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/firmware/smbios.h"
#include "devices/firmware/fw_cfg.h"

#include <string.h>

#define ANCHOR_BYTES 31
#define MAX_CHUNK    (16 * GiB) // largest memory device that a 15-bit size in MiB can name, rounded down

struct builder {
    GByteArray *bytes;
    uint16_t handle, count, largest;
    unsigned start;
};

static void put(struct builder *b, unsigned size, uint64_t value)
{
    uint8_t bytes[8];
    store_le(bytes, size, value);
    g_byte_array_append(b->bytes, bytes, size);
}

static void begin(struct builder *b, uint8_t type, uint16_t handle)
{
    b->start = b->bytes->len;
    put(b, 1, type);
    put(b, 1, 0);
    put(b, 2, handle);
}

// STRINGS: up to the first NULL; numbered from 1 in the structure.
static void end(struct builder *b, const char *const *strings)
{
    b->bytes->data[b->start + 1] = b->bytes->len - b->start;
    for (; strings && *strings; strings++)
        g_byte_array_append(b->bytes, (const uint8_t *)*strings, strlen(*strings) + 1);
    put(b, 1, 0);
    if (b->bytes->data[b->bytes->len - 2] != 0 || !strings)
        put(b, 1, 0);
    b->largest = MAX(b->largest, b->bytes->len - b->start);
    b->count++;
}

static void add_identity(struct builder *b, const uint8_t *uuid)
{
    static const uint8_t no_uuid[16];
    begin(b, 0, 0x0000); // firmware
    put(b, 1, 1);
    put(b, 1, 2);
    put(b, 2, 0xe800);
    put(b, 1, 3);
    put(b, 1, 0);
    put(b, 8, 0x08);   // characteristics are not given
    put(b, 2, 0x1c00); // ACPI is not listed here; virtual machine, UEFI off
    put(b, 4, 0xffff0100);
    end(b, (const char *const[]){"Cloche", "1.0", "01/01/2024", NULL});
    begin(b, 1, 0x0100); // system
    put(b, 4, 0x00030201);
    g_byte_array_append(b->bytes, uuid ? uuid : no_uuid, 16);
    put(b, 1, 6); // woken by the power switch
    put(b, 2, 0);
    end(b, (const char *const[]){"Cloche", "Cloche PC", "1.0", NULL});
    begin(b, 3, 0x0300); // chassis
    put(b, 1, 1);
    put(b, 1, 1); // other
    put(b, 3, 0);
    put(b, 4, 0x03030303);
    put(b, 4, 0);
    put(b, 4, 0);
    put(b, 1, 0);
    end(b, (const char *const[]){"Cloche", NULL});
}

static void add_processor(struct builder *b, unsigned index)
{
    g_autofree char *socket = g_strdup_printf("CPU %u", index);
    begin(b, 4, 0x0400 + index);
    put(b, 1, 1);
    put(b, 1, 3); // central processor
    put(b, 1, 1); // other family
    put(b, 1, 2);
    put(b, 8, 0);
    put(b, 1, 3);
    put(b, 1, 0);
    put(b, 2, 0);
    put(b, 2, 2000);
    put(b, 2, 2000);
    put(b, 1, 0x41); // populated, enabled
    put(b, 1, 1);
    put(b, 2, 0xffff);
    put(b, 2, 0xffff);
    put(b, 2, 0xffff);
    put(b, 3, 0);
    put(b, 1, 1); // cores, enabled, threads
    put(b, 1, 1);
    put(b, 1, 1);
    put(b, 2, 0x0004); // 64-bit capable
    put(b, 2, 1);
    put(b, 2, 1);
    put(b, 2, 1);
    put(b, 2, 1);
    end(b, (const char *const[]){socket, "Cloche", "1.0", NULL});
}

static void add_memory(struct builder *b, uint64_t size)
{
    unsigned devices = (size + MAX_CHUNK - 1) / MAX_CHUNK;
    begin(b, 16, 0x1000); // array
    put(b, 1, 1);
    put(b, 1, 3); // system memory
    put(b, 1, 6); // multi-bit ECC
    put(b, 4, 0x80000000);
    put(b, 2, 0xfffe);
    put(b, 2, devices);
    put(b, 8, size);
    end(b, NULL);
    for (unsigned i = 0; i < devices; i++) {
        g_autofree char *slot = g_strdup_printf("DIMM %u", i);
        begin(b, 17, 0x1100 + i);
        put(b, 2, 0x1000);
        put(b, 2, 0xfffe);
        put(b, 4, 0xffffffff);
        put(b, 2, MIN(MAX_CHUNK, size - i * MAX_CHUNK) / MiB);
        put(b, 1, 9); // DIMM
        put(b, 1, 0);
        put(b, 1, 1);
        put(b, 1, 0);
        put(b, 1, 7); // RAM
        put(b, 2, 2);
        put(b, 2, 0);
        put(b, 1, 2);
        put(b, 4, 0);
        put(b, 4, 0);
        put(b, 2, 0);
        put(b, 6, 0);
        end(b, (const char *const[]){slot, "Cloche", NULL});
    }
}

static void build(struct machine *machine, const uint8_t *uuid, struct builder *b)
{
    *b = (struct builder){.bytes = g_byte_array_new()};
    add_identity(b, uuid);
    for (unsigned i = 0; machine->cpus && i < machine->cpus->count; i++)
        add_processor(b, i);
    add_memory(b, machine->ram_size);
    begin(b, 32, 0x2000); // boot status
    put(b, 6, 0);
    put(b, 1, 0);
    end(b, NULL);
    begin(b, 127, 0x7f00);
    end(b, NULL);
}

static uint8_t complement(const uint8_t *bytes, unsigned length)
{
    uint8_t sum = 0;
    for (unsigned i = 0; i < length; i++)
        sum += bytes[i];
    return -sum;
}

static void write_anchor(const struct builder *b, uint32_t tables, uint8_t anchor[ANCHOR_BYTES])
{
    memset(anchor, 0, ANCHOR_BYTES);
    memcpy(anchor, "_SM_", 4);
    anchor[5] = ANCHOR_BYTES;
    anchor[6] = 2;
    anchor[7] = 8;
    store_le(anchor + 8, 2, b->largest);
    memcpy(anchor + 16, "_DMI_", 5);
    store_le(anchor + 22, 2, b->bytes->len);
    store_le(anchor + 24, 4, tables);
    store_le(anchor + 28, 2, b->count);
    anchor[30] = 0x28;
    anchor[21] = complement(anchor + 16, 15);
    anchor[4] = complement(anchor, ANCHOR_BYTES);
}

void smbios_offer(struct machine *machine, struct fw_cfg *fw_cfg, const uint8_t *uuid)
{
    struct builder b;
    uint8_t anchor[ANCHOR_BYTES];
    build(machine, uuid, &b);
    write_anchor(&b, 0, anchor); // firmware fills the address in
    fw_cfg_add_file(fw_cfg, "etc/smbios/smbios-tables", b.bytes->data, b.bytes->len);
    fw_cfg_add_file(fw_cfg, "etc/smbios/smbios-anchor", anchor, sizeof(anchor));
    g_byte_array_unref(b.bytes);
}

void smbios_place(struct machine *machine, uint64_t address)
{
    struct builder b;
    uint8_t anchor[ANCHOR_BYTES];
    build(machine, NULL, &b);
    write_anchor(&b, address + 32, anchor);
    address_space_write(machine->memory, address, anchor, sizeof(anchor));
    address_space_write(machine->memory, address + 32, b.bytes->data, b.bytes->len);
    g_byte_array_unref(b.bytes);
}
