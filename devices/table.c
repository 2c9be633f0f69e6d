// SPDX-License-Identifier: GPL-2.0-or-later
// The device table: one row per device class, grouped as the folders are. A new device is one file and one row here.
#include "core/machine/device.h"

// clang-format off
#define CHIPSET(row)

#define INPUT(row) \
    row(i8042)

#define STORAGE(row) \
    row(piix3_ide) \
    row(virtio_blk)

#define NET(row)

#define DISPLAY(row) \
    row(vga)

#define DEVICES(row) CHIPSET(row) INPUT(row) STORAGE(row) NET(row) DISPLAY(row)
// clang-format on

#define DECLARE(name) extern const struct device_class name##_class;
#define ROW(name)     &name##_class,

DEVICES(DECLARE)
const struct device_class *const device_classes[] = {DEVICES(ROW) NULL};
