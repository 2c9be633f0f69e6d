// SPDX-License-Identifier: GPL-2.0-or-later
// The control protocol without a machine: framing, negotiation, schema checks, events, descriptors, hostile clients.
#include "core/base/file.h"
#include "core/control/client.h"
#include "core/control/framing.h"
#include "core/control/qmp.h"
#include "core/control/transport.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static char *folder, *path;
static struct qmp_server *server;
static unsigned pokes;

static JsonNode *cmd_echo(struct qmp_call *call, GError **error)
{
    return qmp_node_string(qmp_string(call, "text"));
}

static JsonNode *cmd_fail(struct qmp_call *call, GError **error)
{
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "There is no drive");
    return NULL;
}

static JsonNode *cmd_poke(struct qmp_call *call, GError **error)
{
    pokes += qmp_int(call, "count", 1);
    JsonObject *data = json_object_new();
    json_object_set_int_member(data, "pokes", pokes);
    qmp_server_emit(call->server, "POKED", qmp_node_object(data));
    return NULL;
}

static JsonNode *cmd_memory(struct qmp_call *call, GError **error)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    ck_assert_int_eq(pwrite(fd, "shared", 6, 0), 6);
    call->fds[call->fd_count++] = fd;
    qmp_client_emit(call->client, "MEMORY", NULL, &fd, 1);
    return NULL;
}

static const char *const moods[] = {"good", "bad", NULL};
static const struct qmp_argument echo_arguments[] = {QMP_NEED("text", QMP_STRING),
                                                     QMP_MAY("mood", QMP_STRING, .choices = moods), QMP_END};
static const struct qmp_argument poke_arguments[] = {QMP_MAY("count", QMP_INT, .min = 1, .max = 10), QMP_END};
static const struct qmp_command commands[] = {
    QMP_COMMAND("echo", cmd_echo, echo_arguments, NULL),
    QMP_COMMAND("fail", cmd_fail, NULL, NULL),
    QMP_COMMAND("poke", cmd_poke, poke_arguments, NULL),
    QMP_COMMAND("memory", cmd_memory, NULL, NULL),
    QMP_END,
};
static const struct qmp_command *const tables[] = {commands, NULL};

static void setup(void)
{
    folder = g_dir_make_tmp("cloche-qmp-XXXXXX", NULL);
    path = g_build_filename(folder, "control", NULL);
    g_autoptr(GError) error = NULL;
    server = qmp_server_new(path, tables, NULL, NULL, NULL, &error);
    ck_assert_msg(server != NULL, "%s", error ? error->message : "");
    pokes = 0;
}

static void teardown(void)
{
    qmp_server_free(server);
    ck_assert(!g_file_test(path, G_FILE_TEST_EXISTS));
    host_folder_remove(folder, NULL);
    g_free(folder);
    g_free(path);
}

// A client that writes raw bytes. Answers are collected until the server has nothing more to say.
static int raw_connect(void)
{
    int fd = transport_connect(path, NULL);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static void settle(void)
{
    for (unsigned quiet = 0; quiet < 3;)
        quiet = g_main_context_iteration(NULL, FALSE) ? 0 : quiet + 1;
}

static char *raw_talk(int fd, const char *bytes, size_t length)
{
    GString *all = g_string_new(NULL);
    char chunk[4096];
    do {
        ssize_t n = length ? send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
        if (n > 0) {
            bytes += n;
            length -= n;
        } else if (n < 0 && errno != EAGAIN) {
            length = 0;
        }
        settle();
        while ((n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT)) > 0)
            g_string_append_len(all, chunk, n);
    } while (length);
    return g_string_free(all, FALSE);
}

static char *raw_say(int fd, const char *text)
{
    return raw_talk(fd, text, strlen(text));
}

