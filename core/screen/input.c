// SPDX-License-Identifier: GPL-2.0-or-later
// The hub between people's events and the devices that take them, and the typist.
#include "core/screen/input.h"

#include <linux/input-event-codes.h>
#include <string.h>

#define ABSOLUTE_RANGE   32768
#define STROKE_US        10000                 // between two key events of a typed text
#define ROOM_TIMEOUT_US  (30 * G_USEC_PER_SEC) // a guest that takes no keys for so long gets no more of the text
#define TYPING_MAX_CHARS 65536
#define KEY_LIMIT        KEY_CNT

struct leds_listener {
    input_leds_fn *fn;
    void *opaque;
};

// Guarded by the machine lock, except the typist's part, which TYPING_LOCK guards (inner to the machine lock).
struct input {
    GRecMutex *machine_lock;
    GPtrArray *handlers; // const struct input_handler *, activated ones first, the latest at the front
    unsigned activated;  // how many of them are
    bool key_down[KEY_LIMIT];
    bool button_down[INPUT_BUTTON_COUNT];
    bool have_position;
    int last_x, last_y; // of a viewer, for guests that want relative motion
    unsigned leds;
    GArray *leds_listeners;
    struct layout *layout;

    GMutex typing_lock;
    GCond typing_changed;
    GThread *typist;
    GArray *strokes; // struct stroke, still to be typed
    bool typing, quit;
};

static void enter(struct input *input)
{
    if (input->machine_lock)
        g_rec_mutex_lock(input->machine_lock);
}

static void leave(struct input *input)
{
    if (input->machine_lock)
        g_rec_mutex_unlock(input->machine_lock);
}

struct input *input_new(GRecMutex *machine_lock)
{
    struct input *input = g_new0(struct input, 1);
    input->machine_lock = machine_lock;
    input->handlers = g_ptr_array_new();
    input->leds_listeners = g_array_new(FALSE, FALSE, sizeof(struct leds_listener));
    input->layout = layout_new("us", NULL);
    input->strokes = g_array_new(FALSE, FALSE, sizeof(struct stroke));
    g_mutex_init(&input->typing_lock);
    g_cond_init(&input->typing_changed);
    return input;
}

void input_free(struct input *input)
{
    if (!input)
        return;
    g_mutex_lock(&input->typing_lock);
    input->quit = true;
    GThread *typist = input->typist;
    g_cond_broadcast(&input->typing_changed);
    g_mutex_unlock(&input->typing_lock);
    if (typist)
        g_thread_join(typist);
    g_ptr_array_free(input->handlers, TRUE);
    g_array_free(input->leds_listeners, TRUE);
    g_array_free(input->strokes, TRUE);
    layout_free(input->layout);
    g_cond_clear(&input->typing_changed);
    g_mutex_clear(&input->typing_lock);
    g_free(input);
}

// ---- Handlers ----
void input_add_handler(struct input *input, const struct input_handler *handler)
{
    g_ptr_array_add(input->handlers, (void *)handler);
}

static bool forget_handler(struct input *input, const struct input_handler *handler)
{
    unsigned index;
    if (!g_ptr_array_find(input->handlers, handler, &index))
        return false;
    g_ptr_array_remove_index(input->handlers, index);
    if (index < input->activated)
        input->activated--;
    return true;
}

void input_remove_handler(struct input *input, const struct input_handler *handler)
{
    forget_handler(input, handler);
}

// Whoever gets events after this knows nothing of what the one before was told.
static void forget_pressed(struct input *input, const struct input_handler *handler)
{
    if (handler->keyboard)
        memset(input->key_down, 0, sizeof(input->key_down));
    if (handler->relative || handler->absolute)
        memset(input->button_down, 0, sizeof(input->button_down));
}

void input_foreach_handler(struct input *input, void (*fn)(void *opaque, const struct input_handler *handler),
                           void *opaque)
{
    enter(input);
    for (unsigned i = 0; i < input->handlers->len; i++)
        fn(opaque, input->handlers->pdata[i]);
    leave(input);
}

void input_activate(struct input *input, const struct input_handler *handler)
{
    if (input->activated && input->handlers->pdata[0] == handler)
        return;
    input_release_all(input);
    if (!forget_handler(input, handler))
        return;
    g_ptr_array_insert(input->handlers, 0, (void *)handler);
    input->activated++;
}

void input_deactivate(struct input *input, const struct input_handler *handler)
{
    if (!forget_handler(input, handler))
        return;
    g_ptr_array_insert(input->handlers, input->activated, (void *)handler);
    forget_pressed(input, handler);
}

static const struct input_handler *keyboard(struct input *input)
{
    for (unsigned i = 0; i < input->handlers->len; i++) {
        const struct input_handler *handler = input->handlers->pdata[i];
        if (handler->keyboard)
            return handler;
    }
    return NULL;
}

