// SPDX-License-Identifier: GPL-2.0-or-later
// Taking a snapshot of the running machine, as a job.
//
// Before the guest stops: an empty overlay for each disk is made, opened and named in the definition (it shows what its
// base shows, whoever crashes when), the disks are flushed, the memory image is prepared. While it stands still: device
// state is written to memory, the overlays are put over the disks, every page of RAM is protected. After it goes on:
// the frozen disks are brought to stable storage, memory is written, each page before it changes.
#include "core/base/file.h"
#include "core/config/library.h"
#include "core/config/snapshot.h"
#include "core/control/jobs.h"
#include "core/control/snapshot_undo.h"
#include "core/machine/drive.h"
#include "core/screen/surface.h"
#include "core/state/machine_state.h"
#include "core/state/ram_image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

struct taken_disk {
    struct drive *drive;
    struct disk *overlay; // ours until it is stacked
    char *file;           // in the machine's folder
    bool stacked;
};

// Main loop thread before and in the moment, the job's thread around it.
struct taking {
    struct machine *machine;
    struct progress *ending; // of the monitor
    struct snapshot *new;
    char *folder;
    GArray *disks; // struct taken_disk
    GByteArray *state;
    struct ram_image *image;
    bool switched, committed, unsettled;
    GError *failure; // of the moment
};

static void taken_disk_clear(gpointer data)
{
    struct taken_disk *disk = data;
    g_free(disk->file);
}

static void taking_free(gpointer data)
{
    struct taking *taking = data;
    ram_image_free(taking->image);
    if (taking->committed)
        snapshot_free(taking->new);
    else if (taking->unsettled)
        snapshot_leave(taking->new);
    else
        snapshot_abandon(taking->new);
    g_array_unref(taking->disks);
    g_byte_array_unref(taking->state);
    g_clear_error(&taking->failure);
    g_free(taking->folder);
    g_free(taking);
}

// ---- Before ----

static bool prepare_disk(struct taking *taking, const struct snapshot_disk *disk, GError **error)
{
    struct drive *drive = drive_find(taking->machine, disk->drive);
    if (!drive || !drive->disk) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                    "The definition has a drive %s that the running machine has not; restart it first", disk->drive);
        return false;
    }
    g_autofree char *base = g_canonicalize_filename(disk_path(drive->disk), NULL);
    g_autofree char *recorded = snapshot_relative_base(taking->folder, base);
    g_autofree char *file = snapshot_overlay_name(disk->drive);
    g_autofree char *path = g_build_filename(taking->folder, file, NULL);
    if (!snapshot_note_loose(taking->folder, file, error))
        return false;
    struct disk *overlay = disk_overlay_prepare(drive->disk, path, recorded, error);
    if (!overlay)
        return false;
    struct taken_disk new = {.drive = drive, .overlay = overlay, .file = g_steal_pointer(&file)};
    g_array_append_val(taking->disks, new);
    return true;
}

static bool switch_definition(struct taking *taking, GError **error)
{
    g_autoptr(GHashTable) files = g_hash_table_new(g_str_hash, g_str_equal);
    for (unsigned i = 0; i < taking->disks->len; i++) {
        struct taken_disk *disk = &g_array_index(taking->disks, struct taken_disk, i);
        g_hash_table_insert(files, disk->drive->id, disk->file);
    }
    taking->switched = snapshot_switch_files(taking->folder, files, error);
    return taking->switched;
}

static void report_writes(void *opaque)
{
    struct cpu_set *cpus = opaque;
    cpus->engine->report_writes(cpus);
}

static bool prepare_image(struct taking *taking, GError **error)
{
    g_autofree char *path = g_build_filename(taking->new->folder, "ram", NULL);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot create %s: %s", path, g_strerror(errno));
        return false;
    }
    struct cpu_set *cpus = taking->machine->cpus;
    taking->image = ram_image_new(taking->machine->ram, fd, error);
    if (taking->image && cpus && cpus->engine->report_writes)
        ram_image_set_report(taking->image, report_writes, cpus);
    return taking->image;
}

static bool prepare(struct taking *taking, struct progress *progress, GError **error)
{
    for (unsigned i = 0; i < taking->new->disks->len; i++)
        if (!prepare_disk(taking, taking->new->disks->pdata[i], error))
            return false;
    if (!prepare_image(taking, error) || !switch_definition(taking, error))
        return false;
    // The less is unwritten, the shorter the guest's own next flush takes, which the moment has to wait for.
    for (unsigned i = 0; i < taking->disks->len; i++)
        disk_flush(g_array_index(taking->disks, struct taken_disk, i).drive->disk);
    return ram_image_copy_ahead(taking->image, progress, error);
}

// Nothing was stacked: the overlays go, and the definition names the disks again.
static void take_back(struct taking *taking)
{
    g_autoptr(GError) error = NULL;
    taking->unsettled = taking->switched && !snapshot_unswitch_files(taking->folder, taking->new, &error);
    if (taking->unsettled)
        log_error("snapshot", "The definition goes on with empty overlays until the next start: %s", error->message);
    for (unsigned i = 0; i < taking->disks->len; i++) {
        struct taken_disk *disk = &g_array_index(taking->disks, struct taken_disk, i);
        g_autofree char *path = g_build_filename(taking->folder, disk->file, NULL);
        if (!disk->stacked)
            disk_close(disk->overlay);
        if (!disk->stacked && !error)
            unlink(path);
    }
}

