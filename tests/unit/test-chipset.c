// SPDX-License-Identifier: GPL-2.0-or-later
// The chipset through its bus interface, with a manual clock and a stand-in for the processors.
#include "core/cpu/lapic.h"
#include "devices/chipset/chipset.h"
#include "devices/firmware/acpi.h"
#include "devices/firmware/fw_cfg.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

extern const struct device_class i440fx_class, piix3_class, piix4_pm_class, i8259_class, ioapic_class, i8254_class,
    rtc_class, hpet_class, i8237_class, fw_cfg_class, pci_testdev_class, serial_class;
const struct device_class *const device_classes[] = {
    &i440fx_class, &piix3_class, &piix4_pm_class, &i8259_class,       &ioapic_class, &i8254_class, &rtc_class,
    &hpet_class,   &i8237_class, &fw_cfg_class,   &pci_testdev_class, &serial_class, NULL};

// ---- Stand-in for the processors: remembers what came over the APIC bus ----
static struct {
    unsigned count;
    uint32_t destination;
    uint8_t vector;
    bool level;
} apic_bus;
static struct cpu_set cpus;

unsigned lapic_send(struct cpu_set *set, uint32_t destination, bool logical, enum lapic_delivery delivery,
                    uint8_t vector, bool level)
{
    apic_bus.count++;
    apic_bus.destination = destination;
    apic_bus.vector = vector;
    apic_bus.level = level;
    return 1;
}

// ---- A board without processors ----
struct fixture {
    struct machine *machine;
    struct device *host, *pm, *pic, *ioapic, *pit, *rtc, *hpet, *dma;
    bool intr;
};

static struct device *add(struct fixture *f, const char *name)
{
    struct device *device = device_new(f->machine, name, NULL, NULL);
    ck_assert_ptr_nonnull(device);
    if (strcmp(name, "hpet") == 0) {
        device_set_pointer(device, "pit", f->pit);
        device_set_pointer(device, "rtc", f->rtc);
    }
    ck_assert(device_realize(device, NULL));
    return device;
}

static void isa_line(void *opaque, unsigned n, bool level)
{
    struct fixture *f = opaque;
    i8259_set_irq(f->pic, n, level);
    ioapic_set_irq(f->ioapic, n ? n : 2, level);
}

static void intr_line(void *opaque, unsigned n, bool level)
{
    ((struct fixture *)opaque)->intr = level;
}

static void set_up(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    f->machine = machine_create(64 * MiB, clock_new_manual(), NULL);
    f->machine->cpus = &cpus;
    f->host = add(f, "i440fx");
    add(f, "piix3");
    f->pm = add(f, "piix4-pm");
    f->pic = add(f, "i8259");
    f->ioapic = add(f, "ioapic");
    for (unsigned n = 0; n < 16; n++)
        f->machine->isa_irq[n] = (struct irq){isa_line, f, n};
    i8259_set_output(f->pic, (struct irq){intr_line, f, 0});
    f->pit = add(f, "i8254");
    f->rtc = add(f, "rtc");
    f->hpet = add(f, "hpet");
    f->dma = add(f, "i8237");
    machine_reset_devices(f->machine);
    memset(&apic_bus, 0, sizeof(apic_bus));
}

static void tear_down(struct fixture *f)
{
    f->machine->cpus = NULL;
    machine_destroy(f->machine);
}

static void out(struct fixture *f, uint16_t port, uint32_t value, unsigned size)
{
    address_space_store(f->machine->ports, port, value, size);
}

static uint32_t in(struct fixture *f, uint16_t port, unsigned size)
{
    return address_space_load(f->machine->ports, port, size);
}

static void config_write(struct fixture *f, uint8_t devfn, uint8_t offset, uint32_t value, unsigned size)
{
    out(f, 0xcf8, 0x80000000 | devfn << 8 | (offset & 0xfc), 4);
    out(f, 0xcfc + (offset & 3), value, size);
}

