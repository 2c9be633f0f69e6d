// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/control/client.h"
#include "core/config/library.h"
#include "core/control/framing.h"
#include "core/control/qmp.h"
#include "core/control/transport.h"

#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <unistd.h>

#define CLIENT_MAX_MESSAGE (8 * MiB) // a monitor is trusted a little more than its clients, not without limit
#define CLIENT_MAX_FDS     16

struct open_call {
    control_reply_fn *reply;
    void *opaque;
};

struct control_client {
    int references; // a callback in progress holds one
    int fd;
    bool closed, freed;
    GMainContext *context;
    GSource *readable, *writable;
    struct framing framing;
    GString *output;
    GHashTable *calls; // id -> struct open_call *
    uint64_t next_id;
    struct control_handlers handlers;
    int fds[CLIENT_MAX_FDS]; // received, not yet claimed by a message
    unsigned fd_count;
};

static gboolean client_writable(int fd, GIOCondition condition, gpointer data);

static void stop_source(GSource **source)
{
    if (*source) {
        g_source_destroy(*source);
        g_clear_pointer(source, g_source_unref);
    }
}

static void client_unref(struct control_client *client)
{
    if (--client->references)
        return;
    stop_source(&client->readable);
    stop_source(&client->writable);
    for (unsigned i = 0; i < client->fd_count; i++)
        close(client->fds[i]);
    if (client->fd >= 0)
        close(client->fd);
    framing_clear(&client->framing);
    g_string_free(client->output, TRUE);
    g_hash_table_destroy(client->calls);
    g_main_context_unref(client->context);
    g_free(client);
}

// ---- The end ----

static void client_close(struct control_client *client, const GError *error)
{
    if (client->closed)
        return;
    client->closed = true;
    client->references++;
    stop_source(&client->readable);
    stop_source(&client->writable);
    close(client->fd);
    client->fd = -1;
    GHashTable *calls = client->calls;
    client->calls = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
    GHashTableIter iter;
    gpointer value;
    g_hash_table_iter_init(&iter, calls);
    while (!client->freed && g_hash_table_iter_next(&iter, NULL, &value)) {
        struct open_call *call = value;
        if (call->reply)
            call->reply(call->opaque, NULL, NULL, 0, error);
    }
    g_hash_table_destroy(calls);
    if (!client->freed && client->handlers.closed)
        client->handlers.closed(client->handlers.opaque, client, error);
    client_unref(client);
}

static void G_GNUC_PRINTF(2, 3) client_fail(struct control_client *client, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autoptr(GError) error = g_error_new_valist(CLOCHE_ERROR, CLOCHE_ERROR_FAILED, format, args);
    va_end(args);
    client_close(client, error);
}

void control_client_free(struct control_client *client)
{
    if (!client || client->freed)
        return;
    client->freed = true;
    client->closed = true;
    stop_source(&client->readable);
    stop_source(&client->writable);
    client_unref(client);
}

// ---- Sending ----

static void client_flush(struct control_client *client)
{
    while (client->output->len) {
        ssize_t n = transport_send(client->fd, client->output->str, client->output->len, NULL, 0);
        if (n < 0 && errno == EAGAIN) {
            if (!client->writable) {
                client->writable = g_unix_fd_source_new(client->fd, G_IO_OUT);
                g_source_set_callback(client->writable, G_SOURCE_FUNC(client_writable), client, NULL);
                g_source_attach(client->writable, client->context);
            }
            return;
        }
        if (n < 0) // the reading side will report the end
            break;
        g_string_erase(client->output, 0, n);
    }
    stop_source(&client->writable);
}

static gboolean client_writable(int fd, GIOCondition condition, gpointer data)
{
    client_flush(data);
    return G_SOURCE_CONTINUE;
}

struct late_failure {
    control_reply_fn *reply;
    void *opaque;
};

static gboolean fail_later(gpointer data)
{
    struct late_failure *late = data;
    g_autoptr(GError) error = g_error_new(CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "The machine is not running any more");
    late->reply(late->opaque, NULL, NULL, 0, error);
    return G_SOURCE_REMOVE;
}

// The connection has ended: the answer comes from the main context all the same, never from inside the call.
static void refuse_later(struct control_client *client, control_reply_fn *reply, void *opaque)
{
    struct late_failure *late = g_new(struct late_failure, 1);
    *late = (struct late_failure){reply, opaque};
    GSource *source = g_idle_source_new();
    g_source_set_callback(source, fail_later, late, g_free);
    g_source_attach(source, client->context);
    g_source_unref(source);
}

