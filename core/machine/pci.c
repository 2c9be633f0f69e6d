// SPDX-License-Identifier: GPL-2.0-or-later
// The PCI bus: configuration space, BARs, INTx (PCI Local Bus 3.0, chapter 6).
#include "core/machine/pci.h"

#include <string.h>

// Main memory is seen where a guest maps a BAR over it.
#define BAR_PRIORITY (-10)
#define UNMAPPED     UINT64_MAX

// Machine lock.
struct pci_bus {
    struct machine *machine;
    struct pci_device *devices[256]; // by devfn
    unsigned pirq_count[4];          // functions that hold each PIRQ
    irq_fn *router;
    void *router_opaque;
};

struct pci_bus *pci_bus_new(struct machine *machine)
{
    struct pci_bus *bus = g_new0(struct pci_bus, 1);
    bus->machine = machine;
    return bus;
}

void pci_bus_free(struct pci_bus *bus)
{
    g_free(bus);
}

// ---- Devices ----
static int free_devfn(struct pci_bus *bus)
{
    for (int slot = 2; slot < 32; slot++) { // 0 host bridge, 1 PIIX3
        bool used = false;
        for (int function = 0; function < 8; function++)
            used |= bus->devices[slot << 3 | function] != NULL;
        if (!used)
            return slot << 3;
    }
    return -1;
}

bool pci_device_init(struct pci_device *pci, const struct pci_ids *ids, int devfn, GError **error)
{
    struct pci_bus *bus = pci->device.machine->pci;
    if (devfn < 0)
        devfn = free_devfn(bus);
    if (devfn < 0 || bus->devices[devfn]) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "%s: the PCI bus has no free slot: remove a device.",
                    pci->device.class->name);
        return false;
    }
    pci->bus = bus;
    pci->devfn = devfn;
    bus->devices[devfn] = pci;
    uint8_t *c = pci->config, *w = pci->write_mask;
    store_le(c + PCI_VENDOR_ID, 2, ids->vendor);
    store_le(c + PCI_DEVICE_ID, 2, ids->device);
    c[PCI_REVISION] = ids->revision;
    c[PCI_PROG_IF] = ids->prog_if;
    c[PCI_SUBCLASS] = ids->subclass;
    c[PCI_CLASS] = ids->class_code;
    c[PCI_HEADER_TYPE] = pci->multifunction ? 0x80 : 0;
    store_le(c + PCI_SUBSYSTEM_VENDOR, 2, ids->subsystem_vendor);
    store_le(c + PCI_SUBSYSTEM_ID, 2, ids->subsystem);
    c[PCI_INTERRUPT_PIN] = ids->interrupt_pin;
    store_le(w + PCI_COMMAND, 2,
             PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_NO_INTX | 0x140);
    store_le(pci->write_clear_mask + PCI_STATUS, 2, 0xf900);
    w[PCI_INTERRUPT_LINE] = 0xff;
    w[0x0c] = w[0x0d] = 0xff; // cache line size, latency timer
    for (unsigned i = 0; i < PCI_BARS; i++)
        pci->bar[i].base = UNMAPPED;
    pci->rom_base = UNMAPPED;
    pci->next_capability = 0x40;
    return true;
}

void pci_device_exit(struct pci_device *pci)
{
    if (!pci->bus)
        return;
    for (unsigned i = 0; i < PCI_BARS; i++)
        if (pci->bar[i].region)
            address_space_unmap(pci->bar[i].region);
    if (pci->rom) {
        address_space_unmap(pci->rom);
        g_clear_pointer(&pci->rom, g_free);
    }
    pci_set_intx(pci, false);
    pci_msix_free(pci);
    pci->bus->devices[pci->devfn] = NULL;
    pci->bus = NULL;
}

void pci_set_bar(struct pci_device *pci, unsigned index, struct region *region, bool io, bool wide, bool prefetchable)
{
    struct pci_bar *bar = &pci->bar[index];
    *bar = (struct pci_bar){.region = region, .io = io, .wide = wide, .prefetchable = prefetchable, .base = UNMAPPED};
    bar->size = MAX(region->size, io ? 4 : 16);
    g_assert((bar->size & (bar->size - 1)) == 0);
    uint64_t mask = ~(bar->size - 1);
    unsigned at = PCI_BAR0 + 4 * index;
    pci->config[at] = io ? 1 : (wide ? 4 : 0) | (prefetchable ? 8 : 0);
    store_le(pci->write_mask + at, 4, mask); // all 32 bits for ports too: SeaBIOS takes the size from them
    if (wide)
        store_le(pci->write_mask + at + 4, 4, mask >> 32);
}

