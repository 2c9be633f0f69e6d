// SPDX-License-Identifier: GPL-2.0-or-later
// Virtual Hard Disk images after Microsoft's "Virtual Hard Disk Image Format Specification" 1.0: fixed and dynamic ones
// are read and written, differencing ones read.
#include "disks/check.h"
#include "disks/create.h"
#include "disks/info.h"
#include "disks/vhd.h"

#include <errno.h>
#include <time.h>

uint32_t vhd_checksum(const uint8_t *data, unsigned length, unsigned skip)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < length; i++)
        sum += i >= skip && i < skip + 4 ? 0 : data[i];
    return ~sum;
}

bool vhd_footer_is_valid(const uint8_t *f)
{
    return memcmp(f, "conectix", 8) == 0 && load_be32(f + F_CHECKSUM) == vhd_checksum(f, FOOTER, F_CHECKSUM);
}

// Dynamic images start with a copy of the footer. Fixed ones are a disk with a footer behind it, which must fit
// exactly.
static bool vhd_probe(const struct probe *probe)
{
    if (probe->head_length >= FOOTER && memcmp(probe->head, "conectix", 8) == 0)
        return true;
    return probe->tail && vhd_footer_is_valid(probe->tail) && load_be32(probe->tail + F_TYPE) == VHD_FIXED &&
           load_be64(probe->tail + F_SIZE) == probe->file_size - FOOTER;
}

static bool refuse(struct disk *disk, GError **error, enum cloche_error code, const char *what)
{
    g_set_error(error, CLOCHE_ERROR, code, "%s cannot be opened: %s", disk->path, what);
    return false;
}

// ---- The block table ----
static enum grain_kind vhd_kind(struct grains *g, uint32_t entry, uint64_t *offset)
{
    struct vhd *v = g->opaque;
    if (entry == VHD_NONE)
        return GRAIN_NONE;
    *offset = (uint64_t)entry * SECTOR + v->bitmap_size;
    return *offset < file_size(g->file) && *offset >= FOOTER + DYNAMIC_HEADER ? GRAIN_DATA : GRAIN_INVALID;
}

// The new block takes the footer's place: the footer goes behind it first. All sectors are marked as in use.
static int vhd_allocate(struct grains *g, uint64_t grain, uint32_t *entry)
{
    struct vhd *v = g->opaque;
    // Data starts on a multiple of 4 KiB, with the bitmap right before it.
    uint64_t start = ALIGN_UP(v->data_end + v->bitmap_size, 4096) - v->bitmap_size;
    uint64_t data = start + v->bitmap_size, end = data + v->block_size;
    if (start / SECTOR >= VHD_NONE)
        return -EFBIG;
    g_autofree uint8_t *bitmap = g_malloc(v->bitmap_size);
    memset(bitmap, 0xff, v->bitmap_size);
    int rc = file_write(g->file, end, v->footer, FOOTER);
    if (!rc)
        rc = file_punch(g->file, data, v->block_size);
    if (!rc)
        rc = file_write(g->file, start, bitmap, v->bitmap_size);
    if (rc)
        return rc;
    v->data_end = end;
    *entry = start / SECTOR;
    return 0;
}

// ---- Opening ----
static bool read_footer(struct disk *disk, struct vhd *v, GError **error)
{
    uint64_t size = file_size(disk->file);
    int rc = size < FOOTER ? -EIO : file_read(disk->file, size - FOOTER, v->footer, FOOTER);
    if (!rc && !vhd_footer_is_valid(v->footer)) // a dynamic image whose end was lost has a copy at its start
        rc = file_read(disk->file, 0, v->footer, FOOTER);
    if (rc) {
        set_errno_error(error, rc, "Cannot read %s", disk->path);
        return false;
    }
    if (!vhd_footer_is_valid(v->footer))
        return refuse(disk, error, CLOCHE_ERROR_CORRUPT, "neither its footer nor the copy of it is valid");
    v->type = load_be32(v->footer + F_TYPE);
    disk->size = ALIGN_DOWN(load_be64(v->footer + F_SIZE), SECTOR);
    if (v->type != VHD_FIXED && v->type != VHD_DYNAMIC && v->type != VHD_DIFFERENCING)
        return refuse(disk, error, CLOCHE_ERROR_UNSUPPORTED,
                      "its VHD variant is not known; convert it with the tool that made it");
    uint64_t stale = load_be64(v->footer + F_STALE);
    if (v->type == VHD_FIXED && stale % SECTOR == 0 && stale < disk->size)
        v->stale = stale;
    if (disk->size > INT64_MAX / 2 || (v->type == VHD_FIXED && disk->size > size - FOOTER))
        return refuse(disk, error, CLOCHE_ERROR_CORRUPT, "its size and the length of the file do not fit together");
    return true;
}

