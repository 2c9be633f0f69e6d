// SPDX-License-Identifier: GPL-2.0-or-later
// clochectl: everything that the desktop app can do, from the command line.
#include "config.h"
#include "ui/cli/cli.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static void print_command_help(const struct cli_command *command)
{
    printf("Usage: clochectl %s %s\n%s\n", command->name, command->words, command->help);
    for (const struct cli_option *option = command->options; option && option->name; option++) {
        g_autofree char *left =
            g_strdup_printf("--%s%s%s", option->name, option->value ? " " : "", option->value ? option->value : "");
        printf("  %-28s %s\n", left, option->help);
    }
}

static void print_help(void)
{
    printf(
        "Usage: clochectl COMMAND [ARGUMENTS]\nManages Cloche's machines. `clochectl help COMMAND` explains one.\n\n");
    for (const struct cli_command *const *table = cli_tables; *table; table++)
        for (const struct cli_command *command = *table; command->name; command++)
            printf("  %-18s %s\n", command->name, command->help);
    printf("\nEverywhere: --json for scripts, --quiet, --help; --version. Exit codes: see clochectl(1).\n");
}

// The commands that start with this word, as in "snapshot".
static bool print_group_help(const char *first)
{
    g_autofree char *second = cli_second_words(first);
    if (!second)
        return false;
    g_auto(GStrv) names = g_strsplit(second, ", ", -1);
    for (char **name = names; *name; name++) {
        unsigned used;
        const char *const words[] = {first, *name};
        print_command_help(cli_find_command(words, 2, &used));
    }
    return true;
}

// ---- clochectl(1), from the same tables ----

static void print_roff(const char *text)
{
    for (; *text; text++)
        if (*text == '-' || *text == '\\')
            printf("\\%c", *text == '-' ? '-' : 'e');
        else
            putchar(*text);
}

static void print_roff_command(const struct cli_command *command)
{
    printf(".TP\n.B ");
    print_roff(command->name);
    printf(" \\fI");
    print_roff(command->words);
    printf("\\fR\n");
    print_roff(command->help);
    printf(".\n");
    if (!command->options)
        return;
    printf(".RS\n");
    for (const struct cli_option *option = command->options; option->name; option++) {
        printf(".TP\n.B \\-\\-");
        print_roff(option->name);
        if (option->value) {
            printf(" \\fI");
            print_roff(option->value);
            printf("\\fR");
        }
        printf("\n");
        print_roff(option->help);
        printf(".\n");
    }
    printf(".RE\n");
}

