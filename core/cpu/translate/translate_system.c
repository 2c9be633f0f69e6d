// SPDX-License-Identifier: GPL-2.0-or-later
// System and string instructions that are worth more than a trip to the interpreter.
#include "core/cpu/translate/compile.h"
#include "core/cpu/translate/system.h"

// The stub that calls the helper of OP, entered by the jump at FIELD with the flags in the saved copy. It comes back to
// what is emitted next, or to where the caller lets stub->core point.
static struct stub *system_stub(struct compiler *c, uint8_t *field, unsigned op, unsigned size)
{
    struct stub *s = stub_new(c, STUB_SYSTEM, field);
    s->op = op;
    s->size = size;
    s->target = insn_address(c);
    s->next = next_address(c);
    s->opcode = c->i->insn.opcode;
    s->rep = c->i->insn.rep;
    s->core = c->e.at;
    return s;
}

// Calls the helper of OP; flags come back from the saved copy.
static void emit_system(struct compiler *c, unsigned op, unsigned size)
{
    flags_need_saved(c);
    system_stub(c, emit_jmp_forward(&c->e), op, size);
    c->host_valid = c->saved_valid = true;
}

static bool translate_if(struct compiler *c)
{
    struct emitter *e = &c->e;
    if (!(c->mode & MODE_CPL0))
        return false;
    if (c->i->insn.opcode == 0xfa) { // CLI
        emit_store_imm32(e, 0, MEM_CONTEXT(interrupt_flag));
        return true;
    }
    // STI holds interrupts back for one more instruction: that must be one that stays in this block.
    const struct trace_insn *next = c->i + 1;
    if (next == c->insns + c->count)
        return false;
    switch (next->fact.class) {
    case FACT_PLAIN:
    case FACT_LEA:
    case FACT_NOP:
    case FACT_PUSH:
    case FACT_POP:
    case FACT_RET:
    case FACT_JCC:
    case FACT_JMP:
    case FACT_CALL:
        break;
    default:
        return false;
    }
    flags_clobber(c);
    emit_load(e, HOST_A, MEM_CONTEXT(vcpu));
    emit_op_mem(e, 0, 0x83, 7, MEM_BASE(HOST_A, offsetof(struct vcpu, attention)));
    emit8(e, 0);
    struct stub *s = stub_new(c, STUB_INTERPRET, emit_jcc_forward(e, 5));
    s->target = insn_address(c);
    emit_store_imm32(e, FLAG_IF, MEM_CONTEXT(interrupt_flag));
    c->no_boundary = true;
    return true;
}

static bool translate_swapgs(struct compiler *c)
{
    struct emitter *e = &c->e;
    if (!(c->mode & MODE_CPL0) || c->bits != 64)
        return false;
    emit_load(e, HOST_T, MEM_CONTEXT(vcpu));
    emit_load(e, HOST_A, MEM_BASE(HOST_T, offsetof(struct vcpu, kernel_gs_base)));
    emit_load(e, HOST_D, MEM_CONTEXT(gs_base));
    emit_store(e, HOST_A, MEM_CONTEXT(gs_base));
    emit_store(e, HOST_A, MEM_BASE(HOST_T, offsetof(struct vcpu, seg[GS].base)));
    emit_store(e, HOST_D, MEM_BASE(HOST_T, offsetof(struct vcpu, kernel_gs_base)));
    return true;
}

// The other SMAP state is another mode: the block ends.
static bool translate_ac(struct compiler *c)
{
    struct emitter *e = &c->e;
    bool set = c->i->insn.modrm == 0xcb; // STAC
    if (!(c->mode & MODE_CPL0) || !(c->mode & MODE_SMAP))
        return false;
    flags_clobber(c);
    emit_op_mem(e, 0, 0x81, set ? 1 : 4, MEM_CONTEXT(other_flags));
    emit32(e, set ? FLAG_AC : ~FLAG_AC);
    uint32_t mode = set ? c->mode | MODE_AC : c->mode & ~(uint32_t)MODE_AC;
    emit_store_imm32(e, mode, MEM_CONTEXT(mode));
    if (c->i->live_after) // the next block may need them in the host's
        flags_need_host(c);
    emit_link(c, next_address(c), false);
    return true;
}

