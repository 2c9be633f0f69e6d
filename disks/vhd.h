// SPDX-License-Identifier: GPL-2.0-or-later
// Virtual Hard Disk images after Microsoft's "Virtual Hard Disk Image Format Specification" 1.0. Shared by the vhd*.c
// files.
#ifndef CLOCHE_DISKS_VHD_H
#define CLOCHE_DISKS_VHD_H

#include "disks/be.h"
#include "disks/grains.h"

enum { FOOTER = 512, DYNAMIC_HEADER = 1024, SECTOR = 512 };
enum { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };
enum { // footer
    F_FEATURES = 8,
    F_VERSION = 12,
    F_DATA_AT = 16,
    F_TIME = 24,
    F_CREATOR = 28,
    F_CREATOR_VERSION = 32,
    F_HOST = 36,
    F_ORIGINAL_SIZE = 40,
    F_SIZE = 48,
    F_GEOMETRY = 56,
    F_TYPE = 60,
    F_CHECKSUM = 64,
    F_UUID = 68,
    // Ours, in the reserved field, while a fixed image grows: where the footer of the smaller size still lies in the
    // data, whose place reads as zeroes. 0: nowhere.
    F_STALE = FOOTER - 8,
};
enum { // dynamic header
    H_DATA_AT = 8,
    H_TABLE_AT = 16,
    H_VERSION = 24,
    H_ENTRIES = 28,
    H_BLOCK = 32,
    H_CHECKSUM = 36,
    H_PARENT_UUID = 40,
    H_PARENT_NAME = 64,
    H_LOCATORS = 576,
};
#define VHD_NONE 0xffffffffu
#define VHD_MOST (2040ull * 1024 * MiB)

// Threads: immutable after opening except by a resize; BITMAP_LOCK guards BITMAPS and COMPLETE, the blocks' allocation
// DATA_END.
struct vhd {
    uint8_t footer[FOOTER], header[DYNAMIC_HEADER];
    uint32_t type;
    struct grains grains; // dynamic and differencing
    uint64_t table_at, block_size, bitmap_size;
    uint64_t data_end;   // where the footer is, or the next block goes
    uint64_t stale;      // fixed: see F_STALE
    GHashTable *bitmaps; // block number + 1 -> bitmap, of blocks that have some sectors only
    uint8_t *complete;   // dynamic: a bit for each block that is known to have all its sectors
    pthread_mutex_t bitmap_lock;
};

// The ones' complement of the sum of all bytes but the four from SKIP on, where it is kept.
uint32_t vhd_checksum(const uint8_t *data, unsigned length, unsigned skip);
bool vhd_footer_is_valid(const uint8_t *footer);
// Cylinders, heads and sectors for SIZE bytes, after the appendix "CHS Calculation" of the specification.
void vhd_put_geometry(uint8_t *out, uint64_t size);
// Lets readers go by the size in the footer and not by the rounded geometry.
void vhd_put_creator(uint8_t *footer);

// vhd_resize.c
int vhd_resize(struct disk *disk, uint64_t size);
// Ends what a crash cut short: both copies of a dynamic image's footer agree, a fixed one has no stale footer.
int vhd_recover(struct disk *disk);

#endif
