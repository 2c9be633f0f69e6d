// SPDX-License-Identifier: GPL-2.0-or-later
// Chains of overlays: what they show stays the same through commit, merge, rebase and flatten, zeroes over data of a
// base stay zeroes, and a base that is missing, swapped, changed or its own base is explained.
#include "disks/check.h"
#include "disks/tools.h"
#include "tests/disks/workload.h"

#include <check.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *folder, *base, *middle, *top, *mirror;

static void setup(void)
{
    folder = g_dir_make_tmp("cloche-chains-XXXXXX", NULL);
    ck_assert_ptr_nonnull(folder);
    base = g_build_filename(folder, "base", NULL);
    middle = g_build_filename(folder, "middle", NULL);
    top = g_build_filename(folder, "top", NULL);
    mirror = g_build_filename(folder, "mirror", NULL);
}

static void teardown(void)
{
    run_command(true, "rm -rf %s", folder);
    g_free(folder);
    g_free(base);
    g_free(middle);
    g_free(top);
    g_free(mirror);
}

static void work_on(const char *path, const char *format, unsigned seed)
{
    struct workload w;
    GError *error = NULL;
    struct disk *disk = disk_open(path, format, 0, &error);
    ck_assert_msg(disk, "%s", error ? error->message : "");
    workload_start(&w, disk, mirror, disk_size(disk), seed);
    workload_run(&w, 300);
    workload_end(&w);
    disk_close(disk);
}

static void make_overlay(const char *path, const char *on, unsigned cluster)
{
    GError *error = NULL;
    struct disk_create_options options = {.backing = on, .cluster_size = cluster};
    ck_assert_msg(disk_create(path, &options, &error), "%s", error ? error->message : "");
}

// base <- middle <- top, each with its own data; MIRROR holds what TOP shows.
static void make_chain(const char *format)
{
    struct disk_create_options options = {.format = format, .size = 16 * MiB};
    ck_assert(disk_create(base, &options, NULL));
    work_on(base, format, 1);
    make_overlay(middle, "base", 4096);
    work_on(middle, NULL, 2);
    make_overlay(top, "middle", 0);
    work_on(top, NULL, 3);
}

static void shows_mirror(const char *path)
{
    bool same = false;
    uint64_t where = 0;
    GError *error = NULL;
    ck_assert_msg(disk_compare(path, NULL, mirror, "raw", &same, &where, NULL, &error), "%s",
                  error ? error->message : "");
    ck_assert_msg(same, "%s differs at %" G_GUINT64_FORMAT, path, where);
}

static const char *const formats[] = {"raw", "qcow2", "vdi", "vhd", "vmdk"};

START_TEST(commit_and_merge)
{
    GError *error = NULL;
    make_chain(formats[_i]);
    ck_assert_msg(disk_merge_down(middle, top, NULL, &error), "%s", error ? error->message : "");
    ck_assert(!g_file_test(middle, G_FILE_TEST_EXISTS));
    shows_mirror(top);
    ck_assert_msg(disk_commit(top, false, NULL, &error), "%s", error ? error->message : "");
    shows_mirror(top);
    ck_assert_int_eq(run_command(true, "qemu-img check -f qcow2 %s", top), 0);
    bool same;
    uint64_t where;
    ck_assert(disk_compare(base, formats[_i], mirror, "raw", &same, &where, NULL, NULL));
    ck_assert(same);
}
END_TEST

START_TEST(rebase_and_flatten)
{
    GError *error = NULL;
    make_chain(formats[_i]);
    ck_assert_msg(disk_rebase(top, "base", formats[_i], false, NULL, &error), "%s", error ? error->message : "");
    shows_mirror(top);
    struct job *job = disk_job_flatten(top);
    ck_assert_msg(job_wait(job, &error), "%s", error ? error->message : "");
    job_free(job);
    g_unlink(base);
    g_unlink(middle);
    shows_mirror(top);
    ck_assert_int_eq(run_command(true, "qemu-img compare -f qcow2 -F raw %s %s", top, mirror), 0);
}
END_TEST

