// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/serial.h"

#include <gio/gunixsocketaddress.h>
#include <glib/gi18n.h>
#include <vte/vte.h>

// Belongs to the terminal widget.
struct serial {
    VteTerminal *terminal;
    GSocketConnection *connection;
    GCancellable *cancellable;
    char buffer[4096];
};

static void serial_free(gpointer data)
{
    struct serial *serial = data;
    g_cancellable_cancel(serial->cancellable);
    g_clear_object(&serial->cancellable);
    g_clear_object(&serial->connection);
    g_free(serial);
}

static void say(struct serial *serial, const char *text)
{
    g_autofree char *line = g_strdup_printf("\r\n\033[2m%s\033[0m\r\n", text);
    vte_terminal_feed(serial->terminal, line, -1);
}

static void read_done(GObject *stream, GAsyncResult *result, gpointer data)
{
    g_autoptr(GError) error = NULL;
    gssize count = g_input_stream_read_finish(G_INPUT_STREAM(stream), result, &error);
    if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        return; // the terminal is gone
    struct serial *serial = data;
    if (count <= 0) {
        say(serial, _("The serial port was closed."));
        return;
    }
    vte_terminal_feed(serial->terminal, serial->buffer, count);
    g_input_stream_read_async(G_INPUT_STREAM(stream), serial->buffer, sizeof serial->buffer, G_PRIORITY_DEFAULT,
                              serial->cancellable, read_done, serial);
}

static void typed(VteTerminal *terminal, const char *text, guint size, gpointer data)
{
    struct serial *serial = data;
    g_autoptr(GError) error = NULL;
    if (!serial->connection)
        return;
    GOutputStream *out = g_io_stream_get_output_stream(G_IO_STREAM(serial->connection));
    if (!g_output_stream_write_all(out, text, size, NULL, NULL, &error))
        say(serial, error->message);
}

static void connected(GObject *client, GAsyncResult *result, gpointer data)
{
    g_autoptr(GError) error = NULL;
    GSocketConnection *connection = g_socket_client_connect_finish(G_SOCKET_CLIENT(client), result, &error);
    if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        return;
    struct serial *serial = data;
    if (!connection) {
        g_autofree char *text = g_strdup_printf(_("The serial port could not be reached: %s"), error->message);
        say(serial, text);
        return;
    }
    serial->connection = connection;
    GInputStream *in = g_io_stream_get_input_stream(G_IO_STREAM(connection));
    g_input_stream_read_async(in, serial->buffer, sizeof serial->buffer, G_PRIORITY_DEFAULT, serial->cancellable,
                              read_done, serial);
}

GtkWidget *serial_console_new(ClocheMachine *machine)
{
    GtkWidget *terminal = vte_terminal_new(), *scroller = gtk_scrolled_window_new(NULL, NULL);
    struct serial *serial = g_new0(struct serial, 1);
    serial->terminal = VTE_TERMINAL(terminal);
    serial->cancellable = g_cancellable_new();
    vte_terminal_set_scrollback_lines(serial->terminal, 10000);
    atk_object_set_name(gtk_widget_get_accessible(terminal), _("Serial console"));
    gtk_container_add(GTK_CONTAINER(scroller), terminal);
    g_object_set_data_full(G_OBJECT(terminal), "serial", serial, serial_free);
    g_signal_connect(terminal, "commit", G_CALLBACK(typed), serial);
    g_autofree char *path = cloche_machine_get_serial_socket(machine);
    if (!path) {
        say(serial, _("No serial port of this machine is a UNIX socket. Settings ▸ Serial Ports can make one."));
        return scroller;
    }
    g_autoptr(GSocketClient) client = g_socket_client_new();
    g_autoptr(GSocketAddress) address = g_unix_socket_address_new(path);
    g_socket_client_connect_async(client, G_SOCKET_CONNECTABLE(address), serial->cancellable, connected, serial);
    return scroller;
}

GtkWidget *serial_console_terminal(GtkWidget *console)
{
    return gtk_bin_get_child(GTK_BIN(console));
}
