// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/snapshots.h"
#include "core/config/snapshot.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/machine-work.h"
#include "ui/desktop/picture.h"
#include "ui/desktop/text-dialog.h"
#include "ui/desktop/window-state.h"

#include <cairo-gobject.h>
#include <glib/gi18n.h>

enum column { COLUMN_ID, COLUMN_NAME, COLUMN_MARKUP, COLUMN_NOTE, COLUMN_ICON, COLUMN_FACTS, COLUMN_FOLDER, COLUMNS };
enum response { RESPONSE_TAKE = 1, RESPONSE_RESTORE, RESPONSE_CLONE, RESPONSE_EDIT, RESPONSE_DELETE };

#define ICON_WIDTH    80
#define ICON_HEIGHT   50
#define PICTURE_WIDTH 300

// Belongs to the dialog. FILLED by fill() whenever something changed.
struct snapshots {
    ClocheApp *app;
    ClocheMachine *machine;
    GtkWidget *dialog, *view, *picture, *name, *facts, *note, *buttons[RESPONSE_DELETE + 1];
    GtkTreeStore *store;
    GtkTreeIter current; // the snapshot that the present state grew from
    bool has_current;
};

static void snapshots_free(gpointer data)
{
    struct snapshots *s = data;
    g_object_unref(s->store);
    g_object_unref(s->machine);
    g_free(s);
}

// ---- The tree ----
static GdkPixbuf *picture_of(const char *folder)
{
    g_autofree char *path = g_build_filename(folder, "screen.png", NULL);
    return g_file_test(path, G_FILE_TEST_EXISTS) ? gdk_pixbuf_new_from_file(path, NULL) : NULL;
}

// Pictures of the same size in every row; an icon stands for a machine that was off.
static cairo_surface_t *icon_of(struct snapshots *s, GdkPixbuf *picture)
{
    if (picture)
        return picture_fit(picture, s->dialog, ICON_WIDTH, ICON_HEIGHT);
    return gtk_icon_theme_load_surface(gtk_icon_theme_get_default(), cloche_machine_get_icon(s->machine),
                                       ICON_HEIGHT - 10, gtk_widget_get_scale_factor(s->dialog), NULL,
                                       GTK_ICON_LOOKUP_FORCE_SIZE, NULL);
}

// ---- Pictures take a while to read: beside the main loop ----
struct wanted {
    char *path;
    GtkTreeRowReference *row;
};

static void wanted_free(gpointer data)
{
    struct wanted *wanted = data;
    g_free(wanted->path);
    gtk_tree_row_reference_free(wanted->row);
    g_free(wanted);
}

static void read_in_thread(GTask *task, gpointer dialog, gpointer data, GCancellable *cancellable)
{
    const struct wanted *wanted = data;
    g_task_return_pointer(task,
                          gdk_pixbuf_new_from_file_at_size(wanted->path, 2 * PICTURE_WIDTH, 2 * PICTURE_WIDTH, NULL),
                          g_object_unref);
}

static void picture_read(GObject *dialog, GAsyncResult *result, gpointer data)
{
    struct snapshots *s = g_object_get_data(dialog, "snapshots");
    const struct wanted *wanted = g_task_get_task_data(G_TASK(result));
    g_autoptr(GdkPixbuf) picture = g_task_propagate_pointer(G_TASK(result), NULL);
    GtkTreePath *path = gtk_tree_row_reference_get_path(wanted->row); // NULL: the tree was filled again
    GtkTreeIter row;
    if (picture && path && gtk_tree_model_get_iter(GTK_TREE_MODEL(s->store), &row, path)) {
        cairo_surface_t *icon = icon_of(s, picture);
        gtk_tree_store_set(s->store, &row, COLUMN_ICON, icon, -1);
        cairo_surface_destroy(icon);
    }
    gtk_tree_path_free(path);
}

static void want_picture(struct snapshots *s, const char *folder, GtkTreeIter *row)
{
    struct wanted *wanted = g_new(struct wanted, 1);
    GtkTreePath *path = gtk_tree_model_get_path(GTK_TREE_MODEL(s->store), row);
    wanted->path = g_build_filename(folder, "screen.png", NULL);
    wanted->row = gtk_tree_row_reference_new(GTK_TREE_MODEL(s->store), path);
    gtk_tree_path_free(path);
    g_autoptr(GTask) task = g_task_new(s->dialog, NULL, picture_read, NULL);
    g_task_set_task_data(task, wanted, wanted_free);
    g_task_run_in_thread(task, read_in_thread);
}

