// SPDX-License-Identifier: GPL-2.0-or-later
// core/screen: surfaces and their listeners, damage merging, screenshots; the input hub, the key table, typing.
#include "core/screen/input.h"
#include "core/screen/surface.h"

#include <check.h>
#include <fcntl.h>
#include <linux/input-event-codes.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- Surfaces ----
struct seen {
    unsigned resized, damaged, cursor_changed, moved;
    struct rectangle last;
    uint32_t width;
};

static void on_resized(void *opaque, struct surface *surface, struct pixels *pixels)
{
    struct seen *seen = opaque;
    seen->resized++;
    seen->width = pixels->width;
}

static void on_damaged(void *opaque, struct surface *surface, const struct rectangle *rectangle)
{
    struct seen *seen = opaque;
    seen->damaged++;
    seen->last = *rectangle;
}

static void on_cursor(void *opaque, struct surface *surface, struct cursor *cursor)
{
    ((struct seen *)opaque)->cursor_changed++;
}

static void on_moved(void *opaque, struct surface *surface, int x, int y)
{
    ((struct seen *)opaque)->moved++;
}

static const struct surface_listener_ops pulling = {on_resized, on_damaged, on_cursor, on_moved, .pulls = true};
static const struct surface_listener_ops pushed = {.damaged = on_damaged};

START_TEST(listeners_come_and_go)
{
    struct screen *screen = screen_new(NULL);
    struct surface *surface = surface_new(screen, NULL, NULL);
    struct seen a = {0}, b = {0};
    struct surface_listener *la = surface_attach(surface, &pulling, &a), *lb = surface_attach(surface, &pulling, &b);
    ck_assert_uint_eq(surface_listeners(surface), 2);
    struct pixels *held = surface_pixels(surface);
    ck_assert_uint_eq(held->width, 640);
    surface_resize(surface, 1024, 768);
    ck_assert_uint_eq(a.resized, 1);
    ck_assert_uint_eq(b.width, 1024);
    held->data[held->size - 1] = 1; // the old memory lives as long as somebody holds it
    pixels_unref(held);
    surface_damage(surface, &(struct rectangle){1000, 760, 100, 100});
    ck_assert_int_eq(a.last.width, 24);
    ck_assert_int_eq(a.last.height, 8);
    surface_damage(surface, &(struct rectangle){2000, 0, 100, 100});
    surface_damage(surface, &(struct rectangle){0, 0, INT32_MIN, 5});
    ck_assert_uint_eq(a.damaged, 1);
    surface_detach(lb);
    surface_damage(surface, &(struct rectangle){0, 0, 8, 8});
    ck_assert_uint_eq(b.damaged, 1);
    surface_set_cursor(surface, cursor_new(16, 16, 3, 4));
    surface_move_cursor(surface, 10, 20);
    ck_assert_uint_eq(a.cursor_changed, 1);
    ck_assert_uint_eq(a.moved, 1);
    surface_detach(la);
    screen_free(screen);
}
END_TEST

