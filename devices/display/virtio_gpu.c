// SPDX-License-Identifier: GPL-2.0-or-later
// The paravirtual graphics channel (Virtio 1.2, section 5.7): 2D resources, blob resources in guest memory, up to four
// heads, hardware cursor, EDID, and a VGA core that shows what firmware and boot loader draw until the driver takes
// over.
//
// Commands run on a thread of their own ("gpu"). Threads: everything below LOCK under LOCK, which comes after the
// the thread takes the machine lock only to hand a head over between VGA and the driver, and then first.
#include "devices/display/edid.h"
#include "devices/display/virtio_gpu.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

// ---- Resources ----
static void view_unref(struct view *view)
{
    if (!view || atomic_fetch_sub(&view->references, 1) != 1)
        return;
    munmap(view->address, view->size);
    g_free(view);
}

static void forget_backing(struct resource *resource)
{
    g_clear_pointer(&resource->pieces, g_free);
    resource->piece_count = 0;
    view_unref(g_steal_pointer(&resource->owner));
    resource->view = NULL;
}

uint64_t gpu_resource_bytes(const struct resource *resource)
{
    return (uint64_t)resource->width * resource->height * 4;
}

void gpu_resource_free(void *data)
{
    struct resource *resource = data;
    forget_backing(resource);
    pixels_unref(resource->pixels);
    g_free(resource);
}

struct resource *gpu_find(struct virtio_gpu *gpu, uint32_t id)
{
    return g_hash_table_lookup(gpu->resources, GUINT_TO_POINTER(id));
}

static void release_plain(struct pixels *pixels)
{
    g_free(pixels->data);
}

// Small resources (cursors, glyphs) need no descriptor of the host.
struct pixels *gpu_resource_pixels(uint32_t width, uint32_t height)
{
    if ((uint64_t)width * height * 4 >= SHARED_SIZE_MIN)
        return pixels_new(width, height);
    struct pixels *pixels = g_new0(struct pixels, 1);
    *pixels = (struct pixels){.references = 1,
                              .memfd = -1,
                              .width = width,
                              .height = height,
                              .stride = width * 4,
                              .size = (size_t)width * height * 4,
                              .release = release_plain};
    pixels->data = g_malloc0(pixels->size);
    return pixels;
}

// Byte positions of blue, green, red and alpha in each format.
bool gpu_format_bytes(uint32_t format, uint8_t at[4])
{
    static const struct {
        uint8_t format, at[4];
    } formats[] = {{1, {0, 1, 2, 3}},  {2, {0, 1, 2, 3}},  {3, {3, 2, 1, 0}},   {4, {3, 2, 1, 0}},
                   {67, {2, 1, 0, 3}}, {68, {1, 2, 3, 0}}, {121, {1, 2, 3, 0}}, {134, {2, 1, 0, 3}}};
    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++)
        if (formats[i].format == format) {
            memcpy(at, formats[i].at, 4);
            return true;
        }
    return false;
}

static bool format_native(uint32_t format)
{
    return format == 1 || format == 2;
}

static void convert_row(uint32_t format, const uint8_t *from, uint32_t *to, unsigned count)
{
    uint8_t at[4];
    if (format_native(format)) {
        memcpy(to, from, 4 * (size_t)count);
        return;
    }
    if (!gpu_format_bytes(format, at))
        return;
    for (unsigned i = 0; i < count; i++, from += 4)
        to[i] = from[at[0]] | from[at[1]] << 8 | from[at[2]] << 16 | (uint32_t)from[at[3]] << 24;
}

// Copies LENGTH bytes at OFFSET of the backing; bytes beyond its end stay as they are.
static void read_backing(const struct resource *resource, uint64_t offset, void *to, uint64_t length)
{
    uint8_t *out = to;
    for (unsigned i = 0; i < resource->piece_count && length; i++) {
        const struct piece *piece = &resource->pieces[i];
        if (offset >= piece->length) {
            offset -= piece->length;
            continue;
        }
        uint64_t part = MIN(piece->length - offset, length);
        memcpy(out, piece->host + offset, part);
        out += part;
        length -= part;
        offset = 0;
    }
}

// ---- Blobs in one piece ----
// Maps the blob's pages a second time, in order: an old size of 0 makes mremap() duplicate a shared mapping.
void gpu_map_blob(struct resource *resource)
{
    uint64_t total = 0;
    if (resource->piece_count > PIECES_MAX)
        return;
    for (unsigned i = 0; i < resource->piece_count; i++) {
        if (((uintptr_t)resource->pieces[i].host | resource->pieces[i].length) & (PAGE_SIZE - 1))
            return;
        total += resource->pieces[i].length;
    }
    if (!total || total < resource->size)
        return;
    uint8_t *address = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED)
        return;
    uint8_t *at = address;
    for (unsigned i = 0; i < resource->piece_count; at += resource->pieces[i++].length)
        if (mremap(resource->pieces[i].host, 0, resource->pieces[i].length, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at) {
            munmap(address, total);
            return;
        }
    struct view *view = g_new0(struct view, 1);
    *view = (struct view){.references = 1, .address = address, .size = total};
    resource->owner = view;
    resource->view = address;
}

