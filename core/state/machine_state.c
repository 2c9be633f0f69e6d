// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/state/machine_state.h"
#include "core/cpu/arch.h"
#include "core/cpu/lapic.h"
#include "core/cpu/model.h"
#include "core/machine/drive.h"
#include "core/state/fields.h"

#include <string.h>

// File: magic, version (4), sections, SHA-256 of all before it. Section: name length (1), name, class length (1),
// class, class version (4), payload length (4), payload. A name length of 0 ends them.
static const char magic[8] = "CLOCHEST";
#define CHECKSUM_SIZE 32

// What must be the same, and the clock.
struct frame {
    uint64_t clock, ram_size, ram_used;
    uint32_t cpus, tsc_khz;
    bool a20;
    uint64_t device_count;
    uint32_t extensions; // of the processor, which not all hosts have
};
#define FRAME_VERSION 2
static const struct field frame_fields[] = {
    FIELD_U64(struct frame, clock),
    FIELD_U64(struct frame, ram_size),
    FIELD_U64(struct frame, ram_used),
    FIELD_U32(struct frame, cpus),
    FIELD_U32(struct frame, tsc_khz),
    FIELD_BOOL(struct frame, a20),
    FIELD_U64(struct frame, device_count),
    FIELD_SCALAR(FIELD_TYPE_U32, struct frame, extensions, 2, 0),
    FIELD_END,
};

bool machine_state_savable(struct machine *machine, GError **error)
{
    for (const struct device *device = machine->devices; device; device = device->next)
        if (!device->class->fields) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                        "The device %s (%s) has no saved state, so this machine cannot be saved; remove the device",
                        device->id, device->class->name);
            return false;
        }
    return true;
}

bool machine_state_park(struct machine *machine)
{
    bool ran = machine->state == RUN_STATE_RUNNING;
    if (ran) {
        if (machine->cpus)
            cpu_set_pause(machine->cpus);
        clock_stop(machine->clock);
    }
    return ran;
}

void machine_state_unpark(struct machine *machine, bool ran)
{
    if (!ran)
        return;
    clock_start(machine->clock);
    if (machine->cpus)
        cpu_set_resume(machine->cpus);
}

void machine_state_quiesce(struct machine *machine)
{
    for (struct device *device = machine->devices; device; device = device->next)
        if (device->class->quiesce)
            device->class->quiesce(device);
    for (struct drive *drive = machine->drives; drive; drive = drive->next)
        drive_drain(drive);
}

// ---- Saving ----

static void save_section(GByteArray *out, const char *name, const char *class_name, unsigned version,
                         const struct field *fields, const void *object)
{
    const char *const names[] = {name, class_name};
    for (unsigned i = 0; i < 2; i++) {
        size_t length = strlen(names[i]);
        g_assert(length > 0 && length < 256);
        state_write_number(out, 1, length);
        g_byte_array_append(out, (const uint8_t *)names[i], length);
    }
    state_write_number(out, 4, version);
    unsigned at = out->len;
    state_write_number(out, 4, 0);
    state_save_fields(out, fields, object);
    store_le(out->data + at, 4, out->len - at - 4);
}

static struct frame present_frame(struct machine *machine)
{
    struct frame frame = {.clock = clock_now(machine->clock),
                          .ram_size = machine->ram_size,
                          .ram_used = machine->ram->used,
                          .cpus = machine->cpus ? machine->cpus->count : 0,
                          .tsc_khz = machine->cpus ? machine->cpus->tsc_khz : 0,
                          .a20 = machine->a20,
                          .extensions = machine->cpus ? cpu_model_extensions(machine->cpus->model) : 0};
    for (const struct device *device = machine->devices; device; device = device->next)
        frame.device_count++;
    return frame;
}

static void append_checksum(GByteArray *out, unsigned start)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    uint8_t digest[CHECKSUM_SIZE];
    gsize length = sizeof(digest);
    g_checksum_update(sum, out->data + start, out->len - start);
    g_checksum_get_digest(sum, digest, &length);
    g_byte_array_append(out, digest, length);
}

