// SPDX-License-Identifier: GPL-2.0-or-later
// Zeroes and discards: entries that say zero in place of data, and space given back.
#include "disks/qcow2.h"

#include <errno.h>

enum clear_mode { CLEAR_ZERO_KEEP, CLEAR_ZERO_UNMAP, CLEAR_DISCARD };

static bool has_base_at(const struct qcow2 *q, uint64_t offset)
{
    return q->disk->backing_path && (!q->disk->backing || offset < q->disk->backing->size);
}

// The entry after clearing the subclusters BITS (all of them: ~0). False where only written zeroes will do.
static bool cleared_entry(struct qcow2 *q, struct qcow2_entry e, uint64_t offset, uint32_t bits, enum clear_mode mode,
                          struct qcow2_entry *out)
{
    bool whole = bits == QCOW2_ALL_ALLOCATED, base = has_base_at(q, ALIGN_DOWN(offset, q->cluster_size));
    bool ours = !(e.entry & QCOW2_COMPRESSED) && e.entry & QCOW2_COPIED && e.entry & QCOW2_OFFSET_MASK;
    if (!whole) {
        if (e.entry & QCOW2_COMPRESSED)
            return false;
        *out = (struct qcow2_entry){e.entry, (e.bitmap & ~(uint64_t)bits) | (uint64_t)bits << 32};
        return true;
    }
    if (!base && (mode != CLEAR_ZERO_KEEP || !ours)) { // nothing shows through: no entry is zero
        *out = (struct qcow2_entry){0, 0};
        return true;
    }
    if (q->version < 3)
        return false;
    uint64_t kept = mode == CLEAR_ZERO_KEEP && ours ? e.entry & ~QCOW2_ZERO : 0;
    *out = q->extended ? (struct qcow2_entry){kept, QCOW2_ALL_ZERO} : (struct qcow2_entry){kept | QCOW2_ZERO, 0};
    return true;
}

static bool is_empty_entry(struct qcow2_entry e)
{
    return !e.entry && !e.bitmap;
}

// Clears whole clusters inside one slice (or some subclusters of one). Sets *STEP to the bytes that are done; 0: zeroes
// must be written. LOCK held.
static int clear_run(struct qcow2 *q, uint64_t offset, uint64_t length, uint32_t bits, enum clear_mode mode,
                     uint64_t *step)
{
    struct qcow2_slice *slice;
    unsigned index;
    uint64_t count, cluster = offset >> q->cluster_bits;
    int rc = qcow2_slice_at(q, offset, true, &slice, &index);
    if (rc)
        return rc;
    uint64_t span = q->cluster_size << q->l2_bits, left = span - (offset & (span - 1));
    if (!slice && !has_base_at(q, offset)) { // no table: all of it reads as zeroes
        *step = MIN(length, left);
        return 0;
    }
    do {
        rc = qcow2_slice_for_change(q, offset, &slice, &index);
        if (rc)
            return rc;
        count = MIN(MAX(length >> q->cluster_bits, 1), qcow2_slice_entries(q) - index);
    } while (qcow2_wait_for(q, cluster, count));
    *step = 0;
    for (uint64_t i = 0; i < count; i++) {
        struct qcow2_entry e = qcow2_entry_get(q, slice, index + i), now;
        if (!cleared_entry(q, e, offset + *step, bits, mode, &now))
            break;
        *step += bits == QCOW2_ALL_ALLOCATED ? q->cluster_size : length;
        if (e.entry == now.entry && e.bitmap == now.bitmap)
            continue;
        bool same_host =
            !(e.entry & QCOW2_COMPRESSED) && (e.entry & QCOW2_OFFSET_MASK) == (now.entry & QCOW2_OFFSET_MASK);
        if (!same_host && !is_empty_entry(e))
            qcow2_free_entry(q, e);
        qcow2_entry_set(q, slice, index + i, now);
    }
    return 0;
}

static int write_zero_data(struct disk *disk, uint64_t offset, uint64_t length)
{
    g_autofree void *zeroes = g_malloc0(length);
    return qcow2_write(disk, offset, length, &(struct iovec){zeroes, length}, 1);
}

