// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/machine-private.h"
#include "ui/desktop/dialogs.h"

#include <glib/gi18n.h>
#include <string.h>

G_DEFINE_TYPE(ClocheMachine, cloche_machine, G_TYPE_OBJECT)

guint machine_signals[MACHINE_SIGNALS];

// ---- States ----
static const char *const state_names[] = {
    [CLOCHE_STATE_OFF] = N_("Off"),         [CLOCHE_STATE_STARTING] = N_("Starting"),
    [CLOCHE_STATE_RUNNING] = N_("Running"), [CLOCHE_STATE_PAUSED] = N_("Paused"),
    [CLOCHE_STATE_BUSY] = N_("Working"),    [CLOCHE_STATE_SAVED] = N_("Saved"),
    [CLOCHE_STATE_ERROR] = N_("Stopped"),   [CLOCHE_STATE_CRASHED] = N_("Failed"),
    [CLOCHE_STATE_DAMAGED] = N_("Damaged"),
};

void machine_set_state(ClocheMachine *self, ClocheState state, const char *reason)
{
    if (self->state == state && g_strcmp0(self->reason, reason) == 0 && self->state_text)
        return;
    self->state = state;
    g_free(self->reason);
    self->reason = g_strdup(reason);
    g_free(self->state_text);
    const char *name = gettext(state_names[state]);
    self->state_text = reason && *reason ? g_strdup_printf("%s – %s", name, reason) : g_strdup(name);
    if (!self->updating)
        g_signal_emit(self, machine_signals[MACHINE_CHANGED], 0);
}

// One table: in which states a request is legal, and what to say otherwise.
#define IN(state) (1u << CLOCHE_STATE_##state)
#define ALIVE     (IN(RUNNING) | IN(PAUSED) | IN(ERROR))
static const struct {
    guint states;
    const char *why_not;
} rules[CLOCHE_REQUEST_COUNT] = {
    [CLOCHE_REQUEST_START] = {IN(OFF) | IN(SAVED) | IN(CRASHED), N_("Only a machine that is off can be started.")},
    [CLOCHE_REQUEST_PAUSE] = {IN(RUNNING), N_("Only a running machine can be paused. Start or resume it first.")},
    [CLOCHE_REQUEST_RESUME] = {IN(PAUSED) | IN(ERROR), N_("Only a paused machine can be resumed.")},
    [CLOCHE_REQUEST_RESET] = {ALIVE, N_("The machine is off. Start it first.")},
    [CLOCHE_REQUEST_SHUT_DOWN] = {IN(RUNNING),
                                  N_("Only a running machine can shut its system down. Start or resume it first.")},
    [CLOCHE_REQUEST_POWER_OFF] = {ALIVE | IN(STARTING) | IN(BUSY), N_("The machine is off already.")},
    [CLOCHE_REQUEST_SAVE] = {IN(RUNNING) | IN(PAUSED),
                             N_("Only a running or paused machine can be saved. Start it first.")},
    [CLOCHE_REQUEST_SNAPSHOT] = {IN(RUNNING) | IN(PAUSED) | IN(OFF),
                                 N_("The machine is busy; try again when it is done.")},
    [CLOCHE_REQUEST_CHANGE] = {IN(OFF) | IN(SAVED) | IN(CRASHED) | IN(DAMAGED),
                               N_("The machine is running. Shut it down first.")},
};

gboolean cloche_machine_waits_for_space(ClocheMachine *self)
{
    return self->state == CLOCHE_STATE_ERROR && self->no_space;
}

const char *cloche_machine_why_not(ClocheMachine *self, ClocheRequest request)
{
    return rules[request].states >> self->state & 1 ? NULL : gettext(rules[request].why_not);
}

// ---- Requests ----
static const char *const commands[CLOCHE_REQUEST_COUNT] = {
    [CLOCHE_REQUEST_PAUSE] = "stop",         [CLOCHE_REQUEST_RESUME] = "cont",
    [CLOCHE_REQUEST_RESET] = "system_reset", [CLOCHE_REQUEST_SHUT_DOWN] = "system_powerdown",
    [CLOCHE_REQUEST_POWER_OFF] = "quit",     [CLOCHE_REQUEST_SAVE] = "x-cloche-suspend",
};

static const char *const failures[CLOCHE_REQUEST_COUNT] = {
    [CLOCHE_REQUEST_START] = N_("The machine could not be started"),
    [CLOCHE_REQUEST_PAUSE] = N_("The machine could not be paused"),
    [CLOCHE_REQUEST_RESUME] = N_("The machine could not be resumed"),
    [CLOCHE_REQUEST_RESET] = N_("The machine could not be reset"),
    [CLOCHE_REQUEST_SHUT_DOWN] = N_("The machine could not be asked to shut down"),
    [CLOCHE_REQUEST_POWER_OFF] = N_("The machine could not be powered off"),
    [CLOCHE_REQUEST_SAVE] = N_("The machine's state could not be saved"),
};

