// SPDX-License-Identifier: GPL-2.0-or-later
// MMX state and the moves that only it has (SDM vol. 1, chapter 9).
#include "core/cpu/interpret/vector.h"
#include "core/cpu/interpret/x87.h"

bool mmx_check(struct vcpu *v)
{
    return x87_check_pending(v);
}

void mmx_enter(struct vcpu *v)
{
    x87_rotate(v, 0);
    v->xsave.ftw = 0xff;
}

static const struct insn *run_emms(struct vcpu *v, const struct insn *i)
{
    if (!mmx_check(v))
        return NULL;
    x87_rotate(v, 0);
    v->xsave.ftw = 0;
    return i + 1;
}

// MOVQ mm, mm/m64 and MOVD/MOVQ mm, r/m.
static const struct insn *run_load(struct vcpu *v, const struct insn *i)
{
    uint64_t x = 0;
    if (!mmx_check(v))
        return NULL;
    if (!i->is_memory)
        x = mmx_read(v, i->rm);
    else if (!insn_load(v, i, &x, 8))
        return NULL;
    mmx_enter(v);
    mmx_write(v, i->reg, x);
    return i + 1;
}

static const struct insn *run_store(struct vcpu *v, const struct insn *i)
{
    if (!mmx_check(v))
        return NULL;
    x87_rotate(v, 0); // also when the store faults
    uint64_t x = mmx_read(v, i->reg);
    if (i->is_memory && !insn_store(v, i, &x, 8))
        return NULL;
    mmx_enter(v);
    if (!i->is_memory)
        mmx_write(v, i->rm, x);
    return i + 1;
}

static const struct insn *run_load_general(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->vex_w ? 8 : 4;
    uint64_t x = 0;
    if (!mmx_check(v))
        return NULL;
    if (!i->is_memory)
        x = slot_get(v, i->rm_offset, size);
    else if (!insn_load(v, i, &x, size))
        return NULL;
    mmx_enter(v);
    mmx_write(v, i->reg, x);
    return i + 1;
}

static const struct insn *run_store_general(struct vcpu *v, const struct insn *i)
{
    unsigned size = i->vex_w ? 8 : 4;
    if (!mmx_check(v))
        return NULL;
    x87_rotate(v, 0); // also when the store faults
    uint64_t x = mmx_read(v, i->reg);
    if (i->is_memory && !insn_store(v, i, &x, size))
        return NULL;
    mmx_enter(v);
    if (!i->is_memory)
        slot_set(v, i->rm_offset, size, x);
    return i + 1;
}

// MOVQ2DQ, MOVDQ2Q
static const struct insn *run_movq2dq(struct vcpu *v, const struct insn *i)
{
    if (!mmx_check(v))
        return NULL;
    mmx_enter(v);
    union vector x = {.u64 = {mmx_read(v, i->rm)}};
    xmm_write(v, i->reg, &x);
    return i + 1;
}

static const struct insn *run_movdq2q(struct vcpu *v, const struct insn *i)
{
    if (!mmx_check(v))
        return NULL;
    mmx_enter(v);
    mmx_write(v, i->reg, v->xsave.xmm[i->rm & 15].u64[0]);
    return i + 1;
}

// MASKMOVQ: bytes whose mask has its top bit set go to DS:rDI.
static const struct insn *run_maskmovq(struct vcpu *v, const struct insn *i)
{
    union vector x, mask;
    uint64_t linear;
    if (!mmx_check(v))
        return NULL;
    mmx_enter(v); // also when the store faults
    x.u64[0] = mmx_read(v, i->reg);
    mask.u64[0] = mmx_read(v, i->rm);
    uint64_t offset = v->gpr[RDI];
    offset = i->address_size == 8 ? offset : i->address_size == 4 ? (uint32_t)offset : (uint16_t)offset;
    if (!segment_linear(v, i, i->segment, offset, 8, ACCESS_WRITE, &linear))
        return NULL;
    return alignment_checked(v, linear, 8) && masked_store(v, linear, x.u8, mask.u8, 8, 1) ? i + 1 : NULL;
}

insn_handler *mmx_bind_move(const struct decoded *d)
{
    switch (d->zydis.opcode) {
    case 0x6f:
        return run_load;
    case 0x7f:
        return run_store;
    case 0x6e:
        return run_load_general;
    default:
        return run_store_general;
    }
}

#define MMX_ROW(name, register_form, memory_form)                                                                      \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = GATE_MMX, .reg = register_form,               \
        .mem = memory_form                                                                                             \
    }

const struct insn_row interpret_rows_mmx[] = {
    MMX_ROW(EMMS, run_emms, NULL),
    MMX_ROW(MOVNTQ, NULL, run_store),
    {.mnemonic = ZYDIS_MNEMONIC_MOVQ2DQ, .class = CLASS_PLAIN, .gate = GATE_VECTOR, .reg = run_movq2dq},
    {.mnemonic = ZYDIS_MNEMONIC_MOVDQ2Q, .class = CLASS_PLAIN, .gate = GATE_VECTOR, .reg = run_movdq2q},
    {.mnemonic = ZYDIS_MNEMONIC_MASKMOVQ, .class = CLASS_MEMORY, .gate = GATE_MMX, .reg = run_maskmovq},
    VECTOR_END,
};
