// SPDX-License-Identifier: GPL-2.0-or-later
// The engine `kvm`: machines, processors, the run loop, interrupts.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cpu/interpret/interpret.h"
#include "core/cpu/kvm/kvm.h"
#include "core/cpu/lapic.h"
#include "core/cpu/thread.h"

#define KICK_SIGNAL  (SIGRTMIN + 6)
#define LOG_INTERVAL 15000 // microseconds between looks at the dirty log
#define PATIENCE     1000  // milliseconds that a kernel may be short of room

static bool fail(GError **error, const char *what)
{
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "%s: %s.", what, g_strerror(errno));
    return false;
}

// ---- Machine
// ----------------------------------------------------------------------------------------------------------

static void machine_free(struct kvm_machine *m)
{
    kvm_doorbells_free(m);
    if (m->vm >= 0)
        close(m->vm);
    if (m->kvm >= 0)
        close(m->kvm);
    g_mutex_clear(&m->slots_lock);
    g_rw_lock_clear(&m->apics_lock);
    g_mutex_clear(&m->level_lock);
    g_free(m);
}

static bool kvm_set_init(struct cpu_set *set, GError **error)
{
    struct kvm_machine *m = g_new0(struct kvm_machine, 1);
    m->set = set;
    m->vm = -1;
    g_mutex_init(&m->slots_lock);
    g_rw_lock_init(&m->apics_lock);
    g_mutex_init(&m->level_lock);
    atomic_store(&m->slots_stale, true);
    m->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (m->kvm < 0 || (m->vm = ioctl(m->kvm, KVM_CREATE_VM, 0)) < 0) {
        fail(error, m->kvm < 0 ? "/dev/kvm cannot be opened" : "KVM cannot make a virtual machine");
        machine_free(m);
        return false;
    }
    if (!kvm_apics_init(m, error) || !kvm_doorbells_init(m, error)) {
        machine_free(m);
        return false;
    }
    ioctl(m->vm, KVM_SET_TSS_ADDR, 0xfeffd000ul); // for real mode on old Intel processors
    uint64_t identity = 0xfeffc000;
    ioctl(m->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    struct kvm_enable_cap msrs = {.cap = KVM_CAP_X86_USER_SPACE_MSR,
                                  .args[0] = KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL};
    if (ioctl(m->vm, KVM_ENABLE_CAP, &msrs) < 0)
        log_info("kvm", "this kernel does not hand unknown MSRs to the monitor");
    m->run_size = (size_t)ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    m->has_xcrs = ioctl(m->kvm, KVM_CHECK_EXTENSION, KVM_CAP_XCRS) > 0;
    kvm_msrs_choose(m);
    set->engine_state = m;
    if (!interpret_set_init(set, error)) {
        set->engine_state = NULL;
        machine_free(m);
        return false;
    }
    GError *slow = NULL;
    if (!kvm_works_at_speed(&slow)) {
        log_warning("kvm", "%s The engine was asked for by name, so it is used.", slow->message);
        g_clear_error(&slow);
    }
    return true;
}

static void kvm_set_free(struct cpu_set *set)
{
    interpret_set_free(set);
    if (set->engine_state)
        machine_free(set->engine_state);
    set->engine_state = NULL;
}

// ---- Processor
// --------------------------------------------------------------------------------------------------------

static void kvm_vcpu_free(struct vcpu *v)
{
    struct kvm_cpu *c = v->engine_state;
    struct kvm_machine *m = v->set->engine_state;
    if (!c)
        return;
    if (c->run)
        munmap(c->run, m->run_size);
    if (c->fd >= 0)
        close(c->fd);
    g_free(c);
    v->engine_state = NULL;
}

static bool kvm_vcpu_init(struct vcpu *v, GError **error)
{
    struct kvm_machine *m = v->set->engine_state;
    struct kvm_cpu *c = g_new0(struct kvm_cpu, 1);
    c->vcpu = v;
    v->engine_state = c;
    c->fd = ioctl(m->vm, KVM_CREATE_VCPU, (unsigned long)v->index);
    void *run = c->fd < 0 ? MAP_FAILED : mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
    if (run == MAP_FAILED) {
        fail(error, "KVM cannot make a virtual processor");
        kvm_vcpu_free(v);
        return false;
    }
    c->run = run;
    // The guest's clock is nanoseconds where the processor can scale its counter, else the host's rate.
    int khz = ioctl(c->fd, KVM_GET_TSC_KHZ, 0); // asked first: some kernels answer with the rate that they refused
    if (ioctl(c->fd, KVM_SET_TSC_KHZ, (unsigned long)v->set->tsc_khz) < 0 && khz > 0)
        v->set->tsc_khz = (uint64_t)khz;
    if (kvm_cpuid_set(c, error))
        return true;
    kvm_vcpu_free(v);
    return false;
}

// Kicks are blocked but within KVM_RUN: one that comes at any moment ends the next, and what was injected before has
// gone in by then.
static void thread_prepare(struct kvm_cpu *c)
{
    struct {
        struct kvm_signal_mask head;
        uint64_t signals; // the kernel's own form: 8 bytes
    } mask = {.head.len = 8};
    if (atomic_load(&c->thread))
        return;
    sigset_t kick, old;
    sigemptyset(&kick);
    sigaddset(&kick, KICK_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &kick, &old);
    for (int n = 1; n <= 64; n++)
        if (n != KICK_SIGNAL && sigismember(&old, n) > 0)
            mask.signals |= 1ull << (n - 1);
    ioctl(c->fd, KVM_SET_SIGNAL_MASK, &mask);
    atomic_store(&c->thread, (uint64_t)syscall(SYS_gettid));
}

static void kick_taken(void)
{
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, KICK_SIGNAL);
    while (sigtimedwait(&kick, NULL, &(struct timespec){0}) > 0)
        ;
}

