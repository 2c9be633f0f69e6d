// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/assistant.h"
#include "core/config/host.h"
#include "core/config/medium.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/file-row.h"
#include "ui/desktop/machine-create.h"

#include <glib/gi18n.h>

struct _ClocheAssistant {
    GtkAssistant parent_instance;
    ClocheApp *app;
    GtkWidget *source_page, *resources_page, *summary_page;
    GtkWidget *from_medium, *from_disk, *from_kernel, *from_nothing;
    GtkWidget *medium_file, *disk_file, *kernel_file, *initrd_file, *append;
    GtkLabel *recognised, *name_error;
    GtkGrid *summary;
    GtkComboBox *network;
    GtkEntry *name;
    GtkSpinButton *memory, *cpus, *disk;
    GtkWidget *with_disk, *customise;
    char *os_id, *os_name;
    gboolean local_time;
    GCancellable *cancellable;
};
G_DEFINE_TYPE(ClocheAssistant, cloche_assistant, GTK_TYPE_ASSISTANT)

static gboolean active(GtkWidget *button)
{
    return gtk_toggle_button_get_active(GTK_TOGGLE_BUTTON(button));
}

static char *file_of(GtkWidget *row) // NULL: none
{
    const char *path = cloche_file_row_get_path(CLOCHE_FILE_ROW(row));
    return *path ? g_strdup(path) : NULL;
}

static gboolean exists(const char *file)
{
    return file && g_path_is_absolute(file) && g_file_test(file, G_FILE_TEST_EXISTS) &&
           !g_file_test(file, G_FILE_TEST_IS_DIR);
}

// ---- The source and what it suggests ----
static GtkWidget *chosen_source(ClocheAssistant *self) // the chooser that must hold a file, or NULL
{
    return active(self->from_medium)   ? self->medium_file
           : active(self->from_disk)   ? self->disk_file
           : active(self->from_kernel) ? self->kernel_file
                                       : NULL;
}

static void check_source(ClocheAssistant *self)
{
    GtkWidget *source = chosen_source(self);
    g_autofree char *file = source ? file_of(source) : NULL;
    gtk_assistant_set_page_complete(GTK_ASSISTANT(self), self->source_page, !source || exists(file));
    gtk_widget_set_sensitive(self->medium_file, active(self->from_medium));
    gtk_toggle_button_set_active(GTK_TOGGLE_BUTTON(self->with_disk),
                                 active(self->from_medium) || active(self->from_nothing));
    gtk_widget_set_sensitive(self->with_disk, !active(self->from_disk));
}

static gboolean name_free(ClocheAssistant *self, const char *name)
{
    GListModel *machines = cloche_app_get_machines(self->app);
    for (guint i = 0; i < g_list_model_get_n_items(machines); i++) {
        g_autoptr(ClocheMachine) machine = g_list_model_get_item(machines, i);
        if (g_strcmp0(cloche_machine_get_name(machine), name) == 0)
            return FALSE;
    }
    return TRUE;
}

static void suggest_name(ClocheAssistant *self, const char *base)
{
    g_autofree char *name = g_strdup(base);
    for (guint n = 2; !name_free(self, name); n++) {
        g_free(name);
        name = g_strdup_printf("%s %u", base, n);
    }
    gtk_entry_set_text(self->name, name);
}

static void apply_medium(ClocheAssistant *self, const struct medium *medium)
{
    struct host_defaults host = host_defaults();
    g_free(self->os_id);
    g_free(self->os_name);
    self->os_id = g_strdup(medium->os_id);
    self->os_name = g_strdup(medium->os_name);
    self->local_time = medium->local_time;
    gtk_spin_button_set_value(self->memory, MIN(medium->memory, host.memory) / MiB);
    gtk_spin_button_set_value(self->cpus, MIN(MAX(medium->cpus, 1), host.cpus));
    gtk_spin_button_set_value(self->disk, MAX(1, medium->disk / GiB));
    g_autofree char *text =
        medium->os_name
            ? g_strdup_printf(_("Recognised: %s. Memory, processors and disk are set for it."), medium->os_name)
        : medium->volume ? g_strdup_printf(_("The system on “%s” is not known; it gets common values."), medium->volume)
                         : g_strdup(_("The system is not known; it gets common values."));
    g_autofree char *warning =
        medium->bootable ? NULL : g_strconcat(text, "\n", _("This medium does not look bootable."), NULL);
    gtk_label_set_text(self->recognised, warning ? warning : text);
    suggest_name(self, medium->os_name ? medium->os_name : _("New Machine"));
}

