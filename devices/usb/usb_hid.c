// SPDX-License-Identifier: GPL-2.0-or-later
// USB keyboard, wheel mouse and tablet (Device Class Definition for HID 1.11; USB 2.0, chapter 9), high speed.
#include "core/screen/input.h"
#include "devices/usb/usb.h"

#include <string.h>

#define REPORTS_MAX 32
#define REPORT_SIZE 8

enum {
    GET_STATUS,
    CLEAR_FEATURE,
    SET_FEATURE = 3,
    SET_ADDRESS = 5,
    GET_DESCRIPTOR,
    GET_CONFIGURATION = 8,
    SET_CONFIGURATION,
    GET_INTERFACE,
    SET_INTERFACE
};
enum { HID_GET_REPORT = 1, HID_GET_IDLE, HID_GET_PROTOCOL, HID_SET_REPORT = 9, HID_SET_IDLE, HID_SET_PROTOCOL };
enum { DESCRIPTOR_DEVICE = 1, DESCRIPTOR_CONFIGURATION, DESCRIPTOR_STRING, DESCRIPTOR_HID = 0x21, DESCRIPTOR_REPORT };

// One kind of device.
struct hid_kind {
    const char *product;
    const uint8_t *report_descriptor;
    uint8_t report_descriptor_length, report_length, subclass, protocol, number;
};

struct usb_hid {
    struct device device;
    struct usb_device usb;
    const struct hid_kind *kind;
    struct input_handler handler;
    uint8_t configuration, idle, protocol, leds;
    uint8_t current[REPORT_SIZE]; // as it is now, motion summed up since the last report
    uint8_t reports[REPORTS_MAX * REPORT_SIZE];
    uint32_t first, count;
    bool dirty; // CURRENT has something that is not queued
    bool active;
};

// ---- Report descriptors (HID 1.11, appendices B and E) ----
static const uint8_t keyboard_descriptor[] = {
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01,                                     // keyboard application
    0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01,             // eight modifiers
    0x75, 0x01, 0x95, 0x08, 0x81, 0x02, 0x95, 0x01, 0x75, 0x08, 0x81, 0x01, // and a spare byte
    0x95, 0x05, 0x75, 0x01, 0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02, // five LEDs
    0x95, 0x01, 0x75, 0x03, 0x91, 0x01,                                     //
    0x95, 0x06, 0x75, 0x08, 0x15, 0x00, 0x26, 0xff, 0x00,                   // six keys
    0x05, 0x07, 0x19, 0x00, 0x2a, 0xff, 0x00, 0x81, 0x00, 0xc0};
static const uint8_t mouse_descriptor[] = {
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00,             // mouse, pointer
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01,             // five buttons
    0x95, 0x05, 0x75, 0x01, 0x81, 0x02, 0x95, 0x01, 0x75, 0x03, 0x81, 0x01, //
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, // X, Y, wheel: relative bytes
    0x75, 0x08, 0x95, 0x03, 0x81, 0x06, 0xc0, 0xc0};
static const uint8_t tablet_descriptor[] = {
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00,             //
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01,             //
    0x95, 0x05, 0x75, 0x01, 0x81, 0x02, 0x95, 0x01, 0x75, 0x03, 0x81, 0x01, //
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x00, 0x26, 0xff, 0x7f,       // X, Y: absolute, 0 to 32767
    0x35, 0x00, 0x46, 0xff, 0x7f, 0x75, 0x10, 0x95, 0x02, 0x81, 0x02,       //
    0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00, 0x75, 0x08, // wheel
    0x95, 0x01, 0x81, 0x06, 0xc0, 0xc0};

static const struct hid_kind keyboard_kind = {
    "USB Keyboard", keyboard_descriptor, sizeof(keyboard_descriptor), 8, 1, 1, 1};
static const struct hid_kind mouse_kind = {"USB Mouse", mouse_descriptor, sizeof(mouse_descriptor), 4, 1, 2, 2};
static const struct hid_kind tablet_kind = {"USB Tablet", tablet_descriptor, sizeof(tablet_descriptor), 6, 0, 0, 3};

// ---- Reports ----
static void queue_report(struct usb_hid *hid)
{
    // The last report is replaced when the guest lets them pile up: it still learns how things are in the end.
    if (hid->count == REPORTS_MAX)
        hid->count--;
    memcpy(hid->reports + (hid->first + hid->count) % REPORTS_MAX * REPORT_SIZE, hid->current, REPORT_SIZE);
    hid->count++;
    hid->dirty = false;
    if (hid->kind == &mouse_kind)
        hid->current[1] = hid->current[2] = hid->current[3] = 0;
    else if (hid->kind == &tablet_kind)
        hid->current[5] = 0;
    if (hid->usb.host)
        hid->usb.host->ops->ready(hid->usb.host, &hid->usb);
}

