// SPDX-License-Identifier: GPL-2.0-or-later
// The engine: a ring of the kernel's where it has one, threads for the rest.
#include "disks/engine.h"

#include <errno.h>
#include <pthread.h>

enum { MOST_THREADS = 32 };

// Threads: LOCK guards everything below it.
struct engine {
    bool use_uring, polled;
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_cond_t finished; // polled: a work item ended
    struct work *first, **last;
    pthread_t threads[MOST_THREADS];
    unsigned thread_count, idle;
    unsigned wakes;
    bool quit;
    _Atomic(struct uring *) ring;
};

static struct uring *ring_of(struct engine *engine)
{
    struct uring *ring = engine->ring;
    if (ring || !engine->use_uring)
        return ring;
    pthread_mutex_lock(&engine->lock);
    if (!engine->ring && engine->use_uring) {
        engine->ring = uring_new(engine, engine->polled);
        engine->use_uring = engine->ring != NULL;
    }
    pthread_mutex_unlock(&engine->lock);
    return engine->ring;
}

struct engine *engine_new(bool use_uring, bool polled)
{
    struct engine *engine = g_new0(struct engine, 1);
    engine->use_uring = use_uring;
    engine->polled = polled;
    engine->last = &engine->first;
    pthread_mutex_init(&engine->lock, NULL);
    pthread_cond_init(&engine->more, NULL);
    pthread_cond_init(&engine->finished, NULL);
    if (polled) // wakes go to the ring from the first one on
        ring_of(engine);
    return engine;
}

void engine_free(struct engine *engine)
{
    if (!engine)
        return;
    pthread_mutex_lock(&engine->lock);
    engine->quit = true;
    pthread_cond_broadcast(&engine->more);
    pthread_mutex_unlock(&engine->lock);
    for (unsigned i = 0; i < engine->thread_count; i++)
        pthread_join(engine->threads[i], NULL);
    uring_free(engine->ring);
    pthread_cond_destroy(&engine->more);
    pthread_cond_destroy(&engine->finished);
    pthread_mutex_destroy(&engine->lock);
    g_free(engine);
}

static void *worker(void *opaque)
{
    struct engine *engine = opaque;
    pthread_setname_np(pthread_self(), "disk");
    pthread_mutex_lock(&engine->lock);
    for (;;) {
        while (!engine->first && !engine->quit) {
            engine->idle++;
            pthread_cond_wait(&engine->more, &engine->lock);
            engine->idle--;
        }
        struct work *work = engine->first;
        if (!work)
            break;
        engine->first = work->next;
        if (!engine->first)
            engine->last = &engine->first;
        pthread_mutex_unlock(&engine->lock);
        work->run(work);
        if (engine->polled)
            engine_wake(engine);
        pthread_mutex_lock(&engine->lock);
    }
    pthread_mutex_unlock(&engine->lock);
    return NULL;
}

void engine_run(struct engine *engine, struct work *work)
{
    pthread_mutex_lock(&engine->lock);
    work->next = NULL;
    *engine->last = work;
    engine->last = &work->next;
    if (engine->idle)
        pthread_cond_signal(&engine->more);
    else if (engine->thread_count < MOST_THREADS &&
             pthread_create(&engine->threads[engine->thread_count], NULL, worker, engine) == 0)
        engine->thread_count++;
    bool stuck = engine->thread_count == 0; // the host gives no thread at all: do it here
    if (stuck) {
        engine->first = NULL;
        engine->last = &engine->first;
    }
    pthread_mutex_unlock(&engine->lock);
    if (stuck)
        work->run(work);
}

// ---- Host I/O ----
struct blocking_io {
    struct work work;
    struct io *io;
};

static void run_blocking(struct work *work)
{
    struct blocking_io *blocking = container_of(work, struct blocking_io, work);
    struct io *io = blocking->io;
    g_free(blocking);
    int rc = io->write ? file_writev(io->file, io->offset, io->iov, io->iov_count)
                       : file_readv(io->file, io->offset, io->iov, io->iov_count);
    io->done(io, rc);
}

void engine_submit(struct engine *engine, struct io *io)
{
    struct uring *ring = io->file->hooks || io->iov_count > 1024 ? NULL : ring_of(engine);
    if (ring) {
        uring_submit(ring, io);
        return;
    }
    struct blocking_io *blocking = g_new(struct blocking_io, 1);
    blocking->work.run = run_blocking;
    blocking->io = io;
    engine_run(engine, &blocking->work);
}

int io_finish(struct io *io, int result)
{
    if (result < 0 && result != -EAGAIN && result != -EINTR && result != -EINVAL)
        return result;
    uint64_t done = MAX(result, 0);
    if (done == io->length)
        return 0;
    g_autofree struct iovec *rest = g_new(struct iovec, io->iov_count);
    unsigned count = iov_slice(rest, io->iov, io->iov_count, done, io->length - done);
    return io->write ? file_writev(io->file, io->offset + done, rest, count)
                     : file_readv(io->file, io->offset + done, rest, count);
}

void engine_plug(struct engine *engine)
{
    if (engine->ring)
        uring_plug(engine->ring);
}

void engine_unplug(struct engine *engine)
{
    if (engine->ring)
        uring_unplug(engine->ring);
}

void engine_poll(struct engine *engine, bool wait)
{
    if (ring_of(engine)) {
        uring_poll(engine->ring, wait);
        return;
    }
    pthread_mutex_lock(&engine->lock);
    while (wait && !engine->wakes)
        pthread_cond_wait(&engine->finished, &engine->lock);
    engine->wakes = 0;
    pthread_mutex_unlock(&engine->lock);
}

void engine_wake(struct engine *engine)
{
    if (engine->ring) {
        uring_wake(engine->ring);
        return;
    }
    pthread_mutex_lock(&engine->lock);
    engine->wakes++;
    pthread_cond_broadcast(&engine->finished);
    pthread_mutex_unlock(&engine->lock);
}

const char *engine_name(struct engine *engine)
{
    return ring_of(engine) ? "io_uring" : "threads";
}
