// SPDX-License-Identifier: GPL-2.0-or-later
// The engine of the co-simulating monitor: the translator leads, the interpreter follows.
//
// COSIM_FROM, COSIM_TO: only blocks at these addresses are compared (outside, the follower is brought up to date when
// the range is entered again). COSIM_SWEEP: blocks between two comparisons of all memory (0: never).
#include "core/cpu/model.h"
#include "core/cpu/thread.h"
#include "core/memory/map.h"
#include "tests/cosim/cosim.h"

#define STEPS_MAX 200 // of the follower for one block; string instructions may take more
#define LOG_MAX   (1 << 20)

struct write {
    uint64_t offset, length;
    uint8_t old[64];
};

static struct cosim {
    struct cpu_set *set; // the leader's
    struct ram *ram;
    struct address_space *memory, *ports;
    struct vcpu *f; // follower
    struct cpu_set *followers;
    struct region *regions;
    unsigned region_count;
    GRecMutex lock;
    bool stale_map, stale_state;
    GArray *writes; // of the follower in this block
    uint64_t from, to, sweep;
    uint64_t blocks, compared, instructions, retries, sweeps, legal, frames;
} cosim;

// ---- The follower's machine -----------------------------------------------------------------------------------------

static void note_write(void *opaque, uint64_t offset, uint64_t length, enum ram_write_phase phase)
{
    if (phase != RAM_WRITE_BEFORE || role != ROLE_FOLLOWER)
        return;
    if (cosim.writes->len) { // the next bytes of a string
        struct write *last = &g_array_index(cosim.writes, struct write, cosim.writes->len - 1);
        if (offset == last->offset + last->length && last->length + length <= sizeof last->old) {
            memcpy(last->old + last->length, cosim.ram->host + offset, length);
            last->length += length;
            return;
        }
    }
    for (uint64_t done = 0; done < length; done += 64) {
        struct write w = {.offset = offset + done, .length = MIN(64, length - done)};
        memcpy(w.old, cosim.ram->host + w.offset, w.length);
        g_array_append_val(cosim.writes, w);
    }
}

static void copy_piece(void *opaque, uint64_t offset, uint64_t length)
{
    ram_write_begin(cosim.ram, offset, length);
    memcpy(cosim.ram->host + offset, cosim.set->host.ram->host + offset, length);
    ram_write_end(cosim.ram, offset, length);
}

// The physical map as the leader sees it, without what is not memory.
static void copy_map(void)
{
    struct address_space *from = cosim.set->host.memory;
    for (unsigned n = 0; n < cosim.region_count; n++)
        address_space_unmap(&cosim.regions[n]);
    cosim.region_count = 0;
    for (uint64_t at = 0, end = 1ull << 40; at < end && cosim.region_count < 256;) {
        struct mapping m;
        if (!address_space_lookup(from, at, &m)) {
            at += address_space_gap(from, at);
            continue;
        }
        if (m.host) {
            struct region *r = &cosim.regions[cosim.region_count++];
            if (m.region->kind == REGION_RAM)
                region_init_ram(r, "copy", m.ram_offset, m.size);
            else
                region_init_rom(r, "copy", m.ram_offset, m.size);
            address_space_map(cosim.memory, r, m.start, 0);
        }
        at = m.start + m.size;
    }
    vcpu_flush_tlb(cosim.f);
    cosim.stale_map = false;
}

static void copy_state(struct vcpu *v)
{
    struct vcpu *f = cosim.f;
    memcpy(f->gpr, v->gpr, sizeof f->gpr);
    f->rip = v->rip;
    f->rflags = v->rflags;
    memcpy(&f->cr0, &v->cr0, offsetof(struct vcpu, attention) - offsetof(struct vcpu, cr0));
    vcpu_flush_tlb(f);
}

