// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/control/apply.h"

#include <string.h>

struct applying {
    struct control_client *client;
    struct config *before, *after;
    GPtrArray *later; // char *
};

static bool send(struct applying *applying, const char *command, JsonObject *arguments, GError **error)
{
    JsonNode *value = control_client_call(applying->client, command, arguments, 60000, NULL, NULL, error);
    g_clear_pointer(&value, json_node_unref);
    return !error || !*error;
}

// ---- One function for each kind of change ----

static bool apply_nothing(struct applying *applying, const char *group, GError **error)
{
    return true; // for people only, read from the definition
}

static bool apply_vnc(struct applying *applying, const char *group, GError **error)
{
    g_autofree char *address = config_get(applying->after, "VNC", "address");
    g_autofree char *file = config_get(applying->after, "VNC", "password-file");
    if (!send(applying, "x-cloche-vnc-stop", NULL, error))
        return false;
    return !address[0] ||
           send(applying, "x-cloche-vnc-start",
                control_arguments("s:address", address, "s:password-file", file[0] ? file : NULL, NULL), error);
}

static bool forward_all(struct applying *applying, const char *card, char **list, char **except, bool add,
                        GError **error)
{
    for (char **each = list; *each; each++)
        if (**each && !g_strv_contains((const char *const *)except, *each) &&
            !send(applying, "x-cloche-forward",
                  control_arguments("s:name", card, "s:forward", *each, "b:add", (int)add, NULL), error))
            return false;
    return true;
}

static bool apply_forwards(struct applying *applying, const char *group, GError **error)
{
    g_autofree char *old = config_get(applying->before, group, "forwards");
    g_autofree char *new = config_get(applying->after, group, "forwards");
    g_auto(GStrv) was = g_strsplit_set(old, ";, ", -1), is = g_strsplit_set(new, ";, ", -1);
    const char *card = strchr(group, ' ') + 1;
    return forward_all(applying, card, was, is, false, error) && forward_all(applying, card, is, was, true, error);
}

static bool apply_medium(struct applying *applying, const char *group, GError **error)
{
    g_autofree char *file = config_get(applying->after, group, "file");
    const char *drive = strchr(group, ' ') + 1;
    return file[0] ? send(applying, "blockdev-change-medium",
                          control_arguments("s:id", drive, "s:filename", file, NULL), error)
                   : send(applying, "eject", control_arguments("s:id", drive, NULL), error);
}

static bool always(const struct applying *applying, const char *group)
{
    return true;
}

static bool is_removable(const struct applying *applying, const char *group)
{
    g_autofree char *kind = config_get(applying->after, group, "kind"),
                    *was = config_get(applying->before, group, "kind");
    return strcmp(kind, "disk") != 0 && strcmp(kind, was) == 0;
}

static bool existed(const struct applying *applying, const char *group)
{
    g_auto(GStrv) groups = config_groups(applying->before, group);
    return groups[0];
}

static const struct {
    const char *group, *key;
    bool (*possible)(const struct applying *applying, const char *group);
    bool (*apply)(struct applying *applying, const char *group, GError **error);
} actions[] = {
    {"Machine", "name", always, apply_nothing},      {"Machine", "notes", always, apply_nothing},
    {"Machine", "os", always, apply_nothing},        {"Machine", "icon", always, apply_nothing},
    {"Machine", "group", always, apply_nothing},     {"VNC", "address", always, apply_vnc},
    {"VNC", "password-file", always, apply_vnc},     {"Network *", "forwards", existed, apply_forwards},
    {"Drive *", "file", is_removable, apply_medium},
};

// ---- What differs ----

static char *name_of(const struct option *option, const char *group)
{
    const char *space = strchr(group, ' ');
    if (strchr(option->group, '*') && space)
        return g_strdup_printf("%s.%s", space + 1, option->key);
    return g_strdup(option->name ? option->name : option->key);
}

static bool apply_one(struct applying *applying, const struct option *option, const char *group, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(actions); i++)
        if (strcmp(actions[i].group, option->group) == 0 && strcmp(actions[i].key, option->key) == 0 &&
            actions[i].possible(applying, group))
            return actions[i].apply(applying, group, error);
    g_ptr_array_add(applying->later, name_of(option, group));
    return true;
}

static bool apply_option(struct applying *applying, const struct option *option, GError **error)
{
    g_auto(GStrv) groups = config_groups(applying->after, option->group);
    const char *const single[] = {option->group, NULL};
    const char *const *all = strchr(option->group, '*') ? (const char *const *)groups : single;
    for (; *all; all++) {
        g_autofree char *was = config_get(applying->before, *all, option->key);
        g_autofree char *is = config_get(applying->after, *all, option->key);
        if (g_strcmp0(was, is) != 0 && !apply_one(applying, option, *all, error))
            return false;
    }
    return true;
}

char **control_apply(struct control_client *client, struct config *before, struct config *after, GError **error)
{
    g_autoptr(GError) local = NULL;
    struct applying applying = {client, before, after, g_ptr_array_new()};
    bool good = true;
    for (size_t i = 0; good && i < options_count; i++)
        good = apply_option(&applying, &options_table[i], &local);
    g_ptr_array_add(applying.later, NULL);
    char **later = (char **)g_ptr_array_free(applying.later, FALSE);
    if (good)
        return later;
    g_strfreev(later);
    g_propagate_error(error, g_steal_pointer(&local));
    return NULL;
}
