// SPDX-License-Identifier: GPL-2.0-or-later
// A kernel that edits its own live page tables at random and compares every access with a plain walk of them: rights,
// sizes, A and D, global pages, PCIDs, aliases, tables that map themselves, reserved bits. Freestanding; paging.asm
// starts it. Command line: "t SEED ROUNDS" torments; "s N" switches N times between two warm address spaces.
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
extern u64 fault_address, fault_error;
extern uint32_t fault_seen;
extern char stub_pf[], stub_other[], stub_user[], user_begin[], user_read[], user_write[], user_fetch[], user_end[];
u64 probe_read(u64 address, u64 value), probe_write(u64 address, u64 value), probe_fetch(u64 address, u64 value);
u64 run_user(u64 address, u64 value, u64 code);

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
    put_hex(" cr2 ", fault_address);
    put("\n");
    end(2);
}

static u64 seed;

static unsigned chance(unsigned n) // 0 .. n - 1
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 11) % n);
}

static u64 hash = 0xcbf29ce484222325ull, checks, faults;

static void mix(u64 value)
{
    hash = (hash ^ value) * 0x100000001b3ull;
}

// ---- Control registers --------------------------------------------------------------------------------------------

static u64 cr0, cr4, root; // ROOT: index of the present space
static bool has_pcid, has_smap, has_smep, has_huge, has_invpcid;
static u64 physical_mask;
static bool dirty[SPACES]; // tables were edited since the space was flushed last

static void write_cr0(u64 value)
{
    cr0 = value;
    __asm__ volatile("mov %0, %%cr0" : : "r"(value) : "memory");
}

static void write_cr4(u64 value)
{
    cr4 = value;
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
    u64 value = (u64)table((unsigned)root);
    if (cr4 & 0x20000)
        value |= (root + 1) | (keep ? 1ull << 63 : 0);
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
        if (all || n == root)
            dirty[n] = false;
}

// Everything, global pages too.
static void flush_all(void)
{
    if (has_invpcid && chance(3) == 0) {
        invpcid(2, 0, 0);
    } else {
        write_cr4(cr4 ^ 0x80);
        write_cr4(cr4 ^ 0x80);
    }
    clean(true);
}

static void flush_space(void)
{
    if (cr4 & 0x80) {
        flush_all();
    } else if (has_invpcid && (cr4 & 0x20000) && chance(3) == 0) {
        invpcid(1, root + 1, 0);
        clean(false);
    } else {
        load_cr3(false);
        clean(!(cr4 & 0x20000));
    }
}

static void go_to(unsigned space)
{
    root = space;
    bool keep = (cr4 & 0x20000) && !dirty[space];
    load_cr3(keep && chance(2));
    if (!(cr4 & 0x20000))
        dirty[space] = false; // without global pages a load takes all
    if (dirty[space] || (cr4 & 0x80))
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
    u64 t = (u64)table((unsigned)root), e = 0, shift = 39;
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
    bool allowed = user ? users : !(users && (what == FETCH ? cr4 & 0x100000 : (cr4 & 0x200000) && !ac));
    if (what == WRITE && !writable && (user || (cr0 & 0x10000)))
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
    put_hex(" fault ", fault_seen);
    put_hex(" ", fault_error);
    put_hex(" checks ", checks);
    put_hex(" cr4 ", cr4);
    put_hex(" cr0 ", cr0);
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
    fault_seen = 0;
    return user ? run_user(address, value, USER_CODE + (u64)(code[what] - user_begin)) : probes[what](address, value);
}

// One access against the walk. The space must be clean. True: it edited a table through a mapping of it, so that the
// space is not clean any more.
static bool check(u64 page, unsigned what, bool user)
{
    bool ac = (cr4 & 0x200000) && !user && chance(2);
    u64 address = page | (what == FETCH ? RET_OFFSET : chance(511) * 8ull);
    struct walk w = plain_walk(address, what, user, ac);
    bool data = in_data(w.physical), edits = false;
    u64 value = (u64)chance(1u << 30) << 32 | (u64)chance(1u << 30) << 1;
    if (w.ok && what == FETCH && !data)
        return false;
    if (w.ok && what == WRITE && !data) {
        if (!in_pool(w.physical) || !(w.physical & 4095)) // the kernel's own entry stays
            return false;
        value = random_entry((u64 *)w.physical); // an edit through a mapping of the table
        edits = true;
    }
    if (ac)
        __asm__ volatile("stac" : : : "memory");
    u64 got = access(what, user, address, value);
    if (ac)
        __asm__ volatile("clac" : : : "memory");
    checks++;
    mix(address << 8 | what << 2 | user << 1 | w.ok);
    if (!w.ok) {
        faults++;
        mix(fault_error);
        if (!fault_seen || fault_error != w.error || fault_address != address)
            wrong(what == READ    ? "fault of a read"
                  : what == WRITE ? "fault of a write"
                                  : "fault of a fetch",
                  address, &w, got);
        return false;
    }
    if (fault_seen)
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
    if (has_invpcid && (cr4 & 0x20000) && chance(4) == 0)
        invpcid(0, root + 1, page);
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
        write_cr0(cr0 ^ 0x10000);
        break;
    case 1:
        write_cr4(cr4 ^ 0x80);
        break;
    case 2:
        if (has_smap)
            write_cr4(cr4 ^ 0x200000);
        break;
    case 3:
        if (has_smep)
            write_cr4(cr4 ^ 0x100000);
        break;
    default:
        if (!has_pcid)
            break;
        if (!(cr4 & 0x20000)) { // CR3 bits 11:0 must be 0 when it is set
            load_cr3(false);
            write_cr4(cr4 | 0x20000);
            load_cr3(false);
        } else {
            u64 value = (u64)table((unsigned)root);
            __asm__ volatile("mov %0, %%cr3" : : "r"(value) : "memory");
            write_cr4(cr4 & ~0x20000ull);
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
            if (dirty[root])
                flush_space();
            unsigned kind = chance(8);
            check(random_page(), kind < 5 ? READ : kind < 7 ? WRITE : FETCH, chance(2));
        }
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
        root = n & 1;
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
    struct __attribute__((packed)) {
        uint16_t limit;
        u64 base;
    } descriptor = {sizeof idt - 1, (u64)idt};
    __asm__ volatile("lidt %0" : : "m"(descriptor));
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
    seed = what == 't' ? number(&line) * 0x9e3779b97f4a7c15ull + 1 : 1;
    for (unsigned n = 0; what == 't' && n < TABLES * 7; n++)
        table(n / 7)[indexes[n % 7]] = random_entry(table(n / 7));
    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    load_cr3(false);
    u64 count = number(&line);
    if (what == 't')
        torture(count);
    else
        switches(count);
    put_hex("OK ", hash);
    put_hex(" checks ", checks);
    put_hex(" faults ", faults);
    put("\n");
    end(0x11);
}
