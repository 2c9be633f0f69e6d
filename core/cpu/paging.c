// SPDX-License-Identifier: GPL-2.0-or-later
// Walking the guest's page tables in every paging mode (SDM vol. 3, chapter 5) and accesses through them.
#include "core/cpu/arch.h"
#include "core/cpu/model.h"

#define PTE_P     BIT(0)
#define PTE_W     BIT(1)
#define PTE_U     BIT(2)
#define PTE_A     BIT(5)
#define PTE_D     BIT(6)
#define PTE_PS    BIT(7)
#define PTE_G     BIT(8)
#define PTE_NX    BIT(63)
#define PTE_FRAME MASK_BITS(51, 12)

#define ERROR_P    1u
#define ERROR_RSVD 8u

// One walk under way.
struct walker {
    struct vcpu *vcpu;
    struct page_walk *walk;
    uint64_t address, access;
    uint64_t reserved; // bits that must be 0 in every entry
    unsigned entry_size;
    bool writable, user, executable;
    bool set_bits; // A and D
};

enum step { STEP_OK, STEP_NOT_PRESENT, STEP_RESERVED, STEP_RETRY };

// Physical memory that holds the entry at GPA, or NULL where there is none.
static void *entry_host(struct vcpu *v, uint64_t gpa, uint64_t *ram_offset)
{
    return address_space_dma(v->set->host.memory, gpa, 8, ram_offset);
}

static uint64_t entry_load(struct walker *w, uint64_t gpa)
{
    void *host = entry_host(w->vcpu, gpa & ~7ull, NULL);
    if (!host)
        return address_space_load(w->vcpu->set->host.memory, gpa, w->entry_size);
    host = (char *)host + (gpa & 7);
    return w->entry_size == 8 ? __atomic_load_n((uint64_t *)host, __ATOMIC_RELAXED)
                              : __atomic_load_n((uint32_t *)host, __ATOMIC_RELAXED);
}

// Sets BITS in the entry if it still holds OLD. False: it changed, walk again.
static bool entry_set(struct walker *w, uint64_t gpa, uint64_t old, uint64_t bits)
{
    uint64_t ram_offset;
    void *host = entry_host(w->vcpu, gpa & ~7ull, &ram_offset);
    if (!host)
        return true; // tables in ROM or nothing: hardware's write is lost too
    struct ram *ram = w->vcpu->set->host.ram;
    bool tracked = ram_tracked(ram, ram_offset);
    bool done;
    host = (char *)host + (gpa & 7);
    if (tracked)
        ram_write_begin(ram, ram_offset + (gpa & 7), w->entry_size);
    if (w->entry_size == 8) {
        uint64_t expected = old;
        done = __atomic_compare_exchange_n((uint64_t *)host, &expected, old | bits, false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST);
    } else {
        uint32_t expected = (uint32_t)old;
        done = __atomic_compare_exchange_n((uint32_t *)host, &expected, (uint32_t)(old | bits), false, __ATOMIC_SEQ_CST,
                                           __ATOMIC_SEQ_CST);
    }
    if (tracked)
        ram_write_end(ram, ram_offset + (gpa & 7), w->entry_size);
    return done;
}

// Uses the entry at GPA: present and reserved-bit checks, rights, Accessed (leaves get theirs in finish()).
static enum step use_entry(struct walker *w, uint64_t gpa, uint64_t *entry, bool leaf_possible, bool *leaf,
                           uint64_t leaf_reserved)
{
    uint64_t e = entry_load(w, gpa);
    w->walk->table[w->walk->levels++] = gpa;
    *entry = e;
    if (!(e & PTE_P))
        return STEP_NOT_PRESENT;
    *leaf = leaf_possible && (e & PTE_PS);
    if (e & (w->reserved | (*leaf ? leaf_reserved : 0)))
        return STEP_RESERVED;
    w->writable &= (e & PTE_W) != 0;
    w->user &= (e & PTE_U) != 0;
    if (w->entry_size == 8 && (w->vcpu->efer & EFER_NXE) && (e & PTE_NX))
        w->executable = false;
    return STEP_OK;
}

