// SPDX-License-Identifier: GPL-2.0-or-later
// Live page tables of 32-bit code against a plain walk: two levels with and without 4 MiB pages, and PAE with NX and
// 2 MiB pages. The guest edits its own tables at random, invalidates as it must (SDM vol. 3, 4.10.4), and reads,
// writes and fetches in both rings; tables are also mapped, and mapped as tables of the other level. CLOCHE_PAGING32=n
// rounds of each kind, CLOCHE_SEED.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/random-code.h"
#include "tests/unit/guest.h"

enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100 };
#define NX BIT(63)

#define TSS_AT   0x600u
#define IDT_AT   0x2000u
#define HANDLERS 0x3000u // 16 bytes each: hlt
#define SNIPPETS 0x10000u
#define STACK    0x20000u
#define LOW_PD   0x30000u // PAE: of the first GiB
#define LOW_PT   0x31000u // two levels without large pages: of the first 4 MiB
#define ROOT     0x100000u
#define POOL     0x200000u
#define TABLES   10
#define DATA     0x800000u // every word is its own address; RET at 0xff8 of each page
#define REGION   0x40000000u
#define RET_AT   0xff8u

enum snippet { EDIT, EDIT_PAE, FLUSH, LOAD_CR3, INVLPG, LOAD_CR0, READ, WRITE, FETCH, SNIPPETS_COUNT };
static const uint8_t snippets[SNIPPETS_COUNT][32] = {
    [EDIT] = {0x89, 0x03, 0xcc},                                                             // mov [ebx], eax
    [EDIT_PAE] = {0xc7, 0x03, 0, 0, 0, 0, 0x89, 0x53, 4, 0x89, 0x03, 0xcc},                  // not present meanwhile
    [FLUSH] = {0x0f, 0x20, 0xe0, 0x34, 0x80, 0x0f, 0x22, 0xe0, 0x34, 0x80, 0x0f, 0x22, 0xe0, // CR4.PGE there and back
               0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0xcc},
    [LOAD_CR3] = {0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0xcc},
    [INVLPG] = {0x0f, 0x01, 0x3e, 0xcc}, // [esi]
    [LOAD_CR0] = {0x0f, 0x22, 0xc0, 0xcc},
    [READ] = {0x8b, 0x07, 0xcc},  // mov eax, [edi]
    [WRITE] = {0x89, 0x07, 0xcc}, // mov [edi], eax
    [FETCH] = {0xff, 0xd7, 0xcc}, // call edi
};

static const struct kind {
    const char *name;
    bool pae, large;
} kinds[] = {{"two levels", false, false}, {"two levels with 4 MiB pages", false, true}, {"PAE", true, true}};
static const struct kind *kind;
static struct guest *g;
static struct vcpu *v;
static uint64_t checks, faults;
static uint64_t pdptes[4]; // PAE: as they were when CR3 or CR4.PGE was loaded last (SDM vol. 3, 5.4.1)

// ---- Tables ---------------------------------------------------------------------------------------------------------

static unsigned entry_size(void)
{
    return kind->pae ? 8 : 4;
}

static uint64_t entry_get(uint32_t at)
{
    uint64_t e = 0;
    memcpy(&e, guest_memory(g, at), entry_size());
    return e;
}

static void entry_set(uint32_t at, uint64_t e)
{
    memcpy(guest_memory(g, at), &e, entry_size());
}

struct walk {
    bool ok;
    uint32_t error;
    uint64_t physical;
    uint32_t entries[2];
    unsigned levels;
};

