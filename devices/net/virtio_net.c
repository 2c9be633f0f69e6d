// SPDX-License-Identifier: GPL-2.0-or-later
// Network card (Virtio 1.2, section 5.1): several queue pairs, mergeable buffers, checksum and TCP segmentation for the
// guest. Frames come on the network's thread and go on the vCPU's, neither with the machine lock.
#include "devices/net/card.h"
#include "devices/net/offload.h"
#include "devices/virtio/virtio_pci.h"

#include <string.h>

#define QUEUE_SIZE    256
#define PAIRS_MAX     8
#define CONTROL_SIZE  64
#define HEADER_SIZE   12
#define LEGACY_HEADER 10
#define VLAN_TAG      4u
#define MERGE_MAX     64  // buffers for one frame
#define LARGE_START   128 // bytes of a large frame in which all its headers' fields lie that are changed

enum feature {
    FEATURE_CSUM = 0,
    FEATURE_GUEST_CSUM = 1,
    FEATURE_MAC = 5,
    FEATURE_GUEST_TSO4 = 7,
    FEATURE_GUEST_TSO6 = 8,
    FEATURE_GUEST_ECN = 9,
    FEATURE_HOST_TSO4 = 11,
    FEATURE_HOST_TSO6 = 12,
    FEATURE_HOST_ECN = 13,
    FEATURE_MRG_RXBUF = 15,
    FEATURE_STATUS = 16,
    FEATURE_CTRL_VQ = 17,
    FEATURE_CTRL_RX = 18,
    FEATURE_MQ = 22,
    FEATURE_CTRL_MAC = 23,
};
enum { HEADER_NEEDS_CSUM = 1, HEADER_DATA_VALID = 2 };
enum { GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4, GSO_ECN = 0x80 };
enum { CONFIG_STATUS = 6, CONFIG_PAIRS = 8, CONFIG_SIZE = 10 };
enum { CLASS_RX = 0, CLASS_MAC = 1, CLASS_ANNOUNCE = 3, CLASS_MQ = 4 };
enum { RX_PROMISCUOUS = 0, RX_ALL_MULTICAST = 1, RX_COMMANDS = 6 };

// Threads: the filter is written under the machine lock and read by the network's thread, byte by byte.
struct virtio_net {
    struct virtio_pci proxy; // first
    struct card card;
    uint64_t queues; // pairs
    uint8_t config[CONFIG_SIZE];
    bool promiscuous, all_multicast;
    uint16_t active_pairs;
    _Atomic bool quiet[PAIRS_MAX]; // the receive queue sends no notifications
};

static struct virtio_net *of(struct virtio_device *device)
{
    return container_of(virtio_pci_of(device), struct virtio_net, proxy);
}

static unsigned header_size(struct virtio_device *device)
{
    return virtio_has(device, VIRTIO_F_VERSION_1 | BIT(FEATURE_MRG_RXBUF)) ? HEADER_SIZE : LEGACY_HEADER;
}

// ---- Frames to the guest ----------------------------------------------------------------------------------------

static bool wanted(struct virtio_net *net, const uint8_t *frame)
{
    if (net->promiscuous || (frame[0] & 1))
        return true;
    return memcmp(frame, net->config, 6) == 0;
}

// The same flow goes to the same queue.
static unsigned choose_pair(struct virtio_net *net, const uint8_t *frame, size_t length)
{
    if (net->active_pairs < 2 || length < 38)
        return 0;
    uint64_t mix = load_le(frame + 26, 8) ^ load_le(frame + 30, 8) * 0x9e3779b97f4a7c15ull;
    return (mix >> 40) % net->active_pairs;
}

// Copies header and frame over the elements and hands them to the guest together.
static void fill_elements(struct virtqueue_element **elements, unsigned count, uint8_t *header, unsigned header_length,
                          const uint8_t *frame, size_t length, const uint8_t *large)
{
    uint64_t written[MERGE_MAX];
    size_t done = 0;
    if (header_length == HEADER_SIZE)
        store_le(header + 10, 2, count);
    for (unsigned i = 0; i < count; i++) {
        struct virtqueue_element *element = elements[i];
        size_t skip = i ? 0 : header_length;
        if (i == 0)
            iov_write(element->in, element->in_count, 0, header, header_length);
        if (i == 0 && large) { // a start of its own, with the sum of the pseudo header
            done = iov_write(element->in, element->in_count, skip, large, LARGE_START);
            skip += done;
        }
        size_t part = iov_write(element->in, element->in_count, skip, frame + done, length - done);
        done += part;
        written[i] = skip + part;
    }
    struct virtqueue *queue = elements[0]->queue;
    virtqueue_push_all(elements, written, count);
    virtqueue_notify(queue);
}

