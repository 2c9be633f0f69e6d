// SPDX-License-Identifier: GPL-2.0-or-later
// The interpreter's loop: attention, lookup, dispatch, delivery of faults. And the engine structure.
#include "core/cpu/interpret/cache.h"
#include "core/cpu/interpret/flags.h"
#include "core/cpu/thread.h"

#define BLOCKS_MAX 200000 // then the cache is emptied

// ---- Mode
// -------------------------------------------------------------------------------------------------------------

static bool flat_segment(const struct segment *s)
{
    return s->base == 0 && s->limit == 0xffffffff && !s->unusable;
}

static bool flat_data(const struct segment *s)
{
    return flat_segment(s) && (s->attr & SEG_P) && !(s->attr & 8) && (s->attr & 6) == 2; // data, up, writable
}

uint32_t mode_key(const struct vcpu *v)
{
    uint32_t key = 0;
    bool code64 = vcpu_code64(v);
    if (v->cpl == 3)
        key |= KEY_USER;
    if (v->cr0 & CR0_TS)
        key |= KEY_TS;
    if (v->cr0 & CR0_EM)
        key |= KEY_EM;
    if (v->cr0 & CR0_MP)
        key |= KEY_MP;
    if (v->cr4 & CR4_OSFXSR)
        key |= KEY_OSFXSR;
    if (v->cr4 & CR4_OSXSAVE) {
        key |= KEY_OSXSAVE;
        if ((v->xcr0 & (XCR0_SSE | XCR0_AVX)) == (XCR0_SSE | XCR0_AVX))
            key |= KEY_AVX | ((v->xcr0 & XCR0_AVX512) == XCR0_AVX512 ? KEY_AVX512 : 0);
    }
    if (v->efer & EFER_LMA)
        key |= KEY_LONG;
    if (code64)
        return key | 2;
    if (!vcpu_protected(v))
        key |= KEY_REAL;
    if (v->seg[CS].attr & SEG_DB)
        key |= 1;
    if (v->seg[SS].attr & SEG_DB)
        key |= KEY_STACK32;
    if (!flat_segment(&v->seg[CS]))
        key |= KEY_LIMITED;
    if (flat_segment(&v->seg[CS]) && flat_data(&v->seg[DS]) && flat_data(&v->seg[ES]) && flat_data(&v->seg[SS]))
        key |= KEY_FLAT;
    return key;
}

static void update_mode(struct vcpu *v, bool stepping)
{
    struct interpreter *n = v->interpreter;
    uint32_t key = mode_key(v) | (stepping ? KEY_SINGLE : 0);
    if (key != n->key) {
        n->key = key;
        n->stamp = n->generation << 16 | key;
    }
    tlb_select(n);
}

// ---- Handlers of the dispatch itself
// ----------------------------------------------------------------------------------

const struct insn *insn_fault(struct vcpu *v, unsigned vector, int64_t error_code)
{
    vcpu_fault(v, vector, error_code);
    return NULL;
}

const struct insn *insn_undefined(struct vcpu *v, const struct insn *i)
{
    return insn_fault(v, EXCEPTION_UD, -1);
}

const struct insn *insn_too_long(struct vcpu *v, const struct insn *i)
{
    return insn_fault(v, EXCEPTION_GP, 0);
}

const struct insn *insn_no_math(struct vcpu *v, const struct insn *i)
{
    return insn_fault(v, EXCEPTION_NM, -1);
}

// The bytes have changed: look this address up again.
const struct insn *insn_stale(struct vcpu *v, const struct insn *i)
{
    v->instructions += i->position;
    v->rip += i->offset;
    return NULL;
}

insn_handler *insn_make_sensitive(struct insn *i, insn_handler *handler)
{
    i->sensitive = handler;
    return insn_sensitive;
}

const struct insn *insn_sensitive(struct vcpu *v, const struct insn *i)
{
    v->instructions += i->position + 1u;
    v->rip += i->offset;
    flags_out(v);
    i->sensitive(v, i);
    flags_in(v);
    if (v->event_pending)
        v->rip -= i->offset; // the loop adds it again
    return NULL;
}

const struct insn *insn_block_end(struct vcpu *v, const struct insn *i)
{
    v->instructions--; // the terminator is no instruction
    return flow_to(v, i, v->rip + i->offset, 0);
}

