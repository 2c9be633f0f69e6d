// SPDX-License-Identifier: GPL-2.0-or-later
// A protocol fuzzer for the VNC server, built with sanitizers: hostile clients by the dozen (garbage, right messages in
// wrong order or with wrong fields, half a message and silence, readers that never read), while one good client must go
// on getting its updates and the screen goes on changing in content and size.
//     fuzz-vnc [SECONDS [SEED]]      5 seconds and seed 1 by default
#include "ui/vnc/vnc.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HOSTILE 8

static char *path;
static struct surface *surface;
static uint64_t bytes_sent, connections, good_updates;
static int64_t worst_wait; // of the good client, microseconds

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }
    connections++;
    return fd;
}

static void say(int fd, const void *data, size_t length)
{
    ssize_t sent = send(fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    bytes_sent += sent > 0 ? sent : 0;
}

static void drain(int fd)
{
    char waste[65536];
    while (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) > 0)
        ;
}

// ---- Hostile clients ----
static void put32(uint8_t *to, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        to[i] = value >> (24 - 8 * i);
}

static uint32_t odd_number(GRand *rand)
{
    static const uint32_t odd[] = {0,      1,      2,       7,          0x7f,       0xff,      0x7fff,
                                   0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff};
    return g_rand_boolean(rand) ? odd[g_rand_int_range(rand, 0, G_N_ELEMENTS(odd))] : g_rand_int(rand);
}

static void handshake(GRand *rand, int fd)
{
    static const char *const versions[] = {"RFB 003.008\n", "RFB 003.007\n", "RFB 003.003\n",
                                           "RFB 003.889\n", "RFB 004.001\n", "GET / HTTP/1.0\r\n\r\n"};
    unsigned which = g_rand_int_range(rand, 0, 12);
    const char *version = versions[which < G_N_ELEMENTS(versions) ? which : 0];
    say(fd, version, strlen(version));
    uint8_t rest[2] = {g_rand_int_range(rand, 0, 10) ? 1 : g_rand_int(rand), g_rand_int(rand)};
    if (version == versions[2])
        say(fd, rest + 1, 1);
    else
        say(fd, rest, 2);
}

static const int32_t encodings[] = {0,    1,    2,    4,          5,    6,    7,    8,    9,         15,   16,
                                    17,   -239, -240, -232,       -223, -308, -258, -261, -257,      -256, -247,
                                    -224, -305, -307, 0xC0A1E5CE, -260, -32,  -26,  -23,  0x7fffffff};

// A message of a known type whose fields are anything.
static size_t message(GRand *rand, uint8_t *to, size_t room)
{
    static const uint8_t types[] = {0, 2, 3, 4, 5, 6, 250, 251, 255, 248, 7};
    static const uint8_t lengths[] = {20, 4, 10, 8, 6, 8, 4, 8, 12, 10, 4};
    unsigned which = g_rand_int_range(rand, 0, G_N_ELEMENTS(types) + 12);
    which = which < G_N_ELEMENTS(types) ? which : which % 6;
    size_t length = lengths[which];
    memset(to, 0, length);
    to[0] = types[which];
    for (size_t i = 1; i < length; i++)
        to[i] = g_rand_int_range(rand, 0, 3) ? 0 : odd_number(rand);
    if (to[0] == 0 && g_rand_int_range(rand, 0, 3)) { // a pixel format that may be good
        static const uint8_t good[20] = {0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0};
        memcpy(to, good, 20);
        to[4] = 8 << g_rand_int_range(rand, 0, 3);
        to[5 + g_rand_int_range(rand, 0, 15)] = odd_number(rand);
    }
    if (to[0] == 2) {
        unsigned count = g_rand_int_range(rand, 0, 40);
        to[2] = g_rand_int_range(rand, 0, 40) ? 0 : 0xff;
        to[3] = count;
        for (unsigned i = 0; i < count; i++, length += 4)
            put32(to + length, g_rand_int_range(rand, 0, 20)
                                   ? (uint32_t)encodings[g_rand_int_range(rand, 0, G_N_ELEMENTS(encodings))]
                                   : g_rand_int(rand));
    }
    if (to[0] == 6) { // clipboard, plain and extended
        unsigned count = g_rand_int_range(rand, 0, 400);
        bool extended = g_rand_boolean(rand);
        put32(to + 4, g_rand_int_range(rand, 0, 10) == 0 ? odd_number(rand) : extended ? -count : count);
        for (unsigned i = 0; i < count; i++)
            to[length++] = g_rand_int(rand);
        if (extended && count > 4)
            put32(to + 8, 1u << g_rand_int_range(rand, 24, 32) | g_rand_int_range(rand, 0, 4));
        if (extended && count > 40) { // a stream that inflates
            static const uint8_t zlib[] = {0x78, 0x9c, 0x63, 0x60, 0x60, 0x60, 0xcf, 0x48, 0xcd,
                                           0xc9, 0xc9, 0x67, 0x00, 0x00, 0x0c, 0x49, 0x02, 0x1b};
            memcpy(to + 12, zlib, sizeof(zlib));
        }
    }
    if (to[0] == 251) {
        unsigned count = g_rand_int_range(rand, 0, 4);
        to[6] = g_rand_int_range(rand, 0, 20) ? count : 255;
        to[2] = to[4] = g_rand_int_range(rand, 0, 5);
        for (unsigned i = 0; i < 16 * count; i++)
            to[length++] = g_rand_int(rand);
    }
    return MIN(length, room);
}

