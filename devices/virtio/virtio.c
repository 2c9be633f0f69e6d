// SPDX-License-Identifier: GPL-2.0-or-later
// The half of a virtio device that no transport knows about: status, features, configuration, its queues' saved state.
#include "devices/virtio/virtio.h"

#include "core/machine/machine.h"

#define FEATURES_GENERIC                                                                                               \
    (VIRTIO_F_NOTIFY_ON_EMPTY | VIRTIO_F_ANY_LAYOUT | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1)

static void drop_interrupt(void *opaque, struct virtqueue *queue)
{
}

static void drop_config_interrupt(void *opaque)
{
}

static const struct virtio_transport no_transport = {drop_interrupt, drop_config_interrupt};

void virtio_device_init(struct virtio_device *device, struct machine *machine, const char *name,
                        const struct virtio_ops *ops, void *config, unsigned config_size)
{
    device->ops = ops;
    device->transport = &no_transport;
    device->machine = machine;
    device->name = name;
    device->config = config;
    device->config_size = config_size;
    device->host_features = ops->features | FEATURES_GENERIC;
    device->config_vector = VIRTIO_NO_VECTOR;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        device->queues[i].device = device;
        device->queues[i].index = i;
        device->queues[i].vector = VIRTIO_NO_VECTOR;
        g_rec_mutex_init(&device->queues[i].lock);
    }
}

void virtio_device_exit(struct virtio_device *device)
{
    if (!device->ops)
        return;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        g_rec_mutex_clear(&device->queues[i].lock);
    device->ops = NULL;
}

struct virtqueue *virtio_add_queue(struct virtio_device *device, unsigned index, unsigned size)
{
    g_return_val_if_fail(index < VIRTIO_QUEUES_MAX && size && size <= VIRTQUEUE_SIZE_MAX, NULL);
    struct virtqueue *queue = &device->queues[index];
    queue->max_size = queue->size = size;
    queue->notification = true;
    return queue;
}

void virtio_device_reset(struct virtio_device *device)
{
    uint8_t before = device->status;
    device->status = 0;
    if (device->ops->reset)
        device->ops->reset(device);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        virtqueue_reset(&device->queues[i]);
    device->guest_features = 0;
    device->config_vector = VIRTIO_NO_VECTOR;
    device->broken = false;
    if (before && device->ops->status_changed)
        device->ops->status_changed(device, before);
}

void virtio_device_loaded(struct virtio_device *device)
{
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        struct virtqueue *queue = &device->queues[i];
        queue->in_flight = 0;
        if (queue->size > queue->max_size)
            queue->size = queue->max_size;
        if (queue->enabled)
            virtqueue_enable(queue);
    }
}

void virtio_set_features(struct virtio_device *device, uint64_t features)
{
    if (!(device->status & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK)))
        device->guest_features = features & device->host_features;
}

void virtio_set_status(struct virtio_device *device, uint8_t status)
{
    if (status == 0) {
        virtio_device_reset(device);
        return;
    }
    uint8_t before = device->status;
    device->status = status | (before & VIRTIO_STATUS_NEEDS_RESET);
    if (before != device->status && device->ops->status_changed)
        device->ops->status_changed(device, before);
}

void virtio_config_changed(struct virtio_device *device)
{
    device->config_generation++;
    if (device->status & VIRTIO_STATUS_DRIVER_OK)
        device->transport->interrupt_config(device->transport_opaque);
}

void virtio_broken(struct virtio_device *device, const char *what)
{
    if (atomic_exchange(&device->broken, true))
        return;
    log_guest("virtio", "%s: the guest's driver broke the rules (%s); the device waits for a reset", device->name,
              what);
    if (virtio_has(device, VIRTIO_F_VERSION_1)) {
        // Section 2.1.1: the status says so, and the driver is told by a configuration change.
        device->status |= VIRTIO_STATUS_NEEDS_RESET;
        device->transport->interrupt_config(device->transport_opaque);
    }
}

static const struct field virtqueue_fields[] = {
    FIELD_U16(struct virtqueue, size),           FIELD_U16(struct virtqueue, vector),
    FIELD_BOOL(struct virtqueue, enabled),       FIELD_U64(struct virtqueue, descriptors),
    FIELD_U64(struct virtqueue, available),      FIELD_U64(struct virtqueue, used),
    FIELD_U16(struct virtqueue, last_available), FIELD_U16(struct virtqueue, used_index),
    FIELD_U16(struct virtqueue, signalled_used), FIELD_BOOL(struct virtqueue, signalled_valid),
    FIELD_BOOL(struct virtqueue, notification),  FIELD_END,
};

const struct field virtio_device_fields[] = {
    FIELD_U64(struct virtio_device, guest_features),
    FIELD_U8(struct virtio_device, status),
    FIELD_U8(struct virtio_device, config_generation),
    FIELD_U16(struct virtio_device, config_vector),
    FIELD_BOOL(struct virtio_device, broken),
    FIELD_STRUCT_ARRAY(struct virtio_device, queues, virtqueue_fields),
    FIELD_END,
};