START_TEST(pixels_are_sealed)
{
    struct pixels *pixels = pixels_new(100000, 0);
    ck_assert_uint_eq(pixels->width, SURFACE_MAX_WIDTH);
    ck_assert_uint_eq(pixels->height, 1);
    ck_assert_int_eq(ftruncate(pixels->memfd, 0), -1);
    ck_assert_int_eq(fcntl(pixels->memfd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    pixels_unref(pixels);
}
END_TEST

static bool covered(const struct damage *damage, int x, int y)
{
    for (unsigned i = 0; i < damage->count; i++) {
        const struct rectangle *r = &damage->rectangles[i];
        if (x >= r->x && x < r->x + r->width && y >= r->y && y < r->y + r->height)
            return true;
    }
    return false;
}

START_TEST(damage_merges_but_never_forgets)
{
    struct damage damage = {0};
    damage_add(&damage, &(struct rectangle){8, 8, 8, 8});
    damage_add(&damage, &(struct rectangle){10, 10, 2, 2});
    ck_assert_uint_eq(damage.count, 1);
    ck_assert_int_eq(damage.rectangles[0].width, 8);
    damage_add(&damage, &(struct rectangle){16, 8, 8, 8}); // side by side: one
    ck_assert_uint_eq(damage.count, 1);
    ck_assert_int_eq(damage.rectangles[0].width, 16);
    damage_add(&damage, &(struct rectangle){600, 600, 8, 8}); // far away: two
    ck_assert_uint_eq(damage.count, 2);
    g_autoptr(GRand) random = g_rand_new_with_seed(1);
    struct rectangle all[500];
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        all[i] = (struct rectangle){g_rand_int_range(random, 0, 1000), g_rand_int_range(random, 0, 1000),
                                    g_rand_int_range(random, 1, 9), g_rand_int_range(random, 1, 9)};
        damage_add(&damage, &all[i]);
        ck_assert_uint_le(damage.count, DAMAGE_MAX);
        for (unsigned k = 0; k <= i; k++) {
            ck_assert(covered(&damage, all[k].x, all[k].y));
            ck_assert(covered(&damage, all[k].x + all[k].width - 1, all[k].y + all[k].height - 1));
        }
    }
}
END_TEST

struct adapter {
    struct surface *surface;
    _Atomic unsigned refreshes, draws;
};

static bool adapter_refresh(void *opaque)
{
    struct adapter *adapter = opaque;
    return atomic_fetch_add(&adapter->refreshes, 1) < 3;
}

static void adapter_draw(void *opaque)
{
    struct adapter *adapter = opaque;
    atomic_fetch_add(&adapter->draws, 1);
    surface_damage(adapter->surface, &(struct rectangle){0, 0, 8, 8});
}

static const struct surface_adapter_ops adapter_ops = {.refresh = adapter_refresh, .draw = adapter_draw};

START_TEST(the_refresher_runs_only_for_listeners)
{
    struct screen *screen = screen_new(NULL);
    struct adapter adapter = {0};
    adapter.surface = surface_new(screen, &adapter_ops, &adapter);
    struct seen seen = {0};
    struct surface_listener *puller = surface_attach(adapter.surface, &pulling, &seen);
    g_usleep(50000);
    ck_assert_uint_eq(adapter.refreshes, 0);
    struct surface_listener *listener = surface_attach(adapter.surface, &pushed, &seen);
    for (int i = 0; i < 500 && adapter.refreshes < 5; i++)
        g_usleep(10000);
    ck_assert_uint_ge(adapter.refreshes, 5);
    ck_assert_uint_eq(adapter.draws, 3);
    surface_detach(listener);
    g_usleep(30000);
    unsigned after = adapter.refreshes;
    g_usleep(80000);
    ck_assert_uint_eq(adapter.refreshes, after);
    surface_detach(puller);
    screen_free(screen);
}
END_TEST

static void read_png(const char *path, uint32_t *argb, unsigned width, unsigned height)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    ck_assert_int_ne(png_image_begin_read_from_file(&image, path), 0);
    ck_assert_uint_eq(image.width, width);
    ck_assert_uint_eq(image.height, height);
    image.format = PNG_FORMAT_BGRA;
    ck_assert_int_ne(png_image_finish_read(&image, NULL, argb, 0, NULL), 0);
}

START_TEST(screenshots_hold_the_picture)
{
    struct screen *screen = screen_new(NULL);
    struct surface *surface = surface_new(screen, NULL, NULL);
    struct pixels *pixels = surface_resize(surface, 33, 17);
    uint32_t *p = (uint32_t *)pixels->data;
    for (unsigned i = 0; i < 33 * 17; i++)
        p[i] = i * 0x10305 & 0xffffff;
    struct cursor *cursor = cursor_new(2, 2, 1, 1);
    for (unsigned i = 0; i < 4; i++)
        cursor->argb[i] = i == 3 ? 0 : 0xff00ff00;
    surface_set_cursor(surface, cursor);
    surface_move_cursor(surface, 10, 5);
    g_autofree char *path = g_strdup_printf("%s/cloche-test-%d.png", g_get_tmp_dir(), getpid());
    uint32_t read[33 * 17];
    ck_assert(surface_write_png(surface, path, false, NULL));
    read_png(path, read, 33, 17);
    for (unsigned i = 0; i < 33 * 17; i++)
        ck_assert_uint_eq(read[i], p[i] | 0xff000000);
    ck_assert(surface_write_png(surface, path, true, NULL));
    read_png(path, read, 33, 17);
    ck_assert_uint_eq(read[4 * 33 + 9], 0xff00ff00);
    ck_assert_uint_eq(read[5 * 33 + 10], p[5 * 33 + 10] | 0xff000000);
    unlink(path);
    g_autoptr(GError) error = NULL;
    ck_assert(!surface_write_png(surface, "/nonexistent/shot.png", false, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "/nonexistent/shot.png"));
    screen_free(screen);
}
END_TEST

// ---- Keys ----
// What the 8042 makes of set 2 codes (IBM PS/2 Hardware Interface Technical Reference, keyboard controller).
static const uint8_t translation[128] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, 0x65, 0x38, 0x2a,
    0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05,
    0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a,
    0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26,
    0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63,
    0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53,
    0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};

