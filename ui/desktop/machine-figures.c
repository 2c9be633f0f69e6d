// SPDX-License-Identifier: GPL-2.0-or-later
// One sample a second of what a machine uses, from its monitor; and which engine runs it.
#include "ui/desktop/machine-private.h"

#include <glib/gi18n.h>
#include <string.h>

static const struct {
    const char *engine, *label, *reason;
} engine_table[] = {
    {"kvm", N_("Hardware"),
     N_("The processor's virtualization runs this machine (KVM): guest code runs at full speed.")},
    {"translate", N_("Translated"),
     N_("Guest code is translated for this processor as it runs: no hardware virtualization is needed. Host Report "
        "says why it was chosen.")},
    {"interpret", N_("Interpreted"),
     N_("Guest code is interpreted step by step. This is slow; Settings ▸ System ▸ Engine chooses another "
        "engine.")},
};

static void show_engine(ClocheMachine *self, const char *name)
{
    if (g_strcmp0(self->engine_name, name) == 0)
        return;
    self->engine_name = g_intern_string(name);
    self->engine = self->engine_name;
    self->engine_reason = "";
    for (guint i = 0; i < G_N_ELEMENTS(engine_table); i++)
        if (strcmp(name, engine_table[i].engine) == 0) {
            self->engine = gettext(engine_table[i].label);
            self->engine_reason = gettext(engine_table[i].reason);
        }
    g_signal_emit(self, machine_signals[MACHINE_CHANGED], 0);
}

static double rate(double now, double before, double seconds)
{
    return now > before && seconds > 0 ? (now - before) / seconds : 0;
}

static void stats_known(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    ClocheMachine *self = opaque;
    if (error || !JSON_NODE_HOLDS_OBJECT(value))
        return;
    JsonObject *stats = json_node_get_object(value);
    gint64 now = g_get_monotonic_time(), cpu = json_object_get_int_member_with_default(stats, "host-cpu-ns", 0);
    gint64 reads = json_object_get_int_member_with_default(stats, "disk-read-bytes", 0);
    gint64 writes = json_object_get_int_member_with_default(stats, "disk-written-bytes", 0);
    gint64 received = 0, sent = 0;
    for (guint i = 0; i < self->devices->len; i++) {
        const struct machine_device *device = self->devices->pdata[i];
        received += device->kind == MACHINE_DEVICE_NETWORK ? device->in : 0;
        sent += device->kind == MACHINE_DEVICE_NETWORK ? device->out : 0;
    }
    show_engine(self, json_object_get_string_member_with_default(stats, "engine", ""));
    self->figures.memory = json_object_get_int_member_with_default(stats, "resident-bytes", 0);
    if (self->last.time) {
        double seconds = (now - self->last.time) / 1e6;
        self->figures.cpu_percent = rate(cpu, self->last.cpu, seconds) / 1e7;
        self->figures.disk_read = rate(reads, self->last.disk_read, seconds);
        self->figures.disk_write = rate(writes, self->last.disk_write, seconds);
        self->figures.received = rate(received, self->last.received, seconds);
        self->figures.sent = rate(sent, self->last.sent, seconds);
    }
    self->last.time = now;
    self->last.cpu = cpu;
    self->last.disk_read = reads;
    self->last.disk_write = writes;
    self->last.received = received;
    self->last.sent = sent;
    g_signal_emit(self, machine_signals[MACHINE_FIGURES], 0);
}

static gboolean sample(gpointer data)
{
    ClocheMachine *self = data;
    machine_picture_look(self);
    if (!self->client)
        return G_SOURCE_CONTINUE;
    if (!self->display) // with a console the devices are looked at more often
        machine_devices_ask(self);
    control_client_send(self->client, "x-cloche-stats", NULL, stats_known, self);
    return G_SOURCE_CONTINUE;
}

void machine_sample_start(ClocheMachine *self)
{
    self->last.time = 0;
    sample(self);
    if (!self->figures_timer)
        self->figures_timer = g_timeout_add_seconds(1, sample, self);
}

void machine_sample_stop(ClocheMachine *self)
{
    if (self->figures_timer)
        g_source_remove(self->figures_timer);
    self->figures_timer = 0;
    self->figures = (struct machine_figures){0};
    self->engine = self->engine_name = self->engine_reason = "";
}
