// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/settings.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/disk-grow.h"
#include "ui/desktop/forwards.h"
#include "ui/desktop/option-row.h"
#include "ui/desktop/window-state.h"

#include <glib/gi18n.h>
#include <string.h>

// Belongs to the dialog.
struct settings {
    ClocheApp *app;
    ClocheMachine *machine;
    GtkWidget *dialog, *stack;
    struct config *config;
    GPtrArray *rows;      // struct setting *
    GPtrArray *removed;   // char *: groups that the person took away
    GtkSizeGroup *labels; // of equal width
    gboolean off;         // everything may be changed
};

struct setting {
    char *group;
    const struct option *option;
    struct option_row *row;
    char *before;
};

// Not for people: Cloche keeps these itself.
static const char *const hidden[] = {"Machine/version",
                                     "Machine/uuid",
                                     "Machine/resume",
                                     "Machine/snapshot",
                                     "Drive */base-machine",
                                     "Drive */base-file",
                                     NULL};

// Groups of which there may be several: how a page adds one.
static const struct {
    const char *pattern, *title, *prefix, *add, *none;
} several[] = {
    {"Drive *", N_("Drives"), "disk", N_("_Add Drive"), N_("This machine has no drives.")},
    {"Network *", N_("Network Cards"), "net", N_("_Add Network Card"), N_("This machine has no network card.")},
    {"Serial *", N_("Serial Ports"), "serial", N_("_Add Serial Port"), N_("This machine has no serial port.")},
    {"Device *", N_("Further Devices"), "device", N_("_Add Device"), N_("This machine has no further devices.")},
};

static void setting_free(gpointer data)
{
    struct setting *setting = data;
    g_free(setting->group);
    g_free(setting->before);
    g_free(setting);
}

static void settings_free(gpointer data)
{
    struct settings *settings = data;
    config_free(settings->config);
    g_ptr_array_unref(settings->rows);
    g_ptr_array_unref(settings->removed);
    g_object_unref(settings->machine);
    g_object_unref(settings->labels);
    g_free(settings);
}

static gboolean is_hidden(const struct option *option)
{
    g_autofree char *name = g_strdup_printf("%s/%s", option->group, option->key);
    return g_strv_contains(hidden, name);
}

static void add_setting(struct settings *settings, GtkGrid *grid, const struct option *option, const char *group,
                        int line)
{
    struct setting *setting = g_new0(struct setting, 1);
    setting->group = g_strdup(group);
    setting->option = option;
    setting->before = config_get(settings->config, group, option->key);
    setting->row = option_row_new(option, setting->before ? setting->before : "");
    g_ptr_array_add(settings->rows, setting);
    GtkWidget *label = gtk_label_new(gettext(option->title)), *widget = option_row_widget(setting->row);
    gtk_label_set_xalign(GTK_LABEL(label), 1);
    gtk_widget_set_valign(label, GTK_ALIGN_BASELINE);
    gtk_size_group_add_widget(settings->labels, label);
    gtk_style_context_add_class(gtk_widget_get_style_context(label), "dim-label");
    if (!settings->off && !option->live) {
        gtk_widget_set_sensitive(widget, FALSE);
        gtk_widget_set_tooltip_text(widget, _("This cannot change while the machine runs. Shut it down first."));
    }
    GtkWidget *help = gtk_label_new(gettext(option->help));
    gtk_label_set_xalign(GTK_LABEL(help), 0);
    gtk_label_set_line_wrap(GTK_LABEL(help), TRUE);
    gtk_label_set_max_width_chars(GTK_LABEL(help), 60);
    gtk_style_context_add_class(gtk_widget_get_style_context(help), "dim-label");
    gtk_style_context_add_class(gtk_widget_get_style_context(help), "setting-help");
    gtk_grid_attach(grid, label, 0, 2 * line, 1, 1);
    gtk_grid_attach(grid, widget, 1, 2 * line, 1, 1);
    gtk_grid_attach(grid, help, 1, 2 * line + 1, 1, 1);
}

static GtkWidget *new_grid(void)
{
    GtkWidget *grid = gtk_grid_new();
    g_object_set(grid, "row-spacing", 4, "column-spacing", 12, "margin", 18, NULL);
    return grid;
}

static GtkWidget *group_grid(struct settings *settings, const char *pattern, const char *group)
{
    GtkWidget *grid = new_grid();
    int line = 0;
    for (size_t i = 0; i < options_count; i++)
        if (strcmp(options_table[i].group, pattern) == 0 && !is_hidden(&options_table[i]))
            add_setting(settings, GTK_GRID(grid), &options_table[i], group, line++);
    return grid;
}

