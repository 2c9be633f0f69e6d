// SPDX-License-Identifier: GPL-2.0-or-later
// Interoperation with qemu-img in both directions: ten thousand random operations on each writable format, mirrored
// into a plain file; and every option with which qemu-img makes images, read.
#include "disks/check.h"
#include "disks/create.h"
#include "tests/disks/workload.h"

#include <check.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *folder;

static void setup(void)
{
    folder = g_dir_make_tmp("cloche-interop-XXXXXX", NULL);
    ck_assert_ptr_nonnull(folder);
}

static void teardown(void)
{
    run_command(true, "rm -rf %s", folder);
    g_free(folder);
}

static char *path_of(const char *name)
{
    return g_build_filename(folder, name, NULL);
}

// How an image is made: by us, or by qemu-img with MAKE (after "create -q"; %s is the folder).
struct variant {
    const char *name, *format, *qemu_format;
    struct disk_create_options ours;
    const char *qemu;
    bool resizes, no_check, base;
};

#define ROOM (48 * MiB)

static const struct variant variants[] = {
    {.name = "raw", .format = "raw", .ours = {.format = "raw"}, .resizes = true, .no_check = true},
    {.name = "qcow2", .format = "qcow2", .ours = {.format = "qcow2"}, .resizes = true},
    {.name = "qcow2-v2", .format = "qcow2", .ours = {.format = "qcow2", .version = 2}, .resizes = true},
    {.name = "qcow2-512", .format = "qcow2", .ours = {.format = "qcow2", .cluster_size = 512}, .resizes = true},
    {.name = "qcow2-4k-rc64",
     .format = "qcow2",
     .ours = {.format = "qcow2", .cluster_size = 4096, .refcount_bits = 64}},
    {.name = "qcow2-2m", .format = "qcow2", .ours = {.format = "qcow2", .cluster_size = 2 * MiB}, .resizes = true},
    {.name = "qcow2-rc1", .format = "qcow2", .ours = {.format = "qcow2", .refcount_bits = 1, .cluster_size = 1024}},
    {.name = "qcow2-ext", .format = "qcow2", .ours = {.format = "qcow2", .extended_l2 = true}, .resizes = true},
    {.name = "qcow2-ext-base",
     .format = "qcow2",
     .base = true,
     .ours = {.format = "qcow2", .extended_l2 = true, .cluster_size = 16384},
     .resizes = true},
    {.name = "qcow2-base", .format = "qcow2", .base = true, .ours = {.format = "qcow2"}, .resizes = true},
    {.name = "qcow2-v2-base",
     .format = "qcow2",
     .base = true,
     .ours = {.format = "qcow2", .version = 2},
     .resizes = true},
    {.name = "qemu-lazy", .format = "qcow2", .qemu = "-f qcow2 -o lazy_refcounts=on,cluster_size=8k"},
    {.name = "qemu-prealloc", .format = "qcow2", .qemu = "-f qcow2 -o preallocation=metadata"},
    {.name = "qemu-ext", .format = "qcow2", .qemu = "-f qcow2 -o extended_l2=on,preallocation=metadata"},
    {.name = "vdi", .format = "vdi", .ours = {.format = "vdi"}},
    {.name = "vdi-fixed", .format = "vdi", .ours = {.format = "vdi", .preallocate = true}},
    {.name = "qemu-vdi", .format = "vdi", .qemu = "-f vdi"},
    {.name = "vhd", .format = "vhd", .qemu_format = "vpc", .no_check = true, .ours = {.format = "vhd"}},
    {.name = "vhd-fixed",
     .format = "vhd",
     .qemu_format = "vpc",
     .no_check = true,
     .ours = {.format = "vhd", .preallocate = true}},
    {.name = "qemu-vhd", .format = "vhd", .qemu_format = "vpc", .no_check = true, .qemu = "-f vpc"},
    {.name = "vmdk", .format = "vmdk", .ours = {.format = "vmdk"}},
    {.name = "vmdk-flat", .format = "vmdk", .ours = {.format = "vmdk", .preallocate = true}, .no_check = true},
    {.name = "qemu-vmdk", .format = "vmdk", .qemu = "-f vmdk -o zeroed_grain=on"},
};

static void make_base(const char *path)
{
    struct workload w;
    ck_assert_int_eq(run_command(true, "qemu-img create -q -f qcow2 %s %u", path, (unsigned)(40 * MiB)), 0);
    g_autofree char *mirror = path_of("base-mirror");
    struct disk *disk = disk_open(path, "qcow2", 0, NULL);
    workload_start(&w, disk, mirror, 40 * MiB, 99);
    workload_run(&w, 600);
    workload_end(&w);
    disk_close(disk);
}

static void make_image(const struct variant *v, const char *path)
{
    GError *error = NULL;
    if (v->qemu) {
        ck_assert_int_eq(run_command(true, "qemu-img create -q %s %s %u", v->qemu, path, (unsigned)(32 * MiB)), 0);
        return;
    }
    struct disk_create_options options = v->ours;
    options.size = 32 * MiB;
    if (v->base) {
        g_autofree char *base = path_of("base.qcow2");
        make_base(base);
        options.backing = "base.qcow2";
        options.backing_format = "qcow2";
    }
    ck_assert_msg(disk_create(path, &options, &error), "%s", error ? error->message : "");
}

static void check_clean(const struct variant *v, const char *path)
{
    const char *format = v->qemu_format ? v->qemu_format : v->format;
    GError *error = NULL;
    struct disk_check_result result = {0};
    ck_assert_msg(disk_check(path, v->format, false, &result, NULL, &error), "%s", error ? error->message : "");
    ck_assert_msg(result.corruptions == 0 && result.leaks == 0, "%s: %u corruptions, %u leaks: %s", v->name,
                  (unsigned)result.corruptions, (unsigned)result.leaks, (char *)result.messages->pdata[0]);
    disk_check_clear(&result);
    if (!v->no_check)
        ck_assert_int_eq(run_command(true, "qemu-img check -f %s %s", format, path), 0);
}

START_TEST(random_operations)
{
    const struct variant *v = &variants[_i];
    const char *format = v->qemu_format ? v->qemu_format : v->format;
    const char *only = getenv("CLOCHE_DISK_VARIANT");
    if (only && strcmp(only, v->name) != 0)
        return;
    g_autofree char *path = path_of("image"), *mirror = path_of("mirror");
    make_image(v, path);
    struct workload w;
    GError *error = NULL;
    struct disk *disk = disk_open(path, v->format, 0, &error);
    ck_assert_msg(disk, "%s", error ? error->message : "");
    workload_start(&w, disk, mirror, ROOM, 1000 + _i);
    w.resizes = v->resizes;
    for (unsigned round = 0; round < 4; round++) {
        workload_run(&w, 2500);
        workload_compare(&w);
        disk_close(disk);
        check_clean(v, path);
        disk = disk_open(path, v->format, 0, &error);
        ck_assert_msg(disk, "%s", error ? error->message : "");
        w.disk = disk;
        workload_compare(&w);
    }
    workload_end(&w);
    disk_close(disk);
    ck_assert_int_eq(run_command(true, "qemu-img compare -f %s -F raw %s %s", format, path, mirror), 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("disks-interop");
    TCase *c = tcase_create("interop");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, random_operations, 0, G_N_ELEMENTS(variants));
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    use_memory_files();
    SRunner *runner = srunner_create(suite());
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
