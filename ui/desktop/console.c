// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/console.h"
#include "core/config/snapshot.h"
#include "ui/desktop/clipboard-share.h"
#include "ui/desktop/close-dialog.h"
#include "ui/desktop/console-keys.h"
#include "ui/desktop/device-bar.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/machine-actions.h"
#include "ui/desktop/machine-work.h"
#include "ui/desktop/media.h"
#include "ui/desktop/menu-tips.h"
#include "ui/desktop/serial.h"
#include "ui/desktop/window-state.h"

#include <glib/gi18n.h>
#include <string.h>

struct _ClocheConsole {
    GtkApplicationWindow parent_instance;
    ClocheApp *app;
    ClocheMachine *machine;
    GtkWidget *menubar_box, *status_bar, *bar_edge, *bar_pin, *bar_menus, *engine_popover, *engine_badge, *retry,
        *menu_bar;
    GtkWidget *screen_scroller, *serial;
    GtkInfoBar *info_bar;
    GtkLabel *info_label, *state_label, *grab_label, *engine_label, *engine_text, *bar_title;
    GtkStack *pages;
    GtkRevealer *bar;
    GtkBox *device_icons;
    ClocheDisplay *display;
    GMenuModel *menubar;
    GMenu *keys, *recent_snapshots;
    GFileMonitor *snapshots_monitor;
    gboolean full_screen, resize_guest, closing, keep_size; // KEEP_SIZE: the remembered one holds for the first picture
    guint wish_timer, wish_width, wish_height;
};
G_DEFINE_TYPE(ClocheConsole, cloche_console, GTK_TYPE_APPLICATION_WINDOW)

ClocheMachine *cloche_console_get_machine(ClocheConsole *self)
{
    return self->machine;
}

ClocheDisplay *cloche_console_get_display(ClocheConsole *self)
{
    return self->display;
}

// ---- What the window says ----
static const char *veil_text(ClocheConsole *self)
{
    switch (cloche_machine_get_state(self->machine)) {
    case CLOCHE_STATE_RUNNING:
        return NULL;
    case CLOCHE_STATE_STARTING:
        return _("Starting…");
    case CLOCHE_STATE_BUSY:
        return _("Saving or restoring…");
    case CLOCHE_STATE_OFF:
        return _("The machine is off.\nMachine ▸ Start starts it.");
    default:
        return cloche_machine_get_state_text(self->machine);
    }
}

static void show_grab(ClocheConsole *self)
{
    gboolean relative = !cloche_display_is_absolute(self->display) && !veil_text(self);
    g_autofree char *key = cloche_display_get_release_label(self->display);
    g_autofree char *text = cloche_display_is_grabbed(self->display)
                                ? g_strdup_printf(_("%s releases pointer and keyboard"), key)
                                : g_strdup_printf(_("A click gives the pointer to the guest, %s takes it back"), key);
    gtk_label_set_text(self->grab_label, relative ? text : "");
    const char *name = cloche_machine_get_name(self->machine);
    g_autofree char *title = g_strdup_printf(_("%s (%s releases)"), name, key);
    gtk_label_set_text(self->bar_title, relative ? title : name);
}

// The keyboard is the window's again: its accelerators act, F10 opens its menus; in full screen the bar comes down.
static void released(ClocheConsole *self)
{
    g_action_group_change_action_state(G_ACTION_GROUP(self), "capture", g_variant_new_boolean(FALSE));
    if (self->full_screen) {
        gtk_revealer_set_reveal_child(self->bar, TRUE);
        gtk_widget_child_focus(GTK_WIDGET(self->bar), GTK_DIR_TAB_FORWARD);
    } else {
        gtk_window_set_focus(GTK_WINDOW(self), NULL);
    }
}

// Actions of this window that need the machine alive; the others are in machine-actions.c.
static gboolean has_tray(ClocheMachine *machine)
{
    GPtrArray *devices = cloche_machine_get_devices(machine);
    for (guint i = 0; i < devices->len; i++) {
        const struct machine_device *device = devices->pdata[i];
        if (device->kind == MACHINE_DEVICE_CDROM || device->kind == MACHINE_DEVICE_FLOPPY)
            return TRUE;
    }
    return FALSE;
}

