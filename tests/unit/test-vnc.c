// SPDX-License-Identifier: GPL-2.0-or-later
// The VNC server on a fake machine: a test surface and an input handler that logs. A small client of the test's own
// speaks to it; real viewers do so in tests/vnc. The last test sends it what no client should.
#include "core/screen/input.h"
#include "core/screen/surface.h"
#include "ui/vnc/vnc.h"

#include <check.h>
#include <fcntl.h>
#include <errno.h>
#include <gio/gio.h>
#include <linux/input-event-codes.h>
#include <poll.h>
#include <rfb/rfbproto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

// ---- The fake machine ----
static struct screen *screen;
static struct surface *surface;
static struct input *input;
static struct vnc_server *server;
static struct input_handler keyboard, tablet;
static GString *events;
static GMutex events_lock;
static _Atomic unsigned wish_width, wish_height;
static char *folder, *path;
static char *clipboard;

static void log_event(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_mutex_lock(&events_lock);
    g_string_append_vprintf(events, format, args);
    g_mutex_unlock(&events_lock);
    va_end(args);
}

static void on_key(void *opaque, unsigned code, bool down)
{
    log_event("%c%u ", down ? '+' : '-', code);
}

static void on_button(void *opaque, enum input_button button, bool down)
{
    log_event("b%d%c ", button, down ? '+' : '-');
}

static void on_move(void *opaque, unsigned x, unsigned y)
{
    struct pixels *pixels = surface_pixels(surface);
    log_event("@%u,%u ", x * pixels->width / 32768, y * pixels->height / 32768);
    pixels_unref(pixels);
}

static void on_wish(void *opaque, unsigned width, unsigned height)
{
    wish_width = width;
    wish_height = height;
}

static const struct surface_adapter_ops adapter = {.ui_size = on_wish};

static void on_clipboard(void *opaque, const char *text)
{
    g_mutex_lock(&events_lock);
    g_free(clipboard);
    clipboard = g_strdup(text);
    g_mutex_unlock(&events_lock);
}

static bool seen(const char *text)
{
    for (unsigned i = 0; i < 500; i++) {
        g_mutex_lock(&events_lock);
        bool found = strstr(events->str, text);
        g_mutex_unlock(&events_lock);
        if (found)
            return true;
        g_usleep(10000);
    }
    return false;
}

static uint32_t shade(unsigned x, unsigned y)
{
    return (x * 7 & 255) << 16 | (y * 3 & 255) << 8 | ((x ^ y) & 255);
}

static void paint(void)
{
    struct pixels *pixels = surface_pixels(surface);
    for (unsigned y = 0; y < pixels->height; y++)
        for (unsigned x = 0; x < pixels->width; x++)
            ((uint32_t *)(void *)(pixels->data + (size_t)y * pixels->stride))[x] = shade(x, y);
    surface_damage(surface, &(struct rectangle){0, 0, pixels->width, pixels->height});
    pixels_unref(pixels);
}

static void fill(int x, int y, int width, int height, uint32_t colour)
{
    struct pixels *pixels = surface_pixels(surface);
    for (int row = y; row < y + height; row++)
        for (int column = x; column < x + width; column++)
            ((uint32_t *)(void *)(pixels->data + (size_t)row * pixels->stride))[column] = colour;
    surface_damage(surface, &(struct rectangle){x, y, width, height});
    pixels_unref(pixels);
}

static void start(const char *options, const char *password_file)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *where = g_strdup_printf("unix:%s%s", path, options);
    struct vnc_options o = {.where = where, .name = "test", .password_file = password_file, .clipboard = on_clipboard};
    server = vnc_server_new(screen, input, &o, &error);
    ck_assert_msg(server, "%s", error ? error->message : "");
}

static void setup(void)
{
    events = g_string_new("");
    folder = g_dir_make_tmp("cloche-vnc-XXXXXX", NULL);
    path = g_build_filename(folder, "vnc.sock", NULL);
    screen = screen_new(NULL);
    surface = surface_new(screen, &adapter, NULL);
    surface_resize(surface, 800, 600);
    paint();
    input = input_new(NULL);
    keyboard = (struct input_handler){.name = "keyboard", .keyboard = true, .key = on_key};
    tablet = (struct input_handler){.name = "tablet", .absolute = true, .button = on_button, .move_absolute = on_move};
    input_add_handler(input, &keyboard);
    input_add_handler(input, &tablet);
    input_activate(input, &tablet);
}

