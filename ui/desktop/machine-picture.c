// SPDX-License-Identifier: GPL-2.0-or-later
// The small picture of a machine in the library: of a running one its screen, looked at every two seconds whether a
// console is open or not; of a saved one the last screen, which its monitor kept beside the state.
#include "ui/desktop/machine-private.h"

#define PICTURE_WIDTH    576 // the details show it 288 wide, at twice the resolution on fine screens
#define PICTURE_EVERY_US (2 * G_USEC_PER_SEC)

static void show(ClocheMachine *self, GdkPixbuf *picture)
{
    g_clear_object(&self->thumbnail);
    self->thumbnail = picture;
    g_signal_emit(self, machine_signals[MACHINE_CHANGED], 0);
}

// ---- A small copy, smoothed: beside the main loop ----
static void shrink_in_thread(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
    cairo_surface_t *whole = data; // the main loop may draw it meanwhile: the same pixels in a surface of this thread
    int width = cairo_image_surface_get_width(whole), height = cairo_image_surface_get_height(whole);
    int wide = MIN(PICTURE_WIDTH, width), high = MAX(1, height * wide / width);
    cairo_surface_t *screen = cairo_image_surface_create_for_data(
        cairo_image_surface_get_data(whole), CAIRO_FORMAT_RGB24, width, height, cairo_image_surface_get_stride(whole));
    cairo_surface_t *small = cairo_image_surface_create(CAIRO_FORMAT_RGB24, wide, high);
    cairo_t *cr = cairo_create(small);
    cairo_scale(cr, (double)wide / width, (double)high / height);
    cairo_set_source_surface(cr, screen, 0, 0);
    cairo_paint(cr);
    cairo_destroy(cr);
    cairo_surface_destroy(screen);
    g_task_return_pointer(task, gdk_pixbuf_get_from_surface(small, 0, 0, wide, high), g_object_unref);
    cairo_surface_destroy(small);
}

static void shrunk(GObject *machine, GAsyncResult *result, gpointer data)
{
    GdkPixbuf *picture = g_task_propagate_pointer(G_TASK(result), NULL);
    if (picture)
        show(CLOCHE_MACHINE(machine), picture);
}

static void shrink(ClocheMachine *self, cairo_surface_t *screen)
{
    g_autoptr(GTask) task = g_task_new(self, NULL, shrunk, NULL);
    g_task_set_task_data(task, cairo_surface_reference(screen), (GDestroyNotify)cairo_surface_destroy);
    g_task_run_in_thread(task, shrink_in_thread);
}

static int member(JsonObject *data, const char *name)
{
    return json_object_get_int_member_with_default(data, name, 0);
}

static void looked(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    ClocheMachine *self = opaque;
    if (error || !fd_count || !JSON_NODE_HOLDS_OBJECT(value))
        return; // a machine without a screen
    JsonObject *data = json_node_get_object(value);
    cairo_surface_t *screen =
        cloche_display_map(fds[0], member(data, "width"), member(data, "height"), member(data, "stride"),
                           json_object_get_int_member_with_default(data, "size", 0), NULL);
    fds[0] = -1;
    if (screen)
        shrink(self, screen);
    g_clear_pointer(&screen, cairo_surface_destroy);
    if (!self->display) // else a console has taken the place of this look
        machine_picture_detach(self);
}

void machine_picture_detach(ClocheMachine *self)
{
    if (self->client)
        control_client_send(self->client, "x-cloche-detach-display", control_arguments("i:head", (int64_t)0, NULL),
                            NULL, NULL);
}

void machine_picture_look(ClocheMachine *self)
{
    gint64 now = g_get_monotonic_time();
    if (!self->client || now - self->thumbnail_time < PICTURE_EVERY_US ||
        (self->state != CLOCHE_STATE_RUNNING && self->state == self->pictured))
        return;
    self->thumbnail_time = now;
    self->pictured = self->state; // a machine that stands still is looked at once more
    cairo_surface_t *screen = self->display ? cloche_display_get_picture(self->display) : NULL;
    if (screen)
        shrink(self, screen);
    else if (!self->display)
        control_client_send(self->client, "x-cloche-attach-display", control_arguments("i:head", (int64_t)0, NULL),
                            looked, self);
}

// The last screen of a saved machine, else the picture that its definition names, if any.
static char *picture_path(ClocheMachine *self)
{
    g_autofree char *resume = cloche_machine_get_option(self, "Machine", "resume"),
                    *icon = cloche_machine_get_option(self, "Machine", "icon");
    char *path = resume && *resume ? g_build_filename(self->folder, resume, "screen.png", NULL)
                 : icon && *icon   ? g_build_filename(self->folder, icon, NULL)
                                   : NULL;
    if (path && !g_file_test(path, G_FILE_TEST_IS_REGULAR))
        g_clear_pointer(&path, g_free);
    return path;
}

static void read_in_thread(GTask *task, gpointer source, gpointer path, GCancellable *cancellable)
{
    g_task_return_pointer(task, gdk_pixbuf_new_from_file_at_size(path, PICTURE_WIDTH, PICTURE_WIDTH, NULL),
                          g_object_unref);
}

static void picture_read(GObject *machine, GAsyncResult *result, gpointer data)
{
    ClocheMachine *self = CLOCHE_MACHINE(machine);
    GdkPixbuf *picture = g_task_propagate_pointer(G_TASK(result), NULL);
    if (picture && !self->client)
        show(self, picture);
    else
        g_clear_object(&picture);
}

void machine_picture_from_disk(ClocheMachine *self)
{
    char *path = picture_path(self);
    g_clear_object(&self->thumbnail);
    if (!path)
        return;
    g_autoptr(GTask) task = g_task_new(self, NULL, picture_read, NULL);
    g_task_set_task_data(task, path, g_free);
    g_task_run_in_thread(task, read_in_thread);
}