static void recognise_in_thread(GTask *task, gpointer source, gpointer file, GCancellable *cancellable)
{
    GError *error = NULL;
    struct medium *medium = medium_recognise(file, &error);
    if (medium)
        g_task_return_pointer(task, medium, (GDestroyNotify)medium_free);
    else
        g_task_return_error(task, error);
}

static void recognised(GObject *source, GAsyncResult *result, gpointer data)
{
    ClocheAssistant *self = CLOCHE_ASSISTANT(source);
    g_autoptr(GError) error = NULL;
    struct medium *medium = g_task_propagate_pointer(G_TASK(result), &error);
    if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        return;
    if (!medium) {
        gtk_label_set_text(self->recognised, error->message);
        return;
    }
    apply_medium(self, medium);
    medium_free(medium);
}

static void medium_chosen(ClocheAssistant *self)
{
    g_autofree char *file = file_of(self->medium_file);
    check_source(self);
    if (!exists(file))
        return;
    gtk_label_set_text(self->recognised, _("Looking at the medium…"));
    g_autoptr(GTask) task = g_task_new(self, self->cancellable, recognised, NULL);
    g_task_set_task_data(task, g_steal_pointer(&file), g_free);
    g_task_run_in_thread(task, recognise_in_thread);
}

void cloche_assistant_set_medium(ClocheAssistant *self, const char *file)
{
    gtk_toggle_button_set_active(GTK_TOGGLE_BUTTON(self->from_medium), TRUE);
    cloche_file_row_set_path(CLOCHE_FILE_ROW(self->medium_file), file);
}

static void source_file_chosen(GtkWidget *row, ClocheAssistant *self)
{
    check_source(self);
    g_autofree char *file = file_of(row);
    if (!exists(file) || row == self->initrd_file)
        return;
    g_autofree char *base = g_path_get_basename(file);
    char *dot = strrchr(base, '.');
    if (dot && dot > base)
        *dot = 0;
    suggest_name(self, base);
}

// ---- Name and summary ----
void cloche_assistant_set_disk(ClocheAssistant *self, const char *file)
{
    gtk_toggle_button_set_active(GTK_TOGGLE_BUTTON(self->from_disk), TRUE);
    cloche_file_row_set_path(CLOCHE_FILE_ROW(self->disk_file), file);
}

static void check_name(ClocheAssistant *self)
{
    const char *name = gtk_entry_get_text(self->name);
    const struct option *option = option_find("Machine", "name");
    g_autoptr(GError) error = NULL;
    gboolean good = option_check(option, name, NULL, &error);
    if (good && !name_free(self, name)) {
        good = FALSE;
        gtk_label_set_text(self->name_error, _("A machine of this name exists already; choose another name."));
    } else {
        gtk_label_set_text(self->name_error, good ? "" : error->message);
    }
    gtk_assistant_set_page_complete(GTK_ASSISTANT(self), self->resources_page, good);
}

static void fill_plan(ClocheAssistant *self, struct machine_plan *plan)
{
    gboolean kernel = active(self->from_kernel);
    *plan = (struct machine_plan){
        .name = g_strdup(gtk_entry_get_text(self->name)),
        .os_id = active(self->from_medium) ? g_strdup(self->os_id) : NULL,
        .cdrom = active(self->from_medium) ? file_of(self->medium_file) : NULL,
        .existing_disk = active(self->from_disk) ? file_of(self->disk_file) : NULL,
        .kernel = kernel ? file_of(self->kernel_file) : NULL,
        .initrd = kernel ? file_of(self->initrd_file) : NULL,
        .append = kernel ? g_strdup(gtk_entry_get_text(GTK_ENTRY(self->append))) : NULL,
        .memory = gtk_spin_button_get_value_as_int(self->memory) * MiB,
        .cpus = gtk_spin_button_get_value_as_int(self->cpus),
        .disk = active(self->with_disk) && !active(self->from_disk) ? gtk_spin_button_get_value_as_int(self->disk) * GiB
                                                                    : 0,
        .local_time = self->local_time,
        .network = g_strdup(gtk_combo_box_get_active_id(self->network)),
    };
}

