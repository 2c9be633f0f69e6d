// SPDX-License-Identifier: GPL-2.0-or-later
// What the host offers, for people: which engine will run machines here and why, and the dialog Host Report. Looked at
// beside the main loop.
#ifndef CLOCHE_DESKTOP_HOST_REPORT_H
#define CLOCHE_DESKTOP_HOST_REPORT_H

#include <gtk/gtk.h>

// Sets LABEL's text when it is known; LABEL may be gone by then.
void host_report_engine(GtkLabel *label);
// The dialog with everything. FOLDER: of the library.
void host_report_show(GtkWindow *parent, const char *folder);

#endif
