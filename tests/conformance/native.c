// SPDX-License-Identifier: GPL-2.0-or-later
// The oracle: the host processor runs the instruction itself, in this process. State goes in and comes out through a
// signal frame: the handler that ends one run puts back the harness, and the next run starts from a trap of its own.
#include "tests/conformance/conformance.h"

#include <cpuid.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ucontext.h>
#include <ucontext.h>
#include <unistd.h>

// The thread's own state while guest registers are loaded. One worker process has one thread.
static struct {
    const struct vector *vector;
    struct outcome *out;
    bool running;
    gregset_t saved;
    uint8_t saved_fpu[2688];
} run;

static const unsigned greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                     REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

// Where the host's signal frames have the AVX-512 components, in the standard format.
static unsigned opmask_offset(void)
{
    static uint32_t offset;
    uint32_t eax, ecx, edx;
    if (!offset)
        __get_cpuid_count(0xd, 5, &eax, &offset, &ecx, &edx);
    return offset;
}

static void start(ucontext_t *uc)
{
    const struct vector *v = run.vector;
    greg_t *g = uc->uc_mcontext.gregs;

    memcpy(run.saved, g, sizeof(run.saved));
    memcpy(run.saved_fpu, uc->uc_mcontext.fpregs, with_avx512 ? sizeof run.saved_fpu : XSAVE_BYTES);
    for (unsigned k = 0; k < 16; k++)
        g[greg_of[k]] = (greg_t)v->in.gpr[k];
    g[REG_RIP] = (greg_t)v->in.rip;
    g[REG_EFL] = (greg_t)v->in.rflags;
    if (!v->is_64)
        g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffll) | SELECTOR_CODE32;
    uint8_t *fpu = (uint8_t *)uc->uc_mcontext.fpregs;
    memcpy(fpu, v->in.xsave, 416); // what follows is the kernel's description of the frame
    uint64_t bv;
    memcpy(&bv, fpu + 512, 8);
    bv |= 7 | (with_avx512 ? XCR0_AVX512 : 0);
    memcpy(fpu + 512, &bv, 8);
    memcpy(fpu + 576, v->in.xsave + 576, 256);
    if (with_avx512)
        memcpy(fpu + opmask_offset(), &v->in.avx512, sizeof v->in.avx512);
    run.running = true;
}

static void avx512_out(struct avx512_state *s, const uint8_t *fpu, uint64_t bv)
{
    memset(s, 0, sizeof *s);
    if (bv & XCR0_OPMASK)
        memcpy(s->opmask, fpu, sizeof s->opmask);
    if (bv & XCR0_ZMMH)
        memcpy(s->zmmh, fpu + offsetof(struct avx512_state, zmmh), sizeof s->zmmh);
    if (bv & XCR0_ZMM16)
        memcpy(s->zmm16, fpu + offsetof(struct avx512_state, zmm16), sizeof s->zmm16);
}

static void finish(ucontext_t *uc, int sig)
{
    struct outcome *out = run.out;
    greg_t *g = uc->uc_mcontext.gregs;

    for (unsigned k = 0; k < 16; k++)
        out->state.gpr[k] = (uint64_t)g[greg_of[k]];
    out->state.rip = (uint64_t)g[REG_RIP];
    out->state.rflags = (uint64_t)g[REG_EFL];
    const uint8_t *fpu = (const uint8_t *)uc->uc_mcontext.fpregs;
    uint64_t bv;
    memcpy(&bv, fpu + 512, 8);
    memset(out->state.xsave, 0, XSAVE_BYTES);
    memcpy(out->state.xsave, fpu, 416);
    if (!(bv & XCR0_X87)) { // left in its initial state by XSAVE's init optimization
        memset(out->state.xsave, 0, 24);
        memset(out->state.xsave + 32, 0, 128);
        out->state.xsave[0] = 0x7f;
        out->state.xsave[1] = 0x03;
    }
    if (!(bv & XCR0_SSE))
        memset(out->state.xsave + 160, 0, 256);
    if (bv & XCR0_AVX)
        memcpy(out->state.xsave + 576, fpu + 576, 256);
    if (with_avx512)
        avx512_out(&out->state.avx512, fpu + opmask_offset(), bv);
    out->exception = (int)g[REG_TRAPNO];
    out->error_code = (uint32_t)g[REG_ERR];
    out->cr2 = (uint64_t)g[REG_CR2];

    memcpy(g, run.saved, sizeof(run.saved));
    memcpy(uc->uc_mcontext.fpregs, run.saved_fpu, 416);
    uint64_t saved_bv;
    memcpy(&saved_bv, run.saved_fpu + 512, 8);
    saved_bv |= bv;
    memcpy((uint8_t *)uc->uc_mcontext.fpregs + 512, &saved_bv, 8);
    memcpy((uint8_t *)uc->uc_mcontext.fpregs + 576, run.saved_fpu + 576, 256);
    if (with_avx512)
        memcpy((uint8_t *)uc->uc_mcontext.fpregs + opmask_offset(), run.saved_fpu + opmask_offset(),
               sizeof(struct avx512_state));
    run.running = false;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    if (run.running) {
        finish(uc, sig);
    } else if (sig == SIGTRAP && run.vector) {
        start(uc);
    } else { // a fault of the harness itself: die of it
        signal(sig, SIG_DFL);
    }
}

uint8_t *native_data(void)
{
    return (uint8_t *)DATA_BASE;
}

