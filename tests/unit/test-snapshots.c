// SPDX-License-Identifier: GPL-2.0-or-later
// Snapshots, clones and archives of machines that are off, on real images: contents at every step, moved bases, damaged
// archives, and a program that is killed at any moment.
#include "core/base/file.h"
#include "core/config/clone.h"
#include "core/config/library.h"
#include "core/config/snapshot.h"
#include "core/config/tar.h"
#include "disks/check.h"
#include "disks/create.h"
#include "disks/disk.h"
#include "disks/info.h"

#include <check.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DISK_SIZE (4 * MiB)

static char *top;
static struct library *library;

static struct machine_entry *find(const char *name)
{
    library_scan(library);
    g_autoptr(GError) error = NULL;
    struct machine_entry *entry = library_find(library, name, &error);
    ck_assert_msg(entry && !entry->damage, "%s", error ? error->message : entry->damage);
    return entry;
}

// A macro, so that the error is looked at after the call that sets it.
#define must(good, error)                                                                                              \
    do {                                                                                                               \
        bool must_good = (good);                                                                                       \
        ck_assert_msg(must_good, "%s", error ? error->message : "failed without a reason");                            \
    } while (0)

// The present disk of a machine.
static char *present_disk(const char *name)
{
    struct machine_entry *entry = find(name);
    g_autofree char *file = config_get(entry->config, "Drive disk0", "file");
    return g_build_filename(entry->folder, file, NULL);
}

static struct disk *open_present(const char *name, bool write)
{
    g_autofree char *path = present_disk(name);
    g_autoptr(GError) error = NULL;
    struct disk *disk = disk_open(path, "qcow2", write ? 0 : DISK_OPEN_READ_ONLY, &error);
    ck_assert_msg(disk != NULL, "%s", error ? error->message : "");
    return disk;
}

static void put(const char *name, unsigned block, char value)
{
    char data[65536];
    memset(data, value, sizeof(data));
    struct disk *disk = open_present(name, true);
    ck_assert_int_eq(disk_write(disk, block * sizeof(data), data, sizeof(data)), 0);
    ck_assert_int_eq(disk_flush(disk), 0);
    disk_close(disk);
}

static void expect(const char *name, const char *blocks)
{
    struct disk *disk = open_present(name, false);
    for (unsigned i = 0; blocks[i]; i++) {
        char data[65536], wanted = blocks[i] == '.' ? 0 : blocks[i];
        ck_assert_int_eq(disk_read(disk, i * sizeof(data), data, sizeof(data)), 0);
        ck_assert_msg(data[0] == wanted && data[65535] == wanted, "%s: block %u is %c, not %c", name, i,
                      data[0] ? data[0] : '.', blocks[i]);
    }
    disk_close(disk);
}

static struct snapshot *snapshot_named(GPtrArray *list, const char *name)
{
    g_autoptr(GError) error = NULL;
    struct snapshot *snapshot = snapshot_find(list, name, &error);
    must(snapshot != NULL, error);
    return snapshot;
}

static void take(const char *machine, const char *name)
{
    g_autoptr(GError) error = NULL;
    must(snapshot_take(find(machine)->folder, name, "note", &error), error);
}

static void restore(const char *machine, const char *name)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = snapshot_list(find(machine)->folder);
    must(snapshot_restore(find(machine)->folder, snapshot_named(list, name), &error), error);
}

static void delete (const char *machine, const char *name)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = snapshot_list(find(machine)->folder);
    must(snapshot_delete(find(machine)->folder, snapshot_named(list, name), false, library, NULL, &error), error);
}

static unsigned images(const char *machine)
{
    GDir *dir = g_dir_open(find(machine)->folder, 0, NULL);
    unsigned count = 0;
    const char *name;
    while ((name = g_dir_read_name(dir)))
        count += g_str_has_suffix(name, ".qcow2");
    g_dir_close(dir);
    return count;
}

