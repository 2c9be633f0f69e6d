// SPDX-License-Identifier: GPL-2.0-or-later
// Cuts a byte stream into JSON objects before any of it reaches the JSON library, which crashes on deep nesting: size,
// depth and encoding are checked here.
#ifndef CLOCHE_FRAMING_H
#define CLOCHE_FRAMING_H

#include "core/base/base.h"

#include <json-glib/json-glib.h>

#define FRAMING_MAX_SIZE  (1 * MiB)
#define FRAMING_MAX_DEPTH 32

// Owned by one reader; zero-initialised is not enough: use framing_init().
struct framing {
    GString *buffer;
    size_t most; // bytes of one message
    unsigned depth;
    bool in_string, escaped;
    bool skipping; // after an error: to the end of the line
};

enum framing_result {
    FRAMING_MORE,     // needs more bytes
    FRAMING_MESSAGE,  // *NODE is a whole object
    FRAMING_BAD,      // refused: *ERROR says why; the rest of the line is skipped
    FRAMING_TOO_LONG, // refused, and the stream cannot be trusted any more
};

void framing_init(struct framing *framing, size_t most);
void framing_clear(struct framing *framing);
// Takes bytes from *DATA (advancing it and *LENGTH) up to the end of one message. *NODE is the caller's.
enum framing_result framing_feed(struct framing *framing, const char **data, size_t *length, JsonNode **node,
                                 GError **error);

#endif
