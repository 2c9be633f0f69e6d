// SPDX-License-Identifier: GPL-2.0-or-later
// Segment registers, far transfers, software interrupts, and RFLAGS as a whole (SDM vol. 2; vol. 3, 22.3 for VME).
#include "core/cpu/descriptor.h"
#include "core/cpu/interpret/cache.h"

typedef uint16_t u16;
typedef uint64_t u64;

static const struct insn *done(struct vcpu *v, const struct insn *i)
{
    v->rip = insn_next_rip(v, i);
    return NULL;
}

static bool iopl_allows(const struct vcpu *v) // CPL <= IOPL; virtual-8086 mode: IOPL 3
{
    return vcpu_real_mode(v) || v->cpl <= (v->rflags >> 12 & 3);
}

// ---- MOV, PUSH, POP of segment registers
// --------------------------------------------------------------------------------

static const struct insn *load_segment(struct vcpu *v, const struct insn *i, enum segment_register reg, u16 selector)
{
    if (!vcpu_load_segment(v, reg, selector))
        return NULL;
    if (reg == SS)
        v->interrupt_shadow = 2;
    return done(v, i);
}

static const struct insn *mov_to_segment(struct vcpu *v, const struct insn *i)
{
    u16 selector = slot_u16(v, i->rm_offset);
    if (i->is_memory && !insn_load(v, i, &selector, 2))
        return NULL;
    return load_segment(v, i, (enum segment_register)i->reg, selector);
}

static const struct insn *mov_from_segment(struct vcpu *v, const struct insn *i)
{
    u16 selector = v->seg[i->reg].selector;
    if (i->is_memory)
        return insn_store(v, i, &selector, 2) ? i + 1 : NULL;
    slot_set(v, i->rm_offset, i->operand_size, selector);
    return i + 1;
}

insn_handler *bind_mov_special(struct vcpu *v, const struct decoded *d, struct insn *i);
insn_handler *bind_mov_special(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    i->reg = i->modrm >> 3 & 7;
    if (i->reg > GS)
        return NULL;
    if (i->opcode == 0x8c) {
        if (!i->is_memory) // Zydis gives the selector's width
            i->operand_size = d->operands[0].size / 8;
        return mov_from_segment;
    }
    return i->reg == CS ? NULL : insn_make_sensitive(i, mov_to_segment);
}

static unsigned segment_of(const struct decoded *d, unsigned operand)
{
    return (unsigned)(d->operands[operand].reg.value - ZYDIS_REGISTER_ES);
}

static const struct insn *push_segment(struct vcpu *v, const struct insn *i)
{
    // Only the selector's 16 bits are written of a wider slot, as processors do (SDM: PUSH).
    u64 selector = v->seg[i->reg].selector, linear;
    u64 mask = i->stack_size == 8 ? ~0ull : i->stack_size == 4 ? 0xffffffff : 0xffff;
    u64 sp = (v->gpr[RSP] - i->operand_size) & mask;
    if (i->operand_size != 4)
        return interpret_push(v, i, selector, i->operand_size) ? i + 1 : NULL;
    if (!segment_linear(v, i, SS, sp, 2, ACCESS_WRITE, &linear) || !linear_store(v, linear, &selector, 2))
        return NULL;
    slot_set(v, VCPU_OFFSET(gpr[RSP]), i->stack_size, sp);
    return i + 1;
}

static const struct insn *pop_segment(struct vcpu *v, const struct insn *i)
{
    u64 value, old = v->gpr[RSP];
    if (!interpret_pop(v, i, &value, i->operand_size))
        return NULL;
    if (load_segment(v, i, (enum segment_register)i->reg, (u16)value) == NULL && v->event_pending)
        v->gpr[RSP] = old;
    return NULL;
}

insn_handler *bind_push_segment(struct vcpu *v, const struct decoded *d, struct insn *i);
insn_handler *bind_push_segment(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    i->reg = (uint8_t)segment_of(d, 0);
    return push_segment;
}
insn_handler *bind_pop_segment(struct vcpu *v, const struct decoded *d, struct insn *i);
insn_handler *bind_pop_segment(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    i->reg = (uint8_t)segment_of(d, 0);
    return insn_make_sensitive(i, pop_segment);
}

