// SPDX-License-Identifier: GPL-2.0-or-later
// Soft floating point against the host's IEEE arithmetic (any host has that much) and against known x86 results.
#include "core/cpu/softfloat/softfloat.h"

#include <check.h>
#include <fenv.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 88172645463325252ull;

static uint64_t next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

// Doubles that meet: zeros, denormals, infinities, near one, anything but NaN.
static uint64_t operand(void)
{
    uint64_t x = next();
    switch (next() % 6) {
    case 0:
        return x & 0x800fffffffffffffull;
    case 1:
        return x & 0xfff0000000000000ull;
    case 2:
    case 3:
        return (x & 0x800fffffffffffffull) | (1023 + next() % 80 - 40) << 52;
    default:
        return x;
    }
}

static bool nan64(uint64_t x)
{
    return (x << 1) > 0xffe0000000000000ull;
}

static double as_double(uint64_t x)
{
    double d;
    memcpy(&d, &x, 8);
    return d;
}

static unsigned host_flags(void)
{
    int raised = fetestexcept(FE_ALL_EXCEPT);
    return (raised & FE_INVALID ? FLOAT_INVALID : 0) | (raised & FE_DIVBYZERO ? FLOAT_DIVIDE : 0) |
           (raised & FE_OVERFLOW ? FLOAT_OVERFLOW : 0) | (raised & FE_INEXACT ? FLOAT_INEXACT : 0);
}

