// SPDX-License-Identifier: GPL-2.0-or-later
// Reference counts: which clusters of the file are in use. Allocation and giving back.
#include "disks/qcow2.h"

#include <errno.h>

#define GROW_STEP (4 * MiB)

uint64_t qcow2_refcount_load(const struct qcow2 *q, const uint8_t *data, uint64_t index)
{
    switch (q->refcount_order) {
    case 4:
        return load_be16(data + index * 2);
    case 5:
        return load_be32(data + index * 4);
    case 6:
        return load_be64(data + index * 8);
    default: {
        unsigned bits = 1u << q->refcount_order;
        return data[index * bits / 8] >> (index * bits % 8) & ((1u << bits) - 1);
    }
    }
}

void qcow2_refcount_store(const struct qcow2 *q, uint8_t *data, uint64_t index, uint64_t count)
{
    switch (q->refcount_order) {
    case 4:
        store_be16(data + index * 2, count);
        return;
    case 5:
        store_be32(data + index * 4, count);
        return;
    case 6:
        store_be64(data + index * 8, count);
        return;
    default: {
        unsigned bits = 1u << q->refcount_order, shift = index * bits % 8;
        uint8_t *byte = &data[index * bits / 8], mask = (uint8_t)(((1u << bits) - 1) << shift);
        *byte = (*byte & ~mask) | (uint8_t)(count << shift);
    }
    }
}

static uint64_t per_slice(const struct qcow2 *q)
{
    return (uint64_t)q->refcount_cache.slice_size * 8 >> q->refcount_order;
}

// The slice with CLUSTER's count, or NULL where no block is.
static int slice_of(struct qcow2 *q, uint64_t cluster, struct qcow2_slice **slice)
{
    uint64_t block_index = cluster / qcow2_refcounts_per_block(q);
    *slice = NULL;
    if (block_index >= q->reftable_size)
        return 0;
    uint64_t block = q->reftable[block_index] & ~511ull;
    if (!block)
        return 0;
    if (block & (q->cluster_size - 1)) {
        log_guest("disks", "%s is damaged: the refcount table is not valid; run cloche-disk check --repair",
                  q->disk->path);
        return -EIO;
    }
    uint64_t at = block + cluster % qcow2_refcounts_per_block(q) / per_slice(q) * q->refcount_cache.slice_size;
    while (!(*slice = qcow2_cache_find(&q->refcount_cache, at))) {
        int rc = qcow2_cache_load(q, &q->refcount_cache, at, false);
        if (rc)
            return rc;
    }
    return 0;
}

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
    struct qcow2_slice *slice;
    int rc = slice_of(q, cluster, &slice);
    if (!rc)
        *count = slice ? qcow2_refcount_load(q, slice->data, cluster % per_slice(q)) : 0;
    return rc;
}

// ---- Blocks and the table ----
static int grow_table(struct qcow2 *q, uint64_t block_index)
{
    uint64_t old_offset = q->reftable_offset, old_clusters = q->reftable_clusters;
    uint64_t bytes = ALIGN_UP((block_index + block_index / 2 + 1) * 8, q->cluster_size);
    if (bytes > QCOW2_MOST_REFTABLE)
        bytes = QCOW2_MOST_REFTABLE;
    if (block_index >= bytes / 8)
        return -EFBIG;
    unsigned old_size = q->reftable_size;
    q->reftable = g_renew(uint64_t, q->reftable, bytes / 8);
    memset(q->reftable + old_size, 0, bytes - old_size * 8ull);
    q->reftable_size = bytes / 8;
    uint64_t offset;
    q->table_grows = true;
    int rc = qcow2_allocate(q, bytes >> q->cluster_bits, NULL, &offset);
    q->table_grows = false;
    if (rc) {
        q->reftable_size = old_size;
        q->reftable_dirty_to = MIN(q->reftable_dirty_to, old_size);
        return rc;
    }
    q->reftable_offset = offset;
    q->reftable_clusters = bytes >> q->cluster_bits;
    q->reftable_dirty_from = 0;
    q->reftable_dirty_to = q->reftable_size;
    q->header_dirty = true;
    qcow2_free_later(q, old_offset, old_clusters << q->cluster_bits);
    return 0;
}

