// SPDX-License-Identifier: GPL-2.0-or-later
#ifndef CLOCHE_DESKTOP_CONSOLE_KEYS_H
#define CLOCHE_DESKTOP_CONSOLE_KEYS_H

#include "ui/desktop/machine-object.h"

// Appends the usual combinations, each as win.send-key('ctrl alt delete'), and win.send-custom-key.
void console_keys_fill(GMenu *menu);
// The arguments of the control command send-key for QKeyCode names separated by spaces.
JsonObject *console_keys_arguments(const char *keys);
// Asks for such names over WINDOW and sends them to MACHINE.
void console_keys_ask(ClocheMachine *machine, GtkWindow *window);

#endif