static bool rights_allow(const struct walker *w)
{
    const struct vcpu *v = w->vcpu;
    bool write = w->access & ACCESS_WRITE, fetch = w->access & ACCESS_FETCH;
    if (fetch && !w->executable)
        return false;
    if (w->access & ACCESS_USER)
        return w->user && (!write || w->writable);
    if (fetch)
        return !(w->user && (v->cr4 & CR4_SMEP));
    if (w->user && (v->cr4 & CR4_SMAP) && ((w->access & ACCESS_IMPLICIT) || !(v->rflags & FLAG_AC)))
        return false;
    return !write || w->writable || !(v->cr0 & CR0_WP);
}

static uint32_t fault_code(const struct walker *w, bool present, bool reserved)
{
    const struct vcpu *v = w->vcpu;
    bool tell_fetch = (v->cr4 & CR4_SMEP) || ((v->efer & EFER_NXE) && (v->cr4 & CR4_PAE));
    return (present ? ERROR_P : 0) | (w->access & (ACCESS_WRITE | ACCESS_USER)) | (reserved ? ERROR_RSVD : 0) |
           (tell_fetch ? w->access & ACCESS_FETCH : 0);
}

// The leaf is found: rights, then A and D.
static enum step finish(struct walker *w, uint64_t gpa, uint64_t entry, bool *allowed)
{
    struct page_walk *walk = w->walk;
    *allowed = rights_allow(w);
    if (!*allowed || !w->set_bits) {
        walk->dirty = entry & PTE_D;
        return STEP_OK;
    }
    uint64_t want = PTE_A | (w->access & ACCESS_WRITE ? PTE_D : 0);
    walk->dirty = (entry | want) & PTE_D;
    return (entry & want) == want || entry_set(w, gpa, entry, want & ~entry) ? STEP_OK : STEP_RETRY;
}

// The levels of one paging mode from the table at TABLE down; SHIFT of the first one's index.
static enum step walk_levels(struct walker *w, uint64_t table, unsigned shift, bool *allowed)
{
    const struct vcpu *v = w->vcpu;
    const bool wide = w->entry_size == 8;
    const unsigned index_bits = wide ? 9 : 10;
    const unsigned physical_bits = v->set->model->physical_bits;
    for (;;) {
        uint64_t gpa = table + (w->address >> shift & ((1u << index_bits) - 1)) * w->entry_size, entry;
        bool large_possible = wide ? shift == 21 || (shift == 30 && cpu_has(v->set->model, FEATURE_PDPE1GB))
                                   : shift == 22 && (v->cr4 & CR4_PSE);
        bool leaf;
        uint64_t leaf_reserved = wide ? MASK_BITS(shift - 1, 13) : BIT(21);
        if (wide && shift == 12)
            large_possible = false;
        else if (wide && shift == 30 && !large_possible)
            w->reserved |= PTE_PS;
        if (shift == 39)
            w->reserved |= PTE_PS;
        enum step step = use_entry(w, gpa, &entry, large_possible, &leaf, leaf_reserved);
        w->reserved &= ~PTE_PS;
        if (step != STEP_OK)
            return step;
        if (shift == 12 || leaf) {
            uint64_t size = 1ull << shift;
            uint64_t frame = entry & PTE_FRAME & ~(size - 1);
            if (!wide && leaf) // PSE-36
                frame = (entry & 0xffc00000u) | (entry >> 13 & 0xff) << 32;
            frame &= MASK_BITS(physical_bits - 1, 0);
            w->walk->gpa = frame | (w->address & (size - 1));
            w->walk->page_size = size;
            w->walk->global = (entry & PTE_G) && (v->cr4 & CR4_PGE);
            return finish(w, gpa, entry, allowed);
        }
        if (w->set_bits && !(entry & PTE_A) && !entry_set(w, gpa, entry, PTE_A))
            return STEP_RETRY;
        table = entry & PTE_FRAME & MASK_BITS(physical_bits - 1, 0);
        shift -= index_bits;
    }
}

static enum step walk_once(struct walker *w, bool *allowed)
{
    struct vcpu *v = w->vcpu;
    w->walk->levels = 0;
    w->writable = w->user = w->executable = true;
    w->reserved = 0;
    if (!(v->cr4 & CR4_PAE)) {
        w->entry_size = 4;
        return walk_levels(w, v->cr3 & 0xfffff000u, 22, allowed);
    }
    w->entry_size = 8;
    w->reserved = MASK_BITS(51, v->set->model->physical_bits) | (v->efer & EFER_NXE ? 0 : PTE_NX);
    if (v->efer & EFER_LMA)
        return walk_levels(w, v->cr3 & PTE_FRAME, 39, allowed);
    w->reserved |= MASK_BITS(62, 52);
    uint64_t pdpte = v->pdpte[w->address >> 30 & 3];
    if (!(pdpte & PTE_P))
        return STEP_NOT_PRESENT;
    return walk_levels(w, pdpte & PTE_FRAME, 21, allowed);
}

