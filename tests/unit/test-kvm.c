// SPDX-License-Identifier: GPL-2.0-or-later
// The KVM engine: small guests in rings 0 and 3, state that goes round all engines, kernels that fail. The linker puts
// a layer between the engine and ioctl() (--wrap), where a test can have any request fail.
//
// The host's KVM may interpret ring 0 at a microsecond an instruction: guests are short.
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <linux/userfaultfd.h>
#include <unistd.h>

#include "core/state/ram_image.h"
#include "tests/unit/guest.h"

// ---- Kernels that fail ----------------------------------------------------------------------------------------------

static struct {
    unsigned long request;
    int error, result; // errno and result of the call; error 0: the call is made, then EXIT is put in place
    int after;         // so many calls are made first
    int times;         // so many fail, 0: all
    uint32_t exit, suberror;
    struct kvm_run *run;
    unsigned hits;
} fault;

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
void *__real_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (request != fault.request || fault.after-- > 0)
        return __real_ioctl(fd, request, argument);
    fault.hits++;
    if (fault.times && (int)fault.hits > fault.times)
        return __real_ioctl(fd, request, argument);
    if (fault.error) {
        errno = fault.error;
        return fault.result;
    }
    fault.run->exit_reason = fault.exit;
    fault.run->internal.suberror = fault.suberror;
    return 0;
}

void *__wrap_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    void *p = __real_mmap(address, size, protection, flags, fd, offset);
    if (fd >= 0 && flags == MAP_SHARED && protection == (PROT_READ | PROT_WRITE) && size < MiB)
        fault.run = p; // the last one that was mapped is the processor's
    return p;
}

static void setup(void)
{
    memset(&fault, 0, sizeof fault);
}

// ---- Programs -------------------------------------------------------------------------------------------------------

#define ROUNDS 60
// 64-bit code: rounds of integer, x87, SSE and stack work on registers; after each, `out 0xf4, al` stops the machine.
// rax: a linear congruence, rbx: its sum, xmm0: a sum of doubles, st0: a product, memory at 0x20000: the rounds.
static const uint8_t work[] = {
    0x48, 0xb9, 0x2d, 0x7f, 0x95, 0x4c, 0x2d, 0xf4, 0x51, 0x58, // again: mov rcx, 6364136223846793005
    0x48, 0x0f, 0xaf, 0xc1,                                     // imul rax, rcx
    0x48, 0xff, 0xc0,                                           // inc rax
    0x48, 0x01, 0xc3,                                           // add rbx, rax
    0xf2, 0x0f, 0x58, 0xc1,                                     // addsd xmm0, xmm1
    0xd8, 0xc9,                                                 // fmul st0, st1
    0x50,                                                       // push rax
    0x49, 0xff, 0xc5,                                           // inc r13
    0x4c, 0x89, 0x2c, 0x25, 0x00, 0x00, 0x02, 0x00,             // mov [0x20000], r13
    0x58,                                                       // pop rax
    0xe6, 0xf4,                                                 // out 0xf4, al
    0x4c, 0x39, 0x2c, 0x25, 0x10, 0x00, 0x02, 0x00,             // wait: cmp [0x20010], r13
    0x76, 0xf6,                                                 // jbe wait
    0xeb, 0xcb,                                                 // jmp again
};

// One round more: the guest then waits at a place that has changed nothing.
static bool run_round(struct guest *g, uint64_t round)
{
    guest_load(g, 0x20010, &round, 8);
    return guest_run(g, 20);
}

static void start_work(struct guest *g, bool ring3)
{
    struct vcpu *v = g->set->vcpu[0];
    guest_load(g, 0x10000, work, sizeof work);
    guest_start_long(g, 0x10000);
    v->cr4 |= CR4_OSXMMEXCPT;
    v->gpr[RAX] = 1;
    v->xsave.fcw = 0x37f;
    v->xsave.mxcsr = 0x1f80;
    double half = 0.5;
    memcpy(&v->xsave.xmm[1], &half, 8);
    v->xsave.ftw = 0xff;
    static const uint8_t one[10] = {0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f},
                         two[10] = {0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0x40};
    memcpy(v->xsave.st[0].bytes, one, 10);
    memcpy(v->xsave.st[1].bytes, two, 10);
    v->xsave.xstate_bv = 3;
    if (!ring3)
        return;
    v->cpl = 3;
    v->rflags |= FLAG_IOPL;
    v->seg[CS] = (struct segment){.selector = 0x2b, .attr = 0xa0fb, .limit = 0xffffffff};
    for (unsigned s = 0; s < SEGMENT_COUNT; s++)
        if (s != CS)
            v->seg[s] = (struct segment){.selector = 0x23, .attr = 0xc0f3, .limit = 0xffffffff};
}

