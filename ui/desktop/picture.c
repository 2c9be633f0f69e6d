// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/picture.h"

cairo_surface_t *picture_fit(GdkPixbuf *full, GtkWidget *widget, int width, int height)
{
    int factor = gtk_widget_get_scale_factor(widget), wide = gdk_pixbuf_get_width(full),
        high = gdk_pixbuf_get_height(full);
    double zoom = MIN((double)width * factor / wide, (double)height * factor / high);
    g_autoptr(GdkPixbuf) fit =
        gdk_pixbuf_scale_simple(full, MAX(1, wide * zoom), MAX(1, high * zoom), GDK_INTERP_BILINEAR);
    return gdk_cairo_surface_create_from_pixbuf(fit, factor, NULL);
}

void picture_show(GtkImage *image, GdkPixbuf *full, int width, int height, const char *icon, int pixels)
{
    if (!full) {
        gtk_image_set_from_icon_name(image, icon, GTK_ICON_SIZE_DIALOG);
        gtk_image_set_pixel_size(image, pixels);
        return;
    }
    cairo_surface_t *surface = picture_fit(full, GTK_WIDGET(image), width, height);
    gtk_image_set_from_surface(image, surface);
    cairo_surface_destroy(surface);
}
