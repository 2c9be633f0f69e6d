// SPDX-License-Identifier: GPL-2.0-or-later
// The xHCI with its keyboard and tablet through the bus: a little driver that enumerates a device and takes its
// reports, then registers, rings and contexts full of nonsense.
#include "core/machine/pci.h"
#include "core/screen/input.h"

#include <check.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>

extern const struct device_class xhci_class, usb_keyboard_class, usb_tablet_class;
const struct device_class *const device_classes[] = {&xhci_class, &usb_keyboard_class, &usb_tablet_class, NULL};

#define BAR      0xe0000000ull
#define COMMANDS 0x100000u // guest-physical
#define EVENTS   0x110000u
#define TABLE    0x120000u // event ring segments
#define CONTEXTS 0x121000u // the array of pointers
#define OUTPUT   0x122000u
#define INPUT    0x123000u
#define CONTROL  0x124000u // endpoint 0's ring
#define REPORTS  0x125000u // the interrupt endpoint's ring
#define BUFFER   0x126000u

static struct machine *machine;
static struct device *controller;
static unsigned command_at, event_at, control_at, report_at;

static void store(uint64_t at, uint64_t value, unsigned size)
{
    address_space_store(machine->memory, at, value, size);
}

static uint64_t load(uint64_t at, unsigned size)
{
    return address_space_load(machine->memory, at, size);
}

static void plug(const char *name)
{
    GError *error = NULL;
    struct device *device = device_new(machine, name, NULL, &error);
    ck_assert_msg(device_realize(device, &error), "%s", error ? error->message : "");
    device->class->reset(device);
}

static void setup(void)
{
    GError *error = NULL;
    command_at = event_at = control_at = report_at = 0;
    machine = machine_create(16 * MiB, clock_new_manual(), &error);
    machine->input = input_new(NULL);
    struct device *early = device_new(machine, "usb-tablet", NULL, &error);
    ck_assert(!device_realize(early, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "xhci"));
    g_clear_error(&error);
    device_free(early);
    controller = device_new(machine, "xhci", NULL, &error);
    ck_assert(device_realize(controller, &error));
    xhci_class.reset(controller);
    plug("usb-tablet");
    plug("usb-keyboard");
    uint8_t devfn = ((struct pci_device *)controller)->devfn;
    pci_config_write(machine->pci, 0, devfn, 0x10, BAR, 4);
    pci_config_write(machine->pci, 0, devfn, 0x04, 6, 2);
}

static void teardown(void)
{
    struct input *input = machine->input;
    machine_destroy(machine);
    input_free(input);
}

// ---- The driver ----
static void put_trb(uint64_t at, uint64_t parameter, uint32_t status, uint32_t control)
{
    store(at, parameter, 8);
    store(at + 8, status, 4);
    store(at + 12, control | 1, 4);
}

// The next event, which must be of TYPE; returns its completion code.
static unsigned event(unsigned type, uint64_t *parameter, uint32_t *status, uint32_t *control)
{
    uint64_t at = EVENTS + 16 * event_at++;
    *parameter = load(at, 8);
    *status = load(at + 8, 4);
    *control = load(at + 12, 4);
    ck_assert_uint_eq(*control & 1, 1);
    ck_assert_uint_eq(*control >> 10 & 63, type);
    store(BAR + 0x1038, (EVENTS + 16 * event_at) | 8, 4);
    return *status >> 24;
}

static unsigned command(unsigned type, uint64_t parameter, unsigned slot, unsigned *new_slot)
{
    uint64_t p;
    uint32_t s, c;
    put_trb(COMMANDS + 16 * command_at++, parameter, 0, type << 10 | slot << 24);
    store(BAR + 0x2000, 0, 4);
    unsigned code = event(33, &p, &s, &c);
    ck_assert_uint_eq(p, COMMANDS + 16 * (command_at - 1));
    *new_slot = c >> 24;
    return code;
}

static void start(void)
{
    store(BAR + 0x40, 2, 4);
    ck_assert_uint_eq(load(BAR + 0x40, 4) & 2, 0);
    store(BAR + 0x78, 8, 4); // slots
    store(BAR + 0x70, CONTEXTS, 4);
    store(BAR + 0x58, COMMANDS | 1, 4);
    store(TABLE, EVENTS, 8);
    store(TABLE + 8, 256, 4);
    store(BAR + 0x1028, 1, 4);
    store(BAR + 0x1038, EVENTS, 4);
    store(BAR + 0x1030, TABLE, 4);
    store(BAR + 0x1034, 0, 4);
    store(BAR + 0x1020, 2, 4);
    store(BAR + 0x40, 5, 4);
}

