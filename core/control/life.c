// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/control/life.h"
#include "core/config/config.h"
#include "core/config/library.h"
#include "core/control/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_POLL_MS    5
#define START_TIMEOUT_MS 60000

static const char *const life_names[] = {"off", "saved", "running", "crashed", "busy"};

const char *machine_life_name(enum machine_life life)
{
    return life_names[life];
}

// ---- Looking ----

// Whether somebody holds the folder's lock; looking takes nothing.
static bool folder_is_held(const char *folder)
{
    g_autofree char *path = g_build_filename(folder, ".lock", NULL);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    bool held = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (fd >= 0)
        close(fd);
    return held;
}

static bool is_saved(const char *folder)
{
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL);
    g_autoptr(config_t) config = config_load(path, NULL);
    g_autofree char *resume = config ? config_get(config, "Machine", "resume") : NULL;
    return resume && resume[0];
}

static char *crash_reason(GKeyFile *file)
{
    int number = g_key_file_get_integer(file, "Run", "signal", NULL);
    if (number > 0)
        return g_strdup_printf("The monitor crashed (%s); its log says more. Start the machine again",
                               g_strsignal(number));
    return g_strdup("The monitor was killed or the host went down; start the machine again");
}

struct machine_report *machine_report(const char *folder, const char *uuid)
{
    struct machine_report *report = g_new0(struct machine_report, 1);
    g_autofree char *path = g_build_filename(folder, LAST_RUN_FILE, NULL);
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, NULL);
    g_autofree char *state = g_key_file_get_string(file, "Run", "state", NULL);
    bool running = g_strcmp0(state, "running") == 0;
    report->started = g_key_file_get_int64(file, "Run", "started", NULL);
    report->ended = g_key_file_get_int64(file, "Run", "ended", NULL);
    report->status = g_key_file_get_integer(file, "Run", "status", NULL);
    if (folder_is_held(folder)) {
        report->life = running ? LIFE_RUNNING : LIFE_BUSY;
        report->pid = running ? g_key_file_get_integer(file, "Run", "pid", NULL) : 0;
        return report;
    }
    report->life = is_saved(folder) ? LIFE_SAVED : running ? LIFE_CRASHED : LIFE_OFF;
    report->reason = running ? crash_reason(file) : g_key_file_get_string(file, "Run", "reason", NULL);
    return report;
}

void machine_report_free(struct machine_report *report)
{
    if (!report)
        return;
    g_free(report->reason);
    g_free(report);
}

// ---- Starting ----

char *machine_program(void)
{
    const char *given = g_getenv("CLOCHE_VM");
    if (given && given[0])
        return g_strdup(given);
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *here = self ? g_path_get_dirname(self) : NULL;
    const char *const places[] = {here, CLOCHE_BINDIR};
    for (unsigned i = 0; i < G_N_ELEMENTS(places); i++) {
        g_autofree char *path = places[i] ? g_build_filename(places[i], "cloche-vm", NULL) : NULL;
        if (path && access(path, X_OK) == 0)
            return g_steal_pointer(&path);
    }
    return g_find_program_in_path("cloche-vm");
}

struct spawning;
struct machine_starter {
    struct spawning *spawning;      // NULL: the process is there
    char *folder, *socket, *output; // OUTPUT: what the monitor printed
    GPid pid;
    GSource *child, *poll;
    int64_t deadline;
    int fd; // of the control socket, -1: not connected
    bool ended;
    machine_started_fn *done;
    void *opaque;
};

static void reap(GPid pid, int status, gpointer data)
{
}

// A long-lived program must not keep a zombie of it.
static void reap_later(GPid pid)
{
    GSource *reaper = g_child_watch_source_new(pid);
    g_source_set_callback(reaper, G_SOURCE_FUNC(reap), NULL, NULL);
    g_source_attach(reaper, g_main_context_get_thread_default());
    g_source_unref(reaper);
}

// What the thread that makes the process needs; it may outlive the starter.
struct spawning {
    struct machine_starter *starter; // NULL: forgotten
    char *program, *folder;
    bool paused;
    int null, output;
    pid_t pid;
};

