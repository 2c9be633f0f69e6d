// SPDX-License-Identifier: GPL-2.0-or-later
// One sample a second of what a machine uses: processor and memory of its process, disk traffic from its monitor.
#include "ui/desktop/machine-private.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

// Ticks of processor time and resident bytes of PID (proc(5): fields 14, 15 and 24 of stat).
static gboolean process_use(int pid, gint64 *ticks, guint64 *resident)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", pid), *text = NULL;
    unsigned long long user, system;
    long long pages;
    if (pid <= 0 || !g_file_get_contents(path, &text, NULL, NULL))
        return FALSE;
    const char *after_name = strrchr(text, ')');
    if (!after_name || sscanf(after_name + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %*u %*u %lld",
                              &user, &system, &pages) != 3)
        return FALSE;
    *ticks = user + system;
    *resident = (guint64)pages * sysconf(_SC_PAGESIZE);
    return TRUE;
}

static void disk_known(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    ClocheMachine *self = opaque;
    guint64 reads = 0, writes = 0;
    if (error || !JSON_NODE_HOLDS_ARRAY(value))
        return;
    JsonArray *list = json_node_get_array(value);
    for (guint i = 0; i < json_array_get_length(list); i++) {
        JsonObject *drive = json_array_get_object_element(list, i);
        JsonObject *stats = json_object_has_member(drive, "stats") ? json_object_get_object_member(drive, "stats") : NULL;
        if (!stats)
            continue;
        reads += json_object_get_int_member_with_default(stats, "rd_bytes", 0);
        writes += json_object_get_int_member_with_default(stats, "wr_bytes", 0);
    }
    self->figures.disk_read = self->last.time && reads > self->last.disk_read ? reads - self->last.disk_read : 0;
    self->figures.disk_write = self->last.time && writes > self->last.disk_write ? writes - self->last.disk_write : 0;
    self->last.disk_read = reads;
    self->last.disk_write = writes;
}

static gboolean sample(gpointer data)
{
    ClocheMachine *self = data;
    gint64 now = g_get_monotonic_time(), ticks;
    guint64 resident;
    if (process_use(self->pid, &ticks, &resident)) {
        double seconds = (now - self->last.time) / 1e6;
        if (self->last.time)
            self->figures.cpu_percent = 100.0 * (ticks - self->last.cpu) / sysconf(_SC_CLK_TCK) / seconds;
        self->figures.memory = resident;
        self->last.time = now;
        self->last.cpu = ticks;
    }
    if (self->client)
        control_client_send(self->client, "query-blockstats", NULL, disk_known, self);
    g_signal_emit(self, machine_signals[MACHINE_FIGURES], 0);
    return G_SOURCE_CONTINUE;
}

void machine_sample_start(ClocheMachine *self)
{
    self->last.time = 0;
    if (!self->figures_timer)
        self->figures_timer = g_timeout_add_seconds(1, sample, self);
}

void machine_sample_stop(ClocheMachine *self)
{
    if (self->figures_timer)
        g_source_remove(self->figures_timer);
    self->figures_timer = 0;
    self->figures = (struct machine_figures){0};
}
