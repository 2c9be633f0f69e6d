// SPDX-License-Identifier: GPL-2.0-or-later
// Exceptions, single steps, breakpoints and watchpoints in the middle of random code: the translator against the
// interpreter, which the processor has confirmed. The state that the handler finds must be the same, and of single
// steps the whole way. CLOCHE_TRAPS=n runs n sequences, CLOCHE_SEED picks the first. The second half of them with
// CLOCHE_EXACT_FLAGS.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/random-code.h"
#include "tests/unit/guest.h"

#define IDT      0x6000u
#define HANDLERS 0x8000u // 16 bytes each: out 0xf4, al; jmp $
#define DEBUG    0x9000u
#define CODE     0x10000u
#define COUNT    0x40000u // of the debug handler: bytes used in its log
#define LOG      0x50000u
#define STACK    0x700000u
#define DATA     0x800000u // 16 pages of 4 KiB; 3 is missing, 5 read-only, 9 a device
#define AREA     (16 * PAGE_SIZE)

static bool exact_flags; // the translator keeps flags that no code reads, too

enum way { WAY_FAULTS, WAY_STEPS, WAY_WATCH, WAY_BREAK, WAYS };
static const char *const ways[] = {"faults", "single steps", "watchpoints", "breakpoints"};

// Logs RIP and DR6, sets RF in the frame, returns.
static const uint8_t debug_handler[] = {
    0x50, 0x52, 0x48, 0x8b, 0x04, 0x25, 0x00, 0x00, 0x04, 0x00, // push rax; push rdx; mov rax, [COUNT]
    0x48, 0x8b, 0x54, 0x24, 0x10,                               // mov rdx, [rsp + 16]
    0x48, 0x89, 0x90, 0x00, 0x00, 0x05, 0x00,                   // mov [rax + LOG], rdx
    0x0f, 0x21, 0xf2,                                           // mov rdx, dr6
    0x48, 0x89, 0x90, 0x08, 0x00, 0x05, 0x00,                   // mov [rax + LOG + 8], rdx
    0x48, 0x83, 0xc0, 0x10, 0x25, 0xff, 0xff, 0x00, 0x00,       // add rax, 16; and eax, 0xffff
    0x48, 0x89, 0x04, 0x25, 0x00, 0x00, 0x04, 0x00,             // mov [COUNT], rax
    0xba, 0xf0, 0x0f, 0xff, 0xff, 0x0f, 0x23, 0xf2,             // mov edx, 0xffff0ff0; mov dr6, rdx
    0x81, 0x4c, 0x24, 0x20, 0x00, 0x00, 0x01, 0x00,             // or dword [rsp + 32], RF
    0x5a, 0x58, 0x48, 0xcf,                                     // pop rdx; pop rax; iretq
};
static const uint8_t stop[] = {0xe6, 0xf4, 0xeb, 0xfe};
static const uint8_t end[] = {0x0f, 0x0b}; // ud2: its handler stops, without single steps

