// SPDX-License-Identifier: GPL-2.0-or-later
// Code that changes itself and the code of other processors, on 1, 2 and 4 of them. (SDM vol. 3, 10.1.3)
//
// First every processor rewrites the immediate of the very next instruction, all in one page. Then processor 0 rewrites
// a function that the others call: after they have seen its flag and serialized, they must get that value or a later
// one, and values never go back.
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/guest.h"

#define CODE 0x10000u
#define DATA 0x20000u // 0: flag, 4: done, 8: processors at the end, 12: failures, 16: processors, 20: ready

extern const uint8_t program[], program_end[], slots[];
// rdi: number of this processor; r15: its own slot of 64 bytes. Linked here, but all addresses are relative or
// absolute.
__asm__(".pushsection .rodata\n"
        ".globl program, program_end, slots\n"
        "program:\n"
        "  mov %rdi, %r15\n"
        "  shl $6, %r15\n"
        "  lea slots(%rip), %rax\n"
        "  add %rax, %r15\n"
        "  mov $2000, %ecx\n"
        "  xor %ebx, %ebx\n"
        "1: call *%r15\n" // increments ebx, writes it into its own code, returns what that gives
        "  cmp %ebx, %eax\n"
        "  jne fail\n"
        "  dec %ecx\n"
        "  jnz 1b\n"
        "  lock incl 0x20014\n" // ready
        "2: pause\n"
        "  mov 0x20010, %eax\n"
        "  cmp 0x20014, %eax\n"
        "  jne 2b\n"
        "  test %edi, %edi\n"
        "  jnz reader\n"
        // the writer
        "  mov $3000, %ecx\n"
        "  xor %ebx, %ebx\n"
        "3: inc %ebx\n"
        "  mov %ebx, shared+4(%rip)\n"
        "  mov %ebx, 0x20000\n"
        "  mov $20, %edx\n"
        "4: pause\n"
        "  dec %edx\n"
        "  jnz 4b\n"
        "  dec %ecx\n"
        "  jnz 3b\n"
        "  movl $1, 0x20004\n"
        "5: pause\n"
        "  mov 0x20010, %eax\n"
        "  dec %eax\n"
        "  cmp 0x20008, %eax\n"
        "  jne 5b\n"
        "  out %al, $0xf4\n"
        "6: jmp 6b\n"
        "reader:\n"
        "  xor %r9d, %r9d\n"
        "7: mov 0x20000, %esi\n"
        "  xor %eax, %eax\n"
        "  cpuid\n"
        "  call shared\n"
        "  cmp %esi, %eax\n"
        "  jb fail\n"
        "  cmp %r9d, %eax\n"
        "  jb fail\n"
        "  mov %eax, %r9d\n"
        "  inc %r8\n"
        "  cmpl $0, 0x20004\n"
        "  je 7b\n"
        "  lock incl 0x20008\n"
        "8: pause\n"
        "  jmp 8b\n"
        "fail:\n"
        "  lock incl 0x2000c\n"
        "  out %al, $0xf4\n"
        "9: jmp 9b\n"
        ".balign 64\n"
        "shared:\n"
        "  nop; nop; nop\n"
        "  mov $0, %eax\n" // its immediate at shared + 4
        "  ret\n"
        ".balign 64\n"
        "slots:\n"
        ".rept 4\n"
        "0: inc %ebx\n"
        "  mov %ebx, 1f-4(%rip)\n"
        "  mov $0, %eax\n"
        "1: ret\n"
        ".balign 64\n"
        ".endr\n"
        "program_end:\n"
        ".popsection\n");

