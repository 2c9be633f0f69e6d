// SPDX-License-Identifier: GPL-2.0-or-later
// String instructions: page by page at host speed, with exact counters. Faults, devices and odd
// segments are left to the interpreter, which goes on from where this got to. Built without vector registers.
#include "core/cpu/translate/system.h"

#pragma GCC target("general-regs-only")

struct string {
    uint64_t si, di, count; // elements left
    unsigned size;
    uint64_t mask; // of addresses
    unsigned kind;
    bool backwards;
};

// Host address of ADDRESS and how many bytes of its page follow; NULL: not plain memory.
static uint8_t *string_host(struct context *c, const struct string *s, uint64_t address, bool write, uint64_t *room)
{
    const struct fast_entry *e = &c->tlb[fast_table(s->kind, write)][address >> PAGE_SHIFT & (FAST_SIZE - 1)];
    uint64_t page = address & PAGE_MASK, in_page = address & ~PAGE_MASK;
    *room = PAGE_SIZE - in_page;
    if (s->backwards && *room >= s->size)
        *room = in_page + s->size; // downwards, the element at ADDRESS included
    if (e->tag != page) {
        if (!tlb_fill_plain(c, address, s->kind, write))
            return NULL;
    }
    return (uint8_t *)(uintptr_t)(e->host + in_page);
}

static uint64_t give_up(struct context *c, const struct system_site *site)
{
    c->slow_host = site->rip;
    c->counters.interpreted_string++;
    return (uintptr_t)c->translator->thunks.interpret_host;
}

// No memcpy() here: the C library's uses vector registers.
static uint64_t element_load(const uint8_t *p, unsigned size)
{
    switch (size) {
    case 1:
        return *p;
    case 2:
        return *(const uint16_t *)p;
    case 4:
        return *(const uint32_t *)p;
    default:
        return *(const uint64_t *)p;
    }
}

static void element_store(uint8_t *p, uint64_t value, unsigned size)
{
    switch (size) {
    case 1:
        *p = (uint8_t)value;
        break;
    case 2:
        *(uint16_t *)p = (uint16_t)value;
        break;
    case 4:
        *(uint32_t *)p = (uint32_t)value;
        break;
    default:
        *(uint64_t *)p = value;
    }
}

static void move_backwards(uint8_t *to, const uint8_t *from, uint64_t count, unsigned size)
{
    for (; count; count--, to -= size, from -= size)
        element_store(to, element_load(from, size), size);
}

static void move(uint8_t *to, const uint8_t *from, uint64_t count, unsigned size, bool backwards)
{
    if (backwards) {
        move_backwards(to, from, count, size);
        return;
    }
    switch (size) {
    case 1:
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        break;
    case 2:
        __asm__ volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        break;
    case 4:
        __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
        break;
    default:
        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    }
}

static void fill(uint8_t *to, uint64_t value, uint64_t count, unsigned size)
{
    switch (size) {
    case 1:
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
        break;
    case 2:
        __asm__ volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(value) : "memory");
        break;
    case 4:
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory");
        break;
    default:
        __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    }
}

// One element that lies over a page border. False: not plain memory.
static bool element_copy(struct context *c, const struct string *s, uint64_t address, uint8_t *data, bool write)
{
    uint64_t room;
    uint8_t *first = string_host(c, s, address, write, &room);
    if (!first)
        return false;
    unsigned n = (unsigned)MIN(PAGE_SIZE - (address & ~PAGE_MASK), s->size);
    uint8_t *second = NULL;
    if (n < s->size && !(second = string_host(c, s, (address + n) & s->mask, write, &room)))
        return false;
    first = string_host(c, s, address, write, &room); // the second may have taken its slot: then it is found again
    if (!first)
        return false;
    for (unsigned k = 0; k < s->size; k++) {
        uint8_t *host = k < n ? first + k : second + (k - n);
        if (write)
            *host = data[k];
        else
            data[k] = *host;
    }
    return true;
}

