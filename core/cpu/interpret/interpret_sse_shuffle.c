// SPDX-License-Identifier: GPL-2.0-or-later
// Packing, interleaving, shuffles, blends, widening moves and permutations (SDM vol. 2).
#include "core/cpu/interpret/vector.h"

static inline unsigned lane_bytes(const struct vector_call *c)
{
    return c->size < 16 ? c->size : 16;
}

// ---- PACK, PUNPCK, UNPCK ----------------------------------------------------------------------------------------

#define PACK(name, from_member, to_member, low, high)                                                                  \
    static void name(struct vector_call *c)                                                                            \
    {                                                                                                                  \
        unsigned count = lane_bytes(c) / sizeof(c->d.to_member[0]);                                                    \
        for (unsigned first = 0; first < c->size / sizeof(c->d.to_member[0]); first += count) {                        \
            for (unsigned k = 0; k < count; k++) {                                                                     \
                const union vector *from = k < count / 2 ? &c->a : &c->b;                                              \
                int x = from->from_member[first / 2 + k % (count / 2)];                                                \
                c->d.to_member[first + k] = (__typeof__(c->d.to_member[0]))(x < (low)    ? (low)                       \
                                                                            : x > (high) ? (high)                      \
                                                                                         : x);                         \
            }                                                                                                          \
        }                                                                                                              \
    }
PACK(pack_s16_s8, s16, s8, -128, 127)
PACK(pack_s16_u8, s16, u8, 0, 255)
PACK(pack_s32_s16, s32, s16, -32768, 32767)
PACK(pack_s32_u16, s32, u16, 0, 65535)

#define INTERLEAVE(name, member, upper)                                                                                \
    static void name(struct vector_call *c)                                                                            \
    {                                                                                                                  \
        unsigned count = lane_bytes(c) / sizeof(c->d.member[0]);                                                       \
        for (unsigned first = 0; first < c->size / sizeof(c->d.member[0]); first += count) {                           \
            for (unsigned k = 0; k < count / 2; k++) {                                                                 \
                unsigned at = first + k + (upper ? count / 2 : 0);                                                     \
                c->d.member[first + 2 * k] = c->a.member[at];                                                          \
                c->d.member[first + 2 * k + 1] = c->b.member[at];                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }
INTERLEAVE(interleave_low8, u8, false)
INTERLEAVE(interleave_low16, u16, false)
INTERLEAVE(interleave_low32, u32, false)
INTERLEAVE(interleave_low64, u64, false)
INTERLEAVE(interleave_high8, u8, true)
INTERLEAVE(interleave_high16, u16, true)
INTERLEAVE(interleave_high32, u32, true)
INTERLEAVE(interleave_high64, u64, true)

// ---- Shuffles by an immediate -------------------------------------------------------------------------------------

static void shuffle16(struct vector_call *c) // PSHUFW
{
    for (unsigned k = 0; k < 4; k++)
        c->d.u16[k] = c->b.u16[c->imm >> 2 * k & 3];
}

static void shuffle_words(struct vector_call *c, unsigned half)
{
    c->d = c->b;
    for (unsigned lane = half; lane < c->size / 2; lane += 8)
        for (unsigned k = 0; k < 4; k++)
            c->d.u16[lane + k] = c->b.u16[lane + (c->imm >> 2 * k & 3)];
}

static void shuffle_low16(struct vector_call *c)
{
    shuffle_words(c, 0);
}

static void shuffle_high16(struct vector_call *c)
{
    shuffle_words(c, 4);
}

static void shuffle32(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size / 4; k++)
        c->d.u32[k] = c->b.u32[(k & 4) + (c->imm >> 2 * (k & 3) & 3)];
}

static void shuffle_two32(struct vector_call *c) // SHUFPS
{
    for (unsigned k = 0; k < c->size / 4; k++) {
        const union vector *from = k & 2 ? &c->b : &c->a;
        c->d.u32[k] = from->u32[(k & 4) + (c->imm >> 2 * (k & 3) & 3)];
    }
}

static void shuffle_two64(struct vector_call *c) // SHUFPD
{
    for (unsigned k = 0; k < c->size / 8; k++) {
        const union vector *from = k & 1 ? &c->b : &c->a;
        c->d.u64[k] = from->u64[(k & 2) + (c->imm >> k & 1)];
    }
}

static void shuffle8(struct vector_call *c) // PSHUFB
{
    unsigned count = lane_bytes(c);
    for (unsigned k = 0; k < c->size; k++) {
        uint8_t index = c->b.u8[k];
        c->d.u8[k] = index & 0x80 ? 0 : c->a.u8[(k & ~(count - 1)) + (index & (count - 1))];
    }
}

static void align_right(struct vector_call *c) // PALIGNR: the first source is the upper part
{
    unsigned count = lane_bytes(c);
    for (unsigned lane = 0; lane < c->size; lane += count) {
        for (unsigned k = 0; k < count; k++) {
            unsigned at = k + c->imm;
            c->d.u8[lane + k] = at < count ? c->b.u8[lane + at] : at < 2 * count ? c->a.u8[lane + at - count] : 0;
        }
    }
}

static void insert_single(struct vector_call *c, uint32_t element) // INSERTPS
{
    c->d = c->a;
    c->d.u32[c->imm >> 4 & 3] = element;
    for (unsigned k = 0; k < 4; k++)
        if (c->imm >> k & 1)
            c->d.u32[k] = 0;
}

// ---- Duplicates, blends -------------------------------------------------------------------------------------------

static void duplicate64(struct vector_call *c) // MOVDDUP
{
    for (unsigned k = 0; k < c->size / 8; k++)
        c->d.u64[k] = c->b.u64[k & ~1u];
}

static void duplicate_even32(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size / 4; k++)
        c->d.u32[k] = c->b.u32[k & ~1u];
}