START_TEST(test_greeting_and_negotiation)
{
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    int fd = raw_connect();
    g_autofree char *greeting = raw_say(fd, "");
    ck_assert(strstr(greeting, "\"QMP\"") && strstr(greeting, "\"capabilities\":[]"));
    g_autofree char *early = raw_say(fd, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"x\"},\"id\":1}");
    ck_assert(strstr(early, "CommandNotFound") && strstr(early, "negotiation") && strstr(early, "\"id\":1"));
    g_autofree char *none = raw_say(fd, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}");
    ck_assert_ptr_nonnull(strstr(none, "GenericError"));
    g_autofree char *good = raw_say(fd, "{\"execute\":\"qmp_capabilities\"}");
    ck_assert_str_eq(good, "{\"return\":{}}\r\n");
    g_autofree char *again = raw_say(fd, "{\"execute\":\"qmp_capabilities\"}");
    ck_assert_ptr_nonnull(strstr(again, "already complete"));
    g_autofree char *two = raw_say(
        fd, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"a\"},\"id\":{\"n\":[1]}} {\"execute\":\"query-version\"}");
    ck_assert(strstr(two, "{\"return\":\"a\",\"id\":{\"n\":[1]}}") && strstr(two, "\"qemu\":{\"major\""));
    close(fd);
    settle();
}
END_TEST

START_TEST(test_schema)
{
    static const struct {
        const char *command, *words;
    } rows[] = {
        {"{\"execute\":\"echo\"}", "'text' is missing"},
        {"{\"execute\":\"echo\",\"arguments\":{\"text\":1}}", "expected: string"},
        {"{\"execute\":\"echo\",\"arguments\":{\"text\":\"a\",\"mood\":\"odd\"}}", "good, bad"},
        {"{\"execute\":\"echo\",\"arguments\":{\"text\":\"a\",\"more\":0}}", "'more' is unexpected"},
        {"{\"execute\":\"poke\",\"arguments\":{\"count\":11}}", "from 1 to 10"},
        {"{\"execute\":\"poke\",\"arguments\":{\"count\":1.5}}", "expected: integer"},
        {"{\"execute\":\"poke\",\"arguments\":[]}", "expected: object"},
        {"{\"execute\":\"nothing\"}", "CommandNotFound"},
        {"{\"execute\":7}", "expected: string"},
        {"{\"run\":\"x\"}", "'run' is unexpected"},
        {"{}", "'execute' is missing"},
        {"{\"execute\":\"fail\"}", "DeviceNotFound"},
        {"[1]\n", "an object is expected"},
        {"{\"execute\":\"echo\"]\n", "Invalid JSON"},
        {"{\"execute\":\"\xff\"}", "not UTF-8"},
    };
    int fd = raw_connect();
    g_free(raw_say(fd, "{\"execute\":\"qmp_capabilities\"}"));
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *answer = raw_say(fd, rows[i].command);
        ck_assert_msg(strstr(answer, rows[i].words) && strstr(answer, "\"error\""), "%s -> %s", rows[i].command,
                      answer);
    }
    g_autofree char *alive = raw_say(fd, "{\"execute\":\"poke\"}");
    ck_assert_ptr_nonnull(strstr(alive, "\"return\""));
    close(fd);
    settle();
}
END_TEST

START_TEST(test_deep_and_endless_input)
{
    int fd = raw_connect();
    g_free(raw_say(fd, "{\"execute\":\"qmp_capabilities\"}"));
    g_autofree char *brackets = g_strnfill(200000, '[');
    g_autofree char *deep = g_strconcat("{\"a\":", brackets, "\n", NULL);
    g_autofree char *answer = raw_say(fd, deep);
    ck_assert_ptr_nonnull(strstr(answer, "nested too deeply"));
    g_autofree char *alive = raw_say(fd, "{\"execute\":\"query-commands\"}");
    ck_assert_ptr_nonnull(strstr(alive, "query-version"));
    g_autofree char *text = g_strnfill(3 * MiB, 'x');
    g_autofree char *endless = g_strconcat("{\"a\":\"", text, NULL);
    g_autofree char *refused = raw_say(fd, endless);
    ck_assert_ptr_nonnull(strstr(refused, "too long"));
    char byte;
    ck_assert_int_le(recv(fd, &byte, 1, 0), 0); // disconnected
    close(fd);
    settle();
    int other = raw_connect(); // others are served
    g_autofree char *greeting = raw_say(other, "");
    ck_assert_ptr_nonnull(strstr(greeting, "QMP"));
    close(other);
    settle();
}
END_TEST

