// SPDX-License-Identifier: GPL-2.0-or-later
// The translator's instruction decoder: lengths and fields from small tables, operand facts remembered per encoding.
// (Intel SDM vol. 2, chapter 2 and appendix A)
//
// Threads: decode_fields() is pure. A struct fact_table belongs to whoever holds the translator's lock.
#ifndef CLOCHE_TRANSLATE_DECODE_H
#define CLOCHE_TRANSLATE_DECODE_H

#include "core/base/base.h"

enum insn_encoding { ENCODING_LEGACY, ENCODING_VEX, ENCODING_EVEX };

#define NO_REG 0xff

// One decoded instruction. Register numbers carry their REX, VEX or EVEX extension.
struct guest_insn {
    uint8_t length;
    uint8_t bits;     // code size: 16, 32, 64
    uint8_t encoding; // enum insn_encoding
    uint8_t map;      // 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A, 5, 6: EVEX's
    uint8_t opcode;
    uint8_t rex;           // the REX byte, or 0
    uint8_t rep;           // last of F2, F3, or 0; VEX and EVEX: the implied prefix
    bool opsize, addrsize; // 66, 67 prefix present (opsize: or implied)
    bool lock;
    uint8_t segment;       // override: ES..GS as in enum segment_register, or NO_REG
    uint8_t w;             // REX.W, VEX.W
    uint8_t vector_length; // VEX.L, EVEX.L'L
    uint8_t vvvv;          // VEX and EVEX
    uint8_t payload[3];    // the VEX or EVEX bytes after C4, C5, 62
    bool has_modrm;
    uint8_t modrm, mod, reg, rm;
    uint8_t sib; // valid where has_sib
    bool has_sib;
    bool memory; // ModRM names memory
    bool rip_relative;
    uint8_t base, index, scale; // scale: shift; NO_REG where absent
    uint8_t displacement_size;
    int64_t displacement; // as it stands there; see fact.displacement_unit
    uint8_t immediate_size;
    int64_t immediate; // sign-extended (first one)
    uint8_t opcode_at; // offset of the opcode byte (legacy), or of C4, C5, 62
    uint8_t modrm_at, immediate_at;
};

enum decode_result { DECODE_OK, DECODE_TRUNCATED, DECODE_INVALID };

// BYTES: AVAILABLE of them (15 are enough). TRUNCATED: more bytes are needed. INVALID: #UD or #GP, or nothing that the
// table knows; then length is not set.
enum decode_result decode_fields(struct guest_insn *insn, const uint8_t *bytes, unsigned available, unsigned bits);

// Effective operand and address size in bytes.
unsigned decode_operand_size(const struct guest_insn *insn);
unsigned decode_address_size(const struct guest_insn *insn);

// What the translator does with an instruction.
enum fact_class {
    FACT_SENSITIVE, // left to the architecture code
    FACT_PLAIN,     // copied, operands re-encoded
    FACT_JCC,
    FACT_JMP,
    FACT_CALL,
    FACT_RET,
    FACT_LOOP,
    FACT_PUSH,
    FACT_POP,
    FACT_LEAVE,
    FACT_PUSHF,
    FACT_POPF,
    FACT_STRING,
    FACT_NOP, // has no effect here (prefetches, hint NOPs)
    FACT_LEA,
    FACT_DF, // CLD, STD
    FACT_IF, // CLI, STI
    FACT_AC, // CLAC, STAC
    FACT_SYSCALL,
    FACT_SYSRET,
    FACT_IRET,
    FACT_SWAPGS,
    FACT_FSGSBASE,
    FACT_RDTSC,
    FACT_MOV_SEG,
    FACT_MASKED, // masked or gathered vector memory: touches a part of its operand
    FACT_XLAT,
    FACT_INVLPG,
    FACT_CPUID,
    FACT_MOV_CR,
    FACT_MSR,
    FACT_XSTATE,
};

enum { USE_NONE = 0, USE_READ = 1, USE_WRITE = 2 };

struct fact {
    uint64_t key;                                  // 0: empty
    uint8_t class;                                 // enum fact_class
    uint16_t mnemonic;                             // ZydisMnemonic
    uint8_t isa, isa_set;                          // ZydisISAExt, ZydisISASet
    uint16_t flags_read;                           // FLAGS_STATUS bits that it needs
    uint16_t flags_set;                            // bits that it always changes or leaves undefined
    uint16_t flags_touched;                        // bits that it may change
    uint8_t reg_use, rm_use, vvvv_use, opcode_use; // USE_* where the field names a general register; else 0
    uint16_t implicit_written;                     // general registers that it writes without naming them
    bool reg_byte, rm_byte;                        // an 8-bit register (AH..BH without REX)
    uint8_t memory_use;                            // of the ModRM operand
    uint16_t memory_size;                          // bytes
    uint8_t displacement_unit;                     // EVEX: what a displacement of one byte is multiplied by
    bool vector;                                   // needs x87, MMX, SSE, AVX state in the processor
    bool x87;                                      // x87 or MMX
    bool masked;                                   // only elements that a mask lets through touch memory
    bool implicit_memory;                          // touches memory beside the ModRM operand
};

#define MNEMONICS_MAX 4096 // of struct fact

struct fact_table;
struct fact_table *fact_table_new(void);
void fact_table_free(struct fact_table *table);
// The facts of INSN, whose bytes are at BYTES. Never NULL. Valid until the next call.
const struct fact *fact_find(struct fact_table *table, const struct guest_insn *insn, const uint8_t *bytes);
// The same without the memory: the test oracle.
void fact_compute(struct fact *fact, const struct guest_insn *insn, const uint8_t *bytes);

#endif