bool machine_state_save(struct machine *machine, GByteArray *out, GError **error)
{
    if (!machine_state_savable(machine, error))
        return false;
    unsigned start = out->len;
    g_byte_array_append(out, (const uint8_t *)magic, sizeof(magic));
    state_write_number(out, 4, STATE_FILE_VERSION);
    struct frame frame = present_frame(machine);
    save_section(out, "machine", "machine", FRAME_VERSION, frame_fields, &frame);
    for (unsigned i = 0; machine->cpus && i < machine->cpus->count; i++) {
        g_autofree char *cpu = g_strdup_printf("cpu%u", i), *lapic = g_strdup_printf("lapic%u", i);
        save_section(out, cpu, "cpu", VCPU_VERSION, vcpu_fields, machine->cpus->vcpu[i]);
        save_section(out, lapic, "lapic", 1, lapic_fields, lapic_state(machine->cpus->vcpu[i]->lapic));
    }
    for (const struct device *device = machine->devices; device; device = device->next)
        save_section(out, device->id, device->class->name, device->class->version, device->class->fields, device);
    state_write_number(out, 1, 0);
    append_checksum(out, start);
    return true;
}

// ---- Loading ----

struct section {
    char name[256], class_name[256];
    unsigned version;
    struct state_reader payload;
};

static bool read_name(struct state_reader *reader, char name[256], GError **error)
{
    GError *local = NULL;
    unsigned length = state_read_number(reader, 1, &local);
    if (!local)
        state_read(reader, name, length, &local);
    name[length] = 0;
    if (!local)
        return true;
    g_propagate_error(error, local);
    return false;
}

// *END is set after the last section.
static bool read_section(struct state_reader *reader, struct section *section, bool *end, GError **error)
{
    GError *local = NULL;
    if (!read_name(reader, section->name, error))
        return false;
    *end = !section->name[0];
    if (*end)
        return true;
    if (!read_name(reader, section->class_name, error))
        return false;
    section->version = state_read_number(reader, 4, &local);
    uint64_t length = local ? 0 : state_read_number(reader, 4, &local);
    if (!local && length > reader->length - reader->at)
        g_set_error(&local, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "section \"%s\" is longer than the file",
                    section->name);
    if (local) {
        g_propagate_error(error, local);
        return false;
    }
    section->payload = (struct state_reader){reader->data + reader->at, length, 0};
    reader->at += length;
    return true;
}

static bool load_section(struct section *section, const char *class_name, unsigned version, const struct field *fields,
                         void *object, GError **error)
{
    if (strcmp(section->class_name, class_name) != 0 || section->version > version) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "The saved state has \"%s\" as %s version %u, this machine as %s version %u", section->name,
                    section->class_name, section->version, class_name, version);
        return false;
    }
    if (state_load_fields(&section->payload, fields, object, section->version, error) &&
        section->payload.at == section->payload.length)
        return true;
    if (error && !*error)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "there is more than expected");
    g_prefix_error(error, "The saved state of %s (%s) cannot be used: ", section->name, class_name);
    return false;
}

static bool check_frame(struct machine *machine, const struct frame *frame, GError **error)
{
    struct frame now = present_frame(machine);
    if (frame->ram_size != now.ram_size || frame->ram_used != now.ram_used || frame->cpus != now.cpus ||
        frame->device_count != now.device_count || (int64_t)frame->clock < 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "The saved state is of a machine with %" G_GUINT64_FORMAT
                    " MiB, %u processors and %" G_GUINT64_FORMAT " devices; this one has %" G_GUINT64_FORMAT
                    " MiB, %u and %" G_GUINT64_FORMAT ": give it the same definition",
                    frame->ram_size >> 20, frame->cpus, frame->device_count, now.ram_size >> 20, now.cpus,
                    now.device_count);
        return false;
    }
    uint32_t lacking = frame->extensions & ~now.extensions;
    if (lacking) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "The saved state's processor has %s, which this machine's on this host has not: give it the same "
                    "processor model on a host that has it",
                    cpu_extension_name((unsigned)__builtin_ctz(lacking)));
        return false;
    }
    return true;
}

static struct device *find_device(struct machine *machine, const char *id)
{
    for (struct device *device = machine->devices; device; device = device->next)
        if (strcmp(device->id, id) == 0)
            return device;
    return NULL;
}

static struct vcpu *find_vcpu(struct machine *machine, const char *name, const char *prefix)
{
    guint64 index;
    if (!g_str_has_prefix(name, prefix) || !machine->cpus ||
        !g_ascii_string_to_unsigned(name + strlen(prefix), 10, 0, VCPU_MAX - 1, &index, NULL) ||
        index >= machine->cpus->count)
        return NULL;
    return machine->cpus->vcpu[index];
}

