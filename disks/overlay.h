// SPDX-License-Identifier: GPL-2.0-or-later
// An overlay that is put over a disk in use: what takes time is done before and after, the step itself only moves
// pointers.
#ifndef CLOCHE_DISKS_OVERLAY_H
#define CLOCHE_DISKS_OVERLAY_H

#include "disks/disk.h"

// Makes the empty overlay PATH for BASE, which stays in use, and opens it without its base. RECORDED: the base's path
// as it is kept in the overlay (relative: to the overlay's folder). On stable storage when done; it may be named as the
// machine's disk at once, because it shows what the base shows. Any thread.
struct disk *disk_overlay_prepare(struct disk *base, const char *path, const char *recorded, GError **error);
// Puts OVERLAY over BASE, which nobody writes to any more and which belongs to OVERLAY from here on. Nothing is in
// flight on either. Until disk_overlay_settle() a flush of OVERLAY flushes BASE too. False: their sizes differ, because
// BASE was resized meanwhile; nothing has changed.
bool disk_overlay_stack(struct disk *overlay, struct disk *base);
// Brings the base to stable storage, lets other programs read it, and gives back what only a writer needs. Any thread,
// while OVERLAY is in use. 0 or a negative errno.
int disk_overlay_settle(struct disk *overlay);

#endif