static void check_work(struct guest *g, unsigned rounds)
{
    const struct vcpu *v = g->set->vcpu[0];
    uint64_t a = 1, sum = 0, stored;
    double expected = 0.5 * rounds, got;
    for (unsigned n = 0; n < rounds; n++)
        sum += a = a * 6364136223846793005ull + 1;
    memcpy(&got, &v->xsave.xmm[0], 8);
    memcpy(&stored, guest_memory(g, 0x20000), 8);
    ck_assert_uint_eq(v->gpr[RAX], a);
    ck_assert_uint_eq(v->gpr[RBX], sum);
    ck_assert_uint_eq(v->gpr[R13], rounds);
    ck_assert_uint_eq(stored, rounds);
    ck_assert(got == expected);
    // two to the power of ROUNDS
    ck_assert_uint_eq(v->xsave.st[0].bytes[8] | v->xsave.st[0].bytes[9] << 8, 0x3fff + rounds);
    ck_assert_uint_eq(v->gpr[RSP], 0x7000);
}

START_TEST(rings)
{
    for (unsigned ring3 = 0; ring3 < 2; ring3++) {
        struct guest *g = guest_new("kvm", 1);
        start_work(g, ring3);
        for (unsigned n = 1; n <= 5; n++) {
            ck_assert(run_round(g, n));
            check_work(g, n);
        }
        ck_assert_uint_eq(g->set->vcpu[0]->cpl, ring3 ? 3 : 0);
        ck_assert(!g->shut_down);
        guest_free(g);
    }
}
END_TEST

// ---- State that goes round ------------------------------------------------------------------------------------------

// The architectural part of the processor and all memory.
static void carry(struct guest *from, struct guest *to)
{
    struct vcpu *a = from->set->vcpu[0], *b = to->set->vcpu[0];
    memcpy(b->gpr, a->gpr, sizeof a->gpr);
    b->rip = a->rip;
    b->rflags = a->rflags;
    memcpy(&b->cr0, &a->cr0, offsetof(struct vcpu, attention) - offsetof(struct vcpu, cr0));
    memcpy(guest_memory(to, 0), guest_memory(from, 0), GUEST_RAM);
    vcpu_flush_tlb(b);
}

START_TEST(round_trips)
{
    static const char *const order[] = {"kvm", "translate", "interpret", "kvm", "interpret", "translate"};
    struct guest *machines[G_N_ELEMENTS(order)];
    for (unsigned n = 0; n < G_N_ELEMENTS(order); n++)
        machines[n] = guest_new(order[n], 1);
    for (unsigned ring3 = 0; ring3 < 2; ring3++) {
        start_work(machines[0], ring3);
        for (unsigned n = 1; n <= ROUNDS; n++) {
            struct guest *g = machines[(n - 1) % G_N_ELEMENTS(order)];
            ck_assert_msg(run_round(g, n), "round %u under %s", n, g->set->engine->name);
            check_work(g, n);
            carry(g, machines[n % G_N_ELEMENTS(order)]);
        }
        for (unsigned k = 0; k < G_N_ELEMENTS(order); k++)
            memset(guest_memory(machines[k], 0x20000), 0, 8);
        for (unsigned k = 0; k < G_N_ELEMENTS(order); k++)
            memset(&machines[k]->set->vcpu[0]->gpr, 0, sizeof machines[k]->set->vcpu[0]->gpr),
                memset(&machines[k]->set->vcpu[0]->xsave, 0, sizeof machines[k]->set->vcpu[0]->xsave);
    }
    for (unsigned n = 0; n < G_N_ELEMENTS(order); n++)
        guest_free(machines[n]);
}
END_TEST

