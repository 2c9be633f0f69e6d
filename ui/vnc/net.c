// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/vnc/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PORT_BASE    5900
#define CHUNK        (256 * KiB)
#define OUT_LIMIT    (64 * MiB) // a client for which more waits is cut off
#define IN_LIMIT     (FRAMING_MAX + CHUNK)
#define HANDSHAKE_US (20 * G_USEC_PER_SEC)
#define STALLED_US   (60 * G_USEC_PER_SEC)

static const char version_line[] = "RFB 003.008\n";

// LOCK guards CLIENTS for readers on other threads; only the net thread changes it.
struct vnc_net {
    int listener, wake;
    char *address, *path; // path: of the UNIX socket, to remove
    bool local;
    unsigned max_clients, next_id;
    GThread *thread;
    _Atomic bool quit;
    GMutex lock;
    GPtrArray *clients;
    vnc_adopt *adopt;
    void *adopt_opaque;
    uint8_t *chunk;
};

// ---- Clients ----
struct vnc_client *vnc_client_ref(struct vnc_client *client)
{
    atomic_fetch_add(&client->references, 1);
    return client;
}

void vnc_client_unref(struct vnc_client *client)
{
    if (atomic_fetch_sub(&client->references, 1) != 1)
        return;
    g_byte_array_unref(client->in);
    g_byte_array_unref(client->out);
    g_free(client->peer);
    g_free(client);
}

GPtrArray *vnc_net_clients(struct vnc_net *net)
{
    GPtrArray *list = g_ptr_array_new_with_free_func((GDestroyNotify)vnc_client_unref);
    g_mutex_lock(&net->lock);
    for (unsigned i = 0; i < net->clients->len; i++)
        g_ptr_array_add(list, vnc_client_ref(net->clients->pdata[i]));
    g_mutex_unlock(&net->lock);
    return list;
}

// Closes CLIENT's sockets and forgets it; libvncserver sees the end of its stream.
static void drop_client(struct vnc_net *net, struct vnc_client *client, const char *why)
{
    log_info("vnc", "client %u (%s) disconnected: %s", client->id, client->peer, why);
    close(client->net_fd);
    if (client->pair_fd >= 0)
        close(client->pair_fd);
    if (client->adopt) // the protocol side has not been told of it yet
        close(client->library_fd);
    client->net_fd = client->pair_fd = -1;
    atomic_store(&client->kill, true);
    g_mutex_lock(&net->lock);
    g_ptr_array_remove(net->clients, client);
    g_mutex_unlock(&net->lock);
    vnc_client_unref(client);
}

