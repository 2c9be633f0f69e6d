// SPDX-License-Identifier: GPL-2.0-or-later
// Keyboard, mouse and tablet as evdev devices (Virtio 1.2, section 5.8). The tablet gives absolute positions, exact to
// the pixel.
//
// Threads: machine lock, from the registers to the queues.
#include "core/screen/input.h"
#include "devices/virtio/virtio_pci.h"

#include <linux/input-event-codes.h>
#include <string.h>

#define QUEUE_SIZE  64
#define EVENT_BYTES 8
#define BATCH_MAX   32 // events up to a SYN_REPORT

enum {
    CONFIG_SELECT,
    CONFIG_SUBSELECT,
    CONFIG_LENGTH,
    CONFIG_DATA = 8,
    CONFIG_DATA_SIZE = 128,
    CONFIG_SIZE = CONFIG_DATA + CONFIG_DATA_SIZE
};
enum {
    SELECT_NAME = 0x01,
    SELECT_SERIAL = 0x02,
    SELECT_IDS = 0x03,
    SELECT_PROPERTIES = 0x10,
    SELECT_EVENTS = 0x11,
    SELECT_ABSOLUTE = 0x12
};
enum { QUEUE_EVENTS, QUEUE_STATUS };

struct event {
    uint16_t type, code;
    int32_t value;
};

struct virtio_input {
    struct virtio_pci proxy; // first
    struct input_handler handler;
    uint8_t config[CONFIG_SIZE];
    struct event batch[BATCH_MAX];
    unsigned count;
    uint8_t leds;
};

// ---- Events to the guest ----
static void add_event(struct virtio_input *input, uint16_t type, uint16_t code, int32_t value)
{
    if (input->count < BATCH_MAX - 1)
        input->batch[input->count++] = (struct event){type, code, value};
}

// A report goes to the guest whole, or not at all where it gave no room for it.
static void send_batch(struct virtio_input *input)
{
    struct virtqueue *queue = &input->proxy.virtio.queues[QUEUE_EVENTS];
    struct virtqueue_element *elements[BATCH_MAX];
    uint64_t written[BATCH_MAX];
    unsigned count = 0;
    if (!input->count)
        return;
    add_event(input, EV_SYN, SYN_REPORT, 0);
    while (count < input->count && (elements[count] = virtqueue_pop(queue, sizeof(struct virtqueue_element)))) {
        const struct event *event = &input->batch[count];
        uint8_t bytes[EVENT_BYTES];
        store_le(bytes, 2, event->type);
        store_le(bytes + 2, 2, event->code);
        store_le(bytes + 4, 4, (uint32_t)event->value);
        written[count] = iov_write(elements[count]->in, elements[count]->in_count, 0, bytes, sizeof(bytes));
        count++;
    }
    if (count < input->count) {
        log_guest("virtio-input", "the guest gave too few buffers: a report was dropped");
        while (count > 0)
            virtqueue_unpop(elements[--count]);
    } else {
        virtqueue_push_all(elements, written, count);
        virtqueue_notify(queue);
    }
    input->count = 0;
}

static void on_key(void *opaque, unsigned code, bool down)
{
    add_event(opaque, EV_KEY, code, down);
    send_batch(opaque);
}

static void on_button(void *opaque, enum input_button button, bool down)
{
    static const uint16_t codes[INPUT_BUTTON_COUNT] = {[INPUT_LEFT] = BTN_LEFT,
                                                       [INPUT_MIDDLE] = BTN_MIDDLE,
                                                       [INPUT_RIGHT] = BTN_RIGHT,
                                                       [INPUT_SIDE] = BTN_SIDE,
                                                       [INPUT_EXTRA] = BTN_EXTRA};
    if (button == INPUT_WHEEL_UP || button == INPUT_WHEEL_DOWN)
        add_event(opaque, EV_REL, REL_WHEEL, button == INPUT_WHEEL_UP ? 1 : -1);
    else if (button == INPUT_WHEEL_LEFT || button == INPUT_WHEEL_RIGHT)
        add_event(opaque, EV_REL, REL_HWHEEL, button == INPUT_WHEEL_RIGHT ? 1 : -1);
    else
        add_event(opaque, EV_KEY, codes[button], down);
}

static void on_relative(void *opaque, int dx, int dy)
{
    if (dx)
        add_event(opaque, EV_REL, REL_X, dx);
    if (dy)
        add_event(opaque, EV_REL, REL_Y, dy);
}

static void on_absolute(void *opaque, unsigned x, unsigned y)
{
    add_event(opaque, EV_ABS, ABS_X, x);
    add_event(opaque, EV_ABS, ABS_Y, y);
}

static void on_sync(void *opaque)
{
    send_batch(opaque);
}

