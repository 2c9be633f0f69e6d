// SPDX-License-Identifier: GPL-2.0-or-later
// Behind the inline TLB check: fills, devices, tracked pages, accesses over a page border; look-ups of indirect jumps.
//
// This file is built without vector registers: the guest's vector state may be in the processor. Calls into the rest of
// the monitor are bracketed by foreign_begin() and foreign_end().
#include "core/cpu/lapic.h"
#include "core/cpu/translate/system.h"

#pragma GCC target("general-regs-only")

// ---- What is at an address ------------------------------------------------------------------------------------------

enum target_kind { TARGET_FAULT, TARGET_RAM, TARGET_TRACKED, TARGET_DEVICE };

struct target {
    enum target_kind kind;
    bool page_fault; // TARGET_FAULT: with this error code
    uint32_t error;
    uint64_t gpa, ram_offset;
    uint8_t *host;
};

// What the TLB may know of it is filled in.
static void target_use(struct context *c, uint64_t address, unsigned kind, bool write, struct trail *trail,
                       const struct near_mapping *m, struct target *t)
{
    t->ram_offset = m->ram_offset + (t->gpa - m->start);
    t->host = m->host + (t->gpa - m->start);
    bool tracked = ram_tracked(c->vcpu->set->host.ram, t->ram_offset) != 0;
    t->kind = write && tracked ? TARGET_TRACKED : TARGET_RAM;
    // A mapping smaller than a page cannot be in the TLB.
    uint64_t page = t->gpa & PAGE_MASK;
    if (page < m->start || page + PAGE_SIZE > m->start + m->size)
        return;
    trail->dirty &= m->writable;
    tlb_fill(c, kind, address & PAGE_MASK, t->ram_offset & PAGE_MASK, write, trail->dirty && !tracked, trail);
}

// The usual case, without foreign code. False: not decided.
static bool target_find_short(struct context *c, uint64_t address, unsigned kind, bool write, struct target *t)
{
    struct trail trail;
    if (!short_walk(c, address, kind, write ? ACCESS_WRITE : 0, &trail))
        return false;
    t->gpa = trail.gpa;
    const struct near_mapping *m = near_mapping_find(c, t->gpa);
    if (!m || (write && !m->writable) || lapic_covers(c->vcpu, t->gpa))
        return false;
    c->counters.short_walks++;
    target_use(c, address, kind, write, &trail, m, t);
    return true;
}

// Foreign code: the caller brackets it.
static void target_find(struct context *c, uint64_t address, unsigned kind, bool write, struct target *t)
{
    struct vcpu *v = c->vcpu;
    struct page_walk walk;
    uint32_t error;
    unsigned access = (write ? ACCESS_WRITE : ACCESS_READ) | (kind == FAST_USER ? ACCESS_USER : 0);
    t->kind = TARGET_FAULT;
    t->page_fault = false;
    v->rflags = (v->rflags & ~(uint64_t)FLAG_AC) | (c->other_flags & FLAG_AC);
    if ((c->mode & MODE_64) && !vcpu_canonical(address))
        return;
    uint64_t cr2 = v->cr2;
    c->counters.walks++;
    if (!page_walk(v, address, access, &walk, &error)) {
        v->cr2 = cr2;
        t->page_fault = true;
        t->error = error;
        return;
    }
    t->gpa = walk.gpa;
    for (unsigned n = 0; n < walk.levels; n++)
        near_mapping_get(c, walk.table[n]);
    const struct near_mapping *m = near_mapping_get(c, walk.gpa);
    t->kind = TARGET_DEVICE;
    if (!m || (write && !m->writable) || lapic_covers(v, walk.gpa))
        return;
    // Now that Accessed and Dirty are set and the tables are near, the short walk knows the way.
    struct trail trail;
    if (short_walk(c, address, kind, write ? ACCESS_WRITE : 0, &trail) && trail.gpa == walk.gpa) {
        target_use(c, address, kind, write, &trail, m, t);
        return;
    }
    trail = (struct trail){.dirty = write, .shift = 0};
    if (walk.page_size > PAGE_SIZE)
        trail.shift = walk.page_size == GiB ? 30 : walk.page_size == 4 * MiB ? 22 : 21;
    trail.unknown = true;
    target_use(c, address, kind, write, &trail, m, t);
}