static void setup(void)
{
    top = g_dir_make_tmp("cloche-snapshots-XXXXXX", NULL);
    g_setenv("CLOCHE_LIBRARY", top, TRUE);
    library = library_open(NULL);
    g_autoptr(GError) error = NULL;
    g_autofree char *folder = library_create_folder(library, "base", &error);
    g_autofree char *path = g_build_filename(folder, "disk0.qcow2", NULL),
                    *conf = g_build_filename(folder, CONFIG_FILE, NULL);
    struct disk_create_options options = {.format = "qcow2", .size = DISK_SIZE};
    must(disk_create(path, &options, &error), error);
    g_autoptr(config_t) config = config_new();
    must(config_set(config, "Machine", "name", "base", &error) &&
             config_set(config, "Drive disk0", "file", "disk0.qcow2", &error) &&
             config_set(config, "Drive disk0", "format", "qcow2", &error) &&
             config_set(config, "Network net0", "backend", "user", &error) && config_save(config, conf, &error),
         error);
}

static void teardown(void)
{
    library_close(library);
    host_folder_remove(top, NULL);
    g_free(top);
}

START_TEST(test_tree)
{
    put("base", 0, 'a');
    take("base", "one");
    put("base", 1, 'b');
    take("base", "two");
    put("base", 2, 'c');
    expect("base", "abc");
    restore("base", "one"); // a branch
    expect("base", "a..");
    put("base", 0, 'x');
    take("base", "branch");
    put("base", 3, 'd');
    g_autoptr(GPtrArray) list = snapshot_list(find("base")->folder);
    ck_assert_uint_eq(list->len, 3);
    ck_assert_str_eq(snapshot_named(list, "two")->parent, snapshot_named(list, "one")->id);
    ck_assert_str_eq(snapshot_named(list, "branch")->parent, snapshot_named(list, "one")->id);
    ck_assert(snapshot_named(list, "branch")->current && !snapshot_named(list, "two")->current);
    restore("base", "two");
    expect("base", "ab..");
    restore("base", "branch");
    expect("base", "x...");
    delete ("base", "one"); // two stand on its image: it stays for them
    expect("base", "x...");
    restore("base", "two");
    expect("base", "ab..");
    delete ("base", "branch");
    delete ("base", "two");
    expect("base", "ab..");
    ck_assert_uint_eq(images("base"), 1); // all merged
    g_autoptr(GError) error = NULL;
    ck_assert(!snapshot_take(find("base")->folder, "", NULL, &error) &&
              g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID));
}
END_TEST

START_TEST(test_rename)
{
    take("base", "one");
    take("base", "two");
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = snapshot_list(find("base")->folder);
    ck_assert(!snapshot_rename(find("base")->folder, snapshot_named(list, "one"), "two", NULL, &error));
    ck_assert(g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS));
    g_clear_error(&error);
    must(snapshot_rename(find("base")->folder, snapshot_named(list, "one"), "uno", "erste", &error), error);
    g_autoptr(GPtrArray) after = snapshot_list(find("base")->folder);
    ck_assert_str_eq(snapshot_named(after, "uno")->note, "erste");
}
END_TEST

static void make_clone(const char *from, const char *to, bool linked, const char *snapshot)
{
    g_autoptr(GError) error = NULL;
    struct clone_options options = {to, linked, snapshot};
    must(machine_clone(library, find(from), &options, NULL, &error), error);
}

START_TEST(test_clones)
{
    put("base", 0, 'a');
    take("base", "one");
    put("base", 1, 'b');
    make_clone("base", "full", false, NULL);
    make_clone("base", "old", true, "one");
    make_clone("base", "new", true, NULL); // takes a snapshot for itself
    expect("full", "ab");
    expect("old", "a.");
    expect("new", "ab");
    put("old", 2, 'o');
    put("new", 2, 'n');
    put("base", 2, 'x');
    expect("full", "ab.");
    expect("old", "a.o");
    expect("new", "abn");
    expect("base", "abx");
    struct machine_entry *entry = find("old");
    g_autofree char *uuid = g_strdup(entry->uuid), *mac = config_get(entry->config, "Network net0", "mac");
    entry = find("new");
    g_autofree char *other = config_get(entry->config, "Network net0", "mac");
    ck_assert(strcmp(uuid, entry->uuid) && mac[0] && strcmp(mac, other));
    // Deleting what a clone stands on keeps its image.
    delete ("base", "one");
    expect("old", "a.o");
    put("base", 0, 'z');
    expect("old", "a.o");
    expect("base", "zbx");
}
END_TEST

