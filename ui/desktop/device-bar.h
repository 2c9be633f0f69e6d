// SPDX-License-Identifier: GPL-2.0-or-later
// The drives and network cards in a console's status bar: an icon each with a light for activity, a tooltip with what
// is in it and how much went through, and a menu: insert and eject, grow; addresses, cable, forwards, packet capture.
#ifndef CLOCHE_DESKTOP_DEVICE_BAR_H
#define CLOCHE_DESKTOP_DEVICE_BAR_H

#include "ui/desktop/machine-object.h"

// Follows MACHINE in BOX until the box is destroyed. The menus' actions are added to WINDOW.
void device_bar_follow(GtkBox *box, ClocheMachine *machine, GtkApplicationWindow *window);

#endif