static void release_view(struct pixels *pixels)
{
    view_unref(pixels->opaque);
}

static void release_parent(struct pixels *pixels)
{
    pixels_unref(pixels->opaque);
}

// ---- Requests and answers ----

// Copies LENGTH bytes after the header; false when the guest sent fewer.
static bool take(const struct request *request, void *to, size_t length)
{
    const struct virtqueue_element *element = request->element;
    return iov_read(element->out, element->out_count, HEADER_SIZE, to, length) == length;
}

static uint64_t answer(const struct request *request, enum response type, const void *body, size_t length)
{
    uint8_t header[HEADER_SIZE] = {0};
    const struct virtqueue_element *element = request->element;
    store_le(header, 4, type);
    if (load_le(request->header + 4, 4) & FLAG_FENCE)
        memcpy(header + 4, request->header + 4, HEADER_SIZE - 4);
    uint64_t written = iov_write(element->in, element->in_count, 0, header, HEADER_SIZE);
    if (length)
        written += iov_write(element->in, element->in_count, HEADER_SIZE, body, length);
    return written;
}

static struct rectangle take_rectangle(const uint8_t *bytes)
{
    uint32_t x = load_le(bytes, 4), y = load_le(bytes + 4, 4), w = load_le(bytes + 8, 4), h = load_le(bytes + 12, 4);
    bool sane = x <= 65535 && y <= 65535 && w <= 65535 && h <= 65535;
    return sane ? (struct rectangle){x, y, w, h} : (struct rectangle){-1, -1, 0, 0};
}

static bool inside(const struct rectangle *r, uint32_t width, uint32_t height)
{
    return r->x >= 0 && r->y >= 0 && r->width >= 0 && r->height >= 0 && (uint32_t)r->x + r->width <= width &&
           (uint32_t)r->y + r->height <= height;
}

// ---- Commands ----
static enum response create_2d(struct virtio_gpu *gpu, const struct request *request)
{
    uint8_t body[16], at[4];
    if (!take(request, body, sizeof(body)))
        return ERROR_PARAMETER;
    uint32_t id = load_le(body, 4), format = load_le(body + 4, 4);
    uint32_t width = load_le(body + 8, 4), height = load_le(body + 12, 4);
    if (!id || gpu_find(gpu, id) || g_hash_table_size(gpu->resources) >= RESOURCES_MAX)
        return ERROR_RESOURCE;
    if (!gpu_format_bytes(format, at) || !width || !height || width > SURFACE_MAX_WIDTH || height > SURFACE_MAX_HEIGHT)
        return ERROR_PARAMETER;
    if (gpu->memory_used + (uint64_t)width * height * 4 > MEMORY_MAX)
        return ERROR_OUT_OF_MEMORY;
    struct pixels *pixels = gpu_resource_pixels(width, height);
    if (!pixels)
        return ERROR_OUT_OF_MEMORY;
    struct resource *resource = g_new0(struct resource, 1);
    *resource = (struct resource){.id = id, .format = format, .width = width, .height = height, .pixels = pixels};
    gpu->memory_used += gpu_resource_bytes(resource);
    g_hash_table_insert(gpu->resources, GUINT_TO_POINTER(id), resource);
    return OK_NODATA;
}

static enum response take_entries(struct virtio_gpu *gpu, const struct request *request, size_t at, uint32_t count,
                                  struct resource *resource)
{
    const struct virtqueue_element *element = request->element;
    if (count > ENTRIES_MAX || element->out_length < HEADER_SIZE + at + 16ull * count)
        return ERROR_PARAMETER;
    struct piece *pieces = g_new(struct piece, MAX(count, 1));
    unsigned used = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t entry[16];
        iov_read(element->out, element->out_count, HEADER_SIZE + at + 16 * i, entry, sizeof(entry));
        uint64_t address = load_le(entry, 8);
        uint32_t length = load_le(entry + 8, 4);
        uint8_t *host = length ? address_space_dma(gpu->proxy.virtio.machine->memory, address, length, NULL) : NULL;
        if (!host) {
            g_free(pieces);
            log_guest("virtio-gpu", "a resource's backing is not in RAM");
            return ERROR_PARAMETER;
        }
        if (used && pieces[used - 1].host + pieces[used - 1].length == host &&
            (uint64_t)pieces[used - 1].length + length <= UINT32_MAX)
            pieces[used - 1].length += length;
        else
            pieces[used++] = (struct piece){host, length};
    }
    forget_backing(resource);
    resource->pieces = pieces;
    resource->piece_count = used;
    return OK_NODATA;
}

