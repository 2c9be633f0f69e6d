// SPDX-License-Identifier: GPL-2.0-or-later
// Damage of video memory: a page's first write after a harvest takes the slow path, notes the page and gives it back to
// the fast path.
#include "core/memory/memory.h"

#include <string.h>

struct ram_damage {
    struct ram *ram;
    uint64_t ram_offset, pages;
    _Atomic uint64_t *written; // one bit per page; any thread
    struct ram_damage *next;
};

static void note_pages(struct ram_damage *damage, uint64_t first, uint64_t end)
{
    for (uint64_t page = first; page < end && page < damage->pages; page++)
        atomic_fetch_or(&damage->written[page / 64], BIT(page % 64));
}

// Tracker of TRACK_VIDEO.
static void video_written(void *opaque, uint64_t ram_offset, uint64_t length, enum ram_write_phase phase)
{
    struct ram *ram = opaque;
    if (phase != RAM_WRITE_AFTER)
        return;
    g_mutex_lock(&ram->damage_lock);
    ram_untrack(ram, ram_offset, TRACK_VIDEO);
    for (struct ram_damage *damage = ram->damages; damage; damage = damage->next) {
        uint64_t page = (ram_offset - damage->ram_offset) >> PAGE_SHIFT;
        if (ram_offset >= damage->ram_offset && page < damage->pages)
            note_pages(damage, page, page + 1);
    }
    g_mutex_unlock(&ram->damage_lock);
}

struct ram_damage *ram_damage_new(struct ram *ram, uint64_t ram_offset, uint64_t size)
{
    struct ram_damage *damage = g_new0(struct ram_damage, 1);
    damage->ram = ram;
    damage->ram_offset = ram_offset & PAGE_MASK;
    damage->pages = (ALIGN_UP(ram_offset + size, PAGE_SIZE) - damage->ram_offset) >> PAGE_SHIFT;
    damage->written = (_Atomic uint64_t *)g_new0(uint64_t, (damage->pages + 63) / 64);
    g_mutex_lock(&ram->damage_lock);
    damage->next = ram->damages;
    ram->damages = damage;
    g_mutex_unlock(&ram->damage_lock);
    ram_set_tracker(ram, TRACK_VIDEO, video_written, ram);
    ram_track_range(ram, damage->ram_offset, damage->pages << PAGE_SHIFT, TRACK_VIDEO);
    return damage;
}

void ram_damage_free(struct ram_damage *damage)
{
    if (!damage)
        return;
    g_mutex_lock(&damage->ram->damage_lock);
    for (struct ram_damage **link = &damage->ram->damages; *link; link = &(*link)->next)
        if (*link == damage) {
            *link = damage->next;
            break;
        }
    g_mutex_unlock(&damage->ram->damage_lock);
    for (uint64_t page = 0; page < damage->pages; page++)
        ram_untrack(damage->ram, damage->ram_offset + (page << PAGE_SHIFT), TRACK_VIDEO);
    g_free((void *)damage->written);
    g_free(damage);
}

unsigned ram_damage_harvest(struct ram_damage *damage, uint64_t *bitmap)
{
    unsigned count = 0;
    uint64_t first = UINT64_MAX, last = 0;
    for (uint64_t word = 0; word < (damage->pages + 63) / 64; word++) {
        uint64_t bits = atomic_exchange(&damage->written[word], 0);
        if (!bits)
            continue;
        bitmap[word] |= bits;
        count += __builtin_popcountll(bits);
        first = MIN(first, word * 64 + __builtin_ctzll(bits));
        last = word * 64 + 63 - __builtin_clzll(bits);
    }
    // Watched again before the caller reads the pixels: what is written from here on is damage of the next harvest.
    if (count)
        ram_track_range(damage->ram, damage->ram_offset + (first << PAGE_SHIFT), (last - first + 1) << PAGE_SHIFT,
                        TRACK_VIDEO);
    return count;
}

void ram_damage_mark(struct ram_damage *damage, uint64_t offset, uint64_t length)
{
    if (length && offset < damage->pages << PAGE_SHIFT)
        note_pages(damage, offset >> PAGE_SHIFT, ((offset + length - 1) >> PAGE_SHIFT) + 1);
}
