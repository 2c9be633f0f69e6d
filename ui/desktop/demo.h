// SPDX-License-Identifier: GPL-2.0-or-later
// The demo machine: the graphical Debian installer from Debian's own package, with an empty disk.
#ifndef CLOCHE_DESKTOP_DEMO_H
#define CLOCHE_DESKTOP_DEMO_H

#include "ui/desktop/app.h"

// Finds the demo machine or creates it. NULL and an error that names the package when it is not installed.
ClocheMachine *demo_machine(ClocheApp *app, GError **error);

#endif
