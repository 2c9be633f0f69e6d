// SPDX-License-Identifier: GPL-2.0-or-later
// The plain VGA card: PCI 1234:1111, which SeaBIOS' vgabios-stdvga, Linux' bochs-drm and EDK2's driver know. BAR 0 is
// the linear frame buffer; BAR 2 has the EDID at 0x000, the VGA ports from 0x3C0 at 0x400, the VBE registers at 0x500
// and the byte order switch at 0x600.
#include "core/machine/pci.h"
#include "devices/display/edid.h"
#include "devices/display/vga.h"

#define MMIO_SIZE      4096
#define MMIO_PORTS     0x400
#define MMIO_VBE       0x500
#define MMIO_EXTENSION 0x600
#define LITTLE_ENDIAN_ 0x1e1e1e1e

struct vga_pci {
    struct pci_device pci;
    struct vga vga;
    struct region mmio;
    uint64_t memory, width, height;
    char *rom;
    uint8_t edid[EDID_SIZE];
};

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct vga_pci *card = opaque;
    if (offset + size <= EDID_SIZE)
        return load_le(card->edid + offset, size);
    if (offset >= MMIO_PORTS && offset < MMIO_PORTS + 0x20) {
        uint64_t value = 0;
        for (unsigned i = 0; i < size; i++)
            value |= (uint64_t)vga_port_read(&card->vga, 0x3c0 + offset - MMIO_PORTS + i) << 8 * i;
        return value;
    }
    if (offset >= MMIO_VBE && offset < MMIO_VBE + 2 * VBE_COUNT && size == 2)
        return vga_vbe_read(&card->vga, (offset - MMIO_VBE) / 2);
    if (offset == MMIO_EXTENSION)
        return 8; // its length
    if (offset == MMIO_EXTENSION + 4)
        return LITTLE_ENDIAN_;
    return 0;
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct vga_pci *card = opaque;
    if (offset >= MMIO_PORTS && offset < MMIO_PORTS + 0x20)
        for (unsigned i = 0; i < size; i++)
            vga_port_write(&card->vga, 0x3c0 + offset - MMIO_PORTS + i, value >> 8 * i);
    else if (offset >= MMIO_VBE && offset < MMIO_VBE + 2 * VBE_COUNT && size == 2)
        vga_vbe_write(&card->vga, (offset - MMIO_VBE) / 2, value);
    else if (offset == MMIO_EXTENSION + 4 && value != LITTLE_ENDIAN_)
        log_guest("vga", "the guest asks for a big-endian frame buffer, which this card has not");
}

static const struct io_ops mmio_ops = {.read = mmio_read, .write = mmio_write, .min_size = 1, .max_size = 4};

static bool vga_pci_realize(struct device *device, GError **error)
{
    struct vga_pci *card = container_of(device, struct vga_pci, pci.device);
    static const struct pci_ids ids = {.vendor = 0x1234,
                                       .device = 0x1111,
                                       .subsystem_vendor = 0x1af4,
                                       .subsystem = 0x1100,
                                       .revision = 2,
                                       .class_code = 3};
    if (card->memory & (card->memory - 1)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "vga: the video memory must be a power of two, such as 16M");
        return false;
    }
    if (!pci_device_init(&card->pci, &ids, -1, error))
        return false;
    vga_init(&card->vga, device->machine, card->memory);
    card->vga.surface = surface_new(device->machine->screen, &vga_surface_ops, &card->vga);
    edid_make(card->edid, card->width, card->height, 1);
    region_init_io(&card->mmio, "vga mmio", &mmio_ops, card, MMIO_SIZE);
    pci_set_bar(&card->pci, 0, &card->vga.linear, false, false, true);
    pci_set_bar(&card->pci, 2, &card->mmio, false, false, false);
    pci_set_rom(&card->pci, card->rom);
    return true;
}

static void vga_pci_unrealize(struct device *device)
{
    struct vga_pci *card = container_of(device, struct vga_pci, pci.device);
    if (!card->vga.machine)
        return;
    surface_set_adapter(card->vga.surface, NULL, NULL);
    pci_device_exit(&card->pci);
    vga_exit(&card->vga);
}

static void vga_pci_reset(struct device *device)
{
    struct vga_pci *card = container_of(device, struct vga_pci, pci.device);
    pci_device_reset(&card->pci);
    vga_reset(&card->vga);
}

static bool vga_pci_loaded(struct device *device, GError **error)
{
    vga_loaded(&container_of(device, struct vga_pci, pci.device)->vga);
    return true;
}

static const struct property vga_pci_properties[] = {
    {"memory", PROPERTY_SIZE, offsetof(struct vga_pci, memory), "16M", 1 * MiB, 256 * MiB,
     "video memory, a power of two"},
    {"width", PROPERTY_UINT, offsetof(struct vga_pci, width), "1280", 64, 4095, "width that the monitor prefers"},
    {"height", PROPERTY_UINT, offsetof(struct vga_pci, height), "800", 64, 4095, "height that the monitor prefers"},
    {"rom", PROPERTY_STRING, offsetof(struct vga_pci, rom), "/usr/share/seabios/vgabios-stdvga.bin", 0, 0,
     "VGA BIOS file"},
    PROPERTY_END,
};

static const struct field vga_pci_fields[] = {
    FIELD_STRUCT(struct vga_pci, pci, pci_device_fields),
    FIELD_STRUCT(struct vga_pci, vga, vga_fields),
    FIELD_END,
};

const struct device_class vga_class = {
    .name = "vga",
    .help = "VGA with the Bochs VBE extension and a linear frame buffer",
    .size = sizeof(struct vga_pci),
    .properties = vga_pci_properties,
    .realize = vga_pci_realize,
    .unrealize = vga_pci_unrealize,
    .reset = vga_pci_reset,
    .fields = vga_pci_fields,
    .version = 1,
    .loaded = vga_pci_loaded,
};
