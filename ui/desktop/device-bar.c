// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/device-bar.h"
#include "ui/desktop/app.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/disk-grow.h"
#include "ui/desktop/forwards.h"
#include "ui/desktop/media.h"
#include "ui/desktop/prefix-row.h"

#include <glib/gi18n.h>
#include <string.h>

struct bar {
    GtkBox *box;
    ClocheMachine *machine;
    char *shape; // which devices there are buttons for
    GPtrArray *lights, *buttons;
};

static const struct {
    const char *icon, *name;
} kinds[] = {
    [MACHINE_DEVICE_DISK] = {"drive-harddisk-symbolic", N_("Disk %s")},
    [MACHINE_DEVICE_CDROM] = {"media-optical-symbolic", N_("Disc drive %s")},
    [MACHINE_DEVICE_FLOPPY] = {"media-floppy-symbolic", N_("Floppy drive %s")},
    [MACHINE_DEVICE_NETWORK] = {"network-wired-symbolic", N_("Network card %s")},
    [MACHINE_DEVICE_SERIAL] = {"utilities-terminal-symbolic", N_("Serial port %s")},
};

// ---- The menus ----
static void item(GMenu *menu, const char *label, const char *action, const char *target)
{
    g_autoptr(GMenuItem) entry = g_menu_item_new(label, NULL);
    if (action)
        g_menu_item_set_action_and_target(entry, action, "s", target);
    g_menu_append_item(menu, entry);
}

static void card_menu(GMenu *menu, const struct machine_device *device)
{
    g_autoptr(GMenu) addresses = g_menu_new();
    for (char **address = device->addresses; address && *address; address++) {
        g_autofree char *label = g_strdup_printf(_("Copy Address %s"), *address);
        item(addresses, label, "win.copy-text", *address);
    }
    if (device->addresses && device->addresses[0])
        g_menu_append_section(menu, NULL, G_MENU_MODEL(addresses));
    g_autoptr(GMenu) rest = g_menu_new();
    item(rest, device->link ? _("_Disconnect Cable") : _("_Connect Cable"), "win.toggle-cable", device->id);
    item(rest, device->capture ? _("Stop Capturing _Packets") : _("Capture _Packets…"), "win.capture-packets",
         device->id);
    item(rest, _("Port _Forwards…"), "win.port-forwards", device->id);
    g_menu_append_section(menu, NULL, G_MENU_MODEL(rest));
}

static void fill_menu(GtkMenuButton *button, const struct machine_device *device)
{
    g_autoptr(GMenu) menu = g_menu_new();
    if (device->kind == MACHINE_DEVICE_NETWORK) {
        card_menu(menu, device);
    } else if (device->kind == MACHINE_DEVICE_DISK) {
        item(menu, _("_Grow…"), "win.grow-disk", device->id);
    } else if (device->kind == MACHINE_DEVICE_SERIAL) {
        const char *colon = strchr(device->detail, ':');
        g_autofree char *label = g_strdup_printf(_("Copy %s"), colon ? colon + 1 : device->detail);
        item(menu, label, "win.copy-text", colon ? colon + 1 : device->detail);
    } else {
        item(menu, _("_Insert…"), "win.insert-into", device->id);
        item(menu, _("_Eject"), device->detail && *device->detail ? "win.eject-from" : "win.nothing", device->id);
    }
    gtk_menu_button_set_menu_model(button, G_MENU_MODEL(menu));
}

