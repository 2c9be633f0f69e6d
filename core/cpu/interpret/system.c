// SPDX-License-Identifier: GPL-2.0-or-later
// System instructions: control registers, descriptor tables, MSRs, CPUID, caches and TLBs (SDM vol. 2; vol. 3, 2.8).
#include <sched.h>
#include <sys/random.h>

#include "core/cpu/descriptor.h"
#include "core/cpu/interpret/cache.h"
#include "core/cpu/interpret/flags.h"
#include "core/cpu/model.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

static const struct insn *done(struct vcpu *v, const struct insn *i)
{
    v->rip = insn_next_rip(v, i);
    return NULL;
}
static const struct insn *done_if(struct vcpu *v, const struct insn *i, bool ok)
{
    return ok ? done(v, i) : NULL;
}
static bool ring0(struct vcpu *v)
{
    return v->cpl == 0 || fault(v, EXCEPTION_GP, 0);
}
static bool umip(struct vcpu *v)
{
    return v->cpl == 0 || !(v->cr4 & CR4_UMIP) || fault(v, EXCEPTION_GP, 0);
}
static bool protected_mode(struct vcpu *v) // else #UD
{
    return vcpu_protected(v) || fault(v, EXCEPTION_UD, -1);
}

// ---- Control and debug registers
// -------------------------------------------------------------------------------------------

static const struct insn *mov_from_control(struct vcpu *v, const struct insn *i)
{
    u64 value;
    if (!ring0(v) || !vcpu_read_cr(v, i->reg, &value))
        return NULL;
    slot_set(v, i->rm_offset, i->code_size == 8 ? 8 : 4, value);
    return done(v, i);
}
static const struct insn *mov_to_control(struct vcpu *v, const struct insn *i)
{
    return done_if(v, i, ring0(v) && vcpu_write_cr(v, i->reg, slot_get(v, i->rm_offset, i->code_size == 8 ? 8 : 4)));
}
static const struct insn *mov_from_debug(struct vcpu *v, const struct insn *i)
{
    u64 value;
    if (!ring0(v) || !vcpu_read_dr(v, i->reg, &value))
        return NULL;
    slot_set(v, i->rm_offset, i->code_size == 8 ? 8 : 4, value);
    return done(v, i);
}
static const struct insn *mov_to_debug(struct vcpu *v, const struct insn *i)
{
    return done_if(v, i, ring0(v) && vcpu_write_dr(v, i->reg, slot_get(v, i->rm_offset, i->code_size == 8 ? 8 : 4)));
}

static insn_handler *bind_mov_control(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    static insn_handler *const table[4] = {mov_from_control, mov_from_debug, mov_to_control, mov_to_debug};
    bool debug = i->opcode & 1;
    for (unsigned n = 0; n < 2; n++)
        if (ZydisRegisterGetClass(d->operands[n].reg.value) == (debug ? ZYDIS_REGCLASS_DEBUG : ZYDIS_REGCLASS_CONTROL))
            i->reg = (u8)ZydisRegisterGetId(d->operands[n].reg.value);
        else
            i->rm_offset = (u8)(8 * ZydisRegisterGetId(d->operands[n].reg.value));
    return i->opcode >= 0x20 && i->opcode <= 0x23 ? table[i->opcode & 3] : NULL;
}

static const struct insn *clts(struct vcpu *v, const struct insn *i)
{
    if (!ring0(v))
        return NULL;
    v->cr0 &= ~(u64)CR0_TS;
    return done(v, i);
}
static const struct insn *lmsw(struct vcpu *v, const struct insn *i)
{
    u16 value = slot_u16(v, i->rm_offset);
    if (!ring0(v) || (i->is_memory && !insn_load(v, i, &value, 2)))
        return NULL;
    u64 cr0 = (v->cr0 & ~14ull) | (value & 15); // PE can be set, not cleared
    return done_if(v, i, vcpu_write_cr(v, 0, cr0));
}
static const struct insn *smsw(struct vcpu *v, const struct insn *i)
{
    if (!umip(v))
        return NULL;
    if (i->is_memory) {
        u16 value = (u16)v->cr0;
        return done_if(v, i, insn_store(v, i, &value, 2));
    }
    slot_set(v, i->rm_offset, i->operand_size, v->cr0);
    return done(v, i);
}

// ---- Descriptor tables
// -------------------------------------------------------------------------------------------------------

