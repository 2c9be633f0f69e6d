// SPDX-License-Identifier: GPL-2.0-or-later
// The compiler of one block: its instructions, where the flags are, and the stubs that go behind the block.
#ifndef CLOCHE_TRANSLATE_COMPILE_H
#define CLOCHE_TRANSLATE_COMPILE_H

#include "core/cpu/translate/emit.h"
#include "core/cpu/translate/system.h"

#define TRACE_MAX   48 // instructions
#define TRACE_JUMPS 6  // conditional jumps that a trace runs past
#define STUBS_MAX   (TRACE_MAX * 3 + 8)

struct trace_insn {
    struct guest_insn insn;
    struct fact fact;
    const uint8_t *bytes;
    uint16_t offset;                  // from the block's address
    uint16_t live_before, live_after; // status flags
};

enum stub_kind { STUB_SLOW, STUB_LINK, STUB_VECTOR, STUB_SYSTEM, STUB_INTERPRET, STUB_LOOKUP, STUB_SHARE, STUB_MASKED, STUB_STALE };

struct stub {
    uint8_t kind;   // enum stub_kind
    uint8_t *field; // writable rel32 that jumps to the stub
    // STUB_SLOW
    uint8_t *core, *core_end; // writable range of the access that the stub repeats
    uint16_t size, guest;
    uint8_t use, length, flags_after;
    bool boundary_after;
    bool core_known;
    bool constant, moves; // the access is to TARGET, which moves with the block
    // STUB_LINK
    uint64_t target;
    uint16_t live;
    bool noshare; // leads to a translation without shared checks
    // STUB_SYSTEM
    uint8_t *more[6]; // further fields that jump here
    unsigned more_count;
    uint64_t next;
    uint8_t op, opcode, rep;
};

// A check that covers [base + from, base + to) of the base register as it was at the check; since then it moved by
// `moved`. The host address of the first byte is in HOST_D, or in the context.
struct share {
    bool valid, in_register;
    uint8_t base, use;
    int64_t from, to, moved;
};

struct compiler {
    struct share shares[SHARES];
    struct context *context;
    struct translator *t;
    struct block *block;
    struct emitter e;
    uint64_t address, page;   // of the block, of its page
    const uint8_t *host_page; // guest bytes of the page
    uint64_t peeked;          // another page that liveness looked at
    const uint8_t *peeked_host;
    uint64_t second_page;    // ram offset of the next page of code, or NO_PAGE
    bool checks;             // the block is to check its own bytes
    uint8_t copy[PAGE_SIZE]; // of the page, where it checks: what is translated and what is checked are the same
    uint8_t joined[16];      // the bytes of an instruction that runs over the page's end
    uint32_t mode;
    unsigned bits; // 32, 64
    struct trace_insn insns[TRACE_MAX];
    unsigned count;
    struct trace_insn *i; // being emitted
    struct boundary boundaries[TRACE_MAX + 1];
    unsigned boundary_count;
    struct reloc relocs[RELOCS_MAX];
    struct stub stubs[STUBS_MAX];
    unsigned stub_count;
    struct {
        uint64_t address;
        uint16_t live;
        bool far;
    } known[TRACE_JUMPS + 4]; // what flags_live_at() said
    unsigned known_count;
    uint64_t peeks[8];            // bytes of the page that it looked at, one bit per 8 of them
    bool host_valid, saved_valid; // where the guest's status flags are
    bool clobbered;               // host flags were lost within the current instruction
    bool vector_checked;
    bool no_boundary; // the next instruction belongs to this one
    bool ended;       // the last instruction left the block
};

// ---- Flags
// Before host flags are clobbered in front of the current instruction.
void flags_clobber(struct compiler *c);
// Host flags hold the guest's from here on (HOST_T may be lost).
void flags_need_host(struct compiler *c);
// The saved copy holds the guest's.
void flags_need_saved(struct compiler *c);
void flags_restore_sequence(struct emitter *e);
// After an instruction that changed (some) flags natively.
static inline void flags_changed(struct compiler *c)
{
    c->host_valid = true;
    c->saved_valid = false;
}
#define FLAGS_ALL FLAGS_STATUS

