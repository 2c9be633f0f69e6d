// SPDX-License-Identifier: GPL-2.0-or-later
// The channel of the desktop agent that stock guests ship (spice-vdagent): a virtio console device (Virtio 1.2, section
// 5.3) with the one named port com.redhat.spice.0, and the monitor's end of the agent's protocol as far as the
// clipboard needs it. (SPICE project, "Agent Protocol", and the headers of spice-protocol: vd_agent.h)
//
// Texts only, UTF-8, both ways or one (property "clipboard"). A text goes when it is asked for: who owns the clipboard
// grabs it, who pastes requests it.
#include "core/screen/clipboard.h"
#include "devices/virtio/virtio_pci.h"

#include <string.h>

#define PORT       1 // port 0 is a console's, which this device has not
#define PORT_NAME  "com.redhat.spice.0"
#define QUEUE_SIZE 64
#define OUT_MAX    (2 * MiB) // bytes that wait for a guest that does not read; more is not sent
#define CHUNK_MAX  2048      // data bytes of one chunk (VD_AGENT_MAX_DATA_SIZE)
#define HEADER     20        // of a message
#define BODY_MAX   (CLIPBOARD_MAX + 64)

enum {
    QUEUE_PORT0_RECEIVE,
    QUEUE_PORT0_TRANSMIT,
    QUEUE_CONTROL_RECEIVE,
    QUEUE_CONTROL_TRANSMIT,
    QUEUE_RECEIVE,
    QUEUE_TRANSMIT,
    QUEUE_COUNT
};
enum { FEATURE_MULTIPORT = 1 };
enum { CONFIG_PORTS = 4, CONFIG_SIZE = 12 };
enum control_event { DEVICE_READY, PORT_ADD, PORT_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAMED };

// vd_agent.h
enum { CLIENT_PORT = 1 };
enum { PROTOCOL = 1 };
enum message_type {
    CLIPBOARD = 4,
    ANNOUNCE_CAPABILITIES = 6,
    CLIPBOARD_GRAB = 7,
    CLIPBOARD_REQUEST = 8,
    CLIPBOARD_RELEASE = 9,
};
enum { CAPABILITY_BY_DEMAND = 5, CAPABILITY_SELECTION = 6 };
enum { TYPE_NONE = 0, TYPE_TEXT = 1 };

// Machine lock.
struct virtio_agent {
    struct virtio_pci proxy; // first
    char *clipboard;         // the property
    uint8_t config[CONFIG_SIZE];
    GByteArray *control; // to the guest: control messages, each after its length
    GByteArray *out;     // to the guest's agent
    GByteArray *in;      // from it: not a whole chunk yet
    GByteArray *body;    // the chunks' data: not a whole message yet
    bool open;           // the agent has the port open
    uint32_t capabilities;
    char *text; // what viewers last offered, or NULL
    bool taken; // this device is the clipboard's guest side
    uint32_t saved_bytes;
    uint8_t *saved; // the four arrays, only while saving and loading
};

static struct virtio_agent *of(struct virtio_device *device)
{
    return container_of(virtio_pci_of(device), struct virtio_agent, proxy);
}

// ---- To the guest -----------------------------------------------------------------------------------------------
static void put32(GByteArray *array, uint32_t value)
{
    uint8_t bytes[4];
    store_le(bytes, 4, value);
    g_byte_array_append(array, bytes, sizeof(bytes));
}

static bool running(struct virtio_agent *agent)
{
    return agent->proxy.virtio.status & VIRTIO_STATUS_DRIVER_OK;
}

// One message each buffer.
static void flush_control(struct virtio_agent *agent)
{
    struct virtqueue *queue = &agent->proxy.virtio.queues[QUEUE_CONTROL_RECEIVE];
    while (running(agent) && agent->control->len) {
        struct virtqueue_element *element = virtqueue_pop(queue, sizeof(*element));
        if (!element)
            break;
        size_t length = agent->control->data[0];
        virtqueue_push(element, iov_write(element->in, element->in_count, 0, agent->control->data + 1, length));
        g_byte_array_remove_range(agent->control, 0, length + 1);
    }
    virtqueue_notify(queue);
}

