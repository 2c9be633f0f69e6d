// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/snapshots.h"
#include "core/config/snapshot.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/machine-work.h"
#include "ui/desktop/text-dialog.h"

#include <glib/gi18n.h>
#include <unistd.h>

enum column { COLUMN_ID, COLUMN_NAME, COLUMN_MARKUP, COLUMN_DATE, COLUMN_SIZE, COLUMN_NOTE, COLUMN_PICTURE, COLUMNS };
enum response { RESPONSE_TAKE = 1, RESPONSE_RESTORE, RESPONSE_CLONE, RESPONSE_RENAME, RESPONSE_DELETE };

// Belongs to the dialog. FILLED by snapshots_fill() whenever something changed.
struct snapshots {
    ClocheApp *app;
    ClocheMachine *machine;
    GtkWidget *dialog, *view, *note;
    GtkTreeStore *store;
    GtkTreeIter current; // "you are here"
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
static GdkPixbuf *picture_of(const struct snapshot *snapshot)
{
    g_autofree char *path = g_build_filename(snapshot->folder, "screen.png", NULL);
    return g_file_test(path, G_FILE_TEST_EXISTS) ? gdk_pixbuf_new_from_file_at_size(path, 96, 60, NULL) : NULL;
}

static void add_row(struct snapshots *s, const struct snapshot *snapshot, GtkTreeIter *parent, GtkTreeIter *row)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_local(snapshot->time);
    g_autofree char *date = g_date_time_format(time, "%c"),
                    *size = format_size(snapshot->memory_bytes + snapshot->disk_bytes);
    g_autofree char *name = g_markup_escape_text(snapshot->name, -1);
    g_autofree char *markup =
        snapshot->current ? g_strdup_printf(_("<b>%s</b>  – you are here"), name) : g_strdup(name);
    g_autoptr(GdkPixbuf) picture = picture_of(snapshot);
    gtk_tree_store_append(s->store, row, parent);
    if (snapshot->current)
        s->current = *row;
    s->has_current |= snapshot->current;
    gtk_tree_store_set(s->store, row, COLUMN_ID, snapshot->id, COLUMN_NAME, snapshot->name, COLUMN_MARKUP, markup,
                       COLUMN_DATE, date, COLUMN_SIZE, size, COLUMN_NOTE, snapshot->note, COLUMN_PICTURE, picture, -1);
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
    gtk_tree_view_expand_all(GTK_TREE_VIEW(s->view));
    if (s->has_current)
        gtk_tree_selection_select_iter(gtk_tree_view_get_selection(GTK_TREE_VIEW(s->view)), &s->current);
}

static void fill_dialog(gpointer ref) // after a job: the window may have been closed meanwhile
{
    g_autoptr(GObject) dialog = g_weak_ref_get(ref);
    if (dialog)
        fill(g_object_get_data(dialog, "snapshots"));
    g_weak_ref_clear(ref);
    g_free(ref);
}

static GWeakRef *weak(struct snapshots *s)
{
    GWeakRef *ref = g_new0(GWeakRef, 1);
    g_weak_ref_init(ref, s->dialog);
    return ref;
}

static gboolean selected(struct snapshots *s, char **id, char **name, char **note)
{
    GtkTreeIter row;
    GtkTreeSelection *selection = gtk_tree_view_get_selection(GTK_TREE_VIEW(s->view));
    if (!gtk_tree_selection_get_selected(selection, NULL, &row))
        return FALSE;
    gtk_tree_model_get(GTK_TREE_MODEL(s->store), &row, COLUMN_ID, id, COLUMN_NAME, name, COLUMN_NOTE, note, -1);
    return TRUE;
}

