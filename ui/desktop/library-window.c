// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/library-window.h"
#include "ui/desktop/delete-dialog.h"
#include "ui/desktop/details.h"
#include "ui/desktop/host-report.h"
#include "ui/desktop/machine-actions.h"
#include "ui/desktop/machine-row.h"
#include "ui/desktop/menu-tips.h"
#include "ui/desktop/window-state.h"

#include <glib/gi18n.h>
#include <string.h>

struct _ClocheLibraryWindow {
    GtkApplicationWindow parent_instance;
    GtkStack *stack, *views;
    GtkListBox *list;
    GtkFlowBox *grid;
    GtkLabel *engine_report, *undo_label;
    GtkWidget *no_match;
    GtkSearchBar *search_bar;
    GtkWidget *search_entry, *grid_button;
    GtkRevealer *undo_revealer;
    GtkPaned *paned;
    ClocheDetails *details;
    GMenuModel *machine_menu;
    ClocheApp *app;
    ClocheMachine *selected;
    gboolean by_state;
    guint shown_states;    // bits of ClocheState
    ClocheMachine *doomed; // hidden until the time for Undo is over
    guint doom_timer, arranging;
    GHashTable *shown; // machines that have a row and a tile
};
G_DEFINE_TYPE(ClocheLibraryWindow, cloche_library_window, GTK_TYPE_APPLICATION_WINDOW)

#define UNDO_SECONDS 6

static ClocheMachine *child_machine(gpointer child) // of a list row or a grid tile
{
    return cloche_machine_row_get_machine(CLOCHE_MACHINE_ROW(gtk_bin_get_child(GTK_BIN(child))));
}

// ---- Which machines are shown, and in which order ----
// What the menu's Show may be set to; the first is the default.
#define IN(state) (1u << CLOCHE_STATE_##state)
static const struct {
    const char *name;
    guint states;
} shows[] = {
    {"all", ~0u},
    {"running", IN(STARTING) | IN(RUNNING) | IN(BUSY)},
    {"paused", IN(PAUSED)},
    {"saved", IN(SAVED)},
    {"off", IN(OFF)},
    {"stopped", IN(ERROR) | IN(CRASHED)},
    {"damaged", IN(DAMAGED)},
};
#undef IN

static gboolean matches(ClocheLibraryWindow *self, ClocheMachine *machine)
{
    if (machine == self->doomed || delete_dialog_is_deleted(machine))
        return FALSE;
    if (!(self->shown_states >> cloche_machine_get_state(machine) & 1))
        return FALSE;
    const char *needle = gtk_entry_get_text(GTK_ENTRY(self->search_entry));
    if (!*needle || !gtk_search_bar_get_search_mode(self->search_bar))
        return TRUE;
    g_autofree char *hay = g_strjoin(" ", cloche_machine_get_name(machine), cloche_machine_get_group(machine),
                                     cloche_machine_get_os(machine), cloche_machine_get_notes(machine), NULL);
    g_autofree char *folded_hay = g_utf8_casefold(hay, -1), *folded_needle = g_utf8_casefold(needle, -1);
    return strstr(folded_hay, folded_needle) != NULL;
}

static int compare(ClocheLibraryWindow *self, ClocheMachine *a, ClocheMachine *b)
{
    int by_group = g_utf8_collate(cloche_machine_get_group(a), cloche_machine_get_group(b));
    int by_state = self->by_state ? (int)cloche_machine_get_state(b) - (int)cloche_machine_get_state(a) : 0;
    int by_name = g_utf8_collate(cloche_machine_get_name(a), cloche_machine_get_name(b));
    return by_state ? by_state : by_group ? by_group : by_name;
}

static gboolean filter_row(GtkListBoxRow *row, gpointer self)
{
    return matches(self, child_machine(row));
}

static int sort_row(GtkListBoxRow *a, GtkListBoxRow *b, gpointer self)
{
    return compare(self, child_machine(a), child_machine(b));
}

static gboolean filter_tile(GtkFlowBoxChild *tile, gpointer self)
{
    return matches(self, child_machine(tile));
}

