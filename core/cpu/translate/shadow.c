// SPDX-License-Identifier: GPL-2.0-or-later
// Shadow address spaces: what the TLB knew of an address space stays known when CR3 moves on, and comes back with it.
//
// Each vCPU keeps, per CR3, a list of the pages that it used lately: guest page -> ram offset, rights, the leaf entry
// it came from, and the table entries above it. Loading CR3 must make every earlier write to the tables visible (SDM
// vol. 3, 5.10.4). So the list is *compared with the tables* when its space comes back: the entries above the leaves
// once per table, then one 8-byte compare per page; what is unchanged is put into the TLB straight away, what changed
// is forgotten and walked again when it is used. That gives exactly what a new walk of each page would give, whoever
// changed the tables (another vCPU, a device, this one), and for any reuse of a table's memory.
//
// Why no write tracking of table pages: until CR3 is loaded or INVLPG runs, a TLB may be stale, so a write to a table
// needs to be seen only then. Tracking would make each such write leave translated code (fork, exec and mmap write
// thousands of entries), and would need a handshake between all vCPUs before a table is trusted. A compare costs 2 ns
// a page. There are no locks here: everything belongs to the vCPU's own thread. PCIDs need nothing: a page comes back
// only if its tables say so, which is stricter than "keep", so INVPCID of another space has nothing to do.
//
// Global pages never leave the TLB by CR3. Changes of what a walk means (CR0, CR4, EFER, the physical map) forget all.
#include "core/cpu/translate/system.h"

#pragma GCC target("general-regs-only")

#define SPACES        64 // per vCPU, direct-mapped by CR3
#define SPACE_PAGES   254
#define SPACE_TABLES  32
#define SPACE_FETCHES 64
#define PTE_D         BIT(6)

// A table of leaves and the entries that lead to it.
struct space_table {
    uint64_t region; // address >> bits that the table translates
    const void *table;
    const void *upper[3];
    uint64_t upper_value[3];
    uint8_t uppers, shift;
    bool narrow;
};

struct space_page {
    uint64_t page, ram_page, leaf;
    uint8_t table; // index
    uint8_t kind;
    uint8_t use;   // 1: in the table of reads, 2: of writes
    bool writable; // but for write tracking
};

struct space_fetch {
    uint64_t page, ram_page, leaf;
    uint32_t mode, id;
    uint8_t table;
};

struct space {
    uint64_t key;        // CR3
    uint32_t generation; // of the context's; another one: empty
    uint32_t table_count, page_count, page_next, fetch_count, fetch_next;
    uint32_t visits, last_table;
    struct space_table tables[SPACE_TABLES];
    struct space_page pages[SPACE_PAGES];
    struct space_fetch fetches[SPACE_FETCHES];
};

void spaces_init(struct context *c)
{
    c->spaces = g_new0(struct space, SPACES);
    c->space_generation = 1;
}

void spaces_free(struct context *c)
{
    g_free(c->spaces);
    c->spaces = c->space = NULL;
}

void spaces_forget(struct context *c)
{
    c->space_generation++;
    c->space = NULL;
}

void spaces_forget_code(struct context *c)
{
    for (unsigned n = 0; n < SPACES; n++)
        c->spaces[n].fetch_count = c->spaces[n].fetch_next = 0;
}

static void space_empty(struct space *s)
{
    s->table_count = s->page_count = s->page_next = s->fetch_count = s->fetch_next = s->visits = s->last_table = 0;
}

// The space of the present CR3; *WARM: it was known.
static struct space *space_get(struct context *c, bool *warm)
{
    const struct vcpu *v = c->vcpu;
    bool pae = (v->cr4 & CR4_PAE) && !(v->efer & EFER_LMA);
    uint64_t key = v->cr3 & (pae ? MASK_BITS(31, 5) : MASK_BITS(51, 12));
    struct space *s = &c->spaces[(key >> 12 ^ key >> 5 ^ key >> 18) & (SPACES - 1)];
    *warm = s->key == key && s->generation == c->space_generation;
    if (!*warm) {
        space_empty(s);
        s->key = key;
        s->generation = c->space_generation;
        c->counters.space_news++;
    }
    return s;
}

// ---- Coming back ----------------------------------------------------------------------------------------------------

static uint64_t entry_load(const void *at, bool narrow)
{
    return trail_entry(at, 0, narrow);
}

static bool table_unchanged(const struct space_table *t)
{
    for (unsigned n = 0; n < t->uppers; n++)
        if (entry_load(t->upper[n], t->narrow) != t->upper_value[n])
            return false;
    return true;
}

static bool leaf_unchanged(const struct space_table *t, uint64_t page, uint64_t leaf, bool dirty_matters)
{
    uint64_t index = page >> t->shift & (t->narrow ? 1023 : 511);
    uint64_t changed = trail_entry(t->table, index, t->narrow) ^ leaf;
    return !(changed & ~(dirty_matters ? 0 : PTE_D));
}

static void page_install(struct context *c, const struct space_page *p, unsigned index)
{
    unsigned slot = p->page >> PAGE_SHIFT & (FAST_SIZE - 1);
    for (unsigned n = 0; n < 2; n++) {
        unsigned table = fast_table(p->kind, n);
        uint64_t present = c->tlb_ram[table][slot];
        if (!(p->use >> n & 1) || (present != UINT64_MAX && (present & TLB_GLOBAL)))
            continue;
        if (n && (!p->writable || ram_tracked(c->vcpu->set->host.ram, p->ram_page)))
            continue;
        tlb_set(c, table, p->page, p->ram_page, (index + 1) << TLB_NOTED);
        c->counters.shadow_hits++;
    }
    large_note(c, p->page, c->space->tables[p->table].shift, false);
}

