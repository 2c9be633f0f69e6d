// SPDX-License-Identifier: GPL-2.0-or-later
// Vector instructions: one kernel per operation on whole registers, one runner per encoding (MMX, SSE, VEX).
//
// A kernel reads its sources from a vector_call and writes the destination there; the runner fetches registers and
// memory before and commits after, so that a faulting instruction has changed nothing. Own vCPU thread only.
#ifndef CLOCHE_VECTOR_H
#define CLOCHE_VECTOR_H

#include "core/cpu/interpret/interpret.h"
#include "core/cpu/softfloat/softfloat.h"

union vector {
    uint8_t u8[32];
    int8_t s8[32];
    uint16_t u16[16];
    int16_t s16[16];
    uint32_t u32[8];
    int32_t s32[8];
    uint64_t u64[4];
    int64_t s64[4];
};

struct vector_call {
    union vector d; // destination; starts as A
    union vector a; // first source: the destination of a legacy form, VEX.vvvv
    union vector b; // second source: ModRM.rm or memory
    union vector m; // third source where the operation has one: the mask of a blend, the old destination of an FMA
    unsigned size;  // bytes: 8, 16 or 32
    unsigned imm;
    bool vex_w;
    struct float_env env; // floating-point operations
    uint8_t earlier;      // flags of earlier stages of the same operation
};
typedef void vector_kernel(struct vector_call *c);

enum vector_third { THIRD_NONE, THIRD_MASK, THIRD_DESTINATION };

struct vector_op {
    vector_kernel *kernel;
    uint8_t third;   // enum vector_third
    bool is_float;   // takes its environment from MXCSR and may raise #XM
    bool exempt;     // #AC does not concern its memory operand
    bool to_vvvv;    // immediate shifts: destination VEX.vvvv, or ModRM.rm of a legacy form
    bool count_in_b; // PSLLW and so on: B is 16 bytes also for 32-byte vectors
};

insn_bind vector_bind;

// A mnemonic with a legacy form (MMX, SSE) and its VEX form; only the first; only the second. The last argument of each
// is a designated list for struct vector_op.
#define VECTOR_DATA(...) (&(const struct vector_op){.kernel = __VA_ARGS__})
#define VECTOR_LEGACY(name, ...)                                                                                       \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = GATE_VECTOR, .bind = vector_bind,             \
        .data = VECTOR_DATA(__VA_ARGS__)                                                                               \
    }
#define VECTOR_VEX(name, ...)                                                                                          \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##name, .class = CLASS_PLAIN, .gate = GATE_AVX, .bind = vector_bind,                \
        .data = VECTOR_DATA(__VA_ARGS__)                                                                               \
    }
#define VECTOR(name, ...) VECTOR_LEGACY(name, __VA_ARGS__), VECTOR_VEX(V##name, __VA_ARGS__)
#define VECTOR_END                                                                                                     \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_INVALID                                                                             \
    }

// ---- Registers --------------------------------------------------------------------------------------------------

static inline void xmm_read(const struct vcpu *v, unsigned n, union vector *x) // upper half zero
{
    memcpy(x, &v->xsave.xmm[n & 15], 16);
    x->u64[2] = x->u64[3] = 0;
}
static inline void ymm_read(const struct vcpu *v, unsigned n, union vector *x)
{
    memcpy(x, &v->xsave.xmm[n & 15], 16);
    memcpy(x->u8 + 16, &v->xsave.ymmh[n & 15], 16);
}
static inline void xmm_write(struct vcpu *v, unsigned n, const union vector *x) // legacy: upper half kept
{
    memcpy(&v->xsave.xmm[n & 15], x, 16);
}
static inline void vex_write(struct vcpu *v, unsigned n, const union vector *x, unsigned size) // upper half zeroed
{
    memcpy(&v->xsave.xmm[n & 15], x, 16);
    if (size == 32)
        memcpy(&v->xsave.ymmh[n & 15], x->u8 + 16, 16);
    else
        memset(&v->xsave.ymmh[n & 15], 0, 16);
    if (v->avx512.xstate_bv & XCR0_ZMMH)
        memset(v->avx512.zmmh[n & 15], 0, sizeof(v->avx512.zmmh[0]));
}
// By the instruction's own encoding.
static inline void vector_read(const struct vcpu *v, const struct insn *i, unsigned n, union vector *x)
{
    if (i->vex && i->vector_length == 32)
        ymm_read(v, n, x);
    else
        xmm_read(v, n, x);
}
static inline void vector_write(struct vcpu *v, const struct insn *i, unsigned n, const union vector *x)
{
    if (i->vex)
        vex_write(v, n, x, i->vector_length);
    else
        xmm_write(v, n, x);
}
// The memory operand or the register ModRM.rm as the source; SIZE bytes, the rest zero. False after a fault.
bool vector_source(struct vcpu *v, const struct insn *i, union vector *x, unsigned size, bool unaligned);

// ---- MMX (SDM vol. 1, 9.6): MMi is the low 64 bits of physical register i ------------------------------------------

// A pending unmasked x87 exception, to be raised before anything else. False after vcpu_fault() or the wait for FERR.
bool mmx_check(struct vcpu *v);
// Transition to MMX: TOP 0, all registers valid. Afterwards st[n] is MMn.
void mmx_enter(struct vcpu *v);
static inline uint64_t mmx_read(const struct vcpu *v, unsigned n)
{
    unsigned top = v->xsave.fsw >> 11 & 7;
    uint64_t x;
    memcpy(&x, v->xsave.st[(n - top) & 7].bytes, 8);
    return x;
}
static inline void mmx_write(struct vcpu *v, unsigned n, uint64_t x) // after mmx_enter()
{
    memcpy(v->xsave.st[n & 7].bytes, &x, 8);
    memset(v->xsave.st[n & 7].bytes + 8, 0xff, 2);
}

static inline bool alignment_check_active(const struct vcpu *v)
{
    return v->cpl == 3 && (v->cr0 & CR0_AM) && (v->rflags & FLAG_AC);
}
// For operands of odd sizes: #AC when checks are on and LINEAR is not a multiple of ALIGNMENT. False after the fault.
static inline bool alignment_checked(struct vcpu *v, uint64_t linear, unsigned alignment)
{
    if (G_LIKELY(!(linear & (alignment - 1)) || !alignment_check_active(v)))
        return true;
    vcpu_fault(v, EXCEPTION_AC, 0);
    return false;
}
// A load that #AC does not concern.
bool linear_load_exempt(struct vcpu *v, uint64_t linear, void *data, unsigned size);
// Stores the elements (of ELEMENT bytes) whose mask has its top bit set; only those can fault, and then none is
// written.
bool masked_store(struct vcpu *v, uint64_t linear, const uint8_t *data, const uint8_t *mask, unsigned size,
                  unsigned element);
// The handler of an MMX form of MOVD or MOVQ.
insn_handler *mmx_bind_move(const struct decoded *d);

// ---- SSE floating point -------------------------------------------------------------------------------------------

void float_env_load(const struct vcpu *v, struct float_env *env); // from MXCSR
// Merges the flags into MXCSR. False after #XM (or #UD) for an unmasked one.
bool float_env_commit(struct vcpu *v, struct float_env *env);

#endif