static const char *why_not(ClocheConsole *self, const char *action)
{
    static const char *const alive[] = {"send-key", "send-custom-key", "type-clipboard", "insert", "eject", "capture",
                                        NULL};
    ClocheState state = cloche_machine_get_state(self->machine);
    gboolean tray = strcmp(action, "insert") == 0 || strcmp(action, "eject") == 0;
    if (strcmp(action, "clipboard") == 0)
        return clipboard_share_hint(GTK_APPLICATION_WINDOW(self));
    if (strcmp(action, "screenshot") == 0 && !cloche_display_get_picture(self->display))
        return _("The machine shows no picture yet. Start it first.");
    if (!g_strv_contains(alive, action))
        return NULL;
    if (state != CLOCHE_STATE_RUNNING && !(tray && state == CLOCHE_STATE_PAUSED))
        return state == CLOCHE_STATE_PAUSED ? _("The machine is paused. Resume it first.")
                                            : _("The machine does not run. Start it first.");
    return tray && !has_tray(self->machine)
               ? _("It has no disc or floppy drive. Settings ▸ Drives adds one while it is off.")
               : NULL;
}

static const char *tip(const char *action, gpointer data)
{
    const char *own = g_str_has_prefix(action, "win.") ? why_not(data, action + strlen("win.")) : NULL;
    return own ? own : machine_actions_why_not(data, action);
}

static void set_bar_tips(GtkWidget *button, gpointer self)
{
    menu_tips_set(GTK_MENU_SHELL(gtk_menu_button_get_popup(GTK_MENU_BUTTON(button))),
                  gtk_menu_button_get_menu_model(GTK_MENU_BUTTON(button)), tip, self);
}

static void update_actions(ClocheConsole *self)
{
    static const char *const names[] = {"send-key", "send-custom-key", "type-clipboard", "insert",
                                        "eject",    "screenshot",      "capture"};
    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        GAction *action = g_action_map_lookup_action(G_ACTION_MAP(self), names[i]);
        g_simple_action_set_enabled(G_SIMPLE_ACTION(action), !why_not(self, names[i]));
    }
    menu_tips_set(GTK_MENU_SHELL(self->menu_bar), self->menubar, tip, self);
    gtk_container_foreach(GTK_CONTAINER(self->bar_menus), set_bar_tips, self);
    menu_tips_set_buttons(GTK_WIDGET(self->bar), tip, self);
}

static void show(ClocheConsole *self)
{
    const char *name = cloche_machine_get_name(self->machine), *state = cloche_machine_get_state_text(self->machine);
    g_autofree char *title = g_strdup_printf("%s – Cloche", name);
    gtk_window_set_title(GTK_WINDOW(self), title);
    gtk_label_set_text(self->state_label, state);
    gtk_widget_set_tooltip_text(GTK_WIDGET(self->state_label), state);
    gtk_label_set_text(self->engine_label, cloche_machine_get_engine(self->machine));
    gtk_label_set_text(self->engine_text, cloche_machine_get_engine_reason(self->machine));
    gtk_widget_set_visible(self->engine_badge, *cloche_machine_get_engine(self->machine) != 0);
    cloche_display_set_veil(self->display, veil_text(self));
    ClocheState now = cloche_machine_get_state(self->machine);
    gboolean trouble = now == CLOCHE_STATE_ERROR || now == CLOCHE_STATE_CRASHED;
    gboolean no_space = cloche_machine_waits_for_space(self->machine);
    if (trouble)
        gtk_label_set_text(self->info_label, no_space ? _("The host's disk is full, so the machine waits; nothing is "
                                                          "lost. Free some space there, then press Retry.")
                                                      : state);
    gtk_widget_set_visible(self->retry, no_space);
    update_actions(self);
    gtk_info_bar_set_message_type(self->info_bar, trouble ? GTK_MESSAGE_ERROR : GTK_MESSAGE_INFO);
    gtk_info_bar_set_revealed(self->info_bar, trouble);
    show_grab(self);
}

