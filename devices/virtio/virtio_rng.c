// SPDX-License-Identifier: GPL-2.0-or-later
// Entropy device (Virtio 1.2, section 5.4) from the host's random source, no faster than it is told to.
#include "devices/virtio/virtio_pci.h"

#include <sys/random.h>

#define QUEUE_SIZE  8
#define REQUEST_MAX (64 * 1024u) // bytes of one answer
#define PERIOD      100000000    // nanoseconds over which the rate is kept

// Machine lock.
struct virtio_rng {
    struct virtio_pci proxy; // first
    uint64_t rate;           // bytes per second
    uint64_t budget;         // bytes left in this period
    struct timer timer;      // the next period, while somebody waits
};

static void fill_random(struct iovec *iov, unsigned count, uint64_t bytes)
{
    for (unsigned i = 0; i < count && bytes; i++) {
        uint8_t *at = iov[i].iov_base;
        size_t left = MIN(iov[i].iov_len, bytes);
        bytes -= left;
        while (left) {
            ssize_t got = getrandom(at, MIN(left, 256), 0);
            if (got <= 0)
                continue; // only a signal can interrupt it
            at += got;
            left -= got;
        }
    }
}

static void serve(struct virtio_rng *rng)
{
    struct virtqueue *queue = &rng->proxy.virtio.queues[0];
    struct virtqueue_element *element;
    while (rng->budget && (element = virtqueue_pop(queue, sizeof *element))) {
        uint64_t bytes = MIN(MIN(element->in_length, REQUEST_MAX), rng->budget);
        fill_random(element->in, element->in_count, bytes);
        rng->budget -= bytes;
        virtqueue_push(element, bytes);
    }
    virtqueue_notify(queue);
    if (!timer_armed(&rng->timer))
        timer_arm(&rng->timer, clock_now(rng->proxy.virtio.machine->clock) + PERIOD);
}

static uint64_t period_budget(const struct virtio_rng *rng)
{
    return MAX(rng->rate * PERIOD / 1000000000, 1);
}

static void next_period(void *opaque)
{
    struct virtio_rng *rng = opaque;
    rng->budget = period_budget(rng);
    if (!virtqueue_empty(&rng->proxy.virtio.queues[0]))
        serve(rng);
}

static void queue_notify(struct virtio_device *device, struct virtqueue *queue)
{
    serve(container_of(virtio_pci_of(device), struct virtio_rng, proxy));
}

static const struct virtio_ops rng_ops = {.id = VIRTIO_ID_RNG, .queue_notify = queue_notify, .notify_locked = true};

static bool virtio_rng_realize(struct device *device, GError **error)
{
    struct virtio_rng *rng = (struct virtio_rng *)device;
    virtio_device_init(&rng->proxy.virtio, device->machine, device->id, &rng_ops, NULL, 0);
    virtio_add_queue(&rng->proxy.virtio, 0, QUEUE_SIZE);
    timer_init(&rng->timer, device->machine->clock, next_period, rng);
    rng->budget = period_budget(rng);
    const struct virtio_pci_description description = {.class_code = 0xff, .transitional = true, .vectors = 2};
    return virtio_pci_realize(&rng->proxy, &description, error);
}

static void virtio_rng_unrealize(struct device *device)
{
    struct virtio_rng *rng = (struct virtio_rng *)device;
    if (rng->timer.clock)
        timer_destroy(&rng->timer);
    virtio_pci_unrealize(&rng->proxy);
}

static void virtio_rng_reset(struct device *device)
{
    struct virtio_rng *rng = (struct virtio_rng *)device;
    timer_cancel(&rng->timer);
    rng->budget = period_budget(rng);
    virtio_pci_reset(&rng->proxy);
}

static bool virtio_rng_loaded(struct device *device, GError **error)
{
    virtio_pci_loaded(&((struct virtio_rng *)device)->proxy);
    return true;
}

static const struct property virtio_rng_properties[] = {
    {"rate", PROPERTY_SIZE, offsetof(struct virtio_rng, rate), "1M", 1, 1024 * MiB, "bytes per second at most"},
    PROPERTY_END,
};

static const struct field virtio_rng_fields[] = {
    FIELD_STRUCT(struct virtio_rng, proxy, virtio_pci_fields),
    FIELD_U64(struct virtio_rng, budget),
    FIELD_TIMER(struct virtio_rng, timer),
    FIELD_END,
};

const struct device_class virtio_rng_class = {
    .name = "virtio-rng",
    .help = "random numbers from the host",
    .size = sizeof(struct virtio_rng),
    .properties = virtio_rng_properties,
    .realize = virtio_rng_realize,
    .unrealize = virtio_rng_unrealize,
    .reset = virtio_rng_reset,
    .fields = virtio_rng_fields,
    .version = 1,
    .loaded = virtio_rng_loaded,
};
