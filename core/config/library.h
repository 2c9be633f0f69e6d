// SPDX-License-Identifier: GPL-2.0-or-later
// The library of machines on disk: folders that hold machine folders. Machines are found by what is there, so one moved
// by hand is found again by its UUID; a damaged one is listed with the reason and never blocks the others. Several
// programs may use the library at once: changes are made under locks and seen through file monitors.
//
// Threads: a library belongs to the thread that opened it (its GMainContext runs the monitors).
#ifndef CLOCHE_LIBRARY_H
#define CLOCHE_LIBRARY_H

#include "core/base/base.h"
#include "core/config/config.h"

struct library;
typedef struct library library_t;

struct machine_entry {
    char *folder;          // absolute
    char *name;            // of the definition; the folder's name when damaged
    char *uuid;            // NULL when damaged
    struct config *config; // NULL when damaged
    char *damage;          // why it cannot be used, or NULL
    bool template_;
};

// $XDG_DATA_HOME/cloche/machines (created if need be) and the further folders of $XDG_CONFIG_HOME/cloche/library.conf.
// CLOCHE_LIBRARY in the environment names another main folder (tests). Scans once.
struct library *library_open(GError **error);
void library_close(struct library *library);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(library_t, library_close)

const char *library_main_folder(struct library *library);
// Further folders, NULL-terminated: each holds machine folders, or is one itself.
const char *const *library_folders(struct library *library);
bool library_add_folder(struct library *library, const char *folder, GError **error);
bool library_remove_folder(struct library *library, const char *folder, GError **error); // nothing is deleted

// Reads again what is on disk. Returns true when something differs from before. Entries got earlier become invalid.
bool library_scan(struct library *library);
// struct machine_entry *, by name; owned by the library, valid until the next scan.
GPtrArray *library_entries(struct library *library);
// By name, UUID or folder path. The error says so when there is none, or several of that name.
struct machine_entry *library_find(struct library *library, const char *name, GError **error);
struct machine_entry *library_find_uuid(struct library *library, const char *uuid); // NULL: none

// CHANGED is called from the main context after a change on disk was scanned (collected over 100 ms).
void library_watch(struct library *library, void (*changed)(void *opaque, struct library *library), void *opaque);

// Makes an empty folder for a machine called NAME in the main folder: the name itself, made safe and unique. The error
// is CLOCHE_ERROR_EXISTS when a machine of that name exists. Free with g_free().
char *library_create_folder(struct library *library, const char *name, GError **error);
// Changes the name in the definition (the folder keeps its name; references stay valid).
bool library_rename(struct library *library, struct machine_entry *entry, const char *name, GError **error);

// The lock that whoever changes a machine's files holds: the monitor while it runs, the tools while they work. Returns
// a descriptor to close, or -1 with CLOCHE_ERROR_BUSY. What a killed program left half-done is put right first
// (snapshot_recover()).
int machine_folder_lock(const char *folder, GError **error);
// Changes the definition under its own short lock: reads it afresh, calls EDIT, writes it.
bool machine_folder_edit(const char *folder, bool (*edit)(struct config *config, void *opaque, GError **error),
                         void *opaque, GError **error);
// A saved machine, or one that was about to go on from a snapshot, is off from here on: its next start boots. The lock
// is taken meanwhile.
bool machine_folder_discard(const char *folder, GError **error);
// $XDG_RUNTIME_DIR/cloche/UUID, where the running machine has its socket ("control"), "pid" and logs of its life.
// Without XDG_RUNTIME_DIR: a folder of this user in /tmp. Created (0700) when CREATE. Free with g_free().
char *machine_runtime_folder(const char *uuid, bool create, GError **error);

#endif
