// SPDX-License-Identifier: GPL-2.0-or-later
// The Send Key menu: key combinations as QKeyCodes.
#include "ui/desktop/console-keys.h"
#include "core/control/client.h"
#include "ui/desktop/dialogs.h"
#include "ui/desktop/text-dialog.h"

#include <glib/gi18n.h>

static const struct {
    const char *label, *keys;
} combinations[] = {
    {N_("Ctrl+Alt+_Del"), "ctrl alt delete"},
    {N_("Ctrl+Alt+_Backspace"), "ctrl alt backspace"},
    {"Ctrl+Alt+F_1", "ctrl alt f1"},
    {"Ctrl+Alt+F_2", "ctrl alt f2"},
    {"Ctrl+Alt+F_3", "ctrl alt f3"},
    {"Ctrl+Alt+F_4", "ctrl alt f4"},
    {"Ctrl+Alt+F_5", "ctrl alt f5"},
    {"Ctrl+Alt+F_6", "ctrl alt f6"},
    {"Ctrl+Alt+F_7", "ctrl alt f7"},
    {"Ctrl+Alt+F_8", "ctrl alt f8"},
    {"Ctrl+Alt+F_9", "ctrl alt f9"},
    {"Ctrl+Alt+F10", "ctrl alt f10"},
    {"Ctrl+Alt+F11", "ctrl alt f11"},
    {"Ctrl+Alt+F12", "ctrl alt f12"},
    {N_("_Print Screen"), "print"},
    {N_("_Super"), "meta_l"},
    {N_("Alt+_Tab"), "alt tab"},
};

void console_keys_fill(GMenu *menu)
{
    for (guint i = 0; i < G_N_ELEMENTS(combinations); i++) {
        g_autoptr(GMenuItem) item = g_menu_item_new(gettext(combinations[i].label), NULL);
        g_menu_item_set_action_and_target(item, "win.send-key", "s", combinations[i].keys);
        g_menu_append_item(menu, item);
    }
    g_menu_append(menu, _("_Custom…"), "win.send-custom-key");
}

JsonObject *console_keys_arguments(const char *keys)
{
    g_auto(GStrv) names = g_strsplit(keys, " ", -1);
    JsonArray *list = json_array_new();
    for (char **name = names; *name; name++)
        if (**name)
            json_array_add_object_element(list, control_arguments("s:type", "qcode", "s:data", *name, NULL));
    return control_arguments("a:keys", list, NULL);
}

struct asked {
    ClocheMachine *machine;
    GtkWindow *window;
};

static void asked_free(gpointer data)
{
    struct asked *asked = data;
    g_object_unref(asked->machine);
    g_free(asked);
}

static void answered(gpointer data, const char *text, const char *note, gboolean choice)
{
    struct asked *asked = data;
    dialog_call(asked->machine, "send-key", console_keys_arguments(text), asked->window);
}

void console_keys_ask(ClocheMachine *machine, GtkWindow *window)
{
    struct asked *asked = g_new(struct asked, 1);
    *asked = (struct asked){g_object_ref(machine), window};
    struct text_question question = {
        .title = _("Send Key"),
        .label = _("_Key names separated by spaces, held together:"),
        .text = "ctrl alt f2",
        .accept = _("_Send"),
        .done = answered,
        .data = asked,
        .destroy = asked_free,
    };
    text_dialog_ask(window, &question);
}