// ---- What an icon says ----
static char *tooltip(const struct machine_device *device)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_string_append_printf(text, gettext(kinds[device->kind].name), device->id);
    if (device->kind == MACHINE_DEVICE_SERIAL) {
        g_string_append_printf(text, _("\nLeads to %s"), device->detail);
    } else if (device->kind == MACHINE_DEVICE_NETWORK) {
        g_autofree char *network = prefix_describe(prefix_network, device->detail);
        g_string_append_printf(text, "\n%s", device->link ? network : _("The cable is unplugged"));
        for (char **address = device->addresses; address && *address; address++)
            g_string_append_printf(text, _("\nAddress %s"), *address);
        if (device->capture)
            g_string_append_printf(text, _("\nPackets are captured in %s"), device->capture);
    } else {
        g_autofree char *base = device->detail && *device->detail ? g_path_get_basename(device->detail) : NULL;
        g_string_append_printf(text, "\n%s", base ? base : _("Empty"));
        if (device->locked)
            g_string_append(text, _("\nThe guest holds the tray closed"));
        if (device->no_space)
            g_string_append(text, _("\nThe host's disk is full"));
    }
    if (device->counted) {
        g_autofree char *in = format_size(device->in), *out = format_size(device->out);
        const char *format =
            device->kind == MACHINE_DEVICE_NETWORK ? _("\n%s received, %s sent") : _("\n%s read, %s written");
        g_string_append_printf(text, format, in, out);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static void set_class(GtkWidget *widget, const char *name, gboolean on)
{
    GtkStyleContext *style = gtk_widget_get_style_context(widget);
    if (on)
        gtk_style_context_add_class(style, name);
    else
        gtk_style_context_remove_class(style, name);
}

// An open menu is not covered by the tooltip of its button.
static void tip_or_menu(GtkWidget *button)
{
    gtk_widget_set_has_tooltip(button, !gtk_toggle_button_get_active(GTK_TOGGLE_BUTTON(button)));
}

static GtkWidget *new_button(struct bar *bar, const struct machine_device *device)
{
    GtkWidget *button = gtk_menu_button_new(), *box = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 3);
    GtkWidget *light = gtk_label_new("●");
    gtk_container_add(GTK_CONTAINER(box), gtk_image_new_from_icon_name(kinds[device->kind].icon, GTK_ICON_SIZE_MENU));
    gtk_container_add(GTK_CONTAINER(box), light);
    gtk_widget_set_no_show_all(light, device->kind == MACHINE_DEVICE_SERIAL); // its traffic is not counted
    gtk_container_add(GTK_CONTAINER(button), box);
    gtk_style_context_add_class(gtk_widget_get_style_context(light), "device-light");
    gtk_button_set_relief(GTK_BUTTON(button), GTK_RELIEF_NONE);
    gtk_widget_set_focus_on_click(button, FALSE);
    g_autofree char *name = g_strdup_printf(gettext(kinds[device->kind].name), device->id);
    atk_object_set_name(gtk_widget_get_accessible(button), name);
    atk_object_set_name(gtk_widget_get_accessible(light), _("Activity"));
    fill_menu(GTK_MENU_BUTTON(button), device);
    g_signal_connect(button, "toggled", G_CALLBACK(tip_or_menu), NULL);
    g_ptr_array_add(bar->lights, light);
    g_ptr_array_add(bar->buttons, button);
    gtk_widget_show_all(button);
    return button;
}

// The buttons are made anew only when there are other devices: an open menu stays.
static void rebuild(struct bar *bar, GPtrArray *devices)
{
    g_autoptr(GString) shape = g_string_new("");
    for (guint i = 0; i < devices->len; i++)
        g_string_append_printf(shape, "%s\n", ((struct machine_device *)devices->pdata[i])->id);
    if (g_strcmp0(bar->shape, shape->str) == 0)
        return;
    g_free(bar->shape);
    bar->shape = g_strdup(shape->str);
    container_clear(GTK_CONTAINER(bar->box));
    g_ptr_array_set_size(bar->lights, 0);
    g_ptr_array_set_size(bar->buttons, 0);
    for (guint i = 0; i < devices->len; i++)
        gtk_box_pack_start(bar->box, new_button(bar, devices->pdata[i]), FALSE, FALSE, 0);
}

// What the menu of a device depends on.
static char *menu_state(const struct machine_device *device)
{
    g_autofree char *addresses = device->addresses ? g_strjoinv(" ", device->addresses) : NULL;
    return g_strdup_printf("%d %d %d %s", device->link, device->capture != NULL, device->detail && *device->detail,
                           addresses ? addresses : "");
}

static void show(struct bar *bar)
{
    GPtrArray *devices = cloche_machine_get_devices(bar->machine);
    rebuild(bar, devices);
    for (guint i = 0; i < devices->len && i < bar->buttons->len; i++) {
        const struct machine_device *device = devices->pdata[i];
        GtkWidget *button = bar->buttons->pdata[i], *light = bar->lights->pdata[i];
        g_autofree char *tip = tooltip(device), *menu = menu_state(device);
        gtk_widget_set_tooltip_text(button, tip);
        tip_or_menu(button);
        set_class(light, "device-in", device->in_active);
        set_class(light, "device-out", device->out_active);
        gboolean empty = device->kind == MACHINE_DEVICE_NETWORK ? !device->link : !device->detail || !*device->detail;
        set_class(button, "dim-label", empty);
        if (g_strcmp0(menu, g_object_get_data(G_OBJECT(button), "menu")) != 0 &&
            !gtk_toggle_button_get_active(GTK_TOGGLE_BUTTON(button))) {
            fill_menu(GTK_MENU_BUTTON(button), device);
            g_object_set_data_full(G_OBJECT(button), "menu", g_steal_pointer(&menu), g_free);
        }
    }
}

// ---- The actions ----
static ClocheMachine *machine_of(gpointer window)
{
    return g_object_get_data(window, "bar-machine");
}

static void insert_into(GSimpleAction *action, GVariant *value, gpointer window)
{
    media_choose(machine_of(window), g_variant_get_string(value, NULL), window);
}

