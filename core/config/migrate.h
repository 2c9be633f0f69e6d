// SPDX-License-Identifier: GPL-2.0-or-later
// Forward migration of older machine.conf files: a table of keys that moved.
#ifndef CLOCHE_MIGRATE_H
#define CLOCHE_MIGRATE_H

#include "core/base/base.h"

// A key that files before version BEFORE had elsewhere.
struct config_rename {
    unsigned before;
    const char *old_group, *old_key;
    const char *group, *key;
};
extern const struct config_rename config_renames[]; // ends with BEFORE 0

// Brings FILE up to VERSION. A newer file is refused. *CHANGED is set when something moved.
bool config_migrate(GKeyFile *file, const struct config_rename *renames, unsigned version, bool *changed,
                    GError **error);

#endif
