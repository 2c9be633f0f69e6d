// SPDX-License-Identifier: GPL-2.0-or-later
// Stands in for cloche-vm: the same command line and control protocol, and a screen that is easy to check, but no
// machine. The screen is 320x200, coloured by state (green running, grey paused); each key press paints one more 16x16
// square at the top, white for "a" and red for others; the pointer's last position is a blue 8x8 square.
// FAKE_FAIL=start makes it end at once with status 1 and a reason on standard error; FAKE_FAIL=COMMAND fails that
// command.
#include "core/config/library.h"
#include "core/control/life.h"
#include "core/control/qmp.h"
#include "core/screen/input.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WIDTH  320
#define HEIGHT 200
#define SIZE   (WIDTH * HEIGHT * 4)

struct fake {
    GMainLoop *loop;
    struct qmp_server *server;
    int memfd;
    uint32_t *pixels;
    bool running;
    unsigned keys_pressed;
    char *text; // that came for the guest's clipboard
};

static void fill(struct fake *fake, int x, int y, int width, int height, uint32_t color)
{
    for (int row = MAX(y, 0); row < MIN(y + height, HEIGHT); row++)
        for (int column = MAX(x, 0); column < MIN(x + width, WIDTH); column++)
            fake->pixels[row * WIDTH + column] = color;
    JsonArray *rectangle = json_array_new(), *list = json_array_new();
    const int values[] = {x, y, width, height};
    for (int i = 0; i < 4; i++)
        json_array_add_int_element(rectangle, values[i]);
    json_array_add_array_element(list, rectangle);
    JsonObject *data = json_object_new();
    json_object_set_int_member(data, "head", 0);
    json_object_set_array_member(data, "rectangles", list);
    qmp_server_emit(fake->server, "X_CLOCHE_DISPLAY_DAMAGE", qmp_node_object(data));
}

static void set_running(struct fake *fake, bool running)
{
    fake->running = running;
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "status", running ? "running" : "paused");
    qmp_server_emit(fake->server, "X_CLOCHE_STATE", qmp_node_object(data));
    fill(fake, 0, 32, WIDTH, HEIGHT - 32, running ? 0x00a000 : 0x606060);
}

static JsonNode *do_stop(struct qmp_call *call, GError **error)
{
    set_running(call->opaque, false);
    return NULL;
}

static JsonNode *do_cont(struct qmp_call *call, GError **error)
{
    set_running(call->opaque, true);
    return NULL;
}

// Any state by name, as if the machine had come into it by itself.
static JsonNode *fake_state(struct qmp_call *call, GError **error)
{
    struct fake *fake = call->opaque;
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "status", json_object_get_string_member(call->arguments, "status"));
    qmp_server_emit(fake->server, "X_CLOCHE_STATE", qmp_node_object(data));
    return NULL;
}

// For the bench: the picture's lower part in another colour.
static JsonNode *fake_paint(struct qmp_call *call, GError **error)
{
    fill(call->opaque, 0, 32, WIDTH, HEIGHT - 32, json_object_get_int_member(call->arguments, "color"));
    return NULL;
}

// The guest's clipboard: a text that is copied there, and what has come.
static JsonNode *fake_copy(struct qmp_call *call, GError **error)
{
    struct fake *fake = call->opaque;
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "text", qmp_string(call, "text"));
    qmp_server_emit(fake->server, "X_CLOCHE_CLIPBOARD", qmp_node_object(data));
    return NULL;
}

static JsonNode *fake_pasted(struct qmp_call *call, GError **error)
{
    struct fake *fake = call->opaque;
    return qmp_node_string(fake->text ? fake->text : "");
}

static JsonNode *clipboard_text(struct qmp_call *call, GError **error)
{
    struct fake *fake = call->opaque;
    g_free(fake->text);
    fake->text = g_strdup(qmp_string(call, "text"));
    return NULL;
}

static JsonNode *query_vnc(struct qmp_call *call, GError **error)
{
    JsonObject *data = json_object_new();
    json_object_set_boolean_member(data, "enabled", FALSE);
    return qmp_node_object(data);
}

static gboolean leave(gpointer loop)
{
    g_main_loop_quit(loop);
    return G_SOURCE_REMOVE;
}

static JsonNode *do_quit(struct qmp_call *call, GError **error)
{
    struct fake *fake = call->opaque;
    g_timeout_add(50, leave, fake->loop); // the reply goes out first
    return NULL;
}

