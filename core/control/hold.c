// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/control/hold.h"
#include "core/base/file.h"
#include "core/config/clone.h"
#include "core/config/config.h"
#include "core/config/library.h"
#include "core/control/life.h"
#include "core/machine/machine.h"
#include "core/screen/surface.h"
#include "core/state/machine_state.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOGS_KEPT 5

struct machine_hold {
    char *folder, *runtime;
    int lock;
    struct machine_options *options;
    int64_t started;
};

// ---- The log and the record of the run ----

// vm.log -> vm.log.1 -> ... -> vm.log.5
static void rotate_logs(const char *path)
{
    for (unsigned i = LOGS_KEPT; i > 0; i--) {
        g_autofree char *to = g_strdup_printf("%s.%u", path, i);
        g_autofree char *from = i > 1 ? g_strdup_printf("%s.%u", path, i - 1) : g_strdup(path);
        rename(from, to); // missing ones are none
    }
}

static bool open_log(const char *folder, GError **error)
{
    g_autofree char *logs = g_build_filename(folder, "log", NULL), *path = g_build_filename(logs, "vm.log", NULL);
    g_mkdir(logs, 0700);
    rotate_logs(path);
    return log_open_file(path, error);
}

static bool write_record(struct machine_hold *hold, const char *state, const char *reason, int status, GError **error)
{
    g_autofree char *path = g_build_filename(hold->folder, LAST_RUN_FILE, NULL);
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_key_file_set_string(file, "Run", "state", state);
    g_key_file_set_integer(file, "Run", "pid", getpid());
    g_key_file_set_int64(file, "Run", "started", hold->started);
    if (strcmp(state, "ended") == 0) {
        g_key_file_set_int64(file, "Run", "ended", g_get_real_time() / G_USEC_PER_SEC);
        g_key_file_set_integer(file, "Run", "status", status);
        g_key_file_set_string(file, "Run", "reason", reason ? reason : "");
    }
    size_t length;
    g_autofree char *text = g_key_file_to_data(file, &length, NULL);
    return host_file_write(path, text, length, 0600, error);
}

// A crash leaves its signal in the record: async-signal-safe, through a path that stands ready.
static struct {
    char path[4096];
} crash;

static void crashed(int number)
{
    static const char text[] = "\nsignal=";
    int fd = open(crash.path, O_WRONLY | O_APPEND | O_CLOEXEC);
    char digits[3] = {'0' + number / 10, '0' + number % 10, '\n'};
    if (fd >= 0) {
        ssize_t n = write(fd, text, sizeof(text) - 1);
        n = write(fd, digits, 3);
        (void)n;
        close(fd);
    }
    signal(number, SIG_DFL);
    raise(number);
}

// SIGSEGV belongs to the engines; what they do not know they pass on to what was installed before.
static void install_crash_handlers(const char *folder)
{
    g_autofree char *path = g_build_filename(folder, LAST_RUN_FILE, NULL);
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    if (g_strlcpy(crash.path, path, sizeof(crash.path)) >= sizeof(crash.path))
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++)
        signal(signals[i], crashed);
}

// ---- Opening ----

// A serial port that a console can reach, where the definition names none; and a place for "socket:" without a path.
// "machine:NAME" or "machine:NAME:2": the other machine's first or third port, which must be a "socket:" without a
// path.
static char *other_port(const char *target, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(target + strlen("machine:"), ":", 2);
    guint64 port = 0;
    if (parts[0] && parts[1] && !g_ascii_string_to_unsigned(parts[1], 10, 0, 3, &port, error))
        return NULL;
    g_autoptr(library_t) library = library_open(error);
    const struct machine_entry *other = library ? library_find(library, parts[0] ? parts[0] : "", error) : NULL;
    g_autofree char *runtime = other && other->uuid ? machine_runtime_folder(other->uuid, true, error) : NULL;
    if (!runtime) {
        g_prefix_error(error, "The serial port \"%s\": ", target);
        return NULL;
    }
    return g_strdup_printf("unix:%s/serial%u", runtime, (unsigned)port);
}

static bool complete_serials(struct machine_hold *hold, GError **error)
{
    GPtrArray *serials = hold->options->serials;
    if (!serials->len) {
        struct serial_options *serial = g_new0(struct serial_options, 1);
        serial->target = g_strdup("socket:");
        g_ptr_array_add(serials, serial);
    }
    for (unsigned i = 0; i < serials->len; i++) {
        struct serial_options *serial = serials->pdata[i];
        char *target = serial->target;
        if (g_strcmp0(target, "socket:") == 0)
            serial->target = g_strdup_printf("socket:%s/serial%u", hold->runtime, i);
        else if (target && g_str_has_prefix(target, "machine:"))
            serial->target = other_port(target, error);
        else
            continue;
        g_free(target);
        if (!serial->target)
            return false;
    }
    return true;
}

// A linked clone whose base machine was moved: the library knows where it is.
static bool find_bases(struct machine_hold *hold, GError **error)
{
    g_autofree char *path = g_build_filename(hold->folder, CONFIG_FILE, NULL);
    g_autoptr(config_t) config = config_load(path, error);
    g_auto(GStrv) groups = config ? config_groups(config, "Drive *") : NULL;
    bool linked = false;
    for (char **group = groups; group && *group; group++)
        linked = linked || config_is_set(config, *group, "base-machine");
    if (!config || !linked)
        return config != NULL;
    g_autoptr(library_t) library = library_open(error);
    struct machine_entry entry = {
        .folder = hold->folder, .name = hold->options->name, .uuid = hold->options->uuid, .config = config};
    return library && machine_find_bases(library, &entry, error);
}