static void attack(GRand *rand, int fd)
{
    uint8_t bytes[4096];
    unsigned count = g_rand_int_range(rand, 1, 30);
    for (unsigned i = 0; i < count; i++) {
        size_t length = message(rand, bytes, sizeof(bytes));
        if (g_rand_int_range(rand, 0, 12) == 0)
            bytes[g_rand_int_range(rand, 0, length)] ^= 1 << g_rand_int_range(rand, 0, 8);
        if (g_rand_int_range(rand, 0, 60) == 0)
            length = g_rand_int_range(rand, 0, length + 1);
        say(fd, bytes, length);
    }
    if (g_rand_int_range(rand, 0, 3))
        drain(fd); // else a reader that does not read
}

// ---- The good client ----
static bool take(int fd, void *data, size_t length)
{
    for (size_t done = 0; done < length;) {
        struct pollfd one = {fd, POLLIN, 0};
        if (poll(&one, 1, 20000) <= 0)
            return false;
        ssize_t got = recv(fd, (char *)data + done, length - done, 0);
        if (got <= 0)
            return false;
        done += got;
    }
    return true;
}

static bool take_rectangle(int fd, uint8_t *pixels)
{
    uint8_t head[12];
    if (!take(fd, head, 12))
        return false;
    unsigned width = head[4] << 8 | head[5], height = head[6] << 8 | head[7];
    int32_t encoding = (uint32_t)head[8] << 24 | head[9] << 16 | head[10] << 8 | head[11];
    return encoding == -223 || take(fd, pixels, (size_t)width * height * 4);
}

// The next update, past other messages.
static bool take_update(int fd, uint8_t *pixels)
{
    static const uint8_t ask[10] = {3, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};
    uint8_t type, rest[8];
    say(fd, ask, sizeof(ask));
    for (;;) {
        if (!take(fd, &type, 1))
            return false;
        if (type == 0)
            break;
        if (type == 2)
            continue;
        uint32_t length = 0;
        if (type != 3 || !take(fd, rest, 7))
            return false;
        for (unsigned i = 3; i < 7; i++)
            length = length << 8 | rest[i];
        if (!take(fd, pixels, length) || length != strlen("text ? from the guest"))
            return false;
    }
    if (!take(fd, rest, 3))
        return false;
    for (unsigned count = rest[1] << 8 | rest[2]; count; count--)
        if (!take_rectangle(fd, pixels))
            return false;
    return true;
}

struct good {
    _Atomic bool quit, gone, failed; // to the client; from it; it was cut off
};

static void *good_client(void *opaque)
{
    static const uint8_t hello[] = "RFB 003.008\n\1\1", setup[] = {2, 0, 0, 2, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x21};
    struct good *good = opaque;
    g_autofree uint8_t *pixels = g_malloc(4 * MiB);
    int fd = dial();
    uint8_t head[12 + 2 + 4 + 24 + 64];
    say(fd, hello, 14);
    // version, one security type, result, geometry and the name "fuzz"
    bool fine = take(fd, head, 12 + 2 + 4 + 24 + 4);
    say(fd, setup, sizeof(setup));
    while (fine && !good->quit) {
        int64_t asked = g_get_monotonic_time();
        fine = take_update(fd, pixels);
        worst_wait = MAX(worst_wait, g_get_monotonic_time() - asked);
        good_updates += fine;
    }
    good->failed = !fine;
    good->gone = true;
    close(fd);
    return NULL;
}

