// SPDX-License-Identifier: GPL-2.0-or-later
// User-mode networking by libslirp: NAT, DHCP, DNS, IPv4 and IPv6, TFTP, and port forwards to the guest.
#include "core/machine/nic.h"
#include "devices/net/offload.h"

#include <arpa/inet.h>
#include <libslirp.h>
#include <string.h>

#define MILLISECOND 1000000
#define SEGMENT     32768u // what libslirp sends at once: its own limit
#define SYN_MAX     160u   // Ethernet, IPv6 and TCP headers

// Under the backend lock.
struct user_net {
    struct nic *nic;
    Slirp *slirp;
    GArray *descriptors; // while they are being collected or looked at
    unsigned first;
    GList *timers;
    struct in_addr guest; // the address that DHCP gives first: forwards lead there
    char *tftp, *bootfile, *hostname;
};

struct user_timer {
    struct user_net *net;
    SlirpTimerCb callback;
    void *opaque;
    int64_t deadline; // milliseconds of the guest's clock, -1: off
};

static int64_t now_ns(void *opaque)
{
    struct user_net *net = opaque;
    return clock_now(net->nic->machine->clock);
}

static void receive_piece(void *opaque, const uint8_t *frame, size_t length)
{
    nic_receive(opaque, frame, length);
}

// libslirp makes long frames, which costs it less; what the guest does not take whole is cut here.
static ssize_t send_packet(const void *data, size_t length, void *opaque)
{
    struct user_net *net = opaque;
    struct large_frame large;
    if (length <= NIC_FRAME_WIRE || (large_examine(data, length, &large) && nic_guest_takes_large(net->nic)))
        nic_receive(net->nic, data, length);
    else if (!cut_to_wire(data, length, NIC_FRAME_WIRE, receive_piece, net->nic))
        log_guest("net", "%s: a packet of %zu bytes for the guest is too long", net->nic->id, length);
    return length;
}

static void guest_error(const char *message, void *opaque)
{
    struct user_net *net = opaque;
    log_guest("net", "%s: %s", net->nic->id, message);
}

static void *timer_new(SlirpTimerCb callback, void *callback_opaque, void *opaque)
{
    struct user_net *net = opaque;
    struct user_timer *timer = g_new(struct user_timer, 1);
    *timer = (struct user_timer){net, callback, callback_opaque, -1};
    net->timers = g_list_prepend(net->timers, timer);
    return timer;
}

static void timer_remove(void *opaque_timer, void *opaque)
{
    struct user_net *net = opaque;
    net->timers = g_list_remove(net->timers, opaque_timer);
    g_free(opaque_timer);
}

static void timer_modify(void *opaque_timer, int64_t deadline, void *opaque)
{
    struct user_timer *timer = opaque_timer;
    timer->deadline = deadline;
}

static void ignore_descriptor(int fd, void *opaque)
{
}

static void ignore_notice(void *opaque)
{
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = now_ns,
    .timer_new = timer_new,
    .timer_free = timer_remove,
    .timer_mod = timer_modify,
    .register_poll_fd = ignore_descriptor,
    .unregister_poll_fd = ignore_descriptor,
    .notify = ignore_notice,
};

// ---- Polling ----------------------------------------------------------------------------------------------------

static int add_poll(int fd, int events, void *opaque)
{
    struct user_net *net = opaque;
    struct pollfd entry = {.fd = fd};
    entry.events = (events & SLIRP_POLL_IN ? POLLIN : 0) | (events & SLIRP_POLL_OUT ? POLLOUT : 0) |
                   (events & SLIRP_POLL_PRI ? POLLPRI : 0);
    g_array_append_val(net->descriptors, entry);
    return net->descriptors->len - 1;
}

static int get_revents(int index, void *opaque)
{
    struct user_net *net = opaque;
    if (index < 0 || (unsigned)index >= net->descriptors->len)
        return 0;
    int events = g_array_index(net->descriptors, struct pollfd, index).revents;
    return (events & POLLIN ? SLIRP_POLL_IN : 0) | (events & POLLOUT ? SLIRP_POLL_OUT : 0) |
           (events & POLLPRI ? SLIRP_POLL_PRI : 0) | (events & POLLERR ? SLIRP_POLL_ERR : 0) |
           (events & POLLHUP ? SLIRP_POLL_HUP : 0);
}

static void user_prepare(struct nic *nic, GArray *descriptors, int *timeout)
{
    struct user_net *net = nic->backend_state;
    uint32_t wait = *timeout;
    net->descriptors = descriptors;
    slirp_pollfds_fill(net->slirp, &wait, add_poll, net);
    for (GList *each = net->timers; each; each = each->next) {
        const struct user_timer *timer = each->data;
        if (timer->deadline >= 0)
            wait = MIN(wait, (uint32_t)CLAMP(timer->deadline - now_ns(net) / MILLISECOND, 0, 1000));
    }
    *timeout = wait;
}

static void user_dispatch(struct nic *nic, GArray *descriptors, unsigned first)
{
    struct user_net *net = nic->backend_state;
    net->descriptors = descriptors;
    slirp_pollfds_poll(net->slirp, !descriptors, get_revents, net);
    int64_t now = now_ns(net) / MILLISECOND;
    for (GList *each = net->timers, *next; each; each = next) {
        struct user_timer *timer = each->data;
        next = each->next;
        if (timer->deadline < 0 || timer->deadline > now)
            continue;
        timer->deadline = -1;
        timer->callback(timer->opaque);
    }
}

