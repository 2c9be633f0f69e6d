// SPDX-License-Identifier: GPL-2.0-or-later
// Moves, arithmetic and logic on general registers and memory (SDM vol. 2).
//
// Handlers are made per operand size and form: rr, ri (register, immediate), rm (register from memory), mr, mi
// (memory). In rr forms rm_offset is the destination and reg_offset the source, whichever way the opcode has them.
#include "core/cpu/interpret/flags.h"
#include "core/cpu/interpret/interpret.h"

#define SIZES(M, ...) M(8, __VA_ARGS__) M(16, __VA_ARGS__) M(32, __VA_ARGS__) M(64, __VA_ARGS__)
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

static unsigned size_index(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

// ---- Two-operand arithmetic: OP(v, a, b) gives the result and sets the flags
// ---------------------------------------------

#define DEFINE_OPS(N, unused)                                                                                          \
    static inline u##N op_add##N(struct vcpu *v, u##N a, u##N b)                                                       \
    {                                                                                                                  \
        u##N r = (u##N)(a + b);                                                                                        \
        flags_add(v, a, b, r, N);                                                                                      \
        return r;                                                                                                      \
    }                                                                                                                  \
    static inline u##N op_adc##N(struct vcpu *v, u##N a, u##N b)                                                       \
    {                                                                                                                  \
        u##N r = (u##N)(a + b + flag_cf(v));                                                                           \
        flags_add(v, a, b, r, N);                                                                                      \
        return r;                                                                                                      \
    }                                                                                                                  \
    static inline u##N op_sub##N(struct vcpu *v, u##N a, u##N b)                                                       \
    {                                                                                                                  \
        u##N r = (u##N)(a - b);                                                                                        \
        flags_sub(v, a, b, r, N);                                                                                      \
        return r;                                                                                                      \
    }                                                                                                                  \
    static inline u##N op_sbb##N(struct vcpu *v, u##N a, u##N b)                                                       \
    {                                                                                                                  \
        u##N r = (u##N)(a - b - flag_cf(v));                                                                           \
        flags_sub(v, a, b, r, N);                                                                                      \
        return r;                                                                                                      \
    }                                                                                                                  \
    static inline u##N op_and##N(struct vcpu *v, u##N a, u##N b)                                                       \
    {                                                                                                                  \
        flags_logic(v, a &b, N);                                                                                       \
        return a & b;                                                                                                  \
    }                                                                                                                  \
    static inline u##N op_or##N(struct vcpu *v, u##N a, u##N b)                                                        \
    {                                                                                                                  \
        flags_logic(v, a | b, N);                                                                                      \
        return a | b;                                                                                                  \
    }                                                                                                                  \
    static inline u##N op_xor##N(struct vcpu *v, u##N a, u##N b)                                                       \
    {                                                                                                                  \
        flags_logic(v, a ^ b, N);                                                                                      \
        return a ^ b;                                                                                                  \
    }                                                                                                                  \
    static inline u##N op_mov##N(struct vcpu *v, u##N a, u##N b)                                                       \
    {                                                                                                                  \
        return b;                                                                                                      \
    }
SIZES(DEFINE_OPS, 0)

// Applies OP to memory. The flags of a locked retry come from the last try, so they are put back first.
#define RMW(N, OP, SOURCE)                                                                                             \
    u64 linear;                                                                                                        \
    struct rmw rmw;                                                                                                    \
    if (!insn_linear(v, i, N / 8, ACCESS_WRITE, &linear))                                                              \
        return NULL;                                                                                                   \
    u##N *p = rmw_begin(v, linear, N / 8, i->lock, &rmw);                                                              \
    if (!p)                                                                                                            \
        return NULL;                                                                                                   \
    u##N b = (SOURCE);                                                                                                 \
    if (i->lock) {                                                                                                     \
        u64 result = v->flags_result, aux = v->flags_aux;                                                              \
        u##N old = __atomic_load_n(p, __ATOMIC_RELAXED), new;                                                          \
        do {                                                                                                           \
            v->flags_result = result;                                                                                  \
            v->flags_aux = aux;                                                                                        \
            new = OP(v, old, b);                                                                                       \
        } while (!__atomic_compare_exchange_n(p, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));               \
    } else {                                                                                                           \
        *p = OP(v, *p, b);                                                                                             \
    }                                                                                                                  \
    rmw_end(v, &rmw);                                                                                                  \
    return i + 1;

#define DEFINE_ALU(N, NAME)                                                                                            \
    static const struct insn *NAME##N##_rr(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        slot_set_u##N(v, i->rm_offset, op_##NAME##N(v, slot_u##N(v, i->rm_offset), slot_u##N(v, i->reg_offset)));      \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *NAME##N##_ri(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        slot_set_u##N(v, i->rm_offset, op_##NAME##N(v, slot_u##N(v, i->rm_offset), (u##N)i->imm));                     \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *NAME##N##_rm(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        u##N b;                                                                                                        \
        if (!insn_load(v, i, &b, N / 8))                                                                               \
            return NULL;                                                                                               \
        slot_set_u##N(v, i->reg_offset, op_##NAME##N(v, slot_u##N(v, i->reg_offset), b));                              \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *NAME##N##_mr(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        RMW(N, op_##NAME##N, slot_u##N(v, i->reg_offset))                                                              \
    }                                                                                                                  \
    static const struct insn *NAME##N##_mi(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        RMW(N, op_##NAME##N, (u##N)i->imm)                                                                             \
    }
