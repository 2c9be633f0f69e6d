// SPDX-License-Identifier: GPL-2.0-or-later
// Converting, comparing, compacting.
#include "disks/driver.h"
#include "disks/info.h"
#include "disks/staging.h"
#include "disks/tools.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 2 * 1024 * 1024 };

static bool io_error(GError **error, int rc, const char *what, const char *path)
{
    set_errno_error(error, rc, "Cannot %s %s", what, path);
    return false;
}

// ---- Convert ----
struct copy {
    struct disk *from, *to;
    bool compress;
    uint64_t unit; // clusters of the target are written whole
    uint8_t *buffer;
};

// Writes what is not zero of LENGTH bytes in the buffer.
static int write_chunk(struct copy *c, uint64_t offset, uint64_t length)
{
    for (uint64_t at = 0; at < length;) {
        uint64_t step = MIN(c->unit, length - at), run = step;
        bool zero = buffer_is_zero(c->buffer + at, step);
        while (!c->compress && at + run < length) {
            uint64_t next = MIN(c->unit, length - at - run);
            if (buffer_is_zero(c->buffer + at + run, next) != zero)
                break;
            run += next;
        }
        int rc = 0;
        if (!zero && c->compress)
            rc = c->to->driver->write_compressed(c->to, offset + at, c->buffer + at, run);
        else if (!zero)
            rc = disk_write(c->to, offset + at, c->buffer + at, run);
        if (rc)
            return rc;
        at += run;
    }
    return 0;
}

// What to do from AT on, which is a multiple of the target's clusters: how much to skip because it is zero, or 0.
static int zeroes_at(struct copy *c, uint64_t at, uint64_t *skip)
{
    struct disk_extent extent;
    uint64_t size = c->from->size, end = at;
    *skip = 0;
    while (end < size) {
        int rc = disk_extent_at(c->from, end, size - end, &extent);
        if (rc)
            return rc;
        if (extent.data)
            break;
        end += extent.length;
    }
    *skip = (end == size ? end : ALIGN_DOWN(end, c->unit)) - at;
    return 0;
}

static bool copy_all(struct copy *c, struct job *job, GError **error)
{
    uint64_t size = c->from->size, step;
    for (uint64_t at = 0; at < size; at += step) {
        if (job_check_cancelled(job, error))
            return false;
        int rc = zeroes_at(c, at, &step);
        if (!rc && !step) {
            step = MIN(CHUNK - at % CHUNK, size - at); // whole chunks, which are whole clusters
            rc = disk_read(c->from, at, c->buffer, step);
            if (!rc && (rc = write_chunk(c, at, step)))
                return io_error(error, rc, "write", c->to->path);
        }
        if (rc)
            return io_error(error, rc, "read", c->from->path);
        job_set_progress(job, at + step, size);
    }
    return true;
}

static bool fill_target(struct disk *from, const char *path, const struct disk_convert_options *options,
                        struct job *job, GError **error)
{
    struct disk *to = disk_open(path, options->target.format ? options->target.format : "qcow2", 0, error);
    if (!to)
        return false;
    struct copy c = {.from = from,
                     .to = to,
                     .compress = options->compress,
                     .unit = MIN(disk_cluster_size(to), CHUNK),
                     .buffer = g_malloc(CHUNK)};
    bool ok = !c.compress || to->driver->write_compressed;
    if (!ok)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "Only qcow2 images can be compressed: leave out compression or convert to qcow2");
    else
        ok = copy_all(&c, job, error);
    int rc = ok ? disk_flush(to) : 0;
    if (rc)
        ok = io_error(error, rc, "write", path);
    g_free(c.buffer);
    disk_close(to);
    return ok;
}

// OPTIONS as for disk_convert(), except that the format of the source and whether to replace are decided already.
static bool convert_open(struct disk *from, const char *target, const struct disk_convert_options *options,
                         enum staging_mode mode, struct job *job, GError **error)
{
    struct disk_create_options create = options->target;
    g_autofree char *name = g_path_get_basename(target);
    struct staging s;
    create.force = false;
    create.name = name;
    if (!create.size)
        create.size = from->size;
    if (create.size < from->size) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s is larger than the size asked for %s: shrink it first", from->path, target);
        return false;
    }
    if (!staging_begin(&s, target, mode, error))
        return false;
    bool ok = disk_create(s.fresh, &create, error) && fill_target(from, s.fresh, options, job, error);
    return staging_end(&s, ok, error);
}

bool disk_convert(const char *source, const char *target, const struct disk_convert_options *options, struct job *job,
                  GError **error)
{
    struct disk_options open = {
        .format = options->source_format, .flags = DISK_OPEN_READ_ONLY, .snapshot = options->source_snapshot};
    struct disk *from = disk_open_with(source, &open, error);
    if (!from)
        return false;
    bool ok = convert_open(from, target, options, options->target.force ? STAGING_REPLACE : STAGING_NEW, job, error);
    disk_close(from);
    return ok;
}

