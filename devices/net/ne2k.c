// SPDX-License-Identifier: GPL-2.0-or-later
// NE2000 on PCI (Realtek RTL8029AS), a DP8390D with 16 KiB of packet memory (National Semiconductor datasheet DP8390D).
#include "core/machine/pci.h"
#include "devices/net/card.h"

#include <string.h>

#define MEMORY_START 0x4000u
#define MEMORY_SIZE  0xc000u // address space of remote DMA; packets live in its upper part
#define PAGE         256u

enum { COMMAND_STOP = 0x01, COMMAND_START = 0x02, COMMAND_TRANSMIT = 0x04 };
enum { ISR_PRX = 0x01, ISR_PTX = 0x02, ISR_RXE = 0x04, ISR_OVW = 0x10, ISR_RDC = 0x40, ISR_RST = 0x80 };
enum { RCR_RUNT = 0x02, RCR_BROADCAST = 0x04, RCR_MULTICAST = 0x08, RCR_PROMISCUOUS = 0x10, RCR_MONITOR = 0x20 };
enum { TSR_PTX = 0x01, RSR_PRX = 0x01, RSR_MULTICAST = 0x20 };

// Machine lock.
struct ne2k {
    struct pci_device pci; // first
    struct card card;
    struct region ports;
    uint8_t command, start, stop, boundary, current; // pages of the receive ring
    uint8_t isr, imr, rcr, tcr, dcr, rsr, tsr, transmit_page;
    uint16_t transmit_count, remote_address, remote_count;
    uint8_t physical[6], multicast[8];
    uint8_t memory[MEMORY_SIZE];
};

static void update_interrupt(struct ne2k *ne)
{
    pci_set_intx(&ne->pci, ne->isr & ne->imr & 0x7f);
}

// ---- Receiving --------------------------------------------------------------------------------------------------

static bool wanted(const struct ne2k *ne, const uint8_t *frame)
{
    if (ne->rcr & RCR_PROMISCUOUS)
        return true;
    if (memcmp(frame, "\xff\xff\xff\xff\xff\xff", 6) == 0)
        return ne->rcr & RCR_BROADCAST;
    if (frame[0] & 1) {
        unsigned hash = card_hash(frame) >> 26;
        return (ne->rcr & RCR_MULTICAST) && (ne->multicast[hash / 8] >> (hash % 8) & 1);
    }
    return memcmp(frame, ne->physical, 6) == 0;
}

static bool ring_is_sane(const struct ne2k *ne)
{
    return ne->start < ne->stop && ne->start >= MEMORY_START / PAGE && ne->stop <= MEMORY_SIZE / PAGE &&
           ne->current >= ne->start && ne->current < ne->stop;
}

static unsigned free_pages(const struct ne2k *ne)
{
    unsigned size = ne->stop - ne->start;
    if (ne->boundary < ne->start || ne->boundary >= ne->stop)
        return size;
    unsigned distance = (ne->boundary + size - ne->current) % size;
    return distance ? distance : size;
}

static void ring_write(struct ne2k *ne, unsigned *at, const uint8_t *data, unsigned length)
{
    for (unsigned i = 0; i < length; i++) {
        ne->memory[*at] = data[i];
        if (++*at >= ne->stop * PAGE)
            *at = ne->start * PAGE;
    }
}

static bool receive(void *opaque, const uint8_t *frame, size_t length)
{
    struct ne2k *ne = opaque;
    unsigned total = length + 4, pages = (total + 4 + PAGE - 1) / PAGE; // header of four bytes, checksum of four
    if ((ne->command & COMMAND_STOP) || (ne->rcr & RCR_MONITOR) || length > 1518 || !ring_is_sane(ne) ||
        !wanted(ne, frame))
        return true; // dropped
    if (free_pages(ne) <= pages) {
        // No overflow: the frame waits in the cable until the driver has read others. A driver that acknowledged a
        // frame between two looks is told again.
        ne->isr |= ISR_PRX;
        update_interrupt(ne);
        return false;
    }
    unsigned next = ne->current + pages, at = ne->current * PAGE;
    if (next >= ne->stop)
        next -= ne->stop - ne->start;
    ne->rsr = RSR_PRX | (frame[0] & 1 ? RSR_MULTICAST : 0);
    const uint8_t header[4] = {ne->rsr, next, total + 4, (total + 4) >> 8};
    uint8_t fcs[4];
    store_le(fcs, 4, card_fcs(frame, length));
    ring_write(ne, &at, header, sizeof header);
    ring_write(ne, &at, frame, length);
    ring_write(ne, &at, fcs, sizeof fcs);
    ne->current = next;
    ne->isr |= ISR_PRX;
    update_interrupt(ne);
    return true;
}

static const struct nic_client nic_client = {.receive = receive};

// ---- Sending and remote DMA -------------------------------------------------------------------------------------

static void transmit(struct ne2k *ne)
{
    unsigned at = ne->transmit_page * PAGE;
    if (at < MEMORY_SIZE && ne->transmit_count <= MEMORY_SIZE - at) {
        struct iovec iov = {ne->memory + at, ne->transmit_count};
        nic_send(ne->card.nic, &iov, 1);
        nic_settle(ne->card.nic);
    }
    ne->tsr = TSR_PTX;
    ne->isr |= ISR_PTX;
    ne->command &= ~COMMAND_TRANSMIT;
    update_interrupt(ne);
}