static bool translate_pushf(struct compiler *c)
{
    struct emitter *e = &c->e;
    int size = (int)stack_size(c);
    unsigned flags = size == 8 ? EMIT_W : 0;
    if (c->i->insn.opsize)
        return false;
    flags_need_saved(c);
    c->host_valid = false;
    c->clobbered = true;
    emit_op_mem(e, 0, 0x0fb7, HOST_A, MEM_CONTEXT(saved_flags)); // movzx r15d, word
    emit_op_reg(e, 0, 0x8b, HOST_D, HOST_A);
    emit_op_reg(e, 0, 0xc1, 5, HOST_D); // shr 8: SF, ZF, AF, PF, CF and bit 1
    emit8(e, 8);
    emit_alu_imm(e, 0, 4, HOST_A, 1);
    emit_op_reg(e, 0, 0xc1, 4, HOST_A); // shl 11: OF
    emit8(e, 11);
    emit_op_reg(e, 0, 0x0b, HOST_D, HOST_A);
    emit_op_mem(e, 0, 0x0b, HOST_D, MEM_CONTEXT(other_flags));
    emit_op_mem(e, 0, 0x0b, HOST_D, MEM_CONTEXT(interrupt_flag));
    emit_op_mem(e, 0, 0x0b, HOST_D, MEM_CONTEXT(direction));
    emit_alu_imm(e, 0, 1, HOST_D, FLAG_1);
    emit_op_mem(e, flags, 0x8d, HOST_A, MEM_BASE(RSP, -size));
    check_begin(c, (unsigned)size, USE_WRITE);
    emit_op_mem(e, flags, 0x89, HOST_D, MEM_BASE(HOST_A, 0));
    emit_op_mem(e, flags, 0x8d, RSP, MEM_BASE(RSP, -size));
    check_end(c, true);
    return true;
}

static bool translate_popf(struct compiler *c)
{
    struct emitter *e = &c->e;
    int size = (int)stack_size(c);
    unsigned flags = size == 8 ? EMIT_W : 0;
    if (c->i->insn.opsize || c->bits != 64)
        return false;
    flags_need_saved(c);
    c->host_valid = false;
    c->clobbered = true;
    emit_op_reg(e, flags, 0x8b, HOST_A, RSP);
    check_begin(c, (unsigned)size, USE_READ);
    emit_op_mem(e, flags, 0x8b, HOST_D, MEM_BASE(HOST_A, 0));
    emit_op_mem(e, flags, 0x8d, RSP, MEM_BASE(RSP, size));
    check_end(c, false);
    emit_store(e, HOST_D, MEM_CONTEXT(slow_value));
    emit_system(c, SYSTEM_POPF, (unsigned)size);
    return true;
}

// How far the host lies from the guest page of the string at REG goes to DELTA, if that page is in the TLB and the rest
// of the string too; else the stub S decides.
static void string_delta(struct compiler *c, struct stub *s, unsigned reg, unsigned use, unsigned size, unsigned delta)
{
    struct emitter *e = &c->e;
    emit_mov_reg(e, HOST_T, reg);
    emit_op_reg(e, EMIT_W, 0xc1, 5, HOST_T); // shr
    emit8(e, PAGE_SHIFT - 4);
    emit_alu_imm(e, 0, 4, HOST_T, (FAST_SIZE - 1) << 4);
    emit_mov_reg(e, delta, reg);
    emit_op_mem(e, EMIT_W, 0x33, delta, check_entry(c, use, offsetof(struct fast_entry, tag))); // xor
    emit_alu_imm(e, EMIT_W, 7, delta, (int32_t)(PAGE_SIZE - size));
    s->more[s->more_count++] = emit_jcc_forward(e, 7);
    if (c->i->insn.rep) {
        emit_op_mem(e, EMIT_W, 0x8d, delta, (struct mem){delta, RCX, (uint8_t)__builtin_ctz(size), false, 0}); // lea
        emit_op_reg(e, EMIT_W, 0x81, 7, delta);
        emit32(e, PAGE_SIZE);
        s->more[s->more_count++] = emit_jcc_forward(e, 7);
    }
    emit_load(e, delta, check_entry(c, use, offsetof(struct fast_entry, host)));
    emit_op_mem(e, EMIT_W, 0x2b, delta, check_entry(c, use, offsetof(struct fast_entry, tag))); // sub
}

