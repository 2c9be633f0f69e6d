// SPDX-License-Identifier: GPL-2.0-or-later
// Keyboard and pointer events from people to devices. Keys are evdev codes (linux/input-event-codes.h); one table
// (core/screen/keys.c) translates them to every other world.
#ifndef CLOCHE_INPUT_H
#define CLOCHE_INPUT_H

#include "core/base/base.h"

struct machine;
struct input;

enum input_button { INPUT_LEFT, INPUT_MIDDLE, INPUT_RIGHT, INPUT_WHEEL_UP, INPUT_WHEEL_DOWN, INPUT_SIDE, INPUT_EXTRA,
                    INPUT_WHEEL_LEFT, INPUT_WHEEL_RIGHT };

// A device that takes events: PS/2, USB HID, virtio-input. Called with the machine lock held. Events go to the handler
// that was activated last among those that take the kind.
struct input_handler {
    const char *name;
    bool keyboard, relative, absolute;
    void (*key)(void *opaque, unsigned code, bool down);
    void (*button)(void *opaque, enum input_button button, bool down);
    void (*move_relative)(void *opaque, int dx, int dy);
    void (*move_absolute)(void *opaque, unsigned x, unsigned y); // 0..32767 over the whole head
    void (*sync)(void *opaque);
    void *opaque;
};

struct input *input_new(GRecMutex *machine_lock);
void input_free(struct input *input);
void input_add_handler(struct input *input, const struct input_handler *handler);
void input_remove_handler(struct input *input, const struct input_handler *handler);
void input_activate(struct input *input, const struct input_handler *handler); // the guest's driver took it into use

// Event sources: any thread (these take the machine lock).
void input_key(struct input *input, unsigned evdev_code, bool down);
void input_pointer_absolute(struct input *input, unsigned x, unsigned y, unsigned width, unsigned height);
void input_pointer_relative(struct input *input, int dx, int dy);
void input_button(struct input *input, enum input_button button, bool down);
void input_sync(struct input *input);
bool input_absolute(struct input *input); // the guest takes absolute positions now
void input_release_all(struct input *input); // every key that is down goes up (focus lost, client gone)
// Types UTF-8 TEXT as key presses on the guest layout that is set; paced so that no guest drops keys. Returns false with an
// error that names the first character that the layout cannot produce; nothing is typed then.
bool input_type_text(struct input *input, const char *text, GError **error);
bool input_set_layout(struct input *input, const char *name, GError **error); // "us", "de", ...
// LED state from the guest (scroll 1, num 2, caps 4) and listeners to it.
void input_set_leds(struct input *input, unsigned leds);
unsigned input_leds(struct input *input);

struct key {
    uint16_t evdev;
    const char *qcode;      // QKeyCode name of QMP, or NULL
    uint32_t keysym;        // X11, unshifted US
    uint32_t keysym_shift;  // X11, shifted US, 0 none
    uint16_t set1;          // AT set 1 make code; 0xE0xx extended; 0 none
    uint16_t set2;          // AT set 2 make code; 0xE0xx extended; 0 none
    uint8_t hid;            // USB HID usage page 7, 0 none
};
extern const struct key keys[];
extern const size_t keys_count;
const struct key *key_by_evdev(unsigned code);
const struct key *key_by_qcode(const char *name);
const struct key *key_by_keysym(uint32_t keysym);

#endif