// String instructions that write code: the very next instruction, a whole function, one in the next page. EBX counts
// what failed. A while after each change nothing is written, so that what runs is the code of its page at rest, too.
extern const uint8_t strings[], strings_end[];
__asm__(".pushsection .rodata\n"
        ".globl strings, strings_end\n"
        "strings:\n"
        "  xor %ebx, %ebx\n"
        "  mov $3000, %r12d\n"
        "1: mov %r12d, pattern+1(%rip)\n"
        "  lea pattern(%rip), %rsi\n"
        "  lea next(%rip), %rdi\n"
        "  mov $6, %ecx\n"
        "  rep movsb\n"
        "next: mov $0, %eax\n"
        "  nop\n"
        "  cmp %r12d, %eax\n"
        "  je 2f\n"
        "  inc %ebx\n"
        "2: mov $0xc5ff, %eax\n" // inc ebp
        "  test $1, %r12d\n"
        "  jz 3f\n"
        "  mov $0xcdff, %eax\n" // dec ebp
        "3: lea function(%rip), %rdi\n"
        "  mov $8, %ecx\n"
        "  rep stosw\n"
        "  movslq far(%rip), %rdi\n"
        "  mov $2048, %ecx\n" // a page and more
        "  rep stosw\n"
        "  movb $0xc3, (%rdi)\n"
        "  mov $3, %r13d\n"
        "4: mov $1000000, %ebp\n"
        "  call function\n"
        "  movslq far(%rip), %rdi\n"
        "  call *%rdi\n"
        "  mov $1000000 + 8 + 2048, %eax\n"
        "  test $1, %r12d\n"
        "  jz 5f\n"
        "  mov $1000000 - 8 - 2048, %eax\n"
        "5: cmp %eax, %ebp\n"
        "  je 6f\n"
        "  inc %ebx\n"
        "6: dec %r13d\n"
        "  jnz 4b\n"
        "  dec %r12d\n"
        "  jnz 1b\n"
        "  mov %ebx, 0x2000c\n"
        "  movl $1, 0x20000\n"
        "  out %al, $0xf4\n"
        "7: jmp 7b\n"
        "far: .long 0x30f00\n"
        "pattern: .byte 0xb8, 0, 0, 0, 0, 0x90\n"
        "function: .fill 16, 1, 0x90\n"
        "  ret\n"
        "strings_end:\n"
        ".popsection\n");

static void start(struct guest *g, unsigned index)
{
    struct vcpu *boot = g->set->vcpu[0], *v = g->set->vcpu[index];
    if (index) {
        v->cr0 = boot->cr0;
        v->cr3 = boot->cr3;
        v->cr4 = boot->cr4;
        v->efer = boot->efer;
        v->gdtr = boot->gdtr;
        memcpy(v->seg, boot->seg, sizeof v->seg);
        v->activity = VCPU_RUNNING;
    }
    v->rip = CODE;
    v->gpr[RDI] = index;
    v->gpr[RSP] = 0x7000 - 0x400 * index;
}

static void strings_write_code(const char *engine)
{
    struct guest *g = guest_new(engine, 1);
    guest_load(g, CODE, strings, (size_t)(strings_end - strings));
    guest_start_long(g, CODE);
    start(g, 0);
    ck_assert_msg(guest_run(g, 100), "%s: no end", engine);
    uint32_t data[4];
    memcpy(data, guest_memory(g, DATA), sizeof data);
    ck_assert_uint_eq(data[0], 1);
    ck_assert_uint_eq(data[3], 0);
    guest_free(g);
}

// A function over the border of two pages, one of its instructions across it, of instructions that use each other's
// flags; some write others of it. One or two are replaced at random before each call. RBP gathers what they compute:
// all engines must agree.
extern const uint8_t patches[], patches_end[];
__asm__(".pushsection .rodata\n"
        ".globl patches, patches_end\n"
        "patches:\n"
        "  mov $0x30fe1, %r12d\n"
        "  mov %r12d, %edi\n"
        "  mov $0xcdff, %eax\n"
        "  mov $48, %ecx\n"
        "  rep stosw\n"
        "  movl $0xc3c3c3c3, (%rdi)\n"
        "  mov $25000, %r13d\n"
        "  mov $12345, %r14d\n"
        "  xor %ebp, %ebp\n"
        "1: imul $1664525, %r14d, %r14d\n"
        "  add $1013904223, %r14d\n"
        "  mov %r14d, %eax\n"
        "  shr $27, %eax\n" // which of 16, the last ones more often
        "  cmp $16, %eax\n"
        "  jb 2f\n"
        "  shr $1, %eax\n"
        "2: mov %r14d, %ecx\n"
        "  shr $12, %ecx\n"
        "  and $63, %ecx\n"
        "  cmp $48, %ecx\n"
        "  jae 1b\n"
        "  lea choices(%rip), %rdx\n"
        "  movzwl (%rdx,%rax,2), %eax\n"
        "  mov %ax, (%r12,%rcx,2)\n"
        "  test $0x100, %r14d\n"
        "  jnz 1b\n"
        "  lea 32(%r12), %rsi\n"
        "  mov $0xd511c5ff, %eax\n" // inc ebp, adc ebp, edx
        "  mov $0x01020304, %edx\n"
        "  mov %r14b, %cl\n"
        "  test %r14d, %r14d\n"
        "  call *%r12\n"
        "  pushfq\n"
        "  pop %rax\n"
        "  and $0xc1, %eax\n" // CF, ZF, SF
        "  rol $5, %rbp\n"
        "  add %rax, %rbp\n"
        "  dec %r13d\n"
        "  jnz 1b\n"
        "  mov %rbp, 0x20008\n"
        "  movl $1, 0x20000\n"
        "  out %al, $0xf4\n"
        "3: jmp 3b\n"
        "choices: inc %ebp; dec %ebp; add %edx, %ebp; adc %edx, %ebp\n"
        "  sbb %edx, %ebp; xor %edx, %ebp; rol $1, %ebp; cmc; nop\n"
        "  stc; nop; .byte 0x72, 0\n"     // jc over nothing
        "  .byte 0x75, 2; rcl $1, %ebp\n" // jnz over one
        "  cmp %ebp, %edx; mov %eax, (%rsi); add %edx, %ebp; adc %ebp, %edx\n"
        "patches_end:\n"
        ".popsection\n");