START_TEST(test_moved_base)
{
    put("base", 0, 'a');
    take("base", "one");
    make_clone("base", "linked", true, "one");
    g_autofree char *more = g_dir_make_tmp("cloche-moved-XXXXXX", NULL),
                    *to = g_build_filename(more, "elsewhere", NULL);
    g_autoptr(GError) error = NULL;
    ck_assert_int_eq(g_rename(find("base")->folder, to), 0);
    ck_assert(!machine_find_bases(library, find("linked"), &error));
    ck_assert_ptr_nonnull(strstr(error->message, "not in the library"));
    g_clear_error(&error);
    must(library_add_folder(library, more, &error), error);
    must(machine_find_bases(library, find("linked"), &error), error);
    expect("linked", "a.");
    host_folder_remove(more, NULL);
}
END_TEST

START_TEST(test_template)
{
    g_autoptr(GError) error = NULL;
    must(machine_set_template(library, find("base"), true, &error), error);
    ck_assert(find("base")->template_);
    make_clone("base", "child", true, NULL);
    ck_assert(!find("child")->template_);
    g_autoptr(GPtrArray) list = snapshot_list(find("base")->folder);
    ck_assert_uint_eq(list->len, 0); // a template is frozen itself
    ck_assert(!machine_set_template(library, find("base"), false, &error) && strstr(error->message, "child"));
}
END_TEST

START_TEST(test_archive)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *file = g_build_filename(top, "base.tar.zst", NULL),
                    *chain = g_build_filename(top, "chain.tar.zst", NULL);
    put("base", 0, 'a');
    take("base", "one");
    put("base", 1, 'b');
    struct progress progress = {0};
    must(machine_export(find("base"), file, &(struct export_options){.chain = false}, &progress, &error), error);
    ck_assert_uint_gt(progress.done, 0);
    must(machine_export(find("base"), chain, &(struct export_options){.chain = true}, NULL, &error), error);
    ck_assert(
        !machine_export(find("base"), file, &(struct export_options){.chain = false}, NULL, &error)); // there already
    g_clear_error(&error);
    must(machine_import(library, file, "flat", NULL, &error), error);
    must(machine_import(library, chain, "whole", NULL, &error), error);
    expect("flat", "ab");
    expect("whole", "ab");
    restore("whole", "one");
    expect("whole", "a.");
    ck_assert(!machine_import(library, file, NULL, NULL, &error) &&
              g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS));
    g_clear_error(&error);
    // Any damage is noticed, and nothing is left.
    g_autofree char *data = NULL;
    size_t length;
    ck_assert(g_file_get_contents(file, &data, &length, NULL));
    g_autoptr(GRand) random = g_rand_new_with_seed(2);
    unsigned before = library_entries(library)->len, refused = 0;
    for (unsigned round = 0; round < 40; round++) {
        g_autofree char *mutant = g_memdup2(data, length);
        size_t cut = round % 2 ? length : (size_t)g_rand_int_range(random, 1, length);
        mutant[g_rand_int_range(random, 0, cut)] ^= 1 << g_rand_int_range(random, 0, 8);
        g_autofree char *bad = g_build_filename(top, "bad.tar.zst", NULL);
        ck_assert(g_file_set_contents(bad, mutant, cut, NULL));
        if (machine_import(library, bad, "bad", NULL, NULL)) { // a bit that means nothing to zstd
            expect("bad", "ab");
            ck_assert(host_folder_remove(find("bad")->folder, NULL));
        } else {
            refused++;
        }
    }
    ck_assert_uint_ge(refused, 36);
    library_scan(library);
    ck_assert_uint_eq(library_entries(library)->len, before);
    GDir *dir = g_dir_open(top, 0, NULL);
    const char *name;
    while ((name = g_dir_read_name(dir)))
        ck_assert_msg(!g_str_has_prefix(name, ".import"), "%s is left over", name);
    g_dir_close(dir);
}
END_TEST

