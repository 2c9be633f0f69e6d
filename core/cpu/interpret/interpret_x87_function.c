// SPDX-License-Identifier: GPL-2.0-or-later
// x87 roots, remainders, scaling and transcendentals (SDM vol. 1, 8.3.5 to 8.3.8; vol. 2).
#include "core/cpu/interpret/x87.h"

static const struct insn *finish(struct vcpu *v, const struct insn *i, struct x87_call *call)
{
    x87_end(v, i, call);
    return i + 1;
}

static inline void set_codes(struct vcpu *v, uint16_t mask, uint16_t codes)
{
    v->xsave.fsw = (uint16_t)((v->xsave.fsw & ~mask) | codes);
}

// ---- ST(0) = f(ST(0)) -----------------------------------------------------------------------------------------------

typedef struct float80 function_one(struct float_env *env, struct float80 a);

static const struct insn *unary(struct vcpu *v, const struct insn *i, function_one *f)
{
    struct x87_call call;
    struct float80 result = F80_INDEFINITE;
    if (!x87_begin(v, i, &call))
        return NULL;
    if (x87_empty(v, 0))
        x87_stack_fault(&call, false);
    else
        result = f(&call.env, x87_get(v, 0));
    if (!x87_suppressed(&call))
        x87_set(v, 0, result);
    return finish(v, i, &call);
}

static const struct insn *run_fsqrt(struct vcpu *v, const struct insn *i)
{
    return unary(v, i, f80_sqrt);
}

static const struct insn *run_frndint(struct vcpu *v, const struct insn *i)
{
    return unary(v, i, f80_round);
}

static const struct insn *run_f2xm1(struct vcpu *v, const struct insn *i)
{
    return unary(v, i, f80_exp2m1);
}

// ---- Two operands: FYL2X, FYL2XP1, FPATAN replace ST(1) and pop; FSCALE replaces ST(0)
// --------------------------------

typedef struct float80 function_two(struct float_env *env, struct float80 st1, struct float80 st0);

static const struct insn *binary(struct vcpu *v, const struct insn *i, function_two *f, bool pop)
{
    struct x87_call call;
    struct float80 result = F80_INDEFINITE;
    if (!x87_begin(v, i, &call))
        return NULL;
    if (x87_empty(v, 0) || x87_empty(v, 1))
        x87_stack_fault(&call, false);
    else
        result = f(&call.env, x87_get(v, 1), x87_get(v, 0));
    if (!x87_suppressed(&call)) {
        x87_set(v, pop ? 1 : 0, result);
        if (pop)
            x87_pop(v);
    }
    return finish(v, i, &call);
}

static struct float80 scale(struct float_env *env, struct float80 st1, struct float80 st0)
{
    return f80_scale(env, st0, st1);
}

static const struct insn *run_fscale(struct vcpu *v, const struct insn *i)
{
    return binary(v, i, scale, false);
}

static const struct insn *run_fyl2x(struct vcpu *v, const struct insn *i)
{
    return binary(v, i, f80_y_log2, true);
}

static const struct insn *run_fyl2xp1(struct vcpu *v, const struct insn *i)
{
    return binary(v, i, f80_y_log2p1, true);
}

static const struct insn *run_fpatan(struct vcpu *v, const struct insn *i)
{
    return binary(v, i, f80_atan, true);
}

static const struct insn *remainder_of(struct vcpu *v, const struct insn *i, bool nearest)
{
    struct x87_call call;
    struct float80 result = F80_INDEFINITE;
    unsigned quotient = 0;
    bool partial = false;
    if (!x87_begin(v, i, &call))
        return NULL;
    set_codes(v, FSW_C2, 0);
    if (x87_empty(v, 0) || x87_empty(v, 1))
        x87_stack_fault(&call, false);
    else
        result = f80_remainder(&call.env, x87_get(v, 0), x87_get(v, 1), nearest, &quotient, &partial);
    if (!x87_suppressed(&call)) {
        x87_set(v, 0, result);
        // Without a quotient only C2 is cleared.
        set_codes(v, f80_is_nan(result) ? FSW_C2 : FSW_CODE,
                  (uint16_t)((quotient & 4 ? FSW_C0 : 0) | (quotient & 2 ? FSW_C3 : 0) | (partial ? FSW_C2 : 0)));
        call.c1 |= quotient & 1;
    }
    return finish(v, i, &call);
}

