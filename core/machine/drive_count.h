// SPDX-License-Identifier: GPL-2.0-or-later
// What a drive counts of its requests. Internal to the drive; under its lock.
#ifndef CLOCHE_DRIVE_COUNT_H
#define CLOCHE_DRIVE_COUNT_H

#include "core/machine/drive.h"

void drive_count_begin(struct drive *drive, struct drive_request *request);
void drive_count_end(struct drive *drive, struct drive_request *request, int result);
// A request that could not be carried out at all.
void drive_count_invalid(struct drive *drive, const struct drive_request *request);

#endif
