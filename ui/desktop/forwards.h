// SPDX-License-Identifier: GPL-2.0-or-later
// Port forwards of a network card: rows of protocol, address and port on this host, port in the guest.
#ifndef CLOCHE_DESKTOP_FORWARDS_H
#define CLOCHE_DESKTOP_FORWARDS_H

#include "ui/desktop/machine-object.h"

// A list that can be edited, of TEXT as machine.conf(5) has it: "tcp:127.0.0.1:2222-22;udp:...".
GtkWidget *forwards_editor_new(const char *text);
char *forwards_editor_text(GtkWidget *editor); // the same form; free it

// Tells the running MACHINE what changed from BEFORE to AFTER; what it refuses is shown over PARENT.
void forwards_apply(ClocheMachine *machine, const char *card, const char *before, const char *after, GtkWindow *parent);

// A dialog with that list for CARD (device id). It is kept in machine.conf, and applied at once where the machine runs.
void forwards_show(ClocheMachine *machine, const char *card, GtkWindow *parent);

#endif
