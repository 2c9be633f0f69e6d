// SPDX-License-Identifier: GPL-2.0-or-later
// A USB host controller (eXtensible Host Controller Interface 1.2) with four USB 2 and four USB 3 ports. Interrupt and
// control transfers only: that is what the keyboards and pointers in its ports have. Nothing polls: a transfer waits
// until its device has something to say.
//
// Threads: machine lock. Guest memory is read anew at each use and each walk over a ring is bounded.
#include "devices/usb/xhci.h"

#include <inttypes.h>
#include <string.h>

TRACE_POINT(xhci_command);
TRACE_POINT(xhci_control);

// ---- Interrupts and events ----
static void raise_interrupt(struct xhci *xhci)
{
    bool level = xhci->iman & 1 && xhci->iman & 2 && xhci->command & CMD_INTERRUPTS;
    if (!pci_msi_enabled(&xhci->pci)) {
        pci_set_intx(&xhci->pci, level);
        return;
    }
    pci_set_intx(&xhci->pci, false);
    if (!level)
        return;
    xhci->iman &= ~1u; // a message takes the pending bit along
    pci_notify_msi(&xhci->pci, 0);
}

static void write_trb(struct xhci *xhci, uint64_t address, const struct trb *trb)
{
    uint8_t bytes[TRB_SIZE];
    store_le(bytes, 8, trb->parameter);
    store_le(bytes + 8, 4, trb->status);
    store_le(bytes + 12, 4, trb->control);
    // The cycle bit last: it hands the TRB over.
    pci_dma_write(&xhci->pci, address, bytes, 12);
    pci_dma_write(&xhci->pci, address + 12, bytes + 12, 4);
}

static void post_event(struct xhci *xhci, struct trb event)
{
    if (!(xhci->command & CMD_RUN) || !xhci->event_count)
        return;
    uint64_t at = xhci->event_base + (uint64_t)xhci->event_index * TRB_SIZE;
    uint32_t next = (xhci->event_index + 1) % xhci->event_count;
    if (xhci->event_base + (uint64_t)next * TRB_SIZE == (xhci->event_dequeue & ~15ull)) {
        log_guest("xhci", "the event ring is full: an event was lost");
        return;
    }
    event.control = (event.control & ~(uint32_t)TRB_CYCLE) | xhci->event_cycle;
    write_trb(xhci, at, &event);
    xhci->event_index = next;
    if (next == 0)
        xhci->event_cycle = !xhci->event_cycle;
    xhci->status |= STS_EVENT;
    if (xhci->event_dequeue & 8) // its handler runs already
        return;
    xhci->event_dequeue |= 8;
    xhci->iman |= 1;
    raise_interrupt(xhci);
}

static void command_done(struct xhci *xhci, uint64_t trb, enum completion code, unsigned slot)
{
    post_event(xhci, (struct trb){trb, (uint32_t)code << 24, TRB_COMMAND_EVENT << 10 | slot << 24});
}

static void transfer_done(struct xhci *xhci, uint64_t trb, enum completion code, uint32_t residual, unsigned slot,
                          unsigned endpoint)
{
    post_event(xhci, (struct trb){trb, (uint32_t)code << 24 | (residual & 0xffffff),
                                  TRB_TRANSFER_EVENT << 10 | slot << 24 | endpoint << 16});
}

static void port_changed(struct xhci *xhci, unsigned port)
{
    xhci->status |= STS_PORT;
    post_event(xhci, (struct trb){(uint64_t)(port + 1) << 24, (uint32_t)CC_SUCCESS << 24, TRB_PORT_EVENT << 10});
}

// ---- Rings ----
static bool fetch(struct xhci *xhci, uint64_t address, bool cycle, struct trb *trb)
{
    uint8_t bytes[TRB_SIZE];
    pci_dma_read(&xhci->pci, address, bytes, TRB_SIZE);
    *trb = (struct trb){load_le(bytes, 8), load_le(bytes + 8, 4), load_le(bytes + 12, 4)};
    return (trb->control & TRB_CYCLE) == cycle;
}

static enum trb_type type_of(const struct trb *trb)
{
    return trb->control >> 10 & 63;
}

// Goes on behind TRB, over a link if it is one.
static void advance(uint64_t *dequeue, bool *cycle, const struct trb *trb)
{
    if (type_of(trb) != TRB_LINK) {
        *dequeue += TRB_SIZE;
        return;
    }
    *dequeue = trb->parameter & ~15ull;
    if (trb->control & TRB_TOGGLE)
        *cycle = !*cycle;
}

