// SPDX-License-Identifier: GPL-2.0-or-later
// The keyboard controller, keyboard and mouse through their ports, as drivers see them.
#include "core/machine/machine.h"
#include "core/screen/input.h"

#include <check.h>
#include <linux/input-event-codes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct device_class i8042_class;

// ---- A machine of nothing but ports, a clock and the hub ----
static struct {
    struct machine machine;
    struct device *device;
    bool line[16];
    unsigned edges[16], resets;
} fake;

static void set_line(void *opaque, unsigned number, bool level)
{
    fake.edges[number] += level && !fake.line[number];
    fake.line[number] = level;
}

void machine_set_a20(struct machine *machine, bool open)
{
    machine->a20 = open;
}

void machine_request_reset(struct machine *machine)
{
    fake.resets++;
}

static void setup(void)
{
    memset(&fake, 0, sizeof(fake));
    struct machine *machine = &fake.machine;
    machine->clock = clock_new_manual();
    machine->ports = address_space_new("ports", NULL, 65536, NULL);
    machine->input = input_new(NULL);
    machine->a20 = true;
    for (unsigned i = 0; i < 16; i++)
        machine->isa_irq[i] = (struct irq){set_line, NULL, i};
    fake.device = g_malloc0(i8042_class.size);
    fake.device->class = &i8042_class;
    fake.device->machine = machine;
    ck_assert(i8042_class.realize(fake.device, NULL));
    i8042_class.reset(fake.device);
}

static void teardown(void)
{
    i8042_class.unrealize(fake.device);
    g_free(fake.device);
    input_free(fake.machine.input);
    address_space_free(fake.machine.ports);
    clock_free(fake.machine.clock);
}

static unsigned in(unsigned port)
{
    return address_space_load(fake.machine.ports, port, 1);
}

static void out(unsigned port, unsigned value)
{
    address_space_store(fake.machine.ports, port, value, 1);
}

static void ms(unsigned n)
{
    clock_advance(fake.machine.clock, n * 1000000ll);
}

// All bytes that come from the keyboard (or the mouse) until none does, as hex.
static const char *drain(bool aux)
{
    static char text[1024];
    *text = '\0';
    for (unsigned i = 0; i < 300; i++) {
        unsigned status = in(0x64);
        if (status & 1) {
            ck_assert_uint_eq(!!(status & 0x20), aux);
            ck_assert_uint_eq(fake.line[aux ? 12 : 1], true);
            sprintf(text + strlen(text), "%s%02x", *text ? " " : "", in(0x60));
        }
        clock_advance(fake.machine.clock, 500000);
    }
    return text;
}

static const char *keyboard_command(unsigned byte)
{
    out(0x60, byte);
    return drain(false);
}

static const char *mouse_command(unsigned byte)
{
    out(0x64, 0xd4);
    out(0x60, byte);
    return drain(true);
}

static void tap(unsigned code)
{
    input_key(fake.machine.input, code, true);
    input_key(fake.machine.input, code, false);
}

static unsigned controller_byte(unsigned command)
{
    out(0x64, command);
    ck_assert_uint_eq(in(0x64) & 1, 1);
    return in(0x60);
}

static void set_command_byte(unsigned value)
{
    out(0x64, 0x60);
    out(0x60, value);
}

// ---- The controller ----
START_TEST(controller_commands)
{
    ck_assert_uint_eq(in(0x64) & 1, 0);
    ck_assert_uint_eq(controller_byte(0xaa), 0x55);
    ck_assert_uint_eq(in(0x64) & 4, 4);
    ck_assert_uint_eq(controller_byte(0xab), 0);
    ck_assert_uint_eq(controller_byte(0xa9), 0);
    set_command_byte(0x65);
    ck_assert_uint_eq(controller_byte(0x20), 0x65);
    out(0x64, 0xad);
    ck_assert_uint_eq(controller_byte(0x20), 0x75);
    out(0x64, 0xa7);
    ck_assert_uint_eq(controller_byte(0x20), 0x75);
    out(0x64, 0xa8);
    ck_assert_uint_eq(controller_byte(0x20), 0x55);
    out(0x64, 0x65);
    out(0x60, 0x99);
    ck_assert_uint_eq(controller_byte(0x25), 0x99);
    out(0x64, 0xd3); // loop-back as drivers probe for a mouse port
    out(0x60, 0x5a);
    ck_assert_uint_eq(in(0x64) & 0x21, 0x21);
    ck_assert_uint_eq(in(0x60), 0x5a);
    ck_assert_uint_eq(in(0x64) & 0x21, 0);
}
END_TEST

