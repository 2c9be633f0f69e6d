// SPDX-License-Identifier: GPL-2.0-or-later
// Snapshots of the running machine, as jobs. Taking one stops the guest for as long as device state, overlays and the
// definition take; its memory is written while it runs on, each page copied before it changes.
#include "core/config/library.h"
#include "core/config/snapshot.h"
#include "core/control/hold.h"
#include "core/control/jobs.h"
#include "core/machine/drive.h"
#include "core/state/machine_state.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

static const char *hold_folder(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    if (!server->hold)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "Only a defined machine has snapshots; this one was started by hand");
    return server->hold ? machine_hold_folder(server->hold) : NULL;
}

// ---- Disks of the running machine ----

// Where the definition says that DRIVE's image is now.
static char *present_file(const char *folder, const char *drive, GError **error)
{
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL), *group = g_strconcat("Drive ", drive, NULL);
    g_autoptr(config_t) config = config_load(path, error);
    g_autofree char *file = config ? config_get(config, group, "file") : NULL;
    if (!file)
        return NULL;
    return g_path_is_absolute(file) ? g_steal_pointer(&file) : g_build_filename(folder, file, NULL);
}

static struct disk *open_for(struct drive *drive, const char *path, GError **error)
{
    return disk_open(path, NULL, DISK_OPEN_DETECT_ZEROES | DISK_OPEN_PROMPT | (drive->direct ? DISK_OPEN_DIRECT : 0),
                     error);
}

// Takes the drives of SNAPSHOT out of use: nobody may write to an image that an overlay is made of. Returns drive ->
// path.
static GHashTable *close_disks(struct machine *machine, const struct snapshot *snapshot, GError **error)
{
    GHashTable *paths = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL, g_free);
    for (unsigned i = 0; i < snapshot->disks->len; i++) {
        const struct snapshot_disk *disk = snapshot->disks->pdata[i];
        struct drive *drive = drive_find(machine, disk->drive);
        if (!drive || !drive->disk) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                        "The definition has a drive %s that the running machine has not; restart it first",
                        disk->drive);
            break;
        }
        g_hash_table_insert(paths, drive, g_strdup(disk_path(drive->disk)));
        disk_close(drive_exchange_disk(drive, NULL));
    }
    return paths;
}

// Opens what the definition names now, or where that fails what was open before.
static bool open_disks(const char *folder, GHashTable *before, GError **error)
{
    GHashTableIter iter;
    gpointer key, value;
    bool good = true;
    g_hash_table_iter_init(&iter, before);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        struct drive *drive = key;
        g_autofree char *path = good ? present_file(folder, drive->id, error) : NULL;
        struct disk *disk = path ? open_for(drive, path, error) : NULL;
        good = good && disk;
        if (!disk)
            disk = open_for(drive, value, NULL);
        drive_exchange_disk(drive, disk);
    }
    return good;
}

// ---- Taking: core/control/snapshot_take.c ----

static JsonNode *snapshot_save(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    const char *folder = hold_folder(call, error);
    if (!folder)
        return NULL;
    if (control_jobs_busy(server->jobs)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "Another job works on this machine; wait until it is done");
        return NULL;
    }
    machine_lock(server->machine);
    bool savable = machine_state_savable(server->machine, error);
    machine_unlock(server->machine);
    struct snapshot *new =
        savable ? snapshot_begin(folder, qmp_string(call, "tag"), qmp_string(call, "x-cloche-note"), error) : NULL;
    if (new)
        control_snapshot_take(server, qmp_string(call, "job-id"), folder, new, error);
    return NULL;
}

// ---- Going back ----

static bool done_already(void *opaque, struct progress *progress, GError **error)
{
    return progress_advance(progress, 0, error);
}

// Machine lock held, processors parked. After a failure the machine is as before, or (*BROKEN) must be reset.
static bool go_back(struct machine *machine, const char *folder, struct snapshot *snapshot, GHashTable *overlays,
                    bool *broken, GError **error)
{
    machine_state_quiesce(machine);
    g_autoptr(GError) local = NULL;
    int64_t begun = g_get_monotonic_time();
    GHashTable *before = close_disks(machine, snapshot, &local);
    bool good = !local && snapshot_switch_back(folder, snapshot, overlays, false, &local);
    good = open_disks(folder, before, local ? NULL : &local) && good;
    g_hash_table_unref(before);
    int64_t switched = g_get_monotonic_time();
    if (good) {
        *broken = !machine_state_read_folder(machine, snapshot->folder, false, &local);
        good = !*broken;
        log_info("snapshot", "\"%s\": back in %" PRId64 " us for the disks and %" PRId64 " us for memory and state",
                 snapshot->name, switched - begun, g_get_monotonic_time() - switched);
    }
    if (local)
        g_propagate_error(error, g_steal_pointer(&local));
    return good;
}

