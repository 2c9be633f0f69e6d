// SPDX-License-Identifier: GPL-2.0-or-later
// Exceptions of translated code delivered without leaving it: page faults, in long mode, through an ordinary gate, with
// tables and stack in plain memory. Whatever else there is (16- and 32-bit gates, faults on the way, conforming
// segments, tracked stacks) is left to the interpreter with nothing changed. Built without vector registers.
// (SDM vol. 3, 7.14)
#include "core/cpu/translate/system.h"

#pragma GCC target("general-regs-only")

#define GATE_INTERRUPT 0xe
#define GATE_TRAP      0xf
#define FLAT_MASK      0xff8f00ffffffffffull // base 0, limit 4 GiB
#define FLAT           0x008f00000000ffffull
#define TSS_IST1       0x24
#define TSS_RSP0       4

void *tlb_host(struct context *c, unsigned kind, uint64_t address, unsigned size, bool write)
{
    const struct fast_entry *e = &c->tlb[fast_table(kind, write)][address >> PAGE_SHIFT & (FAST_SIZE - 1)];
    if ((address & ~PAGE_MASK) > PAGE_SIZE - size)
        return NULL;
    if (e->tag != (address & PAGE_MASK) && !tlb_fill_plain(c, address, kind, write))
        return NULL;
    return (void *)(uintptr_t)(e->host + (address & ~PAGE_MASK));
}

bool descriptor_load(struct context *c, uint16_t selector, uint64_t *descriptor)
{
    const struct vcpu *v = c->vcpu;
    if ((selector & 4) || (selector | 7u) > v->gdtr.limit)
        return false;
    const uint64_t *d = tlb_host(c, FAST_KERNEL, v->gdtr.base + (selector & ~7u), 8, false);
    if (!d)
        return false;
    *descriptor = *d;
    return true;
}

// The attributes of the 64-bit code segment that a gate names; false: not the plain case.
static bool handler_segment(struct context *c, uint16_t selector, uint16_t *attr)
{
    uint64_t d;
    if (!(selector & ~3u) || !descriptor_load(c, selector & ~3u, &d) || (d & FLAT_MASK) != FLAT)
        return false;
    *attr = (uint16_t)(d >> 40) & 0xf0ff;
    // Present, 64-bit, code, not conforming, accessed; an inner or equal privilege.
    return (*attr & (SEG_S | SEG_P | SEG_L | SEG_DB | 0xd)) == (SEG_S | SEG_P | SEG_L | 0x9) &&
           SEG_DPL(*attr) <= c->vcpu->cpl;
}

static bool stack_from_tss(struct context *c, unsigned offset, uint64_t *rsp)
{
    const struct vcpu *v = c->vcpu;
    if (v->tr.unusable || offset + 7 > v->tr.limit)
        return false;
    const uint32_t *p = tlb_host(c, FAST_KERNEL, v->tr.base + offset, 8, false);
    if (!p)
        return false;
    *rsp = p[0] | (uint64_t)p[1] << 32;
    return true;
}

uint64_t event_deliver(struct context *c, unsigned vector, int64_t error, uint64_t rip)
{
    struct vcpu *v = c->vcpu;
    if (!(v->efer & EFER_LMA) || !vcpu_code64(v) || vector * 16 + 15 > v->idtr.limit)
        return 0;
    const uint64_t *entry = tlb_host(c, FAST_KERNEL, v->idtr.base + vector * 16, 16, false);
    if (!entry)
        return 0;
    uint64_t low = entry[0], high = entry[1];
    unsigned type = low >> 40 & 31, ist = low >> 32 & 7; // bit 4: a segment
    uint64_t offset = (low & 0xffff) | (low >> 32 & 0xffff0000) | high << 32;
    uint16_t selector = (uint16_t)(low >> 16) & ~3u, attr;
    if ((type != GATE_INTERRUPT && type != GATE_TRAP) || !(low >> 47 & 1) || !vcpu_canonical(offset) ||
        !handler_segment(c, selector, &attr))
        return 0;
    unsigned cpl = SEG_DPL(attr);
    uint64_t rsp = c->guest_rsp, flags = context_flags(c);
    if (ist ? !stack_from_tss(c, TSS_IST1 + (ist - 1) * 8, &rsp)
            : cpl < v->cpl && !stack_from_tss(c, TSS_RSP0 + cpl * 8, &rsp))
        return 0;
    if (!vcpu_canonical(rsp))
        return 0;
    unsigned words = error >= 0 ? 6 : 5;
    rsp = (rsp & ~15ull) - words * 8;
    uint64_t *frame = cpl == 3 ? NULL : tlb_host(c, FAST_KERNEL, rsp, words * 8, true);
    if (!frame)
        return 0;
    if (error >= 0)
        *frame++ = (uint64_t)error;
    frame[0] = rip;
    frame[1] = v->seg[CS].selector;
    frame[2] = flags | FLAG_RF;
    frame[3] = c->guest_rsp;
    frame[4] = v->seg[SS].selector;
    if (cpl != v->cpl)
        v->seg[SS] = (struct segment){.selector = (uint16_t)cpl, .attr = (uint16_t)(cpl << 5), .unusable = true};
    v->seg[CS] = (struct segment){.selector = selector | cpl, .attr = attr, .limit = 0xffffffff};
    v->cpl = (uint8_t)cpl;
    v->exceptions++;
    c->guest_rsp = rsp;
    set_flags(c, flags & ~(uint64_t)(FLAG_TF | FLAG_VM | FLAG_NT | (type == GATE_INTERRUPT ? FLAG_IF : 0)));
    c->counters.delivered++;
    return go_on(c, offset);
}
