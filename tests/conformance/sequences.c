// SPDX-License-Identifier: GPL-2.0-or-later
// Random instruction sequences: the processor that runs this test against an engine. Registers, flags, vectors and
// memory must agree bit for bit. `CLOCHE_SEQUENCES=n` runs n of each kind, CLOCHE_SEED picks the first.
//
// Code in segments with bases and limits runs natively through the local descriptor table; real mode is compared with
// 16-bit segments of the same shape.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <asm/ldt.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <Zydis/Zydis.h>

#include "tests/conformance/random-code.h"

// The same addresses natively and in the guest, for 64-bit and 32-bit code.
static const struct layout {
    uint64_t code, data, stack;
} layouts[2] = {{0x7e0000000000, 0x7e0000100000, 0x7e0000200000}, {0x66000000, 0x66100000, 0x66200000}};
static const struct layout *layout = &layouts[0];
static const struct kind {
    const char *name;
    unsigned bits;
    bool segmented, real;
} kinds[] = {{"64", 64, false, false},
             {"32", 32, false, false},
             {"32s", 32, true, false},
             {"16", 16, true, false},
             {"real", 16, true, true}};
static const struct kind *kind = &kinds[0];
#define bits       (kind->bits)
#define CODE       (layout->code)
#define DATA       (layout->data)
#define STACK      (layout->stack)
#define AREA       (16 * PAGE_SIZE)
#define PHYS_CODE  0x100000ull
#define PHYS_DATA  0x200000ull
#define PHYS_STACK 0x300000ull
#define PHYS_TABLE 0x10000ull

struct registers {
    uint64_t gpr[16];
    uint64_t flags;
    uint8_t xmm[16][16];
} __attribute__((aligned(64)));

struct registers native_registers;
uint64_t native_host_rsp, native_code;
struct {
    uint32_t offset;
    uint16_t selector;
} __attribute__((packed)) native_far; // 32-bit code: through the compatibility segment
uint32_t native_ds = 0x2b, native_es = 0x2b, native_ss = 0x2b;
void native_enter(void);
void native_enter32(void);
void native_exit(void);

