// SPDX-License-Identifier: GPL-2.0-or-later
// The screen of a machine in a display widget: pixels, damage and cursor come from the monitor, keys and pointer go to
// it.
#include "ui/desktop/machine-private.h"

#include "core/screen/input.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// ---- From the monitor ----
static int member(JsonObject *data, const char *name)
{
    return json_object_get_int_member_with_default(data, name, 0);
}

static int take_fd(int *fds, guint count)
{
    if (!count)
        return -1;
    int fd = fds[0];
    fds[0] = -1;
    return fd;
}

static void show_memory(ClocheMachine *self, JsonObject *data, int fd)
{
    g_autoptr(GError) error = NULL;
    if (fd < 0 || !self->display)
        return;
    if (!cloche_display_set_memory(self->display, fd, member(data, "width"), member(data, "height"),
                                   member(data, "stride"), json_object_get_int_member_with_default(data, "size", 0),
                                   &error))
        log_warning("desktop", "%s", error->message);
}

static void show_damage(ClocheMachine *self, JsonObject *data)
{
    if (!json_object_has_member(data, "rectangles"))
        return;
    JsonArray *list = json_object_get_array_member(data, "rectangles");
    for (guint i = 0; i < json_array_get_length(list); i++) {
        JsonArray *r = json_array_get_array_element(list, i);
        if (json_array_get_length(r) == 4)
            cloche_display_damage(self->display, json_array_get_int_element(r, 0), json_array_get_int_element(r, 1),
                                  json_array_get_int_element(r, 2), json_array_get_int_element(r, 3));
    }
}

static void show_cursor(ClocheMachine *self, JsonObject *data, int fd)
{
    guint width = CLAMP(member(data, "width"), 0, 512), height = CLAMP(member(data, "height"), 0, 512);
    gsize size = (gsize)width * height * 4;
    void *argb = fd >= 0 && size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    if (argb == MAP_FAILED) {
        cloche_display_set_cursor(self->display, NULL, 0, 0, 0, 0);
    } else {
        cloche_display_set_cursor(self->display, argb, width, height, member(data, "hot-x"), member(data, "hot-y"));
        munmap(argb, size);
    }
    if (fd >= 0)
        close(fd);
}

void machine_display_event(ClocheMachine *self, const char *event, JsonObject *data, int *fds, guint fd_count)
{
    if (!self->display || member(data, "head") != 0)
        return;
    if (strcmp(event, "X_CLOCHE_DISPLAY_DAMAGE") == 0)
        show_damage(self, data);
    else if (strcmp(event, "X_CLOCHE_DISPLAY_RESIZE") == 0)
        show_memory(self, data, take_fd(fds, fd_count));
    else if (strcmp(event, "X_CLOCHE_DISPLAY_CURSOR") == 0)
        show_cursor(self, data, take_fd(fds, fd_count));
}

static void attached(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    ClocheMachine *self = opaque;
    if (error)
        log_info("desktop", "no display: %s", error->message);
    else
        show_memory(self, json_node_get_object(value), take_fd(fds, fd_count));
}

static void mice_known(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    ClocheMachine *self = opaque;
    gboolean absolute = FALSE;
    if (error || !JSON_NODE_HOLDS_ARRAY(value))
        return;
    JsonArray *mice = json_node_get_array(value);
    for (guint i = 0; i < json_array_get_length(mice); i++) {
        JsonObject *mouse = json_array_get_object_element(mice, i);
        if (json_object_get_boolean_member_with_default(mouse, "current", FALSE))
            absolute = json_object_get_boolean_member_with_default(mouse, "absolute", FALSE);
    }
    if (self->display)
        cloche_display_set_absolute(self->display, absolute);
}

// Which pointer the guest uses can change with each driver it loads; it is asked again with the figures.
static void ask_pointer(ClocheMachine *self)
{
    if (self->client && self->display)
        control_client_send(self->client, "query-mice", NULL, mice_known, self);
}

void machine_display_connected(ClocheMachine *self)
{
    if (!self->client || !self->display)
        return;
    control_client_send(self->client, "x-cloche-attach-display", control_arguments("i:head", (int64_t)0, NULL),
                        attached, self);
    ask_pointer(self);
}

// ---- To the monitor ----
static void send_event(ClocheMachine *self, const char *type, JsonObject *data)
{
    JsonArray *events = json_array_new();
    if (!self->client) {
        json_object_unref(data);
        json_array_unref(events);
        return;
    }
    json_array_add_object_element(events, control_arguments("s:type", type, "o:data", data, NULL));
    control_client_send(self->client, "input-send-event", control_arguments("a:events", events, NULL), NULL, NULL);
}

static void key(ClocheDisplay *display, guint evdev, gboolean down, ClocheMachine *self)
{
    JsonObject *name = control_arguments("s:type", "x-cloche-evdev", "i:data", (int64_t)evdev, NULL);
    send_event(self, "key", control_arguments("b:down", down, "o:key", name, NULL));
}

static void button(ClocheDisplay *display, guint number, gboolean down, ClocheMachine *self)
{
    static const char *const names[] = {"left", "middle", "right",      "wheel-up",   "wheel-down",
                                        "side", "extra",  "wheel-left", "wheel-right"};
    if (number < G_N_ELEMENTS(names))
        send_event(self, "btn", control_arguments("b:down", down, "s:button", names[number], NULL));
}

static void absolute(ClocheDisplay *display, guint x, guint y, guint width, guint height, ClocheMachine *self)
{
    if (self->client)
        control_client_send(self->client, "x-cloche-pointer",
                            control_arguments("i:x", (int64_t)x, "i:y", (int64_t)y, "i:width", (int64_t)width,
                                              "i:height", (int64_t)height, NULL),
                            NULL, NULL);
}

static void relative(ClocheDisplay *display, int dx, int dy, ClocheMachine *self)
{
    if (dx)
        send_event(self, "rel", control_arguments("s:axis", "x", "i:value", (int64_t)dx, NULL));
    if (dy)
        send_event(self, "rel", control_arguments("s:axis", "y", "i:value", (int64_t)dy, NULL));
}

static void display_gone(gpointer data, GObject *display)
{
    ClocheMachine *self = data;
    self->display = NULL;
    machine_picture_detach(self);
}

void machine_display_forget(ClocheMachine *self)
{
    if (self->display)
        g_object_weak_unref(G_OBJECT(self->display), display_gone, self);
    self->display = NULL;
}

void cloche_machine_attach_display(ClocheMachine *self, ClocheDisplay *display)
{
    machine_display_forget(self);
    self->display = display;
    g_object_weak_ref(G_OBJECT(display), display_gone, self);
    g_signal_connect_object(display, "key", G_CALLBACK(key), self, 0);
    g_signal_connect_object(display, "button", G_CALLBACK(button), self, 0);
    g_signal_connect_object(display, "absolute", G_CALLBACK(absolute), self, 0);
    g_signal_connect_object(display, "relative", G_CALLBACK(relative), self, 0);
    if (!g_signal_handler_find(self, G_SIGNAL_MATCH_FUNC, 0, 0, NULL, ask_pointer, NULL))
        g_signal_connect(self, "figures", G_CALLBACK(ask_pointer), NULL);
    machine_display_connected(self);
}
