// SPDX-License-Identifier: GPL-2.0-or-later
// Far jumps, calls and returns, IRET (SDM vol. 2, JMP, CALL, RET, IRET; vol. 3, chapter 6.8).
#include "core/cpu/descriptor.h"
#include "core/cpu/task.h"

static bool check_target(struct vcpu *v, const struct segment *cs, uint64_t offset)
{
    bool code64 = vcpu_long_mode(v) && (cs->attr & SEG_L);
    if (code64 ? !vcpu_canonical(offset) : offset > cs->limit)
        return fault(v, EXCEPTION_GP, 0);
    return true;
}

static uint64_t cut(uint64_t value, unsigned size)
{
    return size == 8 ? value : size == 4 ? (uint32_t)value : (uint16_t)value;
}

static bool attr_is_code64(const struct vcpu *v, uint16_t attr)
{
    return vcpu_long_mode(v) && (attr & SEG_L);
}

// ---- Real and virtual-8086 mode ----
static bool far_real(struct vcpu *v, uint16_t selector, uint64_t offset, unsigned size, bool call, uint64_t return_rip)
{
    if (offset > v->seg[CS].limit)
        return fault(v, EXCEPTION_GP, 0);
    if (call) {
        struct stack s;
        stack_init(&s, v, &v->seg[SS], v->gpr[RSP], v->cpl, false);
        if (!stack_push(&s, v->seg[CS].selector, size) || !stack_push(&s, return_rip, size))
            return false;
        stack_commit(&s);
    }
    segment_set_real(v, &v->seg[CS], selector);
    v->rip = offset;
    return true;
}

// ---- Code segments ----
static bool far_to_code(struct vcpu *v, uint16_t selector, uint64_t d, uint64_t offset, unsigned size, bool call,
                        uint64_t return_rip)
{
    unsigned rpl = selector & 3, dpl = descriptor_dpl(d);
    uint16_t attr = descriptor_attr(d);
    if (descriptor_is_conforming(d) ? dpl > v->cpl : rpl > v->cpl || dpl != v->cpl)
        return fault(v, EXCEPTION_GP, selector & ~3u);
    if (!descriptor_present(d))
        return fault(v, EXCEPTION_NP, selector & ~3u);
    if (vcpu_long_mode(v) && (attr & SEG_L) && (attr & SEG_DB))
        return fault(v, EXCEPTION_GP, selector & ~3u);
    struct segment cs;
    segment_fill(&cs, (uint16_t)((selector & ~3u) | v->cpl), d);
    struct stack s;
    stack_init(&s, v, &v->seg[SS], v->gpr[RSP], v->cpl, vcpu_code64(v));
    if (call && (!stack_push(&s, v->seg[CS].selector, size) || !stack_push(&s, return_rip, size)))
        return false;
    if (!check_target(v, &cs, offset) || !descriptor_set_accessed(v, selector, &d))
        return false;
    cs.attr |= TYPE_ACCESSED;
    if (call)
        stack_commit(&s);
    v->seg[CS] = cs;
    v->rip = offset;
    return true;
}

// ---- Call gates ----
struct call_gate {
    uint16_t gate, selector; // of the gate, of the code segment in it
    uint64_t offset;
    unsigned parameters;
    unsigned size; // of pushes
};

static bool copy_parameters(struct vcpu *v, struct stack *to, const struct call_gate *gate)
{
    struct stack from;
    stack_init(&from, v, &v->seg[SS], v->gpr[RSP], v->cpl, false);
    for (unsigned i = gate->parameters; i-- > 0;) {
        uint64_t value;
        if (!stack_peek(&from, i * gate->size, &value, gate->size) || !stack_push(to, value, gate->size))
            return false;
    }
    return true;
}

