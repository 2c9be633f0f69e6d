// SPDX-License-Identifier: GPL-2.0-or-later
// Integer lanes: arithmetic, compares, logic, shifts, in their MMX, SSE and AVX2 forms (SDM vol. 2).
#include "core/cpu/interpret/vector.h"

// One lane: X from the first source, Y from the second.
#define LANES(name, member, expression)                                                                                \
    static void name(struct vector_call *c)                                                                            \
    {                                                                                                                  \
        for (unsigned k = 0; k < c->size / sizeof(c->d.member[0]); k++) {                                              \
            __typeof__(c->d.member[0]) x = c->a.member[k], y = c->b.member[k];                                         \
            (void)x;                                                                                                   \
            c->d.member[k] = (__typeof__(x))(expression);                                                              \
        }                                                                                                              \
    }

static inline int saturate(int x, int low, int high)
{
    return x < low ? low : x > high ? high : x;
}
#define S8(x)  saturate(x, -128, 127)
#define U8(x)  saturate(x, 0, 255)
#define S16(x) saturate(x, -32768, 32767)
#define U16(x) saturate(x, 0, 65535)

LANES(add8, u8, x + y)
LANES(add16, u16, x + y)
LANES(add32, u32, x + y)
LANES(add64, u64, x + y)
LANES(sub8, u8, x - y)
LANES(sub16, u16, x - y)
LANES(sub32, u32, x - y)
LANES(sub64, u64, x - y)
LANES(adds8, s8, S8(x + y))
LANES(adds16, s16, S16(x + y))
LANES(addus8, u8, U8(x + y))
LANES(addus16, u16, U16(x + y))
LANES(subs8, s8, S8(x - y))
LANES(subs16, s16, S16(x - y))
LANES(subus8, u8, U8(x - y))
LANES(subus16, u16, U16(x - y))
LANES(equal8, u8, x == y ? -1 : 0)
LANES(equal16, u16, x == y ? -1 : 0)
LANES(equal32, u32, x == y ? -1 : 0)
LANES(equal64, u64, x == y ? -1 : 0)
LANES(greater8, s8, x > y ? -1 : 0)
LANES(greater16, s16, x > y ? -1 : 0)
LANES(greater32, s32, x > y ? -1 : 0)
LANES(greater64, s64, x > y ? -1 : 0)
LANES(and64, u64, x &y)
LANES(andn64, u64, ~x &y)
LANES(or64, u64, x | y)
LANES(xor64, u64, x ^ y)
LANES(average8, u8, (x + y + 1) >> 1)
LANES(average16, u16, (x + y + 1) >> 1)
LANES(min_s8, s8, x < y ? x : y)
LANES(min_s16, s16, x < y ? x : y)
LANES(min_s32, s32, x < y ? x : y)
LANES(min_u8, u8, x < y ? x : y)
LANES(min_u16, u16, x < y ? x : y)
LANES(min_u32, u32, x < y ? x : y)
LANES(max_s8, s8, x > y ? x : y)
LANES(max_s16, s16, x > y ? x : y)
LANES(max_s32, s32, x > y ? x : y)
LANES(max_u8, u8, x > y ? x : y)
LANES(max_u16, u16, x > y ? x : y)
LANES(max_u32, u32, x > y ? x : y)
LANES(mul_low16, s16, (uint32_t)x *(uint32_t)y)
LANES(mul_low32, u32, x *y)
LANES(mul_high16, s16, x *y >> 16)
LANES(mul_high_u16, u16, (uint32_t)x *y >> 16)
LANES(mul_round16, s16, ((x * y >> 14) + 1) >> 1)
LANES(mul_u32, u64, (uint64_t)(uint32_t)x *(uint32_t)y)
LANES(mul_s32, s64, (int64_t)(int32_t)x *(int32_t)y)
LANES(absolute8, s8, y < 0 ? -y : y)
LANES(absolute16, s16, y < 0 ? -y : y)
LANES(absolute32, u32, (int32_t)y < 0 ? 0 - y : y)
LANES(sign8, s8, y < 0 ? -x : y ? x : 0)
LANES(sign16, s16, y < 0 ? -x : y ? x : 0)
LANES(sign32, u32, (int32_t)y < 0 ? 0 - x : y ? x : 0)

static void multiply_add16(struct vector_call *c) // PMADDWD
{
    for (unsigned k = 0; k < c->size / 4; k++) {
        uint32_t low = (uint32_t)(c->a.s16[2 * k] * c->b.s16[2 * k]);
        c->d.u32[k] = low + (uint32_t)(c->a.s16[2 * k + 1] * c->b.s16[2 * k + 1]);
    }
}

static void multiply_add8(struct vector_call *c) // PMADDUBSW
{
    for (unsigned k = 0; k < c->size / 2; k++)
        c->d.s16[k] = (int16_t)S16(c->a.u8[2 * k] * c->b.s8[2 * k] + c->a.u8[2 * k + 1] * c->b.s8[2 * k + 1]);
}

