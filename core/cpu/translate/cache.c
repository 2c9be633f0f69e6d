// SPDX-License-Identifier: GPL-2.0-or-later
// The code cache: one memfd mapped writable and, elsewhere, executable; blocks by address, mode and ram page; what a
// write to guest code does to them.
//
// What happens when it is full: renew.c.
// Lock order: translator lock last; nothing that waits for other vCPUs is called under it.
#include "core/cpu/interpret/interpret.h"
#include "core/cpu/translate/translate.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *map_low(size_t size, int fd, off_t offset, int protection)
{
    for (uintptr_t at = 0x10000000; at < 0x60000000; at += 0x8000000) {
        void *p = mmap((void *)at, size, protection, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, offset);
        if (p == (void *)at)
            return p;
        if (p != MAP_FAILED)
            munmap(p, size);
        else if (errno != EEXIST)
            return NULL;
    }
    return NULL;
}

static bool arena_new(struct translator *t, unsigned contexts, GError **error)
{
    size_t state = CONTEXT_SIZE * contexts + (8ull << JUMP_BITS) * FAST_KINDS;
    t->code_size = CODE_SIZE;
    t->arena_size = t->code_at = ALIGN_UP(state, 65536);
    t->memfd = memfd_create("cloche-code", MFD_CLOEXEC);
    if (t->memfd < 0 || ftruncate(t->memfd, (off_t)(t->arena_size + CODE_SIZE)) < 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot make the translator's memory file: %s.",
                    g_strerror(errno));
        return false;
    }
    t->arena = map_low(t->arena_size, t->memfd, 0, PROT_READ | PROT_WRITE);
    if (!t->arena) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot map the translator's memory: %s.",
                    g_strerror(errno));
        return false;
    }
    t->code_write = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, t->memfd, (off_t)t->arena_size);
    if (t->code_write == MAP_FAILED) {
        t->code_write = NULL;
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot map the translator's memory: %s.",
                    g_strerror(errno));
        return false;
    }
    t->code = map_low(CODE_SIZE, t->memfd, (off_t)t->arena_size, PROT_READ | PROT_EXEC);
    if (!t->code) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "This host forbids executable shared memory (%s), which the translator needs: choose --engine "
                    "interpret or allow memfd mappings with PROT_EXEC.",
                    g_strerror(errno));
        return false;
    }
    t->jumps = (uint64_t *)(t->arena + CONTEXT_SIZE * contexts);
    return true;
}

void translator_forget_blocks(struct translator *t)
{
    memset(t->hash, 0, sizeof t->hash); // first: who sees the new generation finds no block of the old one
    __atomic_store_n(&t->generation, t->generation + 1, __ATOMIC_SEQ_CST); // before the jumps: see translate_lookup()
    for (unsigned i = 0; i < FAST_KINDS << JUMP_BITS; i++)
        __atomic_store_n(&t->jumps[i], (uint64_t)(uintptr_t)t->thunks.lookup, __ATOMIC_RELAXED);
    rewritten_forget(t);
    g_hash_table_remove_all(t->pages);
    if (t->ids)
        g_hash_table_remove_all(t->ids);
    fetch_slots_forget(t);
    donors_forget(t);
}

bool translator_init(struct translator *t, struct cpu_set *set, GError **error)
{
    t->set = set;
    g_mutex_init(&t->lock);
    t->memfd = -1;
    if (!arena_new(t, set->count, error))
        return false;
    t->blocks = mmap(NULL, BLOCK_MAX * sizeof *t->blocks, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (t->blocks == MAP_FAILED) {
        t->blocks = NULL;
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot map the translator's block table: %s.",
                    g_strerror(errno));
        return false;
    }
    t->pages = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free);
    t->facts = fact_table_new();
    t->exact_flags = g_getenv("CLOCHE_EXACT_FLAGS") != NULL;
    t->counting = g_getenv("CLOCHE_COUNT_INSTRUCTIONS") != NULL;
    if (t->counting)
        t->handed = g_new0(uint32_t, MNEMONICS_MAX);
    thunks_emit(t);
    translator_forget_blocks(t);
    renewal_init(t);
    if (g_getenv("CLOCHE_PERF_MAP")) {
        g_autofree char *path = g_strdup_printf("/tmp/perf-%d.map", getpid());
        t->perf_map = fopen(path, "a");
    }
    return true;
}

