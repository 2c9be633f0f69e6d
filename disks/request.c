// SPDX-License-Identifier: GPL-2.0-or-later
// The way of a request: straight to the host's I/O where the metadata is in memory and nothing has to be allocated;
// else to a thread that may block.
#include "disks/driver.h"

#include <errno.h>
#include <string.h>

TRACE_POINT(disk_submit);

enum { MOST_PARTS = 8 };
// DISK_OPEN_PROMPT, in microseconds: a write that took SLOW says that the host holds writers back for now.
enum { PROMPT_MOST = 64 * 1024, PROMPT_SLOW = 5000, PROMPT_PAUSE = 100000 };

// One request on its way. Owned by whoever completes its last part.
struct transfer {
    struct work work;
    struct disk *disk;
    struct disk_request *request;
    _Atomic int result;
    _Atomic unsigned parts_left;
    struct part {
        struct io io;
        struct transfer *transfer;
        struct extent extent;
    } parts[];
};

// ---- Walking the chain ----
int disk_resolve(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent,
                 struct disk **layer)
{
    while (disk) {
        if (offset >= disk->size) // a base that ends before its overlay
            break;
        length = MIN(length, disk->size - offset);
        int rc = disk->driver->map(disk, offset, length, flags, extent);
        if (rc)
            return rc;
        if (extent->length == 0 || extent->length > length)
            return -EIO;
        length = extent->length;
        *layer = disk;
        if (extent->kind != EXTENT_BACKING)
            return 0;
        disk = disk->backing;
        flags &= ~MAP_WRITE;
    }
    *extent = (struct extent){.kind = EXTENT_ZERO, .length = length};
    *layer = disk;
    return 0;
}

static int read_extent(struct disk *layer, const struct extent *extent, uint64_t offset, const struct iovec *iov,
                       unsigned count)
{
    switch (extent->kind) {
    case EXTENT_DATA:
        return file_readv(extent->file, extent->file_offset, iov, count);
    case EXTENT_COMPRESSED:
        return layer->driver->read_compressed(layer, offset, iov, count);
    default:
        iov_zero(iov, count, 0, extent->length);
        return 0;
    }
}

int disk_readv(struct disk *disk, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned iov_count)
{
    g_autofree struct iovec *part = g_new(struct iovec, iov_count ? iov_count : 1);
    int rc = 0;
    for (uint64_t done = 0; done < length && !rc;) {
        struct extent extent;
        struct disk *layer = NULL;
        if (offset + done >= disk->size) {
            iov_zero(iov, iov_count, done, length - done);
            break;
        }
        rc = disk_resolve(disk, offset + done, length - done, MAP_MAY_BLOCK, &extent, &layer);
        if (rc)
            break;
        unsigned count = iov_slice(part, iov, iov_count, done, extent.length);
        rc = read_extent(layer, &extent, offset + done, part, count);
        extent_release(&extent);
        done += extent.length;
    }
    return rc;
}

// ---- Blocking ----
static bool is_zero_write(struct disk *disk, const struct disk_request *request)
{
    if (!(disk->flags & DISK_OPEN_DETECT_ZEROES) || request->length % 4096)
        return false;
    for (unsigned i = 0; i < request->iov_count; i++)
        if (!buffer_is_zero(request->iov[i].iov_base, request->iov[i].iov_len))
            return false;
    return true;
}

static int run_write(struct disk *disk, struct disk_request *request)
{
    const struct disk_driver *driver = disk->driver;
    if (disk->read_only || !driver->write)
        return -EROFS;
    if (driver->zero && is_zero_write(disk, request))
        return driver->zero(disk, request->offset, request->length, DISK_MAY_UNMAP);
    return driver->write(disk, request->offset, request->length, request->iov, request->iov_count);
}

static int run_zero(struct disk *disk, struct disk_request *request)
{
    if (disk->read_only || !disk->driver->zero)
        return -EROFS;
    return disk->driver->zero(disk, request->offset, request->length, request->flags);
}

static int run_flush(struct disk *disk)
{
    struct disk *base = disk->backing;
    int rc = atomic_load(&disk->base_unsettled) && base->driver->flush ? base->driver->flush(base) : 0;
    return !rc && !disk->read_only && disk->driver->flush ? disk->driver->flush(disk) : rc;
}

int disk_run(struct disk *disk, struct disk_request *request)
{
    const struct disk_driver *driver = disk->driver;
    int rc = 0;
    switch (request->op) {
    case DISK_READ:
        return disk_readv(disk, request->offset, request->length, request->iov, request->iov_count);
    case DISK_WRITE:
        rc = run_write(disk, request);
        break;
    case DISK_WRITE_ZEROES:
        rc = run_zero(disk, request);
        break;
    case DISK_DISCARD: // a hint: a format that cannot give space back leaves the data
        if (disk->read_only)
            return -EROFS;
        return driver->discard ? driver->discard(disk, request->offset, request->length) : 0;
    case DISK_FLUSH:
        return run_flush(disk);
    default:
        return -EINVAL;
    }
    if (!rc && request->flags & DISK_FUA)
        rc = run_flush(disk);
    return rc;
}

