// SPDX-License-Identifier: GPL-2.0-or-later
// Deleting a snapshot, and merging images that only one other stands on.
#include "core/base/file.h"
#include "core/config/library.h"
#include "core/config/snapshot_private.h"
#include "disks/info.h"
#include "disks/tools.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

// Which image files stand on which, as far as this machine knows.
struct chains {
    const char *folder;
    GPtrArray *files;   // char *, absolute: present disks, frozen ones, and bases below them inside the folder
    GPtrArray *bases;   // char *, of the same index; "" for none
    GHashTable *needed; // absolute paths that a snapshot, the definition or a clone refers to
};

static unsigned find_file(struct chains *chains, const char *path)
{
    for (unsigned i = 0; i < chains->files->len; i++)
        if (strcmp(chains->files->pdata[i], path) == 0)
            return i;
    return UINT_MAX;
}

// Adds PATH and what it stands on, as long as that lies in the machine's folder.
static void add_chain(struct chains *chains, const char *path)
{
    g_autofree char *prefix = g_strconcat(chains->folder, "/", NULL), *at = g_canonicalize_filename(path, NULL);
    for (unsigned depth = 0; depth < 1000 && g_str_has_prefix(at, prefix) && find_file(chains, at) == UINT_MAX;
         depth++) {
        struct disk_info *info = disk_info(at, NULL, NULL);
        char *base = info && info->backing_path ? g_canonicalize_filename(info->backing_path, NULL) : g_strdup("");
        disk_info_free(info);
        g_ptr_array_add(chains->files, g_strdup(at));
        g_ptr_array_add(chains->bases, base);
        g_free(at);
        at = g_strdup(base);
    }
}

static void need(struct chains *chains, const char *file)
{
    g_autofree char *path = snapshot_path(chains->folder, file);
    g_hash_table_add(chains->needed, g_canonicalize_filename(path, NULL));
    add_chain(chains, path);
}

static void need_definition(struct chains *chains)
{
    g_autofree char *path = g_build_filename(chains->folder, CONFIG_FILE, NULL);
    g_autoptr(config_t) config = config_load(path, NULL);
    g_auto(GStrv) groups = config ? config_groups(config, "Drive *") : NULL;
    for (char **group = groups; group && *group; group++) {
        g_autofree char *file = config_get(config, *group, "file");
        if (file[0])
            need(chains, file);
    }
}

// Images that linked clones of other folders stand on.
static void need_clones(struct chains *chains, struct library *library)
{
    GPtrArray *entries = library ? library_entries(library) : NULL;
    for (unsigned i = 0; entries && i < entries->len; i++) {
        struct machine_entry *entry = entries->pdata[i];
        g_auto(GStrv) groups = entry->config ? config_groups(entry->config, "Drive *") : NULL;
        for (char **group = groups; group && *group; group++) {
            g_autofree char *machine = config_get(entry->config, *group, "base-machine");
            g_autofree char *file = config_get(entry->config, *group, "base-file");
            struct machine_entry *base = machine[0] ? library_find_uuid(library, machine) : NULL;
            if (base && file[0] && strcmp(base->folder, chains->folder) == 0)
                need(chains, file);
        }
    }
}

static struct chains *chains_new(const char *folder, struct library *library)
{
    struct chains *chains = g_new0(struct chains, 1);
    chains->folder = folder;
    chains->files = g_ptr_array_new_with_free_func(g_free);
    chains->bases = g_ptr_array_new_with_free_func(g_free);
    chains->needed = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GPtrArray) list = snapshot_list(folder);
    for (unsigned i = 0; i < list->len; i++) {
        const struct snapshot *snapshot = list->pdata[i];
        for (unsigned n = 0; n < snapshot->disks->len; n++)
            need(chains, ((struct snapshot_disk *)snapshot->disks->pdata[n])->file);
    }
    need_definition(chains);
    need_clones(chains, library);
    return chains;
}

static void chains_free(struct chains *chains)
{
    g_ptr_array_unref(chains->files);
    g_ptr_array_unref(chains->bases);
    g_hash_table_unref(chains->needed);
    g_free(chains);
}

// Files that stand on PATH: how many, and one of them.
static unsigned dependants(struct chains *chains, const char *path, const char **one)
{
    unsigned count = 0;
    for (unsigned i = 0; i < chains->files->len; i++)
        if (strcmp(chains->bases->pdata[i], path) == 0) {
            *one = chains->files->pdata[i];
            count++;
        }
    return count;
}

