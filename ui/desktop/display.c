// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/display.h"
#include "core/screen/input.h"
#include "ui/desktop/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DRAW_EVERY_US 12000

struct _ClocheDisplay {
    GtkDrawingArea parent_instance;
    cairo_surface_t *picture; // owns the mapping
    struct direct *direct;    // NULL: GTK draws
    guint width, height;
    ClocheScale scale;
    gboolean absolute, grabbed, capture;
    guint release_key;
    GdkModifierType release_modifiers;
    char *veil;
    GdkCursor *cursor;
    GHashTable *keys_down; // evdev codes
    double last_x, last_y;
    cairo_region_t *damaged; // not drawn yet; NULL: nothing
    guint damage_source;
    gint64 shown; // when it was last drawn
    guint64 frames;
};
G_DEFINE_TYPE(ClocheDisplay, cloche_display, GTK_TYPE_DRAWING_AREA)

enum {
    SIGNAL_KEY,
    SIGNAL_ABSOLUTE,
    SIGNAL_RELATIVE,
    SIGNAL_BUTTON,
    SIGNAL_GRAB,
    SIGNAL_RELEASED,
    SIGNAL_GEOMETRY,
    SIGNAL_WISH,
    SIGNAL_COUNT
};
static guint signals[SIGNAL_COUNT];

// ---- Geometry: from guest pixels to the widget ----
struct placement {
    double x, y, zoom; // in widget units (a device pixel is 1 / scale factor)
};

static struct placement place(ClocheDisplay *self)
{
    GtkWidget *widget = GTK_WIDGET(self);
    double factor = gtk_widget_get_scale_factor(widget);
    double wide = gtk_widget_get_allocated_width(widget) * factor,
           high = gtk_widget_get_allocated_height(widget) * factor;
    double fit = self->width && self->height ? MIN(wide / self->width, high / self->height) : 1;
    double zoom = 1;
    if (self->scale == CLOCHE_SCALE_FIT)
        zoom = fit;
    else if (self->scale == CLOCHE_SCALE_INTEGER)
        zoom = MAX(1, floor(fit));
    // Whole device pixels, so that 1:1 is never blurred.
    double x = MAX(0, floor((wide - self->width * zoom) / 2)), y = MAX(0, floor((high - self->height * zoom) / 2));
    return (struct placement){x / factor, y / factor, zoom / factor};
}

static gboolean to_guest(ClocheDisplay *self, double x, double y, guint *guest_x, guint *guest_y)
{
    if (!self->width || !self->height)
        return FALSE;
    struct placement at = place(self);
    double gx = floor((x - at.x) / at.zoom), gy = floor((y - at.y) / at.zoom);
    *guest_x = CLAMP(gx, 0, self->width - 1);
    *guest_y = CLAMP(gy, 0, self->height - 1);
    return TRUE;
}

// ---- Drawing ----
static void draw_veil(ClocheDisplay *self, cairo_t *cr)
{
    GtkWidget *widget = GTK_WIDGET(self);
    cairo_set_source_rgba(cr, 0, 0, 0, .55);
    cairo_paint(cr);
    g_autoptr(PangoLayout) layout = gtk_widget_create_pango_layout(widget, self->veil);
    g_autoptr(PangoFontDescription) font = pango_font_description_from_string("Sans Bold 18");
    pango_layout_set_font_description(layout, font);
    pango_layout_set_alignment(layout, PANGO_ALIGN_CENTER);
    pango_layout_set_wrap(layout, PANGO_WRAP_WORD_CHAR);
    int wide = gtk_widget_get_allocated_width(widget), high = gtk_widget_get_allocated_height(widget), text_high;
    pango_layout_set_width(layout, (wide - 48) * PANGO_SCALE);
    pango_layout_get_pixel_size(layout, NULL, &text_high);
    cairo_move_to(cr, 24, (high - text_high) / 2.0);
    cairo_set_source_rgb(cr, 1, 1, 1);
    pango_cairo_show_layout(cr, layout);
}

