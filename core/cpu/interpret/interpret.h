// SPDX-License-Identifier: GPL-2.0-or-later
// The reference interpreter: decoded instructions, what a handler is, guest memory for handlers, the instruction table.
//
// A block is a run of decoded instructions from one page; each instruction carries its handler, and the dispatch loop
// is `i = i->run(v, i)`. A handler returns i + 1 to go on, or NULL to stop: either it faulted (vcpu_fault() was called,
// and nothing architectural has changed), or it ended the block and left the new RIP in v->rip.
//
// While a block runs, v->rip is the address of the block's first byte (RIP of an instruction: v->rip + i->offset), and
// the status flags live in v->flags_result and v->flags_aux (flags.h). Rows of class CLASS_SENSITIVE are wrapped:
// their handlers see exact v->rip (of this instruction) and v->rflags, and set v->rip themselves (insn_next_rip()).
//
// Threads: everything here belongs to the vCPU's own thread.
#ifndef CLOCHE_INTERPRET_H
#define CLOCHE_INTERPRET_H

#include "core/cpu/arch.h"

#include <string.h>
#include <Zydis/Zydis.h>

struct insn;
struct block;

// Returns the next instruction, or NULL (see above).
typedef const struct insn *insn_handler(struct vcpu *v, const struct insn *i);

#define INSN_SEGMENT_CHECKED 1 // ea_flags: the segment is not flat: limits, types and bases are checked
#define INSN_ADDRESS32       2 // offset is cut to 32 bits
#define INSN_ADDRESS16       4 // offset is cut to 16 bits
#define INSN_LEGACY          8 // linear addresses are cut to 32 bits (outside 64-bit mode)

struct insn {
    insn_handler *run;
    const struct insn_row *row;
    insn_handler *sensitive; // what insn_sensitive() wraps
    union {
        struct {
            uint64_t imm;  // first immediate, sign-extended to 64 bits as the instruction does; relative branches:
                           // displacement
            uint64_t imm2; // second immediate (ENTER, EXTRQ; far pointers: selector)
        };
        struct block *link[2]; // direct branches: taken, not taken (displacement moves to disp)
    };
    int64_t disp;  // memory operand: displacement (for RIP-relative relative to the start of the block)
    uint16_t base; // memory operand: byte offsets into struct vcpu of base and index value (offset of `zero` if none)
    uint16_t index;
    uint16_t segment_base; // the same for the segment base to add
    uint8_t scale;         // shift, 0-3
    uint8_t ea_flags;      // 0: flat 64-bit address
    uint8_t segment;       // enum segment_register of the memory operand
    uint8_t reg, rm,
        vvvv;             // register numbers with REX/VEX extension bits: ModRM.reg, ModRM.rm (if a register), VEX.vvvv
    uint8_t reg_offset;   // general registers: byte offset into struct vcpu of ModRM.reg and rm, with AH-BH resolved
    uint8_t rm_offset;    // (rm also for opcodes with a register in their low bits)
    bool is_memory;       // ModRM names memory, or the operand is a moffs
    uint8_t operand_size; // bytes: 1, 2, 4, 8
    uint8_t address_size; // bytes: 2, 4, 8
    uint8_t stack_size;   // bytes of the stack pointer: 2, 4, 8
    uint8_t code_size;    // 2, 4, 8
    uint8_t vector_length; // bytes: 16 or 32 (VEX.L)
    uint8_t rep;           // 0, 0xf3, 0xf2 as an effective repeat prefix
    bool lock;
    bool direct;      // a branch that uses `link`
    uint8_t vex_w;    // VEX.W or REX.W
    bool vex;         // VEX-encoded: upper halves are zeroed, memory operands need no alignment
    uint8_t opcode;   // last opcode byte
    uint8_t mask_reg; // VEX.is4: register number in imm8[7:4]
    uint8_t modrm;
    uint8_t length;
    uint16_t offset;   // of the instruction's first byte from the block's first byte
    uint16_t position; // in the block, from 0
};

