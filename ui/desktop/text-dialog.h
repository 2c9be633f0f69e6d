// SPDX-License-Identifier: GPL-2.0-or-later
// Asks for one line of text and perhaps a longer note: renaming, cloning, naming a snapshot.
#ifndef CLOCHE_DESKTOP_TEXT_DIALOG_H
#define CLOCHE_DESKTOP_TEXT_DIALOG_H

#include <gtk/gtk.h>

struct text_question {
    const char *title, *label, *text, *accept; // accept: the button's verb, with mnemonic
    const char *note_label, *note;             // LABEL NULL: no note is asked for
    const char *choice;                        // label of a tick box, NULL: none
    gboolean choice_default;
    // CHOICE: the tick box. Runs if the person accepted; TEXT is not empty.
    void (*done)(gpointer data, const char *text, const char *note, gboolean choice);
    gpointer data;
    GDestroyNotify destroy;
};
void text_dialog_ask(GtkWindow *parent, const struct text_question *question);

#endif
