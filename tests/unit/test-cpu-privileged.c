// SPDX-License-Identifier: GPL-2.0-or-later
// Privileged behaviour by small programs: faults and their codes, paging, privilege changes, tasks, debug, interrupts.
//
// Programs are assembled into this file's data (the assembler only, nothing runs natively) and placed at 0x10000. Each
// vector has a stub that writes to port 0xf4, so that the test reads the exception frame from the guest's stack.
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/cpu/descriptor.h"
#include "core/cpu/interpret/interpret.h"
#include "core/cpu/lapic.h"
#include "tests/unit/guest.h"

#define CODE   0x10000ull
#define USER   0x400000ull // a 2 MiB page of its own
#define STUBS  0x9000ull
#define IDT    0xa000ull
#define TSS    0x600ull
#define STACK0 0x7800ull // ring 0 stack in the TSS

#define PROGRAM(name, code, ...)                                                                                       \
    asm(".pushsection .rodata\n.intel_syntax noprefix\n.code" #code "\n.globl program_" #name "\nprogram_" #name       \
        ":\n" __VA_ARGS__ "\n.globl program_" #name "_end\nprogram_" #name                                             \
        "_end:\n.att_syntax\n.code64\n.popsection\n");                                                                 \
    extern const uint8_t program_##name[], program_##name##_end[]

#define PLACE(g, gpa, name) guest_load(g, gpa, program_##name, (size_t)(program_##name##_end - program_##name))

