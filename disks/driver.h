// SPDX-License-Identifier: GPL-2.0-or-later
// What a disk format is to the rest of the library: an operations struct plus a probe. Internal to disks/.
#ifndef CLOCHE_DISKS_DRIVER_H
#define CLOCHE_DISKS_DRIVER_H

#include "disks/disk.h"
#include "disks/engine.h"
#include "disks/file.h"

#include <pthread.h>

enum extent_kind {
    EXTENT_DATA,       // FILE at FILE_OFFSET has it
    EXTENT_ZERO,       // reads as zeroes by this layer's word
    EXTENT_BACKING,    // this layer knows nothing: the base has it, or it is zero
    EXTENT_COMPRESSED, // the driver unpacks it; whole clusters
};

struct extent {
    enum extent_kind kind;
    uint64_t length;
    struct file *file;
    uint64_t file_offset;
    bool writable;      // DATA that may be overwritten in place
    bool allocated;     // ZERO that keeps space in the file
    struct disk *owner; // entered its epoch EPOCH: extent_release() when the I/O is done; or NULL
    unsigned epoch;
};

enum map_flag {
    MAP_WRITE = 1 << 0,     // for writing
    MAP_MAY_BLOCK = 1 << 1, // else -EAGAIN where metadata must be read
    MAP_HOLES = 1 << 2,     // ask the host for holes in data
};

struct probe {
    const uint8_t *head; // the first HEAD_LENGTH bytes, at most PROBE_LENGTH
    size_t head_length;
    const uint8_t *tail; // the last 512 bytes, or NULL
    uint64_t file_size;
};
#define PROBE_LENGTH 4096

struct disk_info;
struct disk_create_options;
struct disk_check_result;
struct job;

// Operations that are absent are not supported. Those that return int return 0 or a negative errno and may block,
// except map() without MAP_MAY_BLOCK.
struct disk_driver {
    const char *name;
    bool (*probe)(const struct probe *probe);
    // DISK->file is open; sets size, state, backing_path, backing_format, read_only_reason.
    bool (*open)(struct disk *disk, GError **error);
    void (*close)(struct disk *disk); // after a last flush
    int (*map)(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent);
    int (*read_compressed)(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned iov_count);
    int (*write)(struct disk *disk, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned iov_count);
    int (*write_compressed)(struct disk *disk, uint64_t offset, const void *data, uint64_t length);
    int (*zero)(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags);
    int (*discard)(struct disk *disk, uint64_t offset, uint64_t length);
    int (*flush)(struct disk *disk);
    int (*settle)(struct disk *disk); // after the last flush: leave the file tidy
    // To another size than the present one, with nothing in flight. -EFBIG: SIZE_LIMIT tells why.
    int (*resize)(struct disk *disk, uint64_t size);
    bool (*may_resize)(struct disk *disk, uint64_t size, GError **error); // NULL: to any size
    const char *size_limit;
    void (*info)(struct disk *disk, struct disk_info *info);
    // Fills the new FILE; NAME of OPTIONS is set. ERROR is set only where OPTIONS are refused. What it makes beside FILE
    // may stay when it fails.
    int (*create)(struct file *file, const struct disk_create_options *options, GError **error);
    bool (*check)(struct disk *disk, bool repair, struct disk_check_result *result, struct job *job, GError **error);
    // Points the overlay at another base (NULL: none); IDENTITY as made by identity.c. On stable storage when done.
    bool (*set_backing)(struct disk *disk, const char *path, const char *format, const char *identity, GError **error);
    // Takes over what the base shows where this layer knows nothing, while the disk is used. NULL: it cannot.
    int (*pull)(struct disk *disk, uint64_t offset, uint64_t length);
    // Compares the open base with what the format itself records of it. NULL: nothing is recorded.
    bool (*check_base)(struct disk *disk, GError **error);
    // Forgets everything that this layer knows, so that its base shows.
    int (*make_empty)(struct disk *disk);
    uint64_t (*cluster_size)(struct disk *disk); // 0: a variant that has none
    // A text that changes whenever the image starts to be written (36 characters, not terminated), or NULL.
    const char *(*generation)(struct disk *disk);
};

// Threads: immutable after opening except SIZE (changed by disk_resize() alone), the atomics, and what DRAIN_LOCK
// guards. STATE has its own lock, see each driver.
struct disk {
    const struct disk_driver *driver;
    void *state;
    struct file *file;
    struct disk *backing;
    struct engine *engine; // shared by a chain, owned by its top
    bool owns_engine;
    char *path;
    uint64_t size;
    unsigned flags;
    bool read_only, probed;
    char *read_only_reason;
    char *snapshot; // asked for
    struct file_hooks *hooks;
    char *backing_path, *backing_format; // as recorded in the file; format NULL: not recorded
    char *backing_identity;              // what the overlay remembers of its base, or NULL
    _Atomic unsigned users[2];           // host I/O in flight by epoch
    unsigned epoch;                      // under the driver's lock
    pthread_mutex_t drain_lock;
    pthread_cond_t drained;
    unsigned in_flight;
    unsigned depth;
    _Atomic int64_t patient_until; // DISK_OPEN_PROMPT: the page cache was slow; no writes on the caller's thread before
    _Atomic bool base_unsettled;   // see disk_overlay_stack(): a flush flushes the base too
};

extern const struct disk_driver *const disk_drivers[]; // in the order of probing, NULL at the end; raw is last
const struct disk_driver *disk_driver_find(const char *name);
const struct disk_driver *disk_driver_probe(const struct probe *probe);
extern const struct disk_driver raw_driver, qcow2_driver, vmdk_driver, vdi_driver, vhd_driver;

// Walks down the chain from DISK: EXTENT is never EXTENT_BACKING. OWNER is who has compressed data (may be NULL).
int disk_resolve(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent,
                 struct disk **layer);
static inline void extent_release(struct extent *extent)
{
    if (extent->owner)
        atomic_fetch_sub(&extent->owner->users[extent->epoch], 1);
    extent->owner = NULL;
}
// Reads what the chain below and including DISK shows, blocking.
int disk_readv(struct disk *disk, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned iov_count);
int disk_run(struct disk *disk, struct disk_request *request); // blocking

// In what pieces space is best taken and given back, also where the format has no clusters.
static inline uint64_t disk_cluster_size(struct disk *disk)
{
    uint64_t size = disk->driver->cluster_size ? disk->driver->cluster_size(disk) : 0;
    return size ? size : 64 * KiB;
}

// disks/overlay.c: for an overlay over a base that was written to when it was made. Nothing is in flight.
void disk_overlay_identify(struct disk *overlay);

void set_errno_error(GError **error, int rc, const char *format, ...) G_GNUC_PRINTF(3, 4);
// A path as recorded in the image IMAGE, made openable from here. NULL with ERROR for what is not a file.
char *backing_path_resolve(const char *image, const char *recorded, GError **error);

#endif