static void on_sync(void *opaque)
{
    struct usb_hid *hid = opaque;
    if (hid->dirty && hid->count < REPORTS_MAX / 2) // motion waits for the guest, and is summed up
        queue_report(hid);
}

static void on_key(void *opaque, unsigned code, bool down)
{
    struct usb_hid *hid = opaque;
    const struct key *key = key_by_evdev(code);
    uint8_t usage = key ? key->hid : 0, *pressed = hid->current + 2;
    if (!usage)
        return;
    if (usage >= 0xe0 && usage <= 0xe7) {
        uint8_t bit = 1 << (usage - 0xe0);
        hid->current[0] = down ? hid->current[0] | bit : hid->current[0] & ~bit;
    } else if (down) {
        uint8_t *place = memchr(pressed, 0, 6);
        if (place && !memchr(pressed, usage, 6))
            *place = usage;
    } else {
        uint8_t *place = memchr(pressed, usage, 6);
        if (place) {
            memmove(place, place + 1, pressed + 5 - place);
            pressed[5] = 0;
        }
    }
    queue_report(hid);
}

static void add_clamped(uint8_t *byte, int value)
{
    *byte = (uint8_t)CLAMP((int8_t)*byte + value, -127, 127);
}

static void on_button(void *opaque, enum input_button button, bool down)
{
    static const uint8_t bits[INPUT_BUTTON_COUNT] = {
        [INPUT_LEFT] = 1, [INPUT_RIGHT] = 2, [INPUT_MIDDLE] = 4, [INPUT_SIDE] = 8, [INPUT_EXTRA] = 16};
    struct usb_hid *hid = opaque;
    uint8_t *wheel = hid->current + (hid->kind == &mouse_kind ? 3 : 5);
    if (button == INPUT_WHEEL_UP || button == INPUT_WHEEL_DOWN)
        add_clamped(wheel, button == INPUT_WHEEL_UP ? 1 : -1);
    hid->current[0] = down ? hid->current[0] | bits[button] : hid->current[0] & ~bits[button];
    queue_report(hid);
}

static void on_relative(void *opaque, int dx, int dy)
{
    struct usb_hid *hid = opaque;
    while (dx || dy) {
        int part_x = CLAMP(dx, -127, 127), part_y = CLAMP(dy, -127, 127);
        if (ABS((int8_t)hid->current[1] + part_x) > 127 || ABS((int8_t)hid->current[2] + part_y) > 127) {
            if (hid->count >= REPORTS_MAX / 2)
                return;
            queue_report(hid);
        }
        add_clamped(hid->current + 1, part_x);
        add_clamped(hid->current + 2, part_y);
        dx -= part_x;
        dy -= part_y;
        hid->dirty = true;
    }
}

static void on_absolute(void *opaque, unsigned x, unsigned y)
{
    struct usb_hid *hid = opaque;
    store_le(hid->current + 1, 2, x);
    store_le(hid->current + 3, 2, y);
    hid->dirty = true;
}

static bool has_room(void *opaque)
{
    return ((struct usb_hid *)opaque)->count == 0;
}

static unsigned interrupt_in(struct usb_device *usb, uint8_t *data, unsigned length)
{
    struct usb_hid *hid = container_of(usb, struct usb_hid, usb);
    if (!hid->count && hid->dirty)
        queue_report(hid);
    if (!hid->count)
        return 0;
    unsigned bytes = MIN(length, hid->kind->report_length);
    memcpy(data, hid->reports + hid->first % REPORTS_MAX * REPORT_SIZE, bytes);
    hid->first = (hid->first + 1) % REPORTS_MAX;
    hid->count--;
    return bytes;
}

// ---- Descriptors ----
static unsigned device_descriptor(const struct usb_hid *hid, uint8_t *out)
{
    const uint8_t bytes[18] = {18,   1,    0x00, 0x02, 0, 0, 0, 64, 0x27, 0x06, hid->kind->number,
                               0x00, 0x00, 0x01, 1,    2, 0, 1};
    memcpy(out, bytes, sizeof(bytes));
    return sizeof(bytes);
}

static void hid_descriptor(const struct usb_hid *hid, uint8_t out[9])
{
    const uint8_t bytes[9] = {
        9, DESCRIPTOR_HID, 0x11, 0x01, 0, 1, DESCRIPTOR_REPORT, hid->kind->report_descriptor_length, 0};
    memcpy(out, bytes, sizeof(bytes));
}

