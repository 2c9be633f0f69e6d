// SPDX-License-Identifier: GPL-2.0-or-later
// IN, OUT, INS, OUTS (SDM vol. 2; vol. 1, chapter 19).
#include "core/cpu/interpret/string.h"

static uint32_t port_read(struct vcpu *v, uint16_t port, unsigned size)
{
    v->io_exits++;
    return (uint32_t)address_space_load(v->set->host.ports, port, size);
}

static void port_write(struct vcpu *v, uint16_t port, uint32_t value, unsigned size)
{
    v->io_exits++;
    address_space_store(v->set->host.ports, port, value, size);
}

static const struct insn *done(struct vcpu *v, const struct insn *i)
{
    v->rip = insn_next_rip(v, i);
    return NULL;
}

static uint16_t port_of(const struct vcpu *v, const struct insn *i)
{
    return i->opcode & 8 ? (uint16_t)v->gpr[RDX] : (uint8_t)i->imm;
}

static const struct insn *in(struct vcpu *v, const struct insn *i)
{
    uint16_t port = port_of(v, i);
    if (!vcpu_port_allowed(v, port, i->operand_size))
        return NULL;
    slot_set(v, VCPU_OFFSET(gpr[RAX]), i->operand_size, port_read(v, port, i->operand_size));
    return done(v, i);
}

static const struct insn *out(struct vcpu *v, const struct insn *i)
{
    uint16_t port = port_of(v, i);
    if (!vcpu_port_allowed(v, port, i->operand_size))
        return NULL;
    v->rip = insn_next_rip(v, i); // before: the write may stop this processor
    port_write(v, port, (uint32_t)slot_get(v, VCPU_OFFSET(gpr[RAX]), i->operand_size), i->operand_size);
    return NULL;
}

static bool ins_one(struct vcpu *v, const struct insn *i, uint16_t port)
{
    uint64_t linear;
    uint8_t bytes[4];
    // The destination is checked before the port is read, so that no data is lost on a fault.
    if (!string_destination(v, i, ACCESS_WRITE, &linear) || !linear_probe_write(v, linear, i->operand_size))
        return false;
    store_le(bytes, i->operand_size, port_read(v, port, i->operand_size));
    if (!linear_store(v, linear, bytes, i->operand_size))
        return false;
    string_advance(v, i, RDI, 1);
    return true;
}

static bool outs_one(struct vcpu *v, const struct insn *i, uint16_t port)
{
    uint64_t linear;
    uint8_t bytes[4];
    if (!string_source(v, i, &linear) || !linear_load(v, linear, bytes, i->operand_size))
        return false;
    port_write(v, port, (uint32_t)load_le(bytes, i->operand_size), i->operand_size);
    string_advance(v, i, RSI, 1);
    return true;
}

static const struct insn *repeat(struct vcpu *v, const struct insn *i,
                                 bool (*one)(struct vcpu *, const struct insn *, uint16_t))
{
    uint16_t port = (uint16_t)v->gpr[RDX];
    uint64_t count = i->rep ? string_register(v, i, RCX) : 1;
    if (!vcpu_port_allowed(v, port, i->operand_size))
        return NULL;
    while (count) {
        if (!one(v, i, port))
            return NULL;
        count--;
        if (!i->rep)
            break;
        string_set_register(v, i, RCX, count);
        if (count && atomic_load_explicit(&v->attention, memory_order_relaxed))
            return NULL; // RIP stays: it goes on after the interrupt
    }
    return done(v, i);
}

static const struct insn *ins(struct vcpu *v, const struct insn *i)
{
    return repeat(v, i, ins_one);
}
static const struct insn *outs(struct vcpu *v, const struct insn *i)
{
    return repeat(v, i, outs_one);
}

#define SENSITIVE(M, FN)                                                                                               \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .class = CLASS_SENSITIVE, .reg = FN, .mem = FN                                 \
    }

const struct insn_row interpret_rows_io[] = {
    SENSITIVE(IN, in),      SENSITIVE(OUT, out),    SENSITIVE(INSB, ins),
    SENSITIVE(INSW, ins),   SENSITIVE(INSD, ins),   SENSITIVE(OUTSB, outs),
    SENSITIVE(OUTSW, outs), SENSITIVE(OUTSD, outs), {0},
};
