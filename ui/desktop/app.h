// SPDX-License-Identifier: GPL-2.0-or-later
// The application: the library as a list of ClocheMachine, the windows, preferences.
#ifndef CLOCHE_DESKTOP_APP_H
#define CLOCHE_DESKTOP_APP_H

#include "core/config/library.h"
#include "ui/desktop/machine-object.h"

G_BEGIN_DECLS

#define CLOCHE_TYPE_APP (cloche_app_get_type())
G_DECLARE_FINAL_TYPE(ClocheApp, cloche_app, CLOCHE, APP, GtkApplication)

ClocheApp *cloche_app_new(void);
GListModel *cloche_app_get_machines(ClocheApp *self); // of ClocheMachine, owned by SELF
struct library *cloche_app_get_library(ClocheApp *self);
// Looks at the library's folders now (file monitors do it by themselves a little later).
void cloche_app_rescan(ClocheApp *self);
ClocheMachine *cloche_app_find(ClocheApp *self, const char *folder); // NULL: none
// One console window per machine: opens it or brings it to the front.
void cloche_app_open_console(ClocheApp *self, ClocheMachine *machine);
void cloche_app_open_settings(ClocheApp *self, ClocheMachine *machine, GtkWindow *parent);
void cloche_app_open_snapshots(ClocheApp *self, ClocheMachine *machine, GtkWindow *parent);
// The assistant made MACHINE: selects it, opens its settings if CUSTOMISE, else starts it with its console.
void cloche_app_created(ClocheApp *self, ClocheMachine *machine, gboolean customise);
// Preferences, kept in $XDG_CONFIG_HOME/cloche/desktop.conf.
GKeyFile *cloche_app_get_preferences(ClocheApp *self);
// Keeps them, and tells the consoles.
void cloche_app_save_preferences(ClocheApp *self);

G_END_DECLS

#endif
