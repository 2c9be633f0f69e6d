// SPDX-License-Identifier: GPL-2.0-or-later
// The floppy controller through its ports, with a fake disk and a fake DMA channel: every geometry, transfers by DMA
// and FIFO, formatting, media change, errors, random accesses.
#include "devices/storage/floppy.h"

#include "core/machine/drive.h"
#include "devices/chipset/chipset.h"
#include "tests/unit/fake-disk.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

extern const struct device_class floppy_class;
static const struct device_class fake_dma_class = {.name = "fake-dma", .size = sizeof(struct device)};
const struct device_class *const device_classes[] = {&floppy_class, &fake_dma_class, NULL};

enum { READ = 0xe6, WRITE = 0xc5, FORMAT = 0x4d, READ_ID = 0x4a };

static struct machine *machine;
static struct device *floppy;
static struct drive *drive;
static bool line;
// The DMA channel: a piece of memory and how much of it the guest asked for.
static uint8_t memory[65536];
static unsigned dma_count;
static bool dma_done;

unsigned i8237_to_device(struct device *dma, unsigned channel, void *data, unsigned length)
{
    unsigned moved = MIN(length, dma_count);
    memcpy(data, memory, moved);
    dma_done = moved && moved == dma_count;
    return moved;
}

unsigned i8237_from_device(struct device *dma, unsigned channel, const void *data, unsigned length)
{
    unsigned moved = MIN(length, dma_count);
    memcpy(memory, data, moved);
    dma_done = moved && moved == dma_count;
    return moved;
}

bool i8237_terminal_count(struct device *dma, unsigned channel)
{
    return dma_done;
}

static void set_line(void *opaque, unsigned number, bool level)
{
    line = level;
}

static void out(unsigned port, unsigned value)
{
    address_space_store(machine->ports, port, value, 1);
}

static unsigned in(unsigned port)
{
    return address_space_load(machine->ports, port, 1);
}

static void wait_line(void)
{
    for (unsigned i = 0; i < 20000 && !line; i++) {
        clock_advance(machine->clock, 1000000);
        g_main_context_iteration(machine->context, false);
        if (!line)
            g_usleep(50);
    }
    ck_assert_msg(line, "no interrupt");
}

static void send(const uint8_t *bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        ck_assert_uint_eq(in(0x3f4) & 0xc0, 0x80);
        out(0x3f5, bytes[i]);
    }
}
#define SEND(...) send((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static unsigned result(uint8_t *bytes)
{
    unsigned count = 0;
    while ((in(0x3f4) & 0xd0) == 0xd0 && count < 16)
        bytes[count++] = in(0x3f5);
    return count;
}

static void seek(unsigned track)
{
    uint8_t bytes[16];
    SEND(0x0f, 0, track);
    wait_line();
    SEND(8);
    ck_assert_uint_eq(result(bytes), 2);
    ck_assert_uint_eq(bytes[0], 0x20);
    ck_assert_uint_eq(bytes[1], track);
}

// A data command; returns ST0 with ST1 above it.
static unsigned transfer(uint8_t code, unsigned c, unsigned h, unsigned s, unsigned end, unsigned bytes)
{
    uint8_t answer[16];
    dma_count = bytes;
    SEND(code, h << 2, c, h, s, 2, end, 27, 255);
    wait_line();
    ck_assert_uint_eq(result(answer), 7);
    ck_assert(!line);
    return answer[0] | answer[1] << 8;
}

static void start_controller(void)
{
    uint8_t bytes[16];
    out(0x3f2, 0);
    out(0x3f2, 0x1c);
    wait_line();
    for (unsigned i = 0; i < 4; i++) {
        SEND(8);
        ck_assert_uint_eq(result(bytes), 2);
        ck_assert_uint_eq(bytes[0], 0xc0 | i);
    }
    SEND(8);
    ck_assert_uint_eq(result(bytes), 1);
    ck_assert_uint_eq(bytes[0], 0x80);
    SEND(3, 0xdf, 2);
}

static void insert(unsigned size)
{
    GError *error = NULL;
    g_autofree char *file = g_strdup_printf("fake:%u", size);
    ck_assert_msg(drive_change_medium(drive, file, NULL, false, &error), "%s", error ? error->message : "");
    for (unsigned i = 0; i < size / 4; i++)
        store_le(fake_disk_data(drive->disk) + 4 * i, 4, i * 2654435761u);
}

static void setup(void)
{
    GError *error = NULL;
    machine = machine_create(4 * MiB, clock_new_manual(), &error);
    machine->isa_irq[6] = (struct irq){set_line, NULL, 6};
    drive = drive_new_with_disk(machine, "floppy0", DRIVE_FLOPPY, NULL);
    floppy = device_new(machine, "floppy", NULL, &error);
    device_set_pointer(floppy, "drive0", drive);
    device_set_pointer(floppy, "dma", device_new(machine, "fake-dma", NULL, &error));
    ck_assert_msg(device_realize(floppy, &error), "%s", error ? error->message : "");
    insert(1474560);
    start_controller();
}

