// SPDX-License-Identifier: GPL-2.0-or-later
// Signals of vCPU threads: the kick, and host faults that a copied guest instruction raised.
//
// Translated code keeps guest values in the stack pointer, so handlers run on an alternate stack with SS_AUTODISARM,
// and vCPU threads block every signal but ours. A kick that arrives between two guest instructions leaves at once; in
// the middle of one it single-steps the host to the next boundary.
#include <asm/prctl.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "core/cpu/translate/translate.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif
#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

#define KICK_SIGNAL (SIGRTMIN + 5)

static _Thread_local struct context *thread_context; // of the vCPU that this thread runs
static struct sigaction old_actions[65];

static bool in_code(const struct translator *t, uint64_t pc)
{
    return pc >= (uintptr_t)t->code && pc < (uintptr_t)t->code + t->code_size;
}

// Lets the interrupted context go on at the exit thunk with HOST_A = RIP.
static void redirect(struct context *c, ucontext_t *u, uint64_t rip, unsigned flags, enum exit_reason reason)
{
    const struct thunks *t = &c->translator->thunks;
    c->exit_reason = reason;
    u->uc_mcontext.gregs[REG_R15] = (greg_t)rip;
    u->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)(flags == FLAGS_HOST ? t->exit_host : t->exit_saved);
    u->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)FLAG_TF;
}

// The boundary that begins exactly at host address PC, or with BEFORE the last one at or before it.
static const struct boundary *boundary_find(const struct block *b, uint64_t pc, bool before)
{
    if (pc < (uintptr_t)b->host)
        return NULL;
    uint64_t at = pc - (uintptr_t)b->host;
    const struct boundary *found = NULL;
    for (unsigned n = 0; n < b->boundaries && b->boundary[n].host <= at; n++)
        found = &b->boundary[n];
    return found && (before || found->host == at) ? found : NULL;
}

static uint64_t boundary_rip(const struct block *b, const struct boundary *boundary)
{
    uint64_t rip = b->address + boundary->guest;
    return b->mode & MODE_64 ? rip : (uint32_t)rip;
}

// A repeated MOVS or STOS of ours would take one step for each element: the rest is done here.
static void finish_string(ucontext_t *u)
{
    greg_t *r = u->uc_mcontext.gregs;
    const uint8_t *p = (const uint8_t *)(uintptr_t)r[REG_RIP];
    unsigned size = *p == 0x66 ? 2 : 0;
    p += size / 2;
    if (*p++ != 0xf3)
        return;
    if (*p == 0x48)
        size = 8, p++;
    if ((*p & 0xfe) != 0xa4 && (*p & 0xfe) != 0xaa)
        return;
    size = *p & 1 ? (size ? size : 4) : 1;
    uint8_t *to = (uint8_t *)(uintptr_t)r[REG_RDI];
    const uint8_t *from = *p < 0xaa ? (const uint8_t *)(uintptr_t)r[REG_RSI] : (const uint8_t *)&r[REG_RAX];
    for (; r[REG_RCX]; r[REG_RCX]--, to += size) {
        memmove(to, from, size);
        if (*p < 0xaa)
            from += size;
    }
    r[REG_RDI] = (greg_t)(uintptr_t)to;
    if (*p < 0xaa)
        r[REG_RSI] = (greg_t)(uintptr_t)from;
    r[REG_RIP] = (greg_t)(uintptr_t)(p + 1);
}

static void kick_in_code(struct context *c, ucontext_t *u)
{
    struct translator *t = c->translator;
    uint64_t pc = (uint64_t)u->uc_mcontext.gregs[REG_RIP];
    // On the way into blocks, from C or from a helper: the first boundary will come.
    if ((pc >= (uintptr_t)t->thunks.enter && pc < (uintptr_t)t->thunks.enter_end) ||
        (pc >= (uintptr_t)t->thunks.slow && pc < (uintptr_t)t->thunks.return_end)) {
        c->counters.steps++;
        u->uc_mcontext.gregs[REG_EFL] |= FLAG_TF;
        return;
    }
    struct block *b = block_at_host(t, pc);
    if (!b) { // a way out already
        u->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)FLAG_TF;
        atomic_store(&c->kicked, 1);
        return;
    }
    const struct boundary *boundary = boundary_find(b, pc, false);
    if (boundary) {
        redirect(c, u, boundary_rip(b, boundary), boundary->flags, EXIT_KICK);
        return;
    }
    finish_string(u);
    c->counters.steps++;
    u->uc_mcontext.gregs[REG_EFL] |= FLAG_TF;
}

