// SPDX-License-Identifier: GPL-2.0-or-later
// Random operations on a disk, mirrored into a plain file. Used by the interoperation, crash and fault tests.
#ifndef CLOCHE_TESTS_WORKLOAD_H
#define CLOCHE_TESTS_WORKLOAD_H

#include <check.h>

#include "disks/disk.h"

struct workload {
    struct disk *disk;
    GRand *random;
    int mirror_fd;
    uint8_t *mirror; // as long as the disk, or longer
    uint64_t mirror_room;
    bool resizes;  // the format can
    bool may_fail; // an error of the disk is kept in FAILURE and ends the run
    int failure;
    uint64_t failed_offset, failed_length; // what the failed operation was on
};

// MIRROR_PATH is made, as long as ROOM; its contents are what DISK shows now.
void workload_start(struct workload *w, struct disk *disk, const char *mirror_path, uint64_t room, uint32_t seed);
// Runs COUNT operations, checking what is read against the mirror.
void workload_run(struct workload *w, unsigned count);
// Gives the disk a size between half of the mirror's room and all of it.
void workload_resize(struct workload *w);
// Compares every byte.
void workload_compare(struct workload *w);
// Cuts the mirror file to the disk's size and closes it.
void workload_end(struct workload *w);

// Puts temporary files into memory where the host can: what is tested here does not depend on real disks, and syncs are
// slow.
void use_memory_files(void);
// What main() of a disk test returns: runs all of SUITE, which it takes, with temporary files in memory.
int run_suite(Suite *suite);
// Runs a command; returns its exit status. Output goes to /dev/null unless it fails where SHOW.
int run_command(bool show, const char *format, ...) G_GNUC_PRINTF(2, 3);
char *command_output(const char *format, ...) G_GNUC_PRINTF(1, 2);

#endif
