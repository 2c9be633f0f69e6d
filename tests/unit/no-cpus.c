// SPDX-License-Identifier: GPL-2.0-or-later
// Stands in for the processors in tests of devices on a machine that has none.
#include "core/cpu/lapic.h"
#include "core/cpu/vcpu.h"

void cpu_set_free(struct cpu_set *set)
{
}

void cpu_set_pause(struct cpu_set *set)
{
}

void cpu_set_resume(struct cpu_set *set)
{
}

void cpu_set_reset(struct cpu_set *set)
{
}

void lapic_send_msi(struct cpu_set *set, uint64_t address, uint32_t data)
{
}