#define VCPU_OFFSET(member) ((uint16_t)offsetof(struct vcpu, member))

// ---- Registers --------------------------------------------------------------------------------------------------

static inline void *vcpu_slot(struct vcpu *v, unsigned offset)
{
    return (char *)v + offset;
}
static inline uint8_t slot_u8(struct vcpu *v, unsigned offset)
{
    return *(uint8_t *)vcpu_slot(v, offset);
}
static inline uint16_t slot_u16(struct vcpu *v, unsigned offset)
{
    return *(uint16_t *)vcpu_slot(v, offset);
}
static inline uint32_t slot_u32(struct vcpu *v, unsigned offset)
{
    return *(uint32_t *)vcpu_slot(v, offset);
}
static inline uint64_t slot_u64(struct vcpu *v, unsigned offset)
{
    return *(uint64_t *)vcpu_slot(v, offset);
}
static inline void slot_set_u8(struct vcpu *v, unsigned offset, uint8_t value)
{
    *(uint8_t *)vcpu_slot(v, offset) = value;
}
static inline void slot_set_u16(struct vcpu *v, unsigned offset, uint16_t value)
{
    *(uint16_t *)vcpu_slot(v, offset) = value;
}
static inline void slot_set_u32(struct vcpu *v, unsigned offset, uint32_t value) // clears the upper half
{
    *(uint64_t *)vcpu_slot(v, offset) = value;
}
static inline void slot_set_u64(struct vcpu *v, unsigned offset, uint64_t value)
{
    *(uint64_t *)vcpu_slot(v, offset) = value;
}
// Any size 1, 2, 4, 8.
uint64_t slot_get(struct vcpu *v, unsigned offset, unsigned size);
void slot_set(struct vcpu *v, unsigned offset, unsigned size, uint64_t value);

static inline uint64_t insn_rip(const struct vcpu *v, const struct insn *i) // of this instruction; plain handlers
{
    return v->rip + i->offset;
}
// RIP after the instruction, for sensitive handlers (v->rip is exact there), cut to the code size.
static inline uint64_t insn_next_rip(const struct vcpu *v, const struct insn *i)
{
    uint64_t next = v->rip + i->length;
    return i->code_size == 8 ? next : i->code_size == 4 ? (uint32_t)next : (uint16_t)next;
}
// End of a fault path: `return insn_fault(v, EXCEPTION_UD, -1);`
const struct insn *insn_fault(struct vcpu *v, unsigned vector, int64_t error_code);

// ---- Guest memory -----------------------------------------------------------------------------------------------

#define TLB_BITS 10
#define TLB_SIZE (1u << TLB_BITS)
// Tags are page address | the space's number (v->tlb_space, below PAGE_SIZE), so that a flush is a new number.
struct tlb_entry {
    uint64_t read, write; // tags; no match: miss or slow path
    uintptr_t addend;     // host address - linear address
    uint64_t reserved;
};
enum tlb_kind { TLB_KERNEL_STRICT, TLB_KERNEL, TLB_USER, TLB_NONE, TLB_KINDS }; // strict: SMAP forbids user pages

// The slow paths: TLB miss, page crossing, devices, tracked pages, alignment check. LINEAR is any address; size 1-64.
// False after vcpu_fault().
bool linear_load_slow(struct vcpu *v, uint64_t linear, void *data, unsigned size);
bool linear_store_slow(struct vcpu *v, uint64_t linear, const void *data, unsigned size);
// Checks that SIZE bytes at LINEAR may be written and sets D, without writing.
bool linear_probe_write(struct vcpu *v, uint64_t linear, unsigned size);