static void teardown(void)
{
    vnc_server_free(server);
    server = NULL;
    input_free(input);
    screen_free(screen);
    rmdir(folder);
    g_free(folder);
    g_free(path);
    g_free(clipboard);
    clipboard = NULL;
    g_string_free(events, TRUE);
}

// ---- The client ----
struct client {
    int fd;
    unsigned width, height;
    uint32_t *picture;
    unsigned updates, rectangles, resizes, cursors, keys_told, leds;
    int64_t area;            // of the last update's pixels
    unsigned reason, result; // of the last ExtendedDesktopSize
};

static void put(struct client *c, const void *data, size_t length)
{
    ck_assert_int_eq(send(c->fd, data, length, MSG_NOSIGNAL), (ssize_t)length);
}

// False: the server hung up, or said nothing for five seconds.
static bool get(struct client *c, void *data, size_t length)
{
    for (size_t done = 0; done < length;) {
        struct pollfd fd = {c->fd, POLLIN, 0};
        if (poll(&fd, 1, 5000) <= 0)
            return false;
        ssize_t got = recv(c->fd, (char *)data + done, length - done, 0);
        if (got <= 0)
            return false;
        done += got;
    }
    return true;
}

static unsigned be16(const uint8_t *p)
{
    return p[0] << 8 | p[1];
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)be16(p) << 16 | be16(p + 2);
}

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

// Up to the server's list of security types; returns the one type it offers, 0 when it hung up.
static unsigned begin(struct client *c)
{
    uint8_t version[12], types[2];
    *c = (struct client){.fd = dial()};
    if (!get(c, version, 12))
        return 0;
    ck_assert_int_eq(memcmp(version, "RFB 003.008\n", 12), 0);
    put(c, "RFB 003.008\n", 12);
    if (!get(c, types, 2))
        return 0;
    ck_assert_uint_eq(types[0], 1);
    return types[1];
}

static bool finish(struct client *c, bool shared)
{
    uint8_t result[4], head[24], flag = shared;
    if (!get(c, result, 4) || be32(result) != 0)
        return false;
    put(c, &flag, 1);
    if (!get(c, head, 24))
        return false;
    c->width = be16(head);
    c->height = be16(head + 2);
    c->picture = g_new0(uint32_t, 4096 * 4096 / 4);
    g_autofree char *name = g_malloc(be32(head + 20) + 1);
    ck_assert(get(c, name, be32(head + 20)));
    static const uint8_t format[20] = {0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0};
    put(c, format, 20);
    return true;
}

static void set_encodings(struct client *c, const int32_t *list, unsigned count)
{
    uint8_t message[64] = {2, 0, 0, count};
    for (unsigned i = 0; i < count; i++)
        for (unsigned k = 0; k < 4; k++)
            message[4 + 4 * i + k] = (uint32_t)list[i] >> (24 - 8 * k);
    put(c, message, 4 + 4 * count);
}

static void hello(struct client *c)
{
    static const int32_t encodings[] = {0, -223, -308, -239, -258, -261};
    ck_assert_uint_eq(begin(c), 1);
    put(c, "\1", 1);
    ck_assert(finish(c, true));
    set_encodings(c, encodings, 6);
}

static bool hello_password(struct client *c, const char *password)
{
    uint8_t challenge[16];
    ck_assert_uint_eq(begin(c), 2);
    put(c, "\2", 1);
    ck_assert(get(c, challenge, 16));
    g_autofree char *copy = g_strdup(password);
    rfbEncryptBytes(challenge, copy);
    put(c, challenge, 16);
    return finish(c, true);
}

static void bye(struct client *c)
{
    close(c->fd);
    g_free(c->picture);
}

static void request(struct client *c, bool incremental)
{
    uint8_t message[10] = {3, incremental, 0, 0, 0, 0, c->width >> 8, c->width, c->height >> 8, c->height};
    put(c, message, 10);
}