static enum response attach_backing(struct virtio_gpu *gpu, const struct request *request)
{
    uint8_t body[8];
    if (!take(request, body, sizeof(body)))
        return ERROR_PARAMETER;
    struct resource *resource = gpu_find(gpu, load_le(body, 4));
    if (!resource || resource->blob)
        return ERROR_RESOURCE;
    return take_entries(gpu, request, sizeof(body), load_le(body + 4, 4), resource);
}

static enum response detach_backing(struct virtio_gpu *gpu, const struct request *request)
{
    uint8_t body[8];
    struct resource *resource = take(request, body, sizeof(body)) ? gpu_find(gpu, load_le(body, 4)) : NULL;
    if (!resource)
        return ERROR_RESOURCE;
    forget_backing(resource);
    return OK_NODATA;
}

static enum response create_blob(struct virtio_gpu *gpu, const struct request *request)
{
    uint8_t body[32];
    if (!take(request, body, sizeof(body)))
        return ERROR_PARAMETER;
    uint32_t id = load_le(body, 4), memory = load_le(body + 4, 4), count = load_le(body + 12, 4);
    uint64_t size = load_le(body + 24, 8);
    if (!id || gpu_find(gpu, id) || g_hash_table_size(gpu->resources) >= RESOURCES_MAX)
        return ERROR_RESOURCE;
    if (memory != 1 || !size || size > MEMORY_MAX) // guest memory is all there is without 3D
        return ERROR_PARAMETER;
    struct resource *resource = g_new0(struct resource, 1);
    *resource = (struct resource){.id = id, .blob = true, .size = size};
    enum response result = take_entries(gpu, request, sizeof(body), count, resource);
    if (result != OK_NODATA) {
        g_free(resource);
        return result;
    }
    gpu_map_blob(resource);
    g_hash_table_insert(gpu->resources, GUINT_TO_POINTER(id), resource);
    return OK_NODATA;
}

static void show_nothing(struct head *head)
{
    head->resource = 0;
    struct pixels *pixels = surface_pixels(head->surface);
    unsigned width = pixels->width, height = pixels->height;
    pixels_unref(pixels);
    surface_resize(head->surface, width, height);
    surface_set_cursor(head->surface, NULL);
}

static enum response unref(struct virtio_gpu *gpu, const struct request *request)
{
    uint8_t body[8];
    struct resource *resource = take(request, body, sizeof(body)) ? gpu_find(gpu, load_le(body, 4)) : NULL;
    if (!resource)
        return ERROR_RESOURCE;
    for (unsigned i = 0; i < gpu->heads; i++)
        if (gpu->head[i].resource == resource->id)
            show_nothing(&gpu->head[i]);
    if (!resource->blob)
        gpu->memory_used -= gpu_resource_bytes(resource);
    g_hash_table_remove(gpu->resources, GUINT_TO_POINTER(resource->id));
    return OK_NODATA;
}

static enum response transfer_2d(struct virtio_gpu *gpu, const struct request *request)
{
    uint8_t body[32];
    if (!take(request, body, sizeof(body)))
        return ERROR_PARAMETER;
    struct rectangle r = take_rectangle(body);
    uint64_t offset = load_le(body + 16, 8);
    struct resource *resource = gpu_find(gpu, load_le(body + 24, 4));
    if (resource && resource->blob)
        return OK_NODATA; // there is nothing to transfer, but Linux does it all the same
    if (!resource || !resource->pieces)
        return ERROR_RESOURCE;
    if (!inside(&r, resource->width, resource->height) || offset > MEMORY_MAX)
        return ERROR_PARAMETER;
    uint64_t pitch = 4ull * resource->width;
    g_autofree uint8_t *row = format_native(resource->format) ? NULL : g_malloc(4 * (size_t)MAX(r.width, 1));
    for (int y = 0; y < r.height; y++) {
        uint8_t *to = resource->pixels->data + (size_t)(r.y + y) * resource->pixels->stride + 4 * (size_t)r.x;
        read_backing(resource, offset + y * pitch, row ? row : to, 4ull * r.width);
        if (row)
            convert_row(resource->format, row, (uint32_t *)(void *)to, r.width);
    }
    return OK_NODATA;
}