// LDS, LES, LFS, LGS, LSS: a far pointer from memory.
static const struct insn *load_far_pointer(struct vcpu *v, const struct insn *i)
{
    uint8_t bytes[10];
    if (!insn_load(v, i, bytes, i->operand_size + 2u) ||
        !vcpu_load_segment(v, (enum segment_register)i->reg, (u16)load_le(bytes + i->operand_size, 2)))
        return NULL;
    slot_set(v, i->reg_offset, i->operand_size, load_le(bytes, i->operand_size));
    return done(v, i);
}
static insn_handler *bind_far_pointer(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    if (!i->is_memory)
        return NULL;
    switch (d->zydis.mnemonic) {
    case ZYDIS_MNEMONIC_LDS:
        i->reg = DS;
        break;
    case ZYDIS_MNEMONIC_LES:
        i->reg = ES;
        break;
    case ZYDIS_MNEMONIC_LFS:
        i->reg = FS;
        break;
    case ZYDIS_MNEMONIC_LGS:
        i->reg = GS;
        break;
    default:
        i->reg = SS;
    }
    return load_far_pointer;
}

// ---- Far transfers
// ---------------------------------------------------------------------------------------------------------

insn_handler insn_far_direct, insn_far_indirect, insn_far_return;

static bool is_call(const struct insn *i)
{
    return i->row->mnemonic == ZYDIS_MNEMONIC_CALL;
}

const struct insn *insn_far_direct(struct vcpu *v, const struct insn *i)
{
    vcpu_far_transfer(v, (u16)i->imm2, i->imm, i->operand_size, is_call(i), insn_next_rip(v, i));
    return NULL;
}
const struct insn *insn_far_indirect(struct vcpu *v, const struct insn *i)
{
    uint8_t bytes[10];
    if (insn_load(v, i, bytes, i->operand_size + 2u))
        vcpu_far_transfer(v, (u16)load_le(bytes + i->operand_size, 2), load_le(bytes, i->operand_size), i->operand_size,
                          is_call(i), insn_next_rip(v, i));
    return NULL;
}
const struct insn *insn_far_return(struct vcpu *v, const struct insn *i)
{
    vcpu_far_return(v, i->operand_size, (u16)i->imm);
    return NULL;
}

static const struct insn *iret(struct vcpu *v, const struct insn *i)
{
    bool nested = (v->rflags & FLAG_NT) && vcpu_protected(v) && !vcpu_long_mode(v);
    u64 rip = v->rip, next = insn_next_rip(v, i);
    if (nested)
        v->rip = next; // what the task that is left goes on with
    if (!vcpu_iret(v, i->operand_size) && nested && v->rip == next)
        v->rip = rip;
    v->interpreter->keeps_rf = true;
    return NULL;
}

// ---- Software interrupts
// ------------------------------------------------------------------------------------------------------

static void shut_down(struct vcpu *v)
{
    v->interpreter->exit = 1 + ENGINE_EXIT_SHUTDOWN;
}

static const struct insn *software(struct vcpu *v, const struct insn *i, enum event_type type, unsigned vector)
{
    if (!vcpu_software_interrupt(v, type, vector, insn_next_rip(v, i)))
        shut_down(v);
    return NULL;
}

// In virtual-8086 mode with VME: does the TSS send INT n to the 8086 program's own handler? (SDM vol. 3, 22.3.3)
static bool redirected(struct vcpu *v, unsigned vector, bool *redirect)
{
    u16 map;
    uint8_t byte;
    *redirect = false;
    if (!(v->cr4 & CR4_VME))
        return true;
    if (v->tr.limit < 103 || !vcpu_load(v, v->tr.base + 0x66, &map, 2, ACCESS_IMPLICIT))
        return !v->event_pending;
    uint32_t offset = map - 32u + vector / 8;
    if (map < 32 || offset > v->tr.limit)
        return true;
    if (!vcpu_load(v, v->tr.base + offset, &byte, 1, ACCESS_IMPLICIT))
        return false;
    *redirect = !(byte >> vector % 8 & 1);
    return true;
}