// Takes as many buffers as LENGTH bytes need; 0 when there are not enough.
static unsigned take_elements(struct virtqueue *queue, struct virtqueue_element **elements, unsigned limit,
                              size_t length)
{
    size_t room = 0;
    unsigned count = 0;
    while (room < length && count < limit) {
        elements[count] = virtqueue_pop(queue, sizeof **elements);
        if (!elements[count])
            break;
        room += elements[count++]->in_length;
    }
    if (room >= length)
        return count;
    while (count)
        virtqueue_unpop(elements[--count]);
    return 0;
}

static bool takes_large(void *opaque)
{
    struct virtio_net *net = opaque;
    uint64_t needed = BIT(FEATURE_GUEST_CSUM) | BIT(FEATURE_GUEST_TSO4) | BIT(FEATURE_GUEST_TSO6);
    return (net->proxy.virtio.guest_features & needed) == needed;
}

// A TCP frame that is longer than the wire's: HEADER says how it could be cut, and START, a copy of the frame's start,
// has the sum of the pseudo header in place of the checksum.
static bool describe_large(const uint8_t *frame, size_t length, uint8_t *start, uint8_t *header)
{
    struct large_frame large;
    if (!large_examine(frame, length, &large) || large.checksum + 2 > LARGE_START || length < LARGE_START)
        return false;
    memcpy(start, frame, LARGE_START);
    store_be16(start + large.checksum, large.pseudo_sum);
    header[0] = HEADER_NEEDS_CSUM;
    header[1] = large.ipv6 ? GSO_TCPV6 : GSO_TCPV4;
    store_le(header + 2, 2, large.header);
    store_le(header + 4, 2, NIC_FRAME_WIRE - large.header);
    store_le(header + 6, 2, large.transport);
    store_le(header + 8, 2, large.checksum - large.transport);
    return true;
}

static bool receive(void *opaque, const uint8_t *frame, size_t length)
{
    struct virtio_net *net = opaque;
    struct virtio_device *device = &net->proxy.virtio;
    if (!(device->status & VIRTIO_STATUS_DRIVER_OK) || device->broken || !wanted(net, frame))
        return true; // dropped
    unsigned pair = choose_pair(net, frame, length), header_length = header_size(device);
    struct virtqueue *queue = &device->queues[2 * pair];
    struct virtqueue_element *elements[MERGE_MAX];
    unsigned limit = virtio_has(device, BIT(FEATURE_MRG_RXBUF)) ? MERGE_MAX : 1;
    uint8_t header[HEADER_SIZE] = {0}, start[LARGE_START];
    unsigned count;
    const uint8_t *large = NULL;
    if (length > NIC_FRAME_WIRE + VLAN_TAG && takes_large(net) && describe_large(frame, length, start, header))
        large = start;
    else if (virtio_has(device, BIT(FEATURE_GUEST_CSUM)) && nic_frames_are_whole(net->card.nic))
        header[0] = HEADER_DATA_VALID;
    if (!atomic_exchange(&net->quiet[pair], true))
        virtqueue_set_notification(queue, false);
    while (!(count = take_elements(queue, elements, limit, header_length + length))) {
        // A single buffer that is too small will not grow: the frame is dropped.
        if (limit == 1 && !virtqueue_empty(queue)) {
            struct virtqueue_element *small = virtqueue_pop(queue, sizeof *small);
            bool hopeless = small && small->in_length < header_length + length;
            if (small)
                virtqueue_unpop(small);
            if (hopeless)
                return true;
        }
        net->quiet[pair] = false;
        bool full = limit > 1 && !virtqueue_empty(queue);
        if (!virtqueue_set_notification(queue, true) || full || !queue->enabled)
            return !queue->enabled;
        net->quiet[pair] = true;
        virtqueue_set_notification(queue, false);
    }
    fill_elements(elements, count, header, header_length, frame, length, large);
    return true;
}

static void link_changed(void *opaque, bool up)
{
    struct virtio_net *net = opaque;
    store_le(net->config + CONFIG_STATUS, 2, up);
    virtio_config_changed(&net->proxy.virtio);
}

static const struct nic_client nic_client = {
    .lockless = true,
    .receive = receive,
    .link_changed = link_changed,
    .takes_large = takes_large,
};

// ---- Frames from the guest --------------------------------------------------------------------------------------

static void send_piece(void *opaque, const uint8_t *frame, size_t length)
{
    struct iovec iov = {(void *)frame, length};
    nic_send(opaque, &iov, 1);
}

