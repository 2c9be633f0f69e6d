// SPDX-License-Identifier: GPL-2.0-or-later
// Are two processors in the same state?
#include "tests/cosim/cosim.h"

#define WORD(name, member)                                                                                             \
    {                                                                                                                  \
        name, offsetof(struct vcpu, member), sizeof(((struct vcpu *)0)->member)                                        \
    }
static const struct {
    const char *name;
    size_t offset, size;
} members[] = {
    WORD("rip", rip),
    WORD("cr0", cr0),
    WORD("cr2", cr2),
    WORD("cr3", cr3),
    WORD("cr4", cr4),
    WORD("efer", efer),
    WORD("xcr0", xcr0),
    WORD("gdtr", gdtr),
    WORD("idtr", idtr),
    WORD("dr0-3", dr),
    WORD("dr6", dr6),
    WORD("dr7", dr7),
    WORD("cpl", cpl),
    WORD("star", star),
    WORD("lstar", lstar),
    WORD("kernel_gs_base", kernel_gs_base),
    WORD("tsc_offset", tsc_offset),
    WORD("tsc_aux", tsc_aux),
    WORD("sysenter_eip", sysenter_eip),
    WORD("pat", pat),
    WORD("apic_base", apic_base),
    WORD("interrupt shadow", interrupt_shadow),
    WORD("nmi blocked", nmi_blocked),
};

static bool same(const char *name, const void *a, const void *b, size_t size, GString *text)
{
    if (memcmp(a, b, size) == 0)
        return true;
    if (text) {
        g_string_append_printf(text, "  %s: translator", name);
        for (size_t n = MIN(size, 16); n-- > 0;)
            g_string_append_printf(text, "%s%02x", n == MIN(size, 16) - 1 ? " " : "", ((const uint8_t *)a)[n]);
        g_string_append(text, ", interpreter");
        for (size_t n = MIN(size, 16); n-- > 0;)
            g_string_append_printf(text, "%s%02x", n == MIN(size, 16) - 1 ? " " : "", ((const uint8_t *)b)[n]);
        g_string_append_c(text, '\n');
    }
    return false;
}

static bool segments_equal(const struct vcpu *a, const struct vcpu *b, GString *text)
{
    static const char *const names[] = {"es", "cs", "ss", "ds", "fs", "gs"};
    bool ok = true;
    for (unsigned n = 0; n < SEGMENT_COUNT; n++) {
        ok &= same(names[n], &a->seg[n].selector, &b->seg[n].selector, 2, text);
        ok &= same("segment base", &a->seg[n].base, &b->seg[n].base, 8, text);
        ok &= same("segment limit", &a->seg[n].limit, &b->seg[n].limit, 4, text);
        uint16_t x = a->seg[n].attr & 0xf0ff, y = b->seg[n].attr & 0xf0ff; // without the limit's bits
        ok &= same("segment attributes", &x, &y, 2, text);
    }
    return ok;
}

static bool vectors_equal(const struct vcpu *a, const struct vcpu *b, GString *text)
{
    bool ok = same("fcw", &a->xsave.fcw, &b->xsave.fcw, 2, text) & same("fsw", &a->xsave.fsw, &b->xsave.fsw, 2, text) &
              same("ftw", &a->xsave.ftw, &b->xsave.ftw, 1, text) &
              same("mxcsr", &a->xsave.mxcsr, &b->xsave.mxcsr, 4, text);
    for (unsigned n = 0; n < 8; n++)
        ok &= same("st", a->xsave.st[n].bytes, b->xsave.st[n].bytes, 10, text);
    ok &= same("xmm", a->xsave.xmm, b->xsave.xmm, sizeof a->xsave.xmm, NULL);
    ok &= same("ymmh", a->xsave.ymmh, b->xsave.ymmh, sizeof a->xsave.ymmh, NULL);
    for (unsigned n = 0; n < 16 && text; n++) {
        same("xmm", a->xsave.xmm[n].bytes, b->xsave.xmm[n].bytes, 16, text);
        same("ymmh", a->xsave.ymmh[n].bytes, b->xsave.ymmh[n].bytes, 16, text);
    }
    return ok;
}

bool states_equal(const struct vcpu *a, const struct vcpu *b, uint64_t undefined, GString *text)
{
    static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    bool ok = memcmp(a->gpr, b->gpr, sizeof a->gpr) == 0 && a->rip == b->rip;
    if (!ok && !text)
        return false;
    for (unsigned n = 0; n < 16; n++)
        ok &= same(names[n], &a->gpr[n], &b->gpr[n], 8, text);
    for (unsigned n = 0; n < G_N_ELEMENTS(members); n++)
        ok &= same(members[n].name, (const char *)a + members[n].offset, (const char *)b + members[n].offset,
                   members[n].size, text);
    uint64_t flags = (a->rflags ^ b->rflags) & ~undefined;
    if (flags) {
        ok = false;
        if (text)
            g_string_append_printf(text, "  rflags: translator %lx, interpreter %lx, undefined here %lx\n",
                                   (unsigned long)a->rflags, (unsigned long)b->rflags, (unsigned long)undefined);
    }
    ok &= segments_equal(a, b, text);
    return ok & vectors_equal(a, b, text);
}

uint64_t undefined_after(struct vcpu *v, const uint64_t *rips, unsigned count)
{
    ZydisDecoder decoder;
    bool is64 = vcpu_code64(v), is32 = v->seg[CS].attr & SEG_DB;
    ZydisDecoderInit(&decoder,
                     is64   ? ZYDIS_MACHINE_MODE_LONG_64
                     : is32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                            : ZYDIS_MACHINE_MODE_LEGACY_16,
                     is64   ? ZYDIS_STACK_WIDTH_64
                     : is32 ? ZYDIS_STACK_WIDTH_32
                            : ZYDIS_STACK_WIDTH_16);
    uint64_t undefined = 0;
    for (unsigned n = 0; n < count; n++) {
        uint8_t bytes[16];
        unsigned got = 0;
        for (uint64_t gpa; got < 15; got++) {
            if (!page_peek(v, rips[n] + v->seg[CS].base + got, &gpa))
                break;
            address_space_read(v->set->host.memory, gpa, bytes + got, 1);
        }
        ZydisDecodedInstruction i;
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, bytes, got, &i)) || !i.cpu_flags)
            continue;
        undefined &= ~(uint64_t)(i.cpu_flags->modified | i.cpu_flags->set_0 | i.cpu_flags->set_1);
        undefined |= i.cpu_flags->undefined;
        if (i.meta.category == ZYDIS_CATEGORY_SHIFT || i.meta.category == ZYDIS_CATEGORY_ROTATE)
            undefined |= FLAG_OF | FLAG_AF; // by the count
    }
    return undefined & FLAGS_STATUS;
}
