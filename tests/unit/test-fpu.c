// SPDX-License-Identifier: GPL-2.0-or-later
// What user code cannot show: the gates of x87, MMX, SSE and AVX in control registers, and how their exceptions arrive.
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/guest.h"

enum { CODE = 0x10000, HANDLERS = 0x20000, IDT = 0x30000, NONE = 0x100 };

// Every vector's handler writes its number to the exit port.
static void build_handlers(struct guest *g)
{
    for (unsigned k = 0; k < 32; k++) {
        uint8_t handler[] = {0xb8, (uint8_t)k, 0, 0, 0, 0xe7, 0xf4, 0xf4}; // mov eax, k; out 0xf4, eax; hlt
        uint64_t address = HANDLERS + 16 * k;
        uint64_t gate[2] = {(address & 0xffff) | 0x08 << 16 | 0x8e00ull << 32 | (address >> 16 & 0xffff) << 48, 0};
        guest_load(g, address, handler, sizeof(handler));
        guest_load(g, IDT + 16 * k, gate, sizeof(gate));
    }
    g->set->vcpu[0]->idtr = (struct table_register){.base = IDT, .limit = 32 * 16 - 1};
}

static struct guest *start(const uint8_t *code, unsigned size)
{
    static const uint8_t end[] = {0xb8, 0, 1, 0, 0, 0xe7, 0xf4, 0xf4}; // exit code NONE
    struct guest *g = guest_new("interpret", 1);
    guest_load(g, CODE, code, size);
    guest_load(g, CODE + size, end, sizeof(end));
    guest_start_long(g, CODE);
    build_handlers(g);
    struct vcpu *v = g->set->vcpu[0];
    v->cr0 |= CR0_NE;
    v->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    v->xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    v->gpr[RSP] = 0x80000;
    v->xsave.fcw = 0x37f;
    v->xsave.ftw = 0;
    return g;
}

static const struct gate {
    const char *name;
    uint8_t code[6];
    unsigned size;
    uint64_t cr0;  // set
    uint64_t cr4;  // cleared
    uint64_t xcr0; // cleared
    unsigned expected;
} gates[] = {
    {"fld1", {0xd9, 0xe8}, 2, 0, 0, 0, NONE},
    {"fld1, TS", {0xd9, 0xe8}, 2, CR0_TS, 0, 0, EXCEPTION_NM},
    {"fld1, EM", {0xd9, 0xe8}, 2, CR0_EM, 0, 0, EXCEPTION_NM},
    {"fwait, TS", {0x9b}, 1, CR0_TS, 0, 0, NONE},
    {"fwait, TS and MP", {0x9b}, 1, CR0_TS | CR0_MP, 0, 0, EXCEPTION_NM},
    {"paddb mm", {0x0f, 0xfc, 0xc1}, 3, 0, CR4_OSFXSR, 0, NONE},
    {"paddb mm, TS", {0x0f, 0xfc, 0xc1}, 3, CR0_TS, 0, 0, EXCEPTION_NM},
    {"paddb mm, EM", {0x0f, 0xfc, 0xc1}, 3, CR0_EM, 0, 0, EXCEPTION_UD},
    {"paddb xmm", {0x66, 0x0f, 0xfc, 0xc1}, 4, 0, 0, 0, NONE},
    {"paddb xmm, no OSFXSR", {0x66, 0x0f, 0xfc, 0xc1}, 4, 0, CR4_OSFXSR, 0, EXCEPTION_UD},
    {"addps, TS", {0x0f, 0x58, 0xc1}, 3, CR0_TS, 0, 0, EXCEPTION_NM},
    {"addps, EM", {0x0f, 0x58, 0xc1}, 3, CR0_EM, 0, 0, EXCEPTION_UD},
    {"vaddps", {0xc5, 0xf0, 0x58, 0xc2}, 4, CR0_EM, CR4_OSFXSR, 0, NONE},
    {"vaddps, TS", {0xc5, 0xf0, 0x58, 0xc2}, 4, CR0_TS, 0, 0, EXCEPTION_NM},
    {"vaddps, no OSXSAVE", {0xc5, 0xf0, 0x58, 0xc2}, 4, 0, CR4_OSXSAVE, 0, EXCEPTION_UD},
    {"vaddps, XCR0", {0xc5, 0xf0, 0x58, 0xc2}, 4, 0, 0, XCR0_AVX, EXCEPTION_UD},
    {"xsave, no OSXSAVE", {0x0f, 0xae, 0x24, 0x24}, 4, 0, CR4_OSXSAVE, 0, EXCEPTION_UD},
    {"crc32", {0xf2, 0x0f, 0x38, 0xf0, 0xc1}, 5, CR0_TS | CR0_EM, CR4_OSFXSR, 0, NONE},
};

