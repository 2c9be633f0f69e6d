// SPDX-License-Identifier: GPL-2.0-or-later
#include "disks/create.h"
#include "disks/driver.h"
#include "disks/identity.h"
#include "disks/staging.h"

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

static bool create_file(const struct disk_driver *driver, const char *path, const struct disk_create_options *options,
                        GError **error)
{
    struct file *file = file_open(path, FILE_OPEN_CREATE, options->hooks, error);
    if (!file)
        return false;
    GError *refused = NULL;
    int rc = driver->create(file, options, &refused);
    if (!rc)
        rc = file_sync(file);
    file_close(file);
    if (refused)
        g_propagate_error(error, refused);
    else if (rc)
        set_errno_error(error, rc, "Cannot create %s", path);
    return rc == 0;
}

bool disk_create(const char *path, const struct disk_create_options *asked, GError **error)
{
    struct disk_create_options options = *asked;
    const struct disk_driver *driver = disk_driver_find(options.format ? options.format : "qcow2");
    g_autofree char *format = NULL, *identity = NULL, *name = g_path_get_basename(path);
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
    struct staging s;
    if ((options.backing && !look_at_base(path, &options, &format, &identity, error)) ||
        !staging_begin(&s, path, options.force ? STAGING_REPLACE : STAGING_NEW, error))
        return false;
    options.size = ALIGN_UP(options.size, 512);
    if (!options.name)
        options.name = name;
    bool ok = create_file(driver, s.fresh, &options, error) &&
              (!options.backing || add_base(s.fresh, options.backing, format, identity, &options, error));
    return staging_end(&s, ok, error);
}
