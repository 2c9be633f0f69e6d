// SPDX-License-Identifier: GPL-2.0-or-later
// The high precision event timers: one 64-bit counter at 100 MHz, three comparators (IA-PC HPET specification 1.0a).
#include "devices/chipset/chipset.h"

#define PERIOD_FS     10000000 // 10 ns
#define PERIOD_NS     10
#define TIMERS        3
#define CONFIG_ON     1
#define CONFIG_LEGACY 2

#define T_LEVEL            0x0002
#define T_ENABLE           0x0004
#define T_PERIODIC         0x0008
#define T_PERIODIC_CAPABLE 0x0010
#define T_64BIT            0x0020
#define T_SET              0x0040
#define T_32MODE           0x0100
#define T_ROUTE(c)         ((c) >> 9 & 31)
#define T_WRITABLE         (T_LEVEL | T_ENABLE | T_PERIODIC | T_32MODE | 0x3e00)
#define ROUTES             0x00ff0000ull // I/O APIC inputs 16 to 23

struct comparator {
    struct hpet *hpet;
    uint64_t config, compare, period;
    int route_held; // the input that this timer holds high, -1: none
    struct timer timer;
};

struct hpet {
    struct device device;
    uint64_t config, status;
    uint64_t counter; // while stopped; else offset: counter - now
    struct comparator comparator[TIMERS];
    struct device *pit, *rtc;
    struct region region;
};

static uint64_t ticks_now(const struct hpet *s)
{
    return clock_now(s->device.machine->clock) / PERIOD_NS;
}

static uint64_t counter(const struct hpet *s)
{
    return s->config & CONFIG_ON ? s->counter + ticks_now(s) : s->counter;
}

static unsigned index_of(const struct comparator *c)
{
    return c - c->hpet->comparator;
}

// ---- Interrupts ----
static bool legacy(const struct comparator *c)
{
    return (c->hpet->config & CONFIG_LEGACY) && index_of(c) < 2;
}

static void set_line(struct comparator *c, unsigned route, bool level)
{
    struct machine *machine = c->hpet->device.machine;
    irq_set(legacy(c) || route < 16 ? &machine->isa_irq[route] : &machine->gsi[route], level);
}

static void release(struct comparator *c)
{
    if (c->route_held < 0)
        return;
    unsigned route = c->route_held;
    c->route_held = -1;
    set_line(c, route, false);
}

static void fire(struct comparator *c)
{
    struct hpet *s = c->hpet;
    unsigned route = legacy(c) ? (index_of(c) ? ISA_IRQ_RTC : ISA_IRQ_TIMER) : T_ROUTE(c->config);
    if (c->config & T_LEVEL)
        s->status |= BIT(index_of(c));
    if (!(c->config & T_ENABLE) || route >= 24)
        return;
    if (c->config & T_LEVEL) {
        release(c);
        c->route_held = route;
        set_line(c, route, true);
    } else {
        set_line(c, route, true);
        set_line(c, route, false);
    }
}

// ---- Comparators ----
static uint64_t mask_of(const struct comparator *c)
{
    return c->config & T_32MODE ? UINT32_MAX : UINT64_MAX;
}

static void arm(struct comparator *c)
{
    struct hpet *s = c->hpet;
    if (!(s->config & CONFIG_ON)) {
        timer_cancel(&c->timer);
        return;
    }
    uint64_t distance = (c->compare - counter(s)) & mask_of(c);
    // A comparator just behind the counter has been missed; it matches again after a wrap.
    if (distance > (uint64_t)INT64_MAX / PERIOD_NS / 4)
        timer_cancel(&c->timer);
    else
        timer_arm(&c->timer, (int64_t)(ticks_now(s) + distance) * PERIOD_NS);
}

static void due(void *opaque)
{
    struct comparator *c = opaque;
    uint64_t now = counter(c->hpet);
    bool periodic = (c->config & T_PERIODIC) && c->period;
    if (periodic) {
        uint64_t late = (now - c->compare) & mask_of(c);
        c->compare = (c->compare + (late / c->period + 1) * c->period) & mask_of(c);
    }
    fire(c);
    if (periodic)
        arm(c);
    else if (c->config & T_32MODE)
        timer_arm(&c->timer, clock_now(c->hpet->device.machine->clock) + (int64_t)PERIOD_NS * UINT32_MAX);
}

static void write_comparator(struct comparator *c, uint64_t value)
{
    value &= mask_of(c);
    if (c->config & T_PERIODIC) {
        // With T_SET the first write sets the comparator, the next the period.
        if (c->config & T_SET)
            c->compare = value;
        else
            c->period = value;
        c->config &= ~T_SET;
        if (c->period && c->period < 100)
            c->period = 100; // 1 us: no host keeps up with less
    } else {
        c->compare = value;
    }
    arm(c);
}

static void write_timer_config(struct comparator *c, uint64_t value)
{
    release(c);
    c->hpet->status &= ~BIT(index_of(c));
    c->config = (c->config & ~(uint64_t)T_WRITABLE) | (value & T_WRITABLE) | (value & T_PERIODIC ? value & T_SET : 0);
    if (c->config & T_32MODE) {
        c->compare &= UINT32_MAX;
        c->period &= UINT32_MAX;
    }
    arm(c);
}

// ---- Registers ----
static void write_config(struct hpet *s, uint64_t value)
{
    uint64_t now = counter(s), old = s->config;
    s->config = value & (CONFIG_ON | CONFIG_LEGACY);
    s->counter = s->config & CONFIG_ON ? now - ticks_now(s) : now;
    if ((s->config ^ old) & CONFIG_LEGACY) {
        for (unsigned i = 0; i < TIMERS; i++)
            release(&s->comparator[i]);
        i8254_set_irq0_enabled(s->pit, !(s->config & CONFIG_LEGACY));
        rtc_set_irq8_enabled(s->rtc, !(s->config & CONFIG_LEGACY));
    }
    for (unsigned i = 0; i < TIMERS; i++)
        arm(&s->comparator[i]);
}

