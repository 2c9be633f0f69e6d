// SPDX-License-Identifier: GPL-2.0-or-later
// doctor, and the words for shell completion.
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

// ---- Completion: `clochectl complete WORDS...` prints what may stand in place of the last word ----

static void print_matching(const char *candidate, const char *prefix)
{
    if (g_str_has_prefix(candidate, prefix))
        puts(candidate);
}

static void complete_command(const char *const *words, unsigned count)
{
    const char *prefix = words[count - 1];
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (const struct cli_command *const *table = cli_tables; *table; table++)
        for (const struct cli_command *command = *table; command->name; command++) {
            const char *space = strchr(command->name, ' ');
            g_autofree char *first = space ? g_strndup(command->name, space - command->name) : g_strdup(command->name);
            const char *word = count == 1 ? first : space && strcmp(first, words[0]) == 0 ? space + 1 : NULL;
            if (word && g_hash_table_add(seen, g_strdup(word)))
                print_matching(word, prefix);
        }
}

static void complete_machine(struct cli *cli, const char *prefix)
{
    GPtrArray *entries = cli_library(cli, NULL) ? library_entries(cli->library) : NULL;
    for (unsigned i = 0; entries && i < entries->len; i++)
        print_matching(((struct machine_entry *)entries->pdata[i])->name, prefix);
}

static void complete_group(struct cli *cli, const char *prefix)
{
    GPtrArray *entries = cli_library(cli, NULL) ? library_entries(cli->library) : NULL;
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (unsigned i = 0; entries && i < entries->len; i++) {
        struct machine_entry *entry = entries->pdata[i];
        char *group = entry->config ? config_get(entry->config, "Machine", "group") : g_strdup("");
        if (g_hash_table_add(seen, group) && group[0])
            print_matching(group, prefix);
    }
}

static void complete_settings(const char *prefix)
{
    for (size_t i = 0; i < options_count; i++) {
        g_autofree char *text = options_table[i].name ? g_strconcat(options_table[i].name, "=", NULL) : NULL;
        if (text)
            print_matching(text, prefix);
    }
}

static bool do_complete(struct cli *cli, GError **error)
{
    const char *const *words = (const char *const *)cli->words->pdata;
    unsigned count = cli->words->len, used = 0;
    const char *prefix = words[count - 1];
    const struct cli_command *command = count > 1 ? cli_find_command(words, count - 1, &used) : NULL;
    if (!command || (count == 2 && used == 1))
        complete_command(words, count);
    if (!command)
        return true;
    if (strcmp(words[count - 2], "--group") == 0) {
        complete_group(cli, prefix);
        return true;
    }
    if (g_str_has_prefix(prefix, "--")) {
        for (const struct cli_option *option = command->options; option && option->name; option++) {
            g_autofree char *text = g_strconcat("--", option->name, NULL);
            print_matching(text, prefix);
        }
        return true;
    }
    unsigned index = count - used - 1, last = command->completes[0] ? strlen(command->completes) - 1 : 0;
    char kind = command->completes[MIN(index, last)];
    if (kind == 'm')
        complete_machine(cli, prefix);
    else if (kind == 'o')
        complete_settings(prefix);
    return true;
}

const struct cli_command cli_host_commands[] = {
    {"doctor", "", 0, 0, NULL, do_doctor, "tells what this host offers: engines with the measured reason, limits", ""},
    {"complete", "WORDS...", 1, 64, NULL, do_complete, "prints completions of the last word (for shells)", ""},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
