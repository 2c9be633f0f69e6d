// SPDX-License-Identifier: GPL-2.0-or-later
// CPU models: which features a guest sees. CPUID is built from them, and what CPUID hides raises #UD or #GP.
#ifndef CLOCHE_MODEL_H
#define CLOCHE_MODEL_H

#include "core/cpu/vcpu.h"

// One word per CPUID register with feature bits.
enum feature_word {
    WORD_1_ECX,
    WORD_1_EDX,
    WORD_7_EBX,
    WORD_7_ECX,
    WORD_7_EDX,
    WORD_7_1_EAX,
    WORD_D_1_EAX,
    WORD_EXT1_ECX,
    WORD_EXT1_EDX,
    WORD_LAYOUT, // not of CPUID: where XSAVE puts the opmask registers, which two vendors see differently
    FEATURE_WORDS,
};
#define FEATURE(word, bit) ((word) << 5 | (bit))

enum cpu_feature {
    FEATURE_SSE3 = FEATURE(WORD_1_ECX, 0),
    FEATURE_PCLMULQDQ = FEATURE(WORD_1_ECX, 1),
    FEATURE_MONITOR = FEATURE(WORD_1_ECX, 3),
    FEATURE_SSSE3 = FEATURE(WORD_1_ECX, 9),
    FEATURE_FMA = FEATURE(WORD_1_ECX, 12),
    FEATURE_CX16 = FEATURE(WORD_1_ECX, 13),
    FEATURE_PCID = FEATURE(WORD_1_ECX, 17),
    FEATURE_SSE41 = FEATURE(WORD_1_ECX, 19),
    FEATURE_SSE42 = FEATURE(WORD_1_ECX, 20),
    FEATURE_X2APIC = FEATURE(WORD_1_ECX, 21),
    FEATURE_MOVBE = FEATURE(WORD_1_ECX, 22),
    FEATURE_POPCNT = FEATURE(WORD_1_ECX, 23),
    FEATURE_TSC_DEADLINE = FEATURE(WORD_1_ECX, 24),
    FEATURE_AES = FEATURE(WORD_1_ECX, 25),
    FEATURE_XSAVE = FEATURE(WORD_1_ECX, 26),
    FEATURE_OSXSAVE = FEATURE(WORD_1_ECX, 27),
    FEATURE_AVX = FEATURE(WORD_1_ECX, 28),
    FEATURE_F16C = FEATURE(WORD_1_ECX, 29),
    FEATURE_RDRAND = FEATURE(WORD_1_ECX, 30),
    FEATURE_HYPERVISOR = FEATURE(WORD_1_ECX, 31),

    FEATURE_FPU = FEATURE(WORD_1_EDX, 0),
    FEATURE_VME = FEATURE(WORD_1_EDX, 1),
    FEATURE_DE = FEATURE(WORD_1_EDX, 2),
    FEATURE_PSE = FEATURE(WORD_1_EDX, 3),
    FEATURE_TSC = FEATURE(WORD_1_EDX, 4),
    FEATURE_MSR = FEATURE(WORD_1_EDX, 5),
    FEATURE_PAE = FEATURE(WORD_1_EDX, 6),
    FEATURE_MCE = FEATURE(WORD_1_EDX, 7),
    FEATURE_CX8 = FEATURE(WORD_1_EDX, 8),
    FEATURE_APIC = FEATURE(WORD_1_EDX, 9),
    FEATURE_SEP = FEATURE(WORD_1_EDX, 11),
    FEATURE_MTRR = FEATURE(WORD_1_EDX, 12),
    FEATURE_PGE = FEATURE(WORD_1_EDX, 13),
    FEATURE_MCA = FEATURE(WORD_1_EDX, 14),
    FEATURE_CMOV = FEATURE(WORD_1_EDX, 15),
    FEATURE_PAT = FEATURE(WORD_1_EDX, 16),
    FEATURE_PSE36 = FEATURE(WORD_1_EDX, 17),
    FEATURE_CLFLUSH = FEATURE(WORD_1_EDX, 19),
    FEATURE_MMX = FEATURE(WORD_1_EDX, 23),
    FEATURE_FXSR = FEATURE(WORD_1_EDX, 24),
    FEATURE_SSE = FEATURE(WORD_1_EDX, 25),
    FEATURE_SSE2 = FEATURE(WORD_1_EDX, 26),
    FEATURE_HTT = FEATURE(WORD_1_EDX, 28),

