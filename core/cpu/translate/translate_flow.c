// SPDX-License-Identifier: GPL-2.0-or-later
// Jumps, calls, returns, and the ways out of a block.
#include "core/cpu/translate/compile.h"

static uint64_t target_of(const struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    uint64_t target = next_address(c) + (uint64_t)i->immediate;
    if (c->bits == 64)
        return target;
    return decode_operand_size(i) == 2 ? (uint16_t)target : (uint32_t)target;
}

static bool other_page(const struct compiler *c, uint64_t target)
{
    return (target & PAGE_MASK) != c->page;
}

// Puts the flags where the way to TARGET expects them. Returns those that live there.
static uint16_t flags_for_link(struct compiler *c, uint64_t target, bool from_host, bool far)
{
    uint16_t live = flags_live_at(c, target, far);
    if (!live)
        return 0;
    if (other_page(c, target)) {
        if (from_host)
            flags_need_host(c);
        flags_need_saved(c);
    } else {
        flags_need_host(c);
    }
    return live;
}

static void link_stub(struct compiler *c, uint8_t *field, uint64_t target, uint16_t live)
{
    struct stub *s = stub_new(c, STUB_LINK, field);
    s->target = target;
    s->live = live;
}

void emit_link(struct compiler *c, uint64_t target, bool far)
{
    uint16_t live = flags_for_link(c, target, false, far);
    emit_align_field(&c->e, 1);
    link_stub(c, emit_jmp_forward(&c->e), target, live);
    c->ended = true;
}

void translate_interpret(struct compiler *c)
{
    struct thunks *t = &c->t->thunks;
    emit_guest_address(&c->e, HOST_A, insn_address(c));
    emit_jmp(&c->e, c->host_valid ? t->interpret_host : t->interpret_saved);
    c->ended = true;
}

void translate_jcc(struct compiler *c)
{
    uint64_t target = target_of(c);
    flags_need_host(c);
    uint16_t live = flags_for_link(c, target, true, false);
    emit_align_field(&c->e, 2);
    link_stub(c, emit_jcc_forward(&c->e, c->i->insn.opcode & 15), target, live);
}

// LOOP, LOOPE, LOOPNE, JCXZ: none of them changes flags.
void translate_loop(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    struct emitter *e = &c->e;
    uint64_t target = target_of(c);
    unsigned size = decode_address_size(i);
    uint16_t live = flags_for_link(c, target, true, false);
    if (i->opcode < 0xe2)
        flags_need_host(c);
    if (i->opcode < 0xe3)
        emit_op_mem(e, size == 8 ? EMIT_W : 0, 0x8d, RCX, MEM_BASE(RCX, -1));
    if (size == 4)
        emit8(e, 0x67);
    emit8(e, 0xe3); // jrcxz
    uint8_t *rcx_zero = e->at;
    emit8(e, 0);
    uint8_t *skip = NULL, *skip2 = NULL;
    if (i->opcode == 0xe3) {
        skip = emit_jmp_forward(e);
        *rcx_zero = (uint8_t)(e->at - (rcx_zero + 1));
    } else if (i->opcode < 0xe2) {
        skip2 = emit_jcc_forward(e, i->opcode == 0xe1 ? 5 : 4); // LOOPE goes on with ZF, LOOPNE without
    }
    emit_align_field(e, 1);
    link_stub(c, emit_jmp_forward(e), target, live);
    if (i->opcode != 0xe3 && !e->overflow)
        *rcx_zero = (uint8_t)(e->at - (rcx_zero + 1));
    if (skip)
        emit_patch(e, skip);
    if (skip2)
        emit_patch(e, skip2);
}

// To the guest address in HOST_A.
static void emit_indirect(struct compiler *c)
{
    struct emitter *e = &c->e;
    flags_need_saved(c);
    emit8(e, 0x4c), emit8(e, 0x8d), emit8(e, 0x2d), emit32(e, 0); // lea r13, [rip]: from which block
    emit_op_reg(e, 0, 0x0fb7, HOST_T, HOST_A);                    // movzx r14d, r15w
    const uint64_t *jumps = jump_table(c->t, fast_kind_of(c));
    emit_op_mem(e, 0, 0xff, 4, (struct mem){NO_REG, HOST_T, 3, false, (int32_t)(uintptr_t)jumps});
    c->ended = true;
}

// Target of an indirect jump or call to HOST_D.
static void load_target(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    unsigned flags = c->bits == 64 ? EMIT_W : 0;
    if (!i->memory) {
        unsigned from = guest_to_host(c, i->rm, HOST_D);
        if (from != HOST_D || !flags)
            emit_op_reg(&c->e, flags, 0x8b, HOST_D, from);
        return;
    }
    struct place at;
    check_operand(c, stack_size(c), USE_READ, &at);
    emit_op_mem(&c->e, flags, 0x8b, HOST_D, MEM_BASE(at.base, at.disp));
    check_end(c, false);
}

