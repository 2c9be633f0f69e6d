// SPDX-License-Identifier: GPL-2.0-or-later
// Between translated code and what serves system and string instructions for it.
#ifndef CLOCHE_TRANSLATE_SYSTEM_H
#define CLOCHE_TRANSLATE_SYSTEM_H

#include "core/cpu/translate/translate.h"

enum system_op_number {
    SYSTEM_SYSCALL,
    SYSTEM_SYSRET,
    SYSTEM_IRET,
    SYSTEM_POPF,
    SYSTEM_TSC,
    SYSTEM_TSCP,
    SYSTEM_STRING,
    SYSTEM_READ_CR, // rep: which; these and the next read into or write from slow_value
    SYSTEM_WRITE_CR,
    SYSTEM_READ_MSR,
    SYSTEM_WRITE_MSR,
    SYSTEM_INVLPG,
    SYSTEM_READ_BASE, // rep: FS or GS
    SYSTEM_WRITE_BASE,
    SYSTEM_LOAD_SEGMENT, // rep: which
    SYSTEM_OPS,
};

// Lies in the code cache behind its block.
struct system_site {
    uint32_t after; // executable address of the next instruction
    uint8_t op;     // enum system_op_number
    uint8_t size;   // operand size in bytes
    uint8_t opcode; // string instructions
    uint8_t rep;    // 0, F2, F3; or a register's number
    uint64_t rip, next;
} __attribute__((packed));

// Guest registers in context->save while a helper runs. RBX, RBP, R12 are in the host's, R13-R15 in the context.
enum { SAVE_RAX, SAVE_RCX, SAVE_RDX, SAVE_RSI, SAVE_RDI, SAVE_R8, SAVE_R9, SAVE_R10, SAVE_R11 };

uint64_t string_run(struct context *c, const struct system_site *site);
uint64_t context_flags(const struct context *c);

// Code that may use vector registers runs between these.
static inline bool foreign_begin(struct context *c)
{
    if (!c->vector_loaded)
        return false;
    __asm__ volatile("xsave64 %0" : "+m"(c->vcpu->xsave) : "a"(c->vector_mask[0]), "d"(c->vector_mask[1]) : "memory");
    if (c->avx512_mask)
        __asm__ volatile("xsavec64 %0" : "+m"(c->vcpu->avx512) : "a"(c->avx512_mask), "d"(0) : "memory");
    __asm__ volatile("ldmxcsr %0; fninit" : : "m"(c->host_mxcsr) : "memory");
    c->vector_loaded = 0;
    return true;
}

static inline void foreign_end(struct context *c, bool was_loaded)
{
    if (!was_loaded)
        return;
    __asm__ volatile("xrstor64 %0" : : "m"(c->vcpu->xsave), "a"(c->vector_mask[0]), "d"(c->vector_mask[1]) : "memory");
    if (c->avx512_mask)
        __asm__ volatile("xrstor64 %0" : : "m"(c->vcpu->avx512), "a"(c->avx512_mask), "d"(0) : "memory");
    c->vector_loaded = 1;
}

#endif
