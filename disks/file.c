// SPDX-License-Identifier: GPL-2.0-or-later
#include "disks/file.h"
#include "disks/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static int hook_before(struct file *file, enum file_op op, uint64_t offset, uint64_t length)
{
    if (!file->hooks)
        return 0;
    if (op == FILE_WRITE && offset + length > file->end) {
        int rc = file->hooks->before(file->hooks, FILE_ALLOCATE, offset, length);
        if (rc)
            return rc;
    }
    return file->hooks->before(file->hooks, op, offset, length);
}

static void hook_after(struct file *file, enum file_op op, uint64_t offset, uint64_t length, const struct iovec *iov,
                       unsigned iov_count)
{
    if (file->hooks && file->hooks->after)
        file->hooks->after(file->hooks, op, offset, length, iov, iov_count);
}

static void grow_end(struct file *file, uint64_t end)
{
    uint64_t now = file->end;
    while (end > now && !atomic_compare_exchange_weak(&file->end, &now, end))
        ;
}

// The same file again for direct I/O. -1 where the file system has none (tmpfs): the caller says so.
static int open_direct(const char *path, bool writable)
{
    return open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_DIRECT);
}

static bool find_size(struct file *file, GError **error)
{
    struct stat st;
    if (fstat(file->fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))) {
        file->regular = S_ISREG(st.st_mode);
        off_t end = file->regular ? st.st_size : lseek(file->fd, 0, SEEK_END);
        file->end = end < 0 ? 0 : end;
        return true;
    }
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                "%s is neither a file nor a block device: give the path of a disk image", file->path);
    return false;
}

static void set_open_error(GError **error, const char *path, bool writable, bool create)
{
    int e = errno;
    enum cloche_error code = e == ENOENT   ? CLOCHE_ERROR_NOT_FOUND
                             : e == EEXIST ? CLOCHE_ERROR_EXISTS
                             : e == ENOSPC ? CLOCHE_ERROR_NO_SPACE
                                           : CLOCHE_ERROR_FAILED;
    g_set_error(error, CLOCHE_ERROR, code, "Cannot %s %s%s: %s", create ? "create" : "open", path,
                writable && !create ? " for writing" : "", g_strerror(e));
}

struct file *file_open(const char *path, unsigned flags, struct file_hooks *hooks, GError **error)
{
    bool writable = flags & (FILE_OPEN_WRITABLE | FILE_OPEN_CREATE), create = flags & FILE_OPEN_CREATE;
    int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0644);
    if (fd < 0) {
        set_open_error(error, path, writable, create);
        return NULL;
    }
    struct file *file = g_new0(struct file, 1);
    *file = (struct file){
        .path = g_strdup(path), .fd = fd, .direct_fd = -1, .alignment = 4096, .writable = writable, .hooks = hooks};
    if (!find_size(file, error) || (!(flags & FILE_OPEN_NO_LOCK) && !file_lock(file, error))) {
        file_close(file);
        return NULL;
    }
    if (flags & FILE_OPEN_DIRECT && !hooks) {
        file->direct_fd = open_direct(path, writable);
        if (file->direct_fd < 0)
            log_warning("disks", "%s: the host has no direct I/O here, the page cache is used", path);
    }
    return file;
}

void file_close(struct file *file)
{
    if (!file)
        return;
    if (file->direct_fd >= 0)
        close(file->direct_fd);
    close(file->fd);
    g_free(file->path);
    g_free(file);
}

// Moves the vector *IOV on by DONE bytes; the first element is edited in place.
static void iov_advance(struct iovec **iov, unsigned *count, size_t done)
{
    while (*count && done >= (*iov)->iov_len) {
        done -= (*iov)->iov_len;
        (*iov)++;
        (*count)--;
    }
    if (*count) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + done;
        (*iov)->iov_len -= done;
    }
}

static bool is_aligned(const struct file *file, uint64_t offset, const struct iovec *iov, unsigned count)
{
    uint64_t bits = offset;
    for (unsigned i = 0; i < count; i++)
        bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
    return bits % file->alignment == 0;
}

static int transfer(struct file *file, bool write, uint64_t offset, const struct iovec *vector, unsigned count)
{
    g_autofree struct iovec *copy = g_memdup2(vector, count * sizeof *vector);
    struct iovec *iov = copy;
    int fd = file->direct_fd >= 0 && is_aligned(file, offset, iov, count) ? file->direct_fd : file->fd;
    while (count) {
        int now = MIN(count, IOV_MAX);
        ssize_t n = write ? pwritev(fd, iov, now, offset) : preadv(fd, iov, now, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EINVAL && fd == file->direct_fd) {
            fd = file->fd;
            continue;
        }
        if (n < 0)
            return -errno;
        if (n == 0 && write && iov_length(iov, count))
            return -EIO;
        if (n == 0) { // the end of the file
            iov_zero(iov, count, 0, iov_length(iov, count));
            return 0;
        }
        offset += n;
        iov_advance(&iov, &count, n);
    }
    return 0;
}

