// SPDX-License-Identifier: GPL-2.0-or-later
// The processor from boot-sector style programs: modes, loops, self-modifying code, device memory.
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/guest.h"

#define LOAD(g, gpa, ...)                                                                                              \
    do {                                                                                                               \
        static const uint8_t code_[] = {__VA_ARGS__};                                                                  \
        guest_load(g, gpa, code_, sizeof(code_));                                                                      \
    } while (0)

#define EXIT_EAX 0xe7, 0xf4 // out 0xf4, eax (32-bit and 64-bit code)

START_TEST(real_mode_sum)
{
    struct guest *g = guest_new("interpret", 1);
    // xor ax,ax; mov cx,100; l: add ax,cx; loop l; out 0xf4,ax; hlt
    LOAD(g, 0x7c00, 0x31, 0xc0, 0xb9, 100, 0, 0x01, 0xc8, 0xe2, 0xfc, 0xe7, 0xf4, 0xf4);
    guest_start_real(g, 0x7c00);
    ck_assert(guest_run(g, 5));
    ck_assert(!g->shut_down);
    ck_assert_uint_eq(g->exit_code, 5050);
    guest_free(g);
}
END_TEST

START_TEST(protected_mode_call)
{
    struct guest *g = guest_new("interpret", 1);
    // mov eax,5; call f; out 0xf4,eax; f: push ecx; mov ecx,3; imul eax,ecx; pop ecx; ret
    LOAD(g, 0x10000, 0xb8, 5, 0, 0, 0, 0xe8, 2, 0, 0, 0, EXIT_EAX, 0x51, 0xb9, 3, 0, 0, 0, 0x0f, 0xaf, 0xc1, 0x59,
         0xc3);
    guest_start_protected(g, 0x10000);
    ck_assert(guest_run(g, 5));
    ck_assert_uint_eq(g->exit_code, 15);
    guest_free(g);
}
END_TEST

START_TEST(long_mode_loop)
{
    struct guest *g = guest_new("interpret", 1);
    // mov ecx,1000000; xor eax,eax; l: add rax,rcx; dec rcx; jnz l; out 0xf4,eax
    LOAD(g, 0x10000, 0xb9, 0x40, 0x42, 0x0f, 0, 0x31, 0xc0, 0x48, 0x01, 0xc8, 0x48, 0xff, 0xc9, 0x75, 0xf8, EXIT_EAX);
    guest_start_long(g, 0x10000);
    ck_assert(guest_run(g, 5));
    ck_assert_uint_eq(g->exit_code, (uint32_t)(1000000ull * 1000001 / 2));
    guest_free(g);
}
END_TEST

START_TEST(self_modifying)
{
    struct guest *g = guest_new("interpret", 1);
    // mov byte [rip+1],7 ; mov eax,1 (patched to mov eax,7) ; out
    LOAD(g, 0x10000, 0xc6, 0x05, 0x01, 0, 0, 0, 7, 0xb8, 1, 0, 0, 0, EXIT_EAX);
    guest_start_long(g, 0x10000);
    ck_assert(guest_run(g, 5));
    ck_assert_uint_eq(g->exit_code, 7);
    guest_free(g);
}
END_TEST

START_TEST(device_memory)
{
    struct guest *g = guest_new("interpret", 1);
    g->mmio_value = 100;
    // mov ebx,0xd0000000; mov eax,[rbx+4]; mov [rbx],eax; mov eax,[rbx+8]; out
    LOAD(g, 0x10000, 0xbb, 0, 0, 0, 0xd0, 0x8b, 0x43, 4, 0x89, 0x03, 0x8b, 0x43, 8, EXIT_EAX);
    guest_start_long(g, 0x10000);
    ck_assert(guest_run(g, 5));
    ck_assert_uint_eq(g->exit_code, 112);
    ck_assert_uint_eq(g->mmio_writes, 1);
    guest_free(g);
}
END_TEST