// Underflow is left out: hosts differ in whether they detect tininess before or after rounding.
START_TEST(agrees_with_the_host)
{
    static const int directions[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    for (unsigned n = 0; n < 300000; n++) {
        uint64_t a = operand(), b = operand(), c = operand(), got, expected;
        if (nan64(a) || nan64(b) || nan64(c))
            continue;
        struct float_env env = {.rounding = next() & 3, .masks = FLOAT_ALL, .precision = 64};
        volatile double x = as_double(a), y = as_double(b), z = as_double(c), r;
        fesetround(directions[env.rounding]);
        feclearexcept(FE_ALL_EXCEPT);
        switch (n % 5) {
        case 0:
            r = x + y;
            break;
        case 1:
            r = x * y;
            break;
        case 2:
            r = x / y;
            break;
        case 3:
            r = sqrt(x);
            break;
        default:
            r = fma(x, y, z);
        }
        unsigned flags = host_flags();
        fesetround(FE_TONEAREST);
        memcpy(&expected, (const void *)&r, 8);
        got = n % 5 == 0   ? f64_add(&env, a, b)
              : n % 5 == 1 ? f64_mul(&env, a, b)
              : n % 5 == 2 ? f64_div(&env, a, b)
              : n % 5 == 3 ? f64_sqrt(&env, a)
                           : f64_fma(&env, a, b, c, 0);
        if (nan64(expected))
            ck_assert(nan64(got));
        else
            ck_assert_msg(got == expected, "operation %u rounding %u on %lx %lx %lx: %lx, host %lx", n % 5,
                          env.rounding, (long)a, (long)b, (long)c, (long)got, (long)expected);
        ck_assert_uint_eq(env.flags & ~(FLOAT_DENORMAL | FLOAT_UNDERFLOW), flags);
    }
}
END_TEST

START_TEST(quick_path_is_the_same)
{
    for (unsigned n = 0; n < 200000; n++) {
        uint64_t a = operand(), b = operand();
        struct float_env slow = {.masks = FLOAT_ALL}, quick = {.masks = FLOAT_ALL, .quick = true};
        ck_assert_uint_eq(f64_add(&slow, a, b), f64_add(&quick, a, b));
        ck_assert_uint_eq(f64_mul(&slow, a, b), f64_mul(&quick, a, b));
        ck_assert_uint_eq(f64_div(&slow, a, b), f64_div(&quick, a, b));
        ck_assert_uint_eq(f64_sqrt(&slow, a), f64_sqrt(&quick, a));
        ck_assert_uint_eq(f32_mul(&slow, (uint32_t)a, (uint32_t)b), f32_mul(&quick, (uint32_t)a, (uint32_t)b));
        ck_assert_uint_eq(f32_div(&slow, (uint32_t)a, (uint32_t)b), f32_div(&quick, (uint32_t)a, (uint32_t)b));
        ck_assert_uint_eq((slow.flags ^ quick.flags) & ~FLOAT_INEXACT, 0);
    }
}
END_TEST

// SDM vol. 1, table 4-7.
START_TEST(nan_selection)
{
    struct float_env sse = {.masks = FLOAT_ALL}, x87 = {.masks = FLOAT_ALL, .precision = 64, .x87 = true};
    ck_assert_uint_eq(f32_add(&sse, 0x7fc00001, 0x7fc00002), 0x7fc00001);
    ck_assert_uint_eq(sse.flags, 0);
    ck_assert_uint_eq(f32_add(&sse, 0x7f800001, 0x7fc00002), 0x7fc00001);
    ck_assert_uint_eq(sse.flags, FLOAT_INVALID);
    struct float80 small = {0xc000000000000001, 0x7fff}, large = {0xc000000000000002, 0x7fff};
    struct float80 signaling = {0x8000000000000003, 0x7fff};
    ck_assert_uint_eq(f80_add(&x87, small, large).significand, large.significand);
    ck_assert_uint_eq(f80_add(&x87, large, signaling).significand, large.significand);
    ck_assert_uint_eq(x87.flags, FLOAT_INVALID);
}
END_TEST

START_TEST(denormals_and_flushing)
{
    struct float_env env = {.masks = FLOAT_ALL};
    ck_assert_uint_eq(f32_add(&env, 1, 1), 2);
    ck_assert_uint_eq(env.flags, FLOAT_DENORMAL);
    env = (struct float_env){.masks = FLOAT_ALL, .daz = true};
    ck_assert_uint_eq(f32_add(&env, 0x80000001, 0x80000001), 0x80000000);
    ck_assert_uint_eq(env.flags, 0);
    env = (struct float_env){.masks = FLOAT_ALL, .ftz = true};
    ck_assert_uint_eq(f32_mul(&env, 0x00800000, 0x3f000000), 0);
    ck_assert_uint_eq(env.flags, FLOAT_UNDERFLOW | FLOAT_INEXACT);
}
END_TEST

START_TEST(extended_precision)
{
    struct float80 one = int_to_f80(1), three = int_to_f80(3);
    struct float_env env = {.masks = FLOAT_ALL, .precision = 64, .x87 = true};
    ck_assert_uint_eq(f80_div(&env, one, three).significand, 0xaaaaaaaaaaaaaaab);
    env.precision = 53;
    ck_assert_uint_eq(f80_div(&env, one, three).significand, 0xaaaaaaaaaaaaa800);
    env.precision = 24;
    ck_assert_uint_eq(f80_div(&env, one, three).significand, 0xaaaaab0000000000);
    ck_assert(env.rounded_up);
    unsigned quotient;
    bool partial;
    struct float80 r = f80_remainder(&env, int_to_f80(29), int_to_f80(5), false, &quotient, &partial);
    ck_assert(!partial && quotient == 5);
    ck_assert_int_eq(f80_to_int(&env, r, 64, true), 4);
    r = f80_remainder(&env, int_to_f80(29), int_to_f80(5), true, &quotient, &partial);
    ck_assert_int_eq(f80_to_int(&env, r, 64, true), -1);
}
END_TEST

START_TEST(transcendentals)
{
    struct float_env env = {.masks = FLOAT_ALL, .precision = 64, .x87 = true};
    struct float80 one = int_to_f80(1), half = {0x8000000000000000, 0x3ffe}, sine, cosine, tangent;
    ck_assert_uint_eq(f80_atan(&env, one, one).significand, 0xc90fdaa22168c235); // pi/4
    ck_assert_uint_eq(f80_y_log2(&env, one, int_to_f80(10)).significand, 0xd49a784bcd1b8afe);
    ck_assert_uint_eq(f80_exp2m1(&env, half).significand, 0xd413cccfe7799211); // sqrt(2) - 1
    ck_assert(f80_sincos(&env, one, &sine, &cosine));
    ck_assert_uint_eq(sine.significand, 0xd76aa47848677021);
    ck_assert_uint_eq(cosine.significand, 0x8a51407da8345c92);
    ck_assert(f80_tan(&env, one, &tangent));
    ck_assert_uint_eq(tangent.significand, 0xc75922e5f71d2dc5);
    ck_assert(!f80_tan(&env, (struct float80){0x8000000000000000, 0x3fff + 63}, &tangent));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("softfloat");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, agrees_with_the_host);
    tcase_add_test(tc, quick_path_is_the_same);
    tcase_add_test(tc, nan_selection);
    tcase_add_test(tc, denormals_and_flushing);
    tcase_add_test(tc, extended_precision);
    tcase_add_test(tc, transcendentals);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
