// SPDX-License-Identifier: GPL-2.0-or-later
// Copies of translations: the same bytes of a page, mapped at another address (another process, another layout of its
// address space), take the earlier translation with its guest addresses moved, at a tenth of the price of a new one.
// Each block carries a list of what depends on where it lies and on its guest address.
#include "core/cpu/translate/compile.h"

#define DONOR_BITS 16

static unsigned donor_slot(uint64_t address, uint32_t mode, uint64_t ram_page)
{
    uint64_t key = (ram_page | (address & ~PAGE_MASK)) ^ (uint64_t)mode << 48;
    return (unsigned)(key * 0x9e3779b97f4a7c15ull >> (64 - DONOR_BITS));
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
    if (!t->donors)
        t->donors = g_new0(uint32_t, 1u << DONOR_BITS);
    t->donors[donor_slot(b->address, b->mode, b->ram_page)] = (uint32_t)(b - t->blocks) + 1;
}

void donors_forget(struct translator *t)
{
    if (t->donors)
        memset(t->donors, 0, sizeof *t->donors << DONOR_BITS);
}

static const struct block *donor_find(const struct translator *t, uint64_t address, uint32_t mode, uint64_t ram_page)
{
    uint32_t i = t->donors ? t->donors[donor_slot(address, mode, ram_page)] : 0;
    const struct block *b = i ? &t->blocks[i - 1] : NULL;
    bool fits = b && !b->dead && !b->fixed && !b->checks && b->mode == mode && b->ram_page == ram_page &&
                ((b->address ^ address) & ~PAGE_MASK) == 0 && b->second_page == NO_PAGE &&
                (b->address >> 47) == (address >> 47) && address > 0xffffffffu;
    return fits ? b : NULL;
}

static uint32_t moved(uint32_t address, int32_t shift)
{
    return address ? address + (uint32_t)shift : 0;
}

static void move_link(struct translator *t, struct link_site *site, int32_t shift, uint32_t block)
{
    site->field = moved(site->field, shift);
    site->check = moved(site->check, shift);
    site->stub = moved(site->stub, shift);
    site->block = block;
    if (site->stub) { // a made link is undone
        int32_t rel = (int32_t)(site->stub - (site->field + 4));
        memcpy(writable(t, (const uint8_t *)(uintptr_t)site->field), &rel, 4);
    }
    if (site->check) {
        struct emitter e = {.at = writable(t, (const uint8_t *)(uintptr_t)site->check)};
        e.end = e.at + 8;
        emit_nop(&e, 8);
    }
}

static void apply(struct context *c, struct block *b, const struct reloc *r, uint8_t *start, int32_t shift,
                  uint64_t delta)
{
    struct translator *t = c->translator;
    uint8_t *at = start + r->at;
    uint32_t index = (uint32_t)(b - t->blocks);
    switch (r->kind) {
    case RELOC_OUT: {
        int32_t rel;
        memcpy(&rel, at, 4);
        rel -= shift;
        memcpy(at, &rel, 4);
        break;
    }
    case RELOC_GUEST: {
        uint64_t address;
        memcpy(&address, at, 8);
        address += delta;
        memcpy(at, &address, 8);
        break;
    }
    case RELOC_SLOW: {
        struct slow_site *s = (struct slow_site *)at;
        s->resume += (uint32_t)shift;
        s->copy += (uint32_t)shift;
        if (s->after)
            s->after += (uint32_t)shift;
        s->block = index;
        break;
    }
    case RELOC_LINK:
        move_link(t, (struct link_site *)at, shift, index);
        break;
    case RELOC_SYSTEM: {
        struct system_site *s = (struct system_site *)at;
        s->after += (uint32_t)shift;
        s->rip += delta;
        s->next += delta;
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

struct block *block_relocate(struct context *c, uint64_t address, uint32_t mode, uint64_t ram_page)
{
    struct translator *t = c->translator;
    const struct block *donor = donor_find(t, address, mode, ram_page);
    if (!donor)
        return NULL;
    size_t size = (size_t)(donor->end - donor->indirect);
    struct block *b = block_new(t, address, mode, ram_page);
    if (!b || t->limit - t->used < size)
        return NULL;
    uint8_t *start = t->code_write + t->used;
    memcpy(start, writable(t, donor->indirect), size);
    ptrdiff_t shift = t->code + t->used - donor->indirect;
    b->page_id = code_page_id(t, address & PAGE_MASK, mode, ram_page);
    b->indirect = donor->indirect + shift;
    b->host = donor->host + shift;
    b->end = donor->end + shift;
    b->stubs = donor->stubs + shift;
    b->leave = donor->leave + shift;
    b->length = donor->length;
    b->boundaries = donor->boundaries;
    b->boundary = (struct boundary *)((uint8_t *)donor->boundary + shift);
    b->shares = donor->shares;
    b->reloc = (struct reloc *)((uint8_t *)donor->reloc + shift);
    b->relocs = donor->relocs;
    uint64_t delta = address - donor->address;
    for (unsigned n = 0; n < b->relocs; n++)
        apply(c, b, &b->reloc[n], start, (int32_t)shift, delta);
    t->used = ALIGN_UP((size_t)(b->end - t->code), (size_t)16);
    c->counters.relocations++;
    block_publish(t, b);
    return b;
}
