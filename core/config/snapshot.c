// SPDX-License-Identifier: GPL-2.0-or-later
// Taking and restoring.
#include "core/base/file.h"
#include "core/config/library.h"
#include "core/config/snapshot_private.h"
#include "disks/create.h"
#include "disks/job.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/fs.h>
#include <unistd.h>

// ---- Small steps ----

char **snapshot_drives(struct config *config)
{
    g_autoptr(GStrvBuilder) builder = g_strv_builder_new();
    g_auto(GStrv) groups = config_groups(config, "Drive *");
    for (char **group = groups; *group; group++) {
        g_autofree char *kind = config_get(config, *group, "kind"), *file = config_get(config, *group, "file");
        if (strcmp(kind, "disk") == 0 && file[0] && !config_get_bool(config, *group, "read-only"))
            g_strv_builder_add(builder, *group + strlen("Drive "));
    }
    return g_strv_builder_end(builder);
}

// BASE as it is recorded in an overlay in FOLDER: relative where both lie under one parent, so that both can move.
char *snapshot_relative_base(const char *folder, const char *base)
{
    g_autofree char *parent = g_path_get_dirname(folder), *prefix = g_strconcat(folder, "/", NULL);
    g_autofree char *siblings = g_strconcat(parent, "/", NULL);
    if (g_str_has_prefix(base, prefix))
        return g_strdup(base + strlen(prefix));
    return g_str_has_prefix(base, siblings) ? g_build_filename("..", base + strlen(siblings), NULL) : g_strdup(base);
}

char *snapshot_overlay_name(const char *drive)
{
    g_autofree char *uuid = g_uuid_string_random();
    return g_strdup_printf("%s-%.8s.qcow2", drive, uuid);
}

char *snapshot_create_overlay(const char *folder, const char *drive, const char *base, bool note, GError **error)
{
    g_autofree char *recorded = snapshot_relative_base(folder, base);
    struct disk_create_options options = {.format = "qcow2", .backing = recorded};
    for (;;) {
        g_autofree char *name = snapshot_overlay_name(drive);
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_autoptr(GError) local = NULL;
        if (note && !snapshot_note_loose(folder, name, error))
            return NULL;
        if (disk_create(path, &options, &local))
            return g_steal_pointer(&name);
        if (g_error_matches(local, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS))
            continue; // four billion names: the next one is free
        g_propagate_error(error, g_steal_pointer(&local));
        return NULL;
    }
}

bool snapshot_link_file(const char *from, const char *to, GError **error)
{
    if (link(from, to) == 0)
        return true;
    int source = open(from, O_RDONLY | O_CLOEXEC), target = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool good = source >= 0 && target >= 0;
    if (good && ioctl(target, FICLONE, source) != 0) {
        off_t size = lseek(source, 0, SEEK_END), at = 0;
        good = ftruncate(target, size) == 0;
        while (good && at < size && (at = lseek(source, at, SEEK_DATA)) >= 0) { // holes stay holes
            off_t end = lseek(source, at, SEEK_HOLE), out = at;
            while (good && at < end) {
                ssize_t n = copy_file_range(source, &at, target, &out, end - at, 0);
                good = n > 0;
            }
        }
        good = good && fdatasync(target) == 0;
    }
    if (!good)
        g_set_error(error, CLOCHE_ERROR, errno == ENOSPC ? CLOCHE_ERROR_NO_SPACE : CLOCHE_ERROR_FAILED,
                    "Cannot copy %s to %s: %s", from, to, g_strerror(errno));
    if (source >= 0)
        close(source);
    if (target >= 0)
        close(target);
    return good;
}

bool snapshot_run_job(struct job *job, struct progress *progress, GError **error)
{
    uint64_t done, total, before_done = progress ? atomic_load(&progress->done) : 0;
    uint64_t before_total = progress ? atomic_load(&progress->total) : 0;
    while (progress && !job_finished(job)) {
        job_progress(job, &done, &total);
        atomic_store(&progress->total, before_total + total);
        atomic_store(&progress->done, before_done + done);
        if (atomic_load(&progress->cancelled))
            job_cancel(job);
        g_usleep(10000);
    }
    bool good = job_wait(job, error);
    job_free(job);
    return good;
}

