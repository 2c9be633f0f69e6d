// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/machine/drive_count.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

TRACE_POINT(drive_submit);
TRACE_POINT(drive_error);

// ---- Requests ---------------------------------------------------------------------------------------------------

static void append(struct drive_request ***tail, struct drive_request *request)
{
    request->next = NULL;
    **tail = request;
    *tail = &request->next;
}

static struct drive_request *take_list(struct drive_request **head, struct drive_request ***tail)
{
    struct drive_request *list = *head;
    *head = NULL;
    *tail = head;
    return list;
}

// Calls DONE of what has finished. Machine lock held.
static void run_finished(void *opaque)
{
    struct drive *drive = opaque;
    g_mutex_lock(&drive->lock);
    struct drive_request *list = take_list(&drive->finished, &drive->finished_tail);
    g_mutex_unlock(&drive->lock);
    while (list) {
        struct drive_request *request = list;
        list = request->next;
        request->done(request, request->result);
        drive->in_flight--;
    }
}

// A disk's thread may not wait for the machine lock: whoever holds it may be waiting for the disk.
static void finish(struct drive_request *request, int result)
{
    struct drive *drive = request->drive;
    if (!request->locked) {
        drive->in_flight--;
        request->done(request, result);
        return;
    }
    request->result = result;
    g_mutex_lock(&drive->lock);
    bool first = !drive->finished;
    append(&drive->finished_tail, request);
    g_mutex_unlock(&drive->lock);
    struct machine *machine = drive->machine;
    if (g_rec_mutex_trylock(&machine->lock)) {
        bool nested = drive->submitting;
        if (!nested)
            run_finished(drive);
        g_rec_mutex_unlock(&machine->lock);
        if (!nested || request->prompt)
            return;
    }
    if (first)
        machine_defer(machine, run_finished, drive);
}

static void notify_error(void *opaque)
{
    struct drive *drive = opaque;
    machine_notify(drive->machine, MACHINE_EVENT_BLOCK_ERROR, drive->id);
}

static bool is_no_space(int result)
{
    return result == -ENOSPC || result == -EDQUOT;
}

void drive_park(struct drive *drive, struct drive_request *request)
{
    request->drive = drive;
    g_mutex_lock(&drive->lock);
    append(&drive->parked_tail, request);
    g_mutex_unlock(&drive->lock);
}

static void park_and_stop(struct drive *drive, struct drive_request *request)
{
    drive_park(drive, request);
    g_autofree char *reason =
        g_strdup_printf("the host's disk is full: \"%s\" of drive %s cannot grow; free some space and resume",
                        disk_path(drive->disk), drive->id);
    machine_request_stop(drive->machine, RUN_STATE_IO_ERROR, reason);
}

static void disk_done(struct disk_request *disk_request, int result)
{
    struct drive_request *request = container_of(disk_request, struct drive_request, disk);
    struct drive *drive = request->drive;
    drive_count_end(drive, request, result);
    if (result < 0) {
        TRACE(drive_error, "%s op %d offset %" PRIu64 " length %" PRIu64 ": %s", drive->id, disk_request->op,
              disk_request->offset, disk_request->length, g_strerror(-result));
        machine_defer(drive->machine, notify_error, drive);
        if (drive->pause_on_no_space && is_no_space(result)) {
            park_and_stop(drive, request);
            drive->in_flight--;
            return;
        }
    }
    finish(request, result);
}

// 0, or why the request cannot be carried out at all.
static int check(struct drive *drive, const struct disk_request *request)
{
    if (!drive->disk)
        return -ENOMEDIUM;
    if (request->op == DISK_FLUSH)
        return 0;
    uint64_t size = disk_size(drive->disk);
    if (request->offset % 512 || request->length % 512 || request->offset > size ||
        request->length > size - request->offset)
        return -EINVAL;
    return request->op == DISK_READ || drive_writable(drive) ? 0 : -EROFS;
}

// True: REQUEST waits until the disk has its new size. It counts as in flight already, so that whoever resizes sees it,
// or it sees that the disk is being resized.
static bool hold_back(struct drive *drive, struct drive_request *request)
{
    if (!drive->resizing)
        return false;
    g_mutex_lock(&drive->lock);
    bool held = drive->resizing;
    if (held)
        append(&drive->held_tail, request);
    g_mutex_unlock(&drive->lock);
    return held;
}

