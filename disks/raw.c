// SPDX-License-Identifier: GPL-2.0-or-later
// A disk that is its file. One that was taken for raw by its content stays raw: a write that would make it look like
// another format is refused (disk images are guest-controlled; a format header could name host files as its base).
#include "disks/create.h"
#include "disks/driver.h"

#include <errno.h>
#include <string.h>

struct raw {
    pthread_mutex_t guard; // over "would the probe change" and the write itself
};

static bool raw_probe(const struct probe *probe)
{
    return true;
}

static bool raw_open(struct disk *disk, GError **error)
{
    struct raw *raw = g_new0(struct raw, 1);
    pthread_mutex_init(&raw->guard, NULL);
    disk->state = raw;
    disk->size = ALIGN_UP(file_size(disk->file), 512);
    return true;
}

static void raw_close(struct disk *disk)
{
    struct raw *raw = disk->state;
    pthread_mutex_destroy(&raw->guard);
    g_free(raw);
}

// The bytes that a probe looks at: the head and the last sector.
static bool is_guarded(struct disk *disk, uint64_t offset, uint64_t length)
{
    return disk->probed && (offset < PROBE_LENGTH || offset + length > disk->size - 512);
}

static int raw_map(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags, struct extent *extent)
{
    *extent = (struct extent){.kind = EXTENT_DATA,
                              .length = length,
                              .file = disk->file,
                              .file_offset = offset,
                              .writable = !(flags & MAP_WRITE && is_guarded(disk, offset, length))};
    if (flags & MAP_HOLES && file_is_hole(disk->file, offset, length, &extent->length))
        extent->kind = EXTENT_ZERO;
    return 0;
}

// Puts the part of the write that falls into [START, START + LENGTH) of the disk over BUFFER.
static void overlay(uint8_t *buffer, uint64_t start, uint64_t buffer_length, uint64_t offset, uint64_t length,
                    const struct iovec *iov, unsigned iov_count)
{
    uint64_t from = MAX(start, offset), to = MIN(start + buffer_length, offset + length);
    if (from >= to)
        return;
    if (iov)
        iov_to_buffer(iov, iov_count, from - offset, buffer + (from - start), to - from);
    else
        memset(buffer + (from - start), 0, to - from);
}

static int check_probe(struct disk *disk, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned iov_count)
{
    uint8_t head[PROBE_LENGTH], tail[512];
    uint64_t head_length = MIN(disk->size, PROBE_LENGTH), tail_start = disk->size - 512;
    int rc = file_read(disk->file, 0, head, head_length);
    if (!rc)
        rc = file_read(disk->file, tail_start, tail, 512);
    if (rc)
        return rc;
    overlay(head, 0, head_length, offset, length, iov, iov_count);
    overlay(tail, tail_start, 512, offset, length, iov, iov_count);
    struct probe probe = {.head = head, .head_length = head_length, .tail = tail, .file_size = disk->size};
    const struct disk_driver *driver = disk_driver_probe(&probe);
    if (driver == &raw_driver)
        return 0;
    log_guest(
        "disks",
        "%s: a write that would make this raw disk look like a %s image is refused; name the format raw to allow it",
        disk->path, driver->name);
    return -EPERM;
}

static int raw_write(struct disk *disk, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned iov_count)
{
    struct raw *raw = disk->state;
    if (!is_guarded(disk, offset, length))
        return file_writev(disk->file, offset, iov, iov_count);
    pthread_mutex_lock(&raw->guard);
    int rc = check_probe(disk, offset, length, iov, iov_count);
    if (!rc)
        rc = file_writev(disk->file, offset, iov, iov_count);
    pthread_mutex_unlock(&raw->guard);
    return rc;
}

static int zero_file(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    // A file whose length is no multiple of 512 shows zeroes past its end already.
    uint64_t end = file_size(disk->file);
    if (offset >= end)
        return 0;
    length = MIN(length, end - offset);
    return flags & DISK_MAY_UNMAP ? file_punch(disk->file, offset, length) : file_zero(disk->file, offset, length);
}

static int raw_zero(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags)
{
    struct raw *raw = disk->state;
    if (!is_guarded(disk, offset, length))
        return zero_file(disk, offset, length, flags);
    pthread_mutex_lock(&raw->guard);
    int rc = check_probe(disk, offset, length, NULL, 0);
    if (!rc)
        rc = zero_file(disk, offset, length, flags);
    pthread_mutex_unlock(&raw->guard);
    return rc;
}

static int raw_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
    return raw_zero(disk, offset, length, DISK_MAY_UNMAP);
}

static int raw_flush(struct disk *disk)
{
    return file_sync(disk->file);
}

static bool raw_may_resize(struct disk *disk, uint64_t size, GError **error)
{
    if (!disk->file->regular) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "%s is a block device: resize it with the tools of the host", disk->path);
        return false;
    }
    uint64_t old = disk->size;
    disk->size = size;
    bool changes = disk->probed && size < old && size >= 512 && check_probe(disk, 0, 0, NULL, 0);
    disk->size = old;
    if (changes)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s would look like another format at that size: name the format raw to resize it", disk->path);
    return !changes;
}

static int raw_resize(struct disk *disk, uint64_t size)
{
    int rc = file_truncate(disk->file, size);
    if (!rc)
        rc = file_sync(disk->file);
    if (!rc)
        disk->size = size;
    return rc;
}

static int raw_create(struct file *file, const struct disk_create_options *options, GError **error)
{
    int rc = file_truncate(file, options->size);
    return !rc && options->preallocate && options->size ? file_allocate(file, 0, options->size) : rc;
}

const struct disk_driver raw_driver = {
    .name = "raw",
    .probe = raw_probe,
    .open = raw_open,
    .close = raw_close,
    .map = raw_map,
    .write = raw_write,
    .zero = raw_zero,
    .discard = raw_discard,
    .flush = raw_flush,
    .resize = raw_resize,
    .may_resize = raw_may_resize,
    .create = raw_create,
};