static uint32_t config_read(struct fixture *f, uint8_t devfn, uint8_t offset, unsigned size)
{
    out(f, 0xcf8, 0x80000000 | devfn << 8 | (offset & 0xfc), 4);
    return in(f, 0xcfc + (offset & 3), size);
}

// ICW1-4 as every PC does it: bases 0x20 and 0x28, all open.
static void init_pics(struct fixture *f)
{
    static const uint8_t words[][2] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 4}, {0x21, 1}, {0xa0, 0x11},
                                       {0xa1, 0x28}, {0xa1, 2},    {0xa1, 1}, {0x21, 0}, {0xa1, 0}};
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++)
        out(f, words[i][0], words[i][1], 1);
}

START_TEST(pic_delivers_by_priority_and_waits_for_eoi)
{
    struct fixture f;
    set_up(&f);
    init_pics(&f);
    i8259_set_irq(f.pic, 12, true);
    i8259_set_irq(f.pic, 4, true);
    i8259_set_irq(f.pic, 1, true);
    ck_assert(f.intr);
    ck_assert_int_eq(i8259_acknowledge(f.pic), 0x21);
    ck_assert_int_eq(i8259_acknowledge(f.pic), -1); // 4 and 12 are lower than 1, which is in service
    out(&f, 0x20, 0x20, 1);
    ck_assert_int_eq(i8259_acknowledge(f.pic), 0x2c); // the slave hangs on input 2
    ck_assert_int_eq(i8259_acknowledge(f.pic), -1);
    out(&f, 0xa0, 0x20, 1);
    out(&f, 0x20, 0x20, 1);
    ck_assert_int_eq(i8259_acknowledge(f.pic), 0x24);
    out(&f, 0x20, 0x0b, 1); // read the in-service register
    ck_assert_uint_eq(in(&f, 0x20, 1), 1 << 4);
    out(&f, 0x20, 0x60 | 4, 1);
    ck_assert_uint_eq(in(&f, 0x20, 1), 0);
    ck_assert(!f.intr);
    tear_down(&f);
}
END_TEST

START_TEST(pic_level_inputs_ask_again)
{
    struct fixture f;
    set_up(&f);
    init_pics(&f);
    out(&f, 0x4d0, 0xff, 1);
    ck_assert_uint_eq(in(&f, 0x4d0, 1), 0xf8); // 0 to 2 stay edges
    i8259_set_irq(f.pic, 5, true);
    ck_assert_int_eq(i8259_acknowledge(f.pic), 0x25);
    out(&f, 0x20, 0x20, 1);
    ck_assert_int_eq(i8259_acknowledge(f.pic), 0x25);
    i8259_set_irq(f.pic, 5, false);
    out(&f, 0x20, 0x20, 1);
    ck_assert_int_eq(i8259_acknowledge(f.pic), -1);
    out(&f, 0x21, 0xff, 1);
    i8259_set_irq(f.pic, 3, true);
    ck_assert(!f.intr);
    tear_down(&f);
}
END_TEST

START_TEST(ioapic_level_waits_for_its_eoi)
{
    struct fixture f;
    set_up(&f);
    struct address_space *memory = f.machine->memory;
    address_space_store(memory, IOAPIC_BASE, 1, 4);
    ck_assert_uint_eq(address_space_load(memory, IOAPIC_BASE + 0x10, 4), 0x00170020);
    address_space_store(memory, IOAPIC_BASE, 0x10 + 2 * 11, 4);
    address_space_store(memory, IOAPIC_BASE + 0x10, 0x8000 | 0x51, 4); // pin 11: level, vector 0x51
    ioapic_set_irq(f.ioapic, 11, true);
    ck_assert_uint_eq(apic_bus.count, 1);
    ck_assert_uint_eq(apic_bus.vector, 0x51);
    ck_assert(apic_bus.level);
    ck_assert_uint_eq(address_space_load(memory, IOAPIC_BASE + 0x10, 4) & 0x4000, 0x4000);
    ioapic_set_irq(f.ioapic, 11, true);
    ck_assert_uint_eq(apic_bus.count, 1);
    ioapic_eoi(f.ioapic, 0x51);
    ck_assert_uint_eq(apic_bus.count, 2);
    ioapic_set_irq(f.ioapic, 11, false);
    ioapic_eoi(f.ioapic, 0x51);
    ck_assert_uint_eq(apic_bus.count, 2);
    // A masked edge waits for its mask to go.
    ioapic_set_irq(f.ioapic, 4, true);
    ioapic_set_irq(f.ioapic, 4, false);
    address_space_store(memory, IOAPIC_BASE, 0x10 + 2 * 4, 4);
    address_space_store(memory, IOAPIC_BASE + 0x10, 0x34, 4);
    ck_assert_uint_eq(apic_bus.count, 3);
    ck_assert_uint_eq(apic_bus.vector, 0x34);
    // A pin that does not exist, a register that does not exist.
    ioapic_set_irq(f.ioapic, 200, true);
    address_space_store(memory, IOAPIC_BASE, 0xff, 4);
    address_space_store(memory, IOAPIC_BASE + 0x10, 0xffffffff, 4);
    tear_down(&f);
}
END_TEST

