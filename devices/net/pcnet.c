// SPDX-License-Identifier: GPL-2.0-or-later
// AMD PCnet-PCI II (Am79C970A data sheet, 19436): control and bus registers by an address register, descriptor rings in
// 16-bit and 32-bit form.
#include "core/machine/pci.h"
#include "devices/net/card.h"

#include <string.h>

enum { // CSR0
    CSR0_INIT = 0x0001,
    CSR0_STRT = 0x0002,
    CSR0_STOP = 0x0004,
    CSR0_TDMD = 0x0008,
    CSR0_TXON = 0x0010,
    CSR0_RXON = 0x0020,
    CSR0_INEA = 0x0040,
    CSR0_INTR = 0x0080,
    CSR0_IDON = 0x0100,
    CSR0_TINT = 0x0200,
    CSR0_RINT = 0x0400,
    CSR0_MISS = 0x1000,
    CSR0_CAUSES = 0x5f00,
    CSR0_ERRORS = 0x7800,
};
enum {
    MODE_NO_RX = 0x0001,
    MODE_NO_TX = 0x0002,
    MODE_LOOP = 0x0004,
    MODE_NO_PHYSICAL = 0x2000,
    MODE_NO_BROADCAST = 0x4000,
    MODE_PROMISCUOUS = 0x8000
};
enum { OWN = 0x8000, ERROR_BIT = 0x4000, LTINT = 0x1000, BUFFER_ERROR = 0x0400, STP = 0x0200, ENP = 0x0100 };
enum { RX_PHYSICAL = 0x0040, RX_LOGICAL = 0x0020, RX_BROADCAST = 0x0010 };
enum { CSR4_STRIP = 0x0400, CSR5_LTINTEN = 0x4000, BCR18_DWIO = 0x0080 };

#define REGISTERS 128
#define BUSY_MAX  4096u // descriptors looked at in one go

// Machine lock.
struct pcnet {
    struct pci_device pci; // first
    struct card card;
    struct region ports, memory;
    uint16_t csr[REGISTERS], bcr[32];
    uint16_t address; // RAP
    uint8_t prom[16];
    uint32_t rx_ring, tx_ring;
    uint32_t rx_index, tx_index; // descriptor that is next
    uint32_t frame_length;
    bool frame_open; // between STP and ENP
    uint8_t *frame;  // NIC_FRAME_MAX bytes
};

TRACE_POINT(pcnet_csr);

// ---- Interrupts -------------------------------------------------------------------------------------------------

static void update_interrupt(struct pcnet *card)
{
    uint16_t *csr = card->csr;
    bool any = csr[0] & CSR0_CAUSES & ~csr[3];
    csr[0] = (csr[0] & ~(CSR0_INTR | 0x8000)) | (any ? CSR0_INTR : 0) | (csr[0] & CSR0_ERRORS ? 0x8000 : 0);
    pci_set_intx(&card->pci, any && (csr[0] & CSR0_INEA));
}

static void add_causes(struct pcnet *card, uint16_t causes)
{
    card->csr[0] |= causes;
    update_interrupt(card);
}

// ---- Descriptors (section "Descriptor Rings") -------------------------------------------------------------------

struct descriptor {
    uint64_t at;
    uint32_t address, length; // of the buffer
    uint16_t status;
};

static bool wide(const struct pcnet *card)
{
    return (card->bcr[20] & 0xff) != 0;
}

static uint32_t ring_address(const struct pcnet *card, uint32_t address)
{
    return wide(card) ? address : (address & 0xffffff) | (uint32_t)card->csr[2] << 16 >> 24 << 24;
}

static struct descriptor read_descriptor(struct pcnet *card, uint32_t ring, unsigned index)
{
    uint8_t d[16] = {0};
    unsigned size = wide(card) ? 16 : 8;
    struct descriptor descriptor = {.at = (uint64_t)ring_address(card, ring) + index * size};
    pci_dma_read(&card->pci, descriptor.at, d, size);
    if (!wide(card)) {
        descriptor.address = load_le(d, 2) | d[2] << 16;
        descriptor.status = d[3] << 8;
        descriptor.length = -load_le(d + 4, 2) & 0xfff;
        return descriptor;
    }
    descriptor.address = load_le(d + ((card->bcr[20] & 0xff) == 3 ? 8 : 0), 4);
    descriptor.length = -load_le(d + 4, 2) & 0xfff;
    descriptor.status = load_le(d + 6, 2);
    return descriptor;
}

