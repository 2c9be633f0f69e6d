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
#define WAITING_BYTES (4 << 20) // for one member that reads too slowly; frames beyond are dropped and counted

// Another member of the team.
struct peer {
    char *name;     // of its socket
    GQueue waiting; // GBytes *: frames that its socket had no room for, oldest first
    size_t bytes;   // of them
    int fd;         // connected to it, only to learn when it has room again; -1: never needed
    bool there;     // in the folder at the last look
};

// Under the backend lock.
struct team {
    int fd;
    char *folder, *own;
    GHashTable *addresses; // MAC as a number -> socket name
    GHashTable *peers;     // socket name -> struct peer, ourselves excluded
    unsigned waiting;      // peers with frames
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

static void peer_free(gpointer data)
{
    struct peer *peer = data;
    g_queue_clear_full(&peer->waiting, (GDestroyNotify)g_bytes_unref);
    if (peer->fd >= 0)
        close(peer->fd);
    g_free(peer->name);
    g_free(peer);
}

static struct peer *find_peer(struct team *team, const char *name)
{
    struct peer *peer = g_hash_table_lookup(team->peers, name);
    if (peer)
        return peer;
    peer = g_new0(struct peer, 1);
    peer->name = g_strdup(name);
    peer->fd = -1;
    g_queue_init(&peer->waiting);
    g_hash_table_insert(team->peers, peer->name, peer);
    return peer;
}

static void forget_waiting(struct team *team, struct peer *peer)
{
    team->waiting -= peer->waiting.length > 0;
    g_queue_clear_full(&peer->waiting, (GDestroyNotify)g_bytes_unref);
    peer->bytes = 0;
}

static gboolean is_gone(gpointer name, gpointer value, gpointer data)
{
    struct peer *peer = value;
    if (!peer->there)
        forget_waiting(data, peer);
    return !peer->there;
}

static void scan(struct nic *nic, struct team *team)
{
    int64_t now = clock_now(nic->machine->clock);
    GHashTableIter iter;
    gpointer peer;
    if (g_hash_table_size(team->peers) && now - team->scanned < RESCAN)
        return;
    team->scanned = now;
    g_hash_table_iter_init(&iter, team->peers);
    while (g_hash_table_iter_next(&iter, NULL, &peer))
        ((struct peer *)peer)->there = false;
    GDir *dir = g_dir_open(team->folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir)))
        if (strcmp(name, team->own))
            find_peer(team, name)->there = true;
    if (dir)
        g_dir_close(dir);
    g_hash_table_foreach_remove(team->peers, is_gone, team);
}

// ---- Sending: what a member's socket has no room for waits here ----

// False: there is no room now. A socket that nobody answers any more belongs to a process that is gone.
static bool try_send(struct team *team, struct peer *peer, const void *frame, size_t length)
{
    struct sockaddr_un address;
    if (!set_address(&address, team->folder, peer->name))
        return true;
    ssize_t sent = sendto(team->fd, frame, length, MSG_DONTWAIT, (struct sockaddr *)&address, sizeof address);
    if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS))
        return false;
    if (sent < 0 && errno == ECONNREFUSED)
        unlink(address.sun_path);
    return true;
}

static void send_waiting(struct team *team, struct peer *peer)
{
    GBytes *bytes;
    while ((bytes = g_queue_peek_head(&peer->waiting))) {
        gsize length;
        const void *frame = g_bytes_get_data(bytes, &length);
        if (!try_send(team, peer, frame, length))
            return;
        peer->bytes -= length;
        g_bytes_unref(g_queue_pop_head(&peer->waiting));
    }
    team->waiting--;
}

static void send_to(struct nic *nic, struct team *team, struct peer *peer, const uint8_t *frame, size_t length)
{
    if (!peer->waiting.length && try_send(team, peer, frame, length))
        return;
    if (peer->bytes + length > WAITING_BYTES) {
        nic_count_dropped(nic);
        return;
    }
    team->waiting += !peer->waiting.length;
    peer->bytes += length;
    g_queue_push_tail(&peer->waiting, g_bytes_new(frame, length));
}

static void team_send(struct nic *nic, const uint8_t *frame, size_t length)
{
    struct team *team = nic->backend_state;
    gint64 to = mac_number(frame);
    const char *known = frame[0] & 1 ? NULL : g_hash_table_lookup(team->addresses, &to);
    if (known) {
        send_to(nic, team, find_peer(team, known), frame, length);
        return;
    }
    scan(nic, team);
    GHashTableIter iter;
    gpointer peer;
    g_hash_table_iter_init(&iter, team->peers);
    while (g_hash_table_iter_next(&iter, NULL, &peer))
        send_to(nic, team, peer, frame, length);
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

// A socket that is not connected knows only of its own buffer: whether the member has room, one that is connected to it
// tells.
static int room_fd(struct team *team, struct peer *peer)
{
    struct pollfd own = {.fd = team->fd, .events = POLLOUT};
    struct sockaddr_un address;
    if (poll(&own, 1, 0) == 0)
        return team->fd;
    if (peer->fd >= 0 || !set_address(&address, team->folder, peer->name))
        return peer->fd;
    peer->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (peer->fd >= 0 && connect(peer->fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(peer->fd);
        peer->fd = -1;
    }
    return peer->fd;
}

static void prepare_waiting(struct team *team, GArray *descriptors, int *timeout)
{
    GHashTableIter iter;
    gpointer value;
    g_hash_table_iter_init(&iter, team->peers);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct peer *peer = value;
        if (!peer->waiting.length)
            continue;
        struct pollfd entry = {.fd = room_fd(team, peer), .events = POLLOUT};
        if (entry.fd >= 0)
            g_array_append_val(descriptors, entry);
        else // it is gone, and the next try to send finds out
            *timeout = 0;
    }
}

static void team_prepare(struct nic *nic, GArray *descriptors, int *timeout)
{
    struct team *team = nic->backend_state;
    struct pollfd entry = {.fd = team->fd, .events = nic_has_room(nic) ? POLLIN : 0};
    g_array_append_val(descriptors, entry);
    if (team->waiting)
        prepare_waiting(team, descriptors, timeout);
}

static void dispatch_waiting(struct team *team)
{
    GHashTableIter iter;
    gpointer value;
    g_hash_table_iter_init(&iter, team->peers);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        if (((struct peer *)value)->waiting.length)
            send_waiting(team, value);
}

static void team_dispatch(struct nic *nic, GArray *descriptors, unsigned first)
{
    struct team *team = nic->backend_state;
    uint8_t frame[NIC_FRAME_MAX];
    if (team->waiting)
        dispatch_waiting(team);
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
    g_hash_table_unref(team->peers);
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
    team->peers = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, peer_free);
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
