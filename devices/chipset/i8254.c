// SPDX-License-Identifier: GPL-2.0-or-later
// The 8254 interval timer (Intel 8254 data sheet) and port 0x61. Counters are never stepped: count and output are
// computed from the time since they were loaded.
#include "devices/chipset/chipset.h"

#define PIT_HZ 1193182

enum access_mode { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

struct counter {
    uint8_t mode;   // 0 to 5
    uint8_t access; // enum access_mode
    bool bcd, gate;
    bool loaded;                // a full count was written since the mode
    bool triggered;             // modes 1 and 5: the gate started it
    bool write_high, read_high; // ACCESS_BOTH: the high byte is next
    uint8_t low;                // of a write under way
    bool latched, status_latched;
    uint8_t latch_bytes; // left to read
    uint16_t latch;
    uint8_t status;
    uint32_t count; // loaded value, 1 to 0x10000
    int64_t start;  // guest ns when counting began (gate open)
    uint64_t held;  // ticks that had passed when the gate closed
};

struct i8254 {
    struct device device;
    struct counter counter[3];
    bool speaker, irq0_enabled, irq0_level;
    struct timer edge; // next transition of channel 0's output
    struct region ports, port61;
};

static uint64_t ns_to_ticks(int64_t ns)
{
    return (unsigned __int128)MAX(ns, 0) * PIT_HZ / 1000000000;
}

static int64_t ticks_to_ns(uint64_t ticks) // rounded up: never before the tick
{
    return ((unsigned __int128)ticks * 1000000000 + PIT_HZ - 1) / PIT_HZ;
}

static int64_t now(const struct i8254 *s)
{
    return clock_now(s->device.machine->clock);
}

static bool gate_starts(const struct counter *c) // modes in which a rising gate (re)starts the counter
{
    return c->mode == 1 || c->mode == 5;
}

static bool counting(const struct counter *c)
{
    return c->loaded && (gate_starts(c) ? c->triggered : c->gate);
}

static uint64_t elapsed(const struct i8254 *s, const struct counter *c)
{
    return counting(c) ? c->held + ns_to_ticks(now(s) - c->start) : c->held;
}

// The value of the counting element, binary.
static uint16_t current_count(const struct i8254 *s, const struct counter *c)
{
    uint64_t t = elapsed(s, c);
    if (!c->loaded)
        return 0;
    switch (c->mode) {
    case 2:
        return c->count - t % c->count;
    case 3:
        return c->count - (2 * t) % c->count;
    default: // wraps after zero
        return c->count - t;
    }
}

static bool output(const struct i8254 *s, const struct counter *c)
{
    uint64_t t = elapsed(s, c);
    switch (c->mode) {
    case 0:
        return c->loaded && t >= c->count;
    case 1:
        return !c->triggered || t >= c->count;
    case 2:
        return !c->loaded || !c->gate || t % c->count != c->count - 1;
    case 3:
        return !c->loaded || !c->gate || t % c->count < (c->count + 1) / 2;
    default: // low for one tick at zero
        return !c->loaded || t != c->count;
    }
}

// Ticks from the start of the present state until the output changes next, or UINT64_MAX.
static uint64_t next_transition(const struct counter *c, uint64_t t)
{
    uint64_t period = t / c->count * c->count, half = (c->count + 1) / 2;
    switch (c->mode) {
    case 2:
        return period + c->count; // the rising edge; the low tick before it is not worth a wake-up
    case 3:
        return t % c->count < half ? period + half : period + c->count;
    case 0:
    case 1:
        return t < c->count ? c->count : UINT64_MAX;
    default:
        return t < c->count ? c->count : t == c->count ? c->count + 1ull : UINT64_MAX;
    }
}

static void update_irq0(struct i8254 *s)
{
    struct counter *c = &s->counter[0];
    bool level = output(s, c) && s->irq0_enabled;
    if (level != s->irq0_level) {
        s->irq0_level = level;
        irq_set(&s->device.machine->isa_irq[ISA_IRQ_TIMER], level);
    }
    uint64_t next = counting(c) ? next_transition(c, elapsed(s, c)) : UINT64_MAX;
    if (next == UINT64_MAX || !s->irq0_enabled)
        timer_cancel(&s->edge);
    else
        timer_arm(&s->edge, c->start + ticks_to_ns(next - c->held));
}

// The output changed. A periodic channel that fell behind (the host was busy) gives one interrupt per missed period's
// end at most: its state is a function of the time, so nothing queues up.
static void edge_due(void *opaque)
{
    struct i8254 *s = opaque;
    struct counter *c = &s->counter[0];
    bool periodic = c->mode == 2 || c->mode == 3;
    if (periodic && s->irq0_level && output(s, c)) { // a new period: the low phase passed unseen
        s->irq0_level = false;
        irq_set(&s->device.machine->isa_irq[ISA_IRQ_TIMER], false);
    }
    update_irq0(s);
}

void i8254_set_irq0_enabled(struct device *pit, bool enabled)
{
    struct i8254 *s = (struct i8254 *)pit;
    s->irq0_enabled = enabled;
    update_irq0(s);
}

// ---- Programming ----
static uint32_t from_bcd(uint32_t value)
{
    return (value & 15) + (value >> 4 & 15) * 10 + (value >> 8 & 15) * 100 + (value >> 12 & 15) * 1000;
}

static uint16_t to_bcd(uint32_t value)
{
    value %= 10000;
    return value % 10 | value / 10 % 10 << 4 | value / 100 % 10 << 8 | value / 1000 << 12;
}

static void load_count(struct i8254 *s, unsigned n, uint16_t value)
{
    struct counter *c = &s->counter[n];
    uint32_t count = c->bcd ? from_bcd(value) : value;
    c->count = count ? count : c->bcd ? 10000 : 0x10000;
    if ((c->mode == 2 || c->mode == 3) && c->count < 2)
        c->count = 2; // 1 is illegal
    if (!gate_starts(c) || !c->loaded) {
        c->start = now(s);
        c->held = 0;
    }
    c->loaded = true;
    if (n == 0)
        update_irq0(s);
}

static void set_gate(struct i8254 *s, unsigned n, bool gate)
{
    struct counter *c = &s->counter[n];
    if (gate && !c->gate) {
        c->start = now(s);
        if (c->mode == 1 || c->mode == 2 || c->mode == 3 || c->mode == 5)
            c->held = 0;
        c->triggered |= gate_starts(c);
    } else if (!gate && c->gate && !gate_starts(c)) {
        c->held = elapsed(s, c);
    }
    c->gate = gate;
}

static uint16_t visible_count(const struct i8254 *s, const struct counter *c)
{
    uint16_t count = current_count(s, c);
    return c->bcd ? to_bcd(count) : count;
}

static void latch_count(struct i8254 *s, struct counter *c)
{
    if (c->latched)
        return;
    c->latch = visible_count(s, c);
    c->latched = true;
    c->latch_bytes = c->access == ACCESS_BOTH ? 2 : 1;
}

static void latch_status(struct i8254 *s, struct counter *c)
{
    if (c->status_latched)
        return;
    c->status = output(s, c) << 7 | !c->loaded << 6 | c->access << 4 | c->mode << 1 | c->bcd;
    c->status_latched = true;
}

static void write_control(struct i8254 *s, uint8_t value)
{
    unsigned n = value >> 6;
    if (n == 3) { // read-back
        for (unsigned i = 0; i < 3; i++) {
            if (!(value & 2 << i))
                continue;
            if (!(value & 0x20))
                latch_count(s, &s->counter[i]);
            if (!(value & 0x10))
                latch_status(s, &s->counter[i]);
        }
        return;
    }
    struct counter *c = &s->counter[n];
    if ((value >> 4 & 3) == ACCESS_LATCH) {
        latch_count(s, c);
        return;
    }
    uint8_t mode = value >> 1 & 7;
    *c = (struct counter){.access = value >> 4 & 3,
                          .mode = mode > 5 ? mode - 4 : mode,
                          .bcd = value & 1,
                          .gate = c->gate,
                          .count = 0x10000};
    if (n == 0)
        update_irq0(s);
}

static uint64_t pit_read(void *opaque, uint64_t offset, unsigned size)
{
    struct i8254 *s = opaque;
    if (offset == 3)
        return 0xff;
    struct counter *c = &s->counter[offset];
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t value = c->latched ? c->latch : visible_count(s, c);
    bool high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->read_high);
    if (c->access == ACCESS_BOTH)
        c->read_high = !c->read_high;
    if (c->latched && --c->latch_bytes == 0)
        c->latched = false;
    return high ? value >> 8 : value & 0xff;
}

