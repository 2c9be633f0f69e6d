// SPDX-License-Identifier: GPL-2.0-or-later
// The x87 transcendentals by series on 128-bit significands, so that the one rounding at the end decides the error.
// (SDM vol. 1, 8.3.6 to 8.3.8; special cases: vol. 2)
#include "core/cpu/softfloat/parts.h"

// ---- Arithmetic on whole 128-bit significands, error a few units of 2^-127 ----------------------------------------

static u128 multiply_high(u128 a, u128 b)
{
    uint64_t a1 = (uint64_t)(a >> 64), a0 = (uint64_t)a, b1 = (uint64_t)(b >> 64), b0 = (uint64_t)b;
    u128 middle = (u128)a1 * b0, low = (u128)a0 * b0;
    u128 carry = ((u128)a0 * b1) + (uint64_t)middle + (uint64_t)(low >> 64);
    return (u128)a1 * b1 + (middle >> 64) + (carry >> 64);
}

static struct parts wide_mul(struct parts a, struct parts b)
{
    if (a.class == PART_ZERO || b.class == PART_ZERO)
        return parts_zero(a.sign ^ b.sign);
    return parts_normalize(a.sign ^ b.sign, a.exponent + b.exponent + 1, multiply_high(a.significand, b.significand));
}

static struct parts wide_add(struct parts a, struct parts b)
{
    struct float_env env = {.masks = FLOAT_ALL};
    return parts_add(&env, a, b);
}

static struct parts wide_sub(struct parts a, struct parts b)
{
    b.sign = !b.sign;
    return wide_add(a, b);
}

static struct parts wide_div(struct parts a, struct parts b)
{
    if (a.class == PART_ZERO)
        return parts_zero(a.sign ^ b.sign);
    u128 quotient = 0, rest = a.significand;
    bool carry = false;
    for (int i = 0; i < 128; i++) {
        quotient <<= 1;
        if (carry || rest >= b.significand) {
            rest -= b.significand;
            quotient |= 1;
        }
        carry = (rest & TOP_BIT) != 0;
        rest <<= 1;
    }
    return parts_normalize(a.sign ^ b.sign, a.exponent - b.exponent, quotient);
}

static struct parts wide_int(int64_t n)
{
    return parts_normalize(n < 0, 127, (u128)(n < 0 ? 0 - (uint64_t)n : (uint64_t)n));
}

static struct parts wide_div_int(struct parts a, unsigned n)
{
    if (a.class == PART_ZERO)
        return a;
    u128 quotient = a.significand / n;
    u128 rest = a.significand - quotient * n;
    unsigned shift = count_leading_zeros(quotient);
    quotient = quotient << shift | (rest << shift) / n;
    return parts_normal(a.sign, a.exponent - (int)shift, quotient);
}

static const struct parts one = {.class = PART_NORMAL, .significand = TOP_BIT};
static const struct parts pi = {
    .class = PART_NORMAL, .exponent = 1, .significand = U128(0xc90fdaa22168c234, 0xc4c6628b80dc1cd1)};
static const struct parts ln2 = {
    .class = PART_NORMAL, .exponent = -1, .significand = U128(0xb17217f7d1cf79ab, 0xc9e3b39803f2f6af)};
static const struct parts log2e = {
    .class = PART_NORMAL, .exponent = 0, .significand = U128(0xb8aa3b295c17f0bb, 0xbe87fed0691d3e89)};

// Sum over k of sign^k * z^(2k+1) / (2k+1) for |z| <= 0.18: atanh (SIGN 1) and atan (SIGN -1).
static struct parts odd_series(struct parts z, bool alternate)
{
    struct parts square = wide_mul(z, z);
    struct parts sum = parts_zero(false);
    if (square.class == PART_ZERO)
        return z;
    square.sign = alternate;
    int terms = square.exponent < -64 ? 3 : 128 / -square.exponent + 2;
    for (int k = terms > 60 ? 60 : terms; k > 0; k--)
        sum = wide_mul(square, wide_add(wide_div_int(one, 2 * (unsigned)k + 1), sum));
    return wide_mul(z, wide_add(one, sum));
}

// Inexact results of transcendentals always say so.
static struct float80 finish(struct float_env *env, struct parts p)
{
    if (p.class == PART_NORMAL)
        p.significand |= 1;
    return round_f80_full(env, p);
}

// ---- F2XM1 ------------------------------------------------------------------------------------------------------