static void duplicate_odd32(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size / 4; k++)
        c->d.u32[k] = c->b.u32[k | 1];
}

static void blend16(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size / 2; k++)
        c->d.u16[k] = (c->imm >> (k & 7) & 1 ? &c->b : &c->a)->u16[k];
}

static void blend32(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size / 4; k++)
        c->d.u32[k] = (c->imm >> k & 1 ? &c->b : &c->a)->u32[k];
}

static void blend64(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size / 8; k++)
        c->d.u64[k] = (c->imm >> k & 1 ? &c->b : &c->a)->u64[k];
}

static void blend_mask8(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size; k++)
        c->d.u8[k] = (c->m.s8[k] < 0 ? &c->b : &c->a)->u8[k];
}

static void blend_mask32(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size / 4; k++)
        c->d.u32[k] = (c->m.s32[k] < 0 ? &c->b : &c->a)->u32[k];
}

static void blend_mask64(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size / 8; k++)
        c->d.u64[k] = (c->m.s64[k] < 0 ? &c->b : &c->a)->u64[k];
}

// ---- Widening -----------------------------------------------------------------------------------------------------

#define WIDEN(name, from_member, to_member)                                                                            \
    static void name(struct vector_call *c)                                                                            \
    {                                                                                                                  \
        for (unsigned k = 0; k < c->size / sizeof(c->d.to_member[0]); k++)                                             \
            c->d.to_member[k] = c->b.from_member[k];                                                                   \
    }
WIDEN(widen_s8_16, s8, s16)
WIDEN(widen_s8_32, s8, s32)
WIDEN(widen_s8_64, s8, s64)
WIDEN(widen_s16_32, s16, s32)
WIDEN(widen_s16_64, s16, s64)
WIDEN(widen_s32_64, s32, s64)
WIDEN(widen_u8_16, u8, u16)
WIDEN(widen_u8_32, u8, u32)
WIDEN(widen_u8_64, u8, u64)
WIDEN(widen_u16_32, u16, u32)
WIDEN(widen_u16_64, u16, u64)
WIDEN(widen_u32_64, u32, u64)

// ---- AVX and AVX2 permutations ------------------------------------------------------------------------------------

static void permute_in_lane32(struct vector_call *c) // VPERMILPS, indices in B
{
    for (unsigned k = 0; k < c->size / 4; k++)
        c->d.u32[k] = c->a.u32[(k & 4) + (c->b.u32[k] & 3)];
}

static void permute_in_lane64(struct vector_call *c) // VPERMILPD
{
    for (unsigned k = 0; k < c->size / 8; k++)
        c->d.u64[k] = c->a.u64[(k & 2) + (c->b.u64[k] >> 1 & 1)];
}

