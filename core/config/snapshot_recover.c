// SPDX-License-Identifier: GPL-2.0-or-later
// What was interrupted is finished or taken back, before anybody else works on the machine's files.
#include "core/base/file.h"
#include "core/config/chains.h"
#include "core/config/library.h"
#include "core/config/snapshot_private.h"
#include "disks/tools.h"

#include <string.h>
#include <unistd.h>

#define LOOSE_FILE   ".loose"
#define CURRENT_FILE ".current"
#define MOST_LOOSE   (64 * KiB)

// ---- Notes ----

static char *note_path(const char *folder, const char *name)
{
    return g_build_filename(folder, "snapshots", name, NULL);
}

static char *read_note(const char *folder, const char *name)
{
    g_autofree char *path = note_path(folder, name);
    char *text = NULL;
    size_t length;
    return access(path, F_OK) == 0 && host_file_read(path, MOST_LOOSE, &text, &length, NULL) ? text : NULL;
}

static bool write_note(const char *folder, const char *name, const char *text, GError **error)
{
    g_autofree char *path = note_path(folder, name), *parent = g_path_get_dirname(path);
    g_mkdir_with_parents(parent, 0700); // where that fails, writing says why
    return host_file_write(path, text, strlen(text), 0600, error);
}

static void remove_note(const char *folder, const char *name)
{
    g_autofree char *path = note_path(folder, name);
    unlink(path);
}

bool snapshot_note_loose(const char *folder, const char *file, GError **error)
{
    g_autofree char *before = read_note(folder, LOOSE_FILE);
    g_autofree char *text = g_strconcat(before ? before : "", file, "\n", NULL);
    return strlen(text) > MOST_LOOSE || write_note(folder, LOOSE_FILE, text, error);
}

void snapshot_forget_loose(const char *folder)
{
    remove_note(folder, LOOSE_FILE);
}

bool snapshot_note_current(const char *folder, const char *id, GError **error)
{
    return write_note(folder, CURRENT_FILE, id, error);
}

void snapshot_forget_current(const char *folder)
{
    remove_note(folder, CURRENT_FILE);
}

// ---- Files that nobody needs ----

void snapshot_remove_unneeded(const char *folder, const char *path, struct library *library)
{
    g_autofree char *at = g_strdup(path), *prefix = g_strconcat(folder, "/", NULL);
    while (at[0] && g_str_has_prefix(at, prefix)) {
        struct chains *chains = chains_new(folder, library, NULL);
        bool needed = chains_has(chains, at);
        chains_free(chains);
        char *base = needed ? g_strdup("") : chain_base(at);
        if (!needed)
            unlink(at);
        g_free(at);
        at = base;
    }
}

static void remove_loose(const char *folder, struct library *library)
{
    g_autofree char *text = read_note(folder, LOOSE_FILE);
    g_auto(GStrv) files = text ? g_strsplit(text, "\n", -1) : NULL;
    for (char **file = files; file && *file; file++) {
        g_autofree char *path = g_build_filename(folder, *file, NULL);
        if ((*file)[0] && !strchr(*file, '/') && access(path, F_OK) == 0)
            snapshot_remove_unneeded(folder, path, library);
    }
    snapshot_forget_loose(folder);
}

// ---- A snapshot that never came to be: the disks go on without it ----

static bool stands_alone(const char *folder, const char *overlay, const char *base, struct library *library)
{
    struct chains *chains = chains_new(folder, library, NULL);
    const char *one;
    bool alone = strcmp(chains_base(chains, overlay), base) == 0 && !chains_needed(chains, base) &&
                 chains_dependants(chains, base, &one) == 1;
    chains_free(chains);
    return alone;
}

static char *drive_path(const char *folder, struct config *config, const char *drive)
{
    g_autofree char *group = g_strconcat("Drive ", drive, NULL), *file = config_get(config, group, "file");
    g_autofree char *path = snapshot_path(folder, file ? file : "");
    return g_canonicalize_filename(path, NULL);
}

// What the guest wrote since goes down into the disks of NEW's beginning, which the definition names again. Where it
// has moved on meanwhile, there is nothing to take back.
static bool take_back(const char *folder, const struct snapshot *new, struct library *library, GError **error)
{
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL),
                    *copy = g_build_filename(new->folder, CONFIG_FILE, NULL);
    g_autoptr(config_t) now = config_load(path, error), then = now ? config_load(copy, error) : NULL;
    g_autoptr(GPtrArray) overlays = g_ptr_array_new_with_free_func(g_free);
    if (!then)
        return false;
    for (unsigned i = 0; i < new->disks->len; i++) {
        const char *drive = ((struct snapshot_disk *)new->disks->pdata[i])->drive;
        g_autofree char *overlay = drive_path(folder, now, drive), *base = drive_path(folder, then, drive);
        if (strcmp(overlay, base) == 0)
            continue;
        if (!stands_alone(folder, overlay, base, library))
            return true;
        if (!snapshot_run_job(disk_job_commit(overlay, false), NULL, error)) // shows the same at any moment
            return false;
        g_ptr_array_add(overlays, g_steal_pointer(&overlay));
    }
    if (overlays->len && !snapshot_unswitch_files(folder, new, error))
        return false;
    for (unsigned i = 0; i < overlays->len; i++)
        unlink(overlays->pdata[i]);
    return true;
}