static bool has_room(void *opaque)
{
    struct virtio_input *input = opaque;
    return !virtqueue_empty(&input->proxy.virtio.queues[QUEUE_EVENTS]);
}

// ---- From the guest: LEDs ----
static void take_status(struct virtio_input *input, const uint8_t *event)
{
    static const uint8_t bits[] = {[LED_NUML] = 2, [LED_CAPSL] = 4, [LED_SCROLLL] = 1};
    uint16_t type = load_le(event, 2), code = load_le(event + 2, 2);
    if (type != EV_LED || code >= G_N_ELEMENTS(bits))
        return;
    input->leds = load_le(event + 4, 4) ? input->leds | bits[code] : input->leds & ~bits[code];
    input_set_leds(input->proxy.virtio.machine->input, input->leds);
}

static void queue_notify(struct virtio_device *device, struct virtqueue *queue)
{
    struct virtio_input *input = container_of(virtio_pci_of(device), struct virtio_input, proxy);
    struct virtqueue_element *element;
    if (queue->index != QUEUE_STATUS)
        return;
    while ((element = virtqueue_pop(queue, sizeof(*element)))) {
        uint8_t event[EVENT_BYTES];
        if (iov_read(element->out, element->out_count, 0, event, sizeof(event)) == sizeof(event))
            take_status(input, event);
        virtqueue_push(element, 0);
    }
    virtqueue_notify(queue);
}

// ---- Configuration: what the device has ----
static unsigned set_bit_in(uint8_t *bits, unsigned length, unsigned code)
{
    bits[code / 8] |= 1 << code % 8;
    return MAX(length, code / 8 + 1);
}

static unsigned key_bits(const struct virtio_input *input, uint8_t *data)
{
    unsigned length = 0;
    for (size_t i = 0; input->handler.keyboard && i < keys_count; i++)
        length = set_bit_in(data, length, keys[i].evdev);
    for (unsigned code = BTN_LEFT; !input->handler.keyboard && code <= BTN_EXTRA; code++)
        length = set_bit_in(data, length, code);
    return length;
}

static unsigned event_bits(const struct virtio_input *input, unsigned type, uint8_t *data)
{
    const struct input_handler *handler = &input->handler;
    unsigned length = 0;
    switch (type) {
    case EV_KEY:
        return key_bits(input, data);
    case EV_REL:
        if (handler->relative)
            length = set_bit_in(data, set_bit_in(data, 0, REL_X), REL_Y);
        return handler->keyboard ? 0 : set_bit_in(data, set_bit_in(data, length, REL_WHEEL), REL_HWHEEL);
    case EV_ABS:
        return handler->absolute ? set_bit_in(data, set_bit_in(data, 0, ABS_X), ABS_Y) : 0;
    case EV_LED:
        for (unsigned led = LED_NUML; handler->keyboard && led <= LED_SCROLLL; led++)
            length = set_bit_in(data, length, led);
        return length;
    case EV_REP:
        return handler->keyboard; // the guest repeats keys
    }
    return 0;
}

static void fill_config(struct virtio_input *input)
{
    uint8_t *data = input->config + CONFIG_DATA;
    unsigned subselect = input->config[CONFIG_SUBSELECT], length = 0;
    memset(data, 0, CONFIG_DATA_SIZE);
    switch (input->config[CONFIG_SELECT]) {
    case SELECT_NAME:
        length = strlen(input->handler.name);
        memcpy(data, input->handler.name, length);
        break;
    case SELECT_IDS:
        store_le(data, 2, 0x06); // BUS_VIRTUAL
        store_le(data + 2, 2, VIRTIO_ID_INPUT);
        store_le(data + 4, 2, input->handler.keyboard ? 1 : input->handler.absolute ? 3 : 2);
        store_le(data + 6, 2, 1);
        length = 8;
        break;
    case SELECT_EVENTS:
        length = event_bits(input, subselect, data);
        break;
    case SELECT_ABSOLUTE:
        if (input->handler.absolute && (subselect == ABS_X || subselect == ABS_Y)) {
            store_le(data + 4, 4, 32767);
            length = 20;
        }
        break;
    }
    input->config[CONFIG_LENGTH] = length;
    memset(input->config + 3, 0, CONFIG_DATA - 3);
}

static void config_written(struct virtio_device *device, unsigned offset, unsigned size)
{
    fill_config(container_of(virtio_pci_of(device), struct virtio_input, proxy));
}

// ---- Life ----
static void status_changed(struct virtio_device *device, uint8_t before)
{
    struct virtio_input *input = container_of(virtio_pci_of(device), struct virtio_input, proxy);
    bool ready = device->status & VIRTIO_STATUS_DRIVER_OK;
    if (ready == !!(before & VIRTIO_STATUS_DRIVER_OK))
        return;
    if (ready)
        input_activate(device->machine->input, &input->handler);
    else
        input_deactivate(device->machine->input, &input->handler);
}