static void copy_all(struct vcpu *v)
{
    struct ram *from = cosim.set->host.ram;
    tape_foreign(copy_piece, NULL);
    for (uint64_t at = 0; at < from->used; at += PAGE_SIZE)
        if (memcmp(cosim.ram->host + at, from->host + at, PAGE_SIZE))
            copy_piece(NULL, at, PAGE_SIZE);
    copy_state(v);
    cosim.stale_state = false;
}

static bool follower_new(struct cpu_set *set, GError **error)
{
    struct ram *ram = set->host.ram;
    cosim.set = set;
    cosim.ram = ram_new(ram->capacity, error);
    if (!cosim.ram)
        return false;
    g_rec_mutex_init(&cosim.lock);
    cosim.memory = address_space_new("copy", cosim.ram, 1ull << 40, &cosim.lock);
    cosim.ports = address_space_new("ports", NULL, 65536, &cosim.lock);
    cosim.regions = g_new0(struct region, 256);
    cosim.writes = g_array_new(false, false, sizeof(struct write));
    struct cpu_host host = {.ram = cosim.ram,
                            .memory = cosim.memory,
                            .ports = cosim.ports,
                            .clock = clock_new_manual(),
                            .lock = &cosim.lock};
    cosim.followers = cpu_set_new(&host, set->model->name, "interpret", 1, error);
    if (!cosim.followers)
        return false;
    cosim.f = cosim.followers->vcpu[0];
    cosim.stale_map = cosim.stale_state = true;
    ram_set_tracker(cosim.ram, TRACK_DIRTY, note_write, NULL);
    ram_track_range(cosim.ram, 0, ram->capacity, TRACK_DIRTY);
    tape_set_follower(cosim.ram, cosim.memory, cosim.ports);
    tape_clear();
    const char *from = g_getenv("COSIM_FROM"), *to = g_getenv("COSIM_TO"), *sweep = g_getenv("COSIM_SWEEP");
    cosim.from = from ? g_ascii_strtoull(from, NULL, 16) : 0;
    cosim.to = to ? g_ascii_strtoull(to, NULL, 16) : UINT64_MAX;
    cosim.sweep = sweep ? g_ascii_strtoull(sweep, NULL, 0) : 4 << 20;
    return true;
}

// ---- Differences ----------------------------------------------------------------------------------------------------

static void undo(const struct vcpu *before)
{
    for (unsigned n = cosim.writes->len; n-- > 0;) {
        const struct write *w = &g_array_index(cosim.writes, struct write, n);
        ram_write_begin(cosim.ram, w->offset, w->length);
        memcpy(cosim.ram->host + w->offset, w->old, w->length);
        ram_write_end(cosim.ram, w->offset, w->length);
    }
    g_array_set_size(cosim.writes, 0);
    copy_state((struct vcpu *)before);
}

// Accessed and dirty bits may be set a little sooner or later: words that differ in nothing else become equal. Returns
// the first other difference, or UINT64_MAX.
static uint64_t reconcile(void)
{
    const uint8_t *a = cosim.set->host.ram->host, *b = cosim.ram->host;
    uint64_t first = UINT64_MAX;
    for (uint64_t page = 0; page < cosim.set->host.ram->used; page += PAGE_SIZE) {
        if (memcmp(a + page, b + page, PAGE_SIZE) == 0)
            continue;
        for (uint64_t at = page; at < page + PAGE_SIZE; at += 8) {
            uint64_t x = load_le(a + at, 8), y = load_le(b + at, 8);
            if (x == y)
                continue;
            if (!((x ^ y) & ~0x6000000060ull) && ((x | x >> 32) & 1)) {
                cosim.legal++;
                copy_piece(NULL, at, 8);
            } else if (first == UINT64_MAX) {
                first = at;
            }
        }
    }
    return first;
}

// Of an exception's frame the status flags may differ that the translator did not keep; they become equal.
static bool frame_flags(uint64_t at)
{
    for (unsigned size = 8; size >= 2; size /= 2) {
        uint64_t x = load_le(cosim.set->host.ram->host + at, size), y = load_le(cosim.ram->host + at, size);
        if ((x ^ y) & ~(uint64_t)FLAGS_STATUS)
            continue;
        cosim.frames++;
        copy_piece(NULL, at, size);
        return true;
    }
    return false;
}

