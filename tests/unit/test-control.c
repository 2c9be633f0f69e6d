// SPDX-License-Identifier: GPL-2.0-or-later
// The control server on a machine without processors: commands, legal states, events, display memory, media, jobs.
#include "core/base/file.h"
#include "core/control/client.h"
#include "core/control/control.h"
#include "core/control/jobs.h"
#include "core/machine/drive.h"
#include "core/screen/clipboard.h"
#include "core/screen/input.h"
#include "core/screen/surface.h"

#include <check.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const struct device_class *const device_classes[] = {NULL};

static char *folder, *path;
static struct machine *machine;
static struct control_server *server;
static struct control_client *client;
static GString *events; // names, each with a space after it
static JsonObject *last_data;
static int last_fd;
static GString *typed;

static void on_event(void *opaque, struct control_client *from, const char *event, JsonObject *data, int *fds,
                     unsigned fd_count)
{
    g_string_append_printf(events, "%s ", event);
    g_clear_pointer(&last_data, json_object_unref);
    last_data = json_object_ref(data);
    if (fd_count) {
        if (last_fd >= 0)
            close(last_fd);
        last_fd = fds[0];
        fds[0] = -1;
    }
}

static void on_key(void *opaque, unsigned code, bool down)
{
    g_string_append_printf(typed, "%c%u ", down ? '+' : '-', code);
}

static void on_button(void *opaque, enum input_button button, bool down)
{
    g_string_append_printf(typed, "b%c%d ", down ? '+' : '-', button);
}

static void on_absolute(void *opaque, unsigned x, unsigned y)
{
    g_string_append_printf(typed, "@%u,%u ", x, y);
}

static const struct input_handler handler = {.name = "tablet",
                                             .keyboard = true,
                                             .absolute = true,
                                             .key = on_key,
                                             .button = on_button,
                                             .move_absolute = on_absolute};

static void setup(void)
{
    folder = g_dir_make_tmp("cloche-control-XXXXXX", NULL);
    path = g_build_filename(folder, "control", NULL);
    machine = machine_create(4 * MiB, NULL, NULL);
    machine->screen = screen_new(&machine->lock);
    machine->input = input_new(&machine->lock);
    machine->clipboard = clipboard_new(&machine->lock);
    machine_lock(machine);
    input_add_handler(machine->input, &handler);
    input_activate(machine->input, &handler);
    machine_unlock(machine);
    g_autoptr(GError) error = NULL;
    server = control_server_new(machine, path, &error);
    ck_assert_msg(server != NULL, "%s", error ? error->message : "");
    events = g_string_new(NULL);
    typed = g_string_new(NULL);
    last_fd = -1;
    struct control_handlers handlers = {.event = on_event};
    client = control_client_new(path, &handlers, &error);
    ck_assert_ptr_nonnull(client);
}

static void teardown(void)
{
    control_client_free(client);
    control_server_free(server);
    machine_lock(machine);
    input_remove_handler(machine->input, &handler);
    machine_unlock(machine);
    input_free(machine->input);
    screen_free(machine->screen);
    clipboard_free(machine->clipboard);
    machine->clipboard = NULL;
    machine_destroy(machine);
    host_folder_remove(folder, NULL);
}

static JsonNode *call(const char *command, JsonObject *arguments)
{
    g_autoptr(GError) error = NULL;
    JsonNode *value = control_client_call(client, command, arguments, 0, NULL, NULL, &error);
    ck_assert_msg(value != NULL, "%s: %s", command, error ? error->message : "");
    return value;
}

static void refuse(const char *command, JsonObject *arguments, const char *words)
{
    g_autoptr(GError) error = NULL;
    JsonNode *value = control_client_call(client, command, arguments, 0, NULL, NULL, &error);
    ck_assert_msg(!value, "%s was not refused", command);
    ck_assert_msg(strstr(error->message, words) != NULL, "%s: %s", command, error->message);
}

static void do_call(const char *command, JsonObject *arguments)
{
    json_node_unref(call(command, arguments));
}

static char *status(void)
{
    g_autoptr(JsonNode) value = call("query-status", NULL);
    return g_strdup(json_object_get_string_member(json_node_get_object(value), "status"));
}

