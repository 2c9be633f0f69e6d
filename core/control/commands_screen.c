// SPDX-License-Identifier: GPL-2.0-or-later
// Screenshots, and the display passed to a client: its memory as a descriptor, then damage, cursor and new sizes as
// events. A client that is slow gets fewer and larger updates; it never holds the adapter up.
#include "core/control/server.h"
#include "core/screen/surface.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define VIEW_BACKLOG 65536 // bytes unread by the client above which updates are held back

// One head seen by one client. Listener callbacks (any thread) only set flags and wake SOURCE; all else happens on the
// main loop.
struct display_view {
    struct qmp_client *client;
    struct surface *surface;
    struct surface_listener *listener;
    unsigned head;
    GSource *source;
    struct pixels *shadow; // where the adapter's own memory cannot be passed on
    _Atomic bool resized, damaged, cursor_changed, cursor_moved;
    bool waiting; // for the client to read
};

static void view_wake(struct display_view *view)
{
    g_source_set_ready_time(view->source, 0);
}

static void on_resized(void *opaque, struct surface *surface, struct pixels *pixels)
{
    struct display_view *view = opaque;
    view->resized = true;
    view_wake(view);
}

static void on_damaged(void *opaque, struct surface *surface, const struct rectangle *rectangle)
{
    struct display_view *view = opaque;
    view->damaged = true;
    view_wake(view);
}

static void on_cursor(void *opaque, struct surface *surface, struct cursor *cursor)
{
    struct display_view *view = opaque;
    view->cursor_changed = true;
    view_wake(view);
}

static void on_cursor_moved(void *opaque, struct surface *surface, int x, int y)
{
    struct display_view *view = opaque;
    view->cursor_moved = true;
    view_wake(view);
}

static const struct surface_listener_ops listener_ops = {
    .resized = on_resized, .damaged = on_damaged, .cursor_changed = on_cursor, .cursor_moved = on_cursor_moved};

// ---- Messages ----

// A descriptor of the memory that cannot write to it; the caller's.
static int read_only_descriptor(int memfd)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", memfd);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 ? fd : fcntl(memfd, F_DUPFD_CLOEXEC, 0);
}

// Copies RECTANGLE of SOURCE into the shadow.
static void copy_pixels(struct pixels *to, const struct pixels *from, const struct rectangle *rectangle)
{
    for (int y = rectangle->y; y < rectangle->y + rectangle->height && y < (int)MIN(from->height, to->height); y++)
        memcpy(to->data + (size_t)y * to->stride + rectangle->x * 4,
               from->data + (size_t)y * from->stride + rectangle->x * 4, (size_t)rectangle->width * 4);
}

static JsonObject *geometry(struct display_view *view, const struct pixels *pixels)
{
    JsonObject *data = json_object_new();
    json_object_set_int_member(data, "head", view->head);
    json_object_set_int_member(data, "width", pixels->width);
    json_object_set_int_member(data, "height", pixels->height);
    json_object_set_int_member(data, "stride", pixels->stride);
    json_object_set_int_member(data, "size", pixels->size);
    json_object_set_string_member(data, "format", "x8r8g8b8");
    return data;
}

// Describes the present pixels; *FD is the caller's, -1 when the host has no descriptors left.
static JsonObject *present_pixels(struct display_view *view, int *fd)
{
    struct pixels *pixels = surface_pixels(view->surface);
    g_clear_pointer(&view->shadow, pixels_unref);
    if (pixels->memfd < 0) {
        view->shadow = pixels_new(pixels->width, pixels->height);
        if (view->shadow)
            copy_pixels(view->shadow, pixels, &(struct rectangle){0, 0, pixels->width, pixels->height});
    }
    struct pixels *passed = view->shadow ? view->shadow : pixels;
    *fd = passed->memfd >= 0 ? read_only_descriptor(passed->memfd) : -1;
    JsonObject *data = geometry(view, passed);
    pixels_unref(pixels);
    return data;
}

static void emit_damage(struct display_view *view, const struct damage *damage)
{
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < damage->count; i++) {
        const struct rectangle *r = &damage->rectangles[i];
        const int values[] = {r->x, r->y, r->width, r->height};
        JsonArray *entry = json_array_new();
        for (unsigned n = 0; n < 4; n++)
            json_array_add_int_element(entry, values[n]);
        json_array_add_array_element(list, entry);
    }
    JsonObject *data = json_object_new();
    json_object_set_int_member(data, "head", view->head);
    json_object_set_array_member(data, "rectangles", list);
    qmp_client_emit(view->client, "X_CLOCHE_DISPLAY_DAMAGE", qmp_node_object(data), NULL, 0);
}

// A guest that flips between buffers of one size shows other pixels with each frame: the client keeps the memory that
// it has, where they are copied to.
static bool flipped(struct display_view *view)
{
    struct pixels *pixels = surface_pixels(view->surface);
    bool same = view->shadow && pixels->memfd < 0 && pixels->width == view->shadow->width &&
                pixels->height == view->shadow->height;
    if (same) {
        struct damage all = {.count = 1, .rectangles = {{0, 0, pixels->width, pixels->height}}};
        copy_pixels(view->shadow, pixels, &all.rectangles[0]);
        emit_damage(view, &all);
    }
    pixels_unref(pixels);
    return same;
}

