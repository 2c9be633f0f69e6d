// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/control/qmp.h"
#include "core/control/framing.h"
#include "core/control/transport.h"

#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_CHUNK        65536
#define COMMANDS_PER_TURN 16 // then the main loop serves others

// A message on its way out.
struct message {
    char *data;
    size_t length, sent;
    int fds[QMP_MAX_FDS];
    unsigned fd_count;
};

struct drained {
    void (*when)(void *opaque);
    void *opaque;
};

struct qmp_client {
    struct qmp_server *server;
    int fd;
    bool negotiated, closing;
    struct framing framing;
    GSource *readable, *writable, *idle;
    GByteArray *input; // read, not yet framed
    size_t input_at;
    int received[QMP_MAX_FDS];
    unsigned received_count;
    GQueue output; // struct message *
    size_t backlog;
    GArray *drained; // struct drained
    void *data;
};

struct qmp_server {
    char *path;
    int fd;
    GMainContext *context;
    GSource *listening;
    const struct qmp_command **tables;
    struct qmp_server_ops ops;
    void *opaque;
    GPtrArray *clients; // struct qmp_client *
};

static gboolean client_readable(int fd, GIOCondition condition, gpointer data);
static gboolean client_writable(int fd, GIOCondition condition, gpointer data);

static GSource *watch(struct qmp_server *server, int fd, GIOCondition condition, GUnixFDSourceFunc fn, void *data)
{
    GSource *source = g_unix_fd_source_new(fd, condition);
    g_source_set_callback(source, G_SOURCE_FUNC(fn), data, NULL);
    g_source_attach(source, server->context);
    return source;
}

static void stop_source(GSource **source)
{
    if (*source) {
        g_source_destroy(*source);
        g_clear_pointer(source, g_source_unref);
    }
}

// ---- Sending ----

static void message_free(gpointer data)
{
    struct message *message = data;
    for (unsigned i = 0; i < message->fd_count; i++)
        close(message->fds[i]);
    g_free(message->data);
    g_free(message);
}

static void client_flush(struct qmp_client *client)
{
    struct message *message;
    while ((message = g_queue_peek_head(&client->output))) {
        ssize_t n = transport_send(client->fd, message->data + message->sent, message->length - message->sent,
                                   message->fds, message->sent ? 0 : message->fd_count);
        if (n < 0 && errno == EAGAIN) {
            if (!client->writable)
                client->writable = watch(client->server, client->fd, G_IO_OUT, client_writable, client);
            return;
        }
        if (n < 0) {
            client->closing = true; // the reading side sees the end and frees the client
            shutdown(client->fd, SHUT_RDWR);
            break;
        }
        message->sent += n;
        client->backlog -= n;
        if (message->sent == message->length)
            message_free(g_queue_pop_head(&client->output));
    }
    stop_source(&client->writable);
    while (client->drained->len) {
        struct drained drained = g_array_index(client->drained, struct drained, 0);
        g_array_remove_index(client->drained, 0);
        drained.when(drained.opaque);
        if (client->backlog)
            break;
    }
}

static gboolean client_writable(int fd, GIOCondition condition, gpointer data)
{
    struct qmp_client *client = data;
    g_source_ref(client->writable); // client_flush() may drop it
    GSource *self = client->writable;
    client_flush(client);
    g_source_unref(self);
    return G_SOURCE_CONTINUE;
}

// Takes over NODE; duplicates the descriptors. How many there are stands in the message, because a stream has no
// frames.
static void client_send(struct qmp_client *client, JsonNode *node, const int *fds, unsigned fd_count)
{
    if (fd_count)
        json_object_set_int_member(json_node_get_object(node), QMP_FDS_MEMBER, fd_count);
    g_autofree char *text = json_to_string(node, FALSE);
    json_node_unref(node);
    if (client->closing)
        return;
    if (client->backlog > QMP_MAX_QUEUE) {
        log_warning("control", "A client does not read its messages; it is disconnected");
        client->closing = true;
        shutdown(client->fd, SHUT_RDWR);
        return;
    }
    struct message *message = g_new0(struct message, 1);
    message->data = g_strconcat(text, "\r\n", NULL);
    message->length = strlen(message->data);
    for (unsigned i = 0; i < fd_count && i < QMP_MAX_FDS; i++) {
        int copy = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
        if (copy >= 0)
            message->fds[message->fd_count++] = copy;
    }
    client->backlog += message->length;
    g_queue_push_tail(&client->output, message);
    if (!client->writable)
        client_flush(client);
}

static void add_timestamp(JsonObject *object)
{
    int64_t now = g_get_real_time();
    JsonObject *timestamp = json_object_new();
    json_object_set_int_member(timestamp, "seconds", now / G_USEC_PER_SEC);
    json_object_set_int_member(timestamp, "microseconds", now % G_USEC_PER_SEC);
    json_object_set_object_member(object, "timestamp", timestamp);
}

