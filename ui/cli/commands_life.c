// SPDX-License-Identifier: GPL-2.0-or-later
// start, stop, pause, resume, save: of one machine, or of all in a group as one. reset.
#include "ui/cli/cli.h"
#include "ui/cli/commands.h"

#include <stdio.h>

#define SAVE_SECONDS 60 // for the monitor's end, once it was asked to save
#define QUIT_SECONDS 30

// A machine on its way.
struct member {
    struct machine_entry *entry;
    struct control_client *client; // of a machine that ends
    const char *said;              // what was done, for people; NULL: nothing had to be done
    GError *error;
};

struct life_action {
    bool on_running; // it is for machines that run; else for those that do not
    // All members of a group begin before the first FINISH, which may wait; FINISH may be NULL.
    bool (*begin)(struct cli *cli, struct member *member, GError **error);
    bool (*finish)(struct cli *cli, struct member *member, gint64 began, GError **error);
};

// ---- Starting ----

static bool begin_start(struct cli *cli, struct member *member, GError **error)
{
    struct machine_entry *entry = member->entry;
    if (entry->template_) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "\"%s\" is a template; make a machine of it with: clochectl clone %s NAME --linked", entry->name,
                    entry->name);
        return false;
    }
    if (cli_option(cli, "discard") && !machine_folder_discard(entry->folder, error))
        return false;
    g_autoptr(machine_report_t) report = machine_report(entry->folder, entry->uuid);
    g_autoptr(GError) local = NULL;
    if (!machine_start_process_sync(entry->folder, entry->uuid, cli_option(cli, "paused") != NULL, &local)) {
        g_autoptr(machine_report_t) after = machine_report(entry->folder, entry->uuid);
        bool stuck = report->life == LIFE_SAVED && after->life == LIFE_SAVED;
        g_set_error(error, local->domain, local->code, "%s%s", local->message,
                    stuck ? ". With --discard it boots, and what was in its memory is lost" : "");
        return false;
    }
    member->said = report->life == LIFE_SAVED ? "Resumed" : "Started";
    return true;
}

// ---- Ending ----

// Waits until the monitor has ended, until SECONDS after BEGAN (monotonic).
static bool wait_end(struct member *member, gint64 began, guint64 seconds, GError **error)
{
    gint64 left = began / 1000 + (gint64)seconds * 1000 - g_get_monotonic_time() / 1000;
    if (!control_client_wait_closed(member->client, MAX(left, 1))) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "\"%s\" did not shut down within %u seconds; it may ask a question on its screen, or use --force",
                    member->entry->name, (unsigned)seconds);
        return false;
    }
    for (unsigned i = 0; i < 3000; i++) { // its files are free a moment later
        g_autoptr(machine_report_t) report = machine_report(member->entry->folder, member->entry->uuid);
        if (report->life != LIFE_RUNNING && report->life != LIFE_BUSY)
            return true;
        g_usleep(10000);
    }
    return true;
}

static bool ask(struct cli *cli, struct member *member, const char *command, const char *said, GError **error)
{
    g_autoptr(GError) local = NULL;
    member->client = cli_connect(cli, member->entry, NULL, error);
    if (!member->client)
        return false;
    g_autoptr(JsonNode) value = control_client_call(member->client, command, NULL, 600000, NULL, NULL, &local);
    if (!value && !control_client_closed(member->client)) { // it may have ended before it could answer
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    member->said = said;
    return true;
}

static bool stop_seconds(struct cli *cli, guint64 *seconds, GError **error)
{
    const char *timeout = cli_option(cli, "timeout");
    *seconds = cli_option(cli, "force") ? QUIT_SECONDS : 60;
    if (!timeout || g_ascii_string_to_unsigned(timeout, 10, 1, 86400, seconds, NULL))
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "--timeout %s: give seconds from 1 to 86400", timeout);
    return false;
}

