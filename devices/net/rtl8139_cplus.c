// SPDX-License-Identifier: GPL-2.0-or-later
// The descriptor rings of the Realtek RTL8139C+ (data sheet revision 1.6, 9: C+ mode): frames in any number of pieces,
// checksums and segmentation for the driver, VLAN tags apart from the frame. The high-priority ring is not served:
// drivers leave it empty.
#include "devices/net/offload.h"
#include "devices/net/rtl8139.h"

#include <string.h>

enum { TNPDS = 0x20, CPCR = 0xe0, RDSAR = 0xe4 };
enum { CPCR_SEND = 0x01, CPCR_RECEIVE = 0x02, CPCR_CHECKSUM = 0x20, CPCR_VLAN = 0x40 };

// The first word of a descriptor; the lower half is a length.
#define OWN   0x80000000u // the card's
#define END   0x40000000u // of the ring
#define FIRST 0x20000000u
#define LAST  0x10000000u
// Sending.
#define LARGE        0x08000000u // to be segmented
#define MSS_SHIFT    16
#define MSS_MASK     0x7ffu
#define IP_SUM       0x00040000u
#define UDP_SUM      0x00020000u
#define TCP_SUM      0x00010000u
#define SENT_KEPT    (END | FIRST | LAST | 0xffffu) // no error is reported in between
#define SEND_VLAN    0x00020000u                    // second word: with a tag
#define VLAN_TAG     0x0000ffffu
#define RECEIVE_VLAN 0x00010000u
// Receiving.
#define RECEIVE_SIZE 0x1fffu
#define MULTICAST    0x08000000u
#define PHYSICAL     0x04000000u
#define BROADCAST    0x02000000u
#define IS_TCP       0x00010000u
#define IS_UDP       0x00020000u
#define IP_FAILED    0x00008000u
#define UDP_FAILED   0x00004000u
#define TCP_FAILED   0x00002000u

#define RING_MAX       RTL8139_RING_MAX
#define DESCRIPTOR     16u
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_VLAN 0x8100
#define FCS            4u
#define TALLY          64u // bytes
#define TALLY_DUMP     8u  // in the address's low bits

struct descriptor {
    uint32_t status, vlan;
    uint64_t buffer;
};

static uint32_t get(const struct rtl8139 *rtl, unsigned offset, unsigned size)
{
    return load_le(rtl->regs + offset, size);
}

static uint64_t get_address(const struct rtl8139 *rtl, unsigned offset)
{
    return load_le(rtl->regs + offset, 8);
}

bool rtl8139_sends_by_ring(const struct rtl8139 *rtl)
{
    return rtl->cplus && get(rtl, CPCR, 2) & CPCR_SEND;
}

bool rtl8139_receives_by_ring(const struct rtl8139 *rtl)
{
    return rtl->cplus && get(rtl, CPCR, 2) & CPCR_RECEIVE;
}

static struct descriptor load_descriptor(struct rtl8139 *rtl, uint64_t ring, uint32_t index)
{
    uint8_t bytes[DESCRIPTOR] = {0};
    pci_dma_read(&rtl->pci, (ring & ~255ull) + index * DESCRIPTOR, bytes, sizeof bytes);
    return (struct descriptor){load_le(bytes, 4), load_le(bytes + 4, 4), load_le(bytes + 8, 8)};
}

static void store_status(struct rtl8139 *rtl, uint64_t ring, uint32_t index, uint32_t status, uint32_t vlan)
{
    uint8_t bytes[8];
    store_le(bytes + 4, 4, vlan);
    store_le(bytes, 4, status);
    pci_dma_write(&rtl->pci, (ring & ~255ull) + index * DESCRIPTOR + 4, bytes + 4, 4);
    pci_dma_write(&rtl->pci, (ring & ~255ull) + index * DESCRIPTOR, bytes, 4); // the owner last
}

static uint32_t after(uint32_t index, uint32_t status)
{
    return status & END || index + 1 >= RING_MAX ? 0 : index + 1;
}

// ---- Sending ----

