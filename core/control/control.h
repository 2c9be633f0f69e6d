// SPDX-License-Identifier: GPL-2.0-or-later
// The control server of one machine: QMP commands and events over a UNIX socket, on the machine's main loop.
#ifndef CLOCHE_CONTROL_H
#define CLOCHE_CONTROL_H

#include "core/control/qmp.h"
#include "core/machine/machine.h"

struct control_server;

// Serves PATH (created 0600) on machine->context. Free it before the machine.
struct control_server *control_server_new(struct machine *machine, const char *path, GError **error);
void control_server_free(struct control_server *server);
// Of a defined machine: it can be suspended and have snapshots then. NULL (the default): these commands are refused.
struct machine_hold;
void control_server_set_hold(struct control_server *server, struct machine_hold *hold);
// Cancels long work and waits until it has cleaned up: before the machine is suspended or ends.
void control_server_finish_jobs(struct control_server *server);
// Sends an event to every client. DATA (may be NULL) is taken over. Main loop thread.
void control_server_emit(struct control_server *server, const char *event, JsonNode *data);

// The VNC server stands outside core: the monitor's main hands it in. Called on the main loop without the machine lock.
// Any member may be NULL: the command then says that this monitor cannot do it.
struct control_vnc_client {
    unsigned id;
    const char *host, *service;
    bool view_only;
};
struct control_vnc_ops {
    bool (*start)(void *opaque, const char *address, const char *password_file, GError **error);
    void (*stop)(void *opaque);
    // "127.0.0.1:5900" or "unix:PATH" as bound, or NULL when it is off. Free with g_free().
    char *(*address)(void *opaque);
    bool (*has_password)(void *opaque);
    bool (*set_password)(void *opaque, const char *password, GError **error);
    void (*clients)(void *opaque, void (*fn)(void *data, const struct control_vnc_client *client), void *data);
    bool (*disconnect)(void *opaque, unsigned id, GError **error);
};
void control_server_set_vnc(struct control_server *server, const struct control_vnc_ops *ops, void *opaque);

// Serial ports and network cards of the machine, likewise.
struct control_nic {
    const char *id, *backend; // "net0", "user"
    char mac[18];             // "52:54:00:..."
    bool link;
    const char *const *forwards, *const *addresses; // ADDRESSES: what the guest announced, NULL-terminated
    const char *capture;                            // file that its packets go to, NULL: none
    unsigned forward_count;
    uint64_t sent_bytes, received_bytes, dropped; // as the guest sees it; dropped: frames
};
struct control_port_ops {
    // Calls FN with (label, target as reached: "pty:/dev/pts/3") for each character device.
    void (*chardevs)(void *opaque, void (*fn)(void *data, const char *label, const char *target, bool open),
                     void *data);
    // A network card's link; FORWARD as in machine.conf(5), added or removed.
    bool (*set_link)(void *opaque, const char *id, bool up, GError **error);
    bool (*forward)(void *opaque, const char *id, const char *forward, bool add, GError **error);
    bool (*cable)(void *opaque, const char *id, const char *settings, GError **error); // rate, delay, loss, ...
    // Packets of a card into a pcapng file; NULL ends it.
    bool (*capture)(void *opaque, const char *id, const char *file, GError **error);
    void (*nics)(void *opaque, void (*fn)(void *data, const struct control_nic *nic), void *data);
};
void control_server_set_ports(struct control_server *server, const struct control_port_ops *ops, void *opaque);

#endif