START_TEST(a20_and_reset)
{
    out(0x64, 0xd1);
    out(0x60, 0xdd);
    ck_assert(!fake.machine.a20);
    ck_assert_uint_eq(controller_byte(0xd0) & 2, 0);
    out(0x64, 0xd1);
    out(0x60, 0xdf);
    ck_assert(fake.machine.a20);
    ck_assert_uint_eq(controller_byte(0xd0) & 3, 3);
    out(0x64, 0xdd);
    ck_assert(!fake.machine.a20);
    out(0x64, 0xdf);
    ck_assert(fake.machine.a20);
    ck_assert_uint_eq(fake.resets, 0);
    out(0x64, 0xff);
    ck_assert_uint_eq(fake.resets, 0);
    out(0x64, 0xfe);
    ck_assert_uint_eq(fake.resets, 1);
    out(0x64, 0xd1);
    out(0x60, 0x02);
    ck_assert_uint_eq(fake.resets, 2);
}
END_TEST

START_TEST(interrupts_follow_the_buffer)
{
    set_command_byte(0x03);
    tap(KEY_A);
    ck_assert(fake.line[1]);
    ck_assert_uint_eq(fake.edges[1], 1);
    ck_assert_uint_eq(in(0x60), 0x1c);
    ck_assert(!fake.line[1]);
    ck_assert_uint_eq(in(0x60), 0x1c); // the same again until the next byte has crossed the wire
    ms(1);
    ck_assert(fake.line[1]);
    ck_assert_uint_eq(fake.edges[1], 2);
    ck_assert_str_eq(drain(false), "f0 1c");
    set_command_byte(0x02);
    tap(KEY_A);
    ck_assert(!fake.line[1]);
    ck_assert_uint_eq(in(0x64) & 1, 1);
    set_command_byte(0x13); // the keyboard's clock is off
    while (in(0x64) & 1)
        in(0x60);
    ms(5);
    ck_assert_uint_eq(in(0x64) & 1, 0);
    set_command_byte(0x03);
    ms(1);
    ck_assert_str_eq(drain(false), "f0 1c");
}
END_TEST

// ---- Keyboard ----
START_TEST(keyboard_commands)
{
    ck_assert_str_eq(keyboard_command(0xff), "fa aa");
    ck_assert_str_eq(keyboard_command(0xf2), "fa ab 83");
    ck_assert_str_eq(keyboard_command(0xee), "ee");
    ck_assert_str_eq(keyboard_command(0xed), "fa");
    ck_assert_str_eq(keyboard_command(0x06), "fa");
    ck_assert_uint_eq(input_leds(fake.machine.input), 6);
    ck_assert_str_eq(keyboard_command(0xf0), "fa");
    ck_assert_str_eq(keyboard_command(0x00), "fa 02");
    ck_assert_str_eq(keyboard_command(0x10), "fe");
    ck_assert_str_eq(keyboard_command(0xfe), "02"); // the last byte that was no resend
    ck_assert_str_eq(keyboard_command(0xf5), "fa");
    tap(KEY_A);
    ck_assert_str_eq(drain(false), "");
    ck_assert_str_eq(keyboard_command(0xf4), "fa");
    tap(KEY_A);
    ck_assert_str_eq(drain(false), "1c f0 1c");
    set_command_byte(0x43);
    ck_assert_str_eq(keyboard_command(0xf2), "fa ab 41");
}
END_TEST

static const char *key_codes(unsigned code)
{
    tap(code);
    return drain(false);
}

