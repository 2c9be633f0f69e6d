// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static bool fail(GError **error, const char *what, const char *path)
{
    int code = errno;
    if (code == ENOSPC || code == EDQUOT)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NO_SPACE,
                    "Cannot %s %s: the host's disk is full; free some space", what, path);
    else if (code == ENOENT)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "Cannot %s %s: there is no such file or folder", what,
                    path);
    else
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot %s %s: %s", what, path, g_strerror(code));
    return false;
}

bool host_file_read(const char *path, size_t most, char **data, size_t *length, GError **error)
{
    // O_NONBLOCK: a FIFO in a definition's place must not hang us.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0)
        return fail(error, "read", path);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size > most) {
        close(fd);
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "Cannot read %s: it is no regular file of at most %zu bytes", path, most);
        return false;
    }
    g_autofree char *buffer = g_malloc(st.st_size + 1);
    size_t done = 0;
    while (done < (size_t)st.st_size) {
        ssize_t n = read(fd, buffer + done, st.st_size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            fail(error, "read", path);
            close(fd);
            return false;
        }
        if (n == 0)
            break;
        done += n;
    }
    close(fd);
    buffer[done] = 0;
    *data = g_steal_pointer(&buffer);
    *length = done;
    return true;
}

bool host_folder_sync(const char *folder, GError **error)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail(error, "open the folder", folder);
    // Some file systems cannot sync a folder (EINVAL); there a rename is as durable as it gets.
    bool ok = fsync(fd) == 0 || errno == EINVAL || fail(error, "sync the folder", folder);
    close(fd);
    return ok;
}

static bool write_all(int fd, const char *data, size_t length)
{
    while (length) {
        ssize_t n = write(fd, data, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        length -= n;
    }
    return true;
}

bool host_file_write(const char *path, const void *data, size_t length, unsigned mode, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(path);
    g_autofree char *temporary = g_strdup_printf("%s.XXXXXX", path);
    struct stat st;
    if (stat(path, &st) == 0)
        mode = st.st_mode & 0777;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return fail(error, "create a file in", folder);
    bool ok = write_all(fd, data, length) && fchmod(fd, mode) == 0 && fsync(fd) == 0;
    if (!ok)
        fail(error, "write", path);
    close(fd);
    if (ok && rename(temporary, path) != 0)
        ok = fail(error, "replace", path);
    if (!ok) {
        unlink(temporary);
        return false;
    }
    return host_folder_sync(folder, error);
}

int host_file_lock(const char *path, bool exclusive, unsigned wait_ms, const char *what, GError **error)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        fail(error, "open the lock file", path);
        return -1;
    }
    // Open-file-description locks: they belong to this descriptor, survive fork, and vanish with the process.
    struct flock lock = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    for (;;) {
        if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
            return fd;
        if ((errno != EAGAIN && errno != EACCES) || wait_ms == 0)
            break;
        unsigned step = MIN(wait_ms, 20);
        g_usleep(step * 1000);
        wait_ms -= step;
    }
    if (errno == EAGAIN || errno == EACCES)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "%s is in use by another program; wait until it is done",
                    what);
    else
        fail(error, "lock", path);
    close(fd);
    return -1;
}

bool host_folder_remove(const char *folder, GError **error)
{
    struct stat st;
    if (lstat(folder, &st))
        return errno == ENOENT || fail(error, "remove", folder);
    if (!S_ISDIR(st.st_mode))
        return unlink(folder) == 0 || fail(error, "remove", folder);
    GDir *dir = g_dir_open(folder, 0, error);
    if (!dir)
        return false;
    bool ok = true;
    const char *name;
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        ok = host_folder_remove(path, ok ? error : NULL) && ok;
    }
    g_dir_close(dir);
    if (rmdir(folder) == 0)
        return ok;
    return ok ? fail(error, "remove", folder) : false;
}
