// SPDX-License-Identifier: GPL-2.0-or-later
// Virtio graphics and input through the bus, with a little driver in guest RAM: pictures by transfer and by blob,
// damage, heads, EDID, cursor, saved state; reports of the tablet; commands that no driver sends.
#include "core/screen/input.h"
#include "core/screen/surface.h"
#include "tests/unit/virtio-guest.h"

#include <check.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>

extern const struct device_class virtio_gpu_class, virtio_tablet_class;
const struct device_class *const device_classes[] = {&virtio_gpu_class, &virtio_tablet_class, NULL};

#define MODERN   BIT(32)
#define EDID     BIT(1)
#define BLOB     BIT(3)
#define COMMAND  0x600000 // guest-physical
#define RESPONSE 0x608000
#define BACKING  0x700000

static struct machine *machine;
static struct device *device;
static struct guest guest;
static struct surface *surface;

static void make(const char *class_name)
{
    GError *error = NULL;
    machine = machine_create(32 * MiB, clock_new_manual(), &error);
    machine->screen = screen_new(NULL);
    machine->input = input_new(NULL);
    device = device_new(machine, class_name, NULL, &error);
    if (strcmp(class_name, "virtio-gpu") == 0)
        ck_assert(device_set(device, "heads", "2", &error));
    ck_assert_msg(device_realize(device, &error), "%s", error ? error->message : "");
    device->class->reset(device);
    guest_attach(&guest, machine, (struct pci_device *)device);
}

static void setup_gpu(void)
{
    make("virtio-gpu");
    ck_assert(guest_start(&guest, MODERN | EDID | BLOB, 2, 64));
    surface = screen_head(machine->screen, 0);
}

static void setup_tablet(void)
{
    make("virtio-tablet");
    ck_assert(guest_start(&guest, MODERN, 2, 64));
}

static void teardown(void)
{
    struct screen *screen = machine->screen;
    struct input *input = machine->input;
    machine_destroy(machine);
    screen_free(screen);
    input_free(input);
}

// ---- The driver ----
static uint32_t send(unsigned queue, uint32_t type, const uint32_t *words, unsigned count, unsigned room)
{
    const uint32_t header[6] = {type};
    address_space_write(machine->memory, COMMAND, header, sizeof(header));
    address_space_write(machine->memory, COMMAND + 24, words, 4 * count);
    guest_store(&guest, RESPONSE, 0, 4);
    guest_descriptor(&guest, queue, 0, COMMAND, 24 + 4 * count, room ? GUEST_NEXT : 0, 1);
    guest_descriptor(&guest, queue, 1, RESPONSE, room, GUEST_WRITE, 0);
    guest_offer(&guest, queue, 0);
    guest_notify(&guest, queue);
    uint32_t id, length;
    ck_assert(guest_wait(&guest, queue, &id, &length));
    return guest_load(&guest, RESPONSE, 4);
}

#define COMMAND_WORDS(...) (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t)
#define run(type, ...)     send(0, type, COMMAND_WORDS(__VA_ARGS__), 24)

static uint32_t shade(unsigned x, unsigned y)
{
    return 0xff000000 | (x * 5 & 255) << 16 | (y * 9 & 255) << 8 | ((x + y) & 255);
}

static void draw(uint64_t at, unsigned width, unsigned height)
{
    for (unsigned y = 0; y < height; y++)
        for (unsigned x = 0; x < width; x++)
            guest_store(&guest, at + 4 * (y * width + x), shade(x, y), 4);
}

static uint32_t pixel(unsigned x, unsigned y)
{
    struct pixels *pixels = surface_pixels(surface);
    uint32_t value;
    ck_assert(x < pixels->width && y < pixels->height);
    memcpy(&value, pixels->data + (size_t)y * pixels->stride + 4 * x, 4);
    pixels_unref(pixels);
    return value & 0xffffff;
}

static void check_size(unsigned width, unsigned height)
{
    struct pixels *pixels = surface_pixels(surface);
    ck_assert_uint_eq(pixels->width, width);
    ck_assert_uint_eq(pixels->height, height);
    pixels_unref(pixels);
}

