// SPDX-License-Identifier: GPL-2.0-or-later
// The whole machine's state without its RAM and disks: clock, processors, local APICs, devices; a file of named
// sections with a checksum.
#ifndef CLOCHE_MACHINE_STATE_H
#define CLOCHE_MACHINE_STATE_H

#include "core/machine/machine.h"

#define STATE_FILE_VERSION 1
#define STATE_MAX_FILE     (512 * MiB)

// True when every device can be saved; else the error names the one that cannot.
bool machine_state_savable(struct machine *machine, GError **error);
// Parks the processors and stops the clock; the run state stays. Returns whether they ran. Main loop thread, machine
// lock not held.
bool machine_state_park(struct machine *machine);
void machine_state_unpark(struct machine *machine, bool ran);
// Devices finish or park their work, drives are drained. Machine lock held, processors parked.
void machine_state_quiesce(struct machine *machine);

// Appends the state to OUT. Parked, quiesced, machine lock held.
bool machine_state_save(struct machine *machine, GByteArray *out, GError **error);
// Puts it into a machine of the same make: same memory size, processors and devices. Machine lock held, processors
// parked, RAM already loaded. On failure the machine must not be run (the caller resets it).
bool machine_state_load(struct machine *machine, const void *data, size_t length, GError **error);
// All of it as text, for people and for comparing: by what is in MACHINE now.
char *machine_state_print(struct machine *machine);
// Of one device: its fields as text appended to OUT.
void machine_state_print_device(const struct device *device, GString *out);

// Saves and loads STATE and RAM of a whole standing machine in FOLDER ("state", "ram"): suspend to disk. Main loop
// thread.
struct progress;
bool machine_state_write_folder(struct machine *machine, const char *folder, struct progress *progress, GError **error);
// FRESH: the machine has not run yet: its RAM is mapped, not read. The run state stays as it is.
bool machine_state_read_folder(struct machine *machine, const char *folder, bool fresh, GError **error);
// After it, where FOLDER stays: notes there soon which pages the machine needed first. Main loop thread.
void machine_state_record_needs(struct machine *machine, const char *folder);

#endif
