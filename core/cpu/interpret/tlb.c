// SPDX-License-Identifier: GPL-2.0-or-later
// The interpreter's software TLB and the slow paths of guest memory.
#include "core/cpu/interpret/cache.h"
#include "core/cpu/lapic.h"

#define SPACE_MAX (PAGE_SIZE - 1)

// One translated piece of an access, within one page.
struct piece {
    uint64_t gpa;
    uint8_t *host; // plain memory (RAM or ROM), else NULL
    bool lapic;
};

static void clear_tlbs(struct interpreter *n)
{
    memset(n->tlb, 0, sizeof(n->tlb));
    memset(n->fetch, 0, sizeof(n->fetch));
}

void interpret_flush_tlb(struct vcpu *v)
{
    struct interpreter *n = v->interpreter;
    if (!n)
        return;
    if (++v->tlb_space > SPACE_MAX) {
        clear_tlbs(n);
        v->tlb_space = 1;
    }
    memset(n->written, 0, sizeof(n->written)); // entries of other spaces match no more
    memset(n->large, 0, sizeof n->large);
    n->stamp = ++n->generation << 16 | n->key;
}

void interpret_flush_page(struct vcpu *v, uint64_t linear)
{
    struct interpreter *n = v->interpreter;
    if (!n)
        return;
    unsigned half = linear >> 63;
    if (n->large[half].mask && (linear & n->large[half].mask) == n->large[half].address) {
        interpret_flush_tlb(v);
        return;
    }
    unsigned slot = linear >> PAGE_SHIFT & (TLB_SIZE - 1), fetch_slot = linear >> PAGE_SHIFT & ((1u << FETCH_BITS) - 1);
    for (unsigned kind = 0; kind < TLB_KINDS; kind++)
        n->tlb[kind][slot].read = n->tlb[kind][slot].write = 0;
    n->fetch[0][fetch_slot].tag = n->fetch[1][fetch_slot].tag = 0;
    n->stamp = ++n->generation << 16 | n->key;
}

