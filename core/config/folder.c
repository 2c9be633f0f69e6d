// SPDX-License-Identifier: GPL-2.0-or-later
// One machine's folder: edits of its definition, its place at run time.
#include "core/base/file.h"
#include "core/config/library.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool machine_folder_edit(const char *folder, bool (*edit)(struct config *config, void *opaque, GError **error),
                         void *opaque, GError **error)
{
    g_autofree char *lock_path = g_build_filename(folder, ".conf-lock", NULL);
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL);
    int lock = host_file_lock(lock_path, true, 5000, path, error);
    if (lock < 0)
        return false;
    struct config *config = config_load(path, error);
    bool ok = config && edit(config, opaque, error) && config_save(config, path, error);
    config_free(config);
    close(lock);
    return ok;
}

struct rename_call {
    const char *name;
};

static bool rename_edit(struct config *config, void *opaque, GError **error)
{
    struct rename_call *call = opaque;
    return config_set(config, "Machine", "name", call->name, error);
}

bool library_rename(struct library *library, struct machine_entry *entry, const char *name, GError **error)
{
    GPtrArray *entries = library_entries(library);
    for (unsigned i = 0; i < entries->len; i++) {
        const struct machine_entry *other = entries->pdata[i];
        if (other != entry && strcmp(other->name, name) == 0) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS,
                        "There is a machine \"%s\" already; choose another name", name);
            return false;
        }
    }
    struct rename_call call = {name};
    if (!machine_folder_edit(entry->folder, rename_edit, &call, error))
        return false;
    library_scan(library);
    return true;
}

// A folder of ours that nobody else can write to; what stands there already must be that.
static bool private_folder(const char *path, bool create, GError **error)
{
    struct stat st;
    if (create && mkdir(path, 0700) != 0 && errno != EEXIST) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot create the run-time folder %s: %s", path,
                    g_strerror(errno));
        return false;
    }
    if (lstat(path, &st) != 0)
        return !create;
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED,
                    "The run-time folder %s belongs to somebody else or is open to others; remove it", path);
        return false;
    }
    return true;
}

char *machine_runtime_folder(const char *uuid, bool create, GError **error)
{
    const char *base = g_getenv("XDG_RUNTIME_DIR");
    g_autofree char *top = base && base[0] ? g_build_filename(base, "cloche", NULL)
                                           : g_strdup_printf("%s/cloche-%u", g_get_tmp_dir(), (unsigned)geteuid());
    g_autofree char *folder = g_build_filename(top, uuid, NULL);
    if (!private_folder(top, create, error) || !private_folder(folder, create, error))
        return NULL;
    return g_steal_pointer(&folder);
}
