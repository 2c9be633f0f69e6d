// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/watchdog.h"

#include <execinfo.h>
#include <glib.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

// Of this thread, in nanoseconds (schedstat): how long it ran, and how long it was ready to run but others had the
// processor: a busy host is not the app's fault.
struct usage {
    guint64 ran, delay;
};

static struct {
    gint64 limit, awake; // microseconds; AWAKE: when the loop began to work, 0: it waits
    struct usage before; // at that moment
} watchdog;

static struct usage usage_now(void)
{
    struct usage now = {0};
    FILE *file = fopen("/proc/thread-self/schedstat", "re");
    if (file && fscanf(file, "%" SCNu64 " %" SCNu64, &now.ran, &now.delay) != 2)
        now = (struct usage){0};
    if (file)
        fclose(file);
    return now;
}

// Where it is when the limit is over. Prints addresses: `addr2line -fe cloche` names them.
static void caught(int number)
{
    void *frames[24];
    backtrace_symbols_fd(frames, backtrace(frames, G_N_ELEMENTS(frames)), STDERR_FILENO);
}

static void set_alarm(gint64 microseconds)
{
    struct itimerval timer = {.it_value = {microseconds / G_USEC_PER_SEC, microseconds % G_USEC_PER_SEC}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void report(void)
{
    struct usage now = usage_now();
    gint64 busy = g_get_monotonic_time() - watchdog.awake - (gint64)(now.delay - watchdog.before.delay) / 1000;
    if (busy > watchdog.limit)
        fprintf(stderr, "watchdog: the main loop was busy for %d ms, %d of them on the processor\n", (int)(busy / 1000),
                (int)((now.ran - watchdog.before.ran) / 1000000));
}

static gint poll_watched(GPollFD *fds, guint count, gint timeout)
{
    set_alarm(0);
    if (watchdog.awake)
        report();
    gint ready = g_poll(fds, count, timeout);
    watchdog.awake = g_get_monotonic_time();
    watchdog.before = usage_now();
    set_alarm(watchdog.limit);
    return ready;
}

void watchdog_start(void)
{
    const char *limit = g_getenv("CLOCHE_WATCHDOG");
    if (!limit)
        return;
    watchdog.limit = g_ascii_strtoll(limit, NULL, 10) * 1000;
    void *frame;
    backtrace(&frame, 1); // its first call loads a library, which a signal handler must not
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = caught, .sa_flags = SA_RESTART}, NULL);
    g_main_context_set_poll_func(NULL, poll_watched);
}
