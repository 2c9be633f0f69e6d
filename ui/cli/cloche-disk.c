// SPDX-License-Identifier: GPL-2.0-or-later
// cloche-disk: virtual disk files from the command line.
#include "config.h"
#include "disks/info.h"
#include "ui/cli/disk-commands.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- Shared by the commands ----
bool parse_size(const char *text, uint64_t *size, GError **error)
{
    static const char suffixes[] = "bkmgtpe";
    char *end;
    errno = 0;
    double number = g_ascii_strtod(text, &end), unit = 1;
    const char *suffix = *end ? strchr(suffixes, g_ascii_tolower(*end)) : suffixes;
    if (suffix && *end) {
        unit = pow(1024, suffix - suffixes);
        end++;
        if (g_ascii_strcasecmp(end, "ib") == 0 || g_ascii_strcasecmp(end, "b") == 0)
            end += strlen(end);
    }
    if (end == text || *end || !suffix || errno || !(number >= 0) || number * unit > 9e18) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "“%s” is not a size: give a number of bytes, or one with K, M, G or T (powers of 1024)", text);
        return false;
    }
    *size = ALIGN_UP((uint64_t)(number * unit), 512);
    return true;
}

char *format_size(uint64_t size)
{
    return g_format_size_full(size, G_FORMAT_SIZE_IEC_UNITS);
}

static struct job *volatile current_job;

static void on_interrupt(int signal_number)
{
    if (current_job)
        job_cancel(current_job);
}

static void show_progress(struct job *job, bool end)
{
    uint64_t done, total;
    job_progress(job, &done, &total);
    double percent = total ? 100.0 * done / total : end ? 100.0 : 0.0;
    fprintf(stderr, "\r%s: %5.1f %%%s", job_title(job), percent, end ? "\n" : "");
}

bool run_with_progress(struct disk_arguments *a, const char *title, job_run *work, void *opaque, GError **error)
{
    bool visible = isatty(STDERR_FILENO) && !a->quiet && !a->json, shown = false;
    struct job *job = job_start(title, work, opaque, NULL);
    current_job = job;
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    signal(SIGHUP, on_interrupt);
    for (unsigned i = 0; visible && !job_finished(job); i++) {
        if (i >= 5) {
            show_progress(job, false);
            shown = true;
        }
        g_usleep(i < 5 ? 20000 : 100000);
    }
    bool ok = job_wait(job, error);
    if (shown && ok)
        show_progress(job, true);
    else if (shown)
        fprintf(stderr, "\n");
    current_job = NULL;
    job_free(job);
    return ok;
}

void print_json(JsonBuilder *builder)
{
    JsonNode *root = json_builder_get_root(builder);
    g_autofree char *text = json_to_string(root, TRUE);
    printf("%s\n", text);
    json_node_unref(root);
    g_object_unref(builder);
}

// ---- The command line ----
static struct disk_arguments arguments;

static const GOptionEntry entries[] = {
    {"format", 'f', 0, G_OPTION_ARG_STRING, &arguments.format, "Format of the image: raw, qcow2, vmdk, vdi, vhd",
     "FORMAT"},
    {"source-format", 's', 0, G_OPTION_ARG_STRING, &arguments.source_format,
     "Format of the source (default: found out)", "FORMAT"},
    {"second-format", 'F', 0, G_OPTION_ARG_STRING, &arguments.second_format,
     "Format of the second image (default: found out)", "FORMAT"},
    {"backing", 'b', 0, G_OPTION_ARG_STRING, &arguments.backing, "Base of the overlay", "FILE"},
    {"backing-format", 'B', 0, G_OPTION_ARG_STRING, &arguments.backing_format,
     "Format of the base (default: found out)", "FORMAT"},
    {"options", 'o', 0, G_OPTION_ARG_STRING, &arguments.options,
     "cluster_size=, version=2|3, refcount_bits=, compression=zlib|zstd, extended_l2=on, lazy_refcounts=on", "LIST"},
    {"snapshot", 'l', 0, G_OPTION_ARG_STRING, &arguments.snapshot, "Internal snapshot to read, by name or id", "NAME"},
    {"compress", 'c', 0, G_OPTION_ARG_NONE, &arguments.compress, "Compress the target (qcow2)", NULL},
    {"preallocate", 'p', 0, G_OPTION_ARG_NONE, &arguments.preallocate,
     "Take all the space now: raw, fixed VDI and VHD, flat VMDK", NULL},
    {"repair", 'r', 0, G_OPTION_ARG_NONE, &arguments.repair, "Repair what is found", NULL},
    {"chain", 0, 0, G_OPTION_ARG_NONE, &arguments.chain, "Show the bases too", NULL},
    {"shrink", 0, 0, G_OPTION_ARG_NONE, &arguments.shrink, "Allow a smaller size, which drops the end of the disk",
     NULL},
    {"keep", 'k', 0, G_OPTION_ARG_NONE, &arguments.keep, "Leave the overlay as it is", NULL},
    {"unsafe", 'u', 0, G_OPTION_ARG_NONE, &arguments.unsafe,
     "Only record the new base: it was moved, or is accepted as changed", NULL},
    {"force", 0, 0, G_OPTION_ARG_NONE, &arguments.force, "Replace an existing file", NULL},
    {"json", 'j', 0, G_OPTION_ARG_NONE, &arguments.json, "Print JSON", NULL},
    {"quiet", 'q', 0, G_OPTION_ARG_NONE, &arguments.quiet, "Show no progress and no confirmation", NULL},
    {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &arguments.names, NULL, NULL},
    {NULL},
};

