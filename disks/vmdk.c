// SPDX-License-Identifier: GPL-2.0-or-later
// The VMDK driver. monolithicSparse and monolithicFlat are read and written; the split and stream-optimized variants
// and those with a parent are read.
#include "disks/check.h"
#include "disks/create.h"
#include "disks/info.h"
#include "disks/staging.h"
#include "disks/vmdk.h"

#include <errno.h>
#include <string.h>

enum { MOST_DESCRIPTOR = 1 << 20 };

static bool vmdk_probe(const struct probe *probe)
{
    static const char start[] = "# Disk DescriptorFile";
    if (probe->head_length >= 512 && load_le(probe->head, 4) == VMDK_MAGIC)
        return true;
    return probe->head_length >= sizeof start &&
           g_ascii_strncasecmp((const char *)probe->head, start, sizeof start - 1) == 0;
}

// ---- Opening ----
static bool refuse(struct disk *disk, GError **error, enum cloche_error code, const char *what)
{
    g_set_error(error, CLOCHE_ERROR, code, "%s cannot be opened: %s", disk->path, what);
    return false;
}

static bool read_descriptor(struct vmdk *v, bool *embedded, GError **error)
{
    struct file *file = v->disk->file;
    *embedded = vmdk_sparse_descriptor(file, &v->descriptor_offset, &v->descriptor_room);
    if (!*embedded)
        v->descriptor_room = MIN(file_size(file), MOST_DESCRIPTOR);
    if (!v->descriptor_room)
        return refuse(v->disk, error, CLOCHE_ERROR_UNSUPPORTED,
                      "it is one part of a split VMDK; open the descriptor file that names it");
    v->descriptor = g_malloc0(v->descriptor_room + 1);
    int rc = file_read(file, v->descriptor_offset, v->descriptor, v->descriptor_room);
    if (!rc)
        return vmdk_descriptor_parse(v, error);
    set_errno_error(error, rc, "Cannot read %s", v->disk->path);
    return false;
}

static bool open_extent_file(struct vmdk *v, struct vmdk_extent *e, const char *name, GError **error)
{
    struct disk *disk = v->disk;
    g_autofree char *folder = g_path_get_dirname(disk->path);
    g_autofree char *path = g_build_filename(folder, name, NULL);
    unsigned flags = (disk->read_only ? 0 : FILE_OPEN_WRITABLE) |
                     (disk->flags & DISK_OPEN_DIRECT ? FILE_OPEN_DIRECT : 0) |
                     (disk->flags & DISK_OPEN_FORCE ? FILE_OPEN_NO_LOCK : 0);
    e->file = file_open(path, flags, disk->hooks, error);
    e->owns_file = true;
    return e->file != NULL;
}

static bool open_extent(struct vmdk *v, struct vmdk_extent *e, const struct vmdk_line *line, bool embedded,
                        GError **error)
{
    e->kind = line->kind;
    e->flat_offset = line->offset * VMDK_SECTOR;
    if (e->kind == VMDK_ZERO)
        return true;
    if (embedded)
        e->file = v->disk->file;
    else if (!open_extent_file(v, e, line->file, error))
        return false;
    if (e->kind == VMDK_SPARSE)
        return vmdk_sparse_open(e, error);
    if (e->flat_offset + e->length <= ALIGN_UP(file_size(e->file), VMDK_SECTOR))
        return true;
    return refuse(v->disk, error, CLOCHE_ERROR_CORRUPT, "its data file is shorter than its descriptor says");
}

static bool open_extents(struct vmdk *v, bool embedded, GError **error)
{
    GArray *lines = vmdk_descriptor_extents(v, error);
    if (!lines)
        return false;
    bool ok = true;
    v->extents = g_new0(struct vmdk_extent, lines->len);
    for (unsigned i = 0; i < lines->len && ok; i++) {
        const struct vmdk_line *line = &g_array_index(lines, struct vmdk_line, i);
        struct vmdk_extent *e = &v->extents[v->extent_count++];
        e->vmdk = v;
        e->start = v->disk->size;
        e->length = line->sectors * VMDK_SECTOR;
        v->disk->size += e->length;
        ok = v->disk->size < INT64_MAX / 2 && !(embedded && (i || line->kind != VMDK_SPARSE)) &&
             open_extent(v, e, line, embedded, error);
        if (!ok && error && !*error)
            refuse(v->disk, error, CLOCHE_ERROR_CORRUPT, "its extents do not fit together");
    }
    g_array_free(lines, TRUE);
    return ok;
}

