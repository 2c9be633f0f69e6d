// SPDX-License-Identifier: GPL-2.0-or-later
// A small line graph of the last minute of one figure.
#ifndef CLOCHE_DESKTOP_GRAPH_H
#define CLOCHE_DESKTOP_GRAPH_H

#include <gtk/gtk.h>

G_BEGIN_DECLS

#define CLOCHE_TYPE_GRAPH (cloche_graph_get_type())
G_DECLARE_FINAL_TYPE(ClocheGraph, cloche_graph, CLOCHE, GRAPH, GtkDrawingArea)

// Adds a sample (one a second); the graph scales itself to FULL, or to the largest sample when FULL is 0.
void cloche_graph_add(ClocheGraph *self, double sample, double full);
void cloche_graph_clear(ClocheGraph *self);

G_END_DECLS

#endif
