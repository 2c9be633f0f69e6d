// SPDX-License-Identifier: GPL-2.0-or-later
// What `info jit` shows.
#include "core/cpu/translate/translate.h"

#include <Zydis/Zydis.h>

// One line per instruction of SIZE bytes at CODE, which the text places at ADDRESS.
static void dump_code(GString *s, const uint8_t *code, size_t size, uint64_t address, unsigned bits)
{
    ZydisDisassembledInstruction d;
    ZydisMachineMode mode = bits == 64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LEGACY_32;
    for (size_t at = 0; at < size; at += d.info.length) {
        if (!ZYAN_SUCCESS(ZydisDisassembleIntel(mode, address + at, code + at, size - at, &d)))
            break;
        g_string_append_printf(s, "  %012lx  %s\n", (unsigned long)(address + at), d.text);
    }
}

char *translate_dump_block(struct translator *t, uint64_t host)
{
    const struct block *b = block_at_host(t, host);
    if (!b)
        return NULL;
    GString *s = g_string_new(NULL);
    unsigned bits = b->mode & MODE_64 ? 64 : 32;
    unsigned in_page = b->address & ~PAGE_MASK;
    g_string_append_printf(s, "block %lx, mode %x%s\n", (unsigned long)b->address, b->mode, b->dead ? ", dead" : "");
    dump_code(s, t->set->host.ram->host + b->ram_page + in_page, MIN((size_t)b->length, PAGE_SIZE - in_page),
              b->address, bits);
    g_string_append(s, "translation\n");
    dump_code(s, b->indirect, (size_t)(b->stubs - b->indirect), (uintptr_t)b->indirect, 64);
    return g_string_free(s, false);
}

// What the interpreter got most.
static void describe_handed(GString *s, const struct translator *t)
{
    unsigned last = UINT_MAX, from = 0;
    for (unsigned n = 0; n < 16; n++) {
        unsigned most = 0;
        for (unsigned m = 0; m < MNEMONICS_MAX; m++) { // the next one in order of numbers, then of mnemonics
            unsigned count = t->handed[m];
            if (count && (count < last || (count == last && m >= from)) && count > (most ? t->handed[most] : 0))
                most = m;
        }
        if (!most)
            break;
        last = t->handed[most];
        from = most + 1;
        const char *name = ZydisMnemonicGetString((ZydisMnemonic)most);
        g_string_append_printf(s, "%12u  %s to the interpreter\n", last, name ? name : "?");
    }
}

static void describe_share(GString *s, const struct translator *t, uint64_t retired, uint64_t interpreted)
{
    if (!t->counting) {
        g_string_append(
            s, "             share of the interpreter: not counted (start with CLOCHE_COUNT_INSTRUCTIONS=1)\n");
        return;
    }
    g_string_append_printf(s, "%12" G_GUINT64_FORMAT "  instructions retired by translated code\n", retired);
    g_string_append_printf(s, "%11.3f%%  of the instructions in translated modes were given to the interpreter\n",
                           100.0 * (double)interpreted / (double)MAX(retired + interpreted, 1));
    describe_handed(s, t);
}

char *translate_describe(struct cpu_set *set)
{
    struct translator *t = set->engine_state;
    GString *s = g_string_new(NULL);
    struct translate_counters sum = {0};
    uint64_t interpreted = 0, retired = 0;
    for (unsigned i = 0; i < set->count; i++) {
        const struct context *c = set->vcpu[i]->engine_state;
        if (!c)
            continue;
        interpreted += set->vcpu[i]->instructions;
        retired += c->retired;
#define X(name, text) sum.name += c->counters.name;
        TRANSLATE_COUNTERS(X)
#undef X
    }
    g_string_append_printf(s, "engine translate: %u blocks, %zu KiB of code in half %u\n",
                           t->block_count - t->block_first, (size_t)(t->used - THUNK_SIZE - t->half * HALF_SIZE) / 1024,
                           t->half);
    g_string_append_printf(s, "%12" G_GUINT64_FORMAT "  instructions retired by the interpreter\n", interpreted);
#define X(name, text) g_string_append_printf(s, "%12" G_GUINT64_FORMAT "  %s\n", sum.name, text);
    TRANSLATE_COUNTERS(X)
#undef X
    describe_share(s, t, retired, interpreted - sum.mode_instructions);
    return g_string_free(s, false);
}
