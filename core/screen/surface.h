// SPDX-License-Identifier: GPL-2.0-or-later
// A surface is what a display adapter shows: pixels in shared memory, damage, cursor. Adapters draw and report damage;
// any number of listeners (VNC, the desktop app through the control socket, screenshots, tests) attach and detach at any
// time and can never hold the adapter up.
//
// Threads: adapters call surface_* from any one thread at a time, under the machine lock or their own. Listeners are called
// on that thread and must only note what happened and wake their own loop.
#ifndef CLOCHE_SURFACE_H
#define CLOCHE_SURFACE_H

#include "core/base/base.h"

// 32 bits per pixel, little-endian 0xXXRRGGBB; the X byte is zero. The only format listeners see.
#define SURFACE_MAX_WIDTH  4096
#define SURFACE_MAX_HEIGHT 4096

struct rectangle {
    int x, y, width, height;
};

// One memory object per size: sealed against shrinking, shared with listeners by reference count.
struct pixels {
    _Atomic int references;
    int memfd;
    uint8_t *data;
    uint32_t width, height, stride; // pixels, pixels, bytes
    size_t size;                    // of the mapping, bytes
};
struct pixels *pixels_ref(struct pixels *pixels);
void pixels_unref(struct pixels *pixels);

struct cursor {
    _Atomic int references;
    uint32_t width, height, hot_x, hot_y;
    uint32_t *argb; // premultiplied, width * height
};
struct cursor *cursor_ref(struct cursor *cursor);
void cursor_unref(struct cursor *cursor);

struct surface;
struct screen; // all heads of one machine

struct surface_listener_ops {
    void (*resized)(void *opaque, struct surface *surface, struct pixels *pixels); // take a reference to keep it
    void (*damaged)(void *opaque, struct surface *surface, const struct rectangle *rectangle);
    void (*cursor_changed)(void *opaque, struct surface *surface, struct cursor *cursor); // NULL: hidden
    void (*cursor_moved)(void *opaque, struct surface *surface, int x, int y);
};
struct surface_listener;

struct screen *screen_new(void);
void screen_free(struct screen *screen);
unsigned screen_heads(struct screen *screen);
struct surface *screen_head(struct screen *screen, unsigned index); // NULL: no such head

// Adapter side. REFRESH is called by surface_refresh() so that the adapter brings the pixels up to date (VGA harvests its
// damage there); UI_SIZE tells the adapter what size the viewer would like (0 x 0: no wish). Both run with the machine lock held.
struct surface_adapter_ops {
    void (*refresh)(void *opaque);
    void (*ui_size)(void *opaque, unsigned width, unsigned height);
};
struct surface *surface_new(struct screen *screen, const struct surface_adapter_ops *ops, void *opaque);
// New memory of that size, zeroed; returns it (valid until the next resize). Clamped to the maximum.
struct pixels *surface_resize(struct surface *surface, uint32_t width, uint32_t height);
// Shows foreign pixels (virtio-gpu blobs) without a copy; takes over the reference.
void surface_show(struct surface *surface, struct pixels *pixels);
void surface_damage(struct surface *surface, const struct rectangle *rectangle); // clipped
void surface_set_cursor(struct surface *surface, struct cursor *cursor);         // takes over the reference
void surface_move_cursor(struct surface *surface, int x, int y);

// Listener side: any thread.
struct surface_listener *surface_attach(struct surface *surface, const struct surface_listener_ops *ops, void *opaque);
void surface_detach(struct surface_listener *listener); // after it returns no callback runs
struct pixels *surface_pixels(struct surface *surface); // a new reference; never NULL (640 x 400 black at first)
struct cursor *surface_cursor(struct surface *surface, int *x, int *y); // a new reference or NULL
// Asks the adapter to bring the pixels up to date; cheap when nothing changed. Takes the machine lock.
void surface_refresh(struct surface *surface);
void surface_wish_size(struct surface *surface, unsigned width, unsigned height);
// How many listeners there are: adapters need not refresh with none.
unsigned surface_listeners(struct surface *surface);
// Refreshes, and writes a PNG with the cursor drawn in if WITH_CURSOR.
bool surface_write_png(struct surface *surface, const char *path, bool with_cursor, GError **error);

#endif
