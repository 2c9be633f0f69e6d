// SPDX-License-Identifier: GPL-2.0-or-later
// The MC146818 real-time clock with 256 bytes of CMOS memory (Motorola data sheet; upper bank as in the PIIX3).
// Guest-visible time is the host's wall clock plus an offset that the guest's writes change.
#include "devices/chipset/chipset.h"

#include <string.h>
#include <time.h>

enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    CENTURY = 0x32,
};

#define A_UIP  0x80
#define B_SET  0x80
#define B_PIE  0x40
#define B_AIE  0x20
#define B_UIE  0x10
#define B_DM   0x04 // binary
#define B_24   0x02
#define C_IRQF 0x80
#define C_PF   0x40
#define C_AF   0x20
#define C_UF   0x10

#define SECOND    1000000000ll
#define UPDATE_NS 244141ll // UIP rises this long before the update

struct rtc {
    struct device device;
    bool local_time;
    uint8_t cmos[256];
    uint8_t index[2];
    int64_t offset;      // RTC minus wall clock, ns
    int64_t last_update; // RTC second that was last announced
    bool irq8_enabled;
    struct timer periodic, update;
    struct region ports;
};

static int64_t rtc_now(const struct rtc *s) // ns since 1970 in the RTC's own zone
{
    return clock_wall(s->device.machine->clock) + s->offset;
}

// ---- Registers and time ----
static uint8_t encode(const struct rtc *s, unsigned value)
{
    return s->cmos[REG_B] & B_DM ? value : value / 10 << 4 | value % 10;
}

static unsigned decode(const struct rtc *s, uint8_t value)
{
    return s->cmos[REG_B] & B_DM ? value : (value >> 4) * 10 + (value & 15);
}