static gboolean display_draw(GtkWidget *widget, cairo_t *cr)
{
    ClocheDisplay *self = CLOCHE_DISPLAY(widget);
    cairo_set_source_rgb(cr, 0, 0, 0);
    cairo_paint(cr);
    if (self->picture) {
        struct placement at = place(self);
        double zoom = at.zoom * gtk_widget_get_scale_factor(widget);
        cairo_surface_mark_dirty(self->picture);
        cairo_save(cr);
        cairo_translate(cr, at.x, at.y);
        cairo_scale(cr, at.zoom, at.zoom);
        cairo_set_source_surface(cr, self->picture, 0, 0);
        cairo_pattern_set_filter(cairo_get_source(cr), zoom == floor(zoom) ? CAIRO_FILTER_NEAREST : CAIRO_FILTER_GOOD);
        cairo_rectangle(cr, 0, 0, self->width, self->height);
        cairo_fill(cr);
        cairo_restore(cr);
        self->frames++;
    }
    if (self->veil)
        draw_veil(self, cr);
    return TRUE;
}

// Pixel for pixel the X server takes them from the monitor's memory by itself; GTK would copy them three times. AREA
// keeps what GTK must draw.
static void draw_directly(ClocheDisplay *self, cairo_region_t *area)
{
    GtkWidget *widget = GTK_WIDGET(self);
    int factor = gtk_widget_get_scale_factor(widget);
    struct placement at = place(self);
    if (!self->direct || self->veil || at.zoom * factor != 1 || !gtk_widget_get_mapped(widget))
        return;
    direct_draw(self->direct, gtk_widget_get_window(widget), (int)(at.x * factor), (int)(at.y * factor), area);
    self->frames++;
}

static gboolean show_damaged(gpointer data)
{
    ClocheDisplay *self = data;
    self->damage_source = 0;
    self->shown = g_get_monotonic_time();
    draw_directly(self, self->damaged);
    gtk_widget_queue_draw_region(GTK_WIDGET(self), self->damaged);
    g_clear_pointer(&self->damaged, cairo_region_destroy);
    return G_SOURCE_REMOVE;
}

// What changes together is drawn together; a guest that draws faster than screens show is not followed everywhere.
void cloche_display_damage(ClocheDisplay *self, int x, int y, int width, int height)
{
    struct placement at = place(self);
    double left = floor(at.x + x * at.zoom) - 1, top = floor(at.y + y * at.zoom) - 1;
    double right = ceil(at.x + (x + width) * at.zoom) + 1, bottom = ceil(at.y + (y + height) * at.zoom) + 1;
    const cairo_rectangle_int_t bounds = {(int)left, (int)top, (int)(right - left), (int)(bottom - top)};
    if (!self->damaged)
        self->damaged = cairo_region_create();
    cairo_region_union_rectangle(self->damaged, &bounds);
    gint64 wait = (self->shown + DRAW_EVERY_US - g_get_monotonic_time()) / 1000;
    if (!self->damage_source)
        self->damage_source = g_timeout_add_full(G_PRIORITY_DEFAULT, (guint)MAX(wait, 0), show_damaged, self, NULL);
}

static void ask_size(ClocheDisplay *self)
{
    int factor = gtk_widget_get_scale_factor(GTK_WIDGET(self));
    gboolean natural = self->scale == CLOCHE_SCALE_PIXEL;
    gtk_widget_set_size_request(GTK_WIDGET(self), natural ? (int)(self->width + factor - 1) / factor : -1,
                                natural ? (int)(self->height + factor - 1) / factor : -1);
}

struct mapping {
    void *data;
    gsize size;
};

static void unmap(gpointer data)
{
    struct mapping *mapping = data;
    munmap(mapping->data, mapping->size);
    g_free(mapping);
}

cairo_surface_t *cloche_display_map(int memfd, guint width, guint height, guint stride, gsize size, GError **error)
{
    static const cairo_user_data_key_t key;
    void *data = MAP_FAILED;
    if (width && height && width <= 8192 && height <= 8192 && stride >= width * 4 && stride % 4 == 0 &&
        size >= (gsize)stride * height)
        data = mmap(NULL, size, PROT_READ, MAP_SHARED, memfd, 0);
    else
        errno = EINVAL;
    int e = errno;
    close(memfd);
    if (data == MAP_FAILED) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(e), "The machine's screen memory cannot be shown: %s",
                    g_strerror(e));
        return NULL;
    }
    struct mapping *mapping = g_new(struct mapping, 1);
    *mapping = (struct mapping){data, size};
    cairo_surface_t *picture = cairo_image_surface_create_for_data(data, CAIRO_FORMAT_RGB24, width, height, stride);
    cairo_surface_set_user_data(picture, &key, mapping, unmap);
    return picture;
}

