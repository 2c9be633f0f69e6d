// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/cpu/thread.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cpu/arch.h"
#include "core/cpu/interpret/interpret.h"
#include "core/cpu/lapic.h"

// Threads: LOCK guards all that follows it; the two words before it are a futex, so that waking needs no lock (devices
// and local APICs wake with locks of their own held).
struct vcpu_thread {
    struct vcpu *vcpu;
    pthread_t thread;
    struct lock_waiter waiter;
    _Atomic uint32_t wake_sequence;
    _Atomic bool sleeping;
    GMutex lock;
    GCond run_changed, parked_changed;
    bool run, quit, parked, inside;
    int id;      // of the host, 0 until it has begun
    GQueue work; // struct vcpu_work *
};

static _Thread_local struct vcpu *current;

struct vcpu *vcpu_current(void)
{
    return current;
}

// ---- Work from other threads ----
static void finish_work(struct vcpu_work *work)
{
    g_mutex_lock(&work->lock);
    if (atomic_fetch_sub(&work->pending, 1) == 1)
        g_cond_broadcast(&work->done);
    g_mutex_unlock(&work->lock);
}

static void drain_locked(struct vcpu_thread *t)
{
    for (struct vcpu_work *work; (work = g_queue_pop_head(&t->work));) {
        work->fn(t->vcpu, work->opaque);
        finish_work(work);
    }
}

void vcpu_run_queued(struct vcpu *vcpu)
{
    struct vcpu_thread *t = vcpu->thread;
    struct cpu_set *set = vcpu->set;
    if (!t)
        return;
    g_mutex_lock(&t->lock);
    // Cleared only here, where the engine asks: it has work of its own behind this bit (writes to code).
    atomic_fetch_and(&vcpu->attention, ~(uint32_t)ATTENTION_FLUSH);
    drain_locked(t);
    if (atomic_load(&set->exclusive)) {
        t->inside = false;
        g_cond_broadcast(&t->parked_changed);
        g_mutex_unlock(&t->lock);
        g_mutex_lock(&set->exclusive_lock); // until the other has finished
        g_mutex_unlock(&set->exclusive_lock);
        g_mutex_lock(&t->lock);
        t->inside = true;
    }
    g_mutex_unlock(&t->lock);
}

// Between the two the other vCPUs' thread locks are held, so none of them can enter. Nothing that takes a lock may
// happen.
void vcpu_exclusive_begin(struct vcpu *v)
{
    struct cpu_set *set = v->set;
    vcpu_leave_guest(v);
    g_mutex_lock(&set->exclusive_lock);
    atomic_store(&set->exclusive, true);
    for (unsigned i = 0; i < set->count; i++) {
        struct vcpu_thread *t = set->vcpu[i]->thread;
        if (set->vcpu[i] == v || !t)
            continue;
        g_mutex_lock(&t->lock);
        while (t->inside) {
            vcpu_raise(t->vcpu, ATTENTION_FLUSH);
            g_cond_wait(&t->parked_changed, &t->lock);
        }
    }
}

void vcpu_exclusive_end(struct vcpu *v)
{
    struct cpu_set *set = v->set;
    for (unsigned i = 0; i < set->count; i++) {
        struct vcpu_thread *t = set->vcpu[i]->thread;
        if (set->vcpu[i] != v && t)
            g_mutex_unlock(&t->lock);
    }
    atomic_store(&set->exclusive, false);
    g_mutex_unlock(&set->exclusive_lock);
    vcpu_enter_guest(v);
}

void vcpu_leave_guest(struct vcpu *vcpu)
{
    g_mutex_lock(&vcpu->thread->lock);
    drain_locked(vcpu->thread);
    vcpu->thread->inside = false;
    g_cond_broadcast(&vcpu->thread->parked_changed); // for an exclusive section
    g_mutex_unlock(&vcpu->thread->lock);
}

void vcpu_enter_guest(struct vcpu *vcpu)
{
    g_mutex_lock(&vcpu->thread->lock);
    vcpu->thread->inside = true;
    g_mutex_unlock(&vcpu->thread->lock);
}

