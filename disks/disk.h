// SPDX-License-Identifier: GPL-2.0-or-later
// A virtual disk: a file with a format driver behind one asynchronous interface. Knows nothing of guests.
#ifndef CLOCHE_DISK_H
#define CLOCHE_DISK_H

#include "core/base/base.h"
#include "core/base/progress.h"
#include <sys/uio.h>

struct disk;

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES };

enum disk_request_flag {
    DISK_FUA = 1 << 0,       // a write that is on stable storage when done
    DISK_MAY_UNMAP = 1 << 1, // write-zeroes may give the space back
};

// Owned by the caller and left alone until DONE was called. OFFSET and LENGTH are bytes, multiples of 512, inside the
// disk; LENGTH is the sum of the vectors for reads and writes.
struct disk_request {
    enum disk_op op;
    unsigned flags;
    uint64_t offset, length;
    struct iovec *iov;
    unsigned iov_count;
    // RESULT: 0 or a negative errno. Called once, on a thread of the disk (or inside disk_submit()); must not block.
    void (*done)(struct disk_request *request, int result);
    void *opaque;
    void *private[4]; // the disk's own while in flight
};

enum disk_open_flag {
    DISK_OPEN_READ_ONLY = 1 << 0,
    DISK_OPEN_DIRECT = 1 << 1,        // O_DIRECT
    DISK_OPEN_NO_BACKING = 1 << 2,    // this file alone
    DISK_OPEN_FORCE = 1 << 3,         // ignore locks (information only; never for writing)
    DISK_OPEN_THREADS = 1 << 4,       // threads even where the host has io_uring
    DISK_OPEN_POLLED = 1 << 5,        // the caller's own thread finishes requests: disk_poll()
    DISK_OPEN_DETECT_ZEROES = 1 << 6, // writes of nothing but zeroes become write-zeroes that may unmap (not
                                      // on a disk that had all its space when it was opened)
    DISK_OPEN_INLINE = 1 << 9,  // disk_submit() is called on an I/O thread, which may block: writes that only go to the
                                // host's page cache are done there and then, which saves waking another thread
    DISK_OPEN_PROMPT = 1 << 10, // disk_submit() is called on a thread that may be kept for microseconds: small writes
                                // over what exists go to the page cache there and then, as long as it takes them fast
    DISK_OPEN_REPAIR = 1 << 8,  // opened by a check that repairs: damage is no reason to refuse
    DISK_OPEN_ACCEPT_BASE = 1 << 7, // do not compare the base with what the overlay remembers of it
};

struct file_hooks;
struct disk_options {
    const char *format; // NULL probes
    unsigned flags;
    const char *snapshot;     // name or id of an internal snapshot, read-only; NULL: the present state
    struct file_hooks *hooks; // tests only, see disks/file.h
};

// FORMAT: "raw", "qcow2", "vmdk", "vdi", "vhd"; NULL probes by content. The error says what is wrong with which file.
struct disk *disk_open(const char *path, const char *format, unsigned flags, GError **error);
struct disk *disk_open_with(const char *path, const struct disk_options *options, GError **error);
// Waits for requests in flight; flushes; never fails silently: the last error is logged.
void disk_close(struct disk *disk);
// Any thread. Requests complete in any order; a flush covers what completed before it was submitted.
void disk_submit(struct disk *disk, struct disk_request *request);
void disk_drain(struct disk *disk); // returns when nothing is in flight
// Several requests submitted between the two go to the kernel in one call. Pairs may nest.
void disk_plug(struct disk *disk);
void disk_unplug(struct disk *disk);
// DISK_OPEN_POLLED: calls DONE of finished requests on this thread (requests that had to block still finish on a thread
// of the disk); with WAIT returns after at least one event. One thread at a time.
void disk_poll(struct disk *disk, bool wait);