START_TEST(pit_counts_and_ticks)
{
    struct fixture f;
    set_up(&f);
    init_pics(&f);
    out(&f, 0x43, 0x34, 1); // channel 0, mode 2
    out(&f, 0x40, 11932 & 0xff, 1);
    out(&f, 0x40, 11932 >> 8, 1);
    unsigned ticks = 0;
    for (int i = 0; i < 1000; i++) { // a second in steps of a millisecond
        clock_advance(f.machine->clock, 1000000);
        if (i8259_acknowledge(f.pic) == 0x20) {
            ticks++;
            out(&f, 0x20, 0x20, 1);
        }
    }
    ck_assert_uint_ge(ticks, 99);
    ck_assert_uint_le(ticks, 101);
    out(&f, 0x43, 0xb0, 1); // channel 2, mode 0
    out(&f, 0x42, 0, 1);
    out(&f, 0x42, 0x10, 1); // 4096 ticks, gate closed
    clock_advance(f.machine->clock, 10000000);
    ck_assert_uint_eq(in(&f, 0x61, 1) & 0x20, 0);
    out(&f, 0x61, 1, 1);
    clock_advance(f.machine->clock, 3000000);
    ck_assert_uint_eq(in(&f, 0x61, 1) & 0x20, 0);
    out(&f, 0x43, 0x80, 1); // latch
    uint16_t count = in(&f, 0x42, 1);
    count |= in(&f, 0x42, 1) << 8;
    ck_assert_uint_ge(count, 4096 - 3580 - 2);
    ck_assert_uint_le(count, 4096 - 3579 + 2);
    clock_advance(f.machine->clock, 1000000);
    ck_assert_uint_eq(in(&f, 0x61, 1) & 0x20, 0x20);
    tear_down(&f);
}
END_TEST

static uint8_t cmos(struct fixture *f, uint8_t index)
{
    out(f, 0x70, index, 1);
    return in(f, 0x71, 1);
}

static void set_cmos(struct fixture *f, uint8_t index, uint8_t value)
{
    out(f, 0x70, index, 1);
    out(f, 0x71, value, 1);
}