static void build(struct guest *g)
{
    guest_start_long(g, CODE);
    uint64_t *pd = guest_memory(g, 0x3000), *pt = guest_memory(g, 0x4000), *idt = guest_memory(g, IDT);
    pd[DATA >> 21] = 0x4007;
    for (unsigned n = 0; n < 512; n++)
        pt[n] = (DATA + n * PAGE_SIZE) | 0x67;
    pt[3] = 0;
    pt[5] &= ~2ull;
    pt[9] = GUEST_MMIO | 0x67;
    for (unsigned n = 0; n < 32; n++) {
        uint64_t handler = n == EXCEPTION_DB ? DEBUG : HANDLERS + 16 * n;
        idt[2 * n] = (handler & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (handler >> 16) << 48;
        idt[2 * n + 1] = 0;
        guest_load(g, HANDLERS + 16 * n, stop, sizeof stop);
    }
    guest_load(g, DEBUG, debug_handler, sizeof debug_handler);
}

static void write_code(struct guest *g, uint64_t at, const uint8_t *code, unsigned length)
{
    uint64_t offset = g->ram_region.ram_offset + at;
    ram_write_begin(g->ram, offset, length + sizeof end);
    memcpy(g->ram->host + offset, code, length);
    memcpy(g->ram->host + offset + length, end, sizeof end);
    ram_write_end(g->ram, offset, length + sizeof end);
}

// The same for both guests, from NUMBER alone.
static void prepare(struct guest *g, uint64_t number, enum way way, unsigned bits, uint64_t at, unsigned length)
{
    struct vcpu *v = g->set->vcpu[0];
    random_seed(number * 0x2545f4914f6cdd1dull + 99);
    guest_start_long(g, at);
    // guest_start_long() has mapped all as large pages again
    uint64_t *pd = guest_memory(g, 0x3000);
    pd[DATA >> 21] = 0x4007;
    v->cr4 |= CR4_OSXMMEXCPT;
    v->idtr = (struct table_register){.base = IDT, .limit = 32 * 16 - 1};
    if (bits == 32)
        v->seg[CS] = (struct segment){.selector = 0x18, .attr = 0xc09b, .limit = 0xffffffff};
    for (unsigned n = 0; n < 16; n++) {
        v->gpr[n] = random_next() >> pick(64);
        for (unsigned k = 0; k < 2; k++)
            v->xsave.xmm[n].u64[k] = random_next();
    }
    for (unsigned n = 0; n < RANDOM_POINTERS; n++) {
        unsigned page = 1 + pick(12);
        v->gpr[random_pointers(bits)[n]] =
            DATA + page * PAGE_SIZE + (pick(3) ? 0x400 + pick(0x800) : PAGE_SIZE - pick(64));
    }
    for (unsigned n = 0; n < RANDOM_INDEXES; n++)
        v->gpr[random_indexes(bits)[n]] = pick(64);
    for (unsigned n = 0; bits == 32 && n < 16; n++)
        v->gpr[n] = n < 8 ? (uint32_t)v->gpr[n] : 0;
    v->gpr[RSP] = STACK + 0x8000;
    v->rflags = (random_next() & FLAGS_STATUS) | FLAG_1 | (way == WAY_STEPS ? FLAG_TF : 0);
    v->xsave.mxcsr = 0x1f80;
    v->xsave.fcw = 0x37f;
    v->xsave.xstate_bv = 3;
    v->cr2 = 0;
    v->dr6 = 0xffff0ff0;
    v->dr7 = 0x400;
    v->activity = VCPU_RUNNING;
    if (way == WAY_WATCH) { // writes of 8 bytes, reads and writes of 8, of 4
        for (unsigned n = 0; n < 4; n++)
            v->dr[n] = (v->gpr[random_pointers(bits)[n % 3]] + pick(128) - 64) & ~7ull;
        v->dr7 |= 0xff | 0x9fbb0000u;
    }
    if (way == WAY_BREAK) {
        v->dr[2] = at + pick(length);
        v->dr[3] = at + pick(length);
        v->dr7 |= 0xf0;
    }
    uint8_t *data = guest_memory(g, DATA), *stack = guest_memory(g, STACK);
    for (unsigned n = 0; n < AREA; n += 8) {
        uint64_t word = random_next();
        memcpy(data + n, &word, 8);
    }
    memset(stack, 0, AREA);
    memset(guest_memory(g, LOG), 0, 0x10000);
    memset(guest_memory(g, COUNT), 0, 8);
    g->mmio_value = 0x123456789abcdefull;
    g->mmio_reads = g->mmio_writes = 0;
    vcpu_flush_tlb(v);
}

// What the handler of a memory or floating-point fault finds in the status flags of the frame may be what nobody would
// have read (ARCHITECTURE.md, "What a guest can tell").
static void clean_frame(struct guest *g)
{
    struct vcpu *v = g->set->vcpu[0];
    unsigned vector = (unsigned)(v->rip - HANDLERS) / 16;
    if (v->rip < HANDLERS || v->rip >= HANDLERS + 32 * 16)
        return;
    if (exact_flags)
        return;
    static const uint32_t masked = BIT(EXCEPTION_SS) | BIT(EXCEPTION_GP) | BIT(EXCEPTION_PF) | BIT(EXCEPTION_MF) |
                                   BIT(EXCEPTION_AC) | BIT(EXCEPTION_XM);
    if (!(masked >> vector & 1))
        return;
    bool error = vector != EXCEPTION_MF && vector != EXCEPTION_XM;
    uint64_t *flags = guest_memory(g, v->gpr[RSP] + (error ? 24 : 16));
    *flags &= ~(uint64_t)FLAGS_STATUS;
}

static bool same(const char *what, const void *a, const void *b, size_t size, bool *ok)
{
    if (memcmp(a, b, size) == 0)
        return true;
    size_t n = 0;
    while (((const uint8_t *)a)[n] == ((const uint8_t *)b)[n])
        n++;
    uint64_t x = 0, y = 0;
    memcpy(&x, (const uint8_t *)a + (n & ~7ul), MIN(8, size - (n & ~7ul)));
    memcpy(&y, (const uint8_t *)b + (n & ~7ul), MIN(8, size - (n & ~7ul)));
    fprintf(stderr, "  %s +%zx: translate %016lx interpret %016lx\n", what, n & ~7ul, (unsigned long)x,
            (unsigned long)y);
    *ok = false;
    return false;
}

static bool compare(struct guest *a, struct guest *b)
{
    const struct vcpu *v = a->set->vcpu[0], *w = b->set->vcpu[0];
    bool ok = true;
    clean_frame(a);
    clean_frame(b);
    same("rip", &v->rip, &w->rip, 8, &ok);
    same("registers", v->gpr, w->gpr, sizeof v->gpr, &ok);
    same("xmm", v->xsave.xmm, w->xsave.xmm, sizeof v->xsave.xmm, &ok);
    same("mxcsr", &v->xsave.mxcsr, &w->xsave.mxcsr, 4, &ok);
    same("cr2", &v->cr2, &w->cr2, 8, &ok);
    same("dr6", &v->dr6, &w->dr6, 8, &ok);
    same("debug log", guest_memory(a, LOG), guest_memory(b, LOG), 0x10000, &ok);
    same("data", guest_memory(a, DATA), guest_memory(b, DATA), AREA, &ok);
    same("stack", guest_memory(a, STACK), guest_memory(b, STACK), AREA, &ok);
    same("device", &a->mmio_value, &b->mmio_value, 8, &ok);
    same("device writes", &a->mmio_writes, &b->mmio_writes, 8, &ok);
    return ok;
}

static bool run_one(struct guest *const *g, uint64_t number, uint64_t tally[WAYS])
{
    uint8_t code[RANDOM_CODE_MAX];
    enum way way = number % WAYS;
    unsigned bits = number / WAYS % 3 ? 64 : 32;
    random_seed(number * 0x9e3779b97f4a7c15ull + 1);
    unsigned length = random_code_defined(bits, code);
    uint64_t at = CODE + pick(15) * PAGE_SIZE + pick(PAGE_SIZE);
    for (unsigned n = 0; n < 2; n++) {
        write_code(g[n], at, code, length);
        prepare(g[n], number, way, bits, at, length);
        if (!guest_run(g[n], 20) || g[n]->shut_down) {
            fprintf(stderr, "sequence %lu, %s: %s does not come to its end\n", (unsigned long)number, ways[way],
                    g[n]->set->engine->name);
            return false;
        }
    }
    uint64_t logged;
    memcpy(&logged, guest_memory(g[1], COUNT), 8);
    bool faulted = (g[1]->set->vcpu[0]->rip - HANDLERS) / 16 != EXCEPTION_UD;
    tally[way] += way == WAY_FAULTS ? faulted : logged != 0;
    if (compare(g[0], g[1]))
        return true;
    fprintf(stderr, "sequence %lu, %u bits, %s, at %lx:", (unsigned long)number, bits, ways[way], (unsigned long)at);
    for (unsigned n = 0; n < length; n++)
        fprintf(stderr, " %02x", code[n]);
    fprintf(stderr, "\n");
    return false;
}

static bool run_all(uint64_t first, uint64_t count, uint64_t tally[WAYS])
{
    struct guest *g[2] = {guest_new("translate", 1), guest_new("interpret", 1)};
    bool ok = g[0]->set && g[1]->set;
    for (unsigned n = 0; n < 2 && ok; n++)
        build(g[n]);
    for (uint64_t number = first; number < first + count && ok; number++)
        ok = run_one(g, number, tally);
    for (unsigned n = 0; n < 2; n++)
        guest_free(g[n]);
    return ok;
}

int main(void)
{
    const char *count_text = g_getenv("CLOCHE_TRAPS"), *seed_text = g_getenv("CLOCHE_SEED");
    uint64_t count = count_text ? strtoull(count_text, NULL, 0) : 2000;
    uint64_t first = seed_text ? strtoull(seed_text, NULL, 0) : 1, tally[WAYS] = {0};
    bool ok = run_all(first, count / 2, tally);
    exact_flags = true;
    g_setenv("CLOCHE_EXACT_FLAGS", "1", true);
    ok = ok && run_all(first + count / 2, count - count / 2, tally);
    for (unsigned n = 0; n < WAYS && ok; n++) {
        printf("%s: %lu sequences met one\n", ways[n], (unsigned long)tally[n]);
        ok = tally[n] * 400 >= count || count < 400; // or the test does not test
    }
    return !ok;
}
