// SPDX-License-Identifier: GPL-2.0-or-later
// Near jumps, calls and returns, loops, and the stack (SDM vol. 2).
#include "core/cpu/interpret/cache.h"
#include "core/cpu/interpret/flags.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

// ---- Targets
// --------------------------------------------------------------------------------------------------------------

// Cuts a target to the operand size and checks it against the code segment. False: #GP(0) was recorded.
static inline bool check_target(struct vcpu *v, const struct insn *i, u64 *target)
{
    if (G_LIKELY(i->code_size == 8)) {
        if (G_LIKELY(vcpu_canonical(*target)))
            return true;
    } else {
        *target = i->operand_size == 2 ? (u16)*target : (u32)*target;
        if (*target <= v->seg[CS].limit)
            return true;
    }
    vcpu_fault(v, EXCEPTION_GP, 0);
    return false;
}

static inline __attribute__((always_inline)) const struct insn *branch(struct vcpu *v, const struct insn *i, bool taken)
{
    u64 next = v->rip + i->offset + i->length;
    if (!taken)
        return flow_to(v, i, i->code_size == 8 ? next : i->code_size == 4 ? (u32)next : next & 0xffff, 1);
    u64 target = next + (u64)i->disp;
    return check_target(v, i, &target) ? flow_to(v, i, target, 0) : NULL;
}

// 64-bit code with a link: no checks are needed, the target was checked when the link was made.
static inline __attribute__((always_inline)) const struct insn *branch64(struct vcpu *v, const struct insn *i,
                                                                         bool taken)
{
    struct block *next = i->link[!taken];
    if (G_UNLIKELY(!next))
        return branch(v, i, taken);
    v->instructions += i->position + 1u;
    v->rip += i->offset + i->length + (taken ? (u64)i->disp : 0);
    return G_UNLIKELY(atomic_load_explicit(&v->attention, memory_order_relaxed)) ? NULL : next->insns;
}

#define CONDITIONS(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define DEFINE_JCC(C)                                                                                                  \
    static const struct insn *jcc##C(struct vcpu *v, const struct insn *i)                                             \
    {                                                                                                                  \
        return branch(v, i, flags_condition(v, C));                                                                    \
    }                                                                                                                  \
    static const struct insn *jcc##C##_64(struct vcpu *v, const struct insn *i)                                        \
    {                                                                                                                  \
        return branch64(v, i, flags_condition(v, C));                                                                  \
    }
CONDITIONS(DEFINE_JCC)

static const struct insn *jmp_relative(struct vcpu *v, const struct insn *i)
{
    return branch(v, i, true);
}
static const struct insn *jmp_relative64(struct vcpu *v, const struct insn *i)
{
    return branch64(v, i, true);
}

// The displacement moves out of the way of the links.
static void make_direct(struct insn *i)
{
    i->disp = (int64_t)i->imm;
    i->link[0] = i->link[1] = NULL;
    i->direct = true;
}

static insn_handler *bind_jcc(struct vcpu *v, const struct decoded *d, struct insn *i)
{
#define JCC_ROW(C)   jcc##C,
#define JCC_ROW64(C) jcc##C##_64,
    static insn_handler *const table[2][16] = {{CONDITIONS(JCC_ROW)}, {CONDITIONS(JCC_ROW64)}};
    make_direct(i);
    return table[i->code_size == 8][i->opcode & 15];
}

// ---- LOOP, JCXZ
// ------------------------------------------------------------------------------------------------------------

static const struct insn *jcxz(struct vcpu *v, const struct insn *i)
{
    return branch(v, i, slot_get(v, VCPU_OFFSET(gpr[RCX]), i->address_size) == 0);
}
static const struct insn *loop(struct vcpu *v, const struct insn *i)
{
    u64 count = slot_get(v, VCPU_OFFSET(gpr[RCX]), i->address_size) - 1;
    bool taken = (count << (64 - 8 * i->address_size)) != 0;
    if (i->opcode == 0xe0)
        taken &= !flag_zf(v);
    else if (i->opcode == 0xe1)
        taken &= flag_zf(v);
    u64 target = v->rip + i->offset + i->length + (u64)i->disp;
    if (taken && !check_target(v, i, &target))
        return NULL;
    slot_set(v, VCPU_OFFSET(gpr[RCX]), i->address_size, count);
    return branch(v, i, taken);
}
static insn_handler *bind_jcxz(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    make_direct(i);
    return jcxz;
}
static insn_handler *bind_loop(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    make_direct(i);
    return loop;
}

