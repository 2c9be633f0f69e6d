// SPDX-License-Identifier: GPL-2.0-or-later
// Locks on image files between processes.
#ifndef CLOCHE_DISKS_LOCK_H
#define CLOCHE_DISKS_LOCK_H

#include "disks/file.h"

// One writer, or any number of readers. Open-file-description locks on bytes 100 to 203, laid out as QEMU's tools lay
// theirs out, so that the two respect each other. Released with the file. A file system without locks is allowed
// with one log line. The error is CLOCHE_ERROR_BUSY.
bool file_lock(struct file *file, GError **error);
// From a writer's lock to a reader's: nothing is written through FILE any more.
void file_share(struct file *file);

#endif
