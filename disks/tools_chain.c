// SPDX-License-Identifier: GPL-2.0-or-later
// Overlays and their bases: commit, merge down, rebase, flatten.
#include "disks/driver.h"
#include "disks/identity.h"
#include "disks/tools.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

enum { CHUNK = 1024 * 1024 };

static bool io_error(GError **error, int rc, const char *what, const char *path)
{
    set_errno_error(error, rc, "Cannot %s %s", what, path);
    return false;
}

static bool no_base(GError **error, const char *path)
{
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s has no base: it is not an overlay", path);
    return false;
}

// ---- Commit ----
// Copies one run of what OVERLAY itself has at AT into BASE; *STEP is its length.
static int commit_run(struct disk *overlay, struct disk *base, uint64_t at, uint8_t *buffer, uint64_t *step)
{
    struct extent extent;
    struct iovec iov = {buffer, 0};
    int rc = overlay->driver->map(overlay, at, overlay->size - at, MAP_MAY_BLOCK, &extent);
    if (rc)
        return rc;
    extent_release(&extent);
    *step = extent.length;
    if (extent.kind == EXTENT_BACKING)
        return 0;
    if (extent.kind == EXTENT_ZERO)
        return disk_write_zeroes(base, at, *step, DISK_MAY_UNMAP);
    *step = iov.iov_len = MIN(*step, CHUNK);
    rc = disk_readv(overlay, at, *step, &iov, 1);
    return rc ? rc : disk_write(base, at, buffer, *step);
}

static bool commit_into(struct disk *overlay, struct disk *base, struct job *job, GError **error)
{
    g_autofree uint8_t *buffer = g_malloc(CHUNK);
    if (base->size < overlay->size && !disk_resize(base, overlay->size, error))
        return false;
    for (uint64_t at = 0; at < overlay->size;) {
        uint64_t step = 0;
        if (job_check_cancelled(job, error))
            return false;
        int rc = commit_run(overlay, base, at, buffer, &step);
        if (rc)
            return io_error(error, rc, "write to", base->path);
        at += step;
        job_set_progress(job, at, overlay->size);
    }
    int rc = disk_flush(base);
    return rc ? io_error(error, rc, "write to", base->path) : true;
}

// Opens the base for writing, once the overlay does not hold it any more.
static struct disk *open_base(struct disk *overlay, GError **error)
{
    g_autofree char *path = backing_path_resolve(overlay->path, overlay->backing_path, error);
    struct disk *base = path ? disk_open(path, overlay->backing_format, 0, error) : NULL;
    if (base && base->read_only) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "%s cannot be written to: %s", path,
                    base->read_only_reason ? base->read_only_reason : "it is read-only");
        disk_close(base);
        base = NULL;
    }
    return base;
}

static bool remember(struct disk *overlay, char *identity, GError **error)
{
    g_autofree char *path = g_strdup(overlay->backing_path), *format = g_strdup(overlay->backing_format);
    g_autofree char *owned = identity;
    return overlay->driver->set_backing(overlay, path, format, owned, error);
}

// While the base changes, the overlay remembers only its size: interrupted, it still opens, hides what the base has
// already got, and can be committed again.
static bool commit_open(struct disk *overlay, bool keep, struct job *job, GError **error)
{
    struct disk *base = open_base(overlay, error);
    if (!base)
        return false;
    bool ok = remember(overlay, identity_in_transit(base), error) && commit_into(overlay, base, job, error);
    int rc = ok && !keep ? overlay->driver->make_empty(overlay) : 0;
    if (!rc && ok)
        rc = disk_flush(overlay);
    if (rc)
        ok = io_error(error, rc, "empty", overlay->path);
    disk_close(base);
    if (!ok)
        return false;
    g_autofree char *path = backing_path_resolve(overlay->path, overlay->backing_path, error);
    base = path ? disk_open(path, overlay->backing_format, DISK_OPEN_READ_ONLY, error) : NULL;
    ok = base && remember(overlay, identity_of(base), error);
    disk_close(base);
    return ok;
}

// First with its base, to find out that they fit; then without it, because the base is going to be written.
static struct disk *open_overlay(const char *path, GError **error)
{
    struct disk *disk = disk_open(path, NULL, 0, error);
    if (!disk)
        return NULL;
    bool has_base = disk->backing_path && disk->driver->set_backing;
    disk_close(disk);
    if (!has_base) {
        no_base(error, path);
        return NULL;
    }
    return disk_open(path, NULL, DISK_OPEN_NO_BACKING, error);
}

bool disk_commit(const char *path, bool keep, struct job *job, GError **error)
{
    struct disk *overlay = open_overlay(path, error);
    bool ok = overlay && commit_open(overlay, keep, job, error);
    disk_close(overlay);
    return ok;
}

