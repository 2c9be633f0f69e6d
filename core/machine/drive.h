// SPDX-License-Identifier: GPL-2.0-or-later
// A drive of the machine: the virtual disk in it, what happens when that disk fails, and for removable media the tray.
// Between a device (IDE, floppy, virtio-blk) that shows it to the guest, and the people and programs who change media,
// resize disks and take snapshots.
#ifndef CLOCHE_DRIVE_H
#define CLOCHE_DRIVE_H

#include "core/machine/machine.h"
#include "core/machine/options.h"
#include "disks/disk.h"

struct drive;
struct drive_request;
typedef void drive_done_fn(struct drive_request *request, int result); // 0 or a negative errno

// Owned by the device and left alone until DONE was called. The rules of struct disk_request hold for DISK; its done,
// opaque and private belong to the drive.
struct drive_request {
    struct disk_request disk;
    struct drive *drive;
    drive_done_fn *done;
    void *opaque;
    bool locked; // DONE is called with the machine lock held, and never inside drive_submit() unless PROMPT
    bool prompt; // LOCKED requests: DONE may be called inside drive_submit(), which saves a turn of the main loop
    int result;
    int64_t begun; // monotonic microseconds
    struct drive_request *next;
};

// What is counted apart. Writes of zeroes are writes.
enum drive_work { DRIVE_READS, DRIVE_WRITES, DRIVE_FLUSHES, DRIVE_UNMAPS, DRIVE_WORKS };
struct drive_count {
    uint64_t operations, bytes, failed; // carried out, failed ones included
    uint64_t invalid;                   // not carried out: no medium, read-only, outside the disk
    uint64_t time_us;                   // from beginning to end, summed up
};
#define DRIVE_CHANGE_PIECE ((uint64_t)64 * KiB)

// The device's side. Called with the machine lock held; any may be NULL.
struct drive_client {
    void (*resized)(void *opaque);
    void (*medium_changed)(void *opaque);  // the medium is another one or gone; drive->disk says which
    void (*eject_requested)(void *opaque); // the guest holds the tray: ask it to let go
};

// Threads: machine lock, except the lists and counters below LOCK (under LOCK).
struct drive {
    struct drive *next;
    struct machine *machine;
    char *id;
    enum drive_kind kind;
    bool read_only; // as asked for; the medium may be read-only by itself
    bool direct;
    bool pause_on_no_space;
    struct disk *disk; // NULL: empty
    bool tray_open;
    bool tray_locked; // by the guest
    const struct drive_client *client;
    void *client_opaque;

    _Atomic unsigned in_flight; // submitted and neither done nor parked
    unsigned submitting;        // machine lock: inside drive_submit() of a locked request
    _Atomic bool resizing;      // changes under LOCK
    GMutex lock;
    struct drive_request *parked, **parked_tail;     // failed for want of space: tried again on resume
    struct drive_request *held, **held_tail;         // submitted while the disk gets another size
    struct drive_request *finished, **finished_tail; // locked ones that wait for the machine lock
    struct drive_count counts[DRIVE_WORKS];
    uint64_t errors, highest_write;   // the end of the highest write
    int64_t last_end;                 // monotonic microseconds, 0: never
    uint64_t *changes, change_pieces; // see drive_watch_changes()
};

// Opens the medium that OPTIONS name and adds the drive to the machine. The error names the file and the cure.
struct drive *drive_new(struct machine *machine, const struct drive_options *options, GError **error);
// The same around a disk that is open already (taken over; may be NULL): tests, and drives made by programs.
struct drive *drive_new_with_disk(struct machine *machine, const char *id, enum drive_kind kind, struct disk *disk);
// Takes it off the machine and closes the disk. The device that shows a drive owns it and calls this in unrealize().
void drive_free(struct drive *drive);
struct drive *drive_find(struct machine *machine, const char *id); // NULL: there is none
void drive_set_client(struct drive *drive, const struct drive_client *client, void *opaque);

static inline bool drive_removable(const struct drive *drive)
{
    return drive->kind != DRIVE_DISK;
}
// Bytes of the medium, 0 when there is none or the tray is open.
uint64_t drive_size(struct drive *drive);
bool drive_writable(struct drive *drive);

// Any thread; requests with LOCKED set only with the machine lock held. An empty drive answers -ENOMEDIUM, a request
// outside the medium -EINVAL, a write to what is read-only -EROFS.
void drive_submit(struct drive *drive, struct drive_request *request);
// Returns when nothing is in flight and every DONE was called, parked requests aside. Machine lock held.
void drive_drain(struct drive *drive);
// From here on the drive remembers which pieces of DRIVE_CHANGE_PIECE bytes were written or discarded; a request counts
// when it is done. Any thread, while nobody else uses it.
void drive_watch_changes(struct drive *drive, bool on);
uint64_t drive_changed_bytes(struct drive *drive);
// The changes so far, a bit for each piece; counting begins anew. Free with g_free().
uint64_t *drive_take_changes(struct drive *drive, uint64_t *pieces);
// Parked requests end with -ECANCELED (reset of the device). Machine lock held.
void drive_cancel_parked(struct drive *drive);
// Holds REQUEST back until the machine runs, like one that found no space: for requests of a saved state.
void drive_park(struct drive *drive, struct drive_request *request);

// ---- For people and programs: machine lock held ----

// Opens the tray and takes the medium out. Where the guest holds the tray it is asked, and the error says so, unless
// FORCE.
bool drive_eject(struct drive *drive, bool force, GError **error);
// Puts FILE in (after taking out what is there) and closes the tray. FORMAT NULL: probe.
bool drive_change_medium(struct drive *drive, const char *file, const char *format, bool force, GError **error);
// By the guest or a person; does nothing when it is so already. Tells the listeners.
void drive_set_tray(struct drive *drive, bool open);
// Gives the disk a new size; the guest is told.
bool drive_resize(struct drive *drive, uint64_t size, GError **error);
// Exchanges the disk under the drive for one of the same content (a snapshot's overlay); returns the old one, drained
// and flushed, which is the caller's. Only while no vCPU runs.
struct disk *drive_exchange_disk(struct drive *drive, struct disk *disk);
// Puts OVERLAY, made by disk_overlay_prepare(), over the drive's disk. Only while no vCPU runs. False: the disk was
// resized since; nothing has changed.
bool drive_stack_overlay(struct drive *drive, struct disk *overlay);
// Takes the overlay away again from over its base, which shows the same since disk_overlay_give(). Only while no vCPU
// runs, drained. Returns the overlay, which is the caller's; NULL with the reason: nothing has changed.
struct disk *drive_lift_overlay(struct drive *drive, GError **error);
// Takes that back, before the guest has run.
void drive_unlift_overlay(struct drive *drive, struct disk *overlay);

#endif
