// SPDX-License-Identifier: GPL-2.0-or-later
// Which image files of a machine stand on which, and who needs them.
#ifndef CLOCHE_CHAINS_H
#define CLOCHE_CHAINS_H

#include "core/config/snapshot.h"

// FOLDER is absolute and outlives it. LIBRARY (may be NULL): where linked clones are looked for. WITHOUT (may be NULL):
// a snapshot that does not count.
struct chains *chains_new(const char *folder, struct library *library, const struct snapshot *without);
void chains_free(struct chains *chains);
unsigned chains_count(const struct chains *chains);
// Absolute. The images that somebody needs, and what those stand on inside the folder.
const char *chains_file(const struct chains *chains, unsigned index);
bool chains_has(const struct chains *chains, const char *path);
// What PATH stands on: "" for nothing, or where it is none of these files.
const char *chains_base(const struct chains *chains, const char *path);
// A snapshot, the definition or a clone names it.
bool chains_needed(const struct chains *chains, const char *path);
// A linked clone of another folder sees it: it must not change.
bool chains_pinned(const struct chains *chains, const char *path);
// What the image PATH stands on, absolute; "" for nothing. Free with g_free().
char *chain_base(const char *path);
// Does the chain that begins with the image TOP lead to PATH inside FOLDER? All absolute.
bool chain_contains(const char *folder, const char *top, const char *path);
// How many stand on PATH, and one of them.
unsigned chains_dependants(const struct chains *chains, const char *path, const char **one);

#endif
