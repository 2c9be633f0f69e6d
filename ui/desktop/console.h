// SPDX-License-Identifier: GPL-2.0-or-later
// The console window of one machine: screen, menus, full screen with its bar, status bar, serial terminal.
#ifndef CLOCHE_DESKTOP_CONSOLE_H
#define CLOCHE_DESKTOP_CONSOLE_H

#include "ui/desktop/app.h"

G_BEGIN_DECLS

#define CLOCHE_TYPE_CONSOLE (cloche_console_get_type())
G_DECLARE_FINAL_TYPE(ClocheConsole, cloche_console, CLOCHE, CONSOLE, GtkApplicationWindow)

GtkWidget *cloche_console_new(ClocheApp *app, ClocheMachine *machine);
ClocheMachine *cloche_console_get_machine(ClocheConsole *self);
ClocheDisplay *cloche_console_get_display(ClocheConsole *self);
void cloche_console_follow_preferences(ClocheConsole *self); // those that hold for open consoles too

G_END_DECLS

#endif