// ---- The stack
// --------------------------------------------------------------------------------------------------------------

static const u64 stack_masks[] = {[2] = 0xffff, [4] = 0xffffffff, [8] = ~0ull};

static inline bool stack_address(struct vcpu *v, const struct insn *i, u64 offset, unsigned size, unsigned access,
                                 u64 *linear)
{
    if (G_LIKELY(i->code_size == 8)) {
        *linear = offset;
        return true;
    }
    return segment_linear(v, i, SS, offset, size, access, linear);
}

// A non-canonical stack address is #SS where another operand's is #GP. Always false.
static bool stack_failed(struct vcpu *v)
{
    if (v->interpreter->noncanonical && v->event_vector == EXCEPTION_GP)
        v->event_vector = EXCEPTION_SS;
    return false;
}
static inline __attribute__((always_inline)) bool stack_load(struct vcpu *v, u64 linear, void *data, unsigned size)
{
    return G_LIKELY(linear_load(v, linear, data, size)) || stack_failed(v);
}
static inline __attribute__((always_inline)) bool stack_store(struct vcpu *v, u64 linear, const void *data, unsigned size)
{
    return G_LIKELY(linear_store(v, linear, data, size)) || stack_failed(v);
}

static void set_sp(struct vcpu *v, const struct insn *i, u64 sp)
{
    slot_set(v, VCPU_OFFSET(gpr[RSP]), i->stack_size, sp);
}

bool interpret_push(struct vcpu *v, const struct insn *i, u64 value, unsigned size)
{
    u64 sp = (v->gpr[RSP] - size) & stack_masks[i->stack_size], linear;
    if (!stack_address(v, i, sp, size, ACCESS_WRITE, &linear) || !stack_store(v, linear, &value, size))
        return false;
    set_sp(v, i, sp);
    return true;
}

bool interpret_pop(struct vcpu *v, const struct insn *i, u64 *value, unsigned size)
{
    u64 sp = v->gpr[RSP] & stack_masks[i->stack_size], linear;
    *value = 0;
    if (!stack_address(v, i, sp, size, ACCESS_READ, &linear) || !stack_load(v, linear, value, size))
        return false;
    set_sp(v, i, sp + size);
    return true;
}

static const struct insn *push64_r(struct vcpu *v, const struct insn *i)
{
    u64 value = slot_u64(v, i->rm_offset), sp = v->gpr[RSP] - 8;
    if (!stack_store(v, sp, &value, 8))
        return NULL;
    v->gpr[RSP] = sp;
    return i + 1;
}
static const struct insn *pop64_r(struct vcpu *v, const struct insn *i)
{
    u64 value;
    if (!stack_load(v, v->gpr[RSP], &value, 8))
        return NULL;
    v->gpr[RSP] += 8;
    slot_set_u64(v, i->rm_offset, value);
    return i + 1;
}
static const struct insn *push_r(struct vcpu *v, const struct insn *i)
{
    return interpret_push(v, i, slot_get(v, i->rm_offset, i->operand_size), i->operand_size) ? i + 1 : NULL;
}
static const struct insn *push_i(struct vcpu *v, const struct insn *i)
{
    return interpret_push(v, i, i->imm, i->operand_size) ? i + 1 : NULL;
}
static const struct insn *push_m(struct vcpu *v, const struct insn *i)
{
    u64 value = 0;
    return insn_load(v, i, &value, i->operand_size) && interpret_push(v, i, value, i->operand_size) ? i + 1 : NULL;
}
static const struct insn *pop_r(struct vcpu *v, const struct insn *i)
{
    u64 value;
    if (!interpret_pop(v, i, &value, i->operand_size))
        return NULL;
    slot_set(v, i->rm_offset, i->operand_size, value);
    return i + 1;
}
static const struct insn *pop_m(struct vcpu *v, const struct insn *i)
{
    u64 value, old = v->gpr[RSP];
    if (!interpret_pop(v, i, &value, i->operand_size))
        return NULL;
    if (insn_store(v, i, &value, i->operand_size)) // an address by RSP uses the new value
        return i + 1;
    v->gpr[RSP] = old;
    return NULL;
}

insn_handler *bind_push_segment(struct vcpu *v, const struct decoded *d, struct insn *i); // transfer.c
insn_handler *bind_pop_segment(struct vcpu *v, const struct decoded *d, struct insn *i);