uint64_t disk_size(struct disk *disk); // bytes
bool disk_read_only(struct disk *disk);
// Why a disk that was asked for writing is read-only (a variant that is not written), or NULL. Owned by the disk.
const char *disk_read_only_reason(struct disk *disk);
struct disk *disk_backing(struct disk *disk);    // the open base of an overlay, or NULL. Owned by DISK
const char *disk_engine_name(struct disk *disk); // "io_uring" or "threads"
const char *disk_format(struct disk *disk);
const char *disk_path(struct disk *disk);
// Drains first. Not on a disk with requests being submitted. A smaller size drops what lies beyond it.
bool disk_resize(struct disk *disk, uint64_t size, GError **error);

// Synchronous helpers for tools and tests: 0 or a negative errno.
int disk_read(struct disk *disk, uint64_t offset, void *data, uint64_t length);
int disk_write(struct disk *disk, uint64_t offset, const void *data, uint64_t length);
int disk_flush(struct disk *disk);
int disk_discard(struct disk *disk, uint64_t offset, uint64_t length);
int disk_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags);

// What is at OFFSET: one run of bytes that are alike.
struct disk_extent {
    uint64_t offset, length;
    bool data; // stored somewhere; else it reads as zeroes
    bool zero; // reads as zeroes
    bool compressed;
    bool present;     // decided by this chain at DEPTH (false: nobody ever wrote it)
    unsigned depth;   // 0: the disk itself, 1: its base, ...
    const char *path; // of the file that has the data, or NULL
    uint64_t file_offset;
};
// Fills OUT for OFFSET and at most LENGTH bytes from there. May block. 0 or a negative errno.
int disk_extent_at(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out);

// ---- An overlay over a disk in use: what takes time is done before and after, the step itself only moves pointers
// ----

// Makes the empty overlay PATH for BASE, which stays in use, and opens it without its base. RECORDED: the base's path
// as it is kept in the overlay (relative: to the overlay's folder). On stable storage when done; it may be named as the
// machine's disk at once, because it shows what the base shows. Any thread.
struct disk *disk_overlay_prepare(struct disk *base, const char *path, const char *recorded, GError **error);
// Puts OVERLAY over BASE, which nobody writes to any more and which belongs to OVERLAY from here on. Nothing is in
// flight on either. Until disk_overlay_settle() a flush of OVERLAY flushes BASE too. False: their sizes differ, because
// BASE was resized meanwhile; nothing has changed.
bool disk_overlay_stack(struct disk *overlay, struct disk *base);
// Brings the base to stable storage, lets other programs read it, and gives back what only a writer needs. Any thread,
// while OVERLAY is in use. 0 or a negative errno.
int disk_overlay_settle(struct disk *overlay);
// The other way round, to do without the base that OVERLAY stands on: takes over what that layer holds, while OVERLAY
// is in use (any thread); then, with nothing in flight, lets OVERLAY stand on what the base stood on, on stable storage
// when done. The base, which nobody needs any more, is returned to be closed; NULL: as before.
bool disk_overlay_absorb(struct disk *overlay, struct progress *progress, GError **error);
struct disk *disk_overlay_unstack(struct disk *overlay, GError **error);
// The other way: the overlay goes and its base, on which nothing else stands, is used again. Settled; both stay in use
// meanwhile. Copies what OVERLAY itself has of these bytes into its base, where nobody sees them yet. Blocks. What is
// written meanwhile must be given again. PROGRESS (may be NULL) is only asked whether to go on.
bool disk_overlay_give(struct disk *overlay, uint64_t offset, uint64_t length, struct progress *progress,
                       GError **error);
// Returns the base, which shows the same by now and is written to from now on; OVERLAY is to be closed, which writes
// nothing any more, and its file removed. Nothing is in flight. NULL: nothing has changed.
struct disk *disk_overlay_lift(struct disk *overlay, GError **error);
// Takes disk_overlay_lift() back: nothing was submitted to either since.
void disk_overlay_unlift(struct disk *overlay, struct disk *base);

#endif