// MEMFD stays the caller's; -1: none.
static void share_with_server(ClocheDisplay *self, int memfd, guint width, guint height, guint stride)
{
    if (!self->direct && memfd >= 0)
        self->direct = direct_new(GTK_WIDGET(self));
    if (self->direct && (memfd < 0 || !direct_set_memory(self->direct, memfd, width, height, stride)))
        g_clear_pointer(&self->direct, direct_free);
}

gboolean cloche_display_set_memory(ClocheDisplay *self, int memfd, guint width, guint height, guint stride, gsize size,
                                   GError **error)
{
    int again = fcntl(memfd, F_DUPFD_CLOEXEC, 0);
    cairo_surface_t *picture = cloche_display_map(memfd, width, height, stride, size, error);
    share_with_server(self, picture ? again : -1, width, height, stride);
    if (again >= 0)
        close(again);
    if (!picture)
        return FALSE;
    gboolean other_size = width != self->width || height != self->height;
    g_clear_pointer(&self->picture, cairo_surface_destroy);
    self->picture = picture;
    self->width = width;
    self->height = height;
    ask_size(self);
    gtk_widget_queue_draw(GTK_WIDGET(self));
    if (other_size)
        g_signal_emit(self, signals[SIGNAL_GEOMETRY], 0);
    return TRUE;
}

GdkPixbuf *cloche_display_snapshot(ClocheDisplay *self)
{
    return self->picture ? gdk_pixbuf_get_from_surface(self->picture, 0, 0, self->width, self->height) : NULL;
}

cairo_surface_t *cloche_display_get_picture(ClocheDisplay *self)
{
    return self->picture;
}

// ---- Cursor and grab ----
static void apply_cursor(ClocheDisplay *self)
{
    GdkWindow *window = gtk_widget_get_window(GTK_WIDGET(self));
    if (!window)
        return;
    if (self->absolute && self->cursor) {
        gdk_window_set_cursor(window, self->cursor);
    } else {
        const char *name = self->absolute || self->grabbed ? "none" : "default";
        g_autoptr(GdkCursor) cursor = gdk_cursor_new_from_name(gdk_window_get_display(window), name);
        gdk_window_set_cursor(window, cursor);
    }
}

void cloche_display_set_cursor(ClocheDisplay *self, const guint32 *argb, guint width, guint height, guint hot_x,
                               guint hot_y)
{
    g_clear_object(&self->cursor);
    if (argb && width && height && width <= 512 && height <= 512) {
        cairo_surface_t *image = cairo_image_surface_create(CAIRO_FORMAT_ARGB32, width, height);
        for (guint y = 0; y < height; y++)
            memcpy(cairo_image_surface_get_data(image) + y * cairo_image_surface_get_stride(image), argb + y * width,
                   width * 4);
        cairo_surface_mark_dirty(image);
        self->cursor = gdk_cursor_new_from_surface(gtk_widget_get_display(GTK_WIDGET(self)), image, hot_x, hot_y);
        cairo_surface_destroy(image);
    }
    apply_cursor(self);
}

static void grab(ClocheDisplay *self)
{
    GtkWidget *widget = GTK_WIDGET(self);
    GdkWindow *window = gtk_widget_get_window(widget);
    GdkSeat *seat = gdk_display_get_default_seat(gtk_widget_get_display(widget));
    g_autoptr(GdkCursor) none = gdk_cursor_new_from_name(gtk_widget_get_display(widget), "none");
    if (self->grabbed ||
        gdk_seat_grab(seat, window, GDK_SEAT_CAPABILITY_ALL, FALSE, none, NULL, NULL, NULL) != GDK_GRAB_SUCCESS)
        return;
    self->grabbed = TRUE;
    apply_cursor(self);
    g_signal_emit(self, signals[SIGNAL_GRAB], 0);
}

void cloche_display_ungrab(ClocheDisplay *self)
{
    if (!self->grabbed)
        return;
    self->grabbed = FALSE;
    gdk_seat_ungrab(gdk_display_get_default_seat(gtk_widget_get_display(GTK_WIDGET(self))));
    apply_cursor(self);
    g_signal_emit(self, signals[SIGNAL_GRAB], 0);
}

