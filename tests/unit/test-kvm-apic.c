// SPDX-License-Identifier: GPL-2.0-or-later
// The KVM engine's interrupts: the kernel keeps the local APICs while a guest runs, the monitor's own hold their state
// while it stands still. Timer, messages, the 8259's line, ends of level-triggered interrupts, other processors. And
// the guest's doorbells, which the kernel watches.
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cpu/lapic.h"
#include "tests/unit/guest.h"

#define CODE    0x10000ull
#define HANDLER 0x11000ull
#define IDT     0xa000ull
#define COUNT   0x20000ull // interrupts that the handler has seen
#define WANTED  0x20008ull // so many end the program
#define APIC    0xfee00000ull

#define PROGRAM(name, code, text)                                                                                      \
    asm(".pushsection .rodata\n.intel_syntax noprefix\n.code" #code "\n.globl program_" #name "\nprogram_" #name       \
        ":\n" text "\n.globl program_" #name "_end\nprogram_" #name "_end:\n.att_syntax\n.code64\n.popsection\n");     \
    extern const uint8_t program_##name[], program_##name##_end[]
#define PLACE(g, gpa, name) guest_load(g, gpa, program_##name, (size_t)(program_##name##_end - program_##name))

PROGRAM(wait, 64,
        "1: sti; hlt; cli; mov rax, [0x20000]; cmp rax, [0x20008]; jb 1b; out 0xf4, al;"
        "2: mov rax, [0x20000]; cmp rax, [0x20008]; jae 2b; jmp 1b");
PROGRAM(handler, 64, "inc qword ptr [0x20000]; mov esi, 0xfee000b0; mov dword ptr [rsi], 0; iretq");
PROGRAM(stop, 64, "1: out 0xf4, al; 2: cmp byte ptr [0x20008], 0; je 2b; mov byte ptr [0x20008], 0; jmp 1b");
// INIT and two SIPIs to all others; each of them counts and halts.
PROGRAM(starter, 64,
        "mov esi, 0xfee00300; mov dword ptr [rsi], 0xc4500; mov ecx, 1000; 1: dec ecx; jnz 1b;"
        "mov dword ptr [rsi], 0xc4608; 2: cmp dword ptr [0x9000], 3; jb 2b; out 0xf4, al; 3: jmp 3b");
PROGRAM(started, 16, "xor ax, ax; mov ds, ax; lock inc dword ptr [0x9000]; 1: hlt; jmp 1b");

// Counts what ends (cpu_host.eoi) and gives vector 0x70 as an 8259 that has one interrupt.
static unsigned ends[256];
static struct lapic *pic_line;

static void on_end(void *opaque, uint8_t vector)
{
    ends[vector]++;
}

static int acknowledge(void *opaque)
{
    lapic_set_lint(pic_line, 0, false);
    return 0x70;
}

// 64-bit mode; every vector's gate leads to the same handler; the APIC page is mapped and the APIC is on.
static struct guest *start(unsigned cpus)
{
    struct guest *g = guest_new("kvm", cpus);
    struct vcpu *v = g->set->vcpu[0];
    g->set->host.eoi = on_end;
    g->set->host.pic_acknowledge = acknowledge;
    pic_line = v->lapic;
    memset(ends, 0, sizeof ends);
    guest_start_long(g, CODE);
    PLACE(g, CODE, wait);
    PLACE(g, HANDLER, handler);
    for (unsigned n = 0; n < 256; n++) {
        uint64_t gate[2] = {(HANDLER & 0xffff) | 0x08 << 16 | 0x8eull << 40 | (HANDLER >> 16) << 48, 0};
        guest_load(g, IDT + n * 16, gate, 16);
    }
    v->idtr = (struct table_register){.base = IDT, .limit = 256 * 16 - 1};
    uint64_t *pdpt = guest_memory(g, 0x2000), *pd = guest_memory(g, 0x4000);
    pdpt[3] = 0x4007;
    pd[APIC >> 21 & 511] = (APIC >> 21 << 21) | 0x87;
    lapic_write(v->lapic, 0xf0, 0x1ff);
    return g;
}

static uint64_t *word(struct guest *g, uint64_t gpa)
{
    return guest_memory(g, gpa);
}

static bool run_until(struct guest *g, uint64_t count)
{
    *word(g, WANTED) = count;
    return guest_run(g, 20);
}

// A periodic timer goes on over stops; the processor waits in HLT.
START_TEST(timer)
{
    struct guest *g = start(1);
    struct lapic *l = g->set->vcpu[0]->lapic;
    lapic_write(l, 0x3e0, 0xb); // divide by 1: nanoseconds
    lapic_write(l, 0x320, 0x20000 | 0x71);
    lapic_write(l, 0x380, 10000000);
    for (unsigned n = 1; n <= 6; n++) {
        ck_assert_msg(run_until(g, n * 3), "%lu interrupts", (unsigned long)*word(g, COUNT));
        ck_assert_uint_ge(*word(g, COUNT), n * 3);
        ck_assert_uint_eq(lapic_read(l, 0x320), 0x20071);
        ck_assert_uint_eq(lapic_read(l, 0x380), 10000000);
        ck_assert_uint_le(lapic_read(l, 0x390), 10000000);
    }
    ck_assert(!g->shut_down);
    guest_free(g);
}
END_TEST

// One shot that has run out does not come again after a stop.
START_TEST(one_shot)
{
    struct guest *g = start(1);
    struct lapic *l = g->set->vcpu[0]->lapic;
    lapic_write(l, 0x3e0, 0xb);
    lapic_write(l, 0x320, 0x71);
    lapic_write(l, 0x380, 1000000);
    ck_assert(run_until(g, 1));
    for (unsigned n = 0; n < 3; n++) {
        cpu_set_resume(g->set);
        g_usleep(20000);
        cpu_set_pause(g->set);
    }
    ck_assert_uint_eq(*word(g, COUNT), 1);
    guest_free(g);
}
END_TEST

struct sender {
    struct guest *g;
    bool level;
    _Atomic bool stop;
};

static void *send_messages(void *opaque)
{
    struct sender *s = opaque;
    while (!atomic_load(&s->stop)) {
        lapic_send(s->g->set, 0, false, LAPIC_FIXED, 0x72, s->level);
        g_usleep(500);
    }
    return NULL;
}

// Devices send at any time, while the machine is stopped and started over and over.
START_TEST(messages)
{
    for (unsigned level = 0; level < 2; level++) {
        struct guest *g = start(1);
        struct sender s = {.g = g, .level = level};
        GThread *thread = g_thread_new("sender", send_messages, &s);
        for (unsigned n = 1; n <= 20; n++)
            ck_assert_msg(run_until(g, n * 5), "round %u", n);
        atomic_store(&s.stop, true);
        g_thread_join(thread);
        uint64_t seen = *word(g, COUNT);
        ck_assert_uint_ge(seen, 100);
        if (level) // the last end may be still to come
            ck_assert_msg(ends[0x72] == seen || ends[0x72] + 1 == seen, "%u ends of %lu", ends[0x72],
                          (unsigned long)seen);
        else
            ck_assert_uint_eq(ends[0x72], 0);
        guest_free(g);
    }
}
END_TEST

// A message that comes while all stands still is taken at once afterwards.
START_TEST(message_to_a_stopped_machine)
{
    struct guest *g = start(1);
    for (unsigned n = 1; n <= 5; n++) {
        ck_assert_uint_eq(lapic_send(g->set, 0, false, LAPIC_FIXED, 0x73, false), 1);
        ck_assert_uint_eq(lapic_pending(g->set->vcpu[0]->lapic), 0x73);
        ck_assert(run_until(g, n));
        ck_assert_uint_eq(*word(g, COUNT), n);
    }
    guest_free(g);
}
END_TEST

START_TEST(line_of_the_8259)
{
    struct guest *g = start(1);
    lapic_write(g->set->vcpu[0]->lapic, 0x350, 0x700); // ExtINT, not masked
    for (unsigned n = 1; n <= 10; n++) {
        cpu_set_resume(g->set);
        g_usleep(n % 2 ? 2000 : 0); // it halts, or has only begun
        lapic_set_lint(pic_line, 0, true);
        ck_assert_msg(run_until(g, n), "interrupt %u", n);
        ck_assert_uint_eq(*word(g, COUNT), n);
        ck_assert(!lapic_lint(pic_line, 0));
    }
    guest_free(g);
}
END_TEST

START_TEST(other_processors_start)
{
    struct guest *g = start(4);
    PLACE(g, CODE, starter);
    PLACE(g, 0x8000, started);
    ck_assert(guest_run(g, 20));
    ck_assert_uint_eq(*word(g, 0x9000) & 0xffffffff, 3);
    for (unsigned n = 1; n < 4; n++) {
        cpu_set_resume(g->set); // those that have not come to HLT yet do
        g_usleep(20000);
        cpu_set_pause(g->set);
        ck_assert_uint_eq(g->set->vcpu[n]->activity, VCPU_HALTED);
        ck_assert_uint_eq(g->set->vcpu[n]->seg[CS].selector, 0x800);
    }
    guest_free(g);
}
END_TEST

// ---- Doorbells
// -------------------------------------------------------------------------------------------------------

PROGRAM(ringer, 64,
        "1: mov byte ptr [0x20008], 0; mov esi, 0xd0002000; mov word ptr [rsi + 0x104], ax; mov dword ptr [rsi + "
        "0x108], eax;"
        "mov word ptr [rsi + 0x112], ax; out 0xf4, al;"
        "2: cmp byte ptr [0x20008], 0; je 2b; jmp 1b");

struct bells {
    unsigned rings[8], writes; // by doorbell; of other places or sizes
};

static void bell_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct bells *b = opaque;
    if (size == 2 && offset >= 0x100 && offset < 0x110 && !(offset & 3) && !vcpu_current())
        b->rings[(offset - 0x100) / 4]++;
    else
        b->writes++;
}

