// SPDX-License-Identifier: GPL-2.0-or-later
// ELF images, for PVH and multiboot kernels (System V ABI; Xen's PHYS32_ENTRY note).
#include "devices/firmware/direct_boot.h"

#include <elf.h>
#include <string.h>

#define NOTE_PHYS32_ENTRY 18
#define MAX_SEGMENTS      64

struct segment_header {
    uint32_t type;
    uint64_t offset, address, file_size, memory_size;
};

static bool is_64(const uint8_t *data)
{
    return data[EI_CLASS] == ELFCLASS64;
}

static unsigned segment_count(const uint8_t *data)
{
    unsigned count = load_le(data + (is_64(data) ? 56 : 44), 2);
    return MIN(count, MAX_SEGMENTS);
}

// False when the header or its bytes lie outside the file.
static bool read_segment(const uint8_t *data, size_t size, unsigned n, struct segment_header *h)
{
    bool wide = is_64(data);
    uint64_t table = load_le(data + (wide ? 32 : 28), wide ? 8 : 4);
    unsigned entry = load_le(data + (wide ? 54 : 42), 2);
    if (entry < (wide ? 56u : 32u) || table > size || (uint64_t)entry * (n + 1) > size - table)
        return false;
    const uint8_t *p = data + table + entry * n;
    if (wide)
        *h = (struct segment_header){load_le(p, 4), load_le(p + 8, 8), load_le(p + 24, 8), load_le(p + 32, 8),
                                     load_le(p + 40, 8)};
    else
        *h = (struct segment_header){load_le(p, 4), load_le(p + 4, 4), load_le(p + 12, 4), load_le(p + 16, 4),
                                     load_le(p + 20, 4)};
    return h->offset <= size && h->file_size <= size - h->offset &&
           h->file_size <= h->memory_size + 0ull + (h->type == PT_NOTE ? h->file_size : 0);
}

static uint64_t find_entry_note(const uint8_t *notes, uint64_t size)
{
    uint64_t at = 0;
    while (size - at >= 12) {
        uint32_t name = load_le(notes + at, 4), bytes = load_le(notes + at + 4, 4), type = load_le(notes + at + 8, 4);
        uint64_t data = at + 12 + ALIGN_UP((uint64_t)name, 4), next = data + ALIGN_UP((uint64_t)bytes, 4);
        if (next > size || next <= at)
            return 0;
        if (type == NOTE_PHYS32_ENTRY && name == 4 && memcmp(notes + at + 12, "Xen", 4) == 0 && bytes >= 4)
            return load_le(notes + data, bytes >= 8 ? 8 : 4);
        at = next;
    }
    return 0;
}

bool boot_elf_scan(const uint8_t *data, size_t size, struct boot_elf *elf)
{
    if (size < 64 || memcmp(data, ELFMAG, SELFMAG) != 0 || data[EI_DATA] != ELFDATA2LSB)
        return false;
    *elf = (struct boot_elf){.lowest = UINT64_MAX};
    elf->entry = load_le(data + 24, is_64(data) ? 8 : 4);
    for (unsigned n = 0; n < segment_count(data); n++) {
        struct segment_header h;
        if (!read_segment(data, size, n, &h))
            return false;
        if (h.type == PT_NOTE && !elf->note_entry)
            elf->note_entry = find_entry_note(data + h.offset, h.file_size);
        if (h.type != PT_LOAD || !h.memory_size)
            continue;
        if (h.address + h.memory_size < h.address)
            return false;
        elf->lowest = MIN(elf->lowest, h.address);
        elf->highest = MAX(elf->highest, h.address + h.memory_size);
    }
    return elf->highest > 0;
}

void boot_elf_place(const uint8_t *data, size_t size, struct address_space *memory)
{
    static const uint8_t zeros[4096];
    for (unsigned n = 0; n < segment_count(data); n++) {
        struct segment_header h;
        if (!read_segment(data, size, n, &h) || h.type != PT_LOAD)
            continue;
        address_space_write(memory, h.address, data + h.offset, h.file_size);
        for (uint64_t at = h.file_size; at < h.memory_size; at += sizeof(zeros))
            address_space_write(memory, h.address + at, zeros, MIN(sizeof(zeros), h.memory_size - at));
    }
}

// ---- PVH (Xen's x86/HVM direct boot ABI) ----
#define START_INFO       0x6000
#define START_INFO_MAGIC 0x336ec578
#define MODULE_LIST      0x6100
#define MEMORY_MAP       0x6200

static bool pvh_recognise(const struct boot_image *image)
{
    struct boot_elf elf;
    return boot_elf_scan(image->data, image->size, &elf) && elf.note_entry;
}

static uint64_t initrd_address(const struct boot_image *image, const struct machine *machine)
{
    uint64_t end = MIN(machine->ram_below_4g, 0x80000000);
    return end < image->initrd_size ? 0 : ALIGN_DOWN(end - image->initrd_size, PAGE_SIZE);
}

static bool pvh_check(const struct boot_image *image, struct machine *machine, GError **error)
{
    struct boot_elf elf;
    boot_elf_scan(image->data, image->size, &elf);
    uint64_t end = image->initrd_size ? initrd_address(image, machine) : machine->ram_below_4g;
    if (elf.lowest >= 1 * MiB && elf.highest <= end && elf.note_entry < 4 * GiB)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                "The kernel does not fit between 1 MiB and the end of memory: give the machine more memory.");
    return false;
}

static void pvh_place(const struct boot_image *image, struct machine *machine)
{
    struct address_space *memory = machine->memory;
    struct boot_elf elf;
    boot_elf_scan(image->data, image->size, &elf);
    boot_elf_place(image->data, image->size, memory);
    uint8_t info[56] = {0}, module[32] = {0}, map[24 * BOOT_MEMORY_MAX] = {0};
    store_le(info, 4, START_INFO_MAGIC);
    store_le(info + 4, 4, 1);
    store_le(info + 24, 8, BOOT_COMMAND_LINE);
    store_le(info + 32, 8, image->rsdp);
    if (image->initrd_size) {
        uint64_t at = initrd_address(image, machine);
        address_space_write(memory, at, image->initrd, image->initrd_size);
        store_le(info + 12, 4, 1);
        store_le(info + 16, 8, MODULE_LIST);
        store_le(module, 8, at);
        store_le(module + 8, 8, image->initrd_size);
    }
    store_le(info + 40, 8, MEMORY_MAP);
    store_le(info + 48, 4, image->map_count);
    for (unsigned i = 0; i < image->map_count; i++) {
        store_le(map + 24 * i, 8, image->map[i].start);
        store_le(map + 24 * i + 8, 8, image->map[i].size);
        store_le(map + 24 * i + 16, 4, image->map[i].type);
    }
    address_space_write(memory, START_INFO, info, sizeof(info));
    address_space_write(memory, MODULE_LIST, module, sizeof(module));
    address_space_write(memory, MEMORY_MAP, map, 24 * image->map_count);
    struct vcpu *v = boot_flat_processor(machine, false);
    v->rip = elf.note_entry;
    v->gpr[RBX] = START_INFO;
}

const struct boot_protocol boot_pvh = {"pvh", pvh_recognise, pvh_check, pvh_place};
