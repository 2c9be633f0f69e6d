// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/display/virtio_gpu.h"

#include <string.h>

// ---- Saved state: a list of heads and resources, as little-endian numbers ----
static void put(GByteArray *out, uint64_t value, unsigned size)
{
    uint8_t bytes[8];
    store_le(bytes, size, value);
    g_byte_array_append(out, bytes, size);
}

static void save_resource(struct virtio_gpu *gpu, GByteArray *out, const struct resource *resource)
{
    const struct ram *ram = gpu->proxy.virtio.machine->ram;
    put(out, resource->id, 4);
    put(out, resource->blob, 4);
    put(out, resource->format, 4);
    put(out, resource->width, 4);
    put(out, resource->height, 4);
    put(out, resource->size, 8);
    put(out, resource->piece_count, 4);
    for (unsigned i = 0; i < resource->piece_count; i++) {
        put(out, resource->pieces[i].host - ram->host, 8);
        put(out, resource->pieces[i].length, 4);
    }
    for (uint32_t y = 0; !resource->blob && y < resource->height; y++)
        g_byte_array_append(out, resource->pixels->data + (size_t)y * resource->pixels->stride, 4 * resource->width);
}

void gpu_save(struct virtio_gpu *gpu)
{
    GByteArray *out = g_byte_array_new();
    GHashTableIter iterator;
    gpointer resource;
    put(out, g_hash_table_size(gpu->resources), 4);
    g_hash_table_iter_init(&iterator, gpu->resources);
    while (g_hash_table_iter_next(&iterator, NULL, &resource))
        save_resource(gpu, out, resource);
    put(out, gpu->driven, 4);
    for (unsigned i = 0; i < HEADS_MAX; i++) {
        const struct head *head = &gpu->head[i];
        const uint32_t values[] = {head->resource, head->part.x, head->part.y, head->part.width, head->part.height,
                                   head->stride,   head->offset, head->format, head->width,      head->height};
        for (unsigned k = 0; k < G_N_ELEMENTS(values); k++)
            put(out, values[k], 4);
    }
    g_free(gpu->saved);
    gpu->saved_bytes = out->len;
    gpu->saved = g_byte_array_free(out, FALSE);
}

struct reader {
    const uint8_t *data;
    size_t left;
    bool good;
};

static uint64_t get(struct reader *reader, unsigned size)
{
    if (reader->left < size) {
        reader->good = false;
        return 0;
    }
    uint64_t value = load_le(reader->data, size);
    reader->data += size;
    reader->left -= size;
    return value;
}

static void load_pieces(struct virtio_gpu *gpu, struct reader *in, struct resource *resource)
{
    const struct ram *ram = gpu->proxy.virtio.machine->ram;
    uint32_t count = get(in, 4);
    if (count > ENTRIES_MAX || in->left < 12ull * count) {
        in->good = false;
        return;
    }
    resource->pieces = count ? g_new0(struct piece, count) : NULL;
    for (; resource->piece_count < count; resource->piece_count++) {
        uint64_t offset = get(in, 8), length = get(in, 4);
        if (offset > ram->used || length > ram->used - offset) {
            in->good = false;
            return;
        }
        resource->pieces[resource->piece_count] = (struct piece){ram->host + offset, length};
    }
}

static void load_resource(struct virtio_gpu *gpu, struct reader *in)
{
    uint8_t at[4];
    struct resource *resource = g_new0(struct resource, 1);
    resource->id = get(in, 4);
    resource->blob = get(in, 4);
    resource->format = get(in, 4);
    resource->width = get(in, 4);
    resource->height = get(in, 4);
    resource->size = get(in, 8);
    load_pieces(gpu, in, resource);
    bool sane = resource->blob ? resource->size <= MEMORY_MAX
                               : gpu_format_bytes(resource->format, at) && resource->width && resource->height &&
                                     resource->width <= SURFACE_MAX_WIDTH && resource->height <= SURFACE_MAX_HEIGHT &&
                                     in->left >= gpu_resource_bytes(resource);
    if (sane && in->good && !resource->blob &&
        (resource->pixels = gpu_resource_pixels(resource->width, resource->height)))
        for (uint32_t y = 0; y < resource->height;
             y++, in->data += 4 * resource->width, in->left -= 4 * resource->width)
            memcpy(resource->pixels->data + (size_t)y * resource->pixels->stride, in->data, 4 * resource->width);
    in->good &= sane && resource->id && !gpu_find(gpu, resource->id) && (resource->blob || resource->pixels);
    if (!in->good) {
        gpu_resource_free(resource);
        return;
    }
    if (resource->blob)
        gpu_map_blob(resource);
    else
        gpu->memory_used += gpu_resource_bytes(resource);
    g_hash_table_insert(gpu->resources, GUINT_TO_POINTER(resource->id), resource);
}

// Sets the head's picture up by the same command that the driver gave, so that the same checks apply.
static void load_head(struct virtio_gpu *gpu, struct reader *in, unsigned number)
{
    uint32_t values[10];
    for (unsigned k = 0; k < G_N_ELEMENTS(values); k++)
        values[k] = get(in, 4);
    struct resource *resource = in->good && values[0] ? gpu_find(gpu, values[0]) : NULL;
    if (number >= gpu->heads)
        return;
    gpu->head[number].width = MIN(values[8], 4095);
    gpu->head[number].height = MIN(values[9], 4095);
    if (!resource)
        return;
    uint8_t command[HEADER_SIZE + 72] = {0};
    for (unsigned k = 0; k < 4; k++)
        store_le(command + HEADER_SIZE + 4 * k, 4, values[1 + k]);
    store_le(command + HEADER_SIZE + 16, 4, number);
    store_le(command + HEADER_SIZE + 20, 4, values[0]);
    store_le(command + HEADER_SIZE + 24, 4, values[1] + values[3]);
    store_le(command + HEADER_SIZE + 28, 4, values[2] + values[4]);
    store_le(command + HEADER_SIZE + 32, 4, values[7]);
    store_le(command + HEADER_SIZE + 40, 4, values[5]);
    store_le(command + HEADER_SIZE + 56, 4, values[6]);
    struct iovec vector = {command, sizeof(command)};
    struct virtqueue_element element = {.out = &vector, .out_count = 1, .out_length = sizeof(command)};
    struct request request = {.element = &element};
    in->good &= (resource->blob ? gpu_set_scanout_blob : gpu_set_scanout)(gpu, &request) == OK_NODATA;
    struct head *head = &gpu->head[number];
    if (in->good && head->copied)
        gpu_copy_blob(resource, head, &(struct rectangle){0, 0, head->part.width, head->part.height});
}

bool gpu_load(struct virtio_gpu *gpu)
{
    struct reader in = {gpu->saved, gpu->saved_bytes, true};
    uint32_t count = get(&in, 4);
    gpu_drop_everything(gpu);
    for (uint32_t i = 0; i < count && i < RESOURCES_MAX && in.good; i++)
        load_resource(gpu, &in);
    if (in.good && get(&in, 4))
        gpu_take_over(gpu);
    for (unsigned i = 0; i < HEADS_MAX && in.good; i++)
        load_head(gpu, &in, i);
    return in.good;
}