// ---- In flight ----
static void begin(struct disk *disk)
{
    pthread_mutex_lock(&disk->drain_lock);
    disk->in_flight++;
    pthread_mutex_unlock(&disk->drain_lock);
}

static void finish(struct disk *disk, struct disk_request *request, int result)
{
    request->done(request, result);
    pthread_mutex_lock(&disk->drain_lock);
    if (--disk->in_flight == 0)
        pthread_cond_broadcast(&disk->drained);
    pthread_mutex_unlock(&disk->drain_lock);
}

void disk_drain(struct disk *disk)
{
    pthread_mutex_lock(&disk->drain_lock);
    while (disk->in_flight) {
        if (disk->flags & DISK_OPEN_POLLED) {
            pthread_mutex_unlock(&disk->drain_lock);
            engine_poll(disk->engine, true);
            pthread_mutex_lock(&disk->drain_lock);
        } else
            pthread_cond_wait(&disk->drained, &disk->drain_lock);
    }
    pthread_mutex_unlock(&disk->drain_lock);
}

static void run_transfer(struct work *work)
{
    struct transfer *transfer = container_of(work, struct transfer, work);
    struct disk *disk = transfer->disk;
    struct disk_request *request = transfer->request;
    g_free(transfer);
    finish(disk, request, disk_run(disk, request));
}

static void submit_blocking(struct disk *disk, struct disk_request *request)
{
    struct transfer *transfer = g_new0(struct transfer, 1);
    transfer->work.run = run_transfer;
    transfer->disk = disk;
    transfer->request = request;
    engine_run(disk->engine, &transfer->work);
}

// ---- Straight to the host ----
static void transfer_put(struct transfer *transfer)
{
    if (atomic_fetch_sub(&transfer->parts_left, 1) != 1)
        return;
    struct disk *disk = transfer->disk;
    struct disk_request *request = transfer->request;
    int result = transfer->result;
    g_free(transfer);
    finish(disk, request, result);
}

static void part_done(struct io *io, int result)
{
    struct part *part = container_of(io, struct part, io);
    struct transfer *transfer = part->transfer;
    extent_release(&part->extent);
    if (result)
        transfer->result = result;
    if (io->iov != transfer->request->iov)
        g_free((void *)io->iov);
    transfer_put(transfer);
}

// Finds where everything is without blocking. Returns the number of extents, or 0 where a thread must do it.
static unsigned map_all(struct disk *disk, const struct disk_request *request, struct extent *extents)
{
    bool write = request->op == DISK_WRITE;
    unsigned count = 0;
    uint64_t done = 0;
    while (done < request->length && count < MOST_PARTS) {
        struct extent *extent = &extents[count];
        struct disk *layer = NULL;
        int rc =
            disk_resolve(disk, request->offset + done, request->length - done, write ? MAP_WRITE : 0, extent, &layer);
        if (rc)
            break;
        count++;
        done += extent->length;
        bool direct = extent->kind == EXTENT_DATA && (!write || (extent->writable && layer == disk));
        if (!direct && (write || extent->kind != EXTENT_ZERO)) {
            done = 0;
            break;
        }
    }
    if (done == request->length)
        return count;
    for (unsigned i = 0; i < count; i++)
        extent_release(&extents[i]);
    return 0;
}

static void submit_part(struct transfer *transfer, struct part *part, uint64_t skip, bool whole)
{
    struct disk_request *request = transfer->request;
    part->transfer = transfer;
    part->io = (struct io){.file = part->extent.file,
                           .write = request->op == DISK_WRITE,
                           .offset = part->extent.file_offset,
                           .length = part->extent.length,
                           .iov = request->iov,
                           .iov_count = request->iov_count,
                           .done = part_done};
    if (!whole) {
        struct iovec *iov = g_new(struct iovec, request->iov_count);
        part->io.iov_count = iov_slice(iov, request->iov, request->iov_count, skip, part->extent.length);
        part->io.iov = iov;
    }
    engine_submit(transfer->disk->engine, &part->io);
}

// A small write over what exists costs the page cache less than waking a thread of the kernel's for it.
static bool may_write_here(struct disk *disk, const struct disk_request *request)
{
    return disk->flags & DISK_OPEN_PROMPT && request->op == DISK_WRITE && request->length <= PROMPT_MOST &&
           disk->file->direct_fd < 0 && g_get_monotonic_time() >= disk->patient_until;
}

static void write_here(struct disk *disk, struct disk_request *request, struct extent *extents, unsigned count)
{
    int64_t start = g_get_monotonic_time();
    g_autofree struct iovec *part = g_new(struct iovec, request->iov_count);
    uint64_t done = 0;
    int rc = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned vectors = iov_slice(part, request->iov, request->iov_count, done, extents[i].length);
        if (!rc)
            rc = file_writev(extents[i].file, extents[i].file_offset, part, vectors);
        done += extents[i].length;
        extent_release(&extents[i]);
    }
    int64_t end = g_get_monotonic_time();
    if (end - start > PROMPT_SLOW)
        disk->patient_until = end + PROMPT_PAUSE;
    finish(disk, request, rc);
}

