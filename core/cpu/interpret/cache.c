// SPDX-License-Identifier: GPL-2.0-or-later
// The cache of decoded blocks, and self-modifying code.
#include "core/cpu/interpret/cache.h"

// Which vCPUs hold blocks from a page: one bit per vCPU. Any thread.
struct interpret_set {
    uint64_t pages;
    _Atomic uint16_t *owners;
};

static unsigned hash_of(uint64_t ram_offset, uint32_t key)
{
    uint64_t h = (ram_offset ^ (uint64_t)key << 40) * 0x9e3779b97f4a7c15ull;
    return (unsigned)(h >> (64 - HASH_BITS));
}

// ---- Stale blocks ---------------------------------------------------------------------------------------------------

static void unlink_from(struct block **head, struct block *b, size_t next_offset)
{
    for (struct block **p = head; *p; p = (struct block **)((char *)*p + next_offset))
        if (*p == b) {
            *p = *(struct block **)((char *)b + next_offset);
            return;
        }
}

// The block may be running: its instructions are turned into stops, and the memory lives until cache_bury().
static void make_stale(struct interpreter *n, struct block *b)
{
    struct page_blocks *page = &n->pages[b->ram_offset >> PAGE_SHIFT];
    unlink_from(&n->hash[hash_of(b->ram_offset, b->key)], b, offsetof(struct block, next_hash));
    unlink_from(&page->starting, b, offsetof(struct block, next_page));
    if (b->second_page != NO_PAGE)
        unlink_from(&n->pages[b->second_page >> PAGE_SHIFT].tails, b, offsetof(struct block, next_second));
    for (struct block *other = page->starting; other; other = other->next_page) {
        struct insn *last = &other->insns[other->count - 1];
        for (unsigned k = 0; k < 2 && last->direct; k++)
            if (last->link[k] == b)
                last->link[k] = NULL;
        struct insn *end = &other->insns[other->count];
        if (end->link[0] == b)
            end->link[0] = NULL;
    }
    for (unsigned i = 0; i <= b->count; i++)
        b->insns[i].run = insn_stale;
    b->stale = true;
    b->next_hash = n->graveyard;
    n->graveyard = b;
    n->blocks--;
    n->link_from = NULL;
}

static void drop_page_if_empty(struct interpreter *n, uint64_t page)
{
    struct interpret_set *set = n->vcpu->set->interpret;
    if (n->pages[page].starting || n->pages[page].tails)
        return;
    uint16_t left = atomic_fetch_and(&set->owners[page], (uint16_t) ~(1u << n->vcpu->index)) & ~(1u << n->vcpu->index);
    if (!left && n->vcpu->engine == &engine_interpret)
        ram_untrack(n->vcpu->set->host.ram, page << PAGE_SHIFT, TRACK_CODE);
}

static void invalidate_range(struct interpreter *n, uint64_t ram_offset, uint64_t length)
{
    uint64_t page = ram_offset >> PAGE_SHIFT;
    bool any = false;
    if (page >= n->page_count)
        return;
    for (struct block *b = n->pages[page].starting, *next; b; b = next) {
        next = b->next_page;
        if (ram_offset < b->ram_offset + b->size && b->ram_offset < ram_offset + length) {
            make_stale(n, b);
            any = true;
        }
    }
    for (struct block *b = n->pages[page].tails, *next; b; b = next) {
        next = b->next_second;
        uint64_t tail = b->size - (PAGE_SIZE - (b->ram_offset & ~PAGE_MASK));
        if ((ram_offset & ~PAGE_MASK) < tail) {
            make_stale(n, b);
            any = true;
        }
    }
    if (!any)
        return;
    n->stamp = ++n->generation << 16 | n->key;
    drop_page_if_empty(n, page);
}

void cache_bury(struct interpreter *n)
{
    while (n->graveyard) {
        struct block *next = n->graveyard->next_hash;
        g_free(n->graveyard);
        n->graveyard = next;
    }
}

