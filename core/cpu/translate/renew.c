// SPDX-License-Identifier: GPL-2.0-or-later
// A full code cache is begun anew.
//
// The cache has two halves. When one is full the other is used: all look-up tables are emptied first, then every vCPU
// passes its dispatcher (cpu_set_run_on_all), after which nobody enters the old half any more. A vCPU that waits for
// the machine lock within a device access counts as having passed, though it goes on in the old half for the rest of
// its instruction; so the half's memory is given back to the host only when context->inside says that nobody is there.
//
// How much of a half is used follows the guest: little, as most code of a system's start is never used again, until the
// same code is translated again and again in short order. (A compiler needs 100 MiB, an idle desktop 20.)
#include "core/cpu/translate/translate.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

#define LIMIT_FIRST (20 * MiB)
// Processor time, which a busy host does not stretch.
#define FULL_SOON  25000000ll    // per MiB: full again within this, the limit is doubled, if it was the same code
#define FULL_LATE  20000000000ll // not within this: halved
#define MET_BITS   20
#define MET_LATELY 8 // generations

static int64_t processor_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static size_t half_at(unsigned half)
{
    return THUNK_SIZE + half * HALF_SIZE;
}

static void half_start(struct translator *t, unsigned half)
{
    t->half = half;
    t->used = half_at(half);
    t->populated = t->used & PAGE_MASK;
    t->limit = t->used + MIN(HALF_SIZE, t->renewal.limit);
    t->block_first = t->block_count = half * (BLOCK_MAX / 2);
    t->block_limit = t->block_first + BLOCK_MAX / 2;
    t->renewal.blocks = t->renewal.again = 0;
    t->renewal.since = processor_time();
}

void renewal_init(struct translator *t)
{
    struct renewal *r = &t->renewal;
    const char *kib = g_getenv("CLOCHE_CODE_CACHE_KIB"); // for tests: a cache that is full soon
    r->limit_most = MAX(t->set->host.ram->capacity / 4, LIMIT_FIRST);
    if (kib)
        r->limit_most = MAX(g_ascii_strtoull(kib, NULL, 10), 256) * 1024;
    r->limit = MIN(LIMIT_FIRST, r->limit_most);
    r->met = g_new0(uint8_t, 1u << MET_BITS);
    r->generation = 1;
    half_start(t, 0);
}

// Was this code met lately? One byte per hash holds the last generation that met it.
void renewal_note(struct translator *t, const struct block *b)
{
    struct renewal *r = &t->renewal;
    uint64_t key = (b->ram_page | (b->address & ~PAGE_MASK)) * 0x9e3779b97f4a7c15ull;
    uint8_t *met = &r->met[key >> (64 - MET_BITS)];
    r->blocks++;
    r->again += *met && *met != r->generation && (uint8_t)(r->generation - *met) <= MET_LATELY;
    *met = r->generation;
}

static void limit_adapt(struct renewal *r)
{
    int64_t took = processor_time() - r->since;
    if (took < FULL_SOON * (int64_t)(r->limit / MiB) && r->again > r->blocks / 4 * 3)
        r->limit = MIN(r->limit * 2, r->limit_most);
    else if (took > FULL_LATE)
        r->limit = MAX(r->limit / 2, MIN(LIMIT_FIRST, r->limit_most));
    if (++r->generation == 0)
        r->generation = 1;
}

static void leave_half(struct vcpu *v, void *opaque)
{
    struct context *c = v->engine_state;
    fetch_flush(c);
    spaces_forget_code(c);
    atomic_store(&c->kicked, 1);
}

static bool somebody_inside(struct translator *t)
{
    for (unsigned n = 0; n < t->set->count; n++) {
        const struct context *c = t->set->vcpu[n]->engine_state;
        uint64_t inside = c ? atomic_load(&c->inside) : 0;
        if (inside && inside != t->generation)
            return true;
    }
    return false;
}

// Gives the old half back if nobody is in it any more.
void renewal_finish(struct translator *t)
{
    struct renewal *r = &t->renewal;
    g_mutex_lock(&t->lock);
    if (r->passed && !somebody_inside(t)) {
        size_t from = ALIGN_UP(half_at(!t->half), PAGE_SIZE), to = r->old_used & PAGE_MASK;
        if (to > from && fallocate(t->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(t->code_at + from),
                                   (off_t)(to - from)) < 0)
            log_info("translate", "the host keeps %zu KiB of code that is not used: %s", (to - from) / 1024,
                     g_strerror(errno));
        struct block *first = &t->blocks[!t->half * (BLOCK_MAX / 2)];
        madvise(first, BLOCK_MAX / 2 * sizeof *first, MADV_DONTNEED);
        r->passed = r->busy = false;
    }
    g_mutex_unlock(&t->lock);
}

void translator_renew(struct translator *t)
{
    struct renewal *r = &t->renewal;
    g_mutex_lock(&t->lock);
    bool mine = !r->busy;
    if (mine) {
        r->busy = true;
        r->old_used = MAX(t->used, t->populated);
        limit_adapt(r);
        translator_forget_blocks(t);
        half_start(t, !t->half);
    }
    g_mutex_unlock(&t->lock);
    cpu_set_run_on_all(t->set, leave_half, NULL);
    if (mine) {
        g_mutex_lock(&t->lock);
        r->passed = true;
        g_mutex_unlock(&t->lock);
    }
    renewal_finish(t);
}