static unsigned written_bit(uintptr_t host)
{
    return (unsigned)((uint64_t)(host >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull >> 52);
}

void interpret_revoke_page(struct vcpu *v, uint64_t ram_offset)
{
    struct interpreter *n = v->interpreter;
    if (!n)
        return;
    uintptr_t page = (uintptr_t)v->set->host.ram->host + (ram_offset & PAGE_MASK);
    unsigned bit = written_bit(page);
    if (!(n->written[bit >> 6] >> (bit & 63) & 1))
        return;
    for (unsigned kind = 0; kind < TLB_NONE; kind++)
        for (unsigned i = 0; i < TLB_SIZE; i++) {
            struct tlb_entry *e = &n->tlb[kind][i];
            if (e->write && e->addend + (e->write & PAGE_MASK) == page)
                e->write = 0;
        }
}

void tlb_select(struct interpreter *n)
{
    struct vcpu *v = n->vcpu;
    if ((v->cpl == 3 && (v->cr0 & CR0_AM) && (v->rflags & FLAG_AC)) || (v->dr7 & 0xff))
        n->kind = TLB_NONE; // every access is checked
    else if (v->cpl == 3)
        n->kind = TLB_USER;
    else
        n->kind = (v->cr4 & CR4_SMAP) && !(v->rflags & FLAG_AC) ? TLB_KERNEL_STRICT : TLB_KERNEL;
    v->tlb = n->tlb[n->kind];
}

static void note_large(struct interpreter *n, uint64_t linear, uint64_t size)
{
    uint64_t *mask = &n->large[linear >> 63].mask, *address = &n->large[linear >> 63].address;
    if (!*mask) {
        *mask = ~(size - 1);
        *address = linear & *mask;
        return;
    }
    *mask &= ~(size - 1);
    while ((linear ^ *address) & *mask)
        *mask <<= 1;
    *address &= *mask;
}

static bool page_fault(struct vcpu *v, uint64_t linear, uint32_t code)
{
    v->cr2 = linear;
    vcpu_fault(v, EXCEPTION_PF, code);
    return false;
}

// Host address of the page around GPA if it is plain memory as a whole.
static uint8_t *plain_page(struct vcpu *v, uint64_t gpa, const struct mapping **mapping)
{
    const struct mapping *m = address_space_find(v->set->host.memory, gpa);
    uint64_t page = gpa & PAGE_MASK;
    *mapping = m;
    if (!m || !m->host || page < m->start || m->size - (page - m->start) < PAGE_SIZE)
        return NULL;
    uint64_t ram_offset = m->ram_offset + (page - m->start);
    return ram_offset & ~PAGE_MASK ? NULL : m->host + (page - m->start);
}

static bool translate(struct vcpu *v, uint64_t linear, unsigned access, struct piece *piece)
{
    struct interpreter *n = v->interpreter;
    struct page_walk walk;
    uint32_t code;
    if (v->cpl == 3)
        access |= ACCESS_USER;
    v->tlb_misses++;
    if (!page_walk(v, linear, access, &walk, &code))
        return page_fault(v, linear, code);
    piece->gpa = walk.gpa;
    piece->host = NULL;
    piece->lapic = lapic_covers(v, walk.gpa);
    if (piece->lapic)
        return true;
    const struct mapping *m;
    uint8_t *page = plain_page(v, walk.gpa, &m);
    if (!page)
        return true;
    piece->host = page + (walk.gpa & ~PAGE_MASK);
    if (n->kind == TLB_NONE)
        return true;
    if (walk.page_size > PAGE_SIZE)
        note_large(n, linear, walk.page_size);
    struct tlb_entry *e = tlb_slot(v, linear);
    uint64_t tag = (linear & PAGE_MASK) | v->tlb_space;
    if (e->read != tag)
        e->write = 0;
    e->read = tag;
    e->addend = (uintptr_t)page - (linear & PAGE_MASK);
    if ((access & ACCESS_WRITE) && m->region->kind == REGION_RAM &&
        !ram_tracked(v->set->host.ram, (uint64_t)(page - v->set->host.ram->host))) {
        unsigned bit = written_bit((uintptr_t)page);
        n->written[bit >> 6] |= BIT(bit & 63);
        e->write = tag;
    }
    return true;
}

// ---- Data breakpoints (SDM vol. 3, 18.2.5) ----
static void check_breakpoints(struct vcpu *v, uint64_t linear, unsigned size, bool write)
{
    for (unsigned i = 0; i < 4; i++) {
        unsigned kind = v->dr7 >> (16 + 4 * i) & 3, length_code = v->dr7 >> (18 + 4 * i) & 3;
        if (!(v->dr7 >> 2 * i & 3) || kind == 0 || kind == 2 || (kind == 1 && !write))
            continue;
        uint64_t length = length_code == 2 ? 8 : length_code + 1u, start = v->dr[i] & ~(length - 1);
        if (linear < start + length && start < linear + size)
            v->interpreter->debug_hits |= 1u << i;
    }
}

static bool check_access(struct vcpu *v, uint64_t linear, unsigned size, bool write)
{
    if ((v->efer & EFER_LMA) && (!vcpu_canonical(linear) || !vcpu_canonical(linear + size - 1))) {
        v->interpreter->noncanonical = true;
        vcpu_fault(v, EXCEPTION_GP, 0);
        return false;
    }
    if (v->interpreter->kind != TLB_NONE)
        return true;
    if (v->cpl == 3 && (v->cr0 & CR0_AM) && (v->rflags & FLAG_AC) && size <= 8 && (size & (size - 1)) == 0 &&
        (linear & (size - 1))) {
        vcpu_fault(v, EXCEPTION_AC, 0);
        return false;
    }
    check_breakpoints(v, linear, size, write);
    return true;
}

static void load_piece(struct vcpu *v, const struct piece *p, void *data, unsigned size)
{
    if (p->host)
        memcpy(data, p->host, size);
    else if (p->lapic)
        lapic_page_read(v->lapic, p->gpa & ~PAGE_MASK, data, size);
    else if (size == 1 || size == 2 || size == 4 || size == 8)
        store_le(data, size, address_space_load(v->set->host.memory, p->gpa, size));
    else
        address_space_read(v->set->host.memory, p->gpa, data, size);
    if (!p->host)
        v->io_exits++;
}

static void store_piece(struct vcpu *v, const struct piece *p, const void *data, unsigned size)
{
    if (p->lapic)
        lapic_page_write(v->lapic, p->gpa & ~PAGE_MASK, data, size);
    else if (size == 1 || size == 2 || size == 4 || size == 8)
        address_space_store(v->set->host.memory, p->gpa, load_le(data, size), size);
    else
        address_space_write(v->set->host.memory, p->gpa, data, size);
    if (!p->host)
        v->io_exits++;
}

static uint64_t next_linear(const struct vcpu *v, uint64_t linear, unsigned bytes)
{
    return v->efer & EFER_LMA ? linear + bytes : (uint32_t)(linear + bytes);
}

// Both pages of an access. *FIRST is how many bytes lie in the first one.
static bool translate_all(struct vcpu *v, uint64_t linear, unsigned size, unsigned access, struct piece piece[2],
                          unsigned *first)
{
    *first = (unsigned)MIN(size, PAGE_SIZE - (linear & ~PAGE_MASK));
    return check_access(v, linear, size, access & ACCESS_WRITE) && translate(v, linear, access, &piece[0]) &&
           (*first == size || translate(v, next_linear(v, linear, *first), access, &piece[1]));
}

bool linear_load_slow(struct vcpu *v, uint64_t linear, void *data, unsigned size)
{
    struct piece piece[2];
    unsigned first;
    if (!translate_all(v, linear, size, ACCESS_READ, piece, &first))
        return false;
    load_piece(v, &piece[0], data, first);
    if (first < size)
        load_piece(v, &piece[1], (char *)data + first, size - first);
    return true;
}

bool linear_store_slow(struct vcpu *v, uint64_t linear, const void *data, unsigned size)
{
    struct piece piece[2];
    unsigned first;
    if (!translate_all(v, linear, size, ACCESS_WRITE, piece, &first))
        return false;
    store_piece(v, &piece[0], data, first);
    if (first < size)
        store_piece(v, &piece[1], (const char *)data + first, size - first);
    return true;
}

bool linear_probe_write(struct vcpu *v, uint64_t linear, unsigned size)
{
    struct piece piece[2];
    unsigned first;
    return translate_all(v, linear, size, ACCESS_WRITE, piece, &first);
}

// Can the host's atomic operations work on it in place? x86 allows any address within a cache line.
static inline bool host_atomic(uint64_t linear, unsigned size)
{
#ifdef __x86_64__
    return (linear & 63) <= 64 - size;
#else
    return (linear & (size - 1)) == 0;
#endif
}

void *rmw_begin(struct vcpu *v, uint64_t linear, unsigned size, bool locked, struct rmw *rmw)
{
    struct piece piece[2];
    unsigned first;
    rmw->kind = RMW_DIRECT;
    void *host = linear_host_write(v, linear, size);
    if (G_LIKELY(host) && (!locked || host_atomic(linear, size)))
        return host;
    if (!translate_all(v, linear, size, ACCESS_WRITE, piece, &first))
        return NULL;
    struct ram *ram = v->set->host.ram;
    const struct mapping *m = piece[0].host ? address_space_find(v->set->host.memory, piece[0].gpa) : NULL;
    if (first == size && m && m->region->kind == REGION_RAM && host_atomic(linear, size)) {
        rmw->kind = RMW_TRACKED;
        rmw->ram_offset = (uint64_t)(piece[0].host - ram->host);
        rmw->size = size;
        ram_write_begin(ram, rmw->ram_offset, size);
        return piece[0].host;
    }
    rmw->kind = RMW_BOUNCED;
    rmw->linear = linear;
    rmw->size = size;
    rmw->exclusive = locked && v->set->count > 1 && piece[0].host && (first == size || piece[1].host);
    if (rmw->exclusive)
        vcpu_exclusive_begin(v);
    if (linear_load_slow(v, linear, rmw->bytes, size))
        return rmw->bytes;
    if (rmw->exclusive)
        vcpu_exclusive_end(v);
    return NULL;
}

void rmw_end_slow(struct vcpu *v, struct rmw *rmw)
{
    if (rmw->kind == RMW_TRACKED) {
        ram_write_end(v->set->host.ram, rmw->ram_offset, rmw->size);
        return;
    }
    // Probed by rmw_begin(); only a table changed by another processor in between can make it fail, and then the store
    // is lost as if that change had come first.
    if (!linear_store_slow(v, rmw->linear, rmw->bytes, rmw->size))
        v->event_pending = false;
    if (rmw->exclusive)
        vcpu_exclusive_end(v);
}

// ---- Code -----------------------------------------------------------------------------------------------------------

bool fetch_translate(struct vcpu *v, uint64_t linear, uint64_t *ram_offset, const uint8_t **host)
{
    struct interpreter *n = v->interpreter;
    struct fetch_entry *e = &n->fetch[v->cpl == 3][linear >> PAGE_SHIFT & ((1u << FETCH_BITS) - 1)];
    uint64_t tag = (linear & PAGE_MASK) | v->tlb_space;
    if (e->tag == tag) {
        *ram_offset = e->ram_offset + (linear & ~PAGE_MASK);
        *host = e->host + (linear & ~PAGE_MASK);
        return true;
    }
    struct page_walk walk;
    uint32_t code;
    if ((v->efer & EFER_LMA) && !vcpu_canonical(linear)) {
        vcpu_fault(v, EXCEPTION_GP, 0);
        return false;
    }
    if (!page_walk(v, linear, ACCESS_FETCH | (v->cpl == 3 ? ACCESS_USER : 0), &walk, &code))
        return page_fault(v, linear, code);
    const struct mapping *m;
    uint8_t *page = plain_page(v, walk.gpa, &m);
    if (!page) {
        *host = NULL; // code in device registers or nothing
        *ram_offset = walk.gpa;
        return true;
    }
    if (walk.page_size > PAGE_SIZE)
        note_large(n, linear, walk.page_size);
    *e = (struct fetch_entry){tag, (uint64_t)(page - v->set->host.ram->host), page};
    *ram_offset = e->ram_offset + (linear & ~PAGE_MASK);
    *host = page + (linear & ~PAGE_MASK);
    return true;
}
