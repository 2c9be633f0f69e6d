// SPDX-License-Identifier: GPL-2.0-or-later
// The translator's inside: the context that translated code reaches through gs, blocks, the code cache, the emitter's
// client. How a guest instruction runs here:
//
//   run.c        finds the block for CS:RIP and this mode (cache.c), translating it on first use, and enters it
//   rewrite.c    pages whose code is written all the time: their blocks check themselves
//   compile.c    decodes a trace, computes which flags live, and emits each instruction (translate_*.c)
//   relocate.c   copies the translation of the same code at another address
//   thunks.c     the few hand-written host sequences: enter, leave, slow path, commit, look-up
//   slow.c       what the inline TLB check could not do: fills, devices, tracked pages, page crossings
//   tlb.c, fetch.c, walk.c, shadow.c  what is mapped where
//   signal.c     kicks, and host faults inside translated code
//
// Host registers in translated code: guest RAX..R12 and RSP live in the host's own; guest R13-R15 live in the context.
// r15 (HOST_A) and r14 (HOST_T) are temporaries, r13 (HOST_D) too. gs: the context. Host flags: guest status flags, or
// the context's saved copy, as the compiler tracks; DF and all other flags live in the context.
#ifndef CLOCHE_TRANSLATE_H
#define CLOCHE_TRANSLATE_H

#include <stdio.h>

#include "core/cpu/arch.h"
#include "core/cpu/translate/decode.h"

enum { HOST_D = 13, HOST_T = 14, HOST_A = 15 };

// ---- The software TLB ---------------------------------------------------------------------------------------------

#define FAST_BITS 12
#define FAST_SIZE (1u << FAST_BITS)
struct fast_entry {
    uint64_t tag;  // page address; a value of another slot where it is empty: no address matches
    uint64_t host; // host address of the page
};
enum fast_kind { FAST_USER, FAST_KERNEL, FAST_KERNEL_AC, FAST_KINDS };
// Each kind has a table for reads and one for writes, so that a copy between areas of equal slots keeps both.
#define FAST_TABLES (2 * FAST_KINDS)
static inline unsigned fast_table(unsigned kind, bool write)
{
    return kind * 2 + write;
}

// Low bits of context.tlb_ram.
enum {
    TLB_GLOBAL = 1 << 0, // stays when CR3 is loaded
    TLB_NOTED = 4,       // shift of 1 + index in the space's list of pages; 0: not there
};

#define LARGE_SLOTS 1024

#define FETCH_BITS 13
#define FETCH_SIZE (1u << FETCH_BITS)
#define FETCH_WAYS 4 // slots that a page may get

#define WRITERS      4096
#define WRITERS_WAYS 4
#define WRITERS_MANY 0xffff

#define FILL_LOG  256
#define FETCH_LOG 512

// ---- Modes: everything that changes what code means -----------------------------------------------------------------

enum mode_bit {
    MODE_32 = 1 << 0, // code size; neither: 16
    MODE_64 = 1 << 1,
    MODE_USER = 1 << 2, // CPL 3
    MODE_AC = 1 << 3,   // supervisor with SMAP suspended
    MODE_STACK32 = 1 << 4,
    MODE_X87 = 1 << 5, // x87 and MMX instructions do not trap
    MODE_SSE = 1 << 6,
    MODE_AVX = 1 << 7,
    MODE_AVX512 = 1 << 8,
    MODE_CPL0 = 1 << 9,
    MODE_SMAP = 1 << 10,        // CR4.SMAP: STAC and CLAC change the mode
    MODE_NOSHARE = 1 << 11,     // a translation without shared checks, only reached by its own links
    MODE_UNSUPPORTED = 1 << 31, // interpreted
};

// ---- Counters of why
// -------------------------------------------------------------------------------------------------

