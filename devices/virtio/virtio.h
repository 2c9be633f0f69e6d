// SPDX-License-Identifier: GPL-2.0-or-later
// Virtio 1.x: split virtqueues and the half of a virtio device that no transport knows about (Virtual I/O Device
// specification 1.2, sections 2 and 6). A device file fills in a struct virtio_ops, embeds a struct virtio_pci
// (devices/virtio/virtio_pci.h) and works with elements: pop, use its vectors, push, notify.
#ifndef CLOCHE_VIRTIO_H
#define CLOCHE_VIRTIO_H

#include "core/machine/device.h"
#include <sys/uio.h>

#define VIRTIO_QUEUES_MAX   36   // 16 pairs of a network card, its control queue, and spare ones
#define VIRTQUEUE_SIZE_MAX  1024 // descriptors of a ring
#define VIRTQUEUE_CHAIN_MAX 1024 // descriptors of one chain, indirect ones included
#define VIRTIO_NO_VECTOR    0xffff

enum virtio_id {
    VIRTIO_ID_NET = 1,
    VIRTIO_ID_BLOCK = 2,
    VIRTIO_ID_CONSOLE = 3,
    VIRTIO_ID_RNG = 4,
    VIRTIO_ID_BALLOON = 5,
    VIRTIO_ID_9P = 9,
    VIRTIO_ID_GPU = 16,
    VIRTIO_ID_INPUT = 18,
};

enum virtio_status { // section 2.1
    VIRTIO_STATUS_ACKNOWLEDGE = 1,
    VIRTIO_STATUS_DRIVER = 2,
    VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8,
    VIRTIO_STATUS_NEEDS_RESET = 64,
    VIRTIO_STATUS_FAILED = 128,
};

// Feature bits of section 6; the generic half offers them by itself.
#define VIRTIO_F_NOTIFY_ON_EMPTY BIT(24) // legacy only
#define VIRTIO_F_ANY_LAYOUT      BIT(27) // legacy only
#define VIRTIO_F_INDIRECT_DESC   BIT(28)
#define VIRTIO_F_EVENT_IDX       BIT(29)
#define VIRTIO_F_VERSION_1       BIT(32)

struct virtio_device;
struct virtqueue;

struct virtqueue_write {
    uint64_t ram_offset, length;
};

// One chain of buffers that the guest gave us. OUT is what the device reads, IN what it writes; both point straight into
// guest RAM and stay valid until the element is pushed or dropped. Owned by whoever popped it, who may cut the vectors.
struct virtqueue_element {
    struct virtqueue *queue;
    struct iovec *out, *in;
    unsigned out_count, in_count;
    uint64_t out_length, in_length; // sums of the vectors
    // The queue's own:
    struct virtqueue_write *writes; // what the IN vectors cover, as popped
    unsigned write_count;
    uint16_t head;
    unsigned generation;
};

// Threads: everything below LOCK under LOCK; SIZE and the addresses change only while the queue is not enabled, with
// the machine lock held. Pop, push and notify take LOCK themselves, so that they may be called from any thread.
struct virtqueue {
    struct virtio_device *device;
    unsigned index;
    uint16_t max_size; // 0: there is no such queue
    uint16_t size;
    uint16_t vector;
    bool enabled;
    uint64_t descriptors, available, used; // guest-physical addresses of the three areas

    GRecMutex lock;          // taken by io_lock_take(): a vCPU that waits for it does not hold up the others
    uint16_t last_available; // next entry of the available ring to take
    uint16_t used_index;     // next entry of the used ring to fill
    uint16_t signalled_used; // used_index at the last interrupt decision
    bool signalled_valid;
    bool notification;   // we want to be told of new buffers
    unsigned in_flight;  // popped and not pushed yet
    unsigned generation; // counts resets: elements of an earlier one are dropped

    uint8_t *descriptors_host, *available_host, *used_host; // NULL: not resolved
    uint64_t used_ram;
};

// What a kind of virtio device is.
struct virtio_ops {
    uint16_t id;       // enum virtio_id
    uint64_t features; // device-specific ones, always offered
    // A queue has new buffers. Called on the vCPU's thread with no lock held, or with the machine lock where
    // notify_locked is set; possibly on several threads at once.
    void (*queue_notify)(struct virtio_device *device, struct virtqueue *queue);
    bool notify_locked;
    // The rest is called with the machine lock held; any may be NULL.
    void (*config_written)(struct virtio_device *device, unsigned offset, unsigned size); // CONFIG has the new bytes
    void (*config_read)(struct virtio_device *device); // about to be read: bring CONFIG up to date
    void (*status_changed)(struct virtio_device *device, uint8_t before);
    void (*reset)(struct virtio_device *device); // give up or finish every element in flight before returning
};

