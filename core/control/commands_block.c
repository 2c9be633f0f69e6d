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

// What QEMU counts besides, and its schema demands.
static const char *const uncounted[] = {
    "unmap_bytes",
    "unmap_operations",
    "rd_total_time_ns",
    "wr_total_time_ns",
    "flush_total_time_ns",
    "unmap_total_time_ns",
    "wr_highest_offset",
    "rd_merged",
    "wr_merged",
    "unmap_merged",
    "failed_rd_operations",
    "failed_wr_operations",
    "failed_flush_operations",
    "failed_unmap_operations",
    "invalid_rd_operations",
    "invalid_wr_operations",
    "invalid_flush_operations",
    "invalid_unmap_operations",
};

static JsonNode *query_blockstats(struct qmp_call *call, GError **error)
{
    JsonArray *list = json_array_new();
    for (struct drive *drive = call_machine(call)->drives; drive; drive = drive->next) {
        JsonObject *entry = json_object_new(), *stats = json_object_new();
        g_mutex_lock(&drive->lock);
        json_object_set_int_member(stats, "rd_bytes", drive->read_bytes);
        json_object_set_int_member(stats, "wr_bytes", drive->written_bytes);
        json_object_set_int_member(stats, "rd_operations", drive->reads);
        json_object_set_int_member(stats, "wr_operations", drive->writes);
        json_object_set_int_member(stats, "flush_operations", drive->flushes);
        for (unsigned i = 0; i < G_N_ELEMENTS(uncounted); i++)
            json_object_set_int_member(stats, uncounted[i], 0);
        json_object_set_boolean_member(stats, "account_invalid", FALSE);
        json_object_set_boolean_member(stats, "account_failed", FALSE);
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
    QMP_COMMAND("query-blockstats", query_blockstats, NULL, "Counters of the drives."),
    QMP_COMMAND("eject", do_eject, eject_arguments, "Takes the medium out."),
    QMP_COMMAND("blockdev-open-tray", do_open_tray, eject_arguments, "Opens a tray."),
    QMP_COMMAND("blockdev-close-tray", do_close_tray, tray_arguments, "Closes a tray."),
    QMP_COMMAND("blockdev-change-medium", do_change_medium, medium_arguments, "Puts another medium in."),
    QMP_COMMAND("block_resize", do_resize, resize_arguments, "Gives a disk another size; the guest is told."),
    QMP_END,
};
