// SPDX-License-Identifier: GPL-2.0-or-later
// New images are made under a name of their own and get their real one in one step, when they are complete: whatever
// interrupts the work, a half-made image is never found under the name that was asked for, and an image that is
// replaced is there until the new one is.
#ifndef CLOCHE_DISKS_STAGING_H
#define CLOCHE_DISKS_STAGING_H

#include "disks/file.h"

enum staging_mode {
    STAGING_NEW,         // nothing has that name yet
    STAGING_REPLACE,     // what has it is replaced, if nobody uses it
    STAGING_REPLACE_OWN, // the same; the caller has it open for writing
};

struct staging {
    char *path;       // where it will be
    char *fresh;      // where it is made, in the same folder
    struct file *old; // what is replaced, locked; or NULL
    char *old_data;   // the data file of what is replaced, or NULL
    enum staging_mode mode;
};

// CLOCHE_ERROR_EXISTS where the name is taken, CLOCHE_ERROR_BUSY where what has it is in use.
bool staging_begin(struct staging *s, const char *path, enum staging_mode mode, GError **error);
// OK: puts in place what was made. Else removes it, and names PATH in ERROR where that names FRESH. Returns whether it
// is in place; S is empty then.
bool staging_end(struct staging *s, bool ok, GError **error);

// Where the data of a flat image is, whose descriptor is at PATH.
char *image_data_path(const char *path);
// The files of the image at PATH.
void image_remove(const char *path);
// Brings the names in the folder of the file PATH to stable storage. 0 or a negative errno.
int sync_folder_of(const char *path);

#endif
