// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/monitor_ports.h"
#include "core/machine/nic.h"
#include "devices/char/backend.h"

// A device with a line to the outside has it as its pointer property "backend".
static void chardevs(void *opaque, void (*fn)(void *data, const char *label, const char *target, bool open), void *data)
{
    struct machine *machine = opaque;
    machine_lock(machine);
    for (struct device *device = machine->devices; device; device = device->next) {
        struct char_backend *backend = device_pointer(device, "backend");
        g_autofree char *target = backend ? char_backend_describe(backend) : NULL;
        if (target)
            fn(data, device->id, target, true);
    }
    machine_unlock(machine);
}

// Machine lock held.
static struct nic *find(struct machine *machine, const char *id, GError **error)
{
    struct nic *nic = nic_find(machine, id);
    if (nic)
        return nic;
    g_autoptr(GString) names = g_string_new(NULL);
    for (nic = machine->nics; nic; nic = nic->next)
        g_string_append_printf(names, "%s%s", names->len ? ", " : "", nic->id);
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "There is no network card \"%.100s\": this machine has %s",
                id, names->len ? names->str : "none");
    return NULL;
}

static bool set_link(void *opaque, const char *id, bool up, GError **error)
{
    struct machine *machine = opaque;
    machine_lock(machine);
    struct nic *nic = find(machine, id, error);
    if (nic)
        nic_set_link(nic, up);
    machine_unlock(machine);
    return nic;
}

static bool forward(void *opaque, const char *id, const char *text, bool add, GError **error)
{
    struct machine *machine = opaque;
    machine_lock(machine);
    struct nic *nic = find(machine, id, error);
    bool good = nic && (add ? nic_add_forward(nic, text, error) : nic_remove_forward(nic, text, error));
    machine_unlock(machine);
    return good;
}

static bool cable(void *opaque, const char *id, const char *settings, GError **error)
{
    struct machine *machine = opaque;
    machine_lock(machine);
    struct nic *nic = find(machine, id, error);
    bool good = nic && nic_set_shape(nic, settings, error);
    machine_unlock(machine);
    return good;
}

static bool capture(void *opaque, const char *id, const char *file, GError **error)
{
    struct machine *machine = opaque;
    machine_lock(machine);
    struct nic *nic = find(machine, id, error);
    bool good = nic && (!file || nic_capture_start(nic, file, error));
    if (nic && !file)
        nic_capture_stop(nic);
    machine_unlock(machine);
    return good;
}

static void nics(void *opaque, void (*fn)(void *data, const struct control_nic *nic), void *data)
{
    struct machine *machine = opaque;
    machine_lock(machine);
    for (struct nic *nic = machine->nics; nic; nic = nic->next) {
        g_auto(GStrv) addresses = nic_address_texts(nic);
        g_autofree char *file = nic_capture_path(nic);
        struct control_nic info = {.id = nic->id,
                                   .backend = nic->backend->name,
                                   .link = nic->link,
                                   .addresses = (const char *const *)addresses,
                                   .capture = file,
                                   .forwards = (const char *const *)nic->forwards->pdata,
                                   .forward_count = nic->forwards->len,
                                   .sent_bytes = nic->sent_bytes,
                                   .received_bytes = nic->received_bytes,
                                   .dropped = nic->dropped};
        g_snprintf(info.mac, sizeof(info.mac), "%02x:%02x:%02x:%02x:%02x:%02x", nic->mac[0], nic->mac[1], nic->mac[2],
                   nic->mac[3], nic->mac[4], nic->mac[5]);
        fn(data, &info);
    }
    machine_unlock(machine);
}

static const struct control_port_ops ops = {chardevs, set_link, forward, cable, capture, nics};

void monitor_ports_serve(struct machine *machine, struct control_server *control)
{
    control_server_set_ports(control, &ops, machine);
}
