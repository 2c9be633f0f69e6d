// SPDX-License-Identifier: GPL-2.0-or-later
// x87 arithmetic, compares, loads and stores (SDM vol. 1, chapter 8; vol. 2).
#include "core/cpu/interpret/flags.h"
#include "core/cpu/interpret/vector.h"
#include "core/cpu/interpret/x87.h"

#define INDEX(i) ((i)->modrm & 7u)

static const struct insn *finish(struct vcpu *v, const struct insn *i, struct x87_call *call)
{
    x87_end(v, i, call);
    return i + 1;
}

// ---- Operands from memory -------------------------------------------------------------------------------------------

// An arithmetic operand: D8 m32, DA m32 integer, DC m64, DE m16 integer. False after a fault.
static bool load_operand(struct vcpu *v, const struct insn *i, struct float80 *x, bool *denormal)
{
    uint32_t single;
    uint64_t twice;
    int32_t n32;
    int16_t n16;

    *denormal = false;
    switch (i->opcode) {
    case 0xd8:
    case 0xd9:
        if (!insn_load(v, i, &single, 4))
            return false;
        *x = f32_widen(single, denormal);
        return true;
    case 0xdc:
    case 0xdd:
        if (!insn_load(v, i, &twice, 8))
            return false;
        *x = f64_widen(twice, denormal);
        return true;
    case 0xda:
    case 0xdb:
        if (!insn_load(v, i, &n32, 4))
            return false;
        *x = int_to_f80(n32);
        return true;
    default:
        if (!insn_load(v, i, &n16, 2))
            return false;
        *x = int_to_f80(n16);
        return true;
    }
}

// A denormal that lost its mark by being widened: exceptions of higher priority hide it (SDM vol. 1, 4.9.2).
static void raise_denormal(struct x87_call *call, bool denormal, struct float80 other)
{
    if (denormal && !(call->env.flags & (FLOAT_INVALID | FLOAT_DIVIDE)) && !f80_is_nan(other))
        call->env.flags |= FLOAT_DENORMAL;
}

// ---- FADD, FMUL, FSUB, FSUBR, FDIV, FDIVR in all forms
// ----------------------------------------------------------------

// OPERATION is the reg field of ModRM; A is ST(0), B the other operand.
static struct float80 compute(struct float_env *env, unsigned operation, struct float80 a, struct float80 b)
{
    switch (operation) {
    case 0:
        return f80_add(env, a, b);
    case 1:
        return f80_mul(env, a, b);
    case 4:
        return f80_sub(env, a, b);
    case 5:
        return f80_sub(env, b, a);
    case 6:
        return f80_div(env, a, b);
    default:
        return f80_div(env, b, a);
    }
}

static const struct insn *run_arithmetic(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    struct float80 x, result = F80_INDEFINITE;
    bool denormal = false, to_index = !i->is_memory && i->opcode & 4; // DC, DE
    unsigned index = INDEX(i);

    if (!x87_begin(v, i, &call))
        return NULL;
    if (i->is_memory && !load_operand(v, i, &x, &denormal))
        return NULL;
    if (!i->is_memory)
        x = x87_get(v, index);
    if (x87_empty(v, 0) || (!i->is_memory && x87_empty(v, index))) {
        x87_stack_fault(&call, false);
    } else {
        result = compute(&call.env, i->modrm >> 3 & 7, x87_get(v, 0), x);
        raise_denormal(&call, denormal, x87_get(v, 0));
    }
    if (!x87_suppressed(&call)) {
        x87_set(v, to_index ? index : 0, result);
        if (i->opcode == 0xde && !i->is_memory)
            x87_pop(v);
    }
    return finish(v, i, &call);
}

// ---- Compares -------------------------------------------------------------------------------------------------------

static const uint16_t relation_codes[] = {
    [FLOAT_LESS] = FSW_C0, [FLOAT_EQUAL] = FSW_C3, [FLOAT_GREATER] = 0, [FLOAT_UNORDERED] = FSW_C0 | FSW_C2 | FSW_C3};
static const uint8_t relation_flags[] = {[FLOAT_LESS] = FLAG_CF,
                                         [FLOAT_EQUAL] = FLAG_ZF,
                                         [FLOAT_GREATER] = 0,
                                         [FLOAT_UNORDERED] = FLAG_CF | FLAG_ZF | FLAG_PF};

