// SPDX-License-Identifier: GPL-2.0-or-later
// Shifts, rotates, double shifts, multiplication and division (SDM vol. 2).
#include "core/cpu/interpret/flags.h"
#include "core/cpu/interpret/interpret.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef unsigned __int128 u128;

static unsigned count_mask(unsigned bits)
{
    return bits == 64 ? 63 : 31;
}

static u64 cut_to(u64 value, unsigned bits)
{
    return value & (~0ull >> (64 - bits));
}

static u64 top_bit(u64 value, unsigned bits)
{
    return value >> (bits - 1) & 1;
}

// Result with its SF, ZF, PF; AF is left clear, which is one of the undefined choices that hardware makes.
static void shift_flags(struct vcpu *v, u64 result, unsigned bits, bool cf, bool of)
{
    flags_logic(v, result, bits);
    flags_set_cf_of(v, cf, of);
}

// ---- The operations: value, masked count (not 0), operand bits
// ------------------------------------------------------------

static u64 op_shl(struct vcpu *v, u64 a, unsigned n, unsigned bits)
{
    u64 r = n < bits ? cut_to(a << n, bits) : 0;
    bool cf = n <= bits && (a >> (bits - n) & 1);
    shift_flags(v, r, bits, cf, top_bit(r, bits) != cf);
    return r;
}

static u64 op_shr(struct vcpu *v, u64 a, unsigned n, unsigned bits)
{
    u64 r = n < bits ? a >> n : 0;
    bool cf = n <= bits && (a >> (n - 1) & 1);
    shift_flags(v, r, bits, cf, top_bit(a, bits));
    return r;
}

static u64 op_sar(struct vcpu *v, u64 a, unsigned n, unsigned bits)
{
    s64 wide = (s64)(a << (64 - bits)) >> (64 - bits);
    u64 r = cut_to((u64)(wide >> MIN(n, 63)), bits);
    bool cf = wide >> MIN(n - 1, 63) & 1;
    shift_flags(v, r, bits, cf, false);
    return r;
}

static u64 op_rol(struct vcpu *v, u64 a, unsigned n, unsigned bits)
{
    n &= bits - 1;
    u64 r = n ? cut_to(a << n | a >> (bits - n), bits) : a;
    flags_set_cf_of(v, r & 1, top_bit(r, bits) != (r & 1));
    return r;
}

static u64 op_ror(struct vcpu *v, u64 a, unsigned n, unsigned bits)
{
    n &= bits - 1;
    u64 r = n ? cut_to(a >> n | a << (bits - n), bits) : a;
    flags_set_cf_of(v, top_bit(r, bits), top_bit(r, bits) != (r >> (bits - 2) & 1));
    return r;
}

static u64 op_rcl(struct vcpu *v, u64 a, unsigned n, unsigned bits)
{
    n %= bits + 1;
    bool cf = flag_cf(v);
    for (unsigned k = 0; k < n; k++) {
        bool out = top_bit(a, bits);
        a = cut_to(a << 1, bits) | cf;
        cf = out;
    }
    flags_set_cf_of(v, cf, top_bit(a, bits) != cf);
    return a;
}

static u64 op_rcr(struct vcpu *v, u64 a, unsigned n, unsigned bits)
{
    n %= bits + 1;
    bool cf = flag_cf(v);
    for (unsigned k = 0; k < n; k++) {
        bool out = a & 1;
        a = a >> 1 | (u64)cf << (bits - 1);
        cf = out;
    }
    flags_set_cf_of(v, cf, top_bit(a, bits) != (a >> (bits - 2) & 1));
    return a;
}

// ---- Handlers: count from an immediate, CL, or 1
// ---------------------------------------------------------------------------