void drive_submit(struct drive *drive, struct drive_request *request)
{
    request->drive = drive;
    request->disk.done = disk_done;
    drive->in_flight++;
    if (hold_back(drive, request)) {
        drive->in_flight--;
        return;
    }
    int wrong = check(drive, &request->disk);
    TRACE(drive_submit, "%s op %d offset %" PRIu64 " length %" PRIu64, drive->id, request->disk.op,
          request->disk.offset, request->disk.length);
    bool locked = request->locked, prompt = request->prompt; // the request may be gone when it was submitted
    if (locked)
        drive->submitting++;
    if (wrong) {
        drive_count_invalid(drive, request);
        finish(request, wrong);
    } else {
        drive_count_begin(drive, request);
        disk_submit(drive->disk, &request->disk);
    }
    if (locked && --drive->submitting == 0 && prompt)
        run_finished(drive);
}

void drive_drain(struct drive *drive)
{
    do { // what is done may have submitted more
        if (drive->disk)
            disk_drain(drive->disk);
        run_finished(drive);
    } while (drive->in_flight);
}

void drive_cancel_parked(struct drive *drive)
{
    g_mutex_lock(&drive->lock);
    struct drive_request *list = take_list(&drive->parked, &drive->parked_tail);
    g_mutex_unlock(&drive->lock);
    while (list) {
        struct drive_request *request = list;
        list = request->next;
        drive->in_flight++;
        finish(request, -ECANCELED);
    }
    run_finished(drive);
}

static void submit_list(struct drive *drive, struct drive_request *list)
{
    while (list) {
        struct drive_request *request = list;
        list = request->next;
        drive_submit(drive, request);
    }
}

static void retry_parked(struct drive *drive)
{
    g_mutex_lock(&drive->lock);
    struct drive_request *list = take_list(&drive->parked, &drive->parked_tail);
    g_mutex_unlock(&drive->lock);
    submit_list(drive, list);
}

static void machine_changed(void *opaque, struct machine *machine, enum machine_event event, const char *text)
{
    if (event != MACHINE_EVENT_STATE || machine->state != RUN_STATE_RUNNING)
        return;
    machine_lock(machine);
    retry_parked(opaque);
    machine_unlock(machine);
}

// ---- Making and finding -----------------------------------------------------------------------------------------

struct drive *drive_new_with_disk(struct machine *machine, const char *id, enum drive_kind kind, struct disk *disk)
{
    struct drive *drive = g_new0(struct drive, 1);
    drive->machine = machine;
    drive->id = g_strdup(id);
    drive->kind = kind;
    drive->disk = disk;
    drive->pause_on_no_space = true;
    drive->parked_tail = &drive->parked;
    drive->held_tail = &drive->held;
    drive->finished_tail = &drive->finished;
    g_mutex_init(&drive->lock);
    struct drive **end = &machine->drives;
    while (*end)
        end = &(*end)->next;
    *end = drive;
    machine_add_listener(machine, machine_changed, drive);
    return drive;
}

static struct disk *open_medium(struct drive *drive, const char *file, const char *format, GError **error)
{
    unsigned flags = drive->direct ? DISK_OPEN_DIRECT : 0;
    bool read_only = drive->kind == DRIVE_CDROM || drive->read_only;
    flags |= read_only ? DISK_OPEN_READ_ONLY : DISK_OPEN_DETECT_ZEROES | DISK_OPEN_PROMPT;
    GError *why = NULL;
    struct disk *disk = disk_open(file, format, flags, &why);
    if (disk)
        return disk;
    bool missing = g_error_matches(why, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND) && !g_file_test(file, G_FILE_TEST_EXISTS);
    g_set_error(error, why->domain, why->code, "%s%s%s", why->message,
                missing ? "; put it back there, or choose another file for drive " : "", missing ? drive->id : "");
    g_error_free(why);
    return NULL;
}

struct drive *drive_new(struct machine *machine, const struct drive_options *options, GError **error)
{
    if (options->on_error && strcmp(options->on_error, "pause") && strcmp(options->on_error, "report")) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "drive %s: on_error is \"%s\"; give \"pause\" or \"report\"", options->id, options->on_error);
        return NULL;
    }
    if (drive_find(machine, options->id)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS, "two drives are called \"%s\"; give one another id",
                    options->id);
        return NULL;
    }
    struct drive *drive = drive_new_with_disk(machine, options->id, options->kind, NULL);
    drive->read_only = options->read_only || options->kind == DRIVE_CDROM;
    drive->direct = options->direct;
    drive->pause_on_no_space = !options->on_error || !strcmp(options->on_error, "pause");
    if (options->file)
        drive->disk = open_medium(drive, options->file, options->format, error);
    if (!drive->disk && (options->file || options->kind == DRIVE_DISK)) {
        if (!options->file)
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "disk %s has no file; name one", options->id);
        drive_free(drive);
        return NULL;
    }
    return drive;
}