void qmp_client_emit(struct qmp_client *client, const char *event, JsonNode *data, const int *fds, unsigned fd_count)
{
    JsonObject *object = json_object_new();
    json_object_set_string_member(object, "event", event);
    if (data)
        json_object_set_member(object, "data", data);
    add_timestamp(object);
    client_send(client, qmp_node_object(object), fds, fd_count);
}

void qmp_server_emit(struct qmp_server *server, const char *event, JsonNode *data)
{
    for (unsigned i = 0; i < server->clients->len; i++) {
        struct qmp_client *client = server->clients->pdata[i];
        if (client->negotiated)
            qmp_client_emit(client, event, data ? json_node_copy(data) : NULL, NULL, 0);
    }
    if (data)
        json_node_unref(data);
}

size_t qmp_client_backlog(struct qmp_client *client)
{
    return client->backlog;
}

void qmp_client_when_drained(struct qmp_client *client, void (*when)(void *opaque), void *opaque)
{
    struct drained drained = {when, opaque};
    if (client->backlog)
        g_array_append_val(client->drained, drained);
    else
        when(opaque);
}

void *qmp_client_data(struct qmp_client *client)
{
    return client->data;
}

void qmp_client_set_data(struct qmp_client *client, void *data)
{
    client->data = data;
}

static void send_error(struct qmp_client *client, JsonNode *id, const char *class_name, const char *code,
                       const char *text)
{
    JsonObject *error = json_object_new(), *reply = json_object_new();
    json_object_set_string_member(error, "class", class_name);
    json_object_set_string_member(error, "desc", text);
    if (code)
        json_object_set_string_member(error, QMP_CODE_MEMBER, code);
    json_object_set_object_member(reply, "error", error);
    if (id)
        json_object_set_member(reply, "id", json_node_copy(id));
    client_send(client, qmp_node_object(reply), NULL, 0);
}

static JsonObject *version_object(void)
{
    unsigned major = 0, minor = 0, micro = 0;
    sscanf(PACKAGE_VERSION, "%u.%u.%u", &major, &minor, &micro);
    JsonObject *numbers = json_object_new(), *version = json_object_new();
    json_object_set_int_member(numbers, "major", major);
    json_object_set_int_member(numbers, "minor", minor);
    json_object_set_int_member(numbers, "micro", micro);
    json_object_set_object_member(version, "qemu", numbers); // the schema's name for the program's version
    json_object_set_string_member(version, "package", PACKAGE_STRING);
    return version;
}

static void send_greeting(struct qmp_client *client)
{
    JsonObject *qmp = json_object_new(), *greeting = json_object_new();
    json_object_set_object_member(qmp, "version", version_object());
    json_object_set_array_member(qmp, "capabilities", json_array_new());
    json_object_set_object_member(greeting, "QMP", qmp);
    client_send(client, qmp_node_object(greeting), NULL, 0);
}

// ---- Commands ----

static const struct qmp_command *find_command(struct qmp_server *server, const char *name)
{
    for (const struct qmp_command *const *table = server->tables; *table; table++)
        for (const struct qmp_command *command = *table; command->name; command++)
            if (strcmp(command->name, name) == 0)
                return command;
    return NULL;
}

static void run_command(struct qmp_call *call, JsonNode *id)
{
    struct qmp_server *server = call->server;
    g_autoptr(GError) error = NULL;
    JsonNode *value = NULL;
    g_autofree char *what = g_strdup_printf("command '%s'", call->command->name);
    if (qmp_check_arguments(call->command->arguments, call->arguments, what, &error) &&
        (!server->ops.enter || server->ops.enter(server->opaque, call->command, &error))) {
        value = call->command->handler(call, &error);
        if (server->ops.leave)
            server->ops.leave(server->opaque, call->command);
    }
    if (error) {
        send_error(call->client, id, qmp_error_class(error), qmp_error_code_name(error), error->message);
        if (value)
            json_node_unref(value);
    } else {
        JsonObject *reply = json_object_new();
        json_object_set_member(reply, "return", value ? value : qmp_node_object(json_object_new()));
        if (id)
            json_object_set_member(reply, "id", json_node_copy(id));
        client_send(call->client, qmp_node_object(reply), call->fds, call->fd_count);
    }
    for (unsigned i = 0; i < call->fd_count; i++)
        close(call->fds[i]);
}

static const struct qmp_argument envelope[] = {QMP_NEED("execute", QMP_STRING), QMP_MAY("arguments", QMP_OBJECT),
                                               QMP_MAY(QMP_FDS_MEMBER, QMP_INT, .min = 0, .max = QMP_MAX_FDS), QMP_END};

