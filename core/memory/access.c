// SPDX-License-Identifier: GPL-2.0-or-later
// Accesses through an address space: RAM through the trackers, device registers in the sizes that the device takes.
#include "core/memory/map.h"

#include <string.h>

// ---- The lock around device registers ----
static _Thread_local const struct lock_waiter *lock_waiter;

void io_lock_set_waiter(const struct lock_waiter *waiter)
{
    lock_waiter = waiter;
}

void io_lock_take(GRecMutex *lock)
{
    if (!lock || g_rec_mutex_trylock(lock))
        return;
    const struct lock_waiter *waiter = lock_waiter;
    if (waiter)
        waiter->begin(waiter->opaque);
    g_rec_mutex_lock(lock);
    if (waiter)
        waiter->end(waiter->opaque);
}

void io_lock_release(GRecMutex *lock)
{
    if (lock)
        g_rec_mutex_unlock(lock);
}

// ---- Device registers ----
static uint64_t ones(unsigned size)
{
    return ~0ull >> (64 - 8 * size);
}

// The largest naturally aligned piece at OFFSET that the device takes and that SIZE still needs.
static unsigned piece_size(uint64_t offset, unsigned size, unsigned max)
{
    unsigned piece = max;
    while (piece > size || (offset & (piece - 1)))
        piece /= 2;
    return piece;
}

static uint64_t io_read(const struct region *region, uint64_t offset, unsigned size)
{
    const struct io_ops *ops = region->ops;
    unsigned min = ops->min_size ? ops->min_size : 1, max = ops->max_size ? ops->max_size : 4;
    uint64_t value = 0;
    for (unsigned done = 0; done < size;) {
        unsigned piece = piece_size(offset + done, size - done, max);
        uint64_t part;
        if (!ops->read) {
            part = ones(piece);
        } else if (piece >= min) {
            part = ops->read(region->opaque, offset + done, piece);
        } else {
            uint64_t start = ALIGN_DOWN(offset + done, min);
            part = ops->read(region->opaque, start, min) >> 8 * (offset + done - start);
        }
        value |= (part & ones(piece)) << 8 * done;
        done += piece;
    }
    return value;
}

static void io_write(const struct region *region, uint64_t offset, uint64_t value, unsigned size)
{
    const struct io_ops *ops = region->ops;
    unsigned min = ops->min_size ? ops->min_size : 1, max = ops->max_size ? ops->max_size : 4;
    if (!ops->write)
        return;
    for (unsigned done = 0; done < size;) {
        unsigned piece = piece_size(offset + done, size - done, max);
        uint64_t part = value >> 8 * done & ones(piece), start = offset + done;
        if (piece < min) {
            start = ALIGN_DOWN(start, min);
            part <<= 8 * (offset + done - start);
            ops->write(region->opaque, start, part, min);
        } else {
            ops->write(region->opaque, start, part, piece);
        }
        done += piece;
    }
}

static uint64_t locked_read(struct address_space *space, const struct mapping *m, uint64_t address, unsigned size)
{
    GRecMutex *lock = m->region->lockless ? NULL : space->io_lock;
    io_lock_take(lock);
    uint64_t value = io_read(m->region, m->offset + (address - m->start), size);
    io_lock_release(lock);
    return value;
}

static void locked_write(struct address_space *space, const struct mapping *m, uint64_t address, uint64_t value,
                         unsigned size)
{
    if (!m->region->ops)
        return; // plain ROM
    GRecMutex *lock = m->region->lockless ? NULL : space->io_lock;
    io_lock_take(lock);
    io_write(m->region, m->offset + (address - m->start), value, size);
    io_lock_release(lock);
}

// ---- Scalars in RAM: single-copy atomic where aligned ----
static uint64_t host_load(const uint8_t *host, unsigned size)
{
    if ((uintptr_t)host & (size - 1))
        return load_le(host, size);
    switch (size) {
    case 1:
        return *host;
    case 2:
        return GUINT16_FROM_LE(__atomic_load_n((const uint16_t *)host, __ATOMIC_ACQUIRE));
    case 4:
        return GUINT32_FROM_LE(__atomic_load_n((const uint32_t *)host, __ATOMIC_ACQUIRE));
    default:
        return GUINT64_FROM_LE(__atomic_load_n((const uint64_t *)host, __ATOMIC_ACQUIRE));
    }
}