static bool get_rectangle(struct client *c)
{
    uint8_t head[12], size[4], screens[16];
    if (!get(c, head, 12))
        return false;
    unsigned x = be16(head), y = be16(head + 2), width = be16(head + 4), height = be16(head + 6);
    int32_t encoding = be32(head + 8);
    c->rectangles++;
    switch (encoding) {
    case 0:
        for (unsigned row = 0; row < height; row++)
            if (!get(c, c->picture + (y + row) * c->width + x, 4 * width))
                return false;
        c->area += width * height;
        return true;
    case -308:
        if (!get(c, size, 4))
            return false;
        for (unsigned i = 0; i < size[0]; i++)
            if (!get(c, screens, 16))
                return false;
        c->result = y;
        if (width != c->width || height != c->height) {
            c->reason = x;
            c->resizes++;
        }
        c->width = width;
        c->height = height;
        return true;
    case -239: {
        g_autofree uint8_t *shape = g_malloc(width * height * 4 + (width + 7) / 8 * height + 1);
        c->cursors++;
        return get(c, shape, width * height * 4 + (width + 7) / 8 * height);
    }
    case -258:
        c->keys_told++;
        return true;
    case -261:
        return get(c, size, 1) && ((c->leds = size[0]), true);
    }
    ck_abort_msg("encoding %d was not asked for", encoding);
}

// Takes messages until a framebuffer update is over. False: hung up or silent.
static bool take_update(struct client *c)
{
    for (;;) {
        uint8_t type, rest[7];
        if (!get(c, &type, 1))
            return false;
        if (type == 3) {
            ck_assert(get(c, rest, 7));
            g_autofree uint8_t *text = g_malloc(be32(rest + 3) + 1);
            ck_assert(get(c, text, be32(rest + 3)));
            continue;
        }
        if (type == 2)
            continue;
        ck_assert_uint_eq(type, 0);
        ck_assert(get(c, rest, 3));
        c->area = 0;
        for (unsigned i = be16(rest + 1); i > 0; i--)
            if (!get_rectangle(c))
                return false;
        c->updates++;
        return true;
    }
}

static bool ck_take(struct client *c)
{
    ck_assert(take_update(c));
    return true;
}

static void take_picture(struct client *c)
{
    request(c, false);
    ck_assert(take_update(c));
    while (c->area == 0) {
        request(c, true);
        ck_assert(take_update(c));
    }
}

static void check_picture(const struct client *c)
{
    for (unsigned y = 0; y < c->height; y++)
        for (unsigned x = 0; x < c->width; x++)
            ck_assert_uint_eq(c->picture[y * c->width + x], shade(x, y));
}

static void send_key(struct client *c, bool down, uint32_t keysym)
{
    put(c, (uint8_t[]){4, down, 0, 0, keysym >> 24, keysym >> 16, keysym >> 8, keysym}, 8);
}

static void send_pointer(struct client *c, unsigned buttons, unsigned x, unsigned y)
{
    put(c, (uint8_t[]){5, buttons, x >> 8, x, y >> 8, y}, 6);
}

// ---- Pictures ----
START_TEST(pictures_and_small_updates)
{
    struct client c;
    start("", NULL);
    hello(&c);
    take_picture(&c);
    ck_assert_uint_eq(c.width, 800);
    check_picture(&c);
    request(&c, true);
    struct pollfd quiet = {c.fd, POLLIN, 0};
    while (poll(&quiet, 1, 300) > 0) { // nothing but what it has to tell once
        ck_assert(take_update(&c));
        ck_assert_int_eq(c.area, 0);
        request(&c, true);
    }
    unsigned before = c.updates;
    fill(403, 301, 8, 8, 0x123456);
    while (ck_take(&c) && c.area == 0)
        request(&c, true);
    ck_assert_int_le(c.area, 64 * 64);
    ck_assert_uint_eq(c.picture[301 * 800 + 403], 0x123456);
    ck_assert_uint_eq(c.picture[308 * 800 + 410], 0x123456);
    ck_assert_uint_eq(c.picture[300 * 800 + 403], shade(403, 300));
    ck_assert_uint_eq(c.updates, before + 1);
    bye(&c);
}
END_TEST

