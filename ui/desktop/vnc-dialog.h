// SPDX-License-Identifier: GPL-2.0-or-later
// Share over VNC: switch, address, password, the text to hand on, and who is connected now.
#ifndef CLOCHE_DESKTOP_VNC_DIALOG_H
#define CLOCHE_DESKTOP_VNC_DIALOG_H

#include "ui/desktop/machine-object.h"

void vnc_dialog_show(ClocheMachine *machine, GtkWindow *parent);

#endif
