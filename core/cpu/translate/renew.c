// SPDX-License-Identifier: GPL-2.0-or-later
// A full code cache is begun anew.
//
// The cache has two halves. When one is full the other is used: all look-up tables are emptied first, then every vCPU
// passes its dispatcher (cpu_set_run_on_all), after which nobody enters the old half any more. A vCPU that waits for
// the machine lock within a device access counts as having passed, though it goes on in the old half for the rest of
// its instruction; so the half's memory is given back to the host only when context->inside says that nobody is there.
//
// How much of a half is used follows the guest: a little at first; more where that is filled in little processor time,
// for filling it again would cost a large part of the guest's. A guest that rests gives it back: it begins anew, and
// translates the little that it still runs. (A compiler needs 100 MiB, an idle desktop 20.)
#include "core/cpu/translate/translate.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

#define LIMIT_STEP (20 * MiB)
#define FULL_SOON  100000000ll // nanoseconds of processor time, which a busy host does not stretch, per MiB
#define REST_TIME  (5 * G_USEC_PER_SEC)
#define REST_SHARE 10 // of that time at most one part in this many is processor time

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
    t->limit = t->used + MIN(LIMIT_STEP, t->renewal.limit_most);
    t->block_first = t->block_count = half * (BLOCK_MAX / 2);
    t->block_limit = t->block_first + BLOCK_MAX / 2;
    t->renewal.since = processor_time();
}

void renewal_init(struct translator *t)
{
    struct renewal *r = &t->renewal;
    const char *kib = g_getenv("CLOCHE_CODE_CACHE_KIB"); // for tests: a cache that is full soon
    r->limit_most = MAX(t->set->host.ram->capacity / 4, LIMIT_STEP);
    if (kib)
        r->limit_most = MAX(g_ascii_strtoull(kib, NULL, 10), 256) * 1024;
    r->limit_most = MIN(r->limit_most, HALF_SIZE);
    r->rest_since = g_get_monotonic_time();
    half_start(t, 0);
}

bool renewal_grow(struct translator *t)
{
    size_t size = t->limit - half_at(t->half);
    if (size >= t->renewal.limit_most || processor_time() - t->renewal.since > FULL_SOON * (int64_t)(size / MiB))
        return false;
    t->limit = half_at(t->half) + MIN(size + LIMIT_STEP, t->renewal.limit_most);
    return true;
}

void renewal_rest(struct context *c)
{
    struct translator *t = c->translator;
    struct renewal *r = &t->renewal;
    int64_t now = g_get_monotonic_time(), wall = now - r->rest_since;
    if (wall < REST_TIME)
        return;
    g_mutex_lock(&t->lock);
    int64_t used = processor_time(), worked = (used - r->rest_used) / 1000;
    bool rests = wall >= REST_TIME && worked < wall / REST_SHARE && t->used - half_at(t->half) > LIMIT_STEP;
    r->rest_since = now;
    r->rest_used = used;
    g_mutex_unlock(&t->lock);
    if (!rests)
        return;
    c->counters.cache_rests++;
    translator_renew(t);
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
        r->old_used = MIN(MAX(t->used, t->populated), half_at(t->half) + HALF_SIZE); // the page at its end is shared
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