void cache_flush(struct interpreter *n)
{
    for (unsigned h = 0; h < 1u << HASH_BITS; h++)
        while (n->hash[h]) {
            uint64_t page = n->hash[h]->ram_offset >> PAGE_SHIFT, second = n->hash[h]->second_page;
            make_stale(n, n->hash[h]);
            drop_page_if_empty(n, page);
            if (second != NO_PAGE)
                drop_page_if_empty(n, second >> PAGE_SHIFT);
        }
    n->stamp = ++n->generation << 16 | n->key;
}

void cache_drain_queue(struct interpreter *n)
{
    g_mutex_lock(&n->queue_lock);
    atomic_store(&n->queue_filled, false);
    for (unsigned i = 0; i < n->queue->len; i++) {
        struct invalidation *q = &g_array_index(n->queue, struct invalidation, i);
        invalidate_range(n, q->ram_offset, q->length);
    }
    g_array_set_size(n->queue, 0);
    g_mutex_unlock(&n->queue_lock);
}

// A write to a page with TRACK_CODE; on the writer's thread, which may be no vCPU (a device).
static void code_written(void *opaque, uint64_t ram_offset, uint64_t length, enum ram_write_phase phase)
{
    struct cpu_set *set = opaque;
    if (phase != RAM_WRITE_AFTER)
        return;
    uint16_t owners = atomic_load(&set->interpret->owners[ram_offset >> PAGE_SHIFT]);
    struct vcpu *self = vcpu_current();
    for (unsigned i = 0; owners >> i; i++) {
        if (!(owners >> i & 1))
            continue;
        struct vcpu *v = set->vcpu[i];
        struct interpreter *n = v->interpreter;
        if (v == self) {
            invalidate_range(n, ram_offset, length);
            continue;
        }
        struct invalidation q = {ram_offset, length};
        g_mutex_lock(&n->queue_lock);
        g_array_append_val(n->queue, q);
        atomic_store(&n->queue_filled, true);
        g_mutex_unlock(&n->queue_lock);
        vcpu_raise(v, ATTENTION_FLUSH);
    }
}

bool interpret_set_init(struct cpu_set *set, GError **error)
{
    struct ram *ram = set->host.ram;
    set->interpret = g_new0(struct interpret_set, 1);
    set->interpret->pages = ram->capacity >> PAGE_SHIFT;
    set->interpret->owners = g_malloc0_n(set->interpret->pages, sizeof(uint16_t));
    ram_set_tracker(ram, TRACK_CODE, code_written, set);
    return true;
}

bool interpret_owns_page(struct cpu_set *set, uint64_t ram_offset)
{
    return atomic_load(&set->interpret->owners[ram_offset >> PAGE_SHIFT]) != 0;
}

void interpret_set_free(struct cpu_set *set)
{
    if (!set->interpret)
        return;
    ram_set_tracker(set->host.ram, TRACK_CODE, NULL, NULL);
    g_free((void *)set->interpret->owners);
    g_free(set->interpret);
    set->interpret = NULL;
}

// ---- Building -------------------------------------------------------------------------------------------------------

static void own_page(struct interpreter *n, uint64_t page)
{
    struct vcpu *v = n->vcpu;
    atomic_fetch_or(&v->set->interpret->owners[page], (uint16_t)(1u << v->index));
    if (!(ram_tracked(v->set->host.ram, page << PAGE_SHIFT) & TRACK_CODE))
        ram_track(v->set->host.ram, page << PAGE_SHIFT, TRACK_CODE);
}

static void register_block(struct interpreter *n, struct block *b)
{
    unsigned h = hash_of(b->ram_offset, b->key);
    struct page_blocks *page = &n->pages[b->ram_offset >> PAGE_SHIFT];
    b->next_hash = n->hash[h];
    n->hash[h] = b;
    b->next_page = page->starting;
    page->starting = b;
    if (b->second_page != NO_PAGE) {
        struct page_blocks *second = &n->pages[b->second_page >> PAGE_SHIFT];
        b->next_second = second->tails;
        second->tails = b;
    }
    n->blocks++;
}