static const struct insn *compare(struct vcpu *v, const struct insn *i, unsigned pops, bool quiet, bool to_flags)
{
    struct x87_call call;
    struct float80 x;
    bool denormal = false;
    enum float_relation relation = FLOAT_UNORDERED;

    if (!x87_begin(v, i, &call))
        return NULL;
    if (i->is_memory && !load_operand(v, i, &x, &denormal))
        return NULL;
    if (!i->is_memory)
        x = x87_get(v, INDEX(i));
    if (x87_empty(v, 0) || (!i->is_memory && x87_empty(v, INDEX(i)))) {
        x87_stack_fault(&call, false);
    } else {
        relation = f80_compare(&call.env, x87_get(v, 0), x, quiet);
        raise_denormal(&call, denormal, x87_get(v, 0));
    }
    call.keep_c1 = to_flags;
    if (to_flags) // also before an unmasked exception; only the pop is kept back
        flags_set(v, relation_flags[relation]);
    else
        v->xsave.fsw = (uint16_t)((v->xsave.fsw & ~FSW_CODE) | relation_codes[relation]);
    while (!x87_suppressed(&call) && pops--)
        x87_pop(v);
    return finish(v, i, &call);
}

#define COMPARE(name, pops, quiet, to_flags)                                                                           \
    static const struct insn *name(struct vcpu *v, const struct insn *i)                                               \
    {                                                                                                                  \
        return compare(v, i, pops, quiet, to_flags);                                                                   \
    }
COMPARE(run_fcom, 0, false, false)
COMPARE(run_fcomp, 1, false, false)
COMPARE(run_fcompp, 2, false, false)
COMPARE(run_fucom, 0, true, false)
COMPARE(run_fucomp, 1, true, false)
COMPARE(run_fucompp, 2, true, false)
COMPARE(run_fcomi, 0, false, true)
COMPARE(run_fcomip, 1, false, true)
COMPARE(run_fucomi, 0, true, true)
COMPARE(run_fucomip, 1, true, true)

static const struct insn *run_ftst(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    enum float_relation relation = FLOAT_UNORDERED;
    if (!x87_begin(v, i, &call))
        return NULL;
    if (x87_empty(v, 0))
        x87_stack_fault(&call, false);
    else
        relation = f80_compare(&call.env, x87_get(v, 0), (struct float80){0, 0}, false);
    v->xsave.fsw = (uint16_t)((v->xsave.fsw & ~FSW_CODE) | relation_codes[relation]);
    return finish(v, i, &call);
}

static uint16_t examine(struct float80 x) // C3, C2, C0 (SDM vol. 2, FXAM)
{
    unsigned exponent = x.sign_exponent & 0x7fff;
    if (f80_is_unsupported(x))
        return 0;
    if (f80_is_nan(x))
        return FSW_C0;
    if (f80_is_infinite(x))
        return FSW_C2 | FSW_C0;
    if (f80_is_zero(x))
        return FSW_C3;
    return exponent ? FSW_C2 : FSW_C3 | FSW_C2;
}

static const struct insn *run_fxam(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    if (!x87_begin(v, i, &call))
        return NULL;
    struct float80 x = x87_get(v, 0);
    uint16_t code = x87_empty(v, 0) ? FSW_C3 | FSW_C0 : examine(x);
    v->xsave.fsw = (uint16_t)((v->xsave.fsw & ~FSW_CODE) | code);
    call.c1 = x.sign_exponent >> 15;
    return finish(v, i, &call);
}

// ---- Loads ----------------------------------------------------------------------------------------------------------

static bool load_ten(struct vcpu *v, const struct insn *i, uint8_t *bytes)
{
    uint64_t linear;
    return insn_linear(v, i, 10, ACCESS_READ, &linear) && alignment_checked(v, linear, 8) &&
           linear_load(v, linear, bytes, 10);
}

// An unmasked denormal operand does not keep it from being pushed.
static const struct insn *push(struct vcpu *v, const struct insn *i, struct x87_call *call, struct float80 x)
{
    if (!x87_empty(v, 7)) {
        x87_stack_fault(call, true);
        x = F80_INDEFINITE;
    }
    if (!(call->env.flags & ~call->env.masks & FLOAT_INVALID))
        x87_push(v, x);
    return finish(v, i, call);
}

