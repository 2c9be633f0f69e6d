// SPDX-License-Identifier: GPL-2.0-or-later
// MOVS, STOS, LODS, CMPS, SCAS and XLAT (SDM vol. 2). Registers are exact after each element, so that a fault or an
// interrupt leaves a repeated instruction where it can go on.
#include "core/cpu/interpret/flags.h"
#include "core/cpu/interpret/interpret.h"
#include "core/cpu/interpret/string.h"

static const uint64_t address_masks[] = {[2] = 0xffff, [4] = 0xffffffff, [8] = ~0ull};

uint64_t string_register(const struct vcpu *v, const struct insn *i, enum gpr reg)
{
    return v->gpr[reg] & address_masks[i->address_size];
}

void string_set_register(struct vcpu *v, const struct insn *i, enum gpr reg, uint64_t value)
{
    slot_set(v, reg * 8, i->address_size, value);
}

int64_t string_step(const struct vcpu *v, const struct insn *i)
{
    return v->rflags & FLAG_DF ? -(int64_t)i->operand_size : i->operand_size;
}

bool string_source(struct vcpu *v, const struct insn *i, uint64_t *linear)
{
    return segment_linear(v, i, (enum segment_register)i->segment, string_register(v, i, RSI), i->operand_size,
                          ACCESS_READ, linear);
}

bool string_destination(struct vcpu *v, const struct insn *i, unsigned access, uint64_t *linear)
{
    return segment_linear(v, i, ES, string_register(v, i, RDI), i->operand_size, access, linear);
}

void string_advance(struct vcpu *v, const struct insn *i, enum gpr reg, uint64_t elements)
{
    string_set_register(v, i, reg, v->gpr[reg] + (uint64_t)string_step(v, i) * elements);
}

// Leaves the loop so that the same instruction starts again after the interrupt.
static const struct insn *suspend(struct vcpu *v, const struct insn *i)
{
    v->instructions += i->position;
    v->rip += i->offset;
    return NULL;
}

static bool attention(const struct vcpu *v)
{
    return atomic_load_explicit(&v->attention, memory_order_relaxed);
}

// How many elements from LINEAR fit into its page, upwards.
static uint64_t fitting(uint64_t linear, unsigned size, uint64_t count)
{
    uint64_t room = (PAGE_SIZE - (linear & ~PAGE_MASK)) / size;
    return MIN(room, count);
}

// Many elements at once: flat addresses, upwards, plain memory. Returns how many were done (0: do one the slow way).
static uint64_t bulk(struct vcpu *v, const struct insn *i, uint64_t count, bool move)
{
    unsigned size = i->operand_size;
    uint64_t source = 0, destination;
    if ((v->rflags & FLAG_DF) || i->code_size == 2 || (i->code_size == 4 && i->address_size != 4) ||
        (move && !string_source(v, i, &source)) || !string_destination(v, i, ACCESS_WRITE, &destination)) {
        v->event_pending = false; // the single element finds the fault again
        return 0;
    }
    uint64_t n = fitting(destination, size, count);
    if (move)
        n = fitting(source, size, n);
    // The element path checks limits one by one; here the last one must lie within too.
    if (n < 2 || (i->code_size != 8 && string_register(v, i, RDI) + n * size > 0xffffffff) ||
        (i->code_size != 8 && move && string_register(v, i, RSI) + n * size > 0xffffffff))
        return 0;
    uint64_t last;
    if (i->code_size != 8 &&
        (!segment_linear(v, i, ES, string_register(v, i, RDI) + (n - 1) * size, size, ACCESS_WRITE, &last) ||
         (move && !segment_linear(v, i, (enum segment_register)i->segment, string_register(v, i, RSI) + (n - 1) * size,
                                  size, ACCESS_READ, &last)))) {
        v->event_pending = false;
        return 0;
    }
    uint8_t *to = linear_host_write(v, destination, (unsigned)(n * size));
    const uint8_t *from = move ? linear_host_read(v, source, (unsigned)(n * size)) : NULL;
    if (!to || (move && (!from || (from < to && to < from + n * size))))
        return 0;
    if (move)
        memmove(to, from, n * size);
    else if (size == 1)
        memset(to, (int)(v->gpr[RAX] & 0xff), n);
    else
        for (uint64_t k = 0; k < n; k++)
            memcpy(to + k * size, &v->gpr[RAX], size);
    return n;
}

static bool move_one(struct vcpu *v, const struct insn *i)
{
    uint64_t source, destination;
    uint8_t bytes[8];
    return string_source(v, i, &source) && string_destination(v, i, ACCESS_WRITE, &destination) &&
           linear_load(v, source, bytes, i->operand_size) && linear_store(v, destination, bytes, i->operand_size);
}

static bool store_one(struct vcpu *v, const struct insn *i)
{
    uint64_t destination;
    return string_destination(v, i, ACCESS_WRITE, &destination) &&
           linear_store(v, destination, &v->gpr[RAX], i->operand_size);
}

static bool load_one(struct vcpu *v, const struct insn *i)
{
    uint64_t source;
    uint8_t bytes[8];
    if (!string_source(v, i, &source) || !linear_load(v, source, bytes, i->operand_size))
        return false;
    slot_set(v, VCPU_OFFSET(gpr[RAX]), i->operand_size, load_le(bytes, i->operand_size));
    return true;
}