static void spawning_free(gpointer data)
{
    struct spawning *spawning = data;
    close(spawning->null);
    close(spawning->output);
    g_free(spawning->program);
    g_free(spawning->folder);
    g_free(spawning);
}

void machine_starter_free(struct machine_starter *starter)
{
    if (!starter)
        return;
    if (starter->spawning)
        starter->spawning->starter = NULL;
    if (starter->child && !starter->ended)
        reap_later(starter->pid);
    GSource **sources[] = {&starter->child, &starter->poll};
    for (unsigned i = 0; i < G_N_ELEMENTS(sources); i++)
        if (*sources[i]) {
            g_source_destroy(*sources[i]);
            g_source_unref(*sources[i]);
        }
    if (starter->fd >= 0)
        close(starter->fd);
    if (starter->output)
        g_unlink(starter->output);
    g_free(starter->folder);
    g_free(starter->socket);
    g_free(starter->output);
    g_free(starter);
}

static void finish(struct machine_starter *starter, const GError *error)
{
    machine_started_fn *done = starter->done;
    void *opaque = starter->opaque;
    machine_starter_free(starter);
    done(opaque, error);
}

// The socket is there before the machine is: a saved state may still fail to load. The greeting comes once it runs.
static bool greeted(struct machine_starter *starter)
{
    char byte;
    if (starter->fd < 0)
        starter->fd = transport_connect(starter->socket, NULL);
    if (starter->fd < 0)
        return false;
    ssize_t got = recv(starter->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) { // the one that ended before
        close(starter->fd);
        starter->fd = -1;
    }
    return got > 0;
}

static gboolean poll_socket(gpointer data)
{
    struct machine_starter *starter = data;
    if (greeted(starter)) {
        finish(starter, NULL);
        return G_SOURCE_REMOVE;
    }
    if (g_get_monotonic_time() < starter->deadline)
        return G_SOURCE_CONTINUE;
    g_autoptr(GError) error =
        g_error_new(CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "The monitor started but does not answer; %s/log/vm.log says more",
                    starter->folder);
    finish(starter, error);
    return G_SOURCE_REMOVE;
}

// The monitor ended before it answered: what it printed is the reason.
static void child_ended(GPid pid, int status, gpointer data)
{
    struct machine_starter *starter = data;
    starter->ended = true;
    g_autofree char *text = NULL;
    g_file_get_contents(starter->output, &text, NULL, NULL);
    char *line = text ? g_strstrip(text) : NULL;
    char *last = line ? strrchr(line, '\n') : NULL;
    line = last ? last + 1 : line;
    if (line && g_str_has_prefix(line, "cloche-vm: "))
        line += strlen("cloche-vm: ");
    g_autoptr(GError) error = NULL;
    if (line && line[0])
        error = g_error_new_literal(CLOCHE_ERROR, CLOCHE_ERROR_FAILED, line);
    else if (WIFSIGNALED(status))
        error = g_error_new(CLOCHE_ERROR, CLOCHE_ERROR_FAILED,
                            "The monitor crashed at its start (%s); %s/log/vm.log says more",
                            g_strsignal(WTERMSIG(status)), starter->folder);
    else
        error = g_error_new(CLOCHE_ERROR, CLOCHE_ERROR_FAILED,
                            "The monitor ended at its start with status %d; %s/log/vm.log says more",
                            WEXITSTATUS(status), starter->folder);
    // A guest that powers off at once is no failure.
    finish(starter, WIFEXITED(status) && WEXITSTATUS(status) == 0 ? NULL : error);
}

