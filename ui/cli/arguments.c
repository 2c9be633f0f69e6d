// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/cli/cli.h"

#include <string.h>

static const struct cli_option global_options[] = {{"json", NULL, "print JSON for scripts"},
                                                   {"quiet", NULL, "say only what was asked for"},
                                                   {"help", NULL, "explain"},
                                                   {NULL, NULL, NULL}};

// Names have one or two words; the longer match wins.
const struct cli_command *cli_find_command(const char *const *words, unsigned count, unsigned *used)
{
    const struct cli_command *found = NULL;
    for (const struct cli_command *const *table = cli_tables; *table; table++)
        for (const struct cli_command *command = *table; command->name; command++) {
            g_autofree char *two = count > 1 ? g_strdup_printf("%s %s", words[0], words[1]) : NULL;
            if (two && strcmp(two, command->name) == 0) {
                *used = 2;
                return command;
            }
            if (strcmp(words[0], command->name) == 0) {
                *used = 1;
                found = command;
            }
        }
    return found;
}

// LENGTH SIZE_MAX: all of NAME.
static const struct cli_option *find_option(const struct cli_option *options, const char *name, size_t length)
{
    for (; options && options->name; options++)
        if (length == SIZE_MAX ? strcmp(options->name, name) == 0
                               : strlen(options->name) == length && strncmp(options->name, name, length) == 0)
            return options;
    return NULL;
}

static bool invalid(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool invalid(GError **error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error_literal(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, text);
    return false;
}

static void put_option(struct cli *cli, const char *name, const char *value)
{
    GPtrArray *list = g_hash_table_lookup(cli->options, name);
    if (!list) {
        list = g_ptr_array_new();
        g_ptr_array_add(list, NULL);
        g_hash_table_insert(cli->options, (char *)name, list);
    }
    g_ptr_array_insert(list, list->len - 1, (char *)value);
}

// argv[*at] starts with a dash and is not "-" alone. The only short option is -h.
static bool parse_option(struct cli *cli, int argc, char **argv, int *at, GError **error)
{
    if (strcmp(argv[*at], "-h") == 0) {
        put_option(cli, "help", "");
        return true;
    }
    if (argv[*at][1] != '-')
        return invalid(error,
                       "%s has no option %s; `clochectl help %s` lists them. A word that starts with a dash goes after "
                       "--",
                       cli->command->name, argv[*at], cli->command->name);
    const char *word = argv[*at] + 2, *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    const struct cli_option *option = find_option(cli->command->options, word, length);
    if (!option)
        option = find_option(global_options, word, length);
    if (!option)
        return invalid(error, "%s has no option --%.*s; `clochectl help %s` lists them", cli->command->name,
                       (int)length, word, cli->command->name);
    if (!option->value) {
        if (equals)
            return invalid(error, "--%s takes no value", option->name);
        put_option(cli, option->name, "");
    } else if (equals) {
        put_option(cli, option->name, equals + 1);
    } else {
        if (*at + 1 >= argc)
            return invalid(error, "--%s needs a value: %s", option->name, option->value);
        put_option(cli, option->name, argv[++*at]);
    }
    return true;
}

static bool parse_words(struct cli *cli, int argc, char **argv, int first, GError **error)
{
    bool only_words = false;
    for (int i = first; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0)
            only_words = true;
        else if (only_words || argv[i][0] != '-' || !argv[i][1])
            g_ptr_array_add(cli->words, argv[i]);
        else if (!parse_option(cli, argc, argv, &i, error))
            return false;
    }
    return true;
}

static bool count_fits(struct cli *cli, GError **error)
{
    const struct cli_command *command = cli->command;
    const char *space = command->words[0] ? " " : "";
    if (cli->words->len < command->min_words)
        return invalid(error, "Something is missing. Usage: clochectl %s%s%s", command->name, space, command->words);
    if (cli->words->len > command->max_words)
        return invalid(error, "\"%s\" is too much. Usage: clochectl %s%s%s",
                       (char *)cli->words->pdata[command->max_words], command->name, space, command->words);
    return true;
}

char *cli_second_words(const char *first)
{
    g_autoptr(GString) list = g_string_new(NULL);
    for (const struct cli_command *const *table = cli_tables; *table; table++)
        for (const struct cli_command *command = *table; command->name; command++)
            if (g_str_has_prefix(command->name, first) && command->name[strlen(first)] == ' ')
                g_string_append_printf(list, "%s%s", list->len ? ", " : "", command->name + strlen(first) + 1);
    return list->len ? g_string_free(g_steal_pointer(&list), FALSE) : NULL;
}

static bool unknown_command(const char *const *words, int count, GError **error)
{
    g_autofree char *second = count ? cli_second_words(words[0]) : NULL;
    if (!count)
        return invalid(error, "Name a command; `clochectl help` lists them");
    if (!second)
        return invalid(error, "There is no command \"%s\"; `clochectl help` lists them", words[0]);
    if (count == 1)
        return invalid(error, "\"%s\" needs one of: %s", words[0], second);
    return invalid(error, "There is no command \"%s %s\"; \"%s\" needs one of: %s", words[0], words[1], words[0],
                   second);
}

bool cli_parse(struct cli *cli, int argc, char **argv, GError **error)
{
    unsigned used = 0;
    cli->words = g_ptr_array_new();
    cli->options = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)g_ptr_array_unref);
    for (int i = 0; i < argc; i++)
        cli->json = cli->json || strcmp(argv[i], "--json") == 0; // also for what goes wrong while parsing
    while (argc && argv[0][0] == '-') {                          // the options that every command has may come first
        const struct cli_option *option = find_option(global_options, argv[0] + 1 + (argv[0][1] == '-'), SIZE_MAX);
        if (!option || argv[0][1] != '-')
            return invalid(error, "clochectl has no option %s; `clochectl help` tells what there is", argv[0]);
        put_option(cli, option->name, "");
        argc--, argv++;
    }
    cli->command = argc ? cli_find_command((const char *const *)argv, argc, &used) : NULL;
    if (!cli->command)
        return unknown_command((const char *const *)argv, argc, error);
    if (!parse_words(cli, argc, argv, used, error))
        return false;
    cli->quiet = cli_option(cli, "quiet") != NULL;
    return cli_option(cli, "help") || count_fits(cli, error);
}

void cli_clear(struct cli *cli)
{
    library_close(cli->library);
    g_ptr_array_unref(cli->words);
    g_hash_table_unref(cli->options);
}

const char *cli_word(struct cli *cli, unsigned index)
{
    return index < cli->words->len ? cli->words->pdata[index] : NULL;
}

const char *cli_option(struct cli *cli, const char *name)
{
    GPtrArray *list = g_hash_table_lookup(cli->options, name);
    return list ? list->pdata[list->len - 2] : NULL;
}

const char *const *cli_option_all(struct cli *cli, const char *name)
{
    static const char *const none[] = {NULL};
    GPtrArray *list = g_hash_table_lookup(cli->options, name);
    return list ? (const char *const *)list->pdata : none;
}
