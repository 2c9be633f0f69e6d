// SPDX-License-Identifier: GPL-2.0-or-later
// One machine.conf in memory: a GKeyFile checked by the option table. Comments, order and unknown keys survive.
//
// Threads: a config belongs to one thread at a time.
#ifndef CLOCHE_CONFIG_H
#define CLOCHE_CONFIG_H

#include "core/base/base.h"
#include "core/config/option.h"

struct config;
struct machine_options;

#define CONFIG_FILE     "machine.conf"
#define LAST_RUN_FILE   "last-run" // what became of the last run
#define SAVED_FOLDER    "saved"    // state and memory of a machine that was suspended
#define CONFIG_MAX_SIZE (1 * MiB)

// A definition with nothing but its version and a fresh UUID.
struct config *config_new(void);
// Reads and checks PATH. A wrong value is an error that names file, group, key and what is allowed.
struct config *config_load(const char *path, GError **error);
// The same from memory; NAME stands for the file in messages.
struct config *config_parse(const char *data, size_t length, const char *name, GError **error);
struct config *config_copy(struct config *config);
void config_free(struct config *config);
typedef struct config config_t; // for g_autoptr(config_t)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(config_t, config_free)

// The value in effect (the file's, or the default), canonical. Free with g_free(). NULL only for an unknown option.
char *config_get(struct config *config, const char *group, const char *key);
bool config_get_bool(struct config *config, const char *group, const char *key);
uint64_t config_get_number(struct config *config, const char *group, const char *key); // sizes in bytes
bool config_is_set(struct config *config, const char *group, const char *key);
// Checks and sets; NULL as TEXT removes the key (its default holds). The error names group, key and what is allowed.
bool config_set(struct config *config, const char *group, const char *key, const char *text, GError **error);

// Groups of one kind, in file order: config_groups(c, "Drive *") gives "Drive disk0", ... Free with g_strfreev().
char **config_groups(struct config *config, const char *pattern);
bool config_has_group(struct config *config, const char *group);
// Adds "KIND ID" with the first free number after PREFIX: config_add_group(c, "Drive *", "disk") gives "Drive disk0".
// Free with g_free(). It exists in the file once a key of it is set.
char *config_add_group(struct config *config, const char *pattern, const char *prefix);
void config_remove_group(struct config *config, const char *group);

// Sentences about unknown groups and keys. Owned by CONFIG; NULL-terminated, never NULL.
const char *const *config_warnings(struct config *config);
bool config_changed(struct config *config); // since it was read or saved
// Atomic (temporary name, sync, rename), mode 0600 for new files, only when something changed.
bool config_save(struct config *config, const char *path, GError **error);
// The file's text as it would be written. Free with g_free().
char *config_text(struct config *config);

// Fills a description for machine_new(). FOLDER makes relative paths absolute and becomes options->folder.
bool config_to_options(struct config *config, const char *folder, struct machine_options *options, GError **error);
// machine.conf of FOLDER as a fresh description; free with machine_options_free(). Warnings are logged.
struct machine_options *config_load_folder(const char *folder, GError **error);

#endif