static bool writes_equal(bool faulted, uint64_t *where)
{
    const uint8_t *a = cosim.set->host.ram->host, *b = cosim.ram->host;
    for (unsigned n = 0; n < cosim.writes->len; n++) {
        const struct write *w = &g_array_index(cosim.writes, struct write, n);
        if (memcmp(a + w->offset, b + w->offset, w->length) && !(faulted && w->length <= 8 && frame_flags(w->offset))) {
            *where = w->offset;
            return false;
        }
    }
    return true;
}

static void die(struct vcpu *v, const struct vcpu *before, const char *what)
{
    struct context *c = v->engine_state;
    GString *text = g_string_new(NULL);
    g_string_append_printf(text, "block %lu at %lx, %lu instructions in: %s\n", (unsigned long)cosim.blocks,
                           (unsigned long)before->rip, (unsigned long)cosim.instructions, what);
    states_equal(v, cosim.f, 0, text);
    for (unsigned n = 0; n < 16; n++)
        g_string_append_printf(text, "%s r%u=%lx", n % 4 ? "" : "\n  before:", n, (unsigned long)before->gpr[n]);
    g_string_append_printf(text, " flags=%lx\n  exit reason %u, fault count %lu\n", (unsigned long)before->rflags,
                           c->exit_reason, (unsigned long)v->exceptions);
    struct block *b = NULL;
    uint64_t ram_page;
    uint32_t mode = mode_of(before);
    if (!(mode & MODE_UNSUPPORTED) && fetch_page(c, before->rip, mode, &ram_page))
        b = block_find(c->translator, before->rip, mode, ram_page);
    g_autofree char *dump = b ? translate_dump_block(c->translator, (uintptr_t)b->host) : NULL;
    fprintf(stderr, "cosim: DIFFERENCE: %s%s\n", text->str, dump ? dump : "(the leader interpreted it)\n");
    _exit(3);
}

// ---- Step by step ---------------------------------------------------------------------------------------------------

// Status flags that the translator did not keep, because the code that follows sets them before it reads them.
static uint64_t dead_flags(const struct context *c)
{
    if (c->exit_reason == EXIT_LOOKUP)
        return 0;
    struct link_site site;
    memcpy(&site, (const void *)(uintptr_t)c->link_site, sizeof site);
    return c->exit_reason == EXIT_LINK ? FLAGS_STATUS & ~(uint64_t)site.live : FLAGS_STATUS;
}

// The follower goes on until it stands where the leader stands. False: it never does.
static bool follow(struct vcpu *v, bool progress, bool faulted, uint64_t *rips, unsigned *count)
{
    uint64_t dead = faulted ? FLAGS_STATUS : dead_flags(v->engine_state);
    struct vcpu *f = cosim.f;
    bool strings = false;
    *count = 0;
    tape_rewind();
    if (!progress && states_equal(v, f, dead, NULL) && tape_used_up()) {
        f->rflags = v->rflags;
        return true;
    }
    for (unsigned steps = 0; steps < STEPS_MAX;) {
        uint64_t at = f->rip;
        if (*count < STEPS_MAX)
            rips[(*count)++] = at;
        f->activity = VCPU_RUNNING;
        atomic_store(&f->attention, 0);
        role = ROLE_FOLLOWER;
        interpret_run(f, INTERPRET_ELEMENT);
        role = ROLE_OUTSIDE;
        atomic_store(&f->attention, 0);
        cosim.instructions++;
        strings = f->rip == at;
        if (!strings)
            steps++;
        else if (cosim.writes->len > LOG_MAX)
            return false;
        if (f->rip != v->rip || memcmp(f->gpr, v->gpr, sizeof f->gpr))
            continue;
        uint64_t undefined = dead;
        if ((f->rflags ^ v->rflags) & FLAGS_STATUS & ~dead)
            undefined |= undefined_after(f, rips, *count);
        if (states_equal(v, f, undefined, NULL) && tape_used_up()) {
            f->rflags = v->rflags;
            return true;
        }
    }
    return false;
}

