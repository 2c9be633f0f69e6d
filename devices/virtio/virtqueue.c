// SPDX-License-Identifier: GPL-2.0-or-later
// Split virtqueues (Virtio 1.2, section 2.7). Whatever the rings hold was written by the guest while we read it: each
// value is read once, checked, and used from our copy.
#include "devices/virtio/virtio.h"

#include "core/machine/machine.h"

#include <string.h>

struct descriptor { // struct virtq_desc
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};
enum { DESCRIPTOR_NEXT = 1, DESCRIPTOR_WRITE = 2, DESCRIPTOR_INDIRECT = 4 };
enum { AVAILABLE_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

#define RING_HEADER     4
#define SPLIT_PAGES_MAX 65536 // pages of buffers that do not lie in one mapping, per chain
#define VECTORS_MAX     (VIRTQUEUE_CHAIN_MAX + 64)

// ---- The rings in memory ----------------------------------------------------------------------------------------

static uint16_t ring_load(const uint8_t *at)
{
    return GUINT16_FROM_LE(atomic_load_explicit((const _Atomic uint16_t *)at, memory_order_acquire));
}

static uint16_t available_flags(struct virtqueue *queue)
{
    return ring_load(queue->available_host);
}

static uint16_t available_index(struct virtqueue *queue)
{
    return ring_load(queue->available_host + 2);
}

static uint16_t available_entry(struct virtqueue *queue, uint16_t index)
{
    return ring_load(queue->available_host + RING_HEADER + 2 * (index & (queue->size - 1)));
}

static uint16_t used_event(struct virtqueue *queue)
{
    return ring_load(queue->available_host + RING_HEADER + 2 * queue->size);
}

// OFFSET is inside the used area; 16-bit values are published with release order.
static void used_store16(struct virtqueue *queue, unsigned offset, uint16_t value)
{
    struct ram *ram = queue->device->machine->ram;
    ram_write_begin(ram, queue->used_ram + offset, 2);
    atomic_store_explicit((_Atomic uint16_t *)(queue->used_host + offset), GUINT16_TO_LE(value), memory_order_release);
    ram_write_end(ram, queue->used_ram + offset, 2);
}

static void used_store_entry(struct virtqueue *queue, uint16_t index, uint32_t id, uint32_t length)
{
    unsigned offset = RING_HEADER + 8 * (index & (queue->size - 1));
    struct ram *ram = queue->device->machine->ram;
    ram_write_begin(ram, queue->used_ram + offset, 8);
    store_le(queue->used_host + offset, 4, id);
    store_le(queue->used_host + offset + 4, 4, length);
    ram_write_end(ram, queue->used_ram + offset, 8);
}

static struct descriptor descriptor_read(const uint8_t *table, unsigned index)
{
    struct descriptor raw;
    memcpy(&raw, table + index * sizeof raw, sizeof raw);
    return (struct descriptor){GUINT64_FROM_LE(raw.address), GUINT32_FROM_LE(raw.length), GUINT16_FROM_LE(raw.flags),
                               GUINT16_FROM_LE(raw.next)};
}

bool virtqueue_enable(struct virtqueue *queue)
{
    struct virtio_device *device = queue->device;
    struct address_space *memory = device->machine->memory;
    unsigned size = queue->size;
    bool sane = size && size <= queue->max_size && !(size & (size - 1)) && queue->descriptors % 16 == 0 &&
                queue->available % 2 == 0 && queue->used % 4 == 0;
    uint8_t *descriptors = NULL, *available = NULL, *used = NULL;
    uint64_t used_ram = 0;
    if (sane) {
        descriptors = address_space_dma(memory, queue->descriptors, 16ull * size, NULL);
        available = address_space_dma(memory, queue->available, RING_HEADER + 2ull * size + 2, NULL);
        used = address_space_dma(memory, queue->used, RING_HEADER + 8ull * size + 2, &used_ram);
    }
    io_lock_take(&queue->lock);
    queue->descriptors_host = descriptors;
    queue->available_host = available;
    queue->used_host = used;
    queue->used_ram = used_ram;
    queue->enabled = descriptors && available && used;
    io_lock_release(&queue->lock);
    if (!queue->enabled)
        virtio_broken(device, "a queue is not in memory, or its size or alignment is wrong");
    return queue->enabled;
}

void virtqueue_reset(struct virtqueue *queue)
{
    io_lock_take(&queue->lock);
    queue->enabled = false;
    queue->size = queue->max_size;
    queue->vector = VIRTIO_NO_VECTOR;
    queue->descriptors = queue->available = queue->used = 0;
    queue->descriptors_host = queue->available_host = queue->used_host = NULL;
    queue->last_available = queue->used_index = queue->signalled_used = 0;
    queue->signalled_valid = false;
    queue->notification = true;
    queue->in_flight = 0;
    queue->generation++;
    io_lock_release(&queue->lock);
}

// ---- Chains to elements -----------------------------------------------------------------------------------------

// The vectors of a chain while it is being read: OUT from the front, IN from the front of its own array.
struct gather {
    struct virtqueue *queue;
    struct iovec out[VECTORS_MAX], in[VECTORS_MAX];
    struct virtqueue_write writes[VECTORS_MAX]; // one for each IN vector
    unsigned out_count, in_count;
    uint64_t out_length, in_length;
    unsigned pages; // that had to be looked up one by one
};

static bool gather_vector(struct gather *gather, bool in, uint8_t *host, uint64_t ram_offset, uint64_t length)
{
    struct iovec *iov = in ? gather->in : gather->out;
    unsigned *count = in ? &gather->in_count : &gather->out_count;
    struct iovec *last = *count ? &iov[*count - 1] : NULL;
    if (in)
        gather->in_length += length;
    else
        gather->out_length += length;
    if (last && (uint8_t *)last->iov_base + last->iov_len == host &&
        (!in || gather->writes[*count - 1].ram_offset + last->iov_len == ram_offset)) {
        last->iov_len += length;
        if (in)
            gather->writes[*count - 1].length += length;
        return true;
    }
    if (*count == VECTORS_MAX)
        return false;
    iov[*count] = (struct iovec){host, length};
    if (in)
        gather->writes[*count] = (struct virtqueue_write){ram_offset, length};
    ++*count;
    return true;
}

// One buffer; where it lies in more than one mapping it is taken page by page.
static bool gather_buffer(struct gather *gather, bool in, uint64_t address, uint64_t length)
{
    struct address_space *memory = gather->queue->device->machine->memory;
    uint64_t ram_offset = 0;
    uint8_t *host = address_space_dma(memory, address, length, &ram_offset);
    if (host)
        return gather_vector(gather, in, host, ram_offset, length);
    while (length) {
        uint64_t piece = MIN(length, PAGE_SIZE - (address & (PAGE_SIZE - 1)));
        if (gather->pages++ == SPLIT_PAGES_MAX)
            return false;
        host = address_space_dma(memory, address, piece, &ram_offset);
        if (!host || !gather_vector(gather, in, host, ram_offset, piece))
            return false;
        address += piece;
        length -= piece;
    }
    return true;
}

// Walks the chain from HEAD. NULL when all is well, else what is wrong with it.
static const char *gather_chain(struct gather *gather, uint16_t head)
{
    struct virtqueue *queue = gather->queue;
    const uint8_t *table = queue->descriptors_host;
    unsigned entries = queue->size, index = head;
    bool indirect = false;

    for (unsigned walked = 0; walked < VIRTQUEUE_CHAIN_MAX; walked++) {
        if (index >= entries)
            return "a descriptor index is out of range";
        struct descriptor descriptor = descriptor_read(table, index);
        if (descriptor.flags & DESCRIPTOR_INDIRECT) {
            if (indirect || !virtio_has(queue->device, VIRTIO_F_INDIRECT_DESC))
                return "an indirect descriptor is not allowed here";
            entries = descriptor.length / sizeof descriptor;
            if (!entries || descriptor.length % sizeof descriptor || entries > VIRTQUEUE_CHAIN_MAX)
                return "an indirect table has an impossible size";
            table = address_space_dma(queue->device->machine->memory, descriptor.address, descriptor.length, NULL);
            if (!table)
                return "an indirect table is not in memory";
            indirect = true;
            index = 0;
            continue;
        }
        bool in = descriptor.flags & DESCRIPTOR_WRITE;
        if (!in && gather->in_count)
            return "a buffer to read follows one to write";
        if (descriptor.length && !gather_buffer(gather, in, descriptor.address, descriptor.length))
            return "a buffer is not in memory";
        if (!(descriptor.flags & DESCRIPTOR_NEXT))
            return NULL;
        index = descriptor.next;
    }
    return "a chain is endless";
}

// SIZE is the block's; the vectors follow it. Queue lock held.
static struct virtqueue_element *element_new(const struct gather *gather, uint16_t head, size_t size)
{
    struct virtqueue *queue = gather->queue;
    size_t vectors = ALIGN_UP(size, sizeof(uint64_t));
    size_t out_bytes = gather->out_count * sizeof(struct iovec), in_bytes = gather->in_count * sizeof(struct iovec);
    size_t write_bytes = gather->in_count * sizeof(struct virtqueue_write);
    uint8_t *block = g_malloc(vectors + out_bytes + in_bytes + write_bytes);
    memset(block, 0, vectors);

