// SPDX-License-Identifier: GPL-2.0-or-later
// Networks: the cable, capture, the team, virtio-net and virtio-rng through their queues,
// and random register accesses of each card while frames come in.
#include "core/machine/nic.h"
#include "core/machine/pci.h"
#include "devices/net/card.h"
#include "devices/net/offload.h"
#include "tests/unit/net-frame.h"
#include "tests/unit/virtio-guest.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern const struct device_class virtio_net_class, e1000_class, rtl8139_class, pcnet_class, ne2k_class,
    virtio_rng_class;
const struct device_class *const device_classes[] = {
    &virtio_net_class, &e1000_class, &rtl8139_class, &pcnet_class, &ne2k_class, &virtio_rng_class, NULL};

// ---- A network that remembers what was sent ---------------------------------------------------------------------

static GMutex sent_lock;
static GQueue sent = G_QUEUE_INIT; // GBytes *

static bool test_open(struct nic *nic, const char *argument, GError **error)
{
    return true;
}

static void test_close(struct nic *nic)
{
}

static void test_send(struct nic *nic, const uint8_t *frame, size_t length)
{
    g_mutex_lock(&sent_lock);
    g_queue_push_tail(&sent, g_bytes_new(frame, length));
    g_mutex_unlock(&sent_lock);
}

static void test_prepare(struct nic *nic, GArray *descriptors, int *timeout)
{
}

static void test_dispatch(struct nic *nic, GArray *descriptors, unsigned first)
{
}

static const struct nic_backend small_backend = {.name = "small",
                                                 .whole = true,
                                                 .open = test_open,
                                                 .close = test_close,
                                                 .send = test_send,
                                                 .prepare = test_prepare,
                                                 .dispatch = test_dispatch};
extern const struct nic_backend nic_backend_team;
const struct nic_backend *const nic_backends[] = {&small_backend, &nic_backend_team, NULL};

static GBytes *next_sent(void)
{
    for (unsigned i = 0; i < 20000; i++) {
        g_mutex_lock(&sent_lock);
        GBytes *bytes = g_queue_pop_head(&sent);
        g_mutex_unlock(&sent_lock);
        if (bytes)
            return bytes;
        g_usleep(100);
    }
    return NULL;
}

static struct machine *machine;

static void setup(void)
{
    GError *error = NULL;
    machine = machine_create(16 * MiB, clock_new_manual(), &error);
    ck_assert(machine);
    ck_assert(machine_start(machine, &error));
}

static void teardown(void)
{
    machine_destroy(machine);
}

static struct device *new_card(const char *class_name, const char *settings)
{
    GError *error = NULL;
    const char *feature = strchr(class_name, ','); // a property to be switched on
    g_autofree char *name = g_strndup(class_name, feature ? (size_t)(feature - class_name) : strlen(class_name));
    struct device *device = device_new(machine, name, NULL, &error);
    if (feature)
        ck_assert(device_set(device, feature + 1, "on", &error));
    if (strcmp(class_name, "virtio-rng")) {
        ck_assert(device_set(device, "backend", "small", &error));
        ck_assert(device_set(device, "mac", "52:54:00:12:34:56", &error));
        ck_assert(device_set(device, "no-rom", "on", &error));
        if (settings)
            ck_assert(device_set(device, "settings", settings, &error));
    }
    ck_assert_msg(device_realize(device, &error), "%s", error ? error->message : "");
    return device;
}

// ---- The cable --------------------------------------------------------------------------------------------------

struct sink {
    unsigned frames;
    bool full;
    uint32_t expected, disorder; // by the number behind the header
};

static bool sink_receive(void *opaque, const uint8_t *frame, size_t length)
{
    struct sink *sink = opaque;
    if (sink->full)
        return false;
    sink->disorder += load_le(frame + NIC_HEADER, 4) != sink->expected;
    sink->expected = load_le(frame + NIC_HEADER, 4) + 1;
    sink->frames++;
    return true;
}

static const struct nic_client sink_client = {.lockless = true, .receive = sink_receive};

static bool arrives(struct sink *sink, unsigned frames)
{
    for (unsigned i = 0; i < 300 && sink->frames < frames; i++) {
        clock_advance(machine->clock, 0);
        g_usleep(1000);
    }
    return sink->frames >= frames;
}

static void inject(struct nic *nic, const uint8_t *frame, size_t length)
{
    nic_receive(nic, frame, length);
    uint64_t one = 1;
    ck_assert_int_eq(write(nic->wake, &one, sizeof one), sizeof one);
}

