// SPDX-License-Identifier: GPL-2.0-or-later
// Descriptors and segment registers (SDM vol. 3, chapter 3 and 6.7).
#include "core/cpu/descriptor.h"
#include "core/cpu/model.h"

bool fault(struct vcpu *v, unsigned vector, int64_t error_code)
{
    vcpu_fault(v, vector, error_code);
    return false;
}

uint32_t descriptor_limit(uint64_t d)
{
    uint32_t limit = (uint32_t)(d & 0xffff) | (uint32_t)(d >> 32 & 0xf0000);
    return descriptor_attr(d) & SEG_G ? limit << 12 | 0xfff : limit;
}

uint64_t descriptor_base(uint64_t d)
{
    return (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000);
}

// Linear address of a descriptor's entry of SIZE bytes. False: outside its table.
static bool descriptor_address(struct vcpu *v, uint16_t selector, unsigned size, uint64_t *address)
{
    uint32_t offset = selector & ~7u;
    if (selector & 4) {
        if (v->ldtr.unusable || !(v->ldtr.attr & SEG_P) || offset + size - 1 > v->ldtr.limit)
            return false;
        *address = v->ldtr.base + offset;
    } else {
        if (offset + size - 1 > v->gdtr.limit)
            return false;
        *address = v->gdtr.base + offset;
    }
    return true;
}

bool descriptor_read(struct vcpu *v, uint16_t selector, uint64_t *d, unsigned vector, unsigned external)
{
    uint64_t address;
    if (!descriptor_address(v, selector, 8, &address))
        return fault(v, vector, (selector & ~3u) | external);
    return vcpu_load(v, address, d, 8, ACCESS_IMPLICIT);
}

bool descriptor_read_high(struct vcpu *v, uint16_t selector, uint64_t *high, unsigned vector, unsigned external)
{
    uint64_t address;
    if (!descriptor_address(v, selector, 16, &address))
        return fault(v, vector, (selector & ~3u) | external);
    return vcpu_load(v, address + 8, high, 8, ACCESS_IMPLICIT);
}

bool descriptor_peek(struct vcpu *v, uint16_t selector, uint64_t *d)
{
    uint64_t address;
    return (selector & ~3u) && descriptor_address(v, selector, 8, &address) &&
           vcpu_load(v, address, d, 8, ACCESS_IMPLICIT);
}

// Changes the type bits in memory: hardware writes the byte (or word) that holds them.
static bool descriptor_set_type(struct vcpu *v, uint16_t selector, uint8_t set, uint8_t clear)
{
    uint64_t address;
    uint8_t byte;
    if (!descriptor_address(v, selector, 8, &address) || !vcpu_load(v, address + 5, &byte, 1, ACCESS_IMPLICIT))
        return false;
    byte = (uint8_t)((byte | set) & ~clear);
    return vcpu_store(v, address + 5, &byte, 1, ACCESS_IMPLICIT);
}

bool descriptor_set_accessed(struct vcpu *v, uint16_t selector, uint64_t *d)
{
    if (descriptor_type(*d) & TYPE_ACCESSED)
        return true;
    *d |= BIT(40);
    return descriptor_set_type(v, selector, TYPE_ACCESSED, 0);
}

bool descriptor_set_busy(struct vcpu *v, uint16_t selector, bool busy)
{
    return descriptor_set_type(v, selector, busy ? 2 : 0, busy ? 0 : 2);
}

void segment_fill(struct segment *s, uint16_t selector, uint64_t d)
{
    *s = (struct segment){
        .selector = selector, .attr = descriptor_attr(d), .limit = descriptor_limit(d), .base = descriptor_base(d)};
}

void segment_set_real(struct vcpu *v, struct segment *s, uint16_t selector)
{
    s->selector = selector;
    s->base = (uint64_t)selector << 4;
    s->unusable = false;
    if (v->rflags & FLAG_VM) {
        s->limit = 0xffff;
        s->attr = 0xf3;
    } else {
        s->attr = 0x93 | (s->attr & (SEG_G | SEG_DB)); // the limit stays: "unreal" mode
    }
}

void segment_set_null(struct vcpu *v, struct segment *s, uint16_t selector)
{
    // Base and limit survive in 64-bit mode on AMD only; Intel clears the base.
    *s = (struct segment){.selector = selector, .unusable = true};
}

bool segment_in_limit(const struct segment *s, uint32_t offset, unsigned size)
{
    uint64_t last = (uint64_t)offset + size - 1;
    if ((s->attr & SEG_S) && !(s->attr & TYPE_CODE) && (s->attr & TYPE_EXPAND_DOWN)) {
        uint64_t top = s->attr & SEG_DB ? 0xffffffffull : 0xffff;
        return offset > s->limit && last <= top;
    }
    return last <= s->limit;
}