static uint64_t bell_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

// What was rung before the machine stopped has been served when it stands still; other sizes and places are writes.
START_TEST(doorbells)
{
    static const struct io_ops ops = {bell_read, bell_write, 1, 4};
    struct bells bells = {0};
    struct region region;
    struct guest *g = start(1);
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, ringer);
    uint64_t *pd = guest_memory(g, 0x4000);
    pd[GUEST_MMIO >> 21 & 511] = GUEST_MMIO | 0x87;
    region_init_io(&region, "bells", &ops, &bells, PAGE_SIZE);
    region.lockless = true;
    region.doorbell_offset = 0x100;
    region.doorbell_stride = 4;
    region.doorbell_size = 2;
    region.doorbell_count = 4;
    g_rec_mutex_lock(&g->lock);
    address_space_map(g->memory, &region, GUEST_MMIO + 0x2000, 1);
    g_rec_mutex_unlock(&g->lock);
    for (unsigned n = 1; n <= 100; n++) {
        uint64_t exits = v->io_exits;
        ck_assert(run_until(g, 1));
        ck_assert_uint_eq(bells.rings[1], n);
        ck_assert_uint_eq(bells.rings[0] + bells.rings[2] + bells.rings[3], 0);
        ck_assert_uint_eq(bells.writes, 2 * n);
        ck_assert_uint_eq(v->io_exits - exits, 3);
    }
    g_rec_mutex_lock(&g->lock);
    address_space_unmap(&region); // no longer there: nothing answers
    g_rec_mutex_unlock(&g->lock);
    ck_assert(run_until(g, 1));
    ck_assert_uint_eq(bells.rings[1], 100);
    guest_free(g);
}
END_TEST

