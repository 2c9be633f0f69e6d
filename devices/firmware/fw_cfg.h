// SPDX-License-Identifier: GPL-2.0-or-later
// The channel by which firmware reads what the monitor knows: numbered items and named files (QEMU's fw_cfg
// specification, which SeaBIOS and OVMF speak). Items are filled in before the machine starts.
#ifndef CLOCHE_FW_CFG_H
#define CLOCHE_FW_CFG_H

#include "core/machine/machine.h"

#define FW_CFG_SIGNATURE  0x00
#define FW_CFG_ID         0x01
#define FW_CFG_UUID       0x02
#define FW_CFG_RAM_SIZE   0x03
#define FW_CFG_NB_CPUS    0x05
#define FW_CFG_BOOT_MENU  0x0e
#define FW_CFG_MAX_CPUS   0x0f
#define FW_CFG_FILE_DIR   0x19
#define FW_CFG_FILE_FIRST 0x20

// The bytes are copied. Adding a key or name again replaces it.
void fw_cfg_add(struct fw_cfg *fw_cfg, uint16_t key, const void *data, uint32_t length);
// The same without a copy: parts of mapped files, which machines that start from the same file share.
void fw_cfg_add_bytes(struct fw_cfg *fw_cfg, uint16_t key, GBytes *bytes);
void fw_cfg_add_number(struct fw_cfg *fw_cfg, uint16_t key, uint64_t value, unsigned size);
// Names of up to 55 bytes. False: the directory is full.
bool fw_cfg_add_file(struct fw_cfg *fw_cfg, const char *name, const void *data, uint32_t length);

#endif