static void on_kick(int signal, siginfo_t *info, void *opaque)
{
    struct context *c = thread_context;
    ucontext_t *u = opaque;
    (void)signal;
    (void)info;
    if (!c)
        return;
    c->counters.kicks++;
    if (in_code(c->translator, (uint64_t)u->uc_mcontext.gregs[REG_RIP]))
        kick_in_code(c, u);
    else
        atomic_store(&c->kicked, 1);
}

static void on_step(int signal, siginfo_t *info, void *opaque)
{
    struct context *c = thread_context;
    ucontext_t *u = opaque;
    (void)signal;
    (void)info;
    if (c && in_code(c->translator, (uint64_t)u->uc_mcontext.gregs[REG_RIP])) {
        kick_in_code(c, u);
        return;
    }
    u->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)FLAG_TF;
    if (c)
        atomic_store(&c->kicked, 1);
}

// A copied instruction faulted on the host: divide error, SIMD or x87 exception, misaligned SSE operand, #UD. The
// interpreter does it again and raises the guest's exception.
static void on_fault(int signal, siginfo_t *info, void *opaque)
{
    struct context *c = thread_context;
    ucontext_t *u = opaque;
    uint64_t pc = (uint64_t)u->uc_mcontext.gregs[REG_RIP];
    if (c && pc == (uintptr_t)native_slot(c)) {
        c->native_fault = (uint32_t)signal;
        u->uc_mcontext.gregs[REG_RIP] += c->native_length; // to the return behind it
        return;
    }
    struct block *b = c && in_code(c->translator, pc) ? block_at_host(c->translator, pc) : NULL;
    const struct boundary *boundary = b ? boundary_find(b, pc, true) : NULL;
    // Memory operands were checked: SIGSEGV can only be #GP, for alignment.
    bool ours = boundary && (signal == SIGFPE || signal == SIGILL || info->si_code == SI_KERNEL);
    if (ours) {
        uint64_t rip = boundary_rip(b, boundary);
        unsigned flags = boundary->fault;
        if (pc >= (uintptr_t)b->stubs) { // an out-of-line copy
            rip = b->address + ((const struct slow_site *)(uintptr_t)c->slow_site)->guest;
            flags = FLAGS_SAVED;
        }
        redirect(c, u, rip, flags, EXIT_INTERPRET);
        return;
    }
    // Not ours: what was installed before decides, or the process dies with a core of the right place.
    sigaction(signal, &old_actions[signal], NULL);
    if (info->si_code <= 0) // sent by somebody: it does not come again by itself
        syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), signal);
}

bool signals_install(GError **error)
{
    static gsize once;
    static bool ok;
    if (g_once_init_enter(&once)) {
        struct sigaction kick = {.sa_sigaction = on_kick, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
        struct sigaction step = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
        struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
        static const int faults[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS};
        sigfillset(&kick.sa_mask);
        sigfillset(&step.sa_mask);
        sigfillset(&fault.sa_mask);
        ok = sigaction(KICK_SIGNAL, &kick, NULL) == 0 && sigaction(SIGTRAP, &step, NULL) == 0;
        for (unsigned i = 0; i < G_N_ELEMENTS(faults); i++)
            ok = ok && sigaction(faults[i], &fault, &old_actions[faults[i]]) == 0;
        g_once_init_leave(&once, 1);
    }
    if (!ok)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot install the translator's signal handlers: %s.",
                    g_strerror(errno));
    return ok;
}

// Once per thread: alternate stack, signal mask. Every time: gs.
void signals_prepare_thread(struct context *c)
{
    if (thread_context == c)
        return;
    static _Thread_local bool prepared;
    if (!prepared) {
        prepared = true;
        size_t size = MAX(getauxval(AT_MINSIGSTKSZ), 16384ul) + 65536;
        stack_t stack = {.ss_flags = (int)SS_AUTODISARM, .ss_size = size};
        stack.ss_sp = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL) < 0)
            g_error("no alternate signal stack: %s", g_strerror(errno));
        sigset_t mask;
        sigfillset(&mask);
        static const int open[] = {SIGFPE, SIGSEGV, SIGILL, SIGBUS, SIGTRAP};
        for (unsigned i = 0; i < G_N_ELEMENTS(open); i++)
            sigdelset(&mask, open[i]);
        sigdelset(&mask, KICK_SIGNAL);
        pthread_sigmask(SIG_SETMASK, &mask, NULL);
    }
    thread_context = c;
    syscall(SYS_arch_prctl, ARCH_SET_GS, c);
    atomic_store(&c->thread, (uint64_t)syscall(SYS_gettid));
}

void context_kick(struct context *c)
{
    if (c == thread_context) {
        atomic_store(&c->kicked, 1);
        return;
    }
    uint64_t tid = atomic_load(&c->thread);
    if (tid)
        syscall(SYS_tgkill, getpid(), (pid_t)tid, KICK_SIGNAL);
}