static int sort_tile(GtkFlowBoxChild *a, GtkFlowBoxChild *b, gpointer self)
{
    return compare(self, child_machine(a), child_machine(b));
}

static void group_header(GtkListBoxRow *row, GtkListBoxRow *before, gpointer data)
{
    ClocheLibraryWindow *self = data;
    const char *group = cloche_machine_get_group(child_machine(row));
    const char *above = before ? cloche_machine_get_group(child_machine(before)) : "";
    if (self->by_state || strcmp(group, above) == 0) {
        gtk_list_box_row_set_header(row, NULL);
        return;
    }
    GtkWidget *label = gtk_label_new(group);
    gtk_label_set_xalign(GTK_LABEL(label), 0);
    g_object_set(label, "margin", 8, "visible", TRUE, NULL);
    gtk_style_context_add_class(gtk_widget_get_style_context(label), "dim-label");
    gtk_list_box_row_set_header(row, label);
}

static gboolean any_matches(ClocheLibraryWindow *self)
{
    GListModel *machines = cloche_app_get_machines(self->app);
    for (guint i = 0; i < g_list_model_get_n_items(machines); i++) {
        g_autoptr(ClocheMachine) machine = g_list_model_get_item(machines, i);
        if (matches(self, machine))
            return TRUE;
    }
    return FALSE;
}

static void arrange(ClocheLibraryWindow *self)
{
    gtk_widget_set_visible(self->no_match, !any_matches(self));
    gtk_list_box_invalidate_sort(self->list);
    gtk_list_box_invalidate_filter(self->list);
    gtk_list_box_invalidate_headers(self->list);
    gtk_flow_box_invalidate_sort(self->grid);
    gtk_flow_box_invalidate_filter(self->grid);
}

static gboolean arrange_now(gpointer data)
{
    ClocheLibraryWindow *self = data;
    self->arranging = 0;
    arrange(self);
    return G_SOURCE_REMOVE;
}

// Many machines may change at once; the views are put in order once for all of them.
static void arrange_later(ClocheLibraryWindow *self)
{
    if (!self->arranging)
        self->arranging = g_idle_add(arrange_now, self);
}

// ---- Selection and actions ----
static void select_machine(ClocheLibraryWindow *self, ClocheMachine *machine)
{
    if (self->selected == machine)
        return;
    g_set_object(&self->selected, machine);
    cloche_details_set_machine(self->details, machine);
    machine_actions_set_machine(GTK_APPLICATION_WINDOW(self), machine);
}

static void row_selected(GtkListBox *list, GtkListBoxRow *row, ClocheLibraryWindow *self)
{
    if (row)
        select_machine(self, child_machine(row));
}

static void tile_selected(GtkFlowBox *grid, ClocheLibraryWindow *self)
{
    GList *tiles = gtk_flow_box_get_selected_children(grid);
    if (tiles)
        select_machine(self, child_machine(tiles->data));
    g_list_free(tiles);
}

static void each_child(GtkContainer *container, ClocheMachine *machine, void (*fn)(GtkContainer *, GtkWidget *))
{
    GList *children = gtk_container_get_children(container);
    for (GList *l = children; l; l = l->next)
        if (child_machine(l->data) == machine)
            fn(container, l->data);
    g_list_free(children);
}

static void select_child(GtkContainer *container, GtkWidget *child)
{
    if (GTK_IS_LIST_BOX(container))
        gtk_list_box_select_row(GTK_LIST_BOX(container), GTK_LIST_BOX_ROW(child));
    else
        gtk_flow_box_select_child(GTK_FLOW_BOX(container), GTK_FLOW_BOX_CHILD(child));
}

void cloche_library_window_select(ClocheLibraryWindow *self, ClocheMachine *machine)
{
    each_child(GTK_CONTAINER(self->list), machine, select_child);
    each_child(GTK_CONTAINER(self->grid), machine, select_child);
    select_machine(self, machine);
}

ClocheMachine *cloche_library_window_get_selected(ClocheLibraryWindow *self)
{
    return self->selected;
}

