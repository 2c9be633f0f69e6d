// SPDX-License-Identifier: GPL-2.0-or-later
// Guest physical memory: the RAM backing, the map "what is at this address", and write tracking.
//
// RAM of a machine (main memory, video memory, ROM images) is one sparse memfd mapped once into the monitor. A byte of
// it is named by its *ram offset*; write tracking and translated code are keyed by ram offset, so that aliases of one
// page (PAM, moved BARs) are one page to them.
#ifndef CLOCHE_MEMORY_H
#define CLOCHE_MEMORY_H

#include "core/base/base.h"

// ---- RAM backing ------------------------------------------------------------------------------------------------

// Why writes to a page must take the slow path. One byte per page, changed atomically by any thread.
// A page with any bit set has no writable TLB entry; TRACK_REVOKING is set while the entries are being taken away.
enum track_bit {
    TRACK_CODE = 1 << 0,  // translated or decoded code was made from it
    TRACK_TABLE = 1 << 1, // page tables; unused: the translator compares them when CR3 is loaded
    TRACK_VIDEO = 1 << 2, // display damage is collected from it
    TRACK_DIRTY = 1 << 3, // migration and incremental snapshots
    TRACK_COW = 1 << 4,   // a live snapshot has not copied it yet
    TRACK_REVOKING = 1 << 7,
};
#define TRACK_BITS 5

struct ram {
    uint8_t *host;                // start of the mapping: ram offset 0
    uint64_t capacity;            // bytes reserved, multiple of the page size
    uint64_t used;                // bytes handed out by ram_alloc()
    int memfd;
    bool from_file;               // see ram_map_file()
    _Atomic uint8_t *track;       // one byte of track_bits per page
    struct ram_tracker *trackers; // TRACK_BITS entries, see ram_set_tracker()
    void (*revoke)(void *opaque, uint64_t ram_offset); // set by the cpu layer, see ram_set_revoke()
    void (*revoke_range)(void *opaque, uint64_t ram_offset, uint64_t length); // may be NULL, see ram_set_revoke_range()
    void *revoke_opaque;
    struct ram_damage *damages; // under damage_lock
    GMutex damage_lock;
};

// Called around a write to a page that has the tracker's bit: BEFORE with the old bytes still there, AFTER with the new
// ones. OFFSET and LENGTH stay inside one page. Runs on the writer's thread, possibly on several at once.
enum ram_write_phase { RAM_WRITE_BEFORE, RAM_WRITE_AFTER };
typedef void ram_tracker_fn(void *opaque, uint64_t ram_offset, uint64_t length, enum ram_write_phase phase);
struct ram_tracker {
    ram_tracker_fn *fn;
    void *opaque;
};

// CAPACITY: the most bytes that all ram_alloc() calls together may ask for. NULL and a GError when the host refuses.
struct ram *ram_new(uint64_t capacity, GError **error);
void ram_free(struct ram *ram);
// The first LENGTH bytes (whole pages) show the content of FD from now on, privately: writes stay in this process, pages
// that are only read are shared with every other user of the file. The descriptor may be closed, the file even removed
// afterwards, but not changed. Before the machine starts; MEMFD no longer holds these pages then (from_file is set).
bool ram_map_file(struct ram *ram, int fd, uint64_t length, GError **error);
// A zeroed, page-aligned block; returns its ram offset. Blocks are never freed before the machine is.
uint64_t ram_alloc(struct ram *ram, uint64_t size);

void ram_set_tracker(struct ram *ram, enum track_bit bit, ram_tracker_fn *fn, void *opaque);
// FN must make sure, before it returns, that no vCPU can write to the page without coming through ram_write_begin().
void ram_set_revoke(struct ram *ram, void (*fn)(void *opaque, uint64_t ram_offset), void *opaque);
// The same for many pages at once (display damage): one round over the vCPUs in place of one per page. Same OPAQUE.
void ram_set_revoke_range(struct ram *ram, void (*fn)(void *opaque, uint64_t ram_offset, uint64_t length));
// Sets BIT on the page at RAM_OFFSET. When this returns, every later write to it is seen by the tracker.
void ram_track(struct ram *ram, uint64_t ram_offset, enum track_bit bit);
void ram_untrack(struct ram *ram, uint64_t ram_offset, enum track_bit bit);
static inline unsigned ram_tracked(const struct ram *ram, uint64_t ram_offset)
{
    return atomic_load_explicit(&ram->track[ram_offset >> PAGE_SHIFT], memory_order_relaxed);
}
// Every writer of guest RAM that does not go through a writable TLB entry calls these around its store.
void ram_write_begin(struct ram *ram, uint64_t ram_offset, uint64_t length);
void ram_write_end(struct ram *ram, uint64_t ram_offset, uint64_t length);

// Sets BIT on all pages of a range, with one revocation where possible.
void ram_track_range(struct ram *ram, uint64_t ram_offset, uint64_t length, enum track_bit bit);

// Damage of a block (video memory), page-wise, carried by TRACK_VIDEO.
struct ram_damage;
struct ram_damage *ram_damage_new(struct ram *ram, uint64_t ram_offset, uint64_t size);
void ram_damage_free(struct ram_damage *damage);
// Moves the pages written since the last call into BITMAP (one bit per page of the block, lowest page first, bits are
// or-ed in) and watches them again. Returns how many there were.
unsigned ram_damage_harvest(struct ram_damage *damage, uint64_t *bitmap);
void ram_damage_mark(struct ram_damage *damage, uint64_t offset, uint64_t length); // written by a device itself