// Runs the main loop until WORDS were among the events.
static void wait_event(const char *word)
{
    gint64 end = g_get_monotonic_time() + 5 * G_USEC_PER_SEC;
    while (!strstr(events->str, word)) {
        ck_assert_msg(g_get_monotonic_time() < end, "no %s in: %s", word, events->str);
        if (!g_main_context_iteration(NULL, FALSE))
            g_usleep(500);
    }
}

START_TEST(test_life)
{
    g_autofree char *first = status();
    ck_assert_str_eq(first, "prelaunch");
    refuse("system_powerdown", NULL, "power button");
    do_call("cont", NULL);
    wait_event("RESUME");
    do_call("stop", NULL);
    wait_event("STOP");
    do_call("stop", NULL); // twice is no error
    g_autofree char *paused = status();
    ck_assert_str_eq(paused, "paused");
    refuse("system_powerdown", NULL, "resume");
    do_call("cont", NULL);
    do_call("system_powerdown", NULL);
    wait_event("POWERDOWN");
    do_call("system_reset", NULL);
    wait_event("RESET");
    ck_assert(!json_object_get_boolean_member(last_data, "guest"));
    do_call("quit", NULL);
    wait_event("SHUTDOWN");
    g_autofree char *off = status();
    ck_assert_str_eq(off, "shutdown");
    refuse("system_reset", NULL, "switched off");
    g_autoptr(JsonNode) rules = call("x-cloche-query-rules", NULL);
    ck_assert_uint_eq(json_array_get_length(json_node_get_array(rules)), MACHINE_REQUEST_COUNT);
}
END_TEST

START_TEST(test_queries)
{
    static const char *const commands[] = {"query-status",
                                           "query-version",
                                           "query-commands",
                                           "query-cpus-fast",
                                           "query-block",
                                           "query-blockstats",
                                           "query-chardev",
                                           "query-memory-size-summary",
                                           "query-vnc",
                                           "query-mice",
                                           "query-pci",
                                           "query-jobs",
                                           "x-cloche-stats",
                                           "x-cloche-query-rules",
                                           "x-cloche-query-displays",
                                           "x-cloche-query-input"};
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++)
        do_call(commands[i], NULL);
    g_autoptr(JsonNode) memory = call("query-memory-size-summary", NULL);
    ck_assert_int_eq(json_object_get_int_member(json_node_get_object(memory), "base-memory"), 4 * MiB);
    g_autoptr(JsonNode) tree = call("human-monitor-command", control_arguments("s:command-line", "info mtree", NULL));
    ck_assert_ptr_nonnull(strstr(json_node_get_string(tree), "ram"));
    g_autoptr(JsonNode) state = call("human-monitor-command", control_arguments("s:command-line", "info status", NULL));
    ck_assert_str_eq(json_node_get_string(state), "VM status: prelaunch\n");
    refuse("human-monitor-command", control_arguments("s:command-line", "info nothing", NULL), "registers");
    refuse("human-monitor-command", control_arguments("s:command-line", "quit", NULL), "info NAME");
    refuse("change-vnc-password", control_arguments("s:password", "x", NULL), "without a VNC server");
}
END_TEST