struct asked {
    ClocheRequest request;
    GWeakRef parent;
};

static void requested(GObject *source, GAsyncResult *result, gpointer data)
{
    struct asked *asked = data;
    g_autoptr(GError) error = NULL;
    JsonNode *answer = cloche_machine_call_finish(CLOCHE_MACHINE(source), result, &error);
    // A monitor that ends at once may not answer any more: the wish is fulfilled.
    gboolean ends = asked->request == CLOCHE_REQUEST_POWER_OFF || asked->request == CLOCHE_REQUEST_SAVE;
    if (!answer && !(ends && !CLOCHE_MACHINE(source)->client)) {
        g_autoptr(GtkWindow) parent = g_weak_ref_get(&asked->parent);
        g_autofree char *log = cloche_machine_get_log(CLOCHE_MACHINE(source));
        dialog_error(parent, gettext(failures[asked->request]), error, log);
    }
    g_clear_pointer(&answer, json_node_unref);
    g_weak_ref_clear(&asked->parent);
    g_free(asked);
}

void cloche_machine_request(ClocheMachine *self, ClocheRequest request, GtkWindow *parent)
{
    g_autoptr(GError) error = NULL;
    const char *why_not = cloche_machine_why_not(self, request);
    if (why_not)
        error = g_error_new_literal(CLOCHE_ERROR, CLOCHE_ERROR_BUSY, why_not);
    else if (request == CLOCHE_REQUEST_START)
        machine_link_start(self, parent, &error);
    if (error) {
        g_autofree char *log = cloche_machine_get_log(self);
        dialog_error(parent, gettext(failures[request]), error, log);
        return;
    }
    if (request == CLOCHE_REQUEST_START)
        return;
    self->stopping =
        request == CLOCHE_REQUEST_POWER_OFF || request == CLOCHE_REQUEST_SHUT_DOWN || request == CLOCHE_REQUEST_SAVE;
    struct asked *asked = g_new0(struct asked, 1);
    asked->request = request;
    g_weak_ref_init(&asked->parent, parent);
    cloche_machine_call(self, commands[request], NULL, requested, asked);
}

// ---- What the definition says ----
const char *cloche_machine_get_folder(ClocheMachine *self)
{
    return self->folder;
}

const char *cloche_machine_get_name(ClocheMachine *self)
{
    return self->name;
}

char *cloche_machine_get_option(ClocheMachine *self, const char *group, const char *key)
{
    return self->config ? config_get(self->config, group, key) : NULL;
}

char **cloche_machine_get_groups(ClocheMachine *self, const char *pattern)
{
    return self->config ? config_groups(self->config, pattern) : NULL;
}

// Texts of the definition are interned: there are few, and callers need not free them.
static const char *definition_text(ClocheMachine *self, const char *key)
{
    g_autofree char *text = cloche_machine_get_option(self, "Machine", key);
    return g_intern_string(text ? text : "");
}

const char *cloche_machine_get_group(ClocheMachine *self)
{
    return definition_text(self, "group");
}

const char *cloche_machine_get_os(ClocheMachine *self)
{
    return definition_text(self, "os");
}

const char *cloche_machine_get_notes(ClocheMachine *self)
{
    return definition_text(self, "notes");
}

// Themes have the icons of some systems: that of "http://debian.org/debian/12" by the word "debian".
static const char *system_icon(const char *os)
{
    static const char *const patterns[] = {"distributor-logo-%s", "%s-logo", "%s"};
    g_auto(GStrv) parts = g_strsplit(os, "/", -1);
    const char *system = g_strv_length(parts) > 3 ? parts[3] : "";
    for (guint i = 0; *system && i < G_N_ELEMENTS(patterns); i++) {
        g_auto(GStrv) around = g_strsplit(patterns[i], "%s", 2);
        g_autofree char *name = g_strconcat(around[0], system, around[1], NULL);
        if (gtk_icon_theme_has_icon(gtk_icon_theme_get_default(), name))
            return g_intern_string(name);
    }
    return "computer";
}

const char *cloche_machine_get_icon(ClocheMachine *self)
{
    const char *icon = definition_text(self, "icon");
    if (self->state == CLOCHE_STATE_DAMAGED)
        return "dialog-warning";
    return *icon && gtk_icon_theme_has_icon(gtk_icon_theme_get_default(), icon)
               ? icon
               : system_icon(cloche_machine_get_os(self));
}

char *cloche_machine_get_log(ClocheMachine *self)
{
    char *path = g_build_filename(self->folder, "log", "vm.log", NULL);
    if (!g_file_test(path, G_FILE_TEST_EXISTS))
        g_clear_pointer(&path, g_free);
    return path;
}