static const struct insn *run_fprem(struct vcpu *v, const struct insn *i)
{
    return remainder_of(v, i, false);
}

static const struct insn *run_fprem1(struct vcpu *v, const struct insn *i)
{
    return remainder_of(v, i, true);
}

// ---- Functions that push
// ----------------------------------------------------------------------------------------------

// ST(0) becomes LOWER, then UPPER is pushed, unless the stack is empty or full.
static const struct insn *replace_and_push(struct vcpu *v, const struct insn *i, struct x87_call *call,
                                           struct float80 lower, struct float80 upper)
{
    if (!x87_suppressed(call)) {
        x87_set(v, 0, lower);
        x87_push(v, upper);
    }
    return finish(v, i, call);
}

static bool push_fault(const struct vcpu *v, struct x87_call *call)
{
    if (!x87_empty(v, 0) && x87_empty(v, 7))
        return false;
    x87_stack_fault(call, !x87_empty(v, 0));
    return true;
}

static const struct insn *run_fxtract(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    struct float80 exponent = F80_INDEFINITE, significand = F80_INDEFINITE;
    if (!x87_begin(v, i, &call))
        return NULL;
    if (!push_fault(v, &call))
        exponent = f80_extract(&call.env, x87_get(v, 0), &significand);
    return replace_and_push(v, i, &call, exponent, significand);
}

static const struct float80 f80_one = {0x8000000000000000ull, 0x3fff};

static const struct insn *run_fptan(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    struct float80 tangent = F80_INDEFINITE, pushed = f80_one;
    if (!x87_begin(v, i, &call))
        return NULL;
    set_codes(v, FSW_C2, 0);
    if (push_fault(v, &call)) {
        pushed = F80_INDEFINITE;
    } else if (!f80_tan(&call.env, x87_get(v, 0), &tangent)) {
        set_codes(v, FSW_C2, FSW_C2);
        return finish(v, i, &call);
    } else if (f80_is_nan(tangent)) {
        pushed = tangent;
    }
    return replace_and_push(v, i, &call, tangent, pushed);
}

static const struct insn *run_fsincos(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    struct float80 sine = F80_INDEFINITE, cosine = F80_INDEFINITE;
    if (!x87_begin(v, i, &call))
        return NULL;
    set_codes(v, FSW_C2, 0);
    if (!push_fault(v, &call) && !f80_sincos(&call.env, x87_get(v, 0), &sine, &cosine)) {
        set_codes(v, FSW_C2, FSW_C2);
        return finish(v, i, &call);
    }
    return replace_and_push(v, i, &call, sine, cosine);
}

static const struct insn *sine_or_cosine(struct vcpu *v, const struct insn *i, bool want_cosine)
{
    struct x87_call call;
    struct float80 result = F80_INDEFINITE;
    if (!x87_begin(v, i, &call))
        return NULL;
    set_codes(v, FSW_C2, 0);
    if (x87_empty(v, 0)) {
        x87_stack_fault(&call, false);
    } else if (!f80_sincos(&call.env, x87_get(v, 0), want_cosine ? NULL : &result, want_cosine ? &result : NULL)) {
        set_codes(v, FSW_C2, FSW_C2);
        return finish(v, i, &call);
    }
    if (!x87_suppressed(&call))
        x87_set(v, 0, result);
    return finish(v, i, &call);
}

static const struct insn *run_fsin(struct vcpu *v, const struct insn *i)
{
    return sine_or_cosine(v, i, false);
}

static const struct insn *run_fcos(struct vcpu *v, const struct insn *i)
{
    return sine_or_cosine(v, i, true);
}

#define ROW(name, handler)                                                                                             \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = GATE_X87, .reg = handler                      \
    }

const struct insn_row interpret_rows_x87_function[] = {
    ROW(FSQRT, run_fsqrt),     ROW(FRNDINT, run_frndint), ROW(F2XM1, run_f2xm1),
    ROW(FSCALE, run_fscale),   ROW(FYL2X, run_fyl2x),     ROW(FYL2XP1, run_fyl2xp1),
    ROW(FPATAN, run_fpatan),   ROW(FPREM, run_fprem),     ROW(FPREM1, run_fprem1),
    ROW(FXTRACT, run_fxtract), ROW(FPTAN, run_fptan),     ROW(FSINCOS, run_fsincos),
    ROW(FSIN, run_fsin),       ROW(FCOS, run_fcos),       {.mnemonic = ZYDIS_MNEMONIC_INVALID},
};