static const struct insn *run_fld(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    struct float80 x;
    uint32_t single;
    uint64_t twice;

    if (!x87_begin(v, i, &call))
        return NULL;
    if (!i->is_memory) {
        x = x87_get(v, INDEX(i));
        if (x87_empty(v, INDEX(i))) {
            x87_stack_fault(&call, false);
            x = F80_INDEFINITE;
            if (!x87_suppressed(&call))
                x87_push(v, x);
            return finish(v, i, &call);
        }
        return push(v, i, &call, x);
    }
    bool full = !x87_empty(v, 7); // a stack fault comes before what the operand raises
    if (i->opcode == 0xd9) {
        if (!insn_load(v, i, &single, 4))
            return NULL;
        x = full ? F80_INDEFINITE : f32_to_f80(&call.env, single);
    } else if (i->opcode == 0xdd) {
        if (!insn_load(v, i, &twice, 8))
            return NULL;
        x = full ? F80_INDEFINITE : f64_to_f80(&call.env, twice);
    } else {
        uint8_t bytes[10];
        if (!load_ten(v, i, bytes))
            return NULL;
        memcpy(&x.significand, bytes, 8);
        memcpy(&x.sign_exponent, bytes + 8, 2);
    }
    return push(v, i, &call, x);
}

static const struct insn *run_fild(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    int64_t n;
    if (!x87_begin(v, i, &call))
        return NULL;
    if (i->opcode == 0xdf && (i->modrm & 0x38) == 0x28) {
        if (!insn_load(v, i, &n, 8))
            return NULL;
    } else {
        struct float80 x;
        bool denormal;
        if (!load_operand(v, i, &x, &denormal))
            return NULL;
        return push(v, i, &call, x);
    }
    return push(v, i, &call, int_to_f80(n));
}

// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ: truncated significands; the one constant's next bit makes it go up
// when rounding to nearest or upwards.
static const struct {
    uint64_t significand;
    uint16_t exponent;
    bool inexact, nearest_up;
} constants[7] = {
    {0x8000000000000000, 0x3fff, false, false},
    {0xd49a784bcd1b8afe, 0x4000, true, false},
    {0xb8aa3b295c17f0bb, 0x3fff, true, true},
    {0xc90fdaa22168c234, 0x4000, true, true},
    {0x9a209a84fbcff798, 0x3ffd, true, true},
    {0xb17217f7d1cf79ab, 0x3ffe, true, true},
    {0, 0, false, false},
};

static const struct insn *run_constant(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    unsigned which = INDEX(i);
    if (!x87_begin(v, i, &call) || which > 6)
        return NULL;
    bool up = constants[which].inexact &&
              (call.env.rounding == FLOAT_UP || (call.env.rounding == FLOAT_NEAREST && constants[which].nearest_up));
    return push(v, i, &call, (struct float80){constants[which].significand + up, constants[which].exponent});
}

// ---- Stores ---------------------------------------------------------------------------------------------------------

static const struct insn *store(struct vcpu *v, const struct insn *i, struct x87_call *call, const void *data,
                                unsigned size, bool pop)
{
    if (!x87_store_suppressed(call)) {
        uint64_t linear;
        if (!insn_linear(v, i, size, ACCESS_WRITE, &linear) || (size == 10 && !alignment_checked(v, linear, 8)) ||
            !linear_store(v, linear, data, size))
            return NULL;
        if (pop)
            x87_pop(v);
    }
    return finish(v, i, call);
}

static const struct insn *store_float(struct vcpu *v, const struct insn *i, bool pop)
{
    struct x87_call call;
    if (!x87_begin(v, i, &call))
        return NULL;
    struct float80 x = x87_get(v, 0);
    bool empty = x87_empty(v, 0);
    if (empty) {
        x87_stack_fault(&call, false);
        x = F80_INDEFINITE;
    }
    if (!i->is_memory) {
        if (!x87_suppressed(&call)) {
            x87_set(v, INDEX(i), x);
            if (pop)
                x87_pop(v);
        }
        return finish(v, i, &call);
    }
    if (i->opcode == 0xd9) {
        uint32_t single = f80_to_f32(&call.env, x);
        return store(v, i, &call, &single, 4, pop);
    }
    if (i->opcode == 0xdd) {
        uint64_t twice = f80_to_f64(&call.env, x);
        return store(v, i, &call, &twice, 8, pop);
    }
    uint8_t bytes[10];
    memcpy(bytes, &x.significand, 8);
    memcpy(bytes + 8, &x.sign_exponent, 2);
    return store(v, i, &call, bytes, 10, pop);
}

static const struct insn *run_fst(struct vcpu *v, const struct insn *i)
{
    return store_float(v, i, false);
}

// D9 D8+i, undocumented: no stack fault, an empty register is just popped.
static const struct insn *run_fstpnce(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    if (!x87_empty(v, 0))
        return store_float(v, i, true);
    if (!x87_begin(v, i, &call))
        return NULL;
    x87_pop(v);
    return finish(v, i, &call);
}

static const struct insn *run_fstp(struct vcpu *v, const struct insn *i)
{
    return store_float(v, i, true);
}