static char *peer_name(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getpeername(fd, (struct sockaddr *)&address, &length) != 0 || address.ss_family == AF_UNIX ||
        getnameinfo((struct sockaddr *)&address, length, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return g_strdup("unix");
    return g_strdup_printf(address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static void accept_client(struct vnc_net *net)
{
    int fd = accept4(net->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (net->clients->len >= net->max_clients) {
        log_info("vnc", "a client was turned away: %u are connected already", net->max_clients);
        close(fd);
        return;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); // fails on UNIX sockets, harmlessly
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    struct vnc_client *client = g_new0(struct vnc_client, 1);
    client->references = 1;
    client->id = ++net->next_id;
    client->peer = peer_name(fd);
    client->net_fd = fd;
    client->pair_fd = client->library_fd = -1;
    client->in = g_byte_array_new();
    client->out = g_byte_array_new();
    client->version_left = strlen(version_line);
    client->born = client->progress = g_get_monotonic_time();
    g_byte_array_append(client->out, (const uint8_t *)version_line, strlen(version_line));
    g_mutex_lock(&net->lock);
    g_ptr_array_add(net->clients, client);
    g_mutex_unlock(&net->lock);
    log_info("vnc", "client %u (%s) connected", client->id, client->peer);
}

// ---- The pump ----
static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

// Gives the client to the protocol side once it has said which version it speaks. False: drop it.
static bool hand_over(struct vnc_net *net, struct vnc_client *client)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        return false;
    if (pair[1] >= FD_SETSIZE) { // libvncserver uses select()
        log_warning("vnc", "a client was turned away: too many files are open");
        close(pair[0]);
        close(pair[1]);
        return false;
    }
    client->pair_fd = pair[0];
    client->library_fd = pair[1];
    return true;
}

static void publish_state(struct vnc_client *client)
{
    if (client->framing.state == FRAMING_NORMAL && !client->established) {
        atomic_store(&client->shared, client->framing.shared);
        atomic_store(&client->established, true);
    }
}

// Finds how much of IN is whole messages that may pass. False: drop the client.
static bool check_messages(struct vnc_net *net, struct vnc_client *client)
{
    while (client->passed < client->in->len) {
        bool first = client->framing.state == FRAMING_VERSION;
        ssize_t length =
            framing_next(&client->framing, client->in->data + client->passed, client->in->len - client->passed);
        if (length == FRAMING_WAIT)
            break;
        if (length < 0 || (first && !hand_over(net, client)))
            return false;
        client->passed += length;
        client->adopt |= first;
        publish_state(client);
    }
    return true;
}

// Moves whole messages to libvncserver as far as it takes them. False: drop the client.
static bool forward_messages(struct vnc_net *net, struct vnc_client *client)
{
    if (!check_messages(net, client))
        return false;
    if (!client->passed)
        return true;
    ssize_t sent = send(client->pair_fd, client->in->data, client->passed, MSG_NOSIGNAL);
    if (sent < 0)
        return would_block();
    g_byte_array_remove_range(client->in, 0, sent);
    client->passed -= sent;
    if (client->adopt)
        net->adopt(net->adopt_opaque, vnc_client_ref(client));
    client->adopt = false;
    return true;
}

static const char *read_network(struct vnc_net *net, struct vnc_client *client)
{
    if (client->in->len >= IN_LIMIT)
        return NULL;
    ssize_t got = recv(client->net_fd, net->chunk, CHUNK, 0);
    if (got == 0)
        return "it hung up";
    if (got < 0)
        return would_block() ? NULL : g_strerror(errno);
    g_byte_array_append(client->in, net->chunk, got);
    return NULL;
}

static const char *write_network(struct vnc_client *client)
{
    while (client->out_done < client->out->len) {
        ssize_t sent = send(client->net_fd, client->out->data + client->out_done, client->out->len - client->out_done,
                            MSG_NOSIGNAL);
        if (sent < 0) {
            if (!would_block())
                return g_strerror(errno);
            break;
        }
        client->out_done += sent;
        client->sent += sent;
        client->progress = g_get_monotonic_time();
    }
    if (client->out_done == client->out->len) {
        g_byte_array_set_size(client->out, 0);
        client->out_done = 0;
    } else if (client->out_done > MiB && client->out_done > client->out->len / 2) {
        g_byte_array_remove_range(client->out, 0, client->out_done);
        client->out_done = 0;
    }
    atomic_store(&client->backlog, client->out->len - client->out_done);
    return NULL;
}

// Leaves out libvncserver's version line, and notes what it chose for a version 3.3 client.
static size_t inspect_output(struct vnc_client *client, const uint8_t *data, size_t length)
{
    size_t skip = MIN(length, client->version_left);
    client->version_left -= skip;
    for (size_t i = skip; i < length && client->choice_count < 4; i++)
        client->choice[client->choice_count++] = data[i];
    if (client->choice_count == 4 && client->framing.minor == 3 && !client->framing.server_choice)
        client->framing.server_choice = client->choice[3] == 2 ? 2 : 1;
    return skip;
}

// What libvncserver wrote goes to the network, or waits in OUT: its writes never block for long.
static const char *read_library(struct vnc_net *net, struct vnc_client *client)
{
    for (unsigned i = 0; i < 16; i++) {
        ssize_t got = recv(client->pair_fd, net->chunk, CHUNK, 0);
        if (got < 0 && would_block())
            return NULL;
        if (got <= 0) {
            client->closing = true;
            return client->out->len ? NULL : "the server closed it";
        }
        size_t skip = inspect_output(client, net->chunk, got);
        if (!client->out->len && (size_t)got > skip) {
            ssize_t sent = send(client->net_fd, net->chunk + skip, got - skip, MSG_NOSIGNAL);
            if (sent < 0 && !would_block())
                return g_strerror(errno);
            if (sent > 0) {
                skip += sent;
                client->sent += sent;
            }
            client->progress = g_get_monotonic_time();
        }
        g_byte_array_append(client->out, net->chunk + skip, got - skip);
        atomic_store(&client->backlog, client->out->len - client->out_done);
        if (client->out->len - client->out_done > OUT_LIMIT)
            return "it does not take what it asks for";
    }
    return NULL;
}

static const char *check_age(struct vnc_client *client, int64_t now)
{
    if (client->kill)
        return "as told";
    if (client->framing.state != FRAMING_NORMAL && now - client->born > HANDSHAKE_US)
        return "it did not finish its introduction";
    if (client->out->len && now - client->progress > STALLED_US)
        return "it takes no data";
    return NULL;
}

static void serve_client(struct vnc_net *net, struct vnc_client *client, short net_events, short pair_events)
{
    const char *why = check_age(client, g_get_monotonic_time());
    if (!why && pair_events)
        why = read_library(net, client);
    if (!why && net_events & POLLOUT)
        why = write_network(client);
    if (!why && net_events & (POLLIN | POLLHUP | POLLERR) && !client->closing)
        why = read_network(net, client);
    if (!why && !client->closing && !forward_messages(net, client))
        why = "it sent what is no VNC message";
    if (!why && client->closing && (!client->out->len || net_events & (POLLHUP | POLLERR)))
        why = "the server closed it";
    if (why)
        drop_client(net, client, why);
}

static void *net_thread(void *opaque)
{
    struct vnc_net *net = opaque;
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(struct pollfd));
    while (!net->quit) {
        g_array_set_size(fds, 0);
        struct pollfd fixed[2] = {{net->wake, POLLIN, 0}, {net->listener, POLLIN, 0}};
        g_array_append_vals(fds, fixed, 2);
        unsigned count = net->clients->len;
        for (unsigned i = 0; i < count; i++) {
            struct vnc_client *client = net->clients->pdata[i];
            bool hungry = client->in->len < IN_LIMIT && !client->closing;
            struct pollfd two[2] = {
                {client->net_fd, (hungry ? POLLIN : 0) | (client->out->len ? POLLOUT : 0), 0},
                {client->closing ? -1 : client->pair_fd, POLLIN | (client->passed ? POLLOUT : 0), 0},
            };
            g_array_append_vals(fds, two, 2);
        }
        if (poll((struct pollfd *)(void *)fds->data, fds->len, 1000) < 0 && errno != EINTR)
            break;
        struct pollfd *got = (struct pollfd *)(void *)fds->data;
        uint64_t drained;
        if (got[0].revents && read(net->wake, &drained, sizeof(drained)) < 0)
            continue;
        for (unsigned i = count; i-- > 0;)
            serve_client(net, net->clients->pdata[i], got[2 + 2 * i].revents, got[3 + 2 * i].revents);
        if (got[1].revents)
            accept_client(net);
    }
    while (net->clients->len)
        drop_client(net, net->clients->pdata[0], "the machine ends");
    return NULL;
}

// ---- Listening ----
static bool fail_listen(int fd, const char *what, int e, GError **error)
{
    if (fd >= 0)
        close(fd);
    g_set_error(error, CLOCHE_ERROR, e == EADDRINUSE ? CLOCHE_ERROR_BUSY : CLOCHE_ERROR_FAILED,
                "Cannot listen for VNC at %s (%s): choose another %s", what, g_strerror(e),
                e == EADDRINUSE ? "display number" : "address");
    return false;
}

static bool listen_unix(struct vnc_net *net, const char *path, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof(address.sun_path)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "The VNC socket path \"%s\" is empty or longer than %zu characters: choose another", path,
                    sizeof(address.sun_path) - 1);
        return false;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct stat status;
    if (lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) &&
        connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 && errno == ECONNREFUSED)
        unlink(path); // left over from a process that is gone
    mode_t mask = umask(0177);
    bool bound = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 16) == 0;
    int e = errno;
    umask(mask);
    if (!bound)
        return fail_listen(fd, path, e, error);
    net->listener = fd;
    net->path = g_strdup(path);
    net->address = g_strdup_printf("unix:%s", path);
    net->local = true;
    return true;
}

