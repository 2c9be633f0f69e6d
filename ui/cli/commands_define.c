// SPDX-License-Identifier: GPL-2.0-or-later
// create, list, show, set, rename, remove.
#include "core/base/file.h"
#include "core/config/medium.h"
#include "core/control/apply.h"
#include "core/control/life.h"
#include "disks/create.h"
#include "ui/cli/cli.h"
#include "ui/cli/commands.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// ---- create ----

static const struct cli_option create_options[] = {
    {"memory", "SIZE", "guest memory, for example 2G"},
    {"cpus", "N", "processors"},
    {"cpu", "MODEL", "processor model"},
    {"engine", "ENGINE", "auto, interpret, translate or kvm"},
    {"disk", "SIZE|FILE", "a new disk of that size, or an existing image; may be given several times"},
    {"cdrom", "FILE", "an installer or other CD image; its system is recognised and sets defaults"},
    {"floppy", "FILE", "a floppy image"},
    {"kernel", "FILE", "a kernel that is started without boot loader"},
    {"initrd", "FILE", "its initial RAM disk"},
    {"append", "TEXT", "its command line"},
    {"net", "BACKEND", "user (the default), team:NAME, tap:NAME or none"},
    {"serial", "TARGET", "where a serial port leads; the first one leads to `clochectl console`"},
    {"display", "ADAPTER", "vga, virtio-gpu or none"},
    {"vnc", "ADDRESS:NUMBER", "serve the screen by VNC"},
    {"boot", "ORDER", "letters of c, d, a, n"},
    {"bios", "FILE", "firmware image"},
    {"os", "ID", "operating system as libosinfo calls it"},
    {"notes", "TEXT", "notes"},
    {"group", "NAME", "group in the library"},
    {"set", "OPTION=VALUE", "any further option of machine.conf(5)"},
    {NULL, NULL, NULL},
};

// The path as it can be kept in a definition: absolute. The file must be there.
static char *existing_file(const char *path, GError **error)
{
    char *absolute = g_canonicalize_filename(path, NULL);
    if (access(absolute, R_OK) == 0)
        return absolute;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "%s cannot be read; check the path", path);
    g_free(absolute);
    return NULL;
}

static bool add_drive(struct config *config, const char *kind, const char *prefix, const char *file, const char *format,
                      GError **error)
{
    g_autofree char *group = config_add_group(config, "Drive *", prefix);
    return config_set(config, group, "kind", kind, error) && config_set(config, group, "file", file, error) &&
           (!format || config_set(config, group, "format", format, error));
}

static bool create_disk(struct config *config, const char *folder, const char *text, unsigned index, GError **error)
{
    uint64_t size;
    if (!option_parse_size(text, &size)) {
        g_autofree char *path = existing_file(text, error);
        return path && add_drive(config, "disk", "disk", path, NULL, error);
    }
    if (size < MiB) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "A disk of %s is too small; write for example --disk 20G", text);
        return false;
    }
    g_autofree char *name = g_strdup_printf("disk%u.qcow2", index), *path = g_build_filename(folder, name, NULL);
    struct disk_create_options options = {.format = "qcow2", .size = size};
    return disk_create(path, &options, error) && add_drive(config, "disk", "disk", name, "qcow2", error);
}

static bool set_named(struct config *config, const char *name, const char *value, GError **error)
{
    const struct option *option = option_find_name(name);
    if (!option || strchr(option->group, '*')) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "There is no option \"%s\"; machine.conf(5) lists them",
                    name);
        return false;
    }
    g_autofree char *path = option->type == OPTION_FILE && value[0] ? existing_file(value, error) : NULL;
    if (option->type == OPTION_FILE && value[0] && !path)
        return false;
    return config_set(config, option->group, option->key, path ? path : value, error);
}

static bool apply_medium(struct cli *cli, struct config *config, const char *iso, GError **error)
{
    struct medium *medium = medium_recognise(iso, error);
    if (!medium)
        return false;
    g_autofree char *memory = option_format_size(medium->memory), *cpus = g_strdup_printf("%u", medium->cpus);
    bool good = true;
    if (medium->os_id) {
        cli_say(cli, "Recognised: %s", medium->os_name);
        good = config_set(config, "Machine", "os", medium->os_id, error) &&
               config_set(config, "Clock", "local-time", medium->local_time ? "true" : NULL, error);
    }
    good = good && config_set(config, "Memory", "size", memory, error) &&
           config_set(config, "Processors", "count", cpus, error);
    medium_free(medium);
    return good;
}