START_TEST(control_register_gates)
{
    for (unsigned k = 0; k < G_N_ELEMENTS(gates); k++) {
        const struct gate *t = &gates[k];
        struct guest *g = start(t->code, t->size);
        struct vcpu *v = g->set->vcpu[0];
        v->cr0 |= t->cr0;
        v->cr4 &= ~t->cr4;
        v->xcr0 &= ~t->xcr0;
        ck_assert(guest_run(g, 5));
        ck_assert_msg(!g->shut_down && g->exit_code == t->expected, "%s: %u, expected %u", t->name, g->exit_code,
                      t->expected);
        guest_free(g);
    }
}
END_TEST

// fldz; fld1; fdivrp: 1/0 with the divide exception unmasked; then a waiting instruction.
static const uint8_t divide[] = {0xd9, 0xee, 0xd9, 0xe8, 0xde, 0xf1, 0x9b};

START_TEST(x87_exception)
{
    struct guest *g = start(divide, sizeof(divide));
    g->set->vcpu[0]->xsave.fcw = 0x37b;
    ck_assert(guest_run(g, 5));
    ck_assert_uint_eq(g->exit_code, EXCEPTION_MF);
    guest_free(g);
}
END_TEST

static unsigned line_changes;
static bool line_level;

static void on_error_line(void *opaque, bool level)
{
    line_changes++;
    line_level = level;
}

// Without CR0.NE the FERR line goes up at the waiting instruction, and down when the exception is cleared.
START_TEST(x87_error_line)
{
    uint8_t code[sizeof(divide) + 2];
    memcpy(code, divide, sizeof(divide));
    memcpy(code + sizeof(divide), "\xdb\xe2", 2); // fnclex
    struct guest *g = start(code, sizeof(divide));
    g->set->host.fpu_error = on_error_line;
    g->set->vcpu[0]->cr0 &= ~(uint64_t)CR0_NE;
    g->set->vcpu[0]->xsave.fcw = 0x37b;
    line_changes = 0;
    ck_assert(guest_run(g, 5));
    ck_assert_uint_eq(g->exit_code, NONE);
    ck_assert(line_changes == 1 && line_level);
    guest_free(g);

    g = start(code, sizeof(code));
    g->set->host.fpu_error = on_error_line;
    g->set->vcpu[0]->cr0 &= ~(uint64_t)CR0_NE;
    g->set->vcpu[0]->xsave.fcw = 0x37b;
    line_changes = 0;
    ck_assert(guest_run(g, 5));
    ck_assert(line_changes == 2 && !line_level);
    guest_free(g);
}
END_TEST

START_TEST(simd_exception)
{
    static const uint8_t code[] = {0xf3, 0x0f, 0x5e, 0xc1}; // divss xmm0, xmm1
    for (unsigned enabled = 0; enabled < 2; enabled++) {
        struct guest *g = start(code, sizeof(code));
        struct vcpu *v = g->set->vcpu[0];
        v->xsave.mxcsr = 0x1d80; // divide by zero unmasked
        v->xsave.xmm[0].f32[0] = 1;
        if (!enabled)
            v->cr4 &= ~(uint64_t)CR4_OSXMMEXCPT;
        ck_assert(guest_run(g, 5));
        ck_assert_uint_eq(g->exit_code, enabled ? EXCEPTION_XM : EXCEPTION_UD);
        ck_assert_uint_eq(v->xsave.mxcsr, 0x1d84);
        ck_assert(v->xsave.xmm[0].f32[0] == 1);
        guest_free(g);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fpu");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, control_register_gates);
    tcase_add_test(tc, x87_exception);
    tcase_add_test(tc, x87_error_line);
    tcase_add_test(tc, simd_exception);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
