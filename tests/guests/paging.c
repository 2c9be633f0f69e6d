// SPDX-License-Identifier: GPL-2.0-or-later
// A kernel that edits its own live page tables at random and compares every access with a plain walk of them: rights,
// sizes, A and D, global pages, PCIDs, aliases, tables that map themselves, reserved bits. Freestanding; paging.asm
// starts it. Command line: "t SEED ROUNDS" torments; "s N" switches N times between two warm address spaces; "p CPUS
// SEED ROUNDS" edits on one processor while the others use the tables, and tells them by IPI what to invalidate.
// It prints OK and a hash of all that it saw, and ends through isa-debug-exit.
#include <stdbool.h>
#include <stdint.h>

typedef uint64_t u64;

#define P    1ull
#define W    2ull
#define U    4ull
#define A    0x20ull
#define D    0x40ull
#define PS   0x80ull
#define G    0x100ull
#define NX   (1ull << 63)
#define ADDR 0x000ffffffffff000ull

#define POOL       0x400000ull // table frames
#define TABLES     24
#define SPACES     4
#define DATA       0x800000ull // every 8 bytes hold their own address; RET at 0xff8 of each page
#define DATA_END   0x1000000ull
#define USER_CODE  0x600000ull
#define RET_OFFSET 0xff8ull

extern u64 kernel_pdpt[512];
extern char ap_begin[], ap_end[], stub_ipi[], stub_pf[], stub_other[], stub_user[], user_begin[], user_read[],
    user_write[], user_fetch[], user_end[];
u64 probe_read(u64 address, u64 value), probe_write(u64 address, u64 value), probe_fetch(u64 address, u64 value);
u64 run_user(u64 address, u64 value, u64 code);

#define CPUS 4
// One per processor, at its GS base. The first members are known to paging.asm.
static struct cpu {
    struct cpu *self;
    u64 fault_address, fault_error, probe_rsp, user_rsp;
    uint32_t fault_seen, probing;
    u64 user_stack;
    u64 index, barriers, shots;
    u64 seed, hash, checks, faults;
    u64 cr0, cr4, root; // ROOT: index of the present space
} cpus[CPUS];
static unsigned cpu_count = 1;

static struct cpu *me(void)
{
    struct cpu *c;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(c));
    return c;
}

// ---- Ports, output, chance ----------------------------------------------------------------------------------------

static void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void put(const char *text)
{
    for (; *text; text++) {
        while (!(inb(0x3fd) & 0x20)) {
        }
        outb(0x3f8, (uint8_t)*text);
    }
}

static void put_hex(const char *name, u64 value)
{
    char text[18];
    for (int n = 0; n < 16; n++)
        text[n] = "0123456789abcdef"[value >> (60 - 4 * n) & 15];
    text[16] = 0;
    put(name);
    put(text);
}

static void __attribute__((noreturn)) end(uint8_t status)
{
    outb(0x501, status);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void __attribute__((noreturn)) trap(const u64 *frame);
void trap(const u64 *frame)
{
    put_hex("unexpected exception: ", frame[0]);
    put_hex(" ", frame[1]);
    put_hex(" ", frame[2]);
    put_hex(" ", frame[3]);
    put_hex(" cr2 ", me()->fault_address);
    put("\n");
    end(2);
}

static unsigned chance(unsigned n) // 0 .. n - 1
{
    me()->seed ^= me()->seed << 13;
    me()->seed ^= me()->seed >> 7;
    me()->seed ^= me()->seed << 17;
    return (unsigned)((me()->seed >> 11) % n);
}

static void mix(u64 value)
{
    me()->hash = (me()->hash ^ value) * 0x100000001b3ull;
}

// ---- Control registers --------------------------------------------------------------------------------------------

static bool has_pcid, has_smap, has_smep, has_huge, has_invpcid;
static u64 physical_mask;
static bool dirty[SPACES]; // tables were edited since the space was flushed last

static void write_cr0(u64 value)
{
    me()->cr0 = value;
    __asm__ volatile("mov %0, %%cr0" : : "r"(value) : "memory");
}

static void write_cr4(u64 value)
{
    me()->cr4 = value;
    __asm__ volatile("mov %0, %%cr4" : : "r"(value) : "memory");
}

static void cpuid(uint32_t leaf, uint32_t out[4])
{
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(0));
}