// The window takes the size of the guest's picture, as far as the monitor has room for it.
static void fit_window(ClocheConsole *self)
{
    GtkWindow *window = GTK_WINDOW(self);
    GdkWindow *gdk = gtk_widget_get_window(GTK_WIDGET(self));
    gboolean keep_size = self->keep_size;
    self->keep_size = FALSE;
    if (keep_size || !gdk || self->full_screen || self->resize_guest || gtk_window_is_maximized(window) ||
        cloche_display_get_scale(self->display) != CLOCHE_SCALE_PIXEL)
        return;
    GdkRectangle room;
    gdk_monitor_get_workarea(gdk_display_get_monitor_at_window(gtk_widget_get_display(GTK_WIDGET(self)), gdk), &room);
    int factor = gtk_widget_get_scale_factor(GTK_WIDGET(self)), around;
    guint width, height;
    cloche_display_get_guest_size(self->display, &width, &height);
    GtkWidget *bars[] = {self->menubar_box, GTK_WIDGET(self->info_bar), self->status_bar};
    int bars_height = 0;
    for (guint i = 0; i < G_N_ELEMENTS(bars); i++) {
        gtk_widget_get_preferred_height(bars[i], NULL, &around);
        bars_height += around;
    }
    int wide = CLAMP(((int)width + factor - 1) / factor, 400, room.width * 9 / 10);
    int high = CLAMP(((int)height + factor - 1) / factor + bars_height, 300, room.height * 9 / 10), x, y;
    gtk_window_resize(window, wide, high);
    gtk_window_get_position(window, &x, &y);
    if (x + wide > room.x + room.width || y + high > room.y + room.height)
        gtk_window_move(window, room.x + (room.width - wide) / 2, room.y + (room.height - high) / 2);
}

// ---- Full screen ----
static gboolean hide_bar(gpointer data)
{
    ClocheConsole *self = data;
    if (!gtk_toggle_button_get_active(GTK_TOGGLE_BUTTON(self->bar_pin)))
        gtk_revealer_set_reveal_child(self->bar, FALSE);
    return G_SOURCE_REMOVE;
}

static gboolean bar_crossing(GtkWidget *widget, GdkEventCrossing *event, ClocheConsole *self)
{
    if (event->type == GDK_ENTER_NOTIFY)
        gtk_revealer_set_reveal_child(self->bar, TRUE);
    else if (event->detail != GDK_NOTIFY_INFERIOR)
        hide_bar(self);
    return FALSE;
}

static void set_full_screen(ClocheConsole *self, gboolean on)
{
    self->full_screen = on;
    gtk_widget_set_visible(self->menubar_box, !on);
    gtk_widget_set_visible(self->status_bar, !on);
    gtk_widget_set_visible(self->bar_edge, on);
    if (on) {
        gtk_window_fullscreen(GTK_WINDOW(self));
        gtk_revealer_set_reveal_child(self->bar, TRUE);
        g_timeout_add_seconds_full(G_PRIORITY_DEFAULT, 3, hide_bar, g_object_ref(self), g_object_unref);
    } else {
        gtk_window_unfullscreen(GTK_WINDOW(self));
    }
    gtk_widget_grab_focus(GTK_WIDGET(self->display));
}

// ---- Actions of this window ----
static void change_full_screen(GSimpleAction *action, GVariant *value, gpointer data)
{
    g_simple_action_set_state(action, value);
    set_full_screen(data, g_variant_get_boolean(value));
}

static void change_scale(GSimpleAction *action, GVariant *value, gpointer data)
{
    ClocheConsole *self = data;
    const char *name = g_variant_get_string(value, NULL);
    ClocheScale scale = strcmp(name, "fit") == 0       ? CLOCHE_SCALE_FIT
                        : strcmp(name, "integer") == 0 ? CLOCHE_SCALE_INTEGER
                                                       : CLOCHE_SCALE_PIXEL;
    g_simple_action_set_state(action, value);
    cloche_display_set_scale(self->display, scale);
    g_key_file_set_string(cloche_app_get_preferences(self->app), "Console", "scale", name);
    cloche_app_save_preferences(self->app);
}

static void change_resize_guest(GSimpleAction *action, GVariant *value, gpointer data)
{
    ClocheConsole *self = data;
    self->resize_guest = g_variant_get_boolean(value);
    g_simple_action_set_state(action, value);
}

static void change_capture(GSimpleAction *action, GVariant *value, gpointer data)
{
    g_simple_action_set_state(action, value);
    cloche_display_set_capture(CLOCHE_CONSOLE(data)->display, g_variant_get_boolean(value));
}