struct float80 f80_exp2m1(struct float_env *env, struct float80 a80)
{
    struct parts a = parts_f80(a80);
    if (parts_is_nan(a))
        return round_f80_full(env, parts_quiet(env, a));
    raise_denormal(env, a);
    if (a.class == PART_INFINITY)
        return round_f80_full(env,
                              a.sign ? (struct parts){.class = PART_NORMAL, .sign = true, .significand = TOP_BIT} : a);
    if (a.class == PART_ZERO)
        return a80;
    if (a.exponent >= 0) { // 1 and -1 are exact; beyond them the result is undefined, ours is the operand
        if (a.exponent == 0 && a.significand == TOP_BIT)
            env->flags |= FLOAT_INEXACT; // all the same
        if (a.exponent == 0 && a.significand == TOP_BIT)
            return round_f80_full(env, a.sign ? parts_normal(true, -1, TOP_BIT) : a);
        return a80;
    }
    struct parts t = wide_mul(a, ln2), sum = one;
    for (unsigned k = t.exponent < -40 ? 5 : 36; k > 1; k--)
        sum = wide_add(one, wide_div_int(wide_mul(t, sum), k));
    return finish(env, wide_mul(t, sum));
}

// ---- Logarithms -------------------------------------------------------------------------------------------------

// log2(1 + X) for |X| < 0.42, X not zero.
static struct parts log2p1(struct parts x)
{
    struct parts z = wide_div(x, wide_add(x, wide_int(2)));
    struct parts r = wide_mul(odd_series(z, false), log2e);
    r.exponent++;
    return r;
}

static struct parts log2_of(struct parts x) // X > 0
{
    int32_t exponent = x.exponent;
    x.exponent = 0;
    if (x.significand > U128(0xb504f333f9de6484, 0)) { // above the square root of two
        x.exponent = -1;
        exponent++;
    }
    struct parts whole = wide_int(exponent);
    struct parts rest = wide_sub(x, one);
    if (rest.class == PART_ZERO)
        return whole;
    return wide_add(whole, log2p1(rest));
}

static struct parts signed_infinity_product(struct float_env *env, struct parts y, bool sign)
{
    if (y.class == PART_ZERO)
        return parts_default_nan(env);
    return parts_infinity(y.sign ^ sign);
}

struct float80 f80_y_log2(struct float_env *env, struct float80 y80, struct float80 x80)
{
    struct parts x = parts_f80(x80), y = parts_f80(y80);
    if (parts_is_nan(x) || parts_is_nan(y))
        return round_f80_full(env, parts_pick_nan(env, x, y));
    if (x.sign && x.class != PART_ZERO)
        return round_f80_full(env, parts_default_nan(env));
    if (x.class == PART_ZERO) {
        if (y.class == PART_ZERO)
            return round_f80_full(env, parts_default_nan(env));
        if (y.class != PART_INFINITY)
            env->flags |= FLOAT_DIVIDE;
        return round_f80_full(env, parts_infinity(!y.sign));
    }
    bool is_one = x.class == PART_NORMAL && x.exponent == 0 && x.significand == TOP_BIT;
    if (is_one && y.class == PART_INFINITY)
        return round_f80_full(env, parts_default_nan(env));
    raise_denormal(env, x);
    raise_denormal(env, y);
    if (x.class == PART_INFINITY)
        return round_f80_full(env, signed_infinity_product(env, y, false));
    if (y.class == PART_INFINITY)
        return round_f80_full(env, parts_infinity(y.sign ^ (x.exponent < 0)));
    if (is_one || y.class == PART_ZERO)
        return round_f80_full(env, parts_zero(y.sign ^ (x.exponent < 0)));
    struct parts r = wide_mul(log2_of(x), y);
    if (x.significand != TOP_BIT)
        return finish(env, r);
    env->flags |= FLOAT_INEXACT; // said even of powers of two, where the result can be exact
    if (r.exponent < 1 - 16383 && env->masks & FLOAT_UNDERFLOW)
        env->flags |= FLOAT_UNDERFLOW;
    return round_f80_full(env, r);
}

struct float80 f80_y_log2p1(struct float_env *env, struct float80 y80, struct float80 x80)
{
    struct parts x = parts_f80(x80), y = parts_f80(y80);
    if (parts_is_nan(x) || parts_is_nan(y))
        return round_f80_full(env, parts_pick_nan(env, x, y));
    if ((x.class == PART_ZERO && y.class == PART_INFINITY) || (x.class == PART_INFINITY && x.sign))
        return round_f80_full(env, parts_default_nan(env));
    raise_denormal(env, x);
    raise_denormal(env, y);
    if (x.class == PART_INFINITY)
        return round_f80_full(env, signed_infinity_product(env, y, false));
    if (y.class == PART_INFINITY)
        return round_f80_full(env, parts_infinity(y.sign ^ x.sign));
    if (x.class == PART_ZERO || y.class == PART_ZERO)
        return round_f80_full(env, parts_zero(x.sign ^ y.sign));
    struct parts sum = wide_add(one, x);
    if (sum.class == PART_ZERO || sum.sign) // X <= -1 is outside the instruction's range
        return round_f80_full(env, parts_default_nan(env));
    return finish(env, wide_mul(x.exponent < -2 ? log2p1(x) : log2_of(sum), y));
}

