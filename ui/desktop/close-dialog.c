// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/close-dialog.h"

#include <glib/gi18n.h>

const char *const close_choice_names[] = {"ask", "keep-running", "save", "shut-down", "power-off", NULL};

static const char *const labels[] = {
    NULL,
    N_("_Keep running in the background"),
    N_("_Save the state and stop"),
    N_("Shut _down the guest system"),
    N_("_Power off (unsaved work in the guest is lost)"),
};

struct question {
    void (*answered)(gpointer data, CloseChoice choice);
    gpointer data;
    GKeyFile *preferences;
    GtkWidget *choices[G_N_ELEMENTS(labels)], *remember;
};

static void response(GtkDialog *dialog, int response, struct question *question)
{
    CloseChoice choice = CLOSE_CANCEL;
    for (guint i = 1; response == GTK_RESPONSE_ACCEPT && i < G_N_ELEMENTS(labels); i++)
        if (gtk_toggle_button_get_active(GTK_TOGGLE_BUTTON(question->choices[i])))
            choice = i;
    if (choice && gtk_toggle_button_get_active(GTK_TOGGLE_BUTTON(question->remember)))
        g_key_file_set_string(question->preferences, "Console", "on-close", close_choice_names[choice]);
    gtk_widget_destroy(GTK_WIDGET(dialog));
    question->answered(question->data, choice);
    g_free(question);
}

void close_dialog_ask(GtkWindow *parent, GKeyFile *preferences, void (*answered)(gpointer data, CloseChoice choice),
                      gpointer data)
{
    g_autofree char *remembered = g_key_file_get_string(preferences, "Console", "on-close", NULL);
    for (guint i = 1; remembered && close_choice_names[i]; i++)
        if (g_str_equal(remembered, close_choice_names[i])) {
            answered(data, i);
            return;
        }
    GtkWidget *dialog = gtk_dialog_new_with_buttons(
        _("Close the Window"), parent, GTK_DIALOG_MODAL | GTK_DIALOG_DESTROY_WITH_PARENT | GTK_DIALOG_USE_HEADER_BAR,
        _("_Cancel"), GTK_RESPONSE_CANCEL, _("C_lose"), GTK_RESPONSE_ACCEPT, NULL);
    GtkWidget *area = gtk_dialog_get_content_area(GTK_DIALOG(dialog));
    struct question *question = g_new0(struct question, 1);
    *question = (struct question){.answered = answered, .data = data, .preferences = preferences};
    g_object_set(area, "margin", 18, "spacing", 6, NULL);
    GtkWidget *label = gtk_label_new(_("What shall happen to the machine?"));
    gtk_label_set_xalign(GTK_LABEL(label), 0);
    gtk_container_add(GTK_CONTAINER(area), label);
    for (guint i = 1; i < G_N_ELEMENTS(labels); i++) {
        GtkRadioButton *first = i > 1 ? GTK_RADIO_BUTTON(question->choices[1]) : NULL;
        question->choices[i] = gtk_radio_button_new_with_mnemonic_from_widget(first, gettext(labels[i]));
        gtk_container_add(GTK_CONTAINER(area), question->choices[i]);
    }
    question->remember = gtk_check_button_new_with_mnemonic(_("Do this _always (Preferences can change it)"));
    gtk_widget_set_margin_top(question->remember, 12);
    gtk_container_add(GTK_CONTAINER(area), question->remember);
    gtk_dialog_set_default_response(GTK_DIALOG(dialog), GTK_RESPONSE_ACCEPT);
    g_signal_connect(dialog, "response", G_CALLBACK(response), question);
    gtk_widget_show_all(dialog);
}
