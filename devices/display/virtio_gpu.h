// SPDX-License-Identifier: GPL-2.0-or-later
// Structures of virtio graphics, shared by its commands (virtio_gpu.c) and its saved state (virtio_gpu_state.c).
#ifndef CLOCHE_VIRTIO_GPU_H
#define CLOCHE_VIRTIO_GPU_H

#include "devices/display/vga.h"
#include "devices/virtio/virtio_pci.h"

#define HEADS_MAX       4
#define CONTROL_SIZE    256
#define CURSOR_SIZE     16
#define RESOURCES_MAX   1024
#define MEMORY_MAX      (512 * MiB)  // of all 2D resources
#define ENTRIES_MAX     16384        // pieces of one resource's backing
#define PIECES_MAX      4096         // runs of pages that one blob is mapped from; more are copied
#define SHARED_SIZE_MIN (256 * 1024) // bytes from which a resource may become a picture: shareable memory
#define CURSOR_SIDE     64

#define HEADER_SIZE   24
#define FLAG_FENCE    1
#define FEATURE_EDID  BIT(1)
#define FEATURE_BLOB  BIT(3)
#define EVENT_DISPLAY 1

enum { QUEUE_CONTROL, QUEUE_CURSOR };
enum { CONFIG_EVENTS_READ = 0, CONFIG_EVENTS_CLEAR = 4, CONFIG_SCANOUTS = 8, CONFIG_SIZE = 16 };

enum command {
    GET_DISPLAY_INFO = 0x100,
    RESOURCE_CREATE_2D,
    RESOURCE_UNREF,
    SET_SCANOUT,
    RESOURCE_FLUSH,
    TRANSFER_TO_HOST_2D,
    RESOURCE_ATTACH_BACKING,
    RESOURCE_DETACH_BACKING,
    GET_EDID = 0x10a,
    RESOURCE_CREATE_BLOB = 0x10c,
    SET_SCANOUT_BLOB = 0x10d,
    UPDATE_CURSOR = 0x300,
    MOVE_CURSOR = 0x301,
};
enum response {
    OK_NODATA = 0x1100,
    OK_DISPLAY_INFO = 0x1101,
    OK_EDID = 0x1104,
    ERROR_UNSPECIFIED = 0x1200,
    ERROR_OUT_OF_MEMORY,
    ERROR_SCANOUT,
    ERROR_RESOURCE,
    ERROR_CONTEXT,
    ERROR_PARAMETER,
};

// One run of guest RAM.
struct piece {
    uint8_t *host;
    uint32_t length;
};

struct resource {
    uint32_t id, format, width, height; // blobs: no format and size of their own
    bool blob;
    uint64_t size;         // of a blob's bytes
    struct pixels *pixels; // 2D: what was transferred; NULL for blobs
    struct piece *pieces;  // the guest's backing, NULL when there is none
    unsigned piece_count;
    uint8_t *view;      // blob: its pages in one piece, NULL when they cannot be mapped so
    struct view *owner; // of VIEW
};

// A blob's mapping; pictures that show it hold it beyond the resource's life.
struct view {
    _Atomic int references;
    uint8_t *address;
    uint64_t size;
};

struct head {
    struct virtio_gpu *gpu;
    struct surface *surface;
    uint32_t resource;               // 0: nothing is shown
    struct rectangle part;           // of the resource
    uint32_t stride, offset, format; // blob
    bool copied;                     // the blob is copied into the surface's own memory when flushed
    unsigned width, height;          // that the viewer would like
};

struct virtio_gpu {
    struct virtio_pci proxy; // first
    struct vga vga;
    uint64_t heads, width, height, memory;
    uint8_t config[CONFIG_SIZE];
    struct head head[HEADS_MAX];
    GMutex lock;
    GHashTable *resources; // id -> struct resource
    uint64_t memory_used;
    _Atomic bool driven; // the driver shows something: head 0 is not VGA's
    GThread *thread;
    GMutex wake_lock;
    GCond wake, idle;
    bool kicked, quit, parked, busy;
    uint32_t saved_bytes; // resources and heads, only while saving and loading
    uint8_t *saved;
};

struct request {
    struct virtqueue_element *element;
    uint8_t header[HEADER_SIZE];
    uint32_t type;
};

// Between the two files of the device.
struct resource *gpu_find(struct virtio_gpu *gpu, uint32_t id);
void gpu_map_blob(struct resource *resource);
struct pixels *gpu_resource_pixels(uint32_t width, uint32_t height);
bool gpu_format_bytes(uint32_t format, uint8_t at[4]);
uint64_t gpu_resource_bytes(const struct resource *resource);
void gpu_resource_free(void *data);
enum response gpu_set_scanout(struct virtio_gpu *gpu, const struct request *request);
enum response gpu_set_scanout_blob(struct virtio_gpu *gpu, const struct request *request);
void gpu_copy_blob(struct resource *resource, const struct head *head, const struct rectangle *r);
void gpu_drop_everything(struct virtio_gpu *gpu);
void gpu_take_over(struct virtio_gpu *gpu);
void gpu_save(struct virtio_gpu *gpu);
bool gpu_load(struct virtio_gpu *gpu); // false: damaged

#endif
