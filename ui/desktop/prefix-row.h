// SPDX-License-Identifier: GPL-2.0-or-later
// A control for options whose text is a kind with an argument, such as a serial port's "file:PATH": a list of kinds in
// plain words, and an entry where the kind needs one.
#ifndef CLOCHE_DESKTOP_PREFIX_ROW_H
#define CLOCHE_DESKTOP_PREFIX_ROW_H

#include <gtk/gtk.h>

struct prefix_kind {
    const char *prefix;   // "file:"; without ARGUMENT: the whole text
    const char *label;    // for people
    const char *argument; // what goes into the entry, an example; NULL: no entry
};

extern const struct prefix_kind prefix_serial[], prefix_network[]; // end with a LABEL of NULL

GtkWidget *prefix_row_new(const struct prefix_kind *kinds, const char *text, const char *name);
char *prefix_row_text(GtkWidget *row); // free it
// TEXT for people: "Private network between machines: lab"; TEXT itself where no kind fits. Free it.
char *prefix_describe(const struct prefix_kind *kinds, const char *text);

#endif