START_TEST(test_display)
{
    struct surface *surface = surface_new(machine->screen, NULL, NULL);
    struct pixels *pixels = surface_resize(surface, 320, 200);
    int fds[4];
    unsigned count = 0;
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) value = control_client_call(client, "x-cloche-attach-display", NULL, 0, fds, &count, &error);
    ck_assert(value && count == 1);
    JsonObject *info = json_node_get_object(value);
    size_t size = json_object_get_int_member(info, "size");
    ck_assert_int_eq(json_object_get_int_member(info, "width"), 320);
    const uint32_t *shared = mmap(NULL, size, PROT_READ, MAP_SHARED, fds[0], 0);
    ck_assert(shared != MAP_FAILED);
    ck_assert(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0) == MAP_FAILED); // looking only
    wait_event("X_CLOCHE_DISPLAY_CURSOR");
    g_string_truncate(events, 0);
    ((uint32_t *)pixels->data)[5] = 0x123456;
    surface_damage(surface, &(struct rectangle){5, 0, 1, 1});
    wait_event("X_CLOCHE_DISPLAY_DAMAGE");
    JsonArray *rectangle = json_array_get_array_element(json_object_get_array_member(last_data, "rectangles"), 0);
    ck_assert_int_eq(json_array_get_int_element(rectangle, 0), 5);
    ck_assert_uint_eq(shared[5], 0x123456);
    surface_resize(surface, 640, 480);
    wait_event("X_CLOCHE_DISPLAY_RESIZE");
    ck_assert_int_ge(last_fd, 0);
    struct cursor *cursor = cursor_new(16, 16, 1, 2);
    cursor->argb[0] = 0xff00ff00;
    g_string_truncate(events, 0);
    surface_set_cursor(surface, cursor);
    wait_event("X_CLOCHE_DISPLAY_CURSOR ");
    uint32_t pixel = 0;
    ck_assert(json_object_get_boolean_member(last_data, "visible") && pread(last_fd, &pixel, 4, 0) == 4);
    ck_assert_uint_eq(pixel, 0xff00ff00);
    surface_move_cursor(surface, 7, 9);
    wait_event("X_CLOCHE_DISPLAY_CURSOR_MOVED");
    ck_assert_int_eq(json_object_get_int_member(last_data, "x"), 7);
    do_call("x-cloche-detach-display", NULL);
    refuse("x-cloche-detach-display", NULL, "not attached");
    refuse("x-cloche-attach-display", control_arguments("i:head", (int64_t)3, NULL), "no display 3");
    g_autofree char *png = g_build_filename(folder, "shot.png", NULL), *data = NULL;
    do_call("screendump", control_arguments("s:filename", png, NULL));
    ck_assert(g_file_get_contents(png, &data, NULL, NULL) && memcmp(data, "\x89PNG", 4) == 0);
    g_clear_pointer(&data, g_free);
    do_call("screendump", control_arguments("s:filename", png, "s:format", "ppm", NULL));
    ck_assert(g_file_get_contents(png, &data, NULL, NULL) && g_str_has_prefix(data, "P6 "));
    refuse("screendump", control_arguments("s:filename", "/nonexistent/x.png", NULL), "/nonexistent");
    munmap((void *)shared, size);
    close(fds[0]);
}
END_TEST

// A client that attaches and vanishes, and one that attaches and never reads, hold nobody up.
START_TEST(test_display_clients_that_vanish)
{
    struct surface *surface = surface_new(machine->screen, NULL, NULL);
    surface_resize(surface, 320, 200);
    for (unsigned i = 0; i < 5; i++) {
        struct control_client *other = control_client_new(path, NULL, NULL);
        control_client_send(other, "x-cloche-attach-display", NULL, NULL, NULL);
        for (unsigned n = 0; n < 20; n++)
            g_main_context_iteration(NULL, FALSE);
        surface_damage(surface, &(struct rectangle){0, 0, 10, 10});
        control_client_free(other);
        for (unsigned n = 0; n < 20; n++)
            g_main_context_iteration(NULL, FALSE);
    }
    ck_assert_uint_eq(surface_listeners(surface), 0);
    for (unsigned i = 0; i < 1000; i++)
        surface_damage(surface, &(struct rectangle){i % 300, i % 200, 10, 10});
    do_call("query-status", NULL);
}
END_TEST

