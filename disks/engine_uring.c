// SPDX-License-Identifier: GPL-2.0-or-later
// The kernel's ring. Whoever submits also reaps what is finished by then (page cache hits); a thread reaps the rest.
#include "disks/engine.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>

enum { RING_ENTRIES = 256, RING_COMPLETIONS = 4096, REAPER_PATIENCE = 4 };

// Threads: SUBMIT_LOCK guards the submission queue, REAP_LOCK the completion queue.
struct uring {
    struct io_uring ring;
    struct engine *engine;
    bool polled;
    pthread_mutex_t submit_lock;
    unsigned plugs;
    bool unsubmitted;
    pthread_mutex_t reap_lock;
    _Atomic unsigned outstanding; // handed to the kernel and not reaped
    pthread_t reaper;
    pthread_mutex_t idle_lock;
    pthread_cond_t awake;
    _Atomic bool idle; // the reaper sleeps on AWAKE
    bool quit;
};

struct slow_finish {
    struct work work;
    struct io *io;
    int result;
};

static void finish_slowly(struct work *work)
{
    struct slow_finish *slow = container_of(work, struct slow_finish, work);
    struct io *io = slow->io;
    int rc = io_finish(io, slow->result);
    g_free(slow);
    io->done(io, rc);
}

static void complete(struct uring *ring, struct io *io, int result)
{
    if (result >= 0 && (uint64_t)result == io->length) {
        uint64_t end = io->offset + io->length, now = io->file->end;
        while (io->write && end > now && !atomic_compare_exchange_weak(&io->file->end, &now, end))
            ;
        io->done(io, 0);
        return;
    }
    struct slow_finish *slow = g_new(struct slow_finish, 1);
    *slow = (struct slow_finish){.work.run = finish_slowly, .io = io, .result = result};
    engine_run(ring->engine, &slow->work);
}

// Returns how many were finished.
static unsigned reap(struct uring *ring)
{
    unsigned total = 0;
    for (;;) {
        struct io_uring_cqe *cqes[64];
        struct {
            struct io *io;
            int result;
        } batch[64];
        pthread_mutex_lock(&ring->reap_lock);
        unsigned count = io_uring_peek_batch_cqe(&ring->ring, cqes, 64);
        for (unsigned i = 0; i < count; i++) {
            batch[i].io = io_uring_cqe_get_data(cqes[i]);
            batch[i].result = cqes[i]->res;
        }
        io_uring_cq_advance(&ring->ring, count);
        pthread_mutex_unlock(&ring->reap_lock);
        if (!count)
            return total;
        atomic_fetch_sub(&ring->outstanding, count);
        total += count;
        for (unsigned i = 0; i < count; i++)
            if (batch[i].io)
                complete(ring, batch[i].io, batch[i].result);
    }
}

static void reaper_sleep(struct uring *ring)
{
    pthread_mutex_lock(&ring->idle_lock);
    ring->idle = true;
    while (!ring->outstanding && !ring->quit)
        pthread_cond_wait(&ring->awake, &ring->idle_lock);
    ring->idle = false;
    pthread_mutex_unlock(&ring->idle_lock);
}

static void wake_reaper(struct uring *ring)
{
    if (!ring->idle)
        return;
    pthread_mutex_lock(&ring->idle_lock);
    pthread_cond_signal(&ring->awake);
    pthread_mutex_unlock(&ring->idle_lock);
}

// The kernel may be short of memory for the moment; what stays is offered again by the reaper or the next poll.
static void submit_now(struct uring *ring)
{
    ring->unsubmitted = io_uring_submit(&ring->ring) < 0;
}

static void offer_again(struct uring *ring)
{
    pthread_mutex_lock(&ring->submit_lock);
    if (ring->unsubmitted && !ring->plugs)
        submit_now(ring);
    pthread_mutex_unlock(&ring->submit_lock);
}

// Waits in the kernel while its last waits were of use, so that a busy disk does not wake it twice per request.
static void *reaper(void *opaque)
{
    struct uring *ring = opaque;
    pthread_setname_np(pthread_self(), "disk-ring");
    unsigned useless = 0;
    while (!ring->quit) {
        if (!ring->outstanding && useless >= REAPER_PATIENCE)
            reaper_sleep(ring);
        struct io_uring_cqe *cqe;
        struct __kernel_timespec patience = {.tv_nsec = 20000000};
        if (!ring->quit)
            io_uring_wait_cqe_timeout(&ring->ring, &cqe, &patience);
        useless = reap(ring) ? 0 : useless + 1;
        offer_again(ring);
    }
    return NULL;
}

