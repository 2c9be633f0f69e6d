// SPDX-License-Identifier: GPL-2.0-or-later
// The VNC server of one machine: a listener of one surface and a source of input. libvncserver speaks the protocol on
// one thread of ours ("vnc"); a second thread ("vnc-net") owns the network sockets and hands libvncserver one end of a
// socket pair per client, so that nobody's slow, dead or hostile connection holds anybody else up.
//
// VNC passwords have 8 characters at most and nothing is encrypted: use it over an ssh tunnel.
#ifndef CLOCHE_VNC_H
#define CLOCHE_VNC_H

#include "core/screen/input.h"
#include "core/screen/surface.h"

struct vnc_server;

struct vnc_options {
    // "ADDRESS:NUMBER" or "unix:PATH", then optional ",clients=N", ",exclusive", ",head=N". An empty ADDRESS is
    // 127.0.0.1; IPv6 in brackets; display NUMBER is port 5900 + NUMBER; "auto" takes the first free one from 0 to 99.
    const char *where;
    // First line: the password; second line, if any: the view-only password. Nobody but its owner may read the file.
    // NULL: no password.
    const char *password_file;
    const char *name; // of the machine, shown by viewers
    // A client's new clipboard text, UTF-8. On the "vnc" thread. May be NULL.
    void (*clipboard)(void *opaque, const char *text);
    void *opaque;
};

// Listens at once. SCREEN (with its head made) and INPUT must outlive it. The error names address or file and the cure.
struct vnc_server *vnc_server_new(struct screen *screen, struct input *input, const struct vnc_options *options,
                                  GError **error);
void vnc_server_free(struct vnc_server *server);

// The rest may be called from any thread.
char *vnc_server_address(struct vnc_server *server); // as bound: "127.0.0.1:5901", "[::1]:5901", "unix:/path"; g_free()
// Replaces the passwords; NULL or "" is none. Refused when that leaves an address beyond this host without a password,
// when PASSWORD has more than 8 characters, or when both are the same.
bool vnc_server_set_passwords(struct vnc_server *server, const char *password, const char *view_password,
                              GError **error);
// Replaces the password alone; the view-only password stays.
bool vnc_server_set_password(struct vnc_server *server, const char *password, GError **error);
bool vnc_server_load_passwords(struct vnc_server *server, const char *file, GError **error);
bool vnc_server_has_password(struct vnc_server *server);

struct vnc_client_info {
    unsigned id;
    char *peer; // "127.0.0.1:43210", or "unix"
    bool shared, view_only;
    bool established; // past password and initialisation
    uint64_t sent;    // bytes
};
GArray *vnc_server_clients(struct vnc_server *server);              // struct vnc_client_info; g_array_unref() frees all
bool vnc_server_disconnect(struct vnc_server *server, unsigned id); // 0: everybody. False: no such client
void vnc_server_set_clipboard(struct vnc_server *server, const char *text); // the guest's, to all clients

#endif
