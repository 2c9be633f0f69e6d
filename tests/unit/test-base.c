// SPDX-License-Identifier: GPL-2.0-or-later
// core/base: little-endian access, the clock and its timers.
#include "core/base/clock.h"

#include <check.h>
#include <stdlib.h>

START_TEST(little_endian_at_any_size)
{
    uint8_t bytes[9] = {0};
    for (unsigned size = 1; size <= 8; size *= 2) {
        store_le(bytes + 1, size, 0x8877665544332211ull);
        ck_assert_uint_eq(bytes[1], 0x11);
        ck_assert_uint_eq(load_le(bytes + 1, size), 0x8877665544332211ull & (~0ull >> (64 - 8 * size)));
    }
}
END_TEST

struct log {
    struct clock *clock;
    int64_t at[8];
    unsigned count;
    struct timer timer;
};

static void note(void *opaque)
{
    struct log *log = opaque;
    log->at[log->count++] = clock_now(log->clock);
    if (log->count < 3)
        timer_arm(&log->timer, clock_now(log->clock) + 10);
}

START_TEST(manual_clock_runs_timers_in_order)
{
    struct log log = {.clock = clock_new_manual()};
    timer_init(&log.timer, log.clock, note, &log);
    timer_arm(&log.timer, 100);
    clock_advance(log.clock, 99);
    ck_assert_uint_eq(log.count, 0);
    clock_advance(log.clock, 100);
    ck_assert_uint_eq(log.count, 3);
    ck_assert_int_eq(log.at[0], 100);
    ck_assert_int_eq(log.at[2], 120);
    ck_assert(!timer_armed(&log.timer));
    ck_assert_int_eq(clock_now(log.clock), 199);
    clock_free(log.clock);
}
END_TEST

static void count_up(void *opaque)
{
    atomic_fetch_add((_Atomic int *)opaque, 1);
}

START_TEST(host_clock_stands_still_while_stopped)
{
    GRecMutex lock;
    g_rec_mutex_init(&lock);
    struct clock *clock = clock_new(&lock);
    _Atomic int calls = 0;
    struct timer timer;
    timer_init(&timer, clock, count_up, &calls);
    timer_arm(&timer, 2000000);
    ck_assert_int_eq(clock_now(clock), 0);
    g_usleep(5000);
    ck_assert_int_eq(clock_now(clock), 0);
    ck_assert_int_eq(calls, 0);
    clock_start(clock);
    for (int i = 0; i < 1000 && !calls; i++)
        g_usleep(1000);
    ck_assert_int_eq(calls, 1);
    clock_stop(clock);
    int64_t at = clock_now(clock);
    ck_assert_int_ge(at, 2000000);
    g_usleep(2000);
    ck_assert_int_eq(clock_now(clock), at);
    timer_destroy(&timer);
    clock_free(clock);
    g_rec_mutex_clear(&lock);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("base");
    TCase *tests = tcase_create("base");
    tcase_add_test(tests, little_endian_at_any_size);
    tcase_add_test(tests, manual_clock_runs_timers_in_order);
    tcase_add_test(tests, host_clock_stands_still_while_stopped);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
