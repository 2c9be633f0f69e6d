// SPDX-License-Identifier: GPL-2.0-or-later
// Is there a KVM, and is it the processor's own? A ring-0 loop in 64-bit mode is timed: paravirtual and nested hosts
// may run it through an instruction emulator, where a stock kernel would take hours to boot.
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/cpu/kvm/kvm.h"

#define CALIBRATION_ROUNDS 20000u // of two instructions
#define FIRST_ROUNDS       500u   // enough to see an instruction emulator, which would take long for all of them
#define CALIBRATION_SIZE   0x5000u
#define NOTE_SECONDS       600
#define SLOW_NANOSECONDS   20.0 // an instruction; a processor takes well under 1

// A VM of one processor and a few pages, only for the measurement.
struct probe {
    int kvm, vm, vcpu;
    uint8_t *memory;
    struct kvm_run *run;
    size_t run_size;
};

static bool fail(GError **error, const char *what)
{
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "%s: %s.", what, g_strerror(errno));
    return false;
}

static void probe_close(struct probe *p)
{
    if (p->run && p->run != MAP_FAILED)
        munmap(p->run, p->run_size);
    if (p->memory && p->memory != MAP_FAILED)
        munmap(p->memory, CALIBRATION_SIZE);
    if (p->vcpu >= 0)
        close(p->vcpu);
    if (p->vm >= 0)
        close(p->vm);
    if (p->kvm >= 0)
        close(p->kvm);
}

static bool probe_open(struct probe *p, GError **error)
{
    p->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (p->kvm < 0)
        return fail(error, "/dev/kvm cannot be opened");
    if (ioctl(p->kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "The kernel's KVM speaks another version.");
        return false;
    }
    p->vm = ioctl(p->kvm, KVM_CREATE_VM, 0);
    if (p->vm < 0)
        return fail(error, "KVM cannot make a virtual machine");
    p->memory = mmap(NULL, CALIBRATION_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.memory_size = CALIBRATION_SIZE,
                                                 .userspace_addr = (uintptr_t)p->memory};
    if (p->memory == MAP_FAILED || ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return fail(error, "KVM takes no memory");
    p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
    if (p->vcpu < 0)
        return fail(error, "KVM cannot make a virtual processor");
    p->run_size = (size_t)ioctl(p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    p->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
    return p->run != MAP_FAILED || fail(error, "KVM's run area cannot be mapped");
}

static bool probe_prepare(struct probe *p, unsigned rounds, GError **error)
{
    const uint8_t code[] = {
        0xb9,
        rounds & 0xff,
        rounds >> 8 & 0xff,
        rounds >> 16 & 0xff,
        0, // mov ecx
        0xff,
        0xc9,
        0x75,
        0xfc, // dec; jnz
        0xf4, // hlt
    };
    memcpy(p->memory, code, sizeof code);
    uint64_t *tables = (uint64_t *)(p->memory + 0x1000);
    tables[0] = 0x2003;   // PML4 -> PDPT
    tables[512] = 0x3003; // PDPT -> directory
    tables[1024] = 0x83;  // 2 MiB at 0
    struct kvm_sregs s;
    if (ioctl(p->vcpu, KVM_GET_SREGS, &s) < 0)
        return fail(error, "KVM's registers cannot be read");
    s.cr3 = 0x1000;
    s.cr4 = CR4_PAE;
    s.cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_ET;
    s.efer = EFER_LME | EFER_LMA;
    s.cs = (struct kvm_segment){.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    s.ds = (struct kvm_segment){.limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    s.es = s.fs = s.gs = s.ss = s.ds;
    struct kvm_regs r = {.rflags = FLAG_1, .rip = 0, .rsp = 0x4ff0};
    if (ioctl(p->vcpu, KVM_SET_SREGS, &s) < 0 || ioctl(p->vcpu, KVM_SET_REGS, &r) < 0)
        return fail(error, "KVM's registers cannot be set");
    return true;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

// Nanoseconds for one ring-0 instruction; below 0 with a GError when the loop does not come to its end.
static double probe_measure(struct probe *p, unsigned rounds, GError **error)
{
    if (!probe_prepare(p, rounds, error))
        return -1;
    double start = now();
    int r;
    do
        r = ioctl(p->vcpu, KVM_RUN, 0);
    while (r < 0 && errno == EINTR);
    double taken = now() - start;
    if (r < 0) {
        fail(error, "KVM cannot run a virtual processor");
        return -1;
    }
    if (p->run->exit_reason != KVM_EXIT_HLT) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
                    "KVM left a simple loop with exit %u in place of HLT.", p->run->exit_reason);
        return -1;
    }
    return taken / (2.0 * rounds);
}

double kvm_calibrate(GError **error)
{
    struct probe p = {.kvm = -1, .vm = -1, .vcpu = -1};
    double ns = -1;
    if (probe_open(&p, error))
        ns = probe_measure(&p, FIRST_ROUNDS, error);
    // The best of some, because the host may give the processor to somebody else meanwhile.
    for (unsigned i = 0; i < 3 && ns >= SLOW_NANOSECONDS; i++)
        ns = MIN(ns, probe_measure(&p, FIRST_ROUNDS, NULL));
    if (ns >= 0 && ns < 10 * SLOW_NANOSECONDS)
        ns = probe_measure(&p, CALIBRATION_ROUNDS, error);
    probe_close(&p);
    return ns;
}

// ---- What was measured a moment ago ----
// Making a virtual machine takes a kernel tens of milliseconds, so that a row of machines shares one "too slow". The
// user's run-time folder dies with the session, the note in it after a while.

static char *note_path(void)
{
    const char *base = g_getenv("XDG_RUNTIME_DIR");
    return base && base[0] ? g_build_filename(base, "cloche", "kvm-speed", NULL) : NULL;
}

static double noted_speed(void)
{
    struct stat st;
    g_autofree char *path = note_path(), *text = NULL;
    if (!path || lstat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
        time(NULL) - st.st_mtime > NOTE_SECONDS || time(NULL) < st.st_mtime ||
        !g_file_get_contents(path, &text, NULL, NULL))
        return -1;
    double ns = g_ascii_strtod(text, NULL);
    return ns > SLOW_NANOSECONDS && ns < 1e9 ? ns : -1;
}

static void note_speed(double ns)
{
    g_autofree char *path = note_path(), *text = g_strdup_printf("%.0f\n", ns);
    if (path)
        g_file_set_contents(path, text, -1, NULL); // without it the next machine measures again
}

static bool refuse(GError **error, double ns)
{
    g_set_error(
        error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED,
        "This host's KVM interprets kernel code (%.0f ns an instruction): no hardware virtualization behind it.", ns);
    return false;
}

bool kvm_works_at_speed(GError **error)
{
    double ns = noted_speed();
    if (ns > 0 && access("/dev/kvm", R_OK | W_OK) == 0)
        return refuse(error, ns);
    ns = kvm_calibrate(error);
    if (ns < 0)
        return false;
    if (ns <= SLOW_NANOSECONDS)
        return true;
    note_speed(ns);
    return refuse(error, ns);
}