static char *facts_of(const struct snapshot *snapshot)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_local(snapshot->time);
    g_autofree char *date = g_date_time_format(time, "%c");
    g_autofree char *memory = format_size(snapshot->memory_bytes), *disk = format_size(snapshot->disk_bytes);
    return snapshot->has_state
               ? g_strdup_printf(_("Taken %s\nSize on disk: memory %s, drives %s\nGoes on where the machine was"), date,
                                 memory, disk)
               : g_strdup_printf(_("Taken %s\nSize on disk: %s\nStarts the machine from power-on"), date, disk);
}

static void add_row(struct snapshots *s, const struct snapshot *snapshot, GtkTreeIter *parent, GtkTreeIter *row)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_local(snapshot->time);
    g_autofree char *date = g_date_time_format(time, "%x %R"),
                    *size = format_size(snapshot->memory_bytes + snapshot->disk_bytes), *facts = facts_of(snapshot);
    g_autofree char *markup =
        g_markup_printf_escaped("<b>%s</b>\n<small>%s  ·  %s</small>", snapshot->name, date, size);
    cairo_surface_t *icon = icon_of(s, NULL);
    gtk_tree_store_append(s->store, row, parent);
    gtk_tree_store_set(s->store, row, COLUMN_ID, snapshot->id, COLUMN_NAME, snapshot->name, COLUMN_MARKUP, markup,
                       COLUMN_NOTE, snapshot->note, COLUMN_ICON, icon, COLUMN_FACTS, facts, COLUMN_FOLDER,
                       snapshot->folder, -1);
    g_clear_pointer(&icon, cairo_surface_destroy);
    want_picture(s, snapshot->folder, row);
    if (snapshot->current)
        s->current = *row;
    s->has_current |= snapshot->current;
}

// The present state hangs on the snapshot that it grew from; it has no id.
static void add_present(struct snapshots *s)
{
    GtkTreeIter row;
    g_autofree char *markup = g_markup_printf_escaped("<i>%s</i>\n<small>%s</small>", _("You are here"),
                                                      cloche_machine_get_state_text(s->machine));
    g_autofree char *facts = g_strdup_printf(_("The present state: %s"), cloche_machine_get_state_text(s->machine));
    cairo_surface_t *icon = icon_of(s, cloche_machine_get_thumbnail(s->machine));
    gtk_tree_store_append(s->store, &row, s->has_current ? &s->current : NULL);
    gtk_tree_store_set(s->store, &row, COLUMN_NAME, _("You are here"), COLUMN_MARKUP, markup, COLUMN_ICON, icon,
                       COLUMN_FACTS, facts, -1);
    g_clear_pointer(&icon, cairo_surface_destroy);
}

// Children after their parent; the list is oldest first, but a parent may have been deleted.
static void add_children(struct snapshots *s, GPtrArray *list, const char *parent_id, GtkTreeIter *parent,
                         unsigned depth)
{
    for (guint i = 0; i < list->len && depth < 100; i++) {
        const struct snapshot *snapshot = list->pdata[i];
        GtkTreeIter row;
        if (g_strcmp0(snapshot->parent, parent_id) != 0)
            continue;
        add_row(s, snapshot, parent, &row);
        add_children(s, list, snapshot->id, &row, depth + 1);
    }
}

static void fill(struct snapshots *s)
{
    g_autoptr(GPtrArray) list = snapshot_list(cloche_machine_get_folder(s->machine));
    s->has_current = false;
    gtk_tree_store_clear(s->store);
    add_children(s, list, "", NULL, 0);
    add_present(s);
    gtk_tree_view_expand_all(GTK_TREE_VIEW(s->view));
    if (s->has_current)
        gtk_tree_selection_select_iter(gtk_tree_view_get_selection(GTK_TREE_VIEW(s->view)), &s->current);
}

static void fill_dialog(gpointer dialog)
{
    fill(g_object_get_data(dialog, "snapshots"));
}

static gboolean selected(struct snapshots *s, char **id, char **name, char **note)
{
    GtkTreeIter row;
    GtkTreeSelection *selection = gtk_tree_view_get_selection(GTK_TREE_VIEW(s->view));
    if (!gtk_tree_selection_get_selected(selection, NULL, &row))
        return FALSE;
    gtk_tree_model_get(GTK_TREE_MODEL(s->store), &row, COLUMN_ID, id, COLUMN_NAME, name, COLUMN_NOTE, note, -1);
    return *id != NULL;
}

