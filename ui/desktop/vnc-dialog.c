// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/vnc-dialog.h"
#include "ui/desktop/dialogs.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gi18n.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

// Belongs to the dialog; asks the machine once a second while it is shown.
struct vnc {
    ClocheMachine *machine;
    GtkWidget *dialog, *shared, *address, *password, *text, *copy, *clients;
    guint timer;
    gboolean on;
};

static void vnc_free(gpointer data)
{
    struct vnc *vnc = data;
    g_source_remove(vnc->timer);
    g_object_unref(vnc->machine);
    g_free(vnc);
}

static struct vnc *vnc_of(GWeakRef *ref) // NULL when the dialog was closed meanwhile
{
    g_autoptr(GObject) dialog = g_weak_ref_get(ref);
    struct vnc *vnc = dialog ? g_object_get_data(dialog, "vnc") : NULL;
    g_weak_ref_clear(ref);
    g_free(ref);
    return vnc;
}

static GWeakRef *weak(struct vnc *vnc)
{
    GWeakRef *ref = g_new0(GWeakRef, 1);
    g_weak_ref_init(ref, vnc->dialog);
    return ref;
}

// ---- Connected clients ----
static void disconnect(GtkButton *button, struct vnc *vnc)
{
    int64_t id = GPOINTER_TO_INT(g_object_get_data(G_OBJECT(button), "id"));
    dialog_call(vnc->machine, "x-cloche-vnc-disconnect", control_arguments("i:id", id, NULL), GTK_WINDOW(vnc->dialog));
}

static int client_id(JsonObject *client)
{
    return (int)json_object_get_int_member_with_default(client, "x-cloche-id", 0);
}

static void add_client(struct vnc *vnc, JsonObject *client)
{
    GtkWidget *row = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 12),
              *button = gtk_button_new_with_mnemonic(_("_Disconnect"));
    g_autofree char *text = g_strdup_printf("%s:%s", json_object_get_string_member_with_default(client, "host", "?"),
                                            json_object_get_string_member_with_default(client, "service", "?"));
    GtkWidget *label = gtk_label_new(text);
    gtk_label_set_xalign(GTK_LABEL(label), 0);
    g_autofree char *name = g_strdup_printf(_("Disconnect %s"), text);
    atk_object_set_name(gtk_widget_get_accessible(button), name);
    g_object_set_data(G_OBJECT(button), "id", GINT_TO_POINTER(client_id(client)));
    g_signal_connect(button, "clicked", G_CALLBACK(disconnect), vnc);
    gtk_box_pack_start(GTK_BOX(row), label, TRUE, TRUE, 0);
    gtk_box_pack_start(GTK_BOX(row), button, FALSE, FALSE, 0);
    gtk_list_box_insert(GTK_LIST_BOX(vnc->clients), row, -1);
    GtkWidget *line = gtk_widget_get_parent(row);
    gtk_list_box_row_set_activatable(GTK_LIST_BOX_ROW(line), FALSE);
    gtk_widget_set_can_focus(line, FALSE);
    g_object_set_data(G_OBJECT(line), "id", GINT_TO_POINTER(client_id(client)));
    gtk_widget_show_all(line);
}

// Rows of clients that stay are left alone: one of their buttons may have the focus.
static void show_clients(struct vnc *vnc, JsonArray *clients)
{
    g_autoptr(GHashTable) shown = g_hash_table_new(NULL, NULL), there = g_hash_table_new(NULL, NULL);
    guint count = clients ? json_array_get_length(clients) : 0;
    for (guint i = 0; i < count; i++)
        g_hash_table_add(there, GINT_TO_POINTER(client_id(json_array_get_object_element(clients, i))));
    GList *rows = gtk_container_get_children(GTK_CONTAINER(vnc->clients));
    for (GList *row = rows; row; row = row->next) {
        gpointer id = g_object_get_data(row->data, "id");
        if (g_hash_table_contains(there, id))
            g_hash_table_add(shown, id);
        else
            gtk_widget_destroy(row->data);
    }
    g_list_free(rows);
    for (guint i = 0; i < count; i++) {
        JsonObject *client = json_array_get_object_element(clients, i);
        if (!g_hash_table_contains(shown, GINT_TO_POINTER(client_id(client))))
            add_client(vnc, client);
    }
}

