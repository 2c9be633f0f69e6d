// SPDX-License-Identifier: GPL-2.0-or-later
// The qcow2 driver: opening, closing, what it is.
#include "disks/create.h"
#include "disks/identity.h"
#include "disks/info.h"
#include "disks/qcow2.h"

#include <errno.h>

static bool qcow2_probe(const struct probe *probe)
{
    return probe->head_length >= 72 && load_be32(probe->head) == QCOW2_MAGIC && load_be32(probe->head + 4) >= 2;
}

static uint64_t *load_table(struct qcow2 *q, uint64_t offset, unsigned entries, GError **error)
{
    uint64_t *table = g_try_new0(uint64_t, MAX(entries, 1));
    int rc = !table ? -ENOMEM : entries ? file_read(q->file, offset, table, entries * 8ull) : 0;
    if (rc) {
        set_errno_error(error, rc, "Cannot read the tables of %s", q->disk->path);
        g_free(table);
        return NULL;
    }
    for (unsigned i = 0; i < entries; i++)
        table[i] = GUINT64_FROM_BE(table[i]);
    return table;
}

static bool fail(GError **error, struct qcow2 *q, const char *what)
{
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "%s cannot be opened: %s", q->disk->path, what);
    return false;
}

static bool load_tables(struct qcow2 *q, GError **error)
{
    uint64_t span_bits = q->cluster_bits + q->l2_bits, size = q->disk->size, end = file_size(q->file);
    uint64_t needed = span_bits >= 64 ? 1 : (size >> span_bits) + !!(size & ((1ull << span_bits) - 1));
    if (q->l1_size < needed && !q->disk->snapshot)
        return fail(error, q, "its L1 table is too small for its size");
    if ((q->l1_size && q->l1_offset >= end) || (!q->disk->read_only && q->reftable_offset >= end))
        return fail(error, q, "its tables lie past the end of the file");
    q->l1 = load_table(q, q->l1_offset, q->l1_size, error);
    if (q->l1 && !q->disk->read_only)
        q->reftable = load_table(q, q->reftable_offset, q->reftable_size, error);
    return q->l1 && (q->reftable || q->disk->read_only);
}

// Where tables are, so that data never goes there.
static bool index_tables(struct qcow2 *q, GError **error)
{
    uint64_t most = qcow2_clusters(q, file_size(q->file)) + 1, found = 0;
    for (unsigned i = 0; i < q->l1_size + q->reftable_size; i++) {
        uint64_t entry = i < q->l1_size ? q->l1[i] & QCOW2_OFFSET_MASK : q->reftable[i - q->l1_size] & ~511ull;
        if (!entry)
            continue;
        if (++found > most)
            return fail(error, q, "it has more tables than the file has room for; run cloche-disk check --repair");
        g_hash_table_add(q->tables, g_memdup2(&entry, sizeof entry));
    }
    return true;
}

static void drop_unknown_autoclear(struct qcow2 *q)
{
    if (!q->autoclear)
        return;
    if (q->autoclear & QCOW2_AUTOCLEAR_BITMAPS)
        log_warning("disks", "%s: its dirty bitmaps are not kept up here and are marked as out of date", q->disk->path);
    q->autoclear = 0;
    qcow2_extension_set(q, QCOW2_EXT_BITMAPS, NULL, 0);
}

static bool open_writable(struct qcow2 *q, GError **error)
{
    drop_unknown_autoclear(q);
    if (q->disk->flags & DISK_OPEN_REPAIR)
        return true;
    if (!index_tables(q, error))
        return false;
    return !(q->incompatible & QCOW2_DIRTY) || qcow2_repair_dirty(q, error);
}

static void qcow2_close(struct disk *disk)
{
    struct qcow2 *q = disk->state;
    qcow2_cache_free(&q->l2_cache);
    qcow2_cache_free(&q->refcount_cache);
    g_hash_table_destroy(q->in_progress);
    g_hash_table_destroy(q->tables);
    g_array_free(q->freed[0], TRUE);
    g_array_free(q->freed[1], TRUE);
    g_ptr_array_free(q->extensions, TRUE);
    qcow2_snapshots_free(q);
    pthread_mutex_destroy(&q->lock);
    pthread_mutex_destroy(&q->commit_lock);
    pthread_cond_destroy(&q->changed);
    g_free(q->l1);
    g_free(q->reftable);
    g_free(q->unpacked);
    g_free(q);
}

static struct qcow2 *qcow2_new(struct disk *disk)
{
    struct qcow2 *q = g_new0(struct qcow2, 1);
    q->disk = disk;
    q->file = disk->file;
    q->extensions = g_ptr_array_new_with_free_func(g_free);
    q->in_progress = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    q->tables = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    for (unsigned i = 0; i < 2; i++)
        q->freed[i] = g_array_new(FALSE, FALSE, sizeof(struct qcow2_range));
    q->l1_dirty_from = q->reftable_dirty_from = UINT32_MAX;
    pthread_mutex_init(&q->lock, NULL);
    pthread_mutex_init(&q->commit_lock, NULL);
    pthread_cond_init(&q->changed, NULL);
    return q;
}

