// SPDX-License-Identifier: GPL-2.0-or-later
// Runs single vector instructions for the interpreter on the host's processor, with the guest's vector state. Built
// without vector registers, like slow.c.
#include <signal.h>

#include "core/cpu/translate/system.h"

#pragma GCC target("general-regs-only")

static void put_code(struct context *c, const struct native_insn *insn)
{
    uint8_t *at = writable(c->translator, native_slot(c));
    for (unsigned n = 0; n < insn->length; n++)
        at[n] = insn->code[n];
    at[insn->length] = 0xc3;
    c->native_length = insn->length;
}

static int exception_of(const struct vcpu *v, unsigned signal)
{
    switch (signal) {
    case 0:
        return 0;
    case SIGFPE:
        return v->cr4 & CR4_OSXMMEXCPT ? EXCEPTION_XM : EXCEPTION_UD;
    case SIGILL:
        return EXCEPTION_UD;
    default: // memory is ours: alignment
        return EXCEPTION_GP;
    }
}

int translate_native(struct vcpu *v, struct native_insn *insn)
{
    struct context *c = v->engine_state;
    uint64_t flags = FLAG_1 | (insn->flags & FLAGS_STATUS);
    put_code(c, insn);
    vector_prepare(c);
    c->native_fault = 0;
    foreign_end(c, true);
    __asm__ volatile("sub $128, %%rsp; push %[flags]; popfq\n" // beyond the red zone
                     "call *%[code]\n"
                     "pushfq; pop %[flags]; add $128, %%rsp"
                     : "+a"(insn->rax), [flags] "+r"(flags)
                     : [code] "r"(native_slot(c)), "c"(insn->memory)
                     : "memory", "cc");
    foreign_begin(c);
    insn->flags = flags & FLAGS_STATUS;
    return exception_of(v, c->native_fault);
}