#define TRANSLATE_COUNTERS(X)                                                                                          \
    X(enters, "entries into translated code")                                                                          \
    X(links, "direct links made")                                                                                      \
    X(lookups, "indirect jumps looked up")                                                                             \
    X(page_checks, "page links refused by the mapping check")                                                          \
    X(translations, "blocks translated")                                                                               \
    X(relocations, "blocks copied from another address")                                                               \
    X(translated_bytes, "guest bytes translated")                                                                      \
    X(host_bytes, "host bytes emitted")                                                                                \
    X(invalidations, "blocks invalidated by writes to code")                                                           \
    X(rewritten_pages, "times that a page's blocks began to check themselves")                                         \
    X(stale_blocks, "blocks that found themselves out of date")                                                        \
    X(cache_flushes, "code cache flushes")                                                                             \
    X(cache_rests, "code caches given back by a guest that rests")                                                     \
    X(fills, "TLB entries filled")                                                                                     \
    X(shadow_hits, "TLB fills served by shadow tables")                                                                \
    X(space_switches, "address space switches")                                                                        \
    X(space_news, "address spaces met for the first time, or again too late")                                          \
    X(space_stale, "shadowed pages whose tables had changed")                                                          \
    X(short_walks, "TLB fills by the short walk")                                                                      \
    X(walks, "TLB fills by the full guest table walk")                                                                 \
    X(flushes, "TLB flushes")                                                                                          \
    X(revocations, "page write revocations")                                                                           \
    X(large_searches, "searches for the pieces of a large page")                                                       \
    X(mmio, "device accesses")                                                                                         \
    X(shared_misses, "shared checks that failed")                                                                      \
    X(shared_refused, "shared checks that cannot hold")                                                                \
    X(crossings, "accesses over a page border")                                                                        \
    X(tracked_writes, "writes to tracked pages")                                                                       \
    X(interpreted, "instructions given to the interpreter")                                                            \
    X(mode_instructions, "instructions of modes that are not translated")                                              \
    X(interpreted_mode, "interpreter slices for modes that are not translated")                                        \
    X(interpreted_fault, "instructions interpreted for their fault")                                                   \
    X(delivered, "page faults delivered without the interpreter")                                                      \
    X(system, "system instructions served without the interpreter")                                                    \
    X(strings, "string operations")                                                                                    \
    X(interpreted_string, "string operations given to the interpreter")                                                \
    X(vector_loads, "vector state loads")                                                                              \
    X(vector_saves, "vector state saves")                                                                              \
    X(kicks, "kicks received in translated code")                                                                      \
    X(steps, "host instructions stepped to a boundary")

struct translate_counters {
#define X(name, text) uint64_t name;
    TRANSLATE_COUNTERS(X)
#undef X
};

// ---- The context
// ------------------------------------------------------------------------------------------------------

enum exit_reason { EXIT_LOOKUP, EXIT_LINK, EXIT_INTERPRET, EXIT_KICK, EXIT_ABORTED, EXIT_VECTOR, EXIT_STALE };

struct translator;

#define SHARES 4 // shared checks in force at a time

// Pieces of the physical map that walks and fills met last; dropped with the TLB.
#define NEAR_MAPPINGS 4
struct near_mapping {
    uint64_t start, size; // size 0: empty
    uint8_t *host;
    uint64_t ram_offset;
    bool writable;
};

struct space;