// One line of the summary; nothing where VALUE is NULL.
static void sum_up(ClocheAssistant *self, int *line, const char *name, const char *value)
{
    if (!value)
        return;
    GtkWidget *head = gtk_label_new(name), *text = gtk_label_new(value);
    g_autofree char *accessible = g_strdup_printf("%s: %s", name, value);
    atk_object_set_name(gtk_widget_get_accessible(text), accessible);
    gtk_style_context_add_class(gtk_widget_get_style_context(head), "dim-label");
    g_object_set(head, "xalign", 1.0, "yalign", 0.0, NULL);
    g_object_set(text, "xalign", 0.0, "wrap", TRUE, "wrap-mode", PANGO_WRAP_WORD_CHAR, "width-chars", 50,
                 "max-width-chars", 50, NULL);
    gtk_grid_attach(self->summary, head, 0, *line, 1, 1);
    gtk_grid_attach(self->summary, text, 1, (*line)++, 1, 1);
}

static void show_summary(ClocheAssistant *self)
{
    struct machine_plan plan;
    fill_plan(self, &plan);
    g_autofree char *memory = format_size(plan.memory), *size = format_size(plan.disk),
                    *cpus = g_strdup_printf("%u", plan.cpus);
    g_autofree char *new_disk = plan.disk ? g_strdup_printf(_("%s (takes space only as it fills)"), size) : NULL;
    g_autofree char *old_disk =
        plan.existing_disk ? g_strdup_printf(_("%s (used where it is)"), plan.existing_disk) : NULL;
    g_autofree char *network = gtk_combo_box_text_get_active_text(GTK_COMBO_BOX_TEXT(self->network));
    int line = 0;
    container_clear(GTK_CONTAINER(self->summary));
    sum_up(self, &line, _("Name"), plan.name);
    sum_up(self, &line, _("System"), plan.cdrom ? self->os_name ? self->os_name : _("unknown") : NULL);
    sum_up(self, &line, _("Installer medium"), plan.cdrom);
    sum_up(self, &line, _("Kernel"), plan.kernel);
    sum_up(self, &line, _("Initial RAM disk"), plan.initrd);
    sum_up(self, &line, _("Disk"), old_disk);
    sum_up(self, &line, _("New disk"), new_disk);
    sum_up(self, &line, _("Memory"), memory);
    sum_up(self, &line, _("Processors"), cpus);
    sum_up(self, &line, _("Network"), network);
    gtk_widget_show_all(GTK_WIDGET(self->summary));
    machine_plan_clear(&plan);
}

static void prepare(GtkAssistant *assistant, GtkWidget *page)
{
    ClocheAssistant *self = CLOCHE_ASSISTANT(assistant);
    if (page == self->resources_page)
        check_name(self);
    else if (page == self->summary_page)
        show_summary(self);
}

// ---- Creating ----
struct creation {
    struct machine_plan plan;
    char *folder;
};

static void creation_free(gpointer data)
{
    struct creation *creation = data;
    machine_plan_clear(&creation->plan);
    g_free(creation->folder);
    g_free(creation);
}

static void create_in_thread(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
    struct creation *creation = data;
    GError *error = NULL;
    if (machine_create(creation->folder, &creation->plan, cancellable, &error))
        g_task_return_boolean(task, TRUE);
    else
        g_task_return_error(task, error);
}