static bool has_error_code(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

// What a stub found on the stack.
struct frame {
    unsigned vector;
    uint64_t error, rip, cs, flags, rsp, ss;
};

// STUBS: push imm8 vector; out 0xf4, eax; hlt; jmp to the hlt
static void make_idt(struct guest *g, bool wide, unsigned type_attr)
{
    struct vcpu *v = g->set->vcpu[0];
    for (unsigned n = 0; n < 256; n++) {
        uint8_t stub[16] = {0x68, (uint8_t)n, 0, 0, 0, 0xe7, 0xf4, 0xf4, 0xeb, 0xfd};
        uint64_t address = STUBS + n * 16;
        guest_load(g, address, stub, sizeof(stub));
        uint64_t gate[2] = {(address & 0xffff) | (wide ? 0x08ull : 0x18ull) << 16 | (uint64_t)type_attr << 40, 0};
        guest_load(g, IDT + n * (wide ? 16 : 8), gate, wide ? 16 : 8);
    }
    v->idtr = (struct table_register){.base = IDT, .limit = 256 * (wide ? 16 : 8) - 1};
}

static uint64_t peek(struct guest *g, uint64_t gpa, unsigned size)
{
    return load_le(guest_memory(g, gpa), size);
}

static struct frame read_frame(struct guest *g)
{
    struct vcpu *v = g->set->vcpu[0];
    unsigned size = vcpu_code64(v) ? 8 : 4;
    uint64_t sp = v->gpr[RSP];
    struct frame f = {.vector = (unsigned)peek(g, sp, size)};
    sp += size;
    if (has_error_code(f.vector)) {
        f.error = peek(g, sp, size);
        sp += size;
    }
    f.rip = peek(g, sp, size);
    f.cs = peek(g, sp + size, size);
    f.flags = peek(g, sp + 2 * size, size);
    f.rsp = peek(g, sp + 3 * size, size);
    f.ss = peek(g, sp + 4 * size, size);
    return f;
}

static const char *const engine_names[] = {
    "interpret",
#ifdef __x86_64__
    "translate",
#endif
};

static struct guest *start_long_by(const char *engine)
{
    struct guest *g = guest_new(engine, 1);
    guest_start_long(g, CODE);
    make_idt(g, true, 0xee00 >> 8);
    uint64_t rsp0 = STACK0;
    guest_load(g, TSS + 4, &rsp0, 8);
    struct vcpu *v = g->set->vcpu[0];
    v->tr = (struct segment){.selector = 0x38, .base = TSS, .limit = 0x67, .attr = 0x8b};
    return g;
}

static struct guest *start_long(void)
{
    return start_long_by("interpret");
}

static struct guest *start_protected(void)
{
    struct guest *g = guest_new("interpret", 1);
    guest_start_protected(g, CODE);
    make_idt(g, false, 0xee);
    struct vcpu *v = g->set->vcpu[0];
    uint32_t stack[2] = {STACK0, 0x10};
    guest_load(g, TSS + 4, stack, 8);
    v->tr = (struct segment){.selector = 0x38, .base = TSS, .limit = 0x67, .attr = 0x8b};
    return g;
}

static void user_mode(struct guest *g, bool wide)
{
    struct vcpu *v = g->set->vcpu[0];
    v->seg[CS] = (struct segment){.selector = wide ? 0x2b : 0x33, .attr = wide ? 0xa0fb : 0xc0fb, .limit = 0xffffffff};
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        if (i != CS)
            v->seg[i] = (struct segment){.selector = 0x23, .attr = 0xc0f3, .limit = 0xffffffff};
    v->cpl = 3;
}

static struct frame run(struct guest *g)
{
    ck_assert_msg(guest_run(g, 10), "the program does not end: RIP %#lx", (unsigned long)g->set->vcpu[0]->rip);
    ck_assert_msg(!g->shut_down, "triple fault");
    return read_frame(g);
}

#define CHECK_FRAME(f, vector_, error_, rip_)                                                                          \
    do {                                                                                                               \
        struct frame f_ = (f);                                                                                         \
        ck_assert_uint_eq(f_.vector, vector_);                                                                         \
        ck_assert_uint_eq(f_.error, error_);                                                                           \
        ck_assert_uint_eq(f_.rip, rip_);                                                                               \
    } while (0)

// ---- Faults in 64-bit mode
// ----------------------------------------------------------------------------------------------

PROGRAM(ud, 64, "nop; ud2");
START_TEST(undefined)
{
    struct guest *g = start_long();
    PLACE(g, CODE, ud);
    struct frame f = run(g);
    CHECK_FRAME(f, EXCEPTION_UD, 0, CODE + 1);
    ck_assert_uint_ne(f.flags & FLAG_RF, 0);
    guest_free(g);
}
END_TEST

PROGRAM(de, 64, "xor ecx, ecx; mov eax, 1; cdq; div ecx");
PROGRAM(int3_, 64, "int3; hlt");
PROGRAM(int_n, 64, "int 0x42; hlt");
PROGRAM(noncanonical, 64, "mov rax, 0x800000000000; mov al, [rax]");
PROGRAM(noncanonical_stack, 64, "mov rsp, 0x800000000000; pop rax");
PROGRAM(noncanonical_frame, 64, "mov rbp, 0x800000000000; mov rax, [rbp]");
PROGRAM(noncanonical_jump, 64, "mov rax, 0x800000000000; jmp rax");
PROGRAM(unknown_msr, 64, "mov ecx, 0x12345; rdmsr");
PROGRAM(bad_cr4, 64, "mov rax, cr4; bts rax, 40; mov cr4, rax");
PROGRAM(null_ss, 64, "mov ax, 0x1234; mov ds, ax");
PROGRAM(lock_register, 64, ".byte 0xf0, 0x01, 0xc0");
PROGRAM(xsetbv_off, 64, ".byte 0x0f, 0x01, 0xd1");
PROGRAM(not_present_idt, 64, "int 0x50");
PROGRAM(cmpxchg16b_odd, 64, "mov ebx, 0x20008; lock cmpxchg16b [rbx]");

static const struct {
    const uint8_t *start, *end;
    unsigned vector;
    uint64_t error, offset;
} faults64[] = {
#define FAULT(name, ...)                                                                                               \
    {                                                                                                                  \
        program_##name, program_##name##_end, __VA_ARGS__                                                              \
    }
    FAULT(de, EXCEPTION_DE, 0, 8),
    FAULT(int3_, EXCEPTION_BP, 0, 1),
    FAULT(int_n, 0x42, 0, 2),
    FAULT(noncanonical, EXCEPTION_GP, 0, 10),
    FAULT(noncanonical_stack, EXCEPTION_SS, 0, 10),
    FAULT(noncanonical_frame, EXCEPTION_SS, 0, 10),
    FAULT(noncanonical_jump, EXCEPTION_GP, 0, 10),
    FAULT(unknown_msr, EXCEPTION_GP, 0, 5),
    FAULT(bad_cr4, EXCEPTION_GP, 0, 8),
    FAULT(null_ss, EXCEPTION_GP, 0x1234, 4),
    FAULT(lock_register, EXCEPTION_UD, 0, 0),
    FAULT(xsetbv_off, EXCEPTION_UD, 0, 0),
    FAULT(cmpxchg16b_odd, EXCEPTION_GP, 0, 5),
};

START_TEST(fault64)
{
    struct guest *g = start_long();
    guest_load(g, CODE, faults64[_i].start, (size_t)(faults64[_i].end - faults64[_i].start));
    // The stack for the frame must be good where the program spoils it.
    uint64_t ist = STACK0;
    guest_load(g, TSS + 0x24, &ist, 8);
    for (unsigned n = 0; n < 32; n++) {
        uint8_t one = 1;
        guest_load(g, IDT + n * 16 + 4, &one, 1);
    }
    struct frame f = run(g);
    CHECK_FRAME(f, faults64[_i].vector, faults64[_i].error, CODE + faults64[_i].offset);
    guest_free(g);
}
END_TEST

START_TEST(gate_not_present)
{
    struct guest *g = start_long();
    PLACE(g, CODE, not_present_idt);
    uint8_t *gate = guest_memory(g, IDT + 0x50 * 16);
    gate[5] &= 0x7f;
    struct frame f = run(g);
    CHECK_FRAME(f, EXCEPTION_NP, 0x50 * 8 + 2, CODE);
    guest_free(g);
}
END_TEST

// A fault whose handler's gate is bad becomes a double fault; a bad double fault gate shuts down.
START_TEST(double_fault)
{
    struct guest *g = start_long();
    PLACE(g, CODE, unknown_msr);
    uint8_t *gate = guest_memory(g, IDT + EXCEPTION_GP * 16);
    gate[5] &= 0x7f; // #NP while delivering #GP
    struct frame f = run(g);
    CHECK_FRAME(f, EXCEPTION_DF, 0, CODE + 5);
    guest_free(g);

    g = start_long();
    PLACE(g, CODE, unknown_msr);
    ((uint8_t *)guest_memory(g, IDT + EXCEPTION_GP * 16))[5] &= 0x7f;
    ((uint8_t *)guest_memory(g, IDT + EXCEPTION_DF * 16))[5] &= 0x7f;
    ck_assert(guest_run(g, 5));
    ck_assert(g->shut_down);
    guest_free(g);
}
END_TEST

// ---- Paging
// -----------------------------------------------------------------------------------------------------------------

PROGRAM(read_user, 64, "mov eax, [0x400000]; mov eax, 1; out 0xf4, eax; hlt");
PROGRAM(write_user, 64, "mov dword ptr [0x400000], 5; mov eax, 1; out 0xf4, eax; hlt");
PROGRAM(jump_user, 64, "mov eax, 0x400000; jmp rax");
PROGRAM(stac_read, 64, "stac; mov eax, [0x400000]; clac; mov eax, 2; out 0xf4, eax; hlt");

// CR0, CR4 bits to add, entry of the page at 0x400000, program, user mode; expected error code (or -1: no fault)
static const struct {
    const char *name;
    uint64_t cr0_clear, cr4_set, entry;
    const uint8_t *start, *end;
    bool user;
    int64_t error;
} paging[] = {
#define PAGING(text, cr0, cr4, entry, program, user, error)                                                            \
    {                                                                                                                  \
        text, cr0, cr4, entry, program_##program, program_##program##_end, user, error                                 \
    }
    PAGING("not present", 0, 0, 0x400086, read_user, false, 0),
    PAGING("not present, write", 0, 0, 0x400086, write_user, false, 2),
    PAGING("read-only, WP", 0, 0, 0x400085, write_user, false, 3),
    PAGING("read-only, no WP", CR0_WP, 0, 0x400085, write_user, false, -1),
    PAGING("supervisor page from user", 0, 0, 0x400083, read_user, true, 5),
    PAGING("user page from user", 0, 0, 0x400087, jump_user, true, -1),
    PAGING("user, read-only", 0, 0, 0x400085, write_user, true, 7),
    PAGING("user, read-only, no WP", CR0_WP, 0, 0x400085, write_user, true, 7),
    PAGING("NX", 0, 0, 0x8000000000400087, jump_user, false, 0x11),
    PAGING("NX, user", 0, 0, 0x8000000000400087, jump_user, true, 0x15),
    PAGING("SMEP", 0, CR4_SMEP, 0x400087, jump_user, false, 0x11),
    PAGING("SMAP read", 0, CR4_SMAP, 0x400087, read_user, false, 1),
    PAGING("SMAP write", 0, CR4_SMAP, 0x400087, write_user, false, 3),
    PAGING("SMAP with AC", 0, CR4_SMAP, 0x400087, stac_read, false, -1),
    PAGING("reserved bit of a large page", 0, 0, 0x402087, read_user, false, 9),
    PAGING("beyond the physical width", 0, 0, 0x10000000400087, read_user, false, -1), // bit 52: ignored
    PAGING("physical width", 0, 0, 0x10000400087 | 1ull << 45, read_user, false, 9),
};

START_TEST(page_fault)
{
    struct guest *g = start_long();
    struct vcpu *v = g->set->vcpu[0];
    v->cr4 |= paging[_i].cr4_set;
    v->cr0 &= ~paging[_i].cr0_clear;
    ((uint64_t *)guest_memory(g, 0x3000))[2] = paging[_i].entry;
    if (v->cr4 & (CR4_SMAP | CR4_SMEP)) // the program itself is supervisor code then
        ((uint64_t *)guest_memory(g, 0x3000))[0] = 0x83;
    guest_load(g, CODE, paging[_i].start, (size_t)(paging[_i].end - paging[_i].start));
    static const uint8_t exit_code[] = {0xb8, 3, 0, 0, 0, 0xe7, 0xf4, 0xeb, 0xfe};
    guest_load(g, USER, exit_code, sizeof(exit_code));
    if (paging[_i].user) {
        user_mode(g, true);
        v->rflags |= FLAG_IOPL;
    }
    ck_assert(guest_run(g, 10));
    ck_assert(!g->shut_down);
    uint64_t entry = peek(g, 0x3010, 8);
    if (paging[_i].error < 0) {
        ck_assert_msg(v->gpr[RSP] == 0x7000, "%s: an unexpected fault", paging[_i].name);
        ck_assert(entry & 0x20);
    } else {
        struct frame f = read_frame(g);
        ck_assert_msg(f.vector == EXCEPTION_PF, "%s: vector %u", paging[_i].name, f.vector);
        ck_assert_msg((int64_t)f.error == paging[_i].error, "%s: error %#lx", paging[_i].name, (unsigned long)f.error);
        ck_assert_uint_eq(v->cr2, USER);
        ck_assert_msg(!(entry & 0x60), "%s: A or D set by a fault", paging[_i].name);
    }
    guest_free(g);
}
END_TEST

START_TEST(accessed_and_dirty)
{
    struct guest *g = start_long();
    struct vcpu *v = g->set->vcpu[0];
    uint64_t *pd = guest_memory(g, 0x3000);
    struct page_walk walk;
    uint32_t error;
    pd[2] = 0x5007; // a table
    uint64_t *pt = guest_memory(g, 0x5000);
    pt[0] = 0x400007;
    ck_assert(page_walk(v, USER, ACCESS_READ, &walk, &error));
    ck_assert_uint_eq(pt[0], 0x400027);
    ck_assert_uint_eq(pd[2], 0x5027);
    ck_assert(!walk.dirty);
    ck_assert_uint_eq(walk.page_size, PAGE_SIZE);
    ck_assert(page_walk(v, USER + 5, ACCESS_WRITE, &walk, &error));
    ck_assert_uint_eq(pt[0], 0x400067);
    ck_assert_uint_eq(walk.gpa, 0x400005);
    ck_assert(page_walk(v, 0xc0000000, ACCESS_READ, &walk, &error));
    ck_assert_uint_eq(walk.page_size, GiB);
    ck_assert(!page_walk(v, 0x40000000, ACCESS_WRITE | ACCESS_USER, &walk, &error));
    ck_assert_uint_eq(error, 6);
    guest_free(g);
}
END_TEST

// INVLPG takes every piece of a large page, also while large pages of both halves of the address space are known.
// (SDM vol. 3, 5.10.4.1)
PROGRAM(large_pieces, 64,
        "mov rax, [0x400000]; mov rax, [0x401000]; mov rbx, 0xffff800000600000; mov rcx, [rbx];"
        "mov qword ptr [0x3010], 0xa00087; invlpg [0x400000]; mov rdx, [0x401000]; out 0xf4, al; hlt");

START_TEST(pieces_of_large_pages)
{
    for (unsigned n = 0; n < G_N_ELEMENTS(engine_names); n++) {
        struct guest *g = guest_new(engine_names[n], 1);
        guest_start_long(g, CODE);
        *(uint64_t *)guest_memory(g, 0x1000 + 256 * 8) = 0x2007;
        *(uint64_t *)guest_memory(g, 0x401000) = 1;
        *(uint64_t *)guest_memory(g, 0xa01000) = 2;
        PLACE(g, CODE, large_pieces);
        ck_assert(guest_run(g, 10));
        ck_assert_msg(g->set->vcpu[0]->gpr[RDX] == 2, "%s: the old page", engine_names[n]);
        guest_free(g);
    }
}
END_TEST

START_TEST(paging_32bit)
{
    struct guest *g = start_protected();
    struct vcpu *v = g->set->vcpu[0];
    struct page_walk walk;
    uint32_t error, *pd = guest_memory(g, 0x20000), *pt = guest_memory(g, 0x21000);
    pd[0] = 0x21007;
    pt[3] = 0x00555003;
    pd[1] = 0x00800087 | 3u << 13; // PSE-36: bits 33:32
    v->cr3 = 0x20000;
    v->cr4 = CR4_PSE;
    v->cr0 |= CR0_PG | CR0_WP;
    ck_assert(page_walk(v, 0x3123, ACCESS_WRITE, &walk, &error));
    ck_assert_uint_eq(walk.gpa, 0x555123);
    ck_assert_uint_eq(pt[3], 0x00555063);
    ck_assert(!page_walk(v, 0x3123, ACCESS_READ | ACCESS_USER, &walk, &error));
    ck_assert_uint_eq(error, 5);
    ck_assert(page_walk(v, 0x00412345, ACCESS_READ, &walk, &error));
    ck_assert_uint_eq(walk.gpa, 0x300812345ull);
    ck_assert_uint_eq(walk.page_size, 4 * MiB);
    v->cr4 = CR4_PAE;
    v->pdpte[0] = 0x22001;
    uint64_t *pae = guest_memory(g, 0x22000);
    pae[1] = 0xa00083;
    ck_assert(page_walk(v, 0x00212345, ACCESS_READ, &walk, &error));
    ck_assert_uint_eq(walk.gpa, 0xa12345);
    ck_assert_uint_eq(walk.page_size, 2 * MiB);
    v->pdpte[1] = 0;
    ck_assert(!page_walk(v, 0x40000000, ACCESS_READ, &walk, &error));
    ck_assert_uint_eq(error, 0);
    guest_free(g);
}
END_TEST

// ---- Privilege changes
// --------------------------------------------------------------------------------------------------------

PROGRAM(user_syscall, 64, "mov eax, 7; syscall; ud2");
START_TEST(system_call)
{
    struct guest *g = start_long();
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, user_syscall);
    static const uint8_t handler[] = {0xe7, 0xf4, 0xf4};
    guest_load(g, 0x11000, handler, sizeof(handler));
    user_mode(g, true);
    v->star = 0x0018000800000000ull;
    v->lstar = 0x11000;
    v->fmask = FLAG_IF | FLAG_DF;
    v->rflags |= FLAG_IF | FLAG_DF | FLAG_ZF;
    ck_assert(guest_run(g, 5));
    ck_assert_uint_eq(g->exit_code, 7);
    ck_assert_uint_eq(v->gpr[RCX], CODE + 7);
    ck_assert_uint_eq(v->gpr[R11], FLAG_IF | FLAG_DF | FLAG_ZF | FLAG_1);
    ck_assert_uint_eq(v->rflags & (FLAG_IF | FLAG_DF | FLAG_ZF), FLAG_ZF);
    ck_assert_uint_eq(v->cpl, 0);
    ck_assert_uint_eq(v->seg[CS].selector, 8);
    ck_assert_uint_eq(v->seg[SS].selector, 0x10);
    guest_free(g);
}
END_TEST

