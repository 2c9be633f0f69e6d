// SPDX-License-Identifier: GPL-2.0-or-later
// The board as a wiring diagram: which devices there are, what is connected to what, what firmware is told.
#include "core/cpu/lapic.h"
#include "core/machine/drive.h"
#include "core/machine/options.h"
#include "core/screen/clipboard.h"
#include "core/screen/input.h"
#include "core/screen/surface.h"
#include "devices/char/backend.h"
#include "devices/chipset/chipset.h"
#include "devices/firmware/acpi.h"
#include "devices/firmware/fw_cfg.h"
#include "devices/firmware/kernel_rom.h"
#include "devices/firmware/smbios.h"
#include "devices/storage/floppy.h"

#include <string.h>

#define BIOS_DEFAULT "/usr/share/seabios/bios-256k.bin"
#define BIOS_MAX     (8 * MiB)
#define MEMORY_MIN   (2 * MiB)
#define MEMORY_MAX   (256 * GiB)
#define SERIAL_PORTS 4
#define IDE_DRIVES   4

struct board {
    struct device *host, *pic, *ioapic, *pit, *rtc, *pm;
    struct acpi_tables *acpi;
    struct region bios;
    struct drive *ide[IDE_DRIVES], *floppy[2];
    GString *boot_paths[26]; // by boot letter: firmware's names of the devices, one a line
};

static struct device *add(struct machine *machine, const char *class_name, const char *id, GError **error)
{
    struct device *device = device_new(machine, class_name, id, error);
    return device && device_realize(device, error) ? device : NULL;
}

// ---- Interrupt lines ----
// An ISA line goes to the 8259s and to the I/O APIC; the timer is on the latter's input 2.
static void isa_line(void *opaque, unsigned number, bool level)
{
    struct machine *machine = opaque;
    i8259_set_irq(machine->board->pic, number, level);
    ioapic_set_irq(machine->board->ioapic, number == ISA_IRQ_TIMER ? 2 : number, level);
}

static void gsi_line(void *opaque, unsigned number, bool level)
{
    struct machine *machine = opaque;
    ioapic_set_irq(machine->board->ioapic, number, level);
}

// INTR of the 8259s is LINT0 of the boot processor.
static void intr_line(void *opaque, unsigned number, bool level)
{
    struct machine *machine = opaque;
    if (machine->cpus)
        lapic_set_lint(machine->cpus->vcpu[0]->lapic, 0, level);
}

static void connect_lines(struct machine *machine)
{
    for (unsigned n = 0; n < 16; n++)
        if (n != 2) // the cascade
            machine->isa_irq[n] = (struct irq){isa_line, machine, n};
    for (unsigned n = 0; n < 24; n++)
        machine->gsi[n] = (struct irq){gsi_line, machine, n};
    i8259_set_output(machine->board->pic, (struct irq){intr_line, machine, 0});
}

// ---- What the processors ask of the board ----
static int pic_acknowledge(void *opaque)
{
    struct machine *machine = opaque;
    return i8259_acknowledge(machine->board->pic);
}

static void fpu_error(void *opaque, bool level)
{
    struct machine *machine = opaque;
    machine_lock(machine);
    irq_set(&machine->isa_irq[ISA_IRQ_FPU], level);
    machine_unlock(machine);
}

static void processor_down(void *opaque, struct vcpu *vcpu, const char *text)
{
    struct machine *machine = opaque;
    if (vcpu->activity != VCPU_SHUTDOWN) {
        log_error("cpu", "Processor %u: %s", vcpu->index, text);
        machine_request_stop(machine, RUN_STATE_INTERNAL_ERROR, text);
        return;
    }
    log_info("cpu", "Processor %u shut down (%s)%s", vcpu->index, text, machine->no_reboot ? "" : ": reset.");
    machine_request_reset(machine);
}

static void end_of_interrupt(void *opaque, uint8_t vector)
{
    struct machine *machine = opaque;
    machine_lock(machine);
    ioapic_eoi(machine->board->ioapic, vector);
    machine_unlock(machine);
}

static bool add_processors(struct machine *machine, const struct machine_options *options, GError **error)
{
    const struct cpu_host host = {
        .ram = machine->ram,
        .memory = machine->memory,
        .ports = machine->ports,
        .clock = machine->clock,
        .lock = &machine->lock,
        .opaque = machine,
        .pic_acknowledge = pic_acknowledge,
        .fpu_error = fpu_error,
        .shutdown = processor_down,
        .eoi = end_of_interrupt,
    };
    machine->cpus = cpu_set_new(&host, options->cpu_model, options->engine, options->cpus, error);
    return machine->cpus != NULL;
}