static void handle_message(struct qmp_client *client, JsonNode *node)
{
    struct qmp_server *server = client->server;
    JsonObject *object = json_node_get_object(node);
    g_autoptr(JsonNode) id = json_object_dup_member(object, "id");
    g_autoptr(JsonObject) rest = json_object_new();
    g_autoptr(JsonObject) none = json_object_new();
    g_autoptr(GError) error = NULL;
    JsonObjectIter iter;
    const char *name;
    JsonNode *member;
    json_object_iter_init(&iter, object);
    while (json_object_iter_next(&iter, &name, &member))
        if (strcmp(name, "id") != 0)
            json_object_set_member(rest, name, json_node_copy(member));
    if (!qmp_check_arguments(envelope, rest, "a QMP message", &error)) {
        send_error(client, id, "GenericError", "invalid", error->message);
        return;
    }
    name = json_object_get_string_member(rest, "execute");
    const struct qmp_command *command = find_command(server, name);
    bool negotiating = strcmp(name, "qmp_capabilities") == 0;
    if (!client->negotiated && !negotiating) {
        send_error(client, id, "CommandNotFound", NULL, "Expecting capabilities negotiation with 'qmp_capabilities'");
        return;
    }
    if (!command || (client->negotiated && negotiating)) {
        g_autofree char *text = g_strdup_printf("The command %.100s has not been found", name);
        send_error(client, id, "CommandNotFound", NULL,
                   command ? "Capabilities negotiation is already complete, command ignored" : text);
        return;
    }
    struct qmp_call call = {.server = server, .client = client, .command = command, .opaque = server->opaque};
    call.arguments =
        json_object_has_member(rest, "arguments") ? json_object_get_object_member(rest, "arguments") : none;
    call.received_count = client->received_count;
    memcpy(call.received, client->received, sizeof(call.received));
    client->received_count = 0;
    run_command(&call, id);
    for (unsigned i = 0; i < call.received_count; i++)
        close(call.received[i]);
}

static JsonNode *negotiate(struct qmp_call *call, GError **error)
{
    JsonArray *enable = json_object_has_member(call->arguments, "enable")
                            ? json_object_get_array_member(call->arguments, "enable")
                            : NULL;
    if (enable && json_array_get_length(enable)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "No capability of the greeting's empty list can be enabled");
        return NULL;
    }
    call->client->negotiated = true;
    return NULL;
}

static JsonNode *query_version(struct qmp_call *call, GError **error)
{
    return qmp_node_object(version_object());
}

static JsonNode *query_commands(struct qmp_call *call, GError **error)
{
    JsonArray *list = json_array_new();
    for (const struct qmp_command *const *table = call->server->tables; *table; table++)
        for (const struct qmp_command *command = *table; command->name; command++) {
            JsonObject *entry = json_object_new();
            json_object_set_string_member(entry, "name", command->name);
            json_array_add_object_element(list, entry);
        }
    return qmp_node_array(list);
}

static const struct qmp_argument enable_argument[] = {QMP_MAY("enable", QMP_ARRAY), QMP_END};
const struct qmp_command qmp_builtin_commands[] = {
    QMP_COMMAND("qmp_capabilities", negotiate, enable_argument, "Ends the negotiation; commands are accepted."),
    QMP_COMMAND("query-version", query_version, NULL, "Version of the program."),
    QMP_COMMAND("query-commands", query_commands, NULL, "Names of all commands."),
    QMP_END,
};

// ---- Clients ----

static void client_free(struct qmp_client *client)
{
    struct qmp_server *server = client->server;
    g_ptr_array_remove_fast(server->clients, client);
    if (server->ops.client_gone)
        server->ops.client_gone(server->opaque, client);
    stop_source(&client->readable);
    stop_source(&client->writable);
    stop_source(&client->idle);
    g_queue_clear_full(&client->output, message_free);
    for (unsigned i = 0; i < client->received_count; i++)
        close(client->received[i]);
    g_array_free(client->drained, TRUE);
    g_byte_array_free(client->input, TRUE);
    framing_clear(&client->framing);
    close(client->fd);
    g_free(client);
}

// Serves what was read, at most COMMANDS_PER_TURN commands. Returns false when some is left.
static bool serve_input(struct qmp_client *client)
{
    const char *data = (const char *)client->input->data + client->input_at;
    size_t length = client->input->len - client->input_at;
    unsigned budget = COMMANDS_PER_TURN;
    while (length && budget && !client->closing) {
        g_autoptr(JsonNode) node = NULL;
        g_autoptr(GError) error = NULL;
        enum framing_result result = framing_feed(&client->framing, &data, &length, &node, &error);
        client->input_at = client->input->len - length;
        if (result == FRAMING_MORE)
            break;
        budget--;
        if (result == FRAMING_MESSAGE) {
            handle_message(client, node);
            continue;
        }
        send_error(client, NULL, "GenericError", "invalid", error->message);
        if (result == FRAMING_TOO_LONG) {
            client->closing = true;
            shutdown(client->fd, SHUT_RDWR);
        }
    }
    if (length && !client->closing)
        return false;
    g_byte_array_set_size(client->input, 0);
    client->input_at = 0;
    return true;
}