START_TEST(the_key_table_agrees_with_itself)
{
    for (size_t i = 0; i < keys_count; i++) {
        const struct key *key = &keys[i];
        ck_assert_ptr_eq(key_by_evdev(key->evdev), key);
        if (key->qcode)
            ck_assert_ptr_eq(key_by_qcode(key->qcode), key);
        ck_assert_ptr_eq(key_by_set1(key->set1), key);
        for (size_t k = 0; k < i; k++) {
            ck_assert(!key->set2 || key->set2 != keys[k].set2);
            ck_assert(!key->set3 || key->set3 != keys[k].set3);
            ck_assert(!key->hid || key->hid != keys[k].hid);
        }
        unsigned code = key->set2 & 0xff;
        if (!code || code == 0xf1 || code == 0xf2) // none; Korean keys, which have no break code
            continue;
        ck_assert_uint_eq(key->set1 >> 8, key->set2 >> 8);
        ck_assert_msg((code == 0x83 ? 0x41 : translation[code]) == (key->set1 & 0xff), "%s", key->qcode);
    }
    ck_assert_uint_eq(key_by_set1(0x80 | 0x48)->evdev, KEY_UP);
    ck_assert_uint_eq(key_by_keysym('A')->evdev, KEY_A);
    ck_assert_ptr_null(key_by_qcode("no such key"));
}
END_TEST

// ---- The input hub ----
struct events {
    GString *text;
    _Atomic unsigned count;
};

static void log_key(void *opaque, unsigned code, bool down)
{
    struct events *events = opaque;
    g_string_append_printf(events->text, "%c%u ", down ? '+' : '-', code);
    atomic_fetch_add(&events->count, 1);
}

static void log_button(void *opaque, enum input_button button, bool down)
{
    g_string_append_printf(((struct events *)opaque)->text, "b%d%c ", button, down ? '+' : '-');
}

static void log_relative(void *opaque, int dx, int dy)
{
    g_string_append_printf(((struct events *)opaque)->text, "r%d,%d ", dx, dy);
}

static void log_absolute(void *opaque, unsigned x, unsigned y)
{
    g_string_append_printf(((struct events *)opaque)->text, "a%u,%u ", x, y);
}

START_TEST(events_go_where_the_guest_listens)
{
    struct events ps2 = {.text = g_string_new("")}, tablet = {.text = g_string_new("")};
    struct input_handler mouse = {.name = "ps2",
                                  .keyboard = true,
                                  .relative = true,
                                  .key = log_key,
                                  .button = log_button,
                                  .move_relative = log_relative,
                                  .opaque = &ps2};
    struct input_handler absolute = {
        .name = "tablet", .absolute = true, .button = log_button, .move_absolute = log_absolute, .opaque = &tablet};
    struct input *input = input_new(NULL);
    input_key(input, KEY_A, true); // nobody is there yet
    input_add_handler(input, &mouse);
    input_add_handler(input, &absolute);
    ck_assert(!input_absolute(input));
    input_key(input, KEY_A, true);
    input_key(input, KEY_A, true);
    input_pointer_absolute(input, 100, 100, 640, 480);
    input_pointer_absolute(input, 103, 90, 640, 480);
    input_button(input, INPUT_WHEEL_UP, true);
    input_button(input, INPUT_WHEEL_UP, false);
    input_button(input, INPUT_LEFT, true);
    ck_assert_str_eq(ps2.text->str, "+30 r3,-10 b3+ b0+ ");
    input_activate(input, &absolute); // and what was down goes up first
    ck_assert_str_eq(ps2.text->str, "+30 r3,-10 b3+ b0+ -30 b0- ");
    ck_assert(input_absolute(input));
    input_key(input, KEY_B, true);
    input_pointer_absolute(input, 0, 479, 640, 480);
    ck_assert_str_eq(tablet.text->str, "a25,32733 ");
    input_deactivate(input, &absolute);
    ck_assert(!input_absolute(input));
    input_key(input, 100000, true);
    input_button(input, 77, true);
    input_remove_handler(input, &mouse);
    input_free(input);
    g_string_free(ps2.text, TRUE);
    g_string_free(tablet.text, TRUE);
}
END_TEST

struct position {
    unsigned x, y;
};

static void keep_absolute(void *opaque, unsigned x, unsigned y)
{
    *(struct position *)opaque = (struct position){x, y};
}

START_TEST(each_pixel_comes_back_exactly)
{
    struct position at;
    struct input_handler absolute = {.name = "tablet", .absolute = true, .move_absolute = keep_absolute, .opaque = &at};
    struct input *input = input_new(NULL);
    input_add_handler(input, &absolute);
    input_activate(input, &absolute);
    static const unsigned sizes[] = {1, 640, 800, 1024, 1366, 1920, 2560, 4096};
    for (unsigned s = 0; s < G_N_ELEMENTS(sizes); s++)
        for (unsigned x = 0; x < sizes[s]; x++) {
            input_pointer_absolute(input, x, 0, sizes[s], sizes[s]);
            ck_assert_uint_lt(at.x, 32768);
            ck_assert_uint_eq(at.x * sizes[s] / 32768, x);
        }
    input_free(input);
}
END_TEST