// MOVS and STOS upwards within a page of plain memory are the host's own, as short ones are frequent.
static void string_inline(struct compiler *c, unsigned size)
{
    const struct guest_insn *i = &c->i->insn;
    struct emitter *e = &c->e;
    bool moves = (i->opcode & 0xfe) == 0xa4;
    flags_clobber(c);
    emit_op_mem(e, 0, 0x83, 7, MEM_CONTEXT(direction));
    emit8(e, 0);
    struct stub *s = system_stub(c, emit_jcc_forward(e, 5), SYSTEM_STRING, size);
    if (i->rep) {
        emit_op_reg(e, EMIT_W, 0x81, 7, RCX);
        emit32(e, (uint32_t)(PAGE_SIZE / size));
        s->more[s->more_count++] = emit_jcc_forward(e, 7);
    }
    if (moves)
        string_delta(c, s, RSI, USE_READ, size, HOST_D);
    string_delta(c, s, RDI, USE_WRITE, size, HOST_A);
    if (moves)
        emit_op_reg(e, EMIT_W, 0x03, RSI, HOST_D); // add
    emit_op_reg(e, EMIT_W, 0x03, RDI, HOST_A);
    if (size == 2)
        emit8(e, 0x66);
    if (i->rep)
        emit8(e, 0xf3);
    if (size == 8)
        emit8(e, 0x48);
    emit8(e, i->opcode);
    if (moves)
        emit_op_reg(e, EMIT_W, 0x2b, RSI, HOST_D); // sub
    emit_op_reg(e, EMIT_W, 0x2b, RDI, HOST_A);
    s->core = e->at;
}

static bool translate_string(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    unsigned size = i->opcode & 1 ? decode_operand_size(i) : 1;
    bool source = (i->opcode & 0xfe) == 0xa4 || (i->opcode & 0xfe) == 0xa6 || (i->opcode & 0xfe) == 0xac;
    if (decode_address_size(i) != c->bits / 8 || (source && (i->segment == FS || i->segment == GS)))
        return false;
    if (c->bits == 64 && !c->t->single && ((i->opcode & 0xfe) == 0xa4 || (i->opcode & 0xfe) == 0xaa))
        string_inline(c, size);
    else
        emit_system(c, SYSTEM_STRING, size);
    return true;
}

// An operation of system.c on a register NUMBER that reads into a general register through slow_value.
static void emit_read(struct compiler *c, unsigned op, unsigned size, unsigned number, unsigned guest)
{
    emit_system(c, op, size);
    c->stubs[c->stub_count - 1].rep = (uint8_t)number;
    unsigned to = guest < 13 ? guest : HOST_A;
    emit_load(&c->e, to, MEM_CONTEXT(slow_value));
    store_guest(c, guest, to);
}

static void emit_write(struct compiler *c, unsigned op, unsigned size, unsigned number, unsigned guest)
{
    emit_store(&c->e, guest_to_host(c, guest, HOST_A), MEM_CONTEXT(slow_value));
    emit_system(c, op, size);
    c->stubs[c->stub_count - 1].rep = (uint8_t)number;
}

// MOV from a segment register to a general one.
static void read_segment(struct compiler *c, unsigned number, unsigned guest, bool word)
{
    struct emitter *e = &c->e;
    unsigned to = guest < 13 ? guest : HOST_A;
    struct mem selector = MEM_BASE(HOST_T, (int32_t)(offsetof(struct vcpu, seg) + sizeof(struct segment) * number +
                                                     offsetof(struct segment, selector)));
    emit_load(e, HOST_T, MEM_CONTEXT(vcpu));
    if (word && guest >= 13)
        guest_to_host(c, guest, HOST_A);
    emit_op_mem(e, word ? EMIT_66 : 0, word ? 0x8b : 0x0fb7, to, selector);
    store_guest(c, guest, to);
}

static bool translate_mov_segment(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    unsigned number = i->reg & 7;
    if ((i->opcode != 0x8c && i->opcode != 0x8e) || i->memory || i->map != 0 || number > GS)
        return false;
    if (i->opcode == 0x8c) {
        read_segment(c, number, i->rm, decode_operand_size(i) == 2);
        return true;
    }
    if (c->bits != 64 || number == CS || number == SS) // loading SS holds interrupts back
        return false;
    emit_write(c, SYSTEM_LOAD_SEGMENT, 8, number, i->rm);
    c->ended = true;
    return true;
}

