// SPDX-License-Identifier: GPL-2.0-or-later
// Checksums and segmentation that cards do for their guests.
#ifndef CLOCHE_OFFLOAD_H
#define CLOCHE_OFFLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline unsigned load_be16(const uint8_t *p)
{
    return p[0] << 8 | p[1];
}

static inline void store_be16(uint8_t *p, unsigned value)
{
    p[0] = value >> 8;
    p[1] = value;
}

// The Internet checksum of [START, LENGTH) of FRAME, not complemented, folded to 16 bits (RFC 1071).
uint16_t checksum_add(const uint8_t *data, size_t length, uint32_t sum);
// Stores the complement of the sum over [start, LENGTH) at byte AT; what AT holds is part of the sum (a pseudo header).
// Does nothing where that does not fit.
void checksum_store(uint8_t *frame, size_t length, size_t start, size_t at);
// Sets the IPv4 header's checksum (IP) and that of TCP or UDP (TRANSPORT) of a frame that is to be sent. Does nothing
// where there is none of that kind, or only a part.
void checksum_fill(uint8_t *frame, size_t length, bool ip, bool transport);
// Whether the IPv4 header and the TCP or UDP checksum of a received frame are right; unknown kinds are not.
bool checksum_verify(const uint8_t *frame, size_t length, bool *ip_good);

// Cuts a TCP frame over IPv4 or IPv6 with HEADER bytes up to the payload into frames of at most MSS payload bytes, with
// lengths, identification, sequence numbers, flags and checksums set, and gives each to SEND. False when FRAME is no
// such.
bool segment_tcp(const uint8_t *frame, size_t length, size_t header, unsigned mss,
                 void (*send)(void *opaque, const uint8_t *frame, size_t length), void *opaque);
// The start of a TCP frame over IPv4 or IPv6.
struct large_frame {
    bool ipv6;
    size_t transport, checksum; // offsets of the TCP header and of its checksum
    size_t header;              // bytes up to the payload
    uint16_t pseudo_sum;        // of the pseudo header, folded, not complemented
};
// False: FRAME is no such, or a fragment.
bool large_examine(const uint8_t *frame, size_t length, struct large_frame *large);
// Gives a frame of any length to SEND in pieces that fit the wire (LIMIT bytes): TCP segments, or IPv4 fragments.
// False: it can be cut neither way.
bool cut_to_wire(const uint8_t *frame, size_t length, size_t limit,
                 void (*send)(void *opaque, const uint8_t *frame, size_t length), void *opaque);
// A TCP SYN over IPv4 or IPv6 that offers segments of an ordinary Ethernet: raises the offer to SEGMENT bytes (in
// place, with the checksum), for a peer whose longer segments are cut on their way.
void raise_segment_offer(uint8_t *frame, size_t length, unsigned segment);
// Sets IP length and checksum and the TCP checksum of one large frame, for back ends that take it whole.
bool finish_large(uint8_t *frame, size_t length);

#endif
