// SPDX-License-Identifier: GPL-2.0-or-later
// Shared by machine-object.c, machine-link.c and machine-display.c.
#ifndef CLOCHE_DESKTOP_MACHINE_PRIVATE_H
#define CLOCHE_DESKTOP_MACHINE_PRIVATE_H

#include "core/config/library.h"
#include "core/control/client.h"
#include "core/control/life.h"
#include "ui/desktop/machine-object.h"

struct _ClocheMachine {
    GObject parent_instance;
    char *folder, *name, *uuid, *damage;
    struct config *config; // NULL when damaged
    ClocheState state;
    char *state_text, *reason;
    const char *engine_name, *engine, *engine_reason; // interned or translated texts
    GdkPixbuf *thumbnail;
    gint64 thumbnail_time;
    ClocheState pictured;
    struct machine_figures figures;
    struct {
        gint64 time, cpu; // microseconds; nanoseconds
        gint64 disk_read, disk_write, received, sent;
    } last;
    // The monitor:
    struct control_client *client;
    struct machine_starter *starter;
    GWeakRef start_parent; // window to show a failed start over
    guint look_timer, looks, figures_timer, devices_timer;
    GPtrArray *devices; // struct machine_device *
    gboolean no_space;  // stopped by a full disk of the host
    gboolean stopping;  // asked for by the person: no notification
    gboolean updating;  // "changed" comes once, at the end
    ClocheDisplay *display;
};

enum machine_signal {
    MACHINE_CHANGED,
    MACHINE_FIGURES,
    MACHINE_EVENT,
    MACHINE_STOPPED,
    MACHINE_DEVICES,
    MACHINE_SIGNALS
};
extern guint machine_signals[MACHINE_SIGNALS];

void machine_set_state(ClocheMachine *self, ClocheState state, const char *reason);
// Connects to a monitor that runs already; FALSE: there is none.
gboolean machine_link_try(ClocheMachine *self);
void machine_link_close(ClocheMachine *self);
// A failure later on is shown over PARENT.
gboolean machine_link_start(ClocheMachine *self, GtkWindow *parent, GError **error);
// State of a machine without a connection, by what is on disk.
void machine_link_look(ClocheMachine *self);
void machine_display_forget(ClocheMachine *self); // the display widget in use
void machine_display_connected(ClocheMachine *self);
void machine_display_event(ClocheMachine *self, const char *event, JsonObject *data, int *fds, guint fd_count);
void machine_sample_start(ClocheMachine *self);
void machine_sample_stop(ClocheMachine *self);
void machine_picture_look(ClocheMachine *self); // when it is time
void machine_picture_detach(ClocheMachine *self);
void machine_picture_from_disk(ClocheMachine *self); // of a machine that does not run
void machine_devices_reload(ClocheMachine *self);    // from the definition
void machine_devices_ask(ClocheMachine *self);
void machine_devices_start(ClocheMachine *self);
void machine_devices_stop(ClocheMachine *self);

#endif
