// SPDX-License-Identifier: GPL-2.0-or-later
// The inline TLB's upkeep: filling, and taking away what guests invalidate. Built without vector registers.
#include "core/cpu/translate/system.h"

#pragma GCC target("general-regs-only")

static void entry_clear(struct context *c, unsigned table, unsigned slot)
{
    c->tlb[table][slot].tag = invalid_tag(slot);
    c->tlb_ram[table][slot] = UINT64_MAX;
}

static void table_flush(struct context *c, unsigned table, bool global)
{
    if (!global && c->fill_count[table] <= FILL_LOG) {
        for (unsigned n = 0; n < c->fill_count[table]; n++) {
            unsigned slot = c->fill_log[table][n];
            if (!(c->tlb_ram[table][slot] & TLB_GLOBAL)) // an empty one has all flags
                entry_clear(c, table, slot);
        }
    } else {
        for (unsigned slot = 0; slot < FAST_SIZE; slot++)
            if (global || !(c->tlb_ram[table][slot] & TLB_GLOBAL))
                entry_clear(c, table, slot);
    }
    c->fill_count[table] = 0;
}

// ---- Large pages ----------------------------------------------------------------------------------------------------
//
// INVLPG takes away every piece of a large page, and must not search for pieces where there are none: a slot names the
// one large page of its number that was met, or says that there were several.

#define LARGE_SEVERAL UINT32_MAX

static uint32_t large_key(uint64_t address, unsigned shift)
{
    return (uint32_t)(address << 16 >> (16 + shift)) << 2 | (shift == 30 ? 3 : shift == 22 ? 2 : 1);
}

static unsigned large_slot(uint32_t key)
{
    return (key >> 2 ^ key >> 12 ^ key >> 22) & (LARGE_SLOTS - 1);
}

void large_note(struct context *c, uint64_t page, unsigned shift, bool global)
{
    if (shift <= 12)
        return;
    uint32_t key = large_key(page, shift), *slot = &c->large[!global][large_slot(key)];
    *slot = *slot == 0 || *slot == key ? key : LARGE_SEVERAL;
    c->large_any[!global] = true;
}

static void large_forget(struct context *c, bool global)
{
    if (!c->large_any[!global])
        return;
    for (unsigned n = 0; n < LARGE_SLOTS; n++)
        c->large[!global][n] = 0;
    c->large_any[!global] = false;
}

static void flush_pieces(struct context *c, uint64_t address, unsigned shift)
{
    uint64_t size = BIT(shift), base = address & ~(size - 1);
    unsigned first = base >> PAGE_SHIFT & (FAST_SIZE - 1), count = (unsigned)MIN(size >> PAGE_SHIFT, FAST_SIZE);
    for (unsigned table = 0; table < FAST_TABLES; table++)
        for (unsigned slot = first; slot < first + count; slot++)
            if (c->tlb[table][slot].tag - base < size)
                entry_clear(c, table, slot);
    fetch_flush_range(c, base, size);
    c->counters.large_searches++;
}

static void flush_large(struct context *c, uint64_t address)
{
    static const uint8_t shifts[] = {21, 22, 30};
    for (unsigned n = 0; n < G_N_ELEMENTS(shifts); n++) {
        uint32_t key = large_key(address, shifts[n]), slot = large_slot(key);
        uint32_t global = c->large[0][slot], other = c->large[1][slot];
        if (global == key || global == LARGE_SEVERAL || other == key || other == LARGE_SEVERAL)
            flush_pieces(c, address, shifts[n]);
    }
}

void tlb_flush(struct context *c)
{
    for (unsigned table = 0; table < FAST_TABLES; table++)
        table_flush(c, table, true);
    fetch_flush(c);
    near_mappings_drop(c);
    large_forget(c, true);
    large_forget(c, false);
    spaces_forget(c);
    c->counters.flushes++;
}

void tlb_flush_space(struct context *c)
{
    for (unsigned table = 0; table < FAST_TABLES; table++)
        table_flush(c, table, false);
    fetch_flush_space(c);
    large_forget(c, false);
}

void tlb_flush_page(struct context *c, uint64_t address)
{
    unsigned slot = address >> PAGE_SHIFT & (FAST_SIZE - 1);
    uint64_t page = address & PAGE_MASK;
    for (unsigned table = 0; table < FAST_TABLES; table++)
        entry_clear(c, table, slot);
    fetch_flush_page(c, page);
    if (c->large_any[0] || c->large_any[1])
        flush_large(c, address);
}

// ---- Which entries let a page of RAM be written ---------------------------------------------------------------------

