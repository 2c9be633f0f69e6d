// SPDX-License-Identifier: GPL-2.0-or-later
// Block device (Virtio 1.2, section 5.2). Data goes straight between guest RAM and the disk; requests finish on the
// disk's threads, which put them on the used ring and interrupt the guest without the machine lock.
#include "core/machine/drive.h"
#include "devices/virtio/virtio_pci.h"

#include <stdio.h>
#include <string.h>

#define SECTOR         512u
#define QUEUE_SIZE     256
#define QUEUES_MAX     16
#define QUEUES_DEFAULT 8
#define TRIM_SECTORS   (BIT(30) / SECTOR) // most of one discard or write-zeroes request
#define ID_LENGTH      20

enum feature {
    FEATURE_SEG_MAX = 2,
    FEATURE_GEOMETRY = 4,
    FEATURE_RO = 5,
    FEATURE_BLK_SIZE = 6,
    FEATURE_FLUSH = 9,
    FEATURE_TOPOLOGY = 10,
    FEATURE_CONFIG_WCE = 11,
    FEATURE_MQ = 12,
    FEATURE_DISCARD = 13,
    FEATURE_WRITE_ZEROES = 14,
};

enum request_type {
    REQUEST_IN = 0,
    REQUEST_OUT = 1,
    REQUEST_FLUSH = 4,
    REQUEST_GET_ID = 8,
    REQUEST_DISCARD = 11,
    REQUEST_WRITE_ZEROES = 13,
};
enum request_status { STATUS_OK, STATUS_IO_ERROR, STATUS_UNSUPPORTED };

enum { // struct virtio_blk_config
    CONFIG_CAPACITY = 0,
    CONFIG_SEG_MAX = 12,
    CONFIG_CYLINDERS = 16,
    CONFIG_HEADS = 18,
    CONFIG_SECTORS = 19,
    CONFIG_BLK_SIZE = 20,
    CONFIG_PHYSICAL_EXPONENT = 24,
    CONFIG_MIN_IO_SIZE = 26,
    CONFIG_OPT_IO_SIZE = 28,
    CONFIG_WRITEBACK = 32,
    CONFIG_NUM_QUEUES = 34,
    CONFIG_DISCARD_SECTORS = 36,
    CONFIG_DISCARD_SEGMENTS = 40,
    CONFIG_DISCARD_ALIGNMENT = 44,
    CONFIG_ZEROES_SECTORS = 48,
    CONFIG_ZEROES_SEGMENTS = 52,
    CONFIG_ZEROES_MAY_UNMAP = 56,
    CONFIG_SIZE = 60,
};

// Threads: config under the machine lock; requests belong to the thread that carries them.
struct virtio_blk {
    struct virtio_pci proxy; // first
    struct drive *drive;
    uint64_t queues;
    uint8_t config[CONFIG_SIZE];
    _Atomic bool writeback;
    // Requests that wait for space on the host, as queue << 16 | head: only while saving and loading.
    uint32_t parked_bytes;
    uint32_t *parked;
};

struct blk_request {
    struct virtqueue_element element; // first
    struct drive_request drive;
    struct virtio_blk *blk;
    uint8_t *status;
    uint64_t written; // bytes that the guest gets when all goes well, status included
};

TRACE_POINT(virtio_blk_request);

// ---- Requests ---------------------------------------------------------------------------------------------------

static void finish(struct blk_request *request, enum request_status status)
{
    struct virtqueue *queue = request->element.queue;
    uint64_t written = status == STATUS_OK ? request->written : 1;
    *request->status = status;
    virtqueue_push(&request->element, written);
    virtqueue_notify(queue);
}

static void drive_done(struct drive_request *drive_request, int result)
{
    struct blk_request *request = container_of(drive_request, struct blk_request, drive);
    finish(request, result < 0 ? STATUS_IO_ERROR : STATUS_OK);
}

