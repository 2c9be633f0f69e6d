// SPDX-License-Identifier: GPL-2.0-or-later
// CPU models and the CPUID instruction (SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E).
#include "core/cpu/arch.h"
#include "core/cpu/lapic.h"
#include "core/cpu/model.h"

#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#define F(feature) (1u << ((feature)&31))

// ---- Models: the psABI levels for programs, and what a processor of that age has for systems -----------------------

#define V1_1_EDX                                                                                                       \
    (F(FEATURE_FPU) | F(FEATURE_VME) | F(FEATURE_DE) | F(FEATURE_PSE) | F(FEATURE_TSC) | F(FEATURE_MSR) |              \
     F(FEATURE_PAE) | F(FEATURE_MCE) | F(FEATURE_CX8) | F(FEATURE_APIC) | F(FEATURE_SEP) | F(FEATURE_MTRR) |           \
     F(FEATURE_PGE) | F(FEATURE_MCA) | F(FEATURE_CMOV) | F(FEATURE_PAT) | F(FEATURE_PSE36) | F(FEATURE_CLFLUSH) |      \
     F(FEATURE_MMX) | F(FEATURE_FXSR) | F(FEATURE_SSE) | F(FEATURE_SSE2))
#define V1_1_ECX    (F(FEATURE_X2APIC) | F(FEATURE_TSC_DEADLINE) | F(FEATURE_HYPERVISOR))
#define V1_EXT1_EDX (F(FEATURE_SYSCALL) | F(FEATURE_NX) | F(FEATURE_RDTSCP) | F(FEATURE_LM))
#define V1_7_EBX    (F(FEATURE_TSC_ADJUST) | F(FEATURE_ERMS))
#define V1_7_EDX    (F(FEATURE_SPEC_CTRL) | F(FEATURE_ARCH_CAPABILITIES) | F(FEATURE_FSRM))
#define V2_1_ECX                                                                                                       \
    (V1_1_ECX | F(FEATURE_SSE3) | F(FEATURE_SSSE3) | F(FEATURE_CX16) | F(FEATURE_SSE41) | F(FEATURE_SSE42) |           \
     F(FEATURE_POPCNT) | F(FEATURE_PCID))
#define V2_EXT1_EDX (V1_EXT1_EDX | F(FEATURE_PDPE1GB))
#define V3_1_ECX                                                                                                       \
    (V2_1_ECX | F(FEATURE_MOVBE) | F(FEATURE_FMA) | F(FEATURE_XSAVE) | F(FEATURE_AVX) | F(FEATURE_F16C) |              \
     F(FEATURE_AES) | F(FEATURE_PCLMULQDQ) | F(FEATURE_RDRAND))
#define V3_7_EBX                                                                                                       \
    (V1_7_EBX | F(FEATURE_FSGSBASE) | F(FEATURE_BMI1) | F(FEATURE_AVX2) | F(FEATURE_SMEP) | F(FEATURE_BMI2) |          \
     F(FEATURE_INVPCID) | F(FEATURE_SMAP) | F(FEATURE_RDSEED) | F(FEATURE_ADX))
#define MAX_7_EBX                                                                                                      \
    (V3_7_EBX | F(FEATURE_CLFLUSHOPT) | F(FEATURE_CLWB) | F(FEATURE_SHA) | F(FEATURE_AVX512F) | F(FEATURE_AVX512DQ) |  \
     F(FEATURE_AVX512_IFMA) | F(FEATURE_AVX512CD) | F(FEATURE_AVX512BW) | F(FEATURE_AVX512VL))
#define MAX_7_ECX                                                                                                      \
    (F(FEATURE_UMIP) | F(FEATURE_RDPID) | F(FEATURE_GFNI) | F(FEATURE_VAES) | F(FEATURE_VPCLMULQDQ) |                  \
     F(FEATURE_AVX512_VBMI) | F(FEATURE_AVX512_VBMI2) | F(FEATURE_AVX512_VNNI) | F(FEATURE_AVX512_BITALG) |            \
     F(FEATURE_AVX512_VPOPCNTDQ) | F(FEATURE_MOVDIRI) | F(FEATURE_MOVDIR64B))
#define MAX_7_EDX (V1_7_EDX | F(FEATURE_AVX512_VP2INTERSECT) | F(FEATURE_AVX512_FP16))