START_TEST(scan_sets_and_translation)
{
    set_command_byte(0x03);
    ck_assert_str_eq(key_codes(KEY_UP), "e0 75 e0 f0 75");
    ck_assert_str_eq(key_codes(KEY_F7), "83 f0 83");
    ck_assert_str_eq(key_codes(KEY_SYSRQ), "e0 12 e0 7c e0 f0 7c e0 f0 12");
    ck_assert_str_eq(key_codes(KEY_PAUSE), "e1 14 77 e1 f0 14 f0 77");
    input_key(fake.machine.input, KEY_LEFTALT, true);
    drain(false);
    ck_assert_str_eq(key_codes(KEY_SYSRQ), "84 f0 84");
    input_key(fake.machine.input, KEY_LEFTALT, false);
    input_key(fake.machine.input, KEY_RIGHTCTRL, true);
    drain(false);
    ck_assert_str_eq(key_codes(KEY_PAUSE), "e0 7e e0 f0 7e");
    ck_assert_str_eq(key_codes(KEY_SYSRQ), "e0 7c e0 f0 7c");
    input_key(fake.machine.input, KEY_RIGHTCTRL, false);
    drain(false);
    set_command_byte(0x43); // translated: what every PC's software reads
    ck_assert_str_eq(key_codes(KEY_UP), "e0 48 e0 c8");
    ck_assert_str_eq(key_codes(KEY_F7), "41 c1");
    ck_assert_str_eq(key_codes(KEY_SYSRQ), "e0 2a e0 37 e0 b7 e0 aa");
    ck_assert_str_eq(key_codes(KEY_PAUSE), "e1 1d 45 e1 9d c5");
    set_command_byte(0x03);
    keyboard_command(0xf0);
    keyboard_command(0x01);
    ck_assert_str_eq(key_codes(KEY_UP), "e0 48 e0 c8");
    ck_assert_str_eq(key_codes(KEY_SYSRQ), "e0 2a e0 37 e0 b7 e0 aa");
    keyboard_command(0xf0);
    keyboard_command(0x03);
    ck_assert_str_eq(key_codes(KEY_A), "1c");
    ck_assert_str_eq(key_codes(KEY_LEFTSHIFT), "12 f0 12");
    ck_assert_str_eq(key_codes(KEY_UP), "63");
    ck_assert_str_eq(keyboard_command(0xf8), "fa");
    ck_assert_str_eq(key_codes(KEY_UP), "63 f0 63");
    ck_assert_str_eq(keyboard_command(0xfd), "fa");
    ck_assert_str_eq(keyboard_command(0x63), "fa");
    ck_assert_str_eq(keyboard_command(0xf4), "fa");
    ck_assert_str_eq(key_codes(KEY_UP), "63");
}
END_TEST

// (Microsoft Keyboard Scan Code Specification, "Shift and Num Lock states of the grey keys")
START_TEST(grey_keys_hide_shift_and_show_num_lock)
{
    set_command_byte(0x43);
    input_key(fake.machine.input, KEY_LEFTSHIFT, true);
    ck_assert_str_eq(drain(false), "2a");
    ck_assert_str_eq(key_codes(KEY_UP), "e0 aa e0 48 e0 c8 e0 2a");
    ck_assert_str_eq(key_codes(KEY_KPSLASH), "e0 aa e0 35 e0 b5 e0 2a");
    ck_assert_str_eq(key_codes(KEY_RIGHTMETA), "e0 5c e0 dc");
    input_key(fake.machine.input, KEY_RIGHTSHIFT, true);
    drain(false);
    ck_assert_str_eq(key_codes(KEY_INSERT), "e0 aa e0 b6 e0 52 e0 d2 e0 2a e0 36");
    input_key(fake.machine.input, KEY_LEFTSHIFT, false);
    drain(false);
    ck_assert_str_eq(key_codes(KEY_END), "e0 b6 e0 4f e0 cf e0 36");
    keyboard_command(0xed); // Num Lock
    keyboard_command(0x02);
    ck_assert_str_eq(key_codes(KEY_END), "e0 4f e0 cf");
    input_key(fake.machine.input, KEY_RIGHTSHIFT, false);
    drain(false);
    ck_assert_str_eq(key_codes(KEY_DELETE), "e0 2a e0 53 e0 d3 e0 aa");
    ck_assert_str_eq(key_codes(KEY_KPSLASH), "e0 35 e0 b5");
    ck_assert_str_eq(key_codes(KEY_KP8), "48 c8");
    set_command_byte(0x03);
    ck_assert_str_eq(key_codes(KEY_DELETE), "e0 12 e0 71 e0 f0 71 e0 f0 12");
    keyboard_command(0xed);
    keyboard_command(0x00);
    ck_assert_str_eq(key_codes(KEY_DELETE), "e0 71 e0 f0 71");
    input_key(fake.machine.input, KEY_LEFTSHIFT, true);
    drain(false);
    ck_assert_str_eq(key_codes(KEY_DELETE), "e0 f0 12 e0 71 e0 f0 71 e0 12");
}
END_TEST

