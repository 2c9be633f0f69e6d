// SPDX-License-Identifier: GPL-2.0-or-later
// Hosted sparse extents: a grain directory, grain tables (kept twice), grains. Stream-optimized ones are compressed.
#include "disks/create.h"
#include "disks/vmdk.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>

enum { HEADER = VMDK_HEADER, GRAIN_SECTORS = 128, PER_TABLE = 512, DESCRIPTOR_SECTORS = 20 };
enum {
    FLAG_NEWLINES = 1 << 0,
    FLAG_REDUNDANT = 1 << 1,
    FLAG_ZERO_GRAINS = 1 << 2,
    FLAG_COMPRESSED = 1 << 16,
    FLAG_MARKERS = 1 << 17
};

static bool refuse(struct vmdk_extent *e, enum cloche_error code, const char *what, GError **error)
{
    g_set_error(error, CLOCHE_ERROR, code, "%s cannot be opened: %s", e->file->path, what);
    return false;
}

bool vmdk_sparse_descriptor(struct file *file, uint64_t *offset, uint64_t *length)
{
    uint8_t h[HEADER];
    if (file_read(file, 0, h, HEADER) || load_le(h, 4) != VMDK_MAGIC)
        return false;
    uint64_t at = load_le(h + H_DESCRIPTOR, 8), sectors = load_le(h + H_DESCRIPTOR_SIZE, 8);
    if (at > INT64_MAX / 1024 || sectors > 2048)
        sectors = 0;
    *offset = at * VMDK_SECTOR;
    *length = sectors * VMDK_SECTOR;
    return true;
}

// ---- Grain tables: one is one page ----
static int sparse_load(struct grains *g, uint64_t page, uint32_t *entries)
{
    struct vmdk_extent *e = g->opaque;
    if (!e->directory[page]) // no table: nothing there
        return 0;
    if (e->directory[page] * VMDK_SECTOR >= file_size(g->file))
        return -EIO;
    int rc = file_read(g->file, e->directory[page] * VMDK_SECTOR, entries, g->per_page * 4ull);
    for (unsigned i = 0; i < g->per_page; i++)
        entries[i] = GUINT32_FROM_LE(entries[i]);
    return rc;
}

static int sparse_store(struct grains *g, uint64_t page, const uint32_t *entries)
{
    struct vmdk_extent *e = g->opaque;
    g_autofree uint32_t *out = g_new(uint32_t, g->per_page);
    for (unsigned i = 0; i < g->per_page; i++)
        out[i] = GUINT32_TO_LE(entries[i]);
    int rc = file_write(g->file, e->directory[page] * VMDK_SECTOR, out, g->per_page * 4ull);
    if (!rc && e->redundant && e->redundant[page])
        rc = file_write(g->file, e->redundant[page] * VMDK_SECTOR, out, g->per_page * 4ull);
    return rc;
}

static enum grain_kind sparse_kind(struct grains *g, uint32_t entry, uint64_t *offset)
{
    struct vmdk_extent *e = g->opaque;
    if (!entry)
        return GRAIN_NONE;
    if (entry == 1 && e->zero_grains)
        return GRAIN_ZERO;
    *offset = entry * VMDK_SECTOR;
    if (*offset >= file_size(g->file))
        return GRAIN_INVALID;
    return e->compressed ? GRAIN_COMPRESSED : GRAIN_DATA;
}

static int sparse_allocate(struct grains *g, uint64_t grain, uint32_t *entry)
{
    struct vmdk_extent *e = g->opaque;
    uint64_t place;
    if (!e->directory[grain / g->per_page])
        return -EIO;
    int rc = grains_append(g, &e->end, g->grain_size, g->grain_size, &place);
    if (rc)
        return rc;
    if (place / VMDK_SECTOR > UINT32_MAX) {
        e->end = place;
        return -EFBIG;
    }
    *entry = place / VMDK_SECTOR;
    return 0;
}

// ---- Opening ----
static uint32_t *load_directory(struct vmdk_extent *e, uint64_t sector, GError **error)
{
    uint32_t *directory = g_try_new0(uint32_t, e->tables + 1);
    if (!directory || sector * VMDK_SECTOR + e->tables * 4ull > ALIGN_UP(file_size(e->file), VMDK_SECTOR) ||
        file_read(e->file, sector * VMDK_SECTOR, directory, e->tables * 4ull)) {
        g_free(directory);
        refuse(e, CLOCHE_ERROR_CORRUPT, "its grain directory lies outside the file", error);
        return NULL;
    }
    for (uint32_t i = 0; i < e->tables; i++)
        directory[i] = GUINT32_FROM_LE(directory[i]);
    return directory;
}