// Everything that the kernel is given comes back the same: `out 0xf4, al` is the only instruction that runs.
START_TEST(nothing_is_lost)
{
    struct guest *g = guest_new("kvm", 1);
    struct vcpu *v = g->set->vcpu[0];
    static const uint8_t stop[] = {0xe6, 0xf4, 0xeb, 0xfc};
    guest_load(g, 0x10000, stop, sizeof stop);
    guest_start_long(g, 0x10000);
    v->star = 0x0013000800000000;
    v->lstar = 0xffffffff81000000;
    v->fmask = 0x47700;
    v->kernel_gs_base = 0x7f0012345678;
    v->sysenter_eip = 0x1234;
    v->seg[FS].base = 0x7fff12345000;
    v->pat = 0x0007040600070406;
    v->mtrr_base[1] = 0x80000000;
    v->mtrr_mask[1] = 0xff80000800;
    v->mtrr_fixed[3] = 0x0606060606060606;
    v->cr2 = 0xdeadbeef000;
    v->dr[0] = 0x1000;
    v->dr[3] = 0x3000;
    for (unsigned n = 0; n < 16; n++)
        v->gpr[n] = 0x0101010101010101ull * (n + 1), memset(&v->xsave.xmm[n], (int)n + 1, 16);
    v->xsave.mxcsr = 0x1fa0;
    v->xsave.fcw = 0x27f;
    v->xsave.xstate_bv = 3;
    struct vcpu before = *v;
    ck_assert(guest_run(g, 20));
    ck_assert_mem_eq(v->gpr, before.gpr, sizeof v->gpr);
    ck_assert_mem_eq(&v->xsave.xmm, &before.xsave.xmm, sizeof v->xsave.xmm);
    ck_assert_uint_eq(v->xsave.mxcsr, before.xsave.mxcsr);
    ck_assert_uint_eq(v->xsave.fcw, before.xsave.fcw);
    static const size_t words[] = {
        offsetof(struct vcpu, star),         offsetof(struct vcpu, lstar),
        offsetof(struct vcpu, fmask),        offsetof(struct vcpu, kernel_gs_base),
        offsetof(struct vcpu, sysenter_eip), offsetof(struct vcpu, seg[FS].base),
        offsetof(struct vcpu, pat),          offsetof(struct vcpu, mtrr_base[1]),
        offsetof(struct vcpu, mtrr_mask[1]), offsetof(struct vcpu, mtrr_fixed[3]),
        offsetof(struct vcpu, cr2),          offsetof(struct vcpu, dr[0]),
        offsetof(struct vcpu, dr[3]),        offsetof(struct vcpu, cr0),
        offsetof(struct vcpu, cr4),          offsetof(struct vcpu, efer),
        offsetof(struct vcpu, cr3),
    };
    for (unsigned n = 0; n < G_N_ELEMENTS(words); n++)
        ck_assert_msg(memcmp((char *)v + words[n], (char *)&before + words[n], 8) == 0, "word %u of the table", n);
    guest_free(g);
}
END_TEST

// ---- Devices and tracked memory
// ---------------------------------------------------------------------------------------

START_TEST(devices_and_damage)
{
    struct guest *g = guest_new("kvm", 1);
    // mov eax,[0xd0000010]; add eax,1; mov [0xd0000020],eax; mov byte [0x30000],7; out 0xf4,al
    static const uint8_t code[] = {0xb9, 0x00, 0x00, 0x00, 0xd0, 0x8b, 0x41, 0x10, 0x83, 0xc0, 0x01, 0x89, 0x41,
                                   0x20, 0xc6, 0x04, 0x25, 0x00, 0x00, 0x03, 0x00, 0x07, 0xe6, 0xf4, 0xeb, 0xfe};
    guest_load(g, 0x10000, code, sizeof code);
    guest_start_long(g, 0x10000);
    uint64_t *pdpt = guest_memory(g, 0x2000), *pd = guest_memory(g, 0x4000);
    pdpt[3] = 0x4007; // 2 MiB pages: the host may have no larger ones
    pd[GUEST_MMIO >> 21 & 511] = GUEST_MMIO | 0x87;
    g->mmio_value = 100;
    struct ram_damage *damage = ram_damage_new(g->ram, g->ram_region.ram_offset, GUEST_RAM);
    static uint64_t bitmap[GUEST_RAM / PAGE_SIZE / 64];
    ram_damage_harvest(damage, bitmap);
    memset(bitmap, 0, sizeof bitmap);
    ck_assert(guest_run(g, 20));
    ck_assert_uint_eq(g->mmio_value, 117);
    ram_damage_harvest(damage, bitmap);
    ck_assert_msg(bitmap[0] >> 0x30 & 1, "the page that the guest wrote is not damaged");
    ram_damage_free(damage);
    guest_free(g);
}
END_TEST