const struct insn *flow_slow(struct vcpu *v, const struct insn *i, int link)
{
    struct interpreter *n = v->interpreter;
    if (link >= 0) {
        n->link_from = (struct insn *)i;
        n->link_index = (unsigned)link;
    }
    return NULL;
}

// ---- Attention
// --------------------------------------------------------------------------------------------------------

static void deliver_event(struct vcpu *v, enum event_type type, unsigned vector)
{
    struct interpreter *n = v->interpreter;
    flags_out(v);
    if (!vcpu_deliver(v, type, vector, -1))
        n->exit = 1 + ENGINE_EXIT_SHUTDOWN;
    flags_in(v);
}

static void serve_interrupts(struct vcpu *v, uint32_t bits)
{
    struct interpreter *n = v->interpreter;
    if (v->interrupt_shadow)
        return; // after the next instruction
    if (bits & ATTENTION_NMI) {
        atomic_fetch_and(&v->attention, ~(uint32_t)ATTENTION_NMI);
        if (v->nmi_blocked) {
            n->nmi_waiting = true;
        } else {
            deliver_event(v, EVENT_NMI, EXCEPTION_NMI);
            return;
        }
    }
    if (bits & ATTENTION_INTERRUPT) {
        atomic_fetch_and(&v->attention, ~(uint32_t)ATTENTION_INTERRUPT);
        if (!(v->rflags & FLAG_IF)) {
            n->interrupt_waiting = true;
            return;
        }
        int vector = vcpu_take_interrupt(v);
        if (vector >= 0)
            deliver_event(v, EVENT_EXTERNAL, (unsigned)vector);
    }
}

// Between two blocks. Sets n->exit when run() must return.
static void serve_attention(struct vcpu *v)
{
    struct interpreter *n = v->interpreter;
    uint32_t bits = atomic_load(&v->attention);
    if (bits & ATTENTION_FLUSH)
        vcpu_run_queued(v);
    if (atomic_load(&n->queue_filled))
        cache_drain_queue(n);
    if (bits & (ATTENTION_STOP | ATTENTION_INIT | ATTENTION_SIPI | ATTENTION_RESET)) {
        n->exit = 1 + ENGINE_EXIT_ATTENTION;
        return;
    }
    atomic_fetch_and(&v->attention, ~(uint32_t)ATTENTION_SMI); // the board has no SMM
    if (bits & (ATTENTION_NMI | ATTENTION_INTERRUPT))
        serve_interrupts(v, bits);
}

// What could not be delivered asks again when it can be.
static void recall_waiting(struct vcpu *v)
{
    struct interpreter *n = v->interpreter;
    if (n->interrupt_waiting && (v->rflags & FLAG_IF)) {
        n->interrupt_waiting = false;
        atomic_fetch_or(&v->attention, ATTENTION_INTERRUPT);
    }
    if (n->nmi_waiting && !v->nmi_blocked) {
        n->nmi_waiting = false;
        atomic_fetch_or(&v->attention, ATTENTION_NMI);
    }
}

static void keep_waiting(struct vcpu *v) // on leaving run()
{
    struct interpreter *n = v->interpreter;
    uint32_t bits = (n->interrupt_waiting ? ATTENTION_INTERRUPT : 0) | (n->nmi_waiting ? ATTENTION_NMI : 0);
    n->interrupt_waiting = n->nmi_waiting = false;
    atomic_fetch_and(&v->attention, ~(uint32_t)ATTENTION_STEP);
    if (bits)
        atomic_fetch_or(&v->attention, bits);
}

// ---- Single steps and breakpoints (SDM vol. 3, 18.3)
// --------------------------------------------------------------------

static bool must_step(const struct vcpu *v)
{
    return v->interrupt_shadow || (v->rflags & (FLAG_TF | FLAG_RF)) || (v->dr7 & 0xff);
}

