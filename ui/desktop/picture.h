// SPDX-License-Identifier: GPL-2.0-or-later
// Small pictures of screens, sharp on screens of any scale.
#ifndef CLOCHE_DESKTOP_PICTURE_H
#define CLOCHE_DESKTOP_PICTURE_H

#include <gtk/gtk.h>

// FULL in the largest size of its shape that fits into WIDTH x HEIGHT, in units of WIDGET: device pixels are used where
// its scale factor has them. A new surface.
cairo_surface_t *picture_fit(GdkPixbuf *full, GtkWidget *widget, int width, int height);
// Puts it into IMAGE; NULL: the icon ICON of PIXELS.
void picture_show(GtkImage *image, GdkPixbuf *full, int width, int height, const char *icon, int pixels);

#endif