// Takes the header off the front and the status byte off the end. False when the chain is too short for a request.
static bool take_frame(struct blk_request *request, uint32_t *type, uint64_t *sector)
{
    struct virtqueue_element *element = &request->element;
    uint8_t header[16];
    if (iov_read(element->out, element->out_count, 0, header, sizeof header) != sizeof header || !element->in_length)
        return false;
    unsigned cut = iov_skip(element->out, element->out_count, sizeof header);
    element->out += cut;
    element->out_count -= cut;
    element->out_length -= sizeof header;

    struct iovec *last = &element->in[element->in_count - 1];
    request->status = (uint8_t *)last->iov_base + --last->iov_len;
    element->in_count -= last->iov_len == 0;
    element->in_length--;
    *type = load_le(header, 4);
    *sector = load_le(header + 8, 8);
    return true;
}

static bool prepare_transfer(struct blk_request *request, bool write, uint64_t sector)
{
    struct virtqueue_element *element = &request->element;
    struct disk_request *disk = &request->drive.disk;
    if (sector > UINT64_MAX / SECTOR)
        return false;
    disk->op = write ? DISK_WRITE : DISK_READ;
    disk->flags = write && !request->blk->writeback ? DISK_FUA : 0;
    disk->offset = sector * SECTOR;
    disk->length = write ? element->out_length : element->in_length;
    disk->iov = write ? element->out : element->in;
    disk->iov_count = write ? element->out_count : element->in_count;
    request->written = write ? 1 : element->in_length + 1;
    return disk->length != 0;
}

// Section 5.2.6.2: one segment of sector, count and flags.
static enum request_status prepare_trim(struct blk_request *request, bool discard)
{
    struct virtqueue_element *element = &request->element;
    struct disk_request *disk = &request->drive.disk;
    uint8_t segment[16];
    if (element->out_length != sizeof segment ||
        iov_read(element->out, element->out_count, 0, segment, sizeof segment) != sizeof segment)
        return STATUS_IO_ERROR;
    uint64_t sector = load_le(segment, 8), count = load_le(segment + 8, 4);
    uint32_t flags = load_le(segment + 12, 4);
    if (flags & ~1u || (discard && flags))
        return STATUS_UNSUPPORTED;
    if (!count || count > TRIM_SECTORS || sector > UINT64_MAX / SECTOR)
        return STATUS_IO_ERROR;
    disk->op = discard ? DISK_DISCARD : DISK_WRITE_ZEROES;
    disk->flags = flags & 1 ? DISK_MAY_UNMAP : 0;
    disk->offset = sector * SECTOR;
    disk->length = count * SECTOR;
    return STATUS_OK;
}

static enum request_status answer_id(struct blk_request *request)
{
    struct virtqueue_element *element = &request->element;
    char id[ID_LENGTH] = {0};
    memcpy(id, request->blk->drive->id, MIN(strlen(request->blk->drive->id), sizeof id));
    request->written = iov_write(element->in, element->in_count, 0, id, sizeof id) + 1;
    return STATUS_OK;
}

// Makes the disk request. True when it is to be submitted; else it is finished already.
static bool prepare(struct virtio_blk *blk, struct blk_request *request)
{
    uint32_t type;
    uint64_t sector;
    enum request_status status = STATUS_OK;
    bool submit = false;

    request->blk = blk;
    request->drive.done = drive_done;
    request->written = 1;
    if (!take_frame(request, &type, &sector)) {
        virtqueue_drop(&request->element);
        virtio_broken(&blk->proxy.virtio, "a request has no room for its header or its status");
        return false;
    }
    TRACE(virtio_blk_request, "%s type %u sector %" G_GUINT64_FORMAT " out %" G_GUINT64_FORMAT " in %" G_GUINT64_FORMAT,
          blk->drive->id, type, sector, request->element.out_length, request->element.in_length);
    switch (type) {
    case REQUEST_IN:
    case REQUEST_OUT:
        submit = prepare_transfer(request, type == REQUEST_OUT, sector);
        status = STATUS_IO_ERROR;
        break;
    case REQUEST_FLUSH:
        request->drive.disk.op = DISK_FLUSH;
        submit = true;
        break;
    case REQUEST_DISCARD:
    case REQUEST_WRITE_ZEROES:
        status = prepare_trim(request, type == REQUEST_DISCARD);
        submit = status == STATUS_OK;
        break;
    case REQUEST_GET_ID:
        status = answer_id(request);
        break;
    default:
        status = STATUS_UNSUPPORTED;
    }
    if (!submit)
        finish(request, status);
    return submit;
}

