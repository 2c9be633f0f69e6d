// SPDX-License-Identifier: GPL-2.0-or-later
// Checking and repairing: count every reference, compare with the refcounts, make the two agree.
#include "disks/check.h"
#include "disks/job.h"
#include "disks/qcow2.h"

#include <errno.h>

enum { PAGE_COUNTS = 4096 };

// One look through an image. Alone with it.
struct check {
    struct qcow2 *q;
    struct disk_check_result *result;
    struct job *job;
    bool repair;
    GHashTable *pages;     // references counted: page number -> uint32_t[PAGE_COUNTS]
    GHashTable *l2_tables; // offset -> struct l2_use
    uint64_t highest;      // cluster number in use
    bool rebuild;          // the refcount structure itself is damaged
    bool wrong_counts;
    int rc;
};

struct l2_use {
    uint64_t offset; // the key
    uint32_t references;
    int64_t active; // index in the active L1, or -1
};

static void corrupt(struct check *c, const char *what, uint64_t offset)
{
    c->result->corruptions++;
    disk_check_note(c->result, "%s at byte %" G_GUINT64_FORMAT, what, offset);
}

static uint32_t *count_of(struct check *c, uint64_t cluster, bool make)
{
    gpointer key = GSIZE_TO_POINTER(cluster / PAGE_COUNTS + 1);
    uint32_t *page = g_hash_table_lookup(c->pages, key);
    if (!page && make) {
        page = g_new0(uint32_t, PAGE_COUNTS);
        g_hash_table_insert(c->pages, key, page);
    }
    return page ? &page[cluster % PAGE_COUNTS] : NULL;
}

// Counts TIMES references to the bytes. False where they lie outside the file.
static bool refer(struct check *c, uint64_t offset, uint64_t length, uint32_t times, const char *what)
{
    struct qcow2 *q = c->q;
    uint64_t end = ALIGN_UP(file_size(c->q->file), q->cluster_size);
    if (!length)
        return true;
    if (offset > end || length > end - offset) {
        corrupt(c, what, offset);
        return false;
    }
    for (uint64_t i = offset >> q->cluster_bits; i <= (offset + length - 1) >> q->cluster_bits; i++) {
        uint32_t *count = count_of(c, i, true);
        *count = *count > UINT32_MAX - times ? UINT32_MAX : *count + times;
        c->highest = MAX(c->highest, i);
    }
    return true;
}

static uint32_t references(struct check *c, uint64_t cluster)
{
    const uint32_t *count = count_of(c, cluster, false);
    return count ? *count : 0;
}

// ---- Counting: metadata ----
static void note_l1_entry(struct check *c, uint64_t entry, int64_t active_index)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;
    if (!offset)
        return;
    if (offset & (c->q->cluster_size - 1)) {
        corrupt(c, "An L1 entry is not aligned", offset);
        if (c->repair && active_index >= 0) {
            c->q->l1[active_index] = 0;
            c->result->corruptions_fixed++;
        }
        return;
    }
    struct l2_use *use = g_hash_table_lookup(c->l2_tables, &offset);
    bool twice = use && use->active >= 0 && active_index >= 0;
    if (twice || !refer(c, offset, c->q->cluster_size, 1, "An L2 table lies past the end of the file")) {
        if (twice)
            corrupt(c, "Two L1 entries share an L2 table", offset);
        if (c->repair && active_index >= 0) {
            c->q->l1[active_index] = 0;
            c->result->corruptions_fixed++;
        }
        return;
    }
    if (!use) {
        use = g_new0(struct l2_use, 1);
        *use = (struct l2_use){.offset = offset, .active = -1};
        g_hash_table_insert(c->l2_tables, &use->offset, use);
    }
    use->references++;
    use->active = MAX(use->active, active_index);
}

static void count_snapshots(struct check *c)
{
    struct qcow2 *q = c->q;
    uint64_t total = 0;
    refer(c, q->snapshots_offset, q->snapshots_length, 1, "The table of snapshots lies past the end of the file");
    for (uint32_t i = 0; i < q->snapshot_count && !c->rc; i++) {
        const struct qcow2_snapshot *snapshot = &q->snapshots[i];
        uint64_t bytes = snapshot->l1_size * 8ull;
        total += bytes;
        if (total > 2 * (uint64_t)QCOW2_MOST_L1 + file_size(q->file) / 8) {
            corrupt(c, "The snapshots have more tables than the file has room for", snapshot->l1_offset);
            return;
        }
        if (!refer(c, snapshot->l1_offset, bytes, 1, "A snapshot's L1 table lies past the end of the file"))
            continue;
        g_autofree uint64_t *l1 = g_malloc(bytes);
        c->rc = file_read(q->file, snapshot->l1_offset, l1, bytes);
        for (uint32_t j = 0; j < snapshot->l1_size && !c->rc; j++)
            note_l1_entry(c, GUINT64_FROM_BE(l1[j]), -1);
    }
}

