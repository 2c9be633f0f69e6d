// SPDX-License-Identifier: GPL-2.0-or-later
// The two 8237A DMA controllers with page registers (Intel 8237A data sheet). Channels 0-3 move bytes, 5-7 words;
// channel 4 is the cascade.
#include "devices/chipset/chipset.h"

#include <string.h>

struct channel {
    uint16_t base_address, base_count, address, count; // count: transfers minus one
    uint8_t mode, page;
};

struct controller {
    struct channel channel[4];
    uint8_t command, mask, status; // status: terminal counts 0-3, requests 4-7
    bool high;                     // byte pointer flip-flop
};

struct i8237 {
    struct device device;
    struct controller controller[2];
    uint8_t spare_pages[16];
    struct region low, high, pages;
};

#define MODE_AUTO        0x10
#define MODE_DOWN        0x20
#define MODE_TRANSFER(m) ((m) >> 2 & 3) // 1 to memory, 2 from memory
#define COMMAND_DISABLE  0x04

static void master_clear(struct controller *c)
{
    c->command = c->status = 0;
    c->mask = 0x0f;
    c->high = false;
}

// ---- Registers: N is 0 to 15 ----
static uint8_t read_half(struct controller *c, uint16_t value)
{
    c->high = !c->high;
    return c->high ? value & 0xff : value >> 8;
}

static void write_half(bool high, uint16_t *base, uint16_t *current, uint8_t value)
{
    *base = high ? (*base & 0x00ff) | value << 8 : (*base & 0xff00) | value;
    *current = *base;
}

static uint8_t controller_read(struct controller *c, unsigned n)
{
    if (n < 8) {
        const struct channel *channel = &c->channel[n / 2];
        return read_half(c, n & 1 ? channel->count : channel->address);
    }
    uint8_t status = c->status;
    switch (n) {
    case 8:
        c->status &= 0xf0;
        return status;
    case 15:
        return c->mask | 0xf0;
    }
    return 0;
}

static void controller_write(struct controller *c, unsigned n, uint8_t value)
{
    struct channel *channel = &c->channel[n < 8 ? n / 2 : value & 3];
    switch (n) {
    case 8:
        c->command = value;
        break;
    case 9: // software request
        c->status = value & 4 ? c->status | BIT(4 + (value & 3)) : c->status & ~BIT(4 + (value & 3));
        break;
    case 10:
        c->mask = value & 4 ? c->mask | BIT(value & 3) : c->mask & ~BIT(value & 3);
        break;
    case 11:
        channel->mode = value;
        break;
    case 12:
        c->high = false;
        break;
    case 13:
        master_clear(c);
        break;
    case 14:
        c->mask = 0;
        break;
    case 15:
        c->mask = value & 15;
        break;
    default:
        if (n & 1)
            write_half(c->high, &channel->base_count, &channel->count, value);
        else
            write_half(c->high, &channel->base_address, &channel->address, value);
        c->high = !c->high;
    }
}

static uint64_t low_read(void *opaque, uint64_t offset, unsigned size)
{
    return controller_read(&((struct i8237 *)opaque)->controller[0], offset);
}

static void low_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    controller_write(&((struct i8237 *)opaque)->controller[0], offset, value);
}

static uint64_t high_read(void *opaque, uint64_t offset, unsigned size)
{
    return controller_read(&((struct i8237 *)opaque)->controller[1], offset / 2);
}

static void high_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    controller_write(&((struct i8237 *)opaque)->controller[1], offset / 2, value);
}

// Which channel each of the ports 0x80 to 0x8f holds the page of; -1: a plain byte (0x80 shows POST codes).
static const int8_t page_channel[16] = {-1, 2, 3, 1, -1, -1, -1, 0, -1, 6, 7, 5, -1, -1, -1, 4};

static uint8_t *page_register(struct i8237 *s, unsigned offset)
{
    int n = page_channel[offset];
    return n < 0 ? &s->spare_pages[offset] : &s->controller[n >> 2].channel[n & 3].page;
}

static uint64_t page_read(void *opaque, uint64_t offset, unsigned size)
{
    return *page_register(opaque, offset);
}

static void page_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    *page_register(opaque, offset) = value;
}

static const struct io_ops low_ops = {low_read, low_write, 1, 1};
static const struct io_ops high_ops = {high_read, high_write, 1, 1};
static const struct io_ops page_ops = {page_read, page_write, 1, 1};

