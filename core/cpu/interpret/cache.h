// SPDX-License-Identifier: GPL-2.0-or-later
// Inside the interpreter: its state, blocks, the lookup of code.
//
// Blocks are keyed by the RAM offset of their first byte and by what changes the meaning of the bytes (mode key). They
// belong to one vCPU. Pages with blocks carry TRACK_CODE; a write that overlaps a block makes it stale on every vCPU
// that has it: the writer's own blocks at once (each of its instructions then stops), those of others through their
// invalidation queue.
#ifndef CLOCHE_INTERPRET_CACHE_H
#define CLOCHE_INTERPRET_CACHE_H

#include "core/cpu/interpret/interpret.h"

// Mode key
#define KEY_CODE_SIZE 3u // 0: 16-bit, 1: 32-bit, 2: 64-bit
#define KEY_STACK32   BIT(2)
#define KEY_FLAT      BIT(3) // legacy modes: CS, DS, ES, SS have base 0 and limit 4 GiB
#define KEY_REAL      BIT(4) // real or virtual-8086 mode
#define KEY_LONG      BIT(5) // EFER.LMA
#define KEY_LIMITED   BIT(6) // CS has a limit or base that block lookup must check
#define KEY_SINGLE    BIT(7) // one instruction per block
#define KEY_TS        BIT(8)
#define KEY_EM        BIT(9)
#define KEY_MP        BIT(10)
#define KEY_OSFXSR    BIT(11)
#define KEY_AVX       BIT(12) // OSXSAVE and XCR0 allow it
#define KEY_OSXSAVE   BIT(13)
#define KEY_USER      BIT(14) // CPL 3: what the kernel may run, a program may not
#define KEY_AVX512    BIT(15) // XCR0 allows that too

#define BLOCK_INSNS 64
#define PAGE_CHAINS 1

struct block {
    uint64_t ram_offset; // of the first byte
    uint32_t key;
    uint16_t size;  // bytes
    uint16_t count; // instructions, without the terminator
    bool stale;
    uint64_t second_page; // RAM offset of the second page, or NO_PAGE
    struct block *next_hash;
    struct block *next_page;   // of blocks that start in the same page
    struct block *next_second; // of blocks whose tail lies in the second page
    struct insn insns[];
};
#define NO_PAGE (~0ull)

struct jump_entry {
    uint64_t rip;
    uint64_t stamp;
    struct block *block;
};
struct fetch_entry {
    uint64_t tag;        // linear page | space
    uint64_t ram_offset; // of the page
    const uint8_t *host;
};
struct page_blocks {
    struct block *starting, *tails;
};
struct invalidation {
    uint64_t ram_offset, length;
};

#define JUMP_BITS      12
#define FETCH_BITS     8
#define HASH_BITS      14
#define ATTENTION_STEP BIT(31) // own thread: stop after every instruction

struct interpreter {
    struct vcpu *vcpu;
    uint32_t key;
    uint64_t stamp; // generation << 16 | key, compared by the jump cache
    uint64_t generation;
    enum tlb_kind kind;
    struct block **hash;       // 1 << HASH_BITS
    struct page_blocks *pages; // by RAM page, allocated on attach
    uint64_t page_count;
    struct block *graveyard; // stale blocks, freed between blocks
    uint64_t blocks;
    struct insn *link_from; // direct branch that wants to be linked to the block found next
    unsigned link_index;
    bool interrupt_waiting, nmi_waiting;
    bool noncanonical;   // the last #GP came from a non-canonical address
    int exit;            // 1 + enum engine_exit, or 0
    unsigned debug_hits; // DR6 bits of data breakpoints
    unsigned pauses;     // executed
    bool keeps_rf;       // the instruction loaded RF itself (IRET)
    struct {
        uint64_t address, mask; // mask 0: none
    } large[2];        // regions that large pages were loaded for: in the lower and in the upper half of the addresses
    GMutex queue_lock; // guards the queue: any thread
    GArray *queue;     // struct invalidation
    _Atomic bool queue_filled;
    struct block *one; // scratch block of the fallback
    ZydisDecoder decoders[6];
    struct jump_entry jump[1 << JUMP_BITS];
    struct fetch_entry fetch[2][1 << FETCH_BITS];
    struct tlb_entry tlb[TLB_KINDS][TLB_SIZE];
    uint64_t written[64]; // a bit for each page that entries of this space let be written, by a hash of it
};

static inline struct block *block_of(const struct insn *i)
{
    return (struct block *)((char *)(i - i->position) - offsetof(struct block, insns));
}

static inline unsigned jump_slot(uint64_t rip)
{
    return (unsigned)(rip ^ rip >> JUMP_BITS) & ((1u << JUMP_BITS) - 1);
}

// ---- cache.c ----
// The block at v->rip in the present mode, decoding it if need be. NULL: a fault was recorded.
struct block *block_lookup(struct vcpu *v);
void cache_flush(struct interpreter *n);
void cache_bury(struct interpreter *n); // frees stale blocks; between blocks only
void cache_drain_queue(struct interpreter *n);
// Set-wide part: which vCPUs have code from which page.
bool interpret_set_init(struct cpu_set *set, GError **error);
void interpret_set_free(struct cpu_set *set);

// ---- decode.c ----
void decode_init(struct interpreter *n);
enum decode_status { DECODE_OK, DECODE_MORE, DECODE_UD, DECODE_TOO_LONG };
// Decodes one instruction of at most AVAILABLE bytes at OFFSET of a block into I. Fills i->run.
enum decode_status decode_insn(struct vcpu *v, uint32_t key, const uint8_t *bytes, unsigned available, unsigned offset,
                               unsigned position, struct insn *i);
void decode_terminator(struct insn *i, unsigned offset, unsigned position);
bool insn_ends_block(const struct insn *i);

// ---- tlb.c ----
// RAM behind the code at LINEAR. False: a fault was recorded.
bool fetch_translate(struct vcpu *v, uint64_t linear, uint64_t *ram_offset, const uint8_t **host);
void tlb_select(struct interpreter *n);

// ---- run.c ----
uint32_t mode_key(const struct vcpu *v);
insn_handler insn_stale, insn_undefined, insn_too_long, insn_no_math, insn_sensitive, insn_block_end;
// Where flow instructions go on: LINK is the block's link slot (0, 1), or -1 for computed targets.
const struct insn *flow_slow(struct vcpu *v, const struct insn *i, int link);

static inline __attribute__((always_inline)) const struct insn *flow_to(struct vcpu *v, const struct insn *i,
                                                                        uint64_t rip, int link)
{
    v->instructions += i->position + 1u;
    v->rip = rip;
    if (G_UNLIKELY(atomic_load_explicit(&v->attention, memory_order_relaxed)))
        return NULL;
    if (link >= 0 && i->link[link])
        return i->link[link]->insns;
    const struct interpreter *n = v->interpreter;
    const struct jump_entry *e = &n->jump[jump_slot(rip)];
    if (G_LIKELY(e->rip == rip && e->stamp == n->stamp) && link < 0)
        return e->block->insns;
    return flow_slow(v, i, link);
}

#endif