START_TEST(test_cancelled_clone_leaves_nothing)
{
    put("base", 0, 'a');
    struct progress progress = {.cancelled = true};
    g_autoptr(GError) error = NULL;
    struct clone_options options = {"never", false, NULL};
    ck_assert(!machine_clone(library, find("base"), &options, &progress, &error));
    ck_assert(g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_CANCELLED));
    ck_assert(!library_find(library, "never", NULL));
    expect("base", "a");
}
END_TEST

// A child works on snapshots until it is killed; whatever the moment, the machine shows one of the states it was in.
static void child_work(void)
{
    char name[32];
    g_random_set_seed(getpid()); // not the same names as the children before
    for (unsigned i = 0;; i++) {
        snprintf(name, sizeof(name), "s%u-%d", i, (int)getpid());
        struct machine_entry *entry = library_find(library, "base", NULL);
        if (!entry || !snapshot_take(entry->folder, name, NULL, NULL))
            _exit(1);
        g_autoptr(GPtrArray) list = snapshot_list(entry->folder);
        struct snapshot *snapshot = snapshot_find(list, name, NULL);
        if (i % 3 == 1 && snapshot)
            snapshot_restore(entry->folder, snapshot, NULL);
        else if (i % 3 == 2 && list->len > 2)
            snapshot_delete(entry->folder, list->pdata[0], false, library, NULL, NULL);
    }
}

static void write_block(struct disk *disk, unsigned block, char value)
{
    char data[65536];
    memset(data, value, sizeof(data));
    ck_assert_int_eq(disk_write(disk, block * sizeof(data), data, sizeof(data)), 0);
}

// As a running monitor does it: the disk is written to until the overlay is put over it, and by nobody afterwards.
START_TEST(test_overlay_over_a_disk_in_use)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *lower = present_disk("base"), *leaf = g_path_get_basename(lower);
    g_autofree char *folder = g_path_get_dirname(lower), *upper = g_build_filename(folder, "upper.qcow2", NULL);
    struct disk *base = disk_open(lower, "qcow2", 0, &error);
    must(base, error);
    write_block(base, 0, 'a');
    struct disk *overlay = disk_overlay_prepare(base, upper, leaf, &error);
    must(overlay, error);
    write_block(base, 1, 'b'); // after the overlay was made
    ck_assert(disk_overlay_stack(overlay, base));
    ck_assert_ptr_null(disk_open(lower, "qcow2", DISK_OPEN_READ_ONLY, NULL)); // not yet on stable storage
    write_block(overlay, 2, 'c');
    ck_assert_int_eq(disk_flush(overlay), 0);
    ck_assert_int_eq(disk_overlay_settle(overlay), 0);
    struct disk *reader = disk_open(lower, "qcow2", DISK_OPEN_READ_ONLY, &error); // a linked clone's, say
    must(reader, error);
    char both[65536], alone[65536];
    for (unsigned block = 0; block < 3; block++) {
        ck_assert_int_eq(disk_read(overlay, block * sizeof(both), both, sizeof(both)), 0);
        ck_assert_int_eq(both[7], "abc"[block]);
        ck_assert_int_eq(disk_read(reader, block * sizeof(alone), alone, sizeof(alone)), 0);
        ck_assert_int_eq(alone[7], block < 2 ? "abc"[block] : 0);
    }
    disk_close(reader);
    disk_close(overlay);
    // The overlay knows its base by now: another one in its place is noticed.
    overlay = disk_open(upper, "qcow2", 0, &error);
    must(overlay, error);
    disk_close(overlay);
    base = disk_open(lower, "qcow2", 0, &error);
    must(base, error);
    write_block(base, 1, 'x');
    disk_close(base);
    ck_assert_ptr_null(disk_open(upper, "qcow2", 0, NULL));
}
END_TEST

