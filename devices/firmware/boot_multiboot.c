// SPDX-License-Identifier: GPL-2.0-or-later
// Multiboot 0.6.96: the header in the first 8 KiB, a.out-style addresses or ELF, one module from --initrd.
#include "devices/firmware/direct_boot.h"

#include <string.h>

#define HEADER_MAGIC   0x1badb002
#define LOADER_MAGIC   0x2badb002
#define SEARCH_BYTES   8192
#define FLAG_ADDRESSES 0x10000
#define FLAG_VIDEO     0x4
#define INFO           0x6000
#define MODULES        0x6100
#define MEMORY_MAP     0x6200
#define LOADER_NAME    0x6400

struct placement {
    uint64_t file_offset, load, load_end, bss_end, entry;
    bool elf;
};

static const uint8_t *find_header(const struct boot_image *image)
{
    for (size_t at = 0; at + 12 <= MIN(image->size, SEARCH_BYTES); at += 4) {
        const uint8_t *h = image->data + at;
        uint32_t sum = load_le(h, 4) + load_le(h + 4, 4) + load_le(h + 8, 4);
        if (load_le(h, 4) == HEADER_MAGIC && sum == 0)
            return h;
    }
    return NULL;
}

// Where everything goes. False: the header contradicts the file.
static bool plan(const struct boot_image *image, struct placement *p)
{
    const uint8_t *h = find_header(image);
    size_t at = h - image->data;
    if (!(load_le(h + 4, 4) & FLAG_ADDRESSES)) {
        struct boot_elf elf;
        if (!boot_elf_scan(image->data, image->size, &elf))
            return false;
        *p = (struct placement){.load = elf.lowest, .bss_end = elf.highest, .entry = elf.entry, .elf = true};
        return true;
    }
    if (at + 32 > image->size)
        return false;
    uint64_t header = load_le(h + 12, 4), load = load_le(h + 16, 4), load_end = load_le(h + 20, 4);
    if (load > header || header - load > at)
        return false;
    p->elf = false;
    p->file_offset = at - (header - load);
    p->load = load;
    p->load_end = load_end ? load_end : load + (image->size - p->file_offset);
    p->bss_end = MAX(load_le(h + 24, 4), p->load_end);
    p->entry = load_le(h + 28, 4);
    return p->load_end >= load && p->load_end - load <= image->size - p->file_offset;
}

static bool recognise(const struct boot_image *image)
{
    return find_header(image) != NULL;
}

static uint64_t module_address(const struct placement *p)
{
    return ALIGN_UP(p->bss_end, PAGE_SIZE);
}

static bool check(const struct boot_image *image, struct machine *machine, GError **error)
{
    struct placement p;
    if (!plan(image, &p) || p.load < 1 * MiB) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "The multiboot header of the kernel is damaged.");
        return false;
    }
    if (module_address(&p) + image->initrd_size <= machine->ram_below_4g)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                "The kernel and its module do not fit into memory: give the machine more.");
    return false;
}

static void place_image(const struct boot_image *image, struct address_space *memory, const struct placement *p)
{
    static const uint8_t zeros[4096];
    if (p->elf) {
        boot_elf_place(image->data, image->size, memory);
        return;
    }
    address_space_write(memory, p->load, image->data + p->file_offset, p->load_end - p->load);
    for (uint64_t at = p->load_end; at < p->bss_end; at += sizeof(zeros))
        address_space_write(memory, at, zeros, MIN(sizeof(zeros), p->bss_end - at));
}

static void place(const struct boot_image *image, struct machine *machine)
{
    struct address_space *memory = machine->memory;
    struct placement p;
    plan(image, &p);
    place_image(image, memory, &p);
    uint8_t info[120] = {0}, module[16] = {0}, map[24 * BOOT_MEMORY_MAX];
    uint32_t flags = 0x1 | 0x4 | 0x40 | 0x200;
    store_le(info + 4, 4, 639);
    store_le(info + 8, 4, (machine->ram_below_4g - 1 * MiB) / KiB);
    store_le(info + 16, 4, BOOT_COMMAND_LINE);
    if (image->initrd_size) {
        uint64_t at = module_address(&p);
        address_space_write(memory, at, image->initrd, image->initrd_size);
        flags |= 0x8;
        store_le(info + 20, 4, 1);
        store_le(info + 24, 4, MODULES);
        store_le(module, 4, at);
        store_le(module + 4, 4, at + image->initrd_size);
        store_le(module + 8, 4, BOOT_COMMAND_LINE);
    }
    for (unsigned i = 0; i < image->map_count; i++) {
        store_le(map + 24 * i, 4, 20);
        store_le(map + 24 * i + 4, 8, image->map[i].start);
        store_le(map + 24 * i + 12, 8, image->map[i].size);
        store_le(map + 24 * i + 20, 4, image->map[i].type);
    }
    store_le(info + 44, 4, 24 * image->map_count);
    store_le(info + 48, 4, MEMORY_MAP);
    store_le(info + 64, 4, LOADER_NAME);
    store_le(info, 4, flags);
    address_space_write(memory, INFO, info, sizeof(info));
    address_space_write(memory, MODULES, module, sizeof(module));
    address_space_write(memory, MEMORY_MAP, map, 24 * image->map_count);
    address_space_write(memory, LOADER_NAME, "Cloche", 7);
    struct vcpu *v = boot_flat_processor(machine, false);
    v->rip = p.entry;
    v->gpr[RAX] = LOADER_MAGIC;
    v->gpr[RBX] = INFO;
}

const struct boot_protocol boot_multiboot = {"multiboot", recognise, check, place};