// R11 has the status flags that the last instruction left, though a memory access lies between.
PROGRAM(syscall_flags, 64, "mov eax, 7; xor ecx, ecx; mov [rsp-16], rax; syscall; ud2");
START_TEST(system_call_flags)
{
    struct guest *g = start_long_by(engine_names[_i]);
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, syscall_flags);
    static const uint8_t handler[] = {0xe7, 0xf4, 0xf4};
    guest_load(g, 0x11000, handler, sizeof(handler));
    user_mode(g, true);
    v->star = 0x0018000800000000ull;
    v->lstar = 0x11000;
    ck_assert(guest_run(g, 5));
    ck_assert_uint_eq(v->gpr[R11], FLAG_ZF | FLAG_PF | FLAG_1);
    ck_assert_uint_eq(v->rflags & FLAGS_STATUS, FLAG_ZF | FLAG_PF);
    guest_free(g);
}
END_TEST

// A far jump hands the flags on.
PROGRAM(far_flags, 32,
        "xor ecx, ecx; mov [0x7e00], eax; .byte 0xea; .long 1f - program_far_flags + 0x10000; .word 0x18;"
        "1: mov eax, 2; jz 2f; mov eax, 1; 2: out 0xf4, eax; hlt");
START_TEST(far_jump_flags)
{
    struct guest *g = guest_new(engine_names[_i], 1);
    guest_start_protected(g, CODE);
    PLACE(g, CODE, far_flags);
    ck_assert(guest_run(g, 5));
    ck_assert_uint_eq(g->exit_code, 2);
    guest_free(g);
}
END_TEST