static bool qcow2_open(struct disk *disk, GError **error)
{
    struct qcow2 *q = disk->state = qcow2_new(disk);
    if (!qcow2_header_read(q, error))
        return false;
    if (disk->snapshot && !qcow2_snapshot_select(q, disk->snapshot, error))
        return false;
    // 32 MiB of tables for a disk that is written, 4 MiB for each base.
    unsigned slice = MIN(q->cluster_size, QCOW2_SLICE);
    qcow2_cache_init(&q->l2_cache, slice, (disk->depth ? 4 * MiB : 32 * MiB) / slice);
    qcow2_cache_init(&q->refcount_cache, slice, 4 * MiB / slice);
    q->zero_from = q->file->regular ? ALIGN_UP(file_size(q->file), q->cluster_size) : INT64_MAX;
    q->free_hint = 1;
    q->end_at_open = file_size(q->file);
    return load_tables(q, error) && (disk->read_only || open_writable(q, error));
}

// ---- What it is ----
static void qcow2_info(struct disk *disk, struct disk_info *info)
{
    struct qcow2 *q = disk->state;
    info->cluster_size = q->cluster_size;
    info->version = q->version;
    info->refcount_bits = 1u << q->refcount_order;
    info->lazy_refcounts = q->compatible & QCOW2_LAZY_REFCOUNTS;
    info->extended_l2 = q->extended;
    info->dirty = q->incompatible & QCOW2_DIRTY;
    info->corrupt = q->incompatible & QCOW2_CORRUPT;
    info->compression = q->compression ? "zstd" : "zlib";
    info->snapshot_count = q->snapshot_count;
    info->snapshots = g_new0(struct disk_snapshot, q->snapshot_count);
    for (uint32_t i = 0; i < q->snapshot_count; i++) {
        const struct qcow2_snapshot *from = &q->snapshots[i];
        info->snapshots[i] = (struct disk_snapshot){.id = g_strdup(from->id),
                                                    .name = g_strdup(from->name),
                                                    .seconds = from->seconds,
                                                    .disk_size = from->disk_size,
                                                    .vm_state_size = from->vm_state_size,
                                                    .vm_clock = from->vm_clock};
    }
}

static bool qcow2_set_backing(struct disk *disk, const char *path, const char *format, const char *identity,
                              GError **error)
{
    struct qcow2 *q = disk->state;
    g_free(disk->backing_path);
    disk->backing_path = g_strdup(path);
    g_free(disk->backing_format);
    disk->backing_format = g_strdup(format);
    g_free(disk->backing_identity);
    disk->backing_identity = g_strdup(identity);
    const char *name = g_strcmp0(format, "vhd") == 0 ? "vpc" : format; // as other tools call it
    qcow2_extension_set(q, QCOW2_EXT_BACKING_FORMAT, name, name ? strlen(name) : 0);
    qcow2_extension_set(q, QCOW2_EXT_IDENTITY, identity, identity ? strlen(identity) : 0);
    int rc = qcow2_commit(q); // what was copied comes before what makes it show
    if (!rc)
        rc = qcow2_header_write(q);
    if (!rc)
        rc = file_sync(q->file);
    if (!rc)
        return true;
    set_errno_error(error, rc, "Cannot record the base in %s", disk->path);
    return false;
}

static uint64_t qcow2_cluster_size(struct disk *disk)
{
    return ((struct qcow2 *)disk->state)->cluster_size;
}

static const char *qcow2_generation(struct disk *disk)
{
    const struct qcow2_extension *e = qcow2_extension_find(disk->state, QCOW2_EXT_GENERATION);
    return e && e->length == 36 ? (const char *)e->data : NULL;
}

const struct disk_driver qcow2_driver = {
    .name = "qcow2",
    .probe = qcow2_probe,
    .open = qcow2_open,
    .close = qcow2_close,
    .map = qcow2_map,
    .read_compressed = qcow2_read_compressed,
    .write = qcow2_write,
    .write_compressed = qcow2_write_compressed,
    .zero = qcow2_zero,
    .discard = qcow2_discard,
    .flush = qcow2_flush,
    .settle = qcow2_settle,
    .resize = qcow2_resize,
    .may_resize = qcow2_may_resize,
    .size_limit = "its clusters are too small; convert it with larger ones",
    .info = qcow2_info,
    .create = qcow2_create,
    .check = qcow2_check,
    .set_backing = qcow2_set_backing,
    .pull = qcow2_pull,
    .make_empty = qcow2_make_empty,
    .cluster_size = qcow2_cluster_size,
    .generation = qcow2_generation,
};