static void device_reset(struct virtio_device *device)
{
    struct virtio_input *input = container_of(virtio_pci_of(device), struct virtio_input, proxy);
    input->count = 0;
    input->leds = 0;
    input_deactivate(device->machine->input, &input->handler);
}

static const struct virtio_ops input_ops = {
    .id = VIRTIO_ID_INPUT,
    .queue_notify = queue_notify,
    .notify_locked = true,
    .config_written = config_written,
    .status_changed = status_changed,
    .reset = device_reset,
};

static bool realize(struct device *device, const struct input_handler *handler, uint8_t subclass, GError **error)
{
    struct virtio_input *input = container_of(device, struct virtio_input, proxy.pci.device);
    input->handler = *handler;
    input->handler.opaque = input;
    virtio_device_init(&input->proxy.virtio, device->machine, device->id, &input_ops, input->config, CONFIG_SIZE);
    virtio_add_queue(&input->proxy.virtio, QUEUE_EVENTS, QUEUE_SIZE);
    virtio_add_queue(&input->proxy.virtio, QUEUE_STATUS, QUEUE_SIZE);
    const struct virtio_pci_description description = {.class_code = 9, .subclass = subclass, .vectors = 3};
    if (!virtio_pci_realize(&input->proxy, &description, error))
        return false;
    input_add_handler(device->machine->input, &input->handler);
    return true;
}

static bool keyboard_realize(struct device *device, GError **error)
{
    static const struct input_handler handler = {
        .name = "Cloche Virtio Keyboard", .keyboard = true, .key = on_key, .key_room = has_room};
    return realize(device, &handler, 0, error);
}

static bool mouse_realize(struct device *device, GError **error)
{
    static const struct input_handler handler = {.name = "Cloche Virtio Mouse",
                                                 .relative = true,
                                                 .button = on_button,
                                                 .move_relative = on_relative,
                                                 .sync = on_sync};
    return realize(device, &handler, 2, error);
}

static bool tablet_realize(struct device *device, GError **error)
{
    static const struct input_handler handler = {.name = "Cloche Virtio Tablet",
                                                 .absolute = true,
                                                 .button = on_button,
                                                 .move_absolute = on_absolute,
                                                 .sync = on_sync};
    return realize(device, &handler, 0x80, error);
}

static void virtio_input_unrealize(struct device *device)
{
    struct virtio_input *input = container_of(device, struct virtio_input, proxy.pci.device);
    input_remove_handler(device->machine->input, &input->handler);
    virtio_pci_unrealize(&input->proxy);
}

static void virtio_input_reset(struct device *device)
{
    struct virtio_input *input = container_of(device, struct virtio_input, proxy.pci.device);
    virtio_pci_reset(&input->proxy);
    memset(input->config, 0, sizeof(input->config));
}

static bool virtio_input_loaded(struct device *device, GError **error)
{
    struct virtio_input *input = container_of(device, struct virtio_input, proxy.pci.device);
    virtio_pci_loaded(&input->proxy);
    if (input->proxy.virtio.status & VIRTIO_STATUS_DRIVER_OK)
        input_activate(device->machine->input, &input->handler);
    return true;
}

static const struct field virtio_input_fields[] = {
    FIELD_STRUCT(struct virtio_input, proxy, virtio_pci_fields),
    FIELD_BYTES(struct virtio_input, config),
    FIELD_U8(struct virtio_input, leds),
    FIELD_END,
};

const struct device_class virtio_keyboard_class = {
    .name = "virtio-keyboard",
    .help = "virtio keyboard",
    .size = sizeof(struct virtio_input),
    .realize = keyboard_realize,
    .unrealize = virtio_input_unrealize,
    .reset = virtio_input_reset,
    .fields = virtio_input_fields,
    .version = 1,
    .loaded = virtio_input_loaded,
};

const struct device_class virtio_mouse_class = {
    .name = "virtio-mouse",
    .help = "virtio wheel mouse, relative",
    .size = sizeof(struct virtio_input),
    .realize = mouse_realize,
    .unrealize = virtio_input_unrealize,
    .reset = virtio_input_reset,
    .fields = virtio_input_fields,
    .version = 1,
    .loaded = virtio_input_loaded,
};

const struct device_class virtio_tablet_class = {
    .name = "virtio-tablet",
    .help = "virtio pointer with absolute positions",
    .size = sizeof(struct virtio_input),
    .realize = tablet_realize,
    .unrealize = virtio_input_unrealize,
    .reset = virtio_input_reset,
    .fields = virtio_input_fields,
    .version = 1,
    .loaded = virtio_input_loaded,
};
