// SPDX-License-Identifier: GPL-2.0-or-later
// Growing and shrinking VHD images. The size is that of the footer at the file's end, which takes effect with one
// write of its sector. A block table that needs more room gets a new place at the end of the file: the header says
// where it is ("Table Offset").
#include "disks/vhd.h"

#include <errno.h>

static int put(struct file *file, uint64_t at, const void *data, uint64_t length)
{
    int rc = file_write(file, at, data, length);
    return rc ? rc : file_sync(file);
}

static void make_footer(struct vhd *v, uint64_t size, uint64_t stale, uint8_t *footer)
{
    memcpy(footer, v->footer, FOOTER);
    vhd_put_creator(footer);
    vhd_put_geometry(footer + F_GEOMETRY, size);
    store_be64(footer + F_SIZE, size);
    store_be64(footer + F_STALE, stale);
    store_be32(footer + F_CHECKSUM, vhd_checksum(footer, FOOTER, F_CHECKSUM));
}

// ---- Fixed: the data with the footer behind it ----
// The sector in which the smaller size's footer was is part of the data now.
static int clear_stale(struct disk *disk)
{
    struct vhd *v = disk->state;
    uint8_t sector[SECTOR], footer[FOOTER];
    int rc = file_read(disk->file, v->stale, sector, SECTOR);
    if (!rc && vhd_footer_is_valid(sector) && load_be64(sector + F_SIZE) == v->stale) {
        memset(sector, 0, SECTOR);
        rc = put(disk->file, v->stale, sector, SECTOR);
    }
    make_footer(v, disk->size, 0, footer);
    if (!rc)
        rc = put(disk->file, disk->size, footer, FOOTER);
    if (!rc) {
        memcpy(v->footer, footer, FOOTER);
        v->stale = 0;
    }
    return rc;
}

static int resize_fixed(struct disk *disk, uint64_t size)
{
    struct vhd *v = disk->state;
    uint64_t old = disk->size;
    uint8_t footer[FOOTER];
    int rc = v->stale ? clear_stale(disk) : 0;
    if (rc)
        return rc;
    make_footer(v, size, size > old ? old : 0, footer);
    rc = put(disk->file, size, footer, FOOTER);
    if (!rc && size > old)
        rc = file_allocate(disk->file, old, size - old);
    if (rc && size > old)
        file_truncate(disk->file, old + FOOTER); // as before
    if (!rc && size < old)
        rc = file_truncate(disk->file, size + FOOTER);
    if (rc)
        return rc;
    memcpy(v->footer, footer, FOOTER);
    disk->size = size;
    v->stale = size > old ? old : 0;
    return v->stale ? clear_stale(disk) : file_sync(disk->file);
}

// ---- Dynamic ----
static int put_header(struct vhd *v, uint64_t table_at, uint64_t entries)
{
    uint8_t header[DYNAMIC_HEADER];
    memcpy(header, v->header, DYNAMIC_HEADER);
    store_be64(header + H_TABLE_AT, table_at);
    store_be32(header + H_ENTRIES, entries);
    store_be32(header + H_CHECKSUM, vhd_checksum(header, DYNAMIC_HEADER, H_CHECKSUM));
    // What changes is in the first of its two sectors.
    int rc = put(v->grains.file, load_be64(v->footer + F_DATA_AT), header, SECTOR);
    if (!rc) {
        memcpy(v->header, header, DYNAMIC_HEADER);
        v->table_at = v->grains.table_at = table_at;
    }
    return rc;
}

// The table's entries from FROM up to ENTRIES, at TABLE_AT: those that exist, and new ones without a block.
static int put_table(struct vhd *v, uint64_t table_at, uint64_t from, uint64_t entries)
{
    struct grains *g = &v->grains;
    uint64_t room = ALIGN_UP(entries * 4, SECTOR) / 4;
    g_autofree uint32_t *out = g_try_new(uint32_t, room - from);
    int rc = out ? 0 : -ENOMEM;
    for (uint64_t i = from; i < room && !rc; i++) {
        uint32_t entry = VHD_NONE;
        if (i < g->count)
            rc = grains_entry(g, i, true, &entry);
        out[i - from] = GUINT32_TO_BE(entry);
    }
    return rc ? rc : put(g->file, table_at + from * 4, out, (room - from) * 4);
}