static const struct cpu_model models[] = {
    {"x86-64-v1",
     "64-bit baseline: SSE2",
     40,
     6,
     0x0f,
     11,
     {[WORD_1_EDX] = V1_1_EDX,
      [WORD_1_ECX] = V1_1_ECX,
      [WORD_EXT1_EDX] = V1_EXT1_EDX,
      [WORD_7_EBX] = V1_7_EBX,
      [WORD_7_EDX] = V1_7_EDX,
      [WORD_EXT1_ECX] = F(FEATURE_LAHF_LM)}},
    {"x86-64-v2",
     "SSE4.2, POPCNT",
     40,
     6,
     0x1a,
     5,
     {[WORD_1_EDX] = V1_1_EDX,
      [WORD_1_ECX] = V2_1_ECX,
      [WORD_EXT1_EDX] = V2_EXT1_EDX,
      [WORD_7_EBX] = V1_7_EBX,
      [WORD_7_EDX] = V1_7_EDX,
      [WORD_EXT1_ECX] = F(FEATURE_LAHF_LM)}},
    {"x86-64-v3",
     "AVX2, FMA, BMI, AES-NI",
     40,
     6,
     0x3c,
     3,
     {[WORD_1_EDX] = V1_1_EDX,
      [WORD_1_ECX] = V3_1_ECX,
      [WORD_EXT1_EDX] = V2_EXT1_EDX,
      [WORD_7_EBX] = V3_7_EBX,
      [WORD_7_ECX] = F(FEATURE_UMIP),
      [WORD_7_EDX] = V1_7_EDX,
      [WORD_D_1_EAX] = F(FEATURE_XSAVEOPT),
      [WORD_EXT1_ECX] = F(FEATURE_LAHF_LM) | F(FEATURE_LZCNT) | F(FEATURE_PREFETCHW)}},
    {"max",
     "everything that the engine implements",
     40,
     6,
     0x3c,
     3,
     {[WORD_1_EDX] = V1_1_EDX,
      [WORD_1_ECX] = V3_1_ECX,
      [WORD_EXT1_EDX] = V2_EXT1_EDX,
      [WORD_7_EBX] = MAX_7_EBX,
      [WORD_7_ECX] = MAX_7_ECX,
      [WORD_7_EDX] = MAX_7_EDX,
      [WORD_7_1_EAX] = F(FEATURE_AVX_VNNI) | F(FEATURE_AVX512_BF16),
      [WORD_D_1_EAX] = F(FEATURE_XSAVEOPT) | F(FEATURE_XSAVEC) | F(FEATURE_XGETBV1) | F(FEATURE_XSAVES),
      [WORD_EXT1_ECX] = F(FEATURE_LAHF_LM) | F(FEATURE_LZCNT) | F(FEATURE_PREFETCHW),
      [WORD_LAYOUT] = F(FEATURE_OPMASK_AT_1088) | F(FEATURE_OPMASK_AT_832)}},
};

char *cpu_model_names(void)
{
    GString *s = g_string_new(NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(models); i++)
        g_string_append_printf(s, "%s, ", models[i].name);
    g_string_append(s, "host");
    return g_string_free(s, false);
}

// Extensions that only "max" and "host" show, and only where the host's processor has them: programs choose them for
// their speed. Other kinds of host have none, so there what is computed is shown all the same. Their order is that of
// the bits in saved states.
static const struct {
    uint16_t feature;
    const char *name;
    bool avx512; // is not computed, and needs state that the host's system must keep
} extensions[] = {
    {FEATURE_SHA, "SHA", false},
    {FEATURE_GFNI, "GFNI", false},
    {FEATURE_VAES, "VAES", false},
    {FEATURE_VPCLMULQDQ, "VPCLMULQDQ", false},
    {FEATURE_AVX_VNNI, "AVX-VNNI", false},
    {FEATURE_AVX512F, "AVX-512F", true},
    {FEATURE_AVX512DQ, "AVX-512DQ", true},
    {FEATURE_AVX512_IFMA, "AVX-512 IFMA", true},
    {FEATURE_AVX512CD, "AVX-512CD", true},
    {FEATURE_AVX512BW, "AVX-512BW", true},
    {FEATURE_AVX512VL, "AVX-512VL", true},
    {FEATURE_AVX512_VBMI, "AVX-512 VBMI", true},
    {FEATURE_AVX512_VBMI2, "AVX-512 VBMI2", true},
    {FEATURE_AVX512_VNNI, "AVX-512 VNNI", true},
    {FEATURE_AVX512_BITALG, "AVX-512 BITALG", true},
    {FEATURE_AVX512_VPOPCNTDQ, "AVX-512 VPOPCNTDQ", true},
    {FEATURE_AVX512_BF16, "AVX-512 BF16", true},
    {FEATURE_AVX512_FP16, "AVX-512 FP16", true},
    {FEATURE_AVX512_VP2INTERSECT, "AVX-512 VP2INTERSECT", true},
    {FEATURE_OPMASK_AT_1088, "AVX-512 state in Intel's layout", true},
    {FEATURE_OPMASK_AT_832, "AVX-512 state in AMD's layout", true},
    {FEATURE_MOVDIRI, "MOVDIRI", false},
    {FEATURE_MOVDIR64B, "MOVDIR64B", false},
};

