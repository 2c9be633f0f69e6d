// SPDX-License-Identifier: GPL-2.0-or-later
// Output ports of firmware and kernels (0x402 SeaBIOS, 0xE9 Bochs), and isa-debug-exit, which ends the run with a
// status.
#include "devices/char/backend.h"
#include "devices/chipset/chipset.h"

// ---- debug-ports ----
struct debug_ports {
    struct device device;
    struct char_backend *output;
    struct region seabios, bochs;
};

static uint64_t debug_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0xe9; // "somebody listens"
}

static void debug_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct debug_ports *s = opaque;
    uint8_t byte = value;
    if (s->output)
        char_backend_write(s->output, &byte, 1);
}

static const struct io_ops debug_ops = {debug_read, debug_write, 1, 1};

static bool debug_realize(struct device *device, GError **error)
{
    struct debug_ports *s = (struct debug_ports *)device;
    region_init_io(&s->seabios, "debug 402", &debug_ops, s, 1);
    region_init_io(&s->bochs, "debug e9", &debug_ops, s, 1);
    address_space_map(device->machine->ports, &s->seabios, 0x402, 0);
    address_space_map(device->machine->ports, &s->bochs, 0xe9, 0);
    return true;
}

static void debug_unrealize(struct device *device)
{
    char_backend_free(((struct debug_ports *)device)->output);
}

static const struct field no_fields[] = {FIELD_END};

static const struct property debug_properties[] = {
    {"output", PROPERTY_POINTER, offsetof(struct debug_ports, output), NULL, 0, 0, NULL},
    PROPERTY_END,
};

const struct device_class debug_ports_class = {
    .name = "debug-ports",
    .help = "debug output at ports 0x402 and 0xE9",
    .size = sizeof(struct debug_ports),
    .properties = debug_properties,
    .realize = debug_realize,
    .unrealize = debug_unrealize,
    .fields = no_fields,
    .internal = true,
};

// ---- isa-debug-exit ----
struct debug_exit {
    struct device device;
    uint64_t port, port_size;
    struct region region;
};

static uint64_t exit_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void exit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct debug_exit *s = opaque;
    machine_request_exit(s->device.machine, "guest-debug-exit", (value << 1 | 1) & 0xff);
}

static const struct io_ops exit_ops = {exit_read, exit_write, 1, 4};

static bool exit_realize(struct device *device, GError **error)
{
    struct debug_exit *s = (struct debug_exit *)device;
    region_init_io(&s->region, "debug exit", &exit_ops, s, s->port_size);
    address_space_map(device->machine->ports, &s->region, s->port, 0);
    return true;
}

static const struct property exit_properties[] = {
    {"iobase", PROPERTY_UINT, offsetof(struct debug_exit, port), "0x501", 1, 0xfffc, "first port"},
    {"iosize", PROPERTY_UINT, offsetof(struct debug_exit, port_size), "2", 1, 4, "ports"},
    PROPERTY_END,
};

const struct device_class debug_exit_class = {
    .name = "isa-debug-exit",
    .help = "a write of N ends the run with status 2N+1",
    .size = sizeof(struct debug_exit),
    .properties = exit_properties,
    .realize = exit_realize,
    .fields = no_fields,
};
