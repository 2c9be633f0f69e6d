// SPDX-License-Identifier: GPL-2.0-or-later
// Writes to RAM that nobody announces (the guest's under KVM), caught by the host's user-space page faults
// (userfaultfd(2), write-protect mode).
#ifndef CLOCHE_RAM_FAULTS_H
#define CLOCHE_RAM_FAULTS_H

#include "core/memory/memory.h"

struct ram_faults;
// The page at RAM_OFFSET is about to be written; returns when it may be. On a thread of its own.
typedef void ram_fault_fn(void *opaque, uint64_t ram_offset);

// NULL: the host does not permit it, or not for this memory (a mapped file). Nothing is protected yet. Any thread.
struct ram_faults *ram_faults_new(struct ram *ram, ram_fault_fn *fn, void *opaque);
// From here on every first write to a page in use waits for FN. False: the host refused, nothing is protected.
bool ram_faults_protect(struct ram_faults *faults);
// Pages that may be written from now on without a word. Any thread.
void ram_faults_release(struct ram_faults *faults, uint64_t ram_offset, uint64_t length);
// Releases all. FN is not called any more. NULL is allowed.
void ram_faults_free(struct ram_faults *faults);

#endif
