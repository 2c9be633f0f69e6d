// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/net/card.h"

#include <zlib.h>

uint32_t card_hash(const uint8_t *mac)
{
    uint32_t crc = 0xffffffff;
    for (unsigned i = 0; i < 6; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            bool carry = (crc >> 31) ^ (mac[i] >> bit & 1);
            crc = crc << 1 ^ (carry ? 0x04c11db7 : 0);
        }
    }
    return crc;
}

uint32_t card_fcs(const uint8_t *frame, size_t length)
{
    return crc32(0, frame, length);
}
