// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/config/medium.h"
#include "core/config/host.h"

#include <osinfo/osinfo.h>
#include <string.h>

// The database is the same for all callers and never changes once loaded.
static OsinfoDb *database(void)
{
    static gsize once;
    static OsinfoDb *db;
    if (g_once_init_enter(&once)) {
        g_autoptr(GError) error = NULL;
        OsinfoLoader *loader = osinfo_loader_new();
        osinfo_loader_process_default_path(loader, &error);
        if (error)
            log_warning("medium", "The database of operating systems is incomplete: %s", error->message);
        db = g_object_ref(osinfo_loader_get_db(loader));
        g_object_unref(loader);
        g_once_init_leave(&once, 1);
    }
    return db;
}

static bool is_local_time(OsinfoOs *os)
{
    const char *family = osinfo_os_get_family(os);
    return family && (strcmp(family, "winnt") == 0 || strcmp(family, "win9x") == 0 || strcmp(family, "win16") == 0 ||
                      strcmp(family, "dos") == 0);
}

static void take_resources(struct medium *medium, OsinfoOs *os)
{
    OsinfoResourcesList *list = osinfo_os_get_recommended_resources(os);
    for (int i = 0; i < osinfo_list_get_length(OSINFO_LIST(list)); i++) {
        OsinfoResources *resources = OSINFO_RESOURCES(osinfo_list_get_nth(OSINFO_LIST(list), i));
        const char *architecture = osinfo_resources_get_architecture(resources);
        if (strcmp(architecture, "x86_64") != 0 && strcmp(architecture, "all") != 0)
            continue;
        if (osinfo_resources_get_ram(resources) > 0)
            medium->memory = osinfo_resources_get_ram(resources);
        if (osinfo_resources_get_storage(resources) > 0)
            medium->disk = osinfo_resources_get_storage(resources);
        if (osinfo_resources_get_n_cpus(resources) > 0)
            medium->cpus = osinfo_resources_get_n_cpus(resources);
    }
    g_object_unref(list);
}

static struct medium *medium_defaults(void)
{
    struct medium *medium = g_new0(struct medium, 1);
    medium->memory = 2 * GiB;
    medium->disk = 30 * GiB;
    medium->cpus = 2;
    return medium;
}

static void apply_os(struct medium *medium, OsinfoOs *os)
{
    medium->os_id = g_strdup(osinfo_entity_get_id(OSINFO_ENTITY(os)));
    medium->os_name = g_strdup(osinfo_product_get_name(OSINFO_PRODUCT(os)));
    medium->local_time = is_local_time(os);
    take_resources(medium, os);
}

// A recommendation must leave the host alive.
static void cap_to_host(struct medium *medium)
{
    struct host_defaults host = host_defaults();
    medium->memory = CLAMP(ALIGN_DOWN(medium->memory, MiB), 64 * MiB, MAX(host.memory, 256 * MiB));
    medium->cpus = CLAMP(medium->cpus, 1, MAX(host.cpus, 1));
}

struct medium *medium_for_os(const char *os_id)
{
    struct medium *medium = medium_defaults();
    OsinfoOs *os = os_id && os_id[0] ? osinfo_db_get_os(database(), os_id) : NULL;
    if (os)
        apply_os(medium, os);
    cap_to_host(medium);
    return medium;
}

struct medium *medium_recognise(const char *path, GError **error)
{
    if (!g_file_test(path, G_FILE_TEST_EXISTS)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "There is no file %s; choose an ISO image", path);
        return NULL;
    }
    g_autofree char *absolute = g_canonicalize_filename(path, NULL);
    struct medium *medium = medium_defaults();
    g_autoptr(GError) local = NULL;
    OsinfoMedia *media = osinfo_media_create_from_location(absolute, NULL, &local);
    if (media) {
        medium->bootable = true;
        medium->volume = g_strdup(osinfo_media_get_volume_id(media));
        osinfo_db_identify_media(database(), media);
        OsinfoOs *os = osinfo_media_get_os(media);
        if (os) {
            apply_os(medium, os);
            g_object_unref(os);
        }
        g_object_unref(media);
    } else {
        log_info("medium", "%s: %s", path, local->message);
    }
    cap_to_host(medium);
    return medium;
}

static int by_name(const void *a, const void *b)
{
    const struct known_system *const *first = a, *const *second = b;
    return g_utf8_collate((*first)->name, (*second)->name);
}

static GPtrArray *list_systems(void)
{
    GPtrArray *systems = g_ptr_array_new();
    OsinfoOsList *list = osinfo_db_get_os_list(database());
    for (int i = 0; i < osinfo_list_get_length(OSINFO_LIST(list)); i++) {
        OsinfoEntity *os = osinfo_list_get_nth(OSINFO_LIST(list), i);
        const char *name = osinfo_product_get_name(OSINFO_PRODUCT(os));
        if (!name)
            continue;
        struct known_system *system = g_new(struct known_system, 1);
        *system = (struct known_system){g_strdup(osinfo_entity_get_id(os)), g_strdup(name)};
        g_ptr_array_add(systems, system);
    }
    g_object_unref(list);
    g_ptr_array_sort(systems, by_name);
    return systems;
}

const GPtrArray *medium_systems(void)
{
    static gsize once;
    static GPtrArray *systems;
    if (g_once_init_enter(&once)) {
        systems = list_systems();
        g_once_init_leave(&once, 1);
    }
    return systems;
}

void medium_free(struct medium *medium)
{
    if (!medium)
        return;
    g_free(medium->os_id);
    g_free(medium->os_name);
    g_free(medium->volume);
    g_free(medium);
}
