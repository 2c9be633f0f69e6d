// SPDX-License-Identifier: GPL-2.0-or-later
// What is to be known of AVX-512 instructions beside what the decoder says.
#include "core/cpu/interpret/avx512.h"
#include "core/cpu/model.h"

// ---- What CPUID hides -----------------------------------------------------------------------------------------------

// All lengths of an ISA set; those of 128 and 256 bits need VL too. Scalars and opmask instructions do not.
#define LENGTHS(set, feature)                                                                                          \
    {ZYDIS_ISA_SET_##set##_128, feature, true}, {ZYDIS_ISA_SET_##set##_256, feature, true},                            \
    {                                                                                                                  \
        ZYDIS_ISA_SET_##set##_512, feature, false                                                                      \
    }

bool avx512_shown(const struct cpu_model *m, unsigned isa_set)
{
    static const struct {
        uint8_t isa_set;
        uint16_t feature;
        bool needs_vl;
    } sets[] = {
        LENGTHS(AVX512F, FEATURE_AVX512F),
        LENGTHS(AVX512DQ, FEATURE_AVX512DQ),
        LENGTHS(AVX512BW, FEATURE_AVX512BW),
        LENGTHS(AVX512CD, FEATURE_AVX512CD),
        LENGTHS(AVX512_IFMA, FEATURE_AVX512_IFMA),
        LENGTHS(AVX512_VBMI, FEATURE_AVX512_VBMI),
        LENGTHS(AVX512_VBMI2, FEATURE_AVX512_VBMI2),
        LENGTHS(AVX512_VNNI, FEATURE_AVX512_VNNI),
        LENGTHS(AVX512_BITALG, FEATURE_AVX512_BITALG),
        LENGTHS(AVX512_VPOPCNTDQ, FEATURE_AVX512_VPOPCNTDQ),
        LENGTHS(AVX512_BF16, FEATURE_AVX512_BF16),
        LENGTHS(AVX512_FP16, FEATURE_AVX512_FP16),
        LENGTHS(AVX512_VP2INTERSECT, FEATURE_AVX512_VP2INTERSECT),
        LENGTHS(AVX512_GFNI, FEATURE_GFNI),
        LENGTHS(AVX512_VAES, FEATURE_VAES),
        LENGTHS(AVX512_VPCLMULQDQ, FEATURE_VPCLMULQDQ),
        {ZYDIS_ISA_SET_AVX512F_128N, FEATURE_AVX512F, false},
        {ZYDIS_ISA_SET_AVX512F_KOP, FEATURE_AVX512F, false},
        {ZYDIS_ISA_SET_AVX512F_SCALAR, FEATURE_AVX512F, false},
        {ZYDIS_ISA_SET_AVX512DQ_128N, FEATURE_AVX512DQ, false},
        {ZYDIS_ISA_SET_AVX512DQ_KOP, FEATURE_AVX512DQ, false},
        {ZYDIS_ISA_SET_AVX512DQ_SCALAR, FEATURE_AVX512DQ, false},
        {ZYDIS_ISA_SET_AVX512BW_128N, FEATURE_AVX512BW, false},
        {ZYDIS_ISA_SET_AVX512BW_KOP, FEATURE_AVX512BW, false},
        {ZYDIS_ISA_SET_AVX512_FP16_128N, FEATURE_AVX512_FP16, false},
        {ZYDIS_ISA_SET_AVX512_FP16_SCALAR, FEATURE_AVX512_FP16, false},
    };
    for (unsigned n = 0; n < G_N_ELEMENTS(sets); n++)
        if (sets[n].isa_set == isa_set)
            return cpu_has(m, FEATURE_AVX512F) && cpu_has(m, sets[n].feature) &&
                   (!sets[n].needs_vl || cpu_has(m, FEATURE_AVX512VL));
    return false;
}

// ---- Operands -------------------------------------------------------------------------------------------------------

bool avx512_ignores_w(unsigned mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTSI2SH:
    case ZYDIS_MNEMONIC_VCVTUSI2SS:
    case ZYDIS_MNEMONIC_VCVTUSI2SD:
    case ZYDIS_MNEMONIC_VCVTUSI2SH:
        return true;
    default:
        return false;
    }
}

bool avx512_suppresses_faults(const ZydisDecodedInstruction *z)
{
    switch (z->mnemonic) { // other than the decoder says
    case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
    case ZYDIS_MNEMONIC_VCVTNE2PS2BF16:
    case ZYDIS_MNEMONIC_VDBPSADBW:
        return false;
    default:
        break;
    }
    switch (z->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF:
    case ZYDIS_EXCEPTION_CLASS_E5NF:
    case ZYDIS_EXCEPTION_CLASS_E6NF:
    case ZYDIS_EXCEPTION_CLASS_E9NF:
    case ZYDIS_EXCEPTION_CLASS_E10NF:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
        return false;
    default:
        return true;
    }
}
