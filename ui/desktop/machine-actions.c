// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/machine-actions.h"
#include "ui/desktop/app.h"
#include "ui/desktop/delete-dialog.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/machine-work.h"
#include "ui/desktop/text-dialog.h"
#include "ui/desktop/vnc-dialog.h"

#include <glib/gi18n.h>
#include <string.h>

#define KEY_MACHINE "actions-machine"
#define KEY_DELETED "actions-deleted"

typedef void action_fn(ClocheMachine *machine, GtkWindow *window);

// ---- What each action does ----
static ClocheApp *app_of(GtkWindow *window)
{
    return CLOCHE_APP(gtk_window_get_application(window));
}

struct pending {
    ClocheMachine *machine;
    GtkWindow *window;
    ClocheRequest request;
};

static void pending_free(gpointer data)
{
    struct pending *pending = data;
    g_object_unref(pending->machine);
    g_free(pending);
}

static struct pending *pending_new(ClocheMachine *machine, GtkWindow *window, ClocheRequest request)
{
    struct pending *pending = g_new0(struct pending, 1);
    *pending = (struct pending){g_object_ref(machine), window, request};
    return pending;
}

static void confirmed(gpointer data)
{
    struct pending *pending = data;
    cloche_machine_request(pending->machine, pending->request, pending->window);
}

static void power_off(ClocheMachine *machine, GtkWindow *window)
{
    dialog_confirm(window, _("Power the machine off?"),
                   _("It is like pulling the plug: unsaved work in the guest is lost."), _("Power _Off"), TRUE,
                   confirmed, pending_new(machine, window, CLOCHE_REQUEST_POWER_OFF), pending_free);
}

static void reset(ClocheMachine *machine, GtkWindow *window)
{
    dialog_confirm(window, _("Reset the machine?"),
                   _("It is like pressing the reset button: unsaved work in the guest is lost."), _("_Reset"), TRUE,
                   confirmed, pending_new(machine, window, CLOCHE_REQUEST_RESET), pending_free);
}

static void settings(ClocheMachine *machine, GtkWindow *window)
{
    cloche_app_open_settings(app_of(window), machine, window);
}

static void snapshots(ClocheMachine *machine, GtkWindow *window)
{
    cloche_app_open_snapshots(app_of(window), machine, window);
}

static void vnc(ClocheMachine *machine, GtkWindow *window)
{
    vnc_dialog_show(machine, window);
}

static void take_snapshot(ClocheMachine *machine, GtkWindow *window)
{
    work_ask_snapshot(machine, window, NULL, NULL);
}

static void renamed(gpointer data, const char *text, const char *note, gboolean choice)
{
    struct pending *pending = data;
    work_rename(app_of(pending->window), pending->machine, text, pending->window);
}

static void rename_machine(ClocheMachine *machine, GtkWindow *window)
{
    struct text_question question = {
        .title = _("Rename Machine"),
        .label = _("_Name"),
        .text = cloche_machine_get_name(machine),
        .accept = _("_Rename"),
        .done = renamed,
        .data = pending_new(machine, window, CLOCHE_REQUEST_CHANGE),
        .destroy = pending_free,
    };
    text_dialog_ask(window, &question);
}

static void cloned(gpointer data, const char *text, const char *note, gboolean linked)
{
    struct pending *pending = data;
    work_clone(app_of(pending->window), pending->machine, text, linked, NULL, pending->window);
}

static void clone_machine(ClocheMachine *machine, GtkWindow *window)
{
    g_autofree char *suggestion = g_strdup_printf(_("%s copy"), cloche_machine_get_name(machine));
    struct text_question question = {
        .title = _("Clone Machine"),
        .label = _("_Name of the clone"),
        .text = suggestion,
        .accept = _("_Clone"),
        .choice = _("_Linked clone: made at once, shares this machine's disks and needs them"),
        .done = cloned,
        .data = pending_new(machine, window, CLOCHE_REQUEST_CHANGE),
        .destroy = pending_free,
    };
    text_dialog_ask(window, &question);
}

static void export_machine(ClocheMachine *machine, GtkWindow *window)
{
    work_export(app_of(window), machine, window);
}

