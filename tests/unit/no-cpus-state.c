// SPDX-License-Identifier: GPL-2.0-or-later
// Beside no-cpus.c, for tests of saving and of the control server on a machine without processors.
#include "core/cpu/arch.h"
#include "core/cpu/lapic.h"
#include "core/cpu/model.h"
#include "core/cpu/vcpu.h"

const struct field vcpu_fields[] = {FIELD_END};
const struct field lapic_fields[] = {FIELD_END};

void vcpu_raise(struct vcpu *vcpu, uint32_t attention_bits)
{
}

void *lapic_state(struct lapic *lapic)
{
    return lapic;
}

void lapic_loaded(struct lapic *lapic)
{
}

void vcpu_flush_tlb(struct vcpu *vcpu)
{
}

int vcpu_thread_id(const struct vcpu *vcpu)
{
    return 0;
}

uint32_t cpu_model_extensions(const struct cpu_model *model)
{
    return 0;
}

const char *cpu_extension_name(unsigned bit)
{
    return "none";
}
