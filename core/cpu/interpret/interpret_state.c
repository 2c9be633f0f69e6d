// SPDX-License-Identifier: GPL-2.0-or-later
// MXCSR, FXSAVE and the XSAVE family for the components x87, SSE, AVX and AVX-512 (SDM vol. 1, 10.5 and chapter 13).
#include "core/cpu/interpret/avx512.h"
#include "core/cpu/interpret/vector.h"
#include "core/cpu/interpret/x87.h"
#include "core/cpu/model.h"

#define MXCSR_MASK    0xffffu
#define MXCSR_DEFAULT 0x1f80u
#define COMPACTED     BIT(63)
#define EXTENDED      576u // where the components beyond x87 and SSE begin
#define LEGACY_HEADER 160u // before the XMM registers

static bool byte_writable(struct vcpu *v, uint64_t linear)
{
    return linear_host_write(v, linear, 1) || linear_probe_write(v, linear, 1);
}

static bool area_writable(struct vcpu *v, uint64_t linear, unsigned size)
{
    return byte_writable(v, linear + size - 1) && byte_writable(v, linear);
}

// Plain memory page by page, anything else by eight bytes.
static bool area_store(struct vcpu *v, uint64_t linear, const void *data, unsigned size)
{
    for (unsigned k = 0, n; k < size; k += n) {
        n = (unsigned)MIN(size - k, PAGE_SIZE - ((linear + k) & ~PAGE_MASK));
        void *host = linear_host_write(v, linear + k, 8);
        if (host)
            memcpy(host, (const uint8_t *)data + k, n);
        else if (!linear_store(v, linear + k, (const uint8_t *)data + k, n = 8))
            return false;
    }
    return true;
}

static bool area_load(struct vcpu *v, uint64_t linear, void *data, unsigned size)
{
    uint8_t last; // looked at first
    if (!linear_load(v, linear + size - 1, &last, 1))
        return false;
    for (unsigned k = 0, n; k < size; k += n) {
        n = (unsigned)MIN(size - k, PAGE_SIZE - ((linear + k) & ~PAGE_MASK));
        const void *host = linear_host_read(v, linear + k, 8);
        if (host)
            memcpy((uint8_t *)data + k, host, n);
        else if (!linear_load(v, linear + k, (uint8_t *)data + k, n = 8))
            return false;
    }
    return true;
}

static const struct insn *misaligned(struct vcpu *v, uint64_t linear)
{
    uint8_t byte;
    if (!vcpu_canonical(linear)) // that comes first, and knows the stack segment
        return linear_load(v, linear, &byte, 1) ? insn_fault(v, EXCEPTION_GP, 0) : NULL;
    return alignment_checked(v, linear, 4) ? insn_fault(v, EXCEPTION_GP, 0) : NULL;
}

static unsigned xmm_bytes(const struct insn *i)
{
    return i->code_size == 8 ? 256 : 128;
}

// Instruction and data pointers are 64 bits wide with REX.W, else offset and selector, which is deprecated and zero.
static void image_pointers(const struct insn *i, struct xsave_area *image)
{
    if (!i->vex_w) {
        image->fip = (uint32_t)image->fip;
        image->fdp = (uint32_t)image->fdp;
    }
}

// ---- MXCSR ----------------------------------------------------------------------------------------------------------

static const struct insn *run_ldmxcsr(struct vcpu *v, const struct insn *i)
{
    uint32_t mxcsr;
    if (!insn_load(v, i, &mxcsr, 4))
        return NULL;
    if (mxcsr & ~MXCSR_MASK)
        return insn_fault(v, EXCEPTION_GP, 0);
    v->xsave.mxcsr = mxcsr;
    return i + 1;
}

static const struct insn *run_stmxcsr(struct vcpu *v, const struct insn *i)
{
    return insn_store(v, i, &v->xsave.mxcsr, 4) ? i + 1 : NULL;
}

// ---- The x87 component ----------------------------------------------------------------------------------------------

static void x87_restore(struct vcpu *v, const struct insn *i, const struct xsave_area *image)
{
    struct xsave_area *x = &v->xsave;
    x->fcw = (uint16_t)((image->fcw & 0x1f3f) | 0x40);
    x->fsw = image->fsw;
    x->ftw = image->ftw;
    x->fop = image->fop & 0x7ff;
    x->fip = i->vex_w ? image->fip : (uint32_t)image->fip;
    x->fdp = i->vex_w ? image->fdp : (uint32_t)image->fdp;
    for (unsigned k = 0; k < 8; k++) {
        memset(x->st[k].bytes, 0, 16);
        memcpy(x->st[k].bytes, image->st[k].bytes, 10);
    }
    x87_update_summary(v);
}

static void x87_reset(struct vcpu *v)
{
    x87_init(v);
    memset(v->xsave.st, 0, sizeof(v->xsave.st));
}

