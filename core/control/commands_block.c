// SPDX-License-Identifier: GPL-2.0-or-later
// Drives: what is in them, counters, media, sizes.
#include "core/control/server.h"
#include "core/machine/drive.h"

static struct drive *find_drive(struct qmp_call *call, GError **error)
{
    const char *id = qmp_string(call, "id");
    if (!id)
        id = qmp_string(call, "device");
    if (!id)
        id = qmp_string(call, "node-name");
    if (!id) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Name the drive with 'id' or 'device'");
        return NULL;
    }
    struct drive *drive = drive_find(call_machine(call), id);
    if (!drive)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                    "Device '%.100s' not found; query-block lists the drives", id);
    return drive;
}

static struct drive *find_removable(struct qmp_call *call, GError **error)
{
    struct drive *drive = find_drive(call, error);
    if (drive && !drive_removable(drive)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Drive '%s' is a disk; its medium cannot be changed",
                    drive->id);
        return NULL;
    }
    return drive;
}

// The files of a chain, the top one first.
static JsonObject *image_info(struct disk *disk)
{
    JsonObject *image = json_object_new();
    json_object_set_string_member(image, "filename", disk_path(disk));
    json_object_set_string_member(image, "format", disk_format(disk));
    json_object_set_int_member(image, "virtual-size", disk_size(disk));
    return image;
}

static JsonObject *inserted_info(struct drive *drive)
{
    struct disk *disk = drive->disk;
    JsonObject *inserted = json_object_new(), *cache = json_object_new();
    json_object_set_string_member(inserted, "file", disk_path(disk));
    json_object_set_string_member(inserted, "node-name", drive->id);
    json_object_set_string_member(inserted, "drv", disk_format(disk));
    json_object_set_boolean_member(inserted, "ro", !drive_writable(drive));
    json_object_set_boolean_member(inserted, "encrypted", FALSE);
    json_object_set_string_member(inserted, "detect_zeroes", "off");
    unsigned depth = 0;
    for (struct disk *base = disk_backing(disk); base; base = disk_backing(base))
        depth++;
    json_object_set_int_member(inserted, "backing_file_depth", depth);
    if (depth)
        json_object_set_string_member(inserted, "backing_file", disk_path(disk_backing(disk)));
    static const char *const limits[] = {"bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"};
    for (unsigned i = 0; i < G_N_ELEMENTS(limits); i++)
        json_object_set_int_member(inserted, limits[i], 0);
    json_object_set_boolean_member(cache, "writeback", TRUE);
    json_object_set_boolean_member(cache, "direct", drive->direct);
    json_object_set_boolean_member(cache, "no-flush", FALSE);
    json_object_set_object_member(inserted, "cache", cache);
    json_object_set_int_member(inserted, "write_threshold", 0);
    json_object_set_object_member(inserted, "image", image_info(disk));
    return inserted;
}

static JsonNode *query_block(struct qmp_call *call, GError **error)
{
    JsonArray *list = json_array_new();
    for (struct drive *drive = call_machine(call)->drives; drive; drive = drive->next) {
        JsonObject *entry = json_object_new();
        json_object_set_string_member(entry, "device", drive->id);
        json_object_set_string_member(entry, "qdev", drive->id);
        json_object_set_string_member(entry, "type", "unknown"); // as the schema has it: "internal use only"
        json_object_set_boolean_member(entry, "removable", drive_removable(drive));
        json_object_set_boolean_member(entry, "locked", drive->tray_locked);
        json_object_set_string_member(entry, "io-status", drive->parked ? "nospace" : "ok");
        if (drive_removable(drive))
            json_object_set_boolean_member(entry, "tray_open", drive->tray_open);
        if (drive->disk)
            json_object_set_object_member(entry, "inserted", inserted_info(drive));
        json_array_add_object_element(list, entry);
    }
    return qmp_node_array(list);
}

// Which member of the schema shows what. MERGED is always 0: every request of the guest goes to the disk by itself.
static const struct {
    const char *operations, *bytes, *time, *failed, *invalid, *merged;
} members[DRIVE_WORKS] = {
    [DRIVE_READS] = {"rd_operations", "rd_bytes", "rd_total_time_ns", "failed_rd_operations", "invalid_rd_operations",
                     "rd_merged"},
    [DRIVE_WRITES] = {"wr_operations", "wr_bytes", "wr_total_time_ns", "failed_wr_operations", "invalid_wr_operations",
                      "wr_merged"},
    [DRIVE_FLUSHES] = {"flush_operations", NULL, "flush_total_time_ns", "failed_flush_operations",
                       "invalid_flush_operations", NULL},
    [DRIVE_UNMAPS] = {"unmap_operations", "unmap_bytes", "unmap_total_time_ns", "failed_unmap_operations",
                      "invalid_unmap_operations", "unmap_merged"},
};