// ---- Contexts in guest memory: 32 bytes each, the slot's first ----
static uint64_t output_context(struct xhci *xhci, unsigned slot)
{
    uint8_t bytes[8];
    pci_dma_read(&xhci->pci, xhci->contexts + 8 * slot, bytes, 8);
    return load_le(bytes, 8) & ~63ull;
}

static uint32_t read32(struct xhci *xhci, uint64_t address)
{
    uint8_t bytes[4];
    pci_dma_read(&xhci->pci, address, bytes, 4);
    return load_le(bytes, 4);
}

static void write32(struct xhci *xhci, uint64_t address, uint32_t value)
{
    uint8_t bytes[4];
    store_le(bytes, 4, value);
    pci_dma_write(&xhci->pci, address, bytes, 4);
}

static void set_endpoint_state(struct xhci *xhci, unsigned slot, unsigned number, enum endpoint_state state)
{
    struct endpoint *endpoint = &xhci->slots[slot - 1].endpoints[number];
    uint64_t context = output_context(xhci, slot) + 32 * number;
    endpoint->state = state;
    write32(xhci, context, (read32(xhci, context) & ~7u) | state);
    write32(xhci, context + 8, (uint32_t)endpoint->dequeue | endpoint->cycle);
    write32(xhci, context + 12, endpoint->dequeue >> 32);
}

static void copy_context(struct xhci *xhci, uint64_t from, uint64_t to)
{
    uint8_t bytes[32];
    pci_dma_read(&xhci->pci, from, bytes, sizeof(bytes));
    pci_dma_write(&xhci->pci, to, bytes, sizeof(bytes));
}

static void start_endpoint(struct xhci *xhci, unsigned slot, unsigned number, uint64_t input)
{
    struct endpoint *endpoint = &xhci->slots[slot - 1].endpoints[number];
    uint64_t from = input + 32 + 32 * number;
    uint64_t pointer = read32(xhci, from + 8) | (uint64_t)read32(xhci, from + 12) << 32;
    copy_context(xhci, from, output_context(xhci, slot) + 32 * number);
    endpoint->dequeue = pointer & ~15ull;
    endpoint->cycle = pointer & 1;
    set_endpoint_state(xhci, slot, number, ENDPOINT_RUNNING);
}

static void set_slot_state(struct xhci *xhci, unsigned slot, unsigned state, unsigned address)
{
    write32(xhci, output_context(xhci, slot) + 12, state << 27 | address);
}

// ---- Transfers ----
static struct usb_device *device_of(struct xhci *xhci, const struct slot *slot)
{
    return slot->addressed && slot->port < PORTS ? xhci->devices[slot->port] : NULL;
}

static void begin_control(struct xhci *xhci, struct slot *slot, const struct trb *trb)
{
    store_le(slot->setup, 8, trb->parameter);
    slot->data_done = slot->event_length = 0;
    slot->data_length = MIN(load_le(slot->setup + 6, 2), USB_CONTROL_MAX);
    slot->result = 0;
    memset(slot->data, 0, sizeof(slot->data));
    struct usb_device *usb = device_of(xhci, slot);
    if (!(slot->setup[0] & 0x80))
        return; // carried out in the status stage, with its data
    slot->result = usb ? usb->ops->control(usb, slot->setup, slot->data, slot->data_length) : -1;
    TRACE(xhci_control, "%016" PRIx64 ": %d", trb->parameter, slot->result);
    if (slot->result >= 0)
        slot->data_length = MIN((uint32_t)slot->result, slot->data_length);
}

static void copy_immediate(uint8_t *to, uint64_t value, uint32_t length)
{
    uint8_t bytes[8];
    store_le(bytes, 8, value);
    memcpy(to, bytes, MIN(length, sizeof(bytes)));
}

// One TRB of the data stage. Returns what the guest's buffer was left short of.
static uint32_t move_control_data(struct xhci *xhci, struct slot *slot, const struct trb *trb)
{
    uint32_t wanted = trb->status & 0x1ffff, part = MIN(wanted, slot->data_length - slot->data_done);
    if (slot->setup[0] & 0x80)
        pci_dma_write(&xhci->pci, trb->parameter, slot->data + slot->data_done, part);
    else if (trb->control & TRB_IMMEDIATE)
        copy_immediate(slot->data + slot->data_done, trb->parameter, part);
    else
        pci_dma_read(&xhci->pci, trb->parameter, slot->data + slot->data_done, part);
    slot->data_done += part;
    slot->event_length += part;
    return wanted - part;
}

