// SPDX-License-Identifier: GPL-2.0-or-later
// From a name on the command line to a machine and its monitor.
#include "core/control/life.h"
#include "ui/cli/cli.h"

struct library *cli_library(struct cli *cli, GError **error)
{
    if (!cli->library)
        cli->library = library_open(error);
    return cli->library;
}

struct machine_entry *cli_machine_named(struct cli *cli, const char *name, GError **error)
{
    struct machine_entry *entry = cli_library(cli, error) ? library_find(cli->library, name, error) : NULL;
    if (entry && entry->damage) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "The machine \"%s\" is damaged: %s", name,
                    entry->damage);
        return NULL;
    }
    return entry;
}

struct machine_entry *cli_machine(struct cli *cli, GError **error)
{
    return cli_machine_named(cli, cli_word(cli, 0), error);
}

struct control_client *cli_connect(struct cli *cli, struct machine_entry *entry,
                                   const struct control_handlers *handlers, GError **error)
{
    g_autoptr(GError) local = NULL;
    struct control_client *client = control_client_for_machine(entry->uuid, handlers, &local);
    if (client)
        return client;
    g_autoptr(machine_report_t) report = machine_report(entry->folder, entry->uuid);
    if (report->life == LIFE_RUNNING)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "\"%s\" is just starting or ending (%s); try again",
                    entry->name, local->message);
    else
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "\"%s\" is %s; start it with `clochectl start %s`",
                    entry->name, machine_life_name(report->life), entry->name);
    return NULL;
}

bool cli_do(struct cli *cli, const char *command, JsonObject *arguments, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    g_autoptr(control_client_t) client = entry ? cli_connect(cli, entry, NULL, error) : NULL;
    if (!client) {
        if (arguments)
            json_object_unref(arguments);
        return false;
    }
    g_autoptr(JsonNode) value = control_client_call(client, command, arguments, 60000, NULL, NULL, error);
    return value != NULL;
}