// The file reaches past a cluster before anybody gets it (see qcow2.h). Some more at once: fewer changes of its length.
static int make_room(struct qcow2 *q, uint64_t end)
{
    uint64_t now = file_size(q->file), longer = ALIGN_UP(end, GROW_STEP);
    int rc = 0;
    if (end > now) // direct I/O is slow where the host's file system has to find space for each write
        rc = q->file->direct_fd < 0 ? file_extend(q->file, longer) : file_allocate(q->file, now, longer - now);
    if (rc) // a limit of the host's may be close, or it cannot take space beforehand
        rc = file_extend(q->file, end);
    if (!rc)
        q->alloc_end = MAX(q->alloc_end, end);
    return rc;
}

// Makes the block that covers CLUSTER: a free cluster of its own range, which a missing block says they all are.
static int new_block(struct qcow2 *q, uint64_t cluster)
{
    uint64_t count = qcow2_refcounts_per_block(q), block_index = cluster / count;
    if (block_index >= q->reftable_size && q->table_grows)
        return -EFBIG;
    if (block_index >= q->reftable_size) {
        int rc = grow_table(q, block_index);
        if (rc)
            return rc;
        if (q->reftable[block_index])
            return 0;
    }
    uint64_t own = MAX(cluster, q->free_hint);
    if (own / count != block_index)
        own = cluster;
    uint64_t offset = own << q->cluster_bits, size = q->refcount_cache.slice_size;
    if (qcow2_is_metadata(q, offset, q->cluster_size))
        return -EIO;
    int rc = make_room(q, offset + q->cluster_size);
    if (rc)
        return rc;
    qcow2_cache_forget(&q->refcount_cache, offset, q->cluster_size);
    for (uint64_t at = 0; at < q->cluster_size; at += size)
        qcow2_cache_dirty(&q->refcount_cache, qcow2_cache_insert(&q->refcount_cache, offset + at, NULL));
    q->reftable[block_index] = offset;
    q->reftable_dirty_from = MIN(q->reftable_dirty_from, block_index);
    q->reftable_dirty_to = MAX(q->reftable_dirty_to, block_index + 1);
    g_hash_table_add(q->tables, g_memdup2(&offset, sizeof offset));
    return qcow2_refcount_set(q, own, 1);
}

int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    unsigned bits = 1u << q->refcount_order;
    struct qcow2_slice *slice;
    if (bits < 64 && count >> bits)
        return -ERANGE;
    int rc = slice_of(q, cluster, &slice);
    if (rc || !slice) // who allocates has made the block before
        return rc ? rc : count ? -EIO : 0;
    qcow2_refcount_store(q, slice->data, cluster % per_slice(q), count);
    qcow2_cache_dirty(&q->refcount_cache, slice);
    return 0;
}

int qcow2_refcount_add(struct qcow2 *q, uint64_t cluster, int delta)
{
    uint64_t count = 0;
    int rc = qcow2_refcount_get(q, cluster, &count);
    if (rc)
        return rc;
    if (delta < 0 && count == 0) {
        log_guest("disks", "%s is damaged: a cluster in use has no references; run cloche-disk check --repair",
                  q->disk->path);
        return -EIO;
    }
    return qcow2_refcount_set(q, cluster, count + delta);
}

// ---- Allocation ----
// The first run of free clusters from FROM on: all COUNT of them, or with GOT at least one.
static int find_free(struct qcow2 *q, uint64_t from, uint64_t count, bool any, uint64_t *start, uint64_t *got)
{
    uint64_t run = 0, most = INT64_MAX >> q->cluster_bits;
    for (uint64_t cluster = from; cluster < most; cluster++) {
        uint64_t references;
        int rc = qcow2_refcount_get(q, cluster, &references);
        if (rc)
            return rc;
        if (references && run && any)
            break;
        run = references ? 0 : run + 1;
        if (run == 1)
            *start = cluster;
        if (run == count)
            break;
    }
    *got = run;
    return run && (any || run == count) ? 0 : -EFBIG;
}

// Refcount blocks may have to be made, which takes clusters out of the run that was found: then look again.
static int cover(struct qcow2 *q, uint64_t start, uint64_t count, bool *changed)
{
    uint64_t step = qcow2_refcounts_per_block(q);
    for (uint64_t cluster = start; cluster < start + count; cluster = (cluster / step + 1) * step) {
        struct qcow2_slice *slice;
        int rc = slice_of(q, cluster, &slice);
        if (!rc && !slice) {
            rc = new_block(q, cluster);
            *changed = true;
        }
        if (rc)
            return rc;
    }
    return 0;
}

