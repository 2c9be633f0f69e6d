// SPDX-License-Identifier: GPL-2.0-or-later
// core/memory: backing, trackers, damage, priorities, splitting of accesses, retirement of maps.
#include "core/memory/memory.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct fixture {
    GRecMutex lock;
    struct ram *ram;
    struct address_space *space;
    uint64_t main;
};

static void set_up(struct fixture *f)
{
    g_rec_mutex_init(&f->lock);
    f->ram = ram_new(16 * MiB, NULL);
    ck_assert_ptr_nonnull(f->ram);
    f->main = ram_alloc(f->ram, 4 * MiB);
    f->space = address_space_new("memory", f->ram, 1ull << 40, &f->lock);
}

static void tear_down(struct fixture *f)
{
    address_space_free(f->space);
    ram_free(f->ram);
    g_rec_mutex_clear(&f->lock);
}

// ---- a device that remembers its accesses ----
struct probe {
    unsigned count;
    uint64_t offset[16], value[16];
    unsigned size[16];
};

static uint64_t probe_read(void *opaque, uint64_t offset, unsigned size)
{
    struct probe *p = opaque;
    p->offset[p->count % 16] = offset;
    p->size[p->count++ % 16] = size;
    return 0x8877665544332211ull >> 8 * (offset & 7);
}

static void probe_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct probe *p = opaque;
    p->offset[p->count % 16] = offset;
    p->value[p->count % 16] = value;
    p->size[p->count++ % 16] = size;
}

static const struct io_ops byte_ops = {probe_read, probe_write, 1, 1};
static const struct io_ops dword_ops = {probe_read, probe_write, 4, 4};
static const struct io_ops any_ops = {probe_read, probe_write, 1, 8};

START_TEST(nothing_there_reads_all_ones)
{
    struct fixture f;
    set_up(&f);
    ck_assert_uint_eq(address_space_load(f.space, 0x1234, 4), 0xffffffff);
    ck_assert_uint_eq(address_space_load(f.space, UINT64_MAX - 1, 8), UINT64_MAX);
    address_space_store(f.space, 0x1234, 5, 4);
    uint8_t bytes[3];
    address_space_read(f.space, (1ull << 40) - 2, bytes, 3);
    ck_assert_uint_eq(bytes[2], 0xff);
    tear_down(&f);
}
END_TEST

START_TEST(higher_priority_covers_and_uncovers)
{
    struct fixture f;
    set_up(&f);
    struct region ram, rom, io;
    struct probe probe = {0};
    region_init_ram(&ram, "ram", f.main, 1 * MiB);
    region_init_rom(&rom, "rom", ram_alloc(f.ram, 64 * KiB), 64 * KiB);
    region_init_io(&io, "io", &any_ops, &probe, 0x1000);
    address_space_map(f.space, &ram, 0, 0);
    address_space_store(f.space, 0xf0000, 0xabcd, 2);
    address_space_map(f.space, &rom, 0xf0000, 1);
    ck_assert_uint_eq(address_space_load(f.space, 0xf0000, 2), 0);
    address_space_store(f.space, 0xf0000, 0x1111, 2); // ROM drops it
    ck_assert_uint_eq(address_space_load(f.space, 0xf0000, 2), 0);
    address_space_map(f.space, &io, 0xf0800, 2);
    const struct mapping *m = address_space_find(f.space, 0xf0900);
    ck_assert_ptr_eq(m->region, &io);
    ck_assert_uint_eq(m->start, 0xf0800);
    m = address_space_find(f.space, 0xf1800);
    ck_assert_ptr_eq(m->region, &rom);
    ck_assert_uint_eq(m->offset, 0x1800);
    address_space_unmap(&io);
    address_space_unmap(&rom);
    ck_assert_uint_eq(address_space_load(f.space, 0xf0000, 2), 0xabcd);
    ck_assert_ptr_null(address_space_find(f.space, 1 * MiB));
    tear_down(&f);
}
END_TEST

