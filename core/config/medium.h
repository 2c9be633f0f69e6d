// SPDX-License-Identifier: GPL-2.0-or-later
// Recognises the system on an installer medium (libosinfo) and says what a new machine for it should look like.
#ifndef CLOCHE_MEDIUM_H
#define CLOCHE_MEDIUM_H

#include "core/base/base.h"

struct medium {
    char *os_id;   // "http://debian.org/debian/12", or NULL: not recognised
    char *os_name; // "Debian 12", or NULL
    char *volume;  // label of the medium, or NULL
    bool bootable;
    // What to give it; sane values for unknown systems.
    uint64_t memory; // bytes
    uint64_t disk;   // bytes
    unsigned cpus;
    bool local_time; // Windows and DOS
};

// Looks at PATH. Never fails for a readable file: an unknown system gets defaults. Blocks for the time of a few reads
// and, the first time, of loading the system database (about 0.2 s): call it on a worker thread from a window.
struct medium *medium_recognise(const char *path, GError **error);
// What a system gives by its libosinfo id, without a medium. Never NULL.
struct medium *medium_for_os(const char *os_id);
void medium_free(struct medium *medium);

// The systems that are known: struct known_system *, by name. The database's own, for ever. Blocks the first time as
// medium_recognise() does.
struct known_system {
    char *id, *name; // "http://debian.org/debian/12", "Debian 12"
};
const GPtrArray *medium_systems(void);

#endif
