// SPDX-License-Identifier: GPL-2.0-or-later
// The RAM backing and its write tracking.
#include "core/memory/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct ram *ram_new(uint64_t capacity, GError **error)
{
    capacity = ALIGN_UP(capacity, PAGE_SIZE);
    int memfd = memfd_create("cloche-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *host = MAP_FAILED;
    if (memfd >= 0 && capacity <= INT64_MAX && ftruncate(memfd, capacity) == 0)
        host = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);
    _Atomic uint8_t *track = host == MAP_FAILED ? NULL : g_try_malloc0(capacity >> PAGE_SHIFT);
    if (!track) {
        int e = host == MAP_FAILED ? errno : ENOMEM;
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED,
                    "The host cannot provide %" G_GUINT64_FORMAT " MiB of guest memory (%s): give the machine less.",
                    capacity >> 20, g_strerror(e));
        if (host != MAP_FAILED)
            munmap(host, capacity);
        if (memfd >= 0)
            close(memfd);
        return NULL;
    }
    struct ram *ram = g_new0(struct ram, 1);
    *ram = (struct ram){.host = host, .capacity = capacity, .memfd = memfd, .track = track};
    ram->trackers = g_new0(struct ram_tracker, TRACK_BITS);
    g_mutex_init(&ram->damage_lock);
    return ram;
}

void ram_free(struct ram *ram)
{
    if (!ram)
        return;
    munmap(ram->host, ram->capacity);
    close(ram->memfd);
    g_free((void *)ram->track);
    g_free(ram->trackers);
    g_mutex_clear(&ram->damage_lock);
    g_free(ram);
}

uint64_t ram_alloc(struct ram *ram, uint64_t size)
{
    size = ALIGN_UP(size, PAGE_SIZE);
    g_assert(size <= ram->capacity - ram->used); // the board computes the capacity from the same figures
    uint64_t offset = ram->used;
    ram->used += size;
    return offset;
}

void ram_set_tracker(struct ram *ram, enum track_bit bit, ram_tracker_fn *fn, void *opaque)
{
    ram->trackers[__builtin_ctz(bit)] = (struct ram_tracker){fn, opaque};
}

void ram_set_revoke(struct ram *ram, void (*fn)(void *opaque, uint64_t ram_offset), void *opaque)
{
    ram->revoke = fn;
    ram->revoke_opaque = opaque;
}

void ram_set_revoke_range(struct ram *ram, void (*fn)(void *opaque, uint64_t ram_offset, uint64_t length))
{
    ram->revoke_range = fn;
}

// Sets the bit. True when writable TLB entries may still exist: the caller revokes, then calls finish_revoke().
static bool start_track(struct ram *ram, uint64_t page, enum track_bit bit)
{
    uint8_t old = atomic_load(&ram->track[page]), new;
    do {
        // Another thread's revocation under way does not count as done: take part in it.
        bool revoke = old == 0 || (old & TRACK_REVOKING);
        new = old | bit | (revoke ? TRACK_REVOKING : 0);
    } while (!atomic_compare_exchange_weak(&ram->track[page], &old, new));
    return new &TRACK_REVOKING;
}

static void finish_revoke(struct ram *ram, uint64_t page)
{
    atomic_fetch_and(&ram->track[page], (uint8_t)~TRACK_REVOKING);
}

void ram_track(struct ram *ram, uint64_t ram_offset, enum track_bit bit)
{
    uint64_t page = ram_offset >> PAGE_SHIFT;
    if (!start_track(ram, page, bit))
        return;
    if (ram->revoke)
        ram->revoke(ram->revoke_opaque, ram_offset & PAGE_MASK);
    finish_revoke(ram, page);
}

// Sets and clears bits of pages [FIRST, END), eight at a time: a live snapshot marks all of RAM while the guest waits.
static void change_pages(struct ram *ram, uint64_t first, uint64_t end, uint8_t set, uint8_t clear)
{
    const uint64_t all = UINT64_C(0x0101010101010101);
    uint64_t page = first;
    for (; page < end && page % 8; page++) {
        atomic_fetch_or(&ram->track[page], set);
        atomic_fetch_and(&ram->track[page], (uint8_t)~clear);
    }
    for (; page + 8 <= end; page += 8) {
        uint64_t *word = (uint64_t *)&ram->track[page];
        if (set)
            __atomic_fetch_or(word, all * set, __ATOMIC_SEQ_CST);
        if (clear)
            __atomic_fetch_and(word, ~(all * clear), __ATOMIC_SEQ_CST);
    }
    for (; page < end; page++) {
        atomic_fetch_or(&ram->track[page], set);
        atomic_fetch_and(&ram->track[page], (uint8_t)~clear);
    }
}

void ram_track_range(struct ram *ram, uint64_t ram_offset, uint64_t length, enum track_bit bit)
{
    uint64_t first = ram_offset >> PAGE_SHIFT, end = (ram_offset + length + PAGE_SIZE - 1) >> PAGE_SHIFT;
    if (!ram->revoke_range || end - first < 2) {
        for (uint64_t page = first; page < end; page++)
            ram_track(ram, page << PAGE_SHIFT, bit);
        return;
    }
    change_pages(ram, first, end, bit | TRACK_REVOKING, 0);
    ram->revoke_range(ram->revoke_opaque, first << PAGE_SHIFT, (end - first) << PAGE_SHIFT);
    change_pages(ram, first, end, 0, TRACK_REVOKING);
}

void ram_untrack(struct ram *ram, uint64_t ram_offset, enum track_bit bit)
{
    atomic_fetch_and(&ram->track[ram_offset >> PAGE_SHIFT], (uint8_t)~bit);
}

static void call_trackers(struct ram *ram, uint64_t offset, uint64_t length, enum ram_write_phase phase)
{
    unsigned bits = ram_tracked(ram, offset) & (BIT(TRACK_BITS) - 1);
    for (; bits; bits &= bits - 1) {
        const struct ram_tracker *tracker = &ram->trackers[__builtin_ctz(bits)];
        if (tracker->fn)
            tracker->fn(tracker->opaque, offset, length, phase);
    }
}

static void visit_pages(struct ram *ram, uint64_t offset, uint64_t length, enum ram_write_phase phase)
{
    while (length) {
        uint64_t piece = MIN(length, PAGE_SIZE - (offset & ~PAGE_MASK));
        if (G_UNLIKELY(ram_tracked(ram, offset)))
            call_trackers(ram, offset, piece, phase);
        offset += piece;
        length -= piece;
    }
}

void ram_write_begin(struct ram *ram, uint64_t ram_offset, uint64_t length)
{
    visit_pages(ram, ram_offset, length, RAM_WRITE_BEFORE);
}

void ram_write_end(struct ram *ram, uint64_t ram_offset, uint64_t length)
{
    // The bits are read again after the store: a page that became tracked in between has this write reported too.
    atomic_thread_fence(memory_order_seq_cst);
    visit_pages(ram, ram_offset, length, RAM_WRITE_AFTER);
}