// A cancelled job leaves the chain as it was, and can be started again.
START_TEST(cancel)
{
    GError *error = NULL;
    make_chain("raw");
    struct job *job = disk_job_flatten(top);
    job_cancel(job);
    job_wait(job, &error);
    g_clear_error(&error);
    job_free(job);
    shows_mirror(top);
    job = disk_job_commit(top, false);
    job_cancel(job);
    job_wait(job, &error);
    g_clear_error(&error);
    job_free(job);
    shows_mirror(top);
    ck_assert_msg(disk_rebase(top, NULL, NULL, false, NULL, &error), "%s", error ? error->message : "");
    shows_mirror(top);
}
END_TEST

START_TEST(zeroes_stay_zeroes)
{
    static uint8_t data[MiB], zero[MiB], now[MiB];
    struct disk_create_options options = {.format = "raw", .size = 4 * MiB};
    ck_assert(disk_create(base, &options, NULL));
    struct disk *disk = disk_open(base, "raw", 0, NULL);
    memset(data, 9, sizeof data);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_int_eq(disk_write(disk, i * MiB, data, MiB), 0);
    disk_close(disk);
    make_overlay(middle, "base", 0);
    disk = disk_open(middle, NULL, 0, NULL);
    ck_assert_int_eq(disk_write_zeroes(disk, 0, MiB, DISK_MAY_UNMAP), 0);
    ck_assert_int_eq(disk_write_zeroes(disk, MiB + 512, MiB - 1024, 0), 0);
    ck_assert_int_eq(disk_write(disk, 2 * MiB, zero, MiB), 0);
    disk_close(disk);
    for (unsigned step = 0; step < 4; step++) {
        if (step == 1) {
            make_overlay(top, "middle", 0);
            ck_assert(disk_rebase(top, "base", "raw", false, NULL, NULL));
        } else if (step == 2)
            ck_assert(disk_commit(middle, true, NULL, NULL));
        disk = disk_open(step == 1   ? top
                         : step == 3 ? base
                                     : middle,
                         step == 3 ? "raw" : NULL, DISK_OPEN_READ_ONLY, NULL);
        ck_assert_ptr_nonnull(disk);
        ck_assert_int_eq(disk_read(disk, 0, now, MiB), 0);
        ck_assert_int_eq(memcmp(now, zero, MiB), 0);
        ck_assert_int_eq(disk_read(disk, MiB + 512, now, MiB - 1024), 0);
        ck_assert_int_eq(memcmp(now, zero, MiB - 1024), 0);
        ck_assert_int_eq(disk_read(disk, 2 * MiB, now, MiB), 0);
        ck_assert_int_eq(memcmp(now, zero, MiB), 0);
        ck_assert_int_eq(disk_read(disk, 3 * MiB, now, MiB), 0);
        ck_assert_int_eq(memcmp(now, data, MiB), 0);
        disk_close(disk);
    }
}
END_TEST

static void refused(const char *path, const char *words)
{
    GError *error = NULL;
    ck_assert_ptr_null(disk_open(path, NULL, DISK_OPEN_READ_ONLY, &error));
    ck_assert_msg(strstr(error->message, words) != NULL, "%s", error->message);
    g_error_free(error);
}

START_TEST(broken_chains)
{
    make_chain("raw");
    g_usleep(20000); // file times have a grain
    ck_assert_int_eq(run_command(true, "cp %s %s.copy", base, base), 0);
    ck_assert_int_eq(run_command(true, "qemu-io -f raw -c 'write -P 99 5M 64k' %s", base), 0);
    refused(top, "other contents");
    ck_assert(disk_rebase(middle, "base", "raw", true, NULL, NULL)); // accepted as it is
    struct disk *disk = disk_open(top, NULL, DISK_OPEN_READ_ONLY, NULL);
    ck_assert_ptr_nonnull(disk);
    disk_close(disk);
    ck_assert_int_eq(run_command(true, "qemu-img resize -q -f raw %s +1M", base), 0);
    refused(top, "has a size of");
    g_unlink(base);
    refused(top, "is missing");
    ck_assert_int_eq(run_command(true, "qemu-img rebase -q -u -f qcow2 -b top -F qcow2 %s", middle), 0);
    refused(top, "its own base");
}
END_TEST