// String sources take a segment override, ES too.
START_TEST(string_override)
{
    struct guest *g = guest_new("interpret", 1);
    // mov ax,0x3000; mov es,ax; xor si,si; mov dx,0xe9; mov cx,4; rep outsb es:[si]; mov cx,1; es lodsb; out 0xf4,al
    LOAD(g, 0x7c00, 0xb8, 0, 0x30, 0x8e, 0xc0, 0x31, 0xf6, 0xba, 0xe9, 0, 0xb9, 4, 0, 0xf3, 0x26, 0x6e, 0x26, 0xac,
         0xe6, 0xf4, 0xf4);
    guest_load(g, 0x30000, "abcde", 5);
    guest_start_real(g, 0x7c00);
    ck_assert(guest_run(g, 5));
    ck_assert_str_eq(g->output->str, "abcd");
    ck_assert_uint_eq(g->exit_code, 'e');
    guest_free(g);
}
END_TEST

// IA32_APIC_BASE moves between off, xAPIC and x2APIC only as SDM vol. 3, figure 11-26 allows.
static const char *const engine_names[] = {
    "interpret",
#ifdef __x86_64__
    "translate",
#endif
};

// REPNE SCASB whose second element is missing: the handler finds the flags from before the instruction (SDM vol. 2).
START_TEST(scan_fault_flags)
{
    struct guest *g = guest_new(engine_names[_i / 2], 1);
    // mov edi,0xffffff; mov ecx,5; mov al,0x55; xor edx,edx; stc; [addr32] repne scasb
    LOAD(g, 0x10000, 0xbf, 0xff, 0xff, 0xff, 0, 0xb9, 5, 0, 0, 0, 0xb0, 0x55, 0x31, 0xd2, 0xf9, 0x67, 0xf2, 0xae);
    // pop rbx; mov eax,[rsp+16]; and eax,0x8d5; shl ecx,16; or eax,ecx; out 0xf4,eax
    LOAD(g, 0x12000, 0x5b, 0x8b, 0x44, 0x24, 0x10, 0x25, 0xd5, 8, 0, 0, 0xc1, 0xe1, 0x10, 0x09, 0xc8, EXIT_EAX);
    LOAD(g, 0x60e0, 0x00, 0x20, 8, 0, 0, 0x8e, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    if (_i & 1)
        memcpy(guest_memory(g, 0x1000f), (const uint8_t[]){0xf2, 0xae, 0x90}, 3);
    guest_start_long(g, 0x10000);
    g->set->vcpu[0]->idtr = (struct table_register){.base = 0x6000, .limit = 32 * 16 - 1};
    ck_assert(guest_run(g, 5));
    ck_assert(!g->shut_down);
    ck_assert_uint_eq(g->exit_code, 4 << 16 | FLAG_CF | FLAG_PF | FLAG_ZF);
    guest_free(g);
}
END_TEST

// A pause that is asked for while the thread starts to run is not lost.
START_TEST(pauses)
{
    struct guest *g = guest_new(engine_names[_i], 1);
    LOAD(g, 0x10000, 0xff, 0xc0, 0xeb, 0xfc); // inc eax; jmp back
    guest_start_long(g, 0x10000);
    for (unsigned n = 0; n < 20000; n++) {
        cpu_set_resume(g->set);
        for (volatile unsigned k = 0; k < n % 1000 * 20; k++) {
        }
        cpu_set_pause(g->set); // comes back
    }
    ck_assert_uint_eq(g->set->vcpu[0]->rip & ~2ull, 0x10000);
    guest_free(g);
}
END_TEST

START_TEST(apic_modes)
{
    struct guest *g = guest_new("interpret", 1);
    struct vcpu *v = g->set->vcpu[0];
    uint64_t value;
    ck_assert(!vcpu_read_msr(v, 0x802, &value)); // x2APIC registers before x2APIC mode
    ck_assert(vcpu_write_msr(v, 0x1b, v->apic_base | BIT(10)));
    ck_assert(vcpu_read_msr(v, 0x802, &value));
    ck_assert_uint_eq(value, 0);
    ck_assert(!vcpu_write_msr(v, 0x1b, v->apic_base & ~BIT(10))); // not straight back to xAPIC
    ck_assert(!vcpu_write_msr(v, 0x1b, v->apic_base & ~BIT(11))); // x2APIC without enable is no state
    ck_assert(vcpu_write_msr(v, 0x1b, v->apic_base & ~0xc00ull));
    ck_assert(!vcpu_write_msr(v, 0x1b, v->apic_base | 0xc00));
    ck_assert(vcpu_write_msr(v, 0x1b, v->apic_base | BIT(11)));
    guest_free(g);
}
END_TEST

START_TEST(time_stamp_counter)
{
    struct guest *g = guest_new("interpret", 1);
    struct vcpu *v = g->set->vcpu[0];
    uint64_t value;
    ck_assert(vcpu_write_msr(v, 0x10, 1000000000000ull));
    ck_assert_uint_ge(vcpu_read_tsc(v), 1000000000000ull);
    clock_stop(g->clock);
    uint64_t stopped = vcpu_read_tsc(v);
    g_usleep(2000);
    ck_assert_uint_eq(vcpu_read_tsc(v), stopped); // guest time stands still while paused
    ck_assert(vcpu_read_msr(v, 0x3b, &value));
    ck_assert(vcpu_write_msr(v, 0x3b, value + 500));
    ck_assert_uint_eq(vcpu_read_tsc(v), stopped + 500);
    // kvmclock: the page describes this counter
    ck_assert(vcpu_write_msr(v, 0x4b564d01, 0x5000 | 1));
    const uint8_t *page = guest_memory(g, 0x5000);
    ck_assert_uint_eq(load_le(page, 4) & 1, 0);
    ck_assert_uint_eq(load_le(page + 8, 8), stopped + 500);
    ck_assert_uint_eq(load_le(page + 16, 8), (uint64_t)clock_now(g->clock));
    ck_assert(!vcpu_write_msr(v, 0x277, 0x0007040600070402)); // PAT type 2 is reserved
    guest_free(g);
}
END_TEST

// What the model hides does not exist.
START_TEST(hidden_instruction)
{
    struct guest *g = guest_new("interpret", 1);
    struct vcpu *v = g->set->vcpu[0];
    uint32_t out[4];
    vcpu_cpuid(v, 1, 0, out);
    ck_assert_uint_eq(out[2] >> 3 & 1, 0); // MONITOR
    LOAD(g, 0x10000, 0x0f, 0x01, 0xc8);    // monitor: #UD without an IDT is a triple fault
    guest_start_long(g, 0x10000);
    v->idtr.limit = 0;
    ck_assert(guest_run(g, 5));
    ck_assert(g->shut_down);
    guest_free(g);
}
END_TEST

START_TEST(triple_fault)
{
    struct guest *g = guest_new("interpret", 1);
    LOAD(g, 0x10000, 0x0f, 0x0b); // ud2 without an IDT
    guest_start_long(g, 0x10000);
    g->set->vcpu[0]->idtr.limit = 0;
    ck_assert(guest_run(g, 5));
    ck_assert(g->shut_down);
    guest_free(g);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu-basic");
    TCase *tc = tcase_create("programs");
    tcase_add_test(tc, real_mode_sum);
    tcase_add_test(tc, protected_mode_call);
    tcase_add_test(tc, long_mode_loop);
    tcase_add_test(tc, self_modifying);
    tcase_add_test(tc, device_memory);
    tcase_add_test(tc, string_override);
    tcase_add_loop_test(tc, pauses, 0, G_N_ELEMENTS(engine_names));
    tcase_add_loop_test(tc, scan_fault_flags, 0, 2 * G_N_ELEMENTS(engine_names));
    tcase_add_test(tc, apic_modes);
    tcase_add_test(tc, time_stamp_counter);
    tcase_add_test(tc, hidden_instruction);
    tcase_add_test(tc, triple_fault);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