// Carries out one TRB of endpoint 0. Returns its completion; *RESIDUAL for its event.
static enum completion control_trb(struct xhci *xhci, struct slot *slot, const struct trb *trb, uint32_t *residual)
{
    struct usb_device *usb = device_of(xhci, slot);
    *residual = 0;
    switch (type_of(trb)) {
    case TRB_SETUP:
        begin_control(xhci, slot, trb);
        return CC_SUCCESS;
    case TRB_DATA:
    case TRB_NORMAL:
        if (slot->result < 0)
            return CC_STALL;
        *residual = move_control_data(xhci, slot, trb);
        return *residual ? CC_SHORT : CC_SUCCESS;
    case TRB_STATUS:
        if (!(slot->setup[0] & 0x80))
            slot->result = usb ? usb->ops->control(usb, slot->setup, slot->data, slot->data_done) : -1;
        return slot->result < 0 ? CC_STALL : CC_SUCCESS;
    default:
        return CC_SUCCESS;
    }
}

static void event_data(struct xhci *xhci, const struct trb *trb, struct slot *slot, unsigned slot_number,
                       unsigned endpoint)
{
    post_event(xhci, (struct trb){trb->parameter, (uint32_t)CC_SUCCESS << 24 | slot->event_length,
                                  TRB_TRANSFER_EVENT << 10 | slot_number << 24 | endpoint << 16 | 4});
    slot->event_length = 0;
}

static void run_control(struct xhci *xhci, unsigned slot_number)
{
    struct slot *slot = &xhci->slots[slot_number - 1];
    struct endpoint *endpoint = &slot->endpoints[1];
    struct trb trb;
    for (unsigned steps = 0; steps < RING_STEPS && endpoint->state == ENDPOINT_RUNNING; steps++) {
        uint64_t at = endpoint->dequeue;
        uint32_t residual;
        if (!fetch(xhci, at, endpoint->cycle, &trb))
            return;
        if (type_of(&trb) == TRB_EVENT_DATA) {
            event_data(xhci, &trb, slot, slot_number, 1);
            advance(&endpoint->dequeue, &endpoint->cycle, &trb);
            continue;
        }
        enum completion code = control_trb(xhci, slot, &trb, &residual);
        if (code == CC_STALL) {
            set_endpoint_state(xhci, slot_number, 1, ENDPOINT_HALTED);
            transfer_done(xhci, at, CC_STALL, trb.status & 0x1ffff, slot_number, 1);
            return;
        }
        advance(&endpoint->dequeue, &endpoint->cycle, &trb);
        if (trb.control & TRB_INTERRUPT || (code == CC_SHORT && trb.control & TRB_SHORT))
            transfer_done(xhci, at, code, residual, slot_number, 1);
    }
}

// Endpoint 1 IN (context 3): one report for each TRB that waits, as long as the device has some.
static void run_interrupt(struct xhci *xhci, unsigned slot_number)
{
    struct slot *slot = &xhci->slots[slot_number - 1];
    struct endpoint *endpoint = &slot->endpoints[3];
    struct usb_device *usb = device_of(xhci, slot);
    struct trb trb;
    for (unsigned steps = 0; usb && steps < RING_STEPS && endpoint->state == ENDPOINT_RUNNING; steps++) {
        uint64_t at = endpoint->dequeue;
        if (!fetch(xhci, at, endpoint->cycle, &trb))
            return;
        if (type_of(&trb) == TRB_NORMAL) {
            uint8_t report[64];
            uint32_t room = trb.status & 0x1ffff;
            unsigned length = usb->ops->interrupt_in(usb, report, MIN(room, sizeof(report)));
            if (!length)
                return; // the device will say when it has something
            pci_dma_write(&xhci->pci, trb.parameter, report, length);
            slot->event_length = length;
            advance(&endpoint->dequeue, &endpoint->cycle, &trb);
            bool is_short = length < room;
            if (trb.control & TRB_INTERRUPT || (is_short && trb.control & TRB_SHORT))
                transfer_done(xhci, at, is_short ? CC_SHORT : CC_SUCCESS, room - length, slot_number, 3);
            continue;
        }
        if (type_of(&trb) == TRB_EVENT_DATA)
            event_data(xhci, &trb, slot, slot_number, 3);
        advance(&endpoint->dequeue, &endpoint->cycle, &trb);
    }
}

static void ring_endpoint(struct xhci *xhci, unsigned slot_number, unsigned number)
{
    struct slot *slot = &xhci->slots[slot_number - 1];
    if (!slot->enabled || number >= ENDPOINTS)
        return;
    struct endpoint *endpoint = &slot->endpoints[number];
    if (endpoint->state == ENDPOINT_STOPPED)
        set_endpoint_state(xhci, slot_number, number, ENDPOINT_RUNNING);
    if (number == 1)
        run_control(xhci, slot_number);
    struct usb_device *usb = device_of(xhci, slot);
    if (number == 3 && usb && endpoint->state == ENDPOINT_RUNNING) {
        usb->ops->polled(usb, true);
        run_interrupt(xhci, slot_number);
    }
}

