// SPDX-License-Identifier: GPL-2.0-or-later
// The pane beside the machine list: picture, state, buttons, figures over time, facts, notes.
#ifndef CLOCHE_DESKTOP_DETAILS_H
#define CLOCHE_DESKTOP_DETAILS_H

#include "ui/desktop/machine-object.h"

G_BEGIN_DECLS

#define CLOCHE_TYPE_DETAILS (cloche_details_get_type())
G_DECLARE_FINAL_TYPE(ClocheDetails, cloche_details, CLOCHE, DETAILS, GtkScrolledWindow)

void cloche_details_set_machine(ClocheDetails *self, ClocheMachine *machine); // NULL: nothing selected

G_END_DECLS

#endif