static void permute_in_lane64_immediate(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size / 8; k++)
        c->d.u64[k] = c->b.u64[(k & 2) + (c->imm >> k & 1)];
}

static void permute32(struct vector_call *c) // VPERMD, VPERMPS: indices in the first source
{
    for (unsigned k = 0; k < 8; k++)
        c->d.u32[k] = c->b.u32[c->a.u32[k] & 7];
}

static void permute64(struct vector_call *c) // VPERMQ, VPERMPD
{
    for (unsigned k = 0; k < 4; k++)
        c->d.u64[k] = c->b.u64[c->imm >> 2 * k & 3];
}

static void permute128(struct vector_call *c)
{
    for (unsigned k = 0; k < 2; k++) {
        unsigned control = c->imm >> 4 * k & 15;
        const union vector *from = control & 2 ? &c->b : &c->a;
        for (unsigned j = 0; j < 2; j++)
            c->d.u64[2 * k + j] = control & 8 ? 0 : from->u64[2 * (control & 1) + j];
    }
}

static void insert128(struct vector_call *c)
{
    memcpy(c->d.u8 + (c->imm & 1) * 16, c->b.u8, 16);
}

#define BROADCAST(name, member)                                                                                        \
    static void name(struct vector_call *c)                                                                            \
    {                                                                                                                  \
        for (unsigned k = 0; k < c->size / sizeof(c->d.member[0]); k++)                                                \
            c->d.member[k] = c->b.member[0];                                                                           \
    }
BROADCAST(broadcast8, u8)
BROADCAST(broadcast16, u16)
BROADCAST(broadcast32, u32)
BROADCAST(broadcast64, u64)

static void broadcast128(struct vector_call *c)
{
    for (unsigned k = 0; k < c->size / 8; k++)
        c->d.u64[k] = c->b.u64[k & 1];
}

// ---- Forms with a handler of their own ----------------------------------------------------------------------------

static const struct insn *run_insertps(struct vcpu *v, const struct insn *i)
{
    struct vector_call c = {.size = 16, .imm = (uint8_t)i->imm};
    uint32_t element;
    if (!i->is_memory)
        element = v->xsave.xmm[i->rm & 15].u32[i->imm >> 6 & 3];
    else if (!insn_load(v, i, &element, 4))
        return NULL;
    xmm_read(v, i->vex ? i->vvvv : i->reg, &c.a);
    insert_single(&c, element);
    vector_write(v, i, i->reg, &c.d);
    return i + 1;
}

// VPERMILPS and VPERMILPD choose by a vector (map 0F38, opcodes 0C and 0D) or by an immediate (map 0F3A, 04 and 05).
static const struct insn *run_permil(struct vcpu *v, const struct insn *i)
{
    static vector_kernel *const kernels[2][2] = {{permute_in_lane32, permute_in_lane64},
                                                 {shuffle32, permute_in_lane64_immediate}};
    struct vector_call c = {.size = i->vector_length, .imm = (uint8_t)i->imm};
    if (!vector_source(v, i, &c.b, c.size, true))
        return NULL;
    vector_read(v, i, i->vvvv, &c.a);
    kernels[i->opcode < 8][i->opcode & 1](&c);
    vector_write(v, i, i->reg, &c.d);
    return i + 1;
}

static const struct insn *run_extract128(struct vcpu *v, const struct insn *i)
{
    union vector x;
    ymm_read(v, i->reg, &x);
    const uint8_t *half = x.u8 + (i->imm & 1) * 16;
    if (i->is_memory)
        return insn_store(v, i, half, 16) ? i + 1 : NULL;
    union vector y = {0};
    memcpy(&y, half, 16);
    vex_write(v, i->rm, &y, 16);
    return i + 1;
}

#define MASKED(...) .third = THIRD_MASK __VA_OPT__(, ) __VA_ARGS__
#define AVX_ROW(name, register_form, memory_form)                                                                      \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = GATE_AVX, .reg = register_form,               \
        .mem = memory_form                                                                                             \
    }