static void note_read_only(struct vmdk *v)
{
    struct disk *disk = v->disk;
    bool written = strcmp(v->variant, "monolithicSparse") == 0 || strcmp(v->variant, "monolithicFlat") == 0;
    if (v->parent_cid != UINT32_MAX)
        disk->read_only_reason =
            g_strdup("VMDK images with a parent are only read here; make a qcow2 overlay on top of it");
    else if (!written || v->extent_count != 1 || (v->extents && v->extents[0].kind == VMDK_ZERO))
        disk->read_only_reason =
            g_strdup_printf("%s VMDK images are only read here; convert it, or make a qcow2 overlay on "
                            "top of it",
                            v->variant);
}

static bool vmdk_open(struct disk *disk, GError **error)
{
    struct vmdk *v = disk->state = g_new0(struct vmdk, 1);
    bool embedded;
    v->disk = disk;
    pthread_mutex_init(&v->lock, NULL);
    if (!read_descriptor(v, &embedded, error))
        return false;
    // Known before the extent files are opened, so that those of a read-only variant are not opened for writing.
    v->extent_count = 1;
    note_read_only(v);
    v->extent_count = 0;
    disk->read_only |= disk->read_only_reason != NULL;
    if (!open_extents(v, embedded, error))
        return false;
    if (!disk->read_only_reason)
        note_read_only(v);
    if (v->parent_cid == UINT32_MAX)
        return true;
    if (!v->parent)
        return refuse(disk, error, CLOCHE_ERROR_CORRUPT, "it has a parent but does not name it");
    disk->backing_path = g_strdup(v->parent);
    disk->backing_format = g_strdup("vmdk");
    return true;
}

static bool vmdk_check_base(struct disk *disk, GError **error)
{
    struct vmdk *v = disk->state, *parent = disk->backing->state;
    if (v->parent_cid == parent->cid)
        return true;
    g_set_error(
        error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT,
        "The base %s was changed after %s was made on top of it (content id %08x, was %08x): put the unchanged base "
        "back",
        disk->backing->path, disk->path, parent->cid, v->parent_cid);
    return false;
}

static void vmdk_close(struct disk *disk)
{
    struct vmdk *v = disk->state;
    for (unsigned i = 0; i < v->extent_count; i++) {
        vmdk_sparse_close(&v->extents[i]);
        if (v->extents[i].owns_file)
            file_close(v->extents[i].file);
    }
    pthread_mutex_destroy(&v->lock);
    g_free(v->extents);
    g_free(v->descriptor);
    g_free(v->parent);
    g_free(v);
}

// ---- Requests ----
static struct vmdk_extent *extent_at(struct vmdk *v, uint64_t offset)
{
    unsigned low = 0, high = v->extent_count - 1;
    while (low < high) {
        unsigned middle = (low + high + 1) / 2;
        if (v->extents[middle].start <= offset)
            low = middle;
        else
            high = middle - 1;
    }
    return &v->extents[low];
}

static int vmdk_map(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent)
{
    struct vmdk *v = disk->state;
    struct vmdk_extent *e = extent_at(v, offset);
    uint64_t inside = offset - e->start;
    length = MIN(length, e->length - inside);
    int rc = 0;
    if (e->kind == VMDK_ZERO)
        *extent = (struct extent){.kind = EXTENT_ZERO, .length = length};
    else if (e->kind == VMDK_SPARSE)
        rc = grains_map(&e->grains, inside, length, flags, extent);
    else {
        *extent = (struct extent){.kind = EXTENT_DATA,
                                  .length = length,
                                  .file = e->file,
                                  .file_offset = e->flat_offset + inside,
                                  .writable = true};
        if (flags & MAP_HOLES && file_is_hole(e->file, extent->file_offset, length, &extent->length))
            extent->kind = EXTENT_ZERO;
    }
    if (!rc)
        extent->writable &= v->marked;
    return rc;
}

static int compressed(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned iov_count)
{
    struct vmdk_extent *e = extent_at(disk->state, offset);
    return vmdk_read_compressed(e, offset - e->start, iov, iov_count);
}

int vmdk_mark(struct vmdk *v)
{
    pthread_mutex_lock(&v->lock);
    int rc = v->marked ? 0 : vmdk_change_cid(v);
    pthread_mutex_unlock(&v->lock);
    return rc;
}