START_TEST(test_input)
{
    JsonArray *list = json_array_new();
    static const char *const names[] = {"ctrl", "alt", "delete"};
    for (unsigned i = 0; i < 3; i++)
        json_array_add_object_element(list, control_arguments("s:type", "qcode", "s:data", names[i], NULL));
    do_call("send-key", control_arguments("a:keys", list, "i:hold-time", (int64_t)10, NULL));
    gint64 end = g_get_monotonic_time() + 2 * G_USEC_PER_SEC;
    while (!strstr(typed->str, "-29") && g_get_monotonic_time() < end)
        if (!g_main_context_iteration(NULL, FALSE))
            g_usleep(500);
    ck_assert_str_eq(typed->str, "+29 +56 +111 -111 -56 -29 ");
    g_string_truncate(typed, 0);
    JsonArray *input = json_array_new();
    json_array_add_object_element(
        input, control_arguments("s:type", "abs", "o:data",
                                 control_arguments("s:axis", "x", "i:value", (int64_t)100, NULL), NULL));
    json_array_add_object_element(
        input, control_arguments("s:type", "abs", "o:data",
                                 control_arguments("s:axis", "y", "i:value", (int64_t)32767, NULL), NULL));
    json_array_add_object_element(
        input,
        control_arguments("s:type", "btn", "o:data", control_arguments("b:down", 1, "s:button", "right", NULL), NULL));
    JsonObject *key = control_arguments("s:type", "x-cloche-evdev", "i:data", (int64_t)KEY_A, NULL);
    json_array_add_object_element(
        input, control_arguments("s:type", "key", "o:data", control_arguments("b:down", 1, "o:key", key, NULL), NULL));
    do_call("input-send-event", control_arguments("a:events", input, NULL));
    ck_assert_str_eq(typed->str, "b+2 +30 @100,32767 ");
    do_call("x-cloche-release-keys", NULL);
    ck_assert_ptr_nonnull(strstr(typed->str, "-30"));
    JsonArray *wrong = json_array_new();
    json_array_add_object_element(wrong, control_arguments("s:type", "qcode", "s:data", "nokey", NULL));
    refuse("send-key", control_arguments("a:keys", wrong, NULL), "nokey");
    refuse("send-key", control_arguments("a:keys", json_array_new(), NULL), "1 to 16");
    do_call("x-cloche-type-text", control_arguments("s:text", "ok", NULL));
    refuse("x-cloche-type-text", control_arguments("s:text", "\xe2\x82\xac", NULL), "");
    g_autoptr(JsonNode) mice = call("query-mice", NULL);
    JsonObject *mouse = json_array_get_object_element(json_node_get_array(mice), 0);
    ck_assert(json_object_get_boolean_member(mouse, "absolute") && json_object_get_boolean_member(mouse, "current"));
}
END_TEST

static void on_guest_text(void *opaque, const char *text)
{
    g_string_append_printf(typed, "text:%s ", text);
}

START_TEST(test_clipboard)
{
    refuse("x-cloche-attach-clipboard", NULL, "add the device spice-agent");
    clipboard_set_ways(machine->clipboard, CLIPBOARD_TO_GUEST | CLIPBOARD_FROM_GUEST);
    refuse("x-cloche-clipboard-text", control_arguments("s:text", "early", NULL), "install spice-vdagent");
    do_call("x-cloche-attach-clipboard", NULL);
    clipboard_set_guest(machine->clipboard, on_guest_text, NULL);
    clipboard_from_guest(machine->clipboard, "Gr\xc3\xbc\xc3\x9f"
                                             "e");
    wait_event("X_CLOCHE_CLIPBOARD");
    ck_assert_str_eq(json_object_get_string_member(last_data, "text"), "Gr\xc3\xbc\xc3\x9f"
                                                                       "e");
    do_call("x-cloche-clipboard-text", control_arguments("s:text", "hello", NULL));
    ck_assert_str_eq(typed->str, "text:hello ");

    refuse("x-cloche-clipboard-ways", control_arguments("s:ways", "sideways", NULL), "from-guest");
    do_call("x-cloche-clipboard-ways", control_arguments("s:ways", "from-guest", NULL));
    do_call("x-cloche-clipboard-text", control_arguments("s:text", "secret", NULL));
    ck_assert_str_eq(typed->str, "text:hello ");
    do_call("x-cloche-clipboard-ways", control_arguments("s:ways", "to-guest", NULL));
    g_string_truncate(events, 0);
    clipboard_from_guest(machine->clipboard, "secret");
    g_autoptr(JsonNode) value = call("x-cloche-query-clipboard", NULL);
    JsonObject *info = json_node_get_object(value);
    ck_assert_str_eq(json_object_get_string_member(info, "ways"), "to-guest");
    ck_assert(json_object_get_boolean_member(info, "agent"));
    ck_assert_str_eq(events->str, "");
}
END_TEST

