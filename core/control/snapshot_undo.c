// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/control/snapshot_undo.h"
#include "core/control/jobs.h"
#include "core/state/machine_state.h"

#include <inttypes.h>
#include <unistd.h>

#define ROUNDS 8
#define ENOUGH (8 * MiB) // of changes, for which the guest may wait

struct undoing {
    struct machine *machine;
    const char *folder;
    const struct snapshot *new;
    GPtrArray *drives, *lifted; // struct drive *, struct disk *
    struct progress *ending;
    GError *failure;
};

static bool give_changes(struct drive *drive, struct progress *ending, GError **error)
{
    uint64_t pieces;
    g_autofree uint64_t *changes = drive_take_changes(drive, &pieces);
    for (uint64_t piece = 0; piece < pieces; piece++)
        if (changes[piece / 64] >> piece % 64 & 1 &&
            !disk_overlay_give(drive->disk, piece * DRIVE_CHANGE_PIECE, DRIVE_CHANGE_PIECE, ending, error))
            return false;
    return true;
}

static bool settle(struct drive *drive, GError **error)
{
    int rc = disk_overlay_settle(drive->disk);
    if (rc)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Drive %s could not be flushed: %s", drive->id,
                    g_strerror(-rc));
    return rc == 0;
}

// While the guest runs: all that the overlay holds, then again what was written meanwhile.
static bool give_live(struct drive *drive, struct progress *ending, GError **error)
{
    if (!settle(drive, error) || !disk_overlay_give(drive->disk, 0, disk_size(drive->disk), ending, error))
        return false;
    uint64_t before = UINT64_MAX, left = drive_changed_bytes(drive);
    for (unsigned round = 0; round < ROUNDS && left > ENOUGH && left < before; round++) {
        if (!give_changes(drive, ending, error))
            return false;
        before = left;
        left = drive_changed_bytes(drive);
    }
    return settle(drive, error);
}

// Machine lock held, processors parked. All bases show what their overlays show, on stable storage, before the
// definition changes: whoever crashes when, it names a disk that is right.
static bool lift_all(struct undoing *undoing, GError **error)
{
    for (unsigned i = 0; i < undoing->drives->len; i++) {
        struct drive *drive = undoing->drives->pdata[i];
        drive_drain(drive);
        if (!give_changes(drive, NULL, error) || !settle(drive, error))
            return false;
    }
    bool good = true;
    for (unsigned i = 0; good && i < undoing->drives->len; i++) {
        struct disk *overlay = drive_lift_overlay(undoing->drives->pdata[i], error);
        good = overlay != NULL;
        if (overlay)
            g_ptr_array_add(undoing->lifted, overlay);
    }
    if (good && snapshot_unswitch_files(undoing->folder, undoing->new, error))
        return true;
    while (undoing->lifted->len) {
        unsigned last = undoing->lifted->len - 1;
        drive_unlift_overlay(undoing->drives->pdata[last], g_ptr_array_steal_index(undoing->lifted, last));
    }
    return false;
}

static void lift(void *opaque)
{
    struct undoing *undoing = opaque;
    int64_t begun = g_get_monotonic_time();
    bool ran = machine_state_park(undoing->machine);
    machine_lock(undoing->machine);
    lift_all(undoing, &undoing->failure);
    machine_unlock(undoing->machine);
    machine_state_unpark(undoing->machine, ran);
    log_info("snapshot", "\"%s\" is given up; the guest stood still for %" PRId64 " us", undoing->new->name,
             g_get_monotonic_time() - begun);
}

static void drop_overlay(gpointer data)
{
    g_autofree char *path = g_strdup(disk_path(data));
    disk_close(data);
    unlink(path);
}

bool control_snapshot_undo(struct machine *machine, const char *folder, const struct snapshot *new, GPtrArray *drives,
                           struct progress *ending, GError **error)
{
    struct undoing undoing = {.machine = machine,
                              .folder = folder,
                              .new = new,
                              .drives = drives,
                              .lifted = g_ptr_array_new_with_free_func(drop_overlay),
                              .ending = ending};
    bool good = true;
    for (unsigned i = 0; i < drives->len; i++)
        drive_watch_changes(drives->pdata[i], true);
    for (unsigned i = 0; good && i < drives->len; i++)
        good = give_live(drives->pdata[i], ending, error);
    good = good && control_job_call(machine, ending, lift, &undoing, error);
    if (good && undoing.failure) {
        g_propagate_error(error, undoing.failure);
        good = false;
    }
    for (unsigned i = 0; i < drives->len; i++)
        drive_watch_changes(drives->pdata[i], false);
    g_ptr_array_unref(undoing.lifted);
    return good;
}
