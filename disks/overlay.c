// SPDX-License-Identifier: GPL-2.0-or-later
#include "disks/create.h"
#include "disks/driver.h"
#include "disks/identity.h"
#include "disks/lock.h"

#include <unistd.h>

#define ABSORB_CHUNK ((uint64_t)4 * MiB)
#define KEPT_FLAGS                                                                                                     \
    (DISK_OPEN_DIRECT | DISK_OPEN_THREADS | DISK_OPEN_POLLED | DISK_OPEN_DETECT_ZEROES | DISK_OPEN_INLINE |            \
     DISK_OPEN_PROMPT)

// The identity waits: the base is still written to.
static struct disk *open_overlay(struct disk *base, const char *path, const char *recorded, GError **error)
{
    struct disk_options options = {
        .format = "qcow2", .flags = (base->flags & KEPT_FLAGS) | DISK_OPEN_NO_BACKING, .hooks = base->hooks};
    struct disk *overlay = disk_open_with(path, &options, error);
    g_autofree char *identity = identity_in_transit(base);
    if (overlay && overlay->driver->set_backing(overlay, recorded, base->driver->name, identity, error))
        return overlay;
    disk_close(overlay);
    return NULL;
}

struct disk *disk_overlay_prepare(struct disk *base, const char *path, const char *recorded, GError **error)
{
    struct disk_create_options options = {.format = "qcow2", .size = base->size, .hooks = base->hooks};
    if (!disk_create(path, &options, error))
        return NULL;
    struct disk *overlay = open_overlay(base, path, recorded, error);
    if (!overlay)
        unlink(path);
    return overlay;
}

bool disk_overlay_stack(struct disk *overlay, struct disk *base)
{
    if (overlay->size != base->size)
        return false;
    for (struct disk *layer = base; layer; layer = layer->backing)
        layer->depth++;
    base->read_only = true;
    overlay->backing = base;
    overlay->flags &= ~DISK_OPEN_NO_BACKING;
    atomic_store(&overlay->base_unsettled, true);
    return true;
}

int disk_overlay_settle(struct disk *overlay)
{
    struct disk *base = overlay->backing;
    int rc = base->driver->flush ? base->driver->flush(base) : 0;
    if (!rc && base->driver->settle)
        rc = base->driver->settle(base);
    if (rc)
        return rc;
    atomic_store(&overlay->base_unsettled, false);
    file_share(base->file);
    struct engine *engine = base->engine; // nothing was submitted to it since the overlay is there
    for (struct disk *layer = base; layer; layer = layer->backing)
        layer->engine = overlay->engine;
    if (base->owns_engine)
        engine_free(engine);
    base->owns_engine = false;
    return 0;
}

// ---- Doing without a base ----

// What BASE alone holds, of the overlay's bytes from AT on: true with *LENGTH of it, or false with *LENGTH of nothing.
static int look_at(struct disk *base, uint64_t at, uint64_t most, uint64_t *length, bool *holds)
{
    struct extent extent;
    *holds = false;
    *length = most;
    if (at >= base->size)
        return 0;
    int rc = base->driver->map(base, at, MIN(most, base->size - at), MAP_MAY_BLOCK, &extent);
    if (rc)
        return rc;
    extent_release(&extent);
    *length = extent.length;
    // Zeroes over nothing are what the overlay shows without it.
    *holds = extent.kind != EXTENT_BACKING && (extent.kind != EXTENT_ZERO || base->backing);
    return 0;
}

bool disk_overlay_absorb(struct disk *overlay, struct progress *progress, GError **error)
{
    struct disk *base = overlay->backing;
    if (!base || !overlay->driver->pull || atomic_load(&overlay->base_unsettled)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "%s cannot be merged while it is in use",
                    overlay->path);
        return false;
    }
    atomic_fetch_add(&progress->total, overlay->size);
    int rc = 0;
    for (uint64_t at = 0, length; at < overlay->size; at += length) {
        bool holds;
        rc = look_at(base, at, MIN(ABSORB_CHUNK, overlay->size - at), &length, &holds);
        if (!rc && holds)
            rc = overlay->driver->pull(overlay, at, length);
        if (rc || !progress_advance(progress, length, error))
            break;
    }
    if (!rc && !(error && *error))
        rc = overlay->driver->flush(overlay);
    if (rc)
        set_errno_error(error, rc, "Cannot merge %s into %s", base->path, overlay->path);
    return !rc && !(error && *error);
}

