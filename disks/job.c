// SPDX-License-Identifier: GPL-2.0-or-later
#include "disks/job.h"

// Threads: TITLE, RUN and OPAQUE are immutable; the rest is guarded by LOCK or atomic.
struct job {
    char *title;
    job_run *run;
    void *opaque;
    GDestroyNotify free_opaque;
    GThread *thread;
    GMutex lock;
    GCond ended;
    _Atomic bool cancelled, finished;
    _Atomic uint64_t done, total;
    bool ok;
    GError *error;
    void (*changed)(struct job *job, void *opaque);
    void *changed_opaque;
    int64_t told; // monotonic microseconds
};

static void tell(struct job *job)
{
    g_mutex_lock(&job->lock);
    void (*changed)(struct job *, void *) = job->changed;
    void *opaque = job->changed_opaque;
    job->told = g_get_monotonic_time();
    g_mutex_unlock(&job->lock);
    if (changed)
        changed(job, opaque);
}

static gpointer run(gpointer data)
{
    struct job *job = data;
    GError *error = NULL;
    bool ok = job->run(job, job->opaque, &error);
    if (job->free_opaque)
        job->free_opaque(job->opaque);
    g_mutex_lock(&job->lock);
    job->ok = ok;
    job->error = error;
    job->finished = true;
    g_cond_broadcast(&job->ended);
    g_mutex_unlock(&job->lock);
    tell(job);
    return NULL;
}

struct job *job_start(const char *title, job_run *work, void *opaque, GDestroyNotify free_opaque)
{
    struct job *job = g_new0(struct job, 1);
    job->title = g_strdup(title);
    job->run = work;
    job->opaque = opaque;
    job->free_opaque = free_opaque;
    g_mutex_init(&job->lock);
    g_cond_init(&job->ended);
    job->thread = g_thread_new("job", run, job);
    return job;
}

void job_set_changed(struct job *job, void (*changed)(struct job *job, void *opaque), void *opaque)
{
    g_mutex_lock(&job->lock);
    job->changed = changed;
    job->changed_opaque = opaque;
    g_mutex_unlock(&job->lock);
}

const char *job_title(struct job *job)
{
    return job->title;
}

void job_progress(struct job *job, uint64_t *done, uint64_t *total)
{
    *done = job->done;
    *total = job->total;
}

void job_cancel(struct job *job)
{
    job->cancelled = true;
}

bool job_finished(struct job *job)
{
    return job->finished;
}

bool job_wait(struct job *job, GError **error)
{
    g_mutex_lock(&job->lock);
    while (!job->finished)
        g_cond_wait(&job->ended, &job->lock);
    bool ok = job->ok;
    if (!ok && job->error && error)
        *error = g_error_copy(job->error);
    g_mutex_unlock(&job->lock);
    return ok;
}

void job_free(struct job *job)
{
    if (!job)
        return;
    job_cancel(job);
    g_thread_join(job->thread);
    g_clear_error(&job->error);
    g_mutex_clear(&job->lock);
    g_cond_clear(&job->ended);
    g_free(job->title);
    g_free(job);
}

void job_set_progress(struct job *job, uint64_t done, uint64_t total)
{
    if (!job)
        return;
    job->done = done;
    job->total = total;
    if (g_get_monotonic_time() - job->told >= G_USEC_PER_SEC / 10)
        tell(job);
}

bool job_cancelled(struct job *job)
{
    return job && job->cancelled;
}

bool job_check_cancelled(struct job *job, GError **error)
{
    if (!job_cancelled(job))
        return false;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CANCELLED, "%s was cancelled; nothing was lost", job->title);
    return true;
}
