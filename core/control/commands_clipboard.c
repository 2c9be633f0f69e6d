// SPDX-License-Identifier: GPL-2.0-or-later
// The guest's clipboard for clients: texts that guests copy come as events on connections that asked for them, texts
// that people copy go to the guest, and the ways that are open can be changed while the machine runs.
#include "core/control/server.h"
#include "core/screen/clipboard.h"

// LOCK guards TEXT; all else is the main loop's.
struct clipboard_link {
    struct control_server *server;
    GMutex lock;
    char *text; // the guest's latest, not sent yet
    GSource *source;
    GPtrArray *clients; // struct qmp_client *: those that are told
};

// Any thread, machine lock held: only noted. A text that is followed at once by another is not sent.
static void noted(void *opaque, const char *text)
{
    struct clipboard_link *link = opaque;
    g_mutex_lock(&link->lock);
    g_free(link->text);
    link->text = g_strdup(text);
    g_mutex_unlock(&link->lock);
    g_source_set_ready_time(link->source, 0);
}

static gboolean send_text(gpointer data)
{
    struct clipboard_link *link = data;
    g_source_set_ready_time(link->source, -1);
    g_mutex_lock(&link->lock);
    g_autofree char *text = g_steal_pointer(&link->text);
    g_mutex_unlock(&link->lock);
    for (guint i = 0; text && i < link->clients->len; i++) {
        JsonObject *event = json_object_new();
        json_object_set_string_member(event, "text", text);
        qmp_client_emit(link->clients->pdata[i], "X_CLOCHE_CLIPBOARD", qmp_node_object(event), NULL, 0);
    }
    return G_SOURCE_CONTINUE;
}

static gboolean dispatch_source(GSource *source, GSourceFunc callback, gpointer data)
{
    return callback(data);
}

static GSourceFuncs source_functions = {.dispatch = dispatch_source};

struct clipboard_link *clipboard_link_new(struct control_server *server)
{
    struct clipboard_link *link = g_new0(struct clipboard_link, 1);
    link->server = server;
    g_mutex_init(&link->lock);
    link->clients = g_ptr_array_new();
    link->source = g_source_new(&source_functions, sizeof(GSource));
    g_source_set_callback(link->source, send_text, link, NULL);
    g_source_attach(link->source, server->machine->context);
    if (server->machine->clipboard)
        clipboard_add_listener(server->machine->clipboard, noted, link);
    return link;
}

void clipboard_link_free(struct clipboard_link *link)
{
    if (link->server->machine->clipboard)
        clipboard_remove_listener(link->server->machine->clipboard, noted, link);
    g_source_destroy(link->source);
    g_source_unref(link->source);
    g_ptr_array_unref(link->clients);
    g_mutex_clear(&link->lock);
    g_free(link->text);
    g_free(link);
}

void clipboard_link_client_gone(struct clipboard_link *link, struct qmp_client *client)
{
    g_ptr_array_remove_fast(link->clients, client);
}

// ---- Commands ----
static struct clipboard *find_clipboard(struct qmp_call *call, GError **error)
{
    struct clipboard *clipboard = call_machine(call)->clipboard;
    if (clipboard && clipboard_get_ways(clipboard) >= 0)
        return clipboard;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                "The machine has no channel for the guest's agent; add the device spice-agent while it is off");
    return NULL;
}

static JsonNode *attach(struct qmp_call *call, GError **error)
{
    GPtrArray *clients = call_server(call)->clipboard->clients;
    if (find_clipboard(call, error) && !g_ptr_array_find(clients, call->client, NULL))
        g_ptr_array_add(clients, call->client);
    return NULL;
}

static JsonNode *query(struct qmp_call *call, GError **error)
{
    struct clipboard *clipboard = find_clipboard(call, error);
    if (!clipboard)
        return NULL;
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "ways", clipboard_way_names[clipboard_get_ways(clipboard)]);
    json_object_set_boolean_member(data, "agent", clipboard_has_agent(clipboard));
    return qmp_node_object(data);
}

static JsonNode *set_ways(struct qmp_call *call, GError **error)
{
    struct clipboard *clipboard = find_clipboard(call, error);
    if (clipboard)
        clipboard_set_ways(clipboard, clipboard_parse_ways(qmp_string(call, "ways")));
    return NULL;
}

static JsonNode *set_text(struct qmp_call *call, GError **error)
{
    struct clipboard *clipboard = find_clipboard(call, error);
    if (clipboard && !clipboard_to_guest(clipboard, qmp_string(call, "text")))
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    clipboard_has_agent(clipboard) ? "The text is longer than the clipboard takes (1 MiB)"
                                                   : "No agent runs in the guest; install spice-vdagent there");
    return NULL;
}

static const struct qmp_argument ways_arguments[] = {QMP_NEED("ways", QMP_STRING, .choices = clipboard_way_names),
                                                     QMP_END};
static const struct qmp_argument text_arguments[] = {QMP_NEED("text", QMP_STRING), QMP_END};

const struct qmp_command control_clipboard_commands[] = {
    QMP_COMMAND("x-cloche-attach-clipboard", attach, NULL,
                "Texts that the guest copies follow as events on this connection."),
    QMP_COMMAND("x-cloche-query-clipboard", query, NULL, "The ways that are open, and whether an agent runs."),
    QMP_COMMAND("x-cloche-clipboard-ways", set_ways, ways_arguments, "Opens the ways for texts, for every viewer."),
    QMP_COMMAND("x-cloche-clipboard-text", set_text, text_arguments, "A text that was copied outside the guest."),
    QMP_END,
};
