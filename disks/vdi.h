// SPDX-License-Identifier: GPL-2.0-or-later
// VirtualBox disk images. Shared by the vdi*.c files.
#ifndef CLOCHE_DISKS_VDI_H
#define CLOCHE_DISKS_VDI_H

#include "disks/grains.h"

enum {
    VDI_SIGNATURE_AT = 0x40,
    VDI_VERSION = 0x44,
    VDI_HEADER_SIZE = 0x48,
    VDI_TYPE = 0x4c,
    VDI_MAP_AT = 0x154,
    VDI_DATA_AT = 0x158,
    VDI_GEOMETRY = 0x15c, // cylinders, heads, sectors; zeroes: to be worked out
    VDI_SECTOR_SIZE = 0x168,
    VDI_DISK_SIZE = 0x170,
    VDI_BLOCK_SIZE = 0x178,
    VDI_BLOCK_EXTRA = 0x17c,
    VDI_BLOCKS = 0x180,
    VDI_ALLOCATED = 0x184,
    VDI_UUID = 0x188,
    VDI_UUID_MODIFY = 0x198,
    VDI_UUID_PARENT = 0x1a8,
    VDI_UUID_PARENT_MODIFY = 0x1b8,
    VDI_GUEST_GEOMETRY = 0x1c8,
    VDI_HEADER = 512,
};
enum { VDI_DYNAMIC = 1, VDI_FIXED = 2, VDI_DIFFERENCING = 4 };
#define VDI_SIGNATURE 0xbeda107fu
#define VDI_NONE      0xffffffffu
#define VDI_ZERO      0xfffffffeu

struct vdi {
    uint8_t header[VDI_HEADER];
    struct grains grains;
    uint64_t map_at, data_at, block_size;
    uint32_t type;
    uint32_t allocated; // blocks that have a place
    char generation[37];
    bool marked; // the generation is new in this session
};

#define VDI_MOST_BLOCKS 0x1fffffffu

static inline uint32_t vdi_get32(const struct vdi *v, unsigned at)
{
    return load_le(v->header + at, 4);
}

// Gives the image a new modification UUID, so that overlays notice the change. Once a session.
int vdi_mark(struct vdi *v);

// vdi_resize.c
int vdi_resize(struct disk *disk, uint64_t size);
// How many places past the count of blocks may be in use: a resize that was cut short had moved the first blocks there.
static inline uint64_t vdi_spare_places(const struct vdi *v)
{
    return 4ull * VDI_MOST_BLOCKS / v->block_size + 1;
}

#endif
