// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.h"

#include "ui/desktop/app.h"
#include "ui/desktop/assistant.h"
#include "ui/desktop/console.h"
#include "ui/desktop/demo.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/host-report.h"
#include "ui/desktop/library-window.h"
#include "ui/desktop/machine-work.h"
#include "ui/desktop/preferences.h"
#include "ui/desktop/settings.h"
#include "ui/desktop/snapshots.h"

#include <glib/gi18n.h>

struct _ClocheApp {
    GtkApplication parent_instance;
    struct library *library;
    GListStore *machines;
    GKeyFile *preferences;
};
G_DEFINE_TYPE(ClocheApp, cloche_app, GTK_TYPE_APPLICATION)

// ---- Preferences ----
static char *preferences_path(void)
{
    return g_build_filename(g_get_user_config_dir(), "cloche", "desktop.conf", NULL);
}

GKeyFile *cloche_app_get_preferences(ClocheApp *self)
{
    return self->preferences;
}

void cloche_app_save_preferences(ClocheApp *self)
{
    g_autofree char *path = preferences_path(), *folder = g_path_get_dirname(path);
    g_autoptr(GError) error = NULL;
    g_mkdir_with_parents(folder, 0700);
    if (!g_key_file_save_to_file(self->preferences, path, &error))
        log_warning("desktop", "the preferences could not be saved: %s", error->message);
    for (GList *l = gtk_application_get_windows(GTK_APPLICATION(self)); l; l = l->next)
        if (CLOCHE_IS_CONSOLE(l->data))
            cloche_console_follow_preferences(l->data);
}

// ---- The list of machines ----
GListModel *cloche_app_get_machines(ClocheApp *self)
{
    return G_LIST_MODEL(self->machines);
}

struct library *cloche_app_get_library(ClocheApp *self)
{
    return self->library;
}

static int find_position(ClocheApp *self, const char *folder)
{
    guint count = g_list_model_get_n_items(G_LIST_MODEL(self->machines));
    for (guint i = 0; i < count; i++) {
        g_autoptr(ClocheMachine) machine = g_list_model_get_item(G_LIST_MODEL(self->machines), i);
        if (g_strcmp0(cloche_machine_get_folder(machine), folder) == 0)
            return i;
    }
    return -1;
}

ClocheMachine *cloche_app_find(ClocheApp *self, const char *folder)
{
    int position = find_position(self, folder);
    if (position < 0)
        return NULL;
    g_autoptr(ClocheMachine) machine = g_list_model_get_item(G_LIST_MODEL(self->machines), position);
    return machine; // the list holds it
}

static void machine_stopped(ClocheMachine *machine, const char *reason, ClocheApp *self)
{
    g_autofree char *title = g_strdup_printf(_("“%s” has stopped"), cloche_machine_get_name(machine));
    g_autoptr(GNotification) notification = g_notification_new(title);
    g_notification_set_body(notification, reason);
    g_application_send_notification(G_APPLICATION(self), cloche_machine_get_folder(machine), notification);
}

// The store follows the library: new entries are added, known ones told, missing ones removed.
static void follow_library(ClocheApp *self)
{
    GPtrArray *entries = library_entries(self->library);
    g_autoptr(GHashTable) present = g_hash_table_new(g_str_hash, g_str_equal);
    for (guint i = 0; i < entries->len; i++) {
        struct machine_entry *entry = entries->pdata[i];
        g_hash_table_add(present, entry->folder);
        ClocheMachine *known = cloche_app_find(self, entry->folder);
        if (known) {
            cloche_machine_update(known, entry);
            continue;
        }
        g_autoptr(ClocheMachine) machine = cloche_machine_new(entry);
        g_signal_connect_object(machine, "stopped", G_CALLBACK(machine_stopped), self, 0);
        g_list_store_append(self->machines, machine);
    }
    for (guint i = g_list_model_get_n_items(G_LIST_MODEL(self->machines)); i-- > 0;) {
        g_autoptr(ClocheMachine) machine = g_list_model_get_item(G_LIST_MODEL(self->machines), i);
        if (!g_hash_table_contains(present, cloche_machine_get_folder(machine)))
            g_list_store_remove(self->machines, i);
    }
}