START_TEST(registers_see_their_own_sizes)
{
    struct fixture f;
    set_up(&f);
    struct region bytes, dwords;
    struct probe b = {0}, d = {0};
    region_init_io(&bytes, "bytes", &byte_ops, &b, 16);
    region_init_io(&dwords, "dwords", &dword_ops, &d, 16);
    address_space_map(f.space, &bytes, 0x100, 0);
    address_space_map(f.space, &dwords, 0x200, 0);
    ck_assert_uint_eq(address_space_load(f.space, 0x102, 4), 0x66554433);
    ck_assert_uint_eq(b.count, 4);
    ck_assert_uint_eq(b.offset[3], 5);
    ck_assert_uint_eq(address_space_load(f.space, 0x202, 2), 0x4433);
    ck_assert_uint_eq(d.count, 1);
    ck_assert_uint_eq(d.offset[0], 0);
    ck_assert_uint_eq(d.size[0], 4);
    address_space_store(f.space, 0x204, 0x1122334455667788ull, 8);
    ck_assert_uint_eq(d.count, 3);
    ck_assert_uint_eq(d.value[1], 0x55667788);
    ck_assert_uint_eq(d.value[2], 0x11223344);
    ck_assert_uint_eq(d.offset[2], 8);
    // Past the end of the registers there is nothing.
    ck_assert_uint_eq(address_space_load(f.space, 0x20e, 4) >> 16, 0xffff);
    tear_down(&f);
}
END_TEST

struct seen {
    unsigned before, after;
    uint64_t offset, length;
};

static void see(void *opaque, uint64_t offset, uint64_t length, enum ram_write_phase phase)
{
    struct seen *seen = opaque;
    seen->offset = offset;
    seen->length = length;
    phase == RAM_WRITE_BEFORE ? seen->before++ : seen->after++;
}

static void count_revoke(void *opaque, uint64_t offset)
{
    ++*(unsigned *)opaque;
}

START_TEST(trackers_see_writes_to_their_pages)
{
    struct fixture f;
    set_up(&f);
    struct region ram;
    struct seen seen = {0};
    unsigned revoked = 0;
    region_init_ram(&ram, "ram", f.main, 1 * MiB);
    address_space_map(f.space, &ram, 0, 0);
    ram_set_tracker(f.ram, TRACK_CODE, see, &seen);
    ram_set_revoke(f.ram, count_revoke, &revoked);
    ram_track(f.ram, f.main + 0x3123, TRACK_CODE);
    ram_track(f.ram, f.main + 0x3000, TRACK_CODE);
    ram_track(f.ram, f.main + 0x3000, TRACK_DIRTY);
    ck_assert_uint_eq(revoked, 1);
    ck_assert_uint_eq(ram_tracked(f.ram, f.main + 0x3fff), TRACK_CODE | TRACK_DIRTY);
    address_space_store(f.space, 0x2ff8, 1, 8);
    ck_assert_uint_eq(seen.after, 0);
    uint8_t bytes[0x2000] = {7};
    address_space_write(f.space, 0x2800, bytes, sizeof(bytes));
    ck_assert_uint_eq(seen.before, 1);
    ck_assert_uint_eq(seen.after, 1);
    ck_assert_uint_eq(seen.offset, f.main + 0x3000);
    ck_assert_uint_eq(seen.length, 0x1000);
    ram_untrack(f.ram, f.main + 0x3000, TRACK_CODE);
    address_space_store(f.space, 0x3000, 1, 8);
    ck_assert_uint_eq(seen.after, 1);
    tear_down(&f);
}
END_TEST

