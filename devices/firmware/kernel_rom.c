// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/firmware/kernel_rom.h"
#include "core/machine/options.h"
#include "data/rom/kernel.hex"

#include <stdio.h>
#include <string.h>

// Items of fw_cfg that data/rom/kernel.asm reads: address, size and bytes of each piece.
static const struct piece_keys {
    uint16_t address, size, data;
} kernel_keys = {0x07, 0x08, 0x11}, initrd_keys = {0x0a, 0x0b, 0x12}, line_keys = {0x13, 0x14, 0x15},
  setup_keys = {0x16, 0x17, 0x18};

// Offsets in the setup header (Linux boot protocol).
#define SETUP_SECTS     0x1f1
#define VIDEO_MODE      0x1fa
#define MAGIC           0x202
#define VERSION         0x206
#define TYPE_OF_LOADER  0x210
#define LOADFLAGS       0x211
#define RAMDISK_IMAGE   0x218
#define RAMDISK_SIZE    0x21c
#define HEAP_END        0x224
#define CMD_LINE_PTR    0x228
#define INITRD_ADDR_MAX 0x22c
#define HEADER_LENGTH   0x230
#define CAN_USE_HEAP    0x80
#define LOADED_HIGH     0x01

#define SETUP_ADDRESS  0x10000
#define HEAP_LIMIT     0xe000 // the stack's end, seen from SETUP_ADDRESS
#define LINE_ADDRESS   0x20000
#define KERNEL_ADDRESS 0x100000
#define FIRMWARE_TOP   (256 * KiB) // SeaBIOS keeps its tables at the end of low memory
#define ROM_CHECKSUM   6

static void offer_piece(struct fw_cfg *fw_cfg, const struct piece_keys *keys, uint32_t address, const void *data, uint32_t size)
{
    fw_cfg_add_number(fw_cfg, keys->address, address, 4);
    fw_cfg_add_number(fw_cfg, keys->size, size, 4);
    fw_cfg_add(fw_cfg, keys->data, data, size);
}

static bool speaks_protocol(const uint8_t *kernel, size_t size)
{
    return size > 4096 && memcmp(kernel + MAGIC, "HdrS", 4) == 0 && load_le(kernel + VERSION, 2) >= 0x203 &&
           (kernel[LOADFLAGS] & LOADED_HIGH);
}

bool kernel_rom_suits(const char *path)
{
    uint8_t head[4096 + 1] = {0};
    FILE *file = fopen(path, "rbe");
    size_t length = file ? fread(head, 1, sizeof(head), file) : 0;
    if (file)
        fclose(file);
    return speaks_protocol(head, length);
}

static GMappedFile *map(const char *path, const char *what, GError **error)
{
    g_autoptr(GError) cause = NULL;
    GMappedFile *file = g_mapped_file_new(path, false, &cause);
    if (file && g_mapped_file_get_length(file) > 0 && g_mapped_file_get_length(file) < 2 * GiB)
        return file;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Cannot use the %s %s: %s; give a file that exists.", what, path,
                cause ? cause->message : "its size is 0 or beyond 2 GiB");
    g_clear_pointer(&file, g_mapped_file_unref);
    return NULL;
}

// The video mode that `vga=` names, as the boot loader must write it: a number, or one of three words.
static uint16_t video_mode(const char *line)
{
    static const struct {
        const char *name;
        uint16_t mode;
    } names[] = {{"normal", 0xffff}, {"ext", 0xfffe}, {"ask", 0xfffd}};
    const char *at = line ? strstr(line, "vga=") : NULL;
    if (!at || (at > line && at[-1] != ' '))
        return 0xffff;
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
        if (g_str_has_prefix(at + 4, names[i].name))
            return names[i].mode;
    return g_ascii_strtoull(at + 4, NULL, 0);
}

// Where the initial RAM disk goes: as high as kernel and firmware allow; 0: there is no room.
static uint64_t initrd_address(const struct machine *machine, const uint8_t *kernel, uint64_t kernel_end, uint64_t size)
{
    uint64_t limit = load_le(kernel + INITRD_ADDR_MAX, 4) + 1, top = machine->ram_below_4g - FIRMWARE_TOP;
    uint64_t end = MIN(limit, top);
    return end > size && end - size > kernel_end ? ALIGN_DOWN(end - size, PAGE_SIZE) : 0;
}