// ---- Chipset ----
// Sizes in the places where a PC BIOS keeps them.
static void fill_cmos(struct machine *machine)
{
    struct device *rtc = machine->board->rtc;
    uint64_t extended = MIN(machine->ram_below_4g / KiB - 1024, 63 * 1024);
    uint64_t above_16m = machine->ram_below_4g > 16 * MiB ? (machine->ram_below_4g - 16 * MiB) / (64 * KiB) : 0;
    uint64_t above_4g = (machine->ram_size - machine->ram_below_4g) / (64 * KiB);
    const struct {
        uint8_t index;
        uint64_t value;
    } bytes[] = {
        {0x15, 640 & 0xff}, {0x16, 640 >> 8},      {0x17, extended},       {0x18, extended >> 8},
        {0x30, extended},   {0x31, extended >> 8}, {0x34, above_16m},      {0x35, above_16m >> 8},
        {0x5b, above_4g},   {0x5c, above_4g >> 8}, {0x5d, above_4g >> 16}, {0x5f, machine->cpus->count - 1},
        {0x14, 0x06}, // equipment
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(bytes); i++)
        rtc_set_cmos(rtc, bytes[i].index, bytes[i].value);
}

static bool add_chipset(struct machine *machine, const struct machine_options *options, GError **error)
{
    struct board *b = machine->board;
    if (!(b->host = add(machine, "i440fx", "host-bridge", error)) || !add(machine, "piix3", "isa-bridge", error) ||
        !(b->pm = add(machine, "piix4-pm", "acpi", error)) || !(b->pic = add(machine, "i8259", "pic", error)) ||
        !(b->ioapic = add(machine, "ioapic", "ioapic", error)) || !add(machine, "i8237", "dma", error))
        return false;
    connect_lines(machine);
    if (!(b->pit = add(machine, "i8254", "pit", error)))
        return false;
    b->rtc = device_new(machine, "rtc", "rtc", error);
    if (!b->rtc || !device_set(b->rtc, "local-time", options->rtc_local ? "on" : "off", error) ||
        !device_realize(b->rtc, error))
        return false;
    fill_cmos(machine);
    struct device *hpet = device_new(machine, "hpet", "hpet", error);
    if (!hpet)
        return false;
    device_set_pointer(hpet, "pit", b->pit);
    device_set_pointer(hpet, "rtc", b->rtc);
    return device_realize(hpet, error) && add(machine, "i8042", "keyboard-controller", error);
}

// ---- Serial ports and debug output ----
static bool add_serial(struct machine *machine, const struct machine_options *options, unsigned n, GError **error)
{
    static const char *const ports[] = {"0x3f8", "0x2f8", "0x3e8", "0x2e8"}, *const irqs[] = {"4", "3", "4", "3"};
    const char *target = "null";
    if (n < options->serials->len)
        target = ((struct serial_options *)options->serials->pdata[n])->target;
    g_autofree char *id = g_strdup_printf("serial%u", n);
    struct device *device = device_new(machine, "serial", id, error);
    if (!device || !device_set(device, "port", ports[n], error) || !device_set(device, "irq", irqs[n], error))
        return false;
    struct char_backend *backend = char_backend_open(target, machine->context, &machine->lock, error);
    if (!backend)
        return false;
    device_set_pointer(device, "backend", backend);
    if (char_backend_address(backend))
        log_info("serial", "%s is %s", id, char_backend_address(backend));
    return device_realize(device, error);
}

static bool add_characters(struct machine *machine, const struct machine_options *options, GError **error)
{
    if (options->serials->len > SERIAL_PORTS) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "The machine has four serial ports: give --serial less often.");
        return false;
    }
    for (unsigned n = 0; n < SERIAL_PORTS; n++)
        if (!add_serial(machine, options, n, error))
            return false;
    struct device *debug = device_new(machine, "debug-ports", "debug", error);
    if (!debug)
        return false;
    if (options->debug_output) {
        struct char_backend *backend =
            char_backend_open(options->debug_output, machine->context, &machine->lock, error);
        if (!backend)
            return false;
        device_set_pointer(debug, "output", backend);
    }
    return device_realize(debug, error);
}

// ---- Drives ----
static void add_boot_path(struct board *b, char letter, const char *format, ...) G_GNUC_PRINTF(3, 4);
static void add_boot_path(struct board *b, char letter, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    GString **paths = &b->boot_paths[letter - 'a'];
    if (!*paths)
        *paths = g_string_new(NULL);
    g_string_append_vprintf(*paths, format, args);
    g_string_append_c(*paths, '\n');
    va_end(args);
}

