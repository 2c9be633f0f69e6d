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
// A message on the APIC bus (IPI, I/O APIC, MSI). DESTINATION in xAPIC (8-bit) or x2APIC form. Any thread. Returns how many
// processors accepted it (a lowest-priority message goes to one).
unsigned lapic_send(struct cpu_set *set, uint32_t destination, bool logical, enum lapic_delivery delivery,
                    uint8_t vector, bool level);
// An MSI: address 0xFEExxxxx and data (SDM vol. 3, 11.11).
void lapic_send_msi(struct cpu_set *set, uint64_t address, uint32_t data);
// LINT0 (8259) level and LINT1 (NMI) edge of the boot processor's APIC. Any thread.
void lapic_set_lint(struct lapic *lapic, unsigned lint, bool level);

// Owner's thread: highest deliverable vector or -1 / moves it from IRR to ISR.
int lapic_pending(struct lapic *lapic);
int lapic_acknowledge(struct lapic *lapic);

extern const struct field lapic_fields[];

#endif
