// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/watchdog.h"

#include <execinfo.h>
#include <glib.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

static struct {
    gint64 limit, awake; // microseconds; AWAKE: when the loop began to work, 0: it waits
    gint64 delay;        // nanoseconds that others had the processor, up to then
} watchdog;

// Nanoseconds that this thread was ready to run but had no processor (schedstat, second field): a busy host is not the
// app's fault.
static gint64 run_delay(void)
{
    guint64 ran = 0, delay = 0;
    FILE *file = fopen("/proc/thread-self/schedstat", "re");
    if (file && fscanf(file, "%" SCNu64 " %" SCNu64, &ran, &delay) != 2)
        delay = 0;
    if (file)
        fclose(file);
    return delay;
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

static gint poll_watched(GPollFD *fds, guint count, gint timeout)
{
    set_alarm(0);
    if (watchdog.awake) {
        gint64 busy = g_get_monotonic_time() - watchdog.awake - (run_delay() - watchdog.delay) / 1000;
        if (busy > watchdog.limit)
            fprintf(stderr, "watchdog: the main loop was busy for %" G_GINT64_FORMAT " ms\n", busy / 1000);
    }
    gint ready = g_poll(fds, count, timeout);
    watchdog.awake = g_get_monotonic_time();
    watchdog.delay = run_delay();
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
