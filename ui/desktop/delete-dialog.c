// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/delete-dialog.h"
#include "core/config/snapshot.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/job.h"

#include <errno.h>
#include <glib/gi18n.h>
#include <glib/gstdio.h>

#define MAX_FILES   2000
#define KEY_FILES   "doomed-files"
#define KEY_DELETED "deleted"

// What Cloche keeps beside the definition for itself: not a person's choice, gone with the definition.
static const char *const housekeeping[] = {".lock", LAST_RUN_FILE, NULL};

enum column { COLUMN_DELETE, COLUMN_PATH, COLUMN_SHOWN, COLUMN_KIND, COLUMN_SIZE, COLUMN_BYTES };

struct question {
    ClocheMachine *machine;
    GtkApplicationWindow *window;
    void (*deleted)(GtkApplicationWindow *window, ClocheMachine *machine);
    GtkListStore *files;
    GtkLabel *total;
};

// ---- What each file is ----
struct inventory {
    GHashTable *disks;       // paths of the images that the definition names
    GPtrArray *snapshots;    // struct snapshot *
    GHashTable *snapshotted; // path of a frozen image -> name of its snapshot
};

static char *absolute(const char *folder, const char *file)
{
    return g_path_is_absolute(file) ? g_strdup(file) : g_build_filename(folder, file, NULL);
}

static void inventory_take(struct inventory *inventory, ClocheMachine *machine)
{
    const char *folder = cloche_machine_get_folder(machine);
    g_auto(GStrv) groups = cloche_machine_get_groups(machine, "Drive *");
    inventory->disks = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    inventory->snapshotted = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    inventory->snapshots = snapshot_list(folder);
    for (char **group = groups; group && *group; group++) {
        g_autofree char *file = cloche_machine_get_option(machine, *group, "file");
        if (file && *file)
            g_hash_table_add(inventory->disks, absolute(folder, file));
    }
    for (guint i = 0; i < inventory->snapshots->len; i++) {
        const struct snapshot *snapshot = inventory->snapshots->pdata[i];
        for (guint n = 0; n < snapshot->disks->len; n++) {
            const struct snapshot_disk *disk = snapshot->disks->pdata[n];
            g_hash_table_replace(inventory->snapshotted, absolute(folder, disk->file), snapshot->name);
        }
    }
}

static void inventory_clear(struct inventory *inventory)
{
    g_hash_table_unref(inventory->disks);
    g_hash_table_unref(inventory->snapshotted);
    g_ptr_array_unref(inventory->snapshots);
}

static const char *snapshot_of(const struct inventory *inventory, const char *path)
{
    for (guint i = 0; i < inventory->snapshots->len; i++) {
        const struct snapshot *snapshot = inventory->snapshots->pdata[i];
        if (g_str_has_prefix(path, snapshot->folder))
            return snapshot->name;
    }
    return NULL;
}

static char *kind_of(const struct inventory *inventory, const char *path, const char *shown)
{
    const char *name = g_hash_table_lookup(inventory->snapshotted, path);
    if (g_hash_table_contains(inventory->disks, path))
        return g_strdup(inventory->snapshots->len ? _("Disk, overlay in use") : _("Disk"));
    if (name)
        return g_strdup_printf(_("Disk as of “%s”"), name);
    if ((name = snapshot_of(inventory, path)))
        return g_strdup_printf(_("Snapshot “%s”"), name);
    return g_strdup(g_str_has_prefix(shown, "saved/")    ? _("Saved state")
                    : g_str_has_prefix(shown, "log/")    ? _("Log")
                    : g_strcmp0(shown, CONFIG_FILE) == 0 ? _("Settings")
                                                         : _("Other"));
}

static void add_file(GtkListStore *files, const struct inventory *inventory, const char *path, const char *shown,
                     gboolean ticked)
{
    GStatBuf info;
    if (g_lstat(path, &info) != 0)
        return;
    guint64 bytes = (guint64)info.st_blocks * 512;
    g_autofree char *size = format_size(bytes), *kind = kind_of(inventory, path, shown);
    gtk_list_store_insert_with_values(files, NULL, -1, COLUMN_DELETE, ticked, COLUMN_PATH, path, COLUMN_SHOWN, shown,
                                      COLUMN_KIND, kind, COLUMN_SIZE, size, COLUMN_BYTES, bytes, -1);
}

