// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/control/transport.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static bool make_address(const char *path, struct sockaddr_un *address, GError **error)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address->sun_path)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "The socket path %s is longer than %zu bytes; choose a shorter folder", path,
                    sizeof(address->sun_path) - 1);
        return false;
    }
    memcpy(address->sun_path, path, strlen(path));
    return true;
}

static int new_socket(GError **error)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot create a socket: %s", g_strerror(errno));
    return fd;
}

int transport_connect(const char *path, GError **error)
{
    struct sockaddr_un address;
    if (!make_address(path, &address, error))
        return -1;
    int fd = new_socket(error);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int code = errno;
    close(fd);
    if (code == ENOENT || code == ECONNREFUSED)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "Nobody listens at %s; start the machine first", path);
    else
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot connect to %s: %s", path, g_strerror(code));
    return -1;
}

int transport_listen(const char *path, GError **error)
{
    struct sockaddr_un address;
    struct stat st;
    if (!make_address(path, &address, error))
        return -1;
    if (lstat(path, &st) == 0) {
        int peer = S_ISSOCK(st.st_mode) ? transport_connect(path, NULL) : -1;
        if (peer >= 0 || !S_ISSOCK(st.st_mode)) {
            if (peer >= 0)
                close(peer);
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "%s is in use; choose another control socket", path);
            return -1;
        }
        unlink(path);
    }
    int fd = new_socket(error);
    if (fd < 0)
        return -1;
    // Nobody can connect before listen(): the mode is right by then.
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || chmod(path, 0600) != 0 || listen(fd, 16) != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot create the control socket %s: %s", path,
                    g_strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

ssize_t transport_send(int fd, const void *data, size_t length, const int *fds, unsigned fd_count)
{
    struct iovec iov = {(void *)data, length};
    union {
        char bytes[CMSG_SPACE(sizeof(int) * TRANSPORT_MAX_FDS)];
        struct cmsghdr align;
    } control = {0};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd_count) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * fd_count);
    }
    ssize_t n;
    do
        n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n;
}

static void take_descriptors(struct msghdr *message, int *fds, unsigned *fd_count)
{
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        unsigned count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (unsigned i = 0; i < count; i++) {
            int received;
            memcpy(&received, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
            if (*fd_count < TRANSPORT_MAX_FDS)
                fds[(*fd_count)++] = received;
            else
                close(received);
        }
    }
}

ssize_t transport_receive(int fd, void *data, size_t length, int *fds, unsigned *fd_count)
{
    struct iovec iov = {data, length};
    union {
        char bytes[CMSG_SPACE(sizeof(int) * TRANSPORT_MAX_FDS)];
        struct cmsghdr align;
    } control;
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    ssize_t n;
    *fd_count = 0;
    do
        n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        take_descriptors(&message, fds, fd_count);
    return n;
}
