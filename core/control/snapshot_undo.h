// SPDX-License-Identifier: GPL-2.0-or-later
// A snapshot that failed after its moment: the disks go on where they were, without the overlays of that moment.
#ifndef CLOCHE_SNAPSHOT_UNDO_H
#define CLOCHE_SNAPSHOT_UNDO_H

#include "core/base/progress.h"
#include "core/config/snapshot.h"
#include "core/machine/drive.h"

// DRIVES: struct drive *, on each of which stands an overlay whose base nobody else needs. What the overlays hold goes
// to their bases while the guest runs on; it stands still for the last of it. The definition names the bases again, as
// it did when NEW was begun; the overlays are removed. From a job's thread; ENDING: see control_jobs_ending(). False:
// the disks stay as they are, one image longer.
bool control_snapshot_undo(struct machine *machine, const char *folder, const struct snapshot *new, GPtrArray *drives,
                           struct progress *ending, GError **error);

#endif