static const struct insn *load_table(struct vcpu *v, const struct insn *i, struct table_register *table)
{
    u8 bytes[10];
    bool wide = i->code_size == 8;
    if (!ring0(v) || !insn_load(v, i, bytes, wide ? 10 : 6))
        return NULL;
    u64 base = load_le(bytes + 2, 4);
    if (wide)
        base = load_le(bytes + 2, 8);
    else if (i->operand_size == 2)
        base &= 0xffffff;
    if (wide && !vcpu_canonical(base))
        return insn_fault(v, EXCEPTION_GP, 0);
    *table = (struct table_register){.base = base, .limit = (u32)load_le(bytes, 2)};
    return done(v, i);
}
static const struct insn *store_table(struct vcpu *v, const struct insn *i, const struct table_register *table)
{
    u8 bytes[10];
    store_le(bytes, 2, table->limit);
    store_le(bytes + 2, 8, table->base);
    return done_if(v, i, umip(v) && insn_store(v, i, bytes, i->code_size == 8 ? 10 : 6));
}
static const struct insn *lgdt(struct vcpu *v, const struct insn *i)
{
    return load_table(v, i, &v->gdtr);
}
static const struct insn *lidt(struct vcpu *v, const struct insn *i)
{
    return load_table(v, i, &v->idtr);
}
static const struct insn *sgdt(struct vcpu *v, const struct insn *i)
{
    return store_table(v, i, &v->gdtr);
}
static const struct insn *sidt(struct vcpu *v, const struct insn *i)
{
    return store_table(v, i, &v->idtr);
}

static bool selector_operand(struct vcpu *v, const struct insn *i, u16 *selector)
{
    *selector = slot_u16(v, i->rm_offset);
    return !i->is_memory || insn_load(v, i, selector, 2);
}
static const struct insn *lldt(struct vcpu *v, const struct insn *i)
{
    u16 selector;
    return done_if(v, i,
                   protected_mode(v) && ring0(v) && selector_operand(v, i, &selector) && vcpu_load_ldtr(v, selector));
}
static const struct insn *ltr(struct vcpu *v, const struct insn *i)
{
    u16 selector;
    return done_if(v, i,
                   protected_mode(v) && ring0(v) && selector_operand(v, i, &selector) && vcpu_load_tr(v, selector));
}
static const struct insn *store_selector(struct vcpu *v, const struct insn *i, u16 selector)
{
    if (!protected_mode(v) || !umip(v))
        return NULL;
    if (i->is_memory)
        return done_if(v, i, insn_store(v, i, &selector, 2));
    slot_set(v, i->rm_offset, i->operand_size, selector);
    return done(v, i);
}
static const struct insn *sldt(struct vcpu *v, const struct insn *i)
{
    return store_selector(v, i, v->ldtr.selector);
}
static const struct insn *str(struct vcpu *v, const struct insn *i)
{
    return store_selector(v, i, v->tr.selector);
}

// ---- LAR, LSL, VERR, VERW, ARPL: ask about a selector without loading it
// ---------------------------------------------------------

static void set_zf(struct vcpu *v, bool zf)
{
    v->rflags = (v->rflags & ~(u64)FLAG_ZF) | (zf ? FLAG_ZF : 0);
}

static bool visible(const struct vcpu *v, u16 selector, u64 d)
{
    if (descriptor_is_code(d) && descriptor_is_conforming(d))
        return true;
    return MAX(v->cpl, selector & 3u) <= descriptor_dpl(d);
}

static const struct insn *inspect(struct vcpu *v, const struct insn *i, u32 system_types, bool (*fits)(u64 d),
                                  u64 (*result)(u64 d))
{
    u16 selector;
    u64 d;
    if (!protected_mode(v) || !selector_operand(v, i, &selector))
        return NULL;
    bool ok = descriptor_peek(v, selector, &d);
    if (v->event_pending)
        return NULL;
    ok = ok && visible(v, selector, d) &&
         (descriptor_is_segment(d) ? !fits || fits(d) : system_types >> descriptor_type(d) & 1);
    if (ok && result)
        slot_set(v, i->reg_offset, i->operand_size, result(d));
    set_zf(v, ok);
    return done(v, i);
}
static u64 rights_of(u64 d)
{
    return d >> 32 & 0x00f0ff00;
}
static u64 limit_of(u64 d)
{
    return descriptor_limit(d);
}
static bool readable(u64 d)
{
    return !descriptor_is_code(d) || (descriptor_type(d) & TYPE_READABLE);
}
static bool writable(u64 d)
{
    return !descriptor_is_code(d) && (descriptor_type(d) & TYPE_WRITABLE);
}
static const struct insn *lar(struct vcpu *v, const struct insn *i)
{
    // Long mode knows fewer types.
    return inspect(v, i, vcpu_long_mode(v) ? 0x1a04 : 0x1a3e, NULL, rights_of);
}
static const struct insn *lsl(struct vcpu *v, const struct insn *i)
{
    return inspect(v, i, vcpu_long_mode(v) ? 0x0a04 : 0x0a0e, NULL, limit_of);
}
static const struct insn *verr(struct vcpu *v, const struct insn *i)
{
    return inspect(v, i, 0, readable, NULL);
}
static const struct insn *verw(struct vcpu *v, const struct insn *i)
{
    return inspect(v, i, 0, writable, NULL);
}

