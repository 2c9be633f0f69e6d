// SPDX-License-Identifier: GPL-2.0-or-later
// qcow2, versions 2 and 3, after its specification (docs/interop/qcow2.txt of QEMU). Shared by the qcow2_*.c files.
//
// Order on stable storage, so that any prefix of what was written checks clean but for leaks:
//   data and refcounts, then the refcount table, then L2 tables, then L1; clusters given up are reused only after that.
// Metadata changes stay in memory until qcow2_commit(), which a flush, a full cache and closing call.
//
// What threads rely on while others work in the same image:
// 1. Length. The file reaches past every cluster that was given out: qcow2_allocate() makes it longer, under LOCK,
// before
//    anyone may write there. Nothing else changes its length while it is in use, and nothing makes it shorter; so no
//    change of length can cut off what another thread wrote a moment ago.
// 2. Giving back. A cluster that lost its last reference in memory waits in FREED of the present epoch. It is taken
// back
//    (counted as free, a hole made of it, given out again) only after a commit that began later has brought the loss to
//    stable storage, and after every reader and writer that looked it up before the loss (USERS of that epoch) is done.
// 3. Allocating. A guest cluster in IN_PROGRESS has a thread that fills its new place: others that would change its
//    entry wait for that one. An entry is published only when its data was written, and a commit takes its copies of
//    all tables at one moment under LOCK: a copied entry never refers to a cluster that is not counted in the same
//    copy.
#ifndef CLOCHE_DISKS_QCOW2_H
#define CLOCHE_DISKS_QCOW2_H

#include "disks/be.h"
#include "disks/driver.h"

#define QCOW2_MAGIC 0x514649fbu

enum qcow2_incompatible {
    QCOW2_DIRTY = 1 << 0,
    QCOW2_CORRUPT = 1 << 1,
    QCOW2_EXTERNAL_DATA = 1 << 2,
    QCOW2_COMPRESSION = 1 << 3,
    QCOW2_EXTENDED_L2 = 1 << 4,
};
enum { QCOW2_LAZY_REFCOUNTS = 1 << 0 };
enum { QCOW2_AUTOCLEAR_BITMAPS = 1 << 0 };

enum qcow2_extension_type {
    QCOW2_EXT_END = 0,
    QCOW2_EXT_BACKING_FORMAT = 0xe2792aca,
    QCOW2_EXT_FEATURES = 0x6803f857,
    QCOW2_EXT_BITMAPS = 0x23852875,
    QCOW2_EXT_ENCRYPTION = 0x0537be77,
    QCOW2_EXT_DATA_FILE = 0x44415441,
    QCOW2_EXT_IDENTITY = 0x434c4f42,   // ours: what the overlay remembers of its base
    QCOW2_EXT_GENERATION = 0x434c4f47, // ours: a random text, new whenever the image starts to be written
};

#define QCOW2_COPIED        (1ull << 63)
#define QCOW2_COMPRESSED    (1ull << 62)
#define QCOW2_ZERO          1ull
#define QCOW2_OFFSET_MASK   0x00fffffffffffe00ull
#define QCOW2_ALL_ALLOCATED 0xffffffffull
#define QCOW2_ALL_ZERO      (0xffffffffull << 32)

enum { QCOW2_MOST_L1 = 32 << 20, QCOW2_MOST_REFTABLE = 8 << 20, QCOW2_SLICE = 4096 };
enum { QCOW2_MOST_SNAPSHOTS = 65536 };

// A piece of an L2 table or refcount block in memory.
struct qcow2_slice {
    uint64_t offset; // in the file; the key
    struct qcow2_slice *newer, *older;
    bool dirty, committing, recent;
    uint8_t data[];
};

enum { QCOW2_FRONT = 256 };
struct qcow2_cache {
    GHashTable *slices;
    struct qcow2_slice *front[QCOW2_FRONT]; // by the low bits of the slice number: the way of most look-ups
    struct qcow2_slice *newest, *oldest;
    unsigned count, dirty, most;
    unsigned slice_size, slice_bits;
    unsigned generation; // counts commits: what was read from the file before one may be out of date after it
};

struct qcow2_extension {
    uint32_t type, length;
    uint8_t data[];
};

struct qcow2_snapshot {
    char *id, *name;
    uint64_t l1_offset, disk_size, vm_state_size, vm_clock;
    uint32_t l1_size, seconds, nanoseconds;
    uint8_t *extra; // of later versions, kept
    uint32_t extra_length;
};

struct qcow2_entry {
    uint64_t entry, bitmap;
};

