// SPDX-License-Identifier: GPL-2.0-or-later
// Starting a Linux kernel through SeaBIOS: an option ROM takes the kernel from fw_cfg, so that the VGA BIOS has run and the
// kernel's real-mode code sets the video mode that `vga=` asks for.
#ifndef CLOCHE_KERNEL_ROM_H
#define CLOCHE_KERNEL_ROM_H

#include "devices/firmware/fw_cfg.h"

struct machine_options;

// True when the file is a Linux kernel (boot protocol 2.00 or later).
bool kernel_rom_suits(const char *kernel);
// True when it can only be started so: by its real-mode code (protocols before 2.02, and kernels that are loaded low).
bool kernel_rom_needed(const char *kernel);
// Offers kernel, initial RAM disk, command line and ROM, and makes the ROM the only boot device.
bool kernel_rom_offer(struct machine *machine, const struct machine_options *options, GError **error);

#endif