#ifdef __x86_64__
// Where the host's XSAVE has the opmask registers; the other AVX-512 components follow. 0: it does not keep them all.
static uint32_t host_layout(uint32_t leaf_1_ecx)
{
    uint32_t low, high, size, offset[3], ecx, edx;
    if (!(leaf_1_ecx & F(FEATURE_OSXSAVE)))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & XCR0_AVX512) != XCR0_AVX512)
        return 0;
    for (unsigned i = 0; i < 3; i++)
        __get_cpuid_count(0xd, 5 + i, &size, &offset[i], &ecx, &edx);
    if (offset[1] != offset[0] + 64 || offset[2] != offset[1] + 512)
        return 0;
    return offset[0] == 1088 ? F(FEATURE_OPMASK_AT_1088) : offset[0] == 832 ? F(FEATURE_OPMASK_AT_832) : 0;
}

static void host_words(uint32_t words[FEATURE_WORDS])
{
    uint32_t eax, ebx, ecx, edx;
    memset(words, 0, FEATURE_WORDS * sizeof *words);
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
        words[WORD_7_EBX] = ebx;
        words[WORD_7_ECX] = ecx;
        words[WORD_7_EDX] = edx;
    }
    if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx))
        words[WORD_7_1_EAX] = eax;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        words[WORD_LAYOUT] = host_layout(ecx);
}
#else
static void host_words(uint32_t words[FEATURE_WORDS])
{
    memset(words, 0xff, FEATURE_WORDS * sizeof *words);
}
#endif

static void hide_what_the_host_lacks(struct cpu_model *model, bool native)
{
    uint32_t words[FEATURE_WORDS];
    host_words(words);
    bool avx512 = native && words[WORD_LAYOUT] && (words[WORD_7_EBX] & F(FEATURE_AVX512F));
    for (unsigned i = 0; i < G_N_ELEMENTS(extensions); i++)
        if (!(words[extensions[i].feature >> 5] & F(extensions[i].feature)) || (extensions[i].avx512 && !avx512))
            model->words[extensions[i].feature >> 5] &= ~F(extensions[i].feature);
}

uint32_t cpu_model_extensions(const struct cpu_model *model)
{
    uint32_t bits = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(extensions); i++)
        bits |= (uint32_t)cpu_has(model, extensions[i].feature) << i;
    return bits;
}

const char *cpu_extension_name(unsigned bit)
{
    return bit < G_N_ELEMENTS(extensions) ? extensions[bit].name : "of a later version";
}

struct cpu_model *cpu_model_new(const char *name, bool native, GError **error)
{
    const char *wanted = !name || strcmp(name, "host") == 0 ? "max" : name;
    for (unsigned i = 0; i < G_N_ELEMENTS(models); i++)
        if (strcmp(models[i].name, wanted) == 0) {
            struct cpu_model *model = g_memdup2(&models[i], sizeof(models[i]));
            hide_what_the_host_lacks(model, native);
            return model;
        }
    g_autofree char *names = cpu_model_names();
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "There is no CPU model \"%s\": choose one of %s.", name,
                names);
    return NULL;
}

uint64_t cpu_model_xcr0(const struct cpu_model *model)
{
    return XCR0_X87 | XCR0_SSE | (cpu_has(model, FEATURE_AVX) ? XCR0_AVX : 0) |
           (cpu_has(model, FEATURE_AVX512F) ? XCR0_AVX512 : 0);
}

