// SPDX-License-Identifier: GPL-2.0-or-later
// Bringing changed metadata to the file in the order that keeps the file valid at any moment (see qcow2.h).
#include "disks/qcow2.h"

#include <errno.h>

// Copies of what is dirty at one moment under the lock: every L2 entry in it has its refcount in it too.
struct pending_write {
    uint64_t offset;
    uint8_t *data;
    uint32_t length;
};

struct commit {
    GArray *refcounts, *l2, *reftable, *l1; // struct pending_write
    bool header;
    uint64_t reftable_offset, reftable_clusters;
    unsigned reftable_from, reftable_to, l1_from, l1_to;
};

static void clear_write(gpointer data)
{
    g_free(((struct pending_write *)data)->data);
}

static GArray *writes_new(void)
{
    GArray *writes = g_array_new(FALSE, FALSE, sizeof(struct pending_write));
    g_array_set_clear_func(writes, clear_write);
    return writes;
}

static int compare_writes(gconstpointer a, gconstpointer b)
{
    const struct pending_write *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void collect_cache(struct qcow2_cache *cache, GArray *writes)
{
    if (!cache->dirty)
        return;
    for (struct qcow2_slice *slice = cache->newest; slice; slice = slice->older) {
        if (!slice->dirty)
            continue;
        struct pending_write write = {slice->offset, g_memdup2(slice->data, cache->slice_size), cache->slice_size};
        g_array_append_val(writes, write);
        slice->dirty = false;
        slice->committing = true;
    }
    cache->dirty = 0;
    g_array_sort(writes, compare_writes);
}

// Whole sectors of a table of 64-bit numbers around the entries FROM to TO.
static void collect_table(const uint64_t *table, unsigned size, uint64_t offset, unsigned from, unsigned to,
                          GArray *writes)
{
    if (from >= to)
        return;
    from = ALIGN_DOWN(from, 64);
    to = MIN(ALIGN_UP(to, 64), size);
    struct pending_write write = {offset + from * 8ull, g_malloc(8ull * (to - from)), 8 * (to - from)};
    for (unsigned i = from; i < to; i++)
        store_be64(write.data + 8 * (i - from), table[i]);
    g_array_append_val(writes, write);
}

static void collect(struct qcow2 *q, struct commit *commit)
{
    *commit = (struct commit){.refcounts = writes_new(),
                              .l2 = writes_new(),
                              .reftable = writes_new(),
                              .l1 = writes_new(),
                              .header = q->header_dirty,
                              .reftable_from = q->reftable_dirty_from,
                              .reftable_to = q->reftable_dirty_to,
                              .l1_from = q->l1_dirty_from,
                              .l1_to = q->l1_dirty_to,
                              .reftable_offset = q->reftable_offset,
                              .reftable_clusters = q->reftable_clusters};
    collect_cache(&q->refcount_cache, commit->refcounts);
    collect_cache(&q->l2_cache, commit->l2);
    collect_table(q->reftable, q->reftable_size, q->reftable_offset, q->reftable_dirty_from, q->reftable_dirty_to,
                  commit->reftable);
    collect_table(q->l1, q->l1_size, q->l1_offset, q->l1_dirty_from, q->l1_dirty_to, commit->l1);
    q->reftable_dirty_from = q->l1_dirty_from = UINT32_MAX;
    q->reftable_dirty_to = q->l1_dirty_to = 0;
    q->header_dirty = false;
}

// Neighbouring pieces go out in one write.
static int write_all(struct qcow2 *q, GArray *writes)
{
    struct iovec iov[256];
    for (unsigned i = 0; i < writes->len;) {
        const struct pending_write *first = &g_array_index(writes, struct pending_write, i);
        uint64_t end = first->offset;
        unsigned count = 0;
        while (i < writes->len && count < G_N_ELEMENTS(iov)) {
            const struct pending_write *write = &g_array_index(writes, struct pending_write, i);
            if (write->offset != end)
                break;
            iov[count++] = (struct iovec){write->data, write->length};
            end += write->length;
            i++;
        }
        int rc = file_writev(q->file, first->offset, iov, count);
        if (rc)
            return rc;
    }
    return 0;
}

static int write_header_locked(struct qcow2 *q, const struct commit *commit)
{
    pthread_mutex_lock(&q->lock);
    q->header_reftable_offset = commit->reftable_offset;
    q->header_reftable_clusters = commit->reftable_clusters;
    int rc = qcow2_header_write(q);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

static int write_in_order(struct qcow2 *q, struct commit *commit)
{
    int rc = write_all(q, commit->refcounts);
    if (!rc)
        rc = file_sync(q->file); // data and refcounts
    if (!rc && commit->reftable->len) {
        rc = write_all(q, commit->reftable);
        if (!rc)
            rc = file_sync(q->file);
        if (!rc && commit->header)
            rc = write_header_locked(q, commit);
        if (!rc && commit->header)
            rc = file_sync(q->file);
    }
    if (!rc && commit->l2->len) {
        rc = write_all(q, commit->l2);
        if (!rc)
            rc = file_sync(q->file);
    }
    if (!rc && commit->l1->len) {
        rc = write_all(q, commit->l1);
        if (!rc)
            rc = file_sync(q->file);
    }
    return rc;
}

static void settle_cache(struct qcow2_cache *cache, GArray *writes, bool failed)
{
    for (unsigned i = 0; i < writes->len; i++) {
        struct qcow2_slice *slice =
            g_hash_table_lookup(cache->slices, &g_array_index(writes, struct pending_write, i).offset);
        if (!slice)
            continue;
        slice->committing = false;
        if (failed)
            qcow2_cache_dirty(cache, slice);
    }
    cache->generation++;
}

static void settle(struct qcow2 *q, struct commit *commit, bool failed, bool turned)
{
    settle_cache(&q->refcount_cache, commit->refcounts, failed);
    settle_cache(&q->l2_cache, commit->l2, failed);
    if (failed) {
        q->reftable_dirty_from = MIN(q->reftable_dirty_from, commit->reftable_from);
        q->reftable_dirty_to = MAX(q->reftable_dirty_to, commit->reftable_to);
        q->l1_dirty_from = MIN(q->l1_dirty_from, commit->l1_from);
        q->l1_dirty_to = MAX(q->l1_dirty_to, commit->l1_to);
        q->header_dirty |= commit->header;
    }
    if (!failed && (turned || q->freed[q->disk->epoch ^ 1]->len))
        q->freed_stable = true;
    if (!failed)
        qcow2_free_stable(q);
    g_array_free(commit->refcounts, TRUE);
    g_array_free(commit->l2, TRUE);
    g_array_free(commit->reftable, TRUE);
    g_array_free(commit->l1, TRUE);
}

int qcow2_commit(struct qcow2 *q)
{
    struct commit commit;
    pthread_mutex_lock(&q->commit_lock);
    pthread_mutex_lock(&q->lock);
    qcow2_free_stable(q);
    // What was freed before this moment is of the old epoch from now on.
    unsigned old = q->disk->epoch ^ 1;
    bool turn = q->freed[old]->len == 0 && !q->disk->users[old];
    if (turn) {
        q->disk->epoch = old;
        q->freed_stable = false;
    }
    collect(q, &commit);
    pthread_mutex_unlock(&q->lock);
    int rc = write_in_order(q, &commit);
    pthread_mutex_lock(&q->lock);
    settle(q, &commit, rc != 0, turn);
    pthread_mutex_unlock(&q->lock);
    pthread_mutex_unlock(&q->commit_lock);
    return rc;
}

int qcow2_throttle(struct qcow2 *q)
{
    pthread_mutex_lock(&q->lock);
    bool full = q->l2_cache.dirty > q->l2_cache.most / 2 || q->refcount_cache.dirty > q->refcount_cache.most / 2;
    pthread_mutex_unlock(&q->lock);
    return full ? qcow2_commit(q) : 0;
}

int qcow2_flush(struct disk *disk)
{
    return qcow2_commit(disk->state);
}

// Until nothing is left to do: what a commit gave back is counted by the next one.
int qcow2_settle(struct disk *disk)
{
    struct qcow2 *q = disk->state;
    int rc = 0;
    for (unsigned i = 0; i < 3 && !rc; i++) {
        pthread_mutex_lock(&q->lock);
        bool settled = !q->refcount_cache.dirty && !q->l2_cache.dirty && !q->freed[0]->len && !q->freed[1]->len;
        pthread_mutex_unlock(&q->lock);
        if (settled)
            break;
        rc = qcow2_commit(q);
    }
    if (!rc && q->file->regular && file_size(q->file) > MAX(q->alloc_end, q->end_at_open))
        rc = file_truncate(q->file, MAX(q->alloc_end, q->end_at_open)); // nobody else is there any more
    return rc;
}
