// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/disks/workload.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

void workload_start(struct workload *w, struct disk *disk, const char *mirror_path, uint64_t room, uint32_t seed)
{
    *w = (struct workload){.disk = disk, .random = g_rand_new_with_seed(seed), .mirror_room = room};
    w->mirror_fd = open(mirror_path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    ck_assert_int_ge(w->mirror_fd, 0);
    ck_assert_int_eq(ftruncate(w->mirror_fd, room), 0);
    w->mirror = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, w->mirror_fd, 0);
    ck_assert_ptr_ne(w->mirror, MAP_FAILED);
    ck_assert_uint_le(disk_size(disk), room);
    ck_assert_int_eq(disk_read(disk, 0, w->mirror, disk_size(disk)), 0);
}

void workload_end(struct workload *w)
{
    munmap(w->mirror, w->mirror_room);
    ck_assert_int_eq(ftruncate(w->mirror_fd, disk_size(w->disk)), 0);
    close(w->mirror_fd);
    g_rand_free(w->random);
}

static bool failed(struct workload *w, int rc, const char *what, uint64_t offset, uint64_t length)
{
    if (rc && w->may_fail) {
        w->failure = rc;
        w->failed_offset = offset;
        w->failed_length = length;
        return true;
    }
    ck_assert_msg(rc == 0, "%s at %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT ": %s", what, offset, length,
                  g_strerror(-rc));
    return false;
}

static uint64_t pick_length(struct workload *w, uint64_t most)
{
    static const unsigned limits[] = {1, 8, 8, 16, 64, 128, 128, 512, 2048};
    uint64_t sectors = g_rand_int_range(w->random, 1, limits[g_rand_int_range(w->random, 0, G_N_ELEMENTS(limits))] + 1);
    if (g_rand_boolean(w->random) && sectors > 8)
        sectors = ALIGN_DOWN(sectors, 8);
    return MIN(sectors * 512, most);
}

static uint64_t pick_offset(struct workload *w, uint64_t size)
{
    uint64_t sector = g_rand_int(w->random) % (size / 512);
    static const unsigned alignments[] = {1, 8, 8, 128, 128, 1024};
    return ALIGN_DOWN(sector, alignments[g_rand_int_range(w->random, 0, G_N_ELEMENTS(alignments))]) * 512;
}

static void do_write(struct workload *w, uint64_t offset, uint64_t length)
{
    g_autofree uint8_t *data = g_malloc(length);
    unsigned pattern = g_rand_int(w->random);
    for (uint64_t i = 0; i < length; i += 4) {
        pattern = pattern * 1664525 + 1013904223;
        memcpy(data + i, &pattern, 4);
    }
    if (g_rand_int_range(w->random, 0, 16) == 0)
        memset(data, 0, length);
    if (!failed(w, disk_write(w->disk, offset, data, length), "write", offset, length))
        memcpy(w->mirror + offset, data, length);
}

static void do_zero(struct workload *w, uint64_t offset, uint64_t length)
{
    unsigned flags = g_rand_boolean(w->random) ? DISK_MAY_UNMAP : 0;
    if (!failed(w, disk_write_zeroes(w->disk, offset, length, flags), "write-zeroes", offset, length))
        memset(w->mirror + offset, 0, length);
}

// A discarded sector keeps its contents or reads as zeroes: either is right, and stays.
static void do_discard(struct workload *w, uint64_t offset, uint64_t length)
{
    if (failed(w, disk_discard(w->disk, offset, length), "discard", offset, length))
        return;
    g_autofree uint8_t *now = g_malloc(length);
    if (failed(w, disk_read(w->disk, offset, now, length), "read", offset, length))
        return;
    static const uint8_t zeroes[512];
    for (uint64_t i = 0; i < length; i += 512)
        ck_assert_msg(memcmp(now + i, zeroes, 512) == 0 || memcmp(now + i, w->mirror + offset + i, 512) == 0,
                      "a discarded sector at %" G_GUINT64_FORMAT " reads as something new", offset + i);
    memcpy(w->mirror + offset, now, length);
}

