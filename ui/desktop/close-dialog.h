// SPDX-License-Identifier: GPL-2.0-or-later
// The question asked when a console is closed while its machine is alive; it remembers the answer if told to.
#ifndef CLOCHE_DESKTOP_CLOSE_DIALOG_H
#define CLOCHE_DESKTOP_CLOSE_DIALOG_H

#include <gtk/gtk.h>

typedef enum { CLOSE_CANCEL, CLOSE_KEEP_RUNNING, CLOSE_SAVE, CLOSE_SHUT_DOWN, CLOSE_POWER_OFF } CloseChoice;

// ANSWERED runs at once when PREFERENCES hold a remembered answer.
void close_dialog_ask(GtkWindow *parent, GKeyFile *preferences, void (*answered)(gpointer data, CloseChoice choice),
                      gpointer data);
extern const char *const close_choice_names[]; // as kept in the preferences: "ask", "keep-running", ...

#endif
