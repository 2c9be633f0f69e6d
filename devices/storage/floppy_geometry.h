// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef CLOCHE_FLOPPY_GEOMETRY_H
#define CLOCHE_FLOPPY_GEOMETRY_H

#include <stdint.h>

enum rate { RATE_500K, RATE_300K, RATE_250K, RATE_1M }; // as in the data rate register

struct floppy_geometry {
    uint8_t tracks, heads, sectors;
    enum rate rate;
    uint8_t cmos; // drive type for firmware
};

// The geometry of a medium of SIZE bytes: the exact one, else the smallest that holds it, else NULL.
const struct floppy_geometry *floppy_geometry_find(uint64_t size);

#endif