START_TEST(damage_names_each_page_once)
{
    struct fixture f;
    set_up(&f);
    uint64_t video = ram_alloc(f.ram, 1 * MiB), bitmap[4] = {0};
    struct region region;
    region_init_ram(&region, "video", video, 1 * MiB);
    address_space_map(f.space, &region, 0xe0000000, 0);
    struct ram_damage *damage = ram_damage_new(f.ram, video, 1 * MiB);
    ck_assert_uint_eq(ram_damage_harvest(damage, bitmap), 0);
    address_space_store(f.space, 0xe0005000, 1, 4);
    address_space_store(f.space, 0xe0005004, 1, 4);
    address_space_store(f.space, 0xe00ff000, 1, 4);
    ck_assert_uint_eq(ram_tracked(f.ram, video + 0x5000), 0);
    ck_assert_uint_eq(ram_damage_harvest(damage, bitmap), 2);
    ck_assert_uint_eq(bitmap[0], 1 << 5);
    ck_assert_uint_eq(bitmap[3], 1ull << 63);
    ck_assert_uint_eq(ram_tracked(f.ram, video + 0x5000), TRACK_VIDEO);
    ck_assert_uint_eq(ram_damage_harvest(damage, bitmap), 0);
    ram_damage_mark(damage, 0x1fff, 2);
    ck_assert_uint_eq(ram_damage_harvest(damage, bitmap), 2);
    ck_assert_uint_eq(bitmap[0], 1 << 5 | 1 << 1 | 1 << 2);
    ram_damage_free(damage);
    ck_assert_uint_eq(ram_tracked(f.ram, video), 0);
    tear_down(&f);
}
END_TEST

START_TEST(dma_stays_in_one_mapping)
{
    struct fixture f;
    set_up(&f);
    struct region ram;
    uint64_t offset = 0;
    region_init_ram(&ram, "ram", f.main, 1 * MiB);
    address_space_map(f.space, &ram, 0, 0);
    ck_assert_ptr_eq(address_space_dma(f.space, 0x1000, 0x1000, &offset), f.ram->host + f.main + 0x1000);
    ck_assert_uint_eq(offset, f.main + 0x1000);
    ck_assert_ptr_null(address_space_dma(f.space, 0xff000, 0x1001, NULL));
    ck_assert_ptr_null(address_space_dma(f.space, 0xff000, UINT64_MAX, NULL));
    tear_down(&f);
}
END_TEST

static void count_change(void *opaque)
{
    ++*(unsigned *)opaque;
}

START_TEST(changes_take_effect_together)
{
    struct fixture f;
    set_up(&f);
    struct region a, b;
    unsigned changes = 0;
    region_init_ram(&a, "a", f.main, 0x1000);
    region_init_ram(&b, "b", f.main + 0x1000, 0x1000);
    address_space_set_changed(f.space, count_change, &changes);
    address_space_begin(f.space);
    address_space_map(f.space, &a, 0, 0);
    address_space_map(f.space, &b, 0x1000, 0);
    ck_assert_ptr_null(address_space_find(f.space, 0));
    address_space_commit(f.space);
    ck_assert_uint_eq(changes, 1);
    ck_assert_ptr_nonnull(address_space_find(f.space, 0x1000));
    g_autofree char *text = address_space_describe(f.space);
    ck_assert_ptr_nonnull(strstr(text, "000000001000-000000001fff ram b"));
    tear_down(&f);
}
END_TEST

START_TEST(folded_odd_mebibytes_show_even_ones)
{
    struct fixture f;
    set_up(&f);
    struct region ram, device, high;
    struct probe probe = {0};
    struct mapping m;
    region_init_ram(&ram, "ram", f.main, 4 * MiB);
    region_init_ram(&high, "high", f.main, 4 * MiB);
    region_init_io(&device, "device", &any_ops, &probe, 0x2000);
    address_space_map(f.space, &ram, 0, 0);
    address_space_map(f.space, &device, 0xa0000, 1);
    address_space_map(f.space, &high, 5ull << 30, 0);
    address_space_store(f.space, 0x100500, 0x1111, 2);
    address_space_set_fold(f.space, true);
    address_space_store(f.space, 0x500, 0x2222, 2);
    ck_assert_uint_eq(address_space_load(f.space, 0x100500, 2), 0x2222);
    address_space_store(f.space, 0x3fffff, 0x33, 1);
    ck_assert_uint_eq(address_space_load(f.space, 0x2fffff, 1), 0x33);
    address_space_store(f.space, 0x1a0010, 7, 4);
    ck_assert_uint_eq(probe.count, 1);
    ck_assert_uint_eq(probe.offset[0], 0x10);
    ck_assert(!address_space_lookup(f.space, 0x500000, &m)); // even: empty
    ck_assert(address_space_lookup(f.space, (5ull << 30) + 0x100500, &m));
    ck_assert_uint_eq(m.ram_offset + (5ull << 30) + 0x100500 - m.start, f.main + 0x100500); // above 4 GiB: as it was
    address_space_set_fold(f.space, false);
    ck_assert_uint_eq(address_space_load(f.space, 0x100500, 2), 0x1111);
    ck_assert_uint_eq(address_space_load(f.space, 0x500, 2), 0x2222);
    tear_down(&f);
}
END_TEST

