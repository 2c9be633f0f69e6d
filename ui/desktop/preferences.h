// SPDX-License-Identifier: GPL-2.0-or-later
// The app's own preferences.
#ifndef CLOCHE_DESKTOP_PREFERENCES_H
#define CLOCHE_DESKTOP_PREFERENCES_H

#include "ui/desktop/app.h"

void preferences_show(ClocheApp *app, GtkWindow *parent);

#endif