// A frame whose checksum or segmentation was left to us.
static void send_offloaded(struct virtio_net *net, const uint8_t *header, const struct virtqueue_element *element,
                           size_t skip)
{
    size_t length = element->out_length - skip;
    unsigned gso = header[1] & ~GSO_ECN, mss = load_le(header + 4, 2), start = load_le(header + 6, 2);
    if (length > NIC_FRAME_MAX || length < NIC_HEADER)
        return;
    g_autofree uint8_t *frame = g_malloc(length);
    iov_read(element->out, element->out_count, skip, frame, length);
    if (gso == GSO_NONE) {
        checksum_store(frame, length, start, start + load_le(header + 8, 2));
        send_piece(net->card.nic, frame, length);
        return;
    }
    if ((gso != GSO_TCPV4 && gso != GSO_TCPV6) || start + 20u > length)
        return;
    size_t header_length = start + (frame[start + 12] >> 4) * 4;
    if (nic_takes_large(net->card.nic)) {
        if (finish_large(frame, length))
            send_piece(net->card.nic, frame, length);
    } else {
        segment_tcp(frame, length, header_length, mss, send_piece, net->card.nic);
    }
}

static void send_element(struct virtio_net *net, struct virtqueue_element *element)
{
    unsigned size = header_size(&net->proxy.virtio);
    uint8_t header[HEADER_SIZE];
    if (iov_read(element->out, element->out_count, 0, header, size) != size)
        return;
    if ((header[0] & HEADER_NEEDS_CSUM) || header[1]) {
        send_offloaded(net, header, element, size);
        return;
    }
    unsigned cut = iov_skip(element->out, element->out_count, size);
    nic_send(net->card.nic, element->out + cut, element->out_count - cut);
}

static void send_queue(struct virtio_net *net, struct virtqueue *queue)
{
    do {
        struct virtqueue_element *element;
        virtqueue_set_notification(queue, false);
        while ((element = virtqueue_pop(queue, sizeof *element))) {
            send_element(net, element);
            virtqueue_push(element, 0);
        }
        virtqueue_notify(queue);
    } while (virtqueue_set_notification(queue, true));
    nic_settle(net->card.nic);
}

// ---- The control queue ------------------------------------------------------------------------------------------

static bool control_command(struct virtio_net *net, const uint8_t *bytes, size_t length)
{
    const uint8_t *data = bytes + 2;
    size_t room = length - 2;
    switch (bytes[0]) {
    case CLASS_RX:
        if (!room || bytes[1] >= RX_COMMANDS)
            return false;
        if (bytes[1] == RX_PROMISCUOUS)
            net->promiscuous = data[0];
        if (bytes[1] == RX_ALL_MULTICAST)
            net->all_multicast = data[0];
        return true;
    case CLASS_MAC:
        if (bytes[1] == 0) // the table: all multicast comes anyway, other unicast does not
            return true;
        if (bytes[1] != 1 || room != 6 || (data[0] & 1))
            return false;
        memcpy(net->config, data, 6);
        return true;
    case CLASS_ANNOUNCE:
        return true;
    case CLASS_MQ:
        if (bytes[1] != 0 || room != 2 || !load_le(data, 2) || load_le(data, 2) > net->queues)
            return false;
        net->active_pairs = load_le(data, 2);
        return true;
    }
    return false;
}

static void control_queue(struct virtio_net *net, struct virtqueue *queue)
{
    struct virtqueue_element *element;
    while ((element = virtqueue_pop(queue, sizeof *element))) {
        uint8_t bytes[4096];
        size_t length = iov_read(element->out, element->out_count, 0, bytes, sizeof bytes);
        machine_lock(net->proxy.virtio.machine);
        uint8_t answer = length >= 2 && control_command(net, bytes, length) ? 0 : 1;
        machine_unlock(net->proxy.virtio.machine);
        iov_write(element->in, element->in_count, 0, &answer, 1);
        virtqueue_push(element, 1);
    }
    virtqueue_notify(queue);
}

static void queue_notify(struct virtio_device *device, struct virtqueue *queue)
{
    struct virtio_net *net = of(device);
    unsigned control = virtio_has(device, BIT(FEATURE_MQ)) ? 2 * net->queues : 2;
    if (queue->index == control)
        control_queue(net, queue);
    else if (queue->index & 1)
        send_queue(net, queue);
    else
        nic_resume(net->card.nic);
}

// ---- The device -------------------------------------------------------------------------------------------------

static void set_defaults(struct virtio_net *net)
{
    memcpy(net->config, net->card.nic->mac, 6);
    store_le(net->config + CONFIG_STATUS, 2, net->card.nic->link);
    store_le(net->config + CONFIG_PAIRS, 2, net->queues);
    net->promiscuous = net->all_multicast = false;
    net->active_pairs = 1;
    for (unsigned i = 0; i < PAIRS_MAX; i++)
        net->quiet[i] = false;
}

