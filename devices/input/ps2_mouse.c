// SPDX-License-Identifier: GPL-2.0-or-later
// A PS/2 mouse with wheel and five buttons. (IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft's
// IntelliMouse and IntelliMouse Explorer knocks for the wheel and the extra buttons)
#include "devices/input/ps2.h"

#include <string.h>

#define REPLY_ACK      0xfa
#define REPLY_RESEND   0xfe
#define REPLY_BAT_GOOD 0xaa

#define EVENT_BYTES_MAX  64 // of queued packets; then clicks are merged
#define MOTION_BYTES_MAX 8  // beyond which motion is summed up
#define MOTION_LIMIT     4096

enum { ID_PLAIN = 0, ID_WHEEL = 3, ID_EXPLORER = 4 };

static void reply(struct ps2_mouse *mouse, uint8_t byte)
{
    ps2_queue_put(&mouse->queue, byte);
}

// ---- Packets ----
// 2:1 scaling as the reference gives it, for stream mode only.
static int scaled(const struct ps2_mouse *mouse, int value)
{
    static const uint8_t small[] = {0, 1, 1, 3, 6, 9};
    if (!mouse->scaling || mouse->remote)
        return value;
    int size = ABS(value), result = size < 6 ? small[size] : 2 * size;
    return value < 0 ? -result : result;
}

// Takes as much of *MOTION as one packet can carry.
static int take_motion(int32_t *motion, int low, int high)
{
    int part = CLAMP(*motion, low, high);
    *motion -= part;
    return part;
}

static void put_packet(struct ps2_mouse *mouse)
{
    bool half = mouse->scaling && !mouse->remote; // so that the doubled value still fits
    int dx = scaled(mouse, take_motion(&mouse->dx, half ? -127 : -255, half ? 127 : 255));
    int dy = scaled(mouse, take_motion(&mouse->dy, half ? -127 : -255, half ? 127 : 255));
    reply(mouse, (dy < 0) << 5 | (dx < 0) << 4 | 8 | (mouse->buttons & 7));
    reply(mouse, dx);
    reply(mouse, dy);
    if (mouse->id == ID_WHEEL)
        reply(mouse, take_motion(&mouse->dz, -127, 127));
    else if (mouse->id == ID_EXPLORER)
        reply(mouse, (take_motion(&mouse->dz, -7, 7) & 15) | (mouse->buttons & 0x18) << 1);
    else
        mouse->dz = 0;
    mouse->sent_buttons = mouse->buttons;
}

static bool has_news(const struct ps2_mouse *mouse)
{
    return mouse->dx || mouse->dy || (mouse->dz && mouse->id != ID_PLAIN) || mouse->buttons != mouse->sent_buttons;
}

static bool streaming(const struct ps2_mouse *mouse)
{
    return mouse->enabled && !mouse->remote && !mouse->wrap;
}

static void wait_sample(struct ps2_mouse *mouse)
{
    timer_arm(&mouse->sample, clock_now(mouse->machine->clock) + 1000000000ll / MAX(mouse->rate, 10));
}

// Sends a packet as far as the queue and, unless NOW, the rate allow; else what happened is summed up until then.
static void stream(struct ps2_mouse *mouse, bool now)
{
    if (!streaming(mouse) || !has_news(mouse) || (!now && timer_armed(&mouse->sample)))
        return;
    bool room = mouse->queue.count + 4 <= (now ? EVENT_BYTES_MAX : MOTION_BYTES_MAX);
    if (room)
        put_packet(mouse);
    wait_sample(mouse);
    if (room)
        mouse->changed(mouse->changed_opaque);
}

static void sample_over(void *opaque)
{
    stream(opaque, false);
}

// ---- Events ----
static void mouse_move(void *opaque, int dx, int dy)
{
    struct ps2_mouse *mouse = opaque;
    if (!mouse->enabled)
        return;
    mouse->dx = CLAMP(mouse->dx + dx, -MOTION_LIMIT, MOTION_LIMIT);
    mouse->dy = CLAMP(mouse->dy - dy, -MOTION_LIMIT, MOTION_LIMIT);
}

static void mouse_button(void *opaque, enum input_button button, bool down)
{
    static const uint8_t bits[INPUT_BUTTON_COUNT] = {
        [INPUT_LEFT] = 1, [INPUT_RIGHT] = 2, [INPUT_MIDDLE] = 4, [INPUT_SIDE] = 8, [INPUT_EXTRA] = 16};
    struct ps2_mouse *mouse = opaque;
    if (button == INPUT_WHEEL_UP || button == INPUT_WHEEL_DOWN) {
        if (mouse->enabled)
            mouse->dz = CLAMP(mouse->dz + (button == INPUT_WHEEL_UP ? -1 : 1), -127, 127);
        return;
    }
    // A click must not vanish between two reports: what happened before this change goes out first.
    if (mouse->buttons != mouse->sent_buttons)
        stream(mouse, true);
    mouse->buttons = down ? mouse->buttons | bits[button] : mouse->buttons & ~bits[button];
    stream(mouse, true);
}

static void mouse_sync(void *opaque)
{
    stream(opaque, false);
}

// ---- Commands ----
static void set_defaults(struct ps2_mouse *mouse)
{
    mouse->rate = 100;
    mouse->resolution = 2;
    mouse->scaling = mouse->remote = mouse->enabled = false;
    mouse->command = 0;
    mouse->dx = mouse->dy = mouse->dz = 0;
}