START_TEST(test_media)
{
    g_autofree char *image = g_build_filename(folder, "cd.iso", NULL), *content = g_strnfill(65536, 'c');
    ck_assert(g_file_set_contents(image, content, 65536, NULL));
    machine_lock(machine);
    struct drive *cd = drive_new_with_disk(machine, "cd0", DRIVE_CDROM, NULL);
    struct drive *hd = drive_new_with_disk(machine, "hd0", DRIVE_DISK, NULL);
    machine_unlock(machine);
    do_call("blockdev-change-medium", control_arguments("s:id", "cd0", "s:filename", image, "s:format", "raw", NULL));
    wait_event("DEVICE_TRAY_MOVED");
    g_autoptr(JsonNode) block = call("query-block", NULL);
    g_autofree char *text = json_to_string(block, FALSE);
    ck_assert(strstr(text, "cd.iso") && strstr(text, "\"tray_open\":false"));
    do_call("eject", control_arguments("s:device", "cd0", NULL));
    g_autoptr(JsonNode) open = call("query-block", NULL);
    g_autofree char *after = json_to_string(open, FALSE);
    ck_assert(!strstr(after, "cd.iso") && strstr(after, "\"tray_open\":true"));
    do_call("blockdev-close-tray", control_arguments("s:id", "cd0", NULL));
    do_call("blockdev-open-tray", control_arguments("s:id", "cd0", NULL));
    refuse("eject", control_arguments("s:device", "hd0", NULL), "cannot be changed");
    refuse("eject", control_arguments("s:device", "fd9", NULL), "not found");
    refuse("eject", NULL, "Name the drive");
    refuse("blockdev-change-medium", control_arguments("s:id", "cd0", "s:filename", "/nonexistent.iso", NULL),
           "/nonexistent.iso");
    machine_lock(machine);
    drive_free(cd);
    drive_free(hd);
    machine_unlock(machine);
}
END_TEST

static bool slow_job(void *opaque, struct progress *progress, GError **error)
{
    atomic_store(&progress->total, 1000);
    for (unsigned i = 0; i < 1000; i++) {
        if (!progress_advance(progress, 1, error))
            return false;
        g_usleep(1000);
    }
    return true;
}

START_TEST(test_jobs)
{
    struct job_list *jobs = control_server_jobs(server);
    g_autoptr(GError) error = NULL;
    do_call("query-status", NULL); // the client has negotiated: it gets events
    ck_assert(control_job_start(jobs, "one", "test", slow_job, NULL, NULL, &error));
    ck_assert(!control_job_start(jobs, "one", "test", slow_job, NULL, NULL, &error));
    wait_event("JOB_STATUS_CHANGE");
    refuse("job-dismiss", control_arguments("s:id", "one", NULL), "running");
    refuse("job-cancel", control_arguments("s:id", "two", NULL), "not found");
    g_autoptr(JsonNode) list = call("query-jobs", NULL);
    JsonObject *job = json_array_get_object_element(json_node_get_array(list), 0);
    ck_assert_str_eq(json_object_get_string_member(job, "status"), "running");
    do_call("job-cancel", control_arguments("s:id", "one", NULL));
    g_string_truncate(events, 0);
    gint64 end = g_get_monotonic_time() + 5 * G_USEC_PER_SEC;
    while (control_jobs_busy(jobs) && g_get_monotonic_time() < end)
        g_main_context_iteration(NULL, TRUE);
    g_autoptr(JsonNode) after = call("query-jobs", NULL);
    job = json_array_get_object_element(json_node_get_array(after), 0);
    ck_assert_str_eq(json_object_get_string_member(job, "status"), "concluded");
    ck_assert_str_eq(json_object_get_string_member(job, "error"), "Cancelled");
    do_call("job-dismiss", control_arguments("s:id", "one", NULL));
    g_autoptr(JsonNode) none = call("query-jobs", NULL);
    ck_assert_uint_eq(json_array_get_length(json_node_get_array(none)), 0);
    ck_assert(control_job_start(jobs, "two", "test", slow_job, NULL, NULL, NULL)); // the server ends while it works
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("control");
    TCase *tests = tcase_create("control");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_life);
    tcase_add_test(tests, test_queries);
    tcase_add_test(tests, test_display);
    tcase_add_test(tests, test_display_clients_that_vanish);
    tcase_add_test(tests, test_input);
    tcase_add_test(tests, test_clipboard);
    tcase_add_test(tests, test_media);
    tcase_add_test(tests, test_jobs);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
