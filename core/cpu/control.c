// SPDX-License-Identifier: GPL-2.0-or-later
// Control, debug and extended control registers (SDM vol. 3, chapters 2, 5 and 18).
#include "core/cpu/arch.h"
#include "core/cpu/descriptor.h"
#include "core/cpu/lapic.h"
#include "core/cpu/model.h"

#define CR0_KNOWN (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR3_PCID  0xfffull

static bool has(const struct vcpu *v, enum cpu_feature feature)
{
    return cpu_has(v->set->model, feature);
}

static uint64_t cr4_allowed(const struct vcpu *v)
{
    static const struct {
        enum cpu_feature feature;
        uint32_t bits;
    } table[] = {
        {FEATURE_VME, CR4_VME | CR4_PVI}, {FEATURE_TSC, CR4_TSD},           {FEATURE_DE, CR4_DE},
        {FEATURE_PSE, CR4_PSE},           {FEATURE_PAE, CR4_PAE},           {FEATURE_MCE, CR4_MCE},
        {FEATURE_PGE, CR4_PGE},           {FEATURE_FXSR, CR4_OSFXSR},       {FEATURE_SSE, CR4_OSXMMEXCPT},
        {FEATURE_UMIP, CR4_UMIP},         {FEATURE_FSGSBASE, CR4_FSGSBASE}, {FEATURE_PCID, CR4_PCIDE},
        {FEATURE_XSAVE, CR4_OSXSAVE},     {FEATURE_SMEP, CR4_SMEP},         {FEATURE_SMAP, CR4_SMAP},
    };
    uint64_t allowed = CR4_PCE;
    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++)
        if (has(v, table[i].feature))
            allowed |= table[i].bits;
    return allowed;
}

// PAE paging outside long mode keeps the four page-directory pointers in the processor (SDM vol. 3, 5.4.1).
static bool load_pdpte(struct vcpu *v, uint64_t cr3)
{
    uint64_t pdpte[4], reserved = MASK_BITS(63, v->set->model->physical_bits) | 0x1e6;
    address_space_read(v->set->host.memory, cr3 & 0xffffffe0, pdpte, sizeof(pdpte));
    for (unsigned i = 0; i < 4; i++)
        if ((pdpte[i] & 1) && (pdpte[i] & reserved))
            return fault(v, EXCEPTION_GP, 0);
    for (unsigned i = 0; i < 4; i++)
        v->pdpte[i] = pdpte[i];
    return true;
}

