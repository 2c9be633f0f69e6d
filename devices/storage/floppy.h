// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef CLOCHE_FLOPPY_H
#define CLOCHE_FLOPPY_H

#include "core/machine/device.h"

// What firmware finds in CMOS byte 0x10: the drive types, A in the upper half.
uint8_t floppy_cmos_types(struct device *floppy);

#endif