// ---- Taking ----

struct snapshot *snapshot_begin(const char *machine_folder, const char *name, const char *note, GError **error)
{
    g_autoptr(GPtrArray) list = snapshot_list(machine_folder);
    g_autofree char *conf = g_build_filename(machine_folder, CONFIG_FILE, NULL);
    g_autoptr(config_t) config = config_load(conf, error);
    if (!config || !snapshot_name_check(list, NULL, name, error))
        return NULL;
    g_autofree char *all = g_build_filename(machine_folder, "snapshots", NULL);
    struct snapshot *new = snapshot_new();
    new->id = g_uuid_string_random();
    new->name = g_strdup(name);
    new->note = g_strdup(note ? note : "");
    new->parent = config_get(config, "Machine", "snapshot");
    new->time = g_get_real_time() / G_USEC_PER_SEC;
    g_autofree char *leaf = g_strconcat(".new-", new->id, NULL);
    new->folder = g_build_filename(all, leaf, NULL);
    g_auto(GStrv) drives = snapshot_drives(config);
    for (char **drive = drives; *drive; drive++) {
        g_autofree char *group = g_strconcat("Drive ", *drive, NULL), *file = config_get(config, group, "file");
        snapshot_add_disk(new, *drive, file);
    }
    g_autofree char *copy = g_build_filename(new->folder, CONFIG_FILE, NULL), *text = config_text(config);
    if (g_mkdir_with_parents(new->folder, 0700) != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot create %s: %s", new->folder, g_strerror(errno));
    } else if (host_file_write(copy, text, strlen(text), 0600, error)) {
        return new;
    }
    snapshot_abandon(new);
    return NULL;
}

void snapshot_abandon(struct snapshot *new)
{
    if (!new)
        return;
    host_folder_remove(new->folder, NULL);
    snapshot_free(new);
}

// Puts FILES (drive -> file name) into the definition.
static bool set_files(struct config *config, GHashTable *files, GError **error)
{
    GHashTableIter iter;
    gpointer drive, file;
    g_hash_table_iter_init(&iter, files);
    while (g_hash_table_iter_next(&iter, &drive, &file)) {
        g_autofree char *group = g_strconcat("Drive ", drive, NULL);
        if (!config_set(config, group, "file", file, error) || !config_set(config, group, "format", "qcow2", error))
            return false;
    }
    return true;
}

static bool set_files_edit(struct config *config, void *opaque, GError **error)
{
    return set_files(config, opaque, error);
}

static GHashTable *files_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

static void remove_files(const char *folder, GHashTable *files)
{
    GHashTableIter iter;
    gpointer file;
    g_hash_table_iter_init(&iter, files);
    while (g_hash_table_iter_next(&iter, NULL, &file)) {
        g_autofree char *path = g_build_filename(folder, file, NULL);
        unlink(path);
    }
}

// An overlay on each of SNAPSHOT's disks; on failure none is left.
static GHashTable *create_overlays(const char *machine_folder, struct snapshot *snapshot, GError **error)
{
    g_autoptr(GHashTable) files = files_new();
    for (unsigned i = 0; i < snapshot->disks->len; i++) {
        const struct snapshot_disk *disk = snapshot->disks->pdata[i];
        g_autofree char *base = snapshot_path(machine_folder, disk->file);
        char *overlay = snapshot_create_overlay(machine_folder, disk->drive, base, true, error);
        if (!overlay) {
            remove_files(machine_folder, files);
            return NULL;
        }
        g_hash_table_insert(files, g_strdup(disk->drive), overlay);
    }
    return g_steal_pointer(&files);
}