// CD drives prefer the second channel, disks the first.
static bool put_on_ide(struct board *b, struct drive *drive, bool cd)
{
    static const uint8_t cd_order[] = {2, 3, 1, 0}, disk_order[] = {0, 1, 3, 2};
    for (unsigned i = 0; i < IDE_DRIVES; i++) {
        unsigned n = cd ? cd_order[i] : disk_order[i];
        if (b->ide[n])
            continue;
        b->ide[n] = drive;
        add_boot_path(b, cd ? 'd' : 'c', "/pci@i0cf8/ide@1,1/drive@%u/disk@%u", n / 2, n % 2);
        return true;
    }
    return false;
}

static bool put_on_virtio(struct machine *machine, struct drive *drive, const char *id, GError **error)
{
    struct device *device = device_new(machine, "virtio-blk", id, error);
    if (!device)
        return false;
    device_set_pointer(device, "drive", drive);
    if (!device_realize(device, error))
        return false;
    add_boot_path(machine->board, 'c', "/pci@i0cf8/scsi@%x/disk@0,0", ((struct pci_device *)device)->devfn >> 3);
    return true;
}

static bool put_on_floppy(struct board *b, struct drive *drive)
{
    for (unsigned n = 0; n < G_N_ELEMENTS(b->floppy); n++)
        if (!b->floppy[n]) {
            b->floppy[n] = drive;
            add_boot_path(b, 'a', "/pci@i0cf8/isa@1/fdc@03f0/floppy@%u", n);
            return true;
        }
    return false;
}

static const char *drive_interface(const struct drive_options *o)
{
    return o->interface ? o->interface : o->kind == DRIVE_FLOPPY ? "floppy" : "ide";
}

static bool add_drive(struct machine *machine, const struct drive_options *o, GError **error)
{
    struct board *b = machine->board;
    const char *interface = drive_interface(o);
    if (strcmp(interface, "ide") != 0 && strcmp(interface, "virtio") != 0 && strcmp(interface, "floppy") != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s: there is no drive interface %s: use ide or virtio.",
                    o->file ? o->file : o->id, interface);
        return false;
    }
    struct drive *drive = drive_new(machine, o, error);
    if (!drive)
        return false;
    if (strcmp(interface, "virtio") == 0)
        return put_on_virtio(machine, drive, o->id, error);
    bool placed = o->kind == DRIVE_FLOPPY ? put_on_floppy(b, drive) : put_on_ide(b, drive, o->kind == DRIVE_CDROM);
    if (!placed)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "There is no %s place for %s: %s.", interface,
                    o->file ? o->file : o->id,
                    o->kind == DRIVE_FLOPPY ? "the machine has two" : "use interface=virtio for further disks");
    return placed;
}

static bool add_drives(struct machine *machine, const struct machine_options *options, GError **error)
{
    static const char *const names[IDE_DRIVES] = {"drive0", "drive1", "drive2", "drive3"};
    struct board *b = machine->board;
    for (unsigned i = 0; i < options->drives->len; i++)
        if (!add_drive(machine, options->drives->pdata[i], error))
            return false;
    struct device *ide = device_new(machine, "piix3-ide", "ide", error);
    if (!ide)
        return false;
    for (unsigned n = 0; n < IDE_DRIVES; n++)
        device_set_pointer(ide, names[n], b->ide[n]);
    if (!device_realize(ide, error))
        return false;
    if (!b->floppy[0])
        return true;
    struct device *fdc = device_new(machine, "floppy", "floppy", error);
    if (!fdc)
        return false;
    device_set_pointer(fdc, "drive0", b->floppy[0]);
    device_set_pointer(fdc, "drive1", b->floppy[1]);
    device_set_pointer(fdc, "dma", machine_find_device(machine, "i8237"));
    if (!device_realize(fdc, error))
        return false;
    rtc_set_cmos(b->rtc, 0x10, floppy_cmos_types(fdc));
    rtc_set_cmos(b->rtc, 0x14, 0x06 | 0x01 | (b->floppy[1] ? 0x40 : 0));
    return true;
}

// ---- Display, network, what the person asked for ----
static bool add_display(struct machine *machine, const struct machine_options *options, GError **error)
{
    const char *adapter = options->display_adapter;
    return !adapter || strcmp(adapter, "none") == 0 || add(machine, adapter, "display", error);
}

static bool add_nic(struct machine *machine, const struct nic_options *o, GError **error)
{
    struct device *device = device_new(machine, o->card ? o->card : "virtio-net", o->id, error);
    if (!device)
        return false;
    g_autofree char *forwards = o->forwards ? g_strjoinv(" ", o->forwards) : NULL;
    const char *const settings[][2] = {
        {"mac", o->mac},
        {"backend", o->backend},
        {"forwards", forwards},
        {"settings", o->settings},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(settings); i++)
        if (settings[i][1] && !device_set(device, settings[i][0], settings[i][1], error))
            return false;
    return device_realize(device, error);
}