static void show_picture(struct snapshots *s, const char *folder)
{
    g_autoptr(GdkPixbuf) kept = folder ? picture_of(folder) : NULL;
    picture_show(GTK_IMAGE(s->picture), folder ? kept : cloche_machine_get_thumbnail(s->machine), PICTURE_WIDTH,
                 PICTURE_WIDTH, cloche_machine_get_icon(s->machine), 96);
}

static void show_selected(struct snapshots *s)
{
    GtkTreeIter row;
    g_autofree char *name = NULL, *note = NULL, *facts = NULL, *folder = NULL;
    if (gtk_tree_selection_get_selected(gtk_tree_view_get_selection(GTK_TREE_VIEW(s->view)), NULL, &row))
        gtk_tree_model_get(GTK_TREE_MODEL(s->store), &row, COLUMN_NAME, &name, COLUMN_NOTE, &note, COLUMN_FACTS, &facts,
                           COLUMN_FOLDER, &folder, -1);
    gtk_label_set_text(GTK_LABEL(s->name), name ? name : _("No snapshot yet"));
    gtk_label_set_text(GTK_LABEL(s->facts),
                       facts ? facts
                             : _("A snapshot keeps the machine as it is now, so that you can come back to it."));
    gtk_label_set_text(GTK_LABEL(s->note), note ? note : "");
    show_picture(s, folder);
}

static void allow_taking(struct snapshots *s)
{
    const char *why_not = cloche_machine_why_not(s->machine, CLOCHE_REQUEST_SNAPSHOT);
    gtk_widget_set_sensitive(s->buttons[RESPONSE_TAKE], !why_not);
    gtk_widget_set_tooltip_text(s->buttons[RESPONSE_TAKE], why_not);
}

static void selection_changed(GtkTreeSelection *selection, struct snapshots *s)
{
    g_autofree char *id = NULL, *name = NULL, *note = NULL;
    gboolean any = selected(s, &id, &name, &note);
    show_selected(s);
    for (int i = RESPONSE_RESTORE; i <= RESPONSE_DELETE; i++) {
        gtk_widget_set_sensitive(s->buttons[i], any);
        gtk_widget_set_tooltip_text(s->buttons[i], any ? NULL : _("Select a snapshot first"));
    }
    allow_taking(s);
}

// ---- What can be done ----
struct chosen {
    struct snapshots *s;
    char *id, *name;
};

static struct chosen *chosen_new(struct snapshots *s, const char *id, const char *name)
{
    struct chosen *chosen = g_new0(struct chosen, 1);
    *chosen = (struct chosen){s, g_strdup(id), g_strdup(name)};
    return chosen;
}

static void chosen_free(gpointer data)
{
    struct chosen *chosen = data;
    g_free(chosen->id);
    g_free(chosen->name);
    g_free(chosen);
}

static void take(struct snapshots *s, const char *id, const char *name, const char *note)
{
    work_ask_snapshot(s->machine, GTK_WINDOW(s->dialog), fill_dialog, s->dialog);
}

static void restore(struct snapshots *s, const char *id, const char *name, const char *note)
{
    work_ask_restore(s->machine, id, name, GTK_WINDOW(s->dialog), fill_dialog, s->dialog);
}

static void clone_named(gpointer data, const char *text, const char *note, gboolean linked)
{
    struct chosen *chosen = data;
    work_clone(chosen->s->app, chosen->s->machine, text, linked, chosen->id, GTK_WINDOW(chosen->s->dialog));
}

static void clone_snapshot(struct snapshots *s, const char *id, const char *name, const char *note)
{
    g_autofree char *suggestion = g_strdup_printf("%s %s", cloche_machine_get_name(s->machine), name);
    struct text_question question = {
        .title = _("Clone from Snapshot"),
        .label = _("_Name of the clone"),
        .text = suggestion,
        .accept = _("_Clone"),
        .choice = _("_Linked clone: made at once, shares this machine's disks and needs them"),
        .choice_default = TRUE,
        .done = clone_named,
        .data = chosen_new(s, id, name),
        .destroy = chosen_free,
    };
    text_dialog_ask(GTK_WINDOW(s->dialog), &question);
}

