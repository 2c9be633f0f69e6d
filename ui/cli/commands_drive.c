// SPDX-License-Identifier: GPL-2.0-or-later
// disk list|add|resize|change|eject|remove, vnc.
#include "core/base/file.h"
#include "disks/create.h"
#include "disks/disk.h"
#include "disks/info.h"
#include "ui/cli/cli.h"
#include "ui/cli/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *drive_path(struct machine_entry *entry, const char *file)
{
    return g_path_is_absolute(file) ? g_strdup(file) : g_build_filename(entry->folder, file, NULL);
}

static char *drive_group(struct machine_entry *entry, const char *id, GError **error)
{
    char *group = g_strdup_printf("Drive %s", id);
    if (config_has_group(entry->config, group))
        return group;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                "\"%s\" has no drive %s; `clochectl disk list %s` shows them", entry->name, id, entry->name);
    g_free(group);
    return NULL;
}

static bool do_disk_list(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    if (!entry)
        return false;
    JsonArray *list = json_array_new();
    struct cli_table *table = cli_table_new("DRIVE", "KIND", "SIZE", "USED", "FORMAT", "FILE", NULL);
    g_auto(GStrv) groups = config_groups(entry->config, "Drive *");
    for (char **group = groups; *group; group++) {
        g_autofree char *kind = config_get(entry->config, *group, "kind"),
                        *file = config_get(entry->config, *group, "file");
        g_autofree char *path = file[0] ? drive_path(entry, file) : NULL;
        struct disk_info *info = path ? disk_info(path, NULL, NULL) : NULL;
        g_autofree char *size = info ? cli_size(info->size) : g_strdup("-"),
                        *used = info ? cli_size(info->allocated) : g_strdup("-");
        const char *id = *group + strlen("Drive ");
        cli_table_add(table, id, kind, size, used, info ? info->format : "-", path ? path : "(empty)", NULL);
        JsonObject *object =
            control_arguments("s:id", id, "s:kind", kind, "s:file", path, "s:format", info ? info->format : NULL, NULL);
        if (info) {
            json_object_set_int_member(object, "size", info->size);
            json_object_set_int_member(object, "allocated", info->allocated);
        }
        json_array_add_object_element(list, object);
        disk_info_free(info);
    }
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, list);
    if (cli->json) {
        cli_print_json(node);
        return true;
    }
    json_node_unref(node);
    cli_table_print(table);
    return true;
}

// ---- Changes of the definition ----

struct new_drive {
    const char *kind, *prefix;
    char *file;
    const char *format;
    char *id; // out
};

static bool add_drive(struct config *config, void *opaque, GError **error)
{
    struct new_drive *new = opaque;
    g_autofree char *group = config_add_group(config, "Drive *", new->prefix);
    new->id = g_strdup(group + strlen("Drive "));
    return config_set(config, group, "kind", new->kind, error) && config_set(config, group, "file", new->file, error) &&
           (!new->format || config_set(config, group, "format", new->format, error));
}

// The first unused diskN.qcow2 of the folder.
static char *new_disk_name(const char *folder)
{
    for (unsigned i = 0;; i++) {
        g_autofree char *name = g_strdup_printf("disk%u.qcow2", i), *path = g_build_filename(folder, name, NULL);
        if (!g_file_test(path, G_FILE_TEST_EXISTS))
            return g_steal_pointer(&name);
    }
}

static bool do_disk_add(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    const char *what = cli_word(cli, 1);
    uint64_t size;
    if (!entry)
        return false;
    cli_keep_whole();
    int lock = machine_folder_lock(entry->folder, error); // not while it runs
    if (lock < 0)
        return false;
    const char *kind = cli_option(cli, "cdrom") ? "cdrom" : cli_option(cli, "floppy") ? "floppy" : "disk";
    struct new_drive new = {.kind = kind, .prefix = kind[0] == 'c' ? "cd" : kind};
    g_autofree char *created = NULL;
    bool good = true;
    if (strcmp(kind, "disk") == 0 && option_parse_size(what, &size)) {
        new.file = new_disk_name(entry->folder);
        new.format = "qcow2";
        created = g_build_filename(entry->folder, new.file, NULL);
        struct disk_create_options options = {.format = "qcow2", .size = size};
        good = disk_create(created, &options, error);
    } else {
        new.file = g_canonicalize_filename(what, NULL);
        if (access(new.file, R_OK) != 0) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                        "%s is neither a size such as 20G nor a readable file", what);
            good = false;
        }
    }
    if (good && !machine_folder_edit(entry->folder, add_drive, &new, error)) {
        if (created)
            unlink(created);
        good = false;
    }
    if (good)
        cli_say(cli, "Added drive %s", new.id);
    g_free(new.file);
    g_free(new.id);
    close(lock);
    return good;
}