START_TEST(cable_delays_loses_and_is_pulled)
{
    GError *error = NULL;
    struct sink sink = {0};
    uint8_t frame[100] = {0};
    struct nic *nic = nic_new(machine, "net0", "small", NULL, NULL, "delay=50", &error);
    ck_assert_msg(nic, "%s", error ? error->message : "");
    nic_set_client(nic, &sink_client, &sink);
    inject(nic, frame, sizeof frame);
    g_usleep(20000);
    ck_assert_uint_eq(sink.frames, 0);
    clock_advance(machine->clock, 51000000);
    ck_assert(arrives(&sink, 1));
    ck_assert(nic_set_shape(nic, "delay=0,loss=100", &error));
    inject(nic, frame, sizeof frame);
    ck_assert(nic_set_shape(nic, "loss=0", &error));
    nic_set_link(nic, false);
    inject(nic, frame, sizeof frame);
    nic_set_link(nic, true);
    inject(nic, frame, sizeof frame);
    ck_assert(arrives(&sink, 2));
    g_usleep(20000);
    ck_assert_uint_eq(sink.frames, 2);
    sink.full = true; // nothing is lost while the card has no room
    for (unsigned i = 0; i < 10; i++)
        inject(nic, frame, sizeof frame);
    g_usleep(20000);
    sink.full = false;
    nic_resume(nic);
    ck_assert(arrives(&sink, 12));
    ck_assert(!nic_set_shape(nic, "speed=9", &error));
    g_clear_error(&error);
    ck_assert(!nic_set_shape(nic, "loss=101", &error));
    g_clear_error(&error);
    ck_assert(!nic_add_forward(nic, "tcp::1-2", &error));
    g_clear_error(&error);
    nic_free(nic);
}
END_TEST

// ---- What the cable does to frames, read from those that are under way ----

#define UNDER_WAY 2000u

struct shaped {
    unsigned count;
    uint32_t number[UNDER_WAY];
    int64_t delay[UNDER_WAY]; // nanoseconds
};

static struct shaped *send_shaped(struct nic *nic, size_t length)
{
    struct shaped *shaped = g_new0(struct shaped, 1);
    uint8_t frame[1514] = {0};
    nic_set_link(nic, false); // empties the cable
    nic_set_link(nic, true);
    for (unsigned i = 0; i < UNDER_WAY; i++) {
        store_le(frame + NIC_HEADER, 4, i);
        nic_receive(nic, frame, length);
    }
    g_mutex_lock(&nic->lock);
    for (struct nic_frame *at = nic->to_guest.first; at; at = at->next, shaped->count++) {
        shaped->number[shaped->count] = load_le(at->data + NIC_HEADER, 4);
        shaped->delay[shaped->count] = at->due - clock_now(machine->clock);
    }
    g_mutex_unlock(&nic->lock);
    return shaped;
}

START_TEST(cable_keeps_its_figures)
{
    GError *error = NULL;
    struct sink sink = {0};
    struct nic *nic = nic_new(machine, "net0", "small", NULL, NULL, "rate=8M,delay=20", &error);
    nic_set_client(nic, &sink_client, &sink);
    g_autofree struct shaped *capped = send_shaped(nic, 1000); // a millisecond each
    ck_assert_uint_eq(capped->count, UNDER_WAY);
    for (unsigned i = 0; i < UNDER_WAY; i++)
        ck_assert_int_eq(capped->delay[i], (i + 1) * 1000000ll + 20000000);

    uint8_t frame[1000] = {0}; // what finds no place in the cable takes no time on it
    for (unsigned i = 0; i < 3000; i++)
        nic_receive(nic, frame, sizeof frame);
    ck_assert_uint_gt(nic->dropped, 2900);
    clock_advance(machine->clock, 1500000000);
    inject(nic, frame, sizeof frame);
    ck_assert(arrives(&sink, 1480));
    nic_receive(nic, frame, sizeof frame);
    g_mutex_lock(&nic->lock);
    ck_assert_int_lt(((struct nic_frame *)((char *)nic->to_guest.last - offsetof(struct nic_frame, next)))->due,
                     3 * 1000000000ll);
    g_mutex_unlock(&nic->lock);

    ck_assert(nic_set_shape(nic, "rate=0,delay=30,jitter=10,loss=10,seed=7", &error));
    unsigned arrived = 0, late = 0;
    double total = 0;
    for (unsigned round = 0; round < 5; round++) {
        g_autofree struct shaped *shaped = send_shaped(nic, 100);
        arrived += shaped->count;
        for (unsigned i = 0; i < shaped->count; i++) {
            ck_assert(shaped->delay[i] >= 30000000 && shaped->delay[i] < 40000000);
            ck_assert(!i || shaped->number[i] > shaped->number[i - 1]);
            total += shaped->delay[i];
            late += shaped->delay[i] >= 35000000;
        }
    }
    const double n = 5 * UNDER_WAY, five_sigma = 5 * sqrt(n * 0.1 * 0.9);
    ck_assert(fabs(arrived - 0.9 * n) < five_sigma);
    ck_assert(fabs(late - 0.5 * arrived) < 5 * sqrt(arrived * 0.25));
    ck_assert(fabs(total / arrived - 35e6) < 5 * 10e6 / sqrt(12.0 * arrived));

    ck_assert(nic_set_shape(nic, "seed=7", &error)); // the same once more, another seed: something else
    g_autofree struct shaped *first = send_shaped(nic, 100);
    ck_assert(nic_set_shape(nic, "seed=7", &error));
    g_autofree struct shaped *again = send_shaped(nic, 100);
    ck_assert_mem_eq(first, again, sizeof *first);
    ck_assert(nic_set_shape(nic, "seed=8", &error));
    g_autofree struct shaped *other = send_shaped(nic, 100);
    ck_assert_mem_ne(first, other, sizeof *first);
    ck_assert(!nic_set_shape(nic, "seed=x", &error));
    g_clear_error(&error);
    nic_free(nic);
}
END_TEST