PROGRAM(user_hlt, 64, "hlt");
START_TEST(user_privileged)
{
    struct guest *g = start_long();
    PLACE(g, CODE, user_hlt);
    user_mode(g, true);
    struct frame f = run(g);
    CHECK_FRAME(f, EXCEPTION_GP, 0, CODE);
    ck_assert_uint_eq(f.cs, 0x2b);
    ck_assert_uint_eq(f.ss, 0x23);
    ck_assert_uint_eq(f.rsp, 0x7000);
    ck_assert_uint_eq(g->set->vcpu[0]->gpr[RSP], STACK0 - 7 * 8);
    guest_free(g);
}
END_TEST

// Ring 3 calls a 32-bit call gate with two parameters; the handler adds them and returns.
PROGRAM(gate_caller, 32, "push 30; push 12; .byte 0x9a, 0, 0, 0, 0, 0x4b, 0; mov ebx, esp; int 0x60");
PROGRAM(gate_handler, 32, "mov eax, [esp + 8]; add eax, [esp + 12]; mov ecx, esp; retf 8");
START_TEST(call_gate)
{
    struct guest *g = start_protected();
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, gate_caller);
    PLACE(g, 0x11000, gate_handler);
    // Slot 9 (0x48): call gate to 0x18:0x11000, DPL 3, two parameters
    uint64_t gate = 0x1000 | 0x18ull << 16 | 0xec02ull << 32 | 0x0001ull << 48;
    guest_load(g, 0x800 + 0x48, &gate, 8);
    v->gdtr.limit = 0x4f;
    user_mode(g, false);
    struct frame f = run(g);
    ck_assert_uint_eq(f.vector, 0x60);
    ck_assert_uint_eq((uint32_t)v->gpr[RAX], 42);
    ck_assert_uint_eq(v->gpr[RCX], STACK0 - 6 * 4);
    ck_assert_uint_eq(v->gpr[RBX], 0x7000); // parameters released on both stacks
    ck_assert_uint_eq(f.cs, 0x33);
    guest_free(g);
}
END_TEST

