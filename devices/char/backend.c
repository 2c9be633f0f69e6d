// SPDX-License-Identifier: GPL-2.0-or-later
#include "devices/char/backend_private.h"
#include "core/memory/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <poll.h>
#include <pty.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <termios.h>
#include <unistd.h>

#define BUSY_BYTES    (64 * KiB)
#define UNHEARD_BYTES (64 * KiB) // kept for the first listener of a socket
#define CHUNK         512
#define ESCAPE        0x01 // Ctrl-A

// ---- Terminal ----
// The process has one terminal, so this is the one place with state of the process.
static struct termios saved_terminal;
static volatile bool terminal_changed;
static void (*terminal_quit)(void *opaque);
static void *terminal_quit_opaque;

void char_backend_on_quit(void (*fn)(void *opaque), void *opaque)
{
    terminal_quit = fn;
    terminal_quit_opaque = opaque;
}

void char_backend_restore_terminal(void)
{
    if (terminal_changed)
        tcsetattr(STDIN_FILENO, TCSANOW, &saved_terminal);
    terminal_changed = false;
}

void char_backend_take_terminal(void)
{
    struct termios raw;
    if (terminal_changed || tcgetattr(STDIN_FILENO, &saved_terminal) != 0)
        return;
    raw = saved_terminal;
    raw.c_iflag &= ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_lflag &= ~(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    raw.c_cflag = (raw.c_cflag & ~(CSIZE | PARENB)) | CS8;
    terminal_changed = true;
    atexit(char_backend_restore_terminal);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

// ---- Sources on the main loop ----
GSource *char_backend_watch(struct char_backend *b, int fd, GIOCondition condition, GUnixFDSourceFunc fn)
{
    GSource *source = g_unix_fd_source_new(fd, condition);
    g_source_set_callback(source, G_SOURCE_FUNC(fn), b, NULL);
    g_source_attach(source, b->context);
    return source;
}

void char_backend_unwatch(GSource **source)
{
    if (*source)
        g_source_destroy(*source);
    g_clear_pointer(source, g_source_unref);
}

// ---- Output ----
// Somebody may still come: what is said meanwhile is kept.
static bool waits_for_peer(const struct char_backend *b)
{
    return b->listen_fd >= 0 || b->client;
}

static ssize_t write_some(struct char_backend *b)
{
    size_t length = MIN(b->out->len, CHUNK);
    if (b->socket)
        return send(b->write_fd, b->out->data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    struct pollfd ready = {.fd = b->write_fd, .events = POLLOUT};
    if (poll(&ready, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(b->write_fd, b->out->data, length);
}

// Writes what the other side takes now. Lock held. False: it would block.
static bool flush_output(struct char_backend *b)
{
    while (b->out->len && b->write_fd >= 0) {
        ssize_t done = write_some(b);
        if (done > 0) {
            g_byte_array_remove_range(b->out, 0, done);
        } else if (done < 0 && (errno == EAGAIN || errno == EINTR)) {
            return false;
        } else {
            if (!waits_for_peer(b)) // the other side is gone for good
                g_byte_array_set_size(b->out, 0);
            return true;
        }
    }
    return true;
}

static gboolean output_ready(gint fd, GIOCondition condition, gpointer data)
{
    struct char_backend *b = data;
    g_mutex_lock(&b->lock);
    bool done = flush_output(b);
    bool drained = b->was_busy && b->out->len < BUSY_BYTES / 2;
    if (drained)
        b->was_busy = false;
    if (done)
        g_clear_pointer(&b->out_watch, g_source_unref);
    g_mutex_unlock(&b->lock);
    if (drained && b->frontend && b->frontend->drained) {
        io_lock_take(b->machine_lock);
        b->frontend->drained(b->opaque);
        io_lock_release(b->machine_lock);
    }
    return done ? G_SOURCE_REMOVE : G_SOURCE_CONTINUE;
}

void char_backend_write(struct char_backend *b, const void *data, size_t length)
{
    g_mutex_lock(&b->lock);
    if (b->telnet)
        telnet_encode(b->telnet, b->out, data, length);
    else if (b->write_fd >= 0 || waits_for_peer(b))
        g_byte_array_append(b->out, data, length);
    if (b->write_fd < 0 && b->out->len > UNHEARD_BYTES)
        g_byte_array_remove_range(b->out, 0, b->out->len - UNHEARD_BYTES);
    if (!b->out_watch && !flush_output(b))
        b->out_watch = char_backend_watch(b, b->write_fd, G_IO_OUT | G_IO_ERR | G_IO_HUP, output_ready);
    g_mutex_unlock(&b->lock);
}

bool char_backend_busy(struct char_backend *b)
{
    g_mutex_lock(&b->lock);
    bool busy = b->write_fd >= 0 && b->out->len >= BUSY_BYTES;
    b->was_busy |= busy;
    g_mutex_unlock(&b->lock);
    return busy;
}

// ---- Input ----
// Takes Ctrl-A x (quit) and Ctrl-A Ctrl-A (one Ctrl-A) out of what a person types. Returns the bytes left.
static unsigned filter_escapes(struct char_backend *b, uint8_t *data, unsigned length)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < length; i++) {
        if (!b->escaped && data[i] == ESCAPE) {
            b->escaped = true;
            continue;
        }
        if (b->escaped && (data[i] == 'x' || data[i] == 'X') && terminal_quit)
            terminal_quit(terminal_quit_opaque);
        else
            data[kept++] = data[i];
        b->escaped = false;
    }
    return kept;
}

static void disconnect(struct char_backend *b);

static gboolean input_ready(gint fd, GIOCondition condition, gpointer data)
{
    struct char_backend *b = data;
    uint8_t bytes[CHUNK];
    io_lock_take(b->machine_lock);
    unsigned room = b->frontend ? b->frontend->can_receive(b->opaque) : 0;
    gboolean keep = G_SOURCE_CONTINUE;
    if (room) {
        ssize_t count = read(fd, bytes, MIN(room, sizeof(bytes)));
        if (count > 0) {
            unsigned length = b->telnet     ? telnet_decode(b->telnet, bytes, count)
                              : b->terminal ? filter_escapes(b, bytes, count)
                                            : count;
            if (length)
                b->frontend->receive(b->opaque, bytes, length);
        } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
            disconnect(b);
            keep = G_SOURCE_REMOVE;
        }
    } else { // until char_backend_accept_input()
        char_backend_unwatch(&b->in_watch);
        keep = G_SOURCE_REMOVE;
    }
    io_lock_release(b->machine_lock);
    return keep;
}

static gboolean start_input(gpointer data)
{
    struct char_backend *b = data;
    if (b->read_fd >= 0 && b->frontend && !b->in_watch)
        b->in_watch = char_backend_watch(b, b->read_fd, G_IO_IN | G_IO_HUP | G_IO_ERR, input_ready);
    return G_SOURCE_REMOVE;
}

void char_backend_accept_input(struct char_backend *b)
{
    if (b->read_fd < 0 || b->in_watch)
        return;
    GSource *source = g_idle_source_new();
    g_source_set_callback(source, start_input, b, NULL);
    g_source_attach(source, b->context);
    g_source_unref(source);
}

void char_backend_attach(struct char_backend *b, const struct char_frontend *frontend, void *opaque)
{
    b->frontend = frontend;
    b->opaque = opaque;
    start_input(b);
}

// ---- Connections ----
void char_backend_connected(struct char_backend *b, int fd)
{
    g_mutex_lock(&b->lock);
    b->read_fd = b->write_fd = fd;
    if (b->telnet)
        telnet_start(b->telnet, b->out);
    if (!b->out_watch && !flush_output(b))
        b->out_watch = char_backend_watch(b, fd, G_IO_OUT | G_IO_ERR | G_IO_HUP, output_ready);
    g_mutex_unlock(&b->lock);
    start_input(b);
    if (b->frontend && b->frontend->connected) {
        io_lock_take(b->machine_lock);
        b->frontend->connected(b->opaque, true);
        io_lock_release(b->machine_lock);
    }
}

// The other side is gone. Machine lock held. What it did not take is kept for the next one.
static void disconnect(struct char_backend *b)
{
    char_backend_unwatch(&b->in_watch);
    if (!waits_for_peer(b) && !b->child) { // end of standard input: output goes on
        b->read_fd = -1;
        return;
    }
    g_mutex_lock(&b->lock);
    char_backend_unwatch(&b->out_watch);
    close(b->read_fd);
    b->read_fd = b->write_fd = -1;
    b->was_busy = false;
    g_mutex_unlock(&b->lock);
    if (b->frontend && b->frontend->drained)
        b->frontend->drained(b->opaque);
    if (b->frontend && b->frontend->connected)
        b->frontend->connected(b->opaque, false);
    if (b->client)
        char_target_connect(b);
}

// ---- Life ----
struct char_backend *char_backend_open(const char *target, GMainContext *context, GRecMutex *machine_lock,
                                       GError **error)
{
    struct char_backend *b = g_new0(struct char_backend, 1);
    b->context = context;
    b->machine_lock = machine_lock;
    b->target = g_strdup(target);
    b->read_fd = b->write_fd = b->listen_fd = b->terminal_fd = b->pending_fd = -1;
    b->out = g_byte_array_new();
    g_mutex_init(&b->lock);
    for (const struct char_target *kind = char_targets; kind->name; kind++) {
        size_t length = strlen(kind->name);
        bool match =
            kind->argument ? g_str_has_prefix(target, kind->name) && target[length] : strcmp(target, kind->name) == 0;
        if (!match)
            continue;
        if (kind->open(b, target + length, error))
            return b;
        char_backend_free(b);
        return NULL;
    }
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                "There is no target %s: use stdio, pty, null, file:PATH, socket:PATH, tcp:ADDRESS:PORT, "
                "telnet:ADDRESS:PORT, unix:PATH, tcp-client:HOST:PORT, device:PATH or program:COMMAND.",
                target);
    char_backend_free(b);
    return NULL;
}

char *char_backend_describe(struct char_backend *b)
{
    if (b->listen_fd >= 0) {
        const char *away = b->read_fd < 0 ? "disconnected:" : "";
        const char *kind = g_str_has_prefix(b->target, "socket:") ? "unix" : b->telnet ? "telnet" : "tcp";
        return g_strdup_printf("%s%s:%s,server=on", away, kind, b->address);
    }
    if (b->client)
        return g_strdup_printf("%s%s:%s", b->read_fd < 0 ? "disconnected:" : "",
                               b->peer.ss_family == AF_UNIX ? "unix" : "tcp", strchr(b->target, ':') + 1);
    return b->address ? g_strconcat("pty:", b->address, NULL) : g_strdup(b->target);
}

void char_backend_free(struct char_backend *b)
{
    if (!b)
        return;
    g_mutex_lock(&b->lock);
    gint64 end = g_get_monotonic_time() + 2 * G_TIME_SPAN_SECOND;
    while (b->write_fd >= 0 && !flush_output(b) && g_get_monotonic_time() < end) {
        struct pollfd ready = {.fd = b->write_fd, .events = POLLOUT};
        poll(&ready, 1, 100);
    }
    char_backend_unwatch(&b->out_watch);
    g_mutex_unlock(&b->lock);
    char_backend_unwatch(&b->in_watch);
    char_backend_unwatch(&b->accept_watch);
    char_target_close(b);
    for (GSource *pending; (pending = g_main_context_find_source_by_user_data(b->context, b));)
        g_source_destroy(pending);
    if (b->terminal)
        char_backend_restore_terminal();
    if (b->owns_fds) {
        if (b->read_fd >= 0)
            close(b->read_fd);
        if (b->write_fd >= 0 && b->write_fd != b->read_fd)
            close(b->write_fd);
        if (b->listen_fd >= 0)
            close(b->listen_fd);
        if (b->terminal_fd >= 0)
            close(b->terminal_fd);
    }
    if (b->unlink_address)
        unlink(b->address);
    telnet_free(b->telnet);
    g_byte_array_unref(b->out);
    g_mutex_clear(&b->lock);
    g_free(b->address);
    g_free(b->target);
    g_free(b);
}

const char *char_backend_address(struct char_backend *b)
{
    return b->address;
}