enum qcow2_kind {
    QCOW2_KIND_UNALLOCATED,
    QCOW2_KIND_RESERVED, // a host cluster is there, this subcluster is not in it
    QCOW2_KIND_ZERO,
    QCOW2_KIND_ZERO_KEPT, // zero with a host cluster
    QCOW2_KIND_NORMAL,
    QCOW2_KIND_COMPRESSED,
    QCOW2_KIND_INVALID,
};

struct qcow2_range {
    uint64_t offset, length;
    bool compressed; // LENGTH bytes of compressed data, not whole clusters
};

// Threads: the geometry is immutable after opening. LOCK guards all tables, caches and lists; it is dropped while L2
// tables are read and over all data I/O. COMMIT_LOCK comes before LOCK and lets one commit run at a time.
struct qcow2 {
    struct disk *disk;
    struct file *file;
    unsigned version, cluster_bits, refcount_order;
    uint64_t cluster_size;
    uint64_t incompatible, compatible, autoclear;
    unsigned compression; // 0 zlib, 1 zstd
    bool extended;
    unsigned subclusters;
    uint64_t subcluster_size;
    unsigned entry_size, entry_bits, l2_bits;
    GPtrArray *extensions; // struct qcow2_extension, those that are kept

    pthread_mutex_t lock, commit_lock;
    pthread_cond_t changed; // an allocation in progress ended
    uint64_t *l1, l1_offset;
    unsigned l1_size, l1_dirty_from, l1_dirty_to; // entries
    uint64_t *reftable, reftable_offset, reftable_clusters;
    uint64_t header_reftable_offset, header_reftable_clusters; // those that are on stable storage
    bool table_grows;
    unsigned reftable_size, reftable_dirty_from, reftable_dirty_to;
    bool header_dirty; // the refcount table moved
    struct qcow2_cache l2_cache, refcount_cache;
    GHashTable *in_progress; // guest cluster numbers that are being allocated
    GHashTable *tables;      // host offsets of active L2 tables and refcount blocks
    uint64_t free_hint;      // cluster number: no free cluster below it
    uint64_t zero_from;      // the file reads as zeroes from here on where nothing was written since
    uint64_t alloc_end;      // end of the highest cluster in use that we allocated
    uint64_t end_at_open;    // length of the file then
    GArray *freed[2];        // struct qcow2_range by epoch; refcounts not yet taken back
    bool freed_stable;       // the list of the older epoch is unreferenced on stable storage
    bool generation_marked;
    uint8_t *unpacked; // the last unpacked cluster
    uint64_t unpacked_entry;
    unsigned unpacked_generation;
    uint64_t pack_offset; // where compressed data goes on, or 0

    struct qcow2_snapshot *snapshots;
    uint32_t snapshot_count;
    uint64_t snapshots_offset, snapshots_length;
};

static inline uint64_t qcow2_clusters(const struct qcow2 *q, uint64_t bytes)
{
    return (bytes >> q->cluster_bits) + !!(bytes & (q->cluster_size - 1));
}

// Which subcluster of its cluster the byte at guest offset OFFSET lies in; 0 where clusters have none.
static inline unsigned qcow2_subcluster_of(const struct qcow2 *q, uint64_t offset)
{
    return q->extended ? (offset & (q->cluster_size - 1)) >> (q->cluster_bits - 5) : 0;
}

// qcow2_header.c
bool qcow2_header_read(struct qcow2 *q, GError **error);
int qcow2_header_write(struct qcow2 *q); // LOCK held or alone; not synced
const struct qcow2_extension *qcow2_extension_find(struct qcow2 *q, uint32_t type);
void qcow2_extension_set(struct qcow2 *q, uint32_t type, const void *data, uint32_t length); // DATA NULL removes

// qcow2_cache.c: LOCK held
void qcow2_cache_init(struct qcow2_cache *cache, unsigned slice_size, unsigned most);
void qcow2_cache_free(struct qcow2_cache *cache);
struct qcow2_slice *qcow2_cache_find(struct qcow2_cache *cache, uint64_t offset);
struct qcow2_slice *qcow2_cache_insert(struct qcow2_cache *cache, uint64_t offset, const void *data);
void qcow2_cache_dirty(struct qcow2_cache *cache, struct qcow2_slice *slice);
// Reads the slice; drops Q's lock meanwhile where DROP_LOCK (then what was looked up before must be looked up again).
int qcow2_cache_load(struct qcow2 *q, struct qcow2_cache *cache, uint64_t offset, bool drop_lock);
void qcow2_cache_forget(struct qcow2_cache *cache, uint64_t offset, uint64_t length);

