// SPDX-License-Identifier: GPL-2.0-or-later
// Moves between vector registers, memory and general registers; extracts, inserts, masks and tests (SDM vol. 2).
#include "core/cpu/interpret/flags.h"
#include "core/cpu/interpret/vector.h"

// ---- Whole vectors ------------------------------------------------------------------------------------------------

static unsigned whole(const struct insn *i)
{
    return i->vex ? i->vector_length : 16;
}

static const struct insn *run_load(struct vcpu *v, const struct insn *i)
{
    union vector x;
    if (!vector_source(v, i, &x, whole(i), true))
        return NULL;
    vector_write(v, i, i->reg, &x);
    return i + 1;
}

static const struct insn *run_load_aligned(struct vcpu *v, const struct insn *i)
{
    union vector x = {0};
    if (!i->is_memory)
        return run_load(v, i);
    if (!insn_load_aligned(v, i, &x, whole(i), whole(i)))
        return NULL;
    vector_write(v, i, i->reg, &x);
    return i + 1;
}

static const struct insn *run_store(struct vcpu *v, const struct insn *i)
{
    union vector x;
    vector_read(v, i, i->reg, &x);
    if (i->is_memory)
        return insn_store(v, i, &x, whole(i)) ? i + 1 : NULL;
    vector_write(v, i, i->rm, &x);
    return i + 1;
}

static const struct insn *run_store_aligned(struct vcpu *v, const struct insn *i)
{
    union vector x;
    if (!i->is_memory)
        return run_store(v, i);
    vector_read(v, i, i->reg, &x);
    return insn_store_aligned(v, i, &x, whole(i), whole(i)) ? i + 1 : NULL;
}

// The opcodes that store: MOVUPS 11, MOVAPS 29, MOVDQA and MOVDQU 7F, MOVNTPS 2B, MOVNTDQ E7.
static bool is_store(const struct decoded *d)
{
    uint8_t opcode = d->zydis.opcode;
    return opcode == 0x11 || opcode == 0x29 || opcode == 0x7f || opcode == 0x2b || opcode == 0xe7;
}

static insn_handler *bind_move(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    return is_store(d) ? run_store : run_load;
}

static insn_handler *bind_move_aligned(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    return is_store(d) ? run_store_aligned : run_load_aligned;
}

// ---- Scalars and halves -------------------------------------------------------------------------------------------

// MOVSS, MOVSD: from memory the rest is zeroed, between registers it is kept or comes from VEX.vvvv.
static inline const struct insn *move_scalar(struct vcpu *v, const struct insn *i, unsigned size)
{
    union vector x, y = {0};
    bool store = i->opcode == 0x11;

    if (i->is_memory && store)
        return insn_store(v, i, &v->xsave.xmm[i->reg & 15], size) ? i + 1 : NULL;
    if (i->is_memory) {
        if (!insn_load(v, i, &y, size))
            return NULL;
        vector_write(v, i, i->reg, &y);
        return i + 1;
    }
    unsigned to = store ? i->rm : i->reg, from = store ? i->reg : i->rm;
    xmm_read(v, i->vex ? i->vvvv : to, &x);
    memcpy(&x, &v->xsave.xmm[from & 15], size);
    vector_write(v, i, to, &x);
    return i + 1;
}

static const struct insn *run_movss(struct vcpu *v, const struct insn *i)
{
    return move_scalar(v, i, 4);
}

static const struct insn *run_movsd(struct vcpu *v, const struct insn *i)
{
    return move_scalar(v, i, 8);
}

// MOVLPS, MOVLPD (13 stores) and MOVHPS, MOVHPD (17 stores).
static const struct insn *run_half(struct vcpu *v, const struct insn *i)
{
    unsigned half = i->opcode >= 0x16;
    union vector x;
    if (i->opcode & 1)
        return insn_store(v, i, &v->xsave.xmm[i->reg & 15].u64[half], 8) ? i + 1 : NULL;
    xmm_read(v, i->vex ? i->vvvv : i->reg, &x);
    if (!insn_load(v, i, &x.u64[half], 8))
        return NULL;
    vector_write(v, i, i->reg, &x);
    return i + 1;
}

