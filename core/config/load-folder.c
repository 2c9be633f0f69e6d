// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/config/config.h"
#include "core/machine/options.h"

#include <stdlib.h>

struct machine_options *config_load_folder(const char *folder, GError **error)
{
    g_autofree char *path = g_build_filename(folder, CONFIG_FILE, NULL);
    g_autofree char *full = realpath(folder, NULL);
    g_autoptr(config_t) config = config_load(path, error);
    if (!config)
        return NULL;
    for (const char *const *warning = config_warnings(config); *warning; warning++)
        log_warning("config", "%s", *warning);
    struct machine_options *options = machine_options_new();
    if (!config_to_options(config, full ? full : folder, options, error)) {
        machine_options_free(options);
        return NULL;
    }
    return options;
}