// One per vCPU, in the arena; its own thread's, except `kicked`. Hot members first.
struct context {
    struct context *self;
    struct vcpu *vcpu;
    struct translator *translator;
    uint64_t high[3];        // guest R13, R14, R15
    uint32_t saved_flags;    // lahf form: OF in bit 0, the rest in bits 8-15
    uint32_t other_flags;    // RFLAGS but for status flags, DF and IF
    uint32_t direction;      // FLAG_DF or 0
    uint32_t interrupt_flag; // FLAG_IF or 0
    uint32_t vector_loaded;  // the guest's vector state is in the processor
    _Atomic uint32_t kicked; // leave at the next boundary
    uint32_t exit_reason;
    uint64_t fs_base, gs_base;
    uint64_t host_rsp, guest_rsp;
    uint64_t save[12]; // thunks: rax, rcx, rdx, rsi, rdi, r8-r11
    uint64_t slow_address, slow_site, slow_host, slow_value;
    uint64_t link_site, jump_from;
    uint64_t noshare_at;     // see translator.single: where the next block is one without shared checks
    uint64_t shared[SHARES]; // host addresses of what shared checks cover
    _Atomic uint64_t inside; // generation of the code cache that translated code was entered in; 0: it was left
    _Atomic uint64_t thread; // host thread id, 0 before the first run
    uint64_t retired;        // instructions of blocks, where they are counted
    uint64_t host_flags;
    uint32_t host_mxcsr;
    uint32_t vector_mask[2]; // of XSAVE and XRSTOR: edx:eax
    uint32_t avx512_mask;    // of XSAVEC and XRSTOR of that state, 0: the guest has switched it off
    uint32_t native_fault;   // signal that an instruction of native.c raised
    uint32_t native_length;  // of that instruction
    uint32_t mode;
    uint32_t stale; // EXIT_STALE: index of the block that is
    struct near_mapping near[NEAR_MAPPINGS];
    uint32_t near_next;
    // a write under way that the commit finishes
    struct {
        uint64_t address, gpa[2], ram_offset;
        uint8_t *host[2];
        uint32_t size;
        uint8_t kind;
    } pending;
    uint64_t generation; // of the code cache that `fetch` and the links refer to
    uint8_t bounce[4096 + 128] __attribute__((aligned(64)));
    uint32_t fetch[FETCH_SIZE]; // ids of pages that are mapped as they were when their code was translated
    struct fetch_info {
        uint64_t page;
        uint32_t mode;
        bool global;
        uint64_t ram_page;
    } fetch_info[FETCH_SIZE];
    struct fast_entry tlb[FAST_TABLES][FAST_SIZE] __attribute__((aligned(64)));
    uint64_t tlb_ram[FAST_TABLES][FAST_SIZE]; // ram offset of each entry's page, and TLB_* flags; UINT64_MAX: empty
    uint16_t fill_log[FAST_TABLES][FILL_LOG]; // slots of entries that are not global
    uint32_t fill_count[FAST_TABLES];         // more than FILL_LOG: any slot
    // By a hash of the ram page: where write tables may have it, 1 + kind * FAST_SIZE + slot; or WRITERS_MANY first.
    uint16_t writers[WRITERS][WRITERS_WAYS];
    // The modes, but for MODE_AC, of the entries in `fetch` for programs and for the kernel: all of one.
    uint32_t fetch_modes[2];
    uint16_t fetch_log[FETCH_LOG]; // the same for fetch
    uint32_t fetch_count;
    // Large pages that the TLB may hold pieces of: global ones, others. See large_note().
    uint32_t large[2][LARGE_SLOTS];
    bool large_any[2];
    struct space *space, *spaces; // the present one, or NULL; all
    uint32_t space_generation;
    struct translate_counters counters;
};

// ---- Blocks
// -----------------------------------------------------------------------------------------------------------

enum flags_place { FLAGS_HOST, FLAGS_SAVED };

// Where a guest instruction begins in host code: offsets from the block's start.
struct boundary {
    uint32_t host : 18;
    uint32_t guest : 12;
    uint32_t flags : 1; // enum flags_place, before the instruction
    uint32_t fault : 1; // the same where its core faults
};

// What in a block depends on its place or its guest address.
enum reloc_kind { RELOC_OUT, RELOC_GUEST, RELOC_SLOW, RELOC_LINK, RELOC_SYSTEM, RELOC_FETCH, RELOC_TLB };
struct reloc {
    uint32_t at : 24; // from the block's start
    uint32_t kind : 8;
};

#define NO_PAGE UINT64_MAX

struct block {
    uint64_t address;  // linear, of its first byte
    uint64_t ram_page; // ram offset of its page
    uint8_t *host;     // executable address: entry for direct links
    uint8_t *indirect; // entry that verifies HOST_A
    uint8_t *end;
    uint8_t *stubs; // end of the straight code
    uint8_t *leave; // where the entry of a dead block goes
    struct boundary *boundary;
    struct reloc *reloc;
    uint64_t second_page; // ram offset of the page that its one instruction ends in, or NO_PAGE
    uint32_t mode;
    uint32_t page_id;
    uint32_t hash_next;   // index + 1 in translator->blocks
    uint32_t page_next;   // next block of the same ram page
    uint32_t second_next; // next block that ends in that page
    uint16_t length;      // guest bytes
    uint16_t boundaries;
    uint16_t relocs;
    bool dead;
    bool fixed;  // cannot be copied to another address
    bool checks; // its own bytes whenever it is entered: nobody watches them (rewrite.c)
    bool shares; // has shared checks: leaves after accesses that may have waited
};