START_TEST(rtc_keeps_time_and_interrupts)
{
    struct fixture f;
    set_up(&f);
    init_pics(&f);
    ck_assert_uint_eq(cmos(&f, 0x0d), 0x80);
    set_cmos(&f, 0x0b, 0x82); // hold, 24 hours, BCD
    static const uint8_t time[][2] = {{0, 0x58}, {2, 0x59}, {4, 0x23}, {7, 0x28}, {8, 0x02}, {9, 0x24}, {0x32, 0x20}};
    for (unsigned i = 0; i < G_N_ELEMENTS(time); i++)
        set_cmos(&f, time[i][0], time[i][1]);
    set_cmos(&f, 0x0b, 0x02);
    clock_advance(f.machine->clock, 2500000000);
    ck_assert_uint_eq(cmos(&f, 0), 0x00);
    ck_assert_uint_eq(cmos(&f, 4), 0x00);
    ck_assert_uint_eq(cmos(&f, 7), 0x29); // 2024 is a leap year
    set_cmos(&f, 0x0a, 0x26);             // 1024 Hz
    set_cmos(&f, 0x0b, 0x42);
    unsigned ticks = 0;
    for (int i = 0; i < 10000; i++) {
        clock_advance(f.machine->clock, 100000);
        if (i8259_acknowledge(f.pic) == 0x28) {
            ticks++;
            ck_assert_uint_eq(cmos(&f, 0x0c) & 0xc0, 0xc0);
            out(&f, 0xa0, 0x20, 1);
            out(&f, 0x20, 0x20, 1);
        }
    }
    ck_assert_uint_ge(ticks, 1022);
    ck_assert_uint_le(ticks, 1026);
    set_cmos(&f, 0x0b, 0x22); // alarm in any hour and minute at second 30
    set_cmos(&f, 1, 0x30);
    set_cmos(&f, 3, 0xff);
    set_cmos(&f, 5, 0xff);
    cmos(&f, 0x0c);
    clock_advance(f.machine->clock, 60000000000);
    ck_assert_uint_eq(cmos(&f, 0x0c) & 0xa0, 0xa0);
    tear_down(&f);
}
END_TEST

START_TEST(hpet_replaces_the_legacy_timer)
{
    struct fixture f;
    set_up(&f);
    init_pics(&f);
    struct address_space *memory = f.machine->memory;
    ck_assert_uint_eq(address_space_load(memory, HPET_BASE, 8) >> 32, 10000000);
    address_space_store(memory, HPET_BASE + 0x100, 0x4c, 4); // periodic, enabled, set
    address_space_store(memory, HPET_BASE + 0x108, 100000, 4);
    address_space_store(memory, HPET_BASE + 0x108, 100000, 4); // 1 ms
    address_space_store(memory, HPET_BASE + 0x10, 3, 4);
    unsigned ticks = 0;
    for (int i = 0; i < 100; i++) {
        clock_advance(f.machine->clock, 1000000);
        if (i8259_acknowledge(f.pic) == 0x20) {
            ticks++;
            out(&f, 0x20, 0x20, 1);
        }
    }
    ck_assert_uint_ge(ticks, 99);
    ck_assert_uint_eq(address_space_load(memory, HPET_BASE + 0xf0, 8), 100 * 100000);
    tear_down(&f);
}
END_TEST

static uint32_t pm(struct fixture *f, unsigned offset, unsigned size)
{
    return in(f, PM_BASE + offset, size);
}

START_TEST(acpi_button_timer_and_soft_off)
{
    struct fixture f;
    set_up(&f);
    init_pics(&f);
    ck_assert_uint_eq(in(&f, PM_BASE, 2), 0xffff); // not placed yet
    piix4_pm_set_base(f.pm, PM_BASE, SMBUS_BASE);
    clock_advance(f.machine->clock, 1000000000);
    ck_assert_uint_eq(pm(&f, 8, 4), 3579545);
    out(&f, PM_BASE + 2, 0x100, 2);
    machine_notify(f.machine, MACHINE_EVENT_POWERDOWN, NULL);
    ck_assert_uint_eq(pm(&f, 0, 2) & 0x100, 0x100);
    ck_assert_int_eq(i8259_acknowledge(f.pic), 0x29);
    out(&f, PM_BASE, 0x100, 2);
    ck_assert_uint_eq(pm(&f, 0, 2), 0);
    out(&f, PM_BASE + 4, 0x2001, 2); // SLP_EN with type 0
    while (g_main_context_iteration(NULL, false)) {
    }
    ck_assert_int_eq(f.machine->state, RUN_STATE_SHUTDOWN);
    tear_down(&f);
}
END_TEST