static bool translate_cr(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    static const int32_t plain[] = {offsetof(struct vcpu, cr0), -1, offsetof(struct vcpu, cr2),
                                    offsetof(struct vcpu, cr3), offsetof(struct vcpu, cr4)};
    bool memory = i->reg < G_N_ELEMENTS(plain) && plain[i->reg] >= 0;
    if (!(c->mode & MODE_CPL0) || c->bits != 64 || i->map != 1 || i->mod != 3 || !(memory || i->reg == 8) || i->lock ||
        (i->opcode != 0x20 && i->opcode != 0x22))
        return false;
    if (i->opcode == 0x22) {
        emit_write(c, SYSTEM_WRITE_CR, 8, i->reg, i->rm);
        c->ended = i->reg != 2;
    } else if (memory) {
        unsigned to = i->rm < 13 ? i->rm : HOST_A;
        emit_load(&c->e, HOST_T, MEM_CONTEXT(vcpu));
        emit_load(&c->e, to, MEM_BASE(HOST_T, plain[i->reg]));
        store_guest(c, i->rm, to);
    } else {
        emit_read(c, SYSTEM_READ_CR, 8, i->reg, i->rm);
    }
    return true;
}

static bool translate_msr(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    if (!(c->mode & MODE_CPL0) || i->map != 1 || (i->opcode != 0x30 && i->opcode != 0x32))
        return false;
    emit_system(c, i->opcode == 0x30 ? SYSTEM_WRITE_MSR : SYSTEM_READ_MSR, 0);
    if (i->opcode == 0x30)
        c->ended = true;
    return true;
}

static bool translate_invlpg(struct compiler *c)
{
    if (!(c->mode & MODE_CPL0) || c->bits != 64 || decode_address_size(&c->i->insn) != 8)
        return false;
    flags_need_saved(c);
    c->host_valid = false;
    c->clobbered = true;
    emit_address(c);
    emit_store(&c->e, HOST_A, MEM_CONTEXT(slow_value));
    emit_system(c, SYSTEM_INVLPG, 8);
    c->ended = true;
    return true;
}

// RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE
static bool translate_base(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    if (c->bits != 64 || i->opcode != 0xae || i->mod != 3 || (i->reg & 7) > 3)
        return false;
    unsigned size = i->w ? 8 : 4, which = i->reg & 1 ? GS : FS;
    if (i->reg & 2)
        emit_write(c, SYSTEM_WRITE_BASE, size, which, i->rm);
    else
        emit_read(c, SYSTEM_READ_BASE, size, which, i->rm);
    return true;
}

bool translate_system(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    switch (c->i->fact.class) {
    case FACT_IF:
        return translate_if(c);
    case FACT_MOV_SEG:
        return translate_mov_segment(c);
    case FACT_SWAPGS:
        return translate_swapgs(c);
    case FACT_AC:
        return translate_ac(c);
    case FACT_PUSHF:
        return translate_pushf(c);
    case FACT_POPF:
        return translate_popf(c);
    case FACT_STRING:
        return translate_string(c);
    case FACT_SYSCALL:
        if (c->bits != 64)
            return false;
        emit_system(c, SYSTEM_SYSCALL, 8);
        c->ended = true;
        return true;
    case FACT_SYSRET:
        if (c->bits != 64 || !i->w)
            return false;
        emit_system(c, SYSTEM_SYSRET, 8);
        c->ended = true;
        return true;
    case FACT_IRET:
        if (c->bits != 64 || !i->w)
            return false;
        emit_system(c, SYSTEM_IRET, 8);
        c->ended = true;
        return true;
    case FACT_MOV_CR:
        return translate_cr(c);
    case FACT_MSR:
        return translate_msr(c);
    case FACT_INVLPG:
        return translate_invlpg(c);
    case FACT_FSGSBASE:
        return translate_base(c);
    case FACT_RDTSC:
        emit_system(c, i->modrm == 0xf9 ? SYSTEM_TSCP : SYSTEM_TSC, 0);
        return true;
    default:
        return false;
    }
}