static const struct disk_command *find_command(const char *name)
{
    for (const struct disk_command *c = disk_commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static void print_help(void)
{
    printf("Usage: cloche-disk COMMAND [OPTIONS] FILE…\n\nCreates, examines, checks, copies and joins virtual disk "
           "files.\n\n");
    for (const struct disk_command *c = disk_commands; c->name; c++)
        printf("  %-9s %-34s %s\n", c->name, c->arguments, c->help);
    printf("\ncloche-disk COMMAND --help shows the options of a command; the manual page cloche-disk(1) tells more.\n");
}

static bool takes(const struct disk_command *command, const char *option)
{
    g_auto(GStrv) names = g_strsplit(command->takes, " ", -1);
    return g_strv_contains((const char *const *)names, option) || strcmp(option, "quiet") == 0;
}

// "-2G" is a size: such words go to the end, behind a "--", where they are not taken for options.
static char **sizes_last(int argc, char **argv)
{
    GPtrArray *words = g_ptr_array_new(), *sizes = g_ptr_array_new();
    bool options = true;
    for (int i = 0; i < argc; i++) {
        options = options && strcmp(argv[i], "--") != 0;
        g_ptr_array_add(options && argv[i][0] == '-' && g_ascii_isdigit(argv[i][1]) ? sizes : words, argv[i]);
    }
    if (options && sizes->len)
        g_ptr_array_add(words, "--");
    g_ptr_array_extend_and_steal(words, sizes);
    g_ptr_array_add(words, NULL);
    return (char **)g_ptr_array_free(words, FALSE);
}

static bool parse(const struct disk_command *command, int argc, char **given, GError **error)
{
    g_autofree char **words = sizes_last(argc, given);
    char **argv = words; // of which the parser drops what it has understood
    argc = g_strv_length(argv);
    g_autofree char *parameters = g_strdup_printf("%s %s", command->name, command->arguments);
    g_autoptr(GOptionContext) context = g_option_context_new(parameters);
    g_autoptr(GArray) own = g_array_new(TRUE, TRUE, sizeof(GOptionEntry));
    for (const GOptionEntry *e = entries; e->long_name; e++)
        if (!*e->long_name || takes(command, e->long_name))
            g_array_append_vals(own, e, 1);
    g_option_context_set_summary(context, command->help);
    g_option_context_add_main_entries(context, (GOptionEntry *)own->data, NULL);
    if (!g_option_context_parse(context, &argc, &argv, error))
        return false;
    arguments.count = arguments.names ? g_strv_length(arguments.names) : 0;
    if (arguments.count >= command->least && arguments.count <= command->most)
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Usage: cloche-disk %s [OPTIONS] %s", command->name,
                command->arguments);
    return false;
}

// What a command did that prints nothing of its own, or why it could not.
static void print_outcome(const struct disk_command *command, const GError *error)
{
    const char *file = arguments.count ? arguments.names[arguments.count - 1] : "";
    if (strcmp(command->name, "convert") != 0 && strcmp(command->name, "merge") != 0 && arguments.count)
        file = arguments.names[0];
    struct disk_info *info = error ? NULL : disk_info(file, NULL, NULL);
    JsonBuilder *b = json_builder_new();
    json_builder_begin_object(b);
    json_builder_set_member_name(b, "command");
    json_builder_add_string_value(b, command->name);
    json_builder_set_member_name(b, "file");
    json_builder_add_string_value(b, file);
    json_builder_set_member_name(b, error ? "error" : "format");
    json_builder_add_string_value(b, error ? error->message : info ? info->format : "");
    if (info) {
        json_builder_set_member_name(b, "virtual-size");
        json_builder_add_int_value(b, info->size);
        json_builder_set_member_name(b, "actual-size");
        json_builder_add_int_value(b, info->allocated);
    }
    json_builder_end_object(b);
    print_json(b);
    disk_info_free(info);
}

int main(int argc, char **argv)
{
    setlocale(LC_ALL, "");
    g_set_prgname("cloche-disk");
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help();
        return argc < 2 ? EXIT_FAILED : EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("cloche-disk %s\n", PACKAGE_VERSION);
        return EXIT_DONE;
    }
    GError *error = NULL;
    const struct disk_command *command = find_command(argv[1]);
    int rc = EXIT_FAILED;
    if (!command)
        g_set_error(&error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "“%s” is not a command: cloche-disk --help lists them",
                    argv[1]);
    else if (parse(command, argc - 1, argv + 1, &error))
        rc = command->run(&arguments, &error);
    if (command && arguments.json && (error || !command->prints))
        print_outcome(command, error);
    if (error) {
        fprintf(stderr, "cloche-disk: %s\n", error->message);
        rc = g_error_matches(error, CLOCHE_ERROR, CLOCHE_ERROR_CANCELLED) ? EXIT_CANCELLED : EXIT_FAILED;
        g_error_free(error);
    }
    return rc;
}