static void advance(struct string *s, uint64_t elements, bool source, bool target)
{
    uint64_t distance = s->backwards ? -(elements * s->size) : elements * s->size;
    if (source)
        s->si = (s->si + distance) & s->mask;
    if (target)
        s->di = (s->di + distance) & s->mask;
    s->count -= elements;
}

// Elements that fit before the next page border of both operands.
static uint64_t piece(const struct string *s, uint64_t room1, uint64_t room2)
{
    return MIN(s->count, MIN(room1, room2) / s->size);
}

// Writes the rest of a watched page at once, from the string at SI or, without SOURCE, VALUE.
static bool string_write_tracked(struct context *c, struct string *s, bool source, uint64_t value)
{
    struct ram *ram = c->vcpu->set->host.ram;
    uint64_t room = PAGE_SIZE - (s->di & ~PAGE_MASK), room_source = room, ram_offset;
    const uint8_t *from = source ? string_host(c, s, s->si, false, &room_source) : NULL;
    uint8_t *to = s->backwards || (source && !from) ? NULL : tlb_tracked_host(c, s->di, s->kind, &ram_offset);
    uint64_t n = to ? piece(s, room, room_source) : 0;
    if (!n)
        return false;
    c->counters.tracked_writes++;
    bool loaded = foreign_begin(c);
    ram_write_begin(ram, ram_offset, n * s->size);
    if (source)
        move(to, from, n, s->size, false);
    else
        fill(to, value, n, s->size);
    ram_write_end(ram, ram_offset, n * s->size);
    foreign_end(c, loaded);
    advance(s, n, source, true);
    return true;
}

static bool string_move(struct context *c, struct string *s)
{
    uint64_t room1, room2;
    const uint8_t *from = string_host(c, s, s->si, false, &room1);
    uint8_t *to = from ? string_host(c, s, s->di, true, &room2) : NULL;
    if (!to)
        return from && string_write_tracked(c, s, true, 0);
    uint64_t n = piece(s, room1, room2);
    if (n) {
        from = string_host(c, s, s->si, false, &room1); // both may share a TLB slot
        if (!from)
            return false;
        move(to, from, n, s->size, s->backwards);
    } else {
        uint8_t data[8];
        if (!element_copy(c, s, s->si, data, false) || !element_copy(c, s, s->di, data, true))
            return false;
        n = 1;
    }
    advance(s, n, true, true);
    return true;
}

static bool string_store(struct context *c, struct string *s, uint64_t value)
{
    uint64_t room;
    uint8_t *to = string_host(c, s, s->di, true, &room);
    if (!to)
        return string_write_tracked(c, s, false, value);
    uint64_t n = piece(s, room, room);
    if (n && !s->backwards) {
        fill(to, value, n, s->size);
    } else {
        if (!element_copy(c, s, s->di, (uint8_t *)&value, true))
            return false;
        n = 1;
    }
    advance(s, n, false, true);
    return true;
}

static uint32_t compare_flags(uint64_t a, uint64_t b, unsigned size)
{
    uint64_t flags;
    unsigned shift = 64 - 8 * size; // the top bits give the same CF, ZF, SF, OF; AF and PF come from the low byte
    __asm__("cmp %2, %1\n pushfq\n pop %0" : "=r"(flags) : "r"(a << shift), "r"(b << shift) : "cc");
    uint64_t low;
    __asm__("cmpb %b2, %b1\n pushfq\n pop %0" : "=r"(low) : "q"(a), "q"(b) : "cc");
    return (uint32_t)((flags & ~(uint64_t)(FLAG_AF | FLAG_PF)) | (low & (FLAG_AF | FLAG_PF)));
}