bool tlb_fill_plain(struct context *c, uint64_t address, unsigned kind, bool write)
{
    struct target t;
    if (!target_find_short(c, address, kind, write, &t)) {
        bool loaded = foreign_begin(c);
        target_find(c, address, kind, write, &t);
        foreign_end(c, loaded);
    }
    if (t.kind == TARGET_TRACKED && ram_tracked(c->vcpu->set->host.ram, t.ram_offset) == TRACK_VIDEO) {
        // Noted once as damaged, the page is plain memory until the damage is collected.
        bool loaded = foreign_begin(c);
        ram_write_begin(c->vcpu->set->host.ram, t.ram_offset, 1);
        ram_write_end(c->vcpu->set->host.ram, t.ram_offset, 1);
        target_find(c, address, kind, write, &t);
        foreign_end(c, loaded);
    }
    const struct fast_entry *e = &c->tlb[fast_table(kind, write)][address >> PAGE_SHIFT & (FAST_SIZE - 1)];
    return t.kind == TARGET_RAM && e->tag == (address & PAGE_MASK);
}

void *tlb_tracked_host(struct context *c, uint64_t address, unsigned kind, uint64_t *ram_offset)
{
    struct target t;
    if (!target_find_short(c, address, kind, true, &t) || t.kind != TARGET_TRACKED)
        return NULL;
    *ram_offset = t.ram_offset;
    return t.host;
}

// ---- The slow path --------------------------------------------------------------------------------------------------

enum pending_kind { PENDING_NONE, PENDING_TRACKED, PENDING_DEVICE, PENDING_CROSSING, PENDING_PLAIN_CROSSING };

static uint64_t site_rip(const struct context *c, const struct slow_site *site)
{
    return c->translator->blocks[site->block].address + site->guest;
}

static uint64_t leave_to_interpret(struct context *c, const struct slow_site *site)
{
    c->slow_host = site_rip(c, site);
    c->counters.interpreted_fault++;
    return (uintptr_t)c->translator->thunks.interpret_saved;
}

// A page fault goes straight to the guest's handler where nothing else can come first or changes with it: not of
// misaligned vectors, nor of x87 (an exception may wait) and MMX (the top of the stack moves).
static uint64_t slow_fault(struct context *c, const struct slow_site *site, const struct target *t)
{
    if (t->page_fault && site->size < 16 && !(site->use & USE_X87)) {
        uint64_t go = event_deliver(c, EXCEPTION_PF, t->error, site_rip(c, site));
        if (go) {
            c->vcpu->cr2 = c->slow_address; // in long mode: 64-bit code, or below 4 GiB
            return go;
        }
    }
    return leave_to_interpret(c, site);
}

static void device_read(struct context *c, uint64_t gpa, uint8_t *to, unsigned size)
{
    struct address_space *memory = c->vcpu->set->host.memory;
    c->counters.mmio++;
    c->vcpu->io_exits++;
    if (lapic_covers(c->vcpu, gpa))
        lapic_page_read(c->vcpu->lapic, gpa & ~PAGE_MASK, to, size);
    else if (size == 1 || size == 2 || size == 4 || size == 8)
        store_le(to, size, address_space_load(memory, gpa, size));
    else
        address_space_read(memory, gpa, to, size);
}

static void device_write(struct context *c, uint64_t gpa, const uint8_t *from, unsigned size)
{
    struct address_space *memory = c->vcpu->set->host.memory;
    c->counters.mmio++;
    c->vcpu->io_exits++;
    if (lapic_covers(c->vcpu, gpa))
        lapic_page_write(c->vcpu->lapic, gpa & ~PAGE_MASK, from, size);
    else if (size == 1 || size == 2 || size == 4 || size == 8)
        address_space_store(memory, gpa, load_le(from, size), size);
    else
        address_space_write(memory, gpa, from, size);
}

// No memcpy() here: the C library's uses vector registers.
static void bytes_copy(void *to, const void *from, unsigned size)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    if (size >= 64) {
        uint64_t count = size;
        __asm__ volatile("rep movsb" : "+D"(t), "+S"(f), "+c"(count) : : "memory");
        return;
    }
    for (unsigned n = 0; n < size; n++)
        t[n] = f[n];
}

