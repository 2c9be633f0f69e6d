// SPDX-License-Identifier: GPL-2.0-or-later
// Inside softfloat: a number taken apart, its formats, and the one place where results are rounded.
#ifndef CLOCHE_SOFTFLOAT_PARTS_H
#define CLOCHE_SOFTFLOAT_PARTS_H

#include "core/cpu/softfloat/softfloat.h"

typedef unsigned __int128 u128;

#define U128(hi, lo) ((u128)(hi) << 64 | (lo))
#define TOP_BIT      ((u128)1 << 127)
#define QUIET_BIT    ((u128)1 << 126)

enum part_class { PART_ZERO, PART_NORMAL, PART_INFINITY, PART_QUIET_NAN, PART_SIGNALING_NAN, PART_UNSUPPORTED };

// Value: significand / 2^127 * 2^exponent, its top bit set for normal numbers. A NaN keeps its payload left-aligned.
struct parts {
    u128 significand;
    int32_t exponent;
    uint8_t class;
    bool sign;
    bool denormal; // was one, and raises FLOAT_DENORMAL when used
};

struct float_format {
    int precision; // significant bits, integer bit included
    int bias;
    int exponent_max; // all ones
    bool x87;         // has an explicit integer bit, and a wrapped result for unmasked over- and underflow
};
extern const struct float_format format_f16, format_f32, format_f64, format_f80;

struct parts parts_f16(uint16_t a);
struct parts parts_f32(const struct float_env *env, uint32_t a);
struct parts parts_f64(const struct float_env *env, uint64_t a);
struct parts parts_f80(struct float80 a);

// Rounds to FORMAT and puts the pieces together, raising overflow, underflow and inexact. f80 results honour
// env->precision when PRECISION_CONTROL is set.
uint16_t round_f16(struct float_env *env, struct parts p);
uint32_t round_f32(struct float_env *env, struct parts p);
uint64_t round_f64(struct float_env *env, struct parts p);
struct float80 round_f80(struct float_env *env, struct parts p);      // under precision control
struct float80 round_f80_full(struct float_env *env, struct parts p); // 64 bits

// The result for operands of which one at least is a NaN or unsupported; raises invalid for signaling ones.
struct parts parts_pick_nan(struct float_env *env, struct parts a, struct parts b);
struct parts parts_default_nan(struct float_env *env); // raises invalid
struct parts parts_quiet(struct float_env *env, struct parts a);

struct parts parts_add(struct float_env *env, struct parts a, struct parts b);
struct parts parts_mul(struct float_env *env, struct parts a, struct parts b);
struct parts parts_div(struct float_env *env, struct parts a, struct parts b);
struct parts parts_sqrt(struct float_env *env, struct parts a);
struct parts parts_fma(struct float_env *env, struct parts a, struct parts b, struct parts c, unsigned negate);
struct parts parts_round_to_integral(struct float_env *env, struct parts a);
enum float_relation parts_compare(struct float_env *env, struct parts a, struct parts b, bool quiet);

static inline bool parts_is_nan(struct parts a)
{
    return a.class >= PART_QUIET_NAN;
}
static inline unsigned count_leading_zeros(u128 x)
{
    uint64_t high = (uint64_t)(x >> 64);
    return high ? (unsigned)__builtin_clzll(high) : 64 + (unsigned)__builtin_clzll((uint64_t)x);
}
// Shifts right, keeping in bit 0 whether anything fell out.
static inline u128 shift_right_sticky(u128 x, unsigned count)
{
    if (!count)
        return x;
    if (count > 127)
        return x != 0;
    return x >> count | ((x << (128 - count)) != 0);
}
static inline struct parts parts_zero(bool sign)
{
    return (struct parts){.class = PART_ZERO, .sign = sign};
}
static inline struct parts parts_infinity(bool sign)
{
    return (struct parts){.class = PART_INFINITY, .sign = sign};
}
static inline struct parts parts_normal(bool sign, int32_t exponent, u128 significand) // top bit set already
{
    return (struct parts){.class = PART_NORMAL, .sign = sign, .exponent = exponent, .significand = significand};
}
static inline struct parts parts_normalize(bool sign, int32_t exponent, u128 significand)
{
    if (!significand)
        return parts_zero(sign);
    unsigned shift = count_leading_zeros(significand);
    return parts_normal(sign, exponent - (int32_t)shift, significand << shift);
}
static inline void raise_denormal(struct float_env *env, struct parts a)
{
    if (a.denormal)
        env->flags |= FLOAT_DENORMAL;
}

#endif