static void change_page(GSimpleAction *action, GVariant *value, gpointer data)
{
    ClocheConsole *self = data;
    const char *page = g_variant_get_string(value, NULL);
    if (strcmp(page, "serial") == 0 && !self->serial) {
        self->serial = serial_console_new(self->machine);
        gtk_stack_add_named(self->pages, self->serial, "serial");
        gtk_widget_show_all(self->serial);
    }
    g_simple_action_set_state(action, value);
    gtk_stack_set_visible_child_name(self->pages, page);
    gtk_widget_grab_focus(strcmp(page, "serial") == 0 ? serial_console_terminal(self->serial)
                                                      : GTK_WIDGET(self->display));
}

static void send_key(GSimpleAction *action, GVariant *value, gpointer data)
{
    cloche_machine_call(CLOCHE_CONSOLE(data)->machine, "send-key",
                        console_keys_arguments(g_variant_get_string(value, NULL)), NULL, NULL);
}

static void send_custom_key(GSimpleAction *action, GVariant *value, gpointer data)
{
    console_keys_ask(CLOCHE_CONSOLE(data)->machine, data);
}

static void clipboard_arrived(GtkClipboard *clipboard, const char *text, gpointer data)
{
    ClocheConsole *self = data;
    if (text && *text)
        dialog_call(self->machine, "x-cloche-type-text", control_arguments("s:text", text, NULL), GTK_WINDOW(self));
    g_object_unref(self);
}

static void type_clipboard(GSimpleAction *action, GVariant *value, gpointer data)
{
    gtk_clipboard_request_text(gtk_widget_get_clipboard(GTK_WIDGET(data), GDK_SELECTION_CLIPBOARD), clipboard_arrived,
                               g_object_ref(data));
}

static void screenshot_saved(GObject *picture, GAsyncResult *result, gpointer data)
{
    g_autoptr(GOutputStream) stream = data;
    ClocheConsole *self = g_object_get_data(G_OBJECT(stream), "console");
    g_autoptr(GError) error = NULL;
    if (!gdk_pixbuf_save_to_stream_finish(result, &error) || !g_output_stream_close(stream, NULL, &error)) {
        dialog_error(GTK_WINDOW(self), _("The screenshot could not be saved"), error, NULL);
        return;
    }
    const char *path = g_object_get_data(G_OBJECT(stream), "path");
    g_autofree char *text = g_strdup_printf(_("Screenshot saved: %s"), path);
    gtk_label_set_text(self->info_label, text);
    gtk_info_bar_set_message_type(self->info_bar, GTK_MESSAGE_INFO);
    gtk_info_bar_set_revealed(self->info_bar, TRUE);
}

static void screenshot(GSimpleAction *action, GVariant *value, gpointer data)
{
    ClocheConsole *self = data;
    g_autoptr(GdkPixbuf) picture = cloche_display_snapshot(self->display);
    const char *folder = g_get_user_special_dir(G_USER_DIRECTORY_PICTURES);
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *stamp = g_date_time_format(now, "%F %H-%M-%S");
    g_autofree char *safe = g_strdelimit(g_strdup(cloche_machine_get_name(self->machine)), "/", '-');
    g_autofree char *name = g_strdup_printf("%s %s.png", safe, stamp);
    g_autofree char *path = g_build_filename(folder ? folder : g_get_home_dir(), name, NULL);
    g_autoptr(GFile) file = g_file_new_for_path(path);
    g_autoptr(GError) error = NULL;
    g_autoptr(GFileOutputStream) stream = picture ? g_file_create(file, G_FILE_CREATE_NONE, NULL, &error) : NULL;
    if (stream) { // compressing the picture takes a while: not on the main loop
        g_object_set_data_full(G_OBJECT(stream), "path", g_steal_pointer(&path), g_free);
        g_object_set_data_full(G_OBJECT(stream), "console", g_object_ref(self), g_object_unref);
        gdk_pixbuf_save_to_stream_async(picture, G_OUTPUT_STREAM(stream), "png", NULL, screenshot_saved, stream, NULL);
        stream = NULL;
        return;
    }
    if (!error)
        error = g_error_new(G_IO_ERROR, G_IO_ERROR_NOT_FOUND, _("The machine shows no picture yet; start it first."));
    dialog_error(GTK_WINDOW(self), _("The screenshot could not be saved"), error, NULL);
}

