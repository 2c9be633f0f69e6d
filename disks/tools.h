// SPDX-License-Identifier: GPL-2.0-or-later
// Work on whole images. Each function runs on the caller's thread, reports to JOB (may be NULL) and asks it whether it
// was cancelled; the disk_job_*() functions start the same as a job. Interrupted at any moment, even by a power
// failure, every image involved reads as before or as after, and the work can be started again.
#ifndef CLOCHE_DISKS_TOOLS_H
#define CLOCHE_DISKS_TOOLS_H

#include "disks/create.h"
#include "disks/disk.h"
#include "disks/job.h"

// ---- Copies ----
struct disk_convert_options {
    const char *source_format;         // NULL probes
    const char *source_snapshot;       // internal snapshot to copy, or NULL
    struct disk_create_options target; // format, cluster size...; SIZE 0: the source's
    bool compress;                     // qcow2
};
// Makes TARGET, a new image of its own with what SOURCE shows. Nothing is left behind on failure.
bool disk_convert(const char *source, const char *target, const struct disk_convert_options *options, struct job *job,
                  GError **error);
struct job *disk_job_convert(const char *source, const char *target, const struct disk_convert_options *options);

// Compares what two images show. *SAME false: *WHERE is the first byte that differs (or the shorter's size; a longer
// image whose rest is zero is the same).
bool disk_compare(const char *a, const char *a_format, const char *b, const char *b_format, bool *same, uint64_t *where,
                  struct job *job, GError **error);

// ---- Chains ----
// Writes what the overlay at PATH holds into its base, and empties it (KEEP: leaves it as it is). The base grows where
// it is smaller. Nobody may use either meanwhile; other overlays of that base no longer fit it, which they notice.
bool disk_commit(const char *path, bool keep, struct job *job, GError **error);
struct job *disk_job_commit(const char *path, bool keep);
// Commits MIDDLE into its base, lets the overlay CHILD (may be NULL) stand on that base, and deletes MIDDLE's file.
bool disk_merge_down(const char *middle, const char *child, struct job *job, GError **error);
struct job *disk_job_merge_down(const char *middle, const char *child);
// Gives the overlay another base (NULL: none, "flatten") so that what it shows stays the same: what the bases differ in
// is copied into it first. BACKING as disk_create_options.backing. UNSAFE only records the name: for a base that was
// moved, or to accept one that was changed.
bool disk_rebase(const char *path, const char *backing, const char *backing_format, bool unsafe, struct job *job,
                 GError **error);
struct job *disk_job_rebase(const char *path, const char *backing, const char *backing_format, bool unsafe);
// The base of the overlay at PATH is about to become another file that shows the same: until disk_rebase() the overlay
// minds only its size.
bool disk_doubt_base(const char *path, GError **error);
static inline struct job *disk_job_flatten(const char *path)
{
    return disk_job_rebase(path, NULL, NULL, false);
}

// ---- Space ----
// Gives the host back what holds only zeroes or nothing. In place for raw and qcow2, by a new file that replaces the
// old one for the others. *FREED: bytes of the host's disk.
bool disk_compact(const char *path, const char *format, int64_t *freed, struct job *job, GError **error);
struct job *disk_job_compact(const char *path, const char *format);

#endif