static u64 *table(unsigned n)
{
    return (u64 *)(POOL + n * 4096ull);
}

static void load_cr3(bool keep)
{
    u64 value = (u64)table((unsigned)me()->root);
    if (me()->cr4 & 0x20000)
        value |= (me()->root + 1) | (keep ? 1ull << 63 : 0);
    __asm__ volatile("mov %0, %%cr3" : : "r"(value) : "memory");
}

static void invlpg(u64 address)
{
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

static void invpcid(u64 type, u64 pcid, u64 address)
{
    u64 descriptor[2] = {pcid, address};
    __asm__ volatile("invpcid %0, %1" : : "m"(descriptor), "r"(type) : "memory");
}

static void clean(bool all)
{
    for (unsigned n = 0; n < SPACES; n++)
        if (all || n == me()->root)
            dirty[n] = false;
}

// Everything, global pages too.
static void flush_all(void)
{
    if (has_invpcid && chance(3) == 0) {
        invpcid(2, 0, 0);
    } else {
        write_cr4(me()->cr4 ^ 0x80);
        write_cr4(me()->cr4 ^ 0x80);
    }
    clean(true);
}

static void flush_space(void)
{
    if (me()->cr4 & 0x80) {
        flush_all();
    } else if (has_invpcid && (me()->cr4 & 0x20000) && chance(3) == 0) {
        invpcid(1, me()->root + 1, 0);
        clean(false);
    } else {
        load_cr3(false);
        clean(!(me()->cr4 & 0x20000));
    }
}

static void go_to(unsigned space)
{
    me()->root = space;
    bool keep = (me()->cr4 & 0x20000) && !dirty[space];
    load_cr3(keep && chance(2));
    if (!(me()->cr4 & 0x20000))
        dirty[space] = false; // without global pages a load takes all
    if (dirty[space] || (me()->cr4 & 0x80))
        flush_all();
    // The other spaces' entries went too where there are no PCIDs.
}

// ---- The plain walk -----------------------------------------------------------------------------------------------

struct walk {
    bool ok;
    u64 physical, error;
    u64 *entries[4];
    unsigned levels;
};

enum { READ, WRITE, FETCH };

static struct walk plain_walk(u64 address, unsigned what, bool user, bool ac)
{
    struct walk w = {.levels = 0};
    u64 t = (u64)table((unsigned)me()->root), e = 0, shift = 39;
    bool writable = true, users = true, runs = true, reserved = false, present = true;
    for (;; shift -= 9) {
        u64 *at = (u64 *)t + (address >> shift & 511);
        w.entries[w.levels++] = at;
        e = *at;
        present = e & P;
        if (!present)
            break;
        bool leaf = shift == 12 || (e & PS && (shift == 21 || (shift == 30 && has_huge)));
        reserved = (e & ADDR & ~physical_mask) || (shift == 39 && (e & PS)) || (shift == 30 && (e & PS) && !has_huge) ||
                   (leaf && shift > 12 && (e & ADDR & ((1ull << shift) - 1) & ~0x1000ull));
        if (reserved)
            break;
        writable &= (e & W) != 0;
        users &= (e & U) != 0;
        runs &= !(e & NX);
        if (leaf)
            break;
        t = e & ADDR;
    }
    u64 code = (what == WRITE ? 2 : 0) | (user ? 4 : 0) | (what == FETCH ? 16 : 0);
    if (!present || reserved) {
        w.error = code | (reserved ? 9 : 0);
        return w;
    }
    bool allowed = user ? users : !(users && (what == FETCH ? me()->cr4 & 0x100000 : (me()->cr4 & 0x200000) && !ac));
    if (what == WRITE && !writable && (user || (me()->cr0 & 0x10000)))
        allowed = false;
    if (what == FETCH && !runs)
        allowed = false;
    w.ok = allowed;
    w.error = code | 1;
    u64 mask = (1ull << shift) - 1;
    w.physical = (e & ADDR & ~mask) | (address & mask);
    return w;
}

// ---- Checks -------------------------------------------------------------------------------------------------------

static void __attribute__((noreturn)) wrong(const char *what, u64 address, const struct walk *w, u64 got)
{
    put("WRONG ");
    put(what);
    put_hex(" at ", address);
    put_hex(" physical ", w->physical);
    put_hex(" error ", w->error);
    put_hex(" got ", got);
    put_hex(" fault ", me()->fault_seen);
    put_hex(" ", me()->fault_error);
    put_hex(" checks ", me()->checks);
    put_hex(" cr4 ", me()->cr4);
    put_hex(" cr0 ", me()->cr0);
    for (unsigned n = 0; n < w->levels; n++)
        put_hex(" entry ", *w->entries[n]);
    u64 flags;
    __asm__ volatile("pushfq; pop %0" : "=r"(flags));
    put_hex(" flags ", flags);
    put("\n");
    end(3);
}

static bool in_data(u64 physical)
{
    return physical >= DATA && physical < DATA_END;
}

static bool in_pool(u64 physical)
{
    return physical >= POOL && physical < POOL + TABLES * 4096;
}

static u64 random_entry(const volatile u64 *at);

static u64 access(unsigned what, bool user, u64 address, u64 value)
{
    static u64 (*const probes[])(u64, u64) = {probe_read, probe_write, probe_fetch};
    char *const code[] = {user_read, user_write, user_fetch};
    me()->fault_seen = 0;
    return user ? run_user(address, value, USER_CODE + (u64)(code[what] - user_begin)) : probes[what](address, value);
}

// One access against the walk. The space must be clean. True: it edited a table through a mapping of it, so that the
// space is not clean any more.
static bool check(u64 page, unsigned what, bool user)
{
    bool ac = (me()->cr4 & 0x200000) && !user && chance(2);
    u64 slot = cpu_count == 1 ? chance(511) : chance(127) * CPUS + me()->index; // several processors: to each its own
    u64 address = page | (what == FETCH ? RET_OFFSET : slot * 8);
    struct walk w = plain_walk(address, what, user, ac);
    bool data = in_data(w.physical), edits = false;
    u64 value = (u64)chance(1u << 30) << 32 | (u64)chance(1u << 30) << 1;
    if (w.ok && what == FETCH && !data)
        return false;
    if (w.ok && what == WRITE && !data) {
        if (!in_pool(w.physical) || !(w.physical & 4095) || cpu_count > 1) // the kernel's own entry stays
            return false;
        value = random_entry((u64 *)w.physical); // an edit through a mapping of the table
        edits = true;
    }
    if (ac)
        __asm__ volatile("stac" : : : "memory");
    u64 got = access(what, user, address, value);
    if (ac)
        __asm__ volatile("clac" : : : "memory");
    me()->checks++;
    mix(address << 8 | what << 2 | user << 1 | w.ok);
    if (!w.ok) {
        me()->faults++;
        mix(me()->fault_error);
        if (!me()->fault_seen || me()->fault_error != w.error || me()->fault_address != address)
            wrong(what == READ    ? "fault of a read"
                  : what == WRITE ? "fault of a write"
                                  : "fault of a fetch",
                  address, &w, got);
        return false;
    }
    if (me()->fault_seen)
        wrong("fault where none should be", address, &w, got);
    if (what == READ && (data || in_pool(w.physical))) {
        u64 is = *(volatile u64 *)w.physical;
        if ((got ^ is) & ~(data ? 0 : A | D))
            wrong("value read", address, &w, got);
        if (data)
            mix(got);
    }
    if (what == WRITE && !edits && *(volatile u64 *)w.physical != value)
        wrong("value written", address, &w, *(volatile u64 *)w.physical);
    if (edits) {
        for (unsigned n = 0; n < SPACES; n++)
            dirty[n] = true;
        return true;
    }
    for (unsigned n = 0; n < w.levels; n++)
        if (!(*w.entries[n] & A))
            wrong("A is not set", address, &w, n);
    if (what == WRITE && !(*w.entries[w.levels - 1] & D))
        wrong("D is not set", address, &w, got);
    return false;
}

// ---- Edits --------------------------------------------------------------------------------------------------------

static const uint16_t indexes[] = {1, 2, 4, 5, 6, 7, 511};

static u64 random_page(void)
{
    u64 page = (1 + chance(2)) * (1ull << 39) | (1 + chance(2)) * (1ull << 30) | (4 + chance(4)) * (1ull << 21);
    return page | (u64)(chance(4) == 3 ? 511 : 1 + chance(3)) << 12;
}

// What the table of entry AT is mostly for: 3 roots, 2, 1, 0 leaves. Each may be met at any level all the same.
static unsigned role(const volatile u64 *at)
{
    unsigned n = (unsigned)(((u64)at - POOL) >> 12);
    return n < SPACES ? 3 : n < 9 ? 2 : n < 15 ? 1 : 0;
}

static u64 random_entry(const volatile u64 *at)
{
    static const uint8_t first[] = {15, 9, SPACES}, count[] = {TABLES - 15, 6, 9 - SPACES};
    if (chance(12) == 0)
        return (u64)chance(1u << 20) << 1; // not present
    u64 e = P | (chance(8) ? W : 0) | (chance(8) ? U : 0) | (chance(2) ? A : 0) | (chance(2) ? D : 0) |
            (chance(12) ? 0 : NX) | (chance(8) ? 0 : G) | (chance(8) ? 0 : 0x18);
    unsigned is = role(at);
    if (chance(150) == 0)
        return e | 1ull << 51 | DATA; // reserved
    if (chance(12) == 0) {            // anything: tables of other levels, themselves, pages where tables are meant
        e |= chance(2) ? 0 : PS;
        return e | (chance(2) ? (u64)table(chance(TABLES)) : DATA + chance(2048) * 4096ull);
    }
    if (is == 0)
        return e | (chance(8) ? DATA + chance(2048) * 4096ull : (u64)table(chance(TABLES)));
    if (is == 1 && chance(3) == 0)
        return e | PS | (DATA + chance(4) * 0x200000ull);
    if (is == 2 && chance(8) == 0)
        return e | PS; // a gibibyte from 0
    return e | (u64)table(first[is - 1] + chance(count[is - 1]));
}

static void edit(void)
{
    volatile u64 *at = table(chance(TABLES)) + indexes[chance(7)];
    switch (chance(5)) {
    case 0: // flip rights, A, D
        *at ^= (u64)((chance(2) ? W : 0) | (chance(2) ? U : 0) | (chance(3) ? 0 : A) | (chance(3) ? 0 : D)) |
               (chance(4) ? 0 : NX);
        break;
    case 1:
        __atomic_fetch_and(at, ~(chance(2) ? A : D), __ATOMIC_SEQ_CST);
        break;
    case 2:
        __atomic_exchange_n(at, random_entry(at), __ATOMIC_SEQ_CST);
        break;
    default:
        *at = random_entry(at);
    }
    for (unsigned n = 0; n < SPACES; n++)
        dirty[n] = true;
}

// An edit of the entry that a walk ends at, made known by INVLPG alone, and looked at through that page only.
static void edit_exactly(void)
{
    u64 page = random_page();
    struct walk w = plain_walk(page, READ, false, true);
    u64 *at = w.entries[w.levels - 1];
    // Other ways through the same entry would need their own INVLPG: only pages are looked at that go through it once.
    for (unsigned n = 0; n + 1 < w.levels; n++)
        if (w.entries[n] == at)
            return;
    if (!in_pool((u64)at))
        return;
    *at = random_entry(at);
    invlpg(page | chance(4096));
    if (has_invpcid && (me()->cr4 & 0x20000) && chance(4) == 0)
        invpcid(0, me()->root + 1, page);
    for (unsigned n = 0; n < SPACES; n++)
        dirty[n] = true;
    for (unsigned n = 0; n < 3; n++) {
        w = plain_walk(page, READ, false, true);
        bool through = false;
        for (unsigned k = 0; k < w.levels; k++)
            through |= w.entries[k] == at;
        // Below a new table everything was unknown to the TLB, unless the walk meets an edited entry twice.
        if (through && w.entries[w.levels - 1] == at && check(page, chance(3) == 0 ? WRITE : READ, chance(2)))
            return;
    }
}

static void toggle(void)
{
    switch (chance(5)) {
    case 0:
        write_cr0(me()->cr0 ^ 0x10000);
        break;
    case 1:
        write_cr4(me()->cr4 ^ 0x80);
        break;
    case 2:
        if (has_smap)
            write_cr4(me()->cr4 ^ 0x200000);
        break;
    case 3:
        if (has_smep)
            write_cr4(me()->cr4 ^ 0x100000);
        break;
    default:
        if (!has_pcid)
            break;
        if (!(me()->cr4 & 0x20000)) { // CR3 bits 11:0 must be 0 when it is set
            load_cr3(false);
            write_cr4(me()->cr4 | 0x20000);
            load_cr3(false);
        } else {
            u64 value = (u64)table((unsigned)me()->root);
            __asm__ volatile("mov %0, %%cr3" : : "r"(value) : "memory");
            write_cr4(me()->cr4 & ~0x20000ull);
        }
    }
    flush_all();
}

static void torture(u64 rounds)
{
    for (u64 n = 0; n < rounds; n++) {
        unsigned what = chance(16);
        if (what < 6) {
            for (unsigned k = 1 + chance(4); k; k--)
                edit();
        } else if (what < 9) {
            edit_exactly();
        } else if (what < 11) {
            go_to(chance(SPACES));
        } else if (what == 11 && chance(8) == 0) {
            toggle();
        }
        for (unsigned k = 0; k < 6; k++) {
            if (dirty[me()->root])
                flush_space();
            unsigned kind = chance(8);
            check(random_page(), kind < 5 ? READ : kind < 7 ? WRITE : FETCH, chance(2));
        }
    }
}

// ---- Several processors --------------------------------------------------------------------------------------------

static unsigned char tss[CPUS][104] __attribute__((aligned(16)));
static char trap_stacks[CPUS][8192] __attribute__((aligned(16)));
char ap_stacks[CPUS][8192] __attribute__((aligned(16)));
static volatile u64 arrived, acknowledged, round_ended, shot_address, rounds_wanted, shots;
static u64 *volatile exact_entry;
static volatile u64 exact_page;

static void write_msr(uint32_t msr, u64 value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static u64 read_msr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return low | (u64)high << 32;
}

static void pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

static void barrier(void)
{
    u64 target = ++me()->barriers * cpu_count;
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    while (arrived < target)
        pause();
}

// The handler of the IPI.
void shot(void);
void shot(void)
{
    u64 address = shot_address;
    if (address)
        invlpg(address);
    else
        flush_all();
    write_msr(0x80b, 0); // EOI
    me()->shots++;
    __atomic_add_fetch(&acknowledged, 1, __ATOMIC_SEQ_CST);
}

// Every processor invalidates ADDRESS, or (0) everything.
static void shoot_down(u64 address)
{
    acknowledged = 0;
    shot_address = address;
    shots++;
    write_msr(0x830, 0xc0040); // to all but this one
    if (address)
        invlpg(address);
    else
        flush_all();
    while (acknowledged < cpu_count - 1)
        pause();
}

static void edit_and_shoot(void)
{
    exact_page = 0;
    if (chance(3)) {
        for (unsigned k = 1 + chance(4); k; k--)
            edit();
        shoot_down(0);
        return;
    }
    u64 page = random_page();
    struct walk w = plain_walk(page, READ, false, true);
    u64 *at = w.entries[w.levels - 1], value = in_pool((u64)at) ? random_entry(at) : 0;
    if (!value)
        return;
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);
    shoot_down(page | chance(4096));
    if ((*at ^ value) & ~(A | D)) // somebody's Accessed bit came with the old entry
        wrong("an entry that was edited", (u64)at, &w, value);
    exact_entry = at;
    exact_page = page;
}