// ---- FPATAN -----------------------------------------------------------------------------------------------------

// atan(k / 16)
static const struct parts arc[17] = {
    {.class = PART_ZERO},
#define ARC(e, high, low)                                                                                              \
    {                                                                                                                  \
        .class = PART_NORMAL, .exponent = e, .significand = U128(high, low)                                            \
    }
    ARC(-5, 0xffaaddb967ef4e36, 0xcb2792dc0e2e0d51),
    ARC(-4, 0xfeadd4d5617b6e32, 0xc897989f3e888ef8),
    ARC(-3, 0xbdcbda5e72d81134, 0x7b0b4f881c9c7488),
    ARC(-3, 0xfadbafc96406eb15, 0x6dc79ef5f7a217e6),
    ARC(-2, 0x9b13b9b83f5e5e69, 0xc5abb498d27af328),
    ARC(-2, 0xb7b0ca0f26f78473, 0x8aa32122dcfe4483),
    ARC(-2, 0xd327761e611fe5b6, 0x427c95e9001e7136),
    ARC(-2, 0xed63382b0dda7b45, 0x6fe445ecbc3a8d03),
    ARC(-1, 0x832bf4a6d9867e2a, 0x4b6a09cb61a515c1),
    ARC(-1, 0x8f005d5ef7f59f9b, 0x5c835e1665c43748),
    ARC(-1, 0x9a2f80e671bdda20, 0x4226f8e2204ff3bd),
    ARC(-1, 0xa4bc7d1934f70924, 0x19a87f2a457dac9f),
    ARC(-1, 0xaeac4c38b4d8c080, 0x14725e2f3e52070a),
    ARC(-1, 0xb8053e2bc2319e73, 0xcb2da55210a4443d),
    ARC(-1, 0xc0ce85b8ac526640, 0x89dd62c46e92fa25),
    ARC(-1, 0xc90fdaa22168c234, 0xc4c6628b80dc1cd1),
};

static struct parts atan_unit(struct parts r) // 0 < R <= 1
{
    unsigned k = 0;
    if (r.exponent >= -5)
        k = (((unsigned)(r.significand >> 120) * 2 >> -r.exponent) + 8) >> 4; // nearest sixteenth
    if (!k)
        return odd_series(r, true);
    struct parts c = parts_normalize(false, 123, k); // k / 16
    struct parts t = wide_div(wide_sub(r, c), wide_add(one, wide_mul(r, c)));
    return t.class == PART_ZERO ? arc[k] : wide_add(arc[k], odd_series(t, true));
}

static struct parts scaled(struct parts p, int32_t shift)
{
    p.exponent += shift;
    return p;
}

static struct parts atan_infinite(struct parts y, struct parts x) // one at least is infinite
{
    if (y.class != PART_INFINITY)
        return x.sign ? pi : parts_zero(false);
    if (x.class != PART_INFINITY)
        return scaled(pi, -1);
    return x.sign ? wide_mul(scaled(pi, -2), wide_int(3)) : scaled(pi, -2);
}

struct float80 f80_atan(struct float_env *env, struct float80 y80, struct float80 x80)
{
    struct parts x = parts_f80(x80), y = parts_f80(y80), r;
    if (parts_is_nan(x) || parts_is_nan(y))
        return round_f80_full(env, parts_pick_nan(env, x, y));
    raise_denormal(env, x);
    raise_denormal(env, y);
    bool sign = y.sign, left = x.sign;
    if (x.class == PART_INFINITY || y.class == PART_INFINITY) {
        r = atan_infinite(y, x);
    } else if (y.class == PART_ZERO) {
        r = left ? pi : parts_zero(false);
    } else if (x.class == PART_ZERO) {
        r = scaled(pi, -1);
    } else {
        x.sign = y.sign = false;
        bool steep = y.exponent > x.exponent || (y.exponent == x.exponent && y.significand > x.significand);
        struct parts ratio = steep ? wide_div(x, y) : wide_div(y, x);
        if (!steep && !left && ratio.exponent < -64) { // the ratio itself is as close as it gets, perhaps tiny
            ratio.sign = sign;
            return finish(env, ratio);
        }
        r = atan_unit(ratio);
        if (steep)
            r = left ? wide_add(scaled(pi, -1), r) : wide_sub(scaled(pi, -1), r);
        else if (left)
            r = wide_sub(pi, r);
    }
    r.sign = sign;
    return finish(env, r);
}