static bool read_header(struct disk *disk, struct vhd *v, GError **error)
{
    uint64_t at = load_be64(v->footer + F_DATA_AT), size = file_size(disk->file);
    int rc = at > size ? -EIO : file_read(disk->file, at, v->header, DYNAMIC_HEADER);
    if (rc) {
        set_errno_error(error, rc, "Cannot read the header of %s", disk->path);
        return false;
    }
    if (memcmp(v->header, "cxsparse", 8) != 0 ||
        load_be32(v->header + H_CHECKSUM) != vhd_checksum(v->header, DYNAMIC_HEADER, H_CHECKSUM))
        return refuse(disk, error, CLOCHE_ERROR_CORRUPT, "its dynamic header is not valid");
    v->table_at = load_be64(v->header + H_TABLE_AT);
    v->block_size = load_be32(v->header + H_BLOCK);
    uint64_t entries = load_be32(v->header + H_ENTRIES);
    if (v->block_size < 4096 || v->block_size > 256 * MiB || v->block_size & (v->block_size - 1))
        return refuse(disk, error, CLOCHE_ERROR_CORRUPT, "its block size is not valid");
    if (disk->size / v->block_size + !!(disk->size % v->block_size) > entries || v->table_at > size ||
        entries * 4 > size - v->table_at)
        return refuse(disk, error, CLOCHE_ERROR_CORRUPT, "its block table lies outside the file");
    v->bitmap_size = ALIGN_UP(v->block_size / SECTOR / 8, SECTOR);
    v->grains = (struct grains){.disk = disk,
                                .file = disk->file,
                                .opaque = v,
                                .grain_size = v->block_size,
                                .prefix = v->bitmap_size,
                                .none = VHD_NONE,
                                .count = disk->size / v->block_size + !!(disk->size % v->block_size),
                                .per_page = 1024,
                                .table_at = v->table_at,
                                .big_endian = true,
                                .load = grains_load,
                                .store = grains_store,
                                .kind = vhd_kind,
                                .allocate = vhd_allocate};
    return true;
}

static bool find_end(struct disk *disk, struct vhd *v, GError **error)
{
    struct grains *g = &v->grains;
    uint64_t entries = load_be32(v->header + H_ENTRIES);
    v->data_end = MAX(v->table_at + ALIGN_UP(entries * 4, SECTOR), load_be64(v->footer + F_DATA_AT) + DYNAMIC_HEADER);
    uint64_t top;
    int rc = grains_top(g, &top);
    if (rc) {
        set_errno_error(error, rc, "Cannot read the block table of %s", disk->path);
        return false;
    }
    if (top)
        v->data_end = MAX(v->data_end, (top - 1) * SECTOR + v->bitmap_size + v->block_size);
    return true;
}

static void find_parent(struct disk *disk, struct vhd *v)
{
    gunichar2 name[257] = {0};
    for (unsigned i = 0; i < 256; i++)
        name[i] = load_be16(v->header + H_PARENT_NAME + 2 * i);
    g_autofree char *text = g_utf16_to_utf8(name, -1, NULL, NULL, NULL);
    if (!text || !*text)
        return;
    // A Windows path: the file of that name, in this folder.
    const char *slash = strrchr(text, '\\'), *other = strrchr(text, '/');
    const char *base = MAX(slash ? slash + 1 : text, other ? other + 1 : text);
    disk->backing_path = g_strdup(base);
    disk->backing_format = g_strdup("vhd");
}

