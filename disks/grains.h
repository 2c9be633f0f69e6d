// SPDX-License-Identifier: GPL-2.0-or-later
// What VDI, VHD and VMDK have in common: a table from blocks ("grains") of the disk to places in the file, to whose end
// new blocks are added. Table pages are read when needed and written back by a flush, after the data they point to.
#ifndef CLOCHE_DISKS_GRAINS_H
#define CLOCHE_DISKS_GRAINS_H

#include "disks/driver.h"

enum grain_kind { GRAIN_NONE, GRAIN_ZERO, GRAIN_DATA, GRAIN_COMPRESSED, GRAIN_INVALID };

// Threads: LOCK guards the table; ALLOCATE_LOCK, taken before it, what gives out places; FLUSH_LOCK comes before both.
// A block that gets its place is in IN_PROGRESS until its first data is written and its entry says so: others that want
// to write to it wait for that. A flush copies the table at one moment and brings what the copy refers to to stable
// storage before the copy itself.
struct grains {
    struct disk *disk;
    struct file *file;
    void *opaque;        // the driver's
    uint64_t grain_size; // bytes
    uint64_t prefix;     // bytes of its own that a block has before its data
    uint32_t none;       // the entry of a block that has no place
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
    int (*before_store)(struct grains *g); // headers; the data is on stable storage. ALLOCATE_LOCK held
    // Of a plain table in the file, for grains_load() and grains_store(): where it is, and its byte order.
    uint64_t table_at;
    bool big_endian;

    pthread_mutex_t lock, allocate_lock, flush_lock;
    uint32_t **pages;
    uint8_t *dirty; // by page: 1 changed, 2 being stored
    uint64_t pages_loaded, dirty_count;
    // Under ALLOCATE_LOCK:
    bool header_dirty;
    GHashTable *in_progress; // grain + 1
    pthread_cond_t changed;  // something left IN_PROGRESS
    GArray *spares;          // entries whose places failed writes left behind
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
int grains_set_entry(struct grains *g, uint64_t grain, uint32_t entry); // stored by the next flush
// The highest entry in use, plus 1; 0 where no block has a place.
int grains_top(struct grains *g, uint64_t *top);
// The place for LENGTH more bytes at the end of the file, aligned; the file is made that long.
int grains_append(struct grains *g, uint64_t *end, uint64_t length, uint64_t alignment, uint64_t *offset);

// ---- grains_resize.c: nobody else uses the disk ----
// Forgets what is in memory and takes the table to have COUNT entries from here on. What was not flushed is lost.
// 0 or -ENOMEM, with nothing changed.
int grains_set_count(struct grains *g, uint64_t count);
// Takes their places from the blocks from COUNT on, and moves others there, so that the places in use are the lowest
// again. On stable storage when done; at any moment before, the image is valid.
int grains_drop(struct grains *g, uint64_t count);
// Copies a block with its prefix from the place of the entry FROM to that of TO.
int grains_copy(struct grains *g, uint32_t from, uint32_t to);

#endif