START_TEST(wrong_options_are_named)
{
    static const char *const cases[][3] = {
        {"nowhere", NULL, NULL},
        {"team:", NULL, NULL},
        {"team:a/b", NULL, NULL},
        {"small", "52:54:00:12:34", NULL},
        {"small", "53:54:00:12:34:56", NULL},
        {"small", NULL, "rate=fast"},
        {"small", NULL, "delay"},
        {"small", NULL, "capture=/nonexistent/file"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        GError *error = NULL;
        ck_assert(!nic_new(machine, "net0", cases[i][0], cases[i][1], NULL, cases[i][2], &error));
        ck_assert(error && strstr(error->message, i == 7 ? "nonexistent" : "net0"));
        g_clear_error(&error);
        ck_assert_ptr_null(machine->nics);
    }
}
END_TEST

START_TEST(capture_holds_the_frames)
{
    GError *error = NULL;
    struct sink sink = {0};
    uint8_t frame[60] = "capture me";
    g_autofree char *path = g_strdup_printf("/tmp/cloche-test-%d.pcapng", (int)getpid());
    struct nic *nic = nic_new(machine, "net0", "small", NULL, NULL, NULL, &error);
    nic_set_client(nic, &sink_client, &sink);
    ck_assert(nic_capture_start(nic, path, &error));
    struct iovec iov = {frame, sizeof frame};
    nic_send(nic, &iov, 1);
    inject(nic, frame, sizeof frame);
    ck_assert(arrives(&sink, 1));
    g_usleep(20000);
    nic_capture_stop(nic);
    g_autofree char *data = NULL;
    gsize length;
    ck_assert(g_file_get_contents(path, &data, &length, &error));
    unsigned packets = 0;
    for (gsize at = 0; at + 12 <= length;) {
        uint32_t size = load_le(data + at + 4, 4);
        ck_assert(size >= 12 && size % 4 == 0 && size <= length - at);
        ck_assert_uint_eq(load_le(data + at + size - 4, 4), size);
        if (load_le(data + at, 4) == 6) {
            packets++;
            ck_assert_uint_eq(load_le(data + at + 20, 4), 60);
            ck_assert_int_eq(memcmp(data + at + 28, frame, 60), 0);
        }
        at += size;
    }
    ck_assert_uint_eq(packets, 2);
    unlink(path);
    nic_free(nic);
}
END_TEST

static void check_addresses(const struct nic_addresses *addresses, const char *expected)
{
    g_auto(GStrv) texts = nic_addresses_text(addresses);
    g_autofree char *all = g_strjoinv(" ", texts);
    ck_assert_str_eq(all, expected);
}

START_TEST(addresses_are_heard_on_the_wire)
{
    struct nic_addresses addresses = {0};
    uint8_t arp[60] = {[12] = 8, [13] = 6, [14] = 0, 1, 8, 0, 6, 4, 0, 1};
    nic_addresses_note(&addresses, arp, sizeof arp); // a probe: nobody asks
    check_addresses(&addresses, "");
    memcpy(arp + 28, (uint8_t[]){10, 0, 2, 15}, 4);
    nic_addresses_note(&addresses, arp, 40); // cut short
    check_addresses(&addresses, "");
    nic_addresses_note(&addresses, arp, sizeof arp);
    check_addresses(&addresses, "10.0.2.15");
    uint8_t neighbour[86] = {[12] = 0x86, [13] = 0xdd, [14] = 0x60, [20] = 58, [54] = 135};
    memcpy(neighbour + 22, (uint8_t[]){0xfe, 0xc0, [15] = 7}, 16);
    nic_addresses_note(&addresses, neighbour, sizeof neighbour);
    check_addresses(&addresses, "10.0.2.15 fec0::7");
    neighbour[23] = 0x80; // the link's own address is no better
    nic_addresses_note(&addresses, neighbour, sizeof neighbour);
    check_addresses(&addresses, "10.0.2.15 fec0::7");
    memcpy(arp + 28, (uint8_t[]){192, 168, 1, 9}, 4);
    nic_addresses_note(&addresses, arp, sizeof arp); // it got another one
    check_addresses(&addresses, "192.168.1.9 fec0::7");
}
END_TEST

START_TEST(an_address_from_dhcp_is_known_before_it_is_used)
{
    struct nic_addresses addresses = {0};
    // Ethernet, IPv4 with UDP from 68 to 67, then the message: cookie at 236, options at 240.
    uint8_t frame[14 + 20 + 8 + 260] = {[12] = 8, [14] = 0x45, [23] = 17, [35] = 68, [37] = 67, [42] = 1};
    uint8_t *message = frame + 42, *options = message + 240;
    memcpy(message + 236, (uint8_t[]){99, 130, 83, 99}, 4);
    memcpy(options, (uint8_t[]){53, 1, 1, 0, 50, 4, 10, 0, 2, 15, 255}, 11); // a pad on the way
    nic_addresses_note(&addresses, frame, sizeof frame);                     // it only looks for a server
    check_addresses(&addresses, "");
    options[2] = 3;
    nic_addresses_note(&addresses, frame, 42 + 240 + 8); // cut short
    check_addresses(&addresses, "");
    nic_addresses_note(&addresses, frame, sizeof frame);
    check_addresses(&addresses, "10.0.2.15");
    options[3] = 255; // a renewal
    memcpy(message + 12, (uint8_t[]){10, 0, 2, 16}, 4);
    nic_addresses_note(&addresses, frame, sizeof frame);
    check_addresses(&addresses, "10.0.2.16");
    message[12] = 11;
    frame[37] = 53; // no DHCP
    nic_addresses_note(&addresses, frame, sizeof frame);
    check_addresses(&addresses, "10.0.2.16");
}
END_TEST

START_TEST(team_members_hear_each_other)
{
    GError *error = NULL;
    struct sink sinks[3] = {{0}};
    struct nic *nics[3];
    g_autofree char *team = g_strdup_printf("team:unit%d", (int)getpid());
    for (unsigned i = 0; i < 3; i++) {
        g_autofree char *id = g_strdup_printf("net%u", i);
        nics[i] = nic_new(machine, id, team, NULL, NULL, NULL, &error);
        ck_assert_msg(nics[i], "%s", error ? error->message : "");
        nic_set_client(nics[i], &sink_client, &sinks[i]);
    }
    uint8_t frame[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0};
    struct iovec iov = {frame, sizeof frame};
    nic_send(nics[0], &iov, 1); // to all
    ck_assert(arrives(&sinks[1], 1));
    ck_assert(arrives(&sinks[2], 1));
    uint8_t answer[60] = {2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1};
    iov.iov_base = answer;
    nic_send(nics[1], &iov, 1); // to the one who spoke
    ck_assert(arrives(&sinks[0], 1));
    g_usleep(20000);
    ck_assert_uint_eq(sinks[2].frames, 1);
    for (unsigned i = 0; i < 3; i++)
        nic_free(nics[i]);
}
END_TEST

#define MANY 3000u

static bool is_queued(struct nic *nic)
{
    g_mutex_lock(&nic->lock);
    bool queued = nic->to_network.first;
    g_mutex_unlock(&nic->lock);
    return queued;
}

static void send_numbered(struct nic *nic, size_t length, unsigned first, unsigned count)
{
    uint8_t frame[1514] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0};
    struct iovec iov = {frame, length};
    for (unsigned i = 0; i < count; i++) {
        store_le(frame + NIC_HEADER, 4, first + i);
        nic_send(nic, &iov, 1);
        nic_settle(nic);
        while (is_queued(nic)) // not faster than the back end takes them
            g_usleep(10);
    }
}