static struct block *block_make(uint64_t ram_offset, uint32_t key, const struct insn *insns, unsigned count,
                                uint64_t second_page)
{
    const struct insn *last = &insns[count - 1];
    struct block *b = g_malloc(sizeof(*b) + (count + 1) * sizeof(struct insn));
    *b = (struct block){.ram_offset = ram_offset,
                        .key = key,
                        .count = (uint16_t)count,
                        .second_page = second_page,
                        .size = (uint16_t)(last->offset + last->length)};
    memcpy(b->insns, insns, count * sizeof(struct insn));
    decode_terminator(&b->insns[count], b->size, count);
    return b;
}

static struct insn trap_insn(insn_handler *handler, unsigned offset, unsigned position)
{
    return (struct insn){.run = handler,
                         .offset = (uint16_t)offset,
                         .position = (uint16_t)position,
                         .length = 1,
                         .base = VCPU_OFFSET(zero),
                         .index = VCPU_OFFSET(zero),
                         .code_size = 8};
}

// Decodes from HOST, at most to the end of the page. 0: the first instruction crosses it.
static unsigned decode_run(struct vcpu *v, uint32_t key, const uint8_t *host, unsigned available, struct insn *insns)
{
    unsigned count = 0, offset = 0, max = key & KEY_SINGLE ? 1 : BLOCK_INSNS;
    while (count < max && offset < available) {
        struct insn *i = &insns[count];
        enum decode_status status = decode_insn(v, key, host + offset, available - offset, offset, count, i);
        if (status == DECODE_MORE)
            break;
        if (status != DECODE_OK)
            *i = trap_insn(status == DECODE_UD ? insn_undefined : insn_too_long, offset, count);
        offset += i->length;
        count++;
        if (insn_ends_block(i))
            break;
    }
    return count;
}

// An instruction that goes on in the next page. A block of its own; NULL: a fault was recorded.
static struct block *build_crossing(struct vcpu *v, uint32_t key, uint64_t linear, uint64_t ram_offset,
                                    const uint8_t *host, unsigned available)
{
    uint8_t bytes[30];
    struct insn insn;
    uint64_t second_offset, second_linear = linear + available;
    const uint8_t *second;
    if (!(v->efer & EFER_LMA))
        second_linear = (uint32_t)second_linear;
    if (!fetch_translate(v, second_linear, &second_offset, &second))
        return NULL;
    memcpy(bytes, host, available);
    if (second)
        memcpy(bytes + available, second, 15);
    else
        memset(bytes + available, 0xff, 15);
    enum decode_status status = decode_insn(v, key, bytes, available + 15, 0, 0, &insn);
    if (status != DECODE_OK)
        insn = trap_insn(status == DECODE_UD ? insn_undefined : insn_too_long, 0, 0);
    return block_make(ram_offset, key, &insn, 1, second ? second_offset & PAGE_MASK : NO_PAGE);
}

// Code where there is no plain memory: one instruction, decoded each time from what the bus reads.
static struct block *build_uncached(struct vcpu *v, uint32_t key, uint64_t gpa)
{
    struct interpreter *n = v->interpreter;
    uint8_t bytes[15];
    struct insn insn;
    address_space_read(v->set->host.memory, gpa, bytes, sizeof(bytes));
    enum decode_status status = decode_insn(v, key, bytes, sizeof(bytes), 0, 0, &insn);
    if (status != DECODE_OK)
        insn = trap_insn(status == DECODE_UD ? insn_undefined : insn_too_long, 0, 0);
    struct block *b = block_make(NO_PAGE, key, &insn, 1, NO_PAGE);
    b->next_hash = n->graveyard;
    n->graveyard = b;
    return b;
}