static void user_send(struct nic *nic, const uint8_t *frame, size_t length)
{
    struct user_net *net = nic->backend_state;
    uint8_t copy[SYN_MAX];
    if (length <= sizeof copy) { // it may be a SYN
        memcpy(copy, frame, length);
        raise_segment_offer(copy, length, SEGMENT);
        frame = copy;
    }
    slirp_input(net->slirp, frame, length);
}

// ---- Forwards ---------------------------------------------------------------------------------------------------

struct forward {
    bool udp;
    struct in_addr host;
    unsigned host_port, guest_port;
};

static bool parse_port(const char *text, unsigned *port)
{
    char *end;
    uint64_t value = g_ascii_strtoull(text, &end, 10);
    *port = value;
    return g_ascii_isdigit(*text) && !*end && value >= 1 && value <= 65535;
}

// "tcp:127.0.0.1:2222-22"; the address may be empty: 127.0.0.1.
static bool parse_forward(struct nic *nic, const char *text, struct forward *forward, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text, ":", -1);
    bool good = g_strv_length(parts) == 3 && (!strcmp(parts[0], "tcp") || !strcmp(parts[0], "udp"));
    if (good) {
        char *guest = strchr(parts[2], '-');
        const char *address = *parts[1] ? parts[1] : "127.0.0.1";
        if (guest)
            *guest++ = '\0';
        forward->udp = !strcmp(parts[0], "udp");
        good = guest && parse_port(parts[2], &forward->host_port) && parse_port(guest, &forward->guest_port) &&
               inet_pton(AF_INET, address, &forward->host) == 1;
    }
    if (!good)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s: \"%s\" is no port forward: give tcp:ADDRESS:PORT-GUESTPORT or udp:..., such as "
                    "tcp:127.0.0.1:2222-22.",
                    nic->id, text);
    return good;
}

static bool user_add_forward(struct nic *nic, const char *text, GError **error)
{
    struct user_net *net = nic->backend_state;
    struct forward forward;
    if (!parse_forward(nic, text, &forward, error))
        return false;
    if (slirp_add_hostfwd(net->slirp, forward.udp, forward.host, forward.host_port, net->guest, forward.guest_port) ==
        0)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                "%s: port %u of this host cannot be forwarded: it is in use, or below 1024; take another.", nic->id,
                forward.host_port);
    return false;
}

static bool user_remove_forward(struct nic *nic, const char *text, GError **error)
{
    struct user_net *net = nic->backend_state;
    struct forward forward;
    if (!parse_forward(nic, text, &forward, error))
        return false;
    slirp_remove_hostfwd(net->slirp, forward.udp, forward.host, forward.host_port);
    return true;
}

// ---- Life -------------------------------------------------------------------------------------------------------

static bool check_settings(struct nic *nic, GError **error)
{
    static const char *const known[] = {"tftp", "bootfile", "hostname", "restrict", "mtu", "capture", NULL};
    GHashTableIter iter;
    gpointer key;
    g_hash_table_iter_init(&iter, nic->settings);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        if (g_strv_contains(known, key))
            continue;
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s: \"user\" has no setting \"%s\": rate, delay, jitter, loss, seed, link, capture, tftp, bootfile, "
                    "hostname and restrict are.",
                    nic->id, (char *)key);
        return false;
    }
    const char *tftp = g_hash_table_lookup(nic->settings, "tftp");
    if (tftp && !g_file_test(tftp, G_FILE_TEST_IS_DIR)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                    "%s: the TFTP folder \"%s\" does not exist: name one that does.", nic->id, tftp);
        return false;
    }
    return true;
}

static bool user_open(struct nic *nic, const char *argument, GError **error)
{
    if (!check_settings(nic, error))
        return false;
    struct user_net *net = g_new0(struct user_net, 1);
    net->nic = nic;
    SlirpConfig config = {
        .version = 4,
        .in_enabled = true,
        .in6_enabled = true,
        .vprefix_len = 64,
        .restricted = g_strcmp0(g_hash_table_lookup(nic->settings, "restrict"), "on") == 0,
        .vhostname = g_hash_table_lookup(nic->settings, "hostname"),
        .tftp_path = g_hash_table_lookup(nic->settings, "tftp"),
        .bootfile = g_hash_table_lookup(nic->settings, "bootfile"),
        .if_mtu = 65520,
        .if_mru = 65520,
    };
    inet_pton(AF_INET, "10.0.2.0", &config.vnetwork);
    inet_pton(AF_INET, "255.255.255.0", &config.vnetmask);
    inet_pton(AF_INET, "10.0.2.2", &config.vhost);
    inet_pton(AF_INET, "10.0.2.15", &config.vdhcp_start);
    inet_pton(AF_INET, "10.0.2.3", &config.vnameserver);
    inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &config.vhost6);
    inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
    net->guest = config.vdhcp_start;
    net->slirp = slirp_new(&config, &callbacks, net);
    if (!net->slirp) {
        g_free(net);
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED,
                    "%s: user-mode networking does not start; see the log, or use net none.", nic->id);
        return false;
    }
    nic->backend_state = net;
    return true;
}

static void user_close(struct nic *nic)
{
    struct user_net *net = nic->backend_state;
    slirp_cleanup(net->slirp);
    g_list_free_full(net->timers, g_free);
    g_free(net);
}

const struct nic_backend nic_backend_user = {
    .name = "user",
    .whole = true,
    .takes_large = true,
    .open = user_open,
    .close = user_close,
    .send = user_send,
    .prepare = user_prepare,
    .dispatch = user_dispatch,
    .add_forward = user_add_forward,
    .remove_forward = user_remove_forward,
};
