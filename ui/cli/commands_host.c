// SPDX-License-Identifier: GPL-2.0-or-later
// doctor.
#include "core/config/host.h"
#include "ui/cli/cli.h"
#include "ui/cli/commands.h"

#include <stdio.h>
#include <string.h>

// The monitor says which engines work here: it measures them (lines "NAME: REASON" of `cloche-vm --list-engines`).
static void add_engines(struct cli_table *table, JsonArray *list)
{
    g_autofree char *program = machine_program(), *output = NULL;
    int status = 1;
    const char *arguments[] = {program, "--list-engines", NULL};
    if (!program ||
        !g_spawn_sync(NULL, (char **)arguments, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &output, NULL, &status,
                      NULL) ||
        status != 0) {
        cli_table_add(table, "engines", "missing",
                      program ? "cloche-vm does not tell its engines" : "cloche-vm is not installed", NULL);
        return;
    }
    g_auto(GStrv) lines = g_strsplit(output, "\n", -1);
    for (char **line = lines; *line && **line; line++) {
        char *colon = strstr(*line, ": ");
        if (!colon)
            continue;
        *colon = 0;
        const char *text = colon + 2, *verdict = g_str_has_prefix(text, "works") ? "good" : "missing";
        g_autofree char *title = g_strdup_printf("Engine \"%s\"", *line);
        cli_table_add(table, title, verdict, text, NULL);
        json_array_add_object_element(
            list, control_arguments("s:name", *line, "s:title", title, "s:verdict", verdict, "s:text", text, NULL));
    }
}

static bool do_doctor(struct cli *cli, GError **error)
{
    if (!cli_library(cli, error))
        return false;
    g_autoptr(GPtrArray) findings = host_probe(library_main_folder(cli->library));
    JsonArray *list = json_array_new();
    struct cli_table *table = cli_table_new("WHAT", "VERDICT", "FOUND", NULL);
    add_engines(table, list);
    for (unsigned i = 0; i < findings->len; i++) {
        const struct host_finding *finding = findings->pdata[i];
        cli_table_add(table, finding->title, host_verdict_name(finding->verdict), finding->text, NULL);
        json_array_add_object_element(list, control_arguments("s:name", finding->name, "s:title", finding->title,
                                                              "s:verdict", host_verdict_name(finding->verdict),
                                                              "s:text", finding->text, NULL));
    }
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, list);
    if (cli->json) {
        cli_print_json(node);
        return true;
    }
    json_node_unref(node);
    cli_table_print(table);
    return true;
}

const struct cli_command cli_host_commands[] = {
    {"doctor", "", 0, 0, NULL, do_doctor, "tells what this host offers: engines with the measured reason, limits", ""},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