static void kvm_kick(struct vcpu *v)
{
    struct kvm_cpu *c = v->engine_state;
    uint64_t tid = c ? atomic_load(&c->thread) : 0;
    if (tid)
        syscall(SYS_tgkill, getpid(), (pid_t)tid, KICK_SIGNAL);
}

// ---- Interrupts
// -------------------------------------------------------------------------------------------------------

// The 8259's interrupt goes in when the kernel says that the guest takes it; one event at a time, so that none stays
// behind in the kernel when the machine stops.
static void inject(struct kvm_cpu *c, uint32_t bits)
{
    struct vcpu *v = c->vcpu;
    const struct cpu_host *host = &v->set->host;
    bool nmi = bits & ATTENTION_NMI;
    c->run->request_interrupt_window = 0;
    if (nmi) {
        atomic_fetch_and(&v->attention, ~(uint32_t)ATTENTION_NMI);
        ioctl(c->fd, KVM_NMI, 0);
    }
    if (!(bits & ATTENTION_INTERRUPT))
        return;
    atomic_fetch_and(&v->attention, ~(uint32_t)ATTENTION_INTERRUPT);
    if (!host->pic_acknowledge || !lapic_lint(v->lapic, 0))
        return;
    if (nmi || !c->run->ready_for_interrupt_injection) {
        atomic_fetch_or(&v->attention, ATTENTION_INTERRUPT);
        c->run->request_interrupt_window = 1;
        return;
    }
    io_lock_take(host->lock);
    int vector = host->pic_acknowledge(host->opaque);
    io_lock_release(host->lock);
    struct kvm_interrupt interrupt = {.irq = (uint32_t)vector};
    if (vector < 0)
        return;
    v->interrupts++;
    ioctl(c->fd, KVM_INTERRUPT, &interrupt);
    if (lapic_lint(v->lapic, 0)) {
        atomic_fetch_or(&v->attention, ATTENTION_INTERRUPT);
        c->run->request_interrupt_window = 1;
    }
}

// ---- The loop
// ---------------------------------------------------------------------------------------------------------

static void look_at_log(struct kvm_machine *m, bool now)
{
    int64_t time = g_get_monotonic_time();
    if (!now && time - atomic_load(&m->logged_at) < LOG_INTERVAL)
        return;
    atomic_store(&m->logged_at, time);
    kvm_slots_log_sync(m);
}

static enum engine_exit failed(struct kvm_cpu *c, const char *what)
{
    int number = errno;
    g_autofree char *text = g_strdup_printf("%s: %s", what, g_strerror(number));
    return (enum engine_exit)(kvm_report(c, text, (uint64_t)number) - 1);
}

static enum engine_exit run_loop(struct kvm_cpu *c, struct kvm_machine *m)
{
    struct vcpu *v = c->vcpu;
    unsigned waited = 0;
    for (;;) {
        uint32_t bits = atomic_load(&v->attention);
        if (bits & ATTENTION_FLUSH)
            vcpu_run_queued(v);
        if (bits & (ATTENTION_STOP | ATTENTION_INIT | ATTENTION_SIPI | ATTENTION_RESET)) {
            // An access that is half done is finished first.
            c->run->immediate_exit = 1;
            ioctl(c->fd, KVM_RUN, 0);
            c->run->immediate_exit = 0;
            look_at_log(m, true); // who looks at a machine that stands still sees all that was written
            return ENGINE_EXIT_ATTENTION;
        }
        if (atomic_load(&m->slots_stale) && !kvm_slots_update(m))
            return failed(c, "it refuses the machine's memory");
        inject(c, bits);
        look_at_log(m, false);
        int r = ioctl(c->fd, KVM_RUN, 0);
        if (r < 0 && (errno == EINTR || errno == EAGAIN)) {
            kick_taken();
            continue;
        }
        if (r < 0 && (errno == ENOSPC || errno == ENOMEM) && waited++ < PATIENCE) {
            g_usleep(1000); // seen under nested KVM while several processors start; it passes
            continue;
        }
        if (r < 0) {
            return failed(c, "the processor does not run");
        }
        waited = 0;
        int served = kvm_exit_serve(c);
        if (served != KVM_GO_ON) {
            look_at_log(m, true);
            return (enum engine_exit)(served - 1);
        }
    }
}

static enum engine_exit kvm_engine_run(struct vcpu *v)
{
    struct kvm_cpu *c = v->engine_state;
    struct kvm_machine *m = v->set->engine_state;
    thread_prepare(c);
    if (!kvm_state_put(c)) {
        return failed(c, "it refuses the processor's state");
    }
    enum engine_exit exit = run_loop(c, m);
    if (!kvm_state_get(c)) {
        return failed(c, "it does not give the processor's state");
    }
    return exit;
}

static void kvm_flush_tlb(struct vcpu *v)
{
    struct kvm_machine *m = v->set->engine_state;
    atomic_store(&m->slots_stale, true); // the physical map may have changed; the update compares
}

static void kvm_report_writes(struct cpu_set *set)
{
    kvm_slots_log_sync(set->engine_state);
}

const struct engine engine_kvm = {
    .name = "kvm",
    .native = true,
    .probe = kvm_works_at_speed,
    .obeys = true,
    .set_init = kvm_set_init,
    .set_free = kvm_set_free,
    .vcpu_init = kvm_vcpu_init,
    .vcpu_free = kvm_vcpu_free,
    .run = kvm_engine_run,
    .kick = kvm_kick,
    .flush_tlb = kvm_flush_tlb,
    .report_writes = kvm_report_writes,
    .apics_in = kvm_apics_in,
    .apics_out = kvm_apics_out,
    .apic_message = kvm_apic_message,
};
