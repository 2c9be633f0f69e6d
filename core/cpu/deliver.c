// SPDX-License-Identifier: GPL-2.0-or-later
// Delivery of interrupts and exceptions through IVT and IDT (SDM vol. 3, chapter 7; 22.3 for virtual-8086 mode).
#include "core/cpu/descriptor.h"
#include "core/cpu/task.h"

struct event {
    enum event_type type;
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t return_rip;
};

void vcpu_fault(struct vcpu *vcpu, unsigned vector, int64_t error_code)
{
    vcpu->event_pending = true;
    vcpu->event_type = EVENT_EXCEPTION;
    vcpu->event_vector = (uint8_t)vector;
    vcpu->event_has_error = error_code >= 0;
    vcpu->event_error = error_code >= 0 ? (uint32_t)error_code : 0;
}

static bool is_software(enum event_type type)
{
    return type == EVENT_SOFTWARE_INT || type == EVENT_SOFTWARE_EXCEPTION;
}

static unsigned external_bit(const struct event *e)
{
    return is_software(e->type) ? 0 : 1;
}

// The flags image that is pushed: faults set RF, so that an instruction breakpoint does not hit again.
static uint64_t pushed_flags(const struct vcpu *v, const struct event *e)
{
    uint64_t flags = v->rflags | FLAG_1;
    if (e->type == EVENT_EXCEPTION && e->vector != EXCEPTION_DB && e->vector != EXCEPTION_DF &&
        e->vector != EXCEPTION_MC)
        flags |= FLAG_RF;
    return flags;
}

// ---- Real mode ----------------------------------------------------------------------------------------------------