static gboolean client_continue(gpointer data)
{
    struct qmp_client *client = data;
    if (!serve_input(client))
        return G_SOURCE_CONTINUE;
    g_clear_pointer(&client->idle, g_source_unref);
    client->readable = watch(client->server, client->fd, G_IO_IN | G_IO_HUP | G_IO_ERR, client_readable, client);
    return G_SOURCE_REMOVE;
}

static gboolean client_readable(int fd, GIOCondition condition, gpointer data)
{
    struct qmp_client *client = data;
    char chunk[READ_CHUNK];
    int fds[QMP_MAX_FDS];
    unsigned fd_count = 0;
    ssize_t n = transport_receive(fd, chunk, sizeof(chunk), fds, &fd_count);
    for (unsigned i = 0; i < fd_count; i++) {
        if (client->received_count < QMP_MAX_FDS)
            client->received[client->received_count++] = fds[i];
        else
            close(fds[i]);
    }
    if (n < 0 && errno == EAGAIN)
        return G_SOURCE_CONTINUE;
    if (n <= 0) {
        client_free(client);
        return G_SOURCE_REMOVE;
    }
    g_byte_array_append(client->input, (const guint8 *)chunk, n);
    if (serve_input(client))
        return G_SOURCE_CONTINUE;
    // More commands than one turn serves: go on from an idle source, reading nothing meanwhile.
    g_clear_pointer(&client->readable, g_source_unref);
    client->idle = g_idle_source_new();
    g_source_set_callback(client->idle, client_continue, client, NULL);
    g_source_attach(client->idle, client->server->context);
    return G_SOURCE_REMOVE;
}

static gboolean accept_client(int fd, GIOCondition condition, gpointer data)
{
    struct qmp_server *server = data;
    int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (peer < 0)
        return G_SOURCE_CONTINUE;
    if (server->clients->len >= QMP_MAX_CLIENTS) {
        log_warning("control", "More than %d clients: one is refused", QMP_MAX_CLIENTS);
        close(peer);
        return G_SOURCE_CONTINUE;
    }
    struct qmp_client *client = g_new0(struct qmp_client, 1);
    client->server = server;
    client->fd = peer;
    client->input = g_byte_array_new();
    client->drained = g_array_new(FALSE, FALSE, sizeof(struct drained));
    framing_init(&client->framing, FRAMING_MAX_SIZE);
    g_queue_init(&client->output);
    g_ptr_array_add(server->clients, client);
    client->readable = watch(server, peer, G_IO_IN | G_IO_HUP | G_IO_ERR, client_readable, client);
    send_greeting(client);
    return G_SOURCE_CONTINUE;
}

// ---- The server ----

struct qmp_server *qmp_server_new(const char *path, const struct qmp_command *const *tables,
                                  const struct qmp_server_ops *ops, void *opaque, GMainContext *context, GError **error)
{
    int fd = transport_listen(path, error);
    if (fd < 0)
        return NULL;
    struct qmp_server *server = g_new0(struct qmp_server, 1);
    unsigned count = 0;
    while (tables && tables[count])
        count++;
    server->tables = g_new0(const struct qmp_command *, count + 2);
    server->tables[0] = qmp_builtin_commands;
    for (unsigned i = 0; i < count; i++)
        server->tables[i + 1] = tables[i];
    server->path = g_strdup(path);
    server->fd = fd;
    server->context = context ? g_main_context_ref(context) : g_main_context_ref_thread_default();
    if (ops)
        server->ops = *ops;
    server->opaque = opaque;
    server->clients = g_ptr_array_new();
    server->listening = watch(server, fd, G_IO_IN, accept_client, server);
    return server;
}

void qmp_server_free(struct qmp_server *server)
{
    if (!server)
        return;
    while (server->clients->len) {
        struct qmp_client *client = server->clients->pdata[0];
        client_flush(client); // a last event, if the peer takes it now
        client_free(client);
    }
    stop_source(&server->listening);
    close(server->fd);
    unlink(server->path);
    g_ptr_array_free(server->clients, TRUE);
    g_main_context_unref(server->context);
    g_free(server->tables);
    g_free(server->path);
    g_free(server);
}

const struct qmp_command *const *qmp_server_tables(struct qmp_server *server)
{
    return server->tables;
}