static void host_store(uint8_t *host, uint64_t value, unsigned size)
{
    if ((uintptr_t)host & (size - 1)) {
        store_le(host, size, value);
        return;
    }
    switch (size) {
    case 1:
        __atomic_store_n(host, value, __ATOMIC_RELEASE);
        break;
    case 2:
        __atomic_store_n((uint16_t *)host, GUINT16_TO_LE(value), __ATOMIC_RELEASE);
        break;
    case 4:
        __atomic_store_n((uint32_t *)host, GUINT32_TO_LE(value), __ATOMIC_RELEASE);
        break;
    default:
        __atomic_store_n((uint64_t *)host, GUINT64_TO_LE(value), __ATOMIC_RELEASE);
    }
}

// ---- Public accesses ----
uint64_t address_space_load(struct address_space *space, uint64_t address, unsigned size)
{
    struct mapping m;
    if (address_space_lookup(space, address, &m) && m.size - (address - m.start) >= size)
        return m.host ? host_load(m.host + (address - m.start), size) : locked_read(space, &m, address, size);
    uint8_t bytes[8];
    address_space_read(space, address, bytes, size);
    return load_le(bytes, size);
}

void address_space_store(struct address_space *space, uint64_t address, uint64_t value, unsigned size)
{
    struct mapping m;
    if (!address_space_lookup(space, address, &m) || m.size - (address - m.start) < size) {
        uint8_t bytes[8];
        store_le(bytes, size, value);
        address_space_write(space, address, bytes, size);
        return;
    }
    uint64_t delta = address - m.start;
    if (m.region->kind != REGION_RAM) {
        locked_write(space, &m, address, value, size);
        return;
    }
    ram_write_begin(space->ram, m.ram_offset + delta, size);
    host_store(m.host + delta, value, size);
    ram_write_end(space->ram, m.ram_offset + delta, size);
}

// How much of LENGTH bytes at ADDRESS lies in M, and for registers the next natural piece of it.
static uint64_t piece_in(const struct mapping *m, uint64_t address, uint64_t length, bool memory)
{
    uint64_t piece = MIN(length, m->size - (address - m->start));
    if (!memory)
        piece = piece_size(m->offset + (address - m->start), MIN(piece, 8), 8);
    return piece;
}

void address_space_read(struct address_space *space, uint64_t address, void *data, uint64_t length)
{
    uint8_t *bytes = data;
    while (length) {
        struct mapping m;
        uint64_t piece;
        if (!address_space_lookup(space, address, &m)) {
            piece = MIN(length, address_space_gap(space, address));
            memset(bytes, 0xff, piece);
        } else if (m.host) {
            piece = piece_in(&m, address, length, true);
            memcpy(bytes, m.host + (address - m.start), piece);
        } else {
            piece = piece_in(&m, address, length, false);
            store_le(bytes, piece, locked_read(space, &m, address, piece));
        }
        bytes += piece;
        address += piece;
        length -= piece;
    }
}

void address_space_write(struct address_space *space, uint64_t address, const void *data, uint64_t length)
{
    const uint8_t *bytes = data;
    while (length) {
        struct mapping m;
        uint64_t piece;
        if (!address_space_lookup(space, address, &m)) {
            piece = MIN(length, address_space_gap(space, address));
        } else if (m.region->kind == REGION_RAM) {
            piece = piece_in(&m, address, length, true);
            uint64_t ram_offset = m.ram_offset + (address - m.start);
            ram_write_begin(space->ram, ram_offset, piece);
            memcpy(m.host + (address - m.start), bytes, piece);
            ram_write_end(space->ram, ram_offset, piece);
        } else {
            piece = piece_in(&m, address, length, false);
            locked_write(space, &m, address, load_le(bytes, piece), piece);
        }
        bytes += piece;
        address += piece;
        length -= piece;
    }
}

void *address_space_dma(struct address_space *space, uint64_t address, uint64_t length, uint64_t *ram_offset)
{
    struct mapping m;
    if (!address_space_lookup(space, address, &m) || m.region->kind != REGION_RAM ||
        length > m.size - (address - m.start))
        return NULL;
    if (ram_offset)
        *ram_offset = m.ram_offset + (address - m.start);
    return m.host + (address - m.start);
}
