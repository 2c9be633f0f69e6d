// SPDX-License-Identifier: GPL-2.0-or-later
// x87 control: control and status words, environment and state images, stack pointer (SDM vol. 1, 8.1.10; vol. 2).
#include "core/cpu/interpret/vector.h"
#include "core/cpu/interpret/x87.h"

#define INDEX(i) ((i)->modrm & 7u)

static const struct insn *run_fninit(struct vcpu *v, const struct insn *i)
{
    x87_init(v);
    return i + 1;
}

static const struct insn *run_fnclex(struct vcpu *v, const struct insn *i)
{
    v->xsave.fsw &= FSW_CODE | FSW_TOP;
    x87_update_summary(v);
    return i + 1;
}

static const struct insn *run_fnstsw(struct vcpu *v, const struct insn *i)
{
    if (i->is_memory)
        return insn_store(v, i, &v->xsave.fsw, 2) ? i + 1 : NULL;
    slot_set_u16(v, VCPU_OFFSET(gpr[RAX]), v->xsave.fsw);
    return i + 1;
}

static const struct insn *run_fnstcw(struct vcpu *v, const struct insn *i)
{
    return insn_store(v, i, &v->xsave.fcw, 2) ? i + 1 : NULL;
}

static void load_control(struct vcpu *v, uint16_t fcw)
{
    v->xsave.fcw = (uint16_t)((fcw & 0x1f3f) | 0x40);
    x87_update_summary(v);
}

static const struct insn *run_fldcw(struct vcpu *v, const struct insn *i)
{
    uint16_t fcw;
    if (!x87_check_pending(v))
        return NULL;
    if (!insn_load(v, i, &fcw, 2))
        return NULL;
    load_control(v, fcw);
    return i + 1;
}

static const struct insn *run_fwait(struct vcpu *v, const struct insn *i)
{
    return x87_check_pending(v) ? i + 1 : NULL;
}

static const struct insn *run_fnop(struct vcpu *v, const struct insn *i)
{
    return x87_check_pending(v) ? i + 1 : NULL;
}

static const struct insn *run_obsolete(struct vcpu *v,
                                       const struct insn *i) // FENI, FDISI, FSETPM: nothing since the 287
{
    return i + 1;
}

// FDECSTP (F6), FINCSTP (F7)
static const struct insn *run_stack_pointer(struct vcpu *v, const struct insn *i)
{
    if (!x87_check_pending(v))
        return NULL;
    x87_rotate(v, (x87_top(v) + (i->modrm & 1 ? 1u : 7u)) & 7);
    v->xsave.fsw &= (uint16_t)~FSW_C1;
    return i + 1;
}

static const struct insn *run_ffree(struct vcpu *v, const struct insn *i)
{
    if (!x87_check_pending(v))
        return NULL;
    v->xsave.ftw &= (uint8_t) ~(1u << ((x87_top(v) + INDEX(i)) & 7));
    v->xsave.fsw &= (uint16_t)~FSW_C1;
    if (i->opcode == 0xdf) // FFREEP
        x87_pop(v);
    return i + 1;
}

// ---- Environment: 28 or 14 bytes, protected or real format (SDM vol. 1, figures 8-9 to 8-12)
// -------------------------

static unsigned environment_size(const struct insn *i)
{
    return i->operand_size == 2 ? 14 : 28;
}

static bool real_format(const struct vcpu *v)
{
    return vcpu_real_mode(v) || vcpu_v86(v);
}

// The selectors are deprecated and read as zero (CPUID 7.EBX[13]).
static void environment_build(const struct vcpu *v, const struct insn *i, uint8_t *image)
{
    const struct xsave_area *x = &v->xsave;
    uint32_t fip = (uint32_t)x->fip, fdp = (uint32_t)x->fdp, fop = x->fop & 0x7ff;

    if (i->operand_size == 2) {
        uint16_t words[7] = {x->fcw, x->fsw, x87_full_tags(v), (uint16_t)fip, 0, (uint16_t)fdp, 0};
        if (real_format(v)) {
            words[4] = (uint16_t)((fip >> 16 & 15) << 12 | fop);
            words[6] = (uint16_t)((fdp >> 16 & 15) << 12);
        }
        memcpy(image, words, sizeof(words));
        return;
    }
    uint32_t words[7] = {
        0xffff0000u | x->fcw, 0xffff0000u | x->fsw, 0xffff0000u | x87_full_tags(v), fip, fop << 16, fdp, 0xffff0000u};
    if (real_format(v)) {
        words[3] = 0xffff0000u | (fip & 0xffff);
        words[4] = fip >> 16 << 12 | fop;
        words[5] = 0xffff0000u | (fdp & 0xffff);
        words[6] = fdp >> 16 << 12;
    }
    memcpy(image, words, sizeof(words));
}

