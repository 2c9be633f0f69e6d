// SPDX-License-Identifier: GPL-2.0-or-later
// The set of virtual processors of a machine: creation, pause and resume, requests to all of them, engines.
#include "core/cpu/vcpu.h"

#include <string.h>

#include "core/cpu/arch.h"
#include "core/cpu/interpret/interpret.h"
#include "core/cpu/lapic.h"
#include "core/cpu/model.h"
#include "core/cpu/thread.h"

// ---- Engines ----
static char *engine_names(void)
{
    GString *s = g_string_new("auto");
    for (unsigned i = 0; engines[i]; i++)
        g_string_append_printf(s, ", %s", engines[i]->name);
    return g_string_free(s, false);
}

// The first engine that works here. Why the better ones do not goes to the log.
static const struct engine *engine_auto(void)
{
    for (unsigned i = 0; engines[i]; i++) {
        g_autoptr(GError) reason = NULL;
        if (!engines[i]->probe || engines[i]->probe(&reason))
            return engines[i];
        log_info("cpu", "engine %s is not used: %s", engines[i]->name, reason ? reason->message : "not available");
    }
    return NULL;
}

static const struct engine *engine_find(const char *name, GError **error)
{
    if (!name || strcmp(name, "auto") == 0) {
        const struct engine *engine = engine_auto();
        if (!engine)
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "No CPU engine works on this host.");
        return engine;
    }
    for (unsigned i = 0; engines[i]; i++)
        if (strcmp(engines[i]->name, name) == 0)
            return !engines[i]->probe || engines[i]->obeys || engines[i]->probe(error) ? engines[i] : NULL;
    g_autofree char *names = engine_names();
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "There is no CPU engine \"%s\": choose one of %s.", name,
                names);
    return NULL;
}

// ---- Translations of guest addresses ----
void vcpu_flush_tlb(struct vcpu *vcpu)
{
    interpret_flush_tlb(vcpu);
    if (vcpu->engine->flush_tlb)
        vcpu->engine->flush_tlb(vcpu);
}

void vcpu_flush_page(struct vcpu *vcpu, uint64_t linear)
{
    interpret_flush_page(vcpu, linear);
    if (vcpu->engine->flush_page)
        vcpu->engine->flush_page(vcpu, linear);
    else if (vcpu->engine->flush_tlb)
        vcpu->engine->flush_tlb(vcpu);
}

void vcpu_switch_space(struct vcpu *vcpu, bool keep)
{
    interpret_flush_tlb(vcpu);
    if (vcpu->engine->switch_space)
        vcpu->engine->switch_space(vcpu, keep);
    else if (vcpu->engine->flush_tlb)
        vcpu->engine->flush_tlb(vcpu);
}

struct revocation {
    uint64_t ram_offset, length;
};

static void revoke_here(struct vcpu *v, void *opaque)
{
    const struct revocation *r = opaque;
    if (r->length > 16 * PAGE_SIZE) {
        vcpu_flush_tlb(v);
        return;
    }
    for (uint64_t done = 0; done < r->length; done += PAGE_SIZE) {
        interpret_revoke_page(v, r->ram_offset + done);
        if (v->engine->revoke_page)
            v->engine->revoke_page(v, r->ram_offset + done);
    }
}

static void revoke_range(void *opaque, uint64_t ram_offset, uint64_t length)
{
    struct revocation r = {ram_offset, length};
    cpu_set_run_on_all(opaque, revoke_here, &r);
}

static void revoke_page(void *opaque, uint64_t ram_offset)
{
    revoke_range(opaque, ram_offset, PAGE_SIZE);
}

static void flush_here(struct vcpu *v, void *opaque)
{
    vcpu_flush_tlb(v);
}

static void map_changed(void *opaque)
{
    cpu_set_run_on_all(opaque, flush_here, NULL);
}

// ---- Requests to all ----
void cpu_set_run_on_all(struct cpu_set *set, void (*fn)(struct vcpu *vcpu, void *opaque), void *opaque)
{
    struct vcpu *self = vcpu_current();
    bool in_guest = self && self->set == set && self->in_guest;
    struct vcpu_work work = {.fn = fn, .opaque = opaque};
    g_mutex_init(&work.lock);
    g_cond_init(&work.done);
    for (unsigned i = 0; i < set->count; i++) {
        struct vcpu *v = set->vcpu[i];
        if (v == self)
            fn(v, opaque);
        else if (v && v->thread)
            vcpu_thread_submit(v->thread, &work);
        else if (v)
            fn(v, opaque);
    }
    if (atomic_load(&work.pending) && in_guest)
        vcpu_leave_guest(self); // or two that ask each other would wait for ever
    else
        in_guest = false;
    g_mutex_lock(&work.lock);
    while (atomic_load(&work.pending))
        g_cond_wait(&work.done, &work.lock);
    g_mutex_unlock(&work.lock);
    if (in_guest)
        vcpu_enter_guest(self);
    g_mutex_clear(&work.lock);
    g_cond_clear(&work.done);
}

void vcpu_kick(struct vcpu *vcpu)
{
    if (vcpu->thread)
        vcpu_thread_wake(vcpu->thread);
    if (vcpu->engine->kick)
        vcpu->engine->kick(vcpu);
}