// A stream-optimized extent ends with a copy of the header that knows where the directory is.
static bool read_header(struct vmdk_extent *e, uint8_t *h, GError **error)
{
    uint64_t size = file_size(e->file);
    int rc = file_read(e->file, 0, h, HEADER);
    if (!rc && load_le(h, 4) == VMDK_MAGIC && load_le(h + H_DIRECTORY, 8) == UINT64_MAX) {
        if (size < 2 * HEADER)
            return refuse(e, CLOCHE_ERROR_CORRUPT, "its footer is missing; the file is not complete", error);
        rc = file_read(e->file, size - 2 * HEADER, h, HEADER);
        if (!rc && load_le(h, 4) != VMDK_MAGIC)
            return refuse(e, CLOCHE_ERROR_CORRUPT, "its footer is missing; the file is not complete", error);
    }
    if (rc) {
        set_errno_error(error, rc, "Cannot read %s", e->file->path);
        return false;
    }
    if (load_le(h, 4) != VMDK_MAGIC)
        return refuse(e, CLOCHE_ERROR_CORRUPT, "it is not a VMDK sparse extent", error);
    return true;
}

static bool check_header(struct vmdk_extent *e, const uint8_t *h, GError **error)
{
    uint64_t flags = load_le(h + H_FLAGS, 4), grain = load_le(h + H_GRAIN, 8), per = load_le(h + H_PER_TABLE, 4);
    uint64_t capacity = load_le(h + H_CAPACITY, 8);
    static const uint8_t newlines[] = {'\n', ' ', '\r', '\n'};
    if (load_le(h + H_VERSION, 4) > 3)
        return refuse(e, CLOCHE_ERROR_UNSUPPORTED,
                      "its VMDK version is not known; convert it with the tool that made it", error);
    if (flags & FLAG_NEWLINES && memcmp(h + H_NEWLINES, newlines, 4) != 0)
        return refuse(e, CLOCHE_ERROR_CORRUPT, "it was transferred as text, which damaged it; transfer it again",
                      error);
    if (grain < 8 || grain > 131072 || grain & (grain - 1) || per < 1 || per > 4096)
        return refuse(e, CLOCHE_ERROR_CORRUPT, "its grain size is not valid", error);
    if (capacity == 0 || capacity > INT64_MAX / 1024 || capacity / grain > (uint64_t)UINT32_MAX)
        return refuse(e, CLOCHE_ERROR_CORRUPT, "its size is not valid", error);
    if (flags & FLAG_COMPRESSED && load_le(h + H_COMPRESSION, 2) != 1)
        return refuse(e, CLOCHE_ERROR_UNSUPPORTED, "its compression method is not known", error);
    if (load_le(h + H_DIRECTORY, 8) > INT64_MAX / 1024 || load_le(h + H_REDUNDANT, 8) > INT64_MAX / 1024)
        return refuse(e, CLOCHE_ERROR_CORRUPT, "its grain directory lies outside the file", error);
    return true;
}

bool vmdk_sparse_open(struct vmdk_extent *e, GError **error)
{
    uint8_t h[HEADER];
    if (!read_header(e, h, error) || !check_header(e, h, error))
        return false;
    uint64_t flags = load_le(h + H_FLAGS, 4), grain = load_le(h + H_GRAIN, 8) * VMDK_SECTOR;
    e->per_table = load_le(h + H_PER_TABLE, 4);
    e->compressed = flags & FLAG_COMPRESSED;
    e->zero_grains = flags & FLAG_ZERO_GRAINS;
    uint64_t capacity = load_le(h + H_CAPACITY, 8) * VMDK_SECTOR;
    if (!e->length)
        e->length = capacity;
    if (capacity < e->length)
        return refuse(e, CLOCHE_ERROR_CORRUPT, "it is smaller than the descriptor says", error);
    uint64_t count = (capacity + grain - 1) / grain;
    e->tables = (count + e->per_table - 1) / e->per_table;
    e->end = ALIGN_UP(file_size(e->file), grain);
    e->overhead = load_le(h + H_OVERHEAD, 8);
    e->directory_at = load_le(h + H_DIRECTORY, 8);
    e->redundant_at = flags & FLAG_REDUNDANT ? load_le(h + H_REDUNDANT, 8) : 0;
    e->directory = load_directory(e, e->directory_at, error);
    if (e->directory && flags & FLAG_REDUNDANT)
        e->redundant = load_directory(e, e->redundant_at, error);
    if (!e->directory || (flags & FLAG_REDUNDANT && !e->redundant))
        return false;
    e->grains = (struct grains){.disk = e->vmdk->disk,
                                .file = e->file,
                                .opaque = e,
                                .grain_size = grain,
                                .count = count,
                                .per_page = e->per_table,
                                .load = sparse_load,
                                .store = sparse_store,
                                .kind = sparse_kind,
                                .allocate = sparse_allocate};
    return grains_init(&e->grains, error);
}