static void send_control(struct virtio_agent *agent, enum control_event event, unsigned value, const char *name)
{
    uint8_t message[1 + 8 + 32] = {8 + (name ? strlen(name) : 0)};
    store_le(message + 1, 4, PORT);
    store_le(message + 5, 2, event);
    store_le(message + 7, 2, value);
    if (name)
        memcpy(message + 9, name, strlen(name));
    if (agent->control->len < 4096)
        g_byte_array_append(agent->control, message, message[0] + 1);
    flush_control(agent);
}

static void flush_out(struct virtio_agent *agent)
{
    struct virtqueue *queue = &agent->proxy.virtio.queues[QUEUE_RECEIVE];
    size_t done = 0;
    while (running(agent) && agent->open && done < agent->out->len) {
        struct virtqueue_element *element = virtqueue_pop(queue, sizeof(*element));
        if (!element)
            break;
        size_t part = iov_write(element->in, element->in_count, 0, agent->out->data + done, agent->out->len - done);
        virtqueue_push(element, part);
        done += part;
    }
    if (done)
        g_byte_array_remove_range(agent->out, 0, done);
    virtqueue_notify(queue);
}

// A message in chunks. HEAD: what stands before DATA in its body.
static void send_message(struct virtio_agent *agent, enum message_type type, const uint32_t *head, unsigned head_count,
                         const void *data, size_t length)
{
    if (!agent->open || agent->out->len + length > OUT_MAX)
        return;
    g_autoptr(GByteArray) message = g_byte_array_new();
    put32(message, PROTOCOL);
    put32(message, type);
    put32(message, 0); // opaque, 64 bits
    put32(message, 0);
    put32(message, 4 * head_count + length);
    for (unsigned i = 0; i < head_count; i++)
        put32(message, head[i]);
    if (length)
        g_byte_array_append(message, data, length);
    for (size_t at = 0; at < message->len; at += CHUNK_MAX) {
        size_t part = MIN(CHUNK_MAX, message->len - at);
        put32(agent->out, CLIENT_PORT);
        put32(agent->out, part);
        g_byte_array_append(agent->out, message->data + at, part);
    }
    flush_out(agent);
}

// ---- The clipboard ----------------------------------------------------------------------------------------------
static bool has(const struct virtio_agent *agent, unsigned capability)
{
    return agent->capabilities & 1u << capability;
}

// A message about the one selection that viewers have, which agents of old do not name.
static void send_selection(struct virtio_agent *agent, enum message_type type, uint32_t what, const char *text)
{
    const uint32_t head[] = {0, what};
    unsigned skip = has(agent, CAPABILITY_SELECTION) ? 0 : 1;
    send_message(agent, type, head + skip, 2 - skip, text, text ? strlen(text) : 0);
}

static bool is_open(struct virtio_agent *agent, unsigned way)
{
    return clipboard_get_ways(agent->proxy.virtio.machine->clipboard) & way;
}

// A viewer has a new text: the guest is told that there is one.
static void offered(void *opaque, const char *text)
{
    struct virtio_agent *agent = opaque;
    g_free(agent->text);
    agent->text = g_strdup(text);
    if (has(agent, CAPABILITY_BY_DEMAND))
        send_selection(agent, CLIPBOARD_GRAB, TYPE_TEXT, NULL);
}

static void announce(struct virtio_agent *agent, const uint8_t *body, size_t length)
{
    if (length < 8)
        return;
    agent->capabilities = load_le(body + 4, 4);
    const uint32_t ours[] = {0, 1u << CAPABILITY_BY_DEMAND | 1u << CAPABILITY_SELECTION};
    if (load_le(body, 4))
        send_message(agent, ANNOUNCE_CAPABILITIES, ours, 2, NULL, 0);
    if (agent->text && is_open(agent, CLIPBOARD_TO_GUEST) && has(agent, CAPABILITY_BY_DEMAND))
        send_selection(agent, CLIPBOARD_GRAB, TYPE_TEXT, NULL);
}