// qcow2_table.c: LOCK held
enum qcow2_kind qcow2_kind_of(const struct qcow2 *q, struct qcow2_entry e, unsigned subcluster);
struct qcow2_entry qcow2_entry_get(const struct qcow2 *q, const struct qcow2_slice *slice, unsigned index);
void qcow2_entry_set(struct qcow2 *q, struct qcow2_slice *slice, unsigned index, struct qcow2_entry e);
// The slice that holds the entry of guest offset OFFSET, or NULL where no L2 table is. -EAGAIN where it would block.
int qcow2_slice_at(struct qcow2 *q, uint64_t offset, bool may_block, struct qcow2_slice **slice, unsigned *index);
// The same for changing it: makes the L2 table, or copies one that is shared. May drop the lock.
int qcow2_slice_for_change(struct qcow2 *q, uint64_t offset, struct qcow2_slice **slice, unsigned *index);
static inline unsigned qcow2_slice_entries(const struct qcow2 *q)
{
    return 1u << (q->l2_cache.slice_bits - q->entry_bits);
}
int qcow2_map(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent);
bool qcow2_is_metadata(struct qcow2 *q, uint64_t offset, uint64_t length);

// qcow2_refcount.c: LOCK held
int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count);
int qcow2_refcount_add(struct qcow2 *q, uint64_t cluster, int delta);
int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t count);
uint64_t qcow2_refcount_load(const struct qcow2 *q, const uint8_t *data, uint64_t index);
void qcow2_refcount_store(const struct qcow2 *q, uint8_t *data, uint64_t index, uint64_t count);
static inline uint64_t qcow2_refcounts_per_block(const struct qcow2 *q)
{
    return q->cluster_size * 8 >> q->refcount_order;
}
// COUNT neighbouring clusters, or with GOT at least one and at most COUNT. Their refcount is 1.
int qcow2_allocate(struct qcow2 *q, uint64_t count, uint64_t *got, uint64_t *offset);
// Nothing refers to it any more in memory: its refcount goes down once that is true on stable storage too.
void qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t length);
void qcow2_free_entry(struct qcow2 *q, struct qcow2_entry e);
// Never referred to by anything: at once.
void qcow2_free_now(struct qcow2 *q, uint64_t offset, uint64_t length);
void qcow2_free_stable(struct qcow2 *q); // takes back what can be

// qcow2_commit.c
int qcow2_commit(struct qcow2 *q);   // LOCK not held
int qcow2_throttle(struct qcow2 *q); // commits where the caches are full of changes
int qcow2_flush(struct disk *disk);
int qcow2_settle(struct disk *disk);

// qcow2_write.c, qcow2_zero.c
// Takes over what the base shows in every cluster of the range that this layer knows nothing of. While the disk is used.
int qcow2_pull(struct disk *disk, uint64_t offset, uint64_t length);
int qcow2_write(struct disk *disk, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned iov_count);
int qcow2_zero(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags);
int qcow2_discard(struct disk *disk, uint64_t offset, uint64_t length);
int qcow2_make_empty(struct disk *disk);
int qcow2_mark_generation(struct qcow2 *q);
// Waits until nobody allocates any of COUNT guest clusters from CLUSTER; true where it had to (look up again).
bool qcow2_wait_for(struct qcow2 *q, uint64_t cluster, uint64_t count);

// qcow2_compress.c
void qcow2_compressed_range(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *length);
int qcow2_read_compressed(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned iov_count);
int qcow2_write_compressed(struct disk *disk, uint64_t offset, const void *data, uint64_t length);

// qcow2_snapshot.c
bool qcow2_snapshots_read(struct qcow2 *q, uint32_t count, uint64_t offset, GError **error);
void qcow2_snapshots_free(struct qcow2 *q);
bool qcow2_snapshot_select(struct qcow2 *q, const char *name, GError **error);

// qcow2_resize.c, qcow2_create.c, qcow2_check.c
bool qcow2_may_resize(struct disk *disk, uint64_t size, GError **error);
int qcow2_resize(struct disk *disk, uint64_t size);
int qcow2_grow_l1(struct qcow2 *q, uint64_t entries);
int qcow2_create(struct file *file, const struct disk_create_options *options, GError **error);
bool qcow2_check(struct disk *disk, bool repair, struct disk_check_result *result, struct job *job, GError **error);
// Makes refcounts and COPIED flags right again after an unclean end: the dirty bit. Alone.
bool qcow2_repair_dirty(struct qcow2 *q, GError **error);

#endif
