// SPDX-License-Identifier: GPL-2.0-or-later
// What the guest did that the kernel leaves to us, by exit reason.
#include "core/cpu/kvm/kvm.h"
#include "core/cpu/interpret/interpret.h"

static int exit_io(struct kvm_cpu *c)
{
    struct kvm_run *r = c->run;
    uint8_t *data = (uint8_t *)r + r->io.data_offset;
    struct address_space *ports = c->vcpu->set->host.ports;
    unsigned size = r->io.size;
    for (unsigned n = 0; n < r->io.count; n++, data += size) {
        if (r->io.direction == KVM_EXIT_IO_OUT)
            address_space_store(ports, r->io.port, load_le(data, size), size);
        else
            store_le(data, size, address_space_load(ports, r->io.port, size));
    }
    c->vcpu->io_exits++;
    return KVM_GO_ON;
}

static int exit_mmio(struct kvm_cpu *c)
{
    struct kvm_run *r = c->run;
    uint64_t gpa = r->mmio.phys_addr;
    unsigned size = MIN(r->mmio.len, 8u);
    struct vcpu *v = c->vcpu;
    v->io_exits++;
    if (r->mmio.is_write)
        address_space_write(v->set->host.memory, gpa, r->mmio.data, size);
    else
        address_space_read(v->set->host.memory, gpa, r->mmio.data, size);
    return KVM_GO_ON;
}

static int exit_msr(struct kvm_cpu *c)
{
    struct kvm_run *r = c->run;
    uint64_t value = r->msr.data;
    bool ok = r->exit_reason == KVM_EXIT_X86_RDMSR ? vcpu_read_msr(c->vcpu, r->msr.index, &value)
                                                   : vcpu_write_msr(c->vcpu, r->msr.index, value);
    r->msr.data = value;
    r->msr.error = !ok;
    c->vcpu->event_pending = false; // the kernel raises #GP
    return KVM_GO_ON;
}

// The end of an interrupt that the I/O APIC had sent.
static int exit_eoi(struct kvm_cpu *c)
{
    const struct cpu_host *host = &c->vcpu->set->host;
    if (!host->eoi)
        return KVM_GO_ON;
    io_lock_take(host->lock);
    host->eoi(host->opaque, c->run->eoi.vector);
    io_lock_release(host->lock);
    return KVM_GO_ON;
}

static int exit_shutdown(struct kvm_cpu *c)
{
    return 1 + ENGINE_EXIT_SHUTDOWN;
}

static int exit_go_on(struct kvm_cpu *c)
{
    return KVM_GO_ON;
}

int kvm_report(struct kvm_cpu *c, const char *what, uint64_t detail)
{
    const struct cpu_host *host = &c->vcpu->set->host;
    g_autofree char *text = g_strdup_printf("KVM cannot go on: %s (%lx)", what, (unsigned long)detail);
    log_error("kvm", "vcpu %u: %s", c->vcpu->index, text);
    if (host->shutdown)
        host->shutdown(host->opaque, c->vcpu, text);
    return 1 + ENGINE_EXIT_ERROR;
}

// The kernel's emulator does not know an instruction: ours does.
static int interpret_one(struct kvm_cpu *c)
{
    struct vcpu *v = c->vcpu;
    kvm_slots_log_sync(v->set->engine_state); // what the guest wrote to code that we decoded
    interpret_flush_tlb(v);
    if (!kvm_state_get(c))
        return kvm_report(c, "it does not give the processor's state", 0);
    enum engine_exit exit = interpret_run(v, 1);
    if (!kvm_state_put(c))
        return kvm_report(c, "it refuses the processor's state", 0);
    return exit == ENGINE_EXIT_ATTENTION ? KVM_GO_ON : 1 + (int)exit;
}

static int exit_internal(struct kvm_cpu *c)
{
    static const char *const names[] = {"", "an instruction could not be emulated", "simultaneous exceptions",
                                        "an exit during event delivery", "an unexpected exit"};
    unsigned n = c->run->internal.suberror;
    if (n == KVM_INTERNAL_ERROR_EMULATION)
        return interpret_one(c);
    return kvm_report(c, n < G_N_ELEMENTS(names) ? names[n] : "internal error", n);
}

static int exit_entry(struct kvm_cpu *c)
{
    return kvm_report(c, "the processor refuses the guest's state", c->run->fail_entry.hardware_entry_failure_reason);
}

typedef int exit_handler(struct kvm_cpu *c);
static exit_handler *const handlers[] = {
    [KVM_EXIT_IO] = exit_io,
    [KVM_EXIT_MMIO] = exit_mmio,
    [KVM_EXIT_X86_RDMSR] = exit_msr,
    [KVM_EXIT_X86_WRMSR] = exit_msr,
    [KVM_EXIT_SHUTDOWN] = exit_shutdown,
    [KVM_EXIT_IRQ_WINDOW_OPEN] = exit_go_on,
    [KVM_EXIT_INTR] = exit_go_on,
    [KVM_EXIT_SET_TPR] = exit_go_on,
    [KVM_EXIT_IOAPIC_EOI] = exit_eoi,
    [KVM_EXIT_INTERNAL_ERROR] = exit_internal,
    [KVM_EXIT_FAIL_ENTRY] = exit_entry,
};

int kvm_exit_serve(struct kvm_cpu *c)
{
    unsigned reason = c->run->exit_reason;
    if (reason < G_N_ELEMENTS(handlers) && handlers[reason])
        return handlers[reason](c);
    return kvm_report(c, "an exit of unknown reason", reason);
}
