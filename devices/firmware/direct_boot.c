// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/firmware/direct_boot.h"
#include "core/cpu/arch.h"
#include "devices/chipset/chipset.h"
#include "devices/firmware/acpi.h"
#include "devices/firmware/smbios.h"

#include <string.h>

struct direct_boot {
    struct device device;
    char *kernel_file, *initrd_file, *command_line;
    struct acpi_tables *acpi;
    GMappedFile *kernel, *initrd;
    struct boot_image image;
    const struct boot_protocol *protocol;
};

static const struct boot_protocol *const protocols[] = {&boot_linux, &boot_multiboot, &boot_pvh};

// ---- Processor ----
static void write_gdt(struct machine *machine, bool long_mode)
{
    const uint64_t gdt[] = {0, 0, long_mode ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull, 0x00cf93000000ffffull};
    uint8_t bytes[sizeof(gdt)];
    for (unsigned i = 0; i < G_N_ELEMENTS(gdt); i++)
        store_le(bytes + 8 * i, 8, gdt[i]);
    address_space_write(machine->memory, BOOT_GDT, bytes, sizeof(bytes));
}

// Identity map of the first 4 GiB by 2 MiB pages: PML4, PDPT, four page directories.
static void write_page_tables(struct machine *machine)
{
    enum { PRESENT_WRITABLE = 3, LARGE = 0x80 };
    g_autofree uint8_t *tables = g_malloc0(6 * PAGE_SIZE);
    store_le(tables, 8, (BOOT_PAGE_TABLES + PAGE_SIZE) | PRESENT_WRITABLE);
    for (unsigned i = 0; i < 4; i++)
        store_le(tables + PAGE_SIZE + 8 * i, 8, (BOOT_PAGE_TABLES + (2 + i) * PAGE_SIZE) | PRESENT_WRITABLE);
    for (uint64_t i = 0; i < 4 * 512; i++)
        store_le(tables + 2 * PAGE_SIZE + 8 * i, 8, i << 21 | PRESENT_WRITABLE | LARGE);
    address_space_write(machine->memory, BOOT_PAGE_TABLES, tables, 6 * PAGE_SIZE);
}

struct vcpu *boot_flat_processor(struct machine *machine, bool long_mode)
{
    struct vcpu *v = machine->cpus->vcpu[0];
    struct segment data = {.selector = 0x18, .attr = 0xc093, .limit = UINT32_MAX};
    struct segment code = {.selector = 0x10, .attr = long_mode ? 0xa09b : 0xc09b, .limit = UINT32_MAX};
    write_gdt(machine, long_mode);
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        v->seg[i] = i == CS ? code : data;
    v->gdtr = (struct table_register){BOOT_GDT, 31};
    v->idtr = (struct table_register){0, 0};
    v->tr = (struct segment){.attr = 0x008b, .limit = 0x67};
    v->ldtr = (struct segment){.attr = 0x0082, .limit = 0xffff, .unusable = true};
    v->cr0 = CR0_PE | CR0_ET | CR0_NE;
    v->rflags = FLAG_1;
    v->cpl = 0;
    memset(v->gpr, 0, sizeof(v->gpr));
    if (long_mode) {
        write_page_tables(machine);
        v->cr3 = BOOT_PAGE_TABLES;
        v->cr4 = CR4_PAE;
        v->efer = EFER_LME | EFER_LMA;
        v->cr0 |= CR0_PG;
    }
    return v;
}

// ---- Memory map ----
static void add_memory(struct boot_image *image, uint64_t start, uint64_t end, uint32_t type)
{
    if (end > start)
        image->map[image->map_count++] = (struct boot_memory){start, end - start, type};
}

static void describe_memory(struct boot_image *image, const struct machine *machine)
{
    image->map_count = 0;
    add_memory(image, 0, 0x9fc00, BOOT_MEMORY_RAM);
    add_memory(image, 0x9fc00, 0xa0000, BOOT_MEMORY_RESERVED);
    add_memory(image, BOOT_ACPI, 1 * MiB, BOOT_MEMORY_RESERVED);
    add_memory(image, 1 * MiB, machine->ram_below_4g, BOOT_MEMORY_RAM);
    add_memory(image, 4 * GiB, 4 * GiB + machine->ram_size - machine->ram_below_4g, BOOT_MEMORY_RAM);
}

