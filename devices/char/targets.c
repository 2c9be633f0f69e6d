// SPDX-License-Identifier: GPL-2.0-or-later
// What a character device's bytes can go to: one row for each kind, and how it is opened.
#include "devices/char/backend_private.h"
#include "core/memory/memory.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pty.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#define RETRY_MS 300 // between a client's tries
#define MODEM_MS 50  // between looks at a host device's modem lines

static bool fail(GError **error, const char *what, const char *argument, const char *cure)
{
    int e = errno;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Cannot %s %s (%s): %s.", what, argument, g_strerror(e),
                cure);
    return false;
}

static bool open_stdio(struct char_backend *b, const char *argument, GError **error)
{
    b->read_fd = STDIN_FILENO;
    b->write_fd = STDOUT_FILENO;
    b->terminal = isatty(STDIN_FILENO);
    if (b->terminal)
        char_backend_take_terminal();
    return true;
}

static bool open_file(struct char_backend *b, const char *argument, GError **error)
{
    b->write_fd = open(argument, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    b->owns_fds = true;
    return b->write_fd >= 0 || fail(error, "write the file", argument, "choose a path that you may write");
}

// ---- Servers ----
static gboolean connection_ready(gint fd, GIOCondition condition, gpointer data)
{
    struct char_backend *b = data;
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (client >= 0 && b->read_fd >= 0) // one at a time
        close(client);
    else if (client >= 0)
        char_backend_connected(b, client);
    return G_SOURCE_CONTINUE;
}

static bool listen_on(struct char_backend *b, int fd, const void *address, socklen_t length, const char *argument,
                      GError **error)
{
    b->listen_fd = fd;
    b->socket = b->owns_fds = true;
    if (fd < 0 || bind(fd, address, length) != 0 || listen(fd, 1) != 0)
        return fail(error, "listen on", argument, "choose an address that is free and that you may use");
    b->address = g_strdup(argument);
    b->accept_watch = char_backend_watch(b, fd, G_IO_IN, connection_ready);
    return true;
}

static bool open_socket(struct char_backend *b, const char *argument, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(argument) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return fail(error, "listen on", argument, "choose a shorter path");
    }
    strcpy(address.sun_path, argument);
    struct stat st;
    if (lstat(argument, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(argument);
    if (!listen_on(b, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), &address, sizeof(address), argument, error))
        return false;
    chmod(argument, 0600);
    b->unlink_address = true;
    return true;
}

static bool open_tcp(struct char_backend *b, const char *argument, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(argument, ":", 2);
    struct sockaddr_in address = {.sin_family = AF_INET};
    guint64 port = 0;
    if (g_strv_length(parts) != 2 || inet_pton(AF_INET, parts[0], &address.sin_addr) != 1 ||
        !g_ascii_string_to_unsigned(parts[1], 10, 1, 65535, &port, NULL)) {
        errno = EINVAL;
        return fail(error, "listen on", argument, "give tcp:ADDRESS:PORT, for example tcp:127.0.0.1:4000");
    }
    address.sin_port = htons(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    return listen_on(b, fd, &address, sizeof(address), argument, error);
}

static bool open_telnet(struct char_backend *b, const char *argument, GError **error)
{
    b->telnet = telnet_new();
    return open_tcp(b, argument, error);
}

// ---- Clients: the other side may come later, go, and come again ----
static gboolean retry_now(gpointer data)
{
    struct char_backend *b = data;
    char_backend_unwatch(&b->retry);
    char_target_connect(b);
    return G_SOURCE_REMOVE;
}

static void connect_later(struct char_backend *b)
{
    if (b->pending_fd >= 0)
        close(b->pending_fd);
    b->pending_fd = -1;
    b->retry = g_timeout_source_new(RETRY_MS);
    g_source_set_callback(b->retry, retry_now, b, NULL);
    g_source_attach(b->retry, b->context);
}

static void connect_done(struct char_backend *b)
{
    int fd = b->pending_fd;
    b->pending_fd = -1;
    char_backend_connected(b, fd);
}

static gboolean connect_ready(gint fd, GIOCondition condition, gpointer data)
{
    struct char_backend *b = data;
    int problem = 0;
    socklen_t length = sizeof(problem);
    char_backend_unwatch(&b->connect_watch);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &length);
    if (problem)
        connect_later(b);
    else
        connect_done(b);
    return G_SOURCE_REMOVE;
}

void char_target_connect(struct char_backend *b)
{
    b->pending_fd = socket(b->peer.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (b->pending_fd >= 0 && connect(b->pending_fd, (struct sockaddr *)&b->peer, b->peer_length) == 0)
        connect_done(b);
    else if (b->pending_fd >= 0 && errno == EINPROGRESS)
        b->connect_watch = char_backend_watch(b, b->pending_fd, G_IO_OUT | G_IO_ERR | G_IO_HUP, connect_ready);
    else
        connect_later(b);
}

static bool start_client(struct char_backend *b)
{
    b->client = b->socket = b->owns_fds = true;
    char_target_connect(b);
    return true;
}

static bool open_unix_client(struct char_backend *b, const char *argument, GError **error)
{
    struct sockaddr_un *address = (struct sockaddr_un *)&b->peer;
    if (strlen(argument) >= sizeof(address->sun_path)) {
        errno = ENAMETOOLONG;
        return fail(error, "connect to", argument, "choose a shorter path");
    }
    address->sun_family = AF_UNIX;
    strcpy(address->sun_path, argument);
    b->peer_length = sizeof(*address);
    return start_client(b);
}

static bool open_tcp_client(struct char_backend *b, const char *argument, GError **error)
{
    const char *colon = strrchr(argument, ':');
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    g_autofree char *host = colon ? g_strndup(argument, colon - argument) : NULL;
    guint64 port;
    if (!colon || !g_ascii_string_to_unsigned(colon + 1, 10, 1, 65535, &port, NULL) ||
        getaddrinfo(host, colon + 1, &hints, &found) != 0) {
        errno = EINVAL;
        return fail(error, "connect to", argument,
                    "give tcp-client:HOST:PORT with a host that is known, for example tcp-client:127.0.0.1:4000");
    }
    memcpy(&b->peer, found->ai_addr, found->ai_addrlen);
    b->peer_length = found->ai_addrlen;
    freeaddrinfo(found);
    return start_client(b);
}

// ---- Host devices and programs ----
static void set_raw(int fd)
{
    struct termios raw;
    tcgetattr(fd, &raw);
    cfmakeraw(&raw);
    raw.c_cflag |= CLOCAL | CREAD;
    tcsetattr(fd, TCSANOW, &raw);
}

static uint8_t read_modem_lines(struct char_backend *b)
{
    int lines = 0;
    if (ioctl(b->read_fd, TIOCMGET, &lines) < 0)
        return CHAR_CTS | CHAR_DSR | CHAR_DCD;
    return (lines & TIOCM_CTS ? CHAR_CTS : 0) | (lines & TIOCM_DSR ? CHAR_DSR : 0) | (lines & TIOCM_RI ? CHAR_RI : 0) |
           (lines & TIOCM_CD ? CHAR_DCD : 0);
}

static gboolean look_at_modem(gpointer data)
{
    struct char_backend *b = data;
    uint8_t lines = read_modem_lines(b);
    if (lines == b->modem_lines)
        return G_SOURCE_CONTINUE;
    io_lock_take(b->machine_lock);
    b->modem_lines = lines;
    if (b->frontend && b->frontend->lines)
        b->frontend->lines(b->opaque, lines);
    io_lock_release(b->machine_lock);
    return G_SOURCE_CONTINUE;
}

static bool open_device(struct char_backend *b, const char *argument, GError **error)
{
    int fd = open(argument, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), lines;
    b->owns_fds = true;
    b->read_fd = b->write_fd = fd;
    if (fd < 0)
        return fail(
            error, "use the device", argument,
            "name a serial device of this host that you may read and write, such as /dev/ttyS0 or /dev/ttyUSB0; "
            "its group is usually \"dialout\"");
    if (!isatty(fd))
        return fail(error, "use the device", argument, "it is no serial device; use file: for files");
    set_raw(fd);
    b->modem = ioctl(fd, TIOCMGET, &lines) == 0;
    if (b->modem) {
        b->modem_lines = read_modem_lines(b);
        b->modem_watch = g_timeout_source_new(MODEM_MS);
        g_source_set_callback(b->modem_watch, look_at_modem, b, NULL);
        g_source_attach(b->modem_watch, b->context);
    }
    return true;
}

uint8_t char_backend_lines(struct char_backend *b)
{
    bool there = (b->listen_fd < 0 && !b->client) || b->read_fd >= 0;
    return b->modem ? b->modem_lines : CHAR_CTS | CHAR_DSR | (there ? CHAR_DCD : 0);
}

void char_backend_set_lines(struct char_backend *b, bool dtr, bool rts)
{
    int lines = 0;
    if (!b->modem || ioctl(b->write_fd, TIOCMGET, &lines) < 0)
        return;
    lines = (lines & ~(TIOCM_DTR | TIOCM_RTS)) | (dtr ? TIOCM_DTR : 0) | (rts ? TIOCM_RTS : 0);
    ioctl(b->write_fd, TIOCMSET, &lines);
}

static speed_t speed_of(unsigned baud)
{
    static const struct {
        unsigned baud;
        speed_t speed;
    } speeds[] = {{115200, B115200}, {57600, B57600}, {38400, B38400}, {19200, B19200}, {9600, B9600}, {4800, B4800},
                  {2400, B2400},     {1200, B1200},   {600, B600},     {300, B300},     {110, B110},   {50, B50}};
    for (unsigned i = 0; i < G_N_ELEMENTS(speeds); i++)
        if (baud >= speeds[i].baud)
            return speeds[i].speed;
    return B50;
}

void char_backend_set_format(struct char_backend *b, const struct char_format *format)
{
    static const tcflag_t sizes[] = {CS5, CS6, CS7, CS8};
    struct termios mode;
    if (!g_str_has_prefix(b->target, "device:") || tcgetattr(b->write_fd, &mode) < 0)
        return;
    cfsetspeed(&mode, speed_of(format->baud));
    mode.c_cflag &= ~(CSIZE | PARENB | PARODD | CSTOPB);
    mode.c_cflag |= sizes[CLAMP(format->bits, 5, 8) - 5] | (format->two_stops ? CSTOPB : 0) |
                    (format->parity ? PARENB : 0) | (format->odd ? PARODD : 0);
    tcsetattr(b->write_fd, TCSANOW, &mode);
}

static void reap(GPid pid, gint status, gpointer data)
{
    g_spawn_close_pid(pid);
}

static void watch_child(struct char_backend *b)
{
    g_autoptr(GSource) source = g_child_watch_source_new(b->child);
    g_source_set_callback(source, G_SOURCE_FUNC(reap), NULL, NULL);
    g_source_attach(source, b->context);
}

static void prepare_child(gpointer data)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

// The program has one end of a pair of sockets as its standard input and output; its errors go where ours go.
static bool open_program(struct char_backend *b, const char *argument, GError **error)
{
    g_auto(GStrv) words = NULL;
    g_autoptr(GError) why = NULL;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return fail(error, "start", argument, "free some files");
    b->socket = b->owns_fds = true;
    b->read_fd = b->write_fd = pair[0];
    bool done = g_shell_parse_argv(argument, NULL, &words, &why) &&
                g_spawn_async_with_fds(NULL, words, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
                                       prepare_child, NULL, &b->child, pair[1], pair[1], -1, &why);
    close(pair[1]);
    if (done)
        watch_child(b);
    else
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "Cannot start the program \"%s\" (%s): give program:COMMAND with a command that is installed.",
                    argument, why->message);
    return done;
}

void char_target_close(struct char_backend *b)
{
    char_backend_unwatch(&b->retry);
    char_backend_unwatch(&b->connect_watch);
    char_backend_unwatch(&b->modem_watch);
    if (b->pending_fd >= 0)
        close(b->pending_fd);
    if (b->child && b->read_fd >= 0) // not ended by itself
        kill(b->child, SIGTERM);
}

static bool open_pty(struct char_backend *b, const char *argument, GError **error)
{
    char name[64];
    if (openpty(&b->read_fd, &b->terminal_fd, name, NULL, NULL) != 0)
        return fail(error, "open", "a pseudo-terminal", "mount /dev/pts or choose another target");
    set_raw(b->terminal_fd);
    b->write_fd = b->read_fd;
    b->owns_fds = true;
    b->address = g_strdup(name);
    return true;
}

static bool open_null(struct char_backend *b, const char *argument, GError **error)
{
    return true;
}

const struct char_target char_targets[] = {
    {"stdio", false, open_stdio},   {"pty", false, open_pty},          {"null", false, open_null},
    {"file:", true, open_file},     {"socket:", true, open_socket},    {"tcp:", true, open_tcp},
    {"telnet:", true, open_telnet}, {"unix:", true, open_unix_client}, {"tcp-client:", true, open_tcp_client},
    {"device:", true, open_device}, {"program:", true, open_program},  {NULL},
};
