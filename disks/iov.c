// SPDX-License-Identifier: GPL-2.0-or-later
// Scatter-gather vectors: slices, copies, zero tests.
#include "disks/file.h"

#include <string.h>

uint64_t iov_length(const struct iovec *iov, unsigned count)
{
    uint64_t length = 0;
    for (unsigned i = 0; i < count; i++)
        length += iov[i].iov_len;
    return length;
}

unsigned iov_slice(struct iovec *out, const struct iovec *iov, unsigned count, uint64_t skip, uint64_t length)
{
    unsigned used = 0;
    for (unsigned i = 0; i < count && length; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        uint64_t part = MIN(iov[i].iov_len - skip, length);
        out[used++] = (struct iovec){(char *)iov[i].iov_base + skip, part};
        length -= part;
        skip = 0;
    }
    return used;
}

enum copy_direction { COPY_OUT, COPY_IN, COPY_ZERO };

static void copy(const struct iovec *iov, unsigned count, uint64_t skip, char *buffer, uint64_t length,
                 enum copy_direction direction)
{
    for (unsigned i = 0; i < count && length; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        uint64_t part = MIN(iov[i].iov_len - skip, length);
        char *here = (char *)iov[i].iov_base + skip;
        if (direction == COPY_ZERO)
            memset(here, 0, part);
        else if (direction == COPY_OUT)
            memcpy(buffer, here, part);
        else
            memcpy(here, buffer, part);
        buffer = buffer ? buffer + part : NULL;
        length -= part;
        skip = 0;
    }
}

void iov_zero(const struct iovec *iov, unsigned count, uint64_t skip, uint64_t length)
{
    copy(iov, count, skip, NULL, length, COPY_ZERO);
}

void iov_to_buffer(const struct iovec *iov, unsigned count, uint64_t skip, void *buffer, uint64_t length)
{
    copy(iov, count, skip, buffer, length, COPY_OUT);
}

void iov_from_buffer(const struct iovec *iov, unsigned count, uint64_t skip, const void *buffer, uint64_t length)
{
    copy(iov, count, skip, (char *)buffer, length, COPY_IN);
}

bool buffer_is_zero(const void *buffer, size_t length)
{
    const char *bytes = buffer;
    if (length < 16) {
        for (size_t i = 0; i < length; i++)
            if (bytes[i])
                return false;
        return true;
    }
    // Sixteen zero bytes, and each byte equal to the one sixteen before it.
    uint64_t head[2];
    memcpy(head, bytes, 16);
    return !(head[0] | head[1]) && memcmp(bytes, bytes + 16, length - 16) == 0;
}