bool segment_load_data(struct vcpu *v, struct segment *s, uint16_t selector, unsigned cpl, unsigned vector)
{
    if (!(selector & ~3u)) {
        segment_set_null(v, s, selector);
        return true;
    }
    uint64_t d;
    if (!descriptor_read(v, selector, &d, vector, 0))
        return false;
    unsigned type = descriptor_type(d);
    bool code = type & TYPE_CODE;
    if (!descriptor_is_segment(d) || (code && !(type & TYPE_READABLE)))
        return fault(v, vector, selector & ~3u);
    if (!(code && (type & TYPE_CONFORMING)) && MAX(cpl, selector & 3u) > descriptor_dpl(d))
        return fault(v, vector, selector & ~3u);
    if (!descriptor_present(d))
        return fault(v, EXCEPTION_NP, selector & ~3u);
    if (!descriptor_set_accessed(v, selector, &d))
        return false;
    segment_fill(s, selector, d);
    return true;
}

bool segment_load_stack(struct vcpu *v, struct segment *s, uint16_t selector, unsigned cpl, unsigned vector,
                        unsigned external)
{
    if (!(selector & ~3u)) {
        if (!vcpu_code64(v) || cpl == 3 || (selector & 3u) != cpl)
            return fault(v, vector, (vector == EXCEPTION_GP ? 0 : selector & ~3u) | external);
        segment_set_null(v, s, selector);
        s->attr = (uint16_t)(cpl << 5);
        return true;
    }
    uint64_t d;
    if (!descriptor_read(v, selector, &d, vector, external))
        return false;
    unsigned type = descriptor_type(d);
    if ((selector & 3u) != cpl || !descriptor_is_segment(d) || (type & TYPE_CODE) || !(type & TYPE_WRITABLE) ||
        descriptor_dpl(d) != cpl)
        return fault(v, vector, (selector & ~3u) | external);
    if (!descriptor_present(d))
        return fault(v, EXCEPTION_SS, (selector & ~3u) | external);
    if (!descriptor_set_accessed(v, selector, &d))
        return false;
    segment_fill(s, selector, d);
    return true;
}

bool vcpu_load_segment(struct vcpu *vcpu, enum segment_register reg, uint16_t selector)
{
    struct segment s = vcpu->seg[reg];
    if (!vcpu_protected(vcpu)) {
        segment_set_real(vcpu, &s, selector);
    } else if (reg == SS) {
        if (!segment_load_stack(vcpu, &s, selector, vcpu->cpl, EXCEPTION_GP, 0))
            return false;
    } else if (!segment_load_data(vcpu, &s, selector, vcpu->cpl, EXCEPTION_GP)) {
        return false;
    }
    vcpu->seg[reg] = s;
    return true;
}

bool vcpu_load_ldtr(struct vcpu *v, uint16_t selector)
{
    if (!(selector & ~3u)) {
        v->ldtr = (struct segment){.selector = selector, .unusable = true};
        return true;
    }
    uint64_t d, high = 0;
    if (selector & 4)
        return fault(v, EXCEPTION_GP, selector & ~3u);
    if (!descriptor_read(v, selector, &d, EXCEPTION_GP, 0))
        return false;
    if (descriptor_is_segment(d) || descriptor_type(d) != SYSTEM_LDT)
        return fault(v, EXCEPTION_GP, selector & ~3u);
    if (!descriptor_present(d))
        return fault(v, EXCEPTION_NP, selector & ~3u);
    if (vcpu_long_mode(v) && !descriptor_read_high(v, selector, &high, EXCEPTION_GP, 0))
        return false;
    uint64_t base = descriptor_base(d) | high << 32;
    if (vcpu_long_mode(v) && !vcpu_canonical(base))
        return fault(v, EXCEPTION_GP, selector & ~3u);
    segment_fill(&v->ldtr, selector, d);
    v->ldtr.base = base;
    return true;
}

