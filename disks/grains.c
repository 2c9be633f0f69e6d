// SPDX-License-Identifier: GPL-2.0-or-later
#include "disks/grains.h"

#include <errno.h>
#include <string.h>

bool grains_init(struct grains *g, GError **error)
{
    uint64_t pages = (g->count + g->per_page - 1) / g->per_page;
    pthread_mutex_init(&g->lock, NULL);
    pthread_mutex_init(&g->allocate_lock, NULL);
    pthread_mutex_init(&g->flush_lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    g->in_progress = g_hash_table_new(NULL, NULL);
    g->spares = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    if (!g->memory_most)
        g->memory_most = 32 * MiB;
    g->pages = g_try_new0(uint32_t *, MAX(pages, 1));
    g->dirty = g_try_new0(uint8_t, MAX(pages, 1));
    if (g->pages && g->dirty)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "There is not enough memory to open %s", g->disk->path);
    return false;
}

static uint64_t page_count(const struct grains *g)
{
    return (g->count + g->per_page - 1) / g->per_page;
}

void grains_free(struct grains *g)
{
    for (uint64_t i = 0; g->pages && i < page_count(g); i++)
        g_free(g->pages[i]);
    g_free(g->pages);
    g_free(g->dirty);
    g->pages = NULL;
    g->dirty = NULL;
    if (!g->spares) // never made
        return;
    g_hash_table_destroy(g->in_progress);
    g_array_free(g->spares, TRUE);
    pthread_mutex_destroy(&g->lock);
    pthread_mutex_destroy(&g->allocate_lock);
    pthread_mutex_destroy(&g->flush_lock);
    pthread_cond_destroy(&g->changed);
}

// Forgets a clean page so that a huge disk does not fill the memory. LOCK held.
static void make_room(struct grains *g, uint64_t keep)
{
    uint64_t pages = page_count(g), most = MAX(g->memory_most / (g->per_page * 4), 4);
    for (uint64_t i = 1; i < pages && g->pages_loaded >= most; i++) {
        uint64_t page = (keep + i) % pages;
        if (!g->pages[page] || g->dirty[page])
            continue;
        g_free(g->pages[page]);
        g->pages[page] = NULL;
        g->pages_loaded--;
    }
}

// LOCK held.
static int entry_locked(struct grains *g, uint64_t grain, bool may_block, uint32_t *entry)
{
    uint64_t page = grain / g->per_page;
    if (grain >= g->count)
        return -EIO;
    if (!g->pages[page]) {
        if (!may_block)
            return -EAGAIN;
        make_room(g, page);
        uint32_t *entries = g_try_new0(uint32_t, g->per_page);
        int rc = entries ? g->load(g, page, entries) : -ENOMEM;
        if (rc) {
            g_free(entries);
            return rc;
        }
        g->pages[page] = entries;
        g->pages_loaded++;
    }
    *entry = g->pages[page][grain % g->per_page];
    return 0;
}

int grains_entry(struct grains *g, uint64_t grain, bool may_block, uint32_t *entry)
{
    pthread_mutex_lock(&g->lock);
    int rc = entry_locked(g, grain, may_block, entry);
    pthread_mutex_unlock(&g->lock);
    return rc;
}

// ---- A plain table ----
static uint32_t convert(const struct grains *g, uint32_t entry)
{
    return g->big_endian ? GUINT32_TO_BE(entry) : GUINT32_TO_LE(entry); // both ways alike
}

static uint64_t page_entries(const struct grains *g, uint64_t page)
{
    return MIN(g->per_page, g->count - page * g->per_page);
}

int grains_load(struct grains *g, uint64_t page, uint32_t *entries)
{
    uint64_t count = page_entries(g, page);
    int rc = file_read(g->file, g->table_at + page * g->per_page * 4, entries, count * 4);
    for (uint64_t i = 0; i < count; i++)
        entries[i] = convert(g, entries[i]);
    return rc;
}

int grains_store(struct grains *g, uint64_t page, const uint32_t *entries)
{
    uint64_t count = page_entries(g, page);
    g_autofree uint32_t *out = g_new(uint32_t, count);
    for (uint64_t i = 0; i < count; i++)
        out[i] = convert(g, entries[i]);
    return file_write(g->file, g->table_at + page * g->per_page * 4, out, count * 4);
}

static const enum extent_kind kinds[] = {
    [GRAIN_NONE] = EXTENT_BACKING,
    [GRAIN_ZERO] = EXTENT_ZERO,
    [GRAIN_DATA] = EXTENT_DATA,
    [GRAIN_COMPRESSED] = EXTENT_COMPRESSED,
};

