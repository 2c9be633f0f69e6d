// SPDX-License-Identifier: GPL-2.0-or-later
// SSE, AVX, FMA and F16C floating-point arithmetic (SDM vol. 1, chapters 10, 11 and 14; vol. 2).
#include "core/cpu/interpret/flags.h"
#include "core/cpu/interpret/vector.h"

// The four shapes of an operation: packed and scalar, single and double.
#define FOUR(name, single, twice)                                                                                      \
    static void name##_ps(struct vector_call *c)                                                                       \
    {                                                                                                                  \
        for (unsigned k = 0; k < c->size / 4; k++) {                                                                   \
            uint32_t x = c->a.u32[k], y = c->b.u32[k];                                                                 \
            (void)x;                                                                                                   \
            c->d.u32[k] = single;                                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    static void name##_pd(struct vector_call *c)                                                                       \
    {                                                                                                                  \
        for (unsigned k = 0; k < c->size / 8; k++) {                                                                   \
            uint64_t x = c->a.u64[k], y = c->b.u64[k];                                                                 \
            (void)x;                                                                                                   \
            c->d.u64[k] = twice;                                                                                       \
        }                                                                                                              \
    }                                                                                                                  \
    static void name##_ss(struct vector_call *c)                                                                       \
    {                                                                                                                  \
        uint32_t x = c->a.u32[0], y = c->b.u32[0];                                                                     \
        (void)x;                                                                                                       \
        c->d.u32[0] = single;                                                                                          \
    }                                                                                                                  \
    static void name##_sd(struct vector_call *c)                                                                       \
    {                                                                                                                  \
        uint64_t x = c->a.u64[0], y = c->b.u64[0];                                                                     \
        (void)x;                                                                                                       \
        c->d.u64[0] = twice;                                                                                           \
    }
FOUR(add, f32_add(&c->env, x, y), f64_add(&c->env, x, y))
FOUR(sub, f32_sub(&c->env, x, y), f64_sub(&c->env, x, y))
FOUR(mul, f32_mul(&c->env, x, y), f64_mul(&c->env, x, y))
FOUR(div, f32_div(&c->env, x, y), f64_div(&c->env, x, y))
FOUR(min, f32_min(&c->env, x, y), f64_min(&c->env, x, y))
FOUR(max, f32_max(&c->env, x, y), f64_max(&c->env, x, y))
FOUR(sqrt, f32_sqrt(&c->env, y), f64_sqrt(&c->env, y))

// ---- Compares -----------------------------------------------------------------------------------------------------

// For each predicate the relations that make it true: bit 0 less, 1 equal, 2 greater, 3 unordered (SDM, table 3-1).
static const uint8_t predicate_truth[16] = {2, 1, 3, 8, 13, 14, 12, 7, 10, 9, 11, 0, 5, 6, 4, 15};
#define PREDICATES_SIGNALING 0x6666u // of 0 to 15; 16 to 31 are the other way round

static inline bool predicate_quiet(unsigned predicate)
{
    return !((PREDICATES_SIGNALING >> (predicate & 15) ^ predicate >> 4) & 1);
}
static inline bool compare32(struct vector_call *c, uint32_t x, uint32_t y)
{
    return predicate_truth[c->imm & 15] >> f32_compare(&c->env, x, y, predicate_quiet(c->imm)) & 1;
}
static inline bool compare64(struct vector_call *c, uint64_t x, uint64_t y)
{
    return predicate_truth[c->imm & 15] >> f64_compare(&c->env, x, y, predicate_quiet(c->imm)) & 1;
}
FOUR(compare_any, compare32(c, x, y) ? ~0u : 0, compare64(c, x, y) ? ~0ull : 0)

#define COMPARE_LEGACY(shape)                                                                                          \
    static void compare_##shape(struct vector_call *c)                                                                 \
    {                                                                                                                  \
        c->imm &= 7;                                                                                                   \
        compare_any_##shape(c);                                                                                        \
    }                                                                                                                  \
    static void vcompare_##shape(struct vector_call *c)                                                                \
    {                                                                                                                  \
        c->imm &= 31;                                                                                                  \
        compare_any_##shape(c);                                                                                        \
    }
COMPARE_LEGACY(ps)
COMPARE_LEGACY(pd)
COMPARE_LEGACY(ss)
COMPARE_LEGACY(sd)

// COMISS, UCOMISS, COMISD, UCOMISD
static inline const struct insn *compare_flags(struct vcpu *v, const struct insn *i, bool twice, bool quiet)
{
    static const uint8_t flags[] = {[FLOAT_LESS] = FLAG_CF,
                                    [FLOAT_EQUAL] = FLAG_ZF,
                                    [FLOAT_GREATER] = 0,
                                    [FLOAT_UNORDERED] = FLAG_CF | FLAG_ZF | FLAG_PF};
    union vector x, y;
    struct float_env env;
    xmm_read(v, i->reg, &x);
    if (!vector_source(v, i, &y, twice ? 8 : 4, true))
        return NULL;
    float_env_load(v, &env);
    enum float_relation relation =
        twice ? f64_compare(&env, x.u64[0], y.u64[0], quiet) : f32_compare(&env, x.u32[0], y.u32[0], quiet);
    if (!float_env_commit(v, &env))
        return NULL;
    flags_set(v, flags[relation]);
    return i + 1;
}

static const struct insn *run_comiss(struct vcpu *v, const struct insn *i)
{
    return compare_flags(v, i, false, false);
}

static const struct insn *run_ucomiss(struct vcpu *v, const struct insn *i)
{
    return compare_flags(v, i, false, true);
}

static const struct insn *run_comisd(struct vcpu *v, const struct insn *i)
{
    return compare_flags(v, i, true, false);
}

static const struct insn *run_ucomisd(struct vcpu *v, const struct insn *i)
{
    return compare_flags(v, i, true, true);
}

// ---- ROUND: bit 2 of the immediate takes MXCSR's rounding, bit 3 hides inexact -------------------------------------

static void rounding_from_immediate(struct vector_call *c)
{
    if (!(c->imm & 4))
        c->env.rounding = c->imm & 3;
}
static inline uint32_t round32(struct vector_call *c, uint32_t y)
{
    rounding_from_immediate(c);
    uint32_t r = f32_round(&c->env, y);
    if (c->imm & 8)
        c->env.flags &= ~FLOAT_INEXACT;
    return r;
}
static inline uint64_t round64(struct vector_call *c, uint64_t y)
{
    rounding_from_immediate(c);
    uint64_t r = f64_round(&c->env, y);
    if (c->imm & 8)
        c->env.flags &= ~FLOAT_INEXACT;
    return r;
}
FOUR(round, round32(c, y), round64(c, y))

// ---- Reciprocal approximations: 12 good bits; no exceptions, denormals count as zero (SDM vol. 2, RCPPS, RSQRTPS)
// ----

static uint32_t approximate(uint32_t x, bool root)
{
    struct float_env env = {.masks = FLOAT_ALL, .daz = true, .ftz = true};
    uint32_t one = 0x3f800000;
    uint32_t r = f32_div(&env, one, root ? f32_sqrt(&env, x) : x);
    bool finite = (r >> 23 & 255) != 255;
    return finite ? (r + 0x400) & ~0x7ffu : r;
}
#define APPROXIMATION(name, root)                                                                                      \
    static void name##_ps(struct vector_call *c)                                                                       \
    {                                                                                                                  \
        for (unsigned k = 0; k < c->size / 4; k++)                                                                     \
            c->d.u32[k] = approximate(c->b.u32[k], root);                                                              \
    }                                                                                                                  \
    static void name##_ss(struct vector_call *c)                                                                       \
    {                                                                                                                  \
        c->d.u32[0] = approximate(c->b.u32[0], root);                                                                  \
    }
APPROXIMATION(rcp, false)
APPROXIMATION(rsqrt, true)

// ---- Across lanes ---------------------------------------------------------------------------------------------------

#define HORIZONTAL(name, operation)                                                                                    \
    static void name##_ps(struct vector_call *c)                                                                       \
    {                                                                                                                  \
        for (unsigned k = 0; k < c->size / 4; k++) {                                                                   \
            const union vector *from = k & 2 ? &c->b : &c->a;                                                          \
            unsigned at = (k & 4) + 2 * (k & 1);                                                                       \
            c->d.u32[k] = f32_##operation(&c->env, from->u32[at], from->u32[at + 1]);                                  \
        }                                                                                                              \
    }                                                                                                                  \
    static void name##_pd(struct vector_call *c)                                                                       \
    {                                                                                                                  \
        for (unsigned k = 0; k < c->size / 8; k++) {                                                                   \
            const union vector *from = k & 1 ? &c->b : &c->a;                                                          \
            c->d.u64[k] = f64_##operation(&c->env, from->u64[k & 2], from->u64[(k & 2) + 1]);                          \
        }                                                                                                              \
    }
HORIZONTAL(horizontal_add, add)
HORIZONTAL(horizontal_sub, sub)

static void addsub_ps(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size / 4; k++)
        c->d.u32[k] = (k & 1 ? f32_add : f32_sub)(&c->env, c->a.u32[k], c->b.u32[k]);
}

static void addsub_pd(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size / 8; k++)
        c->d.u64[k] = (k & 1 ? f64_add : f64_sub)(&c->env, c->a.u64[k], c->b.u64[k]);
}