static bool call_inner(struct vcpu *v, const struct call_gate *gate, struct segment *cs, unsigned new_cpl,
                       uint64_t return_rip)
{
    struct segment ss = v->seg[SS];
    uint16_t selector;
    uint64_t sp;
    bool wide = vcpu_long_mode(v);
    if (wide) {
        if (!tss_rsp64(v, 4 + new_cpl * 8, &sp, 0))
            return false;
        segment_set_null(v, &ss, (uint16_t)new_cpl);
        ss.attr = (uint16_t)(new_cpl << 5);
    } else if (!tss_stack(v, new_cpl, &selector, &sp, 0) ||
               !segment_load_stack(v, &ss, selector, new_cpl, EXCEPTION_TS, 0)) {
        return false;
    }
    struct stack s;
    stack_init(&s, v, &ss, sp, new_cpl, wide);
    s.error = ss.selector & ~3;
    if (!stack_push(&s, v->seg[SS].selector, gate->size) || !stack_push(&s, v->gpr[RSP], gate->size) ||
        (!wide && !copy_parameters(v, &s, gate)) || !stack_push(&s, v->seg[CS].selector, gate->size) ||
        !stack_push(&s, return_rip, gate->size) || !check_target(v, cs, gate->offset))
        return false;
    v->seg[SS] = ss;
    v->gpr[RSP] = s.mask == 0xffff ? (sp & ~0xffffull) | (s.sp & 0xffff) : s.sp;
    v->seg[CS] = *cs;
    v->rip = gate->offset;
    vcpu_set_cpl(v, new_cpl);
    return true;
}

static bool far_through_gate(struct vcpu *v, uint16_t selector, uint64_t d, bool call, uint64_t return_rip)
{
    bool wide = vcpu_long_mode(v);
    struct call_gate gate = {.gate = selector, .selector = (uint16_t)(d >> 16), .parameters = d >> 32 & 31};
    unsigned type = descriptor_type(d), dpl = descriptor_dpl(d);
    uint64_t high = 0, code;
    if (dpl < v->cpl || dpl < (selector & 3u))
        return fault(v, EXCEPTION_GP, selector & ~3u);
    if (!descriptor_present(d))
        return fault(v, EXCEPTION_NP, selector & ~3u);
    if (wide && !descriptor_read_high(v, selector, &high, EXCEPTION_GP, 0))
        return false;
    if (wide && (high >> 40 & 31))
        return fault(v, EXCEPTION_GP, selector & ~3u);
    gate.offset = (d & 0xffff) | (d >> 32 & 0xffff0000) | high << 32;
    gate.size = wide ? 8 : type == SYSTEM_CALL32 ? 4 : 2;
    if (gate.size == 2)
        gate.offset &= 0xffff;
    if (!(gate.selector & ~3u))
        return fault(v, EXCEPTION_GP, 0);
    if (!descriptor_read(v, gate.selector, &code, EXCEPTION_GP, 0))
        return false;
    uint32_t error = gate.selector & ~3u;
    unsigned code_dpl = descriptor_dpl(code);
    if (!descriptor_is_code(code) || code_dpl > v->cpl)
        return fault(v, EXCEPTION_GP, error);
    if (wide && (!(descriptor_attr(code) & SEG_L) || (descriptor_attr(code) & SEG_DB)))
        return fault(v, EXCEPTION_GP, error);
    if (!call && !descriptor_is_conforming(code) && code_dpl != v->cpl)
        return fault(v, EXCEPTION_GP, error);
    if (!descriptor_present(code))
        return fault(v, EXCEPTION_NP, error);
    if (!descriptor_set_accessed(v, gate.selector, &code))
        return false;
    bool inner = call && !descriptor_is_conforming(code) && code_dpl < v->cpl;
    unsigned new_cpl = inner ? code_dpl : v->cpl;
    struct segment cs;
    segment_fill(&cs, (uint16_t)((gate.selector & ~3u) | new_cpl), code);
    if (inner)
        return call_inner(v, &gate, &cs, new_cpl, return_rip);
    struct stack s;
    stack_init(&s, v, &v->seg[SS], v->gpr[RSP], v->cpl, wide && vcpu_code64(v));
    if (call && (!stack_push(&s, v->seg[CS].selector, gate.size) || !stack_push(&s, return_rip, gate.size)))
        return false;
    if (!check_target(v, &cs, gate.offset))
        return false;
    if (call)
        stack_commit(&s);
    v->seg[CS] = cs;
    v->rip = gate.offset;
    return true;
}

static bool far_to_task(struct vcpu *v, uint16_t selector, uint64_t d, bool call, uint64_t return_rip)
{
    unsigned dpl = descriptor_dpl(d);
    if (vcpu_long_mode(v) || dpl < v->cpl || dpl < (selector & 3u))
        return fault(v, EXCEPTION_GP, selector & ~3u);
    if (!descriptor_present(d))
        return fault(v, EXCEPTION_NP, selector & ~3u);
    if (descriptor_type(d) == SYSTEM_TASK_GATE)
        selector = (uint16_t)(d >> 16);
    uint64_t rip = v->rip;
    v->rip = return_rip;
    if (vcpu_task_switch(v, selector, call ? TASK_CALL : TASK_JUMP, false, 0))
        return true;
    if (v->rip == return_rip)
        v->rip = rip; // refused before the switch: a fault of this instruction
    return false;
}

