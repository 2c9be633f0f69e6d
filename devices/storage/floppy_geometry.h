// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef CLOCHE_FLOPPY_GEOMETRY_H
#define CLOCHE_FLOPPY_GEOMETRY_H

#include <stdbool.h>
#include <stdint.h>

enum floppy_rate { RATE_500K, RATE_300K, RATE_250K, RATE_1M }; // as in the data rate register

struct floppy_geometry {
    uint8_t tracks, heads, sectors;
    enum floppy_rate rate;
    uint8_t cmos; // drive type for firmware
};

// The geometry of a medium of SIZE bytes: the exact one, else the smallest that holds it, else NULL.
const struct floppy_geometry *floppy_geometry_find(uint64_t size);
// Whether the medium can be read at the data rate RATE.
bool floppy_geometry_takes(const struct floppy_geometry *geometry, enum floppy_rate rate);
// Where a sector (from 1) lies in the image, in bytes.
uint64_t floppy_geometry_offset(const struct floppy_geometry *geometry, unsigned cylinder, unsigned head,
                                unsigned sector);

#endif
