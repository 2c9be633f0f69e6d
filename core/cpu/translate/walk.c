// SPDX-License-Identifier: GPL-2.0-or-later
// The short walk: tables in RAM whose Accessed and Dirty bits are set already. Everything else (faults, bits to set,
// what is rare) is page_walk()'s. Built without vector registers. (SDM vol. 3, 5.5)
#include "core/cpu/model.h"
#include "core/cpu/translate/system.h"

#pragma GCC target("general-regs-only")

#define PTE_P     BIT(0)
#define PTE_W     BIT(1)
#define PTE_U     BIT(2)
#define PTE_A     BIT(5)
#define PTE_D     BIT(6)
#define PTE_PS    BIT(7)
#define PTE_G     BIT(8)
#define PTE_NX    BIT(63)
#define PTE_FRAME MASK_BITS(51, 12)

// The mapping of GPA from the context's little cache of the map, or NULL.
const struct near_mapping *near_mapping_find(struct context *c, uint64_t gpa)
{
    for (unsigned n = 0; n < NEAR_MAPPINGS; n++)
        if (gpa - c->near[n].start < c->near[n].size)
            return &c->near[n];
    return NULL;
}

// The same, looked up in the address space if need be. NULL: no RAM or ROM there. Foreign code.
const struct near_mapping *near_mapping_get(struct context *c, uint64_t gpa)
{
    const struct near_mapping *found = near_mapping_find(c, gpa);
    struct mapping m;
    if (found)
        return found;
    if (!address_space_lookup(c->vcpu->set->host.memory, gpa, &m) || !m.host)
        return NULL;
    struct near_mapping *slot = &c->near[c->near_next++ % NEAR_MAPPINGS];
    *slot = (struct near_mapping){.start = m.start,
                                  .size = m.size,
                                  .host = m.host,
                                  .ram_offset = m.ram_offset,
                                  .writable = m.region->kind == REGION_RAM};
    return slot;
}

void near_mappings_drop(struct context *c)
{
    for (unsigned n = 0; n < NEAR_MAPPINGS; n++)
        c->near[n].size = 0;
}

// Where the walk begins: the first table and the shift of its index. False: page_walk() decides.
static bool walk_root(const struct context *c, uint64_t address, struct trail *t, uint64_t *table, unsigned *shift)
{
    const struct vcpu *v = c->vcpu;
    if (v->efer & EFER_LMA) {
        *table = v->cr3 & PTE_FRAME;
        *shift = 39;
        return vcpu_canonical(address);
    }
    if (!(v->cr4 & CR4_PAE)) {
        t->narrow = true;
        *table = v->cr3 & 0xfffff000u;
        *shift = 22;
        return true;
    }
    const uint64_t *pdpte = &v->pdpte[address >> 30 & 3];
    t->upper[0] = pdpte;
    t->upper_value[0] = *pdpte;
    t->uppers = 1;
    *table = *pdpte & PTE_FRAME;
    *shift = 21;
    return *pdpte & PTE_P;
}

// May an entry with PS at this level be a leaf? Large pages that the processor lacks are page_walk()'s.
static bool leaf_allowed(const struct vcpu *v, unsigned shift)
{
    return shift == 30 ? cpu_has(v->set->model, FEATURE_PDPE1GB) : shift < 30;
}

static uint64_t reserved_bits(const struct vcpu *v)
{
    if (!(v->cr4 & CR4_PAE))
        return 0;
    uint64_t bits = MASK_BITS(51, v->set->model->physical_bits) | (v->efer & EFER_NXE ? 0 : PTE_NX);
    return v->efer & EFER_LMA ? bits : bits | MASK_BITS(62, 52);
}

static bool walk_tables(struct context *c, uint64_t address, struct trail *t, uint64_t *rights, bool *executable)
{
    const struct vcpu *v = c->vcpu;
    uint64_t table, e, refused = reserved_bits(v);
    unsigned shift;
    if (!walk_root(c, address, t, &table, &shift))
        return false;
    const unsigned index_bits = t->narrow ? 10 : 9;
    *rights = PTE_W | PTE_U;
    *executable = true;
    for (;; shift -= index_bits) {
        const struct near_mapping *m = near_mapping_find(c, table);
        if (!m)
            return false;
        const void *host = m->host + (table - m->start);
        uint64_t index = address >> shift & ((1u << index_bits) - 1);
        e = trail_entry(host, index, t->narrow);
        if ((e & (PTE_P | PTE_A)) != (PTE_P | PTE_A) || (e & refused))
            return false;
        *rights &= e;
        if (!t->narrow && (e & PTE_NX))
            *executable = false;
        bool large = (e & PTE_PS) && shift > 12 && (!t->narrow || (v->cr4 & CR4_PSE));
        if (large && !leaf_allowed(v, shift))
            return false;
        if (shift == 12 || large) {
            t->table = host;
            break;
        }
        t->upper[t->uppers] =
            t->narrow ? (const void *)((const uint32_t *)host + index) : (const void *)((const uint64_t *)host + index);
        t->upper_value[t->uppers++] = e;
        table = e & PTE_FRAME;
    }
    uint64_t offset_mask = BIT(shift) - 1, frame = e & PTE_FRAME & ~offset_mask;
    if (shift > 12 && (t->narrow ? e & BIT(21) : e & PTE_FRAME & offset_mask & ~BIT(12)))
        return false;
    if (t->narrow && shift > 12) // PSE-36
        frame = (e & 0xffc00000u) | (e >> 13 & 0xff) << 32;
    t->leaf = e;
    t->shift = (uint8_t)shift;
    t->global = (e & PTE_G) && (v->cr4 & CR4_PGE);
    t->gpa = frame | (address & offset_mask);
    return true;
}

bool short_walk(struct context *c, uint64_t address, unsigned kind, unsigned access, struct trail *t)
{
    const struct vcpu *v = c->vcpu;
    uint64_t rights;
    bool executable;
    t->uppers = 0;
    t->shift = 0;
    t->narrow = t->global = t->unknown = false;
    if (!(v->cr0 & CR0_PG)) {
        t->gpa = address;
        t->dirty = true;
        return true;
    }
    if (!walk_tables(c, address, t, &rights, &executable))
        return false;
    bool user_page = rights & PTE_U;
    bool may_write = (rights & PTE_W) != 0;
    if (kind == FAST_USER) {
        if (!user_page)
            return false;
    } else if (user_page) {
        if (access & ACCESS_FETCH ? v->cr4 & CR4_SMEP : (v->cr4 & CR4_SMAP) && kind != FAST_KERNEL_AC)
            return false;
    }
    if ((access & ACCESS_FETCH) && !executable)
        return false;
    if (kind != FAST_USER && !(v->cr0 & CR0_WP))
        may_write = true;
    t->dirty = may_write && (t->leaf & PTE_D);
    return !(access & ACCESS_WRITE) || t->dirty;
}