static void set_counts(JsonObject *stats, struct drive *drive)
{
    for (unsigned i = 0; i < DRIVE_WORKS; i++) {
        const struct drive_count *count = &drive->counts[i];
        json_object_set_int_member(stats, members[i].operations, count->operations);
        json_object_set_int_member(stats, members[i].time, count->time_us * 1000);
        json_object_set_int_member(stats, members[i].failed, count->failed);
        json_object_set_int_member(stats, members[i].invalid, count->invalid);
        if (members[i].bytes)
            json_object_set_int_member(stats, members[i].bytes, count->bytes);
        if (members[i].merged)
            json_object_set_int_member(stats, members[i].merged, 0);
    }
    if (drive->last_end)
        json_object_set_int_member(stats, "idle_time_ns", (g_get_monotonic_time() - drive->last_end) * 1000);
}

static JsonNode *query_blockstats(struct qmp_call *call, GError **error)
{
    JsonArray *list = json_array_new();
    for (struct drive *drive = call_machine(call)->drives; drive; drive = drive->next) {
        JsonObject *entry = json_object_new(), *stats = json_object_new();
        g_mutex_lock(&drive->lock);
        set_counts(stats, drive);
        json_object_set_int_member(stats, "wr_highest_offset", drive->highest_write);
        json_object_set_boolean_member(stats, "account_invalid", TRUE); // in idle_time_ns
        json_object_set_boolean_member(stats, "account_failed", TRUE);
        json_object_set_array_member(stats, "timed_stats", json_array_new());
        json_object_set_int_member(stats, "x-cloche-errors", drive->errors);
        g_mutex_unlock(&drive->lock);
        json_object_set_string_member(entry, "device", drive->id);
        json_object_set_string_member(entry, "qdev", drive->id);
        json_object_set_string_member(entry, "node-name", drive->id);
        json_object_set_object_member(entry, "stats", stats);
        json_array_add_object_element(list, entry);
    }
    return qmp_node_array(list);
}

static JsonNode *do_eject(struct qmp_call *call, GError **error)
{
    struct drive *drive = find_removable(call, error);
    if (drive)
        drive_eject(drive, qmp_bool(call, "force", false), error);
    return NULL;
}

static JsonNode *do_open_tray(struct qmp_call *call, GError **error)
{
    struct drive *drive = find_removable(call, error);
    if (!drive || drive->tray_open)
        return NULL;
    if (drive->tray_locked && !qmp_bool(call, "force", false)) {
        if (drive->client && drive->client->eject_requested)
            drive->client->eject_requested(drive->client_opaque);
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "Device '%s' is locked by the guest, which was asked to release it; wait, or use force", drive->id);
        return NULL;
    }
    drive_set_tray(drive, true);
    return NULL;
}

static JsonNode *do_close_tray(struct qmp_call *call, GError **error)
{
    struct drive *drive = find_removable(call, error);
    if (drive)
        drive_set_tray(drive, false);
    return NULL;
}

static JsonNode *do_change_medium(struct qmp_call *call, GError **error)
{
    struct drive *drive = find_removable(call, error);
    if (drive)
        drive_change_medium(drive, qmp_string(call, "filename"), qmp_string(call, "format"),
                            qmp_bool(call, "force", false), error);
    return NULL;
}

static JsonNode *do_resize(struct qmp_call *call, GError **error)
{
    struct drive *drive = find_drive(call, error);
    if (drive)
        drive_resize(drive, qmp_int(call, "size", 0), error);
    return NULL;
}

#define WHICH QMP_MAY("device", QMP_STRING), QMP_MAY("id", QMP_STRING)
static const struct qmp_argument eject_arguments[] = {WHICH, QMP_MAY("force", QMP_BOOL), QMP_END};
static const struct qmp_argument tray_arguments[] = {WHICH, QMP_END};
static const struct qmp_argument resize_arguments[] = {QMP_MAY("device", QMP_STRING), QMP_MAY("node-name", QMP_STRING),
                                                       QMP_NEED("size", QMP_INT, .min = 512, .max = INT64_MAX),
                                                       QMP_END};
static const struct qmp_argument medium_arguments[] = {
    WHICH, QMP_NEED("filename", QMP_STRING), QMP_MAY("format", QMP_STRING), QMP_MAY("force", QMP_BOOL), QMP_END};

const struct qmp_command control_block_commands[] = {
    QMP_COMMAND("query-block", query_block, NULL, "The drives and what is in them."),
    QMP_COMMAND("query-blockstats", query_blockstats, NULL,
                "Counters of the drives. Requests are not merged: those counters stay 0."),
    QMP_COMMAND("eject", do_eject, eject_arguments, "Takes the medium out."),
    QMP_COMMAND("blockdev-open-tray", do_open_tray, eject_arguments, "Opens a tray."),
    QMP_COMMAND("blockdev-close-tray", do_close_tray, tray_arguments, "Closes a tray."),
    QMP_COMMAND("blockdev-change-medium", do_change_medium, medium_arguments, "Puts another medium in."),
    QMP_COMMAND("block_resize", do_resize, resize_arguments, "Gives a disk another size; the guest is told."),
    QMP_END,
};
