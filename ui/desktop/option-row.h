// SPDX-License-Identifier: GPL-2.0-or-later
// The control for one option of the option table: a switch, a spin button, a list of choices, a file or a text.
#ifndef CLOCHE_DESKTOP_OPTION_ROW_H
#define CLOCHE_DESKTOP_OPTION_ROW_H

#include "core/config/option.h"

#include <gtk/gtk.h>

struct option_row;

// A control that shows TEXT. It is freed with its widget.
struct option_row *option_row_new(const struct option *option, const char *text);
GtkWidget *option_row_widget(struct option_row *row);
char *option_row_text(struct option_row *row); // what the person chose, as written in machine.conf; free it
// Checks it by the table; on failure the row shows what is allowed.
gboolean option_row_check(struct option_row *row, GError **error);

#endif