static void library_changed(void *opaque, struct library *library)
{
    follow_library(opaque);
}

void cloche_app_rescan(ClocheApp *self)
{
    library_scan(self->library);
    follow_library(self);
}

// ---- Windows ----
static GtkWindow *main_window(ClocheApp *self)
{
    for (GList *l = gtk_application_get_windows(GTK_APPLICATION(self)); l; l = l->next)
        if (CLOCHE_IS_LIBRARY_WINDOW(l->data))
            return l->data;
    return NULL;
}

static GtkWindow *show_library(ClocheApp *self)
{
    GtkWindow *window = main_window(self);
    if (!window)
        window = GTK_WINDOW(cloche_library_window_new(self));
    gtk_window_present(window);
    return window;
}

void cloche_app_open_console(ClocheApp *self, ClocheMachine *machine)
{
    for (GList *l = gtk_application_get_windows(GTK_APPLICATION(self)); l; l = l->next)
        if (CLOCHE_IS_CONSOLE(l->data) && cloche_console_get_machine(l->data) == machine) {
            gtk_window_present(l->data);
            return;
        }
    gtk_window_present(GTK_WINDOW(cloche_console_new(self, machine)));
}

void cloche_app_open_settings(ClocheApp *self, ClocheMachine *machine, GtkWindow *parent)
{
    settings_new(self, machine, parent);
}

void cloche_app_open_snapshots(ClocheApp *self, ClocheMachine *machine, GtkWindow *parent)
{
    snapshots_window_show(self, machine, parent);
}

void cloche_app_created(ClocheApp *self, ClocheMachine *machine, gboolean customise)
{
    GtkWindow *window = show_library(self);
    cloche_library_window_select(CLOCHE_LIBRARY_WINDOW(window), machine);
    if (customise) {
        cloche_app_open_settings(self, machine, window);
        return;
    }
    cloche_machine_request(machine, CLOCHE_REQUEST_START, window);
    cloche_app_open_console(self, machine);
}

// ---- Actions ----
static void action_new(GSimpleAction *action, GVariant *value, gpointer app)
{
    gtk_window_present(GTK_WINDOW(cloche_assistant_new(app, main_window(app))));
}

static void action_import(GSimpleAction *action, GVariant *value, gpointer app)
{
    work_import(app, main_window(app));
}

static void folder_chosen(GtkNativeDialog *chooser, int response, ClocheApp *self)
{
    g_autofree char *folder = gtk_file_chooser_get_filename(GTK_FILE_CHOOSER(chooser));
    g_autoptr(GError) error = NULL;
    if (response == GTK_RESPONSE_ACCEPT && !library_add_folder(self->library, folder, &error))
        dialog_error(main_window(self), _("The folder was not added"), error, NULL);
    cloche_app_rescan(self);
    g_object_unref(chooser);
}

static void action_add_folder(GSimpleAction *action, GVariant *value, gpointer app)
{
    GtkFileChooserNative *chooser = gtk_file_chooser_native_new(
        _("Add Library Folder"), main_window(app), GTK_FILE_CHOOSER_ACTION_SELECT_FOLDER, _("_Add"), _("_Cancel"));
    g_signal_connect(chooser, "response", G_CALLBACK(folder_chosen), app);
    gtk_native_dialog_show(GTK_NATIVE_DIALOG(chooser));
}

