// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/forwards.h"
#include "core/config/config.h"
#include "core/config/library.h"
#include "core/config/option.h"
#include "ui/desktop/dialogs.h"

#include <glib/gi18n.h>
#include <string.h>

// ---- One row ----
struct row {
    GtkWidget *box, *protocol, *address, *host, *guest;
};

static GtkWidget *port(int value, const char *name)
{
    GtkWidget *spin = gtk_spin_button_new_with_range(1, 65535, 1);
    gtk_spin_button_set_value(GTK_SPIN_BUTTON(spin), value);
    gtk_widget_set_tooltip_text(spin, name);
    atk_object_set_name(gtk_widget_get_accessible(spin), name);
    return spin;
}

static void remove_row(GtkButton *button, GtkWidget *box)
{
    gtk_widget_destroy(box);
}

static void add_row(GtkWidget *list, const char *protocol, const char *address, int host, int guest)
{
    struct row *row = g_new0(struct row, 1);
    GtkWidget *remove = gtk_button_new_from_icon_name("list-remove-symbolic", GTK_ICON_SIZE_BUTTON);
    row->box = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 6);
    row->protocol = gtk_combo_box_text_new();
    gtk_combo_box_text_append(GTK_COMBO_BOX_TEXT(row->protocol), "tcp", "TCP");
    gtk_combo_box_text_append(GTK_COMBO_BOX_TEXT(row->protocol), "udp", "UDP");
    gtk_combo_box_set_active_id(GTK_COMBO_BOX(row->protocol), protocol);
    row->address = gtk_entry_new();
    gtk_entry_set_text(GTK_ENTRY(row->address), address);
    gtk_entry_set_width_chars(GTK_ENTRY(row->address), 12);
    row->host = port(host, _("Port on this host"));
    row->guest = port(guest, _("Port in the guest"));
    const struct {
        GtkWidget *widget;
        const char *name;
    } names[] = {{row->protocol, _("Protocol")},
                 {row->address, _("Address on this host; 127.0.0.1 is reached from this host only")},
                 {remove, _("Remove this forward")}};
    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        atk_object_set_name(gtk_widget_get_accessible(names[i].widget), names[i].name);
        gtk_widget_set_tooltip_text(names[i].widget, names[i].name);
    }
    GtkWidget *parts[] = {row->protocol, row->address, row->host, gtk_label_new("→"), row->guest, remove};
    for (guint i = 0; i < G_N_ELEMENTS(parts); i++)
        gtk_box_pack_start(GTK_BOX(row->box), parts[i], parts[i] == row->address, TRUE, 0);
    g_object_set_data_full(G_OBJECT(row->box), "row", row, g_free);
    g_signal_connect(remove, "clicked", G_CALLBACK(remove_row), row->box);
    gtk_box_pack_start(GTK_BOX(list), row->box, FALSE, FALSE, 0);
    gtk_widget_show_all(row->box);
}

// "tcp:127.0.0.1:2222-22"
static void add_text(GtkWidget *list, const char *text)
{
    const char *colon = strchr(text, ':'), *last = strrchr(text, ':'), *dash = last ? strchr(last, '-') : NULL;
    if (!colon || last == colon || !dash)
        return;
    g_autofree char *protocol = g_strndup(text, colon - text), *address = g_strndup(colon + 1, last - colon - 1);
    add_row(list, protocol, address, atoi(last + 1), atoi(dash + 1));
}

static char *row_text(GtkWidget *box)
{
    const struct row *row = g_object_get_data(G_OBJECT(box), "row");
    const char *address = gtk_entry_get_text(GTK_ENTRY(row->address));
    return g_strdup_printf("%s:%s:%d-%d", gtk_combo_box_get_active_id(GTK_COMBO_BOX(row->protocol)),
                           *address ? address : "127.0.0.1",
                           gtk_spin_button_get_value_as_int(GTK_SPIN_BUTTON(row->host)),
                           gtk_spin_button_get_value_as_int(GTK_SPIN_BUTTON(row->guest)));
}

// ---- The list ----
static void add_clicked(GtkButton *button, GtkWidget *list)
{
    add_row(list, "tcp", "127.0.0.1", 2222, 22);
}

GtkWidget *forwards_editor_new(const char *text)
{
    GtkWidget *editor = gtk_box_new(GTK_ORIENTATION_VERTICAL, 6), *list = gtk_box_new(GTK_ORIENTATION_VERTICAL, 6);
    GtkWidget *add = gtk_button_new_with_mnemonic(_("Add _Forward"));
    g_auto(GStrv) parts = g_strsplit(text ? text : "", ";", -1);
    for (char **part = parts; *part; part++)
        add_text(list, g_strstrip(*part));
    gtk_widget_set_halign(add, GTK_ALIGN_START);
    gtk_box_pack_start(GTK_BOX(editor), list, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(editor), add, FALSE, FALSE, 0);
    g_object_set_data(G_OBJECT(editor), "list", list);
    g_signal_connect(add, "clicked", G_CALLBACK(add_clicked), list);
    return editor;
}