bool vcpu_thread_submit(struct vcpu_thread *thread, struct vcpu_work *work)
{
    g_mutex_lock(&thread->lock);
    bool here = !thread->inside;
    if (here) {
        work->fn(thread->vcpu, work->opaque);
    } else {
        atomic_fetch_add(&work->pending, 1);
        g_queue_push_tail(&thread->work, work);
        vcpu_raise(thread->vcpu, ATTENTION_FLUSH);
    }
    g_mutex_unlock(&thread->lock);
    return here;
}

// While the vCPU waits for the machine lock it is outside.
static void lock_wait_begin(void *opaque)
{
    struct vcpu_thread *t = opaque;
    g_mutex_lock(&t->lock);
    if (t->inside) {
        drain_locked(t);
        t->inside = false;
        g_cond_broadcast(&t->parked_changed);
    }
    g_mutex_unlock(&t->lock);
}

static void lock_wait_end(void *opaque)
{
    struct vcpu_thread *t = opaque;
    // The state to return to: inside only within engine->run().
    g_mutex_lock(&t->lock);
    t->inside = t->vcpu->in_guest;
    g_mutex_unlock(&t->lock);
}

// ---- The loop ----
static void serve_signals(struct vcpu *v)
{
    uint32_t bits =
        atomic_fetch_and(&v->attention, ~(uint32_t)(ATTENTION_INIT | ATTENTION_SIPI | ATTENTION_RESET | ATTENTION_SMI));
    if (bits & ATTENTION_RESET)
        vcpu_reset(v);
    if (bits & ATTENTION_INIT)
        vcpu_init(v);
    if ((bits & ATTENTION_SIPI) && v->activity == VCPU_WAIT_FOR_SIPI)
        vcpu_sipi(v, lapic_sipi_vector(v->lapic));
}

// Has a halted vCPU something to do?
static bool wakes(struct vcpu *v)
{
    uint32_t bits = atomic_load(&v->attention);
    if (bits & (ATTENTION_STOP | ATTENTION_INIT | ATTENTION_SIPI | ATTENTION_RESET))
        return true;
    if (v->activity != VCPU_HALTED)
        return false;
    if ((bits & ATTENTION_NMI) && !v->nmi_blocked)
        return true;
    return (bits & ATTENTION_INTERRUPT) && (v->rflags & FLAG_IF) && vcpu_interrupt_pending(v);
}

static void wait_for_event(struct vcpu_thread *t)
{
    struct vcpu *v = t->vcpu;
    for (;;) {
        uint32_t sequence = atomic_load(&t->wake_sequence);
        atomic_store(&t->sleeping, true);
        if (wakes(v))
            break;
        syscall(SYS_futex, &t->wake_sequence, FUTEX_WAIT_PRIVATE, sequence, NULL, NULL, 0);
    }
    atomic_store(&t->sleeping, false);
    uint32_t bits = atomic_load(&v->attention);
    if (v->activity == VCPU_HALTED && (bits & (ATTENTION_NMI | ATTENTION_INTERRUPT))) {
        bool interrupt = (v->rflags & FLAG_IF) && vcpu_interrupt_pending(v);
        if (interrupt || ((bits & ATTENTION_NMI) && !v->nmi_blocked))
            v->activity = VCPU_RUNNING;
    }
}

static void run_guest(struct vcpu *v)
{
    v->in_guest = true;
    vcpu_enter_guest(v);
    enum engine_exit exit = v->engine->run(v);
    v->in_guest = false;
    vcpu_leave_guest(v);
    const struct cpu_host *host = &v->set->host;
    switch (exit) {
    case ENGINE_EXIT_HALT:
        v->activity = VCPU_HALTED;
        break;
    case ENGINE_EXIT_SHUTDOWN:
        v->activity = VCPU_SHUTDOWN;
        if (host->shutdown)
            host->shutdown(host->opaque, v, "triple fault");
        break;
    case ENGINE_EXIT_ERROR: // the engine has reported it
        v->activity = VCPU_SHUTDOWN;
        break;
    case ENGINE_EXIT_ATTENTION:
        break;
    }
}

