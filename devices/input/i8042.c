// SPDX-License-Identifier: GPL-2.0-or-later
// The keyboard controller with its PS/2 keyboard and mouse: ports 0x60 and 0x64, scan code translation, A20, processor
// reset. (IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller"; Intel 8042)
#include "devices/input/ps2.h"

#include <string.h>

enum { STATUS_FULL = 0x01, STATUS_SYSTEM = 0x04, STATUS_COMMAND = 0x08, STATUS_UNLOCKED = 0x10, STATUS_AUX = 0x20 };
enum {
    MODE_KEYBOARD_IRQ = 0x01,
    MODE_AUX_IRQ = 0x02,
    MODE_SYSTEM = 0x04,
    MODE_KEYBOARD_OFF = 0x10,
    MODE_AUX_OFF = 0x20,
    MODE_TRANSLATE = 0x40
};
enum { OUTPUT_NO_RESET = 0x01, OUTPUT_A20 = 0x02, OUTPUT_KEYBOARD_IRQ = 0x10, OUTPUT_AUX_IRQ = 0x20 };

// A byte takes about this long over the wire, so that software may read port 0x60 twice and get the same byte.
#define WIRE_NS 400000

struct i8042 {
    struct device device;
    struct region data_region, command_region;
    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;
    struct timer wire;
    uint8_t mode; // the command byte
    uint8_t memory[32];
    uint8_t output;  // what port 0x60 reads
    uint8_t command; // that waits for its parameter at port 0x60, 0 none
    bool full, from_aux, command_last, system, breaking;
    uint8_t replies[4];   // of the controller itself, before any device's bytes
    uint8_t reply_aux[4]; // that they shall look as if from the mouse
    uint8_t reply_count;
};

// What the controller makes of set 2 codes: set 1 codes.
static const uint8_t translation[128] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, 0x65, 0x38, 0x2a,
    0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05,
    0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a,
    0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26,
    0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63,
    0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53,
    0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};

static bool keyboard_line(const struct i8042 *i8042)
{
    return i8042->full && !i8042->from_aux && i8042->mode & MODE_KEYBOARD_IRQ;
}

static bool aux_line(const struct i8042 *i8042)
{
    return i8042->full && i8042->from_aux && i8042->mode & MODE_AUX_IRQ;
}

static void update_lines(struct i8042 *i8042)
{
    struct machine *machine = i8042->device.machine;
    irq_set(&machine->isa_irq[1], keyboard_line(i8042));
    irq_set(&machine->isa_irq[12], aux_line(i8042));
}

static void fill(struct i8042 *i8042, uint8_t byte, bool from_aux)
{
    i8042->output = byte;
    i8042->from_aux = from_aux;
    i8042->full = true;
    update_lines(i8042);
}

// A keyboard byte through translation. False: it was a prefix that set 1 does not have.
static bool translate(struct i8042 *i8042, uint8_t *byte)
{
    if (!(i8042->mode & MODE_TRANSLATE))
        return true;
    if (*byte == 0xf0) {
        i8042->breaking = true;
        return false;
    }
    uint8_t set1 = *byte < 0x80 ? translation[*byte] : *byte == 0x83 ? 0x41 : *byte == 0x84 ? 0x54 : *byte;
    *byte = i8042->breaking ? set1 | 0x80 : set1;
    i8042->breaking = false;
    return true;
}

static bool fill_from_keyboard(struct i8042 *i8042)
{
    while (!(i8042->mode & MODE_KEYBOARD_OFF) && !ps2_queue_empty(&i8042->keyboard.queue)) {
        uint8_t byte = ps2_keyboard_take(&i8042->keyboard);
        if (translate(i8042, &byte)) {
            fill(i8042, byte, false);
            return true;
        }
    }
    return false;
}

// Loads the next byte, if there is one and the last one was read and the wire is free.
static void next_byte(struct i8042 *i8042)
{
    if (i8042->full)
        return;
    if (i8042->reply_count) {
        uint8_t byte = i8042->replies[0], aux = i8042->reply_aux[0];
        i8042->reply_count--;
        memmove(i8042->replies, i8042->replies + 1, sizeof(i8042->replies) - 1);
        memmove(i8042->reply_aux, i8042->reply_aux + 1, sizeof(i8042->reply_aux) - 1);
        fill(i8042, byte, aux);
        return;
    }
    if (timer_armed(&i8042->wire) || fill_from_keyboard(i8042))
        return;
    if (!(i8042->mode & MODE_AUX_OFF) && !ps2_queue_empty(&i8042->mouse.queue))
        fill(i8042, ps2_mouse_take(&i8042->mouse), true);
}