// One function at three addresses of the same memory; its stack lies in its own page, so that its pushes are writes to
// a page of code. EBX counts return addresses that are not where the call was.
extern const uint8_t aliases[], aliases_end[];
__asm__(".pushsection .rodata\n"
        ".globl aliases, aliases_end\n"
        "aliases:\n"
        "  xor %ebx, %ebx\n"
        "  mov $3, %r12d\n"
        "1: lea moving(%rip), %rdx\n"
        "  mov %r12, %rax\n"
        "  shl $39, %rax\n"
        "  add %rax, %rdx\n"
        "  lea aliases+0xff0(%rip), %rsp\n"
        "  call *%rdx\n"
        "  dec %r12d\n"
        "  jnz 1b\n"
        "  mov %ebx, 0x2000c\n"
        "  movl $1, 0x20000\n"
        "  out %al, $0xf4\n"
        "2: jmp 2b\n"
        ".balign 64\n"
        "moving:\n"
        "  lea 3f(%rip), %rcx\n"
        "  call 4f\n"
        "3: ud2\n"
        "4: pop %rax\n"
        "  cmp %rax, %rcx\n"
        "  je 5f\n"
        "  inc %ebx\n"
        "5: ret\n"
        "aliases_end:\n"
        ".popsection\n");

static void aliased(const char *engine)
{
    struct guest *g = guest_new(engine, 1);
    guest_load(g, CODE, aliases, (size_t)(aliases_end - aliases));
    guest_start_long(g, CODE);
    uint64_t *pml4 = guest_memory(g, 0x1000);
    for (unsigned n = 1; n <= 3; n++)
        pml4[n] = pml4[0];
    start(g, 0);
    ck_assert_msg(guest_run(g, 20), "%s: no end", engine);
    uint32_t data[4];
    memcpy(data, guest_memory(g, DATA), sizeof data);
    ck_assert_uint_eq(data[0], 1);
    ck_assert_uint_eq(data[3], 0);
    guest_free(g);
}

START_TEST(aliases_translated)
{
    aliased("translate");
}
END_TEST

START_TEST(aliases_interpreted)
{
    aliased("interpret");
}
END_TEST

static uint64_t patches_result(const char *engine)
{
    struct guest *g = guest_new(engine, 1);
    guest_load(g, CODE, patches, (size_t)(patches_end - patches));
    guest_start_long(g, CODE);
    start(g, 0);
    ck_assert_msg(guest_run(g, 100), "%s: no end", engine);
    uint64_t data[2];
    memcpy(data, guest_memory(g, DATA), sizeof data);
    ck_assert_uint_eq((uint32_t)data[0], 1);
    guest_free(g);
    return data[1];
}

START_TEST(patches_agree)
{
    uint64_t interpreted = patches_result("interpret");
    ck_assert_uint_ne(interpreted, 0);
    ck_assert_uint_eq(patches_result("translate"), interpreted);
}
END_TEST

START_TEST(strings_translated)
{
    strings_write_code("translate");
}
END_TEST

START_TEST(strings_interpreted)
{
    strings_write_code("interpret");
}
END_TEST

// All processors start at CODE; what lies at DATA when they have ended.
static void run_together(struct guest *g, const char *engine, unsigned cpus, uint32_t data[6])
{
    memcpy(guest_memory(g, DATA + 16), &cpus, 4);
    for (unsigned n = 0; n < cpus; n++)
        start(g, n);
    ck_assert_msg(guest_run(g, 100), "%s, %u processors: no end", engine, cpus);
    memcpy(data, guest_memory(g, DATA), 6 * sizeof *data);
}

