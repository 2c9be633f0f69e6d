// SPDX-License-Identifier: GPL-2.0-or-later
// The network side of the VNC server: listening sockets, connections, and the pump between a connection and the socket
// pair at whose other end libvncserver sits. Everything non-blocking, on one thread ("vnc-net").
#ifndef CLOCHE_VNC_NET_H
#define CLOCHE_VNC_NET_H

#include "ui/vnc/framing.h"
#include "ui/vnc/vnc.h"

// Shared by both threads; reference counted. Members without a remark belong to the net thread.
struct vnc_client {
    _Atomic int references;
    unsigned id;
    char *peer;
    int net_fd, pair_fd;
    int library_fd; // passed to the protocol side with the client
    struct framing framing;
    GByteArray *in;  // from the network, not a whole message yet or not taken yet
    size_t passed;   // of IN: whole messages that were checked
    bool adopt;      // the protocol side is to be told of it
    GByteArray *out; // from libvncserver, for the network; sent from OUT_DONE on
    size_t out_done;
    unsigned version_left; // of libvncserver's own version line, which we sent already
    uint8_t choice[4];     // the first bytes after it, for version 3.3
    unsigned choice_count;
    int64_t born, progress; // host monotonic microseconds: connected; the network took bytes
    bool closing;           // libvncserver is done: send what is left, then close
    _Atomic size_t backlog; // bytes that wait for the network
    _Atomic uint64_t sent;
    _Atomic bool kill; // any thread: close it
    _Atomic bool established, shared, view_only;
};
struct vnc_client *vnc_client_ref(struct vnc_client *client);
void vnc_client_unref(struct vnc_client *client);

struct vnc_net;
// Called on the net thread: CLIENT spoke its version and is to be served on library_fd. Takes over a reference and the
// fd.
typedef void vnc_adopt(void *opaque, struct vnc_client *client);

// WHERE as in vnc_options without the options after the comma.
struct vnc_net *vnc_net_new(const char *where, unsigned max_clients, GError **error);
void vnc_net_start(struct vnc_net *net, vnc_adopt *adopt, void *opaque);
void vnc_net_free(struct vnc_net *net); // closes everything; the thread is gone afterwards
const char *vnc_net_address(const struct vnc_net *net);
bool vnc_net_local(const struct vnc_net *net); // only this host can reach it
void vnc_net_wake(struct vnc_net *net);
GPtrArray *vnc_net_clients(struct vnc_net *net); // references, for any thread

#endif
