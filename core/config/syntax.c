// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/config/syntax.h"

#include <arpa/inet.h>
#include <string.h>

static bool parse_port(const char *text, size_t length)
{
    if (length < 1 || length > 5)
        return false;
    unsigned value = 0;
    for (size_t i = 0; i < length; i++) {
        if (!g_ascii_isdigit(text[i]))
            return false;
        value = value * 10 + (text[i] - '0');
    }
    return value >= 1 && value <= 65535;
}

bool syntax_machine_name(const char *text)
{
    if (!g_utf8_validate(text, -1, NULL) || text[0] == '.' || text[0] == '-' || strchr(text, '/'))
        return false;
    glong length = g_utf8_strlen(text, -1);
    if (length < 1 || length > 100 || strlen(text) > 240)
        return false;
    for (const char *p = text; *p; p = g_utf8_next_char(p))
        if (!g_unichar_isprint(g_utf8_get_char(p)))
            return false;
    return text[0] != ' ' && text[strlen(text) - 1] != ' ';
}

bool syntax_uuid(const char *text)
{
    return g_uuid_string_is_valid(text);
}

bool syntax_boot_order(const char *text)
{
    unsigned seen = 0;
    for (const char *p = text; *p; p++) {
        const char *at = strchr("cdan", *p);
        if (!at || seen & 1u << (at - "cdan"))
            return false;
        seen |= 1u << (at - "cdan");
    }
    return true;
}

// A host: an address in numbers, [IPv6], or a name.
static bool is_host(const char *text, size_t length)
{
    if (length > 2 && text[0] == '[' && text[length - 1] == ']') {
        g_autofree char *inner = g_strndup(text + 1, length - 2);
        struct in6_addr address;
        return inet_pton(AF_INET6, inner, &address) == 1;
    }
    for (size_t i = 0; i < length; i++)
        if (!g_ascii_isalnum(text[i]) && text[i] != '.' && text[i] != '-')
            return false;
    return length <= 253;
}

bool syntax_vnc(const char *text)
{
    if (g_str_has_prefix(text, "unix:"))
        return text[5] != 0;
    const char *colon = strrchr(text, ':');
    if (!colon || !is_host(text, colon - text))
        return false;
    guint64 number;
    return g_ascii_string_to_unsigned(colon + 1, 10, 0, 59635, &number, NULL);
}

static bool is_word(const char *text, size_t most)
{
    size_t length = strlen(text);
    if (length < 1 || length > most)
        return false;
    for (size_t i = 0; i < length; i++)
        if (!g_ascii_isalnum(text[i]) && !strchr("-_.", text[i]))
            return false;
    return true;
}

bool syntax_net_backend(const char *text)
{
    if (strcmp(text, "user") == 0 || strcmp(text, "none") == 0)
        return true;
    if (g_str_has_prefix(text, "team:"))
        return is_word(text + 5, 64);
    return g_str_has_prefix(text, "tap:") && is_word(text + 4, 15);
}

bool syntax_mac(const char *text)
{
    if (strlen(text) != 17)
        return false;
    unsigned first = 0;
    for (unsigned i = 0; i < 17; i++) {
        if (i % 3 == 2 ? text[i] != ':' : !g_ascii_isxdigit(text[i]))
            return false;
        if (i < 2)
            first = first << 4 | g_ascii_xdigit_value(text[i]);
    }
    return !(first & 1) && strcmp(text, "00:00:00:00:00:00") != 0;
}

bool syntax_forward(const char *text)
{
    if (!g_str_has_prefix(text, "tcp:") && !g_str_has_prefix(text, "udp:"))
        return false;
    const char *host = text + 4, *colon = strrchr(host, ':');
    if (!colon || !is_host(host, colon - host))
        return false;
    const char *dash = strchr(colon, '-');
    return dash && parse_port(colon + 1, dash - colon - 1) && parse_port(dash + 1, strlen(dash + 1));
}

bool syntax_serial(const char *text)
{
    static const char *const plain[] = {"null", "stdio", "pty", "none", NULL};
    static const char *const prefixes[] = {
        "file:", "socket:", "tcp:", "telnet:", "unix:", "tcp-client:", "device:", "machine:", "program:", NULL};
    if (g_strv_contains(plain, text))
        return true;
    for (const char *const *prefix = prefixes; *prefix; prefix++)
        if (g_str_has_prefix(text, *prefix))
            return text[strlen(*prefix)] != 0 || strcmp(*prefix, "socket:") == 0;
    return false;
}

bool syntax_device(const char *text)
{
    const char *comma = strchr(text, ',');
    g_autofree char *class_name = comma ? g_strndup(text, comma - text) : g_strdup(text);
    if (!is_word(class_name, 64))
        return false;
    if (!comma)
        return true;
    g_auto(GStrv) properties = g_strsplit(comma + 1, ",", -1);
    for (char **property = properties; *property; property++)
        if (!strchr(*property, '=') || (*property)[0] == '=')
            return false;
    return true;
}
