// SPDX-License-Identifier: GPL-2.0-or-later
// Where a character device's bytes go: standard input and output, a file, a socket, a pseudo-terminal, nowhere.
// Output is buffered and never lost while the other side lives; a device that sees char_backend_busy() lets its guest
// wait.
#ifndef CLOCHE_CHAR_BACKEND_H
#define CLOCHE_CHAR_BACKEND_H

#include "core/base/base.h"

// The device side. Called on the main loop's thread with the machine lock held.
struct char_frontend {
    unsigned (*can_receive)(void *opaque); // bytes that it has room for now
    void (*receive)(void *opaque, const uint8_t *data, unsigned length);
    void (*drained)(void *opaque);                   // no longer busy
    void (*connected)(void *opaque, bool connected); // a person or program listens: carrier
    void (*lines)(void *opaque, uint8_t lines);      // a host device's modem lines changed; may be NULL
};

struct char_backend;

enum char_lines { CHAR_CTS = 1, CHAR_DSR = 2, CHAR_RI = 4, CHAR_DCD = 8 };

struct char_format {
    unsigned baud, bits;
    bool parity, odd, two_stops;
};

// TARGET: stdio | pty | null | file:PATH | socket:PATH (UNIX, listening) | tcp:ADDRESS:PORT and telnet:ADDRESS:PORT
// (listening) | unix:PATH and tcp-client:HOST:PORT (connecting, again and again until somebody answers) | device:PATH
// (a serial device of the host) | program:COMMAND (its standard input and output). What is written while nobody listens
// is kept, the last 64 KiB of it. The error names what is wrong and the cure. CONTEXT: of the main loop.
struct char_backend *char_backend_open(const char *target, GMainContext *context, GRecMutex *machine_lock,
                                       GError **error);
// Writes out what is buffered (for 2 seconds at most), puts the terminal back.
void char_backend_free(struct char_backend *backend);
void char_backend_attach(struct char_backend *backend, const struct char_frontend *frontend, void *opaque);
// Any thread.
void char_backend_write(struct char_backend *backend, const void *data, size_t length);
bool char_backend_busy(struct char_backend *backend);
// The lines that come from the other side, enum char_lines. Those of a host device are the real ones.
uint8_t char_backend_lines(struct char_backend *backend);
// The guest's lines and the format of its characters, for a host device.
void char_backend_set_lines(struct char_backend *backend, bool dtr, bool rts);
void char_backend_set_format(struct char_backend *backend, const struct char_format *format);
// The device has room again.
void char_backend_accept_input(struct char_backend *backend);
// What a person connects to: "/dev/pts/5", a path, or NULL. Owned by the backend.
const char *char_backend_address(struct char_backend *backend);
// As QEMU's query-chardev names it: "pty:/dev/pts/5", "unix:PATH,server=on", "disconnected:..." while nobody has
// connected to a listening one. Free with g_free(). Main loop thread.
char *char_backend_describe(struct char_backend *backend);
// A person typed Ctrl-A x on a stdio back end's terminal: FN is called on the main loop's thread. One for the process,
// as its terminal is.
void char_backend_on_quit(void (*fn)(void *opaque), void *opaque);
// Puts the terminal back if a stdio back end changed it. Async-signal-safe, for ends that skip char_backend_free().
void char_backend_restore_terminal(void);

#endif
