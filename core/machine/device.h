// SPDX-License-Identifier: GPL-2.0-or-later
// What a device is. One device = one file that ends in one `const struct device_class` and has one row in
// devices/table.c. Devices have no globals, never call the host's clock, and check every guest-controlled value.
#ifndef CLOCHE_DEVICE_H
#define CLOCHE_DEVICE_H

#include "core/base/base.h"
#include "core/base/clock.h"
#include "core/base/fields.h"
#include "core/memory/memory.h"

struct machine;
struct device;

enum property_type { PROPERTY_BOOL, PROPERTY_UINT, PROPERTY_SIZE, PROPERTY_STRING, PROPERTY_POINTER };
struct property {
    const char *name;
    enum property_type type;
    size_t offset;          // in the instance: bool, uint64_t, uint64_t, char *, void *
    const char *default_text; // NULL: false, 0, NULL
    uint64_t min, max;      // PROPERTY_UINT and PROPERTY_SIZE, where max is not 0
    const char *help;       // one phrase, for --list-devices
};
#define PROPERTY_END {.name = NULL}

struct device_class {
    const char *name;     // as in --list-devices, machine.conf and saved state
    const char *help;     // one line
    size_t size;          // of the instance, whose first member is struct device
    const struct property *properties;
    // Maps regions, connects lines, creates timers. False with a GError: the machine is not started.
    bool (*realize)(struct device *device, GError **error);
    void (*unrealize)(struct device *device); // may be NULL; must cope with a half-realized device
    void (*reset)(struct device *device);     // to power-on state
    // Before saving: finish or park work in flight. After it nothing of the device runs outside the machine lock.
    void (*quiesce)(struct device *device);
    const struct field *fields; // NULL: the device refuses to be saved, by name
    unsigned version;
    bool (*loaded)(struct device *device, GError **error); // after its fields were read: rebuild what derives from them
    bool internal;        // made by the board, not offered to users
};

struct device {
    const struct device_class *class;
    struct machine *machine;
    char *id;             // unique in the machine: "serial0", "disk1"
    struct device *next;
};

extern const struct device_class *const device_classes[]; // NULL-terminated; devices/table.c
const struct device_class *device_class_find(const char *name);

// Creates an unrealized device with default properties. ID is copied (NULL: class name and a number).
struct device *device_new(struct machine *machine, const char *class_name, const char *id, GError **error);
// TEXT is parsed by the property's type ("64K", "on", "3"). The error names device, property and what is allowed.
bool device_set(struct device *device, const char *property, const char *text, GError **error);
void device_set_pointer(struct device *device, const char *property, void *value);
void *device_pointer(struct device *device, const char *property); // NULL, too, where the class has no such property
bool device_realize(struct device *device, GError **error);
void device_free(struct device *device);
// The first device of a class in the machine, or NULL.
struct device *machine_find_device(struct machine *machine, const char *class_name);

// ---- Interrupt lines: a level from a source to a sink ----
typedef void irq_fn(void *opaque, unsigned number, bool level);
struct irq {
    irq_fn *fn;
    void *opaque;
    unsigned number;
};
// Machine lock held. A line that is not connected is silently dropped.
static inline void irq_set(const struct irq *irq, bool level)
{
    if (irq->fn)
        irq->fn(irq->opaque, irq->number, level);
}

#endif