// What everybody sees of the page whose last entry was edited, as in edit_exactly().
static void check_exact_page(void)
{
    u64 page = exact_page;
    for (unsigned n = 0; n < 3; n++) {
        struct walk w = plain_walk(page, READ, false, true);
        unsigned met = 0;
        for (unsigned k = 0; k < w.levels; k++)
            met += w.entries[k] == exact_entry;
        if (met == 1 && w.entries[w.levels - 1] == exact_entry)
            check(page, chance(3) == 0 ? WRITE : READ, chance(2));
    }
}

static void check_all_pages(void)
{
    if (chance(4) == 0) {
        me()->root = chance(SPACES);
        load_cr3(false);
        flush_all();
    }
    for (unsigned k = 0; k < 6; k++) {
        unsigned kind = chance(8);
        check(random_page(), kind < 5 ? READ : kind < 7 ? WRITE : FETCH, chance(2));
    }
}

// Reads while tables change: what they give is known to nobody, but what they leave behind must go.
static void use_tables(u64 round)
{
    while (round_ended < round) {
        __asm__ volatile("sti" : : : "memory"); // the way back from ring 3 leaves interrupts off
        access(READ, chance(4) == 0, random_page() | (chance(127) * CPUS + me()->index) * 8, 0);
    }
    __asm__ volatile("cli" : : : "memory");
}