START_TEST(smbus_has_no_devices)
{
    struct fixture f;
    set_up(&f);
    piix4_pm_set_base(f.pm, PM_BASE, SMBUS_BASE);
    out(&f, SMBUS_BASE + 4, 0xa1, 1);
    out(&f, SMBUS_BASE + 2, 0x48, 1);
    ck_assert_uint_eq(in(&f, SMBUS_BASE, 1), 0x04);
    out(&f, SMBUS_BASE, 0x04, 1);
    ck_assert_uint_eq(in(&f, SMBUS_BASE, 1), 0);
    tear_down(&f);
}
END_TEST

START_TEST(pam_moves_between_rom_and_ram)
{
    struct fixture f;
    set_up(&f);
    struct ram *ram = f.machine->ram;
    uint64_t bios = ram_alloc(ram, 256 * KiB);
    memset(ram->host + bios, 0xb1, 256 * KiB);
    i440fx_set_bios(f.host, bios, 256 * KiB);
    struct address_space *memory = f.machine->memory;
    ck_assert_uint_eq(address_space_load(memory, 0xf0000, 1), 0xb1);
    ck_assert_uint_eq(address_space_load(memory, 0xc0000, 1), 0xff);
    address_space_store(memory, 0xf0000, 0x55, 1);
    ck_assert_uint_eq(address_space_load(memory, 0xf0000, 1), 0xb1);
    config_write(&f, 0, 0x59, 0x20, 1); // write RAM, read ROM
    address_space_store(memory, 0xf0000, 0x55, 1);
    ck_assert_uint_eq(address_space_load(memory, 0xf0000, 1), 0xb1);
    config_write(&f, 0, 0x59, 0x10, 1); // read RAM, write ROM
    ck_assert_uint_eq(address_space_load(memory, 0xf0000, 1), 0x55);
    address_space_store(memory, 0xf0000, 0x66, 1);
    ck_assert_uint_eq(address_space_load(memory, 0xf0000, 1), 0x55);
    config_write(&f, 0, 0x59, 0x30, 1);
    address_space_store(memory, 0xf0000, 0x66, 1);
    ck_assert_uint_eq(address_space_load(memory, 0xf0000, 1), 0x66);
    config_write(&f, 0, 0x5a, 0x33, 1);
    address_space_store(memory, 0xc4000, 0x1234, 2);
    ck_assert_uint_eq(address_space_load(memory, 0xc4000, 2), 0x1234);
    ck_assert_uint_eq(address_space_load(memory, 0xc8000, 2), 0xffff);
    machine_reset_devices(f.machine);
    ck_assert_uint_eq(address_space_load(memory, 0xf0000, 1), 0xb1);
    tear_down(&f);
}
END_TEST

START_TEST(bars_are_sized_and_move)
{
    struct fixture f;
    set_up(&f);
    add(&f, "pci-testdev");
    uint8_t devfn = 2 << 3;
    struct address_space *memory = f.machine->memory;
    ck_assert_uint_eq(config_read(&f, devfn, 0, 4), 0x00051b36);
    config_write(&f, devfn, 0x10, 0xffffffff, 4);
    config_write(&f, devfn, 0x14, 0xffffffff, 4);
    ck_assert_uint_eq(config_read(&f, devfn, 0x10, 4), 0xfffff000);
    ck_assert_uint_eq(config_read(&f, devfn, 0x14, 4), 0xffffff01);
    config_write(&f, devfn, 0x10, 0xe0000000, 4);
    config_write(&f, devfn, 0x14, 0xc000, 4);
    ck_assert_uint_eq(address_space_load(memory, 0xe0000001, 1), 0xff);
    config_write(&f, devfn, 4, 3, 2);
    ck_assert_uint_eq(address_space_load(memory, 0xe0000001, 1), 1);
    ck_assert_uint_eq(in(&f, 0xc001, 1), 1);
    for (unsigned i = 0; i < 2000; i++) // a hostile guest
        config_write(&f, devfn, 0x10, 0xe0000000 + i * 0x1000, 4);
    ck_assert_uint_le(address_space_retired(memory), 4);
    ck_assert_uint_eq(address_space_load(memory, 0xe0000000 + 1999 * 0x1000 + 1, 1), 1);
    config_write(&f, devfn, 0x10, 0x1000, 4); // over main memory: memory wins
    address_space_store(memory, 0x1001, 0x77, 1);
    ck_assert_uint_eq(address_space_load(memory, 0x1001, 1), 0x77);
    ck_assert_uint_eq(config_read(&f, 31 << 3, 0, 4), 0xffffffff);
    tear_down(&f);
}
END_TEST

