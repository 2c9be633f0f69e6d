// SPDX-License-Identifier: GPL-2.0-or-later
// The two 8259A interrupt controllers (Intel 8259A data sheet) with the edge/level registers of the PIIX3 at 0x4D0.
#include "devices/chipset/chipset.h"

struct chip {
    uint8_t irr, imr, isr;
    uint8_t lines;    // levels of the inputs
    uint8_t rotation; // the input with the highest priority
    uint8_t base;     // ICW2
    uint8_t elcr;     // 1: level triggered
    uint8_t icw_next; // 0: ready, else the ICW expected next
    bool icw4_expected, single, read_isr, poll, special_mask, auto_eoi, rotate_on_auto_eoi, special_nested;
};

struct i8259 {
    struct device device;
    struct chip chip[2]; // master, slave
    bool intr;
    struct irq output;
    struct region ports[2], elcr;
};

static const uint8_t elcr_mask[2] = {0xf8, 0xde}; // 0, 1, 2, 8 and 13 are always edges

// Distance from the highest priority, 8 if no bit is set.
static unsigned priority(const struct chip *c, uint8_t bits)
{
    unsigned p = 0;
    while (p < 8 && !(bits & BIT((p + c->rotation) & 7)))
        p++;
    return p;
}

// The input to serve now, or -1.
static int pending(const struct chip *c, bool master)
{
    unsigned wanted = priority(c, c->irr & ~c->imr);
    if (wanted == 8)
        return -1;
    uint8_t serving = c->isr;
    if (c->special_mask)
        serving &= ~c->imr;
    if (master && c->special_nested)
        serving &= ~BIT(2);
    return wanted < priority(c, serving) ? (int)((wanted + c->rotation) & 7) : -1;
}

static void set_line(struct chip *c, unsigned n, bool level)
{
    uint8_t bit = BIT(n);
    if (c->elcr & bit)
        c->irr = level ? c->irr | bit : c->irr & ~bit;
    else if (level && !(c->lines & bit))
        c->irr |= bit;
    c->lines = level ? c->lines | bit : c->lines & ~bit;
}

static void update(struct i8259 *s)
{
    set_line(&s->chip[0], 2, pending(&s->chip[1], false) >= 0);
    if (pending(&s->chip[1], false) < 0)
        s->chip[0].irr &= ~BIT(2); // the slave's request is a level
    bool intr = pending(&s->chip[0], true) >= 0;
    // Each new request is announced again: LINT0 may be looked at as an edge.
    if (intr != s->intr || intr) {
        s->intr = intr;
        irq_set(&s->output, intr);
    }
}

void i8259_set_irq(struct device *pic, unsigned irq, bool level)
{
    struct i8259 *s = (struct i8259 *)pic;
    set_line(&s->chip[irq >> 3], irq & 7, level);
    update(s);
}

void i8259_set_output(struct device *pic, struct irq output)
{
    ((struct i8259 *)pic)->output = output;
}

static void acknowledge_chip(struct chip *c, unsigned n)
{
    if (!c->auto_eoi)
        c->isr |= BIT(n);
    else if (c->rotate_on_auto_eoi)
        c->rotation = (n + 1) & 7;
    if (!(c->elcr & BIT(n)))
        c->irr &= ~BIT(n);
}

int i8259_acknowledge(struct device *pic)
{
    struct i8259 *s = (struct i8259 *)pic;
    int n = pending(&s->chip[0], true);
    if (n < 0)
        return -1;
    int vector = s->chip[0].base + n;
    if (n == 2) {
        int slave = pending(&s->chip[1], false);
        if (slave >= 0)
            acknowledge_chip(&s->chip[1], slave);
        vector = s->chip[1].base + (slave < 0 ? 7 : slave);
    }
    acknowledge_chip(&s->chip[0], n);
    update(s);
    return vector;
}

// ---- Registers ----
static void init_chip(struct chip *c, uint8_t icw1)
{
    uint8_t elcr = c->elcr, lines = c->lines;
    *c = (struct chip){.elcr = elcr, .lines = lines, .irr = lines & elcr, .icw_next = 2};
    c->icw4_expected = icw1 & 1;
    c->single = icw1 & 2;
}

static void end_of_interrupt(struct chip *c, uint8_t value)
{
    unsigned level = value & 7, top = priority(c, c->special_mask ? c->isr & ~c->imr : c->isr);
    unsigned highest = (top + c->rotation) & 7;
    switch (value >> 5) {
    case 0: // rotate on automatic EOI: off, on
    case 4:
        c->rotate_on_auto_eoi = value >> 7;
        break;
    case 1: // non-specific EOI, without and with rotation
    case 5:
        if (top == 8)
            break;
        c->isr &= ~BIT(highest);
        if (value & 0x80)
            c->rotation = (highest + 1) & 7;
        break;
    case 3: // specific EOI, without and with rotation
    case 7:
        c->isr &= ~BIT(level);
        if (value & 0x80)
            c->rotation = (level + 1) & 7;
        break;
    case 6: // set priority
        c->rotation = (level + 1) & 7;
        break;
    }
}