static void redirect_interrupt(struct vcpu *v, unsigned vector, u64 next)
{
    u16 entry[2];
    struct stack s;
    bool iopl3 = (v->rflags & FLAG_IOPL) == FLAG_IOPL;
    u64 flags = v->rflags & 0xffff;
    if (!iopl3) // VIF stands for IF, and IOPL reads as 3
        flags = (flags & ~(u64)FLAG_IF) | FLAG_IOPL | (v->rflags & FLAG_VIF ? FLAG_IF : 0);
    stack_init(&s, v, &v->seg[SS], v->gpr[RSP], 3, false);
    if (!vcpu_load(v, vector * 4, entry, 4, ACCESS_USER) || !stack_push(&s, flags, 2) ||
        !stack_push(&s, v->seg[CS].selector, 2) || !stack_push(&s, next & 0xffff, 2))
        return;
    stack_commit(&s);
    v->rflags &= ~(u64)(FLAG_TF | (iopl3 ? FLAG_IF : FLAG_VIF));
    segment_set_real(v, &v->seg[CS], GUINT16_FROM_LE(entry[1]));
    v->rip = GUINT16_FROM_LE(entry[0]);
}

static const struct insn *int_n(struct vcpu *v, const struct insn *i)
{
    unsigned vector = (uint8_t)i->imm;
    bool redirect = false;
    if (vcpu_v86(v)) {
        if (!redirected(v, vector, &redirect))
            return NULL;
        if (redirect) {
            redirect_interrupt(v, vector, insn_next_rip(v, i));
            return NULL;
        }
        if (!iopl_allows(v))
            return insn_fault(v, EXCEPTION_GP, 0);
    }
    return software(v, i, EVENT_SOFTWARE_INT, vector);
}
static const struct insn *int3(struct vcpu *v, const struct insn *i)
{
    return software(v, i, EVENT_SOFTWARE_EXCEPTION, EXCEPTION_BP);
}
static const struct insn *into(struct vcpu *v, const struct insn *i)
{
    if (!(v->rflags & FLAG_OF))
        return done(v, i);
    return software(v, i, EVENT_SOFTWARE_EXCEPTION, EXCEPTION_OF);
}
static const struct insn *int1(struct vcpu *v, const struct insn *i)
{
    return software(v, i, EVENT_ICEBP, EXCEPTION_DB);
}

static const struct insn *bound(struct vcpu *v, const struct insn *i)
{
    uint8_t bytes[8];
    unsigned size = i->operand_size, shift = 64 - 8 * size;
    uint64_t linear;
    int64_t index = (int64_t)(slot_get(v, i->reg_offset, size) << shift);
    if (!insn_linear(v, i, 2 * size, ACCESS_READ, &linear) || !linear_load(v, linear, bytes, size))
        return NULL;
    if (index < (int64_t)(load_le(bytes, size) << shift)) // before the upper bound is looked at
        return insn_fault(v, EXCEPTION_BR, -1);
    if (!linear_load(v, linear + size, bytes, size))
        return NULL;
    return index > (int64_t)(load_le(bytes, size) << shift) ? insn_fault(v, EXCEPTION_BR, -1) : i + 1;
}

// ---- System calls
// -------------------------------------------------------------------------------------------------------------

static const struct insn *syscall_(struct vcpu *v, const struct insn *i)
{
    vcpu_syscall(v, insn_next_rip(v, i));
    return NULL;
}
static const struct insn *sysret_(struct vcpu *v, const struct insn *i)
{
    vcpu_sysret(v, i->vex_w ? 8 : 4);
    return NULL;
}
static const struct insn *sysenter_(struct vcpu *v, const struct insn *i)
{
    vcpu_sysenter(v);
    return NULL;
}
static const struct insn *sysexit_(struct vcpu *v, const struct insn *i)
{
    vcpu_sysexit(v, i->vex_w ? 8 : 4);
    return NULL;
}

// ---- PUSHF, POPF, CLI, STI (SDM vol. 3, 22.3.2 for VME)
// --------------------------------------------------------------------------

static bool virtual_flags(const struct vcpu *v) // V86, IOPL < 3, VME on
{
    return vcpu_v86(v) && !iopl_allows(v) && (v->cr4 & CR4_VME);
}

static const struct insn *pushf(struct vcpu *v, const struct insn *i)
{
    u64 flags = v->rflags & ~(u64)(FLAG_VM | FLAG_RF);
    if (vcpu_v86(v) && !iopl_allows(v)) {
        if (!(v->cr4 & CR4_VME) || i->operand_size != 2)
            return insn_fault(v, EXCEPTION_GP, 0);
        flags = (flags & ~(u64)FLAG_IF) | FLAG_IOPL | (v->rflags & FLAG_VIF ? FLAG_IF : 0);
    }
    return interpret_push(v, i, flags | FLAG_1, i->operand_size) ? done(v, i) : NULL;
}

