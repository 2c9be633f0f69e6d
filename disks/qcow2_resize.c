// SPDX-License-Identifier: GPL-2.0-or-later
// Growing and shrinking. Nobody else uses the disk meanwhile.
#include "disks/qcow2.h"

#include <errno.h>

// A larger L1 table, in a new place; the old one stays valid until the header points to the new one.
int qcow2_grow_l1(struct qcow2 *q, uint64_t entries)
{
    if (entries <= q->l1_size)
        return 0;
    if (entries > QCOW2_MOST_L1 / 8)
        return -EFBIG;
    int rc = qcow2_commit(q);
    if (rc)
        return rc;
    uint64_t bytes = ALIGN_UP(entries * 8, q->cluster_size), offset;
    g_autofree uint8_t *table = g_malloc0(bytes);
    for (unsigned i = 0; i < q->l1_size; i++)
        store_be64(table + 8 * i, q->l1[i]);
    pthread_mutex_lock(&q->lock);
    rc = qcow2_allocate(q, bytes >> q->cluster_bits, NULL, &offset);
    pthread_mutex_unlock(&q->lock);
    if (!rc)
        rc = file_write(q->file, offset, table, bytes);
    if (!rc)
        rc = qcow2_commit(q); // the table and its refcounts are on stable storage
    if (rc)
        return rc;
    uint64_t old = q->l1_offset, old_size = q->l1_size;
    q->l1 = g_renew(uint64_t, q->l1, entries);
    memset(q->l1 + old_size, 0, (entries - old_size) * 8);
    q->l1_size = entries;
    q->l1_offset = offset;
    rc = qcow2_header_write(q);
    if (!rc)
        rc = file_sync(q->file);
    if (rc)
        return rc;
    if (old && old_size) {
        pthread_mutex_lock(&q->lock);
        qcow2_free_later(q, old, ALIGN_UP(old_size * 8, q->cluster_size));
        pthread_mutex_unlock(&q->lock);
    }
    return 0;
}

static uint64_t l1_entries_for(const struct qcow2 *q, uint64_t size)
{
    uint64_t span = q->cluster_size << q->l2_bits;
    return size / span + !!(size % span);
}

static int set_size(struct disk *disk, uint64_t size)
{
    uint64_t old = disk->size;
    disk->size = size;
    int rc = qcow2_header_write(disk->state);
    if (!rc)
        rc = file_sync(disk->file);
    if (rc)
        disk->size = old;
    return rc;
}

static int grow(struct disk *disk, uint64_t size)
{
    struct qcow2 *q = disk->state;
    uint64_t old = disk->size;
    int rc = qcow2_grow_l1(q, l1_entries_for(q, size));
    // What the base has past our old end must not show: zeroes first, the size after them.
    if (!rc && disk->backing && disk->backing->size > old) {
        disk->size = size;
        rc = qcow2_zero(disk, old, MIN(size, disk->backing->size) - old, DISK_MAY_UNMAP);
        disk->size = old;
    }
    if (!rc)
        rc = qcow2_commit(q);
    return rc ? rc : set_size(disk, size);
}

// The data goes first: the end of the last cluster too, which must read as zeroes when the disk grows again.
static int shrink(struct disk *disk, uint64_t size)
{
    struct qcow2 *q = disk->state;
    uint64_t rest = MIN(disk->size, ALIGN_UP(size, q->cluster_size));
    int rc = rest > size ? qcow2_zero(disk, size, rest - size, 0) : 0;
    if (!rc && disk->size > rest)
        rc = qcow2_discard(disk, rest, disk->size - rest);
    if (!rc)
        rc = qcow2_commit(q);
    return rc ? rc : set_size(disk, size);
}

bool qcow2_may_resize(struct disk *disk, uint64_t size, GError **error)
{
    struct qcow2 *q = disk->state;
    if (!q->snapshot_count || (q->version >= 3 && size > disk->size))
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                "%s has internal snapshots, so it cannot be resized: convert it to a new image first", disk->path);
    return false;
}

int qcow2_resize(struct disk *disk, uint64_t size)
{
    struct qcow2 *q = disk->state;
    int rc = q->generation_marked ? 0 : qcow2_mark_generation(q);
    if (rc)
        return rc;
    return size > disk->size ? grow(disk, size) : shrink(disk, size);
}
