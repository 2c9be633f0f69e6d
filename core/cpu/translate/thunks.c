// SPDX-License-Identifier: GPL-2.0-or-later
// The hand-written host sequences between C and translated code, emitted once at the start of the code cache.
#include "core/cpu/translate/emit.h"

enum { HOST_RAX = 0, HOST_RCX, HOST_RDX, HOST_RBX, HOST_RSP, HOST_RBP, HOST_RSI, HOST_RDI };

static const uint8_t callee_saved[] = {RBX, RBP, R12, R13, R14, R15};
static const uint8_t caller_saved[] = {RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11};

static struct mem vcpu_gpr(unsigned base, unsigned reg)
{
    return MEM_BASE(base, (int32_t)(offsetof(struct vcpu, gpr) + 8 * reg));
}

static void emit_push_pop(struct emitter *e, unsigned opcode, unsigned reg)
{
    if (reg >= 8)
        emit8(e, 0x41);
    emit8(e, opcode | (reg & 7));
}

// saved_flags -> host flags; AX is lost.
static void emit_flags_from_saved(struct emitter *e)
{
    emit_op_mem(e, 0, 0x0fb7, HOST_RAX, MEM_CONTEXT(saved_flags)); // movzx eax, word
    emit8(e, 0x04), emit8(e, 0x7f);                                // add al, 0x7f: OF
    emit8(e, 0x9e);                                                // sahf
}

static void emit_enter(struct emitter *e, struct thunks *t)
{
    t->enter = emit_here(e);
    for (unsigned i = 0; i < G_N_ELEMENTS(callee_saved); i++)
        emit_push_pop(e, 0x50, callee_saved[i]);
    emit_alu_imm(e, EMIT_W, 5, HOST_RSP, 8);
    emit_store(e, HOST_RSP, MEM_CONTEXT(host_rsp));
    emit_mov_reg(e, HOST_A, HOST_RSI);
    emit_load(e, HOST_T, MEM_CONTEXT(vcpu));
    // A kick that came before this point is seen here, a later one finds us between enter and enter_end.
    emit_op_mem(e, 0, 0x83, 7, MEM_CONTEXT(kicked));
    emit8(e, 0);
    uint8_t *aborted = emit_jcc_forward(e, 5);
    emit_flags_from_saved(e);
    for (unsigned reg = RAX; reg <= R12; reg++)
        if (reg != RSP)
            emit_load(e, reg, vcpu_gpr(HOST_T, reg));
    emit_load(e, RSP, vcpu_gpr(HOST_T, RSP));
    emit_op_reg(e, 0, 0xff, 4, HOST_A); // jmp r15
    t->enter_end = emit_here(e);
    emit_patch(e, aborted);
    t->abort = emit_here(e);
    emit_store_imm32(e, EXIT_ABORTED, MEM_CONTEXT(exit_reason));
    emit_load(e, HOST_RSP, MEM_CONTEXT(host_rsp));
}

// What every way out ends with: stack and callee-saved registers back, return to C.
static void emit_leave(struct emitter *e)
{
    emit_alu_imm(e, EMIT_W, 0, HOST_RSP, 8);
    for (unsigned i = G_N_ELEMENTS(callee_saved); i-- > 0;)
        emit_push_pop(e, 0x58, callee_saved[i]);
    emit8(e, 0xc3);
}

// edx:eax for AVX-512 state; jumps where there is none.
static uint8_t *emit_avx512_mask(struct emitter *e)
{
    emit_load32(e, HOST_RAX, MEM_CONTEXT(avx512_mask));
    emit_op_reg(e, 0, 0x31, HOST_RDX, HOST_RDX);
    emit_op_reg(e, 0, 0x85, HOST_RAX, HOST_RAX);
    return emit_jcc_forward(e, 4);
}

// Vector state of the guest goes to struct vcpu; C gets its own control words. HOST_T: vcpu. rax, rdx are lost.
static void emit_vector_save(struct emitter *e)
{
    emit_load32(e, HOST_RAX, MEM_CONTEXT(vector_mask[0]));
    emit_load32(e, HOST_RDX, MEM_CONTEXT(vector_mask[1]));
    emit_op_mem(e, EMIT_W, 0x0fae, 4, MEM_BASE(HOST_T, offsetof(struct vcpu, xsave))); // xsave64
    uint8_t *none = emit_avx512_mask(e);
    emit_op_mem(e, EMIT_W, 0x0fc7, 4, MEM_BASE(HOST_T, offsetof(struct vcpu, avx512))); // xsavec64
    emit_patch(e, none);
    emit_store_imm32(e, 0, MEM_CONTEXT(vector_loaded));
    emit_op_mem(e, 0, 0x0fae, 2, MEM_CONTEXT(host_mxcsr)); // ldmxcsr
    emit8(e, 0xdb), emit8(e, 0xe3);                        // fninit
}

