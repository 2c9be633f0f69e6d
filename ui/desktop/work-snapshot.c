// SPDX-License-Identifier: GPL-2.0-or-later
// Snapshot work on a worker thread.
#include "core/config/library.h"
#include "core/config/snapshot.h"
#include "core/control/life.h"
#include "ui/desktop/job.h"
#include "ui/desktop/machine-private.h"
#include "ui/desktop/machine-work.h"
#include "ui/desktop/text-dialog.h"

#include <glib/gi18n.h>
#include <string.h>
#include <unistd.h>

// What one job needs; the worker touches nothing of the machine object.
struct snapshot_work {
    char *folder, *uuid;
    char *name, *note; // to take; NULL name: nothing is taken
    char *id;          // to restore or delete
    bool restore, delete;
    work_done_fn *done;
    GWeakRef object;
};

static void work_free(gpointer opaque)
{
    struct snapshot_work *work = opaque;
    char *texts[] = {work->folder, work->uuid, work->name, work->note, work->id};
    for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
        g_free(texts[i]);
    g_weak_ref_clear(&work->object);
    g_free(work);
}

static void work_done(void *opaque)
{
    struct snapshot_work *work = opaque;
    g_autoptr(GObject) object = g_weak_ref_get(&work->object);
    if (work->done && object)
        work->done(object);
}

// ---- On a running machine: its monitor's jobs ----
static bool remote(struct snapshot_work *work, const char *command, const char *tag, struct progress *progress,
                   GError **error)
{
    static const struct control_handlers nothing = {0};
    g_autofree char *id = g_strdup_printf("desktop-%d-%u", (int)getpid(), g_random_int());
    g_autoptr(GMainContext) context = g_main_context_new();
    g_main_context_push_thread_default(context);
    struct control_client *client = control_client_for_machine(work->uuid, &nothing, error);
    const char *note = strcmp(command, "snapshot-save") == 0 ? work->note : NULL;
    JsonObject *arguments = client ? control_arguments("s:tag", tag, "s:x-cloche-note", note, NULL) : NULL;
    bool good = client && control_client_run_job(client, id, command, arguments, progress, error);
    g_clear_pointer(&client, control_client_free);
    g_main_context_pop_thread_default(context);
    return good;
}

// ---- On the files of a machine that is off ----
static bool on_files(struct snapshot_work *work, struct progress *progress, GError **error)
{
    int lock = machine_folder_lock(work->folder, error);
    if (lock < 0)
        return false;
    bool good = !work->name || snapshot_take(work->folder, work->name, work->note, error);
    g_autoptr(GPtrArray) list = good && work->id ? snapshot_list(work->folder) : NULL;
    struct snapshot *snapshot = list ? snapshot_find(list, work->id, error) : NULL;
    if (good && work->id)
        good = snapshot != NULL;
    if (good && work->restore)
        good = snapshot_restore(work->folder, snapshot, error);
    if (good && work->delete) {
        g_autoptr(library_t) library = library_open(NULL);
        good = snapshot_delete(work->folder, snapshot, false, library, progress, error);
    }
    close(lock);
    return good;
}

static bool run(void *opaque, struct progress *progress, GError **error)
{
    struct snapshot_work *work = opaque;
    g_autoptr(machine_report_t) report = machine_report(work->folder, work->uuid);
    if (report->life != LIFE_RUNNING)
        return on_files(work, progress, error);
    return (!work->name || remote(work, "snapshot-save", work->name, progress, error)) &&
           (!work->restore || remote(work, "snapshot-load", work->id, progress, error)) &&
           (!work->delete || remote(work, "snapshot-delete", work->id, progress, error));
}

static struct snapshot_work *new_work(ClocheMachine *machine, work_done_fn *done, gpointer object)
{
    struct snapshot_work *work = g_new0(struct snapshot_work, 1);
    work->folder = g_strdup(machine->folder);
    work->uuid = g_strdup(machine->uuid);
    work->done = done;
    g_weak_ref_init(&work->object, object);
    return work;
}

