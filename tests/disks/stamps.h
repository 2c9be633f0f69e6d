// SPDX-License-Identifier: GPL-2.0-or-later
// What each sector of a disk may hold after a crash. Every written sector carries its number and a stamp that only
// grows.
#ifndef CLOCHE_TESTS_STAMPS_H
#define CLOCHE_TESTS_STAMPS_H

#include "disks/disk.h"

struct sector_state {
    uint32_t stamp; // of the last data written
    bool may_be_data, may_be_zero;
};

// Lives in shared memory: a child works, the parent judges.
struct stamps {
    uint64_t sectors;
    struct sector_state *done;    // by completed requests
    struct sector_state *flushed; // what the last acknowledged flush covered
    uint32_t *issued;             // highest stamp handed to the disk
    uint32_t *zero_issued;        // clock of the last zero or discard handed to the disk
    uint32_t *flush_clock;        // clock of the last acknowledged flush, per sector
    _Atomic uint32_t clock;
};

struct stamps *stamps_new(uint64_t sectors); // all sectors read as zeroes and are flushed
void stamps_free(struct stamps *s);
// Takes over what DISK holds now as done and flushed.
void stamps_adopt(struct stamps *s, struct disk *disk);
// One random operation on the sectors [FIRST, FIRST + COUNT), among them flushes, which cover CHUNKS given by the
// caller.
int stamps_operate(struct stamps *s, struct disk *disk, GRand *random, uint64_t first, uint64_t count);
// A flush that is acknowledged for the sectors for which COVERS(sector, opaque) holds.
int stamps_flush(struct stamps *s, struct disk *disk, bool (*covers)(uint64_t sector, void *opaque), void *opaque);
// Reads everything; NULL, or a text that says which sector is wrong. FLUSHED and FLUSH_CLOCK may be older copies.
char *stamps_judge(struct stamps *s, const struct sector_state *flushed, const uint32_t *flush_clock,
                   struct disk *disk);

#endif
