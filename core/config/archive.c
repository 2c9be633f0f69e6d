// SPDX-License-Identifier: GPL-2.0-or-later
// Export and import of whole machines.
#include "core/base/file.h"
#include "core/config/clone.h"
#include "core/config/snapshot_private.h"
#include "core/config/tar.h"
#include "disks/info.h"
#include "disks/tools.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t file_size(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

// ---- Export: flattened ----

// The definition as it goes into the archive: nothing that belongs to this host or this moment.
static struct config *portable_definition(struct machine_entry *entry, GError **error)
{
    g_autofree char *path = g_build_filename(entry->folder, CONFIG_FILE, NULL);
    g_autoptr(config_t) stored = config_load(path, error);
    if (!stored)
        return NULL;
    g_autoptr(config_t) config = config_copy(stored);
    return config_set(config, "VNC", "address", NULL, error) && config_set(config, "VNC", "password-file", NULL, error)
               ? g_steal_pointer(&config)
               : NULL;
}

static bool add_definition(struct tar_writer *tar, struct config *config, GError **error)
{
    g_autofree char *text = config_text(config);
    return tar_writer_add_data(tar, CONFIG_FILE, text, strlen(text), error);
}

static bool forget_moment(struct config *config, GError **error)
{
    return config_set(config, "Machine", "resume", NULL, error) &&
           config_set(config, "Machine", "snapshot", NULL, error);
}

// A flat copy of each disk beside the archive, packed and removed again.
static bool add_flat_disks(struct tar_writer *tar, struct machine_entry *entry, struct config *config,
                           const char *scratch, struct progress *progress, GError **error)
{
    g_auto(GStrv) drives = snapshot_drives(config);
    for (char **drive = drives; *drive; drive++) {
        g_autofree char *group = g_strconcat("Drive ", *drive, NULL), *file = config_get(config, group, "file");
        g_autofree char *from = snapshot_path(entry->folder, file), *name = g_strconcat(*drive, ".qcow2", NULL);
        g_autofree char *flat = g_build_filename(scratch, name, NULL);
        struct disk_convert_options options = {.target = {.format = "qcow2"}};
        if (!snapshot_run_job(disk_job_convert(from, flat, &options), progress, error))
            return false;
        if (progress)
            atomic_fetch_add(&progress->total, file_size(flat));
        bool good = tar_writer_add_file(tar, name, flat, progress, error);
        unlink(flat);
        if (!good || !config_set(config, group, "file", name, error) ||
            !config_set(config, group, "format", "qcow2", error) ||
            !config_set(config, group, "base-machine", NULL, error) ||
            !config_set(config, group, "base-file", NULL, error))
            return false;
    }
    return true;
}

static bool export_flat(struct tar_writer *tar, struct machine_entry *entry, const char *path,
                        struct progress *progress, GError **error)
{
    g_autoptr(config_t) config = portable_definition(entry, error);
    g_autofree char *scratch = g_strconcat(path, ".parts-XXXXXX", NULL);
    if (!config || !forget_moment(config, error))
        return false;
    if (!g_mkdtemp(scratch)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot create a folder beside %s", path);
        return false;
    }
    bool good = add_flat_disks(tar, entry, config, scratch, progress, error) && add_definition(tar, config, error);
    host_folder_remove(scratch, NULL);
    return good;
}

// ---- Export: with chain and snapshots ----

// Every file of the folder but locks, logs and what is half-made. DEPTH bounds the walk.
static bool list_files(const char *folder, const char *below, unsigned depth, GPtrArray *names)
{
    g_autofree char *path = below[0] ? g_build_filename(folder, below, NULL) : g_strdup(folder);
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *leaf;
    while (dir && (leaf = g_dir_read_name(dir))) {
        g_autofree char *name = below[0] ? g_build_filename(below, leaf, NULL) : g_strdup(leaf);
        g_autofree char *full = g_build_filename(folder, name, NULL);
        struct stat st;
        static const char *const not_ours[] = {"log", "last-run", CONFIG_FILE, NULL};
        if (leaf[0] == '.' || (!below[0] && g_strv_contains(not_ours, leaf)) || lstat(full, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode) && depth < 3)
            list_files(folder, name, depth + 1, names);
        else if (S_ISREG(st.st_mode))
            g_ptr_array_add(names, g_steal_pointer(&name));
    }
    if (dir)
        g_dir_close(dir);
    return true;
}

// A chain that leaves the folder could not be followed after import.
static bool chain_is_inside(struct machine_entry *entry, struct config *config, GError **error)
{
    g_autofree char *prefix = g_strconcat(entry->folder, "/", NULL);
    g_auto(GStrv) drives = snapshot_drives(config);
    for (char **drive = drives; *drive; drive++) {
        g_autofree char *group = g_strconcat("Drive ", *drive, NULL), *file = config_get(config, group, "file");
        g_autofree char *at = snapshot_path(entry->folder, file);
        for (unsigned depth = 0; at && depth < 1000; depth++) {
            g_autofree char *whole = g_canonicalize_filename(at, NULL);
            struct disk_info *info = g_str_has_prefix(whole, prefix) ? disk_info(whole, NULL, NULL) : NULL;
            if (!info) {
                g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                            "The disk %s stands on %s, outside the machine's folder; export it without its chain",
                            *drive, whole);
                return false;
            }
            g_free(at);
            at = g_strdup(info->backing_path);
            disk_info_free(info);
        }
    }
    return true;
}

