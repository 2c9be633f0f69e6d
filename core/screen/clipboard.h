// SPDX-License-Identifier: GPL-2.0-or-later
// The clipboard between people's viewers and the guest's agent: texts in UTF-8, either way.
#ifndef CLOCHE_CLIPBOARD_H
#define CLOCHE_CLIPBOARD_H

#include "core/base/base.h"

#define CLIPBOARD_MAX (1 * MiB) // bytes of one text; longer ones are not passed on

// Which way texts go, bits of a number; their names are those of its values.
enum { CLIPBOARD_TO_GUEST = 1, CLIPBOARD_FROM_GUEST = 2 };
extern const char *const clipboard_way_names[]; // "off", "to-guest", "from-guest", "both"; NULL-terminated
int clipboard_parse_ways(const char *name);     // -1: no such name

struct clipboard;
// TEXT is only valid during the call.
typedef void clipboard_fn(void *opaque, const char *text);

// MACHINE_LOCK may be NULL (tests).
struct clipboard *clipboard_new(GRecMutex *machine_lock);
void clipboard_free(struct clipboard *clipboard);

// The guest's side: FN is told of viewers' texts, with the machine lock held; NULL: there is no agent any more.
void clipboard_set_guest(struct clipboard *clipboard, clipboard_fn *fn, void *opaque);
void clipboard_from_guest(struct clipboard *clipboard, const char *text); // to all listeners
// The machine has a channel for an agent, and these ways are open.
void clipboard_set_ways(struct clipboard *clipboard, unsigned ways);
int clipboard_get_ways(struct clipboard *clipboard); // -1: there is no channel
bool clipboard_has_agent(struct clipboard *clipboard);

// The viewers' side: any thread. Listeners are called with the machine lock held and must only note the text.
void clipboard_add_listener(struct clipboard *clipboard, clipboard_fn *fn, void *opaque);
void clipboard_remove_listener(struct clipboard *clipboard, clipboard_fn *fn, void *opaque);
// False: no agent runs in the guest, or TEXT is too long or not UTF-8. A text whose way is closed goes nowhere.
bool clipboard_to_guest(struct clipboard *clipboard, const char *text);

#endif
