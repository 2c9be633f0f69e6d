// SPDX-License-Identifier: GPL-2.0-or-later
// The tape: calls that reach outside of the processor are caught by the linker (--wrap), recorded while the leader runs
// and played back while the follower runs.
#include "tests/cosim/cosim.h"

#include "core/base/clock.h"
#include "core/cpu/lapic.h"

#include <sys/random.h>

_Thread_local enum role role;

enum kind {
    KIND_CLOCK,
    KIND_WALL,
    KIND_RANDOM,
    KIND_LAPIC_READ,
    KIND_LAPIC_WRITE,
    KIND_TPR,
    KIND_RDMSR,
    KIND_WRMSR,
    KIND_READ,
    KIND_WRITE
};
static const char *const kinds[] = {"clock", "wall clock", "random number", "APIC read",   "APIC write",
                                    "TPR",   "RDMSR",      "WRMSR",         "device read", "device write"};

struct event {
    enum kind kind;
    uint64_t address;
    unsigned size;
    bool ok;
    uint8_t data[32];
};

static GArray *tape;
static unsigned cursor;
static char complaint[200];

void tape_clear(void)
{
    if (!tape)
        tape = g_array_new(false, true, sizeof(struct event));
    g_array_set_size(tape, 0);
    tape_rewind();
}

void tape_rewind(void)
{
    cursor = 0;
    complaint[0] = 0;
}

bool tape_used_up(void)
{
    return cursor == tape->len && !complaint[0];
}

const char *tape_complaint(void)
{
    if (!complaint[0] && cursor < tape->len) {
        const struct event *e = &g_array_index(tape, struct event, cursor);
        g_snprintf(complaint, sizeof complaint, "the interpreter left out: %s at %lx, size %u", kinds[e->kind],
                   (unsigned long)e->address, e->size);
    }
    return complaint[0] ? complaint : NULL;
}

static void record(enum kind kind, uint64_t address, const void *data, unsigned size, bool ok)
{
    struct event e = {.kind = kind, .address = address, .size = MIN(size, sizeof e.data), .ok = ok};
    memcpy(e.data, data, e.size);
    g_array_append_val(tape, e);
}

// The next event, which must be this one; else DATA gets zeros.
static bool play(enum kind kind, uint64_t address, void *data, unsigned size)
{
    const struct event *e = cursor < tape->len ? &g_array_index(tape, struct event, cursor) : NULL;
    if (e && e->kind == kind && e->address == address && e->size == MIN(size, sizeof e->data)) {
        cursor++;
        memcpy(data, e->data, e->size);
        return e->ok;
    }
    if (!complaint[0])
        g_snprintf(complaint, sizeof complaint,
                   "the interpreter asks for %s at %lx size %u, the translator for %s at %lx size %u", kinds[kind],
                   (unsigned long)address, size, e ? kinds[e->kind] : "nothing", e ? (unsigned long)e->address : 0,
                   e ? e->size : 0);
    memset(data, 0, size);
    return true;
}

// What was written must be the same.
static void play_write(enum kind kind, uint64_t address, const void *data, unsigned size)
{
    uint8_t expected[32];
    play(kind, address, expected, MIN(size, 32));
    if (memcmp(expected, data, MIN(size, 32)) && !complaint[0])
        g_snprintf(complaint, sizeof complaint, "%s at %lx size %u: the values differ", kinds[kind],
                   (unsigned long)address, size);
}

// ---- Time and chance ----

int64_t __real_clock_now(struct clock *clock);
int64_t __wrap_clock_now(struct clock *clock);
int64_t __wrap_clock_now(struct clock *clock)
{
    int64_t now;
    if (role == ROLE_FOLLOWER) {
        play(KIND_CLOCK, 0, &now, sizeof now);
        return now;
    }
    now = __real_clock_now(clock);
    if (role == ROLE_LEADER)
        record(KIND_CLOCK, 0, &now, sizeof now, true);
    return now;
}

int64_t __real_clock_wall(struct clock *clock);
int64_t __wrap_clock_wall(struct clock *clock);
int64_t __wrap_clock_wall(struct clock *clock)
{
    int64_t now;
    if (role == ROLE_FOLLOWER) {
        play(KIND_WALL, 0, &now, sizeof now);
        return now;
    }
    now = __real_clock_wall(clock);
    if (role == ROLE_LEADER)
        record(KIND_WALL, 0, &now, sizeof now, true);
    return now;
}

ssize_t __real_getrandom(void *data, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *data, size_t size, unsigned flags)
{
    if (role == ROLE_FOLLOWER) {
        play(KIND_RANDOM, 0, data, (unsigned)size);
        return (ssize_t)size;
    }
    ssize_t got = __real_getrandom(data, size, flags);
    if (role == ROLE_LEADER)
        record(KIND_RANDOM, 0, data, (unsigned)size, true);
    return got;
}

// ---- Interrupts ----

static bool interrupt_waits;

