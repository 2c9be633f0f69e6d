// SPDX-License-Identifier: GPL-2.0-or-later
// What an image is: for tools and for people.
#ifndef CLOCHE_DISKS_INFO_H
#define CLOCHE_DISKS_INFO_H

#include "disks/disk.h"

struct disk_snapshot {
    char *id, *name;
    uint32_t seconds; // since 1970
    uint64_t disk_size, vm_state_size, vm_clock;
};

// One image of a chain. Numbers that a format does not have are 0.
struct disk_info {
    char *path, *format, *variant;
    uint64_t size; // bytes that a guest sees
    uint64_t file_size, allocated;
    char *read_only_reason;                        // why it can only be read, or NULL
    char *backing, *backing_format, *backing_path; // as recorded, as recorded, as opened; NULL: none
    char *backing_problem;                         // why the base cannot be used, or NULL
    uint64_t cluster_size;
    unsigned version, refcount_bits;
    bool lazy_refcounts, extended_l2, dirty, corrupt;
    const char *compression;
    unsigned snapshot_count;
    struct disk_snapshot *snapshots;
};

// What is at PATH alone: needs no lock and works while a machine uses it. FORMAT NULL probes. Free the result.
struct disk_info *disk_info(const char *path, const char *format, GError **error);
// The same for an open disk.
struct disk_info *disk_info_of(struct disk *disk);
void disk_info_free(struct disk_info *info);

#endif
