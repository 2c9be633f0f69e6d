// SPDX-License-Identifier: GPL-2.0-or-later
// The size of a window and whether it is maximized, kept among the preferences from one time to the next.
#ifndef CLOCHE_DESKTOP_WINDOW_STATE_H
#define CLOCHE_DESKTOP_WINDOW_STATE_H

#include "ui/desktop/app.h"

G_BEGIN_DECLS

// Gives WINDOW, which is not shown yet, what GROUP of the preferences says, and notes there what becomes of it. FALSE:
// nothing is kept yet, so its size is the default one. Whoever closes the window saves the preferences.
gboolean window_state_follow(GtkWindow *window, ClocheApp *app, const char *group);
// The same for a dialog, which saves the preferences itself when it goes.
void window_state_follow_dialog(GtkWindow *dialog, ClocheApp *app, const char *group);

G_END_DECLS

#endif