static void rounds(void)
{
    for (u64 n = 1; n <= rounds_wanted; n++) {
        barrier();
        if (me()->index) {
            use_tables(n);
        } else {
            edit_and_shoot();
            round_ended = n;
        }
        barrier();
        if (me()->index && shots && (me()->shots != shots || acknowledged != cpu_count - 1))
            wrong("number of IPIs", shots, &(struct walk){.physical = acknowledged}, me()->shots);
        if (exact_page)
            check_exact_page();
        else
            check_all_pages();
        barrier();
    }
}

static void cpu_setup(u64 index)
{
    extern u64 gdt[];
    struct cpu *c = &cpus[index];
    u64 base = (u64)tss[index], top = (u64)trap_stacks[index + 1];
    *c =
        (struct cpu){.self = c, .index = index, .user_stack = 0x700000 + 0x1000 * index, .hash = 0xcbf29ce484222325ull};
    __asm__ volatile("mov %0, %%gs" : : "r"(0));
    write_msr(0xc0000101, (u64)c);
    for (unsigned n = 0; n < 8; n++)
        tss[index][4 + n] = (unsigned char)(top >> 8 * n);
    gdt[6 + 2 * index] = 0x0000890000000067 | base << 16;
    __asm__ volatile("ltr %w0" : : "r"(0x30 + 16 * (uint32_t)index));
    __asm__ volatile("mov %%cr0, %0" : "=r"(c->cr0));
    __asm__ volatile("mov %%cr4, %0" : "=r"(c->cr4));
}

