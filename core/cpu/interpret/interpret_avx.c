// SPDX-License-Identifier: GPL-2.0-or-later
// What only AVX and AVX2 have: zeroing of registers, masked moves, gathers; AVX-VNNI (SDM vol. 2).
#include "core/cpu/interpret/vector.h"

static const struct insn *run_vzeroupper(struct vcpu *v, const struct insn *i)
{
    unsigned count = i->code_size == 8 ? 16 : 8;
    memset(v->xsave.ymmh, 0, sizeof(v->xsave.ymmh[0]) * count);
    if (v->avx512.xstate_bv & XCR0_ZMMH)
        memset(v->avx512.zmmh, 0, sizeof(v->avx512.zmmh[0]) * count);
    return i + 1;
}

static const struct insn *run_vzeroall(struct vcpu *v, const struct insn *i)
{
    memset(v->xsave.xmm, 0, sizeof(v->xsave.xmm[0]) * (i->code_size == 8 ? 16 : 8));
    return run_vzeroupper(v, i);
}

// ---- Masked moves: only elements whose mask is negative touch memory
// -------------------------------------------------

static const struct insn *run_masked_load(struct vcpu *v, const struct insn *i)
{
    unsigned element = i->row->data ? 8 : 4, size = i->vector_length;
    union vector mask, x = {0};
    uint64_t linear;

    vector_read(v, i, i->vvvv, &mask);
    if (!insn_linear(v, i, size, ACCESS_READ, &linear))
        return NULL;
    for (unsigned k = 0; k < size; k += element)
        if (mask.u8[k + element - 1] & 0x80 && !linear_load_exempt(v, linear + k, x.u8 + k, element))
            return NULL;
    vex_write(v, i->reg, &x, size);
    return i + 1;
}

static const struct insn *run_masked_store(struct vcpu *v, const struct insn *i)
{
    unsigned element = i->row->data ? 8 : 4, size = i->vector_length;
    union vector mask, x;
    uint64_t linear;

    vector_read(v, i, i->vvvv, &mask);
    vector_read(v, i, i->reg, &x);
    if (!insn_linear(v, i, size, ACCESS_WRITE, &linear))
        return NULL;
    return masked_store(v, linear, x.u8, mask.u8, size, element) ? i + 1 : NULL;
}

static insn_handler *bind_masked(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    if (!i->is_memory)
        return NULL;
    return d->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? run_masked_store : run_masked_load;
}

// ---- Gathers: elements in order; a fault leaves what was done, with the mask of the done elements cleared
// -------------

struct gather {
    uint8_t index, element; // bytes of one index and of one element
};

static bool gather_element(struct vcpu *v, const struct insn *i, int64_t index, void *to, unsigned size)
{
    uint64_t offset = insn_offset(v, i) + ((uint64_t)index << i->scale), linear;
    if (i->ea_flags & INSN_ADDRESS32)
        offset = (uint32_t)offset;
    else if (i->ea_flags & INSN_ADDRESS16)
        offset = (uint16_t)offset;
    return segment_linear(v, i, i->segment, offset, size, ACCESS_READ, &linear) &&
           linear_load_exempt(v, linear, to, size);
}

static const struct insn *run_gather(struct vcpu *v, const struct insn *i)
{
    const struct gather *g = i->row->data;
    unsigned widest = g->index > g->element ? g->index : g->element, count = i->vector_length / widest;
    unsigned size = count * g->element > 16 ? 32 : 16;
    union vector index, mask, x;
    bool good = true, loaded = false;

    ymm_read(v, (unsigned)i->imm2, &index);
    ymm_read(v, i->vvvv, &mask);
    ymm_read(v, i->reg, &x);
    for (unsigned k = 0; k < count && good; k++) {
        unsigned at = k * g->element;
        if (mask.u8[at + g->element - 1] & 0x80)
            loaded |= good = gather_element(v, i, g->index == 8 ? index.s64[k] : index.s32[k], x.u8 + at, g->element);
        if (good)
            memset(mask.u8 + at, 0, g->element);
        else
            // The elements that remain keep a full mask of the sign.
            for (unsigned rest = k; rest < count; rest++)
                memset(mask.u8 + rest * g->element, mask.s8[rest * g->element + g->element - 1] < 0 ? 0xff : 0,
                       g->element);
    }
    unsigned used = count * g->element;
    if (!good) {
        for (unsigned k = used; k < i->vector_length; k += g->element) // mask elements without an index, too
            memset(mask.u8 + k, mask.s8[k + g->element - 1] < 0 ? 0xff : 0, g->element);
        // The mask is written, the destination only if it has a new element
        if (loaded)
            vex_write(v, i->reg, &x, i->vector_length);
        vex_write(v, i->vvvv, &mask, i->vector_length);
        return NULL;
    }
    // Beyond the elements both registers are zeroed.
    memset(x.u8 + used, 0, sizeof(x) - used);
    memset(mask.u8 + used, 0, sizeof(mask) - used);
    vex_write(v, i->reg, &x, size);
    vex_write(v, i->vvvv, &mask, size);
    return i + 1;
}

