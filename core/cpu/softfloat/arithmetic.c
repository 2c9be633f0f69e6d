// SPDX-License-Identifier: GPL-2.0-or-later
// The arithmetic itself, on numbers taken apart: 128-bit significands hold every exact product and leave guard bits.
#include "core/cpu/softfloat/parts.h"

static struct parts add_magnitudes(struct parts a, struct parts b)
{
    if (a.exponent < b.exponent) {
        struct parts t = a;
        a = b;
        b = t;
    }
    u128 aligned = shift_right_sticky(b.significand, (unsigned)(a.exponent - b.exponent));
    u128 sum = a.significand + aligned;
    if (sum < a.significand) // carry out of 128 bits
        return parts_normal(a.sign, a.exponent + 1, shift_right_sticky(sum, 1) | TOP_BIT);
    return parts_normal(a.sign, a.exponent, sum);
}

static struct parts subtract_magnitudes(struct float_env *env, struct parts a, struct parts b) // signs differ
{
    if (a.exponent < b.exponent || (a.exponent == b.exponent && a.significand < b.significand)) {
        struct parts t = a;
        a = b;
        b = t;
    }
    u128 aligned = shift_right_sticky(b.significand, (unsigned)(a.exponent - b.exponent));
    u128 difference = a.significand - aligned;
    if (!difference)
        return parts_zero(env->rounding == FLOAT_DOWN);
    return parts_normalize(a.sign, a.exponent, difference);
}

static struct parts add_special(struct float_env *env, struct parts a, struct parts b)
{
    if (a.class == PART_INFINITY && b.class == PART_INFINITY && a.sign != b.sign)
        return parts_default_nan(env);
    raise_denormal(env, a);
    raise_denormal(env, b);
    if (a.class == PART_INFINITY)
        return a;
    if (b.class == PART_INFINITY)
        return b;
    if (a.class == PART_ZERO && b.class == PART_ZERO)
        return parts_zero(a.sign == b.sign ? a.sign : env->rounding == FLOAT_DOWN);
    return a.class == PART_ZERO ? b : a;
}

struct parts parts_add(struct float_env *env, struct parts a, struct parts b)
{
    if (parts_is_nan(a) || parts_is_nan(b))
        return parts_pick_nan(env, a, b);
    if (a.class != PART_NORMAL || b.class != PART_NORMAL)
        return add_special(env, a, b);
    raise_denormal(env, a);
    raise_denormal(env, b);
    return a.sign == b.sign ? add_magnitudes(a, b) : subtract_magnitudes(env, a, b);
}

// Both have at most 64 significant bits, so that the product is exact.
static struct parts multiply_normals(struct parts a, struct parts b)
{
    u128 product = (u128)(uint64_t)(a.significand >> 64) * (uint64_t)(b.significand >> 64);
    int32_t exponent = a.exponent + b.exponent + 1;
    if (!(product & TOP_BIT)) {
        product <<= 1;
        exponent--;
    }
    return parts_normal(a.sign ^ b.sign, exponent, product);
}

struct parts parts_mul(struct float_env *env, struct parts a, struct parts b)
{
    if (parts_is_nan(a) || parts_is_nan(b))
        return parts_pick_nan(env, a, b);
    if ((a.class == PART_INFINITY && b.class == PART_ZERO) || (a.class == PART_ZERO && b.class == PART_INFINITY))
        return parts_default_nan(env);
    raise_denormal(env, a);
    raise_denormal(env, b);
    if (a.class == PART_NORMAL && b.class == PART_NORMAL)
        return multiply_normals(a, b);
    if (a.class == PART_INFINITY || b.class == PART_INFINITY)
        return parts_infinity(a.sign ^ b.sign);
    return parts_zero(a.sign ^ b.sign);
}

// 127 quotient bits by long division in two steps, and a sticky bit.
static struct parts divide_normals(struct parts a, struct parts b)
{
    uint64_t divisor = (uint64_t)(b.significand >> 64);
    u128 dividend = a.significand >> 1; // quotient below 2^64
    u128 quotient = dividend / divisor;
    u128 rest = (dividend - quotient * divisor) << 63;
    u128 more = rest / divisor;
    return parts_normalize(a.sign ^ b.sign, a.exponent - b.exponent,
                           quotient << 64 | more << 1 | (rest != more * divisor));
}

struct parts parts_div(struct float_env *env, struct parts a, struct parts b)
{
    bool sign = a.sign ^ b.sign;
    if (parts_is_nan(a) || parts_is_nan(b))
        return parts_pick_nan(env, a, b);
    if (a.class == b.class && a.class != PART_NORMAL) // 0/0, infinity/infinity
        return parts_default_nan(env);
    if (b.class == PART_ZERO && a.class == PART_NORMAL) {
        env->flags |= FLOAT_DIVIDE;
        return parts_infinity(sign);
    }
    raise_denormal(env, a);
    raise_denormal(env, b);
    if (a.class == PART_NORMAL && b.class == PART_NORMAL)
        return divide_normals(a, b);
    return a.class == PART_INFINITY || b.class == PART_ZERO ? parts_infinity(sign) : parts_zero(sign);
}