static void selection_changed(GtkTreeSelection *selection, struct snapshots *s)
{
    g_autofree char *id = NULL, *name = NULL, *note = NULL;
    gboolean any = selected(s, &id, &name, &note);
    gtk_label_set_text(GTK_LABEL(s->note), any && note ? note : "");
    for (int i = RESPONSE_RESTORE; i <= RESPONSE_DELETE; i++) {
        gtk_dialog_set_response_sensitive(GTK_DIALOG(s->dialog), i, any);
        gtk_widget_set_tooltip_text(gtk_dialog_get_widget_for_response(GTK_DIALOG(s->dialog), i),
                                    any ? NULL : _("Select a snapshot first"));
    }
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

static void take_named(gpointer data, const char *text, const char *note, gboolean choice)
{
    struct snapshots *s = ((struct chosen *)data)->s;
    work_take_snapshot(s->machine, text, note, GTK_WINDOW(s->dialog), fill_dialog, weak(s));
}

static void take(struct snapshots *s, const char *id, const char *name, const char *note)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *suggestion = g_date_time_format(now, "%F %H-%M");
    struct text_question question = {
        .title = _("Take Snapshot"),
        .label = _("_Name"),
        .text = suggestion,
        .accept = _("_Take"),
        .note_label = _("N_ote"),
        .done = take_named,
        .data = chosen_new(s, NULL, NULL),
        .destroy = chosen_free,
    };
    text_dialog_ask(GTK_WINDOW(s->dialog), &question);
}

static void restore_named(gpointer data, const char *text, const char *note, gboolean keep)
{
    struct chosen *chosen = data;
    struct snapshots *s = chosen->s;
    work_restore_snapshot(s->machine, chosen->id, keep ? text : NULL, GTK_WINDOW(s->dialog), fill_dialog, weak(s));
}

static void restore(struct snapshots *s, const char *id, const char *name, const char *note)
{
    g_autofree char *title = g_strdup_printf(_("Restore “%s”"), name),
                    *suggestion = g_strdup_printf(_("Before %s"), name);
    struct text_question question = {
        .title = title,
        .label = _("The present state is lost unless it is kept as a snapshot of this _name:"),
        .text = suggestion,
        .accept = _("_Restore"),
        .choice = _("_Keep the present state as a snapshot"),
        .choice_default = TRUE,
        .done = restore_named,
        .data = chosen_new(s, id, name),
        .destroy = chosen_free,
    };
    text_dialog_ask(GTK_WINDOW(s->dialog), &question);
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

static void renamed(gpointer data, const char *text, const char *note, gboolean choice)
{
    struct chosen *chosen = data;
    const char *folder = cloche_machine_get_folder(chosen->s->machine);
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) list = snapshot_list(folder);
    struct snapshot *snapshot = snapshot_find(list, chosen->id, &error);
    if (!snapshot || !snapshot_rename(folder, snapshot, text, NULL, &error))
        dialog_error(GTK_WINDOW(chosen->s->dialog), _("The snapshot could not be renamed"), error, NULL);
    fill(chosen->s);
}

static void rename_snapshot(struct snapshots *s, const char *id, const char *name, const char *note)
{
    struct text_question question = {
        .title = _("Rename Snapshot"),
        .label = _("_Name"),
        .text = name,
        .accept = _("_Rename"),
        .done = renamed,
        .data = chosen_new(s, id, name),
        .destroy = chosen_free,
    };
    text_dialog_ask(GTK_WINDOW(s->dialog), &question);
}

static void delete_confirmed(gpointer data)
{
    struct chosen *chosen = data;
    work_delete_snapshot(chosen->s->machine, chosen->id, GTK_WINDOW(chosen->s->dialog), fill_dialog, weak(chosen->s));
}

static void delete_snapshot(struct snapshots *s, const char *id, const char *name, const char *note)
{
    g_autofree char *question = g_strdup_printf(_("Delete the snapshot “%s”?"), name);
    dialog_confirm(GTK_WINDOW(s->dialog), question, _("What later snapshots and the present state need of it is kept."),
                   _("_Delete"), TRUE, delete_confirmed, chosen_new(s, id, name), chosen_free);
}

static void (*const actions[])(struct snapshots *, const char *, const char *, const char *) = {
    [RESPONSE_TAKE] = take,
    [RESPONSE_RESTORE] = restore,
    [RESPONSE_CLONE] = clone_snapshot,
    [RESPONSE_RENAME] = rename_snapshot,
    [RESPONSE_DELETE] = delete_snapshot,
};

static void response(GtkDialog *dialog, int response, struct snapshots *s)
{
    g_autofree char *id = NULL, *name = NULL, *note = NULL;
    if (response < RESPONSE_TAKE || response > RESPONSE_DELETE)
        gtk_widget_destroy(GTK_WIDGET(dialog));
    else if (selected(s, &id, &name, &note) || response == RESPONSE_TAKE)
        actions[response](s, id, name, note);
}