static void device_reset(struct virtio_device *device)
{
    set_defaults(of(device));
}

static void status_changed(struct virtio_device *device, uint8_t before)
{
    if (device->status & VIRTIO_STATUS_DRIVER_OK)
        nic_resume(of(device)->card.nic);
}

// A legacy driver may write the address; nothing else is writable.
static void config_written(struct virtio_device *device, unsigned offset, unsigned size)
{
    struct virtio_net *net = of(device);
    store_le(net->config + CONFIG_STATUS, 2, net->card.nic->link);
    store_le(net->config + CONFIG_PAIRS, 2, net->queues);
}

static const struct virtio_ops net_ops = {
    .id = VIRTIO_ID_NET,
    .features = BIT(FEATURE_CSUM) | BIT(FEATURE_GUEST_CSUM) | BIT(FEATURE_MAC) | BIT(FEATURE_HOST_TSO4) |
                BIT(FEATURE_HOST_TSO6) | BIT(FEATURE_HOST_ECN) | BIT(FEATURE_MRG_RXBUF) | BIT(FEATURE_STATUS) |
                BIT(FEATURE_CTRL_VQ) | BIT(FEATURE_CTRL_RX) | BIT(FEATURE_CTRL_MAC) | BIT(FEATURE_GUEST_TSO4) |
                BIT(FEATURE_GUEST_TSO6) | BIT(FEATURE_GUEST_ECN),
    .queue_notify = queue_notify,
    .config_written = config_written,
    .status_changed = status_changed,
    .reset = device_reset,
};

static bool virtio_net_realize(struct device *device, GError **error)
{
    struct virtio_net *net = (struct virtio_net *)device;
    struct virtio_device *virtio = &net->proxy.virtio;
    if (!net->queues)
        net->queues = CLAMP(device->machine->cpus ? device->machine->cpus->count : 1, 1, PAIRS_MAX);
    if (!card_open(&net->card, device, error))
        return false;
    virtio_device_init(virtio, device->machine, device->id, &net_ops, net->config, sizeof net->config);
    for (unsigned i = 0; i < 2 * net->queues; i++)
        virtio_add_queue(virtio, i, QUEUE_SIZE);
    virtio_add_queue(virtio, 2 * net->queues, CONTROL_SIZE);
    if (net->queues > 1)
        virtio->host_features |= BIT(FEATURE_MQ);
    set_defaults(net);
    const struct virtio_pci_description description = {
        .class_code = 2,
        .transitional = true,
        .vectors = 2 * net->queues + 2,
        .rom = net->card.no_rom ? NULL : IPXE_ROM("virtio"),
    };
    if (!virtio_pci_realize(&net->proxy, &description, error))
        return false;
    nic_set_client(net->card.nic, &nic_client, net);
    return true;
}

static void virtio_net_unrealize(struct device *device)
{
    struct virtio_net *net = (struct virtio_net *)device;
    card_close(&net->card);
    virtio_pci_unrealize(&net->proxy);
}

static void virtio_net_reset(struct device *device)
{
    struct virtio_net *net = (struct virtio_net *)device;
    virtio_pci_reset(&net->proxy);
}

static bool virtio_net_loaded(struct device *device, GError **error)
{
    struct virtio_net *net = (struct virtio_net *)device;
    net->active_pairs = CLAMP(net->active_pairs, 1, net->queues);
    store_le(net->config + CONFIG_STATUS, 2, net->card.nic->link);
    virtio_pci_loaded(&net->proxy);
    return true;
}

static const struct property virtio_net_properties[] = {
    CARD_PROPERTIES(struct virtio_net, card),
    {"queues", PROPERTY_UINT, offsetof(struct virtio_net, queues), "0", 0, PAIRS_MAX,
     "pairs of queues; 0: one for each processor"},
    PROPERTY_END,
};

static const struct field virtio_net_fields[] = {
    FIELD_STRUCT(struct virtio_net, proxy, virtio_pci_fields),
    FIELD_BYTES(struct virtio_net, config),
    FIELD_BOOL(struct virtio_net, promiscuous),
    FIELD_BOOL(struct virtio_net, all_multicast),
    FIELD_U16(struct virtio_net, active_pairs),
    FIELD_END,
};

const struct device_class virtio_net_class = {
    .name = "virtio-net",
    .help = "virtio network card",
    .size = sizeof(struct virtio_net),
    .properties = virtio_net_properties,
    .realize = virtio_net_realize,
    .unrealize = virtio_net_unrealize,
    .reset = virtio_net_reset,
    .fields = virtio_net_fields,
    .version = 1,
    .loaded = virtio_net_loaded,
};