void drive_free(struct drive *drive)
{
    if (!drive)
        return;
    struct machine *machine = drive->machine;
    for (struct drive **at = &machine->drives; *at; at = &(*at)->next) {
        if (*at == drive) {
            *at = drive->next;
            break;
        }
    }
    machine_remove_listener(machine, machine_changed, drive);
    drive_cancel_parked(drive);
    if (drive->disk) {
        drive_drain(drive);
        disk_close(drive->disk);
    }
    g_mutex_clear(&drive->lock);
    g_free(drive->changes);
    g_free(drive->id);
    g_free(drive);
}

struct drive *drive_find(struct machine *machine, const char *id)
{
    for (struct drive *drive = machine->drives; drive; drive = drive->next)
        if (!g_strcmp0(drive->id, id))
            return drive;
    return NULL;
}

void drive_set_client(struct drive *drive, const struct drive_client *client, void *opaque)
{
    drive->client = client;
    drive->client_opaque = opaque;
}

uint64_t drive_size(struct drive *drive)
{
    return drive->disk && !drive->tray_open ? disk_size(drive->disk) : 0;
}

bool drive_writable(struct drive *drive)
{
    return drive->disk && !drive->read_only && !disk_read_only(drive->disk);
}

// ---- Media ------------------------------------------------------------------------------------------------------

static bool removable(struct drive *drive, GError **error)
{
    if (drive_removable(drive))
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                "drive %s is a fixed disk; only CD and floppy drives change media", drive->id);
    return false;
}

// The medium of a closed tray that the guest has locked stays unless forced.
static bool tray_gives_way(struct drive *drive, bool force, GError **error)
{
    if (!drive->tray_locked || drive->tray_open || force)
        return true;
    if (drive->client && drive->client->eject_requested)
        drive->client->eject_requested(drive->client_opaque);
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                "The guest holds the tray of %s closed and was asked to let go: try again in a moment, or force it.",
                drive->id);
    return false;
}

static void set_disk(struct drive *drive, struct disk *disk)
{
    if (drive->disk) {
        drive_drain(drive);
        drive_cancel_parked(drive);
        disk_close(drive->disk);
    }
    drive->disk = disk;
    if (drive->client && drive->client->medium_changed)
        drive->client->medium_changed(drive->client_opaque);
}

void drive_set_tray(struct drive *drive, bool open)
{
    if (drive->tray_open == open)
        return;
    drive->tray_open = open;
    machine_notify(drive->machine, MACHINE_EVENT_TRAY, drive->id);
}

bool drive_eject(struct drive *drive, bool force, GError **error)
{
    if (!removable(drive, error) || !tray_gives_way(drive, force, error))
        return false;
    drive_set_tray(drive, true);
    if (drive->disk)
        set_disk(drive, NULL);
    return true;
}

bool drive_change_medium(struct drive *drive, const char *file, const char *format, bool force, GError **error)
{
    if (!removable(drive, error))
        return false;
    struct disk *disk = open_medium(drive, file, format, error);
    if (!disk)
        return false;
    if (!drive_eject(drive, force, error)) {
        disk_close(disk);
        return false;
    }
    drive_set_tray(drive, false);
    set_disk(drive, disk);
    return true;
}

// Returns what was held back until now.
static struct drive_request *set_resizing(struct drive *drive, bool on)
{
    g_mutex_lock(&drive->lock);
    drive->resizing = on;
    struct drive_request *list = take_list(&drive->held, &drive->held_tail);
    g_mutex_unlock(&drive->lock);
    return list;
}

bool drive_resize(struct drive *drive, uint64_t size, GError **error)
{
    if (!drive->disk || drive_removable(drive)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "drive %s is not a fixed disk: it has no size to change", drive->id);
        return false;
    }
    set_resizing(drive, true);
    drive_drain(drive);
    bool good = disk_resize(drive->disk, size, error);
    if (good && drive->client && drive->client->resized)
        drive->client->resized(drive->client_opaque);
    submit_list(drive, set_resizing(drive, false));
    return good;
}

struct disk *drive_exchange_disk(struct drive *drive, struct disk *disk)
{
    struct disk *old = drive->disk;
    drive_drain(drive);
    int result = old ? disk_flush(old) : 0;
    if (result < 0)
        log_error("drive", "%s: \"%s\" could not be flushed: %s", drive->id, disk_path(old), g_strerror(-result));
    drive->disk = disk;
    return old;
}

bool drive_stack_overlay(struct drive *drive, struct disk *overlay)
{
    drive_drain(drive);
    if (!disk_overlay_stack(overlay, drive->disk))
        return false;
    drive->disk = overlay;
    return true;
}

struct disk *drive_lift_overlay(struct drive *drive, GError **error)
{
    struct disk *overlay = drive->disk, *base = disk_overlay_lift(overlay, error);
    if (!base)
        return NULL;
    drive->disk = base;
    return overlay;
}

void drive_unlift_overlay(struct drive *drive, struct disk *overlay)
{
    disk_overlay_unlift(overlay, drive->disk);
    drive->disk = overlay;
}
