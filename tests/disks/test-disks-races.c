// SPDX-License-Identifier: GPL-2.0-or-later
// Two threads in one image, held at chosen points: what one does in the middle of the other's work is never lost.
#include "disks/check.h"
#include "disks/create.h"
#include "disks/file.h"
#include "tests/disks/workload.h"

#include <check.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <string.h>

static char *folder;

static void setup(void)
{
    folder = g_dir_make_tmp("cloche-races-XXXXXX", NULL);
    ck_assert_ptr_nonnull(folder);
}

static void teardown(void)
{
    run_command(true, "rm -rf %s", folder);
    g_free(folder);
}

// Threads meet: an access of the kind OPS[0] by the test's thread first lets a second thread run WHAT[0], of which an
// access of the kind OPS[1] first lets a third thread run WHAT[1]; each to its end, or until it has to wait for what
// that access holds.
enum { LEVELS = 2 };
struct meeting {
    struct file_hooks hooks;
    enum file_op ops[LEVELS];
    void (*what[LEVELS])(struct meeting *m);
    _Atomic int armed[LEVELS];
    struct disk *disk;
    pthread_t threads[256];
    _Atomic unsigned thread_count;
    _Atomic unsigned next; // what the writing thread works on
    _Atomic int failed;
};

struct guest {
    struct meeting *m;
    unsigned level;
    _Atomic bool done;
};

static __thread unsigned level;

static void *run_guest(void *opaque)
{
    struct guest *guest = opaque;
    level = guest->level + 1;
    guest->m->what[guest->level](guest->m);
    guest->done = true;
    return NULL;
}

static int before(struct file_hooks *hooks, enum file_op op, uint64_t offset, uint64_t length)
{
    struct meeting *m = container_of(hooks, struct meeting, hooks);
    if (level == LEVELS || op != m->ops[level] || !m->what[level] || atomic_fetch_sub(&m->armed[level], 1) <= 0)
        return 0;
    struct guest *guest = g_new0(struct guest, 1); // outlives this access; a few bytes of a test
    guest->m = m;
    guest->level = level;
    unsigned n = m->thread_count++;
    ck_assert_uint_lt(n, G_N_ELEMENTS(m->threads));
    ck_assert_int_eq(pthread_create(&m->threads[n], NULL, run_guest, guest), 0);
    for (unsigned i = 0; i < 40 && !guest->done; i++)
        g_usleep(500);
    return 0;
}

static void join_all(struct meeting *m)
{
    for (unsigned i = 0; i < m->thread_count; i++)
        pthread_join(m->threads[i], NULL);
    m->thread_count = 0;
}

enum { BLOCK = 64 * 1024, BLOCKS = 128 };

static void fill(uint8_t *data, unsigned block)
{
    memset(data, 1 + block % 255, BLOCK);
}

// A block that nobody wrote before.
static void write_block(struct meeting *m)
{
    uint8_t data[BLOCK];
    unsigned block = BLOCKS / 2 + m->next++;
    fill(data, block);
    if (disk_write(m->disk, (uint64_t)block * BLOCK, data, BLOCK))
        m->failed = 1;
}

static void flush(struct meeting *m)
{
    if (disk_flush(m->disk))
        m->failed = 1;
}

static const struct format {
    const char *name;
    struct disk_create_options options;
} formats[] = {
    {"qcow2", {.format = "qcow2"}},
    {"qcow2-512", {.format = "qcow2", .cluster_size = 512}},
    {"qcow2-v2-512", {.format = "qcow2", .version = 2, .cluster_size = 512}},
    {"qcow2-ext", {.format = "qcow2", .extended_l2 = true}},
    {"vmdk", {.format = "vmdk"}},
    {"vdi", {.format = "vdi"}},
    {"vhd", {.format = "vhd"}},
};

static const enum file_op ops[] = {FILE_TRUNCATE, FILE_EXTEND, FILE_SYNC, FILE_WRITE, FILE_PUNCH};

// While a write has its place in the file but has not filled it, another thread flushes; and at every kind of access of
// that flush a third thread writes new blocks.
static void meet(const struct format *f, enum file_op first, enum file_op second)
{
    struct meeting m = {.hooks.before = before, .ops = {first, second}, .what = {flush, write_block}};
    struct disk_create_options create = f->options;
    create.size = (uint64_t)BLOCKS * BLOCK;
    create.force = true;
    g_autofree char *path = g_build_filename(folder, f->name, NULL);
    ck_assert(disk_create(path, &create, NULL));
    struct disk_options options = {.format = create.format, .hooks = &m.hooks};
    m.disk = disk_open_with(path, &options, NULL);
    ck_assert_ptr_nonnull(m.disk);
    uint8_t data[BLOCK], now[BLOCK];
    enum { ROUNDS = 4 };
    for (unsigned i = 0; i < ROUNDS; i++) {
        fill(data, i);
        m.armed[0] = 2;
        m.armed[1] = 6;
        ck_assert_int_eq(disk_write(m.disk, (uint64_t)i * BLOCK, data, BLOCK), 0);
        m.armed[0] = m.armed[1] = 0;
        join_all(&m);
        ck_assert_int_eq(m.failed, 0);
    }
    for (unsigned reopened = 0; reopened < 2; reopened++) {
        for (unsigned i = 0; i < ROUNDS + m.next; i++) {
            unsigned block = i < ROUNDS ? i : BLOCKS / 2 + i - ROUNDS;
            fill(data, block);
            ck_assert_int_eq(disk_read(m.disk, (uint64_t)block * BLOCK, now, BLOCK), 0);
            ck_assert_msg(memcmp(data, now, BLOCK) == 0, "%s, meeting at %d and %d: block %u starts with %u", f->name,
                          first, second, block, now[0]);
        }
        disk_close(m.disk);
        m.disk = disk_open(path, create.format, 0, NULL);
    }
    disk_close(m.disk);
    struct disk_check_result result = {0};
    ck_assert(disk_check(path, create.format, false, &result, NULL, NULL));
    ck_assert_msg(result.corruptions == 0, "%s", (char *)result.messages->pdata[0]);
    disk_check_clear(&result);
}

START_TEST(write_meets_flush_meets_write)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(ops); i++)
        meet(&formats[_i], FILE_WRITE, ops[i]);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("disks-races");
    TCase *c = tcase_create("races");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, write_meets_flush_meets_write, 0, G_N_ELEMENTS(formats));
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return run_suite(suite());
}