static void compare(struct vcpu *v, const struct vcpu *before, bool progress)
{
    uint64_t rips[STEPS_MAX], where = 0;
    unsigned count;
    bool faulted = v->exceptions != before->exceptions;
    g_array_set_size(cosim.writes, 0);
    bool ok = follow(v, progress, faulted, rips, &count) && writes_equal(faulted, &where);
    for (unsigned n = 0; n < 3 && !ok; n++) { // what devices wrote meanwhile, and A and D bits
        cosim.retries++;
        undo(before);
        g_usleep(n * 1000);
        tape_foreign(copy_piece, NULL);
        if (n)
            reconcile();
        ok = follow(v, progress, faulted, rips, &count) && (writes_equal(faulted, &where) || reconcile() == UINT64_MAX);
    }
    if (!ok) {
        const char *complaint = tape_complaint();
        g_autofree char *text =
            complaint ? g_strdup(complaint) : g_strdup_printf("memory near ram offset %lx", (unsigned long)where);
        die(v, before, text);
    }
    cosim.compared++;
}

static void sweep(struct vcpu *v, const struct vcpu *before)
{
    cosim.sweeps++;
    for (unsigned n = 0;; n++) {
        tape_foreign(copy_piece, NULL);
        uint64_t where = reconcile();
        if (where == UINT64_MAX)
            return;
        if (n == 5) {
            g_autofree char *text =
                g_strdup_printf("memory at ram offset %lx: translator %lx, interpreter %lx", (unsigned long)where,
                                (unsigned long)load_le(cosim.set->host.ram->host + where, 8),
                                (unsigned long)load_le(cosim.ram->host + where, 8));
            die(v, before, text);
        }
        g_usleep(2000);
    }
}

static bool deliver(struct vcpu *v, uint32_t bits)
{
    struct vcpu before = *v;
    enum event_type type = EVENT_EXTERNAL;
    int vector = -1;
    if ((bits & ATTENTION_NMI) && !v->nmi_blocked && !v->interrupt_shadow) {
        atomic_fetch_and(&v->attention, ~(uint32_t)ATTENTION_NMI);
        type = EVENT_NMI;
        vector = EXCEPTION_NMI;
    } else if ((bits & ATTENTION_INTERRUPT) && (v->rflags & FLAG_IF) && !v->interrupt_shadow) {
        atomic_fetch_and(&v->attention, ~(uint32_t)ATTENTION_INTERRUPT);
        vector = vcpu_take_interrupt(v);
    }
    if (vector < 0)
        return true;
    bool ok = vcpu_deliver(v, type, (unsigned)vector, -1);
    g_array_set_size(cosim.writes, 0);
    tape_clear();
    role = ROLE_FOLLOWER;
    vcpu_deliver(cosim.f, type, (unsigned)vector, -1);
    role = ROLE_OUTSIDE;
    uint64_t where;
    if (!states_equal(v, cosim.f, 0, NULL) || !(writes_equal(false, &where) || reconcile() == UINT64_MAX))
        die(v, &before, "after an interrupt");
    return ok;
}