START_TEST(test_overlay_of_a_resized_disk_is_refused)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *lower = present_disk("base"), *leaf = g_path_get_basename(lower);
    g_autofree char *folder = g_path_get_dirname(lower), *upper = g_build_filename(folder, "upper.qcow2", NULL);
    struct disk *base = disk_open(lower, "qcow2", 0, &error);
    must(base, error);
    struct disk *overlay = disk_overlay_prepare(base, upper, leaf, &error);
    must(overlay && disk_resize(base, 2 * DISK_SIZE, &error), error);
    ck_assert(!disk_overlay_stack(overlay, base));
    write_block(base, 0, 'a'); // it is as it was
    disk_close(overlay);
    disk_close(base);
}
END_TEST

struct writer {
    struct disk *disk;
    unsigned from, to; // blocks
};

static gpointer write_blocks(gpointer data)
{
    struct writer *writer = data;
    for (unsigned block = writer->from; block < writer->to; block++)
        write_block(writer->disk, block, 'n');
    return NULL;
}

// A base is done without while the overlay is written to: what the guest writes meanwhile is never overwritten by it.
START_TEST(test_overlay_absorbs_its_base)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *lower = present_disk("base"), *leaf = g_path_get_basename(lower);
    g_autofree char *folder = g_path_get_dirname(lower), *upper = g_build_filename(folder, "upper.qcow2", NULL);
    struct disk *base = disk_open(lower, "qcow2", 0, &error);
    must(base, error);
    for (unsigned block = 0; block < 60; block++)
        if (block % 7)
            write_block(base, block, 'o');
    struct disk *overlay = disk_overlay_prepare(base, upper, leaf, &error);
    must(overlay && disk_overlay_stack(overlay, base), error);
    ck_assert_int_eq(disk_overlay_settle(overlay), 0);
    struct progress progress = {0};
    struct writer writer = {overlay, 20, 40};
    GThread *thread = g_thread_new("writer", write_blocks, &writer);
    must(disk_overlay_absorb(overlay, &progress, &error), error);
    ck_assert_uint_eq(progress.done, DISK_SIZE);
    g_thread_join(thread);
    struct disk *gone = disk_overlay_unstack(overlay, &error);
    must(gone == base, error);
    disk_close(gone);
    ck_assert_ptr_null(disk_backing(overlay));
    disk_close(overlay);
    ck_assert_int_eq(unlink(lower), 0);
    overlay = disk_open(upper, "qcow2", DISK_OPEN_READ_ONLY, &error);
    must(overlay, error);
    for (unsigned block = 0; block < 60; block++) {
        char data[65536], wanted = block >= 20 && block < 40 ? 'n' : block % 7 ? 'o' : 0;
        ck_assert_int_eq(disk_read(overlay, block * sizeof(data), data, sizeof(data)), 0);
        ck_assert_msg(data[0] == wanted && data[65535] == wanted, "block %u is %d, not %d", block, data[0], wanted);
    }
    disk_close(overlay);
}
END_TEST

#define USED 40 // blocks

// Writes, zeroes and discards whole blocks at random; SHOWN is what each shows then.
struct worker {
    struct disk *disk;
    unsigned seed;
    char shown[USED];
    atomic_bool stop;
};

