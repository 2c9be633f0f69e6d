// SPDX-License-Identifier: GPL-2.0-or-later
// A zstd-compressed tar archive (POSIX ustar; sizes beyond 8 GiB in base 256), as a stream: `tar --zstd` reads it too.
#ifndef CLOCHE_TAR_H
#define CLOCHE_TAR_H

#include "core/base/progress.h"

struct tar_writer;
struct tar_writer *tar_writer_new(const char *path, GError **error);
// Adds the file at PATH under NAME. Its SHA-256 is noted for SHA256SUMS.
bool tar_writer_add_file(struct tar_writer *writer, const char *name, const char *path, struct progress *progress,
                         GError **error);
bool tar_writer_add_data(struct tar_writer *writer, const char *name, const void *data, size_t length, GError **error);
// Adds SHA256SUMS and ends the archive, on stable storage.
bool tar_writer_finish(struct tar_writer *writer, GError **error);
void tar_writer_free(struct tar_writer *writer); // an unfinished file is removed

// Unpacks into FOLDER (which exists): plain files and folders below it only, holes for zeroes, each file checked
// against SHA256SUMS, which must be there. PROGRESS counts bytes of the archive.
bool tar_extract(const char *path, const char *folder, struct progress *progress, GError **error);

#endif
