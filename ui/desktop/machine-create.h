// SPDX-License-Identifier: GPL-2.0-or-later
// Makes a machine folder from a plan. Runs on a worker thread; a failure or cancel leaves nothing behind.
#ifndef CLOCHE_DESKTOP_MACHINE_CREATE_H
#define CLOCHE_DESKTOP_MACHINE_CREATE_H

#include "core/config/library.h"

#include <gio/gio.h>

struct machine_plan {
    char *name, *os_id;
    char *cdrom, *existing_disk, *kernel, *initrd, *append; // NULL where not used
    guint64 memory, disk;                                   // bytes; disk 0: none
    guint cpus;
    gboolean local_time;
    char *network; // what its card is connected to: "user", "none"; "": no card
};
void machine_plan_clear(struct machine_plan *plan);

// FOLDER comes from library_create_folder(); it is removed again on failure.
gboolean machine_create(const char *folder, const struct machine_plan *plan, GCancellable *cancellable, GError **error);

#endif