static void show_2d(unsigned width, unsigned height)
{
    ck_assert_uint_eq(run(0x101, 7, 2, width, height), 0x1100);
    // Backing in two pieces, the second before the first
    uint32_t half = width * height * 2;
    ck_assert_uint_eq(run(0x106, 7, 2, BACKING, 0, half, 0, BACKING + half, 0, half, 0), 0x1100);
    draw(BACKING, width, height);
    ck_assert_uint_eq(run(0x105, 0, 0, width, height, 0, 0, 7, 0), 0x1100);
    ck_assert_uint_eq(run(0x103, 0, 0, width, height, 0, 7), 0x1100);
    ck_assert_uint_eq(run(0x104, 0, 0, width, height, 7, 0), 0x1100);
}

struct seen {
    unsigned count;
    struct rectangle last;
};

static void on_damage(void *opaque, struct surface *s, const struct rectangle *r)
{
    struct seen *seen = opaque;
    seen->count++;
    seen->last = *r;
}

static const struct surface_listener_ops listener_ops = {.damaged = on_damage, .pulls = true};

START_TEST(pictures_by_transfer)
{
    show_2d(640, 480);
    check_size(640, 480);
    for (unsigned y = 0; y < 480; y++)
        for (unsigned x = 0; x < 640; x++)
            ck_assert_uint_eq(pixel(x, y), shade(x, y) & 0xffffff);
    struct seen seen = {0};
    struct surface_listener *listener = surface_attach(surface, &listener_ops, &seen);
    guest_store(&guest, BACKING + 4 * (100 * 640 + 200), 0x00abcdef, 4);
    uint32_t offset = 4 * (100 * 640 + 200);
    ck_assert_uint_eq(run(0x105, 200, 100, 8, 8, offset, 0, 7, 0), 0x1100);
    ck_assert_uint_eq(run(0x104, 200, 100, 8, 8, 7, 0), 0x1100);
    ck_assert_uint_eq(seen.count, 1);
    ck_assert_int_eq(seen.last.x, 200);
    ck_assert_int_eq(seen.last.width, 8);
    ck_assert_uint_eq(pixel(200, 100), 0xabcdef);
    surface_detach(listener);
    ck_assert_uint_eq(run(0x103, 64, 32, 320, 200, 0, 7), 0x1100); // a part of it
    check_size(320, 200);
    ck_assert_uint_eq(pixel(1, 1), shade(65, 33) & 0xffffff);
    ck_assert_uint_eq(run(0x102, 7, 0), 0x1100);
    ck_assert_uint_eq(pixel(1, 1), 0);
    ck_assert_uint_eq(run(0x104, 0, 0, 1, 1, 7, 0), 0x1203);
}
END_TEST

START_TEST(blobs_without_a_copy)
{
    // 512 x 256 in pages from two places
    uint32_t size = 512 * 256 * 4, half = size / 2;
    draw(BACKING, 512, 256);
    uint64_t elsewhere = BACKING + 0x200000;
    for (uint32_t i = 0; i < half; i += 8)
        guest_store(&guest, elsewhere + i, guest_load(&guest, BACKING + half + i, 8), 8);
    ck_assert_uint_eq(run(0x10c, 9, 1, 1, 2, 0, 0, size, 0, BACKING, 0, half, 0, elsewhere, 0, half, 0), 0x1100);
    ck_assert_uint_eq(run(0x10d, 0, 0, 512, 256, 0, 9, 512, 256, 2, 0, 2048, 0, 0, 0, 0, 0, 0, 0), 0x1100);
    check_size(512, 256);
    for (unsigned y = 0; y < 256; y++)
        for (unsigned x = 0; x < 512; x++)
            ck_assert_uint_eq(pixel(x, y), shade(x, y) & 0xffffff);
    guest_store(&guest, elsewhere + 4, 0x00123456, 4); // seen without any command: it is the same memory
    ck_assert_uint_eq(pixel(1, 128), 0x123456);
    struct pixels *held = surface_pixels(surface);
    ck_assert_uint_eq(run(0x102, 9, 0), 0x1100);
    ck_assert_uint_eq(((uint32_t *)(void *)held->data)[0] & 0xffffff, shade(0, 0) & 0xffffff);
    pixels_unref(held);
    // Pages that do not fit together are copied when flushed
    ck_assert_uint_eq(run(0x10c, 9, 1, 1, 1, 0, 0, size, 0, BACKING + 16, 0, size, 0), 0x1100);
    ck_assert_uint_eq(run(0x10d, 0, 0, 512, 200, 0, 9, 512, 200, 2, 0, 2048, 0, 0, 0, 0, 0, 0, 0), 0x1100);
    ck_assert_uint_eq(run(0x104, 0, 0, 512, 200, 9, 0), 0x1100);
    ck_assert_uint_eq(pixel(0, 0), shade(4, 0) & 0xffffff);
}
END_TEST