// Instruction breakpoint at RIP? Records #DB then.
static bool instruction_breakpoint(struct vcpu *v)
{
    if (!(v->dr7 & 0xff) || (v->rflags & FLAG_RF) || v->interrupt_shadow == 2)
        return false;
    uint64_t linear = vcpu_code64(v) ? v->rip : (uint32_t)(v->seg[CS].base + v->rip);
    unsigned hits = 0;
    for (unsigned k = 0; k < 4; k++)
        if ((v->dr7 >> 2 * k & 3) && !(v->dr7 >> (16 + 4 * k) & 3) && v->dr[k] == linear)
            hits |= 1u << k;
    if (!hits)
        return false;
    v->dr6 = (v->dr6 & ~15ull) | hits;
    v->rflags |= FLAG_RF; // in the pushed image: the handler returns to this instruction
    vcpu_fault(v, EXCEPTION_DB, -1);
    return true;
}

static void deliver_debug_trap(struct vcpu *v, unsigned bits)
{
    struct interpreter *n = v->interpreter;
    v->dr6 = (v->dr6 & ~15ull) | bits;
    flags_out(v);
    if (!vcpu_deliver(v, EVENT_EXCEPTION, EXCEPTION_DB, -1))
        n->exit = 1 + ENGINE_EXIT_SHUTDOWN;
    flags_in(v);
}

// ---- The loop
// -----------------------------------------------------------------------------------------------------------

static void deliver_fault(struct vcpu *v, const struct insn *i)
{
    struct interpreter *n = v->interpreter;
    if (i) {
        v->rip += i->offset;
        if (n->noncanonical && i->segment == SS && v->event_vector == EXCEPTION_GP)
            v->event_vector = EXCEPTION_SS;
    }
    n->noncanonical = false;
    flags_out(v);
    if (!vcpu_deliver_fault(v))
        n->exit = 1 + ENGINE_EXIT_SHUTDOWN;
    flags_in(v);
}

static void run_block(struct vcpu *v, const struct block *b)
{
    const struct insn *i = b->insns, *next;
    while ((next = i->run(v, i)))
        i = next;
    if (G_UNLIKELY(v->event_pending))
        deliver_fault(v, i);
}

// A direct branch within one page goes straight to its target from now on. The distance is compared too: the page may
// be mapped twice.
static void link_block(struct interpreter *n, struct block *b)
{
    struct insn *i = n->link_from;
    struct block *from = block_of(i);
    n->link_from = NULL;
    if (b->ram_offset == NO_PAGE || from->ram_offset == NO_PAGE || b->second_page != NO_PAGE ||
        from->second_page != NO_PAGE || (n->key & (KEY_LIMITED | KEY_SINGLE)) || from->key != n->key ||
        b->key != n->key)
        return;
    int64_t distance = i->offset + i->length + (n->link_index == 0 ? i->disp : 0);
    if ((b->ram_offset ^ from->ram_offset) >> PAGE_SHIFT == 0 && b->ram_offset - from->ram_offset == (uint64_t)distance)
        i->link[n->link_index] = b;
}

// Runs from one boundary to the next: at most one chain of blocks.
static void run_chain(struct vcpu *v)
{
    struct interpreter *n = v->interpreter;
    struct block *b = block_lookup(v);
    if (!b) {
        n->link_from = NULL;
        deliver_fault(v, NULL);
        return;
    }
    if (n->link_from)
        link_block(n, b);
    run_block(v, b);
}

// One instruction; ELEMENT: of a repeated string one element, as single steps and watchpoints have it anyway. Otherwise
// the flags of CMPS and SCAS stay those before the instruction until it ends: a fault may still put them back.
static void run_step(struct vcpu *v, bool element)
{
    struct interpreter *n = v->interpreter;
    bool trap = v->rflags & FLAG_TF;
    uint64_t exceptions = v->exceptions;
    n->link_from = NULL;
    n->debug_hits = 0;
    if (instruction_breakpoint(v)) {
        deliver_fault(v, NULL);
        return;
    }
    bool rf = v->rflags & FLAG_RF;
    if (element || must_step(v))
        atomic_fetch_or(&v->attention, ATTENTION_STEP);
    v->interrupt_shadow = 0;
    run_chain(v);
    atomic_fetch_and(&v->attention, ~(uint32_t)ATTENTION_STEP);
    if (rf && v->exceptions == exceptions && !n->keeps_rf)
        v->rflags &= ~(uint64_t)FLAG_RF;
    n->keeps_rf = false;
    n->link_from = NULL;
    if (v->exceptions == exceptions && v->interrupt_shadow != 2 && !n->exit) {
        if (trap || n->debug_hits)
            deliver_debug_trap(v, n->debug_hits | (trap ? 1u << 14 : 0));
    }
}

