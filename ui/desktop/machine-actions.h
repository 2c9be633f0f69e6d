// SPDX-License-Identifier: GPL-2.0-or-later
// The actions on one machine that the library window and the console share: win.start, win.pause, ... One table names
// each with the request it stands for; an action that is not legal now is greyed and its widgets say why in their
// tooltips.
#ifndef CLOCHE_DESKTOP_MACHINE_ACTIONS_H
#define CLOCHE_DESKTOP_MACHINE_ACTIONS_H

#include "ui/desktop/machine-object.h"

// Adds the actions to WINDOW. DELETED is called when the person confirmed a deletion; it calls
// delete_dialog_carry_out() when it is too late to undo.
void machine_actions_add(GtkApplicationWindow *window,
                         void (*deleted)(GtkApplicationWindow *window, ClocheMachine *machine));
// The machine they act on from now on; NULL greys them all.
void machine_actions_set_machine(GtkApplicationWindow *window, ClocheMachine *machine);
ClocheMachine *machine_actions_get_machine(GtkApplicationWindow *window);
// The sentence that says why ACTION ("win.pause") is greyed now and what helps; NULL: it is not, or it is not one of
// these.
const char *machine_actions_why_not(GtkApplicationWindow *window, const char *action);

#endif