static void show(struct vnc *vnc, JsonObject *data)
{
    vnc->on = json_object_get_boolean_member_with_default(data, "enabled", FALSE);
    const char *host = json_object_get_string_member_with_default(data, "host", "");
    const char *service = json_object_get_string_member_with_default(data, "service", "");
    g_autofree char *text = !vnc->on                          ? g_strdup(_("Not shared"))
                            : g_str_has_prefix(host, "unix:") ? g_strdup(host)
                                                              : g_strdup_printf("%s:%s", host, service);
    gtk_label_set_text(GTK_LABEL(vnc->text), text);
    gtk_widget_set_sensitive(vnc->copy, vnc->on);
    gtk_button_set_label(GTK_BUTTON(vnc->shared), vnc->on ? _("_Stop Sharing") : _("_Share"));
    show_clients(vnc, json_object_has_member(data, "clients") ? json_object_get_array_member(data, "clients") : NULL);
}

static void known(GObject *source, GAsyncResult *result, gpointer ref)
{
    struct vnc *vnc = vnc_of(ref);
    g_autoptr(GError) error = NULL;
    JsonNode *node = cloche_machine_call_finish(CLOCHE_MACHINE(source), result, &error);
    if (vnc && node && JSON_NODE_HOLDS_OBJECT(node))
        show(vnc, json_node_get_object(node));
    else if (vnc && error)
        gtk_label_set_text(GTK_LABEL(vnc->text), error->message);
    g_clear_pointer(&node, json_node_unref);
}

static gboolean ask(gpointer data)
{
    struct vnc *vnc = data;
    cloche_machine_call(vnc->machine, "query-vnc", NULL, known, weak(vnc));
    return G_SOURCE_CONTINUE;
}

// ---- Switching it on and off ----
static char *password_file(struct vnc *vnc, GError **error)
{
    const char *password = gtk_entry_get_text(GTK_ENTRY(vnc->password));
    if (!*password)
        return NULL;
    char *path = g_build_filename(cloche_machine_get_folder(vnc->machine), "vnc-password", NULL);
    int fd = g_open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
    size_t length = strlen(password);
    if (fd >= 0 && fchmod(fd, 0600) == 0 && write(fd, password, length) == (ssize_t)length && close(fd) == 0)
        return path;
    int e = errno;
    g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(e), _("The password file %s could not be written: %s"),
                path, g_strerror(e));
    g_free(path);
    return NULL;
}

static void switched(GObject *source, GAsyncResult *result, gpointer ref)
{
    struct vnc *vnc = vnc_of(ref);
    g_autoptr(GError) error = NULL;
    JsonNode *node = cloche_machine_call_finish(CLOCHE_MACHINE(source), result, &error);
    if (vnc && !node)
        dialog_error(GTK_WINDOW(vnc->dialog), _("Sharing could not be changed"), error, NULL);
    if (vnc)
        ask(vnc);
    g_clear_pointer(&node, json_node_unref);
}

static void share_clicked(GtkButton *button, struct vnc *vnc)
{
    g_autoptr(GError) error = NULL;
    if (vnc->on) {
        cloche_machine_call(vnc->machine, "x-cloche-vnc-stop", NULL, switched, weak(vnc));
        return;
    }
    g_autofree char *file = password_file(vnc, &error);
    if (error) {
        dialog_error(GTK_WINDOW(vnc->dialog), _("Sharing could not be changed"), error, NULL);
        return;
    }
    cloche_machine_call(
        vnc->machine, "x-cloche-vnc-start",
        control_arguments("s:address", gtk_entry_get_text(GTK_ENTRY(vnc->address)), "s:password-file", file, NULL),
        switched, weak(vnc));
}

static void copy_clicked(GtkButton *button, struct vnc *vnc)
{
    gtk_clipboard_set_text(gtk_widget_get_clipboard(vnc->dialog, GDK_SELECTION_CLIPBOARD),
                           gtk_label_get_text(GTK_LABEL(vnc->text)), -1);
}

// ---- The dialog ----
static void add_row(GtkGrid *grid, int row, const char *text, GtkWidget *widget)
{
    GtkWidget *label = gtk_label_new_with_mnemonic(text);
    gtk_label_set_xalign(GTK_LABEL(label), 1);
    gtk_label_set_mnemonic_widget(GTK_LABEL(label), widget);
    gtk_grid_attach(grid, label, 0, row, 1, 1);
    gtk_grid_attach(grid, widget, 1, row, 1, 1);
}

