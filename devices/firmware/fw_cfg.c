// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/firmware/fw_cfg.h"

#include <string.h>

#define FILES           64
#define ITEMS           (FW_CFG_FILE_FIRST + FILES)
#define NAME_BYTES      56
#define DIRECTORY_ENTRY 64

#define ID_TRADITIONAL 1
#define ID_DMA         2

#define DMA_ERROR  0x01
#define DMA_READ   0x02
#define DMA_SKIP   0x04
#define DMA_SELECT 0x08
#define DMA_WRITE  0x10

struct item {
    const uint8_t *data;
    uint32_t length;
    GBytes *bytes; // that DATA belongs to
};

struct fw_cfg {
    struct device device;
    struct item items[ITEMS];
    char names[FILES][NAME_BYTES];
    unsigned file_count;
    uint16_t selected;
    uint32_t offset;
    uint32_t dma_high;
    struct region ports, dma;
};

// ---- Filling in ----
void fw_cfg_add(struct fw_cfg *s, uint16_t key, const void *data, uint32_t length)
{
    g_autoptr(GBytes) bytes = g_bytes_new(data, length);
    fw_cfg_add_bytes(s, key, bytes);
}

void fw_cfg_add_bytes(struct fw_cfg *s, uint16_t key, GBytes *bytes)
{
    gsize length;
    const uint8_t *data = g_bytes_get_data(bytes, &length);
    g_assert(key < ITEMS && length <= UINT32_MAX);
    g_bytes_ref(bytes);
    g_clear_pointer(&s->items[key].bytes, g_bytes_unref);
    s->items[key] = (struct item){data, length, bytes};
}

void fw_cfg_add_number(struct fw_cfg *s, uint16_t key, uint64_t value, unsigned size)
{
    uint8_t bytes[8];
    store_le(bytes, size, value);
    fw_cfg_add(s, key, bytes, size);
}

// Big-endian: count; then per file size, key, reserved, name. Sorted by name is not required.
static void write_directory(struct fw_cfg *s)
{
    g_autoptr(GByteArray) directory = g_byte_array_new();
    uint32_t count = GUINT32_TO_BE(s->file_count);
    g_byte_array_append(directory, (uint8_t *)&count, 4);
    for (unsigned i = 0; i < s->file_count; i++) {
        uint32_t size = GUINT32_TO_BE(s->items[FW_CFG_FILE_FIRST + i].length);
        uint16_t key = GUINT16_TO_BE(FW_CFG_FILE_FIRST + i), reserved = 0;
        g_byte_array_append(directory, (uint8_t *)&size, 4);
        g_byte_array_append(directory, (uint8_t *)&key, 2);
        g_byte_array_append(directory, (uint8_t *)&reserved, 2);
        g_byte_array_append(directory, (uint8_t *)s->names[i], NAME_BYTES);
    }
    fw_cfg_add(s, FW_CFG_FILE_DIR, directory->data, directory->len);
}

bool fw_cfg_add_file(struct fw_cfg *s, const char *name, const void *data, uint32_t length)
{
    unsigned n = 0;
    while (n < s->file_count && strcmp(s->names[n], name) != 0)
        n++;
    if (n == FILES || strlen(name) >= NAME_BYTES)
        return false;
    if (n == s->file_count)
        g_strlcpy(s->names[s->file_count++], name, NAME_BYTES);
    fw_cfg_add(s, FW_CFG_FILE_FIRST + n, data, length);
    write_directory(s);
    return true;
}

// ---- Reading ----
static void select_item(struct fw_cfg *s, uint16_t key)
{
    s->selected = key & 0xbfff; // bit 14 asks for writing; bit 15, items of the architecture, stays a number of its own
    s->offset = 0;
}

// What is left of the selected item from the read position on.
static struct item rest(const struct fw_cfg *s)
{
    if (s->selected >= ITEMS || s->offset >= s->items[s->selected].length)
        return (struct item){0};
    const struct item *item = &s->items[s->selected];
    return (struct item){.data = item->data + s->offset, .length = item->length - s->offset};
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
    struct fw_cfg *s = opaque;
    if (offset != 1)
        return 0;
    struct item left = rest(s);
    if (!left.length)
        return 0;
    s->offset++;
    return left.data[0];
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    if (offset == 0 && size == 2)
        select_item(opaque, value);
}