static void torture(const char *engine, unsigned cpus)
{
    struct guest *g = guest_new(engine, cpus);
    guest_load(g, CODE, program, (size_t)(program_end - program));
    guest_start_long(g, CODE);
    uint32_t data[6];
    run_together(g, engine, cpus, data);
    ck_assert_uint_eq(data[3], 0);
    ck_assert_uint_eq(data[2], cpus - 1);
    ck_assert_uint_eq(data[0], 3000);
    ck_assert(!g->shut_down);
    for (unsigned n = 1; n < cpus; n++)
        ck_assert_uint_gt(g->set->vcpu[n]->gpr[R8], 0);
    guest_free(g);
}

START_TEST(translated)
{
    torture("translate", 1u << _i);
}
END_TEST

START_TEST(interpreted)
{
    torture("interpret", 1u << _i);
}
END_TEST

// Processors that change their own next instruction in one page at the same time, page after page: what one of them
// does to the page's translations while another runs there must not hide that one's own writes from it.
#define NEIGHBOUR_PAGES 0x100000u
#define NEIGHBOUR_COUNT 200u
extern const uint8_t neighbours[], neighbours_end[], neighbour_slots[], neighbour_slots_end[];
__asm__(".pushsection .rodata\n"
        ".globl neighbours, neighbours_end, neighbour_slots, neighbour_slots_end\n"
        "neighbours:\n"
        "  mov %rdi, %r15\n"
        "  shl $6, %r15\n"
        "  add $0x100000, %r15\n"
        "  mov $200, %ebp\n"
        "  xor %ebx, %ebx\n"
        "  xor %r14d, %r14d\n"
        "1: add 0x20010, %r14d\n"
        "  lock incl 0x20014\n"
        "2: pause\n"
        "  cmp 0x20014, %r14d\n"
        "  ja 2b\n"
        "  mov $12, %ecx\n"
        "3: call *%r15\n"
        "  cmp %ebx, %eax\n"
        "  je 4f\n"
        "  lock incl 0x2000c\n"
        "4: dec %ecx\n"
        "  jnz 3b\n"
        "  add $0x1000, %r15\n"
        "  dec %ebp\n"
        "  jnz 1b\n"
        "  lock incl 0x20008\n"
        "  test %edi, %edi\n"
        "  jnz 6f\n"
        "5: pause\n"
        "  mov 0x20008, %eax\n"
        "  cmp 0x20010, %eax\n"
        "  jne 5b\n"
        "  out %al, $0xf4\n"
        "6: pause\n"
        "  jmp 6b\n"
        "neighbours_end:\n"
        ".balign 64\n"
        "neighbour_slots:\n"
        ".rept 4\n"
        "0: inc %ebx\n"
        "  mov %ebx, 1f-4(%rip)\n"
        "  mov $0, %eax\n"
        "1: ret\n"
        ".balign 64, 0xcc\n"
        ".endr\n"
        "neighbour_slots_end:\n"
        ".popsection\n");

static void neighbouring(const char *engine, unsigned cpus)
{
    struct guest *g = guest_new(engine, cpus);
    guest_load(g, CODE, neighbours, (size_t)(neighbours_end - neighbours));
    guest_start_long(g, CODE);
    for (unsigned n = 0; n < NEIGHBOUR_COUNT; n++)
        guest_load(g, NEIGHBOUR_PAGES + n * 0x1000, neighbour_slots, (size_t)(neighbour_slots_end - neighbour_slots));
    uint32_t data[6];
    run_together(g, engine, cpus, data);
    ck_assert_uint_eq(data[3], 0);
    ck_assert_uint_eq(data[2], cpus);
    guest_free(g);
}

START_TEST(neighbours_translated)
{
    neighbouring("translate", 1u << _i);
}
END_TEST

START_TEST(neighbours_interpreted)
{
    neighbouring("interpret", 1u << _i);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("changing code");
    TCase *t = tcase_create("torture");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, translated, 0, 3);
    tcase_add_loop_test(t, interpreted, 0, 3);
    tcase_add_loop_test(t, neighbours_translated, 1, 2);
    tcase_add_loop_test(t, neighbours_interpreted, 1, 2);
    tcase_add_test(t, patches_agree);
    tcase_add_test(t, aliases_translated);
    tcase_add_test(t, aliases_interpreted);
    tcase_add_test(t, strings_translated);
    tcase_add_test(t, strings_interpreted);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
