// SPDX-License-Identifier: GPL-2.0-or-later
// One machine of the library as the windows see it: name, state, picture, figures, and what may be asked of it now. It
// connects to the monitor's control socket when there is one and reconnects when the app is reopened. Main thread only.
#ifndef CLOCHE_DESKTOP_MACHINE_OBJECT_H
#define CLOCHE_DESKTOP_MACHINE_OBJECT_H

#include "core/control/client.h"
#include "ui/desktop/display.h"

#include <gtk/gtk.h>
#include <json-glib/json-glib.h>

G_BEGIN_DECLS

typedef enum {
    CLOCHE_STATE_OFF,
    CLOCHE_STATE_STARTING, // the process is there, the control socket is not yet
    CLOCHE_STATE_RUNNING,
    CLOCHE_STATE_PAUSED,
    CLOCHE_STATE_BUSY, // saving or restoring
    CLOCHE_STATE_SAVED,
    CLOCHE_STATE_ERROR, // stopped by the host: disk full, internal error
    CLOCHE_STATE_CRASHED,
    CLOCHE_STATE_DAMAGED, // machine.conf cannot be read
} ClocheState;

typedef enum {
    CLOCHE_REQUEST_START,
    CLOCHE_REQUEST_PAUSE,
    CLOCHE_REQUEST_RESUME,
    CLOCHE_REQUEST_RESET,
    CLOCHE_REQUEST_SHUT_DOWN, // ACPI power button
    CLOCHE_REQUEST_POWER_OFF,
    CLOCHE_REQUEST_SAVE,
    CLOCHE_REQUEST_SNAPSHOT,
    CLOCHE_REQUEST_CHANGE, // rename, delete, settings that need the machine off
    CLOCHE_REQUEST_COUNT,
} ClocheRequest;

struct machine_figures {          // per second, from one second's difference
    double cpu_percent;           // of one host processor
    guint64 memory;               // resident bytes
    double disk_read, disk_write; // bytes
    double received, sent;        // bytes of the network
};

enum machine_device_kind {
    MACHINE_DEVICE_DISK,
    MACHINE_DEVICE_CDROM,
    MACHINE_DEVICE_FLOPPY,
    MACHINE_DEVICE_NETWORK,
    MACHINE_DEVICE_SERIAL, // known while the machine runs
};

// A drive or network card. While the machine is off: what its definition says.
struct machine_device {
    char *id;
    enum machine_device_kind kind;
    char *detail;                   // the image in a drive, NULL or "" for none; a card's back end; where a port leads
    char *mac, *capture;            // cards; CAPTURE: the file that its packets go to, NULL: none
    char **addresses, **forwards;   // cards; may be NULL
    gboolean link;                  // cards: the cable is plugged
    gboolean locked, no_space;      // drives: the guest holds the tray; the host's disk is full
    guint64 size;                   // drives: bytes that the guest sees, 0: unknown
    gboolean counted;               // IN and OUT are known
    guint64 in, out;                // bytes so far: read or received, written or sent
    gboolean in_active, out_active; // since the look before
};

#define CLOCHE_TYPE_MACHINE (cloche_machine_get_type())
G_DECLARE_FINAL_TYPE(ClocheMachine, cloche_machine, CLOCHE, MACHINE, GObject)

struct machine_entry;

ClocheMachine *cloche_machine_new(const struct machine_entry *entry); // copies what it needs
// The library read ENTRY's folder again.
void cloche_machine_update(ClocheMachine *self, const struct machine_entry *entry);

// Signals: "changed" (), "figures" (), "display" (new memory or geometry), "damage" (gint x, y, w, h), "cursor" (),
// "event" (const char *name, JsonObject *data), "stopped" (const char *reason: it ended by itself), "devices" (): their
// state or activity was looked at again.
const char *cloche_machine_get_folder(ClocheMachine *self);
const char *cloche_machine_get_name(ClocheMachine *self);
const char *cloche_machine_get_group(ClocheMachine *self); // "" for none
const char *cloche_machine_get_os(ClocheMachine *self);
const char *cloche_machine_get_notes(ClocheMachine *self);
ClocheState cloche_machine_get_state(ClocheMachine *self);
const char *cloche_machine_get_state_text(ClocheMachine *self); // for people, with the reason where there is one
const char *cloche_machine_get_icon(ClocheMachine *self);       // icon name
GdkPixbuf *cloche_machine_get_thumbnail(ClocheMachine *self);   // NULL: none yet; owned by SELF
const struct machine_figures *cloche_machine_get_figures(ClocheMachine *self);
GPtrArray *cloche_machine_get_devices(ClocheMachine *self); // of struct machine_device, SELF's until the next "devices"
const struct machine_device *cloche_machine_find_device(ClocheMachine *self, const char *id); // NULL: none
char *cloche_machine_get_log(ClocheMachine *self);                                            // path, free it
// Path of the UNIX socket of its first serial port that listens at one while it runs, NULL: none; free it.
char *cloche_machine_get_serial_socket(ClocheMachine *self);
// "Translated: about ... ", empty while off; owned by SELF
const char *cloche_machine_get_engine(ClocheMachine *self);
const char *cloche_machine_get_engine_reason(ClocheMachine *self);
// Value of an option of its definition ("Memory", "size"); free with g_free().
char *cloche_machine_get_option(ClocheMachine *self, const char *group, const char *key);
// Groups of its definition that match PATTERN ("Drive *"); free with g_strfreev().
char **cloche_machine_get_groups(ClocheMachine *self, const char *pattern);

// The host's disk is full: the machine waits, and Resume tries again.
gboolean cloche_machine_waits_for_space(ClocheMachine *self);
// NULL when REQUEST is legal now, else the sentence that says why not and the cure. Owned by nobody: static or SELF's.
const char *cloche_machine_why_not(ClocheMachine *self, ClocheRequest request);
// Carries it out in the background; a failure is shown in a dialog over PARENT.
void cloche_machine_request(ClocheMachine *self, ClocheRequest request, GtkWindow *parent);
// Any control command with ARGUMENTS (taken over, may be NULL; see control_arguments()); CALLBACK may be NULL. Finish
// gives the "return" node (new reference) or an error.
void cloche_machine_call(ClocheMachine *self, const char *command, JsonObject *arguments, GAsyncReadyCallback callback,
                         gpointer data);
JsonNode *cloche_machine_call_finish(ClocheMachine *self, GAsyncResult *result, GError **error);

// Attaches the machine's screen to DISPLAY until the display is destroyed or another one takes its place: pixels,
// damage, cursor, keys and pointer.
void cloche_machine_attach_display(ClocheMachine *self, ClocheDisplay *display);

G_END_DECLS

#endif