// Writable variants have one extent.
static int vmdk_write(struct disk *disk, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned iov_count)
{
    struct vmdk *v = disk->state;
    struct vmdk_extent *e = &v->extents[0];
    int rc = v->marked ? 0 : vmdk_mark(v);
    if (rc)
        return rc;
    return e->kind == VMDK_SPARSE ? grains_write(&e->grains, offset, length, iov, iov_count)
                                  : file_writev(e->file, e->flat_offset + offset, iov, iov_count);
}

static int vmdk_zero(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    struct vmdk *v = disk->state;
    struct vmdk_extent *e = &v->extents[0];
    int rc = v->marked ? 0 : vmdk_mark(v);
    if (rc)
        return rc;
    if (e->kind == VMDK_SPARSE)
        return grains_zero(&e->grains, offset, length, flags);
    return flags & DISK_MAY_UNMAP ? file_punch(e->file, e->flat_offset + offset, length)
                                  : file_zero(e->file, e->flat_offset + offset, length);
}

static int vmdk_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    return vmdk_zero(disk, offset, length, DISK_MAY_UNMAP);
}

static int vmdk_flush(struct disk *disk)
{
    struct vmdk_extent *e = &((struct vmdk *)disk->state)->extents[0];
    return e->kind == VMDK_SPARSE ? grains_flush(&e->grains) : file_sync(e->file);
}

// ---- What it is ----
static void vmdk_info(struct disk *disk, struct disk_info *info)
{
    struct vmdk *v = disk->state;
    info->variant = g_strdup(v->variant);
    info->cluster_size = v->extents[0].grains.grain_size;
    for (unsigned i = 0; i < v->extent_count; i++)
        if (v->extents[i].owns_file) {
            info->file_size += file_size(v->extents[i].file);
            info->allocated += file_allocated(v->extents[i].file);
        }
}

static uint64_t vmdk_cluster_size(struct disk *disk)
{
    return ((struct vmdk *)disk->state)->extents[0].grains.grain_size;
}

static const char *vmdk_generation(struct disk *disk)
{
    return ((struct vmdk *)disk->state)->generation;
}

static int create_sparse(struct file *file, const char *name, uint64_t size)
{
    g_autofree char *line = g_strdup_printf("RW %" G_GUINT64_FORMAT " SPARSE \"%s\"", size / 512, name);
    g_autofree char *text = vmdk_descriptor_make(g_random_int() >> 1, "monolithicSparse", line, size);
    return vmdk_sparse_create(file, size, text);
}

static int create_flat(struct file *file, const struct disk_create_options *options, GError **error)
{
    g_autofree char *data_path = image_data_path(file->path), *name = g_path_get_basename(data_path);
    g_autofree char *line = g_strdup_printf("RW %" G_GUINT64_FORMAT " FLAT \"%s\" 0", options->size / 512, name);
    g_autofree char *text = vmdk_descriptor_make(g_random_int() >> 1, "monolithicFlat", line, options->size);
    struct file *data = file_open(data_path, FILE_OPEN_CREATE, options->hooks, error);
    if (!data)
        return -EINVAL;
    int rc = file_truncate(data, options->size);
    if (!rc)
        rc = file_allocate(data, 0, options->size);
    if (!rc)
        rc = file_sync(data);
    file_close(data);
    return rc ? rc : file_write(file, 0, text, strlen(text));
}

static int vmdk_create(struct file *file, const struct disk_create_options *options, GError **error)
{
    if (!options->size || options->size > VMDK_MOST) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "A VMDK image must have from 512 bytes to just under 2 TiB: use qcow2 for other sizes");
        return -EINVAL;
    }
    return options->preallocate ? create_flat(file, options, error) : create_sparse(file, options->name, options->size);
}

// ---- Check: grains lie in the file and have one owner each; both sets of tables agree ----
struct grain_check {
    struct vmdk_extent *e;
    struct disk_check_result *result;
    GHashTable *seen;
    uint64_t end;
    bool tables_differ;
};