static void start(struct snapshot_work *work, const char *title, const char *failure, GtkWindow *parent)
{
    job_start_work(
        parent,
        &(struct job_work){
            .title = title, .failure = failure, .run = run, .done = work_done, .opaque = work, .destroy = work_free});
}

void work_take_snapshot(ClocheMachine *machine, const char *name, const char *note, GtkWindow *parent,
                        work_done_fn *done, gpointer object)
{
    struct snapshot_work *work = new_work(machine, done, object);
    work->name = g_strdup(name);
    work->note = g_strdup(note);
    start(work, _("Taking the snapshot"), _("The snapshot could not be taken"), parent);
}

// ---- The questions before one is taken or restored ----
struct asked {
    ClocheMachine *machine;
    GtkWindow *parent;
    char *id; // to restore
    work_done_fn *done;
    GWeakRef object;
};

static void asked_free(gpointer data)
{
    struct asked *asked = data;
    g_object_unref(asked->machine);
    g_free(asked->id);
    g_weak_ref_clear(&asked->object);
    g_free(asked);
}

static void named(gpointer data, const char *text, const char *note, gboolean choice)
{
    struct asked *asked = data;
    g_autoptr(GObject) object = g_weak_ref_get(&asked->object);
    work_take_snapshot(asked->machine, text, note, asked->parent, asked->done, object);
}

static struct asked *asked_new(ClocheMachine *machine, GtkWindow *parent, work_done_fn *done, gpointer object)
{
    struct asked *asked = g_new0(struct asked, 1);
    asked->machine = g_object_ref(machine);
    asked->parent = parent;
    asked->done = done;
    g_weak_ref_init(&asked->object, object);
    return asked;
}

void work_ask_snapshot(ClocheMachine *machine, GtkWindow *parent, work_done_fn *done, gpointer object)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *suggestion = g_date_time_format(now, "%F %H-%M");
    struct text_question question = {
        .title = _("Take Snapshot"),
        .label = _("_Name"),
        .text = suggestion,
        .accept = _("_Take"),
        .note_label = _("N_ote"),
        .done = named,
        .data = asked_new(machine, parent, done, object),
        .destroy = asked_free,
    };
    text_dialog_ask(parent, &question);
}

void work_restore_snapshot(ClocheMachine *machine, const char *id, const char *first, GtkWindow *parent,
                           work_done_fn *done, gpointer object)
{
    struct snapshot_work *work = new_work(machine, done, object);
    work->name = g_strdup(first);
    work->id = g_strdup(id);
    work->restore = true;
    start(work, _("Restoring the snapshot"), _("The snapshot could not be restored"), parent);
}

void work_delete_snapshot(ClocheMachine *machine, const char *id, GtkWindow *parent, work_done_fn *done,
                          gpointer object)
{
    struct snapshot_work *work = new_work(machine, done, object);
    work->id = g_strdup(id);
    work->delete = true;
    start(work, _("Deleting the snapshot"), _("The snapshot could not be deleted"), parent);
}

static void restore_named(gpointer data, const char *text, const char *note, gboolean keep)
{
    struct asked *asked = data;
    g_autoptr(GObject) object = g_weak_ref_get(&asked->object);
    work_restore_snapshot(asked->machine, asked->id, keep ? text : NULL, asked->parent, asked->done, object);
}

void work_ask_restore(ClocheMachine *machine, const char *id, const char *name, GtkWindow *parent, work_done_fn *done,
                      gpointer object)
{
    g_autofree char *title = g_strdup_printf(_("Restore “%s”"), name),
                    *suggestion = g_strdup_printf(_("Before %s"), name);
    struct asked *asked = asked_new(machine, parent, done, object);
    asked->id = g_strdup(id);
    struct text_question question = {
        .title = title,
        .label = _("The present state is lost unless it is kept as a snapshot of this _name:"),
        .text = suggestion,
        .accept = _("_Restore"),
        .choice = _("_Keep the present state as a snapshot"),
        .choice_default = TRUE,
        .done = restore_named,
        .data = asked,
        .destroy = asked_free,
    };
    text_dialog_ask(parent, &question);
}
