// SPDX-License-Identifier: GPL-2.0-or-later
// What clochectl's command files share.
#ifndef CLOCHE_CLI_COMMANDS_H
#define CLOCHE_CLI_COMMANDS_H

#include "core/control/life.h"
#include "ui/cli/cli.h"

extern const struct cli_command cli_define_commands[], cli_life_commands[], cli_guest_commands[], cli_watch_commands[],
    cli_host_commands[], cli_complete_commands[], cli_drive_commands[], cli_snapshot_commands[], cli_archive_commands[];

bool cli_set_pair(struct config *config, const char *pair, GError **error);
char *cli_state(struct machine_entry *entry, struct machine_report *report);

#endif
