// SPDX-License-Identifier: GPL-2.0-or-later
// The desktop agent's channel through the bus: a little guest that opens the port as Linux does and talks as
// spice-vdagent does, and one that talks nonsense.
#include "core/screen/clipboard.h"
#include "tests/unit/virtio-guest.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

extern const struct device_class virtio_agent_class;
const struct device_class *const device_classes[] = {&virtio_agent_class, NULL};

#define BUFFERS     0x600000 // guest-physical: a page for each queue's one buffer
#define BUFFER_SIZE 4096
#define MULTIPORT   BIT(1)
#define MODERN      BIT(32)

enum { CONTROL_RECEIVE = 2, CONTROL_TRANSMIT, RECEIVE, TRANSMIT, QUEUES };
enum { DEVICE_READY, PORT_ADD, PORT_READY = 3, PORT_OPEN = 6, PORT_NAMED };
enum { CLIPBOARD = 4, CAPABILITIES = 6, GRAB = 7, REQUEST = 8 };

static struct machine *machine;
static struct guest guest;
static GString *heard; // of the guest's texts

static void on_text(void *opaque, const char *text)
{
    g_string_assign(heard, text);
}

static void setup(const char *directions)
{
    GError *error = NULL;
    machine = machine_create(16 * MiB, clock_new_manual(), &error);
    ck_assert_msg(machine, "%s", error ? error->message : "");
    machine->clipboard = clipboard_new(&machine->lock);
    heard = g_string_new("");
    clipboard_add_listener(machine->clipboard, on_text, NULL);
    struct device *device = device_new(machine, "spice-agent", NULL, &error);
    ck_assert(device_set(device, "clipboard", directions, &error));
    ck_assert_msg(device_realize(device, &error), "%s", error ? error->message : "");
    guest_attach(&guest, machine, (struct pci_device *)device);
    ck_assert(guest_start(&guest, MULTIPORT | MODERN, QUEUES, 16));
}

static void teardown(void)
{
    struct clipboard *clipboard = machine->clipboard;
    machine_destroy(machine);
    clipboard_free(clipboard);
    g_string_free(heard, TRUE);
}

static uint64_t buffer(unsigned queue)
{
    return BUFFERS + BUFFER_SIZE * queue;
}

// What the device has to say on QUEUE; bytes.
static unsigned hear(unsigned queue, uint8_t *data)
{
    uint32_t length, id;
    guest_descriptor(&guest, queue, 0, buffer(queue), BUFFER_SIZE, GUEST_WRITE, 0);
    guest_offer(&guest, queue, 0);
    guest_notify(&guest, queue);
    ck_assert(guest_wait(&guest, queue, &id, &length));
    for (unsigned i = 0; i < length; i++)
        data[i] = guest_load(&guest, buffer(queue) + i, 1);
    return length;
}

static void tell(unsigned queue, const uint8_t *data, unsigned length)
{
    uint32_t used, id;
    for (unsigned i = 0; i < length; i++)
        guest_store(&guest, buffer(queue) + i, data[i], 1);
    guest_descriptor(&guest, queue, 0, buffer(queue), length, 0, 0);
    guest_offer(&guest, queue, 0);
    guest_notify(&guest, queue);
    ck_assert(guest_wait(&guest, queue, &id, &used));
}

static void tell_control(unsigned port, unsigned event, unsigned value)
{
    tell(CONTROL_TRANSMIT, (uint8_t[]){port, 0, 0, 0, event, 0, value, 0}, 8);
}

static void tell_agent(uint32_t type, const void *body, unsigned length)
{
    uint8_t message[28 + 1024] = {1, 0, 0, 0, 20 + length, (20 + length) >> 8, 0, 0, 1, 0, 0, 0, type};
    store_le(message + 24, 4, length);
    memcpy(message + 28, body, length);
    tell(TRANSMIT, message, 28 + length);
}