static bool is_segment_register(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}
static insn_handler *bind_push(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    if (is_segment_register(&d->operands[0]))
        return bind_push_segment(v, d, i);
    if (d->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return push_i;
    if (i->is_memory)
        return push_m;
    return i->operand_size == 8 ? push64_r : push_r;
}
static insn_handler *bind_pop(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    if (i->is_memory)
        return pop_m;
    if (is_segment_register(&d->operands[0]))
        return bind_pop_segment(v, d, i);
    return i->operand_size == 8 ? pop64_r : pop_r;
}

static const struct insn *pusha(struct vcpu *v, const struct insn *i)
{
    u64 old = v->gpr[RSP];
    for (unsigned n = 0; n < 8; n++) {
        u64 value = n == RSP ? old : v->gpr[n];
        if (!interpret_push(v, i, value, i->operand_size)) {
            v->gpr[RSP] = old;
            return NULL;
        }
    }
    return i + 1;
}
static const struct insn *popa(struct vcpu *v, const struct insn *i)
{
    u64 old = v->gpr[RSP], values[8];
    for (unsigned n = 8; n-- > 0;)
        if (!interpret_pop(v, i, &values[n], i->operand_size)) {
            v->gpr[RSP] = old;
            return NULL;
        }
    for (unsigned n = 0; n < 8; n++)
        if (n != RSP)
            slot_set(v, n * 8, i->operand_size, values[n]);
    return i + 1;
}

static const struct insn *enter(struct vcpu *v, const struct insn *i)
{
    u64 old_sp = v->gpr[RSP], mask = stack_masks[i->stack_size], frame, value, linear;
    unsigned size = i->operand_size, level = i->imm2 & 31;
    u64 bp = v->gpr[RBP];
    if (!interpret_push(v, i, v->gpr[RBP], size))
        return NULL;
    frame = v->gpr[RSP] & mask;
    for (unsigned n = 1; n < level; n++) {
        bp = (bp - size) & mask;
        value = 0;
        if (!stack_address(v, i, bp, size, ACCESS_READ, &linear) || !stack_load(v, linear, &value, size) ||
            !interpret_push(v, i, value, size))
            goto undo;
    }
    if (level && !interpret_push(v, i, frame, size))
        goto undo;
    u64 sp = (v->gpr[RSP] - (u16)i->imm) & mask;
    // The new top must be writable, though nothing is written there.
    if (!stack_address(v, i, sp, size, ACCESS_WRITE, &linear) || !linear_probe_write(v, linear, size))
        goto undo;
    set_sp(v, i, sp);
    slot_set(v, VCPU_OFFSET(gpr[RBP]), i->stack_size == 2 && size != 2 ? 2 : size, frame);
    return i + 1;
undo:
    v->gpr[RSP] = old_sp;
    return NULL;
}
static const struct insn *leave(struct vcpu *v, const struct insn *i)
{
    u64 sp = v->gpr[RBP] & stack_masks[i->stack_size], value = 0, linear;
    if (!stack_address(v, i, sp, i->operand_size, ACCESS_READ, &linear) ||
        !stack_load(v, linear, &value, i->operand_size))
        return NULL;
    set_sp(v, i, sp + i->operand_size);
    slot_set(v, VCPU_OFFSET(gpr[RBP]), i->operand_size, value);
    return i + 1;
}

// ---- CALL, JMP, RET
// --------------------------------------------------------------------------------------------------------

static const struct insn *call_relative64(struct vcpu *v, const struct insn *i)
{
    u64 next = v->rip + i->offset + i->length, sp = v->gpr[RSP] - 8, target = next + (u64)i->disp;
    if (!check_target(v, i, &target) || !stack_store(v, sp, &next, 8))
        return NULL;
    v->gpr[RSP] = sp;
    return flow_to(v, i, target, 0);
}
static const struct insn *call_relative(struct vcpu *v, const struct insn *i)
{
    u64 next = v->rip + i->offset + i->length, target = next + (u64)i->disp;
    if (!check_target(v, i, &target) || !interpret_push(v, i, next, i->operand_size))
        return NULL;
    return flow_to(v, i, target, 0);
}
static bool load_target(struct vcpu *v, const struct insn *i, u64 *target)
{
    *target = 0;
    if (i->is_memory)
        return insn_load(v, i, target, i->operand_size);
    *target = slot_get(v, i->rm_offset, i->operand_size);
    return true;
}
static bool near_target(struct vcpu *v, const struct insn *i, u64 *target)
{
    return load_target(v, i, target) && check_target(v, i, target);
}
static const struct insn *call_indirect(struct vcpu *v, const struct insn *i)
{
    u64 target, next = v->rip + i->offset + i->length, rsp = v->gpr[RSP];
    if (!load_target(v, i, &target) || !interpret_push(v, i, next, i->operand_size))
        return NULL;
    if (!check_target(v, i, &target)) { // after the return address was written
        v->gpr[RSP] = rsp;
        return NULL;
    }
    return flow_to(v, i, target, -1);
}
static const struct insn *jmp_indirect(struct vcpu *v, const struct insn *i)
{
    u64 target;
    return near_target(v, i, &target) ? flow_to(v, i, target, -1) : NULL;
}
static const struct insn *ret64(struct vcpu *v, const struct insn *i)
{
    u64 target;
    if (!stack_load(v, v->gpr[RSP], &target, 8) || !check_target(v, i, &target))
        return NULL;
    v->gpr[RSP] += 8 + (u16)i->imm;
    return flow_to(v, i, target, -1);
}
static const struct insn *ret_near(struct vcpu *v, const struct insn *i)
{
    u64 target, old = v->gpr[RSP];
    if (!interpret_pop(v, i, &target, i->operand_size))
        return NULL;
    if (!check_target(v, i, &target)) {
        v->gpr[RSP] = old;
        return NULL;
    }
    set_sp(v, i, v->gpr[RSP] + (u16)i->imm);
    return flow_to(v, i, target, -1);
}

insn_handler insn_far_direct, insn_far_indirect, insn_far_return; // transfer.c

static bool is_far(const struct decoded *d)
{
    return d->zydis.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}
static insn_handler *bind_far(const struct decoded *d, struct insn *i)
{
    return insn_make_sensitive(i,
                               d->operands[0].type == ZYDIS_OPERAND_TYPE_POINTER ? insn_far_direct : insn_far_indirect);
}
static insn_handler *bind_call(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    if (is_far(d))
        return bind_far(d, i);
    if (d->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        make_direct(i);
        return i->code_size == 8 ? call_relative64 : call_relative;
    }
    return call_indirect;
}
static insn_handler *bind_jmp(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    if (is_far(d))
        return bind_far(d, i);
    if (d->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        make_direct(i);
        return i->code_size == 8 ? jmp_relative64 : jmp_relative;
    }
    return jmp_indirect;
}
static insn_handler *bind_ret(struct vcpu *v, const struct decoded *d, struct insn *i)
{
    if (is_far(d))
        return insn_make_sensitive(i, insn_far_return);
    return i->code_size == 8 && i->operand_size == 8 ? ret64 : ret_near;
}

#define FLOW(M, BIND)                                                                                                  \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .class = CLASS_FLOW, .bind = BIND                                              \
    }