static int grow_table(struct vhd *v, uint64_t entries)
{
    uint64_t old = load_be32(v->header + H_ENTRIES), from = v->grains.count, table_at = v->table_at;
    uint64_t length = ALIGN_UP(entries * 4, SECTOR);
    int rc = 0;
    if (length > ALIGN_UP(old * 4, SECTOR)) { // the footer goes behind it first
        from = 0;
        table_at = ALIGN_UP(v->data_end, SECTOR);
        rc = file_write(v->grains.file, table_at + length, v->footer, FOOTER);
        if (!rc)
            v->data_end = table_at + length;
    }
    if (!rc)
        rc = put_table(v, table_at, from, entries);
    return rc ? rc : put_header(v, table_at, entries);
}

// Both copies of the footer; the one at the end counts.
static int put_footer(struct disk *disk, const uint8_t *footer)
{
    struct vhd *v = disk->state;
    int rc = put(disk->file, file_size(disk->file) - FOOTER, footer, FOOTER);
    if (!rc) {
        memcpy(v->footer, footer, FOOTER);
        disk->size = load_be64(footer + F_SIZE);
        rc = put(disk->file, 0, footer, FOOTER);
    }
    return rc;
}

static int set_count(struct vhd *v, uint64_t count)
{
    uint8_t *complete = g_try_malloc0(count / 8 + 1);
    if (!complete)
        return -ENOMEM;
    g_free(v->complete);
    v->complete = complete;
    g_hash_table_remove_all(v->bitmaps);
    return grains_set_count(&v->grains, count);
}

static int grow_dynamic(struct disk *disk, uint64_t size, uint64_t blocks)
{
    struct vhd *v = disk->state;
    uint8_t footer[FOOTER];
    make_footer(v, size, 0, footer);
    int rc = grains_flush(&v->grains);
    if (!rc && blocks > v->grains.count)
        rc = grow_table(v, blocks);
    if (!rc)
        rc = put_footer(disk, footer);
    return rc ? rc : set_count(v, blocks);
}

// The file ends behind its last block or table.
static int cut(struct disk *disk)
{
    struct vhd *v = disk->state;
    uint64_t top, entries = load_be32(v->header + H_ENTRIES);
    int rc = grains_top(&v->grains, &top);
    if (rc)
        return rc;
    v->data_end = MAX(v->table_at + ALIGN_UP(entries * 4, SECTOR), load_be64(v->footer + F_DATA_AT) + DYNAMIC_HEADER);
    if (top)
        v->data_end = MAX(v->data_end, (top - 1) * SECTOR + v->bitmap_size + v->block_size);
    rc = put(disk->file, v->data_end, v->footer, FOOTER);
    if (!rc && disk->file->regular)
        rc = file_truncate(disk->file, v->data_end + FOOTER);
    return rc ? rc : file_sync(disk->file);
}

// The data goes first.
static int shrink_dynamic(struct disk *disk, uint64_t size, uint64_t blocks)
{
    struct vhd *v = disk->state;
    struct grains *g = &v->grains;
    uint64_t rest = MIN(disk->size, blocks * v->block_size);
    uint8_t footer[FOOTER];
    make_footer(v, size, 0, footer);
    int rc = rest > size ? grains_zero(g, size, rest - size, 0) : 0;
    if (!rc)
        rc = grains_drop(g, blocks);
    if (!rc)
        rc = put_footer(disk, footer);
    if (!rc)
        rc = put_header(v, v->table_at, blocks);
    if (!rc)
        rc = set_count(v, blocks);
    return rc ? rc : cut(disk);
}

int vhd_recover(struct disk *disk)
{
    struct vhd *v = disk->state;
    uint8_t first[FOOTER], last[FOOTER];
    if (v->type == VHD_FIXED)
        return v->stale ? clear_stale(disk) : 0;
    int rc = file_read(disk->file, 0, first, FOOTER);
    if (!rc)
        rc = file_read(disk->file, file_size(disk->file) - FOOTER, last, FOOTER);
    if (rc || !vhd_footer_is_valid(last) || memcmp(first, last, FOOTER) == 0)
        return rc;
    return put(disk->file, 0, last, FOOTER);
}

int vhd_resize(struct disk *disk, uint64_t size)
{
    struct vhd *v = disk->state;
    if (size > VHD_MOST)
        return -EFBIG;
    if (v->type == VHD_FIXED)
        return resize_fixed(disk, size);
    uint64_t blocks = size / v->block_size + !!(size % v->block_size);
    return size > disk->size ? grow_dynamic(disk, size, blocks) : shrink_dynamic(disk, size, blocks);
}
