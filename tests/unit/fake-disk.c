// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/unit/fake-disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct disk {
    uint8_t *data;
    uint64_t size;
    bool read_only, synchronous, hold, quit, resizing;
    int fail_result;
    unsigned fail_count;
    unsigned counts[DISK_WRITE_ZEROES + 1], last_flags;
    GMutex lock;
    GCond changed;
    GQueue waiting;
    unsigned in_flight;
    GThread *thread;
};

static int carry_out(struct disk *disk, struct disk_request *request)
{
    uint64_t at = request->offset;
    g_mutex_lock(&disk->lock);
    bool fail = disk->fail_count && disk->fail_count--;
    disk->counts[request->op]++;
    disk->last_flags = request->flags;
    g_mutex_unlock(&disk->lock);
    if (fail)
        return disk->fail_result;
    if (request->op == DISK_WRITE_ZEROES || request->op == DISK_DISCARD)
        memset(disk->data + at, 0, request->length);
    if (request->op != DISK_READ && request->op != DISK_WRITE)
        return 0;
    for (unsigned i = 0; i < request->iov_count; i++) {
        if (request->op == DISK_READ)
            memcpy(request->iov[i].iov_base, disk->data + at, request->iov[i].iov_len);
        else
            memcpy(disk->data + at, request->iov[i].iov_base, request->iov[i].iov_len);
        at += request->iov[i].iov_len;
    }
    return at == request->offset + request->length ? 0 : -EINVAL;
}

static void *disk_thread(void *opaque)
{
    struct disk *disk = opaque;
    g_mutex_lock(&disk->lock);
    while (!disk->quit) {
        struct disk_request *request = disk->hold ? NULL : g_queue_pop_head(&disk->waiting);
        if (!request) {
            g_cond_wait(&disk->changed, &disk->lock);
            continue;
        }
        g_mutex_unlock(&disk->lock);
        request->done(request, carry_out(disk, request));
        g_mutex_lock(&disk->lock);
        disk->in_flight--;
        g_cond_broadcast(&disk->changed);
    }
    g_mutex_unlock(&disk->lock);
    return NULL;
}

struct disk *fake_disk_new(uint64_t size)
{
    struct disk *disk = g_new0(struct disk, 1);
    disk->data = g_malloc0(size);
    disk->size = size;
    g_mutex_init(&disk->lock);
    g_cond_init(&disk->changed);
    g_queue_init(&disk->waiting);
    disk->thread = g_thread_new("fake-disk", disk_thread, disk);
    return disk;
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
    if (disk->synchronous) {
        request->done(request, carry_out(disk, request));
        return;
    }
    g_mutex_lock(&disk->lock);
    g_assert(!disk->resizing);
    disk->in_flight++;
    g_queue_push_tail(&disk->waiting, request);
    g_cond_broadcast(&disk->changed);
    g_mutex_unlock(&disk->lock);
}

void disk_drain(struct disk *disk)
{
    g_mutex_lock(&disk->lock);
    while (disk->in_flight)
        g_cond_wait(&disk->changed, &disk->lock);
    g_mutex_unlock(&disk->lock);
}

void disk_close(struct disk *disk)
{
    fake_disk_hold(disk, false);
    disk_drain(disk);
    g_mutex_lock(&disk->lock);
    disk->quit = true;
    g_cond_broadcast(&disk->changed);
    g_mutex_unlock(&disk->lock);
    g_thread_join(disk->thread);
    g_mutex_clear(&disk->lock);
    g_cond_clear(&disk->changed);
    g_free(disk->data);
    g_free(disk);
}

// PATH is "fake:SIZE"; the medium is filled with its size's low byte.
struct disk *disk_open(const char *path, const char *format, unsigned flags, GError **error)
{
    uint64_t size = g_str_has_prefix(path, "fake:") ? g_ascii_strtoull(path + 5, NULL, 0) : 0;
    if (!size) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "\"%s\" is no fake disk", path);
        return NULL;
    }
    struct disk *disk = fake_disk_new(size);
    disk->read_only = flags & DISK_OPEN_READ_ONLY;
    return disk;
}

uint64_t disk_size(struct disk *disk)
{
    return disk->size;
}

bool disk_read_only(struct disk *disk)
{
    return disk->read_only;
}

const char *disk_path(struct disk *disk)
{
    return "fake";
}

// As the real one it may not meet requests, and takes its time.
bool disk_resize(struct disk *disk, uint64_t size, GError **error)
{
    disk_drain(disk);
    g_mutex_lock(&disk->lock);
    disk->resizing = true;
    g_mutex_unlock(&disk->lock);
    g_usleep(1000);
    g_mutex_lock(&disk->lock);
    disk->resizing = false;
    g_mutex_unlock(&disk->lock);
    disk->data = g_realloc(disk->data, size);
    if (size > disk->size)
        memset(disk->data + disk->size, 0, size - disk->size);
    disk->size = size;
    return true;
}

int disk_flush(struct disk *disk)
{
    return 0;
}

uint8_t *fake_disk_data(struct disk *disk)
{
    return disk->data;
}

void fake_disk_fail(struct disk *disk, int result, unsigned count)
{
    g_mutex_lock(&disk->lock);
    disk->fail_result = result;
    disk->fail_count = count;
    g_mutex_unlock(&disk->lock);
}

void fake_disk_synchronous(struct disk *disk, bool on)
{
    disk->synchronous = on;
}

void fake_disk_set_read_only(struct disk *disk, bool on)
{
    disk->read_only = on;
}

void fake_disk_hold(struct disk *disk, bool on)
{
    g_mutex_lock(&disk->lock);
    disk->hold = on;
    g_cond_broadcast(&disk->changed);
    g_mutex_unlock(&disk->lock);
}

unsigned fake_disk_count(struct disk *disk, enum disk_op op)
{
    g_mutex_lock(&disk->lock);
    unsigned count = disk->counts[op];
    g_mutex_unlock(&disk->lock);
    return count;
}

unsigned fake_disk_last_flags(struct disk *disk)
{
    return disk->last_flags;
}

bool disk_overlay_stack(struct disk *overlay, struct disk *base)
{
    return false; // no overlays on disks in memory
}

struct disk *disk_overlay_lift(struct disk *overlay, GError **error)
{
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "no overlays on disks in memory");
    return NULL;
}

void disk_overlay_unlift(struct disk *overlay, struct disk *base)
{
}
