// SPDX-License-Identifier: GPL-2.0-or-later
// Console (Virtio 1.2, section 5.3) with one port: a serial line without a baud rate, hvc0 in Linux. More ports are
// more such devices.
#include "devices/char/backend.h"
#include "devices/virtio/virtio_pci.h"

#include <string.h>

#define QUEUE_SIZE 128
#define CHUNK      4096u // bytes that go to the back end at once

enum { QUEUE_RECEIVE = 0, QUEUE_TRANSMIT = 1 };
enum { FEATURE_EMERGENCY_WRITE = 2 };
enum { CONFIG_EMERGENCY = 8, CONFIG_SIZE = 12 };

// Machine lock.
struct virtio_console {
    struct virtio_pci proxy; // first
    char *target;
    struct char_backend *backend;
    uint8_t config[CONFIG_SIZE];
    struct virtqueue_element *sending; // its bytes from SENT on wait for the back end
    uint64_t sent;
    uint32_t waiting_head; // SENDING's head + 1 in a saved state, 0: none
};

static struct virtio_console *of(struct virtio_device *device)
{
    return container_of(virtio_pci_of(device), struct virtio_console, proxy);
}

// ---- To the guest -----------------------------------------------------------------------------------------------

static unsigned can_receive(void *opaque)
{
    struct virtio_console *console = opaque;
    struct virtio_device *device = &console->proxy.virtio;
    if (!(device->status & VIRTIO_STATUS_DRIVER_OK) || virtqueue_empty(&device->queues[QUEUE_RECEIVE]))
        return 0;
    struct virtqueue_element *element = virtqueue_pop(&device->queues[QUEUE_RECEIVE], sizeof *element);
    unsigned room = element ? MIN(element->in_length, CHUNK) : 0;
    if (element)
        virtqueue_unpop(element);
    return room;
}

static void receive(void *opaque, const uint8_t *data, unsigned length)
{
    struct virtio_console *console = opaque;
    struct virtqueue *queue = &console->proxy.virtio.queues[QUEUE_RECEIVE];
    while (length) {
        struct virtqueue_element *element = virtqueue_pop(queue, sizeof *element);
        if (!element)
            return;
        size_t part = iov_write(element->in, element->in_count, 0, data, length);
        virtqueue_push(element, part);
        data += part;
        length -= part;
    }
    virtqueue_notify(queue);
}

// ---- From the guest ---------------------------------------------------------------------------------------------

// Writes as long as the back end takes it. Nothing is lost: what does not go waits, and the guest with it.
static void transmit(struct virtio_console *console)
{
    struct virtqueue *queue = &console->proxy.virtio.queues[QUEUE_TRANSMIT];
    uint8_t bytes[CHUNK];
    for (;;) {
        struct virtqueue_element *element = console->sending;
        if (!element) {
            console->sending = element = virtqueue_pop(queue, sizeof *element);
            console->sent = 0;
        }
        if (!element)
            break;
        while (console->sent < element->out_length && !char_backend_busy(console->backend)) {
            size_t part = iov_read(element->out, element->out_count, console->sent, bytes, sizeof bytes);
            char_backend_write(console->backend, bytes, part);
            console->sent += part;
        }
        if (console->sent < element->out_length)
            break;
        console->sending = NULL;
        virtqueue_push(element, 0);
    }
    virtqueue_notify(queue);
}

static void drained(void *opaque)
{
    transmit(opaque);
}

static const struct char_frontend frontend = {.can_receive = can_receive, .receive = receive, .drained = drained};

static void queue_notify(struct virtio_device *device, struct virtqueue *queue)
{
    if (queue->index == QUEUE_TRANSMIT)
        transmit(of(device));
    else
        char_backend_accept_input(of(device)->backend);
}

