// SPDX-License-Identifier: GPL-2.0-or-later
// Growing a disk, of a machine that runs (its guest is told) or that is off (as a job on the image).
#ifndef CLOCHE_DESKTOP_DISK_GROW_H
#define CLOCHE_DESKTOP_DISK_GROW_H

#include "ui/desktop/machine-object.h"

// Asks for the new size of DRIVE (device id) and carries it out; failures are shown over PARENT.
void disk_grow_ask(ClocheMachine *machine, const char *drive, GtkWindow *parent);

#endif