// ---- Snapshots while the guest writes -------------------------------------------------------------------------------

#define WRITTEN       (4 * MiB) // the guest writes a page there after the other, over and over
#define WRITTEN_PAGES 2048

// 64-bit code: r13 counts and goes to the beginning of page (r13 mod 2048) of that area.
static const uint8_t writer[] = {
    0x49, 0xff, 0xc5,                         // again: inc r13
    0x4c, 0x89, 0xe8,                         // mov rax, r13
    0x48, 0x25, 0xff, 0x07, 0x00, 0x00,       // and rax, 2047
    0x48, 0xc1, 0xe0, 0x0c,                   // shl rax, 12
    0x4c, 0x89, 0xa8, 0x00, 0x00, 0x40, 0x00, // mov [rax + 0x400000], r13
    0xeb, 0xe7,                               // jmp again
};

static uint64_t value_at(const uint8_t *memory, uint64_t count)
{
    uint64_t value;
    memcpy(&value, memory + WRITTEN + count % WRITTEN_PAGES * PAGE_SIZE, 8);
    return value;
}

static void report(void *opaque)
{
    struct cpu_set *set = opaque;
    set->engine->report_writes(set);
}

// Until the guest has written COUNT more pages.
static void wait_writes(struct guest *g, uint64_t count)
{
    const volatile uint64_t *first = guest_memory(g, WRITTEN);
    uint64_t from = *first;
    for (unsigned n = 0; n < 20000 && *first < from + count; n++)
        g_usleep(1000);
    ck_assert_uint_ge(*first, from + count);
}

static void take_live(struct guest *g, const char *method)
{
    g_autoptr(GError) error = NULL;
    g_autofree uint8_t *file = g_malloc(GUEST_RAM);
    struct progress progress = {0};
    int fd = memfd_create("image", MFD_CLOEXEC);
    struct ram_image *image = ram_image_new(g->ram, dup(fd), NULL);
    ram_image_set_report(image, report, g->set);
    ck_assert_str_eq(ram_image_method(image), method);
    ck_assert_msg(ram_image_copy_ahead(image, &progress, &error), "%s", error ? error->message : "");
    cpu_set_pause(g->set);
    g_autofree uint8_t *moment = g_memdup2(g->ram->host, GUEST_RAM);
    uint64_t count = g->set->vcpu[0]->gpr[R13];
    ram_image_begin(image);
    cpu_set_resume(g->set);
    wait_writes(g, 2 * WRITTEN_PAGES);
    ck_assert_msg(ram_image_finish(image, &progress, &error), "%s", error ? error->message : "");
    wait_writes(g, WRITTEN_PAGES); // nothing is in its way any more
    ck_assert_uint_eq(progress.done, progress.total);
    ck_assert_int_eq(pread(fd, file, GUEST_RAM, 0), GUEST_RAM);
    ck_assert(memcmp(file, moment, GUEST_RAM) == 0);
    for (uint64_t back = 1; back < WRITTEN_PAGES; back++) // the very writes before the moment, in order
        ck_assert_uint_eq(value_at(file, count - back), count - back);
    if (strcmp(ram_image_method(image), "page faults") == 0)
        ck_assert_uint_gt(ram_image_early(image), 0);
    for (uint64_t at = 0; at < GUEST_RAM; at += PAGE_SIZE)
        ck_assert_uint_eq(ram_tracked(g->ram, at) & (TRACK_COW | TRACK_DIRTY), 0);
    ram_image_free(image);
    close(fd);
}

static void live_snapshots(const char *method)
{
    struct guest *g = guest_new("kvm", 1);
    start_work(g, true);
    guest_load(g, 0x10000, writer, sizeof writer);
    cpu_set_resume(g->set);
    wait_writes(g, WRITTEN_PAGES);
    for (unsigned n = 0; n < 5; n++)
        take_live(g, method);
    cpu_set_pause(g->set);
    ck_assert(!g->shut_down);
    guest_free(g);
}

START_TEST(live_by_faults)
{
    setup();
    live_snapshots("page faults");
}
END_TEST

// Where the host does not let memory be registered.
START_TEST(live_by_log)
{
    setup();
    fault.request = UFFDIO_REGISTER;
    fault.error = EPERM;
    fault.result = -1;
    live_snapshots("the dirty log");
    ck_assert_uint_ge(fault.hits, 5);
}
END_TEST