static void apic_enable(void)
{
    write_msr(0x1b, read_msr(0x1b) | 0xc00); // x2APIC
    write_msr(0x80f, 0x1ff);
}

static void load_idt(void);

void ap_main(u64 index);
void ap_main(u64 index)
{
    cpu_setup(index);
    load_idt();
    apic_enable();
    me()->seed = cpus[0].seed + index * 0x9e3779b97f4a7c15ull;
    load_cr3(false);
    rounds();
    barrier();
}

static void together(unsigned count, u64 wanted)
{
    for (unsigned n = 0; ap_begin + n < ap_end; n++)
        ((volatile char *)0x8000)[n] = ap_begin[n];
    cpu_count = count;
    rounds_wanted = wanted;
    apic_enable();
    write_msr(0x830, 0xc4500); // INIT
    for (unsigned n = 0; n < 1000; n++)
        inb(0x80);
    write_msr(0x830, 0xc4608); // start at 0x8000
    rounds();
    barrier();
    for (unsigned n = 1; n < count; n++) {
        cpus[0].checks += cpus[n].checks;
        cpus[0].faults += cpus[n].faults;
    }
}

// ---- Two warm spaces ----------------------------------------------------------------------------------------------

static void switches(u64 count)
{
    u64 sum = 0, next_table = SPACES;
    for (unsigned s = 0; s < 2; s++) {
        u64 *t = table(s);
        for (unsigned level = 0; level < 3; level++) {
            u64 *below = table((unsigned)next_table++);
            t[1] = (u64)below | P | W | U;
            t = below;
        }
        for (unsigned n = 0; n < 24; n++)
            t[n] = (DATA + (s * 512 + n) * 4096) | P | W | U;
    }
    for (u64 n = 0; n < count; n++) {
        me()->root = n & 1;
        load_cr3(false);
        for (unsigned k = 0; k < 24; k++) {
            volatile u64 *p = (volatile u64 *)((1ull << 39) + (1ull << 30) + (1ull << 21) + k * 4096ull);
            if (k % 3 == 0)
                p[1] = n;
            u64 want = DATA + ((n & 1) * 512 + k) * 4096;
            if (p[0] != want)
                wrong("value in a warm space", (u64)p, &(struct walk){.physical = want}, p[0]);
            sum += p[1];
        }
    }
    mix(sum);
}

