// SPDX-License-Identifier: GPL-2.0-or-later
// Processor state into KVM and back. A register that the kernel refuses is skipped with a line in the log.
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/cpu/interpret/interpret.h"
#include "core/cpu/kvm/kvm.h"
#include "core/cpu/lapic.h"
#include "core/cpu/model.h"

// kvm_regs names the general registers in an order of its own.
static const uint8_t gpr_order[16] = {RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8, R9, R10, R11, R12, R13, R14, R15};

// ---- MSRs
// -------------------------------------------------------------------------------------------------------------

#define M(number, member)                                                                                              \
    {                                                                                                                  \
        number, offsetof(struct vcpu, member)                                                                          \
    }
#define RANGE(number, n) M(number + 2 * n, mtrr_base[n]), M(number + 2 * n + 1, mtrr_mask[n])
static const struct {
    uint32_t number;
    size_t offset;
} known_msrs[] = {
    M(0xc0000081, star),
    M(0xc0000082, lstar),
    M(0xc0000083, cstar),
    M(0xc0000084, fmask),
    M(0xc0000102, kernel_gs_base),
    M(0xc0000103, tsc_aux),
    M(0x174, sysenter_cs),
    M(0x175, sysenter_esp),
    M(0x176, sysenter_eip),
    M(0x277, pat),
    M(0x1a0, misc_enable),
    M(0x1d9, debugctl),
    M(0x4b564d00, kvmclock_wall_clock),
    M(0x4b564d01, kvmclock_system_time),
    M(0x17a, mcg_status),
    M(0x250, mtrr_fixed[0]),
    M(0x258, mtrr_fixed[1]),
    M(0x259, mtrr_fixed[2]),
    M(0x268, mtrr_fixed[3]),
    M(0x269, mtrr_fixed[4]),
    M(0x26a, mtrr_fixed[5]),
    M(0x26b, mtrr_fixed[6]),
    M(0x26c, mtrr_fixed[7]),
    M(0x26d, mtrr_fixed[8]),
    M(0x26e, mtrr_fixed[9]),
    M(0x26f, mtrr_fixed[10]),
    RANGE(0x200, 0),
    RANGE(0x200, 1),
    RANGE(0x200, 2),
    RANGE(0x200, 3),
    RANGE(0x200, 4),
    RANGE(0x200, 5),
    RANGE(0x200, 6),
    RANGE(0x200, 7),
    M(0x2ff, mtrr_def_type), // last: it turns the others on
};
#undef RANGE
#undef M
_Static_assert(G_N_ELEMENTS(known_msrs) <= KVM_MSRS_MAX, "room for every MSR");

void kvm_msrs_choose(struct kvm_machine *m)
{
    struct kvm_msr_list probe = {.nmsrs = 0};
    ioctl(m->kvm, KVM_GET_MSR_INDEX_LIST, &probe); // says how many
    g_autofree struct kvm_msr_list *list = g_malloc0(sizeof *list + probe.nmsrs * sizeof(uint32_t));
    list->nmsrs = probe.nmsrs;
    if (ioctl(m->kvm, KVM_GET_MSR_INDEX_LIST, list) < 0) {
        log_warning("kvm", "the kernel does not say which MSRs it keeps (%s): each is tried", g_strerror(errno));
        list->nmsrs = 0;
    }
    for (unsigned k = 0; k < G_N_ELEMENTS(known_msrs); k++) {
        // MTRRs and PAT are not listed; without a list every one is tried.
        bool kept = !list->nmsrs || (known_msrs[k].number >= 0x200 && known_msrs[k].number < 0x300);
        for (unsigned n = 0; n < list->nmsrs; n++)
            kept |= list->indices[n] == known_msrs[k].number;
        if (kept)
            m->msrs[m->msr_count++] = k;
        else
            log_info("kvm", "the kernel does not keep MSR %x", known_msrs[k].number);
    }
}