static bool x87_in_use(const struct vcpu *v)
{
    static const uint8_t zero[sizeof(v->xsave.st)];
    const struct xsave_area *x = &v->xsave;
    return x->fcw != 0x37f || x->fsw || x->ftw || x->fop || x->fip || x->fdp || memcmp(x->st, zero, sizeof(zero)) != 0;
}

// ---- FXSAVE, FXRSTOR ------------------------------------------------------------------------------------------------

static const struct insn *run_fxsave(struct vcpu *v, const struct insn *i)
{
    uint64_t linear;
    struct xsave_area image;
    unsigned size = LEGACY_HEADER + xmm_bytes(i);
    if (!insn_linear(v, i, 512, ACCESS_WRITE, &linear))
        return NULL;
    if (linear & 15)
        return misaligned(v, linear);
    memcpy(&image, &v->xsave, 512);
    image.reserved0 = 0;
    image.mxcsr_mask = MXCSR_MASK;
    image_pointers(i, &image);
    for (unsigned k = 0; k < 8; k++)
        memset(image.st[k].bytes + 10, 0, 6);
    if (!area_writable(v, linear, 512) || !area_store(v, linear, &image, size))
        return NULL;
    return i + 1;
}

static const struct insn *run_fxrstor(struct vcpu *v, const struct insn *i)
{
    uint64_t linear;
    struct xsave_area image;
    unsigned size = LEGACY_HEADER + xmm_bytes(i);
    if (!insn_linear(v, i, 512, ACCESS_READ, &linear))
        return NULL;
    if (linear & 15)
        return misaligned(v, linear);
    if (!area_load(v, linear, &image, 512))
        return NULL;
    if (image.mxcsr & ~MXCSR_MASK)
        return insn_fault(v, EXCEPTION_GP, 0);
    x87_restore(v, i, &image);
    v->xsave.mxcsr = image.mxcsr;
    memcpy(v->xsave.xmm, image.xmm, size - LEGACY_HEADER);
    return i + 1;
}

// ---- XSAVE family ---------------------------------------------------------------------------------------------------

static uint64_t requested(const struct vcpu *v)
{
    return v->xcr0 & ((uint64_t)(uint32_t)v->gpr[RDX] << 32 | (uint32_t)v->gpr[RAX]);
}

static bool all_zero(const void *data, size_t size)
{
    uint64_t any = 0, word;
    for (size_t k = 0; k < size; k += sizeof word) {
        memcpy(&word, (const uint8_t *)data + k, sizeof word);
        any |= word;
    }
    return !any;
}

// Components beyond SSE: their bytes here, and how many of them an instruction of this code size sees, which outside
// 64-bit mode knows eight registers only.
struct component {
    void *bytes;
    uint32_t size, visible;
};

static struct component component_of(struct vcpu *v, const struct insn *i, unsigned number)
{
    bool all = i->code_size == 8;
    switch (BIT(number)) {
    case XCR0_AVX:
        return (struct component){v->xsave.ymmh, 256, all ? 256 : 128};
    case XCR0_OPMASK:
        return (struct component){v->avx512.opmask, 64, 64};
    case XCR0_ZMMH:
        return (struct component){v->avx512.zmmh, 512, all ? 512 : 256};
    default:
        return (struct component){v->avx512.zmm16, 1024, all ? 1024 : 0};
    }
}
#define COMPONENTS_FIRST 2u
#define COMPONENTS_END   8u

// Where component NUMBER lies in an area; FORMAT: XCOMP_BV, 0 for the standard format.
static uint32_t component_offset(const struct vcpu *v, unsigned number, uint64_t format)
{
    return format & COMPACTED ? xsave_compacted_size(v->set->model, format & (BIT(number) - 1))
                              : xsave_component(v->set->model, number).offset;
}

// Bytes up to the end of the last one of these components.
static uint32_t area_size(const struct vcpu *v, uint64_t components, uint64_t format)
{
    uint32_t size = EXTENDED;
    for (unsigned n = COMPONENTS_FIRST; n < COMPONENTS_END; n++)
        if (components & BIT(n))
            size = MAX(size, component_offset(v, n, format) + xsave_component(v->set->model, n).size);
    return size;
}

// XINUSE: components that are not in their initial state.
uint64_t vector_in_use(const struct vcpu *v)
{
    uint64_t avx512 = v->avx512.xstate_bv;
    return (x87_in_use(v) ? XCR0_X87 : 0) | (all_zero(v->xsave.xmm, sizeof(v->xsave.xmm)) ? 0 : XCR0_SSE) |
           (all_zero(v->xsave.ymmh, sizeof(v->xsave.ymmh)) ? 0 : XCR0_AVX) |
           (avx512 & XCR0_OPMASK && !all_zero(v->avx512.opmask, sizeof(v->avx512.opmask)) ? XCR0_OPMASK : 0) |
           (avx512 & XCR0_ZMMH && !all_zero(v->avx512.zmmh, sizeof(v->avx512.zmmh)) ? XCR0_ZMMH : 0) |
           (avx512 & XCR0_ZMM16 && !all_zero(v->avx512.zmm16, sizeof(v->avx512.zmm16)) ? XCR0_ZMM16 : 0);
}