int qcow2_allocate(struct qcow2 *q, uint64_t count, uint64_t *got, uint64_t *offset)
{
    uint64_t start = 0, run = 0;
    qcow2_free_stable(q);
    for (bool changed = true; changed;) {
        changed = false;
        int rc = find_free(q, q->free_hint, count, got != NULL, &start, &run);
        if (!rc)
            rc = cover(q, start, run, &changed);
        if (rc)
            return rc;
    }
    *offset = start << q->cluster_bits;
    if (qcow2_is_metadata(q, *offset, run << q->cluster_bits)) {
        log_guest("disks", "%s is damaged: its tables are counted as free space; run cloche-disk check --repair",
                  q->disk->path);
        return -EIO;
    }
    int rc = make_room(q, (start + run) << q->cluster_bits);
    for (uint64_t i = 0; i < run && !rc; i++)
        rc = qcow2_refcount_set(q, start + i, 1);
    if (rc)
        return rc;
    if (got || count == 1 || start == q->free_hint)
        q->free_hint = start + run;
    if (got)
        *got = run;
    return 0;
}

// ---- Giving back ----
void qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    struct qcow2_range range = {offset, length, false};
    g_array_append_val(q->freed[q->disk->epoch], range);
}

void qcow2_free_entry(struct qcow2 *q, struct qcow2_entry e)
{
    struct qcow2_range range = {e.entry & QCOW2_OFFSET_MASK, q->cluster_size, false};
    if (e.entry & QCOW2_COMPRESSED) {
        qcow2_compressed_range(q, e.entry, &range.offset, &range.length);
        range.compressed = true;
    } else if (!range.offset)
        return;
    g_array_append_val(q->freed[q->disk->epoch], range);
}

static void punch(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    uint64_t offset = cluster << q->cluster_bits, length = count << q->cluster_bits;
    qcow2_cache_forget(&q->l2_cache, offset, length);
    qcow2_cache_forget(&q->refcount_cache, offset, length);
    if (file_discard(q->file, offset, length) || !q->file->regular)
        q->zero_from = MAX(q->zero_from, offset + length);
    q->free_hint = MIN(q->free_hint, cluster);
    if (q->pack_offset >> q->cluster_bits >= cluster && q->pack_offset >> q->cluster_bits < cluster + count)
        q->pack_offset = 0;
}

static void take_back(struct qcow2 *q, const struct qcow2_range *range)
{
    uint64_t first = range->offset >> q->cluster_bits;
    uint64_t last = (range->offset + range->length - 1) >> q->cluster_bits, run = 0;
    for (uint64_t cluster = first; cluster <= last; cluster++) {
        uint64_t count = 1;
        bool free =
            qcow2_refcount_add(q, cluster, -1) == 0 && qcow2_refcount_get(q, cluster, &count) == 0 && count == 0;
        if (free)
            run++;
        if (run && (!free || cluster == last))
            punch(q, cluster - run + free, run);
        if (!free)
            run = 0;
    }
    if (range->compressed)
        q->unpacked_generation++;
}

void qcow2_free_now(struct qcow2 *q, uint64_t offset, uint64_t length)
{
    struct qcow2_range range = {offset, length, false};
    take_back(q, &range);
}

void qcow2_free_stable(struct qcow2 *q)
{
    unsigned old = q->disk->epoch ^ 1;
    if (!q->freed_stable || q->disk->users[old])
        return;
    q->freed_stable = false;
    GArray *ranges = q->freed[old];
    for (unsigned i = 0; i < ranges->len;) { // neighbours together: one hole each
        struct qcow2_range range = g_array_index(ranges, struct qcow2_range, i++);
        while (i < ranges->len && !range.compressed) {
            const struct qcow2_range *next = &g_array_index(ranges, struct qcow2_range, i);
            if (next->compressed || next->offset != range.offset + range.length)
                break;
            range.length += next->length;
            i++;
        }
        take_back(q, &range);
    }
    g_array_set_size(ranges, 0);
}
