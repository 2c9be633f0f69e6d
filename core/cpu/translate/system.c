// SPDX-License-Identifier: GPL-2.0-or-later
// System instructions served from translated code without leaving it. Whatever is not the plain case returns the way to
// the interpreter, with nothing changed. Built without vector registers, like slow.c.
#include "core/cpu/translate/system.h"

#pragma GCC target("general-regs-only")

#define ATTR_CODE64 (0xb | SEG_S | SEG_P | SEG_L | SEG_G)
#define ATTR_DATA   (0x3 | SEG_S | SEG_P | SEG_DB | SEG_G)

typedef uint64_t system_op(struct context *c, const struct system_site *site);

static uint64_t give_up(struct context *c, const struct system_site *site)
{
    c->slow_host = site->rip;
    return (uintptr_t)c->translator->thunks.interpret_host;
}

// Status flags <-> the saved form.
static uint32_t status_flags(const struct context *c)
{
    return (c->saved_flags >> 8 & 0xd5) | (c->saved_flags & 1) << 11;
}

static void set_status_flags(struct context *c, uint64_t flags)
{
    c->saved_flags = (uint32_t)((flags & 0xd7) << 8 | (flags >> 11 & 1));
}

uint64_t context_flags(const struct context *c)
{
    return c->other_flags | c->interrupt_flag | c->direction | status_flags(c) | FLAG_1;
}

// All of RFLAGS; RF is dropped.
void set_flags(struct context *c, uint64_t flags)
{
    set_status_flags(c, flags);
    c->interrupt_flag = flags & FLAG_IF;
    c->direction = flags & FLAG_DF;
    c->other_flags = (uint32_t)flags & ~(uint32_t)(FLAGS_STATUS | FLAG_IF | FLAG_DF | FLAG_RF);
    c->vcpu->rflags = flags & ~(uint64_t)FLAG_RF;
}

uint64_t go_on(struct context *c, uint64_t rip)
{
    struct vcpu *v = c->vcpu;
    v->rflags = (v->rflags & ~(uint64_t)FLAG_AC) | (c->other_flags & FLAG_AC); // STAC and CLAC change only the copy
    uint32_t mode = mode_of(v);
    c->slow_host = rip;
    c->exit_reason = EXIT_LOOKUP;
    uint32_t attention = atomic_load_explicit(&v->attention, memory_order_relaxed);
    if ((mode & MODE_UNSUPPORTED) || (attention && c->interrupt_flag))
        return (uintptr_t)c->translator->thunks.exit_host;
    mode_set(c, mode);
    uint64_t host = translate_lookup(c, rip);
    return host == (uintptr_t)c->translator->thunks.exit_saved ? (uintptr_t)c->translator->thunks.exit_host : host;
}

// The next instruction of the same block, unless something waits.
static uint64_t next(struct context *c, const struct system_site *site)
{
    if (G_LIKELY(!atomic_load_explicit(&c->kicked, memory_order_relaxed)))
        return site->after;
    c->slow_host = site->next;
    c->exit_reason = EXIT_KICK;
    return (uintptr_t)c->translator->thunks.exit_host;
}

static uint64_t op_syscall(struct context *c, const struct system_site *site)
{
    struct vcpu *v = c->vcpu;
    if (!(v->efer & EFER_SCE))
        return give_up(c, site);
    uint64_t flags = context_flags(c);
    uint16_t selector = (uint16_t)(v->star >> 32) & 0xfffc;
    c->save[SAVE_RCX] = site->next;
    c->save[SAVE_R11] = flags;
    v->seg[CS] = (struct segment){.selector = selector, .attr = ATTR_CODE64, .limit = 0xffffffff};
    v->seg[SS] = (struct segment){.selector = selector + 8, .attr = ATTR_DATA, .limit = 0xffffffff};
    v->cpl = 0;
    set_flags(c, (flags & ~v->fmask) | FLAG_1);
    return go_on(c, v->lstar);
}

