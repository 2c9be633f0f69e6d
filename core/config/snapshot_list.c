// SPDX-License-Identifier: GPL-2.0-or-later
// Reading the tree of snapshots; names, notes, parents.
#include "core/base/file.h"
#include "core/config/library.h"
#include "core/config/snapshot_private.h"

#include <string.h>
#include <sys/stat.h>

#define MOST_SNAPSHOTS 1000

static void disk_free(gpointer data)
{
    struct snapshot_disk *disk = data;
    g_free(disk->drive);
    g_free(disk->file);
    g_free(disk);
}

struct snapshot *snapshot_new(void)
{
    struct snapshot *snapshot = g_new0(struct snapshot, 1);
    snapshot->disks = g_ptr_array_new_with_free_func(disk_free);
    return snapshot;
}

void snapshot_free(struct snapshot *snapshot)
{
    if (!snapshot)
        return;
    g_free(snapshot->id);
    g_free(snapshot->name);
    g_free(snapshot->note);
    g_free(snapshot->parent);
    g_free(snapshot->folder);
    g_ptr_array_unref(snapshot->disks);
    g_free(snapshot);
}

void snapshot_add_disk(struct snapshot *snapshot, const char *drive, const char *file)
{
    struct snapshot_disk *disk = g_new0(struct snapshot_disk, 1);
    disk->drive = g_strdup(drive);
    disk->file = g_strdup(file);
    g_ptr_array_add(snapshot->disks, disk);
}

char *snapshot_path(const char *machine_folder, const char *file)
{
    return g_path_is_absolute(file) ? g_strdup(file) : g_build_filename(machine_folder, file, NULL);
}

static uint64_t allocated(const char *folder, const char *file)
{
    struct stat st;
    g_autofree char *path = snapshot_path(folder, file);
    return stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static char *get_text(GKeyFile *file, const char *key)
{
    char *text = g_key_file_get_string(file, "Snapshot", key, NULL);
    return text ? text : g_strdup("");
}

struct snapshot *snapshot_read(const char *machine_folder, const char *folder, GError **error)
{
    g_autofree char *path = g_build_filename(folder, SNAPSHOT_FILE, NULL), *text = NULL;
    size_t length;
    g_autoptr(GKeyFile) file = g_key_file_new();
    if (!host_file_read(path, CONFIG_MAX_SIZE, &text, &length, error) ||
        !g_key_file_load_from_data(file, text, length, G_KEY_FILE_NONE, error))
        return NULL;
    struct snapshot *snapshot = snapshot_new();
    snapshot->folder = g_strdup(folder);
    snapshot->id = get_text(file, "id");
    snapshot->name = get_text(file, "name");
    snapshot->note = get_text(file, "note");
    snapshot->parent = get_text(file, "parent");
    snapshot->time = g_key_file_get_int64(file, "Snapshot", "time", NULL);
    snapshot->has_state = g_key_file_get_boolean(file, "Snapshot", "state", NULL);
    g_auto(GStrv) drives = g_key_file_get_keys(file, "Disks", NULL, NULL);
    for (char **drive = drives; drive && *drive; drive++) {
        g_autofree char *disk = g_key_file_get_string(file, "Disks", *drive, NULL);
        if (disk && disk[0]) {
            snapshot_add_disk(snapshot, *drive, disk);
            snapshot->disk_bytes += allocated(machine_folder, disk);
        }
    }
    if (snapshot->has_state)
        snapshot->memory_bytes = allocated(folder, "ram");
    g_autofree char *leaf = g_path_get_basename(folder);
    if (g_uuid_string_is_valid(snapshot->id) && g_str_has_suffix(leaf, snapshot->id))
        return snapshot;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "%s has another id than its folder", path);
    snapshot_free(snapshot);
    return NULL;
}

