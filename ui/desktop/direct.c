// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/direct.h"

#ifdef GDK_WINDOWING_X11
#include <fcntl.h>
#include <gdk/gdkx.h>
#include <stdlib.h>
#include <xcb/shm.h>
#include <xcb/xcb.h>

#define DEPTH 24

struct direct {
    xcb_connection_t *connection;
    xcb_shm_seg_t segment;
    xcb_gcontext_t context;
    xcb_window_t window; // that CONTEXT was made for
    guint width, height, stride;
    gboolean attached;
};

static gboolean can_share(xcb_connection_t *connection)
{
    const xcb_query_extension_reply_t *extension = xcb_get_extension_data(connection, &xcb_shm_id);
    if (!extension || !extension->present)
        return FALSE;
    xcb_shm_query_version_reply_t *version =
        xcb_shm_query_version_reply(connection, xcb_shm_query_version(connection), NULL);
    gboolean good = version && (version->major_version > 1 || version->minor_version >= 2); // descriptors
    free(version);
    return good;
}

struct direct *direct_new(GtkWidget *widget)
{
    GdkDisplay *display = gtk_widget_get_display(widget);
    const char *name = gdk_display_get_name(display);
    if (!GDK_IS_X11_DISPLAY(display) || name[0] != ':' || // memory is only shared on this host
        gdk_visual_get_depth(gtk_widget_get_visual(widget)) != DEPTH)
        return NULL;
    xcb_connection_t *connection = xcb_connect(name, NULL);
    if (xcb_connection_has_error(connection) || !can_share(connection)) {
        xcb_disconnect(connection);
        return NULL;
    }
    struct direct *direct = g_new0(struct direct, 1);
    direct->connection = connection;
    direct->segment = xcb_generate_id(connection);
    direct->context = xcb_generate_id(connection);
    return direct;
}

void direct_free(struct direct *direct)
{
    if (!direct)
        return;
    xcb_disconnect(direct->connection); // the server forgets the memory with it
    g_free(direct);
}

gboolean direct_set_memory(struct direct *direct, int memfd, guint width, guint height, guint stride)
{
    if (direct->attached)
        xcb_shm_detach(direct->connection, direct->segment);
    int fd = fcntl(memfd, F_DUPFD_CLOEXEC, 0); // goes with the request
    xcb_void_cookie_t cookie = xcb_shm_attach_fd_checked(direct->connection, direct->segment, fd, 1);
    xcb_generic_error_t *error = fd >= 0 ? xcb_request_check(direct->connection, cookie) : NULL;
    direct->attached = fd >= 0 && !error;
    direct->width = width;
    direct->height = height;
    direct->stride = stride;
    free(error);
    return direct->attached;
}

// ---- What of the window can be seen ----
// From WINDOW up to the one that the X server knows: its place there.
static GdkWindow *find_native(GdkWindow *window, int *x, int *y)
{
    for (*x = *y = 0; !gdk_window_has_native(window); window = gdk_window_get_parent(window)) {
        int left, top;
        gdk_window_get_position(window, &left, &top);
        *x += left;
        *y += top;
    }
    return window;
}

static cairo_rectangle_int_t extents(GdkWindow *window)
{
    cairo_rectangle_int_t r;
    gdk_window_get_position(window, &r.x, &r.y);
    r.width = gdk_window_get_width(window);
    r.height = gdk_window_get_height(window);
    return r;
}

// Within WINDOW: what its parents show of it and no window of this program (a bar, a popover, a scroll bar) lies over.
static cairo_region_t *seen_region(GdkWindow *window)
{
    cairo_rectangle_int_t all = extents(window);
    all.x = all.y = 0;
    cairo_region_t *seen = cairo_region_create_rectangle(&all);
    int x = 0, y = 0; // of the present level within WINDOW
    for (GdkWindow *at = window; !gdk_window_has_native(at); at = gdk_window_get_parent(at)) {
        GdkWindow *parent = gdk_window_get_parent(at);
        cairo_rectangle_int_t own = extents(at);
        x -= own.x;
        y -= own.y;
        const cairo_rectangle_int_t room = {x, y, gdk_window_get_width(parent), gdk_window_get_height(parent)};
        cairo_region_intersect_rectangle(seen, &room);
        for (GList *l = gdk_window_peek_children(parent); l && l->data != at; l = l->next) { // the topmost first
            cairo_rectangle_int_t over = extents(l->data);
            over.x += x;
            over.y += y;
            if (gdk_window_is_visible(l->data) && gdk_window_get_window_type(l->data) != GDK_WINDOW_OFFSCREEN)
                cairo_region_subtract_rectangle(seen, &over);
        }
    }
    return seen;
}

// ---- Drawing ----
static void use_context(struct direct *direct, xcb_window_t window)
{
    const uint32_t no_exposures = 0;
    if (direct->window == window)
        return;
    if (direct->window)
        xcb_free_gc(direct->connection, direct->context);
    xcb_create_gc(direct->connection, direct->context, window, XCB_GC_GRAPHICS_EXPOSURES, &no_exposures);
    direct->window = window;
}

// R in device pixels of the server's window, the picture's first pixel at LEFT, TOP there.
static void put(struct direct *direct, int left, int top, cairo_rectangle_int_t r)
{
    int right = MIN(r.x + r.width, left + (int)direct->width), bottom = MIN(r.y + r.height, top + (int)direct->height);
    int x = MAX(r.x, left), y = MAX(r.y, top);
    if (x >= right || y >= bottom)
        return;
    xcb_shm_put_image(direct->connection, direct->window, direct->context, direct->stride / 4, direct->height, x - left,
                      y - top, right - x, bottom - y, x, y, DEPTH, XCB_IMAGE_FORMAT_Z_PIXMAP, 0, direct->segment, 0);
}

// A refusal: GTK draws from now on.
static void look_for_errors(struct direct *direct)
{
    xcb_generic_event_t *event;
    while ((event = xcb_poll_for_event(direct->connection))) {
        if (event->response_type == 0)
            direct->attached = FALSE;
        free(event);
    }
    if (xcb_connection_has_error(direct->connection))
        direct->attached = FALSE;
}

void direct_draw(struct direct *direct, GdkWindow *window, int left, int top, cairo_region_t *area)
{
    int x, y, factor = gdk_window_get_scale_factor(window);
    look_for_errors(direct);
    if (!direct->attached)
        return;
    GdkWindow *native = find_native(window, &x, &y);
    cairo_region_t *seen = seen_region(window);
    use_context(direct, gdk_x11_window_get_xid(native));
    cairo_region_intersect(seen, area);
    cairo_region_subtract(area, seen);
    for (int i = 0; i < cairo_region_num_rectangles(seen); i++) {
        cairo_rectangle_int_t r;
        cairo_region_get_rectangle(seen, i, &r);
        r = (cairo_rectangle_int_t){(r.x + x) * factor, (r.y + y) * factor, r.width * factor, r.height * factor};
        put(direct, left + x * factor, top + y * factor, r);
    }
    xcb_flush(direct->connection);
    cairo_region_destroy(seen);
}

#else
struct direct *direct_new(GtkWidget *widget)
{
    return NULL;
}

void direct_free(struct direct *direct)
{
}

gboolean direct_set_memory(struct direct *direct, int memfd, guint width, guint height, guint stride)
{
    return FALSE;
}

void direct_draw(struct direct *direct, GdkWindow *window, int left, int top, cairo_region_t *area)
{
}
#endif
