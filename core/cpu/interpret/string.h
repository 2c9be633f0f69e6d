// SPDX-License-Identifier: GPL-2.0-or-later
// What string instructions share: index registers, their addresses, the direction. Own thread.
#ifndef CLOCHE_INTERPRET_STRING_H
#define CLOCHE_INTERPRET_STRING_H

#include "core/cpu/interpret/interpret.h"

uint64_t string_register(const struct vcpu *v, const struct insn *i, enum gpr reg); // cut to the address size
void string_set_register(struct vcpu *v, const struct insn *i, enum gpr reg, uint64_t value);
int64_t string_step(const struct vcpu *v, const struct insn *i); // by DF
void string_advance(struct vcpu *v, const struct insn *i, enum gpr reg, uint64_t elements);
// Linear addresses of the present element. False: a fault was recorded.
bool string_source(struct vcpu *v, const struct insn *i, uint64_t *linear);
bool string_destination(struct vcpu *v, const struct insn *i, unsigned access, uint64_t *linear);

#endif