// ---- Showing ----
static struct pixels *part_of(struct pixels *whole, const struct rectangle *part)
{
    if (part->x == 0 && part->y == 0 && part->width == (int)whole->width && part->height == (int)whole->height)
        return pixels_ref(whole);
    struct pixels *pixels = g_new0(struct pixels, 1);
    *pixels = (struct pixels){.references = 1,
                              .memfd = -1,
                              .width = part->width,
                              .height = part->height,
                              .stride = whole->stride,
                              .size = (size_t)whole->stride * part->height,
                              .release = release_parent,
                              .opaque = pixels_ref(whole)};
    pixels->data = whole->data + (size_t)part->y * whole->stride + 4 * (size_t)part->x;
    return pixels;
}

static struct pixels *view_of(struct resource *resource, const struct head *head)
{
    struct pixels *pixels = g_new0(struct pixels, 1);
    *pixels = (struct pixels){.references = 1,
                              .memfd = -1,
                              .width = head->part.width,
                              .height = head->part.height,
                              .stride = head->stride,
                              .size = (size_t)head->stride * head->part.height,
                              .release = release_view,
                              .opaque = resource->owner};
    atomic_fetch_add(&resource->owner->references, 1);
    pixels->data = resource->view + head->offset + (size_t)head->part.y * head->stride + 4 * (size_t)head->part.x;
    return pixels;
}

// Copies RECTANGLE of the picture out of a blob that could not be mapped or has another format.
void gpu_copy_blob(struct resource *resource, const struct head *head, const struct rectangle *r)
{
    struct pixels *pixels = surface_pixels(head->surface);
    g_autofree uint8_t *row = g_malloc(4 * (size_t)MAX(r->width, 1));
    for (int y = r->y; y < r->y + r->height && y < (int)pixels->height && r->x + r->width <= (int)pixels->width; y++) {
        uint64_t from = head->offset + (uint64_t)(head->part.y + y) * head->stride + 4ull * (head->part.x + r->x);
        read_backing(resource, from, row, 4ull * r->width);
        convert_row(head->format, row, (uint32_t *)(void *)(pixels->data + (size_t)y * pixels->stride) + r->x,
                    r->width);
    }
    pixels_unref(pixels);
}

static unsigned head_number(const struct virtio_gpu *gpu, const struct head *head)
{
    return head - gpu->head;
}

static bool take_scanout(struct virtio_gpu *gpu, uint32_t number, struct head **head)
{
    *head = number < gpu->heads ? &gpu->head[number] : NULL;
    return *head != NULL;
}

enum response gpu_set_scanout(struct virtio_gpu *gpu, const struct request *request)
{
    uint8_t body[24];
    struct head *head;
    if (!take(request, body, sizeof(body)))
        return ERROR_PARAMETER;
    if (!take_scanout(gpu, load_le(body + 16, 4), &head))
        return ERROR_SCANOUT;
    struct rectangle part = take_rectangle(body);
    uint32_t id = load_le(body + 20, 4);
    if (!id) {
        show_nothing(head);
        return OK_NODATA;
    }
    struct resource *resource = gpu_find(gpu, id);
    if (!resource || resource->blob)
        return ERROR_RESOURCE;
    if (!inside(&part, resource->width, resource->height) || part.width < 16 || part.height < 16)
        return ERROR_PARAMETER;
    head->resource = id;
    head->part = part;
    head->copied = false;
    surface_show(head->surface, part_of(resource->pixels, &part));
    return OK_NODATA;
}

enum response gpu_set_scanout_blob(struct virtio_gpu *gpu, const struct request *request)
{
    uint8_t body[72], at[4];
    struct head *head;
    if (!take(request, body, sizeof(body)))
        return ERROR_PARAMETER;
    if (!take_scanout(gpu, load_le(body + 16, 4), &head))
        return ERROR_SCANOUT;
    struct head next = *head;
    next.part = take_rectangle(body);
    next.resource = load_le(body + 20, 4);
    uint32_t width = load_le(body + 24, 4), height = load_le(body + 28, 4);
    next.format = load_le(body + 32, 4);
    next.stride = load_le(body + 40, 4);
    next.offset = load_le(body + 56, 4);
    if (!next.resource) {
        show_nothing(head);
        return OK_NODATA;
    }
    struct resource *resource = gpu_find(gpu, next.resource);
    if (!resource || !resource->blob)
        return ERROR_RESOURCE;
    if (!gpu_format_bytes(next.format, at) || width > SURFACE_MAX_WIDTH || height > SURFACE_MAX_HEIGHT ||
        !inside(&next.part, width, height) || next.part.width < 16 || next.part.height < 16 ||
        next.stride < 4ull * width || next.stride % 4 || next.offset % 4 ||
        next.offset + (uint64_t)next.stride * (height - 1) + 4ull * width > resource->size)
        return ERROR_PARAMETER;
    next.copied = !resource->view || !format_native(next.format);
    *head = next;
    if (!next.copied) {
        surface_show(head->surface, view_of(resource, head));
        return OK_NODATA;
    }
    struct pixels *pixels = surface_pixels(head->surface);
    bool fits = !pixels->release && (int)pixels->width == next.part.width && (int)pixels->height == next.part.height;
    pixels_unref(pixels);
    if (!fits)
        surface_resize(head->surface, next.part.width, next.part.height);
    return OK_NODATA;
}