// ---- Compare ----
static bool compare_chunk(struct disk *a, struct disk *b, uint64_t at, uint64_t length, uint8_t *x, uint8_t *y,
                          uint64_t *where, GError **error, bool *same)
{
    int rc = disk_readv(a, at, length, &(struct iovec){x, length}, 1);
    if (rc)
        return io_error(error, rc, "read", a->path);
    rc = disk_readv(b, at, length, &(struct iovec){y, length}, 1);
    if (rc)
        return io_error(error, rc, "read", b->path);
    *same = memcmp(x, y, length) == 0;
    for (uint64_t i = 0; !*same && i < length; i++)
        if (x[i] != y[i]) {
            *where = at + i;
            break;
        }
    return true;
}

// How far both are zero by their tables alone.
static uint64_t zero_run(struct disk *a, struct disk *b, uint64_t at, uint64_t length)
{
    struct disk_extent x, y;
    if (at < a->size) {
        if (disk_extent_at(a, at, length, &x) || x.data)
            return 0;
        length = MIN(length, x.length);
    }
    if (at < b->size) {
        if (disk_extent_at(b, at, length, &y) || y.data)
            return 0;
        length = MIN(length, y.length);
    }
    return length;
}

static bool compare_open(struct disk *a, struct disk *b, bool *same, uint64_t *where, struct job *job, GError **error)
{
    uint64_t size = MAX(a->size, b->size);
    g_autofree uint8_t *x = g_malloc(CHUNK), *y = g_malloc(CHUNK);
    *same = true;
    for (uint64_t at = 0; at < size && *same;) {
        if (job_check_cancelled(job, error))
            return false;
        uint64_t limit = at < MIN(a->size, b->size) ? MIN(a->size, b->size) : size;
        uint64_t step = zero_run(a, b, at, limit - at);
        if (!step) {
            step = MIN(CHUNK, limit - at);
            if (!compare_chunk(a, b, at, step, x, y, where, error, same))
                return false;
        }
        at += step;
        job_set_progress(job, at, size);
    }
    return true;
}

bool disk_compare(const char *a, const char *a_format, const char *b, const char *b_format, bool *same, uint64_t *where,
                  struct job *job, GError **error)
{
    struct disk *x = disk_open(a, a_format, DISK_OPEN_READ_ONLY, error);
    struct disk *y = x ? disk_open(b, b_format, DISK_OPEN_READ_ONLY, error) : NULL;
    bool ok = y && compare_open(x, y, same, where, job, error);
    disk_close(x);
    disk_close(y);
    return ok;
}

// ---- Compact ----
// Turns data that is all zeroes into space. Only this layer's own clusters are touched.
static bool drop_zeroes(struct disk *disk, struct job *job, GError **error)
{
    uint64_t unit = disk_cluster_size(disk);
    uint64_t chunk = MAX(ALIGN_DOWN(CHUNK, unit), unit);
    g_autofree uint8_t *data = g_malloc(chunk);
    for (uint64_t at = 0; at < disk->size;) {
        struct disk_extent extent;
        if (job_check_cancelled(job, error))
            return false;
        int rc = disk_extent_at(disk, at, disk->size - at, &extent);
        uint64_t step = rc ? 0 : extent.length;
        if (!rc && extent.data && extent.depth == 0) {
            step = MIN(MIN(step, chunk), ALIGN_DOWN(at, chunk) + chunk - at);
            rc = disk_readv(disk, at, step, &(struct iovec){data, step}, 1);
            for (uint64_t i = 0; i < step && !rc; i += unit) {
                uint64_t part = MIN(unit, step - i);
                if (buffer_is_zero(data + i, part))
                    rc = disk_write_zeroes(disk, at + i, part, DISK_MAY_UNMAP);
            }
        }
        if (rc)
            return io_error(error, rc, "compact", disk->path);
        at += step;
        job_set_progress(job, at, disk->size);
    }
    int rc = disk_flush(disk);
    return rc ? io_error(error, rc, "compact", disk->path) : true;
}

bool disk_compact(const char *path, const char *format, int64_t *freed, struct job *job, GError **error)
{
    // Open for writing until a copy has replaced it: nobody else may have it open.
    struct disk *disk = disk_open(path, format, 0, error);
    if (!disk)
        return false;
    int64_t before = file_allocated(disk->file);
    bool in_place = disk->driver == &raw_driver || disk->driver == &qcow2_driver, ok = true;
    if (disk->read_only) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "%s cannot be compacted: %s", path,
                    disk->read_only_reason);
        ok = false;
    } else
        ok = drop_zeroes(disk, job, error); // holes in files of any format
    // Fixed variants keep their length: holes are all there is to win.
    struct disk_info *info = disk_info_of(disk);
    bool grows = g_strcmp0(info->variant, "dynamic") == 0 || g_strcmp0(info->variant, "monolithicSparse") == 0;
    disk_info_free(info);
    struct disk_convert_options copy = {.target.format = disk->driver->name};
    if (ok && !in_place && grows)
        ok = convert_open(disk, path, &copy, STAGING_REPLACE_OWN, job, error);
    disk_close(disk);
    GStatBuf st;
    if (ok && freed)
        *freed = g_stat(path, &st) == 0 ? before - st.st_blocks * 512ll : 0;
    return ok;
}
