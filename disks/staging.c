// SPDX-License-Identifier: GPL-2.0-or-later
#include "disks/staging.h"
#include "disks/driver.h"
#include "disks/info.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

char *image_data_path(const char *path)
{
    g_autofree char *stem = g_str_has_suffix(path, ".vmdk") ? g_strndup(path, strlen(path) - 5) : g_strdup(path);
    return g_strconcat(stem, "-flat.vmdk", NULL);
}

void image_remove(const char *path)
{
    g_autofree char *data = image_data_path(path);
    g_unlink(path);
    g_unlink(data);
}

int sync_folder_of(const char *path)
{
    g_autofree char *folder = g_path_get_dirname(path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

// The data file that goes with the image at PATH when that is replaced.
static char *find_old_data(const char *path)
{
    struct disk_info *info = disk_info(path, NULL, NULL);
    bool flat = info && g_strcmp0(info->variant, "monolithicFlat") == 0;
    disk_info_free(info);
    return flat ? image_data_path(path) : NULL;
}

static bool hold_old(struct staging *s, GError **error)
{
    if (s->mode == STAGING_NEW) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS,
                    "%s exists already: choose another name, or ask for it to be replaced", s->path);
        return false;
    }
    if (s->mode == STAGING_REPLACE && !(s->old = file_open(s->path, FILE_OPEN_WRITABLE, NULL, error)))
        return false;
    if (s->old && !s->old->regular) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "%s is a device, which cannot be replaced", s->path);
        return false;
    }
    s->old_data = find_old_data(s->path);
    return true;
}

static void clear(struct staging *s)
{
    file_close(s->old);
    g_free(s->old_data);
    g_free(s->path);
    g_free(s->fresh);
    *s = (struct staging){0};
}

bool staging_begin(struct staging *s, const char *path, enum staging_mode mode, GError **error)
{
    *s = (struct staging){.path = g_strdup(path), .mode = mode};
    s->fresh = g_strdup_printf("%s.new-%08x", path, g_random_int());
    if (!g_file_test(path, G_FILE_TEST_EXISTS) || hold_old(s, error))
        return true;
    clear(s);
    return false;
}

static int move(const struct staging *s, const char *from, const char *to)
{
    unsigned flags = s->mode == STAGING_NEW ? RENAME_NOREPLACE : 0;
    int rc = renameat2(AT_FDCWD, from, AT_FDCWD, to, flags) < 0 ? -errno : 0;
    if (rc == -EINVAL && flags) // a file system that knows plain renames only
        rc = g_file_test(to, G_FILE_TEST_EXISTS) ? -EEXIST : g_rename(from, to) < 0 ? -errno : 0;
    return rc;
}

// The data file MADE gets its name DATA, also in the descriptor.
static int move_data(const struct staging *s, const char *made, const char *data)
{
    g_autofree char *text = NULL, *was = g_path_get_basename(made), *will = g_path_get_basename(data);
    if (!g_file_get_contents(s->fresh, &text, NULL, NULL))
        return -EIO;
    GString *descriptor = g_string_new(text);
    g_string_replace(descriptor, was, will, 1);
    bool ok =
        g_file_set_contents_full(s->fresh, descriptor->str, descriptor->len, G_FILE_SET_CONTENTS_DURABLE, 0644, NULL);
    g_string_free(descriptor, TRUE);
    return ok ? move(s, made, data) : -EIO;
}

static bool put_in_place(struct staging *s, GError **error)
{
    g_autofree char *made = image_data_path(s->fresh), *data = image_data_path(s->path);
    bool flat = g_file_test(made, G_FILE_TEST_EXISTS);
    int rc = flat ? move_data(s, made, data) : 0;
    const char *failed = rc ? data : s->path;
    if (!rc)
        rc = move(s, s->fresh, s->path);
    if (rc) {
        g_set_error(error, CLOCHE_ERROR, rc == -EEXIST ? CLOCHE_ERROR_EXISTS : CLOCHE_ERROR_FAILED,
                    "Cannot create %s: %s", failed, g_strerror(-rc));
        return false;
    }
    if (s->old_data && !flat)
        g_unlink(s->old_data);
    if (sync_folder_of(s->path))
        log_warning("disks", "%s: its folder could not be synced", s->path);
    return true;
}

// Nobody who asked for PATH knows the name FRESH.
static void name_path(const struct staging *s, GError *error)
{
    GString *text = g_string_new(error->message);
    g_string_replace(text, s->fresh, s->path, 0);
    g_free(error->message);
    error->message = g_string_free(text, FALSE);
}

bool staging_end(struct staging *s, bool ok, GError **error)
{
    ok = ok && put_in_place(s, error);
    if (!ok)
        image_remove(s->fresh);
    if (!ok && error && *error)
        name_path(s, *error);
    clear(s);
    return ok;
}