static enum response flush(struct virtio_gpu *gpu, const struct request *request)
{
    uint8_t body[24];
    if (!take(request, body, sizeof(body)))
        return ERROR_PARAMETER;
    struct rectangle r = take_rectangle(body);
    struct resource *resource = gpu_find(gpu, load_le(body + 16, 4));
    if (!resource)
        return ERROR_RESOURCE;
    if (r.x < 0 || (!resource->blob && !inside(&r, resource->width, resource->height)))
        return ERROR_PARAMETER;
    for (unsigned i = 0; i < gpu->heads; i++) {
        struct head *head = &gpu->head[i];
        if (head->resource != resource->id)
            continue;
        int left = MAX(r.x, head->part.x), top = MAX(r.y, head->part.y);
        int right = MIN(r.x + r.width, head->part.x + head->part.width);
        int bottom = MIN(r.y + r.height, head->part.y + head->part.height);
        if (left >= right || top >= bottom)
            continue;
        struct rectangle seen = {left - head->part.x, top - head->part.y, right - left, bottom - top};
        if (head->copied)
            gpu_copy_blob(resource, head, &seen);
        surface_damage(head->surface, &seen);
    }
    return OK_NODATA;
}

// ---- Display information ----
static uint64_t display_info(struct virtio_gpu *gpu, const struct request *request)
{
    uint8_t body[16 * 24] = {0};
    for (unsigned i = 0; i < gpu->heads; i++) {
        uint8_t *mode = body + 24 * i;
        store_le(mode + 8, 4, gpu->head[i].width);
        store_le(mode + 12, 4, gpu->head[i].height);
        store_le(mode + 16, 4, gpu->head[i].width > 0);
    }
    return answer(request, OK_DISPLAY_INFO, body, sizeof(body));
}

static uint64_t edid(struct virtio_gpu *gpu, const struct request *request)
{
    uint8_t body[8], reply[8 + 1024] = {0};
    struct head *head;
    if (!take(request, body, sizeof(body)))
        return answer(request, ERROR_PARAMETER, NULL, 0);
    if (!take_scanout(gpu, load_le(body, 4), &head))
        return answer(request, ERROR_SCANOUT, NULL, 0);
    store_le(reply, 4, EDID_SIZE);
    edid_make(reply + 8, head->width ? head->width : gpu->width, head->height ? head->height : gpu->height,
              head_number(gpu, head) + 1);
    return answer(request, OK_EDID, reply, sizeof(reply));
}

// ---- The cursor ----
static void update_cursor(struct virtio_gpu *gpu, const struct request *request)
{
    uint8_t body[32];
    struct head *head;
    if (!take(request, body, sizeof(body)) || !take_scanout(gpu, load_le(body, 4), &head))
        return;
    uint32_t id = load_le(body + 16, 4);
    struct resource *resource = gpu_find(gpu, id);
    if (request->type == UPDATE_CURSOR && !id)
        surface_set_cursor(head->surface, NULL);
    if (request->type == UPDATE_CURSOR && resource &&
        (resource->blob ? resource->size >= CURSOR_SIDE * CURSOR_SIDE * 4 : true)) {
        uint32_t width = resource->blob ? CURSOR_SIDE : MIN(resource->width, CURSOR_MAX);
        uint32_t height = resource->blob ? CURSOR_SIDE : MIN(resource->height, CURSOR_MAX);
        struct cursor *cursor = cursor_new(width, height, load_le(body + 20, 4), load_le(body + 24, 4));
        for (uint32_t y = 0; y < height; y++) {
            uint32_t *to = cursor->argb + (size_t)y * width;
            if (resource->blob)
                read_backing(resource, (uint64_t)y * width * 4, to, 4ull * width);
            else
                memcpy(to, resource->pixels->data + (size_t)y * resource->pixels->stride, 4 * (size_t)width);
        }
        surface_set_cursor(head->surface, cursor);
    }
    // Drivers give the place of the picture's corner.
    int32_t x = load_le(body + 4, 4), y = load_le(body + 8, 4);
    int old_x, old_y;
    struct cursor *cursor = surface_cursor(head->surface, &old_x, &old_y);
    int hot_x = cursor ? cursor->hot_x : 0, hot_y = cursor ? cursor->hot_y : 0;
    cursor_unref(cursor);
    surface_move_cursor(head->surface, CLAMP(x, -32768, 32767) + hot_x, CLAMP(y, -32768, 32767) + hot_y);
}

