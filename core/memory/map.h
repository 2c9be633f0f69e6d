// SPDX-License-Identifier: GPL-2.0-or-later
// Private to core/memory: the inside of an address space.
#ifndef CLOCHE_MEMORY_MAP_H
#define CLOCHE_MEMORY_MAP_H

#include "core/memory/memory.h"

struct flat_map;

// Changes under the machine lock; MAP is read by any thread; RETIRED under RETIRE_LOCK.
struct address_space {
    const char *name;
    struct ram *ram;
    uint64_t size;
    GRecMutex *io_lock;
    GPtrArray *regions; // struct region *, ascending priority
    unsigned depth;     // of begin/commit
    bool dirty;
    bool folded; // see address_space_set_fold()
    void (*changed)(void *opaque);
    void *changed_opaque;
    struct flat_map *_Atomic map;
    GMutex retire_lock;
    struct flat_map *retired[3];
    _Atomic unsigned read_index;
    _Atomic unsigned readers[2];
};

unsigned address_space_read_begin(struct address_space *space);
void address_space_read_end(struct address_space *space, unsigned index);
// Bytes from ADDRESS, where nothing is, to the next mapping or the end of the space (then at least 1).
uint64_t address_space_gap(struct address_space *space, uint64_t address);

#endif
