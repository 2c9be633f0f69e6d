// SPDX-License-Identifier: GPL-2.0-or-later
// Taking numbers apart, choosing NaNs, and rounding (SDM vol. 1, 4.8 and 4.9).
#include "core/cpu/softfloat/parts.h"

const struct float_format format_f16 = {.precision = 11, .bias = 15, .exponent_max = 31};
const struct float_format format_f32 = {.precision = 24, .bias = 127, .exponent_max = 255};
const struct float_format format_f64 = {.precision = 53, .bias = 1023, .exponent_max = 2047};
const struct float_format format_f80 = {.precision = 64, .bias = 16383, .exponent_max = 32767, .x87 = true};

// FRACTION has no integer bit and precision - 1 bits.
static inline struct parts unpack(const struct float_format *format, bool sign, int exponent, uint64_t fraction,
                                  bool daz)
{
    unsigned width = (unsigned)format->precision - 1;
    u128 aligned = (u128)fraction << (127 - width);

    if (exponent == format->exponent_max) {
        if (!fraction)
            return parts_infinity(sign);
        return (struct parts){.class = aligned & QUIET_BIT ? PART_QUIET_NAN : PART_SIGNALING_NAN,
                              .sign = sign,
                              .significand = aligned | TOP_BIT};
    }
    if (exponent)
        return parts_normal(sign, exponent - format->bias, aligned | TOP_BIT);
    if (!fraction || daz)
        return parts_zero(sign);
    struct parts p = parts_normalize(sign, 1 - format->bias, aligned);
    p.denormal = true;
    return p;
}

struct parts parts_f16(uint16_t a)
{
    return unpack(&format_f16, a >> 15, a >> 10 & 31, a & 0x3ff, false);
}

struct parts parts_f32(const struct float_env *env, uint32_t a)
{
    return unpack(&format_f32, a >> 31, a >> 23 & 255, a & 0x7fffff, env->daz);
}

struct parts parts_f64(const struct float_env *env, uint64_t a)
{
    return unpack(&format_f64, a >> 63, a >> 52 & 2047, a & 0xfffffffffffffull, env->daz);
}

struct parts parts_f80(struct float80 a)
{
    bool sign = a.sign_exponent >> 15;
    int exponent = a.sign_exponent & 0x7fff;
    u128 significand = (u128)a.significand << 64;

    if (f80_is_unsupported(a))
        return (struct parts){.class = PART_UNSUPPORTED, .sign = sign, .significand = significand};
    if (exponent == 0x7fff) {
        if (significand == TOP_BIT)
            return parts_infinity(sign);
        return (struct parts){.class = significand & QUIET_BIT ? PART_QUIET_NAN : PART_SIGNALING_NAN,
                              .sign = sign,
                              .significand = significand};
    }
    if (exponent)
        return parts_normal(sign, exponent - 16383, significand);
    struct parts p = parts_normalize(sign, 1 - 16383, significand); // a pseudo-denormal has its top bit set already
    p.denormal = p.class == PART_NORMAL;
    return p;
}

// ---- NaNs (SDM vol. 1, table 4-7) -------------------------------------------------------------------------------

struct parts parts_default_nan(struct float_env *env)
{
    env->flags |= FLOAT_INVALID;
    return (struct parts){.class = PART_QUIET_NAN, .sign = true, .significand = TOP_BIT | QUIET_BIT};
}

struct parts parts_quiet(struct float_env *env, struct parts a)
{
    if (a.class == PART_UNSUPPORTED)
        return parts_default_nan(env);
    if (a.class == PART_SIGNALING_NAN)
        env->flags |= FLOAT_INVALID;
    a.class = PART_QUIET_NAN;
    a.significand |= QUIET_BIT;
    return a;
}

// The x87 prefers the quiet NaN over a signaling one, then the larger significand, then the positive one.
static bool x87_prefers_second(struct parts a, struct parts b)
{
    if (!parts_is_nan(a) || !parts_is_nan(b))
        return parts_is_nan(b);
    if (a.class != b.class)
        return b.class == PART_QUIET_NAN;
    if (a.significand != b.significand)
        return b.significand > a.significand;
    return a.sign && !b.sign;
}

struct parts parts_pick_nan(struct float_env *env, struct parts a, struct parts b)
{
    if (a.class == PART_UNSUPPORTED || b.class == PART_UNSUPPORTED)
        return parts_default_nan(env);
    if (a.class == PART_SIGNALING_NAN || b.class == PART_SIGNALING_NAN)
        env->flags |= FLOAT_INVALID;
    bool second = env->x87 ? x87_prefers_second(a, b) : !parts_is_nan(a);
    return parts_quiet(env, second ? b : a);
}

// ---- Rounding ---------------------------------------------------------------------------------------------------

static inline bool round_away(const struct float_env *env, bool sign, u128 rest, u128 half, bool odd)
{
    switch (env->rounding) {
    case FLOAT_NEAREST:
        return rest > half || (rest == half && odd);
    case FLOAT_DOWN:
        return sign && rest;
    case FLOAT_UP:
        return !sign && rest;
    default:
        return false;
    }
}

struct rounded {
    u128 significand; // left-aligned in 128 bits, low bits clear
    bool carried;     // rounded up to the next power of two: significand is TOP_BIT
    bool inexact, up;
};

// Keeps the top BITS (1 to 64) bits; the top one need not be set (a denormal).
static inline struct rounded round_bits(const struct float_env *env, bool sign, u128 significand, int bits)
{
    u128 unit = (u128)1 << (128 - bits);
    u128 rest = significand & (unit - 1);
    struct rounded r = {.significand = significand - rest, .inexact = rest != 0};

    r.up = round_away(env, sign, rest, unit >> 1, (r.significand & unit) != 0);
    if (r.up) {
        r.significand += unit;
        if (!r.significand) {
            r.significand = TOP_BIT;
            r.carried = true;
        }
    }
    return r;
}