static void emit_exit(struct emitter *e, struct thunks *t)
{
    t->interpret_saved = emit_here(e);
    emit_store_imm32(e, EXIT_INTERPRET, MEM_CONTEXT(exit_reason));
    t->exit_saved = emit_here(e);
    emit_mov_reg(e, HOST_T, HOST_RAX);
    emit_flags_from_saved(e);
    emit_mov_reg(e, HOST_RAX, HOST_T);
    uint8_t *over = emit_jmp_forward(e);
    t->interpret_host = emit_here(e);
    emit_store_imm32(e, EXIT_INTERPRET, MEM_CONTEXT(exit_reason));
    emit_patch(e, over);
    t->exit_host = emit_here(e);
    emit_store(e, HOST_RSP, MEM_CONTEXT(guest_rsp));
    emit_load(e, HOST_RSP, MEM_CONTEXT(host_rsp));
    emit8(e, 0x9c); // pushfq
    emit_push_pop(e, 0x58, HOST_T);
    emit_store(e, HOST_T, MEM_CONTEXT(host_flags));
    emit_load(e, HOST_T, MEM_CONTEXT(vcpu));
    emit_store(e, HOST_A, MEM_BASE(HOST_T, offsetof(struct vcpu, rip)));
    for (unsigned reg = RAX; reg <= R12; reg++)
        if (reg != RSP)
            emit_store(e, reg, vcpu_gpr(HOST_T, reg));
    emit_load(e, HOST_A, MEM_CONTEXT(guest_rsp));
    emit_store(e, HOST_A, vcpu_gpr(HOST_T, RSP));
    emit_op_mem(e, 0, 0x83, 7, MEM_CONTEXT(vector_loaded));
    emit8(e, 0);
    uint8_t *skip = emit_jcc_forward(e, 4);
    emit_vector_save(e);
    emit_patch(e, skip);
    emit_leave(e);
}

static void emit_save_registers(struct emitter *e)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(caller_saved); i++)
        emit_store(e, caller_saved[i], MEM_CONTEXT_AT(offsetof(struct context, save) + 8 * i));
    emit_store(e, HOST_RSP, MEM_CONTEXT(guest_rsp));
    emit_load(e, HOST_RSP, MEM_CONTEXT(host_rsp));
}

static void emit_restore_registers(struct emitter *e)
{
    emit_load(e, HOST_RSP, MEM_CONTEXT(guest_rsp));
    for (unsigned i = 0; i < G_N_ELEMENTS(caller_saved); i++)
        emit_load(e, caller_saved[i], MEM_CONTEXT_AT(offsetof(struct context, save) + 8 * i));
}

// A step of the host costs a signal: none is taken where C's answer (RAX) leaves by itself, as the ways out do, which
// lie before `slow`, and the copy of an access, which ends in a commit.
static void emit_step_if_kicked(struct emitter *e, const struct thunks *t, bool access)
{
    uint8_t *none[4];
    unsigned count = 0;
    emit_op_mem(e, 0, 0x83, 7, MEM_CONTEXT(kicked));
    emit8(e, 0);
    none[count++] = emit_jcc_forward(e, 4);
    emit_alu_imm(e, EMIT_W, 7, HOST_RAX, (int32_t)(uintptr_t)t->slow);
    none[count++] = emit_jcc_forward(e, 2);
    if (access) {
        emit_load(e, HOST_RCX, MEM_CONTEXT(slow_site));
        emit_op_mem(e, 0, 0xf6, 0, MEM_BASE(HOST_RCX, offsetof(struct slow_site, use)));
        emit8(e, USE_SHARED);
        uint8_t *shared = emit_jcc_forward(e, 5);
        emit_op_mem(e, 0, 0x3b, HOST_RAX, MEM_BASE(HOST_RCX, offsetof(struct slow_site, copy)));
        none[count++] = emit_jcc_forward(e, 4);
        emit_patch(e, shared);
    }
    emit8(e, 0x9c); // pushfq
    emit_op_mem(e, 0, 0x81, 1, MEM_BASE(HOST_RSP, 0));
    emit32(e, FLAG_TF);
    emit8(e, 0x9d); // popfq
    for (unsigned i = 0; i < count; i++)
        emit_patch(e, none[i]);
}

static void emit_call_c(struct emitter *e, const struct thunks *t, uintptr_t function)
{
    emit_load(e, HOST_RDI, MEM_CONTEXT(self));
    emit_mov_imm(e, HOST_RAX, function);
    emit_op_reg(e, 0, 0xff, 2, HOST_RAX);
    // A kick that came while C ran, after C looked: step to the next boundary. Later ones find us here (signal.c).
    emit_step_if_kicked(e, t, function == (uintptr_t)translate_slow);
}

// On to the host address in RAX, with HOST_A from slow_host; RAX and the flags are the guest's again. The flags come
// from the saved copy.
static void emit_go_on(struct emitter *e)
{
    emit_mov_reg(e, HOST_T, HOST_RAX);
    emit_flags_from_saved(e);
    emit_load(e, HOST_A, MEM_CONTEXT(slow_host));
    emit_restore_registers(e);
    emit_op_reg(e, 0, 0xff, 4, HOST_T);
}

