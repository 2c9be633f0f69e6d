// SPDX-License-Identifier: GPL-2.0-or-later
// Opening and closing: probing, chains of overlays, what a disk is.
#include "disks/driver.h"
#include "disks/identity.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_LAYERS = 1000 };

const struct disk_driver *const disk_drivers[] = {
    &qcow2_driver, &vmdk_driver, &vdi_driver, &vhd_driver, &raw_driver, NULL,
};

const struct disk_driver *disk_driver_find(const char *name)
{
    for (unsigned i = 0; disk_drivers[i]; i++)
        if (strcmp(disk_drivers[i]->name, name) == 0)
            return disk_drivers[i];
    // What other tools call it.
    return strcmp(name, "vpc") == 0 ? disk_driver_find("vhd") : NULL;
}

const struct disk_driver *disk_driver_probe(const struct probe *probe)
{
    for (unsigned i = 0; disk_drivers[i]; i++)
        if (disk_drivers[i]->probe(probe))
            return disk_drivers[i];
    return &raw_driver;
}

void set_errno_error(GError **error, int rc, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    enum cloche_error code = rc == -ENOSPC || rc == -EDQUOT ? CLOCHE_ERROR_NO_SPACE : CLOCHE_ERROR_FAILED;
    g_set_error(error, CLOCHE_ERROR, code, "%s: %s", what, g_strerror(-rc));
}

static const struct disk_driver *probe_file(struct file *file, GError **error)
{
    uint8_t head[PROBE_LENGTH], tail[512];
    struct probe probe = {
        .head = head, .head_length = MIN(file_size(file), PROBE_LENGTH), .file_size = file_size(file)};
    int rc = file_read(file, 0, head, probe.head_length);
    if (!rc && probe.file_size >= 512) {
        rc = file_read(file, probe.file_size - 512, tail, 512);
        probe.tail = tail;
    }
    if (!rc)
        return disk_driver_probe(&probe);
    set_errno_error(error, rc, "Cannot read %s", file->path);
    return NULL;
}

static const struct disk_driver *choose_driver(struct disk *disk, const char *format, GError **error)
{
    if (!format) {
        disk->probed = true;
        return probe_file(disk->file, error);
    }
    const struct disk_driver *driver = disk_driver_find(format);
    if (!driver)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "%s: the disk format “%s” is not known; known are raw, qcow2, vmdk, vdi and vhd", disk->path,
                    format);
    return driver;
}

char *backing_path_resolve(const char *image, const char *recorded, GError **error)
{
    if (g_str_has_prefix(recorded, "file:"))
        recorded += strlen("file:");
    const char *colon = strchr(recorded, ':'), *slash = strchr(recorded, '/');
    if (colon && (!slash || colon < slash)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "The base of %s is “%s”, which is not a file: only files can be bases here", image, recorded);
        return NULL;
    }
    if (g_path_is_absolute(recorded))
        return g_strdup(recorded);
    g_autofree char *folder = g_path_get_dirname(image);
    return strcmp(folder, ".") == 0 ? g_strdup(recorded) : g_build_filename(folder, recorded, NULL);
}

// ---- Chains ----
struct opening {
    const struct opening *overlay; // who asked for this one as its base
    struct disk *disk;
};

static bool same_file(const struct disk *a, const struct disk *b)
{
    struct stat x, y;
    return fstat(a->file->fd, &x) == 0 && fstat(b->file->fd, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool check_loop(const struct opening *here, GError **error)
{
    for (const struct opening *o = here->overlay; o; o = o->overlay)
        if (same_file(o->disk, here->disk)) {
            g_set_error(
                error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT,
                "%s is, through its chain of bases, its own base: give it its real base with cloche-disk rebase",
                here->disk->path);
            return false;
        }
    if (here->disk->depth < MOST_LAYERS)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                "%s has more than %d files below it: merge some with cloche-disk commit", here->disk->path,
                MOST_LAYERS);
    return false;
}

static struct disk *open_layer(const char *path, const struct disk_options *options, const struct opening *overlay,
                               GError **error);

static bool open_backing(struct opening *here, GError **error)
{
    struct disk *disk = here->disk;
    if (!disk->backing_path || disk->flags & DISK_OPEN_NO_BACKING)
        return true;
    g_autofree char *path = backing_path_resolve(disk->path, disk->backing_path, error);
    if (!path)
        return false;
    struct disk_options options = {.format = disk->backing_format,
                                   .hooks = NULL,
                                   .flags = DISK_OPEN_READ_ONLY | (disk->flags & ~DISK_OPEN_DETECT_ZEROES)};
    GError *why = NULL;
    disk->backing = open_layer(path, &options, here, &why);
    if (disk->backing &&
        (disk->flags & DISK_OPEN_ACCEPT_BASE ||
         (identity_check(disk, &why) && (!disk->driver->check_base || disk->driver->check_base(disk, &why)))))
        return true;
    if (g_error_matches(why, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND) && !g_file_test(path, G_FILE_TEST_EXISTS))
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                    "The base %s of %s is missing: put it back there, or give its new place with cloche-disk rebase -u",
                    path, disk->path);
    else
        g_set_error(error, why->domain, why->code, "%s", why->message);
    g_error_free(why);
    return false;
}

static struct file *open_file(const char *path, const struct disk_options *options, GError **error)
{
    unsigned flags = options->flags & DISK_OPEN_READ_ONLY ? 0 : FILE_OPEN_WRITABLE;
    flags |= options->flags & DISK_OPEN_DIRECT ? FILE_OPEN_DIRECT : 0;
    flags |= options->flags & DISK_OPEN_FORCE ? FILE_OPEN_NO_LOCK : 0;
    return file_open(path, flags, options->hooks, error);
}

