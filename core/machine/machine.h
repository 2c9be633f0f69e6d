// SPDX-License-Identifier: GPL-2.0-or-later
// One running machine: its board description, run state, power, and the services that devices stand on.
//
// Threads and lock order (outermost first): machine lock (recursive) -> a device's own lock -> clock's list lock ->
// memory's map lock. vCPU threads take the machine lock only around device registers. Timer callbacks, I/O completions and
// control commands run on the main loop's thread with the machine lock held.
#ifndef CLOCHE_MACHINE_H
#define CLOCHE_MACHINE_H

#include "core/base/base.h"
#include "core/base/clock.h"
#include "core/cpu/vcpu.h"
#include "core/machine/device.h"
#include "core/memory/memory.h"

// QMP's names where they exist (RunState of QEMU's schema).
enum run_state {
    RUN_STATE_PRELAUNCH,      // built, never started
    RUN_STATE_RUNNING,
    RUN_STATE_PAUSED,         // by a person or program
    RUN_STATE_SAVING,         // "save-vm"
    RUN_STATE_RESTORING,      // "restore-vm"
    RUN_STATE_IO_ERROR,       // stopped: a disk is full or fails
    RUN_STATE_INTERNAL_ERROR, // an engine gave up, with a reason
    RUN_STATE_GUEST_PANICKED,
    RUN_STATE_SHUTDOWN,       // powered off; the process is about to end, or stays if told to
};
const char *run_state_name(enum run_state state);

// One table says in which states each request is legal; control, command line and menus read it.
enum machine_request {
    MACHINE_REQUEST_START,
    MACHINE_REQUEST_PAUSE,
    MACHINE_REQUEST_RESUME,
    MACHINE_REQUEST_RESET,
    MACHINE_REQUEST_POWER_BUTTON,
    MACHINE_REQUEST_QUIT,
    MACHINE_REQUEST_SAVE,
    MACHINE_REQUEST_LOAD,
    MACHINE_REQUEST_SNAPSHOT,
    MACHINE_REQUEST_COUNT,
};
struct machine_request_rule {
    const char *name;
    uint32_t legal_states;   // bit per enum run_state
    const char *sentence;    // when it is legal and, if not, the cure
};
extern const struct machine_request_rule machine_request_rules[MACHINE_REQUEST_COUNT];
bool machine_request_legal(struct machine *machine, enum machine_request request, GError **error);

enum machine_event {
    MACHINE_EVENT_STATE,       // run state changed
    MACHINE_EVENT_RESET,       // text: "guest" or "host"
    MACHINE_EVENT_POWERDOWN,   // power button pressed
    MACHINE_EVENT_SHUTDOWN,    // text: "guest-shutdown", "guest-reset" (--no-reboot), "host-qmp-quit", "host-signal"
    MACHINE_EVENT_WATCHDOG,
    MACHINE_EVENT_RTC_CHANGE,
    MACHINE_EVENT_TRAY,        // text: device id
    MACHINE_EVENT_BLOCK_ERROR, // text: device id
    MACHINE_EVENT_GRAPHICS,    // a display's geometry changed
};
typedef void machine_listener(void *opaque, struct machine *machine, enum machine_event event, const char *text);

struct isa_bus;
struct pci_bus;
struct screen;
struct input;
struct clipboard;
struct fw_cfg;
struct drive;
struct nic;

struct machine {
    GRecMutex lock;          // the machine lock
    GMainContext *context;   // of the main loop's thread
    struct clock *clock;
    struct ram *ram;
    struct address_space *memory, *ports;
    struct cpu_set *cpus;
    struct pci_bus *pci;
    struct screen *screen;   // core/screen
    struct input *input;     // core/screen
    struct clipboard *clipboard; // core/screen
    struct fw_cfg *fw_cfg;
    struct irq isa_irq[16];  // connected by the chipset: 8259A and I/O APIC
    struct irq gsi[24];
    struct device *devices;  // in order of creation
    struct drive *drives;    // core/machine/drive.h
    struct nic *nics;        // core/machine/nic.h
    uint64_t ram_size, ram_below_4g;
    uint64_t ram_offset;     // of main memory in the backing
    enum run_state state;
    char *stop_reason;       // for people: why it is not running, or NULL
    bool no_reboot;
    bool a20;
    int exit_status;         // what the process ends with once the state is SHUTDOWN
    GList *listeners;        // owned by machine.c
    struct board *board;     // devices/chipset/board.c
    struct machine_private *private;
};

// An empty machine: lock, clock, RAM mapped below and above 4 GiB, address spaces, PCI bus; no processors, no devices.
// The board and unit tests build on it. CLOCK NULL: one that follows the host; a manual one is taken over.
struct machine *machine_create(uint64_t ram_size, struct clock *clock, GError **error);
// Processors first, then devices in reverse order, then the rest. Requests that are still queued are dropped.
void machine_destroy(struct machine *machine);
// Every device to power-on state, in order of creation, PCI functions before all; then the processors. Lock held, vCPUs
// parked.
void machine_reset_devices(struct machine *machine);
// After the fields of all devices were loaded: BARs and interrupt lines are put in place, then each class's loaded().
bool machine_state_loaded(struct machine *machine, GError **error);
// Ends the run: SHUTDOWN with this exit status. As machine_request_shutdown(), which uses 0.
void machine_request_exit(struct machine *machine, const char *reason, int status);
// The A20 gate: closed, bit 20 of memory addresses below 4 GiB counts as 0, for processors and devices alike, so that
// programs written for the 8086 find the first mebibyte again behind its end. Machine lock held.
void machine_set_a20(struct machine *machine, bool open);

struct machine_options;      // core/machine/options.h: the description that command line and machine.conf fill in

void machine_lock(struct machine *machine);
void machine_unlock(struct machine *machine);

void machine_add_listener(struct machine *machine, machine_listener *listener, void *opaque);
void machine_remove_listener(struct machine *machine, machine_listener *listener, void *opaque);
void machine_notify(struct machine *machine, enum machine_event event, const char *text);

// Requests from the host side; main loop thread. Refused with the rule's sentence when not legal now.
bool machine_start(struct machine *machine, GError **error);  // from PRELAUNCH or PAUSED
bool machine_pause(struct machine *machine, enum run_state why, const char *reason, GError **error);
bool machine_reset(struct machine *machine, GError **error);
bool machine_power_button(struct machine *machine, GError **error);
void machine_quit(struct machine *machine, const char *reason);

// Requests from devices and vCPUs: any thread, machine lock held or not; carried out on the main loop soon after.
void machine_request_reset(struct machine *machine);
void machine_request_shutdown(struct machine *machine, const char *reason);
void machine_request_stop(struct machine *machine, enum run_state state, const char *reason);

// Runs FN on the main loop's thread with the machine lock held. Any thread.
void machine_defer(struct machine *machine, void (*fn)(void *opaque), void *opaque);

// DMA from devices: address_space_read/write on machine->memory with A20 and bus-master rules applied by the caller.

#endif