static bool open_dynamic(struct disk *disk, struct vhd *v, GError **error)
{
    if (!read_header(disk, v, error) || !grains_init(&v->grains, error))
        return false;
    v->complete = g_try_malloc0(v->grains.count / 8 + 1);
    v->bitmaps = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    if (!v->complete)
        return refuse(disk, error, CLOCHE_ERROR_FAILED, "there is not enough memory");
    if (v->type == VHD_DYNAMIC)
        return disk->read_only || disk->flags & DISK_OPEN_REPAIR || find_end(disk, v, error);
    disk->read_only_reason = g_strdup("differencing VHD images are only read here; make a qcow2 overlay on top of it");
    find_parent(disk, v);
    if (disk->backing_path)
        return true;
    return refuse(disk, error, CLOCHE_ERROR_CORRUPT, "it does not name the image that it is the difference to");
}

static bool vhd_open(struct disk *disk, GError **error)
{
    struct vhd *v = disk->state = g_new0(struct vhd, 1);
    pthread_mutex_init(&v->bitmap_lock, NULL);
    if (!read_footer(disk, v, error) || (v->type != VHD_FIXED && !open_dynamic(disk, v, error)))
        return false;
    int rc = disk->read_only || v->type == VHD_DIFFERENCING ? 0 : vhd_recover(disk);
    if (rc)
        set_errno_error(error, rc, "Cannot write to %s", disk->path);
    return rc == 0;
}

static void vhd_close(struct disk *disk)
{
    struct vhd *v = disk->state;
    grains_free(&v->grains);
    if (v->bitmaps)
        g_hash_table_destroy(v->bitmaps);
    pthread_mutex_destroy(&v->bitmap_lock);
    g_free(v->complete);
    g_free(v);
}

static bool vhd_check_base(struct disk *disk, GError **error)
{
    struct vhd *v = disk->state, *parent = disk->backing->state;
    if (memcmp(v->header + H_PARENT_UUID, parent->footer + F_UUID, 16) == 0)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT,
                "The base %s is not the image that %s was made on top of: put the right one there", disk->backing->path,
                disk->path);
    return false;
}

// ---- Sector bitmaps ----
// A bit for each sector of a block says whether its data is here, or else in the parent; without one it reads as
// zeroes. Blocks that we make have all bits set; other programs' may not.
static bool has_sector(const uint8_t *bitmap, uint64_t sector)
{
    return bitmap[sector / 8] >> (7 - sector % 8) & 1;
}

static uint64_t sectors_alike(const uint8_t *bitmap, uint64_t from, uint64_t to)
{
    uint64_t at = from + 1;
    while (at < to && has_sector(bitmap, at) == has_sector(bitmap, from))
        at++;
    return at - from;
}

// *BITMAP: NULL where the block, whose data is at DATA, has all its sectors. BITMAP_LOCK held.
static int find_bitmap(struct vhd *v, uint64_t block, uint64_t data, uint8_t **bitmap)
{
    gpointer key = GSIZE_TO_POINTER(block + 1);
    *bitmap = g_hash_table_lookup(v->bitmaps, key);
    if (*bitmap || v->complete[block / 8] >> block % 8 & 1)
        return 0;
    g_autofree uint8_t *loaded = g_malloc(v->bitmap_size);
    int rc = file_read(v->grains.file, data - v->bitmap_size, loaded, v->bitmap_size);
    if (rc)
        return rc;
    uint64_t sectors = v->block_size / SECTOR;
    if (has_sector(loaded, 0) && sectors_alike(loaded, 0, sectors) == sectors) {
        v->complete[block / 8] |= 1 << block % 8;
        return 0;
    }
    if (g_hash_table_size(v->bitmaps) > 4096)
        g_hash_table_remove_all(v->bitmaps);
    *bitmap = g_steal_pointer(&loaded);
    g_hash_table_insert(v->bitmaps, key, *bitmap);
    return 0;
}

// Cuts EXTENT, the data of one block, to sectors that are alike.
static int sector_run(struct vhd *v, uint64_t offset, bool may_block, struct extent *extent)
{
    uint64_t block = offset / v->block_size, sector = offset % v->block_size / SECTOR;
    uint8_t *bitmap = NULL;
    pthread_mutex_lock(&v->bitmap_lock);
    bool known = v->complete[block / 8] >> block % 8 & 1;
    int rc = known        ? 0
             : !may_block ? -EAGAIN
                          : find_bitmap(v, block, extent->file_offset - offset % v->block_size, &bitmap);
    if (!rc && bitmap) {
        extent->length = sectors_alike(bitmap, sector, sector + extent->length / SECTOR) * SECTOR;
        extent->writable = false;
        if (!has_sector(bitmap, sector))
            extent->kind = v->type == VHD_DYNAMIC ? EXTENT_ZERO : EXTENT_BACKING;
    }
    pthread_mutex_unlock(&v->bitmap_lock);
    return rc;
}