    struct virtqueue_element *element = (struct virtqueue_element *)block;
    element->queue = queue;
    element->head = head;
    element->generation = queue->generation;
    element->out = (struct iovec *)(block + vectors);
    element->in = (struct iovec *)(block + vectors + out_bytes);
    element->writes = (struct virtqueue_write *)(block + vectors + out_bytes + in_bytes);
    element->write_count = gather->in_count;
    element->out_count = gather->out_count;
    element->in_count = gather->in_count;
    element->out_length = gather->out_length;
    element->in_length = gather->in_length;
    memcpy(element->out, gather->out, out_bytes);
    memcpy(element->in, gather->in, in_bytes);
    memcpy(element->writes, gather->writes, write_bytes);
    for (unsigned i = 0; i < element->write_count; i++)
        ram_write_begin(queue->device->machine->ram, element->writes[i].ram_offset, element->writes[i].length);
    return element;
}

// Queue lock held.
static struct virtqueue_element *take_chain(struct virtqueue *queue, uint16_t head, size_t size, const char **wrong)
{
    struct gather gather; // 50 KiB: not cleared, only its counters
    gather.queue = queue;
    gather.out_count = gather.in_count = gather.pages = 0;
    gather.out_length = gather.in_length = 0;
    if (queue->in_flight >= queue->size) {
        *wrong = "more chains are in flight than the queue has descriptors";
        return NULL;
    }
    *wrong = gather_chain(&gather, head);
    if (*wrong)
        return NULL;
    queue->in_flight++;
    return element_new(&gather, head, size);
}

void *virtqueue_pop(struct virtqueue *queue, size_t size)
{
    struct virtqueue_element *element = NULL;
    const char *wrong = NULL;

    io_lock_take(&queue->lock);
    if (queue->enabled && !queue->device->broken) {
        uint16_t waiting = available_index(queue) - queue->last_available;
        if (waiting > queue->size) {
            wrong = "the available index ran past the ring";
        } else if (waiting) {
            element = take_chain(queue, available_entry(queue, queue->last_available), size, &wrong);
            if (element)
                queue->last_available++;
            if (element && queue->notification && virtio_has(queue->device, VIRTIO_F_EVENT_IDX))
                used_store16(queue, RING_HEADER + 8 * queue->size, queue->last_available);
        }
    }
    io_lock_release(&queue->lock);
    if (wrong)
        virtio_broken(queue->device, wrong);
    return element;
}

void *virtqueue_pop_head(struct virtqueue *queue, uint16_t head, size_t size)
{
    struct virtqueue_element *element = NULL;
    const char *wrong = NULL;

    io_lock_take(&queue->lock);
    if (queue->enabled && !queue->device->broken)
        element = take_chain(queue, head, size, &wrong);
    io_lock_release(&queue->lock);
    if (wrong)
        virtio_broken(queue->device, wrong);
    return element;
}

// ---- Elements back to the guest ---------------------------------------------------------------------------------

static void element_free(struct virtqueue_element *element)
{
    struct ram *ram = element->queue->device->machine->ram;
    for (unsigned i = 0; i < element->write_count; i++)
        ram_write_end(ram, element->writes[i].ram_offset, element->writes[i].length);
    g_free(element);
}

void virtqueue_push_all(struct virtqueue_element **elements, const uint64_t *written, unsigned count)
{
    struct virtqueue *queue = count ? elements[0]->queue : NULL;
    if (!queue)
        return;
    struct {
        uint16_t head;
        unsigned generation;
    } *ids = g_alloca(count * sizeof *ids);
    // The data is complete, trackers included, before the guest may see the used ring.
    for (unsigned i = 0; i < count; i++) {
        ids[i].head = elements[i]->head;
        ids[i].generation = elements[i]->generation;
        element_free(elements[i]);
    }
    io_lock_take(&queue->lock);
    for (unsigned i = 0; i < count; i++) {
        if (ids[i].generation != queue->generation || !queue->enabled)
            continue;
        used_store_entry(queue, queue->used_index, ids[i].head, MIN(written[i], UINT32_MAX));
        queue->used_index++;
        queue->in_flight--;
        // After a turn of half the index space the remembered position says nothing any more.
        if ((uint16_t)(queue->used_index - queue->signalled_used) >= 0x8000)
            queue->signalled_valid = false;
    }
    if (queue->enabled)
        used_store16(queue, 2, queue->used_index);
    io_lock_release(&queue->lock);
}

void virtqueue_push(struct virtqueue_element *element, uint64_t written)
{
    virtqueue_push_all(&element, &written, 1);
}

void virtqueue_unpop(struct virtqueue_element *element)
{
    struct virtqueue *queue = element->queue;
    io_lock_take(&queue->lock);
    if (element->generation == queue->generation) {
        queue->last_available--;
        queue->in_flight--;
    }
    io_lock_release(&queue->lock);
    element_free(element);
}

void virtqueue_drop(struct virtqueue_element *element)
{
    struct virtqueue *queue = element->queue;
    io_lock_take(&queue->lock);
    if (element->generation == queue->generation)
        queue->in_flight--;
    io_lock_release(&queue->lock);
    element_free(element);
}

// Section 2.7.7.2: EVENT lies in what was used since BEFORE.
static bool passes_event(uint16_t event, uint16_t now, uint16_t before)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

// Queue lock held.
static bool guest_wants_interrupt(struct virtqueue *queue)
{
    struct virtio_device *device = queue->device;
    if (!queue->enabled)
        return false;
    atomic_thread_fence(memory_order_seq_cst); // the used index is out before the guest's wish is read
    if (virtio_has(device, VIRTIO_F_NOTIFY_ON_EMPTY) && !queue->in_flight &&
        available_index(queue) == queue->last_available)
        return true;
    if (!virtio_has(device, VIRTIO_F_EVENT_IDX))
        return !(available_flags(queue) & AVAILABLE_NO_INTERRUPT);
    bool valid = queue->signalled_valid;
    uint16_t before = queue->signalled_used;
    queue->signalled_used = queue->used_index;
    queue->signalled_valid = true;
    return !valid || passes_event(used_event(queue), queue->used_index, before);
}

void virtqueue_notify(struct virtqueue *queue)
{
    io_lock_take(&queue->lock);
    bool wanted = guest_wants_interrupt(queue);
    io_lock_release(&queue->lock);
    if (wanted)
        queue->device->transport->interrupt_queue(queue->device->transport_opaque, queue);
}

bool virtqueue_empty(struct virtqueue *queue)
{
    io_lock_take(&queue->lock);
    bool empty = !queue->enabled || queue->device->broken || available_index(queue) == queue->last_available;
    io_lock_release(&queue->lock);
    return empty;
}

bool virtqueue_set_notification(struct virtqueue *queue, bool on)
{
    bool more = false;
    io_lock_take(&queue->lock);
    if (queue->enabled && !queue->device->broken) {
        queue->notification = on;
        if (virtio_has(queue->device, VIRTIO_F_EVENT_IDX)) {
            if (on)
                used_store16(queue, RING_HEADER + 8 * queue->size, queue->last_available);
        } else {
            used_store16(queue, 0, on ? 0 : USED_NO_NOTIFY);
        }
        atomic_thread_fence(memory_order_seq_cst); // our wish is out before we look again
        more = on && available_index(queue) != queue->last_available;
    }
    io_lock_release(&queue->lock);
    return more;
}

// ---- Vectors ----------------------------------------------------------------------------------------------------

size_t iov_read(const struct iovec *iov, unsigned count, size_t offset, void *data, size_t length)
{
    size_t done = 0;
    for (unsigned i = 0; i < count && done < length; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        size_t piece = MIN(iov[i].iov_len - offset, length - done);
        memcpy((uint8_t *)data + done, (const uint8_t *)iov[i].iov_base + offset, piece);
        done += piece;
        offset = 0;
    }
    return done;
}

size_t iov_write(const struct iovec *iov, unsigned count, size_t offset, const void *data, size_t length)
{
    size_t done = 0;
    for (unsigned i = 0; i < count && done < length; i++) {
        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        size_t piece = MIN(iov[i].iov_len - offset, length - done);
        memcpy((uint8_t *)iov[i].iov_base + offset, (const uint8_t *)data + done, piece);
        done += piece;
        offset = 0;
    }
    return done;
}

unsigned iov_skip(struct iovec *iov, unsigned count, size_t length)
{
    unsigned whole = 0;
    while (whole < count && length >= iov[whole].iov_len) {
        length -= iov[whole].iov_len;
        whole++;
    }
    if (whole < count) {
        iov[whole].iov_base = (uint8_t *)iov[whole].iov_base + length;
        iov[whole].iov_len -= length;
    }
    return whole;
}