static void grabbed(struct virtio_agent *agent, const uint8_t *types, size_t length)
{
    for (size_t i = 0; i + 4 <= length; i += 4)
        if (load_le(types + i, 4) == TYPE_TEXT && is_open(agent, CLIPBOARD_FROM_GUEST)) {
            send_selection(agent, CLIPBOARD_REQUEST, TYPE_TEXT, NULL);
            return;
        }
}

static void requested(struct virtio_agent *agent, const uint8_t *body, size_t length)
{
    bool good = length >= 4 && load_le(body, 4) == TYPE_TEXT && agent->text && is_open(agent, CLIPBOARD_TO_GUEST);
    send_selection(agent, CLIPBOARD, good ? TYPE_TEXT : TYPE_NONE, good ? agent->text : NULL);
}

static void received(struct virtio_agent *agent, const uint8_t *body, size_t length)
{
    if (length < 4 || load_le(body, 4) != TYPE_TEXT)
        return;
    g_autofree char *text = g_utf8_make_valid((const char *)body + 4, length - 4);
    clipboard_from_guest(agent->proxy.virtio.machine->clipboard, text);
}

// ---- From the guest ---------------------------------------------------------------------------------------------
static void handle_message(struct virtio_agent *agent, uint32_t type, const uint8_t *body, size_t length)
{
    static const struct {
        uint32_t type;
        void (*handle)(struct virtio_agent *agent, const uint8_t *body, size_t length);
        bool selection; // its body names the selection first
    } messages[] = {{ANNOUNCE_CAPABILITIES, announce, false},
                    {CLIPBOARD_GRAB, grabbed, true},
                    {CLIPBOARD_REQUEST, requested, true},
                    {CLIPBOARD, received, true}};
    for (unsigned i = 0; i < G_N_ELEMENTS(messages); i++) {
        if (messages[i].type != type)
            continue;
        size_t skip = messages[i].selection && has(agent, CAPABILITY_SELECTION) ? 4 : 0;
        if (length < skip || (skip && body[0] != 0)) // PRIMARY and SECONDARY: viewers have nothing like them
            return;
        messages[i].handle(agent, body + skip, length - skip);
    }
}

static bool take_message(struct virtio_agent *agent)
{
    GByteArray *body = agent->body;
    if (body->len < HEADER)
        return false;
    uint32_t length = load_le(body->data + 16, 4);
    if (load_le(body->data, 4) != PROTOCOL || length > BODY_MAX) {
        log_guest("agent", "the agent in the guest sent what is no message, or one of %u bytes", length);
        g_byte_array_set_size(body, 0);
        return false;
    }
    if (body->len - HEADER < length)
        return false;
    handle_message(agent, load_le(body->data + 4, 4), body->data + HEADER, length);
    g_byte_array_remove_range(body, 0, HEADER + length);
    return true;
}

static bool take_chunk(struct virtio_agent *agent)
{
    GByteArray *in = agent->in;
    if (in->len < 8)
        return false;
    uint32_t port = load_le(in->data, 4), length = load_le(in->data + 4, 4);
    if (length > CHUNK_MAX) {
        log_guest("agent", "the agent in the guest sent a chunk of %u bytes", length);
        g_byte_array_set_size(in, 0);
        g_byte_array_set_size(agent->body, 0);
        return false;
    }
    if (in->len - 8 < length)
        return false;
    if (port == CLIENT_PORT)
        g_byte_array_append(agent->body, in->data + 8, length);
    g_byte_array_remove_range(in, 0, 8 + length);
    while (take_message(agent))
        ;
    return true;
}

static void forget_agent(struct virtio_agent *agent)
{
    g_byte_array_set_size(agent->in, 0);
    g_byte_array_set_size(agent->body, 0);
    g_byte_array_set_size(agent->out, 0);
    agent->capabilities = 0;
}