// The kernel refuses one: it is left out from now on.
static void msr_refused(struct kvm_machine *m, unsigned n)
{
    if (atomic_exchange(&m->msr_refused[n], true))
        return;
    log_warning("kvm", "the kernel refuses MSR %x (%s): it is left out", known_msrs[m->msrs[n]].number,
                g_strerror(errno));
}

struct msr_buffer {
    struct kvm_msrs head;
    struct kvm_msr_entry entries[KVM_MSRS_MAX];
};

// Writing a clock's MSR has the kernel write guest memory: only where it is new.
static bool clock_is_set(struct kvm_cpu *c, const struct kvm_msr_entry *entry)
{
    struct msr_buffer b = {.head.nmsrs = 1};
    b.entries[0].index = entry->index;
    return entry->index >> 8 == 0x4b564d && ioctl(c->fd, KVM_GET_MSRS, &b) == 1 && b.entries[0].data == entry->data;
}

static void msrs_put(struct kvm_cpu *c, struct kvm_machine *m)
{
    for (unsigned n = 0; n < m->msr_count; n++) {
        struct msr_buffer b = {.head.nmsrs = 1};
        if (atomic_load(&m->msr_refused[n]))
            continue;
        b.entries[0].index = known_msrs[m->msrs[n]].number;
        memcpy(&b.entries[0].data, (char *)c->vcpu + known_msrs[m->msrs[n]].offset, 8);
        if (!clock_is_set(c, &b.entries[0]) && ioctl(c->fd, KVM_SET_MSRS, &b) != 1)
            msr_refused(m, n);
    }
    struct msr_buffer tsc = {.head.nmsrs = 1};
    tsc.entries[0].index = 0x10;
    tsc.entries[0].data = vcpu_read_tsc(c->vcpu);
    ioctl(c->fd, KVM_SET_MSRS, &tsc);
}

static void msrs_get(struct kvm_cpu *c, struct kvm_machine *m)
{
    for (unsigned n = 0; n < m->msr_count; n++) {
        struct msr_buffer b = {.head.nmsrs = 1};
        b.entries[0].index = known_msrs[m->msrs[n]].number;
        if (!atomic_load(&m->msr_refused[n]) && ioctl(c->fd, KVM_GET_MSRS, &b) == 1)
            memcpy((char *)c->vcpu + known_msrs[m->msrs[n]].offset, &b.entries[0].data, 8);
    }
}

// ---- Segments
// ---------------------------------------------------------------------------------------------------------

static struct kvm_segment segment_to_kvm(const struct segment *s)
{
    return (struct kvm_segment){.base = s->base,
                                .limit = s->limit,
                                .selector = s->selector,
                                .type = SEG_TYPE(s->attr),
                                .s = s->attr >> 4 & 1,
                                .dpl = SEG_DPL(s->attr),
                                .present = s->attr >> 7 & 1,
                                .avl = s->attr >> 12 & 1,
                                .l = s->attr >> 13 & 1,
                                .db = s->attr >> 14 & 1,
                                .g = s->attr >> 15 & 1,
                                .unusable = s->unusable};
}

static struct segment segment_from_kvm(const struct kvm_segment *s)
{
    return (struct segment){.selector = s->selector,
                            .attr = (uint16_t)(s->type | s->s << 4 | s->dpl << 5 | s->present << 7 | s->avl << 12 |
                                               s->l << 13 | s->db << 14 | s->g << 15),
                            .limit = s->limit,
                            .base = s->base,
                            .unusable = s->unusable};
}

static bool sregs_put(struct kvm_cpu *c)
{
    const struct vcpu *v = c->vcpu;
    struct kvm_sregs s = {.cr0 = v->cr0, .cr2 = v->cr2, .cr3 = v->cr3, .cr4 = v->cr4, .efer = v->efer};
    struct kvm_segment *const segments[SEGMENT_COUNT] = {&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs};
    for (unsigned n = 0; n < SEGMENT_COUNT; n++)
        *segments[n] = segment_to_kvm(&v->seg[n]);
    s.tr = segment_to_kvm(&v->tr);
    s.ldt = segment_to_kvm(&v->ldtr);
    s.gdt = (struct kvm_dtable){.base = v->gdtr.base, .limit = (uint16_t)v->gdtr.limit};
    s.idt = (struct kvm_dtable){.base = v->idtr.base, .limit = (uint16_t)v->idtr.limit};
    s.apic_base = v->apic_base;
    s.cr8 = lapic_tpr(v->lapic);
    return ioctl(c->fd, KVM_SET_SREGS, &s) == 0;
}

