// SPDX-License-Identifier: GPL-2.0-or-later
// Enumerates instruction forms: every opcode of every map with every prefix that selects, decoded, and kept where the
// interpreter's instruction table has a row.
#include "tests/conformance/conformance.h"

#include "core/cpu/interpret/avx512.h"

bool decode_bytes(bool is_64, const uint8_t *bytes, size_t size, struct decoded *d)
{
    static ZydisDecoder decoder[2];
    static bool ready;
    if (!ready) {
        ZydisDecoderInit(&decoder[0], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
        ZydisDecoderInit(&decoder[1], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
        for (unsigned k = 0; k < 2; k++) { // as the interpreter's decoder has it
            ZydisDecoderEnableMode(&decoder[k], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
            ZydisDecoderEnableMode(&decoder[k], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
            ZydisDecoderEnableMode(&decoder[k], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
        }
        ready = true;
    }
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder[is_64], bytes, size, &d->zydis, d->operands));
}

static void operand_text(const ZydisDecodedOperand *o, GString *text)
{
    switch (o->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        g_string_append_printf(text, "%s%u",
                               ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_XMM    ? "xmm"
                               : ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_YMM  ? "ymm"
                               : ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_ZMM  ? "zmm"
                               : ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_MASK ? "k"
                               : ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_MMX  ? "mm"
                               : ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_X87  ? "st"
                               : ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT
                                   ? ZydisRegisterGetString(o->reg.value)
                                   : "r",
                               o->size);
        break;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        g_string_append_printf(text, "m%u", o->size);
        break;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        g_string_append_printf(text, "%s%u", o->imm.is_relative ? "rel" : "imm", o->size);
        break;
    default:
        g_string_append(text, "ptr");
    }
}

void form_key(const struct decoded *d, bool is_64, char *key, size_t size)
{
    static const char *const maps[8] = {"", "0f", "0f38", "0f3a", "map4", "map5", "map6", "map7"};
    g_autoptr(GString) text = g_string_new(ZydisMnemonicGetString(d->zydis.mnemonic));
    bool vex = d->zydis.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    bool evex = d->zydis.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    for (unsigned k = 0; k < d->zydis.operand_count_visible; k++) {
        if (d->operands[k].encoding == ZYDIS_OPERAND_ENCODING_MASK)
            continue; // with and without are one form
        g_string_append_c(text, k ? ',' : ' ');
        operand_text(&d->operands[k], text);
    }
    unsigned opcode = d->zydis.opcode; // without a register number in its low bits
    for (unsigned k = 0; k < d->zydis.operand_count; k++)
        if (d->operands[k].encoding == ZYDIS_OPERAND_ENCODING_OPCODE)
            opcode &= 0xf8;
    g_string_append_printf(text, " [%s%s.%02x",
                           vex    ? "vex."
                           : evex ? "evex."
                                  : "",
                           maps[d->zydis.opcode_map & 7], opcode);
    if (evex)
        g_string_append_printf(text, ".%u.w%u", d->zydis.avx.vector_length, d->zydis.raw.evex.W);
    if (evex && d->zydis.raw.evex.b)
        g_string_append(text, d->zydis.avx.broadcast.mode ? ".bcst" : d->zydis.avx.rounding.mode ? ".er" : ".sae");
    if (d->zydis.attributes & ZYDIS_ATTRIB_HAS_REP)
        g_string_append(text, ".rep");
    if (d->zydis.attributes & (ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        g_string_append(text, d->zydis.attributes & ZYDIS_ATTRIB_HAS_REPE ? ".repe" : ".repne");
    if (d->zydis.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        g_string_append(text, ".lock");
    if (d->zydis.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        g_string_append(text, ".far");
    g_string_append_printf(text, "]%s o%u", is_64 ? "" : " 32", d->zydis.operand_width);
    g_strlcpy(key, text->str, size);
}

static size_t put_template(const struct form *f, uint8_t *b)
{
    size_t n = 0;
    for (unsigned k = 0; k < 2; k++)
        if (f->prefix[k])
            b[n++] = f->prefix[k];
    if (f->is_evex) {
        b[n++] = 0x62;
        b[n++] = 0xf0 | f->map;
        b[n++] = (uint8_t)(f->rex_w << 7 | 0x7c | f->vex_pp);
        b[n++] = (uint8_t)(f->vex_l << 5 | f->evex_b << 4 | 8 | f->evex_mask);
    } else if (f->is_vex) {
        b[n++] = 0xc4;
        b[n++] = 0xe0 | f->map;
        b[n++] = (uint8_t)(f->rex_w << 7 | 0x78 | f->vex_l << 2 | f->vex_pp);
    } else {
        if (f->rex_w)
            b[n++] = 0x48;
        if (f->map)
            b[n++] = 0x0f;
        if (f->map > 1)
            b[n++] = f->map == 2 ? 0x38 : 0x3a;
    }
    b[n++] = f->opcode;
    b[n++] = f->modrm;
    if ((f->modrm & 0xc7) == 0x04)
        b[n++] = 0x25; // SIB: index 4 (none, or vector register 4), no base
    memset(b + n, 0, 12);
    return n + 12 > 15 ? 15 : n + 12;
}

static bool has_ignored_prefix(const ZydisDecodedInstruction *z)
{
    for (unsigned k = 0; k < z->raw.prefix_count; k++)
        if (z->raw.prefixes[k].type == ZYDIS_PREFIX_TYPE_IGNORED && z->raw.prefixes[k].value < 0x40)
            return true;
        else if (z->raw.prefixes[k].type == ZYDIS_PREFIX_TYPE_IGNORED && z->raw.prefixes[k].value > 0x4f)
            return true;
    return false;
}

static bool same_key(const struct form *f, uint8_t modrm)
{
    struct form other = *f;
    struct decoded d;
    uint8_t bytes[32];
    char key[160];
    other.modrm = modrm;
    size_t size = put_template(&other, bytes);
    if (!decode_bytes(f->is_64, bytes, size, &d))
        return false;
    form_key(&d, f->is_64, key, sizeof(key));
    return strcmp(key, f->key) == 0;
}

// Two other values of a field keep the form: it is an operand. (Some combinations of a vector index clash, so two.)
static bool field_free(const struct form *f, unsigned shift)
{
    unsigned same = 0, own = f->modrm >> shift & 7;
    for (unsigned k = 0; k < 8; k++)
        if (k != own)
            same += same_key(f, (uint8_t)((f->modrm & ~(7u << shift)) | k << shift));
    return same >= 2;
}

static bool in_table(const struct decoded *d)
{
    const struct insn_row *row = interpret_row(d);
    return row != NULL;
}

// Returns whether there is a ModRM byte at all (else varying it is useless).
static bool try_form(struct form f, GHashTable *seen, GPtrArray *forms)
{
    uint8_t bytes[32];
    struct decoded d;
    char key[160];
    size_t size = put_template(&f, bytes);
    if (!decode_bytes(f.is_64, bytes, size, &d))
        return true;
    f.has_modrm = d.zydis.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    if (has_ignored_prefix(&d.zydis) || !in_table(&d))
        return f.has_modrm;
    if (d.zydis.encoding != (f.is_evex  ? ZYDIS_INSTRUCTION_ENCODING_EVEX
                             : f.is_vex ? ZYDIS_INSTRUCTION_ENCODING_VEX
                                        : ZYDIS_INSTRUCTION_ENCODING_LEGACY))
        return f.has_modrm;
    form_key(&d, f.is_64, key, sizeof(key));
    if (g_hash_table_contains(seen, key))
        return f.has_modrm;
    f.key = g_strdup(key);
    f.mnemonic = (uint16_t)d.zydis.mnemonic;
    f.is_avx512 = is_avx512(&d.zydis);
    f.isa_set = (uint8_t)d.zydis.meta.isa_set;
    f.is_memory = f.has_modrm && d.zydis.raw.modrm.mod != 3;
    for (unsigned k = 0; k < d.zydis.operand_count; k++)
        f.is_vsib |= d.operands[k].type == ZYDIS_OPERAND_TYPE_MEMORY && d.operands[k].mem.type == ZYDIS_MEMOP_TYPE_VSIB;
    if (f.has_modrm) {
        f.reg_free = field_free(&f, 3);
        f.rm_free = !f.is_memory && field_free(&f, 0);
    }
    struct form *kept = g_memdup2(&f, sizeof(f));
    g_hash_table_add(seen, kept->key);
    g_ptr_array_add(forms, kept);
    return f.has_modrm;
}

static void try_opcode(struct form f, GHashTable *seen, GPtrArray *forms)
{
    for (unsigned reg = 0; reg < 8; reg++) {
        f.modrm = (uint8_t)(reg << 3 | 4); // memory with SIB, which a vector index needs
        if (!try_form(f, seen, forms))
            return;
        for (unsigned rm = 0; rm < 8; rm++) {
            f.modrm = (uint8_t)(0xc0 | reg << 3 | rm);
            if (!try_form(f, seen, forms))
                return;
        }
    }
}

static bool is_prefix_byte(bool is_64, unsigned map, unsigned opcode)
{
    if (map)
        return map == 1 && (opcode == 0x38 || opcode == 0x3a || opcode == 0x0f);
    return opcode == 0x26 || opcode == 0x2e || opcode == 0x36 || opcode == 0x3e || (opcode >= 0x64 && opcode <= 0x67) ||
           opcode == 0xf0 || opcode == 0xf2 || opcode == 0xf3 || opcode == 0x0f || (is_64 && (opcode & 0xf0) == 0x40) ||
           (is_64 && (opcode == 0x62 || opcode == 0xc4 || opcode == 0xc5));
}

static void enumerate_legacy(bool is_64, GHashTable *seen, GPtrArray *forms)
{
    static const uint8_t prefixes[][2] = {{0, 0},    {0x66, 0},    {0xf3, 0},    {0xf2, 0},
                                          {0xf0, 0}, {0x66, 0xf2}, {0x66, 0xf3}, {0xf0, 0x66}};
    for (unsigned p = 0; p < G_N_ELEMENTS(prefixes); p++)
        for (unsigned w = 0; w <= is_64; w++)
            for (unsigned map = 0; map < 4; map++)
                for (unsigned opcode = 0; opcode < 256; opcode++) {
                    struct form f = {
                        .is_64 = is_64, .rex_w = (uint8_t)w, .map = (uint8_t)map, .opcode = (uint8_t)opcode};
                    memcpy(f.prefix, prefixes[p], 2);
                    if (!is_prefix_byte(is_64, map, opcode))
                        try_opcode(f, seen, forms);
                }
}

static void enumerate_vex(bool is_64, GHashTable *seen, GPtrArray *forms)
{
    for (unsigned selector = 0; selector < 16; selector++)
        for (unsigned map = 1; map < 4; map++)
            for (unsigned opcode = 0; opcode < 256; opcode++)
                try_opcode((struct form){.is_64 = is_64,
                                         .is_vex = true,
                                         .rex_w = selector & 1,
                                         .vex_l = selector >> 1 & 1,
                                         .vex_pp = (uint8_t)(selector >> 2),
                                         .map = (uint8_t)map,
                                         .opcode = (uint8_t)opcode},
                           seen, forms);
}

// With an opmask first: where one is allowed, it need not be there.
static void enumerate_evex(bool is_64, GHashTable *seen, GPtrArray *forms)
{
    static const uint8_t maps[] = {1, 2, 3, 5, 6};
    for (unsigned selector = 0; selector < 128; selector++)
        for (unsigned map = 0; map < G_N_ELEMENTS(maps); map++)
            for (unsigned opcode = 0; opcode < 256; opcode++) {
                struct form f = {.is_64 = is_64,
                                 .is_evex = true,
                                 .evex_mask = !(selector & 1),
                                 .evex_b = selector >> 1 & 1,
                                 .rex_w = selector >> 2 & 1,
                                 .vex_l = selector >> 3 & 3,
                                 .vex_pp = selector >> 5 & 3,
                                 .map = maps[map],
                                 .opcode = (uint8_t)opcode};
                bool group = maps[map] == 1 && opcode >= 0x71 && opcode <= 0x73;
                for (unsigned reg = 0; reg < (group ? 8u : 1u); reg++) {
                    f.modrm = (uint8_t)(reg << 3 | 4);
                    try_form(f, seen, forms);
                    f.modrm = (uint8_t)(0xc0 | reg << 3 | 1);
                    try_form(f, seen, forms);
                }
            }
}

static void form_free(void *p)
{
    struct form *f = p;
    g_free(f->key);
    g_free(f);
}

GPtrArray *forms_enumerate(void)
{
    GPtrArray *forms = g_ptr_array_new_with_free_func(form_free);
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    for (int is_64 = 1; is_64 >= 0; is_64--) {
        enumerate_legacy(is_64, seen, forms);
        enumerate_vex(is_64, seen, forms);
        enumerate_evex(is_64, seen, forms);
    }
    return forms;
}
