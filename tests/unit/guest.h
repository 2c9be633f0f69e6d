// SPDX-License-Identifier: GPL-2.0-or-later
// A minimal machine for processor tests: RAM, ports that record, no devices. Guests are bytes, placed at an address.
#ifndef CLOCHE_TEST_GUEST_H
#define CLOCHE_TEST_GUEST_H

#include "core/cpu/arch.h"
#include "core/memory/memory.h"

#define GUEST_RAM (16 * MiB)

struct guest {
    struct ram *ram;
    struct address_space *memory, *ports;
    struct clock *clock;
    GRecMutex lock;
    struct cpu_set *set;
    struct region ram_region, port_region, mmio_region;
    GString *output; // bytes written to port 0xe9
    GMutex done_lock;
    GCond done_changed;
    bool done;          // port 0xf4 was written, or a processor shut down
    uint32_t exit_code; // what was written there
    bool shut_down;
    uint64_t mmio_reads, mmio_writes, mmio_value; // 4 KiB at GUEST_MMIO
};
#define GUEST_MMIO 0xd0000000ull

struct guest *guest_new(const char *engine, unsigned cpus);
void guest_free(struct guest *g);
void *guest_memory(struct guest *g, uint64_t gpa);
void guest_load(struct guest *g, uint64_t gpa, const void *bytes, size_t size);
// Runs until port 0xf4 is written or a processor shuts down, at most SECONDS. False: time was up. Paused afterwards.
bool guest_run(struct guest *g, unsigned seconds);

// State of the boot processor for a start without firmware: real mode at GPA, flat 32-bit protected mode, 64-bit mode
// with identity-mapped RAM (tables at 0x1000 to 0x5fff) and a flat GDT at 0x800 (0x08 code64, 0x10 data, 0x18 code32,
// 0x1b | 3 ...: see guest.c).
void guest_start_real(struct guest *g, uint64_t gpa);
void guest_start_protected(struct guest *g, uint64_t gpa);
void guest_start_long(struct guest *g, uint64_t gpa);

#endif