static void teardown(void)
{
    machine_destroy(machine);
}

static const struct {
    unsigned kib, tracks, heads, sectors, rate, cmos;
} formats[] = {{160, 40, 1, 8, 2, 1},   {180, 40, 1, 9, 2, 1},   {320, 40, 2, 8, 2, 1},
               {360, 40, 2, 9, 2, 1},   {720, 80, 2, 9, 2, 4},   {1200, 80, 2, 15, 0, 2},
               {1440, 80, 2, 18, 0, 4}, {1680, 80, 2, 21, 0, 4}, {2880, 80, 2, 36, 3, 5}};

START_TEST(every_geometry)
{
    unsigned tracks = formats[_i].tracks, heads = formats[_i].heads, sectors = formats[_i].sectors;
    insert(formats[_i].kib * 1024);
    ck_assert_uint_eq(floppy_cmos_types(floppy), formats[_i].cmos << 4);
    out(0x3f7, formats[_i].rate);
    for (unsigned c = 0; c < tracks; c += 13) {
        seek(c);
        for (unsigned h = 0; h < heads; h++) {
            unsigned offset = (c * heads + h) * sectors * 512;
            ck_assert_uint_eq(transfer(READ & 0x7f, c, h, 1, sectors, sectors * 512), h << 2);
            ck_assert_int_eq(memcmp(memory, fake_disk_data(drive->disk) + offset, sectors * 512), 0);
            ck_assert_uint_eq(transfer(READ & 0x7f, c, h, sectors, sectors, 512), h << 2);
            ck_assert_int_eq(memcmp(memory, fake_disk_data(drive->disk) + offset + (sectors - 1) * 512, 512), 0);
        }
    }
    ck_assert_uint_eq(transfer(READ, 3, 0, 1, sectors, 512) & 0xc0, 0x40); // the wrong cylinder
    out(0x3f7, formats[_i].rate == 0 ? 2 : 0);
    seek(0);
    ck_assert_uint_eq(transfer(READ, 0, 0, 1, sectors, 512) & 0x1c0, 0x140); // the wrong rate
}
END_TEST

START_TEST(multi_track_and_writes)
{
    out(0x3f7, 0);
    seek(5);
    unsigned offset = 5 * 36 * 512;
    ck_assert_uint_eq(transfer(READ, 5, 0, 3, 18, 34 * 512), 0);
    ck_assert_int_eq(memcmp(memory, fake_disk_data(drive->disk) + offset + 2 * 512, 34 * 512), 0);
    for (unsigned i = 0; i < 34 * 512; i++)
        memory[i] = i * 7;
    ck_assert_uint_eq(transfer(WRITE, 5, 0, 3, 18, 34 * 512), 0);
    ck_assert_int_eq(memcmp(memory, fake_disk_data(drive->disk) + offset + 2 * 512, 34 * 512), 0);
    memset(memory, 0x11, 1024);
    ck_assert_uint_eq(transfer(WRITE, 5, 0, 1, 18, 512), 0);
    ck_assert_uint_eq(fake_disk_data(drive->disk)[offset + 511], 0x11);
    ck_assert_uint_ne(fake_disk_data(drive->disk)[offset + 512], 0x11);
}
END_TEST

START_TEST(transfers_by_fifo)
{
    uint8_t bytes[16];
    out(0x3f7, 0);
    SEND(3, 0xdf, 3); // no DMA
    seek(1);
    SEND(READ & 0x7f, 0, 1, 0, 2, 2, 2, 27, 255);
    wait_line();
    for (unsigned i = 0; i < 512; i++) {
        ck_assert_uint_eq(in(0x3f4), 0xf0);
        ck_assert_uint_eq(in(0x3f5), fake_disk_data(drive->disk)[(36 + 1) * 512 + i]);
    }
    ck_assert_uint_eq(result(bytes), 7);
    ck_assert_uint_eq(bytes[1], 0x80); // no terminal count: end of cylinder
    SEND(WRITE & 0x7f, 0, 1, 0, 4, 2, 4, 27, 255);
    for (unsigned i = 0; i < 512; i++) {
        ck_assert_uint_eq(in(0x3f4), 0xb0);
        out(0x3f5, 0x99);
    }
    wait_line();
    ck_assert_uint_eq(result(bytes), 7);
    ck_assert_uint_eq(fake_disk_data(drive->disk)[(36 + 3) * 512 + 77], 0x99);
}
END_TEST

START_TEST(format_and_read_id)
{
    uint8_t bytes[16];
    out(0x3f7, 0);
    seek(2);
    dma_count = 18 * 4;
    SEND(FORMAT, 4, 2, 18, 84, 0xf6);
    wait_line();
    ck_assert_uint_eq(result(bytes), 7);
    ck_assert_uint_eq(bytes[0], 4);
    const uint8_t *track = fake_disk_data(drive->disk) + (2 * 36 + 18) * 512;
    for (unsigned i = 0; i < 18 * 512; i++)
        ck_assert_uint_eq(track[i], 0xf6);
    SEND(READ_ID, 4);
    ck_assert_uint_eq(in(0x3f4), 0x10);
    wait_line();
    ck_assert_uint_eq(result(bytes), 7);
    ck_assert_uint_eq(bytes[3], 2);
    ck_assert_uint_eq(bytes[4], 1);
    ck_assert_uint_eq(bytes[6], 2);
}
END_TEST

