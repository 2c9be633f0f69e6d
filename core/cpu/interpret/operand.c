// SPDX-License-Identifier: GPL-2.0-or-later
// Operands in general: registers of any size, segment checks, aligned vectors.
#include "core/cpu/interpret/cache.h"

#include "core/cpu/descriptor.h"

uint64_t slot_get(struct vcpu *v, unsigned offset, unsigned size)
{
    switch (size) {
    case 1:
        return slot_u8(v, offset);
    case 2:
        return slot_u16(v, offset);
    case 4:
        return slot_u32(v, offset);
    default:
        return slot_u64(v, offset);
    }
}

void slot_set(struct vcpu *v, unsigned offset, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        slot_set_u8(v, offset, (uint8_t)value);
        break;
    case 2:
        slot_set_u16(v, offset, (uint16_t)value);
        break;
    case 4:
        slot_set_u32(v, offset, (uint32_t)value);
        break;
    default:
        slot_set_u64(v, offset, value);
        break;
    }
}

// Limits and types of a segment outside 64-bit mode (SDM vol. 3, 6.3 and 6.5).
static bool segment_check(struct vcpu *v, enum segment_register segment, uint64_t offset, unsigned size,
                          unsigned access, uint64_t *linear)
{
    const struct segment *s = &v->seg[segment];
    unsigned vector = segment == SS ? EXCEPTION_SS : EXCEPTION_GP;
    bool code = s->attr & TYPE_CODE, bit1 = s->attr & 2; // writable or readable
    if (s->unusable)
        return fault(v, vector, 0);
    if (vcpu_protected(v) && (access & ACCESS_WRITE ? code || !bit1 : code && !bit1))
        return fault(v, vector, 0);
    if (!segment_in_limit(s, (uint32_t)offset, size))
        return fault(v, vector, 0);
    *linear = (uint32_t)(s->base + offset);
    return true;
}

bool insn_linear_checked(struct vcpu *v, const struct insn *i, uint64_t offset, unsigned size, unsigned access,
                         uint64_t *linear)
{
    return segment_check(v, (enum segment_register)i->segment, offset, size, access, linear);
}

bool segment_linear(struct vcpu *v, const struct insn *i, enum segment_register segment, uint64_t offset, unsigned size,
                    unsigned access, uint64_t *linear)
{
    if (i->code_size != 8)
        return segment_check(v, segment, offset, size, access, linear);
    *linear = offset + (segment >= FS ? v->seg[segment].base : 0);
    return true;
}

static bool aligned_linear(struct vcpu *v, const struct insn *i, unsigned size, unsigned alignment, unsigned access,
                           uint64_t *linear)
{
    if (!insn_linear(v, i, size, access, linear))
        return false;
    if (*linear & (alignment - 1))
        return fault(v, EXCEPTION_GP, 0);
    return true;
}

bool insn_load_aligned(struct vcpu *v, const struct insn *i, void *data, unsigned size, unsigned alignment)
{
    uint64_t linear;
    return aligned_linear(v, i, size, alignment, ACCESS_READ, &linear) && linear_load(v, linear, data, size);
}

bool insn_store_aligned(struct vcpu *v, const struct insn *i, const void *data, unsigned size, unsigned alignment)
{
    uint64_t linear;
    return aligned_linear(v, i, size, alignment, ACCESS_WRITE, &linear) && linear_store(v, linear, data, size);
}