// A member that reads too slowly gets every frame, in order and at once, as long as they fit into what is kept for it.
START_TEST(team_keeps_frames_for_a_slow_member)
{
    GError *error = NULL;
    struct sink slow = {.full = true};
    g_autofree char *team = g_strdup_printf("team:slow%d", (int)getpid());
    struct nic *from = nic_new(machine, "net0", team, NULL, NULL, NULL, &error);
    struct nic *to = nic_new(machine, "net1", team, NULL, NULL, NULL, &error);
    ck_assert(from && to);
    nic_set_client(to, &sink_client, &slow);
    for (unsigned round = 0; round < 5; round++) { // no wake-up is lost
        slow.full = true;
        send_numbered(from, 200, MANY * round, MANY);
        slow.full = false;
        nic_resume(to);
        ck_assert(arrives(&slow, MANY * (round + 1)));
    }
    ck_assert_uint_eq(slow.disorder, 0);
    ck_assert_uint_eq(from->dropped + to->dropped, 0);

    slow.full = true;
    slow.frames = 0;
    send_numbered(from, 1514, 0, 2 * MANY);
    slow.full = false;
    nic_resume(to);
    ck_assert_uint_gt(from->dropped, 0);
    ck_assert(arrives(&slow, 2 * MANY - from->dropped));
    ck_assert_uint_gt(slow.frames, (4 << 20) / 1514);
    ck_assert_uint_eq(to->dropped, 0);
    nic_free(to);
    send_numbered(from, 200, 0, 1); // to nobody
    nic_free(from);
}
END_TEST

// ---- virtio -----------------------------------------------------------------------------------------------------