// One page of RAM with guest code.
struct code_page {
    uint64_t ram_page;
    uint32_t first_block;    // index + 1, of all modes and addresses
    uint32_t first_tail;     // of blocks whose one instruction ends in this page
    uint32_t first_checking; // of blocks that check themselves; the lists above hold none
    uint64_t bitmap[8];      // what was translated or looked at for that, one bit per 8 bytes
    // rewrite.c
    int64_t since; // microseconds: of WRITES, or since when REWRITTEN
    uint32_t writes;
    bool rewritten;
    struct code_page *next_rewritten;
};

// In slow_site.use:
#define USE_SHARED 4 // a check for several accesses
#define USE_X87    8 // of an x87 or MMX instruction, or one that changes MXCSR before it faults
#define USE_LOCKED 16
#define USE_PAGE   32 // the access adds where in its page it is: it takes the page's host address

// One access that can leave the inline path; lies in the code cache behind its stub.
struct slow_site {
    uint32_t resume; // executable addresses (the arena lies below 4 GiB)
    uint32_t copy;   // out-of-line copy of the access, ends in a commit
    uint32_t after;  // first host instruction of the next guest instruction
    uint16_t size;
    uint8_t use;    // USE_READ | USE_WRITE | ...
    uint8_t kind;   // enum fast_kind
    uint16_t guest; // offset of the instruction in its block
    uint8_t length;
    uint8_t flags_after; // enum flags_place
    uint32_t block;      // index
} __attribute__((packed));

#define LINK_MADE 0x65 // first byte of a page check that was filled in

struct link_site {
    uint64_t target; // guest address
    uint32_t field;  // executable address of the rel32 to patch
    uint32_t check;  // address of the page-check sequence to fill in, or 0
    uint32_t stub;   // where the field leads until the link is made; 0: the field is a dead block's entry
    uint32_t block;  // index of the block that leaves
    uint32_t live;   // flags that the target needs (known when translated)
    bool noshare;    // the target is a translation without shared checks
} __attribute__((packed));

struct thunks {
    uint8_t *enter, *enter_end;                // enter(context, host address)
    uint8_t *abort;                            // leave from inside `enter`
    uint8_t *exit_host, *exit_saved;           // HOST_A: next RIP; context->exit_reason is set
    uint8_t *link;                             // direct link not made yet: HOST_T: link_site
    uint8_t *lookup;                           // indirect miss: HOST_A: RIP; flags are saved
    uint8_t *interpret_host, *interpret_saved; // HOST_A: RIP of the instruction
    uint8_t *slow, *slow_return;               // HOST_A: address, HOST_T: slow_site
    uint8_t *commit;                           // HOST_T: slow_site
    uint8_t *system;                           // HOST_T: system_site; flags are saved
    uint8_t *vector;                           // HOST_T: resume address; loads vector state; flags lost
    uint8_t *return_end;                       // end of the code that returns from helpers into blocks
};

#define HASH_BITS    18
#define CONTEXT_SIZE ALIGN_UP(sizeof(struct context), 65536ull)

#define CODE_SIZE   (256 * MiB)
#define THUNK_SIZE  4096 // of which the end is NATIVE_SIZE for each vCPU
#define NATIVE_SIZE 32
#define HALF_SIZE   ((CODE_SIZE - THUNK_SIZE) / 2)
#define BLOCK_MAX   (1024 * 1024u)

// When the code cache is begun anew (renew.c).
struct renewal {
    size_t limit_most;          // bytes of a half that may be used
    int64_t since;              // processor time when the present half was begun
    _Atomic int64_t rest_since; // microseconds: since when the guest may rest
    int64_t rest_used;          // processor time then
    // The last half: not given back yet; all vCPUs have passed since; how far it was used.
    bool busy;
    _Atomic bool passed;
    size_t old_used;
};

