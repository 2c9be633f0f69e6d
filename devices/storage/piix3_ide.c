// SPDX-License-Identifier: GPL-2.0-or-later
// The IDE function of the PIIX3 (Intel 82371SB datasheet, 2.3 and 2.7): two channels at the compatible ports, and
// bus-master DMA.
#include "devices/storage/ide.h"

#define BUS_MASTER_BAR 4

enum { IDETIM_PRIMARY = 0x40, IDETIM_SECONDARY = 0x42, IDETIM_ENABLE = 0x8000 };

// Machine lock.
struct piix3_ide {
    struct pci_device pci;   // first
    struct drive *drives[4]; // primary master and slave, secondary master and slave
    struct ide_channel channels[2];
    struct region bus_master;
};

static const struct {
    uint16_t command, control;
    unsigned irq;
    const char *names[2];
} wiring[2] = {
    {0x1f0, 0x3f6, 14, {"ide0", "ide0-control"}},
    {0x170, 0x376, 15, {"ide1", "ide1-control"}},
};

static uint64_t bus_master_read(void *opaque, uint64_t offset, unsigned size)
{
    struct piix3_ide *ide = opaque;
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)(ide_bus_master_read(&ide->channels[(offset + i) >> 3 & 1], (offset + i) & 7) & 0xff)
                 << 8 * i;
    return value;
}

static void bus_master_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct piix3_ide *ide = opaque;
    ide_bus_master_write(&ide->channels[offset >> 3 & 1], offset & 7, value, size);
}

static const struct io_ops bus_master_ops = {bus_master_read, bus_master_write, 1, 4};

static void map_channel(struct piix3_ide *ide, unsigned number, bool on)
{
    struct address_space *ports = ide->pci.device.machine->ports;
    struct ide_channel *channel = &ide->channels[number];
    bool mapped = channel->command_region.space != NULL;
    if (on && !mapped) {
        address_space_map(ports, &channel->command_region, wiring[number].command, 0);
        address_space_map(ports, &channel->control_region, wiring[number].control, 0);
    } else if (!on && mapped) {
        address_space_unmap(&channel->command_region);
        address_space_unmap(&channel->control_region);
    }
}

// The ports answer where the function decodes I/O at all and the channel's timing register has its enable bit.
static void update_ports(struct piix3_ide *ide)
{
    const uint8_t *config = ide->pci.config;
    for (unsigned i = 0; i < 2; i++)
        map_channel(ide, i,
                    (config[PCI_COMMAND] & PCI_COMMAND_IO) &&
                        (load_le(config + IDETIM_PRIMARY + 2 * i, 2) & IDETIM_ENABLE));
}

static void config_written(struct pci_device *pci, unsigned offset, uint32_t value, unsigned size)
{
    update_ports(container_of(pci, struct piix3_ide, pci));
}

// Firmware that is not there (a kernel started directly) would have switched the channels on; so they are from reset.
static void set_power_on(struct piix3_ide *ide)
{
    store_le(ide->pci.config + IDETIM_PRIMARY, 2, IDETIM_ENABLE);
    store_le(ide->pci.config + IDETIM_SECONDARY, 2, IDETIM_ENABLE);
    ide->pci.config[PCI_COMMAND] |= PCI_COMMAND_IO;
    update_ports(ide);
}

static bool piix3_ide_realize(struct device *device, GError **error)
{
    struct piix3_ide *ide = (struct piix3_ide *)device;
    const struct pci_ids ids = {.vendor = 0x8086,
                                .device = 0x7010,
                                .class_code = 1,
                                .subclass = 1,
                                .prog_if = 0x80,
                                .subsystem_vendor = 0x1af4,
                                .subsystem = 0x1100};
    if (!pci_device_init(&ide->pci, &ids, 1 << 3 | 1, error))
        return false;
    for (unsigned i = 0; i < 2; i++) {
        ide_channel_init(&ide->channels[i], &ide->pci, wiring[i].names);
        ide->channels[i].irq = device->machine->isa_irq[wiring[i].irq];
        for (unsigned unit = 0; unit < 2; unit++)
            ide_set_drive(&ide->channels[i], unit, g_steal_pointer(&ide->drives[2 * i + unit]));
    }
    region_init_io(&ide->bus_master, "ide-bus-master", &bus_master_ops, ide, 16);
    pci_set_bar(&ide->pci, BUS_MASTER_BAR, &ide->bus_master, true, false, false);
    store_le(ide->pci.write_mask + IDETIM_PRIMARY, 4, 0xffffffff);
    ide->pci.config_written = config_written;
    set_power_on(ide);
    return true;
}

static void piix3_ide_unrealize(struct device *device)
{
    struct piix3_ide *ide = (struct piix3_ide *)device;
    for (unsigned i = 0; i < 4; i++)
        drive_free(ide->drives[i]);
    for (unsigned i = 0; i < 2; i++) {
        if (ide->channels[i].pci) {
            map_channel(ide, i, false);
            ide_channel_exit(&ide->channels[i]);
        }
    }
    pci_device_exit(&ide->pci);
}

static void piix3_ide_reset(struct device *device)
{
    struct piix3_ide *ide = (struct piix3_ide *)device;
    for (unsigned i = 0; i < 2; i++)
        ide_channel_reset(&ide->channels[i]);
    set_power_on(ide);
}

static void piix3_ide_quiesce(struct device *device)
{
    struct piix3_ide *ide = (struct piix3_ide *)device;
    for (unsigned i = 0; i < 2; i++)
        ide_channel_quiesce(&ide->channels[i]);
}

static bool piix3_ide_loaded(struct device *device, GError **error)
{
    struct piix3_ide *ide = (struct piix3_ide *)device;
    update_ports(ide);
    for (unsigned i = 0; i < 2; i++)
        ide_channel_loaded(&ide->channels[i]);
    return true;
}

static const struct property piix3_ide_properties[] = {
    {"drive0", PROPERTY_POINTER, offsetof(struct piix3_ide, drives[0]), .help = "primary master"},
    {"drive1", PROPERTY_POINTER, offsetof(struct piix3_ide, drives[1]), .help = "primary slave"},
    {"drive2", PROPERTY_POINTER, offsetof(struct piix3_ide, drives[2]), .help = "secondary master"},
    {"drive3", PROPERTY_POINTER, offsetof(struct piix3_ide, drives[3]), .help = "secondary slave"},
    PROPERTY_END,
};

static const struct field piix3_ide_fields[] = {
    FIELD_STRUCT(struct piix3_ide, pci, pci_device_fields),
    FIELD_STRUCT_ARRAY(struct piix3_ide, channels, ide_channel_fields),
    FIELD_END,
};

const struct device_class piix3_ide_class = {
    .name = "piix3-ide",
    .help = "IDE controller of the PIIX3 with bus-master DMA, for disks and CD drives",
    .size = sizeof(struct piix3_ide),
    .properties = piix3_ide_properties,
    .realize = piix3_ide_realize,
    .unrealize = piix3_ide_unrealize,
    .reset = piix3_ide_reset,
    .quiesce = piix3_ide_quiesce,
    .fields = piix3_ide_fields,
    .version = 1,
    .loaded = piix3_ide_loaded,
    .internal = true,
};
