// SPDX-License-Identifier: GPL-2.0-or-later
// Removable media: inserting and ejecting discs and floppies while the machine runs.
#ifndef CLOCHE_DESKTOP_MEDIA_H
#define CLOCHE_DESKTOP_MEDIA_H

#include "ui/desktop/machine-object.h"

// Lets the person choose a file for DRIVE (device id; NULL: the first removable drive) and inserts it.
void media_choose(ClocheMachine *machine, const char *drive, GtkWindow *parent);
void media_eject(ClocheMachine *machine, const char *drive, GtkWindow *parent);

#endif
