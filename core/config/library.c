// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/config/library.h"
#include "core/base/file.h"

#include <errno.h>
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>

#define LIBRARY_MAX_MACHINES 4096 // a folder of something else must not keep us busy for ever
#define WATCH_DELAY_MS       100

struct library {
    char *main_folder;
    char *settings;       // library.conf
    GPtrArray *folders;   // char *, NULL-terminated
    GPtrArray *entries;   // struct machine_entry *
    GHashTable *monitors; // folder path -> GFileMonitor
    char *fingerprint;    // of what the last scan found
    void (*changed)(void *opaque, struct library *library);
    void *opaque;
    GSource *delay;
};

static void library_update_monitors(struct library *library);

static void entry_free(struct machine_entry *entry)
{
    g_free(entry->folder);
    g_free(entry->name);
    g_free(entry->uuid);
    g_free(entry->damage);
    config_free(entry->config);
    g_free(entry);
}

// ---- Opening and the list of folders ----

static void load_folders(struct library *library)
{
    g_ptr_array_set_size(library->folders, 0);
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GError) error = NULL;
    if (g_file_test(library->settings, G_FILE_TEST_EXISTS) &&
        !g_key_file_load_from_file(file, library->settings, G_KEY_FILE_NONE, &error))
        log_warning("library", "%s is not readable, its folders are left out: %s", library->settings, error->message);
    g_auto(GStrv) list = g_key_file_get_string_list(file, "Library", "folders", NULL, NULL);
    for (char **folder = list; folder && *folder; folder++)
        if (g_path_is_absolute(*folder))
            g_ptr_array_add(library->folders, g_strdup(*folder));
    g_ptr_array_add(library->folders, NULL);
}

struct library *library_open(GError **error)
{
    const char *given = g_getenv("CLOCHE_LIBRARY");
    g_autofree char *folder = given && given[0] ? g_canonicalize_filename(given, NULL)
                                                : g_build_filename(g_get_user_data_dir(), "cloche", "machines", NULL);
    if (g_mkdir_with_parents(folder, 0700) != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot create the library folder %s: %s", folder,
                    g_strerror(errno));
        return NULL;
    }
    struct library *library = g_new0(struct library, 1);
    library->main_folder = g_steal_pointer(&folder);
    library->settings = given && given[0] ? g_build_filename(library->main_folder, ".library.conf", NULL)
                                          : g_build_filename(g_get_user_config_dir(), "cloche", "library.conf", NULL);
    library->folders = g_ptr_array_new_with_free_func(g_free);
    library->entries = g_ptr_array_new_with_free_func((GDestroyNotify)entry_free);
    load_folders(library);
    library_scan(library);
    return library;
}

void library_close(struct library *library)
{
    if (!library)
        return;
    if (library->delay) {
        g_source_destroy(library->delay);
        g_source_unref(library->delay);
    }
    if (library->monitors)
        g_hash_table_destroy(library->monitors);
    g_ptr_array_free(library->entries, TRUE);
    g_ptr_array_free(library->folders, TRUE);
    g_free(library->fingerprint);
    g_free(library->main_folder);
    g_free(library->settings);
    g_free(library);
}

const char *library_main_folder(struct library *library)
{
    return library->main_folder;
}

const char *const *library_folders(struct library *library)
{
    return (const char *const *)library->folders->pdata;
}

static bool save_folders(struct library *library, GError **error)
{
    g_autofree char *parent = g_path_get_dirname(library->settings);
    g_mkdir_with_parents(parent, 0700);
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_key_file_load_from_file(file, library->settings, G_KEY_FILE_KEEP_COMMENTS, NULL);
    g_key_file_set_string_list(file, "Library", "folders", library_folders(library), library->folders->len - 1);
    size_t length;
    g_autofree char *text = g_key_file_to_data(file, &length, NULL);
    if (!host_file_write(library->settings, text, length, 0600, error))
        return false;
    library_scan(library);
    library_update_monitors(library);
    return true;
}

bool library_add_folder(struct library *library, const char *folder, GError **error)
{
    g_autofree char *path = g_canonicalize_filename(folder, NULL);
    if (!g_file_test(path, G_FILE_TEST_IS_DIR)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "%s is no folder; give one that holds machines", path);
        return false;
    }
    load_folders(library); // another program may have added some
    if (strcmp(path, library->main_folder) == 0 || g_strv_contains(library_folders(library), path))
        return true;
    g_ptr_array_insert(library->folders, library->folders->len - 1, g_steal_pointer(&path));
    return save_folders(library, error);
}