// How interrupts reach the guest; the transport's. Any thread, no queue lock held.
struct virtio_transport {
    void (*interrupt_queue)(void *opaque, struct virtqueue *queue);
    void (*interrupt_config)(void *opaque);
};

// Threads: machine lock, except guest_features, broken and the queues' insides, which queue threads read.
struct virtio_device {
    const struct virtio_ops *ops;
    const struct virtio_transport *transport;
    void *transport_opaque;
    struct machine *machine;
    const char *name; // for log messages
    uint8_t *config;  // device-specific configuration, little-endian; the device's
    unsigned config_size;
    uint64_t host_features;
    uint64_t guest_features;
    uint8_t status;
    uint8_t config_generation;
    uint16_t config_vector;
    _Atomic bool broken; // the driver broke the rules: nothing is taken until a reset
    struct virtqueue queues[VIRTIO_QUEUES_MAX];
};

// NAME must outlive the device. CONFIG_SIZE may be 0.
void virtio_device_init(struct virtio_device *device, struct machine *machine, const char *name,
                        const struct virtio_ops *ops, void *config, unsigned config_size);
void virtio_device_exit(struct virtio_device *device);
// Adds queue number INDEX with up to SIZE (a power of two) descriptors. Before the device is on its transport.
struct virtqueue *virtio_add_queue(struct virtio_device *device, unsigned index, unsigned size);
void virtio_device_reset(struct virtio_device *device);  // machine lock held
void virtio_device_loaded(struct virtio_device *device); // after the fields were read: finds the rings again
void virtio_set_status(struct virtio_device *device, uint8_t status);
void virtio_set_features(struct virtio_device *device, uint64_t features);
// CONFIG changed: bumps the generation and interrupts the guest. Machine lock held.
void virtio_config_changed(struct virtio_device *device);
// The driver broke a rule: logs FORMAT once per kind of offence, stops taking buffers, and asks for a reset.
void virtio_broken(struct virtio_device *device, const char *what);
static inline bool virtio_has(const struct virtio_device *device, uint64_t feature)
{
    return device->guest_features & feature;
}

// Sets SIZE and the three addresses and finds them in RAM. False, and the device is broken, when they are not there or
// are badly aligned.
bool virtqueue_enable(struct virtqueue *queue);
void virtqueue_reset(struct virtqueue *queue);

// Takes the next chain as an element at the start of a zeroed block of SIZE bytes (at least sizeof(struct
// virtqueue_element)), or NULL when there is none or the device is broken.
void *virtqueue_pop(struct virtqueue *queue, size_t size);
// Takes the chain at HEAD again: for elements that were in flight in a saved state.
void *virtqueue_pop_head(struct virtqueue *queue, uint16_t head, size_t size);
// Hands an element back with WRITTEN bytes in its IN vectors, and frees its block. Elements of a queue that was reset
// meanwhile are only freed.
void virtqueue_push(struct virtqueue_element *element, uint64_t written);
// The same for several of one queue at once: the guest sees all or none of them.
void virtqueue_push_all(struct virtqueue_element **elements, const uint64_t *written, unsigned count);
// Puts back what was popped last, and frees it.
void virtqueue_unpop(struct virtqueue_element *element);
// Frees an element without an answer (the queue is being reset).
void virtqueue_drop(struct virtqueue_element *element);
// Interrupts the guest if it wants to know of what was pushed.
void virtqueue_notify(struct virtqueue *queue);
bool virtqueue_empty(struct virtqueue *queue);
// Asks the guest to tell us of new buffers, or not to. Switching it on returns true when there are new ones already.
bool virtqueue_set_notification(struct virtqueue *queue, bool on);

// Copies between vectors and flat memory from OFFSET on; returns the bytes copied, fewer at the end of the vectors.
size_t iov_read(const struct iovec *iov, unsigned count, size_t offset, void *data, size_t length);
size_t iov_write(const struct iovec *iov, unsigned count, size_t offset, const void *data, size_t length);
// Cuts LENGTH bytes off the front (the vectors are changed): returns the number of vectors cut off whole.
unsigned iov_skip(struct iovec *iov, unsigned count, size_t length);

extern const struct field virtio_device_fields[];

#endif