// Writes what the card changes; MESSAGE is the length of a received frame. The owner bit goes last.
static void write_descriptor(struct pcnet *card, const struct descriptor *d, bool receive, uint32_t message)
{
    uint8_t bytes[4];
    if (!wide(card)) {
        store_le(bytes, 2, message);
        if (receive)
            pci_dma_write(&card->pci, d->at + 6, bytes, 2);
        bytes[0] = d->status >> 8;
        pci_dma_write(&card->pci, d->at + 3, bytes, 1);
        return;
    }
    store_le(bytes, 4, message);
    if (receive)
        pci_dma_write(&card->pci, d->at + ((card->bcr[20] & 0xff) == 3 ? 0 : 8), bytes, 4);
    store_le(bytes, 2, d->status);
    pci_dma_write(&card->pci, d->at + 6, bytes, 2);
}

static unsigned ring_length(uint16_t negative)
{
    return negative ? -negative & 0xffff : 1;
}

// ---- Sending ----------------------------------------------------------------------------------------------------

static bool receive(void *opaque, const uint8_t *frame, size_t length);

static void end_frame(struct pcnet *card)
{
    card->frame_open = false;
    if (card->csr[15] & MODE_LOOP) {
        receive(card, card->frame, card->frame_length);
        return;
    }
    struct iovec iov = {card->frame, card->frame_length};
    nic_send(card->card.nic, &iov, 1);
    nic_settle(card->card.nic);
}

static void transmit(struct pcnet *card)
{
    unsigned count = ring_length(card->csr[78]);
    if (!(card->csr[0] & CSR0_TXON) || !pci_bus_master(&card->pci))
        return;
    for (unsigned n = 0; n < BUSY_MAX; n++) {
        struct descriptor d = read_descriptor(card, card->tx_ring, card->tx_index);
        if (!(d.status & OWN))
            break;
        if (d.status & STP) {
            card->frame_open = true;
            card->frame_length = 0;
        }
        if (card->frame_open) {
            uint32_t part = MIN(d.length, NIC_FRAME_MAX - card->frame_length);
            pci_dma_read(&card->pci, ring_address(card, d.address), card->frame + card->frame_length, part);
            card->frame_length += part;
            if (d.status & ENP)
                end_frame(card);
        }
        bool tell = !(card->csr[5] & CSR5_LTINTEN) || (d.status & LTINT);
        d.status &= ~(OWN | ERROR_BIT);
        write_descriptor(card, &d, false, 0);
        card->tx_index = (card->tx_index + 1) % count;
        if ((d.status & ENP) && tell)
            add_causes(card, CSR0_TINT);
    }
}

// ---- Receiving --------------------------------------------------------------------------------------------------

static uint16_t accept(const struct pcnet *card, const uint8_t *frame)
{
    uint16_t mode = card->csr[15];
    uint8_t physical[6], filter[8];
    for (unsigned i = 0; i < 3; i++)
        store_le(physical + 2 * i, 2, card->csr[12 + i]);
    for (unsigned i = 0; i < 4; i++)
        store_le(filter + 2 * i, 2, card->csr[8 + i]);
    if (memcmp(frame, "\xff\xff\xff\xff\xff\xff", 6) == 0)
        return mode & MODE_NO_BROADCAST && !(mode & MODE_PROMISCUOUS) ? 0 : RX_BROADCAST;
    // The hash of the filter takes the CRC's bits in the other order than its storage (little-endian CRC, top six).
    unsigned hash = card_fcs(frame, 6) >> 26 ^ 0x3f;
    if ((frame[0] & 1) && (filter[hash / 8] >> (hash % 8) & 1))
        return RX_LOGICAL;
    bool ours = memcmp(frame, physical, 6) == 0 && !(mode & MODE_NO_PHYSICAL);
    return ours || (mode & MODE_PROMISCUOUS) ? RX_PHYSICAL : 0;
}

// Descriptors that FRAME would need, as far as they are ours; 0: not enough.
static unsigned descriptors_for(struct pcnet *card, unsigned count, size_t length)
{
    size_t room = 0;
    for (unsigned n = 0; n < MIN(count, 16); n++) {
        struct descriptor d = read_descriptor(card, card->rx_ring, (card->rx_index + n) % count);
        if (!(d.status & OWN) || !d.length)
            return 0;
        room += d.length;
        if (room >= length)
            return n + 1;
    }
    return 0;
}