#define BUFFERS 0x800000 // guest-physical
#define NET_MAC "\x52\x54\x00\x12\x34\x56"

START_TEST(virtio_net_sends_and_receives)
{
    struct guest guest;
    struct device *device = new_card("virtio-net", NULL);
    struct nic *nic = machine->nics;
    uint8_t frame[8000];
    bool mergeable = _i;
    guest_attach(&guest, machine, (struct pci_device *)device);
    ck_assert(guest_start(&guest, mergeable ? ~0ull : BIT(32) | BIT(1), 3, 64));
    // Receive: buffers of 2 KiB.
    for (unsigned i = 0; i < 16; i++) {
        guest_descriptor(&guest, 0, i, BUFFERS + 0x800 * i, 0x800, GUEST_WRITE, 0);
        guest_offer(&guest, 0, i);
    }
    size_t length = tcp_frame(frame, NET_MAC, mergeable ? 5000 : 1000);
    ck_assert(finish_large(frame, length));
    inject(nic, frame, length);
    uint32_t id, written, total = 0;
    unsigned buffers = mergeable ? 3 : 1;
    for (unsigned i = 0; i < buffers; i++) {
        ck_assert(guest_wait(&guest, 0, &id, &written));
        ck_assert_uint_eq(id, i);
        total += written;
    }
    ck_assert_uint_eq(total, length + 12);
    const uint8_t *got = machine->ram->host + machine->ram_offset + BUFFERS + 12;
    if (mergeable) { // the driver takes long segments: the checksum is left to be finished, and how to cut it is said
        static const uint8_t header[] = {1, 1, 54, 0, 1460 & 255, 1460 >> 8, 34, 0, 16, 0, 3, 0};
        ck_assert_mem_eq(got - 12, header, sizeof header);
        ck_assert_int_eq(memcmp(got, frame, 50), 0);
        ck_assert_int_eq(memcmp(got + 52, frame + 52, 2036 - 52), 0);
        uint8_t finished[8000];
        memcpy(finished, frame, length);
        memcpy(finished + 50, got + 50, 2);
        checksum_store(finished, length, 34, 50);
        ck_assert_mem_eq(finished, frame, length);
    } else {
        ck_assert_uint_eq(guest_load(&guest, BUFFERS, 1), 2); // checksums are right
        ck_assert_uint_eq(guest_load(&guest, BUFFERS + 10, 2), buffers);
        ck_assert_int_eq(memcmp(got, frame, length), 0);
    }
    inject(nic, (const uint8_t *)"\x52\x54\x00\x99\x99\x99......................................................", 60);
    ck_assert(!guest_wait(&guest, 0, &id, &written)); // somebody else's

    // Send: plain, with a checksum left to the card, and a large segment.
    uint64_t header = BUFFERS + 0x100000, data = header + 0x100;
    address_space_write(machine->memory, data, frame, length);
    for (unsigned kind = 0; kind < (mergeable ? 3 : 1); kind++) {
        static const uint8_t headers[3][12] = {
            {0}, {1, 0, 0, 0, 0, 0, 34, 0, 16, 0}, {1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0}};
        address_space_write(machine->memory, header, headers[kind], 12);
        guest_descriptor(&guest, 1, 0, header, 12, GUEST_NEXT, 1);
        guest_descriptor(&guest, 1, 1, data, length, 0, 0);
        guest_offer(&guest, 1, 0);
        guest_notify(&guest, 1);
        ck_assert(guest_wait(&guest, 1, &id, NULL));
        size_t payload = 0;
        while (payload < length - 54) {
            g_autoptr(GBytes) bytes = next_sent();
            ck_assert(bytes);
            bool ip_good;
            if (kind == 2) {
                ck_assert(checksum_verify(g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes), &ip_good));
                ck_assert_uint_le(g_bytes_get_size(bytes), 1514);
            } else {
                ck_assert_uint_eq(g_bytes_get_size(bytes), length);
            }
            payload += g_bytes_get_size(bytes) - 54;
        }
        ck_assert_uint_eq(payload, length - 54);
    }
}
END_TEST

START_TEST(virtio_net_random_chains)
{
    GRand *rand = g_rand_new_with_seed(_i + 1);
    struct guest guest;
    struct device *device = new_card("virtio-net", NULL);
    uint8_t frame[4000];
    guest_attach(&guest, machine, (struct pci_device *)device);
    for (unsigned round = 0; round < 60; round++) {
        guest_start(&guest, g_rand_boolean(rand) ? ~0ull : BIT(32), 3, 1u << g_rand_int_range(rand, 0, 7));
        for (unsigned step = 0; step < 60; step++) {
            unsigned queue = g_rand_int_range(rand, 0, 3);
            guest_descriptor(&guest, queue, g_rand_int_range(rand, 0, 64),
                             BUFFERS + g_rand_int_range(rand, 0, 0x900000), g_rand_int_range(rand, 0, 9000),
                             g_rand_int_range(rand, 0, 8) & 7, g_rand_int_range(rand, 0, 66));
            guest_store(&guest, BUFFERS + g_rand_int_range(rand, 0, 0x1000) * 4, g_rand_int(rand), 4);
            guest_offer(&guest, queue, g_rand_int_range(rand, 0, 66));
            if (step % 4 == 0)
                guest_notify(&guest, queue);
            if (step % 6 == 0)
                inject(machine->nics, frame, tcp_frame(frame, NET_MAC, g_rand_int_range(rand, 0, 3000)));
        }
    }
    g_rand_free(rand);
    ck_assert(guest_start(&guest, ~0ull, 3, 64));
}
END_TEST

