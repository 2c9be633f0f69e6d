// SPDX-License-Identifier: GPL-2.0-or-later
// Growing and shrinking VDI images. The size takes effect with one write of the header's sector. A map that grows past
// the room before the data takes the first data blocks' places, which move to the end before.
#include "disks/vdi.h"

#include <errno.h>

enum { CHUNK = 65536 };

// What the header will say.
struct shape {
    uint64_t size, blocks, map_at, data_at;
    uint32_t allocated;
    uint32_t shift; // places that the data's start moves up by
};

static int write_header(struct vdi *v, const struct shape *to)
{
    static const uint8_t unknown[16];
    store_le(v->header + VDI_DISK_SIZE, 8, to->size);
    store_le(v->header + VDI_BLOCKS, 4, to->blocks);
    store_le(v->header + VDI_MAP_AT, 4, to->map_at);
    store_le(v->header + VDI_DATA_AT, 4, to->data_at);
    store_le(v->header + VDI_ALLOCATED, 4, to->allocated);
    memcpy(v->header + VDI_GEOMETRY, unknown, 12);
    memcpy(v->header + VDI_GUEST_GEOMETRY, unknown, 16);
    int rc = file_write(v->grains.file, 0, v->header, VDI_HEADER);
    return rc ? rc : file_sync(v->grains.file);
}

// The header on stable storage, and everything in memory as it says.
static int take_shape(struct disk *disk, const struct shape *to)
{
    struct vdi *v = disk->state;
    uint8_t before[VDI_HEADER];
    memcpy(before, v->header, VDI_HEADER);
    int rc = write_header(v, to);
    if (rc) {
        memcpy(v->header, before, VDI_HEADER);
        return rc;
    }
    v->map_at = v->grains.table_at = to->map_at;
    v->data_at = to->data_at;
    v->allocated = to->allocated;
    disk->size = to->size;
    return grains_set_count(&v->grains, to->blocks);
}

// ---- Growing ----
// Blocks that lie in the first COUNT places get new ones behind all others. Stored by the flush.
static int move_first(struct vdi *v, uint64_t count)
{
    struct grains *g = &v->grains;
    int rc = 0;
    v->allocated = MAX(v->allocated, count);
    for (uint64_t i = 0; i < g->count && !rc; i++) {
        uint32_t entry, place;
        rc = grains_entry(g, i, true, &entry);
        if (rc || entry >= count)
            continue;
        rc = g->allocate(g, i, &place);
        if (!rc)
            rc = grains_copy(g, entry, place);
        if (!rc)
            rc = grains_set_entry(g, i, place);
    }
    return rc ? rc : grains_flush(g);
}

// Writes the map's entries from FROM on: those that exist; new ones of a fixed image have the places behind all others.
static int write_map(struct vdi *v, const struct shape *to, uint64_t from)
{
    struct grains *g = &v->grains;
    uint32_t next = to->allocated - (v->type == VDI_FIXED ? to->blocks - g->count : 0);
    g_autofree uint32_t *out = g_new(uint32_t, CHUNK);
    int rc = 0;
    for (uint64_t at = from; at < to->blocks && !rc;) {
        unsigned count = MIN(CHUNK, to->blocks - at);
        for (unsigned i = 0; i < count && !rc; i++) {
            uint32_t entry = v->type == VDI_FIXED && at + i >= g->count ? next++ : VDI_NONE;
            if (at + i < g->count) {
                rc = grains_entry(g, at + i, true, &entry);
                entry -= entry < VDI_ZERO ? to->shift : 0;
            }
            out[i] = GUINT32_TO_LE(entry);
        }
        if (!rc)
            rc = file_write(g->file, to->map_at + at * 4, out, count * 4ull);
        at += count;
    }
    return rc ? rc : file_sync(g->file);
}

static int grow(struct disk *disk, uint64_t size)
{
    struct vdi *v = disk->state;
    struct grains *g = &v->grains;
    uint64_t block = v->block_size, blocks = size / block + !!(size % block), added = blocks - g->count;
    struct shape to = {.size = size, .blocks = blocks, .map_at = v->map_at, .data_at = v->data_at};
    if (blocks > VDI_MOST_BLOCKS)
        return -EFBIG;
    if (v->map_at + blocks * 4 > v->data_at) { // the map's new place is where the data starts
        to.map_at = v->data_at;
        to.shift = (blocks * 4 + block - 1) / block;
        to.data_at += to.shift * block;
        if (to.data_at > UINT32_MAX)
            return -EFBIG;
    }
    int rc = to.shift ? move_first(v, to.shift) : grains_flush(g);
    to.allocated = v->allocated - to.shift;
    if (!rc && v->type == VDI_FIXED && added) {
        rc = file_allocate(g->file, to.data_at + to.allocated * block, added * block);
        to.allocated += added;
    }
    if (!rc)
        rc = write_map(v, &to, to.shift ? 0 : g->count);
    return rc ? rc : take_shape(disk, &to);
}

// ---- Shrinking: the data goes first ----
static int shrink(struct disk *disk, uint64_t size)
{
    struct vdi *v = disk->state;
    struct grains *g = &v->grains;
    uint64_t block = v->block_size, blocks = size / block + !!(size % block), top;
    uint64_t rest = MIN(disk->size, blocks * block);
    int rc = rest > size ? grains_zero(g, size, rest - size, 0) : 0;
    if (!rc)
        rc = grains_drop(g, blocks);
    if (!rc)
        rc = grains_top(g, &top);
    if (rc)
        return rc;
    struct shape to = {.size = size, .blocks = blocks, .map_at = v->map_at, .data_at = v->data_at, .allocated = top};
    rc = take_shape(disk, &to);
    if (!rc && g->file->regular && file_size(g->file) > v->data_at + top * block)
        rc = file_truncate(g->file, v->data_at + top * block);
    return rc ? rc : file_sync(g->file);
}

int vdi_resize(struct disk *disk, uint64_t size)
{
    struct vdi *v = disk->state;
    int rc = v->marked ? 0 : vdi_mark(v);
    if (rc)
        return rc;
    return size > disk->size ? grow(disk, size) : shrink(disk, size);
}