static void insert_medium(GSimpleAction *action, GVariant *value, gpointer data)
{
    media_choose(CLOCHE_CONSOLE(data)->machine, NULL, GTK_WINDOW(data));
}

static void eject_medium(GSimpleAction *action, GVariant *value, gpointer data)
{
    media_eject(CLOCHE_CONSOLE(data)->machine, NULL, GTK_WINDOW(data));
}

// ---- The latest snapshots in the menu ----
#define RECENT 5

static void fill_recent(ClocheConsole *self)
{
    g_autoptr(GPtrArray) list = snapshot_list(cloche_machine_get_folder(self->machine));
    g_menu_remove_all(self->recent_snapshots);
    for (guint i = 0; i < MIN(RECENT, list->len); i++) {
        const struct snapshot *snapshot = list->pdata[list->len - 1 - i];
        g_autofree char *label = g_strdup_printf(_("Restore “%s”…"), snapshot->name);
        g_autoptr(GMenuItem) item = g_menu_item_new(label, NULL);
        g_menu_item_set_action_and_target(item, "win.restore", "(ss)", snapshot->id, snapshot->name);
        g_menu_append_item(self->recent_snapshots, item);
    }
}

static void restore(GSimpleAction *action, GVariant *value, gpointer data)
{
    ClocheConsole *self = data;
    const char *id, *name;
    g_variant_get(value, "(&s&s)", &id, &name);
    work_ask_restore(self->machine, id, name, GTK_WINDOW(self), NULL, NULL);
}

static void watch_snapshots(ClocheConsole *self)
{
    g_autofree char *path = g_build_filename(cloche_machine_get_folder(self->machine), "snapshots", NULL);
    g_autoptr(GFile) folder = g_file_new_for_path(path);
    self->snapshots_monitor = g_file_monitor_directory(folder, G_FILE_MONITOR_WATCH_MOVES, NULL, NULL);
    if (self->snapshots_monitor)
        g_signal_connect_swapped(self->snapshots_monitor, "changed", G_CALLBACK(fill_recent), self);
    fill_recent(self);
}

static void close_window(GSimpleAction *action, GVariant *value, gpointer data)
{
    gtk_window_close(data);
}

static const GActionEntry console_actions[] = {
    {.name = "full-screen", .state = "false", .change_state = change_full_screen},
    {.name = "scale", .parameter_type = "s", .state = "'pixel'", .change_state = change_scale},
    {.name = "resize-guest", .state = "false", .change_state = change_resize_guest},
    {.name = "capture", .state = "false", .change_state = change_capture},
    {.name = "page", .parameter_type = "s", .state = "'screen'", .change_state = change_page},
    {.name = "send-key", .parameter_type = "s", .activate = send_key},
    {.name = "send-custom-key", .activate = send_custom_key},
    {.name = "type-clipboard", .activate = type_clipboard},
    {.name = "screenshot", .activate = screenshot},
    {.name = "insert", .activate = insert_medium},
    {.name = "eject", .activate = eject_medium},
    {.name = "restore", .parameter_type = "(ss)", .activate = restore},
    {.name = "close", .activate = close_window},
};

// ---- The guest's resolution follows the window ----
static gboolean send_wish(gpointer data)
{
    ClocheConsole *self = data;
    self->wish_timer = 0;
    cloche_machine_call(self->machine, "x-cloche-wish-size",
                        control_arguments("i:head", (int64_t)0, "i:width", (int64_t)self->wish_width, "i:height",
                                          (int64_t)self->wish_height, NULL),
                        NULL, NULL);
    return G_SOURCE_REMOVE;
}

static void wish_size(ClocheDisplay *display, guint width, guint height, ClocheConsole *self)
{
    if (!self->resize_guest || (width == self->wish_width && height == self->wish_height))
        return;
    self->wish_width = width;
    self->wish_height = height;
    if (self->wish_timer)
        g_source_remove(self->wish_timer);
    self->wish_timer = g_timeout_add(300, send_wish, self);
}