// Both pages are plain memory: through the bounce buffer, without foreign code. False: it is not so.
static bool plain_crossing(struct context *c, const struct slow_site *site, uint64_t address, uint64_t second)
{
    unsigned first_size = (unsigned)(PAGE_SIZE - (address & ~PAGE_MASK));
    bool write = site->use & USE_WRITE;
    uint8_t *bounce = c->bounce + (address & 63);
    uint8_t *host[2] = {tlb_host(c, site->kind, address, first_size, write), NULL};
    if (!host[0] || !(host[1] = tlb_host(c, site->kind, second, site->size - first_size, write)))
        return false;
    bytes_copy(bounce, host[0], first_size);
    bytes_copy(bounce + first_size, host[1], site->size - first_size);
    c->slow_host = (uintptr_t)bounce;
    c->pending.kind = write ? PENDING_PLAIN_CROSSING : PENDING_NONE;
    c->pending.host[0] = host[0];
    c->pending.host[1] = host[1];
    c->pending.address = address;
    c->pending.size = site->size;
    return true;
}

// An access over a page border goes through the bounce buffer, checked on both pages first; a locked one through the
// interpreter, which holds the other processors meanwhile.
static uint64_t slow_crossing(struct context *c, const struct slow_site *site)
{
    if (site->use & USE_LOCKED) {
        c->counters.crossings++;
        c->slow_host = site_rip(c, site);
        return (uintptr_t)c->translator->thunks.interpret_saved;
    }
    uint64_t address = c->slow_address, second = (address | ~PAGE_MASK) + 1;
    if (!(c->mode & MODE_64))
        second = (uint32_t)second;
    unsigned first_size = (unsigned)(PAGE_SIZE - (address & ~PAGE_MASK)), size = site->size;
    bool write = site->use & USE_WRITE;
    uint8_t *bounce = c->bounce + (address & 63);
    struct target t[2];
    c->counters.crossings++;
    if (plain_crossing(c, site, address, second))
        return write || atomic_load_explicit(&c->kicked, memory_order_relaxed) ? site->copy : site->resume;
    bool loaded = foreign_begin(c);
    target_find(c, address, site->kind, write, &t[0]);
    if (t[0].kind != TARGET_FAULT)
        target_find(c, second, site->kind, write, &t[1]);
    if (t[0].kind == TARGET_FAULT || t[1].kind == TARGET_FAULT) {
        foreign_end(c, loaded);
        return leave_to_interpret(c, site);
    }
    // What is there is needed for a write too: an x87 store with an exception that is not masked leaves it alone.
    struct address_space *memory = c->vcpu->set->host.memory;
    if ((site->use & USE_READ) || t[0].kind != TARGET_DEVICE)
        address_space_read(memory, t[0].gpa, bounce, first_size);
    if ((site->use & USE_READ) || t[1].kind != TARGET_DEVICE)
        address_space_read(memory, t[1].gpa, bounce + first_size, size - first_size);
    foreign_end(c, loaded);
    c->slow_host = (uintptr_t)bounce;
    c->pending.kind = write ? PENDING_CROSSING : PENDING_NONE;
    c->pending.gpa[0] = t[0].gpa;
    c->pending.gpa[1] = t[1].gpa;
    c->pending.address = address;
    c->pending.size = size;
    return write || atomic_load_explicit(&c->kicked, memory_order_relaxed) ? site->copy : site->resume;
}

// A check for several accesses: nothing has happened yet.
static uint64_t slow_shared(struct context *c, const struct slow_site *site, bool crosses)
{
    if (atomic_load_explicit(&c->kicked, memory_order_relaxed)) {
        c->slow_host = site_rip(c, site);
        c->exit_reason = EXIT_KICK;
        return (uintptr_t)c->translator->thunks.exit_saved;
    }
    c->counters.shared_misses++;
    if (!crosses && tlb_fill_plain(c, c->slow_address, site->kind, site->use & USE_WRITE))
        return site->resume;
    c->counters.shared_refused++;
    return site->copy;
}

static void access_at(struct context *c, const struct slow_site *site, const uint8_t *host)
{
    c->slow_host = (uintptr_t)host - (site->use & USE_PAGE ? c->slow_address & ~PAGE_MASK : 0);
}

