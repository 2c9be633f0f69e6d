// SPDX-License-Identifier: GPL-2.0-or-later
// A PS/2 keyboard of 104 keys and more: scan sets 1 to 3, typematic, LEDs. (IBM PS/2 Hardware Interface Technical
// Reference, "Keyboards"; Microsoft Keyboard Scan Code Specification)
#include "devices/input/ps2.h"

#include <linux/input-event-codes.h>
#include <string.h>

#define REPLY_ACK      0xfa
#define REPLY_RESEND   0xfe
#define REPLY_BAT_GOOD 0xaa

#define LED_NUM_LOCK    2
#define EVENT_BYTES_MAX 16 // of the keyboard's own buffer

enum {
    MODIFIER_CTRL_L = 1,
    MODIFIER_CTRL_R = 2,
    MODIFIER_SHIFT_L = 4,
    MODIFIER_SHIFT_R = 8,
    MODIFIER_ALT_L = 16,
    MODIFIER_ALT_R = 32
};
#define MODIFIER_CTRL  (MODIFIER_CTRL_L | MODIFIER_CTRL_R)
#define MODIFIER_SHIFT (MODIFIER_SHIFT_L | MODIFIER_SHIFT_R)
#define MODIFIER_ALT   (MODIFIER_ALT_L | MODIFIER_ALT_R)

enum { KEY_TYPE_BREAK = 1, KEY_TYPE_REPEAT = 2 }; // what set 3 sends for a key beside its make code

// ---- The queue that both devices have ----
bool ps2_queue_empty(const struct ps2_queue *queue)
{
    return queue->count == 0;
}

void ps2_queue_clear(struct ps2_queue *queue)
{
    queue->first = queue->count = 0;
}

void ps2_queue_put(struct ps2_queue *queue, uint8_t byte)
{
    if (queue->count >= PS2_QUEUE_SIZE)
        return;
    queue->bytes[(queue->first + queue->count) % PS2_QUEUE_SIZE] = byte;
    queue->count++;
}

uint8_t ps2_queue_take(struct ps2_queue *queue)
{
    if (queue->count == 0)
        return 0;
    uint8_t byte = queue->bytes[queue->first % PS2_QUEUE_SIZE];
    queue->first = (queue->first + 1) % PS2_QUEUE_SIZE;
    queue->count--;
    return byte;
}

const struct field ps2_queue_fields[] = {
    FIELD_BYTES(struct ps2_queue, bytes),
    FIELD_U32(struct ps2_queue, first),
    FIELD_U32(struct ps2_queue, count),
    FIELD_END,
};