static JsonNode *do_reset(struct qmp_call *call, GError **error)
{
    struct fake *fake = call->opaque;
    fake->keys_pressed = 0;
    fill(fake, 0, 0, WIDTH, 32, 0x000000);
    return NULL;
}

static JsonNode *query_status(struct qmp_call *call, GError **error)
{
    struct fake *fake = call->opaque;
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "status", fake->running ? "running" : "paused");
    json_object_set_boolean_member(data, "running", fake->running);
    return qmp_node_object(data);
}

static JsonNode *query_stats(struct qmp_call *call, GError **error)
{
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "engine", "translate");
    json_object_set_int_member(data, "host-cpu-ns", g_get_monotonic_time() * 250); // a quarter of a processor
    json_object_set_int_member(data, "resident-bytes", 64 << 20);
    return qmp_node_object(data);
}

static JsonNode *query_mice(struct qmp_call *call, GError **error)
{
    JsonArray *list = json_array_new();
    JsonObject *mouse = json_object_new();
    json_object_set_boolean_member(mouse, "current", TRUE);
    json_object_set_boolean_member(mouse, "absolute", TRUE);
    json_array_add_object_element(list, mouse);
    return qmp_node_array(list);
}

static JsonNode *attach_display(struct qmp_call *call, GError **error)
{
    struct fake *fake = call->opaque;
    JsonObject *data = json_object_new();
    const struct {
        const char *name;
        int value;
    } members[] = {{"head", 0}, {"width", WIDTH}, {"height", HEIGHT}, {"stride", WIDTH * 4}, {"size", SIZE}};
    for (unsigned i = 0; i < G_N_ELEMENTS(members); i++)
        json_object_set_int_member(data, members[i].name, members[i].value);
    call->fds[call->fd_count++] = fcntl(fake->memfd, F_DUPFD_CLOEXEC, 0);
    return qmp_node_object(data);
}

static JsonNode *send_event(struct qmp_call *call, GError **error)
{
    struct fake *fake = call->opaque;
    JsonArray *events = json_object_get_array_member(call->arguments, "events");
    for (unsigned i = 0; i < json_array_get_length(events); i++) {
        JsonObject *event = json_array_get_object_element(events, i),
                   *data = json_object_get_object_member(event, "data");
        if (strcmp(json_object_get_string_member(event, "type"), "key") != 0 ||
            !json_object_get_boolean_member(data, "down"))
            continue;
        int code = json_object_get_int_member(json_object_get_object_member(data, "key"), "data");
        const struct key *key = key_by_evdev(code);
        bool a = key && key->qcode && strcmp(key->qcode, "a") == 0;
        fill(fake, 16 * (fake->keys_pressed++ % 20), 0, 16, 16, a ? 0xffffff : 0xff0000);
    }
    return NULL;
}

static JsonNode *pointer(struct qmp_call *call, GError **error)
{
    fill(call->opaque, qmp_int(call, "x", 0) - 4, qmp_int(call, "y", 0) - 4, 8, 8, 0x0000ff);
    return NULL;
}

static JsonNode *accept(struct qmp_call *call, GError **error)
{
    return NULL;
}

static bool enter(void *opaque, const struct qmp_command *command, GError **error)
{
    if (g_strcmp0(g_getenv("FAKE_FAIL"), command->name) != 0)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "The stand-in was told to refuse %s", command->name);
    return false;
}

static const struct qmp_argument head_arguments[] = {{.name = "head", .type = QMP_INT, .optional = true}, {0}};
static const struct qmp_argument event_arguments[] = {{.name = "events", .type = QMP_ARRAY}, {0}};
static const struct qmp_argument pointer_arguments[] = {{.name = "x", .type = QMP_INT},
                                                        {.name = "y", .type = QMP_INT},
                                                        {.name = "width", .type = QMP_INT},
                                                        {.name = "height", .type = QMP_INT},
                                                        {0}};
static const struct qmp_argument text_arguments[] = {{.name = "text", .type = QMP_STRING}, {0}};
static const struct qmp_argument ways_arguments[] = {{.name = "ways", .type = QMP_STRING}, {0}};
static const struct qmp_argument state_arguments[] = {{.name = "status", .type = QMP_STRING}, {0}};
static const struct qmp_argument color_arguments[] = {{.name = "color", .type = QMP_INT, .max = 0xffffff}, {0}};
static const struct qmp_argument keys_arguments[] = {{.name = "keys", .type = QMP_ARRAY}, {0}};