// Whether the installed monitor has a device of that class.
static bool monitor_has(const char *class_name)
{
    g_autofree char *program = machine_program(), *output = NULL;
    const char *arguments[] = {program, "--list-devices", NULL};
    if (!program || !g_spawn_sync(NULL, (char **)arguments, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &output, NULL,
                                  NULL, NULL))
        return false;
    g_autofree char *line = g_strdup_printf("\n%s ", class_name), *all = g_strconcat("\n", output, NULL);
    return strstr(all, line) != NULL;
}

// One network card: what was asked for, else NAT on the first card that this build has.
static bool add_network(struct cli *cli, struct config *config, GError **error)
{
    static const char *const cards[] = {"virtio-net", "e1000", "rtl8139", "pcnet", "ne2k"};
    const char *net = cli_option(cli, "net");
    if (net && strcmp(net, "none") == 0)
        return true;
    for (unsigned i = 0; i < G_N_ELEMENTS(cards); i++)
        if (monitor_has(cards[i]))
            return config_set(config, "Network net0", "backend", net ? net : "user", error) &&
                   config_set(config, "Network net0", "card", cards[i], error);
    if (net)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "This build has no network cards; leave --net out");
    return !net;
}

static bool fill_definition(struct cli *cli, struct config *config, const char *folder, GError **error)
{
    static const char *const plain[] = {"memory", "cpus", "cpu",  "engine", "kernel", "initrd", "append", "display",
                                        "vnc",    "boot", "bios", "os",     "notes",  "group",  NULL};
    const char *iso = cli_option(cli, "cdrom");
    if (!config_set(config, "Machine", "name", cli_word(cli, 0), error) ||
        (iso && !apply_medium(cli, config, iso, error)))
        return false;
    for (const char *const *name = plain; *name; name++)
        if (cli_option(cli, *name) && !set_named(config, *name, cli_option(cli, *name), error))
            return false;
    unsigned index = 0;
    for (const char *const *disk = cli_option_all(cli, "disk"); *disk; disk++)
        if (!create_disk(config, folder, *disk, index++, error))
            return false;
    static const char *const media[] = {"cdrom", "floppy"};
    for (unsigned i = 0; i < 2; i++)
        for (const char *const *file = cli_option_all(cli, media[i]); *file; file++) {
            g_autofree char *path = existing_file(*file, error);
            if (!path || !add_drive(config, media[i], i ? "floppy" : "cd", path, NULL, error))
                return false;
        }
    if (!add_network(cli, config, error))
        return false;
    for (const char *const *target = cli_option_all(cli, "serial"); *target; target++) {
        g_autofree char *group = config_add_group(config, "Serial *", "");
        if (!config_set(config, group, "target", *target, error))
            return false;
    }
    for (const char *const *pair = cli_option_all(cli, "set"); *pair; pair++)
        if (!cli_set_pair(config, *pair, error))
            return false;
    return true;
}

static bool do_create(struct cli *cli, GError **error)
{
    struct library *library = cli_library(cli, error);
    cli_keep_whole();
    g_autofree char *folder = library ? library_create_folder(library, cli_word(cli, 0), error) : NULL;
    if (!folder)
        return false;
    g_autoptr(config_t) config = config_new();
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL);
    if (!fill_definition(cli, config, folder, error) || !config_save(config, path, error)) {
        host_folder_remove(folder, NULL); // nothing half-done stays
        return false;
    }
    g_autofree char *uuid = config_get(config, "Machine", "uuid");
    if (cli->json) {
        JsonObject *object = control_arguments("s:name", cli_word(cli, 0), "s:uuid", uuid, "s:folder", folder, NULL);
        JsonNode *node = json_node_new(JSON_NODE_OBJECT);
        json_node_take_object(node, object);
        cli_print_json(node);
    }
    cli_say(cli, "Created \"%s\". Start it with: clochectl start %s", cli_word(cli, 0), cli_word(cli, 0));
    return true;
}

// ---- list and show ----