// No copy is made of this program's memory for the child. The machine outlives the terminal and the program that
// started it.
static int spawn_program(struct spawning *spawning)
{
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    posix_spawn_file_actions_init(&actions);
    const int files[] = {spawning->null, spawning->output, spawning->output};
    for (int i = 0; i < 3; i++)
        posix_spawn_file_actions_adddup2(&actions, files[i], i);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    char *const arguments[] = {spawning->program, "--machine", spawning->folder, spawning->paused ? "--pause" : NULL,
                               NULL};
    int e = posix_spawn(&spawning->pid, spawning->program, &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return e;
}

// On a busy host a new process takes a while to come: the window that starts a machine must not stand still.
static void spawn_in_thread(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
{
    struct spawning *spawning = data;
    int e = spawn_program(spawning);
    if (e)
        g_task_return_new_error(task, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "%s cannot be run: %s", spawning->program,
                                g_strerror(e));
    else
        g_task_return_boolean(task, TRUE);
}

static void spawned(GObject *source, GAsyncResult *result, gpointer data)
{
    g_autoptr(GError) error = NULL;
    struct spawning *spawning = g_task_get_task_data(G_TASK(result));
    struct machine_starter *starter = spawning->starter;
    bool good = g_task_propagate_boolean(G_TASK(result), &error);
    if (!starter) {
        if (good)
            reap_later(spawning->pid);
        return;
    }
    starter->spawning = NULL;
    if (!good) {
        finish(starter, error);
        return;
    }
    GMainContext *context = g_main_context_get_thread_default();
    starter->pid = spawning->pid;
    starter->child = g_child_watch_source_new(starter->pid);
    g_source_set_callback(starter->child, G_SOURCE_FUNC(child_ended), starter, NULL);
    g_source_attach(starter->child, context);
    starter->poll = g_timeout_source_new(START_POLL_MS);
    g_source_set_callback(starter->poll, poll_socket, starter, NULL);
    g_source_attach(starter->poll, context);
}

static bool spawn(struct machine_starter *starter, bool paused, GError **error)
{
    g_autofree char *program = machine_program();
    if (!program) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                    "The program cloche-vm is not installed beside this one; install Cloche or set CLOCHE_VM");
        return false;
    }
    int output = g_file_open_tmp("cloche-start-XXXXXX", &starter->output, error);
    if (output < 0)
        return false;
    struct spawning *spawning = g_new(struct spawning, 1);
    *spawning = (struct spawning){.starter = starter,
                                  .program = g_steal_pointer(&program),
                                  .folder = g_strdup(starter->folder),
                                  .paused = paused,
                                  .null = open("/dev/null", O_RDWR | O_CLOEXEC),
                                  .output = output};
    starter->spawning = spawning;
    g_autoptr(GTask) task = g_task_new(NULL, NULL, spawned, NULL);
    g_task_set_task_data(task, spawning, spawning_free);
    g_task_run_in_thread(task, spawn_in_thread);
    return true;
}

struct machine_starter *machine_start_process(const char *folder, const char *uuid, bool paused,
                                              machine_started_fn *done, void *opaque, GError **error)
{
    g_autofree char *runtime = machine_runtime_folder(uuid, true, error);
    if (!runtime)
        return NULL;
    if (folder_is_held(folder)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY, "The machine in %s runs already, or a tool works on it",
                    folder);
        return NULL;
    }
    struct machine_starter *starter = g_new0(struct machine_starter, 1);
    starter->fd = -1;
    starter->folder = g_strdup(folder);
    starter->socket = g_build_filename(runtime, "control", NULL);
    starter->done = done;
    starter->opaque = opaque;
    starter->deadline = g_get_monotonic_time() + START_TIMEOUT_MS * 1000ll;
    if (spawn(starter, paused, error))
        return starter;
    machine_starter_free(starter);
    return NULL;
}

struct sync_start {
    bool done;
    GError *error;
};

static void sync_started(void *opaque, const GError *error)
{
    struct sync_start *sync = opaque;
    sync->done = true;
    sync->error = error ? g_error_copy(error) : NULL;
}

bool machine_start_process_sync(const char *folder, const char *uuid, bool paused, GError **error)
{
    struct sync_start sync = {0};
    if (!machine_start_process(folder, uuid, paused, sync_started, &sync, error))
        return false;
    while (!sync.done)
        g_main_context_iteration(g_main_context_get_thread_default(), TRUE);
    if (sync.error)
        g_propagate_error(error, sync.error);
    return sync.error == NULL;
}
