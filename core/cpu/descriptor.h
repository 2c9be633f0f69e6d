// SPDX-License-Identifier: GPL-2.0-or-later
// Descriptors, selectors and stacks for the architecture code (SDM vol. 3, chapters 3, 6 and 7). Own thread only.
#ifndef CLOCHE_DESCRIPTOR_H
#define CLOCHE_DESCRIPTOR_H

#include "core/cpu/arch.h"

// System descriptor types
enum {
    SYSTEM_TSS16 = 1,
    SYSTEM_LDT = 2,
    SYSTEM_TSS16_BUSY = 3,
    SYSTEM_CALL16 = 4,
    SYSTEM_TASK_GATE = 5,
    SYSTEM_INTERRUPT16 = 6,
    SYSTEM_TRAP16 = 7,
    SYSTEM_TSS32 = 9,
    SYSTEM_TSS32_BUSY = 11,
    SYSTEM_CALL32 = 12,
    SYSTEM_INTERRUPT32 = 14,
    SYSTEM_TRAP32 = 15,
};
#define TYPE_CODE        8u // of code and data segments
#define TYPE_CONFORMING  4u // code
#define TYPE_EXPAND_DOWN 4u // data
#define TYPE_WRITABLE    2u // data
#define TYPE_READABLE    2u // code
#define TYPE_ACCESSED    1u

static inline uint16_t descriptor_attr(uint64_t d)
{
    return (uint16_t)(d >> 40);
}
static inline unsigned descriptor_type(uint64_t d)
{
    return SEG_TYPE(descriptor_attr(d));
}
static inline unsigned descriptor_dpl(uint64_t d)
{
    return SEG_DPL(descriptor_attr(d));
}
static inline bool descriptor_present(uint64_t d)
{
    return descriptor_attr(d) & SEG_P;
}
static inline bool descriptor_is_segment(uint64_t d) // code or data, not system
{
    return descriptor_attr(d) & SEG_S;
}
static inline bool descriptor_is_code(uint64_t d)
{
    return descriptor_is_segment(d) && (descriptor_type(d) & TYPE_CODE);
}
static inline bool descriptor_is_conforming(uint64_t d)
{
    return descriptor_type(d) & TYPE_CONFORMING;
}
uint32_t descriptor_limit(uint64_t d);
uint64_t descriptor_base(uint64_t d);

// vcpu_fault(), always false: `return fault(v, EXCEPTION_GP, selector);`
bool fault(struct vcpu *v, unsigned vector, int64_t error_code);

// Is SELECTOR within its table? Then *D. Faults with VECTOR and the selector's error code | EXTERNAL, or #PF.
bool descriptor_read(struct vcpu *v, uint16_t selector, uint64_t *d, unsigned vector, unsigned external);
// The upper 8 bytes of a 16-byte system descriptor in long mode.
bool descriptor_read_high(struct vcpu *v, uint16_t selector, uint64_t *high, unsigned vector, unsigned external);
// Without faults: LAR, LSL, VERR, VERW. False also for page faults, which are recorded then (vcpu->event_pending).
bool descriptor_peek(struct vcpu *v, uint16_t selector, uint64_t *d);
bool descriptor_set_accessed(struct vcpu *v, uint16_t selector, uint64_t *d);
bool descriptor_set_busy(struct vcpu *v, uint16_t selector, bool busy);
void segment_fill(struct segment *s, uint16_t selector, uint64_t d);
void segment_set_real(struct vcpu *v, struct segment *s, uint16_t selector); // real and virtual-8086 mode
void segment_set_null(struct vcpu *v, struct segment *s, uint16_t selector);
// Is [OFFSET, OFFSET + SIZE) within the limit? Legacy modes.
bool segment_in_limit(const struct segment *s, uint32_t offset, unsigned size);

bool vcpu_load_ldtr(struct vcpu *v, uint16_t selector);
bool vcpu_load_tr(struct vcpu *v, uint16_t selector);
// Loads DS, ES, FS, GS or SS against the privilege CPL, as at a task switch or return, with the given fault vector.
bool segment_load_data(struct vcpu *v, struct segment *s, uint16_t selector, unsigned cpl, unsigned vector);
bool segment_load_stack(struct vcpu *v, struct segment *s, uint16_t selector, unsigned cpl, unsigned vector,
                        unsigned external);

// A stack being pushed to or popped from; the registers change when the caller commits.
struct stack {
    struct vcpu *vcpu;
    struct segment ss;
    uint64_t sp;
    uint64_t mask;     // 0xffff, 0xffffffff or all ones
    unsigned access;   // ACCESS_USER or 0
    unsigned external; // EXT bit for error codes
    int64_t error;     // error code of a limit violation, less EXT
};
void stack_init(struct stack *s, struct vcpu *v, const struct segment *ss, uint64_t sp, unsigned cpl, bool code64);
bool stack_push(struct stack *s, uint64_t value, unsigned size);
bool stack_pop(struct stack *s, uint64_t *value, unsigned size);
// Reads at OFFSET bytes above the top, without moving it.
bool stack_peek(struct stack *s, unsigned offset, uint64_t *value, unsigned size);
void stack_commit(struct stack *s); // RSP only, as wide as the mask

// Ring-N stack from the TSS. Legacy: SS:ESP; long mode: RSP only (SS unchanged).
bool tss_stack(struct vcpu *v, unsigned cpl, uint16_t *ss, uint64_t *sp, unsigned external);
bool tss_rsp64(struct vcpu *v, unsigned slot_offset, uint64_t *rsp, unsigned external);

// Where the privilege level or mode may have changed: recompute what depends on it.
void vcpu_set_cpl(struct vcpu *v, unsigned cpl);

#endif