static void write_command(struct chip *c, uint8_t value)
{
    if (value & 0x10) {
        init_chip(c, value);
    } else if (value & 0x08) { // OCW3
        if (value & 2)
            c->read_isr = value & 1;
        if (value & 0x40)
            c->special_mask = value & 0x20;
        c->poll = value & 4;
    } else {
        end_of_interrupt(c, value);
    }
}

static void write_data(struct chip *c, uint8_t value)
{
    switch (c->icw_next) {
    case 0:
        c->imr = value;
        break;
    case 2:
        c->base = value & 0xf8;
        c->icw_next = c->single ? (c->icw4_expected ? 4 : 0) : 3;
        break;
    case 3:
        c->icw_next = c->icw4_expected ? 4 : 0;
        break;
    case 4:
        c->special_nested = value & 0x10;
        c->auto_eoi = value & 2;
        c->icw_next = 0;
        break;
    }
}

static void chip_write(struct i8259 *s, unsigned n, uint64_t offset, uint8_t value)
{
    if (offset & 1)
        write_data(&s->chip[n], value);
    else
        write_command(&s->chip[n], value);
    update(s);
}

static uint8_t chip_read(struct i8259 *s, unsigned n, uint64_t offset)
{
    struct chip *c = &s->chip[n];
    if (c->poll) {
        c->poll = false;
        int irq = pending(c, n == 0);
        if (irq < 0)
            return 0;
        acknowledge_chip(c, irq);
        update(s);
        return 0x80 | irq;
    }
    if (offset & 1)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static uint64_t master_read(void *opaque, uint64_t offset, unsigned size)
{
    return chip_read(opaque, 0, offset);
}

static void master_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    chip_write(opaque, 0, offset, value);
}

static uint64_t slave_read(void *opaque, uint64_t offset, unsigned size)
{
    return chip_read(opaque, 1, offset);
}

static void slave_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    chip_write(opaque, 1, offset, value);
}

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
    struct i8259 *s = opaque;
    return s->chip[offset].elcr;
}

static void elcr_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct i8259 *s = opaque;
    s->chip[offset].elcr = value & elcr_mask[offset];
    update(s);
}

static const struct io_ops master_ops = {master_read, master_write, 1, 1};
static const struct io_ops slave_ops = {slave_read, slave_write, 1, 1};
static const struct io_ops elcr_ops = {elcr_read, elcr_write, 1, 1};

static bool realize(struct device *device, GError **error)
{
    struct i8259 *s = (struct i8259 *)device;
    region_init_io(&s->ports[0], "pic master", &master_ops, s, 2);
    region_init_io(&s->ports[1], "pic slave", &slave_ops, s, 2);
    region_init_io(&s->elcr, "elcr", &elcr_ops, s, 2);
    address_space_map(device->machine->ports, &s->ports[0], 0x20, 0);
    address_space_map(device->machine->ports, &s->ports[1], 0xa0, 0);
    address_space_map(device->machine->ports, &s->elcr, 0x4d0, 0);
    return true;
}

static void reset(struct device *device)
{
    struct i8259 *s = (struct i8259 *)device;
    for (unsigned i = 0; i < 2; i++)
        s->chip[i] = (struct chip){.lines = s->chip[i].lines & ~(i ? 0 : BIT(2))};
    s->intr = true;
    update(s);
}

static bool loaded(struct device *device, GError **error)
{
    struct i8259 *s = (struct i8259 *)device;
    irq_set(&s->output, s->intr);
    return true;
}

static const struct field chip_fields[] = {
    FIELD_U8(struct chip, irr),
    FIELD_U8(struct chip, imr),
    FIELD_U8(struct chip, isr),
    FIELD_U8(struct chip, lines),
    FIELD_U8(struct chip, rotation),
    FIELD_U8(struct chip, base),
    FIELD_U8(struct chip, elcr),
    FIELD_U8(struct chip, icw_next),
    FIELD_BOOL(struct chip, icw4_expected),
    FIELD_BOOL(struct chip, single),
    FIELD_BOOL(struct chip, read_isr),
    FIELD_BOOL(struct chip, poll),
    FIELD_BOOL(struct chip, special_mask),
    FIELD_BOOL(struct chip, auto_eoi),
    FIELD_BOOL(struct chip, rotate_on_auto_eoi),
    FIELD_BOOL(struct chip, special_nested),
    FIELD_END,
};

static const struct field fields[] = {
    FIELD_STRUCT_ARRAY(struct i8259, chip, chip_fields),
    FIELD_BOOL(struct i8259, intr),
    FIELD_END,
};

const struct device_class i8259_class = {
    .name = "i8259",
    .help = "the two 8259A interrupt controllers",
    .size = sizeof(struct i8259),
    .realize = realize,
    .reset = reset,
    .loaded = loaded,
    .fields = fields,
    .internal = true,
};
