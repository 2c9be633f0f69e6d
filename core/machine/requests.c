// SPDX-License-Identifier: GPL-2.0-or-later
// Which request is legal in which run state: the one table behind QMP, menus and the command line.
#include "core/machine/machine.h"

static const char *const state_names[] = {
    [RUN_STATE_PRELAUNCH] = "prelaunch",
    [RUN_STATE_RUNNING] = "running",
    [RUN_STATE_PAUSED] = "paused",
    [RUN_STATE_SAVING] = "save-vm",
    [RUN_STATE_RESTORING] = "restore-vm",
    [RUN_STATE_IO_ERROR] = "io-error",
    [RUN_STATE_INTERNAL_ERROR] = "internal-error",
    [RUN_STATE_GUEST_PANICKED] = "guest-panicked",
    [RUN_STATE_SHUTDOWN] = "shutdown",
};

const char *run_state_name(enum run_state state)
{
    return state < G_N_ELEMENTS(state_names) ? state_names[state] : "unknown";
}

#define S(name) (1u << RUN_STATE_##name)
#define ALIVE   (S(PRELAUNCH) | S(RUNNING) | S(PAUSED) | S(IO_ERROR))
#define ANY     (ALIVE | S(SAVING) | S(RESTORING) | S(INTERNAL_ERROR) | S(GUEST_PANICKED) | S(SHUTDOWN))

const struct machine_request_rule machine_request_rules[MACHINE_REQUEST_COUNT] = {
    [MACHINE_REQUEST_START] = {"start", S(PRELAUNCH), "A machine can be started once, when it has just been built."},
    [MACHINE_REQUEST_PAUSE] = {"pause", S(RUNNING), "Only a running machine can be paused: start or resume it first."},
    [MACHINE_REQUEST_RESUME] = {"resume", S(PAUSED) | S(IO_ERROR),
                                "Only a paused machine can be resumed; after an internal error or a panic reset it."},
    [MACHINE_REQUEST_RESET] = {"reset", ALIVE | S(INTERNAL_ERROR) | S(GUEST_PANICKED),
                               "A machine can be reset unless it is saving, restoring or switched off."},
    [MACHINE_REQUEST_POWER_BUTTON] = {"press the power button of", S(RUNNING),
                                      "The power button works only while the guest runs: resume the machine first."},
    [MACHINE_REQUEST_QUIT] = {"quit", ANY, "A machine can be switched off at any time."},
    [MACHINE_REQUEST_SAVE] = {"save", S(RUNNING) | S(PAUSED),
                              "Only a running or paused machine can be saved: start it first."},
    [MACHINE_REQUEST_LOAD] = {"restore", S(PRELAUNCH) | S(PAUSED),
                              "State is restored into a new or paused machine: pause it first."},
    [MACHINE_REQUEST_SNAPSHOT] = {"take a snapshot of", S(PRELAUNCH) | S(RUNNING) | S(PAUSED),
                                  "A snapshot needs a machine that is new, running or paused."},
};

bool machine_request_legal(struct machine *machine, enum machine_request request, GError **error)
{
    const struct machine_request_rule *rule = &machine_request_rules[request];
    if (rule->legal_states >> machine->state & 1)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "Cannot %s the machine while its state is %s. %s", rule->name,
                run_state_name(machine->state), rule->sentence);
    return false;
}
