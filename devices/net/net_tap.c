// SPDX-License-Identifier: GPL-2.0-or-later
// A TAP interface of the host, made beforehand by somebody who may.
#include "core/machine/nic.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BURST 64

static void tap_send(struct nic *nic, const uint8_t *frame, size_t length)
{
    if (write(GPOINTER_TO_INT(nic->backend_state), frame, length) < 0 && errno != EAGAIN)
        log_guest("net", "%s: the TAP interface takes no frame: %s", nic->id, g_strerror(errno));
}

static void tap_prepare(struct nic *nic, GArray *descriptors, int *timeout)
{
    struct pollfd entry = {.fd = GPOINTER_TO_INT(nic->backend_state), .events = nic_has_room(nic) ? POLLIN : 0};
    g_array_append_val(descriptors, entry);
}

static void tap_dispatch(struct nic *nic, GArray *descriptors, unsigned first)
{
    uint8_t frame[NIC_FRAME_MAX];
    if (!descriptors || !(g_array_index(descriptors, struct pollfd, first).revents & POLLIN))
        return;
    for (unsigned i = 0; i < BURST; i++) {
        ssize_t length = read(GPOINTER_TO_INT(nic->backend_state), frame, sizeof frame);
        if (length < (ssize_t)NIC_HEADER)
            return;
        nic_receive(nic, frame, length);
    }
}

static bool tap_open(struct nic *nic, const char *name, GError **error)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    if (!*name || strlen(name) >= IFNAMSIZ) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s: name the TAP interface, with at most %d letters: tap:NAME.", nic->id, IFNAMSIZ - 1);
        return false;
    }
    g_strlcpy(request.ifr_name, name, IFNAMSIZ);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && ioctl(fd, TUNSETIFF, &request) == 0) {
        nic->backend_state = GINT_TO_POINTER(fd);
        return true;
    }
    int why = errno;
    if (fd >= 0)
        close(fd);
    g_set_error(
        error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED,
        "%s: the TAP interface \"%s\" cannot be used (%s): an administrator makes it for you with \"ip tuntap add "
        "dev %s mode tap user %s\", and /dev/net/tun must be readable and writable.",
        nic->id, name, g_strerror(why), name, g_get_user_name());
    return false;
}

static void tap_close(struct nic *nic)
{
    close(GPOINTER_TO_INT(nic->backend_state));
}

const struct nic_backend nic_backend_tap = {
    .name = "tap",
    .open = tap_open,
    .close = tap_close,
    .send = tap_send,
    .prepare = tap_prepare,
    .dispatch = tap_dispatch,
};
