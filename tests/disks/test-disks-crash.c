// SPDX-License-Identifier: GPL-2.0-or-later
// Crashes. A child that works on an image is killed at random points; and, because a kill does not lose the page cache,
// recorded writes are replayed with any part of what was written after the last sync missing. Afterwards everything
// that was flushed reads back, and a check finds nothing but leaks, which it repairs. CLOCHE_DISK_KILLS=500 makes the
// long run, CLOCHE_DISK_VARIANT=name one of the formats only.
#include "disks/check.h"
#include "disks/create.h"
#include "disks/file.h"
#include "tests/disks/stamps.h"
#include "tests/disks/workload.h"

#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNK_SECTORS = 128, WORKERS = 4 };

static char *folder;

static void setup(void)
{
    folder = g_dir_make_tmp("cloche-crash-XXXXXX", NULL);
    ck_assert_ptr_nonnull(folder);
}

static void teardown(void)
{
    run_command(true, "rm -rf %s", folder);
    g_free(folder);
}

struct format {
    const char *name;
    struct disk_create_options options;
    const char *qemu_check; // format name, or NULL
    bool base;
    uint64_t large; // a size at which the tables need another place
};

static const struct format formats[] = {
    {"raw", {.format = "raw"}, NULL, false, 0},
    {"qcow2", {.format = "qcow2"}, "qcow2", false, 0},
    {"qcow2-4k", {.format = "qcow2", .cluster_size = 4096}, "qcow2", false, 0},
    {"qcow2-base", {.format = "qcow2", .cluster_size = 16384}, "qcow2", true, 0},
    {"qcow2-ext", {.format = "qcow2", .extended_l2 = true}, "qcow2", true, 0},
    {"qcow2-v2", {.format = "qcow2", .version = 2, .cluster_size = 512}, "qcow2", false, 0},
    {"vmdk", {.format = "vmdk"}, "vmdk", false, 100 * MiB},
    {"vmdk-flat", {.format = "vmdk", .preallocate = true}, NULL, false, 0},
    {"vdi", {.format = "vdi"}, "vdi", false, 300 * GiB},
    {"vdi-fixed", {.format = "vdi", .preallocate = true}, "vdi", false, 0},
    {"vhd", {.format = "vhd"}, NULL, false, 300 * MiB},
    {"vhd-fixed", {.format = "vhd", .preallocate = true}, NULL, false, 0},
};

static char *make_image(const struct format *f, uint64_t size, struct stamps *stamps)
{
    GError *error = NULL;
    char *path = g_build_filename(folder, "image.vmdk", NULL);
    struct disk_create_options options = f->options;
    options.size = size;
    if (f->base) { // stamped sectors from the start
        g_autofree char *base = g_build_filename(folder, "base.raw", NULL);
        struct disk_create_options raw = {.format = "raw", .size = size};
        ck_assert(disk_create(base, &raw, NULL));
        struct disk *disk = disk_open(base, "raw", 0, NULL);
        GRand *random = g_rand_new_with_seed(1);
        for (unsigned i = 0; i < 40; i++)
            stamps_operate(stamps, disk, random, g_rand_int(random) % (stamps->sectors / CHUNK_SECTORS) * CHUNK_SECTORS,
                           CHUNK_SECTORS);
        g_rand_free(random);
        disk_close(disk);
        options.backing = "base.raw";
        options.backing_format = "raw";
    }
    ck_assert_msg(disk_create(path, &options, &error), "%s", error ? error->message : "");
    struct disk *disk = disk_open(path, f->options.format, DISK_OPEN_READ_ONLY, &error);
    ck_assert_msg(disk, "%s", error ? error->message : "");
    stamps_adopt(stamps, disk);
    disk_close(disk);
    return path;
}

// No damage; leaks are repaired, and after that everybody agrees that the image is clean.
static void check_image(const struct format *f, const char *path, const char *when, bool with_qemu)
{
    GError *error = NULL;
    struct disk_check_result result = {0};
    ck_assert_msg(disk_check(path, f->options.format, false, &result, NULL, &error), "%s: %s", when,
                  error ? error->message : "");
    ck_assert_msg(result.corruptions == 0, "%s %s: %s", f->name, when,
                  result.messages ? (char *)result.messages->pdata[0] : "");
    bool leaks = result.leaks > 0;
    disk_check_clear(&result);
    if (leaks) {
        ck_assert(disk_check(path, f->options.format, true, &result, NULL, &error));
        ck_assert_uint_eq(result.leaks, result.leaks_fixed);
        disk_check_clear(&result);
        ck_assert(disk_check(path, f->options.format, false, &result, NULL, &error));
        ck_assert_msg(result.leaks == 0 && result.corruptions == 0, "%s %s: not clean after repair: %s", f->name, when,
                      (char *)result.messages->pdata[0]);
        disk_check_clear(&result);
    }
    if (with_qemu && f->qemu_check)
        ck_assert_int_eq(run_command(true, "qemu-img check -f %s %s", f->qemu_check, path), 0);
}