const struct insn_row interpret_rows_shuffle[] = {
    VECTOR(PACKSSWB, pack_s16_s8),
    VECTOR(PACKUSWB, pack_s16_u8),
    VECTOR(PACKSSDW, pack_s32_s16),
    VECTOR(PACKUSDW, pack_s32_u16),
    VECTOR(PUNPCKLBW, interleave_low8),
    VECTOR(PUNPCKLWD, interleave_low16),
    VECTOR(PUNPCKLDQ, interleave_low32),
    VECTOR(PUNPCKLQDQ, interleave_low64),
    VECTOR(PUNPCKHBW, interleave_high8),
    VECTOR(PUNPCKHWD, interleave_high16),
    VECTOR(PUNPCKHDQ, interleave_high32),
    VECTOR(PUNPCKHQDQ, interleave_high64),
    VECTOR(UNPCKLPS, interleave_low32),
    VECTOR(UNPCKLPD, interleave_low64),
    VECTOR(UNPCKHPS, interleave_high32),
    VECTOR(UNPCKHPD, interleave_high64),
    VECTOR_LEGACY(PSHUFW, shuffle16),
    VECTOR(PSHUFLW, shuffle_low16),
    VECTOR(PSHUFHW, shuffle_high16),
    VECTOR(PSHUFD, shuffle32),
    VECTOR(SHUFPS, shuffle_two32),
    VECTOR(SHUFPD, shuffle_two64),
    VECTOR(PSHUFB, shuffle8),
    VECTOR(PALIGNR, align_right),
    VECTOR(MOVDDUP, duplicate64),
    VECTOR(MOVSLDUP, duplicate_even32),
    VECTOR(MOVSHDUP, duplicate_odd32),
    VECTOR(PBLENDW, blend16),
    VECTOR(BLENDPS, blend32),
    VECTOR(BLENDPD, blend64),
    VECTOR_VEX(VPBLENDD, blend32),
    VECTOR(PBLENDVB, blend_mask8, MASKED()),
    VECTOR(BLENDVPS, blend_mask32, MASKED()),
    VECTOR(BLENDVPD, blend_mask64, MASKED()),
    VECTOR(PMOVSXBW, widen_s8_16),
    VECTOR(PMOVSXBD, widen_s8_32),
    VECTOR(PMOVSXBQ, widen_s8_64),
    VECTOR(PMOVSXWD, widen_s16_32),
    VECTOR(PMOVSXWQ, widen_s16_64),
    VECTOR(PMOVSXDQ, widen_s32_64),
    VECTOR(PMOVZXBW, widen_u8_16),
    VECTOR(PMOVZXBD, widen_u8_32),
    VECTOR(PMOVZXBQ, widen_u8_64),
    VECTOR(PMOVZXWD, widen_u16_32),
    VECTOR(PMOVZXWQ, widen_u16_64),
    VECTOR(PMOVZXDQ, widen_u32_64),
    {.mnemonic = ZYDIS_MNEMONIC_INSERTPS,
     .class = CLASS_PLAIN,
     .gate = GATE_SSE,
     .reg = run_insertps,
     .mem = run_insertps},
    AVX_ROW(VINSERTPS, run_insertps, run_insertps),
    AVX_ROW(VPERMILPS, run_permil, run_permil),
    AVX_ROW(VPERMILPD, run_permil, run_permil),
    AVX_ROW(VEXTRACTF128, run_extract128, run_extract128),
    AVX_ROW(VEXTRACTI128, run_extract128, run_extract128),
    VECTOR_VEX(VPERMD, permute32),
    VECTOR_VEX(VPERMPS, permute32),
    VECTOR_VEX(VPERMQ, permute64),
    VECTOR_VEX(VPERMPD, permute64),
    VECTOR_VEX(VPERM2F128, permute128),
    VECTOR_VEX(VPERM2I128, permute128),
    VECTOR_VEX(VINSERTF128, insert128),
    VECTOR_VEX(VINSERTI128, insert128),
    VECTOR_VEX(VPBROADCASTB, broadcast8),
    VECTOR_VEX(VPBROADCASTW, broadcast16),
    VECTOR_VEX(VPBROADCASTD, broadcast32),
    VECTOR_VEX(VPBROADCASTQ, broadcast64),
    VECTOR_VEX(VBROADCASTSS, broadcast32),
    VECTOR_VEX(VBROADCASTSD, broadcast64),
    VECTOR_VEX(VBROADCASTF128, broadcast128),
    VECTOR_VEX(VBROADCASTI128, broadcast128),
    VECTOR_END,
};
