// SPDX-License-Identifier: GPL-2.0-or-later
// Conversions between formats, and to and from integers.
#include "core/cpu/softfloat/parts.h"

static struct parts widened(struct float_env *env, struct parts p)
{
    if (parts_is_nan(p))
        return parts_quiet(env, p);
    raise_denormal(env, p);
    return p;
}

uint64_t f32_to_f64(struct float_env *env, uint32_t a)
{
    unsigned exponent = a >> 23 & 255;
    if (exponent && exponent != 255)
        return (uint64_t)(a >> 31) << 63 | (uint64_t)(exponent - 127 + 1023) << 52 | (uint64_t)(a & 0x7fffff) << 29;
    return round_f64(env, widened(env, parts_f32(env, a)));
}

uint32_t f64_to_f32(struct float_env *env, uint64_t a)
{
    return round_f32(env, widened(env, parts_f64(env, a)));
}

uint32_t f16_to_f32(struct float_env *env, uint16_t a)
{
    struct parts p = parts_f16(a);
    p.denormal = false;
    return round_f32(env, widened(env, p));
}

uint16_t f32_to_f16(struct float_env *env, uint32_t a)
{
    bool ftz = env->ftz;
    env->ftz = false;
    uint16_t r = round_f16(env, widened(env, parts_f32(env, a)));
    env->ftz = ftz;
    return r;
}

struct float80 f32_to_f80(struct float_env *env, uint32_t a)
{
    return round_f80_full(env, widened(env, parts_f32(env, a)));
}

struct float80 f64_to_f80(struct float_env *env, uint64_t a)
{
    return round_f80_full(env, widened(env, parts_f64(env, a)));
}

static struct float80 widen(struct parts p, bool *denormal)
{
    struct float_env env = {.precision = 64, .masks = FLOAT_ALL};
    *denormal = p.denormal;
    return round_f80_full(&env, p);
}

struct float80 f32_widen(uint32_t a, bool *denormal)
{
    struct float_env env = {0};
    return widen(parts_f32(&env, a), denormal);
}

struct float80 f64_widen(uint64_t a, bool *denormal)
{
    struct float_env env = {0};
    return widen(parts_f64(&env, a), denormal);
}

// Storing a register: a denormal f80 is no denormal operand, it underflows.
static struct parts narrowed(struct float_env *env, struct float80 a)
{
    struct parts p = parts_f80(a);
    return parts_is_nan(p) ? parts_quiet(env, p) : p;
}

uint32_t f80_to_f32(struct float_env *env, struct float80 a)
{
    return round_f32(env, narrowed(env, a));
}

uint64_t f80_to_f64(struct float_env *env, struct float80 a)
{
    return round_f64(env, narrowed(env, a));
}

// ---- Integers ---------------------------------------------------------------------------------------------------

static int64_t integer_indefinite(struct float_env *env, unsigned bits)
{
    env->flags |= FLOAT_INVALID;
    env->rounded_up = false;
    return -(int64_t)((1ull << (bits - 1)) - 1) - 1;
}

static int64_t parts_to_int(struct float_env *env, struct parts p, unsigned bits, bool truncate)
{
    struct float_env local = *env;
    if (truncate)
        local.rounding = FLOAT_TRUNCATE;
    env->rounded_up = false;
    if (p.class == PART_ZERO)
        return 0;
    if (p.class != PART_NORMAL || p.exponent > 63)
        return integer_indefinite(env, bits);
    local.flags = 0;
    p = parts_round_to_integral(&local, p);
    if (p.class == PART_NORMAL) {
        uint64_t limit = 1ull << (bits - 1); // magnitude of the most negative value
        uint64_t magnitude = p.exponent > 63 ? UINT64_MAX : (uint64_t)(p.significand >> (127 - p.exponent));
        if (magnitude > limit || (magnitude == limit && !p.sign))
            return integer_indefinite(env, bits);
        env->flags |= local.flags;
        env->rounded_up = local.rounded_up;
        return (int64_t)(p.sign ? 0 - magnitude : magnitude);
    }
    env->flags |= local.flags;
    env->rounded_up = local.rounded_up;
    return 0;
}

int64_t f32_to_int(struct float_env *env, uint32_t a, unsigned bits, bool truncate)
{
    return parts_to_int(env, parts_f32(env, a), bits, truncate);
}

int64_t f64_to_int(struct float_env *env, uint64_t a, unsigned bits, bool truncate)
{
    return parts_to_int(env, parts_f64(env, a), bits, truncate);
}

int64_t f80_to_int(struct float_env *env, struct float80 a, unsigned bits, bool truncate)
{
    return parts_to_int(env, parts_f80(a), bits, truncate);
}

static struct parts parts_from_int(int64_t a)
{
    uint64_t magnitude = a < 0 ? 0 - (uint64_t)a : (uint64_t)a;
    return parts_normalize(a < 0, 127, magnitude);
}

uint32_t int_to_f32(struct float_env *env, int64_t a)
{
    return a ? round_f32(env, parts_from_int(a)) : 0;
}

uint64_t int_to_f64(struct float_env *env, int64_t a)
{
    return a ? round_f64(env, parts_from_int(a)) : 0;
}

struct float80 int_to_f80(int64_t a)
{
    struct float_env env = {.precision = 64, .masks = FLOAT_ALL};
    return round_f80_full(&env, a ? parts_from_int(a) : parts_zero(false));
}