static bool begin_stop(struct cli *cli, struct member *member, GError **error)
{
    return cli_option(cli, "force") ? ask(cli, member, "quit", "Switched off", error)
                                    : ask(cli, member, "system_powerdown", "Shut down", error);
}

static bool finish_stop(struct cli *cli, struct member *member, gint64 began, GError **error)
{
    guint64 seconds;
    return stop_seconds(cli, &seconds, error) && wait_end(member, began, seconds, error);
}

static bool begin_save(struct cli *cli, struct member *member, GError **error)
{
    return ask(cli, member, "x-cloche-suspend", "Saved", error);
}

static bool finish_save(struct cli *cli, struct member *member, gint64 began, GError **error)
{
    return wait_end(member, g_get_monotonic_time(), SAVE_SECONDS, error);
}

// ---- Standing still ----

static bool begin_pause(struct cli *cli, struct member *member, GError **error)
{
    return ask(cli, member, "stop", "Paused", error);
}

static bool begin_resume(struct cli *cli, struct member *member, GError **error)
{
    return ask(cli, member, "cont", "Resumed", error);
}

// ---- One machine, or a group ----

static void member_free(gpointer data)
{
    struct member *member = data;
    if (member->client)
        control_client_free(member->client);
    g_clear_error(&member->error);
    g_free(member);
}

static struct member *add_member(GPtrArray *members, struct machine_entry *entry)
{
    struct member *member = g_new0(struct member, 1);
    member->entry = entry;
    g_ptr_array_add(members, member);
    return member;
}

static void act(struct cli *cli, const struct life_action *action, GPtrArray *members)
{
    gint64 began = g_get_monotonic_time();
    for (unsigned i = 0; i < members->len; i++) {
        struct member *member = members->pdata[i];
        action->begin(cli, member, &member->error);
    }
    for (unsigned i = 0; i < members->len; i++) {
        struct member *member = members->pdata[i];
        if (!member->error && (!action->finish || action->finish(cli, member, began, &member->error)))
            cli_say(cli, "%s \"%s\"", member->said, member->entry->name);
    }
}

static bool one_machine(struct cli *cli, const struct life_action *action, GError **error)
{
    g_autoptr(GPtrArray) members = g_ptr_array_new_with_free_func(member_free);
    struct machine_entry *entry = cli_machine(cli, error);
    if (!entry)
        return false;
    struct member *member = add_member(members, entry);
    act(cli, action, members);
    if (!member->error)
        return true;
    g_propagate_error(error, g_steal_pointer(&member->error));
    return false;
}

// Machines that are already as the action leaves them are no failure: the group is what should be so.
static bool is_concerned(const struct life_action *action, struct machine_entry *entry)
{
    g_autoptr(machine_report_t) report = machine_report(entry->folder, entry->uuid);
    return action->on_running == (report->life == LIFE_RUNNING) && !entry->template_;
}

static GPtrArray *find_group(struct cli *cli, const char *group, GError **error)
{
    g_autoptr(GPtrArray) found = g_ptr_array_new();
    GPtrArray *entries = cli_library(cli, error) ? library_entries(cli->library) : NULL;
    for (unsigned i = 0; entries && i < entries->len; i++) {
        struct machine_entry *entry = entries->pdata[i];
        g_autofree char *its = entry->config ? config_get(entry->config, "Machine", "group") : NULL;
        if (group[0] && g_strcmp0(its, group) == 0)
            g_ptr_array_add(found, entry);
    }
    if (found->len)
        return g_steal_pointer(&found);
    if (entries)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                    "No machine is in the group \"%s\"; `clochectl list` shows the groups", group);
    return NULL;
}

// The first failure is the program's exit status.
static void report_members(struct cli *cli, GPtrArray *members)
{
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < members->len; i++) {
        struct member *member = members->pdata[i];
        JsonObject *object = control_arguments("s:name", member->entry->name, "s:uuid", member->entry->uuid, NULL);
        int status = member->error ? cli_status_of(member->error) : CLI_OK;
        json_object_set_int_member(object, "status", status);
        json_object_set_boolean_member(object, "changed", !member->error && member->said);
        if (member->error)
            json_object_set_string_member(object, "error", member->error->message);
        json_array_add_object_element(list, object);
        if (member->error && !cli->json)
            fprintf(stderr, "clochectl: %s\n", member->error->message);
        cli->status = cli->status ? cli->status : status;
    }
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, list);
    if (cli->json)
        cli_print_json(node);
    else
        json_node_unref(node);
}

