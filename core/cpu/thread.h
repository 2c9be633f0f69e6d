// SPDX-License-Identifier: GPL-2.0-or-later
// The vCPU thread: parked, inside engine->run(), or outside of it (waiting). Work of cpu_set_run_on_all() runs on a
// vCPU that is inside at its next block end, and on one that is outside by whoever asks, under the thread's lock.
//
// Lock order: machine lock, then one vCPU's thread lock; work functions take neither.
#ifndef CLOCHE_VCPU_THREAD_H
#define CLOCHE_VCPU_THREAD_H

#include "core/cpu/vcpu.h"

struct vcpu_thread *vcpu_thread_new(struct vcpu *vcpu); // parked
void vcpu_thread_free(struct vcpu_thread *thread);      // ends it
void vcpu_thread_resume(struct vcpu_thread *thread);
void vcpu_thread_request_park(struct vcpu_thread *thread);
void vcpu_thread_wait_parked(struct vcpu_thread *thread);
void vcpu_thread_wake(struct vcpu_thread *thread);

// Own thread: while outside, others may run work in our place. LEAVE drains the queue first.
void vcpu_leave_guest(struct vcpu *vcpu);
void vcpu_enter_guest(struct vcpu *vcpu);
// Own thread, inside: engines call it when ATTENTION_FLUSH is set.
void vcpu_run_queued(struct vcpu *vcpu);
// Runs FN here if the vCPU is outside (returns true), else queues it; DONE is decremented when it has run.
struct vcpu_work {
    void (*fn)(struct vcpu *vcpu, void *opaque);
    void *opaque;
    _Atomic unsigned pending;
    GMutex lock;
    GCond done;
};
bool vcpu_thread_submit(struct vcpu_thread *thread, struct vcpu_work *work);

// INIT and SIPI as seen by the owner (reset.c).
void vcpu_reset(struct vcpu *vcpu); // power-on
void vcpu_init(struct vcpu *vcpu);  // INIT signal
void vcpu_sipi(struct vcpu *vcpu, uint8_t vector);

#endif