static uint64_t op_sysret(struct context *c, const struct system_site *site)
{
    struct vcpu *v = c->vcpu;
    if (!(v->efer & EFER_SCE) || v->cpl || site->size != 8 || !vcpu_canonical(c->save[SAVE_RCX]))
        return give_up(c, site);
    uint16_t base = (uint16_t)(v->star >> 48);
    v->seg[CS] = (struct segment){.selector = (base + 16) | 3, .attr = ATTR_CODE64 | 3 << 5, .limit = 0xffffffff};
    v->seg[SS] = (struct segment){.selector = (base + 8) | 3, .attr = ATTR_DATA | 3 << 5, .limit = 0xffffffff};
    v->cpl = 3;
    set_flags(c, (c->save[SAVE_R11] & 0x3c7fd7) | FLAG_1);
    return go_on(c, c->save[SAVE_RCX]);
}

static uint64_t op_iret(struct context *c, const struct system_site *site)
{
    struct vcpu *v = c->vcpu;
    uint64_t d;
    const uint64_t *frame = tlb_host(c, c->mode & MODE_AC ? FAST_KERNEL_AC : FAST_KERNEL, c->guest_rsp, 40, false);
    if (site->size != 8 || !frame || v->cpl || (c->other_flags & FLAG_NT))
        return give_up(c, site);
    uint64_t rip = frame[0], flags = frame[2], rsp = frame[3];
    uint16_t cs = (uint16_t)frame[1], ss = (uint16_t)frame[4];
    unsigned cpl = cs & 3;
    // RF holds back code breakpoints for one instruction, and there are none in translated code.
    if ((flags & (FLAG_TF | FLAG_VM | FLAG_NT)) || ((flags & FLAG_RF) && c->translator->single) ||
        (cpl != 0 && cpl != 3) || (ss & 3) != cpl || !vcpu_canonical(rip) || !(cs & 0xfffc) ||
        !descriptor_load(c, cs, &d))
        return give_up(c, site);
    uint16_t attr = (uint16_t)(d >> 40) & 0xf0ff;
    if ((attr & (SEG_S | SEG_P | SEG_L | SEG_DB | 0xd)) != (SEG_S | SEG_P | SEG_L | 0x9) || SEG_DPL(attr) != cpl)
        return give_up(c, site); // 64-bit code, not conforming, accessed
    uint64_t s = 0;
    bool null_stack = !(ss & 0xfffc);
    if (null_stack ? cpl == 3 : !descriptor_load(c, ss, &s))
        return give_up(c, site);
    uint16_t stack_attr = (uint16_t)(s >> 40) & 0xf0ff;
    if (!null_stack && ((stack_attr & (SEG_S | SEG_P | 0xf)) != (SEG_S | SEG_P | 0x3) || SEG_DPL(stack_attr) != cpl))
        return give_up(c, site); // writable data, expanding up, accessed
    v->seg[CS] = (struct segment){.selector = cs, .attr = attr, .limit = 0xffffffff};
    if (null_stack)
        v->seg[SS] = (struct segment){.selector = ss, .unusable = true};
    else
        v->seg[SS] = (struct segment){.selector = ss, .attr = stack_attr, .limit = 0xffffffff};
    if (cpl == 3) { // data segments of the kernel must not stay
        static const enum segment_register data[] = {ES, DS, FS, GS};
        for (unsigned n = 0; n < 4; n++) {
            struct segment *g = &v->seg[data[n]];
            if (!g->unusable && (g->selector & 0xfffc) && SEG_DPL(g->attr) < 3 && (g->attr & 0xc) != 0xc)
                *g = (struct segment){.unusable = true, .base = n >= 2 ? g->base : 0};
        }
    }
    v->cpl = (uint8_t)cpl;
    v->nmi_blocked = false;
    c->guest_rsp = rsp;
    set_flags(c, (flags & 0x3f7fd7) | FLAG_1);
    return go_on(c, rip);
}

static uint64_t op_popf(struct context *c, const struct system_site *site)
{
    struct vcpu *v = c->vcpu;
    uint64_t now = context_flags(c), value = c->slow_value;
    uint64_t mask = FLAGS_STATUS | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_TF;
    unsigned iopl = now >> 12 & 3;
    if (v->cpl == 0)
        mask |= FLAG_IOPL;
    if (v->cpl <= iopl)
        mask |= FLAG_IF;
    uint64_t flags = (now & ~mask & ~(uint64_t)FLAG_RF) | (value & mask) | FLAG_1;
    set_flags(c, flags);
    bool same = !((now ^ flags) & ~(uint64_t)(FLAGS_STATUS | FLAG_DF | FLAG_IF | FLAG_ID));
    if (!same || (flags & ~now & FLAG_IF))
        return go_on(c, site->next);
    return next(c, site);
}