// The monitor says "unix:PATH,server=on", with "disconnected:" before it while nobody has connected.
char *cloche_machine_get_serial_socket(ClocheMachine *self)
{
    for (guint i = 0; i < self->devices->len; i++) {
        const struct machine_device *device = self->devices->pdata[i];
        const char *path = device->kind == MACHINE_DEVICE_SERIAL ? strstr(device->detail, "unix:") : NULL;
        const char *end = path ? strstr(path, ",server=on") : NULL;
        if (end)
            return g_strndup(path + strlen("unix:"), end - path - strlen("unix:"));
    }
    return NULL;
}

// ---- What is going on ----
ClocheState cloche_machine_get_state(ClocheMachine *self)
{
    return self->state;
}

const char *cloche_machine_get_state_text(ClocheMachine *self)
{
    return self->state_text;
}

GdkPixbuf *cloche_machine_get_thumbnail(ClocheMachine *self)
{
    return self->thumbnail;
}

const struct machine_figures *cloche_machine_get_figures(ClocheMachine *self)
{
    return &self->figures;
}

const char *cloche_machine_get_engine(ClocheMachine *self)
{
    return self->engine ? self->engine : "";
}

const char *cloche_machine_get_engine_reason(ClocheMachine *self)
{
    return self->engine_reason ? self->engine_reason : "";
}

// ---- Life of the object ----
void cloche_machine_update(ClocheMachine *self, const struct machine_entry *entry)
{
    self->updating = true; // one signal for all of it
    g_free(self->name);
    g_free(self->damage);
    g_free(self->uuid);
    g_clear_pointer(&self->config, config_free);
    self->name = g_strdup(entry->name);
    self->uuid = g_strdup(entry->uuid);
    self->damage = g_strdup(entry->damage);
    self->config = entry->config ? config_copy(entry->config) : NULL;
    if (!self->client) {
        machine_devices_reload(self);
        machine_picture_from_disk(self);
    }
    if (self->damage)
        machine_set_state(self, CLOCHE_STATE_DAMAGED, self->damage);
    else if (!self->client && !self->starter && !self->look_timer && !machine_link_try(self))
        machine_link_look(self);
    self->updating = false;
    g_signal_emit(self, machine_signals[MACHINE_CHANGED], 0);
}

ClocheMachine *cloche_machine_new(const struct machine_entry *entry)
{
    ClocheMachine *self = g_object_new(CLOCHE_TYPE_MACHINE, NULL);
    self->folder = g_strdup(entry->folder);
    cloche_machine_update(self, entry);
    return self;
}

static void machine_dispose(GObject *object)
{
    ClocheMachine *self = CLOCHE_MACHINE(object);
    machine_link_close(self);
    g_clear_pointer(&self->starter, machine_starter_free);
    if (self->look_timer)
        g_source_remove(self->look_timer);
    self->look_timer = 0;
    machine_display_forget(self);
    G_OBJECT_CLASS(cloche_machine_parent_class)->dispose(object);
}

static void machine_finalize(GObject *object)
{
    ClocheMachine *self = CLOCHE_MACHINE(object);
    char *texts[] = {self->folder, self->name, self->uuid, self->damage, self->state_text, self->reason};
    for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
        g_free(texts[i]);
    g_weak_ref_clear(&self->start_parent);
    g_clear_pointer(&self->config, config_free);
    g_clear_object(&self->thumbnail);
    g_clear_pointer(&self->devices, g_ptr_array_unref);
    G_OBJECT_CLASS(cloche_machine_parent_class)->finalize(object);
}

static guint new_signal(const char *name, guint count, GType first, GType second)
{
    GType types[2] = {first, second};
    return g_signal_newv(name, CLOCHE_TYPE_MACHINE, G_SIGNAL_RUN_LAST, NULL, NULL, NULL, NULL, G_TYPE_NONE, count,
                         types);
}

static void cloche_machine_class_init(ClocheMachineClass *class)
{
    G_OBJECT_CLASS(class)->dispose = machine_dispose;
    G_OBJECT_CLASS(class)->finalize = machine_finalize;
    machine_signals[MACHINE_CHANGED] = new_signal("changed", 0, 0, 0);
    machine_signals[MACHINE_FIGURES] = new_signal("figures", 0, 0, 0);
    machine_signals[MACHINE_EVENT] = new_signal("event", 2, G_TYPE_STRING, JSON_TYPE_OBJECT);
    machine_signals[MACHINE_STOPPED] = new_signal("stopped", 1, G_TYPE_STRING, 0);
    machine_signals[MACHINE_DEVICES] = new_signal("devices", 0, 0, 0);
}

static void cloche_machine_init(ClocheMachine *self)
{
    g_weak_ref_init(&self->start_parent, NULL);
}