PROGRAM(limit_read, 32, "mov eax, fs:[0xffd]; mov eax, fs:[0xffc]; ud2");
START_TEST(segment_limit)
{
    struct guest *g = start_protected();
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, limit_read);
    v->seg[FS] = (struct segment){.selector = 0x10, .attr = 0x4093, .limit = 0xfff, .base = 0x20000};
    CHECK_FRAME(run(g), EXCEPTION_GP, 0, CODE);
    guest_free(g);
    g = start_protected();
    v = g->set->vcpu[0];
    PLACE(g, CODE, limit_read);
    v->seg[FS] = (struct segment){.selector = 0x10, .attr = 0x4097, .limit = 0xffc, .base = 0x20000}; // expand-down
    CHECK_FRAME(run(g), EXCEPTION_GP, 0, CODE + 6);
    guest_free(g);
}
END_TEST

// ---- Tasks
// -----------------------------------------------------------------------------------------------------------------------

PROGRAM(task_first, 32,
        ".byte 0x9a, 0, 0, 0, 0, 0x48, 0; add eax, 1; .byte 0x9a, 0, 0, 0, 0, 0x48, 0; out 0xf4, eax; hlt");
PROGRAM(task_second, 32, "1: inc dword ptr [0x30000]; iretd; jmp 1b");
START_TEST(task_switch)
{
    struct guest *g = start_protected();
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, task_first);
    PLACE(g, 0x11000, task_second);
    uint32_t tss[26] = {0};
    tss[8] = 0x11000; // EIP
    tss[9] = 2;       // EFLAGS
    tss[14] = 0x7400; // ESP
    for (unsigned i = 18; i < 24; i++)
        tss[i] = 0x10;
    tss[19] = 0x18; // CS
    guest_load(g, 0x6000, tss, sizeof(tss));
    uint64_t descriptor = 0x0000890060000067ull; // slot 9: base 0x6000
    guest_load(g, 0x800 + 0x48, &descriptor, 8);
    descriptor = 0x00008b0006000067ull; // slot 7: our own, busy
    guest_load(g, 0x800 + 0x38, &descriptor, 8);
    v->gdtr.limit = 0x4f;
    v->gpr[RAX] = 5;
    v->rflags |= FLAG_CF;
    ck_assert(guest_run(g, 5));
    ck_assert(!g->shut_down);
    ck_assert_uint_eq(g->exit_code, 6);
    ck_assert_uint_eq(peek(g, 0x30000, 4), 2);
    ck_assert_uint_eq(v->tr.selector, 0x38);
    ck_assert_uint_ne(v->cr0 & CR0_TS, 0);
    ck_assert_uint_eq(v->rflags & FLAG_NT, 0);
    ck_assert_uint_eq(peek(g, 0x800 + 0x4d, 1), 0x89); // not busy any more
    guest_free(g);
}
END_TEST