// Before a block is written to it gets all its sectors: zeroes where it had none, then the bits.
static int complete_block(struct vhd *v, uint64_t block)
{
    uint64_t data, sectors = v->block_size / SECTOR;
    uint32_t entry;
    uint8_t *bitmap = NULL;
    int rc = grains_entry(&v->grains, block, true, &entry);
    if (rc || v->grains.kind(&v->grains, entry, &data) != GRAIN_DATA)
        return rc;
    pthread_mutex_lock(&v->bitmap_lock);
    rc = find_bitmap(v, block, data, &bitmap);
    for (uint64_t at = 0, run; bitmap && at < sectors && !rc; at += run) {
        run = sectors_alike(bitmap, at, sectors);
        if (!has_sector(bitmap, at))
            rc = file_zero(v->grains.file, data + at * SECTOR, run * SECTOR);
    }
    if (bitmap && !rc && (rc = file_sync(v->grains.file)) == 0) {
        memset(bitmap, 0xff, v->bitmap_size);
        rc = file_write(v->grains.file, data - v->bitmap_size, bitmap, v->bitmap_size);
    }
    if (bitmap && !rc) {
        v->complete[block / 8] |= 1 << block % 8;
        g_hash_table_remove(v->bitmaps, GSIZE_TO_POINTER(block + 1));
    }
    pthread_mutex_unlock(&v->bitmap_lock);
    return rc;
}

// ---- Requests ----
static int map_fixed(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent)
{
    struct vhd *v = disk->state;
    *extent = (struct extent){
        .kind = EXTENT_DATA, .length = length, .file = disk->file, .file_offset = offset, .writable = true};
    if (v->stale && offset < v->stale + SECTOR && offset + length > v->stale) {
        if (offset < v->stale)
            extent->length = v->stale - offset;
        else {
            extent->length = SECTOR;
            extent->kind = EXTENT_ZERO;
        }
    } else if (flags & MAP_HOLES && file_is_hole(disk->file, offset, length, &extent->length))
        extent->kind = EXTENT_ZERO;
    return 0;
}

static int vhd_map(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent)
{
    struct vhd *v = disk->state;
    if (v->type == VHD_FIXED)
        return map_fixed(disk, offset, length, flags, extent);
    int rc = grains_map(&v->grains, offset, length, flags & ~MAP_HOLES, extent);
    if (rc || extent->kind != EXTENT_DATA)
        return rc;
    extent->length = MIN(extent->length, v->block_size - offset % v->block_size);
    rc = sector_run(v, offset, flags & MAP_MAY_BLOCK, extent);
    if (!rc && flags & MAP_HOLES && extent->kind == EXTENT_DATA &&
        file_is_hole(extent->file, extent->file_offset, extent->length, &extent->length))
        extent->kind = EXTENT_ZERO;
    return rc;
}

// A resize that failed half-way left a footer in the data: it goes before anything is written.
static int tidy(struct disk *disk)
{
    struct vhd *v = disk->state;
    pthread_mutex_lock(&v->bitmap_lock);
    int rc = v->stale ? vhd_recover(disk) : 0;
    pthread_mutex_unlock(&v->bitmap_lock);
    return rc;
}

static int vhd_write(struct disk *disk, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned iov_count)
{
    struct vhd *v = disk->state;
    int rc = tidy(disk);
    if (v->type == VHD_FIXED)
        return rc ? rc : file_writev(disk->file, offset, iov, iov_count);
    for (uint64_t block = offset / v->block_size; block <= (offset + length - 1) / v->block_size && !rc; block++)
        rc = complete_block(v, block);
    return rc ? rc : grains_write(&v->grains, offset, length, iov, iov_count);
}

