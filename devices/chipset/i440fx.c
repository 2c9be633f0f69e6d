// SPDX-License-Identifier: GPL-2.0-or-later
// The 82441FX host bridge: configuration mechanism 1, the PAM registers that place RAM or ROM at 0xC0000-0xFFFFF
// (Intel 82441FX data sheet), and reset control at 0xCF9, which shares its dword with the configuration address.
#include "devices/chipset/chipset.h"

#define PAM          0x59 // to 0x5f
#define SMRAM        0x72
#define PAM_SEGMENTS 13
#define PAM_READ     1
#define PAM_WRITE    2
#define PAM_PRIORITY 10

struct segment_map {
    uint32_t base, size;
    struct region region;
    struct i440fx *host;
    int mode; // PAM bits in force, -1: none yet
};

struct i440fx {
    struct pci_device pci;
    uint32_t config_address;
    uint8_t reset_control;
    uint64_t bios_offset, bios_size; // RAM offset and size of the firmware image, 0: none
    struct segment_map segment[PAM_SEGMENTS];
    struct region address_port, data_port;
};

// ---- PAM ----
// Writes to a segment that reads ROM but writes RAM (shadowing under way).
static void shadow_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct segment_map *segment = opaque;
    struct machine *machine = segment->host->pci.device.machine;
    uint64_t ram_offset = machine->ram_offset + segment->base + offset;
    ram_write_begin(machine->ram, ram_offset, size);
    store_le(machine->ram->host + ram_offset, size, value);
    ram_write_end(machine->ram, ram_offset, size);
}

static const struct io_ops hole_ops = {NULL, NULL, 1, 8};
static const struct io_ops shadow_ops = {NULL, shadow_write, 1, 8};

// The firmware image ends at 1 MiB; below it there is nothing on the bus.
static bool in_bios(const struct i440fx *s, const struct segment_map *segment)
{
    uint64_t start = 1 * MiB - MIN(s->bios_size, 128 * KiB);
    return segment->base >= start;
}

static void apply_mode(struct i440fx *s, struct segment_map *segment, int mode)
{
    struct machine *machine = s->pci.device.machine;
    if (mode == segment->mode)
        return;
    segment->mode = mode;
    address_space_unmap(&segment->region);
    if (mode == (PAM_READ | PAM_WRITE))
        return; // plain RAM shows through
    const char *name = "pam";
    if (mode & PAM_READ) {
        region_init_rom(&segment->region, name, machine->ram_offset + segment->base, segment->size);
    } else if (in_bios(s, segment)) {
        uint64_t in_image = s->bios_offset + s->bios_size - (1 * MiB - segment->base);
        region_init_rom(&segment->region, name, in_image, segment->size);
    } else {
        region_init_io(&segment->region, name, &hole_ops, segment, segment->size);
    }
    if (mode & PAM_WRITE) {
        segment->region.ops = &shadow_ops;
        segment->region.opaque = segment;
    }
    address_space_map(machine->memory, &segment->region, segment->base, PAM_PRIORITY);
}

// Segment 0 is 0xF0000-0xFFFFF in the upper half of the first register; the rest are 16 KiB each from 0xC0000 on.
static int segment_mode(const struct i440fx *s, unsigned n)
{
    if (n == 0)
        return s->pci.config[PAM] >> 4 & 3;
    return s->pci.config[PAM + 1 + (n - 1) / 2] >> ((n - 1) & 1 ? 4 : 0) & 3;
}

static void apply_pam(struct i440fx *s)
{
    struct address_space *memory = s->pci.device.machine->memory;
    address_space_begin(memory);
    for (unsigned n = 0; n < PAM_SEGMENTS; n++)
        apply_mode(s, &s->segment[n], segment_mode(s, n));
    address_space_commit(memory);
}

void i440fx_open_pam(struct device *host)
{
    struct i440fx *s = (struct i440fx *)host;
    for (unsigned i = 0; i < 7; i++)
        s->pci.config[PAM + i] = 0x33;
    apply_pam(s);
}

void i440fx_set_bios(struct device *host, uint64_t ram_offset, uint64_t size)
{
    struct i440fx *s = (struct i440fx *)host;
    s->bios_offset = ram_offset;
    s->bios_size = size;
    for (unsigned n = 0; n < PAM_SEGMENTS; n++) {
        address_space_unmap(&s->segment[n].region);
        s->segment[n].mode = -1;
    }
    apply_pam(s);
}