// Each key of the table, translated, is its set 1 code, and that is what the controller alone would read from set 1.
START_TEST(every_key_translates)
{
    set_command_byte(0x43);
    for (size_t i = 0; i < keys_count; i++) {
        const struct key *key = &keys[i];
        if (!key->set2 || key->evdev == KEY_SYSRQ || key->evdev == KEY_PAUSE || (key->set2 & 0xf0) == 0xf0)
            continue;
        char expected[32];
        if (key->set1 >> 8)
            sprintf(expected, "e0 %02x e0 %02x", key->set1 & 0xff, (key->set1 & 0xff) | 0x80);
        else
            sprintf(expected, "%02x %02x", key->set1, key->set1 | 0x80);
        ck_assert_str_eq(key_codes(key->evdev), expected);
    }
}
END_TEST

START_TEST(typematic)
{
    set_command_byte(0x43);
    input_key(fake.machine.input, KEY_A, true);
    ck_assert_str_eq(drain(false), "1e"); // 150 ms
    ms(300);
    ck_assert_uint_eq(in(0x64) & 1, 0);
    ms(60); // the delay of 500 ms is over
    ck_assert_uint_eq(in(0x64) & 1, 1);
    in(0x60);
    unsigned count = 0;
    for (unsigned i = 0; i < 1000; i++) {
        ms(1);
        if (in(0x64) & 1) {
            ck_assert_uint_eq(in(0x60), 0x1e);
            count++;
        }
    }
    ck_assert_uint_ge(count, 10); // 10.9 a second
    ck_assert_uint_le(count, 12);
    input_key(fake.machine.input, KEY_A, false);
    ck_assert_str_eq(drain(false), "9e");
    keyboard_command(0xf3);
    keyboard_command(0x00); // 250 ms, 30 a second
    input_key(fake.machine.input, KEY_B, true);
    ms(1);
    in(0x60);
    ms(240);
    ck_assert_uint_eq(in(0x64) & 1, 0);
    ms(12);
    ck_assert_uint_eq(in(0x64) & 1, 1);
    in(0x60);
    ms(34);
    ck_assert_uint_eq(in(0x64) & 1, 1);
    in(0x60);
    input_key(fake.machine.input, KEY_B, false);
    ms(1000);
    ck_assert_str_eq(drain(false), "b0");
}
END_TEST

START_TEST(a_deaf_guest_overruns)
{
    set_command_byte(0x03);
    for (unsigned i = 0; i < 50; i++)
        tap(KEY_A);
    const char *bytes = drain(false);
    ck_assert_uint_le(strlen(bytes), 18 * 3);
    ck_assert_str_eq(bytes + strlen(bytes) - 2, "00");
    tap(KEY_B);
    ck_assert_str_eq(drain(false), "32 f0 32");
}
END_TEST

// ---- Mouse ----
START_TEST(mouse_commands)
{
    ck_assert_str_eq(mouse_command(0xff), "fa aa 00");
    ck_assert_str_eq(mouse_command(0xf2), "fa 00");
    ck_assert_str_eq(mouse_command(0xe9), "fa 00 02 64");
    ck_assert_str_eq(mouse_command(0xe8), "fa");
    ck_assert_str_eq(mouse_command(0x03), "fa");
    ck_assert_str_eq(mouse_command(0xe7), "fa");
    ck_assert_str_eq(mouse_command(0xf4), "fa");
    ck_assert_str_eq(mouse_command(0xe9), "fa 30 03 64");
    ck_assert_str_eq(mouse_command(0xee), "fa");
    ck_assert_str_eq(mouse_command(0x12), "12");
    ck_assert_str_eq(mouse_command(0xec), "fa");
    ck_assert_str_eq(mouse_command(0x11), "fe");
    ck_assert_str_eq(mouse_command(0xf3), "fa");
    ck_assert_str_eq(mouse_command(0x00), "fe");
}
END_TEST

