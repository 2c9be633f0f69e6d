// SPDX-License-Identifier: GPL-2.0-or-later
// The runners of vector instructions: operands in, kernel, operands out (SDM vol. 2, 2.1 and 2.3).
#include "core/cpu/interpret/vector.h"

bool vector_source(struct vcpu *v, const struct insn *i, union vector *x, unsigned size, bool unaligned)
{
    if (!i->is_memory) {
        vector_read(v, i, i->rm, x);
        return true;
    }
    memset(x, 0, sizeof(*x));
    if (i->vex || unaligned || size != 16)
        return insn_load(v, i, x, size);
    return insn_load_aligned(v, i, x, 16, 16);
}

bool linear_load_exempt(struct vcpu *v, uint64_t linear, void *data, unsigned size)
{
    if (G_LIKELY(!alignment_check_active(v)))
        return linear_load(v, linear, data, size);
    for (unsigned k = 0; k < size; k++)
        if (!linear_load(v, linear + k, (uint8_t *)data + k, 1))
            return false;
    return true;
}

void float_env_load(const struct vcpu *v, struct float_env *env)
{
    uint32_t mxcsr = v->xsave.mxcsr;
    *env = (struct float_env){
        .rounding = mxcsr >> 13 & 3,
        .masks = mxcsr >> 7 & FLOAT_ALL,
        .daz = mxcsr & 0x40,
        .ftz = mxcsr & 0x8000,
        .quick = (mxcsr & 0x7020) == 0x1020, // nearest, inexact masked and seen already
    };
}

bool float_env_commit(struct vcpu *v, struct float_env *env)
{
    unsigned flags = env->flags, unmasked = flags & ~env->masks;

    if (G_LIKELY(!unmasked)) {
        v->xsave.mxcsr |= flags;
        return true;
    }
    // Exceptions of the operands are found before anything is computed (SDM vol. 1, 11.5.3).
    if (unmasked & (FLOAT_INVALID | FLOAT_DENORMAL | FLOAT_DIVIDE))
        flags &= FLOAT_INVALID | FLOAT_DENORMAL | FLOAT_DIVIDE;
    v->xsave.mxcsr |= flags;
    vcpu_fault(v, v->cr4 & CR4_OSXMMEXCPT ? EXCEPTION_XM : EXCEPTION_UD, -1);
    return false;
}

static void fetch_third(struct vcpu *v, const struct insn *i, const struct vector_op *op, struct vector_call *c)
{
    if (op->third == THIRD_MASK)
        vector_read(v, i, i->vex ? i->mask_reg : 0, &c->m);
    else if (op->third == THIRD_DESTINATION)
        vector_read(v, i, i->reg, &c->m);
}

static bool load_exempt(struct vcpu *v, const struct insn *i, union vector *x)
{
    uint64_t linear;
    return insn_linear(v, i, (unsigned)i->imm2, ACCESS_READ, &linear) &&
           linear_load_exempt(v, linear, x, (unsigned)i->imm2);
}

// imm2 holds the size of the memory source, put there by vector_bind().
static const struct insn *run_vector(struct vcpu *v, const struct insn *i)
{
    const struct vector_op *op = i->row->data;
    struct vector_call c;

    c.size = i->vex ? i->vector_length : 16;
    c.imm = (uint8_t)i->imm;
    c.vex_w = i->vex_w;
    if (op->count_in_b && !i->is_memory)
        xmm_read(v, i->rm, &c.b);
    else if (op->exempt && i->is_memory ? !load_exempt(v, i, &c.b)
                                        : !vector_source(v, i, &c.b, (unsigned)i->imm2, false))
        return NULL;
    vector_read(v, i, i->vex ? i->vvvv : i->reg, &c.a);
    fetch_third(v, i, op, &c);
    c.d = c.a;
    if (op->is_float) {
        float_env_load(v, &c.env);
        c.earlier = 0;
        op->kernel(&c);
        v->xsave.mxcsr |= c.earlier;
        if (G_UNLIKELY(!float_env_commit(v, &c.env)))
            return NULL;
    } else {
        op->kernel(&c);
    }
    vector_write(v, i, i->reg, &c.d);
    return i + 1;
}

// Shifts of ModRM.rm by an immediate.
static const struct insn *run_shift_immediate(struct vcpu *v, const struct insn *i)
{
    const struct vector_op *op = i->row->data;
    struct vector_call c = {.size = i->vex ? i->vector_length : 16, .imm = (uint8_t)i->imm};

    vector_read(v, i, i->rm, &c.a);
    c.b.u64[0] = (uint8_t)i->imm;
    op->kernel(&c);
    vector_write(v, i, i->vex ? i->vvvv : i->rm, &c.d);
    return i + 1;
}

static const struct insn *run_mmx(struct vcpu *v, const struct insn *i)
{
    const struct vector_op *op = i->row->data;
    struct vector_call c = {.size = 8, .imm = (uint8_t)i->imm};

    if (!mmx_check(v))
        return NULL;
    if (!i->is_memory)
        c.b.u64[0] = mmx_read(v, i->rm);
    else if (!insn_load(v, i, &c.b, (unsigned)i->imm2))
        return NULL;
    mmx_enter(v);
    c.a.u64[0] = mmx_read(v, i->reg);
    c.d = c.a;
    op->kernel(&c);
    mmx_write(v, i->reg, c.d.u64[0]);
    return i + 1;
}

static const struct insn *run_mmx_shift_immediate(struct vcpu *v, const struct insn *i)
{
    const struct vector_op *op = i->row->data;
    struct vector_call c = {.size = 8, .imm = (uint8_t)i->imm};

    if (!mmx_check(v))
        return NULL;
    mmx_enter(v);
    c.a.u64[0] = mmx_read(v, i->rm);
    c.b.u64[0] = (uint8_t)i->imm;
    op->kernel(&c);
    mmx_write(v, i->rm, c.d.u64[0]);
    return i + 1;
}

static bool has_mmx_operand(const struct decoded *d)
{
    for (unsigned k = 0; k < d->zydis.operand_count; k++) {
        const ZydisDecodedOperand *o = &d->operands[k];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    }
    return false;
}

insn_handler *vector_bind(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    const struct vector_op *op = i->row->data;
    bool mmx = has_mmx_operand(d), by_immediate = op->count_in_b && d->zydis.raw.imm[0].size;

    if (by_immediate || op->to_vvvv)
        return mmx ? run_mmx_shift_immediate : run_shift_immediate;
    i->imm2 = 0;
    for (unsigned k = 0; k < d->zydis.operand_count_visible; k++)
        if (d->operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
            i->imm2 = d->operands[k].size / 8;
    if (i->is_memory && (i->imm2 == 0 || i->imm2 > 32))
        return NULL;
    return mmx ? run_mmx : run_vector;
}
