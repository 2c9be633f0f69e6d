// SPDX-License-Identifier: GPL-2.0-or-later
// The device table: one row per device class, grouped as the folders are. A new device is one file and one row here.
#include "core/machine/device.h"

// clang-format off
#define CHIPSET(row) \
    row(i440fx) \
    row(piix3) \
    row(piix4_pm) \
    row(i8259) \
    row(ioapic) \
    row(i8254) \
    row(rtc) \
    row(hpet) \
    row(i8237) \
    row(debug_ports) \
    row(debug_exit) \
    row(pc_testdev) \
    row(pci_testdev)

#define FIRMWARE(row) \
    row(fw_cfg) \
    row(direct_boot)

#define CHAR(row) \
    row(serial) \
    row(pci_serial)

#define INPUT(row) \
    row(i8042) \
    row(virtio_keyboard) \
    row(virtio_mouse) \
    row(virtio_tablet) \
    row(xhci) \
    row(usb_keyboard) \
    row(usb_mouse) \
    row(usb_tablet)

#define DISPLAY(row) \
    row(vga) \
    row(virtio_gpu)

#define STORAGE(row) \
    row(floppy) \
    row(piix3_ide) \
    row(virtio_blk) \
    row(virtio_rng) \
    row(virtio_console) \
    row(virtio_agent)

#define NET(row) \
    row(virtio_net) \
    row(e1000) \
    row(rtl8139) \
    row(pcnet) \
    row(ne2k)

// clang-format on

#define DECLARE(name) extern const struct device_class name##_class;
#define ROW(name)     &name##_class,
#define DEVICES(row)  CHIPSET(row) FIRMWARE(row) CHAR(row) INPUT(row) DISPLAY(row) STORAGE(row) NET(row)

DEVICES(DECLARE)
const struct device_class *const device_classes[] = {DEVICES(ROW) NULL};