static struct block *build(struct vcpu *v, uint32_t key, uint64_t linear, uint64_t ram_offset, const uint8_t *host)
{
    struct interpreter *n = v->interpreter;
    struct insn insns[BLOCK_INSNS];
    unsigned available = (unsigned)(PAGE_SIZE - (ram_offset & ~PAGE_MASK));
    own_page(n, ram_offset >> PAGE_SHIFT); // before the bytes are read
    unsigned count = decode_run(v, key, host, available, insns);
    struct block *b;
    if (count)
        b = block_make(ram_offset, key, insns, count, NO_PAGE);
    else
        b = build_crossing(v, key, linear, ram_offset, host, available);
    if (!b) {
        drop_page_if_empty(n, ram_offset >> PAGE_SHIFT);
        return NULL;
    }
    if (b->second_page != NO_PAGE)
        own_page(n, b->second_page >> PAGE_SHIFT);
    register_block(n, b);
    return b;
}

// ---- Lookup ---------------------------------------------------------------------------------------------------------

// A block whose tail lies in another page is only right if the next page is still the same.
static bool second_page_matches(struct vcpu *v, const struct block *b, uint64_t linear, bool *faulted)
{
    uint64_t ram_offset, next = (linear & PAGE_MASK) + PAGE_SIZE;
    const uint8_t *host;
    if (!(v->efer & EFER_LMA))
        next = (uint32_t)next;
    *faulted = !fetch_translate(v, next, &ram_offset, &host);
    return !*faulted && host && (ram_offset & PAGE_MASK) == b->second_page;
}

static struct block *find(struct vcpu *v, uint32_t key, uint64_t linear, uint64_t ram_offset, bool *faulted)
{
    struct interpreter *n = v->interpreter;
    *faulted = false;
    for (struct block *b = n->hash[hash_of(ram_offset, key)]; b; b = b->next_hash)
        if (b->ram_offset == ram_offset && b->key == key) {
            if (b->second_page == NO_PAGE || second_page_matches(v, b, linear, faulted))
                return b;
            if (*faulted)
                return NULL;
        }
    return NULL;
}

// The code segment's limit, where it has one: the whole block must lie within, or it shrinks to one instruction.
static struct block *check_limit(struct vcpu *v, struct block *b, uint64_t linear, uint64_t ram_offset,
                                 const uint8_t *host)
{
    const struct segment *cs = &v->seg[CS];
    if (v->rip + b->size - 1 <= cs->limit)
        return b;
    if (!(b->key & KEY_SINGLE)) {
        bool faulted;
        struct block *single = find(v, b->key | KEY_SINGLE, linear, ram_offset, &faulted);
        if (!single && !faulted)
            single = build(v, b->key | KEY_SINGLE, linear, ram_offset, host);
        if (!single)
            return NULL;
        b = single;
    }
    if (v->rip + b->size - 1 <= cs->limit)
        return b;
    vcpu_fault(v, EXCEPTION_GP, 0);
    return NULL;
}

struct block *block_lookup(struct vcpu *v)
{
    struct interpreter *n = v->interpreter;
    struct jump_entry *e = &n->jump[jump_slot(v->rip)];
    if (e->rip == v->rip && e->stamp == n->stamp)
        return e->block;
    uint64_t linear = v->rip, ram_offset;
    const uint8_t *host;
    if ((n->key & KEY_CODE_SIZE) != 2)
        linear = (uint32_t)(linear + v->seg[CS].base);
    if (!fetch_translate(v, linear, &ram_offset, &host))
        return NULL;
    if (!host)
        return build_uncached(v, n->key | KEY_SINGLE, ram_offset);
    bool faulted;
    struct block *b = find(v, n->key, linear, ram_offset, &faulted);
    if (!b && !faulted)
        b = build(v, n->key, linear, ram_offset, host);
    if (b && (n->key & KEY_LIMITED))
        return check_limit(v, b, linear, ram_offset, host); // not remembered: the limit may change
    if (b)
        *e = (struct jump_entry){v->rip, n->stamp, b};
    return b;
}