static void set_rate(struct ps2_mouse *mouse, uint8_t rate)
{
    if (mouse->knock[0] == 200 && mouse->knock[1] == 100 && rate == 80)
        mouse->id = ID_WHEEL;
    else if (mouse->knock[0] == 200 && mouse->knock[1] == 200 && rate == 80)
        mouse->id = ID_EXPLORER;
    mouse->knock[0] = mouse->knock[1];
    mouse->knock[1] = rate;
    mouse->rate = rate;
}

static void status_report(struct ps2_mouse *mouse)
{
    uint8_t buttons = (mouse->buttons & 1) << 2 | (mouse->buttons & 4) >> 1 | (mouse->buttons & 2) >> 1;
    reply(mouse, mouse->remote << 6 | mouse->enabled << 5 | mouse->scaling << 4 | buttons);
    reply(mouse, mouse->resolution);
    reply(mouse, mouse->rate);
}

static void simple_command(struct ps2_mouse *mouse, uint8_t command)
{
    if (command != 0xfe)
        reply(mouse, REPLY_ACK);
    switch (command) {
    case 0xe6:
    case 0xe7:
        mouse->scaling = command == 0xe7;
        break;
    case 0xe8:
    case 0xf3:
        mouse->command = command;
        break;
    case 0xe9:
        status_report(mouse);
        break;
    case 0xea:
    case 0xf0:
        mouse->remote = command == 0xf0;
        break;
    case 0xeb:
        put_packet(mouse);
        break;
    case 0xec:
        break; // ends wrap mode, see ps2_mouse_write()
    case 0xee:
        mouse->wrap = true;
        break;
    case 0xf2:
        reply(mouse, mouse->id);
        break;
    case 0xf4:
        mouse->enabled = true;
        break;
    case 0xf5:
        mouse->enabled = false;
        break;
    case 0xf6:
        set_defaults(mouse);
        break;
    case 0xfe:
        reply(mouse, mouse->last_sent);
        break;
    case 0xff:
        ps2_mouse_reset(mouse);
        reply(mouse, REPLY_ACK);
        reply(mouse, REPLY_BAT_GOOD);
        reply(mouse, mouse->id);
        break;
    }
}

static bool known_command(uint8_t byte)
{
    return (byte >= 0xe6 && byte <= 0xec) || byte == 0xee || byte == 0xf0 || (byte >= 0xf2 && byte <= 0xf6) ||
           byte >= 0xfe;
}

void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t byte)
{
    uint8_t command = mouse->command;
    mouse->command = 0;
    // Motion that the guest has not fetched yet is void once it talks to the mouse.
    ps2_queue_clear(&mouse->queue);
    if (mouse->wrap && byte != 0xec && byte != 0xff) {
        reply(mouse, byte);
    } else if (command == 0xe8 && byte <= 3) {
        mouse->resolution = byte;
        reply(mouse, REPLY_ACK);
    } else if (command == 0xf3 && byte >= 10 && byte <= 200) {
        set_rate(mouse, byte);
        reply(mouse, REPLY_ACK);
    } else if (!command && known_command(byte)) {
        mouse->wrap = false;
        simple_command(mouse, byte);
    } else {
        reply(mouse, REPLY_RESEND);
    }
    mouse->changed(mouse->changed_opaque);
}

uint8_t ps2_mouse_take(struct ps2_mouse *mouse)
{
    uint8_t byte = ps2_queue_take(&mouse->queue);
    if (byte != REPLY_RESEND)
        mouse->last_sent = byte;
    return byte;
}

// ---- Life ----
void ps2_mouse_init(struct ps2_mouse *mouse, struct machine *machine, ps2_changed *changed, void *opaque)
{
    mouse->machine = machine;
    mouse->changed = changed;
    mouse->changed_opaque = opaque;
    mouse->handler = (struct input_handler){.name = "PS/2 mouse",
                                            .relative = true,
                                            .button = mouse_button,
                                            .move_relative = mouse_move,
                                            .sync = mouse_sync,
                                            .opaque = mouse};
    timer_init(&mouse->sample, machine->clock, sample_over, mouse);
    input_add_handler(machine->input, &mouse->handler);
}

void ps2_mouse_exit(struct ps2_mouse *mouse)
{
    if (!mouse->machine)
        return;
    input_remove_handler(mouse->machine->input, &mouse->handler);
    timer_destroy(&mouse->sample);
}

void ps2_mouse_reset(struct ps2_mouse *mouse)
{
    ps2_queue_clear(&mouse->queue);
    set_defaults(mouse);
    timer_cancel(&mouse->sample);
    mouse->wrap = false;
    mouse->id = ID_PLAIN;
    memset(mouse->knock, 0, sizeof(mouse->knock));
    mouse->sent_buttons = mouse->buttons;
}

const struct field ps2_mouse_fields[] = {
    FIELD_STRUCT(struct ps2_mouse, queue, ps2_queue_fields),
    FIELD_TIMER(struct ps2_mouse, sample),
    FIELD_BOOL(struct ps2_mouse, enabled),
    FIELD_BOOL(struct ps2_mouse, remote),
    FIELD_BOOL(struct ps2_mouse, wrap),
    FIELD_BOOL(struct ps2_mouse, scaling),
    FIELD_U8(struct ps2_mouse, command),
    FIELD_U8(struct ps2_mouse, resolution),
    FIELD_U8(struct ps2_mouse, rate),
    FIELD_U8(struct ps2_mouse, id),
    FIELD_BYTES(struct ps2_mouse, knock),
    FIELD_U8(struct ps2_mouse, last_sent),
    FIELD_U8(struct ps2_mouse, buttons),
    FIELD_U8(struct ps2_mouse, sent_buttons),
    FIELD_S32(struct ps2_mouse, dx),
    FIELD_S32(struct ps2_mouse, dy),
    FIELD_S32(struct ps2_mouse, dz),
    FIELD_END,
};
