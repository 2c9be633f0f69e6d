// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/disk-grow.h"
#include "core/config/library.h"
#include "core/config/option.h"
#include "disks/disk.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/job.h"
#include "ui/desktop/text-dialog.h"

#include <glib/gi18n.h>
#include <string.h>
#include <unistd.h>

struct grow {
    ClocheMachine *machine;
    GtkWindow *parent;
    char *drive, *folder, *path, *format; // FORMAT NULL: probed
    guint64 now, size;
};

static void grow_free(gpointer data)
{
    struct grow *grow = data;
    g_object_unref(grow->machine);
    g_free(grow->drive);
    g_free(grow->folder);
    g_free(grow->path);
    g_free(grow->format);
    g_free(grow);
}

static struct grow *grow_copy(const struct grow *grow)
{
    struct grow *copy = g_new0(struct grow, 1);
    *copy = *grow;
    g_object_ref(copy->machine);
    copy->drive = g_strdup(grow->drive);
    copy->folder = g_strdup(grow->folder);
    copy->path = g_strdup(grow->path);
    copy->format = g_strdup(grow->format);
    return copy;
}

// ---- On the image of a machine that is off ----
static bool grow_file(void *opaque, struct progress *progress, GError **error)
{
    struct grow *grow = opaque;
    int lock = machine_folder_lock(grow->folder, error);
    if (lock < 0)
        return false;
    struct disk *disk = disk_open(grow->path, grow->format, 0, error);
    bool good = disk && disk_resize(disk, grow->size, error);
    if (disk)
        disk_close(disk);
    close(lock);
    return good;
}

static void carry_out(struct grow *grow)
{
    if (!cloche_machine_why_not(grow->machine, CLOCHE_REQUEST_CHANGE)) {
        job_start_work(grow->parent, &(struct job_work){.title = _("Growing the disk"),
                                                        .failure = _("The disk could not be grown"),
                                                        .run = grow_file,
                                                        .opaque = grow_copy(grow),
                                                        .destroy = grow_free});
        return;
    }
    dialog_call(grow->machine, "block_resize",
                control_arguments("s:device", grow->drive, "i:size", (int64_t)grow->size, NULL), grow->parent);
}

// ---- The question ----
static void answered(gpointer data, const char *text, const char *note, gboolean choice)
{
    struct grow *grow = data;
    g_autoptr(GError) error = NULL;
    g_autofree char *now = format_size(grow->now);
    if (!option_parse_size(text, &grow->size))
        error = g_error_new(CLOCHE_ERROR, CLOCHE_ERROR_INVALID, _("“%s” is no size; write for example 40G."), text);
    else if (grow->size <= grow->now)
        error = g_error_new(CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                            _("The disk has %s already, and a disk only grows: shrinking would cut off data."), now);
    if (error)
        dialog_error(grow->parent, _("The disk was not grown"), error, NULL);
    else
        carry_out(grow);
}

static gboolean look_at(struct grow *grow, GError **error)
{
    const struct machine_device *device = cloche_machine_find_device(grow->machine, grow->drive);
    g_autofree char *group = g_strdup_printf("Drive %s", grow->drive);
    g_autofree char *file = cloche_machine_get_option(grow->machine, group, "file");
    g_autofree char *format = cloche_machine_get_option(grow->machine, group, "format");
    if (!file || !*file) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    _("The drive %s has no image. Settings ▸ Drives gives it one."), grow->drive);
        return FALSE;
    }
    grow->path = g_path_is_absolute(file) ? g_strdup(file) : g_build_filename(grow->folder, file, NULL);
    grow->format = g_strcmp0(format, "auto") == 0 ? NULL : g_strdup(format);
    if (device && device->size) {
        grow->now = device->size;
        return TRUE;
    }
    struct disk *disk = disk_open(grow->path, grow->format, DISK_OPEN_READ_ONLY, error);
    if (!disk)
        return FALSE;
    grow->now = disk_size(disk);
    disk_close(disk);
    return TRUE;
}

void disk_grow_ask(ClocheMachine *machine, const char *drive, GtkWindow *parent)
{
    g_autoptr(GError) error = NULL;
    struct grow *grow = g_new0(struct grow, 1);
    grow->machine = g_object_ref(machine);
    grow->parent = parent;
    grow->drive = g_strdup(drive);
    grow->folder = g_strdup(cloche_machine_get_folder(machine));
    if (!look_at(grow, &error)) {
        dialog_error(parent, _("The disk cannot be grown"), error, NULL);
        grow_free(grow);
        return;
    }
    g_autofree char *now = format_size(grow->now), *suggestion = option_format_size(grow->now * 2);
    g_autofree char *label = g_strdup_printf(
        _("_New size of %s (now %s). The guest sees a larger disk; its partitions grow with its own tools."), drive,
        now);
    struct text_question question = {
        .title = _("Grow Disk"),
        .label = label,
        .text = suggestion,
        .accept = _("_Grow"),
        .done = answered,
        .data = grow,
        .destroy = grow_free,
    };
    text_dialog_ask(parent, &question);
}