static void send_resized(struct display_view *view)
{
    int fd;
    if (flipped(view))
        return;
    JsonObject *data = present_pixels(view, &fd);
    if (fd >= 0)
        qmp_client_emit(view->client, "X_CLOCHE_DISPLAY_RESIZE", qmp_node_object(data), &fd, 1);
    else
        json_object_unref(data);
    if (fd >= 0)
        close(fd);
}

static void send_damage(struct display_view *view)
{
    struct damage damage = {0};
    surface_take_damage(view->listener, &damage);
    if (!damage.count)
        return;
    if (view->shadow) {
        struct pixels *pixels = surface_pixels(view->surface);
        for (unsigned i = 0; i < damage.count; i++)
            if (pixels->width == view->shadow->width)
                copy_pixels(view->shadow, pixels, &damage.rectangles[i]);
        pixels_unref(pixels);
    }
    emit_damage(view, &damage);
}

// The cursor's picture in memory of its own (premultiplied ARGB, width * 4 bytes a row).
static int cursor_memory(const struct cursor *cursor)
{
    size_t size = (size_t)cursor->width * cursor->height * 4;
    int fd = memfd_create("cloche-cursor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && (ftruncate(fd, size) != 0 || pwrite(fd, cursor->argb, size, 0) != (ssize_t)size)) {
        close(fd);
        return -1;
    }
    if (fd >= 0)
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    return fd;
}

static void send_cursor(struct display_view *view, bool picture)
{
    int x = 0, y = 0, fd = -1;
    struct cursor *cursor = surface_cursor(view->surface, &x, &y);
    JsonObject *data = json_object_new();
    json_object_set_int_member(data, "head", view->head);
    json_object_set_int_member(data, "x", x);
    json_object_set_int_member(data, "y", y);
    if (picture) {
        json_object_set_boolean_member(data, "visible", cursor != NULL);
        fd = cursor ? cursor_memory(cursor) : -1;
    }
    if (picture && cursor) {
        json_object_set_int_member(data, "width", cursor->width);
        json_object_set_int_member(data, "height", cursor->height);
        json_object_set_int_member(data, "hot-x", cursor->hot_x);
        json_object_set_int_member(data, "hot-y", cursor->hot_y);
    }
    qmp_client_emit(view->client, picture ? "X_CLOCHE_DISPLAY_CURSOR" : "X_CLOCHE_DISPLAY_CURSOR_MOVED",
                    qmp_node_object(data), &fd, fd >= 0);
    if (fd >= 0)
        close(fd);
    if (cursor)
        cursor_unref(cursor);
}

static void view_drained(void *opaque)
{
    struct display_view *view = opaque;
    view->waiting = false;
    view_wake(view);
}

static gboolean view_ready(gpointer opaque)
{
    struct display_view *view = opaque;
    g_source_set_ready_time(view->source, -1);
    if (view->waiting)
        return G_SOURCE_CONTINUE;
    if (qmp_client_backlog(view->client) > VIEW_BACKLOG) {
        view->waiting = true;
        qmp_client_when_drained(view->client, view_drained, view);
        return G_SOURCE_CONTINUE;
    }
    if (atomic_exchange(&view->resized, false))
        send_resized(view);
    if (atomic_exchange(&view->damaged, false))
        send_damage(view);
    bool picture = atomic_exchange(&view->cursor_changed, false);
    if (atomic_exchange(&view->cursor_moved, false) || picture)
        send_cursor(view, picture);
    return G_SOURCE_CONTINUE;
}

static gboolean dispatch_source(GSource *source, GSourceFunc callback, gpointer data)
{
    return callback(data);
}

static GSourceFuncs source_functions = {.dispatch = dispatch_source};

// ---- Attaching ----

static void view_free(gpointer data)
{
    struct display_view *view = data;
    surface_detach(view->listener);
    g_source_destroy(view->source);
    g_source_unref(view->source);
    g_clear_pointer(&view->shadow, pixels_unref);
    g_free(view);
}

static GPtrArray *client_views(struct qmp_client *client)
{
    GPtrArray *views = qmp_client_data(client);
    if (!views) {
        views = g_ptr_array_new_with_free_func(view_free);
        qmp_client_set_data(client, views);
    }
    return views;
}

void control_display_client_gone(struct qmp_client *client)
{
    GPtrArray *views = qmp_client_data(client);
    if (views)
        g_ptr_array_free(views, TRUE);
    qmp_client_set_data(client, NULL);
}

static struct surface *find_head(struct qmp_call *call, GError **error)
{
    struct machine *machine = call_machine(call);
    unsigned head = qmp_int(call, "head", 0);
    struct surface *surface = machine->screen ? screen_head(machine->screen, head) : NULL;
    if (!surface)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "The machine has no display %u", head);
    return surface;
}