static const struct insn *arpl(struct vcpu *v, const struct insn *i)
{
    u16 selector, rpl = slot_u16(v, i->reg_offset) & 3;
    if (!protected_mode(v) || !selector_operand(v, i, &selector))
        return NULL;
    bool raise = (selector & 3) < rpl;
    selector = (u16)((selector & ~3) | rpl);
    if (raise && i->is_memory && !insn_store(v, i, &selector, 2))
        return NULL;
    if (raise && !i->is_memory)
        slot_set_u16(v, i->rm_offset, selector);
    set_zf(v, raise);
    return done(v, i);
}

// ---- MSRs, CPUID, time
// -----------------------------------------------------------------------------------------------------------

static void set_edx_eax(struct vcpu *v, u64 value)
{
    v->gpr[RAX] = (u32)value;
    v->gpr[RDX] = value >> 32;
}
static u64 edx_eax(const struct vcpu *v)
{
    return v->gpr[RDX] << 32 | (u32)v->gpr[RAX];
}

static const struct insn *rdmsr(struct vcpu *v, const struct insn *i)
{
    u64 value;
    if (!ring0(v) || !vcpu_read_msr(v, (u32)v->gpr[RCX], &value))
        return NULL;
    set_edx_eax(v, value);
    return done(v, i);
}
static const struct insn *wrmsr(struct vcpu *v, const struct insn *i)
{
    return done_if(v, i, ring0(v) && vcpu_write_msr(v, (u32)v->gpr[RCX], edx_eax(v)));
}
static const struct insn *cpuid(struct vcpu *v, const struct insn *i)
{
    u32 out[4];
    vcpu_cpuid(v, (u32)v->gpr[RAX], (u32)v->gpr[RCX], out);
    v->gpr[RAX] = out[0];
    v->gpr[RBX] = out[1];
    v->gpr[RCX] = out[2];
    v->gpr[RDX] = out[3];
    return done(v, i);
}
static bool tsc_allowed(struct vcpu *v)
{
    return v->cpl == 0 || !(v->cr4 & CR4_TSD) || vcpu_real_mode(v) || fault(v, EXCEPTION_GP, 0);
}
static const struct insn *rdtsc(struct vcpu *v, const struct insn *i)
{
    if (!tsc_allowed(v))
        return NULL;
    set_edx_eax(v, vcpu_read_tsc(v));
    return i + 1;
}
static const struct insn *rdtscp(struct vcpu *v, const struct insn *i)
{
    if (!tsc_allowed(v))
        return NULL;
    set_edx_eax(v, vcpu_read_tsc(v));
    v->gpr[RCX] = (u32)v->tsc_aux;
    return i + 1;
}
static const struct insn *rdpid(struct vcpu *v, const struct insn *i)
{
    slot_set(v, i->rm_offset, i->code_size == 8 ? 8 : 4, v->tsc_aux);
    return i + 1;
}
static const struct insn *rdpmc(struct vcpu *v, const struct insn *i)
{
    if ((v->cpl != 0 && !(v->cr4 & CR4_PCE)) || (u32)v->gpr[RCX] > 3)
        return insn_fault(v, EXCEPTION_GP, 0);
    set_edx_eax(v, 0); // the counters do not count
    return i + 1;
}

static const struct insn *random_number(struct vcpu *v, const struct insn *i)
{
    u64 value = 0;
    bool ok = getrandom(&value, sizeof(value), 0) == sizeof(value);
    slot_set(v, i->rm_offset, i->operand_size, ok ? value : 0);
    flags_set(v, ok ? FLAG_CF : 0);
    return i + 1;
}

