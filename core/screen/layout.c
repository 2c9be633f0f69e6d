// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.h"
#include "core/screen/layout.h"
#include "core/screen/input.h"

#include <linux/input-event-codes.h>
#include <string.h>
#include <xkbcommon/xkbcommon-keysyms.h>
#ifdef HAVE_XKBCOMMON
#include <xkbcommon/xkbcommon.h>
#endif

struct layout {
    GHashTable *characters; // gunichar -> struct stroke packed in a pointer
    GHashTable *keysyms;    // keysym -> the same
};

static void *pack(struct stroke stroke)
{
    return GUINT_TO_POINTER(stroke.evdev | stroke.shift << 16 | stroke.altgr << 17);
}

static bool look_up(GHashTable *table, uint32_t key, struct stroke *stroke)
{
    unsigned value = GPOINTER_TO_UINT(g_hash_table_lookup(table, GUINT_TO_POINTER(key)));
    *stroke = (struct stroke){.evdev = value & 0xffff, .shift = value >> 16 & 1, .altgr = value >> 17 & 1};
    return value != 0;
}

// The first stroke for a symbol wins, so tables are filled plain levels first.
static void learn(struct layout *layout, uint32_t keysym, gunichar character, struct stroke stroke)
{
    if (keysym && !g_hash_table_contains(layout->keysyms, GUINT_TO_POINTER(keysym)))
        g_hash_table_insert(layout->keysyms, GUINT_TO_POINTER(keysym), pack(stroke));
    if (character && !g_hash_table_contains(layout->characters, GUINT_TO_POINTER(character)))
        g_hash_table_insert(layout->characters, GUINT_TO_POINTER(character), pack(stroke));
}

static struct layout *layout_create(void)
{
    struct layout *layout = g_new0(struct layout, 1);
    layout->characters = g_hash_table_new(NULL, NULL);
    layout->keysyms = g_hash_table_new(NULL, NULL);
    learn(layout, 0, '\n', (struct stroke){.evdev = KEY_ENTER});
    learn(layout, 0, '\r', (struct stroke){.evdev = KEY_ENTER});
    learn(layout, 0, '\t', (struct stroke){.evdev = KEY_TAB});
    learn(layout, 0, '\b', (struct stroke){.evdev = KEY_BACKSPACE});
    learn(layout, 0, 27, (struct stroke){.evdev = KEY_ESC});
    return layout;
}

// Latin-1 keysyms are their characters; the table has no others that type.
static gunichar us_character(uint32_t keysym)
{
    return keysym >= 0x20 && keysym < 0x7f ? keysym : 0;
}

static struct layout *layout_us(void)
{
    struct layout *layout = layout_create();
    for (int shifted = 0; shifted < 2; shifted++)
        for (size_t i = 0; i < keys_count; i++) {
            uint32_t keysym = shifted ? keys[i].keysym_shift : keys[i].keysym;
            learn(layout, keysym, us_character(keysym), (struct stroke){.evdev = keys[i].evdev, .shift = shifted});
        }
    return layout;
}

#ifdef HAVE_XKBCOMMON
#define XKB_OFFSET 8 // xkb key codes are evdev codes plus 8

// Whether LEVEL of KEYCODE can be reached by Shift and AltGr alone, and how.
static bool level_stroke(struct xkb_keymap *keymap, xkb_keycode_t keycode, xkb_level_index_t level,
                         struct stroke *stroke)
{
    xkb_mod_mask_t masks[16];
    xkb_mod_mask_t shift = 1u << xkb_keymap_mod_get_index(keymap, XKB_MOD_NAME_SHIFT);
    xkb_mod_index_t level3 = xkb_keymap_mod_get_index(keymap, "Mod5");
    xkb_mod_mask_t altgr = level3 < 32 ? 1u << level3 : 0;
    size_t count = xkb_keymap_key_get_mods_for_level(keymap, keycode, 0, level, masks, G_N_ELEMENTS(masks));
    for (size_t i = 0; i < count; i++)
        if ((masks[i] & ~(shift | altgr)) == 0) {
            *stroke =
                (struct stroke){.evdev = keycode - XKB_OFFSET, .shift = masks[i] & shift, .altgr = masks[i] & altgr};
            return true;
        }
    return false;
}

static void learn_level(struct layout *layout, struct xkb_keymap *keymap, xkb_level_index_t level)
{
    for (size_t i = 0; i < keys_count; i++) {
        xkb_keycode_t keycode = keys[i].evdev + XKB_OFFSET;
        const xkb_keysym_t *syms;
        struct stroke stroke;
        if (level >= xkb_keymap_num_levels_for_key(keymap, keycode, 0) ||
            xkb_keymap_key_get_syms_by_level(keymap, keycode, 0, level, &syms) != 1 ||
            !level_stroke(keymap, keycode, level, &stroke))
            continue;
        gunichar character = xkb_keysym_to_utf32(syms[0]);
        // Keypad digits type only with Num Lock on, so they do not count as characters.
        bool keypad = syms[0] >= XKB_KEY_KP_Space && syms[0] <= XKB_KEY_KP_9;
        learn(layout, syms[0], keypad || character < 0x20 || character == 0x7f ? 0 : character, stroke);
    }
}

