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
    cloche_machine_call(machine, command, arguments, dialog_call_done, parent);
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

static void destroy(GtkWidget *child, gpointer data)
{
    gtk_widget_destroy(child);
}

static GtkWidget *drive_button(struct drive *drive)
{
    GtkWidget *button = gtk_menu_button_new();
    const char *icon = strcmp(drive->kind, "floppy") == 0 ? "media-floppy-symbolic" : "media-optical-symbolic";
    g_autofree char *base = drive->file && *drive->file ? g_path_get_basename(drive->file) : NULL;
    g_autofree char *tip =
        base ? g_strdup_printf(_("%s: %s"), drive->id, base) : g_strdup_printf(_("%s: empty"), drive->id);
    gtk_container_add(GTK_CONTAINER(button), gtk_image_new_from_icon_name(icon, GTK_ICON_SIZE_MENU));
    gtk_button_set_relief(GTK_BUTTON(button), GTK_RELIEF_NONE);
    gtk_widget_set_focus_on_click(button, FALSE);
    gtk_widget_set_tooltip_text(button, tip);
    atk_object_set_name(gtk_widget_get_accessible(button), tip);
    g_autoptr(GMenu) menu = g_menu_new();
    g_autoptr(GMenuItem) insert = g_menu_item_new(_("_Insert…"), NULL);
    g_autoptr(GMenuItem) eject = g_menu_item_new(_("_Eject"), NULL);
    g_menu_item_set_action_and_target(insert, "win.insert-into", "s", drive->id);
    g_menu_item_set_action_and_target(eject, "win.eject-from", "s", drive->id);
    g_menu_append_item(menu, insert);
    g_menu_append_item(menu, eject);
    gtk_menu_button_set_menu_model(GTK_MENU_BUTTON(button), G_MENU_MODEL(menu));
    return button;
}

void media_fill_icons(GtkBox *box, ClocheMachine *machine)
{
    g_autoptr(GPtrArray) drives = removable_drives(machine);
    g_autoptr(GString) now = g_string_new("");
    for (guint i = 0; i < drives->len; i++) {
        struct drive *drive = drives->pdata[i];
        g_string_append_printf(now, "%s\t%s\n", drive->id, drive->file ? drive->file : "");
    }
    if (g_strcmp0(g_object_get_data(G_OBJECT(box), "drives"), now->str) == 0)
        return;
    g_object_set_data_full(G_OBJECT(box), "drives", g_strdup(now->str), g_free);
    gtk_container_foreach(GTK_CONTAINER(box), destroy, NULL);
    for (guint i = 0; i < drives->len; i++)
        gtk_box_pack_start(box, drive_button(drives->pdata[i]), FALSE, FALSE, 0);
    gtk_widget_show_all(GTK_WIDGET(box));
}
