// SPDX-License-Identifier: GPL-2.0-or-later
// Between backend.c, which moves bytes, and targets.c, which opens what they go to.
#ifndef CLOCHE_CHAR_BACKEND_PRIVATE_H
#define CLOCHE_CHAR_BACKEND_PRIVATE_H

#include "devices/char/backend.h"

#include <glib-unix.h>
#include <sys/socket.h>

struct char_backend {
    GMainContext *context;
    GRecMutex *machine_lock;
    const struct char_frontend *frontend;
    void *opaque;
    char *address;
    char *target;                     // as it was asked for
    int read_fd, write_fd, listen_fd; // -1: none
    int terminal_fd; // of a pseudo-terminal: kept open, so that it does not hang up while nobody else has it
    bool terminal, socket, owns_fds, escaped, unlink_address;
    bool client;                  // connects, and again whenever the other side is gone
    struct sockaddr_storage peer; // of a client
    socklen_t peer_length;
    int pending_fd;        // of a connection that is being made, -1: none
    struct telnet *telnet; // NULL: bytes as they are
    bool modem;            // a host's serial device with modem lines
    uint8_t modem_lines;   // as last seen
    GPid child;            // of a program, 0: none
    // Under LOCK:
    GMutex lock;
    GByteArray *out;
    bool was_busy;
    GSource *out_watch;
    // Main loop's thread:
    GSource *in_watch, *accept_watch, *retry, *connect_watch, *modem_watch;
};

struct char_target {
    const char *name; // with its colon where an ARGUMENT follows
    bool argument;
    bool (*open)(struct char_backend *b, const char *argument, GError **error);
};
extern const struct char_target char_targets[]; // the last has no name

// ---- backend.c, for targets.c ----
GSource *char_backend_watch(struct char_backend *b, int fd, GIOCondition condition, GUnixFDSourceFunc fn);
void char_backend_unwatch(GSource **source);
void char_backend_take_terminal(void); // makes standard input raw, if it is a terminal
// FD is the other side now. Main loop thread, machine lock not held.
void char_backend_connected(struct char_backend *b, int fd);

// ---- targets.c, for backend.c ----
void char_target_connect(struct char_backend *b); // a client: tries now, and again until somebody answers
void char_target_close(struct char_backend *b);   // stops what it does by itself

// ---- telnet.c: RFC 854, 856 to 858 ----
struct telnet *telnet_new(void);
void telnet_free(struct telnet *telnet);
// Appends what opens the conversation; the other side's answers begin anew.
void telnet_start(struct telnet *telnet, GByteArray *out);
// Appends LENGTH bytes as they go over the wire.
void telnet_encode(struct telnet *telnet, GByteArray *out, const uint8_t *data, size_t length);
// Takes commands out of what came, in place; returns the bytes left.
unsigned telnet_decode(struct telnet *telnet, uint8_t *data, unsigned length);

#endif