static void open_log(ClocheMachine *machine, GtkWindow *window)
{
    g_autofree char *path = cloche_machine_get_log(machine);
    g_autofree char *uri = path ? g_filename_to_uri(path, NULL, NULL) : NULL;
    g_autoptr(GError) error = NULL;
    if (!uri || !gtk_show_uri_on_window(window, uri, GDK_CURRENT_TIME, &error)) {
        if (!error)
            error =
                g_error_new(G_IO_ERROR, G_IO_ERROR_NOT_FOUND, _("There is no log yet: the machine was never started."));
        dialog_error(window, _("The log cannot be shown"), error, NULL);
    }
}

static void report(ClocheMachine *machine, GtkWindow *window)
{
    work_report(machine, window);
}

// A machine whose disks are overlays on those of MACHINE, or NULL.
static ClocheMachine *linked_clone_of(ClocheApp *app, ClocheMachine *machine)
{
    g_autofree char *uuid = cloche_machine_get_option(machine, "Machine", "uuid");
    GListModel *machines = cloche_app_get_machines(app);
    for (guint i = 0; uuid && i < g_list_model_get_n_items(machines); i++) {
        g_autoptr(ClocheMachine) other = g_list_model_get_item(machines, i);
        g_auto(GStrv) groups = cloche_machine_get_groups(other, "Drive *");
        for (char **group = groups; group && *group; group++) {
            g_autofree char *base = cloche_machine_get_option(other, *group, "base-machine");
            if (g_strcmp0(base, uuid) == 0)
                return other; // the list holds it
        }
    }
    return NULL;
}

static void delete_machine(ClocheMachine *machine, GtkWindow *window)
{
    ClocheMachine *clone = linked_clone_of(app_of(window), machine);
    if (clone) {
        g_autoptr(GError) error = g_error_new(CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                                              _("“%s” is a linked clone and needs its disks. Delete that one first."),
                                              cloche_machine_get_name(clone));
        dialog_error(window, _("This machine cannot be deleted yet"), error, NULL);
        return;
    }
    void (*deleted)(GtkApplicationWindow *, ClocheMachine *) = g_object_get_data(G_OBJECT(window), KEY_DELETED);
    delete_dialog_ask(machine, GTK_APPLICATION_WINDOW(window), deleted);
}

// ---- All machines of a group as one: those that the request is for ----
static void request_in_group(ClocheMachine *machine, GtkWindow *window, ClocheRequest request)
{
    GListModel *machines = cloche_app_get_machines(app_of(window));
    for (guint i = 0; i < g_list_model_get_n_items(machines); i++) {
        g_autoptr(ClocheMachine) other = g_list_model_get_item(machines, i);
        if (g_strcmp0(cloche_machine_get_group(other), cloche_machine_get_group(machine)) == 0 &&
            !cloche_machine_why_not(other, request))
            cloche_machine_request(other, request, window);
    }
}

static void start_group(ClocheMachine *machine, GtkWindow *window)
{
    request_in_group(machine, window, CLOCHE_REQUEST_START);
}

static void shut_down_group(ClocheMachine *machine, GtkWindow *window)
{
    request_in_group(machine, window, CLOCHE_REQUEST_SHUT_DOWN);
}

