// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/cli/commands.h"

const struct cli_command *const cli_tables[] = {
    cli_define_commands,   cli_life_commands,    cli_guest_commands, cli_watch_commands,    cli_drive_commands,
    cli_snapshot_commands, cli_archive_commands, cli_host_commands,  cli_complete_commands, NULL,
};
