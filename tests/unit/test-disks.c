// SPDX-License-Identifier: GPL-2.0-or-later
// The disk library by its public interface: requests, locks, the guard of raw disks.
#include "disks/create.h"
#include "disks/disk.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

static char *folder;

static void setup(void)
{
    folder = g_dir_make_tmp("cloche-disks-XXXXXX", NULL);
    ck_assert_ptr_nonnull(folder);
}

static void teardown(void)
{
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_unlink(path);
    }
    g_dir_close(dir);
    g_rmdir(folder);
    g_free(folder);
}

static char *path_of(const char *name)
{
    return g_build_filename(folder, name, NULL);
}

static char *make_raw(const char *name, uint64_t size)
{
    char *path = path_of(name);
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, size), 0);
    close(fd);
    return path;
}

// ---- Requests ----
struct batch {
    GMutex lock;
    GCond all;
    unsigned left;
    int result;
};

static void batch_done(struct disk_request *request, int result)
{
    struct batch *batch = request->opaque;
    g_mutex_lock(&batch->lock);
    if (result)
        batch->result = result;
    if (--batch->left == 0)
        g_cond_signal(&batch->all);
    g_mutex_unlock(&batch->lock);
}

static void batch_wait(struct batch *batch)
{
    g_mutex_lock(&batch->lock);
    while (batch->left)
        g_cond_wait(&batch->all, &batch->lock);
    g_mutex_unlock(&batch->lock);
}

#define REQUESTS 200

static void run_batch(struct disk *disk, enum disk_op op, unsigned char (*data)[4096])
{
    struct disk_request requests[REQUESTS];
    struct iovec iov[REQUESTS][2];
    struct batch batch = {.left = REQUESTS};
    for (unsigned i = 0; i < REQUESTS; i++) {
        iov[i][0] = (struct iovec){data[i], 1024};
        iov[i][1] = (struct iovec){data[i] + 1024, 3072};
        requests[i] = (struct disk_request){.op = op,
                                            .offset = i * 8192ull,
                                            .length = 4096,
                                            .iov = iov[i],
                                            .iov_count = 2,
                                            .done = batch_done,
                                            .opaque = &batch};
        disk_submit(disk, &requests[i]);
    }
    batch_wait(&batch);
    ck_assert_int_eq(batch.result, 0);
}

static void check_requests(unsigned flags)
{
    g_autofree char *path = make_raw("a.raw", 4 * MiB);
    GError *error = NULL;
    struct disk *disk = disk_open(path, "raw", flags, &error);
    ck_assert_msg(disk, "%s", error ? error->message : "");
    ck_assert_uint_eq(disk_size(disk), 4 * MiB);
    static unsigned char out[REQUESTS][4096], in[REQUESTS][4096];
    for (unsigned i = 0; i < sizeof out; i++)
        ((unsigned char *)out)[i] = g_random_int();
    run_batch(disk, DISK_WRITE, out);
    ck_assert_int_eq(disk_flush(disk), 0);
    run_batch(disk, DISK_READ, in);
    ck_assert_int_eq(memcmp(in, out, sizeof out), 0);
    disk_close(disk);
}

START_TEST(raw_ring)
{
    check_requests(0);
}
END_TEST

START_TEST(raw_threads)
{
    check_requests(DISK_OPEN_THREADS);
}
END_TEST

START_TEST(raw_direct)
{
    check_requests(DISK_OPEN_DIRECT);
}
END_TEST

START_TEST(raw_refuses_bad_requests)
{
    g_autofree char *path = make_raw("b.raw", MiB);
    struct disk *disk = disk_open(path, "raw", 0, NULL);
    char data[1024] = {0};
    ck_assert_int_eq(disk_read(disk, 100, data, 512), -EINVAL);
    ck_assert_int_eq(disk_read(disk, MiB - 512, data, 1024), -EINVAL);
    ck_assert_int_eq(disk_read(disk, ~511ull, data, 1024), -EINVAL);
    ck_assert_int_eq(disk_read(disk, MiB - 512, data, 512), 0);
    disk_close(disk);
    disk = disk_open(path, "raw", DISK_OPEN_READ_ONLY, NULL);
    ck_assert_int_eq(disk_write(disk, 0, data, 512), -EROFS);
    disk_close(disk);
}
END_TEST

START_TEST(raw_discard_gives_space_back)
{
    g_autofree char *path = make_raw("c.raw", 2 * MiB);
    struct disk *disk = disk_open(path, "raw", 0, NULL);
    g_autofree char *data = g_malloc(MiB), *back = g_malloc(MiB);
    memset(data, 7, MiB);
    ck_assert_int_eq(disk_write(disk, 0, data, MiB), 0);
    struct disk_extent extent;
    ck_assert_int_eq(disk_flush(disk), 0);
    ck_assert_int_eq(disk_extent_at(disk, 0, MiB, &extent), 0);
    ck_assert(extent.data && !extent.zero);
    ck_assert_int_eq(disk_discard(disk, 0, MiB), 0);
    ck_assert_int_eq(disk_extent_at(disk, 0, MiB, &extent), 0);
    ck_assert(extent.zero);
    ck_assert_int_eq(disk_read(disk, 0, back, MiB), 0);
    for (unsigned i = 0; i < MiB; i++)
        ck_assert_int_eq(back[i], 0);
    disk_close(disk);
}
END_TEST

START_TEST(raw_guard)
{
    g_autofree char *path = make_raw("d.raw", MiB);
    struct disk *disk = disk_open(path, NULL, 0, NULL);
    ck_assert_str_eq(disk_format(disk), "raw");
    char head[512] = {'Q', 'F', 'I', (char)0xfb, 0, 0, 0, 3};
    ck_assert_int_eq(disk_write(disk, 0, head, 512), -EPERM);
    char boot[512] = "a boot sector";
    ck_assert_int_eq(disk_write(disk, 0, boot, 512), 0);
    disk_close(disk);
    disk = disk_open(path, "raw", 0, NULL);
    ck_assert_int_eq(disk_write(disk, 0, head, 512), 0);
    disk_close(disk);
}
END_TEST

START_TEST(locks)
{
    g_autofree char *path = make_raw("e.raw", MiB);
    GError *error = NULL;
    struct disk *writer = disk_open(path, "raw", 0, NULL);
    ck_assert_ptr_null(disk_open(path, "raw", 0, &error));
    ck_assert(g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY));
    g_clear_error(&error);
    ck_assert_ptr_null(disk_open(path, "raw", DISK_OPEN_READ_ONLY, &error));
    g_clear_error(&error);
    disk_close(writer);
    struct disk *one = disk_open(path, "raw", DISK_OPEN_READ_ONLY, NULL);
    struct disk *two = disk_open(path, "raw", DISK_OPEN_READ_ONLY, NULL);
    ck_assert(one && two);
    ck_assert_ptr_null(disk_open(path, "raw", 0, &error));
    g_clear_error(&error);
    disk_close(one);
    disk_close(two);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("disks");
    TCase *c = tcase_create("raw");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, raw_ring);
    tcase_add_test(c, raw_threads);
    tcase_add_test(c, raw_direct);
    tcase_add_test(c, raw_refuses_bad_requests);
    tcase_add_test(c, raw_discard_gives_space_back);
    tcase_add_test(c, raw_guard);
    tcase_add_test(c, locks);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    SRunner *runner = srunner_create(suite());
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
