// SPDX-License-Identifier: GPL-2.0-or-later
// human-monitor-command: the texts of `info`, for people who debug a guest.
#include "core/control/server.h"
#include "core/cpu/arch.h"
#include "core/machine/drive.h"
#include "core/machine/pci.h"
#include "core/state/machine_state.h"

#include <inttypes.h>
#include <string.h>

#define TLB_MAX_LINES 20000

static void info_status(struct machine *machine, GString *out)
{
    g_string_append_printf(out, "VM status: %s", run_state_name(machine->state));
    if (machine->stop_reason)
        g_string_append_printf(out, " (%s)", machine->stop_reason);
    g_string_append_c(out, '\n');
}

// ---- Registers ----

static void put_segment(GString *out, const char *name, const struct segment *segment)
{
    g_string_append_printf(out, "%-3s=%04x %016" PRIx64 " %08x %04x\n", name, segment->selector, segment->base,
                           segment->limit, segment->attr);
}

static void put_registers(GString *out, unsigned index, const struct vcpu *v)
{
    static const char *const names[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                        "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15"};
    static const char *const segments[] = {"ES", "CS", "SS", "DS", "FS", "GS"};
    g_string_append_printf(out, "CPU#%u\n", index);
    for (unsigned i = 0; i < 16; i++)
        g_string_append_printf(out, "%s=%016" PRIx64 "%c", names[i], v->gpr[i], i % 4 == 3 ? '\n' : ' ');
    g_string_append_printf(out, "RIP=%016" PRIx64 " RFL=%08" PRIx64 " CPL=%u\n", v->rip, v->rflags, v->cpl);
    for (unsigned i = 0; i < SEGMENT_COUNT; i++)
        put_segment(out, segments[i], &v->seg[i]);
    put_segment(out, "LDT", &v->ldtr);
    put_segment(out, "TR", &v->tr);
    g_string_append_printf(out, "GDT=     %016" PRIx64 " %08x\nIDT=     %016" PRIx64 " %08x\n", v->gdtr.base,
                           v->gdtr.limit, v->idtr.base, v->idtr.limit);
    g_string_append_printf(out, "CR0=%08" PRIx64 " CR2=%016" PRIx64 " CR3=%016" PRIx64 " CR4=%08" PRIx64 "\n", v->cr0,
                           v->cr2, v->cr3, v->cr4);
    g_string_append_printf(out, "EFER=%016" PRIx64 " XCR0=%016" PRIx64 "\n", v->efer, v->xcr0);
    for (unsigned i = 0; i < 16; i++)
        g_string_append_printf(out, "XMM%02u=%016" PRIx64 "%016" PRIx64 "%c", i, v->xsave.xmm[i].u64[1],
                               v->xsave.xmm[i].u64[0], i % 2 ? '\n' : ' ');
}

static void info_registers(struct machine *machine, GString *out)
{
    for (unsigned i = 0; machine->cpus && i < machine->cpus->count; i++)
        put_registers(out, i, machine->cpus->vcpu[i]);
}

static void info_cpus(struct machine *machine, GString *out)
{
    static const char *const activities[] = {"running", "halted", "waits for SIPI", "shut down"};
    for (unsigned i = 0; machine->cpus && i < machine->cpus->count; i++) {
        const struct vcpu *v = machine->cpus->vcpu[i];
        g_string_append_printf(out, "* CPU #%u: rip=0x%016" PRIx64 " (%s)\n", i, v->rip,
                               (unsigned)v->activity < 4 ? activities[v->activity] : "?");
    }
}

// ---- The guest's page tables ----

struct table_walk {
    struct machine *machine;
    GString *out;
    unsigned lines;
    bool wide; // 8-byte entries
};

static void put_mapping(struct table_walk *walk, uint64_t address, uint64_t entry, unsigned shift)
{
    uint64_t frame = entry & 0x000ffffffffff000ull & ~(BIT(shift) - 1);
    g_string_append_printf(walk->out, "%016" PRIx64 ": %016" PRIx64 " %c%c%c%c%c%c%c\n", address, frame,
                           walk->wide && entry >> 63 ? 'X' : '-', entry & BIT(8) ? 'G' : '-', shift > 12 ? 'P' : '-',
                           entry & BIT(6) ? 'D' : '-', entry & BIT(5) ? 'A' : '-', entry & BIT(2) ? 'U' : '-',
                           entry & BIT(1) ? 'W' : '-');
    walk->lines++;
}

// A table of the hierarchy; SHIFT: bits of address below its entries.
static void walk_table(struct table_walk *walk, uint64_t table, uint64_t base, unsigned shift, unsigned entries)
{
    unsigned size = walk->wide ? 8 : 4;
    for (unsigned i = 0; i < entries && walk->lines < TLB_MAX_LINES; i++) {
        uint64_t entry = address_space_load(walk->machine->memory, table + i * size, size);
        uint64_t address = base | (uint64_t)i << shift;
        if (shift == 39 && i & 256)
            address |= 0xffff000000000000ull;
        if (!(entry & 1))
            continue;
        bool large = shift == 12 || ((entry & BIT(7)) && shift < 39 && !(shift == 30 && entries == 4));
        if (large)
            put_mapping(walk, address, entry, shift);
        else
            walk_table(walk, entry & 0x000ffffffffff000ull, address, shift - (walk->wide ? 9 : 10),
                       walk->wide ? 512 : 1024);
    }
}

