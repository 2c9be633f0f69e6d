// SPDX-License-Identifier: GPL-2.0-or-later
// A keyboard layout as the guest uses it: which keys make a character. From the host's xkb data (libxkbcommon); US
// needs none.
#ifndef CLOCHE_LAYOUT_H
#define CLOCHE_LAYOUT_H

#include "core/base/base.h"

struct layout; // immutable once made

// A key press with the modifiers to hold.
struct stroke {
    uint16_t evdev;
    bool shift, altgr;
};
#define LAYOUT_MAX_STROKES 2 // a dead key before its letter

// NAME as X11 has it: "us", "de", "ch(fr)".
struct layout *layout_new(const char *name, GError **error);
void layout_free(struct layout *layout);
// How to type CHARACTER: the number of strokes, 0 when the layout has no way.
unsigned layout_find(const struct layout *layout, gunichar character, struct stroke strokes[LAYOUT_MAX_STROKES]);
// The key that makes KEYSYM, with its modifiers where it is a character's; evdev 0: none.
struct stroke layout_keysym(const struct layout *layout, uint32_t keysym);

#endif