static unsigned configuration_descriptor(const struct usb_hid *hid, uint8_t *out)
{
    const uint8_t bytes[34] = {
        9,
        DESCRIPTOR_CONFIGURATION,
        34,
        0,
        1,
        1,
        0,
        0xa0,
        50, // wakes the host, 100 mA
        9,
        4,
        0,
        0,
        1,
        3,
        hid->kind->subclass,
        hid->kind->protocol,
        0,
        [27] = 7,
        5,
        0x81,
        3,
        REPORT_SIZE,
        0,
        4, // interrupt IN, every millisecond
    };
    memcpy(out, bytes, sizeof(bytes));
    hid_descriptor(hid, out + 18);
    return sizeof(bytes);
}

static int string_descriptor(const struct usb_hid *hid, unsigned index, uint8_t *out)
{
    const char *text = index == 1 ? "Cloche" : index == 2 ? hid->kind->product : NULL;
    if (index == 0) {
        memcpy(out, (const uint8_t[]){4, DESCRIPTOR_STRING, 0x09, 0x04}, 4);
        return 4;
    }
    if (!text)
        return -1;
    unsigned length = strlen(text);
    out[0] = 2 + 2 * length;
    out[1] = DESCRIPTOR_STRING;
    for (unsigned i = 0; i < length; i++)
        store_le(out + 2 + 2 * i, 2, (uint8_t)text[i]);
    return out[0];
}

static int get_descriptor(const struct usb_hid *hid, unsigned type, unsigned index, uint8_t *out)
{
    switch (type) {
    case DESCRIPTOR_DEVICE:
        return device_descriptor(hid, out);
    case DESCRIPTOR_CONFIGURATION:
        return index == 0 ? (int)configuration_descriptor(hid, out) : -1;
    case DESCRIPTOR_STRING:
        return string_descriptor(hid, index, out);
    case DESCRIPTOR_HID:
        hid_descriptor(hid, out);
        return 9;
    case DESCRIPTOR_REPORT:
        memcpy(out, hid->kind->report_descriptor, hid->kind->report_descriptor_length);
        return hid->kind->report_descriptor_length;
    }
    return -1;
}

// ---- Requests ----
static int class_request(struct usb_hid *hid, const uint8_t *setup, uint8_t *data, unsigned length)
{
    switch (setup[1]) {
    case HID_GET_REPORT:
        memcpy(data, hid->current, REPORT_SIZE);
        return hid->kind->report_length;
    case HID_GET_IDLE:
        data[0] = hid->idle;
        return 1;
    case HID_GET_PROTOCOL:
        data[0] = hid->protocol;
        return 1;
    case HID_SET_REPORT:
        if (hid->kind != &keyboard_kind || length < 1)
            return -1;
        // HID: num 1, caps 2, scroll 4; the hub: scroll 1, num 2, caps 4
        hid->leds = (data[0] & 1) << 1 | (data[0] & 2) << 1 | (data[0] & 4) >> 2;
        input_set_leds(hid->device.machine->input, hid->leds);
        return 0;
    case HID_SET_IDLE:
        hid->idle = setup[3];
        return 0;
    case HID_SET_PROTOCOL:
        hid->protocol = setup[2];
        return 0;
    }
    return -1;
}

static int standard_request(struct usb_hid *hid, const uint8_t *setup, uint8_t *data)
{
    switch (setup[1]) {
    case GET_STATUS:
        data[0] = data[1] = 0;
        return 2;
    case GET_DESCRIPTOR:
        return get_descriptor(hid, setup[3], setup[2], data);
    case GET_CONFIGURATION:
        data[0] = hid->configuration;
        return 1;
    case SET_CONFIGURATION:
        if (setup[2] > 1)
            return -1;
        hid->configuration = setup[2];
        return 0;
    case GET_INTERFACE:
        data[0] = 0;
        return 1;
    case CLEAR_FEATURE:
    case SET_FEATURE:
    case SET_ADDRESS:
    case SET_INTERFACE:
        return 0;
    }
    return -1;
}

static int control(struct usb_device *usb, const uint8_t setup[8], uint8_t *data, unsigned length)
{
    struct usb_hid *hid = container_of(usb, struct usb_hid, usb);
    unsigned type = setup[0] >> 5 & 3;
    int result = type == 0   ? standard_request(hid, setup, data)
                 : type == 1 ? class_request(hid, setup, data, length)
                             : -1;
    return setup[0] & 0x80 ? MIN(result, (int)length) : result;
}

