// SPDX-License-Identifier: GPL-2.0-or-later
// From guest offsets to host offsets: L1 and L2 tables, clusters and subclusters.
#include "disks/qcow2.h"

#include <errno.h>

enum qcow2_kind qcow2_kind_of(const struct qcow2 *q, struct qcow2_entry e, unsigned subcluster)
{
    uint64_t host = e.entry & QCOW2_OFFSET_MASK;
    if (e.entry & QCOW2_COMPRESSED)
        return QCOW2_KIND_COMPRESSED;
    if (host & (q->cluster_size - 1))
        return QCOW2_KIND_INVALID;
    if (!q->extended) {
        if (q->version >= 3 && e.entry & QCOW2_ZERO)
            return host ? QCOW2_KIND_ZERO_KEPT : QCOW2_KIND_ZERO;
        return host ? QCOW2_KIND_NORMAL : QCOW2_KIND_UNALLOCATED;
    }
    bool allocated = e.bitmap >> subcluster & 1, zero = e.bitmap >> (32 + subcluster) & 1;
    if (allocated && (zero || !host))
        return QCOW2_KIND_INVALID;
    if (zero)
        return host ? QCOW2_KIND_ZERO_KEPT : QCOW2_KIND_ZERO;
    if (allocated)
        return QCOW2_KIND_NORMAL;
    return host ? QCOW2_KIND_RESERVED : QCOW2_KIND_UNALLOCATED;
}

struct qcow2_entry qcow2_entry_get(const struct qcow2 *q, const struct qcow2_slice *slice, unsigned index)
{
    const uint8_t *p = slice->data + (size_t)index * q->entry_size;
    return (struct qcow2_entry){load_be64(p), q->extended ? load_be64(p + 8) : 0};
}

void qcow2_entry_set(struct qcow2 *q, struct qcow2_slice *slice, unsigned index, struct qcow2_entry e)
{
    uint8_t *p = slice->data + (size_t)index * q->entry_size;
    store_be64(p, e.entry);
    if (q->extended)
        store_be64(p + 8, e.bitmap);
    qcow2_cache_dirty(&q->l2_cache, slice);
}

// ---- L1 ----
static int l2_table_at(struct qcow2 *q, uint64_t offset, unsigned *l1_index, uint64_t *table)
{
    uint64_t index = offset >> (q->cluster_bits + q->l2_bits);
    if (index >= q->l1_size)
        return -EIO;
    *l1_index = index;
    *table = q->l1[index] & QCOW2_OFFSET_MASK;
    if (*table & (q->cluster_size - 1)) {
        log_guest("disks", "%s is damaged: an L1 entry is not aligned; run cloche-disk check", q->disk->path);
        return -EIO;
    }
    return 0;
}

static uint64_t slice_offset(const struct qcow2 *q, uint64_t table, uint64_t offset, unsigned *index)
{
    unsigned entry = (offset >> q->cluster_bits) & ((1u << q->l2_bits) - 1);
    unsigned bits = q->l2_cache.slice_bits - q->entry_bits;
    *index = entry & ((1u << bits) - 1);
    return table + ((uint64_t)(entry >> bits) << q->l2_cache.slice_bits);
}

int qcow2_slice_at(struct qcow2 *q, uint64_t offset, bool may_block, struct qcow2_slice **slice, unsigned *index)
{
    for (;;) {
        unsigned l1_index;
        uint64_t table;
        int rc = l2_table_at(q, offset, &l1_index, &table);
        *slice = NULL;
        if (rc)
            return rc;
        uint64_t at = slice_offset(q, table, offset, index);
        if (!table)
            return 0;
        *slice = qcow2_cache_find(&q->l2_cache, at);
        if (*slice)
            return 0;
        if (!may_block)
            return -EAGAIN;
        rc = qcow2_cache_load(q, &q->l2_cache, at, true);
        if (rc)
            return rc;
    }
}

static void set_l1(struct qcow2 *q, unsigned index, uint64_t value)
{
    q->l1[index] = value;
    q->l1_dirty_from = MIN(q->l1_dirty_from, index);
    q->l1_dirty_to = MAX(q->l1_dirty_to, index + 1);
}

// Makes a table that is all ours: empty, or with the contents of OLD. It is referred to only by later commits, so its
// slices are simply changed ones.
static int new_l2_table(struct qcow2 *q, unsigned l1_index, uint64_t old)
{
    uint64_t table, size = q->l2_cache.slice_size;
    int rc = qcow2_allocate(q, 1, NULL, &table);
    if (rc)
        return rc;
    g_autofree void *contents = g_malloc0(q->cluster_size);
    for (uint64_t at = 0; old && at < q->cluster_size; at += size) {
        struct qcow2_slice *slice = qcow2_cache_find(&q->l2_cache, old + at);
        if (slice)
            memcpy((char *)contents + at, slice->data, size);
        else if ((rc = file_read(q->file, old + at, (char *)contents + at, size)))
            break;
    }
    if (rc) {
        qcow2_free_now(q, table, q->cluster_size);
        return rc;
    }
    qcow2_cache_forget(&q->l2_cache, table, q->cluster_size);
    for (uint64_t at = 0; at < q->cluster_size; at += size)
        qcow2_cache_dirty(&q->l2_cache, qcow2_cache_insert(&q->l2_cache, table + at, (char *)contents + at));
    set_l1(q, l1_index, table | QCOW2_COPIED);
    g_hash_table_add(q->tables, g_memdup2(&table, sizeof table));
    if (old) {
        g_hash_table_remove(q->tables, &old);
        qcow2_free_later(q, old, q->cluster_size);
    }
    return 0;
}

