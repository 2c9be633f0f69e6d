// SPDX-License-Identifier: GPL-2.0-or-later
// cloche-disk: its commands and what they share.
#ifndef CLOCHE_UI_CLI_DISK_COMMANDS_H
#define CLOCHE_UI_CLI_DISK_COMMANDS_H

#include "disks/tools.h"

#include <json-glib/json-glib.h>

enum disk_exit { EXIT_DONE = 0, EXIT_NO = 1, EXIT_FAILED = 2, EXIT_LEAKS = 3, EXIT_CANCELLED = 130 };

// The options of all commands; each command takes some.
struct disk_arguments {
    char *format, *source_format, *second_format;
    char *backing, *backing_format, *options, *snapshot;
    gboolean json, quiet, force, compress, preallocate, repair, chain, shrink, keep, unsafe;
    char **names; // what is left on the command line
    int count;
};

struct disk_command {
    const char *name;
    const char *arguments; // for the help text
    const char *help;
    int least, most;   // names
    const char *takes; // long names of its options, separated by spaces
    int (*run)(struct disk_arguments *a, GError **error);
    bool prints; // JSON of its own
};
extern const struct disk_command disk_commands[];

bool parse_size(const char *text, uint64_t *size, GError **error);
char *format_size(uint64_t size);
// Runs WORK as a job with a progress line on a terminal; Ctrl+C cancels it.
bool run_with_progress(struct disk_arguments *a, const char *title, job_run *work, void *opaque, GError **error);
void print_json(JsonBuilder *builder); // takes it

#endif