bool vcpu_far_transfer(struct vcpu *vcpu, uint16_t selector, uint64_t offset, unsigned operand_size, bool call,
                       uint64_t return_rip)
{
    offset = cut(offset, operand_size);
    if (!vcpu_protected(vcpu))
        return far_real(vcpu, selector, offset, operand_size, call, return_rip);
    uint64_t d;
    if (!(selector & ~3u))
        return fault(vcpu, EXCEPTION_GP, 0);
    if (!descriptor_read(vcpu, selector, &d, EXCEPTION_GP, 0))
        return false;
    if (descriptor_is_code(d))
        return far_to_code(vcpu, selector, d, offset, operand_size, call, return_rip);
    if (descriptor_is_segment(d))
        return fault(vcpu, EXCEPTION_GP, selector & ~3u);
    switch (descriptor_type(d)) {
    case SYSTEM_CALL16:
        if (vcpu_long_mode(vcpu))
            break;
        return far_through_gate(vcpu, selector, d, call, return_rip);
    case SYSTEM_CALL32:
        return far_through_gate(vcpu, selector, d, call, return_rip);
    case SYSTEM_TASK_GATE:
    case SYSTEM_TSS16:
    case SYSTEM_TSS32:
        return far_to_task(vcpu, selector, d, call, return_rip);
    default:
        break;
    }
    return fault(vcpu, EXCEPTION_GP, selector & ~3u);
}

// ---- Returns ------------------------------------------------------------------------------------------------------

// Code segment of a return: checks against the new CPL (the selector's RPL).
static bool return_code_segment(struct vcpu *v, uint16_t selector, struct segment *cs)
{
    uint64_t d;
    unsigned rpl = selector & 3;
    if (!(selector & ~3u))
        return fault(v, EXCEPTION_GP, 0);
    if (!descriptor_read(v, selector, &d, EXCEPTION_GP, 0))
        return false;
    uint16_t attr = descriptor_attr(d);
    if (!descriptor_is_code(d) || rpl < v->cpl ||
        (descriptor_is_conforming(d) ? descriptor_dpl(d) > rpl : descriptor_dpl(d) != rpl))
        return fault(v, EXCEPTION_GP, selector & ~3u);
    if (vcpu_long_mode(v) && (attr & SEG_L) && (attr & SEG_DB))
        return fault(v, EXCEPTION_GP, selector & ~3u);
    if (!descriptor_present(d))
        return fault(v, EXCEPTION_NP, selector & ~3u);
    if (!descriptor_set_accessed(v, selector, &d))
        return false;
    segment_fill(cs, selector, d);
    return true;
}

// Stack segment of a return to CPL, in a mode that is 64-bit or not.
static bool return_stack_segment(struct vcpu *v, uint16_t selector, unsigned cpl, bool to64, struct segment *ss)
{
    if (selector & ~3u)
        return segment_load_stack(v, ss, selector, cpl, EXCEPTION_GP, 0);
    if (!to64 || cpl == 3 || (selector & 3u) != cpl)
        return fault(v, EXCEPTION_GP, 0);
    segment_set_null(v, ss, selector);
    ss->attr = (uint16_t)(cpl << 5);
    return true;
}

// Data segments that the outer level may not use become null.
static void drop_inner_segments(struct vcpu *v, unsigned cpl)
{
    static const uint8_t data[] = {ES, DS, FS, GS};
    for (unsigned i = 0; i < G_N_ELEMENTS(data); i++) {
        struct segment *s = &v->seg[data[i]];
        bool conforming = (s->attr & TYPE_CODE) && (s->attr & TYPE_CONFORMING);
        if (s->unusable || (!conforming && SEG_DPL(s->attr) < cpl)) {
            uint64_t base = s->base;
            bool was_null = s->unusable;
            segment_set_null(v, s, was_null ? s->selector & 3 : 0);
            if (was_null)
                s->base = base; // set by MSR or WRFSBASE
        }
    }
}