// ---- Closing ----
static void close_chosen(gpointer data, CloseChoice choice)
{
    ClocheConsole *self = data;
    static const ClocheRequest requests[] = {
        [CLOSE_SAVE] = CLOCHE_REQUEST_SAVE,
        [CLOSE_SHUT_DOWN] = CLOCHE_REQUEST_SHUT_DOWN,
        [CLOSE_POWER_OFF] = CLOCHE_REQUEST_POWER_OFF,
    };
    if (choice == CLOSE_CANCEL)
        return;
    if (choice != CLOSE_KEEP_RUNNING)
        cloche_machine_request(self->machine, requests[choice], NULL);
    self->closing = TRUE;
    gtk_window_close(GTK_WINDOW(self));
}

static gboolean console_closing(GtkWidget *widget, GdkEventAny *event)
{
    ClocheConsole *self = CLOCHE_CONSOLE(widget);
    ClocheState state = cloche_machine_get_state(self->machine);
    gboolean alive = state == CLOCHE_STATE_RUNNING || state == CLOCHE_STATE_PAUSED || state == CLOCHE_STATE_ERROR;
    if (!self->closing && alive) {
        close_dialog_ask(GTK_WINDOW(self), cloche_app_get_preferences(self->app), close_chosen, self);
        return TRUE;
    }
    cloche_app_save_preferences(self->app);
    return FALSE;
}

// Keys go to the guest first: only then to the window's accelerators, and never while the screen has the focus.
static gboolean console_key(GtkWidget *widget, GdkEventKey *event)
{
    ClocheConsole *self = CLOCHE_CONSOLE(widget);
    gboolean guest = gtk_widget_has_focus(GTK_WIDGET(self->display)) && !veil_text(self);
    gboolean leave = event->type == GDK_KEY_PRESS && event->keyval == GDK_KEY_F11 && (event->state & GDK_SHIFT_MASK);
    if (guest && !leave)
        return gtk_window_propagate_key_event(GTK_WINDOW(widget), event);
    GtkWidgetClass *parent = GTK_WIDGET_CLASS(cloche_console_parent_class);
    return event->type == GDK_KEY_PRESS ? parent->key_press_event(widget, event)
                                        : parent->key_release_event(widget, event);
}

static void info_response(GtkInfoBar *bar, int response, ClocheConsole *self)
{
    if (response == GTK_RESPONSE_ACCEPT)
        cloche_machine_request(self->machine, CLOCHE_REQUEST_RESUME, GTK_WINDOW(self));
    gtk_info_bar_set_revealed(bar, FALSE);
}

// ---- Construction ----
// The bar of full screen has the same menus.
static void add_bar_menu(ClocheConsole *self, int index)
{
    g_autoptr(GMenuModel) menu = g_menu_model_get_item_link(self->menubar, index, G_MENU_LINK_SUBMENU);
    g_autofree char *label = NULL;
    g_menu_model_get_item_attribute(self->menubar, index, G_MENU_ATTRIBUTE_LABEL, "s", &label);
    GtkWidget *button =
        g_object_new(GTK_TYPE_MENU_BUTTON, "label", label, "use-underline", TRUE, "use-popover", FALSE, NULL);
    gtk_menu_button_set_menu_model(GTK_MENU_BUTTON(button), menu);
    gtk_container_add(GTK_CONTAINER(self->bar_menus), button);
    gtk_widget_show(button);
}

static void build_menus(ClocheConsole *self)
{
    GtkWidget *bar = self->menu_bar = gtk_menu_bar_new_from_model(self->menubar);
    console_keys_fill(self->keys);
    gtk_container_add(GTK_CONTAINER(self->menubar_box), bar);
    gtk_widget_show_all(bar);
    for (int i = 0; i < g_menu_model_get_n_items(self->menubar); i++)
        add_bar_menu(self, i);
    gtk_menu_button_set_popover(GTK_MENU_BUTTON(self->engine_badge), self->engine_popover);
}

void cloche_console_follow_preferences(ClocheConsole *self)
{
    if (!self->machine) // it is being closed, and takes its dialogs with it
        return;
    g_autofree char *release =
        g_key_file_get_string(cloche_app_get_preferences(self->app), "Console", "release-key", NULL);
    cloche_display_set_release_key(self->display, release ? release : CLOCHE_RELEASE_KEY);
}