static bool read_definition(struct machine_hold *hold, GError **error)
{
    hold->options = config_load_folder(hold->folder, error);
    if (!hold->options)
        return false;
    if (!hold->options->uuid || !hold->options->uuid[0]) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s/machine.conf has no UUID; add one: uuid=... in group [Machine]", hold->folder);
        return false;
    }
    if (!find_bases(hold, error))
        return false;
    hold->runtime = machine_runtime_folder(hold->options->uuid, true, error);
    if (!hold->runtime)
        return false;
    g_free(hold->options->control_socket);
    hold->options->control_socket = g_build_filename(hold->runtime, "control", NULL);
    return complete_serials(hold, error);
}

struct machine_hold *machine_hold_open(const char *folder, GError **error)
{
    struct machine_hold *hold = g_new0(struct machine_hold, 1);
    hold->folder = g_canonicalize_filename(folder, NULL);
    hold->started = g_get_real_time() / G_USEC_PER_SEC;
    hold->lock = machine_folder_lock(hold->folder, error);
    if (hold->lock < 0 || !read_definition(hold, error) || !open_log(hold->folder, error) ||
        !write_record(hold, "running", NULL, 0, error)) {
        if (hold->lock >= 0)
            close(hold->lock);
        hold->lock = -1;
        machine_hold_close(hold, NULL, 0);
        return NULL;
    }
    install_crash_handlers(hold->folder);
    log_info("machine", "%s starts (process %d)", hold->options->name ? hold->options->name : hold->folder,
             (int)getpid());
    return hold;
}

struct machine_options *machine_hold_options(struct machine_hold *hold)
{
    return hold->options;
}

const char *machine_hold_folder(struct machine_hold *hold)
{
    return hold->folder;
}

void machine_hold_close(struct machine_hold *hold, const char *reason, int status)
{
    if (!hold)
        return;
    if (hold->lock >= 0) {
        g_autoptr(GError) error = NULL;
        log_info("machine", "The run ended with status %d%s%s", status, reason ? ": " : "", reason ? reason : "");
        crash.path[0] = 0;
        if (!write_record(hold, "ended", reason, status, &error))
            log_warning("machine", "%s", error->message);
        host_folder_remove(hold->runtime, NULL);
        close(hold->lock);
    }
    if (hold->options)
        machine_options_free(hold->options);
    g_free(hold->runtime);
    g_free(hold->folder);
    g_free(hold);
}

// ---- Suspend and resume ----

static bool set_resume(struct config *config, void *opaque, GError **error)
{
    return config_set(config, "Machine", "resume", opaque, error);
}

bool machine_hold_resume(struct machine_hold *hold, struct machine *machine, GError **error)
{
    g_autofree char *conf = g_build_filename(hold->folder, CONFIG_FILE, NULL);
    g_autoptr(config_t) config = config_load(conf, error);
    g_autofree char *resume = config ? config_get(config, "Machine", "resume") : NULL;
    if (!resume)
        return false;
    if (!resume[0])
        return true;
    g_autofree char *path = g_build_filename(hold->folder, resume, NULL);
    if (!machine_state_read_folder(machine, path, true, error)) {
        g_prefix_error(error, "The machine cannot go on where it was: ");
        return false;
    }
    // From here on the guest changes its disks: the state must never be used again.
    if (!machine_folder_edit(hold->folder, set_resume, NULL, error))
        return false;
    if (strcmp(resume, SAVED_FOLDER) == 0)
        host_folder_remove(path, NULL); // the mapped memory lives on until the process ends
    else
        machine_state_record_needs(machine, path);
    return true;
}

// The last screen, for the library. A state without a picture is a state.
static void save_picture(struct machine *machine, const char *folder)
{
    struct surface *surface = machine->screen ? screen_head(machine->screen, 0) : NULL;
    g_autofree char *path = g_build_filename(folder, "screen.png", NULL);
    if (surface)
        surface_write_png(surface, path, true, NULL);
}

bool machine_hold_suspend(struct machine_hold *hold, struct machine *machine, GError **error)
{
    g_autofree char *saved = g_build_filename(hold->folder, SAVED_FOLDER, NULL);
    g_autofree char *temporary = g_strconcat(saved, ".new", NULL);
    if (!machine_request_legal(machine, MACHINE_REQUEST_SAVE, error))
        return false;
    machine_lock(machine);
    bool savable = machine_state_savable(machine, error);
    machine_unlock(machine);
    if (!savable || !host_folder_remove(temporary, error))
        return false;
    if (g_mkdir(temporary, 0700) != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot create %s: %s", temporary, g_strerror(errno));
        return false;
    }
    save_picture(machine, temporary);
    bool ran = machine->state == RUN_STATE_RUNNING;
    bool good = (!ran || machine_pause(machine, RUN_STATE_PAUSED, "Saving", error)) &&
                machine_state_write_folder(machine, temporary, NULL, error) && host_folder_remove(saved, error);
    if (good && rename(temporary, saved) != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot rename %s: %s", temporary, g_strerror(errno));
        good = false;
    }
    good = good && host_folder_sync(hold->folder, error) &&
           machine_folder_edit(hold->folder, set_resume, SAVED_FOLDER, error);
    if (good)
        return true;
    host_folder_remove(temporary, NULL);
    if (ran && machine->state == RUN_STATE_PAUSED)
        machine_start(machine, NULL);
    return false;
}
