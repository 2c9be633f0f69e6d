// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/firmware/kernel_rom.h"
#include "core/machine/options.h"
#include "data/rom/kernel.hex"
#include "devices/firmware/direct_boot.h"
#include "devices/firmware/linux_header.h"

#include <stdio.h>
#include <string.h>

// Items of fw_cfg that data/rom/kernel.asm reads: address, size and bytes of each piece.
static const struct piece_keys {
    uint16_t address, size, data;
} kernel_keys = {0x07, 0x08, 0x11}, initrd_keys = {0x0a, 0x0b, 0x12}, line_keys = {0x13, 0x14, 0x15},
  setup_keys = {0x16, 0x17, 0x18};

// Where the real-mode code goes: low where the kernel can be told of a command line anywhere and does not lie there
// itself, else where loaders of old put it. Its stack and heap end at HEAP_LIMIT of that segment, the line lies behind.
#define SETUP_LOW     0x10000
#define SETUP_OLD     0x90000
#define HEAP_LIMIT    0xe000
#define LINE_LOW      0x20000
#define SETUP_MAX     0x8000
#define LOW_MAX       (SETUP_OLD - LINUX_LOW_ADDRESS) // of protected-mode code below the real-mode code
#define OLD_LINE_MAX  255
#define OLD_LINE_MARK 0x20        // of the real-mode code: 0xa33f, then the line's offset (protocols before 2.02)
#define FIRMWARE_TOP  (256 * KiB) // SeaBIOS keeps its tables at the end of low memory
#define ROM_CHECKSUM  6

// Takes over BYTES.
static void offer_piece(struct fw_cfg *fw_cfg, const struct piece_keys *keys, uint32_t address, GBytes *bytes)
{
    fw_cfg_add_number(fw_cfg, keys->address, address, 4);
    fw_cfg_add_number(fw_cfg, keys->size, g_bytes_get_size(bytes), 4);
    fw_cfg_add_bytes(fw_cfg, keys->data, bytes);
    g_bytes_unref(bytes);
}

// What of the file is looked at to learn its protocol.
struct head {
    uint8_t bytes[4096];
    bool good;
};

static struct head read_head(const char *path)
{
    struct head head = {0};
    FILE *file = fopen(path, "rbe");
    head.good = file && linux_recognise(head.bytes, fread(head.bytes, 1, sizeof(head.bytes), file));
    if (file)
        fclose(file);
    return head;
}

bool kernel_rom_suits(const char *path)
{
    return read_head(path).good;
}

// Protected-mode code below 640 KiB, or a command line that is found from the real-mode code.
static bool is_old(const uint8_t *kernel)
{
    return linux_version(kernel) < 0x202 || !linux_loaded_high(kernel);
}

bool kernel_rom_needed(const char *path)
{
    struct head head = read_head(path);
    return head.good && is_old(head.bytes);
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
    uint64_t end = MIN(linux_initrd_limit(kernel) + 1, machine->ram_below_4g - FIRMWARE_TOP);
    uint64_t lowest = MAX(kernel_end, LINUX_HIGH_ADDRESS);
    return end > size && end - size > lowest ? ALIGN_DOWN(end - size, PAGE_SIZE) : 0;
}

// The real-mode code with what a loader writes into its header. Free with g_free().
static uint8_t *make_setup(const uint8_t *kernel, const char *line, uint64_t line_at, uint64_t initrd_at,
                           uint64_t initrd_size)
{
    unsigned version = linux_version(kernel);
    uint8_t *setup = g_memdup2(kernel, linux_setup_size(kernel));
    store_le(setup + LINUX_VIDEO_MODE, 2, video_mode(line));
    setup[LINUX_TYPE_OF_LOADER] = 0xff;
    store_le(setup + LINUX_RAMDISK_IMAGE, 4, initrd_at);
    store_le(setup + LINUX_RAMDISK_SIZE, 4, initrd_size);
    if (version >= 0x201) {
        setup[LINUX_LOADFLAGS] |= LINUX_CAN_USE_HEAP;
        store_le(setup + LINUX_HEAP_END, 2, HEAP_LIMIT - 0x200);
    }
    if (version >= 0x202) {
        store_le(setup + LINUX_CMD_LINE_PTR, 4, line_at);
    } else {
        store_le(setup + OLD_LINE_MARK, 2, 0xa33f);
        store_le(setup + OLD_LINE_MARK + 2, 2, HEAP_LIMIT);
    }
    return setup;
}

static bool offer_kernel(struct machine *machine, GMappedFile *kernel_file, GMappedFile *initrd, const char *line,
                         GError **error)
{
    struct fw_cfg *fw_cfg = machine->fw_cfg;
    const uint8_t *kernel = (const uint8_t *)g_mapped_file_get_contents(kernel_file);
    size_t size = g_mapped_file_get_length(kernel_file);
    size_t setup_size = linux_recognise(kernel, size) ? linux_setup_size(kernel) : size;
    if (setup_size >= size || setup_size > SETUP_MAX || (!linux_loaded_high(kernel) && size - setup_size > LOW_MAX)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "The kernel file is damaged or cut short: copy it again.");
        return false;
    }
    bool old = is_old(kernel);
    uint64_t kernel_at = linux_loaded_high(kernel) ? LINUX_HIGH_ADDRESS : LINUX_LOW_ADDRESS;
    uint64_t kernel_end = kernel_at + size - setup_size;
    uint64_t setup_at = old ? SETUP_OLD : SETUP_LOW, line_at = old ? SETUP_OLD + HEAP_LIMIT : LINE_LOW;
    if (old && strlen(line) > OLD_LINE_MAX) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "This old kernel takes a command line of %d bytes at most.", OLD_LINE_MAX);
        return false;
    }
    uint64_t initrd_size = initrd ? g_mapped_file_get_length(initrd) : 0;
    uint64_t initrd_at = initrd_size ? initrd_address(machine, kernel, kernel_end, initrd_size) : 0;
    if (kernel_end + FIRMWARE_TOP > machine->ram_below_4g || (initrd_size && !initrd_at)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "The kernel and its initial RAM disk need %" G_GUINT64_FORMAT " MiB: give the machine more memory.",
                    (guint64)((kernel_end + initrd_size + FIRMWARE_TOP) / MiB + 1));
        return false;
    }
    g_autofree uint8_t *setup = make_setup(kernel, line, line_at, initrd_at, initrd_size);
    g_autoptr(GBytes) whole = g_mapped_file_get_bytes(kernel_file);
    offer_piece(fw_cfg, &setup_keys, setup_at, g_bytes_new(setup, setup_size));
    offer_piece(fw_cfg, &kernel_keys, kernel_at, g_bytes_new_from_bytes(whole, setup_size, size - setup_size));
    offer_piece(fw_cfg, &initrd_keys, initrd_at, initrd ? g_mapped_file_get_bytes(initrd) : g_bytes_new(NULL, 0));
    offer_piece(fw_cfg, &line_keys, line_at, g_bytes_new(line, strlen(line) + 1));
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
    GMappedFile *kernel = boot_map_file(options->kernel, "kernel", error), *initrd = NULL;
    bool good = kernel && (!options->initrd || (initrd = boot_map_file(options->initrd, "initial RAM disk", error))) &&
                offer_kernel(machine, kernel, initrd, line, error);
    if (good)
        offer_rom(machine->fw_cfg);
    g_clear_pointer(&kernel, g_mapped_file_unref);
    g_clear_pointer(&initrd, g_mapped_file_unref);
    return good;
}
