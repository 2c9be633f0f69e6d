// SPDX-License-Identifier: GPL-2.0-or-later
// Deleting a snapshot. First what its images hold goes to what stands on them, during which it stays whole and can be
// restored; then it goes in one step: its folder is renamed to ".gone-ID". Whoever finds such a folder finishes that.
#include "core/base/file.h"
#include "core/config/chains.h"
#include "core/config/library.h"
#include "core/config/snapshot_private.h"
#include "disks/info.h"
#include "disks/tools.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

// ---- Merging ----

typedef bool image_fn(const char *path, const char *base, GError **error);

static bool doubt(const char *path, const char *base, GError **error)
{
    return disk_doubt_base(path, error);
}

static bool accept(const char *path, const char *base, GError **error)
{
    g_autofree char *leaf = g_path_get_basename(base);
    return snapshot_run_job(disk_job_rebase(path, leaf, "qcow2", true), NULL, error);
}

// Each image that stands on BASE, which lies in the same folder.
static bool each_dependant(struct chains *chains, const char *base, image_fn *fn, GError **error)
{
    bool good = true;
    for (unsigned i = 0; i < chains_count(chains) && good; i++) {
        const char *path = chains_file(chains, i);
        good = strcmp(chains_base(chains, path), base) != 0 || fn(path, base, error);
    }
    return good;
}

// CHILD takes over what MIDDLE holds and stands on what that stood on. What stands on CHILD sees the same content;
// meanwhile, and when interrupted, it does not mind that the file of its base is another.
static bool take_over(struct chains *chains, const char *middle, const char *child, struct progress *progress,
                      GError **error)
{
    struct disk_info *info = disk_info(middle, NULL, error);
    if (!info)
        return false;
    g_autofree char *backing = g_strdup(info->backing), *format = g_strdup(info->backing_format);
    disk_info_free(info);
    if (!each_dependant(chains, child, doubt, error))
        return false;
    bool good = snapshot_run_job(disk_job_rebase(child, backing, format, false), progress, error);
    return each_dependant(chains, child, accept, good ? error : NULL) && good;
}

// Does SNAPSHOT show what PATH holds?
static bool sees_image(const char *folder, const struct snapshot *snapshot, const char *path)
{
    bool sees = false;
    for (unsigned i = 0; snapshot && i < snapshot->disks->len && !sees; i++) {
        const struct snapshot_disk *disk = snapshot->disks->pdata[i];
        g_autofree char *image = snapshot_path(folder, disk->file);
        sees = chain_contains(folder, image, path);
    }
    return sees;
}

bool snapshot_drop_image(const char *folder, const struct snapshot *gone, const char *image, GError **error)
{
    if (sees_image(folder, gone, image))
        return true; // as long as it is there, it is whole
    if (unlink(image) != 0)
        log_warning("snapshot", "%s is not needed any more and could not be removed", image);
    return true;
}

// An image that nobody needs and exactly one other stands on, which may change; NULL: there is none.
static const char *find_spare(struct chains *chains, const char **child)
{
    for (unsigned i = 0; i < chains_count(chains); i++) {
        const char *path = chains_file(chains, i);
        if (!chains_needed(chains, path) && chains_dependants(chains, path, child) == 1 &&
            !chains_pinned(chains, *child))
            return path;
    }
    return NULL;
}

// Merges every such image, GONE not counted.
static bool merge_all(const char *folder, const struct snapshot *gone, struct library *library,
                      struct progress *progress, GError **error)
{
    for (;;) {
        struct chains *chains = chains_new(folder, library, gone);
        const char *child, *spare = find_spare(chains, &child);
        g_autofree char *leaf = spare ? g_path_get_basename(spare) : NULL;
        bool good =
            !spare || (snapshot_note_loose(folder, leaf, error) && take_over(chains, spare, child, progress, error) &&
                       snapshot_drop_image(folder, gone, spare, error));
        chains_free(chains);
        if (!spare || !good)
            return good;
    }
}

char *snapshot_spare_base(const char *machine_folder, const char *image, const struct snapshot *gone,
                          struct library *library)
{
    g_autofree char *folder = g_canonicalize_filename(machine_folder, NULL), *at = g_canonicalize_filename(image, NULL);
    struct chains *chains = chains_new(folder, library, gone);
    const char *base = chains_base(chains, at), *one = NULL;
    bool spare = chains_has(chains, base) && !chains_needed(chains, base) && !chains_pinned(chains, at) &&
                 chains_dependants(chains, base, &one) == 1;
    char *found = spare ? g_strdup(base) : NULL;
    chains_free(chains);
    return found;
}

// ---- Going ----

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

// Images of GONE that nothing stands on and nobody needs, and then what they stood on.
static void remove_leaves(const char *folder, const struct snapshot *gone, struct library *library)
{
    for (unsigned i = 0; i < gone->disks->len; i++) {
        const struct snapshot_disk *disk = gone->disks->pdata[i];
        bool ours = !g_path_is_absolute(disk->file) && !strchr(disk->file, '/');
        g_autofree char *path = snapshot_path(folder, disk->file);
        if (ours)
            snapshot_remove_unneeded(folder, path, library);
    }
}

bool snapshot_finish_delete(const char *folder, const struct snapshot *gone, struct library *library, GError **error)
{
    struct current_edit edit = {gone->id, gone->parent};
    if (!reparent_children(folder, gone, error) || !machine_folder_edit(folder, move_current, &edit, error))
        return false;
    remove_leaves(folder, gone, library);
    return host_folder_remove(gone->folder, error);
}

bool snapshot_may_delete(const char *folder, const struct snapshot *snapshot, GError **error)
{
    if (!is_resume_source(folder, snapshot))
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                "The machine's next start goes on from \"%s\"; start it first, or restore another snapshot",
                snapshot->name);
    return false;
}

bool snapshot_delete(const char *machine_folder, struct snapshot *snapshot, bool running, struct library *library,
                     struct progress *progress, GError **error)
{
    g_autofree char *folder = g_canonicalize_filename(machine_folder, NULL);
    g_autoptr(GError) unmerged = NULL;
    if (!snapshot_may_delete(folder, snapshot, error))
        return false;
    if (!running && !merge_all(folder, snapshot, library, progress, &unmerged) &&
        !g_error_matches(unmerged, CLOCHE_ERROR, CLOCHE_ERROR_NO_SPACE)) {
        g_propagate_error(error, g_steal_pointer(&unmerged));
        return false;
    }
    g_autofree char *all = g_build_filename(folder, "snapshots", NULL),
                    *leaf = g_strconcat(".gone-", snapshot->id, NULL);
    g_autofree char *gone = g_build_filename(all, leaf, NULL);
    if (rename(snapshot->folder, gone) != 0 || !host_folder_sync(all, NULL)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot remove %s", snapshot->folder);
        return false;
    }
    g_free(snapshot->folder);
    snapshot->folder = g_steal_pointer(&gone);
    if (!snapshot_finish_delete(folder, snapshot, library, error))
        return false;
    snapshot_forget_loose(folder);
    if (!unmerged)
        return true;
    g_propagate_prefixed_error(error, g_steal_pointer(&unmerged), SNAPSHOT_UNMERGED);
    return false;
}