int file_readv(struct file *file, uint64_t offset, const struct iovec *iov, unsigned iov_count)
{
    uint64_t length = iov_length(iov, iov_count);
    if (offset > INT64_MAX - length)
        return -EIO;
    int rc = hook_before(file, FILE_READ, offset, length);
    return rc ? rc : transfer(file, false, offset, iov, iov_count);
}

int file_writev(struct file *file, uint64_t offset, const struct iovec *iov, unsigned iov_count)
{
    uint64_t length = iov_length(iov, iov_count);
    if (offset > INT64_MAX - length)
        return -EFBIG;
    int rc = hook_before(file, FILE_WRITE, offset, length);
    if (rc)
        return rc;
    rc = transfer(file, true, offset, iov, iov_count);
    if (!rc) {
        grow_end(file, offset + length);
        hook_after(file, FILE_WRITE, offset, length, iov, iov_count);
    }
    return rc;
}

int file_read(struct file *file, uint64_t offset, void *data, uint64_t length)
{
    return file_readv(file, offset, &(struct iovec){data, length}, 1);
}

int file_write(struct file *file, uint64_t offset, const void *data, uint64_t length)
{
    return file_writev(file, offset, &(struct iovec){(void *)data, length}, 1);
}

int file_sync(struct file *file)
{
    int rc = hook_before(file, FILE_SYNC, 0, 0);
    if (rc)
        return rc;
    if (fdatasync(file->fd) < 0)
        return -errno;
    hook_after(file, FILE_SYNC, 0, 0, NULL, 0);
    return 0;
}

int file_truncate(struct file *file, uint64_t size)
{
    int rc = hook_before(file, FILE_TRUNCATE, size, 0);
    if (rc)
        return rc;
    if (ftruncate(file->fd, size) < 0)
        return -errno;
    file->end = size;
    hook_after(file, FILE_TRUNCATE, size, 0, NULL, 0);
    return 0;
}

int file_extend(struct file *file, uint64_t end)
{
    if (!file->regular || end <= file->end)
        return 0;
    int rc = hook_before(file, FILE_EXTEND, end, 0);
    if (rc)
        return rc;
    if (ftruncate(file->fd, end) < 0)
        return -errno;
    grow_end(file, end);
    hook_after(file, FILE_EXTEND, end, 0, NULL, 0);
    return 0;
}

static int write_zeroes(struct file *file, uint64_t offset, uint64_t length)
{
    uint64_t chunk = MIN(length, MiB);
    g_autofree void *zeroes = g_malloc0(chunk);
    int rc = 0;
    for (uint64_t done = 0; done < length && !rc; done += chunk)
        rc = file_write(file, offset + done, zeroes, MIN(chunk, length - done));
    return rc;
}

static int try_fallocate(struct file *file, int mode, enum file_op op, uint64_t offset, uint64_t length)
{
    int rc = hook_before(file, op, offset, length);
    if (rc)
        return rc;
    do
        rc = fallocate(file->fd, mode, offset, length) < 0 ? -errno : 0;
    while (rc == -EINTR);
    if (!rc)
        hook_after(file, op, offset, length, NULL, 0);
    return rc;
}

static bool not_supported(int rc)
{
    return rc == -EOPNOTSUPP || rc == -ENOSYS || rc == -EINVAL || rc == -ENODEV;
}

int file_punch(struct file *file, uint64_t offset, uint64_t length)
{
    if (!length)
        return 0;
    int rc = try_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FILE_PUNCH, offset, length);
    return not_supported(rc) ? write_zeroes(file, offset, length) : rc;
}

int file_zero(struct file *file, uint64_t offset, uint64_t length)
{
    if (!length)
        return 0;
    if (file->hooks)
        return write_zeroes(file, offset, length);
    int rc = try_fallocate(file, FALLOC_FL_ZERO_RANGE, FILE_WRITE, offset, length);
    if (rc == 0)
        grow_end(file, offset + length);
    return not_supported(rc) ? write_zeroes(file, offset, length) : rc;
}

int file_discard(struct file *file, uint64_t offset, uint64_t length)
{
    if (!length)
        return 0;
    return try_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FILE_PUNCH, offset, length);
}

int file_allocate(struct file *file, uint64_t offset, uint64_t length)
{
    int rc = try_fallocate(file, 0, FILE_ALLOCATE, offset, length);
    if (rc == 0)
        grow_end(file, offset + length);
    return rc;
}

bool file_is_hole(struct file *file, uint64_t offset, uint64_t length, uint64_t *alike)
{
    *alike = length;
    off_t data = lseek(file->fd, offset, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO; // past the end, or a hole up to the end
    if ((uint64_t)data > offset) {
        *alike = MIN(length, data - offset);
        return true;
    }
    off_t hole = lseek(file->fd, offset, SEEK_HOLE);
    if (hole >= 0 && (uint64_t)hole > offset)
        *alike = MIN(length, hole - offset);
    return false;
}

uint64_t file_size(struct file *file)
{
    return file->end;
}

uint64_t file_allocated(struct file *file)
{
    struct stat st;
    return fstat(file->fd, &st) == 0 ? st.st_blocks * 512ull : 0;
}
