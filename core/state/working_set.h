// SPDX-License-Identifier: GPL-2.0-or-later
// Which pages of a memory image a machine needs first when it goes on from it: recorded beside the image, read ahead at
// the next restore while the guest runs already. A hint: a missing or damaged record costs time and nothing else.
#ifndef CLOCHE_WORKING_SET_H
#define CLOCHE_WORKING_SET_H

#include "core/memory/memory.h"

#define WORKING_SET_FILE "working-set"

// A bit for each page of RAM in use. Free with g_free().
uint64_t *working_set_new(const struct ram *ram);
// The pages of RAM, mapped from an image, that were touched since. NULL where the host does not tell. Any thread.
uint64_t *working_set_of(const struct ram *ram);
bool working_set_write(const char *folder, const uint64_t *set, uint64_t pages, GError **error);
// Reads what FOLDER's record names of the image FD into the host's page cache; where there is no record the whole
// image, a little later. On a thread of its own; FD is duplicated.
void working_set_prefetch(const char *folder, int fd);

#endif
