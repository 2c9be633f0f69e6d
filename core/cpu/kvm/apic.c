// SPDX-License-Identifier: GPL-2.0-or-later
// The kernel's local APICs: taken over while the machine runs, read back when it stands still; messages to them; which
// vectors are level-triggered, so that the kernel tells the I/O APIC of their end ("split irqchip").
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/cpu/kvm/kvm.h"
#include "core/cpu/lapic.h"

#define MSR_TSC_DEADLINE 0x6e0
#define VECTORS          256
#define FIRST_VECTOR     16                       // that an interrupt can have; its line in the kernel's table is 0
#define LINES            (VECTORS - FIRST_VECTOR) // the kernel counts them in a byte

_Static_assert(sizeof(struct kvm_lapic_state) == LAPIC_PAGE_WORDS * 4, "the register page");

bool kvm_apics_init(struct kvm_machine *m, GError **error)
{
    // One line of the kernel's table for each vector that may come from the I/O APIC.
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args[0] = LINES};
    if (ioctl(m->vm, KVM_ENABLE_CAP, &split) == 0)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                "This kernel's KVM cannot keep local APICs (%s): use --engine translate.", g_strerror(errno));
    return false;
}

static void deadline_put(struct kvm_cpu *c)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } b = {.head.nmsrs = 1, .entry = {.index = MSR_TSC_DEADLINE, .data = lapic_tsc_deadline(c->vcpu->lapic)}};
    if (b.entry.data && ioctl(c->fd, KVM_SET_MSRS, &b) != 1)
        log_warning("kvm", "vcpu %u: the kernel refuses the deadline of the timer", c->vcpu->index);
}

static uint64_t deadline_get(struct kvm_cpu *c)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } b = {.head.nmsrs = 1, .entry.index = MSR_TSC_DEADLINE};
    return ioctl(c->fd, KVM_GET_MSRS, &b) == 1 ? b.entry.data : 0;
}

// The kernel reports the end of the vectors of which it has a level-triggered line, to whomever it was sent.
static void level_known(struct kvm_machine *m, uint8_t vector)
{
    struct {
        struct kvm_irq_routing head;
        struct kvm_irq_routing_entry entries[LINES];
    } table = {.head.nr = 0};
    g_mutex_lock(&m->level_lock);
    if (vector >= FIRST_VECTOR && !m->level[vector]) {
        m->level[vector] = true;
        for (unsigned n = FIRST_VECTOR; n < VECTORS; n++)
            if (m->level[n])
                table.entries[table.head.nr++] = (struct kvm_irq_routing_entry){

                    .gsi = n - FIRST_VECTOR,
                    .type = KVM_IRQ_ROUTING_MSI,
                    .u.msi = {.address_lo = 0xfeeff000, .data = n | 0xc000}};
        if (ioctl(m->vm, KVM_SET_GSI_ROUTING, &table) < 0)
            log_error("kvm", "the kernel does not watch interrupt %x: %s", vector, g_strerror(errno));
    }
    g_mutex_unlock(&m->level_lock);
}

// A processor that the kernel refuses is not run: kvm_engine_run() meets the same refusal and reports it.
void kvm_apics_in(struct cpu_set *set)
{
    struct kvm_machine *m = set->engine_state;
    g_rw_lock_writer_lock(&m->apics_lock);
    for (unsigned n = 0; !m->apics_in && n < set->count; n++) {
        struct kvm_cpu *c = set->vcpu[n]->engine_state;
        struct kvm_lapic_state page;
        if (!kvm_state_put(c))
            continue;
        lapic_to_page(set->vcpu[n]->lapic, (uint32_t *)(void *)page.regs);
        for (unsigned vector = 0; vector < VECTORS; vector++)
            if (page.regs[0x180 + vector / 32 * 16 + vector % 32 / 8] >> vector % 8 & 1) // TMR
                level_known(m, (uint8_t)vector);
        if (ioctl(c->fd, KVM_SET_LAPIC, &page) < 0)
            log_warning("kvm", "vcpu %u: the kernel refuses the local APIC: %s", n, g_strerror(errno));
        deadline_put(c);
    }
    m->apics_in = true;
    g_rw_lock_writer_unlock(&m->apics_lock);
}

void kvm_apics_out(struct cpu_set *set)
{
    struct kvm_machine *m = set->engine_state;
    g_rw_lock_writer_lock(&m->apics_lock);
    for (unsigned n = 0; m->apics_in && n < set->count; n++) {
        struct kvm_cpu *c = set->vcpu[n]->engine_state;
        struct kvm_lapic_state page;
        // What another processor sent to one that had stopped is in the kernel alone.
        if (!kvm_state_get(c) || ioctl(c->fd, KVM_GET_LAPIC, &page) < 0)
            log_warning("kvm", "vcpu %u: the kernel does not give its local APIC: %s", n, g_strerror(errno));
        else
            lapic_from_page(set->vcpu[n]->lapic, (const uint32_t *)(const void *)page.regs, deadline_get(c));
    }
    m->apics_in = false;
    g_rw_lock_writer_unlock(&m->apics_lock);
    kvm_doorbells_drain(m);
}

int kvm_apic_message(struct cpu_set *set, uint64_t address, uint32_t data)
{
    struct kvm_machine *m = set->engine_state;
    int accepted = -1;
    g_rw_lock_reader_lock(&m->apics_lock);
    if (m->apics_in) {
        struct kvm_msi msi = {.address_lo = (uint32_t)address, .data = data};
        if (data & BIT(15))
            level_known(m, (uint8_t)data);
        accepted = MAX(0, ioctl(m->vm, KVM_SIGNAL_MSI, &msi));
    }
    g_rw_lock_reader_unlock(&m->apics_lock);
    return accepted;
}
