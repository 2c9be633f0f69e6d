// SPDX-License-Identifier: GPL-2.0-or-later
// Hostile drivers, for every network card and virtio-rng. Each input is a program for one card: register accesses,
// pieces of rings and descriptors in RAM, frames that come in, time, the cable, resets. Nothing may crash, hang, or
// touch memory that is not the guest's.
//   fuzz-net FILE...                    replays inputs (make check, with sanitizers)
//   fuzz-net --mutate SECONDS FILE...   changes the inputs at random for that long; a crashing input is kept in
//   ./fuzz-last fuzz-net --mutate-count N FILE...   N changes of each input
// Built with -DLIBFUZZER it is a libFuzzer target.
#include "core/machine/nic.h"
#include "tests/unit/virtio-guest.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW   0x800000 // guest-physical: what the programs write
#define STEPS    4096     // of one input
#define OPERATOR 8        // bytes of a step: what, how, offset (2), value (4)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

extern const struct device_class virtio_net_class, e1000_class, rtl8139_class, pcnet_class, ne2k_class,
    virtio_rng_class;
const struct device_class *const device_classes[] = {&e1000_class,      &rtl8139_class,    &pcnet_class, &ne2k_class,
                                                     &virtio_net_class, &virtio_rng_class, NULL};

#define KINDS G_N_ELEMENTS(device_classes) // the classes, and an RTL8139C+

// ---- A network that answers every other frame with itself -------------------------------------------------------

static bool echo_open(struct nic *nic, const char *argument, GError **error)
{
    return true;
}

static void echo_close(struct nic *nic)
{
}

static void echo_send(struct nic *nic, const uint8_t *frame, size_t length)
{
    if (frame[length - 1] & 1)
        nic_receive(nic, frame, length);
}

static void echo_prepare(struct nic *nic, GArray *descriptors, int *timeout)
{
}

static void echo_dispatch(struct nic *nic, GArray *descriptors, unsigned first)
{
}

static const struct nic_backend echo_backend = {.name = "echo",
                                                .takes_large = true,
                                                .whole = true,
                                                .open = echo_open,
                                                .close = echo_close,
                                                .send = echo_send,
                                                .prepare = echo_prepare,
                                                .dispatch = echo_dispatch};
const struct nic_backend *const nic_backends[] = {&echo_backend, NULL};

// ---- Programs ---------------------------------------------------------------------------------------------------

struct run {
    struct machine *machine;
    struct device *device;
    struct pci_device *pci;
    struct guest guest;
};

struct step {
    uint8_t what, how;
    uint16_t offset;
    uint32_t value;
};

static void access_register(struct run *run, const struct step *step, bool write)
{
    const unsigned bar = (step->how & 7) % 6, size = 1u << MIN(step->how >> 3 & 3, 2);
    if (!run->pci->bar[bar].region || run->pci->bar[bar].base == UINT64_MAX)
        return;
    struct address_space *space = run->pci->bar[bar].io ? run->machine->ports : run->machine->memory;
    uint64_t at = run->pci->bar[bar].base + step->offset % run->pci->bar[bar].size;
    if (write)
        address_space_store(space, at, step->value, size);
    else
        address_space_load(space, at, size);
}

static void do_store(struct run *run, const struct step *step)
{
    access_register(run, step, true);
}

static void do_load(struct run *run, const struct step *step)
{
    access_register(run, step, false);
}

// The window, or one of a virtio device's first four queues.
static uint64_t place(const struct step *step)
{
    return (step->how & 1 ? GUEST_RINGS + (step->how >> 1 & 3) * GUEST_RING_SIZE : WINDOW) + step->offset;
}

static void do_poke(struct run *run, const struct step *step)
{
    address_space_store(run->machine->memory, place(step), step->value, 4);
}

// Sixteen bytes as descriptors have them: an address in the window, and what the step says.
static void do_descriptor(struct run *run, const struct step *step)
{
    uint64_t at = place(step);
    address_space_store(run->machine->memory, at, WINDOW + (step->how & 0xfe) * 64, 4);
    address_space_store(run->machine->memory, at + 4, step->how == 0xff ? 0xffffffff : 0, 4);
    address_space_store(run->machine->memory, at + 8, step->value, 4);
    address_space_store(run->machine->memory, at + 12, step->value >> 16 | (uint32_t)step->offset << 16, 4);
}