static void start_demo(ClocheApp *self)
{
    g_autoptr(GError) error = NULL;
    GtkWindow *window = show_library(self);
    ClocheMachine *machine = demo_machine(self, &error);
    if (!machine) {
        dialog_error(window, _("The demo cannot be started"), error, NULL);
        return;
    }
    cloche_library_window_select(CLOCHE_LIBRARY_WINDOW(window), machine);
    if (!cloche_machine_why_not(machine, CLOCHE_REQUEST_START))
        cloche_machine_request(machine, CLOCHE_REQUEST_START, window);
    cloche_app_open_console(self, machine);
}

static void action_demo(GSimpleAction *action, GVariant *value, gpointer app)
{
    start_demo(app);
}

static void action_doctor(GSimpleAction *action, GVariant *value, gpointer app)
{
    host_report_show(main_window(app), library_main_folder(CLOCHE_APP(app)->library));
}

static void action_preferences(GSimpleAction *action, GVariant *value, gpointer app)
{
    preferences_show(app, main_window(app));
}

static void action_about(GSimpleAction *action, GVariant *value, gpointer app)
{
    gtk_show_about_dialog(gtk_application_get_active_window(app), "program-name", "Cloche", "version", PACKAGE_VERSION,
                          "comments", _("Desktop virtual machines that are fast without hardware virtualization"),
                          "license-type", GTK_LICENSE_GPL_2_0, "logo-icon-name", "cloche", NULL);
}

static void action_quit(GSimpleAction *action, GVariant *value, gpointer app)
{
    GList *windows = g_list_copy(gtk_application_get_windows(app));
    for (GList *l = windows; l; l = l->next)
        gtk_window_close(l->data);
    g_list_free(windows);
}

static const GActionEntry app_actions[] = {
    {.name = "new", .activate = action_new},
    {.name = "import", .activate = action_import},
    {.name = "add-folder", .activate = action_add_folder},
    {.name = "demo", .activate = action_demo},
    {.name = "doctor", .activate = action_doctor},
    {.name = "preferences", .activate = action_preferences},
    {.name = "about", .activate = action_about},
    {.name = "quit", .activate = action_quit},
};

static const struct {
    const char *action;
    const char *keys[3];
} accelerators[] = {
    {"app.new", {"<Primary>n"}},
    {"app.import", {"<Primary>i"}},
    {"app.preferences", {"<Primary>comma"}},
    {"app.quit", {"<Primary>q"}},
    {"win.show-help-overlay", {"<Primary>question", "<Primary><Shift>slash"}},
    {"win.find", {"<Primary>f"}},
    {"win.open", {"<Primary>o"}},
    {"win.start", {"<Primary>r"}},
    {"win.pause", {"<Primary>p"}},
    {"win.resume", {"<Primary><Shift>p"}},
    {"win.save", {"<Primary>s"}},
    {"win.shut-down", {"<Primary><Shift>d"}},
    {"win.power-off", {"<Primary><Shift>k"}},
    {"win.settings", {"<Primary>e"}},
    {"win.snapshots", {"<Primary><Shift>s"}},
    {"win.take-snapshot", {"<Primary>t"}},
    {"win.clone", {"<Primary><Shift>c"}},
    {"win.export", {"<Primary><Shift>e"}},
    {"win.vnc", {"<Primary><Shift>v"}},
    {"win.reset", {"<Primary><Shift>r"}},
    {"win.log", {"<Primary>l"}},
    {"win.report", {"<Primary><Shift>b"}},
    {"win.type-clipboard", {"<Primary><Shift>Insert"}},
    {"win.screenshot", {"<Primary>Print"}},
    {"win.insert", {"<Primary>d"}},
    {"win.eject", {"<Primary><Shift>j"}},
    {"app.demo", {"<Primary><Shift>o"}},
    {"app.doctor", {"<Primary>h"}},
    {"win.undo", {"<Primary>z"}},
    {"win.rename", {"F2"}},
    {"win.delete", {"Delete"}},
    {"win.full-screen", {"<Shift>F11"}},
    {"win.close", {"<Primary>w"}},
    {"app.add-folder", {"<Primary><Shift>f"}},
    {"win.grid", {"<Primary>g"}},
    {"win.show::all", {"<Primary>3"}},
    {"win.show::running", {"<Primary><Shift>a"}},
    {"win.sort::name", {"<Primary>1"}},
    {"win.sort::state", {"<Primary>2"}},
    {"win.start-group", {"<Primary><Shift>t"}},
    {"win.shut-down-group", {"<Primary><Shift>u"}},
    {"app.about", {"<Shift>F1"}},
    {"win.scale::pixel", {"<Primary>0"}},
    {"win.scale::integer", {"<Primary>8"}},
    {"win.scale::fit", {"<Primary>9"}},
    {"win.resize-guest", {"<Primary><Shift>w"}},
    {"win.page::screen", {"<Primary>F5"}},
    {"win.page::serial", {"<Primary>F6"}},
    {"win.capture", {"<Primary><Shift>g"}},
    {"win.send-custom-key", {"<Primary>k"}},
};

