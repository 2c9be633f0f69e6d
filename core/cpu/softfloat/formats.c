// SPDX-License-Identifier: GPL-2.0-or-later
// The public operations of each format. binary32 and binary64 take the host's arithmetic where that is provably the
// same: rounding to nearest, operands zero or normal, result above the smallest normal number, and an inexact flag that
// nobody looks at because it is masked and set already.
#include "core/cpu/softfloat/parts.h"
#include <float.h>
#include <math.h>

static inline float float_of(uint32_t a)
{
    float f;
    memcpy(&f, &a, sizeof(f));
    return f;
}
static inline uint32_t bits_of_float(float f)
{
    uint32_t a;
    memcpy(&a, &f, sizeof(a));
    return a;
}
static inline double double_of(uint64_t a)
{
    double d;
    memcpy(&d, &a, sizeof(d));
    return d;
}
static inline uint64_t bits_of_double(double d)
{
    uint64_t a;
    memcpy(&a, &d, sizeof(a));
    return a;
}

static inline bool plain32(uint32_t a) // zero or normal
{
    return (((a >> 23) + 1) & 255) > 1 || !(a << 1);
}
static inline bool plain64(uint64_t a)
{
    return (((a >> 52) + 1) & 2047) > 1 || !(a << 1);
}
static inline bool safe32(float r)
{
    return fabsf(r) > FLT_MIN && fabsf(r) <= FLT_MAX;
}
static inline bool safe64(double r)
{
    return fabs(r) > DBL_MIN && fabs(r) <= DBL_MAX;
}