static const struct insn *repeat(struct vcpu *v, const struct insn *i, bool (*one)(struct vcpu *, const struct insn *),
                                 bool use_source, bool use_destination)
{
    uint64_t count = i->rep ? string_register(v, i, RCX) : 1;
    if (i->rep && !count && i->address_size == 4)
        string_set_register(v, i, RCX, 0); // hardware writes the counter even then
    if (i->rep && i->address_size == 4 && use_destination) { // and the pointers of MOVS and STOS before the first element
        string_advance(v, i, RDI, 0);
        if (use_source)
            string_advance(v, i, RSI, 0);
    }
    while (count) {
        uint64_t n = i->rep && use_destination && count > 1 ? bulk(v, i, count, use_source) : 0;
        if (!n) {
            if (!one(v, i))
                return NULL;
            n = 1;
        }
        if (use_source)
            string_advance(v, i, RSI, n);
        if (use_destination)
            string_advance(v, i, RDI, n);
        count -= n;
        if (!i->rep)
            break;
        string_set_register(v, i, RCX, count);
        if (count && G_UNLIKELY(attention(v)))
            return suspend(v, i);
    }
    return i + 1;
}

static const struct insn *movs(struct vcpu *v, const struct insn *i)
{
    return repeat(v, i, move_one, true, true);
}
static const struct insn *stos(struct vcpu *v, const struct insn *i)
{
    return repeat(v, i, store_one, false, true);
}
static const struct insn *lods(struct vcpu *v, const struct insn *i)
{
    return repeat(v, i, load_one, true, false);
}

// ---- CMPS, SCAS: a REPE or REPNE condition on ZF
// ------------------------------------------------------------------------

static void compare_flags(struct vcpu *v, uint64_t a, uint64_t b, unsigned size)
{
    uint64_t mask = ~0ull >> (64 - 8 * size);
    flags_sub(v, a, b, (a - b) & mask, size * 8);
}

// After a fault in the middle the flags are those before the instruction (SDM vol. 2, REPE).
static const struct insn *flags_restored(struct vcpu *v, uint64_t result, uint64_t aux)
{
    v->flags_result = result;
    v->flags_aux = aux;
    return NULL;
}

static const struct insn *compare(struct vcpu *v, const struct insn *i, bool scan)
{
    unsigned size = i->operand_size;
    uint64_t count = i->rep ? string_register(v, i, RCX) : 1;
    const uint64_t result = v->flags_result, aux = v->flags_aux; // put back when an element faults
    if (i->rep && !count && i->address_size == 4)
        string_set_register(v, i, RCX, 0);
    while (count) {
        uint64_t source, destination, a = slot_get(v, VCPU_OFFSET(gpr[RAX]), size);
        uint8_t bytes[8];
        if (!scan) {
            uint8_t first[8];
            if (!string_destination(v, i, ACCESS_READ, &destination) || !linear_load(v, destination, bytes, size) ||
                !string_source(v, i, &source) || !linear_load(v, source, first, size))
                return flags_restored(v, result, aux);
            a = load_le(first, size);
        } else if (!string_destination(v, i, ACCESS_READ, &destination) || !linear_load(v, destination, bytes, size)) {
            return flags_restored(v, result, aux);
        }
        compare_flags(v, a, load_le(bytes, size), size);
        if (!scan)
            string_advance(v, i, RSI, 1);
        string_advance(v, i, RDI, 1);
        if (!i->rep)
            break;
        string_set_register(v, i, RCX, --count);
        if (flag_zf(v) != (i->rep == 0xf3))
            break;
        if (count && G_UNLIKELY(attention(v)))
            return suspend(v, i);
    }
    return i + 1;
}

static const struct insn *cmps(struct vcpu *v, const struct insn *i)
{
    return compare(v, i, false);
}
static const struct insn *scas(struct vcpu *v, const struct insn *i)
{
    return compare(v, i, true);
}

static const struct insn *xlat(struct vcpu *v, const struct insn *i)
{
    uint64_t offset = (v->gpr[RBX] + (v->gpr[RAX] & 0xff)) & address_masks[i->address_size], linear;
    uint8_t value;
    if (!segment_linear(v, i, (enum segment_register)i->segment, offset, 1, ACCESS_READ, &linear) ||
        !linear_load(v, linear, &value, 1))
        return NULL;
    slot_set_u8(v, VCPU_OFFSET(gpr[RAX]), value);
    return i + 1;
}

// MOVSD and CMPSD are also SSE instructions: the string forms are in the default opcode map.
#define ROW(M, FN)                                                                                                     \
    {                                                                                                                  \
        .mnemonic = ZYDIS_MNEMONIC_##M, .class = CLASS_MEMORY, .reg = FN, .mem = FN,                                   \
        .opcode_map = 1 + ZYDIS_OPCODE_MAP_DEFAULT                                                                     \
    }

const struct insn_row interpret_rows_string[] = {
    ROW(MOVSB, movs), ROW(MOVSW, movs),
    ROW(MOVSD, movs), ROW(MOVSQ, movs),
    ROW(STOSB, stos), ROW(STOSW, stos),
    ROW(STOSD, stos), ROW(STOSQ, stos),
    ROW(LODSB, lods), ROW(LODSW, lods),
    ROW(LODSD, lods), ROW(LODSQ, lods),
    ROW(CMPSB, cmps), ROW(CMPSW, cmps),
    ROW(CMPSD, cmps), ROW(CMPSQ, cmps),
    ROW(SCASB, scas), ROW(SCASW, scas),
    ROW(SCASD, scas), ROW(SCASQ, scas),
    ROW(XLAT, xlat),  {0},
};