// Port PORT's device in slot 1, configured. The port events come first.
static void enumerate(unsigned port)
{
    uint64_t p;
    uint32_t s, c;
    unsigned slot;
    start();
    for (unsigned i = 0; i < 2; i++)
        ck_assert_uint_eq(event(34, &p, &s, &c), 1);
    ck_assert_uint_eq(load(BAR + 0x440 + 16 * port, 4) & 1, 1);
    store(BAR + 0x440 + 16 * port, 0x210, 4);
    ck_assert_uint_eq(event(34, &p, &s, &c), 1);
    ck_assert_uint_eq(p >> 24, port + 1);
    ck_assert_uint_eq(load(BAR + 0x440 + 16 * port, 4) & 2, 2);
    ck_assert_uint_eq(command(9, 0, 0, &slot), 1);
    ck_assert_uint_eq(slot, 1);
    store(CONTEXTS + 8, OUTPUT, 8);
    store(INPUT + 4, 3, 4);
    store(INPUT + 32, 1u << 27 | 3 << 20, 4);
    store(INPUT + 36, (port + 1) << 16, 4);
    store(INPUT + 64 + 4, 64 << 16 | 4 << 3, 4);
    store(INPUT + 64 + 8, CONTROL | 1, 8);
    ck_assert_uint_eq(command(11, INPUT, 1, &slot), 1);
    ck_assert_uint_eq(load(OUTPUT + 12, 4), 2u << 27 | 1);
}

static unsigned control_in(uint64_t request, unsigned length)
{
    uint64_t p;
    uint32_t s, c;
    put_trb(CONTROL + 16 * control_at++, request, 8, 2 << 10 | 64 | 3 << 16);
    put_trb(CONTROL + 16 * control_at++, BUFFER, length, 3 << 10 | 4 | 1 << 16);
    put_trb(CONTROL + 16 * control_at++, 0, 0, 4 << 10 | 32);
    store(BAR + 0x2004, 1, 4);
    unsigned code = event(32, &p, &s, &c), left = code == 13 ? s & 0xffffff : 0;
    if (code == 13)
        ck_assert_uint_eq(event(32, &p, &s, &c), 1);
    else if (code != 1)
        return 0;
    return length - left;
}

static void configure(void)
{
    uint64_t p;
    uint32_t s, c;
    unsigned slot;
    put_trb(CONTROL + 16 * control_at++, 0x0000000000010900, 8, 2 << 10 | 64);
    put_trb(CONTROL + 16 * control_at++, 0, 0, 4 << 10 | 32 | 1 << 16);
    store(BAR + 0x2004, 1, 4);
    ck_assert_uint_eq(event(32, &p, &s, &c), 1);
    store(INPUT + 4, 1 | 8, 4);
    store(INPUT + 32, 3u << 27 | 3 << 20, 4);
    store(INPUT + 128 + 4, 8 << 16 | 7 << 3, 4);
    store(INPUT + 128 + 8, REPORTS | 1, 8);
    ck_assert_uint_eq(command(12, INPUT, 1, &slot), 1);
    ck_assert_uint_eq(load(OUTPUT + 12, 4) >> 27, 3);
}

static void ask_report(void)
{
    put_trb(REPORTS + 16 * report_at++, BUFFER, 8, 1 << 10 | 32 | 4);
    store(BAR + 0x2004, 3, 4);
}

START_TEST(tablet_positions)
{
    uint64_t p;
    uint32_t s, c;
    enumerate(0);
    ck_assert_uint_eq(control_in(0x0012000001000680, 18), 18);
    ck_assert_uint_eq(load(BUFFER, 4), 0x02000112);
    ck_assert_uint_eq(control_in(0x00ff000002000680, 255), 34);
    ck_assert_uint_eq(load(BUFFER + 2, 2), 34);
    configure();
    ck_assert(!input_absolute(machine->input));
    ask_report();
    ck_assert(input_absolute(machine->input));
    ck_assert_uint_eq(load(EVENTS + 16 * event_at + 12, 4) & 1, 0); // nothing to say yet
    input_pointer_absolute(machine->input, 799, 0, 800, 600);
    input_sync(machine->input);
    ck_assert_uint_eq(event(32, &p, &s, &c), 13);
    ck_assert_uint_eq(s & 0xffffff, 2);
    ck_assert_uint_eq(c >> 16 & 31, 3);
    ck_assert_uint_eq(load(BUFFER + 1, 2), 32747);
    ck_assert_uint_eq(load(BUFFER + 3, 2), 27);
    input_button(machine->input, INPUT_LEFT, true); // before the guest asks: kept
    input_button(machine->input, INPUT_LEFT, false);
    ask_report();
    ck_assert_uint_eq(event(32, &p, &s, &c), 13);
    ck_assert_uint_eq(load(BUFFER, 1), 1);
    ask_report();
    ck_assert_uint_eq(event(32, &p, &s, &c), 13);
    ck_assert_uint_eq(load(BUFFER, 1), 0);
}
END_TEST