static struct walk plain_walk(uint32_t address, enum snippet what, bool user)
{
    struct walk w = {.levels = 0};
    unsigned shift = kind->pae ? 21 : 22, bits = kind->pae ? 9 : 10;
    uint64_t frame = kind->pae ? 0x00ffffffff000ull : 0xfffff000ull, table = ROOT, e;
    w.error = (what == WRITE ? 2 : 0) | (user ? 4 : 0) | (what == FETCH && kind->pae ? 16 : 0);
    if (kind->pae) {
        e = pdptes[address >> 30];
        if (!(e & P))
            return w;
        table = e & frame;
    }
    bool writable = true, users = true, runs = true;
    for (;; shift = 12) {
        uint32_t at = (uint32_t)table + (address >> shift & ((1u << bits) - 1)) * entry_size();
        w.entries[w.levels++] = at;
        e = entry_get(at);
        if (!(e & P))
            return w;
        bool large = shift > 12 && kind->large && (e & PS);
        uint64_t low = large ? (kind->pae ? 0x1fe000 : 0x200000) : 0;
        if ((e & low) || (kind->pae && (e >> 52 & 0x7ff))) {
            w.error |= 9;
            return w;
        }
        writable &= (e & W) != 0;
        users &= (e & U) != 0;
        runs &= !(e & NX);
        if (shift == 12 || large)
            break;
        table = e & frame;
    }
    uint64_t mask = (1ull << shift) - 1;
    w.error |= 1;
    w.physical = (e & frame & ~mask) | (address & mask);
    w.ok = (!user || users) && (what != WRITE || writable || (!user && !(v->cr0 & CR0_WP))) && (what != FETCH || runs);
    return w;
}

static uint64_t random_entry(uint32_t at)
{
    bool upper = at < POOL || (kind->pae && at < POOL + 3 * PAGE_SIZE);
    uint64_t e = P | (pick(8) ? W : 0) | (pick(8) ? U : 0) | (pick(2) ? A : 0) | (pick(2) ? D : 0) | (pick(8) ? 0 : G);
    if (pick(12) == 0)
        return (uint64_t)pick(1u << 20) << 1;
    if (kind->pae && pick(10) == 0)
        e |= NX;
    if (pick(100) == 0)
        e |= kind->pae ? BIT(55) : (upper ? PS | 0x200000 : 0); // reserved
    if (pick(12) == 0)                                          // any table as anything
        return e | (POOL + pick(TABLES) * PAGE_SIZE);
    if (!upper)
        return e | (DATA + pick(2048) * PAGE_SIZE);
    if (kind->large && pick(3) == 0)
        return e | PS | (DATA + (kind->pae ? pick(4) * 2 * MiB : pick(2) * 4 * MiB));
    return e | (POOL + (3 + pick(TABLES - 3)) * PAGE_SIZE);
}

// An entry that pages of the region may go through.
static uint32_t random_entry_at(void)
{
    unsigned index = pick(4) ? pick(4) : 4 + pick(3);
    if (!kind->pae && pick(3) == 0)
        return ROOT + (REGION >> 22) * 4 + 4 * pick(4);
    return POOL + pick(TABLES) * PAGE_SIZE + index * entry_size();
}

static uint32_t random_page(void)
{
    uint32_t page = REGION + pick(4) * (kind->pae ? 2 * MiB : 4 * MiB) + pick(5) * PAGE_SIZE;
    return kind->pae && pick(2) ? page + GiB : page;
}

// ---- The guest ------------------------------------------------------------------------------------------------------

// Runs a snippet in a ring; returns the vector that ended it (3: all went well).
static unsigned run(enum snippet what, bool user)
{
    static const uint16_t selectors[2] = {0x10, 0x23}, data[2] = {0xc093, 0xc0f3};
    for (unsigned s = 0; s < SEGMENT_COUNT; s++)
        v->seg[s] = (struct segment){.selector = selectors[user], .attr = data[user], .limit = 0xffffffff};
    v->seg[CS] = (struct segment){.selector = user ? 0x33 : 0x18, .attr = user ? 0xc0fb : 0xc09b, .limit = 0xffffffff};
    v->cpl = user ? 3 : 0;
    v->rip = SNIPPETS + 32 * what;
    v->gpr[RSP] = STACK;
    v->rflags = FLAG_1;
    v->activity = VCPU_RUNNING;
    while (v->engine->run(v) == ENGINE_EXIT_ATTENTION) {
    }
    return (unsigned)(v->rip - HANDLERS) / 16;
}

static void load_pdptes(void)
{
    memcpy(pdptes, guest_memory(g, ROOT), sizeof pdptes);
}

static void must_run(enum snippet what)
{
    if (run(what, false) != 3) {
        fprintf(stderr, "%s: snippet %u ended at %lx, cr2 %lx\n", kind->name, what, (long)v->rip, (long)v->cr2);
        exit(1);
    }
    if (what == FLUSH || what == LOAD_CR3)
        load_pdptes();
}

static void edit(uint32_t at, uint64_t e)
{
    v->gpr[RBX] = at;
    v->gpr[RAX] = (uint32_t)e;
    v->gpr[RDX] = e >> 32;
    must_run(kind->pae ? EDIT_PAE : EDIT);
}