static int map_locked(struct grains *g, uint64_t offset, uint64_t length, bool may_block, struct extent *extent)
{
    uint64_t first = offset / g->grain_size, in_grain = offset % g->grain_size, place = 0,
             at = g->grain_size - in_grain;
    uint32_t entry;
    int rc = entry_locked(g, first, may_block, &entry);
    if (rc)
        return rc;
    enum grain_kind kind = g->kind(g, entry, &place);
    if (kind == GRAIN_INVALID) {
        log_guest("disks", "%s is damaged: a table entry lies past the end of the file", g->disk->path);
        return -EIO;
    }
    for (uint64_t grain = first + 1; at < length && kind != GRAIN_COMPRESSED && grain < g->count; grain++) {
        uint64_t next_place = 0;
        if (!g->pages[grain / g->per_page] || entry_locked(g, grain, false, &entry))
            break;
        if (g->kind(g, entry, &next_place) != kind ||
            (kind == GRAIN_DATA && next_place != place + (grain - first) * g->grain_size))
            break;
        at += g->grain_size;
    }
    *extent = (struct extent){.kind = kinds[kind],
                              .length = MIN(at, length),
                              .file = g->file,
                              .file_offset = place + in_grain,
                              .writable = kind == GRAIN_DATA};
    return 0;
}

int grains_map(struct grains *g, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent)
{
    pthread_mutex_lock(&g->lock);
    int rc = map_locked(g, offset, length, flags & MAP_MAY_BLOCK, extent);
    pthread_mutex_unlock(&g->lock);
    if (rc || !(flags & MAP_HOLES) || extent->kind != EXTENT_DATA)
        return rc;
    if (file_is_hole(extent->file, extent->file_offset, extent->length, &extent->length))
        extent->kind = EXTENT_ZERO;
    return 0;
}

// A new place, or one that a failed write left behind. ALLOCATE_LOCK held.
static int take_place(struct grains *g, uint64_t grain, uint32_t *entry)
{
    uint64_t place = 0;
    if (!g->spares->len)
        return g->allocate(g, grain, entry);
    *entry = g_array_index(g->spares, uint32_t, g->spares->len - 1);
    g->kind(g, *entry, &place);
    int rc = file_punch(g->file, place, g->grain_size);
    if (!rc)
        g_array_set_size(g->spares, g->spares->len - 1);
    return rc;
}

int grains_set_entry(struct grains *g, uint64_t grain, uint32_t entry)
{
    uint32_t old;
    uint64_t page = grain / g->per_page;
    pthread_mutex_lock(&g->lock);
    int rc = entry_locked(g, grain, true, &old);
    if (!rc && old != entry) {
        g->pages[page][grain % g->per_page] = entry;
        g->dirty_count += !g->dirty[page];
        g->dirty[page] = 1;
    }
    pthread_mutex_unlock(&g->lock);
    return rc;
}

// The entry of GRAIN, with a place: FRESH where it is new, and GRAIN in progress then.
static int begin_add(struct grains *g, uint64_t grain, uint32_t *entry, bool *fresh)
{
    gpointer key = GSIZE_TO_POINTER(grain + 1);
    uint64_t place;
    pthread_mutex_lock(&g->allocate_lock);
    while (g_hash_table_contains(g->in_progress, key))
        pthread_cond_wait(&g->changed, &g->allocate_lock);
    int rc = grains_entry(g, grain, true, entry);
    if (!rc && g->kind(g, *entry, &place) != GRAIN_DATA) {
        rc = take_place(g, grain, entry);
        *fresh = !rc;
        if (*fresh)
            g_hash_table_add(g->in_progress, key);
    }
    pthread_mutex_unlock(&g->allocate_lock);
    return rc;
}

static void end_add(struct grains *g, uint64_t grain, uint32_t entry, bool failed)
{
    pthread_mutex_lock(&g->allocate_lock);
    g_hash_table_remove(g->in_progress, GSIZE_TO_POINTER(grain + 1));
    if (failed)
        g_array_append_val(g->spares, entry);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->allocate_lock);
}

static int add_grain(struct grains *g, uint64_t grain, uint64_t in_grain, const struct iovec *iov, unsigned count)
{
    uint32_t entry;
    uint64_t place = 0;
    bool fresh = false;
    int rc = begin_add(g, grain, &entry, &fresh);
    if (rc)
        return rc;
    g->kind(g, entry, &place);
    rc = file_writev(g->file, place + in_grain, iov, count);
    if (!fresh)
        return rc;
    if (!rc)
        rc = grains_set_entry(g, grain, entry);
    end_add(g, grain, entry, rc != 0);
    return rc;
}