// ---- Commands ----
static void free_slot(struct xhci *xhci, struct slot *slot)
{
    struct usb_device *usb = device_of(xhci, slot);
    if (usb)
        usb->ops->polled(usb, false);
    memset(slot, 0, sizeof(*slot));
}

static enum completion enable_slot(struct xhci *xhci, unsigned *slot)
{
    for (unsigned i = 0; i < SLOTS && i < (xhci->config & 0xff); i++)
        if (!xhci->slots[i].enabled) {
            xhci->slots[i].enabled = true;
            *slot = i + 1;
            return CC_SUCCESS;
        }
    return CC_NO_SLOTS;
}

static enum completion address_device(struct xhci *xhci, unsigned number, const struct trb *trb)
{
    struct slot *slot = &xhci->slots[number - 1];
    uint64_t input = trb->parameter & ~15ull, output = output_context(xhci, number);
    unsigned port = read32(xhci, input + 32 + 4) >> 16 & 0xff;
    if (port < 1 || port > PORTS || !xhci->devices[port - 1] || (read32(xhci, input + 4) & 3) != 3)
        return CC_PARAMETER;
    copy_context(xhci, input + 32, output);
    slot->port = port - 1;
    slot->addressed = true;
    start_endpoint(xhci, number, 1, input);
    bool block = trb->control & 1 << 9;
    set_slot_state(xhci, number, block ? 1 : 2, block ? 0 : number);
    return CC_SUCCESS;
}

static enum completion configure(struct xhci *xhci, unsigned number, const struct trb *trb)
{
    struct slot *slot = &xhci->slots[number - 1];
    uint64_t input = trb->parameter & ~15ull, output = output_context(xhci, number);
    bool all = trb->control & 1 << 9; // deconfigure
    uint32_t drop = all ? ~3u : read32(xhci, input), add = all ? 0 : read32(xhci, input + 4);
    if (!slot->addressed)
        return CC_CONTEXT_STATE;
    for (unsigned i = 2; i < ENDPOINTS; i++) {
        if (drop & 1u << i && slot->endpoints[i].state != ENDPOINT_DISABLED)
            set_endpoint_state(xhci, number, i, ENDPOINT_DISABLED);
        if (add & 1u << i)
            start_endpoint(xhci, number, i, input);
    }
    if (!all)
        write32(xhci, output, (read32(xhci, output) & 0x07ffffff) | (read32(xhci, input + 32) & 0xf8000000));
    set_slot_state(xhci, number, all ? 2 : 3, number);
    return CC_SUCCESS;
}

static enum completion evaluate(struct xhci *xhci, unsigned number, const struct trb *trb)
{
    uint64_t input = trb->parameter & ~15ull, output = output_context(xhci, number);
    uint32_t add = read32(xhci, input + 4);
    if (add & 2) // the packet size of endpoint 0
        write32(xhci, output + 32 + 4,
                (read32(xhci, output + 32 + 4) & 0xffff) | (read32(xhci, input + 64 + 4) & 0xffff0000));
    return CC_SUCCESS;
}

static enum completion reset_device(struct xhci *xhci, unsigned number)
{
    struct slot *slot = &xhci->slots[number - 1];
    struct usb_device *usb = device_of(xhci, slot);
    for (unsigned i = 2; i < ENDPOINTS; i++)
        if (slot->endpoints[i].state != ENDPOINT_DISABLED)
            set_endpoint_state(xhci, number, i, ENDPOINT_DISABLED);
    if (usb)
        usb->ops->polled(usb, false);
    set_slot_state(xhci, number, 1, 0);
    return CC_SUCCESS;
}

static enum completion endpoint_command(struct xhci *xhci, unsigned number, const struct trb *trb)
{
    unsigned which = trb->control >> 16 & 31;
    struct endpoint *endpoint = &xhci->slots[number - 1].endpoints[which];
    if (which == 0 || endpoint->state == ENDPOINT_DISABLED)
        return CC_ENDPOINT_DISABLED;
    switch (type_of(trb)) {
    case TRB_STOP_ENDPOINT:
        if (endpoint->state != ENDPOINT_RUNNING)
            return CC_CONTEXT_STATE;
        break;
    case TRB_RESET_ENDPOINT:
        if (endpoint->state != ENDPOINT_HALTED)
            return CC_CONTEXT_STATE;
        break;
    default:
        if (endpoint->state == ENDPOINT_RUNNING)
            return CC_CONTEXT_STATE;
        endpoint->dequeue = trb->parameter & ~15ull;
        endpoint->cycle = trb->parameter & 1;
    }
    set_endpoint_state(xhci, number, which, ENDPOINT_STOPPED);
    struct usb_device *usb = device_of(xhci, &xhci->slots[number - 1]);
    if (usb && which == 3)
        usb->ops->polled(usb, false);
    return CC_SUCCESS;
}