static void add_folder(GtkListStore *files, const struct inventory *inventory, const char *folder, const char *prefix,
                       unsigned *left)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && *left && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL), *shown = g_build_filename(prefix, name, NULL);
        (*left)--;
        if (g_file_test(path, G_FILE_TEST_IS_DIR) && !g_file_test(path, G_FILE_TEST_IS_SYMLINK))
            add_folder(files, inventory, path, shown, left);
        else if (!g_strv_contains(housekeeping, shown))
            add_file(files, inventory, path, shown, TRUE);
    }
}

// Images that the definition uses from elsewhere may belong to others: they are listed, but not ticked.
static void add_outside(GtkListStore *files, const struct inventory *inventory, ClocheMachine *machine)
{
    g_auto(GStrv) groups = cloche_machine_get_groups(machine, "Drive *");
    for (char **group = groups; group && *group; group++) {
        g_autofree char *file = cloche_machine_get_option(machine, *group, "file");
        g_autofree char *kind = cloche_machine_get_option(machine, *group, "kind");
        if (file && g_path_is_absolute(file) && g_strcmp0(kind, "disk") == 0 &&
            !g_str_has_prefix(file, cloche_machine_get_folder(machine)))
            add_file(files, inventory, file, file, FALSE);
    }
}

static void show_total(struct question *question)
{
    GtkTreeModel *model = GTK_TREE_MODEL(question->files);
    GtkTreeIter iter;
    guint64 total = 0, bytes;
    guint count = 0;
    gboolean on;
    for (gboolean more = gtk_tree_model_get_iter_first(model, &iter); more;
         more = gtk_tree_model_iter_next(model, &iter)) {
        gtk_tree_model_get(model, &iter, COLUMN_DELETE, &on, COLUMN_BYTES, &bytes, -1);
        total += on ? bytes : 0;
        count += on;
    }
    g_autofree char *size = format_size(total);
    g_autofree char *text = g_strdup_printf(
        ngettext("%u file is deleted, %s become free", "%u files are deleted, %s become free", count), count, size);
    gtk_label_set_text(question->total, text);
}

static void toggle(struct question *question, GtkTreePath *path)
{
    GtkTreeIter iter;
    gboolean on;
    if (!gtk_tree_model_get_iter(GTK_TREE_MODEL(question->files), &iter, path))
        return;
    gtk_tree_model_get(GTK_TREE_MODEL(question->files), &iter, COLUMN_DELETE, &on, -1);
    gtk_list_store_set(question->files, &iter, COLUMN_DELETE, !on, -1);
    show_total(question);
}

static void toggled(GtkCellRendererToggle *cell, char *text, struct question *question)
{
    GtkTreePath *path = gtk_tree_path_new_from_string(text);
    toggle(question, path);
    gtk_tree_path_free(path);
}

// Space or Enter on a row.
static void activated(GtkTreeView *view, GtkTreePath *path, GtkTreeViewColumn *column, struct question *question)
{
    toggle(question, path);
}

