// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/virtio/virtio_pci.h"

#include <string.h>

#define VIRTIO_PCI_VENDOR 0x1af4

enum { BAR_LEGACY = 0, BAR_MSIX = 1, BAR_MODERN = 4 };

// Where the structures lie in the modern BAR.
enum {
    COMMON_OFFSET = 0x0000,
    COMMON_SIZE = 0x38,
    ISR_OFFSET = 0x1000,
    ISR_SIZE = 4,
    DEVICE_OFFSET = 0x2000,
    NOTIFY_OFFSET = 0x3000,
    AREA_SIZE = 0x1000,
    MODERN_SIZE = 0x4000,
    NOTIFY_MULTIPLIER = 4,
    LEGACY_HEADER = 20, // 24 with MSI-X; the device's configuration follows
    LEGACY_HEADER_MSIX = 24,
};

enum interrupt_bit { INTERRUPT_QUEUE = 1, INTERRUPT_CONFIG = 2 };

TRACE_POINT(virtio_status);

// ---- Interrupts -------------------------------------------------------------------------------------------------

static void update_intx(void *opaque)
{
    struct virtio_pci *proxy = opaque;
    proxy->intx_pending = false;
    pci_set_intx(&proxy->pci, proxy->interrupt_status != 0 && !pci_msix_enabled(&proxy->pci));
}

// Completions come from disk threads, which may not wait for the machine lock; INTx is brought up to date soon after.
static void raise_intx(struct virtio_pci *proxy, uint8_t bits)
{
    atomic_fetch_or(&proxy->interrupt_status, bits);
    if (!atomic_exchange(&proxy->intx_pending, true))
        machine_defer(proxy->pci.device.machine, update_intx, proxy);
}

static void interrupt_queue(void *opaque, struct virtqueue *queue)
{
    struct virtio_pci *proxy = opaque;
    if (!pci_msix_enabled(&proxy->pci))
        raise_intx(proxy, INTERRUPT_QUEUE);
    else if (queue->vector != VIRTIO_NO_VECTOR)
        pci_notify_msix(&proxy->pci, queue->vector);
}

static void interrupt_config(void *opaque)
{
    struct virtio_pci *proxy = opaque;
    if (!pci_msix_enabled(&proxy->pci))
        raise_intx(proxy, INTERRUPT_CONFIG);
    else if (proxy->virtio.config_vector != VIRTIO_NO_VECTOR)
        pci_notify_msix(&proxy->pci, proxy->virtio.config_vector);
}

static const struct virtio_transport pci_transport = {interrupt_queue, interrupt_config};

// Reading the register clears it and lowers the line. Machine lock held.
static uint8_t take_interrupt_status(struct virtio_pci *proxy)
{
    uint8_t status = atomic_exchange(&proxy->interrupt_status, 0);
    pci_set_intx(&proxy->pci, false);
    return status;
}

static uint16_t checked_vector(struct virtio_pci *proxy, uint16_t vector)
{
    return proxy->pci.msix_cap && vector < proxy->vectors ? vector : VIRTIO_NO_VECTOR;
}

// ---- Common configuration structure (4.1.4.3) -------------------------------------------------------------------

static struct virtqueue *selected_queue(struct virtio_pci *proxy)
{
    if (proxy->queue_select >= VIRTIO_QUEUES_MAX || !proxy->virtio.queues[proxy->queue_select].max_size)
        return NULL;
    return &proxy->virtio.queues[proxy->queue_select];
}

static unsigned queue_count(const struct virtio_device *device)
{
    unsigned count = 0;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        count = device->queues[i].max_size ? i + 1 : count;
    return count;
}

static uint32_t feature_word(uint64_t features, uint32_t select)
{
    return select < 2 ? features >> (32 * select) : 0;
}

