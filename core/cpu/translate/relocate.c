// SPDX-License-Identifier: GPL-2.0-or-later
// Copies of translations: the same bytes of a page, mapped at another address (another process, another layout of its
// address space), take the earlier translation with its guest addresses moved, at a tenth of the price of a new one.
// Each block carries a list of what depends on where it lies and on its guest address. Where its links led is soon
// needed too: that is copied with it, and linked.
#include "core/cpu/translate/compile.h"

#define DONOR_BITS 18
#define DONOR_WAYS 4
#define COPIES     32 // blocks that are copied together
#define FOLLOWED   (4 * COPIES)

// A link that was made in the donor of a copy.
struct follow {
    const struct link_site *site; // of the copy, executable
    uint32_t mode;
    bool here; // the target lies in the same page
    uint64_t ram_page;
};

struct follows {
    struct follow links[FOLLOWED];
    unsigned count;
};

// The first of DONOR_WAYS slots.
static unsigned donor_slot(uint64_t address, uint32_t mode, uint64_t ram_page)
{
    uint64_t key = (ram_page | (address & ~PAGE_MASK)) ^ (uint64_t)mode << 48;
    return (unsigned)(key * 0x9e3779b97f4a7c15ull >> (64 - DONOR_BITS)) & ~(DONOR_WAYS - 1u);
}

void reloc_note(struct emitter *e, unsigned kind)
{
    if (!e->relocs)
        return;
    if (e->reloc_count == RELOCS_MAX) {
        e->fixed = true;
        return;
    }
    e->relocs[e->reloc_count++] = (struct reloc){.at = (uint32_t)(e->at - e->start), .kind = (uint8_t)kind};
}

void reloc_copy(struct emitter *e, const uint8_t *from, const uint8_t *to)
{
    unsigned first = (unsigned)(from - e->start), end = (unsigned)(to - e->start), count = e->reloc_count;
    for (unsigned n = 0; n < count; n++)
        if (e->relocs[n].at >= first && e->relocs[n].at < end) {
            g_assert(e->reloc_count < RELOCS_MAX);
            e->relocs[e->reloc_count++] =
                (struct reloc){.at = (uint32_t)(e->at - e->start) + e->relocs[n].at - first, .kind = e->relocs[n].kind};
        }
}

void emit_guest_address(struct emitter *e, unsigned reg, uint64_t address)
{
    if (address > 0xffffffffu && (uint64_t)(int64_t)(int32_t)address != address) {
        emit8(e, 0x48 | (reg >> 3 & 1));
        emit8(e, 0xb8 | (reg & 7));
        reloc_note(e, RELOC_GUEST);
        emit64(e, address);
        return;
    }
    e->fixed = true; // a shorter form: another address may not fit
    emit_mov_imm(e, reg, address);
}

void donor_add(struct translator *t, const struct block *b)
{
    if (b->fixed || b->checks || b->second_page != NO_PAGE)
        return;
    if (!t->donors)
        t->donors = g_new0(uint32_t, 1u << DONOR_BITS);
    uint32_t index = (uint32_t)(b - t->blocks) + 1;
    uint32_t *slot = &t->donors[donor_slot(b->address, b->mode, b->ram_page)];
    for (unsigned n = 0; n < DONOR_WAYS; n++)
        if (!slot[n] || t->blocks[slot[n] - 1].dead) {
            slot[n] = index;
            return;
        }
    slot[index % DONOR_WAYS] = index;
}

void donors_forget(struct translator *t)
{
    if (t->donors)
        memset(t->donors, 0, sizeof *t->donors << DONOR_BITS);
}

static const struct block *donor_find(const struct translator *t, uint64_t address, uint32_t mode, uint64_t ram_page)
{
    const uint32_t *slot = t->donors ? &t->donors[donor_slot(address, mode, ram_page)] : NULL;
    for (unsigned n = 0; slot && n < DONOR_WAYS && slot[n]; n++) {
        const struct block *b = &t->blocks[slot[n] - 1];
        if (!b->dead && b->mode == mode && b->ram_page == ram_page && ((b->address ^ address) & ~PAGE_MASK) == 0 &&
            (b->address >> 47) == (address >> 47) && address > 0xffffffffu)
            return b;
    }
    return NULL;
}

struct move {
    int32_t shift;  // of the copy from its donor
    uint64_t delta; // of the guest addresses
    struct follows *follows;
};

static uint32_t moved(uint32_t address, int32_t shift)
{
    return address ? address + (uint32_t)shift : 0;
}

// The link that SITE, of block B, has in the donor is one to follow. (The kernel's may lead to another mode: STAC.)
static void follow_note(const struct block *b, const struct link_site *site, const uint8_t *field, struct follows *f)
{
    int32_t rel;
    memcpy(&rel, field, 4);
    if (f->count == FOLLOWED || site->noshare || !(b->mode & MODE_USER) ||
        rel == (int32_t)(site->stub - (site->field + 4)))
        return;
    f->links[f->count++] = (struct follow){.mode = b->mode & ~(uint32_t)MODE_NOSHARE,
                                           .here = ((site->target ^ b->address) & PAGE_MASK) == 0,
                                           .ram_page = b->ram_page};
}

