// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/option-row.h"

#include <glib/gi18n.h>

struct option_row {
    const struct option *option;
    GtkWidget *widget; // what is put into the window
    GtkWidget *control;
};

struct control_kind {
    GtkWidget *(*make)(struct option_row *row, const char *text); // sets row->control, returns the widget
    char *(*text)(struct option_row *row);
};

static GtkWidget *make_switch(struct option_row *row, const char *text)
{
    bool on = false;
    option_parse_bool(text, &on);
    row->control = gtk_switch_new();
    gtk_switch_set_active(GTK_SWITCH(row->control), on);
    gtk_widget_set_halign(row->control, GTK_ALIGN_START);
    return row->control;
}

static char *switch_text(struct option_row *row)
{
    return g_strdup(gtk_switch_get_active(GTK_SWITCH(row->control)) ? "true" : "false");
}

static GtkWidget *make_spin(struct option_row *row, const char *text)
{
    row->control = gtk_spin_button_new_with_range(row->option->min, row->option->max, 1);
    gtk_spin_button_set_value(GTK_SPIN_BUTTON(row->control), g_ascii_strtoull(text, NULL, 10));
    gtk_widget_set_halign(row->control, GTK_ALIGN_START);
    return row->control;
}

static char *spin_text(struct option_row *row)
{
    return g_strdup_printf("%d", gtk_spin_button_get_value_as_int(GTK_SPIN_BUTTON(row->control)));
}

static GtkWidget *make_choice(struct option_row *row, const char *text)
{
    row->control = gtk_combo_box_text_new();
    for (const char *const *choice = row->option->choices; *choice; choice++)
        gtk_combo_box_text_append(GTK_COMBO_BOX_TEXT(row->control), *choice, *choice);
    gtk_combo_box_set_active_id(GTK_COMBO_BOX(row->control), text);
    gtk_widget_set_halign(row->control, GTK_ALIGN_START);
    return row->control;
}

static char *choice_text(struct option_row *row)
{
    const char *id = gtk_combo_box_get_active_id(GTK_COMBO_BOX(row->control));
    return g_strdup(id ? id : "");
}

static GtkWidget *make_entry(struct option_row *row, const char *text)
{
    row->control = gtk_entry_new();
    gtk_entry_set_text(GTK_ENTRY(row->control), text);
    gtk_widget_set_hexpand(row->control, TRUE);
    return row->control;
}

static char *entry_text(struct option_row *row)
{
    return g_strdup(gtk_entry_get_text(GTK_ENTRY(row->control)));
}

static void file_chosen(GtkNativeDialog *chooser, int response, struct option_row *row)
{
    g_autofree char *file = gtk_file_chooser_get_filename(GTK_FILE_CHOOSER(chooser));
    if (response == GTK_RESPONSE_ACCEPT && file)
        gtk_entry_set_text(GTK_ENTRY(row->control), file);
    g_object_unref(chooser);
}

static void choose_file(GtkButton *button, struct option_row *row)
{
    GtkWindow *window = GTK_WINDOW(gtk_widget_get_toplevel(row->widget));
    GtkFileChooserNative *chooser = gtk_file_chooser_native_new(
        row->option->title, window, GTK_FILE_CHOOSER_ACTION_OPEN, _("_Select"), _("_Cancel"));
    g_signal_connect(chooser, "response", G_CALLBACK(file_chosen), row);
    gtk_native_dialog_set_modal(GTK_NATIVE_DIALOG(chooser), TRUE);
    gtk_native_dialog_show(GTK_NATIVE_DIALOG(chooser));
}

static GtkWidget *make_file(struct option_row *row, const char *text)
{
    GtkWidget *box = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 0);
    GtkWidget *button = gtk_button_new_from_icon_name("document-open-symbolic", GTK_ICON_SIZE_BUTTON);
    gtk_style_context_add_class(gtk_widget_get_style_context(box), "linked");
    gtk_box_pack_start(GTK_BOX(box), make_entry(row, text), TRUE, TRUE, 0);
    gtk_box_pack_start(GTK_BOX(box), button, FALSE, FALSE, 0);
    gtk_widget_set_tooltip_text(button, _("Choose a file"));
    atk_object_set_name(gtk_widget_get_accessible(button), _("Choose a file"));
    g_signal_connect(button, "clicked", G_CALLBACK(choose_file), row);
    return box;
}

static const struct control_kind kinds[] = {
    [OPTION_BOOL] = {make_switch, switch_text},   [OPTION_NUMBER] = {make_spin, spin_text},
    [OPTION_SIZE] = {make_entry, entry_text},     [OPTION_TEXT] = {make_entry, entry_text},
    [OPTION_CHOICE] = {make_choice, choice_text}, [OPTION_FILE] = {make_file, entry_text},
    [OPTION_LIST] = {make_entry, entry_text},
};

static void row_free(gpointer row, GObject *widget)
{
    g_free(row);
}

static void forget_error(GtkEntry *entry)
{
    gtk_entry_set_icon_from_icon_name(entry, GTK_ENTRY_ICON_SECONDARY, NULL);
    gtk_style_context_remove_class(gtk_widget_get_style_context(GTK_WIDGET(entry)), "error");
}

struct option_row *option_row_new(const struct option *option, const char *text)
{
    struct option_row *row = g_new0(struct option_row, 1);
    row->option = option;
    row->widget = kinds[option->type].make(row, text);
    g_autofree char *allowed = option_allowed(option);
    g_autofree char *tip =
        allowed && *allowed ? g_strdup_printf(_("%s\nAllowed: %s"), option->help, allowed) : g_strdup(option->help);
    gtk_widget_set_tooltip_text(row->widget, tip);
    atk_object_set_name(gtk_widget_get_accessible(row->control), option->title);
    if (GTK_IS_ENTRY(row->control) && !GTK_IS_SPIN_BUTTON(row->control))
        g_signal_connect(row->control, "changed", G_CALLBACK(forget_error), NULL);
    g_object_weak_ref(G_OBJECT(row->widget), row_free, row);
    return row;
}

GtkWidget *option_row_widget(struct option_row *row)
{
    return row->widget;
}

char *option_row_text(struct option_row *row)
{
    return kinds[row->option->type].text(row);
}

gboolean option_row_check(struct option_row *row, GError **error)
{
    g_autofree char *text = option_row_text(row);
    g_autoptr(GError) wrong = NULL;
    if (option_check(row->option, text, NULL, &wrong))
        return TRUE;
    if (GTK_IS_ENTRY(row->control)) {
        gtk_style_context_add_class(gtk_widget_get_style_context(row->control), "error");
        gtk_entry_set_icon_from_icon_name(GTK_ENTRY(row->control), GTK_ENTRY_ICON_SECONDARY, "dialog-error-symbolic");
        gtk_entry_set_icon_tooltip_text(GTK_ENTRY(row->control), GTK_ENTRY_ICON_SECONDARY, wrong->message);
    }
    gtk_widget_grab_focus(row->control);
    g_propagate_prefixed_error(error, g_steal_pointer(&wrong), "%s: ", row->option->title);
    return FALSE;
}