// ---- Dispatch ----
typedef enum response simple_command(struct virtio_gpu *gpu, const struct request *request);
static simple_command *const simple_commands[] = {
    [RESOURCE_CREATE_2D - 0x100] = create_2d,
    [RESOURCE_UNREF - 0x100] = unref,
    [SET_SCANOUT - 0x100] = gpu_set_scanout,
    [RESOURCE_FLUSH - 0x100] = flush,
    [TRANSFER_TO_HOST_2D - 0x100] = transfer_2d,
    [RESOURCE_ATTACH_BACKING - 0x100] = attach_backing,
    [RESOURCE_DETACH_BACKING - 0x100] = detach_backing,
    [RESOURCE_CREATE_BLOB - 0x100] = create_blob,
    [SET_SCANOUT_BLOB - 0x100] = gpu_set_scanout_blob,
};

static uint64_t execute(struct virtio_gpu *gpu, const struct request *request)
{
    uint32_t type = request->type;
    bool blob = type == RESOURCE_CREATE_BLOB || type == SET_SCANOUT_BLOB;
    if (type == GET_DISPLAY_INFO)
        return display_info(gpu, request);
    if (type == GET_EDID && virtio_has(&gpu->proxy.virtio, FEATURE_EDID))
        return edid(gpu, request);
    if (type < 0x100 || type - 0x100 >= G_N_ELEMENTS(simple_commands) || !simple_commands[type - 0x100] ||
        (blob && !virtio_has(&gpu->proxy.virtio, FEATURE_BLOB))) {
        log_guest("virtio-gpu", "unknown command %#x", type);
        return answer(request, ERROR_UNSPECIFIED, NULL, 0);
    }
    return answer(request, simple_commands[type - 0x100](gpu, request), NULL, 0);
}

static void serve(struct virtio_gpu *gpu, struct virtqueue *queue)
{
    struct virtqueue_element *element;
    bool any = false;
    while ((element = virtqueue_pop(queue, sizeof(*element)))) {
        struct request request = {.element = element};
        uint64_t written = 0;
        if (iov_read(element->out, element->out_count, 0, request.header, HEADER_SIZE) == HEADER_SIZE) {
            request.type = load_le(request.header, 4);
            if (!gpu->driven && (request.type == SET_SCANOUT || request.type == SET_SCANOUT_BLOB))
                gpu_take_over(gpu);
            g_mutex_lock(&gpu->lock);
            if (queue->index == QUEUE_CURSOR)
                update_cursor(gpu, &request);
            else
                written = execute(gpu, &request);
            g_mutex_unlock(&gpu->lock);
        } else {
            log_guest("virtio-gpu", "a command without a header");
        }
        virtqueue_push(element, written);
        any = true;
    }
    if (any)
        virtqueue_notify(queue);
}

static void *gpu_thread(void *opaque)
{
    struct virtio_gpu *gpu = opaque;
    g_mutex_lock(&gpu->wake_lock);
    while (!gpu->quit) {
        if (!gpu->kicked || gpu->parked) {
            gpu->busy = false;
            g_cond_broadcast(&gpu->idle);
            g_cond_wait(&gpu->wake, &gpu->wake_lock);
            continue;
        }
        gpu->kicked = false;
        gpu->busy = true;
        g_mutex_unlock(&gpu->wake_lock);
        serve(gpu, &gpu->proxy.virtio.queues[QUEUE_CONTROL]);
        serve(gpu, &gpu->proxy.virtio.queues[QUEUE_CURSOR]);
        g_mutex_lock(&gpu->wake_lock);
    }
    g_mutex_unlock(&gpu->wake_lock);
    return NULL;
}

static void queue_notify(struct virtio_device *device, struct virtqueue *queue)
{
    struct virtio_gpu *gpu = container_of(virtio_pci_of(device), struct virtio_gpu, proxy);
    g_mutex_lock(&gpu->wake_lock);
    gpu->kicked = true;
    g_cond_signal(&gpu->wake);
    g_mutex_unlock(&gpu->wake_lock);
}

// ---- VGA or driver ----
// The size that a viewer would like becomes the head's monitor; the driver hears of it and may follow.
static void wish(struct virtio_gpu *gpu, unsigned number, unsigned width, unsigned height)
{
    g_mutex_lock(&gpu->lock);
    struct head *head = &gpu->head[number];
    unsigned before_width = head->width, before_height = head->height;
    head->width = width ? CLAMP(width, 64, 4095) & ~1u : number ? 0 : gpu->width;
    head->height = height ? CLAMP(height, 64, 4095) : number ? 0 : gpu->height;
    bool changed = head->width != before_width || head->height != before_height;
    g_mutex_unlock(&gpu->lock);
    if (!changed)
        return;
    store_le(gpu->config + CONFIG_EVENTS_READ, 4, load_le(gpu->config + CONFIG_EVENTS_READ, 4) | EVENT_DISPLAY);
    virtio_config_changed(&gpu->proxy.virtio);
}

