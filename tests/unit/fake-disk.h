// SPDX-License-Identifier: GPL-2.0-or-later
// A disk in memory behind disks/disk.h, with a thread of its own and failures on demand: for tests of devices, which
// link it in place of libdisks.
#ifndef CLOCHE_FAKE_DISK_H
#define CLOCHE_FAKE_DISK_H

#include "disks/disk.h"

struct disk *fake_disk_new(uint64_t size);
uint8_t *fake_disk_data(struct disk *disk);
// The next COUNT requests fail with the negative errno RESULT.
void fake_disk_fail(struct disk *disk, int result, unsigned count);
// Finish inside disk_submit().
void fake_disk_synchronous(struct disk *disk, bool on);
void fake_disk_set_read_only(struct disk *disk, bool on);
// Requests wait until this is switched off again.
void fake_disk_hold(struct disk *disk, bool on);
unsigned fake_disk_count(struct disk *disk, enum disk_op op);
unsigned fake_disk_last_flags(struct disk *disk);

#endif
