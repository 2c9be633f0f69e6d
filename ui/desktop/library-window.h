// SPDX-License-Identifier: GPL-2.0-or-later
// The main window: the machines as list or grid, search, details, and what can be done with the selected one.
#ifndef CLOCHE_DESKTOP_LIBRARY_WINDOW_H
#define CLOCHE_DESKTOP_LIBRARY_WINDOW_H

#include "ui/desktop/app.h"

G_BEGIN_DECLS

#define CLOCHE_TYPE_LIBRARY_WINDOW (cloche_library_window_get_type())
G_DECLARE_FINAL_TYPE(ClocheLibraryWindow, cloche_library_window, CLOCHE, LIBRARY_WINDOW, GtkApplicationWindow)

GtkWidget *cloche_library_window_new(ClocheApp *app);
void cloche_library_window_select(ClocheLibraryWindow *self, ClocheMachine *machine);
ClocheMachine *cloche_library_window_get_selected(ClocheLibraryWindow *self);

G_END_DECLS

#endif