static const struct insn *xgetbv(struct vcpu *v, const struct insn *i)
{
    u32 index = (u32)v->gpr[RCX];
    if (!(v->cr4 & CR4_OSXSAVE))
        return insn_fault(v, EXCEPTION_UD, -1);
    if (index == 1 && cpu_has(v->set->model, FEATURE_XGETBV1))
        set_edx_eax(v, vector_in_use(v) & v->xcr0);
    else if (index == 0)
        set_edx_eax(v, v->xcr0);
    else
        return insn_fault(v, EXCEPTION_GP, 0);
    return done(v, i);
}
static const struct insn *xsetbv(struct vcpu *v, const struct insn *i)
{
    if (!(v->cr4 & CR4_OSXSAVE))
        return insn_fault(v, EXCEPTION_UD, -1);
    if (v->cpl || (u32)v->gpr[RCX] != 0)
        return insn_fault(v, EXCEPTION_GP, 0);
    return done_if(v, i, vcpu_write_xcr0(v, edx_eax(v)));
}

// ---- FS and GS bases
// -----------------------------------------------------------------------------------------------------------

static bool base_allowed(struct vcpu *v, const struct insn *i)
{
    return (i->code_size == 8 && (v->cr4 & CR4_FSGSBASE)) || fault(v, EXCEPTION_UD, -1);
}
static const struct insn *read_base(struct vcpu *v, const struct insn *i, enum segment_register reg)
{
    if (!base_allowed(v, i))
        return NULL;
    slot_set(v, i->rm_offset, i->operand_size, v->seg[reg].base);
    return i + 1;
}
static const struct insn *write_base(struct vcpu *v, const struct insn *i, enum segment_register reg)
{
    u64 base = slot_get(v, i->rm_offset, i->operand_size);
    if (!base_allowed(v, i))
        return NULL;
    if (!vcpu_canonical(base))
        return insn_fault(v, EXCEPTION_GP, 0);
    v->seg[reg].base = base;
    return i + 1;
}
static const struct insn *rdfsbase(struct vcpu *v, const struct insn *i)
{
    return read_base(v, i, FS);
}
static const struct insn *rdgsbase(struct vcpu *v, const struct insn *i)
{
    return read_base(v, i, GS);
}
static const struct insn *wrfsbase(struct vcpu *v, const struct insn *i)
{
    return write_base(v, i, FS);
}
static const struct insn *wrgsbase(struct vcpu *v, const struct insn *i)
{
    return write_base(v, i, GS);
}
static const struct insn *swapgs(struct vcpu *v, const struct insn *i)
{
    if (v->cpl)
        return insn_fault(v, EXCEPTION_GP, 0);
    u64 base = v->seg[GS].base;
    v->seg[GS].base = v->kernel_gs_base;
    v->kernel_gs_base = base;
    return i + 1;
}

// ---- Caches, TLBs, waiting
// --------------------------------------------------------------------------------------------------------

static const struct insn *invlpg(struct vcpu *v, const struct insn *i)
{
    if (!ring0(v))
        return NULL;
    u64 linear = insn_offset(v, i) + (i->code_size != 8 || i->segment >= FS ? v->seg[i->segment].base : 0);
    if (i->code_size != 8)
        linear = (u32)linear;
    if (i->code_size != 8 || vcpu_canonical(linear))
        vcpu_flush_page(v, linear);
    return done(v, i);
}

static const struct insn *invpcid(struct vcpu *v, const struct insn *i)
{
    u8 bytes[16];
    u64 type = slot_get(v, i->reg_offset, i->code_size == 8 ? 8 : 4);
    if (!ring0(v) || !insn_load(v, i, bytes, 16))
        return NULL;
    u64 pcid = load_le(bytes, 8), linear = load_le(bytes + 8, 8);
    if (type > 3 || (type < 2 && (pcid >> 12 || (pcid && !(v->cr4 & CR4_PCIDE)))) ||
        (type == 0 && !vcpu_canonical(linear)))
        return insn_fault(v, EXCEPTION_GP, 0);
    if (type == 0 && pcid == (v->cr4 & CR4_PCIDE ? v->cr3 & 0xfff : 0))
        vcpu_flush_page(v, linear);
    else
        vcpu_flush_tlb(v);
    return done(v, i);
}

static const struct insn *privileged_nothing(struct vcpu *v, const struct insn *i)
{
    return done_if(v, i, ring0(v));
}
static const struct insn *nothing(struct vcpu *v, const struct insn *i)
{
    return i + 1;
}
static const struct insn *fence(struct vcpu *v, const struct insn *i)
{
    atomic_thread_fence(memory_order_seq_cst);
    return i + 1;
}
// A cache line is read, as far as faults go.
static const struct insn *clflush(struct vcpu *v, const struct insn *i)
{
    u8 byte;
    return insn_load(v, i, &byte, 1) ? i + 1 : NULL;
}