// ---- Address spaces ---------------------------------------------------------------------------------------------

// Device registers, memory-mapped or ports. Accesses arrive with the region's offset and size 1, 2, 4 or 8; the bus splits
// wider and widens narrower ones to [min_size, max_size] (0 means 1 and 4). Called with the machine lock held unless
// the region is marked lockless.
struct io_ops {
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
    unsigned min_size, max_size;
};

enum region_kind { REGION_RAM, REGION_ROM, REGION_IO };

struct region {
    const char *name;
    enum region_kind kind;
    uint64_t size;
    bool lockless;             // REGION_IO: ops do their own locking
    uint64_t ram_offset;       // REGION_RAM, REGION_ROM: where in the backing
    const struct io_ops *ops;  // REGION_IO; REGION_ROM: called for writes if set (flash), else writes are dropped
    void *opaque;
    // REGION_IO, lockless: writes of DOORBELL_SIZE bytes to one of so many places, DOORBELL_STRIDE bytes apart, carry
    // nothing but their address. An engine may hand them to the ops on a thread of its own, several as one, with the
    // value 0. None: doorbell_count is 0.
    uint32_t doorbell_offset, doorbell_stride, doorbell_size, doorbell_count;
    // Owned by the address space:
    struct address_space *space;
    uint64_t base;
    int priority;
};

void region_init_ram(struct region *region, const char *name, uint64_t ram_offset, uint64_t size);
void region_init_rom(struct region *region, const char *name, uint64_t ram_offset, uint64_t size);
void region_init_io(struct region *region, const char *name, const struct io_ops *ops, void *opaque, uint64_t size);

// One piece of the flattened map. Valid until the reader's next quiescent point (see address_space_find()).
struct mapping {
    uint64_t start, size;      // addresses
    struct region *region;
    uint64_t offset;           // of START inside the region
    uint8_t *host;             // of START, RAM and ROM only
    uint64_t ram_offset;       // of START, RAM and ROM only
};

struct address_space;
// RAM may be NULL for the port space. IO_LOCK is taken around io_ops.
struct address_space *address_space_new(const char *name, struct ram *ram, uint64_t size, GRecMutex *io_lock);
void address_space_free(struct address_space *space);
// CHANGED is called after each committed change, with all readers still able to hold old mappings; the cpu layer
// flushes every TLB there.
void address_space_set_changed(struct address_space *space, void (*changed)(void *opaque), void *opaque);

// Regions overlap by priority: the higher one is seen; of equal ones the one mapped last. Machine lock held.
void address_space_map(struct address_space *space, struct region *region, uint64_t base, int priority);
void address_space_unmap(struct region *region);
// Changes between begin and commit take effect together.
void address_space_begin(struct address_space *space);
void address_space_commit(struct address_space *space);

// Folded: bit 20 of every address below 4 GiB counts as 0 (a closed A20 gate). Machine lock held.
void address_space_set_fold(struct address_space *space, bool folded);

// What is at ADDRESS, or NULL: nothing is. Lock-free. The result stays valid
// - on a vCPU thread until its next device access or block end (CHANGED returns when all have passed one),
// - on a thread that holds the machine lock until it releases the lock or changes the map.
// Every other thread uses address_space_lookup().
const struct mapping *address_space_find(struct address_space *space, uint64_t address);
// The same as a copy, from any thread. False: nothing is there.
bool address_space_lookup(struct address_space *space, uint64_t address, struct mapping *mapping);
// How many maps wait for their last reader: bounded however often the guest moves its BARs.
unsigned address_space_retired(struct address_space *space);

// A thread that must be reachable while it waits for the lock (a vCPU, for cpu_set_run_on_all()) says so here: BEGIN runs
// before it blocks, END once it holds the lock. NULL: none. For the calling thread.
struct lock_waiter {
    void (*begin)(void *opaque);
    void (*end)(void *opaque);
    void *opaque;
};
void io_lock_set_waiter(const struct lock_waiter *waiter);
void io_lock_take(GRecMutex *lock); // NULL lock: nothing; every taker of the machine lock comes through here
void io_lock_release(GRecMutex *lock);

// Accesses of any length from any thread. RAM is written through the trackers; nothing there reads all ones; ROM
// ignores writes. Device accesses take the lock. Scalars of 1, 2, 4, 8 aligned bytes in RAM are single-copy atomic.
void address_space_read(struct address_space *space, uint64_t address, void *data, uint64_t length);
void address_space_write(struct address_space *space, uint64_t address, const void *data, uint64_t length);
uint64_t address_space_load(struct address_space *space, uint64_t address, unsigned size);
void address_space_store(struct address_space *space, uint64_t address, uint64_t value, unsigned size);
// Direct access for DMA: host pointer to LENGTH bytes at ADDRESS if they lie in one RAM mapping, else NULL. Writers
// bracket their stores with ram_write_begin()/ram_write_end() at *RAM_OFFSET (may be NULL for readers).
void *address_space_dma(struct address_space *space, uint64_t address, uint64_t length, uint64_t *ram_offset);
// A readable list of the flattened map, for `info mtree`. Free with g_free().
char *address_space_describe(struct address_space *space);

#endif
