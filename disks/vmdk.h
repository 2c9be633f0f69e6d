// SPDX-License-Identifier: GPL-2.0-or-later
// VMDK after VMware's "Virtual Disk Format 5.0". Shared by the vmdk_*.c files.
#ifndef CLOCHE_DISKS_VMDK_H
#define CLOCHE_DISKS_VMDK_H

#include "disks/grains.h"

#define VMDK_MAGIC  0x564d444bu // "KDMV"
#define VMDK_SECTOR 512ull
#define VMDK_MOST   (2048 * GiB - 64 * MiB)

enum vmdk_extent_kind { VMDK_FLAT, VMDK_SPARSE, VMDK_ZERO };

// One extent file: a run of the disk. FILE is owned unless it is the disk's own.
struct vmdk_extent {
    struct vmdk *vmdk;
    enum vmdk_extent_kind kind;
    uint64_t start, length; // bytes of the disk
    struct file *file;
    bool owns_file;
    uint64_t flat_offset;
    // Sparse ones:
    struct grains grains;
    uint32_t *directory, *redundant; // sectors of grain tables; REDUNDANT may be NULL
    uint32_t tables, per_table;
    uint64_t directory_at, redundant_at, overhead; // sectors
    bool zero_grains, compressed;
    uint64_t end; // where the next grain goes
};

// Threads: immutable after opening except what LOCK guards; the grain tables have their own locks.
struct vmdk {
    struct disk *disk;
    char *descriptor;                            // text
    uint64_t descriptor_offset, descriptor_room; // in the disk's file
    char variant[64];
    uint32_t cid, parent_cid;
    char *parent;
    struct vmdk_extent *extents;
    unsigned extent_count;
    pthread_mutex_t lock; // CID change
    bool marked;
    char generation[16];
};

// vmdk_descriptor.c
bool vmdk_descriptor_parse(struct vmdk *v, GError **error); // fills variant, CIDs, parent; not the extents
struct vmdk_line {
    enum vmdk_extent_kind kind;
    uint64_t sectors, offset;
    char *file;
};
// The extent lines, as an array of struct vmdk_line. NULL with ERROR.
GArray *vmdk_descriptor_extents(struct vmdk *v, GError **error);
char *vmdk_descriptor_make(uint32_t cid, const char *variant, const char *extent_line, uint64_t size);
// The same text for a disk of SIZE bytes with one extent. Free with g_free().
char *vmdk_descriptor_resized(const struct vmdk *v, uint64_t size);
int vmdk_change_cid(struct vmdk *v); // before the first change of a session; LOCK held

// vmdk.c
// Where tables, directories and the descriptor end: a resize may have put them behind grains. Bytes.
uint64_t vmdk_metadata_end(const struct vmdk_extent *e);
int vmdk_mark(struct vmdk *v); // a new content id, once a session

// vmdk_resize.c
bool vmdk_may_resize(struct disk *disk, uint64_t size, GError **error);
int vmdk_resize(struct disk *disk, uint64_t size);

// vmdk_sparse.c
enum { // byte offsets in the header, which is packed
    VMDK_HEADER = 512,
    H_MAGIC = 0,
    H_VERSION = 4,
    H_FLAGS = 8,
    H_CAPACITY = 12,
    H_GRAIN = 20,
    H_DESCRIPTOR = 28,
    H_DESCRIPTOR_SIZE = 36,
    H_PER_TABLE = 44,
    H_REDUNDANT = 48,
    H_DIRECTORY = 56,
    H_OVERHEAD = 64,
    H_UNCLEAN = 72,
    H_NEWLINES = 73,
    H_COMPRESSION = 77,
};
bool vmdk_sparse_open(struct vmdk_extent *e, GError **error);
void vmdk_sparse_close(struct vmdk_extent *e);
int vmdk_read_compressed(struct vmdk_extent *e, uint64_t offset, const struct iovec *iov, unsigned iov_count);
int vmdk_sparse_create(struct file *file, uint64_t size, const char *descriptor);
// Reads the header's place of an embedded descriptor (sectors). False where it is no sparse extent.
bool vmdk_sparse_descriptor(struct file *file, uint64_t *offset, uint64_t *length);

#endif