static void add_page(struct settings *settings, GtkWidget *child, const char *title)
{
    GtkWidget *scroller = gtk_scrolled_window_new(NULL, NULL);
    gtk_scrolled_window_set_policy(GTK_SCROLLED_WINDOW(scroller), GTK_POLICY_NEVER, GTK_POLICY_AUTOMATIC);
    gtk_container_add(GTK_CONTAINER(scroller), child);
    gtk_stack_add_titled(GTK_STACK(settings->stack), scroller, title, title);
}

// ---- Pages with several groups ----
static void remove_group(GtkButton *button, struct settings *settings)
{
    GtkWidget *frame = g_object_get_data(G_OBJECT(button), "frame");
    const char *group = g_object_get_data(G_OBJECT(button), "group");
    g_ptr_array_add(settings->removed, g_strdup(group));
    for (guint i = settings->rows->len; i-- > 0;)
        if (strcmp(((struct setting *)settings->rows->pdata[i])->group, group) == 0)
            g_ptr_array_remove_index(settings->rows, i);
    gtk_widget_destroy(frame);
}

static void grow_clicked(GtkButton *button, struct settings *settings)
{
    disk_grow_ask(settings->machine, g_object_get_data(G_OBJECT(button), "drive"), GTK_WINDOW(settings->dialog));
}

static void add_grow(struct settings *settings, GtkBox *head, const char *group)
{
    g_autofree char *kind = config_get(settings->config, group, "kind"),
                    *file = config_get(settings->config, group, "file");
    if (g_strcmp0(kind, "disk") != 0 || !file || !*file)
        return;
    GtkWidget *grow = gtk_button_new_with_mnemonic(_("_Grow…"));
    g_object_set_data_full(G_OBJECT(grow), "drive", g_strdup(group + strlen("Drive ")), g_free);
    g_signal_connect(grow, "clicked", G_CALLBACK(grow_clicked), settings);
    gtk_box_pack_start(head, grow, FALSE, FALSE, 0);
}

static void add_group(struct settings *settings, GtkBox *page, const char *pattern, const char *group)
{
    GtkWidget *frame = gtk_frame_new(NULL), *head = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 6);
    GtkWidget *remove = gtk_button_new_with_mnemonic(_("_Remove")), *title = gtk_label_new(group);
    gtk_box_pack_start(GTK_BOX(head), title, FALSE, FALSE, 6);
    gtk_box_pack_start(GTK_BOX(head), remove, FALSE, FALSE, 0);
    if (strcmp(pattern, "Drive *") == 0)
        add_grow(settings, GTK_BOX(head), group);
    gtk_frame_set_label_widget(GTK_FRAME(frame), head);
    gtk_widget_set_sensitive(remove, settings->off);
    if (!settings->off)
        gtk_widget_set_tooltip_text(remove, _("This cannot change while the machine runs. Shut it down first."));
    gtk_container_add(GTK_CONTAINER(frame), group_grid(settings, pattern, group));
    g_object_set_data(G_OBJECT(remove), "frame", frame);
    g_object_set_data_full(G_OBJECT(remove), "group", g_strdup(group), g_free);
    g_signal_connect(remove, "clicked", G_CALLBACK(remove_group), settings);
    gtk_box_pack_start(page, frame, FALSE, FALSE, 0);
    gtk_widget_show_all(frame);
}

static void add_clicked(GtkButton *button, struct settings *settings)
{
    guint kind = GPOINTER_TO_UINT(g_object_get_data(G_OBJECT(button), "kind"));
    g_autofree char *group = config_add_group(settings->config, several[kind].pattern, several[kind].prefix);
    // It stays only in this window until something is set.
    add_group(settings, g_object_get_data(G_OBJECT(button), "page"), several[kind].pattern, group);
    const struct option *first = ((struct setting *)settings->rows->pdata[settings->rows->len - 1])->option;
    config_set(settings->config, group, first->key, first->default_text, NULL); // the next Add takes the next number
}

// On a page without groups a sentence stands in their place.
static void show_none(GtkContainer *page, GtkWidget *changed, GtkWidget *none)
{
    GList *children = gtk_container_get_children(page);
    gtk_widget_set_visible(none, g_list_length(children) <= 2); // itself and the Add button
    g_list_free(children);
}