static void info_tlb(struct machine *machine, GString *out)
{
    const struct vcpu *v = machine->cpus && machine->cpus->count ? machine->cpus->vcpu[0] : NULL;
    if (!v || !(v->cr0 & CR0_PG)) {
        g_string_append(out, "PG disabled\n");
        return;
    }
    struct table_walk walk = {machine, out, 0, v->cr4 & CR4_PAE};
    if (v->efer & EFER_LMA)
        walk_table(&walk, v->cr3 & 0x000ffffffffff000ull, 0, 39, 512);
    else if (walk.wide)
        walk_table(&walk, v->cr3 & 0xffffffe0, 0, 30, 4);
    else
        walk_table(&walk, v->cr3 & 0xfffff000, 0, 22, 1024);
    if (walk.lines >= TLB_MAX_LINES)
        g_string_append(out, "... (cut)\n");
}

// ---- Buses and devices ----

static void info_mtree(struct machine *machine, GString *out)
{
    g_autofree char *memory = address_space_describe(machine->memory), *ports = address_space_describe(machine->ports);
    g_string_append_printf(out, "memory\n%s\nports\n%s", memory, ports);
}

static void put_pci(struct pci_device *pci, void *opaque)
{
    GString *out = opaque;
    const uint8_t *config = pci->config;
    g_string_append_printf(out, "  Bus 0, device %2u, function %u: %s\n    class %04x, id %04x:%04x\n", pci->devfn >> 3,
                           pci->devfn & 7, pci->device.id, (unsigned)load_le(config + 0x0a, 2),
                           (unsigned)load_le(config, 2), (unsigned)load_le(config + 2, 2));
    if (config[0x3d])
        g_string_append_printf(out, "    IRQ %u, pin %c\n", config[0x3c], 'A' + config[0x3d] - 1);
    for (unsigned i = 0; i < PCI_BARS; i++) {
        const struct pci_bar *bar = &pci->bar[i];
        if (bar->region)
            g_string_append_printf(out, "    BAR%u: %s at 0x%016" PRIx64 " [0x%" PRIx64 "]\n", i,
                                   bar->io ? "I/O" : "memory", bar->base, bar->size);
    }
}

static void info_pci(struct machine *machine, GString *out)
{
    pci_bus_foreach(machine->pci, put_pci, out);
}

static void info_qtree(struct machine *machine, GString *out)
{
    for (struct device *device = machine->devices; device; device = device->next)
        g_string_append_printf(out, "%s: %s%s\n", device->id, device->class->name,
                               device->class->fields ? "" : " (not saved)");
}

static void info_block(struct machine *machine, GString *out)
{
    for (struct drive *drive = machine->drives; drive; drive = drive->next) {
        g_string_append_printf(out, "%s: %s", drive->id, drive->disk ? disk_path(drive->disk) : "[not inserted]");
        if (drive->disk)
            g_string_append_printf(out, " (%s%s), engine %s", disk_format(drive->disk),
                                   drive_writable(drive) ? "" : ", read-only", disk_engine_name(drive->disk));
        g_string_append_c(out, '\n');
    }
}

static void info_jit(struct machine *machine, GString *out)
{
    if (!machine->cpus)
        return;
    g_autofree char *text = machine->cpus->engine->describe ? machine->cpus->engine->describe(machine->cpus) : NULL;
    g_string_append_printf(out, "engine %s\n%s", machine->cpus->engine->name, text ? text : "");
    for (unsigned i = 0; i < machine->cpus->count; i++) {
        const struct vcpu *v = machine->cpus->vcpu[i];
        g_string_append_printf(out,
                               "CPU#%u instructions %" PRIu64 " exceptions %" PRIu64 " interrupts %" PRIu64
                               " page-walks %" PRIu64 " tlb-misses %" PRIu64 " io-exits %" PRIu64 "\n",
                               i, v->instructions, v->exceptions, v->interrupts, v->page_walks, v->tlb_misses,
                               v->io_exits);
    }
}

static void info_irq(struct machine *machine, GString *out)
{
    static const char *const names[] = {"i8259", "ioapic", NULL};
    for (struct device *device = machine->devices; device; device = device->next)
        if (g_strv_contains(names, device->class->name))
            machine_state_print_device(device, out);
}

static void info_state(struct machine *machine, GString *out)
{
    g_autofree char *text = machine_state_print(machine);
    g_string_append(out, text);
}