// A disk of the machine's own, as large as SIZE or smaller.
static bool may_resize(struct cli *cli, const char *kind, bool read_only, const char *path, uint64_t size,
                       GError **error)
{
    if (strcmp(kind, "disk") != 0 || read_only) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Drive %s is %s; only writable disks change their size",
                    cli_word(cli, 1), strcmp(kind, "disk") == 0 ? "read-only" : "no disk");
        return false;
    }
    struct disk_info *info = disk_info(path, NULL, error);
    bool good = info && (size >= info->size || cli_option(cli, "shrink"));
    if (info && !good)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "Drive %s is larger than %s; --shrink drops what lies beyond", cli_word(cli, 1), cli_word(cli, 2));
    disk_info_free(info);
    return good;
}

static bool resize_stopped(struct machine_entry *entry, const char *path, const char *format, uint64_t size,
                           GError **error)
{
    int lock = machine_folder_lock(entry->folder, error);
    struct disk *disk = lock >= 0 ? disk_open(path, strcmp(format, "auto") == 0 ? NULL : format, 0, error) : NULL;
    bool good = disk && disk_resize(disk, size, error);
    disk_close(disk);
    if (lock >= 0)
        close(lock);
    return good;
}

static bool do_disk_resize(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    g_autofree char *group = entry ? drive_group(entry, cli_word(cli, 1), error) : NULL;
    uint64_t size;
    if (!group)
        return false;
    if (!option_parse_size(cli_word(cli, 2), &size) || size < MiB) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s is no size; write for example 40G",
                    cli_word(cli, 2));
        return false;
    }
    g_autofree char *file = config_get(entry->config, group, "file"),
                    *format = config_get(entry->config, group, "format"),
                    *kind = config_get(entry->config, group, "kind");
    g_autofree char *path = drive_path(entry, file);
    if (!may_resize(cli, kind, config_get_bool(entry->config, group, "read-only"), path, size, error))
        return false;
    cli_keep_whole();
    g_autoptr(machine_report_t) report = machine_report(entry->folder, entry->uuid);
    if (report->life == LIFE_RUNNING)
        return cli_do(cli, "block_resize",
                      control_arguments("s:device", cli_word(cli, 1), "i:size", (int64_t)size, NULL), error);
    return resize_stopped(entry, path, format, size, error);
}

struct medium_change {
    const char *group;
    const char *file; // NULL: empty
};

static bool change_file(struct config *config, void *opaque, GError **error)
{
    struct medium_change *change = opaque;
    return config_set(config, change->group, "file", change->file, error) &&
           config_set(config, change->group, "format", NULL, error);
}

static bool change_medium(struct cli *cli, const char *file, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    g_autofree char *group = entry ? drive_group(entry, cli_word(cli, 1), error) : NULL;
    if (!group)
        return false;
    g_autofree char *kind = config_get(entry->config, group, "kind");
    if (strcmp(kind, "disk") == 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "Drive %s is a disk; only CD-ROMs and floppies change their medium", cli_word(cli, 1));
        return false;
    }
    g_autoptr(machine_report_t) report = machine_report(entry->folder, entry->uuid);
    int force = cli_option(cli, "force") != NULL;
    if (report->life == LIFE_RUNNING &&
        !(file ? cli_do(cli, "blockdev-change-medium",
                        control_arguments("s:id", cli_word(cli, 1), "s:filename", file, "b:force", force, NULL), error)
               : cli_do(cli, "eject", control_arguments("s:id", cli_word(cli, 1), "b:force", force, NULL), error)))
        return false;
    cli_keep_whole();
    struct medium_change change = {group, file};
    return machine_folder_edit(entry->folder, change_file, &change, error);
}

static bool do_disk_change(struct cli *cli, GError **error)
{
    g_autofree char *path = g_canonicalize_filename(cli_word(cli, 2), NULL);
    if (access(path, R_OK) != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "%s cannot be read; check the path", path);
        return false;
    }
    return change_medium(cli, path, error);
}

static bool do_disk_eject(struct cli *cli, GError **error)
{
    return change_medium(cli, NULL, error);
}

static bool remove_group(struct config *config, void *opaque, GError **error)
{
    config_remove_group(config, opaque);
    return true;
}

static bool do_disk_remove(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    g_autofree char *group = entry ? drive_group(entry, cli_word(cli, 1), error) : NULL;
    cli_keep_whole();
    int lock = group ? machine_folder_lock(entry->folder, error) : -1;
    if (lock < 0)
        return false;
    bool good = machine_folder_edit(entry->folder, remove_group, group, error);
    close(lock);
    if (good)
        cli_say(cli, "Drive %s is off the machine; its file stays", cli_word(cli, 1));
    return good;
}

// ---- VNC ----