#define STACK(M, FN)                                                                                                   \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .class = CLASS_MEMORY, .reg = FN, .mem = FN                                    \
    }

const struct insn_row interpret_rows_flow[] = {
    FLOW(JO, bind_jcc),
    FLOW(JNO, bind_jcc),
    FLOW(JB, bind_jcc),
    FLOW(JNB, bind_jcc),
    FLOW(JZ, bind_jcc),
    FLOW(JNZ, bind_jcc),
    FLOW(JBE, bind_jcc),
    FLOW(JNBE, bind_jcc),
    FLOW(JS, bind_jcc),
    FLOW(JNS, bind_jcc),
    FLOW(JP, bind_jcc),
    FLOW(JNP, bind_jcc),
    FLOW(JL, bind_jcc),
    FLOW(JNL, bind_jcc),
    FLOW(JLE, bind_jcc),
    FLOW(JNLE, bind_jcc),
    FLOW(JCXZ, bind_jcxz),
    FLOW(JECXZ, bind_jcxz),
    FLOW(JRCXZ, bind_jcxz),
    FLOW(LOOP, bind_loop),
    FLOW(LOOPE, bind_loop),
    FLOW(LOOPNE, bind_loop),
    FLOW(JMP, bind_jmp),
    FLOW(CALL, bind_call),
    FLOW(RET, bind_ret),
    {.mnemonic = ZYDIS_MNEMONIC_PUSH, .class = CLASS_MEMORY, .bind = bind_push},
    {.mnemonic = ZYDIS_MNEMONIC_POP, .class = CLASS_MEMORY, .bind = bind_pop},
    STACK(PUSHA, pusha),
    STACK(PUSHAD, pusha),
    STACK(POPA, popa),
    STACK(POPAD, popa),
    STACK(ENTER, enter),
    STACK(LEAVE, leave),
    {0},
};
