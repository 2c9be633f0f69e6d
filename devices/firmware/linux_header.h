// SPDX-License-Identifier: GPL-2.0-or-later
// The setup header of a Linux kernel file (kernel documentation, arch/x86/boot: "The Linux/x86 Boot Protocol"), as both
// ways of starting one read it. Protocols 2.00 to 2.15.
#ifndef CLOCHE_LINUX_HEADER_H
#define CLOCHE_LINUX_HEADER_H

#include <string.h>

#include "core/base/base.h"

// Offsets in the kernel file, and in the boot parameters ("zero page") that the 32-bit and 64-bit entry points take.
#define LINUX_SETUP_SECTS     0x1f1
#define LINUX_VIDEO_MODE      0x1fa
#define LINUX_BOOT_FLAG       0x1fe
#define LINUX_MAGIC           0x202
#define LINUX_VERSION         0x206
#define LINUX_TYPE_OF_LOADER  0x210
#define LINUX_LOADFLAGS       0x211
#define LINUX_CODE32_START    0x214
#define LINUX_RAMDISK_IMAGE   0x218
#define LINUX_RAMDISK_SIZE    0x21c
#define LINUX_HEAP_END        0x224 // from 2.01
#define LINUX_CMD_LINE_PTR    0x228 // from 2.02
#define LINUX_INITRD_ADDR_MAX 0x22c // from 2.03
#define LINUX_XLOADFLAGS      0x236 // from 2.12
#define LINUX_CMDLINE_SIZE    0x238 // from 2.06
#define LINUX_INIT_SIZE       0x260 // from 2.10
#define LINUX_HEADER_END      0x268

#define LINUX_LOADED_HIGH  0x01 // in LOADFLAGS: protected-mode code at 1 MiB, else at 64 KiB
#define LINUX_CAN_USE_HEAP 0x80
#define LINUX_KERNEL_64    0x01 // in XLOADFLAGS

#define LINUX_HIGH_ADDRESS 0x100000
#define LINUX_LOW_ADDRESS  0x10000

// SIZE: how much of the file is at hand.
static inline bool linux_recognise(const uint8_t *kernel, size_t size)
{
    return size > LINUX_HEADER_END && load_le(kernel + LINUX_BOOT_FLAG, 2) == 0xaa55 &&
           memcmp(kernel + LINUX_MAGIC, "HdrS", 4) == 0;
}

static inline unsigned linux_version(const uint8_t *kernel)
{
    return load_le(kernel + LINUX_VERSION, 2);
}

static inline bool linux_loaded_high(const uint8_t *kernel)
{
    return kernel[LINUX_LOADFLAGS] & LINUX_LOADED_HIGH;
}

// Bytes of real-mode code at the start of the file, its boot sector included.
static inline size_t linux_setup_size(const uint8_t *kernel)
{
    unsigned sectors = kernel[LINUX_SETUP_SECTS];
    return ((sectors ? sectors : 4) + 1) * 512;
}

// The highest address that the initial RAM disk's last byte may have.
static inline uint64_t linux_initrd_limit(const uint8_t *kernel)
{
    return linux_version(kernel) >= 0x203 ? load_le(kernel + LINUX_INITRD_ADDR_MAX, 4) : 0x37ffffff;
}

#endif
