// SPDX-License-Identifier: GPL-2.0-or-later
// Bit tests and scans, conditional moves and sets, byte order, BMI, ADX (SDM vol. 2).
#include "core/cpu/interpret/flags.h"
#include "core/cpu/interpret/interpret.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

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

static void set_cf(struct vcpu *v, bool cf)
{
    flags_set_cf_of(v, cf, flag_of(v));
}

// ---- Condition codes
// ------------------------------------------------------------------------------------------------------

#define CONDITIONS(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)

#define DEFINE_CONDITIONAL(C)                                                                                          \
    static const struct insn *setcc##C##_r(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        slot_set_u8(v, i->rm_offset, flags_condition(v, C));                                                           \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *setcc##C##_m(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        u8 value = flags_condition(v, C);                                                                              \
        return insn_store(v, i, &value, 1) ? i + 1 : NULL;                                                             \
    }                                                                                                                  \
    static const struct insn *cmov##C##_32r(struct vcpu *v, const struct insn *i)                                      \
    {                                                                                                                  \
        slot_set_u32(v, i->reg_offset, slot_u32(v, flags_condition(v, C) ? i->rm_offset : i->reg_offset));             \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *cmov##C##_64r(struct vcpu *v, const struct insn *i)                                      \
    {                                                                                                                  \
        if (flags_condition(v, C))                                                                                     \
            slot_set_u64(v, i->reg_offset, slot_u64(v, i->rm_offset));                                                 \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *cmov##C##_any(struct vcpu *v, const struct insn *i)                                      \
    {                                                                                                                  \
        u64 value;                                                                                                     \
        if (!source(v, i, &value))                                                                                     \
            return NULL;                                                                                               \
        if (!flags_condition(v, C))                                                                                    \
            value = slot_get(v, i->reg_offset, i->operand_size);                                                       \
        slot_set(v, i->reg_offset, i->operand_size, value);                                                            \
        return i + 1;                                                                                                  \
    }
CONDITIONS(DEFINE_CONDITIONAL)

static insn_handler *bind_setcc(struct vcpu *v, const struct decoded *d, struct insn *i)
{
#define SETCC_ROW(C) {setcc##C##_r, setcc##C##_m},
    static insn_handler *const table[16][2] = {CONDITIONS(SETCC_ROW)};
    return table[i->opcode & 15][i->is_memory];
}

static insn_handler *bind_cmov(struct vcpu *v, const struct decoded *d, struct insn *i)
{
#define CMOV_ROW(C) {cmov##C##_any, cmov##C##_32r, cmov##C##_64r},
    static insn_handler *const table[16][3] = {CONDITIONS(CMOV_ROW)};
    unsigned form = i->is_memory || i->operand_size == 2 ? 0 : i->operand_size == 4 ? 1 : 2;
    return table[i->opcode & 15][form];
}

// ---- BT, BTS, BTR, BTC
// ----------------------------------------------------------------------------------------------------

enum bit_op { BIT_TEST, BIT_SET_, BIT_RESET, BIT_COMPLEMENT };

static u64 bit_apply(enum bit_op op, u64 value, u64 mask)
{
    return op == BIT_SET_         ? value | mask
           : op == BIT_RESET      ? value & ~mask
           : op == BIT_COMPLEMENT ? value ^ mask
                                  : value;
}

static u64 bit_atomic(enum bit_op op, void *p, unsigned size, u64 mask, bool lock)
{
    if (!lock) {
        u64 old = load_le(p, size);
        store_le(p, size, bit_apply(op, old, mask));
        return old;
    }
#define ATOMIC_BIT(N)                                                                                                  \
    case N / 8: {                                                                                                      \
        u##N *q = p, m = (u##N)mask;                                                                                   \
        return op == BIT_SET_    ? __atomic_fetch_or(q, m, __ATOMIC_SEQ_CST)                                           \
               : op == BIT_RESET ? __atomic_fetch_and(q, (u##N) ~m, __ATOMIC_SEQ_CST)                                  \
                                 : __atomic_fetch_xor(q, m, __ATOMIC_SEQ_CST);                                         \
    }
    switch (size) {
        ATOMIC_BIT(16)
        ATOMIC_BIT(32)
    default:
        ATOMIC_BIT(64)
    }
}

// With a register index, memory operands reach beyond the operand: the index selects a word at a signed distance.
static bool bit_address(struct vcpu *v, const struct insn *i, bool by_register, u64 index, unsigned access, u64 *linear)
{
    unsigned size = i->operand_size, shift = 3 + (unsigned)__builtin_ctz(size);
    if (!by_register)
        return insn_linear(v, i, size, access, linear);
    int64_t distance = (int64_t)(index << (64 - size * 8)) >> (64 - size * 8) >> shift;
    struct insn moved = *i;
    moved.disp += distance * (int64_t)size;
    return insn_linear(v, &moved, size, access, linear);
}

static const struct insn *bit_operation(struct vcpu *v, const struct insn *i, enum bit_op op)
{
    unsigned size = i->operand_size;
    bool by_register = i->opcode != 0xba;
    u64 index = by_register ? slot_get(v, i->reg_offset, size) : i->imm, linear, old;
    u64 mask = 1ull << (index & (size * 8 - 1));
    if (!i->is_memory) {
        old = slot_get(v, i->rm_offset, size);
        if (op != BIT_TEST)
            slot_set(v, i->rm_offset, size, bit_apply(op, old, mask));
    } else if (op == BIT_TEST) {
        u8 bytes[8];
        if (!bit_address(v, i, by_register, index, ACCESS_READ, &linear) || !linear_load(v, linear, bytes, size))
            return NULL;
        old = load_le(bytes, size);
    } else {
        struct rmw rmw;
        if (!bit_address(v, i, by_register, index, ACCESS_WRITE, &linear))
            return NULL;
        void *p = rmw_begin(v, linear, size, i->lock, &rmw);
        if (!p)
            return NULL;
        old = bit_atomic(op, p, size, mask, i->lock);
        rmw_end(v, &rmw);
    }
    set_cf(v, old & mask);
    return i + 1;
}
static const struct insn *bt(struct vcpu *v, const struct insn *i)
{
    return bit_operation(v, i, BIT_TEST);
}
static const struct insn *bts(struct vcpu *v, const struct insn *i)
{
    return bit_operation(v, i, BIT_SET_);
}
static const struct insn *btr(struct vcpu *v, const struct insn *i)
{
    return bit_operation(v, i, BIT_RESET);
}
static const struct insn *btc(struct vcpu *v, const struct insn *i)
{
    return bit_operation(v, i, BIT_COMPLEMENT);
}

// ---- Scans and counts
// -------------------------------------------------------------------------------------------------------

static void set_zf(struct vcpu *v, bool zf)
{
    flags_set(v, (flags_get(v) & ~(u64)FLAG_ZF) | (zf ? FLAG_ZF : 0));
}

static const struct insn *bsf(struct vcpu *v, const struct insn *i)
{
    u64 a;
    if (!source(v, i, &a))
        return NULL;
    if (a)
        slot_set(v, i->reg_offset, i->operand_size, (u64)__builtin_ctzll(a));
    set_zf(v, a == 0);
    return i + 1;
}
static const struct insn *bsr(struct vcpu *v, const struct insn *i)
{
    u64 a;
    if (!source(v, i, &a))
        return NULL;
    if (a)
        slot_set(v, i->reg_offset, i->operand_size, 63 - (u64)__builtin_clzll(a));
    set_zf(v, a == 0);
    return i + 1;
}

// CF: the source is 0; ZF: the result is 0.
static const struct insn *count_result(struct vcpu *v, const struct insn *i, u64 a, u64 count)
{
    slot_set(v, i->reg_offset, i->operand_size, count);
    flags_set(v, (flags_get(v) & ~(u64)(FLAG_CF | FLAG_ZF)) | (a == 0 ? FLAG_CF : 0) | (count == 0 ? FLAG_ZF : 0));
    return i + 1;
}
static const struct insn *tzcnt(struct vcpu *v, const struct insn *i)
{
    u64 a;
    if (!source(v, i, &a))
        return NULL;
    return count_result(v, i, a, a ? (u64)__builtin_ctzll(a) : i->operand_size * 8u);
}
static const struct insn *lzcnt(struct vcpu *v, const struct insn *i)
{
    u64 a;
    if (!source(v, i, &a))
        return NULL;
    unsigned bits = i->operand_size * 8u;
    return count_result(v, i, a, a ? (u64)__builtin_clzll(a) - (64 - bits) : bits);
}
static const struct insn *popcnt(struct vcpu *v, const struct insn *i)
{
    u64 a;
    if (!source(v, i, &a))
        return NULL;
    slot_set(v, i->reg_offset, i->operand_size, (u64)__builtin_popcountll(a));
    flags_set(v, a == 0 ? FLAG_ZF : 0);
    return i + 1;
}

// ---- Byte order
// -------------------------------------------------------------------------------------------------------------

static u64 swap(u64 value, unsigned size)
{
    return __builtin_bswap64(value) >> (64 - 8 * size);
}
static const struct insn *bswap(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->operand_size;
    // 16-bit operands are undefined: processors give 0.
    slot_set(v, i->rm_offset, size, size == 2 ? 0 : swap(slot_get(v, i->rm_offset, size), size));
    return i + 1;
}
static const struct insn *movbe_load(struct vcpu *v, const struct insn *i)
{
    u64 a;
    if (!source(v, i, &a))
        return NULL;
    slot_set(v, i->reg_offset, i->operand_size, swap(a, i->operand_size));
    return i + 1;
}
static const struct insn *movbe_store(struct vcpu *v, const struct insn *i)
{
    u8 bytes[8];
    store_le(bytes, i->operand_size, swap(slot_get(v, i->reg_offset, i->operand_size), i->operand_size));
    return insn_store(v, i, bytes, i->operand_size) ? i + 1 : NULL;
}
static insn_handler *bind_movbe(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    return !i->is_memory ? NULL : i->opcode == 0xf0 ? movbe_load : movbe_store;
}

// ---- BMI1, BMI2: VEX-encoded; vvvv is a general register
// -----------------------------------------------------------------------

static u64 gpr_of(struct vcpu *v, unsigned number, unsigned size)
{
    return slot_get(v, number * 8, size);
}

static void bmi_flags(struct vcpu *v, u64 result, unsigned size, bool cf)
{
    flags_logic(v, result, size * 8);
    set_cf(v, cf);
}

static const struct insn *andn(struct vcpu *v, const struct insn *i)
{
    u64 a;
    if (!source(v, i, &a))
        return NULL;
    u64 r = ~gpr_of(v, i->vvvv, i->operand_size) & a;
    slot_set(v, i->reg_offset, i->operand_size, r);
    bmi_flags(v, r, i->operand_size, false);
    return i + 1;
}

static u64 cut(u64 value, unsigned size)
{
    return value & (~0ull >> (64 - 8 * size));
}

// BLSI, BLSMSK, BLSR: the destination is vvvv.
static const struct insn *lowest_bit(struct vcpu *v, const struct insn *i, unsigned which)
{
    u64 a, r;
    if (!source(v, i, &a))
        return NULL;
    r = cut(which == 0 ? a & (0 - a) : which == 1 ? a ^ (a - 1) : a & (a - 1), i->operand_size);
    slot_set(v, i->vvvv * 8u, i->operand_size, r);
    bmi_flags(v, r, i->operand_size, which == 0 ? a != 0 : a == 0);
    return i + 1;
}
static const struct insn *blsi(struct vcpu *v, const struct insn *i)
{
    return lowest_bit(v, i, 0);
}
static const struct insn *blsmsk(struct vcpu *v, const struct insn *i)
{
    return lowest_bit(v, i, 1);
}
static const struct insn *blsr(struct vcpu *v, const struct insn *i)
{
    return lowest_bit(v, i, 2);
}

static const struct insn *bextr(struct vcpu *v, const struct insn *i)
{
    u64 a, control = gpr_of(v, i->vvvv, i->operand_size);
    if (!source(v, i, &a))
        return NULL;
    unsigned start = control & 0xff, length = control >> 8 & 0xff;
    u64 r = start < 64 ? a >> start : 0;
    if (length < 64)
        r &= (1ull << length) - 1;
    slot_set(v, i->reg_offset, i->operand_size, r);
    bmi_flags(v, r, i->operand_size, false);
    return i + 1;
}

static const struct insn *bzhi(struct vcpu *v, const struct insn *i)
{
    u64 a;
    unsigned n = gpr_of(v, i->vvvv, i->operand_size) & 0xff, bits = i->operand_size * 8u;
    if (!source(v, i, &a))
        return NULL;
    u64 r = n < bits ? a & ((1ull << n) - 1) : a;
    slot_set(v, i->reg_offset, i->operand_size, r);
    bmi_flags(v, r, i->operand_size, n >= bits);
    return i + 1;
}

static const struct insn *pdep(struct vcpu *v, const struct insn *i)
{
    u64 mask, value = gpr_of(v, i->vvvv, i->operand_size), r = 0;
    if (!source(v, i, &mask))
        return NULL;
    for (; mask; mask &= mask - 1, value >>= 1)
        if (value & 1)
            r |= mask & (0 - mask);
    slot_set(v, i->reg_offset, i->operand_size, r);
    return i + 1;
}
static const struct insn *pext(struct vcpu *v, const struct insn *i)
{
    u64 mask, value = gpr_of(v, i->vvvv, i->operand_size), r = 0;
    if (!source(v, i, &mask))
        return NULL;
    for (unsigned k = 0; mask; mask &= mask - 1, k++)
        if (value & mask & (0 - mask))
            r |= 1ull << k;
    slot_set(v, i->reg_offset, i->operand_size, r);
    return i + 1;
}

static const struct insn *mulx(struct vcpu *v, const struct insn *i)
{
    u64 a;
    unsigned size = i->operand_size;
    if (!source(v, i, &a))
        return NULL;
    unsigned __int128 product = (unsigned __int128)a * gpr_of(v, RDX, size);
    slot_set(v, i->vvvv * 8u, size, (u64)product);
    slot_set(v, i->reg_offset, size, (u64)(product >> size * 8)); // the high half wins if both name one register
    return i + 1;
}

static const struct insn *rorx(struct vcpu *v, const struct insn *i)
{
    u64 a;
    unsigned bits = i->operand_size * 8u, n = i->imm & (bits - 1);
    if (!source(v, i, &a))
        return NULL;
    slot_set(v, i->reg_offset, i->operand_size, n ? a >> n | a << (bits - n) : a);
    return i + 1;
}

static const struct insn *shift_x(struct vcpu *v, const struct insn *i, unsigned which)
{
    u64 a;
    unsigned bits = i->operand_size * 8u, n = gpr_of(v, i->vvvv, i->operand_size) & (bits - 1);
    if (!source(v, i, &a))
        return NULL;
    u64 r = which == 0 ? a << n : which == 1 ? a >> n : (u64)((int64_t)(a << (64 - bits)) >> (64 - bits) >> n);
    slot_set(v, i->reg_offset, i->operand_size, r);
    return i + 1;
}
static const struct insn *shlx(struct vcpu *v, const struct insn *i)
{
    return shift_x(v, i, 0);
}
static const struct insn *shrx(struct vcpu *v, const struct insn *i)
{
    return shift_x(v, i, 1);
}
static const struct insn *sarx(struct vcpu *v, const struct insn *i)
{
    return shift_x(v, i, 2);
}

// ---- ADX
// --------------------------------------------------------------------------------------------------------------------

static const struct insn *add_with(struct vcpu *v, const struct insn *i, u64 flag)
{
    u64 b, f = flags_get(v);
    unsigned size = i->operand_size;
    if (!source(v, i, &b))
        return NULL;
    unsigned __int128 sum = (unsigned __int128)slot_get(v, i->reg_offset, size) + b + (f & flag ? 1 : 0);
    slot_set(v, i->reg_offset, size, (u64)sum);
    flags_set(v, (f & ~flag) | (sum >> size * 8 ? flag : 0));
    return i + 1;
}
static const struct insn *adcx(struct vcpu *v, const struct insn *i)
{
    return add_with(v, i, FLAG_CF);
}
static const struct insn *adox(struct vcpu *v, const struct insn *i)
{
    return add_with(v, i, FLAG_OF);
}

#define ROW_ANY(M, FN)                                                                                                 \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .reg = FN, .mem = FN                                                           \
    }
#define ROW_BIND(M, BIND)                                                                                              \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .bind = BIND                                                                   \
    }
#define CONDITION_ROWS(PREFIX, BIND)                                                                                   \
    ROW_BIND(PREFIX##O, BIND), ROW_BIND(PREFIX##NO, BIND), ROW_BIND(PREFIX##B, BIND), ROW_BIND(PREFIX##NB, BIND),      \
        ROW_BIND(PREFIX##Z, BIND), ROW_BIND(PREFIX##NZ, BIND), ROW_BIND(PREFIX##BE, BIND),                             \
        ROW_BIND(PREFIX##NBE, BIND), ROW_BIND(PREFIX##S, BIND), ROW_BIND(PREFIX##NS, BIND), ROW_BIND(PREFIX##P, BIND), \
        ROW_BIND(PREFIX##NP, BIND), ROW_BIND(PREFIX##L, BIND), ROW_BIND(PREFIX##NL, BIND), ROW_BIND(PREFIX##LE, BIND), \
        ROW_BIND(PREFIX##NLE, BIND)

const struct insn_row interpret_rows_bits[] = {
    CONDITION_ROWS(SET, bind_setcc),
    CONDITION_ROWS(CMOV, bind_cmov),
    ROW_ANY(BT, bt),
    ROW_ANY(BTS, bts),
    ROW_ANY(BTR, btr),
    ROW_ANY(BTC, btc),
    ROW_ANY(BSF, bsf),
    ROW_ANY(BSR, bsr),
    ROW_ANY(TZCNT, tzcnt),
    ROW_ANY(LZCNT, lzcnt),
    ROW_ANY(POPCNT, popcnt),
    ROW_ANY(BSWAP, bswap),
    ROW_BIND(MOVBE, bind_movbe),
    ROW_ANY(ANDN, andn),
    ROW_ANY(BLSI, blsi),
    ROW_ANY(BLSMSK, blsmsk),
    ROW_ANY(BLSR, blsr),
    ROW_ANY(BEXTR, bextr),
    ROW_ANY(BZHI, bzhi),
    ROW_ANY(PDEP, pdep),
    ROW_ANY(PEXT, pext),
    ROW_ANY(MULX, mulx),
    ROW_ANY(RORX, rorx),
    ROW_ANY(SHLX, shlx),
    ROW_ANY(SHRX, shrx),
    ROW_ANY(SARX, sarx),
    ROW_ANY(ADCX, adcx),
    ROW_ANY(ADOX, adox),
    {0},
};
