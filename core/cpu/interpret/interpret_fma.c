// SPDX-License-Identifier: GPL-2.0-or-later
// FMA3: three operand orders, four signs, and the alternating forms (SDM vol. 1, 14.5; vol. 2).
#include "core/cpu/interpret/vector.h"

// The digits name the operands of "first * second + third": 1 the destination (M), 2 VEX.vvvv (A), 3 ModRM.rm (B).
#define ORDER_132(t) c->m.t[k], c->b.t[k], c->a.t[k]
#define ORDER_213(t) c->a.t[k], c->m.t[k], c->b.t[k]
#define ORDER_231(t) c->a.t[k], c->b.t[k], c->m.t[k]

#define FMA(name, order, sign)                                                                                         \
    static void name##order##_ps(struct vector_call *c)                                                                \
    {                                                                                                                  \
        for (unsigned k = 0; k < c->size / 4; k++)                                                                     \
            c->d.u32[k] = f32_fma(&c->env, ORDER_##order(u32), sign);                                                  \
    }                                                                                                                  \
    static void name##order##_pd(struct vector_call *c)                                                                \
    {                                                                                                                  \
        for (unsigned k = 0; k < c->size / 8; k++)                                                                     \
            c->d.u64[k] = f64_fma(&c->env, ORDER_##order(u64), sign);                                                  \
    }
#define FMA_SCALAR(name, order, sign)                                                                                  \
    static void name##order##_ss(struct vector_call *c)                                                                \
    {                                                                                                                  \
        const unsigned k = 0;                                                                                          \
        c->d = c->m;                                                                                                   \
        c->d.u32[0] = f32_fma(&c->env, ORDER_##order(u32), sign);                                                      \
    }                                                                                                                  \
    static void name##order##_sd(struct vector_call *c)                                                                \
    {                                                                                                                  \
        const unsigned k = 0;                                                                                          \
        c->d = c->m;                                                                                                   \
        c->d.u64[0] = f64_fma(&c->env, ORDER_##order(u64), sign);                                                      \
    }
#define ORDERS(shape, name, sign) shape(name, 132, sign) shape(name, 213, sign) shape(name, 231, sign)
#define NEGATE_BOTH               (FLOAT_FMA_NEGATE_PRODUCT | FLOAT_FMA_NEGATE_ADDEND)

ORDERS(FMA, add, 0)
ORDERS(FMA_SCALAR, add, 0)
ORDERS(FMA, sub, FLOAT_FMA_NEGATE_ADDEND)
ORDERS(FMA_SCALAR, sub, FLOAT_FMA_NEGATE_ADDEND)
ORDERS(FMA, negative_add, FLOAT_FMA_NEGATE_PRODUCT)
ORDERS(FMA_SCALAR, negative_add, FLOAT_FMA_NEGATE_PRODUCT)
ORDERS(FMA, negative_sub, NEGATE_BOTH)
ORDERS(FMA_SCALAR, negative_sub, NEGATE_BOTH)
ORDERS(FMA, addsub, (k & 1 ? 0 : FLOAT_FMA_NEGATE_ADDEND))
ORDERS(FMA, subadd, (k & 1 ? FLOAT_FMA_NEGATE_ADDEND : 0))

#define ROW(name, kernel) VECTOR_VEX(name, kernel, .third = THIRD_DESTINATION, .is_float = true)
#define PACKED(name, kernel)                                                                                           \
    ROW(VF##name##132PS, kernel##132_ps), ROW(VF##name##132PD, kernel##132_pd), ROW(VF##name##213PS, kernel##213_ps),  \
        ROW(VF##name##213PD, kernel##213_pd), ROW(VF##name##231PS, kernel##231_ps),                                    \
        ROW(VF##name##231PD, kernel##231_pd)
#define SCALAR(name, kernel)                                                                                           \
    ROW(VF##name##132SS, kernel##132_ss), ROW(VF##name##132SD, kernel##132_sd), ROW(VF##name##213SS, kernel##213_ss),  \
        ROW(VF##name##213SD, kernel##213_sd), ROW(VF##name##231SS, kernel##231_ss),                                    \
        ROW(VF##name##231SD, kernel##231_sd)

const struct insn_row interpret_rows_fma[] = {
    PACKED(MADD, add),
    SCALAR(MADD, add),
    PACKED(MSUB, sub),
    SCALAR(MSUB, sub),
    PACKED(NMADD, negative_add),
    SCALAR(NMADD, negative_add),
    PACKED(NMSUB, negative_sub),
    SCALAR(NMSUB, negative_sub),
    PACKED(MADDSUB, addsub),
    PACKED(MSUBADD, subadd),
    VECTOR_END,
};