static void wire_free(void *opaque)
{
    next_byte(opaque);
}

static void device_changed(void *opaque)
{
    next_byte(opaque);
}

static void put_reply(struct i8042 *i8042, uint8_t byte, bool aux)
{
    if (i8042->reply_count == sizeof(i8042->replies))
        return; // the guest reads none of them
    i8042->replies[i8042->reply_count] = byte;
    i8042->reply_aux[i8042->reply_count++] = aux;
    next_byte(i8042);
}

static uint64_t read_data(void *opaque, uint64_t offset, unsigned size)
{
    struct i8042 *i8042 = opaque;
    uint8_t byte = i8042->output;
    if (i8042->full) {
        i8042->full = false;
        update_lines(i8042);
        timer_arm(&i8042->wire, clock_now(i8042->device.machine->clock) + WIRE_NS);
        next_byte(i8042); // a reply of the controller's own needs no wire
    }
    return byte;
}

static uint64_t read_status(void *opaque, uint64_t offset, unsigned size)
{
    struct i8042 *i8042 = opaque;
    return (i8042->full ? STATUS_FULL : 0) | (i8042->system ? STATUS_SYSTEM : 0) |
           (i8042->command_last ? STATUS_COMMAND : 0) | STATUS_UNLOCKED |
           (i8042->full && i8042->from_aux ? STATUS_AUX : 0);
}

static void set_mode(struct i8042 *i8042, uint8_t mode)
{
    i8042->mode = mode & 0x7f;
    i8042->system = mode & MODE_SYSTEM;
    update_lines(i8042);
    next_byte(i8042);
}

static uint8_t output_port(struct i8042 *i8042)
{
    return 0xc0 | OUTPUT_NO_RESET | (i8042->device.machine->a20 ? OUTPUT_A20 : 0) |
           (keyboard_line(i8042) ? OUTPUT_KEYBOARD_IRQ : 0) | (aux_line(i8042) ? OUTPUT_AUX_IRQ : 0);
}

static void set_output_port(struct i8042 *i8042, uint8_t value)
{
    machine_set_a20(i8042->device.machine, value & OUTPUT_A20);
    if (!(value & OUTPUT_NO_RESET))
        machine_request_reset(i8042->device.machine);
}

static void write_data(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct i8042 *i8042 = opaque;
    uint8_t command = i8042->command;
    i8042->command = 0;
    i8042->command_last = false;
    if (command == 0x60) {
        set_mode(i8042, value);
    } else if (command > 0x60 && command <= 0x7f) {
        i8042->memory[command & 31] = value;
    } else if (command == 0xd1) {
        set_output_port(i8042, value);
    } else if (command == 0xd2 || command == 0xd3) {
        put_reply(i8042, value, command == 0xd3);
    } else if (command == 0xd4) {
        i8042->mode &= ~MODE_AUX_OFF;
        ps2_mouse_write(&i8042->mouse, value);
    } else {
        i8042->mode &= ~MODE_KEYBOARD_OFF;
        ps2_keyboard_write(&i8042->keyboard, value);
    }
}

// Commands without a parameter and without an answer. False: it is none of them.
static bool switch_command(struct i8042 *i8042, uint8_t command)
{
    switch (command) {
    case 0xa7:
        i8042->mode |= MODE_AUX_OFF;
        return true;
    case 0xa8:
        i8042->mode &= ~MODE_AUX_OFF;
        next_byte(i8042);
        return true;
    case 0xad:
        i8042->mode |= MODE_KEYBOARD_OFF;
        return true;
    case 0xae:
        i8042->mode &= ~MODE_KEYBOARD_OFF;
        next_byte(i8042);
        return true;
    case 0xdd:
    case 0xdf:
        machine_set_a20(i8042->device.machine, command == 0xdf);
        return true;
    }
    if (command < 0xf0)
        return false;
    if (!(command & OUTPUT_NO_RESET)) // pulses the output bits that are 0 in the command
        machine_request_reset(i8042->device.machine);
    return true;
}