SIZES(DEFINE_ALU, add)
SIZES(DEFINE_ALU, adc)
SIZES(DEFINE_ALU, sub)
SIZES(DEFINE_ALU, sbb)
SIZES(DEFINE_ALU, and)
SIZES(DEFINE_ALU, or)
SIZES(DEFINE_ALU, xor)

// CMP and TEST: no result is written.
#define DEFINE_COMPARE(N, NAME, OP)                                                                                    \
    static const struct insn *NAME##N##_rr(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        op_##OP##N(v, slot_u##N(v, i->rm_offset), slot_u##N(v, i->reg_offset));                                        \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *NAME##N##_ri(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        op_##OP##N(v, slot_u##N(v, i->rm_offset), (u##N)i->imm);                                                       \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *NAME##N##_rm(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        u##N b;                                                                                                        \
        if (!insn_load(v, i, &b, N / 8))                                                                               \
            return NULL;                                                                                               \
        op_##OP##N(v, slot_u##N(v, i->reg_offset), b);                                                                 \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *NAME##N##_mr(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        u##N a;                                                                                                        \
        if (!insn_load(v, i, &a, N / 8))                                                                               \
            return NULL;                                                                                               \
        op_##OP##N(v, a, slot_u##N(v, i->reg_offset));                                                                 \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *NAME##N##_mi(struct vcpu *v, const struct insn *i)                                       \
    {                                                                                                                  \
        u##N a;                                                                                                        \
        if (!insn_load(v, i, &a, N / 8))                                                                               \
            return NULL;                                                                                               \
        op_##OP##N(v, a, (u##N)i->imm);                                                                                \
        return i + 1;                                                                                                  \
    }
SIZES(DEFINE_COMPARE, cmp, sub)
SIZES(DEFINE_COMPARE, test, and)