START_TEST(virtio_rng_keeps_its_rate)
{
    struct guest guest;
    GError *error = NULL;
    struct device *device = device_new(machine, "virtio-rng", NULL, &error);
    ck_assert(device_set(device, "rate", "10K", &error));
    ck_assert(device_realize(device, &error));
    guest_attach(&guest, machine, (struct pci_device *)device);
    ck_assert(guest_start(&guest, ~0ull, 1, 8));
    uint64_t total = 0;
    bool nonzero = false;
    for (unsigned tenths = 0; tenths < 20; tenths++) {
        guest_descriptor(&guest, 0, 0, BUFFERS, 65536, GUEST_WRITE, 0);
        guest_offer(&guest, 0, 0);
        guest_notify(&guest, 0);
        clock_advance(machine->clock, 100000001);
        uint32_t written;
        ck_assert(guest_wait(&guest, 0, NULL, &written));
        total += written;
        nonzero |= guest_load(&guest, BUFFERS, 8) != 0;
    }
    ck_assert(nonzero);
    ck_assert_uint_ge(total, 15000);
    ck_assert_uint_le(total, 24000); // two seconds at 10 KiB each, and the budget before
}
END_TEST

// ---- Registers --------------------------------------------------------------------------------------------------

static const char *const cards[] = {"e1000", "rtl8139", "pcnet", "ne2k", "virtio-net", "virtio-rng", "rtl8139,cplus"};

// Random descriptors all over memory, rings that point into them, frames that come in meanwhile.
START_TEST(random_registers)
{
    GRand *rand = g_rand_new_with_seed(_i + 1);
    struct guest guest;
    const char *name = cards[_i % G_N_ELEMENTS(cards)];
    struct device *device = new_card(name, NULL);
    struct pci_device *pci = (struct pci_device *)device;
    uint8_t frame[2000];
    guest_attach(&guest, machine, pci);
    for (unsigned i = 0; i < 0x10000; i += 4)
        guest_store(&guest, BUFFERS + i, g_rand_int(rand) & g_rand_int(rand), 4);
    for (unsigned step = 0; step < 30000; step++) {
        unsigned bar = g_rand_int_range(rand, 0, 6), size = 1u << g_rand_int_range(rand, 0, 3);
        if (!pci->bar[bar].region || pci->bar[bar].base == UINT64_MAX)
            continue;
        struct address_space *space = pci->bar[bar].io ? machine->ports : machine->memory;
        uint64_t reach = g_rand_boolean(rand) ? MIN(pci->bar[bar].size, 64) : MIN(pci->bar[bar].size, 0x4000);
        uint64_t at = pci->bar[bar].base + g_rand_int_range(rand, 0, reach);
        uint32_t value = g_rand_int(rand) >> g_rand_int_range(rand, 0, 31);
        if (g_rand_boolean(rand))
            value = BUFFERS + (value & 0xfff0);
        if (g_rand_boolean(rand))
            address_space_store(space, at, value, size);
        else
            address_space_load(space, at, size);
        if (step % 50 == 0 && machine->nics)
            inject(machine->nics, frame,
                   tcp_frame(frame, g_rand_boolean(rand) ? NET_MAC : "\xff\xff\xff\xff\xff\xff",
                             g_rand_int_range(rand, 0, 1500)));
        if (step % 997 == 0)
            g_main_context_iteration(machine->context, false);
        if (step % 5000 == 4999) {
            machine_reset_devices(machine);
            guest_attach(&guest, machine, pci);
        }
    }
    g_rand_free(rand);
    g_mutex_lock(&sent_lock);
    g_queue_clear_full(&sent, (GDestroyNotify)g_bytes_unref);
    g_mutex_unlock(&sent_lock);
}
END_TEST

