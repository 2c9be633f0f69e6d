// SPDX-License-Identifier: GPL-2.0-or-later
// IEEE 754 arithmetic in portable C, bit for bit as an x86 processor does it: results, NaN selection, and the six
// exception flags with tininess detected after rounding. (Intel SDM vol. 1, chapters 4, 8, 11 and appendix E)
//
// Numbers travel as their bit patterns. Functions are pure but for the environment, which belongs to the caller's
// thread. Where the caller allows it (float_env.quick), binary32 and binary64 use the host's arithmetic; that needs the
// host in round-to-nearest without flush-to-zero, which is how every C program starts.
#ifndef CLOCHE_SOFTFLOAT_H
#define CLOCHE_SOFTFLOAT_H

#include "core/base/base.h"

// As in MXCSR bits 0-5 and the x87 status word.
enum float_flag {
    FLOAT_INVALID = 0x01,
    FLOAT_DENORMAL = 0x02,
    FLOAT_DIVIDE = 0x04,
    FLOAT_OVERFLOW = 0x08,
    FLOAT_UNDERFLOW = 0x10,
    FLOAT_INEXACT = 0x20,
    FLOAT_ALL = 0x3f,
};

// As in MXCSR.RC and FCW.RC.
enum float_rounding { FLOAT_NEAREST, FLOAT_DOWN, FLOAT_UP, FLOAT_TRUNCATE };

struct float_env {
    uint8_t rounding;  // enum float_rounding
    uint8_t precision; // significant bits of an f80 result: 24, 53 or 64
    uint8_t masks;     // enum float_flag, set: masked. Unmasked over- and underflow change f80 results
    uint8_t flags;     // raised so far; functions only add to it
    bool daz, ftz;     // MXCSR.DAZ, MXCSR.FZ
    bool x87;          // NaN selection of the x87
    bool quick;        // nearest, and the caller does not care for FLOAT_INEXACT: it is masked and set already
    bool rounded_up;   // the last rounding increased the magnitude (C1)
};

struct float80 {
    uint64_t significand; // explicit integer bit 63
    uint16_t sign_exponent;
};

enum float_relation { FLOAT_LESS, FLOAT_EQUAL, FLOAT_GREATER, FLOAT_UNORDERED };

uint32_t f32_add(struct float_env *env, uint32_t a, uint32_t b);
uint32_t f32_sub(struct float_env *env, uint32_t a, uint32_t b);
uint32_t f32_mul(struct float_env *env, uint32_t a, uint32_t b);
uint32_t f32_div(struct float_env *env, uint32_t a, uint32_t b);
uint32_t f32_sqrt(struct float_env *env, uint32_t a);
// MINPS and MAXPS: B when either is a NaN or both are zeros.
uint32_t f32_min(struct float_env *env, uint32_t a, uint32_t b);
uint32_t f32_max(struct float_env *env, uint32_t a, uint32_t b);
// A * B + C with one rounding; C's or the product's sign are changed by the caller's FLOAT_FMA_* flags.
enum { FLOAT_FMA_NEGATE_PRODUCT = 1, FLOAT_FMA_NEGATE_ADDEND = 2 };
uint32_t f32_fma(struct float_env *env, uint32_t a, uint32_t b, uint32_t c, unsigned negate);
uint32_t f32_round(struct float_env *env, uint32_t a);
// QUIET: a quiet NaN raises nothing (UCOMISS); else it raises invalid (COMISS).
enum float_relation f32_compare(struct float_env *env, uint32_t a, uint32_t b, bool quiet);

uint64_t f64_add(struct float_env *env, uint64_t a, uint64_t b);
uint64_t f64_sub(struct float_env *env, uint64_t a, uint64_t b);
uint64_t f64_mul(struct float_env *env, uint64_t a, uint64_t b);
uint64_t f64_div(struct float_env *env, uint64_t a, uint64_t b);
uint64_t f64_sqrt(struct float_env *env, uint64_t a);
uint64_t f64_min(struct float_env *env, uint64_t a, uint64_t b);
uint64_t f64_max(struct float_env *env, uint64_t a, uint64_t b);
uint64_t f64_fma(struct float_env *env, uint64_t a, uint64_t b, uint64_t c, unsigned negate);
uint64_t f64_round(struct float_env *env, uint64_t a);
enum float_relation f64_compare(struct float_env *env, uint64_t a, uint64_t b, bool quiet);