// TEXT: "class,property=value,..."; the property "id" names the device.
static bool add_described(struct machine *machine, const char *text, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);
    const char *id = NULL;
    for (char **part = parts + 1; parts[0] && *part; part++)
        if (g_str_has_prefix(*part, "id="))
            id = *part + 3;
    const struct device_class *class = device_class_find(parts[0] ? parts[0] : "");
    if (class && class->internal) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s is part of the board and cannot be added: --list-devices shows what can.", class->name);
        return false;
    }
    struct device *device = device_new(machine, parts[0] ? parts[0] : "", id, error);
    for (char **part = parts + 1; device && *part; part++) {
        char *value = strchr(*part, '=');
        if (g_str_has_prefix(*part, "id="))
            continue;
        if (value)
            *value++ = '\0';
        if (!device_set(device, *part, value ? value : "on", error))
            return false;
    }
    return device && device_realize(device, error);
}

static bool add_peripherals(struct machine *machine, const struct machine_options *options, GError **error)
{
    if (!add_display(machine, options, error) || !add_drives(machine, options, error))
        return false;
    for (unsigned i = 0; i < options->nics->len; i++)
        if (!add_nic(machine, options->nics->pdata[i], error))
            return false;
    for (unsigned i = 0; i < options->devices->len; i++)
        if (!add_described(machine, options->devices->pdata[i], error))
            return false;
    return true;
}

// ---- Firmware ----
static bool load_bios(struct machine *machine, const char *path, GError **error)
{
    g_autofree char *data = NULL;
    gsize length;
    g_autoptr(GError) cause = NULL;
    if (!g_file_get_contents(path, &data, &length, &cause)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "Cannot read the firmware %s (%s): install the package seabios or give --bios.", path,
                    cause->message);
        return false;
    }
    if (!length || length > BIOS_MAX || length % (64 * KiB)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "The firmware %s has %" G_GSIZE_FORMAT " bytes: it must be a multiple of 64 KiB up to 8 MiB.", path,
                    length);
        return false;
    }
    uint64_t offset = ram_alloc(machine->ram, length);
    memcpy(machine->ram->host + offset, data, length);
    region_init_rom(&machine->board->bios, "bios", offset, length);
    address_space_map(machine->memory, &machine->board->bios, 4 * GiB - length, 0);
    i440fx_set_bios(machine->board->host, offset, length);
    return true;
}

static void describe_memory(struct machine *machine, struct fw_cfg *fw_cfg)
{
    uint8_t map[40] = {0};
    store_le(map + 8, 8, machine->ram_below_4g);
    store_le(map + 16, 4, 1); // RAM
    store_le(map + 20, 8, 4 * GiB);
    store_le(map + 28, 8, machine->ram_size - machine->ram_below_4g);
    store_le(map + 36, 4, 1);
    fw_cfg_add_file(fw_cfg, "etc/e820", map, machine->ram_size > machine->ram_below_4g ? 40 : 20);
}

static void describe_boot_order(struct machine *machine, const struct machine_options *options, struct fw_cfg *fw_cfg)
{
    g_autoptr(GString) order = g_string_new(NULL);
    for (const char *letter = options->boot_order ? options->boot_order : "cda"; *letter; letter++)
        if (*letter >= 'a' && *letter <= 'z' && machine->board->boot_paths[*letter - 'a'])
            g_string_append(order, machine->board->boot_paths[*letter - 'a']->str);
    if (order->len)
        fw_cfg_add_file(fw_cfg, "bootorder", order->str, order->len + 1);
}

static bool parse_uuid(const char *text, uint8_t uuid[16])
{
    unsigned n = 0;
    for (; text && *text && n < 16; text++) {
        if (*text == '-')
            continue;
        int high = g_ascii_xdigit_value(text[0]), low = text[1] ? g_ascii_xdigit_value(text[1]) : -1;
        if (high < 0 || low < 0)
            return false;
        uuid[n++] = high << 4 | low;
        text++;
    }
    return n == 16;
}

