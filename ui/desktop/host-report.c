// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/host-report.h"
#include "core/config/host.h"
#include "core/control/life.h"

#include <glib/gi18n.h>
#include <string.h>

// ---- The engines, as the monitor finds them ----
static const struct {
    const char *name, *chosen, *passed_over;
} engine_texts[] = {
    {"kvm", N_("Machines run on the processor's virtualization (KVM), at full speed."),
     N_("Hardware virtualization is not used. %s")},
    {"translate", N_("Machines run translated: guest code is made into code for this processor as it runs."),
     N_("Translation is not used. %s")},
    {"interpret", N_("Machines run interpreted, step by step, which is slow."), N_("Interpretation is not used. %s")},
};

// LISTED: lines of "engine: works" or "engine: why not", the fastest first. The first that works is what "auto" takes.
static char *engine_text(const char *listed)
{
    g_auto(GStrv) lines = g_strsplit(listed, "\n", -1);
    g_autoptr(GString) why = g_string_new(NULL);
    for (char **line = lines; *line; line++) {
        char *colon = strstr(*line, ": ");
        for (guint i = 0; colon && i < G_N_ELEMENTS(engine_texts); i++) {
            if (!g_str_has_prefix(*line, engine_texts[i].name))
                continue;
            if (strcmp(colon + 2, "works") == 0)
                return g_strconcat(gettext(engine_texts[i].chosen), why->len ? "\n" : NULL, why->str, NULL);
            g_string_append(why, why->len ? "\n" : "");
            g_string_append_printf(why, gettext(engine_texts[i].passed_over), colon + 2);
        }
    }
    return g_strdup(*why->str ? why->str : _("No engine works here."));
}

static char *ask_engines(void)
{
    g_autofree char *program = machine_program(), *listed = NULL;
    g_autoptr(GError) error = NULL;
    const char *const command[] = {program ? program : "cloche-vm", "--list-engines", NULL};
    if (!g_spawn_sync(NULL, (char **)command, NULL, G_SPAWN_STDERR_TO_DEV_NULL | G_SPAWN_SEARCH_PATH, NULL, NULL,
                      &listed, NULL, NULL, &error))
        return g_strdup_printf(_("The monitor cannot be run: %s"), error->message);
    return engine_text(listed);
}

static void engine_in_thread(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *engines = ask_engines();
    g_string_append(text, engines);
    g_autoptr(GPtrArray) findings = host_probe(NULL);
    for (guint i = 0; i < findings->len; i++) { // what needs a cure
        const struct host_finding *finding = findings->pdata[i];
        if (finding->verdict != HOST_GOOD)
            g_string_append_printf(text, "\n%s: %s", finding->title, finding->text);
    }
    g_task_return_pointer(task, g_strdup(text->str), g_free);
}

static void engine_known(GObject *source, GAsyncResult *result, gpointer data)
{
    g_autofree char *text = g_task_propagate_pointer(G_TASK(result), NULL);
    gtk_label_set_text(GTK_LABEL(source), text);
}

void host_report_engine(GtkLabel *label)
{
    g_autoptr(GTask) task = g_task_new(label, NULL, engine_known, NULL);
    g_task_run_in_thread(task, engine_in_thread);
}

// ---- Everything ----
static void everything_in_thread(GTask *task, gpointer source, gpointer folder, GCancellable *cancellable)
{
    g_autoptr(GPtrArray) findings = host_probe(folder);
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *engines = ask_engines(), *escaped = g_markup_escape_text(engines, -1);
    g_string_append(text, escaped);
    for (guint i = 0; i < findings->len; i++) {
        const struct host_finding *finding = findings->pdata[i];
        g_autofree char *line = g_markup_printf_escaped("\n<b>%s</b>  %s", finding->title, finding->text);
        g_string_append(text, line);
    }
    g_task_return_pointer(task, g_strdup(text->str), g_free);
}

static void everything_known(GObject *parent, GAsyncResult *result, gpointer data)
{
    g_autofree char *text = g_task_propagate_pointer(G_TASK(result), NULL);
    GtkWidget *dialog = gtk_message_dialog_new(GTK_WINDOW(parent), GTK_DIALOG_MODAL | GTK_DIALOG_DESTROY_WITH_PARENT,
                                               GTK_MESSAGE_INFO, GTK_BUTTONS_CLOSE, "%s", _("What this host offers"));
    gtk_message_dialog_format_secondary_markup(GTK_MESSAGE_DIALOG(dialog), "%s", text);
    g_signal_connect(dialog, "response", G_CALLBACK(gtk_widget_destroy), NULL);
    gtk_window_present(GTK_WINDOW(dialog));
}

void host_report_show(GtkWindow *parent, const char *folder)
{
    g_autoptr(GTask) task = g_task_new(parent, NULL, everything_known, NULL);
    g_task_set_task_data(task, g_strdup(folder), g_free);
    g_task_run_in_thread(task, everything_in_thread);
}
