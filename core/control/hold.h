// SPDX-License-Identifier: GPL-2.0-or-later
// The monitor's side of a defined machine: the lock on its folder, its run-time folder, its log, the record of this
// run, resuming from and suspending to disk.
//
// In the machine's folder: ".lock" (held while it runs), "log/vm.log" (and older ones), "last-run" (how the last run
// ended), "saved/" (state and RAM of a suspended machine).
#ifndef CLOCHE_HOLD_H
#define CLOCHE_HOLD_H

#include "core/machine/machine.h"
#include "core/machine/options.h"

struct machine_hold;

// Takes hold of the machine in FOLDER and reads its definition. CLOCHE_ERROR_BUSY when it runs already.
struct machine_hold *machine_hold_open(const char *folder, GError **error);
// The description to build it from: control socket, serial console and what is to be resumed included. Owned by the
// hold.
struct machine_options *machine_hold_options(struct machine_hold *hold);
// After machine_new(), before machine_start(): puts the suspended or restored state in place, if there is one, and
// marks it as used: it is never resumed twice.
bool machine_hold_resume(struct machine_hold *hold, struct machine *machine, GError **error);
// Suspends to disk: the machine is PAUSED then and can be quit. Main loop thread, machine lock not held.
bool machine_hold_suspend(struct machine_hold *hold, struct machine *machine, GError **error);
const char *machine_hold_folder(struct machine_hold *hold);
// Writes how the run ended and lets go. REASON: a sentence, or NULL.
void machine_hold_close(struct machine_hold *hold, const char *reason, int status);

#endif