static void restore_preferences(ClocheConsole *self)
{
    g_autofree char *scale = g_key_file_get_string(cloche_app_get_preferences(self->app), "Console", "scale", NULL);
    cloche_console_follow_preferences(self);
    if (scale)
        g_action_group_change_action_state(G_ACTION_GROUP(self), "scale", g_variant_new_string(scale));
    g_autofree char *uuid = cloche_machine_get_option(self->machine, "Machine", "uuid");
    g_autofree char *group = g_strdup_printf("Console %s", uuid);
    if (uuid) // its definition can be read
        self->keep_size = window_state_follow(GTK_WINDOW(self), self->app, group);
}

GtkWidget *cloche_console_new(ClocheApp *app, ClocheMachine *machine)
{
    ClocheConsole *self = g_object_new(CLOCHE_TYPE_CONSOLE, "application", app, NULL);
    self->app = app;
    self->machine = g_object_ref(machine);
    g_signal_connect_object(machine, "changed", G_CALLBACK(show), self, G_CONNECT_SWAPPED);
    machine_actions_set_machine(GTK_APPLICATION_WINDOW(self), machine);
    cloche_machine_attach_display(machine, self->display);
    clipboard_share_follow(GTK_APPLICATION_WINDOW(self), machine);
    device_bar_follow(self->device_icons, machine, GTK_APPLICATION_WINDOW(self));
    watch_snapshots(self);
    restore_preferences(self);
    show(self);
    gtk_widget_grab_focus(GTK_WIDGET(self->display));
    return GTK_WIDGET(self);
}

static void console_dispose(GObject *object)
{
    ClocheConsole *self = CLOCHE_CONSOLE(object);
    if (self->wish_timer)
        g_source_remove(self->wish_timer);
    self->wish_timer = 0;
    g_clear_object(&self->snapshots_monitor);
    g_clear_object(&self->machine);
    G_OBJECT_CLASS(cloche_console_parent_class)->dispose(object);
}

static void cloche_console_class_init(ClocheConsoleClass *class)
{
    GtkWidgetClass *widget = GTK_WIDGET_CLASS(class);
    G_OBJECT_CLASS(class)->dispose = console_dispose;
    widget->delete_event = console_closing;
    widget->key_press_event = widget->key_release_event = console_key;
    g_type_ensure(CLOCHE_TYPE_DISPLAY);
    gtk_widget_class_set_template_from_resource(widget, "/org/cloche/Cloche/console.ui");
#define CHILD(name) gtk_widget_class_bind_template_child(widget, ClocheConsole, name)
    CHILD(menubar_box);
    CHILD(status_bar);
    CHILD(bar_edge);
    CHILD(bar_pin);
    CHILD(bar_menus);
    CHILD(bar);
    CHILD(bar_title);
    CHILD(engine_popover);
    CHILD(engine_badge);
    CHILD(engine_label);
    CHILD(engine_text);
    CHILD(info_bar);
    CHILD(info_label);
    CHILD(retry);
    CHILD(state_label);
    CHILD(grab_label);
    CHILD(pages);
    CHILD(screen_scroller);
    CHILD(device_icons);
    CHILD(display);
    CHILD(menubar);
    CHILD(keys);
    CHILD(recent_snapshots);
#undef CHILD
}

static void cloche_console_init(ClocheConsole *self)
{
    g_action_map_add_action_entries(G_ACTION_MAP(self), console_actions, G_N_ELEMENTS(console_actions), self);
    machine_actions_add(GTK_APPLICATION_WINDOW(self), NULL);
    gtk_widget_init_template(GTK_WIDGET(self));
    build_menus(self);
    gtk_widget_add_events(self->bar_edge, GDK_ENTER_NOTIFY_MASK | GDK_LEAVE_NOTIFY_MASK);
    g_signal_connect(self->bar_edge, "enter-notify-event", G_CALLBACK(bar_crossing), self);
    g_signal_connect(self->bar_edge, "leave-notify-event", G_CALLBACK(bar_crossing), self);
    g_signal_connect(self->display, "wish-size", G_CALLBACK(wish_size), self);
    g_signal_connect_swapped(self->display, "geometry", G_CALLBACK(fit_window), self);
    g_signal_connect_swapped(self->display, "grab-changed", G_CALLBACK(show_grab), self);
    g_signal_connect_swapped(self->display, "released", G_CALLBACK(released), self);
    g_signal_connect(self->info_bar, "response", G_CALLBACK(info_response), self);
}
