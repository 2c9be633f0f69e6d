// SPDX-License-Identifier: GPL-2.0-or-later
// Files that must be whole: bounded reading, atomic writing, locks.
#ifndef CLOCHE_FILE_H
#define CLOCHE_FILE_H

#include "core/base/base.h"

// The whole of a regular file of at most MOST bytes, NUL-terminated. Free *DATA with g_free().
bool host_file_read(const char *path, size_t most, char **data, size_t *length, GError **error);
// Writes to a temporary name in the same folder, syncs file and folder, and renames: after a crash PATH is the old file
// or the new one. Keeps the mode of an existing file; MODE is for a new one.
bool host_file_write(const char *path, const void *data, size_t length, unsigned mode, GError **error);
// Makes renames and creations in FOLDER durable.
bool host_folder_sync(const char *folder, GError **error);
// Takes the exclusive (or shared) lock on PATH, which is created if need be. Returns a descriptor that holds it until
// closed, or -1: CLOCHE_ERROR_BUSY with WHAT in the sentence when another process has it. WAIT_MS: how long to try.
int host_file_lock(const char *path, bool exclusive, unsigned wait_ms, const char *what, GError **error);
// Removes a folder with all in it (symbolic links are removed, not followed). Goes on after an error, reports the
// first.
bool host_folder_remove(const char *folder, GError **error);

#endif