static void queue_notify(struct virtio_device *device, struct virtqueue *queue)
{
    struct virtio_blk *blk = container_of(virtio_pci_of(device), struct virtio_blk, proxy);
    do {
        struct blk_request *request;
        virtqueue_set_notification(queue, false);
        while ((request = virtqueue_pop(queue, sizeof *request)))
            if (prepare(blk, request))
                drive_submit(blk->drive, &request->drive);
    } while (virtqueue_set_notification(queue, true));
}

// ---- Configuration ----------------------------------------------------------------------------------------------

static void update_capacity(struct virtio_blk *blk)
{
    uint64_t sectors = drive_size(blk->drive) / SECTOR;
    store_le(blk->config + CONFIG_CAPACITY, 8, sectors);
    store_le(blk->config + CONFIG_CYLINDERS, 2, MIN(sectors / (16 * 63), 16383));
    blk->config[CONFIG_HEADS] = 16;
    blk->config[CONFIG_SECTORS] = 63;
}

static void fill_config(struct virtio_blk *blk)
{
    update_capacity(blk);
    store_le(blk->config + CONFIG_SEG_MAX, 4, QUEUE_SIZE - 2);
    store_le(blk->config + CONFIG_BLK_SIZE, 4, SECTOR);
    blk->config[CONFIG_PHYSICAL_EXPONENT] = 3; // 4 KiB blocks underneath
    store_le(blk->config + CONFIG_MIN_IO_SIZE, 2, 8);
    store_le(blk->config + CONFIG_OPT_IO_SIZE, 4, 0);
    blk->config[CONFIG_WRITEBACK] = 1;
    store_le(blk->config + CONFIG_NUM_QUEUES, 2, blk->queues);
    store_le(blk->config + CONFIG_DISCARD_SECTORS, 4, TRIM_SECTORS);
    store_le(blk->config + CONFIG_DISCARD_SEGMENTS, 4, 1);
    store_le(blk->config + CONFIG_DISCARD_ALIGNMENT, 4, 8);
    store_le(blk->config + CONFIG_ZEROES_SECTORS, 4, TRIM_SECTORS);
    store_le(blk->config + CONFIG_ZEROES_SEGMENTS, 4, 1);
    blk->config[CONFIG_ZEROES_MAY_UNMAP] = 1;
}

// Only the cache mode may be written.
static void config_written(struct virtio_device *device, unsigned offset, unsigned size)
{
    struct virtio_blk *blk = container_of(virtio_pci_of(device), struct virtio_blk, proxy);
    bool writeback = offset == CONFIG_WRITEBACK ? blk->config[CONFIG_WRITEBACK] & 1 : blk->writeback;
    fill_config(blk);
    blk->writeback = writeback;
    blk->config[CONFIG_WRITEBACK] = writeback;
}

// A driver that knows nothing of flushes gets writes that are safe when they are done (5.2.6.2).
static void status_changed(struct virtio_device *device, uint8_t before)
{
    struct virtio_blk *blk = container_of(virtio_pci_of(device), struct virtio_blk, proxy);
    if (device->status & VIRTIO_STATUS_DRIVER_OK && !(before & VIRTIO_STATUS_DRIVER_OK) &&
        !virtio_has(device, BIT(FEATURE_CONFIG_WCE)))
        blk->writeback = virtio_has(device, BIT(FEATURE_FLUSH));
}

static void device_reset(struct virtio_device *device)
{
    struct virtio_blk *blk = container_of(virtio_pci_of(device), struct virtio_blk, proxy);
    drive_cancel_parked(blk->drive);
    drive_drain(blk->drive);
    blk->writeback = true;
    blk->config[CONFIG_WRITEBACK] = 1;
}

static const struct virtio_ops blk_ops = {
    .id = VIRTIO_ID_BLOCK,
    .features = BIT(FEATURE_SEG_MAX) | BIT(FEATURE_GEOMETRY) | BIT(FEATURE_BLK_SIZE) | BIT(FEATURE_FLUSH) |
                BIT(FEATURE_TOPOLOGY) | BIT(FEATURE_CONFIG_WCE) | BIT(FEATURE_MQ) | BIT(FEATURE_DISCARD) |
                BIT(FEATURE_WRITE_ZEROES),
    .queue_notify = queue_notify,
    .config_written = config_written,
    .status_changed = status_changed,
    .reset = device_reset,
};