static void set_feature_word(struct virtio_pci *proxy, uint32_t value)
{
    unsigned shift = 32 * proxy->driver_feature_select;
    if (proxy->driver_feature_select >= 2)
        return;
    proxy->driver_features = (proxy->driver_features & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
    virtio_set_features(&proxy->virtio, proxy->driver_features);
}

static void set_status(struct virtio_pci *proxy, uint8_t status, bool modern)
{
    struct virtio_device *device = &proxy->virtio;
    TRACE(virtio_status, "%s status 0x%02x -> 0x%02x", device->name, device->status, status);
    // A modern driver that does not accept VERSION_1, or what we do not offer, must not see FEATURES_OK (3.1.1).
    bool acceptable = virtio_has(device, VIRTIO_F_VERSION_1) && !(proxy->driver_features & ~device->host_features);
    if (modern && !acceptable)
        status &= ~VIRTIO_STATUS_FEATURES_OK;
    virtio_set_status(device, status);
    if (status == 0) {
        proxy->driver_features = 0;
        proxy->interrupt_status = 0;
        pci_set_intx(&proxy->pci, false);
    }
}

// The 64-bit queue addresses are written as two halves.
static void set_half(uint64_t *address, bool high, uint32_t value)
{
    unsigned shift = high ? 32 : 0;
    *address = (*address & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

static uint64_t *queue_address(struct virtqueue *queue, unsigned offset)
{
    switch (offset & ~7u) {
    case 0x20:
        return &queue->descriptors;
    case 0x28:
        return &queue->available;
    default:
        return &queue->used;
    }
}

static uint64_t common_read_queue(struct virtqueue *queue, unsigned offset)
{
    if (!queue)
        return 0;
    switch (offset) {
    case 0x18:
        return queue->size;
    case 0x1a:
        return queue->vector;
    case 0x1c:
        return queue->enabled;
    case 0x1e:
        return queue->index; // queue_notify_off
    }
    return offset >= 0x20 && offset < 0x38 ? *queue_address(queue, offset) >> (offset & 4 ? 32 : 0) : 0;
}

static uint64_t common_read(struct virtio_pci *proxy, unsigned offset, unsigned size)
{
    struct virtio_device *device = &proxy->virtio;
    switch (offset) {
    case 0x00:
        return proxy->feature_select;
    case 0x04:
        // Bits that mean something to legacy drivers only are not shown here.
        return feature_word(device->host_features & ~(VIRTIO_F_NOTIFY_ON_EMPTY | VIRTIO_F_ANY_LAYOUT),
                            proxy->feature_select);
    case 0x08:
        return proxy->driver_feature_select;
    case 0x0c:
        return feature_word(proxy->driver_features, proxy->driver_feature_select);
    case 0x10:
        return device->config_vector;
    case 0x12:
        return queue_count(device);
    case 0x14:
        return device->status;
    case 0x15:
        return device->config_generation;
    case 0x16:
        return proxy->queue_select;
    }
    uint64_t value = common_read_queue(selected_queue(proxy), offset & ~1u);
    return size < 8 ? value & (BIT(8 * size) - 1) : value;
}

static void common_write_queue(struct virtio_pci *proxy, struct virtqueue *queue, unsigned offset, uint64_t value,
                               unsigned size)
{
    if (!queue)
        return;
    if (offset == 0x1a) {
        queue->vector = checked_vector(proxy, value);
    } else if (queue->enabled) {
        log_guest("virtio", "%s: queue %u is changed while it is enabled; ignored", proxy->virtio.name, queue->index);
    } else if (offset == 0x18) {
        bool power = value && !(value & (value - 1));
        queue->size = power && value <= queue->max_size ? value : queue->size;
    } else if (offset == 0x1c && value == 1) {
        virtqueue_enable(queue);
    } else if (offset >= 0x20 && offset < 0x38 && offset % 4 == 0) {
        set_half(queue_address(queue, offset), offset & 4, value);
    }
}

static void common_write(struct virtio_pci *proxy, unsigned offset, uint64_t value, unsigned size)
{
    switch (offset) {
    case 0x00:
        proxy->feature_select = value;
        return;
    case 0x08:
        proxy->driver_feature_select = value;
        return;
    case 0x0c:
        set_feature_word(proxy, value);
        return;
    case 0x10:
        proxy->virtio.config_vector = checked_vector(proxy, value);
        return;
    case 0x14:
        set_status(proxy, value, true);
        return;
    case 0x16:
        proxy->queue_select = value & 0xffff;
        return;
    }
    common_write_queue(proxy, selected_queue(proxy), offset, value, size);
}

// ---- Device configuration ---------------------------------------------------------------------------------------

static uint64_t config_read(struct virtio_device *device, unsigned offset, unsigned size)
{
    if (offset >= device->config_size || size > device->config_size - offset)
        return 0;
    if (device->ops->config_read)
        device->ops->config_read(device);
    return load_le(device->config + offset, size);
}

static void config_write(struct virtio_device *device, unsigned offset, uint64_t value, unsigned size)
{
    if (offset >= device->config_size || size > device->config_size - offset || !device->ops->config_written)
        return;
    store_le(device->config + offset, size, value);
    device->ops->config_written(device, offset, size);
}

// ---- Notifications: the fast path, without the machine lock -----------------------------------------------------

static void notify(struct virtio_pci *proxy, unsigned index)
{
    struct virtio_device *device = &proxy->virtio;
    if (index >= VIRTIO_QUEUES_MAX || !device->queues[index].enabled || device->broken)
        return;
    if (device->ops->notify_locked)
        machine_lock(device->machine);
    device->ops->queue_notify(device, &device->queues[index]);
    if (device->ops->notify_locked)
        machine_unlock(device->machine);
}

// ---- The modern BAR ---------------------------------------------------------------------------------------------

static uint64_t modern_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *proxy = opaque;
    uint64_t value = 0;
    machine_lock(proxy->pci.device.machine);
    if (offset < COMMON_SIZE)
        value = common_read(proxy, offset, size);
    else if (offset == ISR_OFFSET)
        value = take_interrupt_status(proxy);
    else if (offset >= DEVICE_OFFSET && offset < DEVICE_OFFSET + AREA_SIZE)
        value = config_read(&proxy->virtio, offset - DEVICE_OFFSET, size);
    machine_unlock(proxy->pci.device.machine);
    return value;
}

static void modern_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_pci *proxy = opaque;
    if (offset >= NOTIFY_OFFSET) {
        notify(proxy, (offset - NOTIFY_OFFSET) / NOTIFY_MULTIPLIER);
        return;
    }
    machine_lock(proxy->pci.device.machine);
    if (offset < COMMON_SIZE)
        common_write(proxy, offset, value, size);
    else if (offset >= DEVICE_OFFSET)
        config_write(&proxy->virtio, offset - DEVICE_OFFSET, value, size);
    machine_unlock(proxy->pci.device.machine);
}

static const struct io_ops modern_ops = {modern_read, modern_write, .min_size = 1, .max_size = 4};

// ---- The legacy BAR (4.1.4.8) -----------------------------------------------------------------------------------

static unsigned legacy_header(struct virtio_pci *proxy)
{
    return pci_msix_enabled(&proxy->pci) ? LEGACY_HEADER_MSIX : LEGACY_HEADER;
}

static uint64_t legacy_header_read(struct virtio_pci *proxy, unsigned offset)
{
    struct virtio_device *device = &proxy->virtio;
    struct virtqueue *queue = selected_queue(proxy);
    switch (offset) {
    case 0:
        return (uint32_t)device->host_features;
    case 4:
        return (uint32_t)device->guest_features;
    case 8:
        return queue ? queue->descriptors >> PAGE_SHIFT : 0;
    case 12:
        return queue ? queue->max_size : 0;
    case 14:
        return proxy->queue_select;
    case 18:
        return device->status;
    case 19:
        return take_interrupt_status(proxy);
    case 20:
        return device->config_vector;
    case 22:
        return queue ? queue->vector : VIRTIO_NO_VECTOR;
    }
    return 0;
}

// One page number says where all three areas are, with the used ring on a page of its own (2.7.2); 0 resets.
static void legacy_set_page(struct virtio_pci *proxy, struct virtqueue *queue, uint32_t page)
{
    if (!queue)
        return;
    if (page == 0) {
        virtio_device_reset(&proxy->virtio);
        return;
    }
    queue->size = queue->max_size;
    queue->descriptors = (uint64_t)page << PAGE_SHIFT;
    queue->available = queue->descriptors + 16ull * queue->size;
    queue->used = ALIGN_UP(queue->available + 4 + 2ull * queue->size + 2, PAGE_SIZE);
    virtqueue_enable(queue);
}

static void legacy_header_write(struct virtio_pci *proxy, unsigned offset, uint32_t value)
{
    struct virtqueue *queue = selected_queue(proxy);
    switch (offset) {
    case 4:
        virtio_set_features(&proxy->virtio, value & ~VIRTIO_F_VERSION_1);
        return;
    case 8:
        legacy_set_page(proxy, queue, value);
        return;
    case 14:
        proxy->queue_select = value & 0xffff;
        return;
    case 18:
        set_status(proxy, value, false);
        return;
    case 20:
        proxy->virtio.config_vector = checked_vector(proxy, value);
        return;
    case 22:
        if (queue)
            queue->vector = checked_vector(proxy, value);
        return;
    }
}

static uint64_t legacy_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *proxy = opaque;
    machine_lock(proxy->pci.device.machine);
    unsigned header = legacy_header(proxy);
    uint64_t value =
        offset < header ? legacy_header_read(proxy, offset) : config_read(&proxy->virtio, offset - header, size);
    machine_unlock(proxy->pci.device.machine);
    return value;
}

