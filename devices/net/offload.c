// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/net/offload.h"

#include "core/machine/nic.h"

#include <string.h>

enum { ETHERTYPE_IPV4 = 0x0800, ETHERTYPE_VLAN = 0x8100, ETHERTYPE_IPV6 = 0x86dd, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17 };
enum { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_PSH = 0x08 };
enum { OPTION_END = 0, OPTION_NOTHING = 1, OPTION_SEGMENT = 2 };
enum { IP_MORE_FRAGMENTS = 0x2000 };
#define SEGMENT_ETHERNET 1400 // offers from here on are meant for 1500 bytes of IP packet

static uint32_t load_be32(const uint8_t *p)
{
    return (uint32_t)load_be16(p) << 16 | load_be16(p + 2);
}

static void store_be32(uint8_t *p, uint32_t value)
{
    store_be16(p, value >> 16);
    store_be16(p + 2, value);
}

// Sums eight bytes a step in host order; the order of bytes does not matter to the sum (RFC 1071, 2).
uint16_t checksum_add(const uint8_t *data, size_t length, uint32_t start)
{
    uint64_t sum = 0;
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        sum += (word & 0xffffffff) + (word >> 32);
    }
    for (; length >= 2; data += 2, length -= 2) {
        uint16_t word;
        memcpy(&word, data, 2);
        sum += word;
    }
    if (length) {
        uint16_t word = 0;
        memcpy(&word, data, 1);
        sum += word;
    }
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    sum = GUINT16_FROM_BE((uint16_t)sum) + (uint64_t)start;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

void checksum_store(uint8_t *frame, size_t length, size_t start, size_t at)
{
    if (start > length || at > length || length - at < 2 || at < start)
        return;
    uint16_t sum = ~checksum_add(frame + start, length - start, 0);
    store_be16(frame + at, sum ? sum : 0xffff);
}

// Where things lie in a frame with TCP or UDP over IP.
struct layout {
    bool ipv6, fragment;
    size_t ip, transport; // offsets
    size_t end;           // of the IP packet
    uint8_t protocol;
};

static bool find_layout(const uint8_t *frame, size_t length, struct layout *layout)
{
    *layout = (struct layout){.ip = NIC_HEADER};
    if (length < NIC_HEADER + 20)
        return false;
    unsigned type = load_be16(frame + 12);
    if (type == ETHERTYPE_VLAN) {
        type = load_be16(frame + 16);
        layout->ip += 4;
    }
    const uint8_t *ip = frame + layout->ip;
    size_t room = length - layout->ip;
    if (type == ETHERTYPE_IPV4 && room >= 20 && ip[0] >> 4 == 4) {
        size_t header = (ip[0] & 15) * 4;
        layout->protocol = ip[9];
        layout->fragment = load_be16(ip + 6) & 0x3fff;
        layout->transport = layout->ip + header;
        layout->end = layout->ip + load_be16(ip + 2);
        return header >= 20 && header <= room;
    }
    if (type == ETHERTYPE_IPV6 && room >= 40 && ip[0] >> 4 == 6) {
        layout->ipv6 = true;
        layout->protocol = ip[6];
        layout->transport = layout->ip + 40;
        layout->end = layout->transport + load_be16(ip + 4);
        return true;
    }
    return false;
}

static uint32_t pseudo_header(const uint8_t *frame, const struct layout *layout, size_t payload)
{
    const uint8_t *ip = frame + layout->ip;
    uint32_t sum = layout->protocol + (payload >> 16) + (payload & 0xffff);
    return layout->ipv6 ? checksum_add(ip + 8, 32, sum) : checksum_add(ip + 12, 8, sum);
}

static void set_transport_checksum(uint8_t *frame, const struct layout *layout, size_t length, size_t at)
{
    size_t payload = length - layout->transport;
    store_be16(frame + at, 0);
    uint16_t sum = ~checksum_add(frame + layout->transport, payload, pseudo_header(frame, layout, payload));
    store_be16(frame + at, sum ? sum : 0xffff);
}

static void set_ip_length(uint8_t *frame, const struct layout *layout, size_t length)
{
    uint8_t *ip = frame + layout->ip;
    if (layout->ipv6) {
        store_be16(ip + 4, length - layout->transport);
        return;
    }
    store_be16(ip + 2, length - layout->ip);
    store_be16(ip + 10, 0);
    store_be16(ip + 10, ~checksum_add(ip, layout->transport - layout->ip, 0));
}

bool checksum_verify(const uint8_t *frame, size_t length, bool *ip_good)
{
    struct layout layout;
    *ip_good = false;
    if (!find_layout(frame, length, &layout))
        return false;
    *ip_good = !layout.ipv6 && checksum_add(frame + layout.ip, layout.transport - layout.ip, 0) == 0xffff;
    if (layout.fragment || layout.end > length || layout.end < layout.transport ||
        (layout.protocol != PROTOCOL_TCP && layout.protocol != PROTOCOL_UDP))
        return false;
    size_t payload = layout.end - layout.transport;
    return checksum_add(frame + layout.transport, payload, pseudo_header(frame, &layout, payload)) == 0xffff;
}