// Between two stages of an operation: what the earlier one raised stays. False: it ends there with #XM.
static bool next_stage(struct vector_call *c)
{
    if (c->env.flags & ~c->env.masks)
        return false;
    c->earlier |= c->env.flags;
    c->env.flags = 0;
    return true;
}

// Each lane adds on its own, neighbour first; the order matters to which NaN comes out.
static void dot_ps(struct vector_call *c)
{
    uint32_t t[8], s[8];
    for (unsigned lane = 0; lane < c->size / 4; lane += 4)
        for (unsigned k = 0; k < 4; k++)
            t[lane + k] = c->imm >> (4 + k) & 1 ? f32_mul(&c->env, c->a.u32[lane + k], c->b.u32[lane + k]) : 0;
    if (!next_stage(c))
        return;
    for (unsigned k = 0; k < c->size / 4; k++)
        s[k] = f32_add(&c->env, t[k ^ 1], t[k]);
    if (!next_stage(c))
        return;
    for (unsigned k = 0; k < c->size / 4; k++) {
        uint32_t sum = f32_add(&c->env, s[k], s[k ^ 2]);
        c->d.u32[k] = c->imm >> (k & 3) & 1 ? sum : 0;
    }
}

static void dot_pd(struct vector_call *c)
{
    uint64_t t[2];
    for (unsigned k = 0; k < 2; k++)
        t[k] = c->imm >> (4 + k) & 1 ? f64_mul(&c->env, c->a.u64[k], c->b.u64[k]) : 0;
    if (!next_stage(c))
        return;
    for (unsigned k = 0; k < 2; k++) {
        uint64_t sum = f64_add(&c->env, t[k], t[k ^ 1]);
        c->d.u64[k] = c->imm >> k & 1 ? sum : 0;
    }
}

