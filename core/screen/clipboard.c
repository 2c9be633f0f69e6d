// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/screen/clipboard.h"

#include <string.h>

const char *const clipboard_way_names[] = {"off", "to-guest", "from-guest", "both", NULL};

int clipboard_parse_ways(const char *name)
{
    for (int i = 0; clipboard_way_names[i]; i++)
        if (strcmp(clipboard_way_names[i], name) == 0)
            return i;
    return -1;
}

struct listener {
    clipboard_fn *fn;
    void *opaque;
};

// Guarded by the machine lock.
struct clipboard {
    GRecMutex *machine_lock;
    struct listener guest;
    int ways;          // -1: no channel
    GArray *listeners; // struct listener
};

static void enter(struct clipboard *clipboard)
{
    if (clipboard->machine_lock)
        g_rec_mutex_lock(clipboard->machine_lock);
}

static void leave(struct clipboard *clipboard)
{
    if (clipboard->machine_lock)
        g_rec_mutex_unlock(clipboard->machine_lock);
}

struct clipboard *clipboard_new(GRecMutex *machine_lock)
{
    struct clipboard *clipboard = g_new0(struct clipboard, 1);
    clipboard->machine_lock = machine_lock;
    clipboard->ways = -1;
    clipboard->listeners = g_array_new(FALSE, FALSE, sizeof(struct listener));
    return clipboard;
}

void clipboard_free(struct clipboard *clipboard)
{
    if (!clipboard)
        return;
    g_array_free(clipboard->listeners, TRUE);
    g_free(clipboard);
}

static bool passes(const char *text)
{
    size_t length = strnlen(text, CLIPBOARD_MAX + 1);
    return length <= CLIPBOARD_MAX && g_utf8_validate(text, length, NULL);
}

void clipboard_set_ways(struct clipboard *clipboard, unsigned ways)
{
    enter(clipboard);
    clipboard->ways = (int)ways;
    leave(clipboard);
}

int clipboard_get_ways(struct clipboard *clipboard)
{
    enter(clipboard);
    int ways = clipboard->ways;
    leave(clipboard);
    return ways;
}

bool clipboard_has_agent(struct clipboard *clipboard)
{
    enter(clipboard);
    bool agent = clipboard->guest.fn != NULL;
    leave(clipboard);
    return agent;
}

static bool is_open(struct clipboard *clipboard, unsigned way)
{
    return clipboard->ways < 0 || clipboard->ways & way;
}

void clipboard_set_guest(struct clipboard *clipboard, clipboard_fn *fn, void *opaque)
{
    enter(clipboard);
    clipboard->guest = (struct listener){fn, opaque};
    leave(clipboard);
}

void clipboard_from_guest(struct clipboard *clipboard, const char *text)
{
    if (!passes(text))
        return;
    enter(clipboard);
    for (unsigned i = 0; is_open(clipboard, CLIPBOARD_FROM_GUEST) && i < clipboard->listeners->len; i++) {
        struct listener *listener = &g_array_index(clipboard->listeners, struct listener, i);
        listener->fn(listener->opaque, text);
    }
    leave(clipboard);
}

void clipboard_add_listener(struct clipboard *clipboard, clipboard_fn *fn, void *opaque)
{
    enter(clipboard);
    struct listener listener = {fn, opaque};
    g_array_append_val(clipboard->listeners, listener);
    leave(clipboard);
}

void clipboard_remove_listener(struct clipboard *clipboard, clipboard_fn *fn, void *opaque)
{
    enter(clipboard);
    for (unsigned i = 0; i < clipboard->listeners->len; i++) {
        struct listener *listener = &g_array_index(clipboard->listeners, struct listener, i);
        if (listener->fn == fn && listener->opaque == opaque) {
            g_array_remove_index(clipboard->listeners, i);
            break;
        }
    }
    leave(clipboard);
}

bool clipboard_to_guest(struct clipboard *clipboard, const char *text)
{
    if (!passes(text))
        return false;
    enter(clipboard);
    bool agent = clipboard->guest.fn != NULL;
    if (agent && is_open(clipboard, CLIPBOARD_TO_GUEST))
        clipboard->guest.fn(clipboard->guest.opaque, text);
    leave(clipboard);
    return agent;
}
