// SPDX-License-Identifier: GPL-2.0-or-later
// A changed definition of a running machine: what can take effect at once does, the rest is named.
#ifndef CLOCHE_CONTROL_APPLY_H
#define CLOCHE_CONTROL_APPLY_H

#include "core/config/config.h"
#include "core/control/client.h"

// Brings the machine behind CLIENT from definition BEFORE to AFTER as far as a running machine goes: VNC, port
// forwards, media of CD-ROM and floppy drives, texts for people. Returns the options that wait for the next start
// ("memory", "disk0.file"; may be empty; free with g_strfreev()), or NULL and an error that says what the monitor
// refused; earlier changes stay then.
char **control_apply(struct control_client *client, struct config *before, struct config *after, GError **error);

#endif
