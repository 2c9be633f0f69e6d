// SPDX-License-Identifier: GPL-2.0-or-later
// start, stop, pause, resume, reset, save.
#include "ui/cli/cli.h"
#include "ui/cli/commands.h"

#include <stdio.h>

static bool do_start(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    if (!entry)
        return false;
    if (entry->template_) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "\"%s\" is a template; make a machine of it with: clochectl clone %s NAME --linked", entry->name,
                    entry->name);
        return false;
    }
    g_autoptr(machine_report_t) report = machine_report(entry->folder, entry->uuid);
    if (!machine_start_process_sync(entry->folder, entry->uuid, cli_option(cli, "paused") != NULL, error))
        return false;
    cli_say(cli, "%s \"%s\"", report->life == LIFE_SAVED ? "Resumed" : "Started", entry->name);
    return true;
}

// Waits until the monitor has ended. A minute is what a guest may take; the caller says how long.
static bool wait_end(struct control_client *client, struct machine_entry *entry, unsigned seconds, GError **error)
{
    if (!control_client_wait_closed(client, seconds * 1000)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "\"%s\" did not shut down within %u seconds; it may ask a question on its screen, or use --force",
                    entry->name, seconds);
        return false;
    }
    for (unsigned i = 0; i < 3000; i++) { // its files are free a moment later
        g_autoptr(machine_report_t) report = machine_report(entry->folder, entry->uuid);
        if (report->life != LIFE_RUNNING && report->life != LIFE_BUSY)
            return true;
        g_usleep(10000);
    }
    return true;
}

static bool end_machine(struct cli *cli, const char *command, unsigned seconds, const char *said, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    g_autoptr(control_client_t) client = entry ? cli_connect(cli, entry, NULL, error) : NULL;
    if (!client)
        return false;
    g_autoptr(GError) local = NULL;
    g_autoptr(JsonNode) value = control_client_call(client, command, NULL, 600000, NULL, NULL, &local);
    if (!value && !control_client_closed(client)) { // it may have ended before it could answer
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    if (!wait_end(client, entry, seconds, error))
        return false;
    cli_say(cli, "%s \"%s\"", said, entry->name);
    return true;
}

static bool do_stop(struct cli *cli, GError **error)
{
    if (cli_option(cli, "force"))
        return end_machine(cli, "quit", 30, "Switched off", error);
    guint64 seconds = 60;
    const char *timeout = cli_option(cli, "timeout");
    if (timeout && !g_ascii_string_to_unsigned(timeout, 10, 1, 86400, &seconds, NULL)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "--timeout %s: give seconds from 1 to 86400", timeout);
        return false;
    }
    return end_machine(cli, "system_powerdown", seconds, "Shut down", error);
}

static bool do_save(struct cli *cli, GError **error)
{
    return end_machine(cli, "x-cloche-suspend", 60, "Saved", error);
}

static bool do_pause(struct cli *cli, GError **error)
{
    return cli_do(cli, "stop", NULL, error);
}

static bool do_resume(struct cli *cli, GError **error)
{
    return cli_do(cli, "cont", NULL, error);
}

static bool do_reset(struct cli *cli, GError **error)
{
    return cli_do(cli, "system_reset", NULL, error);
}

static const struct cli_option start_options[] = {{"paused", NULL, "do not run the processors yet"},
                                                  {NULL, NULL, NULL}};
static const struct cli_option stop_options[] = {
    {"force", NULL, "switch it off at once: the guest may lose data"},
    {"timeout", "SECONDS", "how long the guest may take (60)"},
    {NULL, NULL, NULL},
};

const struct cli_command cli_life_commands[] = {
    {"start", "NAME", 1, 1, start_options, do_start, "starts a machine, or resumes a saved one", "m"},
    {"stop", "NAME", 1, 1, stop_options, do_stop, "presses the power button and waits; --force switches off", "m"},
    {"pause", "NAME", 1, 1, NULL, do_pause, "pauses a running machine", "m"},
    {"resume", "NAME", 1, 1, NULL, do_resume, "lets a paused machine run on", "m"},
    {"reset", "NAME", 1, 1, NULL, do_reset, "presses the reset button", "m"},
    {"save", "NAME", 1, 1, NULL, do_save, "saves a machine to disk and ends it; start goes on there", "m"},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
