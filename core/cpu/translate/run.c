// SPDX-License-Identifier: GPL-2.0-or-later
// The engine: from struct vcpu into translated code and back.
#include <string.h>

#include "core/cpu/interpret/interpret.h"
#include "core/cpu/thread.h"
#include "core/cpu/translate/translate.h"

// ---- State ----------------------------------------------------------------------------------------------------------

// Upper halves that are zero are loaded as unused: with used ones, Intel's processors run SSE instructions at a
// fraction of their speed. (Intel Optimization Manual, "Mixing AVX code with SSE code")
static bool upper_halves_used(const struct vcpu *v)
{
    uint64_t words[sizeof v->xsave.ymmh / 8], any = 0;
    memcpy(words, v->xsave.ymmh, sizeof words);
    for (unsigned n = 0; n < G_N_ELEMENTS(words); n++)
        any |= words[n];
    return any != 0;
}

void vector_prepare(struct context *c)
{
    struct vcpu *v = c->vcpu;
    uint64_t mask = (v->xcr0 & ~(uint64_t)XCR0_AVX512) | XCR0_X87 | XCR0_SSE;
    c->vector_mask[0] = (uint32_t)mask;
    c->vector_mask[1] = (uint32_t)(mask >> 32);
    c->avx512_mask = v->xcr0 & XCR0_AVX512;
    v->xsave.xstate_bv = upper_halves_used(v) ? mask : mask & ~(uint64_t)XCR0_AVX;
    v->xsave.xcomp_bv = 0;
    v->xsave.mxcsr &= 0xffff;
    v->avx512.xstate_bv &= XCR0_AVX512;
    v->avx512.xcomp_bv = AVX512_COMPACTED;
}

void context_load(struct context *c)
{
    struct vcpu *v = c->vcpu;
    memcpy(c->high, &v->gpr[13], sizeof c->high);
    c->fs_base = v->seg[FS].base;
    c->gs_base = v->seg[GS].base;
    c->saved_flags = (uint32_t)((v->rflags & 0xd7) << 8 | (v->rflags >> 11 & 1));
    c->other_flags = (uint32_t)(v->rflags & ~(uint64_t)(FLAGS_STATUS | FLAG_DF | FLAG_IF | FLAG_RF));
    c->interrupt_flag = v->rflags & FLAG_IF;
    c->direction = v->rflags & FLAG_DF;
    vector_prepare(c);
}

void context_store(struct context *c)
{
    struct vcpu *v = c->vcpu;
    memcpy(&v->gpr[13], c->high, sizeof c->high);
    v->rflags = c->other_flags | c->interrupt_flag | c->direction | (c->host_flags & FLAGS_STATUS) | FLAG_1;
}

// ---- Where code is --------------------------------------------------------------------------------------------------

// Translates the page of ADDRESS for execution. False: it faults, or is not RAM.
bool fetch_page(struct context *c, uint64_t address, uint32_t mode, uint64_t *ram_page)
{
    struct vcpu *v = c->vcpu;
    uint64_t page = address & PAGE_MASK;
    unsigned slot = fetch_slot(c->translator, page, mode);
    if (c->fetch_info[slot].page == page && c->fetch_info[slot].mode == mode) {
        *ram_page = c->fetch_info[slot].ram_page;
        return true;
    }
    struct trail trail;
    unsigned kind = mode & MODE_USER ? FAST_USER : FAST_KERNEL;
    bool known = short_walk(c, page, kind, ACCESS_FETCH, &trail);
    if (!known) {
        struct page_walk walk;
        uint32_t error;
        uint64_t cr2 = v->cr2;
        if (((mode & MODE_64) && !vcpu_canonical(address)) ||
            !page_walk(v, address, ACCESS_FETCH | (mode & MODE_USER ? ACCESS_USER : 0), &walk, &error)) {
            v->cr2 = cr2;
            return false;
        }
        for (unsigned n = 0; n < walk.levels; n++)
            near_mapping_get(c, walk.table[n]);
        known = short_walk(c, page, kind, ACCESS_FETCH, &trail); // now that Accessed is set
        if (!known) {
            trail.gpa = walk.gpa & PAGE_MASK;
            trail.global = false;
            large_note(c, page, (unsigned)__builtin_ctzll(walk.page_size), false);
        }
    }
    const struct near_mapping *m = near_mapping_get(c, trail.gpa);
    if (!m || trail.gpa + PAGE_SIZE > m->start + m->size)
        return false;
    *ram_page = m->ram_offset + (trail.gpa - m->start);
    struct translator *t = c->translator;
    g_mutex_lock(&t->lock);
    uint32_t id = code_page_id(t, page, mode, *ram_page);
    g_mutex_unlock(&t->lock);
    fetch_set(c, slot, page, mode, id, *ram_page, trail.global);
    if (known)
        large_note(c, page, trail.shift, trail.global);
    if (known && trail.shift && !trail.global)
        space_note_fetch(c, slot, &trail);
    return true;
}