// A frame in the making.
struct outgoing {
    uint8_t *data; // NIC_FRAME_MAX bytes and a VLAN tag
    size_t length;
    struct descriptor first;
    unsigned pieces;
    uint32_t next; // descriptor after it
};

// False: the ring holds no whole frame for the card now.
static bool gather(struct rtl8139 *rtl, uint64_t ring, struct outgoing *frame)
{
    uint32_t at = rtl->send_at;
    for (frame->pieces = 0, frame->length = 0; frame->pieces < RING_MAX;) {
        const struct descriptor piece = load_descriptor(rtl, ring, at);
        if (!(piece.status & OWN))
            return false;
        if (!frame->pieces++)
            frame->first = piece;
        size_t length = MIN(piece.status & 0xffff, NIC_FRAME_MAX - frame->length);
        pci_dma_read(&rtl->pci, piece.buffer, frame->data + frame->length, length);
        frame->length += length;
        at = frame->next = after(at, piece.status);
        if (piece.status & LAST)
            return true;
    }
    return true; // a ring without a last piece: all of it is given back
}

static void insert_tag(struct outgoing *frame)
{
    if (!(frame->first.vlan & SEND_VLAN) || frame->length < NIC_HEADER)
        return;
    memmove(frame->data + 16, frame->data + 12, frame->length - 12);
    store_be16(frame->data + 12, ETHERTYPE_VLAN);
    store_le(frame->data + 14, 2, frame->first.vlan & VLAN_TAG); // as the bytes go over the wire
    frame->length += 4;
}

static void send_piece(void *opaque, const uint8_t *data, size_t length)
{
    struct rtl8139 *rtl = opaque;
    struct iovec iov = {(void *)data, length};
    nic_send(rtl->card.nic, &iov, 1);
}

static void send_frame(struct rtl8139 *rtl, struct outgoing *frame)
{
    uint32_t status = frame->first.status;
    struct large_frame large;
    insert_tag(frame);
    if (status & LARGE) {
        unsigned mss = status >> MSS_SHIFT & MSS_MASK;
        if (large_examine(frame->data, frame->length, &large))
            segment_tcp(frame->data, frame->length, large.header, MIN(mss, NIC_FRAME_WIRE + 4 - large.header),
                        send_piece, rtl);
        return; // nothing else can be segmented
    }
    if (status & (IP_SUM | UDP_SUM | TCP_SUM))
        checksum_fill(frame->data, frame->length, status & IP_SUM, status & (UDP_SUM | TCP_SUM));
    if (frame->length <= NIC_FRAME_WIRE + 4)
        send_piece(rtl, frame->data, frame->length);
}

static void give_back(struct rtl8139 *rtl, uint64_t ring, const struct outgoing *frame)
{
    uint32_t at = rtl->send_at;
    for (unsigned i = 0; i < frame->pieces; i++) {
        const struct descriptor piece = load_descriptor(rtl, ring, at);
        store_status(rtl, ring, at, piece.status & SENT_KEPT, piece.vlan);
        at = after(at, piece.status);
    }
    rtl->send_at = frame->next;
}

void rtl8139_send_ring(struct rtl8139 *rtl)
{
    g_autofree uint8_t *data = g_malloc(NIC_FRAME_MAX + 4);
    struct outgoing frame = {.data = data};
    uint64_t ring = get_address(rtl, TNPDS);
    unsigned frames = 0;
    for (; frames < RING_MAX && pci_bus_master(&rtl->pci) && gather(rtl, ring, &frame); frames++) {
        send_frame(rtl, &frame);
        give_back(rtl, ring, &frame);
    }
    if (!frames)
        return;
    nic_settle(rtl->card.nic);
    rtl8139_add_causes(rtl, RTL8139_ISR_TOK | RTL8139_ISR_TDU);
}

// ---- Receiving ----