static const struct insn *popf_virtual(struct vcpu *v, const struct insn *i, u64 old_rsp)
{
    u64 flags;
    const u64 mask = FLAGS_STATUS | FLAG_DF | FLAG_NT | FLAG_TF;
    if (i->operand_size != 2)
        return insn_fault(v, EXCEPTION_GP, 0);
    if (!interpret_pop(v, i, &flags, 2))
        return NULL;
    if ((flags & FLAG_TF) || ((flags & FLAG_IF) && (v->rflags & FLAG_VIP))) {
        v->gpr[RSP] = old_rsp;
        return insn_fault(v, EXCEPTION_GP, 0);
    }
    v->rflags = (v->rflags & ~(mask | FLAG_VIF)) | (flags & mask) | (flags & FLAG_IF ? FLAG_VIF : 0);
    return done(v, i);
}

static const struct insn *popf(struct vcpu *v, const struct insn *i)
{
    u64 flags, mask = FLAGS_STATUS | FLAG_TF | FLAG_DF | FLAG_NT;
    if (vcpu_v86(v) && !iopl_allows(v))
        return v->cr4 & CR4_VME ? popf_virtual(v, i, v->gpr[RSP]) : insn_fault(v, EXCEPTION_GP, 0);
    if (!interpret_pop(v, i, &flags, i->operand_size))
        return NULL;
    if (i->operand_size != 2)
        mask |= FLAG_AC | FLAG_ID;
    if (iopl_allows(v))
        mask |= FLAG_IF;
    if (v->cpl == 0 && !vcpu_v86(v))
        mask |= FLAG_IOPL;
    v->rflags = (v->rflags & ~(mask | FLAG_RF)) | (flags & mask) | FLAG_1;
    return done(v, i);
}

static bool pvi(const struct vcpu *v) // protected-mode virtual interrupts
{
    return vcpu_protected(v) && v->cpl == 3 && (v->cr4 & CR4_PVI) && !iopl_allows(v);
}

static const struct insn *cli(struct vcpu *v, const struct insn *i)
{
    if (iopl_allows(v))
        v->rflags &= ~(u64)FLAG_IF;
    else if (virtual_flags(v) || pvi(v))
        v->rflags &= ~(u64)FLAG_VIF;
    else
        return insn_fault(v, EXCEPTION_GP, 0);
    return done(v, i);
}

static const struct insn *sti(struct vcpu *v, const struct insn *i)
{
    if (iopl_allows(v)) {
        if (!(v->rflags & FLAG_IF))
            v->interrupt_shadow = 1;
        v->rflags |= FLAG_IF;
    } else if ((virtual_flags(v) || pvi(v)) && !(v->rflags & FLAG_VIP)) {
        v->rflags |= FLAG_VIF;
    } else {
        return insn_fault(v, EXCEPTION_GP, 0);
    }
    return done(v, i);
}

#define SENSITIVE(M, FN)                                                                                               \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .class = CLASS_SENSITIVE, .reg = FN, .mem = FN                                 \
    }
#define BIND(M, BIND_)                                                                                                 \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .class = CLASS_SENSITIVE, .bind = BIND_                                        \
    }

const struct insn_row interpret_rows_transfer[] = {
    BIND(LDS, bind_far_pointer),
    BIND(LES, bind_far_pointer),
    BIND(LFS, bind_far_pointer),
    BIND(LGS, bind_far_pointer),
    BIND(LSS, bind_far_pointer),
    SENSITIVE(IRET, iret),
    SENSITIVE(IRETD, iret),
    SENSITIVE(IRETQ, iret),
    SENSITIVE(INT, int_n),
    SENSITIVE(INT3, int3),
    SENSITIVE(INTO, into),
    SENSITIVE(INT1, int1),
    {.mnemonic = ZYDIS_MNEMONIC_BOUND, .mem = bound, .encoding = 1 + ZYDIS_INSTRUCTION_ENCODING_LEGACY},
    SENSITIVE(SYSCALL, syscall_),
    SENSITIVE(SYSRET, sysret_),
    SENSITIVE(SYSENTER, sysenter_),
    SENSITIVE(SYSEXIT, sysexit_),
    SENSITIVE(PUSHF, pushf),
    SENSITIVE(PUSHFD, pushf),
    SENSITIVE(PUSHFQ, pushf),
    SENSITIVE(POPF, popf),
    SENSITIVE(POPFD, popf),
    SENSITIVE(POPFQ, popf),
    SENSITIVE(CLI, cli),
    SENSITIVE(STI, sti),
    {0},
};
