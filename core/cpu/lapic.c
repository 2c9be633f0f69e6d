// SPDX-License-Identifier: GPL-2.0-or-later
// The local APIC (SDM vol. 3, chapter 11).
#include "core/cpu/lapic.h"

#include <string.h>

#include "core/cpu/arch.h"
#include "core/cpu/model.h"

enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_CMCI, LVT_COUNT };

#define LVT_MASKED    BIT(16)
#define LVT_MODE(x)   ((x) >> 8 & 7)
#define TIMER_MODE(x) ((x) >> 17 & 3)
enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE };

#define BASE_BSP    BIT(8)
#define BASE_X2APIC BIT(10)
#define BASE_ENABLE BIT(11)
#define SVR_ENABLE  BIT(8)

#define PERIOD_MIN 20000 // ns between two interrupts of the periodic timer, whatever the guest asks for

#define ERROR_SEND_VECTOR    BIT(5)
#define ERROR_RECEIVE_VECTOR BIT(6)
#define ERROR_REGISTER       BIT(7)

// Threads: LOCK guards everything after it; other processors and devices set IRR and LINT levels, the timer fires on
// the clock's thread. Lock order: machine lock, then this.
struct lapic {
    struct vcpu *vcpu;
    GMutex lock;
    uint32_t id; // 8-bit in xAPIC mode, as written
    uint32_t tpr, ldr, dfr, svr, esr, esr_latched;
    uint64_t icr;
    uint32_t lvt[LVT_COUNT];
    uint32_t isr[8], tmr[8], irr[8];
    uint32_t initial_count, divide;
    int64_t timer_start; // guest ns when the count was loaded
    uint64_t deadline;   // TSC
    struct timer timer;
    bool lint[2];
    uint8_t sipi_vector;
};

const struct field lapic_fields[] = {
    FIELD_U32(struct lapic, id),
    FIELD_U32(struct lapic, tpr),
    FIELD_U32(struct lapic, ldr),
    FIELD_U32(struct lapic, dfr),
    FIELD_U32(struct lapic, svr),
    FIELD_U32(struct lapic, esr),
    FIELD_U32(struct lapic, esr_latched),
    FIELD_U64(struct lapic, icr),
    FIELD_ARRAY(U32, struct lapic, lvt),
    FIELD_ARRAY(U32, struct lapic, isr),
    FIELD_ARRAY(U32, struct lapic, tmr),
    FIELD_ARRAY(U32, struct lapic, irr),
    FIELD_U32(struct lapic, initial_count),
    FIELD_U32(struct lapic, divide),
    FIELD_S64(struct lapic, timer_start),
    FIELD_U64(struct lapic, deadline),
    FIELD_TIMER(struct lapic, timer),
    FIELD_ARRAY(BOOL, struct lapic, lint),
    FIELD_U8(struct lapic, sipi_vector),
    FIELD_END,
};

void *lapic_state(struct lapic *lapic)
{
    return lapic;
}

void lapic_loaded(struct lapic *lapic)
{
    vcpu_raise(lapic->vcpu, ATTENTION_INTERRUPT);
}

static bool x2apic(const struct lapic *l)
{
    return (l->vcpu->apic_base & (BASE_ENABLE | BASE_X2APIC)) == (BASE_ENABLE | BASE_X2APIC);
}
static bool enabled(const struct lapic *l) // by hardware and software
{
    return (l->vcpu->apic_base & BASE_ENABLE) && (l->svr & SVR_ENABLE);
}

// ---- 256-bit registers ----
static void bit_set(uint32_t *bits, unsigned n)
{
    bits[n / 32] |= 1u << n % 32;
}
static void bit_clear(uint32_t *bits, unsigned n)
{
    bits[n / 32] &= ~(1u << n % 32);
}
static bool bit_test(const uint32_t *bits, unsigned n)
{
    return bits[n / 32] >> n % 32 & 1;
}
static int bit_highest(const uint32_t *bits)
{
    for (int i = 7; i >= 0; i--)
        if (bits[i])
            return i * 32 + 31 - __builtin_clz(bits[i]);
    return -1;
}

