// SPDX-License-Identifier: GPL-2.0-or-later
// A control for the path of a file: an entry, and a button that opens the desktop's file chooser, which is made only
// then.
#ifndef CLOCHE_DESKTOP_FILE_ROW_H
#define CLOCHE_DESKTOP_FILE_ROW_H

#include <gtk/gtk.h>

G_BEGIN_DECLS

#define CLOCHE_TYPE_FILE_ROW (cloche_file_row_get_type())
G_DECLARE_FINAL_TYPE(ClocheFileRow, cloche_file_row, CLOCHE, FILE_ROW, GtkBox)

// Property "title": what the file is, for the chooser and screen readers. Signal "changed" ().
GtkWidget *cloche_file_row_new(const char *title);
void cloche_file_row_set_path(ClocheFileRow *self, const char *path);
const char *cloche_file_row_get_path(ClocheFileRow *self); // "": none; SELF's until it changes
GtkWidget *cloche_file_row_get_entry(ClocheFileRow *self);

G_END_DECLS

#endif