static GtkWidget *shared_text(struct vnc *vnc)
{
    GtkWidget *box = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 12);
    vnc->text = gtk_label_new("");
    vnc->copy = gtk_button_new_with_mnemonic(_("_Copy"));
    gtk_label_set_selectable(GTK_LABEL(vnc->text), TRUE);
    gtk_label_set_xalign(GTK_LABEL(vnc->text), 0);
    gtk_label_set_line_wrap(GTK_LABEL(vnc->text), TRUE);
    gtk_box_pack_start(GTK_BOX(box), vnc->text, TRUE, TRUE, 0);
    gtk_box_pack_start(GTK_BOX(box), vnc->copy, FALSE, FALSE, 0);
    g_signal_connect(vnc->copy, "clicked", G_CALLBACK(copy_clicked), vnc);
    return box;
}

void vnc_dialog_show(ClocheMachine *machine, GtkWindow *parent)
{
    struct vnc *vnc = g_new0(struct vnc, 1);
    vnc->machine = g_object_ref(machine);
    vnc->dialog = gtk_dialog_new_with_buttons(_("Share over VNC"), parent,
                                              GTK_DIALOG_DESTROY_WITH_PARENT | GTK_DIALOG_USE_HEADER_BAR, NULL, NULL);
    GtkWidget *grid = gtk_grid_new(),
              *note = gtk_label_new(
                  _("VNC encrypts nothing and its passwords have 8 characters. "
                    "Other addresses than 127.0.0.1 need a password; across networks use an ssh tunnel."));
    g_object_set(grid, "margin", 18, "row-spacing", 12, "column-spacing", 12, NULL);
    g_autofree char *configured = cloche_machine_get_option(machine, "VNC", "address");
    vnc->address = gtk_entry_new();
    vnc->password = gtk_entry_new();
    vnc->shared = gtk_button_new_with_mnemonic(_("_Share"));
    vnc->clients = gtk_list_box_new();
    gtk_entry_set_text(GTK_ENTRY(vnc->address), configured && *configured ? configured : "127.0.0.1:0");
    gtk_widget_set_tooltip_text(vnc->address, _("ADDRESS:NUMBER (port 5900 + NUMBER) or unix:PATH"));
    gtk_entry_set_visibility(GTK_ENTRY(vnc->password), FALSE);
    gtk_entry_set_max_length(GTK_ENTRY(vnc->password), 8);
    gtk_widget_set_hexpand(vnc->address, TRUE);
    gtk_widget_set_halign(vnc->shared, GTK_ALIGN_START);
    gtk_list_box_set_selection_mode(GTK_LIST_BOX(vnc->clients), GTK_SELECTION_NONE);
    GtkWidget *nobody = gtk_label_new(_("Nobody is connected"));
    gtk_widget_show(nobody);
    gtk_list_box_set_placeholder(GTK_LIST_BOX(vnc->clients), nobody);
    gtk_label_set_line_wrap(GTK_LABEL(note), TRUE);
    gtk_label_set_width_chars(GTK_LABEL(note), 56);
    gtk_label_set_max_width_chars(GTK_LABEL(note), 56);
    gtk_label_set_xalign(GTK_LABEL(note), 0);
    gtk_style_context_add_class(gtk_widget_get_style_context(note), "dim-label");
    add_row(GTK_GRID(grid), 0, _("_Address"), vnc->address);
    add_row(GTK_GRID(grid), 1, _("_Password"), vnc->password);
    gtk_grid_attach(GTK_GRID(grid), vnc->shared, 1, 2, 1, 1);
    add_row(GTK_GRID(grid), 3, _("Shared at"), shared_text(vnc));
    add_row(GTK_GRID(grid), 4, _("Clients"), vnc->clients);
    gtk_grid_attach(GTK_GRID(grid), note, 0, 5, 2, 1);
    gtk_container_add(GTK_CONTAINER(gtk_dialog_get_content_area(GTK_DIALOG(vnc->dialog))), grid);
    g_signal_connect(vnc->shared, "clicked", G_CALLBACK(share_clicked), vnc);
    g_signal_connect(vnc->dialog, "response", G_CALLBACK(gtk_widget_destroy), NULL);
    vnc->timer = g_timeout_add_seconds(1, ask, vnc);
    g_object_set_data_full(G_OBJECT(vnc->dialog), "vnc", vnc, vnc_free);
    gtk_widget_show_all(vnc->dialog);
    ask(vnc);
}