// The device's next message to the agent: its type; the body goes to BODY.
static uint32_t hear_agent(uint8_t *body, unsigned *length)
{
    uint8_t bytes[BUFFER_SIZE];
    unsigned count = hear(RECEIVE, bytes);
    ck_assert_uint_ge(count, 28);
    ck_assert_uint_eq(load_le(bytes, 4), 1);
    ck_assert_uint_eq(load_le(bytes + 4, 4), count - 8);
    ck_assert_uint_eq(load_le(bytes + 8, 4), 1);
    ck_assert_uint_eq(load_le(bytes + 24, 4), count - 28);
    *length = count - 28;
    memcpy(body, bytes + 28, *length);
    return load_le(bytes + 12, 4);
}

static void open_port(void)
{
    uint8_t bytes[BUFFER_SIZE];
    unsigned length;
    tell_control(0, DEVICE_READY, 1);
    ck_assert_uint_eq(hear(CONTROL_RECEIVE, bytes), 8);
    ck_assert_uint_eq(bytes[4], PORT_ADD);
    unsigned port = bytes[0];
    ck_assert_uint_eq(port, 1);
    tell_control(port, PORT_READY, 1);
    length = hear(CONTROL_RECEIVE, bytes);
    ck_assert_uint_eq(bytes[4], PORT_NAMED);
    ck_assert_int_eq(memcmp(bytes + 8, "com.redhat.spice.0", length - 8), 0);
    hear(CONTROL_RECEIVE, bytes);
    ck_assert_uint_eq(bytes[4], PORT_OPEN);
    ck_assert(!clipboard_to_guest(machine->clipboard, "nobody is there"));
    tell_control(port, PORT_OPEN, 1);
    const uint8_t capabilities[8] = {1, 0, 0, 0, 0x68}; // clipboard, by demand, with selections; wants ours
    tell_agent(CAPABILITIES, capabilities, 8);
    ck_assert_uint_eq(hear_agent(bytes, &length), CAPABILITIES);
    ck_assert_uint_eq(length, 8);
    ck_assert_uint_eq(bytes[4], 0x60);
}

static const uint8_t text_type[8] = {0, 0, 0, 0, 1};

START_TEST(texts_go_both_ways)
{
    uint8_t body[BUFFER_SIZE];
    unsigned length;
    setup("both");
    open_port();
    ck_assert(clipboard_to_guest(machine->clipboard, "Gr\xc3\xbc\xc3\x9f"
                                                     "e"));
    ck_assert_uint_eq(hear_agent(body, &length), GRAB);
    ck_assert_uint_eq(length, 8);
    ck_assert_int_eq(memcmp(body, text_type, 8), 0);
    tell_agent(REQUEST, text_type, 8);
    ck_assert_uint_eq(hear_agent(body, &length), CLIPBOARD);
    ck_assert_uint_eq(length, 8 + 7);
    ck_assert_int_eq(memcmp(body + 8,
                            "Gr\xc3\xbc\xc3\x9f"
                            "e",
                            7),
                     0);

    tell_agent(GRAB, text_type, 8);
    ck_assert_uint_eq(hear_agent(body, &length), REQUEST);
    ck_assert_int_eq(memcmp(body, text_type, 8), 0);
    tell_agent(CLIPBOARD, "\0\0\0\0\1\0\0\0back", 12);
    ck_assert_str_eq(heard->str, "back");
    tell_agent(CLIPBOARD, "\1\0\0\0\1\0\0\0primary", 15);
    ck_assert_str_eq(heard->str, "back");
    tell_agent(CLIPBOARD, "\0\0\0\0\2\0\0\0picture", 15);
    ck_assert_str_eq(heard->str, "back");

    tell_control(1, PORT_OPEN, 0); // the agent ends
    ck_assert(!clipboard_to_guest(machine->clipboard, "gone"));
    teardown();
}
END_TEST

START_TEST(one_way_is_one_way)
{
    setup("to-guest");
    open_port();
    tell_agent(CLIPBOARD, "\0\0\0\0\1\0\0\0secret", 14);
    ck_assert_str_eq(heard->str, "");
    teardown();
    uint8_t body[BUFFER_SIZE];
    unsigned length;
    setup("from-guest");
    open_port();
    clipboard_to_guest(machine->clipboard, "secret");
    tell_agent(REQUEST, text_type, 8);
    ck_assert_uint_eq(hear_agent(body, &length), CLIPBOARD);
    ck_assert_uint_eq(length, 8);
    ck_assert_uint_eq(body[4], 0);
    teardown();
}
END_TEST