// ---- Virtual-8086 mode
// ---------------------------------------------------------------------------------------------------------------

PROGRAM(v86_program, 16, "mov ax, 0x3000; mov ds, ax; mov word ptr [0], 0x1234; pushf; cli");
START_TEST(virtual_8086)
{
    struct guest *g = start_protected();
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, v86_program);
    v->rflags |= FLAG_VM | FLAG_IOPL;
    v->cpl = 3;
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        v->seg[i] = (struct segment){.attr = 0xf3, .limit = 0xffff};
    v->seg[CS].selector = 0x1000;
    v->seg[CS].base = 0x10000;
    v->rip = 0;
    v->rflags &= ~(uint64_t)FLAG_IOPL; // PUSHF faults
    struct frame f = run(g);
    CHECK_FRAME(f, EXCEPTION_GP, 0, 11);
    ck_assert_uint_eq(f.cs, 0x1000);
    ck_assert_uint_ne(f.flags & FLAG_VM, 0);
    ck_assert_uint_eq(peek(g, 0x30000, 2), 0x1234);
    ck_assert_uint_eq(peek(g, STACK0 - 4 * 3, 4), 0x3000); // DS
    ck_assert(v->seg[DS].unusable);
    guest_free(g);
}
END_TEST

// ---- Debug
// --------------------------------------------------------------------------------------------------------------------------