static void environment_load(struct vcpu *v, const struct insn *i, const uint8_t *image)
{
    struct xsave_area *x = &v->xsave;
    uint32_t words[7] = {0};

    for (unsigned k = 0; k < 7; k++)
        memcpy(&words[k], image + k * environment_size(i) / 7, environment_size(i) / 7);
    x87_rotate(v, words[1] >> 11 & 7);
    x->fsw = (uint16_t)words[1];
    x87_set_full_tags(v, (uint16_t)words[2]);
    if (real_format(v)) {
        x->fip = (words[3] & 0xffff) | (words[4] >> 12 << 16);
        x->fdp = (words[5] & 0xffff) | (words[6] >> 12 << 16);
        x->fop = words[4] & 0x7ff;
    } else {
        x->fip = words[3];
        x->fdp = words[5];
        x->fop = i->operand_size == 2 ? 0 : words[4] >> 16 & 0x7ff;
    }
    load_control(v, (uint16_t)words[0]);
}

static bool image_aligned(struct vcpu *v, const struct insn *i, uint64_t linear)
{
    return alignment_checked(v, linear, i->operand_size == 2 ? 2 : 4);
}

static bool store_bytes(struct vcpu *v, const struct insn *i, const uint8_t *data, unsigned size)
{
    uint64_t linear;
    if (!insn_linear(v, i, size, ACCESS_WRITE, &linear) || !image_aligned(v, i, linear) ||
        !linear_probe_write(v, linear, 1) || !linear_probe_write(v, linear + size - 1, 1))
        return false;
    for (unsigned k = 0; k < size; k += 2)
        if (!linear_store(v, linear + k, data + k, 2)) // an even address, or no alignment checks
            return false;
    return true;
}

static bool load_bytes(struct vcpu *v, const struct insn *i, uint8_t *data, unsigned size)
{
    uint64_t linear;
    uint8_t first[4], last; // looked at before the rest
    if (!insn_linear(v, i, size, ACCESS_READ, &linear) || !image_aligned(v, i, linear) ||
        !linear_load(v, linear, first, i->operand_size == 2 ? 2 : 4) || !linear_load(v, linear + size - 1, &last, 1))
        return false;
    for (unsigned k = 0; k < size; k += 2)
        if (!linear_load(v, linear + k, data + k, 2))
            return false;
    return true;
}

static const struct insn *run_fnstenv(struct vcpu *v, const struct insn *i)
{
    uint8_t image[28];
    environment_build(v, i, image);
    if (!store_bytes(v, i, image, environment_size(i)))
        return NULL;
    load_control(v, v->xsave.fcw | FLOAT_ALL);
    return i + 1;
}

static const struct insn *run_fldenv(struct vcpu *v, const struct insn *i)
{
    uint8_t image[28];
    if (!x87_check_pending(v))
        return NULL;
    if (!load_bytes(v, i, image, environment_size(i)))
        return NULL;
    environment_load(v, i, image);
    return i + 1;
}

static const struct insn *run_fnsave(struct vcpu *v, const struct insn *i)
{
    uint8_t image[28 + 80];
    unsigned start = environment_size(i);
    environment_build(v, i, image);
    for (unsigned k = 0; k < 8; k++)
        memcpy(image + start + 10 * k, v->xsave.st[k].bytes, 10);
    if (!store_bytes(v, i, image, start + 80))
        return NULL;
    x87_init(v);
    return i + 1;
}

static const struct insn *run_frstor(struct vcpu *v, const struct insn *i)
{
    uint8_t image[28 + 80];
    unsigned start = environment_size(i);
    if (!x87_check_pending(v))
        return NULL;
    if (!load_bytes(v, i, image, start + 80))
        return NULL;
    environment_load(v, i, image);
    for (unsigned k = 0; k < 8; k++) {
        memset(v->xsave.st[k].bytes, 0, 16);
        memcpy(v->xsave.st[k].bytes, image + start + 10 * k, 10);
    }
    return i + 1;
}

#define ROW(name, gate_, register_form, memory_form)                                                                   \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = gate_, .reg = register_form,                  \
        .mem = memory_form                                                                                             \
    }

const struct insn_row interpret_rows_x87_control[] = {
    ROW(FNINIT, GATE_X87, run_fninit, NULL),
    ROW(FNCLEX, GATE_X87, run_fnclex, NULL),
    ROW(FNSTSW, GATE_X87, run_fnstsw, run_fnstsw),
    ROW(FNSTCW, GATE_X87, NULL, run_fnstcw),
    ROW(FLDCW, GATE_X87, NULL, run_fldcw),
    ROW(FWAIT, GATE_WAIT, run_fwait, NULL),
    ROW(FNOP, GATE_X87, run_fnop, NULL),
    ROW(FENI8087_NOP, GATE_X87, run_obsolete, NULL),
    ROW(FDISI8087_NOP, GATE_X87, run_obsolete, NULL),
    ROW(FSETPM287_NOP, GATE_X87, run_obsolete, NULL),
    ROW(FDECSTP, GATE_X87, run_stack_pointer, NULL),
    ROW(FINCSTP, GATE_X87, run_stack_pointer, NULL),
    ROW(FFREE, GATE_X87, run_ffree, NULL),
    ROW(FFREEP, GATE_X87, run_ffree, NULL),
    ROW(FNSTENV, GATE_X87, NULL, run_fnstenv),
    ROW(FLDENV, GATE_X87, NULL, run_fldenv),
    ROW(FNSAVE, GATE_X87, NULL, run_fnsave),
    ROW(FRSTOR, GATE_X87, NULL, run_frstor),
    {.mnemonic = ZYDIS_MNEMONIC_INVALID},
};
