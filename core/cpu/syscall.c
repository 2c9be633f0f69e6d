// SPDX-License-Identifier: GPL-2.0-or-later
// SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM vol. 2B) and I/O permission (SDM vol. 1, 19.5).
#include "core/cpu/descriptor.h"

#define ATTR_CODE64 (0xb | SEG_S | SEG_P | SEG_L | SEG_G)
#define ATTR_CODE32 (0xb | SEG_S | SEG_P | SEG_DB | SEG_G)
#define ATTR_DATA   (0x3 | SEG_S | SEG_P | SEG_DB | SEG_G)

static void flat(struct segment *s, uint16_t selector, uint16_t attr, unsigned dpl)
{
    *s = (struct segment){.selector = selector, .attr = (uint16_t)(attr | dpl << 5), .limit = 0xffffffff};
}

bool vcpu_syscall(struct vcpu *vcpu, uint64_t return_rip)
{
    if (!(vcpu->efer & EFER_SCE) || !vcpu_code64(vcpu))
        return fault(vcpu, EXCEPTION_UD, -1);
    uint16_t selector = (uint16_t)(vcpu->star >> 32) & 0xfffc;
    vcpu->gpr[RCX] = return_rip;
    vcpu->gpr[R11] = vcpu->rflags & ~(uint64_t)FLAG_RF;
    flat(&vcpu->seg[CS], selector, ATTR_CODE64, 0);
    flat(&vcpu->seg[SS], selector + 8, ATTR_DATA, 0);
    vcpu->rip = vcpu->lstar;
    vcpu->rflags = (vcpu->rflags & ~(vcpu->fmask | FLAG_RF)) | FLAG_1;
    vcpu_set_cpl(vcpu, 0);
    return true;
}

bool vcpu_sysret(struct vcpu *vcpu, unsigned operand_size)
{
    if (!(vcpu->efer & EFER_SCE) || !vcpu_code64(vcpu))
        return fault(vcpu, EXCEPTION_UD, -1);
    if (vcpu->cpl || (operand_size == 8 && !vcpu_canonical(vcpu->gpr[RCX])))
        return fault(vcpu, EXCEPTION_GP, 0);
    uint16_t base = (uint16_t)(vcpu->star >> 48);
    if (operand_size == 8) {
        flat(&vcpu->seg[CS], (base + 16) | 3, ATTR_CODE64, 3);
        vcpu->rip = vcpu->gpr[RCX];
    } else {
        flat(&vcpu->seg[CS], base | 3, ATTR_CODE32, 3);
        vcpu->rip = (uint32_t)vcpu->gpr[RCX];
    }
    flat(&vcpu->seg[SS], (base + 8) | 3, ATTR_DATA, 3);
    vcpu->rflags = (vcpu->gpr[R11] & 0x3c7fd7) | FLAG_1;
    vcpu_set_cpl(vcpu, 3);
    return true;
}

bool vcpu_sysenter(struct vcpu *vcpu)
{
    if (vcpu_real_mode(vcpu) || !(vcpu->sysenter_cs & 0xfffc))
        return fault(vcpu, EXCEPTION_GP, 0);
    bool wide = vcpu_long_mode(vcpu);
    uint16_t selector = (uint16_t)vcpu->sysenter_cs & 0xfffc;
    vcpu->rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
    flat(&vcpu->seg[CS], selector, wide ? ATTR_CODE64 : ATTR_CODE32, 0);
    flat(&vcpu->seg[SS], selector + 8, ATTR_DATA, 0);
    vcpu->gpr[RSP] = wide ? vcpu->sysenter_esp : (uint32_t)vcpu->sysenter_esp;
    vcpu->rip = wide ? vcpu->sysenter_eip : (uint32_t)vcpu->sysenter_eip;
    vcpu_set_cpl(vcpu, 0);
    return true;
}

bool vcpu_sysexit(struct vcpu *vcpu, unsigned operand_size)
{
    if (vcpu_real_mode(vcpu) || vcpu->cpl || !(vcpu->sysenter_cs & 0xfffc))
        return fault(vcpu, EXCEPTION_GP, 0);
    uint16_t base = (uint16_t)vcpu->sysenter_cs & 0xfffc;
    bool to64 = operand_size == 8;
    if (to64 && (!vcpu_canonical(vcpu->gpr[RDX]) || !vcpu_canonical(vcpu->gpr[RCX])))
        return fault(vcpu, EXCEPTION_GP, 0);
    flat(&vcpu->seg[CS], (base + (to64 ? 32 : 16)) | 3, to64 ? ATTR_CODE64 : ATTR_CODE32, 3);
    flat(&vcpu->seg[SS], (base + (to64 ? 40 : 24)) | 3, ATTR_DATA, 3);
    vcpu->gpr[RSP] = to64 ? vcpu->gpr[RCX] : (uint32_t)vcpu->gpr[RCX];
    vcpu->rip = to64 ? vcpu->gpr[RDX] : (uint32_t)vcpu->gpr[RDX];
    vcpu_set_cpl(vcpu, 3);
    return true;
}

bool vcpu_port_allowed(struct vcpu *vcpu, uint16_t port, unsigned size)
{
    bool v86 = vcpu_v86(vcpu);
    if (vcpu_real_mode(vcpu) || (!v86 && vcpu->cpl <= (vcpu->rflags >> 12 & 3)))
        return true;
    uint16_t map, bits;
    bool has_map = !vcpu->tr.unusable && (vcpu->tr.attr & 8) && vcpu->tr.limit >= 103;
    if (!has_map)
        return fault(vcpu, EXCEPTION_GP, 0);
    if (!vcpu_load(vcpu, vcpu->tr.base + 0x66, &map, 2, ACCESS_IMPLICIT))
        return false;
    uint32_t offset = map + port / 8u;
    if (offset + 1 > vcpu->tr.limit)
        return fault(vcpu, EXCEPTION_GP, 0);
    if (!vcpu_load(vcpu, vcpu->tr.base + offset, &bits, 2, ACCESS_IMPLICIT))
        return false;
    if (bits >> (port & 7) & ((1u << size) - 1))
        return fault(vcpu, EXCEPTION_GP, 0);
    return true;
}