static gpointer work_randomly(gpointer data)
{
    struct worker *worker = data;
    g_autoptr(GRand) random = g_rand_new_with_seed(worker->seed);
    while (!atomic_load(&worker->stop)) {
        unsigned block = g_rand_int_range(random, 0, USED), kind = g_rand_int_range(random, 0, 6);
        worker->shown[block] = kind > 1 ? g_rand_int_range(random, 1, 100) : 0;
        if (kind > 1)
            write_block(worker->disk, block, worker->shown[block]);
        else
            ck_assert_int_eq(disk_write_zeroes(worker->disk, block * 65536, 65536, kind ? DISK_MAY_UNMAP : 0), 0);
    }
    return NULL;
}

static void expect_blocks(struct disk *disk, const char *shown)
{
    char data[65536];
    for (unsigned block = 0; block < USED; block++) {
        ck_assert_int_eq(disk_read(disk, block * sizeof(data), data, sizeof(data)), 0);
        ck_assert_msg(data[0] == shown[block] && data[65535] == shown[block], "block %u is %d, not %d", block, data[0],
                      shown[block]);
    }
}

// A snapshot is given up: what the overlay got goes to its base while it is written to; then the base is used again.
START_TEST(test_overlay_gives_its_base_back)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *lower = present_disk("base"), *leaf = g_path_get_basename(lower);
    g_autofree char *folder = g_path_get_dirname(lower), *upper = g_build_filename(folder, "upper.qcow2", NULL);
    struct disk *base = disk_open(lower, "qcow2", 0, &error);
    must(base, error);
    struct worker worker = {.disk = base};
    for (unsigned block = 0; block < USED; block++)
        write_block(base, block, worker.shown[block] = 'o');
    for (unsigned round = 0; round < 20; round++) {
        struct disk *overlay = disk_overlay_prepare(base, upper, leaf, &error);
        must(overlay && disk_overlay_stack(overlay, base), error);
        ck_assert(!disk_overlay_give(overlay, 0, DISK_SIZE, NULL, NULL)); // not settled
        ck_assert_int_eq(disk_overlay_settle(overlay), 0);
        worker.disk = overlay;
        worker.seed = round;
        atomic_store(&worker.stop, false);
        GThread *thread = g_thread_new("worker", work_randomly, &worker);
        for (unsigned n = 0; n < 5; n++)
            must(disk_overlay_give(overlay, 0, DISK_SIZE, NULL, &error), error);
        atomic_store(&worker.stop, true);
        g_thread_join(thread);
        expect_blocks(overlay, worker.shown);
        must(disk_overlay_give(overlay, 0, DISK_SIZE, NULL, &error), error);
        ck_assert_int_eq(disk_overlay_settle(overlay), 0);
        ck_assert_ptr_eq(disk_overlay_lift(overlay, &error), base);
        if (round % 3 == 0) { // not after all; and again
            disk_overlay_unlift(overlay, base);
            write_block(overlay, 3, worker.shown[3] = 'u');
            expect_blocks(overlay, worker.shown);
            must(disk_overlay_give(overlay, 0, DISK_SIZE, NULL, &error), error);
            ck_assert_int_eq(disk_overlay_settle(overlay), 0);
            ck_assert_ptr_eq(disk_overlay_lift(overlay, &error), base);
        }
        disk_close(overlay);
        ck_assert_int_eq(unlink(upper), 0);
        ck_assert_ptr_null(disk_open(lower, "qcow2", 0, NULL)); // ours alone again
        write_block(base, 5, worker.shown[5] = 'b');
        expect_blocks(base, worker.shown);
    }
    disk_close(base);
    base = disk_open(lower, "qcow2", DISK_OPEN_READ_ONLY, &error);
    must(base, error);
    expect_blocks(base, worker.shown);
    struct disk_check_result result = {0};
    disk_close(base);
    must(disk_check(lower, "qcow2", false, &result, NULL, &error), error);
    ck_assert_uint_eq(result.corruptions, 0);
    ck_assert_uint_eq(result.leaks, 0);
    disk_check_clear(&result);
}
END_TEST

static char *base_of(const char *path)
{
    g_autoptr(GError) error = NULL;
    struct disk_info *info = disk_info(path, NULL, &error);
    must(info != NULL, error);
    char *base = info->backing_path ? g_canonicalize_filename(info->backing_path, NULL) : NULL;
    disk_info_free(info);
    return base;
}

