// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/control/jobs.h"

#include <string.h>

#define JOBS_MAX 64 // remembered, finished ones included

enum job_status { JOB_RUNNING, JOB_ABORTING, JOB_CONCLUDED };
static const char *const status_names[] = {"running", "aborting", "concluded"};

// Main loop thread, but RUN, OPAQUE, PROGRESS and FAILURE while the thread lives.
struct control_job {
    struct job_list *jobs;
    char *id, *type;
    enum job_status status;
    control_job_fn *run;
    void *opaque;
    GDestroyNotify free_fn;
    struct progress progress;
    GError *failure;
    GThread *thread;
};

struct job_list {
    struct control_server *server;
    GPtrArray *list; // struct control_job *
    GSource *finished;
    GMutex lock;
    GQueue done; // struct control_job *, from their threads
    struct progress ending;
};

static void set_status(struct control_job *job, enum job_status status)
{
    job->status = status;
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "status", status_names[status]);
    json_object_set_string_member(data, "id", job->id);
    qmp_server_emit(job->jobs->server->qmp, "JOB_STATUS_CHANGE", qmp_node_object(data));
}

static void job_free(gpointer data)
{
    struct control_job *job = data;
    g_free(job->id);
    g_free(job->type);
    g_clear_error(&job->failure);
    g_free(job);
}

static struct control_job *find_job(struct job_list *jobs, const char *id)
{
    for (unsigned i = 0; i < jobs->list->len; i++) {
        struct control_job *job = jobs->list->pdata[i];
        if (strcmp(job->id, id) == 0)
            return job;
    }
    return NULL;
}

// Joins the threads of jobs that have ended.
static void collect(struct job_list *jobs)
{
    for (;;) {
        g_mutex_lock(&jobs->lock);
        struct control_job *job = g_queue_pop_head(&jobs->done);
        g_mutex_unlock(&jobs->lock);
        if (!job)
            return;
        g_thread_join(job->thread);
        job->thread = NULL;
        if (job->free_fn)
            job->free_fn(job->opaque);
        if (job->failure)
            log_warning("control", "Job %s (%s): %s", job->id, job->type, job->failure->message);
        set_status(job, JOB_CONCLUDED);
    }
}

static gboolean collect_ready(gpointer data)
{
    struct job_list *jobs = data;
    g_source_set_ready_time(jobs->finished, -1);
    collect(jobs);
    return G_SOURCE_CONTINUE;
}

static gboolean dispatch_source(GSource *source, GSourceFunc callback, gpointer data)
{
    return callback(data);
}

static GSourceFuncs source_functions = {.dispatch = dispatch_source};

static gpointer job_thread(gpointer data)
{
    struct control_job *job = data;
    struct job_list *jobs = job->jobs;
    GError *error = NULL;
    if (!job->run(job->opaque, &job->progress, &error))
        job->failure = error;
    g_mutex_lock(&jobs->lock);
    g_queue_push_tail(&jobs->done, job);
    g_mutex_unlock(&jobs->lock);
    g_source_set_ready_time(jobs->finished, 0);
    return NULL;
}

// ---- A job's step on the main loop ----

struct main_step {
    gatomicrefcount users;
    GMutex lock;
    GCond changed;
    enum { STEP_WAITS, STEP_RUNS, STEP_DONE, STEP_GIVEN_UP } state; // under LOCK
    void (*fn)(void *opaque);
    void *opaque;
};

static void step_unref(gpointer data)
{
    struct main_step *step = data;
    if (!g_atomic_ref_count_dec(&step->users))
        return;
    g_mutex_clear(&step->lock);
    g_cond_clear(&step->changed);
    g_free(step);
}

static bool step_enter(struct main_step *step, int from, int to)
{
    g_mutex_lock(&step->lock);
    bool good = (int)step->state == from;
    if (good)
        step->state = to;
    g_cond_broadcast(&step->changed);
    g_mutex_unlock(&step->lock);
    return good;
}