// It can be registered, but not be protected: the machine waits for all of its memory.
START_TEST(live_by_standing)
{
    setup();
    struct guest *g = guest_new("kvm", 1);
    start_work(g, true);
    guest_load(g, 0x10000, writer, sizeof writer);
    cpu_set_resume(g->set);
    wait_writes(g, WRITTEN_PAGES);
    fault.request = UFFDIO_WRITEPROTECT;
    fault.error = ENOMEM;
    fault.result = -1;
    take_live(g, "page faults");
    ck_assert_uint_ge(fault.hits, 1);
    cpu_set_pause(g->set);
    guest_free(g);
}
END_TEST

// ---- Kernels that fail ----------------------------------------------------------------------------------------------

static bool makes_a_machine(const char *word)
{
    struct ram *ram = ram_new(GUEST_RAM, NULL);
    struct address_space *memory = address_space_new("memory", ram, 1ull << 40, NULL);
    struct address_space *ports = address_space_new("ports", NULL, 65536, NULL);
    struct clock *clock = clock_new_manual();
    struct cpu_host host = {.ram = ram, .memory = memory, .ports = ports, .clock = clock};
    g_autoptr(GError) error = NULL;
    struct cpu_set *set = cpu_set_new(&host, "x86-64-v2", "kvm", 1, &error);
    bool made = set != NULL;
    if (!made)
        ck_assert_msg(error && strstr(error->message, word), "said: %s", error ? error->message : "nothing");
    cpu_set_free(set);
    clock_free(clock);
    address_space_free(memory);
    address_space_free(ports);
    ram_free(ram);
    return made;
}

START_TEST(creation_fails)
{
    static const struct {
        unsigned long request;
        int error;
        const char *word; // of the sentence, or NULL: it goes on without
        int after;
    } rows[] = {
        {KVM_CREATE_VM, ENOMEM, "virtual machine", 0}, {KVM_CREATE_VCPU, EEXIST, "virtual processor", 0},
        {KVM_SET_CPUID2, EINVAL, "--cpu", 0},          {KVM_SET_TSC_KHZ, EIO, NULL, 0},
        {KVM_ENABLE_CAP, EINVAL, "local APICs", 0},    {KVM_ENABLE_CAP, EINVAL, NULL, 1},
        {KVM_GET_MSR_INDEX_LIST, E2BIG, NULL, 0},      {KVM_SET_TSS_ADDR, EINVAL, NULL, 0},
    };
    for (unsigned n = 0; n < G_N_ELEMENTS(rows); n++) {
        setup();
        fault.request = rows[n].request;
        fault.error = rows[n].error;
        fault.result = -1;
        fault.after = rows[n].after;
        bool made = makes_a_machine(rows[n].word);
        ck_assert_msg(fault.hits > 0, "request %u was not made", n);
        ck_assert_msg(made == !rows[n].word, "request %u", n);
    }
}
END_TEST

// Without CPUID of the kernel the model is shown as it is; the guest runs.
START_TEST(refusals_are_survived)
{
    static const struct {
        unsigned long request;
        int result;
    } rows[] = {{KVM_SET_LAPIC, -1},           {KVM_GET_LAPIC, -1},     {KVM_SET_MSRS, 0},  {KVM_GET_MSRS, 0},
                {KVM_GET_SUPPORTED_CPUID, -1}, {KVM_GET_DIRTY_LOG, -1}, {KVM_SET_XCRS, -1}, {KVM_GET_XCRS, -1},
                {KVM_GET_MSR_INDEX_LIST, -1}};
    for (unsigned n = 0; n < G_N_ELEMENTS(rows); n++) {
        setup();
        fault.request = rows[n].request;
        fault.error = EINVAL;
        fault.result = rows[n].result;
        struct guest *g = guest_new("kvm", 1);
        ck_assert_msg(g->set != NULL, "request %u", n);
        start_work(g, false);
        ck_assert(run_round(g, 1));
        check_work(g, 1);
        ck_assert(!g->shut_down);
        guest_free(g);
    }
}
END_TEST