static void select_first(ClocheLibraryWindow *self)
{
    GtkListBoxRow *first = gtk_list_box_get_row_at_y(self->list, 1);
    if (!first)
        first = gtk_list_box_get_row_at_index(self->list, 0);
    if (first)
        cloche_library_window_select(self, child_machine(first));
}

// Double-click or Enter: opens the console; a machine that is off is started.
static void activate(ClocheLibraryWindow *self, ClocheMachine *machine)
{
    if (!cloche_machine_why_not(machine, CLOCHE_REQUEST_START))
        cloche_machine_request(machine, CLOCHE_REQUEST_START, GTK_WINDOW(self));
    cloche_app_open_console(self->app, machine);
}

static void row_activated(GtkListBox *list, GtkListBoxRow *row, ClocheLibraryWindow *self)
{
    activate(self, child_machine(row));
}

static void tile_activated(GtkFlowBox *grid, GtkFlowBoxChild *tile, ClocheLibraryWindow *self)
{
    activate(self, child_machine(tile));
}

static const char *tip(const char *action, gpointer window)
{
    return machine_actions_why_not(window, action);
}

// The context menu acts on the row under the pointer, so that one is selected first.
static gboolean popup_menu(ClocheLibraryWindow *self, GtkWidget *over, GdkEvent *event)
{
    GtkWidget *menu = gtk_menu_new_from_model(self->machine_menu);
    menu_tips_set(GTK_MENU_SHELL(menu), self->machine_menu, tip, self);
    gtk_menu_attach_to_widget(GTK_MENU(menu), GTK_WIDGET(self), NULL);
    g_signal_connect(menu, "selection-done", G_CALLBACK(gtk_menu_detach), NULL); // after the item has acted
    if (event)
        gtk_menu_popup_at_pointer(GTK_MENU(menu), event);
    else
        gtk_menu_popup_at_widget(GTK_MENU(menu), over, GDK_GRAVITY_CENTER, GDK_GRAVITY_NORTH_WEST, NULL);
    return TRUE;
}

// Where the pointer is over WIDGET: an event of a row has the row's coordinates.
static void position_over(GtkWidget *widget, const GdkEventButton *event, double *x, double *y)
{
    GdkWindow *own = gtk_widget_get_window(widget);
    *x = event->x;
    *y = event->y;
    for (GdkWindow *at = event->window; at && at != own; at = gdk_window_get_effective_parent(at))
        gdk_window_coords_to_parent(at, *x, *y, x, y);
}

static gboolean list_button(GtkWidget *widget, GdkEventButton *event, ClocheLibraryWindow *self)
{
    double x, y;
    if (!gdk_event_triggers_context_menu((GdkEvent *)event))
        return FALSE;
    position_over(widget, event, &x, &y);
    gpointer child = GTK_IS_LIST_BOX(widget) ? (gpointer)gtk_list_box_get_row_at_y(self->list, y)
                                             : (gpointer)gtk_flow_box_get_child_at_pos(self->grid, x, y);
    if (!child)
        return FALSE;
    cloche_library_window_select(self, child_machine(child));
    return popup_menu(self, child, (GdkEvent *)event);
}

static gboolean list_popup(GtkWidget *widget, ClocheLibraryWindow *self)
{
    return self->selected && popup_menu(self, widget, NULL);
}

static gboolean window_key(GtkWidget *widget, GdkEventKey *event)
{
    ClocheLibraryWindow *self = CLOCHE_LIBRARY_WINDOW(widget);
    gboolean typing = GTK_IS_ENTRY(gtk_window_get_focus(GTK_WINDOW(self)));
    if (GTK_WIDGET_CLASS(cloche_library_window_parent_class)->key_press_event(widget, event))
        return TRUE;
    if (typing)
        return FALSE;
    return gtk_search_bar_handle_event(self->search_bar, (GdkEvent *)event);
}

