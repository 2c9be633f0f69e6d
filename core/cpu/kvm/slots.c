// SPDX-License-Identifier: GPL-2.0-or-later
// Memory slots: the RAM and ROM of the flattened physical map. The guest writes without telling us, so the dirty log
// stands in for write tracking: it is read every few milliseconds and reported to the trackers.
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/cpu/kvm/kvm.h"
#include "core/memory/map.h"

static bool slot_set(struct kvm_machine *m, unsigned n, const struct kvm_slot *slot)
{
    struct kvm_userspace_memory_region r = {.slot = n};
    if (slot) {
        r.guest_phys_addr = slot->gpa;
        r.memory_size = slot->size;
        r.userspace_addr = (uintptr_t)m->set->host.ram->host + slot->ram_offset;
        r.flags = slot->read_only ? KVM_MEM_READONLY : KVM_MEM_LOG_DIRTY_PAGES;
    }
    if (ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &r) == 0)
        return true;
    log_error("kvm", "memory slot %u at %lx cannot be set: %s", n, (unsigned long)r.guest_phys_addr, g_strerror(errno));
    return false;
}

static unsigned slots_collect(struct kvm_machine *m, struct kvm_slot *slots)
{
    struct address_space *memory = m->set->host.memory;
    uint64_t at = 0, end = 1ull << 40;
    unsigned count = 0;
    while (at < end && count < KVM_SLOTS_MAX) {
        struct mapping map;
        if (!address_space_lookup(memory, at, &map)) {
            at += address_space_gap(memory, at);
            continue;
        }
        uint64_t from = ALIGN_UP(map.start, PAGE_SIZE), to = ALIGN_DOWN(map.start + map.size, PAGE_SIZE);
        if (map.host && to > from && !(map.ram_offset & ~PAGE_MASK))
            slots[count++] =
                (struct kvm_slot){from, to - from, map.ram_offset + (from - map.start), map.region->kind != REGION_RAM};
        at = map.start + map.size;
    }
    return count;
}

bool kvm_slots_update(struct kvm_machine *m)
{
    struct kvm_slot slots[KVM_SLOTS_MAX] = {{0}};
    bool ok = true;
    g_mutex_lock(&m->slots_lock);
    if (atomic_exchange(&m->slots_stale, false)) {
        unsigned count = slots_collect(m, slots);
        for (unsigned n = 0; n < m->slot_count; n++)
            if (n >= count || memcmp(&slots[n], &m->slots[n], sizeof slots[n]))
                slot_set(m, n, NULL);
        for (unsigned n = 0; n < count; n++)
            if (n >= m->slot_count || memcmp(&slots[n], &m->slots[n], sizeof slots[n]))
                ok &= slot_set(m, n, &slots[n]);
        memcpy(m->slots, slots, sizeof slots);
        m->slot_count = count;
        kvm_doorbells_update(m);
    }
    g_mutex_unlock(&m->slots_lock);
    return ok;
}

static void report_page(struct kvm_machine *m, uint64_t ram_offset)
{
    struct ram *ram = m->set->host.ram;
    if (!ram_tracked(ram, ram_offset))
        return;
    ram_write_begin(ram, ram_offset, PAGE_SIZE);
    ram_write_end(ram, ram_offset, PAGE_SIZE);
}

static bool slot_tracked(const struct kvm_machine *m, const struct kvm_slot *s)
{
    for (uint64_t at = 0; at < s->size; at += PAGE_SIZE)
        if (ram_tracked(m->set->host.ram, s->ram_offset + at))
            return true;
    return false;
}

void kvm_slots_log_sync(struct kvm_machine *m)
{
    g_mutex_lock(&m->slots_lock);
    for (unsigned n = 0; n < m->slot_count; n++) {
        const struct kvm_slot *s = &m->slots[n];
        if (s->read_only || !slot_tracked(m, s))
            continue;
        size_t words = (s->size / PAGE_SIZE + 63) / 64;
        g_autofree uint64_t *bitmap = g_new0(uint64_t, words);
        struct kvm_dirty_log log = {.slot = n, .dirty_bitmap = bitmap};
        if (ioctl(m->vm, KVM_GET_DIRTY_LOG, &log) < 0)
            continue;
        for (size_t w = 0; w < words; w++)
            for (uint64_t bits = bitmap[w]; bits; bits &= bits - 1)
                report_page(m, s->ram_offset + ((w * 64 + (unsigned)__builtin_ctzll(bits)) << PAGE_SHIFT));
    }
    g_mutex_unlock(&m->slots_lock);
}