static inline struct tlb_entry *tlb_slot(struct vcpu *v, uint64_t linear)
{
    return &((struct tlb_entry *)v->tlb)[linear >> PAGE_SHIFT & (TLB_SIZE - 1)];
}
// Host address of SIZE bytes at LINEAR that lie in one page of plain RAM, or NULL (take the slow path).
static inline void *linear_host_read(struct vcpu *v, uint64_t linear, unsigned size)
{
    struct tlb_entry *e = tlb_slot(v, linear);
    bool hit = e->read == ((linear & PAGE_MASK) | v->tlb_space) && (linear & (PAGE_SIZE - 1)) <= PAGE_SIZE - size;
    return G_LIKELY(hit) ? (void *)(e->addend + linear) : NULL;
}
static inline void *linear_host_write(struct vcpu *v, uint64_t linear, unsigned size)
{
    struct tlb_entry *e = tlb_slot(v, linear);
    bool hit = e->write == ((linear & PAGE_MASK) | v->tlb_space) && (linear & (PAGE_SIZE - 1)) <= PAGE_SIZE - size;
    return G_LIKELY(hit) ? (void *)(e->addend + linear) : NULL;
}
// SIZE should be a constant. On false the fault is recorded.
static inline __attribute__((always_inline)) bool linear_load(struct vcpu *v, uint64_t linear, void *data,
                                                              unsigned size)
{
    const void *host = linear_host_read(v, linear, size);
    if (G_UNLIKELY(!host))
        return linear_load_slow(v, linear, data, size);
    memcpy(data, host, size);
    return true;
}
static inline __attribute__((always_inline)) bool linear_store(struct vcpu *v, uint64_t linear, const void *data,
                                                               unsigned size)
{
    void *host = linear_host_write(v, linear, size);
    if (G_UNLIKELY(!host))
        return linear_store_slow(v, linear, data, size);
    memcpy(host, data, size);
    return true;
}

// Read-modify-write of SIZE bytes (1 to 16) at LINEAR: a pointer on which the operation is done (atomically, if the
// instruction is locked), then rmw_end(). NULL: a fault was recorded. LINEAR within a cache line: the pointer is the
// memory itself; otherwise a copy, with every other processor held if LOCKED.
enum rmw_kind { RMW_DIRECT, RMW_TRACKED, RMW_BOUNCED };
struct rmw {
    enum rmw_kind kind;
    bool exclusive;
    unsigned size;
    uint64_t ram_offset, linear;
    uint8_t bytes[64] __attribute__((aligned(64)));
};
void *rmw_begin(struct vcpu *v, uint64_t linear, unsigned size, bool locked, struct rmw *rmw);
void rmw_end_slow(struct vcpu *v, struct rmw *rmw);
static inline void rmw_end(struct vcpu *v, struct rmw *rmw)
{
    if (G_UNLIKELY(rmw->kind != RMW_DIRECT))
        rmw_end_slow(v, rmw);
}
// Holds every other vCPU of the set at a block end until the end: locked accesses that no host instruction can do.
void vcpu_exclusive_begin(struct vcpu *v);
void vcpu_exclusive_end(struct vcpu *v);

// Offset of the memory operand in its segment.
static inline uint64_t insn_offset(struct vcpu *v, const struct insn *i)
{
    uint64_t offset = slot_u64(v, i->base) + (slot_u64(v, i->index) << i->scale) + (uint64_t)i->disp;
    if (i->ea_flags & INSN_ADDRESS32)
        offset = (uint32_t)offset;
    else if (i->ea_flags & INSN_ADDRESS16)
        offset = (uint16_t)offset;
    return offset;
}
bool insn_linear_checked(struct vcpu *v, const struct insn *i, uint64_t offset, unsigned size, unsigned access,
                         uint64_t *linear);
