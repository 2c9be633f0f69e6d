// SPDX-License-Identifier: GPL-2.0-or-later
// Compares what the host and the engine did, and describes vectors for people.
#include "tests/conformance/conformance.h"

static const char *const gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

#define FLAGS_COMPARED (FLAGS_STATUS | FLAG_DF | FLAG_AC | FLAG_ID | FLAG_NT)

static void hex(GString *text, const uint8_t *bytes, unsigned size)
{
    for (unsigned k = size; k-- > 0;)
        g_string_append_printf(text, "%02x", bytes[k]);
}

static bool compare_bytes(GString *text, const char *name, unsigned n, const uint8_t *expected, const uint8_t *got,
                          unsigned size)
{
    if (memcmp(expected, got, size) == 0)
        return true;
    g_string_append_printf(text, "    %s%u: host ", name, n);
    hex(text, expected, size);
    g_string_append(text, ", engine ");
    hex(text, got, size);
    g_string_append_c(text, '\n');
    return false;
}

// Neighbouring magnitudes have neighbouring ordinals.
static unsigned __int128 ordinal(const uint8_t *a)
{
    uint64_t significand;
    unsigned exponent = (a[8] | a[9] << 8) & 0x7fff;
    memcpy(&significand, a, 8);
    return (exponent ? (unsigned __int128)(exponent - 1) << 63 : 0) + significand;
}

// One unit in the last place apart.
static bool close_enough(const uint8_t *a, const uint8_t *b)
{
    unsigned __int128 x = ordinal(a), y = ordinal(b);
    return (a[9] & 0x80) == (b[9] & 0x80) && (x > y ? x - y : y - x) <= 1;
}

static bool compare_integer(const struct vector *v, const struct state *e, const struct state *g, GString *text)
{
    bool same = true;
    for (unsigned k = 0; k < (v->is_64 ? 16 : 8); k++) {
        uint64_t mask = v->is_64 ? ~0ull : 0xffffffff;
        if ((e->gpr[k] ^ g->gpr[k]) & mask) {
            g_string_append_printf(text, "    %s: host %016" PRIx64 ", engine %016" PRIx64 "\n", gpr_names[k],
                                   e->gpr[k], g->gpr[k]);
            same = false;
        }
    }
    if (e->rip != g->rip) {
        g_string_append_printf(text, "    rip: host %016" PRIx64 ", engine %016" PRIx64 "\n", e->rip, g->rip);
        same = false;
    }
    uint64_t flags = (e->rflags ^ g->rflags) & FLAGS_COMPARED & ~v->undefined_flags;
    if (flags) {
        g_string_append_printf(text, "    flags: host %06" PRIx64 ", engine %06" PRIx64 ", differ %06" PRIx64 "\n",
                               e->rflags & FLAGS_COMPARED, g->rflags & FLAGS_COMPARED, flags);
        same = false;
    }
    return same;
}

static bool compare_vectors(const struct vector *v, const uint8_t *e, const uint8_t *g, GString *text)
{
    bool same = true;
    uint16_t control[2][2];
    for (unsigned k = 0; k < 2; k++)
        memcpy(control[k], k ? g : e, 4);
    if (control[0][0] != control[1][0] || (control[0][1] ^ control[1][1]) & ~v->undefined_fsw || e[4] != g[4]) {
        g_string_append_printf(text, "    fcw fsw ftw: host %04x %04x %02x, engine %04x %04x %02x\n", control[0][0],
                               control[0][1], e[4], control[1][0], control[1][1], g[4]);
        same = false;
    }
    same &= compare_bytes(text, "mxcsr", 0, e + 24, g + 24, 4);
    for (unsigned k = 0; k < 8; k++) {
        const uint8_t *x = e + 32 + 16 * k, *y = g + 32 + 16 * k;
        if (!(v->approximate && close_enough(x, y)))
            same &= compare_bytes(text, "st", k, x, y, 10);
    }
    for (unsigned k = 0; k < (v->is_64 ? 16 : 8); k++) {
        same &= compare_bytes(text, "xmm", k, e + 160 + 16 * k, g + 160 + 16 * k, 16);
        same &= compare_bytes(text, "ymmh", k, e + 576 + 16 * k, g + 576 + 16 * k, 16);
    }
    return same;
}

static bool compare_avx512(const struct vector *v, const struct avx512_state *e, const struct avx512_state *g,
                           GString *text)
{
    bool same = true;
    for (unsigned k = 0; k < 8; k++)
        same &= compare_bytes(text, "k", k, (const uint8_t *)&e->opmask[k], (const uint8_t *)&g->opmask[k], 8);
    for (unsigned k = 0; k < 16; k++) {
        if (v->is_64 || k < 8)
            same &= compare_bytes(text, "zmmh", k, e->zmmh[k], g->zmmh[k], 32);
        same &= compare_bytes(text, "zmm", 16 + k, e->zmm16[k], g->zmm16[k], 64);
    }
    return same;
}

static bool compare_end(const struct vector *v, const struct outcome *e, const struct outcome *g, GString *text)
{
    uint32_t error_bits = ~0u;
    // Which of its bytes a masked store that lies over a page border names is the processor's own.
    uint64_t address_bits = v->form && v->form->evex_mask && (e->error_code & 2) ? ~0xfffull : ~0ull;
    if (e->exception == EXCEPTION_PF && e->cr2 >> 63)
        error_bits = ~1u; // the host's kernel says "present" of all its addresses, to tell nothing
    bool same = e->exception == g->exception &&
                (e->exception == OUTCOME_DONE || !((e->error_code ^ g->error_code) & error_bits)) &&
                (e->exception != EXCEPTION_PF || ((e->cr2 ^ g->cr2) & address_bits) == 0);
    if (!same)
        g_string_append_printf(text,
                               "    end: host exception %d error %x cr2 %" PRIx64
                               ", engine exception %d error %x cr2 %" PRIx64 " (-1: none)\n",
                               e->exception, e->error_code, e->cr2, g->exception, g->error_code, g->cr2);
    return same;
}