static bool vga_refresh_head(void *opaque)
{
    struct head *head = opaque;
    return vga_refresh(&head->gpu->vga);
}

static void vga_draw_head(void *opaque)
{
    struct head *head = opaque;
    vga_draw(&head->gpu->vga);
}

static void head_wish(void *opaque, unsigned width, unsigned height)
{
    struct head *head = opaque;
    wish(head->gpu, head_number(head->gpu, head), width, height);
}

static const struct surface_adapter_ops vga_ops = {vga_refresh_head, vga_draw_head, head_wish};
static const struct surface_adapter_ops driver_ops = {NULL, NULL, head_wish};

// Head 0 is the driver's from now on.
void gpu_take_over(struct virtio_gpu *gpu)
{
    surface_set_adapter(gpu->head[0].surface, &driver_ops, &gpu->head[0]);
    gpu->driven = true;
}

static void give_back(struct virtio_gpu *gpu)
{
    gpu->driven = false;
    gpu->vga.changed = true;
    surface_set_cursor(gpu->head[0].surface, NULL);
    surface_set_adapter(gpu->head[0].surface, &vga_ops, &gpu->head[0]);
}

// Waits until the gpu thread does nothing, and keeps it so until unpark().
static void park(struct virtio_gpu *gpu)
{
    g_mutex_lock(&gpu->wake_lock);
    gpu->parked = true;
    while (gpu->busy)
        g_cond_wait(&gpu->idle, &gpu->wake_lock);
    g_mutex_unlock(&gpu->wake_lock);
}

static void unpark(struct virtio_gpu *gpu)
{
    g_mutex_lock(&gpu->wake_lock);
    gpu->parked = false;
    gpu->kicked = true;
    g_cond_signal(&gpu->wake);
    g_mutex_unlock(&gpu->wake_lock);
}

void gpu_drop_everything(struct virtio_gpu *gpu)
{
    for (unsigned i = 0; i < gpu->heads; i++)
        if (gpu->head[i].resource)
            show_nothing(&gpu->head[i]);
    g_hash_table_remove_all(gpu->resources);
    gpu->memory_used = 0;
    if (gpu->driven)
        give_back(gpu);
}

static void device_reset(struct virtio_device *device)
{
    struct virtio_gpu *gpu = container_of(virtio_pci_of(device), struct virtio_gpu, proxy);
    park(gpu);
    gpu_drop_everything(gpu);
    unpark(gpu);
}

static void config_written(struct virtio_device *device, unsigned offset, unsigned size)
{
    struct virtio_gpu *gpu = container_of(virtio_pci_of(device), struct virtio_gpu, proxy);
    uint32_t events = load_le(gpu->config + CONFIG_EVENTS_READ, 4) & ~load_le(gpu->config + CONFIG_EVENTS_CLEAR, 4);
    memset(gpu->config, 0, CONFIG_SIZE);
    store_le(gpu->config + CONFIG_EVENTS_READ, 4, offset == CONFIG_EVENTS_CLEAR ? events : 0);
    store_le(gpu->config + CONFIG_SCANOUTS, 4, gpu->heads);
}

static const struct virtio_ops gpu_virtio_ops = {
    .id = VIRTIO_ID_GPU,
    .features = FEATURE_EDID | FEATURE_BLOB,
    .queue_notify = queue_notify,
    .config_written = config_written,
    .reset = device_reset,
};