static void recover(const char *machine)
{
    g_autoptr(GError) error = NULL;
    int lock = machine_folder_lock(find(machine)->folder, &error);
    must(lock >= 0, error);
    close(lock);
}

// One image for each snapshot and the present state, which stands on that of the present snapshot; nothing else.
static void expect_tidy(const char *machine)
{
    g_autofree char *folder = g_strdup(find(machine)->folder), *all = g_build_filename(folder, "snapshots", NULL);
    g_autoptr(GPtrArray) list = snapshot_list(folder);
    ck_assert_uint_eq(images(machine), list->len + 1);
    g_autofree char *present = present_disk(machine), *base = base_of(present);
    for (unsigned i = 0; i < list->len; i++) {
        const struct snapshot *snapshot = list->pdata[i];
        g_autofree char *image =
            g_build_filename(folder, ((struct snapshot_disk *)snapshot->disks->pdata[0])->file, NULL);
        ck_assert_int_eq(snapshot->current, g_strcmp0(image, base) == 0);
    }
    GDir *dir = g_dir_open(all, 0, NULL);
    const char *name;
    while ((name = g_dir_read_name(dir)))
        ck_assert_msg(name[0] != '.', "%s is left over", name);
    g_dir_close(dir);
}

START_TEST(test_cancelled_delete_changes_nothing)
{
    put("base", 0, 'a');
    take("base", "one");
    put("base", 1, 'b');
    take("base", "two");
    put("base", 2, 'c');
    static const char *const names[] = {"one", "two"};
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        struct progress progress = {.cancelled = true};
        g_autoptr(GError) error = NULL;
        g_autoptr(GPtrArray) list = snapshot_list(find("base")->folder);
        ck_assert(
            !snapshot_delete(find("base")->folder, snapshot_named(list, names[i]), false, library, &progress, &error));
        ck_assert(g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_CANCELLED));
        recover("base");
        expect_tidy("base");
        expect("base", "abc");
    }
    delete ("base", "one");
    expect_tidy("base");
    expect("base", "abc");
    restore("base", "two");
    expect("base", "ab.");
}
END_TEST

// Two images below the present one are needed by one snapshot only: until it goes it can be restored.
START_TEST(test_delete_keeps_what_it_deletes_whole)
{
    put("base", 0, 'a');
    take("base", "one");
    put("base", 1, 'b');
    take("base", "two");
    put("base", 2, 'c');
    g_autoptr(GError) error = NULL;
    g_autofree char *folder = g_strdup(find("base")->folder), *present = present_disk("base");
    g_autoptr(GPtrArray) list = snapshot_list(folder);
    must(snapshot_delete(folder, snapshot_named(list, "one"), true, library, NULL, &error), error); // not merged
    const struct snapshot *two = snapshot_named(list, "two");
    g_autofree char *above = snapshot_spare_base(folder, present, two, library), *below = base_of(above);
    must(snapshot_drop_image(folder, two, above, &error) && snapshot_drop_image(folder, two, below, &error), error);
    restore("base", "two");
    expect("base", "ab.");
    delete ("base", "two");
    expect_tidy("base");
    expect("base", "ab.");
}
END_TEST

// What a linked clone stands on does not change.
START_TEST(test_delete_below_a_clone)
{
    put("base", 0, 'a');
    take("base", "one");
    put("base", 1, 'b');
    take("base", "two");
    struct clone_options options = {"of two", true, "two"};
    g_autoptr(GError) error = NULL;
    must(machine_clone(library, find("base"), &options, NULL, &error), error);
    put("of two", 2, 'x');
    put("base", 2, 'c');
    delete ("base", "one");
    expect("of two", "abx");
    expect("base", "abc");
    delete ("base", "two");
    expect("of two", "abx");
    expect("base", "abc");
    ck_assert_uint_eq(images("base"), 3);
    host_folder_remove(find("of two")->folder, NULL);
    take("base", "three");
    delete ("base", "three");
    ck_assert_uint_eq(images("base"), 1);
    expect("base", "abc");
}
END_TEST

