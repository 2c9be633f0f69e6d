// SPDX-License-Identifier: GPL-2.0-or-later
// One machine in the library's list (a row) or grid (a tile): thumbnail, name, group, state.
#ifndef CLOCHE_DESKTOP_MACHINE_ROW_H
#define CLOCHE_DESKTOP_MACHINE_ROW_H

#include "ui/desktop/machine-object.h"

G_BEGIN_DECLS

#define CLOCHE_TYPE_MACHINE_ROW (cloche_machine_row_get_type())
G_DECLARE_FINAL_TYPE(ClocheMachineRow, cloche_machine_row, CLOCHE, MACHINE_ROW, GtkEventBox)

GtkWidget *cloche_machine_row_new(ClocheMachine *machine, gboolean tile);
ClocheMachine *cloche_machine_row_get_machine(ClocheMachineRow *self);

G_END_DECLS

#endif