static void print_vnc(struct cli *cli, const char *host, const char *service, const char *auth)
{
    if (service[0] == 0) {
        printf("VNC is at the UNIX socket %s (password: %s)\n", host, auth);
        return;
    }
    printf("VNC is at %s:%s (display %d, password: %s)\n", host, service, atoi(service) - 5900, auth);
    printf("Nothing is encrypted and passwords have 8 characters. From another host, tunnel it:\n"
           "  ssh -N -L %s:%s:%s %s@%s   then view localhost:%s\n",
           service, host, service, g_get_user_name(), g_get_host_name(), service);
}

static bool show_vnc(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    g_autoptr(control_client_t) client = entry ? cli_connect(cli, entry, NULL, error) : NULL;
    JsonNode *value = client ? control_client_call(client, "query-vnc", NULL, 0, NULL, NULL, error) : NULL;
    if (!value)
        return false;
    if (cli->json) {
        cli_print_json(value);
        return true;
    }
    JsonObject *info = json_node_get_object(value);
    if (!json_object_get_boolean_member_with_default(info, "enabled", FALSE)) {
        cli_say(cli, "VNC is off; switch it on with: clochectl vnc %s --on 127.0.0.1:0", entry->name);
    } else {
        print_vnc(cli, json_object_get_string_member_with_default(info, "host", ""),
                  json_object_get_string_member_with_default(info, "service", ""),
                  json_object_get_string_member_with_default(info, "auth", "none"));
        JsonArray *clients =
            json_object_has_member(info, "clients") ? json_object_get_array_member(info, "clients") : NULL;
        for (unsigned i = 0; clients && i < json_array_get_length(clients); i++) {
            JsonObject *peer = json_array_get_object_element(clients, i);
            printf("  client %d: %s\n", (int)json_object_get_int_member_with_default(peer, "x-cloche-id", 0),
                   json_object_get_string_member_with_default(peer, "host", "?"));
        }
    }
    json_node_unref(value);
    return true;
}

static bool do_vnc(struct cli *cli, GError **error)
{
    const char *on = cli_option(cli, "on"), *id = cli_option(cli, "disconnect"),
               *file = cli_option(cli, "password-file");
    guint64 number = 0;
    if (id && !g_ascii_string_to_unsigned(id, 10, 0, UINT32_MAX, &number, NULL)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "--disconnect %s: give a client's number", id);
        return false;
    }
    g_autofree char *path = file ? g_canonicalize_filename(file, NULL) : NULL;
    if (on &&
        !cli_do(cli, "x-cloche-vnc-start", control_arguments("s:address", on, "s:password-file", path, NULL), error))
        return false;
    if (cli_option(cli, "off") && !cli_do(cli, "x-cloche-vnc-stop", NULL, error))
        return false;
    if (id && !cli_do(cli, "x-cloche-vnc-disconnect", control_arguments("i:id", (int64_t)number, NULL), error))
        return false;
    return show_vnc(cli, error);
}

static const struct cli_option add_options[] = {
    {"cdrom", NULL, "a CD-ROM drive"}, {"floppy", NULL, "a floppy drive"}, {NULL, NULL, NULL}};
static const struct cli_option resize_options[] = {{"shrink", NULL, "allow a smaller size; data beyond it is lost"},
                                                   {NULL, NULL, NULL}};
static const struct cli_option force_options[] = {{"force", NULL, "even where the guest holds the tray"},
                                                  {NULL, NULL, NULL}};
static const struct cli_option vnc_options[] = {
    {"on", "ADDRESS:NUMBER", "serve the screen there, for example 127.0.0.1:0"},
    {"off", NULL, "stop serving"},
    {"password-file", "FILE", "with --on: a file of mode 0600 with the password"},
    {"disconnect", "ID", "disconnect a client"},
    {NULL, NULL, NULL},
};

const struct cli_command cli_drive_commands[] = {
    {"disk list", "NAME", 1, 1, NULL, do_disk_list, "lists the drives", "m"},
    {"disk add", "NAME SIZE|FILE", 2, 2, add_options, do_disk_add, "adds a drive to a stopped machine", "mf"},
    {"disk resize", "NAME DRIVE SIZE", 3, 3, resize_options, do_disk_resize, "gives a disk another size", "md-"},
    {"disk change", "NAME DRIVE FILE", 3, 3, force_options, do_disk_change, "puts another medium into a drive", "mdf"},
    {"disk eject", "NAME DRIVE", 2, 2, force_options, do_disk_eject, "takes the medium out", "md"},
    {"disk remove", "NAME DRIVE", 2, 2, NULL, do_disk_remove, "takes a drive off a stopped machine; its file stays",
     "md"},
    {"vnc", "NAME", 1, 1, vnc_options, do_vnc, "shows, starts or stops VNC; prints an ssh tunnel line", "m"},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
