// SPDX-License-Identifier: GPL-2.0-or-later
// Tooltips for menu items made from a GMenuModel: an item that is greyed says why, and what helps.
#ifndef CLOCHE_DESKTOP_MENU_TIPS_H
#define CLOCHE_DESKTOP_MENU_TIPS_H

#include <gtk/gtk.h>

// The sentence for ACTION ("win.pause"), NULL for none; it is copied.
typedef const char *menu_tip_fn(const char *action, gpointer data);
// Sets the tooltips of every item of SHELL (made from MODEL) and of its submenus.
void menu_tips_set(GtkMenuShell *shell, GMenuModel *model, menu_tip_fn *tip, gpointer data);
// The same for the buttons with an action below CONTAINER that have no tooltip of their own.
void menu_tips_set_buttons(GtkWidget *container, menu_tip_fn *tip, gpointer data);

#endif