static int vhd_zero(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    struct vhd *v = disk->state;
    if (v->type != VHD_FIXED)
        return grains_zero(&v->grains, offset, length, flags);
    int rc = tidy(disk);
    if (rc)
        return rc;
    return flags & DISK_MAY_UNMAP ? file_punch(disk->file, offset, length) : file_zero(disk->file, offset, length);
}

static int vhd_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    return vhd_zero(disk, offset, length, DISK_MAY_UNMAP);
}

static int vhd_flush(struct disk *disk)
{
    struct vhd *v = disk->state;
    return v->type == VHD_FIXED ? file_sync(disk->file) : grains_flush(&v->grains);
}

// ---- What it is ----
static void vhd_info(struct disk *disk, struct disk_info *info)
{
    struct vhd *v = disk->state;
    static const char *const variants[] = {
        [VHD_FIXED] = "fixed", [VHD_DYNAMIC] = "dynamic", [VHD_DIFFERENCING] = "differencing"};
    info->variant = g_strdup(variants[v->type]);
    info->cluster_size = v->block_size;
}

static uint64_t vhd_cluster_size(struct disk *disk)
{
    return ((struct vhd *)disk->state)->block_size;
}

void vhd_put_geometry(uint8_t *out, uint64_t size)
{
    uint64_t sectors = MIN(size / SECTOR, 65535ull * 16 * 255), cylinders_heads;
    unsigned heads = 16, per_track = 255;
    if (sectors < 65535ull * 16 * 63) {
        per_track = 17;
        cylinders_heads = sectors / per_track;
        heads = MAX((cylinders_heads + 1023) / 1024, 4);
        if (cylinders_heads >= heads * 1024ull || heads > 16) {
            per_track = 31;
            heads = 16;
            cylinders_heads = sectors / per_track;
        }
        if (cylinders_heads >= heads * 1024ull) {
            per_track = 63;
            heads = 16;
        }
    }
    cylinders_heads = sectors / per_track;
    store_be16(out, MIN(cylinders_heads / heads, 65535));
    out[2] = heads;
    out[3] = per_track;
}

void vhd_put_creator(uint8_t *f)
{
    memcpy(f + F_CREATOR, "win ", 4);
    store_be32(f + F_CREATOR_VERSION, 0x000a0000);
    memcpy(f + F_HOST, "Wi2k", 4);
}

static void make_footer(uint8_t *f, uint64_t size, bool fixed)
{
    memset(f, 0, FOOTER);
    memcpy(f, "conectix", 8);
    store_be32(f + F_FEATURES, 2);
    store_be32(f + F_VERSION, 0x00010000);
    store_be64(f + F_DATA_AT, fixed ? UINT64_MAX : FOOTER);
    store_be32(f + F_TIME, time(NULL) - 946684800);
    vhd_put_creator(f);
    store_be64(f + F_ORIGINAL_SIZE, size);
    store_be64(f + F_SIZE, size);
    vhd_put_geometry(f + F_GEOMETRY, size);
    store_be32(f + F_TYPE, fixed ? VHD_FIXED : VHD_DYNAMIC);
    for (unsigned i = 0; i < 4; i++)
        store_be32(f + F_UUID + 4 * i, g_random_int());
    store_be32(f + F_CHECKSUM, vhd_checksum(f, FOOTER, F_CHECKSUM));
}

static int write_dynamic(struct file *file, const uint8_t *footer, uint64_t size)
{
    uint64_t entries = (size + 2 * MiB - 1) / (2 * MiB), table_at = FOOTER + DYNAMIC_HEADER;
    uint64_t table_size = ALIGN_UP(MAX(entries, 1) * 4, SECTOR);
    uint8_t header[DYNAMIC_HEADER] = {0};
    memcpy(header, "cxsparse", 8);
    store_be64(header + H_DATA_AT, UINT64_MAX);
    store_be64(header + H_TABLE_AT, table_at);
    store_be32(header + H_VERSION, 0x00010000);
    store_be32(header + H_ENTRIES, entries);
    store_be32(header + H_BLOCK, 2 * MiB);
    store_be32(header + H_CHECKSUM, vhd_checksum(header, DYNAMIC_HEADER, H_CHECKSUM));
    g_autofree uint8_t *table = g_malloc(table_size);
    memset(table, 0xff, table_size);
    int rc = file_write(file, FOOTER, header, DYNAMIC_HEADER);
    if (!rc)
        rc = file_write(file, table_at, table, table_size);
    if (!rc)
        rc = file_write(file, table_at + table_size, footer, FOOTER);
    return rc ? rc : file_write(file, 0, footer, FOOTER);
}