bool library_remove_folder(struct library *library, const char *folder, GError **error)
{
    g_autofree char *path = g_canonicalize_filename(folder, NULL);
    load_folders(library);
    for (unsigned i = 0; i + 1 < library->folders->len; i++)
        if (strcmp(library->folders->pdata[i], path) == 0) {
            g_ptr_array_remove_index(library->folders, i);
            return save_folders(library, error);
        }
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "%s is not among the library's further folders", path);
    return false;
}

// ---- Scanning ----

static struct machine_entry *scan_machine(const char *folder)
{
    struct machine_entry *entry = g_new0(struct machine_entry, 1);
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL);
    entry->folder = g_strdup(folder);
    entry->config = config_load(path, &error);
    if (entry->config) {
        entry->name = config_get(entry->config, "Machine", "name");
        entry->uuid = config_get(entry->config, "Machine", "uuid");
        entry->template_ = config_get_bool(entry->config, "Machine", "template");
        if (!entry->uuid[0])
            entry->damage = g_strdup_printf("%s has no UUID; add one: uuid=... in group [Machine]", path);
    } else {
        entry->damage = g_strdup(error->message);
    }
    if (!entry->name || !entry->name[0]) {
        g_free(entry->name);
        entry->name = g_path_get_basename(folder);
    }
    return entry;
}

static void add_entry(struct library *library, struct machine_entry *entry)
{
    for (unsigned i = 0; entry->uuid && i < library->entries->len; i++) {
        const struct machine_entry *other = library->entries->pdata[i];
        if (other->uuid && other->uuid[0] && strcmp(other->uuid, entry->uuid) == 0 && !entry->damage)
            entry->damage =
                g_strdup_printf("It has the same UUID as %s: a copy made by hand; remove one of them or give it "
                                "a UUID of its own",
                                other->folder);
    }
    if (entry->damage) {
        g_clear_pointer(&entry->uuid, g_free);
        g_clear_pointer(&entry->config, config_free);
    }
    g_ptr_array_add(library->entries, entry);
}

static bool is_machine_folder(const char *folder)
{
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL);
    return g_file_test(path, G_FILE_TEST_EXISTS);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void scan_folder(struct library *library, const char *folder)
{
    if (is_machine_folder(folder)) {
        add_entry(library, scan_machine(folder));
        return;
    }
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    GDir *dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir)) && names->len < LIBRARY_MAX_MACHINES)
        if (name[0] != '.')
            g_ptr_array_add(names, g_strdup(name));
    if (dir)
        g_dir_close(dir);
    g_ptr_array_sort(names, compare_names);
    for (unsigned i = 0; i < names->len; i++) {
        g_autofree char *path = g_build_filename(folder, names->pdata[i], NULL);
        if (is_machine_folder(path))
            add_entry(library, scan_machine(path));
    }
}

static int compare_entries(const void *a, const void *b)
{
    const struct machine_entry *x = *(struct machine_entry *const *)a, *y = *(struct machine_entry *const *)b;
    int order = g_utf8_collate(x->name, y->name);
    return order ? order : strcmp(x->folder, y->folder);
}

bool library_scan(struct library *library)
{
    g_ptr_array_set_size(library->entries, 0);
    scan_folder(library, library->main_folder);
    for (const char *const *folder = library_folders(library); *folder; folder++)
        scan_folder(library, *folder);
    g_ptr_array_sort(library->entries, compare_entries);
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    for (unsigned i = 0; i < library->entries->len; i++) {
        const struct machine_entry *entry = library->entries->pdata[i];
        g_autofree char *text = entry->config ? config_text(entry->config) : g_strdup(entry->damage);
        g_checksum_update(sum, (const guchar *)entry->folder, strlen(entry->folder) + 1);
        g_checksum_update(sum, (const guchar *)text, strlen(text) + 1);
    }
    bool changed = g_strcmp0(library->fingerprint, g_checksum_get_string(sum)) != 0;
    g_free(library->fingerprint);
    library->fingerprint = g_strdup(g_checksum_get_string(sum));
    return changed;
}

GPtrArray *library_entries(struct library *library)
{
    return library->entries;
}

struct machine_entry *library_find_uuid(struct library *library, const char *uuid)
{
    for (unsigned i = 0; i < library->entries->len; i++) {
        struct machine_entry *entry = library->entries->pdata[i];
        if (entry->uuid && g_ascii_strcasecmp(entry->uuid, uuid) == 0)
            return entry;
    }
    return NULL;
}

struct machine_entry *library_find(struct library *library, const char *name, GError **error)
{
    struct machine_entry *found = library_find_uuid(library, name);
    g_autofree char *path = strchr(name, '/') ? g_canonicalize_filename(name, NULL) : NULL;
    unsigned matches = found != NULL;
    for (unsigned i = 0; !found && i < library->entries->len; i++) {
        struct machine_entry *entry = library->entries->pdata[i];
        if (path ? strcmp(entry->folder, path) == 0 : strcmp(entry->name, name) == 0) {
            found = matches ? found : entry;
            matches++;
        }
    }
    if (matches == 1)
        return found;
    if (matches)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%u machines are called \"%s\"; name one by its folder or UUID", matches, name);
    else
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                    "There is no machine \"%s\"; `clochectl list` shows what there is", name);
    return NULL;
}