static void legacy_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_pci *proxy = opaque;
    if (offset == 16) {
        notify(proxy, value);
        return;
    }
    machine_lock(proxy->pci.device.machine);
    unsigned header = legacy_header(proxy);
    if (offset < header)
        legacy_header_write(proxy, offset, value);
    else
        config_write(&proxy->virtio, offset - header, value, size);
    machine_unlock(proxy->pci.device.machine);
}

static const struct io_ops legacy_ops = {legacy_read, legacy_write, .min_size = 1, .max_size = 4};

// ---- Capabilities -----------------------------------------------------------------------------------------------

enum capability_kind { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_CONFIG_ACCESS };
#define PCI_CAP_VENDOR 0x09
enum { CAP_LENGTH = 16, CAP_BAR = 4, CAP_OFFSET = 8, CAP_SIZE = 12, CAP_EXTRA = 16 };

static uint8_t add_capability(struct virtio_pci *proxy, enum capability_kind kind, uint32_t offset, uint32_t size,
                              bool extra)
{
    unsigned length = CAP_LENGTH + (extra ? 4 : 0);
    uint8_t at = pci_add_capability(&proxy->pci, PCI_CAP_VENDOR, length);
    uint8_t *config = proxy->pci.config + at;
    config[2] = length;
    config[3] = kind;
    config[CAP_BAR] = kind == CAP_CONFIG_ACCESS ? 0 : BAR_MODERN;
    store_le(config + CAP_OFFSET, 4, offset);
    store_le(config + CAP_SIZE, 4, size);
    return at;
}