START_TEST(displays_and_edid)
{
    ck_assert_uint_eq(send(0, 0x100, NULL, 0, 24 + 16 * 24), 0x1101);
    ck_assert_uint_eq(guest_load(&guest, RESPONSE + 24 + 8, 4), 1280);
    ck_assert_uint_eq(guest_load(&guest, RESPONSE + 24 + 16, 4), 1);
    ck_assert_uint_eq(guest_load(&guest, RESPONSE + 24 + 24 + 16, 4), 0);
    ck_assert_uint_eq(guest_load(&guest, guest.device + 8, 4), 2); // heads
    surface_wish_size(surface, 1600, 900);
    surface_wish_size(screen_head(machine->screen, 1), 800, 600);
    ck_assert_uint_eq(guest_load(&guest, guest.device, 4), 1); // the guest is told
    guest_store(&guest, guest.device + 4, 1, 4);
    ck_assert_uint_eq(guest_load(&guest, guest.device, 4), 0);
    ck_assert_uint_eq(send(0, 0x100, NULL, 0, 24 + 16 * 24), 0x1101);
    ck_assert_uint_eq(guest_load(&guest, RESPONSE + 24 + 8, 4), 1600);
    ck_assert_uint_eq(guest_load(&guest, RESPONSE + 24 + 24 + 8, 4), 800);
    ck_assert_uint_eq(guest_load(&guest, RESPONSE + 24 + 24 + 16, 4), 1);
    ck_assert_uint_eq(send(0, 0x10a, COMMAND_WORDS(0, 0), 24 + 8 + 1024), 0x1104);
    ck_assert_uint_eq(guest_load(&guest, RESPONSE + 24, 4), 128);
    unsigned sum = 0;
    for (unsigned i = 0; i < 128; i++)
        sum += guest_load(&guest, RESPONSE + 32 + i, 1);
    ck_assert_uint_eq(sum & 255, 0);
    unsigned low = guest_load(&guest, RESPONSE + 32 + 56, 1), high = guest_load(&guest, RESPONSE + 32 + 58, 1) >> 4;
    ck_assert_uint_eq(low | high << 8, 1600);
    ck_assert_uint_eq(send(0, 0x10a, COMMAND_WORDS(5, 0), 24 + 8 + 1024), 0x1202);
}
END_TEST

START_TEST(cursors)
{
    ck_assert_uint_eq(run(0x101, 3, 1, 64, 64), 0x1100);
    ck_assert_uint_eq(run(0x106, 3, 1, BACKING, 0, 64 * 64 * 4, 0), 0x1100);
    draw(BACKING, 64, 64);
    ck_assert_uint_eq(run(0x105, 0, 0, 64, 64, 0, 0, 3, 0), 0x1100);
    send(1, 0x300, COMMAND_WORDS(0, 11, 12, 0, 3, 4, 5, 0), 0);
    int x, y;
    struct cursor *cursor = surface_cursor(surface, &x, &y);
    ck_assert_ptr_nonnull(cursor);
    ck_assert_uint_eq(cursor->hot_x, 4);
    ck_assert_uint_eq(cursor->argb[64 * 2 + 3], shade(3, 2));
    ck_assert_int_eq(x, 11 + 4); // of the hot spot; the guest gives the corner
    cursor_unref(cursor);
    send(1, 0x301, COMMAND_WORDS(0, 99, 98, 0, 0, 0, 0, 0), 0);
    cursor = surface_cursor(surface, &x, &y);
    ck_assert_int_eq(y, 98 + 5);
    cursor_unref(cursor);
    send(1, 0x300, COMMAND_WORDS(0, 0, 0, 0, 0, 0, 0, 0), 0);
    ck_assert_ptr_null(surface_cursor(surface, &x, &y));
}
END_TEST

START_TEST(a_reset_brings_vga_back)
{
    show_2d(640, 480);
    ck_assert(!surface_polled(surface));
    guest_store(&guest, guest.common + 0x14, 0, 1);
    ck_assert(surface_polled(surface));
    surface_refresh(surface);
    ck_assert_uint_eq(pixel(1, 1), 0);
}
END_TEST