// Linear address of the memory operand, segment limit and rights checked for SIZE bytes. ACCESS: ACCESS_READ or _WRITE.
static inline __attribute__((always_inline)) bool insn_linear(struct vcpu *v, const struct insn *i, unsigned size,
                                                              unsigned access, uint64_t *linear)
{
    if (G_LIKELY(!i->ea_flags)) {
        *linear = slot_u64(v, i->base) + (slot_u64(v, i->index) << i->scale) + (uint64_t)i->disp +
                  slot_u64(v, i->segment_base);
        return true;
    }
    uint64_t offset = insn_offset(v, i);
    if (i->ea_flags & INSN_SEGMENT_CHECKED)
        return insn_linear_checked(v, i, offset, size, access, linear);
    *linear = offset + slot_u64(v, i->segment_base);
    if (i->ea_flags & INSN_LEGACY)
        *linear = (uint32_t)*linear;
    return true;
}
// The same for another segment register and offset than the instruction's own operand (string and stack instructions).
bool segment_linear(struct vcpu *v, const struct insn *i, enum segment_register segment, uint64_t offset, unsigned size,
                    unsigned access, uint64_t *linear);

// Memory operand in or out. SIZE should be a constant, 1 to 64 bytes.
static inline __attribute__((always_inline)) bool insn_load(struct vcpu *v, const struct insn *i, void *data,
                                                            unsigned size)
{
    uint64_t linear;
    return insn_linear(v, i, size, ACCESS_READ, &linear) && linear_load(v, linear, data, size);
}
static inline __attribute__((always_inline)) bool insn_store(struct vcpu *v, const struct insn *i, const void *data,
                                                             unsigned size)
{
    uint64_t linear;
    return insn_linear(v, i, size, ACCESS_WRITE, &linear) && linear_store(v, linear, data, size);
}
// The same with #GP(0) where the operand is not aligned to ALIGNMENT bytes (legacy SSE, MOVAPS family, FXSAVE).
bool insn_load_aligned(struct vcpu *v, const struct insn *i, void *data, unsigned size, unsigned alignment);
bool insn_store_aligned(struct vcpu *v, const struct insn *i, const void *data, unsigned size, unsigned alignment);
// A vector source operand in memory as legacy SSE (16-byte alignment) or VEX (none) loads it.
static inline __attribute__((always_inline)) bool insn_load_vector(struct vcpu *v, const struct insn *i, void *data,
                                                                   unsigned size)
{
    return i->vex || size != 16 ? insn_load(v, i, data, size) : insn_load_aligned(v, i, data, 16, 16);
}

// ---- The instruction table ----------------------------------------------------------------------------------------

enum insn_class {
    CLASS_PLAIN,     // registers (and its memory operand) only
    CLASS_MEMORY,    // touches memory beside its ModRM operand
    CLASS_FLOW,      // ends the block, chains by itself
    CLASS_SENSITIVE, // sees and may change any state: flags and RIP are exact around it, and the block ends after it
};
// What must be switched on in CR0, CR4 and XCR0, checked when the block is decoded: #UD or #NM in place of the handler.
// GATE_VECTOR: as GATE_MMX when an operand is an MMX register, else as GATE_SSE. Pending x87 exceptions are the
// handlers'.
enum insn_gate { GATE_NONE, GATE_X87, GATE_WAIT, GATE_MMX, GATE_SSE, GATE_AVX, GATE_AVX512, GATE_XSAVE, GATE_VECTOR };

// What the decoder knows, for insn_bind.
struct decoded {
    ZydisDecodedInstruction zydis;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};
// Picks the handler for one form (and may prepare fields of I). NULL: #UD.
typedef insn_handler *insn_bind(struct vcpu *v, const struct decoded *d, struct insn *i);

