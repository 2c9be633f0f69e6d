// SPDX-License-Identifier: GPL-2.0-or-later
// The header block of POSIX ustar archives.
#ifndef CLOCHE_TAR_FORMAT_H
#define CLOCHE_TAR_FORMAT_H

#include <stdint.h>
#include <string.h>

#define TAR_BLOCK 512
#define TAR_SUMS  "SHA256SUMS"

union tar_header {
    struct {
        char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6],
            version[2], user[32], group[32], major[8], minor[8], prefix[155];
    };
    uint8_t bytes[TAR_BLOCK];
};
_Static_assert(sizeof(union tar_header) == TAR_BLOCK, "ustar header");

// The sum of all bytes with the checksum field taken as blanks.
static inline unsigned tar_checksum(const union tar_header *header)
{
    union tar_header copy = *header;
    unsigned sum = 0;
    memset(copy.checksum, ' ', sizeof(copy.checksum));
    for (unsigned i = 0; i < TAR_BLOCK; i++)
        sum += copy.bytes[i];
    return sum;
}

#endif