// ---- Accepting interrupts. Lock held. ----
static void raise_error(struct lapic *l, uint32_t bits);

static void accept(struct lapic *l, uint8_t vector, bool level)
{
    if (vector < 16) {
        raise_error(l, ERROR_RECEIVE_VECTOR);
        return;
    }
    bit_set(l->irr, vector);
    if (level)
        bit_set(l->tmr, vector);
    else
        bit_clear(l->tmr, vector);
    vcpu_raise(l->vcpu, ATTENTION_INTERRUPT);
}

static void raise_error(struct lapic *l, uint32_t bits)
{
    l->esr_latched |= bits;
    uint32_t lvt = l->lvt[LVT_ERROR];
    if (!(lvt & LVT_MASKED) && (lvt & 0xff) >= 16)
        accept(l, (uint8_t)lvt, false);
}

static void deliver_lvt(struct lapic *l, enum lvt which)
{
    uint32_t lvt = l->lvt[which];
    if (lvt & LVT_MASKED)
        return;
    switch (LVT_MODE(lvt)) {
    case LAPIC_FIXED:
        accept(l, (uint8_t)lvt, which == LVT_LINT0 && (lvt & BIT(15)));
        break;
    case LAPIC_NMI:
        vcpu_raise(l->vcpu, ATTENTION_NMI);
        break;
    case LAPIC_EXTINT:
        vcpu_raise(l->vcpu, ATTENTION_INTERRUPT);
        break;
    default:
        break;
    }
}

static unsigned processor_priority(const struct lapic *l)
{
    int isr = bit_highest(l->isr);
    unsigned isr_class = isr < 0 ? 0 : (unsigned)isr & 0xf0;
    return (l->tpr & 0xf0) >= isr_class ? l->tpr & 0xff : isr_class;
}

static int pending_locked(struct lapic *l)
{
    if (!enabled(l))
        return -1;
    int irr = bit_highest(l->irr);
    return irr >= 0 && ((unsigned)irr & 0xf0) > (processor_priority(l) & 0xf0) ? irr : -1;
}

int lapic_pending(struct lapic *lapic)
{
    g_mutex_lock(&lapic->lock);
    int vector = pending_locked(lapic);
    g_mutex_unlock(&lapic->lock);
    return vector;
}

int lapic_acknowledge(struct lapic *lapic)
{
    g_mutex_lock(&lapic->lock);
    int vector = pending_locked(lapic);
    if (vector >= 0) {
        bit_clear(lapic->irr, (unsigned)vector);
        bit_set(lapic->isr, (unsigned)vector);
    }
    g_mutex_unlock(&lapic->lock);
    return vector;
}

bool lapic_extint_pending(struct lapic *lapic)
{
    g_mutex_lock(&lapic->lock);
    uint32_t lvt = lapic->lvt[LVT_LINT0];
    bool wired = !(lapic->vcpu->apic_base & BASE_ENABLE) || (!(lvt & LVT_MASKED) && LVT_MODE(lvt) == LAPIC_EXTINT);
    bool pending = lapic->lint[0] && wired;
    g_mutex_unlock(&lapic->lock);
    return pending;
}

static void eoi(struct lapic *l)
{
    int vector = bit_highest(l->isr);
    if (vector < 0)
        return;
    bit_clear(l->isr, (unsigned)vector);
    bool level = bit_test(l->tmr, (unsigned)vector);
    if (pending_locked(l) >= 0)
        vcpu_raise(l->vcpu, ATTENTION_INTERRUPT);
    const struct cpu_host *host = &l->vcpu->set->host;
    if (!level || !host->eoi)
        return;
    g_mutex_unlock(&l->lock);
    io_lock_take(host->lock);
    host->eoi(host->opaque, (uint8_t)vector);
    io_lock_release(host->lock);
    g_mutex_lock(&l->lock);
}

