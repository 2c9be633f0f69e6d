// SPDX-License-Identifier: GPL-2.0-or-later
// The connection to a machine's monitor: starting the process, its control socket, its events and its end.
#include "ui/desktop/machine-private.h"

#include "ui/desktop/dialogs.h"

#include <glib/gi18n.h>
#include <string.h>

#define LOOK_MS   50
#define LOOKS_MAX 100 // five seconds for a monitor to end after it closed its socket

// ---- State by events ----
static const struct {
    const char *status;
    ClocheState state;
} status_table[] = {
    {"prelaunch", CLOCHE_STATE_PAUSED},     {"running", CLOCHE_STATE_RUNNING},      {"paused", CLOCHE_STATE_PAUSED},
    {"save-vm", CLOCHE_STATE_BUSY},         {"restore-vm", CLOCHE_STATE_BUSY},      {"io-error", CLOCHE_STATE_ERROR},
    {"internal-error", CLOCHE_STATE_ERROR}, {"guest-panicked", CLOCHE_STATE_ERROR}, {"shutdown", CLOCHE_STATE_BUSY},
};

static void apply_status(ClocheMachine *self, JsonObject *data)
{
    const char *status = json_object_get_string_member_with_default(data, "status", "");
    const char *reason = json_object_get_string_member_with_default(data, "reason", NULL);
    self->no_space = strcmp(status, "io-error") == 0;
    for (guint i = 0; i < G_N_ELEMENTS(status_table); i++)
        if (strcmp(status, status_table[i].status) == 0)
            machine_set_state(self, status_table[i].state, reason);
}

static void status_known(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    if (!error && JSON_NODE_HOLDS_OBJECT(value))
        apply_status(opaque, json_node_get_object(value));
}

static void on_event(void *opaque, struct control_client *client, const char *event, JsonObject *data, int *fds,
                     unsigned fd_count)
{
    ClocheMachine *self = opaque;
    if (g_str_has_prefix(event, "X_CLOCHE_DISPLAY_"))
        machine_display_event(self, event, data, fds, fd_count);
    else if (strcmp(event, "X_CLOCHE_STATE") == 0)
        apply_status(self, data);
    g_signal_emit(self, machine_signals[MACHINE_EVENT], 0, event, data);
}

// ---- The end ----
static const struct {
    enum machine_life life;
    ClocheState state;
} life_table[] = {
    {LIFE_OFF, CLOCHE_STATE_OFF},         {LIFE_SAVED, CLOCHE_STATE_SAVED}, {LIFE_RUNNING, CLOCHE_STATE_STARTING},
    {LIFE_CRASHED, CLOCHE_STATE_CRASHED}, {LIFE_BUSY, CLOCHE_STATE_BUSY},
};

void machine_link_look(ClocheMachine *self)
{
    g_autoptr(machine_report_t) report = machine_report(self->folder, self->uuid);
    for (guint i = 0; i < G_N_ELEMENTS(life_table); i++)
        if (report->life == life_table[i].life)
            machine_set_state(self, life_table[i].state, report->life == LIFE_CRASHED ? report->reason : NULL);
    if (!self->client && report->life != LIFE_RUNNING) {
        machine_picture_from_disk(self);
        g_signal_emit(self, machine_signals[MACHINE_CHANGED], 0);
    }
}

// The monitor closes its socket a moment before it has written how it ended and is gone.
static gboolean look_again(gpointer data)
{
    ClocheMachine *self = data;
    machine_link_look(self);
    gboolean ending = self->state == CLOCHE_STATE_STARTING || self->state == CLOCHE_STATE_BUSY;
    if (ending && ++self->looks < LOOKS_MAX)
        return G_SOURCE_CONTINUE;
    self->look_timer = 0;
    gboolean wanted = self->stopping;
    self->stopping = FALSE;
    if (!wanted)
        g_signal_emit(self, machine_signals[MACHINE_STOPPED], 0,
                      self->reason ? self->reason : _("The guest switched itself off."));
    return G_SOURCE_REMOVE;
}

static void on_closed(void *opaque, struct control_client *client, const GError *error)
{
    ClocheMachine *self = opaque;
    machine_link_close(self);
    machine_set_state(self, CLOCHE_STATE_BUSY, NULL);
    self->looks = 0;
    if (!self->look_timer)
        self->look_timer = g_timeout_add(LOOK_MS, look_again, self);
}

// ---- Connecting ----
void machine_link_close(ClocheMachine *self)
{
    gboolean was_open = self->client != NULL;
    machine_sample_stop(self);
    g_clear_pointer(&self->client, control_client_free);
    if (was_open)
        machine_devices_stop(self);
}

gboolean machine_link_try(ClocheMachine *self)
{
    const struct control_handlers handlers = {on_event, on_closed, self};
    if (!self->uuid)
        return FALSE;
    self->client = control_client_for_machine(self->uuid, &handlers, NULL);
    if (!self->client)
        return FALSE;
    machine_link_look(self);
    control_client_send(self->client, "query-status", NULL, status_known, self);
    machine_display_connected(self);
    machine_sample_start(self);
    machine_devices_start(self);
    return TRUE;
}

static void started(void *opaque, const GError *error)
{
    ClocheMachine *self = opaque;
    g_autoptr(GtkWindow) parent = g_weak_ref_get(&self->start_parent);
    self->starter = NULL; // it is over
    if (!error && machine_link_try(self))
        return;
    machine_link_look(self);
    g_autofree char *log = cloche_machine_get_log(self);
    g_autoptr(GError) lost =
        error ? g_error_copy(error)
              : g_error_new(CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "%s", _("Its monitor does not answer."));
    if (self->state == CLOCHE_STATE_OFF)
        machine_set_state(self, CLOCHE_STATE_CRASHED, lost->message);
    dialog_error(parent, _("The machine could not be started"), lost, log);
}

gboolean machine_link_start(ClocheMachine *self, GtkWindow *parent, GError **error)
{
    self->starter = machine_start_process(self->folder, self->uuid, false, started, self, error);
    if (!self->starter)
        return FALSE;
    self->stopping = FALSE;
    g_weak_ref_set(&self->start_parent, parent);
    machine_set_state(self, CLOCHE_STATE_STARTING, NULL);
    return TRUE;
}

// ---- Commands for the windows ----
static void call_done(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    g_autoptr(GTask) task = opaque;
    if (error)
        g_task_return_error(task, g_error_copy(error));
    else
        g_task_return_pointer(task, value ? json_node_copy(value) : json_node_new(JSON_NODE_NULL),
                              (GDestroyNotify)json_node_unref);
}

void cloche_machine_call(ClocheMachine *self, const char *command, JsonObject *arguments, GAsyncReadyCallback callback,
                         gpointer data)
{
    GTask *task = g_task_new(self, NULL, callback, data);
    if (self->client) {
        control_client_send(self->client, command, arguments, call_done, task);
        return;
    }
    g_clear_pointer(&arguments, json_object_unref);
    g_task_return_new_error(task, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "%s",
                            _("The machine is not running. Start it first."));
    g_object_unref(task);
}

JsonNode *cloche_machine_call_finish(ClocheMachine *self, GAsyncResult *result, GError **error)
{
    return g_task_propagate_pointer(G_TASK(result), error);
}
