// SPDX-License-Identifier: GPL-2.0-or-later
// A little virtio driver for tests: finds the structures by their capabilities, sets queues up in guest RAM, and talks
// to the device through the bus only. MSI-X messages go to a word of RAM per vector, where the test sees them.
#ifndef CLOCHE_VIRTIO_GUEST_H
#define CLOCHE_VIRTIO_GUEST_H

#include "core/machine/pci.h"

#define GUEST_MSI_WORDS 0x1000 // guest-physical: vector n writes 0xc0de0000 | n to word n
#define GUEST_RINGS     0x10000
#define GUEST_RING_SIZE 0x10000 // for each queue

enum { GUEST_NEXT = 1, GUEST_WRITE = 2, GUEST_INDIRECT = 4 };

struct guest {
    struct machine *machine;
    struct pci_device *pci;
    uint64_t common, notify, isr, device, legacy; // addresses
    uint32_t notify_multiplier;
    uint64_t features;
    bool event_index;
    struct guest_queue {
        uint16_t size, next_descriptor, available, used;
    } queues[40];
};

// Places the BARs and switches the function on.
void guest_attach(struct guest *guest, struct machine *machine, struct pci_device *pci);
// Resets, takes WANTED of the offered features, sets QUEUES queues up with up to SIZE descriptors, DRIVER_OK. False
// when the device does not accept the features.
bool guest_start(struct guest *guest, uint64_t wanted, unsigned queues, unsigned size);

uint64_t guest_descriptors(unsigned queue); // where the areas of a queue are
uint64_t guest_available(unsigned queue);
uint64_t guest_used(unsigned queue);

void guest_descriptor(struct guest *guest, unsigned queue, unsigned index, uint64_t address, uint32_t length,
                      unsigned flags, unsigned next);
void guest_offer(struct guest *guest, unsigned queue, unsigned head); // makes available, no notification
void guest_notify(struct guest *guest, unsigned queue);
// Waits up to two seconds for one more used entry, running the main context meanwhile; false: none came.
bool guest_wait(struct guest *guest, unsigned queue, uint32_t *id, uint32_t *length);
uint8_t guest_status(struct guest *guest);
unsigned guest_messages(struct guest *guest, unsigned vector); // 1 when it arrived since the last call, else 0

#define guest_load(g, address, size)         address_space_load((g)->machine->memory, address, size)
#define guest_store(g, address, value, size) address_space_store((g)->machine->memory, address, value, size)

#endif
