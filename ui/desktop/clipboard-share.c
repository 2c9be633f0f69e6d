// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/desktop/clipboard-share.h"
#include "core/config/config.h"
#include "core/config/library.h"
#include "ui/desktop/app.h"
#include "ui/desktop/dialogs.h"

#include <glib/gi18n.h>
#include <string.h>

#define AGENT "spice-agent"

// Belongs to the window.
struct share {
    ClocheMachine *machine;
    GtkClipboard *clipboard;
    char *known;                 // the text that both sides have: it is not sent back
    gboolean attached, no_agent; // the guest took no text: nothing runs there that could
};

static void share_free(gpointer data)
{
    struct share *share = data;
    g_object_unref(share->machine);
    g_free(share->known);
    g_free(share);
}

static struct share *share_of(gpointer window)
{
    return g_object_get_data(window, "clipboard-share");
}

// ---- The channel in the definition: "[Device agent0] device=spice-agent,clipboard=both" ----
static char *agent_group(ClocheMachine *machine)
{
    g_auto(GStrv) groups = cloche_machine_get_groups(machine, "Device *");
    for (char **group = groups; group && *group; group++) {
        g_autofree char *device = cloche_machine_get_option(machine, *group, "device");
        if (device && g_str_has_prefix(device, AGENT) && strchr(",", device[strlen(AGENT)]))
            return g_strdup(*group);
    }
    return NULL;
}

static char *configured_ways(ClocheMachine *machine)
{
    g_autofree char *group = agent_group(machine);
    g_autofree char *device = group ? cloche_machine_get_option(machine, group, "device") : NULL;
    const char *ways = device ? strstr(device, ",clipboard=") : NULL;
    return ways ? g_strdup(ways + strlen(",clipboard=")) : g_strdup(group ? "both" : "off");
}

static gboolean has_channel(ClocheMachine *machine)
{
    g_autofree char *group = agent_group(machine);
    return group != NULL;
}

const char *clipboard_share_hint(GtkApplicationWindow *window)
{
    struct share *share = share_of(window);
    if (!share || !has_channel(share->machine))
        return _("This machine has no channel for the guest's agent. Settings ▸ Further Devices ▸ Add Device, "
                 "spice-agent, makes one while it is off.");
    return share->attached && share->no_agent
               ? _("No agent runs in the guest. Install spice-vdagent there, or use Send Key ▸ Type Clipboard Text.")
               : NULL;
}

struct wish {
    char *group;
    const char *ways;
};

static bool write_ways(struct config *config, void *opaque, GError **error)
{
    const struct wish *wish = opaque;
    g_autofree char *text = g_strdup_printf(AGENT ",clipboard=%s", wish->ways);
    return config_set(config, wish->group, "device", text, error);
}

// ---- To the guest ----
static void text_passed(GObject *machine, GAsyncResult *result, gpointer data)
{
    g_autoptr(GObject) window = data;
    g_autoptr(GError) error = NULL;
    JsonNode *answer = cloche_machine_call_finish(CLOCHE_MACHINE(machine), result, &error);
    share_of(window)->no_agent = g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED);
    g_clear_pointer(&answer, json_node_unref);
}

static void text_arrived(GtkClipboard *clipboard, const char *text, gpointer data)
{
    g_autoptr(GObject) window = data;
    struct share *share = share_of(window);
    if (!text || g_strcmp0(text, share->known) == 0)
        return;
    g_free(share->known);
    share->known = g_strdup(text);
    cloche_machine_call(share->machine, "x-cloche-clipboard-text", control_arguments("s:text", text, NULL), text_passed,
                        g_object_ref(window));
}

// Another text, or the person turns to this window: only then does a guest see what was copied elsewhere.
static void offer(GtkWindow *window)
{
    struct share *share = share_of(window);
    if (share->attached && gtk_window_is_active(window))
        gtk_clipboard_request_text(share->clipboard, text_arrived, g_object_ref(window));
}

// ---- From the guest ----
static void on_event(GtkWindow *window, const char *event, JsonObject *data)
{
    struct share *share = share_of(window);
    if (strcmp(event, "X_CLOCHE_CLIPBOARD") != 0)
        return;
    g_free(share->known);
    share->known = g_strdup(json_object_get_string_member_with_default(data, "text", ""));
    gtk_clipboard_set_text(share->clipboard, share->known, -1);
}

// ---- The switch ----
static void change_ways(GSimpleAction *action, GVariant *value, gpointer window)
{
    struct share *share = share_of(window);
    g_autofree char *group = agent_group(share->machine);
    g_autoptr(GError) error = NULL;
    struct wish wish = {group, g_variant_get_string(value, NULL)};
    if (!group || !machine_folder_edit(cloche_machine_get_folder(share->machine), write_ways, &wish, &error)) {
        dialog_error(window, _("The clipboard setting was not changed"), error, NULL);
        return;
    }
    if (share->attached)
        dialog_call(share->machine, "x-cloche-clipboard-ways", control_arguments("s:ways", wish.ways, NULL), window);
    g_clear_pointer(&share->known, g_free);
    cloche_app_rescan(CLOCHE_APP(gtk_window_get_application(window)));
    offer(window);
}

// The connection is new with each start of the machine.
static void follow(GtkApplicationWindow *window)
{
    struct share *share = share_of(window);
    GAction *action = g_action_map_lookup_action(G_ACTION_MAP(window), "clipboard");
    gboolean possible = has_channel(share->machine);
    ClocheState state = cloche_machine_get_state(share->machine);
    gboolean alive = possible && (state == CLOCHE_STATE_RUNNING || state == CLOCHE_STATE_PAUSED);
    g_autofree char *ways = configured_ways(share->machine);
    g_simple_action_set_enabled(G_SIMPLE_ACTION(action), possible);
    g_simple_action_set_state(G_SIMPLE_ACTION(action), g_variant_new_string(ways));
    if (alive && !share->attached) {
        g_clear_pointer(&share->known, g_free);
        cloche_machine_call(share->machine, "x-cloche-attach-clipboard", NULL, NULL, NULL);
    }
    share->attached = alive;
}

void clipboard_share_follow(GtkApplicationWindow *window, ClocheMachine *machine)
{
    static const GActionEntry entries[] = {
        {.name = "clipboard", .parameter_type = "s", .state = "'off'", .change_state = change_ways}};
    struct share *share = g_new0(struct share, 1);
    share->machine = g_object_ref(machine);
    share->clipboard = gtk_widget_get_clipboard(GTK_WIDGET(window), GDK_SELECTION_CLIPBOARD);
    g_object_set_data_full(G_OBJECT(window), "clipboard-share", share, share_free);
    g_action_map_add_action_entries(G_ACTION_MAP(window), entries, G_N_ELEMENTS(entries), window);
    g_signal_connect(window, "notify::is-active", G_CALLBACK(offer), NULL);
    g_signal_connect_object(share->clipboard, "owner-change", G_CALLBACK(offer), window, G_CONNECT_SWAPPED);
    g_signal_connect_object(machine, "event", G_CALLBACK(on_event), window, G_CONNECT_SWAPPED);
    g_signal_connect_object(machine, "changed", G_CALLBACK(follow), window, G_CONNECT_SWAPPED);
    follow(window);
}