static bool sregs_get(struct kvm_cpu *c)
{
    struct vcpu *v = c->vcpu;
    struct kvm_sregs s;
    if (ioctl(c->fd, KVM_GET_SREGS, &s) < 0)
        return false;
    const struct kvm_segment *const segments[SEGMENT_COUNT] = {&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs};
    for (unsigned n = 0; n < SEGMENT_COUNT; n++)
        v->seg[n] = segment_from_kvm(segments[n]);
    v->tr = segment_from_kvm(&s.tr);
    v->ldtr = segment_from_kvm(&s.ldt);
    v->gdtr = (struct table_register){s.gdt.base, s.gdt.limit};
    v->idtr = (struct table_register){s.idt.base, s.idt.limit};
    v->cr0 = s.cr0;
    v->cr2 = s.cr2;
    v->cr3 = s.cr3;
    v->cr4 = s.cr4;
    v->efer = s.efer;
    v->apic_base = s.apic_base;
    lapic_set_tpr(v->lapic, s.cr8);
    v->cpl = s.cs.dpl;
    if (!(v->cr0 & CR0_PE))
        v->cpl = 0;
    else if (s.ss.dpl <= 3 && !s.ss.unusable)
        v->cpl = s.ss.dpl;
    return true;
}

// ---- All
// --------------------------------------------------------------------------------------------------------------

static void xcr_put(struct kvm_cpu *c, struct kvm_machine *m)
{
    struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = c->vcpu->xcr0}};
    if (m->has_xcrs)
        ioctl(c->fd, KVM_SET_XCRS, &x);
}

static void xcr_get(struct kvm_cpu *c, struct kvm_machine *m)
{
    struct kvm_xcrs x;
    if (m->has_xcrs && ioctl(c->fd, KVM_GET_XCRS, &x) == 0 && x.nr_xcrs)
        c->vcpu->xcr0 = x.xcrs[0].value;
}

static bool activity_put(struct kvm_cpu *c)
{
    static const uint32_t states[] = {[VCPU_RUNNING] = KVM_MP_STATE_RUNNABLE,
                                      [VCPU_HALTED] = KVM_MP_STATE_HALTED,
                                      [VCPU_WAIT_FOR_SIPI] = KVM_MP_STATE_INIT_RECEIVED,
                                      [VCPU_SHUTDOWN] = KVM_MP_STATE_RUNNABLE};
    struct kvm_mp_state state = {states[c->vcpu->activity]};
    return ioctl(c->fd, KVM_SET_MP_STATE, &state) == 0;
}

// First of all that is read: the kernel serves an INIT or SIPI that has come.
static bool activity_get(struct kvm_cpu *c)
{
    struct vcpu *v = c->vcpu;
    struct kvm_mp_state state;
    if (ioctl(c->fd, KVM_GET_MP_STATE, &state) < 0)
        return false;
    if (v->activity == VCPU_SHUTDOWN)
        return true;
    v->activity = state.mp_state == KVM_MP_STATE_RUNNABLE ? VCPU_RUNNING
                  : state.mp_state == KVM_MP_STATE_HALTED ? VCPU_HALTED
                                                          : VCPU_WAIT_FOR_SIPI;
    return true;
}

// The kernel has AVX-512 state in the host's standard layout, which is also the guest's.
static void *avx512_component(struct vcpu *v, unsigned n)
{
    return n == 5 ? (void *)v->avx512.opmask : n == 6 ? (void *)v->avx512.zmmh : (void *)v->avx512.zmm16;
}

