// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/graph.h"

#include <string.h>

#define SAMPLES 60

struct _ClocheGraph {
    GtkDrawingArea parent_instance;
    double samples[SAMPLES]; // oldest first; the last COUNT are valid
    guint count;
    double full;
};
G_DEFINE_TYPE(ClocheGraph, cloche_graph, GTK_TYPE_DRAWING_AREA)

void cloche_graph_add(ClocheGraph *self, double sample, double full)
{
    memmove(self->samples, self->samples + 1, (SAMPLES - 1) * sizeof *self->samples);
    self->samples[SAMPLES - 1] = sample;
    self->count = MIN(self->count + 1, SAMPLES);
    self->full = full;
    gtk_widget_queue_draw(GTK_WIDGET(self));
}

void cloche_graph_clear(ClocheGraph *self)
{
    self->count = 0;
    gtk_widget_queue_draw(GTK_WIDGET(self));
}

static double full_scale(ClocheGraph *self)
{
    double full = self->full;
    for (guint i = SAMPLES - self->count; !self->full && i < SAMPLES; i++)
        full = MAX(full, self->samples[i]);
    return full > 0 ? full : 1;
}

// The theme's own colour, brought nearer to that of the text: it is made for backgrounds, and dark on a dark theme.
static GdkRGBA line_color(GtkStyleContext *style)
{
    GdkRGBA text, color;
    gtk_style_context_get_color(style, gtk_style_context_get_state(style), &text);
    if (!gtk_style_context_lookup_color(style, "theme_selected_bg_color", &color))
        return text;
    double nearer = text.red + text.green + text.blue > 1.5 ? .5 : 0; // light text: a dark theme
    return (GdkRGBA){color.red + (text.red - color.red) * nearer, color.green + (text.green - color.green) * nearer,
                     color.blue + (text.blue - color.blue) * nearer, 1};
}

static gboolean graph_draw(GtkWidget *widget, cairo_t *cr)
{
    ClocheGraph *self = CLOCHE_GRAPH(widget);
    GtkStyleContext *style = gtk_widget_get_style_context(widget);
    double wide = gtk_widget_get_allocated_width(widget), high = gtk_widget_get_allocated_height(widget);
    gtk_render_background(style, cr, 0, 0, wide, high);
    GdkRGBA color = line_color(style);
    double full = full_scale(self), step = wide / (SAMPLES - 1);
    if (self->count > 1) {
        cairo_move_to(cr, wide - (self->count - 1) * step, high);
        for (guint i = SAMPLES - self->count; i < SAMPLES; i++)
            cairo_line_to(cr, i * step, high - 1 - MIN(1, self->samples[i] / full) * (high - 2));
        cairo_line_to(cr, wide, high);
        cairo_set_source_rgba(cr, color.red, color.green, color.blue, .3);
        cairo_fill_preserve(cr);
        gdk_cairo_set_source_rgba(cr, &color);
        cairo_set_line_width(cr, 1);
        cairo_stroke(cr);
    }
    gtk_style_context_get_color(style, gtk_style_context_get_state(style), &color);
    cairo_set_source_rgba(cr, color.red, color.green, color.blue, .25);
    cairo_set_line_width(cr, 1);
    cairo_rectangle(cr, .5, .5, wide - 1, high - 1);
    cairo_stroke(cr);
    return TRUE;
}

static void cloche_graph_class_init(ClocheGraphClass *class)
{
    GTK_WIDGET_CLASS(class)->draw = graph_draw;
}

static void cloche_graph_init(ClocheGraph *self)
{
    gtk_widget_set_size_request(GTK_WIDGET(self), 120, 40);
}
