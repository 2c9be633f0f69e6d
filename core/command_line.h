// SPDX-License-Identifier: GPL-2.0-or-later
// The command line of cloche-vm: one table of options drives parsing and --help.
#ifndef CLOCHE_COMMAND_LINE_H
#define CLOCHE_COMMAND_LINE_H

#include "core/machine/options.h"

enum command_line_action {
    COMMAND_LINE_RUN,
    COMMAND_LINE_HELP,
    COMMAND_LINE_VERSION,
    COMMAND_LINE_LIST_DEVICES,
    COMMAND_LINE_LIST_ENGINES,
};

struct command_line {
    struct machine_options *options; // owned
    enum command_line_action action;
    char *machine_folder; // --machine, or NULL
    char *trace;
    bool verbose;
};

// Fills LINE in. False with one sentence that names the wrong word and the cure.
bool command_line_parse(struct command_line *line, int argc, char **argv, GError **error);
void command_line_clear(struct command_line *line);
char *command_line_help(void); // free with g_free()

#endif