// One row per mnemonic (or per mnemonic and encoding where they differ, e.g. MOVSD). Whether the instruction exists for
// this guest is decided by its Zydis ISA set and the CPU model, not here.
struct insn_row {
    uint16_t mnemonic;  // ZydisMnemonic
    uint8_t class;      // enum insn_class
    uint8_t gate;       // enum insn_gate
    insn_handler *reg;  // ModRM names registers, or there is no ModRM; NULL: #UD
    insn_handler *mem;  // ModRM names memory; NULL: #UD
    insn_bind *bind;    // chooses in place of reg and mem when set
    uint8_t encoding;   // 0: any, else 1 + ZydisInstructionEncoding
    uint8_t opcode_map; // 0: any, else 1 + ZydisOpcodeMap
    const void *data;   // the handler's own, e.g. the kernel of a vector operation
};
// Slices end with a row of mnemonic 0 (ZYDIS_MNEMONIC_INVALID). The master list is in table.c.
extern const struct insn_row interpret_rows_integer[];
extern const struct insn_row interpret_rows_shift[];
extern const struct insn_row interpret_rows_bits[];
extern const struct insn_row interpret_rows_string[];
extern const struct insn_row interpret_rows_flow[];
extern const struct insn_row interpret_rows_transfer[]; // segments, far transfers, interrupts, flags as a whole
extern const struct insn_row interpret_rows_io[];
extern const struct insn_row interpret_rows_system[];
extern const struct insn_row interpret_rows_x87[];
extern const struct insn_row interpret_rows_x87_function[]; // roots, remainders, transcendentals
extern const struct insn_row interpret_rows_x87_control[];  // words, environment, stack pointer
extern const struct insn_row interpret_rows_state[];        // FXSAVE and XSAVE families, LDMXCSR
extern const struct insn_row interpret_rows_mmx[];
extern const struct insn_row interpret_rows_vector[];  // MMX, SSE to SSE4.2, AVX2: integer lanes
extern const struct insn_row interpret_rows_shuffle[]; // packing, shuffles, blends, permutations
extern const struct insn_row interpret_rows_move[];    // moves, extracts, inserts
extern const struct insn_row interpret_rows_text[];    // PCMPESTRI and its kin
extern const struct insn_row interpret_rows_float[];   // SSE, AVX, F16C arithmetic
extern const struct insn_row interpret_rows_fma[];
extern const struct insn_row interpret_rows_avx[];    // masked moves, gathers
extern const struct insn_row interpret_rows_crypto[]; // AES, GFNI, PCLMULQDQ, CRC32
extern const struct insn_row interpret_rows_sha[];
extern const struct insn_row interpret_row_avx512; // of all mnemonics with an EVEX form or opmask registers
extern const struct insn_row *const interpret_slices[];
// Makes I sensitive though its row is not (some forms of MOV, PUSH, JMP): for insn_bind functions, `return` its value.
insn_handler *insn_make_sensitive(struct insn *i, insn_handler *handler);
// A general stack push and pop in the present stack size, for handlers. False: a fault was recorded.
bool interpret_push(struct vcpu *v, const struct insn *i, uint64_t value, unsigned size);
bool interpret_pop(struct vcpu *v, const struct insn *i, uint64_t *value, unsigned size);
// The row for D, or NULL.
const struct insn_row *interpret_row(const struct decoded *d);

// XINUSE: the state components that are not in their initial state. (SDM vol. 1, 13.6)
uint64_t vector_in_use(const struct vcpu *v);

// ---- The interpreter of one vCPU ----------------------------------------------------------------------------------

struct interpreter; // caches; made by interpret_attach(), beside whatever engine the vCPU has
// Called by engines that use the interpreter, in their set_init and set_free.
bool interpret_set_init(struct cpu_set *set, GError **error);
void interpret_set_free(struct cpu_set *set);
// Has an interpreter of the set blocks from this page?
bool interpret_owns_page(struct cpu_set *set, uint64_t ram_offset);
bool interpret_attach(struct vcpu *v, GError **error);
void interpret_detach(struct vcpu *v);
#define INTERPRET_ELEMENT UINT64_MAX
// Runs one instruction (LIMIT 1), one or one element of a repeated one (INTERPRET_ELEMENT), LIMIT chains of blocks, or
// until an exit (0), from exact state to exact state; faults and pending interrupts are delivered inside. For other
// engines: their fallback for single instructions. ENGINE_EXIT_ATTENTION: LIMIT is reached, or attention that run()
// must leave for.
enum engine_exit interpret_run(struct vcpu *v, uint64_t limit);
void interpret_flush_tlb(struct vcpu *v);
void interpret_flush_page(struct vcpu *v, uint64_t linear);
void interpret_revoke_page(struct vcpu *v, uint64_t ram_offset);

#endif
