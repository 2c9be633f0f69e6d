// SPDX-License-Identifier: GPL-2.0-or-later
// The monitor that adapters say is plugged in. (VESA Enhanced EDID Standard 1.4)
#ifndef CLOCHE_EDID_H
#define CLOCHE_EDID_H

#include "core/base/base.h"

#define EDID_SIZE 128

// A monitor that likes WIDTH x HEIGHT (clamped to 64..4095) at 60 Hz best, and the usual sizes up to it too.
void edid_make(uint8_t edid[EDID_SIZE], unsigned width, unsigned height, unsigned serial);

#endif
