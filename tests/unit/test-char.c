// SPDX-License-Identifier: GPL-2.0-or-later
// Back ends of character devices: nothing is lost, nobody blocks, the other side may come and go.
#include "devices/char/backend.h"

#include <check.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pty.h>
#include <termios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct front {
    unsigned room, drained, connects, disconnects;
    GString *received;
};

static unsigned can_receive(void *opaque)
{
    return ((struct front *)opaque)->room;
}

static void receive(void *opaque, const uint8_t *data, unsigned length)
{
    struct front *f = opaque;
    ck_assert_uint_le(length, f->room);
    f->room -= length;
    g_string_append_len(f->received, (const char *)data, length);
}

static void drained(void *opaque)
{
    ((struct front *)opaque)->drained++;
}

static void connected(void *opaque, bool is_connected)
{
    struct front *f = opaque;
    is_connected ? f->connects++ : f->disconnects++;
}

static const struct char_frontend frontend = {can_receive, receive, drained, connected, NULL};

struct fixture {
    char *folder, *path, *target;
    struct char_backend *backend;
    struct front front;
};

static void set_up(struct fixture *f, const char *kind)
{
    memset(f, 0, sizeof(*f));
    f->folder = g_dir_make_tmp("cloche-char-XXXXXX", NULL);
    f->path = g_build_filename(f->folder, "end", NULL);
    f->target = g_strconcat(kind, strchr(kind, ':') && !g_str_has_prefix(kind, "program:") ? f->path : NULL, NULL);
    f->front.received = g_string_new(NULL);
    f->backend = char_backend_open(f->target, g_main_context_default(), NULL, NULL);
    ck_assert_ptr_nonnull(f->backend);
    char_backend_attach(f->backend, &frontend, &f->front);
}

static void tear_down(struct fixture *f)
{
    char_backend_free(f->backend);
    unlink(f->path);
    ck_assert_int_eq(rmdir(f->folder), 0);
    g_string_free(f->front.received, true);
    g_free(f->folder);
    g_free(f->path);
    g_free(f->target);
}

static void turn(void)
{
    for (int i = 0; i < 20; i++) {
        while (g_main_context_iteration(NULL, false)) {
        }
        g_usleep(500);
    }
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    turn();
    return fd;
}

START_TEST(a_file_gets_every_byte)
{
    struct fixture f;
    set_up(&f, "file:");
    g_autofree char *data = g_malloc(300000);
    for (int i = 0; i < 300000; i++)
        data[i] = i * 7;
    for (int i = 0; i < 300000; i += 1000)
        char_backend_write(f.backend, data + i, 1000);
    g_clear_pointer(&f.backend, char_backend_free);
    g_autofree char *seen = NULL;
    gsize length;
    ck_assert(g_file_get_contents(f.path, &seen, &length, NULL));
    ck_assert_uint_eq(length, 300000);
    ck_assert_mem_eq(seen, data, length);
    tear_down(&f);
}
END_TEST

START_TEST(a_late_listener_hears_the_beginning)
{
    struct fixture f;
    set_up(&f, "socket:");
    ck_assert_uint_eq(char_backend_lines(f.backend), CHAR_CTS | CHAR_DSR);
    char_backend_write(f.backend, "early", 5);
    int fd = connect_to(f.path);
    ck_assert_uint_eq(char_backend_lines(f.backend), CHAR_CTS | CHAR_DSR | CHAR_DCD);
    char text[16] = "";
    ck_assert_int_eq(read(fd, text, sizeof(text)), 5);
    ck_assert_str_eq(text, "early");
    ck_assert_uint_eq(f.front.connects, 1);
    close(fd);
    f.front.room = 1;
    turn();
    ck_assert_uint_eq(f.front.disconnects, 1);
    fd = connect_to(f.path);
    ck_assert_uint_eq(f.front.connects, 2);
    close(fd);
    tear_down(&f);
}
END_TEST