#define DEFINE_SHIFT(N, NAME, WHERE, COUNT)                                                                            \
    static const struct insn *NAME##N##_r##WHERE(struct vcpu *v, const struct insn *i)                                 \
    {                                                                                                                  \
        unsigned n = (COUNT)&count_mask(N);                                                                            \
        u##N a = slot_u##N(v, i->rm_offset);                                                                           \
        if (n)                                                                                                         \
            a = (u##N)op_##NAME(v, a, n, N);                                                                           \
        slot_set_u##N(v, i->rm_offset, a);                                                                             \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *NAME##N##_m##WHERE(struct vcpu *v, const struct insn *i)                                 \
    {                                                                                                                  \
        unsigned n = (COUNT)&count_mask(N);                                                                            \
        u64 linear;                                                                                                    \
        struct rmw rmw;                                                                                                \
        if (!insn_linear(v, i, N / 8, ACCESS_WRITE, &linear))                                                          \
            return NULL;                                                                                               \
        u##N *p = rmw_begin(v, linear, N / 8, false, &rmw);                                                            \
        if (!p)                                                                                                        \
            return NULL;                                                                                               \
        if (n)                                                                                                         \
            *p = (u##N)op_##NAME(v, *p, n, N);                                                                         \
        rmw_end(v, &rmw);                                                                                              \
        return i + 1;                                                                                                  \
    }
#define DEFINE_SHIFT_SIZES(NAME, WHERE, COUNT)                                                                         \
    DEFINE_SHIFT(8, NAME, WHERE, COUNT)                                                                                \
    DEFINE_SHIFT(16, NAME, WHERE, COUNT)                                                                               \
    DEFINE_SHIFT(32, NAME, WHERE, COUNT)                                                                               \
    DEFINE_SHIFT(64, NAME, WHERE, COUNT)
#define DEFINE_SHIFTS(NAME)                                                                                            \
    DEFINE_SHIFT_SIZES(NAME, i, (unsigned)i->imm)                                                                      \
    DEFINE_SHIFT_SIZES(NAME, c, (unsigned)v->gpr[RCX])                                                                 \
    static insn_handler *bind_##NAME(struct vcpu *v, const struct decoded *d, struct insn *i)                          \
    {                                                                                                                  \
        static insn_handler *const table[4][4] = {{NAME##8_ri, NAME##8_mi, NAME##8_rc, NAME##8_mc},                    \
                                                  {NAME##16_ri, NAME##16_mi, NAME##16_rc, NAME##16_mc},                \
                                                  {NAME##32_ri, NAME##32_mi, NAME##32_rc, NAME##32_mc},                \
                                                  {NAME##64_ri, NAME##64_mi, NAME##64_rc, NAME##64_mc}};               \
        bool cl = d->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER;                                                  \
        if ((i->opcode & 0xfe) == 0xd0)                                                                                \
            i->imm = 1;                                                                                                \
        return table[__builtin_ctz(i->operand_size)][cl * 2 + i->is_memory];                                           \
    }
DEFINE_SHIFTS(shl)
DEFINE_SHIFTS(shr)
DEFINE_SHIFTS(sar)
DEFINE_SHIFTS(rol)
DEFINE_SHIFTS(ror)
DEFINE_SHIFTS(rcl)
DEFINE_SHIFTS(rcr)

// ---- SHLD, SHRD
// -------------------------------------------------------------------------------------------------------

// 16-bit counts above 16 are undefined; this is what the usual 48-bit shifter gives.
static u64 op_shld(struct vcpu *v, u64 a, u64 b, unsigned n, unsigned bits)
{
    u64 r;
    bool cf;
    if (bits == 16) {
        u64 wide = a << 32 | b << 16 | a;
        r = cut_to(wide << n >> 32, 16);
        cf = wide >> (48 - n) & 1;
    } else {
        r = cut_to(a << n | b >> (bits - n), bits);
        cf = a >> (bits - n) & 1;
    }
    shift_flags(v, r, bits, cf, top_bit(r ^ a, bits));
    return r;
}

static u64 op_shrd(struct vcpu *v, u64 a, u64 b, unsigned n, unsigned bits)
{
    u64 r;
    bool cf;
    if (bits == 16) {
        u64 wide = a << 32 | b << 16 | a;
        r = cut_to(wide >> n, 16);
        cf = wide >> (n - 1) & 1;
    } else {
        r = cut_to(a >> n | b << (bits - n), bits);
        cf = a >> (n - 1) & 1;
    }
    shift_flags(v, r, bits, cf, top_bit(r ^ a, bits));
    return r;
}

static const struct insn *double_shift(struct vcpu *v, const struct insn *i,
                                       u64 (*op)(struct vcpu *, u64, u64, unsigned, unsigned))
{
    unsigned size = i->operand_size, bits = size * 8;
    unsigned n = (unsigned)(i->opcode & 1 ? v->gpr[RCX] : i->imm) & count_mask(bits);
    u64 b = slot_get(v, i->reg_offset, size), linear;
    if (!i->is_memory) {
        u64 a = slot_get(v, i->rm_offset, size);
        slot_set(v, i->rm_offset, size, n ? op(v, a, b, n, bits) : a);
        return i + 1;
    }
    struct rmw rmw;
    if (!insn_linear(v, i, size, ACCESS_WRITE, &linear))
        return NULL;
    void *p = rmw_begin(v, linear, size, false, &rmw);
    if (!p)
        return NULL;
    if (n)
        store_le(p, size, op(v, load_le(p, size), b, n, bits));
    rmw_end(v, &rmw);
    return i + 1;
}
static const struct insn *shld(struct vcpu *v, const struct insn *i)
{
    return double_shift(v, i, op_shld);
}
static const struct insn *shrd(struct vcpu *v, const struct insn *i)
{
    return double_shift(v, i, op_shrd);
}

// ---- Multiplication
// -----------------------------------------------------------------------------------------------------

// One source operand of any size, register or memory.
static bool source(struct vcpu *v, const struct insn *i, u64 *value)
{
    if (!i->is_memory) {
        *value = slot_get(v, i->rm_offset, i->operand_size);
        return true;
    }
    u8 bytes[8];
    if (!insn_load(v, i, bytes, i->operand_size))
        return false;
    *value = load_le(bytes, i->operand_size);
    return true;
}

// SF, ZF, PF after a multiplication are undefined; hardware sets SF and PF from the low half and clears ZF and AF. A
// result of 0 becomes one with the same sign and parity that is not 0.
static inline void multiply_flags(struct vcpu *v, u64 low, unsigned bits, bool overflow)
{
    u64 result = (u64)((s64)(low << (64 - bits)) >> (64 - bits));
    v->flags_result = result ? result : 0x10000;
    v->flags_aux = overflow ? BIT(63) : 0; // CF = OF: bit 62, their difference, is 0
}

static void store_product(struct vcpu *v, unsigned size, u64 low, u64 high)
{
    if (size == 1) {
        slot_set_u16(v, VCPU_OFFSET(gpr[RAX]), (u16)(low | high << 8));
        return;
    }
    slot_set(v, VCPU_OFFSET(gpr[RAX]), size, low);
    slot_set(v, VCPU_OFFSET(gpr[RDX]), size, high);
}

static const struct insn *mul(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->operand_size, bits = size * 8;
    u64 b;
    if (!source(v, i, &b))
        return NULL;
    u128 product = (u128)slot_get(v, 0, size) * b;
    u64 low = cut_to((u64)product, bits), high = cut_to((u64)(product >> bits), bits);
    store_product(v, size, low, high);
    multiply_flags(v, low, bits, high != 0);
    return i + 1;
}

static s64 sign_extend(u64 value, unsigned bits)
{
    return (s64)(value << (64 - bits)) >> (64 - bits);
}

static const struct insn *imul(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->operand_size, bits = size * 8;
    u64 b;
    if (!source(v, i, &b))
        return NULL;
    __int128 product = (__int128)sign_extend(slot_get(v, 0, size), bits) * sign_extend(b, bits);
    u64 low = cut_to((u64)product, bits), high = cut_to((u64)(product >> bits), bits);
    store_product(v, size, low, high);
    multiply_flags(v, low, bits, product != sign_extend(low, bits));
    return i + 1;
}

static const struct insn *imul_into(struct vcpu *v, const struct insn *i, u64 a, u64 b)
{
    unsigned size = i->operand_size, bits = size * 8;
    __int128 product = (__int128)sign_extend(a, bits) * sign_extend(b, bits);
    u64 low = cut_to((u64)product, bits);
    slot_set(v, i->reg_offset, size, low);
    multiply_flags(v, low, bits, product != sign_extend(low, bits));
    return i + 1;
}
static const struct insn *imul2(struct vcpu *v, const struct insn *i)
{
    u64 b;
    return source(v, i, &b) ? imul_into(v, i, slot_get(v, i->reg_offset, i->operand_size), b) : NULL;
}
static const struct insn *imul3(struct vcpu *v, const struct insn *i)
{
    u64 b;
    return source(v, i, &b) ? imul_into(v, i, b, i->imm) : NULL;
}
// The common sizes from registers, without the generic operand paths.
#define DEFINE_IMUL(N, S, WIDE)                                                                                        \
    static const struct insn *imul##N##_rr(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        WIDE product = (WIDE)(S)slot_u##N(v, i->reg_offset) * (S)slot_u##N(v, i->rm_offset);                           \
        slot_set_u##N(v, i->reg_offset, (u##N)product);                                                                \
        multiply_flags(v, (u##N)product, N, product != (S)product);                                                    \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *imul##N##_rri(struct vcpu *v, const struct insn *i)                                      \
    {                                                                                                                  \
        WIDE product = (WIDE)(S)slot_u##N(v, i->rm_offset) * (S)i->imm;                                                \
        slot_set_u##N(v, i->reg_offset, (u##N)product);                                                                \
        multiply_flags(v, (u##N)product, N, product != (S)product);                                                    \
        return i + 1;                                                                                                  \
    }
DEFINE_IMUL(32, s32, s64)
DEFINE_IMUL(64, s64, __int128)

static insn_handler *bind_imul(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    bool three = i->opcode == 0x69 || i->opcode == 0x6b;
    if (!i->is_memory && (three || i->opcode == 0xaf) && i->operand_size == 4)
        return three ? imul32_rri : imul32_rr;
    if (!i->is_memory && (three || i->opcode == 0xaf) && i->operand_size == 8)
        return three ? imul64_rri : imul64_rr;
    return i->opcode == 0xaf ? imul2 : i->opcode == 0x69 || i->opcode == 0x6b ? imul3 : imul;
}

// ---- Division
// -------------------------------------------------------------------------------------------------------------

static const struct insn *divide_error(struct vcpu *v)
{
    return insn_fault(v, EXCEPTION_DE, -1);
}

static void store_quotient(struct vcpu *v, unsigned size, u64 quotient, u64 remainder)
{
    if (size == 1) {
        slot_set_u16(v, VCPU_OFFSET(gpr[RAX]), (u16)((quotient & 0xff) | remainder << 8));
        return;
    }
    slot_set(v, VCPU_OFFSET(gpr[RAX]), size, quotient);
    slot_set(v, VCPU_OFFSET(gpr[RDX]), size, remainder);
}

static u128 dividend(struct vcpu *v, unsigned size)
{
    if (size == 1)
        return slot_u16(v, VCPU_OFFSET(gpr[RAX]));
    return (u128)slot_get(v, VCPU_OFFSET(gpr[RDX]), size) << size * 8 | slot_get(v, VCPU_OFFSET(gpr[RAX]), size);
}

static const struct insn *div_(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->operand_size, bits = size * 8;
    u64 b;
    if (!source(v, i, &b))
        return NULL;
    u128 a = dividend(v, size);
    if (b == 0 || a / b >> bits)
        return divide_error(v);
    store_quotient(v, size, (u64)(a / b), (u64)(a % b));
    return i + 1;
}

static const struct insn *idiv(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->operand_size, bits = size * 8;
    u64 raw;
    if (!source(v, i, &raw))
        return NULL;
    __int128 a = (__int128)(dividend(v, size) << (128 - 2 * bits)) >> (128 - 2 * bits), b = sign_extend(raw, bits);
    bool minimum = a == (__int128)((u128)1 << 127);
    if (b == 0 || (minimum && b == -1))
        return divide_error(v);
    __int128 quotient = a / b, limit = (__int128)1 << (bits - 1);
    if (quotient >= limit || quotient < -limit)
        return divide_error(v);
    store_quotient(v, size, (u64)quotient, (u64)(a % b));
    return i + 1;
}

// ---- Decimal adjustment (SDM vol. 2A); 16- and 32-bit modes only
// -------------------------------------------------------------

static void set_al(struct vcpu *v, u8 value)
{
    slot_set_u8(v, VCPU_OFFSET(gpr[RAX]), value);
}
static void decimal_flags(struct vcpu *v, u8 result, bool cf, bool af)
{
    flags_logic(v, result, 8);
    flags_set(v, (flags_get(v) & ~(u64)(FLAG_CF | FLAG_AF)) | (cf ? FLAG_CF : 0) | (af ? FLAG_AF : 0));
}

static const struct insn *decimal_adjust(struct vcpu *v, const struct insn *i, int sign)
{
    u8 old = (u8)v->gpr[RAX], al = old;
    bool old_cf = flag_cf(v), cf = false, af = false;
    if ((al & 15) > 9 || flag_af(v)) {
        int wide = al + 6 * sign;
        cf = old_cf || wide < 0 || wide > 0xff;
        al = (u8)wide;
        af = true;
    }
    if (old > 0x99 || old_cf) {
        al = (u8)(al + 0x60 * sign);
        cf = true;
    } else if (sign > 0) {
        cf = false;
    }
    set_al(v, al);
    decimal_flags(v, al, cf, af);
    return i + 1;
}
static const struct insn *daa(struct vcpu *v, const struct insn *i)
{
    return decimal_adjust(v, i, 1);
}
static const struct insn *das(struct vcpu *v, const struct insn *i)
{
    return decimal_adjust(v, i, -1);
}

static const struct insn *ascii_adjust(struct vcpu *v, const struct insn *i, int sign)
{
    u16 ax = (u16)v->gpr[RAX];
    bool adjust = (ax & 15) > 9 || flag_af(v);
    if (adjust)
        ax = (u16)(ax + 0x106 * sign);
    ax &= 0xff0f;
    slot_set_u16(v, VCPU_OFFSET(gpr[RAX]), ax);
    decimal_flags(v, (u8)ax, adjust, adjust);
    return i + 1;
}
static const struct insn *aaa(struct vcpu *v, const struct insn *i)
{
    return ascii_adjust(v, i, 1);
}
static const struct insn *aas(struct vcpu *v, const struct insn *i)
{
    return ascii_adjust(v, i, -1);
}

static const struct insn *aam(struct vcpu *v, const struct insn *i)
{
    u8 base = (u8)i->imm, al = (u8)v->gpr[RAX];
    if (base == 0)
        return divide_error(v);
    slot_set_u16(v, VCPU_OFFSET(gpr[RAX]), (u16)(al / base << 8 | al % base));
    flags_logic(v, al % base, 8);
    return i + 1;
}
static const struct insn *aad(struct vcpu *v, const struct insn *i)
{
    u16 ax = (u16)v->gpr[RAX];
    u8 al = (u8)((ax & 0xff) + (ax >> 8) * (u8)i->imm);
    slot_set_u16(v, VCPU_OFFSET(gpr[RAX]), al);
    flags_logic(v, al, 8);
    return i + 1;
}

#define ROW_BIND(M, BIND)                                                                                              \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .bind = BIND                                                                   \
    }
#define ROW_ANY(M, FN)                                                                                                 \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .reg = FN, .mem = FN                                                           \
    }

const struct insn_row interpret_rows_shift[] = {
    ROW_BIND(SHL, bind_shl), ROW_BIND(SHR, bind_shr), ROW_BIND(SAR, bind_sar),   ROW_BIND(ROL, bind_rol),
    ROW_BIND(ROR, bind_ror), ROW_BIND(RCL, bind_rcl), ROW_BIND(RCR, bind_rcr),   ROW_ANY(SHLD, shld),
    ROW_ANY(SHRD, shrd),     ROW_ANY(MUL, mul),       ROW_BIND(IMUL, bind_imul), ROW_ANY(DIV, div_),
    ROW_ANY(IDIV, idiv),     ROW_ANY(DAA, daa),       ROW_ANY(DAS, das),         ROW_ANY(AAA, aaa),
    ROW_ANY(AAS, aas),       ROW_ANY(AAM, aam),       ROW_ANY(AAD, aad),         {0},
};
