// SPDX-License-Identifier: GPL-2.0-or-later
// Registers, transfer request blocks and the state of the xHCI (xhci.c).
#ifndef CLOCHE_XHCI_H
#define CLOCHE_XHCI_H

#include "core/machine/pci.h"
#include "devices/usb/usb.h"

#define MMIO_SIZE   0x4000
#define OPERATIONAL 0x40
#define PORTS_AT    0x440
#define EXTENDED    0x800
#define RUNTIME     0x1000
#define INTERRUPTER 0x1020
#define DOORBELLS   0x2000

#define USB2_PORTS 4
#define PORTS      8
#define SLOTS      8
#define ENDPOINTS  32
#define TRB_SIZE   16
#define RING_STEPS 512 // TRBs that one doorbell may take

enum { CMD_RUN = 1, CMD_RESET = 2, CMD_INTERRUPTS = 4 };
enum { STS_HALTED = 1, STS_EVENT = 8, STS_PORT = 16 };
enum {
    PORT_CONNECTED = 1,
    PORT_ENABLED = 2,
    PORT_RESET = 16,
    PORT_POWER = 1 << 9,
    PORT_SPEED_HIGH = 3 << 10,
    PORT_CONNECT_CHANGE = 1 << 17,
    PORT_RESET_CHANGE = 1 << 21,
    PORT_LINK_POLLING = 7 << 5,
    PORT_LINK_IDLE = 5 << 5
};
#define PORT_CHANGES    0x00fe0000u
#define PORT_LINK_MASK  0x000001e0u
#define PORT_SPEED_MASK 0x00003c00u
#define PORT_KEPT       0x0e00c000u // wake enables and indicators

enum trb_type {
    TRB_NORMAL = 1,
    TRB_SETUP,
    TRB_DATA,
    TRB_STATUS,
    TRB_ISOCH,
    TRB_LINK,
    TRB_EVENT_DATA,
    TRB_NO_OP,
    TRB_ENABLE_SLOT,
    TRB_DISABLE_SLOT,
    TRB_ADDRESS_DEVICE,
    TRB_CONFIGURE_ENDPOINT,
    TRB_EVALUATE_CONTEXT,
    TRB_RESET_ENDPOINT,
    TRB_STOP_ENDPOINT,
    TRB_SET_DEQUEUE,
    TRB_RESET_DEVICE,
    TRB_COMMAND_NO_OP = 23,
    TRB_TRANSFER_EVENT = 32,
    TRB_COMMAND_EVENT,
    TRB_PORT_EVENT,
};
enum { TRB_CYCLE = 1, TRB_TOGGLE = 2, TRB_SHORT = 4, TRB_CHAIN = 16, TRB_INTERRUPT = 32, TRB_IMMEDIATE = 64 };
enum completion {
    CC_SUCCESS = 1,
    CC_TRB_ERROR = 5,
    CC_STALL = 6,
    CC_NO_SLOTS = 9,
    CC_SLOT_DISABLED = 11,
    CC_ENDPOINT_DISABLED = 12,
    CC_SHORT = 13,
    CC_PARAMETER = 17,
    CC_CONTEXT_STATE = 19,
};
enum endpoint_state { ENDPOINT_DISABLED, ENDPOINT_RUNNING, ENDPOINT_HALTED, ENDPOINT_STOPPED };

struct trb {
    uint64_t parameter;
    uint32_t status, control;
};

struct endpoint {
    uint8_t state;
    uint64_t dequeue;
    bool cycle;
};

struct slot {
    bool enabled, addressed;
    uint8_t port; // 0-based
    struct endpoint endpoints[ENDPOINTS];
    uint8_t setup[8]; // of the control transfer under way
    uint8_t data[USB_CONTROL_MAX];
    uint32_t data_length, data_done; // what the device answered; what went to the guest or came from it
    int32_t result;
    uint32_t event_length;
};

struct xhci {
    struct pci_device pci; // first
    struct usb_host host;
    struct region mmio;
    struct usb_device *devices[PORTS];
    uint32_t command, status, notification, config, iman, imod, erst_size;
    uint64_t command_ring, contexts, erst_base, event_dequeue;
    bool command_cycle;
    uint64_t event_base; // of the one segment
    uint32_t event_count, event_index;
    bool event_cycle;
    uint32_t port_status[PORTS];
    struct slot slots[SLOTS];
};

#endif