START_TEST(at_most_sixty_updates_and_about_that_many)
{
    struct client c;
    start("", NULL);
    hello(&c);
    take_picture(&c);
    int64_t end = g_get_monotonic_time() + 2 * G_USEC_PER_SEC;
    unsigned count = 0;
    for (unsigned i = 0; g_get_monotonic_time() < end; i++) {
        fill(100, 100, 64, 64, i);
        request(&c, true);
        ck_assert(take_update(&c));
        count += c.area > 0;
    }
    ck_assert_uint_le(count, 135);
    ck_assert_uint_ge(count, 20);
    bye(&c);
}
END_TEST

START_TEST(sizes_in_both_directions)
{
    struct client c;
    start("", NULL);
    hello(&c);
    take_picture(&c);
    put(&c, (uint8_t[]){251, 0, 1024 >> 8, 0, 768 >> 8, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 4, 0, 3, 0, 0, 0, 0, 0}, 24);
    for (unsigned i = 0; i < 500 && wish_width != 1024; i++)
        g_usleep(10000);
    ck_assert_uint_eq(wish_width, 1024);
    ck_assert_uint_eq(wish_height, 768);
    surface_resize(surface, 1024, 768); // the guest follows
    paint();
    while (!c.resizes) {
        request(&c, true);
        ck_assert(take_update(&c));
    }
    ck_assert_uint_eq(c.width, 1024);
    ck_assert_uint_eq(c.reason, 1); // as this client asked
    ck_assert_uint_eq(c.result, 0);
    take_picture(&c);
    check_picture(&c);
    surface_set_adapter(surface, NULL, NULL); // an adapter that cannot
    put(&c, (uint8_t[]){251, 0, 2, 0, 2, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 2, 0, 0, 0, 0, 0}, 24);
    c.result = 99;
    while (c.result == 99) {
        request(&c, true);
        ck_assert(take_update(&c));
    }
    ck_assert_uint_eq(c.result, 1);
    for (unsigned i = 0; i < 30; i++) // a guest that cannot decide
        surface_resize(surface, 300 + 50 * (i % 7), 200 + 40 * (i % 5));
    surface_resize(surface, 640, 480);
    paint();
    while (c.width != 640 || c.height != 480) {
        request(&c, true);
        ck_assert(take_update(&c));
    }
    take_picture(&c);
    check_picture(&c);
    bye(&c);
}
END_TEST

START_TEST(cursors_and_leds)
{
    struct client c;
    start("", NULL);
    hello(&c);
    take_picture(&c);
    unsigned before = c.cursors;
    struct cursor *cursor = cursor_new(24, 24, 2, 3);
    for (unsigned i = 0; i < 24 * 24; i++)
        cursor->argb[i] = 0xff0000ff;
    surface_set_cursor(surface, cursor);
    while (c.cursors == before) {
        request(&c, true);
        ck_assert(take_update(&c));
    }
    input_set_leds(input, 4);
    while (c.leds != 4) {
        request(&c, true);
        ck_assert(take_update(&c));
    }
    bye(&c);
}
END_TEST

// ---- Input ----
START_TEST(keys_and_pointer)
{
    struct client c;
    start("", NULL);
    hello(&c);
    send_key(&c, true, 'a');
    send_key(&c, false, 'a');
    send_key(&c, true, 0xff0d);
    send_key(&c, false, 0xff0d);
    ck_assert(seen("+30 -30 +28 -28 "));
    while (!c.keys_told) {
        request(&c, true);
        ck_assert(take_update(&c));
    }
    put(&c, (uint8_t[]){255, 0, 0, 1, 0, 0, 0xff, 0x52, 0, 0, 0, 0xc8}, 12); // Up by key code: E0 48
    put(&c, (uint8_t[]){255, 0, 0, 0, 0, 0, 0xff, 0x52, 0, 0, 0, 0xc8}, 12);
    ck_assert(seen("+103 -103 "));
    send_pointer(&c, 0, 799, 599);
    send_pointer(&c, 1, 17, 333);
    send_pointer(&c, 0, 17, 333);
    send_pointer(&c, 8, 17, 333);
    send_pointer(&c, 0, 17, 333);
    ck_assert(seen("@799,599 @17,333 b0+ @17,333 b0- @17,333 b3+ "));
    send_key(&c, true, 0xffe3);
    send_pointer(&c, 4, 5, 6);
    ck_assert(seen("b2+ "));
    bye(&c); // what it held is let go
    ck_assert(seen("-29 "));
    ck_assert(seen("b2- "));
}
END_TEST