static const struct {
    const char *name;
    void (*print)(struct machine *machine, GString *out);
    const char *help;
} infos[] = {
    {"status", info_status, "run state"},
    {"registers", info_registers, "registers of every processor"},
    {"cpus", info_cpus, "where each processor is"},
    {"tlb", info_tlb, "the first processor's page tables"},
    {"mtree", info_mtree, "memory and port map"},
    {"pci", info_pci, "PCI functions and their BARs"},
    {"irq", info_irq, "state of the interrupt controllers"},
    {"state", info_state, "every saved field of processors and devices"},
    {"qtree", info_qtree, "all devices"},
    {"block", info_block, "drives"},
    {"jit", info_jit, "counters of the engine"},
};

char *control_info_text(struct control_server *server, const char *what, GError **error)
{
    struct machine *machine = server->machine;
    for (unsigned i = 0; i < G_N_ELEMENTS(infos); i++) {
        if (strcmp(infos[i].name, what) != 0)
            continue;
        bool running = machine->state == RUN_STATE_RUNNING && machine->cpus;
        if (running)
            cpu_set_pause(machine->cpus); // the text is of one moment
        GString *out = g_string_new(NULL);
        machine_lock(machine);
        infos[i].print(machine, out);
        machine_unlock(machine);
        if (running)
            cpu_set_resume(machine->cpus);
        return g_string_free(out, FALSE);
    }
    g_autoptr(GString) list = g_string_new(NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(infos); i++)
        g_string_append_printf(list, "%s%s", i ? ", " : "", infos[i].name);
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "There is no `info %.40s`; there is %s", what, list->str);
    return NULL;
}

static JsonNode *human_command(struct qmp_call *call, GError **error)
{
    g_autofree char *line = g_strdup(qmp_string(call, "command-line"));
    g_strstrip(line);
    if (!g_str_has_prefix(line, "info ")) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "Only `info NAME` is understood, not \"%.60s\"",
                    line);
        return NULL;
    }
    g_autofree char *text = control_info_text(call_server(call), g_strstrip(line + 5), error);
    return text ? qmp_node_string(text) : NULL;
}

// ---- query-pci ----

static JsonObject *pci_region(const struct pci_bar *bar, unsigned index)
{
    JsonObject *region = json_object_new();
    json_object_set_int_member(region, "bar", index);
    json_object_set_string_member(region, "type", bar->io ? "io" : "memory");
    json_object_set_int_member(region, "address", bar->base);
    json_object_set_int_member(region, "size", bar->size);
    if (!bar->io) {
        json_object_set_boolean_member(region, "prefetch", bar->prefetchable);
        json_object_set_boolean_member(region, "mem_type_64", bar->wide);
    }
    return region;
}

static void add_pci(struct pci_device *pci, void *opaque)
{
    JsonObject *entry = json_object_new(), *class_info = json_object_new(), *id = json_object_new();
    JsonArray *regions = json_array_new();
    json_object_set_int_member(class_info, "class", load_le(pci->config + 0x0a, 2));
    json_object_set_string_member(class_info, "desc", pci->device.class->help ? pci->device.class->help : "");
    json_object_set_int_member(id, "vendor", load_le(pci->config, 2));
    json_object_set_int_member(id, "device", load_le(pci->config + 2, 2));
    json_object_set_int_member(id, "subsystem-vendor", load_le(pci->config + 0x2c, 2));
    json_object_set_int_member(id, "subsystem", load_le(pci->config + 0x2e, 2));
    for (unsigned i = 0; i < PCI_BARS; i++)
        if (pci->bar[i].region)
            json_array_add_object_element(regions, pci_region(&pci->bar[i], i));
    json_object_set_int_member(entry, "bus", 0);
    json_object_set_int_member(entry, "slot", pci->devfn >> 3);
    json_object_set_int_member(entry, "function", pci->devfn & 7);
    json_object_set_object_member(entry, "class_info", class_info);
    json_object_set_object_member(entry, "id", id);
    json_object_set_int_member(entry, "irq", pci->config[0x3c]);
    json_object_set_int_member(entry, "irq_pin", pci->config[0x3d]);
    json_object_set_string_member(entry, "qdev_id", pci->device.id);
    json_object_set_array_member(entry, "regions", regions);
    json_array_add_object_element(opaque, entry);
}

static JsonNode *query_pci(struct qmp_call *call, GError **error)
{
    JsonObject *bus = json_object_new();
    JsonArray *buses = json_array_new(), *devices = json_array_new();
    pci_bus_foreach(call_machine(call)->pci, add_pci, devices);
    json_object_set_int_member(bus, "bus", 0);
    json_object_set_array_member(bus, "devices", devices);
    json_array_add_object_element(buses, bus);
    return qmp_node_array(buses);
}

static const struct qmp_argument human_arguments[] = {
    QMP_NEED("command-line", QMP_STRING), QMP_MAY("cpu-index", QMP_INT, .min = 0, .max = VCPU_MAX - 1), QMP_END};

const struct qmp_command control_info_commands[] = {
    QMP_REQUEST("human-monitor-command", human_command, human_arguments, QMP_ANY_STATE, "Text of `info NAME`."),
    QMP_COMMAND("query-pci", query_pci, NULL, "The PCI bus."),
    QMP_END,
};