// ---- Deleting with Undo ----
static void really_delete(ClocheLibraryWindow *self)
{
    g_autoptr(ClocheMachine) machine = g_steal_pointer(&self->doomed);
    if (self->doom_timer)
        g_source_remove(self->doom_timer);
    self->doom_timer = 0;
    gtk_revealer_set_reveal_child(self->undo_revealer, FALSE);
    if (machine)
        delete_dialog_carry_out(self->app, machine, GTK_WINDOW(self));
    arrange(self);
}

static gboolean undo_over(gpointer self)
{
    CLOCHE_LIBRARY_WINDOW(self)->doom_timer = 0;
    really_delete(self);
    return G_SOURCE_REMOVE;
}

// A hidden revealer would still draw the frame of what it holds.
static void undo_shown(GtkRevealer *revealer)
{
    gtk_widget_set_visible(GTK_WIDGET(revealer),
                           gtk_revealer_get_reveal_child(revealer) || gtk_revealer_get_child_revealed(revealer));
}

static void undo(GSimpleAction *action, GVariant *value, gpointer data)
{
    ClocheLibraryWindow *self = data;
    g_autoptr(ClocheMachine) machine = g_steal_pointer(&self->doomed);
    if (self->doom_timer)
        g_source_remove(self->doom_timer);
    self->doom_timer = 0;
    gtk_revealer_set_reveal_child(self->undo_revealer, FALSE);
    arrange(self);
    if (machine)
        cloche_library_window_select(self, machine);
}

static void doom(GtkApplicationWindow *window, ClocheMachine *machine)
{
    ClocheLibraryWindow *self = CLOCHE_LIBRARY_WINDOW(window);
    if (self->doomed)
        really_delete(self);
    self->doomed = g_object_ref(machine);
    g_autofree char *text = g_strdup_printf(_("“%s” was deleted"), cloche_machine_get_name(machine));
    gtk_label_set_text(self->undo_label, text);
    gtk_widget_show(GTK_WIDGET(self->undo_revealer));
    gtk_revealer_set_reveal_child(self->undo_revealer, TRUE);
    self->doom_timer = g_timeout_add_seconds(UNDO_SECONDS, undo_over, self);
    arrange(self);
    select_machine(self, NULL);
    select_first(self);
}

// ---- Keeping the views in step with the library ----
static void update_page(ClocheLibraryWindow *self)
{
    guint count = g_list_model_get_n_items(cloche_app_get_machines(self->app));
    gtk_widget_set_visible(self->no_match, !any_matches(self));
    gtk_stack_set_visible_child_name(self->stack, count ? "machines" : "welcome");
    if (!count && !*gtk_label_get_text(self->engine_report)) { // nobody waits for it elsewhere
        gtk_label_set_text(self->engine_report, "…");
        host_report_engine(self->engine_report);
    }
}

static void remove_child(GtkContainer *container, GtkWidget *child)
{
    gtk_container_remove(container, child);
}

static void add_machine(ClocheLibraryWindow *self, ClocheMachine *machine)
{
    GtkWidget *row = cloche_machine_row_new(machine, FALSE), *tile = cloche_machine_row_new(machine, TRUE);
    g_signal_connect_object(machine, "changed", G_CALLBACK(arrange_later), self, G_CONNECT_SWAPPED);
    gtk_list_box_insert(self->list, row, -1);
    gtk_flow_box_insert(self->grid, tile, -1);
}

static void items_changed(GListModel *model, guint position, guint removed, guint added, ClocheLibraryWindow *self)
{
    g_autoptr(GHashTable) gone = g_hash_table_new(NULL, NULL);
    GHashTableIter iter;
    gpointer machine;
    g_hash_table_iter_init(&iter, self->shown);
    while (g_hash_table_iter_next(&iter, &machine, NULL))
        g_hash_table_add(gone, machine);
    for (guint i = 0; i < g_list_model_get_n_items(model); i++) {
        g_autoptr(ClocheMachine) item = g_list_model_get_item(model, i);
        g_hash_table_remove(gone, item);
        if (g_hash_table_add(self->shown, item)) // the rows hold the reference
            add_machine(self, item);
    }
    g_hash_table_iter_init(&iter, gone);
    while (g_hash_table_iter_next(&iter, &machine, NULL)) {
        g_hash_table_remove(self->shown, machine);
        if (machine == self->selected)
            select_machine(self, NULL);
        each_child(GTK_CONTAINER(self->grid), machine, remove_child);
        each_child(GTK_CONTAINER(self->list), machine, remove_child);
    }
    update_page(self);
    if (!self->selected)
        select_first(self);
}