// The inline check failed. Returns where to go on; slow_host becomes HOST_A.
uint64_t translate_slow(struct context *c)
{
    const struct slow_site *site = (const struct slow_site *)(uintptr_t)c->slow_site;
    uint64_t address = c->slow_address;
    bool crosses = (address & ~PAGE_MASK) + site->size > PAGE_SIZE;
    if (site->use & USE_SHARED)
        return slow_shared(c, site, crosses);
    if (crosses)
        return slow_crossing(c, site);
    struct target t;
    bool write = site->use & USE_WRITE;
    uint64_t go = site->resume;
    if (target_find_short(c, address, site->kind, write, &t) && t.kind == TARGET_RAM) {
        c->pending.kind = PENDING_NONE;
        access_at(c, site, t.host);
        return atomic_load_explicit(&c->kicked, memory_order_relaxed) ? site->copy : go;
    }
    bool loaded = foreign_begin(c);
    target_find(c, address, site->kind, write, &t);
    c->pending.kind = PENDING_NONE;
    c->pending.gpa[0] = t.gpa;
    c->pending.address = address;
    c->pending.size = site->size;
    switch (t.kind) {
    case TARGET_FAULT:
        foreign_end(c, loaded);
        return slow_fault(c, site, &t);
    case TARGET_RAM:
        access_at(c, site, t.host);
        if (atomic_load_explicit(&c->kicked, memory_order_relaxed))
            go = site->copy;
        break;
    case TARGET_TRACKED:
        c->counters.tracked_writes++;
        ram_write_begin(c->vcpu->set->host.ram, t.ram_offset, site->size);
        c->pending.kind = PENDING_TRACKED;
        c->pending.ram_offset = t.ram_offset;
        access_at(c, site, t.host);
        go = site->copy;
        break;
    case TARGET_DEVICE: {
        uint8_t *bounce = c->bounce + (address & 63);
        if (site->use & USE_READ)
            device_read(c, t.gpa, bounce, site->size);
        access_at(c, site, bounce);
        if (write)
            c->pending.kind = PENDING_DEVICE;
        go = site->copy;
        break;
    }
    }
    foreign_end(c, loaded);
    return go;
}

// After the out-of-line copy of the access.
uint64_t translate_commit(struct context *c)
{
    const struct slow_site *site = (const struct slow_site *)(uintptr_t)c->slow_site;
    const uint8_t *bounce = c->bounce + (c->pending.address & 63);
    bool leave = atomic_load(&c->kicked) != 0;
    if (c->pending.kind == PENDING_PLAIN_CROSSING) {
        unsigned first = (unsigned)(PAGE_SIZE - (c->pending.address & ~PAGE_MASK));
        bytes_copy(c->pending.host[0], bounce, first);
        bytes_copy(c->pending.host[1], bounce + first, c->pending.size - first);
        c->pending.kind = PENDING_NONE;
    } else if (c->pending.kind != PENDING_NONE) {
        leave |= c->translator->blocks[site->block].shares; // what HOST_D says may have been revoked meanwhile
        bool loaded = foreign_begin(c);
        if (c->pending.kind == PENDING_TRACKED) {
            ram_write_end(c->vcpu->set->host.ram, c->pending.ram_offset, c->pending.size);
        } else if (c->pending.kind == PENDING_DEVICE) {
            device_write(c, c->pending.gpa[0], bounce, c->pending.size);
        } else {
            unsigned first = (unsigned)(PAGE_SIZE - (c->pending.address & ~PAGE_MASK));
            address_space_write(c->vcpu->set->host.memory, c->pending.gpa[0], bounce, first);
            address_space_write(c->vcpu->set->host.memory, c->pending.gpa[1], bounce + first, c->pending.size - first);
        }
        c->pending.kind = PENDING_NONE;
        foreign_end(c, loaded);
    }
    leave |= atomic_load(&c->kicked) != 0;
    if (G_UNLIKELY(leave)) {
        if (site->length) {
            c->exit_reason = EXIT_KICK;
            c->slow_host = site_rip(c, site) + site->length;
            if (!(c->mode & MODE_64))
                c->slow_host = (uint32_t)c->slow_host;
            return (uintptr_t)(site->flags_after == FLAGS_HOST ? c->translator->thunks.exit_host
                                                               : c->translator->thunks.exit_saved);
        }
        *(uint64_t *)(c->host_rsp - 8) |= FLAG_TF; // in the middle of an instruction: step to its end
    }
    return site->after;
}

// ---- Indirect jumps -------------------------------------------------------------------------------------------------