uint64_t control_client_send(struct control_client *client, const char *command, JsonObject *arguments,
                             control_reply_fn *reply, void *opaque)
{
    uint64_t id = ++client->next_id;
    if (client->closed) {
        if (arguments)
            json_object_unref(arguments);
        if (reply)
            refuse_later(client, reply, opaque);
        return id;
    }
    JsonObject *message = json_object_new();
    json_object_set_string_member(message, "execute", command);
    if (arguments)
        json_object_set_object_member(message, "arguments", arguments);
    json_object_set_int_member(message, "id", id);
    g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), message);
    json_object_unref(message);
    g_autofree char *text = json_to_string(node, FALSE);
    struct open_call *call = g_new(struct open_call, 1);
    *call = (struct open_call){reply, opaque};
    g_hash_table_insert(client->calls, g_memdup2(&id, sizeof(id)), call);
    g_string_append(client->output, text);
    g_string_append_c(client->output, '\n');
    if (!client->writable)
        client_flush(client);
    return id;
}

void control_client_forget(struct control_client *client, uint64_t id)
{
    struct open_call *call = g_hash_table_lookup(client->calls, &id);
    if (call)
        call->reply = NULL;
}

// ---- Receiving ----

static GError *reply_error(JsonObject *object)
{
    static const struct {
        const char *name;
        enum cloche_error code;
    } classes[] = {{"DeviceNotFound", CLOCHE_ERROR_NOT_FOUND}, {"CommandNotFound", CLOCHE_ERROR_UNSUPPORTED}};
    const char *name = json_object_get_string_member_with_default(object, "class", "GenericError");
    const char *text = json_object_get_string_member_with_default(object, "desc", "The monitor gave no reason");
    enum cloche_error code = CLOCHE_ERROR_FAILED;
    for (unsigned i = 0; i < G_N_ELEMENTS(classes); i++)
        if (g_strcmp0(name, classes[i].name) == 0)
            code = classes[i].code;
    code = qmp_error_code(json_object_get_string_member_with_default(object, QMP_CODE_MEMBER, NULL), code);
    return g_error_new_literal(CLOCHE_ERROR, code, text ? text : "The monitor gave no reason");
}