static void tap(struct client *c, uint32_t keysym)
{
    send_key(c, true, keysym);
    send_key(c, false, keysym);
}

// Symbols whose modifier the viewer leaves out come out as what they are; shortcuts and other keys get none.
START_TEST(symbols_bring_their_modifiers)
{
    struct client c;
    start("", NULL);
    hello(&c);
    tap(&c, 'A');
    ck_assert(seen("+42 +30 -42 -30 "));
    tap(&c, '!');
    ck_assert(seen("+42 +2 -42 -2 "));
    tap(&c, 0xffb7); // 7 of the keypad
    ck_assert(seen("+71 -71 "));
    send_key(&c, true, 0xffe1); // Shift
    tap(&c, 'A');
    send_key(&c, false, 0xffe1);
    ck_assert(seen("+42 +30 -30 -42 "));
    send_key(&c, true, 0xffe3); // Control
    tap(&c, 'A');
    send_key(&c, false, 0xffe3);
    ck_assert(seen("+29 +30 -30 -29 "));
    input_set_leds(input, 4); // Caps Lock
    tap(&c, 'A');
    tap(&c, 'a');
    ck_assert(seen("+30 -30 +42 +30 -42 -30 "));
    input_set_leds(input, 0);
    bye(&c);
}
END_TEST

static bool wait_clipboard(const char *text)
{
    for (unsigned i = 0; i < 300; i++) {
        g_mutex_lock(&events_lock);
        bool same = g_strcmp0(clipboard, text) == 0;
        g_mutex_unlock(&events_lock);
        if (same)
            return true;
        g_usleep(10000);
    }
    return false;
}

START_TEST(clipboards)
{
    struct client c;
    start("", NULL);
    hello(&c);
    put(&c,
        "\6\0\0\0\0\0\0\5gr\xfc\xdf"
        "e",
        13);
    ck_assert(wait_clipboard("gr\xc3\xbc\xc3\x9f"
                             "e"));
    vnc_server_set_clipboard(server, "na\xc3\xafve");
    uint8_t head[8], text[5];
    ck_assert(get(&c, head, 8));
    ck_assert_uint_eq(head[0], 3);
    ck_assert_uint_eq(be32(head + 4), 5);
    ck_assert(get(&c, text, 5));
    ck_assert_int_eq(memcmp(text, "na\xefve", 5), 0);
    bye(&c);
}
END_TEST

// ---- Passwords and who may come ----
START_TEST(passwords)
{
    struct client c;
    g_autofree char *file = g_build_filename(folder, "password", NULL);
    g_autoptr(GError) error = NULL;
    ck_assert(g_file_set_contents(file, "secret12\nlook\n", -1, NULL));
    chmod(file, 0644);
    g_autofree char *where = g_strdup_printf("unix:%s", path);
    struct vnc_options o = {.where = where, .password_file = file};
    ck_assert_ptr_null(vnc_server_new(screen, input, &o, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "chmod 600"));
    chmod(file, 0600);
    start("", file);
    ck_assert(!hello_password(&c, "wrong"));
    bye(&c);
    ck_assert(!hello_password(&c, ""));
    bye(&c);
    ck_assert(hello_password(&c, "secret12"));
    send_key(&c, true, 'b');
    ck_assert(seen("+48 "));
    bye(&c);
    ck_assert(hello_password(&c, "look"));
    take_picture(&c);
    check_picture(&c);
    send_key(&c, true, 'c'); // a looker does not type
    put(&c, (uint8_t[]){255, 0, 0, 1, 0, 0, 0, 'c', 0, 0, 0, 0x2e}, 12);
    send_pointer(&c, 1, 50, 50);
    take_picture(&c);
    g_mutex_lock(&events_lock);
    ck_assert_ptr_null(strstr(events->str, "+46"));
    ck_assert_ptr_null(strstr(events->str, "b0+"));
    g_mutex_unlock(&events_lock);
    ck_assert(vnc_server_set_password(server, "other", NULL));
    take_picture(&c); // who is in stays in
    bye(&c);
    ck_assert(hello_password(&c, "look")); // the other password stays
    bye(&c);
    ck_assert(!hello_password(&c, "secret12"));
    bye(&c);
    ck_assert(hello_password(&c, "other"));
    bye(&c);
    ck_assert(!vnc_server_set_passwords(server, "much too long", NULL, NULL));
    ck_assert(!vnc_server_set_passwords(server, "same", "same", NULL));
    ck_assert(!vnc_server_set_password(server, "look", NULL));
    ck_assert(vnc_server_set_passwords(server, "other", NULL, NULL));
    ck_assert(!hello_password(&c, "look"));
    bye(&c);
    unlink(file);
}
END_TEST