static bool receive(void *opaque, const uint8_t *frame, size_t length)
{
    struct pcnet *card = opaque;
    unsigned count = ring_length(card->csr[76]);
    uint16_t kind;
    if (!(card->csr[0] & CSR0_RXON) || !pci_bus_master(&card->pci) || length > 1518 || !(kind = accept(card, frame)))
        return true; // dropped
    uint8_t whole[1518 + 4];
    bool strip = card->csr[4] & CSR4_STRIP && length <= 60;
    memcpy(whole, frame, length);
    store_le(whole + length, 4, card_fcs(frame, length));
    size_t total = strip ? length : length + 4, done = 0;
    unsigned needed = descriptors_for(card, count, total);
    if (!needed) {
        add_causes(card, CSR0_MISS);
        return false; // the driver gives descriptors back and acknowledges
    }
    for (unsigned n = 0; n < needed; n++) {
        struct descriptor d = read_descriptor(card, card->rx_ring, card->rx_index);
        uint32_t part = MIN(d.length, total - done);
        pci_dma_write(&card->pci, ring_address(card, d.address), whole + done, part);
        done += part;
        d.status = (n == 0 ? STP : 0) | (n + 1 == needed ? ENP | kind : 0);
        write_descriptor(card, &d, true, n + 1 == needed ? total : 0);
        card->rx_index = (card->rx_index + 1) % count;
    }
    add_causes(card, CSR0_RINT);
    return true;
}

static const struct nic_client nic_client = {.receive = receive};

// ---- Control ----------------------------------------------------------------------------------------------------

static void initialize(struct pcnet *card)
{
    uint8_t block[28];
    uint32_t at = card->csr[1] | (uint32_t)card->csr[2] << 16;
    bool is_wide = wide(card);
    pci_dma_read(&card->pci, at, block, is_wide ? 28 : 24);
    const uint8_t *address = block + (is_wide ? 4 : 2), *filter = block + (is_wide ? 12 : 8);
    unsigned rx = is_wide ? block[2] >> 4 : block[19] >> 5, tx = is_wide ? block[3] >> 4 : block[23] >> 5;
    card->csr[15] = load_le(block, 2);
    for (unsigned i = 0; i < 3; i++)
        card->csr[12 + i] = load_le(address + 2 * i, 2);
    for (unsigned i = 0; i < 4; i++)
        card->csr[8 + i] = load_le(filter + 2 * i, 2);
    card->rx_ring = is_wide ? load_le(block + 20, 4) : load_le(block + 16, 4) & 0xffffff;
    card->tx_ring = is_wide ? load_le(block + 24, 4) : load_le(block + 20, 4) & 0xffffff;
    card->csr[76] = -(1u << MIN(rx, 9));
    card->csr[78] = -(1u << MIN(tx, 9));
    card->csr[24] = card->rx_ring;
    card->csr[25] = card->rx_ring >> 16;
    card->csr[30] = card->tx_ring;
    card->csr[31] = card->tx_ring >> 16;
    card->rx_index = card->tx_index = 0;
    card->frame_open = false;
    card->csr[0] |= CSR0_INIT;
    add_causes(card, CSR0_IDON);
}

static void start(struct pcnet *card)
{
    card->csr[0] &= ~CSR0_STOP;
    card->csr[0] |= CSR0_STRT;
    if (!(card->csr[15] & MODE_NO_TX))
        card->csr[0] |= CSR0_TXON;
    if (!(card->csr[15] & MODE_NO_RX))
        card->csr[0] |= CSR0_RXON;
    card->rx_index %= ring_length(card->csr[76]);
    card->tx_index %= ring_length(card->csr[78]);
}

static void stop(struct pcnet *card)
{
    card->csr[0] = CSR0_STOP;
    card->csr[4] &= ~0x02c2;
    card->frame_open = false;
}

static void write_csr0(struct pcnet *card, uint16_t value)
{
    uint16_t *csr0 = &card->csr[0];
    *csr0 &= ~(value & 0x7f00);
    *csr0 = (*csr0 & ~CSR0_INEA) | (value & CSR0_INEA);
    if (value & CSR0_STOP) {
        stop(card);
        update_interrupt(card);
        return;
    }
    if ((value & CSR0_INIT) && !(*csr0 & CSR0_INIT)) {
        *csr0 &= ~CSR0_STOP;
        initialize(card);
    }
    if ((value & CSR0_STRT) && !(*csr0 & CSR0_STRT))
        start(card);
    if (value & (CSR0_TDMD | CSR0_STRT))
        transmit(card);
    update_interrupt(card);
    nic_resume(card->card.nic);
}

