// SPDX-License-Identifier: GPL-2.0-or-later
// New Machine: where the system comes from, what it gets, a summary. A recognised medium sets the defaults.
#ifndef CLOCHE_DESKTOP_ASSISTANT_H
#define CLOCHE_DESKTOP_ASSISTANT_H

#include "ui/desktop/app.h"

G_BEGIN_DECLS

#define CLOCHE_TYPE_ASSISTANT (cloche_assistant_get_type())
G_DECLARE_FINAL_TYPE(ClocheAssistant, cloche_assistant, CLOCHE, ASSISTANT, GtkAssistant)

GtkWidget *cloche_assistant_new(ClocheApp *app, GtkWindow *parent);
// As if the person had chosen FILE as installer medium.
void cloche_assistant_set_medium(ClocheAssistant *self, const char *file);
void cloche_assistant_set_disk(ClocheAssistant *self, const char *file); // likewise an existing disk

G_END_DECLS

#endif
