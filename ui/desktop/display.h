// SPDX-License-Identifier: GPL-2.0-or-later
// The widget that shows one head of a machine and takes keys and pointer for it. It maps the monitor's pixels and draws
// from there: no copy is made between the processes. Main thread only, like all of ui/desktop.
#ifndef CLOCHE_DESKTOP_DISPLAY_H
#define CLOCHE_DESKTOP_DISPLAY_H

#include <gtk/gtk.h>

G_BEGIN_DECLS

typedef enum {
    CLOCHE_SCALE_PIXEL,   // one guest pixel is one device pixel
    CLOCHE_SCALE_INTEGER, // the largest whole-number zoom that fits
    CLOCHE_SCALE_FIT,     // smooth, fills the widget, keeps the aspect ratio
} ClocheScale;

#define CLOCHE_TYPE_DISPLAY (cloche_display_get_type())
G_DECLARE_FINAL_TYPE(ClocheDisplay, cloche_display, CLOCHE, DISPLAY, GtkDrawingArea)

// Signals: "key" (guint evdev, gboolean down), "absolute" (guint x, guint y, guint width, guint height),
// "relative" (gint dx, gint dy), "button" (guint enum input_button, gboolean down), "grab-changed" (): also when the
// guest wants another kind of pointer, "released" (): the release key was pressed,
// "geometry" (): the guest's picture has another size, "wish-size" (guint width, guint height: the device pixels that
// the widget offers).
GtkWidget *cloche_display_new(void);

// WIDTH x HEIGHT pixels of 0xXXRRGGBB in MEMFD, which it takes over, as a surface that owns their mapping; any thread
// may drop the last reference.
cairo_surface_t *cloche_display_map(int memfd, guint width, guint height, guint stride, gsize size, GError **error);
// Shows WIDTH x HEIGHT pixels of 0xXXRRGGBB in MEMFD; takes the descriptor over. False: it could not be mapped, and the
// old picture stays.
gboolean cloche_display_set_memory(ClocheDisplay *self, int memfd, guint width, guint height, guint stride, gsize size,
                                   GError **error);
void cloche_display_damage(ClocheDisplay *self, int x, int y, int width, int height); // guest pixels
// Premultiplied ARGB; NULL hides the pointer over the guest.
void cloche_display_set_cursor(ClocheDisplay *self, const guint32 *argb, guint width, guint height, guint hot_x,
                               guint hot_y);
// The guest takes absolute positions: no grab is needed. Else a click grabs pointer and keyboard.
void cloche_display_set_absolute(ClocheDisplay *self, gboolean absolute);
void cloche_display_set_scale(ClocheDisplay *self, ClocheScale scale);
ClocheScale cloche_display_get_scale(ClocheDisplay *self);
// A picture over which nothing can be clicked: paused, saved, crashed. NULL text: none.
void cloche_display_set_veil(ClocheDisplay *self, const char *text);
gboolean cloche_display_is_grabbed(ClocheDisplay *self);
void cloche_display_ungrab(ClocheDisplay *self);
gboolean cloche_display_is_absolute(ClocheDisplay *self);
// The combination that gives pointer and keyboard back, as gtk_accelerator_parse() reads it; one that it cannot read
// changes nothing. At first CLOCHE_RELEASE_KEY.
#define CLOCHE_RELEASE_KEY "<Primary><Alt>g"
void cloche_display_set_release_key(ClocheDisplay *self, const char *accelerator);
char *cloche_display_get_release_label(ClocheDisplay *self); // "Ctrl+Alt+G"; free it
// Keyboard shortcuts of the desktop go to the guest while this is on and the display has the focus.
void cloche_display_set_capture(ClocheDisplay *self, gboolean capture);
// A copy of the present picture, or NULL before the first one.
GdkPixbuf *cloche_display_snapshot(ClocheDisplay *self);
cairo_surface_t *cloche_display_get_picture(ClocheDisplay *self); // the shared memory itself, SELF's; NULL: none yet
void cloche_display_get_guest_size(ClocheDisplay *self, guint *width, guint *height);
// How many damage reports were drawn, for tests and the status bar.
guint64 cloche_display_frames(ClocheDisplay *self);

G_END_DECLS

#endif