START_TEST(a_slow_listener_loses_nothing)
{
    struct fixture f;
    set_up(&f, "socket:");
    int fd = connect_to(f.path);
    uint64_t sent = 0, got = 0, wrong = 0;
    while (!char_backend_busy(f.backend)) {
        uint8_t byte = sent++ * 31;
        char_backend_write(f.backend, &byte, 1);
    }
    ck_assert_uint_eq(f.front.drained, 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (got < sent) {
        uint8_t bytes[4096];
        ssize_t count = read(fd, bytes, sizeof(bytes));
        for (ssize_t i = 0; i < count; i++)
            wrong += bytes[i] != (uint8_t)(got++ * 31);
        g_main_context_iteration(NULL, false);
    }
    turn();
    ck_assert_uint_eq(wrong, 0);
    ck_assert_uint_eq(f.front.drained, 1);
    ck_assert(!char_backend_busy(f.backend));
    close(fd);
    tear_down(&f);
}
END_TEST

START_TEST(input_waits_for_room)
{
    struct fixture f;
    set_up(&f, "socket:");
    int fd = connect_to(f.path);
    ck_assert_int_eq(write(fd, "0123456789", 10), 10);
    turn();
    ck_assert_str_eq(f.front.received->str, "");
    for (int i = 0; i < 4; i++) {
        f.front.room = 3;
        char_backend_accept_input(f.backend);
        turn();
    }
    ck_assert_str_eq(f.front.received->str, "0123456789");
    close(fd);
    tear_down(&f);
}
END_TEST

START_TEST(a_pseudo_terminal_carries_both_ways)
{
    struct fixture f;
    set_up(&f, "pty");
    int fd = open(char_backend_address(f.backend), O_RDWR | O_NOCTTY);
    ck_assert_int_ge(fd, 0);
    f.front.room = 100;
    ck_assert_int_eq(write(fd, "in\r", 3), 3);
    char_backend_write(f.backend, "out\r\n", 5);
    turn();
    char text[16] = "";
    ck_assert_int_eq(read(fd, text, sizeof(text)), 5);
    ck_assert_str_eq(text, "out\r\n");
    ck_assert_str_eq(f.front.received->str, "in\r");
    close(fd);
    char_backend_write(f.backend, "more", 4);
    turn();
    tear_down(&f);
}
END_TEST

START_TEST(nobody_gets_everything_and_nothing_grows)
{
    struct fixture f;
    set_up(&f, "null");
    for (int i = 0; i < 1000000; i++)
        char_backend_write(f.backend, "x", 1);
    ck_assert(!char_backend_busy(f.backend));
    tear_down(&f);
}
END_TEST

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    return fd;
}

static int accept_late(int listener)
{
    fcntl(listener, F_SETFL, O_NONBLOCK);
    for (unsigned i = 0; i < 5000; i++) {
        int fd = accept(listener, NULL, NULL);
        if (fd >= 0)
            return fd;
        g_main_context_iteration(NULL, false);
        g_usleep(1000);
    }
    ck_abort_msg("nobody connects");
}

// A client says what it has to say once somebody answers, and again after that one went.
START_TEST(a_client_waits_for_its_server)
{
    struct fixture f;
    set_up(&f, "unix:");
    char_backend_write(f.backend, "early", 5);
    turn();
    int listener = listen_at(f.path), fd = accept_late(listener);
    char text[32] = "";
    f.front.room = 100;
    ck_assert_int_eq(write(fd, "hello", 5), 5);
    turn();
    ck_assert_int_eq(read(fd, text, sizeof(text)), 5);
    ck_assert_str_eq(text, "early");
    ck_assert_str_eq(f.front.received->str, "hello");
    close(fd);
    turn();
    ck_assert_uint_eq(f.front.disconnects, 1);
    char_backend_write(f.backend, "again", 5);
    fd = accept_late(listener);
    turn();
    ck_assert_int_eq(read(fd, text, sizeof(text)), 5);
    ck_assert_str_eq(text, "again");
    close(fd);
    close(listener);
    tear_down(&f);
}
END_TEST

// 64 KiB are kept for somebody who comes late: the last ones.
START_TEST(the_limit_of_what_is_kept)
{
    struct fixture f;
    set_up(&f, "socket:");
    for (unsigned i = 0; i < 70000; i++) {
        uint8_t byte = i * 31;
        char_backend_write(f.backend, &byte, 1);
    }
    int fd = connect_to(f.path);
    unsigned at = 70000 - 65536, wrong = 0;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (unsigned idle = 0; at < 70000 && idle < 1000; idle++) {
        uint8_t bytes[4096];
        ssize_t count = read(fd, bytes, sizeof(bytes));
        for (ssize_t i = 0; i < count; i++)
            wrong += bytes[i] != (uint8_t)(at++ * 31);
        turn();
    }
    ck_assert_uint_eq(at, 70000);
    ck_assert_uint_eq(wrong, 0);
    close(fd);
    tear_down(&f);
}
END_TEST

static unsigned free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, length), 0);
    getsockname(fd, (struct sockaddr *)&address, &length);
    close(fd);
    return ntohs(address.sin_port);
}