static void high_to_low(struct vector_call *c) // MOVHLPS
{
    c->d.u64[0] = c->b.u64[1];
}

static void low_to_high(struct vector_call *c) // MOVLHPS
{
    c->d.u64[1] = c->b.u64[0];
}

// MOVQ xmm, xmm/m64 (7E) and xmm/m64, xmm (D6)
static const struct insn *run_movq(struct vcpu *v, const struct insn *i)
{
    union vector x = {0};
    bool store = i->opcode == 0xd6;
    if (i->is_memory && store)
        return insn_store(v, i, &v->xsave.xmm[i->reg & 15], 8) ? i + 1 : NULL;
    if (!i->is_memory)
        x.u64[0] = v->xsave.xmm[(store ? i->reg : i->rm) & 15].u64[0];
    else if (!insn_load(v, i, &x, 8))
        return NULL;
    vector_write(v, i, store ? i->rm : i->reg, &x);
    return i + 1;
}

// MOVD and MOVQ between xmm and a general register or memory.
static const struct insn *run_from_general(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->vex_w ? 8 : 4;
    union vector x = {0};
    if (!i->is_memory)
        memcpy(&x, &v->gpr[i->rm & 15], size);
    else if (!insn_load(v, i, &x, size))
        return NULL;
    vector_write(v, i, i->reg, &x);
    return i + 1;
}

static const struct insn *run_to_general(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->vex_w ? 8 : 4;
    uint64_t x = v->xsave.xmm[i->reg & 15].u64[0];
    if (i->is_memory)
        return insn_store(v, i, &x, size) ? i + 1 : NULL;
    v->gpr[i->rm & 15] = i->vex_w ? x : (uint32_t)x;
    return i + 1;
}