static void write_command(struct ne2k *ne, uint8_t value)
{
    ne->command = value;
    if (value & COMMAND_STOP) {
        ne->isr |= ISR_RST;
        return;
    }
    ne->isr &= ~ISR_RST;
    if (((value & 0x18) == 0x08 || (value & 0x18) == 0x10) && !ne->remote_count) {
        ne->isr |= ISR_RDC;
        update_interrupt(ne);
    }
    if (value & COMMAND_TRANSMIT)
        transmit(ne);
    nic_resume(ne->card.nic);
}

// The bytes below packet memory are the address PROM, each byte twice.
static uint8_t memory_read(struct ne2k *ne, unsigned at)
{
    if (at < 32) {
        const uint8_t *mac = ne->card.nic->mac;
        return at / 2 < 6 ? mac[at / 2] : 0x57;
    }
    return at >= MEMORY_START && at < MEMORY_SIZE ? ne->memory[at] : 0xff;
}

static void remote_step(struct ne2k *ne, unsigned bytes)
{
    ne->remote_address += bytes;
    // The ring wraps for remote DMA as well.
    if (ne->remote_address == ne->stop * PAGE)
        ne->remote_address = ne->start * PAGE;
    ne->remote_count = ne->remote_count > bytes ? ne->remote_count - bytes : 0;
    if (!ne->remote_count) {
        ne->isr |= ISR_RDC;
        update_interrupt(ne);
    }
}

// In word mode each access of the data port moves a word, whatever its width.
static unsigned transfer_size(const struct ne2k *ne)
{
    return ne->dcr & 1 ? 2 : 1;
}

static uint32_t data_read(struct ne2k *ne, unsigned size)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)memory_read(ne, (uint16_t)(ne->remote_address + i)) << 8 * i;
    remote_step(ne, size);
    return value;
}

static void data_write(struct ne2k *ne, uint32_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        unsigned at = (uint16_t)(ne->remote_address + i);
        if (ne->remote_count > i && at >= MEMORY_START && at < MEMORY_SIZE)
            ne->memory[at] = value >> 8 * i;
    }
    remote_step(ne, size);
}

// ---- Registers --------------------------------------------------------------------------------------------------

static uint8_t read_page0(struct ne2k *ne, unsigned offset)
{
    switch (offset) {
    case 0x03:
        return ne->boundary;
    case 0x04:
        return ne->tsr;
    case 0x07:
        return ne->isr;
    case 0x08:
        return ne->remote_address;
    case 0x09:
        return ne->remote_address >> 8;
    case 0x0a:
        return 0x50; // RTL8029AS
    case 0x0b:
        return 0x43;
    case 0x0c:
        return ne->rsr;
    }
    return 0;
}

static void write_page0(struct ne2k *ne, unsigned offset, uint8_t value)
{
    switch (offset) {
    case 0x01:
        ne->start = value;
        break;
    case 0x02:
        ne->stop = value;
        break;
    case 0x03:
        ne->boundary = value;
        nic_resume(ne->card.nic);
        break;
    case 0x04:
        ne->transmit_page = value;
        break;
    case 0x05:
        ne->transmit_count = (ne->transmit_count & 0xff00) | value;
        break;
    case 0x06:
        ne->transmit_count = (ne->transmit_count & 0xff) | value << 8;
        break;
    case 0x07:
        ne->isr &= ~(value & 0x7f);
        update_interrupt(ne);
        nic_resume(ne->card.nic);
        break;
    case 0x08:
        ne->remote_address = (ne->remote_address & 0xff00) | value;
        break;
    case 0x09:
        ne->remote_address = (ne->remote_address & 0xff) | value << 8;
        break;
    case 0x0a:
        ne->remote_count = (ne->remote_count & 0xff00) | value;
        break;
    case 0x0b:
        ne->remote_count = (ne->remote_count & 0xff) | value << 8;
        break;
    case 0x0c:
        ne->rcr = value;
        break;
    case 0x0d:
        ne->tcr = value;
        break;
    case 0x0e:
        ne->dcr = value;
        break;
    case 0x0f:
        ne->imr = value;
        update_interrupt(ne);
        break;
    }
}

static uint8_t *page1_register(struct ne2k *ne, unsigned offset)
{
    if (offset < 7)
        return &ne->physical[offset - 1];
    return offset == 7 ? &ne->current : &ne->multicast[offset - 8];
}

static uint8_t read_page2(struct ne2k *ne, unsigned offset)
{
    switch (offset) {
    case 0x01:
        return ne->start;
    case 0x02:
        return ne->stop;
    case 0x04:
        return ne->transmit_page;
    case 0x0c:
        return ne->rcr | 0xc0;
    case 0x0d:
        return ne->tcr | 0xe0;
    case 0x0e:
        return ne->dcr | 0x80;
    case 0x0f:
        return ne->imr | 0x80;
    }
    return 0;
}

