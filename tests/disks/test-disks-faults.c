// SPDX-License-Identifier: GPL-2.0-or-later
// Fault injection: the Nth read, write, sync, allocation, truncation or hole fails with EIO or ENOSPC. The error
// reaches the caller; once the fault is gone the disk goes on, nothing else was lost, and the image is clean but for
// leaks.
#include "disks/check.h"
#include "disks/create.h"
#include "disks/file.h"
#include "tests/disks/workload.h"

#include <check.h>
#include <errno.h>
#include <string.h>

static char *folder;

static void setup(void)
{
    folder = g_dir_make_tmp("cloche-faults-XXXXXX", NULL);
    ck_assert_ptr_nonnull(folder);
}

static void teardown(void)
{
    run_command(true, "rm -rf %s", folder);
    g_free(folder);
}

struct faults {
    struct file_hooks hooks;
    enum file_op op;
    int error;
    _Atomic int countdown; // fails at 0; below: at every further one while STUCK
    bool stuck;
    unsigned hits;
};

static int maybe_fail(struct file_hooks *hooks, enum file_op op, uint64_t offset, uint64_t length)
{
    struct faults *f = container_of(hooks, struct faults, hooks);
    if (op != f->op || !f->error)
        return 0;
    int left = --f->countdown;
    if (left > 0 || (left < 0 && !f->stuck))
        return 0;
    f->hits++;
    return -f->error;
}

static const struct format {
    const char *name;
    struct disk_create_options options;
    bool base;
} formats[] = {
    {"raw", {.format = "raw"}, false},
    {"qcow2", {.format = "qcow2", .cluster_size = 4096}, false},
    {"qcow2-512", {.format = "qcow2", .cluster_size = 512}, false},
    {"qcow2-base", {.format = "qcow2"}, true},
    {"qcow2-ext", {.format = "qcow2", .extended_l2 = true, .cluster_size = 16384}, true},
    {"vmdk", {.format = "vmdk"}, false},
    {"vdi", {.format = "vdi"}, false},
    {"vdi-fixed", {.format = "vdi", .preallocate = true}, false},
    {"vhd", {.format = "vhd"}, false},
    {"vhd-fixed", {.format = "vhd", .preallocate = true}, false},
};

static char *make_image(const struct format *f)
{
    GError *error = NULL;
    char *path = g_build_filename(folder, "image", NULL);
    g_autofree char *base = g_build_filename(folder, "base", NULL);
    struct disk_create_options options = f->options;
    options.size = 8 * MiB;
    options.force = true;
    if (f->base) {
        struct disk_create_options raw = {.format = "raw", .size = 7 * MiB, .force = true};
        ck_assert(disk_create(base, &raw, NULL));
        struct disk *disk = disk_open(base, "raw", 0, NULL);
        g_autofree void *data = g_malloc(MiB);
        memset(data, 0x5a, MiB);
        for (unsigned i = 0; i < 7; i += 2)
            ck_assert_int_eq(disk_write(disk, i * MiB, data, MiB), 0);
        disk_close(disk);
        options.backing = "base";
        options.backing_format = "raw";
    }
    ck_assert_msg(disk_create(path, &options, &error), "%s", error ? error->message : "");
    return path;
}

static void check_clean(const struct format *f, const char *path, const char *what)
{
    GError *error = NULL;
    struct disk_check_result result = {0};
    ck_assert_msg(disk_check(path, f->options.format, true, &result, NULL, &error), "%s", error ? error->message : "");
    ck_assert_msg(result.corruptions == 0, "%s %s: %s", f->name, what,
                  result.messages ? (char *)result.messages->pdata[0] : "");
    ck_assert_uint_eq(result.leaks, result.leaks_fixed);
    disk_check_clear(&result);
}

// The failed operation left its own range in an unknown state and nothing else: everything outside it is compared.
static void one_fault(const struct format *f, enum file_op op, int errno_code, int nth, bool stuck, bool resizing)
{
    struct faults faults = {.hooks.before = maybe_fail, .op = op, .countdown = nth, .stuck = stuck};
    g_autofree char *path = make_image(f), *mirror = g_build_filename(folder, "mirror", NULL);
    g_autofree char *what = g_strdup_printf("operation %d, error %d, number %d%s%s", op, errno_code, nth,
                                            stuck ? ", stuck" : "", resizing ? ", of a resize" : "");
    struct disk_options options = {.format = f->options.format, .hooks = &faults.hooks};
    struct disk *disk = disk_open_with(path, &options, NULL);
    ck_assert_ptr_nonnull(disk);
    struct workload w;
    workload_start(&w, disk, mirror, 8 * MiB, nth * 31 + op);
    if (resizing)
        workload_run(&w, 60);
    w.may_fail = true;
    faults.error = errno_code;
    for (unsigned i = 0; resizing && i < 3 && !w.failure; i++)
        workload_resize(&w);
    workload_run(&w, resizing ? 0 : 150);
    if (faults.hits)
        ck_assert_msg(!w.failure || w.failure == -errno_code || w.failure == -EIO, "%s %s: failed with %d", f->name,
                      what, w.failure);
    faults.error = 0; // there is space again
    w.failure = 0;
    w.may_fail = false;
    if (w.failed_length)
        ck_assert_int_eq(disk_read(disk, w.failed_offset, w.mirror + w.failed_offset, w.failed_length), 0);
    workload_compare(&w);
    ck_assert_int_eq(disk_flush(disk), 0);
    workload_run(&w, 100);
    workload_compare(&w);
    disk_close(disk);
    check_clean(f, path, what);
    disk = disk_open(path, f->options.format, 0, NULL);
    ck_assert_ptr_nonnull(disk);
    w.disk = disk;
    workload_compare(&w);
    workload_end(&w);
    disk_close(disk);
}

START_TEST(every_fault)
{
    static const enum file_op ops[] = {FILE_READ,     FILE_WRITE, FILE_SYNC,  FILE_ALLOCATE,
                                       FILE_TRUNCATE, FILE_PUNCH, FILE_EXTEND};
    static const int numbers[] = {1, 2, 3, 7, 20, 60};
    const struct format *f = &formats[_i];
    for (unsigned o = 0; o < G_N_ELEMENTS(ops) && !f->options.preallocate; o++)
        for (unsigned n = 0; n < G_N_ELEMENTS(numbers); n++) {
            one_fault(f, ops[o], EIO, numbers[n], false, false);
            one_fault(f, ops[o], ENOSPC, numbers[n], n % 2, false);
        }
}
END_TEST

START_TEST(every_fault_of_a_resize)
{
    static const enum file_op ops[] = {FILE_READ,     FILE_WRITE, FILE_SYNC,  FILE_ALLOCATE,
                                       FILE_TRUNCATE, FILE_PUNCH, FILE_EXTEND};
    const struct format *f = &formats[_i];
    for (unsigned o = 0; o < G_N_ELEMENTS(ops); o++)
        for (unsigned n = 1; n < 20; n += 1 + n / 6)
            one_fault(f, ops[o], n % 2 ? ENOSPC : EIO, n, n % 4 == 1, true);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("disks-faults");
    TCase *c = tcase_create("faults");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, every_fault, 0, G_N_ELEMENTS(formats));
    tcase_add_loop_test(c, every_fault_of_a_resize, 0, G_N_ELEMENTS(formats));
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    return run_suite(suite());
}
