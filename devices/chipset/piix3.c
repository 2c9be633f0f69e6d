// SPDX-License-Identifier: GPL-2.0-or-later
// The 82371SB (PIIX3) PCI-to-ISA bridge: routes PIRQ A-D to ISA interrupts; port 0x92 (fast A20 and reset).
#include "devices/chipset/chipset.h"

#define PIRQ_ROUTE    0x60 // to 0x63
#define PIRQ_DISABLED 0x80

struct piix3 {
    struct pci_device pci;
    uint8_t port92;
    bool driven[16]; // ISA lines that this router holds high
    struct region port92_region;
};

// PIRQs may share an ISA line: its level is their OR.
static void update_lines(struct piix3 *s)
{
    bool wanted[16] = {false};
    for (unsigned pirq = 0; pirq < 4; pirq++) {
        uint8_t route = s->pci.config[PIRQ_ROUTE + pirq];
        if (!(route & PIRQ_DISABLED) && pci_pirq_level(s->pci.bus, pirq))
            wanted[route & 15] = true;
    }
    for (unsigned n = 0; n < 16; n++)
        if (wanted[n] != s->driven[n]) {
            s->driven[n] = wanted[n];
            irq_set(&s->pci.device.machine->isa_irq[n], wanted[n]);
        }
}

static void pirq_changed(void *opaque, unsigned pirq, bool level)
{
    update_lines(opaque);
}

static void config_written(struct pci_device *pci, unsigned offset, uint32_t value, unsigned size)
{
    if (offset < PIRQ_ROUTE + 4 && offset + size > PIRQ_ROUTE)
        update_lines((struct piix3 *)pci);
}

static uint64_t port92_read(void *opaque, uint64_t offset, unsigned size)
{
    struct piix3 *s = opaque;
    return s->port92 | (s->pci.device.machine->a20 ? 2 : 0);
}

static void port92_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct piix3 *s = opaque;
    bool rising = (value & 1) && !(s->port92 & 1);
    s->port92 = value & ~3;
    machine_set_a20(s->pci.device.machine, value & 2);
    if (rising)
        machine_request_reset(s->pci.device.machine);
}

static const struct io_ops port92_ops = {port92_read, port92_write, 1, 1};

static bool realize(struct device *device, GError **error)
{
    struct piix3 *s = (struct piix3 *)device;
    static const struct pci_ids ids = {.vendor = 0x8086,
                                       .device = 0x7000,
                                       .subsystem_vendor = 0x1af4,
                                       .subsystem = 0x1100,
                                       .subclass = 0x01,
                                       .class_code = 0x06};
    s->pci.multifunction = true;
    if (!pci_device_init(&s->pci, &ids, 1 << 3, error))
        return false;
    for (unsigned offset = 0x40; offset < 0xb0; offset++)
        s->pci.write_mask[offset] = 0xff;
    for (unsigned pirq = 0; pirq < 4; pirq++)
        s->pci.write_mask[PIRQ_ROUTE + pirq] = 0x8f;
    s->pci.config_written = config_written;
    pci_bus_set_router(s->pci.bus, pirq_changed, s);
    region_init_io(&s->port92_region, "port 92", &port92_ops, s, 1);
    address_space_map(device->machine->ports, &s->port92_region, 0x92, 0);
    return true;
}

static void unrealize(struct device *device)
{
    struct piix3 *s = (struct piix3 *)device;
    if (s->pci.bus)
        pci_bus_set_router(s->pci.bus, NULL, NULL);
    pci_device_exit(&s->pci);
}

static void reset(struct device *device)
{
    struct piix3 *s = (struct piix3 *)device;
    for (unsigned offset = 0x40; offset < 0xb0; offset++)
        s->pci.config[offset] = 0;
    s->pci.config[PCI_COMMAND] = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    s->pci.config[0x4c] = 0x4d;
    s->pci.config[0x4e] = 0x03;
    for (unsigned pirq = 0; pirq < 4; pirq++)
        s->pci.config[PIRQ_ROUTE + pirq] = PIRQ_DISABLED;
    s->port92 = 0;
    machine_set_a20(device->machine, true);
    update_lines(s);
}

static bool loaded(struct device *device, GError **error)
{
    update_lines((struct piix3 *)device);
    return true;
}

static const struct field fields[] = {
    FIELD_STRUCT(struct piix3, pci, pci_device_fields),
    FIELD_U8(struct piix3, port92),
    FIELD_ARRAY(BOOL, struct piix3, driven),
    FIELD_END,
};

const struct device_class piix3_class = {
    .name = "piix3",
    .help = "the 82371SB ISA bridge and interrupt router",
    .size = sizeof(struct piix3),
    .realize = realize,
    .unrealize = unrealize,
    .reset = reset,
    .loaded = loaded,
    .fields = fields,
    .internal = true,
};
