// SPDX-License-Identifier: GPL-2.0-or-later
// The connection to a machine's monitor: starting the process, its control socket, its events and its end.
#include "ui/desktop/machine-private.h"

#include <fcntl.h>
#include <glib/gi18n.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define RETRY_MS     20
#define RETRIES_MAX  500 // ten seconds for the monitor to open its socket

// ---- State by events ----
static const struct {
    const char *status;
    ClocheState state;
} status_table[] = {
    {"prelaunch", CLOCHE_STATE_PAUSED},      {"running", CLOCHE_STATE_RUNNING},      {"paused", CLOCHE_STATE_PAUSED},
    {"save-vm", CLOCHE_STATE_BUSY},          {"restore-vm", CLOCHE_STATE_BUSY},      {"io-error", CLOCHE_STATE_ERROR},
    {"internal-error", CLOCHE_STATE_ERROR},  {"guest-panicked", CLOCHE_STATE_ERROR}, {"shutdown", CLOCHE_STATE_BUSY},
};

static void apply_status(ClocheMachine *self, JsonObject *data)
{
    const char *status = json_object_get_string_member_with_default(data, "status", "");
    const char *reason = json_object_get_string_member_with_default(data, "reason", NULL);
    for (guint i = 0; i < G_N_ELEMENTS(status_table); i++)
        if (strcmp(status, status_table[i].status) == 0)
            machine_set_state(self, status_table[i].state, reason);
}

static void status_known(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    if (!error && JSON_NODE_HOLDS_OBJECT(value))
        apply_status(opaque, json_node_get_object(value));
}

static void engine_known(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    ClocheMachine *self = opaque;
    if (error || !JSON_NODE_HOLDS_OBJECT(value))
        return;
    JsonObject *data = json_node_get_object(value);
    g_free(self->engine);
    g_free(self->engine_reason);
    self->engine = g_strdup(json_object_get_string_member_with_default(data, "engine", ""));
    self->engine_reason = g_strdup(json_object_get_string_member_with_default(data, "reason", ""));
    g_signal_emit(self, machine_signals[MACHINE_CHANGED], 0);
}

static void on_event(void *opaque, struct control_client *client, const char *event, JsonObject *data, int *fds, unsigned fd_count)
{
    ClocheMachine *self = opaque;
    if (g_str_has_prefix(event, "X_CLOCHE_DISPLAY_"))
        machine_display_event(self, event, data, fds, fd_count);
    else if (strcmp(event, "X_CLOCHE_STATE") == 0)
        apply_status(self, data);
    g_signal_emit(self, machine_signals[MACHINE_EVENT], 0, event, data);
}

// ---- The end ----
static char *last_log_line(ClocheMachine *self)
{
    g_autofree char *path = cloche_machine_get_log(self), *text = NULL;
    gsize length;
    if (!path || !g_file_get_contents(path, &text, &length, NULL))
        return NULL;
    g_strchomp(text);
    char *line = strrchr(text, '\n');
    return g_strdup(line ? line + 1 : text);
}

static void ended(ClocheMachine *self, int wait_status)
{
    machine_link_close(self);
    gboolean clean = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
    g_autofree char *line = clean ? NULL : last_log_line(self);
    g_autofree char *reason = clean                     ? NULL
                              : WIFSIGNALED(wait_status) ? g_strdup_printf(_("the monitor died of signal %d; the log tells more"), WTERMSIG(wait_status))
                                                         : g_strdup_printf(_("exit status %d%s%s"), WEXITSTATUS(wait_status), line ? ": " : "", line ? line : "");
    gboolean wanted = self->stopping;
    self->stopping = FALSE;
    g_autofree char *saved = g_build_filename(self->folder, "saved", NULL);
    gboolean has_saved = g_file_test(saved, G_FILE_TEST_EXISTS);
    machine_set_state(self, !clean ? CLOCHE_STATE_CRASHED : has_saved ? CLOCHE_STATE_SAVED : CLOCHE_STATE_OFF, reason);
    if (!wanted)
        g_signal_emit(self, machine_signals[MACHINE_STOPPED], 0, reason ? reason : _("The guest switched itself off."));
}

static void child_ended(GPid pid, int status, gpointer data)
{
    ClocheMachine *self = data;
    self->child_watch = 0;
    self->process = 0;
    g_spawn_close_pid(pid);
    ended(self, status);
}