// ---- Timer: 1 GHz divided ----
static unsigned divisor(const struct lapic *l)
{
    unsigned code = (l->divide & 3) | (l->divide >> 1 & 4);
    return code == 7 ? 1 : 2u << code;
}

static int64_t guest_now(const struct lapic *l)
{
    return clock_now(l->vcpu->set->host.clock);
}

static uint32_t current_count(const struct lapic *l)
{
    if (!l->initial_count || TIMER_MODE(l->lvt[LVT_TIMER]) == TIMER_DEADLINE)
        return 0;
    uint64_t elapsed = (uint64_t)(guest_now(l) - l->timer_start) / divisor(l);
    if (TIMER_MODE(l->lvt[LVT_TIMER]) == TIMER_PERIODIC)
        return (uint32_t)(l->initial_count - elapsed % l->initial_count);
    return elapsed >= l->initial_count ? 0 : (uint32_t)(l->initial_count - elapsed);
}

static void start_count(struct lapic *l)
{
    timer_cancel(&l->timer);
    if (!l->initial_count || TIMER_MODE(l->lvt[LVT_TIMER]) == TIMER_DEADLINE)
        return;
    l->timer_start = guest_now(l);
    timer_arm(&l->timer, l->timer_start + (int64_t)l->initial_count * divisor(l));
}

static void arm_deadline(struct lapic *l)
{
    timer_cancel(&l->timer);
    if (!l->deadline)
        return;
    uint64_t now = vcpu_read_tsc(l->vcpu), ticks = l->deadline > now ? l->deadline - now : 0;
    unsigned __int128 ns = (unsigned __int128)ticks * 1000000 / l->vcpu->set->tsc_khz;
    int64_t wait = ns > INT64_MAX / 2 ? INT64_MAX / 2 : (int64_t)ns;
    timer_arm(&l->timer, guest_now(l) + wait);
}

static void timer_fired(void *opaque)
{
    struct lapic *l = opaque;
    g_mutex_lock(&l->lock);
    unsigned mode = TIMER_MODE(l->lvt[LVT_TIMER]);
    if (mode == TIMER_DEADLINE && l->deadline == 0) {
        g_mutex_unlock(&l->lock);
        return;
    }
    if (mode == TIMER_DEADLINE)
        l->deadline = 0;
    deliver_lvt(l, LVT_TIMER);
    if (mode == TIMER_PERIODIC && l->initial_count) {
        int64_t period = (int64_t)l->initial_count * divisor(l), now = guest_now(l);
        int64_t periods = MAX(1, (now - l->timer_start) / period);
        l->timer_start += periods * period;
        timer_arm(&l->timer, MAX(l->timer_start + period, now + PERIOD_MIN));
    }
    g_mutex_unlock(&l->lock);
}

void lapic_write_tsc_deadline(struct lapic *lapic, uint64_t value)
{
    g_mutex_lock(&lapic->lock);
    if (TIMER_MODE(lapic->lvt[LVT_TIMER]) == TIMER_DEADLINE) {
        lapic->deadline = value;
        arm_deadline(lapic);
    }
    g_mutex_unlock(&lapic->lock);
}

uint64_t lapic_tsc_deadline(struct lapic *lapic)
{
    g_mutex_lock(&lapic->lock);
    uint64_t value = lapic->deadline;
    g_mutex_unlock(&lapic->lock);
    return value;
}

// ---- Messages between processors ----------------------------------------------------------------------------------

static bool matches(struct lapic *l, uint32_t destination, bool logical)
{
    if (!(l->vcpu->apic_base & BASE_ENABLE))
        return false;
    if (destination == 0xff || destination == 0xffffffff)
        return true;
    if (!logical)
        return destination == (x2apic(l) ? l->vcpu->apic_id : l->id);
    if (x2apic(l)) {
        uint32_t ldr = l->vcpu->apic_id >> 4 << 16 | 1u << (l->vcpu->apic_id & 15);
        return destination >> 16 == ldr >> 16 && (destination & ldr & 0xffff);
    }
    uint32_t ldr = l->ldr >> 24;
    if (l->dfr >> 28 == 0xf)
        return destination & ldr & 0xff;
    return (destination >> 4 & 15) == ldr >> 4 && (destination & ldr & 15);
}