// ---- Scan codes ----
// Pause has no break code of its own; Print Screen and Pause change with Ctrl, Shift and Alt.
static const uint8_t pause_set1[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
static const uint8_t pause_set2[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};
static const uint8_t break_set1[] = {0xe0, 0x46, 0xe0, 0xc6};
static const uint8_t break_set2[] = {0xe0, 0x7e, 0xe0, 0xf0, 0x7e};

struct sequence {
    uint8_t bytes[16];
    unsigned count;
};

static void append(struct sequence *sequence, const uint8_t *bytes, unsigned count)
{
    memcpy(sequence->bytes + sequence->count, bytes, count);
    sequence->count += count;
}

// One code of set 1 or 2, with its E0 prefix and as make or break.
static void append_code(struct sequence *sequence, unsigned set, uint16_t code, bool down)
{
    if (code >> 8)
        append(sequence, (uint8_t[]){code >> 8}, 1);
    if (set == 1) {
        append(sequence, (uint8_t[]){(code & 0x7f) | (down ? 0 : 0x80)}, 1);
        return;
    }
    if (!down)
        append(sequence, (uint8_t[]){0xf0}, 1);
    append(sequence, (uint8_t[]){code & 0xff}, 1);
}

static void append_print(struct sequence *sequence, unsigned set, uint8_t modifiers, bool down)
{
    uint16_t print = set == 1 ? 0xe037 : 0xe07c, shift = set == 1 ? 0xe02a : 0xe012;
    if (modifiers & MODIFIER_ALT) {
        append_code(sequence, set, set == 1 ? 0x54 : 0x84, down);
    } else if (modifiers & (MODIFIER_CTRL | MODIFIER_SHIFT)) {
        append_code(sequence, set, print, down);
    } else if (down) {
        append_code(sequence, set, shift, true);
        append_code(sequence, set, print, true);
    } else {
        append_code(sequence, set, print, false);
        append_code(sequence, set, shift, false);
    }
}

static void append_pause(struct sequence *sequence, unsigned set, uint8_t modifiers, bool down)
{
    if (!down)
        return;
    if (modifiers & MODIFIER_CTRL)
        append(sequence, set == 1 ? break_set1 : break_set2, set == 1 ? sizeof(break_set1) : sizeof(break_set2));
    else
        append(sequence, set == 1 ? pause_set1 : pause_set2, set == 1 ? sizeof(pause_set1) : sizeof(pause_set2));
}

static void append_set3(struct sequence *sequence, const struct ps2_keyboard *keyboard, const struct key *key,
                        bool down)
{
    if (!key->set3)
        return;
    if (!down && !(keyboard->key_type[key->set3] & KEY_TYPE_BREAK))
        return;
    if (!down)
        append(sequence, (uint8_t[]){0xf0}, 1);
    append(sequence, &key->set3, 1);
}

// The grey keys beside the keypad, and the keypad's slash: an old keyboard had them on the keypad only, so that they
// come wrapped in the shifts that its software must not see (or must see, with Num Lock).
static bool is_grey(unsigned code)
{
    static const uint16_t grey[] = {KEY_INSERT,   KEY_DELETE, KEY_HOME, KEY_END,  KEY_PAGEUP,
                                    KEY_PAGEDOWN, KEY_UP,     KEY_DOWN, KEY_LEFT, KEY_RIGHT};
    for (unsigned i = 0; i < sizeof(grey) / sizeof(grey[0]); i++)
        if (grey[i] == code)
            return true;
    return false;
}

// What goes before a make code (DOWN) or after a break code.
static void append_shifts(struct sequence *sequence, const struct ps2_keyboard *keyboard, const struct key *key,
                          bool down)
{
    unsigned set = keyboard->scan_set, held = keyboard->modifiers & MODIFIER_SHIFT;
    bool num_lock = input_leds(keyboard->machine->input) & LED_NUM_LOCK, grey = is_grey(key->evdev);
    if (!grey && key->evdev != KEY_KPSLASH)
        return;
    if (held && !(grey && num_lock)) {
        if (held & MODIFIER_SHIFT_L)
            append_code(sequence, set, set == 1 ? 0xe02a : 0xe012, !down);
        if (held & MODIFIER_SHIFT_R)
            append_code(sequence, set, set == 1 ? 0xe036 : 0xe059, !down);
    } else if (!held && grey && num_lock) {
        append_code(sequence, set, set == 1 ? 0xe02a : 0xe012, down);
    }
}

static struct sequence sequence_of(const struct ps2_keyboard *keyboard, const struct key *key, bool down)
{
    struct sequence sequence = {.count = 0};
    uint16_t code = keyboard->scan_set == 1 ? key->set1 : key->set2;
    if (keyboard->scan_set == 3)
        append_set3(&sequence, keyboard, key, down);
    else if (key->evdev == KEY_SYSRQ)
        append_print(&sequence, keyboard->scan_set, keyboard->modifiers, down);
    else if (key->evdev == KEY_PAUSE)
        append_pause(&sequence, keyboard->scan_set, keyboard->modifiers, down);
    else if ((code & 0xff) == 0xf1 || (code & 0xff) == 0xf2) // Korean keys: one code, on the way down
        append(&sequence, (uint8_t[]){code}, down ? 1 : 0);
    else if (code) {
        if (down)
            append_shifts(&sequence, keyboard, key, true);
        append_code(&sequence, keyboard->scan_set, code, down);
        if (!down)
            append_shifts(&sequence, keyboard, key, false);
    }
    return sequence;
}

static void send_key(struct ps2_keyboard *keyboard, const struct key *key, bool down)
{
    struct sequence sequence = sequence_of(keyboard, key, down);
    if (!sequence.count)
        return;
    if (keyboard->queue.count + sequence.count > EVENT_BYTES_MAX) {
        if (!keyboard->overrun)
            ps2_queue_put(&keyboard->queue, keyboard->scan_set == 1 ? 0xff : 0x00);
        keyboard->overrun = true;
    } else {
        keyboard->overrun = false;
        for (unsigned i = 0; i < sequence.count; i++)
            ps2_queue_put(&keyboard->queue, sequence.bytes[i]);
    }
    keyboard->changed(keyboard->changed_opaque);
}

// ---- Typematic ----
static int64_t typematic_delay(const struct ps2_keyboard *keyboard)
{
    return (1 + (keyboard->typematic >> 5 & 3)) * 250000000ll;
}

static int64_t typematic_period(const struct ps2_keyboard *keyboard)
{
    return (8 + (keyboard->typematic & 7)) * (1ll << (keyboard->typematic >> 3 & 3)) * 4170000ll;
}

static void stop_repeat(struct ps2_keyboard *keyboard)
{
    keyboard->repeating = 0;
    timer_cancel(&keyboard->repeat);
}

static void repeat_now(void *opaque)
{
    struct ps2_keyboard *keyboard = opaque;
    const struct key *key = key_by_evdev(keyboard->repeating);
    if (!key || !keyboard->enabled)
        return;
    if (ps2_queue_empty(&keyboard->queue)) // a guest that does not read gets no pile of repeats
        send_key(keyboard, key, true);
    timer_arm(&keyboard->repeat, clock_now(keyboard->machine->clock) + typematic_period(keyboard));
}

static bool repeats(const struct ps2_keyboard *keyboard, const struct key *key)
{
    if (key->evdev == KEY_PAUSE)
        return false;
    return keyboard->scan_set != 3 || keyboard->key_type[key->set3] & KEY_TYPE_REPEAT;
}

static uint8_t modifier_of(unsigned code)
{
    switch (code) {
    case KEY_LEFTCTRL:
        return MODIFIER_CTRL_L;
    case KEY_RIGHTCTRL:
        return MODIFIER_CTRL_R;
    case KEY_LEFTSHIFT:
        return MODIFIER_SHIFT_L;
    case KEY_RIGHTSHIFT:
        return MODIFIER_SHIFT_R;
    case KEY_LEFTALT:
        return MODIFIER_ALT_L;
    case KEY_RIGHTALT:
        return MODIFIER_ALT_R;
    }
    return 0;
}

static void keyboard_key(void *opaque, unsigned code, bool down)
{
    struct ps2_keyboard *keyboard = opaque;
    const struct key *key = key_by_evdev(code);
    uint8_t modifier = modifier_of(code);
    keyboard->modifiers = down ? keyboard->modifiers | modifier : keyboard->modifiers & ~modifier;
    if (!key || !keyboard->enabled)
        return;
    send_key(keyboard, key, down);
    if (down && repeats(keyboard, key)) {
        keyboard->repeating = code;
        timer_arm(&keyboard->repeat, clock_now(keyboard->machine->clock) + typematic_delay(keyboard));
    } else if (down || keyboard->repeating == code) {
        stop_repeat(keyboard);
    }
}

static bool keyboard_room(void *opaque)
{
    struct ps2_keyboard *keyboard = opaque;
    return keyboard->enabled && ps2_queue_empty(&keyboard->queue);
}

// ---- Commands ----
static void reply(struct ps2_keyboard *keyboard, uint8_t byte)
{
    ps2_queue_put(&keyboard->queue, byte);
}

// Set 3 as it is after power-on: letters repeat without break codes, the shift keys report both, the rest makes only.
static void default_key_types(struct ps2_keyboard *keyboard)
{
    static const uint8_t make_only[] = {0x07, 0x08, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x47, 0x4f,
                                        0x56, 0x57, 0x58, 0x5e, 0x5f, 0x62, 0x39, 0x65, 0x67, 0x69, 0x6b,
                                        0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76,
                                        0x77, 0x79, 0x7a, 0x7d, 0x7e, 0x84, 0x8b, 0x8c, 0x8d};
    static const uint8_t make_break[] = {0x11, 0x12, 0x14, 0x19, 0x59};
    memset(keyboard->key_type, KEY_TYPE_REPEAT, sizeof(keyboard->key_type));
    for (unsigned i = 0; i < sizeof(make_only); i++)
        keyboard->key_type[make_only[i]] = 0;
    for (unsigned i = 0; i < sizeof(make_break); i++)
        keyboard->key_type[make_break[i]] = KEY_TYPE_BREAK;
}

static void set_defaults(struct ps2_keyboard *keyboard)
{
    keyboard->scan_set = 2;
    keyboard->typematic = 0x2b; // 500 ms, 10.9 a second
    keyboard->command = 0;
    keyboard->overrun = false;
    default_key_types(keyboard);
    stop_repeat(keyboard);
}

// The parameter of a two-byte command.
static void parameter(struct ps2_keyboard *keyboard, uint8_t command, uint8_t value)
{
    switch (command) {
    case 0xed:
        input_set_leds(keyboard->machine->input, value & 7);
        reply(keyboard, REPLY_ACK);
        return;
    case 0xf0:
        reply(keyboard, value <= 3 ? REPLY_ACK : REPLY_RESEND);
        if (value == 0)
            reply(keyboard, keyboard->scan_set);
        else if (value <= 3)
            keyboard->scan_set = value;
        return;
    case 0xf3:
        keyboard->typematic = value & 0x7f;
        reply(keyboard, REPLY_ACK);
        return;
    case 0xfb: // key types of set 3; the list goes on until the next command
        keyboard->key_type[value] = KEY_TYPE_REPEAT;
        break;
    case 0xfc:
        keyboard->key_type[value] = KEY_TYPE_BREAK;
        break;
    case 0xfd:
        keyboard->key_type[value] = 0;
        break;
    }
    keyboard->command = command;
    reply(keyboard, REPLY_ACK);
}

static void simple_command(struct ps2_keyboard *keyboard, uint8_t command)
{
    static const uint8_t all_types[] = {KEY_TYPE_REPEAT, KEY_TYPE_BREAK, 0, KEY_TYPE_REPEAT | KEY_TYPE_BREAK};
    switch (command) {
    case 0xed:
    case 0xf0:
    case 0xf3:
    case 0xfb:
    case 0xfc:
    case 0xfd:
        keyboard->command = command;
        reply(keyboard, REPLY_ACK);
        break;
    case 0xee:
        reply(keyboard, 0xee);
        break;
    case 0xf2:
        reply(keyboard, REPLY_ACK);
        reply(keyboard, 0xab);
        reply(keyboard, 0x83);
        break;
    case 0xf4:
        ps2_queue_clear(&keyboard->queue);
        keyboard->enabled = true;
        reply(keyboard, REPLY_ACK);
        break;
    case 0xf5:
    case 0xf6:
        ps2_queue_clear(&keyboard->queue);
        set_defaults(keyboard);
        keyboard->enabled = command == 0xf6;
        reply(keyboard, REPLY_ACK);
        break;
    case 0xf7:
    case 0xf8:
    case 0xf9:
    case 0xfa:
        memset(keyboard->key_type, all_types[command - 0xf7], sizeof(keyboard->key_type));
        reply(keyboard, REPLY_ACK);
        break;
    case 0xfe:
        reply(keyboard, keyboard->last_sent);
        break;
    case 0xff:
        ps2_keyboard_reset(keyboard);
        reply(keyboard, REPLY_ACK);
        reply(keyboard, REPLY_BAT_GOOD);
        break;
    default:
        reply(keyboard, REPLY_RESEND);
    }
}

void ps2_keyboard_write(struct ps2_keyboard *keyboard, uint8_t byte)
{
    uint8_t command = keyboard->command;
    keyboard->command = 0;
    if (command && byte < 0xed)
        parameter(keyboard, command, byte);
    else
        simple_command(keyboard, byte);
    keyboard->changed(keyboard->changed_opaque);
}

uint8_t ps2_keyboard_take(struct ps2_keyboard *keyboard)
{
    uint8_t byte = ps2_queue_take(&keyboard->queue);
    if (byte != REPLY_RESEND)
        keyboard->last_sent = byte;
    return byte;
}

// ---- Life ----
void ps2_keyboard_init(struct ps2_keyboard *keyboard, struct machine *machine, ps2_changed *changed, void *opaque)
{
    keyboard->machine = machine;
    keyboard->changed = changed;
    keyboard->changed_opaque = opaque;
    keyboard->handler = (struct input_handler){
        .name = "PS/2 keyboard", .keyboard = true, .key = keyboard_key, .key_room = keyboard_room, .opaque = keyboard};
    timer_init(&keyboard->repeat, machine->clock, repeat_now, keyboard);
    input_add_handler(machine->input, &keyboard->handler);
}

void ps2_keyboard_exit(struct ps2_keyboard *keyboard)
{
    if (!keyboard->machine)
        return;
    input_remove_handler(keyboard->machine->input, &keyboard->handler);
    timer_destroy(&keyboard->repeat);
}

void ps2_keyboard_reset(struct ps2_keyboard *keyboard)
{
    ps2_queue_clear(&keyboard->queue);
    set_defaults(keyboard);
    keyboard->enabled = true;
    keyboard->last_sent = 0;
    input_set_leds(keyboard->machine->input, 0);
}

void ps2_keyboard_loaded(struct ps2_keyboard *keyboard)
{
    keyboard->queue.count = MIN(keyboard->queue.count, PS2_QUEUE_SIZE);
    keyboard->queue.first %= PS2_QUEUE_SIZE;
    if (keyboard->scan_set < 1 || keyboard->scan_set > 3)
        keyboard->scan_set = 2;
}

const struct field ps2_keyboard_fields[] = {
    FIELD_STRUCT(struct ps2_keyboard, queue, ps2_queue_fields),
    FIELD_TIMER(struct ps2_keyboard, repeat),
    FIELD_BOOL(struct ps2_keyboard, enabled),
    FIELD_U8(struct ps2_keyboard, command),
    FIELD_U8(struct ps2_keyboard, scan_set),
    FIELD_U8(struct ps2_keyboard, typematic),
    FIELD_U8(struct ps2_keyboard, last_sent),
    FIELD_U8(struct ps2_keyboard, modifiers),
    FIELD_U16(struct ps2_keyboard, repeating),
    FIELD_BOOL(struct ps2_keyboard, overrun),
    FIELD_BYTES(struct ps2_keyboard, key_type),
    FIELD_END,
};