static void config_written(struct virtio_device *device, unsigned offset, unsigned size)
{
    struct virtio_console *console = of(device);
    if (offset == CONFIG_EMERGENCY)
        char_backend_write(console->backend, console->config + CONFIG_EMERGENCY, 1);
    memset(console->config, 0, sizeof console->config);
}

static void device_reset(struct virtio_device *device)
{
    struct virtio_console *console = of(device);
    if (console->sending)
        virtqueue_drop(console->sending);
    console->sending = NULL;
}

static const struct virtio_ops console_ops = {
    .id = VIRTIO_ID_CONSOLE,
    .features = BIT(FEATURE_EMERGENCY_WRITE),
    .queue_notify = queue_notify,
    .notify_locked = true,
    .config_written = config_written,
    .reset = device_reset,
};

// ---- The device -------------------------------------------------------------------------------------------------

static bool virtio_console_realize(struct device *device, GError **error)
{
    struct virtio_console *console = (struct virtio_console *)device;
    console->backend = char_backend_open(console->target, device->machine->context, &device->machine->lock, error);
    if (!console->backend)
        return false;
    if (char_backend_address(console->backend))
        log_info("serial", "%s is %s", device->id, char_backend_address(console->backend));
    virtio_device_init(&console->proxy.virtio, device->machine, device->id, &console_ops, console->config,
                       sizeof console->config);
    virtio_add_queue(&console->proxy.virtio, QUEUE_RECEIVE, QUEUE_SIZE);
    virtio_add_queue(&console->proxy.virtio, QUEUE_TRANSMIT, QUEUE_SIZE);
    const struct virtio_pci_description description = {
        .class_code = 7, .subclass = 0x80, .transitional = true, .vectors = 3};
    if (!virtio_pci_realize(&console->proxy, &description, error))
        return false;
    char_backend_attach(console->backend, &frontend, console);
    return true;
}

static void virtio_console_unrealize(struct device *device)
{
    struct virtio_console *console = (struct virtio_console *)device;
    if (console->sending)
        virtqueue_drop(console->sending);
    if (console->backend)
        char_backend_free(console->backend);
    virtio_pci_unrealize(&console->proxy);
}

static void virtio_console_reset(struct device *device)
{
    virtio_pci_reset(&((struct virtio_console *)device)->proxy);
}

static void virtio_console_quiesce(struct device *device)
{
    struct virtio_console *console = (struct virtio_console *)device;
    console->waiting_head = console->sending ? console->sending->head + 1u : 0;
}

static bool virtio_console_loaded(struct device *device, GError **error)
{
    struct virtio_console *console = (struct virtio_console *)device;
    virtio_pci_loaded(&console->proxy);
    if (console->waiting_head)
        console->sending = virtqueue_pop_head(&console->proxy.virtio.queues[QUEUE_TRANSMIT], console->waiting_head - 1,
                                              sizeof *console->sending);
    return true;
}

static const struct property virtio_console_properties[] = {
    {"target", PROPERTY_STRING, offsetof(struct virtio_console, target), "null",
     .help = "where it leads, as for --serial: file:PATH, socket:PATH, pty, ..."},
    {"backend", PROPERTY_POINTER, offsetof(struct virtio_console, backend), NULL, .help = NULL}, // made from it
    PROPERTY_END,
};

static const struct field virtio_console_fields[] = {
    FIELD_STRUCT(struct virtio_console, proxy, virtio_pci_fields),
    FIELD_U32(struct virtio_console, waiting_head),
    FIELD_U64(struct virtio_console, sent),
    FIELD_END,
};

const struct device_class virtio_console_class = {
    .name = "virtio-console",
    .help = "virtio console: a fast serial line",
    .size = sizeof(struct virtio_console),
    .properties = virtio_console_properties,
    .realize = virtio_console_realize,
    .unrealize = virtio_console_unrealize,
    .reset = virtio_console_reset,
    .quiesce = virtio_console_quiesce,
    .fields = virtio_console_fields,
    .version = 1,
    .loaded = virtio_console_loaded,
};