// Code is read from the page only after writes to it are seen.
static void track_code(struct context *c, uint64_t ram_page)
{
    struct ram *ram = c->vcpu->set->host.ram;
    if (!code_watched(ram, ram_page))
        ram_track(ram, ram_page, TRACK_CODE); // waits for other vCPUs: not under the translator's lock
}

static bool pages_rewritten(struct translator *t, uint64_t ram_page, uint64_t second)
{
    return page_rewritten(t, ram_page) || (second != NO_PAGE && page_rewritten(t, second));
}

// NULL: try again.
static struct block *block_make(struct context *c, uint64_t address, uint32_t mode, uint64_t ram_page, uint64_t second)
{
    struct translator *t = c->translator;
    struct ram *ram = c->vcpu->set->host.ram;
    g_mutex_lock(&t->lock);
    bool checks = pages_rewritten(t, ram_page, second);
    if (!checks && (!code_watched(ram, ram_page) ||
                    (second != NO_PAGE && !code_watched(ram, second)))) { // lost since track_code()
        g_mutex_unlock(&t->lock);
        return NULL;
    }
    struct block *b = block_find(t, address, mode, ram_page);
    if (b && b->second_page != second) {
        block_kill(t, b); // its next page is another one here
        b = NULL;
    }
    if (!b)
        b = block_translate(c, address, mode, ram_page, second, checks);
    g_mutex_unlock(&t->lock);
    if (!b) {
        c->counters.cache_flushes++;
        translator_renew(t);
    }
    return b;
}

struct block *block_at_hand(struct context *c, uint64_t address, uint32_t mode, uint64_t ram_page,
                            const struct link_site *site)
{
    struct translator *t = c->translator;
    struct block *b = NULL;
    g_mutex_lock(&t->lock);
    if (t->generation == atomic_load(&c->inside)) { // else what is translated now is not for us, nor SITE for it
        b = block_find(t, address, mode, ram_page);
        if (!b && (ram_tracked(t->set->host.ram, ram_page) & TRACK_CODE) && !page_rewritten(t, ram_page))
            b = block_relocate(c, address, mode, ram_page);
    }
    if (b && site) {
        link_make(t, site, b);
        c->counters.links++;
    }
    g_mutex_unlock(&t->lock);
    return b;
}

// The block of ADDRESS, translated if need be. NULL: interpret.
static struct block *block_get(struct context *c, uint64_t address, uint32_t mode)
{
    struct translator *t = c->translator;
    for (;;) {
        uint64_t ram_page, second = NO_PAGE;
        if (!fetch_page(c, address, mode & ~(uint32_t)MODE_NOSHARE, &ram_page))
            return NULL;
        struct block *b = block_find(t, address, mode, ram_page);
        if (b && b->second_page == NO_PAGE)
            return b;
        bool spans = insn_spans_pages(t, address, mode, ram_page);
        if (spans && !fetch_page(c, (address | ~PAGE_MASK) + 1, mode & ~(uint32_t)MODE_NOSHARE, &second))
            return NULL;
        g_mutex_lock(&t->lock);
        bool checks = pages_rewritten(t, ram_page, second);
        g_mutex_unlock(&t->lock);
        if (!checks) {
            track_code(c, ram_page);
            if (spans)
                track_code(c, second);
            else if (insn_spans_pages(t, address, mode, ram_page))
                continue; // it was written meanwhile
        }
        b = block_make(c, address, mode, ram_page, second);
        if (b)
            return b;
    }
}

