// SPDX-License-Identifier: GPL-2.0-or-later
// Checking images for damage, and repairing what can be repaired without guessing.
#ifndef CLOCHE_DISKS_CHECK_H
#define CLOCHE_DISKS_CHECK_H

#include "disks/disk.h"

struct job;

struct disk_check_result {
    uint64_t corruptions, leaks;             // found (clusters or entries)
    uint64_t corruptions_fixed, leaks_fixed; // of those, repaired
    uint64_t clusters_total, clusters_used, clusters_compressed;
    GPtrArray *messages; // char *, the first hundred findings
};

// Looks through the whole image at PATH. REPAIR needs it for itself and writes to it. JOB may be NULL. False with ERROR
// where the check itself failed or was cancelled; findings are no error. Clear RESULT with disk_check_clear().
bool disk_check(const char *path, const char *format, bool repair, struct disk_check_result *result, struct job *job,
                GError **error);
void disk_check_clear(struct disk_check_result *result);
// For the format drivers.
void disk_check_note(struct disk_check_result *result, const char *format, ...) G_GNUC_PRINTF(2, 3);

#endif
