// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/control/framing.h"

void framing_init(struct framing *framing, size_t most)
{
    *framing = (struct framing){.buffer = g_string_new(NULL), .most = most};
}

void framing_clear(struct framing *framing)
{
    if (framing->buffer)
        g_string_free(framing->buffer, TRUE);
    framing->buffer = NULL;
}

static void restart(struct framing *framing, bool skipping)
{
    g_string_truncate(framing->buffer, 0);
    framing->depth = 0;
    framing->in_string = framing->escaped = false;
    framing->skipping = skipping;
}

static enum framing_result refuse(struct framing *framing, const char *why, GError **error)
{
    restart(framing, true);
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Invalid JSON syntax: %s", why);
    return FRAMING_BAD;
}

// The message is complete in the buffer.
static enum framing_result parse(struct framing *framing, JsonNode **node, GError **error)
{
    const GString *text = framing->buffer;
    if (!g_utf8_validate_len(text->str, text->len, NULL)) {
        refuse(framing, "the text is not UTF-8", error);
        framing->skipping = false; // the object's end is known
        return FRAMING_BAD;
    }
    g_autoptr(JsonParser) parser = json_parser_new_immutable();
    bool good = json_parser_load_from_data(parser, text->str, text->len, NULL);
    JsonNode *root = good ? json_parser_steal_root(parser) : NULL;
    restart(framing, false);
    if (root && JSON_NODE_HOLDS_OBJECT(root)) {
        *node = root;
        return FRAMING_MESSAGE;
    }
    if (root)
        json_node_unref(root);
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Invalid JSON syntax: not a JSON object");
    return FRAMING_BAD;
}

// Follows strings and brackets. True when C closed the outermost bracket.
static bool follow(struct framing *framing, char c)
{
    if (framing->in_string) {
        if (framing->escaped)
            framing->escaped = false;
        else if (c == '\\')
            framing->escaped = true;
        else if (c == '"')
            framing->in_string = false;
        return false;
    }
    if (c == '"')
        framing->in_string = true;
    else if (c == '{' || c == '[')
        framing->depth++;
    else if (c == '}' || c == ']')
        return --framing->depth == 0;
    return false;
}

enum framing_result framing_feed(struct framing *framing, const char **data, size_t *length, JsonNode **node,
                                 GError **error)
{
    while (*length) {
        char c = *(*data)++;
        --*length;
        if (framing->skipping) {
            framing->skipping = c != '\n';
            continue;
        }
        if (framing->depth == 0) {
            if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
                continue;
            if (c != '{')
                return refuse(framing, "an object is expected", error);
        }
        if (framing->buffer->len >= framing->most) {
            refuse(framing, "the message is too long", error);
            return FRAMING_TOO_LONG;
        }
        g_string_append_c(framing->buffer, c);
        if (follow(framing, c))
            return parse(framing, node, error);
        if (framing->depth > FRAMING_MAX_DEPTH)
            return refuse(framing, "it is nested too deeply", error);
    }
    return FRAMING_MORE;
}
