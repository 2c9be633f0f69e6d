// SPDX-License-Identifier: GPL-2.0-or-later
// One check for several accesses through the same base register: where a trace reads or writes [base + a], [base + b],
// ... with the base unchanged, the whole range is checked once and the distance from guest to host stays in HOST_D.
// When the range is not plain memory within one page, a second translation of the rest of the trace, without sharing,
// goes on.
#include "core/cpu/translate/compile.h"

#define SHARE_SPAN 512 // bytes that one check may cover

// An access of the simple form [base + displacement].
static bool simple_access(const struct compiler *c, const struct trace_insn *i)
{
    const struct guest_insn *g = &i->insn;
    return i->fact.class == FACT_PLAIN && i->fact.memory_use && g->memory && g->base != NO_REG && g->base < 13 &&
           g->index == NO_REG && !g->rip_relative && decode_address_size(g) == 8 && g->segment != FS &&
           g->segment != GS && i->fact.memory_size &&
           !(g->encoding == ENCODING_LEGACY && g->map == 1 && (g->opcode & 0xe7) == 0xa3);
}

static int64_t displacement(const struct trace_insn *i)
{
    const struct guest_insn *g = &i->insn;
    return g->encoding == ENCODING_EVEX && g->displacement_size == 1 ? g->displacement * i->fact.memory_size
                                                                     : g->displacement;
}

static bool writes_register(const struct trace_insn *i, unsigned reg)
{
    const struct guest_insn *g = &i->insn;
    const struct fact *f = &i->fact;
    return (f->implicit_written >> reg & 1) || ((f->reg_use & USE_WRITE) && g->reg == reg) ||
           (f->reg_byte && (f->reg_use & USE_WRITE) && !g->rex && g->reg - 4u == reg) ||
           ((f->rm_use & USE_WRITE) && !g->memory && (g->rm == reg || (f->rm_byte && !g->rex && g->rm - 4u == reg))) ||
           ((f->vvvv_use & USE_WRITE) && g->vvvv == reg) ||
           ((f->opcode_use & USE_WRITE) &&
            (((g->opcode & 7) | (g->rex & 1) << 3) == (int)reg || (!g->rex && (g->opcode & 3) == (int)reg)));
}

// HOST_D is lost in translating this one.
static bool takes_host_d(const struct trace_insn *i)
{
    const struct guest_insn *g = &i->insn;
    const struct fact *f = &i->fact;
    unsigned high = (f->reg_use && g->reg >= 13) + (f->rm_use && !g->memory && g->rm >= 13) +
                    (f->vvvv_use && g->vvvv >= 13) + (f->opcode_use && ((g->opcode & 7) | (g->rex & 1) << 3) >= 13);
    bool bit_string = g->encoding == ENCODING_LEGACY && g->map == 1 && (g->opcode & 0xe7) == 0xa3 && g->memory;
    return high >= 2 || bit_string;
}

static bool keeps_share(const struct trace_insn *i, unsigned base)
{
    switch (i->fact.class) {
    case FACT_PLAIN:
    case FACT_LEA:
    case FACT_NOP:
    case FACT_JCC:
        return !writes_register(i, base) && !takes_host_d(i);
    default:
        return false;
    }
}

// Called after each instruction was emitted.
void share_step(struct compiler *c)
{
    if (c->share.valid && !keeps_share(c->i, c->share.base))
        c->share.valid = false;
}

static bool covered(const struct compiler *c, int64_t from, int64_t to, unsigned use)
{
    const struct share *s = &c->share;
    return s->valid && s->base == c->i->insn.base && from >= s->from && to <= s->to &&
           (!(use & USE_WRITE) || (s->use & USE_WRITE));
}

// Looks ahead for accesses that one check can serve together with this one.
static bool share_plan(struct compiler *c)
{
    const struct trace_insn *i = c->i;
    struct share s = {.base = i->insn.base, .from = displacement(i), .use = i->fact.memory_use};
    s.to = s.from + i->fact.memory_size;
    unsigned accesses = 1;
    if (!keeps_share(i, s.base))
        return false;
    for (const struct trace_insn *n = i + 1; n < c->insns + c->count; n++) {
        if (simple_access(c, n) && n->insn.base == s.base) {
            int64_t from = MIN(s.from, displacement(n)), to = MAX(s.to, displacement(n) + n->fact.memory_size);
            if (to - from <= SHARE_SPAN) {
                s.from = from;
                s.to = to;
                s.use |= n->fact.memory_use;
                accesses++;
            }
        }
        if (!keeps_share(n, s.base))
            break;
    }
    if (accesses < 2)
        return false;
    c->share = s;
    return true;
}

static void share_check(struct compiler *c)
{
    struct emitter *e = &c->e;
    struct share *s = &c->share;
    flags_clobber(c);
    uint8_t *again = e->at;
    emit_op_mem(e, EMIT_W, 0x8d, HOST_A, MEM_BASE(s->base, (int32_t)s->from));
    struct stub *stub = check_inline(c, (unsigned)(s->to - s->from), s->use);
    stub->kind = STUB_SHARE;
    stub->core = again;
    stub->guest = c->i->offset;
    stub->live = c->i->live_before;
    stub->target = insn_address(c);
    emit_load(e, HOST_D, check_entry(c, offsetof(struct fast_entry, delta)));
    s->valid = true;
    c->block->shares = true;
}

// HOST_A becomes the host address of the current access if a shared check covers it. False: it needs its own.
bool share_access(struct compiler *c)
{
    if (c->bits != 64 || (c->mode & MODE_NOSHARE) || !simple_access(c, c->i))
        return false;
    int64_t from = displacement(c->i), to = from + c->i->fact.memory_size;
    if (!covered(c, from, to, c->i->fact.memory_use)) {
        if (!share_plan(c))
            return false;
        share_check(c);
    }
    emit_op_mem(&c->e, EMIT_W, 0x8d, HOST_A, (struct mem){c->i->insn.base, HOST_D, 0, false, (int32_t)from});
    return true;
}
