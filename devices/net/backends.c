// SPDX-License-Identifier: GPL-2.0-or-later
// Where a card's frames can go: one row for each kind of network; "none" is a cable that leads nowhere.
#include "core/machine/nic.h"

static bool none_open(struct nic *nic, const char *argument, GError **error)
{
    return true;
}

static void none_close(struct nic *nic)
{
}

static void none_send(struct nic *nic, const uint8_t *frame, size_t length)
{
}

static void none_prepare(struct nic *nic, GArray *descriptors, int *timeout)
{
}

static void none_dispatch(struct nic *nic, GArray *descriptors, unsigned first)
{
}

static const struct nic_backend nic_backend_none = {
    .name = "none",
    .takes_large = true,
    .open = none_open,
    .close = none_close,
    .send = none_send,
    .prepare = none_prepare,
    .dispatch = none_dispatch,
};

extern const struct nic_backend nic_backend_user, nic_backend_team, nic_backend_tap;
const struct nic_backend *const nic_backends[] = {&nic_backend_user, &nic_backend_team, &nic_backend_tap,
                                                  &nic_backend_none, NULL};
