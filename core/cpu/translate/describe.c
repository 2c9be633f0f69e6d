// SPDX-License-Identifier: GPL-2.0-or-later
// What `info jit` shows.
#include "core/cpu/translate/translate.h"

char *translate_describe(struct cpu_set *set)
{
    struct translator *t = set->engine_state;
    GString *s = g_string_new(NULL);
    struct translate_counters sum = {0};
    uint64_t interpreted = 0;
    for (unsigned i = 0; i < set->count; i++) {
        const struct context *c = set->vcpu[i]->engine_state;
        if (!c)
            continue;
        interpreted += set->vcpu[i]->instructions;
#define X(name, text) sum.name += c->counters.name;
        TRANSLATE_COUNTERS(X)
#undef X
    }
    g_string_append_printf(s, "engine translate: %u blocks, %zu KiB of code in half %u\n",
                           t->block_count - t->block_first, (t->used - (t->limit - (t->code_size - 4096) / 2)) / 1024,
                           t->half);
    g_string_append_printf(s, "%12" G_GUINT64_FORMAT "  instructions retired by the interpreter\n", interpreted);
#define X(name, text) g_string_append_printf(s, "%12" G_GUINT64_FORMAT "  %s\n", sum.name, text);
    TRANSLATE_COUNTERS(X)
#undef X
    return g_string_free(s, false);
}
