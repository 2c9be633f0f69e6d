// SPDX-License-Identifier: GPL-2.0-or-later
// Prints machine.conf(5) from the option table; run by make.
#include "core/config/option.h"

#include <stdio.h>
#include <string.h>

// roff: a leading dot or quote would be a request, a backslash an escape, a dash a hyphen.
static void print_text(const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", stdout);
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
    }
}

static void print_option(const struct option *option)
{
    g_autofree char *allowed = option_allowed(option);
    printf(".TP\n.B ");
    print_text(option->key);
    printf("\n");
    print_text(option->help);
    printf("\nAllowed: ");
    print_text(allowed);
    printf(".\nDefault: ");
    print_text(option->default_text[0] ? option->default_text : "none");
    printf(".\n");
    if (option->name) {
        printf("On the command line: \n.BR ");
        print_text(option->name);
        printf(" .\n");
    }
    if (option->live)
        printf("Takes effect while the machine runs.\n");
    if (option->since > 1)
        printf("Since version %u of the file.\n", option->since);
}

int main(void)
{
    printf(
        ".\\\" Made from the option table in core/config/option-table.c: change it there.\n"
        ".TH MACHINE.CONF 5 \"\" Cloche \"File Formats\"\n.SH NAME\nmachine.conf \\- definition of a Cloche machine\n"
        ".SH DESCRIPTION\nEach machine is a folder; its file\n.I machine.conf\ndescribes it. "
        "The file has groups in brackets and lines of the form\n.IR key = value ;\nlines that start with # are "
        "comments. "
        "Comments, order and unknown keys are kept when Cloche changes the file; unknown keys are warned about. "
        "A wrong value is refused with file, group, key and what is allowed. "
        "A relative path is relative to the machine's folder. Groups that end in * may appear several times, with a "
        "name "
        "in place of the star, for example [Drive disk0].\n.PP\n"
        ".BR clochectl (1)\nchanges options by\n.B clochectl set MACHINE NAME=VALUE\nor\n"
        ".BR \"clochectl set MACHINE GROUP.KEY=VALUE\" .\n");
    const char *group = "";
    for (size_t i = 0; i < options_count; i++) {
        if (strcmp(options_table[i].group, group) != 0) {
            group = options_table[i].group;
            printf(".SH [");
            print_text(group);
            printf("]\n");
        }
        print_option(&options_table[i]);
    }
    printf(".SH EXAMPLE\n.nf\n[Machine]\nversion=%u\nname=demo\nuuid=0a2b1f4e\\-5c77\\-4b38\\-9d3e\\-6a4c0f1e2d3b\n\n"
           "[Memory]\nsize=1G\n\n[Processors]\ncount=2\n\n[Drive disk0]\nfile=disk0.qcow2\nformat=qcow2\n\n"
           "[Network net0]\nbackend=user\nforwards=tcp:127.0.0.1:2222\\-22\n.fi\n"
           ".SH FILES\n.I $XDG_DATA_HOME/cloche/machines/NAME/machine.conf\n.SH SEE ALSO\n"
           ".BR clochectl (1),\n.BR cloche\\-vm (1),\n.BR cloche\\-devices (7)\n",
           OPTION_VERSION);
    return 0;
}
