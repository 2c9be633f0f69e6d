// SPDX-License-Identifier: GPL-2.0-or-later
// log, events, top.
#include "ui/cli/cli.h"
#include "ui/cli/commands.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

// ---- log ----

static bool do_log(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_library(cli, error) ? library_find(cli->library, cli_word(cli, 0), error) : NULL;
    if (!entry)
        return false;
    g_autofree char *path = g_build_filename(entry->folder, "log", "vm.log", NULL);
    FILE *file = fopen(path, "re");
    if (!file) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "\"%s\" has no log yet: it was never started",
                    entry->name);
        return false;
    }
    char line[4096];
    for (;;) {
        while (fgets(line, sizeof(line), file))
            fputs(line, stdout);
        fflush(stdout);
        if (!cli_option(cli, "follow"))
            break;
        clearerr(file);
        g_usleep(200000);
    }
    fclose(file);
    return true;
}

// ---- events ----

static void print_event(void *opaque, struct control_client *client, const char *event, JsonObject *data, int *fds,
                        unsigned fd_count)
{
    struct cli *cli = opaque;
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    json_node_set_object(node, data);
    g_autofree char *text = json_to_string(node, FALSE);
    json_node_unref(node);
    g_autofree char *time = cli_time(g_get_real_time() / G_USEC_PER_SEC);
    if (cli->json)
        printf("{\"event\":\"%s\",\"data\":%s}\n", event, text);
    else
        printf("%s  %s%s%s\n", time, event, strcmp(text, "{}") == 0 ? "" : "  ", strcmp(text, "{}") == 0 ? "" : text);
    fflush(stdout);
}

static bool do_events(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    struct control_handlers handlers = {.event = print_event, .opaque = cli};
    g_autoptr(control_client_t) client = entry ? cli_connect(cli, entry, &handlers, error) : NULL;
    if (!client)
        return false;
    control_client_wait_closed(client, 0);
    return true;
}

// ---- top ----

struct sample {
    gint64 when;
    int64_t cpu_ns, read_bytes, written_bytes, resident;
    char *engine;
};

static bool take_sample(struct machine_entry *entry, struct sample *sample)
{
    g_autoptr(control_client_t) client = control_client_for_machine(entry->uuid, NULL, NULL);
    g_autoptr(JsonNode) value =
        client ? control_client_call(client, "x-cloche-stats", NULL, 2000, NULL, NULL, NULL) : NULL;
    if (!value || !JSON_NODE_HOLDS_OBJECT(value))
        return false;
    JsonObject *stats = json_node_get_object(value);
    sample->when = g_get_monotonic_time();
    sample->cpu_ns = json_object_get_int_member_with_default(stats, "host-cpu-ns", 0);
    sample->read_bytes = json_object_get_int_member_with_default(stats, "disk-read-bytes", 0);
    sample->written_bytes = json_object_get_int_member_with_default(stats, "disk-written-bytes", 0);
    sample->resident = json_object_get_int_member_with_default(stats, "resident-bytes", 0);
    sample->engine = g_strdup(json_object_get_string_member_with_default(stats, "engine", "-"));
    return true;
}

static void add_top_row(struct cli_table *table, JsonArray *list, struct machine_entry *entry,
                        const struct sample *before, const struct sample *now)
{
    double seconds = MAX(now->when - before->when, 1) / 1e6;
    double cpu = (now->cpu_ns - before->cpu_ns) / 1e7 / seconds;
    int64_t read_rate = (now->read_bytes - before->read_bytes) / seconds,
            write_rate = (now->written_bytes - before->written_bytes) / seconds;
    g_autofree char *percent = g_strdup_printf("%.1f", cpu), *memory = cli_size(now->resident);
    g_autofree char *reading = cli_size(read_rate), *writing = cli_size(write_rate);
    g_autofree char *read_text = g_strconcat(reading, "/s", NULL), *write_text = g_strconcat(writing, "/s", NULL);
    cli_table_add(table, entry->name, percent, memory, read_text, write_text, now->engine, NULL);
    JsonObject *object =
        control_arguments("s:name", entry->name, "s:engine", now->engine, "i:resident-bytes", now->resident,
                          "i:read-bytes-per-second", read_rate, "i:written-bytes-per-second", write_rate, NULL);
    json_object_set_double_member(object, "cpu-percent", cpu);
    json_array_add_object_element(list, object);
}

static bool print_top(struct cli *cli, GError **error)
{
    GPtrArray *entries = library_entries(cli->library);
    g_autofree struct sample *before = g_new0(struct sample, entries->len + 1),
                             *now = g_new0(struct sample, entries->len + 1);
    struct cli_table *table = cli_table_new("NAME", "CPU %", "MEMORY", "READING", "WRITING", "ENGINE", NULL);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < entries->len; i++)
        if (((struct machine_entry *)entries->pdata[i])->uuid)
            take_sample(entries->pdata[i], &before[i]);
    g_usleep(G_USEC_PER_SEC);
    for (unsigned i = 0; i < entries->len; i++) {
        if (before[i].when && take_sample(entries->pdata[i], &now[i]))
            add_top_row(table, list, entries->pdata[i], &before[i], &now[i]);
        g_free(before[i].engine);
        g_free(now[i].engine);
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

static bool do_top(struct cli *cli, GError **error)
{
    if (!cli_library(cli, error))
        return false;
    bool screen = isatty(STDOUT_FILENO) && !cli->json && !cli_option(cli, "once");
    do {
        if (screen)
            fputs("\033[H\033[J", stdout);
        if (!print_top(cli, error))
            return false;
        fflush(stdout);
        library_scan(cli->library);
    } while (screen);
    return true;
}

static const struct cli_option log_options[] = {{"follow", NULL, "go on as it grows"}, {NULL, NULL, NULL}};
static const struct cli_option top_options[] = {{"once", NULL, "print once"}, {NULL, NULL, NULL}};

const struct cli_command cli_watch_commands[] = {
    {"log", "NAME", 1, 1, log_options, do_log, "prints the log of the last run", "m"},
    {"events", "NAME", 1, 1, NULL, do_events, "prints what happens to a running machine until it ends", "m"},
    {"top", "", 0, 0, top_options, do_top, "shows what running machines use", ""},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
