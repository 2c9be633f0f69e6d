// SPDX-License-Identifier: GPL-2.0-or-later
// The machine's serial ports and network cards as the control commands show and change them. Belongs to main, like it
// above everybody.
#ifndef CLOCHE_MONITOR_PORTS_H
#define CLOCHE_MONITOR_PORTS_H

#include "core/control/control.h"
#include "core/machine/machine.h"

// Hands them to CONTROL, which lets go of them with itself; before the machine is freed. Main loop thread.
void monitor_ports_serve(struct machine *machine, struct control_server *control);

#endif
