// SPDX-License-Identifier: GPL-2.0-or-later
// Long work on its own thread: progress, cancelling, a result. Used for everything on disks that takes a while.
#ifndef CLOCHE_DISKS_JOB_H
#define CLOCHE_DISKS_JOB_H

#include "core/base/base.h"

struct job;

// The work: returns false with ERROR. It asks job_cancelled() between steps and then leaves things in order.
typedef bool job_run(struct job *job, void *opaque, GError **error);

// Starts RUN on a new thread. TITLE is shown to people. FREE_OPAQUE (may be NULL) is called after RUN returned.
struct job *job_start(const char *title, job_run *run, void *opaque, GDestroyNotify free_opaque);
// CHANGED is called on the job's thread after progress (at most ten times a second) and once at the end; NULL: nobody.
void job_set_changed(struct job *job, void (*changed)(struct job *job, void *opaque), void *opaque);
const char *job_title(struct job *job);
// Bytes or steps, DONE of TOTAL; TOTAL 0: not known yet. Any thread.
void job_progress(struct job *job, uint64_t *done, uint64_t *total);
void job_cancel(struct job *job); // asks; job_wait() tells whether it came in time
bool job_finished(struct job *job);
// Waits for the end. False with the job's error (CLOCHE_ERROR_CANCELLED where it was cancelled).
bool job_wait(struct job *job, GError **error);
void job_free(struct job *job); // cancels and waits

// ---- For the work itself; JOB may be NULL: then nobody asks and nobody is told ----
void job_set_progress(struct job *job, uint64_t done, uint64_t total);
bool job_cancelled(struct job *job);
// True, with ERROR set, where the job was cancelled.
bool job_check_cancelled(struct job *job, GError **error);

#endif