static void sum_of_differences(struct vector_call *c) // PSADBW
{
    for (unsigned k = 0; k < c->size / 8; k++) {
        unsigned sum = 0;
        for (unsigned j = 8 * k; j < 8 * k + 8; j++)
            sum += (unsigned)abs(c->a.u8[j] - c->b.u8[j]);
        c->d.u64[k] = sum;
    }
}

static void multiple_sums(struct vector_call *c) // MPSADBW: bits 3-5 of the immediate serve the upper half
{
    for (unsigned lane = 0; lane < c->size / 16; lane++) {
        unsigned imm = c->imm >> (lane ? 3 : 0);
        const uint8_t *x = c->a.u8 + 16 * lane + (imm & 4), *y = c->b.u8 + 16 * lane + (imm & 3) * 4;
        for (unsigned k = 0; k < 8; k++) {
            unsigned sum = 0;
            for (unsigned j = 0; j < 4; j++)
                sum += (unsigned)abs(x[k + j] - y[j]);
            c->d.u16[8 * lane + k] = (uint16_t)sum;
        }
    }
}

static void minimum_position(struct vector_call *c) // PHMINPOSUW
{
    unsigned best = 0;
    for (unsigned k = 1; k < 8; k++)
        if (c->b.u16[k] < c->b.u16[best])
            best = k;
    uint16_t least = c->b.u16[best];
    c->d.u64[0] = least | best << 16;
    c->d.u64[1] = 0;
}

// Neighbours of the first source fill the lower half of each 16-byte lane, those of the second the upper half.
#define HORIZONTAL(name, member, expression)                                                                           \
    static void name(struct vector_call *c)                                                                            \
    {                                                                                                                  \
        unsigned lane_size = c->size < 16 ? c->size : 16, count = lane_size / sizeof(c->d.member[0]);                  \
        for (unsigned first = 0; first < c->size / sizeof(c->d.member[0]); first += count) {                           \
            for (unsigned k = 0; k < count; k++) {                                                                     \
                const union vector *from = k < count / 2 ? &c->a : &c->b;                                              \
                unsigned at = first + 2 * (k % (count / 2));                                                           \
                __typeof__(c->d.member[0]) x = from->member[at], y = from->member[at + 1];                             \
                c->d.member[first + k] = (__typeof__(x))(expression);                                                  \
            }                                                                                                          \
        }                                                                                                              \
    }
HORIZONTAL(horizontal_add16, u16, x + y)
HORIZONTAL(horizontal_add32, u32, x + y)
HORIZONTAL(horizontal_adds16, s16, S16(x + y))
HORIZONTAL(horizontal_sub16, u16, x - y)
HORIZONTAL(horizontal_sub32, u32, x - y)
HORIZONTAL(horizontal_subs16, s16, S16(x - y))

// ---- Shifts: the count is the low 64 bits of B --------------------------------------------------------------------

#define SHIFT(name, member, bits, in_range, beyond)                                                                    \
    static void name(struct vector_call *c)                                                                            \
    {                                                                                                                  \
        uint64_t n = c->b.u64[0];                                                                                      \
        for (unsigned k = 0; k < c->size / sizeof(c->d.member[0]); k++) {                                              \
            __typeof__(c->d.member[0]) x = c->a.member[k];                                                             \
            c->d.member[k] = (__typeof__(x))(n < bits ? in_range : beyond);                                            \
        }                                                                                                              \
    }
SHIFT(shift_left16, u16, 16, x << n, 0)
SHIFT(shift_left32, u32, 32, x << n, 0)
SHIFT(shift_left64, u64, 64, x << n, 0)
SHIFT(shift_right16, u16, 16, x >> n, 0)
SHIFT(shift_right32, u32, 32, x >> n, 0)
SHIFT(shift_right64, u64, 64, x >> n, 0)
SHIFT(shift_arithmetic16, s16, 16, x >> n, x >> 15)
SHIFT(shift_arithmetic32, s32, 32, x >> n, x >> 31)

LANES(shift_left_each32, u32, y < 32 ? x << y : 0)
LANES(shift_left_each64, u64, y < 64 ? x << y : 0)
LANES(shift_right_each32, u32, y < 32 ? x >> y : 0)
LANES(shift_right_each64, u64, y < 64 ? x >> y : 0)
LANES(shift_arithmetic_each32, s32, (uint32_t)y < 32 ? x >> y : x >> 31)

static void shift_bytes_left(struct vector_call *c) // PSLLDQ
{
    unsigned n = c->imm > 16 ? 16 : c->imm;
    for (unsigned lane = 0; lane < c->size; lane += 16)
        for (unsigned k = 0; k < 16; k++)
            c->d.u8[lane + k] = k < n ? 0 : c->a.u8[lane + k - n];
}

static void shift_bytes_right(struct vector_call *c) // PSRLDQ
{
    unsigned n = c->imm > 16 ? 16 : c->imm;
    for (unsigned lane = 0; lane < c->size; lane += 16)
        for (unsigned k = 0; k < 16; k++)
            c->d.u8[lane + k] = k + n > 15 ? 0 : c->a.u8[lane + k + n];
}

