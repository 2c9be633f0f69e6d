// SPDX-License-Identifier: GPL-2.0-or-later
#include "disks/create.h"
#include "disks/driver.h"
#include "disks/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

static bool sync_folder(const char *path)
{
    g_autofree char *folder = g_path_get_dirname(path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool ok = fsync(fd) == 0;
    close(fd);
    return ok;
}

// The base as it is now: its size for the new overlay, and what the overlay will remember of it.
static bool look_at_base(const char *path, struct disk_create_options *options, char **format, char **identity,
                         GError **error)
{
    g_autofree char *resolved = backing_path_resolve(path, options->backing, error);
    struct disk *base = resolved ? disk_open(resolved, options->backing_format, DISK_OPEN_READ_ONLY, error) : NULL;
    if (!base)
        return false;
    if (!options->size)
        options->size = base->size;
    *format = g_strdup(base->driver->name);
    *identity = identity_of(base);
    disk_close(base);
    return true;
}

static bool add_base(const char *path, const char *backing, const char *format, const char *identity,
                     const struct disk_create_options *options, GError **error)
{
    struct disk_options open = {.format = "qcow2", .flags = DISK_OPEN_NO_BACKING, .hooks = options->hooks};
    struct disk *disk = disk_open_with(path, &open, error);
    if (!disk)
        return false;
    bool ok = disk->driver->set_backing(disk, backing, format, identity, error);
    disk_close(disk);
    return ok;
}

static bool create_at(const char *path, const struct disk_driver *driver, const struct disk_create_options *options,
                      const char *format, const char *identity, GError **error)
{
    if (driver->create(path, options, error)) {
        if (!options->backing || add_base(path, options->backing, format, identity, options, error))
            return true;
        g_unlink(path);
    }
    return false;
}

bool disk_create(const char *path, const struct disk_create_options *asked, GError **error)
{
    struct disk_create_options options = *asked;
    const struct disk_driver *driver = disk_driver_find(options.format ? options.format : "qcow2");
    g_autofree char *format = NULL, *identity = NULL;
    if (!driver || !driver->create) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "Cannot create %s: the format “%s” is not known; known are raw, qcow2, vmdk, vdi and vhd", path,
                    options.format);
        return false;
    }
    if (options.backing && !driver->set_backing) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "Cannot create %s: only qcow2 images can be overlays here; any format can be their base", path);
        return false;
    }
    if (options.backing && !look_at_base(path, &options, &format, &identity, error))
        return false;
    if (g_file_test(path, G_FILE_TEST_EXISTS) && !options.force) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS,
                    "%s exists already: choose another name, or ask for it to be replaced", path);
        return false;
    }
    options.size = ALIGN_UP(options.size, 512);
    g_autofree char *fresh = options.force ? g_strdup_printf("%s.new-%d", path, getpid()) : g_strdup(path);
    bool ok = create_at(fresh, driver, &options, format, identity, error);
    if (ok && options.force && g_rename(fresh, path) < 0) {
        set_errno_error(error, -errno, "Cannot replace %s", path);
        ok = false;
    }
    if (!ok && options.force)
        g_unlink(fresh);
    if (ok && !sync_folder(path))
        log_warning("disks", "%s: its folder could not be synced", path);
    return ok;
}