// ---- Sine, cosine, tangent --------------------------------------------------------------------------------------

// Pi/2 is PI_66 / 2^67.
#define PI_66 (U128(0xc, 0x90fdaa22168c234c))

// A modulo pi/2, nearest: the rest in [-pi/4, pi/4]; the quotient's low bits.
static struct parts reduce(struct parts a, unsigned *quadrant)
{
    *quadrant = 0;
    if (a.exponent < -1)
        return a;
    u128 rest = (u128)(uint64_t)(a.significand >> 64); // A is this * 2^(exponent - 63)
    int shift = a.exponent - 63 + 67;
    unsigned q = 0;
    for (int i = 0; i < shift; i++) { // A's significand is below 2^64, PI_66 above
        rest <<= 1;
        q <<= 1;
        if (rest >= PI_66) {
            rest -= PI_66;
            q |= 1;
        }
    }
    bool negative = rest > PI_66 - rest;
    if (negative) {
        rest = PI_66 - rest;
        q++;
    }
    *quadrant = (a.sign ? 0 - q : q) & 3;
    return parts_normalize(a.sign ^ negative, 127 - 67, rest);
}

static struct parts taylor(struct parts square, unsigned first) // 1 - s/(f(f+1)) + ...
{
    struct parts sum = one;
    square.sign = true;
    if (square.class == PART_ZERO || square.exponent < -130)
        return one;
    for (int k = (int)first + 34; k > 0; k -= 2)
        sum = wide_add(one, wide_div_int(wide_mul(square, sum), (unsigned)(k * (k + 1))));
    return sum;
}

static void sine_and_cosine(struct parts a, struct parts *sine, struct parts *cosine)
{
    unsigned quadrant;
    struct parts t = reduce(a, &quadrant);
    struct parts square = wide_mul(t, t);
    struct parts s = wide_mul(t, taylor(square, 2)), c = taylor(square, 1);
    *sine = quadrant & 1 ? c : s;
    *cosine = quadrant & 1 ? s : c;
    sine->sign ^= quadrant >= 2;
    cosine->sign ^= quadrant == 1 || quadrant == 2;
}

// True when *RESULT is the answer already (a NaN) or the operand is too large (*IN_RANGE false).
static bool trigonometric_special(struct float_env *env, struct parts a, struct parts *result, bool *in_range)
{
    *in_range = true;
    if (parts_is_nan(a)) {
        *result = parts_quiet(env, a);
        return true;
    }
    if (a.class == PART_INFINITY) {
        *result = parts_default_nan(env);
        return true;
    }
    raise_denormal(env, a);
    *in_range = a.class == PART_ZERO || a.exponent < 63;
    return !*in_range;
}

// Just below one, and just below A: what is left of cosine and sine of tiny operands. The exact magnitude matters to
// rounding and underflow.
static void sine_and_cosine_of_tiny(struct parts a, struct parts *sine, struct parts *cosine)
{
    *cosine = parts_normal(false, -1, ~(u128)0);
    // The processor gives the smallest normal number back as it is, in every rounding direction.
    bool smallest = a.exponent == 1 - 16383 && a.significand == TOP_BIT;
    *sine = parts_normalize(a.sign, a.exponent, a.significand - !smallest);
}

bool f80_sincos(struct float_env *env, struct float80 a80, struct float80 *sine, struct float80 *cosine)
{
    struct parts a = parts_f80(a80), s, c;
    bool in_range;
    if (trigonometric_special(env, a, &s, &in_range)) {
        if (!in_range)
            return false;
        c = s;
    } else if (a.class == PART_ZERO) {
        s = a;
        c = one;
    } else if (a.exponent < -70) {
        sine_and_cosine_of_tiny(a, &s, &c);
        env->flags |= FLOAT_INEXACT;
    } else {
        sine_and_cosine(a, &s, &c);
        s.significand |= 1; // never exact
        c.significand |= 1;
    }
    if (sine)
        *sine = round_f80_full(env, s);
    if (cosine)
        *cosine = round_f80_full(env, c);
    return true;
}

bool f80_tan(struct float_env *env, struct float80 a80, struct float80 *tangent)
{
    struct parts a = parts_f80(a80), s, c;
    bool in_range;
    if (trigonometric_special(env, a, &s, &in_range)) {
        if (in_range)
            *tangent = round_f80_full(env, s);
        return in_range;
    }
    if (a.class == PART_ZERO) {
        *tangent = a80;
        return true;
    }
    sine_and_cosine(a, &s, &c);
    *tangent = finish(env, a.exponent < -70 ? a : wide_div(s, c));
    return true;
}
