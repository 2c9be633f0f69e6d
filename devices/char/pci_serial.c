// SPDX-License-Identifier: GPL-2.0-or-later
// A PCI card with one 16550A port, by the numbers that Linux, the BSDs and Windows know as a generic PCI serial port.
#include "core/machine/pci.h"
#include "devices/char/backend.h"
#include "devices/char/serial.h"

// Machine lock.
struct pci_serial {
    struct pci_device pci; // first
    char *target;
    struct device *port;
    struct region ports;
};

static void port_interrupt(void *opaque, unsigned number, bool level)
{
    pci_set_intx(opaque, level);
}

static bool make_port(struct pci_serial *card, GError **error)
{
    struct device *device = &card->pci.device;
    struct char_backend *backend =
        char_backend_open(card->target, device->machine->context, &device->machine->lock, error);
    if (!backend)
        return false;
    g_autofree char *id = g_strdup_printf("%s-port", device->id);
    card->port = device_new(device->machine, "serial", id, error);
    if (!card->port) {
        char_backend_free(backend);
        return false;
    }
    device_set_pointer(card->port, "backend", backend);
    serial_set_output(card->port, (struct irq){port_interrupt, &card->pci, 0});
    if (char_backend_address(backend))
        log_info("serial", "%s is %s", device->id, char_backend_address(backend));
    return device_set(card->port, "port", "0", error) && device_realize(card->port, error);
}

static bool pci_serial_realize(struct device *device, GError **error)
{
    struct pci_serial *card = (struct pci_serial *)device;
    const struct pci_ids ids = {.vendor = 0x1b36,
                                .device = 0x0002,
                                .subsystem_vendor = 0x1af4,
                                .subsystem = 0x1100,
                                .revision = 1,
                                .class_code = 7,
                                .prog_if = 2,
                                .interrupt_pin = 1};
    if (!pci_device_init(&card->pci, &ids, -1, error) || !make_port(card, error))
        return false;
    region_init_io(&card->ports, "pci-serial", &serial_ops, card->port, 8);
    pci_set_bar(&card->pci, 0, &card->ports, true, false, false);
    return true;
}

// The port is a device of its own, which the machine frees.
static void pci_serial_unrealize(struct device *device)
{
    pci_device_exit(&((struct pci_serial *)device)->pci);
}

static const struct property pci_serial_properties[] = {
    {"target", PROPERTY_STRING, offsetof(struct pci_serial, target), "null",
     .help = "where it leads, as for --serial: file:PATH, socket:PATH, pty, ..."},
    PROPERTY_END,
};

static const struct field pci_serial_fields[] = {FIELD_STRUCT(struct pci_serial, pci, pci_device_fields), FIELD_END};

const struct device_class pci_serial_class = {
    .name = "pci-serial",
    .help = "a PCI card with a 16550A serial port",
    .size = sizeof(struct pci_serial),
    .properties = pci_serial_properties,
    .realize = pci_serial_realize,
    .unrealize = pci_serial_unrealize,
    .fields = pci_serial_fields,
    .version = 1,
};