// A target in the temporary REG that is no canonical address: the fault is this instruction's, with nothing done yet.
// Jumps and returns within one page need no such check: translate_jump() takes them back.
static void check_canonical(struct compiler *c, unsigned reg)
{
    struct emitter *e = &c->e;
    if (c->bits != 64)
        return;
    flags_clobber(c);
    emit_mov_reg(e, HOST_T, reg);
    emit_op_reg(e, EMIT_W, 0xc1, 7, HOST_T); // sar: 0 or -1
    emit8(e, 47);
    emit_alu_imm(e, 0, 0, HOST_T, 1);
    emit_alu_imm(e, 0, 7, HOST_T, 1);
    stub_new(c, STUB_INTERPRET, emit_jcc_forward(e, 7))->target = insn_address(c);
}

static bool odd_operand(const struct compiler *c)
{
    return decode_operand_size(&c->i->insn) == 2;
}

void translate_jmp(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    if (!i->has_modrm && (i->opcode == 0xe9 || i->opcode == 0xeb) && (c->bits == 64 || !odd_operand(c))) {
        emit_link(c, target_of(c), true);
        return;
    }
    if (!i->has_modrm || (i->modrm >> 3 & 7) != 4 || odd_operand(c)) {
        translate_interpret(c); // far
        return;
    }
    load_target(c);
    if (c->block->second_page != NO_PAGE)
        check_canonical(c, HOST_D);
    emit_mov_reg(&c->e, HOST_A, HOST_D);
    emit_indirect(c);
}

// Pushes the constant VALUE; the stack pointer moves with the store. SHARE: HOST_D need not stay.
static void push_constant(struct compiler *c, uint64_t value, bool share)
{
    struct emitter *e = &c->e;
    unsigned size = stack_size(c), flags = size == 8 ? EMIT_W : 0;
    struct place at = {HOST_A, 0};
    bool shared = share && share_reach(c, RSP, -(int)size, size, USE_WRITE, &at);
    if (!shared) {
        flags_clobber(c);
        emit_op_mem(e, flags, 0x8d, HOST_A, MEM_BASE(RSP, -(int)size));
        check_begin(c, size, USE_WRITE);
    }
    if (size == 4 || (uint64_t)(int64_t)(int32_t)value == value) {
        e->fixed = true;
        emit_op_mem(e, flags, 0xc7, 0, MEM_BASE(at.base, at.disp));
        emit32(e, (uint32_t)value);
    } else {
        emit_guest_address(e, HOST_T, value);
        emit_store(e, HOST_T, MEM_BASE(at.base, at.disp));
    }
    emit_op_mem(e, flags, 0x8d, RSP, MEM_BASE(RSP, -(int)size));
    if (!shared)
        check_end(c, false);
}

void translate_call(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    uint64_t next = next_address(c);
    bool direct = !i->has_modrm && i->opcode == 0xe8;
    if ((!direct && (!i->has_modrm || (i->modrm >> 3 & 7) != 2)) || (odd_operand(c) && !(direct && c->bits == 64))) {
        translate_interpret(c);
        return;
    }
    if (direct) {
        push_constant(c, next, true);
        emit_link(c, target_of(c), true);
        return;
    }
    load_target(c);
    check_canonical(c, HOST_D);
    push_constant(c, next, false);
    emit_mov_reg(&c->e, HOST_A, HOST_D);
    emit_indirect(c);
}

void translate_ret(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    struct emitter *e = &c->e;
    if ((i->opcode != 0xc3 && i->opcode != 0xc2) || odd_operand(c)) {
        translate_interpret(c); // far
        return;
    }
    unsigned size = stack_size(c), flags = size == 8 ? EMIT_W : 0;
    int release = (int)size + (i->opcode == 0xc2 ? (uint16_t)i->immediate : 0);
    struct place at = {HOST_A, 0};
    bool shared = share_reach(c, RSP, 0, size, USE_READ, &at);
    if (!shared) {
        flags_clobber(c);
        emit_op_reg(e, flags, 0x8b, HOST_A, RSP);
        check_begin(c, size, USE_READ);
    }
    unsigned target = shared ? HOST_A : HOST_D; // a commit takes HOST_A
    emit_op_mem(e, flags, 0x8b, target, MEM_BASE(at.base, at.disp));
    if (!shared)
        check_end(c, false);
    if (c->block->second_page != NO_PAGE)
        check_canonical(c, target);
    emit_op_mem(e, flags, 0x8d, RSP, MEM_BASE(RSP, release));
    if (!shared)
        emit_mov_reg(e, HOST_A, HOST_D);
    emit_indirect(c);
}
