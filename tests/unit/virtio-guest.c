// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/unit/virtio-guest.h"

#include <string.h>

static uint32_t config_get(struct guest *guest, unsigned offset, unsigned size)
{
    return pci_config_read(guest->machine->pci, 0, guest->pci->devfn, offset, size);
}

static void config_set(struct guest *guest, unsigned offset, uint32_t value, unsigned size)
{
    pci_config_write(guest->machine->pci, 0, guest->pci->devfn, offset, value, size);
}

static void find_capabilities(struct guest *guest, const uint64_t *bars)
{
    for (unsigned at = config_get(guest, 0x34, 1), n = 0; at && n < 32; at = config_get(guest, at + 1, 1), n++) {
        if (config_get(guest, at, 1) != 0x09)
            continue;
        uint64_t address = bars[config_get(guest, at + 4, 1) % 6] + config_get(guest, at + 8, 4);
        switch (config_get(guest, at + 3, 1)) {
        case 1:
            guest->common = address;
            break;
        case 2:
            guest->notify = address;
            guest->notify_multiplier = config_get(guest, at + 16, 4);
            break;
        case 3:
            guest->isr = address;
            break;
        case 4:
            guest->device = address;
            break;
        }
    }
}

void guest_attach(struct guest *guest, struct machine *machine, struct pci_device *pci)
{
    memset(guest, 0, sizeof *guest);
    guest->machine = machine;
    guest->pci = pci;
    uint64_t bars[6] = {0}, next = 0xe0000000, port = 0xc000;
    for (unsigned i = 0; i < 6; i++) {
        if (!pci->bar[i].region)
            continue;
        uint64_t *from = pci->bar[i].io ? &port : &next;
        bars[i] = ALIGN_UP(*from, pci->bar[i].size);
        *from = bars[i] + pci->bar[i].size;
        config_set(guest, 0x10 + 4 * i, bars[i], 4);
        if (pci->bar[i].io)
            guest->legacy = bars[i];
    }
    config_set(guest, 4, 7, 2);
    find_capabilities(guest, bars);
    for (unsigned vector = 0; pci->msix_cap && vector < 40; vector++) {
        guest_store(guest, bars[1] + 16 * vector, GUEST_MSI_WORDS + 4 * vector, 8);
        guest_store(guest, bars[1] + 16 * vector + 8, 0xc0de0000 | vector, 4);
        guest_store(guest, bars[1] + 16 * vector + 12, 0, 4);
    }
    if (pci->msix_cap)
        config_set(guest, pci->msix_cap + 2, 0x8000, 2);
}

uint64_t guest_descriptors(unsigned queue)
{
    return GUEST_RINGS + queue * GUEST_RING_SIZE;
}

uint64_t guest_available(unsigned queue)
{
    return guest_descriptors(queue) + 0x4000;
}

uint64_t guest_used(unsigned queue)
{
    return guest_descriptors(queue) + 0x8000;
}

static void start_queue(struct guest *guest, unsigned index, unsigned size)
{
    struct guest_queue *queue = &guest->queues[index];
    guest_store(guest, guest->common + 0x16, index, 2);
    memset(queue, 0, sizeof *queue);
    queue->size = MIN(size, guest_load(guest, guest->common + 0x18, 2));
    uint8_t *zero = g_malloc0(GUEST_RING_SIZE);
    address_space_write(guest->machine->memory, guest_descriptors(index), zero, GUEST_RING_SIZE);
    g_free(zero);
    guest_store(guest, guest->common + 0x18, queue->size, 2);
    guest_store(guest, guest->common + 0x1a, index + 1, 2);
    guest_store(guest, guest->common + 0x20, guest_descriptors(index), 4);
    guest_store(guest, guest->common + 0x24, 0, 4);
    guest_store(guest, guest->common + 0x28, guest_available(index), 4);
    guest_store(guest, guest->common + 0x30, guest_used(index), 4);
    guest_store(guest, guest->common + 0x1c, 1, 2);
}

bool guest_start(struct guest *guest, uint64_t wanted, unsigned queues, unsigned size)
{
    guest_store(guest, guest->common + 0x14, 0, 1);
    guest_store(guest, guest->common + 0x14, 3, 1);
    uint64_t offered = 0;
    for (unsigned word = 0; word < 2; word++) {
        guest_store(guest, guest->common, word, 4);
        offered |= guest_load(guest, guest->common + 4, 4) << 32 * word;
    }
    guest->features = wanted & offered;
    guest->event_index = guest->features & BIT(29);
    for (unsigned word = 0; word < 2; word++) {
        guest_store(guest, guest->common + 8, word, 4);
        guest_store(guest, guest->common + 12, (uint32_t)(guest->features >> 32 * word), 4);
    }
    guest_store(guest, guest->common + 0x14, 11, 1);
    if (!(guest_status(guest) & 8))
        return false;
    guest_store(guest, guest->common + 0x10, 0, 2);
    for (unsigned i = 0; i < queues; i++)
        start_queue(guest, i, size);
    guest_store(guest, guest->common + 0x14, 15, 1);
    return true;
}

void guest_descriptor(struct guest *guest, unsigned queue, unsigned index, uint64_t address, uint32_t length,
                      unsigned flags, unsigned next)
{
    uint64_t at = guest_descriptors(queue) + 16 * index;
    guest_store(guest, at, address, 8);
    guest_store(guest, at + 8, length, 4);
    guest_store(guest, at + 12, flags, 2);
    guest_store(guest, at + 14, next, 2);
}

void guest_offer(struct guest *guest, unsigned index, unsigned head)
{
    struct guest_queue *queue = &guest->queues[index];
    guest_store(guest, guest_available(index) + 4 + 2 * (queue->available % queue->size), head, 2);
    queue->available++;
    guest_store(guest, guest_available(index) + 2, queue->available, 2);
}

void guest_notify(struct guest *guest, unsigned queue)
{
    guest_store(guest, guest->notify + queue * guest->notify_multiplier, queue, 2);
}

bool guest_wait(struct guest *guest, unsigned index, uint32_t *id, uint32_t *length)
{
    struct guest_queue *queue = &guest->queues[index];
    for (unsigned spin = 0; spin < 20000; spin++) {
        if ((uint16_t)guest_load(guest, guest_used(index) + 2, 2) != queue->used) {
            uint64_t at = guest_used(index) + 4 + 8 * (queue->used % queue->size);
            queue->used++;
            if (guest->event_index)
                guest_store(guest, guest_available(index) + 4 + 2 * queue->size, queue->used, 2);
            if (id)
                *id = guest_load(guest, at, 4);
            if (length)
                *length = guest_load(guest, at + 4, 4);
            return true;
        }
        g_main_context_iteration(guest->machine->context, false);
        g_usleep(100);
    }
    return false;
}

uint8_t guest_status(struct guest *guest)
{
    return guest_load(guest, guest->common + 0x14, 1);
}

unsigned guest_messages(struct guest *guest, unsigned vector)
{
    uint64_t at = GUEST_MSI_WORDS + 4 * vector;
    for (unsigned spin = 0; spin < 1000; spin++) {
        if (guest_load(guest, at, 4) == (0xc0de0000 | vector)) {
            guest_store(guest, at, 0, 4);
            return 1;
        }
        g_usleep(20);
    }
    return 0;
}
