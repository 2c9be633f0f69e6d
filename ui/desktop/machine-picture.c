// SPDX-License-Identifier: GPL-2.0-or-later
// The small picture of a machine in the library: of a running one its screen, looked at every two seconds whether a
// console is open or not; of a saved one the last screen, which its monitor kept beside the state.
#include "ui/desktop/machine-private.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PICTURE_WIDTH    480
#define PICTURE_EVERY_US (2 * G_USEC_PER_SEC)

static void show(ClocheMachine *self, GdkPixbuf *picture)
{
    if (!picture)
        return;
    g_clear_object(&self->thumbnail);
    self->thumbnail = picture;
    g_signal_emit(self, machine_signals[MACHINE_CHANGED], 0);
}

// A small copy, smoothed.
static GdkPixbuf *shrink(cairo_surface_t *screen, int width, int height)
{
    int wide = MIN(PICTURE_WIDTH, width), high = MAX(1, height * wide / width);
    cairo_surface_t *small = cairo_image_surface_create(CAIRO_FORMAT_RGB24, wide, high);
    cairo_t *cr = cairo_create(small);
    cairo_scale(cr, (double)wide / width, (double)high / height);
    cairo_surface_mark_dirty(screen);
    cairo_set_source_surface(cr, screen, 0, 0);
    cairo_paint(cr);
    cairo_destroy(cr);
    GdkPixbuf *picture = gdk_pixbuf_get_from_surface(small, 0, 0, wide, high);
    cairo_surface_destroy(small);
    return picture;
}

static int member(JsonObject *data, const char *name)
{
    return json_object_get_int_member_with_default(data, name, 0);
}

static GdkPixbuf *from_memory(JsonObject *data, int fd)
{
    int width = member(data, "width"), height = member(data, "height"), stride = member(data, "stride");
    gsize size = member(data, "size");
    if (width <= 0 || height <= 0 || width > 8192 || height > 8192 || stride < width * 4 || stride % 4 != 0 ||
        size < (gsize)stride * height)
        return NULL;
    void *memory = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return NULL;
    cairo_surface_t *screen = cairo_image_surface_create_for_data(memory, CAIRO_FORMAT_RGB24, width, height, stride);
    GdkPixbuf *picture = shrink(screen, width, height);
    cairo_surface_destroy(screen);
    munmap(memory, size);
    return picture;
}

static void looked(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    ClocheMachine *self = opaque;
    if (error || !fd_count || !JSON_NODE_HOLDS_OBJECT(value))
        return; // a machine without a screen
    show(self, from_memory(json_node_get_object(value), fds[0]));
    close(fds[0]);
    fds[0] = -1;
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
        show(self, shrink(screen, cairo_image_surface_get_width(screen), cairo_image_surface_get_height(screen)));
    else if (!self->display)
        control_client_send(self->client, "x-cloche-attach-display", control_arguments("i:head", (int64_t)0, NULL),
                            looked, self);
}

void machine_picture_from_disk(ClocheMachine *self)
{
    g_autofree char *resume = cloche_machine_get_option(self, "Machine", "resume");
    g_autofree char *path = resume && *resume ? g_build_filename(self->folder, resume, "screen.png", NULL) : NULL;
    g_clear_object(&self->thumbnail);
    if (path && g_file_test(path, G_FILE_TEST_EXISTS))
        self->thumbnail = gdk_pixbuf_new_from_file_at_size(path, PICTURE_WIDTH, PICTURE_WIDTH, NULL);
}