static bool walk_run(struct walker *w, uint32_t *error_code)
{
    struct vcpu *v = w->vcpu;
    if (!(v->efer & EFER_LMA))
        w->address = (uint32_t)w->address;
    if (!(v->cr0 & CR0_PG)) {
        *w->walk = (struct page_walk){.gpa = w->address,
                                      .page_size = PAGE_SIZE,
                                      .writable = true,
                                      .user = true,
                                      .executable = true,
                                      .dirty = true};
        return true;
    }
    bool allowed = false;
    enum step step;
    do
        step = walk_once(w, &allowed);
    while (step == STEP_RETRY);
    w->walk->writable = w->writable;
    w->walk->user = w->user;
    w->walk->executable = w->executable;
    if (step == STEP_OK && allowed)
        return true;
    *error_code = fault_code(w, step != STEP_NOT_PRESENT, step == STEP_RESERVED);
    return false;
}

bool page_walk(struct vcpu *vcpu, uint64_t address, unsigned access, struct page_walk *walk, uint32_t *error_code)
{
    struct walker w = {.vcpu = vcpu, .walk = walk, .address = address, .access = access, .set_bits = true};
    vcpu->page_walks++;
    return walk_run(&w, error_code);
}

bool page_peek(struct vcpu *vcpu, uint64_t address, uint64_t *gpa)
{
    struct page_walk walk;
    uint32_t code = 0;
    struct walker w = {.vcpu = vcpu, .walk = &walk, .address = address};
    if ((vcpu->efer & EFER_LMA) && !vcpu_canonical(address))
        return false;
    bool ok = walk_run(&w, &code);
    if (!ok && (code & (ERROR_P | ERROR_RSVD)) != ERROR_P)
        return false;
    *gpa = walk.gpa;
    return true;
}

// ---- Guest-virtual accesses for architecture code -----------------------------------------------------------------

static bool translate_or_fault(struct vcpu *v, uint64_t linear, unsigned access, uint64_t *gpa)
{
    struct page_walk walk;
    uint32_t code;
    if (!page_walk(v, linear, access, &walk, &code)) {
        v->cr2 = v->efer & EFER_LMA ? linear : (uint32_t)linear;
        vcpu_fault(v, EXCEPTION_PF, code);
        return false;
    }
    *gpa = walk.gpa;
    return true;
}

// Splits at the page end; both pages are translated before anything is transferred.
static bool transfer(struct vcpu *v, uint64_t linear, void *data, unsigned size, unsigned access)
{
    struct address_space *memory = v->set->host.memory;
    if (!(v->efer & EFER_LMA)) {
        linear = (uint32_t)linear;
    } else if (!vcpu_canonical(linear) || !vcpu_canonical(linear + size - 1)) {
        vcpu_fault(v, EXCEPTION_GP, 0);
        return false;
    }
    unsigned first = (unsigned)MIN(size, PAGE_SIZE - (linear & (PAGE_SIZE - 1)));
    uint64_t gpa[2];
    if (!translate_or_fault(v, linear, access, &gpa[0]))
        return false;
    if (first < size && !translate_or_fault(v, linear + first, access, &gpa[1]))
        return false;
    if (access & ACCESS_WRITE)
        address_space_write(memory, gpa[0], data, first);
    else
        address_space_read(memory, gpa[0], data, first);
    if (first == size)
        return true;
    if (access & ACCESS_WRITE)
        address_space_write(memory, gpa[1], (char *)data + first, size - first);
    else
        address_space_read(memory, gpa[1], (char *)data + first, size - first);
    return true;
}

bool vcpu_load(struct vcpu *vcpu, uint64_t linear, void *data, unsigned size, unsigned access)
{
    return transfer(vcpu, linear, data, size, access & ~(unsigned)ACCESS_WRITE);
}

bool vcpu_store(struct vcpu *vcpu, uint64_t linear, const void *data, unsigned size, unsigned access)
{
    return transfer(vcpu, linear, (void *)data, size, access | ACCESS_WRITE);
}