gboolean cloche_display_is_grabbed(ClocheDisplay *self)
{
    return self->grabbed;
}

void cloche_display_set_absolute(ClocheDisplay *self, gboolean absolute)
{
    if (absolute == self->absolute)
        return;
    if (absolute)
        cloche_display_ungrab(self);
    self->absolute = absolute;
    apply_cursor(self);
    g_signal_emit(self, signals[SIGNAL_GRAB], 0);
}

gboolean cloche_display_is_absolute(ClocheDisplay *self)
{
    return self->absolute;
}

void cloche_display_set_release_key(ClocheDisplay *self, const char *accelerator)
{
    guint key;
    GdkModifierType modifiers;
    gtk_accelerator_parse(accelerator, &key, &modifiers);
    if (!key)
        return;
    self->release_key = key;
    self->release_modifiers = modifiers;
    g_signal_emit(self, signals[SIGNAL_GRAB], 0);
}

char *cloche_display_get_release_label(ClocheDisplay *self)
{
    return gtk_accelerator_get_label(self->release_key, self->release_modifiers);
}

static void update_capture(ClocheDisplay *self)
{
    GtkWidget *widget = GTK_WIDGET(self);
    GdkWindow *window = gtk_widget_get_window(widget);
    if (!window || self->grabbed)
        return;
    GdkSeat *seat = gdk_display_get_default_seat(gtk_widget_get_display(widget));
    if (self->capture && gtk_widget_has_focus(widget))
        gdk_seat_grab(seat, window, GDK_SEAT_CAPABILITY_KEYBOARD, TRUE, NULL, NULL, NULL, NULL);
    else
        gdk_seat_ungrab(seat);
}

void cloche_display_set_capture(ClocheDisplay *self, gboolean capture)
{
    self->capture = capture;
    update_capture(self);
}

// ---- Input ----
static guint evdev_code(GdkEventKey *event)
{
    // X servers with the evdev rules and Wayland both number keys evdev + 8.
    guint code = event->hardware_keycode;
    if (code > 8 && key_by_evdev(code - 8))
        return code - 8;
    const struct key *key = key_by_keysym(event->keyval);
    return key ? key->evdev : 0;
}

static gboolean is_release_combination(ClocheDisplay *self, GdkEventKey *event)
{
    return (event->state & gtk_accelerator_get_default_mod_mask()) == self->release_modifiers &&
           gdk_keyval_to_lower(event->keyval) == self->release_key;
}

static gboolean display_key(GtkWidget *widget, GdkEventKey *event)
{
    ClocheDisplay *self = CLOCHE_DISPLAY(widget);
    gboolean down = event->type == GDK_KEY_PRESS;
    if (down && is_release_combination(self, event)) {
        cloche_display_set_capture(self, FALSE);
        cloche_display_ungrab(self);
        g_signal_emit(self, signals[SIGNAL_RELEASED], 0);
        return TRUE;
    }
    guint code = evdev_code(event);
    if (!code || self->veil)
        return FALSE;
    if (down)
        g_hash_table_add(self->keys_down, GUINT_TO_POINTER(code));
    else if (!g_hash_table_remove(self->keys_down, GUINT_TO_POINTER(code)))
        return TRUE; // went down elsewhere
    g_signal_emit(self, signals[SIGNAL_KEY], 0, code, down);
    return TRUE;
}

static void release_keys(ClocheDisplay *self)
{
    GHashTableIter iter;
    gpointer code;
    g_hash_table_iter_init(&iter, self->keys_down);
    while (g_hash_table_iter_next(&iter, &code, NULL)) {
        g_hash_table_iter_remove(&iter);
        g_signal_emit(self, signals[SIGNAL_KEY], 0, GPOINTER_TO_UINT(code), FALSE);
    }
}

static gboolean display_focus(GtkWidget *widget, GdkEventFocus *event)
{
    ClocheDisplay *self = CLOCHE_DISPLAY(widget);
    if (!event->in)
        release_keys(self);
    update_capture(self);
    gtk_widget_queue_draw(widget);
    return FALSE;
}

