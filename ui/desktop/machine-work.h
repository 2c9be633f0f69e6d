// SPDX-License-Identifier: GPL-2.0-or-later
// Long or failing work on machines, each as a job with progress and Cancel: renaming, reports.
#ifndef CLOCHE_DESKTOP_MACHINE_WORK_H
#define CLOCHE_DESKTOP_MACHINE_WORK_H

#include "ui/desktop/app.h"

void work_rename(ClocheApp *app, ClocheMachine *machine, const char *name, GtkWindow *parent);
void work_report(ClocheMachine *machine, GtkWindow *parent); // asks for the file: configuration, log, exit status, versions

#endif
