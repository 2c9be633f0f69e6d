// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/details.h"
#include "core/config/option.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/graph.h"
#include "ui/desktop/picture.h"

#include <glib/gi18n.h>
#include <string.h>

enum figure { FIGURE_CPU, FIGURE_MEMORY, FIGURE_DISK, FIGURE_NETWORK, FIGURE_COUNT };

struct _ClocheDetails {
    GtkScrolledWindow parent_instance;
    GtkImage *picture;
    GtkLabel *name, *state, *notes;
    GtkGrid *graphs, *facts;
    GtkWidget *start, *pause, *save, *shut_down;
    ClocheGraph *graph[FIGURE_COUNT];
    GtkLabel *graph_value[FIGURE_COUNT];
    GtkLabel *fact[8];
    GtkWidget *addresses;
    char *addresses_shown;
    ClocheMachine *machine;
};
G_DEFINE_TYPE(ClocheDetails, cloche_details, GTK_TYPE_SCROLLED_WINDOW)

#define PICTURE_WIDTH 288

static const char *const figure_names[FIGURE_COUNT] = {N_("Processor"), N_("Memory"), N_("Disk"), N_("Network")};

// What the facts list shows: a label and the option it comes from.
static const struct {
    const char *label, *group, *key;
} facts[] = {
    {N_("Processors"), "Processors", "count"},
    {N_("Model"), "Processors", "model"},
    {N_("Engine"), "Processors", "engine"},
    {N_("Memory"), "Memory", "size"},
    {N_("VNC"), "VNC", "address"},
};

static void show_picture(ClocheDetails *self)
{
    GdkPixbuf *full = cloche_machine_get_thumbnail(self->machine);
    picture_show(self->picture, full, PICTURE_WIDTH, PICTURE_WIDTH, cloche_machine_get_icon(self->machine), 96);
}

// ---- The guest's addresses, each with a Copy button ----
static void copy_address(GtkButton *button, gpointer data)
{
    gtk_clipboard_set_text(gtk_widget_get_clipboard(GTK_WIDGET(button), GDK_SELECTION_CLIPBOARD),
                           g_object_get_data(G_OBJECT(button), "address"), -1);
}

static void add_address(ClocheDetails *self, const char *address)
{
    GtkWidget *row = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 6), *label = gtk_label_new(address);
    GtkWidget *copy = gtk_button_new_with_label(_("Copy"));
    g_autofree char *name = g_strdup_printf(_("Copy Address %s"), address);
    gtk_label_set_selectable(GTK_LABEL(label), TRUE);
    gtk_label_set_xalign(GTK_LABEL(label), 0);
    gtk_widget_set_can_focus(label, FALSE);
    atk_object_set_name(gtk_widget_get_accessible(copy), name);
    gtk_widget_set_tooltip_text(copy, name);
    g_object_set_data_full(G_OBJECT(copy), "address", g_strdup(address), g_free);
    g_signal_connect(copy, "clicked", G_CALLBACK(copy_address), NULL);
    gtk_box_pack_start(GTK_BOX(row), label, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(row), copy, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(self->addresses), row, FALSE, FALSE, 0);
}

static void show_addresses(ClocheDetails *self)
{
    GPtrArray *devices = cloche_machine_get_devices(self->machine);
    g_autoptr(GString) all = g_string_new(NULL);
    for (guint i = 0; i < devices->len; i++) {
        const struct machine_device *device = devices->pdata[i];
        for (char **address = device->addresses; address && *address; address++)
            g_string_append_printf(all, "%s%s", all->len ? " " : "", *address);
    }
    if (g_strcmp0(all->str, self->addresses_shown) == 0)
        return;
    g_free(self->addresses_shown);
    self->addresses_shown = g_strdup(all->str);
    container_clear(GTK_CONTAINER(self->addresses));
    g_auto(GStrv) list = g_strsplit(all->str, " ", -1);
    if (!*list)
        gtk_container_add(GTK_CONTAINER(self->addresses),
                          g_object_new(GTK_TYPE_LABEL, "label", "–", "xalign", 0.0, NULL));
    for (char **address = list; *address; address++)
        add_address(self, *address);
    gtk_widget_show_all(self->addresses);
}