// CHILD takes over what MIDDLE holds; then MIDDLE goes. What stands on CHILD sees the same content and is told.
static bool merge(struct chains *chains, const char *middle, const char *child, struct progress *progress,
                  GError **error)
{
    struct disk_info *info = disk_info(middle, NULL, error);
    if (!info)
        return false;
    g_autofree char *backing = g_strdup(info->backing), *format = g_strdup(info->backing_format);
    disk_info_free(info);
    if (!snapshot_run_job(disk_job_rebase(child, backing, format, false), progress, error))
        return false;
    g_autofree char *leaf = g_path_get_basename(child);
    for (unsigned i = 0; i < chains->files->len; i++)
        if (strcmp(chains->bases->pdata[i], child) == 0 &&
            !snapshot_run_job(disk_job_rebase(chains->files->pdata[i], leaf, "qcow2", true), NULL, error))
            return false;
    if (unlink(middle) != 0)
        log_warning("snapshot", "%s is not needed any more and could not be removed", middle);
    return true;
}

// Merges every image that nothing refers to by name and exactly one other stands on.
static bool collect(const char *folder, struct library *library, struct progress *progress, GError **error)
{
    for (bool again = true; again;) {
        again = false;
        struct chains *chains = chains_new(folder, library);
        for (unsigned i = 0; i < chains->files->len && !again; i++) {
            const char *path = chains->files->pdata[i], *child = NULL;
            if (g_hash_table_contains(chains->needed, path) || dependants(chains, path, &child) != 1)
                continue;
            if (!merge(chains, path, child, progress, error)) {
                chains_free(chains);
                return false;
            }
            again = true;
        }
        chains_free(chains);
    }
    return true;
}

struct current_edit {
    const char *from, *to;
};

static bool move_current(struct config *config, void *opaque, GError **error)
{
    struct current_edit *edit = opaque;
    g_autofree char *current = config_get(config, "Machine", "snapshot");
    return strcmp(current, edit->from) != 0 ||
           config_set(config, "Machine", "snapshot", edit->to[0] ? edit->to : NULL, error);
}

static bool is_resume_source(const char *folder, const struct snapshot *snapshot)
{
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL),
                    *place = g_build_filename("snapshots", snapshot->id, NULL);
    g_autoptr(config_t) config = config_load(path, NULL);
    g_autofree char *resume = config ? config_get(config, "Machine", "resume") : NULL;
    return g_strcmp0(resume, place) == 0;
}

static bool reparent_children(const char *folder, const struct snapshot *gone, GError **error)
{
    g_autoptr(GPtrArray) list = snapshot_list(folder);
    for (unsigned i = 0; i < list->len; i++) {
        struct snapshot *child = list->pdata[i];
        if (strcmp(child->parent, gone->id) != 0)
            continue;
        g_free(child->parent);
        child->parent = g_strdup(gone->parent);
        if (!snapshot_write(child, error))
            return false;
    }
    return true;
}

// Frozen images of GONE that nothing stands on and nothing refers to.
static void remove_leaves(const char *folder, const struct snapshot *gone, struct library *library)
{
    struct chains *chains = chains_new(folder, library);
    for (unsigned i = 0; i < gone->disks->len; i++) {
        const struct snapshot_disk *disk = gone->disks->pdata[i];
        const char *one;
        g_autofree char *path = snapshot_path(folder, disk->file);
        bool ours = !g_path_is_absolute(disk->file) && !strchr(disk->file, '/');
        if (ours && !g_hash_table_contains(chains->needed, path) && dependants(chains, path, &one) == 0)
            unlink(path);
    }
    chains_free(chains);
}

bool snapshot_delete(const char *machine_folder, struct snapshot *snapshot, bool running, struct library *library,
                     struct progress *progress, GError **error)
{
    g_autofree char *folder = g_canonicalize_filename(machine_folder, NULL);
    struct current_edit edit = {snapshot->id, snapshot->parent};
    if (is_resume_source(folder, snapshot)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "The machine's next start goes on from \"%s\"; start it first, or restore another snapshot",
                    snapshot->name);
        return false;
    }
    g_autofree char *gone = g_strdup_printf("%s/snapshots/.gone-%s", folder, snapshot->id);
    if (!reparent_children(folder, snapshot, error) || !machine_folder_edit(folder, move_current, &edit, error))
        return false;
    if (rename(snapshot->folder, gone) != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot remove %s", snapshot->folder);
        return false;
    }
    host_folder_remove(gone, NULL);
    remove_leaves(folder, snapshot, library);
    if (running || collect(folder, library, progress, error))
        return true;
    g_prefix_error(error, SNAPSHOT_UNMERGED);
    return false;
}

char *snapshot_spare_base(const char *machine_folder, const char *image, struct library *library)
{
    g_autofree char *folder = g_canonicalize_filename(machine_folder, NULL), *at = g_canonicalize_filename(image, NULL);
    struct chains *chains = chains_new(folder, library);
    unsigned i = find_file(chains, at);
    const char *one = NULL;
    g_autofree char *base = i == UINT_MAX ? g_strdup("") : g_strdup(chains->bases->pdata[i]);
    bool spare = base[0] && find_file(chains, base) != UINT_MAX && !g_hash_table_contains(chains->needed, base) &&
                 dependants(chains, base, &one) == 1;
    chains_free(chains);
    return spare ? g_steal_pointer(&base) : NULL;
}
