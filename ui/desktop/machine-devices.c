// SPDX-License-Identifier: GPL-2.0-or-later
// The drives and network cards of a machine as the windows show them: what the definition says while it is off, what
// the monitor says, with activity, while it runs.
#include "ui/desktop/machine-private.h"

#include <string.h>

#define LOOK_MS 300

static void device_free(gpointer data)
{
    struct machine_device *device = data;
    g_free(device->id);
    g_free(device->detail);
    g_free(device->mac);
    g_strfreev(device->addresses);
    g_strfreev(device->forwards);
    g_free(device->capture);
    g_free(device);
}

static struct machine_device *find(ClocheMachine *self, const char *id)
{
    for (guint i = 0; self->devices && i < self->devices->len; i++) {
        struct machine_device *device = self->devices->pdata[i];
        if (strcmp(device->id, id) == 0)
            return device;
    }
    return NULL;
}

const struct machine_device *cloche_machine_find_device(ClocheMachine *self, const char *id)
{
    return find(self, id);
}

GPtrArray *cloche_machine_get_devices(ClocheMachine *self)
{
    return self->devices;
}

// ---- From the definition ----
static void add(ClocheMachine *self, const char *group, const char *prefix, enum machine_device_kind kind,
                const char *key)
{
    struct machine_device *device = g_new0(struct machine_device, 1);
    device->id = g_strdup(group + strlen(prefix));
    device->kind = kind;
    device->detail = cloche_machine_get_option(self, group, key);
    device->link = TRUE;
    g_ptr_array_add(self->devices, device);
}

void machine_devices_reload(ClocheMachine *self)
{
    static const struct {
        const char *name;
        enum machine_device_kind kind;
    } kinds[] = {{"disk", MACHINE_DEVICE_DISK}, {"cdrom", MACHINE_DEVICE_CDROM}, {"floppy", MACHINE_DEVICE_FLOPPY}};
    g_clear_pointer(&self->devices, g_ptr_array_unref);
    self->devices = g_ptr_array_new_with_free_func(device_free);
    g_auto(GStrv) drives = cloche_machine_get_groups(self, "Drive *");
    for (char **group = drives; group && *group; group++) {
        g_autofree char *kind = cloche_machine_get_option(self, *group, "kind");
        for (guint i = 0; i < G_N_ELEMENTS(kinds); i++)
            if (g_strcmp0(kind, kinds[i].name) == 0)
                add(self, *group, "Drive ", kinds[i].kind, "file");
    }
    g_auto(GStrv) cards = cloche_machine_get_groups(self, "Network *");
    for (char **group = cards; group && *group; group++)
        add(self, *group, "Network ", MACHINE_DEVICE_NETWORK, "backend");
}

// ---- From the monitor ----
static void count(struct machine_device *device, guint64 in, guint64 out)
{
    device->in_active = device->counted && in != device->in;
    device->out_active = device->counted && out != device->out;
    device->in = in;
    device->out = out;
    device->counted = TRUE;
}

static JsonObject *object_member(JsonObject *object, const char *name)
{
    return json_object_has_member(object, name) && JSON_NODE_HOLDS_OBJECT(json_object_get_member(object, name))
               ? json_object_get_object_member(object, name)
               : NULL;
}

static void drive_known(ClocheMachine *self, JsonObject *entry)
{
    struct machine_device *device = find(self, json_object_get_string_member_with_default(entry, "device", ""));
    if (!device)
        return;
    JsonObject *inserted = object_member(entry, "inserted");
    const char *file = inserted ? json_object_get_string_member_with_default(inserted, "file", NULL) : NULL;
    JsonObject *image = inserted ? object_member(inserted, "image") : NULL;
    g_free(device->detail);
    device->detail = g_strdup(file);
    device->size = image ? json_object_get_int_member_with_default(image, "virtual-size", 0) : 0;
    device->locked = json_object_get_boolean_member_with_default(entry, "locked", FALSE);
    device->no_space = strcmp(json_object_get_string_member_with_default(entry, "io-status", "ok"), "nospace") == 0;
}

