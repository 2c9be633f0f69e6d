// SPDX-License-Identifier: GPL-2.0-or-later
// Hardware task switching (SDM vol. 3, chapter 8).
#ifndef CLOCHE_TASK_H
#define CLOCHE_TASK_H

#include "core/cpu/arch.h"

enum task_reason { TASK_JUMP, TASK_CALL, TASK_IRET, TASK_GATE };
// An interrupt or exception through a task gate; RIP is what the old task returns to.
bool vcpu_task_switch_event(struct vcpu *v, uint16_t selector, unsigned external, bool has_error, uint32_t error);

#endif