static JsonObject *member_object(JsonObject *object, const char *name)
{
    JsonNode *node = json_object_get_member(object, name);
    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

static void handle_reply(struct control_client *client, JsonObject *object, int *fds, unsigned fd_count)
{
    JsonNode *id_node = json_object_get_member(object, "id");
    if (!id_node || !JSON_NODE_HOLDS_VALUE(id_node))
        return; // an error for bytes that were no command: not from us
    int64_t id = json_node_get_int(id_node);
    g_autofree struct open_call *call = NULL;
    gpointer key, value;
    if (!g_hash_table_steal_extended(client->calls, &id, &key, &value))
        return;
    g_free(key);
    call = value;
    if (!call->reply)
        return;
    JsonObject *failure = member_object(object, "error");
    g_autoptr(GError) error = failure ? reply_error(failure) : NULL;
    call->reply(call->opaque, error ? NULL : json_object_get_member(object, "return"), fds, fd_count, error);
}

static void handle_message(struct control_client *client, JsonNode *node)
{
    JsonObject *object = json_node_get_object(node);
    int fds[TRANSPORT_MAX_FDS];
    unsigned wanted = CLAMP(json_object_get_int_member_with_default(object, "x-cloche-fds", 0), 0, TRANSPORT_MAX_FDS);
    if (wanted > client->fd_count) {
        client_fail(client, "The monitor announced a descriptor and sent none");
        return;
    }
    memcpy(fds, client->fds, wanted * sizeof(int));
    client->fd_count -= wanted;
    memmove(client->fds, client->fds + wanted, client->fd_count * sizeof(int));
    const char *event = json_object_get_string_member_with_default(object, "event", NULL);
    if (event && client->handlers.event) {
        g_autoptr(JsonObject) none = json_object_new();
        JsonObject *data = member_object(object, "data");
        client->handlers.event(client->handlers.opaque, client, event, data ? data : none, fds, wanted);
    } else if (json_object_has_member(object, "return") || json_object_has_member(object, "error")) {
        handle_reply(client, object, fds, wanted);
    }
    for (unsigned i = 0; i < wanted; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static void take_fds(struct control_client *client, const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (client->fd_count < CLIENT_MAX_FDS)
            client->fds[client->fd_count++] = fds[i];
        else
            close(fds[i]);
    }
}

static gboolean client_readable(int fd, GIOCondition condition, gpointer data)
{
    struct control_client *client = data;
    g_autofree char *chunk = g_malloc(65536);
    int fds[TRANSPORT_MAX_FDS];
    unsigned fd_count = 0;
    ssize_t n = transport_receive(fd, chunk, 65536, fds, &fd_count);
    if (n < 0 && errno == EAGAIN)
        return G_SOURCE_CONTINUE;
    client->references++;
    take_fds(client, fds, fd_count);
    if (n <= 0)
        client_fail(client, "The machine's monitor has ended");
    const char *rest = chunk;
    size_t length = n > 0 ? n : 0;
    while (length && !client->closed) {
        g_autoptr(JsonNode) node = NULL;
        g_autoptr(GError) error = NULL;
        enum framing_result result = framing_feed(&client->framing, &rest, &length, &node, &error);
        if (result == FRAMING_MESSAGE)
            handle_message(client, node);
        else if (result != FRAMING_MORE)
            client_fail(client, "The monitor broke the protocol: %s", error->message);
    }
    client_unref(client);
    return G_SOURCE_CONTINUE; // its source is destroyed where the client closes
}

// ---- Creation ----

struct control_client *control_client_new(const char *path, const struct control_handlers *handlers, GError **error)
{
    int fd = transport_connect(path, error);
    if (fd < 0)
        return NULL;
    struct control_client *client = g_new0(struct control_client, 1);
    client->references = 1;
    client->fd = fd;
    client->context = g_main_context_ref_thread_default();
    client->output = g_string_new(NULL);
    client->calls = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
    if (handlers)
        client->handlers = *handlers;
    framing_init(&client->framing, CLIENT_MAX_MESSAGE);
    client->readable = g_unix_fd_source_new(fd, G_IO_IN | G_IO_HUP | G_IO_ERR);
    g_source_set_callback(client->readable, G_SOURCE_FUNC(client_readable), client, NULL);
    g_source_attach(client->readable, client->context);
    control_client_send(client, "qmp_capabilities", NULL, NULL, NULL);
    return client;
}

struct control_client *control_client_for_machine(const char *uuid, const struct control_handlers *handlers,
                                                  GError **error)
{
    g_autofree char *folder = machine_runtime_folder(uuid, false, error);
    if (!folder)
        return NULL;
    g_autofree char *path = g_build_filename(folder, "control", NULL);
    return control_client_new(path, handlers, error);
}

bool control_client_closed(struct control_client *client)
{
    return client->closed;
}

// ---- Synchronous use ----

struct sync_call {
    bool done, late;
    JsonNode *value;
    GError *error;
    int *fds;
    unsigned *fd_count;
};

static void sync_reply(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    struct sync_call *sync = opaque;
    sync->done = true;
    sync->value = value ? json_node_copy(value) : NULL;
    sync->error = error ? g_error_copy(error) : NULL;
    for (unsigned i = 0; sync->fds && i < fd_count; i++) {
        sync->fds[i] = fds[i];
        fds[i] = -1;
    }
    if (sync->fd_count)
        *sync->fd_count = sync->fds ? fd_count : 0;
}

static gboolean sync_timeout(gpointer data)
{
    ((struct sync_call *)data)->late = true;
    return G_SOURCE_REMOVE;
}

static GSource *start_timeout(struct control_client *client, unsigned timeout_ms, struct sync_call *sync)
{
    GSource *timeout = g_timeout_source_new(timeout_ms);
    g_source_set_callback(timeout, sync_timeout, sync, NULL);
    g_source_attach(timeout, client->context);
    return timeout;
}

JsonNode *control_client_call(struct control_client *client, const char *command, JsonObject *arguments,
                              unsigned timeout_ms, int *fds, unsigned *fd_count, GError **error)
{
    struct sync_call sync = {.fds = fds, .fd_count = fd_count};
    uint64_t id = control_client_send(client, command, arguments, sync_reply, &sync);
    GSource *timeout = start_timeout(client, timeout_ms ? timeout_ms : 10000, &sync);
    while (!sync.done && !sync.late)
        g_main_context_iteration(client->context, TRUE);
    stop_source(&timeout);
    if (!sync.done) {
        control_client_forget(client, id);
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "The machine did not answer \"%s\" in time; its log says more", command);
        return NULL;
    }
    if (sync.error)
        g_propagate_error(error, sync.error);
    return sync.value;
}

bool control_client_wait_closed(struct control_client *client, unsigned timeout_ms)
{
    struct sync_call sync = {0};
    GSource *timeout = timeout_ms ? start_timeout(client, timeout_ms, &sync) : NULL;
    while (!client->closed && !sync.late)
        g_main_context_iteration(client->context, TRUE);
    stop_source(&timeout);
    return client->closed;
}

// ---- Arguments ----

static void add_argument(JsonObject *object, const char *spec, va_list *args)
{
    const char *name = spec + 2;
    void *pointer;
    switch (spec[0]) {
    case 's':
        if ((pointer = va_arg(*args, char *)))
            json_object_set_string_member(object, name, pointer);
        break;
    case 'i':
        json_object_set_int_member(object, name, va_arg(*args, int64_t));
        break;
    case 'b':
        json_object_set_boolean_member(object, name, va_arg(*args, int));
        break;
    case 'o':
        if ((pointer = va_arg(*args, JsonObject *)))
            json_object_set_object_member(object, name, pointer);
        break;
    case 'a':
        if ((pointer = va_arg(*args, JsonArray *)))
            json_object_set_array_member(object, name, pointer);
        break;
    default:
        g_error("control_arguments: unknown type in \"%s\"", spec);
    }
}

JsonObject *control_arguments(const char *first, ...)
{
    JsonObject *object = json_object_new();
    va_list args;
    va_start(args, first);
    for (const char *spec = first; spec; spec = va_arg(args, const char *))
        add_argument(object, spec, &args);
    va_end(args);
    return object;
}