static void do_read(struct workload *w, uint64_t offset, uint64_t length)
{
    g_autofree uint8_t *now = g_malloc(length);
    if (failed(w, disk_read(w->disk, offset, now, length), "read", offset, length))
        return;
    for (uint64_t i = 0; i < length; i += 512)
        ck_assert_msg(memcmp(now + i, w->mirror + offset + i, 512) == 0,
                      "the sector at %" G_GUINT64_FORMAT
                      " (%02x %02x %02x %02x) is not what was written (%02x %02x %02x %02x)",
                      offset + i, now[i], now[i + 1], now[i + 2], now[i + 3], w->mirror[offset + i],
                      w->mirror[offset + i + 1], w->mirror[offset + i + 2], w->mirror[offset + i + 3]);
}

void workload_resize(struct workload *w)
{
    uint64_t random = g_rand_int(w->random) % w->mirror_room;
    uint64_t old = disk_size(w->disk), size = ALIGN_UP(random + 512, 512);
    size = MAX(MIN(size, w->mirror_room), w->mirror_room / 2);
    GError *error = NULL;
    if (!disk_resize(w->disk, size, &error)) {
        ck_assert_msg(w->may_fail, "resize to %" G_GUINT64_FORMAT ": %s", size, error->message);
        w->failure = -EIO;
        g_clear_error(&error);
        uint64_t now = disk_size(w->disk); // it may have the new size; what was to be dropped may be gone
        memset(w->mirror + now, 0, w->mirror_room - now);
        if (size < now) {
            w->failed_offset = size;
            w->failed_length = now - size;
        }
        return;
    }
    if (size < old)
        memset(w->mirror + size, 0, old - size);
}

void workload_run(struct workload *w, unsigned count)
{
    for (unsigned i = 0; i < count && !w->failure; i++) {
        uint64_t size = disk_size(w->disk), offset = pick_offset(w, size), length = pick_length(w, size - offset);
        uint64_t longer = length * g_rand_int_range(w->random, 1, 9);
        unsigned dice = g_rand_int_range(w->random, 0, 1000);
        if (dice < 480)
            do_write(w, offset, length);
        else if (dice < 700)
            do_read(w, offset, length);
        else if (dice < 830)
            do_zero(w, offset, MIN(longer, size - offset));
        else if (dice < 960)
            do_discard(w, offset, MIN(longer, size - offset));
        else if (dice < 990)
            failed(w, disk_flush(w->disk), "flush", 0, 0);
        else if (dice < 994 && w->resizes)
            workload_resize(w);
    }
}

void workload_compare(struct workload *w)
{
    uint64_t size = disk_size(w->disk);
    for (uint64_t at = 0; at < size; at += MiB)
        do_read(w, at, MIN(MiB, size - at));
}

void use_memory_files(void)
{
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
}

// ---- Other programs ----
int run_command(bool show, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *line = g_strdup_vprintf(format, args);
    va_end(args);
    g_autofree char *shell = g_strdup_printf("exec %s", line);
    const char *argv[] = {"/bin/sh", "-c", shell, NULL};
    g_autofree char *out = NULL, *err = NULL;
    int status = -1;
    GError *error = NULL;
    if (!g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, &out, &err, &status, &error)) {
        fprintf(stderr, "%s: %s\n", line, error->message);
        g_clear_error(&error);
        return -1;
    }
    status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (status && show)
        fprintf(stderr, "%s: exit status %d\n%.2000s%.2000s", line, status, out, err);
    return status;
}

char *command_output(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *line = g_strdup_vprintf(format, args);
    va_end(args);
    char *out = NULL;
    const char *argv[] = {"/bin/sh", "-c", line, NULL};
    return g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, &out, NULL, NULL, NULL) ? out : NULL;
}

int run_suite(Suite *suite)
{
    use_memory_files();
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