static int bind_port(const char *host, unsigned port, int *family, bool *local)
{
    g_autofree char *service = g_strdup_printf("%u", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    if (getaddrinfo(host, service, &hints, &found) != 0) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 16) != 0) {
            int e = errno;
            close(fd);
            errno = e;
            fd = -1;
        }
    }
    *family = found->ai_family;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)found->ai_addr;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)found->ai_addr;
    *local = *family == AF_INET ? ntohl(v4->sin_addr.s_addr) >> 24 == 127 : IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    freeaddrinfo(found);
    return fd;
}

static bool listen_tcp(struct vnc_net *net, const char *where, GError **error)
{
    const char *colon = strrchr(where, ':');
    char *end = NULL;
    bool any = colon && strcmp(colon + 1, "auto") == 0;
    unsigned long number = colon && !any ? strtoul(colon + 1, &end, 10) : 0;
    if (!colon || (!any && (!g_ascii_isdigit(colon[1]) || *end || number > 65535 - PORT_BASE))) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "The VNC address \"%s\" is not ADDRESS:NUMBER or unix:PATH: write for example 127.0.0.1:1", where);
        return false;
    }
    g_autofree char *host = g_strndup(where, colon - where);
    if (*host == '[' && host[strlen(host) - 1] == ']') {
        host[strlen(host) - 1] = '\0';
        memmove(host, host + 1, strlen(host));
    }
    int family = AF_INET, fd = -1;
    for (unsigned n = any ? 0 : number; fd < 0 && n <= (any ? 99 : number); n++) {
        fd = bind_port(*host ? host : "127.0.0.1", PORT_BASE + n, &family, &net->local);
        number = n;
    }
    if (fd < 0)
        return fail_listen(-1, where, errno, error);
    net->listener = fd;
    net->address =
        g_strdup_printf(family == AF_INET6 ? "[%s]:%lu" : "%s:%lu", *host ? host : "127.0.0.1", PORT_BASE + number);
    return true;
}