// Every register goes to the kernel and back.
static void registers(bool x2apic)
{
    static const struct {
        uint16_t offset;
        uint32_t value;
    } rows[] = {
        {0x80, 0x20},     {0xf0, 0x1ff},     {0x2f0, 0x10035},   {0x320, 0x40071}, {0x330, 0x10032},
        {0x340, 0x400},   {0x350, 0x700},    {0x360, 0x400},     {0x370, 0xfe},    {0x3e0, 0xb},
        {0x310, 3 << 24}, {0xd0, 0x2000000}, {0xe0, 0xffffffff},
    };
    struct guest *g = start(1);
    struct vcpu *v = g->set->vcpu[0];
    PLACE(g, CODE, stop);
    if (x2apic)
        ck_assert(lapic_write_base(v->lapic, v->apic_base | 0x400));
    for (unsigned n = 0; n < G_N_ELEMENTS(rows); n++)
        if (!x2apic)
            lapic_write(v->lapic, rows[n].offset, rows[n].value);
        else if (rows[n].offset != 0x310 && rows[n].offset != 0xd0 && rows[n].offset != 0xe0)
            ck_assert(lapic_write_msr(v->lapic, 0x800 + rows[n].offset / 16, rows[n].value));
    lapic_write_tsc_deadline(v->lapic, 1ull << 62);
    lapic_send(g->set, 0, false, LAPIC_FIXED, 0x18, false); // below the priority: stays
    uint64_t base = v->apic_base;
    for (unsigned round = 0; round < 3; round++) {
        *word(g, WANTED) = 1;
        ck_assert(guest_run(g, 20));
        ck_assert_uint_eq(v->apic_base, base);
        for (unsigned n = 0; n < G_N_ELEMENTS(rows); n++) {
            uint64_t value = 0;
            if (x2apic && (rows[n].offset == 0x310 || rows[n].offset == 0xd0 || rows[n].offset == 0xe0))
                continue;
            if (x2apic)
                ck_assert(lapic_read_msr(v->lapic, 0x800 + rows[n].offset / 16, &value));
            else
                value = lapic_read(v->lapic, rows[n].offset);
            ck_assert_msg(value == rows[n].value, "register %x: %lx, round %u", rows[n].offset, (unsigned long)value,
                          round);
        }
        ck_assert_uint_eq(lapic_tsc_deadline(v->lapic), 1ull << 62);
        ck_assert_int_eq(lapic_pending(v->lapic), -1);
        lapic_set_tpr(v->lapic, 0);
        ck_assert_int_eq(lapic_pending(v->lapic), 0x18);
        lapic_set_tpr(v->lapic, 2);
    }
    guest_free(g);
}

START_TEST(registers_go_round)
{
    registers(_i);
}
END_TEST

int main(void)
{
    if (access("/dev/kvm", R_OK | W_OK) < 0) {
        printf("/dev/kvm cannot be opened here\n");
        return 77;
    }
    Suite *suite = suite_create("kvm-apic");
    TCase *t = tcase_create("kvm-apic");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, timer);
    tcase_add_test(t, one_shot);
    tcase_add_test(t, messages);
    tcase_add_test(t, message_to_a_stopped_machine);
    tcase_add_test(t, line_of_the_8259);
    tcase_add_test(t, other_processors_start);
    tcase_add_test(t, doorbells);
    tcase_add_loop_test(t, registers_go_round, 0, 2);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