static bool wrong(const char *what, uint32_t address, const struct walk *w, uint64_t got)
{
    fprintf(stderr, "%s: %s at %x, physical %lx, error %x, got %lx, cr2 %lx, entries %lx %lx\n", kind->name, what,
            address, (long)w->physical, w->error, (long)got, (long)v->cr2, (long)entry_get(w->entries[0]),
            (long)(w->levels > 1 ? entry_get(w->entries[1]) : 0));
    return false;
}

static bool check(uint32_t page, enum snippet what, bool user)
{
    uint32_t address = page | (what == FETCH ? RET_AT : pick(0x3fc) * 4), value = (uint32_t)random_next();
    struct walk w = plain_walk(address, what, user);
    bool data = w.physical >= DATA && w.physical < DATA + 8 * MiB;
    if (w.ok && what != READ && !data)
        return true;
    v->gpr[RDI] = address;
    v->gpr[RAX] = value;
    unsigned vector = run(what, user);
    checks++;
    if (!w.ok) {
        uint32_t error;
        memcpy(&error, guest_memory(g, v->gpr[RSP]), 4);
        faults++;
        return (vector == EXCEPTION_PF && error == w.error && v->cr2 == address) ||
               wrong("fault", address, &w, vector << 16 | error);
    }
    if (vector != 3)
        return wrong("exception", address, &w, vector);
    uint32_t is;
    memcpy(&is, guest_memory(g, w.physical), 4);
    if (what == READ && ((v->gpr[RAX] ^ is) & ~(data ? 0u : A | D)))
        return wrong("read", address, &w, v->gpr[RAX]);
    if (what == WRITE && is != value)
        return wrong("write", address, &w, is);
    for (unsigned n = 0; n < w.levels; n++)
        if (!(entry_get(w.entries[n]) & A))
            return wrong("A is not set", address, &w, n);
    return what != WRITE || (entry_get(w.entries[w.levels - 1]) & D) || wrong("D is not set", address, &w, 0);
}

// An edit of the last entry of a page's walk, made known by INVLPG alone.
static bool exact_round(void)
{
    uint32_t page = random_page();
    struct walk w = plain_walk(page, READ, false);
    if (!w.levels || (w.levels == 2 && w.entries[0] == w.entries[1]))
        return true;
    uint32_t at = w.entries[w.levels - 1];
    edit(at, random_entry(at));
    v->gpr[RSI] = page | pick(4096);
    must_run(INVLPG);
    w = plain_walk(page, READ, false);
    if (w.entries[w.levels - 1] != at || (w.levels == 2 && w.entries[0] == at))
        return true;
    return check(page, pick(3) ? READ : WRITE, pick(2));
}

static bool check_some(unsigned count)
{
    while (count--) {
        unsigned what = pick(8);
        if (!check(random_page(), what < 5 ? READ : what < 7 ? WRITE : FETCH, pick(2)))
            return false;
    }
    return true;
}

// Page-directory-pointer entries count from the next load of CR3 on; reserved bits in one fault there, and the old ones
// stay.
static bool pointers_round(void)
{
    uint32_t at = ROOT + 8 * (1 + pick(2));
    uint64_t good = (POOL + pick(2) * PAGE_SIZE) | (pick(6) ? P : 0);
    static const uint64_t reserved[] = {W, U, A, D, PS, G, BIT(50), NX}; // all that are not PWT, PCD or ignored
    must_run(FLUSH);
    if (pick(3) == 0) {
        edit(at, good | P | reserved[pick(G_N_ELEMENTS(reserved))]);
        if (!check_some(2))
            return false;
        unsigned vector = run(LOAD_CR3, false);
        if (vector != EXCEPTION_GP) {
            fprintf(stderr, "PAE: CR3 with the pointer %lx: vector %u\n", (long)entry_get(at), vector);
            return false;
        }
        if (!check_some(2))
            return false;
    }
    edit(at, good);
    if (!check_some(2))
        return false;
    must_run(FLUSH);
    return check_some(4);
}