START_TEST(test_client_that_does_not_read)
{
    int deaf = raw_connect(), fd = raw_connect();
    g_free(raw_say(deaf, "{\"execute\":\"qmp_capabilities\"}"));
    g_free(raw_say(fd, "{\"execute\":\"qmp_capabilities\"}"));
    g_autofree char *text = g_strnfill(500000, 'y');
    g_autofree char *command = g_strdup_printf("{\"execute\":\"echo\",\"arguments\":{\"text\":\"%s\"}}", text);
    for (unsigned i = 0; i < 60; i++) {
        size_t length = strlen(command);
        const char *at = command;
        for (unsigned tries = 0; length && tries < 200; tries++) {
            ssize_t n = send(deaf, at, length, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN)
                break;
            at += MAX(n, 0);
            length -= MAX(n, 0);
            settle();
        }
    }
    g_autofree char *alive = raw_say(fd, "{\"execute\":\"echo\",\"arguments\":{\"text\":\"here\"}}");
    ck_assert_ptr_nonnull(strstr(alive, "here"));
    struct pollfd poll_fd = {.fd = deaf, .events = POLLRDHUP};
    ck_assert_int_eq(poll(&poll_fd, 1, 1000), 1); // it was cut off
    close(deaf);
    close(fd);
    settle();
}
END_TEST

START_TEST(test_too_many_clients)
{
    int fds[QMP_MAX_CLIENTS + 1];
    for (unsigned i = 0; i <= QMP_MAX_CLIENTS; i++) {
        fds[i] = raw_connect();
        settle();
    }
    char byte;
    ck_assert_int_eq(recv(fds[QMP_MAX_CLIENTS], &byte, 1, 0), 0);
    ck_assert_int_eq(recv(fds[0], &byte, 1, 0), 1);
    for (unsigned i = 0; i <= QMP_MAX_CLIENTS; i++)
        close(fds[i]);
    settle();
}
END_TEST

// ---- With the client ----

struct seen {
    unsigned events, replies, closed;
    int fd;
    char *last;
};

static void on_event(void *opaque, struct control_client *client, const char *event, JsonObject *data, int *fds,
                     unsigned fd_count)
{
    struct seen *seen = opaque;
    seen->events++;
    if (fd_count) {
        seen->fd = fds[0];
        fds[0] = -1;
    }
}

static void on_closed(void *opaque, struct control_client *client, const GError *error)
{
    ((struct seen *)opaque)->closed++;
}

static void on_reply(void *opaque, JsonNode *value, int *fds, unsigned fd_count, const GError *error)
{
    struct seen *seen = opaque;
    seen->replies++;
    g_free(seen->last);
    seen->last = g_strdup(error ? error->message : "good");
}