struct uring *uring_new(struct engine *engine, bool polled)
{
    struct uring *ring = g_new0(struct uring, 1);
    struct io_uring_params params = {.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP, .cq_entries = RING_COMPLETIONS};
    int rc = io_uring_queue_init_params(RING_ENTRIES, &ring->ring, &params);
    if (rc == 0 && !(params.features & IORING_FEAT_EXT_ARG)) { // waiting with a timeout must not need a submission
        io_uring_queue_exit(&ring->ring);
        rc = -ENOSYS;
    }
    if (rc < 0) {
        log_info("disks", "the host refuses io_uring (%s), threads do the disk I/O", g_strerror(-rc));
        g_free(ring);
        return NULL;
    }
    ring->engine = engine;
    ring->polled = polled;
    pthread_mutex_init(&ring->submit_lock, NULL);
    pthread_mutex_init(&ring->reap_lock, NULL);
    pthread_mutex_init(&ring->idle_lock, NULL);
    pthread_cond_init(&ring->awake, NULL);
    if (!polled && pthread_create(&ring->reaper, NULL, reaper, ring) != 0) {
        io_uring_queue_exit(&ring->ring);
        g_free(ring);
        return NULL;
    }
    return ring;
}

void uring_free(struct uring *ring)
{
    if (!ring)
        return;
    if (!ring->polled) {
        pthread_mutex_lock(&ring->idle_lock);
        ring->quit = true;
        pthread_cond_signal(&ring->awake);
        pthread_mutex_unlock(&ring->idle_lock);
        uring_wake(ring);
        pthread_join(ring->reaper, NULL);
    }
    io_uring_queue_exit(&ring->ring);
    pthread_mutex_destroy(&ring->submit_lock);
    pthread_mutex_destroy(&ring->reap_lock);
    pthread_mutex_destroy(&ring->idle_lock);
    pthread_cond_destroy(&ring->awake);
    g_free(ring);
}

static struct io_uring_sqe *get_sqe(struct uring *ring)
{
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&ring->ring)))
        io_uring_submit(&ring->ring);
    return sqe;
}

static int ring_fd(const struct io *io)
{
    uint64_t bits = io->offset;
    if (io->file->direct_fd < 0)
        return io->file->fd;
    for (unsigned i = 0; i < io->iov_count; i++)
        bits |= (uintptr_t)io->iov[i].iov_base | io->iov[i].iov_len;
    return bits % io->file->alignment ? io->file->fd : io->file->direct_fd;
}

void uring_submit(struct uring *ring, struct io *io)
{
    int fd = ring_fd(io);
    pthread_mutex_lock(&ring->submit_lock);
    struct io_uring_sqe *sqe = get_sqe(ring);
    if (io->iov_count == 1 && io->write)
        io_uring_prep_write(sqe, fd, io->iov->iov_base, io->iov->iov_len, io->offset);
    else if (io->iov_count == 1)
        io_uring_prep_read(sqe, fd, io->iov->iov_base, io->iov->iov_len, io->offset);
    else if (io->write)
        io_uring_prep_writev(sqe, fd, io->iov, io->iov_count, io->offset);
    else
        io_uring_prep_readv(sqe, fd, io->iov, io->iov_count, io->offset);
    io_uring_sqe_set_data(sqe, io);
    atomic_fetch_add(&ring->outstanding, 1);
    ring->unsubmitted = true;
    bool now = ring->plugs == 0;
    if (now)
        submit_now(ring);
    pthread_mutex_unlock(&ring->submit_lock);
    if (!now || ring->polled)
        return;
    reap(ring);
    if (ring->outstanding)
        wake_reaper(ring);
}

void uring_plug(struct uring *ring)
{
    pthread_mutex_lock(&ring->submit_lock);
    ring->plugs++;
    pthread_mutex_unlock(&ring->submit_lock);
}

void uring_unplug(struct uring *ring)
{
    pthread_mutex_lock(&ring->submit_lock);
    if (ring->plugs)
        ring->plugs--;
    if (ring->plugs == 0 && ring->unsubmitted)
        submit_now(ring);
    pthread_mutex_unlock(&ring->submit_lock);
    if (ring->polled)
        return;
    reap(ring);
    if (ring->outstanding)
        wake_reaper(ring);
}

void uring_poll(struct uring *ring, bool wait)
{
    if (reap(ring) || !wait)
        return;
    pthread_mutex_lock(&ring->submit_lock);
    if (ring->unsubmitted)
        submit_now(ring);
    pthread_mutex_unlock(&ring->submit_lock);
    struct io_uring_cqe *cqe;
    io_uring_wait_cqe(&ring->ring, &cqe);
    reap(ring);
}

void uring_wake(struct uring *ring)
{
    pthread_mutex_lock(&ring->submit_lock);
    struct io_uring_sqe *sqe = get_sqe(ring);
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data(sqe, NULL);
    atomic_fetch_add(&ring->outstanding, 1);
    submit_now(ring);
    pthread_mutex_unlock(&ring->submit_lock);
}
