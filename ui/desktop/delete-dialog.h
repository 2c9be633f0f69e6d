// SPDX-License-Identifier: GPL-2.0-or-later
// Asks what to delete of a machine: every file of its folder with size and a tick box, images elsewhere left unticked.
#ifndef CLOCHE_DESKTOP_DELETE_DIALOG_H
#define CLOCHE_DESKTOP_DELETE_DIALOG_H

#include "ui/desktop/machine-object.h"

// DELETED is called if the person confirmed; what to remove is remembered with MACHINE until machine_delete_files().
void delete_dialog_ask(ClocheMachine *machine, GtkApplicationWindow *parent,
                       void (*deleted)(GtkApplicationWindow *window, ClocheMachine *machine));
// Removes what was ticked, then the folders that are empty.
gboolean delete_dialog_carry_out(ClocheMachine *machine, GError **error);

#endif
