// SPDX-License-Identifier: GPL-2.0-or-later
// The x87 register stack, status word and exceptions (SDM vol. 1, 8.1, 8.4 to 8.7).
#include "core/cpu/interpret/x87.h"

static void set_error_line(struct vcpu *v, bool level)
{
    const struct cpu_host *host = &v->set->host;
    v->fpu_error_line = level;
    if (!host->fpu_error)
        return;
    if (host->lock)
        g_rec_mutex_lock(host->lock);
    host->fpu_error(host->opaque, level);
    if (host->lock)
        g_rec_mutex_unlock(host->lock);
}

bool x87_check_pending(struct vcpu *v)
{
    if (G_LIKELY(!(v->xsave.fsw & FSW_ES)))
        return true;
    if (!(v->cr0 & CR0_NE)) {
        // FERR# raises IRQ 13; the handler's write to port F0h asserts IGNNE#. The line stays up until the exception
        // flags are cleared, and lets instructions through, as IGNNE# does.
        if (!v->fpu_error_line)
            set_error_line(v, true);
        return true;
    }
    vcpu_fault(v, EXCEPTION_MF, -1);
    return false;
}

void x87_rotate(struct vcpu *v, unsigned top)
{
    unsigned distance = (top - x87_top(v)) & 7;
    if (distance) {
        uint8_t old[8][16];
        memcpy(old, v->xsave.st, sizeof(old));
        for (unsigned k = 0; k < 8; k++)
            memcpy(v->xsave.st[k].bytes, old[(k + distance) & 7], 16);
    }
    v->xsave.fsw = (uint16_t)((v->xsave.fsw & ~FSW_TOP) | top << 11);
}

void x87_update_summary(struct vcpu *v)
{
    if (v->xsave.fsw & ~v->xsave.fcw & FLOAT_ALL) {
        v->xsave.fsw |= FSW_ES | FSW_B;
    } else {
        v->xsave.fsw &= (uint16_t) ~(FSW_ES | FSW_B);
        if (v->fpu_error_line)
            set_error_line(v, false);
    }
}

void x87_init(struct vcpu *v)
{
    x87_rotate(v, 0);
    v->xsave.fcw = 0x37f;
    v->xsave.fsw = 0;
    v->xsave.ftw = 0;
    v->xsave.fop = 0;
    v->xsave.fip = v->xsave.fdp = 0;
    x87_update_summary(v);
}

// ---- Tags: 0 valid, 1 zero, 2 special, 3 empty ----------------------------------------------------------------------

uint16_t x87_full_tags(const struct vcpu *v)
{
    unsigned tags = 0;
    for (unsigned physical = 0; physical < 8; physical++) {
        struct float80 x = x87_get(v, (physical - x87_top(v)) & 7);
        unsigned exponent = x.sign_exponent & 0x7fff, tag = 0;
        if (!(v->xsave.ftw >> physical & 1))
            tag = 3;
        else if (f80_is_zero(x))
            tag = 1;
        else if (!exponent || exponent == 0x7fff || !(x.significand >> 63))
            tag = 2;
        tags |= tag << 2 * physical;
    }
    return (uint16_t)tags;
}

void x87_set_full_tags(struct vcpu *v, uint16_t tags)
{
    v->xsave.ftw = 0;
    for (unsigned physical = 0; physical < 8; physical++)
        if ((tags >> 2 * physical & 3) != 3)
            v->xsave.ftw |= (uint8_t)(1 << physical);
}

void x87_push(struct vcpu *v, struct float80 x)
{
    x87_rotate(v, (x87_top(v) - 1) & 7);
    x87_set(v, 0, x);
}

void x87_pop(struct vcpu *v)
{
    v->xsave.ftw &= (uint8_t) ~(1u << x87_top(v));
    x87_rotate(v, (x87_top(v) + 1) & 7);
}

// ---- Begin and end --------------------------------------------------------------------------------------------------

bool x87_begin(struct vcpu *v, const struct insn *i, struct x87_call *call)
{
    static const uint8_t precision[4] = {24, 64, 53, 64};
    if (!x87_check_pending(v))
        return false;
    *call = (struct x87_call){.env = {
                                  .rounding = v->xsave.fcw >> 10 & 3,
                                  .precision = precision[v->xsave.fcw >> 8 & 3],
                                  .masks = v->xsave.fcw & FLOAT_ALL,
                                  .x87 = true,
                              }};
    return true;
}

void x87_end(struct vcpu *v, const struct insn *i, struct x87_call *call)
{
    if (x87_suppressed(call)) // the exceptions of the operands come alone
        call->env.flags &= FLOAT_INVALID | FLOAT_DENORMAL | FLOAT_DIVIDE;
    bool up = call->env.rounded_up && call->env.flags & (FLOAT_INEXACT | FLOAT_OVERFLOW | FLOAT_UNDERFLOW);
    uint16_t kept = call->keep_c1 && !call->stack_fault ? 0xffff : (uint16_t)~FSW_C1;
    v->xsave.fsw = (uint16_t)((v->xsave.fsw & kept) | call->env.flags | (call->stack_fault ? FSW_SF : 0) |
                              (up || call->c1 ? FSW_C1 : 0));
    if (call->env.flags & ~call->env.masks)
        x87_update_summary(v);
    v->xsave.fip = insn_rip(v, i);
    v->xsave.fop = (uint16_t)((i->opcode & 7) << 8 | i->modrm);
    if (i->is_memory)
        v->xsave.fdp = insn_offset((struct vcpu *)v, i);
}
