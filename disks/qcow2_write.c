// SPDX-License-Identifier: GPL-2.0-or-later
// Writing: in place where a cluster is ours alone, else into new clusters that get the rest of their contents from what
// was there (copy on write). The tables change only after the data was written.
#include "disks/qcow2.h"

#include <errno.h>

enum { MOST_CLUSTERS = 256 };

// A run of guest clusters that get (or have) a run of host clusters, for the guest bytes [OFFSET, OFFSET + LENGTH).
struct allocation {
    uint64_t offset, length;
    uint64_t first, count; // guest cluster numbers
    uint64_t host;
    bool fresh; // the host clusters are new (else: only subclusters are)
    bool whole; // whole clusters are copied, not only subclusters
    bool host_is_zero;
    bool copy_head, copy_tail;
    uint64_t start, end; // what is written: guest bytes
    struct qcow2_entry old[MOST_CLUSTERS];
};

bool qcow2_wait_for(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    bool waited = false;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t key = cluster + i;
        while (g_hash_table_size(q->in_progress) && g_hash_table_contains(q->in_progress, &key)) {
            pthread_cond_wait(&q->changed, &q->lock);
            waited = true;
        }
    }
    return waited;
}

static bool is_ours(const struct qcow2 *q, struct qcow2_entry e)
{
    return !(e.entry & QCOW2_COMPRESSED) && e.entry & QCOW2_COPIED && e.entry & QCOW2_OFFSET_MASK;
}

static void set_in_progress(struct qcow2 *q, const struct allocation *a, bool on)
{
    for (uint64_t i = 0; i < a->count; i++) {
        uint64_t key = a->first + i;
        if (on)
            g_hash_table_add(q->in_progress, g_memdup2(&key, sizeof key));
        else
            g_hash_table_remove(q->in_progress, &key);
    }
    if (!on)
        pthread_cond_broadcast(&q->changed);
}

// Does the part [FROM, TO) of one guest cluster read as zeroes by this layer alone?
static bool known_zero(struct qcow2 *q, struct qcow2_entry e, uint64_t from, uint64_t to)
{
    for (uint64_t at = ALIGN_DOWN(from, q->subcluster_size); at < to; at += q->subcluster_size) {
        enum qcow2_kind kind = qcow2_kind_of(q, e, qcow2_subcluster_of(q, at));
        bool nothing = kind == QCOW2_KIND_UNALLOCATED || kind == QCOW2_KIND_RESERVED;
        bool no_base = !q->disk->backing || at >= q->disk->backing->size;
        if (kind != QCOW2_KIND_ZERO && kind != QCOW2_KIND_ZERO_KEPT && !(nothing && no_base))
            return false;
    }
    return true;
}

static bool subcluster_has_data(const struct qcow2 *q, struct qcow2_entry e, uint64_t offset)
{
    return qcow2_kind_of(q, e, qcow2_subcluster_of(q, offset)) == QCOW2_KIND_NORMAL;
}

// What must be written around the guest's bytes.
static void plan_copies(struct qcow2 *q, struct allocation *a)
{
    uint64_t unit = a->whole ? q->cluster_size : q->subcluster_size, end = a->offset + a->length;
    const struct qcow2_entry *head = &a->old[0], *tail = &a->old[a->count - 1];
    a->start = ALIGN_DOWN(a->offset, unit);
    a->end = ALIGN_UP(end, unit);
    if (!a->fresh && subcluster_has_data(q, *head, a->offset))
        a->start = a->offset;
    if (!a->fresh && subcluster_has_data(q, *tail, end - 1))
        a->end = end;
    a->copy_head = a->start < a->offset && !(a->host_is_zero && known_zero(q, *head, a->start, a->offset));
    a->copy_tail = end < a->end && !(a->host_is_zero && known_zero(q, *tail, end, a->end));
}

// New host clusters for as many of the guest clusters from the slice's INDEX on as need some.
static int plan_fresh(struct qcow2 *q, struct qcow2_slice *slice, unsigned index, struct allocation *a)
{
    uint64_t wanted = ((a->offset + a->length - 1) >> q->cluster_bits) - a->first + 1, got;
    wanted = MIN(MIN(wanted, qcow2_slice_entries(q) - index), MOST_CLUSTERS);
    uint64_t count = 0;
    for (; count < wanted; count++) {
        struct qcow2_entry e = qcow2_entry_get(q, slice, index + count);
        uint64_t key = a->first + count;
        bool has_host = e.entry & (QCOW2_OFFSET_MASK | QCOW2_COMPRESSED);
        if (count && (is_ours(q, e) || (q->extended && has_host) || g_hash_table_contains(q->in_progress, &key)))
            break;
        a->old[count] = e;
        a->whole = !q->extended || has_host;
        if (a->whole && q->extended) {
            count = 1;
            break;
        }
    }
    int rc = qcow2_allocate(q, count, &got, &a->host);
    if (rc)
        return rc;
    a->count = got;
    a->fresh = true;
    a->host_is_zero = a->host >= q->zero_from;
    a->length = MIN(a->length, ((a->first + got) << q->cluster_bits) - a->offset);
    return 0;
}

