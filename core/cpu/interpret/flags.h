// SPDX-License-Identifier: GPL-2.0-or-later
// The six status flags while the interpreter runs: two words, from which each flag is a few operations.
//
//   flags_result  the result, sign-extended from the operand size to 64 bits
//   flags_aux     bit 63: CF, the carry out of the top bit; bit 62: CF ^ OF, the carry out of the bit below; bit 3: AF;
//   bits 8-15: a byte that is xored into the result's low byte
//                 before its parity is taken; bit 4: xored into the result's sign
//
// ZF is "result is zero", SF the result's sign, PF the parity of its low byte. Bits 4 and 8-15 are only used where
// flags are set as such (POPF, SAHF, BT on old flags); arithmetic leaves them 0.
#ifndef CLOCHE_INTERPRET_FLAGS_H
#define CLOCHE_INTERPRET_FLAGS_H

#include "core/cpu/vcpu.h"

#define AUX_CF BIT(63)
#define AUX_CO BIT(62)
#define AUX_AF BIT(3)
#define AUX_SF BIT(4)

static inline bool flag_cf(const struct vcpu *v)
{
    return v->flags_aux >> 63;
}
static inline bool flag_zf(const struct vcpu *v)
{
    return v->flags_result == 0;
}
static inline bool flag_sf(const struct vcpu *v)
{
    return (v->flags_result ^ v->flags_aux << 59) >> 63;
}
static inline bool flag_of(const struct vcpu *v)
{
    return (v->flags_aux ^ v->flags_aux << 1) >> 63;
}
static inline bool flag_af(const struct vcpu *v)
{
    return v->flags_aux & AUX_AF;
}
static inline bool flag_pf(const struct vcpu *v)
{
    return !__builtin_parity((v->flags_result ^ v->flags_aux >> 8) & 0xff);
}
// The status flags as RFLAGS bits.
static inline uint64_t flags_get(const struct vcpu *v)
{
    return (flag_cf(v) ? FLAG_CF : 0) | (flag_pf(v) ? FLAG_PF : 0) | (flag_af(v) ? FLAG_AF : 0) |
           (flag_zf(v) ? FLAG_ZF : 0) | (flag_sf(v) ? FLAG_SF : 0) | (flag_of(v) ? FLAG_OF : 0);
}
static inline void flags_set(struct vcpu *v, uint64_t f)
{
    bool cf = f & FLAG_CF, of = f & FLAG_OF, zf = f & FLAG_ZF;
    v->flags_result = zf ? 0 : 0x10000; // positive, low byte of even parity
    v->flags_aux = (cf ? AUX_CF : 0) | (cf != of ? AUX_CO : 0) | (f & FLAG_AF ? AUX_AF : 0) |
                   (f & FLAG_SF ? AUX_SF : 0) | (f & FLAG_PF ? 0 : 0x100);
}
// To and from v->rflags.
static inline void flags_out(struct vcpu *v)
{
    v->rflags = (v->rflags & ~(uint64_t)FLAGS_STATUS) | flags_get(v);
}
static inline void flags_in(struct vcpu *v)
{
    flags_set(v, v->rflags);
}

// After an addition or subtraction: CARRIES has, per bit, the carry (borrow) out of that bit. BITS: operand size.
static inline void flags_arithmetic(struct vcpu *v, uint64_t result, uint64_t carries, unsigned bits)
{
    v->flags_result = (uint64_t)((int64_t)(result << (64 - bits)) >> (64 - bits));
    v->flags_aux = (carries << (64 - bits) & (AUX_CF | AUX_CO)) | (carries & AUX_AF);
}
static inline void flags_add(struct vcpu *v, uint64_t a, uint64_t b, uint64_t result, unsigned bits)
{
    flags_arithmetic(v, result, (a & b) | ((a | b) & ~result), bits);
}
static inline void flags_sub(struct vcpu *v, uint64_t a, uint64_t b, uint64_t result, unsigned bits)
{
    flags_arithmetic(v, result, (~a & b) | ((~a | b) & result), bits);
}
static inline void flags_logic(struct vcpu *v, uint64_t result, unsigned bits) // CF = OF = AF = 0
{
    v->flags_result = (uint64_t)((int64_t)(result << (64 - bits)) >> (64 - bits));
    v->flags_aux = 0;
}
// Replaces CF and OF only.
static inline void flags_set_cf_of(struct vcpu *v, bool cf, bool of)
{
    v->flags_aux = (v->flags_aux & ~(AUX_CF | AUX_CO)) | (cf ? AUX_CF : 0) | (cf != of ? AUX_CO : 0);
}

// Condition code 0-15 as in Jcc, SETcc, CMOVcc.
static inline __attribute__((always_inline)) bool flags_condition(const struct vcpu *v, unsigned condition)
{
    bool truth;
    switch (condition >> 1) {
    case 0:
        truth = flag_of(v);
        break;
    case 1:
        truth = flag_cf(v);
        break;
    case 2:
        truth = flag_zf(v);
        break;
    case 3:
        truth = flag_cf(v) || flag_zf(v);
        break;
    case 4:
        truth = flag_sf(v);
        break;
    case 5:
        truth = flag_pf(v);
        break;
    case 6:
        truth = flag_sf(v) != flag_of(v);
        break;
    default:
        truth = flag_zf(v) || flag_sf(v) != flag_of(v);
        break;
    }
    return truth != (condition & 1);
}

#endif