// ---- Sizes ----
// Another size, at least that of the stamped sectors. Nobody else uses the disk.
static void resize(const struct format *f, const struct stamps *stamps, struct disk *disk, GRand *random)
{
    uint64_t least = stamps->sectors * 512, size = least + g_rand_int(random) % (4 * MiB / 512) * 512;
    unsigned dice = g_rand_int(random) % 4;
    if (dice == 0)
        size = least;
    else if (dice == 1 && f->large)
        size = f->large * (1 + g_rand_int(random) % 3);
    GError *error = NULL;
    if (!disk_resize(disk, size, &error)) {
        fprintf(stderr, "%s\n", error->message);
        _exit(4);
    }
}

// Data behind the stamped sectors, which is in the way when the disk shrinks.
static int write_behind(const struct stamps *stamps, struct disk *disk, GRand *random)
{
    static const uint8_t data[4096] = {1, 2, 3};
    uint64_t least = stamps->sectors * 512, more = disk_size(disk) - least;
    if (more < sizeof data)
        return 0;
    return disk_write(disk, least + ((uint64_t)g_rand_int(random) << 12) % (more - sizeof data + 512) / 512 * 512, data,
                      sizeof data);
}

// ---- Kills ----
struct worker {
    struct stamps *stamps;
    struct disk *disk;
    unsigned number;
    uint32_t seed;
    pthread_rwlock_t *using;
};

static bool is_mine(uint64_t sector, void *opaque)
{
    const struct worker *w = opaque;
    return sector / CHUNK_SECTORS % WORKERS == w->number;
}

static void *work(void *opaque)
{
    struct worker *w = opaque;
    GRand *random = g_rand_new_with_seed(w->seed);
    uint64_t chunks = w->stamps->sectors / CHUNK_SECTORS / WORKERS;
    for (;;) {
        uint64_t chunk = g_rand_int(random) % chunks * WORKERS + w->number;
        pthread_rwlock_rdlock(w->using);
        int rc = g_rand_int(random) % 12 == 0
                     ? stamps_flush(w->stamps, w->disk, is_mine, w)
                     : stamps_operate(w->stamps, w->disk, random, chunk * CHUNK_SECTORS, CHUNK_SECTORS);
        if (!rc && g_rand_int(random) % 8 == 0)
            rc = write_behind(w->stamps, w->disk, random);
        pthread_rwlock_unlock(w->using);
        if (rc)
            _exit(3);
    }
    return NULL;
}

static void run_child(const struct format *f, const char *path, struct stamps *stamps, uint32_t seed)
{
    struct disk *disk = disk_open(path, f->options.format, 0, NULL);
    if (!disk)
        _exit(2);
    struct worker workers[WORKERS];
    pthread_t threads[WORKERS];
    pthread_rwlock_t using;
    pthread_rwlockattr_t fair;
    pthread_rwlockattr_init(&fair);
    pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&using, &fair);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){stamps, disk, i, seed * WORKERS + i, &using};
        pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    GRand *random = g_rand_new_with_seed(seed);
    for (;;) {
        g_usleep(2000 + g_rand_int(random) % 20000);
        pthread_rwlock_wrlock(&using);
        resize(f, stamps, disk, random);
        pthread_rwlock_unlock(&using);
    }
}

static bool is_wanted(const struct format *f)
{
    const char *only = getenv("CLOCHE_DISK_VARIANT");
    return !only || strcmp(only, f->name) == 0;
}

