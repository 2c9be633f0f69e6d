// SPDX-License-Identifier: GPL-2.0-or-later
// AVX-512 in the interpreter: see interpret_avx512.c.
#ifndef CLOCHE_INTERPRET_AVX512_H
#define CLOCHE_INTERPRET_AVX512_H

#include "core/cpu/interpret/interpret.h"

static inline bool is_avx512(const ZydisDecodedInstruction *z)
{
    return z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || z->meta.isa_ext == ZYDIS_ISA_EXT_AVX512VEX;
}
// Does the model show this ZydisISASet of is_avx512()?
bool avx512_shown(const struct cpu_model *m, unsigned isa_set);
// Outside 64-bit mode W does not make its integer operand one of 64 bits.
bool avx512_ignores_w(unsigned mnemonic);
// With a mask, elements of memory that it hides are not touched. (SDM vol. 2, 2.8: the exception classes without NF)
bool avx512_suppresses_faults(const ZydisDecodedInstruction *z);
// These components (XCR0_*) are going to be written: what was not in use is zero from here on.
void avx512_use(struct vcpu *v, uint64_t components);

#endif