static gboolean run_step(gpointer data)
{
    struct main_step *step = data;
    if (step_enter(step, STEP_WAITS, STEP_RUNS)) {
        step->fn(step->opaque);
        step_enter(step, STEP_RUNS, STEP_DONE);
    }
    return G_SOURCE_REMOVE;
}

// True: it was done. Looks for a cancellation, which nobody signals, every 50 ms.
static bool step_wait(struct main_step *step, struct progress *progress)
{
    g_mutex_lock(&step->lock);
    while (step->state != STEP_DONE && step->state != STEP_GIVEN_UP) {
        g_cond_wait_until(&step->changed, &step->lock, g_get_monotonic_time() + 50 * G_TIME_SPAN_MILLISECOND);
        if (step->state == STEP_WAITS && atomic_load(&progress->cancelled))
            step->state = STEP_GIVEN_UP;
    }
    bool done = step->state == STEP_DONE;
    g_mutex_unlock(&step->lock);
    return done;
}

bool control_job_call(struct machine *machine, struct progress *progress, void (*fn)(void *opaque), void *opaque,
                      GError **error)
{
    struct main_step *step = g_new0(struct main_step, 1);
    *step = (struct main_step){.fn = fn, .opaque = opaque};
    g_atomic_ref_count_init(&step->users);
    g_atomic_ref_count_inc(&step->users);
    g_mutex_init(&step->lock);
    g_cond_init(&step->changed);
    GSource *source = g_idle_source_new(); // never g_main_context_invoke(): it may run FN on this thread
    g_source_set_priority(source, G_PRIORITY_HIGH);
    g_source_set_callback(source, run_step, step, step_unref);
    g_source_attach(source, machine->context);
    g_source_unref(source);
    bool done = step_wait(step, progress);
    step_unref(step);
    if (!done)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CANCELLED, "Cancelled");
    return done;
}

// ---- The list ----

struct job_list *control_jobs_new(struct control_server *server)
{
    struct job_list *jobs = g_new0(struct job_list, 1);
    jobs->server = server;
    jobs->list = g_ptr_array_new_with_free_func(job_free);
    g_mutex_init(&jobs->lock);
    g_queue_init(&jobs->done);
    jobs->finished = g_source_new(&source_functions, sizeof(GSource));
    g_source_set_callback(jobs->finished, collect_ready, jobs, NULL);
    g_source_attach(jobs->finished, server->machine->context);
    return jobs;
}

struct progress *control_jobs_ending(struct job_list *jobs)
{
    return &jobs->ending;
}

void control_jobs_finish(struct job_list *jobs)
{
    atomic_store(&jobs->ending.cancelled, true);
    for (unsigned i = 0; i < jobs->list->len; i++)
        atomic_store(&((struct control_job *)jobs->list->pdata[i])->progress.cancelled, true);
    while (control_jobs_busy(jobs)) {
        collect(jobs);
        g_usleep(1000);
    }
}

void control_jobs_free(struct job_list *jobs)
{
    control_jobs_finish(jobs);
    g_source_destroy(jobs->finished);
    g_source_unref(jobs->finished);
    g_ptr_array_free(jobs->list, TRUE);
    g_mutex_clear(&jobs->lock);
    g_free(jobs);
}

bool control_jobs_busy(struct job_list *jobs)
{
    for (unsigned i = 0; i < jobs->list->len; i++)
        if (((struct control_job *)jobs->list->pdata[i])->thread)
            return true;
    return false;
}

static bool id_is_free(struct job_list *jobs, const char *id, GError **error)
{
    if (!id[0] || strlen(id) > 128) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "A job's id has 1 to 128 characters");
        return false;
    }
    if (find_job(jobs, id)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS, "Job ID '%s' already in use", id);
        return false;
    }
    for (unsigned i = 0; jobs->list->len >= JOBS_MAX && i < jobs->list->len; i++)
        if (((struct control_job *)jobs->list->pdata[i])->status == JOB_CONCLUDED) {
            g_ptr_array_remove_index(jobs->list, i); // nobody dismissed the oldest
            break;
        }
    if (jobs->list->len >= JOBS_MAX)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "%d jobs run already; wait for one to end", JOBS_MAX);
    return jobs->list->len < JOBS_MAX;
}

