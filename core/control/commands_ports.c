// SPDX-License-Identifier: GPL-2.0-or-later
// VNC, serial ports and network cards: parts that the monitor's main hands in.
#include "core/control/server.h"

#include <string.h>

static bool can(bool possible, const char *what, GError **error)
{
    if (!possible)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "This monitor runs without %s", what);
    return possible;
}

// ---- VNC ----

static void add_vnc_client(void *data, const struct control_vnc_client *client)
{
    JsonObject *entry = json_object_new();
    json_object_set_string_member(entry, "host", client->host);
    json_object_set_string_member(entry, "service", client->service);
    json_object_set_string_member(entry, "family", "unknown");
    json_object_set_boolean_member(entry, "websocket", FALSE);
    json_object_set_int_member(entry, "x-cloche-id", client->id);
    json_object_set_boolean_member(entry, "x-cloche-view-only", client->view_only);
    json_array_add_object_element(data, entry);
}

static JsonNode *query_vnc(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    g_autofree char *address = server->vnc && server->vnc->address ? server->vnc->address(server->vnc_opaque) : NULL;
    JsonObject *info = json_object_new();
    json_object_set_boolean_member(info, "enabled", address != NULL);
    if (!address)
        return qmp_node_object(info);
    bool unix_socket = g_str_has_prefix(address, "unix:");
    char *colon = strrchr(address, ':');
    g_autofree char *host = unix_socket ? g_strdup(address + 5) : g_strndup(address, colon - address);
    json_object_set_string_member(info, "host", host);
    json_object_set_string_member(info, "service", unix_socket ? "" : colon + 1);
    json_object_set_string_member(info, "family", unix_socket ? "unix" : host[0] == '[' ? "ipv6" : "ipv4");
    bool password = server->vnc->has_password && server->vnc->has_password(server->vnc_opaque);
    json_object_set_string_member(info, "auth", password ? "vnc" : "none");
    JsonArray *clients = json_array_new();
    if (server->vnc->clients)
        server->vnc->clients(server->vnc_opaque, add_vnc_client, clients);
    json_object_set_array_member(info, "clients", clients);
    return qmp_node_object(info);
}

static JsonNode *set_vnc_password(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    if (can(server->vnc && server->vnc->set_password, "a VNC server", error))
        server->vnc->set_password(server->vnc_opaque, qmp_string(call, "password"), error);
    return NULL;
}

static JsonNode *vnc_start(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    if (!can(server->vnc && server->vnc->start && server->vnc->address, "a VNC server", error) ||
        !server->vnc->start(server->vnc_opaque, qmp_string(call, "address"), qmp_string(call, "password-file"), error))
        return NULL;
    g_autofree char *address = server->vnc->address(server->vnc_opaque);
    JsonObject *info = json_object_new();
    json_object_set_string_member(info, "address", address ? address : "");
    return qmp_node_object(info);
}

static JsonNode *vnc_stop(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    if (can(server->vnc && server->vnc->stop, "a VNC server", error))
        server->vnc->stop(server->vnc_opaque);
    return NULL;
}

static JsonNode *vnc_disconnect(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    if (can(server->vnc && server->vnc->disconnect, "a VNC server", error))
        server->vnc->disconnect(server->vnc_opaque, qmp_int(call, "id", 0), error);
    return NULL;
}

static const struct qmp_argument password_arguments[] = {QMP_NEED("password", QMP_STRING), QMP_END};
static const struct qmp_argument vnc_arguments[] = {QMP_NEED("address", QMP_STRING),
                                                    QMP_MAY("password-file", QMP_STRING), QMP_END};
static const struct qmp_argument id_arguments[] = {QMP_NEED("id", QMP_INT, .min = 0, .max = UINT32_MAX), QMP_END};

const struct qmp_command control_vnc_commands[] = {
    QMP_REQUEST("query-vnc", query_vnc, NULL, QMP_ANY_STATE, "The VNC server and its clients."),
    QMP_REQUEST("change-vnc-password", set_vnc_password, password_arguments, QMP_ANY_STATE, "New VNC password."),
    QMP_REQUEST("x-cloche-vnc-start", vnc_start, vnc_arguments, QMP_ANY_STATE, "Serves the screen by VNC."),
    QMP_REQUEST("x-cloche-vnc-stop", vnc_stop, NULL, QMP_ANY_STATE, "Stops serving by VNC."),
    QMP_REQUEST("x-cloche-vnc-disconnect", vnc_disconnect, id_arguments, QMP_ANY_STATE, "Disconnects one client."),
    QMP_END,
};

// ---- Serial ports and network cards ----