static void add_capabilities(struct virtio_pci *proxy)
{
    add_capability(proxy, CAP_COMMON, COMMON_OFFSET, COMMON_SIZE, false);
    add_capability(proxy, CAP_ISR, ISR_OFFSET, ISR_SIZE, false);
    if (proxy->virtio.config_size)
        add_capability(proxy, CAP_DEVICE, DEVICE_OFFSET, proxy->virtio.config_size, false);
    uint8_t notify_cap = add_capability(proxy, CAP_NOTIFY, NOTIFY_OFFSET, AREA_SIZE, true);
    store_le(proxy->pci.config + notify_cap + CAP_EXTRA, 4, NOTIFY_MULTIPLIER);

    proxy->config_access = add_capability(proxy, CAP_CONFIG_ACCESS, 0, 0, true);
    uint8_t *mask = proxy->pci.write_mask + proxy->config_access;
    mask[CAP_BAR] = 0xff;
    memset(mask + CAP_OFFSET, 0xff, CAP_EXTRA + 4 - CAP_OFFSET);
}

// The window of the last capability (4.1.4.9): OFFSET and SIZE name bytes of the modern BAR, and DATA reads or writes
// them. Returns whether they name something.
static bool config_window(struct virtio_pci *proxy, uint32_t *offset, uint32_t *size)
{
    const uint8_t *config = proxy->pci.config + proxy->config_access;
    *offset = load_le(config + CAP_OFFSET, 4);
    *size = load_le(config + CAP_SIZE, 4);
    return config[CAP_BAR] == BAR_MODERN && (*size == 1 || *size == 2 || *size == 4) && *offset % *size == 0 &&
           *offset < MODERN_SIZE;
}

static void config_written(struct pci_device *pci, unsigned offset, uint32_t value, unsigned size)
{
    struct virtio_pci *proxy = container_of(pci, struct virtio_pci, pci);
    unsigned data = proxy->config_access + CAP_EXTRA;
    uint32_t window_offset, window_size;
    if (offset + size <= data || offset >= data + 4 || !config_window(proxy, &window_offset, &window_size))
        return;
    modern_write(proxy, window_offset, load_le(pci->config + data, window_size), window_size);
}

static void config_reading(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_pci *proxy = container_of(pci, struct virtio_pci, pci);
    unsigned data = proxy->config_access + CAP_EXTRA;
    uint32_t window_offset, window_size;
    if (offset + size <= data || offset >= data + 4 || !config_window(proxy, &window_offset, &window_size))
        return;
    store_le(pci->config + data, window_size, modern_read(proxy, window_offset, window_size));
}

// ---- Life -------------------------------------------------------------------------------------------------------