static void resized(void *opaque)
{
    struct virtio_blk *blk = opaque;
    update_capacity(blk);
    virtio_config_changed(&blk->proxy.virtio);
}

static const struct drive_client drive_client = {.resized = resized};

// ---- The device -------------------------------------------------------------------------------------------------

static bool virtio_blk_realize(struct device *device, GError **error)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;
    struct virtio_device *virtio = &blk->proxy.virtio;
    if (!blk->drive) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s has no drive; give it one", device->id);
        return false;
    }
    if (!blk->queues)
        blk->queues = CLAMP(device->machine->cpus ? device->machine->cpus->count : 1, 1, QUEUES_DEFAULT);
    virtio_device_init(virtio, device->machine, device->id, &blk_ops, blk->config, sizeof blk->config);
    for (unsigned i = 0; i < blk->queues; i++)
        virtio_add_queue(virtio, i, QUEUE_SIZE);
    if (!drive_writable(blk->drive))
        virtio->host_features |= BIT(FEATURE_RO);
    blk->writeback = true;
    fill_config(blk);
    drive_set_client(blk->drive, &drive_client, blk);
    const struct virtio_pci_description description = {
        .class_code = 1, .transitional = true, .vectors = blk->queues + 1};
    return virtio_pci_realize(&blk->proxy, &description, error);
}

static void virtio_blk_unrealize(struct device *device)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;
    drive_free(blk->drive);
    virtio_pci_unrealize(&blk->proxy);
    g_free(blk->parked);
}

static void virtio_blk_reset(struct device *device)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;
    virtio_pci_reset(&blk->proxy);
    fill_config(blk);
}

static void virtio_blk_quiesce(struct device *device)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;
    struct drive *drive = blk->drive;
    GArray *heads = g_array_new(false, false, sizeof(uint32_t));
    drive_drain(drive);
    g_mutex_lock(&drive->lock);
    for (struct drive_request *parked = drive->parked; parked; parked = parked->next) {
        struct blk_request *request = container_of(parked, struct blk_request, drive);
        uint32_t head = request->element.queue->index << 16 | request->element.head;
        g_array_append_val(heads, head);
    }
    g_mutex_unlock(&drive->lock);
    g_free(blk->parked);
    blk->parked_bytes = heads->len * sizeof(uint32_t);
    blk->parked = (uint32_t *)g_array_free(heads, false);
}

static bool virtio_blk_loaded(struct device *device, GError **error)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;
    virtio_pci_loaded(&blk->proxy);
    for (unsigned i = 0; i < blk->parked_bytes / sizeof(uint32_t); i++) {
        unsigned queue = blk->parked[i] >> 16;
        if (queue >= blk->queues) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT,
                        "the saved state of %s names queue %u of %u; it was saved by another machine", device->id,
                        queue, (unsigned)blk->queues);
            return false;
        }
        struct blk_request *request =
            virtqueue_pop_head(&blk->proxy.virtio.queues[queue], blk->parked[i], sizeof *request);
        if (request && prepare(blk, request))
            drive_park(blk->drive, &request->drive);
    }
    return true;
}

static const struct property virtio_blk_properties[] = {
    {"drive", PROPERTY_POINTER, offsetof(struct virtio_blk, drive), .help = "the drive that it shows"},
    {"queues", PROPERTY_UINT, offsetof(struct virtio_blk, queues), "0", 0, QUEUES_MAX,
     "request queues; 0: one for each processor, up to 8"},
    PROPERTY_END,
};

static const struct field virtio_blk_fields[] = {
    FIELD_STRUCT(struct virtio_blk, proxy, virtio_pci_fields),
    FIELD_BOOL(struct virtio_blk, writeback),
    FIELD_BUFFER(struct virtio_blk, parked, parked_bytes),
    FIELD_END,
};

const struct device_class virtio_blk_class = {
    .name = "virtio-blk",
    .help = "virtio block device",
    .size = sizeof(struct virtio_blk),
    .properties = virtio_blk_properties,
    .realize = virtio_blk_realize,
    .unrealize = virtio_blk_unrealize,
    .reset = virtio_blk_reset,
    .quiesce = virtio_blk_quiesce,
    .fields = virtio_blk_fields,
    .version = 1,
    .loaded = virtio_blk_loaded,
};