static insn_handler *bind_movd_movq(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    bool mmx = false;
    for (unsigned k = 0; k < d->zydis.operand_count; k++)
        mmx |= d->operands[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
               ZydisRegisterGetClass(d->operands[k].reg.value) == ZYDIS_REGCLASS_MMX;
    if (mmx)
        return mmx_bind_move(d);
    if (d->zydis.opcode == 0x6e)
        return run_from_general;
    bool general = d->zydis.opcode == 0x7e && d->operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                   ZydisRegisterGetClass(d->operands[0].reg.value) != ZYDIS_REGCLASS_XMM;
    bool memory = d->zydis.opcode == 0x7e && d->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    return general || memory ? run_to_general : run_movq;
}

// ---- Single elements ----------------------------------------------------------------------------------------------

static inline unsigned element_size(const struct insn *i) // PEXTR, PINSR: 14 B, 15 W, 16 D/Q; 20 B, 22 D/Q; C4, C5 W
{
    switch (i->opcode) {
    case 0x14:
    case 0x20:
        return 1;
    case 0x15:
    case 0xc4:
    case 0xc5:
        return 2;
    default:
        return i->vex_w ? 8 : 4;
    }
}

static const struct insn *run_extract(struct vcpu *v, const struct insn *i)
{
    unsigned size = element_size(i), index = (unsigned)i->imm & (16 / size - 1);
    const uint8_t *from = v->xsave.xmm[(i->opcode == 0xc5 ? i->rm : i->reg) & 15].bytes + index * size;
    uint64_t x = 0;
    memcpy(&x, from, size);
    if (i->is_memory)
        return insn_store(v, i, &x, size) ? i + 1 : NULL;
    v->gpr[(i->opcode == 0xc5 ? i->reg : i->rm) & 15] = x;
    return i + 1;
}

static const struct insn *run_extractps(struct vcpu *v, const struct insn *i)
{
    uint32_t x = v->xsave.xmm[i->reg & 15].u32[i->imm & 3];
    if (i->is_memory)
        return insn_store(v, i, &x, 4) ? i + 1 : NULL;
    v->gpr[i->rm & 15] = x;
    return i + 1;
}

static const struct insn *run_insert(struct vcpu *v, const struct insn *i)
{
    unsigned size = element_size(i), index = (unsigned)i->imm & (16 / size - 1);
    uint64_t element = v->gpr[i->rm & 15];
    union vector x;
    if (i->is_memory && !insn_load(v, i, &element, size))
        return NULL;
    xmm_read(v, i->vex ? i->vvvv : i->reg, &x);
    memcpy(x.u8 + index * size, &element, size);
    vector_write(v, i, i->reg, &x);
    return i + 1;
}

static const struct insn *run_extract_mmx(struct vcpu *v, const struct insn *i) // PEXTRW r, mm, imm8
{
    if (!mmx_check(v))
        return NULL;
    mmx_enter(v);
    v->gpr[i->reg & 15] = mmx_read(v, i->rm) >> (i->imm & 3) * 16 & 0xffff;
    return i + 1;
}

static const struct insn *run_insert_mmx(struct vcpu *v, const struct insn *i) // PINSRW mm, r/m16, imm8
{
    uint64_t element = v->gpr[i->rm & 15];
    unsigned shift = (i->imm & 3) * 16;
    if (!mmx_check(v))
        return NULL;
    if (i->is_memory && !insn_load(v, i, &element, 2))
        return NULL;
    mmx_enter(v);
    mmx_write(v, i->reg, (mmx_read(v, i->reg) & ~(0xffffull << shift)) | (element & 0xffff) << shift);
    return i + 1;
}

static bool first_or_second_is_mmx(const struct decoded *d)
{
    for (unsigned k = 0; k < 2; k++)
        if (d->operands[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(d->operands[k].reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    return false;
}

static insn_handler *bind_extract_word(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    return first_or_second_is_mmx(d) ? run_extract_mmx : run_extract;
}

static insn_handler *bind_insert_word(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    return first_or_second_is_mmx(d) ? run_insert_mmx : run_insert;
}

// ---- Signs to a mask ----------------------------------------------------------------------------------------------

#define SIGNS(name, member, type)                                                                                      \
    static const struct insn *name(struct vcpu *v, const struct insn *i)                                               \
    {                                                                                                                  \
        union vector x;                                                                                                \
        uint32_t mask = 0;                                                                                             \
        vector_read(v, i, i->rm, &x);                                                                                  \
        for (unsigned k = 0; k < whole(i) / sizeof(type); k++)                                                         \
            mask |= (uint32_t)(x.member[k] < 0) << k;                                                                  \
        v->gpr[i->reg & 15] = mask;                                                                                    \
        return i + 1;                                                                                                  \
    }
SIGNS(run_signs8, s8, int8_t)
SIGNS(run_signs32, s32, int32_t)
SIGNS(run_signs64, s64, int64_t)

static const struct insn *run_signs_mmx(struct vcpu *v, const struct insn *i)
{
    if (!mmx_check(v))
        return NULL;
    mmx_enter(v);
    uint64_t x = mmx_read(v, i->rm);
    uint32_t mask = 0;
    for (unsigned k = 0; k < 8; k++)
        mask |= (uint32_t)(x >> (8 * k + 7) & 1) << k;
    v->gpr[i->reg & 15] = mask;
    return i + 1;
}

static insn_handler *bind_signs8(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    return first_or_second_is_mmx(d) ? run_signs_mmx : run_signs8;
}

// ---- PTEST, VTESTPS, VTESTPD --------------------------------------------------------------------------------------

static inline const struct insn *test_masked(struct vcpu *v, const struct insn *i, uint64_t mask)
{
    union vector x, y;
    uint64_t both = 0, only_second = 0;
    if (!vector_source(v, i, &y, whole(i), false))
        return NULL;
    vector_read(v, i, i->reg, &x);
    for (unsigned k = 0; k < whole(i) / 8; k++) {
        both |= x.u64[k] & y.u64[k] & mask;
        only_second |= ~x.u64[k] & y.u64[k] & mask;
    }
    flags_set(v, (both ? 0 : FLAG_ZF) | (only_second ? 0 : FLAG_CF));
    return i + 1;
}

static const struct insn *run_test(struct vcpu *v, const struct insn *i)
{
    return test_masked(v, i, ~0ull);
}

static const struct insn *run_test32(struct vcpu *v, const struct insn *i)
{
    return test_masked(v, i, 0x8000000080000000ull);
}

static const struct insn *run_test64(struct vcpu *v, const struct insn *i)
{
    return test_masked(v, i, 0x8000000000000000ull);
}

// ---- Masked stores ------------------------------------------------------------------------------------------------

bool masked_store(struct vcpu *v, uint64_t linear, const uint8_t *data, const uint8_t *mask, unsigned size,
                  unsigned element)
{
    bool checked = alignment_check_active(v); // vector accesses are exempt: byte by byte
    for (unsigned k = 0; k < size; k += element) {
        unsigned piece = checked ? 1 : element;
        for (unsigned j = k; j < k + element && mask[k + element - 1] & 0x80; j += piece)
            if (!linear_probe_write(v, linear + j, piece))
                return false;
    }
    for (unsigned k = 0; k < size; k += element) {
        unsigned piece = checked ? 1 : element;
        for (unsigned j = k; j < k + element && mask[k + element - 1] & 0x80; j += piece)
            if (!linear_store(v, linear + j, data + j, piece))
                return false;
    }
    return true;
}

static const struct insn *run_maskmovdqu(struct vcpu *v, const struct insn *i)
{
    union vector x, mask;
    uint64_t offset = v->gpr[RDI], linear;
    xmm_read(v, i->reg, &x);
    xmm_read(v, i->rm, &mask);
    offset = i->address_size == 8 ? offset : i->address_size == 4 ? (uint32_t)offset : (uint16_t)offset;
    if (!segment_linear(v, i, i->segment, offset, 16, ACCESS_WRITE, &linear))
        return NULL;
    return alignment_checked(v, linear, 8) && masked_store(v, linear, x.u8, mask.u8, 16, 1) ? i + 1 : NULL;
}

static const struct insn *run_movnti(struct vcpu *v, const struct insn *i)
{
    return insn_store(v, i, &v->gpr[i->reg & 15], i->vex_w ? 8 : 4) ? i + 1 : NULL;
}

// The store is one of 64 bytes at once: no other processor sees a part of it.
static bool store_at_once(struct vcpu *v, uint64_t linear, const uint8_t data[64])
{
    bool exclusive = v->set->count > 1 && linear_host_write(v, linear, 64);
    if (exclusive)
        vcpu_exclusive_begin(v);
    bool good = linear_store(v, linear, data, 64);
    if (exclusive)
        vcpu_exclusive_end(v);
    return good;
}

static const struct insn *run_movdir64b(struct vcpu *v, const struct insn *i)
{
    uint8_t data[64];
    uint64_t offset = v->gpr[i->reg & 15], linear;
    offset = i->address_size == 8 ? offset : i->address_size == 4 ? (uint32_t)offset : (uint16_t)offset;
    if (!segment_linear(v, i, ES, offset, 64, ACCESS_WRITE, &linear))
        return NULL;
    if (!insn_load(v, i, data, 64))
        return NULL;
    if (linear & 63 || (i->code_size == 8 && !vcpu_canonical(linear)))
        return insn_fault(v, EXCEPTION_GP, 0);
    return store_at_once(v, linear, data) ? i + 1 : NULL;
}

#define MOVE(name, bind_function)                                                                                      \
    {.mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = GATE_SSE, .bind = bind_function},                \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_V##name, .class = CLASS_PLAIN, .gate = GATE_AVX, .bind = bind_function              \
    }
#define FORMS(name, register_form, memory_form)                                                                        \
    {.mnemonic = ZYDIS_MNEMONIC_##name,                                                                                \
     .class = CLASS_PLAIN,                                                                                             \
     .gate = GATE_SSE,                                                                                                 \
     .reg = register_form,                                                                                             \
     .mem = memory_form},                                                                                              \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_V##name, .class = CLASS_PLAIN, .gate = GATE_AVX, .reg = register_form,              \
        .mem = memory_form                                                                                             \
    }
#define BOUND(name, gate_, bind_function)                                                                              \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = gate_, .bind = bind_function                  \
    }

const struct insn_row interpret_rows_move[] = {
    MOVE(MOVAPS, bind_move_aligned),
    MOVE(MOVAPD, bind_move_aligned),
    MOVE(MOVDQA, bind_move_aligned),
    MOVE(MOVNTPS, bind_move_aligned),
    MOVE(MOVNTPD, bind_move_aligned),
    MOVE(MOVNTDQ, bind_move_aligned),
    MOVE(MOVNTDQA, bind_move_aligned),
    MOVE(MOVUPS, bind_move),
    MOVE(MOVUPD, bind_move),
    MOVE(MOVDQU, bind_move),
    MOVE(LDDQU, bind_move),
    {.mnemonic = ZYDIS_MNEMONIC_MOVSD,
     .class = CLASS_PLAIN,
     .gate = GATE_SSE,
     .reg = run_movsd,
     .mem = run_movsd,
     .opcode_map = 1 + ZYDIS_OPCODE_MAP_0F},
    {.mnemonic = ZYDIS_MNEMONIC_VMOVSD, .class = CLASS_PLAIN, .gate = GATE_AVX, .reg = run_movsd, .mem = run_movsd},
    FORMS(MOVSS, run_movss, run_movss),
    FORMS(MOVLPS, NULL, run_half),
    FORMS(MOVLPD, NULL, run_half),
    FORMS(MOVHPS, NULL, run_half),
    FORMS(MOVHPD, NULL, run_half),
    VECTOR(MOVHLPS, high_to_low),
    VECTOR(MOVLHPS, low_to_high),
    BOUND(MOVD, GATE_VECTOR, bind_movd_movq),
    BOUND(MOVQ, GATE_VECTOR, bind_movd_movq),
    BOUND(VMOVD, GATE_AVX, bind_movd_movq),
    BOUND(VMOVQ, GATE_AVX, bind_movd_movq),
    FORMS(PEXTRB, run_extract, run_extract),
    FORMS(PEXTRD, run_extract, run_extract),
    FORMS(PEXTRQ, run_extract, run_extract),
    FORMS(EXTRACTPS, run_extractps, run_extractps),
    FORMS(PINSRB, run_insert, run_insert),
    FORMS(PINSRD, run_insert, run_insert),
    FORMS(PINSRQ, run_insert, run_insert),
    BOUND(PEXTRW, GATE_VECTOR, bind_extract_word),
    BOUND(VPEXTRW, GATE_AVX, bind_extract_word),
    BOUND(PINSRW, GATE_VECTOR, bind_insert_word),
    BOUND(VPINSRW, GATE_AVX, bind_insert_word),
    BOUND(PMOVMSKB, GATE_VECTOR, bind_signs8),
    BOUND(VPMOVMSKB, GATE_AVX, bind_signs8),
    FORMS(MOVMSKPS, run_signs32, NULL),
    FORMS(MOVMSKPD, run_signs64, NULL),
    FORMS(PTEST, run_test, run_test),
    {.mnemonic = ZYDIS_MNEMONIC_VTESTPS, .gate = GATE_AVX, .reg = run_test32, .mem = run_test32},
    {.mnemonic = ZYDIS_MNEMONIC_VTESTPD, .gate = GATE_AVX, .reg = run_test64, .mem = run_test64},
    {.mnemonic = ZYDIS_MNEMONIC_MASKMOVDQU, .class = CLASS_MEMORY, .gate = GATE_SSE, .reg = run_maskmovdqu},
    {.mnemonic = ZYDIS_MNEMONIC_VMASKMOVDQU, .class = CLASS_MEMORY, .gate = GATE_AVX, .reg = run_maskmovdqu},
    {.mnemonic = ZYDIS_MNEMONIC_MOVNTI, .class = CLASS_PLAIN, .gate = GATE_NONE, .mem = run_movnti},
    {.mnemonic = ZYDIS_MNEMONIC_MOVDIRI, .class = CLASS_PLAIN, .gate = GATE_NONE, .mem = run_movnti},
    {.mnemonic = ZYDIS_MNEMONIC_MOVDIR64B, .class = CLASS_MEMORY, .gate = GATE_NONE, .mem = run_movdir64b},
    VECTOR_END,
};
