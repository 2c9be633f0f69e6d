// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/config/migrate.h"

#include <string.h>

// Files without a version field are written by hand: these short spellings are understood in them.
const struct config_rename config_renames[] = {
    {1, "Machine", "memory", "Memory", "size"},
    {1, "Machine", "cpus", "Processors", "count"},
    {1, "Machine", "engine", "Processors", "engine"},
    {1, "Machine", "kernel", "Direct Boot", "kernel"},
    {1, "Machine", "initrd", "Direct Boot", "initrd"},
    {1, "Machine", "append", "Direct Boot", "append"},
    {0},
};

bool config_migrate(GKeyFile *file, const struct config_rename *renames, unsigned version, bool *changed,
                    GError **error)
{
    g_autofree char *text = g_key_file_get_value(file, "Machine", "version", NULL);
    guint64 found = 0;
    if (text && !g_ascii_string_to_unsigned(g_strstrip(text), 10, 0, G_MAXUINT, &found, NULL)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "group [Machine], key \"version\" is no number; allowed is a whole number from 0 to %u", version);
        return false;
    }
    if (found > version) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "the definition has version %u and this Cloche reads up to %u; install a newer Cloche",
                    (unsigned)found, version);
        return false;
    }
    if (found == version)
        return true;
    for (const struct config_rename *rename = renames; rename->before; rename++) {
        if (found >= rename->before)
            continue;
        g_autofree char *value = g_key_file_get_value(file, rename->old_group, rename->old_key, NULL);
        if (!value)
            continue;
        if (!g_key_file_has_key(file, rename->group, rename->key, NULL))
            g_key_file_set_value(file, rename->group, rename->key, value);
        g_key_file_remove_key(file, rename->old_group, rename->old_key, NULL);
    }
    g_key_file_set_integer(file, "Machine", "version", version);
    *changed = true;
    return true;
}
