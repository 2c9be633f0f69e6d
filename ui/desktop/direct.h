// SPDX-License-Identifier: GPL-2.0-or-later
// Pixels from the monitor's memory to a window of the X server without a copy in between: the server maps the memory
// too and reads it itself (MIT-SHM with descriptors). A connection of its own; main thread only.
#ifndef CLOCHE_DESKTOP_DIRECT_H
#define CLOCHE_DESKTOP_DIRECT_H

#include <gtk/gtk.h>

struct direct;

// NULL: WIDGET is not on an X server that can do it (Wayland, a server elsewhere, another kind of pixel).
struct direct *direct_new(GtkWidget *widget);
void direct_free(struct direct *direct);
// WIDTH x HEIGHT pixels of 0xXXRRGGBB in MEMFD, which stays the caller's. FALSE: the server cannot map it.
gboolean direct_set_memory(struct direct *direct, int memfd, guint width, guint height, guint stride);
// Draws the part of AREA (in units of WINDOW) that nothing of this program covers, and takes it from AREA. The
// picture's first pixel is at LEFT, TOP in device pixels of WINDOW.
void direct_draw(struct direct *direct, GdkWindow *window, int left, int top, cairo_region_t *area);

#endif
