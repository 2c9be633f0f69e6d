// SPDX-License-Identifier: GPL-2.0-or-later
// Clones, export and import on a worker thread, each with a library of its own.
#include "core/config/clone.h"
#include "ui/desktop/job.h"
#include "ui/desktop/machine-work.h"

#include <glib/gi18n.h>

struct clone_work {
    ClocheApp *app;
    char *folder, *name, *snapshot, *file;
    bool linked;
};

static void work_free(gpointer opaque)
{
    struct clone_work *work = opaque;
    char *texts[] = {work->folder, work->name, work->snapshot, work->file};
    for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
        g_free(texts[i]);
    g_free(work);
}

static void rescan(void *opaque)
{
    cloche_app_rescan(((struct clone_work *)opaque)->app);
}

// Runs FN with the machine's entry in a fresh library of this thread.
static bool with_entry(struct clone_work *work, struct progress *progress, GError **error,
                       bool (*fn)(struct clone_work *work, struct library *library, struct machine_entry *entry,
                                  struct progress *progress, GError **error))
{
    g_autoptr(GMainContext) context = g_main_context_new();
    g_main_context_push_thread_default(context);
    struct library *library = library_open(error);
    struct machine_entry *entry = library && work->folder ? library_find(library, work->folder, error) : NULL;
    bool good = library && (entry || !work->folder) && fn(work, library, entry, progress, error);
    if (library)
        library_close(library);
    g_main_context_pop_thread_default(context);
    return good;
}

static bool clone_machine(struct clone_work *work, struct library *library, struct machine_entry *entry,
                          struct progress *progress, GError **error)
{
    struct clone_options options = {.name = work->name, .linked = work->linked, .snapshot = work->snapshot};
    return machine_clone(library, entry, &options, progress, error);
}

static bool export_machine(struct clone_work *work, struct library *library, struct machine_entry *entry,
                           struct progress *progress, GError **error)
{
    struct export_options options = {.chain = false};
    return machine_export(entry, work->file, &options, progress, error);
}

static bool import_machine(struct clone_work *work, struct library *library, struct machine_entry *entry,
                           struct progress *progress, GError **error)
{
    return machine_import(library, work->file, NULL, progress, error);
}

static bool run_clone(void *opaque, struct progress *progress, GError **error)
{
    return with_entry(opaque, progress, error, clone_machine);
}

static bool run_export(void *opaque, struct progress *progress, GError **error)
{
    return with_entry(opaque, progress, error, export_machine);
}

static bool run_import(void *opaque, struct progress *progress, GError **error)
{
    return with_entry(opaque, progress, error, import_machine);
}

void work_clone(ClocheApp *app, ClocheMachine *machine, const char *name, gboolean linked, const char *snapshot,
                GtkWindow *parent)
{
    struct clone_work *work = g_new0(struct clone_work, 1);
    *work = (struct clone_work){.app = app,
                                .folder = g_strdup(cloche_machine_get_folder(machine)),
                                .name = g_strdup(name),
                                .snapshot = g_strdup(snapshot),
                                .linked = linked};
    g_autofree char *title = g_strdup_printf(_("Cloning “%s”"), cloche_machine_get_name(machine));
    job_start_work(parent, &(struct job_work){.title = title,
                                              .failure = _("The machine could not be cloned"),
                                              .run = run_clone,
                                              .done = rescan,
                                              .opaque = work,
                                              .destroy = work_free});
}

// ---- Files are asked for first ----
static void export_chosen(GtkNativeDialog *chooser, int response, struct clone_work *work)
{
    work->file = gtk_file_chooser_get_filename(GTK_FILE_CHOOSER(chooser));
    if (response == GTK_RESPONSE_ACCEPT && work->file)
        job_start_work(gtk_native_dialog_get_transient_for(chooser),
                       &(struct job_work){.title = _("Exporting the machine"),
                                          .failure = _("The machine could not be exported"),
                                          .run = run_export,
                                          .opaque = work,
                                          .destroy = work_free});
    else
        work_free(work);
    g_object_unref(chooser);
}

void work_export(ClocheApp *app, ClocheMachine *machine, GtkWindow *parent)
{
    GtkFileChooserNative *chooser = gtk_file_chooser_native_new(
        _("Export Machine"), parent, GTK_FILE_CHOOSER_ACTION_SAVE, _("_Export"), _("_Cancel"));
    g_autofree char *name = g_strdup_printf("%s.cloche", cloche_machine_get_name(machine));
    struct clone_work *work = g_new0(struct clone_work, 1);
    *work = (struct clone_work){.app = app, .folder = g_strdup(cloche_machine_get_folder(machine))};
    gtk_file_chooser_set_current_name(GTK_FILE_CHOOSER(chooser), name);
    gtk_file_chooser_set_do_overwrite_confirmation(GTK_FILE_CHOOSER(chooser), TRUE);
    g_signal_connect(chooser, "response", G_CALLBACK(export_chosen), work);
    gtk_native_dialog_show(GTK_NATIVE_DIALOG(chooser));
}

void work_import_file(ClocheApp *app, const char *file, GtkWindow *parent)
{
    struct clone_work *work = g_new0(struct clone_work, 1);
    work->app = app;
    work->file = g_strdup(file);
    job_start_work(parent, &(struct job_work){.title = _("Importing the machine"),
                                              .failure = _("The machine could not be imported"),
                                              .run = run_import,
                                              .done = rescan,
                                              .opaque = work,
                                              .destroy = work_free});
}

static void import_chosen(GtkNativeDialog *chooser, int response, ClocheApp *app)
{
    g_autofree char *file = gtk_file_chooser_get_filename(GTK_FILE_CHOOSER(chooser));
    if (response == GTK_RESPONSE_ACCEPT && file)
        work_import_file(app, file, gtk_native_dialog_get_transient_for(chooser));
    g_object_unref(chooser);
}

void work_import(ClocheApp *app, GtkWindow *parent)
{
    GtkFileChooserNative *chooser = gtk_file_chooser_native_new(
        _("Import Machine"), parent, GTK_FILE_CHOOSER_ACTION_OPEN, _("_Import"), _("_Cancel"));
    GtkFileFilter *filter = gtk_file_filter_new();
    gtk_file_filter_set_name(filter, _("Exported machines (*.cloche)"));
    gtk_file_filter_add_pattern(filter, "*.cloche");
    gtk_file_chooser_add_filter(GTK_FILE_CHOOSER(chooser), filter);
    g_signal_connect(chooser, "response", G_CALLBACK(import_chosen), app);
    gtk_native_dialog_show(GTK_NATIVE_DIALOG(chooser));
}