// ---- Rebase ----
static bool rebase_copy(struct disk *disk, struct disk *fresh, struct job *job, GError **error)
{
    g_autofree uint8_t *was = g_malloc(CHUNK), *will = g_malloc(CHUNK);
    uint64_t unit = disk_cluster_size(disk);
    for (uint64_t at = 0; at < disk->size;) {
        struct extent extent;
        if (job_check_cancelled(job, error))
            return false;
        int rc = disk->driver->map(disk, at, disk->size - at, MAP_MAY_BLOCK, &extent);
        uint64_t step = 0;
        if (!rc) {
            extent_release(&extent);
            step = extent.length;
        }
        if (!rc && extent.kind == EXTENT_BACKING) {
            step = MIN(step, CHUNK - at % CHUNK);
            rc = disk_readv(disk, at, step, &(struct iovec){was, step}, 1);
            memset(will, 0, step);
            if (!rc && fresh && at < fresh->size)
                rc = disk_readv(fresh, at, step, &(struct iovec){will, step}, 1);
            for (uint64_t i = 0, part; i < step && !rc; i += part) {
                part = MIN(unit - (at + i) % unit, step - i);
                if (memcmp(was + i, will + i, part) == 0)
                    continue;
                rc = buffer_is_zero(was + i, part) ? disk_write_zeroes(disk, at + i, part, DISK_MAY_UNMAP)
                                                   : disk_write(disk, at + i, was + i, part);
            }
        }
        if (rc)
            return io_error(error, rc, "rebase", disk->path);
        at += step;
        job_set_progress(job, at, disk->size);
    }
    int rc = disk_flush(disk);
    return rc ? io_error(error, rc, "rebase", disk->path) : true;
}

static struct disk *open_new_base(const char *path, const char *backing, const char *format, GError **error)
{
    g_autofree char *resolved = backing_path_resolve(path, backing, error);
    return resolved ? disk_open(resolved, format, DISK_OPEN_READ_ONLY, error) : NULL;
}

bool disk_rebase(const char *path, const char *backing, const char *backing_format, bool unsafe, struct job *job,
                 GError **error)
{
    struct disk *fresh = NULL;
    struct disk *disk = disk_open(path, NULL, unsafe ? DISK_OPEN_NO_BACKING : 0, error);
    if (!disk)
        return false;
    bool ok = disk->driver->set_backing != NULL;
    if (!ok)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "%s is not a qcow2 image: only those can have a base here", path);
    if (ok && backing) {
        fresh = open_new_base(path, backing, backing_format, error);
        ok = fresh != NULL;
    }
    if (ok && !unsafe)
        ok = rebase_copy(disk, fresh, job, error);
    g_autofree char *identity = ok && fresh ? identity_of(fresh) : NULL;
    if (ok)
        ok = disk->driver->set_backing(disk, backing, fresh ? fresh->driver->name : NULL, identity, error);
    disk_close(disk);
    disk_close(fresh);
    return ok;
}

bool disk_doubt_base(const char *path, GError **error)
{
    struct disk *overlay = disk_open(path, NULL, DISK_OPEN_NO_BACKING, error);
    if (!overlay)
        return false;
    struct disk *base =
        overlay->backing_path ? open_new_base(path, overlay->backing_path, overlay->backing_format, error) : NULL;
    if (!overlay->backing_path)
        no_base(error, path);
    bool ok = base && remember(overlay, identity_in_transit(base), error);
    disk_close(base);
    disk_close(overlay);
    return ok;
}

// ---- Merge down ----
static bool check_child(const char *child, const char *middle, GError **error)
{
    struct disk *disk = disk_open(child, NULL, DISK_OPEN_READ_ONLY, error);
    if (!disk)
        return false;
    GStatBuf a, b;
    bool ok = disk->backing && g_stat(disk->backing->path, &a) == 0 && g_stat(middle, &b) == 0 &&
              a.st_ino == b.st_ino && a.st_dev == b.st_dev;
    if (!ok)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s is not an overlay on %s", child, middle);
    disk_close(disk);
    return ok;
}

// Where MIDDLE ends before both its neighbours it hides the end of its base from CHILD.
static bool check_sizes(const char *middle, const char *child, GError **error)
{
    struct disk *disk = disk_open(child, NULL, DISK_OPEN_READ_ONLY, error);
    if (!disk)
        return false;
    struct disk *hidden = disk->backing ? disk->backing->backing : NULL;
    bool ok = !hidden || disk->backing->size >= MIN(disk->size, hidden->size);
    if (!ok)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s is smaller than its base and than %s: resize it to the size of its base first", middle, child);
    disk_close(disk);
    return ok;
}

