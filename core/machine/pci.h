// SPDX-License-Identifier: GPL-2.0-or-later
// Conventional PCI: configuration space, BARs that move at run time, INTx routing, MSI and MSI-X (PCI Local Bus 3.0).
#ifndef CLOCHE_PCI_H
#define CLOCHE_PCI_H

#include "core/machine/machine.h"

#define PCI_CONFIG_SIZE 256
#define PCI_BARS        6

struct pci_bar {
    struct region *region; // NULL: not present
    bool io;               // port space
    bool wide;             // 64-bit memory BAR: takes two slots
    bool prefetchable;
    uint64_t size;         // power of two
    uint64_t base;         // where it is mapped now; ~0 when it is not
};

struct pci_device; // first member of every PCI device; itself starts with struct device
typedef void pci_config_read_fn(struct pci_device *pci, unsigned offset, unsigned size);
typedef void pci_config_write_fn(struct pci_device *pci, unsigned offset, uint32_t value, unsigned size);

struct pci_device {
    struct device device;
    struct pci_bus *bus;
    uint8_t devfn;         // slot << 3 | function
    bool multifunction;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t write_mask[PCI_CONFIG_SIZE];       // bits that the guest may write
    uint8_t write_clear_mask[PCI_CONFIG_SIZE]; // write 1 to clear
    struct pci_bar bar[PCI_BARS];
    struct region *rom;
    uint64_t rom_size, rom_base;
    unsigned next_capability;                  // where the next one goes
    uint8_t msi_cap, msix_cap;                 // offsets, 0: none
    struct pci_msix *msix;
    uint8_t *msix_state;                       // table and pending bits, for saving
    uint32_t msix_state_size;
    bool intx_level;
    pci_config_read_fn *config_reading;        // before a read: bring config[] up to date; may be NULL
    pci_config_write_fn *config_written;       // after a write took effect; may be NULL
};

struct pci_ids {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint8_t revision, prog_if, subclass, class_code;
    uint8_t interrupt_pin; // 0 none, 1 INTA#
};

struct pci_bus *pci_bus_new(struct machine *machine);
void pci_bus_free(struct pci_bus *bus);
// Puts a device on the bus; DEVFN -1 takes the next free slot. Call first thing in realize().
bool pci_device_init(struct pci_device *pci, const struct pci_ids *ids, int devfn, GError **error);
void pci_device_exit(struct pci_device *pci);
void pci_device_reset(struct pci_device *pci); // command, BARs, MSI: to power-on values
// SIZE is rounded up to a power of two by the caller.
void pci_set_bar(struct pci_device *pci, unsigned index, struct region *region, bool io, bool wide, bool prefetchable);
// An option ROM from a file of the firmware packages (may be missing: logged, no ROM).
void pci_set_rom(struct pci_device *pci, const char *file);
uint8_t pci_add_capability(struct pci_device *pci, uint8_t id, unsigned size); // returns its offset

void pci_set_intx(struct pci_device *pci, bool level);
bool pci_add_msi(struct pci_device *pci, unsigned vectors);
// Table and pending bits live in BAR INDEX at the given offset of a region that this call creates and maps.
bool pci_add_msix(struct pci_device *pci, unsigned bar, unsigned vectors);
bool pci_msi_enabled(const struct pci_device *pci);
bool pci_msix_enabled(const struct pci_device *pci);
void pci_notify_msi(struct pci_device *pci, unsigned vector);
void pci_notify_msix(struct pci_device *pci, unsigned vector); // any thread

bool pci_bus_master(const struct pci_device *pci);
// DMA; does nothing (reads all ones) while bus mastering is off.
void pci_dma_read(struct pci_device *pci, uint64_t address, void *data, uint64_t length);
void pci_dma_write(struct pci_device *pci, uint64_t address, const void *data, uint64_t length);

uint32_t pci_config_read(struct pci_bus *bus, uint8_t bus_number, uint8_t devfn, unsigned offset, unsigned size);
void pci_config_write(struct pci_bus *bus, uint8_t bus_number, uint8_t devfn, unsigned offset, uint32_t value,
                      unsigned size);
// After state was loaded: maps the BARs where the registers say.
void pci_bus_loaded(struct pci_bus *bus);
void pci_bus_reset(struct pci_bus *bus); // pci_device_reset() of every device
struct pci_device *pci_bus_device(struct pci_bus *bus, uint8_t devfn); // or NULL
bool pci_pirq_level(struct pci_bus *bus, unsigned pirq);
// Which of PIRQ A-D (0-3) a function's pin (1-4) is wired to: (slot + pin - 2) & 3, as on the i440FX reference board.
static inline unsigned pci_pirq(uint8_t devfn, unsigned pin)
{
    return ((devfn >> 3) + pin - 2) & 3;
}
// The chipset's interrupt router: PIRQ A-D (0-3) changed level.
void pci_bus_set_router(struct pci_bus *bus, irq_fn *fn, void *opaque);
void pci_bus_foreach(struct pci_bus *bus, void (*fn)(struct pci_device *pci, void *opaque), void *opaque);

// Between pci.c and pci_msi.c.
void pci_msi_config_written(struct pci_device *pci, unsigned offset, unsigned size);
void pci_msi_reset(struct pci_device *pci);
void pci_msi_loaded(struct pci_device *pci);
void pci_msix_free(struct pci_device *pci);

extern const struct field pci_device_fields[]; // include with FIELD_STRUCT(..., pci, pci_device_fields)

// Configuration registers (PCI 3.0, chapter 6).
#define PCI_VENDOR_ID        0x00
#define PCI_DEVICE_ID        0x02
#define PCI_COMMAND          0x04
#define PCI_STATUS           0x06
#define PCI_REVISION         0x08
#define PCI_PROG_IF          0x09
#define PCI_SUBCLASS         0x0a
#define PCI_CLASS            0x0b
#define PCI_HEADER_TYPE      0x0e
#define PCI_BAR0             0x10
#define PCI_SUBSYSTEM_VENDOR 0x2c
#define PCI_SUBSYSTEM_ID     0x2e
#define PCI_ROM_BASE         0x30
#define PCI_CAPABILITIES     0x34
#define PCI_INTERRUPT_LINE   0x3c
#define PCI_INTERRUPT_PIN    0x3d

#define PCI_COMMAND_IO       0x001
#define PCI_COMMAND_MEMORY   0x002
#define PCI_COMMAND_MASTER   0x004
#define PCI_COMMAND_NO_INTX  0x400
#define PCI_STATUS_INTERRUPT 0x008
#define PCI_STATUS_CAPS      0x010

#endif
