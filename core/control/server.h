// SPDX-License-Identifier: GPL-2.0-or-later
// Private to core/control: the machine's server from the inside.
#ifndef CLOCHE_CONTROL_SERVER_H
#define CLOCHE_CONTROL_SERVER_H

#include "core/control/control.h"
#include "core/control/qmp.h"

struct job_list;
struct stroke_queue;
struct clipboard_link;

// Main loop thread only, but the event queue.
struct control_server {
    struct machine *machine;
    struct qmp_server *qmp;
    struct machine_hold *hold; // or NULL
    struct job_list *jobs;
    struct stroke_queue *strokes;
    struct clipboard_link *clipboard;
    int pointer_x, pointer_y; // last absolute position of input-send-event
    const struct control_vnc_ops *vnc;
    void *vnc_opaque;
    const struct control_port_ops *ports;
    void *ports_opaque;
    bool was_running;
    GMutex events_lock;
    GQueue events; // struct machine_news *, from any thread
    GSource *events_source;
};

extern const struct qmp_command control_run_commands[], control_block_commands[], control_screen_commands[],
    control_input_commands[], control_vnc_commands[], control_port_commands[], control_job_commands[],
    control_info_commands[], control_snapshot_commands[], control_clipboard_commands[];

static inline struct control_server *call_server(struct qmp_call *call)
{
    return call->opaque;
}
static inline struct machine *call_machine(struct qmp_call *call)
{
    return call_server(call)->machine;
}

void control_events_init(struct control_server *server);
void control_events_exit(struct control_server *server);
void control_display_client_gone(struct qmp_client *client);
struct clipboard_link *clipboard_link_new(struct control_server *server);
void clipboard_link_free(struct clipboard_link *link);
void clipboard_link_client_gone(struct clipboard_link *link, struct qmp_client *client);
struct stroke_queue *stroke_queue_new(struct machine *machine);
void stroke_queue_free(struct stroke_queue *queue);
// Takes the snapshot NEW (taken over) of the running or paused machine as job ID.
struct snapshot;
bool control_snapshot_take(struct control_server *server, const char *id, const char *folder, struct snapshot *new,
                           GError **error);
struct job_list *control_jobs_new(struct control_server *server);
void control_jobs_free(struct job_list *jobs);
// Text of `info WHAT`, or NULL and an error. vCPUs are parked while it is made.
char *control_info_text(struct control_server *server, const char *what, GError **error);

#endif