static void eject_from(GSimpleAction *action, GVariant *value, gpointer window)
{
    media_eject(machine_of(window), g_variant_get_string(value, NULL), window);
}

static void grow_disk(GSimpleAction *action, GVariant *value, gpointer window)
{
    disk_grow_ask(machine_of(window), g_variant_get_string(value, NULL), window);
}

static void copy_text(GSimpleAction *action, GVariant *value, gpointer window)
{
    gtk_clipboard_set_text(gtk_widget_get_clipboard(window, GDK_SELECTION_CLIPBOARD), g_variant_get_string(value, NULL),
                           -1);
}

static void toggle_cable(GSimpleAction *action, GVariant *value, gpointer window)
{
    const char *id = g_variant_get_string(value, NULL);
    const struct machine_device *device = cloche_machine_find_device(machine_of(window), id);
    if (!device)
        return;
    dialog_call(machine_of(window), "set_link", control_arguments("s:name", id, "b:up", !device->link, NULL), window);
}

static void capture_into(gpointer window, const char *id, const char *file)
{
    dialog_call(machine_of(window), "x-cloche-capture", control_arguments("s:name", id, "s:file", file, NULL), window);
}

static void capture_file_chosen(GtkNativeDialog *chooser, int response, gpointer window)
{
    g_autofree char *file = gtk_file_chooser_get_filename(GTK_FILE_CHOOSER(chooser));
    if (response == GTK_RESPONSE_ACCEPT && file)
        capture_into(window, g_object_get_data(G_OBJECT(chooser), "id"), file);
    g_object_unref(chooser);
}

static void capture_packets(GSimpleAction *action, GVariant *value, gpointer window)
{
    const char *id = g_variant_get_string(value, NULL);
    const struct machine_device *device = cloche_machine_find_device(machine_of(window), id);
    if (device && device->capture) {
        capture_into(window, id, NULL);
        return;
    }
    GtkFileChooserNative *chooser = gtk_file_chooser_native_new(
        _("Capture Packets"), window, GTK_FILE_CHOOSER_ACTION_SAVE, _("_Capture"), _("_Cancel"));
    g_autofree char *name = g_strdup_printf("%s-%s.pcapng", cloche_machine_get_name(machine_of(window)), id);
    gtk_file_chooser_set_current_name(GTK_FILE_CHOOSER(chooser), g_strdelimit(name, "/", '-'));
    gtk_file_chooser_set_do_overwrite_confirmation(GTK_FILE_CHOOSER(chooser), TRUE);
    g_object_set_data_full(G_OBJECT(chooser), "id", g_strdup(id), g_free);
    g_signal_connect(chooser, "response", G_CALLBACK(capture_file_chosen), window);
    gtk_native_dialog_show(GTK_NATIVE_DIALOG(chooser));
}

static void port_forwards(GSimpleAction *action, GVariant *value, gpointer window)
{
    forwards_show(machine_of(window), g_variant_get_string(value, NULL), window);
}

static const GActionEntry entries[] = {
    {.name = "insert-into", .parameter_type = "s", .activate = insert_into},
    {.name = "eject-from", .parameter_type = "s", .activate = eject_from},
    {.name = "grow-disk", .parameter_type = "s", .activate = grow_disk},
    {.name = "copy-text", .parameter_type = "s", .activate = copy_text},
    {.name = "toggle-cable", .parameter_type = "s", .activate = toggle_cable},
    {.name = "capture-packets", .parameter_type = "s", .activate = capture_packets},
    {.name = "port-forwards", .parameter_type = "s", .activate = port_forwards},
};

static void bar_gone(gpointer data, GObject *box)
{
    struct bar *bar = data;
    g_signal_handlers_disconnect_by_data(bar->machine, bar);
    g_object_unref(bar->machine);
    g_ptr_array_unref(bar->lights);
    g_ptr_array_unref(bar->buttons);
    g_free(bar->shape);
    g_free(bar);
}

void device_bar_follow(GtkBox *box, ClocheMachine *machine, GtkApplicationWindow *window)
{
    struct bar *bar = g_new0(struct bar, 1);
    bar->box = box;
    bar->machine = g_object_ref(machine);
    bar->lights = g_ptr_array_new();
    bar->buttons = g_ptr_array_new();
    g_object_set_data_full(G_OBJECT(window), "bar-machine", g_object_ref(machine), g_object_unref);
    g_action_map_add_action_entries(G_ACTION_MAP(window), entries, G_N_ELEMENTS(entries), window);
    g_signal_connect_swapped(machine, "devices", G_CALLBACK(show), bar);
    g_object_weak_ref(G_OBJECT(box), bar_gone, bar);
    show(bar);
}
