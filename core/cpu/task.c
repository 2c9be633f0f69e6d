// SPDX-License-Identifier: GPL-2.0-or-later
// Hardware task switching (SDM vol. 3, chapter 8.3).
#include "core/cpu/task.h"

#include "core/cpu/descriptor.h"

#include <string.h>

#define TSS32_SIZE 104u
#define TSS16_SIZE 44u

// What a TSS holds, of either size.
struct task_state {
    uint64_t cr3;
    uint32_t eip, eflags, gpr[8];
    uint16_t seg[SEGMENT_COUNT], ldt, link;
    bool trap;
};

struct task_switch {
    struct vcpu *vcpu;
    enum task_reason reason;
    unsigned external;
    bool wide;         // the new TSS
    struct segment tr; // the new one
};

static uint32_t tss_field(const uint8_t *tss, bool wide, unsigned index) // EIP EFLAGS EAX .. EDI
{
    return wide ? (uint32_t)load_le(tss + 32 + 4 * index, 4) : (uint32_t)load_le(tss + 14 + 2 * index, 2);
}

static void parse_tss(const uint8_t *tss, bool wide, struct task_state *t)
{
    memset(t, 0, sizeof(*t));
    t->link = (uint16_t)load_le(tss, 2);
    t->eip = tss_field(tss, wide, 0);
    t->eflags = tss_field(tss, wide, 1);
    for (unsigned i = 0; i < 8; i++)
        t->gpr[i] = tss_field(tss, wide, 2 + i) | (wide ? 0 : 0xffff0000);
    for (unsigned i = 0; i < (wide ? 6u : 4u); i++)
        t->seg[i] = (uint16_t)(wide ? load_le(tss + 72 + 4 * i, 2) : load_le(tss + 34 + 2 * i, 2));
    t->ldt = (uint16_t)(wide ? load_le(tss + 96, 2) : load_le(tss + 42, 2));
    t->cr3 = wide ? load_le(tss + 28, 4) : 0;
    t->trap = wide && (tss[100] & 1);
}

// Saves the outgoing task: EIP to the segment selectors.
static bool save_task(struct vcpu *v, uint64_t flags)
{
    bool wide = v->tr.attr & 8;
    uint8_t image[TSS32_SIZE] = {0};
    unsigned size = wide ? 4 : 2, segments = wide ? 6 : 4, length = 0;
    uint64_t base = v->tr.base + (wide ? 32 : 14);
    store_le(image, size, v->rip);
    store_le(image + size, size, flags);
    for (unsigned i = 0; i < 8; i++)
        store_le(image + (2 + i) * size, size, v->gpr[i]);
    length = 10 * size;
    for (unsigned i = 0; i < segments; i++, length += size)
        store_le(image + length, size, v->seg[i].selector);
    return vcpu_store(v, base, image, MIN(length, 16), ACCESS_IMPLICIT) &&
           vcpu_store(v, base + 16, image + 16, length - 16, ACCESS_IMPLICIT);
}

static bool read_tss(struct vcpu *v, const struct segment *tr, bool wide, uint8_t *image)
{
    unsigned size = wide ? TSS32_SIZE : TSS16_SIZE;
    for (unsigned done = 0; done < size; done += 4)
        if (!vcpu_load(v, tr->base + done, image + done, 4, ACCESS_IMPLICIT))
            return false;
    return true;
}

static bool check_target(struct task_switch *t, uint16_t selector)
{
    struct vcpu *v = t->vcpu;
    uint64_t d;
    unsigned vector = t->reason == TASK_IRET ? EXCEPTION_TS : EXCEPTION_GP;
    uint32_t error = (selector & ~3u) | t->external;
    if (selector & 4 || !(selector & ~3u))
        return fault(v, vector, error);
    if (!descriptor_read(v, selector, &d, vector, t->external))
        return false;
    unsigned type = descriptor_type(d);
    bool busy = type & 2;
    if (descriptor_is_segment(d) || ((type & ~2u) != SYSTEM_TSS16 && (type & ~2u) != SYSTEM_TSS32) ||
        busy != (t->reason == TASK_IRET))
        return fault(v, vector, error);
    if (!descriptor_present(d))
        return fault(v, EXCEPTION_NP, error);
    t->wide = type & 8;
    segment_fill(&t->tr, selector, d);
    if (t->tr.limit < (t->wide ? TSS32_SIZE : TSS16_SIZE) - 1)
        return fault(v, EXCEPTION_TS, error);
    return true;
}

static bool load_ldt(struct vcpu *v, uint16_t selector)
{
    uint64_t d;
    v->ldtr = (struct segment){.selector = selector, .unusable = true};
    if (!(selector & ~3u))
        return true;
    if (selector & 4)
        return fault(v, EXCEPTION_TS, selector & ~3u);
    if (!descriptor_read(v, selector, &d, EXCEPTION_TS, 0))
        return false;
    if (descriptor_is_segment(d) || descriptor_type(d) != SYSTEM_LDT || !descriptor_present(d))
        return fault(v, EXCEPTION_TS, selector & ~3u);
    segment_fill(&v->ldtr, selector, d);
    return true;
}