// Random commands with numbers that are nearly right: no crash, and a proper driver works afterwards.
START_TEST(nonsense_commands)
{
    static const uint32_t numbers[] = {0,   1,   2,    3,     7,          9,          16,      64,           320,
                                       640, 480, 4096, 65535, 0x7fffffff, 0xffffffff, BACKING, BACKING + 16, 0x1ffff000,
                                       2560};
    g_autoptr(GRand) random = g_rand_new_with_seed(3);
    unsigned rounds = g_getenv("CLOCHE_LONG_TESTS") ? 100000 : 4000;
    for (unsigned round = 0; round < rounds; round++) {
        uint32_t words[24];
        for (unsigned i = 0; i < G_N_ELEMENTS(words); i++)
            words[i] = numbers[g_rand_int_range(random, 0, G_N_ELEMENTS(numbers))];
        uint32_t type =
            g_rand_int_range(random, 0, 10) ? 0x100u + (uint32_t)g_rand_int_range(random, 0, 15) : g_rand_int(random);
        unsigned count = g_rand_int_range(random, 0, G_N_ELEMENTS(words) + 1);
        if (g_rand_int_range(random, 0, 6) == 0)
            send(1, 0x300 + g_rand_int_range(random, 0, 2), words, count, 0);
        else
            send(0, type, words, count, g_rand_int_range(random, 1, 1200));
        if (round % 16 == 0)
            surface_refresh(surface);
    }
    ck_assert(guest_start(&guest, MODERN | EDID | BLOB, 2, 64));
    show_2d(640, 480);
    ck_assert_uint_eq(pixel(5, 6), shade(5, 6) & 0xffffff);
}
END_TEST

// ---- The tablet ----
START_TEST(tablet_reports)
{
    uint32_t id, length;
    ck_assert(input_absolute(machine->input));
    for (unsigned i = 0; i < 8; i++) {
        guest_descriptor(&guest, 0, i, BACKING + 8 * i, 8, GUEST_WRITE, 0);
        guest_offer(&guest, 0, i);
    }
    input_pointer_absolute(machine->input, 799, 0, 800, 600);
    input_button(machine->input, INPUT_LEFT, true);
    input_sync(machine->input);
    static const uint32_t expected[4][3] = {
        {EV_ABS, ABS_X, 32747}, {EV_ABS, ABS_Y, 27}, {EV_KEY, BTN_LEFT, 1}, {EV_SYN, 0, 0}};
    for (unsigned i = 0; i < 4; i++) {
        ck_assert(guest_wait(&guest, 0, &id, &length));
        ck_assert_uint_eq(length, 8);
        ck_assert_uint_eq(guest_load(&guest, BACKING + 8 * i, 2), expected[i][0]);
        ck_assert_uint_eq(guest_load(&guest, BACKING + 8 * i + 2, 2), expected[i][1]);
        ck_assert_uint_eq(guest_load(&guest, BACKING + 8 * i + 4, 4), expected[i][2]);
    }
    for (unsigned i = 0; i < 100; i++) { // more than there is room for: whole reports are dropped
        input_pointer_absolute(machine->input, i, i, 800, 600);
        input_sync(machine->input);
    }
    guest_store(&guest, guest.device, 0x12, 1); // the range of X
    guest_store(&guest, guest.device + 1, ABS_X, 1);
    ck_assert_uint_eq(guest_load(&guest, guest.device + 2, 1), 20);
    ck_assert_uint_eq(guest_load(&guest, guest.device + 12, 4), 32767);
    guest_store(&guest, guest.common + 0x14, 0, 1);
    ck_assert(!input_absolute(machine->input));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio-gpu");
    TCase *gpu = tcase_create("gpu"), *tablet = tcase_create("tablet");
    tcase_add_checked_fixture(gpu, setup_gpu, teardown);
    tcase_set_timeout(gpu, 120);
    tcase_add_test(gpu, pictures_by_transfer);
    tcase_add_test(gpu, blobs_without_a_copy);
    tcase_add_test(gpu, displays_and_edid);
    tcase_add_test(gpu, cursors);
    tcase_add_test(gpu, a_reset_brings_vga_back);
    tcase_add_test(gpu, nonsense_commands);
    suite_add_tcase(suite, gpu);
    tcase_add_checked_fixture(tablet, setup_tablet, teardown);
    tcase_add_test(tablet, tablet_reports);
    suite_add_tcase(suite, tablet);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