// Data in clusters whose host cluster is ours but reserved or zero: the cluster is used as it is.
static void plan_reuse(struct qcow2 *q, struct qcow2_entry e, struct allocation *a)
{
    a->old[0] = e;
    a->count = 1;
    a->host = e.entry & QCOW2_OFFSET_MASK;
    a->whole = !q->extended;
    a->length = MIN(a->length, ((a->first + 1) << q->cluster_bits) - a->offset);
}

// Finds out what to do at A->offset: with A->count 0 the bytes go to A->host in place. LOCK held.
static int plan(struct qcow2 *q, struct allocation *a)
{
    struct qcow2_slice *slice;
    unsigned index;
    do {
        int rc = qcow2_slice_for_change(q, a->offset, &slice, &index);
        if (rc)
            return rc;
    } while (qcow2_wait_for(q, a->first, 1));
    struct qcow2_entry e = qcow2_entry_get(q, slice, index);
    if (qcow2_kind_of(q, e, qcow2_subcluster_of(q, a->offset)) == QCOW2_KIND_INVALID)
        return -EIO;
    if (is_ours(q, e) && qcow2_is_metadata(q, e.entry & QCOW2_OFFSET_MASK, q->cluster_size)) {
        log_guest("disks", "%s is damaged: data lies over its tables; run cloche-disk check", q->disk->path);
        return -EIO;
    }
    if (!is_ours(q, e)) {
        int rc = plan_fresh(q, slice, index, a);
        if (rc)
            return rc;
    } else
        plan_reuse(q, e, a);
    plan_copies(q, a);
    set_in_progress(q, a, true);
    return 0;
}

static int write_data(struct qcow2 *q, const struct allocation *a, const struct iovec *iov, unsigned iov_count)
{
    uint64_t end = a->offset + a->length, head = a->copy_head ? a->offset - a->start : 0;
    uint64_t tail = a->copy_tail ? a->end - end : 0;
    g_autofree uint8_t *buffer = head + tail ? g_try_malloc(head + tail) : NULL;
    if (head + tail && !buffer)
        return -ENOMEM;
    int rc = 0;
    if (head)
        rc = disk_readv(q->disk, a->start, head, &(struct iovec){buffer, head}, 1);
    if (!rc && tail) // past the disk's end, in its last cluster, zeroes are read
        rc = disk_readv(q->disk, end, tail, &(struct iovec){buffer + head, tail}, 1);
    if (rc)
        return rc;
    g_autofree struct iovec *all = g_new(struct iovec, iov_count + 2);
    unsigned count = 0;
    if (head)
        all[count++] = (struct iovec){buffer, head};
    memcpy(all + count, iov, iov_count * sizeof *iov);
    count += iov_count;
    if (tail)
        all[count++] = (struct iovec){buffer + head, tail};
    uint64_t base = a->first << q->cluster_bits;
    return file_writev(q->file, a->host + (a->offset - head - base), all, count);
}

// The new entry of guest cluster I of the allocation, whose present entry is NOW.
static struct qcow2_entry new_entry(const struct qcow2 *q, const struct allocation *a, uint64_t i,
                                    struct qcow2_entry now)
{
    struct qcow2_entry e = {(a->host + (i << q->cluster_bits)) | QCOW2_COPIED, 0};
    if (!q->extended)
        return e;
    uint64_t cluster = (a->first + i) << q->cluster_bits;
    uint64_t from = MAX(a->start, cluster) - cluster, to = MIN(a->end, cluster + q->cluster_size) - cluster;
    unsigned first = from / q->subcluster_size, last = (to - 1) / q->subcluster_size;
    uint64_t bits = MASK_BITS(last, first);
    e.bitmap = a->whole ? QCOW2_ALL_ALLOCATED : (now.bitmap | bits) & ~(bits << 32);
    return e;
}

static int publish(struct qcow2 *q, const struct allocation *a)
{
    struct qcow2_slice *slice;
    unsigned index;
    int rc = qcow2_slice_for_change(q, a->first << q->cluster_bits, &slice, &index);
    if (rc)
        return rc;
    for (uint64_t i = 0; i < a->count; i++) {
        struct qcow2_entry now = qcow2_entry_get(q, slice, index + i);
        if (a->fresh)
            qcow2_free_entry(q, now);
        qcow2_entry_set(q, slice, index + i, new_entry(q, a, i, now));
    }
    return 0;
}

