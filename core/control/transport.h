// SPDX-License-Identifier: GPL-2.0-or-later
// UNIX stream sockets that carry descriptors beside bytes (GIO's streams drop them).
#ifndef CLOCHE_TRANSPORT_H
#define CLOCHE_TRANSPORT_H

#include "core/base/base.h"
#include <sys/types.h>

#define TRANSPORT_MAX_FDS 4

// A listening non-blocking socket at PATH, mode 0600. A dead socket file is replaced; a live one is CLOCHE_ERROR_BUSY.
int transport_listen(const char *path, GError **error);
// Connected, non-blocking. CLOCHE_ERROR_NOT_FOUND when nobody listens.
int transport_connect(const char *path, GError **error);
// As send()/recv() without blocking: bytes or -1 with errno (EINTR is retried).
ssize_t transport_send(int fd, const void *data, size_t length, const int *fds, unsigned fd_count);
// FDS has room for TRANSPORT_MAX_FDS; they are close-on-exec and the caller's.
ssize_t transport_receive(int fd, void *data, size_t length, int *fds, unsigned *fd_count);

#endif