// ---- Conversions between vectors ------------------------------------------------------------------------------------

#define CONVERT(name, to, from, count, expression)                                                                     \
    static void name(struct vector_call *c)                                                                            \
    {                                                                                                                  \
        memset(&c->d, 0, sizeof(c->d));                                                                                \
        for (unsigned k = 0; k < (count); k++) {                                                                       \
            __typeof__(c->b.from[0]) y = c->b.from[k];                                                                 \
            c->d.to[k] = (__typeof__(c->d.to[0]))(expression);                                                         \
        }                                                                                                              \
    }
CONVERT(ps_to_pd, u64, u32, c->size / 8, f32_to_f64(&c->env, y))
CONVERT(pd_to_ps, u32, u64, c->size / 8, f64_to_f32(&c->env, y))
CONVERT(dq_to_ps, u32, s32, c->size / 4, int_to_f32(&c->env, y))
CONVERT(ps_to_dq, s32, u32, c->size / 4, f32_to_int(&c->env, y, 32, false))
CONVERT(ps_to_dq_truncate, s32, u32, c->size / 4, f32_to_int(&c->env, y, 32, true))
CONVERT(dq_to_pd, u64, s32, c->size / 8, int_to_f64(&c->env, y))
CONVERT(pd_to_dq, s32, u64, c->size / 8, f64_to_int(&c->env, y, 32, false))
CONVERT(pd_to_dq_truncate, s32, u64, c->size / 8, f64_to_int(&c->env, y, 32, true))
CONVERT(ph_to_ps, u32, u16, c->size / 4, f16_to_f32(&c->env, y))

