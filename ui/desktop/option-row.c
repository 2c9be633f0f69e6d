// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/option-row.h"
#include "ui/desktop/file-row.h"
#include "ui/desktop/forwards.h"
#include "ui/desktop/prefix-row.h"
#include "ui/desktop/system-row.h"

#include <glib/gi18n.h>
#include <string.h>

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

// What the words of machine.conf mean, for people; words without a row speak for themselves.
static const struct {
    const char *key, *word, *label;
} words[] = {
    {"engine", "auto", N_("Automatic: the fastest that works here")},
    {"engine", "translate", N_("Translated")},
    {"engine", "interpret", N_("Interpreted (slow)")},
    {"engine", "kvm", N_("Hardware (KVM)")},
    {"model", "host", N_("As this host's")},
    {"model", "max", N_("All that the engine can do")},
    {"kind", "disk", N_("Hard disk")},
    {"kind", "cdrom", N_("CD-ROM drive")},
    {"kind", "floppy", N_("Floppy drive")},
    {"format", "auto", N_("Found by content")},
    {"interface", "auto", N_("Automatic")},
    {"interface", "ide", N_("IDE")},
    {"interface", "virtio", N_("virtio (fast, modern systems)")},
    {"interface", "floppy", N_("Floppy controller")},
    {"on-error", "pause", N_("Pause until there is space")},
    {"on-error", "report", N_("Report the error to the guest")},
    {"adapter", "vga", N_("VGA (every system)")},
    {"adapter", "virtio-gpu", N_("virtio-gpu (fast, modern systems)")},
    {"adapter", "none", N_("None")},
    {"card", "virtio-net", N_("virtio-net (fast, modern systems)")},
    {"card", "e1000", N_("Intel e1000 (most systems)")},
    {"card", "rtl8139", N_("Realtek 8139")},
    {"card", "pcnet", N_("AMD PCnet")},
    {"card", "ne2k", N_("NE2000 (old systems)")},
};

static const char *label_of(const struct option *option, const char *word)
{
    for (guint i = 0; i < G_N_ELEMENTS(words); i++)
        if (strcmp(words[i].key, option->key) == 0 && strcmp(words[i].word, word) == 0)
            return gettext(words[i].label);
    return word;
}

static GtkWidget *make_choice(struct option_row *row, const char *text)
{
    row->control = gtk_combo_box_text_new();
    for (const char *const *choice = row->option->choices; *choice; choice++)
        gtk_combo_box_text_append(GTK_COMBO_BOX_TEXT(row->control), *choice, label_of(row->option, *choice));
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

static GtkWidget *make_file(struct option_row *row, const char *text)
{
    GtkWidget *file = cloche_file_row_new(gettext(row->option->title));
    cloche_file_row_set_path(CLOCHE_FILE_ROW(file), text);
    row->control = cloche_file_row_get_entry(CLOCHE_FILE_ROW(file));
    return file;
}

static GtkWidget *make_notes(struct option_row *row, const char *text)
{
    GtkWidget *frame = gtk_frame_new(NULL);
    row->control = gtk_text_view_new();
    gtk_text_buffer_set_text(gtk_text_view_get_buffer(GTK_TEXT_VIEW(row->control)), text, -1);
    gtk_text_view_set_wrap_mode(GTK_TEXT_VIEW(row->control), GTK_WRAP_WORD_CHAR);
    gtk_text_view_set_accepts_tab(GTK_TEXT_VIEW(row->control), FALSE);
    gtk_widget_set_size_request(row->control, -1, 80);
    gtk_container_add(GTK_CONTAINER(frame), row->control);
    return frame;
}

static char *notes_text(struct option_row *row)
{
    GtkTextBuffer *buffer = gtk_text_view_get_buffer(GTK_TEXT_VIEW(row->control));
    GtkTextIter start, end;
    gtk_text_buffer_get_bounds(buffer, &start, &end);
    return gtk_text_buffer_get_text(buffer, &start, &end, FALSE);
}

static GtkWidget *make_system(struct option_row *row, const char *text)
{
    return row->control = system_row_new(text);
}

static char *system_text(struct option_row *row)
{
    return system_row_text(row->control);
}

static GtkWidget *make_forwards(struct option_row *row, const char *text)
{
    return row->control = forwards_editor_new(text);
}

static char *forwards_text(struct option_row *row)
{
    return forwards_editor_text(row->control);
}

static GtkWidget *make_serial(struct option_row *row, const char *text)
{
    return row->control = prefix_row_new(prefix_serial, text, row->option->title);
}

static GtkWidget *make_network(struct option_row *row, const char *text)
{
    return row->control = prefix_row_new(prefix_network, text, row->option->title);
}

static char *prefix_text(struct option_row *row)
{
    return prefix_row_text(row->control);
}

static const struct control_kind kinds[] = {
    [OPTION_BOOL] = {make_switch, switch_text},   [OPTION_NUMBER] = {make_spin, spin_text},
    [OPTION_SIZE] = {make_entry, entry_text},     [OPTION_TEXT] = {make_entry, entry_text},
    [OPTION_CHOICE] = {make_choice, choice_text}, [OPTION_FILE] = {make_file, entry_text},
    [OPTION_LIST] = {make_entry, entry_text},
};

// Options with a control of their own.
static const struct {
    const char *group, *key;
    struct control_kind kind;
} special[] = {
    {"Machine", "notes", {make_notes, notes_text}},
    {"Machine", "os", {make_system, system_text}},
    {"Network *", "forwards", {make_forwards, forwards_text}},
    {"Network *", "backend", {make_network, prefix_text}},
    {"Serial *", "target", {make_serial, prefix_text}},
};

static const struct control_kind *kind_of(const struct option *option)
{
    for (guint i = 0; i < G_N_ELEMENTS(special); i++)
        if (strcmp(special[i].group, option->group) == 0 && strcmp(special[i].key, option->key) == 0)
            return &special[i].kind;
    return &kinds[option->type];
}

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
    row->widget = kind_of(option)->make(row, text);
    g_autofree char *allowed = option_allowed(option);
    g_autofree char *tip = allowed && *allowed ? g_strdup_printf(_("%s\nAllowed: %s"), gettext(option->help), allowed)
                                               : g_strdup(gettext(option->help));
    gtk_widget_set_tooltip_text(row->widget, tip);
    atk_object_set_name(gtk_widget_get_accessible(row->control), gettext(option->title));
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
    return kind_of(row->option)->text(row);
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