// Calls C and goes on as it says, where the host flags are the guest's and stay.
static void emit_call_with_flags(struct emitter *e, const struct thunks *t, uintptr_t function)
{
    emit_save_registers(e);
    emit8(e, 0x9c); // pushfq
    emit_alu_imm(e, EMIT_W, 5, HOST_RSP, 8);
    emit_call_c(e, t, function);
    emit_alu_imm(e, EMIT_W, 0, HOST_RSP, 8);
    emit8(e, 0x9d); // popfq
    emit_mov_reg(e, HOST_T, HOST_RAX);
    emit_load(e, HOST_A, MEM_CONTEXT(slow_host));
    emit_restore_registers(e);
    emit_op_reg(e, 0, 0xff, 4, HOST_T);
}

// C tells where to go on; HOST_A comes from slow_host.
static void emit_slow(struct emitter *e, struct thunks *t)
{
    t->slow = emit_here(e);
    emit_store(e, HOST_A, MEM_CONTEXT(slow_address));
    emit_store(e, HOST_T, MEM_CONTEXT(slow_site));
    emit_save_registers(e);
    emit_call_c(e, t, (uintptr_t)translate_slow);
    t->slow_return = emit_here(e);
    emit_go_on(e); // flags: for the handler of an exception; the way back into a check has none in the host
}

// After the out-of-line copy: host flags are the guest's and stay.
static void emit_commit(struct emitter *e, struct thunks *t)
{
    t->commit = emit_here(e);
    emit_store(e, HOST_T, MEM_CONTEXT(slow_site));
    emit_call_with_flags(e, t, (uintptr_t)translate_commit);
}

static void emit_lookup(struct emitter *e, struct thunks *t)
{
    t->lookup = emit_here(e);
    emit_store(e, HOST_A, MEM_CONTEXT(slow_host));
    emit_store(e, HOST_D, MEM_CONTEXT(jump_from));
    emit_save_registers(e);
    emit_mov_reg(e, HOST_RSI, HOST_A);
    emit_call_c(e, t, (uintptr_t)translate_jump);
    emit_go_on(e);
}

// Host flags are the guest's and stay.
static void emit_link_miss(struct emitter *e, struct thunks *t)
{
    t->link = emit_here(e);
    emit_store(e, HOST_T, MEM_CONTEXT(link_site));
    emit_call_with_flags(e, t, (uintptr_t)translate_link);
}

// HOST_A comes from slow_host; flags and registers as the helper left them.
static void emit_system(struct emitter *e, struct thunks *t)
{
    t->system = emit_here(e);
    emit_store(e, HOST_T, MEM_CONTEXT(slow_site));
    emit_save_registers(e);
    emit_call_c(e, t, (uintptr_t)translate_system_op);
    emit_go_on(e);
}

static void emit_vector(struct emitter *e, struct thunks *t)
{
    t->vector = emit_here(e);
    emit_store(e, HOST_RAX, MEM_CONTEXT_AT(offsetof(struct context, save)));
    emit_store(e, HOST_RDX, MEM_CONTEXT_AT(offsetof(struct context, save) + 16));
    emit_load(e, HOST_A, MEM_CONTEXT(vcpu));
    emit_load32(e, HOST_RAX, MEM_CONTEXT(vector_mask[0]));
    emit_load32(e, HOST_RDX, MEM_CONTEXT(vector_mask[1]));
    emit_op_mem(e, EMIT_W, 0x0fae, 5, MEM_BASE(HOST_A, offsetof(struct vcpu, xsave))); // xrstor64
    uint8_t *none = emit_avx512_mask(e);
    emit_op_mem(e, EMIT_W, 0x0fae, 5, MEM_BASE(HOST_A, offsetof(struct vcpu, avx512)));
    emit_patch(e, none);
    emit_store_imm32(e, 1, MEM_CONTEXT(vector_loaded));
    emit_load(e, HOST_RAX, MEM_CONTEXT_AT(offsetof(struct context, save)));
    emit_load(e, HOST_RDX, MEM_CONTEXT_AT(offsetof(struct context, save) + 16));
    emit_op_reg(e, 0, 0xff, 4, HOST_T);
}

void thunks_emit(struct translator *t)
{
    struct emitter e = {.at = t->code_write,
                        .end = t->code_write + THUNK_SIZE - NATIVE_SIZE * VCPU_MAX,
                        .shift = t->code - t->code_write};
    emit_enter(&e, &t->thunks);
    emit_leave(&e);
    emit_exit(&e, &t->thunks);
    emit_slow(&e, &t->thunks);
    emit_commit(&e, &t->thunks);
    emit_lookup(&e, &t->thunks);
    emit_link_miss(&e, &t->thunks);
    emit_system(&e, &t->thunks);
    emit_vector(&e, &t->thunks);
    t->thunks.return_end = emit_here(&e);
    g_assert(!e.overflow);
}