static enum engine_exit engine_run(struct vcpu *v)
{
    struct interpreter *n = v->interpreter;
    n->exit = 0;
    n->link_from = NULL;
    if (atomic_load(&n->queue_filled)) // written while parked
        cache_drain_queue(n);
    flags_in(v);
    while (!n->exit) {
        cache_bury(n);
        if (n->blocks > BLOCKS_MAX)
            cache_flush(n);
        recall_waiting(v);
        if (atomic_load_explicit(&v->attention, memory_order_relaxed)) {
            n->link_from = NULL;
            serve_attention(v);
            if (n->exit)
                break;
        }
        bool stepping = must_step(v);
        update_mode(v, stepping);
        if (G_UNLIKELY(stepping))
            run_step(v, false);
        else
            run_chain(v);
    }
    flags_out(v);
    keep_waiting(v);
    cache_bury(n);
    return (enum engine_exit)(n->exit - 1);
}

enum engine_exit interpret_run(struct vcpu *v, uint64_t limit)
{
    struct interpreter *n = v->interpreter;
    bool element = limit == INTERPRET_ELEMENT;
    if (element)
        limit = 1;
    n->exit = 0;
    flags_in(v);
    do {
        cache_bury(n);
        if (n->blocks > BLOCKS_MAX)
            cache_flush(n);
        recall_waiting(v);
        serve_attention(v); // also where the other engine has taken the attention bits: writes to code may be queued
        if (n->exit)
            break;
        bool stepping = limit == 1 || must_step(v);
        update_mode(v, stepping); // of one instruction, or of whole blocks where more are allowed
        if (stepping)
            run_step(v, element);
        else
            run_chain(v);
    } while (!n->exit && (!limit || --limit));
    flags_out(v);
    keep_waiting(v);
    cache_bury(n);
    return n->exit ? (enum engine_exit)(n->exit - 1) : ENGINE_EXIT_ATTENTION;
}

// ---- Attaching ------------------------------------------------------------------------------------------------------

bool interpret_attach(struct vcpu *v, GError **error)
{
    struct interpreter *n = g_new0(struct interpreter, 1);
    n->vcpu = v;
    n->page_count = v->set->host.ram->capacity >> PAGE_SHIFT;
    n->hash = g_new0(struct block *, 1u << HASH_BITS);
    n->pages = v->set->interpret ? g_malloc0_n(n->page_count, sizeof(struct page_blocks)) : NULL;
    g_mutex_init(&n->queue_lock);
    n->queue = g_array_new(false, false, sizeof(struct invalidation));
    v->interpreter = n;
    v->tlb_space = 1;
    n->generation = 1;
    decode_init(n);
    tlb_select(n);
    return true;
}

void interpret_detach(struct vcpu *v)
{
    struct interpreter *n = v->interpreter;
    if (!n)
        return;
    if (n->pages)
        cache_flush(n);
    cache_bury(n);
    g_free(n->hash);
    g_free(n->pages);
    g_array_free(n->queue, true);
    g_mutex_clear(&n->queue_lock);
    g_free(n);
    v->interpreter = NULL;
}

static char *describe(struct cpu_set *set)
{
    GString *s = g_string_new(NULL);
    for (unsigned i = 0; i < set->count; i++) {
        const struct vcpu *v = set->vcpu[i];
        g_string_append_printf(s,
                               "vcpu %u: instructions %" G_GUINT64_FORMAT ", blocks %" G_GUINT64_FORMAT
                               ", TLB misses %" G_GUINT64_FORMAT ", page walks %" G_GUINT64_FORMAT
                               ", exceptions %" G_GUINT64_FORMAT ", interrupts %" G_GUINT64_FORMAT
                               ", device accesses %" G_GUINT64_FORMAT "\n",
                               i, v->instructions, v->interpreter->blocks, v->tlb_misses, v->page_walks, v->exceptions,
                               v->interrupts, v->io_exits);
    }
    return g_string_free(s, false);
}

const struct engine engine_interpret = {
    .name = "interpret",
    .set_init = interpret_set_init,
    .set_free = interpret_set_free,
    .run = engine_run,
    .describe = describe,
};
