// SPDX-License-Identifier: GPL-2.0-or-later
// One check for several accesses through the same base register: where a trace reads or writes [base + a], [base + b],
// ..., pushes, pops, and moves the base by constants, the whole range is checked once and the host address of its first
// byte is kept: of one base in HOST_D, of others in the context. When the range is not plain memory within one page, a
// second translation of the rest of the trace, without sharing, goes on.
#include "core/cpu/translate/compile.h"

#define SHARE_SPAN 512 // bytes that one check may cover

enum { SHARE_REGISTER = 0, SHARE_STACK = 1 }; // members of compiler.shares

// What one instruction does through a base register.
struct reach {
    unsigned base;
    int64_t from, to; // relative to the base before the instruction
    unsigned use;
};

static int64_t displacement(const struct trace_insn *i)
{
    const struct guest_insn *g = &i->insn;
    return g->encoding == ENCODING_EVEX && g->displacement_size == 1 ? g->displacement * i->fact.displacement_unit
                                                                     : g->displacement;
}

static bool is_bit_string(const struct guest_insn *g)
{
    return g->encoding == ENCODING_LEGACY && g->map == 1 && (g->opcode & 0xe7) == 0xa3;
}

static bool is_register_push(const struct guest_insn *g)
{
    return g->map == 0 && ((g->opcode & 0xf8) == 0x50 || g->opcode == 0x68 || g->opcode == 0x6a) && !g->opsize;
}

static bool is_register_pop(const struct guest_insn *g)
{
    return g->map == 0 && (g->opcode & 0xf8) == 0x58 && !g->opsize;
}

static unsigned opcode_register(const struct guest_insn *g)
{
    return (g->opcode & 7) | (g->rex & 1) << 3;
}

// False: nothing that could share.
static bool reach_of(const struct compiler *c, const struct trace_insn *i, struct reach *r)
{
    const struct guest_insn *g = &i->insn;
    int size = (int)stack_size(c);
    *r = (struct reach){.base = RSP};
    switch (i->fact.class) {
    case FACT_PUSH:
    case FACT_CALL:
        if (i->fact.class == FACT_PUSH ? !is_register_push(g) : g->opsize || g->has_modrm || g->opcode != 0xe8)
            return false;
        r->from = -size;
        r->to = 0;
        r->use = USE_WRITE;
        return true;
    case FACT_POP:
    case FACT_RET:
        if (i->fact.class == FACT_POP ? !is_register_pop(g) : g->opsize || (g->opcode & 0xfe) != 0xc2)
            return false;
        r->to = size;
        r->use = USE_READ;
        return true;
    case FACT_PLAIN:
        break;
    default:
        return false;
    }
    if (!i->fact.memory_use || i->fact.masked || !g->memory || g->base == NO_REG || g->base >= 13 ||
        g->index != NO_REG || g->rip_relative || decode_address_size(g) * 8 != c->bits || g->segment == FS ||
        g->segment == GS || !i->fact.memory_size || is_bit_string(g))
        return false;
    r->base = g->base;
    r->from = displacement(i);
    r->to = r->from + i->fact.memory_size;
    r->use = i->fact.memory_use;
    return true;
}

static bool writes_register(const struct trace_insn *i, unsigned reg)
{
    const struct guest_insn *g = &i->insn;
    const struct fact *f = &i->fact;
    return (f->implicit_written >> reg & 1) || ((f->reg_use & USE_WRITE) && g->reg == reg) ||
           (f->reg_byte && (f->reg_use & USE_WRITE) && !g->rex && g->reg - 4u == reg) ||
           ((f->rm_use & USE_WRITE) && !g->memory && (g->rm == reg || (f->rm_byte && !g->rex && g->rm - 4u == reg))) ||
           ((f->vvvv_use & USE_WRITE) && g->vvvv == reg) ||
           ((f->opcode_use & USE_WRITE) && (opcode_register(g) == reg || (!g->rex && (g->opcode & 3) == (int)reg)));
}

// HOST_D is lost in translating this one.
static bool takes_host_d(const struct trace_insn *i)
{
    const struct guest_insn *g = &i->insn;
    const struct fact *f = &i->fact;
    unsigned high = (f->reg_use && g->reg >= 13) + (f->rm_use && !g->memory && g->rm >= 13) +
                    (f->vvvv_use && g->vvvv >= 13) + (f->opcode_use && opcode_register(g) >= 13);
    return high >= (f->memory_use ? 2u : 3u) || (is_bit_string(g) && g->memory);
}

// By how much an ADD, SUB, INC, DEC or LEA moves a register of address size; 0: it is nothing of the kind.
static int64_t moves_register(const struct compiler *c, const struct trace_insn *i, unsigned reg)
{
    const struct guest_insn *g = &i->insn;
    if (g->encoding != ENCODING_LEGACY || g->map != 0 || !g->has_modrm || decode_operand_size(g) * 8 != c->bits)
        return 0;
    unsigned field = g->modrm >> 3 & 7;
    if (i->fact.class == FACT_LEA)
        return g->reg == reg && g->base == reg && g->index == NO_REG && decode_address_size(g) * 8 == c->bits
                   ? g->displacement
                   : 0;
    if (g->memory || g->rm != reg || i->fact.class != FACT_PLAIN || (field != 0 && field != 5))
        return 0;
    if (g->opcode == 0x81 || g->opcode == 0x83)
        return field ? -g->immediate : g->immediate;
    return g->opcode == 0xff && !field ? 1 : 0;
}

