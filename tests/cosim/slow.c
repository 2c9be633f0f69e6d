// SPDX-License-Identifier: GPL-2.0-or-later
// Time for the guest of a co-simulation: COSIM_SLOW (16) times slower than the host's, so that its timer interrupts
// leave room for its work. The linker leads the monitor's clock here (--wrap).
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include <glib.h>

int __real_clock_gettime(clockid_t id, struct timespec *t);
int __real_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *deadline);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *deadline);

#define SECOND 1000000000ll

static int64_t begin, slow = 1;

static void __attribute__((constructor)) begin_time(void)
{
    const char *text = getenv("COSIM_SLOW");
    struct timespec t;
    __real_clock_gettime(CLOCK_MONOTONIC, &t);
    begin = t.tv_sec * SECOND + t.tv_nsec;
    slow = text ? MAX(1, atoi(text)) : 16;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    int result = __real_clock_gettime(id, t);
    if (id == CLOCK_MONOTONIC && result == 0) {
        int64_t now = begin + (t->tv_sec * SECOND + t->tv_nsec - begin) / slow;
        *t = (struct timespec){now / SECOND, now % SECOND};
    }
    return result;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *deadline)
{
    int64_t end = begin + (deadline->tv_sec * SECOND + deadline->tv_nsec - begin) * slow;
    struct timespec real = {end / SECOND, end % SECOND};
    return __real_pthread_cond_timedwait(cond, mutex, &real);
}
