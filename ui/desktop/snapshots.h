// SPDX-License-Identifier: GPL-2.0-or-later
// The snapshots of one machine as a tree, with name, date, size, note and "you are here".
#ifndef CLOCHE_DESKTOP_SNAPSHOTS_H
#define CLOCHE_DESKTOP_SNAPSHOTS_H

#include "ui/desktop/app.h"

void snapshots_window_show(ClocheApp *app, ClocheMachine *machine, GtkWindow *parent);

#endif