// Takes the target's lock. Returns whether it accepted.
static bool deliver_to(struct lapic *l, enum lapic_delivery delivery, uint8_t vector, bool level)
{
    bool accepted = true;
    g_mutex_lock(&l->lock);
    switch (delivery) {
    case LAPIC_FIXED:
    case LAPIC_LOWEST:
        accepted = enabled(l);
        if (accepted)
            accept(l, vector, level);
        break;
    case LAPIC_NMI:
        vcpu_raise(l->vcpu, ATTENTION_NMI);
        break;
    case LAPIC_INIT:
        vcpu_raise(l->vcpu, ATTENTION_INIT);
        break;
    case LAPIC_SIPI:
        l->sipi_vector = vector;
        vcpu_raise(l->vcpu, ATTENTION_SIPI);
        break;
    case LAPIC_EXTINT:
        l->lint[0] = true;
        vcpu_raise(l->vcpu, ATTENTION_INTERRUPT);
        break;
    default:
        accepted = false;
        break;
    }
    g_mutex_unlock(&l->lock);
    return accepted;
}

// Of the processors that match, the one with the lowest priority; the present vector's holder comes last.
static struct lapic *lowest(struct cpu_set *set, uint32_t destination, bool logical)
{
    struct lapic *best = NULL;
    unsigned best_priority = 0x200;
    for (unsigned i = 0; i < set->count; i++) {
        struct lapic *l = set->vcpu[i]->lapic;
        if (!matches(l, destination, logical) || !enabled(l))
            continue;
        unsigned priority = processor_priority(l);
        if (priority < best_priority) {
            best = l;
            best_priority = priority;
        }
    }
    return best;
}

unsigned lapic_send(struct cpu_set *set, uint32_t destination, bool logical, enum lapic_delivery delivery,
                    uint8_t vector, bool level)
{
    if (set->engine->apic_message) {
        uint64_t address = 0xfee00000 | (uint64_t)(destination & 0xff) << 12 | (uint64_t)logical << 2;
        int accepted =
            set->engine->apic_message(set, address, vector | (uint32_t)delivery << 8 | (level ? BIT(15) | BIT(14) : 0));
        if (accepted >= 0)
            return (unsigned)accepted;
    }
    if (delivery == LAPIC_LOWEST) {
        struct lapic *l = lowest(set, destination, logical);
        return l && deliver_to(l, delivery, vector, level);
    }
    unsigned count = 0;
    for (unsigned i = 0; i < set->count; i++) {
        struct lapic *l = set->vcpu[i]->lapic;
        if (matches(l, destination, logical))
            count += deliver_to(l, delivery, vector, level);
    }
    return count;
}

void lapic_send_msi(struct cpu_set *set, uint64_t address, uint32_t data)
{
    bool logical = address & 4;
    enum lapic_delivery delivery = (enum lapic_delivery)(data >> 8 & 7);
    lapic_send(set, address >> 12 & 0xff, logical, delivery, (uint8_t)data, (data & BIT(15)) != 0);
}

void lapic_set_lint(struct lapic *lapic, unsigned lint, bool level)
{
    g_mutex_lock(&lapic->lock);
    bool rising = level && !lapic->lint[lint];
    lapic->lint[lint] = level;
    if (lint == 0 && level && !(lapic->vcpu->apic_base & BASE_ENABLE))
        vcpu_raise(lapic->vcpu, ATTENTION_INTERRUPT);
    else if (rising && lint == 1 && !(lapic->vcpu->apic_base & BASE_ENABLE))
        vcpu_raise(lapic->vcpu, ATTENTION_NMI);
    else if (rising)
        deliver_lvt(lapic, lint ? LVT_LINT1 : LVT_LINT0);
    g_mutex_unlock(&lapic->lock);
}