// Ends what plan() began: the tables refer to what was written, or, with RC, its place is free again. Returns RC or why
// the tables could not be changed.
static int end_allocation(struct qcow2 *q, const struct allocation *a, int rc)
{
    pthread_mutex_lock(&q->lock);
    if (!rc)
        rc = publish(q, a);
    if (rc && a->fresh)
        qcow2_free_now(q, a->host, a->count << q->cluster_bits);
    set_in_progress(q, a, false);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

static int write_allocating(struct qcow2 *q, uint64_t offset, uint64_t *length, const struct iovec *iov,
                            unsigned iov_count, uint64_t skip)
{
    struct allocation a = {.offset = offset, .length = *length, .first = offset >> q->cluster_bits};
    pthread_mutex_lock(&q->lock);
    int rc = plan(q, &a);
    pthread_mutex_unlock(&q->lock);
    if (rc)
        return rc;
    g_autofree struct iovec *part = g_new(struct iovec, iov_count);
    unsigned count = iov_slice(part, iov, iov_count, skip, a.length);
    *length = a.length;
    return end_allocation(q, &a, write_data(q, &a, part, count));
}

// What qcow2_pull() has to take over at guest cluster A->first. LOCK held; false: nothing, the cluster is decided here.
static int plan_pull(struct qcow2 *q, struct allocation *a, bool *wanted)
{
    struct qcow2_slice *slice;
    unsigned index;
    do {
        int rc = qcow2_slice_for_change(q, a->offset, &slice, &index);
        if (rc)
            return rc;
    } while (qcow2_wait_for(q, a->first, 1));
    *wanted = qcow2_kind_of(q, qcow2_entry_get(q, slice, index), 0) == QCOW2_KIND_UNALLOCATED;
    return *wanted ? plan(q, a) : 0;
}

// The guest's own writes to the cluster wait meanwhile, so nothing newer is overwritten.
static int pull_cluster(struct qcow2 *q, uint64_t offset, uint64_t length, uint8_t *buffer)
{
    struct allocation a = {.offset = offset, .length = length, .first = offset >> q->cluster_bits};
    bool wanted = false;
    pthread_mutex_lock(&q->lock);
    int rc = plan_pull(q, &a, &wanted);
    pthread_mutex_unlock(&q->lock);
    if (rc || !wanted)
        return rc;
    struct iovec data = {buffer, length};
    rc = disk_readv(q->disk, offset, length, &data, 1);
    if (!rc)
        rc = write_data(q, &a, &data, 1);
    return end_allocation(q, &a, rc);
}

int qcow2_pull(struct disk *disk, uint64_t offset, uint64_t length)
{
    struct qcow2 *q = disk->state;
    if (q->extended)
        return -ENOTSUP;
    g_autofree uint8_t *buffer = g_malloc(q->cluster_size);
    int rc = q->generation_marked ? 0 : qcow2_mark_generation(q);
    uint64_t end = MIN(offset + length, disk->size);
    for (uint64_t at = ALIGN_DOWN(offset, q->cluster_size); at < end && !rc; at += q->cluster_size)
        rc = pull_cluster(q, at, MIN(q->cluster_size, disk->size - at), buffer);
    return rc ? rc : qcow2_throttle(q);
}

// Before the first change of a session the image gets a new generation, so that overlays notice.
int qcow2_mark_generation(struct qcow2 *q)
{
    int rc = 0;
    pthread_mutex_lock(&q->lock);
    if (!q->generation_marked) {
        g_autofree char *generation = g_uuid_string_random();
        qcow2_extension_set(q, QCOW2_EXT_GENERATION, generation, strlen(generation));
        rc = qcow2_header_write(q);
        if (!rc)
            rc = file_sync(q->file);
        q->generation_marked = !rc;
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int qcow2_write(struct disk *disk, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned iov_count)
{
    struct qcow2 *q = disk->state;
    g_autofree struct iovec *part = g_new(struct iovec, iov_count);
    int rc = q->generation_marked ? 0 : qcow2_mark_generation(q);
    for (uint64_t done = 0; done < length && !rc;) {
        struct extent extent;
        uint64_t step = length - done;
        rc = qcow2_map(disk, offset + done, step, MAP_WRITE | MAP_MAY_BLOCK, &extent);
        if (rc)
            break;
        if (extent.kind == EXTENT_DATA && extent.writable) {
            step = extent.length;
            rc = file_writev(extent.file, extent.file_offset, part, iov_slice(part, iov, iov_count, done, step));
            extent_release(&extent);
        } else {
            extent_release(&extent);
            rc = write_allocating(q, offset + done, &step, iov, iov_count, done);
        }
        done += step;
    }
    return rc ? rc : qcow2_throttle(q);
}
