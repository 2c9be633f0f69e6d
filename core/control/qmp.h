// SPDX-License-Identifier: GPL-2.0-or-later
// The protocol itself, without a machine: a server on a UNIX socket that speaks QMP by tables of commands. The monitor
// and the test double of a monitor are built on it.
//
// Threads: a server and all that belongs to it live on the thread of its main context.
#ifndef CLOCHE_QMP_H
#define CLOCHE_QMP_H

#include "core/base/base.h"

#include <json-glib/json-glib.h>

#define QMP_MAX_CLIENTS 32
#define QMP_MAX_FDS     4 // in one message
#define QMP_FDS_MEMBER                                                                                                 \
    "x-cloche-fds"               // member of a message beside "return", "event" or "execute": how many come with it
#define QMP_MAX_QUEUE (16 * MiB) // unread bytes after which a client is dropped

enum qmp_type { QMP_STRING, QMP_INT, QMP_BOOL, QMP_NUMBER, QMP_OBJECT, QMP_ARRAY };

struct qmp_argument {
    const char *name; // NULL ends the list
    enum qmp_type type;
    bool optional;
    int64_t min, max;           // QMP_INT, where max is not 0
    const char *const *choices; // QMP_STRING
};

#define QMP_NEED(name_, type_, ...)                                                                                    \
    {                                                                                                                  \
        .name = name_, .type = type_, ##__VA_ARGS__                                                                    \
    }
#define QMP_MAY(name_, type_, ...)                                                                                     \
    {                                                                                                                  \
        .name = name_, .type = type_, .optional = true, ##__VA_ARGS__                                                  \
    }
#define QMP_END                                                                                                        \
    {                                                                                                                  \
        .name = NULL                                                                                                   \
    }

struct qmp_server;
struct qmp_client;
struct qmp_call;

// Returns the value of "return" (NULL: an empty object), or NULL and a GError.
typedef JsonNode *qmp_handler(struct qmp_call *call, GError **error);

struct qmp_command {
    const char *name; // NULL ends a table
    qmp_handler *handler;
    const struct qmp_argument *arguments; // NULL: none
    int request;                          // enum machine_request that must be legal now, or QMP_ANY_STATE
    bool unlocked;                        // the handler parks processors: it runs without the machine lock
    const char *help;                     // one line
};
#define QMP_ANY_STATE (-1)
// A command that is legal in every state and runs under the machine lock, and one that follows a rule and locks by
// itself.
#define QMP_COMMAND(name_, handler_, arguments_, help_)                                                                \
    {                                                                                                                  \
        .name = name_, .handler = handler_, .arguments = arguments_, .request = QMP_ANY_STATE, .help = help_           \
    }
#define QMP_REQUEST(name_, handler_, arguments_, request_, help_)                                                      \
    {                                                                                                                  \
        .name = name_, .handler = handler_, .arguments = arguments_, .request = request_, .unlocked = true,            \
        .help = help_                                                                                                  \
    }

struct qmp_call {
    struct qmp_server *server;
    struct qmp_client *client;
    const struct qmp_command *command;
    JsonObject *arguments; // checked; never NULL
    void *opaque;          // the server's
    // Descriptors to send with the reply; the server closes them.
    int fds[QMP_MAX_FDS];
    unsigned fd_count;
    // Descriptors that came with the command; those left here are closed.
    int received[QMP_MAX_FDS];
    unsigned received_count;
};

struct qmp_server_ops {
    // Around a command's handler: ENTER may refuse it, LEAVE follows when it did not. Both may be NULL.
    bool (*enter)(void *opaque, const struct qmp_command *command, GError **error);
    void (*leave)(void *opaque, const struct qmp_command *command);
    void (*client_gone)(void *opaque, struct qmp_client *client); // may be NULL
};

// TABLES: NULL-terminated list of tables. PATH: the socket, mode 0600; a stale one is replaced. CONTEXT NULL: the
// thread's default. OPS may be NULL.
struct qmp_server *qmp_server_new(const char *path, const struct qmp_command *const *tables,
                                  const struct qmp_server_ops *ops, void *opaque, GMainContext *context,
                                  GError **error);
void qmp_server_free(struct qmp_server *server);
const struct qmp_command *const *qmp_server_tables(struct qmp_server *server);

// Sends an event to every client that has negotiated. DATA (may be NULL) is taken over.
void qmp_server_emit(struct qmp_server *server, const char *event, JsonNode *data);
// The same to one client, with descriptors, which are duplicated as needed and stay the caller's.
void qmp_client_emit(struct qmp_client *client, const char *event, JsonNode *data, const int *fds, unsigned fd_count);
// Bytes that the client has not read yet; a source of frequent events holds back while there are many.
size_t qmp_client_backlog(struct qmp_client *client);
// WHEN is called once the backlog is empty (at once from the main context if it is).
void qmp_client_when_drained(struct qmp_client *client, void (*when)(void *opaque), void *opaque);
// A slot for the owner of OPAQUE's per-client state, freed by ops->client_gone.
void *qmp_client_data(struct qmp_client *client);
void qmp_client_set_data(struct qmp_client *client, void *data);

// Values. Each takes over OBJECT or ARRAY.
JsonNode *qmp_node_object(JsonObject *object);
JsonNode *qmp_node_array(JsonArray *array);
JsonNode *qmp_node_string(const char *text);

// Arguments of a call, already checked against the table.
const char *qmp_string(struct qmp_call *call, const char *name); // NULL: not given
int64_t qmp_int(struct qmp_call *call, const char *name, int64_t missing);
bool qmp_bool(struct qmp_call *call, const char *name, bool missing);
// Checks OBJECT against a table: unknown names, missing ones, types, ranges. WHAT stands in front of the sentence.
bool qmp_check_arguments(const struct qmp_argument *arguments, JsonObject *object, const char *what, GError **error);
// Our own error codes travel as a word beside class and description ("exists", "busy"); NULL: no word for it.
#define QMP_CODE_MEMBER "x-cloche-code"
const char *qmp_error_code_name(const GError *error);
enum cloche_error qmp_error_code(const char *name, enum cloche_error missing);
// The class of QMP that an error of ours has: "DeviceNotFound" for things not found, else "GenericError".
const char *qmp_error_class(const GError *error);

// Built into every server: qmp_capabilities, query-version, query-commands.
extern const struct qmp_command qmp_builtin_commands[];

#endif