static void soft_reset(struct pcnet *card)
{
    memset(card->csr, 0, sizeof card->csr);
    card->csr[0] = CSR0_STOP;
    card->csr[4] = 0x0115;
    card->csr[80] = 0x1410;
    card->csr[88] = 0x1003; // Am79C970A
    card->csr[89] = 0x0262;
    card->csr[112] = card->csr[114] = 0;
    card->csr[122] = card->csr[124] = 0;
    card->address = 0;
    card->bcr[18] &= ~BCR18_DWIO;
    card->bcr[20] = 0;
    card->frame_open = false;
    update_interrupt(card);
}

static void write_csr(struct pcnet *card, unsigned number, uint16_t value)
{
    bool stopped = card->csr[0] & CSR0_STOP;
    TRACE(pcnet_csr, "csr%u = %04x", number, value);
    switch (number) {
    case 0:
        write_csr0(card, value);
        return;
    case 3:
        card->csr[3] = value;
        update_interrupt(card);
        return;
    case 4:
        card->csr[4] = (card->csr[4] & ~(value & 0x026a)) & 0x026a;
        card->csr[4] |= value & ~0x026a;
        return;
    case 5:
        card->csr[5] = value & ~0x0a80;
        return;
    case 58: // software style
        card->bcr[20] = value & 0xff;
        return;
    case 88:
    case 89:
        return;
    }
    bool writable = number == 1 || number == 2 || (number >= 8 && number <= 15) || number == 24 || number == 25 ||
                    number == 30 || number == 31 || number == 76 || number == 78 || number == 46 || number == 47 ||
                    number == 80 || number == 82 || number == 100 || number == 112 || number == 114;
    if (!stopped || !writable)
        return;
    card->csr[number] = value;
    if (number == 24 || number == 25)
        card->rx_ring = card->csr[24] | (uint32_t)card->csr[25] << 16;
    if (number == 30 || number == 31)
        card->tx_ring = card->csr[30] | (uint32_t)card->csr[31] << 16;
}

static uint16_t read_csr(struct pcnet *card, unsigned number)
{
    if (number == 58)
        return (card->bcr[20] & 0xff) | (wide(card) ? 0x0100 : 0);
    return card->csr[number];
}

static void write_bcr(struct pcnet *card, unsigned number, uint16_t value)
{
    static const uint32_t writable = 1u << 2 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 9 | 1u << 18 | 1u << 22;
    if (number == 20)
        card->bcr[20] = value & 0xff;
    else if (number < 32 && (writable >> number & 1))
        card->bcr[number] = number == 18 ? (value & ~BCR18_DWIO) | (card->bcr[18] & BCR18_DWIO) : value;
}

static uint16_t read_bcr(struct pcnet *card, unsigned number)
{
    if (number >= 32)
        return 0;
    uint16_t value = card->bcr[number];
    if (number == 4) // the link LED
        return (value & 0x7fff) | ((value & 0x0040) && card->card.nic->link ? 0x8000 : 0);
    return number == 20 ? value | (wide(card) ? 0x0100 : 0) : value;
}

// ---- Registers --------------------------------------------------------------------------------------------------

// In 16-bit mode the four registers lie two bytes apart, in 32-bit mode four: data, address, reset, bus data.
enum resource { RESOURCE_DATA, RESOURCE_ADDRESS, RESOURCE_RESET, RESOURCE_BUS };

static enum resource resource(const struct pcnet *card, unsigned offset)
{
    return (offset - 0x10) / (card->bcr[18] & BCR18_DWIO ? 4 : 2) & 3;
}

static uint64_t pcnet_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pcnet *card = opaque;
    if (offset < 0x10)
        return load_le(card->prom + MIN(offset, 16 - size), size);
    switch (resource(card, offset)) {
    case RESOURCE_DATA:
        return read_csr(card, card->address);
    case RESOURCE_ADDRESS:
        return card->address;
    case RESOURCE_RESET:
        soft_reset(card);
        return 0;
    default:
        return read_bcr(card, card->address);
    }
}

