// SPDX-License-Identifier: GPL-2.0-or-later
// Snapshots of a machine on disk: a tree of folders under "snapshots/", each one unit of definition, disks, and, if the
// machine was not off, state and memory. Taking one freezes the disks that are in use and puts an empty overlay on
// each.
//
// Crash-safe: the definition (machine.conf) is switched to the overlays in one step, a snapshot appears in one step
// when all of it is on stable storage, and goes in one step. What was in the making when a program was killed is taken
// back, what was going is finished, by the next that takes machine_folder_lock().
//
// Whoever calls the functions that change something holds that lock: a tool, or the running monitor.
#ifndef CLOCHE_SNAPSHOT_H
#define CLOCHE_SNAPSHOT_H

#include "core/base/progress.h"
#include "core/config/config.h"

struct library;

struct snapshot_disk {
    char *drive; // "disk0"
    char *file;  // frozen image: relative to the machine's folder, or absolute
};

struct snapshot {
    char *id; // a UUID
    char *name, *note;
    char *parent;                      // id, "" for a root
    char *folder;                      // absolute
    int64_t time;                      // seconds since 1970
    bool has_state;                    // goes on where it was; else it starts from power-on
    uint64_t memory_bytes, disk_bytes; // on the host's disk
    bool current;                      // the machine's present state grew from it
    GPtrArray *disks;                  // struct snapshot_disk *
};

void snapshot_free(struct snapshot *snapshot);
// struct snapshot *, oldest first; unreadable ones are left out with a log line. Free with g_ptr_array_unref().
GPtrArray *snapshot_list(const char *machine_folder);
// By name or id. The error says so when there is none, or several of that name.
struct snapshot *snapshot_find(GPtrArray *list, const char *name, GError **error);

// ---- Taking: begin, (state and memory are written into NEW's folder), switch disks, commit ----

// A snapshot that is being made, in "snapshots/.new-ID". Names are unique.
struct snapshot *snapshot_begin(const char *machine_folder, const char *name, const char *note, GError **error);
// Makes an overlay on each writable disk of the definition and switches
// the definition to them. The frozen images are in NEW->disks then. No program has the disks open meanwhile.
bool snapshot_switch_disks(const char *machine_folder, struct snapshot *new, GError **error);
// The same in steps for a running monitor, which makes the overlays itself: a fresh file name for an overlay of DRIVE;
// how an overlay in FOLDER refers to BASE (absolute); the definition names FILES (drive -> name of a qcow2 image); and
// names again what it did when NEW was begun. Strings are freed with g_free().
char *snapshot_overlay_name(const char *drive);
char *snapshot_relative_base(const char *folder, const char *base);
bool snapshot_switch_files(const char *machine_folder, GHashTable *files, GError **error);
bool snapshot_unswitch_files(const char *machine_folder, const struct snapshot *new, GError **error);
// FILE, in the machine's folder, may come to be needed by nobody: snapshot_recover() looks at it.
bool snapshot_note_loose(const char *machine_folder, const char *file, GError **error);
// Makes it appear. On failure, and to give up at any time before: snapshot_abandon().
bool snapshot_commit(const char *machine_folder, struct snapshot *new, GError **error);
void snapshot_abandon(struct snapshot *new); // frees it
// The same where the definition could not be switched back: snapshot_recover() tries that again.
void snapshot_leave(struct snapshot *new); // frees it
// machine_folder_lock() does it: finishes or takes back what a killed program left.
void snapshot_recover(const char *machine_folder);

// All of it for a machine that is off or saved.
bool snapshot_take(const char *machine_folder, const char *name, const char *note, GError **error);

// ---- The rest ----

// The machine's next start is from there; its present state is dropped. The machine is off. Name, UUID, notes and group
// of the machine stay.
bool snapshot_restore(const char *machine_folder, struct snapshot *snapshot, GError **error);
// Makes the overlays for going back to SNAPSHOT in a running monitor: drive -> path, without switching the definition.
GHashTable *snapshot_prepare_restore(const char *machine_folder, struct snapshot *snapshot, GError **error);
// Switches the definition to them. RESUME: the next start goes on from the snapshot's state.
bool snapshot_switch_back(const char *machine_folder, struct snapshot *snapshot, GHashTable *overlays, bool resume,
                          GError **error);
// What its images hold is merged into what stands on them first, where exactly one image does that no linked clone
// sees; else that waits until a later call. Cancelled or failed, the snapshot is as before, and the next call goes on
// from there. RUNNING: the monitor merged already, with snapshot_spare_base(). Then the snapshot goes, and its children
// hang on its parent. LIBRARY (may be NULL): where linked clones are looked for.
bool snapshot_may_delete(const char *folder, const struct snapshot *snapshot, GError **error);
bool snapshot_delete(const char *machine_folder, struct snapshot *snapshot, bool running, struct library *library,
                     struct progress *progress, GError **error);
// For a running monitor, which merges by itself: the image that IMAGE (absolute, a disk in use) stands on, where
// nothing else stands on it and nothing but GONE names it; else NULL. Free with g_free(). When IMAGE does not stand on
// it any more, snapshot_drop_image() removes it, unless GONE still needs it until it goes.
char *snapshot_spare_base(const char *machine_folder, const char *image, const struct snapshot *gone,
                          struct library *library);
bool snapshot_drop_image(const char *folder, const struct snapshot *gone, const char *image, GError **error);
// Either may be NULL: stays.
bool snapshot_rename(const char *machine_folder, struct snapshot *snapshot, const char *name, const char *note,
                     GError **error);

// The writable hard disks of a definition: drive ids. Free with g_strfreev().
char **snapshot_drives(struct config *config);

// In front of the reason why images could not be merged: a full disk, where deleting a snapshot must free some space.
#define SNAPSHOT_UNMERGED                                                                                              \
    "The snapshot is deleted, its images are not merged yet; whenever a snapshot is deleted that is tried again. "

#endif
