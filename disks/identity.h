// SPDX-License-Identifier: GPL-2.0-or-later
// What an overlay remembers of its base, so that a base that was changed or swapped is noticed and not guessed at.
#ifndef CLOCHE_DISKS_IDENTITY_H
#define CLOCHE_DISKS_IDENTITY_H

#include "core/base/base.h"

struct disk;

// One line of text: size, length and time of the file, and a checksum over samples of what a guest would read.
// Takes the same short time for any size. Free with g_free(). NULL where the base cannot be read.
char *identity_of(struct disk *base);
// A word in place of an identity while a job writes to the base: only the size is compared.
char *identity_in_transit(struct disk *base);
// Compares DISK->backing with what DISK remembers. The error is one sentence with the cure.
bool identity_check(struct disk *disk, GError **error);

#endif