static void knock(unsigned a, unsigned b, unsigned c)
{
    unsigned rates[] = {a, b, c};
    for (unsigned i = 0; i < 3; i++) {
        mouse_command(0xf3);
        mouse_command(rates[i]);
    }
}

START_TEST(mouse_packets)
{
    struct input *input = fake.machine.input;
    mouse_command(0xf4);
    input_pointer_relative(input, 5, 3);
    input_sync(input);
    ck_assert_str_eq(drain(true), "28 05 fd");
    input_pointer_relative(input, -300, 0);
    input_sync(input);
    ck_assert_str_eq(drain(true), "18 01 00 18 d3 00"); // 300 in two packets
    input_button(input, INPUT_LEFT, true);
    input_button(input, INPUT_LEFT, false);
    ck_assert_str_eq(drain(true), "09 00 00 08 00 00"); // a quick click is not lost
    knock(200, 100, 80);
    ck_assert_str_eq(mouse_command(0xf2), "fa 03");
    input_button(input, INPUT_WHEEL_UP, true);
    input_button(input, INPUT_WHEEL_UP, false);
    input_sync(input);
    ck_assert_str_eq(drain(true), "08 00 00 ff");
    knock(200, 200, 80);
    ck_assert_str_eq(mouse_command(0xf2), "fa 04");
    input_button(input, INPUT_SIDE, true);
    input_button(input, INPUT_WHEEL_DOWN, true);
    input_sync(input);
    ck_assert_str_eq(drain(true), "08 00 00 10 08 00 00 11");
    mouse_command(0xf0); // remote mode: only when asked
    input_pointer_relative(input, 1, 0);
    input_sync(input);
    ck_assert_str_eq(drain(true), "");
    ck_assert_str_eq(mouse_command(0xeb), "fa 08 01 00 10");
}
END_TEST

START_TEST(nonsense_at_the_ports)
{
    g_autoptr(GRand) random = g_rand_new_with_seed(7);
    for (unsigned i = 0; i < 300000; i++) {
        unsigned what = g_rand_int_range(random, 0, 12);
        if (what < 5)
            out(what & 1 ? 0x64 : 0x60, g_rand_int_range(random, 0, 256));
        else if (what < 8)
            in(what & 1 ? 0x64 : 0x60);
        else if (what == 8)
            clock_advance(fake.machine.clock, g_rand_int_range(random, 1, 3000000));
        else if (what == 9)
            input_key(fake.machine.input, g_rand_int_range(random, 0, 800), g_rand_boolean(random));
        else if (what == 10)
            input_pointer_relative(fake.machine.input, (int)g_rand_int(random), (int)g_rand_int(random));
        else
            input_button(fake.machine.input, g_rand_int_range(random, 0, 10), g_rand_boolean(random));
        input_sync(fake.machine.input);
    }
    input_release_all(fake.machine.input);
    i8042_class.reset(fake.device);
    ck_assert_str_eq(keyboard_command(0xff), "fa aa");
    ck_assert_str_eq(mouse_command(0xff), "fa aa 00");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ps2");
    TCase *tcase = tcase_create("ps2");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, controller_commands);
    tcase_add_test(tcase, a20_and_reset);
    tcase_add_test(tcase, interrupts_follow_the_buffer);
    tcase_add_test(tcase, keyboard_commands);
    tcase_add_test(tcase, scan_sets_and_translation);
    tcase_add_test(tcase, grey_keys_hide_shift_and_show_num_lock);
    tcase_add_test(tcase, every_key_translates);
    tcase_add_test(tcase, typematic);
    tcase_add_test(tcase, a_deaf_guest_overruns);
    tcase_add_test(tcase, mouse_commands);
    tcase_add_test(tcase, mouse_packets);
    tcase_add_test(tcase, nonsense_at_the_ports);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
