// SPDX-License-Identifier: GPL-2.0-or-later
// The local APIC of each processor: xAPIC page, x2APIC MSRs, timer with TSC-deadline (SDM vol. 3, chapter 11).
#ifndef CLOCHE_LAPIC_H
#define CLOCHE_LAPIC_H

#include "core/base/fields.h"
#include "core/cpu/vcpu.h"

struct lapic *lapic_new(struct vcpu *vcpu);
void lapic_free(struct lapic *lapic);
void lapic_reset(struct lapic *lapic, bool init); // INIT keeps the APIC ID

// Register access on the owner's thread: OFFSET in the 4 KiB page; 32-bit accesses.
uint32_t lapic_read(struct lapic *lapic, unsigned offset);
void lapic_write(struct lapic *lapic, unsigned offset, uint32_t value);
// x2APIC MSRs 0x800-0x8ff; false: #GP.
bool lapic_read_msr(struct lapic *lapic, uint32_t msr, uint64_t *value);
bool lapic_write_msr(struct lapic *lapic, uint32_t msr, uint64_t value);
uint64_t lapic_tpr(struct lapic *lapic); // CR8
void lapic_set_tpr(struct lapic *lapic, uint64_t value);
bool lapic_write_base(struct lapic *lapic, uint64_t value); // IA32_APIC_BASE; false: #GP
void lapic_write_tsc_deadline(struct lapic *lapic, uint64_t value);
uint64_t lapic_tsc_deadline(struct lapic *lapic);

enum lapic_delivery { LAPIC_FIXED, LAPIC_LOWEST, LAPIC_SMI, LAPIC_NMI = 4, LAPIC_INIT, LAPIC_SIPI, LAPIC_EXTINT };
// A message on the APIC bus (IPI, I/O APIC, MSI). DESTINATION in xAPIC (8-bit) or x2APIC form. Any thread. Returns how
// many processors accepted it (a lowest-priority message goes to one).
unsigned lapic_send(struct cpu_set *set, uint32_t destination, bool logical, enum lapic_delivery delivery,
                    uint8_t vector, bool level);
// An MSI: address 0xFEExxxxx and data (SDM vol. 3, 11.11).
void lapic_send_msi(struct cpu_set *set, uint64_t address, uint32_t data);
// LINT0 (8259) level and LINT1 (NMI) edge of the boot processor's APIC. Any thread.
void lapic_set_lint(struct lapic *lapic, unsigned lint, bool level);
bool lapic_lint(struct lapic *lapic, unsigned lint); // the level. Any thread

// Owner's thread: highest deliverable vector or -1 / moves it from IRR to ISR.
int lapic_pending(struct lapic *lapic);
int lapic_acknowledge(struct lapic *lapic);

// Is GPA in the xAPIC page of this processor? Then its accesses go to lapic_read() and lapic_write(), not to the map.
static inline bool lapic_covers(const struct vcpu *vcpu, uint64_t gpa)
{
    return (gpa & PAGE_MASK) == (vcpu->apic_base & MASK_BITS(51, 12)) && (vcpu->apic_base & 0xc00) == 0x800;
}
// An access of any size and alignment there, little-endian.
void lapic_page_read(struct lapic *lapic, unsigned offset, void *data, unsigned size);
void lapic_page_write(struct lapic *lapic, unsigned offset, const void *data, unsigned size);
// Owner's thread: does LINT0 offer the 8259's interrupt?
bool lapic_extint_pending(struct lapic *lapic);
uint8_t lapic_sipi_vector(struct lapic *lapic);

extern const struct field lapic_fields[];
// The structure that lapic_fields describe, for saving; call lapic_loaded() after loading it.
void *lapic_state(struct lapic *lapic);
void lapic_loaded(struct lapic *lapic);

// For an engine whose kernel keeps the APIC while the machine runs: all of it as the register page of xAPIC mode, one
// word for 16 bytes' first four at OFFSET / 4, the present count among them; the timer stops. And back, with the
// TSC deadline in guest ticks (0: none). Only while the vCPU is parked; its apic_base is right already.
#define LAPIC_PAGE_WORDS 256
void lapic_to_page(struct lapic *lapic, uint32_t page[LAPIC_PAGE_WORDS]);
void lapic_from_page(struct lapic *lapic, const uint32_t page[LAPIC_PAGE_WORDS], uint64_t deadline);

#endif
