// SPDX-License-Identifier: GPL-2.0-or-later
// Devices: creation by class name, properties, life.
#include "core/machine/device.h"
#include "core/machine/machine.h"

#include <string.h>

const struct device_class *device_class_find(const char *name)
{
    for (unsigned i = 0; device_classes[i]; i++)
        if (strcmp(device_classes[i]->name, name) == 0)
            return device_classes[i];
    return NULL;
}

static struct device *find_device(struct machine *machine, const char *id)
{
    for (struct device *d = machine->devices; d; d = d->next)
        if (strcmp(d->id, id) == 0)
            return d;
    return NULL;
}

struct device *machine_find_device(struct machine *machine, const char *class_name)
{
    for (struct device *d = machine->devices; d; d = d->next)
        if (strcmp(d->class->name, class_name) == 0)
            return d;
    return NULL;
}

static char *unique_id(struct machine *machine, const char *class_name)
{
    for (unsigned n = 0;; n++) {
        char *id = g_strdup_printf("%s%u", class_name, n);
        if (!find_device(machine, id))
            return id;
        g_free(id);
    }
}

static void *member(struct device *device, const struct property *property)
{
    return (char *)device + property->offset;
}

// ---- Properties ----
static bool parse_bool(const char *text, bool *value)
{
    static const char *const yes[] = {"on", "yes", "true", "1", NULL}, *const no[] = {"off", "no", "false", "0", NULL};
    *value = g_strv_contains(yes, text);
    return *value || g_strv_contains(no, text);
}

static bool parse_number(const char *text, bool size, uint64_t *value)
{
    char *end;
    if (!g_ascii_isdigit(*text))
        return false;
    *value = g_ascii_strtoull(text, &end, 0);
    if (size && *end) {
        static const char units[] = "KMGT";
        const char *unit = strchr(units, g_ascii_toupper(*end));
        if (!unit || *value > UINT64_MAX >> 10 * (unit - units + 1))
            return false;
        *value <<= 10 * (unit - units + 1);
        end++;
    }
    return !*end;
}

static bool set_number(struct device *device, const struct property *p, const char *text, GError **error)
{
    uint64_t value;
    if (!parse_number(text, p->type == PROPERTY_SIZE, &value)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s: %s=%s is not a %s.", device->class->name, p->name,
                    text, p->type == PROPERTY_SIZE ? "size such as 64K or 16M" : "number");
        return false;
    }
    if (p->max && (value < p->min || value > p->max)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s: %s=%s is out of range: give %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT ".",
                    device->class->name, p->name, text, p->min, p->max);
        return false;
    }
    *(uint64_t *)member(device, p) = value;
    return true;
}

static bool set_property(struct device *device, const struct property *p, const char *text, GError **error)
{
    switch (p->type) {
    case PROPERTY_BOOL:
        if (parse_bool(text, member(device, p)))
            return true;
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s: %s=%s must be on or off.", device->class->name,
                    p->name, text);
        return false;
    case PROPERTY_UINT:
    case PROPERTY_SIZE:
        return set_number(device, p, text, error);
    case PROPERTY_STRING: {
        char **string = member(device, p);
        g_free(*string);
        *string = g_strdup(text);
        return true;
    }
    default:
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s: %s cannot be set from text.", device->class->name,
                    p->name);
        return false;
    }
}

static const struct property *find_property(const struct device_class *class, const char *name)
{
    for (const struct property *p = class->properties; p && p->name; p++)
        if (strcmp(p->name, name) == 0)
            return p;
    return NULL;
}

bool device_set(struct device *device, const char *property, const char *text, GError **error)
{
    const struct property *found = find_property(device->class, property);
    if (found && found->type != PROPERTY_POINTER)
        return set_property(device, found, text, error);
    g_autoptr(GString) names = g_string_new(NULL);
    for (const struct property *p = device->class->properties; p && p->name; p++)
        if (p->type != PROPERTY_POINTER)
            g_string_append_printf(names, "%s%s", names->len ? ", " : "", p->name);
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s has no property %s: it takes %s.", device->class->name,
                property, names->len ? names->str : "none");
    return false;
}

void device_set_pointer(struct device *device, const char *property, void *value)
{
    const struct property *found = find_property(device->class, property);
    g_assert(found && found->type == PROPERTY_POINTER);
    *(void **)member(device, found) = value;
}

void *device_pointer(struct device *device, const char *property)
{
    const struct property *found = find_property(device->class, property);
    return found && found->type == PROPERTY_POINTER ? *(void **)member(device, found) : NULL;
}

// ---- Life ----
static void free_properties(struct device *device)
{
    for (const struct property *p = device->class->properties; p && p->name; p++)
        if (p->type == PROPERTY_STRING)
            g_free(*(char **)member(device, p));
}

struct device *device_new(struct machine *machine, const char *class_name, const char *id, GError **error)
{
    const struct device_class *class = device_class_find(class_name);
    if (!class) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                    "There is no device named %s: --list-devices shows them all.", class_name);
        return NULL;
    }
    if (id && find_device(machine, id)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS, "Two devices are named %s: give each its own id.", id);
        return NULL;
    }
    struct device *device = g_malloc0(class->size);
    device->class = class;
    device->machine = machine;
    for (const struct property *p = class->properties; p && p->name; p++)
        if (p->default_text && !set_property(device, p, p->default_text, error)) {
            free_properties(device);
            g_free(device);
            return NULL;
        }
    device->id = id ? g_strdup(id) : unique_id(machine, class_name);
    struct device **link = &machine->devices;
    while (*link)
        link = &(*link)->next;
    *link = device;
    return device;
}

bool device_realize(struct device *device, GError **error)
{
    machine_lock(device->machine);
    bool done = !device->class->realize || device->class->realize(device, error);
    machine_unlock(device->machine);
    return done;
}

void device_free(struct device *device)
{
    if (!device)
        return;
    struct machine *machine = device->machine;
    machine_lock(machine);
    if (device->class->unrealize)
        device->class->unrealize(device);
    for (struct device **link = &machine->devices; *link; link = &(*link)->next)
        if (*link == device) {
            *link = device->next;
            break;
        }
    machine_unlock(machine);
    free_properties(device);
    g_free(device->id);
    g_free(device);
}