static void set_open(struct virtio_agent *agent, bool open)
{
    if (agent->open == open)
        return;
    forget_agent(agent);
    agent->open = open;
    struct clipboard *clipboard = agent->proxy.virtio.machine->clipboard;
    if (open || agent->taken)
        clipboard_set_guest(clipboard, open ? offered : NULL, agent);
    agent->taken = open;
}

static void control_message(struct virtio_agent *agent, uint32_t port, unsigned event, unsigned value)
{
    if (event == DEVICE_READY && value) {
        send_control(agent, PORT_ADD, 1, NULL);
    } else if (event == PORT_READY && value && port == PORT) {
        send_control(agent, PORT_NAMED, 1, PORT_NAME);
        send_control(agent, PORT_OPEN, 1, NULL);
    } else if (event == PORT_OPEN && port == PORT) {
        set_open(agent, value);
    }
}

static void transmitted(struct virtio_agent *agent, struct virtqueue *queue)
{
    struct virtqueue_element *element;
    while ((element = virtqueue_pop(queue, sizeof(*element)))) {
        uint8_t bytes[8];
        if (queue->index == QUEUE_CONTROL_TRANSMIT) {
            if (iov_read(element->out, element->out_count, 0, bytes, sizeof(bytes)) == sizeof(bytes))
                control_message(agent, load_le(bytes, 4), load_le(bytes + 4, 2), load_le(bytes + 6, 2));
        } else if (queue->index == QUEUE_TRANSMIT && agent->open) {
            size_t before = agent->in->len, length = MIN(element->out_length, 64 * KiB);
            g_byte_array_set_size(agent->in, before + length);
            iov_read(element->out, element->out_count, 0, agent->in->data + before, length);
            while (take_chunk(agent))
                ;
        }
        virtqueue_push(element, 0);
    }
    virtqueue_notify(queue);
}

static void queue_notify(struct virtio_device *device, struct virtqueue *queue)
{
    struct virtio_agent *agent = of(device);
    if (queue->index == QUEUE_CONTROL_RECEIVE)
        flush_control(agent);
    else if (queue->index == QUEUE_RECEIVE)
        flush_out(agent);
    else if (queue->index == QUEUE_TRANSMIT || queue->index == QUEUE_CONTROL_TRANSMIT)
        transmitted(agent, queue);
}

static void set_config(struct virtio_agent *agent)
{
    memset(agent->config, 0, sizeof(agent->config));
    store_le(agent->config + CONFIG_PORTS, 4, PORT + 1);
}

static void config_written(struct virtio_device *device, unsigned offset, unsigned size)
{
    set_config(of(device));
}

static void device_reset(struct virtio_device *device)
{
    struct virtio_agent *agent = of(device);
    set_open(agent, false);
    g_byte_array_set_size(agent->control, 0);
}

static const struct virtio_ops agent_ops = {
    .id = VIRTIO_ID_CONSOLE,
    .features = BIT(FEATURE_MULTIPORT),
    .queue_notify = queue_notify,
    .notify_locked = true,
    .config_written = config_written,
    .reset = device_reset,
};

// ---- The device -------------------------------------------------------------------------------------------------
static bool open_ways(struct virtio_agent *agent, struct machine *machine, GError **error)
{
    int ways = clipboard_parse_ways(agent->clipboard);
    if (ways < 0)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "spice-agent: clipboard=%s is not known: choose both, to-guest, from-guest or off",
                    agent->clipboard);
    else
        clipboard_set_ways(machine->clipboard, ways);
    return ways >= 0;
}

static bool virtio_agent_realize(struct device *device, GError **error)
{
    struct virtio_agent *agent = (struct virtio_agent *)device;
    if (!open_ways(agent, device->machine, error))
        return false;
    agent->control = g_byte_array_new();
    agent->out = g_byte_array_new();
    agent->in = g_byte_array_new();
    agent->body = g_byte_array_new();
    virtio_device_init(&agent->proxy.virtio, device->machine, device->id, &agent_ops, agent->config, CONFIG_SIZE);
    for (unsigned i = 0; i < QUEUE_COUNT; i++)
        virtio_add_queue(&agent->proxy.virtio, i, QUEUE_SIZE);
    set_config(agent);
    const struct virtio_pci_description description = {
        .class_code = 7, .subclass = 0x80, .transitional = true, .vectors = QUEUE_COUNT + 1};
    return virtio_pci_realize(&agent->proxy, &description, error);
}