static bool load_any(struct machine *machine, struct section *section, GError **error)
{
    struct vcpu *vcpu;
    struct device *device = find_device(machine, section->name);
    if (device && device->class->fields)
        return load_section(section, device->class->name, device->class->version, device->class->fields, device, error);
    if ((vcpu = find_vcpu(machine, section->name, "cpu")))
        return load_section(section, "cpu", VCPU_VERSION, vcpu_fields, vcpu, error);
    if ((vcpu = find_vcpu(machine, section->name, "lapic")))
        return load_section(section, "lapic", 1, lapic_fields, lapic_state(vcpu->lapic), error);
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                "The saved state has a device \"%s\" (%s), this machine has not: give it the same definition",
                section->name, section->class_name);
    return false;
}

static bool load_frame(struct machine *machine, struct section *section, GError **error)
{
    struct frame frame = {0};
    if (!load_section(section, "machine", FRAME_VERSION, frame_fields, &frame, error) ||
        !check_frame(machine, &frame, error))
        return false;
    clock_set(machine->clock, frame.clock);
    machine_set_a20(machine, frame.a20);
    if (machine->cpus)
        machine->cpus->tsc_khz = frame.tsc_khz;
    return true;
}

static bool load_sections(struct machine *machine, struct state_reader *reader, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    unsigned expected = 1 + (machine->cpus ? 2 * machine->cpus->count : 0);
    for (const struct device *device = machine->devices; device; device = device->next)
        expected++;
    g_autofree struct section *section = g_new(struct section, 1);
    for (;;) {
        bool end;
        if (!read_section(reader, section, &end, error))
            return false;
        if (end)
            break;
        bool first = g_hash_table_size(seen) == 0;
        if (first != (strcmp(section->name, "machine") == 0) || !g_hash_table_add(seen, g_strdup(section->name))) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "The saved state's sections are out of order");
            return false;
        }
        if (first ? !load_frame(machine, section, error) : !load_any(machine, section, error))
            return false;
    }
    if (g_hash_table_size(seen) == expected)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "The saved state lacks some of this machine's devices");
    return false;
}

static bool check_file(const uint8_t *data, size_t length, GError **error)
{
    if (length < sizeof(magic) + 4 + CHECKSUM_SIZE || memcmp(data, magic, sizeof(magic)) != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "This is no saved state of Cloche");
        return false;
    }
    if (load_le(data + sizeof(magic), 4) > STATE_FILE_VERSION) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "The saved state is of a newer Cloche; install that one");
        return false;
    }
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    uint8_t digest[CHECKSUM_SIZE];
    gsize size = sizeof(digest);
    g_checksum_update(sum, data, length - CHECKSUM_SIZE);
    g_checksum_get_digest(sum, digest, &size);
    if (memcmp(digest, data + length - CHECKSUM_SIZE, CHECKSUM_SIZE) == 0)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "The saved state is damaged: its checksum is wrong");
    return false;
}

bool machine_state_load(struct machine *machine, const void *data, size_t length, GError **error)
{
    if (!check_file(data, length, error))
        return false;
    struct state_reader reader = {data, length - CHECKSUM_SIZE, sizeof(magic) + 4};
    if (!load_sections(machine, &reader, error))
        return false;
    for (unsigned i = 0; machine->cpus && i < machine->cpus->count; i++) {
        struct vcpu *vcpu = machine->cpus->vcpu[i];
        lapic_loaded(vcpu->lapic);
        vcpu_flush_tlb(vcpu);
    }
    return machine_state_loaded(machine, error);
}

// ---- Printing ----

void machine_state_print_device(const struct device *device, GString *out)
{
    g_string_append_printf(out, "%s (%s):\n", device->id, device->class->name);
    if (device->class->fields)
        state_print_fields(out, device->class->fields, device, 2);
}

char *machine_state_print(struct machine *machine)
{
    GString *out = g_string_new(NULL);
    struct frame frame = present_frame(machine);
    g_string_append(out, "machine:\n");
    state_print_fields(out, frame_fields, &frame, 2);
    for (unsigned i = 0; machine->cpus && i < machine->cpus->count; i++) {
        g_string_append_printf(out, "cpu%u:\n", i);
        state_print_fields(out, vcpu_fields, machine->cpus->vcpu[i], 2);
        g_string_append_printf(out, "lapic%u:\n", i);
        state_print_fields(out, lapic_fields, lapic_state(machine->cpus->vcpu[i]->lapic), 2);
    }
    for (const struct device *device = machine->devices; device; device = device->next)
        machine_state_print_device(device, out);
    return g_string_free(out, FALSE);
}