static void wait_typed(struct input *input)
{
    for (int i = 0; i < 1000 && input_typing(input); i++)
        g_usleep(10000);
    ck_assert(!input_typing(input));
}

// A guest's view of what was typed, on the US layout.
static char *typed_as_us(const char *log)
{
    GString *text = g_string_new("");
    bool shift = false;
    g_auto(GStrv) events = g_strsplit(log, " ", -1);
    for (char **event = events; *event && **event; event++) {
        unsigned code = atoi(*event + 1);
        const struct key *key = key_by_evdev(code);
        if (code == KEY_LEFTSHIFT)
            shift = **event == '+';
        else if (**event == '+')
            g_string_append_c(text, code == KEY_ENTER ? '\n' : shift ? key->keysym_shift : key->keysym);
    }
    return g_string_free(text, FALSE);
}

START_TEST(typing_us_ascii_exactly)
{
    struct events events = {.text = g_string_new("")};
    struct input_handler board = {.name = "kbd", .keyboard = true, .key = log_key, .opaque = &events};
    struct input *input = input_new(NULL);
    input_add_handler(input, &board);
    char ascii[128] = {0};
    for (unsigned i = 0; i < 95; i++)
        ascii[i] = 0x20 + i;
    ascii[95] = '\n';
    ck_assert(input_type_text(input, ascii, NULL));
    wait_typed(input);
    g_autofree char *typed = typed_as_us(events.text->str);
    ck_assert_str_eq(typed, ascii);
    g_autoptr(GError) error = NULL;
    unsigned before = events.count;
    ck_assert(!input_type_text(input, "ab\xc3\xa9", &error)); // é is not on a US keyboard
    ck_assert_ptr_nonnull(strstr(error->message, "\xc3\xa9"));
    g_usleep(60000);
    ck_assert_uint_eq(events.count, before);
    input_free(input);
    g_string_free(events.text, TRUE);
}
END_TEST

START_TEST(typing_on_other_layouts)
{
    struct events events = {.text = g_string_new("")};
    struct input_handler board = {.name = "kbd", .keyboard = true, .key = log_key, .opaque = &events};
    struct input *input = input_new(NULL);
    input_add_handler(input, &board);
    g_autoptr(GError) error = NULL;
    ck_assert(!input_set_layout(input, "no-such-layout", &error));
    ck_assert_ptr_nonnull(strstr(error->message, "no-such-layout"));
    ck_assert(!input_set_layout(input, "../../etc", NULL));
    ck_assert(input_set_layout(input, "de", NULL));
    // z and y swap; @ is AltGr+Q; é is the dead acute and e; ß is on the minus key
    ck_assert(input_type_text(input, "zY@\xc3\xa9\xc3\x9f", NULL));
    wait_typed(input);
    ck_assert_str_eq(events.text->str, "+21 -21 +42 +44 -44 -42 +100 +16 -16 -100 +13 -13 +18 -18 +12 -12 ");
    ck_assert_uint_eq(input_keysym(input, 'y').evdev, KEY_Z);
    ck_assert_uint_eq(input_keysym(input, 0xdf).evdev, KEY_MINUS);
    ck_assert_uint_eq(input_keysym(input, 0xff0d).evdev, KEY_ENTER);
    ck_assert(input_set_layout(input, "fr", NULL));
    ck_assert_uint_eq(input_keysym(input, 'a').evdev, KEY_Q);
    input_free(input);
    g_string_free(events.text, TRUE);
}
END_TEST

static void keep_leds(void *opaque, unsigned leds)
{
    *(unsigned *)opaque = leds;
}

START_TEST(leds_reach_listeners)
{
    struct input *input = input_new(NULL);
    unsigned leds = 99;
    input_add_leds_listener(input, keep_leds, &leds);
    input_set_leds(input, 5);
    ck_assert_uint_eq(leds, 5);
    ck_assert_uint_eq(input_leds(input), 5);
    input_remove_leds_listener(input, keep_leds, &leds);
    input_set_leds(input, 2);
    ck_assert_uint_eq(leds, 5);
    input_free(input);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("screen");
    TCase *tcase = tcase_create("screen");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, listeners_come_and_go);
    tcase_add_test(tcase, pixels_are_sealed);
    tcase_add_test(tcase, damage_merges_but_never_forgets);
    tcase_add_test(tcase, the_refresher_runs_only_for_listeners);
    tcase_add_test(tcase, screenshots_hold_the_picture);
    tcase_add_test(tcase, the_key_table_agrees_with_itself);
    tcase_add_test(tcase, events_go_where_the_guest_listens);
    tcase_add_test(tcase, each_pixel_comes_back_exactly);
    tcase_add_test(tcase, typing_us_ascii_exactly);
    tcase_add_test(tcase, typing_on_other_layouts);
    tcase_add_test(tcase, leds_reach_listeners);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
