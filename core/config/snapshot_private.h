// SPDX-License-Identifier: GPL-2.0-or-later
// Shared by the files that work on snapshots, clones and archives.
#ifndef CLOCHE_SNAPSHOT_PRIVATE_H
#define CLOCHE_SNAPSHOT_PRIVATE_H

#include "core/config/snapshot.h"

#define SNAPSHOT_FILE "snapshot.conf"

struct job; // disks/job.h

struct snapshot *snapshot_new(void);
void snapshot_add_disk(struct snapshot *snapshot, const char *drive, const char *file);
// FOLDER is that of the snapshot, under any name.
struct snapshot *snapshot_read(const char *machine_folder, const char *folder, GError **error);
bool snapshot_write(const struct snapshot *snapshot, GError **error);
bool snapshot_name_check(GPtrArray *list, const struct snapshot *self, const char *name, GError **error);
// FILE of a definition as an absolute path. Free with g_free().
char *snapshot_path(const char *machine_folder, const char *file);
// Creates an overlay on BASE (absolute) in FOLDER under a fresh name beginning with DRIVE. Returns its name in FOLDER.
// NOTE: with snapshot_note_loose().
char *snapshot_create_overlay(const char *folder, const char *drive, const char *base, bool note, GError **error);
// Gives FROM a second name TO, or copies it (sharing blocks where the file system can).
bool snapshot_link_file(const char *from, const char *to, GError **error);
// Notes for snapshot_recover(): FILE (in the machine's folder) may come to be needed by nobody; the definition is about
// to name snapshot ID as the present one. Forgotten when done.
void snapshot_forget_loose(const char *folder);
bool snapshot_note_current(const char *folder, const char *id, GError **error);
void snapshot_forget_current(const char *folder);
// Removes the image PATH (absolute, in FOLDER) unless somebody needs it, then what it stood on likewise.
void snapshot_remove_unneeded(const char *folder, const char *path, struct library *library);
// The rest of a deletion: GONE's folder has its other name.
bool snapshot_finish_delete(const char *folder, const struct snapshot *gone, struct library *library, GError **error);
// Waits for work on disks, passing progress and cancelling on; frees JOB.
bool snapshot_run_job(struct job *job, struct progress *progress, GError **error);

#endif
