// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/config/chains.h"
#include "core/config/library.h"
#include "core/config/snapshot_private.h"
#include "disks/info.h"

#include <string.h>

#define DEEPEST 1000

struct chains {
    const char *folder;
    GPtrArray *files;   // char *, absolute: present disks, frozen ones, and bases below them inside the folder
    GPtrArray *bases;   // char *, of the same index; "" for none
    GHashTable *needed; // absolute paths that a snapshot, the definition or a clone refers to
    GHashTable *pinned; // absolute paths that clones see
};

static unsigned find_file(const struct chains *chains, const char *path)
{
    for (unsigned i = 0; i < chains->files->len; i++)
        if (strcmp(chains->files->pdata[i], path) == 0)
            return i;
    return UINT_MAX;
}

char *chain_base(const char *path)
{
    struct disk_info *info = disk_info(path, NULL, NULL);
    char *base = info && info->backing_path ? g_canonicalize_filename(info->backing_path, NULL) : g_strdup("");
    disk_info_free(info);
    return base;
}

bool chain_contains(const char *folder, const char *top, const char *path)
{
    g_autofree char *prefix = g_strconcat(folder, "/", NULL), *at = g_canonicalize_filename(top, NULL);
    for (unsigned depth = 0; depth < DEEPEST && g_str_has_prefix(at, prefix) && strcmp(at, path) != 0; depth++) {
        char *base = chain_base(at);
        g_free(at);
        at = base;
    }
    return strcmp(at, path) == 0;
}

// Adds PATH and what it stands on, as long as that lies in the machine's folder.
static void add_chain(struct chains *chains, const char *path)
{
    g_autofree char *prefix = g_strconcat(chains->folder, "/", NULL), *at = g_canonicalize_filename(path, NULL);
    for (unsigned depth = 0; depth < DEEPEST && g_str_has_prefix(at, prefix) && find_file(chains, at) == UINT_MAX;
         depth++) {
        char *base = chain_base(at);
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

static void need_snapshots(struct chains *chains, const struct snapshot *without)
{
    g_autoptr(GPtrArray) list = snapshot_list(chains->folder);
    for (unsigned i = 0; i < list->len; i++) {
        const struct snapshot *snapshot = list->pdata[i];
        for (unsigned n = 0; n < snapshot->disks->len && (!without || strcmp(snapshot->id, without->id) != 0); n++)
            need(chains, ((struct snapshot_disk *)snapshot->disks->pdata[n])->file);
    }
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

static void pin(struct chains *chains, const char *file)
{
    g_autofree char *path = snapshot_path(chains->folder, file);
    need(chains, file);
    for (const char *at = path; at[0] && g_hash_table_add(chains->pinned, g_strdup(at)); at = chains_base(chains, at))
        ;
}

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
                pin(chains, file);
        }
    }
}

static GHashTable *paths_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

struct chains *chains_new(const char *folder, struct library *library, const struct snapshot *without)
{
    struct chains *chains = g_new0(struct chains, 1);
    *chains = (struct chains){.folder = folder,
                              .files = g_ptr_array_new_with_free_func(g_free),
                              .bases = g_ptr_array_new_with_free_func(g_free),
                              .needed = paths_new(),
                              .pinned = paths_new()};
    need_snapshots(chains, without);
    need_definition(chains);
    need_clones(chains, library);
    return chains;
}

void chains_free(struct chains *chains)
{
    g_ptr_array_unref(chains->files);
    g_ptr_array_unref(chains->bases);
    g_hash_table_unref(chains->needed);
    g_hash_table_unref(chains->pinned);
    g_free(chains);
}

unsigned chains_count(const struct chains *chains)
{
    return chains->files->len;
}

const char *chains_file(const struct chains *chains, unsigned index)
{
    return chains->files->pdata[index];
}

bool chains_has(const struct chains *chains, const char *path)
{
    return find_file(chains, path) != UINT_MAX;
}

const char *chains_base(const struct chains *chains, const char *path)
{
    unsigned i = find_file(chains, path);
    return i == UINT_MAX ? "" : chains->bases->pdata[i];
}

bool chains_needed(const struct chains *chains, const char *path)
{
    return g_hash_table_contains(chains->needed, path);
}

bool chains_pinned(const struct chains *chains, const char *path)
{
    return g_hash_table_contains(chains->pinned, path);
}

unsigned chains_dependants(const struct chains *chains, const char *path, const char **one)
{
    unsigned count = 0;
    for (unsigned i = 0; i < chains->files->len; i++)
        if (strcmp(chains->bases->pdata[i], path) == 0) {
            *one = chains->files->pdata[i];
            count++;
        }
    return count;
}
