// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/cpu/translate/emit.h"

void emit_modrm_mem(struct emitter *e, unsigned reg, struct mem m)
{
    unsigned field = (reg & 7) << 3;
    if (m.base == NO_REG) { // absolute, or index only
        emit8(e, field | 4);
        emit8(e, (m.index == NO_REG ? 4 << 3 : (m.index & 7) << 3 | m.scale << 6) | 5);
        emit32(e, (uint32_t)m.disp);
        return;
    }
    bool sib = m.index != NO_REG || (m.base & 7) == 4;
    unsigned mod = m.disp == 0 && (m.base & 7) != 5 ? 0 : m.disp >= -128 && m.disp <= 127 ? 1 : 2;
    emit8(e, mod << 6 | field | (sib ? 4 : m.base & 7));
    if (sib)
        emit8(e, m.scale << 6 | (m.index == NO_REG ? 4 : m.index & 7) << 3 | (m.base & 7));
    if (mod == 1)
        emit8(e, (uint8_t)m.disp);
    else if (mod == 2)
        emit32(e, (uint32_t)m.disp);
}

void emit_modrm_long(struct emitter *e, unsigned reg, unsigned base, int32_t disp)
{
    bool none = disp == 0 && (base & 7) != 5;
    emit8(e, (none ? 0 : 0x80) | (reg & 7) << 3 | (base & 7));
    if ((base & 7) == 4)
        emit8(e, 4 << 3 | 4);
    if (!none)
        emit32(e, (uint32_t)disp);
}

static void emit_prefixes(struct emitter *e, unsigned flags, unsigned opcode, unsigned rex)
{
    if (flags & EMIT_LOCK)
        emit8(e, 0xf0);
    if (flags & EMIT_66)
        emit8(e, 0x66);
    if (flags & EMIT_F3)
        emit8(e, 0xf3);
    if (flags & EMIT_W)
        rex |= 8;
    if (rex || (flags & EMIT_BYTE))
        emit8(e, 0x40 | rex);
    if (opcode > 0xff)
        emit8(e, opcode >> 8);
    emit8(e, opcode & 0xff);
}

void emit_op_mem(struct emitter *e, unsigned flags, unsigned opcode, unsigned reg, struct mem m)
{
    unsigned rex = (reg >> 3 & 1) << 2;
    if (m.index != NO_REG)
        rex |= (m.index >> 3 & 1) << 1;
    if (m.base != NO_REG)
        rex |= m.base >> 3 & 1;
    if (m.gs)
        emit8(e, 0x65);
    emit_prefixes(e, flags, opcode, rex);
    emit_modrm_mem(e, reg, m);
}

void emit_op_reg(struct emitter *e, unsigned flags, unsigned opcode, unsigned reg, unsigned rm)
{
    emit_prefixes(e, flags, opcode, (reg >> 3 & 1) << 2 | (rm >> 3 & 1));
    emit8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

void emit_mov_imm(struct emitter *e, unsigned reg, uint64_t value)
{
    if (value <= 0xffffffffu) {
        emit_prefixes(e, 0, 0xb8 | (reg & 7), reg >> 3 & 1);
        emit32(e, (uint32_t)value);
    } else if ((uint64_t)(int64_t)(int32_t)value == value) {
        emit_op_reg(e, EMIT_W, 0xc7, 0, reg);
        emit32(e, (uint32_t)value);
    } else {
        emit_prefixes(e, EMIT_W, 0xb8 | (reg & 7), reg >> 3 & 1);
        emit64(e, value);
    }
}

void emit_nop(struct emitter *e, unsigned bytes)
{
    static const uint8_t nops[9][9] = {{0x90},
                                       {0x66, 0x90},
                                       {0x0f, 0x1f, 0},
                                       {0x0f, 0x1f, 0x40, 0},
                                       {0x0f, 0x1f, 0x44, 0, 0},
                                       {0x66, 0x0f, 0x1f, 0x44, 0, 0},
                                       {0x0f, 0x1f, 0x80, 0, 0, 0, 0},
                                       {0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0},
                                       {0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0}};
    while (bytes) {
        unsigned n = MIN(bytes, 9u);
        emit_bytes(e, nops[n - 1], n);
        bytes -= n;
    }
}

static void emit_rel32(struct emitter *e, const void *target)
{
    emit32(e, (uint32_t)((const uint8_t *)target - (emit_here(e) + 4)));
}

void emit_jmp(struct emitter *e, const void *target)
{
    emit8(e, 0xe9);
    reloc_note(e, RELOC_OUT);
    emit_rel32(e, target);
}

void emit_jcc(struct emitter *e, unsigned condition, const void *target)
{
    emit8(e, 0x0f);
    emit8(e, 0x80 | condition);
    reloc_note(e, RELOC_OUT);
    emit_rel32(e, target);
}

uint8_t *emit_jmp_forward(struct emitter *e)
{
    emit8(e, 0xe9);
    emit32(e, 0);
    return e->at - 4;
}

uint8_t *emit_jcc_forward(struct emitter *e, unsigned condition)
{
    emit8(e, 0x0f);
    emit8(e, 0x80 | condition);
    emit32(e, 0);
    return e->at - 4;
}

void emit_patch(struct emitter *e, uint8_t *field)
{
    if (e->overflow)
        return;
    int32_t rel = (int32_t)(e->at - (field + 4));
    memcpy(field, &rel, 4);
}

void emit_align_field(struct emitter *e, unsigned skip)
{
    unsigned at = (uintptr_t)(emit_here(e) + skip) & 7;
    if (at > 4)
        emit_nop(e, 8 - at);
}

void emit_lea_code(struct emitter *e, unsigned reg, const void *target)
{
    emit8(e, 0x48 | (reg >> 3 & 1) << 2);
    emit8(e, 0x8d);
    emit8(e, (reg & 7) << 3 | 5);
    emit_rel32(e, target);
}