static uint64_t read_register(struct hpet *s, unsigned offset)
{
    switch (offset) {
    case 0x00: // capabilities: vendor 8086, legacy routes, 64 bits, 3 timers, revision 1
        return (uint64_t)PERIOD_FS << 32 | 0x8086a001 | (TIMERS - 1) << 8;
    case 0x10:
        return s->config;
    case 0x20:
        return s->status;
    case 0xf0:
        return counter(s);
    }
    unsigned n = (offset - 0x100) / 0x20;
    if (offset < 0x100 || n >= TIMERS)
        return 0;
    struct comparator *c = &s->comparator[n];
    switch (offset & 0x18) {
    case 0x00:
        return c->config;
    case 0x08:
        return c->compare;
    }
    return 0;
}

static void write_register(struct hpet *s, unsigned offset, uint64_t value)
{
    unsigned n = (offset - 0x100) / 0x20;
    switch (offset) {
    case 0x10:
        write_config(s, value);
        return;
    case 0x20:
        for (unsigned i = 0; i < TIMERS; i++)
            if (value >> i & 1) {
                s->status &= ~BIT(i);
                release(&s->comparator[i]);
            }
        return;
    case 0xf0:
        s->counter = s->config & CONFIG_ON ? value - ticks_now(s) : value;
        for (unsigned i = 0; i < TIMERS; i++)
            arm(&s->comparator[i]);
        return;
    }
    if (offset < 0x100 || n >= TIMERS)
        return;
    if ((offset & 0x18) == 0)
        write_timer_config(&s->comparator[n], value);
    else if ((offset & 0x18) == 8)
        write_comparator(&s->comparator[n], value);
}

static uint64_t hpet_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = read_register(opaque, offset & 0x3f8);
    return size == 4 ? (uint32_t)(value >> (offset & 4) * 8) : value;
}

static void hpet_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct hpet *s = opaque;
    unsigned at = offset & 0x3f8;
    if (size == 4) { // half of a register: the other half stays
        uint64_t old = at == 0x20 ? 0 : read_register(s, at);
        unsigned n = (at - 0x100) / 0x20;
        if (at >= 0x100 && n < TIMERS && (at & 0x18) == 8 && (s->comparator[n].config & T_PERIODIC)) {
            if (offset & 4)
                return; // periodic comparators are 32 bits wide for 32-bit writers
            old = 0;
        }
        value = offset & 4 ? (old & UINT32_MAX) | value << 32 : (old & ~(uint64_t)UINT32_MAX) | (uint32_t)value;
    }
    write_register(s, at, value);
}

static const struct io_ops ops = {hpet_read, hpet_write, 4, 8};

static bool realize(struct device *device, GError **error)
{
    struct hpet *s = (struct hpet *)device;
    for (unsigned i = 0; i < TIMERS; i++) {
        s->comparator[i].hpet = s;
        s->comparator[i].route_held = -1;
        timer_init(&s->comparator[i].timer, device->machine->clock, due, &s->comparator[i]);
    }
    region_init_io(&s->region, "hpet", &ops, s, 0x400);
    address_space_map(device->machine->memory, &s->region, HPET_BASE, 0);
    return true;
}

static void unrealize(struct device *device)
{
    struct hpet *s = (struct hpet *)device;
    for (unsigned i = 0; i < TIMERS; i++)
        timer_destroy(&s->comparator[i].timer);
}

static void reset(struct device *device)
{
    struct hpet *s = (struct hpet *)device;
    s->config = s->status = s->counter = 0;
    for (unsigned i = 0; i < TIMERS; i++) {
        struct comparator *c = &s->comparator[i];
        timer_cancel(&c->timer);
        release(c);
        c->config = T_PERIODIC_CAPABLE | T_64BIT | ROUTES << 32;
        c->compare = UINT64_MAX;
        c->period = 0;
    }
}

static const struct field comparator_fields[] = {
    FIELD_U64(struct comparator, config),  FIELD_U64(struct comparator, compare),
    FIELD_U64(struct comparator, period),  FIELD_S32(struct comparator, route_held),
    FIELD_TIMER(struct comparator, timer), FIELD_END,
};

static const struct field fields[] = {
    FIELD_U64(struct hpet, config),
    FIELD_U64(struct hpet, status),
    FIELD_U64(struct hpet, counter),
    FIELD_STRUCT_ARRAY(struct hpet, comparator, comparator_fields),
    FIELD_END,
};

static bool loaded(struct device *device, GError **error)
{
    struct hpet *s = (struct hpet *)device;
    for (unsigned i = 0; i < TIMERS; i++)
        if (s->comparator[i].route_held >= 24)
            s->comparator[i].route_held = -1;
    return true;
}

static const struct property properties[] = {
    {"pit", PROPERTY_POINTER, offsetof(struct hpet, pit), NULL, 0, 0, NULL},
    {"rtc", PROPERTY_POINTER, offsetof(struct hpet, rtc), NULL, 0, 0, NULL},
    PROPERTY_END,
};

const struct device_class hpet_class = {
    .name = "hpet",
    .help = "the high precision event timers",
    .size = sizeof(struct hpet),
    .properties = properties,
    .realize = realize,
    .unrealize = unrealize,
    .reset = reset,
    .loaded = loaded,
    .fields = fields,
    .internal = true,
};