// "running", "paused", "saved", ...: asks the monitor if there is one.
char *cli_state(struct machine_entry *entry, struct machine_report *report)
{
    if (entry->damage)
        return g_strdup("damaged");
    if (report->life != LIFE_RUNNING)
        return g_strdup(entry->template_ && report->life == LIFE_OFF ? "template" : machine_life_name(report->life));
    g_autoptr(control_client_t) client = control_client_for_machine(entry->uuid, NULL, NULL);
    g_autoptr(JsonNode) value =
        client ? control_client_call(client, "query-status", NULL, 2000, NULL, NULL, NULL) : NULL;
    if (!value || !JSON_NODE_HOLDS_OBJECT(value))
        return g_strdup("not answering");
    return g_strdup(json_object_get_string_member_with_default(json_node_get_object(value), "status", "running"));
}

static JsonObject *entry_json(struct machine_entry *entry, struct machine_report *report, const char *state)
{
    JsonObject *object =
        control_arguments("s:name", entry->name, "s:uuid", entry->uuid, "s:folder", entry->folder, "s:state", state,
                          "s:damage", entry->damage, "s:reason", report->reason, NULL);
    if (report->pid)
        json_object_set_int_member(object, "pid", report->pid);
    if (!entry->config)
        return object;
    g_autofree char *group = config_get(entry->config, "Machine", "group"),
                    *os = config_get(entry->config, "Machine", "os");
    json_object_set_int_member(object, "memory", config_get_number(entry->config, "Memory", "size"));
    json_object_set_int_member(object, "cpus", config_get_number(entry->config, "Processors", "count"));
    json_object_set_boolean_member(object, "template", entry->template_);
    json_object_set_string_member(object, "group", group);
    json_object_set_string_member(object, "os", os);
    return object;
}

static bool do_list(struct cli *cli, GError **error)
{
    if (!cli_library(cli, error))
        return false;
    GPtrArray *entries = library_entries(cli->library);
    JsonArray *list = json_array_new();
    struct cli_table *table = cli_table_new("NAME", "STATE", "CPUS", "MEMORY", "GROUP", "FOLDER", NULL);
    for (unsigned i = 0; i < entries->len; i++) {
        struct machine_entry *entry = entries->pdata[i];
        g_autoptr(machine_report_t) report = machine_report(entry->folder, entry->uuid);
        g_autofree char *state = cli_state(entry, report);
        g_autofree char *cpus = entry->config ? config_get(entry->config, "Processors", "count") : g_strdup("-");
        g_autofree char *memory = entry->config ? config_get(entry->config, "Memory", "size") : g_strdup("-");
        g_autofree char *group = entry->config ? config_get(entry->config, "Machine", "group") : g_strdup("");
        cli_table_add(table, entry->name, state, cpus, memory, group, entry->folder, NULL);
        json_array_add_object_element(list, entry_json(entry, report, state));
    }
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, list);
    if (cli->json) {
        cli_print_json(node);
        return true;
    }
    json_node_unref(node);
    if (entries->len)
        cli_table_print(table);
    else
        cli_say(cli, "There are no machines yet. Create one with: clochectl create NAME --disk 20G --cdrom FILE");
    for (unsigned i = 0; i < entries->len; i++) {
        struct machine_entry *entry = entries->pdata[i];
        if (entry->damage)
            fprintf(stderr, "clochectl: %s is damaged: %s\n", entry->name, entry->damage);
    }
    return true;
}

static JsonObject *definition_json(struct config *config)
{
    JsonObject *all = json_object_new();
    for (size_t i = 0; i < options_count; i++) {
        g_auto(GStrv) groups = strchr(options_table[i].group, '*')
                                   ? config_groups(config, options_table[i].group)
                                   : g_strdupv((char *[]){(char *)options_table[i].group, NULL});
        for (char **group = groups; *group; group++) {
            if (!json_object_has_member(all, *group))
                json_object_set_object_member(all, *group, json_object_new());
            g_autofree char *value = config_get(config, *group, options_table[i].key);
            json_object_set_string_member(json_object_get_object_member(all, *group), options_table[i].key, value);
        }
    }
    return all;
}