static void pit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct i8254 *s = opaque;
    if (offset == 3) {
        write_control(s, value);
        return;
    }
    struct counter *c = &s->counter[offset];
    switch (c->access) {
    case ACCESS_LOW:
        load_count(s, offset, value);
        break;
    case ACCESS_HIGH:
        load_count(s, offset, value << 8);
        break;
    default:
        if (c->write_high)
            load_count(s, offset, value << 8 | c->low);
        else
            c->low = value;
        c->write_high = !c->write_high;
    }
}

// Port 0x61: bit 0 gate of channel 2, bit 1 speaker, bit 4 refresh toggle (every 15 us), bit 5 output of channel 2.
static uint64_t port61_read(void *opaque, uint64_t offset, unsigned size)
{
    struct i8254 *s = opaque;
    return s->counter[2].gate | s->speaker << 1 | (now(s) / 15085 & 1) << 4 | output(s, &s->counter[2]) << 5;
}

static void port61_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct i8254 *s = opaque;
    s->speaker = value & 2;
    set_gate(s, 2, value & 1);
}

static const struct io_ops pit_ops = {pit_read, pit_write, 1, 1};
static const struct io_ops port61_ops = {port61_read, port61_write, 1, 1};

static bool realize(struct device *device, GError **error)
{
    struct i8254 *s = (struct i8254 *)device;
    timer_init(&s->edge, device->machine->clock, edge_due, s);
    region_init_io(&s->ports, "pit", &pit_ops, s, 4);
    region_init_io(&s->port61, "port 61", &port61_ops, s, 1);
    address_space_map(device->machine->ports, &s->ports, 0x40, 0);
    address_space_map(device->machine->ports, &s->port61, 0x61, 0);
    return true;
}