// ---- The table: an action, what it does, and when ----
#define ALWAYS   CLOCHE_REQUEST_COUNT
#define IN_GROUP (CLOCHE_REQUEST_COUNT + 1)
static const struct action {
    const char *name;
    ClocheRequest request; // legal when this request is; ALWAYS: with any machine; IN_GROUP: with one of a group
    action_fn *fn;         // NULL: the request itself
    gboolean library_only;
} actions[] = {
    {"start", CLOCHE_REQUEST_START, NULL, FALSE},
    {"pause", CLOCHE_REQUEST_PAUSE, NULL, FALSE},
    {"resume", CLOCHE_REQUEST_RESUME, NULL, FALSE},
    {"shut-down", CLOCHE_REQUEST_SHUT_DOWN, NULL, FALSE},
    {"save", CLOCHE_REQUEST_SAVE, NULL, FALSE},
    {"power-off", CLOCHE_REQUEST_POWER_OFF, power_off, FALSE},
    {"reset", CLOCHE_REQUEST_RESET, reset, FALSE},
    {"take-snapshot", CLOCHE_REQUEST_SNAPSHOT, take_snapshot, FALSE},
    {"start-group", IN_GROUP, start_group, TRUE},
    {"shut-down-group", IN_GROUP, shut_down_group, TRUE},
    {"settings", ALWAYS, settings, FALSE},
    {"snapshots", ALWAYS, snapshots, FALSE},
    {"vnc", ALWAYS, vnc, FALSE},
    {"log", ALWAYS, open_log, FALSE},
    {"report", ALWAYS, report, FALSE},
    {"rename", CLOCHE_REQUEST_CHANGE, rename_machine, TRUE},
    {"clone", CLOCHE_REQUEST_CHANGE, clone_machine, TRUE},
    {"export", CLOCHE_REQUEST_CHANGE, export_machine, TRUE},
    {"delete", CLOCHE_REQUEST_CHANGE, delete_machine, TRUE},
};

ClocheMachine *machine_actions_get_machine(GtkApplicationWindow *window)
{
    return g_object_get_data(G_OBJECT(window), KEY_MACHINE);
}

static void activated(GSimpleAction *gaction, GVariant *parameter, gpointer window)
{
    const struct action *action = g_object_get_data(G_OBJECT(gaction), "row");
    ClocheMachine *machine = machine_actions_get_machine(window);
    if (!machine)
        return;
    if (action->fn)
        action->fn(machine, window);
    else
        cloche_machine_request(machine, action->request, window);
}

// NULL: it is legal.
static const char *why_not(const struct action *action, ClocheMachine *machine)
{
    if (!machine)
        return _("Select a machine first.");
    if (action->request == IN_GROUP)
        return cloche_machine_get_group(machine)[0] ? NULL : _("The machine is in no group: its settings name one.");
    return action->request == ALWAYS ? NULL : cloche_machine_why_not(machine, action->request);
}

static void update(GtkApplicationWindow *window)
{
    ClocheMachine *machine = machine_actions_get_machine(window);
    for (guint i = 0; i < G_N_ELEMENTS(actions); i++) {
        GAction *action = g_action_map_lookup_action(G_ACTION_MAP(window), actions[i].name);
        if (action)
            g_simple_action_set_enabled(G_SIMPLE_ACTION(action), !why_not(&actions[i], machine));
    }
}

const char *machine_actions_why_not(GtkApplicationWindow *window, const char *name)
{
    ClocheMachine *machine = machine_actions_get_machine(window);
    for (guint i = 0; i < G_N_ELEMENTS(actions); i++)
        if (g_str_has_prefix(name, "win.") && strcmp(name + strlen("win."), actions[i].name) == 0)
            return why_not(&actions[i], machine);
    return NULL;
}

void machine_actions_set_machine(GtkApplicationWindow *window, ClocheMachine *machine)
{
    ClocheMachine *before = machine_actions_get_machine(window);
    if (before)
        g_signal_handlers_disconnect_by_func(before, update, window);
    g_object_set_data_full(G_OBJECT(window), KEY_MACHINE, machine ? g_object_ref(machine) : NULL, g_object_unref);
    if (machine)
        g_signal_connect_object(machine, "changed", G_CALLBACK(update), window, G_CONNECT_SWAPPED);
    update(window);
}

void machine_actions_add(GtkApplicationWindow *window,
                         void (*deleted)(GtkApplicationWindow *window, ClocheMachine *machine))
{
    g_object_set_data(G_OBJECT(window), KEY_DELETED, deleted);
    for (guint i = 0; i < G_N_ELEMENTS(actions); i++) {
        if (actions[i].library_only && !deleted)
            continue;
        g_autoptr(GSimpleAction) action = g_simple_action_new(actions[i].name, NULL);
        g_object_set_data(G_OBJECT(action), "row", (gpointer)&actions[i]);
        g_signal_connect(action, "activate", G_CALLBACK(activated), window);
        g_simple_action_set_enabled(action, FALSE);
        g_action_map_add_action(G_ACTION_MAP(window), G_ACTION(action));
    }
}
