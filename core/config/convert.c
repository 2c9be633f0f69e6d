// SPDX-License-Identifier: GPL-2.0-or-later
// From machine.conf to struct machine_options: each option of the table says where its value goes.
#include "core/config/config.h"
#include "core/machine/options.h"

#include <string.h>

static char *absolute_path(const char *folder, const char *path)
{
    return g_path_is_absolute(path) || !folder ? g_strdup(path) : g_build_filename(folder, path, NULL);
}

// Where a text "socket:PATH" or "file:PATH" names a relative path, it is relative to the machine's folder.
static char *absolute_target(const char *folder, const char *target)
{
    static const char *const prefixes[] = {"file:", "socket:", "unix:", "device:"};
    for (unsigned i = 0; i < G_N_ELEMENTS(prefixes); i++) {
        size_t length = strlen(prefixes[i]);
        if (strncmp(target, prefixes[i], length) == 0 && target[length]) {
            g_autofree char *path = absolute_path(folder, target + length);
            return g_strconcat(prefixes[i], path, NULL);
        }
    }
    return g_strdup(target);
}

static void set_string(char **member, char *value)
{
    g_free(*member);
    *member = value;
}

static void store_value(const struct option *option, const char *text, const char *folder, void *target)
{
    void *member = (char *)target + option->offset;
    uint64_t number = 0;
    bool flag = false;
    switch (option->type) {
    case OPTION_BOOL:
        option_parse_bool(text, &flag);
        *(bool *)member = flag;
        break;
    case OPTION_NUMBER:
        option_parse_size(text, &number);
        *(unsigned *)member = number;
        break;
    case OPTION_SIZE:
        option_parse_size(text, &number);
        *(uint64_t *)member = number;
        break;
    case OPTION_CHOICE:
        if (option->as_index) {
            for (int i = 0; option->choices[i]; i++)
                if (strcmp(option->choices[i], text) == 0)
                    *(int *)member = i;
        } else if (strcmp(text, "auto") == 0 && option->target != OPTION_TARGET_MACHINE) {
            set_string(member, NULL);
        } else {
            set_string(member, g_strdup(text));
        }
        break;
    case OPTION_FILE:
        set_string(member, text[0] ? absolute_path(folder, text) : NULL);
        break;
    case OPTION_TEXT:
        set_string(member, text[0] ? absolute_target(folder, text) : NULL);
        break;
    case OPTION_LIST:
        g_strfreev(*(char ***)member);
        *(char ***)member = text[0] ? g_strsplit(text, ";", -1) : NULL;
        break;
    }
}

static void store_group(struct config *config, const char *group, enum option_target kind, const char *folder,
                        void *target)
{
    for (size_t i = 0; i < options_count; i++) {
        const struct option *option = &options_table[i];
        if (option->target != kind || !option_group_matches(option->group, group))
            continue;
        g_autofree char *text = config_get(config, group, option->key);
        store_value(option, text, folder, target);
    }
}

static void store_machine(struct config *config, const char *folder, struct machine_options *options)
{
    for (size_t i = 0; i < options_count; i++) {
        const struct option *option = &options_table[i];
        if (option->target != OPTION_TARGET_MACHINE)
            continue;
        g_autofree char *text = config_get(config, option->group, option->key);
        store_value(option, text, folder, options);
    }
}

// The MAC address that a card without one gets: fixed for a machine and a card, locally administered.
static char *derived_mac(const char *uuid, const char *card)
{
    g_autofree char *seed = g_strdup_printf("%s/%s", uuid ? uuid : "", card);
    g_autofree char *sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256, seed, -1);
    return g_strdup_printf("52:54:00:%.2s:%.2s:%.2s", sum, sum + 2, sum + 4);
}

static void store_drives(struct config *config, const char *folder, struct machine_options *options)
{
    g_auto(GStrv) groups = config_groups(config, "Drive *");
    for (char **group = groups; *group; group++) {
        struct drive_options *drive = g_new0(struct drive_options, 1);
        store_group(config, *group, OPTION_TARGET_DRIVE, folder, drive);
        drive->id = g_strdup(*group + strlen("Drive "));
        g_ptr_array_add(options->drives, drive);
    }
}

static void store_nics(struct config *config, const char *folder, struct machine_options *options)
{
    g_auto(GStrv) groups = config_groups(config, "Network *");
    for (char **group = groups; *group; group++) {
        struct nic_options *nic = g_new0(struct nic_options, 1);
        store_group(config, *group, OPTION_TARGET_NIC, folder, nic);
        nic->id = g_strdup(*group + strlen("Network "));
        if (!nic->mac)
            nic->mac = derived_mac(options->uuid, nic->id);
        g_ptr_array_add(options->nics, nic);
    }
}

static void store_serials(struct config *config, const char *folder, struct machine_options *options)
{
    g_auto(GStrv) groups = config_groups(config, "Serial *");
    for (char **group = groups; *group; group++) {
        struct serial_options *serial = g_new0(struct serial_options, 1);
        store_group(config, *group, OPTION_TARGET_SERIAL, folder, serial);
        g_ptr_array_add(options->serials, serial);
    }
}

bool config_to_options(struct config *config, const char *folder, struct machine_options *options, GError **error)
{
    if (config_get_bool(config, "Machine", "template")) {
        g_autofree char *name = config_get(config, "Machine", "name");
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "\"%s\" is a template and is not started itself; make a linked clone of it", name);
        return false;
    }
    store_machine(config, folder, options);
    set_string(&options->folder, g_strdup(folder));
    store_drives(config, folder, options);
    store_nics(config, folder, options);
    store_serials(config, folder, options);
    g_auto(GStrv) devices = config_groups(config, "Device *");
    for (char **group = devices; *group; group++) {
        char *device = config_get(config, *group, "device");
        if (device[0])
            g_ptr_array_add(options->devices, device);
        else
            g_free(device);
    }
    return true;
}