void vmdk_sparse_close(struct vmdk_extent *e)
{
    grains_free(&e->grains);
    g_free(e->directory);
    g_free(e->redundant);
}

// ---- Compressed grains ----
int vmdk_read_compressed(struct vmdk_extent *e, uint64_t offset, const struct iovec *iov, unsigned iov_count)
{
    struct grains *g = &e->grains;
    uint32_t entry;
    uint64_t place = 0;
    uint8_t marker[12];
    int rc = grains_entry(g, offset / g->grain_size, true, &entry);
    if (!rc && sparse_kind(g, entry, &place) != GRAIN_COMPRESSED)
        rc = -EIO;
    if (!rc)
        rc = file_read(e->file, place, marker, sizeof marker);
    uint64_t packed_length = load_le(marker + 8, 4);
    if (rc || packed_length == 0 || packed_length > 2 * g->grain_size + KiB)
        return rc ? rc : -EIO;
    g_autofree uint8_t *packed = g_try_malloc(packed_length), *data = g_try_malloc0(g->grain_size);
    if (!packed || !data)
        return -ENOMEM;
    rc = file_read(e->file, place + sizeof marker, packed, packed_length);
    uLongf length = g->grain_size;
    if (!rc && uncompress(data, &length, packed, packed_length) != Z_OK) {
        log_guest("disks", "%s is damaged: a compressed grain cannot be unpacked", e->file->path);
        rc = -EIO;
    }
    if (!rc)
        iov_from_buffer(iov, iov_count, 0, data + offset % g->grain_size, iov_length(iov, iov_count));
    return rc;
}

// ---- Creating ----
static int write_directory(struct file *file, uint64_t sector, uint64_t tables)
{
    uint64_t directory_sectors = (tables * 4 + 511) / 512, table_sectors = PER_TABLE * 4 / 512;
    g_autofree uint8_t *directory = g_malloc0(directory_sectors * 512);
    for (uint64_t i = 0; i < tables; i++)
        store_le(directory + 4 * i, 4, sector + directory_sectors + i * table_sectors);
    return file_write(file, sector * VMDK_SECTOR, directory, directory_sectors * 512);
}

int vmdk_sparse_create(struct file *file, uint64_t size, const char *descriptor)
{
    uint64_t capacity = size / VMDK_SECTOR, grains = (capacity + GRAIN_SECTORS - 1) / GRAIN_SECTORS;
    uint64_t tables = (grains + PER_TABLE - 1) / PER_TABLE, directory_sectors = (tables * 4 + 511) / 512;
    uint64_t set = directory_sectors + tables * (PER_TABLE * 4 / 512), redundant = 1 + DESCRIPTOR_SECTORS;
    uint64_t directory = redundant + set, overhead = ALIGN_UP(directory + set, GRAIN_SECTORS);
    uint8_t h[HEADER] = {0}, text[DESCRIPTOR_SECTORS * 512] = {0};
    static const uint8_t newlines[] = {'\n', ' ', '\r', '\n'};
    g_strlcpy((char *)text, descriptor, sizeof text);
    store_le(h + H_MAGIC, 4, VMDK_MAGIC);
    store_le(h + H_VERSION, 4, 1);
    store_le(h + H_FLAGS, 4, FLAG_NEWLINES | FLAG_REDUNDANT);
    store_le(h + H_CAPACITY, 8, capacity);
    store_le(h + H_GRAIN, 8, GRAIN_SECTORS);
    store_le(h + H_DESCRIPTOR, 8, 1);
    store_le(h + H_DESCRIPTOR_SIZE, 8, DESCRIPTOR_SECTORS);
    store_le(h + H_PER_TABLE, 4, PER_TABLE);
    store_le(h + H_REDUNDANT, 8, redundant);
    store_le(h + H_DIRECTORY, 8, directory);
    store_le(h + H_OVERHEAD, 8, overhead);
    memcpy(h + H_NEWLINES, newlines, 4);
    int rc = file_truncate(file, overhead * VMDK_SECTOR); // the tables are a hole: zeroes
    if (!rc)
        rc = write_directory(file, redundant, tables);
    if (!rc)
        rc = write_directory(file, directory, tables);
    if (!rc)
        rc = file_write(file, VMDK_SECTOR, text, sizeof text);
    return rc ? rc : file_write(file, 0, h, HEADER);
}
