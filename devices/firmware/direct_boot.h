// SPDX-License-Identifier: GPL-2.0-or-later
// Starting a kernel without firmware: the image is put into guest memory and the boot processor into the state that its
// boot protocol asks for, at every reset. ACPI tables lie at 0xE0000.
#ifndef CLOCHE_DIRECT_BOOT_H
#define CLOCHE_DIRECT_BOOT_H

#include "core/machine/machine.h"

// A kernel or initial RAM disk, mapped read-only; the caller unrefs it. WHAT names it in the error: it cannot be read, is
// empty, or is larger than 2 GiB.
GMappedFile *boot_map_file(const char *path, const char *what, GError **error);

// Machine memory as the protocols' maps describe it.
enum boot_memory_type { BOOT_MEMORY_RAM = 1, BOOT_MEMORY_RESERVED = 2 };
struct boot_memory {
    uint64_t start, size;
    uint32_t type; // enum boot_memory_type
};
#define BOOT_MEMORY_MAX 8

struct boot_image {
    const uint8_t *data; // the kernel file
    size_t size;
    const uint8_t *initrd;
    size_t initrd_size;
    const char *command_line; // never NULL
    uint64_t rsdp;            // where the ACPI root pointer is
    struct boot_memory map[BOOT_MEMORY_MAX];
    unsigned map_count;
};

// One boot protocol. RECOGNISE looks at the file only; CHECK says before the start what is wrong (sizes, memory); PLACE
// writes to memory and sets the processor up.
struct boot_protocol {
    const char *name;
    bool (*recognise)(const struct boot_image *image);
    bool (*check)(const struct boot_image *image, struct machine *machine, GError **error);
    void (*place)(const struct boot_image *image, struct machine *machine);
};
extern const struct boot_protocol boot_linux, boot_pvh, boot_multiboot;

// Fixed places of what the board writes for a kernel, all below 640 KiB and reserved by no protocol.
#define BOOT_GDT          0x0500
#define BOOT_PARAMS       0x7000
#define BOOT_PAGE_TABLES  0x9000 // six pages
#define BOOT_COMMAND_LINE 0x20000
#define BOOT_COMMAND_LINE_MAX 0x10000
#define BOOT_ACPI         0xe0000

// Flat segments: code at SELECTOR, data behind it, in a table at BOOT_GDT. For 64-bit code: identity map of 4 GiB and long
// mode. RIP, RSI, RBX and RAX are the caller's to set.
struct vcpu *boot_flat_processor(struct machine *machine, bool long_mode);

// ELF images, 32 or 64 bits. False: not an ELF file, or damaged. ENTRY_NOTE is the PVH entry point (0: no such note).
struct boot_elf {
    uint64_t entry, note_entry, lowest, highest;
};
bool boot_elf_scan(const uint8_t *data, size_t size, struct boot_elf *elf);
void boot_elf_place(const uint8_t *data, size_t size, struct address_space *memory);

#endif
