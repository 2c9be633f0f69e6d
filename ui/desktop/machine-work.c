// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.h"

#include "ui/desktop/machine-work.h"
#include "core/control/life.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/job.h"

#include <archive.h>
#include <archive_entry.h>
#include <glib/gi18n.h>
#include <string.h>

// ---- Renaming ----
void work_rename(ClocheApp *app, ClocheMachine *machine, const char *name, GtkWindow *parent)
{
    g_autoptr(GError) error = NULL;
    struct library *library = cloche_app_get_library(app);
    struct machine_entry *entry = library_find(library, cloche_machine_get_folder(machine), &error);
    if (!entry || !library_rename(library, entry, name, &error))
        dialog_error(parent, _("The machine could not be renamed"), error, NULL);
    cloche_app_rescan(app);
}

// ---- A report: configuration, log, last state and versions in one archive ----
struct report {
    char *folder, *target, *facts;
};

static void report_free(gpointer data)
{
    struct report *report = data;
    g_free(report->folder);
    g_free(report->target);
    g_free(report->facts);
    g_free(report);
}

static void add_text(struct archive *archive, const char *name, const char *text, size_t length)
{
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_size(entry, length);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0600);
    if (archive_write_header(archive, entry) == ARCHIVE_OK)
        archive_write_data(archive, text, length);
    archive_entry_free(entry);
}

static void add_file(struct archive *archive, const char *folder, const char *name)
{
    g_autofree char *path = g_build_filename(folder, name, NULL), *text = NULL;
    gsize length;
    if (g_file_get_contents(path, &text, &length, NULL))
        add_text(archive, name, text, length);
}

static bool write_report(void *opaque, struct progress *progress, GError **error)
{
    struct report *report = opaque;
    struct archive *archive = archive_write_new();
    archive_write_add_filter_gzip(archive);
    archive_write_set_format_pax_restricted(archive);
    bool good = archive_write_open_filename(archive, report->target) == ARCHIVE_OK;
    if (good) {
        add_text(archive, "report.txt", report->facts, strlen(report->facts));
        add_file(archive, report->folder, CONFIG_FILE);
        add_file(archive, report->folder, LAST_RUN_FILE);
        add_file(archive, report->folder, "log/vm.log");
        good = archive_write_close(archive) == ARCHIVE_OK;
    }
    if (!good)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, _("%s could not be written: %s"), report->target,
                    archive_error_string(archive));
    archive_write_free(archive);
    return good;
}

static void report_chosen(GtkNativeDialog *chooser, int response, struct report *report)
{
    report->target = gtk_file_chooser_get_filename(GTK_FILE_CHOOSER(chooser));
    GtkWindow *parent = gtk_native_dialog_get_transient_for(chooser);
    if (response == GTK_RESPONSE_ACCEPT && report->target)
        job_start_work(parent, &(struct job_work){.title = _("Writing the report"),
                                                  .failure = _("The report could not be written"),
                                                  .run = write_report,
                                                  .opaque = report,
                                                  .destroy = report_free});
    else
        report_free(report);
    g_object_unref(chooser);
}

void work_report(ClocheMachine *machine, GtkWindow *parent)
{
    GtkFileChooserNative *chooser =
        gtk_file_chooser_native_new(_("Save Report"), parent, GTK_FILE_CHOOSER_ACTION_SAVE, _("_Save"), _("_Cancel"));
    g_autofree char *name = g_strdup_printf("%s-report.tar.gz", cloche_machine_get_name(machine));
    g_strdelimit(name, "/", '-');
    struct report *report = g_new0(struct report, 1);
    report->folder = g_strdup(cloche_machine_get_folder(machine));
    report->facts = g_strdup_printf("Cloche %s\nGTK %u.%u.%u\nMachine: %s\nState: %s\n", PACKAGE_VERSION,
                                    gtk_get_major_version(), gtk_get_minor_version(), gtk_get_micro_version(),
                                    cloche_machine_get_name(machine), cloche_machine_get_state_text(machine));
    gtk_file_chooser_set_current_name(GTK_FILE_CHOOSER(chooser), name);
    gtk_file_chooser_set_do_overwrite_confirmation(GTK_FILE_CHOOSER(chooser), TRUE);
    g_signal_connect(chooser, "response", G_CALLBACK(report_chosen), report);
    gtk_native_dialog_show(GTK_NATIVE_DIALOG(chooser));
}