// ---- The loop
// ---------------------------------------------------------------------------------------------------------

typedef void enter_fn(struct context *c, const void *host);

// Runs from BLOCK, which was found in this GENERATION of the code cache or later, until something needs C. For
// EXIT_LINK *SITE tells where from.
static void enter(struct context *c, struct block *block, uint64_t generation, struct link_site *site)
{
    context_load(c);
    c->exit_reason = EXIT_LOOKUP;
    c->counters.enters++;
    atomic_store_explicit(&c->inside, generation, memory_order_relaxed);
    ((enter_fn *)(uintptr_t)c->translator->thunks.enter)(c, block->host);
    if (c->exit_reason == EXIT_LINK)
        memcpy(site, (const void *)(uintptr_t)c->link_site, sizeof *site);
    atomic_store(&c->inside, 0);
    atomic_store(&c->kicked, 0);
    if (G_UNLIKELY(c->translator->renewal.passed))
        renewal_finish(c->translator);
    if (c->exit_reason != EXIT_ABORTED)
        context_store(c);
}

// A direct link that was not made yet: RIP is its target.
static void make_link(struct context *c, uint32_t mode, const struct link_site *site, uint64_t generation)
{
    struct translator *t = c->translator;
    if (site->noshare)
        mode |= MODE_NOSHARE;
    struct block *b = mode & MODE_UNSUPPORTED ? NULL : block_get(c, c->vcpu->rip, mode);
    if (!b)
        return;
    g_mutex_lock(&t->lock);
    if (t->generation == generation && !b->dead) {
        link_make(t, site, b);
        c->counters.links++;
    }
    g_mutex_unlock(&t->lock);
}

// A block's bytes are not those that it was translated from.
static void forget_stale(struct context *c, uint64_t generation)
{
    struct translator *t = c->translator;
    g_mutex_lock(&t->lock);
    if (t->generation == generation)
        block_stale(t, c->stale);
    g_mutex_unlock(&t->lock);
    c->counters.stale_blocks++;
}

// Without links: a way out to a translation without shared checks is remembered for the next entry.
static void note_link(struct context *c, const struct link_site *site)
{
    if (site->noshare)
        c->noshare_at = c->vcpu->rip;
}

static bool deliver_interrupts(struct vcpu *v, uint32_t bits)
{
    if ((bits & ATTENTION_NMI) && !v->nmi_blocked && !v->interrupt_shadow) {
        atomic_fetch_and(&v->attention, ~(uint32_t)ATTENTION_NMI);
        return vcpu_deliver(v, EVENT_NMI, EXCEPTION_NMI, -1);
    }
    if ((bits & ATTENTION_INTERRUPT) && (v->rflags & FLAG_IF) && !v->interrupt_shadow) {
        atomic_fetch_and(&v->attention, ~(uint32_t)ATTENTION_INTERRUPT);
        int vector = vcpu_take_interrupt(v);
        if (vector >= 0)
            return vcpu_deliver(v, EVENT_EXTERNAL, (unsigned)vector, -1);
    }
    return true;
}

#define NOT_CANONICAL   0x8000000000000000ull
#define INTERPRET_SLICE 64 // instructions in a mode that is not translated

// Counts by mnemonic what goes to the interpreter.
static void note_handed(struct context *c, uint64_t rip, uint32_t mode)
{
    struct translator *t = c->translator;
    struct guest_insn i;
    uint64_t ram_page;
    unsigned in_page = rip & ~PAGE_MASK;
    c->retired -= c->exit_reason == EXIT_INTERPRET;
    if (!fetch_page(c, rip, mode, &ram_page))
        return;
    const uint8_t *bytes = t->set->host.ram->host + ram_page + in_page;
    if (decode_fields(&i, bytes, (unsigned)(PAGE_SIZE - in_page), mode & MODE_64 ? 64 : 32) != DECODE_OK)
        return;
    g_mutex_lock(&t->lock);
    t->handed[fact_find(t->facts, &i, bytes)->mnemonic]++;
    g_mutex_unlock(&t->lock);
}