int __real_vcpu_take_interrupt(struct vcpu *vcpu);
int __wrap_vcpu_take_interrupt(struct vcpu *vcpu);
int __wrap_vcpu_take_interrupt(struct vcpu *vcpu)
{
    if (role != ROLE_LEADER)
        return __real_vcpu_take_interrupt(vcpu);
    interrupt_waits = true; // it came after the look at the last block's end: the next one's
    return -1;
}

bool tape_interrupt_waits(void)
{
    bool waits = interrupt_waits;
    interrupt_waits = false;
    return waits;
}

// ---- The local APIC: only the leader's is real ----

void __real_lapic_page_read(struct lapic *lapic, unsigned offset, void *data, unsigned size);
void __wrap_lapic_page_read(struct lapic *lapic, unsigned offset, void *data, unsigned size);
void __wrap_lapic_page_read(struct lapic *lapic, unsigned offset, void *data, unsigned size)
{
    enum role was = role;
    if (was == ROLE_FOLLOWER) {
        play(KIND_LAPIC_READ, offset, data, size);
        return;
    }
    role = ROLE_OUTSIDE;
    __real_lapic_page_read(lapic, offset, data, size);
    role = was;
    if (was == ROLE_LEADER)
        record(KIND_LAPIC_READ, offset, data, size, true);
}

void __real_lapic_page_write(struct lapic *lapic, unsigned offset, const void *data, unsigned size);
void __wrap_lapic_page_write(struct lapic *lapic, unsigned offset, const void *data, unsigned size);
void __wrap_lapic_page_write(struct lapic *lapic, unsigned offset, const void *data, unsigned size)
{
    enum role was = role;
    if (was == ROLE_FOLLOWER) {
        play_write(KIND_LAPIC_WRITE, offset, data, size);
        return;
    }
    if (was == ROLE_LEADER)
        record(KIND_LAPIC_WRITE, offset, data, size, true);
    role = ROLE_OUTSIDE;
    __real_lapic_page_write(lapic, offset, data, size);
    role = was;
}

uint64_t __real_lapic_tpr(struct lapic *lapic);
uint64_t __wrap_lapic_tpr(struct lapic *lapic);
uint64_t __wrap_lapic_tpr(struct lapic *lapic)
{
    uint64_t value;
    if (role == ROLE_FOLLOWER) {
        play(KIND_TPR, 0, &value, 8);
        return value;
    }
    value = __real_lapic_tpr(lapic);
    if (role == ROLE_LEADER)
        record(KIND_TPR, 0, &value, 8, true);
    return value;
}

static bool apic_msr(uint32_t msr)
{
    return (msr >= 0x800 && msr < 0x900) || msr == 0x6e0;
}

bool __real_vcpu_read_msr(struct vcpu *v, uint32_t msr, uint64_t *value);
bool __wrap_vcpu_read_msr(struct vcpu *v, uint32_t msr, uint64_t *value);
bool __wrap_vcpu_read_msr(struct vcpu *v, uint32_t msr, uint64_t *value)
{
    enum role was = role;
    if (was == ROLE_OUTSIDE || !apic_msr(msr))
        return __real_vcpu_read_msr(v, msr, value);
    if (was == ROLE_FOLLOWER) {
        bool ok = play(KIND_RDMSR, msr, value, 8);
        if (!ok)
            vcpu_fault(v, EXCEPTION_GP, 0);
        return ok;
    }
    role = ROLE_OUTSIDE;
    bool ok = __real_vcpu_read_msr(v, msr, value);
    role = was;
    record(KIND_RDMSR, msr, value, 8, ok);
    return ok;
}

bool __real_vcpu_write_msr(struct vcpu *v, uint32_t msr, uint64_t value);
bool __wrap_vcpu_write_msr(struct vcpu *v, uint32_t msr, uint64_t value);
bool __wrap_vcpu_write_msr(struct vcpu *v, uint32_t msr, uint64_t value)
{
    enum role was = role;
    if (was == ROLE_OUTSIDE || !apic_msr(msr))
        return __real_vcpu_write_msr(v, msr, value);
    if (was == ROLE_FOLLOWER) {
        uint64_t expected;
        bool ok = play(KIND_WRMSR, msr, &expected, 8);
        if (!ok)
            vcpu_fault(v, EXCEPTION_GP, 0);
        return ok;
    }
    role = ROLE_OUTSIDE;
    bool ok = __real_vcpu_write_msr(v, msr, value);
    role = was;
    record(KIND_WRMSR, msr, &value, 8, ok);
    return ok;
}

// ---- Memory and ports ----

static const struct ram *follower_ram;
static struct address_space *follower_memory, *follower_ports;

void tape_set_follower(const struct ram *ram, struct address_space *memory, struct address_space *ports)
{
    follower_ram = ram;
    follower_memory = memory;
    follower_ports = ports;
}

