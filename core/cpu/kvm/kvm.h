// SPDX-License-Identifier: GPL-2.0-or-later
// The inside of the KVM engine. The kernel keeps the local APICs while the machine runs (apic.c); the 8259s and the I/O
// APIC stay in the monitor: the one's interrupt is injected when the kernel says that the guest can take it, the
// other's messages go to the kernel, which reports the end of level-triggered ones.
//
// Threads: a struct kvm_cpu belongs to its vCPU's thread, except `thread`, which a kick uses from anywhere, and while
// the vCPU is parked. Memory slots change under slots_lock; who keeps the APICs, under apics_lock.
#ifndef CLOCHE_KVM_H
#define CLOCHE_KVM_H

#include <linux/kvm.h>

#include "core/cpu/arch.h"

#define KVM_SLOTS_MAX 64
#define KVM_MSRS_MAX  64

struct kvm_slot {
    uint64_t gpa, size, ram_offset;
    bool read_only;
};

struct kvm_doorbells;

struct kvm_machine {
    struct cpu_set *set;
    int kvm, vm;
    size_t run_size;
    GMutex slots_lock;
    struct kvm_slot slots[KVM_SLOTS_MAX];
    unsigned slot_count;
    _Atomic bool slots_stale;               // the physical map changed
    _Atomic int64_t logged_at;              // monotonic microseconds of the last look at the dirty log
    uint32_t msrs[KVM_MSRS_MAX];            // those that the kernel keeps, of the ones we know
    _Atomic bool msr_refused[KVM_MSRS_MAX]; // by index into msrs
    unsigned msr_count;
    bool has_xcrs;
    GRWLock apics_lock; // readers send messages
    GMutex level_lock;  // of LEVEL
    bool apics_in;      // the kernel has the local APICs
    struct kvm_doorbells *doorbells;
    bool level[256];    // by vector: sent level-triggered, its end is reported
};

struct kvm_cpu {
    struct vcpu *vcpu;
    int fd;
    struct kvm_run *run;
    _Atomic uint64_t thread; // host thread id
};

// probe.c. Nanoseconds that one ring-0 instruction takes under the host's KVM; below 0 with a GError when it cannot be
// had.
double kvm_calibrate(GError **error);
// Is it worth choosing? The error says what was measured.
bool kvm_works_at_speed(GError **error);

// slots.c
bool kvm_slots_update(struct kvm_machine *m);
void kvm_slots_log_sync(struct kvm_machine *m); // reports the guest's writes to tracked pages

// doorbells.c: the regions' doorbells are watched by the kernel. UPDATE follows the physical map; DRAIN rings those
// that wait, so that a machine that stands still has served them all. The machine lock is not held.
bool kvm_doorbells_init(struct kvm_machine *m, GError **error);
void kvm_doorbells_free(struct kvm_machine *m);
void kvm_doorbells_update(struct kvm_machine *m);
void kvm_doorbells_drain(struct kvm_machine *m);

// state.c: all of struct vcpu into KVM and back.
void kvm_msrs_choose(struct kvm_machine *m);
bool kvm_cpuid_set(struct kvm_cpu *c, GError **error);
bool kvm_state_put(struct kvm_cpu *c);
bool kvm_state_get(struct kvm_cpu *c);

// apic.c: see struct engine. INIT fails with a GError on kernels that cannot.
bool kvm_apics_init(struct kvm_machine *m, GError **error);
void kvm_apics_in(struct cpu_set *set);
void kvm_apics_out(struct cpu_set *set);
int kvm_apic_message(struct cpu_set *set, uint64_t address, uint32_t data);

// exits.c: serves run->exit_reason. KVM_GO_ON, or 1 + enum engine_exit.
#define KVM_GO_ON 0
int kvm_exit_serve(struct kvm_cpu *c);
// The machine cannot go on: says WHAT with a number, in the log and to the machine. Returns 1 + ENGINE_EXIT_ERROR.
int kvm_report(struct kvm_cpu *c, const char *what, uint64_t detail);

#endif
