// SPDX-License-Identifier: GPL-2.0-or-later
// The Linux/x86 boot protocol (kernel documentation, arch/x86/boot): bzImage by its 32-bit or 64-bit entry point. Older
// kernels than protocol 2.02 and those loaded low start by their real-mode code: kernel_rom.h.
#include "devices/firmware/direct_boot.h"
#include "devices/firmware/linux_header.h"

#include <string.h>

// Offsets in the boot parameters alone.
#define ACPI_RSDP_ADDR 0x070
#define E820_ENTRIES   0x1e8
#define E820_TABLE     0x2d0

#define ENTRY_64 0x200

static bool recognise(const struct boot_image *image)
{
    return linux_recognise(image->data, image->size);
}

// Where the initial RAM disk goes: as high as the kernel allows.
static uint64_t initrd_address(const struct boot_image *image, const struct machine *machine)
{
    uint64_t end = MIN(linux_initrd_limit(image->data) + 1, machine->ram_below_4g);
    return end < image->initrd_size ? 0 : ALIGN_DOWN(end - image->initrd_size, PAGE_SIZE);
}

static uint64_t kernel_end(const struct boot_image *image)
{
    uint64_t need = image->size - linux_setup_size(image->data);
    if (linux_version(image->data) >= 0x20a)
        need = MAX(need, load_le(image->data + LINUX_INIT_SIZE, 4));
    return LINUX_HIGH_ADDRESS + need;
}

static bool check(const struct boot_image *image, struct machine *machine, GError **error)
{
    if (image->size <= linux_setup_size(image->data)) {
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
    memcpy(params + LINUX_SETUP_SECTS, image->data + LINUX_SETUP_SECTS,
           MIN(header, LINUX_HEADER_END + 0x18) - LINUX_SETUP_SECTS);
    params[LINUX_TYPE_OF_LOADER] = 0xff;
    params[LINUX_LOADFLAGS] |= LINUX_CAN_USE_HEAP;
    store_le(params + LINUX_HEAP_END, 2, 0xfe00);
    store_le(params + LINUX_CMD_LINE_PTR, 4, BOOT_COMMAND_LINE);
    if (image->initrd_size) {
        store_le(params + LINUX_RAMDISK_IMAGE, 4, initrd_address(image, machine));
        store_le(params + LINUX_RAMDISK_SIZE, 4, image->initrd_size);
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
    size_t setup = linux_setup_size(image->data);
    address_space_write(machine->memory, LINUX_HIGH_ADDRESS, image->data + setup, image->size - setup);
    if (image->initrd_size)
        address_space_write(machine->memory, initrd_address(image, machine), image->initrd, image->initrd_size);
    write_parameters(image, machine);
    bool long_mode =
        linux_version(image->data) >= 0x20c && (load_le(image->data + LINUX_XLOADFLAGS, 2) & LINUX_KERNEL_64);
    struct vcpu *v = boot_flat_processor(machine, long_mode);
    v->rip = LINUX_HIGH_ADDRESS + (long_mode ? ENTRY_64 : 0);
    v->gpr[RSI] = BOOT_PARAMS;
}

const struct boot_protocol boot_linux = {"linux", recognise, check, place};
