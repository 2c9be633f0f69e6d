// SPDX-License-Identifier: GPL-2.0-or-later
// The engines, best first: `auto` takes the first one that works here.
#include "core/cpu/vcpu.h"

const struct engine *const engines[] = {
#ifdef __x86_64__
    &engine_kvm,
    &engine_translate,
#endif
    &engine_interpret,
    NULL,
};