// MOV
#define DEFINE_MOV(N, unused)                                                                                          \
    static const struct insn *mov##N##_rr(struct vcpu *v, const struct insn *i)                                        \
    {                                                                                                                  \
        slot_set_u##N(v, i->rm_offset, slot_u##N(v, i->reg_offset));                                                   \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *mov##N##_ri(struct vcpu *v, const struct insn *i)                                        \
    {                                                                                                                  \
        slot_set_u##N(v, i->rm_offset, (u##N)i->imm);                                                                  \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *mov##N##_rm(struct vcpu *v, const struct insn *i)                                        \
    {                                                                                                                  \
        u##N value;                                                                                                    \
        if (!insn_load(v, i, &value, N / 8))                                                                           \
            return NULL;                                                                                               \
        slot_set_u##N(v, i->reg_offset, value);                                                                        \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *mov##N##_mr(struct vcpu *v, const struct insn *i)                                        \
    {                                                                                                                  \
        u##N value = slot_u##N(v, i->reg_offset);                                                                      \
        return insn_store(v, i, &value, N / 8) ? i + 1 : NULL;                                                         \
    }                                                                                                                  \
    static const struct insn *mov##N##_mi(struct vcpu *v, const struct insn *i)                                        \
    {                                                                                                                  \
        u##N value = (u##N)i->imm;                                                                                     \
        return insn_store(v, i, &value, N / 8) ? i + 1 : NULL;                                                         \
    }
SIZES(DEFINE_MOV, 0)

enum form { FORM_RR, FORM_RI, FORM_RM, FORM_MR, FORM_MI, FORMS };
#define FORM_ROW(NAME, N)                                                                                              \
    {                                                                                                                  \
        NAME##N##_rr, NAME##N##_ri, NAME##N##_rm, NAME##N##_mr, NAME##N##_mi                                           \
    }
#define SIZE_ROWS(NAME)                                                                                                \
    {                                                                                                                  \
        FORM_ROW(NAME, 8), FORM_ROW(NAME, 16), FORM_ROW(NAME, 32), FORM_ROW(NAME, 64)                                  \
    }

// The form of a two-operand instruction; for rr it puts the destination into rm_offset.
static enum form two_operand_form(const struct decoded *d, struct insn *i)
{
    const ZydisDecodedOperand *dst = &d->operands[0], *src = &d->operands[1];
    if (src->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return i->is_memory ? FORM_MI : FORM_RI; // accumulator forms have rm_offset 0, which is RAX
    if (dst->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return FORM_MR;
    if (src->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return FORM_RM;
    if (dst->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) {
        uint8_t t = i->rm_offset;
        i->rm_offset = i->reg_offset;
        i->reg_offset = t;
    }
    return FORM_RR;
}

#define BIND_TWO(NAME)                                                                                                 \
    static insn_handler *bind_##NAME(struct vcpu *v, const struct decoded *d, struct insn *i)                          \
    {                                                                                                                  \
        static insn_handler *const table[4][FORMS] = SIZE_ROWS(NAME);                                                  \
        return table[size_index(i->operand_size)][two_operand_form(d, i)];                                             \
    }
BIND_TWO(add)
BIND_TWO(adc)
BIND_TWO(sub)
BIND_TWO(sbb)
BIND_TWO(and)
BIND_TWO(or)
BIND_TWO(xor)
BIND_TWO(cmp)
BIND_TWO(test)

// MOV also has moffs forms (the register is the accumulator) and segment and control registers (system.c).
insn_handler *bind_mov_special(struct vcpu *v, const struct decoded *d, struct insn *i);
static insn_handler *bind_mov(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    static insn_handler *const table[4][FORMS] = SIZE_ROWS(mov);
    for (unsigned n = 0; n < 2; n++)
        if (d->operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            ZydisRegisterClass c = ZydisRegisterGetClass(d->operands[n].reg.value);
            if (c == ZYDIS_REGCLASS_SEGMENT || c == ZYDIS_REGCLASS_CONTROL || c == ZYDIS_REGCLASS_DEBUG)
                return bind_mov_special(v, d, i);
        }
    return table[size_index(i->operand_size)][two_operand_form(d, i)];
}

// ---- One operand ----------------------------------------------------------------------------------------------------

#define DEFINE_UNARY_OPS(N, unused)                                                                                    \
    static inline u##N op_inc##N(struct vcpu *v, u##N a, u##N b)                                                       \
    {                                                                                                                  \
        bool cf = flag_cf(v);                                                                                          \
        u##N r = (u##N)(a + 1);                                                                                        \
        flags_add(v, a, 1, r, N);                                                                                      \
        flags_set_cf_of(v, cf, r == (u##N)((u##N)1 << (N - 1)));                                                       \
        return r;                                                                                                      \
    }                                                                                                                  \
    static inline u##N op_dec##N(struct vcpu *v, u##N a, u##N b)                                                       \
    {                                                                                                                  \
        bool cf = flag_cf(v);                                                                                          \
        u##N r = (u##N)(a - 1);                                                                                        \
        flags_sub(v, a, 1, r, N);                                                                                      \
        flags_set_cf_of(v, cf, a == (u##N)((u##N)1 << (N - 1)));                                                       \
        return r;                                                                                                      \
    }                                                                                                                  \
    static inline u##N op_neg##N(struct vcpu *v, u##N a, u##N b)                                                       \
    {                                                                                                                  \
        u##N r = (u##N)(0 - a);                                                                                        \
        flags_sub(v, 0, a, r, N);                                                                                      \
        return r;                                                                                                      \
    }                                                                                                                  \
    static inline u##N op_not##N(struct vcpu *v, u##N a, u##N b)                                                       \
    {                                                                                                                  \
        return (u##N) ~a;                                                                                              \
    }
SIZES(DEFINE_UNARY_OPS, 0)

#define DEFINE_UNARY(N, NAME)                                                                                          \
    static const struct insn *NAME##N##_r(struct vcpu *v, const struct insn *i)                                        \
    {                                                                                                                  \
        slot_set_u##N(v, i->rm_offset, op_##NAME##N(v, slot_u##N(v, i->rm_offset), 0));                                \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *NAME##N##_m(struct vcpu *v, const struct insn *i)                                        \
    {                                                                                                                  \
        RMW(N, op_##NAME##N, 0)                                                                                        \
    }
SIZES(DEFINE_UNARY, inc)
SIZES(DEFINE_UNARY, dec)
SIZES(DEFINE_UNARY, neg)
SIZES(DEFINE_UNARY, not )

#define BIND_ONE(NAME)                                                                                                 \
    static insn_handler *bind_##NAME(struct vcpu *v, const struct decoded *d, struct insn *i)                          \
    {                                                                                                                  \
        static insn_handler *const table[4][2] = {                                                                     \
            {NAME##8_r, NAME##8_m}, {NAME##16_r, NAME##16_m}, {NAME##32_r, NAME##32_m}, {NAME##64_r, NAME##64_m}};     \
        return table[size_index(i->operand_size)][i->is_memory];                                                       \
    }
BIND_ONE(inc)
BIND_ONE(dec)
BIND_ONE(neg)
BIND_ONE(not )

// ---- Extending moves, LEA
// -----------------------------------------------------------------------------------------------

#define DEFINE_EXTEND(NAME, TO, FROM, TYPE)                                                                            \
    static const struct insn *NAME##_r(struct vcpu *v, const struct insn *i)                                           \
    {                                                                                                                  \
        slot_set_u##TO(v, i->reg_offset, (u##TO)(TYPE)slot_u##FROM(v, i->rm_offset));                                  \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *NAME##_m(struct vcpu *v, const struct insn *i)                                           \
    {                                                                                                                  \
        u##FROM value;                                                                                                 \
        if (!insn_load(v, i, &value, FROM / 8))                                                                        \
            return NULL;                                                                                               \
        slot_set_u##TO(v, i->reg_offset, (u##TO)(TYPE)value);                                                          \
        return i + 1;                                                                                                  \
    }
DEFINE_EXTEND(movzx16_8, 16, 8, u8)
DEFINE_EXTEND(movzx32_8, 32, 8, u8)
DEFINE_EXTEND(movzx64_8, 64, 8, u8)
DEFINE_EXTEND(movzx16_16, 16, 16, u16)
DEFINE_EXTEND(movzx32_16, 32, 16, u16)
DEFINE_EXTEND(movzx64_16, 64, 16, u16)
DEFINE_EXTEND(movsx16_8, 16, 8, s8)
DEFINE_EXTEND(movsx32_8, 32, 8, s8)
DEFINE_EXTEND(movsx64_8, 64, 8, s8)
DEFINE_EXTEND(movsx16_16, 16, 16, s16)
DEFINE_EXTEND(movsx32_16, 32, 16, s16)
DEFINE_EXTEND(movsx64_16, 64, 16, s16)
DEFINE_EXTEND(movsxd32_32, 32, 32, s32)
DEFINE_EXTEND(movsxd64_32, 64, 32, s32)

static insn_handler *bind_movzx(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    static insn_handler *const table[2][3][2] = {
        {{movzx16_8_r, movzx16_8_m}, {movzx32_8_r, movzx32_8_m}, {movzx64_8_r, movzx64_8_m}},
        {{movzx16_16_r, movzx16_16_m}, {movzx32_16_r, movzx32_16_m}, {movzx64_16_r, movzx64_16_m}}};
    return table[d->operands[1].size == 16][size_index(i->operand_size) - 1][i->is_memory];
}

static insn_handler *bind_movsx(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    static insn_handler *const table[2][3][2] = {
        {{movsx16_8_r, movsx16_8_m}, {movsx32_8_r, movsx32_8_m}, {movsx64_8_r, movsx64_8_m}},
        {{movsx16_16_r, movsx16_16_m}, {movsx32_16_r, movsx32_16_m}, {movsx64_16_r, movsx64_16_m}}};
    return table[d->operands[1].size == 16][size_index(i->operand_size) - 1][i->is_memory];
}

static insn_handler *bind_movsxd(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    if (i->operand_size == 2)
        return i->is_memory ? movsx16_16_m : movsx16_16_r;
    if (i->operand_size == 4)
        return i->is_memory ? movsxd32_32_m : movsxd32_32_r;
    return i->is_memory ? movsxd64_32_m : movsxd64_32_r;
}

static const struct insn *lea16(struct vcpu *v, const struct insn *i)
{
    slot_set_u16(v, i->reg_offset, (u16)insn_offset(v, i));
    return i + 1;
}
static const struct insn *lea32(struct vcpu *v, const struct insn *i)
{
    slot_set_u32(v, i->reg_offset, (u32)insn_offset(v, i));
    return i + 1;
}
static const struct insn *lea64(struct vcpu *v, const struct insn *i)
{
    slot_set_u64(v, i->reg_offset, insn_offset(v, i));
    return i + 1;
}
static insn_handler *bind_lea(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    if (!i->is_memory)
        return NULL;
    return i->operand_size == 2 ? lea16 : i->operand_size == 4 ? lea32 : lea64;
}

static const struct insn *nop(struct vcpu *v, const struct insn *i)
{
    return i + 1;
}

// ---- Exchange -------------------------------------------------------------------------------------------------------

#define DEFINE_EXCHANGE(N, unused)                                                                                     \
    static const struct insn *xchg##N##_r(struct vcpu *v, const struct insn *i)                                        \
    {                                                                                                                  \
        u##N a = slot_u##N(v, i->rm_offset), b = slot_u##N(v, i->reg_offset);                                          \
        slot_set_u##N(v, i->rm_offset, b);                                                                             \
        slot_set_u##N(v, i->reg_offset, a);                                                                            \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *xchg##N##_m(struct vcpu *v, const struct insn *i)                                        \
    {                                                                                                                  \
        u64 linear;                                                                                                    \
        struct rmw rmw;                                                                                                \
        if (!insn_linear(v, i, N / 8, ACCESS_WRITE, &linear))                                                          \
            return NULL;                                                                                               \
        u##N *p = rmw_begin(v, linear, N / 8, true, &rmw);                                                             \
        if (!p)                                                                                                        \
            return NULL;                                                                                               \
        u##N old = __atomic_exchange_n(p, slot_u##N(v, i->reg_offset), __ATOMIC_SEQ_CST);                              \
        rmw_end(v, &rmw);                                                                                              \
        slot_set_u##N(v, i->reg_offset, old);                                                                          \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *xadd##N##_r(struct vcpu *v, const struct insn *i)                                        \
    {                                                                                                                  \
        u##N a = slot_u##N(v, i->rm_offset), b = slot_u##N(v, i->reg_offset);                                          \
        u##N sum = op_add##N(v, a, b);                                                                                 \
        slot_set_u##N(v, i->reg_offset, a);                                                                            \
        slot_set_u##N(v, i->rm_offset, sum);                                                                           \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *xadd##N##_m(struct vcpu *v, const struct insn *i)                                        \
    {                                                                                                                  \
        u64 linear;                                                                                                    \
        struct rmw rmw;                                                                                                \
        if (!insn_linear(v, i, N / 8, ACCESS_WRITE, &linear))                                                          \
            return NULL;                                                                                               \
        u##N *p = rmw_begin(v, linear, N / 8, i->lock, &rmw);                                                          \
        if (!p)                                                                                                        \
            return NULL;                                                                                               \
        u##N b = slot_u##N(v, i->reg_offset), old;                                                                     \
        if (i->lock) {                                                                                                 \
            old = __atomic_fetch_add(p, b, __ATOMIC_SEQ_CST);                                                          \
        } else {                                                                                                       \
            old = *p;                                                                                                  \
            *p = (u##N)(old + b);                                                                                      \
        }                                                                                                              \
        rmw_end(v, &rmw);                                                                                              \
        op_add##N(v, old, b);                                                                                          \
        slot_set_u##N(v, i->reg_offset, old);                                                                          \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *cmpxchg##N##_r(struct vcpu *v, const struct insn *i)                                     \
    {                                                                                                                  \
        u##N a = slot_u##N(v, VCPU_OFFSET(gpr[RAX])), old = slot_u##N(v, i->rm_offset);                                \
        op_sub##N(v, a, old);                                                                                          \
        if (a == old)                                                                                                  \
            slot_set_u##N(v, i->rm_offset, slot_u##N(v, i->reg_offset));                                               \
        else                                                                                                           \
            slot_set_u##N(v, VCPU_OFFSET(gpr[RAX]), old);                                                              \
        return i + 1;                                                                                                  \
    }                                                                                                                  \
    static const struct insn *cmpxchg##N##_m(struct vcpu *v, const struct insn *i)                                     \
    {                                                                                                                  \
        u64 linear;                                                                                                    \
        struct rmw rmw;                                                                                                \
        if (!insn_linear(v, i, N / 8, ACCESS_WRITE, &linear))                                                          \
            return NULL;                                                                                               \
        u##N *p = rmw_begin(v, linear, N / 8, i->lock, &rmw);                                                          \
        if (!p)                                                                                                        \
            return NULL;                                                                                               \
        u##N a = slot_u##N(v, VCPU_OFFSET(gpr[RAX])), old = a, new = slot_u##N(v, i->reg_offset);                      \
        if (i->lock) {                                                                                                 \
            __atomic_compare_exchange_n(p, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                      \
        } else {                                                                                                       \
            old = *p;                                                                                                  \
            if (old == a)                                                                                              \
                *p = new;                                                                                              \
        }                                                                                                              \
        rmw_end(v, &rmw);                                                                                              \
        op_sub##N(v, a, old);                                                                                          \
        if (a != old)                                                                                                  \
            slot_set_u##N(v, VCPU_OFFSET(gpr[RAX]), old);                                                              \
        return i + 1;                                                                                                  \
    }
SIZES(DEFINE_EXCHANGE, 0)

BIND_ONE(xadd)
BIND_ONE(cmpxchg)
static insn_handler *bind_xchg(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    static insn_handler *const table[4][2] = {
        {xchg8_r, xchg8_m}, {xchg16_r, xchg16_m}, {xchg32_r, xchg32_m}, {xchg64_r, xchg64_m}};
    return table[size_index(i->operand_size)][i->is_memory]; // short forms: reg_offset 0 is the accumulator
}

static const struct insn *cmpxchg8b(struct vcpu *v, const struct insn *i)
{
    u64 linear;
    struct rmw rmw;
    if (!insn_linear(v, i, 8, ACCESS_WRITE, &linear))
        return NULL;
    u64 *p = rmw_begin(v, linear, 8, i->lock, &rmw);
    if (!p)
        return NULL;
    u64 expected = v->gpr[RDX] << 32 | (u32)v->gpr[RAX], old = expected;
    u64 new = v->gpr[RCX] << 32 | (u32)v->gpr[RBX];
    bool equal = __atomic_compare_exchange_n(p, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    rmw_end(v, &rmw);
    if (!equal) {
        v->gpr[RAX] = (u32)old;
        v->gpr[RDX] = old >> 32;
    }
    flags_set(v, (flags_get(v) & ~(u64)FLAG_ZF) | (equal ? FLAG_ZF : 0));
    return i + 1;
}

static const struct insn *cmpxchg16b(struct vcpu *v, const struct insn *i)
{
    u64 linear;
    struct rmw rmw;
    if (!insn_linear(v, i, 16, ACCESS_WRITE, &linear))
        return NULL;
    if (linear & 15)
        return insn_fault(v, EXCEPTION_GP, 0);
    unsigned __int128 *p = rmw_begin(v, linear, 16, i->lock, &rmw);
    if (!p)
        return NULL;
    unsigned __int128 expected = (unsigned __int128)v->gpr[RDX] << 64 | v->gpr[RAX];
    unsigned __int128 new = (unsigned __int128)v->gpr[RCX] << 64 | v->gpr[RBX];
    unsigned __int128 old = __sync_val_compare_and_swap(p, expected, new);
    rmw_end(v, &rmw);
    bool equal = old == expected;
    if (!equal) {
        v->gpr[RAX] = (u64)old;
        v->gpr[RDX] = (u64)(old >> 64);
    }
    flags_set(v, (flags_get(v) & ~(u64)FLAG_ZF) | (equal ? FLAG_ZF : 0));
    return i + 1;
}

// ---- Flags as such
// ----------------------------------------------------------------------------------------------------

static const struct insn *change_flags(struct vcpu *v, const struct insn *i, u64 set, u64 clear)
{
    flags_set(v, (flags_get(v) & ~clear) | set);
    return i + 1;
}
static const struct insn *clc(struct vcpu *v, const struct insn *i)
{
    return change_flags(v, i, 0, FLAG_CF);
}
static const struct insn *stc(struct vcpu *v, const struct insn *i)
{
    return change_flags(v, i, FLAG_CF, 0);
}
static const struct insn *cmc(struct vcpu *v, const struct insn *i)
{
    return flag_cf(v) ? clc(v, i) : stc(v, i);
}
static const struct insn *cld(struct vcpu *v, const struct insn *i)
{
    v->rflags &= ~(u64)FLAG_DF;
    return i + 1;
}
static const struct insn *std_(struct vcpu *v, const struct insn *i)
{
    v->rflags |= FLAG_DF;
    return i + 1;
}
static const struct insn *lahf(struct vcpu *v, const struct insn *i)
{
    slot_set_u8(v, VCPU_OFFSET(gpr[RAX]) + 1, (u8)(flags_get(v) | FLAG_1));
    return i + 1;
}
static const struct insn *sahf(struct vcpu *v, const struct insn *i)
{
    u8 ah = slot_u8(v, VCPU_OFFSET(gpr[RAX]) + 1);
    return change_flags(v, i, ah & (FLAGS_STATUS & 0xff), FLAGS_STATUS & 0xff);
}
static const struct insn *salc(struct vcpu *v, const struct insn *i)
{
    slot_set_u8(v, VCPU_OFFSET(gpr[RAX]), flag_cf(v) ? 0xff : 0);
    return i + 1;
}

// ---- Sign extension of the accumulator
// -----------------------------------------------------------------------------------

static const struct insn *cbw(struct vcpu *v, const struct insn *i)
{
    slot_set_u16(v, 0, (u16)(s8)v->gpr[RAX]);
    return i + 1;
}
static const struct insn *cwde(struct vcpu *v, const struct insn *i)
{
    slot_set_u32(v, 0, (u32)(s16)v->gpr[RAX]);
    return i + 1;
}
static const struct insn *cdqe(struct vcpu *v, const struct insn *i)
{
    v->gpr[RAX] = (u64)(s32)v->gpr[RAX];
    return i + 1;
}
static const struct insn *cwd(struct vcpu *v, const struct insn *i)
{
    slot_set_u16(v, VCPU_OFFSET(gpr[RDX]), (s16)v->gpr[RAX] < 0 ? 0xffff : 0);
    return i + 1;
}
static const struct insn *cdq(struct vcpu *v, const struct insn *i)
{
    v->gpr[RDX] = (s32)v->gpr[RAX] < 0 ? 0xffffffff : 0;
    return i + 1;
}
static const struct insn *cqo(struct vcpu *v, const struct insn *i)
{
    v->gpr[RDX] = (s64)v->gpr[RAX] < 0 ? ~0ull : 0;
    return i + 1;
}

#define ROW_BIND(M, BIND)                                                                                              \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .bind = BIND                                                                   \
    }
#define ROW_REG(M, FN)                                                                                                 \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .reg = FN                                                                      \
    }

const struct insn_row interpret_rows_integer[] = {
    ROW_BIND(ADD, bind_add),
    ROW_BIND(ADC, bind_adc),
    ROW_BIND(SUB, bind_sub),
    ROW_BIND(SBB, bind_sbb),
    ROW_BIND(AND, bind_and),
    ROW_BIND(OR, bind_or),
    ROW_BIND(XOR, bind_xor),
    ROW_BIND(CMP, bind_cmp),
    ROW_BIND(TEST, bind_test),
    {.mnemonic = ZYDIS_MNEMONIC_MOV, .bind = bind_mov, .opcode_map = 1 + ZYDIS_OPCODE_MAP_DEFAULT},
    ROW_BIND(INC, bind_inc),
    ROW_BIND(DEC, bind_dec),
    ROW_BIND(NEG, bind_neg),
    ROW_BIND(NOT, bind_not),
    ROW_BIND(MOVZX, bind_movzx),
    ROW_BIND(MOVSX, bind_movsx),
    ROW_BIND(MOVSXD, bind_movsxd),
    ROW_BIND(LEA, bind_lea),
    ROW_BIND(XCHG, bind_xchg),
    ROW_BIND(XADD, bind_xadd),
    ROW_BIND(CMPXCHG, bind_cmpxchg),
    {.mnemonic = ZYDIS_MNEMONIC_CMPXCHG8B, .mem = cmpxchg8b},
    {.mnemonic = ZYDIS_MNEMONIC_CMPXCHG16B, .mem = cmpxchg16b},
    {.mnemonic = ZYDIS_MNEMONIC_NOP, .reg = nop, .mem = nop},
    {.mnemonic = ZYDIS_MNEMONIC_PREFETCHNTA, .mem = nop},
    {.mnemonic = ZYDIS_MNEMONIC_PREFETCHT0, .mem = nop},
    {.mnemonic = ZYDIS_MNEMONIC_PREFETCHT1, .mem = nop},
    {.mnemonic = ZYDIS_MNEMONIC_PREFETCHT2, .mem = nop},
    {.mnemonic = ZYDIS_MNEMONIC_PREFETCH, .mem = nop},
    {.mnemonic = ZYDIS_MNEMONIC_PREFETCHW, .mem = nop},
    {.mnemonic = ZYDIS_MNEMONIC_PREFETCHWT1, .mem = nop},
    ROW_REG(CLC, clc),
    ROW_REG(STC, stc),
    ROW_REG(CMC, cmc),
    ROW_REG(CLD, cld),
    ROW_REG(STD, std_),
    ROW_REG(LAHF, lahf),
    ROW_REG(SAHF, sahf),
    ROW_REG(SALC, salc),
    ROW_REG(CBW, cbw),
    ROW_REG(CWDE, cwde),
    ROW_REG(CDQE, cdqe),
    ROW_REG(CWD, cwd),
    ROW_REG(CDQ, cdq),
    ROW_REG(CQO, cqo),
    {0},
};