static uint64_t op_tsc(struct context *c, const struct system_site *site)
{
    struct vcpu *v = c->vcpu;
    if ((v->cr4 & CR4_TSD) && v->cpl)
        return give_up(c, site);
    bool loaded = !c->translator->plain_clock && foreign_begin(c);
    uint64_t tsc = vcpu_read_tsc(v);
    foreign_end(c, loaded);
    c->save[SAVE_RAX] = (uint32_t)tsc;
    c->save[SAVE_RDX] = tsc >> 32;
    return next(c, site);
}

static uint64_t op_tscp(struct context *c, const struct system_site *site)
{
    struct vcpu *v = c->vcpu;
    if ((v->cr4 & CR4_TSD) && v->cpl)
        return give_up(c, site);
    c->save[SAVE_RCX] = (uint32_t)v->tsc_aux;
    return op_tsc(c, site);
}

// ---- Privileged registers: the architecture's own functions, called in place --------------------------------------

// What they refused is done again by the interpreter, which raises the exception.
static uint64_t refused(struct context *c, const struct system_site *site)
{
    c->vcpu->event_pending = false;
    return give_up(c, site);
}

// The mode, or the mapping of the code, may be another one now.
static uint64_t go_on_after(struct context *c, const struct system_site *site)
{
    if (atomic_load_explicit(&c->kicked, memory_order_relaxed))
        return next(c, site);
    return go_on(c, site->next);
}

// Reads end in translated code that takes slow_value: nothing may come between.
static uint64_t op_read_cr(struct context *c, const struct system_site *site)
{
    bool loaded = foreign_begin(c);
    bool ok = vcpu_read_cr(c->vcpu, site->rep, &c->slow_value);
    foreign_end(c, loaded);
    return ok ? site->after : refused(c, site);
}

static uint64_t op_write_cr(struct context *c, const struct system_site *site)
{
    bool loaded = foreign_begin(c);
    bool ok = vcpu_write_cr(c->vcpu, site->rep, c->slow_value);
    foreign_end(c, loaded);
    if (!ok)
        return refused(c, site);
    return site->rep == 2 ? next(c, site) : go_on_after(c, site);
}

static uint64_t op_read_msr(struct context *c, const struct system_site *site)
{
    uint64_t value;
    bool loaded = foreign_begin(c);
    bool ok = vcpu_read_msr(c->vcpu, (uint32_t)c->save[SAVE_RCX], &value);
    foreign_end(c, loaded);
    if (!ok)
        return refused(c, site);
    c->save[SAVE_RAX] = (uint32_t)value;
    c->save[SAVE_RDX] = value >> 32;
    return next(c, site);
}

static uint64_t op_write_msr(struct context *c, const struct system_site *site)
{
    struct vcpu *v = c->vcpu;
    uint64_t value = (uint32_t)c->save[SAVE_RAX] | c->save[SAVE_RDX] << 32;
    bool loaded = foreign_begin(c);
    bool ok = vcpu_write_msr(v, (uint32_t)c->save[SAVE_RCX], value);
    foreign_end(c, loaded);
    if (!ok)
        return refused(c, site);
    c->fs_base = v->seg[FS].base;
    c->gs_base = v->seg[GS].base;
    return go_on_after(c, site);
}

static uint64_t op_invlpg(struct context *c, const struct system_site *site)
{
    bool loaded = foreign_begin(c);
    vcpu_flush_page(c->vcpu, c->slow_value);
    foreign_end(c, loaded);
    return go_on_after(c, site);
}

static uint64_t op_read_base(struct context *c, const struct system_site *site)
{
    if (!(c->vcpu->cr4 & CR4_FSGSBASE))
        return give_up(c, site);
    uint64_t base = site->rep == FS ? c->fs_base : c->gs_base;
    c->slow_value = site->size == 8 ? base : (uint32_t)base;
    return site->after;
}