// An absolute pointer counts only once the guest uses it.
static const struct input_handler *pointer(struct input *input)
{
    for (unsigned i = 0; i < input->handlers->len; i++) {
        const struct input_handler *handler = input->handlers->pdata[i];
        if (handler->relative || (handler->absolute && i < input->activated))
            return handler;
    }
    return NULL;
}

// ---- Events ----
void input_key(struct input *input, unsigned code, bool down)
{
    if (code == 0 || code >= KEY_LIMIT)
        return;
    enter(input);
    const struct input_handler *handler = keyboard(input);
    if (handler && input->key_down[code] != down) {
        input->key_down[code] = down;
        handler->key(handler->opaque, code, down);
    }
    leave(input);
}

// A pixel's middle, so that guests come back to that pixel by whichever way they round.
static unsigned scale(unsigned at, unsigned size)
{
    if (!size)
        return 0;
    return ((2ull * MIN(at, size - 1) + 1) * ABSOLUTE_RANGE / 2) / size;
}

void input_pointer_absolute(struct input *input, unsigned x, unsigned y, unsigned width, unsigned height)
{
    x = MIN(x, 65535);
    y = MIN(y, 65535);
    enter(input);
    const struct input_handler *handler = pointer(input);
    int dx = (int)x - input->last_x, dy = (int)y - input->last_y;
    bool known = input->have_position;
    input->have_position = true;
    input->last_x = x;
    input->last_y = y;
    if (handler && handler->absolute)
        handler->move_absolute(handler->opaque, scale(x, width), scale(y, height));
    else if (handler && known && (dx || dy))
        handler->move_relative(handler->opaque, dx, dy);
    leave(input);
}

void input_pointer_relative(struct input *input, int dx, int dy)
{
    enter(input);
    const struct input_handler *handler = pointer(input);
    if (handler && handler->relative)
        handler->move_relative(handler->opaque, CLAMP(dx, -65535, 65535), CLAMP(dy, -65535, 65535));
    leave(input);
}

static bool is_wheel(enum input_button button)
{
    return button == INPUT_WHEEL_UP || button == INPUT_WHEEL_DOWN || button == INPUT_WHEEL_LEFT ||
           button == INPUT_WHEEL_RIGHT;
}

void input_button(struct input *input, enum input_button button, bool down)
{
    if (button >= INPUT_BUTTON_COUNT)
        return;
    enter(input);
    const struct input_handler *handler = pointer(input);
    if (handler && input->button_down[button] != down) {
        input->button_down[button] = down;
        if (!is_wheel(button) || down)
            handler->button(handler->opaque, button, down);
    }
    leave(input);
}

void input_sync(struct input *input)
{
    enter(input);
    const struct input_handler *handlers[] = {keyboard(input), pointer(input)};
    for (unsigned i = 0; i < G_N_ELEMENTS(handlers); i++)
        if (handlers[i] && handlers[i]->sync && (i == 0 || handlers[i] != handlers[0]))
            handlers[i]->sync(handlers[i]->opaque);
    leave(input);
}

bool input_absolute(struct input *input)
{
    enter(input);
    const struct input_handler *handler = pointer(input);
    bool absolute = handler && handler->absolute;
    leave(input);
    return absolute;
}

void input_release_all(struct input *input)
{
    enter(input);
    for (unsigned code = 0; code < KEY_LIMIT; code++)
        if (input->key_down[code])
            input_key(input, code, false);
    for (unsigned button = 0; button < INPUT_BUTTON_COUNT; button++)
        if (input->button_down[button])
            input_button(input, button, false);
    input->have_position = false;
    input_sync(input);
    leave(input);
}

// ---- LEDs ----
void input_set_leds(struct input *input, unsigned leds)
{
    enter(input);
    if (input->leds != leds) {
        input->leds = leds;
        for (unsigned i = 0; i < input->leds_listeners->len; i++) {
            struct leds_listener *listener = &g_array_index(input->leds_listeners, struct leds_listener, i);
            listener->fn(listener->opaque, leds);
        }
    }
    leave(input);
}

unsigned input_leds(struct input *input)
{
    enter(input);
    unsigned leds = input->leds;
    leave(input);
    return leds;
}

void input_add_leds_listener(struct input *input, input_leds_fn *fn, void *opaque)
{
    enter(input);
    struct leds_listener listener = {fn, opaque};
    g_array_append_val(input->leds_listeners, listener);
    leave(input);
}

void input_remove_leds_listener(struct input *input, input_leds_fn *fn, void *opaque)
{
    enter(input);
    for (unsigned i = 0; i < input->leds_listeners->len; i++) {
        struct leds_listener *listener = &g_array_index(input->leds_listeners, struct leds_listener, i);
        if (listener->fn == fn && listener->opaque == opaque) {
            g_array_remove_index(input->leds_listeners, i);
            break;
        }
    }
    leave(input);
}

// ---- Layout and typing ----
bool input_set_layout(struct input *input, const char *name, GError **error)
{
    struct layout *layout = layout_new(name, error);
    if (!layout)
        return false;
    enter(input);
    struct layout *old = input->layout;
    input->layout = layout;
    leave(input);
    layout_free(old);
    return true;
}