void translator_clear(struct translator *t)
{
    if (t->blocks)
        munmap(t->blocks, BLOCK_MAX * sizeof *t->blocks);
    if (t->pages)
        g_hash_table_unref(t->pages);
    if (t->ids)
        g_hash_table_unref(t->ids);
    g_free(t->donors);
    g_free(t->handed);
    if (t->facts)
        fact_table_free(t->facts);
    if (t->code)
        munmap(t->code, t->code_size);
    if (t->code_write)
        munmap(t->code_write, t->code_size);
    if (t->arena)
        munmap(t->arena, t->arena_size);
    if (t->memfd >= 0)
        close(t->memfd);
    if (t->perf_map)
        fclose(t->perf_map);
    g_mutex_clear(&t->lock);
}

// The code cache is mapped writable and executable; what was given back to the host is a hole of the file.
uint64_t translate_mapped_twice(struct cpu_set *set)
{
    const struct translator *t = set->engine_state;
    uint64_t bytes = 0;
    off_t data = t ? lseek(t->memfd, (off_t)t->code_at, SEEK_DATA) : -1;
    while (data >= 0) {
        off_t hole = lseek(t->memfd, data, SEEK_HOLE);
        bytes += hole > data ? (uint64_t)(hole - data) : 0;
        data = hole > data ? lseek(t->memfd, hole, SEEK_DATA) : -1;
    }
    return bytes;
}

static unsigned block_hash(uint64_t address, uint32_t mode)
{
    return (unsigned)((address ^ (uint64_t)mode << 50) * 0x9e3779b97f4a7c15ull >> (64 - HASH_BITS));
}

struct block *block_find(struct translator *t, uint64_t address, uint32_t mode, uint64_t ram_page)
{
    uint32_t i = __atomic_load_n(&t->hash[block_hash(address, mode)], __ATOMIC_ACQUIRE);
    for (unsigned bound = 0; i && bound < 4096; bound++) {
        struct block *b = &t->blocks[i - 1];
        if (b->address == address && b->mode == mode && b->ram_page == ram_page && !b->dead)
            return b;
        i = __atomic_load_n(&b->hash_next, __ATOMIC_ACQUIRE);
    }
    return NULL;
}

#define POPULATE_SIZE (256 * KiB)
// Memory that is about to be used is fetched from the host in large pieces: by single faults, once for each mapping, it
// costs several times as much.
static void code_populate(struct translator *t)
{
    size_t size = MIN(POPULATE_SIZE, ALIGN_UP(t->limit, PAGE_SIZE) - t->populated);
    madvise(t->code_write + t->populated, size, MADV_POPULATE_WRITE); // hosts before Linux 5.14: by single faults
    madvise(t->code + t->populated, size, MADV_POPULATE_READ);
    t->populated += size;
}

struct block *block_new(struct translator *t, uint64_t address, uint32_t mode, uint64_t ram_page)
{
    if (t->block_count >= t->block_limit || (t->limit - t->used < 64 * KiB && !renewal_grow(t)))
        return NULL;
    if (t->used + 64 * KiB > t->populated)
        code_populate(t);
    struct block *b = &t->blocks[t->block_count];
    *b = (struct block){.address = address, .mode = mode, .ram_page = ram_page, .second_page = NO_PAGE};
    return b;
}

