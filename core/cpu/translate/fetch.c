// SPDX-License-Identifier: GPL-2.0-or-later
// Pages of code that are mapped as they were when their code was translated: what links and indirect jumps compare. A
// page has the same slot in every context, since translated code names it. Built without vector registers.
#include "core/cpu/translate/system.h"

#pragma GCC target("general-regs-only")

// ---- Slots ----------------------------------------------------------------------------------------------------------
//
// A page takes the first free one of its FETCH_WAYS slots and keeps it, so that pages of the kernel, which are used all
// the time, do not share one; when there is none it shares its first. One half of the slots is the programs'.

static unsigned way_slot(uint64_t page, uint32_t mode, unsigned way)
{
    // Neighbouring pages stay neighbours: their numbers share cache lines.
    uint64_t group = (page >> (PAGE_SHIFT + 6)) << 3 | (mode & MODE_AC ? 4 : 0) | way;
    unsigned half = mode & MODE_USER ? FETCH_SIZE / 2 : 0;
    return half | (unsigned)((page >> PAGE_SHIFT & 63) | (group * 0x9e3779b97f4a7c15ull >> (64 - (FETCH_BITS - 7))) << 6);
}

unsigned fetch_slot(struct translator *t, uint64_t page, uint32_t mode)
{
    uint64_t key = page | (mode & MODE_AC ? 2 : 0) | 1;
    for (unsigned way = 0; way < FETCH_WAYS; way++) {
        unsigned slot = way_slot(page, mode, way);
        uint64_t owner = __atomic_load_n(&t->fetch_pages[slot], __ATOMIC_RELAXED);
        if (owner == key || (owner == 0 && __atomic_compare_exchange_n(&t->fetch_pages[slot], &owner, key, false,
                                                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED)))
            return slot;
        if (owner == key) // another vCPU was faster
            return slot;
    }
    return way_slot(page, mode, 0);
}

void fetch_slots_forget(struct translator *t)
{
    for (unsigned n = 0; n < FETCH_SIZE; n++)
        __atomic_store_n(&t->fetch_pages[n], 0, __ATOMIC_RELAXED);
}

// ---- Entries --------------------------------------------------------------------------------------------------------

static void fetch_clear(struct context *c, unsigned slot)
{
    c->fetch[slot] = 0;
    c->fetch_info[slot].page = 1;
    c->fetch_info[slot].global = false;
}

void fetch_set(struct context *c, unsigned slot, uint64_t page, uint32_t mode, uint32_t id, uint64_t ram_page,
               bool global)
{
    struct fetch_info *i = &c->fetch_info[slot];
    c->fetch[slot] = id;
    i->page = page;
    i->mode = mode;
    i->global = global;
    i->ram_page = ram_page;
    if (global)
        return;
    if (c->fetch_count < FETCH_LOG)
        c->fetch_log[c->fetch_count] = (uint16_t)slot;
    if (c->fetch_count <= FETCH_LOG)
        c->fetch_count++;
}

void fetch_flush(struct context *c)
{
    for (unsigned n = 0; n < FETCH_SIZE; n++)
        fetch_clear(c, n);
    c->fetch_count = 0;
}

void fetch_flush_space(struct context *c)
{
    if (c->fetch_count <= FETCH_LOG) {
        for (unsigned n = 0; n < c->fetch_count; n++)
            if (!c->fetch_info[c->fetch_log[n]].global)
                fetch_clear(c, c->fetch_log[n]);
    } else {
        for (unsigned n = 0; n < FETCH_SIZE; n++)
            if (!c->fetch_info[n].global)
                fetch_clear(c, n);
    }
    c->fetch_count = 0;
}

void fetch_flush_range(struct context *c, uint64_t start, uint64_t size)
{
    for (unsigned n = 0; n < FETCH_SIZE; n++)
        if (c->fetch_info[n].page - start < size)
            fetch_clear(c, n);
}

// Every slot that the page may ever have had: the slots may have been forgotten since the entry was made.
void fetch_flush_page(struct context *c, uint64_t page)
{
    static const uint32_t modes[] = {MODE_USER, 0, MODE_AC};
    for (unsigned n = 0; n < G_N_ELEMENTS(modes) * FETCH_WAYS; n++) {
        unsigned slot = way_slot(page, modes[n / FETCH_WAYS], n % FETCH_WAYS);
        if (c->fetch_info[slot].page == page)
            fetch_clear(c, slot);
    }
}

void mode_set(struct context *c, uint32_t mode)
{
    bool user = mode & MODE_USER;
    uint32_t plain = mode & ~(uint32_t)MODE_AC;
    c->mode = mode;
    if (G_LIKELY(c->fetch_modes[user] == plain))
        return;
    c->fetch_modes[user] = plain;
    unsigned first = user ? FETCH_SIZE / 2 : 0;
    for (unsigned n = first; n < first + FETCH_SIZE / 2; n++)
        fetch_clear(c, n);
}