// ---- Start --------------------------------------------------------------------------------------------------------

static u64 idt[512] __attribute__((aligned(16)));

static void set_gate(unsigned vector, const char *stub)
{
    u64 at = (u64)stub;
    idt[vector * 2] =
        (at & 0xffff) | 8ull << 16 | (vector == 0x81 ? 0xee00ull : 0x8e00ull) << 32 | (at >> 16 & 0xffff) << 48;
    idt[vector * 2 + 1] = at >> 32;
}

static struct __attribute__((packed)) {
    uint16_t limit;
    u64 base;
} idt_register = {sizeof idt - 1, (u64)idt};

static void load_idt(void)
{
    __asm__ volatile("lidt %0" : : "m"(idt_register));
}

static u64 number(const char **text)
{
    u64 value = 0;
    while (**text == ' ')
        (*text)++;
    for (; **text >= '0' && **text <= '9'; (*text)++)
        value = value * 10 + (u64)(**text - '0');
    return value;
}

void main(const char *line);
void main(const char *line)
{
    uint32_t leaf[4];
    for (unsigned n = 0; n < 256; n++)
        set_gate(n, stub_other);
    set_gate(14, stub_pf);
    set_gate(0x81, stub_user);
    set_gate(0x40, stub_ipi);
    load_idt();
    cpu_setup(0);
    cpuid(1, leaf);
    has_pcid = leaf[2] >> 17 & 1;
    cpuid(7, leaf);
    has_smep = leaf[1] >> 7 & 1;
    has_invpcid = leaf[1] >> 10 & 1;
    has_smap = leaf[1] >> 20 & 1;
    cpuid(0x80000001, leaf);
    has_huge = leaf[3] >> 26 & 1;
    cpuid(0x80000008, leaf);
    physical_mask = ((1ull << (leaf[0] & 255)) - 1) & ADDR;
    for (u64 at = DATA; at < DATA_END; at += 8)
        *(u64 *)at = (at & 4095) == RET_OFFSET ? 0xc390 : at; // nop, ret: not present as an entry
    for (unsigned n = 0; user_begin + n < user_end; n++)
        ((char *)USER_CODE)[n] = user_begin[n];
    for (u64 *at = table(0); at < table(TABLES); at++)
        *at = 0;
    for (unsigned n = 0; n < SPACES; n++)
        table(n)[0] = (u64)kernel_pdpt | P | W | U;
    char what = *line++;
    u64 count = what == 'p' ? number(&line) : 1;
    if (count < 1 || count > CPUS)
        end(4);
    me()->seed = what != 's' ? number(&line) * 0x9e3779b97f4a7c15ull + 1 : 1;
    for (unsigned n = 0; what != 's' && n < TABLES * 7; n++)
        table(n / 7)[indexes[n % 7]] = random_entry(table(n / 7));
    load_cr3(false);
    u64 times = number(&line);
    if (what == 't')
        torture(times);
    else if (what == 'p')
        together((unsigned)count, times);
    else
        switches(times);
    put_hex("OK ", me()->hash);
    put_hex(" checks ", me()->checks);
    put_hex(" faults ", me()->faults);
    put("\n");
    end(0x11);
}