// ---- The window ----
static void make_view(struct snapshots *s)
{
    s->store = gtk_tree_store_new(COLUMNS, G_TYPE_STRING, G_TYPE_STRING, G_TYPE_STRING, G_TYPE_STRING, G_TYPE_STRING,
                                  G_TYPE_STRING, GDK_TYPE_PIXBUF);
    s->view = gtk_tree_view_new_with_model(GTK_TREE_MODEL(s->store));
    GtkTreeViewColumn *name = gtk_tree_view_column_new();
    GtkCellRenderer *picture = gtk_cell_renderer_pixbuf_new(), *text = gtk_cell_renderer_text_new();
    gtk_tree_view_column_set_title(name, _("Name"));
    gtk_tree_view_column_pack_start(name, picture, FALSE);
    gtk_tree_view_column_pack_start(name, text, TRUE);
    gtk_tree_view_column_add_attribute(name, picture, "pixbuf", COLUMN_PICTURE);
    gtk_tree_view_column_add_attribute(name, text, "markup", COLUMN_MARKUP);
    gtk_tree_view_column_set_expand(name, TRUE);
    gtk_tree_view_append_column(GTK_TREE_VIEW(s->view), name);
    gtk_tree_view_insert_column_with_attributes(GTK_TREE_VIEW(s->view), -1, _("Taken"), gtk_cell_renderer_text_new(),
                                                "text", COLUMN_DATE, NULL);
    gtk_tree_view_insert_column_with_attributes(GTK_TREE_VIEW(s->view), -1, _("Size on Disk"),
                                                gtk_cell_renderer_text_new(), "text", COLUMN_SIZE, NULL);
    atk_object_set_name(gtk_widget_get_accessible(s->view), _("Snapshots"));
    g_signal_connect(gtk_tree_view_get_selection(GTK_TREE_VIEW(s->view)), "changed", G_CALLBACK(selection_changed), s);
}

void snapshots_window_show(ClocheApp *app, ClocheMachine *machine, GtkWindow *parent)
{
    struct snapshots *s = g_new0(struct snapshots, 1);
    g_autofree char *title = g_strdup_printf(_("Snapshots of “%s”"), cloche_machine_get_name(machine));
    s->app = app;
    s->machine = g_object_ref(machine);
    s->dialog = gtk_dialog_new_with_buttons(title, parent, GTK_DIALOG_DESTROY_WITH_PARENT, _("_Take…"), RESPONSE_TAKE,
                                            _("_Restore…"), RESPONSE_RESTORE, _("_Clone…"), RESPONSE_CLONE,
                                            _("Re_name…"), RESPONSE_RENAME, _("_Delete…"), RESPONSE_DELETE, _("Cl_ose"),
                                            GTK_RESPONSE_CLOSE, NULL);
    GtkWidget *area = gtk_dialog_get_content_area(GTK_DIALOG(s->dialog)),
              *scroller = gtk_scrolled_window_new(NULL, NULL);
    make_view(s);
    s->note = gtk_label_new("");
    gtk_label_set_xalign(GTK_LABEL(s->note), 0);
    gtk_label_set_line_wrap(GTK_LABEL(s->note), TRUE);
    g_object_set(s->note, "margin", 12, NULL);
    gtk_scrolled_window_set_shadow_type(GTK_SCROLLED_WINDOW(scroller), GTK_SHADOW_IN);
    gtk_container_add(GTK_CONTAINER(scroller), s->view);
    gtk_box_pack_start(GTK_BOX(area), scroller, TRUE, TRUE, 0);
    gtk_box_pack_start(GTK_BOX(area), s->note, FALSE, FALSE, 0);
    g_object_set_data_full(G_OBJECT(s->dialog), "snapshots", s, snapshots_free);
    gtk_window_set_default_size(GTK_WINDOW(s->dialog), 680, 400);
    g_signal_connect(s->dialog, "response", G_CALLBACK(response), s);
    fill(s);
    selection_changed(NULL, s);
    gtk_widget_show_all(s->dialog);
}