#define BINARY(width, host_type, bits_of, name, operator, operation)                                                   \
    uint##width##_t f##width##_##name(struct float_env *env, uint##width##_t a, uint##width##_t b)                     \
    {                                                                                                                  \
        if (env->quick && plain##width(a) && plain##width(b)) {                                                        \
            host_type r = host_type##_of(a) operator host_type##_of(b);                                                \
            if (safe##width(r))                                                                                        \
                return bits_of(r);                                                                                     \
        }                                                                                                              \
        struct parts x = parts_f##width(env, a), y = parts_f##width(env, b);                                           \
        return round_f##width(env, operation);                                                                         \
    }

// Changes the sign of an addend that is no NaN (subtraction).
static struct parts negated(struct parts a)
{
    if (!parts_is_nan(a))
        a.sign = !a.sign;
    return a;
}

BINARY(32, float, bits_of_float, add, +, parts_add(env, x, y))
BINARY(32, float, bits_of_float, sub, -, parts_add(env, x, negated(y)))
BINARY(32, float, bits_of_float, mul, *, parts_mul(env, x, y))
BINARY(32, float, bits_of_float, div, /, parts_div(env, x, y))
BINARY(64, double, bits_of_double, add, +, parts_add(env, x, y))
BINARY(64, double, bits_of_double, sub, -, parts_add(env, x, negated(y)))
BINARY(64, double, bits_of_double, mul, *, parts_mul(env, x, y))
BINARY(64, double, bits_of_double, div, /, parts_div(env, x, y))

uint32_t f32_sqrt(struct float_env *env, uint32_t a)
{
    if (env->quick && plain32(a) && !(a >> 31))
        return bits_of_float(sqrtf(float_of(a)));
    return round_f32(env, parts_sqrt(env, parts_f32(env, a)));
}

uint64_t f64_sqrt(struct float_env *env, uint64_t a)
{
    if (env->quick && plain64(a) && !(a >> 63))
        return bits_of_double(sqrt(double_of(a)));
    return round_f64(env, parts_sqrt(env, parts_f64(env, a)));
}

uint32_t f32_fma(struct float_env *env, uint32_t a, uint32_t b, uint32_t c, unsigned negate)
{
    struct parts p = parts_fma(env, parts_f32(env, a), parts_f32(env, b), parts_f32(env, c), negate);
    return round_f32(env, p);
}

uint64_t f64_fma(struct float_env *env, uint64_t a, uint64_t b, uint64_t c, unsigned negate)
{
    struct parts p = parts_fma(env, parts_f64(env, a), parts_f64(env, b), parts_f64(env, c), negate);
    return round_f64(env, p);
}

uint32_t f32_round(struct float_env *env, uint32_t a)
{
    return round_f32(env, parts_round_to_integral(env, parts_f32(env, a)));
}

uint64_t f64_round(struct float_env *env, uint64_t a)
{
    return round_f64(env, parts_round_to_integral(env, parts_f64(env, a)));
}

enum float_relation f32_compare(struct float_env *env, uint32_t a, uint32_t b, bool quiet)
{
    if (plain32(a) && plain32(b)) {
        float x = float_of(a), y = float_of(b);
        return x < y ? FLOAT_LESS : x > y ? FLOAT_GREATER : FLOAT_EQUAL;
    }
    return parts_compare(env, parts_f32(env, a), parts_f32(env, b), quiet);
}

enum float_relation f64_compare(struct float_env *env, uint64_t a, uint64_t b, bool quiet)
{
    if (plain64(a) && plain64(b)) {
        double x = double_of(a), y = double_of(b);
        return x < y ? FLOAT_LESS : x > y ? FLOAT_GREATER : FLOAT_EQUAL;
    }
    return parts_compare(env, parts_f64(env, a), parts_f64(env, b), quiet);
}

static inline uint32_t flush32(const struct float_env *env, uint32_t a)
{
    return env->daz && !(a >> 23 & 255) ? a & 0x80000000u : a;
}
static inline uint64_t flush64(const struct float_env *env, uint64_t a)
{
    return env->daz && !(a >> 52 & 2047) ? a & 0x8000000000000000ull : a;
}

uint32_t f32_min(struct float_env *env, uint32_t a, uint32_t b)
{
    return f32_compare(env, a, b, false) == FLOAT_LESS ? flush32(env, a) : flush32(env, b);
}

uint32_t f32_max(struct float_env *env, uint32_t a, uint32_t b)
{
    return f32_compare(env, a, b, false) == FLOAT_GREATER ? flush32(env, a) : flush32(env, b);
}

uint64_t f64_min(struct float_env *env, uint64_t a, uint64_t b)
{
    return f64_compare(env, a, b, false) == FLOAT_LESS ? flush64(env, a) : flush64(env, b);
}

uint64_t f64_max(struct float_env *env, uint64_t a, uint64_t b)
{
    return f64_compare(env, a, b, false) == FLOAT_GREATER ? flush64(env, a) : flush64(env, b);
}

// ---- 80 bits ----------------------------------------------------------------------------------------------------

struct float80 f80_add(struct float_env *env, struct float80 a, struct float80 b)
{
    return round_f80(env, parts_add(env, parts_f80(a), parts_f80(b)));
}

struct float80 f80_sub(struct float_env *env, struct float80 a, struct float80 b)
{
    return round_f80(env, parts_add(env, parts_f80(a), negated(parts_f80(b))));
}

struct float80 f80_mul(struct float_env *env, struct float80 a, struct float80 b)
{
    return round_f80(env, parts_mul(env, parts_f80(a), parts_f80(b)));
}

struct float80 f80_div(struct float_env *env, struct float80 a, struct float80 b)
{
    return round_f80(env, parts_div(env, parts_f80(a), parts_f80(b)));
}

struct float80 f80_sqrt(struct float_env *env, struct float80 a)
{
    return round_f80(env, parts_sqrt(env, parts_f80(a)));
}

struct float80 f80_round(struct float_env *env, struct float80 a)
{
    struct parts p = parts_f80(a);
    if (!parts_is_nan(p))
        raise_denormal(env, p);
    p = parts_round_to_integral(env, p);
    bool up = env->rounded_up;
    struct float80 r = round_f80_full(env, p);
    env->rounded_up = up;
    return r;
}

enum float_relation f80_compare(struct float_env *env, struct float80 a, struct float80 b, bool quiet)
{
    return parts_compare(env, parts_f80(a), parts_f80(b), quiet);
}