__asm__(".text\n"
        ".globl native_enter, native_exit\n"
        "native_enter:\n"
        "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "  mov %rsp, native_host_rsp(%rip)\n"
        "  lea native_registers(%rip), %rax\n"
        "  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "  movdqu 136+16*\\n(%rax), %xmm\\n\n"
        "  .endr\n"
        "  push 128(%rax); popfq\n"
        "  mov 8(%rax), %rcx; mov 16(%rax), %rdx; mov 24(%rax), %rbx; mov 32(%rax), %rsp; mov 40(%rax), %rbp\n"
        "  mov 48(%rax), %rsi; mov 56(%rax), %rdi; mov 64(%rax), %r8; mov 72(%rax), %r9; mov 80(%rax), %r10\n"
        "  mov 88(%rax), %r11; mov 96(%rax), %r12; mov 104(%rax), %r13; mov 112(%rax), %r14; mov 120(%rax), %r15\n"
        "  mov 0(%rax), %rax\n"
        "  jmp *native_code(%rip)\n"
        "native_enter32:\n"
        "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "  mov %rsp, native_host_rsp(%rip)\n"
        "  mov native_ds(%rip), %eax; mov %eax, %ds; mov native_es(%rip), %eax; mov %eax, %es\n"
        "  lea native_registers(%rip), %rax\n"
        "  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "  movdqu 136+16*\\n(%rax), %xmm\\n\n"
        "  .endr\n"
        "  push 128(%rax); popfq\n"
        "  mov 8(%rax), %rcx; mov 16(%rax), %rdx; mov 24(%rax), %rbx; mov 32(%rax), %rsp; mov 40(%rax), %rbp\n"
        "  mov 48(%rax), %rsi; mov 56(%rax), %rdi\n"
        "  mov native_ss(%rip), %ss\n"
        "  mov 0(%rax), %rax\n"
        "  ljmp *native_far(%rip)\n"
        "native_exit:\n"
        "  mov %rax, native_registers(%rip); mov %rcx, native_registers+8(%rip)\n"
        "  mov %rdx, native_registers+16(%rip); mov %rbx, native_registers+24(%rip)\n"
        "  mov %rsp, native_registers+32(%rip); mov %rbp, native_registers+40(%rip)\n"
        "  mov %rsi, native_registers+48(%rip); mov %rdi, native_registers+56(%rip)\n"
        "  mov %r8, native_registers+64(%rip); mov %r9, native_registers+72(%rip)\n"
        "  mov %r10, native_registers+80(%rip); mov %r11, native_registers+88(%rip)\n"
        "  mov %r12, native_registers+96(%rip); mov %r13, native_registers+104(%rip)\n"
        "  mov %r14, native_registers+112(%rip); mov %r15, native_registers+120(%rip)\n"
        "  mov $0x2b, %eax; mov %eax, %ss; mov %eax, %ds; mov %eax, %es\n"
        "  mov native_host_rsp(%rip), %rsp\n"
        "  pushfq; pop native_registers+128(%rip)\n"
        "  lea native_registers(%rip), %rax\n"
        "  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
        "  movdqu %xmm\\n, 136+16*\\n(%rax)\n"
        "  .endr\n"
        "  cld\n"
        "  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "  ret\n");

static uint8_t code[RANDOM_CODE_MAX];
static unsigned length;

// ---- The two machines
// -------------------------------------------------------------------------------------------------

static struct ram *ram;
static struct vcpu *vcpu;
static uint8_t *native_data, *native_stack, *native_text;

static void map_page(uint64_t linear, uint64_t gpa)
{
    uint64_t table = PHYS_TABLE;
    static uint64_t next = PHYS_TABLE + PAGE_SIZE;
    for (int level = 3; level > 0; level--) {
        uint64_t *entry = (uint64_t *)(ram->host + table) + (linear >> (12 + 9 * level) & 511);
        if (!*entry) {
            *entry = next | 7;
            next += PAGE_SIZE;
        }
        table = *entry & 0xffffffffff000ull;
    }
    ((uint64_t *)(ram->host + table))[linear >> 12 & 511] = gpa | 0x67;
}

// Segments of segmented kinds, in the guest and as entries of the local descriptor table.
enum { SPAN = 0x10000, ES_SHIFT = 0x1000 };

static void guest_segments(struct vcpu *v, uint64_t code_base, uint64_t data, uint64_t stack)
{
    uint16_t size = bits == 32 ? 0x4000 : 0;
    for (unsigned s = 0; s < SEGMENT_COUNT; s++)
        v->seg[s] = (struct segment){.selector = 0x10, .attr = 0x93, .base = data, .limit = SPAN - 1};
    v->seg[ES].base += ES_SHIFT;
    v->seg[ES].limit -= ES_SHIFT;
    v->seg[SS].base = stack;
    v->seg[SS].attr |= size;
    v->seg[CS] = (struct segment){
        .selector = 8, .attr = (kind->real ? 0x93 : 0x9b) | size, .base = code_base, .limit = SPAN - 1};
}

static bool native_descriptor(unsigned n, uint64_t base, unsigned limit, unsigned contents, bool big)
{
    struct user_desc d = {.entry_number = n,
                          .base_addr = (unsigned)base,
                          .limit = limit,
                          .seg_32bit = big,
                          .contents = contents & 3,
                          .useable = 1};
    return syscall(SYS_modify_ldt, 1, &d, sizeof d) == 0;
}

#define LDT(n) ((n) << 3 | 7)
enum { LDT_CODE16, LDT_CODE32, LDT_DATA, LDT_EXTRA, LDT_STACK16, LDT_STACK32 };

// With layouts[1].
static bool native_segments(void)
{
    return native_descriptor(LDT_CODE16, CODE, SPAN - 1, MODIFY_LDT_CONTENTS_CODE, false) &&
           native_descriptor(LDT_CODE32, CODE, SPAN - 1, MODIFY_LDT_CONTENTS_CODE, true) &&
           native_descriptor(LDT_DATA, DATA, SPAN - 1, MODIFY_LDT_CONTENTS_DATA, true) &&
           native_descriptor(LDT_EXTRA, DATA + ES_SHIFT, SPAN - ES_SHIFT - 1, MODIFY_LDT_CONTENTS_DATA, true) &&
           native_descriptor(LDT_STACK16, STACK, SPAN - 1, MODIFY_LDT_CONTENTS_DATA, false) &&
           native_descriptor(LDT_STACK32, STACK, SPAN - 1, MODIFY_LDT_CONTENTS_DATA, true);
}

static void guest_reset(void)
{
    struct vcpu *v = vcpu;
    v->cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_MP | CR0_WP | CR0_ET;
    v->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    v->cr3 = PHYS_TABLE;
    v->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    v->xcr0 = 7;
    for (unsigned s = 0; s < SEGMENT_COUNT; s++)
        v->seg[s] = (struct segment){.selector = 0x10, .attr = 0xc093, .limit = 0xffffffff};
    v->seg[CS] = (struct segment){.selector = 8, .attr = bits == 64 ? 0xa09b : 0xc09b, .limit = 0xffffffff};
    if (kind->real) {
        v->cr0 &= ~(uint64_t)(CR0_PE | CR0_PG);
        v->efer = 0;
        guest_segments(v, PHYS_CODE, PHYS_DATA, PHYS_STACK);
    } else if (kind->segmented) {
        guest_segments(v, CODE, DATA, STACK);
    }
    v->cpl = 0;
    v->activity = VCPU_RUNNING;
    v->xsave.mxcsr = 0x1f80;
    v->xsave.fcw = 0x37f;
    vcpu_flush_tlb(v);
}

static bool map_native(uint64_t address, uint64_t size, int protection)
{
    return mmap((void *)address, size, PROT_READ | PROT_WRITE | protection,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == (void *)address;
}

static bool setup(const char *engine, GError **error)
{
    ram = ram_new(16 * MiB, error);
    if (!ram)
        return false;
    uint64_t offset = ram_alloc(ram, 16 * MiB);
    static struct region region;
    region_init_ram(&region, "ram", offset, 16 * MiB);
    static struct cpu_host host;
    host.ram = ram;
    host.memory = address_space_new("memory", ram, 1ull << 40, NULL);
    host.ports = address_space_new("ports", NULL, 65536, NULL);
    address_space_map(host.memory, &region, 0, 0);
    host.clock = clock_new_manual();
    struct cpu_set *set = cpu_set_new(&host, "x86-64-v3", engine, 1, error);
    if (!set)
        return false;
    vcpu = set->vcpu[0];
    guest_reset();
    for (unsigned n = 0; n < 2; n++) {
        layout = &layouts[n];
        for (uint64_t at = 0; at < AREA; at += PAGE_SIZE) {
            map_page(CODE + at, PHYS_CODE + at);
            map_page(DATA + at, PHYS_DATA + at);
            map_page(STACK + at, PHYS_STACK + at);
        }
        // One page more for the way back.
        if (!map_native(CODE, AREA + PAGE_SIZE, PROT_EXEC) || !map_native(DATA, AREA, 0) || !map_native(STACK, AREA, 0))
            return false;
    }
    return native_segments();
}

static void choose_kind(const struct kind *k)
{
    kind = k;
    layout = &layouts[bits != 64];
    native_text = (uint8_t *)CODE;
    native_data = (uint8_t *)DATA;
    native_stack = (uint8_t *)STACK;
    guest_reset();
}

static void prepare(struct registers *r)
{
    for (unsigned n = 0; n < 16; n++)
        r->gpr[n] = random_next() >> (pick(2) ? 0 : pick(64));
    for (unsigned n = 0; n < 16; n++)
        for (unsigned k = 0; k < 16; k++)
            r->xmm[n][k] = (uint8_t)random_next();
    for (unsigned n = 0; n < 3; n++) // some of them near a page border
        r->gpr[random_pointers(bits)[n]] = (kind->segmented ? 0 : DATA) + PAGE_SIZE * (2 + 4 * n) +
                                           (pick(3) ? 0x400 + pick(0x800) : PAGE_SIZE - pick(64));
    for (unsigned n = 0; n < 2; n++)
        r->gpr[random_indexes(bits)[n]] = pick(64);
    if (bits != 64)
        for (unsigned n = 0; n < 16; n++)
            r->gpr[n] = n < 8 ? (uint32_t)r->gpr[n] : 0;
    r->gpr[RSP] = (kind->segmented ? 0 : STACK) + 8 * PAGE_SIZE + 8 * pick(64) - 256;
    r->flags = (random_next() & FLAGS_STATUS) | FLAG_1;
    for (unsigned n = 0; n < AREA; n += 8) {
        uint64_t v = random_next();
        memcpy(native_data + n, &v, 8);
    }
    memset(native_stack, 0, AREA);
    memcpy(ram->host + PHYS_DATA, native_data, AREA);
    memcpy(ram->host + PHYS_STACK, native_stack, AREA);
}

static void run_native(struct registers *r, unsigned at)
{
    memcpy(native_text + at, code, length);
    uint8_t *p = native_text + at + length;
    uint64_t back = (uintptr_t)native_exit;
    static const uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0}; // jmp [rip]
    native_registers = *r;
    if (bits == 64) {
        memcpy(p, jump, sizeof jump);
        memcpy(p + sizeof jump, &back, 8);
        native_code = CODE + at;
        native_enter();
    } else {
        uint8_t *low = native_text + AREA + 2048; // 64-bit code below 4 GiB
        uint32_t low32 = (uint32_t)(uintptr_t)low;
        memcpy(low, jump, sizeof jump);
        memcpy(low + sizeof jump, &back, 8);
        if (bits == 16)
            *p++ = 0x66;
        *p++ = 0xea; // far jump to it
        memcpy(p, &low32, 4);
        p[4] = 0x33, p[5] = 0;
        bool own = kind->segmented;
        native_far.offset = (uint32_t)((own ? 0 : CODE) + at);
        native_far.selector = own ? LDT(bits == 16 ? LDT_CODE16 : LDT_CODE32) : 0x23;
        native_ds = own ? LDT(LDT_DATA) : 0x2b;
        native_es = own ? LDT(LDT_EXTRA) : 0x2b;
        native_ss = own ? LDT(bits == 16 ? LDT_STACK16 : LDT_STACK32) : 0x2b;
        native_enter32();
    }
    *r = native_registers;
    if (bits != 64)
        for (unsigned n = 0; n < 8; n++)
            r->gpr[n] = (uint32_t)r->gpr[n];
}

static void run_guest(struct registers *r, unsigned at)
{
    uint64_t offset = PHYS_CODE + at;
    ram_write_begin(ram, offset, length + 1);
    memcpy(ram->host + offset, code, length);
    ram->host[offset + length] = 0xf4; // hlt
    ram_write_end(ram, offset, length + 1);
    memcpy(vcpu->gpr, r->gpr, sizeof vcpu->gpr);
    memcpy(vcpu->xsave.xmm, r->xmm, sizeof r->xmm);
    vcpu->rflags = r->flags;
    vcpu->rip = (kind->segmented ? 0 : CODE) + at;
    vcpu->activity = VCPU_RUNNING;
    enum engine_exit e = vcpu->engine->run(vcpu);
    if (e != ENGINE_EXIT_HALT)
        fprintf(stderr, "the engine left with %d at %lx\n", e, (unsigned long)vcpu->rip);
    memcpy(r->gpr, vcpu->gpr, (bits == 64 ? 16 : 8) * sizeof vcpu->gpr[0]);
    memcpy(r->xmm, vcpu->xsave.xmm, sizeof r->xmm);
    r->flags = vcpu->rflags;
}

static bool differs(const struct registers *n, const struct registers *g)
{
    unsigned registers = bits == 64 ? 16 : 8;
    return memcmp(n->gpr, g->gpr, registers * 8) || memcmp(n->xmm, g->xmm, registers * 16) ||
           ((n->flags ^ g->flags) & FLAGS_STATUS) || memcmp(native_data, ram->host + PHYS_DATA, AREA) ||
           memcmp(native_stack, ram->host + PHYS_STACK, AREA);
}

static void report(uint64_t number, const struct registers *n, const struct registers *g)
{
    fprintf(stderr, "sequence %lu of kind %s differs; code:", (unsigned long)number, kind->name);
    for (unsigned i = 0; i < length; i++)
        fprintf(stderr, " %02x", code[i]);
    fprintf(stderr, "\n");
    for (unsigned i = 0; i < 16; i++)
        if (n->gpr[i] != g->gpr[i])
            fprintf(stderr, "  r%u native %016lx guest %016lx\n", i, (unsigned long)n->gpr[i],
                    (unsigned long)g->gpr[i]);
    for (unsigned i = 0; i < 16; i++)
        if (memcmp(n->xmm[i], g->xmm[i], 16))
            fprintf(stderr, "  xmm%u differs\n", i);
    if ((n->flags ^ g->flags) & FLAGS_STATUS)
        fprintf(stderr, "  flags native %lx guest %lx\n", (unsigned long)n->flags & FLAGS_STATUS,
                (unsigned long)g->flags & FLAGS_STATUS);
    for (unsigned i = 0; i < AREA; i++)
        if (native_data[i] != ram->host[PHYS_DATA + i]) {
            fprintf(stderr, "  data at %lx\n", (unsigned long)(DATA + i));
            break;
        }
    for (unsigned i = 0; i < AREA; i++)
        if (native_stack[i] != ram->host[PHYS_STACK + i]) {
            fprintf(stderr, "  stack at %lx\n", (unsigned long)(STACK + i));
            break;
        }
}

// Runs CODE on both with the inputs of NUMBER. True: they agree.
static bool agrees(uint64_t number, struct registers *native, struct registers *guest)
{
    random_seed(number * 0xd1342543de82ef95ull + 1);
    // Within a page: over a border the interpreter has a part, and its undefined flags are its own.
    // Not in the last page of a segment, whose end the way back must not meet.
    unsigned at = pick(kind->segmented ? 15 : 16) * PAGE_SIZE + pick(PAGE_SIZE - length - 2);
    prepare(native);
    *guest = *native;
    run_native(native, at);
    run_guest(guest, at);
    return !differs(native, guest);
}

// One instruction after the other becomes NOPs, as long as the difference stays.
static void minimise(uint64_t number)
{
    ZydisDecoder decoder;
    struct registers native, guest;
    ZydisDecoderInit(&decoder,
                     bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
                     : bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                  : ZYDIS_MACHINE_MODE_LEGACY_16,
                     bits == 64   ? ZYDIS_STACK_WIDTH_64
                     : bits == 32 ? ZYDIS_STACK_WIDTH_32
                                  : ZYDIS_STACK_WIDTH_16);
    ZydisDecodedInstruction i;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned at = 0; at < length; at += i.length) {
            uint8_t kept[16];
            if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, code + at, length - at, &i)))
                break;
            memcpy(kept, code + at, i.length);
            memset(code + at, 0x90, i.length);
            if (agrees(number, &native, &guest))
                memcpy(code + at, kept, i.length);
        }
    agrees(number, &native, &guest);
    report(number, &native, &guest);
    fprintf(stderr, "for tests/conformance/kept-sequences.txt:\n%s %lu ", kind->name, (unsigned long)number);
    for (unsigned n = 0; n < length; n++)
        fprintf(stderr, "%02x", code[n]);
    fprintf(stderr, "\n");
}

