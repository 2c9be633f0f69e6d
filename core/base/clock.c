// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

// Threads: list, position and running change under LIST_LOCK; readers of the time use SEQUENCE alone.
struct clock {
    GRecMutex *lock; // held around callbacks, may be NULL
    bool manual;
    pthread_mutex_t list_lock;
    pthread_cond_t changed; // CLOCK_MONOTONIC
    GSequence *armed;       // struct timer *, earliest first
    pthread_t thread;
    bool quit;
    struct timer *calling;     // whose callback runs now
    _Atomic unsigned sequence; // odd while RUNNING and OFFSET change
    _Atomic bool running;
    _Atomic int64_t offset; // running: host - guest; stopped: guest now
};

VECTOR_FREE static int64_t host_now(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

VECTOR_FREE int64_t clock_now(struct clock *clock)
{
    for (;;) {
        unsigned before = atomic_load(&clock->sequence);
        bool running = atomic_load(&clock->running);
        int64_t offset = atomic_load(&clock->offset);
        int64_t now = running ? host_now(CLOCK_MONOTONIC) - offset : offset;
        if (!(before & 1) && atomic_load(&clock->sequence) == before)
            return now;
    }
}

static void set_time(struct clock *clock, bool running, int64_t offset)
{
    atomic_fetch_add(&clock->sequence, 1);
    atomic_store(&clock->running, running);
    atomic_store(&clock->offset, offset);
    atomic_fetch_add(&clock->sequence, 1);
}

static int compare_deadlines(gconstpointer a, gconstpointer b, gpointer unused)
{
    const struct timer *x = a, *y = b;
    return x->deadline < y->deadline ? -1 : x->deadline > y->deadline;
}

// Takes the earliest timer off the list if it is due. List lock held.
static struct timer *take_due(struct clock *clock)
{
    GSequenceIter *first = g_sequence_get_begin_iter(clock->armed);
    if (g_sequence_iter_is_end(first))
        return NULL;
    struct timer *timer = g_sequence_get(first);
    if (timer->deadline > clock_now(clock))
        return NULL;
    g_sequence_remove(first);
    timer->position = NULL;
    timer->deadline = INT64_MAX;
    clock->calling = timer;
    return timer;
}

// Waits until a timer is due, the list changes, or the clock ends. List lock held.
static void wait_for_due(struct clock *clock)
{
    GSequenceIter *first = g_sequence_get_begin_iter(clock->armed);
    if (!clock->running || g_sequence_iter_is_end(first)) {
        pthread_cond_wait(&clock->changed, &clock->list_lock);
        return;
    }
    int64_t deadline = ((struct timer *)g_sequence_get(first))->deadline + clock->offset;
    if (deadline <= host_now(CLOCK_MONOTONIC))
        return;
    struct timespec until = {deadline / 1000000000, deadline % 1000000000};
    pthread_cond_timedwait(&clock->changed, &clock->list_lock, &until);
}

static bool anything_due(struct clock *clock)
{
    GSequenceIter *first = g_sequence_get_begin_iter(clock->armed);
    return clock->running && !g_sequence_iter_is_end(first) &&
           ((struct timer *)g_sequence_get(first))->deadline <= clock_now(clock);
}

static void *dispatch(void *opaque)
{
    struct clock *clock = opaque;
    pthread_setname_np(pthread_self(), "clock");
    pthread_mutex_lock(&clock->list_lock);
    while (!clock->quit) {
        if (!anything_due(clock)) {
            wait_for_due(clock);
            continue;
        }
        // The machine lock comes first in the lock order, so look again once it is held.
        pthread_mutex_unlock(&clock->list_lock);
        if (clock->lock)
            g_rec_mutex_lock(clock->lock);
        pthread_mutex_lock(&clock->list_lock);
        struct timer *timer = clock->running && !clock->quit ? take_due(clock) : NULL;
        pthread_mutex_unlock(&clock->list_lock);
        if (timer)
            timer->callback(timer->opaque);
        pthread_mutex_lock(&clock->list_lock);
        clock->calling = NULL;
        pthread_cond_broadcast(&clock->changed);
        pthread_mutex_unlock(&clock->list_lock);
        if (clock->lock)
            g_rec_mutex_unlock(clock->lock);
        pthread_mutex_lock(&clock->list_lock);
    }
    pthread_mutex_unlock(&clock->list_lock);
    return NULL;
}

static struct clock *clock_create(GRecMutex *lock, bool manual)
{
    struct clock *clock = g_new0(struct clock, 1);
    clock->lock = lock;
    clock->manual = manual;
    clock->armed = g_sequence_new(NULL);
    pthread_mutex_init(&clock->list_lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&clock->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return clock;
}

struct clock *clock_new(GRecMutex *lock)
{
    struct clock *clock = clock_create(lock, false);
    pthread_create(&clock->thread, NULL, dispatch, clock);
    return clock;
}

struct clock *clock_new_manual(void)
{
    return clock_create(NULL, true);
}

void clock_free(struct clock *clock)
{
    if (!clock)
        return;
    if (!clock->manual) {
        pthread_mutex_lock(&clock->list_lock);
        clock->quit = true;
        pthread_cond_broadcast(&clock->changed);
        pthread_mutex_unlock(&clock->list_lock);
        pthread_join(clock->thread, NULL);
    }
    g_sequence_free(clock->armed);
    pthread_cond_destroy(&clock->changed);
    pthread_mutex_destroy(&clock->list_lock);
    g_free(clock);
}

void clock_start(struct clock *clock)
{
    pthread_mutex_lock(&clock->list_lock);
    if (!clock->running && !clock->manual)
        set_time(clock, true, host_now(CLOCK_MONOTONIC) - clock->offset);
    pthread_cond_broadcast(&clock->changed);
    pthread_mutex_unlock(&clock->list_lock);
}

void clock_stop(struct clock *clock)
{
    if (clock->lock)
        g_rec_mutex_lock(clock->lock);
    pthread_mutex_lock(&clock->list_lock);
    if (clock->running)
        set_time(clock, false, clock_now(clock));
    pthread_mutex_unlock(&clock->list_lock);
    if (clock->lock)
        g_rec_mutex_unlock(clock->lock);
}

bool clock_running(struct clock *clock)
{
    return clock->running;
}

void clock_set(struct clock *clock, int64_t now)
{
    pthread_mutex_lock(&clock->list_lock);
    if (!clock->running)
        set_time(clock, false, now);
    pthread_mutex_unlock(&clock->list_lock);
}

void clock_advance(struct clock *clock, int64_t nanoseconds)
{
    int64_t end = clock_now(clock) + nanoseconds;
    for (;;) {
        GSequenceIter *first = g_sequence_get_begin_iter(clock->armed);
        if (g_sequence_iter_is_end(first) || ((struct timer *)g_sequence_get(first))->deadline > end)
            break;
        struct timer *next = g_sequence_get(first);
        set_time(clock, false, MAX(next->deadline, clock_now(clock)));
        take_due(clock);
        next->callback(next->opaque);
        clock->calling = NULL;
    }
    set_time(clock, false, end);
}

int64_t clock_host_offset(struct clock *clock)
{
    return clock->running ? clock->offset : host_now(CLOCK_MONOTONIC) - clock->offset;
}

int64_t clock_wall(struct clock *clock)
{
    return clock->manual ? clock_now(clock) : host_now(CLOCK_REALTIME);
}

// ---- Timers ----
void timer_init(struct timer *timer, struct clock *clock, timer_callback *callback, void *opaque)
{
    *timer = (struct timer){.clock = clock, .callback = callback, .opaque = opaque, .deadline = INT64_MAX};
}

static void remove_timer(struct timer *timer)
{
    if (timer->position)
        g_sequence_remove(timer->position);
    timer->position = NULL;
    timer->deadline = INT64_MAX;
}

void timer_arm(struct timer *timer, int64_t deadline)
{
    struct clock *clock = timer->clock;
    pthread_mutex_lock(&clock->list_lock);
    remove_timer(timer);
    timer->deadline = deadline;
    timer->position = g_sequence_insert_sorted(clock->armed, timer, compare_deadlines, NULL);
    if (g_sequence_iter_is_begin(timer->position))
        pthread_cond_broadcast(&clock->changed);
    pthread_mutex_unlock(&clock->list_lock);
}

void timer_cancel(struct timer *timer)
{
    pthread_mutex_lock(&timer->clock->list_lock);
    remove_timer(timer);
    pthread_mutex_unlock(&timer->clock->list_lock);
}

bool timer_armed(const struct timer *timer)
{
    pthread_mutex_lock(&timer->clock->list_lock);
    bool armed = timer->position != NULL;
    pthread_mutex_unlock(&timer->clock->list_lock);
    return armed;
}

void timer_destroy(struct timer *timer)
{
    struct clock *clock = timer->clock;
    if (!clock)
        return;
    pthread_mutex_lock(&clock->list_lock);
    remove_timer(timer);
    // With a machine lock the caller holds it, so no callback can be running but the one it was called from.
    while (!clock->manual && !clock->lock && clock->calling == timer && !pthread_equal(pthread_self(), clock->thread))
        pthread_cond_wait(&clock->changed, &clock->list_lock);
    pthread_mutex_unlock(&clock->list_lock);
}