static struct disk *layer_new(const char *path, const struct disk_options *options, const struct opening *overlay)
{
    struct disk *disk = g_new0(struct disk, 1);
    disk->path = g_strdup(path);
    disk->flags = options->flags;
    disk->read_only = options->flags & DISK_OPEN_READ_ONLY;
    disk->snapshot = g_strdup(options->snapshot);
    disk->hooks = options->hooks;
    pthread_mutex_init(&disk->drain_lock, NULL);
    pthread_cond_init(&disk->drained, NULL);
    disk->owns_engine = !overlay;
    disk->depth = overlay ? overlay->disk->depth + 1 : 0;
    disk->engine = overlay ? overlay->disk->engine
                           : engine_new(!(options->flags & DISK_OPEN_THREADS), options->flags & DISK_OPEN_POLLED);
    return disk;
}

static void layer_free(struct disk *disk)
{
    if (!disk)
        return;
    if (disk->state)
        disk->driver->close(disk);
    layer_free(disk->backing);
    file_close(disk->file);
    if (disk->owns_engine)
        engine_free(disk->engine);
    pthread_mutex_destroy(&disk->drain_lock);
    pthread_cond_destroy(&disk->drained);
    g_free(disk->path);
    g_free(disk->snapshot);
    g_free(disk->read_only_reason);
    g_free(disk->backing_path);
    g_free(disk->backing_format);
    g_free(disk->backing_identity);
    g_free(disk);
}

static bool open_with_driver(struct disk *disk, GError **error)
{
    GError *why = NULL;
    if (disk->driver->open(disk, &why))
        return true;
    bool damaged = g_error_matches(why, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT);
    g_set_error(error, why->domain, why->code, "%s%s%s", why->message,
                damaged ? "; put a backup of this file in its place" : "",
                damaged && !disk->probed ? ", or give its real format" : "");
    g_error_free(why);
    return false;
}

static bool open_format(struct opening *here, const char *format, GError **error)
{
    struct disk *disk = here->disk;
    disk->driver = choose_driver(disk, format, error);
    if (!disk->driver || !check_loop(here, error) || !open_with_driver(disk, error))
        return false;
    if (disk->read_only_reason)
        disk->read_only = true;
    return open_backing(here, error);
}

static struct disk *open_layer(const char *path, const struct disk_options *options, const struct opening *overlay,
                               GError **error)
{
    struct disk_options asked = *options;
    if (asked.snapshot)
        asked.flags |= DISK_OPEN_READ_ONLY;
    if (asked.flags & DISK_OPEN_FORCE)
        asked.flags |= DISK_OPEN_READ_ONLY;
    struct opening here = {.overlay = overlay, .disk = layer_new(path, &asked, overlay)};
    here.disk->file = open_file(path, &asked, error);
    if (here.disk->file && open_format(&here, asked.format, error)) {
        // A disk that took all its space beforehand keeps it.
        if (here.disk->file->regular && file_allocated(here.disk->file) >= here.disk->size)
            here.disk->flags &= ~DISK_OPEN_DETECT_ZEROES;
        return here.disk;
    }
    layer_free(here.disk);
    return NULL;
}

struct disk *disk_open_with(const char *path, const struct disk_options *options, GError **error)
{
    struct disk *disk = open_layer(path, options, NULL, error);
    if (disk && disk->read_only_reason && !(options->flags & DISK_OPEN_READ_ONLY))
        log_warning("disks", "%s is opened read-only: %s", path, disk->read_only_reason);
    return disk;
}

struct disk *disk_open(const char *path, const char *format, unsigned flags, GError **error)
{
    return disk_open_with(path, &(struct disk_options){.format = format, .flags = flags}, error);
}

void disk_close(struct disk *disk)
{
    if (!disk)
        return;
    disk_drain(disk);
    int rc = disk->read_only ? 0 : disk_flush(disk);
    if (!rc && !disk->read_only && disk->driver->settle)
        rc = disk->driver->settle(disk);
    if (!rc && !disk->read_only && disk->backing && g_str_has_suffix(disk->backing_identity ?: "", "samples=transit"))
        disk_overlay_identify(disk);
    if (rc)
        log_error("disks", "%s: what was written last may be lost: %s", disk->path, g_strerror(-rc));
    layer_free(disk);
}

bool disk_resize(struct disk *disk, uint64_t size, GError **error)
{
    if (disk->read_only) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "%s cannot be resized: %s", disk->path,
                    disk->read_only_reason ? disk->read_only_reason : "it is open read-only");
        return false;
    }
    if (size % 512 || size > INT64_MAX - 512) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s cannot get that size: give a multiple of 512 bytes below 8 EiB", disk->path);
        return false;
    }
    disk_drain(disk);
    if (size == disk->size)
        return true;
    if (disk->driver->may_resize && !disk->driver->may_resize(disk, size, error))
        return false;
    int rc = disk->driver->resize(disk, size);
    if (rc == -EFBIG && disk->driver->size_limit)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s cannot get that large: %s", disk->path,
                    disk->driver->size_limit);
    else if (rc)
        set_errno_error(error, rc, "Cannot resize %s", disk->path);
    return rc == 0;
}

uint64_t disk_size(struct disk *disk)
{
    return disk->size;
}

bool disk_read_only(struct disk *disk)
{
    return disk->read_only;
}

const char *disk_read_only_reason(struct disk *disk)
{
    return disk->read_only_reason;
}

const char *disk_format(struct disk *disk)
{
    return disk->driver->name;
}

const char *disk_path(struct disk *disk)
{
    return disk->path;
}

struct disk *disk_backing(struct disk *disk)
{
    return disk->backing;
}

const char *disk_engine_name(struct disk *disk)
{
    return engine_name(disk->engine);
}