bool control_job_start(struct job_list *jobs, const char *id, const char *type, control_job_fn *run, void *opaque,
                       GDestroyNotify free_fn, GError **error)
{
    if (!id_is_free(jobs, id, error)) {
        if (free_fn)
            free_fn(opaque);
        return false;
    }
    struct control_job *job = g_new0(struct control_job, 1);
    job->jobs = jobs;
    job->id = g_strdup(id);
    job->type = g_strdup(type);
    job->run = run;
    job->opaque = opaque;
    job->free_fn = free_fn;
    g_ptr_array_add(jobs->list, job);
    set_status(job, JOB_RUNNING);
    job->thread = g_thread_new("job", job_thread, job);
    return true;
}

// ---- Commands ----

static struct control_job *call_job(struct qmp_call *call, GError **error)
{
    const char *id = qmp_string(call, "id");
    struct control_job *job = find_job(call_server(call)->jobs, id);
    if (!job)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "Job '%.128s' not found", id);
    return job;
}

static void set_failure(JsonObject *entry, const GError *failure)
{
    const char *code = qmp_error_code_name(failure);
    json_object_set_string_member(entry, "error", failure->message);
    if (code)
        json_object_set_string_member(entry, QMP_CODE_MEMBER, code);
}

static JsonNode *query_jobs(struct qmp_call *call, GError **error)
{
    JsonArray *list = json_array_new();
    GPtrArray *jobs = call_server(call)->jobs->list;
    for (unsigned i = 0; i < jobs->len; i++) {
        struct control_job *job = jobs->pdata[i];
        JsonObject *entry = json_object_new();
        json_object_set_string_member(entry, "id", job->id);
        json_object_set_string_member(entry, "type", job->type);
        json_object_set_string_member(entry, "status", status_names[job->status]);
        json_object_set_int_member(entry, "current-progress", atomic_load(&job->progress.done));
        json_object_set_int_member(entry, "total-progress", atomic_load(&job->progress.total));
        if (job->status == JOB_CONCLUDED && job->failure)
            set_failure(entry, job->failure);
        json_array_add_object_element(list, entry);
    }
    return qmp_node_array(list);
}

static JsonNode *job_cancel(struct qmp_call *call, GError **error)
{
    struct control_job *job = call_job(call, error);
    if (job && job->status == JOB_CONCLUDED) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "Job '%s' in state 'concluded' cannot accept command verb 'cancel'", job->id);
    } else if (job) {
        atomic_store(&job->progress.cancelled, true);
        if (job->status == JOB_RUNNING)
            set_status(job, JOB_ABORTING);
    }
    return NULL;
}

static JsonNode *job_dismiss(struct qmp_call *call, GError **error)
{
    struct control_job *job = call_job(call, error);
    if (job && job->status != JOB_CONCLUDED)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "Job '%s' in state '%s' cannot accept command verb 'dismiss'", job->id, status_names[job->status]);
    else if (job)
        g_ptr_array_remove(call_server(call)->jobs->list, job);
    return NULL;
}

static const struct qmp_argument id_arguments[] = {QMP_NEED("id", QMP_STRING), QMP_END};

const struct qmp_command control_job_commands[] = {
    QMP_REQUEST("query-jobs", query_jobs, NULL, QMP_ANY_STATE, "Long work and how far it is."),
    QMP_REQUEST("job-cancel", job_cancel, id_arguments, QMP_ANY_STATE, "Cancels a job; nothing is left half-done."),
    QMP_REQUEST("job-dismiss", job_dismiss, id_arguments, QMP_ANY_STATE, "Forgets a job that has ended."),
    QMP_END,
};