static void created(GObject *source, GAsyncResult *result, gpointer data)
{
    ClocheAssistant *self = CLOCHE_ASSISTANT(source);
    struct creation *creation = g_task_get_task_data(G_TASK(result));
    g_autoptr(GError) error = NULL;
    GtkWindow *parent = gtk_window_get_transient_for(GTK_WINDOW(self));
    gboolean done = g_task_propagate_boolean(G_TASK(result), &error), customise = active(self->customise);
    cloche_app_rescan(self->app);
    if (!done && !g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        dialog_error(parent, _("The machine could not be created"), error, NULL);
    ClocheMachine *machine = done ? cloche_app_find(self->app, creation->folder) : NULL;
    ClocheApp *app = self->app;
    gtk_widget_destroy(GTK_WIDGET(self));
    if (machine)
        cloche_app_created(app, machine, customise);
}

static void apply(GtkAssistant *assistant)
{
    ClocheAssistant *self = CLOCHE_ASSISTANT(assistant);
    g_autoptr(GError) error = NULL;
    g_autofree char *folder =
        library_create_folder(cloche_app_get_library(self->app), gtk_entry_get_text(self->name), &error);
    if (!folder) {
        dialog_error(GTK_WINDOW(self), _("The machine could not be created"), error, NULL);
        return;
    }
    struct creation *creation = g_new0(struct creation, 1);
    creation->folder = g_steal_pointer(&folder);
    fill_plan(self, &creation->plan);
    g_autoptr(GTask) task = g_task_new(self, self->cancellable, created, NULL);
    g_task_set_task_data(task, creation, creation_free);
    g_task_run_in_thread(task, create_in_thread);
}

static void cancel(GtkAssistant *assistant)
{
    g_cancellable_cancel(CLOCHE_ASSISTANT(assistant)->cancellable);
    gtk_widget_destroy(GTK_WIDGET(assistant));
}

static void close_after_apply(GtkAssistant *assistant)
{
    gtk_widget_hide(GTK_WIDGET(assistant)); // created() destroys it
}

GtkWidget *cloche_assistant_new(ClocheApp *app, GtkWindow *parent)
{
    ClocheAssistant *self = g_object_new(CLOCHE_TYPE_ASSISTANT, "use-header-bar", TRUE, "transient-for", parent, NULL);
    struct host_defaults host = host_defaults();
    self->app = app;
    gtk_spin_button_set_value(self->memory, MIN(2 * GiB, host.memory) / MiB);
    gtk_spin_button_set_value(self->cpus, MIN(2, host.cpus));
    suggest_name(self, _("New Machine"));
    check_source(self);
    return GTK_WIDGET(self);
}

static void assistant_finalize(GObject *object)
{
    ClocheAssistant *self = CLOCHE_ASSISTANT(object);
    g_clear_object(&self->cancellable);
    g_free(self->os_id);
    g_free(self->os_name);
    G_OBJECT_CLASS(cloche_assistant_parent_class)->finalize(object);
}

static void cloche_assistant_class_init(ClocheAssistantClass *class)
{
    GtkWidgetClass *widget = GTK_WIDGET_CLASS(class);
    G_OBJECT_CLASS(class)->finalize = assistant_finalize;
    GTK_ASSISTANT_CLASS(class)->prepare = prepare;
    GTK_ASSISTANT_CLASS(class)->apply = apply;
    GTK_ASSISTANT_CLASS(class)->cancel = cancel;
    GTK_ASSISTANT_CLASS(class)->close = close_after_apply;
    g_type_ensure(CLOCHE_TYPE_FILE_ROW);
    gtk_widget_class_set_template_from_resource(widget, "/org/cloche/Cloche/assistant.ui");
#define CHILD(name) gtk_widget_class_bind_template_child(widget, ClocheAssistant, name)
    CHILD(source_page);
    CHILD(resources_page);
    CHILD(summary_page);
    CHILD(from_medium);
    CHILD(from_disk);
    CHILD(from_kernel);
    CHILD(from_nothing);
    CHILD(medium_file);
    CHILD(disk_file);
    CHILD(kernel_file);
    CHILD(initrd_file);
    CHILD(append);
    CHILD(recognised);
    CHILD(summary);
    CHILD(name_error);
    CHILD(name);
    CHILD(memory);
    CHILD(cpus);
    CHILD(disk);
    CHILD(with_disk);
    CHILD(customise);
    CHILD(network);
#undef CHILD
}

static void cloche_assistant_init(ClocheAssistant *self)
{
    gtk_widget_init_template(GTK_WIDGET(self));
    GObject *button = gtk_widget_get_template_child(GTK_WIDGET(self), GTK_TYPE_ASSISTANT, "apply");
    gtk_button_set_label(GTK_BUTTON(button), _("C_reate"));
    self->cancellable = g_cancellable_new();
    GtkWidget *radios[] = {self->from_medium, self->from_disk, self->from_kernel, self->from_nothing};
    GtkWidget *files[] = {self->disk_file, self->kernel_file, self->initrd_file};
    for (guint i = 0; i < G_N_ELEMENTS(radios); i++)
        g_signal_connect_swapped(radios[i], "toggled", G_CALLBACK(check_source), self);
    for (guint i = 0; i < G_N_ELEMENTS(files); i++)
        g_signal_connect(files[i], "changed", G_CALLBACK(source_file_chosen), self);
    g_signal_connect_swapped(self->medium_file, "changed", G_CALLBACK(medium_chosen), self);
    g_signal_connect_swapped(self->name, "changed", G_CALLBACK(check_name), self);
}