bool snapshot_switch_disks(const char *machine_folder, struct snapshot *new, GError **error)
{
    g_autoptr(GHashTable) files = create_overlays(machine_folder, new, error);
    if (!files)
        return false;
    if (machine_folder_edit(machine_folder, set_files_edit, files, error))
        return true;
    remove_files(machine_folder, files);
    return false;
}

bool snapshot_switch_files(const char *machine_folder, GHashTable *files, GError **error)
{
    return machine_folder_edit(machine_folder, set_files_edit, files, error);
}

struct unswitch {
    const struct snapshot *new;
    struct config *then;
};

static bool unswitch_edit(struct config *config, void *opaque, GError **error)
{
    static const char *const keys[] = {"file", "format"};
    struct unswitch *unswitch = opaque;
    for (unsigned i = 0; i < unswitch->new->disks->len; i++) {
        const struct snapshot_disk *disk = unswitch->new->disks->pdata[i];
        g_autofree char *group = g_strconcat("Drive ", disk->drive, NULL);
        for (unsigned k = 0; k < G_N_ELEMENTS(keys); k++) {
            bool set = config_is_set(unswitch->then, group, keys[k]);
            g_autofree char *value = set ? config_get(unswitch->then, group, keys[k]) : NULL;
            if (!config_set(config, group, keys[k], value, error))
                return false;
        }
    }
    return true;
}

bool snapshot_unswitch_files(const char *machine_folder, const struct snapshot *new, GError **error)
{
    g_autofree char *path = g_build_filename(new->folder, CONFIG_FILE, NULL);
    g_autoptr(config_t) then = config_load(path, error);
    struct unswitch unswitch = {new, then};
    return then && machine_folder_edit(machine_folder, unswitch_edit, &unswitch, error);
}

static bool set_current(struct config *config, void *opaque, GError **error)
{
    return config_set(config, "Machine", "snapshot", opaque, error);
}

bool snapshot_commit(const char *machine_folder, struct snapshot *new, GError **error)
{
    g_autofree char *all = g_build_filename(machine_folder, "snapshots", NULL),
                    *folder = g_build_filename(all, new->id, NULL);
    if (!snapshot_write(new, error) || !host_folder_sync(new->folder, error) ||
        !snapshot_note_current(machine_folder, new->id, error))
        return false;
    if (rename(new->folder, folder) != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot rename %s: %s", new->folder, g_strerror(errno));
        return false;
    }
    g_free(new->folder);
    new->folder = g_steal_pointer(&folder);
    if (!host_folder_sync(all, error) || !machine_folder_edit(machine_folder, set_current, new->id, error))
        return false;
    snapshot_forget_current(machine_folder);
    snapshot_forget_loose(machine_folder);
    return true;
}

// A suspended machine: its state and memory are the snapshot's too.
static bool link_saved(const char *machine_folder, struct snapshot *new, const char *resume, GError **error)
{
    static const char *const names[] = {"state", "ram"};
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *from = g_build_filename(machine_folder, resume, names[i], NULL);
        g_autofree char *to = g_build_filename(new->folder, names[i], NULL);
        if (!snapshot_link_file(from, to, error))
            return false;
    }
    new->has_state = true;
    return true;
}

bool snapshot_take(const char *machine_folder, const char *name, const char *note, GError **error)
{
    struct snapshot *new = snapshot_begin(machine_folder, name, note, error);
    if (!new)
        return false;
    g_autofree char *conf = g_build_filename(new->folder, CONFIG_FILE, NULL);
    g_autoptr(config_t) config = config_load(conf, error);
    g_autofree char *resume = config ? config_get(config, "Machine", "resume") : NULL;
    bool good = config && (!resume[0] || link_saved(machine_folder, new, resume, error)) &&
                snapshot_switch_disks(machine_folder, new, error) && snapshot_commit(machine_folder, new, error);
    if (good)
        snapshot_free(new);
    else
        snapshot_abandon(new);
    return good;
}