static void add_several_page(struct settings *settings, guint kind)
{
    GtkWidget *page = gtk_box_new(GTK_ORIENTATION_VERTICAL, 12),
              *button = gtk_button_new_with_mnemonic(gettext(several[kind].add));
    GtkWidget *none = gtk_label_new(gettext(several[kind].none));
    g_object_set(page, "margin", 18, "valign", GTK_ALIGN_START, NULL);
    g_object_set(none, "xalign", 0.0, "no-show-all", TRUE, NULL);
    gtk_style_context_add_class(gtk_widget_get_style_context(none), "dim-label");
    gtk_box_pack_start(GTK_BOX(page), none, FALSE, FALSE, 0);
    g_signal_connect_object(page, "add", G_CALLBACK(show_none), none, 0);
    g_signal_connect_object(page, "remove", G_CALLBACK(show_none), none, 0);
    g_auto(GStrv) groups = config_groups(settings->config, several[kind].pattern);
    for (char **group = groups; *group; group++)
        add_group(settings, GTK_BOX(page), several[kind].pattern, *group);
    gtk_widget_set_halign(button, GTK_ALIGN_START);
    gtk_widget_set_sensitive(button, settings->off);
    if (!settings->off)
        gtk_widget_set_tooltip_text(button, _("This cannot change while the machine runs. Shut it down first."));
    g_object_set_data(G_OBJECT(button), "kind", GUINT_TO_POINTER(kind));
    g_object_set_data(G_OBJECT(button), "page", page);
    g_signal_connect(button, "clicked", G_CALLBACK(add_clicked), settings);
    gtk_box_pack_end(GTK_BOX(page), button, FALSE, FALSE, 0);
    show_none(GTK_CONTAINER(page), NULL, none);
    add_page(settings, page, gettext(several[kind].title));
}

// Pages of single groups, in this order; a group that is in none of them gets a page of its own.
static const struct {
    const char *title;
    const char *groups[5];
} pages[] = {
    {N_("General"), {"Machine"}},
    {N_("System"), {"Processors", "Memory", "Clock", "Power"}},
    {N_("Boot"), {"Firmware", "Direct Boot"}},
    {N_("Screen"), {"Display", "VNC"}},
};

static gboolean on_a_page(const char *group)
{
    for (guint i = 0; i < G_N_ELEMENTS(pages); i++)
        if (g_strv_contains(pages[i].groups, group))
            return TRUE;
    return FALSE;
}

static void add_head(GtkBox *page, const char *title)
{
    GtkWidget *head = gtk_label_new(title);
    gtk_label_set_xalign(GTK_LABEL(head), 0);
    g_object_set(head, "margin-start", 18, "margin-top", 12, NULL);
    gtk_style_context_add_class(gtk_widget_get_style_context(head), "setting-group");
    gtk_box_pack_start(page, head, FALSE, FALSE, 0);
}

static void add_single_page(struct settings *settings, const char *title, const char *const *groups)
{
    GtkWidget *page = gtk_box_new(GTK_ORIENTATION_VERTICAL, 0);
    for (const char *const *group = groups; *group; group++) {
        if (groups[1])
            add_head(GTK_BOX(page), gettext(*group));
        gtk_box_pack_start(GTK_BOX(page), group_grid(settings, *group, *group), FALSE, FALSE, 0);
    }
    add_page(settings, page, title);
}

static void build_pages(struct settings *settings)
{
    const char *last = "";
    for (guint i = 0; i < G_N_ELEMENTS(pages); i++)
        add_single_page(settings, gettext(pages[i].title), pages[i].groups);
    for (guint kind = 0; kind < G_N_ELEMENTS(several); kind++)
        add_several_page(settings, kind);
    for (size_t i = 0; i < options_count; i++) {
        const char *group = options_table[i].group;
        if (strcmp(group, last) == 0 || strchr(group, '*') || on_a_page(group))
            continue;
        last = group;
        add_single_page(settings, gettext(group), (const char *const[]){group, NULL});
    }
}

// ---- Saving ----
static gboolean apply(struct settings *settings, struct config *config, GError **error)
{
    for (guint i = 0; i < settings->removed->len; i++)
        config_remove_group(config, settings->removed->pdata[i]);
    for (guint i = 0; i < settings->rows->len; i++) {
        struct setting *setting = settings->rows->pdata[i];
        g_autofree char *text = option_row_text(setting->row);
        if (config_has_group(config, setting->group) && g_strcmp0(text, setting->before) == 0)
            continue;
        bool is_default = strcmp(text, setting->option->default_text) == 0 &&
                          !config_is_set(config, setting->group, setting->option->key);
        if (!is_default && !config_set(config, setting->group, setting->option->key, text, error))
            return FALSE;
    }
    return TRUE;
}

static bool edit(struct config *config, void *opaque, GError **error)
{
    return apply(opaque, config, error);
}