char *forwards_editor_text(GtkWidget *editor)
{
    GString *text = g_string_new(NULL);
    GList *rows = gtk_container_get_children(GTK_CONTAINER(g_object_get_data(G_OBJECT(editor), "list")));
    for (GList *l = rows; l; l = l->next) {
        g_autofree char *row = row_text(l->data);
        g_string_append_printf(text, "%s%s", text->len ? ";" : "", row);
    }
    g_list_free(rows);
    return g_string_free(text, FALSE);
}

// ---- Telling a running machine ----
static void tell(ClocheMachine *machine, const char *card, const char *forward, gboolean add, GtkWindow *parent)
{
    dialog_call(machine, "x-cloche-forward",
                control_arguments("s:name", card, "s:forward", forward, "b:add", add, NULL), parent);
}

static void tell_what_is_only_in(ClocheMachine *machine, const char *card, const char *here, const char *there,
                                 gboolean add, GtkWindow *parent)
{
    g_auto(GStrv) list = g_strsplit(here, ";", -1), other = g_strsplit(there, ";", -1);
    for (char **forward = list; *forward; forward++)
        if (**forward && !g_strv_contains((const char *const *)other, *forward))
            tell(machine, card, *forward, add, parent);
}

void forwards_apply(ClocheMachine *machine, const char *card, const char *before, const char *after, GtkWindow *parent)
{
    tell_what_is_only_in(machine, card, before, after, FALSE, parent);
    tell_what_is_only_in(machine, card, after, before, TRUE, parent);
}

// ---- The dialog ----
struct forwards {
    ClocheMachine *machine;
    char *group, *card, *before;
    GtkWidget *dialog, *editor;
};

static void forwards_free(gpointer data)
{
    struct forwards *f = data;
    g_object_unref(f->machine);
    g_free(f->group);
    g_free(f->card);
    g_free(f->before);
    g_free(f);
}

static bool edit(struct config *config, void *opaque, GError **error)
{
    struct forwards *f = opaque;
    g_autofree char *text = forwards_editor_text(f->editor);
    return config_set(config, f->group, "forwards", *text ? text : NULL, error);
}

static gboolean accept(struct forwards *f, GError **error)
{
    const struct option *option = option_find(f->group, "forwards");
    g_autofree char *text = forwards_editor_text(f->editor);
    if (!option_check(option, text, NULL, error) ||
        !machine_folder_edit(cloche_machine_get_folder(f->machine), edit, f, error))
        return FALSE;
    if (cloche_machine_why_not(f->machine, CLOCHE_REQUEST_CHANGE)) // it runs
        forwards_apply(f->machine, f->card, f->before, text, gtk_window_get_transient_for(GTK_WINDOW(f->dialog)));
    return TRUE;
}

static void response(GtkDialog *dialog, int response, struct forwards *f)
{
    g_autoptr(GError) error = NULL;
    if (response == GTK_RESPONSE_ACCEPT && !accept(f, &error))
        dialog_error(GTK_WINDOW(dialog), _("The port forwards were not changed"), error, NULL);
    else
        gtk_widget_destroy(GTK_WIDGET(dialog));
}

void forwards_show(ClocheMachine *machine, const char *card, GtkWindow *parent)
{
    struct forwards *f = g_new0(struct forwards, 1);
    f->machine = g_object_ref(machine);
    f->card = g_strdup(card);
    f->group = g_strdup_printf("Network %s", card);
    g_autofree char *text = cloche_machine_get_option(machine, f->group, "forwards");
    f->editor = forwards_editor_new(text);
    f->before = forwards_editor_text(f->editor);
    f->dialog = gtk_dialog_new_with_buttons(
        _("Port Forwards"), parent, GTK_DIALOG_MODAL | GTK_DIALOG_DESTROY_WITH_PARENT | GTK_DIALOG_USE_HEADER_BAR,
        _("_Cancel"), GTK_RESPONSE_CANCEL, _("_Apply"), GTK_RESPONSE_ACCEPT, NULL);
    GtkWidget *area = gtk_dialog_get_content_area(GTK_DIALOG(f->dialog));
    GtkWidget *label = gtk_label_new(_("A port of this host leads to a port of the guest."));
    g_object_set(area, "margin", 18, "spacing", 12, NULL);
    gtk_label_set_xalign(GTK_LABEL(label), 0);
    gtk_container_add(GTK_CONTAINER(area), label);
    gtk_container_add(GTK_CONTAINER(area), f->editor);
    g_object_set_data_full(G_OBJECT(f->dialog), "forwards", f, forwards_free);
    g_signal_connect(f->dialog, "response", G_CALLBACK(response), f);
    gtk_widget_show_all(f->dialog);
}