static int print_man_page(void)
{
    static const char *const statuses[] = {"0\ndone",
                                           "1\nfailed for the reason that was printed",
                                           "2\na wrong word or value",
                                           "3\nno such machine, snapshot, drive or file",
                                           "4\nit exists already",
                                           "5\nin use, or not possible in the present state",
                                           "6\nthis build or host cannot do it",
                                           "7\na file is damaged",
                                           "8\nthe host's disk is full",
                                           "130\ncancelled"};
    printf(
        ".\\\" Made from the command tables in ui/cli: change it there.\n.TH CLOCHECTL 1 \"\" Cloche \"User "
        "Commands\"\n"
        ".SH NAME\nclochectl \\- manage Cloche's machines\n.SH SYNOPSIS\n.B clochectl\n.I COMMAND\n.RI [ ARGUMENTS ]\n"
        ".SH DESCRIPTION\nCreates, starts, changes, saves, clones and removes virtual machines. "
        "A machine is named by its name, its UUID or its folder. Each runs in a process of its own and goes on when "
        "this "
        "program ends. Long work shows progress on a terminal; Ctrl\\-C cancels it and leaves nothing half\\-done; "
        "what takes a moment only is finished first.\n"
        ".SH OPTIONS\nThese may stand before the command or after it.\n.TP\n.B \\-\\-json\nPrint JSON for scripts, "
        "errors included.\n.TP\n.B \\-\\-quiet\n"
        "Say only what was asked for.\n.TP\n.B \\-\\-help\nExplain a command.\n.SH COMMANDS\n");
    for (const struct cli_command *const *table = cli_tables; *table; table++)
        for (const struct cli_command *command = *table; command->name; command++)
            print_roff_command(command);
    printf(".SH EXIT STATUS\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(statuses); i++)
        printf(".TP\n%s\n", statuses[i]);
    printf(
        ".SH ENVIRONMENT\n.TP\n.B CLOCHE_LIBRARY\nThe folder of machines, in place of $XDG_DATA_HOME/cloche/machines.\n"
        ".TP\n.B CLOCHE_VM\nThe monitor's program, in place of the installed one.\n"
        ".SH EXAMPLES\n.nf\nclochectl create demo \\-\\-memory 1G \\-\\-cpus 2 \\-\\-disk 20G \\-\\-cdrom debian.iso\n"
        "clochectl start demo\nclochectl snapshot take demo one\n"
        "clochectl clone demo copy \\-\\-linked \\-\\-snapshot one\nclochectl stop demo \\-\\-force\n"
        "clochectl start \\-\\-group farm\nclochectl list \\-\\-json\n.fi\n.SH SEE ALSO\n.BR cloche (1),\n.BR "
        "cloche\\-vm (1),\n.BR cloche\\-disk (1),\n"
        ".BR machine.conf (5)\n");
    return CLI_OK;
}

static int help(int argc, char **argv)
{
    unsigned used;
    if (argc == 1 && strcmp(argv[0], "--man") == 0)
        return print_man_page();
    const struct cli_command *command = argc > 0 ? cli_find_command((const char *const *)argv, argc, &used) : NULL;
    if (command) {
        print_command_help(command);
    } else if (argc == 0) {
        print_help();
    } else if (!print_group_help(argv[0])) {
        fprintf(stderr, "clochectl: There is no command \"%s\"; `clochectl help` lists them\n", argv[0]);
        return CLI_USAGE;
    }
    return CLI_OK;
}

int cli_status_of(const GError *error)
{
    static const int by_code[] = {
        [CLOCHE_ERROR_FAILED] = CLI_FAILED,       [CLOCHE_ERROR_INVALID] = CLI_USAGE,
        [CLOCHE_ERROR_NOT_FOUND] = CLI_NOT_FOUND, [CLOCHE_ERROR_EXISTS] = CLI_EXISTS,
        [CLOCHE_ERROR_BUSY] = CLI_BUSY,           [CLOCHE_ERROR_UNSUPPORTED] = CLI_UNSUPPORTED,
        [CLOCHE_ERROR_CORRUPT] = CLI_CORRUPT,     [CLOCHE_ERROR_CANCELLED] = CLI_CANCELLED,
        [CLOCHE_ERROR_NO_SPACE] = CLI_NO_SPACE,
    };
    if (error->domain == CLOCHE_ERROR && error->code >= 0 && error->code < (int)G_N_ELEMENTS(by_code))
        return by_code[error->code];
    return CLI_FAILED;
}

static void report(struct cli *cli, const GError *error)
{
    if (cli->json) {
        JsonObject *object = json_object_new();
        json_object_set_string_member(object, "error", error->message);
        json_object_set_int_member(object, "status", cli_status_of(error));
        JsonNode *node = json_node_new(JSON_NODE_OBJECT);
        json_node_take_object(node, object);
        cli_print_json(node);
    } else {
        fprintf(stderr, "clochectl: %s\n", error->message);
    }
}

static int run(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    struct cli cli = {0};
    int status = CLI_OK;
    if (!cli_parse(&cli, argc, argv, &error)) {
        report(&cli, error);
        status = CLI_USAGE;
    } else if (cli_option(&cli, "help")) {
        print_command_help(cli.command);
    } else if (!cli.command->run(&cli, &error)) {
        report(&cli, error);
        status = cli_status_of(error);
    } else {
        status = cli.status;
    }
    cli_clear(&cli);
    return status;
}

static void interrupted(int number)
{
    static volatile sig_atomic_t times;
    if (cli_whole && !times++)
        return;
    if (!cli_interruptible || times++) { // twice, or nothing that could be cancelled
        signal(number, SIG_DFL);
        raise(number);
    }
    if (cli_interruptible)
        atomic_store(&cli_interruptible->cancelled, true);
}

int main(int argc, char **argv)
{
    setlocale(LC_ALL, "");
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, interrupted);
    signal(SIGTERM, interrupted);
    signal(SIGHUP, interrupted);
    if (argc < 2) {
        print_help();
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return help(argc - 2, argv + 2);
    if (strcmp(argv[1], "--version") == 0)
        return printf("clochectl (Cloche) %s\n", PACKAGE_VERSION) > 0 ? CLI_OK : CLI_FAILED;
    return run(argc - 1, argv + 1);
}
