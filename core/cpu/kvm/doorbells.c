// SPDX-License-Identifier: GPL-2.0-or-later
// Doorbells: a guest's write that only says "look at this queue" does not end KVM_RUN; the kernel counts it in an event
// descriptor (ioeventfd), and a thread here calls the device.
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/cpu/kvm/kvm.h"
#include "core/memory/map.h"

#define DOORBELLS_MAX 512 // the kernel has room for 1000 devices of its own in all

// Threads: LOCK guards the table and is held for moments only: vCPUs take it. RING_LOCK is held while devices are
// called, which may wait for vCPUs; it is taken before LOCK and never by a vCPU. A region outlives the processors.
struct doorbell {
    struct region *region;
    uint64_t offset, gpa; // in the region, in the guest
    int fd;
    bool mapped; // still, seen by the update under way
};

struct kvm_doorbells {
    GMutex ring_lock, lock;
    GArray *table; // struct doorbell
    int set, stop; // epoll and event descriptors
    GThread *thread;
    bool full; // it has been said
};

static bool assign(struct kvm_machine *m, const struct doorbell *d, bool on)
{
    struct kvm_ioeventfd event = {
        .addr = d->gpa, .len = d->region->doorbell_size, .fd = d->fd, .flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN};
    return ioctl(m->vm, KVM_IOEVENTFD, &event) == 0;
}

static unsigned collect(struct kvm_doorbells *b, struct doorbell *rung)
{
    unsigned count = 0;
    uint64_t times;
    g_mutex_lock(&b->lock);
    for (unsigned n = 0; n < b->table->len; n++) {
        struct doorbell *d = &g_array_index(b->table, struct doorbell, n);
        if (read(d->fd, &times, sizeof times) == sizeof times)
            rung[count++] = *d;
    }
    g_mutex_unlock(&b->lock);
    return count;
}

static void ring(struct kvm_doorbells *b)
{
    struct doorbell rung[DOORBELLS_MAX];
    g_mutex_lock(&b->ring_lock);
    unsigned count = collect(b, rung);
    for (unsigned n = 0; n < count; n++)
        rung[n].region->ops->write(rung[n].region->opaque, rung[n].offset, 0, rung[n].region->doorbell_size);
    g_mutex_unlock(&b->ring_lock);
}

static void *thread_main(void *opaque)
{
    struct kvm_doorbells *b = opaque;
    struct pollfd fds[2] = {{.fd = b->set, .events = POLLIN}, {.fd = b->stop, .events = POLLIN}};
    while (!(fds[1].revents & POLLIN))
        if (poll(fds, 2, -1) > 0)
            ring(b);
    return NULL;
}

void kvm_doorbells_drain(struct kvm_machine *m)
{
    ring(m->doorbells);
}

// ---- The table follows the physical map
// -------------------------------------------------------------------------------

static struct doorbell *find(struct kvm_doorbells *b, const struct region *region, uint64_t gpa)
{
    for (unsigned n = 0; n < b->table->len; n++) {
        struct doorbell *d = &g_array_index(b->table, struct doorbell, n);
        if (d->region == region && d->gpa == gpa)
            return d;
    }
    return NULL;
}

// One that cannot be had is an ordinary write to the device.
static void add(struct kvm_machine *m, struct region *region, uint64_t offset, uint64_t gpa)
{
    struct kvm_doorbells *b = m->doorbells;
    struct doorbell d = {.region = region, .offset = offset, .gpa = gpa, .mapped = true, .fd = -1};
    if (b->table->len < DOORBELLS_MAX)
        d.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN};
    if (d.fd >= 0 && epoll_ctl(b->set, EPOLL_CTL_ADD, d.fd, &event) == 0 && assign(m, &d, true)) {
        g_array_append_val(b->table, d);
        return;
    }
    if (!b->full)
        log_info("kvm", "the kernel does not watch the doorbell of %s at %lx: each ring ends its run", region->name,
                 (unsigned long)gpa);
    b->full = true;
    if (d.fd >= 0)
        close(d.fd);
}

static void look_at(struct kvm_machine *m, const struct mapping *map, bool adding)
{
    struct region *r = map->region;
    for (unsigned n = 0; r->lockless && n < r->doorbell_count; n++) {
        uint64_t offset = r->doorbell_offset + (uint64_t)n * r->doorbell_stride;
        if (offset < map->offset || offset + r->doorbell_size > map->offset + map->size)
            continue;
        uint64_t gpa = map->start + (offset - map->offset);
        struct doorbell *d = find(m->doorbells, r, gpa);
        if (d)
            d->mapped = true;
        else if (adding)
            add(m, r, offset, gpa);
    }
}

static void remove_unmapped(struct kvm_machine *m)
{
    for (unsigned n = m->doorbells->table->len; n-- > 0;) {
        struct doorbell *d = &g_array_index(m->doorbells->table, struct doorbell, n);
        if (d->mapped)
            continue;
        assign(m, d, false);
        close(d->fd);
        g_array_remove_index_fast(m->doorbells->table, n);
    }
}

void kvm_doorbells_update(struct kvm_machine *m)
{
    struct address_space *memory = m->set->host.memory;
    struct kvm_doorbells *b = m->doorbells;
    g_mutex_lock(&b->lock);
    for (unsigned n = 0; n < b->table->len; n++)
        g_array_index(b->table, struct doorbell, n).mapped = false;
    for (unsigned adding = 0; adding < 2; adding++) { // what is gone first makes room
        struct mapping map;
        for (uint64_t at = 0, end = 1ull << 40; at < end;) {
            if (!address_space_lookup(memory, at, &map)) {
                at += address_space_gap(memory, at);
                continue;
            }
            look_at(m, &map, adding);
            at = map.start + map.size;
        }
        if (!adding)
            remove_unmapped(m);
    }
    g_mutex_unlock(&b->lock);
}

// ---- Life
// -------------------------------------------------------------------------------------------------------------

bool kvm_doorbells_init(struct kvm_machine *m, GError **error)
{
    struct kvm_doorbells *b = m->doorbells = g_new0(struct kvm_doorbells, 1);
    g_mutex_init(&b->ring_lock);
    g_mutex_init(&b->lock);
    b->table = g_array_new(false, false, sizeof(struct doorbell));
    b->set = epoll_create1(EPOLL_CLOEXEC);
    b->stop = eventfd(0, EFD_CLOEXEC);
    if (b->set >= 0 && b->stop >= 0) {
        b->thread = g_thread_new("doorbells", thread_main, b);
        return true;
    }
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "No event descriptors for the guest's queues: %s.",
                g_strerror(errno));
    return false;
}

void kvm_doorbells_free(struct kvm_machine *m)
{
    struct kvm_doorbells *b = m->doorbells;
    uint64_t one = 1;
    if (!b)
        return;
    if (b->thread && write(b->stop, &one, sizeof one) == sizeof one)
        g_thread_join(b->thread);
    for (unsigned n = 0; n < b->table->len; n++)
        close(g_array_index(b->table, struct doorbell, n).fd);
    if (b->set >= 0)
        close(b->set);
    if (b->stop >= 0)
        close(b->stop);
    g_array_free(b->table, true);
    g_mutex_clear(&b->lock);
    g_mutex_clear(&b->ring_lock);
    g_clear_pointer(&m->doorbells, g_free);
}
