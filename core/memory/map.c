// SPDX-License-Identifier: GPL-2.0-or-later
// Address spaces: regions with priorities, flattened into a sorted map that readers search without a lock.
//
// A map that was replaced is freed when nobody can read it any more: vCPU threads have acknowledged the CHANGED
// callback, and the short read sections of all other threads are over. The latter are counted as in sleepable RCU: two
// counters, the index of the current one flips, and a batch is free after two flips whose old counter was seen at zero.
#include "core/memory/map.h"

#include <string.h>

enum { BATCHES = 3 }; // new, after one flip, after two

void region_init_ram(struct region *region, const char *name, uint64_t ram_offset, uint64_t size)
{
    *region = (struct region){.name = name, .kind = REGION_RAM, .ram_offset = ram_offset, .size = size};
}

void region_init_rom(struct region *region, const char *name, uint64_t ram_offset, uint64_t size)
{
    *region = (struct region){.name = name, .kind = REGION_ROM, .ram_offset = ram_offset, .size = size};
}

void region_init_io(struct region *region, const char *name, const struct io_ops *ops, void *opaque, uint64_t size)
{
    *region = (struct region){.name = name, .kind = REGION_IO, .ops = ops, .opaque = opaque, .size = size};
}

struct flat_map {
    unsigned count;
    struct flat_map *next_retired;
    struct mapping mappings[];
};

struct address_space *address_space_new(const char *name, struct ram *ram, uint64_t size, GRecMutex *io_lock)
{
    struct address_space *space = g_new0(struct address_space, 1);
    space->name = name;
    space->ram = ram;
    space->size = size;
    space->io_lock = io_lock;
    space->regions = g_ptr_array_new();
    space->map = g_malloc0(sizeof(struct flat_map));
    g_mutex_init(&space->retire_lock);
    return space;
}

static void free_maps(struct flat_map *map)
{
    while (map) {
        struct flat_map *next = map->next_retired;
        g_free(map);
        map = next;
    }
}

void address_space_free(struct address_space *space)
{
    if (!space)
        return;
    for (unsigned i = 0; i < BATCHES; i++)
        free_maps(space->retired[i]);
    g_free(space->map);
    g_ptr_array_free(space->regions, true);
    g_mutex_clear(&space->retire_lock);
    g_free(space);
}

void address_space_set_changed(struct address_space *space, void (*changed)(void *opaque), void *opaque)
{
    space->changed = changed;
    space->changed_opaque = opaque;
}

// ---- Retired maps ----
unsigned address_space_read_begin(struct address_space *space)
{
    unsigned index = atomic_load(&space->read_index) & 1;
    atomic_fetch_add(&space->readers[index], 1);
    return index;
}

// One step of the grace period, if the readers of the time before the last flip are gone. Retire lock held.
static bool advance_batches(struct address_space *space)
{
    unsigned old = (atomic_load(&space->read_index) & 1) ^ 1;
    if (atomic_load(&space->readers[old]))
        return false;
    free_maps(space->retired[BATCHES - 1]);
    for (unsigned i = BATCHES - 1; i; i--)
        space->retired[i] = space->retired[i - 1];
    space->retired[0] = NULL;
    atomic_fetch_add(&space->read_index, 1);
    return true;
}

static bool anything_retired(const struct address_space *space)
{
    for (unsigned i = 0; i < BATCHES; i++)
        if (space->retired[i])
            return true;
    return false;
}

void address_space_read_end(struct address_space *space, unsigned index)
{
    atomic_fetch_sub(&space->readers[index], 1);
}

static void retire(struct address_space *space, struct flat_map *map)
{
    g_mutex_lock(&space->retire_lock);
    map->next_retired = space->retired[0];
    space->retired[0] = map;
    for (unsigned step = 0; step < BATCHES && anything_retired(space); step++)
        if (!advance_batches(space))
            break;
    g_mutex_unlock(&space->retire_lock);
}

