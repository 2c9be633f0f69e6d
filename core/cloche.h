// SPDX-License-Identifier: GPL-2.0-or-later
// The public header of Cloche's core: all that the monitor's main, and a test that runs a whole machine, need.
//
//     struct machine_options *options = machine_options_new();   describe it (or config_load() a machine.conf)
//     struct machine *machine = machine_new(options, &error);    build it
//     machine_start(machine, &error);                            run it; events arrive on the main loop
//     machine_free(machine);
#ifndef CLOCHE_H
#define CLOCHE_H

#include "core/base/base.h"
#include "core/machine/machine.h"
#include "core/machine/options.h"
#include "core/screen/input.h"
#include "core/screen/surface.h"

#endif
