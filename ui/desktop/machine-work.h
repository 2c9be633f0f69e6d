// SPDX-License-Identifier: GPL-2.0-or-later
// Long or failing work on machines, each as a job with progress and Cancel: snapshots, clones, export, import, reports.
#ifndef CLOCHE_DESKTOP_MACHINE_WORK_H
#define CLOCHE_DESKTOP_MACHINE_WORK_H

#include "ui/desktop/app.h"

void work_rename(ClocheApp *app, ClocheMachine *machine, const char *name, GtkWindow *parent);
void work_report(ClocheMachine *machine,
                 GtkWindow *parent); // asks for the file: configuration, log, last run, versions

// Snapshots: of a running machine by its monitor, of one that is off on its files. DONE (may be NULL) runs after
// success with OBJECT (a GObject, may be NULL), unless that is gone by then.
typedef void work_done_fn(gpointer object);
void work_take_snapshot(ClocheMachine *machine, const char *name, const char *note, GtkWindow *parent,
                        work_done_fn *done, gpointer object);
// The same, after asking for name and note.
void work_ask_snapshot(ClocheMachine *machine, GtkWindow *parent, work_done_fn *done, gpointer object);
// FIRST: a snapshot of the present state is taken under this name before; NULL: the present state is dropped.
void work_restore_snapshot(ClocheMachine *machine, const char *id, const char *first, GtkWindow *parent,
                           work_done_fn *done, gpointer object);
// The same, after asking whether to keep the present state first.
void work_ask_restore(ClocheMachine *machine, const char *id, const char *name, GtkWindow *parent, work_done_fn *done,
                      gpointer object);
void work_delete_snapshot(ClocheMachine *machine, const char *id, GtkWindow *parent, work_done_fn *done,
                          gpointer object);

// SNAPSHOT (name or id) NULL: the present state of a machine that is off.
void work_clone(ClocheApp *app, ClocheMachine *machine, const char *name, gboolean linked, const char *snapshot,
                GtkWindow *parent);
void work_export(ClocheApp *app, ClocheMachine *machine, GtkWindow *parent); // asks for the file
void work_import(ClocheApp *app, GtkWindow *parent);                         // asks for the file
void work_import_file(ClocheApp *app, const char *file, GtkWindow *parent);

#endif