static bool add_firmware(struct machine *machine, const struct machine_options *options, GError **error)
{
    if (!add(machine, "fw-cfg", "fw-cfg", error))
        return false;
    struct fw_cfg *fw_cfg = machine->fw_cfg;
    uint8_t uuid[16] = {0};
    bool has_uuid = parse_uuid(options->uuid, uuid);
    fw_cfg_add(fw_cfg, FW_CFG_UUID, uuid, sizeof(uuid));
    fw_cfg_add_number(fw_cfg, FW_CFG_RAM_SIZE, machine->ram_size, 8);
    fw_cfg_add_number(fw_cfg, FW_CFG_NB_CPUS, machine->cpus->count, 2);
    fw_cfg_add_number(fw_cfg, FW_CFG_MAX_CPUS, machine->cpus->count, 2);
    fw_cfg_add_number(fw_cfg, FW_CFG_BOOT_MENU, options->boot_menu, 2);
    describe_memory(machine, fw_cfg);
    describe_boot_order(machine, options, fw_cfg);
    acpi_tables_offer(machine->board->acpi, fw_cfg);
    smbios_offer(machine, fw_cfg, has_uuid ? uuid : NULL);
    return true;
}

static bool add_direct_boot(struct machine *machine, const struct machine_options *options, GError **error)
{
    struct device *boot = device_new(machine, "direct-boot", "boot", error);
    const char *const settings[][2] = {
        {"kernel", options->kernel}, {"initrd", options->initrd}, {"append", options->append}};
    for (unsigned i = 0; boot && i < G_N_ELEMENTS(settings); i++)
        if (settings[i][1] && !device_set(boot, settings[i][0], settings[i][1], error))
            return false;
    if (!boot)
        return false;
    device_set_pointer(boot, "acpi", machine->board->acpi);
    return device_realize(boot, error);
}

// A kernel that somebody watches, or that is asked for a video mode, starts behind the firmware, which sets the display up;
// an old one too, because its start needs a BIOS; any other at once.
static bool wants_firmware(const struct machine_options *options)
{
    bool watched = options->vnc || options->folder || (options->append && strstr(options->append, "vga="));
    bool vga = g_strcmp0(options->display_adapter, "none") != 0;
    return (watched && vga && kernel_rom_suits(options->kernel)) || kernel_rom_needed(options->kernel);
}

static bool add_boot(struct machine *machine, const struct machine_options *options, GError **error)
{
    bool rom = options->kernel && wants_firmware(options);
    if (options->kernel && !rom)
        return add_direct_boot(machine, options, error);
    return load_bios(machine, options->bios ? options->bios : BIOS_DEFAULT, error) &&
           (!rom || kernel_rom_offer(machine, options, error));
}

// ---- The machine ----
static bool check_options(const struct machine_options *o, GError **error)
{
    const char *wrong = NULL;
    if (o->memory < MEMORY_MIN || o->memory > MEMORY_MAX || o->memory % PAGE_SIZE)
        wrong = "The memory size must be between 2M and 256G.";
    else if (o->cpus < 1 || o->cpus > VCPU_MAX)
        wrong = "A machine has 1 to 16 processors.";
    else if (o->kernel && o->bios)
        wrong = "A kernel is started without firmware: give either --kernel or --bios.";
    else if (!o->kernel && (o->initrd || o->append))
        wrong = "An initial RAM disk or a kernel command line needs --kernel.";
    if (wrong)
        g_set_error_literal(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, wrong);
    return !wrong;
}

struct machine *machine_new(const struct machine_options *options, GError **error)
{
    struct machine *machine = check_options(options, error) ? machine_create(options->memory, NULL, error) : NULL;
    if (!machine)
        return NULL;
    machine->no_reboot = options->no_reboot;
    machine->board = g_new0(struct board, 1);
    machine->board->acpi = acpi_tables_new(options->cpus);
    machine->screen = screen_new(&machine->lock);
    machine->input = input_new(&machine->lock);
    machine->clipboard = clipboard_new(&machine->lock);
    bool done = add_processors(machine, options, error) && add_chipset(machine, options, error) &&
                add_characters(machine, options, error) && add_peripherals(machine, options, error) &&
                add_firmware(machine, options, error) && add_boot(machine, options, error);
    if (!done) {
        machine_free(machine);
        return NULL;
    }
    machine_reset_devices(machine);
    return machine;
}

void machine_free(struct machine *machine)
{
    if (!machine)
        return;
    struct board *board = machine->board;
    struct screen *screen = machine->screen;
    struct input *input = machine->input;
    struct clipboard *clipboard = machine->clipboard;
    machine_destroy(machine);
    clipboard_free(clipboard);
    input_free(input);
    screen_free(screen);
    acpi_tables_free(board->acpi);
    for (unsigned i = 0; i < G_N_ELEMENTS(board->boot_paths); i++)
        if (board->boot_paths[i])
            g_string_free(board->boot_paths[i], true);
    g_free(board);
}