static insn_handler *bind_gather(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    unsigned index = (unsigned)(ZydisRegisterGetId(d->operands[1].mem.index) & 15);
    if (d->operands[1].type != ZYDIS_OPERAND_TYPE_MEMORY || index == i->reg || index == i->vvvv || i->reg == i->vvvv)
        return NULL;
    i->index = VCPU_OFFSET(zero);
    i->imm2 = index;
    return run_gather;
}

#define AVX(name, register_form)                                                                                       \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = GATE_AVX, .reg = register_form                \
    }
// ---- AVX-VNNI: sums of products, onto the destination ---------------------------------------------------------------

static int32_t saturated(int64_t x)
{
    return (int32_t)CLAMP(x, INT32_MIN, INT32_MAX);
}

static int64_t products8(const struct vector_call *c, unsigned k) // unsigned by signed
{
    int64_t sum = 0;
    for (unsigned n = 4 * k; n < 4 * k + 4; n++)
        sum += c->a.u8[n] * c->b.s8[n];
    return sum;
}

static int64_t products16(const struct vector_call *c, unsigned k)
{
    return (int64_t)c->a.s16[2 * k] * c->b.s16[2 * k] + (int64_t)c->a.s16[2 * k + 1] * c->b.s16[2 * k + 1];
}

#define SUM(name, products, narrow)                                                                                    \
    static void name(struct vector_call *c)                                                                            \
    {                                                                                                                  \
        for (unsigned k = 0; k < c->size / 4; k++)                                                                     \
            c->d.s32[k] = narrow(c->m.s32[k] + products(c, k));                                                        \
    }
SUM(sum_products8, products8, (int32_t))
SUM(sum_products8_saturated, products8, saturated)
SUM(sum_products16, products16, (int32_t))
SUM(sum_products16_saturated, products16, saturated)

#define AVX_MASKED(name, data_)                                                                                        \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = GATE_AVX, .bind = bind_masked, .data = data_  \
    }
#define GATHER(name, index_, element_)                                                                                 \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_MEMORY, .gate = GATE_AVX, .bind = bind_gather,               \
        .data = &(const struct gather)                                                                                 \
        {                                                                                                              \
            index_, element_                                                                                           \
        }                                                                                                              \
    }
static const char eight_bytes; // marks the rows of 8-byte elements

const struct insn_row interpret_rows_avx[] = {
    AVX(VZEROUPPER, run_vzeroupper),
    AVX(VZEROALL, run_vzeroall),
    AVX_MASKED(VMASKMOVPS, NULL),
    AVX_MASKED(VMASKMOVPD, &eight_bytes),
    AVX_MASKED(VPMASKMOVD, NULL),
    AVX_MASKED(VPMASKMOVQ, &eight_bytes),
    GATHER(VGATHERDPS, 4, 4),
    GATHER(VGATHERQPS, 8, 4),
    GATHER(VGATHERDPD, 4, 8),
    GATHER(VGATHERQPD, 8, 8),
    GATHER(VPGATHERDD, 4, 4),
    GATHER(VPGATHERQD, 8, 4),
    GATHER(VPGATHERDQ, 4, 8),
    GATHER(VPGATHERQQ, 8, 8),
    VECTOR_VEX(VPDPBUSD, sum_products8, .third = THIRD_DESTINATION),
    VECTOR_VEX(VPDPBUSDS, sum_products8_saturated, .third = THIRD_DESTINATION),
    VECTOR_VEX(VPDPWSSD, sum_products16, .third = THIRD_DESTINATION),
    VECTOR_VEX(VPDPWSSDS, sum_products16_saturated, .third = THIRD_DESTINATION),
    VECTOR_END,
};