// A telnet server and a TCP client of ours in conversation, and what goes over the wire by RFC 854.
START_TEST(telnet_keeps_every_byte)
{
    g_autofree char *server = g_strdup_printf("telnet:127.0.0.1:%u", free_port());
    g_autofree char *client = g_strdup_printf("tcp-client:%s", strchr(server, ':') + 1);
    struct front fronts[2] = {{.room = 1000, .received = g_string_new(NULL)},
                              {.room = 1000, .received = g_string_new(NULL)}};
    struct char_backend *ends[2];
    ends[0] = char_backend_open(server, g_main_context_default(), NULL, NULL);
    ends[1] = char_backend_open(client, g_main_context_default(), NULL, NULL);
    ck_assert(ends[0] && ends[1]);
    for (unsigned i = 0; i < 2; i++)
        char_backend_attach(ends[i], &frontend, &fronts[i]);
    turn();
    char_backend_write(ends[0],
                       "a\xff"
                       "b",
                       3);
    // A command, a doubled 255, an option with a sub-negotiation, and Enter as telnet's own clients send it.
    char_backend_write(ends[1], "\xff\xf1x\xff\xff\xff\xfb\x18\xff\xfa\x18zz\xff\xf0y\r\0z", 19);
    turn();
    ck_assert_uint_eq(fronts[0].received->len, 5);
    ck_assert_mem_eq(fronts[0].received->str, "x\xffy\rz", 5);
    ck_assert_uint_eq(fronts[1].received->len, 12 + 4);
    ck_assert_mem_eq(fronts[1].received->str + 12,
                     "a\xff\xff"
                     "b",
                     4);
    for (unsigned i = 0; i < 2; i++) {
        char_backend_free(ends[i]);
        g_string_free(fronts[i].received, true);
    }
}
END_TEST

START_TEST(a_program_has_both_streams)
{
    struct fixture f;
    set_up(&f, "program:sh -c 'read x; echo \"got $x\"; exit 3' ");
    f.front.room = 100;
    char_backend_write(f.backend, "word\n", 5);
    for (unsigned i = 0; i < 200 && !f.front.disconnects; i++)
        turn();
    ck_assert_str_eq(f.front.received->str, "got word\n");
    ck_assert_uint_eq(f.front.disconnects, 1);
    char_backend_write(f.backend, "nobody", 6);
    tear_down(&f);
}
END_TEST

// A pseudo-terminal's other end is a serial device without modem lines.
START_TEST(a_device_of_the_host)
{
    struct fixture f;
    int master, slave;
    char name[64];
    ck_assert_int_eq(openpty(&master, &slave, name, NULL, NULL), 0);
    g_autofree char *target = g_strconcat("device:", name, NULL);
    memset(&f, 0, sizeof(f));
    f.front.received = g_string_new(NULL);
    f.backend = char_backend_open(target, g_main_context_default(), NULL, NULL);
    ck_assert_ptr_nonnull(f.backend);
    char_backend_attach(f.backend, &frontend, &f.front);
    f.front.room = 100;
    const struct char_format format = {.baud = 9600, .bits = 7, .parity = true, .odd = true, .two_stops = true};
    char_backend_set_format(f.backend, &format);
    char_backend_set_lines(f.backend, true, false);
    ck_assert_uint_eq(char_backend_lines(f.backend), CHAR_CTS | CHAR_DSR | CHAR_DCD);
    struct termios mode;
    ck_assert_int_eq(tcgetattr(slave, &mode), 0);
    ck_assert_uint_eq(cfgetospeed(&mode), B9600);
    ck_assert_uint_eq(mode.c_cflag & (PARODD | CSTOPB), PARODD | CSTOPB);
    char_backend_write(f.backend, "out\r\n", 5);
    ck_assert_int_eq(write(master, "in\r", 3), 3);
    turn();
    char text[16] = "";
    ck_assert_int_eq(read(master, text, sizeof(text)), 5);
    ck_assert_str_eq(text, "out\r\n");
    ck_assert_str_eq(f.front.received->str, "in\r");
    char_backend_free(f.backend);
    g_string_free(f.front.received, true);
    close(master);
    close(slave);
}
END_TEST

START_TEST(bad_targets_are_named)
{
    static const char *const bad[] = {"",
                                      "stdout",
                                      "file:",
                                      "file:/no/such/folder/x",
                                      "device:/dev/null",
                                      "device:/no/such",
                                      "program:/no/such/program",
                                      "program:'",
                                      "tcp-client:nowhere",
                                      "telnet:x",
                                      "tcp:x",
                                      "tcp:localhost:99",
                                      "tcp:1.2.3.4:",
                                      "socket:/no/such/folder/x"};
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        ck_assert_ptr_null(char_backend_open(bad[i], g_main_context_default(), NULL, &error));
        ck_assert_ptr_nonnull(error);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("char");
    TCase *tests = tcase_create("char");
    tcase_set_timeout(tests, 30);
    tcase_add_test(tests, a_file_gets_every_byte);
    tcase_add_test(tests, a_late_listener_hears_the_beginning);
    tcase_add_test(tests, a_slow_listener_loses_nothing);
    tcase_add_test(tests, input_waits_for_room);
    tcase_add_test(tests, a_pseudo_terminal_carries_both_ways);
    tcase_add_test(tests, nobody_gets_everything_and_nothing_grows);
    tcase_add_test(tests, a_client_waits_for_its_server);
    tcase_add_test(tests, the_limit_of_what_is_kept);
    tcase_add_test(tests, telnet_keeps_every_byte);
    tcase_add_test(tests, a_program_has_both_streams);
    tcase_add_test(tests, a_device_of_the_host);
    tcase_add_test(tests, bad_targets_are_named);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
