// SPDX-License-Identifier: GPL-2.0-or-later
// Virtio over PCI (Virtio 1.2, section 4.1): the modern capabilities, MSI-X, and for transitional devices the legacy
// I/O BAR. A device's instance starts with a struct virtio_pci.
#ifndef CLOCHE_VIRTIO_PCI_H
#define CLOCHE_VIRTIO_PCI_H

#include "core/machine/pci.h"
#include "devices/virtio/virtio.h"

// Threads: machine lock, except INTERRUPT_STATUS and the notification registers.
struct virtio_pci {
    struct pci_device pci; // first: it starts with struct device
    struct virtio_device virtio;
    struct region modern, legacy;
    unsigned vectors;      // of MSI-X
    uint8_t config_access; // offset of the capability that reaches the BARs by configuration space
    uint32_t feature_select, driver_feature_select, queue_select;
    uint64_t driver_features; // as written, before they are taken
    _Atomic uint8_t interrupt_status;
    _Atomic bool intx_pending; // a deferred call will bring INTx up to date
};

struct virtio_pci_description {
    uint8_t class_code, subclass, prog_if;
    bool transitional; // also the legacy interface and its device number
    unsigned vectors;  // of MSI-X: queues + 1
    const char *rom;   // option ROM of the firmware packages, or NULL
};

// virtio_device_init() and virtio_add_queue() come first, in realize().
bool virtio_pci_realize(struct virtio_pci *proxy, const struct virtio_pci_description *description, GError **error);
void virtio_pci_unrealize(struct virtio_pci *proxy); // copes with half-realized devices
void virtio_pci_reset(struct virtio_pci *proxy);
void virtio_pci_loaded(struct virtio_pci *proxy);

static inline struct virtio_pci *virtio_pci_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_pci, virtio);
}

extern const struct field virtio_pci_fields[]; // include with FIELD_STRUCT(..., proxy, virtio_pci_fields)

#endif