struct code_page *code_page_get(struct translator *t, uint64_t ram_page, bool create)
{
    struct code_page *page = g_hash_table_lookup(t->pages, &ram_page);
    if (!page && create) {
        page = g_new0(struct code_page, 1);
        page->ram_page = ram_page;
        g_hash_table_insert(t->pages, &page->ram_page, page);
    }
    return page;
}

// The block depends on what the page's watched bytes are.
static void page_add(struct translator *t, struct code_page *page, struct block *b, uint32_t index)
{
    unsigned from = (b->address & ~PAGE_MASK) >> 3, to = ((b->address & ~PAGE_MASK) + b->length - 1) >> 3;
    for (unsigned i = from; i <= to && i < 512; i++)
        page->bitmap[i >> 6] |= BIT(i & 63);
    b->page_next = page->first_block;
    page->first_block = index;
    if (b->second_page != NO_PAGE) {
        struct code_page *second = code_page_get(t, b->second_page, true);
        unsigned tail = (unsigned)((b->address + b->length) & ~PAGE_MASK);
        for (unsigned i = 0; i <= (tail - 1) >> 3; i++)
            second->bitmap[i >> 6] |= BIT(i & 63);
        b->second_next = second->first_tail;
        second->first_tail = index;
    }
}

void block_publish(struct translator *t, struct block *b)
{
    struct code_page *page = code_page_get(t, b->ram_page, true);
    uint32_t index = (uint32_t)(b - t->blocks) + 1;
    if (b->checks) {
        b->page_next = page->first_checking;
        page->first_checking = index;
    } else {
        page_add(t, page, b, index);
    }
    unsigned slot = block_hash(b->address, b->mode);
    b->hash_next = t->hash[slot];
    __atomic_store_n(&t->block_count, t->block_count + 1, __ATOMIC_RELEASE);
    __atomic_store_n(&t->hash[slot], index, __ATOMIC_RELEASE);
}

// Any context, without the lock: also from signal handlers.
struct block *block_at_host(struct translator *t, uint64_t host)
{
    uint64_t start = (uintptr_t)t->code;
    if (host < start + THUNK_SIZE || host >= start + t->code_size)
        return NULL;
    unsigned half = host - start - THUNK_SIZE >= HALF_SIZE;
    uint32_t low = half * (BLOCK_MAX / 2), high;
    if (half == t->half) {
        high = __atomic_load_n(&t->block_count, __ATOMIC_ACQUIRE);
    } else {
        high = low; // the abandoned half: count until the first unused one
        while (high < low + BLOCK_MAX / 2 && t->blocks[high].host)
            high++;
    }
    uint32_t first = low;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if ((uintptr_t)t->blocks[middle].indirect <= host)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == first)
        return NULL;
    struct block *b = &t->blocks[low - 1];
    return host < (uintptr_t)b->end ? b : NULL;
}

// Replaces the NOP at a block's entry by a jump, atomically: entries are aligned.
static void entry_patch(struct translator *t, struct block *b, const uint8_t *target)
{
    uint64_t word;
    uint64_t *at = (uint64_t *)writable(t, b->host);
    word = *at;
    uint8_t bytes[8];
    memcpy(bytes, &word, 8);
    int32_t rel = (int32_t)(target - (b->host + 5));
    bytes[0] = 0xe9;
    memcpy(bytes + 1, &rel, 4);
    memcpy(&word, bytes, 8);
    __atomic_store_n(at, word, __ATOMIC_RELEASE);
}