// DB m32, DF m16, and the 64-bit forms DF /7 (FISTP) and DD /1 (FISTTP)
static const struct insn *store_integer(struct vcpu *v, const struct insn *i, bool pop, bool truncate)
{
    struct x87_call call;
    unsigned operation = i->modrm >> 3 & 7;
    bool wide = i->opcode == 0xdd || (i->opcode == 0xdf && operation == 7);
    unsigned size = wide ? 8 : i->opcode == 0xdf ? 2 : 4;

    if (!x87_begin(v, i, &call))
        return NULL;
    int64_t n = -(int64_t)((1ull << (8 * size - 1)) - 1) - 1;
    if (x87_empty(v, 0))
        x87_stack_fault(&call, false);
    else
        n = f80_to_int(&call.env, x87_get(v, 0), 8 * size, truncate);
    return store(v, i, &call, &n, size, pop);
}

static const struct insn *run_fist(struct vcpu *v, const struct insn *i)
{
    return store_integer(v, i, false, false);
}

static const struct insn *run_fistp(struct vcpu *v, const struct insn *i)
{
    return store_integer(v, i, true, false);
}

static const struct insn *run_fisttp(struct vcpu *v, const struct insn *i)
{
    return store_integer(v, i, true, true);
}

// ---- Packed decimal: 18 digits in nine bytes, the sign in the top bit
// ------------------------------------------------

static const struct insn *run_fbld(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    uint8_t bytes[10];
    uint64_t n = 0;
    if (!x87_begin(v, i, &call))
        return NULL;
    if (!load_ten(v, i, bytes))
        return NULL;
    for (int k = 8; k >= 0; k--)
        n = n * 100 + (bytes[k] >> 4) * 10u + (bytes[k] & 15);
    struct float80 x = int_to_f80((int64_t)n);
    x.sign_exponent |= (uint16_t)((bytes[9] & 0x80) << 8);
    return push(v, i, &call, x);
}

static const struct insn *run_fbstp(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    uint8_t bytes[10] = {0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff}; // the indefinite
    if (!x87_begin(v, i, &call))
        return NULL;
    if (x87_empty(v, 0)) {
        x87_stack_fault(&call, false);
        return store(v, i, &call, bytes, 10, true);
    }
    struct float80 x = x87_get(v, 0);
    struct float_env trial = call.env;
    int64_t n = f80_to_int(&trial, x, 64, false);
    uint64_t magnitude = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    if (trial.flags & FLOAT_INVALID || magnitude > 999999999999999999ull) {
        call.env.flags |= FLOAT_INVALID;
    } else {
        call.env = trial;
        for (unsigned k = 0; k < 9; k++, magnitude /= 100)
            bytes[k] = (uint8_t)(magnitude / 10 % 10 << 4 | magnitude % 10);
        bytes[9] = x.sign_exponent >> 15 ? 0x80 : 0;
    }
    return store(v, i, &call, bytes, 10, true);
}

// ---- Moves between registers ----------------------------------------------------------------------------------------

static const struct insn *run_fxch(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    unsigned index = INDEX(i);
    if (!x87_begin(v, i, &call))
        return NULL;
    struct float80 a = x87_get(v, 0), b = x87_get(v, index);
    if (x87_empty(v, 0) || x87_empty(v, index))
        x87_stack_fault(&call, false);
    if (x87_empty(v, 0))
        a = F80_INDEFINITE;
    if (x87_empty(v, index))
        b = F80_INDEFINITE;
    if (!x87_suppressed(&call)) {
        x87_set(v, index, a);
        x87_set(v, 0, b);
    }
    return finish(v, i, &call);
}

static const struct insn *run_fcmov(struct vcpu *v, const struct insn *i)
{
    static const uint8_t conditions[4] = {2, 4, 6, 10}; // B, E, BE, U; DB negates
    struct x87_call call;
    if (!x87_begin(v, i, &call))
        return NULL;
    call.keep_c1 = true;
    bool move = flags_condition(v, conditions[i->modrm >> 3 & 3]) != (i->opcode == 0xdb);
    if (x87_empty(v, 0) || x87_empty(v, INDEX(i))) {
        x87_stack_fault(&call, false);
        if (!x87_suppressed(&call))
            x87_set(v, 0, F80_INDEFINITE);
    } else if (move) {
        x87_set(v, 0, x87_get(v, INDEX(i)));
    }
    return finish(v, i, &call);
}

