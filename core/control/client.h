// SPDX-License-Identifier: GPL-2.0-or-later
// The program's side of the control protocol: asynchronous for windows, synchronous for the command line.
//
// Threads: a client lives on the thread of its main context; every callback runs there.
#ifndef CLOCHE_CONTROL_CLIENT_H
#define CLOCHE_CONTROL_CLIENT_H

#include "core/base/base.h"
#include "core/base/progress.h"

#include <gio/gio.h>
#include <json-glib/json-glib.h>

struct control_client;
typedef struct control_client control_client_t;

// VALUE is what "return" holds (NULL when ERROR is set). Descriptors left in FDS are closed after the call: a receiver
// that keeps one sets its slot to -1.
typedef void control_reply_fn(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error);
// DATA is never NULL.
typedef void control_event_fn(void *opaque, struct control_client *client, const char *event, JsonObject *data,
                              int *fds, unsigned fd_count);
// The monitor closed the connection or broke the protocol; ERROR says which. Called once; replies still open were
// called with this error before. The client must not be freed inside it other than by control_client_free().
typedef void control_closed_fn(void *opaque, struct control_client *client, const GError *error);

struct control_handlers {
    control_event_fn *event;   // may be NULL
    control_closed_fn *closed; // may be NULL
    void *opaque;
};

// Connects to the socket at PATH (never blocks) on the thread's default main context. Negotiation goes on by itself;
// commands may be sent at once.
struct control_client *control_client_new(const char *path, const struct control_handlers *handlers, GError **error);
// To the monitor of the machine with this UUID. CLOCHE_ERROR_NOT_FOUND: it is not running.
struct control_client *control_client_for_machine(const char *uuid, const struct control_handlers *handlers,
                                                  GError **error);
// Open replies are dropped without a call. May be called from any callback of this client.
void control_client_free(struct control_client *client);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(control_client_t, control_client_free)

// ARGUMENTS (may be NULL) is taken over. REPLY may be NULL. Returns an id for control_client_forget().
uint64_t control_client_send(struct control_client *client, const char *command, JsonObject *arguments,
                             control_reply_fn *reply, void *opaque);
// The reply's function will not be called (its owner is going away).
void control_client_forget(struct control_client *client, uint64_t id);

// For programs without a main loop of their own: runs the main context until the reply is there. TIMEOUT_MS 0: 10 s.
// FDS (room for 4) and FD_COUNT may be NULL. Free with json_node_unref().
JsonNode *control_client_call(struct control_client *client, const char *command, JsonObject *arguments,
                              unsigned timeout_ms, int *fds, unsigned *fd_count, GError **error);
// Runs the main context until the connection ends or TIMEOUT_MS passed (0: for ever). True: it has ended.
bool control_client_wait_closed(struct control_client *client, unsigned timeout_ms);
bool control_client_closed(struct control_client *client);

// Follows the job ID to its end on the thread of CLIENT, passing its progress on; PROGRESS's wish to cancel cancels it.
// It is dismissed then. False: it failed or was cancelled.
bool control_client_follow_job(struct control_client *client, const char *id, struct progress *progress,
                               GError **error);
// Starts COMMAND with ARGUMENTS (taken over) and "job-id" ID, and follows it.
bool control_client_run_job(struct control_client *client, const char *id, const char *command, JsonObject *arguments,
                            struct progress *progress, GError **error);

// Arguments by pairs of "TYPE:NAME" and value, ended by NULL: "s:device", "cd0" (char *), "i:size", (int64_t),
// "b:force", (int), "o:data" (JsonObject *, taken over), "a:keys" (JsonArray *, taken over). A NULL string or object is
// left out.
JsonObject *control_arguments(const char *first, ...) G_GNUC_NULL_TERMINATED;

#endif