// The ways are opened and closed while the guest runs.
START_TEST(ways_change)
{
    uint8_t body[BUFFER_SIZE];
    unsigned length;
    setup("both");
    open_port();
    ck_assert(clipboard_to_guest(machine->clipboard, "seen"));
    ck_assert_uint_eq(hear_agent(body, &length), GRAB);
    clipboard_set_ways(machine->clipboard, CLIPBOARD_FROM_GUEST);
    tell_agent(REQUEST, text_type, 8);
    ck_assert_uint_eq(hear_agent(body, &length), CLIPBOARD);
    ck_assert_uint_eq(length, 8); // what was offered before is not given any more
    tell_agent(CLIPBOARD, "\0\0\0\0\1\0\0\0back", 12);
    ck_assert_str_eq(heard->str, "back");
    clipboard_set_ways(machine->clipboard, CLIPBOARD_TO_GUEST);
    tell_agent(CLIPBOARD, "\0\0\0\0\1\0\0\0secret", 14);
    ck_assert_str_eq(heard->str, "back");
    tell_agent(REQUEST, text_type, 8);
    ck_assert_uint_eq(hear_agent(body, &length), CLIPBOARD);
    ck_assert_uint_eq(length, 8 + 4);
    teardown();
}
END_TEST

// A text larger than a chunk arrives in pieces that the agent's own parser would take.
START_TEST(long_texts_go_in_chunks)
{
    uint8_t bytes[BUFFER_SIZE];
    g_autoptr(GString) text = g_string_new("");
    while (text->len < 10000)
        g_string_append_printf(text, "%u,", (unsigned)text->len);
    setup("both");
    open_port();
    clipboard_to_guest(machine->clipboard, text->str);
    hear(RECEIVE, bytes);
    tell_agent(REQUEST, text_type, 8);
    g_autoptr(GByteArray) stream = g_byte_array_new();
    unsigned chunks = (28 + text->len + 2047) / 2048;
    while (stream->len < 28 + text->len + 8 * chunks)
        g_byte_array_append(stream, bytes, hear(RECEIVE, bytes));
    g_autoptr(GByteArray) message = g_byte_array_new();
    for (size_t at = 0; at < stream->len; at += 8 + load_le(stream->data + at + 4, 4)) {
        ck_assert_uint_le(load_le(stream->data + at + 4, 4), 2048);
        g_byte_array_append(message, stream->data + at + 8, load_le(stream->data + at + 4, 4));
    }
    ck_assert_uint_eq(message->len, 28 + text->len);
    ck_assert_int_eq(memcmp(message->data + 28, text->str, text->len), 0);
    teardown();
}
END_TEST

START_TEST(nonsense_is_survived)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(5);
    setup("both");
    open_port();
    for (unsigned i = 0; i < 3000; i++) {
        uint8_t bytes[300];
        unsigned length = g_rand_int_range(rand, 1, sizeof(bytes));
        for (unsigned k = 0; k < length; k++)
            bytes[k] = g_rand_int(rand);
        if (length > 28 && i % 4) { // nearly right
            memset(bytes, 0, 28);
            bytes[0] = bytes[8] = 1;
            store_le(bytes + 4, 2, length - 8);
            bytes[12] = g_rand_int_range(rand, 0, 17);
            store_le(bytes + 24, 2, i % 8 == 1 ? g_rand_int(rand) : length - 28);
        }
        if (i % 16 == 0)
            tell_control(g_rand_int_range(rand, 0, 3), g_rand_int_range(rand, 0, 9), i % 3);
        tell(TRANSMIT, bytes, length);
    }
    guest_start(&guest, MULTIPORT | MODERN, QUEUES, 16); // and it works after a reset
    open_port();
    tell_agent(CLIPBOARD, "\0\0\0\0\1\0\0\0alive", 13);
    ck_assert_str_eq(heard->str, "alive");
    teardown();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("agent");
    TCase *tcase = tcase_create("agent");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, texts_go_both_ways);
    tcase_add_test(tcase, one_way_is_one_way);
    tcase_add_test(tcase, ways_change);
    tcase_add_test(tcase, long_texts_go_in_chunks);
    tcase_add_test(tcase, nonsense_is_survived);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
