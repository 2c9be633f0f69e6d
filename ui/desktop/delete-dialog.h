// SPDX-License-Identifier: GPL-2.0-or-later
// Asks what to delete of a machine: every file of its folder with size and a tick box, images elsewhere left unticked.
#ifndef CLOCHE_DESKTOP_DELETE_DIALOG_H
#define CLOCHE_DESKTOP_DELETE_DIALOG_H

#include "ui/desktop/app.h"

// DELETED is called if the person confirmed; what to remove is remembered with MACHINE until delete_dialog_carry_out().
void delete_dialog_ask(ClocheMachine *machine, GtkApplicationWindow *parent,
                       void (*deleted)(GtkApplicationWindow *window, ClocheMachine *machine));
// Removes what was ticked, then the folders that are empty, as a job over PARENT.
void delete_dialog_carry_out(ClocheApp *app, ClocheMachine *machine, GtkWindow *parent);
// Its files are being removed: it is not shown any more.
gboolean delete_dialog_is_deleted(ClocheMachine *machine);

#endif
