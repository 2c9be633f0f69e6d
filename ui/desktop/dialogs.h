// SPDX-License-Identifier: GPL-2.0-or-later
// Small shared dialogs: an error with cause, next step, details, Copy and Open Log; a yes-or-no question.
#ifndef CLOCHE_DESKTOP_DIALOGS_H
#define CLOCHE_DESKTOP_DIALOGS_H

#include "ui/desktop/machine-object.h"

#include <gtk/gtk.h>

// WHAT: one plain sentence ("The machine could not be started"). LOG: path of a log to open, or NULL.
void dialog_error(GtkWindow *parent, const char *what, const GError *error, const char *log);
// A modal question; ACCEPT is the verb of the button. DONE runs if it was pressed.
void dialog_confirm(GtkWindow *parent, const char *question, const char *more, const char *accept, gboolean destructive,
                    void (*done)(gpointer data), gpointer data, GDestroyNotify destroy);
// Tells MACHINE one control command; takes ARGUMENTS over. A refusal is shown in a dialog over PARENT, which may be
// gone by then.
void dialog_call(ClocheMachine *machine, const char *command, JsonObject *arguments, GtkWindow *parent);
// "1.5 GiB"; free with g_free().
char *format_size(guint64 bytes);
// Destroys every child.
void container_clear(GtkContainer *container);

#endif
