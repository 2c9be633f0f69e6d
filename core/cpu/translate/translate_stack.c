// SPDX-License-Identifier: GPL-2.0-or-later
// PUSH, POP, LEAVE.
#include "core/cpu/translate/compile.h"

static bool odd_size(const struct compiler *c)
{
    return c->i->insn.opsize;
}

static void stack_adjust(struct compiler *c, int by)
{
    emit_op_mem(&c->e, c->bits == 64 ? EMIT_W : 0, 0x8d, RSP, MEM_BASE(RSP, by));
}

bool translate_push(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    struct emitter *e = &c->e;
    int size = (int)stack_size(c);
    unsigned flags = size == 8 ? EMIT_W : 0, from = HOST_D;
    struct place at;
    bool immediate = i->map == 0 && (i->opcode == 0x68 || i->opcode == 0x6a);
    bool reg = i->map == 0 && (i->opcode & 0xf8) == 0x50;
    bool group = i->map == 0 && i->opcode == 0xff;
    unsigned pushed = reg ? (unsigned)((i->opcode & 7) | (i->rex & 1) << 3) : i->rm;
    if (odd_size(c) || !(immediate || reg || group))
        return false;
    if (!(group && i->memory) && share_reach(c, RSP, -size, (unsigned)size, USE_WRITE, &at)) {
        if (immediate) {
            emit_op_mem(e, flags, 0xc7, 0, MEM_BASE(at.base, at.disp));
            emit32(e, (uint32_t)i->immediate);
        } else {
            from = guest_to_host(c, pushed, HOST_T);
            emit_op_mem(e, flags, 0x89, from, MEM_BASE(at.base, at.disp));
        }
        stack_adjust(c, -size);
        return true;
    }
    flags_clobber(c);
    if (group && i->memory) {
        emit_address(c);
        check_begin(c, (unsigned)size, USE_READ);
        emit_op_mem(e, flags, 0x8b, HOST_D, MEM_BASE(HOST_A, 0));
        check_end(c, false);
    }
    emit_op_mem(e, flags, 0x8d, HOST_A, MEM_BASE(RSP, -size));
    check_begin(c, (unsigned)size, USE_WRITE);
    if (immediate) {
        emit_op_mem(e, flags, 0xc7, 0, MEM_BASE(HOST_A, 0));
        emit32(e, (uint32_t)i->immediate);
    } else {
        if (!(group && i->memory))
            from = guest_to_host(c, pushed, HOST_T);
        emit_op_mem(e, flags, 0x89, from, MEM_BASE(HOST_A, 0));
    }
    stack_adjust(c, -size);
    check_end(c, true);
    return true;
}

bool translate_pop(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    int size = (int)stack_size(c);
    unsigned flags = size == 8 ? EMIT_W : 0;
    unsigned to = (i->opcode & 7) | (i->rex & 1) << 3;
    if (odd_size(c) || i->map != 0 || (i->opcode & 0xf8) != 0x58)
        return false;
    struct place at;
    if (share_reach(c, RSP, 0, (unsigned)size, USE_READ, &at)) {
        if (to != RSP)
            stack_adjust(c, size);
        emit_op_mem(&c->e, flags, 0x8b, to < 13 ? to : HOST_T, MEM_BASE(at.base, at.disp));
        if (to >= 13)
            store_guest(c, to, HOST_T);
        return true;
    }
    flags_clobber(c);
    emit_op_reg(&c->e, flags, 0x8b, HOST_A, RSP);
    check_begin(c, (unsigned)size, USE_READ);
    if (to != RSP)
        stack_adjust(c, size);
    emit_op_mem(&c->e, flags, 0x8b, to < 13 ? to : HOST_T, MEM_BASE(HOST_A, 0));
    if (to >= 13)
        store_guest(c, to, HOST_T);
    check_end(c, true);
    return true;
}

void translate_leave(struct compiler *c)
{
    if (odd_size(c)) {
        translate_interpret(c);
        return;
    }
    int size = (int)stack_size(c);
    unsigned flags = size == 8 ? EMIT_W : 0;
    flags_clobber(c);
    emit_op_reg(&c->e, flags, 0x8b, HOST_A, RBP);
    check_begin(c, (unsigned)size, USE_READ);
    emit_op_mem(&c->e, flags, 0x8d, RSP, MEM_BASE(RBP, size));
    emit_op_mem(&c->e, flags, 0x8b, RBP, MEM_BASE(HOST_A, 0));
    check_end(c, true);
}