static enum engine_exit cosim_run(struct vcpu *v)
{
    ((struct translator *)v->set->engine_state)->single = true;
    for (;;) {
        uint32_t bits = atomic_load(&v->attention);
        if (bits & ATTENTION_FLUSH)
            vcpu_run_queued(v);
        if (bits & (ATTENTION_STOP | ATTENTION_INIT | ATTENTION_SIPI | ATTENTION_RESET)) {
            cosim.stale_state |= (bits & (ATTENTION_INIT | ATTENTION_SIPI | ATTENTION_RESET)) != 0;
            return ENGINE_EXIT_ATTENTION;
        }
        if (cosim.stale_map)
            copy_map();
        bool inside = v->rip >= cosim.from && v->rip <= cosim.to;
        if (inside && cosim.stale_state)
            copy_all(v);
        tape_foreign(copy_piece, NULL);
        if ((bits & (ATTENTION_INTERRUPT | ATTENTION_NMI)) && !deliver(v, bits))
            return ENGINE_EXIT_SHUTDOWN;
        struct vcpu before = *v;
        struct context *c = v->engine_state;
        c->exit_reason = EXIT_KICK;
        cosim.f->activity = v->activity;
        tape_clear();
        role = ROLE_LEADER;
        enum engine_exit exit = translate_step(v);
        role = ROLE_OUTSIDE;
        if (tape_interrupt_waits())
            atomic_fetch_or(&v->attention, ATTENTION_INTERRUPT);
        cosim.blocks++;
        bool progress = exit != ENGINE_EXIT_ATTENTION || c->exit_reason == EXIT_LOOKUP ||
                        (c->exit_reason == EXIT_LINK && c->noshare_at != v->rip);
        if (inside && exit != ENGINE_EXIT_SHUTDOWN)
            compare(v, &before, progress);
        else
            cosim.stale_state = true;
        if (inside && cosim.sweep && cosim.blocks % cosim.sweep == 0)
            sweep(v, &before);
        if (exit != ENGINE_EXIT_ATTENTION)
            return exit;
    }
}

// ---- The engine -----------------------------------------------------------------------------------------------------

static bool cosim_set_init(struct cpu_set *set, GError **error)
{
    if (!engine_translate.set_init(set, error))
        return false;
    ((struct translator *)set->engine_state)->plain_clock = false; // not with a tape that records
    return follower_new(set, error);
}

static void cosim_state_in(struct vcpu *v)
{
    cosim.stale_state = true;
}

static void cosim_flush_tlb(struct vcpu *v)
{
    if (role == ROLE_OUTSIDE)
        cosim.stale_map = true;
    engine_translate.flush_tlb(v);
}

static void cosim_vcpu_free(struct vcpu *v)
{
    fprintf(stderr, "cosim: %lu blocks, %lu compared, %lu instructions, %lu tried again, %lu memory sweeps\n",
            (unsigned long)cosim.blocks, (unsigned long)cosim.compared, (unsigned long)cosim.instructions,
            (unsigned long)cosim.retries, (unsigned long)cosim.sweeps);
    fprintf(stderr, "cosim: %lu words with other A or D bits, %lu exception frames with other dead flags\n",
            (unsigned long)cosim.legal, (unsigned long)cosim.frames);
    fprintf(stderr, "cosim: no difference\n");
    engine_translate.vcpu_free(v);
}

static bool cosim_vcpu_init(struct vcpu *v, GError **error)
{
    if (v->index) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "Co-simulation is for one processor: choose --cpus 1.");
        return false;
    }
    return engine_translate.vcpu_init(v, error);
}

static void cosim_kick(struct vcpu *v)
{
    engine_translate.kick(v);
}

static void cosim_flush_page(struct vcpu *v, uint64_t linear)
{
    engine_translate.flush_page(v, linear);
}

static void cosim_revoke_page(struct vcpu *v, uint64_t ram_offset)
{
    engine_translate.revoke_page(v, ram_offset);
}

static void cosim_set_free(struct cpu_set *set)
{
    engine_translate.set_free(set);
}

static char *cosim_describe(struct cpu_set *set)
{
    return engine_translate.describe(set);
}

extern const struct engine engine_cosim;
const struct engine engine_cosim = {
    .name = "cosim",
    .set_init = cosim_set_init,
    .set_free = cosim_set_free,
    .vcpu_init = cosim_vcpu_init,
    .vcpu_free = cosim_vcpu_free,
    .run = cosim_run,
    .kick = cosim_kick,
    .state_in = cosim_state_in,
    .flush_tlb = cosim_flush_tlb,
    .flush_page = cosim_flush_page,
    .revoke_page = cosim_revoke_page,
    .describe = cosim_describe,
};
