// SPDX-License-Identifier: GPL-2.0-or-later
// The engines of the co-simulating monitor: cosim.c drives the other two.
#include "core/cpu/vcpu.h"

extern const struct engine engine_cosim;

const struct engine *const engines[] = {&engine_cosim, &engine_translate, &engine_interpret, NULL};
