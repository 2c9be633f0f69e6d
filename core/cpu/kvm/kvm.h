// SPDX-License-Identifier: GPL-2.0-or-later
// The inside of the KVM engine.
#ifndef CLOCHE_KVM_H
#define CLOCHE_KVM_H

#include "core/base/base.h"

// Nanoseconds that one ring-0 instruction takes under the host's KVM; below 0 with a GError when it cannot be had.
double kvm_calibrate(GError **error);
// Is it worth choosing? The error says what was measured.
bool kvm_works_at_speed(GError **error);

#endif
