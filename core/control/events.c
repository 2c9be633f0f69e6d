// SPDX-License-Identifier: GPL-2.0-or-later
// What happens to the machine, as QMP's events. Listeners are called on any thread; events leave from the main loop, in
// order.
#include "core/control/server.h"
#include "core/machine/drive.h"

#include <string.h>

struct machine_news {
    enum machine_event event;
    char *text;
    // State at that moment:
    enum run_state state;
    char *reason;
    bool tray_open;
};

static void news_free(gpointer data)
{
    struct machine_news *news = data;
    g_free(news->text);
    g_free(news->reason);
    g_free(news);
}

static void emit(struct control_server *server, const char *name, JsonObject *data)
{
    qmp_server_emit(server->qmp, name, data ? qmp_node_object(data) : NULL);
}

static void state_changed(struct control_server *server, const struct machine_news *news)
{
    bool running = news->state == RUN_STATE_RUNNING;
    if (running != server->was_running)
        emit(server, running ? "RESUME" : "STOP", NULL);
    server->was_running = running;
    if (news->state == RUN_STATE_GUEST_PANICKED) {
        JsonObject *panic = json_object_new();
        json_object_set_string_member(panic, "action", "pause");
        emit(server, "GUEST_PANICKED", panic);
    }
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "status", run_state_name(news->state));
    if (news->reason)
        json_object_set_string_member(data, "reason", news->reason);
    emit(server, "X_CLOCHE_STATE", data);
}

static void was_reset(struct control_server *server, const struct machine_news *news)
{
    bool guest = g_strcmp0(news->text, "guest") == 0;
    JsonObject *data = json_object_new();
    json_object_set_boolean_member(data, "guest", guest);
    json_object_set_string_member(data, "reason", guest ? "guest-reset" : "host-qmp-system-reset");
    emit(server, "RESET", data);
}

static void was_shut_down(struct control_server *server, const struct machine_news *news)
{
    JsonObject *data = json_object_new();
    json_object_set_boolean_member(data, "guest", news->text && g_str_has_prefix(news->text, "guest"));
    json_object_set_string_member(data, "reason", news->text ? news->text : "host-qmp-quit");
    emit(server, "SHUTDOWN", data);
}

static void power_button_pressed(struct control_server *server, const struct machine_news *news)
{
    emit(server, "POWERDOWN", NULL);
}

static void watchdog_fired(struct control_server *server, const struct machine_news *news)
{
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "action", "reset");
    emit(server, "WATCHDOG", data);
}

static void clock_changed(struct control_server *server, const struct machine_news *news)
{
    JsonObject *data = json_object_new();
    json_object_set_int_member(data, "offset", news->text ? g_ascii_strtoll(news->text, NULL, 10) : 0);
    json_object_set_string_member(data, "qom-path", "/machine/rtc");
    emit(server, "RTC_CHANGE", data);
}

static void tray_moved(struct control_server *server, const struct machine_news *news)
{
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "device", news->text ? news->text : "");
    json_object_set_string_member(data, "id", news->text ? news->text : "");
    json_object_set_boolean_member(data, "tray-open", news->tray_open);
    emit(server, "DEVICE_TRAY_MOVED", data);
}

static void disk_failed(struct control_server *server, const struct machine_news *news)
{
    JsonObject *data = json_object_new();
    bool stopped = news->state == RUN_STATE_IO_ERROR;
    json_object_set_string_member(data, "device", news->text ? news->text : "");
    json_object_set_string_member(data, "operation", "write");
    json_object_set_string_member(data, "action", stopped ? "stop" : "report");
    json_object_set_boolean_member(data, "nospace", stopped);
    json_object_set_string_member(data, "reason", news->reason ? news->reason : "input/output error");
    emit(server, "BLOCK_IO_ERROR", data);
}

static void graphics_changed(struct control_server *server, const struct machine_news *news)
{
    emit(server, "X_CLOCHE_GRAPHICS", NULL);
}

static void (*const handlers[])(struct control_server *server, const struct machine_news *news) = {
    [MACHINE_EVENT_STATE] = state_changed,
    [MACHINE_EVENT_RESET] = was_reset,
    [MACHINE_EVENT_POWERDOWN] = power_button_pressed,
    [MACHINE_EVENT_SHUTDOWN] = was_shut_down,
    [MACHINE_EVENT_WATCHDOG] = watchdog_fired,
    [MACHINE_EVENT_RTC_CHANGE] = clock_changed,
    [MACHINE_EVENT_TRAY] = tray_moved,
    [MACHINE_EVENT_BLOCK_ERROR] = disk_failed,
    [MACHINE_EVENT_GRAPHICS] = graphics_changed,
};

static void send_news(struct control_server *server)
{
    for (;;) {
        g_mutex_lock(&server->events_lock);
        struct machine_news *news = g_queue_pop_head(&server->events);
        g_mutex_unlock(&server->events_lock);
        if (!news)
            return;
        if ((unsigned)news->event < G_N_ELEMENTS(handlers) && handlers[news->event])
            handlers[news->event](server, news);
        news_free(news);
    }
}

static gboolean events_ready(gpointer data)
{
    struct control_server *server = data;
    g_source_set_ready_time(server->events_source, -1);
    send_news(server);
    return G_SOURCE_CONTINUE;
}

static gboolean dispatch_source(GSource *source, GSourceFunc callback, gpointer data)
{
    return callback(data);
}

static GSourceFuncs source_functions = {.dispatch = dispatch_source};

// Machine lock held, any thread.
static void machine_event(void *opaque, struct machine *machine, enum machine_event event, const char *text)
{
    struct control_server *server = opaque;
    struct machine_news *news = g_new0(struct machine_news, 1);
    *news = (struct machine_news){event, g_strdup(text), machine->state, g_strdup(machine->stop_reason), false};
    struct drive *drive = event == MACHINE_EVENT_TRAY && text ? drive_find(machine, text) : NULL;
    news->tray_open = drive && drive->tray_open;
    g_mutex_lock(&server->events_lock);
    g_queue_push_tail(&server->events, news);
    g_mutex_unlock(&server->events_lock);
    g_source_set_ready_time(server->events_source, 0);
}

void control_events_init(struct control_server *server)
{
    g_mutex_init(&server->events_lock);
    g_queue_init(&server->events);
    server->was_running = server->machine->state == RUN_STATE_RUNNING;
    server->events_source = g_source_new(&source_functions, sizeof(GSource));
    g_source_set_callback(server->events_source, events_ready, server, NULL);
    g_source_attach(server->events_source, server->machine->context);
    machine_add_listener(server->machine, machine_event, server);
}

void control_events_exit(struct control_server *server)
{
    machine_remove_listener(server->machine, machine_event, server);
    send_news(server); // a last SHUTDOWN reaches those who wait for it
    g_source_destroy(server->events_source);
    g_source_unref(server->events_source);
    g_mutex_clear(&server->events_lock);
}
