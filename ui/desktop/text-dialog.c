// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/text-dialog.h"

#include <glib/gi18n.h>

struct asked {
    struct text_question question;
    GtkWidget *dialog, *entry, *note, *choice;
};

static char *note_text(struct asked *asked)
{
    if (!asked->note)
        return NULL;
    GtkTextBuffer *buffer = gtk_text_view_get_buffer(GTK_TEXT_VIEW(asked->note));
    GtkTextIter start, end;
    gtk_text_buffer_get_bounds(buffer, &start, &end);
    return gtk_text_buffer_get_text(buffer, &start, &end, FALSE);
}

static void response(GtkDialog *dialog, int response, struct asked *asked)
{
    g_autofree char *text = g_strdup(gtk_entry_get_text(GTK_ENTRY(asked->entry))), *note = note_text(asked);
    gboolean choice = asked->choice && gtk_toggle_button_get_active(GTK_TOGGLE_BUTTON(asked->choice));
    gtk_widget_destroy(GTK_WIDGET(dialog));
    if (response == GTK_RESPONSE_ACCEPT && *g_strstrip(text))
        asked->question.done(asked->question.data, text, note, choice);
    if (asked->question.destroy)
        asked->question.destroy(asked->question.data);
    g_free(asked);
}

static void text_changed(GtkEntry *entry, struct asked *asked)
{
    gtk_dialog_set_response_sensitive(GTK_DIALOG(asked->dialog), GTK_RESPONSE_ACCEPT,
                                      gtk_entry_get_text_length(entry) > 0);
}

static GtkWidget *labelled(GtkWidget *area, const char *text, GtkWidget *widget)
{
    GtkWidget *label = gtk_label_new_with_mnemonic(text);
    gtk_label_set_xalign(GTK_LABEL(label), 0);
    gtk_label_set_mnemonic_widget(GTK_LABEL(label), widget);
    gtk_container_add(GTK_CONTAINER(area), label);
    return widget;
}

void text_dialog_ask(GtkWindow *parent, const struct text_question *question)
{
    struct asked *asked = g_new0(struct asked, 1);
    asked->question = *question;
    asked->dialog = gtk_dialog_new_with_buttons(
        question->title, parent, GTK_DIALOG_MODAL | GTK_DIALOG_DESTROY_WITH_PARENT | GTK_DIALOG_USE_HEADER_BAR,
        _("_Cancel"), GTK_RESPONSE_CANCEL, question->accept, GTK_RESPONSE_ACCEPT, NULL);
    GtkWidget *area = gtk_dialog_get_content_area(GTK_DIALOG(asked->dialog));
    g_object_set(area, "margin", 18, "spacing", 6, NULL);
    asked->entry = gtk_entry_new();
    gtk_entry_set_activates_default(GTK_ENTRY(asked->entry), TRUE);
    gtk_entry_set_width_chars(GTK_ENTRY(asked->entry), 36);
    gtk_container_add(GTK_CONTAINER(area), labelled(area, question->label, asked->entry));
    if (question->note_label) {
        asked->note = gtk_text_view_new();
        gtk_text_buffer_set_text(gtk_text_view_get_buffer(GTK_TEXT_VIEW(asked->note)),
                                 question->note ? question->note : "", -1);
        gtk_text_view_set_wrap_mode(GTK_TEXT_VIEW(asked->note), GTK_WRAP_WORD_CHAR);
        gtk_text_view_set_accepts_tab(GTK_TEXT_VIEW(asked->note), FALSE);
        GtkWidget *frame = gtk_frame_new(NULL);
        gtk_widget_set_size_request(asked->note, -1, 80);
        labelled(area, question->note_label, asked->note);
        gtk_container_add(GTK_CONTAINER(frame), asked->note);
        gtk_container_add(GTK_CONTAINER(area), frame);
    }
    if (question->choice) {
        asked->choice = gtk_check_button_new_with_mnemonic(question->choice);
        gtk_toggle_button_set_active(GTK_TOGGLE_BUTTON(asked->choice), question->choice_default);
        gtk_container_add(GTK_CONTAINER(area), asked->choice);
    }
    g_signal_connect(asked->entry, "changed", G_CALLBACK(text_changed), asked);
    gtk_entry_set_text(GTK_ENTRY(asked->entry), question->text ? question->text : "");
    text_changed(GTK_ENTRY(asked->entry), asked);
    gtk_dialog_set_default_response(GTK_DIALOG(asked->dialog), GTK_RESPONSE_ACCEPT);
    g_signal_connect(asked->dialog, "response", G_CALLBACK(response), asked);
    gtk_widget_show_all(asked->dialog);
}