struct xsave_component xsave_component(const struct cpu_model *model, unsigned component)
{
    uint32_t opmask = cpu_has(model, FEATURE_OPMASK_AT_832) ? 832 : 1088;
    switch (cpu_model_xcr0(model) & BIT(component)) {
    case XCR0_AVX:
        return (struct xsave_component){256, 576};
    case XCR0_OPMASK:
        return (struct xsave_component){64, opmask};
    case XCR0_ZMMH:
        return (struct xsave_component){512, opmask + 64};
    case XCR0_ZMM16:
        return (struct xsave_component){1024, opmask + 64 + 512};
    default:
        return (struct xsave_component){0, 0};
    }
}

uint32_t xsave_size(const struct cpu_model *model, uint64_t components)
{
    uint32_t size = 576;
    for (unsigned n = 2; n < 8; n++)
        if (components & BIT(n))
            size = MAX(size, xsave_component(model, n).offset + xsave_component(model, n).size);
    return size;
}

uint32_t xsave_compacted_size(const struct cpu_model *model, uint64_t components)
{
    uint32_t size = 576;
    for (unsigned n = 2; n < 8; n++)
        if (components & BIT(n))
            size += xsave_component(model, n).size;
    return size;
}

// ---- Leaves -------------------------------------------------------------------------------------------------------

#define LEAF_MAX     0x16u
#define LEAF_EXT_MAX 0x80000008u

typedef void leaf_fn(struct vcpu *v, uint32_t subleaf, uint32_t out[4]);

static const struct cpu_model *model_of(const struct vcpu *v)
{
    return v->set->model;
}

static void leaf_0(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    out[0] = LEAF_MAX;
    memcpy(&out[1], "Genu", 4);
    memcpy(&out[3], "ineI", 4);
    memcpy(&out[2], "ntel", 4);
}

static void leaf_1(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    const struct cpu_model *m = model_of(v);
    out[0] = (uint32_t)m->stepping | (m->model & 15u) << 4 | (uint32_t)m->family << 8 | (uint32_t)(m->model >> 4) << 16;
    out[1] = 8u << 8 | v->set->count << 16 | (v->apic_id & 0xff) << 24;
    out[2] = m->words[WORD_1_ECX];
    if (v->cr4 & CR4_OSXSAVE)
        out[2] |= F(FEATURE_OSXSAVE);
    out[3] = m->words[WORD_1_EDX];
    if (v->set->count > 1)
        out[3] |= F(FEATURE_HTT);
    if (!(v->apic_base & BIT(11)))
        out[3] &= ~F(FEATURE_APIC);
}

static void leaf_2(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    out[0] = 0x00feff01; // see leaf 4
}

static void leaf_4(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    static const struct {
        uint32_t type, level, ways, sets;
    } caches[] = {{1, 1, 8, 64}, {2, 1, 8, 64}, {3, 2, 16, 1024}};
    if (subleaf >= G_N_ELEMENTS(caches))
        return;
    out[0] = caches[subleaf].type | caches[subleaf].level << 5 | 1u << 8 | (v->set->count - 1) << 26;
    out[1] = 63 | (caches[subleaf].ways - 1) << 22;
    out[2] = caches[subleaf].sets - 1;
}

static void leaf_6(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    out[0] = 1u << 2; // the APIC timer always runs
}

static void leaf_7(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    const struct cpu_model *m = model_of(v);
    if (subleaf == 1)
        out[0] = m->words[WORD_7_1_EAX];
    if (subleaf)
        return;
    out[0] = 1;
    out[1] = m->words[WORD_7_EBX];
    out[2] = m->words[WORD_7_ECX];
    out[3] = m->words[WORD_7_EDX];
}

static void leaf_b(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    unsigned core_bits = v->set->count > 1 ? 32 - (unsigned)__builtin_clz(v->set->count - 1) : 0;
    out[2] = subleaf;
    out[3] = v->apic_id;
    if (subleaf == 0) {
        out[1] = 1;
        out[2] |= 1u << 8; // SMT
    } else if (subleaf == 1) {
        out[0] = core_bits;
        out[1] = v->set->count;
        out[2] |= 2u << 8; // core
    }
}