// A guest that spins on several processors may wait for one whose thread does not run: now and then it steps aside.
static const struct insn *pause_(struct vcpu *v, const struct insn *i)
{
    if (v->set->count > 1 && (++v->interpreter->pauses & 63) == 0)
        sched_yield();
    return i + 1;
}

static const struct insn *hlt(struct vcpu *v, const struct insn *i)
{
    if (!ring0(v))
        return NULL;
    v->interpreter->exit = 1 + ENGINE_EXIT_HALT;
    return done(v, i);
}

static const struct insn *set_ac(struct vcpu *v, const struct insn *i, bool ac)
{
    if (v->cpl || !vcpu_protected(v))
        return insn_fault(v, EXCEPTION_UD, -1);
    v->rflags = (v->rflags & ~(u64)FLAG_AC) | (ac ? FLAG_AC : 0);
    return done(v, i);
}
static const struct insn *stac(struct vcpu *v, const struct insn *i)
{
    return set_ac(v, i, true);
}
static const struct insn *clac(struct vcpu *v, const struct insn *i)
{
    return set_ac(v, i, false);
}

#define SENSITIVE(M, FN)                                                                                               \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .class = CLASS_SENSITIVE, .reg = FN, .mem = FN                                 \
    }
#define MEMORY(M, FN)                                                                                                  \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .class = CLASS_SENSITIVE, .mem = FN                                            \
    }
#define PLAIN(M, FN)                                                                                                   \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .class = CLASS_PLAIN, .reg = FN                                                \
    }

const struct insn_row interpret_rows_system[] = {
    {.mnemonic = ZYDIS_MNEMONIC_MOV,
     .class = CLASS_SENSITIVE,
     .bind = bind_mov_control,
     .opcode_map = 1 + ZYDIS_OPCODE_MAP_0F},
    SENSITIVE(CLTS, clts),
    SENSITIVE(LMSW, lmsw),
    SENSITIVE(SMSW, smsw),
    MEMORY(LGDT, lgdt),
    MEMORY(LIDT, lidt),
    MEMORY(SGDT, sgdt),
    MEMORY(SIDT, sidt),
    SENSITIVE(LLDT, lldt),
    SENSITIVE(LTR, ltr),
    SENSITIVE(SLDT, sldt),
    SENSITIVE(STR, str),
    SENSITIVE(LAR, lar),
    SENSITIVE(LSL, lsl),
    SENSITIVE(VERR, verr),
    SENSITIVE(VERW, verw),
    SENSITIVE(ARPL, arpl),
    SENSITIVE(RDMSR, rdmsr),
    SENSITIVE(WRMSR, wrmsr),
    SENSITIVE(CPUID, cpuid),
    PLAIN(RDTSC, rdtsc),
    PLAIN(RDTSCP, rdtscp),
    PLAIN(RDPID, rdpid),
    PLAIN(RDPMC, rdpmc),
    PLAIN(RDRAND, random_number),
    PLAIN(RDSEED, random_number),
    SENSITIVE(XGETBV, xgetbv),
    SENSITIVE(XSETBV, xsetbv),
    PLAIN(RDFSBASE, rdfsbase),
    PLAIN(RDGSBASE, rdgsbase),
    PLAIN(WRFSBASE, wrfsbase),
    PLAIN(WRGSBASE, wrgsbase),
    PLAIN(SWAPGS, swapgs),
    MEMORY(INVLPG, invlpg),
    MEMORY(INVPCID, invpcid),
    SENSITIVE(INVD, privileged_nothing),
    SENSITIVE(WBINVD, privileged_nothing),
    {.mnemonic = ZYDIS_MNEMONIC_CLFLUSH, .mem = clflush},
    {.mnemonic = ZYDIS_MNEMONIC_CLFLUSHOPT, .mem = clflush},
    {.mnemonic = ZYDIS_MNEMONIC_CLWB, .mem = clflush},
    PLAIN(PAUSE, pause_),
    PLAIN(LFENCE, nothing),
    PLAIN(SFENCE, nothing),
    PLAIN(MFENCE, fence),
    SENSITIVE(HLT, hlt),
    SENSITIVE(STAC, stac),
    SENSITIVE(CLAC, clac),
    {0},
};