void vcpu_raise(struct vcpu *vcpu, uint32_t attention_bits)
{
    uint32_t old = atomic_fetch_or(&vcpu->attention, attention_bits);
    if (vcpu->thread) // a halted vCPU looks again even if the bit was set: what it waits for may have changed
        vcpu_thread_wake(vcpu->thread);
    if ((old & attention_bits) != attention_bits && vcpu->engine->kick)
        vcpu->engine->kick(vcpu);
}

void cpu_set_resume(struct cpu_set *set)
{
    if (set->engine->apics_in)
        set->engine->apics_in(set);
    for (unsigned i = 0; i < set->count; i++)
        vcpu_thread_resume(set->vcpu[i]->thread);
}

void cpu_set_pause(struct cpu_set *set)
{
    for (unsigned i = 0; i < set->count; i++)
        vcpu_thread_request_park(set->vcpu[i]->thread);
    for (unsigned i = 0; i < set->count; i++)
        vcpu_thread_wait_parked(set->vcpu[i]->thread);
    if (set->engine->apics_out)
        set->engine->apics_out(set);
}

void cpu_set_reset(struct cpu_set *set)
{
    for (unsigned i = 0; i < set->count; i++)
        vcpu_reset(set->vcpu[i]);
    for (unsigned i = 1; i < set->count; i++) // one instant for all
        set->vcpu[i]->tsc_offset = set->vcpu[0]->tsc_offset;
}

// ---- Interrupts ----
bool vcpu_interrupt_pending(struct vcpu *vcpu)
{
    return lapic_pending(vcpu->lapic) >= 0 || lapic_extint_pending(vcpu->lapic);
}

int vcpu_take_interrupt(struct vcpu *vcpu)
{
    int vector = lapic_acknowledge(vcpu->lapic);
    const struct cpu_host *host = &vcpu->set->host;
    if (vector < 0 && host->pic_acknowledge && lapic_extint_pending(vcpu->lapic)) {
        io_lock_take(host->lock);
        vector = host->pic_acknowledge(host->opaque);
        io_lock_release(host->lock);
    }
    if (vector >= 0) {
        vcpu->interrupts++;
        if (vcpu_interrupt_pending(vcpu))
            vcpu_raise(vcpu, ATTENTION_INTERRUPT);
    }
    return vector;
}

// ---- Life ----
static void vcpu_free(struct vcpu *v)
{
    if (!v)
        return;
    if (v->engine->vcpu_free && v->engine_ready)
        v->engine->vcpu_free(v);
    interpret_detach(v);
    lapic_free(v->lapic);
    free(v);
}

static bool vcpu_new(struct cpu_set *set, unsigned index, GError **error)
{
    struct vcpu *v = aligned_alloc(_Alignof(struct vcpu), sizeof(struct vcpu));
    memset(v, 0, sizeof(*v));
    v->index = index;
    v->apic_id = index;
    v->set = set;
    v->engine = set->engine;
    v->lapic = lapic_new(v);
    set->vcpu[index] = v;
    if (!interpret_attach(v, error))
        return false;
    if (set->engine->vcpu_init && !set->engine->vcpu_init(v, error))
        return false;
    v->engine_ready = true;
    return true;
}

struct cpu_set *cpu_set_new(const struct cpu_host *host, const char *model, const char *engine, unsigned count,
                            GError **error)
{
    if (count < 1 || count > VCPU_MAX) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "%u processors cannot be had: choose 1 to %u.", count,
                    VCPU_MAX);
        return NULL;
    }
    const struct engine *e = engine_find(engine, error);
    struct cpu_model *m = e ? cpu_model_new(model, e->native, error) : NULL;
    if (!m)
        return NULL;
    struct cpu_set *set = g_new0(struct cpu_set, 1);
    set->host = *host;
    set->engine = e;
    set->model = m;
    set->tsc_khz = 1000000; // guest nanoseconds
    g_mutex_init(&set->exclusive_lock);
    bool ok = !e->set_init || e->set_init(set, error);
    set->engine_ready = ok;
    for (unsigned i = 0; ok && i < count; i++) {
        set->count++;
        ok = vcpu_new(set, i, error);
    }
    if (!ok) {
        cpu_set_free(set);
        return NULL;
    }
    ram_set_revoke(host->ram, revoke_page, set);
    ram_set_revoke_range(host->ram, revoke_range);
    if (host->memory)
        address_space_set_changed(host->memory, map_changed, set);
    for (unsigned i = 0; i < count; i++)
        vcpu_thread_new(set->vcpu[i]);
    cpu_set_reset(set);
    return set;
}

void cpu_set_free(struct cpu_set *set)
{
    if (!set)
        return;
    for (unsigned i = 0; i < set->count; i++) {
        if (set->vcpu[i] && set->vcpu[i]->thread)
            vcpu_thread_free(set->vcpu[i]->thread);
        if (set->vcpu[i])
            set->vcpu[i]->thread = NULL;
    }
    ram_set_revoke(set->host.ram, NULL, NULL);
    ram_set_revoke_range(set->host.ram, NULL);
    if (set->host.memory)
        address_space_set_changed(set->host.memory, NULL, NULL);
    for (unsigned i = 0; i < set->count; i++)
        vcpu_free(set->vcpu[i]);
    if (set->engine->set_free && set->engine_ready)
        set->engine->set_free(set);
    g_mutex_clear(&set->exclusive_lock);
    g_free((void *)set->model);
    g_free(set);
}