static int check_table(struct grain_check *c, uint32_t table, uint32_t *copy)
{
    struct vmdk_extent *e = c->e;
    uint64_t first = (uint64_t)table * e->per_table;
    int rc = 0;
    if (e->redundant && e->redundant[table])
        rc = file_read(e->file, e->redundant[table] * VMDK_SECTOR, copy, e->per_table * 4ull);
    for (uint64_t i = first; i < MIN(first + e->per_table, e->grains.count) && !rc; i++) {
        uint32_t entry;
        uint64_t place = 0;
        rc = grains_entry(&e->grains, i, true, &entry);
        if (rc)
            break;
        c->tables_differ |= e->redundant && e->redundant[table] && GUINT32_FROM_LE(copy[i - first]) != entry;
        enum grain_kind kind = e->grains.kind(&e->grains, entry, &place);
        if (kind == GRAIN_NONE || kind == GRAIN_ZERO)
            continue;
        if (kind == GRAIN_INVALID || !g_hash_table_add(c->seen, GSIZE_TO_POINTER(entry))) {
            c->result->corruptions++;
            disk_check_note(c->result, "Grain %u %s", (unsigned)i,
                            kind == GRAIN_INVALID ? "lies outside the file" : "shares its place with another");
        }
        c->result->clusters_used++;
        c->end = MAX(c->end, place + e->grains.grain_size);
    }
    return rc;
}

uint64_t vmdk_metadata_end(const struct vmdk_extent *e)
{
    uint64_t directory = (e->tables * 4ull + 511) / 512, table = (e->per_table * 4ull + 511) / 512;
    uint64_t end = MAX(e->directory_at, e->redundant_at) + directory;
    for (uint32_t i = 0; i < e->tables; i++)
        end = MAX(end, MAX(e->directory[i], e->redundant ? e->redundant[i] : 0) + table);
    return MAX(end * VMDK_SECTOR, e->owns_file ? 0 : e->vmdk->descriptor_offset + e->vmdk->descriptor_room);
}

static int check_extent(struct vmdk_extent *e, bool repair, struct disk_check_result *result, struct job *job)
{
    struct grain_check c = {.e = e, .result = result, .seen = g_hash_table_new(NULL, NULL)};
    g_autofree uint32_t *copy = g_new0(uint32_t, e->per_table);
    int rc = 0;
    for (uint32_t table = 0; table < e->tables && !rc; table++)
        if (e->directory[table])
            rc = check_table(&c, table, copy);
    g_hash_table_destroy(c.seen);
    result->clusters_total += e->grains.count;
    if (!rc && c.tables_differ) { // a crash between the two writes: the first set is the one that counts
        result->leaks++;
        disk_check_note(result, "The second set of grain tables is behind the first");
        g_autofree uint32_t *entries = g_new0(uint32_t, e->per_table);
        for (uint32_t table = 0; repair && table < e->tables && !rc; table++)
            if (e->directory[table] && !(rc = e->grains.load(&e->grains, table, entries)))
                rc = e->grains.store(&e->grains, table, entries);
        result->leaks_fixed += repair && !rc;
    }
    c.end = c.end ? MAX(c.end, vmdk_metadata_end(e)) : 0;
    bool loose = !rc && !e->compressed && c.end && file_size(e->file) > ALIGN_UP(c.end, e->grains.grain_size);
    if (loose) {
        result->leaks++;
        disk_check_note(result, "The end of the file has grains that nothing refers to");
        if (repair && !result->corruptions) {
            rc = file_truncate(e->file, ALIGN_UP(c.end, e->grains.grain_size));
            result->leaks_fixed += !rc;
        }
    }
    return rc ? rc : repair ? file_sync(e->file) : 0;
}

static bool vmdk_check(struct disk *disk, bool repair, struct disk_check_result *result, struct job *job,
                       GError **error)
{
    struct vmdk *v = disk->state;
    int rc = 0;
    for (unsigned i = 0; i < v->extent_count && !rc; i++)
        if (v->extents[i].kind == VMDK_SPARSE)
            rc = check_extent(&v->extents[i], repair, result, job);
    if (rc)
        set_errno_error(error, rc, "Cannot check %s", disk->path);
    return rc == 0;
}

const struct disk_driver vmdk_driver = {
    .name = "vmdk",
    .probe = vmdk_probe,
    .open = vmdk_open,
    .close = vmdk_close,
    .map = vmdk_map,
    .read_compressed = compressed,
    .write = vmdk_write,
    .zero = vmdk_zero,
    .discard = vmdk_discard,
    .flush = vmdk_flush,
    .resize = vmdk_resize,
    .may_resize = vmdk_may_resize,
    .info = vmdk_info,
    .create = vmdk_create,
    .check = vmdk_check,
    .check_base = vmdk_check_base,
    .cluster_size = vmdk_cluster_size,
    .generation = vmdk_generation,
};