static bool far_return_real(struct vcpu *v, unsigned size, unsigned release)
{
    struct stack s;
    uint64_t ip, cs;
    stack_init(&s, v, &v->seg[SS], v->gpr[RSP], v->cpl, false);
    if (!stack_pop(&s, &ip, size) || !stack_pop(&s, &cs, size))
        return false;
    if (ip > v->seg[CS].limit)
        return fault(v, EXCEPTION_GP, 0);
    s.sp += release;
    stack_commit(&s);
    segment_set_real(v, &v->seg[CS], (uint16_t)cs);
    v->rip = ip;
    return true;
}

bool vcpu_far_return(struct vcpu *vcpu, unsigned operand_size, unsigned release)
{
    if (!vcpu_protected(vcpu))
        return far_return_real(vcpu, operand_size, release);
    struct stack s;
    uint64_t ip, selector;
    struct segment cs, ss;
    stack_init(&s, vcpu, &vcpu->seg[SS], vcpu->gpr[RSP], vcpu->cpl, vcpu_code64(vcpu));
    if (!stack_pop(&s, &ip, operand_size) || !stack_pop(&s, &selector, operand_size) ||
        !return_code_segment(vcpu, (uint16_t)selector, &cs))
        return false;
    s.sp = (s.sp + release) & s.mask;
    unsigned cpl = selector & 3;
    if (cpl == vcpu->cpl) {
        if (!check_target(vcpu, &cs, ip))
            return false;
        stack_commit(&s);
        vcpu->seg[CS] = cs;
        vcpu->rip = ip;
        return true;
    }
    uint64_t sp, ss_selector;
    bool to64 = attr_is_code64(vcpu, cs.attr);
    if (!stack_pop(&s, &sp, operand_size) || !stack_pop(&s, &ss_selector, operand_size) ||
        !return_stack_segment(vcpu, (uint16_t)ss_selector, cpl, to64, &ss) || !check_target(vcpu, &cs, ip))
        return false;
    struct stack outer;
    stack_init(&outer, vcpu, &ss, sp, cpl, to64);
    outer.sp += release;
    vcpu->gpr[RSP] = outer.mask == 0xffff ? (sp & ~0xffffull) | (outer.sp & 0xffff) : outer.sp & outer.mask;
    vcpu->seg[CS] = cs;
    vcpu->seg[SS] = ss;
    vcpu->rip = ip;
    vcpu_set_cpl(vcpu, cpl);
    drop_inner_segments(vcpu, cpl);
    return true;
}

// ---- IRET -----------------------------------------------------------------------------------------------------------

static void iret_flags(struct vcpu *v, uint64_t flags, unsigned size, unsigned old_cpl)
{
    uint64_t mask = FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT;
    if (size != 2)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    if (old_cpl == 0)
        mask |= FLAG_IOPL | (size != 2 ? FLAG_VIF | FLAG_VIP : 0);
    if (old_cpl <= (v->rflags >> 12 & 3))
        mask |= FLAG_IF;
    v->rflags = (v->rflags & ~mask) | (flags & mask) | FLAG_1;
}

static bool iret_real(struct vcpu *v, unsigned size)
{
    struct stack s;
    uint64_t ip, cs, flags;
    stack_init(&s, v, &v->seg[SS], v->gpr[RSP], v->cpl, false);
    if (!stack_pop(&s, &ip, size) || !stack_pop(&s, &cs, size) || !stack_pop(&s, &flags, size))
        return false;
    if (ip > v->seg[CS].limit)
        return fault(v, EXCEPTION_GP, 0);
    uint64_t mask = FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_IF | FLAG_IOPL;
    if (size != 2)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    stack_commit(&s);
    v->rflags = (v->rflags & ~mask) | (flags & mask) | FLAG_1;
    segment_set_real(v, &v->seg[CS], (uint16_t)cs);
    v->rip = ip;
    return true;
}

// In virtual-8086 mode: IOPL 3, or with VME the virtual interrupt flag (SDM vol. 3, 22.3).
static bool iret_v86(struct vcpu *v, unsigned size)
{
    bool iopl3 = (v->rflags & FLAG_IOPL) == FLAG_IOPL;
    if (!iopl3 && (size != 2 || !(v->cr4 & CR4_VME)))
        return fault(v, EXCEPTION_GP, 0);
    struct stack s;
    uint64_t ip, cs, flags;
    stack_init(&s, v, &v->seg[SS], v->gpr[RSP], 3, false);
    if (!stack_pop(&s, &ip, size) || !stack_pop(&s, &cs, size) || !stack_pop(&s, &flags, size))
        return false;
    if (ip > 0xffff || (!iopl3 && ((flags & FLAG_TF) || ((flags & FLAG_IF) && (v->rflags & FLAG_VIP)))))
        return fault(v, EXCEPTION_GP, 0);
    uint64_t mask = FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT | (iopl3 ? FLAG_IF : 0);
    if (size != 2)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    stack_commit(&s);
    v->rflags = (v->rflags & ~mask) | (flags & mask) | FLAG_1;
    if (!iopl3)
        v->rflags = (v->rflags & ~(uint64_t)FLAG_VIF) | (flags & FLAG_IF ? FLAG_VIF : 0);
    segment_set_real(v, &v->seg[CS], (uint16_t)cs);
    v->rip = ip;
    return true;
}

