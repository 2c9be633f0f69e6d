// SPDX-License-Identifier: GPL-2.0-or-later
// The Linux/x86 boot protocol (kernel documentation, arch/x86/boot): bzImage by its 32-bit or 64-bit entry point.
#include "devices/firmware/direct_boot.h"

#include <string.h>

// Offsets in the setup header and in the boot parameters ("zero page").
#define SETUP_SECTS     0x1f1
#define BOOT_FLAG       0x1fe
#define HEADER_MAGIC    0x202
#define VERSION         0x206
#define TYPE_OF_LOADER  0x210
#define LOADFLAGS       0x211
#define CODE32_START    0x214
#define RAMDISK_IMAGE   0x218
#define RAMDISK_SIZE    0x21c
#define HEAP_END        0x224
#define CMD_LINE_PTR    0x228
#define INITRD_ADDR_MAX 0x22c
#define XLOADFLAGS      0x236
#define CMDLINE_SIZE    0x238
#define INIT_SIZE       0x260
#define ACPI_RSDP_ADDR  0x070
#define E820_ENTRIES    0x1e8
#define E820_TABLE      0x2d0

#define LOADED_HIGH    0x01
#define CAN_USE_HEAP   0x80
#define XLF_KERNEL_64  0x01
#define KERNEL_ADDRESS (1 * MiB)
#define ENTRY_64       0x200

static uint16_t version(const struct boot_image *image)
{
    return load_le(image->data + VERSION, 2);
}

static size_t setup_size(const struct boot_image *image)
{
    unsigned sectors = image->data[SETUP_SECTS];
    return ((sectors ? sectors : 4) + 1) * 512;
}

static bool recognise(const struct boot_image *image)
{
    return image->size > 0x268 && memcmp(image->data + HEADER_MAGIC, "HdrS", 4) == 0 &&
           load_le(image->data + BOOT_FLAG, 2) == 0xaa55;
}

// Where the initial RAM disk goes: as high as the kernel allows.
static uint64_t initrd_address(const struct boot_image *image, const struct machine *machine)
{
    uint64_t limit = version(image) >= 0x203 ? load_le(image->data + INITRD_ADDR_MAX, 4) : 0x37ffffff;
    uint64_t end = MIN(limit + 1, machine->ram_below_4g);
    return end < image->initrd_size ? 0 : ALIGN_DOWN(end - image->initrd_size, PAGE_SIZE);
}

static uint64_t kernel_end(const struct boot_image *image)
{
    uint64_t need = image->size - setup_size(image);
    if (version(image) >= 0x20a)
        need = MAX(need, load_le(image->data + INIT_SIZE, 4));
    return KERNEL_ADDRESS + need;
}

static bool check(const struct boot_image *image, struct machine *machine, GError **error)
{
    if (version(image) < 0x202 || !(image->data[LOADFLAGS] & LOADED_HIGH)) {
        g_set_error(
            error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
            "The kernel speaks boot protocol %x.%02x and must be loaded low: boot it from a disk or CD instead.",
            version(image) >> 8, version(image) & 0xff);
        return false;
    }
    if (image->size <= setup_size(image)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "The kernel file is cut short: copy it again.");
        return false;
    }
    uint64_t end = kernel_end(image);
    if (end > machine->ram_below_4g || (image->initrd_size && initrd_address(image, machine) < end)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "The kernel and its initial RAM disk need %" G_GUINT64_FORMAT " MiB: give the machine more memory.",
                    ((end + image->initrd_size) >> 20) + 1);
        return false;
    }
    return true;
}

static void write_parameters(const struct boot_image *image, struct machine *machine)
{
    uint8_t params[PAGE_SIZE] = {0};
    size_t header = 0x202 + image->data[0x201]; // jump offset: end of the setup header
    memcpy(params + SETUP_SECTS, image->data + SETUP_SECTS, MIN(header, 0x268 + 0x18) - SETUP_SECTS);
    params[TYPE_OF_LOADER] = 0xff;
    params[LOADFLAGS] |= CAN_USE_HEAP;
    store_le(params + HEAP_END, 2, 0xfe00);
    store_le(params + CMD_LINE_PTR, 4, BOOT_COMMAND_LINE);
    if (image->initrd_size) {
        store_le(params + RAMDISK_IMAGE, 4, initrd_address(image, machine));
        store_le(params + RAMDISK_SIZE, 4, image->initrd_size);
    }
    store_le(params + ACPI_RSDP_ADDR, 8, image->rsdp);
    params[E820_ENTRIES] = image->map_count;
    for (unsigned i = 0; i < image->map_count; i++) {
        uint8_t *entry = params + E820_TABLE + 20 * i;
        store_le(entry, 8, image->map[i].start);
        store_le(entry + 8, 8, image->map[i].size);
        store_le(entry + 16, 4, image->map[i].type);
    }
    // Text mode 3, so that a console on VGA has a geometry: page 0, mode, columns, rows, EGA memory, font height.
    params[0x06] = 3;
    params[0x07] = 80;
    params[0x0e] = 25;
    params[0x0f] = 1;
    store_le(params + 0x10, 2, 16);
    address_space_write(machine->memory, BOOT_PARAMS, params, sizeof(params));
}

static void place(const struct boot_image *image, struct machine *machine)
{
    size_t setup = setup_size(image);
    address_space_write(machine->memory, KERNEL_ADDRESS, image->data + setup, image->size - setup);
    if (image->initrd_size)
        address_space_write(machine->memory, initrd_address(image, machine), image->initrd, image->initrd_size);
    write_parameters(image, machine);
    bool long_mode = version(image) >= 0x20c && (load_le(image->data + XLOADFLAGS, 2) & XLF_KERNEL_64);
    struct vcpu *v = boot_flat_processor(machine, long_mode);
    v->rip = KERNEL_ADDRESS + (long_mode ? ENTRY_64 : 0);
    v->gpr[RSI] = BOOT_PARAMS;
}

const struct boot_protocol boot_linux = {"linux", recognise, check, place};
