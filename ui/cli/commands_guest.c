// SPDX-License-Identifier: GPL-2.0-or-later
// console, screenshot, type, send-key.
#include "core/control/transport.h"
#include "ui/cli/cli.h"
#include "ui/cli/commands.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

// ---- console ----

#define ESCAPE 0x1d // Ctrl-]

static bool write_all(int fd, const char *data, size_t length)
{
    while (length) {
        ssize_t n = write(fd, data, length);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
            struct pollfd ready = {.fd = fd, .events = POLLOUT};
            poll(&ready, 1, 1000);
            continue;
        }
        if (n < 0)
            return false;
        data += n;
        length -= n;
    }
    return true;
}

// Copies both ways until the machine's side ends, or the person types the escape.
static void talk(int port, bool terminal)
{
    char buffer[4096];
    bool reading = true;
    for (;;) {
        struct pollfd fds[] = {{.fd = port, .events = POLLIN}, {.fd = reading ? STDIN_FILENO : -1, .events = POLLIN}};
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return;
        if (fds[0].revents) {
            ssize_t n = read(port, buffer, sizeof(buffer));
            if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                return;
            if (n > 0 && !write_all(STDOUT_FILENO, buffer, n))
                return;
        }
        if (!fds[1].revents)
            continue;
        ssize_t n = read(STDIN_FILENO, buffer, sizeof(buffer));
        char *escape = terminal && n > 0 ? memchr(buffer, ESCAPE, n) : NULL;
        if (n > 0 && !write_all(port, buffer, escape ? escape - buffer : n))
            return;
        if (escape)
            return;
        reading = n > 0 || (n < 0 && errno == EINTR);
        if (!reading && n == 0 && terminal)
            return;
    }
}

static bool do_console(struct cli *cli, GError **error)
{
    struct machine_entry *entry = cli_machine(cli, error);
    if (!entry)
        return false;
    guint64 number = 0;
    const char *given = cli_option(cli, "port");
    if (given && !g_ascii_string_to_unsigned(given, 10, 0, 63, &number, NULL)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "--port %s: give the number of a serial port, from 0",
                    given);
        return false;
    }
    g_autofree char *runtime = machine_runtime_folder(entry->uuid, false, error);
    g_autofree char *name = g_strdup_printf("serial%u", (unsigned)number);
    g_autofree char *path = runtime ? g_build_filename(runtime, name, NULL) : NULL;
    int port = path ? transport_connect(path, NULL) : -1;
    if (port < 0) {
        g_clear_error(error);
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_BUSY,
                    "Serial port %u of \"%s\" cannot be reached: the machine does not run, or the port leads elsewhere",
                    (unsigned)number, entry->name);
        return false;
    }
    bool terminal = isatty(STDIN_FILENO);
    struct termios before, raw;
    if (terminal) {
        cli_say(cli, "Connected to \"%s\". Ctrl-] leaves.", entry->name);
        tcgetattr(STDIN_FILENO, &before);
        raw = before;
        cfmakeraw(&raw);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    talk(port, terminal);
    if (terminal) {
        tcsetattr(STDIN_FILENO, TCSANOW, &before);
        cli_say(cli, "\nDisconnected.");
    }
    close(port);
    return true;
}

// ---- screenshot, type, send-key ----

static bool do_screenshot(struct cli *cli, GError **error)
{
    g_autofree char *path = g_canonicalize_filename(cli_word(cli, 1), NULL);
    return cli_do(cli, "screendump",
                  control_arguments("s:filename", path, "b:x-cloche-cursor", cli_option(cli, "cursor") != NULL, NULL),
                  error);
}

static bool do_type(struct cli *cli, GError **error)
{
    const char *layout = cli_option(cli, "layout");
    if (layout && !cli_do(cli, "x-cloche-set-layout", control_arguments("s:layout", layout, NULL), error))
        return false;
    g_autofree char *text = g_strcompress(cli_word(cli, 1)); // \n is Enter
    return cli_do(cli, "x-cloche-type-text", control_arguments("s:text", text, NULL), error);
}

// Each word is one stroke: "ctrl-alt-delete", "a", "ret".
static bool do_send_key(struct cli *cli, GError **error)
{
    for (unsigned i = 1; i < cli->words->len; i++) {
        g_auto(GStrv) names = g_strsplit(cli_word(cli, i), "-", -1);
        JsonArray *keys = json_array_new();
        for (char **name = names; *name; name++)
            json_array_add_object_element(keys, control_arguments("s:type", "qcode", "s:data", *name, NULL));
        if (!cli_do(cli, "send-key", control_arguments("a:keys", keys, NULL), error))
            return false;
    }
    return true;
}

static const struct cli_option console_options[] = {{"port", "N", "serial port number (0)"}, {NULL, NULL, NULL}};
static const struct cli_option screenshot_options[] = {{"cursor", NULL, "with the pointer drawn in"},
                                                       {NULL, NULL, NULL}};
static const struct cli_option type_options[] = {{"layout", "NAME", "the guest's keyboard layout, for example de"},
                                                 {NULL, NULL, NULL}};

const struct cli_command cli_guest_commands[] = {
    {"console", "NAME", 1, 1, console_options, do_console,
     "connects this terminal to the serial console (Ctrl-] leaves)", "m"},
    {"screenshot", "NAME FILE.png", 2, 2, screenshot_options, do_screenshot, "writes the screen as PNG", "mf"},
    {"type", "NAME TEXT", 2, 2, type_options, do_type, "types a text on the guest's keyboard (\\n is Enter)", "m-"},
    {"send-key", "NAME KEY...", 2, 32, NULL, do_send_key, "presses keys, for example ctrl-alt-delete", "m-"},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