static void add_chardev(void *data, const char *label, const char *target, bool open)
{
    JsonObject *entry = json_object_new();
    json_object_set_string_member(entry, "label", label);
    json_object_set_string_member(entry, "filename", target);
    json_object_set_boolean_member(entry, "frontend-open", open);
    json_array_add_object_element(data, entry);
}

static JsonNode *query_chardev(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    JsonArray *list = json_array_new();
    if (server->ports && server->ports->chardevs)
        server->ports->chardevs(server->ports_opaque, add_chardev, list);
    return qmp_node_array(list);
}

static JsonNode *set_link(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    if (can(server->ports && server->ports->set_link, "network cards", error))
        server->ports->set_link(server->ports_opaque, qmp_string(call, "name"), qmp_bool(call, "up", true), error);
    return NULL;
}

static JsonNode *set_forward(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    if (can(server->ports && server->ports->forward, "user networking", error))
        server->ports->forward(server->ports_opaque, qmp_string(call, "name"), qmp_string(call, "forward"),
                               qmp_bool(call, "add", true), error);
    return NULL;
}

static JsonNode *set_capture(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    if (can(server->ports && server->ports->capture, "network cards", error))
        server->ports->capture(server->ports_opaque, qmp_string(call, "name"), qmp_string(call, "file"), error);
    return NULL;
}

static JsonNode *set_cable(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    if (can(server->ports && server->ports->cable, "network cards", error))
        server->ports->cable(server->ports_opaque, qmp_string(call, "name"), qmp_string(call, "settings"), error);
    return NULL;
}

static void add_nic(void *data, const struct control_nic *nic)
{
    JsonObject *entry = json_object_new();
    json_object_set_string_member(entry, "name", nic->id);
    json_object_set_string_member(entry, "backend", nic->backend);
    json_object_set_string_member(entry, "mac", nic->mac);
    json_object_set_boolean_member(entry, "link", nic->link);
    json_object_set_int_member(entry, "sent-bytes", nic->sent_bytes);
    json_object_set_int_member(entry, "received-bytes", nic->received_bytes);
    json_object_set_int_member(entry, "dropped-frames", nic->dropped);
    JsonArray *forwards = json_array_new();
    for (unsigned i = 0; i < nic->forward_count; i++)
        json_array_add_string_element(forwards, nic->forwards[i]);
    json_object_set_array_member(entry, "forwards", forwards);
    JsonArray *addresses = json_array_new();
    for (const char *const *address = nic->addresses; address && *address; address++)
        json_array_add_string_element(addresses, *address);
    json_object_set_array_member(entry, "addresses", addresses);
    if (nic->capture)
        json_object_set_string_member(entry, "capture", nic->capture);
    json_array_add_object_element(data, entry);
}

static JsonNode *query_nics(struct qmp_call *call, GError **error)
{
    struct control_server *server = call_server(call);
    JsonArray *list = json_array_new();
    if (server->ports && server->ports->nics)
        server->ports->nics(server->ports_opaque, add_nic, list);
    return qmp_node_array(list);
}

static const struct qmp_argument link_arguments[] = {QMP_NEED("name", QMP_STRING), QMP_NEED("up", QMP_BOOL), QMP_END};
static const struct qmp_argument forward_arguments[] = {QMP_NEED("name", QMP_STRING), QMP_NEED("forward", QMP_STRING),
                                                        QMP_MAY("add", QMP_BOOL), QMP_END};
static const struct qmp_argument cable_arguments[] = {QMP_NEED("name", QMP_STRING), QMP_NEED("settings", QMP_STRING),
                                                      QMP_END};
static const struct qmp_argument capture_arguments[] = {QMP_NEED("name", QMP_STRING), QMP_MAY("file", QMP_STRING),
                                                        QMP_END};

const struct qmp_command control_port_commands[] = {
    QMP_REQUEST("query-chardev", query_chardev, NULL, QMP_ANY_STATE, "Serial ports and where they lead."),
    QMP_REQUEST("set_link", set_link, link_arguments, QMP_ANY_STATE, "Plugs or unplugs a network card's cable."),
    QMP_REQUEST("x-cloche-forward", set_forward, forward_arguments, QMP_ANY_STATE, "Adds or removes a port forward."),
    QMP_REQUEST("x-cloche-cable", set_cable, cable_arguments, QMP_ANY_STATE,
                "Changes a card's cable: rate=10M,delay=5,jitter=2,loss=1,seed=1."),
    QMP_REQUEST("x-cloche-capture", set_capture, capture_arguments, QMP_ANY_STATE,
                "Writes a card's packets to a file; without one the capture ends."),
    QMP_REQUEST("x-cloche-query-nics", query_nics, NULL, QMP_ANY_STATE, "Network cards, their cables and forwards."),
    QMP_END,
};
