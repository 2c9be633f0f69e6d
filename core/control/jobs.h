// SPDX-License-Identifier: GPL-2.0-or-later
// Long work of one machine: QMP's jobs, each on a thread of its own.
#ifndef CLOCHE_CONTROL_JOBS_H
#define CLOCHE_CONTROL_JOBS_H

#include "core/base/progress.h"
#include "core/control/server.h"

// Runs on the job's thread. False with a GError: the job failed.
typedef bool control_job_fn(void *opaque, struct progress *progress, GError **error);

// Starts RUN as job ID of TYPE ("snapshot-save", ...). OPAQUE is freed by FREE_FN on the main loop when the job is
// over. False: the id is taken or malformed; FREE_FN was called then.
bool control_job_start(struct job_list *jobs, const char *id, const char *type, control_job_fn *run, void *opaque,
                       GDestroyNotify free_fn, GError **error);
// From a job's thread: runs FN on the main loop and waits for it. False with CLOCHE_ERROR_CANCELLED when the job was
// cancelled before FN began.
bool control_job_call(struct machine *machine, struct progress *progress, void (*fn)(void *opaque), void *opaque,
                      GError **error);
struct job_list *control_server_jobs(struct control_server *server);
// Cancels what runs and waits for it.
void control_jobs_finish(struct job_list *jobs);
// For work that must be done even where its job was cancelled: cancelled only when the monitor ends. Any thread.
struct progress *control_jobs_ending(struct job_list *jobs);
// True while any job works.
bool control_jobs_busy(struct job_list *jobs);

#endif