PROGRAM(step, 64, "pushfq; or dword ptr [rsp], 0x100; popfq; nop; nop; hlt");
START_TEST(single_step)
{
    struct guest *g = start_long();
    PLACE(g, CODE, step);
    struct frame f = run(g);
    CHECK_FRAME(f, EXCEPTION_DB, 0, CODE + 10); // after the first NOP
    ck_assert_uint_ne(g->set->vcpu[0]->dr6 & 0x4000, 0);
    guest_free(g);
}
END_TEST

PROGRAM(watch, 64, "mov dword ptr [0x20004], 1; nop; nop; hlt");
START_TEST(breakpoints)
{
    struct guest *g = start_long();
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, watch);
    v->dr[1] = 0x20004;
    v->dr7 = 0x400 | 1 << 2 | 1u << 20 | 3u << 22; // DR1: write, 4 bytes
    struct frame f = run(g);
    CHECK_FRAME(f, EXCEPTION_DB, 0, CODE + 11); // a trap: after the store
    ck_assert_uint_eq(v->dr6 & 15, 2);
    guest_free(g);
    g = start_long();
    v = g->set->vcpu[0];
    PLACE(g, CODE, watch);
    v->dr[0] = CODE + 12;
    v->dr7 = 0x400 | 1;
    f = run(g);
    CHECK_FRAME(f, EXCEPTION_DB, 0, CODE + 12); // a fault: before the instruction
    ck_assert_uint_eq(v->dr6 & 15, 1);
    ck_assert_uint_ne(f.flags & FLAG_RF, 0);
    guest_free(g);
}
END_TEST

PROGRAM(misaligned, 64, "mov eax, [0x400001]");
START_TEST(alignment_check)
{
    struct guest *g = start_long();
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, misaligned);
    user_mode(g, true);
    v->cr0 |= CR0_AM;
    v->rflags |= FLAG_AC;
    CHECK_FRAME(run(g), EXCEPTION_AC, 0, CODE);
    guest_free(g);
}
END_TEST

// ---- Interrupts
// ------------------------------------------------------------------------------------------------------------------------

PROGRAM(sti_shadow, 64, "sti; mov eax, 1; 1: inc ecx; jmp 1b");
START_TEST(interrupt_shadow)
{
    struct guest *g = start_long();
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, sti_shadow);
    lapic_write(v->lapic, 0xf0, 0x1ff);
    ck_assert_uint_eq(lapic_send(g->set, 0, false, LAPIC_FIXED, 0x70, false), 1);
    struct frame f = run(g);
    CHECK_FRAME(f, 0x70, 0, CODE + 6); // one instruction after STI
    ck_assert_uint_ne(f.flags & FLAG_IF, 0);
    guest_free(g);
}
END_TEST

PROGRAM(halt_wait, 64, "sti; 1: hlt; jmp 1b");
START_TEST(timer_wakes_halt)
{
    struct guest *g = start_long();
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, halt_wait);
    lapic_write(v->lapic, 0xf0, 0x1ff);
    lapic_write(v->lapic, 0x3e0, 0xb);      // divide by 1
    lapic_write(v->lapic, 0x320, 0x71);     // one shot
    lapic_write(v->lapic, 0x380, 20000000); // 20 ms
    struct frame f = run(g);
    CHECK_FRAME(f, 0x71, 0, CODE + 2);
    guest_free(g);
}
END_TEST

