// SPDX-License-Identifier: GPL-2.0-or-later
// How a disk gets its I/O done: reads and writes of host files in the background, and threads for what may block.
#ifndef CLOCHE_DISKS_ENGINE_H
#define CLOCHE_DISKS_ENGINE_H

#include "disks/file.h"

// One read or write of a host file. Owned by the submitter until DONE was called.
struct io {
    struct file *file;
    bool write;
    uint64_t offset, length;
    const struct iovec *iov;
    unsigned iov_count;
    void (*done)(struct io *io, int result); // 0 or a negative errno, any thread
};

struct work {
    void (*run)(struct work *work);
    struct work *next;
};

struct engine;
struct uring;

// Threads and ring are made on first use. POLLED: nobody reaps completions but engine_poll().
struct engine *engine_new(bool use_uring, bool polled);
void engine_free(struct engine *engine); // nothing may be in flight
void engine_submit(struct engine *engine, struct io *io);
void engine_run(struct engine *engine, struct work *work);
// Submissions between the two may be handed to the kernel together.
void engine_plug(struct engine *engine);
void engine_unplug(struct engine *engine);
// Calls DONE for what is finished; waits for one where WAIT.
void engine_poll(struct engine *engine, bool wait);
void engine_wake(struct engine *engine);        // lets a waiting engine_poll() return
const char *engine_name(struct engine *engine); // "io_uring" or "threads"

// Finishes what the kernel did in part (RESULT bytes), blocking.
int io_finish(struct io *io, int result);

// engine_uring.c
struct uring *uring_new(struct engine *engine, bool polled); // NULL where the host refuses
void uring_free(struct uring *ring);
void uring_submit(struct uring *ring, struct io *io);
void uring_plug(struct uring *ring);
void uring_unplug(struct uring *ring);
void uring_poll(struct uring *ring, bool wait);
void uring_wake(struct uring *ring);

#endif