static GtkWidget *file_view(struct question *question)
{
    GtkWidget *view = gtk_tree_view_new_with_model(GTK_TREE_MODEL(question->files)),
              *scroller = gtk_scrolled_window_new(NULL, NULL);
    GtkCellRenderer *toggle = gtk_cell_renderer_toggle_new(), *name = gtk_cell_renderer_text_new();
    GtkCellRenderer *size = gtk_cell_renderer_text_new();
    g_signal_connect(toggle, "toggled", G_CALLBACK(toggled), question);
    g_signal_connect(view, "row-activated", G_CALLBACK(activated), question);
    g_object_set(name, "ellipsize", PANGO_ELLIPSIZE_MIDDLE, "width-chars", 30, NULL);
    g_object_set(size, "xalign", 1.0, NULL);
    const struct {
        const char *title, *attribute;
        GtkCellRenderer *cell;
        int column;
    } columns[] = {{N_("Delete"), "active", toggle, COLUMN_DELETE},
                   {N_("File"), "text", name, COLUMN_SHOWN},
                   {N_("What It Is"), "text", gtk_cell_renderer_text_new(), COLUMN_KIND},
                   {N_("Size on Disk"), "text", size, COLUMN_SIZE}};
    for (guint i = 0; i < G_N_ELEMENTS(columns); i++)
        gtk_tree_view_insert_column_with_attributes(GTK_TREE_VIEW(view), -1, gettext(columns[i].title), columns[i].cell,
                                                    columns[i].attribute, columns[i].column, NULL);
    gtk_tree_view_column_set_expand(gtk_tree_view_get_column(GTK_TREE_VIEW(view), 1), TRUE);
    gtk_tree_view_set_tooltip_column(GTK_TREE_VIEW(view), COLUMN_PATH);
    gtk_tree_sortable_set_sort_column_id(GTK_TREE_SORTABLE(question->files), COLUMN_BYTES, GTK_SORT_DESCENDING);
    atk_object_set_name(gtk_widget_get_accessible(view), _("Files of the machine"));
    gtk_scrolled_window_set_shadow_type(GTK_SCROLLED_WINDOW(scroller), GTK_SHADOW_IN);
    gtk_widget_set_size_request(scroller, 620, 240);
    gtk_container_add(GTK_CONTAINER(scroller), view);
    return scroller;
}

static char **ticked_files(GtkListStore *files)
{
    GPtrArray *list = g_ptr_array_new();
    GtkTreeIter iter;
    for (gboolean more = gtk_tree_model_get_iter_first(GTK_TREE_MODEL(files), &iter); more;
         more = gtk_tree_model_iter_next(GTK_TREE_MODEL(files), &iter)) {
        gboolean on;
        char *path;
        gtk_tree_model_get(GTK_TREE_MODEL(files), &iter, COLUMN_DELETE, &on, COLUMN_PATH, &path, -1);
        if (on)
            g_ptr_array_add(list, path);
        else
            g_free(path);
    }
    g_ptr_array_add(list, NULL);
    return (char **)g_ptr_array_free(list, FALSE);
}

static void response(GtkDialog *dialog, int response, struct question *question)
{
    if (response == GTK_RESPONSE_ACCEPT) {
        g_object_set_data_full(G_OBJECT(question->machine), KEY_FILES, ticked_files(question->files),
                               (GDestroyNotify)g_strfreev);
        question->deleted(question->window, question->machine);
    }
    gtk_widget_destroy(GTK_WIDGET(dialog));
    g_object_unref(question->files);
    g_object_unref(question->machine);
    g_free(question);
}

