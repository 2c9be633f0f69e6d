// SPDX-License-Identifier: GPL-2.0-or-later
// Who may change a machine's files.
#include "core/base/file.h"
#include "core/config/library.h"
#include "core/config/snapshot.h"

#include <unistd.h>

int machine_folder_lock(const char *folder, GError **error)
{
    g_autofree char *path = g_build_filename(folder, ".lock", NULL);
    g_autofree char *name = g_path_get_basename(folder);
    g_autofree char *what = g_strdup_printf("The machine in \"%s\"", name);
    g_autoptr(GError) local = NULL;
    int lock = host_file_lock(path, true, 0, what, &local);
    if (lock >= 0) {
        snapshot_recover(folder);
        return lock;
    }
    g_autofree char *run = g_build_filename(folder, LAST_RUN_FILE, NULL);
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_key_file_load_from_file(file, run, G_KEY_FILE_NONE, NULL);
    g_autofree char *state = g_key_file_get_string(file, "Run", "state", NULL);
    if (g_error_matches(local, CLOCHE_ERROR, CLOCHE_ERROR_BUSY) && g_strcmp0(state, "running") == 0)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "%s is running; shut it down or save it first", what);
    else
        g_propagate_error(error, g_steal_pointer(&local));
    return -1;
}

static bool forget_resume(struct config *config, void *opaque, GError **error)
{
    return config_set(config, "Machine", "resume", NULL, error);
}

bool machine_folder_discard(const char *folder, GError **error)
{
    g_autofree char *saved = g_build_filename(folder, SAVED_FOLDER, NULL);
    int lock = machine_folder_lock(folder, error);
    bool good =
        lock >= 0 && machine_folder_edit(folder, forget_resume, NULL, error) && host_folder_remove(saved, error);
    if (lock >= 0)
        close(lock);
    return good;
}