static enum completion slot_command(struct xhci *xhci, unsigned number, const struct trb *trb)
{
    if (number < 1 || number > SLOTS || !xhci->slots[number - 1].enabled)
        return CC_SLOT_DISABLED;
    switch (type_of(trb)) {
    case TRB_DISABLE_SLOT:
        set_slot_state(xhci, number, 0, 0);
        free_slot(xhci, &xhci->slots[number - 1]);
        return CC_SUCCESS;
    case TRB_ADDRESS_DEVICE:
        return address_device(xhci, number, trb);
    case TRB_CONFIGURE_ENDPOINT:
        return configure(xhci, number, trb);
    case TRB_EVALUATE_CONTEXT:
        return evaluate(xhci, number, trb);
    case TRB_RESET_DEVICE:
        return reset_device(xhci, number);
    case TRB_RESET_ENDPOINT:
    case TRB_STOP_ENDPOINT:
    case TRB_SET_DEQUEUE:
        return endpoint_command(xhci, number, trb);
    default:
        return CC_TRB_ERROR;
    }
}

static void run_commands(struct xhci *xhci)
{
    struct trb trb;
    for (unsigned steps = 0; steps < RING_STEPS && xhci->command & CMD_RUN; steps++) {
        uint64_t at = xhci->command_ring;
        if (!fetch(xhci, at, xhci->command_cycle, &trb))
            return;
        advance(&xhci->command_ring, &xhci->command_cycle, &trb);
        if (type_of(&trb) == TRB_LINK)
            continue;
        unsigned slot = trb.control >> 24;
        enum completion code = CC_SUCCESS;
        if (type_of(&trb) == TRB_ENABLE_SLOT)
            code = enable_slot(xhci, &slot);
        else if (type_of(&trb) != TRB_COMMAND_NO_OP)
            code = slot_command(xhci, slot, &trb);
        TRACE(xhci_command, "type %u slot %u: %u", type_of(&trb), slot, code);
        command_done(xhci, at, code, slot);
    }
}

// ---- Registers ----
static void controller_reset(struct xhci *xhci)
{
    for (unsigned i = 0; i < SLOTS; i++)
        free_slot(xhci, &xhci->slots[i]);
    xhci->command = xhci->notification = xhci->config = xhci->iman = xhci->imod = xhci->erst_size = 0;
    xhci->status = STS_HALTED;
    xhci->command_ring = xhci->contexts = xhci->erst_base = xhci->event_dequeue = 0;
    xhci->event_base = xhci->event_count = xhci->event_index = 0;
    xhci->command_cycle = xhci->event_cycle = true;
    for (unsigned i = 0; i < PORTS; i++)
        xhci->port_status[i] =
            PORT_POWER | (xhci->devices[i] ? PORT_CONNECTED | PORT_CONNECT_CHANGE | PORT_SPEED_HIGH | PORT_LINK_POLLING
                                           : PORT_LINK_IDLE);
    raise_interrupt(xhci);
}

static uint32_t capability(uint64_t offset)
{
    switch (offset) {
    case 0x00:
        return OPERATIONAL | 0x0100 << 16;
    case 0x04:
        return SLOTS | 1 << 8 | PORTS << 24;
    case 0x08:
        return 0x0000000f; // scheduling threshold; one event ring segment
    case 0x10:
        return 1 | (EXTENDED / 4) << 16; // 64-bit addresses
    case 0x14:
        return DOORBELLS;
    case 0x18:
        return RUNTIME;
    }
    return 0;
}

