// SPDX-License-Identifier: GPL-2.0-or-later
// Writes host instructions into the code cache's writable mapping. (Intel SDM vol. 2, chapter 2)
#ifndef CLOCHE_TRANSLATE_EMIT_H
#define CLOCHE_TRANSLATE_EMIT_H

#include "core/cpu/translate/translate.h"

#include <string.h>

struct emitter {
    uint8_t *at; // writable address of the next byte
    uint8_t *end;
    ptrdiff_t shift; // executable - writable
    bool overflow;
    bool fixed;           // something cannot be relocated
    uint8_t *start;       // of the block
    struct reloc *relocs; // RELOCS_MAX of them, or NULL
    unsigned reloc_count;
};

static inline uint8_t *emit_here(const struct emitter *e) // executable address
{
    return e->at + e->shift;
}
static inline void emit_bytes(struct emitter *e, const void *bytes, unsigned n)
{
    if (G_UNLIKELY(e->at + n > e->end)) {
        e->overflow = true;
        return;
    }
    memcpy(e->at, bytes, n);
    e->at += n;
}
static inline void emit8(struct emitter *e, uint8_t v)
{
    emit_bytes(e, &v, 1);
}
static inline void emit16(struct emitter *e, uint16_t v)
{
    emit_bytes(e, &v, 2);
}
static inline void emit32(struct emitter *e, uint32_t v)
{
    emit_bytes(e, &v, 4);
}
static inline void emit64(struct emitter *e, uint64_t v)
{
    emit_bytes(e, &v, 8);
}

#define RELOCS_MAX 1024
// What comes next depends on the block's place (relocate.c).
void reloc_note(struct emitter *e, unsigned kind);
// So does a copy of [FROM, TO), which was emitted before.
void reloc_copy(struct emitter *e, const uint8_t *from, const uint8_t *to);
// A guest address that moves with the block.
void emit_guest_address(struct emitter *e, unsigned reg, uint64_t address);

// A memory operand of ours.
struct mem {
    uint8_t base, index, scale; // NO_REG where absent; scale: shift
    bool gs;
    int32_t disp;
};
#define MEM_CONTEXT(member)    ((struct mem){NO_REG, NO_REG, 0, true, (int32_t)offsetof(struct context, member)})
#define MEM_CONTEXT_AT(offset) ((struct mem){NO_REG, NO_REG, 0, true, (int32_t)(offset)})
#define MEM_BASE(reg, d)       ((struct mem){reg, NO_REG, 0, false, d})

enum emit_flags { EMIT_W = 1, EMIT_66 = 2, EMIT_BYTE = 4, EMIT_F3 = 8, EMIT_LOCK = 16 };

// ModRM, SIB and displacement for register field REG.
void emit_modrm_mem(struct emitter *e, unsigned reg, struct mem m);
// [BASE + DISP] with a displacement of 32 bits, or none: EVEX scales short ones.
void emit_modrm_long(struct emitter *e, unsigned reg, unsigned base, int32_t disp);
// OPCODE: one byte, or 0x0fNN.
void emit_op_mem(struct emitter *e, unsigned flags, unsigned opcode, unsigned reg, struct mem m);
void emit_op_reg(struct emitter *e, unsigned flags, unsigned opcode, unsigned reg, unsigned rm);

void emit_mov_imm(struct emitter *e, unsigned reg, uint64_t value); // shortest form; flags untouched
static inline void emit_mov_reg(struct emitter *e, unsigned to, unsigned from)
{
    emit_op_reg(e, EMIT_W, 0x8b, to, from);
}
static inline void emit_load(struct emitter *e, unsigned reg, struct mem m)
{
    emit_op_mem(e, EMIT_W, 0x8b, reg, m);
}
static inline void emit_store(struct emitter *e, unsigned reg, struct mem m)
{
    emit_op_mem(e, EMIT_W, 0x89, reg, m);
}
static inline void emit_load32(struct emitter *e, unsigned reg, struct mem m)
{
    emit_op_mem(e, 0, 0x8b, reg, m);
}
static inline void emit_store32(struct emitter *e, unsigned reg, struct mem m)
{
    emit_op_mem(e, 0, 0x89, reg, m);
}
static inline void emit_store_imm32(struct emitter *e, uint32_t value, struct mem m)
{
    emit_op_mem(e, 0, 0xc7, 0, m);
    emit32(e, value);
}
// OPERATION: 0 add, 1 or, 4 and, 5 sub, 6 xor, 7 cmp
static inline void emit_alu_imm(struct emitter *e, unsigned flags, unsigned operation, unsigned reg, int32_t value)
{
    bool small = value >= -128 && value <= 127;
    emit_op_reg(e, flags, small ? 0x83 : 0x81, operation, reg);
    if (small)
        emit8(e, (uint8_t)value);
    else
        emit32(e, (uint32_t)value);
}
void emit_nop(struct emitter *e, unsigned bytes);
// Jumps to an executable address.
void emit_jmp(struct emitter *e, const void *target);
void emit_jcc(struct emitter *e, unsigned condition, const void *target);
// Forward jumps: return the writable address of the rel32 for emit_patch().
uint8_t *emit_jmp_forward(struct emitter *e);
uint8_t *emit_jcc_forward(struct emitter *e, unsigned condition);
void emit_patch(struct emitter *e, uint8_t *field); // to here
// Pads so that a rel32 that starts SKIP bytes from here lies within eight aligned bytes.
void emit_align_field(struct emitter *e, unsigned skip);
// lea reg, [rip + target]
void emit_lea_code(struct emitter *e, unsigned reg, const void *target);

#endif