static bool run_sequences(uint64_t first, uint64_t count)
{
    for (uint64_t number = first; number < first + count; number++) {
        struct registers native, guest;
        random_seed(number * 0x9e3779b97f4a7c15ull + 1);
        length = kind->segmented ? random_code_segmented(bits, !kind->real, code) : random_code(bits, code);
        if (!agrees(number, &native, &guest)) {
            minimise(number);
            return false;
        }
    }
    return true;
}

// Sequences that failed once: lines of kind, number of the inputs, code in hexadecimal.
static bool run_kept(unsigned *count)
{
    g_autofree char *path = g_build_filename(g_getenv("srcdir") ?: ".", "tests/conformance/kept-sequences.txt", NULL);
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        fprintf(stderr, "%s cannot be read\n", path);
        return false;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (unsigned n = 0; lines[n]; n++) {
        char kept_kind[8];
        uint64_t number;
        char hex[2 * RANDOM_CODE_MAX];
        struct registers native, guest;
        if (lines[n][0] == '#' || sscanf(lines[n], "%7s %lu %2000s", kept_kind, &number, hex) != 3 ||
            strcmp(kept_kind, kind->name) != 0)
            continue;
        for (length = 0; hex[2 * length]; length++)
            sscanf(hex + 2 * length, "%2hhx", &code[length]);
        (*count)++;
        if (!agrees(number, &native, &guest)) {
            report(number, &native, &guest);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    const char *engine = argc > 1 ? argv[1] : "translate";
    const char *count_text = g_getenv("CLOCHE_SEQUENCES"), *seed_text = g_getenv("CLOCHE_SEED");
    uint64_t count = count_text ? strtoull(count_text, NULL, 0) : 40000;
    uint64_t first = seed_text ? strtoull(seed_text, NULL, 0) : 1;
    unsigned kept = 0;
    g_autoptr(GError) error = NULL;
    if (!setup(engine, &error)) {
        fprintf(stderr, "%s\n", error ? error->message : "cannot map the test's addresses");
        return 99;
    }
    for (unsigned n = 0; n < G_N_ELEMENTS(kinds); n++) {
        choose_kind(&kinds[n]);
        if (!run_kept(&kept) || !run_sequences(first, count))
            return 1;
    }
    printf("%lu sequences of each kind and %u kept ones agree under %s\n", (unsigned long)count, kept, engine);
    return 0;
}