START_TEST(addresses)
{
    static const char *const bad[] = {"nonsense", ":x", "127.0.0.1:70000", "unix:", "127.0.0.1:1,fast", "[::1:3", ""};
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        struct vnc_options o = {.where = bad[i]};
        ck_assert_ptr_null(vnc_server_new(screen, input, &o, &error));
        ck_assert_ptr_nonnull(error);
    }
    g_autoptr(GError) error = NULL;
    struct vnc_options open = {.where = "0.0.0.0:auto"};
    ck_assert_ptr_null(vnc_server_new(screen, input, &open, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "password"));
    struct vnc_options local = {.where = ":auto"};
    server = vnc_server_new(screen, input, &local, NULL);
    ck_assert_ptr_nonnull(server);
    g_autofree char *address = vnc_server_address(server);
    ck_assert(g_str_has_prefix(address, "127.0.0.1:59"));
    g_clear_error(&error);
    g_autofree char *same = g_strdup_printf("127.0.0.1:%d", atoi(strchr(address, ':') + 1) - 5900);
    struct vnc_options taken = {.where = same};
    ck_assert_ptr_null(vnc_server_new(screen, input, &taken, &error));
    ck_assert_ptr_nonnull(strstr(error->message, same));
}
END_TEST

START_TEST(limits_exclusive_and_disconnect)
{
    struct client a, b, d;
    start(",clients=2", NULL);
    hello(&a);
    hello(&b);
    ck_assert_uint_eq(begin(&d), 0); // turned away
    bye(&d);
    GArray *list = vnc_server_clients(server);
    ck_assert_uint_eq(list->len, 2);
    ck_assert(g_array_index(list, struct vnc_client_info, 0).established);
    unsigned id = g_array_index(list, struct vnc_client_info, 0).id;
    g_array_unref(list);
    ck_assert(!vnc_server_disconnect(server, 12345));
    ck_assert(vnc_server_disconnect(server, id));
    uint8_t byte;
    ck_assert(!get(&a, &byte, 1));
    take_picture(&b);
    bye(&a);
    bye(&b);
    vnc_server_free(server);
    start(",exclusive", NULL);
    hello(&a);
    take_picture(&a);
    hello(&b); // and the one before goes
    take_picture(&b);
    while (get(&a, &byte, 1))
        ;
    bye(&a);
    bye(&b);
}
END_TEST

// ---- Bad company ----
START_TEST(nobody_holds_anybody_up)
{
    struct client good, greedy, half;
    start("", NULL);
    hello(&good);
    hello(&greedy);
    hello(&half);
    for (unsigned i = 0; i < 200; i++) { // asks for everything and reads nothing
        request(&greedy, false);
        fill(0, 0, 800, 600, i);
    }
    put(&half, "\3\0\0", 3); // half a message
    int silent = dial();     // says nothing at all
    int64_t worst = 0;
    for (unsigned i = 0; i < 60; i++) {
        int64_t asked = g_get_monotonic_time();
        request(&good, false);
        ck_assert(take_update(&good));
        worst = MAX(worst, g_get_monotonic_time() - asked);
    }
    ck_assert_int_lt(worst, 4 * G_USEC_PER_SEC); // not the 20 s that the library would wait for one of them
    close(silent);
    bye(&half);
    bye(&greedy);
    paint();
    take_picture(&good);
    check_picture(&good);
    bye(&good);
}
END_TEST