static bool load_code(struct vcpu *v, uint16_t selector, uint32_t eip)
{
    uint64_t d;
    if (!(selector & ~3u))
        return fault(v, EXCEPTION_TS, 0);
    if (!descriptor_read(v, selector, &d, EXCEPTION_TS, 0))
        return false;
    unsigned rpl = selector & 3;
    if (!descriptor_is_code(d) || (descriptor_is_conforming(d) ? descriptor_dpl(d) > rpl : descriptor_dpl(d) != rpl))
        return fault(v, EXCEPTION_TS, selector & ~3u);
    if (!descriptor_present(d))
        return fault(v, EXCEPTION_NP, selector & ~3u);
    if (!descriptor_set_accessed(v, selector, &d))
        return false;
    segment_fill(&v->seg[CS], selector, d);
    if (eip > v->seg[CS].limit)
        return fault(v, EXCEPTION_GP, 0);
    return true;
}

// Everything after the commit point: faults here belong to the new task.
static bool load_segments(struct vcpu *v, const struct task_state *t)
{
    static const uint8_t data[] = {DS, ES, FS, GS};
    if (v->rflags & FLAG_VM) {
        vcpu_set_cpl(v, 3);
        if (!load_ldt(v, t->ldt))
            return false;
        for (unsigned i = 0; i < SEGMENT_COUNT; i++)
            segment_set_real(v, &v->seg[i], t->seg[i]);
        return true;
    }
    // Selectors are visible at once, so that a fault shows them; the hidden parts follow one by one.
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        v->seg[i] = (struct segment){.selector = t->seg[i], .unusable = true};
    vcpu_set_cpl(v, t->seg[CS] & 3);
    if (!load_ldt(v, t->ldt) || !segment_load_stack(v, &v->seg[SS], t->seg[SS], v->cpl, EXCEPTION_TS, 0))
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(data); i++)
        if (!segment_load_data(v, &v->seg[data[i]], t->seg[data[i]], v->cpl, EXCEPTION_TS))
            return false;
    return load_code(v, t->seg[CS], t->eip);
}

static bool push_error(struct vcpu *v, uint32_t error, bool wide)
{
    struct stack s;
    stack_init(&s, v, &v->seg[SS], v->gpr[RSP], v->cpl, false);
    if (!stack_push(&s, error, wide ? 4 : 2))
        return false;
    stack_commit(&s);
    return true;
}

// Busy bits, back link and the outgoing state in memory.
static bool switch_memory(struct task_switch *t, uint16_t selector, struct task_state *new)
{
    struct vcpu *v = t->vcpu;
    bool nested = t->reason == TASK_CALL || t->reason == TASK_GATE;
    uint64_t flags = v->rflags;
    if (t->reason == TASK_IRET)
        flags &= ~(uint64_t)FLAG_NT;
    if ((t->reason == TASK_JUMP || t->reason == TASK_IRET) && !descriptor_set_busy(v, v->tr.selector, false))
        return false;
    if (!save_task(v, flags))
        return false;
    if (nested) {
        uint16_t link = v->tr.selector;
        if (!vcpu_store(v, t->tr.base, &link, 2, ACCESS_IMPLICIT))
            return false;
        new->eflags |= FLAG_NT;
    }
    return t->reason == TASK_IRET || descriptor_set_busy(v, selector, true);
}

static bool switch_task(struct task_switch *t, uint16_t selector, bool has_error, uint32_t error)
{
    struct vcpu *v = t->vcpu;
    uint8_t image[TSS32_SIZE];
    struct task_state new;
    if (!check_target(t, selector) || !read_tss(v, &t->tr, t->wide, image))
        return false;
    parse_tss(image, t->wide, &new);
    if (!switch_memory(t, selector, &new))
        return false;
    v->tr = t->tr;
    v->tr.attr |= 2;
    v->cr0 |= CR0_TS;
    v->rip = new.eip;
    v->rflags = (new.eflags & 0x3f7fd5) | FLAG_1;
    for (unsigned i = 0; i < 8; i++)
        v->gpr[i] = new.gpr[i];
    v->dr7 &= ~0x155ull;
    if (t->wide && (v->cr0 & CR0_PG) && !vcpu_write_cr(v, 3, new.cr3))
        return false;
    if (!load_segments(v, &new))
        return false;
    if (has_error && !push_error(v, error, t->wide))
        return false;
    if (new.trap) {
        v->dr6 |= 0x8000;
        return fault(v, EXCEPTION_DB, -1);
    }
    return true;
}

bool vcpu_task_switch(struct vcpu *vcpu, uint16_t selector, int reason, bool has_error, uint32_t error)
{
    struct task_switch t = {.vcpu = vcpu, .reason = (enum task_reason)reason};
    return switch_task(&t, selector, has_error, error);
}

bool vcpu_task_switch_event(struct vcpu *v, uint16_t selector, unsigned external, bool has_error, uint32_t error)
{
    struct task_switch t = {.vcpu = v, .reason = TASK_GATE, .external = external};
    return switch_task(&t, selector, has_error, error);
}
