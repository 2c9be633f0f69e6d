// SPDX-License-Identifier: GPL-2.0-or-later
// The settings window: one page per group of the option table, one row per option; nothing here names an option.
#ifndef CLOCHE_DESKTOP_SETTINGS_H
#define CLOCHE_DESKTOP_SETTINGS_H

#include "ui/desktop/app.h"

GtkWidget *settings_new(ClocheApp *app, ClocheMachine *machine, GtkWindow *parent);

#endif