// ---- The device ----
GMappedFile *boot_map_file(const char *path, const char *what, GError **error)
{
    g_autoptr(GError) cause = NULL;
    GMappedFile *file = g_mapped_file_new(path, false, &cause);
    size_t length = file ? g_mapped_file_get_length(file) : 0;
    if (length > 0 && length < 2 * GiB)
        return file;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Cannot read the %s %s (%s): give a file that exists.", what,
                path,
                cause    ? cause->message
                : length ? "it is larger than 2 GiB"
                         : "it is empty");
    g_clear_pointer(&file, g_mapped_file_unref);
    return NULL;
}

static bool realize(struct device *device, GError **error)
{
    struct direct_boot *s = (struct direct_boot *)device;
    struct boot_image *image = &s->image;
    if (!(s->kernel = boot_map_file(s->kernel_file, "kernel", error)))
        return false;
    image->data = (const uint8_t *)g_mapped_file_get_contents(s->kernel);
    image->size = g_mapped_file_get_length(s->kernel);
    if (s->initrd_file && !(s->initrd = boot_map_file(s->initrd_file, "initial RAM disk", error)))
        return false;
    if (s->initrd) {
        image->initrd = (const uint8_t *)g_mapped_file_get_contents(s->initrd);
        image->initrd_size = g_mapped_file_get_length(s->initrd);
    }
    image->command_line = s->command_line ? s->command_line : "";
    image->rsdp = BOOT_ACPI;
    describe_memory(image, device->machine);
    if (strlen(image->command_line) >= BOOT_COMMAND_LINE_MAX) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "The kernel command line is longer than %d bytes.",
                    BOOT_COMMAND_LINE_MAX - 1);
        return false;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(protocols) && !s->protocol; i++)
        if (protocols[i]->recognise(image))
            s->protocol = protocols[i];
    if (!s->protocol) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s is not a kernel that can be started directly: give a bzImage, a PVH ELF or a multiboot file.",
                    s->kernel_file);
        return false;
    }
    return s->protocol->check(image, device->machine, error);
}

static void unrealize(struct device *device)
{
    struct direct_boot *s = (struct direct_boot *)device;
    g_clear_pointer(&s->kernel, g_mapped_file_unref);
    g_clear_pointer(&s->initrd, g_mapped_file_unref);
}

// Does what firmware would have done. Runs after the chipset and the processors were reset.
static void reset(struct device *device)
{
    struct direct_boot *s = (struct direct_boot *)device;
    struct machine *machine = device->machine;
    i440fx_open_pam(machine_find_device(machine, "i440fx"));
    piix4_pm_set_base(machine_find_device(machine, "piix4-pm"), PM_BASE, SMBUS_BASE);
    uint64_t used = acpi_tables_place(s->acpi, machine->memory, BOOT_ACPI);
    smbios_place(machine, ALIGN_UP(BOOT_ACPI + used, 16ull));
    s->protocol->place(&s->image, machine);
    address_space_write(machine->memory, BOOT_COMMAND_LINE, s->image.command_line, strlen(s->image.command_line) + 1);
}

static const struct field fields[] = {FIELD_END};

static const struct property properties[] = {
    {"kernel", PROPERTY_STRING, offsetof(struct direct_boot, kernel_file), NULL, 0, 0, NULL},
    {"initrd", PROPERTY_STRING, offsetof(struct direct_boot, initrd_file), NULL, 0, 0, NULL},
    {"append", PROPERTY_STRING, offsetof(struct direct_boot, command_line), NULL, 0, 0, NULL},
    {"acpi", PROPERTY_POINTER, offsetof(struct direct_boot, acpi), NULL, 0, 0, NULL},
    PROPERTY_END,
};

const struct device_class direct_boot_class = {
    .name = "direct-boot",
    .help = "starts a kernel without firmware",
    .size = sizeof(struct direct_boot),
    .properties = properties,
    .realize = realize,
    .unrealize = unrealize,
    .reset = reset,
    .fields = fields,
    .internal = true,
};
