// SPDX-License-Identifier: GPL-2.0-or-later
// The clipboard between a console's desktop and its guest: what is copied here goes to the guest while its window has
// the focus, what the guest copies comes here. The action win.clipboard ("off", "to-guest", "from-guest", "both") opens
// the ways, now and, in the definition, for later starts.
#ifndef CLOCHE_DESKTOP_CLIPBOARD_SHARE_H
#define CLOCHE_DESKTOP_CLIPBOARD_SHARE_H

#include "ui/desktop/machine-object.h"

// Lives as long as WINDOW.
void clipboard_share_follow(GtkApplicationWindow *window, ClocheMachine *machine);
// Why the action is greyed, or does nothing, and what helps; NULL: it works.
const char *clipboard_share_hint(GtkApplicationWindow *window);

#endif