// The base's name as CHILD will record it: MIDDLE's, where both lie in one folder.
static char *base_name_for(const char *middle, const char *child, char **format, GError **error)
{
    struct disk *disk = disk_open(middle, NULL, DISK_OPEN_READ_ONLY | DISK_OPEN_NO_BACKING, error);
    if (!disk)
        return NULL;
    char *name = NULL;
    if (!disk->backing_path)
        no_base(error, middle);
    else {
        g_autofree char *here = g_path_get_dirname(middle), *there = child ? g_path_get_dirname(child) : g_strdup(here);
        g_autofree char *resolved = backing_path_resolve(middle, disk->backing_path, error);
        if (resolved)
            name = strcmp(here, there) == 0 ? g_strdup(disk->backing_path) : g_canonicalize_filename(resolved, NULL);
        *format = g_strdup(disk->backing_format);
    }
    disk_close(disk);
    return name;
}

bool disk_merge_down(const char *middle, const char *child, struct job *job, GError **error)
{
    g_autofree char *format = NULL;
    if (child && (!check_child(child, middle, error) || !check_sizes(middle, child, error)))
        return false;
    g_autofree char *base = base_name_for(middle, child, &format, error);
    // MIDDLE keeps its contents until nobody needs it, so the chain reads the same at each step.
    if (!base || !disk_commit(middle, true, job, error))
        return false;
    if (child && !disk_rebase(child, base, format, true, NULL, error))
        return false;
    if (g_unlink(middle) == 0)
        return true;
    return io_error(error, -errno, "delete", middle);
}

// ---- As jobs ----
struct job_arguments {
    char *path, *other, *format;
    bool flag;
    struct disk_convert_options convert;
};

static void arguments_free(gpointer data)
{
    struct job_arguments *a = data;
    g_free(a->path);
    g_free(a->other);
    g_free(a->format);
    g_free((char *)a->convert.source_format);
    g_free((char *)a->convert.source_snapshot);
    g_free((char *)a->convert.target.format);
    g_free((char *)a->convert.target.backing);
    g_free((char *)a->convert.target.backing_format);
    g_free(a);
}

static struct job *start(const char *verb, job_run *run, const char *path, const char *other, const char *format,
                         bool flag)
{
    struct job_arguments *a = g_new0(struct job_arguments, 1);
    *a = (struct job_arguments){
        .path = g_strdup(path), .other = g_strdup(other), .format = g_strdup(format), .flag = flag};
    g_autofree char *name = g_path_get_basename(path);
    g_autofree char *title = g_strdup_printf("%s %s", verb, name);
    return job_start(title, run, a, arguments_free);
}

static bool run_commit(struct job *job, void *opaque, GError **error)
{
    struct job_arguments *a = opaque;
    return disk_commit(a->path, a->flag, job, error);
}

struct job *disk_job_commit(const char *path, bool keep)
{
    return start("Committing", run_commit, path, NULL, NULL, keep);
}

static bool run_merge(struct job *job, void *opaque, GError **error)
{
    struct job_arguments *a = opaque;
    return disk_merge_down(a->path, a->other, job, error);
}

struct job *disk_job_merge_down(const char *middle, const char *child)
{
    return start("Merging", run_merge, middle, child, NULL, false);
}

static bool run_rebase(struct job *job, void *opaque, GError **error)
{
    struct job_arguments *a = opaque;
    return disk_rebase(a->path, a->other, a->format, a->flag, job, error);
}

struct job *disk_job_rebase(const char *path, const char *backing, const char *backing_format, bool unsafe)
{
    return start(backing ? "Rebasing" : "Flattening", run_rebase, path, backing, backing_format, unsafe);
}

static bool run_compact(struct job *job, void *opaque, GError **error)
{
    struct job_arguments *a = opaque;
    return disk_compact(a->path, a->format, NULL, job, error);
}

struct job *disk_job_compact(const char *path, const char *format)
{
    return start("Compacting", run_compact, path, NULL, format, false);
}

static bool run_convert(struct job *job, void *opaque, GError **error)
{
    struct job_arguments *a = opaque;
    return disk_convert(a->path, a->other, &a->convert, job, error);
}

struct job *disk_job_convert(const char *source, const char *target, const struct disk_convert_options *options)
{
    struct job_arguments *a = g_new0(struct job_arguments, 1);
    *a = (struct job_arguments){.path = g_strdup(source), .other = g_strdup(target), .convert = *options};
    a->convert.source_format = g_strdup(options->source_format);
    a->convert.source_snapshot = g_strdup(options->source_snapshot);
    a->convert.target.format = g_strdup(options->target.format);
    a->convert.target.backing = g_strdup(options->target.backing);
    a->convert.target.backing_format = g_strdup(options->target.backing_format);
    g_autofree char *name = g_path_get_basename(source);
    g_autofree char *title = g_strdup_printf("Converting %s", name);
    return job_start(title, run_convert, a, arguments_free);
}