// ---- The moment ----

static bool sizes_fit(struct taking *taking)
{
    for (unsigned i = 0; i < taking->disks->len; i++) {
        struct taken_disk *disk = &g_array_index(taking->disks, struct taken_disk, i);
        if (disk_size(disk->drive->disk) != disk_size(disk->overlay)) {
            g_set_error(&taking->failure, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                        "Drive %s was resized meanwhile; take the snapshot again", disk->drive->id);
            return false;
        }
    }
    return true;
}

// Machine lock held, processors parked.
static void freeze(struct taking *taking)
{
    machine_state_quiesce(taking->machine);
    if (!sizes_fit(taking) || !machine_state_save(taking->machine, taking->state, &taking->failure))
        return;
    for (unsigned i = 0; i < taking->disks->len; i++) {
        struct taken_disk *disk = &g_array_index(taking->disks, struct taken_disk, i);
        disk->stacked = drive_stack_overlay(disk->drive, disk->overlay);
    }
    ram_image_begin(taking->image);
}

static void take_moment(void *opaque)
{
    struct taking *taking = opaque;
    struct machine *machine = taking->machine;
    int64_t begun = g_get_monotonic_time();
    bool ran = machine_state_park(machine);
    int64_t parked = g_get_monotonic_time();
    machine_lock(machine);
    freeze(taking);
    machine_unlock(machine);
    int64_t frozen = g_get_monotonic_time();
    machine_state_unpark(machine, ran);
    log_info("snapshot",
             "\"%s\": the guest stood still for %" PRId64 " us (%" PRId64 " to park, %" PRId64
             " for its state); its memory by %s",
             taking->new->name, g_get_monotonic_time() - begun, parked - begun, frozen - parked,
             ram_image_method(taking->image));
}

// ---- After ----

static bool settle_disks(struct taking *taking, GError **error)
{
    for (unsigned i = 0; i < taking->disks->len; i++) {
        struct taken_disk *disk = &g_array_index(taking->disks, struct taken_disk, i);
        int rc = disk_overlay_settle(disk->drive->disk);
        if (rc) {
            g_set_error(error, CLOCHE_ERROR, rc == -ENOSPC ? CLOCHE_ERROR_NO_SPACE : CLOCHE_ERROR_FAILED,
                        "Drive %s could not be flushed: %s", disk->drive->id, g_strerror(-rc));
            return false;
        }
    }
    return true;
}

static bool write_all(struct taking *taking, struct progress *progress, GError **error)
{
    g_autofree char *path = g_build_filename(taking->new->folder, "state", NULL);
    bool settled = settle_disks(taking, error);
    // Also without success: tracking must end.
    if (!ram_image_finish(taking->image, progress, settled ? error : NULL) || !settled ||
        !host_file_write(path, taking->state->data, taking->state->len, 0600, error))
        return false;
    taking->new->has_state = true;
    taking->committed = snapshot_commit(taking->folder, taking->new, error);
    log_info("snapshot", "\"%s\": %" PRIu64 " MiB of memory, %" PRIu64 " pages copied because the guest wrote to them",
             taking->new->name, ram_image_written(taking->image) >> 20, ram_image_early(taking->image));
    return taking->committed;
}

// Half of it is there and the guest goes on: the room that memory took is free first.
static void put_back(struct taking *taking)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) drives = g_ptr_array_new();
    g_autofree char *ram = g_build_filename(taking->new->folder, "ram", NULL);
    g_clear_pointer(&taking->image, ram_image_free);
    unlink(ram);
    for (unsigned i = 0; i < taking->disks->len; i++)
        g_ptr_array_add(drives, g_array_index(taking->disks, struct taken_disk, i).drive);
    taking->unsettled =
        !control_snapshot_undo(taking->machine, taking->folder, taking->new, drives, taking->ending, &error);
    if (taking->unsettled)
        log_warning("snapshot", "The disks go on with an image more; the next start tries again to do without it: %s",
                    error->message);
}

static bool run(void *opaque, struct progress *progress, GError **error)
{
    struct taking *taking = opaque;
    bool good = prepare(taking, progress, error) && progress_advance(progress, 0, error) &&
                control_job_call(taking->machine, progress, take_moment, taking, error);
    if (good && taking->failure) {
        g_propagate_error(error, g_steal_pointer(&taking->failure));
        good = false;
    }
    if (!good)
        take_back(taking);
    else if (!write_all(taking, progress, error)) {
        put_back(taking);
        good = false;
    }
    return good;
}

bool control_snapshot_take(struct control_server *server, const char *id, const char *folder, struct snapshot *new,
                           GError **error)
{
    struct machine *machine = server->machine;
    struct surface *surface = machine->screen ? screen_head(machine->screen, 0) : NULL;
    g_autofree char *picture = g_build_filename(new->folder, "screen.png", NULL);
    if (surface)
        surface_write_png(surface, picture, true, NULL); // a snapshot without a picture is a snapshot
    struct taking *taking = g_new0(struct taking, 1);
    *taking = (struct taking){.machine = machine,
                              .ending = control_jobs_ending(server->jobs),
                              .new = new,
                              .folder = g_strdup(folder),
                              .disks = g_array_new(FALSE, FALSE, sizeof(struct taken_disk)),
                              .state = g_byte_array_new()};
    g_array_set_clear_func(taking->disks, taken_disk_clear);
    return control_job_start(server->jobs, id, "snapshot-save", run, taking, taking_free, error);
}