static void write_command(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct i8042 *i8042 = opaque;
    uint8_t command = value;
    i8042->command = 0;
    i8042->command_last = true;
    if (switch_command(i8042, command))
        return;
    if (command == 0x20) {
        put_reply(i8042, (i8042->mode & ~MODE_SYSTEM) | (i8042->system ? MODE_SYSTEM : 0), false);
    } else if (command > 0x20 && command <= 0x3f) {
        put_reply(i8042, i8042->memory[command & 31], false);
    } else if ((command >= 0x60 && command <= 0x7f) || (command >= 0xd1 && command <= 0xd4)) {
        i8042->command = command;
    } else if (command == 0xa4) {
        put_reply(i8042, 0xf1, false); // no password is installed
    } else if (command == 0xa9 || command == 0xab) {
        put_reply(i8042, 0x00, false);
    } else if (command == 0xaa) {
        i8042->system = true;
        put_reply(i8042, 0x55, false);
    } else if (command == 0xc0) {
        put_reply(i8042, 0x80, false); // the keyboard is not locked
    } else if (command == 0xd0) {
        put_reply(i8042, output_port(i8042), false);
    } else if (command == 0xe0) {
        put_reply(i8042, 0x00, false);
    } else {
        log_guest("i8042", "unknown controller command %#x", command);
    }
}

static const struct io_ops data_ops = {.read = read_data, .write = write_data, .min_size = 1, .max_size = 1};
static const struct io_ops command_ops = {.read = read_status, .write = write_command, .min_size = 1, .max_size = 1};

static bool i8042_realize(struct device *device, GError **error)
{
    struct i8042 *i8042 = container_of(device, struct i8042, device);
    struct machine *machine = device->machine;
    timer_init(&i8042->wire, machine->clock, wire_free, i8042);
    ps2_keyboard_init(&i8042->keyboard, machine, device_changed, i8042);
    ps2_mouse_init(&i8042->mouse, machine, device_changed, i8042);
    region_init_io(&i8042->data_region, "i8042 data", &data_ops, i8042, 1);
    region_init_io(&i8042->command_region, "i8042 command", &command_ops, i8042, 1);
    address_space_map(machine->ports, &i8042->data_region, 0x60, 0);
    address_space_map(machine->ports, &i8042->command_region, 0x64, 0);
    return true;
}

static void i8042_unrealize(struct device *device)
{
    struct i8042 *i8042 = container_of(device, struct i8042, device);
    ps2_keyboard_exit(&i8042->keyboard);
    ps2_mouse_exit(&i8042->mouse);
    timer_destroy(&i8042->wire);
}

static void i8042_reset(struct device *device)
{
    struct i8042 *i8042 = container_of(device, struct i8042, device);
    ps2_keyboard_reset(&i8042->keyboard);
    ps2_mouse_reset(&i8042->mouse);
    timer_cancel(&i8042->wire);
    i8042->mode = MODE_KEYBOARD_IRQ | MODE_AUX_IRQ;
    i8042->full = i8042->from_aux = i8042->command_last = i8042->system = i8042->breaking = false;
    i8042->command = i8042->output = i8042->reply_count = 0;
    memset(i8042->memory, 0, sizeof(i8042->memory));
    update_lines(i8042);
}

static bool i8042_loaded(struct device *device, GError **error)
{
    struct i8042 *i8042 = container_of(device, struct i8042, device);
    i8042->reply_count = MIN(i8042->reply_count, sizeof(i8042->replies));
    ps2_keyboard_loaded(&i8042->keyboard);
    i8042->mouse.queue.count = MIN(i8042->mouse.queue.count, PS2_QUEUE_SIZE);
    i8042->mouse.queue.first %= PS2_QUEUE_SIZE;
    return true;
}

static const struct field i8042_fields[] = {
    FIELD_STRUCT(struct i8042, keyboard, ps2_keyboard_fields),
    FIELD_STRUCT(struct i8042, mouse, ps2_mouse_fields),
    FIELD_TIMER(struct i8042, wire),
    FIELD_U8(struct i8042, mode),
    FIELD_BYTES(struct i8042, memory),
    FIELD_U8(struct i8042, output),
    FIELD_U8(struct i8042, command),
    FIELD_BOOL(struct i8042, full),
    FIELD_BOOL(struct i8042, from_aux),
    FIELD_BOOL(struct i8042, command_last),
    FIELD_BOOL(struct i8042, system),
    FIELD_BOOL(struct i8042, breaking),
    FIELD_BYTES(struct i8042, replies),
    FIELD_BYTES(struct i8042, reply_aux),
    FIELD_U8(struct i8042, reply_count),
    FIELD_END,
};

const struct device_class i8042_class = {
    .name = "i8042",
    .help = "keyboard controller with PS/2 keyboard and wheel mouse",
    .size = sizeof(struct i8042),
    .realize = i8042_realize,
    .unrealize = i8042_unrealize,
    .reset = i8042_reset,
    .fields = i8042_fields,
    .version = 1,
    .loaded = i8042_loaded,
    .internal = true,
};