static gboolean display_motion(GtkWidget *widget, GdkEventMotion *event)
{
    ClocheDisplay *self = CLOCHE_DISPLAY(widget);
    guint x, y;
    if (self->absolute) {
        if (to_guest(self, event->x, event->y, &x, &y))
            g_signal_emit(self, signals[SIGNAL_ABSOLUTE], 0, x, y, self->width, self->height);
        return TRUE;
    }
    if (self->grabbed) {
        double zoom = place(self).zoom;
        int dx = (event->x_root - self->last_x) / zoom, dy = (event->y_root - self->last_y) / zoom;
        if (dx || dy) {
            g_signal_emit(self, signals[SIGNAL_RELATIVE], 0, dx, dy);
            // Back to the middle, so that the screen's edge never stops the motion.
            int wide = gtk_widget_get_allocated_width(widget), high = gtk_widget_get_allocated_height(widget), rx, ry;
            gdk_window_get_root_coords(gtk_widget_get_window(widget), wide / 2, high / 2, &rx, &ry);
            gdk_device_warp(gdk_event_get_device((GdkEvent *)event), gdk_window_get_screen(event->window), rx, ry);
            self->last_x = rx;
            self->last_y = ry;
        }
    }
    return TRUE;
}

static const enum input_button gdk_buttons[] = {INPUT_LEFT, INPUT_LEFT, INPUT_MIDDLE, INPUT_RIGHT};

static gboolean display_button(GtkWidget *widget, GdkEventButton *event)
{
    ClocheDisplay *self = CLOCHE_DISPLAY(widget);
    gboolean down = event->type == GDK_BUTTON_PRESS;
    if (event->type != GDK_BUTTON_PRESS && event->type != GDK_BUTTON_RELEASE)
        return TRUE;
    gtk_widget_grab_focus(widget);
    if (self->veil)
        return TRUE;
    if (!self->absolute && !self->grabbed) {
        if (down) {
            self->last_x = event->x_root;
            self->last_y = event->y_root;
            grab(self);
        }
        return TRUE; // the click that grabs is not the guest's
    }
    guint x, y;
    if (self->absolute && to_guest(self, event->x, event->y, &x, &y))
        g_signal_emit(self, signals[SIGNAL_ABSOLUTE], 0, x, y, self->width, self->height);
    if (event->button < G_N_ELEMENTS(gdk_buttons))
        g_signal_emit(self, signals[SIGNAL_BUTTON], 0, gdk_buttons[event->button], down);
    else if (event->button == 8 || event->button == 9)
        g_signal_emit(self, signals[SIGNAL_BUTTON], 0, event->button == 8 ? INPUT_SIDE : INPUT_EXTRA, down);
    return TRUE;
}

static gboolean display_scroll(GtkWidget *widget, GdkEventScroll *event)
{
    static const enum input_button directions[] = {
        [GDK_SCROLL_UP] = INPUT_WHEEL_UP,
        [GDK_SCROLL_DOWN] = INPUT_WHEEL_DOWN,
        [GDK_SCROLL_LEFT] = INPUT_WHEEL_LEFT,
        [GDK_SCROLL_RIGHT] = INPUT_WHEEL_RIGHT,
    };
    if (event->direction >= G_N_ELEMENTS(directions) || CLOCHE_DISPLAY(widget)->veil)
        return FALSE;
    g_signal_emit(widget, signals[SIGNAL_BUTTON], 0, directions[event->direction], TRUE);
    g_signal_emit(widget, signals[SIGNAL_BUTTON], 0, directions[event->direction], FALSE);
    return TRUE;
}

// ---- The rest ----
void cloche_display_set_scale(ClocheDisplay *self, ClocheScale scale)
{
    self->scale = scale;
    ask_size(self);
    gtk_widget_queue_draw(GTK_WIDGET(self));
}

ClocheScale cloche_display_get_scale(ClocheDisplay *self)
{
    return self->scale;
}

void cloche_display_set_veil(ClocheDisplay *self, const char *text)
{
    if (g_strcmp0(text, self->veil) == 0)
        return;
    g_free(self->veil);
    self->veil = g_strdup(text);
    if (text) {
        cloche_display_ungrab(self);
        g_hash_table_remove_all(self->keys_down);
    }
    gtk_widget_queue_draw(GTK_WIDGET(self));
}

void cloche_display_get_guest_size(ClocheDisplay *self, guint *width, guint *height)
{
    *width = self->width;
    *height = self->height;
}