static JsonNode *snapshot_load(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    struct machine *machine = server->machine;
    const char *folder = hold_folder(call, error);
    if (!folder)
        return NULL;
    g_autoptr(GPtrArray) list = snapshot_list(folder);
    struct snapshot *snapshot = snapshot_find(list, qmp_string(call, "tag"), error);
    if (!snapshot)
        return NULL;
    if (!snapshot->has_state || control_jobs_busy(server->jobs)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    snapshot->has_state ? "Another job works on this machine; wait until it is done"
                                        : "\"%s\" is of the machine switched off; stop the machine, then restore it",
                    snapshot->name);
        return NULL;
    }
    g_autoptr(GHashTable) overlays = snapshot_prepare_restore(folder, snapshot, error);
    if (!overlays)
        return NULL;
    bool ran = machine_state_park(machine), broken = false;
    machine_lock(machine);
    bool good = go_back(machine, folder, snapshot, overlays, &broken, error);
    if (broken)
        machine_reset_devices(machine);
    machine_unlock(machine);
    machine_state_unpark(machine, ran);
    if (good)
        machine_state_record_needs(machine, snapshot->folder);
    if (good)
        control_job_start(server->jobs, qmp_string(call, "job-id"), "snapshot-load", done_already, NULL, NULL, error);
    return NULL;
}

// ---- Deleting ----

struct deleting {
    struct machine *machine;
    char *folder, *id;
};

static void deleting_free(gpointer data)
{
    struct deleting *deleting = data;
    g_free(deleting->folder);
    g_free(deleting->id);
    g_free(deleting);
}

// An image that only the disk in use stands on, and that goes.
struct merging {
    struct machine *machine;
    struct drive *drive;
    struct disk *gone;
    GError *failure;
};

static void unstack(void *opaque)
{
    struct merging *merging = opaque;
    int64_t begun = g_get_monotonic_time();
    bool ran = machine_state_park(merging->machine);
    machine_lock(merging->machine);
    drive_drain(merging->drive);
    merging->gone = disk_overlay_unstack(merging->drive->disk, &merging->failure);
    machine_unlock(merging->machine);
    machine_state_unpark(merging->machine, ran);
    log_info("snapshot", "%s: merged; the guest stood still for %" PRId64 " us", merging->drive->id,
             g_get_monotonic_time() - begun);
}

static bool merge_drive(struct deleting *deleting, struct drive *drive, const struct snapshot *gone, const char *base,
                        struct progress *progress, GError **error)
{
    struct machine *machine = deleting->machine;
    struct merging merging = {.machine = machine, .drive = drive};
    g_autofree char *leaf = g_path_get_basename(base);
    if (!snapshot_note_loose(deleting->folder, leaf, error) || !disk_overlay_absorb(drive->disk, progress, error) ||
        !control_job_call(machine, progress, unstack, &merging, error))
        return false;
    if (!merging.gone) {
        g_propagate_error(error, merging.failure);
        return false;
    }
    disk_close(merging.gone);
    return snapshot_drop_image(deleting->folder, gone, base, error);
}

// What lies deeper, between two frozen images, waits until the machine is off.
static bool merge_disks(struct deleting *deleting, const struct snapshot *gone, struct library *library,
                        struct progress *progress, GError **error)
{
    for (struct drive *drive = deleting->machine->drives; drive; drive = drive->next) {
        if (drive->kind != DRIVE_DISK || !drive->disk || disk_read_only(drive->disk))
            continue;
        char *base;
        while ((base = snapshot_spare_base(deleting->folder, disk_path(drive->disk), gone, library))) {
            bool good = merge_drive(deleting, drive, gone, base, progress, error);
            g_free(base);
            if (!good)
                return false;
        }
    }
    return true;
}

static bool delete_now(void *opaque, struct progress *progress, GError **error)
{
    struct deleting *deleting = opaque;
    g_autoptr(library_t) library = library_open(NULL);
    g_autoptr(GPtrArray) list = snapshot_list(deleting->folder);
    struct snapshot *snapshot = snapshot_find(list, deleting->id, error);
    g_autoptr(GError) unmerged = NULL;
    if (!snapshot || !snapshot_may_delete(deleting->folder, snapshot, error))
        return false;
    if (!merge_disks(deleting, snapshot, library, progress, &unmerged) &&
        !g_error_matches(unmerged, CLOCHE_ERROR, CLOCHE_ERROR_NO_SPACE)) {
        g_propagate_error(error, g_steal_pointer(&unmerged));
        return false;
    }
    if (!snapshot_delete(deleting->folder, snapshot, true, library, progress, error))
        return false;
    if (!unmerged)
        return true;
    g_propagate_prefixed_error(error, g_steal_pointer(&unmerged), SNAPSHOT_UNMERGED);
    return false;
}