struct stroke input_keysym(struct input *input, uint32_t keysym)
{
    enter(input);
    struct stroke stroke = layout_keysym(input->layout, keysym);
    leave(input);
    bool letter = keysym < 0x80 && g_ascii_isalpha(keysym);
    if (letter && input_leds(input) & 4) // Caps Lock
        stroke.shift = !stroke.shift;
    return stroke;
}

// Sleeps US unless the hub ends. Typing lock held. False: it ends.
static bool typist_sleep(struct input *input, int64_t us)
{
    int64_t until = g_get_monotonic_time() + us;
    while (!input->quit && g_cond_wait_until(&input->typing_changed, &input->typing_lock, until))
        ;
    return !input->quit;
}

static bool keyboard_has_room(struct input *input)
{
    enter(input);
    const struct input_handler *handler = keyboard(input);
    bool room = handler && (!handler->key_room || handler->key_room(handler->opaque));
    leave(input);
    return room;
}

// One key event, once the keyboard has room for it. Typing lock held, let go meanwhile. False: the hub ends or the
// guest takes no keys.
static bool typist_send(struct input *input, unsigned code, bool down)
{
    int64_t give_up = g_get_monotonic_time() + ROOM_TIMEOUT_US;
    for (;;) {
        g_mutex_unlock(&input->typing_lock);
        bool room = keyboard_has_room(input);
        if (room) {
            input_key(input, code, down);
            input_sync(input);
        }
        g_mutex_lock(&input->typing_lock);
        if (!typist_sleep(input, STROKE_US))
            return false;
        if (room)
            return true;
        if (g_get_monotonic_time() > give_up)
            return false;
    }
}

static bool typist_stroke(struct input *input, struct stroke stroke)
{
    bool good = true;
    if (stroke.shift)
        good = typist_send(input, KEY_LEFTSHIFT, true);
    if (good && stroke.altgr)
        good = typist_send(input, KEY_RIGHTALT, true);
    good = good && typist_send(input, stroke.evdev, true) && typist_send(input, stroke.evdev, false);
    if (good && stroke.altgr)
        good = typist_send(input, KEY_RIGHTALT, false);
    if (good && stroke.shift)
        good = typist_send(input, KEY_LEFTSHIFT, false);
    return good;
}

static void *typist(void *opaque)
{
    struct input *input = opaque;
    g_mutex_lock(&input->typing_lock);
    while (!input->quit) {
        if (!input->strokes->len) {
            input->typing = false;
            g_cond_wait(&input->typing_changed, &input->typing_lock);
            continue;
        }
        struct stroke stroke = g_array_index(input->strokes, struct stroke, 0);
        g_array_remove_index(input->strokes, 0);
        if (!typist_stroke(input, stroke) && !input->quit) {
            log_warning("input", "The guest takes no keys; %u keys of a typed text were dropped", input->strokes->len);
            g_array_set_size(input->strokes, 0);
        }
    }
    g_mutex_unlock(&input->typing_lock);
    return NULL;
}

static bool refuse_character(gunichar character, GError **error)
{
    char utf8[7] = {0};
    g_unichar_to_utf8(character, utf8);
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                g_unichar_isprint(character)
                    ? "The guest's keyboard layout cannot type \"%s\" (U+%04X): set the layout "
                      "that the guest uses"
                    : "The text has a character that no key types (%.0sU+%04X): remove it",
                utf8, character);
    return false;
}

bool input_type_text(struct input *input, const char *text, GError **error)
{
    if (!g_utf8_validate(text, -1, NULL) || g_utf8_strlen(text, -1) > TYPING_MAX_CHARS) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "The text to type is not UTF-8 or is longer than %d "
                    "characters: type less at once",
                    TYPING_MAX_CHARS);
        return false;
    }
    g_autoptr(GArray) strokes = g_array_new(FALSE, FALSE, sizeof(struct stroke));
    for (const char *p = text; *p; p = g_utf8_next_char(p)) {
        struct stroke found[LAYOUT_MAX_STROKES];
        enter(input);
        unsigned count = layout_find(input->layout, g_utf8_get_char(p), found);
        leave(input);
        if (!count)
            return refuse_character(g_utf8_get_char(p), error);
        if (!(p[0] == '\n' && p > text && p[-1] == '\r'))
            g_array_append_vals(strokes, found, count);
    }
    g_mutex_lock(&input->typing_lock);
    g_array_append_vals(input->strokes, strokes->data, strokes->len);
    input->typing = input->strokes->len > 0;
    if (!input->typist && input->typing)
        input->typist = g_thread_new("typist", typist, input);
    g_cond_broadcast(&input->typing_changed);
    g_mutex_unlock(&input->typing_lock);
    return true;
}

bool input_typing(struct input *input)
{
    g_mutex_lock(&input->typing_lock);
    bool typing = input->typing;
    g_mutex_unlock(&input->typing_lock);
    return typing;
}