START_TEST(nmi_blocked_until_iret)
{
    struct guest *g = start_long();
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, halt_wait);
    ck_assert_uint_eq(lapic_send(g->set, 0, false, LAPIC_NMI, 0, false), 1);
    struct frame f = run(g);
    ck_assert_uint_eq(f.vector, EXCEPTION_NMI);
    ck_assert(v->nmi_blocked);
    guest_free(g);
}
END_TEST

// Two processors add to one counter with and across a page; a third word shows that the second ran.
PROGRAM(adder, 64,
        "mov ecx, 200000; 1: lock inc dword ptr [0x20000]; lock inc dword ptr [0x21ffe]; dec ecx; jnz 1b;"
        "lock inc dword ptr [0x22100]; 2: cmp dword ptr [0x22100], 2; jne 2b; mov eax, 9; out 0xf4, eax; hlt");
START_TEST(two_processors)
{
    struct guest *g = guest_new("interpret", 2);
    guest_start_long(g, CODE);
    PLACE(g, CODE, adder);
    struct vcpu *a = g->set->vcpu[0], *b = g->set->vcpu[1];
    memcpy(b->seg, a->seg, sizeof(a->seg));
    b->cr0 = a->cr0;
    b->cr3 = a->cr3;
    b->cr4 = a->cr4;
    b->efer = a->efer;
    b->rip = CODE;
    b->activity = VCPU_RUNNING;
    ck_assert(guest_run(g, 60));
    ck_assert_uint_eq(peek(g, 0x20000, 4), 400000);
    ck_assert_uint_eq(peek(g, 0x21ffe, 4), 400000);
    guest_free(g);
}
END_TEST

// The boot processor starts the other one with INIT and SIPI through the xAPIC page.
PROGRAM(start_other, 64,
        "mov ebx, 0xfee00000; mov dword ptr [rbx + 0xf0], 0x1ff; mov dword ptr [rbx + 0x310], 0x01000000;"
        "mov dword ptr [rbx + 0x300], 0x4500; mov dword ptr [rbx + 0x300], 0x4620; 1: cmp word ptr [0x30000], 0x77;"
        "jne 1b; mov eax, 5; out 0xf4, eax; hlt");
PROGRAM(other, 16, "mov ax, 0x3000; mov ds, ax; mov word ptr [0], 0x77; hlt");
START_TEST(init_sipi)
{
    struct guest *g = guest_new("interpret", 2);
    guest_start_long(g, CODE);
    uint64_t *pdpt = guest_memory(g, 0x2000);
    pdpt[3] = 0xc0000087;
    PLACE(g, CODE, start_other);
    PLACE(g, 0x20000, other);
    ck_assert(guest_run(g, 20));
    ck_assert_uint_eq(g->exit_code, 5);
    ck_assert_uint_eq(g->set->vcpu[1]->seg[CS].selector, 0x2000);
    guest_free(g);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu-privileged");
    TCase *tc = tcase_create("programs");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, undefined);
    tcase_add_loop_test(tc, fault64, 0, G_N_ELEMENTS(faults64));
    tcase_add_test(tc, gate_not_present);
    tcase_add_test(tc, double_fault);
    tcase_add_loop_test(tc, page_fault, 0, G_N_ELEMENTS(paging));
    tcase_add_test(tc, accessed_and_dirty);
    tcase_add_test(tc, pieces_of_large_pages);
    tcase_add_test(tc, paging_32bit);
    tcase_add_test(tc, system_call);
    tcase_add_loop_test(tc, system_call_flags, 0, G_N_ELEMENTS(engine_names));
    tcase_add_loop_test(tc, far_jump_flags, 0, G_N_ELEMENTS(engine_names));
    tcase_add_test(tc, user_privileged);
    tcase_add_test(tc, call_gate);
    tcase_add_test(tc, segment_limit);
    tcase_add_test(tc, task_switch);
    tcase_add_test(tc, virtual_8086);
    tcase_add_test(tc, single_step);
    tcase_add_test(tc, breakpoints);
    tcase_add_test(tc, alignment_check);
    tcase_add_test(tc, interrupt_shadow);
    tcase_add_test(tc, timer_wakes_halt);
    tcase_add_test(tc, nmi_blocked_until_iret);
    tcase_add_test(tc, two_processors);
    tcase_add_test(tc, init_sipi);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