// Supported protocols: ports 1 to 4 are USB 2.0, 5 to 8 USB 3.0.
static uint32_t extended(uint64_t offset)
{
    static const uint32_t words[] = {0x02000402,
                                     0x20425355,
                                     1 | USB2_PORTS << 8,
                                     0,
                                     0x03000002,
                                     0x20425355,
                                     (USB2_PORTS + 1) | (PORTS - USB2_PORTS) << 8,
                                     0};
    return offset / 4 < G_N_ELEMENTS(words) ? words[offset / 4] : 0;
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct xhci *xhci = opaque;
    if (offset < OPERATIONAL)
        return capability(offset);
    if (offset >= EXTENDED && offset < EXTENDED + 0x40)
        return extended(offset - EXTENDED);
    if (offset >= PORTS_AT && offset < PORTS_AT + 16 * PORTS)
        return offset % 16 == 0 ? xhci->port_status[(offset - PORTS_AT) / 16] : 0;
    switch (offset) {
    case OPERATIONAL + 0x00:
        return xhci->command;
    case OPERATIONAL + 0x04:
        return xhci->status;
    case OPERATIONAL + 0x08:
        return 1; // 4 KiB pages
    case OPERATIONAL + 0x14:
        return xhci->notification;
    case OPERATIONAL + 0x30:
        return (uint32_t)xhci->contexts;
    case OPERATIONAL + 0x34:
        return xhci->contexts >> 32;
    case OPERATIONAL + 0x38:
        return xhci->config;
    case RUNTIME: // microframes of 125 us
        return clock_now(xhci->pci.device.machine->clock) / 125000 & 0x3fff;
    case INTERRUPTER + 0x00:
        return xhci->iman;
    case INTERRUPTER + 0x04:
        return xhci->imod;
    case INTERRUPTER + 0x08:
        return xhci->erst_size;
    case INTERRUPTER + 0x10:
        return (uint32_t)xhci->erst_base;
    case INTERRUPTER + 0x14:
        return xhci->erst_base >> 32;
    case INTERRUPTER + 0x18:
        return (uint32_t)xhci->event_dequeue;
    case INTERRUPTER + 0x1c:
        return xhci->event_dequeue >> 32;
    }
    return 0;
}

static void write_port(struct xhci *xhci, unsigned port, uint32_t value)
{
    uint32_t status = xhci->port_status[port];
    status &= ~(value & PORT_CHANGES);
    if (value & PORT_ENABLED) // writing one switches off
        status &= ~(uint32_t)PORT_ENABLED;
    status = (status & ~PORT_KEPT) | (value & PORT_KEPT);
    if (value & 1u << 16 && !(value & PORT_RESET)) // link state write strobe
        status = (status & ~PORT_LINK_MASK) | (value & PORT_LINK_MASK);
    bool reset = value & (PORT_RESET | 1u << 31) && status & PORT_CONNECTED;
    if (reset) {
        status = (status & ~PORT_LINK_MASK) | PORT_ENABLED | PORT_RESET_CHANGE;
        xhci->devices[port]->ops->polled(xhci->devices[port], false);
    }
    xhci->port_status[port] = status;
    if (reset)
        port_changed(xhci, port);
}

static void write_command(struct xhci *xhci, uint32_t value)
{
    if (value & CMD_RESET) {
        controller_reset(xhci);
        return;
    }
    bool started = value & CMD_RUN && !(xhci->command & CMD_RUN);
    xhci->command = value & 0xf0f;
    xhci->status = value & CMD_RUN ? xhci->status & ~(uint32_t)STS_HALTED : xhci->status | STS_HALTED;
    for (unsigned i = 0; started && i < PORTS; i++)
        if (xhci->port_status[i] & PORT_CHANGES)
            port_changed(xhci, i);
    raise_interrupt(xhci);
}

static void load_event_ring(struct xhci *xhci)
{
    xhci->event_base = read32(xhci, xhci->erst_base) | (uint64_t)read32(xhci, xhci->erst_base + 4) << 32;
    xhci->event_base &= ~63ull;
    xhci->event_count = read32(xhci, xhci->erst_base + 8) & 0xffff;
    if (xhci->event_count < 16 || xhci->event_count > 4096) {
        log_guest("xhci", "an event ring segment of %u entries is not allowed", xhci->event_count);
        xhci->event_count = 0;
    }
    xhci->event_index = 0;
    xhci->event_cycle = true;
}

static void write_event_dequeue(struct xhci *xhci, uint32_t value)
{
    bool busy = xhci->event_dequeue & 8 && !(value & 8);
    xhci->event_dequeue = (xhci->event_dequeue & ~0xffffffffull) | (value & ~15u) | (busy ? 8 : 0);
    uint64_t enqueue = xhci->event_base + (uint64_t)xhci->event_index * TRB_SIZE;
    if (busy || !xhci->event_count || (xhci->event_dequeue & ~15ull) == enqueue)
        return;
    xhci->event_dequeue |= 8; // more came meanwhile
    xhci->iman |= 1;
    raise_interrupt(xhci);
}

static void set_half(uint64_t *to, bool high, uint32_t value)
{
    *to = high ? (*to & 0xffffffff) | (uint64_t)value << 32 : (*to & ~0xffffffffull) | value;
}

