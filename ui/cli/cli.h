// SPDX-License-Identifier: GPL-2.0-or-later
// clochectl from the inside: one table of commands, parsed arguments, output for people and for scripts.
#ifndef CLOCHE_CLI_H
#define CLOCHE_CLI_H

#include "core/base/base.h"
#include "core/base/progress.h"
#include "core/config/library.h"
#include "core/control/client.h"

#include <json-glib/json-glib.h>
#include <signal.h>

// Documented in clochectl(1).
enum cli_status {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NOT_FOUND = 3,
    CLI_EXISTS = 4,
    CLI_BUSY = 5,
    CLI_UNSUPPORTED = 6,
    CLI_CORRUPT = 7,
    CLI_NO_SPACE = 8,
    CLI_CANCELLED = 130,
};

struct cli_option {
    const char *name;  // "memory"; NULL ends a list
    const char *value; // "SIZE", or NULL: a switch
    const char *help;
};

struct cli;
struct cli_command {
    const char *name;              // "snapshot take"
    const char *words;             // "NAME [FILE]", for the help
    unsigned min_words, max_words; // without options
    const struct cli_option *options;
    bool (*run)(struct cli *cli, GError **error);
    const char *help;      // one line
    const char *completes; // what each word is: 'm' machine, 's' its snapshot, 'd' its drive, 'o' a setting, 'f' file,
                           // '-' nothing
};
extern const struct cli_command *const cli_tables[]; // NULL-terminated list of tables, each ended by a NULL name

// One invocation.
struct cli {
    const struct cli_command *command;
    GPtrArray *words;    // char *
    GHashTable *options; // name -> GPtrArray of char * ("" for a switch)
    bool json, quiet;
    struct library *library; // opened on first use
    int status;              // of a run that returned true, normally CLI_OK
};

// ---- Arguments ----
bool cli_parse(struct cli *cli, int argc, char **argv, GError **error);
void cli_clear(struct cli *cli);
// "take, list, ..." for "snapshot"; NULL where no command starts with that word. Free with g_free().
char *cli_second_words(const char *first);
const char *cli_word(struct cli *cli, unsigned index);                // NULL: not given
const char *cli_option(struct cli *cli, const char *name);            // the last one given, or NULL
const char *const *cli_option_all(struct cli *cli, const char *name); // NULL-terminated, never NULL
const struct cli_command *cli_find_command(const char *const *words, unsigned count, unsigned *used);

// ---- Machines ----
struct library *cli_library(struct cli *cli, GError **error);
// The machine that the first word names; damaged ones are refused with the reason.
struct machine_entry *cli_machine(struct cli *cli, GError **error);
struct machine_entry *cli_machine_named(struct cli *cli, const char *name, GError **error);
// A connection to its monitor. CLOCHE_ERROR_BUSY with the cure when it does not run.
struct control_client *cli_connect(struct cli *cli, struct machine_entry *entry,
                                   const struct control_handlers *handlers, GError **error);
// One command on that machine. The reply is dropped.
bool cli_do(struct cli *cli, const char *command, JsonObject *arguments, GError **error);

// ---- Output ----
struct cli_table;
struct cli_table *cli_table_new(const char *first_title, ...) G_GNUC_NULL_TERMINATED;
void cli_table_add(struct cli_table *table, const char *first, ...) G_GNUC_NULL_TERMINATED; // as many as titles
void cli_table_print(struct cli_table *table);                                              // and free
void cli_print_json(JsonNode *node);                                                        // takes it over
char *cli_size(uint64_t bytes);                                                             // "1.5 GiB"
char *cli_time(int64_t seconds);                                                            // local time, "" for 0
// Says DONE to people (not with --json or --quiet).
void cli_say(struct cli *cli, const char *format, ...) G_GNUC_PRINTF(2, 3);

// ---- Long work ----
// Runs WORK on a thread with a progress bar on a terminal; Ctrl-C cancels it and it cleans up.
typedef bool cli_work(void *opaque, struct progress *progress, GError **error);
bool cli_run_work(struct cli *cli, const char *title, cli_work *work, void *opaque, GError **error);
extern struct progress *cli_interruptible; // Ctrl-C cancels this, if set
bool cli_interrupted(void);                // Ctrl-C was pressed
extern volatile sig_atomic_t cli_whole;    // see cli_keep_whole()
// From here on files change, which takes a moment: the first Ctrl-C waits for its end.
void cli_keep_whole(void);
int cli_status_of(const GError *error);

#endif