struct translator {
    struct cpu_set *set;
    GMutex lock; // translation, links, invalidation
    int memfd;
    uint8_t *arena; // writable; contexts first
    size_t arena_size;
    uint8_t *code_write; // the code cache through its writable mapping
    uint8_t *code;       // and through its executable one
    size_t code_size;
    size_t used, limit; // bytes of the current half; end of it
    size_t populated;   // up to here the host was asked for memory
    size_t code_at;     // of the code cache in the memory file
    struct renewal renewal;
    unsigned half;
    struct thunks thunks;
    uint64_t *jumps; // host address by fast_kind and low bits of the guest address, shared by all vCPUs
    struct block *blocks;
    uint32_t block_count, block_first, block_limit;
    uint32_t hash[1 << HASH_BITS];
    GHashTable *pages;                // ram page -> struct code_page
    GHashTable *ids;                  // of mapped code pages
    uint64_t fetch_pages[FETCH_SIZE]; // fetch.c: whose slot it is
    uint32_t next_page_id;
    struct fact_table *facts;
    uint32_t *donors; // relocate.c
    uint64_t generation;
    FILE *perf_map;
    bool tracking;                // translator_written() is the tracker of code pages
    ram_tracker_fn *next_tracker; // who was it before: the interpreter
    void *next_tracker_opaque;
    struct code_page *rewritten; // all that are
    bool single;      // no links: every block comes back to C. For tests, which look at the state after each one
    bool exact_flags; // status flags that no code reads are kept, too (CLOCHE_EXACT_FLAGS)
    bool counting; // blocks count their instructions (CLOCHE_COUNT_INSTRUCTIONS), and these what the interpreter gets
    uint32_t *handed; // by mnemonic
    bool plain_clock; // reading the clock leaves the vector registers alone
};

#define JUMP_BITS 16
static inline uint64_t *jump_table(const struct translator *t, unsigned kind)
{
    return t->jumps + ((size_t)kind << JUMP_BITS);
}

// cache.c
bool translator_init(struct translator *t, struct cpu_set *set, GError **error);
void translator_clear(struct translator *t);
struct block *block_find(struct translator *t, uint64_t address, uint32_t mode, uint64_t ram_page);
struct block *block_new(struct translator *t, uint64_t address, uint32_t mode, uint64_t ram_page);
void block_publish(struct translator *t, struct block *block);
struct block *block_at_host(struct translator *t, uint64_t host);
void block_kill(struct translator *t, struct block *b);
struct code_page *code_page_get(struct translator *t, uint64_t ram_page, bool create);
void translator_written(void *opaque, uint64_t ram_offset, uint64_t length, enum ram_write_phase phase);
uint32_t code_page_id(struct translator *t, uint64_t page, uint32_t mode, uint64_t ram_page);
void translator_forget_blocks(struct translator *t); // nothing finds or enters them any more
static inline uint32_t host32(const void *p)
{
    return (uint32_t)(uintptr_t)p;
}
static inline uint8_t *writable(struct translator *t, const void *executable)
{
    return t->code_write + ((const uint8_t *)executable - t->code);
}

// Are all writes to the page seen? Not while another processor's right to write is still being taken away.
static inline bool code_watched(const struct ram *ram, uint64_t ram_page)
{
    return (ram_tracked(ram, ram_page) & (TRACK_CODE | TRACK_REVOKING)) == TRACK_CODE;
}

// rewrite.c: translator lock held.
// Do the blocks of this page check themselves?
bool page_rewritten(struct translator *t, uint64_t ram_page);
// Kills the page's blocks but for those that check themselves; returns how many.
unsigned page_forget(struct translator *t, struct code_page *page);
// A write met a watched page; HIT: blocks died by it. True: from now on the page's blocks check themselves, and those
// that there were are dead.
bool page_written(struct translator *t, struct code_page *page, bool hit);
void block_stale(struct translator *t, uint32_t index);
void rewritten_forget(struct translator *t); // all pages go
// Pages that have been watched by their blocks for long become plain ones again. Without the lock.
void rewritten_rest(struct translator *t);