unsigned address_space_retired(struct address_space *space)
{
    unsigned count = 0;
    g_mutex_lock(&space->retire_lock);
    for (unsigned i = 0; i < BATCHES; i++)
        for (struct flat_map *map = space->retired[i]; map; map = map->next_retired)
            count++;
    g_mutex_unlock(&space->retire_lock);
    return count;
}

// ---- Flattening ----
static int compare_addresses(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t region_end(const struct address_space *space, const struct region *region)
{
    return region->size > space->size - region->base ? space->size : region->base + region->size;
}

// The regions are kept in ascending order of visibility, so the last one that covers the address is seen.
static struct region *top_region(const struct address_space *space, uint64_t address)
{
    for (unsigned i = space->regions->len; i-- > 0;) {
        struct region *region = space->regions->pdata[i];
        if (address >= region->base && address < region_end(space, region))
            return region;
    }
    return NULL;
}

static void append_mapping(struct address_space *space, struct flat_map *map, struct region *region, uint64_t start,
                           uint64_t end)
{
    struct mapping *last = map->count ? &map->mappings[map->count - 1] : NULL;
    if (last && last->region == region && last->start + last->size == start) {
        last->size += end - start;
        return;
    }
    struct mapping *m = &map->mappings[map->count++];
    *m = (struct mapping){.start = start, .size = end - start, .region = region, .offset = start - region->base};
    if (region->kind != REGION_IO) {
        m->ram_offset = region->ram_offset + m->offset;
        m->host = space->ram->host + m->ram_offset;
    }
}

static struct flat_map *flatten(struct address_space *space)
{
    unsigned count = space->regions->len;
    g_autofree uint64_t *edges = g_new(uint64_t, 2 * count + 1);
    for (unsigned i = 0; i < count; i++) {
        const struct region *region = space->regions->pdata[i];
        edges[2 * i] = region->base;
        edges[2 * i + 1] = region_end(space, region);
    }
    qsort(edges, 2 * count, sizeof(*edges), compare_addresses);
    struct flat_map *map = g_malloc0(sizeof(*map) + 2 * count * sizeof(struct mapping));
    for (unsigned i = 0; i + 1 < 2 * count; i++) {
        if (edges[i] == edges[i + 1])
            continue;
        struct region *region = top_region(space, edges[i]);
        if (region)
            append_mapping(space, map, region, edges[i], edges[i + 1]);
    }
    return map;
}

// ---- The A20 gate ----
enum { FOLD = 1 << 20 }; // bit of addresses that a closed gate holds at 0
#define FOLD_END (UINT64_C(1) << 32)

// Appends what MAP shows in [START, END), moved up by SHIFT.
static void append_moved(const struct flat_map *map, struct flat_map *to, uint64_t start, uint64_t end, uint64_t shift)
{
    unsigned i = 0;
    for (unsigned high = map->count; i < high;) {
        unsigned middle = (i + high) / 2;
        if (map->mappings[middle].start + map->mappings[middle].size <= start)
            i = middle + 1;
        else
            high = middle;
    }
    for (; i < map->count && map->mappings[i].start < end; i++) {
        struct mapping piece = map->mappings[i];
        uint64_t from = MAX(piece.start, start), skip = from - piece.start;
        piece.size = MIN(piece.start + piece.size, end) - from;
        piece.start = from + shift;
        piece.offset += skip;
        if (piece.host) {
            piece.host += skip;
            piece.ram_offset += skip;
        }
        to->mappings[to->count++] = piece;
    }
}

// The map with bit 20 of addresses below 4 GiB held at 0: every odd mebibyte shows what the even one below it shows.
static struct flat_map *fold(struct flat_map *map)
{
    struct flat_map *to = g_malloc0(sizeof(*to) + (2 * map->count + 2 * FOLD_END / FOLD) * sizeof(struct mapping));
    for (uint64_t even = 0; even < FOLD_END; even += 2 * FOLD) {
        append_moved(map, to, even, even + FOLD, 0);
        append_moved(map, to, even, even + FOLD, FOLD);
    }
    append_moved(map, to, FOLD_END, UINT64_MAX, 0);
    g_free(map);
    return to;
}

void address_space_set_fold(struct address_space *space, bool folded)
{
    if (space->folded == folded)
        return;
    address_space_begin(space);
    space->folded = folded;
    space->dirty = true;
    address_space_commit(space);
}

static void publish(struct address_space *space)
{
    space->dirty = false;
    struct flat_map *map = flatten(space);
    struct flat_map *old = atomic_exchange(&space->map, space->folded ? fold(map) : map);
    if (space->changed)
        space->changed(space->changed_opaque);
    retire(space, old);
}

// ---- Changing the map ----
void address_space_begin(struct address_space *space)
{
    space->depth++;
}

void address_space_commit(struct address_space *space)
{
    g_assert(space->depth > 0);
    if (--space->depth == 0 && space->dirty)
        publish(space);
}

void address_space_map(struct address_space *space, struct region *region, uint64_t base, int priority)
{
    g_assert(!region->space);
    if (base >= space->size || !region->size)
        return; // out of reach: as if it were not there
    region->space = space;
    region->base = base;
    region->priority = priority;
    unsigned at = space->regions->len;
    while (at && ((struct region *)space->regions->pdata[at - 1])->priority > priority)
        at--;
    g_ptr_array_insert(space->regions, at, region);
    address_space_begin(space);
    space->dirty = true;
    address_space_commit(space);
}

void address_space_unmap(struct region *region)
{
    struct address_space *space = region->space;
    if (!space)
        return;
    g_ptr_array_remove(space->regions, region);
    region->space = NULL;
    address_space_begin(space);
    space->dirty = true;
    address_space_commit(space);
}

// ---- Looking up ----
const struct mapping *address_space_find(struct address_space *space, uint64_t address)
{
    const struct flat_map *map = atomic_load(&space->map);
    unsigned low = 0, high = map->count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct mapping *m = &map->mappings[middle];
        if (address < m->start)
            high = middle;
        else if (address - m->start >= m->size)
            low = middle + 1;
        else
            return m;
    }
    return NULL;
}