struct vnc_net *vnc_net_new(const char *where, unsigned max_clients, GError **error)
{
    struct vnc_net *net = g_new0(struct vnc_net, 1);
    net->listener = -1;
    net->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    net->max_clients = max_clients;
    net->clients = g_ptr_array_new();
    net->chunk = g_malloc(CHUNK);
    g_mutex_init(&net->lock);
    bool good = g_str_has_prefix(where, "unix:") ? listen_unix(net, where + 5, error) : listen_tcp(net, where, error);
    if (good)
        return net;
    vnc_net_free(net);
    return NULL;
}

void vnc_net_start(struct vnc_net *net, vnc_adopt *adopt, void *opaque)
{
    net->adopt = adopt;
    net->adopt_opaque = opaque;
    net->thread = g_thread_new("vnc-net", net_thread, net);
}

void vnc_net_wake(struct vnc_net *net)
{
    uint64_t one = 1;
    if (write(net->wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_warning("vnc", "cannot wake the network thread: %s", g_strerror(errno));
}

void vnc_net_free(struct vnc_net *net)
{
    if (!net)
        return;
    net->quit = true;
    vnc_net_wake(net);
    if (net->thread)
        g_thread_join(net->thread);
    if (net->listener >= 0)
        close(net->listener);
    close(net->wake);
    if (net->path)
        unlink(net->path);
    g_ptr_array_free(net->clients, TRUE);
    g_mutex_clear(&net->lock);
    g_free(net->address);
    g_free(net->path);
    g_free(net->chunk);
    g_free(net);
}

const char *vnc_net_address(const struct vnc_net *net)
{
    return net->address;
}

bool vnc_net_local(const struct vnc_net *net)
{
    return net->local;
}