#define COMMAND(name_, handler_, arguments_)                                                                           \
    {                                                                                                                  \
        .name = name_, .handler = handler_, .arguments = arguments_, .request = QMP_ANY_STATE, .help = ""              \
    }
static const struct qmp_command commands[] = {
    COMMAND("stop", do_stop, NULL),
    COMMAND("x-fake-paint", fake_paint, color_arguments),
    COMMAND("x-fake-state", fake_state, state_arguments),
    COMMAND("x-fake-copy", fake_copy, text_arguments),
    COMMAND("x-fake-pasted", fake_pasted, NULL),
    COMMAND("x-cloche-attach-clipboard", accept, NULL),
    COMMAND("x-cloche-clipboard-ways", accept, ways_arguments),
    COMMAND("x-cloche-clipboard-text", clipboard_text, text_arguments),
    COMMAND("cont", do_cont, NULL),
    COMMAND("quit", do_quit, NULL),
    COMMAND("system_powerdown", do_quit, NULL),
    COMMAND("system_reset", do_reset, NULL),
    COMMAND("query-status", query_status, NULL),
    COMMAND("query-mice", query_mice, NULL),
    COMMAND("query-vnc", query_vnc, NULL),
    COMMAND("x-cloche-stats", query_stats, NULL),
    COMMAND("x-cloche-attach-display", attach_display, head_arguments),
    COMMAND("x-cloche-pointer", pointer, pointer_arguments),
    COMMAND("x-cloche-type-text", accept, text_arguments),
    COMMAND("send-key", accept, keys_arguments),
    COMMAND("input-send-event", send_event, event_arguments),
    {0},
};

// As a monitor does: the folder's lock, and the record of the run.
static bool hold_folder(const char *folder, char **socket, GError **error)
{
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL);
    g_autoptr(config_t) config = config_load(path, error);
    if (!config || machine_folder_lock(folder, error) < 0) // the descriptor stays open until the end
        return false;
    g_autofree char *uuid = config_get(config, "Machine", "uuid"), *runtime = machine_runtime_folder(uuid, true, error);
    if (!runtime)
        return false;
    *socket = g_build_filename(runtime, "control", NULL);
    return true;
}

static void record(const char *folder, const char *state)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autofree char *path = g_build_filename(folder, LAST_RUN_FILE, NULL);
    g_key_file_set_string(file, "Run", "state", state);
    g_key_file_set_integer(file, "Run", "pid", getpid());
    g_key_file_save_to_file(file, path, NULL);
}

static bool serve(struct fake *fake, const char *folder, GError **error)
{
    static const struct qmp_command *const tables[] = {qmp_builtin_commands, commands, NULL};
    static const struct qmp_server_ops ops = {.enter = enter};
    g_autofree char *socket = NULL;
    if (!hold_folder(folder, &socket, error))
        return false;
    fake->server = qmp_server_new(socket, tables, &ops, fake, NULL, error);
    if (!fake->server)
        return false;
    record(folder, "running");
    fill(fake, 0, 32, WIDTH, HEIGHT - 32, 0x00a000);
    g_main_loop_run(fake->loop);
    qmp_server_free(fake->server);
    record(folder, "ended");
    return true;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list-engines") == 0) {
        puts("kvm: The stand-in has none.\ntranslate: works");
        return 0;
    }
    if (argc < 3 || strcmp(argv[1], "--machine") != 0 || g_strcmp0(g_getenv("FAKE_FAIL"), "start") == 0) {
        fprintf(stderr, "the stand-in was told to fail at its start\n");
        return 1;
    }
    struct fake fake = {
        .loop = g_main_loop_new(NULL, FALSE), .running = true, .memfd = memfd_create("screen", MFD_CLOEXEC)};
    if (fake.memfd < 0 || ftruncate(fake.memfd, SIZE) != 0)
        return 1;
    fake.pixels = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fake.memfd, 0);
    g_autoptr(GError) error = NULL;
    if (fake.pixels != MAP_FAILED && serve(&fake, argv[2], &error))
        return 0;
    fprintf(stderr, "%s\n", error ? error->message : "no memory");
    return 1;
}