static void edited(gpointer data, const char *text, const char *note, gboolean choice)
{
    struct chosen *chosen = data;
    const char *folder = cloche_machine_get_folder(chosen->s->machine);
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = snapshot_list(folder);
    struct snapshot *snapshot = snapshot_find(list, chosen->id, &error);
    if (!snapshot || !snapshot_rename(folder, snapshot, text, note, &error))
        dialog_error(GTK_WINDOW(chosen->s->dialog), _("The snapshot could not be changed"), error, NULL);
    fill(chosen->s);
}

static void edit_snapshot(struct snapshots *s, const char *id, const char *name, const char *note)
{
    struct text_question question = {
        .title = _("Edit Snapshot"),
        .label = _("_Name"),
        .text = name,
        .accept = _("_Apply"),
        .note_label = _("N_ote"),
        .note = note,
        .done = edited,
        .data = chosen_new(s, id, name),
        .destroy = chosen_free,
    };
    text_dialog_ask(GTK_WINDOW(s->dialog), &question);
}

static void delete_confirmed(gpointer data)
{
    struct chosen *chosen = data;
    work_delete_snapshot(chosen->s->machine, chosen->id, GTK_WINDOW(chosen->s->dialog), fill_dialog, chosen->s->dialog);
}

static void delete_snapshot(struct snapshots *s, const char *id, const char *name, const char *note)
{
    g_autofree char *question = g_strdup_printf(_("Delete the snapshot “%s”?"), name);
    dialog_confirm(GTK_WINDOW(s->dialog), question, _("What later snapshots and the present state need of it is kept."),
                   _("_Delete"), TRUE, delete_confirmed, chosen_new(s, id, name), chosen_free);
}

static const struct {
    const char *label;
    void (*act)(struct snapshots *s, const char *id, const char *name, const char *note);
} actions[] = {
    [RESPONSE_TAKE] = {N_("_Take…"), take},
    [RESPONSE_RESTORE] = {N_("_Restore…"), restore},
    [RESPONSE_CLONE] = {N_("_Clone…"), clone_snapshot},
    [RESPONSE_EDIT] = {N_("_Edit…"), edit_snapshot},
    [RESPONSE_DELETE] = {N_("_Delete…"), delete_snapshot},
};

static void clicked(GtkWidget *button, struct snapshots *s)
{
    g_autofree char *id = NULL, *name = NULL, *note = NULL;
    gboolean any = selected(s, &id, &name, &note);
    for (int i = RESPONSE_TAKE; i <= RESPONSE_DELETE; i++)
        if (s->buttons[i] == button && (any || i == RESPONSE_TAKE))
            actions[i].act(s, id, name, note);
}

static void show_take(ClocheMachine *machine, GObject *dialog)
{
    allow_taking(g_object_get_data(dialog, "snapshots"));
}

// ---- The window ----
static void make_view(struct snapshots *s)
{
    s->store = gtk_tree_store_new(COLUMNS, G_TYPE_STRING, G_TYPE_STRING, G_TYPE_STRING, G_TYPE_STRING,
                                  CAIRO_GOBJECT_TYPE_SURFACE, G_TYPE_STRING, G_TYPE_STRING);
    s->view = gtk_tree_view_new_with_model(GTK_TREE_MODEL(s->store));
    GtkTreeViewColumn *column = gtk_tree_view_column_new();
    GtkCellRenderer *icon = gtk_cell_renderer_pixbuf_new(), *text = gtk_cell_renderer_text_new();
    gtk_tree_view_column_pack_start(column, icon, FALSE);
    gtk_tree_view_column_pack_start(column, text, TRUE);
    gtk_tree_view_column_add_attribute(column, icon, "surface", COLUMN_ICON);
    gtk_tree_view_column_add_attribute(column, text, "markup", COLUMN_MARKUP);
    g_object_set(icon, "width", ICON_WIDTH + 8, "ypad", 4, NULL);
    g_object_set(text, "ellipsize", PANGO_ELLIPSIZE_END, "xpad", 6, NULL);
    gtk_tree_view_append_column(GTK_TREE_VIEW(s->view), column);
    gtk_tree_view_set_headers_visible(GTK_TREE_VIEW(s->view), FALSE);
    gtk_tree_view_set_enable_tree_lines(GTK_TREE_VIEW(s->view), TRUE);
    gtk_tree_view_set_search_column(GTK_TREE_VIEW(s->view), COLUMN_NAME);
    atk_object_set_name(gtk_widget_get_accessible(s->view), _("Snapshots"));
    g_signal_connect(gtk_tree_view_get_selection(GTK_TREE_VIEW(s->view)), "changed", G_CALLBACK(selection_changed), s);
}

