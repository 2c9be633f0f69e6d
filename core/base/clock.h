// SPDX-License-Identifier: GPL-2.0-or-later
// The one clock service. Guest time is in nanoseconds since power-on, runs at the host's CLOCK_MONOTONIC rate and
// stands still while the machine is paused. Devices never call the host's clock themselves. Tests use a manual clock.
#ifndef CLOCHE_CLOCK_H
#define CLOCHE_CLOCK_H

#include "core/base/base.h"

struct clock;
struct timer;
typedef void timer_callback(void *opaque);

// A timer is embedded in its owner. Its callback runs on the clock's own thread with the clock's lock held (the
// machine lock, see core/machine/machine.h), never before the deadline. Arming and cancelling are allowed from any thread.
struct timer {
    struct clock *clock;
    timer_callback *callback;
    void *opaque;
    int64_t deadline; // guest ns; INT64_MAX when off
    GSequenceIter *position;
};

// A clock that follows the host. LOCK is held around callbacks (may be NULL). It starts stopped at 0.
struct clock *clock_new(GRecMutex *lock);
// A clock that only clock_advance() moves: for tests. Callbacks run inside clock_advance().
struct clock *clock_new_manual(void);
void clock_free(struct clock *clock);

// Guest nanoseconds now. Any thread, lock-free, monotonic over all threads.
int64_t clock_now(struct clock *clock);
void clock_start(struct clock *clock);
void clock_stop(struct clock *clock); // guest time stands still afterwards; no callback runs after it returns
bool clock_running(struct clock *clock);
void clock_set(struct clock *clock, int64_t now); // only while stopped: loading state
void clock_advance(struct clock *clock, int64_t nanoseconds); // manual clocks only
// Nanoseconds to add to guest time to get the host's CLOCK_MONOTONIC now (changes at every start).
int64_t clock_host_offset(struct clock *clock);
// Wall-clock time for the RTC: nanoseconds since 1970 UTC. Follows the host even over pauses.
int64_t clock_wall(struct clock *clock);

void timer_init(struct timer *timer, struct clock *clock, timer_callback *callback, void *opaque);
void timer_arm(struct timer *timer, int64_t deadline); // replaces an earlier deadline
void timer_cancel(struct timer *timer);
bool timer_armed(const struct timer *timer);
void timer_destroy(struct timer *timer); // cancels; after it no callback runs or is running (unless called from it)

#endif