// ---- Life of the application ----
static gboolean open_library(ClocheApp *self)
{
    g_autoptr(GError) error = NULL;
    if (self->library)
        return TRUE;
    self->library = library_open(&error);
    if (!self->library) {
        dialog_error(NULL, _("The library of machines cannot be opened"), error, NULL);
        return FALSE;
    }
    library_watch(self->library, library_changed, self);
    follow_library(self);
    return TRUE;
}

static void app_startup(GApplication *app)
{
    ClocheApp *self = CLOCHE_APP(app);
    G_APPLICATION_CLASS(cloche_app_parent_class)->startup(app);
    g_autofree char *path = preferences_path();
    g_key_file_load_from_file(self->preferences, path, G_KEY_FILE_KEEP_COMMENTS, NULL);
    g_action_map_add_action_entries(G_ACTION_MAP(app), app_actions, G_N_ELEMENTS(app_actions), app);
    for (guint i = 0; i < G_N_ELEMENTS(accelerators); i++)
        gtk_application_set_accels_for_action(GTK_APPLICATION(app), accelerators[i].action,
                                              (const char *const *)accelerators[i].keys);
    g_autoptr(GtkCssProvider) css = gtk_css_provider_new();
    gtk_css_provider_load_from_resource(css, "/org/cloche/Cloche/cloche.css");
    gtk_style_context_add_provider_for_screen(gdk_screen_get_default(), GTK_STYLE_PROVIDER(css),
                                              GTK_STYLE_PROVIDER_PRIORITY_APPLICATION);
    gtk_icon_theme_add_resource_path(gtk_icon_theme_get_default(), "/org/cloche/Cloche/icons");
    gtk_window_set_default_icon_name("cloche");
}

static void app_activate(GApplication *app)
{
    if (open_library(CLOCHE_APP(app)))
        show_library(CLOCHE_APP(app));
}

// ---- Files from the file manager ----
static void open_folder(ClocheApp *self, const char *path, GtkWindow *window)
{
    g_autoptr(GError) error = NULL;
    if (!cloche_app_find(self, path) && !library_add_folder(self->library, path, &error))
        dialog_error(window, _("The folder was not added"), error, NULL);
    cloche_app_rescan(self);
    ClocheMachine *machine = cloche_app_find(self, path);
    if (machine)
        cloche_library_window_select(CLOCHE_LIBRARY_WINDOW(window), machine);
}

static void open_definition(ClocheApp *self, const char *path, GtkWindow *window)
{
    g_autofree char *folder = g_path_get_dirname(path);
    open_folder(self, folder, window);
}

static void open_disk(ClocheApp *self, const char *path, GtkWindow *window)
{
    GtkWidget *assistant = cloche_assistant_new(self, window);
    cloche_assistant_set_disk(CLOCHE_ASSISTANT(assistant), path);
    gtk_window_present(GTK_WINDOW(assistant));
}