struct float80 f80_add(struct float_env *env, struct float80 a, struct float80 b);
struct float80 f80_sub(struct float_env *env, struct float80 a, struct float80 b);
struct float80 f80_mul(struct float_env *env, struct float80 a, struct float80 b);
struct float80 f80_div(struct float_env *env, struct float80 a, struct float80 b);
struct float80 f80_sqrt(struct float_env *env, struct float80 a);
struct float80 f80_round(struct float_env *env, struct float80 a);
enum float_relation f80_compare(struct float_env *env, struct float80 a, struct float80 b, bool quiet);
// FPREM (NEAREST false: truncating) and FPREM1. *QUOTIENT: its low three bits; *PARTIAL: the reduction is incomplete
// (C2).
struct float80 f80_remainder(struct float_env *env, struct float80 a, struct float80 b, bool nearest,
                             unsigned *quotient, bool *partial);
// FSCALE: A times two to the power of B truncated.
struct float80 f80_scale(struct float_env *env, struct float80 a, struct float80 b);
// FXTRACT: the exponent of A as a number; *SIGNIFICAND gets the rest.
struct float80 f80_extract(struct float_env *env, struct float80 a, struct float80 *significand);

// Transcendentals, error below one unit in the last place of 64 bits.
struct float80 f80_exp2m1(struct float_env *env, struct float80 a);                     // F2XM1
struct float80 f80_y_log2(struct float_env *env, struct float80 y, struct float80 x);   // FYL2X
struct float80 f80_y_log2p1(struct float_env *env, struct float80 y, struct float80 x); // FYL2XP1
struct float80 f80_atan(struct float_env *env, struct float80 y, struct float80 x);     // FPATAN
// False: |A| is 2^63 or more, nothing is computed (C2). Pi has 66 bits, as in the processor (SDM vol. 1, 8.3.8).
// SINE or COSINE may be NULL.
bool f80_sincos(struct float_env *env, struct float80 a, struct float80 *sine, struct float80 *cosine);
bool f80_tan(struct float_env *env, struct float80 a, struct float80 *tangent);

// Between formats.
uint64_t f32_to_f64(struct float_env *env, uint32_t a);
uint32_t f64_to_f32(struct float_env *env, uint64_t a);
uint32_t f16_to_f32(struct float_env *env, uint16_t a); // VCVTPH2PS: no denormal exception, no DAZ
uint16_t f32_to_f16(struct float_env *env, uint32_t a); // VCVTPS2PH: no FTZ
struct float80 f32_to_f80(struct float_env *env, uint32_t a);
struct float80 f64_to_f80(struct float_env *env, uint64_t a);
// The same as operands of x87 arithmetic: nothing is raised, signaling NaNs stay, *DENORMAL tells a denormal.
struct float80 f32_widen(uint32_t a, bool *denormal);
struct float80 f64_widen(uint64_t a, bool *denormal);
uint32_t f80_to_f32(struct float_env *env, struct float80 a);
uint64_t f80_to_f64(struct float_env *env, struct float80 a);

// To signed integers of BITS 16, 32 or 64: invalid and the integer indefinite (only the top bit) when out of range.
int64_t f32_to_int(struct float_env *env, uint32_t a, unsigned bits, bool truncate);
int64_t f64_to_int(struct float_env *env, uint64_t a, unsigned bits, bool truncate);
int64_t f80_to_int(struct float_env *env, struct float80 a, unsigned bits, bool truncate);
uint32_t int_to_f32(struct float_env *env, int64_t a);
uint64_t int_to_f64(struct float_env *env, int64_t a);
struct float80 int_to_f80(int64_t a);

#define F80_INDEFINITE ((struct float80){0xc000000000000000ull, 0xffff})

static inline bool f80_is_nan(struct float80 a)
{
    return (a.sign_exponent & 0x7fff) == 0x7fff && a.significand << 1;
}
static inline bool f80_is_infinite(struct float80 a)
{
    return (a.sign_exponent & 0x7fff) == 0x7fff && a.significand == 0x8000000000000000ull;
}
static inline bool f80_is_zero(struct float80 a)
{
    return !(a.sign_exponent & 0x7fff) && !a.significand;
}
// An unnormal, pseudo-infinity or pseudo-NaN (SDM vol. 1, 8.2.2).
static inline bool f80_is_unsupported(struct float80 a)
{
    return (a.sign_exponent & 0x7fff) && !(a.significand >> 63);
}

#endif