// The library (0.9.14) loses 24 bytes on each size that a client asks for, of which the server takes a thousand.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:rfbGetClientIterator\n";
}

// ---- The guest ----
// Paints as long as the good client waits for an update.
static void *guest(void *opaque)
{
    struct good *good = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);
    while (!good->gone) {
        if (g_rand_int_range(rand, 0, 50) == 0)
            surface_resize(surface, g_rand_int_range(rand, 1, 900), g_rand_int_range(rand, 1, 700));
        struct pixels *pixels = surface_pixels(surface);
        unsigned y = g_rand_int_range(rand, 0, pixels->height);
        memset(pixels->data + (size_t)y * pixels->stride, g_rand_int(rand), pixels->stride);
        surface_damage(surface, &(struct rectangle){0, y, pixels->width, 1});
        pixels_unref(pixels);
        if (g_rand_int_range(rand, 0, 20) == 0)
            surface_set_cursor(surface,
                               g_rand_boolean(rand) ? cursor_new(g_rand_int_range(rand, 1, 65), 16, 3, 3) : NULL);
        surface_move_cursor(surface, g_rand_int_range(rand, -10, 900), g_rand_int_range(rand, -10, 700));
        g_usleep(3000);
    }
    return NULL;
}

static void on_wish(void *opaque, unsigned width, unsigned height)
{
}
static const struct surface_adapter_ops adapter = {.ui_size = on_wish};

static void on_clipboard(void *opaque, const char *text)
{
    if (!g_utf8_validate(text, -1, NULL))
        g_error("a clipboard text that is not UTF-8");
}

static void rage(GRand *rand, struct vnc_server *server, int64_t end, const struct good *good)
{
    int fds[HOSTILE];
    for (unsigned i = 0; i < HOSTILE; i++)
        fds[i] = -1;
    while (g_get_monotonic_time() < end && !good->failed) {
        unsigned i = g_rand_int_range(rand, 0, HOSTILE);
        if (fds[i] >= 0 && g_rand_int_range(rand, 0, 6) == 0) {
            close(fds[i]);
            fds[i] = -1;
        }
        if (fds[i] < 0 && (fds[i] = dial()) >= 0)
            handshake(rand, fds[i]);
        if (fds[i] >= 0)
            attack(rand, fds[i]);
        if (g_rand_int_range(rand, 0, 40) == 0)
            vnc_server_set_clipboard(server, "text \xe2\x82\xac from the guest");
        g_usleep(200);
    }
    for (unsigned i = 0; i < HOSTILE; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? g_ascii_strtod(argv[1], NULL) : 5;
    g_autoptr(GRand) rand = g_rand_new_with_seed(argc > 2 ? atoi(argv[2]) : 1);
    g_autoptr(GError) error = NULL;
    char *folder = g_dir_make_tmp("cloche-fuzz-XXXXXX", NULL);
    path = g_build_filename(folder, "vnc", NULL);
    g_autofree char *where = g_strdup_printf("unix:%s,clients=40", path);
    struct screen *screen = screen_new(NULL);
    struct input *input = input_new(NULL);
    surface = surface_new(screen, &adapter, NULL);
    surface_resize(surface, 640, 480);
    struct vnc_options options = {.where = where, .name = "fuzz", .clipboard = on_clipboard};
    struct vnc_server *server = vnc_server_new(screen, input, &options, &error);
    if (!server)
        g_error("%s", error->message);
    struct good good = {false};
    GThread *client = g_thread_new("good", good_client, &good), *painter = g_thread_new("guest", guest, &good);
    rage(rand, server, g_get_monotonic_time() + seconds * G_USEC_PER_SEC, &good);
    good.quit = true;
    g_thread_join(client);
    g_thread_join(painter);
    vnc_server_free(server);
    input_free(input);
    screen_free(screen);
    rmdir(folder);
    printf("%" PRIu64 " hostile connections, %" PRIu64 " bytes; the good client got %" PRIu64
           " updates, waited %.0f ms at most%s\n",
           connections - 1, bytes_sent, good_updates, worst_wait / 1e3, good.failed ? ": it was cut off" : "");
    g_free(folder);
    g_free(path);
    return good.failed || good_updates < seconds * 4 ? EXIT_FAILURE : EXIT_SUCCESS;
}