static void open_medium(ClocheApp *self, const char *path, GtkWindow *window)
{
    GtkWidget *assistant = cloche_assistant_new(self, window);
    cloche_assistant_set_medium(CLOCHE_ASSISTANT(assistant), path);
    gtk_window_present(GTK_WINDOW(assistant));
}

// By the end of the name; anything else is taken for an installer medium.
static const struct {
    const char *ending;
    void (*open)(ClocheApp *self, const char *path, GtkWindow *window);
} openers[] = {
    {"/machine.conf", open_definition},
    {".cloche", work_import_file},
    {".img", open_disk},
    {".raw", open_disk},
    {".qcow2", open_disk},
    {".vmdk", open_disk},
    {".vdi", open_disk},
    {".vhd", open_disk},
};

static void app_open(GApplication *app, GFile **files, int count, const char *hint)
{
    ClocheApp *self = CLOCHE_APP(app);
    if (!open_library(self))
        return;
    GtkWindow *window = show_library(self);
    for (int i = 0; i < count; i++) {
        g_autofree char *path = g_file_get_path(files[i]);
        void (*open)(ClocheApp *, const char *, GtkWindow *) = open_medium;
        for (guint n = 0; path && n < G_N_ELEMENTS(openers); n++)
            if (g_str_has_suffix(path, openers[n].ending))
                open = openers[n].open;
        if (path && g_file_test(path, G_FILE_TEST_IS_DIR))
            open = open_folder;
        if (path)
            open(self, path, window);
    }
}

static int app_command_line(GApplication *app, GApplicationCommandLine *line)
{
    GVariantDict *options = g_application_command_line_get_options_dict(line);
    int argc;
    g_auto(GStrv) argv = g_application_command_line_get_arguments(line, &argc);
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_object_unref);
    for (int i = 1; i < argc; i++)
        g_ptr_array_add(files, g_application_command_line_create_file_for_arg(line, argv[i]));
    if (files->len)
        app_open(app, (GFile **)files->pdata, files->len, "");
    else
        app_activate(app);
    if (g_variant_dict_contains(options, "demo") && CLOCHE_APP(app)->library)
        start_demo(CLOCHE_APP(app));
    return 0;
}

static void app_finalize(GObject *object)
{
    ClocheApp *self = CLOCHE_APP(object);
    g_clear_object(&self->machines);
    g_clear_pointer(&self->library, library_close);
    g_clear_pointer(&self->preferences, g_key_file_unref);
    G_OBJECT_CLASS(cloche_app_parent_class)->finalize(object);
}

static void cloche_app_class_init(ClocheAppClass *class)
{
    G_OBJECT_CLASS(class)->finalize = app_finalize;
    G_APPLICATION_CLASS(class)->startup = app_startup;
    G_APPLICATION_CLASS(class)->activate = app_activate;
    G_APPLICATION_CLASS(class)->open = app_open;
    G_APPLICATION_CLASS(class)->command_line = app_command_line;
}

static void cloche_app_init(ClocheApp *self)
{
    self->machines = g_list_store_new(CLOCHE_TYPE_MACHINE);
    self->preferences = g_key_file_new();
    static const GOptionEntry options[] = {
        {"demo", 0, 0, G_OPTION_ARG_NONE, NULL, N_("Create the demo machine if need be and start it"), NULL},
        {0},
    };
    g_application_add_main_option_entries(G_APPLICATION(self), options);
    g_application_set_option_context_parameter_string(G_APPLICATION(self), _("[FILE…]"));
}

ClocheApp *cloche_app_new(void)
{
    return g_object_new(CLOCHE_TYPE_APP, "application-id", "org.cloche.Cloche", "flags",
                        G_APPLICATION_HANDLES_COMMAND_LINE | G_APPLICATION_HANDLES_OPEN, "resource-base-path",
                        "/org/cloche/Cloche", NULL);
}