// SCAS and CMPS: element by element within a page. *STOP: the condition ended the repeat.
static bool string_compare(struct context *c, struct string *s, const struct system_site *site, uint64_t value,
                           bool *stop)
{
    bool scan = (site->opcode & 0xfe) == 0xae;
    uint64_t room1 = PAGE_SIZE, room2;
    const uint8_t *a = NULL, *b = string_host(c, s, s->di, false, &room2);
    if (!b)
        return false;
    if (!scan) {
        a = string_host(c, s, s->si, false, &room1);
        b = a ? string_host(c, s, s->di, false, &room2) : NULL;
        a = b ? string_host(c, s, s->si, false, &room1) : NULL;
        if (!a)
            return false;
    }
    uint64_t n = piece(s, room1, room2), done = 0, x = value, y = 0;
    if (!n)
        return false; // over a page border
    uint64_t element = s->size == 8 ? ~0ull : (1ull << 8 * s->size) - 1;
    while (done < n) {
        y = element_load(b + done * s->size, s->size);
        if (!scan)
            x = element_load(a + done * s->size, s->size);
        done++;
        bool equal = ((x ^ y) & element) == 0;
        if (!site->rep || equal != (site->rep == 0xf3)) {
            *stop = true;
            break;
        }
    }
    uint32_t flags = compare_flags(x, y, s->size);
    c->saved_flags = (flags & 0xd7) << 8 | (flags >> 11 & 1);
    advance(s, done, !scan, true);
    return true;
}

static void string_write_back(struct context *c, const struct string *s, const struct system_site *site)
{
    c->save[SAVE_RSI] = s->si;
    c->save[SAVE_RDI] = s->di;
    if (site->rep)
        c->save[SAVE_RCX] = s->count;
}

uint64_t string_run(struct context *c, const struct system_site *site)
{
    bool moves = (site->opcode & 0xfe) == 0xa4 || (site->opcode & 0xfe) == 0xaa;
    if (c->direction && !moves)
        return give_up(c, site);
    c->counters.strings++;
    struct string s = {.size = site->size,
                       .backwards = c->direction != 0,
                       .mask = c->mode & MODE_64 ? ~0ull : 0xffffffffu,
                       .kind = c->mode & MODE_USER ? FAST_USER
                               : c->mode & MODE_AC ? FAST_KERNEL_AC
                                                   : FAST_KERNEL};
    s.si = c->save[SAVE_RSI] & s.mask;
    s.di = c->save[SAVE_RDI] & s.mask;
    s.count = site->rep ? c->save[SAVE_RCX] & s.mask : 1;
    bool stop = false, ok = true;
    uint64_t value = c->save[SAVE_RAX];
    uint32_t flags = c->saved_flags;
    while (s.count && !stop) {
        switch (site->opcode & 0xfe) {
        case 0xa4:
            ok = string_move(c, &s);
            break;
        case 0xaa:
            ok = string_store(c, &s, value);
            break;
        case 0xac: { // LODS; repeated, only the last element counts: rare
            uint8_t data[8] = {0};
            ok = !site->rep && element_copy(c, &s, s.si, data, false);
            if (ok) {
                uint64_t keep = s.size == 1 ? ~0xffull : s.size == 2 ? ~0xffffull : 0;
                c->save[SAVE_RAX] = (value & keep) | element_load(data, 8);
                advance(&s, 1, true, false);
            }
            break;
        }
        default:
            ok = string_compare(c, &s, site, value, &stop);
        }
        if (!ok) {
            // A fault part-way finds the flags as they were before the instruction. (SDM vol. 2, CMPS, SCAS)
            c->saved_flags = flags;
            string_write_back(c, &s, site);
            return give_up(c, site);
        }
        if (atomic_load_explicit(&c->kicked, memory_order_relaxed) && s.count && !stop) {
            string_write_back(c, &s, site);
            c->slow_host = site->rip;
            c->exit_reason = EXIT_KICK;
            return (uintptr_t)c->translator->thunks.exit_host;
        }
    }
    string_write_back(c, &s, site);
    if (atomic_load_explicit(&c->kicked, memory_order_relaxed)) {
        c->slow_host = site->next;
        c->exit_reason = EXIT_KICK;
        return (uintptr_t)c->translator->thunks.exit_host;
    }
    return site->after;
}