// Plain RAM or ROM over the whole length: each has its own.
static bool plain(struct address_space *space, uint64_t address, uint64_t size, bool write)
{
    struct mapping m;
    return address_space_lookup(space, address, &m) && m.host && m.size - (address - m.start) >= size &&
           (!write || m.region->kind == REGION_RAM);
}

static bool memory_of(struct address_space *space)
{
    return space == follower_memory || space == follower_ports || role == ROLE_LEADER;
}

uint64_t __real_address_space_load(struct address_space *space, uint64_t address, unsigned size);
uint64_t __wrap_address_space_load(struct address_space *space, uint64_t address, unsigned size);
uint64_t __wrap_address_space_load(struct address_space *space, uint64_t address, unsigned size)
{
    enum role was = role;
    if (was == ROLE_OUTSIDE || !memory_of(space) || plain(space, address, size, false))
        return __real_address_space_load(space, address, size);
    uint64_t value = 0;
    if (was == ROLE_FOLLOWER) {
        play(KIND_READ, address, &value, size);
        return value;
    }
    role = ROLE_OUTSIDE;
    value = __real_address_space_load(space, address, size);
    role = was;
    record(KIND_READ, address, &value, size, true);
    return value;
}

void __real_address_space_store(struct address_space *space, uint64_t address, uint64_t value, unsigned size);
void __wrap_address_space_store(struct address_space *space, uint64_t address, uint64_t value, unsigned size);
void __wrap_address_space_store(struct address_space *space, uint64_t address, uint64_t value, unsigned size)
{
    enum role was = role;
    if (was == ROLE_OUTSIDE || !memory_of(space) || plain(space, address, size, true)) {
        __real_address_space_store(space, address, value, size);
        return;
    }
    if (was == ROLE_FOLLOWER) {
        play_write(KIND_WRITE, address, &value, size);
        return;
    }
    record(KIND_WRITE, address, &value, size, true);
    role = ROLE_OUTSIDE;
    __real_address_space_store(space, address, value, size);
    role = was;
}

void __real_address_space_read(struct address_space *space, uint64_t address, void *data, uint64_t length);
void __wrap_address_space_read(struct address_space *space, uint64_t address, void *data, uint64_t length);
void __wrap_address_space_read(struct address_space *space, uint64_t address, void *data, uint64_t length)
{
    enum role was = role;
    if (was == ROLE_OUTSIDE || !memory_of(space) || length > 32 || plain(space, address, length, false)) {
        __real_address_space_read(space, address, data, length);
        return;
    }
    if (was == ROLE_FOLLOWER) {
        play(KIND_READ, address, data, (unsigned)length);
        return;
    }
    role = ROLE_OUTSIDE;
    __real_address_space_read(space, address, data, length);
    role = was;
    record(KIND_READ, address, data, (unsigned)length, true);
}

void __real_address_space_write(struct address_space *space, uint64_t address, const void *data, uint64_t length);
void __wrap_address_space_write(struct address_space *space, uint64_t address, const void *data, uint64_t length);
void __wrap_address_space_write(struct address_space *space, uint64_t address, const void *data, uint64_t length)
{
    enum role was = role;
    if (was == ROLE_OUTSIDE || !memory_of(space) || length > 32 || plain(space, address, length, true)) {
        __real_address_space_write(space, address, data, length);
        return;
    }
    if (was == ROLE_FOLLOWER) {
        play_write(KIND_WRITE, address, data, (unsigned)length);
        return;
    }
    record(KIND_WRITE, address, data, (unsigned)length, true);
    role = ROLE_OUTSIDE;
    __real_address_space_write(space, address, data, length);
    role = was;
}

// ---- What devices write ----

static GMutex foreign_lock;
static GArray *foreign;
struct piece {
    uint64_t offset, length;
};

void __real_ram_write_end(struct ram *ram, uint64_t offset, uint64_t length);
void __wrap_ram_write_end(struct ram *ram, uint64_t offset, uint64_t length);
void __wrap_ram_write_end(struct ram *ram, uint64_t offset, uint64_t length)
{
    __real_ram_write_end(ram, offset, length);
    if (role != ROLE_OUTSIDE || ram == follower_ram || !follower_ram)
        return;
    struct piece p = {offset, length};
    g_mutex_lock(&foreign_lock);
    if (!foreign)
        foreign = g_array_new(false, false, sizeof p);
    g_array_append_val(foreign, p);
    g_mutex_unlock(&foreign_lock);
}

void tape_foreign(void (*fn)(void *opaque, uint64_t ram_offset, uint64_t length), void *opaque)
{
    if (!foreign || !__atomic_load_n(&foreign->len, __ATOMIC_ACQUIRE))
        return;
    g_mutex_lock(&foreign_lock);
    for (unsigned n = 0; n < foreign->len; n++) {
        const struct piece *p = &g_array_index(foreign, struct piece, n);
        fn(opaque, p->offset, p->length);
    }
    g_array_set_size(foreign, 0);
    g_mutex_unlock(&foreign_lock);
}
