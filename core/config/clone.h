// SPDX-License-Identifier: GPL-2.0-or-later
// Clones and templates; exporting a machine to one file and importing it.
#ifndef CLOCHE_CLONE_H
#define CLOCHE_CLONE_H

#include "core/base/progress.h"
#include "core/config/library.h"

struct clone_options {
    const char *name;     // of the new machine
    bool linked;          // its disks are overlays on the source's
    const char *snapshot; // name or id: the clone is of that moment; NULL: of the present state (the machine is off)
};

// Makes a machine of its own with new UUID, MAC addresses and disk names. A linked clone stands on a frozen image: of
// the snapshot, of a template, or of a snapshot that is taken for it. A snapshot's memory is shared. The present state
// cannot be cloned while the machine runs (CLOCHE_ERROR_BUSY). Nothing is left behind on failure.
bool machine_clone(struct library *library, struct machine_entry *source, const struct clone_options *options,
                   struct progress *progress, GError **error);

// A template is off, is never started and never changed. False with the reason when it cannot be (or stop being) one:
// it runs, is saved, or clones stand on it.
bool machine_set_template(struct library *library, struct machine_entry *entry, bool template_, GError **error);

struct export_options {
    bool chain; // disks with their chain and the snapshots; else flattened, the present state only
};
// Writes a zstd-compressed tar archive: definition, disks, SHA256SUMS. The machine is off. Nothing is left on failure.
bool machine_export(struct machine_entry *entry, const char *path, const struct export_options *options,
                    struct progress *progress, GError **error);
// Unpacks such an archive as a machine NAME (NULL: the archive's) with a new UUID. Every checksum is verified. Nothing
// is left on failure.
bool machine_import(struct library *library, const char *path, const char *name, struct progress *progress,
                    GError **error);

// Linked clones whose base was moved: finds the base machine by UUID in the library and records where it is now. The
// machine is off. True when every base was found.
bool machine_find_bases(struct library *library, struct machine_entry *entry, GError **error);

#endif
