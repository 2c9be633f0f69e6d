// SPDX-License-Identifier: GPL-2.0-or-later
// A control for the system that a guest runs: an entry that shows names and offers those that hold what is typed; the
// option keeps libosinfo's id.
#ifndef CLOCHE_DESKTOP_SYSTEM_ROW_H
#define CLOCHE_DESKTOP_SYSTEM_ROW_H

#include <gtk/gtk.h>

GtkWidget *system_row_new(const char *id);
// The id of the system that is named, else the text as it stands; free it.
char *system_row_text(GtkWidget *row);

#endif