static uint8_t encode_hour(const struct rtc *s, unsigned hour)
{
    if (s->cmos[REG_B] & B_24)
        return encode(s, hour);
    return encode(s, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static unsigned decode_hour(const struct rtc *s, uint8_t value)
{
    if (s->cmos[REG_B] & B_24)
        return decode(s, value);
    return decode(s, value & 0x7f) % 12 + (value & 0x80 ? 12 : 0);
}

static void registers_from_time(struct rtc *s)
{
    if (s->cmos[REG_B] & B_SET)
        return; // the guest is setting the time
    time_t t = rtc_now(s) / SECOND;
    struct tm tm;
    gmtime_r(&t, &tm);
    s->cmos[SECONDS] = encode(s, tm.tm_sec);
    s->cmos[MINUTES] = encode(s, tm.tm_min);
    s->cmos[HOURS] = encode_hour(s, tm.tm_hour);
    s->cmos[WEEKDAY] = encode(s, tm.tm_wday + 1);
    s->cmos[DAY] = encode(s, tm.tm_mday);
    s->cmos[MONTH] = encode(s, tm.tm_mon + 1);
    s->cmos[YEAR] = encode(s, tm.tm_year % 100);
    s->cmos[CENTURY] = encode(s, (tm.tm_year + 1900) / 100);
}

static void time_from_registers(struct rtc *s)
{
    struct tm tm = {
        .tm_sec = decode(s, s->cmos[SECONDS]),
        .tm_min = decode(s, s->cmos[MINUTES]),
        .tm_hour = decode_hour(s, s->cmos[HOURS]),
        .tm_mday = decode(s, s->cmos[DAY]),
        .tm_mon = (int)decode(s, s->cmos[MONTH]) - 1,
        .tm_year = (int)(decode(s, s->cmos[CENTURY]) * 100 + decode(s, s->cmos[YEAR])) - 1900,
    };
    time_t t = CLAMP(timegm(&tm), 0, 9000000000); // nonsense in the registers must not overflow nanoseconds
    s->offset += (int64_t)t * SECOND - rtc_now(s) / SECOND * SECOND;
    machine_notify(s->device.machine, MACHINE_EVENT_RTC_CHANGE, NULL);
}

// ---- Interrupts ----
static void raise_flags(struct rtc *s, uint8_t flags)
{
    s->cmos[REG_C] |= flags;
    if (s->cmos[REG_C] & s->cmos[REG_B] & (C_PF | C_AF | C_UF)) {
        s->cmos[REG_C] |= C_IRQF;
        if (s->irq8_enabled)
            irq_set(&s->device.machine->isa_irq[ISA_IRQ_RTC], true);
    }
}

static int64_t period_ns(const struct rtc *s)
{
    unsigned rate = s->cmos[REG_A] & 15;
    if (!rate || (s->cmos[REG_A] & 0x60) == 0x60) // no rate, or the divider held in reset
        return 0;
    if (rate < 3)
        rate += 7;
    return SECOND / (32768 >> (rate - 1));
}

static void arm_periodic(struct rtc *s)
{
    int64_t period = period_ns(s), now = clock_now(s->device.machine->clock);
    if (!period || !(s->cmos[REG_B] & B_PIE))
        timer_cancel(&s->periodic);
    else
        timer_arm(&s->periodic, (now / period + 1) * period);
}

static void periodic_due(void *opaque)
{
    struct rtc *s = opaque;
    raise_flags(s, C_PF);
    arm_periodic(s);
}

static bool alarm_field(const struct rtc *s, unsigned alarm, uint8_t now)
{
    return s->cmos[alarm] >= 0xc0 || s->cmos[alarm] == now;
}

static bool alarm_matches(struct rtc *s)
{
    registers_from_time(s);
    return alarm_field(s, SECONDS_ALARM, s->cmos[SECONDS]) && alarm_field(s, MINUTES_ALARM, s->cmos[MINUTES]) &&
           alarm_field(s, HOURS_ALARM, s->cmos[HOURS]);
}

// The timer for updates and alarms runs only while somebody waits for them.
static void arm_update(struct rtc *s)
{
    if (!(s->cmos[REG_B] & (B_UIE | B_AIE)) || (s->cmos[REG_B] & B_SET))
        timer_cancel(&s->update);
    else
        timer_arm(&s->update, clock_now(s->device.machine->clock) + SECOND - rtc_now(s) % SECOND);
}

static void note_update(struct rtc *s)
{
    int64_t second = rtc_now(s) / SECOND;
    if (second == s->last_update || (s->cmos[REG_B] & B_SET))
        return;
    s->last_update = second;
    raise_flags(s, C_UF | (alarm_matches(s) ? C_AF : 0));
}

static void update_due(void *opaque)
{
    struct rtc *s = opaque;
    note_update(s);
    arm_update(s);
}

// ---- Ports 0x70 to 0x73: index and data of the lower and upper bank ----
static uint8_t read_register(struct rtc *s, uint8_t index)
{
    if (index <= YEAR || index == CENTURY)
        registers_from_time(s);
    switch (index) {
    case REG_A: {
        int64_t left = SECOND - rtc_now(s) % SECOND;
        bool updating = left <= UPDATE_NS && !(s->cmos[REG_B] & B_SET);
        return (s->cmos[REG_A] & ~A_UIP) | (updating ? A_UIP : 0);
    }
    case REG_C: {
        note_update(s);
        uint8_t value = s->cmos[REG_C];
        s->cmos[REG_C] = 0;
        irq_set(&s->device.machine->isa_irq[ISA_IRQ_RTC], false);
        return value;
    }
    case REG_D:
        return 0x80; // the battery is good
    }
    return s->cmos[index];
}

static void write_register_b(struct rtc *s, uint8_t value)
{
    uint8_t old = s->cmos[REG_B];
    registers_from_time(s);
    if (value & B_SET)
        value &= ~B_UIE;
    s->cmos[REG_B] = value;
    if ((old & B_SET) && !(value & B_SET))
        time_from_registers(s);
    raise_flags(s, 0);
    arm_periodic(s);
    arm_update(s);
}

static void write_register(struct rtc *s, uint8_t index, uint8_t value)
{
    switch (index) {
    case REG_A:
        s->cmos[REG_A] = value & ~A_UIP;
        arm_periodic(s);
        return;
    case REG_B:
        write_register_b(s, value);
        return;
    case REG_C:
    case REG_D:
        return;
    }
    bool is_time =
        (index <= YEAR && index != SECONDS_ALARM && index != MINUTES_ALARM && index != HOURS_ALARM) || index == CENTURY;
    if (is_time)
        registers_from_time(s);
    s->cmos[index] = value;
    if (is_time && !(s->cmos[REG_B] & B_SET))
        time_from_registers(s);
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned size)
{
    struct rtc *s = opaque;
    if (!(offset & 1))
        return 0xff;
    return read_register(s, s->index[offset >> 1] | (offset >> 1) << 7);
}

static void rtc_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct rtc *s = opaque;
    if (offset & 1)
        write_register(s, s->index[offset >> 1] | (offset >> 1) << 7, value);
    else
        s->index[offset >> 1] = value & 0x7f;
}

void rtc_set_cmos(struct device *rtc, unsigned index, uint8_t value)
{
    ((struct rtc *)rtc)->cmos[index & 0xff] = value;
}

void rtc_set_irq8_enabled(struct device *rtc, bool enabled)
{
    ((struct rtc *)rtc)->irq8_enabled = enabled;
}

static const struct io_ops rtc_ops = {rtc_read, rtc_write, 1, 1};

static bool realize(struct device *device, GError **error)
{
    struct rtc *s = (struct rtc *)device;
    timer_init(&s->periodic, device->machine->clock, periodic_due, s);
    timer_init(&s->update, device->machine->clock, update_due, s);
    region_init_io(&s->ports, "rtc", &rtc_ops, s, 4);
    address_space_map(device->machine->ports, &s->ports, 0x70, 0);
    s->cmos[REG_A] = 0x26;
    s->cmos[REG_B] = B_24;
    if (s->local_time) {
        g_autoptr(GDateTime) local = g_date_time_new_now_local();
        s->offset = g_date_time_get_utc_offset(local) * 1000;
    }
    return true;
}

static void unrealize(struct device *device)
{
    struct rtc *s = (struct rtc *)device;
    timer_destroy(&s->periodic);
    timer_destroy(&s->update);
}

// CMOS memory and time are battery-backed: a reset clears the interrupt enables only.
static void reset(struct device *device)
{
    struct rtc *s = (struct rtc *)device;
    s->cmos[REG_B] &= ~(B_PIE | B_AIE | B_UIE | 0x08);
    s->cmos[REG_C] = 0;
    s->irq8_enabled = true;
    irq_set(&device->machine->isa_irq[ISA_IRQ_RTC], false);
    timer_cancel(&s->periodic);
    timer_cancel(&s->update);
}

static const struct field fields[] = {
    FIELD_BYTES(struct rtc, cmos),
    FIELD_BYTES(struct rtc, index),
    FIELD_S64(struct rtc, offset),
    FIELD_S64(struct rtc, last_update),
    FIELD_BOOL(struct rtc, irq8_enabled),
    FIELD_TIMER(struct rtc, periodic),
    FIELD_END,
};

static bool loaded(struct device *device, GError **error)
{
    struct rtc *s = (struct rtc *)device;
    s->index[0] &= 0x7f;
    s->index[1] &= 0x7f;
    arm_update(s); // wall-clock time went on while the machine was saved
    return true;
}

static const struct property properties[] = {
    {"local-time", PROPERTY_BOOL, offsetof(struct rtc, local_time), "off", 0, 0, "keep local time in place of UTC"},
    PROPERTY_END,
};

const struct device_class rtc_class = {
    .name = "rtc",
    .help = "the MC146818 real-time clock and CMOS memory",
    .size = sizeof(struct rtc),
    .properties = properties,
    .realize = realize,
    .unrealize = unrealize,
    .reset = reset,
    .loaded = loaded,
    .fields = fields,
    .internal = true,
};
