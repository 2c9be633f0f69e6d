// SPDX-License-Identifier: GPL-2.0-or-later
#include "disks/lock.h"

#include <errno.h>
#include <fcntl.h>

// A holder marks byte USES + n for each right it uses and byte DENIES + n for each that it lets nobody else use.
enum { LOCK_USES = 100, LOCK_DENIES = 200 };
enum { RIGHT_READ = 1 << 0, RIGHT_WRITE = 1 << 1, RIGHT_RESIZE = 1 << 3 };
#define RIGHT_COUNT 4

static int mark(int fd, uint64_t byte)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

void file_share(struct file *file)
{
    for (unsigned i = 0; i < RIGHT_COUNT; i++) {
        struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = LOCK_USES + i, .l_len = 1};
        if ((RIGHT_WRITE | RIGHT_RESIZE) >> i & 1)
            fcntl(file->fd, F_OFD_SETLK, &lock);
    }
}

static bool marked_by_other(int fd, uint64_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool file_lock(struct file *file, GError **error)
{
    unsigned uses = RIGHT_READ | (file->writable ? RIGHT_WRITE | RIGHT_RESIZE : 0);
    unsigned denies = RIGHT_WRITE | RIGHT_RESIZE;
    // Mark first, look afterwards: of two at the same moment at least one sees the other.
    for (unsigned i = 0; i < RIGHT_COUNT; i++) {
        int rc = uses >> i & 1 ? mark(file->fd, LOCK_USES + i) : 0;
        if (!rc && denies >> i & 1)
            rc = mark(file->fd, LOCK_DENIES + i);
        if (rc) {
            log_warning("disks", "%s: the host cannot lock this file (%s), a second writer would not be noticed",
                        file->path, g_strerror(-rc));
            return true;
        }
    }
    for (unsigned i = 0; i < RIGHT_COUNT; i++) {
        bool refused = uses >> i & 1 && marked_by_other(file->fd, LOCK_DENIES + i);
        if (refused || (denies >> i & 1 && marked_by_other(file->fd, LOCK_USES + i))) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                        file->writable
                            ? "%s is in use by another program, so it cannot be opened for writing: close that "
                              "program or shut that machine down first"
                            : "%s is being written by another program: close that program or shut that "
                              "machine down first",
                        file->path);
            return false;
        }
    }
    return true;
}
