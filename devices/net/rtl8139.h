// SPDX-License-Identifier: GPL-2.0-or-later
// Between rtl8139.c, which has the registers and the ways of the 8139C, and rtl8139_cplus.c, which has the descriptor
// rings of the 8139C+.
#ifndef CLOCHE_RTL8139_H
#define CLOCHE_RTL8139_H

#include "core/machine/pci.h"
#include "devices/net/card.h"

#define RTL8139_REGISTERS   0x100
#define RTL8139_EEPROM_SIZE 64  // words
#define RTL8139_RING_MAX    64u // descriptors

enum { RTL8139_DTCCR = 0x10, RTL8139_TPPOLL = 0xd9 };
enum { RTL8139_ISR_ROK = 0x01, RTL8139_ISR_TOK = 0x04, RTL8139_ISR_RXOVW = 0x10, RTL8139_ISR_TDU = 0x80 };
enum { RTL8139_RX_BROADCAST = 0x2000, RTL8139_RX_PHYSICAL = 0x4000, RTL8139_RX_MULTICAST = 0x8000 };

// Machine lock. Most registers are plain bytes.
struct rtl8139 {
    struct pci_device pci; // first
    struct card card;
    struct region ports, memory;
    bool cplus; // an 8139C+
    uint8_t regs[RTL8139_REGISTERS];
    uint16_t eeprom[RTL8139_EEPROM_SIZE];
    uint16_t eeprom_in, eeprom_out;
    uint8_t eeprom_count;
    bool eeprom_reading;
    int64_t timer_start;
    uint32_t send_at, receive_at; // the rings' next descriptors
};

void rtl8139_add_causes(struct rtl8139 *rtl, uint16_t causes); // interrupts

// ---- rtl8139_cplus.c ----
// Whether the driver has switched descriptors on for sending, for receiving.
bool rtl8139_sends_by_ring(const struct rtl8139 *rtl);
bool rtl8139_receives_by_ring(const struct rtl8139 *rtl);
// The driver asks for the frames of the normal ring to be sent.
void rtl8139_send_ring(struct rtl8139 *rtl);
// KIND: what sort of address it was for, RTL8139_RX_*. False: there is no room, and the driver was told.
bool rtl8139_receive_ring(struct rtl8139 *rtl, const uint8_t *frame, size_t length, uint16_t kind);
// Stores the tally counters where register DTCCR says, if it asks for them.
void rtl8139_dump_tally(struct rtl8139 *rtl);

#endif