// ---- Restoring ----

GHashTable *snapshot_prepare_restore(const char *machine_folder, struct snapshot *snapshot, GError **error)
{
    return create_overlays(machine_folder, snapshot, error);
}

// What belongs to the machine and not to one moment of it.
static bool keep_identity(struct config *from, struct config *to, GError **error)
{
    static const char *const keys[] = {"name", "uuid", "notes", "group", "icon", "template"};
    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
        g_autofree char *value = config_is_set(from, "Machine", keys[i]) ? config_get(from, "Machine", keys[i]) : NULL;
        if (!config_set(to, "Machine", keys[i], value, error))
            return false;
    }
    return true;
}

// Is FILE of the machine's folder a frozen image of some snapshot?
static bool is_frozen(GPtrArray *list, const char *file)
{
    for (unsigned i = 0; i < list->len; i++) {
        const struct snapshot *snapshot = list->pdata[i];
        for (unsigned n = 0; n < snapshot->disks->len; n++)
            if (strcmp(((struct snapshot_disk *)snapshot->disks->pdata[n])->file, file) == 0)
                return true;
    }
    return false;
}

// The present overlays, which nothing refers to after going back: file names. Free with g_strfreev().
static char **present_overlays(const char *machine_folder, struct config *old)
{
    g_autoptr(GPtrArray) list = snapshot_list(machine_folder);
    g_autoptr(GStrvBuilder) overlays = g_strv_builder_new();
    g_auto(GStrv) drives = snapshot_drives(old);
    for (char **drive = drives; *drive; drive++) {
        g_autofree char *group = g_strconcat("Drive ", *drive, NULL), *file = config_get(old, group, "file");
        if (!g_path_is_absolute(file) && !strchr(file, '/') && !is_frozen(list, file))
            g_strv_builder_add(overlays, file);
    }
    return g_strv_builder_end(overlays);
}

static bool note_all_loose(const char *machine_folder, char **files, GError **error)
{
    for (; *files; files++)
        if (!snapshot_note_loose(machine_folder, *files, error))
            return false;
    return true;
}

bool snapshot_switch_back(const char *machine_folder, struct snapshot *snapshot, GHashTable *overlays, bool resume,
                          GError **error)
{
    g_autofree char *path = g_build_filename(machine_folder, CONFIG_FILE, NULL);
    g_autofree char *then = g_build_filename(snapshot->folder, CONFIG_FILE, NULL);
    g_autofree char *place = g_build_filename("snapshots", snapshot->id, NULL);
    g_autoptr(config_t) old = config_load(path, error);
    g_autoptr(config_t) stored = old ? config_load(then, error) : NULL;
    if (!stored)
        return false;
    g_autoptr(config_t) config = config_copy(stored); // counts as changed: it is written in any case
    g_auto(GStrv) dropped = present_overlays(machine_folder, old);
    if (!note_all_loose(machine_folder, dropped, error) || !keep_identity(old, config, error) ||
        !set_files(config, overlays, error) || !config_set(config, "Machine", "snapshot", snapshot->id, error) ||
        !config_set(config, "Machine", "resume", resume && snapshot->has_state ? place : NULL, error) ||
        !config_save(config, path, error))
        return false;
    for (char **file = dropped; *file; file++) {
        g_autofree char *present = g_build_filename(machine_folder, *file, NULL);
        unlink(present);
    }
    snapshot_forget_loose(machine_folder);
    g_autofree char *saved = g_build_filename(machine_folder, "saved", NULL);
    host_folder_remove(saved, NULL);
    return true;
}

bool snapshot_restore(const char *machine_folder, struct snapshot *snapshot, GError **error)
{
    g_autoptr(GHashTable) overlays = create_overlays(machine_folder, snapshot, error);
    if (!overlays)
        return false;
    if (snapshot_switch_back(machine_folder, snapshot, overlays, true, error))
        return true;
    remove_files(machine_folder, overlays);
    return false;
}