START_TEST(pirqs_reach_the_line_that_firmware_chose)
{
    struct fixture f;
    set_up(&f);
    init_pics(&f);
    struct device *testdev = add(&f, "pci-testdev");
    struct pci_device *pci = (struct pci_device *)testdev;
    pci->config[PCI_INTERRUPT_PIN] = 1; // slot 2, INTA: PIRQ B
    out(&f, 0x4d1, 0x0c, 1);
    pci_set_intx(pci, true);
    ck_assert_int_eq(i8259_acknowledge(f.pic), -1);
    config_write(&f, 1 << 3, 0x61, 10, 1);
    ck_assert_int_eq(i8259_acknowledge(f.pic), 0x2a);
    out(&f, 0xa0, 0x20, 1);
    out(&f, 0x20, 0x20, 1);
    config_write(&f, 2 << 3, 4, 0x400, 2); // INTx disabled
    ck_assert_int_eq(i8259_acknowledge(f.pic), -1);
    config_write(&f, 2 << 3, 4, 0, 2);
    config_write(&f, 1 << 3, 0x61, 11, 1);
    ck_assert_int_eq(i8259_acknowledge(f.pic), 0x2b);
    pci_set_intx(pci, false);
    tear_down(&f);
}
END_TEST

static unsigned resets;

static void count_resets(void *opaque, struct machine *machine, enum machine_event event, const char *text)
{
    resets += event == MACHINE_EVENT_RESET;
}

static unsigned resets_after(struct fixture *f, uint16_t port, uint8_t value)
{
    resets = 0;
    out(f, port, value, 1);
    while (g_main_context_iteration(NULL, false)) {
    }
    return resets;
}

START_TEST(reset_ports_reset)
{
    struct fixture f;
    set_up(&f);
    f.machine->cpus = NULL;
    machine_add_listener(f.machine, count_resets, NULL);
    ck_assert(machine_start(f.machine, NULL));
    ck_assert_uint_eq(resets_after(&f, 0xcf9, 0x02), 0);
    ck_assert_uint_eq(resets_after(&f, 0xcf9, 0x06), 1);
    ck_assert_uint_eq(resets_after(&f, 0x92, 0x02), 0);
    ck_assert_uint_eq(resets_after(&f, 0x92, 0x03), 1);
    ck_assert_int_eq(f.machine->state, RUN_STATE_RUNNING);
    f.machine->no_reboot = true;
    ck_assert_uint_eq(resets_after(&f, 0xcf9, 0x06), 0);
    ck_assert_int_eq(f.machine->state, RUN_STATE_SHUTDOWN);
    g_autoptr(GError) error = NULL;
    ck_assert(!machine_start(f.machine, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "shutdown"));
    tear_down(&f);
}
END_TEST

START_TEST(dma_moves_bytes_until_the_count_ends)
{
    struct fixture f;
    set_up(&f);
    uint8_t data[16] = "0123456789abcde";
    static const uint8_t words[][2] = {{0x0c, 0}, {0x0b, 0x46}, {0x04, 0x00}, {0x04, 0x20},
                                       {0x05, 9}, {0x05, 0},    {0x81, 0x01}, {0x0a, 2}};
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) // channel 2: to memory at 0x12000, 10 bytes
        out(&f, words[i][0], words[i][1], 1);
    ck_assert_uint_eq(i8237_to_device(f.dma, 2, data, 4), 0); // the other direction
    ck_assert_uint_eq(i8237_from_device(f.dma, 2, data, 4), 4);
    ck_assert(!i8237_terminal_count(f.dma, 2));
    ck_assert_uint_eq(i8237_from_device(f.dma, 2, data + 4, 12), 6);
    ck_assert(i8237_terminal_count(f.dma, 2));
    ck_assert_uint_eq(i8237_from_device(f.dma, 2, data, 1), 0); // masked itself
    char seen[11] = "";
    address_space_read(f.machine->memory, 0x12000, seen, 10);
    ck_assert_str_eq(seen, "0123456789");
    tear_down(&f);
}
END_TEST