// Part of a cluster: subclusters by their bits, the rest as written zeroes unless it reads as zeroes already.
static int zero_part(struct disk *disk, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = disk->state;
    while (length) {
        struct extent extent;
        struct disk *layer;
        uint64_t unit = q->subcluster_size, step = MIN(length, unit - (offset & (unit - 1)));
        int rc = disk_resolve(disk, offset, step, MAP_MAY_BLOCK, &extent, &layer);
        if (rc)
            return rc;
        extent_release(&extent);
        if (extent.kind == EXTENT_ZERO)
            step = extent.length;
        else if (step == unit && q->extended) {
            unsigned bit = (offset & (q->cluster_size - 1)) / unit;
            uint64_t done = 0;
            pthread_mutex_lock(&q->lock);
            rc = clear_run(q, offset, unit, 1u << bit, CLEAR_ZERO_KEEP, &done);
            pthread_mutex_unlock(&q->lock);
            if (!rc && !done)
                rc = write_zero_data(disk, offset, step);
        } else
            rc = write_zero_data(disk, offset, step);
        if (rc)
            return rc;
        offset += step;
        length -= step;
    }
    return 0;
}

static int clear_clusters(struct disk *disk, uint64_t offset, uint64_t end, enum clear_mode mode)
{
    struct qcow2 *q = disk->state;
    while (offset < end) {
        uint64_t step = 0;
        pthread_mutex_lock(&q->lock);
        int rc = clear_run(q, offset, end - offset, QCOW2_ALL_ALLOCATED, mode, &step);
        pthread_mutex_unlock(&q->lock);
        if (!rc && !step) { // version 2 over a base
            step = q->cluster_size;
            rc = mode == CLEAR_DISCARD ? 0 : zero_part(disk, offset, MIN(step, disk->size - offset));
        }
        if (!rc)
            rc = qcow2_throttle(q);
        if (rc)
            return rc;
        offset += step;
    }
    return 0;
}

int qcow2_zero(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    struct qcow2 *q = disk->state;
    uint64_t end = offset + length, from = ALIGN_UP(offset, q->cluster_size);
    uint64_t to = end == disk->size ? ALIGN_UP(end, q->cluster_size) : ALIGN_DOWN(end, q->cluster_size);
    int rc = q->generation_marked ? 0 : qcow2_mark_generation(q);
    if (!rc && from > offset)
        rc = zero_part(disk, offset, MIN(from, end) - offset);
    if (!rc && from < to)
        rc = clear_clusters(disk, from, to, flags & DISK_MAY_UNMAP ? CLEAR_ZERO_UNMAP : CLEAR_ZERO_KEEP);
    if (!rc && to < end && to >= from)
        rc = zero_part(disk, to, end - to);
    return rc;
}

int qcow2_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = disk->state;
    uint64_t end = offset + length, from = ALIGN_UP(offset, q->cluster_size);
    uint64_t to = end == disk->size ? ALIGN_UP(end, q->cluster_size) : ALIGN_DOWN(end, q->cluster_size);
    int rc = q->generation_marked ? 0 : qcow2_mark_generation(q);
    return !rc && from < to ? clear_clusters(disk, from, to, CLEAR_DISCARD) : rc;
}

int qcow2_make_empty(struct disk *disk)
{
    struct qcow2 *q = disk->state;
    int rc = q->generation_marked ? 0 : qcow2_mark_generation(q);
    uint64_t span = q->cluster_size << q->l2_bits;
    for (uint64_t at = 0; at < disk->size && !rc; at += span) {
        pthread_mutex_lock(&q->lock);
        unsigned index = at / span;
        uint64_t table = index < q->l1_size ? q->l1[index] & QCOW2_OFFSET_MASK : 0;
        for (uint64_t offset = at; table && !rc && offset < MIN(at + span, disk->size); offset += q->cluster_size) {
            struct qcow2_slice *slice;
            unsigned entry;
            rc = qcow2_slice_for_change(q, offset, &slice, &entry);
            if (rc)
                break;
            struct qcow2_entry e = qcow2_entry_get(q, slice, entry);
            if (is_empty_entry(e))
                continue;
            qcow2_free_entry(q, e);
            qcow2_entry_set(q, slice, entry, (struct qcow2_entry){0, 0});
        }
        pthread_mutex_unlock(&q->lock);
        if (!rc)
            rc = qcow2_throttle(q);
    }
    return rc;
}