// Where the host finds a guest's memory operand.
struct place {
    uint8_t base; // host register
    int32_t disp;
};

// ---- translate_memory.c
// Linear address of the current instruction's memory operand to HOST_A. Flags are lost; HOST_T may be.
void emit_address(struct compiler *c);
// Effective address without segment base.
void emit_effective(struct compiler *c);
// Checks SIZE bytes at HOST_A for USE and makes it a host address. Then the core follows, closed by check_end().
void check_begin(struct compiler *c, unsigned size, unsigned use);
// The same for the current instruction's memory operand: *PLACE is where the core finds it. Flags are lost.
void check_operand(struct compiler *c, unsigned size, unsigned use, struct place *place);
// BOUNDARY: the instruction is complete after the core.
void check_end(struct compiler *c, bool boundary);
void translate_plain(struct compiler *c);
void translate_lea(struct compiler *c);
// Guest register to a host register that may be read: itself, or SCRATCH loaded with it.
unsigned guest_to_host(struct compiler *c, unsigned guest, unsigned scratch);
void store_guest(struct compiler *c, unsigned guest, unsigned host); // 64 bits

// The compare and its stub alone; HOST_T is left at the entry that check_entry() names members of.
struct stub *check_inline(struct compiler *c, unsigned size, unsigned use);
struct mem check_entry(struct compiler *c, unsigned use, size_t member);

// ---- translate_share.c
// *PLACE of SIZE bytes at [BASE + DISP] (BASE as now) for USE, if a shared check covers or begins to cover it. False:
// it needs its own. HOST_A and flags may be lost; HOST_T too.
bool share_reach(struct compiler *c, unsigned base, int64_t disp, unsigned size, unsigned use, struct place *place);
// The same for the ModRM operand of the current instruction.
bool share_access(struct compiler *c, struct place *place);
void share_step(struct compiler *c);

// ---- translate_flow.c
void translate_jcc(struct compiler *c);
void translate_loop(struct compiler *c);
void translate_jmp(struct compiler *c);
void translate_call(struct compiler *c);
void translate_ret(struct compiler *c);
void emit_link(struct compiler *c, uint64_t target, bool far); // jmp, at the end of the block
void translate_interpret(struct compiler *c);                  // leave, to have this instruction interpreted

// ---- translate_stack.c
bool translate_push(struct compiler *c); // false: leave it to the interpreter
bool translate_pop(struct compiler *c);
void translate_leave(struct compiler *c);

// ---- translate_check.c
void check_own_bytes(struct compiler *c);
// Of blocks that check themselves: the current instruction, which loads an immediate, loads what is there when it runs.
// False: it is nothing of the kind.
bool translate_loose(struct compiler *c);
bool writes_memory(const struct trace_insn *i);

// ---- translate_system.c
bool translate_system(struct compiler *c);

uint16_t flags_live_at(struct compiler *c, uint64_t address, bool far);
static inline uint64_t insn_address(const struct compiler *c)
{
    return c->address + c->i->offset;
}
static inline uint64_t next_address(const struct compiler *c)
{
    uint64_t a = insn_address(c) + c->i->insn.length;
    return c->bits == 64 ? a : (uint32_t)a;
}
static inline unsigned fast_kind_of(const struct compiler *c)
{
    return c->mode & MODE_USER ? FAST_USER : c->mode & MODE_AC ? FAST_KERNEL_AC : FAST_KERNEL;
}
static inline unsigned stack_size(const struct compiler *c)
{
    return c->bits == 64 ? 8 : 4;
}
struct stub *stub_new(struct compiler *c, unsigned kind, uint8_t *field);

#endif
