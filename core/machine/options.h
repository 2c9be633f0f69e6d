// SPDX-License-Identifier: GPL-2.0-or-later
// The description of one machine, filled in by the command line or by machine.conf and turned into a running machine by
// machine_new(). Plain data: owned strings, freed by machine_options_free().
#ifndef CLOCHE_MACHINE_OPTIONS_H
#define CLOCHE_MACHINE_OPTIONS_H

#include "core/base/base.h"

enum drive_kind { DRIVE_DISK, DRIVE_CDROM, DRIVE_FLOPPY };
struct drive_options {
    enum drive_kind kind;
    char *id;          // "disk0"; given by the parser if the person gave none
    char *file;        // NULL: an empty drive
    char *format;      // NULL: probe
    char *interface;   // "ide", "virtio", "floppy"; NULL: the kind's default
    bool read_only;
    bool direct;       // O_DIRECT
    char *on_error;    // "pause" (default: pause on no space, report others), "report"
};
struct nic_options {
    char *id, *card, *backend, *mac; // card: virtio-net, e1000, rtl8139, pcnet, ne2k; backend: user, team:NAME, tap:NAME, none
    char **forwards;                 // "tcp:127.0.0.1:2222-22"
    char *settings;                  // further back-end settings as given: "rate=10M,delay=5"
};
struct serial_options {
    char *target;      // stdio, file:PATH, socket:PATH, pty, null, ...
};

struct machine_options {
    char *name, *uuid;
    char *folder;          // of a defined machine, NULL for direct use
    uint64_t memory;       // bytes
    unsigned cpus;
    char *cpu_model, *engine;
    char *bios, *kernel, *initrd, *append;
    char *boot_order;      // letters of c d a n
    bool boot_menu;
    GPtrArray *drives;     // struct drive_options *
    GPtrArray *nics;       // struct nic_options *
    GPtrArray *serials;    // struct serial_options *
    GPtrArray *devices;    // char *: "class,property=value,..." as given by --device
    char *display_adapter; // "vga", "virtio-gpu", "none"
    char *vnc;             // "ADDRESS:NUMBER", "unix:PATH" or NULL
    char *vnc_password_file;
    char *control_socket;  // path, or NULL
    char *debug_output;    // where ports 0x402 and 0xE9 go: file:PATH, stdio, or NULL
    char *screenshot;      // --screenshot FILE: written at exit, or NULL
    char *load_state;      // a state file to resume from, or NULL
    bool no_reboot;
    bool start_paused;
    bool rtc_local;
};

struct machine_options *machine_options_new(void); // defaults
void machine_options_free(struct machine_options *options);

struct machine;
// Builds the board with everything on it, not started. The error names the option that is wrong and the cure; nothing has
// been created then. Implemented beside the board (devices/chipset/board.c), which reads like a wiring diagram.
struct machine *machine_new(const struct machine_options *options, GError **error);
void machine_free(struct machine *machine);

#endif