// The engine that runs it tells more than the one that was asked for; sizes are in IEC units.
static char *fact_text(ClocheDetails *self, const char *group, const char *key)
{
    char *value = cloche_machine_get_option(self->machine, group, key);
    guint64 bytes;
    const char *engine = cloche_machine_get_engine(self->machine);
    if (strcmp(key, "engine") == 0 && *engine) {
        g_free(value);
        return g_strdup(engine);
    }
    if (strcmp(key, "size") == 0 && value && option_parse_size(value, &bytes)) {
        g_free(value);
        return format_size(bytes);
    }
    if (strcmp(key, "engine") == 0 && g_strcmp0(value, "auto") == 0) {
        g_free(value);
        return g_strdup(_("Automatic"));
    }
    return value;
}

static void show_facts(ClocheDetails *self)
{
    for (guint i = 0; i < G_N_ELEMENTS(facts); i++) {
        g_autofree char *value = fact_text(self, facts[i].group, facts[i].key);
        gtk_label_set_text(self->fact[i], value && *value ? value : "–");
    }
}

static void show(ClocheDetails *self)
{
    if (!self->machine)
        return;
    ClocheState state = cloche_machine_get_state(self->machine);
    gtk_label_set_text(self->name, cloche_machine_get_name(self->machine));
    gtk_label_set_text(self->state, cloche_machine_get_state_text(self->machine));
    gtk_label_set_text(self->notes, cloche_machine_get_notes(self->machine));
    gtk_widget_set_visible(GTK_WIDGET(self->graphs), state == CLOCHE_STATE_RUNNING || state == CLOCHE_STATE_PAUSED);
    gboolean paused = state == CLOCHE_STATE_PAUSED || state == CLOCHE_STATE_ERROR;
    gtk_button_set_label(GTK_BUTTON(self->start), cloche_machine_waits_for_space(self->machine) ? _("_Retry")
                                                  : paused                                      ? _("_Resume")
                                                                                                : _("_Start"));
    gtk_actionable_set_action_name(GTK_ACTIONABLE(self->start), paused ? "win.resume" : "win.start");
    static const ClocheRequest requests[] = {CLOCHE_REQUEST_START, CLOCHE_REQUEST_PAUSE, CLOCHE_REQUEST_SAVE,
                                             CLOCHE_REQUEST_SHUT_DOWN};
    GtkWidget *buttons[] = {self->start, self->pause, self->save, self->shut_down};
    for (guint i = 0; i < G_N_ELEMENTS(buttons); i++) {
        ClocheRequest request = i == 0 && paused ? CLOCHE_REQUEST_RESUME : requests[i];
        gtk_widget_set_tooltip_text(buttons[i], cloche_machine_why_not(self->machine, request));
    }
    show_picture(self);
    show_facts(self);
}

static void show_figures(ClocheDetails *self)
{
    const struct machine_figures *now = cloche_machine_get_figures(self->machine);
    g_autofree char *size_text = cloche_machine_get_option(self->machine, "Memory", "size");
    guint64 memory = 0;
    option_parse_size(size_text ? size_text : "0", &memory);
    double values[FIGURE_COUNT] = {now->cpu_percent, now->memory, now->disk_read + now->disk_write,
                                   now->received + now->sent};
    for (guint i = 0; i < FIGURE_COUNT; i++) {
        cloche_graph_add(self->graph[i], values[i],
                         i == FIGURE_CPU      ? MAX(100, values[i])
                         : i == FIGURE_MEMORY ? MAX(memory, values[i])
                                              : 0);
        g_autofree char *size = format_size(values[i]);
        g_autofree char *text = i == FIGURE_CPU      ? g_strdup_printf("%.0f %%", values[i])
                                : i == FIGURE_MEMORY ? g_strdup(size)
                                                     : g_strdup_printf(_("%s/s"), size);
        gtk_label_set_text(self->graph_value[i], text);
    }
}

void cloche_details_set_machine(ClocheDetails *self, ClocheMachine *machine)
{
    if (self->machine == machine)
        return;
    if (self->machine)
        g_signal_handlers_disconnect_by_data(self->machine, self);
    g_set_object(&self->machine, machine);
    gtk_widget_set_visible(GTK_WIDGET(self), machine != NULL);
    if (!machine)
        return;
    for (guint i = 0; i < FIGURE_COUNT; i++)
        cloche_graph_clear(self->graph[i]);
    g_signal_connect_swapped(machine, "changed", G_CALLBACK(show), self);
    g_signal_connect_swapped(machine, "figures", G_CALLBACK(show_figures), self);
    g_signal_connect_swapped(machine, "devices", G_CALLBACK(show_addresses), self);
    show(self);
    show_addresses(self);
}

