// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/config/config.h"
#include "core/base/file.h"
#include "core/config/migrate.h"

#include <string.h>

struct config {
    GKeyFile *file;
    GPtrArray *warnings; // char *, NULL-terminated
    bool changed;
};

static struct config *config_empty(void)
{
    struct config *config = g_new0(struct config, 1);
    config->file = g_key_file_new();
    config->warnings = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(config->warnings, NULL);
    return config;
}

struct config *config_new(void)
{
    struct config *config = config_empty();
    g_autofree char *uuid = g_uuid_string_random();
    g_key_file_set_integer(config->file, "Machine", "version", OPTION_VERSION);
    g_key_file_set_string(config->file, "Machine", "uuid", uuid);
    config->changed = true;
    return config;
}

void config_free(struct config *config)
{
    if (!config)
        return;
    g_key_file_free(config->file);
    g_ptr_array_free(config->warnings, TRUE);
    g_free(config);
}

static bool group_is_known(const char *group)
{
    for (size_t i = 0; i < options_count; i++)
        if (option_group_matches(options_table[i].group, group))
            return true;
    return false;
}

G_GNUC_PRINTF(2, 3) static void config_warn(struct config *config, const char *format, ...)
{
    if (config->warnings->len > 50) // a hostile file must not make a long list
        return;
    va_list args;
    va_start(args, format);
    g_ptr_array_insert(config->warnings, config->warnings->len - 1, g_strdup_vprintf(format, args));
    va_end(args);
}

static bool config_check_key(struct config *config, const char *name, const char *group, const char *key,
                             GError **error)
{
    const struct option *option = option_find(group, key);
    if (!option) {
        config_warn(config, "%s: unknown key \"%.100s\" in group [%.100s] is kept and ignored", name, key, group);
        return true;
    }
    g_autoptr(GError) local = NULL;
    g_autofree char *text = g_key_file_get_string(config->file, group, key, &local);
    if (text && option_check(option, text, NULL, &local))
        return true;
    g_autofree char *allowed = option_allowed(option);
    if (text)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s, group [%s], key \"%s\": %s", name, group, key,
                    local->message);
    else
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s, group [%s], key \"%s\": the value is not readable (%s); allowed is %s", name, group, key,
                    local->message, allowed);
    return false;
}

static bool config_check(struct config *config, const char *name, GError **error)
{
    g_auto(GStrv) groups = g_key_file_get_groups(config->file, NULL);
    for (char **group = groups; *group; group++) {
        if (!group_is_known(*group)) {
            config_warn(config, "%s: unknown group [%.100s] is kept and ignored", name, *group);
            continue;
        }
        g_auto(GStrv) keys = g_key_file_get_keys(config->file, *group, NULL, NULL);
        for (char **key = keys; key && *key; key++)
            if (!config_check_key(config, name, *group, *key, error))
                return false;
    }
    return true;
}

struct config *config_parse(const char *data, size_t length, const char *name, GError **error)
{
    g_autoptr(config_t) config = config_empty();
    g_autoptr(GError) local = NULL;
    if (length > CONFIG_MAX_SIZE || memchr(data, 0, length) || !g_utf8_validate(data, length, NULL)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s is no machine definition: it must be UTF-8 text of at most 1 MiB", name);
        return NULL;
    }
    // GLib takes an empty file for an error on some versions; a definition without any key is all defaults.
    if (length && !g_key_file_load_from_data(config->file, data, length,
                                             G_KEY_FILE_KEEP_COMMENTS | G_KEY_FILE_KEEP_TRANSLATIONS, &local)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s is no machine definition: %s", name, local->message);
        return NULL;
    }
    if (!config_migrate(config->file, config_renames, OPTION_VERSION, &config->changed, &local)) {
        g_set_error(error, CLOCHE_ERROR, local->code, "%s: %s", name, local->message);
        return NULL;
    }
    if (!config_check(config, name, error))
        return NULL;
    return g_steal_pointer(&config);
}

