// SPDX-License-Identifier: GPL-2.0-or-later
// A private network between machines of one user: each member is a UNIX datagram socket in the team's folder, and each
// is a small learning switch: frames for a known address go to one member, the others to all.
#include "core/machine/nic.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ADDRESSES_MAX 1024
#define RESCAN        1000000000ll // nanoseconds between looks at the folder
#define BURST         64           // frames read before the guest gets its turn
#define BUFFER        (4 << 20)

// Under the backend lock.
struct team {
    int fd;
    char *folder, *own;
    GHashTable *addresses; // MAC as a number -> socket name
    GPtrArray *members;    // socket names, ourselves excluded
    int64_t scanned;
};

static bool set_address(struct sockaddr_un *address, const char *folder, const char *name)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    return (unsigned)g_snprintf(address->sun_path, sizeof address->sun_path, "%s/%s", folder, name) <
           sizeof address->sun_path;
}

static gint64 mac_number(const uint8_t *mac)
{
    return (gint64)load_le(mac, 4) | (gint64)load_le(mac + 4, 2) << 32;
}

static void scan(struct nic *nic, struct team *team)
{
    int64_t now = clock_now(nic->machine->clock);
    if (team->members->len && now - team->scanned < RESCAN)
        return;
    team->scanned = now;
    g_ptr_array_set_size(team->members, 0);
    GDir *dir = g_dir_open(team->folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir)))
        if (strcmp(name, team->own))
            g_ptr_array_add(team->members, g_strdup(name));
    if (dir)
        g_dir_close(dir);
}

// A socket that nobody answers any more belongs to a process that is gone.
static void send_to(struct team *team, const char *name, const uint8_t *frame, size_t length)
{
    struct sockaddr_un address;
    if (!set_address(&address, team->folder, name))
        return;
    ssize_t sent = sendto(team->fd, frame, length, MSG_DONTWAIT, (struct sockaddr *)&address, sizeof address);
    if (sent < 0 && errno == ECONNREFUSED)
        unlink(address.sun_path);
}

static void team_send(struct nic *nic, const uint8_t *frame, size_t length)
{
    struct team *team = nic->backend_state;
    gint64 to = mac_number(frame);
    const char *known = frame[0] & 1 ? NULL : g_hash_table_lookup(team->addresses, &to);
    if (known) {
        send_to(team, known, frame, length);
        return;
    }
    scan(nic, team);
    for (unsigned i = 0; i < team->members->len; i++)
        send_to(team, team->members->pdata[i], frame, length);
}

static void learn(struct team *team, const uint8_t *frame, const struct sockaddr_un *from)
{
    gint64 mac = mac_number(frame + 6);
    const char *name = strrchr(from->sun_path, '/');
    if (!name || frame[6] & 1)
        return;
    if (g_hash_table_size(team->addresses) >= ADDRESSES_MAX)
        g_hash_table_remove_all(team->addresses);
    const char *old = g_hash_table_lookup(team->addresses, &mac);
    if (g_strcmp0(old, name + 1))
        g_hash_table_insert(team->addresses, g_memdup2(&mac, sizeof mac), g_strdup(name + 1));
}

static void team_prepare(struct nic *nic, GArray *descriptors, int *timeout)
{
    struct team *team = nic->backend_state;
    struct pollfd entry = {.fd = team->fd, .events = nic_has_room(nic) ? POLLIN : 0};
    g_array_append_val(descriptors, entry);
}

static void team_dispatch(struct nic *nic, GArray *descriptors, unsigned first)
{
    struct team *team = nic->backend_state;
    uint8_t frame[NIC_FRAME_MAX];
    if (!descriptors || !(g_array_index(descriptors, struct pollfd, first).revents & POLLIN))
        return;
    for (unsigned i = 0; i < BURST; i++) {
        struct sockaddr_un from = {0};
        socklen_t from_length = sizeof from - 1;
        ssize_t length = recvfrom(team->fd, frame, sizeof frame, MSG_DONTWAIT, (struct sockaddr *)&from, &from_length);
        if (length < (ssize_t)NIC_HEADER)
            return;
        learn(team, frame, &from);
        nic_receive(nic, frame, length);
    }
}

static bool bind_socket(struct nic *nic, struct team *team, GError **error)
{
    struct sockaddr_un address;
    int size = BUFFER;
    if (!set_address(&address, team->folder, team->own)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%s: the team's folder \"%s\" has too long a name.",
                    nic->id, team->folder);
        return false;
    }
    team->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(address.sun_path);
    if (team->fd < 0 || bind(team->fd, (struct sockaddr *)&address, sizeof address) < 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "%s: the team's socket \"%s\" cannot be made: %s.",
                    nic->id, address.sun_path, g_strerror(errno));
        return false;
    }
    setsockopt(team->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(team->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    return true;
}

static void team_close(struct nic *nic)
{
    struct team *team = nic->backend_state;
    if (team->fd >= 0) {
        struct sockaddr_un address;
        if (set_address(&address, team->folder, team->own))
            unlink(address.sun_path);
        close(team->fd);
    }
    g_hash_table_unref(team->addresses);
    g_ptr_array_unref(team->members);
    g_free(team->folder);
    g_free(team->own);
    g_free(team);
    nic->backend_state = NULL;
}

static bool team_open(struct nic *nic, const char *name, GError **error)
{
    if (!*name || strchr(name, '/') || *name == '.') {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s: a team needs a name without slashes: give team:NAME.", nic->id);
        return false;
    }
    struct team *team = g_new0(struct team, 1);
    team->fd = -1;
    team->folder = g_build_filename(g_get_user_runtime_dir(), "cloche", "team", name, NULL);
    team->own = g_strdup_printf("%d-%s", (int)getpid(), nic->id);
    team->addresses = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
    team->members = g_ptr_array_new_with_free_func(g_free);
    nic->backend_state = team;
    if (g_mkdir_with_parents(team->folder, 0700) < 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "%s: the team's folder \"%s\" cannot be made: %s.",
                    nic->id, team->folder, g_strerror(errno));
        team_close(nic);
        return false;
    }
    if (!bind_socket(nic, team, error)) {
        team_close(nic);
        return false;
    }
    return true;
}

const struct nic_backend nic_backend_team = {
    .name = "team",
    .whole = true,
    .open = team_open,
    .close = team_close,
    .send = team_send,
    .prepare = team_prepare,
    .dispatch = team_dispatch,
};