START_TEST(kills)
{
    const struct format *f = &formats[_i];
    if (!is_wanted(f))
        return;
    const char *wanted = getenv("CLOCHE_DISK_KILLS");
    unsigned count = wanted ? atoi(wanted) : 50;
    struct stamps *stamps = stamps_new(8 * MiB / 512);
    g_autofree char *path = make_image(f, 8 * MiB, stamps);
    GRand *random = g_rand_new_with_seed(7 + _i);
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *when = g_strdup_printf("after kill %u", i);
        uint32_t seed = g_rand_int(random);
        pid_t child = fork();
        if (child == 0)
            run_child(f, path, stamps, seed);
        g_usleep(2000 + g_rand_int(random) % 40000);
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        ck_assert_msg(WIFSIGNALED(status), "%s: the child ended by itself with %d", f->name, WEXITSTATUS(status));
        check_image(f, path, when, i % 10 == 9);
        struct disk *disk = disk_open(path, f->options.format, 0, NULL);
        ck_assert_ptr_nonnull(disk);
        g_autofree char *wrong = stamps_judge(stamps, stamps->flushed, stamps->flush_clock, disk);
        ck_assert_msg(!wrong, "%s %s: %s", f->name, when, wrong);
        stamps_adopt(stamps, disk);
        disk_close(disk);
    }
    g_rand_free(random);
    stamps_free(stamps);
}
END_TEST

// ---- Replay of recorded writes ----
struct record {
    enum file_op op;
    uint64_t offset, length;
    uint8_t *data;
};

// A flush that was acknowledged when RECORDS records were there.
struct acknowledged {
    unsigned records;
    struct sector_state *flushed;
    uint32_t *flush_clock;
};

struct recorder {
    struct file_hooks hooks;
    GMutex lock;
    GArray *records, *acknowledged;
};

static int let_pass(struct file_hooks *hooks, enum file_op op, uint64_t offset, uint64_t length)
{
    return 0;
}

static void keep(struct file_hooks *hooks, enum file_op op, uint64_t offset, uint64_t length, const struct iovec *iov,
                 unsigned iov_count)
{
    struct recorder *r = container_of(hooks, struct recorder, hooks);
    struct record record = {op, offset, length, NULL};
    if (op == FILE_READ)
        return;
    if (op == FILE_WRITE) {
        record.data = g_malloc(length);
        iov_to_buffer(iov, iov_count, 0, record.data, length);
    }
    g_mutex_lock(&r->lock);
    g_array_append_val(r->records, record);
    g_mutex_unlock(&r->lock);
}

static void record_run(const struct format *f, const char *path, struct stamps *stamps, struct recorder *r,
                       uint32_t seed)
{
    struct disk_options options = {.format = f->options.format, .hooks = &r->hooks};
    struct disk *disk = disk_open_with(path, &options, NULL);
    ck_assert_ptr_nonnull(disk);
    GRand *random = g_rand_new_with_seed(seed);
    for (unsigned i = 0; i < 400; i++) {
        uint64_t chunk = g_rand_int(random) % (stamps->sectors / CHUNK_SECTORS);
        if (i % 20 == 19)
            resize(f, stamps, disk, random);
        if (g_rand_int(random) % 10) {
            ck_assert_int_eq(write_behind(stamps, disk, random), 0);
            ck_assert_int_eq(stamps_operate(stamps, disk, random, chunk * CHUNK_SECTORS, CHUNK_SECTORS), 0);
            continue;
        }
        ck_assert_int_eq(stamps_flush(stamps, disk, NULL, NULL), 0);
        struct acknowledged a = {r->records->len, g_memdup2(stamps->flushed, stamps->sectors * sizeof *stamps->flushed),
                                 g_memdup2(stamps->flush_clock, stamps->sectors * 4)};
        g_array_append_val(r->acknowledged, a);
    }
    g_rand_free(random);
    disk_close(disk);
}

static void apply(int fd, const struct record *r, GRand *tear)
{
    struct stat st;
    if (r->op == FILE_ALLOCATE && fstat(fd, &st) == 0 && (uint64_t)st.st_size < r->offset + r->length)
        ck_assert_int_eq(ftruncate(fd, r->offset + r->length), 0);
    else if (r->op == FILE_TRUNCATE ||
             (r->op == FILE_EXTEND && fstat(fd, &st) == 0 && (uint64_t)st.st_size < r->offset))
        ck_assert_int_eq(ftruncate(fd, r->offset), 0);
    else if (r->op == FILE_PUNCH)
        fallocate(fd, 3, r->offset, r->length); // punch, keep the size
    for (uint64_t at = 0; r->op == FILE_WRITE && at < r->length;) {
        // A torn write: each sector for itself.
        uint64_t step = MIN(512 - (r->offset + at) % 512, r->length - at);
        if (!tear)
            step = r->length;
        if (!tear || g_rand_int(tear) % 4)
            ck_assert_int_eq(pwrite(fd, r->data + at, step, r->offset + at), (ssize_t)step);
        at += step;
    }
}