struct config *config_load(const char *path, GError **error)
{
    g_autofree char *data = NULL;
    size_t length;
    if (!host_file_read(path, CONFIG_MAX_SIZE, &data, &length, error))
        return NULL;
    return config_parse(data, length, path, error);
}

struct config *config_copy(struct config *config)
{
    size_t length;
    g_autofree char *text = g_key_file_to_data(config->file, &length, NULL);
    struct config *copy = config_empty();
    if (length)
        g_key_file_load_from_data(copy->file, text, length, G_KEY_FILE_KEEP_COMMENTS | G_KEY_FILE_KEEP_TRANSLATIONS,
                                  NULL);
    copy->changed = true;
    return copy;
}

// ---- Values ----

char *config_get(struct config *config, const char *group, const char *key)
{
    const struct option *option = option_find(group, key);
    if (!option)
        return NULL;
    g_autofree char *text = g_key_file_get_string(config->file, group, key, NULL);
    char *canonical = NULL;
    if (text && option_check(option, text, &canonical, NULL))
        return canonical;
    return g_strdup(option->default_text);
}

bool config_get_bool(struct config *config, const char *group, const char *key)
{
    g_autofree char *text = config_get(config, group, key);
    bool value = false;
    return text && option_parse_bool(text, &value) && value;
}

uint64_t config_get_number(struct config *config, const char *group, const char *key)
{
    g_autofree char *text = config_get(config, group, key);
    uint64_t value = 0;
    return text && option_parse_size(text, &value) ? value : 0;
}

bool config_is_set(struct config *config, const char *group, const char *key)
{
    return g_key_file_has_key(config->file, group, key, NULL);
}

bool config_set(struct config *config, const char *group, const char *key, const char *text, GError **error)
{
    const struct option *option = option_find(group, key);
    if (!option) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                    "There is no option \"%s\" in group [%s]; machine.conf(5) lists them", key, group);
        return false;
    }
    if (!text) {
        if (g_key_file_remove_key(config->file, group, key, NULL))
            config->changed = true;
        return true;
    }
    g_autofree char *canonical = NULL;
    g_autoptr(GError) local = NULL;
    if (!option_check(option, text, &canonical, &local)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Option \"%s\" of [%s]: %s", key, group, local->message);
        return false;
    }
    g_autofree char *old = config_is_set(config, group, key) ? config_get(config, group, key) : NULL;
    if (g_strcmp0(old, canonical) == 0)
        return true;
    g_key_file_set_string(config->file, group, key, canonical);
    config->changed = true;
    return true;
}

// ---- Groups ----

char **config_groups(struct config *config, const char *pattern)
{
    g_auto(GStrv) groups = g_key_file_get_groups(config->file, NULL);
    g_autoptr(GStrvBuilder) builder = g_strv_builder_new();
    for (char **group = groups; *group; group++)
        if (option_group_matches(pattern, *group))
            g_strv_builder_add(builder, *group);
    return g_strv_builder_end(builder);
}

bool config_has_group(struct config *config, const char *group)
{
    return g_key_file_has_group(config->file, group);
}

char *config_add_group(struct config *config, const char *pattern, const char *prefix)
{
    for (unsigned number = 0;; number++) {
        g_autofree char *group = g_strdup_printf("%.*s%s%u", (int)strlen(pattern) - 1, pattern, prefix, number);
        if (!g_key_file_has_group(config->file, group))
            return g_steal_pointer(&group);
    }
}

void config_remove_group(struct config *config, const char *group)
{
    if (g_key_file_remove_group(config->file, group, NULL))
        config->changed = true;
}

// ---- Writing ----

const char *const *config_warnings(struct config *config)
{
    return (const char *const *)config->warnings->pdata;
}

bool config_changed(struct config *config)
{
    return config->changed;
}

char *config_text(struct config *config)
{
    return g_key_file_to_data(config->file, NULL, NULL);
}

bool config_save(struct config *config, const char *path, GError **error)
{
    if (!config->changed)
        return true;
    g_autofree char *text = config_text(config);
    if (!host_file_write(path, text, strlen(text), 0600, error))
        return false;
    config->changed = false;
    return true;
}
