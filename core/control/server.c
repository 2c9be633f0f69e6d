// SPDX-License-Identifier: GPL-2.0-or-later
// Ties the protocol to a machine: which command is legal now, and the lock around it.
#include "core/control/server.h"
#include "core/control/jobs.h"

static bool enter_command(void *opaque, const struct qmp_command *command, GError **error)
{
    struct control_server *server = opaque;
    if (command->request != QMP_ANY_STATE && !machine_request_legal(server->machine, command->request, error))
        return false;
    if (!command->unlocked)
        machine_lock(server->machine);
    return true;
}

static void leave_command(void *opaque, const struct qmp_command *command)
{
    struct control_server *server = opaque;
    if (!command->unlocked)
        machine_unlock(server->machine);
}

static void client_gone(void *opaque, struct qmp_client *client)
{
    struct control_server *server = opaque;
    control_display_client_gone(client);
    clipboard_link_client_gone(server->clipboard, client);
}

static const struct qmp_server_ops ops = {enter_command, leave_command, client_gone};

struct control_server *control_server_new(struct machine *machine, const char *path, GError **error)
{
    static const struct qmp_command *const tables[] = {
        control_run_commands,
        control_block_commands,
        control_screen_commands,
        control_input_commands,
        control_vnc_commands,
        control_port_commands,
        control_job_commands,
        control_info_commands,
        control_snapshot_commands,
        control_clipboard_commands,
        NULL,
    };
    struct control_server *server = g_new0(struct control_server, 1);
    server->machine = machine;
    server->qmp = qmp_server_new(path, tables, &ops, server, machine->context, error);
    if (!server->qmp) {
        g_free(server);
        return NULL;
    }
    server->strokes = stroke_queue_new(machine);
    server->clipboard = clipboard_link_new(server);
    server->jobs = control_jobs_new(server);
    control_events_init(server);
    return server;
}

void control_server_free(struct control_server *server)
{
    if (!server)
        return;
    control_jobs_free(server->jobs);
    control_events_exit(server);
    qmp_server_free(server->qmp);
    clipboard_link_free(server->clipboard);
    stroke_queue_free(server->strokes);
    g_free(server);
}

struct job_list *control_server_jobs(struct control_server *server)
{
    return server->jobs;
}

void control_server_set_hold(struct control_server *server, struct machine_hold *hold)
{
    server->hold = hold;
}

void control_server_finish_jobs(struct control_server *server)
{
    control_jobs_finish(server->jobs);
}

void control_server_emit(struct control_server *server, const char *event, JsonNode *data)
{
    qmp_server_emit(server->qmp, event, data);
}

void control_server_set_vnc(struct control_server *server, const struct control_vnc_ops *vnc, void *opaque)
{
    server->vnc = vnc;
    server->vnc_opaque = opaque;
}

void control_server_set_ports(struct control_server *server, const struct control_port_ops *ports, void *opaque)
{
    server->ports = ports;
    server->ports_opaque = opaque;
}