START_TEST(media_change_is_seen)
{
    GError *error = NULL;
    out(0x3f7, 0);
    seek(1);
    ck_assert_uint_eq(in(0x3f7), 0);
    ck_assert(drive_eject(drive, false, &error));
    ck_assert_uint_eq(in(0x3f7), 0x80);
    seek(0);
    ck_assert_uint_eq(in(0x3f7), 0x80);
    ck_assert_uint_eq(transfer(READ, 0, 0, 1, 18, 512) & 0xc8, 0x48);
    insert(737280);
    ck_assert_uint_eq(in(0x3f7), 0x80);
    seek(1);
    ck_assert_uint_eq(in(0x3f7), 0);
    out(0x3f7, 2);
    ck_assert_uint_eq(transfer(READ, 1, 0, 1, 9, 512), 0);
}
END_TEST

START_TEST(errors_reach_the_guest)
{
    uint8_t bytes[16];
    out(0x3f7, 0);
    seek(0);
    fake_disk_fail(drive->disk, -EIO, 1);
    ck_assert_uint_eq(transfer(READ, 0, 0, 1, 18, 512) & 0xc0, 0x40);
    ck_assert_uint_eq(transfer(READ, 0, 0, 19, 19, 512) & 0xc0, 0x40);
    ck_assert_uint_eq(transfer(READ, 0, 0, 0, 18, 512) & 0xc0, 0x40);
    ck_assert_uint_eq(transfer(READ, 0, 0, 1, 18, 0) & 0x10c0, 0x1040); // no DMA programmed
    fake_disk_set_read_only(drive->disk, true);
    ck_assert_uint_eq(transfer(WRITE, 0, 0, 1, 18, 512) & 0x2c0, 0x240);
    SEND(4, 0);
    ck_assert_uint_eq(result(bytes), 1);
    ck_assert_uint_eq(bytes[0] & 0x40, 0x40);
    SEND(0x1d);
    ck_assert_uint_eq(result(bytes), 1);
    ck_assert_uint_eq(bytes[0], 0x80);
    SEND(0x10);
    ck_assert_uint_eq(result(bytes), 1);
    ck_assert_uint_eq(bytes[0], 0x90);
    ck_assert_uint_eq(transfer(READ, 0, 0, 1, 18, 512), 0);
}
END_TEST

START_TEST(random_registers)
{
    static const uint8_t codes[] = {READ, WRITE, FORMAT, READ_ID, 0x0f, 7, 8, 3, 4, 0x13, 0x14, 0x0e, 0x42, 0x56};
    GRand *rand = g_rand_new_with_seed(_i + 1);
    for (unsigned step = 0; step < 100000; step++) {
        dma_count = g_rand_int_range(rand, 0, 40000);
        switch (g_rand_int_range(rand, 0, 10)) {
        case 0:
            out(0x3f0 + g_rand_int_range(rand, 0, 8), g_rand_int(rand));
            break;
        case 1:
            in(0x3f0 + g_rand_int_range(rand, 0, 8));
            break;
        case 2:
            clock_advance(machine->clock, 3000000);
            g_main_context_iteration(machine->context, false);
            break;
        case 3:
            out(0x3f2, 0x1c);
            out(0x3f5, codes[g_rand_int_range(rand, 0, sizeof codes)]);
            break;
        case 4:
            if (g_rand_int_range(rand, 0, 200) == 0)
                insert(formats[g_rand_int_range(rand, 0, G_N_ELEMENTS(formats))].kib * 1024);
            break;
        case 5:
            for (unsigned i = 0, n = g_rand_int_range(rand, 0, 600); i < n; i++)
                in(0x3f5);
            break;
        default:
            out(0x3f5, g_rand_int(rand) & g_rand_int(rand));
        }
    }
    g_rand_free(rand);
    machine_reset_devices(machine);
    insert(1474560);
    start_controller();
    out(0x3f7, 0);
    seek(0);
    ck_assert_uint_eq(transfer(READ, 0, 0, 1, 18, 512), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("floppy");
    TCase *tcase = tcase_create("82077");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, every_geometry, 0, G_N_ELEMENTS(formats));
    tcase_add_test(tcase, multi_track_and_writes);
    tcase_add_test(tcase, transfers_by_fifo);
    tcase_add_test(tcase, format_and_read_id);
    tcase_add_test(tcase, media_change_is_seen);
    tcase_add_test(tcase, errors_reach_the_guest);
    tcase_add_loop_test(tcase, random_registers, 0, 4);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