START_TEST(keyboard_reports)
{
    uint64_t p;
    uint32_t s, c;
    enumerate(1);
    configure();
    ask_report();
    input_key(machine->input, KEY_LEFTSHIFT, true);
    ck_assert_uint_eq(event(32, &p, &s, &c), 1);
    ck_assert_uint_eq(load(BUFFER, 8), 2);
    ask_report();
    input_key(machine->input, KEY_A, true);
    ck_assert_uint_eq(event(32, &p, &s, &c), 1);
    ck_assert_uint_eq(load(BUFFER, 8), 0x040002);
    // SET_REPORT: caps lock on
    store(BUFFER + 64, 2, 1);
    put_trb(CONTROL + 16 * control_at++, 0x0001000002000921, 8, 2 << 10 | 64 | 2 << 16);
    put_trb(CONTROL + 16 * control_at++, BUFFER + 64, 1, 3 << 10);
    put_trb(CONTROL + 16 * control_at++, 0, 0, 4 << 10 | 32 | 1 << 16);
    store(BAR + 0x2004, 1, 4);
    ck_assert_uint_eq(event(32, &p, &s, &c), 1);
    ck_assert_uint_eq(input_leds(machine->input), 4);
    ck_assert_uint_eq(control_in(0x0002000099000680, 2), 0); // no such descriptor: stall
    ck_assert_uint_eq(load(OUTPUT + 32, 4) & 7, 2);
}
END_TEST

START_TEST(nonsense)
{
    g_autoptr(GRand) random = g_rand_new_with_seed(5);
    unsigned rounds = g_getenv("CLOCHE_LONG_TESTS") ? 400 : 20;
    for (unsigned round = 0; round < rounds; round++) {
        for (uint32_t at = COMMANDS; at < BUFFER + 0x1000; at += 4)
            if (g_rand_int_range(random, 0, 3) == 0)
                store(at,
                      g_rand_int_range(random, 0, 4) ? COMMANDS + (g_rand_int(random) & 0x2fff0) : g_rand_int(random),
                      4);
        for (unsigned i = 0; i < 3000; i++) {
            static const unsigned places[] = {0x40, 0x44,   0x58,   0x5c,   0x70,   0x74,
                                              0x78, 0x1020, 0x1028, 0x1030, 0x1034, 0x1038};
            unsigned what = g_rand_int_range(random, 0, 8);
            uint32_t value = g_rand_boolean(random) ? COMMANDS + (g_rand_int(random) & 0x2ffff) : g_rand_int(random);
            if (what < 2)
                store(BAR + places[g_rand_int_range(random, 0, G_N_ELEMENTS(places))], value, 4);
            else if (what == 2)
                store(BAR + 0x40, 5, 4);
            else if (what == 3)
                store(BAR + 0x440 + 4 * g_rand_int_range(random, 0, 40), value, 4);
            else if (what == 4)
                load(BAR + (g_rand_int(random) & 0x3ffc), 4);
            else if (what == 5)
                input_pointer_absolute(machine->input, value & 1023, value >> 10 & 1023, 1024, 1024);
            else
                store(BAR + 0x2000 + 4 * g_rand_int_range(random, 0, 12), g_rand_int_range(random, 0, 6), 4);
            input_sync(machine->input);
        }
    }
    for (uint32_t at = COMMANDS; at < BUFFER + 0x1000; at += 8)
        store(at, 0, 8);
    enumerate(0);
    ck_assert_uint_eq(control_in(0x0012000001000680, 18), 18);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("usb");
    TCase *tcase = tcase_create("usb");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, tablet_positions);
    tcase_add_test(tcase, keyboard_reports);
    tcase_add_test(tcase, nonsense);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