// One ROM image serves several functions: firmware runs it only where it names this one (PCI Firmware 3.0, 5.1.2), so
// its numbers are set to ours, and byte 6, which is free, keeps the checksum right.
static void set_rom_ids(struct pci_device *pci, uint8_t *rom, size_t length)
{
    unsigned at = length >= 0x1a ? load_le(rom + 0x18, 2) : 0;
    if (length < 0x1c || rom[0] != 0x55 || rom[1] != 0xaa || at + 8 > length || memcmp(rom + at, "PCIR", 4) != 0)
        return;
    for (unsigned i = 0; i < 4; i++) {
        rom[6] += rom[at + 4 + i] - pci->config[PCI_VENDOR_ID + i];
        rom[at + 4 + i] = pci->config[PCI_VENDOR_ID + i];
    }
}

void pci_set_rom(struct pci_device *pci, const char *file)
{
    g_autofree char *contents = NULL;
    gsize length = 0;
    g_autoptr(GError) error = NULL;
    if (!g_file_get_contents(file, &contents, &length, &error) || !length || length > 16 * MiB) {
        log_warning("pci", "%s has no option ROM: %s", pci->device.id, error ? error->message : "bad size");
        return;
    }
    pci->rom_size = 2 * KiB;
    while (pci->rom_size < length)
        pci->rom_size *= 2;
    struct ram *ram = pci->device.machine->ram;
    uint64_t offset = ram_alloc(ram, MAX(pci->rom_size, PAGE_SIZE));
    set_rom_ids(pci, (uint8_t *)contents, length);
    memcpy(ram->host + offset, contents, length);
    pci->rom = g_new0(struct region, 1);
    region_init_rom(pci->rom, "option rom", offset, pci->rom_size);
    store_le(pci->write_mask + PCI_ROM_BASE, 4, ~(pci->rom_size - 1) | 1);
}

uint8_t pci_add_capability(struct pci_device *pci, uint8_t id, unsigned size)
{
    unsigned at = pci->next_capability;
    g_assert(at + size <= PCI_CONFIG_SIZE);
    pci->config[at] = id;
    pci->config[at + 1] = pci->config[PCI_CAPABILITIES];
    pci->config[PCI_CAPABILITIES] = at;
    pci->config[PCI_STATUS] |= PCI_STATUS_CAPS;
    pci->next_capability = ALIGN_UP(at + size, 4u);
    return at;
}