static uint64_t be(uint64_t value, unsigned size)
{
    uint64_t swapped = 0;
    for (unsigned i = 0; i < size; i++)
        swapped |= (value >> 8 * i & 0xff) << 8 * (size - 1 - i);
    return swapped;
}

START_TEST(fw_cfg_by_port_and_by_dma)
{
    struct fixture f;
    set_up(&f);
    add(&f, "fw-cfg");
    struct acpi_tables *acpi = acpi_tables_new(2);
    acpi_tables_offer(acpi, f.machine->fw_cfg);
    fw_cfg_add_file(f.machine->fw_cfg, "opt/test", "hello", 5);
    out(&f, 0x510, 0, 2);
    char name[5] = {in(&f, 0x511, 1), in(&f, 0x511, 1), in(&f, 0x511, 1), in(&f, 0x511, 1)};
    ck_assert_int_eq(strlen(name), 4);
    ck_assert_uint_eq(in(&f, 0x511, 1), 0);
    uint64_t command[2] = {be(0x23u << 16 | 8 | 2, 4) | be(8, 4) << 32, be(0x3000, 8)};
    address_space_write(f.machine->memory, 0x2000, command, 16);
    out(&f, 0x514, 0, 4);
    out(&f, 0x518, be(0x2000, 4), 4);
    char read[9] = "";
    address_space_read(f.machine->memory, 0x3000, read, 8);
    ck_assert_str_eq(read, "hello");
    ck_assert_uint_eq(address_space_load(f.machine->memory, 0x2000, 4), 0);
    command[0] = be(0xffffu << 16 | 8 | 2, 4) | 0xffffffffull << 32; // nonsense
    command[1] = be(UINT64_MAX - 5, 8);
    address_space_write(f.machine->memory, 0x2000, command, 16);
    out(&f, 0x518, be(0x2000, 4), 4);
    acpi_tables_free(acpi);
    tear_down(&f);
}
END_TEST

static uint8_t sum(struct fixture *f, uint64_t address, uint32_t length)
{
    uint8_t total = 0;
    for (uint32_t i = 0; i < length; i++)
        total += address_space_load(f->machine->memory, address + i, 1);
    return total;
}

START_TEST(acpi_tables_add_up)
{
    struct fixture f;
    set_up(&f);
    i440fx_open_pam(f.host);
    struct acpi_tables *acpi = acpi_tables_new(16);
    struct address_space *memory = f.machine->memory;
    ck_assert_uint_lt(acpi_tables_place(acpi, memory, 0xe0000), 0x10000);
    ck_assert_uint_eq(sum(&f, 0xe0000, 20), 0);
    ck_assert_uint_eq(sum(&f, 0xe0000, 36), 0);
    uint64_t rsdt = address_space_load(memory, 0xe0010, 4), xsdt = address_space_load(memory, 0xe0018, 8);
    uint32_t entries = (address_space_load(memory, rsdt + 4, 4) - 36) / 4;
    ck_assert_uint_eq(entries, (address_space_load(memory, xsdt + 4, 4) - 36) / 8);
    for (uint32_t i = 0; i < entries; i++) {
        uint64_t table = address_space_load(memory, rsdt + 36 + 4 * i, 4);
        ck_assert_uint_eq(table, address_space_load(memory, xsdt + 36 + 8 * i, 8));
        ck_assert_uint_eq(sum(&f, table, address_space_load(memory, table + 4, 4)), 0);
    }
    acpi_tables_free(acpi);
    tear_down(&f);
}
END_TEST

