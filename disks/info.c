// SPDX-License-Identifier: GPL-2.0-or-later
#include "disks/info.h"
#include "disks/driver.h"

struct disk_info *disk_info_of(struct disk *disk)
{
    struct disk_info *info = g_new0(struct disk_info, 1);
    info->path = g_strdup(disk->path);
    info->format = g_strdup(disk->driver->name);
    info->size = disk->size;
    info->file_size = file_size(disk->file);
    info->allocated = file_allocated(disk->file);
    info->read_only_reason = g_strdup(disk->read_only_reason);
    info->backing = g_strdup(disk->backing_path);
    info->backing_format = g_strdup(disk->backing_format);
    if (disk->backing_path)
        info->backing_path = backing_path_resolve(disk->path, disk->backing_path, NULL);
    if (disk->driver->info)
        disk->driver->info(disk, info);
    return info;
}

// A reason in words where the chain below does not open.
static char *backing_problem(const char *path, const char *format)
{
    GError *error = NULL;
    struct disk *disk = disk_open(path, format, DISK_OPEN_READ_ONLY | DISK_OPEN_FORCE, &error);
    char *problem = disk ? NULL : g_strdup(error->message);
    g_clear_error(&error);
    disk_close(disk);
    return problem;
}

struct disk_info *disk_info(const char *path, const char *format, GError **error)
{
    struct disk *disk = disk_open(path, format, DISK_OPEN_READ_ONLY | DISK_OPEN_FORCE | DISK_OPEN_NO_BACKING, error);
    if (!disk)
        return NULL;
    struct disk_info *info = disk_info_of(disk);
    disk_close(disk);
    if (info->backing)
        info->backing_problem = backing_problem(path, format);
    return info;
}

void disk_info_free(struct disk_info *info)
{
    if (!info)
        return;
    for (unsigned i = 0; i < info->snapshot_count; i++) {
        g_free(info->snapshots[i].id);
        g_free(info->snapshots[i].name);
    }
    g_free(info->snapshots);
    g_free(info->path);
    g_free(info->format);
    g_free(info->variant);
    g_free(info->read_only_reason);
    g_free(info->backing);
    g_free(info->backing_format);
    g_free(info->backing_path);
    g_free(info->backing_problem);
    g_free(info);
}
