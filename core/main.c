// SPDX-License-Identifier: GPL-2.0-or-later
// cloche-vm, the process that runs one machine: the only file that knows everybody.
#include "config.h"
#include "core/cloche.h"
#include "core/command_line.h"
#include "core/control/control.h"
#include "core/control/hold.h"
#include "core/machine/machine.h"
#include "core/monitor_ports.h"
#include "core/monitor_vnc.h"
#include "core/state/machine_state.h"
#include "devices/char/backend.h"

#include <glib-unix.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>

enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2 };

struct monitor {
    struct machine *machine;
    const struct machine_options *options;
    GMainLoop *loop;
    struct machine_hold *hold; // of a defined machine, or NULL
    struct control_server *control;
    struct monitor_vnc *vnc;
};

// ---- Answers that need no machine ----
static void print_property(const struct property *p)
{
    static const char *const types[] = {"on|off", "number", "size", "text"};
    if (p->type != PROPERTY_POINTER)
        printf("    %s=%s%s%s  %s\n", p->name, types[p->type], p->default_text ? ", default " : "",
               p->default_text ? p->default_text : "", p->help ? p->help : "");
}

static void list_devices(void)
{
    for (unsigned i = 0; device_classes[i]; i++) {
        const struct device_class *class = device_classes[i];
        printf("%-18s %s%s\n", class->name, class->help, class->internal ? " (part of the board)" : "");
        for (const struct property *p = class->properties; !class->internal && p && p->name; p++)
            print_property(p);
    }
}

static void list_engines(void)
{
    for (unsigned i = 0; engines[i]; i++) {
        g_autoptr(GError) error = NULL;
        bool works = !engines[i]->probe || engines[i]->probe(&error);
        printf("%s: %s\n", engines[i]->name, works ? "works" : error ? error->message : "does not work here");
    }
}

static int answer(enum command_line_action action)
{
    if (action == COMMAND_LINE_HELP) {
        g_autofree char *help = command_line_help();
        fputs(help, stdout);
    } else if (action == COMMAND_LINE_VERSION) {
        puts("cloche-vm " PACKAGE_VERSION);
    } else if (action == COMMAND_LINE_LIST_ENGINES) {
        list_engines();
    } else {
        list_devices();
    }
    return STATUS_OK;
}

static int fail(int status, const GError *error)
{
    char_backend_restore_terminal();
    fprintf(stderr, "cloche-vm: %s\n", error->message);
    return status;
}

// ---- Running ----
static void machine_event(void *opaque, struct machine *machine, enum machine_event event, const char *text)
{
    struct monitor *monitor = opaque;
    bool over = machine->state == RUN_STATE_SHUTDOWN;
    // Nobody could resume or look into a machine without a control socket: it ends.
    bool stuck = !monitor->options->control_socket &&
                 (machine->state == RUN_STATE_INTERNAL_ERROR || machine->state == RUN_STATE_GUEST_PANICKED);
    if (event != MACHINE_EVENT_STATE && event != MACHINE_EVENT_SHUTDOWN)
        return;
    if (stuck) {
        log_error("machine", "The machine stopped: %s", machine->stop_reason ? machine->stop_reason : text);
        machine->exit_status = STATUS_FAILED;
    }
    if (over || stuck)
        g_main_loop_quit(monitor->loop);
}

// The host goes down: a defined machine is suspended to disk, so that nothing is lost.
static gboolean terminated(gpointer data)
{
    struct monitor *monitor = data;
    g_autoptr(GError) error = NULL;
    if (monitor->control)
        control_server_finish_jobs(monitor->control);
    if (monitor->hold && !machine_hold_suspend(monitor->hold, monitor->machine, &error))
        log_warning("machine", "The machine could not be suspended: %s", error->message);
    machine_quit(monitor->machine, "host-signal");
    g_main_loop_quit(monitor->loop);
    return G_SOURCE_CONTINUE;
}

static gboolean signal_received(gpointer data)
{
    struct monitor *monitor = data;
    machine_quit(monitor->machine, "host-signal");
    g_main_loop_quit(monitor->loop);
    return G_SOURCE_CONTINUE;
}

