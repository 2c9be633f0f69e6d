// SPDX-License-Identifier: GPL-2.0-or-later
// Where messages of a VNC client end (RFC 6143 and the community's extensions that the server offers): only whole,
// known messages of sane length are handed to libvncserver, whose reads would wait for the rest.
#ifndef CLOCHE_VNC_FRAMING_H
#define CLOCHE_VNC_FRAMING_H

#include "core/base/base.h"

enum framing_state { FRAMING_VERSION, FRAMING_SECURITY, FRAMING_AUTH_WAIT, FRAMING_AUTH, FRAMING_INIT, FRAMING_NORMAL };

struct framing {
    enum framing_state state;
    unsigned minor;         // of the protocol: 3, 7, 8
    uint32_t server_choice; // what a version 3.3 server chose: 0 not known yet, 1 none, 2 password
    bool shared;            // as the client asked
};

#define FRAMING_WAIT    0  // more bytes are needed
#define FRAMING_REFUSED -1 // no message that we know

#define FRAMING_MAX (1 * MiB + 16) // no message is longer

// The length of the first message in DATA, or one of the above; a whole one advances STATE.
ssize_t framing_next(struct framing *framing, const uint8_t *data, size_t length);

#endif