// ---- Interrupted at any moment ----
static struct job *start_commit(void)
{
    return disk_job_commit(top, false);
}

static struct job *start_merge(void)
{
    return disk_job_merge_down(middle, top);
}

static struct job *start_rebase(void)
{
    return disk_job_rebase(top, "base", "raw", false);
}

static struct job *start_flatten(void)
{
    return disk_job_flatten(top);
}

static struct job *start_compact(void)
{
    return disk_job_compact(top, NULL);
}

static const struct {
    const char *name;
    struct job *(*start)(void);
} works[] = {{"commit", start_commit},
             {"merge", start_merge},
             {"rebase", start_rebase},
             {"flatten", start_flatten},
             {"compact", start_compact}};

static void check_layers(const char *when)
{
    const char *const layers[] = {middle, top};
    for (unsigned i = 0; i < G_N_ELEMENTS(layers); i++) {
        struct disk_check_result result = {0};
        if (!g_file_test(layers[i], G_FILE_TEST_EXISTS))
            continue;
        ck_assert(disk_check(layers[i], NULL, false, &result, NULL, NULL));
        ck_assert_msg(result.corruptions == 0, "%s: %s", when, (char *)result.messages->pdata[0]);
        disk_check_clear(&result);
    }
}

// A process that does the work in part: killed, or told to cancel.
static void interrupt(unsigned work, bool kill_it, unsigned microseconds)
{
    pid_t child = fork();
    if (child == 0) {
        struct job *job = works[work].start();
        if (!kill_it) {
            g_usleep(microseconds);
            job_cancel(job);
        }
        job_wait(job, NULL);
        job_free(job);
        _exit(0);
    }
    if (kill_it) {
        g_usleep(microseconds);
        kill(child, SIGKILL);
    }
    int status;
    waitpid(child, &status, 0);
    ck_assert(kill_it || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

START_TEST(interrupted)
{
    const char *wanted = getenv("CLOCHE_DISK_KILLS");
    unsigned count = wanted ? atoi(wanted) : 12, work = _i;
    GRand *random = g_rand_new_with_seed(40 + _i);
    make_chain("raw");
    ck_assert_int_eq(
        run_command(true, "sh -c 'mkdir %s/kept && cp -p %s %s %s %s/kept'", folder, base, middle, top, folder), 0);
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *when = g_strdup_printf("%s %s, round %u", works[work].name, i % 2 ? "killed" : "cancelled", i);
        ck_assert_int_eq(run_command(true, "sh -c 'cp -p %s/kept/* %s/'", folder, folder), 0);
        unsigned times = 1 + g_rand_int(random) % 2; // and perhaps its repetition too
        for (unsigned j = 0; j < times; j++)
            if (work != 1 || g_file_test(middle, G_FILE_TEST_EXISTS))
                interrupt(work, i % 2, g_rand_int(random) % 30000);
        check_layers(when);
        shows_mirror(top);
        GError *error = NULL;
        struct job *job = work != 1 || g_file_test(middle, G_FILE_TEST_EXISTS) ? works[work].start() : NULL;
        ck_assert_msg(!job || job_wait(job, &error), "%s: %s", when, error ? error->message : "");
        g_clear_error(&error);
        job_free(job);
        check_layers(when);
        shows_mirror(top);
    }
    g_rand_free(random);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("disks-chains");
    TCase *c = tcase_create("chains");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, commit_and_merge, 0, G_N_ELEMENTS(formats));
    tcase_add_loop_test(c, rebase_and_flatten, 0, G_N_ELEMENTS(formats));
    tcase_add_test(c, cancel);
    tcase_add_test(c, zeroes_stay_zeroes);
    tcase_add_test(c, broken_chains);
    tcase_add_loop_test(c, interrupted, 0, G_N_ELEMENTS(works));
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(suite());
}
