// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/config/clone.h"
#include "core/base/file.h"
#include "core/config/snapshot_private.h"
#include "disks/info.h"
#include "disks/tools.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// One clone in the making.
struct cloning {
    struct library *library;
    struct machine_entry *source;
    const struct clone_options *options;
    struct snapshot *snapshot; // or NULL: the present state
    char *folder;              // of the new machine
    struct config *config;     // of the new machine
    char *state_folder;        // state and memory to go on from, or NULL
    struct progress *progress;
};

// ---- Definition ----

static char *random_mac(void)
{
    guint32 bits = g_random_int();
    return g_strdup_printf("52:54:00:%02x:%02x:%02x", bits & 255, bits >> 8 & 255, bits >> 16 & 255);
}

// What must not be the same in two machines.
static bool make_unique(struct config *config, const char *name, GError **error)
{
    g_autofree char *uuid = g_uuid_string_random();
    if (!config_set(config, "Machine", "name", name, error) || !config_set(config, "Machine", "uuid", uuid, error) ||
        !config_set(config, "Machine", "template", NULL, error) ||
        !config_set(config, "Machine", "resume", NULL, error) ||
        !config_set(config, "Machine", "snapshot", NULL, error) || !config_set(config, "VNC", "address", NULL, error))
        return false;
    g_auto(GStrv) nics = config_groups(config, "Network *");
    for (char **nic = nics; *nic; nic++) {
        g_autofree char *mac = random_mac();
        if (!config_set(config, *nic, "mac", mac, error) || !config_set(config, *nic, "forwards", NULL, error))
            return false;
    }
    return true;
}

static struct config *source_definition(struct cloning *cloning, GError **error)
{
    const char *folder = cloning->snapshot ? cloning->snapshot->folder : cloning->source->folder;
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL);
    g_autoptr(config_t) stored = config_load(path, error);
    g_autofree char *resume = stored ? config_get(stored, "Machine", "resume") : NULL;
    if (cloning->snapshot && cloning->snapshot->has_state)
        cloning->state_folder = g_strdup(folder);
    else if (!cloning->snapshot && resume && resume[0])
        cloning->state_folder = g_build_filename(folder, resume, NULL);
    return stored ? config_copy(stored) : NULL;
}

// ---- Disks ----

static char *source_file(struct cloning *cloning, const char *drive)
{
    for (unsigned i = 0; cloning->snapshot && i < cloning->snapshot->disks->len; i++) {
        const struct snapshot_disk *disk = cloning->snapshot->disks->pdata[i];
        if (strcmp(disk->drive, drive) == 0)
            return snapshot_path(cloning->source->folder, disk->file);
    }
    g_autofree char *group = g_strconcat("Drive ", drive, NULL), *file = config_get(cloning->config, group, "file");
    return snapshot_path(cloning->source->folder, file);
}

static bool copy_disk(struct cloning *cloning, const char *drive, const char *from, GError **error)
{
    g_autofree char *group = g_strconcat("Drive ", drive, NULL), *name = g_strconcat(drive, ".qcow2", NULL);
    g_autofree char *to = g_build_filename(cloning->folder, name, NULL);
    struct disk_convert_options options = {.target = {.format = "qcow2"}};
    return snapshot_run_job(disk_job_convert(from, to, &options), cloning->progress, error) &&
           config_set(cloning->config, group, "file", name, error) &&
           config_set(cloning->config, group, "format", "qcow2", error) &&
           config_set(cloning->config, group, "base-machine", NULL, error) &&
           config_set(cloning->config, group, "base-file", NULL, error);
}

static bool link_disk(struct cloning *cloning, const char *drive, const char *from, GError **error)
{
    g_autofree char *group = g_strconcat("Drive ", drive, NULL),
                    *prefix = g_strconcat(cloning->source->folder, "/", NULL);
    g_autofree char *name = snapshot_create_overlay(cloning->folder, drive, from, false, error);
    const char *inside = g_str_has_prefix(from, prefix) ? from + strlen(prefix) : from;
    return name && config_set(cloning->config, group, "file", name, error) &&
           config_set(cloning->config, group, "format", "qcow2", error) &&
           config_set(cloning->config, group, "base-machine", cloning->source->uuid, error) &&
           config_set(cloning->config, group, "base-file", inside, error);
}

static bool clone_disks(struct cloning *cloning, GError **error)
{
    g_auto(GStrv) drives = snapshot_drives(cloning->config);
    for (char **drive = drives; *drive; drive++) {
        g_autofree char *from = source_file(cloning, *drive);
        if (!(cloning->options->linked ? link_disk : copy_disk)(cloning, *drive, from, error))
            return false;
    }
    return true;
}