bool address_space_lookup(struct address_space *space, uint64_t address, struct mapping *mapping)
{
    unsigned index = address_space_read_begin(space);
    const struct mapping *found = address_space_find(space, address);
    if (found)
        *mapping = *found;
    address_space_read_end(space, index);
    return found != NULL;
}

uint64_t address_space_gap(struct address_space *space, uint64_t address)
{
    unsigned index = address_space_read_begin(space);
    const struct flat_map *map = atomic_load(&space->map);
    uint64_t end = space->size;
    for (unsigned i = map->count; i-- > 0 && map->mappings[i].start > address;)
        end = map->mappings[i].start;
    address_space_read_end(space, index);
    return end > address ? end - address : UINT64_MAX;
}

char *address_space_describe(struct address_space *space)
{
    static const char *const kinds[] = {"ram", "rom", "io"};
    GString *text = g_string_new(space->name);
    g_string_append_c(text, '\n');
    unsigned index = address_space_read_begin(space);
    const struct flat_map *map = atomic_load(&space->map);
    for (unsigned i = 0; i < map->count; i++) {
        const struct mapping *m = &map->mappings[i];
        g_string_append_printf(text, "  %012" G_GINT64_MODIFIER "x-%012" G_GINT64_MODIFIER "x %-3s %s", m->start,
                               m->start + m->size - 1, kinds[m->region->kind], m->region->name);
        if (m->offset)
            g_string_append_printf(text, " +0x%" G_GINT64_MODIFIER "x", m->offset);
        g_string_append_c(text, '\n');
    }
    address_space_read_end(space, index);
    return g_string_free(text, false);
}
