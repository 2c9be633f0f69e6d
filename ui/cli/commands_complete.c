// SPDX-License-Identifier: GPL-2.0-or-later
// `clochectl complete -- WORDS...` prints what may stand in place of the last word, a line each; FILES: a file's name.
#include "core/config/snapshot.h"
#include "ui/cli/cli.h"
#include "ui/cli/commands.h"

#include <stdio.h>
#include <string.h>

#define FILES ":files"

static const char *const everywhere[] = {"--json", "--quiet", "--help"};

// The words before the one that is asked for, taken apart. Shells hand "--name=value" over as three words.
struct asked {
    struct cli *cli;
    const struct cli_command *command;
    const char *prefix; // of the last word
    const char *option; // whose value it is ("--engine"), or a setting's name; NULL: neither
    GPtrArray *plain;   // the command's words so far
};

static void print_matching(const char *candidate, const char *prefix)
{
    if (g_str_has_prefix(candidate, prefix))
        puts(candidate);
}

// ---- Commands ----

static void complete_command(const char *const *words, unsigned count)
{
    const char *prefix = words[count - 1];
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (const struct cli_command *const *table = cli_tables; *table; table++)
        for (const struct cli_command *command = *table; command->name; command++) {
            const char *space = strchr(command->name, ' ');
            g_autofree char *first = space ? g_strndup(command->name, space - command->name) : g_strdup(command->name);
            const char *word = count == 1 ? first : space && strcmp(first, words[0]) == 0 ? space + 1 : NULL;
            if (word && g_hash_table_add(seen, g_strdup(word)))
                print_matching(word, prefix);
        }
    if (count == 1)
        print_matching("help", prefix);
}

// ---- Values ----

static void complete_machine(struct cli *cli, const char *prefix)
{
    GPtrArray *entries = cli_library(cli, NULL) ? library_entries(cli->library) : NULL;
    for (unsigned i = 0; entries && i < entries->len; i++)
        print_matching(((struct machine_entry *)entries->pdata[i])->name, prefix);
}

// The machine that the command's first word names; NULL: none, or a damaged one.
static struct machine_entry *asked_machine(struct asked *asked)
{
    struct machine_entry *entry = asked->plain->len && cli_library(asked->cli, NULL)
                                      ? library_find(asked->cli->library, asked->plain->pdata[0], NULL)
                                      : NULL;
    return entry && entry->config ? entry : NULL;
}

static void complete_snapshot(struct asked *asked)
{
    struct machine_entry *entry = asked_machine(asked);
    g_autoptr(GPtrArray) list = entry ? snapshot_list(entry->folder) : NULL;
    for (unsigned i = 0; list && i < list->len; i++)
        print_matching(((struct snapshot *)list->pdata[i])->name, asked->prefix);
}

static void complete_drive(struct asked *asked)
{
    struct machine_entry *entry = asked_machine(asked);
    g_auto(GStrv) groups = entry ? config_groups(entry->config, "Drive *") : NULL;
    for (char **group = groups; group && *group; group++)
        print_matching(*group + strlen("Drive "), asked->prefix);
}

static void complete_group(struct cli *cli, const char *prefix)
{
    GPtrArray *entries = cli_library(cli, NULL) ? library_entries(cli->library) : NULL;
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (unsigned i = 0; entries && i < entries->len; i++) {
        struct machine_entry *entry = entries->pdata[i];
        char *group = entry->config ? config_get(entry->config, "Machine", "group") : g_strdup("");
        if (g_hash_table_add(seen, group) && group[0])
            print_matching(group, prefix);
    }
}

static void complete_settings(const char *prefix)
{
    for (size_t i = 0; i < options_count; i++) {
        g_autofree char *text = options_table[i].name ? g_strconcat(options_table[i].name, "=", NULL) : NULL;
        if (text)
            print_matching(text, prefix);
    }
}