static bool iret_to_v86(struct vcpu *v, struct stack *s, uint64_t ip, uint64_t cs, uint64_t flags)
{
    uint64_t values[6]; // ESP SS ES DS FS GS
    static const uint8_t order[6] = {0, SS, ES, DS, FS, GS};
    for (unsigned i = 0; i < 6; i++)
        if (!stack_pop(s, &values[i], 4))
            return false;
    if ((ip & 0xffffffff) > 0xffff)
        return fault(v, EXCEPTION_GP, 0);
    v->rflags = (flags & 0x3f7fd5) | FLAG_VM | FLAG_1;
    segment_set_real(v, &v->seg[CS], (uint16_t)cs);
    for (unsigned i = 1; i < 6; i++)
        segment_set_real(v, &v->seg[order[i]], (uint16_t)values[i]);
    v->gpr[RSP] = (uint32_t)values[0];
    v->rip = ip & 0xffff;
    vcpu_set_cpl(v, 3);
    return true;
}

static bool iret_nested_task(struct vcpu *v)
{
    uint16_t link;
    if (!vcpu_load(v, v->tr.base, &link, 2, ACCESS_IMPLICIT))
        return false;
    return vcpu_task_switch(v, link, TASK_IRET, false, 0);
}

static bool iret_protected(struct vcpu *v, unsigned size)
{
    struct stack s;
    uint64_t ip, selector, flags, sp, ss_selector;
    struct segment cs, ss;
    unsigned old_cpl = v->cpl;
    bool from64 = vcpu_code64(v);
    stack_init(&s, v, &v->seg[SS], v->gpr[RSP], v->cpl, from64);
    if (!stack_pop(&s, &ip, size) || !stack_pop(&s, &selector, size) || !stack_pop(&s, &flags, size))
        return false;
    if (!vcpu_long_mode(v) && size == 4 && (flags & FLAG_VM) && v->cpl == 0)
        return iret_to_v86(v, &s, ip, selector, flags);
    if (!return_code_segment(v, (uint16_t)selector, &cs))
        return false;
    unsigned cpl = selector & 3;
    bool to64 = attr_is_code64(v, cs.attr);
    bool outer = cpl > v->cpl;
    if (outer || from64) {
        if (!stack_pop(&s, &sp, size) || !stack_pop(&s, &ss_selector, size) ||
            !return_stack_segment(v, (uint16_t)ss_selector, cpl, to64, &ss) || !check_target(v, &cs, ip))
            return false;
        struct stack target;
        stack_init(&target, v, &ss, sp, cpl, to64);
        v->gpr[RSP] = target.mask == 0xffff ? (v->gpr[RSP] & ~0xffffull) | (sp & 0xffff) : sp & target.mask;
        v->seg[SS] = ss;
    } else {
        if (!check_target(v, &cs, ip))
            return false;
        stack_commit(&s);
    }
    v->seg[CS] = cs;
    v->rip = ip;
    vcpu_set_cpl(v, cpl);
    iret_flags(v, flags, size, old_cpl);
    if (outer)
        drop_inner_segments(v, cpl);
    return true;
}

bool vcpu_iret(struct vcpu *vcpu, unsigned operand_size)
{
    bool done;
    if (vcpu_real_mode(vcpu)) {
        done = iret_real(vcpu, operand_size);
    } else if (vcpu_v86(vcpu)) {
        done = iret_v86(vcpu, operand_size);
    } else if (vcpu->rflags & FLAG_NT) {
        if (vcpu_long_mode(vcpu))
            return fault(vcpu, EXCEPTION_GP, 0);
        done = iret_nested_task(vcpu);
    } else {
        done = iret_protected(vcpu, operand_size);
    }
    if (done)
        vcpu->nmi_blocked = false;
    return done;
}