static void soft_reset(struct ne2k *ne)
{
    ne->command = 0x21;
    ne->isr = ISR_RST;
    ne->imr = ne->dcr = ne->tcr = 0;
    ne->remote_count = 0;
    update_interrupt(ne);
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ne2k *ne = opaque;
    if (offset >= 0x10 && offset < 0x18)
        return data_read(ne, MAX(size, transfer_size(ne)));
    if (offset >= 0x18) {
        soft_reset(ne);
        return 0;
    }
    if (offset == 0)
        return ne->command;
    switch (ne->command >> 6) {
    case 0:
        return read_page0(ne, offset);
    case 1:
        return *page1_register(ne, offset);
    case 2:
        return read_page2(ne, offset);
    }
    return 0;
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct ne2k *ne = opaque;
    if (offset >= 0x18)
        return;
    if (offset >= 0x10)
        data_write(ne, value, MAX(size, transfer_size(ne)));
    else if (offset == 0)
        write_command(ne, value);
    else if (ne->command >> 6 == 0)
        write_page0(ne, offset, value);
    else if (ne->command >> 6 == 1)
        *page1_register(ne, offset) = value;
}

// Registers are bytes; the data port at 0x10 takes up to 32 bits.
static uint64_t wide_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    if (offset >= 0x10)
        return ports_read(opaque, offset, size);
    for (unsigned i = 0; i < size; i++)
        value |= (ports_read(opaque, offset + i, 1) & 0xff) << 8 * i;
    return value;
}

static void wide_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    if (offset >= 0x10) {
        ports_write(opaque, offset, value, size);
        return;
    }
    for (unsigned i = 0; i < size; i++)
        ports_write(opaque, offset + i, value >> 8 * i & 0xff, 1);
}

static const struct io_ops ports_ops = {wide_read, wide_write, 1, 4};

// ---- The device -------------------------------------------------------------------------------------------------

static void ne2k_reset(struct device *device)
{
    struct ne2k *ne = (struct ne2k *)device;
    ne->start = ne->stop = ne->boundary = ne->current = 0;
    ne->rcr = ne->rsr = ne->tsr = ne->transmit_page = 0;
    ne->transmit_count = ne->remote_address = 0;
    memcpy(ne->physical, ne->card.nic->mac, 6);
    memset(ne->multicast, 0, sizeof ne->multicast);
    memset(ne->memory, 0, sizeof ne->memory);
    soft_reset(ne);
}

static bool ne2k_realize(struct device *device, GError **error)
{
    struct ne2k *ne = (struct ne2k *)device;
    const struct pci_ids ids = {.vendor = 0x10ec,
                                .device = 0x8029,
                                .subsystem_vendor = 0x1af4,
                                .subsystem = 0x1100,
                                .class_code = 2,
                                .interrupt_pin = 1};
    if (!card_open(&ne->card, device, error) || !pci_device_init(&ne->pci, &ids, -1, error))
        return false;
    region_init_io(&ne->ports, "ne2k", &ports_ops, ne, 32);
    pci_set_bar(&ne->pci, 0, &ne->ports, true, false, false);
    if (!ne->card.no_rom)
        pci_set_rom(&ne->pci, IPXE_ROM("ne2k_pci"));
    ne2k_reset(device);
    nic_set_client(ne->card.nic, &nic_client, ne);
    return true;
}

static void ne2k_unrealize(struct device *device)
{
    struct ne2k *ne = (struct ne2k *)device;
    card_close(&ne->card);
    pci_device_exit(&ne->pci);
}

static const struct property ne2k_properties[] = {CARD_PROPERTIES(struct ne2k, card), PROPERTY_END};

// clang-format off
static const struct field ne2k_fields[] = {
    FIELD_STRUCT(struct ne2k, pci, pci_device_fields),
    FIELD_U8(struct ne2k, command), FIELD_U8(struct ne2k, start), FIELD_U8(struct ne2k, stop),
    FIELD_U8(struct ne2k, boundary), FIELD_U8(struct ne2k, current), FIELD_U8(struct ne2k, isr),
    FIELD_U8(struct ne2k, imr), FIELD_U8(struct ne2k, rcr), FIELD_U8(struct ne2k, tcr), FIELD_U8(struct ne2k, dcr),
    FIELD_U8(struct ne2k, rsr), FIELD_U8(struct ne2k, tsr), FIELD_U8(struct ne2k, transmit_page),
    FIELD_U16(struct ne2k, transmit_count), FIELD_U16(struct ne2k, remote_address),
    FIELD_U16(struct ne2k, remote_count), FIELD_BYTES(struct ne2k, physical), FIELD_BYTES(struct ne2k, multicast),
    FIELD_BYTES(struct ne2k, memory), FIELD_END,
};
// clang-format on

const struct device_class ne2k_class = {
    .name = "ne2k",
    .help = "NE2000 card on PCI (RTL8029AS)",
    .size = sizeof(struct ne2k),
    .properties = ne2k_properties,
    .realize = ne2k_realize,
    .unrealize = ne2k_unrealize,
    .reset = ne2k_reset,
    .fields = ne2k_fields,
    .version = 1,
};