static bool map_fixed(uint64_t address, size_t size, int protection, GError **error)
{
    void *p = mmap((void *)address, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (p == (void *)address)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED,
                "The host does not give memory at address %#" G_GINT64_MODIFIER "x for native execution: %s.", address,
                g_strerror(errno));
    return false;
}

// ---- Signals: ours, and those of an engine that has its own ----

static const int signals[] = {SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS};

struct signal_set {
    struct sigaction actions[G_N_ELEMENTS(signals)];
    stack_t stack;
    sigset_t mask;
};
static struct signal_set ours;
static bool engine_has_signals;

static void signals_swap(const struct signal_set *next, struct signal_set *previous)
{
    for (unsigned k = 0; k < G_N_ELEMENTS(signals); k++)
        sigaction(signals[k], &next->actions[k], previous ? &previous->actions[k] : NULL);
    sigaltstack(&next->stack, previous ? &previous->stack : NULL);
    pthread_sigmask(SIG_SETMASK, &next->mask, previous ? &previous->mask : NULL);
}

// ---- The engine's memory below 4 GiB ----
//
// Instructions that are under test must not reach it. Bit strings come 256 MiB far: all that is kept free. Jumps of
// 32-bit code go anywhere: what the engine has is hidden while one runs.

#define REACH      0x40000000ull
#define HIDDEN_MAX 8
static struct {
    uint64_t start, end;
    int protection;
} hidden[HIDDEN_MAX];
static unsigned hidden_count;

// Before the engine starts: the first GiB is taken, without access.
static void reserve_reach(void)
{
    static const uint64_t gaps[][2] = {
        {0x10000, DATA_BASE}, {DATA_BASE + DATA_ALL, CODE_BASE}, {CODE_BASE + CODE_SIZE, REACH}};
    for (unsigned k = 0; k < G_N_ELEMENTS(gaps); k++)
        mmap((void *)gaps[k][0], gaps[k][1] - gaps[k][0], PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

static bool jumps_anywhere(const struct vector *v)
{
    unsigned m = v->form ? v->form->mnemonic : 0;
    return !v->is_64 && (m == ZYDIS_MNEMONIC_CALL || m == ZYDIS_MNEMONIC_JMP || m == ZYDIS_MNEMONIC_RET);
}

static void find_hidden(void)
{
    g_autofree char *text = NULL;
    g_autofree char *self = g_strdup_printf("%p", (void *)native_run);
    uint64_t program = g_ascii_strtoull(self, NULL, 16), start, end;
    g_file_get_contents("/proc/self/maps", &text, NULL, NULL);
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        char mode[5];
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &start, &end, mode) != 3 || start >= 1ull << 32 ||
            program < 1ull << 32 || start < REACH || hidden_count == HIDDEN_MAX)
            continue;
        hidden[hidden_count].start = start;
        hidden[hidden_count].end = end;
        hidden[hidden_count++].protection =
            (mode[0] == 'r' ? PROT_READ : 0) | (mode[1] == 'w' ? PROT_WRITE : 0) | (mode[2] == 'x' ? PROT_EXEC : 0);
    }
}

static void hide(bool now)
{
    for (unsigned k = 0; k < hidden_count; k++)
        mprotect((void *)hidden[k].start, hidden[k].end - hidden[k].start, now ? PROT_NONE : hidden[k].protection);
}

void native_share_process(void)
{
    engine_has_signals = true;
    find_hidden();
}

bool native_init(GError **error)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    ours.stack.ss_size = 256 * 1024;
    ours.stack.ss_sp = g_malloc(ours.stack.ss_size);
    if (!map_fixed(DATA_BASE, DATA_ALL, PROT_READ | PROT_WRITE, error) ||
        !map_fixed(CODE_BASE, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, error))
        return false;
    reserve_reach();
    memset((void *)CODE_BASE, 0xcc, CODE_SIZE);
    sigfillset(&action.sa_mask);
    for (unsigned k = 0; k < G_N_ELEMENTS(signals); k++)
        ours.actions[k] = action;
    sigemptyset(&ours.mask);
    signals_swap(&ours, NULL);
    // 64-bit processes run with null data segments; 32-bit code needs them.
    uint16_t selector = SELECTOR_DATA;
    __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(selector));
    return true;
}

void native_seal(void)
{
    mprotect((void *)DATA_READONLY, 0x1000, PROT_READ);
}

void native_run(const struct vector *v, struct outcome *out)
{
    uint8_t *code = (uint8_t *)v->in.rip;
    memcpy(code, v->bytes, v->length);
    struct signal_set theirs;
    if (engine_has_signals)
        signals_swap(&ours, &theirs);
    bool wild = jumps_anywhere(v);
    if (wild)
        hide(true);
    run.vector = v;
    run.out = out;
    // Returning from a signal leaves ID as it is: a POPF of the last run must not be seen.
    __asm__ volatile(
        "lea -128(%%rsp), %%rsp\n\tpushfq\n\tandq $~0x200000, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp\n\t"
        "int3"
        :
        :
        : "memory", "cc");
    run.vector = NULL;
    if (wild)
        hide(false);
    if (engine_has_signals)
        signals_swap(&theirs, NULL);
    memset(code, 0xcc, v->length);
    // INT3 elsewhere than in the instruction itself is the end of the run.
    uint64_t last = out->state.rip - 1;
    bool own = last == v->in.rip && v->bytes[0] == 0xcc;
    if (out->exception == EXCEPTION_BP && !own) {
        out->exception = OUTCOME_DONE;
        out->state.rip = last;
    }
}
