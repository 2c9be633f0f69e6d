// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/job.h"
#include "ui/desktop/dialogs.h"

#include <glib/gi18n.h>

#define SHOW_AFTER_MS   400 // quick work shows no window
#define NOTIFY_AFTER_US (10 * G_USEC_PER_SEC)

struct job {
    struct job_work work;
    char *title, *failure;
    struct progress progress;
    GWeakRef parent;
    GtkWidget *dialog, *bar, *label;
    guint timer, inhibitor;
    gint64 started;
};

static void job_free(struct job *job)
{
    if (job->work.destroy)
        job->work.destroy(job->work.opaque);
    g_weak_ref_clear(&job->parent);
    g_free(job->title);
    g_free(job->failure);
    g_free(job);
}

static void run_in_thread(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
    struct job *job = data;
    GError *error = NULL;
    if (job->work.run(job->work.opaque, &job->progress, &error))
        g_task_return_boolean(task, TRUE);
    else
        g_task_return_error(task, error);
}

static void cancel(GtkDialog *dialog, int response, struct job *job)
{
    atomic_store(&job->progress.cancelled, true);
    gtk_label_set_text(GTK_LABEL(job->label), _("Cancelling…"));
    gtk_dialog_set_response_sensitive(dialog, GTK_RESPONSE_CANCEL, FALSE);
}

static void make_dialog(struct job *job)
{
    g_autoptr(GtkWindow) parent = g_weak_ref_get(&job->parent);
    job->dialog = gtk_dialog_new_with_buttons(job->title, parent, GTK_DIALOG_DESTROY_WITH_PARENT, _("_Cancel"),
                                              GTK_RESPONSE_CANCEL, NULL);
    GtkWidget *area = gtk_dialog_get_content_area(GTK_DIALOG(job->dialog)), *title = gtk_label_new(job->title);
    g_object_set(area, "margin", 18, "spacing", 12, NULL);
    job->bar = gtk_progress_bar_new();
    job->label = gtk_label_new("");
    gtk_widget_set_size_request(job->bar, 360, -1);
    gtk_label_set_xalign(GTK_LABEL(title), 0);
    gtk_label_set_xalign(GTK_LABEL(job->label), 0);
    gtk_container_add(GTK_CONTAINER(area), title);
    gtk_container_add(GTK_CONTAINER(area), job->bar);
    gtk_container_add(GTK_CONTAINER(area), job->label);
    g_signal_connect(job->dialog, "response", G_CALLBACK(cancel), job);
    g_signal_connect(job->dialog, "delete-event", G_CALLBACK(gtk_true), NULL);
    g_signal_connect(job->dialog, "destroy", G_CALLBACK(gtk_widget_destroyed), &job->dialog);
    gtk_widget_show_all(job->dialog);
}

static gboolean tick(gpointer data)
{
    struct job *job = data;
    gint64 elapsed = g_get_monotonic_time() - job->started;
    guint64 done = atomic_load(&job->progress.done), total = atomic_load(&job->progress.total);
    if (!job->dialog && !job->work.quiet && elapsed > SHOW_AFTER_MS * 1000)
        make_dialog(job);
    if (!job->dialog || atomic_load(&job->progress.cancelled))
        return G_SOURCE_CONTINUE;
    if (!total) {
        gtk_progress_bar_pulse(GTK_PROGRESS_BAR(job->bar));
        return G_SOURCE_CONTINUE;
    }
    double rate = done / (elapsed / 1e6);
    g_autofree char *a = format_size(done), *b = format_size(total), *r = format_size(rate);
    int left = rate > 0 && total > done ? (total - done) / rate : 0;
    g_autofree char *text = g_strdup_printf(_("%s of %s, %s/s, %d:%02d left"), a, b, r, left / 60, left % 60);
    gtk_progress_bar_set_fraction(GTK_PROGRESS_BAR(job->bar), MIN(1.0, (double)done / total));
    gtk_label_set_text(GTK_LABEL(job->label), text);
    return G_SOURCE_CONTINUE;
}

static void notify_done(struct job *job)
{
    GApplication *app = g_application_get_default();
    if (!app || g_get_monotonic_time() - job->started < NOTIFY_AFTER_US)
        return;
    g_autoptr(GNotification) notification = g_notification_new(job->title);
    g_notification_set_body(notification, _("Done."));
    g_application_send_notification(app, NULL, notification);
}

static void finished(GObject *source, GAsyncResult *result, gpointer data)
{
    struct job *job = data;
    g_autoptr(GError) error = NULL;
    g_autoptr(GtkWindow) parent = g_weak_ref_get(&job->parent);
    gboolean good = g_task_propagate_boolean(G_TASK(result), &error);
    g_source_remove(job->timer);
    if (job->inhibitor)
        gtk_application_uninhibit(GTK_APPLICATION(g_application_get_default()), job->inhibitor);
    if (job->dialog)
        gtk_widget_destroy(job->dialog);
    gboolean cancelled = g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_CANCELLED) ||
                         g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
    if (good) {
        notify_done(job);
        if (job->work.done)
            job->work.done(job->work.opaque);
    } else if (!cancelled) {
        dialog_error(parent, job->failure, error, NULL);
    }
    job_free(job);
    g_application_release(g_application_get_default());
}

void job_start_work(GtkWindow *parent, const struct job_work *work)
{
    struct job *job = g_new0(struct job, 1);
    GApplication *app = g_application_get_default();
    job->work = *work;
    job->title = g_strdup(work->title);
    job->failure = g_strdup(work->failure);
    job->started = g_get_monotonic_time();
    g_weak_ref_init(&job->parent, parent);
    job->timer = g_timeout_add(100, tick, job);
    job->inhibitor = // the host does not sleep meanwhile
        gtk_application_inhibit(GTK_APPLICATION(app), parent, GTK_APPLICATION_INHIBIT_SUSPEND, job->title);
    g_application_hold(app); // closing the last window does not break the work off
    g_autoptr(GTask) task = g_task_new(NULL, NULL, finished, job);
    g_task_set_task_data(task, job, NULL);
    g_task_run_in_thread(task, run_in_thread);
}