static void write_interrupter(struct xhci *xhci, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case 0x00:
        xhci->iman = (xhci->iman & ~(value & 1) & 1) | (value & 2);
        raise_interrupt(xhci);
        break;
    case 0x04:
        xhci->imod = value;
        break;
    case 0x08:
        xhci->erst_size = value & 0xffff;
        break;
    case 0x10:
        set_half(&xhci->erst_base, false, value & ~63u);
        if (xhci->erst_size && xhci->erst_base)
            load_event_ring(xhci); // for drivers that write only the low half, which is also the common order
        break;
    case 0x14:
        set_half(&xhci->erst_base, true, value);
        if (xhci->erst_size)
            load_event_ring(xhci);
        break;
    case 0x18:
        write_event_dequeue(xhci, value);
        break;
    case 0x1c:
        set_half(&xhci->event_dequeue, true, value);
        break;
    }
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct xhci *xhci = opaque;
    if (offset >= DOORBELLS && offset < DOORBELLS + 4 * (SLOTS + 1)) {
        unsigned slot = (offset - DOORBELLS) / 4;
        if (xhci->command & CMD_RUN && slot)
            ring_endpoint(xhci, slot, value & 0xff);
        else
            run_commands(xhci);
        return;
    }
    if (offset >= PORTS_AT && offset < PORTS_AT + 16 * PORTS) {
        if (offset % 16 == 0)
            write_port(xhci, (offset - PORTS_AT) / 16, value);
        return;
    }
    if (offset >= INTERRUPTER && offset < INTERRUPTER + 0x20) {
        write_interrupter(xhci, offset - INTERRUPTER, value);
        return;
    }
    switch (offset) {
    case OPERATIONAL + 0x00:
        write_command(xhci, value);
        break;
    case OPERATIONAL + 0x04:
        xhci->status &= ~((uint32_t)value & (STS_EVENT | STS_PORT));
        break;
    case OPERATIONAL + 0x14:
        xhci->notification = value & 0xffff;
        break;
    case OPERATIONAL + 0x18:
        set_half(&xhci->command_ring, false, value & ~63u);
        xhci->command_cycle = value & 1;
        break;
    case OPERATIONAL + 0x1c:
        set_half(&xhci->command_ring, true, value);
        break;
    case OPERATIONAL + 0x30:
        set_half(&xhci->contexts, false, value & ~63u);
        break;
    case OPERATIONAL + 0x34:
        set_half(&xhci->contexts, true, value);
        break;
    case OPERATIONAL + 0x38:
        xhci->config = value & 0xff;
        break;
    }
}

static const struct io_ops mmio_ops = {.read = mmio_read, .write = mmio_write, .min_size = 4, .max_size = 4};

// ---- The ports ----
static bool attach(struct usb_host *host, struct usb_device *usb)
{
    struct xhci *xhci = container_of(host, struct xhci, host);
    for (unsigned i = 0; i < USB2_PORTS; i++)
        if (!xhci->devices[i]) {
            xhci->devices[i] = usb;
            usb->host = host;
            usb->port = i;
            xhci->port_status[i] = (xhci->port_status[i] & ~PORT_LINK_MASK) | PORT_POWER | PORT_CONNECTED |
                                   PORT_CONNECT_CHANGE | PORT_SPEED_HIGH | PORT_LINK_POLLING;
            port_changed(xhci, i);
            return true;
        }
    return false;
}

static void detach(struct usb_host *host, struct usb_device *usb)
{
    struct xhci *xhci = container_of(host, struct xhci, host);
    xhci->devices[usb->port] = NULL;
    xhci->port_status[usb->port] = PORT_POWER | PORT_CONNECT_CHANGE | PORT_LINK_IDLE;
    usb->host = NULL;
    port_changed(xhci, usb->port);
}

static void ready(struct usb_host *host, struct usb_device *usb)
{
    struct xhci *xhci = container_of(host, struct xhci, host);
    for (unsigned i = 0; i < SLOTS && xhci->command & CMD_RUN; i++)
        if (xhci->slots[i].enabled && device_of(xhci, &xhci->slots[i]) == usb)
            run_interrupt(xhci, i + 1);
}

static const struct usb_host_ops host_ops = {attach, detach, ready};

extern const struct device_class xhci_class;

struct usb_host *usb_host_find(struct machine *machine, const char *for_whom, GError **error)
{
    for (struct device *device = machine->devices; device; device = device->next) {
        struct xhci *xhci = container_of(device, struct xhci, pci.device);
        if (device->class == &xhci_class && xhci->host.ops)
            return &xhci->host;
    }
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND,
                "%s has no USB controller to be plugged into: give --device xhci before it", for_whom);
    return NULL;
}