static void pcnet_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pcnet *card = opaque;
    if (offset < 0x10) {
        if (card->bcr[2] & 0x0100) // the PROM's RAM copy is writable
            store_le(card->prom + MIN(offset, 16 - size), size, value);
        return;
    }
    if (offset == 0x10 && size == 4)
        card->bcr[18] |= BCR18_DWIO; // the first 32-bit write chooses the mode
    switch (resource(card, offset)) {
    case RESOURCE_DATA:
        write_csr(card, card->address, value);
        break;
    case RESOURCE_ADDRESS:
        card->address = value & 0x7f;
        break;
    case RESOURCE_RESET:
        break;
    default:
        write_bcr(card, card->address, value);
    }
}

static const struct io_ops ops = {pcnet_read, pcnet_write, 1, 4};

// ---- The device -------------------------------------------------------------------------------------------------

static void pcnet_reset(struct device *device)
{
    struct pcnet *card = (struct pcnet *)device;
    uint16_t sum = 0;
    memset(card->bcr, 0, sizeof card->bcr);
    card->bcr[0] = card->bcr[1] = 5;
    card->bcr[2] = 2;
    card->bcr[4] = 0x00c0;
    card->bcr[5] = 0x0084;
    card->bcr[6] = 0x0088;
    card->bcr[7] = 0x0090;
    card->bcr[18] = 0x9001;
    card->bcr[19] = 0x0002;
    memset(card->prom, 0, sizeof card->prom);
    memcpy(card->prom, card->card.nic->mac, 6);
    card->prom[9] = 0x11;
    card->prom[14] = card->prom[15] = 0x57;
    for (unsigned i = 0; i < sizeof card->prom; i++)
        sum += card->prom[i];
    store_le(card->prom + 12, 2, sum);
    soft_reset(card);
}

static bool pcnet_realize(struct device *device, GError **error)
{
    struct pcnet *card = (struct pcnet *)device;
    const struct pci_ids ids = {
        .vendor = 0x1022, .device = 0x2000, .revision = 0x10, .class_code = 2, .interrupt_pin = 1};
    card->frame = g_malloc0(NIC_FRAME_MAX);
    if (!card_open(&card->card, device, error) || !pci_device_init(&card->pci, &ids, -1, error))
        return false;
    region_init_io(&card->ports, "pcnet-ports", &ops, card, 32);
    region_init_io(&card->memory, "pcnet", &ops, card, 32);
    pci_set_bar(&card->pci, 0, &card->ports, true, false, false);
    pci_set_bar(&card->pci, 1, &card->memory, false, false, false);
    if (!card->card.no_rom)
        pci_set_rom(&card->pci, IPXE_ROM("pcnet"));
    pcnet_reset(device);
    nic_set_client(card->card.nic, &nic_client, card);
    return true;
}

static void pcnet_unrealize(struct device *device)
{
    struct pcnet *card = (struct pcnet *)device;
    card_close(&card->card);
    pci_device_exit(&card->pci);
    g_free(card->frame);
}

static bool pcnet_loaded(struct device *device, GError **error)
{
    struct pcnet *card = (struct pcnet *)device;
    card->frame_open = false;
    card->address &= 0x7f;
    return true;
}

static const struct property pcnet_properties[] = {CARD_PROPERTIES(struct pcnet, card), PROPERTY_END};

static const struct field pcnet_fields[] = {
    FIELD_STRUCT(struct pcnet, pci, pci_device_fields),
    FIELD_ARRAY(U16, struct pcnet, csr),
    FIELD_ARRAY(U16, struct pcnet, bcr),
    FIELD_U16(struct pcnet, address),
    FIELD_BYTES(struct pcnet, prom),
    FIELD_U32(struct pcnet, rx_ring),
    FIELD_U32(struct pcnet, tx_ring),
    FIELD_U32(struct pcnet, rx_index),
    FIELD_U32(struct pcnet, tx_index),
    FIELD_END,
};

const struct device_class pcnet_class = {
    .name = "pcnet",
    .help = "AMD PCnet-PCI II card (Am79C970A)",
    .size = sizeof(struct pcnet),
    .properties = pcnet_properties,
    .realize = pcnet_realize,
    .unrealize = pcnet_unrealize,
    .reset = pcnet_reset,
    .fields = pcnet_fields,
    .version = 1,
    .loaded = pcnet_loaded,
};