static bool whole_group(struct cli *cli, const struct life_action *action, const char *group, GError **error)
{
    g_autoptr(GPtrArray) entries = find_group(cli, group, error);
    g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func(member_free);
    g_autoptr(GPtrArray) concerned = g_ptr_array_new();
    for (unsigned i = 0; entries && i < entries->len; i++) {
        struct member *member = add_member(all, entries->pdata[i]);
        if (is_concerned(action, member->entry))
            g_ptr_array_add(concerned, member);
    }
    if (!entries)
        return false;
    act(cli, action, concerned);
    report_members(cli, all);
    return true;
}

static bool run_action(struct cli *cli, const struct life_action *action, GError **error)
{
    const char *group = cli_option(cli, "group");
    if (!group == !cli_word(cli, 0)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "clochectl %s needs either a machine's name or --group NAME", cli->command->name);
        return false;
    }
    return group ? whole_group(cli, action, group, error) : one_machine(cli, action, error);
}

// ---- The commands ----

static bool do_start(struct cli *cli, GError **error)
{
    static const struct life_action action = {false, begin_start, NULL};
    return run_action(cli, &action, error);
}

static bool do_stop(struct cli *cli, GError **error)
{
    static const struct life_action action = {true, begin_stop, finish_stop};
    guint64 seconds;
    return stop_seconds(cli, &seconds, error) && run_action(cli, &action, error);
}

static bool do_save(struct cli *cli, GError **error)
{
    static const struct life_action action = {true, begin_save, finish_save};
    return run_action(cli, &action, error);
}

static bool do_pause(struct cli *cli, GError **error)
{
    static const struct life_action action = {true, begin_pause, NULL};
    return run_action(cli, &action, error);
}

static bool do_resume(struct cli *cli, GError **error)
{
    static const struct life_action action = {true, begin_resume, NULL};
    return run_action(cli, &action, error);
}

static bool do_reset(struct cli *cli, GError **error)
{
    return cli_do(cli, "system_reset", NULL, error);
}

#define GROUP_OPTION                                                                                                   \
    {                                                                                                                  \
        "group", "NAME", "all machines of that group as one"                                                           \
    }
static const struct cli_option start_options[] = {
    {"paused", NULL, "do not run the processors yet"},
    {"discard", NULL, "boot a saved machine: what was in its memory is lost"},
    GROUP_OPTION,
    {NULL, NULL, NULL},
};
static const struct cli_option stop_options[] = {
    {"force", NULL, "switch it off at once: the guest may lose data"},
    {"timeout", "SECONDS", "how long the guest may take (60)"},
    GROUP_OPTION,
    {NULL, NULL, NULL},
};
static const struct cli_option group_options[] = {GROUP_OPTION, {NULL, NULL, NULL}};

const struct cli_command cli_life_commands[] = {
    {"start", "NAME | --group NAME", 0, 1, start_options, do_start, "starts a machine, or resumes a saved one", "m"},
    {"stop", "NAME | --group NAME", 0, 1, stop_options, do_stop,
     "presses the power button and waits; --force switches off", "m"},
    {"pause", "NAME | --group NAME", 0, 1, group_options, do_pause, "pauses a running machine", "m"},
    {"resume", "NAME | --group NAME", 0, 1, group_options, do_resume, "lets a paused machine run on", "m"},
    {"reset", "NAME", 1, 1, NULL, do_reset, "presses the reset button", "m"},
    {"save", "NAME | --group NAME", 0, 1, group_options, do_save,
     "saves a machine to disk and ends it; start goes on there", "m"},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
