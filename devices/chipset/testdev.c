// SPDX-License-Identifier: GPL-2.0-or-later
// The small public test devices that kernel-level test suites (kvm-unit-tests) expect: pc-testdev and pci-testdev.
#include "devices/chipset/chipset.h"

#include <string.h>

// ---- pc-testdev: I/O data at 0xe0 (any size), interrupt lines at 0x2000, a flush port at 0xe4, memory at 0xff000000
// ----
struct pc_testdev {
    struct device device;
    uint32_t io_value;
    uint8_t memory[0x10000];
    struct region io, irq, flush, window;
};

static uint64_t io_read(void *opaque, uint64_t offset, unsigned size)
{
    return ((struct pc_testdev *)opaque)->io_value >> 8 * offset;
}

static void io_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pc_testdev *s = opaque;
    uint8_t bytes[4];
    store_le(bytes, 4, s->io_value);
    store_le(bytes + offset, MIN(size, 4 - offset), value);
    s->io_value = load_le(bytes, 4);
}

static uint64_t zero_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void irq_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pc_testdev *s = opaque;
    irq_set(offset < 16 ? &s->device.machine->isa_irq[offset] : &s->device.machine->gsi[offset], value & 1);
}

static void flush_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
}

static uint64_t window_read(void *opaque, uint64_t offset, unsigned size)
{
    return load_le(((struct pc_testdev *)opaque)->memory + offset, size);
}

static void window_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    store_le(((struct pc_testdev *)opaque)->memory + offset, size, value);
}

static const struct io_ops io_ops = {io_read, io_write, 1, 4};
static const struct io_ops irq_ops = {zero_read, irq_write, 1, 1};
static const struct io_ops flush_ops = {zero_read, flush_write, 4, 4};
static const struct io_ops window_ops = {window_read, window_write, 1, 8};

static bool pc_realize(struct device *device, GError **error)
{
    struct pc_testdev *s = (struct pc_testdev *)device;
    region_init_io(&s->io, "testdev io", &io_ops, s, 4);
    region_init_io(&s->flush, "testdev flush", &flush_ops, s, 4);
    region_init_io(&s->irq, "testdev irq", &irq_ops, s, 24);
    region_init_io(&s->window, "testdev memory", &window_ops, s, sizeof(s->memory));
    address_space_map(device->machine->ports, &s->io, 0xe0, 0);
    address_space_map(device->machine->ports, &s->flush, 0xe4, 0);
    address_space_map(device->machine->ports, &s->irq, 0x2000, 0);
    address_space_map(device->machine->memory, &s->window, 0xff000000, 0);
    return true;
}

static const struct field pc_fields[] = {
    FIELD_U32(struct pc_testdev, io_value),
    FIELD_BYTES(struct pc_testdev, memory),
    FIELD_END,
};

const struct device_class pc_testdev_class = {
    .name = "pc-testdev",
    .help = "ports, interrupt lines and memory for kernel-level test suites",
    .size = sizeof(struct pc_testdev),
    .realize = pc_realize,
    .fields = pc_fields,
};

// ---- pci-testdev: BAR 0 memory and BAR 1 ports, each with a header that describes one test and counts its writes ----
enum { H_TEST = 0, H_WIDTH = 1, H_OFFSET = 4, H_DATA = 8, H_COUNT = 12, H_NAME = 16, HEADER = 64 };
#define TESTS         3
#define TARGET_OFFSET 0x800

struct test_bar {
    struct pci_testdev *testdev;
    uint8_t test; // selected
    uint32_t count;
    bool io;
    struct region region;
};

struct pci_testdev {
    struct pci_device pci;
    struct test_bar bar[2];
};

static void describe(const struct test_bar *bar, uint8_t header[HEADER])
{
    static const char *const names[TESTS] = {"no-eventfd", "wildcard-eventfd", "datamatch-eventfd"};
    memset(header, 0, HEADER);
    header[H_TEST] = bar->test;
    if (bar->test >= TESTS)
        return;
    header[H_WIDTH] = 1;
    store_le(header + H_OFFSET, 4, bar->io ? 0x80 : TARGET_OFFSET);
    store_le(header + H_DATA, 4, bar->test == 2 ? 0xfa : 0);
    store_le(header + H_COUNT, 4, bar->count);
    g_snprintf((char *)header + H_NAME, HEADER - H_NAME, "%s-%s", bar->io ? "portio" : "mmio", names[bar->test]);
}

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned size)
{
    uint8_t header[HEADER];
    describe(opaque, header);
    return offset + size <= HEADER ? load_le(header + offset, size) : 0;
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct test_bar *bar = opaque;
    if (offset == H_TEST) {
        bar->test = value;
        bar->count = 0;
    } else if (bar->test < TESTS && offset == (bar->io ? 0x80 : TARGET_OFFSET) && size == 1) {
        bar->count += bar->test != 2 || value == 0xfa;
    }
}

static const struct io_ops bar_ops = {bar_read, bar_write, 1, 4};

static bool pci_realize(struct device *device, GError **error)
{
    struct pci_testdev *s = (struct pci_testdev *)device;
    static const struct pci_ids ids = {
        .vendor = 0x1b36, .device = 0x0005, .subsystem_vendor = 0x1af4, .subsystem = 0x1100, .class_code = 0xff};
    if (!pci_device_init(&s->pci, &ids, -1, error))
        return false;
    for (unsigned i = 0; i < 2; i++) {
        s->bar[i].testdev = s;
        s->bar[i].io = i;
        region_init_io(&s->bar[i].region, "pci-testdev", &bar_ops, &s->bar[i], i ? 0x100 : 0x1000);
        pci_set_bar(&s->pci, i, &s->bar[i].region, i, false, false);
    }
    return true;
}

static void pci_unrealize(struct device *device)
{
    pci_device_exit(&((struct pci_testdev *)device)->pci);
}

static void pci_reset(struct device *device)
{
    struct pci_testdev *s = (struct pci_testdev *)device;
    for (unsigned i = 0; i < 2; i++)
        s->bar[i].test = s->bar[i].count = 0;
}

static const struct field bar_fields[] = {
    FIELD_U8(struct test_bar, test),
    FIELD_U32(struct test_bar, count),
    FIELD_END,
};

static const struct field pci_fields[] = {
    FIELD_STRUCT(struct pci_testdev, pci, pci_device_fields),
    FIELD_STRUCT_ARRAY(struct pci_testdev, bar, bar_fields),
    FIELD_END,
};

const struct device_class pci_testdev_class = {
    .name = "pci-testdev",
    .help = "a PCI function that counts writes, for kernel-level test suites",
    .size = sizeof(struct pci_testdev),
    .realize = pci_realize,
    .unrealize = pci_unrealize,
    .reset = pci_reset,
    .fields = pci_fields,
};
