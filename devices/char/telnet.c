// SPDX-License-Identifier: GPL-2.0-or-later
// The telnet protocol as a serial line's server needs it (RFC 854): eight-bit data both ways (RFC 856), the far side
// does not echo (RFC 857) and sends at once (RFC 858). Every other option is refused.
#include "devices/char/backend_private.h"

enum { IAC = 255, DONT = 254, DO = 253, WONT = 252, WILL = 251, SUB_BEGIN = 250, SUB_END = 240 };
enum { OPTION_BINARY = 0, OPTION_ECHO = 1, OPTION_NO_GO_AHEAD = 3 };
enum state { STATE_DATA, STATE_RETURN, STATE_COMMAND, STATE_OPTION, STATE_SUB, STATE_SUB_COMMAND };

struct telnet {
    enum state state;
    uint8_t command;
    bool binary; // the other side sends eight-bit data: no NUL behind a carriage return
};

struct telnet *telnet_new(void)
{
    return g_new0(struct telnet, 1);
}

void telnet_free(struct telnet *telnet)
{
    g_free(telnet);
}

void telnet_start(struct telnet *telnet, GByteArray *out)
{
    static const uint8_t hello[] = {IAC, WILL, OPTION_ECHO,   IAC, WILL, OPTION_NO_GO_AHEAD,
                                    IAC, WILL, OPTION_BINARY, IAC, DO,   OPTION_BINARY};
    *telnet = (struct telnet){0};
    g_byte_array_prepend(out, hello, sizeof hello); // what waited for the listener comes after it
}

void telnet_encode(struct telnet *telnet, GByteArray *out, const uint8_t *data, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        g_byte_array_append(out, &data[i], 1);
        if (data[i] == IAC)
            g_byte_array_append(out, &data[i], 1);
    }
}

// Behind IAC. Returns whether BYTE is data.
static bool take_command(struct telnet *telnet, uint8_t byte)
{
    telnet->command = byte;
    telnet->state = byte >= WILL && byte <= DONT ? STATE_OPTION : byte == SUB_BEGIN ? STATE_SUB : STATE_DATA;
    return byte == IAC;
}

static bool take_byte(struct telnet *telnet, uint8_t byte)
{
    switch (telnet->state) {
    case STATE_RETURN:
        telnet->state = STATE_DATA;
        if (byte == 0 && !telnet->binary)
            return false;
        return take_byte(telnet, byte);
    case STATE_DATA:
        telnet->state = byte == IAC ? STATE_COMMAND : byte == '\r' ? STATE_RETURN : STATE_DATA;
        return byte != IAC;
    case STATE_COMMAND:
        return take_command(telnet, byte);
    case STATE_OPTION:
        if (byte == OPTION_BINARY && telnet->command >= WILL && telnet->command <= WONT)
            telnet->binary = telnet->command == WILL;
        telnet->state = STATE_DATA;
        return false;
    case STATE_SUB:
        telnet->state = byte == IAC ? STATE_SUB_COMMAND : STATE_SUB;
        return false;
    case STATE_SUB_COMMAND:
        telnet->state = byte == SUB_END ? STATE_DATA : STATE_SUB;
        return false;
    }
    return false;
}

unsigned telnet_decode(struct telnet *telnet, uint8_t *data, unsigned length)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < length; i++)
        if (take_byte(telnet, data[i]))
            data[kept++] = data[i];
    return kept;
}