// ---- Watching ----

static gboolean rescan(gpointer data)
{
    struct library *library = data;
    g_clear_pointer(&library->delay, g_source_unref);
    load_folders(library);
    bool changed = library_scan(library);
    library_update_monitors(library);
    if (changed)
        library->changed(library->opaque, library);
    return G_SOURCE_REMOVE;
}

static void folder_changed(GFileMonitor *monitor, GFile *file, GFile *other, GFileMonitorEvent event, gpointer data)
{
    struct library *library = data;
    if (library->delay)
        return;
    library->delay = g_timeout_source_new(WATCH_DELAY_MS);
    g_source_set_callback(library->delay, rescan, library, NULL);
    g_source_attach(library->delay, g_main_context_get_thread_default());
}

static void monitor_free(gpointer data)
{
    g_file_monitor_cancel(data);
    g_object_unref(data);
}

static void keep_monitor(struct library *library, GHashTable *fresh, const char *folder)
{
    gpointer key, monitor;
    if (g_hash_table_contains(fresh, folder))
        return;
    if (g_hash_table_steal_extended(library->monitors, folder, &key, &monitor)) {
        g_hash_table_insert(fresh, key, monitor);
        return;
    }
    g_autoptr(GFile) file = g_file_new_for_path(folder);
    monitor = g_file_monitor_directory(file, G_FILE_MONITOR_WATCH_MOVES, NULL, NULL);
    if (!monitor)
        return;
    g_signal_connect(monitor, "changed", G_CALLBACK(folder_changed), library);
    g_hash_table_insert(fresh, g_strdup(folder), monitor);
}

// One monitor for each library folder and each machine's folder.
static void library_update_monitors(struct library *library)
{
    if (!library->changed)
        return;
    GHashTable *fresh = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, monitor_free);
    keep_monitor(library, fresh, library->main_folder);
    for (const char *const *folder = library_folders(library); *folder; folder++)
        keep_monitor(library, fresh, *folder);
    for (unsigned i = 0; i < library->entries->len; i++)
        keep_monitor(library, fresh, ((struct machine_entry *)library->entries->pdata[i])->folder);
    g_hash_table_destroy(library->monitors);
    library->monitors = fresh;
}

void library_watch(struct library *library, void (*changed)(void *opaque, struct library *library), void *opaque)
{
    library->changed = changed;
    library->opaque = opaque;
    if (!library->monitors)
        library->monitors = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, monitor_free);
    library_update_monitors(library);
}

// ---- Changes ----

static char *safe_folder_name(const char *name)
{
    char *safe = g_strdup(name);
    for (char *p = safe; *p; p++)
        if (*p == '/' || (unsigned char)*p < ' ')
            *p = '_';
    return safe;
}

// Creates NAME or NAME-2, NAME-3, ...
static char *create_unique_folder(const char *parent, const char *name, GError **error)
{
    g_autofree char *base = safe_folder_name(name);
    for (unsigned number = 1; number < 1000; number++) {
        g_autofree char *leaf = number == 1 ? g_strdup(base) : g_strdup_printf("%s-%u", base, number);
        g_autofree char *path = g_build_filename(parent, leaf, NULL);
        if (g_mkdir(path, 0700) == 0)
            return g_steal_pointer(&path);
        if (errno != EEXIST)
            break;
    }
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot create a folder for \"%s\" in %s: %s", name, parent,
                g_strerror(errno));
    return NULL;
}

static bool name_is_free(struct library *library, const char *name, GError **error)
{
    for (unsigned i = 0; i < library->entries->len; i++)
        if (strcmp(((struct machine_entry *)library->entries->pdata[i])->name, name) == 0) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS,
                        "There is a machine \"%s\" already; choose another name or remove that one", name);
            return false;
        }
    return true;
}

char *library_create_folder(struct library *library, const char *name, GError **error)
{
    const struct option *option = option_find("Machine", "name");
    if (!option_check(option, name, NULL, error)) {
        g_prefix_error(error, "The machine's name: ");
        return NULL;
    }
    g_autofree char *lock_path = g_build_filename(library->main_folder, ".lock", NULL);
    int lock = host_file_lock(lock_path, true, 5000, "The library", error);
    if (lock < 0)
        return NULL;
    library_scan(library);
    char *folder = name_is_free(library, name, error) ? create_unique_folder(library->main_folder, name, error) : NULL;
    g_close(lock, NULL);
    return folder;
}
