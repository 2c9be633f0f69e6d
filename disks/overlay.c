// SPDX-License-Identifier: GPL-2.0-or-later
#include "disks/create.h"
#include "disks/driver.h"
#include "disks/identity.h"
#include "disks/lock.h"

#include <unistd.h>

#define KEPT_FLAGS                                                                                                     \
    (DISK_OPEN_DIRECT | DISK_OPEN_THREADS | DISK_OPEN_POLLED | DISK_OPEN_DETECT_ZEROES | DISK_OPEN_INLINE)

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

// The base stands still now: the overlay may remember it.
void disk_overlay_identify(struct disk *overlay)
{
    g_autofree char *identity = identity_of(overlay->backing);
    g_autofree char *path = g_strdup(overlay->backing_path), *format = g_strdup(overlay->backing_format);
    g_autoptr(GError) error = NULL;
    if (identity && !overlay->driver->set_backing(overlay, path, format, identity, &error))
        log_warning("disks", "%s", error->message);
}
