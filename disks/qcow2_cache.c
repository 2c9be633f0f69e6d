// SPDX-License-Identifier: GPL-2.0-or-later
// Pieces of L2 tables and refcount blocks in memory, bounded; changed ones stay until they are committed.
#include "disks/qcow2.h"

void qcow2_cache_init(struct qcow2_cache *cache, unsigned slice_size, unsigned most)
{
    *cache = (struct qcow2_cache){.slice_size = slice_size,
                                  .slice_bits = g_bit_storage(slice_size) - 1,
                                  .most = most,
                                  .slices = g_hash_table_new(g_int64_hash, g_int64_equal)};
}

static void unlink_slice(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    *(slice->newer ? &slice->newer->older : &cache->newest) = slice->older;
    *(slice->older ? &slice->older->newer : &cache->oldest) = slice->newer;
}

static void link_newest(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    slice->newer = NULL;
    slice->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = slice;
    cache->newest = slice;
}

static struct qcow2_slice **front_of(struct qcow2_cache *cache, uint64_t offset)
{
    return &cache->front[(offset >> cache->slice_bits) % QCOW2_FRONT];
}

static void drop(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    unlink_slice(cache, slice);
    if (*front_of(cache, slice->offset) == slice)
        *front_of(cache, slice->offset) = NULL;
    g_hash_table_remove(cache->slices, &slice->offset);
    cache->count--;
    cache->dirty -= slice->dirty;
    g_free(slice);
}

void qcow2_cache_free(struct qcow2_cache *cache)
{
    while (cache->newest)
        drop(cache, cache->newest);
    if (cache->slices)
        g_hash_table_destroy(cache->slices);
    cache->slices = NULL;
}

struct qcow2_slice *qcow2_cache_find(struct qcow2_cache *cache, uint64_t offset)
{
    struct qcow2_slice **front = front_of(cache, offset), *slice = *front;
    if (!slice || slice->offset != offset)
        slice = g_hash_table_lookup(cache->slices, &offset);
    if (slice) {
        slice->recent = true;
        *front = slice;
    }
    return slice;
}

// Makes room; changed slices stay, so the cache may grow past its bound until the next commit (see qcow2_throttle()).
static void evict(struct qcow2_cache *cache)
{
    struct qcow2_slice *slice = cache->oldest;
    for (unsigned tries = 0; slice && cache->count >= cache->most && tries < 64; tries++) {
        struct qcow2_slice *newer = slice->newer;
        if (slice->recent) { // used since it was last looked at: a second chance
            slice->recent = false;
            unlink_slice(cache, slice);
            link_newest(cache, slice);
        } else if (!slice->dirty && !slice->committing)
            drop(cache, slice);
        slice = newer;
    }
}

struct qcow2_slice *qcow2_cache_insert(struct qcow2_cache *cache, uint64_t offset, const void *data)
{
    evict(cache);
    struct qcow2_slice *slice = g_malloc(sizeof *slice + cache->slice_size);
    *slice = (struct qcow2_slice){.offset = offset};
    if (data)
        memcpy(slice->data, data, cache->slice_size);
    else
        memset(slice->data, 0, cache->slice_size);
    g_hash_table_insert(cache->slices, &slice->offset, slice);
    link_newest(cache, slice);
    cache->count++;
    return slice;
}

void qcow2_cache_dirty(struct qcow2_cache *cache, struct qcow2_slice *slice)
{
    if (!slice->dirty)
        cache->dirty++;
    slice->dirty = true;
}

int qcow2_cache_load(struct qcow2 *q, struct qcow2_cache *cache, uint64_t offset, bool drop_lock)
{
    g_autofree void *data = g_malloc(cache->slice_size);
    for (;;) {
        unsigned generation = cache->generation;
        if (drop_lock)
            pthread_mutex_unlock(&q->lock);
        int rc = file_read(q->file, offset, data, cache->slice_size);
        if (drop_lock)
            pthread_mutex_lock(&q->lock);
        if (rc)
            return rc;
        if (g_hash_table_lookup(cache->slices, &offset))
            return 0;
        if (cache->generation != generation)
            continue;
        qcow2_cache_insert(cache, offset, data);
        return 0;
    }
}

void qcow2_cache_forget(struct qcow2_cache *cache, uint64_t offset, uint64_t length)
{
    for (uint64_t at = offset; at < offset + length; at += cache->slice_size) {
        struct qcow2_slice *slice = g_hash_table_lookup(cache->slices, &at);
        if (slice && !slice->committing)
            drop(cache, slice);
        else if (slice && slice->dirty) {
            slice->dirty = false;
            cache->dirty--;
        }
    }
}
