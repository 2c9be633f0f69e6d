// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/system-row.h"
#include "core/config/medium.h"

#include <glib/gi18n.h>
#include <string.h>

enum column { COLUMN_NAME, COLUMN_ID };

// Belongs to the entry.
struct system_row {
    char *id;                 // as it came
    char *shown;              // the name that stands for it
    const GPtrArray *systems; // struct known_system *; NULL while they are read
};

static struct system_row *row_of(gpointer entry)
{
    return g_object_get_data(entry, "system-row");
}

static void row_free(gpointer data)
{
    struct system_row *row = data;
    g_free(row->id);
    g_free(row->shown);
    g_free(row);
}

// ---- Names and ids ----
// A system younger than the database: "Debian 13" for "http://debian.org/debian/13".
static char *name_by_id(const char *id)
{
    g_auto(GStrv) parts = g_strsplit(id, "/", -1);
    if (g_strv_length(parts) < 4 || !*parts[3])
        return g_strdup(id);
    parts[3][0] = g_ascii_toupper(parts[3][0]);
    return g_strjoinv(" ", parts + 3);
}

static char *name_of(const struct system_row *row, const char *id)
{
    for (guint i = 0; i < row->systems->len; i++) {
        const struct known_system *system = row->systems->pdata[i];
        if (strcmp(system->id, id) == 0)
            return g_strdup(system->name);
    }
    return name_by_id(id);
}

static const char *id_of(const struct system_row *row, const char *name)
{
    for (guint i = 0; i < row->systems->len; i++) {
        const struct known_system *system = row->systems->pdata[i];
        if (g_utf8_collate(system->name, name) == 0)
            return system->id;
    }
    return name;
}

char *system_row_text(GtkWidget *entry)
{
    const struct system_row *row = row_of(entry);
    const char *text = gtk_entry_get_text(GTK_ENTRY(entry));
    return g_strdup(!row->shown || strcmp(text, row->shown) == 0 ? row->id : id_of(row, text));
}

// ---- The list ----
// Every word that is typed is somewhere in the name, in any order.
static gboolean matches(GtkEntryCompletion *completion, const char *key, GtkTreeIter *at, gpointer data)
{
    g_autofree char *name = NULL, *folded = NULL;
    gtk_tree_model_get(gtk_entry_completion_get_model(completion), at, COLUMN_NAME, &name, -1);
    folded = g_utf8_casefold(name, -1);
    g_auto(GStrv) words = g_strsplit(key, " ", -1); // GTK has folded KEY already
    for (char **word = words; *word; word++)
        if (!strstr(folded, *word))
            return FALSE;
    return TRUE;
}

static void offer(GtkEntry *entry, const GPtrArray *systems)
{
    g_autoptr(GtkListStore) store = gtk_list_store_new(2, G_TYPE_STRING, G_TYPE_STRING);
    g_autoptr(GtkEntryCompletion) completion = gtk_entry_completion_new();
    for (guint i = 0; i < systems->len; i++) {
        const struct known_system *system = systems->pdata[i];
        gtk_list_store_insert_with_values(store, NULL, -1, COLUMN_NAME, system->name, COLUMN_ID, system->id, -1);
    }
    gtk_entry_completion_set_model(completion, GTK_TREE_MODEL(store));
    gtk_entry_completion_set_text_column(completion, COLUMN_NAME);
    gtk_entry_completion_set_match_func(completion, matches, NULL, NULL);
    gtk_entry_set_completion(entry, completion);
}

// ---- Reading the database takes a moment: beside the main loop ----
static void read_in_thread(GTask *task, gpointer entry, gpointer data, GCancellable *cancellable)
{
    g_task_return_pointer(task, (gpointer)medium_systems(), NULL);
}

static void known(GObject *entry, GAsyncResult *result, gpointer data)
{
    struct system_row *row = row_of(entry);
    row->systems = g_task_propagate_pointer(G_TASK(result), NULL);
    row->shown = name_of(row, row->id);
    gtk_entry_set_text(GTK_ENTRY(entry), row->shown);
    gtk_entry_set_placeholder_text(GTK_ENTRY(entry), _("Part of its name"));
    gtk_editable_set_editable(GTK_EDITABLE(entry), TRUE);
    offer(GTK_ENTRY(entry), row->systems);
}

GtkWidget *system_row_new(const char *id)
{
    GtkWidget *entry = gtk_entry_new();
    struct system_row *row = g_new0(struct system_row, 1);
    row->id = g_strdup(id);
    g_object_set_data_full(G_OBJECT(entry), "system-row", row, row_free);
    gtk_editable_set_editable(GTK_EDITABLE(entry), FALSE);
    gtk_entry_set_placeholder_text(GTK_ENTRY(entry), _("Reading the names…"));
    gtk_widget_set_hexpand(entry, TRUE);
    g_autoptr(GTask) task = g_task_new(entry, NULL, known, NULL);
    g_task_run_in_thread(task, read_in_thread);
    return entry;
}
