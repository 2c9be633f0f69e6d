// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/config/option.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

bool option_group_matches(const char *pattern, const char *group)
{
    size_t length = strlen(pattern);
    if (length > 2 && pattern[length - 1] == '*')
        return strncmp(pattern, group, length - 1) == 0 && group[length - 1] != 0;
    return strcmp(pattern, group) == 0;
}

const struct option *option_find(const char *group, const char *key)
{
    for (size_t i = 0; i < options_count; i++)
        if (strcmp(options_table[i].key, key) == 0 && option_group_matches(options_table[i].group, group))
            return &options_table[i];
    return NULL;
}

const struct option *option_find_name(const char *name)
{
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; i < options_count; i++) {
        const struct option *option = &options_table[i];
        if (option->name && strcmp(option->name, name) == 0)
            return option;
        if (dot && strlen(option->group) == (size_t)(dot - name) &&
            g_ascii_strncasecmp(option->group, name, dot - name) == 0 && g_ascii_strcasecmp(option->key, dot + 1) == 0)
            return option;
    }
    return NULL;
}

bool option_parse_bool(const char *text, bool *value)
{
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};
    for (unsigned i = 0; i < G_N_ELEMENTS(yes); i++) {
        if (g_ascii_strcasecmp(text, yes[i]) == 0)
            return *value = true, true;
        if (g_ascii_strcasecmp(text, no[i]) == 0)
            return *value = false, true;
    }
    return false;
}

bool option_parse_size(const char *text, uint64_t *bytes)
{
    // Digits with at most one dot only: strtod() would also take hexadecimal, "inf" and signs.
    size_t digits = strspn(text, "0123456789.");
    if (digits == 0 || digits > 24 || !g_ascii_isdigit(text[0]))
        return false;
    char *end;
    double value = g_ascii_strtod(text, &end);
    if (end != text + digits)
        return false;
    while (*end == ' ')
        end++;
    static const char units[] = "KMGTP";
    uint64_t unit = 1;
    if (*end && *end != 'B') {
        const char *at = strchr(units, g_ascii_toupper(*end));
        if (!at)
            return false;
        unit = 1ull << 10 * (at - units + 1);
        end++;
        if (*end == 'i')
            end++;
    }
    if (*end == 'B')
        end++;
    if (*end)
        return false;
    if (!memchr(text, '.', digits)) {
        errno = 0;
        guint64 whole = g_ascii_strtoull(text, NULL, 10);
        if (errno || whole > (uint64_t)INT64_MAX / unit)
            return false;
        *bytes = whole * unit;
        return true;
    }
    double exact = value * (double)unit;
    if (!(exact < 9.2e18) || exact != floor(exact))
        return false;
    *bytes = (uint64_t)exact;
    return true;
}

char *option_format_size(uint64_t bytes)
{
    static const char units[] = "\0KMGTP";
    unsigned unit = 0;
    while (unit < 5 && bytes && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    return unit ? g_strdup_printf("%" PRIu64 "%c", bytes, units[unit]) : g_strdup_printf("%" PRIu64, bytes);
}

char *option_allowed(const struct option *option)
{
    switch (option->type) {
    case OPTION_BOOL:
        return g_strdup("true or false");
    case OPTION_NUMBER:
        return g_strdup_printf("a whole number from %" PRIu64 " to %" PRIu64, option->min, option->max);
    case OPTION_SIZE: {
        g_autofree char *min = option_format_size(option->min), *max = option_format_size(option->max);
        return g_strdup_printf("a size from %s to %s, for example 512M or 2G", min, max);
    }
    case OPTION_CHOICE: {
        g_autofree char *list = g_strjoinv(", ", (char **)option->choices);
        return g_strdup_printf("one of: %s", list);
    }
    case OPTION_FILE:
        return g_strdup("the path of a file");
    case OPTION_TEXT:
    case OPTION_LIST:
        break;
    }
    return g_strdup(option->allowed ? option->allowed : "any text");
}

static bool check_list(const struct option *option, const char *text)
{
    g_auto(GStrv) items = g_strsplit(text, ";", -1);
    for (char **item = items; *item; item++)
        if ((*item)[0] && option->check && !option->check(*item))
            return false;
    return true;
}

// The canonical form, or NULL when TEXT is not allowed.
static char *canonical_value(const struct option *option, const char *text)
{
    bool flag;
    uint64_t bytes;
    guint64 number;
    switch (option->type) {
    case OPTION_BOOL:
        return option_parse_bool(text, &flag) ? g_strdup(flag ? "true" : "false") : NULL;
    case OPTION_NUMBER:
        return g_ascii_string_to_unsigned(text, 10, option->min, option->max, &number, NULL)
                   ? g_strdup_printf("%" G_GUINT64_FORMAT, number)
                   : NULL;
    case OPTION_SIZE:
        return option_parse_size(text, &bytes) && bytes >= option->min && bytes <= option->max
                   ? option_format_size(bytes)
                   : NULL;
    case OPTION_CHOICE:
        return g_strv_contains(option->choices, text) ? g_strdup(text) : NULL;
    case OPTION_LIST:
        return check_list(option, text) ? g_strdup(text) : NULL;
    case OPTION_FILE:
        return g_strdup(text);
    case OPTION_TEXT:
        if (!text[0])
            return option->required ? NULL : g_strdup("");
        return !option->check || option->check(text) ? g_strdup(text) : NULL;
    }
    return NULL;
}

bool option_check(const struct option *option, const char *text, char **canonical, GError **error)
{
    g_autofree char *value = g_utf8_validate(text, -1, NULL) ? canonical_value(option, text) : NULL;
    if (!value) {
        g_autofree char *allowed = option_allowed(option), *shown = g_strescape(text, NULL);
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "\"%.200s\" is not allowed; allowed is %s", shown,
                    allowed);
        return false;
    }
    if (canonical)
        *canonical = g_steal_pointer(&value);
    return true;
}