// FCHS (E0), FABS (E1)
static const struct insn *run_sign(struct vcpu *v, const struct insn *i)
{
    struct x87_call call;
    if (!x87_begin(v, i, &call))
        return NULL;
    struct float80 x = x87_get(v, 0);
    if (x87_empty(v, 0)) {
        x87_stack_fault(&call, false);
        x = F80_INDEFINITE;
    } else {
        x.sign_exponent = i->modrm & 1 ? x.sign_exponent & 0x7fff : x.sign_exponent ^ 0x8000;
    }
    if (!x87_suppressed(&call))
        x87_set(v, 0, x);
    return finish(v, i, &call);
}

#define BOTH_FORMS(name, handler)                                                                                      \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = GATE_X87, .reg = handler, .mem = handler      \
    }
#define REGISTER_FORM(name, handler)                                                                                   \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = GATE_X87, .reg = handler                      \
    }
#define MEMORY_FORM(name, handler)                                                                                     \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = GATE_X87, .mem = handler                      \
    }

const struct insn_row interpret_rows_x87[] = {
    BOTH_FORMS(FADD, run_arithmetic),
    BOTH_FORMS(FMUL, run_arithmetic),
    BOTH_FORMS(FSUB, run_arithmetic),
    BOTH_FORMS(FSUBR, run_arithmetic),
    BOTH_FORMS(FDIV, run_arithmetic),
    BOTH_FORMS(FDIVR, run_arithmetic),
    REGISTER_FORM(FADDP, run_arithmetic),
    REGISTER_FORM(FMULP, run_arithmetic),
    REGISTER_FORM(FSUBP, run_arithmetic),
    REGISTER_FORM(FSUBRP, run_arithmetic),
    REGISTER_FORM(FDIVP, run_arithmetic),
    REGISTER_FORM(FDIVRP, run_arithmetic),
    MEMORY_FORM(FIADD, run_arithmetic),
    MEMORY_FORM(FIMUL, run_arithmetic),
    MEMORY_FORM(FISUB, run_arithmetic),
    MEMORY_FORM(FISUBR, run_arithmetic),
    MEMORY_FORM(FIDIV, run_arithmetic),
    MEMORY_FORM(FIDIVR, run_arithmetic),
    BOTH_FORMS(FCOM, run_fcom),
    BOTH_FORMS(FCOMP, run_fcomp),
    REGISTER_FORM(FCOMPP, run_fcompp),
    MEMORY_FORM(FICOM, run_fcom),
    MEMORY_FORM(FICOMP, run_fcomp),
    REGISTER_FORM(FUCOM, run_fucom),
    REGISTER_FORM(FUCOMP, run_fucomp),
    REGISTER_FORM(FUCOMPP, run_fucompp),
    REGISTER_FORM(FCOMI, run_fcomi),
    REGISTER_FORM(FCOMIP, run_fcomip),
    REGISTER_FORM(FUCOMI, run_fucomi),
    REGISTER_FORM(FUCOMIP, run_fucomip),
    REGISTER_FORM(FTST, run_ftst),
    REGISTER_FORM(FXAM, run_fxam),
    BOTH_FORMS(FLD, run_fld),
    MEMORY_FORM(FILD, run_fild),
    MEMORY_FORM(FBLD, run_fbld),
    REGISTER_FORM(FLD1, run_constant),
    REGISTER_FORM(FLDL2T, run_constant),
    REGISTER_FORM(FLDL2E, run_constant),
    REGISTER_FORM(FLDPI, run_constant),
    REGISTER_FORM(FLDLG2, run_constant),
    REGISTER_FORM(FLDLN2, run_constant),
    REGISTER_FORM(FLDZ, run_constant),
    BOTH_FORMS(FST, run_fst),
    BOTH_FORMS(FSTP, run_fstp),
    REGISTER_FORM(FSTPNCE, run_fstpnce),
    MEMORY_FORM(FIST, run_fist),
    MEMORY_FORM(FISTP, run_fistp),
    MEMORY_FORM(FISTTP, run_fisttp),
    MEMORY_FORM(FBSTP, run_fbstp),
    REGISTER_FORM(FXCH, run_fxch),
    REGISTER_FORM(FCHS, run_sign),
    REGISTER_FORM(FABS, run_sign),
    REGISTER_FORM(FCMOVB, run_fcmov),
    REGISTER_FORM(FCMOVE, run_fcmov),
    REGISTER_FORM(FCMOVBE, run_fcmov),
    REGISTER_FORM(FCMOVU, run_fcmov),
    REGISTER_FORM(FCMOVNB, run_fcmov),
    REGISTER_FORM(FCMOVNE, run_fcmov),
    REGISTER_FORM(FCMOVNBE, run_fcmov),
    REGISTER_FORM(FCMOVNU, run_fcmov),
    {.mnemonic = ZYDIS_MNEMONIC_INVALID},
};
