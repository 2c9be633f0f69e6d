// SPDX-License-Identifier: GPL-2.0-or-later
#include "disks/check.h"
#include "disks/driver.h"

enum { MOST_MESSAGES = 100 };

void disk_check_note(struct disk_check_result *result, const char *format, ...)
{
    if (!result->messages)
        result->messages = g_ptr_array_new_with_free_func(g_free);
    if (result->messages->len >= MOST_MESSAGES)
        return;
    va_list args;
    va_start(args, format);
    g_ptr_array_add(result->messages, g_strdup_vprintf(format, args));
    va_end(args);
}

void disk_check_clear(struct disk_check_result *result)
{
    if (result->messages)
        g_ptr_array_free(result->messages, TRUE);
    *result = (struct disk_check_result){0};
}

bool disk_check(const char *path, const char *format, bool repair, struct disk_check_result *result, struct job *job,
                GError **error)
{
    unsigned flags = DISK_OPEN_NO_BACKING | (repair ? DISK_OPEN_REPAIR : DISK_OPEN_READ_ONLY);
    struct disk *disk = disk_open(path, format, flags, error);
    if (!disk)
        return false;
    bool ok = true;
    if (repair && disk->read_only) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "%s cannot be repaired: %s", path,
                    disk->read_only_reason);
        ok = false;
    } else if (disk->driver->check)
        ok = disk->driver->check(disk, repair, result, job, error);
    disk->read_only = true; // a check writes what it repairs itself: nothing is flushed after it
    disk_close(disk);
    return ok;
}
