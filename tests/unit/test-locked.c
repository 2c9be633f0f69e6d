// SPDX-License-Identifier: GPL-2.0-or-later
// Locked accesses over a page border are atomic between processors (SDM vol. 3, 9.1.2.2): several add to the same
// words, half of them in a page that also holds code they call. No addition may be lost.
#include <check.h>
#include <string.h>

#include "tests/unit/guest.h"

#define CODE   0x10000u
#define DATA   0x20000u // 0: processors ready, 4: at the end, 8: how many there are
#define PLAIN  0x40ffcu // 8 bytes over a border
#define HELPER 0x51000u // in the page that the second word ends in: the helper's code
#define MIXED  (HELPER - 4)
#define ROUNDS 2000u

extern const uint8_t adders[], adders_end[], helper[], helper_end[];
__asm__(".pushsection .rodata\n"
        ".globl adders, adders_end, helper, helper_end\n"
        "adders:\n"
        "  lock incl 0x20000\n"
        "1: pause\n"
        "  mov 0x20008, %eax\n"
        "  cmp 0x20000, %eax\n"
        "  jne 1b\n"
        "  mov $2000, %r12d\n"
        "  mov $0x50ffc, %esi\n"
        "  mov $0x51040, %r13d\n"
        "2: movabs $0x123456789, %rax\n"
        "  lock xadd %rax, 0x40ffc\n"
        "  call *%r13\n"
        "  mov (%rsi), %rax\n"
        "  mov 4(%rsi), %edx\n"
        "  mov %eax, %eax\n"
        "3: mov %rax, %rbx\n"
        "  mov %rdx, %rcx\n"
        "  add $0x23456789, %ebx\n"
        "  adc $1, %ecx\n"
        "  lock cmpxchg8b (%rsi)\n"
        "  jnz 3b\n"
        "  dec %r12d\n"
        "  jnz 2b\n"
        "  lock incl 0x20004\n"
        "  test %edi, %edi\n"
        "  jnz 5f\n"
        "4: pause\n"
        "  mov 0x20008, %eax\n"
        "  cmp 0x20004, %eax\n"
        "  jne 4b\n"
        "  out %al, $0xf4\n"
        "5: pause\n"
        "  jmp 5b\n"
        "adders_end:\n"
        "helper:\n"
        "  inc %ebp\n"
        "  ret\n"
        "helper_end:\n"
        ".popsection\n");

static void start(struct guest *g, unsigned n)
{
    struct vcpu *boot = g->set->vcpu[0], *v = g->set->vcpu[n];
    if (n) {
        memcpy(v->seg, boot->seg, sizeof v->seg);
        v->gdtr = boot->gdtr;
        v->cr0 = boot->cr0;
        v->cr3 = boot->cr3;
        v->cr4 = boot->cr4;
        v->efer = boot->efer;
    }
    v->rip = CODE;
    v->gpr[RDI] = n;
    v->gpr[RSP] = 0x60000 + n * 0x1000;
    v->activity = VCPU_RUNNING;
}

static void add_together(const char *engine, unsigned cpus)
{
    struct guest *g = guest_new(engine, cpus);
    guest_load(g, CODE, adders, (size_t)(adders_end - adders));
    guest_load(g, HELPER + 64, helper, (size_t)(helper_end - helper));
    guest_start_long(g, CODE);
    memcpy(guest_memory(g, DATA + 8), &cpus, 4);
    for (unsigned n = 0; n < cpus; n++)
        start(g, n);
    ck_assert_msg(guest_run(g, 100), "%s, %u processors: no end", engine, cpus);
    uint64_t plain, mixed, sum = cpus * ROUNDS * 0x123456789ull;
    memcpy(&plain, guest_memory(g, PLAIN), 8);
    memcpy(&mixed, guest_memory(g, MIXED), 8);
    ck_assert_uint_eq(plain, sum);
    ck_assert_uint_eq(mixed, sum);
    ck_assert(!g->shut_down);
    guest_free(g);
}

START_TEST(translated)
{
    add_together("translate", 1u << _i);
}
END_TEST

START_TEST(interpreted)
{
    add_together("interpret", 1u << _i);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("locked accesses");
    TCase *t = tcase_create("over a page border");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, translated, 0, 3);
    tcase_add_loop_test(t, interpreted, 0, 3);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
