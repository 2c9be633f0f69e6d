// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/monitor_vnc.h"
#include "core/screen/clipboard.h"
#include "ui/vnc/vnc.h"

#include <string.h>

struct monitor_vnc {
    struct machine *machine;
    struct control_server *control;
    char *name;
    struct vnc_server *server; // NULL: off
};

// A viewer's text; on the server's thread.
static void clipboard_to(void *opaque, const char *text)
{
    struct monitor_vnc *vnc = opaque;
    clipboard_to_guest(vnc->machine->clipboard, text);
}

// The guest's text; machine lock held.
static void clipboard_from(void *opaque, const char *text)
{
    vnc_server_set_clipboard(opaque, text);
}

bool monitor_vnc_start(struct monitor_vnc *vnc, const char *where, const char *password_file, GError **error)
{
    if (vnc->server) {
        g_set_error_literal(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "VNC is on already: stop it first");
        return false;
    }
    struct vnc_options options = {
        .where = where, .password_file = password_file, .name = vnc->name, .clipboard = clipboard_to, .opaque = vnc};
    vnc->server = vnc_server_new(vnc->machine->screen, vnc->machine->input, &options, error);
    if (vnc->server)
        clipboard_add_listener(vnc->machine->clipboard, clipboard_from, vnc->server);
    return vnc->server != NULL;
}

static bool start(void *opaque, const char *address, const char *password_file, GError **error)
{
    return monitor_vnc_start(opaque, address, password_file, error);
}

static void stop(void *opaque)
{
    struct monitor_vnc *vnc = opaque;
    if (vnc->server)
        clipboard_remove_listener(vnc->machine->clipboard, clipboard_from, vnc->server);
    vnc_server_free(g_steal_pointer(&vnc->server));
}

static char *address(void *opaque)
{
    struct monitor_vnc *vnc = opaque;
    return vnc->server ? vnc_server_address(vnc->server) : NULL;
}

static bool has_password(void *opaque)
{
    struct monitor_vnc *vnc = opaque;
    return vnc->server && vnc_server_has_password(vnc->server);
}

static bool is_on(struct monitor_vnc *vnc, GError **error)
{
    if (!vnc->server)
        g_set_error_literal(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "VNC is off: start it first");
    return vnc->server != NULL;
}

static bool set_password(void *opaque, const char *password, GError **error)
{
    struct monitor_vnc *vnc = opaque;
    return is_on(vnc, error) && vnc_server_set_password(vnc->server, password, error);
}

static void clients(void *opaque, void (*fn)(void *data, const struct control_vnc_client *client), void *data)
{
    struct monitor_vnc *vnc = opaque;
    if (!vnc->server)
        return;
    g_autoptr(GArray) list = vnc_server_clients(vnc->server);
    for (unsigned i = 0; i < list->len; i++) {
        const struct vnc_client_info *info = &g_array_index(list, struct vnc_client_info, i);
        const char *colon = strrchr(info->peer, ':');
        g_autofree char *host = colon ? g_strndup(info->peer, colon - info->peer) : g_strdup(info->peer);
        struct control_vnc_client client = {
            .id = info->id, .host = host, .service = colon ? colon + 1 : "", .view_only = info->view_only};
        fn(data, &client);
    }
}

static bool disconnect(void *opaque, unsigned id, GError **error)
{
    struct monitor_vnc *vnc = opaque;
    if (!is_on(vnc, error))
        return false;
    if (vnc_server_disconnect(vnc->server, id))
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                "No VNC client has the number %u: list them with query-vnc", id);
    return false;
}

static const struct control_vnc_ops ops = {
    .start = start,
    .stop = stop,
    .address = address,
    .has_password = has_password,
    .set_password = set_password,
    .clients = clients,
    .disconnect = disconnect,
};

struct monitor_vnc *monitor_vnc_new(struct machine *machine, const char *name, struct control_server *control)
{
    struct monitor_vnc *vnc = g_new0(struct monitor_vnc, 1);
    vnc->machine = machine;
    vnc->name = g_strdup(name);
    if (control)
        control_server_set_vnc(control, &ops, vnc);
    return vnc;
}

void monitor_vnc_free(struct monitor_vnc *vnc)
{
    if (!vnc)
        return;
    stop(vnc);
    g_free(vnc->name);
    g_free(vnc);
}