static void drive_counted(ClocheMachine *self, JsonObject *entry)
{
    struct machine_device *device = find(self, json_object_get_string_member_with_default(entry, "device", ""));
    JsonObject *stats = object_member(entry, "stats");
    if (device && stats)
        count(device, json_object_get_int_member_with_default(stats, "rd_bytes", 0),
              json_object_get_int_member_with_default(stats, "wr_bytes", 0));
}

static char **texts(JsonObject *object, const char *name)
{
    JsonArray *array = json_object_has_member(object, name) ? json_object_get_array_member(object, name) : NULL;
    GPtrArray *list = g_ptr_array_new();
    for (guint i = 0; array && i < json_array_get_length(array); i++)
        g_ptr_array_add(list, g_strdup(json_array_get_string_element(array, i)));
    g_ptr_array_add(list, NULL);
    return (char **)g_ptr_array_free(list, FALSE);
}

static void card_known(ClocheMachine *self, JsonObject *entry)
{
    struct machine_device *device = find(self, json_object_get_string_member_with_default(entry, "name", ""));
    if (!device)
        return;
    count(device, json_object_get_int_member_with_default(entry, "received-bytes", 0),
          json_object_get_int_member_with_default(entry, "sent-bytes", 0));
    g_free(device->mac);
    g_strfreev(device->addresses);
    g_strfreev(device->forwards);
    g_free(device->capture);
    device->mac = g_strdup(json_object_get_string_member_with_default(entry, "mac", ""));
    device->link = json_object_get_boolean_member_with_default(entry, "link", TRUE);
    device->addresses = texts(entry, "addresses");
    device->forwards = texts(entry, "forwards");
    device->capture = g_strdup(json_object_get_string_member_with_default(entry, "capture", NULL));
}

static void port_known(ClocheMachine *self, JsonObject *entry)
{
    const char *id = json_object_get_string_member_with_default(entry, "label", "");
    const char *target = json_object_get_string_member_with_default(entry, "filename", "null");
    struct machine_device *device = find(self, id);
    if (strcmp(target, "null") == 0) // leads nowhere
        return;
    if (!device) {
        device = g_new0(struct machine_device, 1);
        device->id = g_strdup(id);
        device->kind = MACHINE_DEVICE_SERIAL;
        g_ptr_array_add(self->devices, device);
    }
    g_free(device->detail);
    device->detail = g_strdup(target);
}

static void each(ClocheMachine *self, JsonNode *value, void (*fn)(ClocheMachine *, JsonObject *))
{
    if (!value || !JSON_NODE_HOLDS_ARRAY(value))
        return;
    JsonArray *list = json_node_get_array(value);
    for (guint i = 0; i < json_array_get_length(list); i++)
        if (JSON_NODE_HOLDS_OBJECT(json_array_get_element(list, i)))
            fn(self, json_array_get_object_element(list, i));
}

static void drives_known(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    each(opaque, value, drive_known);
}

static void drives_counted(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    each(opaque, value, drive_counted);
}

static void ports_known(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    each(opaque, value, port_known);
}

static void cards_known(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    each(opaque, value, card_known);
    g_signal_emit(opaque, machine_signals[MACHINE_DEVICES], 0);
}

void machine_devices_ask(ClocheMachine *self)
{
    if (!self->client)
        return;
    control_client_send(self->client, "query-block", NULL, drives_known, self);
    control_client_send(self->client, "query-blockstats", NULL, drives_counted, self);
    control_client_send(self->client, "x-cloche-query-nics", NULL, cards_known, self);
}

static gboolean look(gpointer data)
{
    ClocheMachine *self = data;
    if (self->display && self->state == CLOCHE_STATE_RUNNING) // a console is open: its lights follow quickly
        machine_devices_ask(self);
    return G_SOURCE_CONTINUE;
}

void machine_devices_start(ClocheMachine *self)
{
    if (self->client)
        control_client_send(self->client, "query-chardev", NULL, ports_known, self);
    machine_devices_ask(self);
    if (!self->devices_timer)
        self->devices_timer = g_timeout_add(LOOK_MS, look, self);
}

void machine_devices_stop(ClocheMachine *self)
{
    if (self->devices_timer)
        g_source_remove(self->devices_timer);
    self->devices_timer = 0;
    machine_devices_reload(self);
    g_signal_emit(self, machine_signals[MACHINE_DEVICES], 0);
}
