// SPDX-License-Identifier: GPL-2.0-or-later
// A program's side of a defined machine's life: is it off, running, saved or crashed; starting its monitor.
#ifndef CLOCHE_LIFE_H
#define CLOCHE_LIFE_H

#include "core/base/base.h"
#include "core/control/client.h"

enum machine_life {
    LIFE_OFF,
    LIFE_SAVED,   // suspended to disk, or about to go on from a snapshot
    LIFE_RUNNING, // its monitor lives (paused or not: ask it)
    LIFE_CRASHED, // its monitor ended without saying why
    LIFE_BUSY,    // a tool works on its files
};
const char *machine_life_name(enum machine_life life); // "off", "saved", "running", "crashed", "busy"

typedef struct machine_report machine_report_t;
struct machine_report {
    enum machine_life life;
    int pid;                // of the monitor, while it lives
    int64_t started, ended; // seconds since 1970, 0: unknown
    int status;             // of the last run's end
    char *reason;           // for people: how the last run ended, or NULL
};
// Looks at FOLDER; never blocks on the machine. UUID may be NULL. Free with machine_report_free().
struct machine_report *machine_report(const char *folder, const char *uuid);
void machine_report_free(struct machine_report *report);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(machine_report_t, machine_report_free)

// Called once from the thread's default main context: ERROR NULL when the monitor answers on its socket.
typedef void machine_started_fn(void *opaque, const GError *error);
struct machine_starter;
// Starts the monitor of the machine in FOLDER in a process of its own that outlives this one. PAUSED: it does not run
// yet. NULL with an error when it runs already or the program is missing.
struct machine_starter *machine_start_process(const char *folder, const char *uuid, bool paused,
                                              machine_started_fn *done, void *opaque, GError **error);
// Forgets a start under way (the monitor itself goes on).
void machine_starter_free(struct machine_starter *starter);
// The same for programs without a main loop of their own: returns when it answers.
bool machine_start_process_sync(const char *folder, const char *uuid, bool paused, GError **error);

// The monitor's program: CLOCHE_VM in the environment, or beside this program, or installed. Free with g_free().
char *machine_program(void);

#endif