static void move_link(struct translator *t, struct block *b, struct link_site *site, const struct move *m)
{
    uint32_t was = site->check;
    unsigned before = m->follows->count;
    site->target += m->delta;
    if (site->stub) { // a made link is undone
        uint8_t *field = writable(t, (const uint8_t *)(uintptr_t)site->field) + m->shift;
        follow_note(b, site, field, m->follows);
        int32_t rel = (int32_t)(site->stub - (site->field + 4));
        memcpy(field, &rel, 4);
    }
    site->field = moved(site->field, m->shift);
    site->check = moved(site->check, m->shift);
    site->stub = moved(site->stub, m->shift);
    site->block = (uint32_t)(b - t->blocks);
    if (m->follows->count > before)
        m->follows->links[before].site = (const struct link_site *)((const uint8_t *)site - t->code_write + t->code);
    if (was) {
        struct emitter e = {.at = writable(t, (const uint8_t *)(uintptr_t)site->check)};
        e.end = e.at + 8;
        emit_nop(&e, 8);
    }
}

static void apply(struct context *c, struct block *b, const struct reloc *r, uint8_t *start, const struct move *m)
{
    struct translator *t = c->translator;
    uint8_t *at = start + r->at;
    uint32_t index = (uint32_t)(b - t->blocks);
    switch (r->kind) {
    case RELOC_OUT: {
        int32_t rel;
        memcpy(&rel, at, 4);
        rel -= m->shift;
        memcpy(at, &rel, 4);
        break;
    }
    case RELOC_GUEST: {
        uint64_t address;
        memcpy(&address, at, 8);
        address += m->delta;
        memcpy(at, &address, 8);
        break;
    }
    case RELOC_SLOW: {
        struct slow_site *s = (struct slow_site *)at;
        s->resume += (uint32_t)m->shift;
        s->copy += (uint32_t)m->shift;
        if (s->after)
            s->after += (uint32_t)m->shift;
        s->block = index;
        break;
    }
    case RELOC_LINK:
        move_link(t, b, (struct link_site *)at, m);
        break;
    case RELOC_SYSTEM: {
        struct system_site *s = (struct system_site *)at;
        s->after += (uint32_t)m->shift;
        s->rip += m->delta;
        s->next += m->delta;
        break;
    }
    case RELOC_TLB: { // the displacement of an entry: the one of another page of the same table
        uint32_t tables = (uint32_t)offsetof(struct context, tlb), size = sizeof(struct fast_entry) * FAST_SIZE, disp;
        memcpy(&disp, at, 4);
        uint32_t in_table = (disp - tables) & (size - 1);
        disp += ((in_table + (uint32_t)(m->delta >> PAGE_SHIFT) * (uint32_t)sizeof(struct fast_entry)) & (size - 1)) -
                in_table;
        memcpy(at, &disp, 4);
        break;
    }
    case RELOC_FETCH: {
        int32_t disp = (int32_t)(offsetof(struct context, fetch) + 4 * fetch_slot(t, b->address & PAGE_MASK, b->mode));
        memcpy(at, &disp, 4);
        memcpy(at + 4, &b->page_id, 4);
        break;
    }
    }
}

static struct block *copy_one(struct context *c, uint64_t address, uint32_t mode, uint64_t ram_page,
                              struct follows *follows)
{
    struct translator *t = c->translator;
    const struct block *donor = donor_find(t, address, mode, ram_page);
    if (!donor)
        return NULL;
    size_t size = (size_t)((uint8_t *)donor->boundary - writable(t, donor->indirect)); // the tables serve both
    struct block *b = block_new(t, address, mode, ram_page);
    if (!b || t->limit - t->used < size)
        return NULL;
    uint8_t *start = t->code_write + t->used;
    memcpy(start, writable(t, donor->indirect), size);
    ptrdiff_t shift = t->code + t->used - donor->indirect;
    b->page_id = code_page_id(t, address & PAGE_MASK, mode, ram_page);
    b->indirect = donor->indirect + shift;
    b->end = b->indirect + size;
    b->host = donor->host + shift;
    b->stubs = donor->stubs + shift;
    b->leave = donor->leave + shift;
    b->length = donor->length;
    b->boundaries = donor->boundaries;
    b->boundary = donor->boundary;
    b->shares = donor->shares;
    struct move move = {.shift = (int32_t)shift, .delta = address - donor->address, .follows = follows};
    for (unsigned n = 0; n < donor->relocs; n++)
        apply(c, b, &donor->reloc[n], start, &move);
    t->used = ALIGN_UP((size_t)(b->end - t->code), (size_t)16);
    c->counters.relocations++;
    block_publish(t, b);
    return b;
}

// Where the page of a link's target lies, if that is known. A link checks the mapping when it is taken.
static bool target_page(const struct context *c, const struct follow *f, uint64_t *ram_page)
{
    struct translator *t = c->translator;
    uint64_t page = f->site->target & PAGE_MASK;
    *ram_page = f->ram_page;
    if (f->here)
        return true;
    const struct fetch_info *i = &c->fetch_info[fetch_slot(t, page, f->mode)];
    *ram_page = i->ram_page;
    return i->page == page && i->mode == f->mode && code_watched(t->set->host.ram, *ram_page) &&
           !page_rewritten(t, *ram_page);
}

struct block *block_relocate(struct context *c, uint64_t address, uint32_t mode, uint64_t ram_page)
{
    struct follows follows;
    follows.count = 0;
    struct block *first = copy_one(c, address, mode, ram_page, &follows);
    unsigned copies = 1;
    for (unsigned n = 0; n < follows.count; n++) {
        const struct follow *f = &follows.links[n];
        uint64_t page;
        if (!target_page(c, f, &page))
            continue;
        struct block *b = block_find(c->translator, f->site->target, f->mode, page);
        if (!b && copies < COPIES) {
            b = copy_one(c, f->site->target, f->mode, page, &follows);
            copies += b != NULL;
        }
        if (b)
            link_make(c->translator, f->site, b);
    }
    return first;
}