// ---- BARs ----
static uint64_t bar_address(const struct pci_device *pci, unsigned index)
{
    const struct pci_bar *bar = &pci->bar[index];
    unsigned at = PCI_BAR0 + 4 * index, command = load_le(pci->config + PCI_COMMAND, 2);
    if (!(command & (bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return UNMAPPED;
    uint64_t address = load_le(pci->config + at, bar->wide ? 8 : 4) & ~(bar->size - 1);
    if (bar->io)
        return address && address + bar->size <= 0x10000 ? address : UNMAPPED;
    // Zero is "not assigned"; the end of the window is what sizing writes leave behind.
    bool nowhere = !address || address + bar->size < address || (!bar->wide && address + bar->size > 4 * GiB) ||
                   (bar->wide && address >> 40);
    return nowhere ? UNMAPPED : address;
}

static void move_region(struct address_space *space, struct region *region, uint64_t *base, uint64_t to)
{
    if (*base == to)
        return;
    address_space_unmap(region);
    *base = to;
    if (to != UNMAPPED)
        address_space_map(space, region, to, BAR_PRIORITY);
}

static void update_mappings(struct pci_device *pci)
{
    struct machine *machine = pci->device.machine;
    address_space_begin(machine->memory);
    address_space_begin(machine->ports);
    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *bar = &pci->bar[i];
        if (bar->region)
            move_region(bar->io ? machine->ports : machine->memory, bar->region, &bar->base, bar_address(pci, i));
    }
    if (pci->rom) {
        uint64_t rom = load_le(pci->config + PCI_ROM_BASE, 4);
        bool on = (rom & 1) && (pci->config[PCI_COMMAND] & PCI_COMMAND_MEMORY) && rom >> 11;
        move_region(machine->memory, pci->rom, &pci->rom_base, on ? rom & ~(pci->rom_size - 1) : UNMAPPED);
    }
    address_space_commit(machine->ports);
    address_space_commit(machine->memory);
}

// ---- INTx ----
void pci_bus_set_router(struct pci_bus *bus, irq_fn *fn, void *opaque)
{
    bus->router = fn;
    bus->router_opaque = opaque;
}

bool pci_pirq_level(struct pci_bus *bus, unsigned pirq)
{
    return bus->pirq_count[pirq] > 0;
}

static bool intx_asserted(const struct pci_device *pci)
{
    return (pci->config[PCI_STATUS] & PCI_STATUS_INTERRUPT) &&
           !(load_le(pci->config + PCI_COMMAND, 2) & PCI_COMMAND_NO_INTX);
}

// Brings the line in step with the status and command registers.
static void update_intx(struct pci_device *pci)
{
    struct pci_bus *bus = pci->bus;
    bool level = intx_asserted(pci);
    if (level == pci->intx_level || !pci->config[PCI_INTERRUPT_PIN])
        return;
    pci->intx_level = level;
    unsigned pirq = pci_pirq(pci->devfn, pci->config[PCI_INTERRUPT_PIN]);
    bus->pirq_count[pirq] += level ? 1 : -1;
    if (bus->router)
        bus->router(bus->router_opaque, pirq, bus->pirq_count[pirq] > 0);
}

void pci_set_intx(struct pci_device *pci, bool level)
{
    if (!pci->bus)
        return;
    if (level)
        pci->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    else
        pci->config[PCI_STATUS] &= ~PCI_STATUS_INTERRUPT;
    update_intx(pci);
}

// ---- Configuration space ----
uint32_t pci_config_read(struct pci_bus *bus, uint8_t bus_number, uint8_t devfn, unsigned offset, unsigned size)
{
    struct pci_device *pci = bus_number == 0 ? bus->devices[devfn] : NULL;
    if (!pci || offset + size > PCI_CONFIG_SIZE)
        return ~0u >> (32 - 8 * size);
    if (pci->config_reading)
        pci->config_reading(pci, offset, size);
    return load_le(pci->config + offset, size);
}

void pci_config_write(struct pci_bus *bus, uint8_t bus_number, uint8_t devfn, unsigned offset, uint32_t value,
                      unsigned size)
{
    struct pci_device *pci = bus_number == 0 ? bus->devices[devfn] : NULL;
    if (!pci || offset + size > PCI_CONFIG_SIZE)
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = value >> 8 * i, *at = &pci->config[offset + i];
        *at = (*at & ~pci->write_mask[offset + i]) | (byte & pci->write_mask[offset + i]);
        *at &= ~(byte & pci->write_clear_mask[offset + i]);
    }
    if (offset < PCI_INTERRUPT_LINE) {
        update_mappings(pci);
        update_intx(pci);
    }
    pci_msi_config_written(pci, offset, size);
    if (pci->config_written)
        pci->config_written(pci, offset, value, size);
}

void pci_device_reset(struct pci_device *pci)
{
    store_le(pci->config + PCI_COMMAND, 2, 0);
    pci->config[PCI_INTERRUPT_LINE] = 0;
    pci_set_intx(pci, false);
    for (unsigned i = 0; i < PCI_BARS; i++) {
        unsigned at = PCI_BAR0 + 4 * i;
        store_le(pci->config + at, 4, load_le(pci->config + at, 4) & ~load_le(pci->write_mask + at, 4));
    }
    store_le(pci->config + PCI_ROM_BASE, 4, 0);
    pci_msi_reset(pci);
    update_mappings(pci);
}

void pci_bus_reset(struct pci_bus *bus)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(bus->devices); i++)
        if (bus->devices[i])
            pci_device_reset(bus->devices[i]);
}

void pci_bus_loaded(struct pci_bus *bus)
{
    memset(bus->pirq_count, 0, sizeof(bus->pirq_count));
    for (unsigned i = 0; i < G_N_ELEMENTS(bus->devices); i++) {
        struct pci_device *pci = bus->devices[i];
        if (!pci)
            continue;
        pci->intx_level = false;
        update_mappings(pci);
        update_intx(pci);
        pci_msi_loaded(pci);
    }
}

void pci_bus_foreach(struct pci_bus *bus, void (*fn)(struct pci_device *pci, void *opaque), void *opaque)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(bus->devices); i++)
        if (bus->devices[i])
            fn(bus->devices[i], opaque);
}

struct pci_device *pci_bus_device(struct pci_bus *bus, uint8_t devfn)
{
    return bus->devices[devfn];
}

// ---- DMA ----
bool pci_bus_master(const struct pci_device *pci)
{
    return pci->config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

void pci_dma_read(struct pci_device *pci, uint64_t address, void *data, uint64_t length)
{
    if (pci_bus_master(pci))
        address_space_read(pci->device.machine->memory, address, data, length);
    else
        memset(data, 0xff, length);
}

void pci_dma_write(struct pci_device *pci, uint64_t address, const void *data, uint64_t length)
{
    if (pci_bus_master(pci))
        address_space_write(pci->device.machine->memory, address, data, length);
}

const struct field pci_device_fields[] = {
    FIELD_BYTES(struct pci_device, config),
    FIELD_BUFFER(struct pci_device, msix_state, msix_state_size),
    FIELD_END,
};