// Parks until resumed. False: the thread ends.
static bool wait_for_run(struct vcpu_thread *t)
{
    g_mutex_lock(&t->lock);
    while (!t->run && !t->quit) {
        if (!t->parked) {
            t->parked = true;
            if (t->vcpu->engine->state_out)
                t->vcpu->engine->state_out(t->vcpu);
            g_cond_broadcast(&t->parked_changed);
        }
        g_cond_wait(&t->run_changed, &t->lock);
    }
    bool go = !t->quit;
    // Together with the look at `run`: a stop that is asked for from here on is seen by the engine.
    atomic_fetch_and(&t->vcpu->attention, ~(uint32_t)ATTENTION_STOP);
    if (go && t->parked) {
        t->parked = false;
        if (t->vcpu->engine->state_in)
            t->vcpu->engine->state_in(t->vcpu);
    }
    g_mutex_unlock(&t->lock);
    return go;
}

static void *thread_main(void *opaque)
{
    struct vcpu_thread *t = opaque;
    struct vcpu *v = t->vcpu;
    current = v;
    t->waiter = (struct lock_waiter){lock_wait_begin, lock_wait_end, t};
    io_lock_set_waiter(&t->waiter);
    g_mutex_lock(&t->lock);
    t->id = gettid();
    g_mutex_unlock(&t->lock);
    while (wait_for_run(t)) {
        serve_signals(v);
        if (v->activity == VCPU_RUNNING || (v->engine->apics_in && v->activity != VCPU_SHUTDOWN))
            run_guest(v);
        else
            wait_for_event(t);
    }
    return NULL;
}

// ---- Control ----
struct vcpu_thread *vcpu_thread_new(struct vcpu *vcpu)
{
    struct vcpu_thread *t = g_new0(struct vcpu_thread, 1);
    t->vcpu = vcpu;
    g_mutex_init(&t->lock);
    g_cond_init(&t->run_changed);
    g_cond_init(&t->parked_changed);
    g_queue_init(&t->work);
    vcpu->thread = t;
    pthread_create(&t->thread, NULL, thread_main, t);
    char name[16];
    g_snprintf(name, sizeof(name), "vcpu%u", vcpu->index);
    pthread_setname_np(t->thread, name);
    return t;
}

void vcpu_thread_free(struct vcpu_thread *thread)
{
    if (!thread)
        return;
    g_mutex_lock(&thread->lock);
    thread->quit = true;
    thread->run = false;
    g_cond_broadcast(&thread->run_changed);
    g_mutex_unlock(&thread->lock);
    vcpu_raise(thread->vcpu, ATTENTION_STOP);
    pthread_join(thread->thread, NULL);
    g_mutex_clear(&thread->lock);
    g_cond_clear(&thread->run_changed);
    g_cond_clear(&thread->parked_changed);
    g_queue_clear(&thread->work);
    g_free(thread);
}

void vcpu_thread_resume(struct vcpu_thread *thread)
{
    g_mutex_lock(&thread->lock);
    thread->run = true;
    g_cond_broadcast(&thread->run_changed);
    g_mutex_unlock(&thread->lock);
}

void vcpu_thread_request_park(struct vcpu_thread *thread)
{
    g_mutex_lock(&thread->lock);
    thread->run = false;
    g_cond_broadcast(&thread->run_changed);
    g_mutex_unlock(&thread->lock);
    vcpu_raise(thread->vcpu, ATTENTION_STOP);
}

void vcpu_thread_wait_parked(struct vcpu_thread *thread)
{
    g_mutex_lock(&thread->lock);
    while (!thread->parked)
        g_cond_wait(&thread->parked_changed, &thread->lock);
    g_mutex_unlock(&thread->lock);
}

int vcpu_thread_id(const struct vcpu *vcpu)
{
    struct vcpu_thread *t = vcpu->thread;
    g_mutex_lock(&t->lock);
    while (!t->id) // the first thing that it does is to park
        g_cond_wait(&t->parked_changed, &t->lock);
    int id = t->id;
    g_mutex_unlock(&t->lock);
    return id;
}

void vcpu_thread_wake(struct vcpu_thread *thread)
{
    atomic_fetch_add(&thread->wake_sequence, 1);
    if (atomic_load(&thread->sleeping))
        syscall(SYS_futex, &thread->wake_sequence, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