static bool random_round(void)
{
    if (kind->pae && pick(8) == 0)
        return pointers_round();
    if (pick(3) == 0)
        return exact_round();
    for (unsigned n = 1 + pick(4); n; n--) {
        uint32_t at = random_entry_at();
        edit(at, random_entry(at));
    }
    if (pick(8) == 0) {
        v->gpr[RAX] = v->cr0 ^ CR0_WP;
        must_run(LOAD_CR0);
    }
    must_run(FLUSH);
    for (unsigned n = 0; n < 6; n++) {
        unsigned what = pick(8);
        if (!check(random_page(), what < 5 ? READ : what < 7 ? WRITE : FETCH, pick(2)))
            return false;
        if (pick(8) == 0)
            must_run(LOAD_CR3);
    }
    return true;
}

static void build(void)
{
    guest_start_protected(g, SNIPPETS);
    for (unsigned n = 0; n < 32; n++) {
        uint32_t gate[2] = {0x180000 | (HANDLERS + 16 * n), n == 3 ? 0xee00 : 0x8e00};
        guest_load(g, IDT_AT + 8 * n, gate, 8);
        guest_load(g, HANDLERS + 16 * n, (const uint8_t[]){0xf4}, 1);
    }
    guest_load(g, SNIPPETS, snippets, sizeof snippets);
    uint32_t tss[3] = {0, STACK, 0x10};
    guest_load(g, TSS_AT, tss, sizeof tss);
    v->idtr = (struct table_register){.base = IDT_AT, .limit = 32 * 8 - 1};
    v->tr = (struct segment){.selector = 0x38, .attr = 0x8b, .base = TSS_AT, .limit = 0x67};
    uint32_t *words = guest_memory(g, DATA);
    for (unsigned n = 0; n < 2 * MiB; n++)
        words[n] = (4 * n & 4095) == RET_AT ? 0xc390 : DATA + 4 * n;
    memset(guest_memory(g, ROOT), 0, PAGE_SIZE);
    memset(guest_memory(g, POOL), 0, TABLES * PAGE_SIZE);
    for (unsigned n = 0; n < 1024; n++)
        entry_set(LOW_PT + n * entry_size(), n < 512 || !kind->pae ? n * PAGE_SIZE | 7 : 0);
    if (kind->pae) {
        for (unsigned n = 0; n < 2; n++)
            entry_set(LOW_PD + 8 * n, n * 2 * MiB | PS | 7);
        for (unsigned n = 0; n < 3; n++) // the region, twice by the third
            entry_set(ROOT + 8 * n, (n ? POOL + (n - 1) * PAGE_SIZE : LOW_PD) | P);
    } else {
        entry_set(ROOT, kind->large ? PS | 7 : LOW_PT | 7);
    }
    v->cr3 = ROOT;
    v->cr4 = (kind->pae ? CR4_PAE : 0) | (kind->large && !kind->pae ? CR4_PSE : 0) | CR4_PGE;
    v->efer = kind->pae ? EFER_NXE : 0;
    v->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP;
    if (kind->pae)
        for (unsigned n = 0; n < 4; n++)
            v->pdpte[n] = pdptes[n] = entry_get(ROOT + 8 * n);
    vcpu_flush_tlb(v);
}

int main(void)
{
    static const char *const engine_names[] = {
        "interpret",
#ifdef __x86_64__
        "translate",
#endif
    };
    const char *count_text = g_getenv("CLOCHE_PAGING32"), *seed_text = g_getenv("CLOCHE_SEED");
    uint64_t count = count_text ? strtoull(count_text, NULL, 0) : 10000,
             seed = seed_text ? strtoull(seed_text, NULL, 0) : 1;
    for (unsigned e = 0; e < G_N_ELEMENTS(engine_names); e++)
        for (unsigned n = 0; n < G_N_ELEMENTS(kinds); n++) {
            kind = &kinds[n];
            g = guest_new(engine_names[e], 1);
            v = g->set->vcpu[0];
            checks = faults = 0;
            random_seed(seed * 0x9e3779b97f4a7c15ull + 1);
            build();
            for (uint64_t k = 0; k < count; k++)
                if (!random_round()) {
                    fprintf(stderr, "%s, seed %lu, round %lu\n", engine_names[e], (long)seed, (long)k);
                    return 1;
                }
            printf("%s, %s: %lu accesses right, %lu of them faults\n", engine_names[e], kind->name, (long)checks,
                   (long)faults);
            guest_free(g);
            if (faults * 10 < checks || faults * 10 > checks * 9)
                return 1; // does not test
        }
    return 0;
}