static bool export_chain(struct tar_writer *tar, struct machine_entry *entry, struct progress *progress, GError **error)
{
    g_autoptr(config_t) config = portable_definition(entry, error);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    if (!config || !chain_is_inside(entry, config, error) || !add_definition(tar, config, error))
        return false;
    list_files(entry->folder, "", 0, names);
    for (unsigned i = 0; i < names->len; i++) {
        g_autofree char *path = g_build_filename(entry->folder, names->pdata[i], NULL);
        if (progress)
            atomic_fetch_add(&progress->total, file_size(path));
    }
    for (unsigned i = 0; i < names->len; i++) {
        g_autofree char *path = g_build_filename(entry->folder, names->pdata[i], NULL);
        if (!tar_writer_add_file(tar, names->pdata[i], path, progress, error))
            return false;
    }
    return true;
}

bool machine_export(struct machine_entry *entry, const char *path, const struct export_options *options,
                    struct progress *progress, GError **error)
{
    int lock = machine_folder_lock(entry->folder, error);
    struct tar_writer *tar = lock >= 0 ? tar_writer_new(path, error) : NULL;
    bool good =
        tar &&
        (options->chain ? export_chain(tar, entry, progress, error) : export_flat(tar, entry, path, progress, error)) &&
        tar_writer_finish(tar, error);
    tar_writer_free(tar);
    if (lock >= 0)
        close(lock);
    return good;
}

// ---- Import ----

// Overlays remember the time of their base's file, which unpacking changed: they are told that it is the same.
static bool accept_bases(const char *folder, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    list_files(folder, "", 0, names);
    for (unsigned i = 0; i < names->len; i++) {
        g_autofree char *path = g_build_filename(folder, names->pdata[i], NULL);
        struct disk_info *info = g_str_has_suffix(path, ".qcow2") ? disk_info(path, "qcow2", NULL) : NULL;
        if (!info || !info->backing) {
            disk_info_free(info);
            continue;
        }
        g_autofree char *backing = g_strdup(info->backing), *format = g_strdup(info->backing_format);
        bool inside = !strchr(backing, '/');
        disk_info_free(info);
        if (!inside) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "A disk of the archive stands on %s, outside of it",
                        backing);
            return false;
        }
        if (!snapshot_run_job(disk_job_rebase(path, backing, format, true), NULL, error))
            return false;
    }
    return true;
}

// An archive's definition must not reach out of the machine's folder for writable disks.
static bool definition_is_safe(struct config *config, GError **error)
{
    g_auto(GStrv) drives = snapshot_drives(config);
    for (char **drive = drives; *drive; drive++) {
        g_autofree char *group = g_strconcat("Drive ", *drive, NULL), *file = config_get(config, group, "file");
        if (strchr(file, '/')) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT,
                        "The archive's definition names a disk outside of it: %s", file);
            return false;
        }
    }
    return true;
}

static bool adopt(const char *folder, const char *name, GError **error)
{
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL), *uuid = g_uuid_string_random();
    g_autoptr(config_t) config = config_load(path, error);
    return config && definition_is_safe(config, error) && accept_bases(folder, error) &&
           config_set(config, "Machine", "name", name, error) && config_set(config, "Machine", "uuid", uuid, error) &&
           config_save(config, path, error);
}

// The name in the archive's definition, which may be anywhere in it: unpacked first, into a hidden folder of the
// library.
bool machine_import(struct library *library, const char *path, const char *name, struct progress *progress,
                    GError **error)
{
    g_autofree char *scratch = g_build_filename(library_main_folder(library), ".import-XXXXXX", NULL);
    if (!g_mkdtemp(scratch)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot create a folder in %s",
                    library_main_folder(library));
        return false;
    }
    g_autofree char *conf = g_build_filename(scratch, CONFIG_FILE, NULL), *folder = NULL;
    bool good = tar_extract(path, scratch, progress, error);
    g_autoptr(config_t) config = good ? config_load(conf, error) : NULL;
    g_autofree char *own = config ? config_get(config, "Machine", "name") : NULL;
    good = config && adopt(scratch, name ? name : own, error) &&
           (folder = library_create_folder(library, name ? name : own, error));
    if (good && rename(scratch, folder) != 0) { // onto the empty folder, in one step
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot rename %s", scratch);
        host_folder_remove(folder, NULL);
        good = false;
    }
    if (!good)
        host_folder_remove(scratch, NULL);
    library_scan(library);
    return good;
}
