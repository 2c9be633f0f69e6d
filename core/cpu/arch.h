// SPDX-License-Identifier: GPL-2.0-or-later
// The architecture shared by all engines: modes, paging, segmentation, exceptions, MSRs, CPUID, privileged
// instructions. Everything works on struct vcpu in memory. Functions that can fault return false (or leave through the
// engine's fault hook) after vcpu_fault() recorded the exception; the engine then calls vcpu_deliver_fault().
#ifndef CLOCHE_ARCH_H
#define CLOCHE_ARCH_H

#include "core/cpu/vcpu.h"

static inline bool vcpu_long_mode(const struct vcpu *v) // LMA
{
    return v->efer & EFER_LMA;
}
static inline bool vcpu_code64(const struct vcpu *v) // 64-bit sub-mode
{
    return (v->efer & EFER_LMA) && (v->seg[CS].attr & SEG_L);
}
static inline bool vcpu_real_mode(const struct vcpu *v)
{
    return !(v->cr0 & CR0_PE);
}
static inline bool vcpu_v86(const struct vcpu *v)
{
    return (v->rflags & FLAG_VM) != 0;
}
static inline bool vcpu_protected(const struct vcpu *v) // protected mode, not virtual-8086
{
    return (v->cr0 & CR0_PE) && !(v->rflags & FLAG_VM);
}
static inline bool vcpu_canonical(uint64_t address) // 48 bits
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

// ---- Paging (SDM vol. 3, chapter 5) -------------------------------------------------------------------------------

enum access {
    ACCESS_READ = 0,
    ACCESS_WRITE = 2,
    ACCESS_USER = 4,
    ACCESS_FETCH = 16
};                            // as in the page-fault error code
#define ACCESS_IMPLICIT 0x100 // implicit supervisor access (descriptor tables, TSS): ignores AC for SMAP

struct page_walk {
    uint64_t gpa;                                   // of the byte
    uint64_t page_size;                             // 4 KiB, 2 MiB, 4 MiB or 1 GiB
    bool writable, user, executable, global, dirty; // effective rights over all levels; dirty: D is set in the leaf
    uint64_t table[4];                              // gpa of each entry used, leaf last
    unsigned levels;
};
// Walks the guest's tables for ADDRESS, checks ACCESS, sets A and D as hardware does (compare-and-exchange). On a
// fault: false, and *ERROR_CODE is the #PF error code.
bool page_walk(struct vcpu *vcpu, uint64_t address, unsigned access, struct page_walk *walk, uint32_t *error_code);
// For debuggers and `info`: no rights, no A/D, no fault.
bool page_peek(struct vcpu *vcpu, uint64_t address, uint64_t *gpa);

// ---- Faults and delivery (SDM vol. 3, chapter 7) ------------------------------------------------------------------

// Records an exception with its error code (-1: none). For #PF set vcpu->cr2 first.
void vcpu_fault(struct vcpu *vcpu, unsigned vector, int64_t error_code);
enum event_type {
    EVENT_EXTERNAL,
    EVENT_NMI,
    EVENT_EXCEPTION,
    EVENT_SOFTWARE_INT,
    EVENT_ICEBP,
    EVENT_SOFTWARE_EXCEPTION
};
// Delivers an interrupt or exception through the IDT / IVT, with double- and triple-fault rules. RIP must be the return
// address. False: shutdown (triple fault).
bool vcpu_deliver(struct vcpu *vcpu, enum event_type type, unsigned vector, int64_t error_code);
// The same for what vcpu_fault() recorded (vcpu->event_pending). RIP must be that of the faulting instruction.
bool vcpu_deliver_fault(struct vcpu *vcpu);
// INT n, INT3, INTO, INT1 (ICEBP): RIP is the instruction's, NEXT_RIP the return address. A delivery that faults is
// itself delivered with the instruction's RIP. False: shutdown.
bool vcpu_software_interrupt(struct vcpu *vcpu, enum event_type type, unsigned vector, uint64_t next_rip);

// ---- State changes that engines must go through -------------------------------------------------------------------

// Each returns false after vcpu_fault(). They flush or re-key TLBs through the engine as needed.
bool vcpu_write_cr(struct vcpu *vcpu, unsigned number, uint64_t value);
bool vcpu_read_cr(struct vcpu *vcpu, unsigned number, uint64_t *value);
bool vcpu_write_dr(struct vcpu *vcpu, unsigned number, uint64_t value);
bool vcpu_read_dr(struct vcpu *vcpu, unsigned number, uint64_t *value);
bool vcpu_write_msr(struct vcpu *vcpu, uint32_t msr, uint64_t value);
bool vcpu_read_msr(struct vcpu *vcpu, uint32_t msr, uint64_t *value);
// Forget translations of guest-virtual addresses, in the engine and in the interpreter beside it. Own thread, or
// parked.
void vcpu_flush_tlb(struct vcpu *vcpu);
void vcpu_flush_page(struct vcpu *vcpu, uint64_t linear);
void vcpu_switch_space(struct vcpu *vcpu, bool keep);                                 // CR3 was loaded
void vcpu_cpuid(struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]); // eax ebx ecx edx
bool vcpu_write_xcr0(struct vcpu *vcpu, uint64_t value);
uint64_t vcpu_read_tsc(struct vcpu *vcpu);
bool vcpu_load_segment(struct vcpu *vcpu, enum segment_register reg, uint16_t selector);
bool vcpu_far_transfer(struct vcpu *vcpu, uint16_t selector, uint64_t offset, unsigned operand_size, bool call,
                       uint64_t return_rip);
bool vcpu_far_return(struct vcpu *vcpu, unsigned operand_size, unsigned release);
bool vcpu_iret(struct vcpu *vcpu, unsigned operand_size);
bool vcpu_syscall(struct vcpu *vcpu, uint64_t return_rip);
bool vcpu_sysret(struct vcpu *vcpu, unsigned operand_size);
bool vcpu_sysenter(struct vcpu *vcpu);
bool vcpu_sysexit(struct vcpu *vcpu, unsigned operand_size);
bool vcpu_task_switch(struct vcpu *vcpu, uint16_t selector, int reason, bool has_error, uint32_t error);
bool vcpu_port_allowed(struct vcpu *vcpu, uint16_t port, unsigned size); // IOPL and TSS bitmap

// ---- Guest-virtual accesses for architecture code -----------------------------------------------------------------

// Linear address (segment base already added). SIZE 1 to 16. False after vcpu_fault(#PF).
bool vcpu_load(struct vcpu *vcpu, uint64_t linear, void *data, unsigned size, unsigned access);
bool vcpu_store(struct vcpu *vcpu, uint64_t linear, const void *data, unsigned size, unsigned access);

// ---- Interrupts ---------------------------------------------------------------------------------------------------

// Highest deliverable interrupt vector now (local APIC, then 8259 through LINT0), acknowledging it; -1: none.
int vcpu_take_interrupt(struct vcpu *vcpu);
bool vcpu_interrupt_pending(struct vcpu *vcpu);

#endif