struct disk *disk_overlay_unstack(struct disk *overlay, GError **error)
{
    struct disk *gone = overlay->backing;
    g_autofree char *identity = gone->backing ? identity_of(gone->backing) : NULL;
    g_autofree char *path = g_strdup(gone->backing_path);
    if (!overlay->driver->set_backing(overlay, path, gone->backing ? gone->backing->driver->name : NULL, identity,
                                      error))
        return NULL;
    overlay->backing = gone->backing;
    gone->backing = NULL;
    for (struct disk *layer = overlay->backing; layer; layer = layer->backing)
        layer->depth--;
    return gone;
}

// ---- Going back to the base ----

enum { GIVE_CHUNK = MiB };

// Gives one run at AT, at most MOST bytes; *STEP is its length.
static int give_run(struct disk *overlay, uint64_t at, uint64_t most, uint8_t *buffer, uint64_t *step)
{
    struct disk *base = overlay->backing;
    struct extent extent;
    struct iovec iov = {buffer, 0};
    int rc = overlay->driver->map(overlay, at, most, MAP_MAY_BLOCK, &extent);
    if (rc)
        return rc;
    extent_release(&extent);
    *step = extent.length;
    if (extent.kind == EXTENT_BACKING)
        return 0;
    if (extent.kind == EXTENT_ZERO && base->driver->zero)
        return base->driver->zero(base, at, *step, DISK_MAY_UNMAP);
    *step = iov.iov_len = MIN(*step, GIVE_CHUNK);
    rc = disk_readv(overlay, at, *step, &iov, 1);
    return rc ? rc : base->driver->write(base, at, *step, &iov, 1);
}

bool disk_overlay_give(struct disk *overlay, uint64_t offset, uint64_t length, struct progress *progress,
                       GError **error)
{
    g_autofree uint8_t *buffer = g_malloc(GIVE_CHUNK);
    uint64_t end = MIN(offset + length, overlay->size), step;
    if (!overlay->backing || !overlay->backing->driver->write || atomic_load(&overlay->base_unsettled) ||
        overlay->size != overlay->backing->size) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "%s cannot be given up for its base", overlay->path);
        return false;
    }
    for (uint64_t at = offset; at < end; at += step) {
        int rc = give_run(overlay, at, end - at, buffer, &step);
        if (rc)
            set_errno_error(error, rc, "Cannot write to %s", overlay->backing->path);
        if (rc || !progress_advance(progress, 0, error))
            return false;
    }
    return true;
}

struct disk *disk_overlay_lift(struct disk *overlay, GError **error)
{
    struct disk *base = overlay->backing;
    if (!base || overlay->size != base->size) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "%s has got another size", overlay->path);
        return NULL;
    }
    if (!file_lock(base->file, error)) {
        file_share(base->file);
        return NULL;
    }
    base->read_only = false;
    base->owns_engine = overlay->owns_engine;
    overlay->owns_engine = false;
    overlay->read_only = true;
    overlay->backing = NULL;
    for (struct disk *layer = base; layer; layer = layer->backing)
        layer->depth--;
    return base;
}

void disk_overlay_unlift(struct disk *overlay, struct disk *base)
{
    for (struct disk *layer = base; layer; layer = layer->backing)
        layer->depth++;
    overlay->backing = base;
    overlay->read_only = false;
    overlay->owns_engine = base->owns_engine;
    base->owns_engine = false;
    base->read_only = true;
    file_share(base->file);
}

// The base stands still now: the overlay may remember it.
void disk_overlay_identify(struct disk *overlay)
{
    g_autofree char *identity = identity_of(overlay->backing);
    g_autofree char *path = g_strdup(overlay->backing_path), *format = g_strdup(overlay->backing_format);
    g_autoptr(GError) error = NULL;
    if (identity && !overlay->driver->set_backing(overlay, path, format, identity, &error))
        log_warning("disks", "%s", error->message);
}
