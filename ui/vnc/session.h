// SPDX-License-Identifier: GPL-2.0-or-later
// Structures of the protocol side of the VNC server, shared by vnc.c and passwords.c.
#ifndef CLOCHE_VNC_SESSION_H
#define CLOCHE_VNC_SESSION_H

#include "ui/vnc/net.h"

#include <linux/input-event-codes.h>
#include <rfb/rfb.h>
#include <rfb/rfbregion.h>

#define PASSWORD_MAX 8

struct passwords {
    char full[PASSWORD_MAX + 1], view[PASSWORD_MAX + 1];
};

// LOCK guards passwords and the queues between threads; the rest is the "vnc" thread's.
struct vnc_server {
    struct screen *screen;
    struct surface *surface;
    struct input *input;
    struct vnc_net *net;
    char *name;
    void (*clipboard)(void *opaque, const char *text);
    void *opaque;

    GMutex lock;
    struct passwords passwords;
    bool passwords_changed;
    GQueue adopted;      // struct vnc_client *, from the net thread
    char *new_clipboard; // to be sent to clients
    int wake;
    _Atomic bool quit;
    GThread *thread;

    // From the surface's callbacks, any thread
    _Atomic bool resized, damaged, cursor_changed, cursor_moved, leds_changed;

    rfbScreenInfoPtr rfb;
    uint8_t *picture;
    sraRegionPtr stale; // of PICTURE: changed on the surface, not taken over yet
    struct surface_listener *listener;
    int64_t next_frame, next_look, lively_until, changed_at;
    bool frame_pending; // damage was found that a client has not been shown
};

// What hangs at rfbClientRec.clientData.
struct session {
    struct vnc_server *server;
    struct vnc_client *client;
    bool key_extension, key_extension_told, led_extension;
    unsigned leds_told;
    int buttons;
    bool keys[KEY_CNT];
    unsigned wishes;
};

void vnc_server_wake(struct vnc_server *server); // any thread
// The picture (picture.c); all on the "vnc" thread.
void vnc_set_format(rfbScreenInfoPtr rfb);
void vnc_take_size(struct vnc_server *server);   // of the surface
bool vnc_take_damage(struct vnc_server *server); // true: there was some
bool vnc_is_stale(struct vnc_server *server, sraRegionPtr region);
bool vnc_freshen(struct vnc_server *server, sraRegionPtr region);
rfbBool vnc_check_password(rfbClientPtr cl, const char *response, int length);

#endif