bool snapshot_write(const struct snapshot *snapshot, GError **error)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_key_file_set_integer(file, "Snapshot", "version", 1);
    g_key_file_set_string(file, "Snapshot", "id", snapshot->id);
    g_key_file_set_string(file, "Snapshot", "name", snapshot->name);
    g_key_file_set_string(file, "Snapshot", "note", snapshot->note);
    g_key_file_set_string(file, "Snapshot", "parent", snapshot->parent);
    g_key_file_set_int64(file, "Snapshot", "time", snapshot->time);
    g_key_file_set_boolean(file, "Snapshot", "state", snapshot->has_state);
    for (unsigned i = 0; i < snapshot->disks->len; i++) {
        const struct snapshot_disk *disk = snapshot->disks->pdata[i];
        g_key_file_set_string(file, "Disks", disk->drive, disk->file);
    }
    size_t length;
    g_autofree char *text = g_key_file_to_data(file, &length, NULL);
    g_autofree char *path = g_build_filename(snapshot->folder, SNAPSHOT_FILE, NULL);
    return host_file_write(path, text, length, 0600, error);
}

static int by_time(const void *a, const void *b)
{
    const struct snapshot *x = *(struct snapshot *const *)a, *y = *(struct snapshot *const *)b;
    return x->time < y->time ? -1 : x->time > y->time ? 1 : strcmp(x->id, y->id);
}

GPtrArray *snapshot_list(const char *machine_folder)
{
    GPtrArray *list = g_ptr_array_new_with_free_func((GDestroyNotify)snapshot_free);
    g_autofree char *folder = g_build_filename(machine_folder, "snapshots", NULL);
    g_autofree char *conf = g_build_filename(machine_folder, CONFIG_FILE, NULL);
    g_autoptr(config_t) config = config_load(conf, NULL);
    g_autofree char *current = config ? config_get(config, "Machine", "snapshot") : NULL;
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir)) && list->len < MOST_SNAPSHOTS) {
        g_autoptr(GError) error = NULL;
        g_autofree char *path = g_build_filename(folder, name, NULL);
        struct snapshot *snapshot = name[0] == '.' ? NULL : snapshot_read(machine_folder, path, &error);
        if (snapshot) {
            snapshot->current = g_strcmp0(snapshot->id, current) == 0;
            g_ptr_array_add(list, snapshot);
        } else if (error) {
            log_warning("snapshot", "A snapshot is left out: %s", error->message);
        }
    }
    if (dir)
        g_dir_close(dir);
    g_ptr_array_sort(list, by_time);
    return list;
}

struct snapshot *snapshot_find(GPtrArray *list, const char *name, GError **error)
{
    struct snapshot *found = NULL;
    unsigned matches = 0;
    for (unsigned i = 0; i < list->len; i++) {
        struct snapshot *snapshot = list->pdata[i];
        if (strcmp(snapshot->id, name) == 0)
            return snapshot;
        if (strcmp(snapshot->name, name) == 0) {
            found = snapshot;
            matches++;
        }
    }
    if (matches == 1)
        return found;
    if (matches)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%u snapshots are called \"%s\"; name one by its id",
                    matches, name);
    else
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                    "There is no snapshot \"%s\"; `clochectl snapshot list` shows what there is", name);
    return NULL;
}

bool snapshot_name_check(GPtrArray *list, const struct snapshot *self, const char *name, GError **error)
{
    if (!name[0] || strlen(name) > 200 || !g_utf8_validate(name, -1, NULL) || strchr(name, '\n')) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "A snapshot's name has 1 to 200 characters on one line");
        return false;
    }
    for (unsigned i = 0; i < list->len; i++) {
        const struct snapshot *other = list->pdata[i];
        if (other != self && strcmp(other->name, name) == 0) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS,
                        "There is a snapshot \"%s\" already; choose another name", name);
            return false;
        }
    }
    return true;
}

bool snapshot_rename(const char *machine_folder, struct snapshot *snapshot, const char *name, const char *note,
                     GError **error)
{
    g_autoptr(GPtrArray) list = snapshot_list(machine_folder);
    struct snapshot *self = snapshot_find(list, snapshot->id, error);
    if (!self || (name && !snapshot_name_check(list, self, name, error)))
        return false;
    if (name) {
        g_free(snapshot->name);
        snapshot->name = g_strdup(name);
    }
    if (note) {
        g_free(snapshot->note);
        snapshot->note = g_strdup(note);
    }
    return snapshot_write(snapshot, error);
}