// One stretch of guest code: from C into translated code and back, or a piece by the interpreter.
static enum engine_exit run_once(struct vcpu *v, struct context *c)
{
    uint32_t mode = mode_of(v), again = c->noshare_at == v->rip ? MODE_NOSHARE : 0;
    bool single = c->translator->single;
    c->noshare_at = NOT_CANONICAL;
    if (!(mode & MODE_UNSUPPORTED)) {
        uint64_t rip = mode & MODE_64 ? v->rip : (uint32_t)v->rip;
        mode_set(c, mode);
        uint64_t generation = c->translator->generation;
        struct block *b = block_get(c, rip, mode | again);
        if (b) {
            struct link_site site;
            enter(c, b, generation, &site);
            if (c->exit_reason == EXIT_STALE)
                forget_stale(c, generation);
            else if (c->exit_reason == EXIT_LINK && single)
                note_link(c, &site);
            else if (c->exit_reason == EXIT_LINK)
                make_link(c, mode_of(v), &site, generation);
            if (c->exit_reason != EXIT_INTERPRET)
                return ENGINE_EXIT_ATTENTION;
        }
        c->counters.interpreted++;
        if (G_UNLIKELY(c->translator->counting))
            note_handed(c, mode & MODE_64 ? v->rip : (uint32_t)v->rip, mode);
        return interpret_run(v, 1);
    }
    uint64_t before = v->instructions;
    c->counters.interpreted_mode++;
    enum engine_exit exit = interpret_run(v, v->interrupt_shadow || single ? 1 : INTERPRET_SLICE);
    c->counters.mode_instructions += v->instructions - before;
    return exit;
}

enum engine_exit translate_step(struct vcpu *v)
{
    struct context *c = v->engine_state;
    signals_prepare_thread(c);
    atomic_store(&c->kicked, 0);
    return run_once(v, c);
}

static enum engine_exit translate_run(struct vcpu *v)
{
    struct context *c = v->engine_state;
    signals_prepare_thread(c);
    atomic_store(&c->kicked, 0);
    for (unsigned rounds = 0;; rounds++) {
        uint32_t bits = atomic_load(&v->attention);
        if (c->translator->rewritten && rounds % 64 == 0)
            rewritten_rest(c->translator);
        if (rounds % 64 == 0)
            renewal_rest(c);
        if (bits & ATTENTION_FLUSH)
            vcpu_run_queued(v);
        if (bits & (ATTENTION_STOP | ATTENTION_INIT | ATTENTION_SIPI | ATTENTION_RESET))
            return ENGINE_EXIT_ATTENTION;
        if (G_UNLIKELY(bits & (ATTENTION_INTERRUPT | ATTENTION_NMI)) && !deliver_interrupts(v, bits))
            return ENGINE_EXIT_SHUTDOWN;
        enum engine_exit exit = run_once(v, c);
        if (exit != ENGINE_EXIT_ATTENTION)
            return exit;
    }
}

// ---- The engine
// -------------------------------------------------------------------------------------------------------

static bool translate_probe(GError **error)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("sse2")) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "The translator needs an x86-64 processor.");
        return false;
    }
    return true;
}

// Our side of clock_now() is vector-free; is the host's clock_gettime(), too? Seen by trying.
static __attribute__((noinline)) bool clock_is_plain(struct clock *clock)
{
    uint8_t before[8][16], after[8][16];
    memset(before, 0xa5, sizeof before);
    __asm__ volatile("movdqu (%0), %%xmm0; movdqu 16(%0), %%xmm1; movdqu 32(%0), %%xmm2; movdqu 48(%0), %%xmm3\n"
                     "movdqu 64(%0), %%xmm4; movdqu 80(%0), %%xmm5; movdqu 96(%0), %%xmm6; movdqu 112(%0), %%xmm7"
                     :
                     : "r"(before)
                     : "memory");
    for (unsigned n = 0; n < 1000; n++) // also across its updates
        clock_now(clock);
    __asm__ volatile("movdqu %%xmm0, (%0); movdqu %%xmm1, 16(%0); movdqu %%xmm2, 32(%0); movdqu %%xmm3, 48(%0)\n"
                     "movdqu %%xmm4, 64(%0); movdqu %%xmm5, 80(%0); movdqu %%xmm6, 96(%0); movdqu %%xmm7, 112(%0)"
                     :
                     : "r"(after)
                     : "memory");
    return memcmp(before, after, sizeof before) == 0;
}