// ---- Life ----
static bool virtio_gpu_realize(struct device *device, GError **error)
{
    struct virtio_gpu *gpu = container_of(device, struct virtio_gpu, proxy.pci.device);
    struct machine *machine = device->machine;
    if (gpu->memory & (gpu->memory - 1)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "virtio-gpu: the VGA memory must be a power of two, such as 16M");
        return false;
    }
    virtio_device_init(&gpu->proxy.virtio, machine, device->id, &gpu_virtio_ops, gpu->config, CONFIG_SIZE);
    virtio_add_queue(&gpu->proxy.virtio, QUEUE_CONTROL, CONTROL_SIZE);
    virtio_add_queue(&gpu->proxy.virtio, QUEUE_CURSOR, CURSOR_SIZE);
    store_le(gpu->config + CONFIG_SCANOUTS, 4, gpu->heads);
    const struct virtio_pci_description description = {
        .class_code = 3, .vectors = 3, .rom = "/usr/share/seabios/vgabios-virtio.bin"};
    if (!virtio_pci_realize(&gpu->proxy, &description, error))
        return false;
    vga_init(&gpu->vga, machine, gpu->memory);
    pci_set_bar(&gpu->proxy.pci, 0, &gpu->vga.linear, false, false, true);
    g_mutex_init(&gpu->lock);
    g_mutex_init(&gpu->wake_lock);
    g_cond_init(&gpu->wake);
    g_cond_init(&gpu->idle);
    gpu->resources = g_hash_table_new_full(NULL, NULL, NULL, gpu_resource_free);
    for (unsigned i = 0; i < gpu->heads; i++) {
        struct head *head = &gpu->head[i];
        head->gpu = gpu;
        head->surface = surface_new(machine->screen, i ? &driver_ops : &vga_ops, head);
        head->width = i ? 0 : gpu->width;
        head->height = i ? 0 : gpu->height;
    }
    gpu->vga.surface = gpu->head[0].surface;
    gpu->thread = g_thread_new("gpu", gpu_thread, gpu);
    return true;
}

static void virtio_gpu_unrealize(struct device *device)
{
    struct virtio_gpu *gpu = container_of(device, struct virtio_gpu, proxy.pci.device);
    if (gpu->thread) {
        g_mutex_lock(&gpu->wake_lock);
        gpu->quit = true;
        g_cond_signal(&gpu->wake);
        g_mutex_unlock(&gpu->wake_lock);
        g_thread_join(gpu->thread);
        for (unsigned i = 0; i < gpu->heads; i++)
            surface_set_adapter(gpu->head[i].surface, NULL, NULL);
        g_hash_table_unref(gpu->resources);
        g_cond_clear(&gpu->idle);
        g_cond_clear(&gpu->wake);
        g_mutex_clear(&gpu->wake_lock);
        g_mutex_clear(&gpu->lock);
        vga_exit(&gpu->vga);
    }
    virtio_pci_unrealize(&gpu->proxy);
    g_free(gpu->saved);
}

static void virtio_gpu_reset(struct device *device)
{
    struct virtio_gpu *gpu = container_of(device, struct virtio_gpu, proxy.pci.device);
    virtio_pci_reset(&gpu->proxy);
    vga_reset(&gpu->vga);
}

static void virtio_gpu_quiesce(struct device *device)
{
    struct virtio_gpu *gpu = container_of(device, struct virtio_gpu, proxy.pci.device);
    park(gpu);
    gpu_save(gpu);
    unpark(gpu);
}

static bool virtio_gpu_loaded(struct device *device, GError **error)
{
    struct virtio_gpu *gpu = container_of(device, struct virtio_gpu, proxy.pci.device);
    virtio_pci_loaded(&gpu->proxy);
    vga_loaded(&gpu->vga);
    park(gpu);
    bool good = gpu_load(gpu);
    unpark(gpu);
    if (!good)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "the saved pictures of %s are damaged", device->id);
    return good;
}

static const struct property virtio_gpu_properties[] = {
    {"heads", PROPERTY_UINT, offsetof(struct virtio_gpu, heads), "1", 1, HEADS_MAX, "monitors that can be connected"},
    {"width", PROPERTY_UINT, offsetof(struct virtio_gpu, width), "1280", 64, 4095, "width that the monitor prefers"},
    {"height", PROPERTY_UINT, offsetof(struct virtio_gpu, height), "800", 64, 4095, "height that the monitor prefers"},
    {"memory", PROPERTY_SIZE, offsetof(struct virtio_gpu, memory), "16M", 1 * MiB, 256 * MiB,
     "VGA's memory, a power of two"},
    PROPERTY_END,
};

static const struct field virtio_gpu_fields[] = {
    FIELD_STRUCT(struct virtio_gpu, proxy, virtio_pci_fields),
    FIELD_STRUCT(struct virtio_gpu, vga, vga_fields),
    FIELD_BYTES(struct virtio_gpu, config),
    FIELD_BUFFER(struct virtio_gpu, saved, saved_bytes),
    FIELD_END,
};

const struct device_class virtio_gpu_class = {
    .name = "virtio-gpu",
    .help = "virtio graphics with up to four heads, and VGA until its driver runs",
    .size = sizeof(struct virtio_gpu),
    .properties = virtio_gpu_properties,
    .realize = virtio_gpu_realize,
    .unrealize = virtio_gpu_unrealize,
    .reset = virtio_gpu_reset,
    .quiesce = virtio_gpu_quiesce,
    .fields = virtio_gpu_fields,
    .version = 1,
    .loaded = virtio_gpu_loaded,
};