void snapshot_leave(struct snapshot *new)
{
    static const char *const large[] = {"ram", "state", "screen.png"};
    for (unsigned i = 0; i < G_N_ELEMENTS(large); i++) {
        g_autofree char *path = g_build_filename(new->folder, large[i], NULL);
        unlink(path);
    }
    snapshot_free(new);
}

static void give_up(const char *folder, const char *place, struct library *library)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *copy = g_build_filename(place, CONFIG_FILE, NULL);
    g_autoptr(config_t) then = config_load(copy, NULL);
    struct snapshot *new = snapshot_new();
    new->folder = g_strdup(place);
    g_auto(GStrv) drives = then ? snapshot_drives(then) : NULL;
    for (char **drive = drives; drive && *drive; drive++)
        snapshot_add_disk(new, *drive, "");
    if (!then || take_back(folder, new, library, &error)) {
        log_info("snapshot", "A snapshot that was not finished is given up");
        snapshot_abandon(new);
    } else {
        log_warning("snapshot",
                    "The disks go on with an image more after a snapshot that was not finished; the next start tries "
                    "again to do without it: %s",
                    error->message);
        snapshot_leave(new);
    }
}

// ---- All of it ----

static void finish_delete(const char *folder, const char *place, struct library *library)
{
    g_autoptr(GError) error = NULL;
    struct snapshot *gone = snapshot_read(folder, place, NULL);
    if (!gone || !snapshot_finish_delete(folder, gone, library, &error))
        host_folder_remove(place, NULL);
    if (error)
        log_warning("snapshot", "A deletion could not be finished: %s", error->message);
    snapshot_free(gone);
}

static bool set_current(struct config *config, void *opaque, GError **error)
{
    return config_set(config, "Machine", "snapshot", opaque, error);
}

// Killed when the snapshot was there and the definition did not name it yet.
static void finish_current(const char *folder)
{
    g_autofree char *id = read_note(folder, CURRENT_FILE);
    g_autoptr(GPtrArray) list = id ? snapshot_list(folder) : NULL;
    for (unsigned i = 0; list && i < list->len; i++)
        if (strcmp(((struct snapshot *)list->pdata[i])->id, id) == 0)
            machine_folder_edit(folder, set_current, id, NULL);
    snapshot_forget_current(folder);
}

// State that the definition does not name.
static void remove_saved(const char *folder)
{
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL),
                    *saved = g_build_filename(folder, SAVED_FOLDER, NULL),
                    *unfinished = g_strconcat(saved, ".new", NULL);
    g_autoptr(config_t) config = config_load(path, NULL);
    g_autofree char *resume = config ? config_get(config, "Machine", "resume") : NULL;
    host_folder_remove(unfinished, NULL);
    if (resume && strcmp(resume, SAVED_FOLDER) != 0)
        host_folder_remove(saved, NULL);
}

// The entries of "snapshots/" that begin with a dot.
static GPtrArray *unfinished(const char *folder)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *all = g_build_filename(folder, "snapshots", NULL);
    GDir *dir = g_dir_open(all, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir)))
        if (name[0] == '.')
            g_ptr_array_add(names, g_strdup(name));
    if (dir)
        g_dir_close(dir);
    return names;
}

static void remove_half_note(const char *folder, const char *place, struct library *library)
{
    unlink(place);
}

void snapshot_recover(const char *machine_folder)
{
    static const struct {
        const char *prefix;
        void (*finish)(const char *folder, const char *place, struct library *library);
    } kinds[] = {{".gone-", finish_delete},
                 {".new-", give_up},
                 {LOOSE_FILE ".", remove_half_note},
                 {CURRENT_FILE ".", remove_half_note}};
    g_autofree char *folder = g_canonicalize_filename(machine_folder, NULL);
    remove_saved(folder);
    g_autoptr(GPtrArray) names = unfinished(folder);
    if (!names->len)
        return;
    g_autoptr(library_t) library = library_open(NULL);
    finish_current(folder);
    for (unsigned kind = 0; kind < G_N_ELEMENTS(kinds); kind++)
        for (unsigned i = 0; i < names->len; i++) {
            g_autofree char *place = g_build_filename(folder, "snapshots", names->pdata[i], NULL);
            if (g_str_has_prefix(names->pdata[i], kinds[kind].prefix))
                kinds[kind].finish(folder, place, library);
        }
    remove_loose(folder, library);
}