// What the setting NAME may be.
static void complete_choice(const char *name, const char *prefix)
{
    static const char *const truth[] = {"true", "false", NULL};
    const struct option *option = option_find_name(name);
    const char *const *choices = !option                         ? NULL
                                 : option->type == OPTION_BOOL   ? truth
                                 : option->type == OPTION_CHOICE ? option->choices
                                                                 : NULL;
    for (; choices && *choices; choices++)
        print_matching(*choices, prefix);
    if (option && option->type == OPTION_FILE)
        puts(FILES);
}

static void complete_value(struct asked *asked)
{
    const struct cli_option *option = asked->command->options;
    const char *name = asked->option + strspn(asked->option, "-");
    while (option && option->name && strcmp(option->name, name) != 0)
        option++;
    if (option && option->value && strstr(option->value, "FILE"))
        puts(FILES);
    else if (strcmp(asked->option, "--snapshot") == 0)
        complete_snapshot(asked);
    else if (strcmp(asked->option, "--group") == 0)
        complete_group(asked->cli, asked->prefix);
    else if (strcmp(asked->option, "--set") == 0)
        complete_settings(asked->prefix);
    else
        complete_choice(name, asked->prefix);
}

static void complete_word(struct asked *asked)
{
    const char *kinds = asked->command->completes;
    unsigned last = kinds[0] ? strlen(kinds) - 1 : 0;
    switch (kinds[MIN(asked->plain->len, last)]) {
    case 'm':
        complete_machine(asked->cli, asked->prefix);
        break;
    case 's':
        complete_snapshot(asked);
        break;
    case 'd':
        complete_drive(asked);
        break;
    case 'o':
        complete_settings(asked->prefix);
        break;
    case 'f':
        puts(FILES);
        break;
    }
}

static void complete_option(const struct cli_option *option, const char *prefix)
{
    for (; option && option->name; option++) {
        g_autofree char *text = g_strconcat("--", option->name, NULL);
        print_matching(text, prefix);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(everywhere); i++)
        print_matching(everywhere[i], prefix);
}

// ---- The words so far ----

static bool takes_value(const struct cli_command *command, const char *word)
{
    for (const struct cli_option *option = command->options; option && option->name; option++)
        if (option->value && g_str_has_prefix(word, "--") && strcmp(option->name, word + 2) == 0)
            return true;
    return false;
}

static void take_apart(struct asked *asked, const char *const *words, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const char *word = words[i];
        bool equals = i + 1 < count && strcmp(words[i + 1], "=") == 0;
        bool value = equals || takes_value(asked->command, word);
        unsigned at = i + 1 + equals; // of its value
        if (value && at >= count)
            asked->option = word;
        if (word[0] != '-')
            g_ptr_array_add(asked->plain, (char *)word);
        if (value)
            i = at;
    }
}

static bool do_complete(struct cli *cli, GError **error)
{
    const char *const *words = (const char *const *)cli->words->pdata;
    unsigned count = cli->words->len, used = 0;
    while (count > 1 && g_strv_contains(everywhere, words[0]))
        words++, count--;
    bool help = count > 1 && strcmp(words[0], "help") == 0;
    words += help, count -= help;
    const struct cli_command *command = count > 1 ? cli_find_command(words, count - 1, &used) : NULL;
    if (!command || (count == 2 && used == 1))
        complete_command(words, count);
    if (!command || help)
        return true;
    bool equals = strcmp(words[count - 1], "=") == 0; // the value's first character is still to come
    struct asked asked = {cli, command, equals ? "" : words[count - 1], NULL, g_ptr_array_new()};
    take_apart(&asked, words + used, count - used - !equals);
    if (asked.option)
        complete_value(&asked);
    else if (asked.prefix[0] == '-')
        complete_option(command->options, asked.prefix);
    else
        complete_word(&asked);
    g_ptr_array_unref(asked.plain);
    return true;
}

const struct cli_command cli_complete_commands[] = {
    {"complete", "WORDS...", 1, 64, NULL, do_complete, "prints completions of the last word (for shells)", ""},
    {NULL, NULL, 0, 0, NULL, NULL, NULL, NULL},
};