int grains_write(struct grains *g, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned iov_count)
{
    g_autofree struct iovec *part = g_new(struct iovec, iov_count);
    for (uint64_t done = 0, step; done < length; done += step) {
        struct extent extent;
        uint64_t in_grain = (offset + done) % g->grain_size;
        int rc = grains_map(g, offset + done, length - done, MAP_MAY_BLOCK, &extent);
        if (rc)
            return rc;
        step = extent.kind == EXTENT_DATA ? extent.length : MIN(length - done, g->grain_size - in_grain);
        unsigned count = iov_slice(part, iov, iov_count, done, step);
        rc = extent.kind == EXTENT_DATA ? file_writev(extent.file, extent.file_offset, part, count)
                                        : add_grain(g, (offset + done) / g->grain_size, in_grain, part, count);
        if (rc)
            return rc;
    }
    return g->dirty_count * g->per_page * 4 > g->memory_most / 2 ? grains_flush(g) : 0;
}

int grains_zero(struct grains *g, uint64_t offset, uint64_t length, unsigned flags)
{
    for (uint64_t done = 0; done < length;) {
        struct extent extent;
        int rc = grains_map(g, offset + done, length - done, MAP_MAY_BLOCK, &extent);
        if (!rc && extent.kind == EXTENT_DATA)
            rc = flags & DISK_MAY_UNMAP ? file_punch(extent.file, extent.file_offset, extent.length)
                                        : file_zero(extent.file, extent.file_offset, extent.length);
        if (rc)
            return rc;
        done += extent.length;
    }
    return 0;
}

// A page of the table as it was at one moment.
struct page_copy {
    uint64_t page;
    uint32_t *entries;
};

static void clear_copy(gpointer data)
{
    g_free(((struct page_copy *)data)->entries);
}

// LOCK held.
static GArray *copy_dirty(struct grains *g)
{
    uint64_t pages = page_count(g);
    GArray *copies = g_array_new(FALSE, FALSE, sizeof(struct page_copy));
    g_array_set_clear_func(copies, clear_copy);
    for (uint64_t page = 0; page < pages && g->dirty_count; page++) {
        if (!g->dirty[page])
            continue;
        struct page_copy copy = {page, g_memdup2(g->pages[page], g->per_page * 4)};
        g_array_append_val(copies, copy);
        g->dirty[page] = 2;
    }
    return copies;
}

// LOCK held.
static void settle(struct grains *g, const GArray *copies, bool stored)
{
    for (unsigned i = 0; i < copies->len; i++) {
        uint8_t *dirty = &g->dirty[g_array_index(copies, struct page_copy, i).page];
        if (*dirty != 2) // changed again meanwhile
            continue;
        *dirty = stored ? 0 : 1;
        g->dirty_count -= stored;
    }
}

static int store_tables(struct grains *g, const GArray *copies)
{
    int rc = 0;
    if (g->before_store) {
        pthread_mutex_lock(&g->allocate_lock);
        rc = g->before_store(g);
        pthread_mutex_unlock(&g->allocate_lock);
        if (!rc)
            rc = file_sync(g->file);
    }
    for (unsigned i = 0; i < copies->len && !rc; i++) {
        const struct page_copy *copy = &g_array_index(copies, struct page_copy, i);
        rc = g->store(g, copy->page, copy->entries);
    }
    return rc ? rc : file_sync(g->file);
}

int grains_flush(struct grains *g)
{
    pthread_mutex_lock(&g->flush_lock);
    pthread_mutex_lock(&g->allocate_lock);
    pthread_mutex_lock(&g->lock);
    GArray *copies = copy_dirty(g);
    bool header = g->header_dirty;
    pthread_mutex_unlock(&g->lock);
    pthread_mutex_unlock(&g->allocate_lock);
    int rc = file_sync(g->file);
    if (!rc && (copies->len || header))
        rc = store_tables(g, copies);
    pthread_mutex_lock(&g->lock);
    settle(g, copies, rc == 0);
    pthread_mutex_unlock(&g->lock);
    g_array_free(copies, TRUE);
    pthread_mutex_unlock(&g->flush_lock);
    return rc;
}

int grains_top(struct grains *g, uint64_t *top)
{
    *top = 0;
    for (uint64_t i = 0; i < g->count; i++) {
        uint32_t entry;
        uint64_t place;
        int rc = grains_entry(g, i, true, &entry);
        if (rc)
            return rc;
        enum grain_kind kind = g->kind(g, entry, &place);
        if (kind != GRAIN_NONE && kind != GRAIN_ZERO)
            *top = MAX(*top, (uint64_t)entry + 1);
    }
    return 0;
}

int grains_append(struct grains *g, uint64_t *end, uint64_t length, uint64_t alignment, uint64_t *offset)
{
    uint64_t place = ALIGN_UP(*end, alignment), size = file_size(g->file);
    int rc = file_extend(g->file, place + length);
    if (!rc && size > place) // something left behind by an allocation that failed
        rc = file_punch(g->file, place, MIN(size - place, length));
    if (rc)
        return rc;
    *offset = place;
    *end = place + length;
    return 0;
}
