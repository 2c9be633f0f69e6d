// SPDX-License-Identifier: GPL-2.0-or-later
// What the devices of the chipset call of each other; the board connects them. Machine lock held unless said otherwise.
#ifndef CLOCHE_CHIPSET_H
#define CLOCHE_CHIPSET_H

#include "core/machine/machine.h"
#include "core/machine/pci.h"

// i8259.c: both interrupt controllers. OUTPUT is INTR, wired to LINT0.
void i8259_set_irq(struct device *pic, unsigned irq, bool level);
int i8259_acknowledge(struct device *pic); // vector, or -1: nothing to deliver
void i8259_set_output(struct device *pic, struct irq output);

// ioapic.c
void ioapic_set_irq(struct device *ioapic, unsigned pin, bool level);
void ioapic_eoi(struct device *ioapic, uint8_t vector);

// i8254.c. Port 0x61 is part of it: gate and output of channel 2 (speaker).
void i8254_set_irq0_enabled(struct device *pit, bool enabled); // off while the HPET replaces it

// rtc.c: bytes that firmware reads (memory size, drives), also for other devices of the board.
void rtc_set_cmos(struct device *rtc, unsigned index, uint8_t value);
void rtc_set_irq8_enabled(struct device *rtc, bool enabled); // off while the HPET replaces it

// hpet.c
struct hpet_wiring {
    struct device *pit, *rtc;
};

// piix4_pm.c: what firmware programs, done by the board when no firmware runs.
void piix4_pm_set_base(struct device *pm, uint16_t pm_base, uint16_t smbus_base);
// i440fx.c: all of 0xC0000-0xFFFFF to RAM, as firmware leaves it.
void i440fx_open_pam(struct device *host);
void i440fx_set_bios(struct device *host, uint64_t ram_offset, uint64_t size); // the ROM that 0xE0000 shows at reset

// i8237.c: one transfer on an ISA DMA channel (0-3, 5-7). Moves up to LENGTH bytes between memory and DATA and returns how
// many before the terminal count; 0 when the channel is masked or programmed for the other direction.
unsigned i8237_to_device(struct device *dma, unsigned channel, void *data, unsigned length);
unsigned i8237_from_device(struct device *dma, unsigned channel, const void *data, unsigned length);
bool i8237_terminal_count(struct device *dma, unsigned channel); // the last transfer reached it

#define ISA_IRQ_TIMER    0
#define ISA_IRQ_KEYBOARD 1
#define ISA_IRQ_RTC      8
#define ISA_IRQ_SCI      9
#define ISA_IRQ_MOUSE    12
#define ISA_IRQ_FPU      13

#define PM_BASE    0x600
#define SMBUS_BASE 0x700
#define HPET_BASE  0xfed00000ull
#define IOAPIC_BASE 0xfec00000ull

#endif
