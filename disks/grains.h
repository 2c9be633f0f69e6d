// SPDX-License-Identifier: GPL-2.0-or-later
// What VDI, VHD and VMDK have in common: a table from blocks ("grains") of the disk to places in the file, to whose end
// new blocks are added. Table pages are read when needed and written back by a flush, after the data they point to.
#ifndef CLOCHE_DISKS_GRAINS_H
#define CLOCHE_DISKS_GRAINS_H

#include "disks/driver.h"

enum grain_kind { GRAIN_NONE, GRAIN_ZERO, GRAIN_DATA, GRAIN_COMPRESSED, GRAIN_INVALID };

// Threads: LOCK guards the table; ALLOCATE_LOCK, taken before it, lets one thread at a time add blocks; FLUSH_LOCK
// comes before both.
struct grains {
    struct disk *disk;
    struct file *file;
    void *opaque;        // the driver's
    uint64_t grain_size; // bytes
    uint64_t count;
    unsigned per_page;    // entries in a page of the table
    uint64_t memory_most; // bytes of table kept in memory

    // Fills ENTRIES (host byte order) of page PAGE.
    int (*load)(struct grains *g, uint64_t page, uint32_t *entries);
    int (*store)(struct grains *g, uint64_t page, const uint32_t *entries);
    // Where the data of ENTRY is, for GRAIN_DATA and GRAIN_COMPRESSED.
    enum grain_kind (*kind)(struct grains *g, uint32_t entry, uint64_t *offset);
    // Makes room for a block and whatever goes with it (its data reads as zeroes); returns the new entry.
    int (*allocate)(struct grains *g, uint64_t grain, uint32_t *entry);
    int (*before_store)(struct grains *g); // headers; the data is on stable storage
    // Of a plain table in the file, for grains_load() and grains_store(): where it is, and its byte order.
    uint64_t table_at;
    bool big_endian;

    pthread_mutex_t lock, allocate_lock, flush_lock;
    uint32_t **pages;
    uint8_t *dirty; // by page
    uint64_t pages_loaded, dirty_count;
    bool header_dirty;
    bool has_spare; // under ALLOCATE_LOCK: SPARE is a place that a failed write left behind
    uint32_t spare;
};

bool grains_init(struct grains *g, GError **error); // the fields above the blank line are set
void grains_free(struct grains *g);
int grains_map(struct grains *g, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent);
int grains_write(struct grains *g, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned iov_count);
// Blocks that exist keep their place; the host gets the space back.
int grains_zero(struct grains *g, uint64_t offset, uint64_t length, unsigned flags);
int grains_flush(struct grains *g);
// LOAD and STORE of a table that lies in the file in one piece, COUNT entries of 32 bits from TABLE_AT on.
int grains_load(struct grains *g, uint64_t page, uint32_t *entries);
int grains_store(struct grains *g, uint64_t page, const uint32_t *entries);
int grains_entry(struct grains *g, uint64_t grain, bool may_block, uint32_t *entry);
// The place for LENGTH more bytes at the end of the file, aligned; the file is made that long.
int grains_append(struct grains *g, uint64_t *end, uint64_t length, uint64_t alignment, uint64_t *offset);

#endif
