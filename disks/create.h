// SPDX-License-Identifier: GPL-2.0-or-later
// Making new disk images and overlays.
#ifndef CLOCHE_DISKS_CREATE_H
#define CLOCHE_DISKS_CREATE_H

#include "disks/disk.h"

enum disk_compression { DISK_COMPRESS_ZLIB, DISK_COMPRESS_ZSTD };

// Zero fields mean the format's default.
struct disk_create_options {
    const char *format;  // "raw", "qcow2", "vmdk", "vdi", "vhd"; NULL: qcow2
    uint64_t size;       // bytes; rounded up to what the format can hold; 0 with a base: the base's size
    const char *backing; // path of the base as recorded (relative: to the new file's folder), or NULL. qcow2 only
    const char *backing_format; // NULL: found by opening the base
    bool preallocate;           // take the space now: fixed VDI, fixed VHD, flat VMDK, metadata of qcow2
    bool force;                 // replace an existing image that nobody uses
    unsigned cluster_size;      // qcow2: 512 to 2 MiB
    unsigned version;           // qcow2: 2 or 3
    bool lazy_refcounts, extended_l2;
    unsigned refcount_bits; // qcow2: 1, 2, 4, 8, 16, 32, 64
    enum disk_compression compression;
    const char *name; // what the image calls itself where its format records that; NULL: as its file
    struct file_hooks *hooks;
};

// On stable storage when it returns true; leaves nothing behind when it fails. An overlay takes the same short time
// for a base of any size. The base is opened read-only to learn its size and identity.
bool disk_create(const char *path, const struct disk_create_options *options, GError **error);

#endif
