// SPDX-License-Identifier: GPL-2.0-or-later
// RAM whose content comes from a file: a private mapping, so that a restored machine starts at once and shares what it
// does not change with others.
#include "core/memory/memory.h"

#include <errno.h>
#include <sys/mman.h>

bool ram_map_file(struct ram *ram, int fd, uint64_t length, GError **error)
{
    g_assert(length <= ram->capacity && (length & ~PAGE_MASK) == 0);
    void *map = mmap(ram->host, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0);
    if (map == MAP_FAILED) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED,
                    "The host cannot map the saved memory (%s): free some memory and try again", g_strerror(errno));
        return false;
    }
    ram->from_file = true;
    return true;
}