static void leaf_d(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    const struct cpu_model *m = model_of(v);
    if (!cpu_has(m, FEATURE_XSAVE))
        return;
    uint64_t possible = cpu_model_xcr0(m);
    if (subleaf == 0) {
        out[0] = (uint32_t)possible;
        out[1] = xsave_size(m, v->xcr0);
        out[2] = xsave_size(m, possible);
    } else if (subleaf == 1) {
        out[0] = m->words[WORD_D_1_EAX];
        if (cpu_has(m, FEATURE_XSAVEC))
            out[1] = xsave_compacted_size(m, v->xcr0);
    } else if (subleaf < 8) {
        out[0] = xsave_component(m, subleaf).size;
        out[1] = xsave_component(m, subleaf).offset;
    }
}

static void leaf_15(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    // A crystal of 1 GHz, which also clocks the APIC timer.
    if (v->set->tsc_khz == 1000000) {
        out[0] = out[1] = 1;
        out[2] = 1000000000;
    }
}

static void leaf_16(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    out[0] = out[1] = (uint32_t)(v->set->tsc_khz / 1000);
    out[2] = 100;
}

// The paravirtual interface: the KVM signature, of which only the clock is offered.
static void leaf_hypervisor(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    out[0] = 0x40000010;
    memcpy(&out[1], "KVMKVMKVM\0\0\0", 12);
}

static void leaf_hypervisor_features(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    out[0] = 1u << 0 | 1u << 3 | 1u << 24; // clock at the old and the new MSRs, stable
}

static void leaf_hypervisor_timing(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    out[0] = (uint32_t)v->set->tsc_khz;
    out[1] = 1000000; // APIC bus, kHz
}

static void leaf_ext_0(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    out[0] = LEAF_EXT_MAX;
}

static void leaf_ext_1(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    out[2] = model_of(v)->words[WORD_EXT1_ECX];
    out[3] = model_of(v)->words[WORD_EXT1_EDX];
    if (!(v->efer & EFER_LMA) || !(v->seg[CS].attr & SEG_L))
        out[3] &= ~F(FEATURE_SYSCALL); // Intel: only in 64-bit mode
}

static void brand(struct vcpu *v, unsigned part, uint32_t out[4])
{
    char text[48] = "Cloche virtual processor ";
    g_strlcat(text, model_of(v)->name, sizeof(text));
    memcpy(out, text + 16 * part, 16);
}
static void leaf_ext_2(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    brand(v, 0, out);
}
static void leaf_ext_3(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    brand(v, 1, out);
}
static void leaf_ext_4(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    brand(v, 2, out);
}

static void leaf_ext_6(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    out[2] = 64 | 8u << 12 | 1024u << 16; // second-level cache
}

static void leaf_ext_7(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    out[3] = 1u << 8; // invariant TSC
}

static void leaf_ext_8(struct vcpu *v, uint32_t subleaf, uint32_t out[4])
{
    out[0] = model_of(v)->physical_bits | 48u << 8;
}

static const struct {
    uint32_t leaf;
    leaf_fn *fn;
} leaves[] = {
    {0x0, leaf_0},
    {0x1, leaf_1},
    {0x2, leaf_2},
    {0x4, leaf_4},
    {0x6, leaf_6},
    {0x7, leaf_7},
    {0xb, leaf_b},
    {0xd, leaf_d},
    {0x15, leaf_15},
    {0x16, leaf_16},
    {0x40000000, leaf_hypervisor},
    {0x40000001, leaf_hypervisor_features},
    {0x40000010, leaf_hypervisor_timing},
    {0x80000000, leaf_ext_0},
    {0x80000001, leaf_ext_1},
    {0x80000002, leaf_ext_2},
    {0x80000003, leaf_ext_3},
    {0x80000004, leaf_ext_4},
    {0x80000006, leaf_ext_6},
    {0x80000007, leaf_ext_7},
    {0x80000008, leaf_ext_8},
};

void vcpu_cpuid(struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    // Beyond the last leaf Intel answers with the last basic one.
    bool known_range =
        leaf <= LEAF_MAX || (leaf >= 0x40000000 && leaf <= 0x400000ff) || (leaf >= 0x80000000 && leaf <= LEAF_EXT_MAX);
    if (!known_range)
        leaf = LEAF_MAX;
    memset(out, 0, 4 * sizeof(uint32_t));
    for (unsigned i = 0; i < G_N_ELEMENTS(leaves); i++)
        if (leaves[i].leaf == leaf) {
            leaves[i].fn(vcpu, subleaf, out);
            return;
        }
}