static void avx512_put(struct vcpu *v)
{
    v->xsave.xstate_bv &= ~(uint64_t)XCR0_AVX512;
    for (unsigned n = 5; n < 8; n++) {
        struct xsave_component place = xsave_component(v->set->model, n);
        if (!place.size || !(v->avx512.xstate_bv & BIT(n)))
            continue;
        memcpy((uint8_t *)&v->xsave + place.offset, avx512_component(v, n), place.size);
        v->xsave.xstate_bv |= BIT(n);
    }
}

static void avx512_get(struct vcpu *v)
{
    v->avx512.xstate_bv = 0;
    for (unsigned n = 5; n < 8; n++) {
        struct xsave_component place = xsave_component(v->set->model, n);
        if (!place.size || !(v->xsave.xstate_bv & BIT(n)))
            continue;
        memcpy(avx512_component(v, n), (const uint8_t *)&v->xsave + place.offset, place.size);
        v->avx512.xstate_bv |= BIT(n);
    }
}

bool kvm_state_put(struct kvm_cpu *c)
{
    struct vcpu *v = c->vcpu;
    struct kvm_machine *m = v->set->engine_state;
    struct kvm_regs r = {.rip = v->rip, .rflags = v->rflags};
    for (unsigned n = 0; n < 16; n++)
        (&r.rax)[n] = v->gpr[gpr_order[n]];
    struct kvm_debugregs d = {.db = {v->dr[0], v->dr[1], v->dr[2], v->dr[3]}, .dr6 = v->dr6, .dr7 = v->dr7};
    struct kvm_vcpu_events e = {.interrupt.shadow = v->interrupt_shadow == 2   ? KVM_X86_SHADOW_INT_MOV_SS
                                                    : v->interrupt_shadow == 1 ? KVM_X86_SHADOW_INT_STI
                                                                               : 0,
                                .nmi.masked = v->nmi_blocked,
                                .flags = KVM_VCPUEVENT_VALID_SHADOW};
    v->xsave.xstate_bv |= XCR0_X87 | XCR0_SSE | (v->xcr0 & XCR0_AVX);
    avx512_put(v);
    bool ok = sregs_put(c) && ioctl(c->fd, KVM_SET_REGS, &r) == 0;
    xcr_put(c, m);
    ok = ok && ioctl(c->fd, KVM_SET_XSAVE, &v->xsave) == 0 && ioctl(c->fd, KVM_SET_DEBUGREGS, &d) == 0 &&
         ioctl(c->fd, KVM_SET_VCPU_EVENTS, &e) == 0 && activity_put(c);
    msrs_put(c, m);
    return ok;
}

// An event that the kernel was about to deliver is delivered here: the state then has it done, for any engine.
static bool finish_events(struct vcpu *v, const struct kvm_vcpu_events *e)
{
    if (e->nmi.pending || e->nmi.injected)
        atomic_fetch_or(&v->attention, ATTENTION_NMI);
    if (!(e->exception.injected || (e->interrupt.injected && !e->interrupt.soft)))
        return true;
    interpret_flush_tlb(v); // what the guest has changed since
    if (e->exception.injected)
        return vcpu_deliver(v, EVENT_EXCEPTION, e->exception.nr,
                            e->exception.has_error_code ? (int64_t)e->exception.error_code : -1);
    return vcpu_deliver(v, EVENT_EXTERNAL, e->interrupt.nr, -1);
}