// The snapshot was begun and the guest wrote on: that is put into the image that it began with.
START_TEST(test_unfinished_is_taken_back)
{
    put("base", 0, 'a');
    take("base", "one");
    put("base", 1, 'b');
    g_autofree char *folder = g_strdup(find("base")->folder), *before = present_disk("base");
    g_autoptr(GError) error = NULL;
    struct snapshot *new = snapshot_begin(folder, "never", NULL, &error);
    must(new != NULL &&snapshot_switch_disks(folder, new, &error), error);
    put("base", 1, 'B');
    put("base", 2, 'c');
    must(snapshot_note_loose(folder, "disk0-unused.qcow2", &error), error);
    g_autofree char *unused = g_build_filename(folder, "disk0-unused.qcow2", NULL);
    ck_assert(g_file_set_contents(unused, "x", 1, NULL));
    snapshot_leave(new);

    struct disk *reader = disk_open(before, "qcow2", DISK_OPEN_READ_ONLY, &error);
    must(reader != NULL, error);
    recover("base"); // nobody may write to it
    expect("base", "aBc");
    disk_close(reader);
    recover("base");
    expect("base", "aBc");
    expect_tidy("base");
    g_autofree char *after = present_disk("base");
    ck_assert_str_eq(after, before);
}
END_TEST

START_TEST(test_killed_at_any_moment)
{
    put("base", 0, 'k');
    g_autoptr(GRand) random = g_rand_new_with_seed(11);
    unsigned rounds = g_getenv("CLOCHE_LONG") ? 300 : 25;
    for (unsigned round = 0; round < rounds; round++) {
        pid_t pid = fork();
        if (pid == 0)
            child_work();
        g_usleep(g_rand_int_range(random, 1000, 120000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        recover("base");
        expect("base", "k..");
        expect_tidy("base");
        g_autoptr(GPtrArray) list = snapshot_list(find("base")->folder);
        for (unsigned i = 0; i < list->len; i++) {
            const struct snapshot *snapshot = list->pdata[i];
            const struct snapshot_disk *disk = snapshot->disks->pdata[0];
            g_autofree char *path = g_build_filename(find("base")->folder, disk->file, NULL);
            g_autoptr(GError) error = NULL;
            struct disk *image = disk_open(path, "qcow2", DISK_OPEN_READ_ONLY, &error);
            ck_assert_msg(image != NULL, "%s: %s", snapshot->name, error ? error->message : "");
            char byte[512];
            ck_assert(disk_read(image, 0, byte, 512) == 0 && byte[0] == 'k');
            disk_close(image);
        }
    }
    take("base", "still works");
    put("base", 1, 'l');
    expect("base", "kl");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshots");
    TCase *tests = tcase_create("snapshots");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_tree);
    tcase_add_test(tests, test_rename);
    tcase_add_test(tests, test_clones);
    tcase_add_test(tests, test_moved_base);
    tcase_add_test(tests, test_template);
    tcase_add_test(tests, test_archive);
    tcase_add_test(tests, test_cancelled_clone_leaves_nothing);
    tcase_add_test(tests, test_overlay_over_a_disk_in_use);
    tcase_add_test(tests, test_overlay_of_a_resized_disk_is_refused);
    tcase_add_test(tests, test_overlay_absorbs_its_base);
    tcase_add_test(tests, test_overlay_gives_its_base_back);
    tcase_add_test(tests, test_cancelled_delete_changes_nothing);
    tcase_add_test(tests, test_delete_keeps_what_it_deletes_whole);
    tcase_add_test(tests, test_delete_below_a_clone);
    tcase_add_test(tests, test_unfinished_is_taken_back);
    tcase_add_test(tests, test_killed_at_any_moment);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
