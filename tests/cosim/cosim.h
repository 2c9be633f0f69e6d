// SPDX-License-Identifier: GPL-2.0-or-later
// Co-simulation: a machine whose processor is run by the translator, block by block, while the interpreter does the
// same on a copy of registers and memory. After each block both must agree in registers, vectors and everything
// written.
//
// What the guest learns from outside (device registers, time, random numbers, the local APIC) is recorded from the
// translator's run and replayed to the interpreter; interrupts come to both at the same block end; what devices write
// to memory is copied over before the next block. One processor, one thread; other threads only add to the queue of
// memory that devices wrote.
#ifndef CLOCHE_COSIM_H
#define CLOCHE_COSIM_H

#include "core/cpu/arch.h"
#include "core/cpu/interpret/interpret.h"
#include "core/cpu/translate/translate.h"

// ---- tape.c: what comes from outside ----

enum role { ROLE_OUTSIDE, ROLE_LEADER, ROLE_FOLLOWER };
extern _Thread_local enum role role; // whose guest code this thread runs

void tape_clear(void);
void tape_rewind(void);
bool tape_used_up(void);          // and nothing else was asked for
const char *tape_complaint(void); // or NULL
void tape_set_follower(const struct ram *ram, struct address_space *memory, struct address_space *ports);
bool tape_interrupt_waits(void); // the leader would have taken one in the middle; tells once
// Memory written by devices since the last call: FN for each piece.
void tape_foreign(void (*fn)(void *opaque, uint64_t ram_offset, uint64_t length), void *opaque);

// ---- compare.c ----

// True: same but for UNDEFINED status flags. TEXT may be NULL.
bool states_equal(const struct vcpu *a, const struct vcpu *b, uint64_t undefined, GString *text);
// Status flags that the instructions at the addresses leave undefined.
uint64_t undefined_after(struct vcpu *v, const uint64_t *rips, unsigned count);

#endif