static void virtio_agent_unrealize(struct device *device)
{
    struct virtio_agent *agent = (struct virtio_agent *)device;
    if (agent->control) {
        set_open(agent, false);
        g_byte_array_unref(agent->control);
        g_byte_array_unref(agent->out);
        g_byte_array_unref(agent->in);
        g_byte_array_unref(agent->body);
    }
    g_free(agent->text);
    g_free(agent->saved);
    virtio_pci_unrealize(&agent->proxy);
}

static void virtio_agent_reset(struct device *device)
{
    virtio_pci_reset(&((struct virtio_agent *)device)->proxy);
}

// ---- Saved state: the four arrays, each after its length; the viewers' text is not the guest's state ----
static void virtio_agent_quiesce(struct device *device)
{
    struct virtio_agent *agent = (struct virtio_agent *)device;
    GByteArray *const arrays[] = {agent->control, agent->out, agent->in, agent->body}, *all = g_byte_array_new();
    for (unsigned i = 0; i < G_N_ELEMENTS(arrays); i++) {
        put32(all, arrays[i]->len);
        g_byte_array_append(all, arrays[i]->data, arrays[i]->len);
    }
    g_free(agent->saved);
    agent->saved_bytes = all->len;
    agent->saved = g_byte_array_free(all, FALSE);
}

static bool load_arrays(struct virtio_agent *agent)
{
    static const uint32_t limits[] = {8192, 2 * OUT_MAX, 128 * KiB, 2 * BODY_MAX};
    GByteArray *const arrays[] = {agent->control, agent->out, agent->in, agent->body};
    size_t at = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(arrays); i++) {
        if (agent->saved_bytes - at < 4)
            return false;
        uint32_t length = load_le(agent->saved + at, 4);
        at += 4;
        if (length > limits[i] || length > agent->saved_bytes - at)
            return false;
        g_byte_array_set_size(arrays[i], 0);
        g_byte_array_append(arrays[i], agent->saved + at, length);
        at += length;
    }
    for (size_t i = 0; i < agent->control->len; i += agent->control->data[i] + 1u)
        if (agent->control->data[i] < 8 || i + agent->control->data[i] >= agent->control->len)
            return false;
    return true;
}

static bool virtio_agent_loaded(struct device *device, GError **error)
{
    struct virtio_agent *agent = (struct virtio_agent *)device;
    virtio_pci_loaded(&agent->proxy);
    if (!load_arrays(agent)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "the saved messages of %s are damaged", device->id);
        return false;
    }
    clipboard_set_guest(device->machine->clipboard, agent->open ? offered : NULL, agent);
    agent->taken = agent->open;
    return true;
}

static const struct property virtio_agent_properties[] = {
    {"clipboard", PROPERTY_STRING, offsetof(struct virtio_agent, clipboard), "both",
     .help = "which way texts go between guest and viewers: both, to-guest, from-guest or off"},
    PROPERTY_END,
};

static const struct field virtio_agent_fields[] = {
    FIELD_STRUCT(struct virtio_agent, proxy, virtio_pci_fields),
    FIELD_BOOL(struct virtio_agent, open),
    FIELD_U32(struct virtio_agent, capabilities),
    FIELD_BUFFER(struct virtio_agent, saved, saved_bytes),
    FIELD_END,
};

const struct device_class virtio_agent_class = {
    .name = "spice-agent",
    .help = "channel of the desktop agent that guests ship (spice-vdagent): the clipboard",
    .size = sizeof(struct virtio_agent),
    .properties = virtio_agent_properties,
    .realize = virtio_agent_realize,
    .unrealize = virtio_agent_unrealize,
    .reset = virtio_agent_reset,
    .quiesce = virtio_agent_quiesce,
    .fields = virtio_agent_fields,
    .version = 1,
    .loaded = virtio_agent_loaded,
};