static void quit_from_terminal(void *opaque)
{
    signal_received(opaque);
}

static bool write_screenshot(struct monitor *monitor, GError **error)
{
    struct surface *surface = screen_head(monitor->machine->screen, 0);
    if (!monitor->options->screenshot)
        return true;
    if (!surface) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "There is no screen to take a picture of: give the machine a --display-adapter.");
        return false;
    }
    return surface_write_png(surface, monitor->options->screenshot, true, error);
}

static int run(struct monitor *monitor)
{
    g_autoptr(GError) error = NULL;
    struct machine *machine = monitor->machine;
    machine_add_listener(machine, machine_event, monitor);
    static const int signals[] = {SIGINT, SIGHUP};
    for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++)
        g_unix_signal_add(signals[i], signal_received, monitor);
    g_unix_signal_add(SIGTERM, terminated, monitor);
    char_backend_on_quit(quit_from_terminal, monitor);
    if (!monitor->options->start_paused && !machine_start(machine, &error))
        return fail(STATUS_FAILED, error);
    g_main_loop_run(monitor->loop);
    if (!write_screenshot(monitor, &error))
        return fail(STATUS_FAILED, error);
    return machine->exit_status;
}

// The control socket, VNC, and for a defined machine the state that it goes on from.
static bool serve(struct monitor *monitor, GError **error)
{
    if (monitor->options->control_socket) {
        monitor->control = control_server_new(monitor->machine, monitor->options->control_socket, error);
        if (!monitor->control)
            return false;
        monitor_ports_serve(monitor->machine, monitor->control);
    }
    if (monitor->control && monitor->hold)
        control_server_set_hold(monitor->control, monitor->hold);
    monitor->vnc = monitor_vnc_new(monitor->machine, monitor->options->name, monitor->control);
    if (monitor->options->vnc &&
        !monitor_vnc_start(monitor->vnc, monitor->options->vnc, monitor->options->vnc_password_file, error))
        return false;
    if (monitor->options->load_state &&
        !machine_state_read_folder(monitor->machine, monitor->options->load_state, true, error))
        return false;
    return !monitor->hold || machine_hold_resume(monitor->hold, monitor->machine, error);
}

static int run_machine(const struct machine_options *options, struct machine_hold *hold)
{
    g_autoptr(GError) error = NULL;
    struct monitor monitor = {.options = options, .hold = hold, .loop = g_main_loop_new(NULL, false)};
    int status = STATUS_USAGE;
    if (!(monitor.machine = machine_new(options, &error)) || !serve(&monitor, &error))
        status = fail(STATUS_USAGE, error);
    else
        status = run(&monitor);
    g_autofree char *reason = g_strdup(error ? error->message : monitor.machine ? monitor.machine->stop_reason : NULL);
    monitor_vnc_free(monitor.vnc);
    control_server_free(monitor.control);
    machine_free(monitor.machine);
    g_main_loop_unref(monitor.loop);
    machine_hold_close(hold, reason, status);
    return status;
}

static int run_folder(const struct command_line *line)
{
    g_autoptr(GError) error = NULL;
    struct machine_hold *hold = machine_hold_open(line->machine_folder, &error);
    if (!hold)
        return fail(STATUS_USAGE, error);
    struct machine_options *options = machine_hold_options(hold);
    options->start_paused = line->options->start_paused;
    return run_machine(options, hold);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    struct command_line line;
    setlocale(LC_ALL, "");
    signal(SIGPIPE, SIG_IGN);
    int status;
    if (!command_line_parse(&line, argc, argv, &error)) {
        status = fail(STATUS_USAGE, error);
    } else if (line.action != COMMAND_LINE_RUN) {
        status = answer(line.action);
    } else {
        if (line.verbose)
            log_set_level(LOG_LEVEL_DEBUG);
        if (line.trace && !trace_enable(line.trace))
            log_warning("trace", "No trace point is named %s", line.trace);
        status = line.machine_folder ? run_folder(&line) : run_machine(line.options, NULL);
    }
    command_line_clear(&line);
    return status;
}