struct packed {
    u128 significand;
    int exponent; // biased
};

static struct packed pack_overflow(struct float_env *env, const struct float_format *format, bool sign, int bits)
{
    bool away =
        env->rounding == FLOAT_NEAREST || (env->rounding == FLOAT_DOWN && sign) || (env->rounding == FLOAT_UP && !sign);
    env->flags |= FLOAT_OVERFLOW | FLOAT_INEXACT;
    env->rounded_up = away;
    if (away)
        return (struct packed){TOP_BIT, format->exponent_max};
    return (struct packed){~(u128)0 << (128 - bits), format->exponent_max - 1};
}

static struct packed pack_tiny(struct float_env *env, const struct float_format *format, struct parts p, int bits)
{
    if (env->ftz && !format->x87) {
        env->flags |= FLOAT_UNDERFLOW | FLOAT_INEXACT;
        env->rounded_up = false;
        return (struct packed){0, 0};
    }
    unsigned shift = (unsigned)(1 - format->bias - p.exponent);
    struct rounded r = round_bits(env, p.sign, shift_right_sticky(p.significand, shift), bits);
    env->rounded_up = r.up;
    if (r.inexact)
        env->flags |= FLOAT_UNDERFLOW | FLOAT_INEXACT;
    return (struct packed){r.significand, (r.significand & TOP_BIT) != 0};
}

// Unmasked over- and underflow. The x87 delivers register results with the exponent moved by 24576 (SDM vol. 1, 8.5.4,
// 8.5.5); everything else is not written, and only the flags matter.
#define WRAP_F80 24576

static struct packed pack_unmasked(struct float_env *env, const struct float_format *format, struct rounded r,
                                   int exponent, enum float_flag flag)
{
    bool overflow = flag == FLOAT_OVERFLOW;
    env->flags |= flag;
    env->rounded_up = false;
    if (!format->x87) {
        if (r.inexact && !env->x87)
            env->flags |= FLOAT_INEXACT;
        return (struct packed){0, 0};
    }
    exponent += overflow ? -WRAP_F80 : WRAP_F80;
    if (exponent < 1 || exponent >= format->exponent_max) { // FSCALE can go beyond
        env->flags |= FLOAT_INEXACT;
        env->rounded_up = overflow;
        return overflow ? (struct packed){TOP_BIT, format->exponent_max} : (struct packed){0, 0};
    }
    env->rounded_up = r.up;
    if (r.inexact)
        env->flags |= FLOAT_INEXACT;
    return (struct packed){r.significand, exponent};
}

static inline struct packed round_normal(struct float_env *env, const struct float_format *format, struct parts p,
                                         int bits)
{
    struct rounded r = round_bits(env, p.sign, p.significand, bits);
    int exponent = p.exponent + format->bias + r.carried;
    if (format == &format_f16 && p.denormal) // a denormal f32 counts as inexact even where underflow is unmasked
        r.inexact = true;

    if (G_UNLIKELY(exponent < 1)) // tiny after rounding with unbounded exponent
        return env->masks & FLOAT_UNDERFLOW ? pack_tiny(env, format, p, bits)
                                            : pack_unmasked(env, format, r, exponent, FLOAT_UNDERFLOW);
    if (G_UNLIKELY(exponent >= format->exponent_max))
        return env->masks & FLOAT_OVERFLOW ? pack_overflow(env, format, p.sign, bits)
                                           : pack_unmasked(env, format, r, exponent, FLOAT_OVERFLOW);
    env->rounded_up = r.up;
    if (r.inexact)
        env->flags |= FLOAT_INEXACT;
    return (struct packed){r.significand, exponent};
}

static inline struct packed pack(struct float_env *env, const struct float_format *format, struct parts p, int bits)
{
    switch (p.class) {
    case PART_NORMAL:
        return round_normal(env, format, p, bits);
    case PART_ZERO:
        env->rounded_up = false;
        return (struct packed){0, 0};
    case PART_INFINITY:
        env->rounded_up = false;
        return (struct packed){TOP_BIT, format->exponent_max};
    default:
        env->rounded_up = false;
        return (struct packed){p.significand, format->exponent_max};
    }
}

uint16_t round_f16(struct float_env *env, struct parts p)
{
    struct packed r = pack(env, &format_f16, p, 11);
    return (uint16_t)((unsigned)p.sign << 15 | ((unsigned)r.exponent & 31) << 10 |
                      ((unsigned)(r.significand >> 117) & 0x3ff));
}

uint32_t round_f32(struct float_env *env, struct parts p)
{
    struct packed r = pack(env, &format_f32, p, 24);
    return (uint32_t)p.sign << 31 | ((uint32_t)r.exponent & 255) << 23 | ((uint32_t)(r.significand >> 104) & 0x7fffff);
}

uint64_t round_f64(struct float_env *env, struct parts p)
{
    struct packed r = pack(env, &format_f64, p, 53);
    return (uint64_t)p.sign << 63 | ((uint64_t)r.exponent & 2047) << 52 |
           ((uint64_t)(r.significand >> 75) & 0xfffffffffffffull);
}

static struct float80 join_f80(struct packed r, bool sign)
{
    return (struct float80){(uint64_t)(r.significand >> 64), (uint16_t)(sign << 15 | (r.exponent & 0x7fff))};
}

struct float80 round_f80(struct float_env *env, struct parts p)
{
    return join_f80(pack(env, &format_f80, p, env->precision), p.sign);
}

struct float80 round_f80_full(struct float_env *env, struct parts p)
{
    return join_f80(pack(env, &format_f80, p, 64), p.sign);
}