static bool pae_legacy(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

// ---- Control registers ----
static bool write_cr0(struct vcpu *v, uint64_t value)
{
    if (value >> 32 || ((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        return fault(v, EXCEPTION_GP, 0);
    value = (value & CR0_KNOWN) | CR0_ET;
    uint64_t changed = value ^ v->cr0, efer = v->efer;
    if (changed & CR0_PG) {
        if (value & CR0_PG) {
            if (efer & EFER_LME) {
                if (!(v->cr4 & CR4_PAE) || (v->seg[CS].attr & SEG_L))
                    return fault(v, EXCEPTION_GP, 0);
                efer |= EFER_LMA;
            }
        } else {
            if (vcpu_code64(v) || (v->cr4 & CR4_PCIDE))
                return fault(v, EXCEPTION_GP, 0);
            efer &= ~(uint64_t)EFER_LMA;
        }
    }
    if ((changed & (CR0_PG | CR0_CD | CR0_NW)) && pae_legacy(value, v->cr4, efer) && !load_pdpte(v, v->cr3))
        return false;
    v->cr0 = value;
    v->efer = efer;
    if (changed & CR0_PE)
        vcpu_set_cpl(v, 0);
    if (changed & (CR0_PG | CR0_WP | CR0_PE))
        vcpu_flush_tlb(v);
    return true;
}

static bool write_cr3(struct vcpu *v, uint64_t value)
{
    bool keep = false;
    if (v->efer & EFER_LMA) {
        uint64_t reserved = MASK_BITS(62, v->set->model->physical_bits);
        if (v->cr4 & CR4_PCIDE) {
            keep = value >> 63;
            value &= ~BIT(63);
        } else {
            reserved |= BIT(63);
        }
        if (value & reserved)
            return fault(v, EXCEPTION_GP, 0);
    } else if (pae_legacy(v->cr0, v->cr4, v->efer) && !load_pdpte(v, value)) {
        return false;
    }
    v->cr3 = value;
    vcpu_switch_space(v, keep);
    return true;
}

static bool write_cr4(struct vcpu *v, uint64_t value)
{
    uint64_t changed = value ^ v->cr4;
    if (value & ~cr4_allowed(v))
        return fault(v, EXCEPTION_GP, 0);
    if (vcpu_long_mode(v) && !(value & CR4_PAE))
        return fault(v, EXCEPTION_GP, 0);
    if ((changed & value & CR4_PCIDE) && (!vcpu_long_mode(v) || (v->cr3 & CR3_PCID)))
        return fault(v, EXCEPTION_GP, 0);
    if ((changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)) && pae_legacy(v->cr0, value, v->efer) &&
        !load_pdpte(v, v->cr3))
        return false;
    v->cr4 = value;
    if (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP | CR4_SMAP | CR4_PCIDE))
        vcpu_flush_tlb(v);
    return true;
}

bool vcpu_write_cr(struct vcpu *vcpu, unsigned number, uint64_t value)
{
    switch (number) {
    case 0:
        return write_cr0(vcpu, value);
    case 2:
        vcpu->cr2 = value;
        return true;
    case 3:
        return write_cr3(vcpu, value);
    case 4:
        return write_cr4(vcpu, value);
    case 8:
        if (value >> 4)
            return fault(vcpu, EXCEPTION_GP, 0);
        lapic_set_tpr(vcpu->lapic, value);
        return true;
    default:
        return fault(vcpu, EXCEPTION_UD, -1);
    }
}

bool vcpu_read_cr(struct vcpu *vcpu, unsigned number, uint64_t *value)
{
    switch (number) {
    case 0:
        *value = vcpu->cr0;
        return true;
    case 2:
        *value = vcpu->cr2;
        return true;
    case 3:
        *value = vcpu->cr3;
        return true;
    case 4:
        *value = vcpu->cr4;
        return true;
    case 8:
        *value = lapic_tpr(vcpu->lapic);
        return true;
    default:
        return fault(vcpu, EXCEPTION_UD, -1);
    }
}

// ---- Debug registers (SDM vol. 3, 18.2) ----
#define DR6_FIXED 0xffff0ff0ull
#define DR7_FIXED 0x400ull
#define DR7_GD    BIT(13)

static bool debug_register(struct vcpu *v, unsigned *number)
{
    if (*number == 4 || *number == 5) {
        if (v->cr4 & CR4_DE)
            return fault(v, EXCEPTION_UD, -1);
        *number += 2;
    }
    if (v->dr7 & DR7_GD) {
        v->dr6 |= BIT(13);
        v->dr7 &= ~DR7_GD;
        return fault(v, EXCEPTION_DB, -1);
    }
    return true;
}

bool vcpu_write_dr(struct vcpu *vcpu, unsigned number, uint64_t value)
{
    if (!debug_register(vcpu, &number))
        return false;
    if (number >= 6 && value >> 32)
        return fault(vcpu, EXCEPTION_GP, 0);
    if (number < 4)
        vcpu->dr[number] = value;
    else if (number == 6)
        vcpu->dr6 = (value & 0x1e00f) | DR6_FIXED;
    else
        vcpu->dr7 = (value & 0xffff2bff) | DR7_FIXED;
    vcpu_flush_tlb(vcpu); // watched pages leave the fast path
    return true;
}

bool vcpu_read_dr(struct vcpu *vcpu, unsigned number, uint64_t *value)
{
    if (!debug_register(vcpu, &number))
        return false;
    *value = number < 4 ? vcpu->dr[number] : number == 6 ? vcpu->dr6 : vcpu->dr7;
    return true;
}

// ---- XCR0 ----
bool vcpu_write_xcr0(struct vcpu *vcpu, uint64_t value)
{
    if (!(value & XCR0_X87) || (value & ~cpu_model_xcr0(vcpu->set->model)) ||
        ((value & XCR0_AVX) && !(value & XCR0_SSE)) ||
        ((value & XCR0_AVX512) && ((value & XCR0_AVX512) != XCR0_AVX512 || !(value & XCR0_AVX))))
        return fault(vcpu, EXCEPTION_GP, 0);
    vcpu->xcr0 = value;
    return true;
}
