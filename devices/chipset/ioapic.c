// SPDX-License-Identifier: GPL-2.0-or-later
// The 82093AA I/O APIC with 24 inputs, version 0x20 with the EOI register (Intel 82093AA data sheet; SDM vol. 3, 11.8).
#include "core/cpu/lapic.h"
#include "devices/chipset/chipset.h"

#define PINS 24

#define REDIR_STATUS     BIT(12)
#define REDIR_ACTIVE_LOW BIT(13)
#define REDIR_REMOTE_IRR BIT(14)
#define REDIR_LEVEL      BIT(15)
#define REDIR_MASKED     BIT(16)
#define REDIR_LOGICAL    BIT(11)
#define REDIR_READ_ONLY  (REDIR_STATUS | REDIR_REMOTE_IRR)

#define DELIVERY_EXTINT 7

struct ioapic {
    struct device device;
    uint8_t select;
    uint8_t id;
    uint64_t redirection[PINS];
    uint32_t lines; // levels of the inputs
    uint32_t irr;   // edges that wait for their mask to go
    struct region region;
};

static void deliver(struct ioapic *s, unsigned pin)
{
    uint64_t entry = s->redirection[pin];
    struct machine *machine = s->device.machine;
    unsigned mode = entry >> 8 & 7;
    uint8_t vector = entry;
    if (mode == DELIVERY_EXTINT) { // the 8259 behind a pin
        struct device *pic = machine_find_device(machine, "i8259");
        int from_pic = pic ? i8259_acknowledge(pic) : -1;
        if (from_pic < 0)
            return;
        vector = from_pic;
        mode = LAPIC_FIXED;
    }
    if (machine->cpus)
        lapic_send(machine->cpus, entry >> 56, entry & REDIR_LOGICAL, mode, vector, entry & REDIR_LEVEL);
}

static void service(struct ioapic *s, unsigned pin)
{
    uint64_t *entry = &s->redirection[pin];
    if (*entry & REDIR_MASKED)
        return;
    if (*entry & REDIR_LEVEL) {
        if (!(s->lines & BIT(pin)) || (*entry & REDIR_REMOTE_IRR))
            return;
        unsigned mode = *entry >> 8 & 7;
        if (mode == LAPIC_FIXED || mode == LAPIC_LOWEST)
            *entry |= REDIR_REMOTE_IRR;
        deliver(s, pin);
    } else if (s->irr & BIT(pin)) {
        s->irr &= ~BIT(pin);
        deliver(s, pin);
    }
}

void ioapic_set_irq(struct device *ioapic, unsigned pin, bool level)
{
    struct ioapic *s = (struct ioapic *)ioapic;
    if (pin >= PINS)
        return;
    bool old = s->lines >> pin & 1;
    s->lines = level ? s->lines | BIT(pin) : s->lines & ~BIT(pin);
    if (level && !old && !(s->redirection[pin] & REDIR_LEVEL))
        s->irr |= BIT(pin);
    if (level)
        service(s, pin);
}

void ioapic_eoi(struct device *ioapic, uint8_t vector)
{
    struct ioapic *s = (struct ioapic *)ioapic;
    for (unsigned pin = 0; pin < PINS; pin++) {
        uint64_t *entry = &s->redirection[pin];
        if ((uint8_t)*entry != vector || !(*entry & REDIR_LEVEL))
            continue;
        *entry &= ~REDIR_REMOTE_IRR;
        service(s, pin);
    }
}

// ---- Registers ----
static uint32_t read_register(struct ioapic *s)
{
    unsigned pin = (s->select - 0x10) / 2;
    switch (s->select) {
    case 0:
    case 2: // arbitration ID
        return (uint32_t)s->id << 24;
    case 1:
        return 0x20 | (PINS - 1) << 16;
    }
    if (s->select < 0x10 || pin >= PINS)
        return 0;
    return s->redirection[pin] >> (s->select & 1 ? 32 : 0);
}

static void write_redirection(struct ioapic *s, unsigned pin, bool high, uint32_t value)
{
    uint64_t *entry = &s->redirection[pin], old = *entry;
    if (high) {
        *entry = (old & 0xffffffff) | (uint64_t)(value & 0xff000000) << 32;
    } else {
        uint64_t low = (value & 0x1ffff & ~REDIR_READ_ONLY) | (old & REDIR_READ_ONLY);
        if (!(low & REDIR_LEVEL))
            low &= ~REDIR_REMOTE_IRR; // software clears a stuck one by switching to edge
        *entry = (old & ~0xffffffffull) | low;
    }
    service(s, pin);
}

static void write_register(struct ioapic *s, uint32_t value)
{
    unsigned pin = (s->select - 0x10) / 2;
    if (s->select == 0)
        s->id = value >> 24 & 0x0f;
    else if (s->select >= 0x10 && pin < PINS)
        write_redirection(s, pin, s->select & 1, value);
}

static uint64_t ioapic_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ioapic *s = opaque;
    switch (offset & 0xff) {
    case 0x00:
        return s->select;
    case 0x10:
        return read_register(s);
    }
    return 0;
}

static void ioapic_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct ioapic *s = opaque;
    switch (offset & 0xff) {
    case 0x00:
        s->select = value;
        break;
    case 0x10:
        write_register(s, value);
        break;
    case 0x40:
        ioapic_eoi(&s->device, value);
        break;
    }
}

static const struct io_ops ops = {ioapic_read, ioapic_write, 4, 4};

static bool realize(struct device *device, GError **error)
{
    struct ioapic *s = (struct ioapic *)device;
    region_init_io(&s->region, "ioapic", &ops, s, 0x1000);
    address_space_map(device->machine->memory, &s->region, IOAPIC_BASE, 0);
    return true;
}

static void reset(struct device *device)
{
    struct ioapic *s = (struct ioapic *)device;
    s->select = s->id = 0;
    s->irr = 0;
    for (unsigned pin = 0; pin < PINS; pin++)
        s->redirection[pin] = REDIR_MASKED;
}

static const struct field fields[] = {
    FIELD_U8(struct ioapic, select), FIELD_U8(struct ioapic, id),   FIELD_ARRAY(U64, struct ioapic, redirection),
    FIELD_U32(struct ioapic, lines), FIELD_U32(struct ioapic, irr), FIELD_END,
};

const struct device_class ioapic_class = {
    .name = "ioapic",
    .help = "the 82093AA I/O APIC",
    .size = sizeof(struct ioapic),
    .realize = realize,
    .reset = reset,
    .fields = fields,
    .internal = true,
};
