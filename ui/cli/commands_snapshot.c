// SPDX-License-Identifier: GPL-2.0-or-later
// snapshot take|list|restore|delete|rename|export, clone, template, export, import.
#include "core/config/clone.h"
#include "core/config/snapshot.h"
#include "ui/cli/cli.h"
#include "ui/cli/commands.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

// ---- Jobs of a running machine ----

struct remote_job {
    struct control_client *client;
    const char *id, *command;
    JsonObject *arguments;
};

static bool remote_work(void *opaque, struct progress *progress, GError **error)
{
    struct remote_job *remote = opaque;
    return control_client_run_job(remote->client, remote->id, remote->command, remote->arguments, progress, error);
}

// COMMAND with job-id, tag and note on the running machine, to its end.
static bool run_remote(struct cli *cli, struct machine_entry *entry, const char *command, const char *tag,
                       const char *note, const char *title, GError **error)
{
    g_autofree char *id = g_strdup_printf("clochectl-%d", (int)getpid());
    g_autoptr(control_client_t) client = cli_connect(cli, entry, NULL, error);
    struct remote_job remote = {client, id, command, NULL};
    if (!client)
        return false;
    remote.arguments = control_arguments("s:tag", tag, "s:x-cloche-note", note, NULL);
    return cli_run_work(cli, title, remote_work, &remote, error);
}

static bool is_running(struct machine_entry *entry)
{
    g_autoptr(machine_report_t) report = machine_report(entry->folder, entry->uuid);
    return report->life == LIFE_RUNNING;
}

// ---- snapshot ----

static bool do_take(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    const char *name = cli_word(cli, 1), *note = cli_option(cli, "note");
    if (!entry)
        return false;
    if (is_running(entry))
        return run_remote(cli, entry, "snapshot-save", name, note, "Taking", error);
    cli_keep_whole();
    int lock = machine_folder_lock(entry->folder, error);
    if (lock < 0)
        return false;
    bool good = snapshot_take(entry->folder, name, note, error);
    close(lock);
    return good;
}

static JsonNode *snapshots_json(GPtrArray *list)
{
    JsonArray *array = json_array_new();
    for (unsigned i = 0; i < list->len; i++) {
        const struct snapshot *snapshot = list->pdata[i];
        JsonObject *object =
            control_arguments("s:name", snapshot->name, "s:id", snapshot->id, "s:note", snapshot->note, "s:parent",
                              snapshot->parent, "i:time", snapshot->time, "b:state", snapshot->has_state, "b:current",
                              snapshot->current, "i:memory-bytes", (int64_t)snapshot->memory_bytes, "i:disk-bytes",
                              (int64_t)snapshot->disk_bytes, "s:folder", snapshot->folder, NULL);
        json_array_add_object_element(array, object);
    }
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, array);
    return node;
}

static bool parent_is_listed(GPtrArray *list, const struct snapshot *snapshot)
{
    for (unsigned i = 0; i < list->len; i++)
        if (strcmp(((struct snapshot *)list->pdata[i])->id, snapshot->parent) == 0)
            return true;
    return false;
}

// The children of PARENT (NULL: the roots), each below its parent. DEPTH bounds damaged trees.
static void add_rows(struct cli_table *table, GPtrArray *list, const char *parent, unsigned depth)
{
    for (unsigned i = 0; i < list->len && depth < 200; i++) {
        const struct snapshot *snapshot = list->pdata[i];
        bool root = !parent_is_listed(list, snapshot);
        if (parent ? strcmp(snapshot->parent, parent) != 0 : !root)
            continue;
        g_autofree char *name = g_strdup_printf("%*s%s%s", (int)depth * 2, "", snapshot->name,
                                                snapshot->current ? "  <- present state" : "");
        g_autofree char *time = cli_time(snapshot->time), *memory = cli_size(snapshot->memory_bytes);
        g_autofree char *disks = cli_size(snapshot->disk_bytes);
        cli_table_add(table, name, time, snapshot->has_state ? memory : "off", disks, snapshot->note, NULL);
        add_rows(table, list, snapshot->id, depth + 1);
    }
}

static bool do_snapshot_list(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    if (!entry)
        return false;
    g_autoptr(GPtrArray) list = snapshot_list(entry->folder);
    if (cli->json) {
        cli_print_json(snapshots_json(list));
        return true;
    }
    struct cli_table *table = cli_table_new("SNAPSHOT", "TIME", "MEMORY", "DISKS", "NOTE", NULL);
    add_rows(table, list, NULL, 0);
    cli_table_print(table);
    return true;
}

static bool do_restore(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    if (!entry)
        return false;
    if (is_running(entry))
        return run_remote(cli, entry, "snapshot-load", cli_word(cli, 1), NULL, "Restoring", error);
    g_autoptr(GPtrArray) list = snapshot_list(entry->folder);
    struct snapshot *snapshot = snapshot_find(list, cli_word(cli, 1), error);
    int lock = snapshot ? machine_folder_lock(entry->folder, error) : -1;
    if (lock < 0)
        return false;
    cli_keep_whole();
    bool good = snapshot_restore(entry->folder, snapshot, error);
    close(lock);
    if (good)
        cli_say(cli, "Restored \"%s\"; `clochectl start %s` goes on from there", snapshot->name, entry->name);
    return good;
}

struct local_work {
    struct cli *cli;
    struct machine_entry *entry;
    struct snapshot *snapshot;
    const char *path;
};

static bool delete_work(void *opaque, struct progress *progress, GError **error)
{
    struct local_work *work = opaque;
    return snapshot_delete(work->entry->folder, work->snapshot, false, work->cli->library, progress, error);
}

