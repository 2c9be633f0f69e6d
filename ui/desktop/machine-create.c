// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/machine-create.h"
#include "core/config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gi18n.h>
#include <glib/gstdio.h>
#include <unistd.h>

void machine_plan_clear(struct machine_plan *plan)
{
    char **texts[] = {&plan->name,   &plan->os_id,  &plan->cdrom,  &plan->existing_disk,
                      &plan->kernel, &plan->initrd, &plan->append, &plan->network};
    for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
        g_clear_pointer(texts[i], g_free);
    *plan = (struct machine_plan){0};
}

static gboolean create_disk(const char *path, guint64 size, GError **error)
{
    int fd = g_open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0 && ftruncate(fd, size) == 0 && fsync(fd) == 0 && close(fd) == 0)
        return TRUE;
    int e = errno;
    if (fd >= 0)
        close(fd);
    g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(e), _("The disk %s could not be created: %s"), path,
                g_strerror(e));
    return FALSE;
}

static gboolean write_definition(const char *folder, const struct machine_plan *plan, GError **error)
{
    g_autoptr(config_t) config = config_new();
    g_autofree char *memory = option_format_size(plan->memory), *cpus = g_strdup_printf("%u", plan->cpus);
    const char *disk = plan->existing_disk ? plan->existing_disk : plan->disk ? "disk0.img" : NULL;
    const struct {
        const char *group, *key, *text;
    } entries[] = {
        {"Machine", "name", plan->name},
        {"Machine", "os", plan->os_id},
        {"Processors", "count", cpus},
        {"Memory", "size", memory},
        {"Clock", "local-time", plan->local_time ? "true" : NULL},
        {"Direct Boot", "kernel", plan->kernel},
        {"Direct Boot", "initrd", plan->initrd},
        {"Direct Boot", "append", plan->append},
        {"Drive disk0", "kind", disk ? "disk" : NULL},
        {"Drive disk0", "file", disk},
        {"Drive disk0", "format", plan->disk && !plan->existing_disk ? "raw" : NULL},
        {"Drive cdrom0", "kind", plan->cdrom ? "cdrom" : NULL},
        {"Drive cdrom0", "file", plan->cdrom},
        {"Network net0", "backend", plan->network},
        {"Network net0", "card", *plan->network ? "e1000" : NULL}, // every system has a driver for it
        {"Device tablet0", "device", "virtio-tablet"}, // no grab where the guest has a driver, else the PS/2 mouse
        {"Device agent0", "device", "spice-agent"},    // the clipboard, once the guest runs spice-vdagent
    };
    for (guint i = 0; i < G_N_ELEMENTS(entries); i++)
        if (entries[i].text && *entries[i].text &&
            !config_set(config, entries[i].group, entries[i].key, entries[i].text, error))
            return FALSE;
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL);
    return config_save(config, path, error);
}

gboolean machine_create(const char *folder, const struct machine_plan *plan, GCancellable *cancellable, GError **error)
{
    g_autofree char *disk = g_build_filename(folder, "disk0.img", NULL);
    gboolean new_disk = plan->disk && !plan->existing_disk;
    if (!g_cancellable_set_error_if_cancelled(cancellable, error) &&
        (!new_disk || create_disk(disk, plan->disk, error)) &&
        !g_cancellable_set_error_if_cancelled(cancellable, error) && write_definition(folder, plan, error))
        return TRUE;
    if (new_disk)
        g_unlink(disk);
    g_rmdir(folder);
    return FALSE;
}