static int write_fixed(struct file *file, const uint8_t *footer, uint64_t size)
{
    int rc = file_truncate(file, size);
    if (!rc && size)
        rc = file_allocate(file, 0, size);
    return rc ? rc : file_write(file, size, footer, FOOTER);
}

static int vhd_create(struct file *file, const struct disk_create_options *options, GError **error)
{
    if (options->size > VHD_MOST) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "A VHD image cannot be larger than 2040 GiB: use qcow2");
        return -EINVAL;
    }
    uint8_t footer[FOOTER];
    make_footer(footer, options->size, options->preallocate);
    return options->preallocate ? write_fixed(file, footer, options->size) : write_dynamic(file, footer, options->size);
}

// ---- Check: blocks do not overlap, lie inside the file, and the footer is at its end ----
static int compare_starts(gconstpointer a, gconstpointer b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int check_blocks(struct disk *disk, struct vhd *v, struct disk_check_result *result)
{
    struct grains *g = &v->grains;
    g_autoptr(GArray) starts = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    int rc = 0;
    for (uint64_t i = 0; i < g->count && !rc; i++) {
        uint32_t entry;
        uint64_t offset;
        rc = grains_entry(g, i, true, &entry);
        if (rc || entry == VHD_NONE)
            continue;
        g_array_append_val(starts, entry);
        if (vhd_kind(g, entry, &offset) != GRAIN_INVALID)
            continue;
        result->corruptions++;
        disk_check_note(result, "Block %u lies outside the file", (unsigned)i);
    }
    g_array_sort(starts, compare_starts);
    for (unsigned i = 1; i < starts->len; i++) {
        uint64_t before = g_array_index(starts, uint32_t, i - 1), here = g_array_index(starts, uint32_t, i);
        if ((here - before) * SECTOR >= v->bitmap_size + v->block_size)
            continue;
        result->corruptions++;
        disk_check_note(result, "Two blocks overlap at sector %u", (unsigned)here);
    }
    result->clusters_total = g->count;
    result->clusters_used = starts->len;
    return rc;
}

static bool vhd_check(struct disk *disk, bool repair, struct disk_check_result *result, struct job *job, GError **error)
{
    struct vhd *v = disk->state;
    if (v->type == VHD_FIXED)
        return true;
    uint8_t tail[FOOTER];
    int rc = check_blocks(disk, v, result);
    if (!rc && !find_end(disk, v, error))
        return false;
    if (!rc)
        rc = file_read(disk->file, file_size(disk->file) - FOOTER, tail, FOOTER);
    bool lost = !rc && !vhd_footer_is_valid(tail),
         loose = !rc && !lost && file_size(disk->file) > v->data_end + FOOTER + 4096;
    if (lost || loose) { // a crash while a block was added: the copy at the start has it
        result->leaks++;
        disk_check_note(result, lost ? "The footer at the end is missing; its copy is there"
                                     : "The end of the file has room that no block uses");
        if (repair && !result->corruptions) {
            rc = file_write(disk->file, v->data_end, v->footer, FOOTER);
            if (!rc)
                rc = file_truncate(disk->file, v->data_end + FOOTER);
            if (!rc)
                rc = file_sync(disk->file);
            result->leaks_fixed++;
        }
    }
    if (rc)
        set_errno_error(error, rc, "Cannot check %s", disk->path);
    return rc == 0;
}

const struct disk_driver vhd_driver = {
    .name = "vhd",
    .probe = vhd_probe,
    .open = vhd_open,
    .close = vhd_close,
    .map = vhd_map,
    .write = vhd_write,
    .zero = vhd_zero,
    .discard = vhd_discard,
    .flush = vhd_flush,
    .resize = vhd_resize,
    .size_limit = "a VHD image ends at 2040 GiB; convert it to qcow2",
    .info = vhd_info,
    .create = vhd_create,
    .check = vhd_check,
    .check_base = vhd_check_base,
    .cluster_size = vhd_cluster_size,
};