static unsigned writers_bucket(uint64_t ram_page)
{
    return (unsigned)((ram_page >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> 52) & (WRITERS - 1);
}

static uint64_t *writer_ram(struct context *c, unsigned writer)
{
    return &c->tlb_ram[fast_table((writer - 1) / FAST_SIZE, true)][(writer - 1) % FAST_SIZE];
}

// What is not there any more makes room.
static void writers_tidy(struct context *c, unsigned bucket)
{
    for (unsigned n = 0; n < WRITERS_WAYS; n++) {
        unsigned writer = c->writers[bucket][n];
        uint64_t ram = writer ? *writer_ram(c, writer) : UINT64_MAX;
        if (ram == UINT64_MAX || writers_bucket(ram & PAGE_MASK) != bucket)
            c->writers[bucket][n] = 0;
    }
}

static bool writer_put(struct context *c, unsigned bucket, unsigned writer)
{
    uint16_t *known = c->writers[bucket], *room = NULL;
    for (unsigned n = WRITERS_WAYS; n-- > 0;) {
        if (known[n] == writer)
            return true;
        if (!known[n])
            room = &known[n];
    }
    if (room)
        *room = (uint16_t)writer;
    return room != NULL;
}

static void writer_note(struct context *c, unsigned table, unsigned slot, uint64_t ram_page)
{
    unsigned bucket = writers_bucket(ram_page), writer = 1 + table / 2 * FAST_SIZE + slot;
    if (c->writers[bucket][0] == WRITERS_MANY || writer_put(c, bucket, writer))
        return;
    writers_tidy(c, bucket);
    if (!writer_put(c, bucket, writer))
        c->writers[bucket][0] = WRITERS_MANY;
}

// All entries are looked at; those of the bucket's other pages are noted again.
static void revoke_by_scan(struct context *c, unsigned bucket, uint64_t ram_page)
{
    for (unsigned n = 0; n < WRITERS_WAYS; n++)
        c->writers[bucket][n] = 0;
    for (unsigned kind = 0; kind < FAST_KINDS; kind++) {
        unsigned table = fast_table(kind, true);
        for (unsigned slot = 0; slot < FAST_SIZE; slot++) {
            uint64_t ram = c->tlb_ram[table][slot];
            if ((ram & PAGE_MASK) == ram_page)
                entry_clear(c, table, slot);
            else if (ram != UINT64_MAX && writers_bucket(ram & PAGE_MASK) == bucket)
                writer_note(c, table, slot, ram & PAGE_MASK);
        }
    }
}

void tlb_revoke(struct context *c, uint64_t ram_offset)
{
    uint64_t ram_page = ram_offset & PAGE_MASK;
    unsigned bucket = writers_bucket(ram_page);
    c->counters.revocations++;
    if (c->writers[bucket][0] == WRITERS_MANY) {
        revoke_by_scan(c, bucket, ram_page);
        return;
    }
    for (unsigned n = 0; n < WRITERS_WAYS; n++) {
        unsigned writer = c->writers[bucket][n];
        if (!writer || (*writer_ram(c, writer) & PAGE_MASK) != ram_page)
            continue;
        entry_clear(c, fast_table((writer - 1) / FAST_SIZE, true), (writer - 1) % FAST_SIZE);
        c->writers[bucket][n] = 0;
    }
}

void tlb_set(struct context *c, unsigned table, uint64_t page, uint64_t ram_page, unsigned flags)
{
    unsigned slot = page >> PAGE_SHIFT & (FAST_SIZE - 1);
    struct fast_entry *e = &c->tlb[table][slot];
    if (!(flags & TLB_GLOBAL)) {
        if (c->fill_count[table] < FILL_LOG)
            c->fill_log[table][c->fill_count[table]] = (uint16_t)slot;
        if (c->fill_count[table] <= FILL_LOG)
            c->fill_count[table]++;
    }
    e->tag = page;
    e->host = (uint64_t)(uintptr_t)c->vcpu->set->host.ram->host + ram_page;
    c->tlb_ram[table][slot] = ram_page | flags;
    if (table & 1)
        writer_note(c, table, slot, ram_page);
}

void tlb_fill(struct context *c, unsigned kind, uint64_t page, uint64_t ram_page, bool write, bool writable,
              const struct trail *trail)
{
    unsigned slot = page >> PAGE_SHIFT & (FAST_SIZE - 1), flags = trail->global ? TLB_GLOBAL : 0, use = 0;
    large_note(c, page, trail->shift, trail->global);
    for (unsigned n = 0; n < 2; n++) {
        unsigned table = fast_table(kind, n);
        uint64_t tag = c->tlb[table][slot].tag, old = c->tlb_ram[table][slot];
        bool same = tag == page && (old & PAGE_MASK) == ram_page;
        if (n && !writable) {
            if (tag == page && !same)
                entry_clear(c, table, slot);
        } else if (n == write || tag == page || tag == invalid_tag(slot)) {
            // It keeps its place in the space's list.
            unsigned noted = same && !(old & TLB_GLOBAL) ? old & ~PAGE_MASK & ~(BIT(TLB_NOTED) - 1) : 0;
            tlb_set(c, table, page, ram_page, flags | noted);
            use |= 1u << n;
        }
    }
    if (trail->shift && !trail->global && !trail->unknown)
        space_note(c, kind, page, use, trail);
    c->counters.fills++;
}
