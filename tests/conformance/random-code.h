// SPDX-License-Identifier: GPL-2.0-or-later
// Random runs of instructions for tests: integer, flags, stack, SSE, BMI, forward branches, with and without memory.
// Pointer and index registers keep their values, so that memory operands stay where the caller put them.
#ifndef CLOCHE_RANDOM_CODE_H
#define CLOCHE_RANDOM_CODE_H

#include "core/cpu/arch.h"

// The stream of numbers: the same after the same seed. One thread.
void random_seed(uint64_t seed);
uint64_t random_next(void);
unsigned pick(unsigned n); // below N

#define RANDOM_POINTERS 3
#define RANDOM_INDEXES  2
// Registers that point to data (displacements are below 1024, bit strings reach 2^61 bits: indexes stay small), by code
// size 64, 32 or 16.
const uint8_t *random_pointers(unsigned bits);
const uint8_t *random_indexes(unsigned bits);

#define RANDOM_CODE_MAX 1024
// Code for segments of 64 KiB with bases of their own, with segment overrides, prefixes of operand and address size and
// string instructions: pointers are offsets. Status flags as by random_code_defined(). VEX: outside real mode.
unsigned random_code_segmented(unsigned bits, bool vex, uint8_t code[RANDOM_CODE_MAX]); // BITS: 16 or 32
// 2 to 40 instructions. Returns the bytes.
unsigned random_code(unsigned bits, uint8_t code[RANDOM_CODE_MAX]);
// The same without what leaves flags undefined (but for AF, which is never read): any two engines must agree. Some
// divide by zero.
unsigned random_code_defined(unsigned bits, uint8_t code[RANDOM_CODE_MAX]);

#endif
