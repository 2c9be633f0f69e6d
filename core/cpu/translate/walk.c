// SPDX-License-Identifier: GPL-2.0-or-later
// The short walk: long-mode and PAE tables in RAM whose Accessed and Dirty bits are set already. Everything else
// (faults, other paging modes, bits to set) is page_walk()'s. Built without vector registers. (SDM vol. 3, 5.5)
#include "core/cpu/translate/system.h"

#pragma GCC target("general-regs-only")

#define PTE_P     BIT(0)
#define PTE_W     BIT(1)
#define PTE_U     BIT(2)
#define PTE_A     BIT(5)
#define PTE_D     BIT(6)
#define PTE_PS    BIT(7)
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

// True: *GPA is where ADDRESS leads, access allowed; *DIRTY: it may be written without another walk.
bool short_walk(struct context *c, uint64_t address, unsigned kind, bool write, uint64_t *gpa, bool *dirty)
{
    const struct vcpu *v = c->vcpu;
    uint64_t table, rights = PTE_W | PTE_U, e = 0;
    unsigned shift = 39;
    if (!(v->cr0 & CR0_PG)) {
        *gpa = address;
        *dirty = true;
        return true;
    }
    if (v->efer & EFER_LMA) {
        if (!vcpu_canonical(address))
            return false;
        table = v->cr3 & PTE_FRAME;
    } else {
        uint64_t pdpte = v->pdpte[address >> 30 & 3];
        if (!(v->cr4 & CR4_PAE) || !(pdpte & PTE_P))
            return false;
        table = pdpte & PTE_FRAME;
        shift = 21;
    }
    uint64_t refused = MASK_BITS(51, 46) | (v->efer & EFER_NXE ? 0 : PTE_NX);
    for (;; shift -= 9) {
        const struct near_mapping *m = near_mapping_find(c, table);
        if (!m)
            return false;
        e = __atomic_load_n((const uint64_t *)(m->host + (table - m->start)) + (address >> shift & 511),
                            __ATOMIC_RELAXED);
        if ((e & (PTE_P | PTE_A)) != (PTE_P | PTE_A) || (e & refused))
            return false;
        rights &= e;
        if (shift == 12 || (e & PTE_PS))
            break;
        table = e & PTE_FRAME;
    }
    if (shift == 39)
        return false;
    uint64_t offset_mask = BIT(shift) - 1;
    if (shift > 12 && (e & PTE_FRAME & offset_mask & ~BIT(12)))
        return false;
    bool user_page = rights & PTE_U;
    bool may_write = (rights & PTE_W) != 0;
    if (kind == FAST_USER ? !user_page : user_page && (v->cr4 & CR4_SMAP) && kind != FAST_KERNEL_AC)
        return false;
    if (kind != FAST_USER && !(v->cr0 & CR0_WP))
        may_write = true;
    if (write && (!may_write || !(e & PTE_D)))
        return false;
    *dirty = may_write && (e & PTE_D);
    *gpa = (e & PTE_FRAME & ~offset_mask) | (address & offset_mask);
    return true;
}