static void space_return(struct context *c, struct space *s)
{
    bool good[SPACE_TABLES];
    for (unsigned n = 0; n < s->table_count; n++)
        good[n] = table_unchanged(&s->tables[n]);
    for (unsigned n = 0; n < s->page_count;) {
        struct space_page *p = &s->pages[n];
        if (good[p->table] && leaf_unchanged(&s->tables[p->table], p->page, p->leaf, p->writable)) {
            page_install(c, p, n++);
        } else {
            *p = s->pages[--s->page_count];
            c->counters.space_stale++;
        }
    }
    for (unsigned n = 0; n < s->fetch_count;) {
        struct space_fetch *f = &s->fetches[n];
        unsigned slot = fetch_slot(c->translator, f->page, f->mode);
        if (good[f->table] && leaf_unchanged(&s->tables[f->table], f->page, f->leaf, false)) {
            bool same_mode = (f->mode & ~(uint32_t)MODE_AC) == c->fetch_modes[(f->mode & MODE_USER) != 0];
            if (same_mode && !c->fetch_info[slot].global)
                fetch_set(c, slot, f->page, f->mode, f->id, f->ram_page, false);
            large_note(c, f->page, s->tables[f->table].shift, false);
            n++;
        } else {
            *f = s->fetches[--s->fetch_count];
            c->counters.space_stale++;
        }
    }
}

// Long lists start afresh now and then: what is not used any more shall not be brought back for ever.
#define FRESH_VISITS 32
#define FRESH_PAGES  96

void space_switch(struct context *c)
{
    bool warm;
    c->counters.space_switches++;
    tlb_flush_space(c);
    c->space = space_get(c, &warm);
    if (!warm)
        return;
    if (++c->space->visits % FRESH_VISITS == 0 && c->space->page_count > FRESH_PAGES)
        space_empty(c->space);
    else
        space_return(c, c->space);
}

// ---- Taking notes ---------------------------------------------------------------------------------------------------

static bool table_is(const struct space_table *t, uint64_t region, const struct trail *trail)
{
    if (t->region != region || t->shift != trail->shift || t->table != trail->table || t->uppers != trail->uppers)
        return false;
    for (unsigned n = 0; n < t->uppers; n++)
        if (t->upper[n] != trail->upper[n] || t->upper_value[n] != trail->upper_value[n])
            return false;
    return true;
}

// The index of TRAIL's table in the list. When the list is full everything starts afresh.
static unsigned table_note(struct space *s, uint64_t page, const struct trail *trail)
{
    uint64_t region = page >> (trail->shift + (trail->narrow ? 10 : 9));
    if (s->last_table < s->table_count && table_is(&s->tables[s->last_table], region, trail))
        return s->last_table;
    unsigned n = 0;
    while (n < s->table_count && !table_is(&s->tables[n], region, trail))
        n++;
    if (n == SPACE_TABLES) {
        space_empty(s);
        n = 0;
    }
    if (n == s->table_count) {
        struct space_table *t = &s->tables[s->table_count++];
        t->region = region;
        t->table = trail->table;
        t->uppers = (uint8_t)trail->uppers;
        t->shift = trail->shift;
        t->narrow = trail->narrow;
        for (unsigned k = 0; k < trail->uppers; k++) {
            t->upper[k] = trail->upper[k];
            t->upper_value[k] = trail->upper_value[k];
        }
    }
    s->last_table = n;
    return n;
}

static struct space *space_present(struct context *c)
{
    bool warm;
    if (!c->space)
        c->space = space_get(c, &warm);
    return c->space;
}

void space_note(struct context *c, unsigned kind, uint64_t page, unsigned use, const struct trail *trail)
{
    struct space *s = space_present(c);
    uint8_t table = (uint8_t)table_note(s, page, trail);
    unsigned slot = page >> PAGE_SHIFT & (FAST_SIZE - 1);
    uint64_t *ram[2] = {&c->tlb_ram[fast_table(kind, false)][slot], &c->tlb_ram[fast_table(kind, true)][slot]};
    struct space_page *p = NULL;
    for (unsigned k = 0; k < 2; k++) {
        unsigned n = *ram[k] >> TLB_NOTED & 255;
        if ((use >> k & 1) && n && n <= s->page_count && s->pages[n - 1].page == page && s->pages[n - 1].kind == kind)
            p = &s->pages[n - 1];
    }
    if (!p) {
        p = &s->pages[s->page_count < SPACE_PAGES ? s->page_count++ : s->page_next++ % SPACE_PAGES];
        p->use = 0;
    }
    uint64_t any = *ram[use & 1 ? 0 : 1];
    p->page = page;
    p->ram_page = any & PAGE_MASK;
    p->leaf = trail->leaf;
    p->table = table;
    p->kind = (uint8_t)kind;
    p->use |= use;
    p->writable = trail->dirty;
    for (unsigned k = 0; k < 2; k++)
        if (use >> k & 1)
            *ram[k] = (*ram[k] & (PAGE_MASK | (BIT(TLB_NOTED) - 1))) | (uint64_t)(p - s->pages + 1) << TLB_NOTED;
}

void space_note_fetch(struct context *c, unsigned slot, const struct trail *trail)
{
    struct space *s = space_present(c);
    const struct fetch_info *i = &c->fetch_info[slot];
    uint8_t table = (uint8_t)table_note(s, i->page, trail);
    unsigned n = s->fetch_count < SPACE_FETCHES ? s->fetch_count++ : s->fetch_next++ % SPACE_FETCHES;
    s->fetches[n] = (struct space_fetch){.page = i->page,
                                         .ram_page = i->ram_page,
                                         .leaf = trail->leaf,
                                         .mode = i->mode,
                                         .id = c->fetch[slot],
                                         .table = table};
}