static uint64_t op_write_base(struct context *c, const struct system_site *site)
{
    uint64_t base = site->size == 8 ? c->slow_value : (uint32_t)c->slow_value;
    if (!(c->vcpu->cr4 & CR4_FSGSBASE) || !vcpu_canonical(base))
        return give_up(c, site);
    c->vcpu->seg[site->rep].base = base;
    if (site->rep == FS)
        c->fs_base = base;
    else
        c->gs_base = base;
    return next(c, site);
}

// MOV to DS, ES, FS or GS in 64-bit code.
static uint64_t op_load_segment(struct context *c, const struct system_site *site)
{
    struct vcpu *v = c->vcpu;
    bool loaded = foreign_begin(c);
    bool ok = vcpu_load_segment(v, site->rep, (uint16_t)c->slow_value);
    foreign_end(c, loaded);
    if (!ok)
        return refused(c, site);
    c->fs_base = v->seg[FS].base;
    c->gs_base = v->seg[GS].base;
    return go_on_after(c, site);
}

static system_op *const ops[SYSTEM_OPS] = {
    [SYSTEM_SYSCALL] = op_syscall,
    [SYSTEM_SYSRET] = op_sysret,
    [SYSTEM_IRET] = op_iret,
    [SYSTEM_POPF] = op_popf,
    [SYSTEM_TSC] = op_tsc,
    [SYSTEM_TSCP] = op_tscp,
    [SYSTEM_STRING] = string_run,
    [SYSTEM_READ_CR] = op_read_cr,
    [SYSTEM_WRITE_CR] = op_write_cr,
    [SYSTEM_READ_MSR] = op_read_msr,
    [SYSTEM_WRITE_MSR] = op_write_msr,
    [SYSTEM_INVLPG] = op_invlpg,
    [SYSTEM_READ_BASE] = op_read_base,
    [SYSTEM_WRITE_BASE] = op_write_base,
    [SYSTEM_LOAD_SEGMENT] = op_load_segment,
};

uint64_t translate_system_op(struct context *c)
{
    const struct system_site *site = (const struct system_site *)(uintptr_t)c->slow_site;
    c->counters.system++;
    return ops[site->op](c, site);
}

// ---- Modes
// ------------------------------------------------------------------------------------------------------------

static bool segment_flat(const struct segment *s, bool writable)
{
    return !s->unusable && s->base == 0 && s->limit == 0xffffffff && (s->attr & SEG_P) && (!writable || (s->attr & 2));
}

static uint32_t vector_modes(const struct vcpu *v)
{
    uint32_t mode = 0;
    if (v->cr0 & (CR0_TS | CR0_EM))
        return 0;
    if (v->cr0 & CR0_NE)
        mode |= MODE_X87;
    if (v->cr4 & CR4_OSFXSR)
        mode |= MODE_SSE;
    if ((v->cr4 & CR4_OSXSAVE) && (v->xcr0 & 6) == 6)
        mode |= MODE_AVX | ((v->xcr0 & XCR0_AVX512) == XCR0_AVX512 ? MODE_AVX512 : 0);
    return mode;
}

uint32_t mode_of(const struct vcpu *v)
{
    uint32_t mode;
    if ((v->rflags & (FLAG_TF | FLAG_VM)) || (v->dr7 & 0xff) || v->interrupt_shadow || v->event_pending)
        return MODE_UNSUPPORTED;
    if (vcpu_code64(v)) {
        mode = MODE_64;
    } else {
        if (!(v->cr0 & CR0_PE) || !(v->seg[CS].attr & SEG_DB) || !(v->seg[SS].attr & SEG_DB))
            return MODE_UNSUPPORTED;
        if (!segment_flat(&v->seg[CS], false) || !segment_flat(&v->seg[SS], true) || !segment_flat(&v->seg[DS], true) ||
            !segment_flat(&v->seg[ES], true))
            return MODE_UNSUPPORTED;
        mode = MODE_32 | MODE_STACK32;
    }
    if (v->cpl == 3) {
        if ((v->cr0 & CR0_AM) && (v->rflags & FLAG_AC))
            return MODE_UNSUPPORTED;
        mode |= MODE_USER;
    } else if (v->cr4 & CR4_SMAP) {
        mode |= MODE_SMAP | (v->rflags & FLAG_AC ? MODE_AC : 0);
    }
    if (v->cpl == 0)
        mode |= MODE_CPL0;
    return mode | vector_modes(v);
}
