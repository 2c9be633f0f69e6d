// SPDX-License-Identifier: GPL-2.0-or-later
// A surface is what a display adapter shows: pixels in shared memory, damage, cursor. Adapters draw and report damage;
// any number of listeners (VNC, the desktop app through the control socket, screenshots, tests) attach and detach at
// any time and can never hold the adapter up.
//
// Threads: adapters call surface_* from any one thread at a time, under the machine lock or their own. Listeners are
// called on that thread and must only note what happened and wake their own loop. Lock order: machine lock -> a
// surface's refresh lock -> an adapter's own lock -> a surface's lock -> a listener's own lock.
#ifndef CLOCHE_SURFACE_H
#define CLOCHE_SURFACE_H

#include "core/base/base.h"

// 32 bits per pixel, little-endian 0xXXRRGGBB; the X byte is zero. The only format listeners see.
#define SURFACE_MAX_WIDTH  4096
#define SURFACE_MAX_HEIGHT 4096

struct rectangle {
    int x, y, width, height;
};

// Damage merged into a few rectangles. Plain data; its owner locks it.
#define DAMAGE_MAX 16
struct damage {
    unsigned count;
    struct rectangle rectangles[DAMAGE_MAX];
};
void damage_add(struct damage *damage, const struct rectangle *rectangle);

// One memory object per size: sealed against shrinking and growing, shared with listeners by reference count.
struct pixels {
    _Atomic int references;
    int memfd; // -1: cannot be passed to another process, copy DATA
    uint8_t *data;
    uint32_t width, height, stride;         // pixels, pixels, bytes
    size_t size;                            // of the mapping, bytes
    void (*release)(struct pixels *pixels); // instead of unmapping and closing; NULL for pixels_new()
    void *opaque;                           // for RELEASE
};
// Zeroed. NULL with errno when the host has no memory or descriptors left.
struct pixels *pixels_new(uint32_t width, uint32_t height);
struct pixels *pixels_ref(struct pixels *pixels);
void pixels_unref(struct pixels *pixels);

// Copies COUNT pixels and clears their X bytes; TO is only written to where it differs. True: it did.
#define PIXELS_BLOCK 16
static inline bool pixels_merge(uint32_t *restrict to, const uint32_t *restrict from, unsigned count)
{
    bool changed = false;
    for (unsigned i = 0; i < count; i += PIXELS_BLOCK) {
        unsigned part = MIN(PIXELS_BLOCK, count - i);
        uint32_t difference = 0;
        if (part == PIXELS_BLOCK) {
            for (unsigned k = 0; k < PIXELS_BLOCK; k++)
                difference |= (from[i + k] & 0xffffff) ^ to[i + k];
        } else {
            for (unsigned k = 0; k < part; k++)
                difference |= (from[i + k] & 0xffffff) ^ to[i + k];
        }
        if (!difference)
            continue;
        changed = true;
        for (unsigned k = 0; k < part; k++)
            to[i + k] = from[i + k] & 0xffffff;
    }
    return changed;
}

#define CURSOR_MAX 256 // pixels on a side
struct cursor {
    _Atomic int references;
    uint32_t width, height, hot_x, hot_y;
    uint32_t *argb; // premultiplied, width * height
};
struct cursor *cursor_new(uint32_t width, uint32_t height, uint32_t hot_x,
                          uint32_t hot_y); // transparent; sizes clamped
struct cursor *cursor_ref(struct cursor *cursor);
void cursor_unref(struct cursor *cursor);

struct surface;
struct screen; // all heads of one machine

// All may be NULL.
struct surface_listener_ops {
    void (*resized)(void *opaque, struct surface *surface, struct pixels *pixels); // take a reference to keep it
    void (*damaged)(void *opaque, struct surface *surface, const struct rectangle *rectangle);
    void (*cursor_changed)(void *opaque, struct surface *surface, struct cursor *cursor); // NULL: hidden
    void (*cursor_moved)(void *opaque, struct surface *surface, int x, int y);
    bool pulls; // it calls surface_refresh() itself when it wants news; otherwise the screen's thread does, up to 60 Hz
};
struct surface_listener;

// MACHINE_LOCK may be NULL (tests).
struct screen *screen_new(GRecMutex *machine_lock);
void screen_free(struct screen *screen);
unsigned screen_heads(struct screen *screen);
struct surface *screen_head(struct screen *screen, unsigned index); // NULL: no such head
// A hint that the picture is about to change (a key was pressed): the next refresh comes soon even after a quiet time.
void screen_expect_change(struct screen *screen);

// Adapter side.
struct surface_adapter_ops {
    // Machine lock held: take over registers, harvest damage. True: there is something to draw.
    bool (*refresh)(void *opaque);
    // After a true REFRESH, without the machine lock where the caller did not hold it: bring the pixels up to date.
    void (*draw)(void *opaque);
    // The size that a viewer would like (0 x 0: no wish). Machine lock held.
    void (*ui_size)(void *opaque, unsigned width, unsigned height);
};
struct surface *surface_new(struct screen *screen, const struct surface_adapter_ops *ops, void *opaque);
// Other operations from now on (an adapter that leaves or enters VGA-compatible mode). Any thread.
void surface_set_adapter(struct surface *surface, const struct surface_adapter_ops *ops, void *opaque);
// New memory of that size, zeroed; returns it (valid until the next resize). Clamped to the maximum; keeps the old size
// when the host is out of memory, so draw by what is returned.
struct pixels *surface_resize(struct surface *surface, uint32_t width, uint32_t height);
// Shows foreign pixels (virtio-gpu) without a copy; takes over the reference.
void surface_show(struct surface *surface, struct pixels *pixels);
void surface_damage(struct surface *surface, const struct rectangle *rectangle); // clipped
void surface_set_cursor(struct surface *surface, struct cursor *cursor); // takes over the reference; NULL: hidden
void surface_move_cursor(struct surface *surface, int x, int y);         // of its hot spot

// Listener side: any thread.
struct surface_listener *surface_attach(struct surface *surface, const struct surface_listener_ops *ops, void *opaque);
void surface_detach(struct surface_listener *listener); // after it returns no callback runs
// Moves what was damaged since the last call into DAMAGE, merged.
void surface_take_damage(struct surface_listener *listener, struct damage *damage);
struct pixels *surface_pixels(struct surface *surface); // a new reference; never NULL (640 x 400 black at first)
struct cursor *surface_cursor(struct surface *surface, int *x, int *y); // a new reference or NULL
// Asks the adapter to bring the pixels up to date; cheap when nothing changed. Takes the machine lock for a moment; the
// caller may hold it, but no other lock of the screen.
void surface_refresh(struct surface *surface);
void surface_wish_size(struct surface *surface, unsigned width, unsigned height);
bool surface_resizable(struct surface *surface); // the adapter takes wishes
bool surface_polled(struct surface *surface);    // it notices changes only when refreshed
// How many listeners there are.
unsigned surface_listeners(struct surface *surface);
unsigned surface_index(struct surface *surface);
// Refreshes, and writes a picture (to a temporary name, then renamed) with the cursor drawn in if WITH_CURSOR.
enum picture_format { PICTURE_PNG, PICTURE_PPM };
bool surface_write_picture(struct surface *surface, const char *path, enum picture_format format, bool with_cursor,
                           GError **error);
bool surface_write_png(struct surface *surface, const char *path, bool with_cursor, GError **error);

#endif
