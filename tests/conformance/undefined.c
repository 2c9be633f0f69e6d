// SPDX-License-Identifier: GPL-2.0-or-later
// What each instruction leaves undefined (SDM vol. 1, appendix A, and vol. 2): such bits are not compared.
#include "tests/conformance/conformance.h"

#define AF   FLAG_AF
#define OF   FLAG_OF
#define CF   FLAG_CF
#define SZAP (FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF)

static const struct {
    uint16_t mnemonic;
    uint32_t flags;
} undefined_flags[] = {
    {ZYDIS_MNEMONIC_AAA, OF | FLAG_SF | FLAG_ZF | FLAG_PF},
    {ZYDIS_MNEMONIC_AAS, OF | FLAG_SF | FLAG_ZF | FLAG_PF},
    {ZYDIS_MNEMONIC_AAD, OF | AF | CF},
    {ZYDIS_MNEMONIC_AAM, OF | AF | CF},
    {ZYDIS_MNEMONIC_DAA, OF},
    {ZYDIS_MNEMONIC_DAS, OF},
    {ZYDIS_MNEMONIC_AND, AF},
    {ZYDIS_MNEMONIC_OR, AF},
    {ZYDIS_MNEMONIC_XOR, AF},
    {ZYDIS_MNEMONIC_TEST, AF},
    {ZYDIS_MNEMONIC_ANDN, AF | FLAG_PF},
    {ZYDIS_MNEMONIC_BLSI, AF | FLAG_PF},
    {ZYDIS_MNEMONIC_BLSR, AF | FLAG_PF},
    {ZYDIS_MNEMONIC_BLSMSK, AF | FLAG_PF},
    {ZYDIS_MNEMONIC_BEXTR, AF | FLAG_SF | FLAG_PF},
    {ZYDIS_MNEMONIC_BZHI, AF | FLAG_PF},
    {ZYDIS_MNEMONIC_BSF, CF | OF | FLAG_SF | AF | FLAG_PF},
    {ZYDIS_MNEMONIC_BSR, CF | OF | FLAG_SF | AF | FLAG_PF},
    {ZYDIS_MNEMONIC_LZCNT, OF | FLAG_SF | AF | FLAG_PF},
    {ZYDIS_MNEMONIC_TZCNT, OF | FLAG_SF | AF | FLAG_PF},
    {ZYDIS_MNEMONIC_BT, OF | FLAG_SF | AF | FLAG_PF},
    {ZYDIS_MNEMONIC_BTC, OF | FLAG_SF | AF | FLAG_PF},
    {ZYDIS_MNEMONIC_BTR, OF | FLAG_SF | AF | FLAG_PF},
    {ZYDIS_MNEMONIC_BTS, OF | FLAG_SF | AF | FLAG_PF},
    {ZYDIS_MNEMONIC_MUL, SZAP},
    {ZYDIS_MNEMONIC_IMUL, SZAP},
    {ZYDIS_MNEMONIC_DIV, SZAP | CF | OF},
    {ZYDIS_MNEMONIC_IDIV, SZAP | CF | OF},
};

// Approximated by series or tables on the processor: the last place of the result, and C1 with it, is free.
static const uint16_t approximations[] = {
    ZYDIS_MNEMONIC_F2XM1, ZYDIS_MNEMONIC_FYL2X, ZYDIS_MNEMONIC_FYL2XP1, ZYDIS_MNEMONIC_FPATAN,
    ZYDIS_MNEMONIC_FPTAN, ZYDIS_MNEMONIC_FSIN,  ZYDIS_MNEMONIC_FCOS,    ZYDIS_MNEMONIC_FSINCOS,
};

static unsigned shift_count(const struct decoded *d, const struct vector *v)
{
    const ZydisDecodedOperand *o = &d->operands[d->zydis.operand_count_visible - 1];
    unsigned count = 1;
    if (d->zydis.operand_count_visible > 1)
        count = o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (unsigned)o->imm.value.u : (unsigned)v->in.gpr[RCX];
    return count & (d->operands[0].size == 64 ? 63 : 31);
}

// False: the result itself is undefined.
static bool mark_shift(const struct decoded *d, struct vector *v)
{
    unsigned count = shift_count(d, v), size = d->operands[0].size;
    switch (d->zydis.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
        if (count)
            v->undefined_flags |= AF;
        if (count > 1)
            v->undefined_flags |= OF;
        if (count >= size && d->zydis.mnemonic != ZYDIS_MNEMONIC_SAR)
            v->undefined_flags |= CF;
        return true;
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
        if (count != 1 && count)
            v->undefined_flags |= OF;
        return true;
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        if (count)
            v->undefined_flags |= AF;
        if (count > 1)
            v->undefined_flags |= OF;
        return count <= size;
    default:
        return true;
    }
}

// Saved x87 instruction and data pointers, and opcode: inside images at the first memory operand.
static void ignore_pointers(const struct decoded *d, struct vector *v)
{
    uint64_t at = v->window[0].address;
    const char *key = v->form->key;
    bool wide = d->zydis.operand_width != 16;
    if (!v->window[0].size)
        return;
    if (strncmp(key, "fxsave", 6) == 0 || strncmp(key, "xsave", 5) == 0) {
        v->ignore[0].address = at + 6;
        v->ignore[0].size = 18;
    } else if (d->zydis.mnemonic == ZYDIS_MNEMONIC_FNSTENV || d->zydis.mnemonic == ZYDIS_MNEMONIC_FNSAVE) {
        v->ignore[0].address = at + (wide ? 12 : 6);
        v->ignore[0].size = wide ? 16 : 8;
    }
}

static uint64_t register_significand(const struct vector *v, unsigned n)
{
    uint64_t x;
    memcpy(&x, v->in.xsave + 32 + 16 * n, 8);
    return x;
}

// Operands of F2XM1 beyond [-1, 1] and of FYL2XP1 beyond 1 - sqrt(1/2) have undefined results.
static bool in_range(const struct decoded *d, const struct vector *v)
{
    unsigned exponent = (v->in.xsave[40] | v->in.xsave[41] << 8) & 0x7fff;
    if (exponent == 0x7fff && register_significand(v, 0) << 1)
        return true; // a NaN
    if (d->zydis.mnemonic == ZYDIS_MNEMONIC_F2XM1)
        return exponent < 0x3fff || (exponent == 0x3fff && register_significand(v, 0) == 0x8000000000000000ull);
    if (d->zydis.mnemonic == ZYDIS_MNEMONIC_FYL2XP1)
        return exponent < 0x3ffd;
    return true;
}

bool mark_undefined(const struct decoded *d, struct vector *v)
{
    v->undefined_flags = 0;
    v->undefined_fsw = 0;
    v->approximate = false;
    memset(v->ignore, 0, sizeof(v->ignore));
    for (unsigned k = 0; k < G_N_ELEMENTS(undefined_flags); k++)
        if (undefined_flags[k].mnemonic == d->zydis.mnemonic)
            v->undefined_flags |= undefined_flags[k].flags;
    for (unsigned k = 0; k < G_N_ELEMENTS(approximations); k++)
        v->approximate |= approximations[k] == d->zydis.mnemonic;
    if (v->approximate)
        v->undefined_fsw |= 0x200;
    ignore_pointers(d, v);
    return mark_shift(d, v) && in_range(d, v);
}