// ---- Rows -------------------------------------------------------------------------------------------------------

const struct insn_row interpret_rows_vector[] = {
    VECTOR(PADDB, add8),
    VECTOR(PADDW, add16),
    VECTOR(PADDD, add32),
    VECTOR(PADDQ, add64),
    VECTOR(PSUBB, sub8),
    VECTOR(PSUBW, sub16),
    VECTOR(PSUBD, sub32),
    VECTOR(PSUBQ, sub64),
    VECTOR(PADDSB, adds8),
    VECTOR(PADDSW, adds16),
    VECTOR(PADDUSB, addus8),
    VECTOR(PADDUSW, addus16),
    VECTOR(PSUBSB, subs8),
    VECTOR(PSUBSW, subs16),
    VECTOR(PSUBUSB, subus8),
    VECTOR(PSUBUSW, subus16),
    VECTOR(PCMPEQB, equal8),
    VECTOR(PCMPEQW, equal16),
    VECTOR(PCMPEQD, equal32),
    VECTOR(PCMPEQQ, equal64),
    VECTOR(PCMPGTB, greater8),
    VECTOR(PCMPGTW, greater16),
    VECTOR(PCMPGTD, greater32),
    VECTOR(PCMPGTQ, greater64),
    VECTOR(PAND, and64),
    VECTOR(PANDN, andn64),
    VECTOR(POR, or64),
    VECTOR(PXOR, xor64),
    VECTOR(ANDPS, and64),
    VECTOR(ANDPD, and64),
    VECTOR(ANDNPS, andn64),
    VECTOR(ANDNPD, andn64),
    VECTOR(ORPS, or64),
    VECTOR(ORPD, or64),
    VECTOR(XORPS, xor64),
    VECTOR(XORPD, xor64),
    VECTOR(PAVGB, average8),
    VECTOR(PAVGW, average16),
    VECTOR(PMINSB, min_s8),
    VECTOR(PMINSW, min_s16),
    VECTOR(PMINSD, min_s32),
    VECTOR(PMINUB, min_u8),
    VECTOR(PMINUW, min_u16),
    VECTOR(PMINUD, min_u32),
    VECTOR(PMAXSB, max_s8),
    VECTOR(PMAXSW, max_s16),
    VECTOR(PMAXSD, max_s32),
    VECTOR(PMAXUB, max_u8),
    VECTOR(PMAXUW, max_u16),
    VECTOR(PMAXUD, max_u32),
    VECTOR(PMULLW, mul_low16),
    VECTOR(PMULLD, mul_low32),
    VECTOR(PMULHW, mul_high16),
    VECTOR(PMULHUW, mul_high_u16),
    VECTOR(PMULHRSW, mul_round16),
    VECTOR(PMULUDQ, mul_u32),
    VECTOR(PMULDQ, mul_s32),
    VECTOR(PABSB, absolute8),
    VECTOR(PABSW, absolute16),
    VECTOR(PABSD, absolute32),
    VECTOR(PSIGNB, sign8),
    VECTOR(PSIGNW, sign16),
    VECTOR(PSIGND, sign32),
    VECTOR(PMADDWD, multiply_add16),
    VECTOR(PMADDUBSW, multiply_add8),
    VECTOR(PSADBW, sum_of_differences),
    VECTOR(MPSADBW, multiple_sums),
    VECTOR(PHMINPOSUW, minimum_position),
    VECTOR(PHADDW, horizontal_add16),
    VECTOR(PHADDD, horizontal_add32),
    VECTOR(PHADDSW, horizontal_adds16),
    VECTOR(PHSUBW, horizontal_sub16),
    VECTOR(PHSUBD, horizontal_sub32),
    VECTOR(PHSUBSW, horizontal_subs16),

    VECTOR(PSLLW, shift_left16, .count_in_b = true),
    VECTOR(PSLLD, shift_left32, .count_in_b = true),
    VECTOR(PSLLQ, shift_left64, .count_in_b = true),
    VECTOR(PSRLW, shift_right16, .count_in_b = true),
    VECTOR(PSRLD, shift_right32, .count_in_b = true),
    VECTOR(PSRLQ, shift_right64, .count_in_b = true),
    VECTOR(PSRAW, shift_arithmetic16, .count_in_b = true),
    VECTOR(PSRAD, shift_arithmetic32, .count_in_b = true),
    VECTOR(PSLLDQ, shift_bytes_left, .to_vvvv = true),
    VECTOR(PSRLDQ, shift_bytes_right, .to_vvvv = true),
    VECTOR_VEX(VPSLLVD, shift_left_each32),
    VECTOR_VEX(VPSLLVQ, shift_left_each64),
    VECTOR_VEX(VPSRLVD, shift_right_each32),
    VECTOR_VEX(VPSRLVQ, shift_right_each64),
    VECTOR_VEX(VPSRAVD, shift_arithmetic_each32),
    VECTOR_END,
};