static void ss_to_sd(struct vector_call *c)
{
    c->d.u64[0] = f32_to_f64(&c->env, c->b.u32[0]);
}

static void sd_to_ss(struct vector_call *c)
{
    c->d.u32[0] = f64_to_f32(&c->env, c->b.u64[0]);
}

static const struct insn *run_ps_to_ph(struct vcpu *v, const struct insn *i)
{
    union vector x, r = {0};
    struct float_env env;
    vector_read(v, i, i->reg, &x);
    float_env_load(v, &env);
    if (!(i->imm & 4))
        env.rounding = i->imm & 3;
    for (unsigned k = 0; k < i->vector_length / 4u; k++)
        r.u16[k] = f32_to_f16(&env, x.u32[k]);
    if (!float_env_commit(v, &env)) // before the store, which may fault
        return NULL;
    if (i->is_memory) {
        static const uint8_t all[16] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                        0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80};
        unsigned size = i->vector_length / 2u;
        uint64_t linear;
        if (!alignment_check_active(v))
            return insn_store(v, i, &r, size) ? i + 1 : NULL;
        return insn_linear(v, i, size, ACCESS_WRITE, &linear) && masked_store(v, linear, r.u8, all, size, 1) ? i + 1
                                                                                                             : NULL;
    }
    vex_write(v, i->rm, &r, 16);
    return i + 1;
}

// ---- To and from general registers ----------------------------------------------------------------------------------

static const struct insn *run_from_integer(struct vcpu *v, const struct insn *i) // CVTSI2SS, CVTSI2SD
{
    bool twice = i->row->data != NULL;
    union vector x;
    struct float_env env;
    int64_t n = (int64_t)v->gpr[i->rm & 15];
    if (i->is_memory && !(i->vex_w ? insn_load(v, i, &n, 8) : insn_load(v, i, &n, 4)))
        return NULL;
    if (!i->vex_w)
        n = (int32_t)n;
    float_env_load(v, &env);
    xmm_read(v, i->vex ? i->vvvv : i->reg, &x);
    if (twice)
        x.u64[0] = int_to_f64(&env, n);
    else
        x.u32[0] = int_to_f32(&env, n);
    if (!float_env_commit(v, &env))
        return NULL;
    vector_write(v, i, i->reg, &x);
    return i + 1;
}

static inline const struct insn *to_integer(struct vcpu *v, const struct insn *i, bool twice, bool truncate)
{
    union vector x;
    struct float_env env;
    unsigned bits = i->vex_w ? 64 : 32;
    if (!vector_source(v, i, &x, twice ? 8 : 4, true))
        return NULL;
    float_env_load(v, &env);
    int64_t n = twice ? f64_to_int(&env, x.u64[0], bits, truncate) : f32_to_int(&env, x.u32[0], bits, truncate);
    if (!float_env_commit(v, &env))
        return NULL;
    v->gpr[i->reg & 15] = bits == 64 ? (uint64_t)n : (uint32_t)n;
    return i + 1;
}

