// SPDX-License-Identifier: GPL-2.0-or-later
// FPREM, FPREM1, FSCALE and FXTRACT: exact operations of the x87 (SDM vol. 2).
#include "core/cpu/softfloat/parts.h"

// A modulo B for 64-bit significands where A's exponent is SHIFT above B's; *QUOTIENT gets the low 64 bits of the
// quotient, which the caller needs modulo 8 only.
static uint64_t modulo(uint64_t a, uint64_t b, unsigned shift, uint64_t *quotient)
{
    uint64_t q = 0, rest = a;
    bool carry = false; // bit 64 of the rest
    for (unsigned i = 0;; i++) {
        q <<= 1;
        if (carry || rest >= b) {
            rest -= b;
            q |= 1;
        }
        if (i == shift)
            break;
        carry = rest >> 63;
        rest <<= 1;
    }
    *quotient = q;
    return rest;
}

static struct parts remainder_special(struct float_env *env, struct parts a, struct parts b)
{
    if (parts_is_nan(a) || parts_is_nan(b))
        return parts_pick_nan(env, a, b);
    if (a.class == PART_INFINITY || b.class == PART_ZERO)
        return parts_default_nan(env);
    raise_denormal(env, a);
    raise_denormal(env, b);
    return a;
}

struct float80 f80_remainder(struct float_env *env, struct float80 a80, struct float80 b80, bool nearest,
                             unsigned *quotient, bool *partial)
{
    struct parts a = parts_f80(a80), b = parts_f80(b80);
    *quotient = 0;
    *partial = false;
    if (a.class != PART_NORMAL || b.class != PART_NORMAL)
        return round_f80_full(env, remainder_special(env, a, b));
    raise_denormal(env, a);
    raise_denormal(env, b);

    uint64_t x = (uint64_t)(a.significand >> 64), y = (uint64_t)(b.significand >> 64), q = 0;
    int difference = a.exponent - b.exponent;
    if (difference < -1 || (difference < 0 && !nearest))
        return round_f80_full(env, a);
    if (difference >= 64) { // reduce the exponent by 32 to 63 and leave the rest to the next round
        unsigned step = ((unsigned)difference & 31) | 32;
        uint64_t rest = modulo(x, y, step, &q);
        *partial = true;
        return round_f80_full(env, parts_normalize(a.sign, a.exponent - (int)step, (u128)rest << 64));
    }
    if (difference < 0) {  // FPREM1 with |A| between B/4 and B: only the rounding of the quotient is left
        bool more = x > y; // |A| > B/2
        if (!more)
            return round_f80_full(env, a);
        *quotient = 1;
        return round_f80_full(env, parts_normalize(!a.sign, b.exponent, ((u128)y << 64) - ((u128)x << 63)));
    }
    uint64_t rest = modulo(x, y, (unsigned)difference, &q);
    bool sign = a.sign;
    if (nearest && (rest > y - rest || (rest == y - rest && (q & 1)))) {
        rest = y - rest;
        sign = !sign;
        q++;
    }
    *quotient = q & 7;
    struct parts r = parts_normalize(sign, b.exponent, (u128)rest << 64);
    if (r.class == PART_ZERO)
        r.sign = a.sign;
    return round_f80_full(env, r);
}

struct float80 f80_scale(struct float_env *env, struct float80 a80, struct float80 b80)
{
    struct parts a = parts_f80(a80), b = parts_f80(b80);
    if (parts_is_nan(a) || parts_is_nan(b))
        return round_f80_full(env, parts_pick_nan(env, a, b));
    if (b.class == PART_INFINITY) {
        if (b.sign ? a.class == PART_INFINITY : a.class == PART_ZERO)
            return round_f80_full(env, parts_default_nan(env));
        raise_denormal(env, a);
        return round_f80_full(env, b.sign ? parts_zero(a.sign) : parts_infinity(a.sign));
    }
    raise_denormal(env, a);
    raise_denormal(env, b);
    if (a.class == PART_NORMAL && b.class == PART_NORMAL) {
        int32_t count = b.exponent < 0 ? 0 : 0x20000; // beyond every finite result
        if (b.exponent >= 0 && b.exponent < 17)
            count = (int32_t)(b.significand >> (127 - b.exponent));
        a.exponent += b.sign ? -count : count;
        return round_f80_full(env, a);
    }
    struct float_env exact = {.masks = FLOAT_ALL}; // by zero: A itself, not even an unmasked underflow
    env->rounded_up = false;
    return round_f80_full(&exact, a);
}

struct float80 f80_extract(struct float_env *env, struct float80 a80, struct float80 *significand)
{
    struct parts a = parts_f80(a80);
    if (parts_is_nan(a))
        return *significand = round_f80_full(env, parts_quiet(env, a));
    raise_denormal(env, a);
    if (a.class == PART_INFINITY) {
        *significand = a80;
        return round_f80_full(env, parts_infinity(false));
    }
    if (a.class == PART_ZERO) {
        env->flags |= FLOAT_DIVIDE;
        *significand = a80;
        return round_f80_full(env, parts_infinity(true));
    }
    int32_t exponent = a.exponent;
    a.exponent = 0;
    *significand = round_f80_full(env, a);
    return int_to_f80(exponent);
}
