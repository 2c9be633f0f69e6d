// SPDX-License-Identifier: GPL-2.0-or-later
// What the x87 and MMX instructions share: the register stack, the status word, pending exceptions.
// (SDM vol. 1, chapter 8.) Own vCPU thread only.
#ifndef CLOCHE_X87_H
#define CLOCHE_X87_H

#include "core/cpu/interpret/interpret.h"
#include "core/cpu/softfloat/softfloat.h"

#define FSW_SF   0x0040u // stack fault
#define FSW_ES   0x0080u // an unmasked exception is pending
#define FSW_C0   0x0100u
#define FSW_C1   0x0200u
#define FSW_C2   0x0400u
#define FSW_TOP  0x3800u
#define FSW_C3   0x4000u
#define FSW_B    0x8000u
#define FSW_CODE (FSW_C0 | FSW_C1 | FSW_C2 | FSW_C3)

static inline unsigned x87_top(const struct vcpu *v)
{
    return v->xsave.fsw >> 11 & 7;
}
// Raises #MF, or drives the FERR line with CR0.NE clear, when an unmasked exception is pending. False: do not go on.
bool x87_check_pending(struct vcpu *v);
// Sets TOP and moves the registers, which are stored in ST(i) order, so that the physical ones keep their values.
void x87_rotate(struct vcpu *v, unsigned top);
// ES and B follow from the exception flags and masks; call after FCW or FSW were loaded.
void x87_update_summary(struct vcpu *v);
// FNINIT's state (SDM vol. 2).
void x87_init(struct vcpu *v);
// ---- One instruction in progress ------------------------------------------------------------------------------------

struct x87_call {
    struct float_env env;
    bool stack_fault, c1; // c1: beside what rounding says
    bool keep_c1;         // the instruction leaves C1 alone, unless the stack is at fault
};
// False: #MF is recorded, or the block ends to wait for FERR; return NULL.
bool x87_begin(struct vcpu *v, const struct insn *i, struct x87_call *call);
// Merges flags, C1 and the last-instruction pointers into the state.
void x87_end(struct vcpu *v, const struct insn *i, struct x87_call *call);
// An unmasked invalid, denormal or divide exception: operands stay as they are.
static inline bool x87_suppressed(const struct x87_call *call)
{
    return call->env.flags & ~call->env.masks & (FLOAT_INVALID | FLOAT_DENORMAL | FLOAT_DIVIDE);
}
// An unmasked exception that keeps a memory destination from being written.
static inline bool x87_store_suppressed(const struct x87_call *call)
{
    return call->env.flags & ~call->env.masks & (FLOAT_ALL & ~FLOAT_INEXACT);
}
static inline void x87_stack_fault(struct x87_call *call, bool overflow)
{
    call->env.flags |= FLOAT_INVALID;
    call->env.rounded_up = false;
    call->stack_fault = true;
    call->c1 = overflow;
}

static inline bool x87_empty(const struct vcpu *v, unsigned index)
{
    return !(v->xsave.ftw >> ((x87_top(v) + index) & 7) & 1);
}
static inline struct float80 x87_get(const struct vcpu *v, unsigned index)
{
    struct float80 x;
    memcpy(&x.significand, v->xsave.st[index & 7].bytes, 8);
    memcpy(&x.sign_exponent, v->xsave.st[index & 7].bytes + 8, 2);
    return x;
}
static inline void x87_set(struct vcpu *v, unsigned index, struct float80 x) // the register becomes valid
{
    memset(v->xsave.st[index & 7].bytes, 0, 16);
    memcpy(v->xsave.st[index & 7].bytes, &x.significand, 8);
    memcpy(v->xsave.st[index & 7].bytes + 8, &x.sign_exponent, 2);
    v->xsave.ftw |= (uint8_t)(1 << ((x87_top(v) + index) & 7));
}
void x87_push(struct vcpu *v, struct float80 x);
void x87_pop(struct vcpu *v);

// Full tag word from the abridged one and the registers, and back.
uint16_t x87_full_tags(const struct vcpu *v);
void x87_set_full_tags(struct vcpu *v, uint16_t tags);

#endif