// The file as a power failure after record POINT may have left it: all up to the last sync, and of the rest any part in
// any order.
static void replay(const struct recorder *r, int fd, unsigned from, unsigned point, GRand *random)
{
    unsigned last_sync = 0;
    for (unsigned i = 0; i < point; i++)
        if (g_array_index(r->records, struct record, i).op == FILE_SYNC)
            last_sync = i;
    for (unsigned i = from; i < last_sync; i++)
        apply(fd, &g_array_index(r->records, struct record, i), NULL);
    unsigned count = point - last_sync;
    g_autofree unsigned *order = g_new(unsigned, count + 1);
    for (unsigned i = 0; i < count; i++)
        order[i] = last_sync + i;
    for (unsigned i = count; i > 1; i--) {
        unsigned j = g_rand_int(random) % i, swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
    for (unsigned i = 0; i < count; i++)
        if (g_rand_boolean(random))
            apply(fd, &g_array_index(r->records, struct record, order[i]), g_rand_int(random) % 4 ? NULL : random);
}

static void judge_point(const struct format *f, const char *path, struct stamps *stamps, const struct recorder *r,
                        unsigned point, const struct acknowledged *start)
{
    const struct acknowledged *a = start;
    for (unsigned i = 0; i < r->acknowledged->len; i++) {
        const struct acknowledged *next = &g_array_index(r->acknowledged, struct acknowledged, i);
        if (next->records <= point)
            a = next;
    }
    g_autofree char *when = g_strdup_printf("with a power failure at write %u", point);
    check_image(f, path, when, point % 8 == 0);
    struct disk *disk = disk_open(path, f->options.format, DISK_OPEN_READ_ONLY, NULL);
    ck_assert_ptr_nonnull(disk);
    g_autofree char *wrong = stamps_judge(stamps, a->flushed, a->flush_clock, disk);
    ck_assert_msg(!wrong, "%s %s: %s", f->name, when, wrong);
    disk_close(disk);
}

START_TEST(power_failures)
{
    const struct format *f = &formats[_i];
    if (!is_wanted(f))
        return;
    const char *wanted = getenv("CLOCHE_DISK_KILLS");
    unsigned points = wanted ? atoi(wanted) : 40;
    struct stamps *stamps = stamps_new(4 * MiB / 512);
    g_autofree char *path = make_image(f, 4 * MiB, stamps), *before = g_build_filename(folder, "before", NULL);
    bool flat = strcmp(f->name, "vmdk-flat") == 0;
    g_autofree char *data = flat ? g_build_filename(folder, "image-flat.vmdk", NULL) : g_strdup(path);
    struct recorder r = {.hooks = {let_pass, keep},
                         .records = g_array_new(FALSE, FALSE, sizeof(struct record)),
                         .acknowledged = g_array_new(FALSE, FALSE, sizeof(struct acknowledged))};
    struct acknowledged start = {0, g_memdup2(stamps->flushed, stamps->sectors * sizeof *stamps->flushed),
                                 g_memdup2(stamps->flush_clock, stamps->sectors * 4)};
    if (flat) // one data file and a descriptor: the records would mix
        goto out;
    ck_assert_int_eq(run_command(true, "cp --sparse=always %s %s", data, before), 0);
    record_run(f, path, stamps, &r, 50 + _i);
    GRand *random = g_rand_new_with_seed(77 + _i);
    ck_assert_uint_gt(r.records->len, 100);
    for (unsigned i = 0; i < points; i++) {
        unsigned point = g_rand_int(random) % r.records->len;
        ck_assert_int_eq(run_command(true, "cp --sparse=always %s %s", before, data), 0);
        int fd = open(data, O_RDWR);
        replay(&r, fd, 0, point, random);
        close(fd);
        judge_point(f, path, stamps, &r, point, &start);
    }
    g_rand_free(random);
out:
    for (unsigned i = 0; i < r.records->len; i++)
        g_free(g_array_index(r.records, struct record, i).data);
    for (unsigned i = 0; i < r.acknowledged->len; i++) {
        g_free(g_array_index(r.acknowledged, struct acknowledged, i).flushed);
        g_free(g_array_index(r.acknowledged, struct acknowledged, i).flush_clock);
    }
    g_array_free(r.records, TRUE);
    g_array_free(r.acknowledged, TRUE);
    g_free(start.flushed);
    g_free(start.flush_clock);
    stamps_free(stamps);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("disks-crash");
    TCase *c = tcase_create("crash");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, getenv("CLOCHE_DISK_KILLS") ? 3600 : 180);
    tcase_add_loop_test(c, kills, 0, G_N_ELEMENTS(formats));
    tcase_add_loop_test(c, power_failures, 0, G_N_ELEMENTS(formats));
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(suite());
}