// ---- Transfers ----
// DIRECTION as in MODE_TRANSFER. The address register wraps inside its page, as the chip's does.
static unsigned transfer(struct i8237 *s, unsigned n, uint8_t *data, unsigned length, unsigned direction)
{
    struct controller *controller = &s->controller[n >> 2 & 1];
    struct channel *c = &controller->channel[n & 3];
    unsigned shift = n >= 4, width = 1u << shift, done = 0;
    struct address_space *memory = s->device.machine->memory;
    if ((controller->mask >> (n & 3) & 1) || (controller->command & COMMAND_DISABLE))
        return 0;
    if (MODE_TRANSFER(c->mode) != direction && MODE_TRANSFER(c->mode) != 0)
        return 0;
    controller->status &= ~BIT(n & 3);
    while (done + width <= length && !(controller->status & BIT(n & 3))) {
        uint32_t address =
            shift ? (uint32_t)(c->page & 0xfe) << 16 | c->address << 1 : (uint32_t)c->page << 16 | c->address;
        if (MODE_TRANSFER(c->mode) == 1)
            address_space_write(memory, address, data + done, width);
        else if (MODE_TRANSFER(c->mode) == 2)
            address_space_read(memory, address, data + done, width);
        done += width;
        c->address += c->mode & MODE_DOWN ? -1 : 1;
        if (c->count-- == 0)
            controller->status |= BIT(n & 3);
    }
    if (controller->status & BIT(n & 3)) {
        if (c->mode & MODE_AUTO) {
            c->address = c->base_address;
            c->count = c->base_count;
        } else {
            controller->mask |= BIT(n & 3);
        }
    }
    return done;
}

unsigned i8237_to_device(struct device *dma, unsigned channel, void *data, unsigned length)
{
    return transfer((struct i8237 *)dma, channel, data, length, 2);
}

unsigned i8237_from_device(struct device *dma, unsigned channel, const void *data, unsigned length)
{
    return transfer((struct i8237 *)dma, channel, (uint8_t *)data, length, 1);
}

bool i8237_terminal_count(struct device *dma, unsigned channel)
{
    return ((struct i8237 *)dma)->controller[channel >> 2 & 1].status >> (channel & 3) & 1;
}

static bool realize(struct device *device, GError **error)
{
    struct i8237 *s = (struct i8237 *)device;
    region_init_io(&s->low, "dma 0-3", &low_ops, s, 16);
    region_init_io(&s->high, "dma 4-7", &high_ops, s, 32);
    region_init_io(&s->pages, "dma pages", &page_ops, s, 16);
    address_space_map(device->machine->ports, &s->low, 0x00, 0);
    address_space_map(device->machine->ports, &s->high, 0xc0, 0);
    address_space_map(device->machine->ports, &s->pages, 0x80, 0);
    return true;
}

static void reset(struct device *device)
{
    struct i8237 *s = (struct i8237 *)device;
    memset(s->controller, 0, sizeof(s->controller));
    memset(s->spare_pages, 0, sizeof(s->spare_pages));
    master_clear(&s->controller[0]);
    master_clear(&s->controller[1]);
}

static const struct field channel_fields[] = {
    FIELD_U16(struct channel, base_address),
    FIELD_U16(struct channel, base_count),
    FIELD_U16(struct channel, address),
    FIELD_U16(struct channel, count),
    FIELD_U8(struct channel, mode),
    FIELD_U8(struct channel, page),
    FIELD_END,
};

static const struct field controller_fields[] = {
    FIELD_STRUCT_ARRAY(struct controller, channel, channel_fields),
    FIELD_U8(struct controller, command),
    FIELD_U8(struct controller, mask),
    FIELD_U8(struct controller, status),
    FIELD_BOOL(struct controller, high),
    FIELD_END,
};

static const struct field fields[] = {
    FIELD_STRUCT_ARRAY(struct i8237, controller, controller_fields),
    FIELD_BYTES(struct i8237, spare_pages),
    FIELD_END,
};

const struct device_class i8237_class = {
    .name = "i8237",
    .help = "the two 8237A DMA controllers",
    .size = sizeof(struct i8237),
    .realize = realize,
    .reset = reset,
    .fields = fields,
    .internal = true,
};
