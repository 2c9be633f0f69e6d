// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/vnc/framing.h"

#include <string.h>
#include <sys/types.h>

enum {
    SET_PIXEL_FORMAT = 0,
    SET_ENCODINGS = 2,
    UPDATE_REQUEST = 3,
    KEY_EVENT = 4,
    POINTER_EVENT = 5,
    CUT_TEXT = 6,
    XVP = 250,
    SET_DESKTOP_SIZE = 251,
    QEMU = 255,
};

#define CUT_TEXT_MAX (1 * MiB)

static uint32_t be(const uint8_t *data, unsigned size)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value = value << 8 | data[i];
    return value;
}

static ssize_t whole(size_t needed, size_t length)
{
    return length >= needed ? (ssize_t)needed : FRAMING_WAIT;
}

static ssize_t version(struct framing *framing, const uint8_t *data, size_t length)
{
    if (memcmp(data, "RFB 003.", MIN(length, 8)) != 0)
        return FRAMING_REFUSED;
    if (length < 12)
        return FRAMING_WAIT;
    unsigned minor = 0;
    for (unsigned i = 8; i < 11; i++) {
        if (!g_ascii_isdigit(data[i]))
            return FRAMING_REFUSED;
        minor = minor * 10 + (data[i] - '0');
    }
    if (data[11] != '\n')
        return FRAMING_REFUSED;
    framing->minor = minor >= 8 ? 8 : minor == 7 ? 7 : 3;
    framing->state = framing->minor == 3 ? FRAMING_AUTH_WAIT : FRAMING_SECURITY;
    return 12;
}

static ssize_t security(struct framing *framing, uint8_t type)
{
    if (type != 1 && type != 2)
        return FRAMING_REFUSED;
    framing->state = type == 2 ? FRAMING_AUTH : FRAMING_INIT;
    return 1;
}

// Formats that viewers use: whole bits for each colour, beside each other. libvncserver (0.9.14) trusts what it is
// told, and its encoders leave their buffers with others.
static bool sane_format(const uint8_t *format)
{
    unsigned bits = format[0], depth = format[1], used = 0;
    if ((bits != 8 && bits != 16 && bits != 32) || depth < 1 || depth > bits)
        return false;
    if (!format[3])
        return bits == 8; // a colour map
    uint64_t taken = 0;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t max = be(format + 4 + 2 * i, 2), shift = format[10 + i];
        if (!max || max > 255 || (max & (max + 1)) || shift >= bits || max << shift >= 1ull << bits ||
            taken & max << shift)
            return false;
        taken |= max << shift;
        for (; max; max >>= 1)
            used++;
    }
    return used <= depth;
}

static ssize_t normal(const uint8_t *data, size_t length)
{
    if (data[0] == SET_PIXEL_FORMAT && length >= 20 && !sane_format(data + 4))
        return FRAMING_REFUSED;
    static const struct {
        uint8_t type, length;
    } fixed[] = {{SET_PIXEL_FORMAT, 20}, {UPDATE_REQUEST, 10}, {KEY_EVENT, 8}, {POINTER_EVENT, 6}, {XVP, 4}};
    for (unsigned i = 0; i < G_N_ELEMENTS(fixed); i++)
        if (fixed[i].type == data[0])
            return whole(fixed[i].length, length);
    switch (data[0]) {
    case SET_ENCODINGS:
        return length < 4 ? FRAMING_WAIT : whole(4 + 4 * be(data + 2, 2), length);
    case CUT_TEXT: {
        if (length < 8)
            return FRAMING_WAIT;
        int32_t size = be(data + 4, 4); // negative: the extended clipboard
        uint32_t bytes = size < 0 ? -(uint32_t)size : (uint32_t)size;
        return bytes > CUT_TEXT_MAX ? FRAMING_REFUSED : whole(8 + bytes, length);
    }
    case SET_DESKTOP_SIZE:
        return length < 8 ? FRAMING_WAIT : whole(8 + 16 * data[6], length);
    case QEMU:
        if (length < 2)
            return FRAMING_WAIT;
        return data[1] == 0 ? whole(12, length) : FRAMING_REFUSED;
    }
    return FRAMING_REFUSED;
}

ssize_t framing_next(struct framing *framing, const uint8_t *data, size_t length)
{
    if (!length)
        return FRAMING_WAIT;
    switch (framing->state) {
    case FRAMING_VERSION:
        return version(framing, data, length);
    case FRAMING_SECURITY:
        return security(framing, data[0]);
    case FRAMING_AUTH_WAIT:
        if (!framing->server_choice)
            return FRAMING_WAIT;
        framing->state = framing->server_choice == 2 ? FRAMING_AUTH : FRAMING_INIT;
        return framing_next(framing, data, length);
    case FRAMING_AUTH:
        if (length >= 16)
            framing->state = FRAMING_INIT;
        return whole(16, length);
    case FRAMING_INIT:
        framing->shared = data[0];
        framing->state = FRAMING_NORMAL;
        return 1;
    case FRAMING_NORMAL:
        return normal(data, length);
    }
    return FRAMING_REFUSED;
}