struct race {
    struct address_space *space;
    _Atomic bool stop;
    _Atomic unsigned bad;
};

static void *read_for_ever(void *opaque)
{
    struct race *race = opaque;
    while (!race->stop) {
        uint64_t value = address_space_load(race->space, 0x1000, 8);
        if (value != 0x5a5a5a5a5a5a5a5aull && value != UINT64_MAX)
            race->bad++;
    }
    return NULL;
}

START_TEST(moving_for_ever_keeps_few_maps)
{
    struct fixture f;
    set_up(&f);
    struct region ram;
    struct race race = {.space = f.space};
    pthread_t threads[2];
    memset(f.ram->host + f.main, 0x5a, 0x1000);
    region_init_ram(&ram, "ram", f.main, 0x1000);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, read_for_ever, &race);
    unsigned worst = 0;
    for (int i = 0; i < 30000; i++) {
        address_space_map(f.space, &ram, i & 1 ? 0x1000 : 0x8000, 0);
        address_space_unmap(&ram);
        worst = MAX(worst, address_space_retired(f.space));
    }
    race.stop = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(race.bad, 0);
    ck_assert_uint_lt(worst, 20000);
    address_space_map(f.space, &ram, 0, 0);
    address_space_unmap(&ram);
    ck_assert_uint_le(address_space_retired(f.space), 3);
    tear_down(&f);
}
END_TEST

static _Atomic int waiting;

static void begin_waiting(void *opaque)
{
    waiting = 1;
}

static void end_waiting(void *opaque)
{
    waiting = 2;
}

static void *take_lock(void *lock)
{
    static const struct lock_waiter waiter = {begin_waiting, end_waiting, NULL};
    io_lock_set_waiter(&waiter);
    io_lock_take(lock);
    io_lock_release(lock);
    return NULL;
}

START_TEST(a_waiter_says_that_it_waits)
{
    GRecMutex lock;
    pthread_t thread;
    g_rec_mutex_init(&lock);
    g_rec_mutex_lock(&lock);
    pthread_create(&thread, NULL, take_lock, &lock);
    while (waiting != 1)
        g_usleep(100);
    g_rec_mutex_unlock(&lock);
    pthread_join(thread, NULL);
    ck_assert_int_eq(waiting, 2);
    g_rec_mutex_clear(&lock);
}
END_TEST

START_TEST(too_much_memory_is_an_error)
{
    g_autoptr(GError) error = NULL;
    ck_assert_ptr_null(ram_new(1ull << 62, &error));
    ck_assert_ptr_nonnull(error);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory");
    TCase *tests = tcase_create("memory");
    tcase_add_test(tests, nothing_there_reads_all_ones);
    tcase_add_test(tests, higher_priority_covers_and_uncovers);
    tcase_add_test(tests, registers_see_their_own_sizes);
    tcase_add_test(tests, trackers_see_writes_to_their_pages);
    tcase_add_test(tests, damage_names_each_page_once);
    tcase_add_test(tests, dma_stays_in_one_mapping);
    tcase_add_test(tests, changes_take_effect_together);
    tcase_add_test(tests, folded_odd_mebibytes_show_even_ones);
    tcase_add_test(tests, moving_for_ever_keeps_few_maps);
    tcase_add_test(tests, a_waiter_says_that_it_waits);
    tcase_add_test(tests, too_much_memory_is_an_error);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