int qcow2_slice_for_change(struct qcow2 *q, uint64_t offset, struct qcow2_slice **slice, unsigned *index)
{
    unsigned l1_index;
    uint64_t table;
    int rc = l2_table_at(q, offset, &l1_index, &table);
    if (rc)
        return rc;
    if (!table || !(q->l1[l1_index] & QCOW2_COPIED)) {
        rc = new_l2_table(q, l1_index, table);
        if (rc)
            return rc;
    } else if (qcow2_is_metadata(q, table, q->cluster_size) && !g_hash_table_contains(q->tables, &table))
        return -EIO;
    return qcow2_slice_at(q, offset, true, slice, index);
}

bool qcow2_is_metadata(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    const struct {
        uint64_t at, length;
    } fixed[] = {
        {0, q->cluster_size},
        {q->l1_offset, ALIGN_UP(q->l1_size * 8ull, q->cluster_size)},
        {q->reftable_offset, q->reftable_clusters << q->cluster_bits},
        {q->snapshots_offset, q->snapshots_length},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(fixed); i++)
        if (offset < fixed[i].at + fixed[i].length && fixed[i].at < offset + length)
            return true;
    for (uint64_t at = ALIGN_DOWN(offset, q->cluster_size); at < offset + length; at += q->cluster_size)
        if (g_hash_table_contains(q->tables, &at))
            return true;
    return false;
}

// ---- Mapping ----
static const enum extent_kind kinds[] = {
    [QCOW2_KIND_UNALLOCATED] = EXTENT_BACKING, [QCOW2_KIND_RESERVED] = EXTENT_BACKING,
    [QCOW2_KIND_ZERO] = EXTENT_ZERO,           [QCOW2_KIND_ZERO_KEPT] = EXTENT_ZERO,
    [QCOW2_KIND_NORMAL] = EXTENT_DATA,         [QCOW2_KIND_COMPRESSED] = EXTENT_COMPRESSED,
};

// How many bytes from OFFSET on are of the same KIND (and neighbours in the file), inside this slice.
static uint64_t run_length(struct qcow2 *q, struct qcow2_slice *slice, unsigned index, uint64_t offset, uint64_t length,
                           enum qcow2_kind kind, struct qcow2_entry first)
{
    uint64_t start = ALIGN_DOWN(offset, q->subcluster_size), end = offset + length, at = start + q->subcluster_size;
    uint64_t cluster = ALIGN_DOWN(offset, q->cluster_size);
    unsigned entries = qcow2_slice_entries(q);
    if (kind == QCOW2_KIND_COMPRESSED)
        return MIN(length, cluster + q->cluster_size - offset);
    for (; at < end; at += q->subcluster_size) {
        unsigned step = (at - cluster) >> q->cluster_bits;
        if (index + step >= entries)
            break;
        struct qcow2_entry e = qcow2_entry_get(q, slice, index + step);
        if (qcow2_kind_of(q, e, qcow2_subcluster_of(q, at)) != kind)
            break;
        uint64_t expected = (first.entry & ~QCOW2_ZERO) + ((uint64_t)step << q->cluster_bits);
        if (kind == QCOW2_KIND_NORMAL && (e.entry & ~QCOW2_ZERO) != expected)
            break;
    }
    return MIN(at, end) - offset;
}

static int map_locked(struct qcow2 *q, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent)
{
    struct qcow2_slice *slice;
    unsigned index;
    int rc = qcow2_slice_at(q, offset, flags & MAP_MAY_BLOCK, &slice, &index);
    if (rc)
        return rc;
    if (!slice) {
        uint64_t span = q->cluster_size << q->l2_bits;
        *extent = (struct extent){.kind = EXTENT_BACKING, .length = MIN(length, span - (offset & (span - 1)))};
        return 0;
    }
    struct qcow2_entry e = qcow2_entry_get(q, slice, index);
    uint64_t in_cluster = offset & (q->cluster_size - 1);
    enum qcow2_kind kind = qcow2_kind_of(q, e, qcow2_subcluster_of(q, offset));
    if (kind == QCOW2_KIND_INVALID) {
        log_guest("disks", "%s is damaged: an L2 entry is not valid; run cloche-disk check", q->disk->path);
        return -EIO;
    }
    *extent = (struct extent){.kind = kinds[kind],
                              .file = q->file,
                              .allocated = kind == QCOW2_KIND_ZERO_KEPT,
                              .length = run_length(q, slice, index, offset, length, kind, e)};
    if (kind == QCOW2_KIND_NORMAL) {
        extent->file_offset = (e.entry & QCOW2_OFFSET_MASK) + in_cluster;
        extent->writable = e.entry & QCOW2_COPIED && q->generation_marked &&
                           (!(flags & MAP_WRITE) || !qcow2_is_metadata(q, extent->file_offset, extent->length));
    }
    if (kind == QCOW2_KIND_NORMAL || kind == QCOW2_KIND_COMPRESSED) {
        extent->owner = q->disk;
        extent->epoch = q->disk->epoch;
        atomic_fetch_add(&q->disk->users[extent->epoch], 1);
    }
    return 0;
}

int qcow2_map(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent)
{
    struct qcow2 *q = disk->state;
    pthread_mutex_lock(&q->lock);
    int rc = map_locked(q, offset, length, flags, extent);
    pthread_mutex_unlock(&q->lock);
    return rc;
}