static void send_anything(int fd, const void *data, size_t length)
{
    if (send(fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return; // it had enough already
}

// What a client says, with some of it wrong. Returns the length.
static unsigned garbled(GRand *random, uint8_t *buffer)
{
    static const uint8_t types[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 150, 248, 250, 251, 252, 255};
    static const uint8_t lengths[] = {20, 6, 8, 10, 8, 6, 12, 16, 4, 6, 12, 10, 16, 4, 24, 4, 12};
    unsigned which = g_rand_int_range(random, 0, G_N_ELEMENTS(types)), length = lengths[which];
    for (unsigned i = 0; i < length; i++)
        buffer[i] = g_rand_int_range(random, 0, 4) ? 0 : g_rand_int(random);
    buffer[0] = types[which];
    if (types[which] == 2)
        buffer[2] = 0, buffer[3] = 1;
    if (types[which] == 6)
        buffer[4] = g_rand_boolean(random) ? 0xff : 0;
    if (g_rand_int_range(random, 0, 10) == 0)
        length = g_rand_int_range(random, 1, length + 1);
    return length;
}

START_TEST(nonsense_from_clients)
{
    struct client good;
    start("", NULL);
    hello(&good);
    g_autoptr(GRand) random = g_rand_new_with_seed(11);
    unsigned rounds = g_getenv("CLOCHE_LONG_TESTS") ? 20000 : 400;
    for (unsigned round = 0; round < rounds; round++) {
        int fd = dial();
        uint8_t buffer[64], sink[65536];
        if (g_rand_int_range(random, 0, 8)) {
            send_anything(fd, "RFB 003.008\n\1\1", 14);
        } else {
            for (unsigned i = 0; i < sizeof(buffer); i++)
                buffer[i] = g_rand_int(random);
            memcpy(buffer, "RFB 003.003\n", g_rand_int_range(random, 0, 13));
            send_anything(fd, buffer, sizeof(buffer));
        }
        for (unsigned i = g_rand_int_range(random, 0, 60); i > 0; i--) {
            unsigned length = garbled(random, buffer);
            send_anything(fd, buffer, length);
            if (i % 8 == 0 && recv(fd, sink, sizeof(sink), MSG_DONTWAIT) < 0 && errno != EAGAIN)
                break;
        }
        close(fd);
        if (round % 50 == 0)
            surface_resize(surface, 200 + round % 700, 100 + round % 500);
    }
    surface_resize(surface, 800, 600);
    paint();
    for (unsigned i = 0; i < 100 && (good.width != 800 || good.height != 600 || i < 3); i++) {
        request(&good, false);
        ck_assert(take_update(&good));
    }
    take_picture(&good);
    check_picture(&good);
    bye(&good);
}
END_TEST

// libvncserver 0.9.14 forgets an iterator of 24 bytes for each SetDesktopSize message that is granted.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:rfbGetClientIterator\n";
}

int main(void)
{
    if (g_getenv("CLOCHE_DEBUG"))
        log_set_level(LOG_LEVEL_DEBUG);
    Suite *suite = suite_create("vnc");
    TCase *tcase = tcase_create("vnc");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, pictures_and_small_updates);
    tcase_add_test(tcase, at_most_sixty_updates_and_about_that_many);
    tcase_add_test(tcase, sizes_in_both_directions);
    tcase_add_test(tcase, cursors_and_leds);
    tcase_add_test(tcase, keys_and_pointer);
    tcase_add_test(tcase, symbols_bring_their_modifiers);
    tcase_add_test(tcase, clipboards);
    tcase_add_test(tcase, passwords);
    tcase_add_test(tcase, addresses);
    tcase_add_test(tcase, limits_exclusive_and_disconnect);
    tcase_add_test(tcase, nobody_holds_anybody_up);
    tcase_add_test(tcase, nonsense_from_clients);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