guint64 cloche_display_frames(ClocheDisplay *self)
{
    return self->frames;
}

static void display_allocate(GtkWidget *widget, GtkAllocation *allocation)
{
    GTK_WIDGET_CLASS(cloche_display_parent_class)->size_allocate(widget, allocation);
    int factor = gtk_widget_get_scale_factor(widget);
    g_signal_emit(widget, signals[SIGNAL_WISH], 0, allocation->width * factor, allocation->height * factor);
}

static void display_realize(GtkWidget *widget)
{
    GTK_WIDGET_CLASS(cloche_display_parent_class)->realize(widget);
    apply_cursor(CLOCHE_DISPLAY(widget));
}

static void display_finalize(GObject *object)
{
    ClocheDisplay *self = CLOCHE_DISPLAY(object);
    g_clear_pointer(&self->picture, cairo_surface_destroy);
    g_clear_pointer(&self->direct, direct_free);
    g_clear_pointer(&self->damaged, cairo_region_destroy);
    if (self->damage_source)
        g_source_remove(self->damage_source);
    g_clear_object(&self->cursor);
    g_hash_table_unref(self->keys_down);
    g_free(self->veil);
    G_OBJECT_CLASS(cloche_display_parent_class)->finalize(object);
}

static void cloche_display_class_init(ClocheDisplayClass *class)
{
    GtkWidgetClass *widget = GTK_WIDGET_CLASS(class);
    G_OBJECT_CLASS(class)->finalize = display_finalize;
    widget->draw = display_draw;
    widget->key_press_event = widget->key_release_event = display_key;
    widget->focus_in_event = widget->focus_out_event = display_focus;
    widget->motion_notify_event = display_motion;
    widget->button_press_event = widget->button_release_event = display_button;
    widget->scroll_event = display_scroll;
    widget->size_allocate = display_allocate;
    widget->realize = display_realize;
    static const struct {
        const char *name;
        guint count;
        GType types[4];
    } table[SIGNAL_COUNT] = {
        [SIGNAL_KEY] = {"key", 2, {G_TYPE_UINT, G_TYPE_BOOLEAN}},
        [SIGNAL_ABSOLUTE] = {"absolute", 4, {G_TYPE_UINT, G_TYPE_UINT, G_TYPE_UINT, G_TYPE_UINT}},
        [SIGNAL_RELATIVE] = {"relative", 2, {G_TYPE_INT, G_TYPE_INT}},
        [SIGNAL_BUTTON] = {"button", 2, {G_TYPE_UINT, G_TYPE_BOOLEAN}},
        [SIGNAL_GRAB] = {"grab-changed", 0, {0}},
        [SIGNAL_RELEASED] = {"released", 0, {0}},
        [SIGNAL_GEOMETRY] = {"geometry", 0, {0}},
        [SIGNAL_WISH] = {"wish-size", 2, {G_TYPE_UINT, G_TYPE_UINT}},
    };
    for (guint i = 0; i < SIGNAL_COUNT; i++)
        signals[i] = g_signal_newv(table[i].name, G_TYPE_FROM_CLASS(class), G_SIGNAL_RUN_LAST, NULL, NULL, NULL, NULL,
                                   G_TYPE_NONE, table[i].count, (GType *)table[i].types);
}

static void cloche_display_init(ClocheDisplay *self)
{
    GtkWidget *widget = GTK_WIDGET(self);
    self->keys_down = g_hash_table_new(NULL, NULL);
    self->absolute = TRUE;
    cloche_display_set_release_key(self, CLOCHE_RELEASE_KEY);
    gtk_widget_set_can_focus(widget, TRUE);
    gtk_widget_set_hexpand(widget, TRUE);
    gtk_widget_set_vexpand(widget, TRUE);
    gtk_widget_add_events(widget, GDK_KEY_PRESS_MASK | GDK_KEY_RELEASE_MASK | GDK_BUTTON_PRESS_MASK |
                                      GDK_BUTTON_RELEASE_MASK | GDK_POINTER_MOTION_MASK | GDK_SCROLL_MASK |
                                      GDK_FOCUS_CHANGE_MASK);
    atk_object_set_name(gtk_widget_get_accessible(widget), "Guest screen");
}

GtkWidget *cloche_display_new(void)
{
    return g_object_new(CLOCHE_TYPE_DISPLAY, NULL);
}