static bool translate_set_init(struct cpu_set *set, GError **error)
{
    if (!signals_install(error) || !interpret_set_init(set, error))
        return false;
    struct translator *t = g_new0(struct translator, 1);
    set->engine_state = t;
    t->plain_clock = set->host.clock && clock_is_plain(set->host.clock);
    // The arena holds a context for every processor that the set may have.
    unsigned count = set->count;
    set->count = VCPU_MAX;
    bool ok = translator_init(t, set, error);
    set->count = count;
    if (!ok) {
        translator_clear(t);
        g_free(t);
        set->engine_state = NULL;
        return false;
    }
    return true;
}

static void translate_set_free(struct cpu_set *set)
{
    struct translator *t = set->engine_state;
    if (!t)
        return;
    interpret_set_free(set);
    translator_clear(t);
    g_free(t);
    set->engine_state = NULL;
}

static bool translate_vcpu_init(struct vcpu *v, GError **error)
{
    struct translator *t = v->set->engine_state;
    struct context *c = (struct context *)(t->arena + CONTEXT_SIZE * v->index);
    c->self = c;
    c->vcpu = v;
    c->translator = t;
    c->host_mxcsr = 0x1f80;
    spaces_init(c);
    v->engine_state = c;
    tlb_flush(c);
    if (!t->tracking) { // behind the interpreter's own
        t->tracking = true;
        const struct ram_tracker *old = &v->set->host.ram->trackers[__builtin_ctz(TRACK_CODE)];
        t->next_tracker = old->fn;
        t->next_tracker_opaque = old->opaque;
        ram_set_tracker(v->set->host.ram, TRACK_CODE, translator_written, t);
    }
    return true;
}

static void translate_vcpu_free(struct vcpu *v)
{
    if (v->index == 0 && v->engine_state) {
        g_autofree char *text = translate_describe(v->set);
        log_info("translate", "%s", text);
        const char *where = g_getenv("CLOCHE_TRANSLATE_DUMP"); // host addresses, from a profile
        g_auto(GStrv) addresses = where ? g_strsplit(where, ",", -1) : NULL;
        for (unsigned n = 0; addresses && addresses[n]; n++) {
            g_autofree char *dump =
                translate_dump_block(v->set->engine_state, g_ascii_strtoull(addresses[n], NULL, 16));
            log_info("translate", "%s", dump ? dump : "no block there");
        }
    }
    if (v->engine_state)
        spaces_free(v->engine_state);
    v->engine_state = NULL;
}

static void translate_kick(struct vcpu *v)
{
    context_kick(v->engine_state);
}

static void translate_flush_tlb(struct vcpu *v)
{
    tlb_flush(v->engine_state);
}

static void translate_flush_page(struct vcpu *v, uint64_t linear)
{
    tlb_flush_page(v->engine_state, linear);
}

static void translate_switch_space(struct vcpu *v, bool keep)
{
    (void)keep; // see shadow.c
    space_switch(v->engine_state);
}

static void translate_revoke_page(struct vcpu *v, uint64_t ram_offset)
{
    tlb_revoke(v->engine_state, ram_offset);
}

const struct engine engine_translate = {
    .name = "translate",
    .native = true,
    .run_native = translate_native,
    .probe = translate_probe,
    .set_init = translate_set_init,
    .set_free = translate_set_free,
    .vcpu_init = translate_vcpu_init,
    .vcpu_free = translate_vcpu_free,
    .run = translate_run,
    .kick = translate_kick,
    .flush_tlb = translate_flush_tlb,
    .flush_page = translate_flush_page,
    .switch_space = translate_switch_space,
    .revoke_page = translate_revoke_page,
    .mapped_twice = translate_mapped_twice,
    .describe = translate_describe,
};
