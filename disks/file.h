// SPDX-License-Identifier: GPL-2.0-or-later
// A file of the host under a disk: every access of the disk library goes through here, so that tests can record it and
// make it fail. Blocking calls return 0 or a negative errno.
#ifndef CLOCHE_DISKS_FILE_H
#define CLOCHE_DISKS_FILE_H

#include "core/base/base.h"
#include <sys/uio.h>

enum file_op { FILE_READ, FILE_WRITE, FILE_SYNC, FILE_ALLOCATE, FILE_TRUNCATE, FILE_PUNCH, FILE_EXTEND };

// Test hooks. BEFORE may return a negative errno, which the access then fails with (FILE_ALLOCATE: a write that makes
// the file longer). AFTER sees what was done. Any thread. A file with hooks does no asynchronous I/O of the kernel's.
struct file_hooks {
    int (*before)(struct file_hooks *hooks, enum file_op op, uint64_t offset, uint64_t length);
    void (*after)(struct file_hooks *hooks, enum file_op op, uint64_t offset, uint64_t length, const struct iovec *iov,
                  unsigned iov_count);
};

// Threads: immutable after opening, except END.
struct file {
    char *path;
    int fd;
    int direct_fd;      // O_DIRECT, or -1
    unsigned alignment; // of direct I/O
    bool writable;
    bool regular; // not a block device
    struct file_hooks *hooks;
    _Atomic uint64_t end; // bytes in the file
};

enum file_open_flag {
    FILE_OPEN_WRITABLE = 1 << 0,
    FILE_OPEN_DIRECT = 1 << 1,
    FILE_OPEN_CREATE = 1 << 2, // fails where the file exists
    FILE_OPEN_NO_LOCK = 1 << 3,
};

// Takes the lock (see file_lock()). The caller owns the result.
struct file *file_open(const char *path, unsigned flags, struct file_hooks *hooks, GError **error);
void file_close(struct file *file);

// A file that shows the lower of what it has and zeroes past its end.
int file_read(struct file *file, uint64_t offset, void *data, uint64_t length);
int file_write(struct file *file, uint64_t offset, const void *data, uint64_t length);
int file_readv(struct file *file, uint64_t offset, const struct iovec *iov, unsigned iov_count);
int file_writev(struct file *file, uint64_t offset, const struct iovec *iov, unsigned iov_count);
int file_sync(struct file *file);
int file_truncate(struct file *file, uint64_t size); // alone with the file: see file_extend()
// Makes the file END bytes long where it is shorter; what is added reads as zeroes. Nobody may write past the present
// end meanwhile: the caller gives out no place there before this has returned.
int file_extend(struct file *file, uint64_t end);
// Reads as zeroes afterwards and takes no space, where the host can; else zeroes are written.
int file_punch(struct file *file, uint64_t offset, uint64_t length);
// Reads as zeroes afterwards and keeps its space.
int file_zero(struct file *file, uint64_t offset, uint64_t length);
// Gives the space back and reads as zeroes afterwards; on error (the host cannot) its contents are undefined.
int file_discard(struct file *file, uint64_t offset, uint64_t length);
int file_allocate(struct file *file, uint64_t offset, uint64_t length);
// Is the byte at OFFSET in a hole, and how many bytes from there on are alike (at most LENGTH)?
bool file_is_hole(struct file *file, uint64_t offset, uint64_t length, uint64_t *alike);
uint64_t file_size(struct file *file);
uint64_t file_allocated(struct file *file); // bytes on the host's disk

// ---- Vectors ----
uint64_t iov_length(const struct iovec *iov, unsigned count);
// Writes the part [SKIP, SKIP + LENGTH) of IOV to OUT, which has room for COUNT; returns how many it used.
unsigned iov_slice(struct iovec *out, const struct iovec *iov, unsigned count, uint64_t skip, uint64_t length);
void iov_zero(const struct iovec *iov, unsigned count, uint64_t skip, uint64_t length);
void iov_to_buffer(const struct iovec *iov, unsigned count, uint64_t skip, void *buffer, uint64_t length);
void iov_from_buffer(const struct iovec *iov, unsigned count, uint64_t skip, const void *buffer, uint64_t length);
bool buffer_is_zero(const void *buffer, size_t length);

#endif