static bool do_delete(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    if (!entry)
        return false;
    if (is_running(entry))
        return run_remote(cli, entry, "snapshot-delete", cli_word(cli, 1), NULL, "Deleting", error);
    g_autoptr(GPtrArray) list = snapshot_list(entry->folder);
    struct local_work work = {cli, entry, snapshot_find(list, cli_word(cli, 1), error), NULL};
    int lock = work.snapshot ? machine_folder_lock(entry->folder, error) : -1;
    if (lock < 0)
        return false;
    bool good = cli_run_work(cli, "Merging", delete_work, &work, error);
    close(lock);
    return good;
}

static bool do_snapshot_rename(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    g_autoptr(GPtrArray) list = entry ? snapshot_list(entry->folder) : NULL;
    struct snapshot *snapshot = list ? snapshot_find(list, cli_word(cli, 1), error) : NULL;
    cli_keep_whole();
    return snapshot && snapshot_rename(entry->folder, snapshot, cli_word(cli, 2), cli_option(cli, "note"), error);
}

// ---- clone, template ----

struct clone_work {
    struct cli *cli;
    struct machine_entry *entry;
    struct clone_options options;
};

static bool clone_work_run(void *opaque, struct progress *progress, GError **error)
{
    struct clone_work *work = opaque;
    return machine_clone(work->cli->library, work->entry, &work->options, progress, error);
}

static bool do_clone(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    struct clone_work work = {
        cli, entry, {cli_word(cli, 1), cli_option(cli, "linked") != NULL, cli_option(cli, "snapshot")}};
    if (!entry || !cli_run_work(cli, "Cloning", clone_work_run, &work, error))
        return false;
    cli_say(cli, "Cloned to \"%s\"", cli_word(cli, 1));
    return true;
}

// A snapshot as a machine of its own: a full clone of it.
static bool do_snapshot_export(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    struct clone_work work = {cli, entry, {cli_word(cli, 2), false, cli_word(cli, 1)}};
    return entry && cli_run_work(cli, "Exporting", clone_work_run, &work, error);
}

static bool do_template(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    cli_keep_whole();
    return entry && machine_set_template(cli->library, entry, !cli_option(cli, "undo"), error);
}

// ---- export, import ----

static bool export_work(void *opaque, struct progress *progress, GError **error)
{
    struct local_work *work = opaque;
    struct export_options options = {.chain = cli_option(work->cli, "snapshots") != NULL};
    return machine_export(work->entry, work->path, &options, progress, error);
}

static bool do_export(struct cli *cli, GError **error)
{
    struct local_work work = {cli, cli_machine(cli, error), NULL, cli_word(cli, 1)};
    if (!work.entry || !cli_run_work(cli, "Exporting", export_work, &work, error))
        return false;
    g_autoptr(machine_report_t) report = machine_report(work.entry->folder, work.entry->uuid);
    cli_say(cli, "Exported \"%s\" to %s%s", work.entry->name, work.path,
            report->life == LIFE_SAVED && !cli_option(cli, "snapshots")
                ? ", without what it has saved of its memory; --snapshots takes that along"
                : "");
    return true;
}

static bool import_work(void *opaque, struct progress *progress, GError **error)
{
    struct local_work *work = opaque;
    return machine_import(work->cli->library, work->path, cli_option(work->cli, "name"), progress, error);
}

static bool do_import(struct cli *cli, GError **error)
{
    struct local_work work = {cli, NULL, NULL, cli_word(cli, 0)};
    return cli_library(cli, error) && cli_run_work(cli, "Importing", import_work, &work, error);
}

static const struct cli_option note_options[] = {{"note", "TEXT", "a note for people"}, {NULL, NULL, NULL}};
static const struct cli_option clone_options[] = {
    {"linked", NULL, "share the disks of the source and keep only what changes"},
    {"snapshot", "NAME", "of that moment; without it the present state, of a machine that is off"},
    {NULL, NULL, NULL},
};
static const struct cli_option template_options[] = {{"undo", NULL, "make it a machine again"}, {NULL, NULL, NULL}};
static const struct cli_option export_options[] = {
    {"snapshots", NULL, "with its snapshots and the chain of its disks; without: flattened, the present state"},
    {NULL, NULL, NULL}};
static const struct cli_option import_options[] = {{"name", "NAME", "name of the new machine"}, {NULL, NULL, NULL}};

const struct cli_command cli_snapshot_commands[] = {
    {"snapshot take", "NAME SNAPSHOT", 2, 2, note_options, do_take, "takes a snapshot; a running guest runs on", "m-"},
    {"snapshot list", "NAME", 1, 1, NULL, do_snapshot_list, "shows the tree of snapshots", "m"},
    {"snapshot restore", "NAME SNAPSHOT", 2, 2, NULL, do_restore,
     "goes back to a snapshot; the present state is dropped", "ms"},
    {"snapshot delete", "NAME SNAPSHOT", 2, 2, NULL, do_delete, "deletes a snapshot; what others need is merged", "ms"},
    {"snapshot rename", "NAME SNAPSHOT NEW-NAME", 3, 3, note_options, do_snapshot_rename, "renames a snapshot", "ms-"},
    {"snapshot export", "NAME SNAPSHOT NEW-MACHINE", 3, 3, NULL, do_snapshot_export,
     "makes a machine of its own of a snapshot", "ms-"},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};

const struct cli_command cli_archive_commands[] = {
    {"clone", "NAME NEW-NAME", 2, 2, clone_options, do_clone, "makes a full or linked clone", "m-"},
    {"template", "NAME", 1, 1, template_options, do_template, "marks a machine as a template for linked clones", "m"},
    {"export", "NAME FILE.tar.zst", 2, 2, export_options, do_export, "packs a machine into one compressed file", "mf"},
    {"import", "FILE.tar.zst", 1, 1, import_options, do_import, "unpacks such a file as a new machine", "f"},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
