// SPDX-License-Identifier: GPL-2.0-or-later
// The translator's decoder against Zydis: real code and random bytes.
#include "core/cpu/translate/decode.h"

#include <Zydis/Zydis.h>
#include <check.h>
#include <elf.h>
#include <stdio.h>
#include <string.h>

static uint64_t random_state = 88172645463325252ull;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static void decoder_init(ZydisDecoder *decoder, unsigned bits)
{
    ZydisDecoderInit(decoder,
                     bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
                     : bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                  : ZYDIS_MACHINE_MODE_LEGACY_16,
                     bits == 64   ? ZYDIS_STACK_WIDTH_64
                     : bits == 32 ? ZYDIS_STACK_WIDTH_32
                                  : ZYDIS_STACK_WIDTH_16);
}

static void compare_fields(const struct guest_insn *i, const ZydisDecodedInstruction *z, const uint8_t *p)
{
    char text[64] = "";
    for (unsigned n = 0; n < z->length; n++)
        snprintf(text + 3 * n, 4, "%02x ", p[n]);
    ck_assert_msg(i->length == z->length, "length %u, Zydis says %u: %s", i->length, z->length, text);
    ck_assert_msg(i->opcode == z->opcode, "opcode %x: %s", i->opcode, text);
    ck_assert_msg(i->has_modrm == !!(z->attributes & ZYDIS_ATTRIB_HAS_MODRM), "ModRM: %s", text);
    if (i->has_modrm)
        ck_assert_msg(i->modrm_at == z->raw.modrm.offset, "ModRM at %u: %s", i->modrm_at, text);
    if (i->memory && i->displacement_size)
        ck_assert_msg(i->displacement == z->raw.disp.value && i->displacement_size * 8 == z->raw.disp.size,
                      "displacement: %s", text);
    if (z->raw.imm[0].size)
        ck_assert_msg(i->immediate_at == z->raw.imm[0].offset, "immediate at %u: %s", i->immediate_at, text);
}

static void compare_facts(struct fact_table *table, const struct guest_insn *i, const uint8_t *p)
{
    const struct fact *remembered = fact_find(table, i, p);
    struct fact fresh = {.key = remembered->key};
    fact_compute(&fresh, i, p);
    ck_assert_msg(!memcmp(&fresh, remembered, sizeof fresh), "facts of map %u opcode %02x ModRM %02x differ", i->map,
                  i->opcode, i->modrm);
}

// Extensions that no processor of today has: the table does not know them.
static bool extinct(unsigned isa)
{
    return isa == ZYDIS_ISA_EXT_XOP || isa == ZYDIS_ISA_EXT_SSE4A || isa == ZYDIS_ISA_EXT_KNC ||
           isa == ZYDIS_ISA_EXT_AMD3DNOW || isa == ZYDIS_ISA_EXT_KNCE || isa == ZYDIS_ISA_EXT_KNCV ||
           isa == ZYDIS_ISA_EXT_TBM;
}

// Walks CODE; returns how many instructions both decoders took.
static unsigned walk(struct fact_table *table, const uint8_t *code, size_t size, unsigned bits)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    decoder_init(&decoder, bits);
    unsigned count = 0;
    for (size_t at = 0; at + 16 < size;) {
        struct guest_insn i;
        enum decode_result r = decode_fields(&i, code + at, 15, bits);
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, code + at, 15, &z))) {
            at++;
            continue;
        }
        if (extinct(z.meta.isa_ext)) {
            at += z.length;
            continue;
        }
        ck_assert_msg(r == DECODE_OK, "%u bits: refused %02x %02x %02x %02x (%s)", bits, code[at], code[at + 1],
                      code[at + 2], code[at + 3], ZydisMnemonicGetString(z.mnemonic));
        compare_fields(&i, &z, code + at);
        compare_facts(table, &i, code + at);
        at += z.length;
        count++;
    }
    return count;
}

START_TEST(real_code)
{
    static const char *const files[] = {"/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
                                        "/proc/self/exe"};
    struct fact_table *table = fact_table_new();
    unsigned total = 0;
    for (unsigned n = 0; n < G_N_ELEMENTS(files); n++) {
        g_autofree char *data = NULL;
        gsize size;
        if (!g_file_get_contents(files[n], &data, &size, NULL))
            continue;
        const Elf64_Ehdr *elf = (const Elf64_Ehdr *)data;
        const Elf64_Phdr *p = (const Elf64_Phdr *)(data + elf->e_phoff);
        for (unsigned k = 0; k < elf->e_phnum; k++)
            if (p[k].p_type == PT_LOAD && (p[k].p_flags & PF_X))
                total += walk(table, (const uint8_t *)data + p[k].p_offset, MIN(p[k].p_filesz, 600000u), 64);
    }
    ck_assert_uint_gt(total, 100000);
    fact_table_free(table);
}
END_TEST

START_TEST(random_bytes)
{
    static const unsigned sizes[] = {64, 32, 16};
    unsigned bits = sizes[_i];
    struct fact_table *table = fact_table_new();
    size_t size = 1 << 20;
    g_autofree uint8_t *code = g_malloc(size);
    for (size_t at = 0; at < size; at += 8)
        *(uint64_t *)(code + at) = random_next();
    ck_assert_uint_gt(walk(table, code, size, bits), 100000);
    fact_table_free(table);
}
END_TEST

START_TEST(truncated)
{
    static const uint8_t mov[] = {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8};
    struct guest_insn i;
    for (unsigned n = 0; n < sizeof mov; n++)
        ck_assert_int_eq(decode_fields(&i, mov, n, 64), DECODE_TRUNCATED);
    ck_assert_int_eq(decode_fields(&i, mov, sizeof mov, 64), DECODE_OK);
    ck_assert_int_eq(i.immediate, 0x0807060504030201);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("decode");
    TCase *tcase = tcase_create("decode");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, real_code);
    tcase_add_loop_test(tcase, random_bytes, 0, 3);
    tcase_add_test(tcase, truncated);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