// renew.c
void renewal_init(struct translator *t);
// The half is full: may more of it be used? Translator lock held.
bool renewal_grow(struct translator *t);
// Begins the cache anew where it is large and the guest rests; as translator_renew().
void renewal_rest(struct context *c);
// The code cache is full: an empty half from here on. No lock held; waits for every vCPU.
void translator_renew(struct translator *t);
void renewal_finish(struct translator *t); // where renewal.passed is set: when a vCPU has left translated code

// relocate.c: translator lock held.
void donor_add(struct translator *t, const struct block *b);
void donors_forget(struct translator *t);
// A copy of the same code's translation at another address, or NULL. What it jumped to comes along.
struct block *block_relocate(struct context *c, uint64_t address, uint32_t mode, uint64_t ram_page);

// compile.c: translator lock held. NULL: the cache is full.
// SECOND_PAGE: where the next page of code lies, or NO_PAGE if it is not mapped.
// CHECKS: the block is to check its own bytes.
struct block *block_translate(struct context *c, uint64_t address, uint32_t mode, uint64_t ram_page,
                              uint64_t second_page, bool checks);
// Does the instruction at ADDRESS run over the end of its page?
bool insn_spans_pages(struct translator *t, uint64_t address, uint32_t mode, uint64_t ram_page);
void link_make(struct translator *t, const struct link_site *site, struct block *target);

// thunks.c
void thunks_emit(struct translator *t);

// tlb.c
static inline uint64_t invalid_tag(unsigned slot)
{
    return (uint64_t)(slot ^ 1) << PAGE_SHIFT; // no address of this slot has it
}
// One entry; FLAGS: TLB_*. Logged if it is not global.
void tlb_set(struct context *c, unsigned table, uint64_t page, uint64_t ram_page, unsigned flags);
struct trail;
// PAGE leads to RAM_PAGE by TRAIL. WRITE: the access that missed; its table gets the page. The other table gets it too
// where it is allowed (WRITABLE) and its slot is empty.
void tlb_fill(struct context *c, unsigned kind, uint64_t page, uint64_t ram_page, bool write, bool writable,
              const struct trail *trail);
void tlb_flush(struct context *c);
void tlb_flush_space(struct context *c); // all but global entries
// The TLB may hold a piece of the page of 2^SHIFT bytes around PAGE, which is GLOBAL or not.
void large_note(struct context *c, uint64_t page, unsigned shift, bool global);
void tlb_flush_page(struct context *c, uint64_t address);
void tlb_revoke(struct context *c, uint64_t ram_offset);

// fetch.c
// The slot of context->fetch that is PAGE's in this MODE, for all contexts, until the code cache is flushed.
unsigned fetch_slot(struct translator *t, uint64_t page, uint32_t mode);
void fetch_slots_forget(struct translator *t);
void fetch_set(struct context *c, unsigned slot, uint64_t page, uint32_t mode, uint32_t id, uint64_t ram_page,
               bool global);
void fetch_flush(struct context *c);
void fetch_flush_space(struct context *c);
void fetch_flush_range(struct context *c, uint64_t start, uint64_t size);
void fetch_flush_page(struct context *c, uint64_t page);
// Every change of context->mode but STAC and CLAC. Jump tables and code pages are looked up by kind (program, kernel,
// kernel with AC) only, so no entry of another mode of the same kind may stay.
void mode_set(struct context *c, uint32_t mode);

// slow.c
uint64_t translate_slow(struct context *c);
uint64_t translate_commit(struct context *c);
uint64_t translate_lookup(struct context *c, uint64_t address);
uint64_t translate_jump(struct context *c, uint64_t address);
uint64_t translate_link(struct context *c);

// Fills the entry of ADDRESS if it is plain memory and allowed. False: leave it to the interpreter.
bool tlb_fill_plain(struct context *c, uint64_t address, unsigned kind, bool write);
// Where ADDRESS lies and may be written between ram_write_begin() and ram_write_end(), if its page is watched. NULL: it
// is not, or that takes longer to find out.
void *tlb_tracked_host(struct context *c, uint64_t address, unsigned kind, uint64_t *ram_offset);