// Files of the definition that lie in the source's folder, disks aside (kernels, media): they stay where they are.
static bool absolute_files(struct cloning *cloning, GError **error)
{
    for (size_t i = 0; i < options_count; i++) {
        const struct option *option = &options_table[i];
        if (option->type != OPTION_FILE)
            continue;
        g_auto(GStrv) groups = strchr(option->group, '*') ? config_groups(cloning->config, option->group)
                                                          : g_strdupv((char *[]){(char *)option->group, NULL});
        for (char **group = groups; *group; group++) {
            g_autofree char *kind = config_get(cloning->config, *group, "kind");
            g_autofree char *file = config_get(cloning->config, *group, option->key);
            g_autofree char *path = file[0] ? snapshot_path(cloning->source->folder, file) : NULL;
            bool disk = kind && strcmp(kind, "disk") == 0 && !config_get_bool(cloning->config, *group, "read-only");
            if (path && !disk && !config_set(cloning->config, *group, option->key, path, error))
                return false;
        }
    }
    return true;
}

// A snapshot's or saved machine's state: the same files under a second name, so that their pages are shared in the
// host's memory.
static bool clone_state(struct cloning *cloning, GError **error)
{
    static const char *const names[] = {"state", "ram"};
    g_autofree char *saved = g_build_filename(cloning->folder, SAVED_FOLDER, NULL);
    if (!cloning->state_folder)
        return true;
    g_mkdir(saved, 0700);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *from = g_build_filename(cloning->state_folder, names[i], NULL);
        g_autofree char *to = g_build_filename(saved, names[i], NULL);
        if (!snapshot_link_file(from, to, error))
            return false;
    }
    g_autofree char *from = g_build_filename(cloning->state_folder, "working-set", NULL);
    g_autofree char *to = g_build_filename(saved, "working-set", NULL);
    if (g_file_test(from, G_FILE_TEST_IS_REGULAR))
        snapshot_link_file(from, to, NULL); // a hint only
    return config_set(cloning->config, "Machine", "resume", SAVED_FOLDER, error);
}

// ---- The clone ----

static bool build_clone(struct cloning *cloning, GError **error)
{
    cloning->config = source_definition(cloning, error);
    if (!cloning->config || !absolute_files(cloning, error) || !clone_disks(cloning, error) ||
        !make_unique(cloning->config, cloning->options->name, error) || !clone_state(cloning, error))
        return false;
    g_autofree char *path = g_build_filename(cloning->folder, CONFIG_FILE, NULL);
    return progress_advance(cloning->progress, 0, error) && config_save(cloning->config, path, error);
}

static bool run_clone(struct cloning *cloning, GError **error)
{
    cloning->folder = library_create_folder(cloning->library, cloning->options->name, error);
    if (!cloning->folder)
        return false;
    bool good = build_clone(cloning, error);
    if (!good)
        host_folder_remove(cloning->folder, NULL);
    config_free(cloning->config);
    g_free(cloning->folder);
    g_free(cloning->state_folder);
    return good;
}

// Of the present state: nobody may write meanwhile, and a linked clone needs a frozen image.
static bool clone_present(struct cloning *cloning, GError **error)
{
    g_autofree char *source_folder = g_strdup(cloning->source->folder);
    int lock = machine_folder_lock(source_folder, error);
    if (lock < 0) {
        g_prefix_error(error, "The present state cannot be cloned, a snapshot can. ");
        return false;
    }
    g_autoptr(GPtrArray) list = NULL;
    bool good = true;
    if (cloning->options->linked && !cloning->source->template_) {
        g_autofree char *id = g_uuid_string_random();
        g_autofree char *name = g_strdup_printf("Base of %.100s (%.8s)", cloning->options->name, id);
        good =
            snapshot_take(source_folder, name, "Taken for a linked clone; it keeps what the clone stands on.", error);
        list = snapshot_list(source_folder);
        cloning->snapshot = good ? snapshot_find(list, name, error) : NULL;
        good = cloning->snapshot != NULL;
    }
    bool made = good && run_clone(cloning, error);
    if (good && !made && list) // the snapshot was taken for it alone
        snapshot_delete(source_folder, cloning->snapshot, false, cloning->library, NULL, NULL);
    close(lock);
    return made;
}