// Each card in order: a ring set up by the book, a frame in, a frame out (e1000 stands for the others, whose guests
// test it).
START_TEST(e1000_sends_and_receives)
{
    struct guest guest;
    struct device *device = new_card("e1000", NULL);
    uint8_t frame[200];
    guest_attach(&guest, machine, (struct pci_device *)device);
    uint64_t base = ((struct pci_device *)device)->bar[0].base, rx = BUFFERS, tx = BUFFERS + 0x1000,
             data = BUFFERS + 0x2000;
    ck_assert_uint_eq(guest_load(&guest, base + 0x5400, 4), 0x12005452);
    for (unsigned i = 0; i < 8; i++)
        guest_store(&guest, rx + 16 * i, data + 2048 * i, 8);
    guest_store(&guest, base + 0x2800, rx, 4);
    guest_store(&guest, base + 0x2808, 128, 4);
    guest_store(&guest, base + 0x2818, 7, 4);
    guest_store(&guest, base + 0x100, 0x8002, 4);
    guest_store(&guest, base + 0xd0, 0x80, 4);
    size_t length = tcp_frame(frame, NET_MAC, 100);
    inject(machine->nics, frame, length);
    for (unsigned i = 0; i < 2000 && !(guest_load(&guest, rx + 12, 1) & 1); i++) {
        g_main_context_iteration(machine->context, false);
        g_usleep(500);
    }
    ck_assert_uint_eq(guest_load(&guest, rx + 12, 1) & 3, 3);
    ck_assert_uint_eq(guest_load(&guest, rx + 8, 2), length + 4);
    ck_assert_int_eq(memcmp(machine->ram->host + machine->ram_offset + data, frame, length), 0);
    ck_assert(((struct pci_device *)device)->intx_level);
    ck_assert_uint_eq(guest_load(&guest, base + 0xc0, 4) & 0x80, 0x80);
    ck_assert(!((struct pci_device *)device)->intx_level);

    address_space_write(machine->memory, data, frame, length);
    guest_store(&guest, tx, data, 8);
    guest_store(&guest, tx + 8, 0x09000000 | length, 4);
    guest_store(&guest, base + 0x3800, tx, 4);
    guest_store(&guest, base + 0x3808, 128, 4);
    guest_store(&guest, base + 0x400, 2, 4);
    guest_store(&guest, base + 0x3818, 1, 4);
    ck_assert_uint_eq(guest_load(&guest, tx + 12, 1) & 1, 1);
    g_autoptr(GBytes) bytes = next_sent();
    ck_assert(bytes);
    ck_assert_uint_eq(g_bytes_get_size(bytes), length);
    ck_assert_int_eq(memcmp(g_bytes_get_data(bytes, NULL), frame, length), 0);
}
END_TEST

#define CP_RECEIVE BUFFERS // rings of the RTL8139C+
#define CP_SEND    (BUFFERS + 0x1000)
#define CP_DATA    (BUFFERS + 0x4000)

static void cp_descriptor(struct guest *guest, uint64_t at, uint32_t status, uint64_t buffer)
{
    guest_store(guest, at, status, 4);
    guest_store(guest, at + 4, 0, 4);
    guest_store(guest, at + 8, buffer, 8);
}

static void cp_start(struct guest *guest, uint64_t base)
{
    guest_store(guest, base + 0xe0, 0x23, 2); // both rings, checksums
    guest_store(guest, base + 0xe4, CP_RECEIVE, 4);
    guest_store(guest, base + 0x20, CP_SEND, 4);
    guest_store(guest, base + 0x37, 0x0c, 1);
    guest_store(guest, base + 0x44, 0x0e, 4);
}

static bool cp_waits(struct guest *guest, uint64_t at, uint32_t bits, uint32_t value)
{
    for (unsigned i = 0; i < 3000 && (guest_load(guest, at, 2) & bits) != value; i++)
        g_usleep(100);
    return (guest_load(guest, at, 2) & bits) == value;
}

// A frame into two buffers with its checksum judged; one with a wrong checksum waits until there is room.
START_TEST(rtl8139_cplus_receives)
{
    struct guest guest;
    struct device *device = new_card("rtl8139,cplus", NULL);
    static uint8_t frame[400], got[400];
    guest_attach(&guest, machine, (struct pci_device *)device);
    uint64_t base = ((struct pci_device *)device)->bar[1].base;
    ck_assert_uint_eq(guest_load(&guest, base + 0x40, 4) & 0x7cc00000, 0x74800000);
    cp_start(&guest, base);
    cp_descriptor(&guest, CP_RECEIVE, 0x80000000 | 100, CP_DATA);
    cp_descriptor(&guest, CP_RECEIVE + 16, 0xc0000000 | 1536, CP_DATA + 0x1000);
    size_t length = tcp_frame(frame, NET_MAC, 200);
    ck_assert(finish_large(frame, length));
    inject(machine->nics, frame, length);
    ck_assert(cp_waits(&guest, base + 0x3e, 1, 1));
    ck_assert_uint_eq(guest_load(&guest, CP_RECEIVE, 4), 0x24010000 | 100);               // first, ours, TCP, right
    ck_assert_uint_eq(guest_load(&guest, CP_RECEIVE + 16, 4), 0x54010000 | (length + 4)); // last, end of the ring
    address_space_read(machine->memory, CP_DATA + 0x1000, got, length - 100);
    ck_assert_mem_eq(got, frame + 100, length - 100);
    frame[60] ^= 1;
    inject(machine->nics, frame, length);
    ck_assert(cp_waits(&guest, base + 0x3e, 0x10, 0x10));
    cp_descriptor(&guest, CP_RECEIVE, 0x80000000 | 1536, CP_DATA);
    guest_store(&guest, base + 0x3e, 0x11, 2);
    ck_assert(cp_waits(&guest, base + 0x3e, 1, 1));
    ck_assert_uint_eq(guest_load(&guest, CP_RECEIVE, 4), 0x34012000 | (length + 4));
}
END_TEST