    FEATURE_FSGSBASE = FEATURE(WORD_7_EBX, 0),
    FEATURE_TSC_ADJUST = FEATURE(WORD_7_EBX, 1),
    FEATURE_BMI1 = FEATURE(WORD_7_EBX, 3),
    FEATURE_AVX2 = FEATURE(WORD_7_EBX, 5),
    FEATURE_SMEP = FEATURE(WORD_7_EBX, 7),
    FEATURE_BMI2 = FEATURE(WORD_7_EBX, 8),
    FEATURE_ERMS = FEATURE(WORD_7_EBX, 9),
    FEATURE_INVPCID = FEATURE(WORD_7_EBX, 10),
    FEATURE_AVX512F = FEATURE(WORD_7_EBX, 16),
    FEATURE_AVX512DQ = FEATURE(WORD_7_EBX, 17),
    FEATURE_RDSEED = FEATURE(WORD_7_EBX, 18),
    FEATURE_ADX = FEATURE(WORD_7_EBX, 19),
    FEATURE_SMAP = FEATURE(WORD_7_EBX, 20),
    FEATURE_AVX512_IFMA = FEATURE(WORD_7_EBX, 21),
    FEATURE_CLFLUSHOPT = FEATURE(WORD_7_EBX, 23),
    FEATURE_CLWB = FEATURE(WORD_7_EBX, 24),
    FEATURE_AVX512CD = FEATURE(WORD_7_EBX, 28),
    FEATURE_SHA = FEATURE(WORD_7_EBX, 29),
    FEATURE_AVX512BW = FEATURE(WORD_7_EBX, 30),
    FEATURE_AVX512VL = FEATURE(WORD_7_EBX, 31),
    FEATURE_AVX512_VBMI = FEATURE(WORD_7_ECX, 1),
    FEATURE_UMIP = FEATURE(WORD_7_ECX, 2),
    FEATURE_AVX512_VBMI2 = FEATURE(WORD_7_ECX, 6),
    FEATURE_GFNI = FEATURE(WORD_7_ECX, 8),
    FEATURE_VAES = FEATURE(WORD_7_ECX, 9),
    FEATURE_VPCLMULQDQ = FEATURE(WORD_7_ECX, 10),
    FEATURE_AVX512_VNNI = FEATURE(WORD_7_ECX, 11),
    FEATURE_AVX512_BITALG = FEATURE(WORD_7_ECX, 12),
    FEATURE_AVX512_VPOPCNTDQ = FEATURE(WORD_7_ECX, 14),
    FEATURE_RDPID = FEATURE(WORD_7_ECX, 22),
    FEATURE_MOVDIRI = FEATURE(WORD_7_ECX, 27),
    FEATURE_MOVDIR64B = FEATURE(WORD_7_ECX, 28),
    FEATURE_FSRM = FEATURE(WORD_7_EDX, 4),
    FEATURE_AVX512_VP2INTERSECT = FEATURE(WORD_7_EDX, 8),
    FEATURE_MD_CLEAR = FEATURE(WORD_7_EDX, 10),
    FEATURE_SERIALIZE = FEATURE(WORD_7_EDX, 14),
    FEATURE_AVX512_FP16 = FEATURE(WORD_7_EDX, 23),
    FEATURE_SPEC_CTRL = FEATURE(WORD_7_EDX, 26),
    FEATURE_ARCH_CAPABILITIES = FEATURE(WORD_7_EDX, 29),
    FEATURE_SSBD = FEATURE(WORD_7_EDX, 31),
    FEATURE_AVX_VNNI = FEATURE(WORD_7_1_EAX, 4),
    FEATURE_AVX512_BF16 = FEATURE(WORD_7_1_EAX, 5),
    FEATURE_XSAVEOPT = FEATURE(WORD_D_1_EAX, 0),
    FEATURE_XSAVEC = FEATURE(WORD_D_1_EAX, 1),
    FEATURE_XGETBV1 = FEATURE(WORD_D_1_EAX, 2),
    FEATURE_XSAVES = FEATURE(WORD_D_1_EAX, 3),

    FEATURE_LAHF_LM = FEATURE(WORD_EXT1_ECX, 0),
    FEATURE_LZCNT = FEATURE(WORD_EXT1_ECX, 5),
    FEATURE_PREFETCHW = FEATURE(WORD_EXT1_ECX, 8),
    FEATURE_SYSCALL = FEATURE(WORD_EXT1_EDX, 11),
    FEATURE_NX = FEATURE(WORD_EXT1_EDX, 20),
    FEATURE_PDPE1GB = FEATURE(WORD_EXT1_EDX, 26),
    FEATURE_RDTSCP = FEATURE(WORD_EXT1_EDX, 27),
    FEATURE_LM = FEATURE(WORD_EXT1_EDX, 29),

    FEATURE_OPMASK_AT_1088 = FEATURE(WORD_LAYOUT, 0),
    FEATURE_OPMASK_AT_832 = FEATURE(WORD_LAYOUT, 1),
};

struct cpu_model {
    const char *name;
    const char *help;
    unsigned physical_bits; // MAXPHYADDR
    uint8_t family, model, stepping;
    uint32_t words[FEATURE_WORDS];
};

static inline bool cpu_has(const struct cpu_model *model, enum cpu_feature feature)
{
    return model->words[feature >> 5] >> (feature & 31) & 1;
}
// The model of that name, a new copy to be freed with g_free(). NATIVE: the host's processor runs the guest's vector
// instructions, so that "max" and "host" have those that are not computed. The error lists what there is.
struct cpu_model *cpu_model_new(const char *name, bool native, GError **error);
// "x86-64-v1, x86-64-v2, ...": for messages and --list. Free with g_free().
char *cpu_model_names(void);
// A bit for each extension of MODEL that not all hosts offer, always in the same place, for saved states; their names.
uint32_t cpu_model_extensions(const struct cpu_model *model);
const char *cpu_extension_name(unsigned bit);
// XCR0 bits that the guest may set.
uint64_t cpu_model_xcr0(const struct cpu_model *model);
// A component of the extended XSAVE region: its bytes, 0 for none, and where the standard format has it.
struct xsave_component {
    uint32_t size, offset;
};
struct xsave_component xsave_component(const struct cpu_model *model, unsigned component);
// Bytes of an XSAVE area for these components: in the standard format, compacted.
uint32_t xsave_size(const struct cpu_model *model, uint64_t components);
uint32_t xsave_compacted_size(const struct cpu_model *model, uint64_t components);

#endif