static JsonNode *snapshot_delete_command(struct qmp_call *call, GError **error)
{
    const char *folder = hold_folder(call, error);
    if (!folder)
        return NULL;
    g_autoptr(GPtrArray) list = snapshot_list(folder);
    struct snapshot *snapshot = snapshot_find(list, qmp_string(call, "tag"), error);
    if (!snapshot)
        return NULL;
    if (control_jobs_busy(call_server(call)->jobs)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "Another job works on this machine; wait until it is done");
        return NULL;
    }
    struct deleting *deleting = g_new0(struct deleting, 1);
    *deleting = (struct deleting){call_machine(call), g_strdup(folder), g_strdup(snapshot->id)};
    control_job_start(call_server(call)->jobs, qmp_string(call, "job-id"), "snapshot-delete", delete_now, deleting,
                      deleting_free, error);
    return NULL;
}

// ---- Proof: what is saved can be loaded, and is then the same ----

static char *first_difference(const char *before, const char *after)
{
    g_auto(GStrv) a = g_strsplit(before, "\n", -1), b = g_strsplit(after, "\n", -1);
    const char *section = "";
    for (unsigned i = 0; a[i] && b[i]; i++) {
        if (a[i][0] != ' ')
            section = a[i];
        if (strcmp(a[i], b[i]) != 0)
            return g_strdup_printf("%s %s became %s", section, a[i], b[i]);
    }
    return g_strdup("a section is missing");
}

static bool save_and_load(struct machine *machine, GError **error)
{
    g_autoptr(GByteArray) first = g_byte_array_new(), second = g_byte_array_new();
    machine_state_quiesce(machine);
    for (unsigned i = 0; machine->cpus && i < machine->cpus->count; i++)
        vcpu_raise(machine->cpus->vcpu[i], ATTENTION_INTERRUPT); // loading does that too
    if (!machine_state_save(machine, first, error))
        return false;
    g_autofree char *before = machine_state_print(machine);
    machine_reset_devices(machine);
    if (!machine_state_load(machine, first->data, first->len, error) || !machine_state_save(machine, second, error))
        return false;
    g_autofree char *after = machine_state_print(machine);
    if (first->len == second->len && memcmp(first->data, second->data, first->len) == 0)
        return true;
    g_autofree char *difference = first_difference(before, after);
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Saved and loaded state differ: %s", difference);
    return false;
}

// The devices are reset and loaded again under the running guest, which must not notice.
static JsonNode *check_state(struct qmp_call *call, GError **error)
{
    struct machine *machine = call_machine(call);
    bool ran = machine_state_park(machine);
    machine_lock(machine);
    save_and_load(machine, error);
    machine_unlock(machine);
    machine_state_unpark(machine, ran);
    return NULL;
}

// State and memory of a standing machine into a folder that exists: for `cloche-vm --load-state`.
static JsonNode *write_state(struct qmp_call *call, GError **error)
{
    struct machine *machine = call_machine(call);
    bool ran = machine_state_park(machine);
    machine_state_write_folder(machine, qmp_string(call, "folder"), NULL, error);
    machine_state_unpark(machine, ran);
    return NULL;
}

static const struct qmp_argument folder_arguments[] = {QMP_NEED("folder", QMP_STRING), QMP_END};
static const struct qmp_argument save_arguments[] = {
    QMP_NEED("job-id", QMP_STRING), QMP_NEED("tag", QMP_STRING),          QMP_MAY("vmstate", QMP_STRING),
    QMP_MAY("devices", QMP_ARRAY),  QMP_MAY("x-cloche-note", QMP_STRING), QMP_END};
static const struct qmp_argument tag_arguments[] = {QMP_NEED("job-id", QMP_STRING), QMP_NEED("tag", QMP_STRING),
                                                    QMP_MAY("vmstate", QMP_STRING), QMP_MAY("devices", QMP_ARRAY),
                                                    QMP_END};

const struct qmp_command control_snapshot_commands[] = {
    QMP_REQUEST("snapshot-save", snapshot_save, save_arguments, MACHINE_REQUEST_SNAPSHOT,
                "Takes a snapshot of memory, devices and all writable disks; the guest runs on."),
    QMP_REQUEST("snapshot-load", snapshot_load, tag_arguments, QMP_ANY_STATE, "Goes back to a snapshot."),
    QMP_REQUEST("x-cloche-write-state", write_state, folder_arguments, MACHINE_REQUEST_SAVE,
                "Writes state and memory into a folder, for `cloche-vm --load-state`."),
    QMP_REQUEST("x-cloche-check-state", check_state, NULL, MACHINE_REQUEST_SAVE,
                "Saves, resets and loads all devices and processors in place; a test of every device's state."),
    QMP_REQUEST("snapshot-delete", snapshot_delete_command, tag_arguments, QMP_ANY_STATE, "Deletes a snapshot."),
    QMP_END,
};