bool kvm_state_get(struct kvm_cpu *c)
{
    struct vcpu *v = c->vcpu;
    struct kvm_machine *m = v->set->engine_state;
    struct kvm_regs r;
    struct kvm_debugregs d;
    struct kvm_vcpu_events e;
    if (!activity_get(c) || ioctl(c->fd, KVM_GET_REGS, &r) < 0 || !sregs_get(c) ||
        ioctl(c->fd, KVM_GET_XSAVE, &v->xsave) < 0 || ioctl(c->fd, KVM_GET_DEBUGREGS, &d) < 0 ||
        ioctl(c->fd, KVM_GET_VCPU_EVENTS, &e) < 0)
        return false;
    for (unsigned n = 0; n < 16; n++)
        v->gpr[gpr_order[n]] = (&r.rax)[n];
    v->rip = r.rip;
    v->rflags = r.rflags | FLAG_1;
    avx512_get(v);
    for (unsigned n = 0; n < 4; n++)
        v->dr[n] = d.db[n];
    v->dr6 = d.dr6;
    v->dr7 = d.dr7;
    v->interrupt_shadow = e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? 2 : e.interrupt.shadow ? 1 : 0;
    v->nmi_blocked = e.nmi.masked;
    xcr_get(c, m);
    msrs_get(c, m);
    return finish_events(v, &e);
}

// ---- CPUID
// ------------------------------------------------------------------------------------------------------------

#define CPUID_MAX 128
struct cpuid_buffer {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entries[CPUID_MAX];
};

// The guest sees what the model says, less what this kernel cannot do.
static void cpuid_filter(const struct cpuid_buffer *supported, struct kvm_cpuid_entry2 *e)
{
    if (e->function != 1 && e->function != 7 && e->function != 0xd && e->function != 0x80000001)
        return;
    for (unsigned n = 0; n < supported->head.nent; n++) {
        const struct kvm_cpuid_entry2 *s = &supported->entries[n];
        if (s->function != e->function || s->index != e->index)
            continue;
        if (e->function == 0xd) {
            e->eax &= e->index == 0 ? s->eax : UINT32_MAX;
            continue;
        }
        if (e->function == 7 && e->index == 1)
            e->eax &= s->eax;
        uint32_t keep = e->function == 1 ? BIT(27) | BIT(21) | BIT(24) | BIT(31) : 0; // OSXSAVE, x2APIC, deadline: ours
        e->ecx &= s->ecx | keep;
        e->edx &= s->edx | (e->function == 1 ? BIT(9) : 0);
        if (e->function == 7)
            e->ebx &= s->ebx;
    }
}

bool kvm_cpuid_set(struct kvm_cpu *c, GError **error)
{
    static const struct {
        uint32_t first, last, subleaves;
    } ranges[] = {{0, 0x1f, 0}, {0x40000000, 0x40000010, 0}, {0x80000000, 0x80000008, 0}};
    struct kvm_machine *m = c->vcpu->set->engine_state;
    struct cpuid_buffer supported = {.head.nent = CPUID_MAX}, b = {.head.nent = 0};
    if (ioctl(m->kvm, KVM_GET_SUPPORTED_CPUID, &supported) < 0)
        supported.head.nent = 0;
    for (unsigned r = 0; r < G_N_ELEMENTS(ranges); r++) {
        uint32_t top[4];
        vcpu_cpuid(c->vcpu, ranges[r].first, 0, top);
        for (uint32_t leaf = ranges[r].first; leaf <= MIN(ranges[r].last, MAX(top[0], ranges[r].first)); leaf++) {
            bool indexed = leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x1f;
            unsigned subleaves = leaf == 0xd ? 10 : indexed ? 4 : 1;
            for (unsigned sub = 0; sub < subleaves && b.head.nent < CPUID_MAX; sub++) {
                uint32_t out[4];
                vcpu_cpuid(c->vcpu, leaf, sub, out);
                struct kvm_cpuid_entry2 *e = &b.entries[b.head.nent++];
                *e = (struct kvm_cpuid_entry2){.function = leaf,
                                               .index = sub,
                                               .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
                                               .eax = out[0],
                                               .ebx = out[1],
                                               .ecx = out[2],
                                               .edx = out[3]};
                cpuid_filter(&supported, e);
            }
        }
    }
    if (ioctl(c->fd, KVM_SET_CPUID2, &b) == 0)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "KVM refuses this CPU model (%s): choose another with --cpu.",
                g_strerror(errno));
    return false;
}