static bool submit_mapped(struct disk *disk, struct disk_request *request)
{
    struct extent extents[MOST_PARTS];
    unsigned count = map_all(disk, request, extents);
    if (!count)
        return false;
    if (may_write_here(disk, request)) {
        write_here(disk, request, extents, count);
        return true;
    }
    struct transfer *transfer = g_malloc(sizeof *transfer + count * sizeof(struct part));
    *transfer = (struct transfer){.disk = disk, .request = request, .parts_left = count + 1};
    uint64_t done = 0;
    if (count > 1)
        engine_plug(disk->engine);
    for (unsigned i = 0; i < count; i++) {
        uint64_t length = extents[i].length;
        transfer->parts[i].extent = extents[i];
        if (extents[i].kind == EXTENT_DATA)
            submit_part(transfer, &transfer->parts[i], done, count == 1);
        else {
            iov_zero(request->iov, request->iov_count, done, length);
            extent_release(&transfer->parts[i].extent);
            transfer_put(transfer);
        }
        done += length;
    }
    if (count > 1)
        engine_unplug(disk->engine);
    transfer_put(transfer);
    return true;
}

// Is it quicker done here? What has to wait for a real disk (direct I/O, copies from a base) goes to others.
static bool is_inline(struct disk *disk, const struct disk_request *request)
{
    return disk->flags & DISK_OPEN_INLINE && request->op == DISK_WRITE && !(request->flags & DISK_FUA) &&
           request->length <= MiB && disk->file->direct_fd < 0 && !disk->backing && !disk->read_only;
}

static bool is_valid(struct disk *disk, const struct disk_request *request)
{
    if (request->op == DISK_FLUSH)
        return true;
    if ((request->offset | request->length) % 512 || request->offset > disk->size ||
        request->length > disk->size - request->offset)
        return false;
    return request->op > DISK_WRITE || iov_length(request->iov, request->iov_count) == request->length;
}

static bool may_go_straight(struct disk *disk, const struct disk_request *request)
{
    if (request->op == DISK_READ)
        return true;
    return request->op == DISK_WRITE && !disk->read_only && !(request->flags & DISK_FUA) &&
           !is_zero_write(disk, request);
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
    TRACE(disk_submit, "%s op=%d offset=%" G_GUINT64_FORMAT " length=%" G_GUINT64_FORMAT, disk->path, request->op,
          request->offset, request->length);
    begin(disk);
    if (!is_valid(disk, request))
        finish(disk, request, -EINVAL);
    else if (request->op != DISK_FLUSH && request->length == 0)
        finish(disk, request, 0);
    else if (is_inline(disk, request))
        finish(disk, request, disk_run(disk, request));
    else if (!may_go_straight(disk, request) || !submit_mapped(disk, request))
        submit_blocking(disk, request);
}

void disk_plug(struct disk *disk)
{
    engine_plug(disk->engine);
}

void disk_unplug(struct disk *disk)
{
    engine_unplug(disk->engine);
}

void disk_poll(struct disk *disk, bool wait)
{
    engine_poll(disk->engine, wait);
}

// ---- Synchronous helpers ----
static int run_now(struct disk *disk, enum disk_op op, unsigned flags, uint64_t offset, void *data, uint64_t length)
{
    struct iovec iov = {data, length};
    struct disk_request request = {
        .op = op, .flags = flags, .offset = offset, .length = length, .iov = &iov, .iov_count = 1};
    if (!is_valid(disk, &request))
        return -EINVAL;
    return op != DISK_FLUSH && length == 0 ? 0 : disk_run(disk, &request);
}

int disk_read(struct disk *disk, uint64_t offset, void *data, uint64_t length)
{
    return run_now(disk, DISK_READ, 0, offset, data, length);
}

int disk_write(struct disk *disk, uint64_t offset, const void *data, uint64_t length)
{
    return run_now(disk, DISK_WRITE, 0, offset, (void *)data, length);
}

int disk_flush(struct disk *disk)
{
    return run_now(disk, DISK_FLUSH, 0, 0, NULL, 0);
}

int disk_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    return run_now(disk, DISK_DISCARD, 0, offset, NULL, length);
}

int disk_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    return run_now(disk, DISK_WRITE_ZEROES, flags, offset, NULL, length);
}

int disk_extent_at(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    if (offset >= disk->size || length == 0)
        return -EINVAL;
    struct extent extent;
    struct disk *layer = NULL;
    int rc = disk_resolve(disk, offset, MIN(length, disk->size - offset), MAP_MAY_BLOCK | MAP_HOLES, &extent, &layer);
    if (rc)
        return rc;
    *out = (struct disk_extent){.offset = offset,
                                .length = extent.length,
                                .zero = extent.kind == EXTENT_ZERO,
                                .data = extent.kind != EXTENT_ZERO,
                                .compressed = extent.kind == EXTENT_COMPRESSED,
                                .present = layer != NULL};
    if (extent.kind == EXTENT_DATA) {
        out->path = extent.file->path;
        out->file_offset = extent.file_offset;
    }
    for (struct disk *d = disk; layer && d != layer; d = d->backing)
        out->depth++;
    extent_release(&extent);
    return 0;
}