// Bit 0 of the kind: only components in use are written; bit 1: compacted format.
enum save_kind { SAVE_PLAIN = 0, SAVE_OPTIMIZED = 1, SAVE_COMPACTED = 3 };

static bool store_components(struct vcpu *v, const struct insn *i, uint64_t linear, uint64_t which, bool mxcsr,
                             uint64_t format)
{
    struct xsave_area image;
    memcpy(&image, &v->xsave, LEGACY_HEADER);
    image.reserved0 = 0;
    image.mxcsr_mask = MXCSR_MASK;
    image_pointers(i, &image);
    for (unsigned k = 0; k < 8; k++)
        memset(image.st[k].bytes + 10, 0, 6);
    if (which & XCR0_X87 && !(area_store(v, linear, &image, 24) && area_store(v, linear + 32, image.st, 128)))
        return false;
    if (mxcsr && !area_store(v, linear + 24, &image.mxcsr, 8))
        return false;
    if (which & XCR0_SSE && !area_store(v, linear + LEGACY_HEADER, v->xsave.xmm, xmm_bytes(i)))
        return false;
    avx512_use(v, which & XCR0_AVX512);
    for (unsigned n = COMPONENTS_FIRST; n < COMPONENTS_END; n++) {
        struct component part = component_of(v, i, n);
        if (which & BIT(n) && !area_store(v, linear + component_offset(v, n, format), part.bytes, part.visible))
            return false;
    }
    return true;
}

static const struct insn *save(struct vcpu *v, const struct insn *i, enum save_kind kind)
{
    uint64_t linear, mask = requested(v), used = vector_in_use(v), header[2] = {0};
    uint64_t format = kind == SAVE_COMPACTED ? mask | COMPACTED : 0;
    unsigned size = area_size(v, mask, format);
    if (i->code_size != 8)
        used &= ~(uint64_t)XCR0_ZMM16;

    if (!insn_linear(v, i, size, ACCESS_WRITE, &linear))
        return NULL;
    if (linear & 63)
        return misaligned(v, linear);
    if (!area_writable(v, linear, size))
        return NULL;
    if (kind == SAVE_COMPACTED) {
        if (v->xsave.mxcsr != MXCSR_DEFAULT)
            used |= XCR0_SSE;
        header[0] = mask & used;
        header[1] = format;
    } else {
        if (!area_load(v, linear + 512, header, 8))
            return NULL;
        header[0] = (header[0] & ~mask) | (mask & used);
    }
    uint64_t which = kind & SAVE_OPTIMIZED ? mask & used : mask;
    bool mxcsr = kind == SAVE_COMPACTED ? which & XCR0_SSE : mask & (XCR0_SSE | XCR0_AVX);
    if (!store_components(v, i, linear, which, mxcsr, format))
        return NULL;
    return area_store(v, linear + 512, header, kind == SAVE_COMPACTED ? 16 : 8) ? i + 1 : NULL;
}

static const struct insn *run_xsave(struct vcpu *v, const struct insn *i)
{
    return save(v, i, SAVE_PLAIN);
}

static const struct insn *run_xsaveopt(struct vcpu *v, const struct insn *i)
{
    return save(v, i, SAVE_OPTIMIZED);
}

static const struct insn *run_xsavec(struct vcpu *v, const struct insn *i)
{
    return save(v, i, SAVE_COMPACTED);
}

static const struct insn *run_xsaves(struct vcpu *v, const struct insn *i)
{
    return v->cpl ? insn_fault(v, EXCEPTION_GP, 0) : save(v, i, SAVE_COMPACTED);
}

static bool header_valid(const struct vcpu *v, const uint64_t header[8], bool must_be_compacted)
{
    for (unsigned k = 2; k < 8; k++)
        if (header[k] && (k == 2 || header[1] & COMPACTED))
            return false;
    if (header[1] & COMPACTED)
        return !(header[1] & ~COMPACTED & ~v->xcr0) && !(header[0] & ~header[1]);
    return !must_be_compacted && !header[1] && !(header[0] & ~v->xcr0);
}