START_TEST(test_client)
{
    struct seen seen = {.fd = -1}, other = {.fd = -1};
    struct control_handlers handlers = {on_event, on_closed, &seen}, other_handlers = {on_event, on_closed, &other};
    g_autoptr(GError) error = NULL;
    struct control_client *client = control_client_new(path, &handlers, &error);
    g_autoptr(control_client_t) second = control_client_new(path, &other_handlers, &error);
    ck_assert(client && second);
    g_autoptr(JsonNode) value = control_client_call(
        client, "echo", control_arguments("s:text", "h\"\n\xc3\xa4", "s:mood", NULL, NULL), 0, NULL, NULL, &error);
    ck_assert_str_eq(json_node_get_string(value), "h\"\n\xc3\xa4");
    ck_assert(!control_client_call(client, "fail", NULL, 0, NULL, NULL, &error));
    ck_assert(g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND));
    g_clear_error(&error);

    g_autoptr(JsonNode) poked =
        control_client_call(client, "poke", control_arguments("i:count", (int64_t)3, NULL), 0, NULL, NULL, &error);
    ck_assert_ptr_nonnull(poked);
    settle();
    ck_assert_uint_eq(seen.events, 1);
    ck_assert_uint_eq(other.events, 1);

    // One descriptor with an event and one with the reply, on the same stream.
    int fds[4];
    unsigned fd_count = 0;
    g_autoptr(JsonNode) shared = control_client_call(client, "memory", NULL, 0, fds, &fd_count, &error);
    ck_assert(shared && fd_count == 1 && seen.fd >= 0);
    char text[6];
    ck_assert(pread(fds[0], text, 6, 0) == 6 && memcmp(text, "shared", 6) == 0);
    ck_assert(pread(seen.fd, text, 6, 0) == 6 && memcmp(text, "shared", 6) == 0);
    ck_assert(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
    close(fds[0]);
    close(seen.fd);

    // A hundred commands at once keep their order and are all answered.
    for (unsigned i = 0; i < 100; i++)
        control_client_send(client, "poke", NULL, on_reply, &seen);
    uint64_t forgotten = control_client_send(client, "poke", NULL, on_reply, &seen);
    control_client_forget(client, forgotten);
    settle();
    ck_assert_uint_eq(seen.replies, 100);

    // The server goes away: open calls and the owner are told.
    control_client_send(client, "poke", NULL, on_reply, &seen);
    qmp_server_free(server);
    ck_assert(control_client_wait_closed(client, 2000));
    ck_assert_uint_eq(seen.replies, 101);
    ck_assert_uint_eq(seen.closed, 1);
    ck_assert_ptr_nonnull(strstr(seen.last, "ended"));
    ck_assert(!control_client_call(client, "poke", NULL, 0, NULL, NULL, &error));
    control_client_free(client);
    settle();
    g_free(seen.last);
    server = qmp_server_new(path, tables, NULL, NULL, NULL, NULL);
}
END_TEST

START_TEST(test_socket_in_use)
{
    g_autoptr(GError) error = NULL;
    ck_assert(!qmp_server_new(path, tables, NULL, NULL, NULL, &error));
    ck_assert(g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY));
    g_clear_error(&error);
    g_autofree char *longer = g_strnfill(200, 'x');
    g_autofree char *far = g_build_filename(folder, longer, NULL);
    ck_assert(!qmp_server_new(far, tables, NULL, NULL, NULL, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "shorter"));
    settle();
}
END_TEST

// ---- Fuzzing: the corpus and mutations of it; the server must go on serving ----

static void feed(const char *data, size_t length)
{
    int fd = raw_connect();
    g_free(raw_say(fd, "{\"execute\":\"qmp_capabilities\"}"));
    g_free(raw_talk(fd, data, length));
    close(fd);
    settle();
}

START_TEST(test_corpus)
{
    g_autofree char *corpus =
        g_build_filename(g_getenv("srcdir") ? g_getenv("srcdir") : ".", "tests", "fuzz", "qmp", NULL);
    GDir *dir = g_dir_open(corpus, 0, NULL);
    ck_assert_msg(dir != NULL, "no corpus in %s", corpus);
    g_autoptr(GRand) random = g_rand_new_with_seed(7);
    const char *name;
    unsigned files = 0;
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(corpus, name, NULL), *data = NULL;
        size_t length;
        ck_assert(g_file_get_contents(file, &data, &length, NULL));
        feed(data, length);
        for (unsigned round = 0; round < 40 && length; round++) {
            g_autofree char *mutant = g_memdup2(data, length);
            for (unsigned n = 0; n < 5; n++)
                mutant[g_rand_int_range(random, 0, length)] = "{}[]\",:\\\n x0\xff"[g_rand_int_range(random, 0, 13)];
            feed(mutant, length);
        }
        files++;
    }
    g_dir_close(dir);
    ck_assert_uint_ge(files, 8);
    int fd = raw_connect();
    g_autofree char *alive = raw_say(fd, "{\"execute\":\"qmp_capabilities\"}");
    ck_assert_ptr_nonnull(strstr(alive, "\"return\""));
    close(fd);
    settle();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qmp");
    TCase *tests = tcase_create("qmp");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_greeting_and_negotiation);
    tcase_add_test(tests, test_schema);
    tcase_add_test(tests, test_deep_and_endless_input);
    tcase_add_test(tests, test_client_that_does_not_read);
    tcase_add_test(tests, test_too_many_clients);
    tcase_add_test(tests, test_client);
    tcase_add_test(tests, test_socket_in_use);
    tcase_add_test(tests, test_corpus);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