bool machine_clone(struct library *library, struct machine_entry *source, const struct clone_options *options,
                   struct progress *progress, GError **error)
{
    // The library is scanned again on the way: the entry is copied.
    struct machine_entry kept = {.folder = g_strdup(source->folder),
                                 .name = g_strdup(source->name),
                                 .uuid = g_strdup(source->uuid),
                                 .template_ = source->template_};
    struct cloning cloning = {.library = library, .source = &kept, .options = options, .progress = progress};
    bool good;
    if (options->snapshot) {
        g_autoptr(GPtrArray) list = snapshot_list(kept.folder);
        cloning.snapshot = snapshot_find(list, options->snapshot, error);
        good = cloning.snapshot && run_clone(&cloning, error);
    } else {
        good = clone_present(&cloning, error);
    }
    g_free(kept.folder);
    g_free(kept.name);
    g_free(kept.uuid);
    library_scan(library);
    return good;
}

// ---- Templates ----

static bool set_template(struct config *config, void *opaque, GError **error)
{
    g_autofree char *resume = config_get(config, "Machine", "resume");
    if (resume[0]) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "A saved machine cannot become a template; start it and shut it down first");
        return false;
    }
    return config_set(config, "Machine", "template", opaque, error);
}

static const char *linked_clone_of(struct library *library, const char *uuid)
{
    GPtrArray *entries = library_entries(library);
    for (unsigned i = 0; i < entries->len; i++) {
        struct machine_entry *other = entries->pdata[i];
        g_auto(GStrv) groups = other->config ? config_groups(other->config, "Drive *") : NULL;
        for (char **group = groups; group && *group; group++) {
            g_autofree char *base = config_get(other->config, *group, "base-machine");
            if (g_ascii_strcasecmp(base, uuid) == 0)
                return other->name;
        }
    }
    return NULL;
}

bool machine_set_template(struct library *library, struct machine_entry *entry, bool template_, GError **error)
{
    const char *clone = template_ ? NULL : linked_clone_of(library, entry->uuid);
    if (clone) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "\"%s\" is a linked clone of this template; remove the clone before the template is changed",
                    clone);
        return false;
    }
    int lock = machine_folder_lock(entry->folder, error);
    if (lock < 0)
        return false;
    bool good = machine_folder_edit(entry->folder, set_template, template_ ? "true" : NULL, error);
    close(lock);
    library_scan(library);
    return good;
}

// ---- Bases that moved ----

// The absolute path of what the image at PATH says that it stands on, there or not; NULL: on nothing, or unreadable.
static char *recorded_base(const char *path)
{
    struct disk_info *info = disk_info(path, NULL, NULL);
    g_autofree char *folder = g_path_get_dirname(path);
    char *base = info && info->backing ? g_canonicalize_filename(info->backing, folder) : NULL;
    disk_info_free(info);
    return base;
}

// Only the lowest image of this machine's own chain refers to the other machine: there, a base that is gone is
// replaced.
static bool repair_chain(const char *folder, const char *top, const char *expected, GError **error)
{
    g_autofree char *prefix = g_strconcat(folder, "/", NULL), *at = g_strdup(top);
    for (unsigned depth = 0; depth < 1000; depth++) {
        char *base = recorded_base(at);
        if (base && g_str_has_prefix(base, prefix)) {
            g_free(at);
            at = base;
            continue;
        }
        bool lost = base && strcmp(base, expected) != 0 && access(base, R_OK) != 0;
        g_free(base);
        return !lost || snapshot_run_job(disk_job_rebase(at, expected, NULL, true), NULL, error);
    }
    return true;
}

bool machine_find_bases(struct library *library, struct machine_entry *entry, GError **error)
{
    g_auto(GStrv) groups = config_groups(entry->config, "Drive *");
    for (char **group = groups; *group; group++) {
        g_autofree char *machine = config_get(entry->config, *group, "base-machine");
        g_autofree char *base_file = config_get(entry->config, *group, "base-file");
        g_autofree char *file = config_get(entry->config, *group, "file"), *path = snapshot_path(entry->folder, file);
        if (!machine[0] || !base_file[0])
            continue;
        struct machine_entry *base = library_find_uuid(library, machine);
        g_autofree char *expected = base ? snapshot_path(base->folder, base_file) : NULL;
        if (!expected || access(expected, R_OK) != 0) {
            g_set_error(
                error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                "\"%s\" is a linked clone and the machine it was made from (UUID %s) is not in the library; add "
                "its folder",
                entry->name, machine);
            return false;
        }
        if (!repair_chain(entry->folder, path, expected, error))
            return false;
    }
    return true;
}