bool vcpu_load_tr(struct vcpu *v, uint16_t selector)
{
    uint64_t d, high = 0;
    if (!(selector & ~3u))
        return fault(v, EXCEPTION_GP, 0);
    if (selector & 4)
        return fault(v, EXCEPTION_GP, selector & ~3u);
    if (!descriptor_read(v, selector, &d, EXCEPTION_GP, 0))
        return false;
    unsigned type = descriptor_type(d);
    bool available = type == SYSTEM_TSS32 || (type == SYSTEM_TSS16 && !vcpu_long_mode(v));
    if (descriptor_is_segment(d) || !available)
        return fault(v, EXCEPTION_GP, selector & ~3u);
    if (!descriptor_present(d))
        return fault(v, EXCEPTION_NP, selector & ~3u);
    if (vcpu_long_mode(v) && !descriptor_read_high(v, selector, &high, EXCEPTION_GP, 0))
        return false;
    uint64_t base = descriptor_base(d) | high << 32;
    if (vcpu_long_mode(v) && !vcpu_canonical(base))
        return fault(v, EXCEPTION_GP, selector & ~3u);
    if (!descriptor_set_busy(v, selector, true))
        return false;
    segment_fill(&v->tr, selector, d);
    v->tr.attr |= 2;
    v->tr.base = base;
    return true;
}

void vcpu_set_cpl(struct vcpu *v, unsigned cpl)
{
    v->cpl = (uint8_t)cpl;
}

// ---- Stacks -------------------------------------------------------------------------------------------------------

void stack_init(struct stack *s, struct vcpu *v, const struct segment *ss, uint64_t sp, unsigned cpl, bool code64)
{
    *s = (struct stack){.vcpu = v, .ss = *ss, .sp = sp, .access = cpl == 3 ? ACCESS_USER : 0};
    s->mask = code64 ? ~0ull : ss->attr & SEG_DB ? 0xffffffffull : 0xffff;
}

static bool stack_linear(struct stack *s, uint64_t offset, unsigned size, uint64_t *linear)
{
    if (s->mask == ~0ull) {
        if (!vcpu_canonical(offset) || !vcpu_canonical(offset + size - 1))
            return fault(s->vcpu, EXCEPTION_SS, s->error | s->external);
        *linear = offset;
        return true;
    }
    if (!segment_in_limit(&s->ss, (uint32_t)offset, size))
        return fault(s->vcpu, EXCEPTION_SS, s->error | s->external);
    *linear = (uint32_t)(s->ss.base + offset);
    return true;
}

bool stack_push(struct stack *s, uint64_t value, unsigned size)
{
    uint64_t offset = (s->sp - size) & s->mask, linear;
    uint8_t bytes[8];
    store_le(bytes, size, value);
    if (!stack_linear(s, offset, size, &linear) || !vcpu_store(s->vcpu, linear, bytes, size, s->access))
        return false;
    s->sp = offset;
    return true;
}

bool stack_peek(struct stack *s, unsigned above, uint64_t *value, unsigned size)
{
    uint64_t linear;
    uint8_t bytes[8];
    if (!stack_linear(s, (s->sp + above) & s->mask, size, &linear) ||
        !vcpu_load(s->vcpu, linear, bytes, size, s->access))
        return false;
    *value = load_le(bytes, size);
    return true;
}

bool stack_pop(struct stack *s, uint64_t *value, unsigned size)
{
    if (!stack_peek(s, 0, value, size))
        return false;
    s->sp = (s->sp + size) & s->mask;
    return true;
}

void stack_commit(struct stack *s)
{
    uint64_t *rsp = &s->vcpu->gpr[RSP];
    *rsp = s->mask == 0xffff ? (*rsp & ~0xffffull) | (s->sp & 0xffff) : s->sp & s->mask;
}

// ---- The TSS's stacks (SDM vol. 3, 8.2 and 8.7) -------------------------------------------------------------------

bool tss_stack(struct vcpu *v, unsigned cpl, uint16_t *ss, uint64_t *sp, unsigned external)
{
    bool wide = (v->tr.attr & 8) != 0;
    unsigned offset = wide ? 4 + cpl * 8 : 2 + cpl * 4, size = wide ? 4 : 2;
    uint32_t value = 0;
    if (offset + 2 * size - 1 > v->tr.limit || v->tr.unusable)
        return fault(v, EXCEPTION_TS, (v->tr.selector & ~3u) | external);
    if (!vcpu_load(v, v->tr.base + offset, &value, size, ACCESS_IMPLICIT) ||
        !vcpu_load(v, v->tr.base + offset + size, ss, 2, ACCESS_IMPLICIT))
        return false;
    *sp = GUINT32_FROM_LE(value);
    return true;
}

bool tss_rsp64(struct vcpu *v, unsigned slot_offset, uint64_t *rsp, unsigned external)
{
    if (slot_offset + 7 > v->tr.limit)
        return fault(v, EXCEPTION_TS, (v->tr.selector & ~3u) | external);
    return vcpu_load(v, v->tr.base + slot_offset, rsp, 8, ACCESS_IMPLICIT);
}