// What a running machine must be told.
static void apply_live(struct settings *settings)
{
    for (guint i = 0; i < settings->rows->len; i++) {
        struct setting *setting = settings->rows->pdata[i];
        if (strcmp(setting->option->key, "forwards") != 0)
            continue;
        g_autofree char *text = option_row_text(setting->row);
        forwards_apply(settings->machine, setting->group + strlen("Network "), setting->before, text,
                       gtk_window_get_transient_for(GTK_WINDOW(settings->dialog)));
    }
}

static gboolean check_all(struct settings *settings, GError **error)
{
    for (guint i = 0; i < settings->rows->len; i++)
        if (!option_row_check(((struct setting *)settings->rows->pdata[i])->row, error))
            return FALSE;
    return TRUE;
}

static void response(GtkDialog *dialog, int response, struct settings *settings)
{
    g_autoptr(GError) error = NULL;
    if (response == GTK_RESPONSE_ACCEPT &&
        (!check_all(settings, &error) ||
         !machine_folder_edit(cloche_machine_get_folder(settings->machine), edit, settings, &error))) {
        dialog_error(GTK_WINDOW(dialog), _("The settings were not saved"), error, NULL);
        return;
    }
    if (response == GTK_RESPONSE_ACCEPT && !settings->off)
        apply_live(settings);
    ClocheApp *app = settings->app;
    gtk_widget_destroy(GTK_WIDGET(dialog));
    cloche_app_rescan(app);
}

// The list inside the sidebar has no name of its own.
static void name_list(GtkWidget *widget, gpointer data)
{
    if (GTK_IS_LIST_BOX(widget))
        atk_object_set_name(gtk_widget_get_accessible(widget), _("Pages"));
    else if (GTK_IS_CONTAINER(widget))
        gtk_container_forall(GTK_CONTAINER(widget), name_list, data);
}

GtkWidget *settings_new(ClocheApp *app, ClocheMachine *machine, GtkWindow *parent)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(cloche_machine_get_folder(machine), CONFIG_FILE, NULL);
    struct config *config = config_load(path, &error);
    if (!config) {
        dialog_error(parent, _("The settings cannot be read"), error, NULL);
        return NULL;
    }
    struct settings *settings = g_new0(struct settings, 1);
    settings->app = app;
    settings->machine = g_object_ref(machine);
    settings->config = config;
    settings->labels = gtk_size_group_new(GTK_SIZE_GROUP_HORIZONTAL);
    settings->rows = g_ptr_array_new_with_free_func(setting_free);
    settings->removed = g_ptr_array_new_with_free_func(g_free);
    settings->off = cloche_machine_why_not(machine, CLOCHE_REQUEST_CHANGE) == NULL;
    g_autofree char *title = g_strdup_printf(_("Settings of “%s”"), cloche_machine_get_name(machine));
    settings->dialog =
        gtk_dialog_new_with_buttons(title, parent, GTK_DIALOG_DESTROY_WITH_PARENT | GTK_DIALOG_USE_HEADER_BAR,
                                    _("_Cancel"), GTK_RESPONSE_CANCEL, _("_Save"), GTK_RESPONSE_ACCEPT, NULL);
    g_object_set_data_full(G_OBJECT(settings->dialog), "settings", settings, settings_free);
    GtkWidget *box = gtk_box_new(GTK_ORIENTATION_HORIZONTAL, 0), *sidebar = gtk_stack_sidebar_new();
    settings->stack = gtk_stack_new();
    gtk_stack_sidebar_set_stack(GTK_STACK_SIDEBAR(sidebar), GTK_STACK(settings->stack));
    gtk_widget_set_size_request(sidebar, 170, -1);
    name_list(sidebar, NULL);
    gtk_box_pack_start(GTK_BOX(box), sidebar, FALSE, FALSE, 0);
    gtk_box_pack_start(GTK_BOX(box), settings->stack, TRUE, TRUE, 0);
    gtk_box_pack_start(GTK_BOX(gtk_dialog_get_content_area(GTK_DIALOG(settings->dialog))), box, TRUE, TRUE, 0);
    build_pages(settings);
    gtk_window_set_default_size(GTK_WINDOW(settings->dialog), 820, 600);
    window_state_follow_dialog(GTK_WINDOW(settings->dialog), app, "Settings");
    gtk_dialog_set_default_response(GTK_DIALOG(settings->dialog), GTK_RESPONSE_ACCEPT);
    g_signal_connect(settings->dialog, "response", G_CALLBACK(response), settings);
    gtk_widget_show_all(settings->dialog);
    return settings->dialog;
}