// ---- Life ----
static bool xhci_realize(struct device *device, GError **error)
{
    struct xhci *xhci = container_of(device, struct xhci, pci.device);
    static const struct pci_ids ids = {.vendor = 0x1b36,
                                       .device = 0x000d,
                                       .subsystem_vendor = 0x1af4,
                                       .subsystem = 0x1100,
                                       .revision = 1,
                                       .prog_if = 0x30,
                                       .subclass = 3,
                                       .class_code = 0x0c,
                                       .interrupt_pin = 1};
    if (!pci_device_init(&xhci->pci, &ids, -1, error))
        return false;
    xhci->pci.config[0x60] = 0x30; // release number
    xhci->pci.config[0x61] = 0x20; // frame length
    region_init_io(&xhci->mmio, "xhci", &mmio_ops, xhci, MMIO_SIZE);
    pci_set_bar(&xhci->pci, 0, &xhci->mmio, false, false, false);
    pci_add_msi(&xhci->pci, 1);
    xhci->host.ops = &host_ops;
    controller_reset(xhci);
    return true;
}

static void xhci_unrealize(struct device *device)
{
    struct xhci *xhci = container_of(device, struct xhci, pci.device);
    for (unsigned i = 0; i < PORTS; i++)
        if (xhci->devices[i])
            xhci->devices[i]->host = NULL;
    if (xhci->host.ops)
        pci_device_exit(&xhci->pci);
}

static void xhci_device_reset(struct device *device)
{
    struct xhci *xhci = container_of(device, struct xhci, pci.device);
    pci_device_reset(&xhci->pci);
    controller_reset(xhci);
}

static bool xhci_loaded(struct device *device, GError **error)
{
    struct xhci *xhci = container_of(device, struct xhci, pci.device);
    if (xhci->event_count > 4096)
        xhci->event_count = 0;
    xhci->event_index = xhci->event_count ? xhci->event_index % xhci->event_count : 0;
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &xhci->slots[i];
        slot->data_length = MIN(slot->data_length, USB_CONTROL_MAX);
        slot->data_done = MIN(slot->data_done, slot->data_length);
    }
    return true;
}

static const struct field endpoint_fields[] = {
    FIELD_U8(struct endpoint, state),
    FIELD_U64(struct endpoint, dequeue),
    FIELD_BOOL(struct endpoint, cycle),
    FIELD_END,
};

static const struct field slot_fields[] = {
    FIELD_BOOL(struct slot, enabled),
    FIELD_BOOL(struct slot, addressed),
    FIELD_U8(struct slot, port),
    FIELD_STRUCT_ARRAY(struct slot, endpoints, endpoint_fields),
    FIELD_BYTES(struct slot, setup),
    FIELD_BYTES(struct slot, data),
    FIELD_U32(struct slot, data_length),
    FIELD_U32(struct slot, data_done),
    FIELD_S32(struct slot, result),
    FIELD_U32(struct slot, event_length),
    FIELD_END,
};

static const struct field xhci_fields[] = {
    FIELD_STRUCT(struct xhci, pci, pci_device_fields),
    FIELD_U32(struct xhci, command),
    FIELD_U32(struct xhci, status),
    FIELD_U32(struct xhci, notification),
    FIELD_U32(struct xhci, config),
    FIELD_U32(struct xhci, iman),
    FIELD_U32(struct xhci, imod),
    FIELD_U32(struct xhci, erst_size),
    FIELD_U64(struct xhci, command_ring),
    FIELD_U64(struct xhci, contexts),
    FIELD_U64(struct xhci, erst_base),
    FIELD_U64(struct xhci, event_dequeue),
    FIELD_BOOL(struct xhci, command_cycle),
    FIELD_U64(struct xhci, event_base),
    FIELD_U32(struct xhci, event_count),
    FIELD_U32(struct xhci, event_index),
    FIELD_BOOL(struct xhci, event_cycle),
    FIELD_ARRAY(U32, struct xhci, port_status),
    FIELD_STRUCT_ARRAY(struct xhci, slots, slot_fields),
    FIELD_END,
};

const struct device_class xhci_class = {
    .name = "xhci",
    .help = "USB controller (xHCI) with eight ports",
    .size = sizeof(struct xhci),
    .realize = xhci_realize,
    .unrealize = xhci_unrealize,
    .reset = xhci_device_reset,
    .fields = xhci_fields,
    .version = 1,
    .loaded = xhci_loaded,
};
