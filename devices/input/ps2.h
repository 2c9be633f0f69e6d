// SPDX-License-Identifier: GPL-2.0-or-later
// The serial side of the 8042: a keyboard and a mouse that answer command bytes and queue bytes of their own. They are
// parts of the i8042 device, which moves their bytes to port 0x60 and saves their state.
//
// Threads: machine lock.
#ifndef CLOCHE_PS2_H
#define CLOCHE_PS2_H

#include "core/base/clock.h"
#include "core/base/fields.h"
#include "core/machine/machine.h"
#include "core/screen/input.h"

// Bytes on their way to the controller. Events fill it up to their device's limit, answers always find room after it.
#define PS2_QUEUE_SIZE 128
struct ps2_queue {
    uint8_t bytes[PS2_QUEUE_SIZE];
    uint32_t first, count;
};
bool ps2_queue_empty(const struct ps2_queue *queue);
void ps2_queue_clear(struct ps2_queue *queue);
void ps2_queue_put(struct ps2_queue *queue, uint8_t byte); // dropped when full
uint8_t ps2_queue_take(struct ps2_queue *queue);           // 0 when empty
extern const struct field ps2_queue_fields[];

typedef void ps2_changed(void *opaque); // the queue has bytes now

struct ps2_keyboard {
    struct machine *machine;
    ps2_changed *changed;
    void *changed_opaque;
    struct input_handler handler;
    struct ps2_queue queue;
    struct timer repeat;
    bool enabled;
    uint8_t command;    // that waits for its parameter, 0 none
    uint8_t scan_set;   // 1, 2, 3
    uint8_t typematic;  // as set by F3
    uint8_t last_sent;  // for FE, resend
    uint8_t modifiers;  // ctrl, shift, alt held: bits of enum in the file
    uint16_t repeating; // evdev code, 0 none
    bool overrun;
    uint8_t key_type[256]; // set 3: KEY_TYPE_ bits by make code
};
void ps2_keyboard_init(struct ps2_keyboard *keyboard, struct machine *machine, ps2_changed *changed, void *opaque);
void ps2_keyboard_exit(struct ps2_keyboard *keyboard);
void ps2_keyboard_reset(struct ps2_keyboard *keyboard);
void ps2_keyboard_write(struct ps2_keyboard *keyboard, uint8_t byte);
uint8_t ps2_keyboard_take(struct ps2_keyboard *keyboard);
void ps2_keyboard_loaded(struct ps2_keyboard *keyboard);
extern const struct field ps2_keyboard_fields[];

struct ps2_mouse {
    struct machine *machine;
    ps2_changed *changed;
    void *changed_opaque;
    struct input_handler handler;
    struct ps2_queue queue;
    struct timer sample; // running: the next packet of motion waits for it
    bool enabled, remote, wrap, scaling;
    uint8_t command, resolution, rate, id;
    uint8_t knock[2]; // the last two sample rates, for the wheel's secret
    uint8_t last_sent;
    uint8_t buttons, sent_buttons; // left 1, right 2, middle 4, side 8, extra 16
    int32_t dx, dy, dz;            // not reported yet; y grows upwards
};
void ps2_mouse_init(struct ps2_mouse *mouse, struct machine *machine, ps2_changed *changed, void *opaque);
void ps2_mouse_exit(struct ps2_mouse *mouse);
void ps2_mouse_reset(struct ps2_mouse *mouse);
void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t byte);
uint8_t ps2_mouse_take(struct ps2_mouse *mouse);
extern const struct field ps2_mouse_fields[];

#endif
