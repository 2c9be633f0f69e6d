// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/media.h"
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

static void call(ClocheMachine *machine, const char *command, const char *drive, const char *file, GtkWindow *parent)
{
    g_autofree char *first = drive ? NULL : first_drive(machine);
    if (!drive && !first) {
        g_autoptr(GError) error =
            g_error_new(G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                        _("It has no disc or floppy drive; Settings ▸ Drives adds one while it is off."));
        dialog_error(parent, _("There is nothing to insert into"), error, NULL);
        return;
    }
    JsonObject *object = json_object_new();
    json_object_set_string_member(object, "id", drive ? drive : first);
    if (file)
        json_object_set_string_member(object, "filename", file);
    else
        json_object_set_boolean_member(object, "force", TRUE);
    JsonNode *arguments = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(arguments, object);
    dialog_call(machine, command, arguments, parent);
}

void media_eject(ClocheMachine *machine, const char *drive, GtkWindow *parent)
{
    call(machine, "eject", drive, NULL, parent);
}

struct choice {
    ClocheMachine *machine;
    char *drive;
};

static void choice_free(gpointer data, GClosure *closure)
{
    struct choice *choice = data;
    g_object_unref(choice->machine);
    g_free(choice->drive);
    g_free(choice);
}

static void chosen(GtkNativeDialog *chooser, int response, struct choice *choice)
{
    if (response == GTK_RESPONSE_ACCEPT) {
        g_autofree char *file = gtk_file_chooser_get_filename(GTK_FILE_CHOOSER(chooser));
        call(choice->machine, "blockdev-change-medium", choice->drive, file,
             gtk_native_dialog_get_transient_for(chooser));
    }
    g_object_unref(chooser);
}

void media_choose(ClocheMachine *machine, const char *drive, GtkWindow *parent)
{
    GtkFileChooserNative *chooser = gtk_file_chooser_native_new(
        _("Insert Disc or Floppy"), parent, GTK_FILE_CHOOSER_ACTION_OPEN, _("_Insert"), _("_Cancel"));
    struct choice *choice = g_new0(struct choice, 1);
    choice->machine = g_object_ref(machine);
    choice->drive = g_strdup(drive);
    g_signal_connect_data(chooser, "response", G_CALLBACK(chosen), choice, choice_free, 0);
    gtk_native_dialog_show(GTK_NATIVE_DIALOG(chooser));
}