// ---- DMA ----
static void dma_read_item(struct fw_cfg *s, uint64_t address, uint32_t length)
{
    static const uint8_t zeros[4096];
    struct address_space *memory = s->device.machine->memory;
    struct item left = rest(s);
    uint32_t present = MIN(length, left.length);
    address_space_write(memory, address, left.data, present);
    // Past the end of an item there are zeros; a hostile length stops at the largest machine's memory.
    for (uint64_t done = present; done < length; done += sizeof(zeros))
        address_space_write(memory, address + done, zeros, MIN(sizeof(zeros), length - done));
}

static void run_dma(struct fw_cfg *s, uint64_t address)
{
    struct address_space *memory = s->device.machine->memory;
    uint32_t words[4];
    address_space_read(memory, address, words, sizeof(words));
    uint32_t control = GUINT32_FROM_BE(words[0]), length = GUINT32_FROM_BE(words[1]);
    uint64_t target = (uint64_t)GUINT32_FROM_BE(words[2]) << 32 | GUINT32_FROM_BE(words[3]);
    uint32_t result = 0;
    if (control & DMA_SELECT)
        select_item(s, control >> 16);
    if (control & DMA_READ) {
        dma_read_item(s, target, MIN(length, 256 * MiB));
        s->offset += MIN(length, rest(s).length);
    } else if (control & DMA_SKIP) {
        s->offset += MIN(length, rest(s).length);
    } else if (control & DMA_WRITE) {
        result = DMA_ERROR; // no item takes writes
    }
    result = GUINT32_TO_BE(result);
    address_space_write(memory, address, &result, sizeof(result));
}

static uint64_t dma_read(void *opaque, uint64_t offset, unsigned size)
{
    static const uint8_t signature[8] = "QEMU CFG";
    uint64_t value = 0; // big-endian register
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)signature[offset + i] << 8 * i;
    return value;
}

static void dma_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct fw_cfg *s = opaque;
    if (size == 8) {
        run_dma(s, GUINT64_SWAP_LE_BE(value));
    } else if (size == 4 && offset == 0) {
        s->dma_high = GUINT32_SWAP_LE_BE((uint32_t)value);
    } else if (size == 4) {
        uint64_t address = (uint64_t)s->dma_high << 32 | GUINT32_SWAP_LE_BE((uint32_t)value);
        s->dma_high = 0;
        run_dma(s, address);
    }
}

static const struct io_ops port_ops = {ports_read, ports_write, 1, 2};
static const struct io_ops dma_ops = {dma_read, dma_write, 1, 8};

static bool realize(struct device *device, GError **error)
{
    struct fw_cfg *s = (struct fw_cfg *)device;
    fw_cfg_add(s, FW_CFG_SIGNATURE, "QEMU", 4);
    fw_cfg_add_number(s, FW_CFG_ID, ID_TRADITIONAL | ID_DMA, 4);
    write_directory(s);
    region_init_io(&s->ports, "fw_cfg", &port_ops, s, 2);
    region_init_io(&s->dma, "fw_cfg dma", &dma_ops, s, 8);
    address_space_map(device->machine->ports, &s->ports, 0x510, 0);
    address_space_map(device->machine->ports, &s->dma, 0x514, 0);
    device->machine->fw_cfg = s;
    return true;
}

static void unrealize(struct device *device)
{
    struct fw_cfg *s = (struct fw_cfg *)device;
    for (unsigned i = 0; i < ITEMS; i++)
        g_clear_pointer(&s->items[i].bytes, g_bytes_unref);
    device->machine->fw_cfg = NULL;
}

static void reset(struct device *device)
{
    struct fw_cfg *s = (struct fw_cfg *)device;
    select_item(s, FW_CFG_SIGNATURE);
    s->dma_high = 0;
}

static const struct field fields[] = {
    FIELD_U16(struct fw_cfg, selected),
    FIELD_U32(struct fw_cfg, offset),
    FIELD_U32(struct fw_cfg, dma_high),
    FIELD_END,
};

const struct device_class fw_cfg_class = {
    .name = "fw-cfg",
    .help = "the firmware configuration channel",
    .size = sizeof(struct fw_cfg),
    .realize = realize,
    .unrealize = unrealize,
    .reset = reset,
    .fields = fields,
    .internal = true,
};
