// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/prefix-row.h"

#include <glib/gi18n.h>
#include <string.h>

const struct prefix_kind prefix_serial[] = {
    {"socket:", N_("Serial tab of the console"), NULL},
    {"null", N_("Nothing"), NULL},
    {"file:", N_("File"), N_("Path of the file")},
    {"socket:", N_("UNIX socket"), N_("Path of the socket")},
    {"pty", N_("Pseudo-terminal"), NULL},
    {"tcp:", N_("TCP port"), N_("127.0.0.1:4555")},
    {"", N_("Other, as cloche-vm(1) has it"), N_("For example pipe:/tmp/port")},
    {0},
};

const struct prefix_kind prefix_network[] = {
    {"user", N_("This host's network (NAT)"), NULL},
    {"none", N_("Nothing"), NULL},
    {"team:", N_("Private network between machines"), N_("Name of the network")},
    {"tap:", N_("TAP interface of this host"), N_("Name of the interface")},
    {0},
};

struct prefix_row {
    const struct prefix_kind *kinds;
    GtkWidget *combo, *entry;
};

static struct prefix_row *row_of(GtkWidget *box)
{
    return g_object_get_data(G_OBJECT(box), "prefix-row");
}

static const struct prefix_kind *chosen(struct prefix_row *row)
{
    return &row->kinds[MAX(0, gtk_combo_box_get_active(GTK_COMBO_BOX(row->combo)))];
}

static void show_entry(struct prefix_row *row)
{
    const char *argument = chosen(row)->argument;
    gtk_widget_set_visible(row->entry, argument != NULL);
    if (!argument)
        return;
    gtk_entry_set_placeholder_text(GTK_ENTRY(row->entry), gettext(argument));
    atk_object_set_name(gtk_widget_get_accessible(row->entry), gettext(argument));
}

// Whole texts first, then the longest prefix: "" takes what is left.
static int kind_of(const struct prefix_kind *kinds, const char *text)
{
    int best = 0;
    size_t length = 0;
    for (int i = 0; kinds[i].label; i++)
        if (!kinds[i].argument && strcmp(kinds[i].prefix, text) == 0)
            return i;
    for (int i = 0; kinds[i].label; i++)
        if (kinds[i].argument && g_str_has_prefix(text, kinds[i].prefix) && strlen(kinds[i].prefix) >= length) {
            best = i;
            length = strlen(kinds[i].prefix);
        }
    return best;
}

GtkWidget *prefix_row_new(const struct prefix_kind *kinds, const char *text, const char *name)
{
    GtkWidget *box = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 6);
    struct prefix_row *row = g_new0(struct prefix_row, 1);
    int kind = kind_of(kinds, text);
    row->kinds = kinds;
    row->combo = gtk_combo_box_text_new();
    row->entry = gtk_entry_new();
    for (guint i = 0; kinds[i].label; i++)
        gtk_combo_box_text_append_text(GTK_COMBO_BOX_TEXT(row->combo), gettext(kinds[i].label));
    gtk_combo_box_set_active(GTK_COMBO_BOX(row->combo), kind);
    if (kinds[kind].argument && g_str_has_prefix(text, kinds[kind].prefix))
        gtk_entry_set_text(GTK_ENTRY(row->entry), text + strlen(kinds[kind].prefix));
    atk_object_set_name(gtk_widget_get_accessible(row->combo), name);
    gtk_widget_set_no_show_all(row->entry, TRUE);
    gtk_box_pack_start(GTK_BOX(box), row->combo, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(box), row->entry, TRUE, TRUE, 0);
    g_object_set_data_full(G_OBJECT(box), "prefix-row", row, g_free);
    g_signal_connect_swapped(row->combo, "changed", G_CALLBACK(show_entry), row);
    show_entry(row);
    return box;
}

char *prefix_row_text(GtkWidget *box)
{
    struct prefix_row *row = row_of(box);
    const struct prefix_kind *kind = chosen(row);
    return g_strconcat(kind->prefix, kind->argument ? gtk_entry_get_text(GTK_ENTRY(row->entry)) : NULL, NULL);
}

char *prefix_describe(const struct prefix_kind *kinds, const char *text)
{
    const struct prefix_kind *kind = &kinds[kind_of(kinds, text)];
    const char *label = gettext(kind->label);
    if (!g_str_has_prefix(text, kind->prefix))
        return g_strdup(text);
    return kind->argument ? g_strdup_printf("%s: %s", label, text + strlen(kind->prefix)) : g_strdup(label);
}