static void polled(struct usb_device *usb, bool on)
{
    struct usb_hid *hid = container_of(usb, struct usb_hid, usb);
    if (on == hid->active)
        return;
    hid->active = on;
    hid->first = hid->count = 0;
    hid->dirty = false;
    memset(hid->current, 0, sizeof(hid->current));
    if (on)
        input_activate(hid->device.machine->input, &hid->handler);
    else
        input_deactivate(hid->device.machine->input, &hid->handler);
}

static const struct usb_device_ops hid_ops = {.control = control, .interrupt_in = interrupt_in, .polled = polled};

// ---- Life ----
static bool realize(struct device *device, const struct hid_kind *kind, const struct input_handler *handler,
                    GError **error)
{
    struct usb_hid *hid = container_of(device, struct usb_hid, device);
    struct usb_host *host = usb_host_find(device->machine, device->class->name, error);
    hid->kind = kind;
    hid->usb.ops = &hid_ops;
    hid->protocol = 1;
    if (!host)
        return false;
    if (!host->ops->attach(host, &hid->usb)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "%s: no USB port is free: remove another USB device",
                    device->class->name);
        return false;
    }
    hid->handler = *handler;
    hid->handler.name = kind->product;
    hid->handler.opaque = hid;
    input_add_handler(device->machine->input, &hid->handler);
    return true;
}

static bool keyboard_realize(struct device *device, GError **error)
{
    static const struct input_handler handler = {.keyboard = true, .key = on_key, .key_room = has_room};
    return realize(device, &keyboard_kind, &handler, error);
}

static bool mouse_realize(struct device *device, GError **error)
{
    static const struct input_handler handler = {
        .relative = true, .button = on_button, .move_relative = on_relative, .sync = on_sync};
    return realize(device, &mouse_kind, &handler, error);
}

static bool tablet_realize(struct device *device, GError **error)
{
    static const struct input_handler handler = {
        .absolute = true, .button = on_button, .move_absolute = on_absolute, .sync = on_sync};
    return realize(device, &tablet_kind, &handler, error);
}

static void hid_unrealize(struct device *device)
{
    struct usb_hid *hid = container_of(device, struct usb_hid, device);
    if (!hid->usb.host)
        return;
    input_remove_handler(device->machine->input, &hid->handler);
    hid->usb.host->ops->detach(hid->usb.host, &hid->usb);
}

static void hid_reset(struct device *device)
{
    struct usb_hid *hid = container_of(device, struct usb_hid, device);
    polled(&hid->usb, false);
    hid->configuration = hid->idle = hid->leds = 0;
    hid->protocol = 1;
}

static bool hid_loaded(struct device *device, GError **error)
{
    struct usb_hid *hid = container_of(device, struct usb_hid, device);
    hid->first %= REPORTS_MAX;
    hid->count = MIN(hid->count, REPORTS_MAX);
    if (hid->active)
        input_activate(device->machine->input, &hid->handler);
    return true;
}

static const struct field hid_fields[] = {
    FIELD_U8(struct usb_hid, configuration),
    FIELD_U8(struct usb_hid, idle),
    FIELD_U8(struct usb_hid, protocol),
    FIELD_U8(struct usb_hid, leds),
    FIELD_BYTES(struct usb_hid, current),
    FIELD_BYTES(struct usb_hid, reports),
    FIELD_U32(struct usb_hid, first),
    FIELD_U32(struct usb_hid, count),
    FIELD_BOOL(struct usb_hid, dirty),
    FIELD_BOOL(struct usb_hid, active),
    FIELD_END,
};

const struct device_class usb_keyboard_class = {
    .name = "usb-keyboard",
    .help = "USB keyboard (needs a USB controller: xhci)",
    .size = sizeof(struct usb_hid),
    .realize = keyboard_realize,
    .unrealize = hid_unrealize,
    .reset = hid_reset,
    .fields = hid_fields,
    .version = 1,
    .loaded = hid_loaded,
};

const struct device_class usb_mouse_class = {
    .name = "usb-mouse",
    .help = "USB wheel mouse, relative",
    .size = sizeof(struct usb_hid),
    .realize = mouse_realize,
    .unrealize = hid_unrealize,
    .reset = hid_reset,
    .fields = hid_fields,
    .version = 1,
    .loaded = hid_loaded,
};

const struct device_class usb_tablet_class = {
    .name = "usb-tablet",
    .help = "USB pointer with absolute positions",
    .size = sizeof(struct usb_hid),
    .realize = tablet_realize,
    .unrealize = hid_unrealize,
    .reset = hid_reset,
    .fields = hid_fields,
    .version = 1,
    .loaded = hid_loaded,
};
