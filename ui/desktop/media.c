// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/media.h"
#include "core/base/base.h"
#include "ui/desktop/dialogs.h"

#include <glib/gi18n.h>
#include <string.h>

// One removable drive of the definition.
struct drive {
    char *id, *kind, *file;
};

static void drive_free(gpointer data)
{
    struct drive *drive = data;
    g_free(drive->id);
    g_free(drive->kind);
    g_free(drive->file);
    g_free(drive);
}

static GPtrArray *removable_drives(ClocheMachine *machine)
{
    GPtrArray *drives = g_ptr_array_new_with_free_func(drive_free);
    g_auto(GStrv) groups = cloche_machine_get_groups(machine, "Drive *");
    for (char **group = groups; group && *group; group++) {
        g_autofree char *kind = cloche_machine_get_option(machine, *group, "kind");
        if (g_strcmp0(kind, "cdrom") != 0 && g_strcmp0(kind, "floppy") != 0)
            continue;
        struct drive *drive = g_new0(struct drive, 1);
        drive->id = g_strdup(*group + strlen("Drive "));
        drive->kind = g_steal_pointer(&kind);
        drive->file = cloche_machine_get_option(machine, *group, "file");
        g_ptr_array_add(drives, drive);
    }
    return drives;
}

static char *first_drive(ClocheMachine *machine)
{
    g_autoptr(GPtrArray) drives = removable_drives(machine);
    return drives->len ? g_strdup(((struct drive *)drives->pdata[0])->id) : NULL;
}

// ---- Ejecting and inserting ----
// A guest that holds the tray closed is asked to let go, which takes it a moment; then a person may force the tray.
#define RETRY_MS 500
#define TRIES    12

struct change {
    ClocheMachine *machine;
    GWeakRef parent;
    char *drive, *file;
    unsigned tries;
    gboolean force;
};

static void change_free(gpointer data)
{
    struct change *change = data;
    g_object_unref(change->machine);
    g_weak_ref_clear(&change->parent);
    g_free(change->drive);
    g_free(change->file);
    g_free(change);
}

static struct change *change_new(ClocheMachine *machine, const char *drive, const char *file, GtkWindow *parent)
{
    struct change *change = g_new0(struct change, 1);
    change->machine = g_object_ref(machine);
    change->drive = g_strdup(drive);
    change->file = g_strdup(file);
    g_weak_ref_init(&change->parent, parent);
    return change;
}

static void insert(struct change *change);

static gboolean insert_again(gpointer data)
{
    insert(data);
    return G_SOURCE_REMOVE;
}

static void force(gpointer data)
{
    struct change *change = data;
    g_autoptr(GtkWindow) parent = g_weak_ref_get(&change->parent);
    struct change *forced = change_new(change->machine, change->drive, change->file, parent);
    forced->force = TRUE;
    insert(forced);
}

static void inserted(GObject *machine, GAsyncResult *result, gpointer data)
{
    struct change *change = data;
    g_autoptr(GError) error = NULL;
    JsonNode *answer = cloche_machine_call_finish(CLOCHE_MACHINE(machine), result, &error);
    gboolean held = !change->force && g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY);
    if (held && ++change->tries < TRIES) {
        g_timeout_add(RETRY_MS, insert_again, change);
        return;
    }
    g_clear_pointer(&answer, json_node_unref);
    g_autoptr(GtkWindow) parent = g_weak_ref_get(&change->parent);
    if (held) {
        dialog_confirm(parent, _("The guest holds the tray closed"),
                       _("It was asked to open it and does not. Unmount the disc in the guest, or force the tray: what "
                         "the guest has open on the disc cannot be read any more."),
                       _("_Force"), TRUE, force, change, change_free);
        return;
    }
    if (error)
        dialog_error(parent, _("The medium could not be inserted"), error, NULL);
    change_free(change);
}

static void insert(struct change *change)
{
    cloche_machine_call(
        change->machine, "blockdev-change-medium",
        control_arguments("s:id", change->drive, "s:filename", change->file, "b:force", change->force, NULL), inserted,
        change);
}

// DRIVE, or the first drive that takes media; NULL after a dialog that says that there is none.
static char *drive_or_first(ClocheMachine *machine, const char *drive, GtkWindow *parent)
{
    char *first = drive ? g_strdup(drive) : first_drive(machine);
    if (first)
        return first;
    g_autoptr(GError) error =
        g_error_new(G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    _("It has no disc or floppy drive; Settings ▸ Drives adds one while it is off."));
    dialog_error(parent, _("There is nothing to insert into"), error, NULL);
    return NULL;
}

void media_eject(ClocheMachine *machine, const char *drive, GtkWindow *parent)
{
    g_autofree char *id = drive_or_first(machine, drive, parent);
    if (!id)
        return;
    dialog_call(machine, "eject", control_arguments("s:id", id, "b:force", TRUE, NULL), parent);
}

static void chosen(GtkNativeDialog *chooser, int response, ClocheMachine *machine)
{
    if (response == GTK_RESPONSE_ACCEPT) {
        g_autofree char *file = gtk_file_chooser_get_filename(GTK_FILE_CHOOSER(chooser));
        insert(change_new(machine, g_object_get_data(G_OBJECT(chooser), "drive"), file,
                          gtk_native_dialog_get_transient_for(chooser)));
    }
    g_object_unref(chooser);
}

void media_choose(ClocheMachine *machine, const char *drive, GtkWindow *parent)
{
    g_autofree char *id = drive_or_first(machine, drive, parent);
    if (!id)
        return;
    GtkFileChooserNative *chooser = gtk_file_chooser_native_new(
        _("Insert Disc or Floppy"), parent, GTK_FILE_CHOOSER_ACTION_OPEN, _("_Insert"), _("_Cancel"));
    g_object_set_data_full(G_OBJECT(chooser), "drive", g_steal_pointer(&id), g_free);
    g_signal_connect_object(chooser, "response", G_CALLBACK(chosen), machine, 0);
    gtk_native_dialog_show(GTK_NATIVE_DIALOG(chooser));
}