static void change_sort(GSimpleAction *action, GVariant *value, gpointer data)
{
    ClocheLibraryWindow *self = data;
    self->by_state = strcmp(g_variant_get_string(value, NULL), "state") == 0;
    g_simple_action_set_state(action, value);
    arrange(self);
}

static void change_show(GSimpleAction *action, GVariant *value, gpointer data)
{
    ClocheLibraryWindow *self = data;
    const char *name = g_variant_get_string(value, NULL);
    for (guint i = 0; i < G_N_ELEMENTS(shows); i++) {
        if (strcmp(shows[i].name, name) != 0)
            continue;
        self->shown_states = shows[i].states;
        g_simple_action_set_state(action, value);
        g_key_file_set_string(cloche_app_get_preferences(self->app), "Library", "show", name);
        arrange(self);
    }
}

static void change_grid(GSimpleAction *action, GVariant *value, gpointer data)
{
    ClocheLibraryWindow *self = data;
    gboolean grid = g_variant_get_boolean(value);
    gtk_stack_set_visible_child_name(self->views, grid ? "grid" : "list");
    g_simple_action_set_state(action, value);
    g_key_file_set_boolean(cloche_app_get_preferences(self->app), "Library", "grid", grid);
    if (self->selected)
        cloche_library_window_select(self, self->selected);
}

static void find(GSimpleAction *action, GVariant *value, gpointer data)
{
    gtk_search_bar_set_search_mode(CLOCHE_LIBRARY_WINDOW(data)->search_bar, TRUE);
}

static void open_selected(GSimpleAction *action, GVariant *value, gpointer data)
{
    ClocheLibraryWindow *self = data;
    if (self->selected)
        cloche_app_open_console(self->app, self->selected);
}

static const GActionEntry window_actions[] = {
    {.name = "sort", .parameter_type = "s", .state = "'name'", .change_state = change_sort},
    {.name = "show", .parameter_type = "s", .state = "'all'", .change_state = change_show},
    {.name = "grid", .state = "false", .change_state = change_grid},
    {.name = "find", .activate = find},
    {.name = "open", .activate = open_selected},
    {.name = "undo", .activate = undo},
};

static gboolean window_closing(GtkWidget *widget, GdkEventAny *event)
{
    ClocheLibraryWindow *self = CLOCHE_LIBRARY_WINDOW(widget);
    GKeyFile *preferences = cloche_app_get_preferences(self->app);
    g_key_file_set_integer(preferences, "Library", "divider", gtk_paned_get_position(self->paned));
    cloche_app_save_preferences(self->app);
    if (self->doomed)
        really_delete(self);
    return FALSE;
}

static void restore_window(ClocheLibraryWindow *self)
{
    GKeyFile *preferences = cloche_app_get_preferences(self->app);
    int divider = g_key_file_get_integer(preferences, "Library", "divider", NULL);
    window_state_follow(GTK_WINDOW(self), self->app, "Library");
    if (divider > 0)
        gtk_paned_set_position(self->paned, divider);
    if (g_key_file_get_boolean(preferences, "Library", "grid", NULL))
        g_action_group_change_action_state(G_ACTION_GROUP(self), "grid", g_variant_new_boolean(TRUE));
    g_autofree char *show = g_key_file_get_string(preferences, "Library", "show", NULL);
    if (show)
        g_action_group_change_action_state(G_ACTION_GROUP(self), "show", g_variant_new_string(show));
}