START_TEST(running_fails)
{
    static const struct {
        unsigned long request;
        int error;
        uint32_t exit, suberror;
    } rows[] = {
        {KVM_RUN, EFAULT, 0, 0},
        {KVM_SET_REGS, EINVAL, 0, 0},
        {KVM_SET_SREGS, EINVAL, 0, 0},
        {KVM_SET_XSAVE, EINVAL, 0, 0},
        {KVM_SET_VCPU_EVENTS, EINVAL, 0, 0},
        {KVM_SET_MP_STATE, EINVAL, 0, 0},
        {KVM_SET_USER_MEMORY_REGION, ENOMEM, 0, 0},
        {KVM_RUN, 0, KVM_EXIT_FAIL_ENTRY, 0},
        {KVM_RUN, 0, KVM_EXIT_INTERNAL_ERROR, KVM_INTERNAL_ERROR_DELIVERY_EV},
        {KVM_RUN, 0, KVM_EXIT_INTERNAL_ERROR, KVM_INTERNAL_ERROR_SIMUL_EX},
        {KVM_RUN, 0, 99, 0},
        {KVM_RUN, 0, KVM_EXIT_UNKNOWN, 0},
        {KVM_RUN, 0, KVM_EXIT_SHUTDOWN, 0},
    };
    for (unsigned n = 0; n < G_N_ELEMENTS(rows); n++) {
        setup();
        struct guest *g = guest_new("kvm", 1);
        start_work(g, false);
        fault.request = rows[n].request;
        fault.error = rows[n].error;
        fault.result = -1;
        fault.exit = rows[n].exit;
        fault.suberror = rows[n].suberror;
        ck_assert_msg(guest_run(g, 20), "row %u: the machine is not told", n);
        ck_assert_msg(g->shut_down, "row %u", n);
        fault.request = 0;
        guest_free(g);
    }
}
END_TEST

// A kernel that is short of room for a moment is asked again, for a second at most.
START_TEST(room_comes_back)
{
    for (unsigned forever = 0; forever < 2; forever++) {
        setup();
        struct guest *g = guest_new("kvm", 1);
        start_work(g, false);
        fault.request = KVM_RUN;
        fault.error = ENOSPC;
        fault.result = -1;
        fault.times = forever ? 0 : 5;
        ck_assert(run_round(g, 1));
        ck_assert_uint_gt(fault.hits, 5);
        ck_assert(g->shut_down == forever);
        fault.request = 0;
        if (!forever)
            check_work(g, 1);
        guest_free(g);
    }
}
END_TEST

// An instruction that the kernel cannot emulate is interpreted.
START_TEST(emulation_fails)
{
    setup();
    struct guest *g = guest_new("kvm", 1);
    start_work(g, false);
    fault.request = KVM_RUN;
    fault.exit = KVM_EXIT_INTERNAL_ERROR;
    fault.suberror = KVM_INTERNAL_ERROR_EMULATION;
    ck_assert(run_round(g, 1)); // the interpreter does all of it, one by one
    check_work(g, 1);
    ck_assert_uint_gt(fault.hits, 8);
    fault.request = 0;
    guest_free(g);
}
END_TEST

START_TEST(choice)
{
    g_autoptr(GError) error = NULL;
    setup();
    if (!engine_kvm.probe(&error))
        ck_assert_msg(strstr(error->message, "ns an instruction") != NULL, "said: %s", error->message);
    g_clear_error(&error);
    fault.request = KVM_RUN;
    fault.error = EFAULT;
    fault.result = -1;
    ck_assert(!engine_kvm.probe(&error));
    ck_assert_msg(strstr(error->message, "cannot run") != NULL, "said: %s", error->message);
}
END_TEST

int main(void)
{
    if (access("/dev/kvm", R_OK | W_OK) < 0) {
        printf("/dev/kvm cannot be opened here\n");
        return 77;
    }
    Suite *suite = suite_create("kvm");
    TCase *t = tcase_create("kvm");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, rings);
    tcase_add_test(t, round_trips);
    tcase_add_test(t, nothing_is_lost);
    tcase_add_test(t, devices_and_damage);
    tcase_add_test(t, live_by_faults);
    tcase_add_test(t, live_by_log);
    tcase_add_test(t, live_by_standing);
    tcase_add_test(t, creation_fails);
    tcase_add_test(t, refusals_are_survived);
    tcase_add_test(t, running_fails);
    tcase_add_test(t, room_comes_back);
    tcase_add_test(t, emulation_fails);
    tcase_add_test(t, choice);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