static void do_frame(struct run *run, const struct step *step)
{
    static const uint8_t macs[4][6] = {{0x52, 0x54, 0, 0x12, 0x34, 0x56},
                                       {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
                                       {0x01, 0x00, 0x5e, 0, 0, 1},
                                       {0x52, 0x54, 0, 9, 9, 9}};
    static const uint8_t tcp[] = {8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 2, 10, 0, 2, 15};
    struct nic *nic = run->machine->nics;
    size_t length = MAX(step->offset % (step->how & 4 ? NIC_FRAME_MAX : 1519), NIC_HEADER);
    if (!nic)
        return;
    g_autofree uint8_t *frame = g_malloc(length);
    memset(frame, step->value, length);
    memcpy(frame, macs[step->how & 3], 6);
    if ((step->how & 8) && length >= 12 + sizeof tcp) {
        memcpy(frame + 12, tcp, sizeof tcp);
        frame[16] = (length - NIC_HEADER) >> 8;
        frame[17] = length - NIC_HEADER;
    }
    g_mutex_lock(&nic->backend_lock);
    nic_receive(nic, frame, length);
    g_mutex_unlock(&nic->backend_lock);
}

static void do_time(struct run *run, const struct step *step)
{
    clock_advance(run->machine->clock, step->value % 1000000000);
    g_main_context_iteration(run->machine->context, false);
}

static void do_event(struct run *run, const struct step *step)
{
    struct nic *nic = run->machine->nics;
    machine_lock(run->machine);
    if (step->how < 0x40 && nic)
        nic_set_link(nic, step->how & 1);
    machine_unlock(run->machine);
    if (step->how >= 0x40 && step->how < 0x60) {
        machine_reset_devices(run->machine);
        guest_attach(&run->guest, run->machine, run->pci);
    }
}

// A virtio device's driver starts as the specification wants it, and notifies.
static void do_virtio(struct run *run, const struct step *step)
{
    if (!g_str_has_prefix(run->device->class->name, "virtio-"))
        return;
    if (step->how & 1)
        guest_start(&run->guest, ~0ull ^ (uint64_t)step->value << 7, 3, 16);
    else if (run->guest.queues[step->offset % 3].size)
        guest_offer(&run->guest, step->offset % 3, step->value);
    if (step->how & 2)
        guest_notify(&run->guest, step->offset % 3);
}

static void (*const steps[])(struct run *run, const struct step *step) = {
    do_store, do_load, do_poke, do_descriptor, do_frame, do_time, do_event, do_virtio,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run run = {0};
    GError *error = NULL;
    if (size < 1 + OPERATOR)
        return 0;
    log_set_level(-1);
    unsigned kind = data[0] % KINDS;
    bool cplus = kind == KINDS - 1;
    run.machine = machine_create(16 * MiB, clock_new_manual(), &error);
    if (!run.machine || !machine_start(run.machine, &error))
        abort();
    run.device = device_new(run.machine, cplus ? "rtl8139" : device_classes[kind]->name, NULL, &error);
    if (strcmp(run.device->class->name, "virtio-rng") &&
        (!device_set(run.device, "backend", "echo", &error) || !device_set(run.device, "no-rom", "on", &error) ||
         !device_set(run.device, "mac", "52:54:00:12:34:56", &error)))
        abort();
    if (cplus && !device_set(run.device, "cplus", "on", &error))
        abort();
    if (!device_realize(run.device, &error))
        abort();
    run.pci = (struct pci_device *)run.device;
    guest_attach(&run.guest, run.machine, run.pci);
    for (size_t at = 1; at + OPERATOR <= size && at < STEPS * OPERATOR; at += OPERATOR) {
        const struct step step = {data[at] & 7, data[at + 1], load_le(data + at + 2, 2), load_le(data + at + 4, 4)};
        steps[step.what](&run, &step);
    }
    machine_destroy(run.machine);
    return 0;
}

#ifndef LIBFUZZER
// ---- The driver -------------------------------------------------------------------------------------------------

static void mutate(uint8_t *data, size_t size, GRand *random)
{
    static const uint32_t odd[] = {0, 1, 0xff, 0xffff, 0xffffffff, 0x80000000, WINDOW, GUEST_RINGS, 0x7fffffff, 16};
    unsigned changes = 1 + g_rand_int(random) % 12;
    for (unsigned i = 0; i < changes; i++) {
        size_t step = 1 + g_rand_int(random) % ((size - 1) / OPERATOR) * OPERATOR;
        switch (g_rand_int(random) % 4) {
        case 0:
            data[step + g_rand_int(random) % OPERATOR] ^= 1u << g_rand_int(random) % 8;
            break;
        case 1:
            store_le(data + step + 4, 4, odd[g_rand_int(random) % G_N_ELEMENTS(odd)]);
            break;
        case 2: // another step in its place
            memmove(data + step, data + 1 + g_rand_int(random) % ((size - 1) / OPERATOR) * OPERATOR, OPERATOR);
            break;
        default:
            store_le(data + step, 4, g_rand_int(random));
        }
    }
}

static void run_mutations(const uint8_t *data, size_t size, unsigned count, GRand *random)
{
    g_autofree uint8_t *copy = g_malloc(size);
    for (unsigned i = 0; i < count; i++) {
        memcpy(copy, data, size);
        mutate(copy, size, random);
        g_file_set_contents("fuzz-last", (char *)copy, size, NULL);
        LLVMFuzzerTestOneInput(copy, size);
    }
    g_unlink("fuzz-last");
}

int main(int argc, char **argv)
{
    unsigned seconds = 0, count = 0, replayed = 0;
    int first = 1;
    if (argc > 2 && strcmp(argv[1], "--mutate") == 0)
        seconds = atoi(argv[2]), first = 3;
    else if (argc > 2 && strcmp(argv[1], "--mutate-count") == 0)
        count = atoi(argv[2]), first = 3;
    GRand *random = g_rand_new_with_seed(count ? 8 : g_random_int());
    int64_t end = g_get_monotonic_time() + seconds * G_USEC_PER_SEC;
    do
        for (int i = first; i < argc; i++) {
            g_autofree char *data = NULL;
            gsize size;
            if (!g_file_get_contents(argv[i], &data, &size, NULL) || size < 1 + OPERATOR) {
                fprintf(stderr, "cannot use %s\n", argv[i]);
                return 2;
            }
            LLVMFuzzerTestOneInput((uint8_t *)data, size);
            run_mutations((uint8_t *)data, size, seconds ? 20 : count, random);
            replayed++;
        }
    while (seconds && g_get_monotonic_time() < end);
    printf("%u inputs\n", replayed);
    g_rand_free(random);
    return replayed ? 0 : 2;
}
#endif
