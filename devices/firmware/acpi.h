// SPDX-License-Identifier: GPL-2.0-or-later
// The board's ACPI tables (ACPI 6.4, chapter 5): built once, then either handed to firmware through fw_cfg's table loader or
// placed in guest memory by the board itself when no firmware runs.
#ifndef CLOCHE_ACPI_H
#define CLOCHE_ACPI_H

#include "core/machine/machine.h"

struct acpi_tables;

struct acpi_tables *acpi_tables_new(unsigned cpus);
void acpi_tables_free(struct acpi_tables *tables);
// Files etc/acpi/tables, etc/acpi/rsdp and etc/table-loader.
void acpi_tables_offer(const struct acpi_tables *tables, struct fw_cfg *fw_cfg);
// Writes everything at ADDRESS, the root pointer first; returns how many bytes.
uint64_t acpi_tables_place(const struct acpi_tables *tables, struct address_space *memory, uint64_t address);

#endif