static void on_closed(void *opaque, struct control_client *client, const GError *error)
{
    ClocheMachine *self = opaque;
    if (self->process > 0)
        machine_link_close(self); // child_ended() says how it ended
    else
        ended(self, 0); // not our child: its end is all that is known
}

// ---- Connecting ----
void machine_link_close(ClocheMachine *self)
{
    machine_sample_stop(self);
    g_clear_pointer(&self->client, control_client_free);
    g_clear_pointer(&self->engine, g_free);
}

gboolean machine_link_try(ClocheMachine *self)
{
    const struct control_handlers handlers = {on_event, on_closed, self};
    if (!self->uuid)
        return FALSE;
    self->client = control_client_for_machine(self->uuid, &handlers, NULL);
    if (!self->client)
        return FALSE;
    machine_set_state(self, CLOCHE_STATE_STARTING, NULL);
    control_client_send(self->client, "query-status", NULL, status_known, self);
    control_client_send(self->client, "x-cloche-query-engine", NULL, engine_known, self);
    machine_display_connected(self);
    machine_sample_start(self);
    return TRUE;
}

static gboolean retry(gpointer data)
{
    ClocheMachine *self = data;
    if (self->process > 0 && !machine_link_try(self) && ++self->retries < RETRIES_MAX)
        return G_SOURCE_CONTINUE;
    self->retry_timer = 0;
    return G_SOURCE_REMOVE;
}

// Beside this program when run from the build folder, else on the PATH.
static char *monitor_program(void)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL), *folder = self ? g_path_get_dirname(self) : NULL;
    char *beside = folder ? g_build_filename(folder, "cloche-vm", NULL) : NULL;
    const char *chosen = g_getenv("CLOCHE_VM");
    if (chosen) {
        g_free(beside);
        return g_strdup(chosen);
    }
    if (beside && g_file_test(beside, G_FILE_TEST_IS_EXECUTABLE))
        return beside;
    g_free(beside);
    return g_strdup("cloche-vm");
}

static void own_session(gpointer output)
{
    setsid(); // it lives on when the app is closed
    dup2(GPOINTER_TO_INT(output), STDERR_FILENO);
}

gboolean machine_link_start(ClocheMachine *self, GError **error)
{
    g_autofree char *runtime = machine_runtime_folder(self->uuid, true, error);
    if (!runtime)
        return FALSE;
    g_autofree char *socket = g_build_filename(runtime, "control", NULL), *program = monitor_program();
    g_autofree char *logs = g_build_filename(self->folder, "logs", NULL), *output = g_build_filename(logs, "machine.log", NULL);
    g_mkdir(logs, 0700);
    int log = g_open(output, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    char *argv[] = {program, (char *)"--machine", self->folder, (char *)"--control", socket, NULL};
    gboolean started = g_spawn_async(NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, own_session,
                                     GINT_TO_POINTER(log), &self->process, error);
    if (log >= 0)
        close(log);
    if (!started)
        return FALSE;
    self->stopping = FALSE;
    self->retries = 0;
    self->child_watch = g_child_watch_add(self->process, child_ended, self);
    self->retry_timer = g_timeout_add(RETRY_MS, retry, self);
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
        g_task_return_pointer(task, value ? json_node_copy(value) : json_node_new(JSON_NODE_NULL), (GDestroyNotify)json_node_unref);
}

void cloche_machine_call(ClocheMachine *self, const char *command, JsonNode *arguments, GAsyncReadyCallback callback, gpointer data)
{
    GTask *task = g_task_new(self, NULL, callback, data);
    JsonObject *object = arguments && JSON_NODE_HOLDS_OBJECT(arguments) ? json_node_dup_object(arguments) : NULL;
    g_clear_pointer(&arguments, json_node_unref);
    if (self->client) {
        control_client_send(self->client, command, object, call_done, task);
        return;
    }
    g_clear_pointer(&object, json_object_unref);
    g_task_return_new_error(task, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "%s", _("The machine is not running. Start it first."));
    g_object_unref(task);
}

JsonNode *cloche_machine_call_finish(ClocheMachine *self, GAsyncResult *result, GError **error)
{
    return g_task_propagate_pointer(G_TASK(result), error);
}
