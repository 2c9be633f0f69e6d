// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.h"

#include "ui/desktop/dialogs.h"
#include "ui/desktop/machine-object.h"

#include <glib/gi18n.h>

enum { RESPONSE_COPY = 1, RESPONSE_LOG };

struct error_report {
    char *text, *log;
};

static void error_report_free(gpointer data, GClosure *closure)
{
    struct error_report *report = data;
    g_free(report->text);
    g_free(report->log);
    g_free(report);
}

static void error_response(GtkDialog *dialog, int response, gpointer data)
{
    struct error_report *report = data;
    if (response == RESPONSE_COPY) {
        gtk_clipboard_set_text(gtk_widget_get_clipboard(GTK_WIDGET(dialog), GDK_SELECTION_CLIPBOARD), report->text, -1);
    } else if (response == RESPONSE_LOG) {
        g_autofree char *uri = g_filename_to_uri(report->log, NULL, NULL);
        gtk_show_uri_on_window(GTK_WINDOW(dialog), uri, GDK_CURRENT_TIME, NULL);
    } else {
        gtk_widget_destroy(GTK_WIDGET(dialog));
    }
}

void dialog_error(GtkWindow *parent, const char *what, const GError *error, const char *log)
{
    GtkWidget *dialog = gtk_message_dialog_new(parent, GTK_DIALOG_DESTROY_WITH_PARENT | GTK_DIALOG_MODAL,
                                               GTK_MESSAGE_ERROR, GTK_BUTTONS_NONE, "%s", what);
    gtk_message_dialog_format_secondary_text(GTK_MESSAGE_DIALOG(dialog), "%s", error->message);
    GtkWidget *expander = gtk_expander_new_with_mnemonic(_("_Details"));
    g_autofree char *details = g_strdup_printf("%s\n%s\n(%s, %d)\nCloche " PACKAGE_VERSION, what, error->message,
                                               g_quark_to_string(error->domain), error->code);
    GtkWidget *label = gtk_label_new(details);
    gtk_label_set_selectable(GTK_LABEL(label), TRUE);
    gtk_label_set_line_wrap(GTK_LABEL(label), TRUE);
    gtk_label_set_xalign(GTK_LABEL(label), 0);
    gtk_container_add(GTK_CONTAINER(expander), label);
    gtk_box_pack_end(GTK_BOX(gtk_message_dialog_get_message_area(GTK_MESSAGE_DIALOG(dialog))), expander, FALSE, FALSE,
                     0);
    gtk_widget_show_all(expander);
    gtk_dialog_add_button(GTK_DIALOG(dialog), _("C_opy"), RESPONSE_COPY);
    if (log)
        gtk_dialog_add_button(GTK_DIALOG(dialog), _("Open _Log"), RESPONSE_LOG);
    gtk_dialog_add_button(GTK_DIALOG(dialog), _("_Close"), GTK_RESPONSE_CLOSE);
    gtk_dialog_set_default_response(GTK_DIALOG(dialog), GTK_RESPONSE_CLOSE);
    struct error_report *report = g_new0(struct error_report, 1);
    report->text = g_strdup(details);
    report->log = g_strdup(log);
    g_signal_connect_data(dialog, "response", G_CALLBACK(error_response), report, error_report_free, 0);
    gtk_window_present(GTK_WINDOW(dialog));
}

struct question {
    void (*done)(gpointer data);
    gpointer data;
    GDestroyNotify destroy;
};

static void question_response(GtkDialog *dialog, int response, gpointer data)
{
    struct question *question = data;
    if (response == GTK_RESPONSE_ACCEPT)
        question->done(question->data);
    gtk_widget_destroy(GTK_WIDGET(dialog));
}

static void question_free(gpointer data, GClosure *closure)
{
    struct question *question = data;
    if (question->destroy)
        question->destroy(question->data);
    g_free(question);
}

void dialog_confirm(GtkWindow *parent, const char *question, const char *more, const char *accept, gboolean destructive,
                    void (*done)(gpointer data), gpointer data, GDestroyNotify destroy)
{
    GtkWidget *dialog = gtk_message_dialog_new(parent, GTK_DIALOG_DESTROY_WITH_PARENT | GTK_DIALOG_MODAL,
                                               GTK_MESSAGE_QUESTION, GTK_BUTTONS_NONE, "%s", question);
    gtk_message_dialog_format_secondary_text(GTK_MESSAGE_DIALOG(dialog), "%s", more);
    gtk_dialog_add_button(GTK_DIALOG(dialog), _("_Cancel"), GTK_RESPONSE_CANCEL);
    GtkWidget *button = gtk_dialog_add_button(GTK_DIALOG(dialog), accept, GTK_RESPONSE_ACCEPT);
    if (destructive)
        gtk_style_context_add_class(gtk_widget_get_style_context(button), "destructive-action");
    gtk_dialog_set_default_response(GTK_DIALOG(dialog), destructive ? GTK_RESPONSE_CANCEL : GTK_RESPONSE_ACCEPT);
    struct question *state = g_new0(struct question, 1);
    *state = (struct question){done, data, destroy};
    g_signal_connect_data(dialog, "response", G_CALLBACK(question_response), state, question_free, 0);
    gtk_window_present(GTK_WINDOW(dialog));
}

char *format_size(guint64 bytes)
{
    return g_format_size_full(bytes, G_FORMAT_SIZE_IEC_UNITS);
}

static void call_done(GObject *machine, GAsyncResult *result, gpointer data)
{
    g_autofree GWeakRef *ref = data;
    g_autoptr(GtkWindow) parent = g_weak_ref_get(ref);
    g_autoptr(GError) error = NULL;
    JsonNode *answer = cloche_machine_call_finish(CLOCHE_MACHINE(machine), result, &error);
    if (answer)
        json_node_unref(answer);
    else if (!g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        dialog_error(parent, _("The machine refused"), error, NULL);
    g_weak_ref_clear(ref);
}

void dialog_call(ClocheMachine *machine, const char *command, JsonObject *arguments, GtkWindow *parent)
{
    GWeakRef *ref = g_new0(GWeakRef, 1);
    g_weak_ref_init(ref, parent);
    cloche_machine_call(machine, command, arguments, call_done, ref);
}

static void destroy_child(GtkWidget *child, gpointer data)
{
    gtk_widget_destroy(child);
}

void container_clear(GtkContainer *container)
{
    gtk_container_foreach(container, destroy_child, NULL);
}