static GtkLabel *add_label(GtkGrid *grid, const char *text, int column, int row, gboolean dim)
{
    GtkWidget *label = gtk_label_new(text);
    gtk_label_set_xalign(GTK_LABEL(label), 0);
    gtk_label_set_ellipsize(GTK_LABEL(label), PANGO_ELLIPSIZE_END);
    if (dim)
        gtk_style_context_add_class(gtk_widget_get_style_context(label), "dim-label");
    gtk_grid_attach(grid, label, column, row, 1, 1);
    gtk_widget_show(label);
    return GTK_LABEL(label);
}

static void details_dispose(GObject *object)
{
    cloche_details_set_machine(CLOCHE_DETAILS(object), NULL);
    g_clear_pointer(&CLOCHE_DETAILS(object)->addresses_shown, g_free);
    G_OBJECT_CLASS(cloche_details_parent_class)->dispose(object);
}

static void cloche_details_class_init(ClocheDetailsClass *class)
{
    GtkWidgetClass *widget = GTK_WIDGET_CLASS(class);
    G_OBJECT_CLASS(class)->dispose = details_dispose;
    g_type_ensure(CLOCHE_TYPE_GRAPH);
    gtk_widget_class_set_template_from_resource(widget, "/org/cloche/Cloche/details.ui");
    gtk_widget_class_bind_template_child(widget, ClocheDetails, picture);
    gtk_widget_class_bind_template_child(widget, ClocheDetails, name);
    gtk_widget_class_bind_template_child(widget, ClocheDetails, state);
    gtk_widget_class_bind_template_child(widget, ClocheDetails, notes);
    gtk_widget_class_bind_template_child(widget, ClocheDetails, graphs);
    gtk_widget_class_bind_template_child(widget, ClocheDetails, facts);
    gtk_widget_class_bind_template_child(widget, ClocheDetails, start);
    gtk_widget_class_bind_template_child(widget, ClocheDetails, pause);
    gtk_widget_class_bind_template_child(widget, ClocheDetails, save);
    gtk_widget_class_bind_template_child(widget, ClocheDetails, shut_down);
}

static void cloche_details_init(ClocheDetails *self)
{
    gtk_widget_init_template(GTK_WIDGET(self));
    for (guint i = 0; i < FIGURE_COUNT; i++) {
        int column = i % 2, row = i / 2 * 2;
        GtkWidget *head = gtk_grid_new();
        gtk_grid_set_column_spacing(GTK_GRID(head), 6);
        add_label(GTK_GRID(head), gettext(figure_names[i]), 0, 0, TRUE);
        self->graph_value[i] = add_label(GTK_GRID(head), "", 1, 0, FALSE);
        gtk_grid_attach(self->graphs, head, column, row, 1, 1);
        self->graph[i] = g_object_new(CLOCHE_TYPE_GRAPH, "visible", TRUE, NULL);
        atk_object_set_name(gtk_widget_get_accessible(GTK_WIDGET(self->graph[i])), gettext(figure_names[i]));
        gtk_grid_attach(self->graphs, GTK_WIDGET(self->graph[i]), column, row + 1, 1, 1);
        gtk_widget_show(head);
    }
    for (guint i = 0; i < G_N_ELEMENTS(facts); i++) {
        add_label(self->facts, gettext(facts[i].label), 0, i, TRUE);
        self->fact[i] = add_label(self->facts, "", 1, i, FALSE);
    }
    gtk_widget_set_valign(GTK_WIDGET(add_label(self->facts, _("Addresses"), 0, G_N_ELEMENTS(facts), TRUE)),
                          GTK_ALIGN_START);
    self->addresses = gtk_box_new(GTK_ORIENTATION_VERTICAL, 6);
    gtk_grid_attach(self->facts, self->addresses, 1, G_N_ELEMENTS(facts), 1, 1);
    gtk_widget_show(self->addresses);
}