// The directory of dirty bitmaps, each bitmap's table, and what those point to.
static void count_bitmaps(struct check *c)
{
    struct qcow2 *q = c->q;
    const struct qcow2_extension *e = qcow2_extension_find(q, QCOW2_EXT_BITMAPS);
    if (!e || e->length < 24 || !(q->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return;
    uint64_t size = load_be64(e->data + 8), offset = load_be64(e->data + 16);
    if (size > 64 * MiB || !refer(c, offset, size, 1, "The directory of bitmaps lies past the end of the file"))
        return;
    g_autofree uint8_t *directory = g_malloc0(size + 24);
    c->rc = file_read(q->file, offset, directory, size);
    for (uint64_t at = 0; at + 24 <= size && !c->rc;) {
        uint64_t table = load_be64(directory + at), entries = load_be32(directory + at + 8);
        uint64_t name = load_be16(directory + at + 18), extra = load_be32(directory + at + 20);
        at += ALIGN_UP(24 + name + extra, 8);
        if (entries > 8 * MiB || !refer(c, table, entries * 8, 1, "A bitmap lies past the end of the file"))
            continue;
        g_autofree uint64_t *data = g_malloc(entries * 8 + 8);
        c->rc = file_read(q->file, table, data, entries * 8);
        for (uint64_t i = 0; i < entries && !c->rc; i++) {
            uint64_t cluster = GUINT64_FROM_BE(data[i]) & QCOW2_OFFSET_MASK;
            if (cluster)
                refer(c, cluster, q->cluster_size, 1, "A bitmap lies past the end of the file");
        }
    }
}

static void count_refcount_blocks(struct check *c)
{
    struct qcow2 *q = c->q;
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    refer(c, q->reftable_offset, q->reftable_clusters << q->cluster_bits, 1,
          "The refcount table lies past the end of the file");
    for (unsigned i = 0; i < q->reftable_size; i++) {
        uint64_t block = q->reftable[i] & ~511ull;
        if (!block)
            continue;
        bool ok = !(block & (q->cluster_size - 1)) && !g_hash_table_contains(seen, &block) &&
                  refer(c, block, q->cluster_size, 1, "A refcount block lies past the end of the file");
        if (ok)
            g_hash_table_add(seen, g_memdup2(&block, sizeof block));
        else {
            corrupt(c, "The refcount table has an entry that is not valid", block);
            q->reftable[i] = 0;
            c->rebuild = true;
        }
    }
}

// ---- Counting: data ----
static bool is_bad_entry(struct check *c, struct qcow2_entry e)
{
    for (unsigned i = 0; i < c->q->subclusters; i++)
        if (qcow2_kind_of(c->q, e, i) == QCOW2_KIND_INVALID)
            return true;
    return false;
}

// False where the entry must go.
static bool count_entry(struct check *c, struct qcow2_entry e, const struct l2_use *use)
{
    struct qcow2 *q = c->q;
    uint64_t offset = e.entry & QCOW2_OFFSET_MASK, length = q->cluster_size;
    if (is_bad_entry(c, e)) {
        corrupt(c, "An L2 entry is not valid", offset);
        return false;
    }
    if (e.entry & QCOW2_COMPRESSED) {
        qcow2_compressed_range(q, e.entry, &offset, &length);
        // The last sector may reach past the end of the file.
        uint64_t end = ALIGN_UP(file_size(q->file), q->cluster_size);
        length = offset < end ? MIN(length, end - offset) : length;
    } else if (!offset)
        return true;
    if (!refer(c, offset, length, use->references, "Data lies past the end of the file"))
        return false;
    if (use->active >= 0) {
        c->result->clusters_used++;
        c->result->clusters_compressed += !!(e.entry & QCOW2_COMPRESSED);
    }
    return true;
}

static int write_l2(struct check *c, const struct l2_use *use, const uint8_t *table)
{
    return file_write(c->q->file, use->offset, table, c->q->cluster_size);
}

typedef bool entry_visit(struct check *c, uint8_t *entry, const struct l2_use *use); // true: changed

// Visits the entries of one L2 table and writes it back where one changed.
static void visit_table(struct check *c, const struct l2_use *use, uint8_t *table, entry_visit *visit)
{
    struct qcow2 *q = c->q;
    uint64_t alike;
    bool changed = false;
    if (file_is_hole(q->file, use->offset, q->cluster_size, &alike) && alike == q->cluster_size)
        return;
    c->rc = file_read(q->file, use->offset, table, q->cluster_size);
    for (uint64_t at = 0; at < q->cluster_size && !c->rc; at += q->entry_size)
        if (load_be64(table + at) || (q->extended && load_be64(table + at + 8)))
            changed |= visit(c, table + at, use);
    if (changed && !c->rc && c->repair)
        c->rc = write_l2(c, use, table);
}

static void visit_tables(struct check *c, entry_visit *visit)
{
    GHashTableIter iter;
    struct l2_use *use;
    uint64_t done = 0, total = g_hash_table_size(c->l2_tables);
    g_autofree uint8_t *table = g_malloc(c->q->cluster_size);
    g_hash_table_iter_init(&iter, c->l2_tables);
    while (!c->rc && g_hash_table_iter_next(&iter, NULL, (gpointer *)&use)) {
        visit_table(c, use, table, visit);
        job_set_progress(c->job, done++, total);
        if (job_cancelled(c->job))
            c->rc = -ECANCELED;
    }
}

static struct qcow2_entry entry_of(const struct qcow2 *q, const uint8_t *p)
{
    return (struct qcow2_entry){load_be64(p), q->extended ? load_be64(p + 8) : 0};
}

static bool visit_count(struct check *c, uint8_t *p, const struct l2_use *use)
{
    struct qcow2_entry e = entry_of(c->q, p);
    if (count_entry(c, e, use))
        return false;
    if (!c->repair)
        return false;
    memset(p, 0, c->q->entry_size);
    c->result->corruptions_fixed++;
    return true;
}

static bool visit_copied(struct check *c, uint8_t *p, const struct l2_use *use)
{
    struct qcow2_entry e = entry_of(c->q, p);
    uint64_t offset = e.entry & QCOW2_OFFSET_MASK;
    if (use->active < 0 || e.entry & QCOW2_COMPRESSED || !offset)
        return false;
    bool single = references(c, offset >> c->q->cluster_bits) == 1;
    if (single == !!(e.entry & QCOW2_COPIED))
        return false;
    corrupt(c, "An L2 entry's mark of a single reference is wrong", offset);
    if (!c->repair)
        return false;
    store_be64(p, e.entry ^ QCOW2_COPIED);
    c->result->corruptions_fixed++;
    return true;
}

static void count_all(struct check *c)
{
    struct qcow2 *q = c->q;
    refer(c, 0, q->cluster_size, 1, "The header");
    refer(c, q->l1_offset, q->l1_size * 8ull, 1, "The L1 table lies past the end of the file");
    count_refcount_blocks(c);
    for (unsigned i = 0; i < q->l1_size; i++)
        note_l1_entry(c, q->l1[i], i);
    count_snapshots(c);
    if (!c->rc)
        count_bitmaps(c);
    if (!c->rc)
        visit_tables(c, visit_count);
}

// ---- Comparing ----
static void compare_count(struct check *c, uint64_t cluster, uint64_t stored)
{
    uint64_t counted = references(c, cluster);
    if (stored == counted)
        return;
    c->wrong_counts = true;
    if (stored > counted) {
        c->result->leaks += 1;
        disk_check_note(c->result,
                        "Leaked cluster %" G_GUINT64_FORMAT ": count %" G_GUINT64_FORMAT
                        ", references %" G_GUINT64_FORMAT,
                        cluster, stored, counted);
    } else {
        c->result->corruptions += 1;
        disk_check_note(c->result,
                        "Cluster %" G_GUINT64_FORMAT " has count %" G_GUINT64_FORMAT " but %" G_GUINT64_FORMAT
                        " references",
                        cluster, stored, counted);
    }
}

static void compare_block(struct check *c, unsigned index, uint8_t *block)
{
    struct qcow2 *q = c->q;
    uint64_t per_block = qcow2_refcounts_per_block(q), first = index * per_block, offset = q->reftable[index] & ~511ull;
    if (!offset) {
        for (uint64_t i = first; i < first + per_block && i <= c->highest; i++)
            if (references(c, i)) {
                c->rebuild = true;
                compare_count(c, i, 0);
            }
        return;
    }
    c->rc = file_read(q->file, offset, block, q->cluster_size);
    for (uint64_t i = 0; i < per_block && !c->rc; i++)
        compare_count(c, first + i, qcow2_refcount_load(q, block, i));
}

static void compare_all(struct check *c)
{
    struct qcow2 *q = c->q;
    g_autofree uint8_t *block = g_malloc(q->cluster_size);
    uint64_t per_block = qcow2_refcounts_per_block(q);
    for (unsigned i = 0; i < q->reftable_size && !c->rc; i++)
        compare_block(c, i, block);
    for (uint64_t i = q->reftable_size * per_block; i <= c->highest && !c->rc; i++)
        if (references(c, i)) {
            c->rebuild = true;
            compare_count(c, i, 0);
        }
}

static void check_copied(struct check *c)
{
    struct qcow2 *q = c->q;
    for (unsigned i = 0; i < q->l1_size; i++) {
        uint64_t offset = q->l1[i] & QCOW2_OFFSET_MASK;
        if (!offset || (references(c, offset >> q->cluster_bits) == 1) == !!(q->l1[i] & QCOW2_COPIED))
            continue;
        corrupt(c, "An L1 entry's mark of a single reference is wrong", offset);
        if (!c->repair)
            continue;
        q->l1[i] ^= QCOW2_COPIED;
        c->result->corruptions_fixed++;
    }
    visit_tables(c, visit_copied);
}

// ---- Repairing ----
static int store_counts(struct check *c, uint64_t first, uint64_t offset, uint8_t *block)
{
    struct qcow2 *q = c->q;
    uint64_t most = q->refcount_order == 6 ? UINT64_MAX : (1ull << (1u << q->refcount_order)) - 1;
    memset(block, 0, q->cluster_size);
    for (uint64_t i = 0; i < qcow2_refcounts_per_block(q); i++) {
        uint64_t count = references(c, first + i);
        if (count > most)
            return -ERANGE;
        qcow2_refcount_store(q, block, i, count);
    }
    return file_write(q->file, offset, block, q->cluster_size);
}

static void fix_in_place(struct check *c)
{
    struct qcow2 *q = c->q;
    g_autofree uint8_t *block = g_malloc(q->cluster_size);
    for (unsigned i = 0; i < q->reftable_size && !c->rc; i++)
        if (q->reftable[i] & ~511ull)
            c->rc = store_counts(c, i * qcow2_refcounts_per_block(q), q->reftable[i] & ~511ull, block);
}

static void forget_old_structure(struct check *c)
{
    struct qcow2 *q = c->q;
    for (uint64_t i = 0; i < q->reftable_clusters; i++) {
        uint32_t *count = count_of(c, (q->reftable_offset >> q->cluster_bits) + i, false);
        if (count && *count)
            --*count;
    }
    for (unsigned i = 0; i < q->reftable_size; i++) {
        uint32_t *count = q->reftable[i] ? count_of(c, (q->reftable[i] & ~511ull) >> q->cluster_bits, false) : NULL;
        if (count && *count)
            --*count;
    }
}

// A whole new table and blocks past everything that is in use; the header points to it last.
static void rebuild(struct check *c)
{
    struct qcow2 *q = c->q;
    uint64_t per_block = qcow2_refcounts_per_block(q), blocks = 1, table = 1;
    uint64_t start = MAX(c->highest + 1, qcow2_clusters(q, file_size(q->file)));
    forget_old_structure(c);
    for (uint64_t before = 0; before != blocks + table;) {
        before = blocks + table;
        blocks = (start + blocks + table + per_block - 1) / per_block;
        table = qcow2_clusters(q, blocks * 8);
        if (table << q->cluster_bits > QCOW2_MOST_REFTABLE) {
            c->rc = -EFBIG;
            return;
        }
    }
    uint64_t table_offset = (start + blocks) << q->cluster_bits;
    c->rc = file_truncate(q->file, (start + blocks + table) << q->cluster_bits);
    q->end_at_open = file_size(q->file);
    if (c->rc || !refer(c, start << q->cluster_bits, (blocks + table) << q->cluster_bits, 1, "The new refcounts"))
        return;
    g_autofree uint8_t *block = g_malloc(q->cluster_size);
    g_free(q->reftable);
    q->reftable_size = (table << q->cluster_bits) / 8;
    q->reftable = g_new0(uint64_t, q->reftable_size);
    for (uint64_t i = 0; i < blocks && !c->rc; i++) {
        q->reftable[i] = (start + i) << q->cluster_bits;
        c->rc = store_counts(c, i * per_block, q->reftable[i], block);
    }
    g_autofree uint64_t *on_disk = g_new0(uint64_t, q->reftable_size);
    for (uint64_t i = 0; i < blocks; i++)
        on_disk[i] = GUINT64_TO_BE(q->reftable[i]);
    if (!c->rc)
        c->rc = file_write(q->file, table_offset, on_disk, table << q->cluster_bits);
    q->reftable_offset = q->header_reftable_offset = table_offset;
    q->reftable_clusters = q->header_reftable_clusters = table;
}

static int write_l1(struct qcow2 *q)
{
    g_autofree uint64_t *table = g_new(uint64_t, MAX(q->l1_size, 1));
    for (unsigned i = 0; i < q->l1_size; i++)
        table[i] = GUINT64_TO_BE(q->l1[i]);
    return q->l1_size ? file_write(q->file, q->l1_offset, table, q->l1_size * 8ull) : 0;
}

static void repair(struct check *c)
{
    struct qcow2 *q = c->q;
    uint64_t counts_wrong = c->result->corruptions - c->result->corruptions_fixed;
    if (c->rebuild)
        rebuild(c);
    else if (c->wrong_counts)
        fix_in_place(c);
    if (!c->rc)
        c->rc = file_sync(q->file);
    if (!c->rc) {
        c->result->leaks_fixed = c->result->leaks;
        c->result->corruptions_fixed += counts_wrong;
        check_copied(c);
    }
    if (!c->rc)
        c->rc = write_l1(q);
    if (!c->rc)
        c->rc = file_sync(q->file);
    if (c->rc)
        return;
    q->incompatible &= ~(uint64_t)(QCOW2_DIRTY | QCOW2_CORRUPT);
    c->rc = qcow2_header_write(q);
    if (!c->rc)
        c->rc = file_sync(q->file);
}

static int run_check(struct qcow2 *q, bool fix, struct disk_check_result *result, struct job *job)
{
    struct check c = {.q = q, .result = result, .job = job, .repair = fix};
    c.pages = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    c.l2_tables = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free);
    result->clusters_total = qcow2_clusters(q, q->disk->size);
    count_all(&c);
    if (!c.rc)
        compare_all(&c);
    if (!c.rc && fix)
        repair(&c);
    else if (!c.rc)
        check_copied(&c);
    g_hash_table_destroy(c.pages);
    g_hash_table_destroy(c.l2_tables);
    return c.rc;
}

static bool load_reftable(struct qcow2 *q)
{
    if (!q->reftable) { // opened read-only
        q->reftable = g_try_new0(uint64_t, MAX(q->reftable_size, 1));
        if (!q->reftable || file_read(q->file, q->reftable_offset, q->reftable, q->reftable_size * 8ull))
            return false;
        for (unsigned i = 0; i < q->reftable_size; i++)
            q->reftable[i] = GUINT64_FROM_BE(q->reftable[i]);
    }
    return true;
}

bool qcow2_check(struct disk *disk, bool fix, struct disk_check_result *result, struct job *job, GError **error)
{
    struct qcow2 *q = disk->state;
    int rc = load_reftable(q) ? run_check(q, fix, result, job) : -EIO;
    if (rc == -ECANCELED)
        return !job_check_cancelled(job, error);
    if (rc == -EFBIG)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT,
                    "%s refers to places that no refcount table can cover: restore it from a copy", disk->path);
    else if (rc)
        set_errno_error(error, rc, "Cannot check %s", disk->path);
    return rc == 0;
}

bool qcow2_repair_dirty(struct qcow2 *q, GError **error)
{
    struct disk_check_result result = {0};
    log_warning("disks", "%s was not closed properly, its reference counts are being repaired", q->disk->path);
    int rc = run_check(q, true, &result, NULL);
    disk_check_clear(&result);
    g_hash_table_remove_all(q->tables);
    for (unsigned i = 0; i < q->l1_size + q->reftable_size; i++) {
        uint64_t entry = i < q->l1_size ? q->l1[i] & QCOW2_OFFSET_MASK : q->reftable[i - q->l1_size] & ~511ull;
        if (entry)
            g_hash_table_add(q->tables, g_memdup2(&entry, sizeof entry));
    }
    q->zero_from = ALIGN_UP(file_size(q->file), q->cluster_size);
    if (rc)
        set_errno_error(error, rc, "Cannot repair %s after it was not closed properly", q->disk->path);
    return rc == 0;
}