static uint32_t checksum_status(const struct rtl8139 *rtl, const uint8_t *frame, size_t length)
{
    bool ip_good, good = checksum_verify(frame, length, &ip_good);
    if (!(get(rtl, CPCR, 2) & CPCR_CHECKSUM) || length < 34 || load_be16(frame + 12) != ETHERTYPE_IPV4)
        return 0;
    uint32_t failed = ip_good ? 0 : IP_FAILED;
    switch (frame[23]) {
    case 6:
        return IS_TCP | failed | (good ? 0 : TCP_FAILED);
    case 17:
        return IS_UDP | failed | (good ? 0 : UDP_FAILED);
    }
    return IS_TCP | IS_UDP | failed; // IP alone
}

// Room of the descriptors from the next one on, up to WANTED bytes.
static bool has_room(struct rtl8139 *rtl, uint64_t ring, size_t wanted)
{
    uint32_t at = rtl->receive_at;
    size_t room = 0;
    for (unsigned i = 0; i < RING_MAX && room < wanted; i++) {
        const struct descriptor piece = load_descriptor(rtl, ring, at);
        if (!(piece.status & OWN))
            return false;
        room += piece.status & RECEIVE_SIZE;
        at = after(at, piece.status);
    }
    return room >= wanted;
}

// The frame with its checksum in as many buffers as it takes.
static void scatter(struct rtl8139 *rtl, uint64_t ring, const uint8_t *data, size_t length, uint32_t flags,
                    uint32_t vlan)
{
    size_t done = 0;
    for (unsigned i = 0; i < RING_MAX && done < length; i++) {
        uint32_t at = rtl->receive_at;
        const struct descriptor piece = load_descriptor(rtl, ring, at);
        size_t part = MIN(length - done, piece.status & RECEIVE_SIZE);
        if (!(piece.status & OWN))
            return; // the guest took it away meanwhile
        pci_dma_write(&rtl->pci, piece.buffer, data + done, part);
        uint32_t status = (piece.status & END) | flags | (done ? 0 : FIRST);
        done += part;
        status |= done == length ? LAST | length : part;
        rtl->receive_at = after(at, piece.status);
        store_status(rtl, ring, at, status, vlan);
    }
}

bool rtl8139_receive_ring(struct rtl8139 *rtl, const uint8_t *frame, size_t length, uint16_t kind)
{
    uint8_t data[NIC_FRAME_WIRE + 4 + FCS];
    uint64_t ring = get_address(rtl, RDSAR);
    uint32_t vlan = 0, flags = kind == RTL8139_RX_BROADCAST   ? BROADCAST
                               : kind == RTL8139_RX_MULTICAST ? MULTICAST
                               : kind == RTL8139_RX_PHYSICAL  ? PHYSICAL
                                                              : 0;
    if (length > NIC_FRAME_WIRE + 4)
        return true; // dropped
    if (!has_room(rtl, ring, length + FCS)) {
        rtl8139_add_causes(rtl, RTL8139_ISR_RXOVW);
        return false;
    }
    flags |= checksum_status(rtl, frame, length);
    memcpy(data, frame, length);
    if (get(rtl, CPCR, 2) & CPCR_VLAN && length >= 18 && load_be16(frame + 12) == ETHERTYPE_VLAN) {
        vlan = RECEIVE_VLAN | load_le(frame + 14, 2);
        memmove(data + 12, data + 16, length - 16);
        length -= 4;
    }
    store_le(data + length, FCS, card_fcs(data, length));
    scatter(rtl, ring, data, length + FCS, flags, vlan);
    rtl8139_add_causes(rtl, RTL8139_ISR_ROK);
    return true;
}

// ---- Counters ----

void rtl8139_dump_tally(struct rtl8139 *rtl)
{
    uint64_t where = get_address(rtl, RTL8139_DTCCR);
    uint8_t tally[TALLY] = {0};
    if (!(where & TALLY_DUMP))
        return;
    store_le(tally, 8, rtl->card.nic->sent);
    store_le(tally + 8, 8, rtl->card.nic->received); // what it did not count stays zero: errors, collisions
    pci_dma_write(&rtl->pci, where & ~(uint64_t)(TALLY - 1), tally, sizeof tally);
    rtl->regs[RTL8139_DTCCR] &= ~TALLY_DUMP;
}
