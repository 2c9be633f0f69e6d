// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/machine-row.h"
#include "ui/desktop/picture.h"

struct _ClocheMachineRow {
    GtkEventBox parent_instance;
    ClocheMachine *machine;
    gboolean tile;
    GtkImage *picture;
    GtkLabel *name, *group, *state;
};
G_DEFINE_TYPE(ClocheMachineRow, cloche_machine_row, GTK_TYPE_EVENT_BOX)

#define ROW_WIDTH  80
#define TILE_WIDTH 192

// The thumbnail in a frame of the same size for every machine, so that rows line up.
static void show_picture(ClocheMachineRow *self)
{
    int width = self->tile ? TILE_WIDTH : ROW_WIDTH, height = width * 5 / 8;
    GdkPixbuf *full = cloche_machine_get_thumbnail(self->machine);
    gtk_widget_set_size_request(GTK_WIDGET(self->picture), width, height);
    picture_show(self->picture, full, width, height, cloche_machine_get_icon(self->machine), self->tile ? 72 : 40);
}

static void show(ClocheMachineRow *self)
{
    const char *name = cloche_machine_get_name(self->machine), *group = cloche_machine_get_group(self->machine);
    const char *state = cloche_machine_get_state_text(self->machine);
    gtk_label_set_text(self->name, name);
    gtk_label_set_text(self->group, group);
    gtk_widget_set_visible(GTK_WIDGET(self->group), *group != 0);
    gtk_label_set_text(self->state, state);
    gtk_widget_set_tooltip_text(GTK_WIDGET(self->state), state);
    GtkStyleContext *style = gtk_widget_get_style_context(GTK_WIDGET(self->state));
    ClocheState now = cloche_machine_get_state(self->machine);
    if (now == CLOCHE_STATE_RUNNING)
        gtk_style_context_remove_class(style, "dim-label");
    else
        gtk_style_context_add_class(style, "dim-label");
    g_autofree char *accessible = g_strdup_printf("%s, %s", name, state);
    atk_object_set_name(gtk_widget_get_accessible(GTK_WIDGET(self)), accessible);
    show_picture(self);
}

static GtkLabel *add_label(GtkBox *box, const char *class, gboolean center)
{
    GtkWidget *label = gtk_label_new("");
    gtk_label_set_xalign(GTK_LABEL(label), center ? .5 : 0);
    gtk_label_set_ellipsize(GTK_LABEL(label), PANGO_ELLIPSIZE_END);
    gtk_label_set_max_width_chars(GTK_LABEL(label), center ? 22 : 60);
    if (class)
        gtk_style_context_add_class(gtk_widget_get_style_context(label), class);
    gtk_box_pack_start(box, label, FALSE, FALSE, 0);
    return GTK_LABEL(label);
}

GtkWidget *cloche_machine_row_new(ClocheMachine *machine, gboolean tile)
{
    ClocheMachineRow *self = g_object_new(CLOCHE_TYPE_MACHINE_ROW, NULL);
    self->machine = g_object_ref(machine);
    self->tile = tile;
    GtkWidget *box = gtk_box_new(tile ? GTK_ORIENTATION_VERTICAL : GTK_ORIENTATION_HORIZONTAL, tile ? 6 : 12);
    GtkWidget *text = gtk_box_new(GTK_ORIENTATION_VERTICAL, 2);
    gtk_container_set_border_width(GTK_CONTAINER(box), 8);
    gtk_widget_set_valign(text, GTK_ALIGN_CENTER);
    self->picture = GTK_IMAGE(gtk_image_new());
    gtk_box_pack_start(GTK_BOX(box), GTK_WIDGET(self->picture), FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(box), text, !tile, !tile, 0);
    self->name = add_label(GTK_BOX(text), NULL, tile);
    PangoAttrList *bold = pango_attr_list_new();
    pango_attr_list_insert(bold, pango_attr_weight_new(PANGO_WEIGHT_BOLD));
    gtk_label_set_attributes(self->name, bold);
    pango_attr_list_unref(bold);
    self->group = add_label(GTK_BOX(text), "dim-label", tile);
    gtk_widget_set_no_show_all(GTK_WIDGET(self->group), TRUE);
    self->state = add_label(GTK_BOX(text), "dim-label", tile);
    gtk_container_add(GTK_CONTAINER(self), box);
    gtk_widget_show_all(GTK_WIDGET(self));
    g_signal_connect_object(machine, "changed", G_CALLBACK(show), self, G_CONNECT_SWAPPED);
    show(self);
    return GTK_WIDGET(self);
}

ClocheMachine *cloche_machine_row_get_machine(ClocheMachineRow *self)
{
    return self->machine;
}

static void row_finalize(GObject *object)
{
    g_clear_object(&CLOCHE_MACHINE_ROW(object)->machine);
    G_OBJECT_CLASS(cloche_machine_row_parent_class)->finalize(object);
}

static void cloche_machine_row_class_init(ClocheMachineRowClass *class)
{
    G_OBJECT_CLASS(class)->finalize = row_finalize;
}

static void cloche_machine_row_init(ClocheMachineRow *self)
{
}