// The block at ADDRESS, if there is one or it can be copied, and its page can be met without a fault. SITE: a link to
// it is made, if not NULL.
static struct block *block_near(struct context *c, uint64_t address, uint32_t mode, const struct link_site *site)
{
    uint32_t plain = mode & ~(uint32_t)MODE_NOSHARE;
    const struct fetch_info *i = &c->fetch_info[fetch_slot(c->translator, address & PAGE_MASK, plain)];
    uint64_t ram_page = i->ram_page;
    bool fetched = i->page == (address & PAGE_MASK) && i->mode == plain;
    struct block *b = fetched ? block_find(c->translator, address, mode, ram_page) : NULL;
    if (b && !site)
        return b;
    bool loaded = foreign_begin(c);
    if (fetched || fetch_page(c, address, plain, &ram_page))
        b = block_at_hand(c, address, mode, ram_page, site);
    foreign_end(c, loaded);
    return b;
}

uint64_t translate_lookup(struct context *c, uint64_t address)
{
    struct translator *t = c->translator;
    c->counters.lookups++;
    c->exit_reason = EXIT_LOOKUP;
    struct block *b = atomic_load(&c->kicked) || t->single ? NULL : block_near(c, address, c->mode, NULL);
    if (!b)
        return (uintptr_t)t->thunks.exit_saved;
    uint64_t *jumps = jump_table(t, c->mode & MODE_USER ? FAST_USER : c->mode & MODE_AC ? FAST_KERNEL_AC : FAST_KERNEL);
    uint64_t *jump = &jumps[address & ((1u << JUMP_BITS) - 1)];
    __atomic_store_n(jump, (uint64_t)(uintptr_t)b->indirect, __ATOMIC_SEQ_CST);
    // block_kill() may have looked before, or the cache may have been begun anew: the table must not lead to memory
    // that the host takes back. This processor may still go there, it is inside.
    if (__atomic_load_n(&b->dead, __ATOMIC_SEQ_CST) ||
        __atomic_load_n(&t->generation, __ATOMIC_SEQ_CST) != atomic_load(&c->inside))
        __atomic_store_n(jump, (uint64_t)(uintptr_t)t->thunks.lookup, __ATOMIC_RELAXED);
    return (uintptr_t)b->host;
}

// The jump or return at the end of a block leads to an address that is not canonical: it is taken back, and faults in
// the interpreter. (SDM vol. 2, JMP, RET)
static uint64_t jump_back(struct context *c, uint64_t address)
{
    struct translator *t = c->translator;
    bool loaded = foreign_begin(c);
    const struct block *b = block_at_host(t, c->jump_from);
    uint64_t go = 0;
    if (b && b->boundaries) {
        struct guest_insn i;
        uint64_t rip = b->address + b->boundary[b->boundaries - 1].guest;
        unsigned in_page = rip & ~PAGE_MASK;
        const uint8_t *bytes = t->set->host.ram->host + b->ram_page + in_page;
        if (decode_fields(&i, bytes, (unsigned)(PAGE_SIZE - in_page), 64) == DECODE_OK) {
            if (!i.has_modrm)
                c->guest_rsp -= 8 + (i.opcode == 0xc2 ? (uint16_t)i.immediate : 0);
            c->slow_host = rip;
            go = (uintptr_t)t->thunks.interpret_saved;
        }
    }
    foreign_end(c, loaded);
    return go ? go : translate_lookup(c, address);
}

// An indirect jump that the table did not know.
uint64_t translate_jump(struct context *c, uint64_t address)
{
    if (G_UNLIKELY((c->mode & MODE_64) && !vcpu_canonical(address)))
        return jump_back(c, address);
    return translate_lookup(c, address);
}

// A direct link that is not made, or leads to a page that is not mapped as it was.
uint64_t translate_link(struct context *c)
{
    struct translator *t = c->translator;
    const struct link_site *site = (const struct link_site *)(uintptr_t)c->link_site;
    c->slow_host = site->target;
    c->exit_reason = EXIT_LINK;
    if (atomic_load(&c->kicked) || t->single)
        return (uintptr_t)t->thunks.exit_host;
    bool made = site->check && *(const uint8_t *)(uintptr_t)site->check == LINK_MADE;
    c->counters.page_checks += made;
    struct block *b = block_near(c, site->target, c->mode | (site->noshare ? MODE_NOSHARE : 0), made ? NULL : site);
    return b ? (uintptr_t)b->host : (uintptr_t)t->thunks.exit_host;
}