// IMAGE: the area as it lies in memory.
static void restore_extended(struct vcpu *v, const struct insn *i, const uint8_t *image, uint64_t mask,
                             const uint64_t header[2])
{
    for (unsigned n = COMPONENTS_FIRST; n < COMPONENTS_END; n++) {
        struct component part = component_of(v, i, n);
        uint64_t avx512 = BIT(n) & XCR0_AVX512;
        if (!(mask & BIT(n)))
            continue;
        if (header[0] & BIT(n)) {
            avx512_use(v, avx512);
            memcpy(part.bytes, image + component_offset(v, n, header[1]), part.visible);
        } else if (part.visible == part.size && avx512) {
            v->avx512.xstate_bv &= ~avx512;
        } else {
            memset(part.bytes, 0, part.visible);
        }
    }
}

static void restore_components(struct vcpu *v, const struct insn *i, const struct xsave_area *image, uint64_t mask,
                               const uint64_t header[2])
{
    if (mask & header[0] & XCR0_X87)
        x87_restore(v, i, image);
    else if (mask & XCR0_X87)
        x87_reset(v);
    unsigned bytes = xmm_bytes(i);
    if (mask & header[0] & XCR0_SSE)
        memcpy(v->xsave.xmm, image->xmm, bytes);
    else if (mask & XCR0_SSE)
        memset(v->xsave.xmm, 0, bytes);
    restore_extended(v, i, (const uint8_t *)image, mask, header);
}

static const struct insn *restore(struct vcpu *v, const struct insn *i, bool must_be_compacted)
{
    uint64_t linear, mask = requested(v);
    struct xsave_area image;

    if (!insn_linear(v, i, EXTENDED, ACCESS_READ, &linear))
        return NULL;
    if (linear & 63)
        return misaligned(v, linear);
    uint64_t header[8]; // its second word is what the processor looks at first
    if (!linear_load(v, linear + 520, header, 8) || !area_load(v, linear + 512, header, sizeof header))
        return NULL;
    // What a header that is not valid says of the size does not matter.
    uint64_t known = v->xcr0, format = header[1] & COMPACTED ? header[1] & (known | COMPACTED) : 0;
    uint64_t inside = header[1] & COMPACTED ? mask & format : mask;
    unsigned size = area_size(v, (inside & XCR0_AVX) | (inside & header[0] & XCR0_AVX512), format);
    if (!insn_linear(v, i, size, ACCESS_READ, &linear) || !area_load(v, linear, &image, size))
        return NULL;
    if (!header_valid(v, header, must_be_compacted))
        return insn_fault(v, EXCEPTION_GP, 0);

    bool compacted = header[1] & COMPACTED;
    uint32_t mxcsr = v->xsave.mxcsr;
    if (compacted && mask & XCR0_SSE)
        mxcsr = header[0] & XCR0_SSE ? image.mxcsr : MXCSR_DEFAULT;
    else if (!compacted && mask & (XCR0_SSE | XCR0_AVX))
        mxcsr = image.mxcsr;
    if (mxcsr & ~MXCSR_MASK) { // found out about after part of a compacted image was loaded
        if (compacted)
            restore_components(v, i, &image, mask & ~(header[0] & ~(uint64_t)(XCR0_X87 | XCR0_SSE)), header);
        return insn_fault(v, EXCEPTION_GP, 0);
    }
    v->xsave.mxcsr = mxcsr;
    restore_components(v, i, &image, mask, header);
    return i + 1;
}

static const struct insn *run_xrstor(struct vcpu *v, const struct insn *i)
{
    return restore(v, i, false);
}

static const struct insn *run_xrstors(struct vcpu *v, const struct insn *i)
{
    return v->cpl ? insn_fault(v, EXCEPTION_GP, 0) : restore(v, i, true);
}

#define ROW(name, gate_, handler)                                                                                      \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_MEMORY, .gate = gate_, .mem = handler                        \
    }
#define ROWS(name, gate_, handler) ROW(name, gate_, handler), ROW(name##64, gate_, handler)

const struct insn_row interpret_rows_state[] = {
    ROW(LDMXCSR, GATE_SSE, run_ldmxcsr),  ROW(STMXCSR, GATE_SSE, run_stmxcsr),
    ROW(VLDMXCSR, GATE_AVX, run_ldmxcsr), ROW(VSTMXCSR, GATE_AVX, run_stmxcsr),
    ROWS(FXSAVE, GATE_X87, run_fxsave),   ROWS(FXRSTOR, GATE_X87, run_fxrstor),
    ROWS(XSAVE, GATE_XSAVE, run_xsave),   ROWS(XSAVEOPT, GATE_XSAVE, run_xsaveopt),
    ROWS(XSAVEC, GATE_XSAVE, run_xsavec), ROWS(XSAVES, GATE_XSAVE, run_xsaves),
    ROWS(XRSTOR, GATE_XSAVE, run_xrstor), ROWS(XRSTORS, GATE_XSAVE, run_xrstors),
    {.mnemonic = ZYDIS_MNEMONIC_INVALID},
};