static bool offer_kernel(struct machine *machine, GMappedFile *kernel_file, GMappedFile *initrd, const char *line, GError **error)
{
    struct fw_cfg *fw_cfg = machine->fw_cfg;
    const uint8_t *kernel = (const uint8_t *)g_mapped_file_get_contents(kernel_file);
    size_t size = g_mapped_file_get_length(kernel_file), setup_size = ((kernel[SETUP_SECTS] ? kernel[SETUP_SECTS] : 4) + 1) * 512;
    if (!speaks_protocol(kernel, size) || setup_size >= size) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "The kernel file is damaged or cut short: copy it again.");
        return false;
    }
    uint64_t initrd_size = initrd ? g_mapped_file_get_length(initrd) : 0, kernel_end = KERNEL_ADDRESS + size - setup_size;
    uint64_t initrd_at = initrd_size ? initrd_address(machine, kernel, kernel_end, initrd_size) : 0;
    if (kernel_end + FIRMWARE_TOP > machine->ram_below_4g || (initrd_size && !initrd_at)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "The kernel and its initial RAM disk need %" G_GUINT64_FORMAT " MiB: give the machine more memory.",
                    (guint64)((kernel_end + initrd_size + FIRMWARE_TOP) / MiB + 1));
        return false;
    }
    g_autofree uint8_t *setup = g_memdup2(kernel, MAX(setup_size, HEADER_LENGTH));
    store_le(setup + VIDEO_MODE, 2, video_mode(line));
    setup[TYPE_OF_LOADER] = 0xff;
    setup[LOADFLAGS] |= CAN_USE_HEAP;
    store_le(setup + HEAP_END, 2, HEAP_LIMIT - 0x200);
    store_le(setup + CMD_LINE_PTR, 4, LINE_ADDRESS);
    store_le(setup + RAMDISK_IMAGE, 4, initrd_at);
    store_le(setup + RAMDISK_SIZE, 4, initrd_size);
    offer_piece(fw_cfg, &setup_keys, SETUP_ADDRESS, setup, setup_size);
    offer_piece(fw_cfg, &kernel_keys, KERNEL_ADDRESS, kernel + setup_size, size - setup_size);
    offer_piece(fw_cfg, &initrd_keys, initrd_at, initrd ? g_mapped_file_get_contents(initrd) : "", initrd_size);
    offer_piece(fw_cfg, &line_keys, LINE_ADDRESS, line, strlen(line) + 1);
    return true;
}

static void offer_rom(struct fw_cfg *fw_cfg)
{
    static const char name[] = "genroms/kernel.bin", order[] = "/rom@genroms/kernel.bin\nHALT";
    uint8_t rom[sizeof(kernel_rom)], sum = 0;
    memcpy(rom, kernel_rom, sizeof(rom));
    for (unsigned i = 0; i < sizeof(rom); i++)
        sum += rom[i];
    rom[ROM_CHECKSUM] -= sum;
    fw_cfg_add_file(fw_cfg, name, rom, sizeof(rom));
    fw_cfg_add_file(fw_cfg, "bootorder", order, sizeof(order));
}

bool kernel_rom_offer(struct machine *machine, const struct machine_options *options, GError **error)
{
    const char *line = options->append ? options->append : "";
    if (strlen(line) > 4095) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "The kernel command line is longer than 4095 bytes.");
        return false;
    }
    GMappedFile *kernel = map(options->kernel, "kernel", error), *initrd = NULL;
    bool good = kernel && (!options->initrd || (initrd = map(options->initrd, "initial RAM disk", error))) &&
                offer_kernel(machine, kernel, initrd, line, error);
    if (good)
        offer_rom(machine->fw_cfg);
    g_clear_pointer(&kernel, g_mapped_file_unref);
    g_clear_pointer(&initrd, g_mapped_file_unref);
    return good;
}