GtkWidget *cloche_library_window_new(ClocheApp *app)
{
    ClocheLibraryWindow *self = g_object_new(CLOCHE_TYPE_LIBRARY_WINDOW, "application", app, NULL);
    GListModel *machines = cloche_app_get_machines(app);
    self->app = app;
    g_signal_connect_object(machines, "items-changed", G_CALLBACK(items_changed), self, 0);
    items_changed(machines, 0, 0, 0, self);
    restore_window(self);
    gtk_widget_grab_focus(GTK_WIDGET(self->list));
    return GTK_WIDGET(self);
}

static void library_window_dispose(GObject *object)
{
    ClocheLibraryWindow *self = CLOCHE_LIBRARY_WINDOW(object);
    if (self->doom_timer)
        g_source_remove(self->doom_timer);
    if (self->arranging)
        g_source_remove(self->arranging);
    self->doom_timer = self->arranging = 0;
    g_clear_pointer(&self->shown, g_hash_table_unref);
    g_clear_object(&self->selected);
    g_clear_object(&self->doomed);
    G_OBJECT_CLASS(cloche_library_window_parent_class)->dispose(object);
}

static void cloche_library_window_class_init(ClocheLibraryWindowClass *class)
{
    GtkWidgetClass *widget = GTK_WIDGET_CLASS(class);
    G_OBJECT_CLASS(class)->dispose = library_window_dispose;
    widget->key_press_event = window_key;
    widget->delete_event = window_closing;
    g_type_ensure(CLOCHE_TYPE_DETAILS);
    gtk_widget_class_set_template_from_resource(widget, "/org/cloche/Cloche/library-window.ui");
#define CHILD(name) gtk_widget_class_bind_template_child(widget, ClocheLibraryWindow, name)
    CHILD(stack);
    CHILD(views);
    CHILD(list);
    CHILD(grid);
    CHILD(grid_button);
    CHILD(engine_report);
    CHILD(no_match);
    CHILD(search_bar);
    CHILD(search_entry);
    CHILD(undo_label);
    CHILD(undo_revealer);
    CHILD(paned);
    CHILD(details);
    CHILD(machine_menu);
#undef CHILD
}

static void cloche_library_window_init(ClocheLibraryWindow *self)
{
    g_action_map_add_action_entries(G_ACTION_MAP(self), window_actions, G_N_ELEMENTS(window_actions), self);
    machine_actions_add(GTK_APPLICATION_WINDOW(self), doom);
    gtk_widget_init_template(GTK_WIDGET(self));
    self->shown = g_hash_table_new(NULL, NULL);
    self->shown_states = shows[0].states;
    gtk_list_box_set_filter_func(self->list, filter_row, self, NULL);
    gtk_list_box_set_sort_func(self->list, sort_row, self, NULL);
    gtk_list_box_set_header_func(self->list, group_header, self, NULL);
    gtk_flow_box_set_filter_func(self->grid, filter_tile, self, NULL);
    gtk_flow_box_set_sort_func(self->grid, sort_tile, self, NULL);
    g_signal_connect(self->list, "row-selected", G_CALLBACK(row_selected), self);
    g_signal_connect(self->list, "row-activated", G_CALLBACK(row_activated), self);
    g_signal_connect(self->grid, "selected-children-changed", G_CALLBACK(tile_selected), self);
    g_signal_connect(self->grid, "child-activated", G_CALLBACK(tile_activated), self);
    GtkWidget *both[] = {GTK_WIDGET(self->list), GTK_WIDGET(self->grid)};
    for (guint i = 0; i < G_N_ELEMENTS(both); i++) {
        g_signal_connect(both[i], "button-press-event", G_CALLBACK(list_button), self);
        g_signal_connect(both[i], "popup-menu", G_CALLBACK(list_popup), self);
    }
    g_signal_connect_swapped(self->search_entry, "search-changed", G_CALLBACK(arrange), self);
    g_signal_connect(self->undo_revealer, "notify::child-revealed", G_CALLBACK(undo_shown), NULL);
    undo_shown(self->undo_revealer);
    gtk_search_bar_connect_entry(self->search_bar, GTK_ENTRY(self->search_entry));
}
