// SPDX-License-Identifier: GPL-2.0-or-later
// Long work of a monitor, followed to its end: what the command line and the windows' workers share.
#include "core/control/client.h"
#include "core/control/qmp.h"

#include <string.h>

#define LOOK_MS 20

static JsonObject *find_job(JsonNode *value, const char *id)
{
    JsonArray *list = JSON_NODE_HOLDS_ARRAY(value) ? json_node_get_array(value) : NULL;
    for (unsigned i = 0; list && i < json_array_get_length(list); i++) {
        JsonObject *job = json_array_get_object_element(list, i);
        if (strcmp(json_object_get_string_member_with_default(job, "id", ""), id) == 0)
            return job;
    }
    return NULL;
}

static void set_failure(JsonObject *job, GError **error)
{
    const char *failure = json_object_get_string_member_with_default(job, "error", NULL);
    const char *code = json_object_get_string_member_with_default(job, QMP_CODE_MEMBER, NULL);
    if (failure)
        g_set_error_literal(error, CLOCHE_ERROR, qmp_error_code(code, CLOCHE_ERROR_FAILED), failure);
}

// One look. *OVER: the job has ended; the result says how.
static bool look(struct control_client *client, const char *id, struct progress *progress, bool *over, GError **error)
{
    g_autoptr(JsonNode) value = control_client_call(client, "query-jobs", NULL, 0, NULL, NULL, error);
    if (!value)
        return false;
    JsonObject *job = find_job(value, id);
    if (!job) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "The machine lost the job %s; its log says more", id);
        return false;
    }
    atomic_store(&progress->total, json_object_get_int_member_with_default(job, "total-progress", 0));
    atomic_store(&progress->done, json_object_get_int_member_with_default(job, "current-progress", 0));
    *over = strcmp(json_object_get_string_member_with_default(job, "status", ""), "concluded") == 0;
    if (!*over || !json_object_has_member(job, "error"))
        return true;
    set_failure(job, error);
    return false;
}

static void send(struct control_client *client, const char *command, const char *id)
{
    JsonNode *value = control_client_call(client, command, control_arguments("s:id", id, NULL), 0, NULL, NULL, NULL);
    g_clear_pointer(&value, json_node_unref);
}

bool control_client_follow_job(struct control_client *client, const char *id, struct progress *progress, GError **error)
{
    bool over = false, asked = false, good;
    while ((good = look(client, id, progress, &over, error)) && !over) {
        if (atomic_load(&progress->cancelled) && !asked) {
            send(client, "job-cancel", id);
            asked = true;
        }
        g_usleep(LOOK_MS * 1000);
    }
    if (over)
        send(client, "job-dismiss", id);
    return good;
}

bool control_client_run_job(struct control_client *client, const char *id, const char *command, JsonObject *arguments,
                            struct progress *progress, GError **error)
{
    json_object_set_string_member(arguments, "job-id", id);
    JsonNode *accepted = control_client_call(client, command, arguments, 600000, NULL, NULL, error);
    if (!accepted)
        return false;
    json_node_unref(accepted);
    return control_client_follow_job(client, id, progress, error);
}