void delete_dialog_ask(ClocheMachine *machine, GtkApplicationWindow *parent,
                       void (*deleted)(GtkApplicationWindow *window, ClocheMachine *machine))
{
    g_autofree char *title = g_strdup_printf(_("Delete “%s”?"), cloche_machine_get_name(machine));
    GtkWidget *dialog = gtk_dialog_new_with_buttons(
        title, GTK_WINDOW(parent), GTK_DIALOG_MODAL | GTK_DIALOG_DESTROY_WITH_PARENT | GTK_DIALOG_USE_HEADER_BAR,
        _("_Cancel"), GTK_RESPONSE_CANCEL, _("_Delete"), GTK_RESPONSE_ACCEPT, NULL);
    GtkWidget *button = gtk_dialog_get_widget_for_response(GTK_DIALOG(dialog), GTK_RESPONSE_ACCEPT);
    gtk_style_context_add_class(gtk_widget_get_style_context(button), "destructive-action");
    struct question *question = g_new0(struct question, 1);
    question->machine = g_object_ref(machine);
    question->window = parent;
    question->deleted = deleted;
    question->files = gtk_list_store_new(6, G_TYPE_BOOLEAN, G_TYPE_STRING, G_TYPE_STRING, G_TYPE_STRING, G_TYPE_STRING,
                                         G_TYPE_UINT64);
    unsigned left = MAX_FILES;
    struct inventory inventory;
    inventory_take(&inventory, machine);
    add_folder(question->files, &inventory, cloche_machine_get_folder(machine), "", &left);
    add_outside(question->files, &inventory, machine);
    inventory_clear(&inventory);
    GtkWidget *area = gtk_dialog_get_content_area(GTK_DIALOG(dialog));
    GtkWidget *label =
        gtk_label_new(_("These files are deleted a few seconds from now; until then Undo brings the machine back."));
    g_object_set(area, "margin", 18, "spacing", 12, NULL);
    gtk_label_set_line_wrap(GTK_LABEL(label), TRUE);
    gtk_label_set_xalign(GTK_LABEL(label), 0);
    gtk_container_add(GTK_CONTAINER(area), label);
    gtk_box_pack_start(GTK_BOX(area), file_view(question), TRUE, TRUE, 0);
    question->total = GTK_LABEL(gtk_label_new(""));
    gtk_label_set_xalign(question->total, 0);
    gtk_style_context_add_class(gtk_widget_get_style_context(GTK_WIDGET(question->total)), "delete-total");
    gtk_container_add(GTK_CONTAINER(area), GTK_WIDGET(question->total));
    show_total(question);
    g_signal_connect(dialog, "response", G_CALLBACK(response), question);
    gtk_widget_show_all(dialog);
}

static void remove_empty_folders(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        if (g_file_test(path, G_FILE_TEST_IS_DIR) && !g_file_test(path, G_FILE_TEST_IS_SYMLINK))
            remove_empty_folders(path);
    }
    g_rmdir(folder); // fails where files were kept, which is right
}

static void remove_housekeeping(const char *folder)
{
    g_autofree char *definition = g_build_filename(folder, CONFIG_FILE, NULL);
    for (const char *const *name = housekeeping; *name && !g_file_test(definition, G_FILE_TEST_EXISTS); name++) {
        g_autofree char *path = g_build_filename(folder, *name, NULL);
        g_unlink(path);
    }
}

struct deletion {
    ClocheApp *app;
    ClocheMachine *machine;
    char *folder, **files;
};

static bool delete_files(void *opaque, struct progress *progress, GError **error)
{
    struct deletion *deletion = opaque;
    for (char **file = deletion->files; file && *file; file++)
        if (g_unlink(*file) != 0 && errno != ENOENT) {
            int e = errno;
            g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(e), _("%s could not be deleted: %s"), *file,
                        g_strerror(e));
            return false;
        }
    remove_housekeeping(deletion->folder);
    remove_empty_folders(deletion->folder);
    return true;
}

static void deletion_free(gpointer opaque)
{
    struct deletion *deletion = opaque;
    g_object_set_data(G_OBJECT(deletion->machine), KEY_DELETED, NULL);
    cloche_app_rescan(deletion->app);
    g_object_unref(deletion->machine);
    g_free(deletion->folder);
    g_strfreev(deletion->files);
    g_free(deletion);
}

void delete_dialog_carry_out(ClocheApp *app, ClocheMachine *machine, GtkWindow *parent)
{
    struct deletion *deletion = g_new(struct deletion, 1);
    *deletion = (struct deletion){app, g_object_ref(machine), g_strdup(cloche_machine_get_folder(machine)),
                                  g_object_steal_data(G_OBJECT(machine), KEY_FILES)};
    g_object_set_data(G_OBJECT(machine), KEY_DELETED, deletion);
    job_start_work(parent, &(struct job_work){.title = _("Deleting the machine"),
                                              .failure = _("The machine was not deleted completely"),
                                              .quiet = true,
                                              .run = delete_files,
                                              .opaque = deletion,
                                              .destroy = deletion_free});
}

gboolean delete_dialog_is_deleted(ClocheMachine *machine)
{
    return g_object_get_data(G_OBJECT(machine), KEY_DELETED) != NULL;
}