// Square root of a 128-bit integer, rounded down; *REST is what remains.
static uint64_t integer_sqrt(u128 x, u128 *rest)
{
    u128 root = 0, remainder = x;
    for (int bit = 63; bit >= 0; bit--) {
        u128 trial = (root << 1 | (u128)1 << bit) << bit;
        if (remainder >= trial) {
            remainder -= trial;
            root |= (u128)1 << bit;
        }
    }
    *rest = remainder;
    return (uint64_t)root;
}

struct parts parts_sqrt(struct float_env *env, struct parts a)
{
    if (parts_is_nan(a))
        return parts_quiet(env, a);
    if (a.class == PART_ZERO)
        return a;
    if (a.sign)
        return parts_default_nan(env);
    if (a.class == PART_INFINITY)
        return a;
    raise_denormal(env, a);

    // sqrt(s / 2^127 * 2^e): make the exponent of s * 2^(e-127) even.
    bool odd = a.exponent & 1;
    u128 rest;
    uint64_t root = integer_sqrt(odd ? a.significand : a.significand >> 1, &rest);
    u128 significand = (u128)root << 64;
    if (rest > root) // above root + 1/2
        significand |= (u128)1 << 63;
    if (rest)
        significand |= 1;
    int32_t exponent = (a.exponent - odd) / 2;
    return parts_normalize(false, exponent, significand);
}

struct parts parts_fma(struct float_env *env, struct parts a, struct parts b, struct parts c, unsigned negate)
{
    bool product_invalid =
        (a.class == PART_INFINITY && b.class == PART_ZERO) || (a.class == PART_ZERO && b.class == PART_INFINITY);

    if (parts_is_nan(a) || parts_is_nan(b) || parts_is_nan(c)) {
        if (a.class == PART_SIGNALING_NAN || b.class == PART_SIGNALING_NAN || c.class == PART_SIGNALING_NAN)
            env->flags |= FLOAT_INVALID;
        return parts_quiet(env, parts_is_nan(a) ? a : parts_is_nan(b) ? b : c);
    }
    bool sign = a.sign ^ b.sign ^ (negate & FLOAT_FMA_NEGATE_PRODUCT);
    c.sign ^= (negate & FLOAT_FMA_NEGATE_ADDEND) != 0;
    if (product_invalid ||
        ((a.class == PART_INFINITY || b.class == PART_INFINITY) && c.class == PART_INFINITY && c.sign != sign))
        return parts_default_nan(env);
    raise_denormal(env, a);
    raise_denormal(env, b);
    raise_denormal(env, c);
    struct parts product;
    if (a.class == PART_NORMAL && b.class == PART_NORMAL)
        product = multiply_normals(a, b);
    else if (a.class == PART_INFINITY || b.class == PART_INFINITY)
        product = parts_infinity(false);
    else
        product = parts_zero(false);
    product.sign = sign;
    return parts_add(env, product, c);
}

struct parts parts_round_to_integral(struct float_env *env, struct parts a)
{
    if (parts_is_nan(a))
        return parts_quiet(env, a);
    env->rounded_up = false;
    if (a.class != PART_NORMAL || a.exponent >= 127)
        return a;
    u128 unit = a.exponent >= 0 ? TOP_BIT >> a.exponent : 0; // weight of one; 0: all bits are fraction
    u128 whole = unit ? a.significand & ~(unit - 1) : 0;
    u128 rest = a.significand - whole;
    if (!rest)
        return a;
    bool up;
    switch (env->rounding) {
    case FLOAT_NEAREST:
        if (unit)
            up = rest > unit >> 1 || (rest == unit >> 1 && (whole & unit));
        else
            up = a.exponent == -1 && rest > TOP_BIT; // above one half
        break;
    case FLOAT_DOWN:
        up = a.sign;
        break;
    case FLOAT_UP:
        up = !a.sign;
        break;
    default:
        up = false;
    }
    env->flags |= FLOAT_INEXACT;
    env->rounded_up = up;
    if (!unit)
        return up ? parts_normal(a.sign, 0, TOP_BIT) : parts_zero(a.sign);
    if (up) {
        whole += unit;
        if (!whole)
            return parts_normal(a.sign, a.exponent + 1, TOP_BIT);
    }
    return parts_normal(a.sign, a.exponent, whole);
}

enum float_relation parts_compare(struct float_env *env, struct parts a, struct parts b, bool quiet)
{
    if (parts_is_nan(a) || parts_is_nan(b)) {
        if (!quiet || a.class > PART_QUIET_NAN || b.class > PART_QUIET_NAN)
            env->flags |= FLOAT_INVALID;
        return FLOAT_UNORDERED;
    }
    raise_denormal(env, a);
    raise_denormal(env, b);
    if (a.class == PART_ZERO && b.class == PART_ZERO)
        return FLOAT_EQUAL;
    if (a.class == PART_ZERO)
        return b.sign ? FLOAT_GREATER : FLOAT_LESS;
    if (b.class == PART_ZERO || a.sign != b.sign)
        return a.sign ? FLOAT_LESS : FLOAT_GREATER;
    bool less;
    if (a.class == b.class &&
        (a.class == PART_INFINITY || (a.exponent == b.exponent && a.significand == b.significand)))
        return FLOAT_EQUAL;
    if (a.class == PART_INFINITY || b.class == PART_INFINITY)
        less = b.class == PART_INFINITY;
    else
        less = a.exponent < b.exponent || (a.exponent == b.exponent && a.significand < b.significand);
    return less != a.sign ? FLOAT_LESS : FLOAT_GREATER;
}
