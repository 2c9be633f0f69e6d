// SPDX-License-Identifier: GPL-2.0-or-later
// Blocks that check themselves (rewrite.c says why): the comparison at their entry, and instructions whose immediate is
// read when they run, so that it is no part of that.
#include "core/cpu/translate/compile.h"

bool writes_memory(const struct trace_insn *i)
{
    switch (i->fact.class) {
    case FACT_PUSH:
    case FACT_PUSHF:
    case FACT_STRING:
        return true;
    case FACT_POP:
    case FACT_MOV_SEG:
        return i->insn.memory;
    default:
        return i->fact.memory_use & USE_WRITE;
    }
}

// MOV of a constant of 4 or 8 bytes to a register: what code that patches itself changes most.
static bool is_loose(const struct compiler *c, const struct trace_insn *i)
{
    const struct guest_insn *g = &i->insn;
    return i->fact.class == FACT_PLAIN && g->encoding == ENCODING_LEGACY && g->map == 0 && (g->opcode & 0xf8) == 0xb8 &&
           g->immediate_size >= 4 && c->second_page == NO_PAGE;
}

static uint64_t host_of(const struct compiler *c, uint64_t ram_page, unsigned in_page)
{
    return (uint64_t)(uintptr_t)c->t->set->host.ram->host + ram_page + in_page;
}

bool translate_loose(struct compiler *c)
{
    const struct guest_insn *i = &c->i->insn;
    unsigned guest = (i->opcode & 7) | (i->rex & 1) << 3, to = guest < 13 ? guest : HOST_T;
    if (!is_loose(c, c->i))
        return false;
    emit_mov_imm(&c->e, HOST_A,
                 host_of(c, c->block->ram_page, (unsigned)(insn_address(c) & ~PAGE_MASK) + i->immediate_at));
    emit_op_mem(&c->e, i->immediate_size == 8 ? EMIT_W : 0, 0x8b, to, MEM_BASE(HOST_A, 0));
    store_guest(c, guest, to);
    return true;
}

// ---- The comparison -------------------------------------------------------------------------------------------------

// HOST_D differs from 0 where half a word does.
static void compare_half(struct emitter *e, unsigned at, uint32_t value, uint32_t mask)
{
    emit_load32(e, HOST_D, MEM_BASE(HOST_A, (int32_t)at));
    if (mask != UINT32_MAX) {
        emit_op_reg(e, 0, 0x81, 4, HOST_D);
        emit32(e, mask);
    }
    emit_op_reg(e, 0, 0x81, 6, HOST_D);
    emit32(e, value & mask);
    emit_op_reg(e, EMIT_W, 0x0b, HOST_T, HOST_D);
}

// Aligned words, so that none runs over the end of its page. BYTES, MASK: of the page from FROM to TO. HOST_T gathers
// differences.
static void compare_bytes(struct compiler *c, uint64_t ram_page, unsigned from, unsigned to, const uint8_t *bytes,
                          const uint8_t *mask)
{
    struct emitter *e = &c->e;
    emit_mov_imm(e, HOST_A, host_of(c, ram_page, 0));
    for (unsigned at = from & ~7u; at < to; at += 8) {
        uint8_t value[8] = {0}, care[8] = {0};
        for (unsigned n = 0; n < 8; n++)
            if (at + n >= from && at + n < to) {
                value[n] = bytes[at + n - from];
                care[n] = mask[at + n - from];
            }
        uint32_t low = (uint32_t)load_le(care, 4), high = (uint32_t)load_le(care + 4, 4);
        if (low == UINT32_MAX && high == UINT32_MAX) {
            emit_mov_imm(e, HOST_D, load_le(value, 8));
            emit_op_mem(e, EMIT_W, 0x33, HOST_D, MEM_BASE(HOST_A, (int32_t)at));
            emit_op_reg(e, EMIT_W, 0x0b, HOST_T, HOST_D);
            continue;
        }
        if (low)
            compare_half(e, at, (uint32_t)load_le(value, 4), low);
        if (high)
            compare_half(e, at + 4, (uint32_t)load_le(value + 4, 4), high);
    }
}

void check_own_bytes(struct compiler *c)
{
    uint8_t mask[TRACE_MAX * 15], bytes[TRACE_MAX * 15];
    const struct trace_insn *last = &c->insns[c->count - 1];
    unsigned from = c->address & ~PAGE_MASK, length = last->offset + last->insn.length;
    memset(mask, 0xff, length);
    for (unsigned n = 0; n < c->count; n++) {
        const struct trace_insn *i = &c->insns[n];
        memcpy(bytes + i->offset, i->bytes, i->insn.length);
        if (is_loose(c, i))
            memset(mask + i->offset + i->insn.immediate_at, 0, i->insn.immediate_size);
    }
    // What was translated may not need the flags, what is there now may.
    c->i = &c->insns[0];
    flags_need_saved(c);
    c->host_valid = false;
    unsigned here = (unsigned)MIN((uint64_t)length, PAGE_SIZE - from);
    emit_mov_imm(&c->e, HOST_T, 0);
    compare_bytes(c, c->block->ram_page, from, from + here, bytes, mask);
    if (here < length)
        compare_bytes(c, c->second_page, 0, length - here, bytes + here, mask + here);
    emit_op_reg(&c->e, EMIT_W, 0x85, HOST_T, HOST_T);
    stub_new(c, STUB_STALE, emit_jcc_forward(&c->e, 5));
}