bool virtio_pci_realize(struct virtio_pci *proxy, const struct virtio_pci_description *description, GError **error)
{
    // Transitional numbers (4.1.2.3) for the kinds that have one.
    static const uint16_t transitional[] = {
        [VIRTIO_ID_NET] = 0x1000,     [VIRTIO_ID_BLOCK] = 0x1001, [VIRTIO_ID_BALLOON] = 0x1002,
        [VIRTIO_ID_CONSOLE] = 0x1003, [VIRTIO_ID_RNG] = 0x1005,   [VIRTIO_ID_9P] = 0x1009,
    };
    struct virtio_device *device = &proxy->virtio;
    uint16_t id = device->ops->id;
    bool legacy = description->transitional && id < G_N_ELEMENTS(transitional) && transitional[id];
    struct pci_ids ids = {
        .vendor = VIRTIO_PCI_VENDOR,
        .device = legacy ? transitional[id] : 0x1040 + id,
        .subsystem_vendor = VIRTIO_PCI_VENDOR,
        .subsystem = legacy ? id : 0x1100,
        .revision = legacy ? 0 : 1,
        .class_code = description->class_code,
        .subclass = description->subclass,
        .prog_if = description->prog_if,
        .interrupt_pin = 1,
    };
    if (!pci_device_init(&proxy->pci, &ids, -1, error))
        return false;
    device->transport = &pci_transport;
    device->transport_opaque = proxy;
    proxy->vectors = description->vectors;

    if (legacy) {
        uint64_t size = LEGACY_HEADER_MSIX + device->config_size;
        size = size <= 32 ? 32 : size <= 64 ? 64 : size <= 128 ? 128 : 256;
        region_init_io(&proxy->legacy, "virtio-legacy", &legacy_ops, proxy, size);
        proxy->legacy.lockless = true;
        pci_set_bar(&proxy->pci, BAR_LEGACY, &proxy->legacy, true, false, false);
    } else {
        device->host_features &= ~(VIRTIO_F_NOTIFY_ON_EMPTY | VIRTIO_F_ANY_LAYOUT);
    }
    region_init_io(&proxy->modern, "virtio", &modern_ops, proxy, MODERN_SIZE);
    proxy->modern.lockless = true;
    proxy->modern.doorbell_offset = NOTIFY_OFFSET;
    proxy->modern.doorbell_stride = NOTIFY_MULTIPLIER;
    proxy->modern.doorbell_size = 2; // the driver writes the queue's number (virtio 1.2, 4.1.5.2)
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        if (device->queues[i].max_size)
            proxy->modern.doorbell_count = i + 1;
    // A 32-bit BAR: firmware reaches it from every mode, wherever it puts 64-bit ones.
    pci_set_bar(&proxy->pci, BAR_MODERN, &proxy->modern, false, false, false);
    if (description->vectors && !pci_add_msix(&proxy->pci, BAR_MSIX, description->vectors)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "%s: its interrupt table does not fit", device->name);
        return false;
    }
    add_capabilities(proxy);
    proxy->pci.config_written = config_written;
    proxy->pci.config_reading = config_reading;
    if (description->rom)
        pci_set_rom(&proxy->pci, description->rom);
    return true;
}

void virtio_pci_unrealize(struct virtio_pci *proxy)
{
    if (proxy->pci.bus)
        pci_device_exit(&proxy->pci);
    virtio_device_exit(&proxy->virtio);
}

void virtio_pci_reset(struct virtio_pci *proxy)
{
    virtio_device_reset(&proxy->virtio);
    proxy->interrupt_status = 0;
    proxy->feature_select = proxy->driver_feature_select = proxy->queue_select = 0;
    proxy->driver_features = 0;
    pci_device_reset(&proxy->pci);
}

void virtio_pci_loaded(struct virtio_pci *proxy)
{
    virtio_device_loaded(&proxy->virtio);
}

const struct field virtio_pci_fields[] = {
    FIELD_STRUCT(struct virtio_pci, pci, pci_device_fields),
    FIELD_STRUCT(struct virtio_pci, virtio, virtio_device_fields),
    FIELD_U32(struct virtio_pci, feature_select),
    FIELD_U32(struct virtio_pci, driver_feature_select),
    FIELD_U32(struct virtio_pci, queue_select),
    FIELD_U64(struct virtio_pci, driver_features),
    FIELD_U8(struct virtio_pci, interrupt_status),
    FIELD_END,
};
