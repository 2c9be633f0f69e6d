// SPDX-License-Identifier: GPL-2.0-or-later
// The one table of machine options. It drives reading, checking and writing machine.conf, its man page, the settings
// window, `clochectl create|set` and shell completion. A new option is one row.
#ifndef CLOCHE_OPTION_H
#define CLOCHE_OPTION_H

#include "core/base/base.h"

enum option_type {
    OPTION_BOOL,   // "true" or "false" (also yes/no, on/off, 1/0)
    OPTION_NUMBER, // decimal, min to max
    OPTION_SIZE,   // bytes with K, M, G, T; min to max
    OPTION_TEXT,   // any UTF-8 text, or what check() allows
    OPTION_CHOICE, // one of choices
    OPTION_FILE,   // a path; relative ones are relative to the machine's folder
    OPTION_LIST,   // texts separated by semicolons, each passed to check()
};

// Which structure of core/machine/options.h a group fills.
enum option_target {
    OPTION_TARGET_NONE,
    OPTION_TARGET_MACHINE,
    OPTION_TARGET_DRIVE,
    OPTION_TARGET_NIC,
    OPTION_TARGET_SERIAL,
    OPTION_TARGET_DEVICE
};

struct option {
    const char *group; // "Memory", or "Drive *" for groups of which there may be several: "Drive disk0"
    const char *key;
    const char *name; // on the command line: `clochectl set demo NAME=VALUE`; NULL: only as GROUP.KEY
    enum option_type type;
    uint64_t min, max;               // OPTION_NUMBER, OPTION_SIZE
    const char *const *choices;      // OPTION_CHOICE, NULL-terminated
    bool (*check)(const char *text); // further syntax; may be NULL
    const char *allowed;             // what check() allows, for people
    const char *default_text;        // "" where there is none
    const char *title;               // a label, header capitalisation
    const char *help;                // one or two sentences
    unsigned since;                  // version of machine.conf that brought it
    bool live;                       // takes effect while the machine runs
    enum option_target target;
    size_t offset; // of the member in the target: bool, unsigned, uint64_t, char *, char ** by type;
                   // OPTION_CHOICE with AS_INDEX: int
    bool as_index;
    bool required; // an empty text is refused
};

#define OPTION_VERSION 1 // of machine.conf as this build writes it

extern const struct option options_table[];
extern const size_t options_count;

// GROUP may be an instance ("Drive disk0"). NULL: unknown.
const struct option *option_find(const char *group, const char *key);
// By command-line name ("memory") or "Group.key" ("Memory.size", any case). NULL: unknown.
const struct option *option_find_name(const char *name);
// True when GROUP ("Drive disk0") is an instance of the option group ("Drive *") or the same.
bool option_group_matches(const char *pattern, const char *group);
// "1 to 16", "one of: a, b": what may be written. Free with g_free().
char *option_allowed(const struct option *option);
// Checks TEXT; on success stores its canonical form in *CANONICAL (may be NULL; free with g_free()). The error says
// what is wrong and what is allowed, without file and group.
bool option_check(const struct option *option, const char *text, char **canonical, GError **error);

bool option_parse_bool(const char *text, bool *value);
// "64K", "1.5G", "20 GiB", "4096": bytes. False when it is no size or overflows 63 bits.
bool option_parse_size(const char *text, uint64_t *bytes);
// The shortest exact form: "1G", "1536M", "4097". Free with g_free().
char *option_format_size(uint64_t bytes);

#endif