// A large frame in two pieces, which the card cuts; one that it only sums; what is not the card's is left alone.
START_TEST(rtl8139_cplus_sends)
{
    struct guest guest;
    struct device *device = new_card("rtl8139,cplus", NULL);
    static uint8_t frame[8000];
    bool ip_good;
    guest_attach(&guest, machine, (struct pci_device *)device);
    uint64_t base = ((struct pci_device *)device)->bar[1].base;
    cp_start(&guest, base);
    size_t length = tcp_frame(frame, "\x52\x55\x0a\x00\x02\x02", 6000);
    store_be16(frame + 16, length - NIC_HEADER);
    address_space_write(machine->memory, CP_DATA, frame, length);
    cp_descriptor(&guest, CP_SEND, 0xa8000000 | 1000 << 16 | 54, CP_DATA); // segments of 1000 bytes
    cp_descriptor(&guest, CP_SEND + 16, 0x98000000 | 1000 << 16 | 6000, CP_DATA + 54);
    cp_descriptor(&guest, CP_SEND + 32, 0x70000000 | 60, CP_DATA);
    guest_store(&guest, base + 0xd9, 0x40, 1);
    for (unsigned i = 0; i < 6; i++) {
        g_autoptr(GBytes) bytes = next_sent();
        ck_assert(bytes);
        ck_assert_uint_eq(g_bytes_get_size(bytes), 1054);
        ck_assert(checksum_verify(g_bytes_get_data(bytes, NULL), 1054, &ip_good) && ip_good);
    }
    ck_assert_uint_eq(guest_load(&guest, CP_SEND, 4), 0x20000000 | 54); // no error in place of the segment's size
    ck_assert_uint_eq(guest_load(&guest, CP_SEND + 16, 4), 0x10000000 | 6000);
    ck_assert_uint_eq(guest_load(&guest, CP_SEND + 32, 4), 0x70000000 | 60);
    ck_assert_uint_eq(guest_load(&guest, base + 0x3e, 2) & 0x84, 0x84);

    length = tcp_frame(frame, "\x52\x55\x0a\x00\x02\x02", 300);
    store_be16(frame + 16, length - NIC_HEADER);
    address_space_write(machine->memory, CP_DATA, frame, length);
    cp_descriptor(&guest, CP_SEND + 32, 0xf0050000 | length, CP_DATA); // the ring's end; IP and TCP checksums
    guest_store(&guest, base + 0xd9, 0x40, 1);
    g_autoptr(GBytes) bytes = next_sent();
    ck_assert(bytes);
    ck_assert_uint_eq(g_bytes_get_size(bytes), length);
    ck_assert(checksum_verify(g_bytes_get_data(bytes, NULL), length, &ip_good) && ip_good);
    cp_descriptor(&guest, CP_SEND, 0xf0000000 | 60, CP_DATA); // it goes on at the start
    guest_store(&guest, base + 0xd9, 0x40, 1);
    g_autoptr(GBytes) plain = next_sent();
    ck_assert(plain);
    ck_assert_uint_eq(g_bytes_get_size(plain), 60);
}
END_TEST

int main(void)
{
    g_autofree char *runtime = g_strdup("/tmp/cloche-net-XXXXXX");
    if (!g_mkdtemp(runtime))
        return EXIT_FAILURE;
    setenv("XDG_RUNTIME_DIR", runtime, 1);
    Suite *suite = suite_create("net");
    TCase *tcase = tcase_create("net");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, cable_delays_loses_and_is_pulled);
    tcase_add_test(tcase, cable_keeps_its_figures);
    tcase_add_test(tcase, wrong_options_are_named);
    tcase_add_test(tcase, capture_holds_the_frames);
    tcase_add_test(tcase, addresses_are_heard_on_the_wire);
    tcase_add_test(tcase, an_address_from_dhcp_is_known_before_it_is_used);
    tcase_add_test(tcase, team_members_hear_each_other);
    tcase_add_test(tcase, team_keeps_frames_for_a_slow_member);
    tcase_add_loop_test(tcase, virtio_net_sends_and_receives, 0, 2);
    tcase_add_loop_test(tcase, virtio_net_random_chains, 0, 4);
    tcase_add_test(tcase, virtio_rng_keeps_its_rate);
    tcase_add_test(tcase, e1000_sends_and_receives);
    tcase_add_test(tcase, rtl8139_cplus_receives);
    tcase_add_test(tcase, rtl8139_cplus_sends);
    tcase_add_loop_test(tcase, random_registers, 0, 2 * G_N_ELEMENTS(cards));
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
