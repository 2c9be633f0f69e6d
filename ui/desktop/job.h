// SPDX-License-Identifier: GPL-2.0-or-later
// The one way to do slow work in the app: a worker thread, a small window with progress, rate, time left and Cancel,
// and a notification when it took long. The main loop never waits; the app runs on until the work is done.
#ifndef CLOCHE_DESKTOP_JOB_H
#define CLOCHE_DESKTOP_JOB_H

#include "core/base/progress.h"

#include <gtk/gtk.h>

struct job_work {
    const char *title;   // "Cloning “demo”"
    const char *failure; // "The machine could not be cloned"
    bool quiet;          // there is nothing to cancel: no window
    // On the worker thread. False with an error; CLOCHE_ERROR_CANCELLED and G_IO_ERROR_CANCELLED show no dialog.
    bool (*run)(void *opaque, struct progress *progress, GError **error);
    // On the main thread, after it succeeded. May be NULL.
    void (*done)(void *opaque);
    void *opaque;
    GDestroyNotify destroy; // on the main thread, at the end in any case
};
void job_start_work(GtkWindow *parent, const struct job_work *work);

#endif