static const struct insn *run_cvtss2si(struct vcpu *v, const struct insn *i)
{
    return to_integer(v, i, false, false);
}

static const struct insn *run_cvttss2si(struct vcpu *v, const struct insn *i)
{
    return to_integer(v, i, false, true);
}

static const struct insn *run_cvtsd2si(struct vcpu *v, const struct insn *i)
{
    return to_integer(v, i, true, false);
}

static const struct insn *run_cvttsd2si(struct vcpu *v, const struct insn *i)
{
    return to_integer(v, i, true, true);
}

// ---- To and from MMX registers --------------------------------------------------------------------------------------

static const struct insn *run_from_mmx(struct vcpu *v, const struct insn *i) // CVTPI2PS, CVTPI2PD
{
    bool twice = i->row->data != NULL;
    union vector x, pair;
    struct float_env env;
    if (!i->is_memory && !mmx_check(v))
        return NULL;
    if (!i->is_memory)
        pair.u64[0] = mmx_read(v, i->rm);
    else if (!insn_load(v, i, &pair, 8))
        return NULL;
    float_env_load(v, &env);
    xmm_read(v, i->reg, &x);
    for (unsigned k = 0; k < 2; k++) {
        if (twice)
            x.u64[k] = int_to_f64(&env, pair.s32[k]);
        else
            x.u32[k] = int_to_f32(&env, pair.s32[k]);
    }
    if (!i->is_memory)
        mmx_enter(v); // also before #XM
    if (!float_env_commit(v, &env))
        return NULL;
    xmm_write(v, i->reg, &x);
    return i + 1;
}

static const struct insn *run_to_mmx(struct vcpu *v, const struct insn *i) // CVT(T)PS2PI (2C, 2D), CVT(T)PD2PI
{
    bool twice = i->row->data != NULL, truncate = i->opcode == 0x2c;
    union vector x, pair;
    struct float_env env;
    if (!mmx_check(v))
        return NULL;
    if (!vector_source(v, i, &x, twice ? 16 : 8, false))
        return NULL;
    float_env_load(v, &env);
    for (unsigned k = 0; k < 2; k++)
        pair.s32[k] =
            (int32_t)(twice ? f64_to_int(&env, x.u64[k], 32, truncate) : f32_to_int(&env, x.u32[k], 32, truncate));
    mmx_enter(v); // also before #XM
    if (!float_env_commit(v, &env))
        return NULL;
    mmx_write(v, i->reg, pair.u64[0]);
    return i + 1;
}

// ---- Rows -----------------------------------------------------------------------------------------------------------