// walk.c
// What a short walk met: the entries above the leaf, and the leaf in its table.
struct trail {
    const void *upper[3]; // host addresses
    uint64_t upper_value[3];
    unsigned uppers;
    const void *table; // host address
    uint64_t leaf;
    uint8_t shift; // of the leaf's index: 12, 21, 22, 30; 0: paging is off
    bool narrow;   // entries of 4 bytes
    bool global;
    bool dirty;   // may be written without another walk
    bool unknown; // page_walk() found it: only SHIFT and DIRTY hold
    uint64_t gpa;
};
const struct near_mapping *near_mapping_find(struct context *c, uint64_t gpa);
const struct near_mapping *near_mapping_get(struct context *c, uint64_t gpa);
void near_mappings_drop(struct context *c);
// ACCESS: ACCESS_WRITE, ACCESS_FETCH or 0. False: not decided, page_walk() knows.
bool short_walk(struct context *c, uint64_t address, unsigned kind, unsigned access, struct trail *trail);

// shadow.c
void spaces_init(struct context *c);
void spaces_free(struct context *c);
void spaces_forget(struct context *c);      // what walks mean has changed
void spaces_forget_code(struct context *c); // page ids are not valid any more
// CR3 was loaded: what is not global leaves the TLB, what the new space had and still has comes back.
void space_switch(struct context *c);
// PAGE, which is not global, is in the tables of KIND that are set in USE (1: reads, 2: writes). TRAIL leads to it; its
// DIRTY: may be written but for tracking.
void space_note(struct context *c, unsigned kind, uint64_t page, unsigned use, const struct trail *trail);
void space_note_fetch(struct context *c, unsigned slot, const struct trail *trail);
static inline uint64_t trail_entry(const void *table, uint64_t index, bool narrow)
{
    return narrow ? __atomic_load_n((const uint32_t *)table + index, __ATOMIC_RELAXED)
                  : __atomic_load_n((const uint64_t *)table + index, __ATOMIC_RELAXED);
}

// system.c
uint64_t translate_system_op(struct context *c);
uint32_t mode_of(const struct vcpu *v);
// Goes on at RIP in whatever mode the vCPU is now; flags are in the saved copy.
uint64_t go_on(struct context *c, uint64_t rip);
void set_flags(struct context *c, uint64_t flags); // all of RFLAGS; RF is dropped

// deliver.c
// Host address of SIZE bytes at ADDRESS in one page of plain memory, or NULL.
void *tlb_host(struct context *c, unsigned kind, uint64_t address, unsigned size, bool write);
// A descriptor of the GDT. False: leave it to the interpreter.
bool descriptor_load(struct context *c, uint16_t selector, uint64_t *descriptor);
// Delivers an exception in long mode out of translated code: fault at RIP, flags in the saved copy. 0: not the plain
// case, nothing has changed; else where to go on.
uint64_t event_deliver(struct context *c, unsigned vector, int64_t error, uint64_t rip);

// run.c
// One block, or one instruction where that is interpreted; interrupts are the caller's. For tests, with `single` set.
enum engine_exit translate_step(struct vcpu *v);
void context_load(struct context *c);   // from struct vcpu
void context_store(struct context *c);  // into struct vcpu
void vector_prepare(struct context *c); // vector state in struct vcpu for loading it into the processor
bool fetch_page(struct context *c, uint64_t address, uint32_t mode, uint64_t *ram_page);
// The block at ADDRESS, if it is there or can be copied; a link from SITE to it, if not NULL, is made. Not for single
// steps. NULL: block_get() knows.
struct block *block_at_hand(struct context *c, uint64_t address, uint32_t mode, uint64_t ram_page,
                            const struct link_site *site);

// native.c
int translate_native(struct vcpu *v, struct native_insn *insn);
// Where the context runs such an instruction: an executable address.
static inline uint8_t *native_slot(const struct context *c)
{
    return c->translator->code + THUNK_SIZE - NATIVE_SIZE * (c->vcpu->index + 1);
}

// signal.c
bool signals_install(GError **error);
void signals_prepare_thread(struct context *c);
void context_kick(struct context *c);

// describe.c
uint64_t translate_mapped_twice(struct cpu_set *set);
char *translate_describe(struct cpu_set *set);
// Guest and host code of the block whose translation holds the host address HOST; NULL: none. Free with g_free().
char *translate_dump_block(struct translator *t, uint64_t host);

#endif
