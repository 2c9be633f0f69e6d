// SPDX-License-Identifier: GPL-2.0-or-later
// Processor state after power-on, INIT and SIPI (SDM vol. 3, table 10-1 and 9.4.3), and the table of saved state.
#include "core/cpu/arch.h"
#include "core/cpu/lapic.h"
#include "core/cpu/model.h"
#include "core/cpu/thread.h"

#include <string.h>

static void reset_segments(struct vcpu *v)
{
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        v->seg[i] = (struct segment){.attr = 0x93, .limit = 0xffff};
    v->seg[CS] = (struct segment){.selector = 0xf000, .base = 0xffff0000, .attr = 0x9b, .limit = 0xffff};
    v->ldtr = (struct segment){.attr = 0x82, .limit = 0xffff};
    v->tr = (struct segment){.attr = 0x8b, .limit = 0xffff};
    v->gdtr = v->idtr = (struct table_register){.limit = 0xffff};
}

void vcpu_init(struct vcpu *vcpu)
{
    const struct cpu_model *m = vcpu->set->model;
    memset(vcpu->gpr, 0, sizeof(vcpu->gpr));
    vcpu->gpr[RDX] =
        (uint32_t)m->stepping | (m->model & 15u) << 4 | (uint32_t)m->family << 8 | (uint32_t)(m->model >> 4) << 16;
    vcpu->rip = 0xfff0;
    vcpu->rflags = FLAG_1;
    vcpu->cr0 = (vcpu->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
    vcpu->cr2 = vcpu->cr3 = vcpu->cr4 = 0;
    vcpu->efer = 0;
    reset_segments(vcpu);
    memset(vcpu->dr, 0, sizeof(vcpu->dr));
    vcpu->dr6 = 0xffff0ff0;
    vcpu->dr7 = 0x400;
    vcpu->cpl = 0;
    vcpu->nmi_blocked = false;
    vcpu->interrupt_shadow = 0;
    vcpu->event_pending = false;
    vcpu->activity = vcpu->index == 0 ? VCPU_RUNNING : VCPU_WAIT_FOR_SIPI;
    lapic_reset(vcpu->lapic, true);
    vcpu_flush_tlb(vcpu);
}

static void reset_msrs(struct vcpu *v)
{
    v->star = v->lstar = v->cstar = v->fmask = v->kernel_gs_base = v->tsc_aux = 0;
    v->sysenter_cs = v->sysenter_esp = v->sysenter_eip = 0;
    v->pat = 0x0007040600070406;
    v->apic_base = 0xfee00000 | BIT(11) | (v->index == 0 ? BIT(8) : 0);
    v->misc_enable = 0x1801; // fast strings; no BTS, no PEBS
    v->tsc_adjust = 0;
    v->feature_control = 1; // locked, VMX off
    v->spec_ctrl = v->debugctl = 0;
    v->microcode_version = 0x28ull << 32;
    v->mtrr_def_type = 0;
    memset(v->mtrr_fixed, 0, sizeof(v->mtrr_fixed));
    memset(v->mtrr_base, 0, sizeof(v->mtrr_base));
    memset(v->mtrr_mask, 0, sizeof(v->mtrr_mask));
    v->mcg_status = 0;
    v->mcg_cap = 4;
    memset(v->mc_ctl, 0, sizeof(v->mc_ctl));
    memset(v->mc_status, 0, sizeof(v->mc_status));
    v->kvmclock_system_time = v->kvmclock_wall_clock = 0;
}

void vcpu_reset(struct vcpu *vcpu)
{
    vcpu->cr0 = CR0_CD | CR0_NW;
    vcpu->xcr0 = XCR0_X87;
    memset(&vcpu->xsave, 0, sizeof(vcpu->xsave));
    vcpu->xsave.fcw = 0x40;
    vcpu->xsave.ftw = 0xff;
    vcpu->xsave.mxcsr = 0x1f80;
    vcpu->xsave.mxcsr_mask = 0xffff;
    vcpu->xsave.xstate_bv = XCR0_X87 | XCR0_SSE | XCR0_AVX; // every component is always there in full
    memset(&vcpu->avx512, 0, sizeof(vcpu->avx512));
    vcpu->avx512.xcomp_bv = AVX512_COMPACTED;
    vcpu->fpu_error_line = false;
    memset(vcpu->pdpte, 0, sizeof(vcpu->pdpte));
    reset_msrs(vcpu);
    lapic_reset(vcpu->lapic, false);
    vcpu_init(vcpu);
    lapic_reset(vcpu->lapic, false);
    vcpu->tsc_offset = 0;
    vcpu->tsc_offset = 0 - vcpu_read_tsc(vcpu);
    atomic_fetch_and(&vcpu->attention, (uint32_t)ATTENTION_STOP); // asked for by another thread
}

void vcpu_sipi(struct vcpu *vcpu, uint8_t vector)
{
    vcpu->seg[CS].selector = (uint16_t)(vector << 8);
    vcpu->seg[CS].base = (uint64_t)vector << 12;
    vcpu->rip = 0;
    vcpu->activity = VCPU_RUNNING;
}

static const struct field segment_fields[] = {
    FIELD_U16(struct segment, selector), FIELD_U16(struct segment, attr),      FIELD_U32(struct segment, limit),
    FIELD_U64(struct segment, base),     FIELD_BOOL(struct segment, unusable), FIELD_END,
};
static const struct field table_fields[] = {
    FIELD_U64(struct table_register, base),
    FIELD_U32(struct table_register, limit),
    FIELD_END,
};

static const struct field avx512_fields[] = {
    FIELD_U64(struct avx512_area, xstate_bv),
    FIELD_ARRAY(U64, struct avx512_area, opmask),
    FIELD_BYTES(struct avx512_area, zmmh),
    FIELD_BYTES(struct avx512_area, zmm16),
    FIELD_END,
};

const struct field vcpu_fields[] = {
    FIELD_ARRAY(U64, struct vcpu, gpr),
    FIELD_U64(struct vcpu, rip),
    FIELD_U64(struct vcpu, rflags),
    FIELD_U64(struct vcpu, cr0),
    FIELD_U64(struct vcpu, cr2),
    FIELD_U64(struct vcpu, cr3),
    FIELD_U64(struct vcpu, cr4),
    FIELD_U64(struct vcpu, efer),
    FIELD_U64(struct vcpu, xcr0),
    FIELD_STRUCT_ARRAY(struct vcpu, seg, segment_fields),
    FIELD_STRUCT(struct vcpu, ldtr, segment_fields),
    FIELD_STRUCT(struct vcpu, tr, segment_fields),
    FIELD_STRUCT(struct vcpu, gdtr, table_fields),
    FIELD_STRUCT(struct vcpu, idtr, table_fields),
    FIELD_ARRAY(U64, struct vcpu, dr),
    FIELD_U64(struct vcpu, dr6),
    FIELD_U64(struct vcpu, dr7),
    FIELD_U8(struct vcpu, cpl),
    FIELD_BOOL(struct vcpu, nmi_blocked),
    FIELD_U8(struct vcpu, interrupt_shadow),
    FIELD_U8(struct vcpu, activity),
    FIELD_BOOL(struct vcpu, fpu_error_line),
    FIELD_U64(struct vcpu, tsc_offset),
    FIELD_U64(struct vcpu, tsc_aux),
    FIELD_U64(struct vcpu, star),
    FIELD_U64(struct vcpu, lstar),
    FIELD_U64(struct vcpu, cstar),
    FIELD_U64(struct vcpu, fmask),
    FIELD_U64(struct vcpu, kernel_gs_base),
    FIELD_U64(struct vcpu, sysenter_cs),
    FIELD_U64(struct vcpu, sysenter_esp),
    FIELD_U64(struct vcpu, sysenter_eip),
    FIELD_U64(struct vcpu, pat),
    FIELD_U64(struct vcpu, apic_base),
    FIELD_U64(struct vcpu, misc_enable),
    FIELD_U64(struct vcpu, tsc_adjust),
    FIELD_U64(struct vcpu, feature_control),
    FIELD_U64(struct vcpu, spec_ctrl),
    FIELD_U64(struct vcpu, microcode_version),
    FIELD_U64(struct vcpu, debugctl),
    FIELD_U64(struct vcpu, mtrr_def_type),
    FIELD_ARRAY(U64, struct vcpu, mtrr_fixed),
    FIELD_ARRAY(U64, struct vcpu, mtrr_base),
    FIELD_ARRAY(U64, struct vcpu, mtrr_mask),
    FIELD_U64(struct vcpu, mcg_status),
    FIELD_U64(struct vcpu, mcg_cap),
    FIELD_ARRAY(U64, struct vcpu, mc_ctl),
    FIELD_ARRAY(U64, struct vcpu, mc_status),
    FIELD_U64(struct vcpu, kvmclock_system_time),
    FIELD_U64(struct vcpu, kvmclock_wall_clock),
    FIELD_ARRAY(U64, struct vcpu, pdpte),
    {.name = "xsave",
     .type = FIELD_TYPE_BYTES,
     .offset = offsetof(struct vcpu, xsave),
     .size = 1,
     .count = sizeof(struct xsave_area)},
    {.name = "avx512",
     .type = FIELD_TYPE_STRUCT,
     .offset = offsetof(struct vcpu, avx512),
     .size = sizeof(struct avx512_area),
     .count = 1,
     .since = 2,
     .sub = avx512_fields},
    FIELD_BOOL(struct vcpu, event_pending),
    FIELD_U8(struct vcpu, event_vector),
    FIELD_U8(struct vcpu, event_type),
    FIELD_BOOL(struct vcpu, event_has_error),
    FIELD_U32(struct vcpu, event_error),
    {.name = "attention", .type = FIELD_TYPE_U32, .offset = offsetof(struct vcpu, attention), .size = 4, .count = 1},
    FIELD_END,
};