static void unrealize(struct device *device)
{
    timer_destroy(&((struct i8254 *)device)->edge);
}

static void reset(struct device *device)
{
    struct i8254 *s = (struct i8254 *)device;
    for (unsigned n = 0; n < 3; n++)
        s->counter[n] = (struct counter){.access = ACCESS_BOTH, .mode = 3, .count = 0x10000, .gate = n != 2};
    s->speaker = false;
    s->irq0_enabled = true;
    update_irq0(s);
}

static const struct field counter_fields[] = {
    FIELD_U8(struct counter, mode),
    FIELD_U8(struct counter, access),
    FIELD_BOOL(struct counter, bcd),
    FIELD_BOOL(struct counter, gate),
    FIELD_BOOL(struct counter, loaded),
    FIELD_BOOL(struct counter, triggered),
    FIELD_BOOL(struct counter, write_high),
    FIELD_BOOL(struct counter, read_high),
    FIELD_U8(struct counter, low),
    FIELD_BOOL(struct counter, latched),
    FIELD_BOOL(struct counter, status_latched),
    FIELD_U8(struct counter, latch_bytes),
    FIELD_U16(struct counter, latch),
    FIELD_U8(struct counter, status),
    FIELD_U32(struct counter, count),
    FIELD_S64(struct counter, start),
    FIELD_U64(struct counter, held),
    FIELD_END,
};

static bool loaded(struct device *device, GError **error)
{
    struct i8254 *s = (struct i8254 *)device;
    for (unsigned n = 0; n < 3; n++)
        if (s->counter[n].count < 1 || s->counter[n].count > 0x10000 || s->counter[n].mode > 5) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "The saved state of the interval timer is damaged.");
            return false;
        }
    return true;
}

static const struct field fields[] = {
    FIELD_STRUCT_ARRAY(struct i8254, counter, counter_fields),
    FIELD_BOOL(struct i8254, speaker),
    FIELD_BOOL(struct i8254, irq0_enabled),
    FIELD_BOOL(struct i8254, irq0_level),
    FIELD_TIMER(struct i8254, edge),
    FIELD_END,
};

const struct device_class i8254_class = {
    .name = "i8254",
    .help = "the 8254 interval timer and the speaker gate",
    .size = sizeof(struct i8254),
    .realize = realize,
    .unrealize = unrealize,
    .reset = reset,
    .loaded = loaded,
    .fields = fields,
    .internal = true,
};
