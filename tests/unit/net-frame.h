// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef CLOCHE_NET_FRAME_H
#define CLOCHE_NET_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// An Ethernet frame to DESTINATION with IPv4, TCP and PAYLOAD bytes; returns its length.
static inline size_t tcp_frame(uint8_t *frame, const char *destination, size_t payload)
{
    static const uint8_t headers[] = {0x52, 0x55, 10, 0, 2,  2, 8, 0,  0x45, 0,    0,    0,    0x12, 0x34, 0x40, 0,
                                      64,   6,    0,  0, 10, 0, 2, 15, 10,   0,    2,    2,    0x30, 0x39, 0,    80,
                                      0,    1,    0,  0, 0,  0, 0, 0,  0x50, 0x19, 0xff, 0xff, 0,    0,    0,    0};
    memcpy(frame, destination, 6);
    memcpy(frame + 6, headers, sizeof headers);
    for (size_t i = 0; i < payload; i++)
        frame[54 + i] = i * 7;
    return 54 + payload;
}

#endif