static bool compare_memory(const struct vector *v, const uint8_t *expected, uint8_t *got, GString *text)
{
    for (unsigned k = 0; k < G_N_ELEMENTS(v->ignore); k++)
        for (unsigned j = 0; j < v->ignore[k].size; j++) {
            uint64_t at = v->ignore[k].address + j - DATA_BASE;
            if (at < DATA_ALL)
                got[at] = expected[at];
        }
    if (memcmp(expected, got, DATA_ALL) == 0)
        return true;
    unsigned shown = 0;
    for (unsigned k = 0; k < DATA_ALL && shown < 24; k++)
        if (expected[k] != got[k] && shown++ < 24)
            g_string_append_printf(text, "    [%08x]: host %02x, engine %02x\n", (unsigned)DATA_BASE + k, expected[k],
                                   got[k]);
    memcpy(got, expected, DATA_ALL); // later vectors start equal
    return false;
}

bool compare_outcomes(const struct vector *v, const struct outcome *expected, const struct outcome *got,
                      const uint8_t *expected_data, uint8_t *got_data, GString *text)
{
    bool same = compare_end(v, expected, got, text);
    same &= compare_integer(v, &expected->state, &got->state, text);
    same &= compare_vectors(v, expected->state.xsave, got->state.xsave, text);
    if (with_avx512)
        same &= compare_avx512(v, &expected->state.avx512, &got->state.avx512, text);
    same &= compare_memory(v, expected_data, got_data, text);
    return same;
}

// ---- Description ----

static void describe_code(const struct vector *v, GString *text)
{
    ZydisFormatter formatter;
    char line[128];
    struct decoded d;
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    for (unsigned at = 0; at < v->length;) {
        if (!decode_bytes(v->is_64, v->bytes + at, v->length - at, &d))
            break;
        ZydisFormatterFormatInstruction(&formatter, &d.zydis, d.operands, d.zydis.operand_count_visible, line,
                                        sizeof(line), v->in.rip + at, NULL);
        g_string_append_printf(text, "  %08" PRIx64 "  ", v->in.rip + at);
        for (unsigned k = 0; k < d.zydis.length; k++)
            g_string_append_printf(text, "%02x", v->bytes[at + k]);
        g_string_append_printf(text, "  %s\n", line);
        at += d.zydis.length;
    }
}

void describe_vector(const struct vector *v, GString *text)
{
    g_string_append_printf(text, "%s\n", v->form ? v->form->key : "sequence");
    describe_code(v, text);
    g_string_append(text, "    in:");
    for (unsigned k = 0; k < (v->is_64 ? 16 : 8); k++)
        g_string_append_printf(text, " %s=%" PRIx64, gpr_names[k], v->in.gpr[k]);
    g_string_append_printf(text, " flags=%" PRIx64 "\n", v->in.rflags);
    uint16_t control[2];
    uint32_t mxcsr;
    memcpy(control, v->in.xsave, 4);
    memcpy(&mxcsr, v->in.xsave + 24, 4);
    g_string_append_printf(text, "    fcw=%04x fsw=%04x ftw=%02x mxcsr=%04x", control[0], control[1], v->in.xsave[4],
                           mxcsr);
    for (unsigned k = 0; k < 2; k++) {
        g_string_append_printf(text, " st%u=", k);
        hex(text, v->in.xsave + 32 + 16 * k, 10);
    }
    for (unsigned k = 0; k < 2; k++)
        if (v->window[k].size) {
            g_string_append_printf(text, " [%" PRIx64 "]=", v->window[k].address);
            hex(text, v->window[k].bytes, v->window[k].size < 32 ? v->window[k].size : 32);
            if (v->window[k].size >= 576) { // an XSAVE header
                g_string_append(text, " header=");
                hex(text, v->window[k].bytes + 512, 24);
                g_string_append(text, " xmm0=");
                hex(text, v->window[k].bytes + 160, 16);
                g_string_append(text, " register ");
                hex(text, v->in.xsave + 160, 16);
            }
        }
    g_string_append_c(text, '\n');
    struct decoded d;
    if (!decode_bytes(v->is_64, v->bytes, v->length, &d))
        return;
    for (unsigned k = 0; k < d.zydis.operand_count; k++) {
        const ZydisDecodedOperand *o = &d.operands[k];
        ZydisRegisterClass class =
            o->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(o->reg.value) : ZYDIS_REGCLASS_INVALID;
        if (class == ZYDIS_REGCLASS_MASK)
            g_string_append_printf(text, "    %s=%" PRIx64 "\n", ZydisRegisterGetString(o->reg.value),
                                   v->in.avx512.opmask[ZydisRegisterGetId(o->reg.value) & 7]);
        if (class != ZYDIS_REGCLASS_XMM && class != ZYDIS_REGCLASS_YMM && class != ZYDIS_REGCLASS_ZMM)
            continue;
        struct state in = v->in;
        unsigned n = (unsigned)ZydisRegisterGetId(o->reg.value);
        g_string_append_printf(text, "    %s=", ZydisRegisterGetString(o->reg.value));
        for (unsigned piece = class == ZYDIS_REGCLASS_XMM ? 1 : class == ZYDIS_REGCLASS_YMM ? 2 : 4; piece-- > 0;) {
            hex(text, state_vector(&in, n, piece), 16);
            g_string_append(text, piece ? "_" : "");
        }
        g_string_append_c(text, '\n');
    }
}