static void config_written(struct pci_device *pci, unsigned offset, uint32_t value, unsigned size)
{
    if (offset < PAM + 7 && offset + size > PAM)
        apply_pam((struct i440fx *)pci);
}

// ---- Ports 0xCF8 to 0xCFF ----
static uint64_t address_read(void *opaque, uint64_t offset, unsigned size)
{
    struct i440fx *s = opaque;
    if (size == 4)
        return s->config_address;
    return offset == 1 && size == 1 ? s->reset_control : ~0ull;
}

// 0xCF9: bit 1 chooses a hard reset, bit 2 rising resets.
static void reset_control_write(struct i440fx *s, uint8_t value)
{
    bool rising = (value & 4) && !(s->reset_control & 4);
    s->reset_control = value & ~4;
    if (rising)
        machine_request_reset(s->pci.device.machine);
}

static void address_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct i440fx *s = opaque;
    if (size == 4)
        s->config_address = value & 0x80fffffc;
    else if (offset == 1 && size == 1)
        reset_control_write(s, value);
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
    struct i440fx *s = opaque;
    uint32_t a = s->config_address;
    if (!(a >> 31))
        return ~0ull;
    return pci_config_read(s->pci.bus, a >> 16, a >> 8, (a & 0xfc) + offset, size);
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct i440fx *s = opaque;
    uint32_t a = s->config_address;
    if (a >> 31)
        pci_config_write(s->pci.bus, a >> 16, a >> 8, (a & 0xfc) + offset, value, size);
}

static const struct io_ops address_ops = {address_read, address_write, 1, 4};
static const struct io_ops data_ops = {data_read, data_write, 1, 4};

// ---- Life ----
static bool realize(struct device *device, GError **error)
{
    struct i440fx *s = (struct i440fx *)device;
    // SeaBIOS recognises the board by the subsystem IDs that QEMU gave to it.
    static const struct pci_ids ids = {.vendor = 0x8086,
                                       .device = 0x1237,
                                       .subsystem_vendor = 0x1af4,
                                       .subsystem = 0x1100,
                                       .revision = 2,
                                       .class_code = 0x06};
    if (!pci_device_init(&s->pci, &ids, 0, error))
        return false;
    for (unsigned i = 0; i < 7; i++)
        s->pci.write_mask[PAM + i] = i ? 0x33 : 0x30;
    s->pci.write_mask[SMRAM] = 0x7f;
    s->pci.config_written = config_written;
    for (unsigned n = 0; n < PAM_SEGMENTS; n++)
        s->segment[n] = (struct segment_map){
            .host = s,
            .base = n ? 0xc0000 + (n - 1) * 0x4000 : 0xf0000,
            .size = n ? 0x4000 : 0x10000,
            .mode = -1,
        };
    region_init_io(&s->address_port, "pci address", &address_ops, s, 4);
    region_init_io(&s->data_port, "pci data", &data_ops, s, 4);
    address_space_map(device->machine->ports, &s->address_port, 0xcf8, 0);
    address_space_map(device->machine->ports, &s->data_port, 0xcfc, 0);
    return true;
}

static void unrealize(struct device *device)
{
    pci_device_exit(&((struct i440fx *)device)->pci);
}

static void reset(struct device *device)
{
    struct i440fx *s = (struct i440fx *)device;
    s->config_address = 0;
    s->reset_control = 0;
    s->pci.config[PCI_COMMAND] = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    for (unsigned i = 0; i < 7; i++)
        s->pci.config[PAM + i] = 0;
    s->pci.config[SMRAM] = 0x02;
    apply_pam(s);
}

static bool loaded(struct device *device, GError **error)
{
    apply_pam((struct i440fx *)device);
    return true;
}

static const struct field fields[] = {
    FIELD_STRUCT(struct i440fx, pci, pci_device_fields),
    FIELD_U32(struct i440fx, config_address),
    FIELD_U8(struct i440fx, reset_control),
    FIELD_END,
};

const struct device_class i440fx_class = {
    .name = "i440fx",
    .help = "the 82441FX host bridge",
    .size = sizeof(struct i440fx),
    .realize = realize,
    .unrealize = unrealize,
    .reset = reset,
    .loaded = loaded,
    .fields = fields,
    .internal = true,
};