static bool detach_head(struct qmp_client *client, unsigned head)
{
    GPtrArray *views = client_views(client);
    for (unsigned i = 0; i < views->len; i++)
        if (((struct display_view *)views->pdata[i])->head == head) {
            g_ptr_array_remove_index(views, i);
            return true;
        }
    return false;
}

static JsonNode *attach_display(struct qmp_call *call, GError **error)
{
    struct surface *surface = find_head(call, error);
    if (!surface)
        return NULL;
    struct display_view *view = g_new0(struct display_view, 1);
    view->client = call->client;
    view->surface = surface;
    view->head = qmp_int(call, "head", 0);
    detach_head(call->client, view->head);
    view->source = g_source_new(&source_functions, sizeof(GSource));
    g_source_set_callback(view->source, view_ready, view, NULL);
    g_source_attach(view->source, call_machine(call)->context);
    view->listener = surface_attach(surface, &listener_ops, view);
    struct damage everything = {0};
    surface_take_damage(view->listener, &everything); // the client draws all of it once
    g_ptr_array_add(client_views(call->client), view);
    view->cursor_changed = true; // tell the present one
    view_wake(view);
    int fd;
    JsonObject *data = present_pixels(view, &fd);
    if (fd < 0) {
        json_object_unref(data);
        detach_head(call->client, view->head);
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED,
                    "The host has no descriptors or memory left for the display");
        return NULL;
    }
    call->fds[call->fd_count++] = fd;
    return qmp_node_object(data);
}

static JsonNode *detach_display(struct qmp_call *call, GError **error)
{
    if (find_head(call, error) && !detach_head(call->client, qmp_int(call, "head", 0)))
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "This display is not attached");
    return NULL;
}

static JsonNode *wish_size(struct qmp_call *call, GError **error)
{
    struct surface *surface = find_head(call, error);
    if (surface)
        surface_wish_size(surface, qmp_int(call, "width", 0), qmp_int(call, "height", 0));
    return NULL;
}

static JsonNode *query_displays(struct qmp_call *call, GError **error)
{
    struct machine *machine = call_machine(call);
    JsonArray *list = json_array_new();
    for (unsigned head = 0; machine->screen && head < screen_heads(machine->screen); head++) {
        struct surface *surface = screen_head(machine->screen, head);
        struct pixels *pixels = surface_pixels(surface);
        JsonObject *entry = json_object_new();
        json_object_set_int_member(entry, "head", head);
        json_object_set_int_member(entry, "width", pixels->width);
        json_object_set_int_member(entry, "height", pixels->height);
        json_object_set_int_member(entry, "listeners", surface_listeners(surface));
        json_array_add_object_element(list, entry);
        pixels_unref(pixels);
    }
    return qmp_node_array(list);
}

static const char *const formats[] = {[PICTURE_PNG] = "png", [PICTURE_PPM] = "ppm", NULL};

static JsonNode *screendump(struct qmp_call *call, GError **error)
{
    struct surface *surface = find_head(call, error);
    enum picture_format format = g_strcmp0(qmp_string(call, "format"), "ppm") == 0 ? PICTURE_PPM : PICTURE_PNG;
    if (surface)
        surface_write_picture(surface, qmp_string(call, "filename"), format, qmp_bool(call, "x-cloche-cursor", false),
                              error);
    return NULL;
}

#define HEAD QMP_MAY("head", QMP_INT, .min = 0, .max = 15)
static const struct qmp_argument head_arguments[] = {HEAD, QMP_END};
static const struct qmp_argument size_arguments[] = {
    HEAD, QMP_NEED("width", QMP_INT, .min = 0, .max = SURFACE_MAX_WIDTH),
    QMP_NEED("height", QMP_INT, .min = 0, .max = SURFACE_MAX_HEIGHT), QMP_END};
static const struct qmp_argument dump_arguments[] = {
    QMP_NEED("filename", QMP_STRING),     HEAD,
    QMP_MAY("device", QMP_STRING),        QMP_MAY("format", QMP_STRING, .choices = formats),
    QMP_MAY("x-cloche-cursor", QMP_BOOL), QMP_END};

const struct qmp_command control_screen_commands[] = {
    QMP_REQUEST("screendump", screendump, dump_arguments, QMP_ANY_STATE,
                "Writes the screen as a PNG file, or as PPM if asked for."),
    QMP_REQUEST("x-cloche-attach-display", attach_display, head_arguments, QMP_ANY_STATE,
                "Passes the display's memory; events about it follow on this connection."),
    QMP_REQUEST("x-cloche-detach-display", detach_display, head_arguments, QMP_ANY_STATE, "Ends those events."),
    QMP_REQUEST("x-cloche-wish-size", wish_size, size_arguments, QMP_ANY_STATE, "The size that the viewer would like."),
    QMP_REQUEST("x-cloche-query-displays", query_displays, NULL, QMP_ANY_STATE, "The heads and their sizes."),
    QMP_END,
};