#define FLOAT(name, kernel) VECTOR(name, kernel, .is_float = true)
#define ALL_SHAPES(name, kernel)                                                                                       \
    FLOAT(name##PS, kernel##_ps), FLOAT(name##PD, kernel##_pd), FLOAT(name##SS, kernel##_ss),                          \
        FLOAT(name##SD, kernel##_sd)
#define CUSTOM(name, gate_, handler, data_)                                                                            \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = gate_, .reg = handler, .mem = handler,        \
        .data = data_                                                                                                  \
    }
#define BOTH(name, handler, data_) CUSTOM(name, GATE_SSE, handler, data_), CUSTOM(V##name, GATE_AVX, handler, data_)
#define TWICE                      (&predicate_truth) // any pointer: the double-precision row of a pair

const struct insn_row interpret_rows_float[] = {
    ALL_SHAPES(ADD, add),
    ALL_SHAPES(SUB, sub),
    ALL_SHAPES(MUL, mul),
    ALL_SHAPES(DIV, div),
    ALL_SHAPES(MIN, min),
    ALL_SHAPES(MAX, max),
    ALL_SHAPES(SQRT, sqrt),
    ALL_SHAPES(ROUND, round),
    VECTOR_LEGACY(CMPPS, compare_ps, .is_float = true),
    VECTOR_LEGACY(CMPPD, compare_pd, .is_float = true),
    VECTOR_LEGACY(CMPSS, compare_ss, .is_float = true),
    {.mnemonic = ZYDIS_MNEMONIC_CMPSD,
     .class = CLASS_PLAIN,
     .gate = GATE_VECTOR,
     .bind = vector_bind,
     .opcode_map = 1 + ZYDIS_OPCODE_MAP_0F,
     .data = VECTOR_DATA(compare_sd, .is_float = true)},
    VECTOR_VEX(VCMPPS, vcompare_ps, .is_float = true),
    VECTOR_VEX(VCMPPD, vcompare_pd, .is_float = true),
    VECTOR_VEX(VCMPSS, vcompare_ss, .is_float = true),
    VECTOR_VEX(VCMPSD, vcompare_sd, .is_float = true),
    BOTH(COMISS, run_comiss, NULL),
    BOTH(COMISD, run_comisd, NULL),
    BOTH(UCOMISS, run_ucomiss, NULL),
    BOTH(UCOMISD, run_ucomisd, NULL),
    VECTOR(RCPPS, rcp_ps),
    VECTOR(RCPSS, rcp_ss),
    VECTOR(RSQRTPS, rsqrt_ps),
    VECTOR(RSQRTSS, rsqrt_ss),
    FLOAT(HADDPS, horizontal_add_ps),
    FLOAT(HADDPD, horizontal_add_pd),
    FLOAT(HSUBPS, horizontal_sub_ps),
    FLOAT(HSUBPD, horizontal_sub_pd),
    FLOAT(ADDSUBPS, addsub_ps),
    FLOAT(ADDSUBPD, addsub_pd),
    FLOAT(DPPS, dot_ps),
    FLOAT(DPPD, dot_pd),
    FLOAT(CVTPS2PD, ps_to_pd),
    FLOAT(CVTPD2PS, pd_to_ps),
    FLOAT(CVTSS2SD, ss_to_sd),
    FLOAT(CVTSD2SS, sd_to_ss),
    FLOAT(CVTDQ2PS, dq_to_ps),
    FLOAT(CVTPS2DQ, ps_to_dq),
    FLOAT(CVTTPS2DQ, ps_to_dq_truncate),
    FLOAT(CVTDQ2PD, dq_to_pd),
    FLOAT(CVTPD2DQ, pd_to_dq),
    FLOAT(CVTTPD2DQ, pd_to_dq_truncate),
    VECTOR_VEX(VCVTPH2PS, ph_to_ps, .is_float = true, .exempt = true),
    CUSTOM(VCVTPS2PH, GATE_AVX, run_ps_to_ph, NULL),
    BOTH(CVTSI2SS, run_from_integer, NULL),
    BOTH(CVTSI2SD, run_from_integer, TWICE),
    BOTH(CVTSS2SI, run_cvtss2si, NULL),
    BOTH(CVTTSS2SI, run_cvttss2si, NULL),
    BOTH(CVTSD2SI, run_cvtsd2si, NULL),
    BOTH(CVTTSD2SI, run_cvttsd2si, NULL),
    CUSTOM(CVTPI2PS, GATE_VECTOR, run_from_mmx, NULL),
    CUSTOM(CVTPI2PD, GATE_VECTOR, run_from_mmx, TWICE),
    CUSTOM(CVTPS2PI, GATE_VECTOR, run_to_mmx, NULL),
    CUSTOM(CVTTPS2PI, GATE_VECTOR, run_to_mmx, NULL),
    CUSTOM(CVTPD2PI, GATE_VECTOR, run_to_mmx, TWICE),
    CUSTOM(CVTTPD2PI, GATE_VECTOR, run_to_mmx, TWICE),
    VECTOR_END,
};