void checksum_fill(uint8_t *frame, size_t length, bool ip, bool transport)
{
    struct layout layout;
    if (!find_layout(frame, length, &layout) || layout.end > length)
        return;
    if (ip && !layout.ipv6)
        set_ip_length(frame, &layout, layout.end);
    bool tcp = layout.protocol == PROTOCOL_TCP, udp = layout.protocol == PROTOCOL_UDP;
    size_t header = tcp ? 20 : 8, at = layout.transport + (tcp ? 16 : 6);
    if (transport && (tcp || udp) && !layout.fragment && layout.end >= layout.transport + header)
        set_transport_checksum(frame, &layout, layout.end, at);
}

bool finish_large(uint8_t *frame, size_t length)
{
    struct layout layout;
    if (!find_layout(frame, length, &layout) || layout.protocol != PROTOCOL_TCP || length < layout.transport + 20)
        return false;
    set_ip_length(frame, &layout, length);
    set_transport_checksum(frame, &layout, length, layout.transport + 16);
    return true;
}

bool segment_tcp(const uint8_t *frame, size_t length, size_t header, unsigned mss,
                 void (*send)(void *opaque, const uint8_t *frame, size_t length), void *opaque)
{
    struct layout layout;
    if (!find_layout(frame, length, &layout) || layout.protocol != PROTOCOL_TCP || length < layout.transport + 20 ||
        header < layout.transport + 20 || header > length || !mss || header + mss > NIC_FRAME_MAX)
        return false;
    g_autofree uint8_t *piece = g_malloc(header + mss);
    uint32_t sequence = load_be32(frame + layout.transport + 4);
    unsigned identification = layout.ipv6 ? 0 : load_be16(frame + layout.ip + 4);
    size_t payload = length - header, done = 0;
    do {
        size_t part = MIN(mss, payload - done);
        memcpy(piece, frame, header);
        memcpy(piece + header, frame + header + done, part);
        if (!layout.ipv6)
            store_be16(piece + layout.ip + 4, identification++);
        store_be32(piece + layout.transport + 4, sequence + done);
        done += part;
        if (done < payload)
            piece[layout.transport + 13] &= ~(TCP_FIN | TCP_PSH);
        set_ip_length(piece, &layout, header + part);
        set_transport_checksum(piece, &layout, header + part, layout.transport + 16);
        send(opaque, piece, header + part);
    } while (done < payload);
    return true;
}

bool large_examine(const uint8_t *frame, size_t length, struct large_frame *large)
{
    struct layout layout;
    if (!find_layout(frame, length, &layout) || layout.protocol != PROTOCOL_TCP || layout.fragment ||
        length < layout.transport + 20)
        return false;
    *large = (struct large_frame){.ipv6 = layout.ipv6,
                                  .transport = layout.transport,
                                  .checksum = layout.transport + 16,
                                  .header = layout.transport + (frame[layout.transport + 12] >> 4) * 4};
    large->pseudo_sum = pseudo_header(frame, &layout, length - layout.transport);
    return large->header >= layout.transport + 20 && large->header <= length;
}

static bool fragment_ipv4(const uint8_t *frame, size_t length, const struct layout *layout, size_t limit,
                          void (*send)(void *opaque, const uint8_t *frame, size_t length), void *opaque)
{
    size_t header = layout->transport, room = (limit - header) & ~(size_t)7, done = 0;
    unsigned field = load_be16(frame + layout->ip + 6);
    g_autofree uint8_t *piece = g_malloc(limit);
    if (layout->ipv6 || layout->end > length || layout->end < header)
        return false;
    size_t payload = layout->end - header;
    while (done < payload) {
        size_t part = MIN(room, payload - done);
        bool more = done + part < payload || (field & IP_MORE_FRAGMENTS);
        memcpy(piece, frame, header);
        memcpy(piece + header, frame + header + done, part);
        store_be16(piece + layout->ip + 6, (field & 0x1fff) + done / 8 + (more ? IP_MORE_FRAGMENTS : 0));
        set_ip_length(piece, layout, header + part);
        send(opaque, piece, header + part);
        done += part;
    }
    return true;
}

bool cut_to_wire(const uint8_t *frame, size_t length, size_t limit,
                 void (*send)(void *opaque, const uint8_t *frame, size_t length), void *opaque)
{
    struct large_frame large;
    struct layout layout;
    if (large_examine(frame, length, &large) && large.header < limit)
        return segment_tcp(frame, length, large.header, limit - large.header, send, opaque);
    return find_layout(frame, length, &layout) && layout.transport + 8 < limit &&
           fragment_ipv4(frame, length, &layout, limit, send, opaque);
}

void raise_segment_offer(uint8_t *frame, size_t length, unsigned segment)
{
    struct large_frame large;
    struct layout layout;
    if (!find_layout(frame, length, &layout) || layout.end > length) // the card may have padded the frame
        return;
    length = layout.end;
    if (!large_examine(frame, length, &large) || !(frame[large.transport + 13] & TCP_SYN))
        return;
    for (size_t at = large.transport + 20; at + 1 < large.header && frame[at] != OPTION_END;) {
        size_t size = frame[at] == OPTION_NOTHING ? 1 : frame[at + 1];
        if (!size || at + size > large.header)
            return;
        if (frame[at] == OPTION_SEGMENT && size == 4) {
            if (load_be16(frame + at + 2) < SEGMENT_ETHERNET)
                return;
            store_be16(frame + at + 2, segment);
            finish_large(frame, length);
            return;
        }
        at += size;
    }
}
