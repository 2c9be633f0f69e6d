// SPDX-License-Identifier: GPL-2.0-or-later
// Keyboard and pointer events from people to devices. Keys are evdev codes (linux/input-event-codes.h); one table
// (core/screen/keys.c) translates them to every other world.
#ifndef CLOCHE_INPUT_H
#define CLOCHE_INPUT_H

#include "core/base/base.h"
#include "core/screen/layout.h"

struct input;

enum input_button {
    INPUT_LEFT,
    INPUT_MIDDLE,
    INPUT_RIGHT,
    INPUT_WHEEL_UP,
    INPUT_WHEEL_DOWN,
    INPUT_SIDE,
    INPUT_EXTRA,
    INPUT_WHEEL_LEFT,
    INPUT_WHEEL_RIGHT,
    INPUT_BUTTON_COUNT,
};

// A device that takes events: PS/2, USB HID, virtio-input. Called with the machine lock held. Events go to the handler
// that was activated last among those that take the kind, else to the one that was added first.
struct input_handler {
    const char *name;
    bool keyboard, relative, absolute;
    void (*key)(void *opaque, unsigned code, bool down);
    void (*button)(void *opaque, enum input_button button, bool down);
    void (*move_relative)(void *opaque, int dx, int dy);
    void (*move_absolute)(void *opaque, unsigned x, unsigned y); // 0..32767 over the whole head
    void (*sync)(void *opaque);                                  // end of one report; may be NULL
    bool (*key_room)(void *opaque);                              // false: keys would pile up, typing waits; may be NULL
    void *opaque;
};

// MACHINE_LOCK may be NULL (tests).
struct input *input_new(GRecMutex *machine_lock);
void input_free(struct input *input);
// Machine lock held. HANDLER stays the caller's and must live until it is removed.
void input_add_handler(struct input *input, const struct input_handler *handler);
void input_remove_handler(struct input *input, const struct input_handler *handler);
void input_activate(struct input *input, const struct input_handler *handler);   // the guest's driver took it into use
void input_deactivate(struct input *input, const struct input_handler *handler); // reset, or its driver let go of it
// Calls FN for each handler, the ones in use first. Takes the machine lock.
void input_foreach_handler(struct input *input, void (*fn)(void *opaque, const struct input_handler *handler),
                           void *opaque);

// Event sources: any thread (these take the machine lock). A repeated press of a key that is down is dropped: keyboards
// or the guest repeat by themselves.
void input_key(struct input *input, unsigned evdev_code, bool down);
// X, Y: pixel on a picture of WIDTH x HEIGHT. A guest without an absolute pointer gets the way from the last position.
void input_pointer_absolute(struct input *input, unsigned x, unsigned y, unsigned width, unsigned height);
void input_pointer_relative(struct input *input, int dx, int dy);
void input_button(struct input *input, enum input_button button, bool down); // a wheel step is one press
void input_sync(struct input *input);
bool input_absolute(struct input *input);    // the guest takes absolute positions now
void input_release_all(struct input *input); // every key and button that is down goes up (focus lost, client gone)
// Types UTF-8 TEXT as key presses on the guest layout that is set; paced so that no guest drops keys. Returns false
// with an error that names the first character that the layout cannot produce; nothing is typed then. Returns at once:
// the keys follow from a thread of the hub, one text after the other.
bool input_type_text(struct input *input, const char *text, GError **error);
bool input_typing(struct input *input); // keys of a text are still to come
// The guest's layout by its X11 name: "us", "de", "ch(fr)". US at first. The error names what is wrong.
bool input_set_layout(struct input *input, const char *name, GError **error);
// The key that makes an X11 keysym on the guest's layout (viewers that send symbols, not keys), with the modifiers that
// it takes for a character, by what the guest's Caps Lock shows; evdev 0: none.
struct stroke input_keysym(struct input *input, uint32_t keysym);
// LED state from the guest (scroll 1, num 2, caps 4) and listeners to it, called with the machine lock held.
void input_set_leds(struct input *input, unsigned leds);
unsigned input_leds(struct input *input);
typedef void input_leds_fn(void *opaque, unsigned leds);
void input_add_leds_listener(struct input *input, input_leds_fn *fn, void *opaque);
void input_remove_leds_listener(struct input *input, input_leds_fn *fn, void *opaque);

// ---- The one key table ----
struct key {
    uint16_t evdev;
    const char *qcode;     // QKeyCode name of QMP, or NULL
    uint32_t keysym;       // X11, unshifted US, 0 none
    uint32_t keysym_shift; // X11, shifted US, 0 none
    uint16_t set1;         // AT set 1 make code; 0xE0xx extended; 0 none
    uint16_t set2;         // AT set 2 make code; 0xE0xx extended; 0 none
    uint8_t set3;          // PS/2 set 3 make code; 0 none
    uint8_t hid;           // USB HID usage page 7, 0 none
};
extern const struct key keys[];
extern const size_t keys_count;
const struct key *key_by_evdev(unsigned code);
const struct key *key_by_qcode(const char *name);
const struct key *key_by_keysym(uint32_t keysym);
const struct key *
key_by_set1(unsigned code); // 0x80 | code is taken for 0xE0 code (as VNC's extended key event sends it)

#endif