static void ignore_log(struct xkb_context *context, enum xkb_log_level level, const char *format, va_list args)
{
}

static struct layout *layout_xkb(const char *name)
{
    g_autofree char *base = g_strdup(name);
    char *variant = strchr(base, '('), *end = variant ? strchr(variant, ')') : NULL;
    if (variant) {
        if (!end || end[1])
            return NULL;
        *end = '\0';
        *variant++ = '\0';
    }
    struct xkb_context *context = xkb_context_new(XKB_CONTEXT_NO_ENVIRONMENT_NAMES);
    if (!context)
        return NULL;
    xkb_context_set_log_fn(context, ignore_log);
    struct xkb_rule_names names = {.rules = "evdev", .model = "pc105", .layout = base, .variant = variant};
    struct xkb_keymap *keymap = xkb_keymap_new_from_names(context, &names, XKB_KEYMAP_COMPILE_NO_FLAGS);
    struct layout *layout = NULL;
    if (keymap) {
        layout = layout_create();
        for (xkb_level_index_t level = 0; level < 8; level++)
            learn_level(layout, keymap, level);
        xkb_keymap_unref(keymap);
    }
    xkb_context_unref(context);
    return layout;
}
#else
static struct layout *layout_xkb(const char *name)
{
    return NULL;
}
#endif

struct layout *layout_new(const char *name, GError **error)
{
    bool plausible =
        *name && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-()") == strlen(name);
    struct layout *layout = !strcmp(name, "us") ? layout_us() : plausible ? layout_xkb(name) : NULL;
    if (!layout)
        g_set_error(
            error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
            "The keyboard layout \"%s\" is not known here: name one of /usr/share/X11/xkb (package xkb-data), as "
            "in us, de or ch(fr)",
            name);
    return layout;
}

void layout_free(struct layout *layout)
{
    if (!layout)
        return;
    g_hash_table_unref(layout->characters);
    g_hash_table_unref(layout->keysyms);
    g_free(layout);
}

// Dead keys by the combining mark that they add.
static const struct {
    gunichar mark;
    uint32_t keysym;
} dead_keys[] = {
    {0x300, XKB_KEY_dead_grave},       {0x301, XKB_KEY_dead_acute},     {0x302, XKB_KEY_dead_circumflex},
    {0x303, XKB_KEY_dead_tilde},       {0x304, XKB_KEY_dead_macron},    {0x306, XKB_KEY_dead_breve},
    {0x307, XKB_KEY_dead_abovedot},    {0x308, XKB_KEY_dead_diaeresis}, {0x30a, XKB_KEY_dead_abovering},
    {0x30b, XKB_KEY_dead_doubleacute}, {0x30c, XKB_KEY_dead_caron},     {0x327, XKB_KEY_dead_cedilla},
    {0x328, XKB_KEY_dead_ogonek},
};
// Marks that stand alone are typed as the dead key and a space.
static const struct {
    gunichar character;
    uint32_t keysym;
} spacing_marks[] = {
    {'^', XKB_KEY_dead_circumflex}, {'`', XKB_KEY_dead_grave},      {0xb4, XKB_KEY_dead_acute},
    {'~', XKB_KEY_dead_tilde},      {0xa8, XKB_KEY_dead_diaeresis}, {'\'', XKB_KEY_dead_acute},
    {'"', XKB_KEY_dead_diaeresis},
};

unsigned layout_find(const struct layout *layout, gunichar character, struct stroke strokes[LAYOUT_MAX_STROKES])
{
    if (look_up(layout->characters, character, &strokes[0]))
        return 1;
    for (size_t i = 0; i < G_N_ELEMENTS(spacing_marks); i++)
        if (spacing_marks[i].character == character && look_up(layout->keysyms, spacing_marks[i].keysym, &strokes[0]) &&
            look_up(layout->characters, ' ', &strokes[1]))
            return 2;
    gunichar base, mark;
    if (!g_unichar_decompose(character, &base, &mark) || !look_up(layout->characters, base, &strokes[1]))
        return 0;
    for (size_t i = 0; i < G_N_ELEMENTS(dead_keys); i++)
        if (dead_keys[i].mark == mark && look_up(layout->keysyms, dead_keys[i].keysym, &strokes[0]))
            return 2;
    return 0;
}

// Function keys and the keypad's are from 0xfd00 on; 0x0100xxxx is Unicode.
static bool is_character(uint32_t keysym)
{
    return keysym < 0xfd00 || keysym >= 0x01000000;
}

struct stroke layout_keysym(const struct layout *layout, uint32_t keysym)
{
    struct stroke stroke;
    if (look_up(layout->keysyms, keysym, &stroke))
        return is_character(keysym) ? stroke : (struct stroke){.evdev = stroke.evdev};
    // A symbol that xkb names differently but that makes the same character; below 0x100 it is Latin-1.
    uint32_t character = (keysym & 0xff000000) == 0x01000000 ? keysym & 0xffffff : keysym < 0x100 ? keysym : 0;
    if (character && look_up(layout->characters, character, &stroke))
        return stroke;
    const struct key *key = key_by_keysym(keysym); // keys that the layout does not move
    return (struct stroke){.evdev = key ? key->evdev : 0};
}