// The interrupt command register was written. Lock not held.
static void send_ipi(struct lapic *l, uint64_t icr)
{
    struct cpu_set *set = l->vcpu->set;
    enum lapic_delivery delivery = (enum lapic_delivery)(icr >> 8 & 7);
    uint8_t vector = (uint8_t)icr;
    uint32_t destination = x2apic(l) ? (uint32_t)(icr >> 32) : (uint32_t)(icr >> 56);
    unsigned shorthand = icr >> 18 & 3;
    if (delivery == LAPIC_INIT && !(icr & BIT(14)) && (icr & BIT(15)))
        return; // INIT level de-assert: for old processors
    if ((delivery == LAPIC_FIXED || delivery == LAPIC_LOWEST) && vector < 16) {
        g_mutex_lock(&l->lock);
        raise_error(l, ERROR_SEND_VECTOR);
        g_mutex_unlock(&l->lock);
        return;
    }
    if (shorthand == 0) {
        lapic_send(set, destination, (icr & BIT(11)) != 0, delivery, vector, false);
        return;
    }
    for (unsigned i = 0; i < set->count; i++) {
        struct lapic *target = set->vcpu[i]->lapic;
        bool self = target == l;
        if (shorthand == 1 ? self : shorthand == 2 || !self)
            deliver_to(target, delivery, vector, false);
    }
}

bool lapic_lint(struct lapic *lapic, unsigned lint)
{
    g_mutex_lock(&lapic->lock);
    bool level = lapic->lint[lint];
    g_mutex_unlock(&lapic->lock);
    return level;
}

uint8_t lapic_sipi_vector(struct lapic *lapic)
{
    g_mutex_lock(&lapic->lock);
    uint8_t vector = lapic->sipi_vector;
    g_mutex_unlock(&lapic->lock);
    return vector;
}

// ---- Registers: INDEX is the offset / 16, as in the x2APIC MSR numbers ----------------------------------------------

static const uint8_t lvt_index[LVT_COUNT] = {0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x2f};

static int lvt_of(unsigned index)
{
    for (int i = 0; i < LVT_COUNT; i++)
        if (lvt_index[i] == index)
            return i;
    return -1;
}

static bool read_register(struct lapic *l, unsigned index, uint32_t *value)
{
    int lvt = lvt_of(index);
    if (lvt >= 0) {
        *value = l->lvt[lvt];
        return true;
    }
    if (index >= 0x10 && index < 0x28) {
        uint32_t *set = index < 0x18 ? l->isr : index < 0x20 ? l->tmr : l->irr;
        *value = set[index & 7];
        return true;
    }
    switch (index) {
    case 0x02:
        *value = x2apic(l) ? l->vcpu->apic_id : l->id << 24;
        return true;
    case 0x03:
        *value = 0x14 | (LVT_COUNT - 1) << 16;
        return true;
    case 0x08:
        *value = l->tpr;
        return true;
    case 0x0a:
        *value = processor_priority(l);
        return true;
    case 0x0d:
        *value = x2apic(l) ? l->vcpu->apic_id >> 4 << 16 | 1u << (l->vcpu->apic_id & 15) : l->ldr;
        return true;
    case 0x0e:
        *value = l->dfr;
        return !x2apic(l);
    case 0x0f:
        *value = l->svr;
        return true;
    case 0x28:
        *value = l->esr;
        return true;
    case 0x30:
        *value = (uint32_t)l->icr;
        return true;
    case 0x31:
        *value = (uint32_t)(l->icr >> 32);
        return !x2apic(l);
    case 0x38:
        *value = l->initial_count;
        return true;
    case 0x39:
        *value = current_count(l);
        return true;
    case 0x3e:
        *value = l->divide;
        return true;
    default:
        return false;
    }
}

