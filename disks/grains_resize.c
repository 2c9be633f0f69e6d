// SPDX-License-Identifier: GPL-2.0-or-later
// Another number of blocks: what VDI, VHD and VMDK have in common when a disk grows or shrinks.
#include "disks/grains.h"

#include <errno.h>
#include <string.h>

struct owner {
    uint32_t grain, entry;
};

int grains_set_count(struct grains *g, uint64_t count)
{
    uint64_t pages = (g->count + g->per_page - 1) / g->per_page, now = (count + g->per_page - 1) / g->per_page;
    uint32_t **new_pages = g_try_new0(uint32_t *, MAX(now, 1));
    uint8_t *new_dirty = g_try_new0(uint8_t, MAX(now, 1));
    if (!new_pages || !new_dirty) {
        g_free(new_pages);
        g_free(new_dirty);
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < pages; i++)
        g_free(g->pages[i]);
    g_free(g->pages);
    g_free(g->dirty);
    g->pages = new_pages;
    g->dirty = new_dirty;
    g->pages_loaded = g->dirty_count = 0;
    g->count = count;
    return 0;
}

int grains_copy(struct grains *g, uint32_t from, uint32_t to)
{
    uint64_t source = 0, target = 0, length = g->grain_size + g->prefix, step;
    g_autofree void *data = g_try_malloc(MIN(length, MiB));
    int rc = data ? 0 : -ENOMEM;
    g->kind(g, from, &source);
    g->kind(g, to, &target);
    for (uint64_t done = 0; done < length && !rc; done += step) {
        step = MIN(MiB, length - done);
        rc = file_read(g->file, source - g->prefix + done, data, step);
        if (!rc && buffer_is_zero(data, step))
            rc = file_punch(g->file, target - g->prefix + done, step);
        else if (!rc)
            rc = file_write(g->file, target - g->prefix + done, data, step);
    }
    return rc;
}

// Blocks [FROM, TO) that have a place.
static int find_owners(struct grains *g, uint64_t from, uint64_t to, GArray *owners)
{
    int rc = 0;
    for (uint64_t i = from; i < to && !rc; i++) {
        struct owner owner = {.grain = i};
        uint64_t place;
        rc = grains_entry(g, i, true, &owner.entry);
        if (!rc && g->kind(g, owner.entry, &place) == GRAIN_DATA)
            g_array_append_val(owners, owner);
    }
    return rc;
}

static int by_entry(gconstpointer a, gconstpointer b)
{
    uint32_t x = ((const struct owner *)a)->entry, y = ((const struct owner *)b)->entry;
    return x < y ? -1 : x > y;
}

static int drop_entries(struct grains *g, uint64_t from)
{
    int rc = 0;
    for (uint64_t i = from; i < g->count && !rc; i++)
        rc = grains_set_entry(g, i, g->none);
    return rc ? rc : grains_flush(g);
}

// The highest of KEPT to the lowest of FREE: nothing that was a source becomes a target.
static int fill(struct grains *g, const GArray *free, GArray *kept)
{
    unsigned moves = 0;
    int rc = 0;
    for (; moves < MIN(free->len, kept->len) && !rc; moves++) {
        struct owner *source = &g_array_index(kept, struct owner, kept->len - 1 - moves);
        uint32_t target = g_array_index(free, struct owner, moves).entry;
        if (source->entry < target)
            break;
        rc = grains_copy(g, source->entry, target);
        source->entry = target;
    }
    if (!rc)
        rc = file_sync(g->file);
    for (unsigned i = 0; i < moves && !rc; i++) {
        const struct owner *moved = &g_array_index(kept, struct owner, kept->len - 1 - i);
        rc = grains_set_entry(g, moved->grain, moved->entry);
    }
    return rc ? rc : grains_flush(g);
}

int grains_drop(struct grains *g, uint64_t count)
{
    g_autoptr(GArray) free = g_array_new(FALSE, FALSE, sizeof(struct owner));
    g_autoptr(GArray) kept = g_array_new(FALSE, FALSE, sizeof(struct owner));
    int rc = find_owners(g, count, g->count, free);
    for (unsigned i = 0; i < g->spares->len; i++) {
        struct owner spare = {.entry = g_array_index(g->spares, uint32_t, i)};
        g_array_append_val(free, spare);
    }
    if (!rc && free->len)
        rc = find_owners(g, 0, count, kept);
    if (!rc)
        rc = drop_entries(g, count);
    if (rc || !free->len)
        return rc;
    g_array_set_size(g->spares, 0);
    g_array_sort(free, by_entry);
    g_array_sort(kept, by_entry);
    return fill(g, free, kept);
}
