// SPDX-License-Identifier: GPL-2.0-or-later
// A 16550A as a part of another card.
#ifndef CLOCHE_SERIAL_H
#define CLOCHE_SERIAL_H

#include "core/machine/device.h"

// Registers 0 to 7 of a "serial" device (the opaque value) that was made with port=0: the card maps them where it
// wants.
extern const struct io_ops serial_ops;
// The interrupt goes to OUTPUT in place of an ISA line.
void serial_set_output(struct device *serial, struct irq output);

#endif