static void write_lvt(struct lapic *l, enum lvt which, uint32_t value)
{
    static const uint32_t writable[LVT_COUNT] = {
        [LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff, [LVT_LINT0] = 0x1a7ff,
        [LVT_LINT1] = 0x1a7ff, [LVT_ERROR] = 0x100ff,   [LVT_CMCI] = 0x107ff};
    uint32_t old = l->lvt[which];
    value &= writable[which];
    if (!(l->svr & SVR_ENABLE))
        value |= LVT_MASKED;
    l->lvt[which] = value;
    if (which == LVT_TIMER && TIMER_MODE(old ^ value)) {
        timer_cancel(&l->timer);
        l->deadline = 0;
        l->initial_count = 0;
    }
    if (which == LVT_LINT0 && l->lint[0])
        vcpu_raise(l->vcpu, ATTENTION_INTERRUPT);
}

static void write_svr(struct lapic *l, uint32_t value)
{
    l->svr = value & 0x1ff;
    if (!(l->svr & SVR_ENABLE))
        for (unsigned i = 0; i < LVT_COUNT; i++)
            l->lvt[i] |= LVT_MASKED;
    else
        vcpu_raise(l->vcpu, ATTENTION_INTERRUPT);
}

// Lock held; may be dropped in between. False: no such register, or read-only.
static bool write_register(struct lapic *l, unsigned index, uint32_t value)
{
    int lvt = lvt_of(index);
    if (lvt >= 0) {
        write_lvt(l, (enum lvt)lvt, value);
        return true;
    }
    switch (index) {
    case 0x02:
        l->id = value >> 24;
        return !x2apic(l);
    case 0x08:
        l->tpr = value & 0xff;
        vcpu_raise(l->vcpu, ATTENTION_INTERRUPT);
        return true;
    case 0x0b:
        eoi(l);
        return true;
    case 0x0d:
        l->ldr = value & 0xff000000;
        return !x2apic(l);
    case 0x0e:
        l->dfr = value | 0x0fffffff;
        return !x2apic(l);
    case 0x0f:
        write_svr(l, value);
        return true;
    case 0x28:
        l->esr = l->esr_latched;
        l->esr_latched = 0;
        return true;
    case 0x30:
        l->icr = (l->icr & ~0xffffffffull) | (value & 0xccfff);
        g_mutex_unlock(&l->lock);
        send_ipi(l, l->icr);
        g_mutex_lock(&l->lock);
        return true;
    case 0x31:
        l->icr = (uint32_t)l->icr | (uint64_t)value << 32;
        return true;
    case 0x38:
        if (TIMER_MODE(l->lvt[LVT_TIMER]) != TIMER_DEADLINE) {
            l->initial_count = value;
            start_count(l);
        }
        return true;
    case 0x3e:
        l->divide = value & 0xb;
        start_count(l);
        return true;
    default:
        return false;
    }
}

uint32_t lapic_read(struct lapic *lapic, unsigned offset)
{
    uint32_t value = 0;
    g_mutex_lock(&lapic->lock);
    if (!read_register(lapic, offset >> 4, &value))
        raise_error(lapic, ERROR_REGISTER);
    g_mutex_unlock(&lapic->lock);
    return value;
}

void lapic_write(struct lapic *lapic, unsigned offset, uint32_t value)
{
    g_mutex_lock(&lapic->lock);
    if (!write_register(lapic, offset >> 4, value))
        raise_error(lapic, ERROR_REGISTER);
    g_mutex_unlock(&lapic->lock);
}

void lapic_page_read(struct lapic *lapic, unsigned offset, void *data, unsigned size)
{
    uint8_t *bytes = data;
    for (unsigned i = 0; i < size; i++) {
        uint32_t word = i == 0 || !((offset + i) & 3) ? lapic_read(lapic, (offset + i) & 0xffc) : 0;
        if (((offset + i) & 12) != 0) {
            bytes[i] = 0;
            continue;
        }
        for (unsigned k = (offset + i) & 3; k < 4 && i < size; k++, i++)
            bytes[i] = (uint8_t)(word >> 8 * k);
        i--;
    }
}

void lapic_page_write(struct lapic *lapic, unsigned offset, const void *data, unsigned size)
{
    // Only aligned 32-bit writes are defined; of others the low four bytes at the register's start count.
    if ((offset & 15) || size < 4)
        return;
    lapic_write(lapic, offset & 0xff0, (uint32_t)load_le(data, 4));
}

bool lapic_read_msr(struct lapic *lapic, uint32_t msr, uint64_t *value)
{
    unsigned index = msr - 0x800;
    uint32_t low = 0;
    if (!x2apic(lapic) || index == 0x0b || index == 0x3f)
        return false;
    g_mutex_lock(&lapic->lock);
    bool known = read_register(lapic, index, &low);
    *value = index == 0x30 ? lapic->icr : low;
    g_mutex_unlock(&lapic->lock);
    return known;
}

bool lapic_write_msr(struct lapic *lapic, uint32_t msr, uint64_t value)
{
    unsigned index = msr - 0x800;
    if (!x2apic(lapic))
        return false;
    if (index == 0x30) {
        g_mutex_lock(&lapic->lock);
        lapic->icr = value;
        g_mutex_unlock(&lapic->lock);
        send_ipi(lapic, value);
        return true;
    }
    if (value >> 32 || ((index == 0x0b || index == 0x28) && value))
        return false;
    if (index == 0x3f) {
        deliver_to(lapic, LAPIC_FIXED, (uint8_t)value, false);
        return true;
    }
    g_mutex_lock(&lapic->lock);
    bool known = index != 0x31 && write_register(lapic, index, (uint32_t)value);
    g_mutex_unlock(&lapic->lock);
    return known;
}

uint64_t lapic_tpr(struct lapic *lapic)
{
    return lapic->tpr >> 4;
}

void lapic_set_tpr(struct lapic *lapic, uint64_t value)
{
    lapic_write(lapic, 0x80, (uint32_t)(value << 4) & 0xf0);
}

// ---- To and from a kernel that keeps the APIC ----------------------------------------------------------------------

// What KVM's page holds beside the local vector table and the 256-bit sets.
static const uint8_t page_index[] = {0x08, 0x0d, 0x0e, 0x0f, 0x28, 0x38, 0x39, 0x3e};

void lapic_to_page(struct lapic *lapic, uint32_t page[LAPIC_PAGE_WORDS])
{
    memset(page, 0, LAPIC_PAGE_WORDS * 4);
    g_mutex_lock(&lapic->lock);
    timer_cancel(&lapic->timer);
    for (unsigned n = 0; n < G_N_ELEMENTS(page_index); n++)
        read_register(lapic, page_index[n], &page[page_index[n] * 4]);
    for (unsigned n = 0; n < LVT_COUNT; n++)
        page[lvt_index[n] * 4] = lapic->lvt[n];
    for (unsigned n = 0; n < 8; n++) {
        page[(0x10 + n) * 4] = lapic->isr[n];
        page[(0x18 + n) * 4] = lapic->tmr[n];
        page[(0x20 + n) * 4] = lapic->irr[n];
    }
    memset(lapic->irr, 0, sizeof lapic->irr); // what is pending is the kernel's to deliver, once
    page[0x02 * 4] = (x2apic(lapic) ? lapic->vcpu->apic_id : lapic->id) << 24;
    page[0x03 * 4] = 0x14 | (LVT_COUNT - 1) << 16;
    page[0x30 * 4] = (uint32_t)lapic->icr;
    page[0x31 * 4] = (uint32_t)(lapic->icr >> 32);
    if (!page[0x39 * 4]) // a count that has run out must not run out again
        page[0x38 * 4] = 0;
    g_mutex_unlock(&lapic->lock);
}

void lapic_from_page(struct lapic *lapic, const uint32_t page[LAPIC_PAGE_WORDS], uint64_t deadline)
{
    g_mutex_lock(&lapic->lock);
    for (unsigned n = 0; n < LVT_COUNT; n++)
        lapic->lvt[n] = page[lvt_index[n] * 4];
    for (unsigned n = 0; n < 8; n++) {
        lapic->isr[n] = page[(0x10 + n) * 4];
        lapic->tmr[n] = page[(0x18 + n) * 4];
        lapic->irr[n] = page[(0x20 + n) * 4];
    }
    lapic->id = page[0x02 * 4] >> 24;
    lapic->tpr = page[0x08 * 4];
    if (!x2apic(lapic)) {
        lapic->ldr = page[0x0d * 4];
        lapic->dfr = page[0x0e * 4];
    }
    lapic->svr = page[0x0f * 4];
    lapic->esr = page[0x28 * 4];
    lapic->icr = page[0x30 * 4] | (uint64_t)page[0x31 * 4] << 32;
    lapic->divide = page[0x3e * 4];
    lapic->initial_count = page[0x38 * 4];
    timer_cancel(&lapic->timer);
    int64_t left = (int64_t)page[0x39 * 4] * divisor(lapic), whole = (int64_t)lapic->initial_count * divisor(lapic);
    lapic->timer_start = guest_now(lapic) - (whole - left);
    if (left && TIMER_MODE(lapic->lvt[LVT_TIMER]) != TIMER_DEADLINE)
        timer_arm(&lapic->timer, lapic->timer_start + whole);
    lapic->deadline = TIMER_MODE(lapic->lvt[LVT_TIMER]) == TIMER_DEADLINE ? deadline : 0;
    if (lapic->deadline)
        arm_deadline(lapic);
    g_mutex_unlock(&lapic->lock);
    vcpu_raise(lapic->vcpu, ATTENTION_INTERRUPT);
}

// ---- Life ---------------------------------------------------------------------------------------------------------

bool lapic_write_base(struct lapic *lapic, uint64_t value)
{
    struct vcpu *v = lapic->vcpu;
    uint64_t reserved = MASK_BITS(63, v->set->model->physical_bits) | 0xff | BIT(9);
    uint64_t old = v->apic_base & 0xc00, new = value & 0xc00;
    if (value & reserved || new == BASE_X2APIC)
        return false;
    if (new != old && ((old == 0xc00 && new == 0x800) || (old == 0 && new == 0xc00)))
        return false; // SDM vol. 3, figure 11-26
    if ((new &BASE_X2APIC) && !cpu_has(v->set->model, FEATURE_X2APIC))
        return false;
    v->apic_base = value;
    if (!(value & BASE_ENABLE) && old)
        lapic_reset(lapic, true);
    vcpu_flush_tlb(v); // the page moves
    return true;
}

void lapic_reset(struct lapic *lapic, bool init)
{
    timer_cancel(&lapic->timer);
    g_mutex_lock(&lapic->lock);
    if (!init)
        lapic->id = lapic->vcpu->apic_id;
    lapic->tpr = lapic->ldr = lapic->esr = lapic->esr_latched = 0;
    lapic->dfr = 0xffffffff;
    lapic->svr = 0xff;
    lapic->icr = 0;
    lapic->initial_count = lapic->divide = 0;
    lapic->deadline = 0;
    lapic->timer_start = 0;
    memset(lapic->isr, 0, sizeof(lapic->isr));
    memset(lapic->tmr, 0, sizeof(lapic->tmr));
    memset(lapic->irr, 0, sizeof(lapic->irr));
    for (unsigned i = 0; i < LVT_COUNT; i++)
        lapic->lvt[i] = LVT_MASKED;
    if (lapic->vcpu->index == 0 && !init)
        lapic->lvt[LVT_LINT0] = LAPIC_EXTINT << 8; // boards wire the 8259 through before firmware runs
    g_mutex_unlock(&lapic->lock);
}

struct lapic *lapic_new(struct vcpu *vcpu)
{
    struct lapic *lapic = g_new0(struct lapic, 1);
    lapic->vcpu = vcpu;
    g_mutex_init(&lapic->lock);
    timer_init(&lapic->timer, vcpu->set->host.clock, timer_fired, lapic);
    return lapic;
}

void lapic_free(struct lapic *lapic)
{
    if (!lapic)
        return;
    timer_destroy(&lapic->timer);
    g_mutex_clear(&lapic->lock);
    g_free(lapic);
}
