// SPDX-License-Identifier: GPL-2.0-or-later
// What the machine says about itself to dmidecode and Windows (SMBIOS 2.8 reference specification).
#ifndef CLOCHE_SMBIOS_H
#define CLOCHE_SMBIOS_H

#include "core/machine/machine.h"

// UUID: 16 bytes, or NULL. Files etc/smbios/smbios-tables and -anchor.
void smbios_offer(struct machine *machine, struct fw_cfg *fw_cfg, const uint8_t *uuid);
// The same in guest memory: anchor at ADDRESS (16-byte aligned), tables behind it.
void smbios_place(struct machine *machine, uint64_t address);

#endif