// What the base register of a share is after this instruction. False: nothing is known.
static bool base_after(const struct compiler *c, const struct trace_insn *i, unsigned base, int64_t *by)
{
    *by = 0;
    switch (i->fact.class) {
    case FACT_PUSH:
        if (base == RSP)
            *by = -(int64_t)stack_size(c);
        return is_register_push(&i->insn);
    case FACT_POP:
        if (base == RSP)
            *by = (int64_t)stack_size(c);
        return is_register_pop(&i->insn) && opcode_register(&i->insn) != base && opcode_register(&i->insn) != RSP;
    case FACT_PLAIN:
    case FACT_LEA:
        *by = moves_register(c, i, base);
        return *by || !writes_register(i, base);
    case FACT_NOP:
    case FACT_JCC:
        return true;
    default:
        return false;
    }
}

// Called after each instruction was emitted.
void share_step(struct compiler *c)
{
    for (unsigned n = 0; n < SHARES; n++) {
        struct share *s = &c->shares[n];
        int64_t by;
        if (!s->valid)
            continue;
        s->valid = base_after(c, c->i, s->base, &by) && !(s->in_register && takes_host_d(c->i));
        s->moved += by;
    }
}

// Looks ahead for accesses that one check can serve together with the one that R describes.
static bool share_plan(const struct compiler *c, const struct reach *r, struct share *plan)
{
    struct share s = {.base = (uint8_t)r->base, .from = r->from, .to = r->to, .use = (uint8_t)r->use};
    unsigned accesses = 1;
    bool past_jump = false;
    int64_t moved = 0, by;
    for (const struct trace_insn *n = c->i; base_after(c, n, s.base, &by);) {
        moved += by;
        if (++n == c->insns + c->count)
            break;
        past_jump |= n->fact.class == FACT_JCC;
        struct reach next;
        if (!reach_of(c, n, &next) || next.base != s.base || (past_jump && (next.use & USE_WRITE & ~s.use)))
            continue;
        int64_t from = MIN(s.from, next.from + moved), to = MAX(s.to, next.to + moved);
        if (to - from <= SHARE_SPAN) {
            s.from = from;
            s.to = to;
            s.use |= (uint8_t)next.use;
            accesses++;
        }
    }
    *plan = s;
    return accesses >= 2;
}

static struct share *share_slot(struct compiler *c, unsigned base)
{
    for (unsigned n = 0; n < SHARES; n++)
        if (c->shares[n].valid && c->shares[n].base == base)
            return &c->shares[n];
    if (base == RSP)
        return &c->shares[SHARE_STACK];
    for (unsigned n = 0; n < SHARES; n++)
        if (n != SHARE_STACK && !c->shares[n].valid)
            return &c->shares[n];
    return &c->shares[SHARES - 1];
}

static struct mem share_memory(const struct compiler *c, const struct share *s)
{
    return MEM_CONTEXT_AT(offsetof(struct context, shared) + 8 * (size_t)(s - c->shares));
}

// The check of PLAN; HOST_A is left at the host address of its first byte.
static void share_check(struct compiler *c, const struct share *plan)
{
    struct emitter *e = &c->e;
    struct share *s = share_slot(c, plan->base);
    *s = *plan;
    s->in_register = s == &c->shares[SHARE_REGISTER];
    s->valid = true;
    flags_clobber(c);
    uint8_t *again = e->at;
    emit_op_mem(e, c->bits == 64 ? EMIT_W : 0, 0x8d, HOST_A, MEM_BASE(s->base, (int32_t)s->from));
    struct stub *stub = check_inline(c, (unsigned)(s->to - s->from), s->use);
    stub->kind = STUB_SHARE;
    stub->core = again;
    stub->guest = c->i->offset;
    stub->live = c->i->live_before;
    stub->target = insn_address(c);
    emit_op_mem(e, EMIT_W, 0x03, HOST_A, check_entry(c, s->use, offsetof(struct fast_entry, host)));
    if (s->in_register)
        emit_mov_reg(e, HOST_D, HOST_A);
    else
        emit_store(e, HOST_A, share_memory(c, s));
    c->block->shares = true;
}

bool share_reach(struct compiler *c, unsigned base, int64_t disp, unsigned size, unsigned use, struct place *place)
{
    struct reach r = {.base = base, .from = disp, .to = disp + size, .use = use};
    struct share plan;
    if (c->mode & MODE_NOSHARE)
        return false;
    for (unsigned n = 0; n < SHARES; n++) {
        const struct share *s = &c->shares[n];
        if (!s->valid || s->base != base || disp + s->moved < s->from || r.to + s->moved > s->to ||
            (use & USE_WRITE & ~s->use))
            continue;
        *place = (struct place){s->in_register ? HOST_D : HOST_A, (int32_t)(disp + s->moved - s->from)};
        if (!s->in_register)
            emit_load(&c->e, HOST_A, share_memory(c, s));
        return true;
    }
    if (!share_plan(c, &r, &plan))
        return false;
    share_check(c, &plan);
    *place = (struct place){HOST_A, (int32_t)(disp - plan.from)};
    return true;
}

bool share_access(struct compiler *c, struct place *place)
{
    struct reach r;
    if (!reach_of(c, c->i, &r))
        return false;
    return share_reach(c, r.base, r.from, (unsigned)(r.to - r.from), r.use, place);
}
