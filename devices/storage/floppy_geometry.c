// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/storage/floppy_geometry.h"

#include <glib.h>

#define SECTOR 512u

// Every standard geometry; media of another size get the first one that holds them.
static const struct floppy_geometry geometries[] = {
    {40, 1, 8, RATE_250K, 1},  {40, 1, 9, RATE_250K, 1},  {40, 2, 8, RATE_250K, 1},  {40, 2, 9, RATE_250K, 1},
    {80, 1, 9, RATE_250K, 4},  {80, 2, 8, RATE_250K, 4},  {80, 2, 9, RATE_250K, 4},  {80, 2, 10, RATE_250K, 4},
    {82, 2, 10, RATE_250K, 4}, {80, 2, 15, RATE_500K, 2}, {80, 2, 18, RATE_500K, 4}, {80, 2, 20, RATE_500K, 4},
    {80, 2, 21, RATE_500K, 4}, {82, 2, 21, RATE_500K, 4}, {83, 2, 22, RATE_500K, 4}, {80, 2, 24, RATE_1M, 5},
    {80, 2, 36, RATE_1M, 5},   {80, 2, 39, RATE_1M, 5},   {80, 2, 40, RATE_1M, 5},   {80, 2, 44, RATE_1M, 5},
    {80, 2, 48, RATE_1M, 5},
};

static uint64_t geometry_size(const struct floppy_geometry *geometry)
{
    return (uint64_t)geometry->tracks * geometry->heads * geometry->sectors * SECTOR;
}

const struct floppy_geometry *floppy_geometry_find(uint64_t size)
{
    const struct floppy_geometry *best = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(geometries); i++) {
        uint64_t each = geometry_size(&geometries[i]);
        if (each == size)
            return &geometries[i];
        if (each > size && (!best || each < geometry_size(best)))
            best = &geometries[i];
    }
    return best;
}

bool floppy_geometry_takes(const struct floppy_geometry *geometry, enum floppy_rate rate)
{
    // 300 and 250 kbit/s are the same medium at two spindle speeds.
    return geometry->rate == RATE_250K ? rate == RATE_250K || rate == RATE_300K : rate == geometry->rate;
}

uint64_t floppy_geometry_offset(const struct floppy_geometry *geometry, unsigned cylinder, unsigned head,
                                unsigned sector)
{
    return (((uint64_t)cylinder * geometry->heads + head) * geometry->sectors + sector - 1) * SECTOR;
}