START_TEST(serial_loops_back_and_overruns)
{
    struct fixture f;
    set_up(&f);
    init_pics(&f);
    add(&f, "serial");
    machine_reset_devices(f.machine);
    init_pics(&f);
    out(&f, 0x3fa, 0x07, 1);
    ck_assert_uint_eq(in(&f, 0x3fa, 1), 0xc1);
    out(&f, 0x3fc, 0x1b, 1); // loop, DTR RTS OUT2
    ck_assert_uint_eq(in(&f, 0x3fe, 1) & 0xf0, 0xb0);
    out(&f, 0x3f9, 1, 1);
    out(&f, 0x3f8, 'x', 1);
    ck_assert_uint_eq(in(&f, 0x3fd, 1), 0x61);
    ck_assert_uint_eq(in(&f, 0x3f8, 1), 'x');
    for (unsigned i = 0; i < 17; i++)
        out(&f, 0x3f8, i, 1);
    ck_assert_uint_eq(in(&f, 0x3fd, 1), 0x63);
    ck_assert_uint_eq(in(&f, 0x3fd, 1), 0x61);
    out(&f, 0x3fc, 0x0b, 1);
    ck_assert_int_eq(i8259_acknowledge(f.pic), 0x24);
    for (unsigned i = 0; i < 16; i++)
        ck_assert_uint_eq(in(&f, 0x3f8, 1), i);
    ck_assert_uint_eq(in(&f, 0x3fd, 1), 0x60);
    tear_down(&f);
}
END_TEST

// Every register of every device, any value: nothing may crash, hang or reach the host.
START_TEST(nonsense_is_survived)
{
    struct fixture f;
    set_up(&f);
    add(&f, "fw-cfg");
    add(&f, "serial");
    add(&f, "pci-testdev");
    machine_reset_devices(f.machine);
    f.machine->cpus = NULL;
    uint32_t x = 12345;
    for (unsigned i = 0; i < 200000; i++) {
        x = x * 1664525 + 1013904223;
        uint32_t value = x * 2654435761u;
        unsigned size = 1u << (x >> 30) % 3;
        uint64_t hpet = HPET_BASE + (x >> 8 & 0x1fc), ioapic = IOAPIC_BASE + (x >> 8 & 0x50);
        if (x & 0x40)
            address_space_store(f.machine->memory, x & 0x20 ? hpet : ioapic, value, 4);
        else if (x & 0x20)
            config_write(&f, x >> 8 & 0x1f, x >> 16, value, size);
        else
            out(&f, x >> 8 & 0x10 ? x >> 16 & 0x3ff : x >> 16 & 0xfff, value, size);
        in(&f, x >> 12 & 0xfff, size);
        if (i % 64 == 0)
            clock_advance(f.machine->clock, 100000);
    }
    machine_reset_devices(f.machine);
    ck_assert_uint_eq(config_read(&f, 0, 0, 4), 0x12378086);
    tear_down(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("chipset");
    TCase *tests = tcase_create("chipset");
    tcase_set_timeout(tests, 30);
    tcase_add_test(tests, pic_delivers_by_priority_and_waits_for_eoi);
    tcase_add_test(tests, pic_level_inputs_ask_again);
    tcase_add_test(tests, ioapic_level_waits_for_its_eoi);
    tcase_add_test(tests, pit_counts_and_ticks);
    tcase_add_test(tests, rtc_keeps_time_and_interrupts);
    tcase_add_test(tests, hpet_replaces_the_legacy_timer);
    tcase_add_test(tests, acpi_button_timer_and_soft_off);
    tcase_add_test(tests, smbus_has_no_devices);
    tcase_add_test(tests, pam_moves_between_rom_and_ram);
    tcase_add_test(tests, bars_are_sized_and_move);
    tcase_add_test(tests, pirqs_reach_the_line_that_firmware_chose);
    tcase_add_test(tests, reset_ports_reset);
    tcase_add_test(tests, dma_moves_bytes_until_the_count_ends);
    tcase_add_test(tests, fw_cfg_by_port_and_by_dma);
    tcase_add_test(tests, acpi_tables_add_up);
    tcase_add_test(tests, serial_loops_back_and_overruns);
    tcase_add_test(tests, nonsense_is_survived);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