void block_kill(struct translator *t, struct block *b)
{
    if (b->dead)
        return;
    __atomic_store_n(&b->dead, true, __ATOMIC_SEQ_CST);
    entry_patch(t, b, b->leave);
    // Indirect jumps must not meet it any more: on the way in they lose the flags if it did not need them.
    unsigned kind = b->mode & MODE_USER ? FAST_USER : b->mode & MODE_AC ? FAST_KERNEL_AC : FAST_KERNEL;
    uint64_t *jump = &jump_table(t, kind)[b->address & ((1u << JUMP_BITS) - 1)];
    if (__atomic_load_n(jump, __ATOMIC_RELAXED) == (uint64_t)(uintptr_t)b->indirect)
        __atomic_store_n(jump, (uint64_t)(uintptr_t)t->thunks.lookup, __ATOMIC_RELAXED);
    unsigned slot = block_hash(b->address, b->mode);
    uint32_t *link = &t->hash[slot];
    while (*link && &t->blocks[*link - 1] != b)
        link = &t->blocks[*link - 1].hash_next;
    if (*link)
        __atomic_store_n(link, b->hash_next, __ATOMIC_RELEASE);
}

static void code_written(struct translator *t, struct code_page *page, unsigned from, unsigned to)
{
    struct vcpu *current = vcpu_current();
    struct context *writer = current ? current->engine_state : NULL;
    bool hit = false;
    for (unsigned i = from >> 3; !hit && i <= (to - 1) >> 3; i++)
        hit = page->bitmap[i >> 6] >> (i & 63) & 1;
    unsigned killed = hit ? page_forget(t, page) : 0;
    bool rewritten = page_written(t, page, hit);
    if (writer) {
        writer->counters.invalidations += killed;
        writer->counters.rewritten_pages += rewritten;
        if (hit || rewritten) // the writer's own block may be among the dead: it leaves after this instruction
            atomic_store(&writer->kicked, 1);
    }
}

// Bytes of a code page changed. Runs on the writer's thread.
void translator_written(void *opaque, uint64_t ram_offset, uint64_t length, enum ram_write_phase phase)
{
    struct translator *t = opaque;
    if (t->next_tracker)
        t->next_tracker(t->next_tracker_opaque, ram_offset, length, phase);
    if (phase != RAM_WRITE_AFTER || !length)
        return;
    uint64_t ram_page = ram_offset & PAGE_MASK;
    unsigned from = ram_offset & ~PAGE_MASK, to = MIN(from + (unsigned)length, (unsigned)PAGE_SIZE);
    g_mutex_lock(&t->lock);
    struct code_page *page = code_page_get(t, ram_page, false);
    if (page)
        code_written(t, page, from, to);
    bool empty = !page || (!page->first_block && !page->first_tail);
    if (empty && !interpret_owns_page(t->set, ram_page)) {
        ram_untrack(t->set->host.ram, ram_page, TRACK_CODE); // plain data from now on
        if (interpret_owns_page(t->set, ram_page))
            empty = false;
        g_mutex_unlock(&t->lock);
        if (!empty)
            ram_track(t->set->host.ram, ram_page, TRACK_CODE);
        return;
    }
    g_mutex_unlock(&t->lock);
}

struct page_key {
    uint64_t page, ram_page;
    uint32_t mode, id;
};

static unsigned page_key_hash(const void *p)
{
    const struct page_key *k = p;
    return (unsigned)((k->page ^ k->ram_page << 7 ^ (uint64_t)k->mode << 33) * 0x9e3779b97f4a7c15ull >> 32);
}

static gboolean page_key_equal(const void *a, const void *b)
{
    const struct page_key *x = a, *y = b;
    return x->page == y->page && x->ram_page == y->ram_page && x->mode == y->mode;
}

// One number per (address page, ram page, mode), never used again, so that a link needs a single compare.
uint32_t code_page_id(struct translator *t, uint64_t page, uint32_t mode, uint64_t ram_page)
{
    if (!t->ids)
        t->ids = g_hash_table_new_full(page_key_hash, page_key_equal, g_free, NULL);
    struct page_key key = {page, ram_page, mode & ~(uint32_t)MODE_NOSHARE, 0};
    struct page_key *found = g_hash_table_lookup(t->ids, &key);
    if (!found) {
        key.id = ++t->next_page_id;
        found = g_memdup2(&key, sizeof key);
        g_hash_table_add(t->ids, found);
    }
    return found->id;
}