static bool deliver_real(struct vcpu *v, const struct event *e)
{
    uint16_t entry[2];
    if (e->vector * 4u + 3 > v->idtr.limit)
        return fault(v, EXCEPTION_GP, -1);
    if (!vcpu_load(v, v->idtr.base + e->vector * 4u, entry, 4, ACCESS_IMPLICIT))
        return false;
    struct stack s;
    stack_init(&s, v, &v->seg[SS], v->gpr[RSP], 0, false);
    s.error = -1;
    if (!stack_push(&s, v->rflags & 0xffff, 2) || !stack_push(&s, v->seg[CS].selector, 2) ||
        !stack_push(&s, e->return_rip & 0xffff, 2))
        return false;
    stack_commit(&s);
    v->rflags &= ~(uint64_t)(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
    segment_set_real(v, &v->seg[CS], GUINT16_FROM_LE(entry[1]));
    v->rip = GUINT16_FROM_LE(entry[0]);
    return true;
}

// ---- Protected and long mode --------------------------------------------------------------------------------------

struct gate {
    unsigned type;
    uint16_t selector;
    uint64_t offset;
    unsigned ist;
    unsigned dpl;
};

static bool read_gate(struct vcpu *v, const struct event *e, struct gate *gate)
{
    bool wide = vcpu_long_mode(v);
    unsigned size = wide ? 16 : 8;
    uint32_t error = e->vector * 8u + 2 + external_bit(e);
    uint64_t d[2] = {0};
    if ((e->vector + 1) * size - 1 > v->idtr.limit)
        return fault(v, EXCEPTION_GP, error);
    if (!vcpu_load(v, v->idtr.base + (uint64_t)e->vector * size, d, size, ACCESS_IMPLICIT))
        return false;
    gate->type = descriptor_type(d[0]);
    gate->dpl = descriptor_dpl(d[0]);
    gate->selector = (uint16_t)(d[0] >> 16);
    gate->offset = (d[0] & 0xffff) | (d[0] >> 32 & 0xffff0000) | d[1] << 32;
    gate->ist = wide ? d[0] >> 32 & 7 : 0;
    bool type_ok =
        gate->type == SYSTEM_INTERRUPT32 || gate->type == SYSTEM_TRAP32 ||
        (!wide && (gate->type == SYSTEM_INTERRUPT16 || gate->type == SYSTEM_TRAP16 || gate->type == SYSTEM_TASK_GATE));
    if (descriptor_is_segment(d[0]) || !type_ok || (is_software(e->type) && gate->dpl < v->cpl))
        return fault(v, EXCEPTION_GP, error);
    if (!descriptor_present(d[0]))
        return fault(v, EXCEPTION_NP, error);
    if (gate->type == SYSTEM_INTERRUPT16 || gate->type == SYSTEM_TRAP16)
        gate->offset &= 0xffff;
    return true;
}

static bool read_handler_segment(struct vcpu *v, const struct gate *gate, unsigned ext, struct segment *cs,
                                 unsigned *new_cpl)
{
    uint64_t d;
    uint32_t error = (gate->selector & ~3u) | ext;
    if (!(gate->selector & ~3u))
        return fault(v, EXCEPTION_GP, ext);
    if (!descriptor_read(v, gate->selector, &d, EXCEPTION_GP, ext))
        return false;
    if (!descriptor_is_code(d) || descriptor_dpl(d) > v->cpl)
        return fault(v, EXCEPTION_GP, error);
    if (!descriptor_present(d))
        return fault(v, EXCEPTION_NP, error);
    uint16_t attr = descriptor_attr(d);
    if (vcpu_long_mode(v) && (!(attr & SEG_L) || (attr & SEG_DB)))
        return fault(v, EXCEPTION_GP, error);
    *new_cpl = descriptor_is_conforming(d) ? v->cpl : descriptor_dpl(d);
    if ((v->rflags & FLAG_VM) && *new_cpl != 0)
        return fault(v, EXCEPTION_GP, error);
    if (!descriptor_set_accessed(v, gate->selector, &d))
        return false;
    segment_fill(cs, (uint16_t)((gate->selector & ~3u) | *new_cpl), d);
    return true;
}

static void enter_handler(struct vcpu *v, const struct gate *gate, const struct segment *cs, unsigned new_cpl,
                          struct stack *s)
{
    v->gpr[RSP] = s->mask == 0xffff ? (v->gpr[RSP] & ~0xffffull) | (s->sp & 0xffff) : s->sp;
    v->seg[CS] = *cs;
    v->rip = gate->offset;
    v->rflags &= ~(uint64_t)(FLAG_TF | FLAG_VM | FLAG_RF | FLAG_NT);
    if (gate->type == SYSTEM_INTERRUPT16 || gate->type == SYSTEM_INTERRUPT32)
        v->rflags &= ~(uint64_t)FLAG_IF;
    vcpu_set_cpl(v, new_cpl);
}

static bool deliver_long(struct vcpu *v, const struct event *e, const struct gate *gate)
{
    struct segment cs, ss = v->seg[SS];
    unsigned new_cpl, ext = external_bit(e);
    if (!read_handler_segment(v, gate, ext, &cs, &new_cpl))
        return false;
    uint64_t rsp = v->gpr[RSP];
    if (gate->ist && !tss_rsp64(v, 0x24 + (gate->ist - 1) * 8, &rsp, ext))
        return false;
    if (!gate->ist && new_cpl < v->cpl && !tss_rsp64(v, 4 + new_cpl * 8, &rsp, ext))
        return false;
    if (!vcpu_canonical(rsp))
        return fault(v, EXCEPTION_SS, ext);
    struct stack s;
    stack_init(&s, v, &ss, rsp & ~15ull, new_cpl, true);
    s.external = ext;
    if (!stack_push(&s, ss.selector, 8) || !stack_push(&s, v->gpr[RSP], 8) || !stack_push(&s, pushed_flags(v, e), 8) ||
        !stack_push(&s, v->seg[CS].selector, 8) || !stack_push(&s, e->return_rip, 8) ||
        (e->has_error && !stack_push(&s, e->error, 8)))
        return false;
    if (!vcpu_canonical(gate->offset))
        return fault(v, EXCEPTION_GP, 0);
    if (new_cpl != v->cpl) {
        segment_set_null(v, &v->seg[SS], (uint16_t)new_cpl);
        v->seg[SS].attr = (uint16_t)(new_cpl << 5);
    }
    enter_handler(v, gate, &cs, new_cpl, &s);
    return true;
}

static bool push_frame(struct vcpu *v, struct stack *s, const struct event *e, bool inner, unsigned size)
{
    bool v86 = v->rflags & FLAG_VM;
    static const uint8_t v86_order[] = {GS, FS, DS, ES};
    for (unsigned i = 0; v86 && i < 4; i++)
        if (!stack_push(s, v->seg[v86_order[i]].selector, size))
            return false;
    if (inner && (!stack_push(s, v->seg[SS].selector, size) || !stack_push(s, v->gpr[RSP], size)))
        return false;
    return stack_push(s, pushed_flags(v, e), size) && stack_push(s, v->seg[CS].selector, size) &&
           stack_push(s, e->return_rip, size) && (!e->has_error || stack_push(s, e->error, size));
}

static bool deliver_legacy(struct vcpu *v, const struct event *e, const struct gate *gate)
{
    struct segment cs, ss = v->seg[SS];
    unsigned new_cpl, ext = external_bit(e);
    unsigned size = gate->type == SYSTEM_INTERRUPT32 || gate->type == SYSTEM_TRAP32 ? 4 : 2;
    if (!read_handler_segment(v, gate, ext, &cs, &new_cpl))
        return false;
    bool inner = new_cpl < v->cpl;
    uint64_t sp = v->gpr[RSP];
    uint16_t selector;
    if (inner && (!tss_stack(v, new_cpl, &selector, &sp, ext) ||
                  !segment_load_stack(v, &ss, selector, new_cpl, EXCEPTION_TS, ext)))
        return false;
    struct stack s;
    stack_init(&s, v, &ss, sp, new_cpl, false);
    s.external = ext;
    s.error = inner ? ss.selector & ~3 : 0;
    if (!push_frame(v, &s, e, inner, size))
        return false;
    if (gate->offset > cs.limit)
        return fault(v, EXCEPTION_GP, ext);
    if (v->rflags & FLAG_VM)
        for (unsigned i = 0; i < SEGMENT_COUNT; i++)
            if (i != CS && i != SS)
                segment_set_null(v, &v->seg[i], 0);
    v->seg[SS] = ss;
    if (inner)
        v->gpr[RSP] = sp;
    enter_handler(v, gate, &cs, new_cpl, &s);
    return true;
}

static bool deliver_once(struct vcpu *v, const struct event *e)
{
    struct gate gate;
    if (!(v->cr0 & CR0_PE))
        return deliver_real(v, e);
    if (!read_gate(v, e, &gate))
        return false;
    if (gate.type == SYSTEM_TASK_GATE) {
        uint64_t rip = v->rip;
        v->rip = e->return_rip;
        if (vcpu_task_switch_event(v, gate.selector, external_bit(e), e->has_error, e->error))
            return true;
        if (v->event_pending && v->rip == e->return_rip)
            v->rip = rip;
        return false;
    }
    return vcpu_long_mode(v) ? deliver_long(v, e, &gate) : deliver_legacy(v, e, &gate);
}

// ---- Double and triple fault (SDM vol. 3, table 7-5) --------------------------------------------------------------

static bool is_contributory(unsigned vector)
{
    return vector == EXCEPTION_DE || (vector >= EXCEPTION_TS && vector <= EXCEPTION_GP);
}

static bool makes_double_fault(const struct event *first, unsigned second)
{
    if (first->type != EVENT_EXCEPTION)
        return false;
    if (first->vector == EXCEPTION_PF)
        return second == EXCEPTION_PF || is_contributory(second);
    return is_contributory(first->vector) && is_contributory(second);
}

static bool deliver(struct vcpu *v, struct event e)
{
    for (;;) {
        v->event_pending = false;
        v->exceptions++;
        if (deliver_once(v, &e)) {
            if (e.type == EVENT_NMI)
                v->nmi_blocked = true;
            v->interrupt_shadow = 0;
            return true;
        }
        if (e.vector == EXCEPTION_DF && e.type == EVENT_EXCEPTION) {
            v->event_pending = false;
            v->activity = VCPU_SHUTDOWN;
            return false;
        }
        struct event next = {.type = EVENT_EXCEPTION,
                             .vector = v->event_vector,
                             .has_error = v->event_has_error,
                             .error = v->event_error,
                             .return_rip = v->rip};
        if (makes_double_fault(&e, next.vector))
            next = (struct event){
                .type = EVENT_EXCEPTION, .vector = EXCEPTION_DF, .has_error = true, .return_rip = v->rip};
        e = next;
        if (vcpu_real_mode(v))
            e.has_error = false;
    }
}

bool vcpu_deliver(struct vcpu *vcpu, enum event_type type, unsigned vector, int64_t error_code)
{
    struct event e = {.type = type,
                      .vector = (uint8_t)vector,
                      .has_error = error_code >= 0,
                      .error = error_code >= 0 ? (uint32_t)error_code : 0,
                      .return_rip = vcpu->rip};
    return deliver(vcpu, e);
}

bool vcpu_deliver_fault(struct vcpu *vcpu)
{
    struct event e = {.type = EVENT_EXCEPTION,
                      .vector = vcpu->event_vector,
                      .has_error = vcpu->event_has_error,
                      .error = vcpu->event_error,
                      .return_rip = vcpu->rip};
    return deliver(vcpu, e);
}

bool vcpu_software_interrupt(struct vcpu *vcpu, enum event_type type, unsigned vector, uint64_t next_rip)
{
    return deliver(vcpu, (struct event){.type = type, .vector = (uint8_t)vector, .return_rip = next_rip});
}
