// SPDX-License-Identifier: GPL-2.0-or-later
// Shared by the files that work on snapshots, clones and archives.
#ifndef CLOCHE_SNAPSHOT_PRIVATE_H
#define CLOCHE_SNAPSHOT_PRIVATE_H

#include "core/config/snapshot.h"

#define SNAPSHOT_FILE "snapshot.conf"

struct job; // disks/job.h

struct snapshot *snapshot_new(void);
void snapshot_add_disk(struct snapshot *snapshot, const char *drive, const char *file);
bool snapshot_write(const struct snapshot *snapshot, GError **error);
bool snapshot_name_check(GPtrArray *list, const struct snapshot *self, const char *name, GError **error);
// FILE of a definition as an absolute path. Free with g_free().
char *snapshot_path(const char *machine_folder, const char *file);
// Creates an overlay on BASE (absolute) in FOLDER under a fresh name beginning with DRIVE. Returns its name in FOLDER.
char *snapshot_create_overlay(const char *folder, const char *drive, const char *base, GError **error);
// Gives FROM a second name TO, or copies it (sharing blocks where the file system can).
bool snapshot_link_file(const char *from, const char *to, GError **error);
// Waits for work on disks, passing progress and cancelling on; frees JOB.
bool snapshot_run_job(struct job *job, struct progress *progress, GError **error);

#endif