// The protocol's word for why the last run ended, for people.
static const char *reason_text(const char *reason)
{
    static const struct {
        const char *reason, *text;
    } texts[] = {
        {"guest-shutdown", "the guest switched itself off"},
        {"guest-reset", "the guest restarted, which ends this machine's run"},
        {"host-qmp-quit", "it was switched off from outside"},
        {"host-signal", "a signal of the host ended it"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++)
        if (strcmp(texts[i].reason, reason) == 0)
            return texts[i].text;
    return reason;
}

static bool do_show(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_library(cli, error) ? library_find(cli->library, cli_word(cli, 0), error) : NULL;
    if (!entry)
        return false;
    g_autoptr(machine_report_t) report = machine_report(entry->folder, entry->uuid);
    g_autofree char *state = cli_state(entry, report), *started = cli_time(report->started);
    if (cli->json) {
        JsonObject *object = entry_json(entry, report, state);
        if (entry->config)
            json_object_set_object_member(object, "definition", definition_json(entry->config));
        JsonNode *node = json_node_new(JSON_NODE_OBJECT);
        json_node_take_object(node, object);
        cli_print_json(node);
        return true;
    }
    printf("Name:    %s\nState:   %s\nFolder:  %s\n", entry->name, state, entry->folder);
    if (report->pid)
        printf("Process: %d, since %s\n", report->pid, started);
    if (report->reason && report->reason[0])
        printf("Last:    %s\n", reason_text(report->reason));
    if (entry->damage)
        printf("Damage:  %s\n", entry->damage);
    for (const char *const *warning = entry->config ? config_warnings(entry->config) : NULL; warning && *warning;
         warning++)
        printf("Warning: %s\n", *warning);
    g_autofree char *text = entry->config ? config_text(entry->config) : g_strdup("");
    printf("\n%s", text);
    return true;
}

// ---- set ----

// "memory=2G", "Drive disk0.file=x"; an empty value removes the key.
// The group of the definition that is called ID: "Network net0" for "net0". Free with g_free(); NULL: there is none.
static char *find_instance(struct config *config, const char *id)
{
    static const char *const kinds[] = {"Drive *", "Network *", "Serial *", "Device *"};
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_auto(GStrv) groups = config_groups(config, kinds[i]);
        for (char **group = groups; *group; group++)
            if (g_strcmp0(strchr(*group, ' ') + 1, id) == 0)
                return g_strdup(*group);
    }
    return NULL;
}

bool cli_set_pair(struct config *config, const char *pair, GError **error)
{
    const char *equals = strchr(pair, '=');
    if (!equals) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "\"%s\" is not of the form OPTION=VALUE", pair);
        return false;
    }
    g_autofree char *name = g_strndup(pair, equals - pair);
    const struct option *option = option_find_name(name);
    char *dot = strrchr(name, '.');
    const char *group = option ? option->group : NULL, *key = option ? option->key : NULL;
    g_autofree char *instance = NULL;
    if ((!option || strchr(group, '*')) && dot) { // one of several: "net0.forwards" or "Network net0.forwards"
        *dot = 0;
        instance = find_instance(config, name);
        group = instance ? instance : name;
        key = dot + 1;
        option = option_find(group, key);
    }
    if (!option || strcmp(key, "version") == 0 || strcmp(key, "uuid") == 0) {
        if (dot)
            *dot = '.';
        g_set_error(
            error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
            "There is no option \"%s\" that can be set; machine.conf(5) lists them. What there are several of is "
            "named with its group: net0.forwards, cd0.file",
            name);
        return false;
    }
    return config_set(config, group, key, equals[1] ? equals + 1 : NULL, error);
}

struct setting {
    struct cli *cli;
    struct control_client *client; // of a running machine, or NULL
    char **later;                  // what it does not take up before its next start
};

static bool set_pairs(struct config *config, void *opaque, GError **error)
{
    struct setting *setting = opaque;
    g_autoptr(config_t) before = config_copy(config);
    for (unsigned i = 1; i < setting->cli->words->len; i++)
        if (!cli_set_pair(config, cli_word(setting->cli, i), error))
            return false;
    if (setting->client)
        setting->later = control_apply(setting->client, before, config, error);
    return !setting->client || setting->later;
}

static void say_when(struct cli *cli, char **later)
{
    g_autofree char *names = g_strjoinv(", ", later);
    if (later[0])
        cli_say(cli, "Written. At the next start: %s%s", names,
                g_strv_length(later) + 1 < cli->words->len ? "; the rest is in effect now" : "");
    else
        cli_say(cli, "Written, and in effect now");
}

