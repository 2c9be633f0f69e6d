// SPDX-License-Identifier: GPL-2.0-or-later
// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM vol. 1 of the instructions, section 4.1).
#include "core/cpu/interpret/flags.h"
#include "core/cpu/interpret/vector.h"

struct strings {
    union vector a, b; // the first operand (needle, set, ranges) and the second (text)
    unsigned a_length, b_length;
    unsigned count; // elements: 16 bytes or 8 words
    unsigned imm;
};

static int element(const union vector *x, unsigned imm, unsigned k)
{
    switch (imm & 3) {
    case 0:
        return x->u8[k];
    case 1:
        return x->u16[k];
    case 2:
        return x->s8[k];
    default:
        return x->s16[k];
    }
}

static bool equal_any(const struct strings *s, unsigned at)
{
    for (unsigned k = 0; k < s->a_length; k++)
        if (element(&s->a, s->imm, k) == element(&s->b, s->imm, at))
            return at < s->b_length;
    return false;
}

static bool in_ranges(const struct strings *s, unsigned at)
{
    int x = element(&s->b, s->imm, at);
    if (at >= s->b_length)
        return false;
    for (unsigned k = 0; k + 1 < s->a_length; k += 2)
        if (x >= element(&s->a, s->imm, k) && x <= element(&s->a, s->imm, k + 1))
            return true;
    return false;
}

static bool equal_each(const struct strings *s, unsigned at)
{
    bool a_valid = at < s->a_length, b_valid = at < s->b_length;
    if (!a_valid || !b_valid)
        return a_valid == b_valid;
    return element(&s->a, s->imm, at) == element(&s->b, s->imm, at);
}

static bool equal_ordered(const struct strings *s, unsigned at)
{
    for (unsigned k = 0; k < s->a_length && at + k < s->count; k++)
        if (at + k >= s->b_length || element(&s->a, s->imm, k) != element(&s->b, s->imm, at + k))
            return false;
    return true;
}

static uint32_t aggregate(const struct strings *s)
{
    static bool (*const operations[4])(const struct strings *, unsigned) = {equal_any, in_ranges, equal_each,
                                                                            equal_ordered};
    uint32_t result = 0;
    for (unsigned k = 0; k < s->count; k++)
        result |= (uint32_t)operations[s->imm >> 2 & 3](s, k) << k;
    switch (s->imm >> 4 & 3) {
    case 1: // negative
        return result ^ (BIT(s->count) - 1);
    case 3: // masked negative: only where the text is valid
        return result ^ (BIT(s->b_length) - 1);
    default:
        return result;
    }
}

static unsigned explicit_length(const struct vcpu *v, const struct insn *i, unsigned reg, unsigned count)
{
    int64_t n = i->vex_w && i->code_size == 8 ? (int64_t)v->gpr[reg] : (int32_t)v->gpr[reg];
    uint64_t magnitude = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    return magnitude > count ? count : (unsigned)magnitude;
}

static unsigned implicit_length(const union vector *x, unsigned imm, unsigned count)
{
    for (unsigned k = 0; k < count; k++)
        if (!element(x, imm, k))
            return k;
    return count;
}

static bool compare(struct vcpu *v, const struct insn *i, bool is_explicit, uint32_t *result, unsigned *count)
{
    struct strings s = {.imm = (uint8_t)i->imm};
    if (!vector_source(v, i, &s.b, 16, true))
        return false;
    xmm_read(v, i->reg, &s.a);
    s.count = s.imm & 1 ? 8 : 16;
    s.a_length = is_explicit ? explicit_length(v, i, RAX, s.count) : implicit_length(&s.a, s.imm, s.count);
    s.b_length = is_explicit ? explicit_length(v, i, RDX, s.count) : implicit_length(&s.b, s.imm, s.count);
    *result = aggregate(&s);
    *count = s.count;
    flags_set(v, (*result ? FLAG_CF : 0) | (s.b_length < s.count ? FLAG_ZF : 0) | (s.a_length < s.count ? FLAG_SF : 0) |
                     (*result & 1 ? FLAG_OF : 0));
    return true;
}

static const struct insn *index_result(struct vcpu *v, const struct insn *i, bool is_explicit)
{
    uint32_t result;
    unsigned count;
    if (!compare(v, i, is_explicit, &result, &count))
        return NULL;
    if (!result)
        v->gpr[RCX] = count;
    else
        v->gpr[RCX] = (unsigned)(i->imm & 0x40 ? 31 - __builtin_clz(result) : __builtin_ctz(result));
    return i + 1;
}

static const struct insn *mask_result(struct vcpu *v, const struct insn *i, bool is_explicit)
{
    uint32_t result;
    unsigned count;
    union vector x = {0};
    if (!compare(v, i, is_explicit, &result, &count))
        return NULL;
    if (!(i->imm & 0x40))
        x.u32[0] = result;
    else
        for (unsigned k = 0; k < 16; k++)
            x.u8[k] = result >> (count == 8 ? k / 2 : k) & 1 ? 0xff : 0;
    vector_write(v, i, 0, &x);
    return i + 1;
}

static const struct insn *run_pcmpestri(struct vcpu *v, const struct insn *i)
{
    return index_result(v, i, true);
}

static const struct insn *run_pcmpistri(struct vcpu *v, const struct insn *i)
{
    return index_result(v, i, false);
}

static const struct insn *run_pcmpestrm(struct vcpu *v, const struct insn *i)
{
    return mask_result(v, i, true);
}

static const struct insn *run_pcmpistrm(struct vcpu *v, const struct insn *i)
{
    return mask_result(v, i, false);
}

#define STRING(name, handler)                                                                                          \
    {.mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = GATE_SSE, .reg = handler, .mem = handler},       \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_V##name, .class = CLASS_PLAIN, .gate = GATE_AVX, .reg = handler, .mem = handler     \
    }

const struct insn_row interpret_rows_text[] = {
    STRING(PCMPESTRI, run_pcmpestri),
    STRING(PCMPESTRM, run_pcmpestrm),
    STRING(PCMPISTRI, run_pcmpistri),
    STRING(PCMPISTRM, run_pcmpistrm),
    VECTOR_END,
};
