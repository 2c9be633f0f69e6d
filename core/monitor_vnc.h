// SPDX-License-Identifier: GPL-2.0-or-later
// The monitor's VNC server as --display and the control commands switch it. Belongs to main, like it above everybody.
#ifndef CLOCHE_MONITOR_VNC_H
#define CLOCHE_MONITOR_VNC_H

#include "core/control/control.h"
#include "core/machine/machine.h"

struct monitor_vnc;

// CONTROL may be NULL. Main loop thread, like all of it.
struct monitor_vnc *monitor_vnc_new(struct machine *machine, const char *name, struct control_server *control);
bool monitor_vnc_start(struct monitor_vnc *vnc, const char *where, const char *password_file, GError **error);
void monitor_vnc_free(struct monitor_vnc *vnc); // before the machine and the control server

#endif