static bool do_set(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    if (!entry)
        return false;
    g_autoptr(machine_report_t) report = machine_report(entry->folder, entry->uuid);
    struct setting setting = {.cli = cli};
    if (report->life == LIFE_RUNNING && !(setting.client = cli_connect(cli, entry, NULL, error)))
        return false;
    cli_keep_whole();
    bool good = machine_folder_edit(entry->folder, set_pairs, &setting, error);
    if (good && setting.client)
        say_when(cli, setting.later);
    g_clear_pointer(&setting.client, control_client_free);
    g_strfreev(setting.later);
    return good;
}

// ---- rename and remove ----

static bool do_rename(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    cli_keep_whole();
    return entry && library_rename(cli->library, entry, cli_word(cli, 1), error);
}

static uint64_t folder_size(const char *folder, unsigned depth)
{
    struct stat st;
    uint64_t sum = 0;
    GDir *dir = depth < 16 ? g_dir_open(folder, 0, NULL) : NULL;
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        if (lstat(path, &st) == 0)
            sum += (uint64_t)st.st_blocks * 512 + (S_ISDIR(st.st_mode) ? folder_size(path, depth + 1) : 0);
    }
    if (dir)
        g_dir_close(dir);
    return sum;
}

static bool confirmed(struct cli *cli, struct machine_entry *entry)
{
    if (cli_option(cli, "yes") || !isatty(STDIN_FILENO))
        return cli_option(cli, "yes") != NULL;
    g_autofree char *size = cli_size(folder_size(entry->folder, 0));
    printf("Remove \"%s\" with its disks and snapshots (%s in %s)? [y/N] ", entry->name, size, entry->folder);
    fflush(stdout);
    char answer[16] = "";
    return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

// Linked clones stand on this machine's files.
static bool has_dependants(struct cli *cli, struct machine_entry *entry, GError **error)
{
    GPtrArray *entries = library_entries(cli->library);
    for (unsigned i = 0; i < entries->len; i++) {
        struct machine_entry *other = entries->pdata[i];
        g_auto(GStrv) drives = other->config && other != entry ? config_groups(other->config, "Drive *") : NULL;
        for (char **drive = drives; drive && *drive; drive++) {
            g_autofree char *base = config_get(other->config, *drive, "base-machine");
            if (entry->uuid && g_ascii_strcasecmp(base, entry->uuid) == 0) {
                g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                            "\"%s\" is a linked clone of \"%s\" and needs its disks; remove the clone first",
                            other->name, entry->name);
                return true;
            }
        }
    }
    return false;
}

static bool do_remove(struct cli *cli, GError **error)
{
    // A damaged machine can be removed too.
    struct machine_entry *entry = cli_library(cli, error) ? library_find(cli->library, cli_word(cli, 0), error) : NULL;
    if (!entry || has_dependants(cli, entry, error))
        return false;
    int lock = machine_folder_lock(entry->folder, error);
    if (lock < 0)
        return false;
    bool good = confirmed(cli, entry);
    cli_keep_whole();
    if (!good)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CANCELLED,
                    "Nothing was removed; give --yes to remove without a question");
    // The definition goes first: half a folder is no machine any more.
    g_autofree char *conf = g_build_filename(entry->folder, CONFIG_FILE, NULL);
    good = good && (unlink(conf) == 0 || host_folder_remove(conf, error)) && host_folder_remove(entry->folder, error);
    close(lock);
    return good;
}

static const struct cli_option remove_options[] = {{"yes", NULL, "do not ask"}, {NULL, NULL, NULL}};

const struct cli_command cli_define_commands[] = {
    {"create", "NAME [OPTIONS]", 1, 1, create_options, do_create, "creates a machine", "-"},
    {"list", "", 0, 0, NULL, do_list, "lists the machines and their states", ""},
    {"show", "NAME", 1, 1, NULL, do_show, "shows one machine and its definition", "m"},
    {"set", "NAME OPTION=VALUE...", 2, 100, NULL, do_set, "changes the definition; an empty value means the default",
     "mo"},
    {"rename", "NAME NEW-NAME", 2, 2, NULL, do_rename, "gives a machine another name", "m-"},
    {"remove", "NAME", 1, 1, remove_options, do_remove, "deletes a machine with everything in its folder", "m"},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
