// SPDX-License-Identifier: GPL-2.0-or-later
// The list of forms that are not compared, each with its reason.
#include "tests/conformance/conformance.h"

static void exclusion_free(void *p)
{
    struct exclusion *x = p;
    g_free(x->pattern);
    g_free(x->reason);
    g_free(x);
}

static struct exclusion *exclusion_parse(const char *line)
{
    struct exclusion *x = g_new0(struct exclusion, 1);
    x->whole = *line == '"';
    const char *start = line + x->whole, *end = x->whole ? strchr(start, '"') : start + strcspn(start, " \t");
    if (!end || end == start || !end[0]) {
        exclusion_free(x);
        return NULL;
    }
    x->pattern = g_strndup(start, (gsize)(end - start));
    x->reason = g_strstrip(g_strdup(end + x->whole));
    return x;
}

GPtrArray *exclusions_load(const char *path, GError **error)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, error))
        return NULL;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    GPtrArray *list = g_ptr_array_new_with_free_func(exclusion_free);
    for (unsigned k = 0; lines[k]; k++) {
        char *line = g_strstrip(lines[k]);
        if (!*line || *line == '#')
            continue;
        struct exclusion *x = exclusion_parse(line);
        if (!x || !*x->reason) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s line %u needs a form and a reason.", path,
                        k + 1);
            g_ptr_array_unref(list);
            return NULL;
        }
        g_ptr_array_add(list, x);
    }
    return list;
}

static bool matches(const struct exclusion *x, const char *key)
{
    size_t n = strlen(x->pattern);
    if (x->whole)
        return g_pattern_match_simple(x->pattern, key);
    return strncmp(key, x->pattern, n) == 0 && (key[n] == ' ' || key[n] == '\0');
}

unsigned exclude_forms(GPtrArray *forms, GPtrArray *exclusions)
{
    unsigned count = 0;
    for (unsigned k = 0; k < forms->len; k++) {
        struct form *f = forms->pdata[k];
        for (unsigned j = 0; j < exclusions->len && !f->excluded; j++) {
            struct exclusion *x = exclusions->pdata[j];
            if (matches(x, f->key)) {
                x->used = true;
                f->excluded = x->reason;
                count++;
            }
        }
    }
    return count;
}
