// SPDX-License-Identifier: GPL-2.0-or-later
// A terminal on the machine's first serial port that listens on a UNIX socket.
#ifndef CLOCHE_DESKTOP_SERIAL_H
#define CLOCHE_DESKTOP_SERIAL_H

#include "ui/desktop/machine-object.h"

GtkWidget *serial_console_new(ClocheMachine *machine);  // says so when no port can be shown
GtkWidget *serial_console_terminal(GtkWidget *console); // what takes the keyboard focus

#endif