static GtkWidget *add_label(GtkWidget *box, const char *class)
{
    GtkWidget *label = gtk_label_new("");
    gtk_label_set_xalign(GTK_LABEL(label), 0);
    gtk_label_set_line_wrap(GTK_LABEL(label), TRUE);
    gtk_label_set_max_width_chars(GTK_LABEL(label), 36);
    gtk_label_set_selectable(GTK_LABEL(label), FALSE);
    gtk_style_context_add_class(gtk_widget_get_style_context(label), class);
    gtk_box_pack_start(GTK_BOX(box), label, FALSE, FALSE, 0);
    return label;
}

static GtkWidget *make_side(struct snapshots *s)
{
    GtkWidget *side = gtk_box_new(GTK_ORIENTATION_VERTICAL, 6);
    s->picture = gtk_image_new();
    gtk_widget_set_size_request(s->picture, PICTURE_WIDTH, PICTURE_WIDTH * 5 / 8);
    gtk_image_set_pixel_size(GTK_IMAGE(s->picture), 96);
    atk_object_set_name(gtk_widget_get_accessible(s->picture), _("Screen of the snapshot"));
    gtk_box_pack_start(GTK_BOX(side), s->picture, FALSE, FALSE, 0);
    s->name = add_label(side, "snapshot-name");
    s->facts = add_label(side, "dim-label");
    s->note = add_label(side, "snapshot-note");
    g_object_set(side, "margin", 12, NULL);
    return side;
}

static GtkWidget *make_buttons(struct snapshots *s)
{
    GtkWidget *bar = gtk_action_bar_new();
    for (int i = RESPONSE_TAKE; i <= RESPONSE_DELETE; i++) {
        s->buttons[i] = gtk_button_new_with_mnemonic(gettext(actions[i].label));
        g_signal_connect(s->buttons[i], "clicked", G_CALLBACK(clicked), s);
        if (i == RESPONSE_DELETE)
            gtk_action_bar_pack_end(GTK_ACTION_BAR(bar), s->buttons[i]);
        else
            gtk_action_bar_pack_start(GTK_ACTION_BAR(bar), s->buttons[i]);
    }
    return bar;
}

void snapshots_window_show(ClocheApp *app, ClocheMachine *machine, GtkWindow *parent)
{
    struct snapshots *s = g_new0(struct snapshots, 1);
    g_autofree char *title = g_strdup_printf(_("Snapshots of “%s”"), cloche_machine_get_name(machine));
    s->app = app;
    s->machine = g_object_ref(machine);
    s->dialog = gtk_dialog_new_with_buttons(title, parent, GTK_DIALOG_DESTROY_WITH_PARENT | GTK_DIALOG_USE_HEADER_BAR,
                                            NULL, NULL);
    GtkWidget *area = gtk_dialog_get_content_area(GTK_DIALOG(s->dialog)),
              *scroller = gtk_scrolled_window_new(NULL, NULL), *box = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 0);
    make_view(s);
    gtk_container_add(GTK_CONTAINER(scroller), s->view);
    gtk_box_pack_start(GTK_BOX(box), scroller, TRUE, TRUE, 0);
    gtk_box_pack_start(GTK_BOX(box), gtk_separator_new(GTK_ORIENTATION_VERTICAL), FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(box), make_side(s), FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(area), box, TRUE, TRUE, 0);
    gtk_box_pack_start(GTK_BOX(area), make_buttons(s), FALSE, FALSE, 0);
    g_object_set(area, "border-width", 0, "spacing", 0, NULL);
    g_object_set_data_full(G_OBJECT(s->dialog), "snapshots", s, snapshots_free);
    gtk_window_set_default_size(GTK_WINDOW(s->dialog), 780, 440);
    window_state_follow_dialog(GTK_WINDOW(s->dialog), app, "Snapshots");
    g_signal_connect(s->dialog, "response", G_CALLBACK(gtk_widget_destroy), NULL);
    g_signal_connect_object(machine, "changed", G_CALLBACK(show_take), s->dialog, 0);
    gtk_widget_show_all(s->dialog);
    fill(s);
    selection_changed(NULL, s);
}
