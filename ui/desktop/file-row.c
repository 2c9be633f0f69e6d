// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/file-row.h"

#include <glib/gi18n.h>

struct _ClocheFileRow {
    GtkBox parent_instance;
    GtkWidget *entry, *button;
    char *title;
};
G_DEFINE_TYPE(ClocheFileRow, cloche_file_row, GTK_TYPE_BOX)

enum { PROPERTY_TITLE = 1 };
static guint changed_signal;

static void file_chosen(GtkNativeDialog *chooser, int response, ClocheFileRow *self)
{
    g_autofree char *file = gtk_file_chooser_get_filename(GTK_FILE_CHOOSER(chooser));
    if (response == GTK_RESPONSE_ACCEPT && file)
        cloche_file_row_set_path(self, file);
    g_object_unref(chooser);
}

static void choose_file(GtkButton *button, ClocheFileRow *self)
{
    GtkWindow *window = GTK_WINDOW(gtk_widget_get_toplevel(GTK_WIDGET(self)));
    GtkFileChooserNative *chooser =
        gtk_file_chooser_native_new(self->title, window, GTK_FILE_CHOOSER_ACTION_OPEN, _("_Select"), _("_Cancel"));
    const char *path = cloche_file_row_get_path(self);
    if (g_path_is_absolute(path))
        gtk_file_chooser_set_filename(GTK_FILE_CHOOSER(chooser), path);
    g_signal_connect_object(chooser, "response", G_CALLBACK(file_chosen), self, 0);
    gtk_native_dialog_set_modal(GTK_NATIVE_DIALOG(chooser), TRUE);
    gtk_native_dialog_show(GTK_NATIVE_DIALOG(chooser));
}

static void entry_changed(ClocheFileRow *self)
{
    g_signal_emit(self, changed_signal, 0);
}

static void set_title(ClocheFileRow *self, const char *title)
{
    g_free(self->title);
    self->title = g_strdup(title);
    g_autofree char *name = g_strdup_printf(_("Choose a File: %s"), title);
    atk_object_set_name(gtk_widget_get_accessible(self->entry), title);
    atk_object_set_name(gtk_widget_get_accessible(self->button), name);
}

static void set_property(GObject *object, guint id, const GValue *value, GParamSpec *spec)
{
    if (id == PROPERTY_TITLE)
        set_title(CLOCHE_FILE_ROW(object), g_value_get_string(value));
    else
        G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
}

static gboolean mnemonic_activate(GtkWidget *widget, gboolean cycling)
{
    gtk_widget_grab_focus(CLOCHE_FILE_ROW(widget)->entry);
    return TRUE;
}

static void finalize(GObject *object)
{
    g_free(CLOCHE_FILE_ROW(object)->title);
    G_OBJECT_CLASS(cloche_file_row_parent_class)->finalize(object);
}

static void cloche_file_row_class_init(ClocheFileRowClass *class)
{
    GObjectClass *object = G_OBJECT_CLASS(class);
    object->set_property = set_property;
    object->finalize = finalize;
    GTK_WIDGET_CLASS(class)->mnemonic_activate = mnemonic_activate;
    g_object_class_install_property(
        object, PROPERTY_TITLE,
        g_param_spec_string("title", NULL, NULL, NULL, G_PARAM_WRITABLE | G_PARAM_STATIC_STRINGS));
    changed_signal =
        g_signal_new("changed", CLOCHE_TYPE_FILE_ROW, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 0);
}

static void cloche_file_row_init(ClocheFileRow *self)
{
    self->entry = gtk_entry_new();
    self->button = gtk_button_new_from_icon_name("document-open-symbolic", GTK_ICON_SIZE_BUTTON);
    gtk_style_context_add_class(gtk_widget_get_style_context(GTK_WIDGET(self)), "linked");
    gtk_widget_set_hexpand(self->entry, TRUE);
    gtk_widget_set_tooltip_text(self->button, _("Choose a file"));
    gtk_box_pack_start(GTK_BOX(self), self->entry, TRUE, TRUE, 0);
    gtk_box_pack_start(GTK_BOX(self), self->button, FALSE, FALSE, 0);
    gtk_widget_show(self->entry);
    gtk_widget_show_all(self->button);
    g_signal_connect_swapped(self->entry, "changed", G_CALLBACK(entry_changed), self);
    g_signal_connect(self->button, "clicked", G_CALLBACK(choose_file), self);
}

GtkWidget *cloche_file_row_new(const char *title)
{
    return g_object_new(CLOCHE_TYPE_FILE_ROW, "title", title, NULL);
}

void cloche_file_row_set_path(ClocheFileRow *self, const char *path)
{
    gtk_entry_set_text(GTK_ENTRY(self->entry), path);
    gtk_editable_set_position(GTK_EDITABLE(self->entry), -1); // the end of a long path tells most
}

const char *cloche_file_row_get_path(ClocheFileRow *self)
{
    return gtk_entry_get_text(GTK_ENTRY(self->entry));
}

GtkWidget *cloche_file_row_get_entry(ClocheFileRow *self)
{
    return self->entry;
}
